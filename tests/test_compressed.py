"""Compressed files are read from the map as array_record's reader reads them, whatever their records are like."""

import itertools
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_files import Chunk, Draft
from hypothesis import example, given
from hypothesis import strategies as st

from arsrc._host.format.layout import to_physical, varint
from arsrc._host.format.streams import BROTLI, can_decode
from arsrc._host.machine.buffers import BufferPool
from arsrc._host.readers.files import How
from arsrc._host.readers.group_cache import GroupCache
from arsrc._host.readers.map_reads import BadRows
from arsrc._host.records.data_set import DataSet
from arsrc._host.storage import system
from arsrc._host.storage.paths import FileSlice
from arsrc.errors import ArsrcReadError
from arsrc.record_batch import RecordBatch

WriteRecords = Callable[..., str]

# Around where sizes take another byte, frames another form, blocks of a file and of a frame end.
LENGTHS = [0, 1, 2, 127, 128, 255, 256, 257, 784, 4095, 4096, 16_384, 65_447, 65_488, 65_536, 131_071, 131_072]
LENGTHS += [131_073, 200_000]
COMPRESSIONS = ["zstd", "zstd:1", "zstd:19", "brotli:1", "snappy"]


def record(length: int, kind: int, rng: random.Random) -> bytes:
    """Noise, a text, zeros, or noise with many zeros."""
    noise = rng.randbytes(length)
    return [
        noise,
        (b"%d hello " % length * length)[:length],
        bytes(length),
        noise.translate(bytes(range(50)) + bytes(206)),
    ][kind]


def open_file(*paths: str, budget: int = 1 << 20, **options: Any) -> DataSet:
    memory = {"buffers": BufferPool(1 << 24), "groups": GroupCache(budget)}
    how = {"checksum": "auto", "max_open_files": 4, "random_access": True, **memory} | options
    return DataSet([FileSlice(path) for path in paths], **how)


def listed(batch: RecordBatch) -> list[bytes]:
    return [batch[row] for row in range(len(batch))]


@pytest.mark.parametrize("careful", [False, True])
@given(
    st.sampled_from(COMPRESSIONS),
    st.sampled_from([1, 1, 3, 64]),
    st.booleans(),
    st.lists(st.tuples(st.sampled_from(LENGTHS), st.integers(0, 3)), min_size=1, max_size=30),
    st.booleans(),
    st.sampled_from([0, 10_000, 1 << 22]),
    st.integers(0, 1 << 32).map(random.Random),
)
@example("zstd", 1, False, [(length, kind) for length in LENGTHS for kind in range(4)], False, 0, random.Random(0))
@example("zstd", 7, False, [(length, kind) for length in LENGTHS for kind in range(4)], False, 0, random.Random(0))
@example("zstd", 1, False, [(784, 0)] * 300, False, 0, random.Random(0))
@example("zstd", 1, False, [(784, 3)] * 300, False, 0, random.Random(0))
def test_records_are_those_that_were_written(
    records_dir: Path,
    write_records: WriteRecords,
    careful: bool,
    compression: str,
    group_size: int,
    is_padded: bool,
    kinds: list[tuple[int, int]],
    is_uniform: bool,
    budget: int,
    rng: random.Random,
) -> None:
    kinds = [(kinds[0][0], kind) for _, kind in kinds] if is_uniform else kinds
    records = [record(*kind, rng) for kind in kinds]
    padding = ",pad_to_block_boundary:true" * is_padded
    path = write_records(records_dir / "compressed", records, f"group_size:{group_size},{compression}{padding}")
    data_set = open_file(path, budget=budget)
    opened = data_set.files.opened
    is_lone = group_size == 1 or len(records) == 1
    can_map = compression.startswith("zstd") or (can_decode(BROTLI) and not (is_lone and "brotli" in compression))
    assert (opened.compressed is not None) == can_map
    if opened.compressed is not None:
        opened.compressed.reads.cold.is_worth_asking = careful
        assert opened.how.tolist() == [How.DECODED if is_lone else How.GROUPED]
    for _ in range(2):
        ids = rng.choices(range(len(records)), k=rng.randrange(1, 60))
        assert listed(data_set.read(np.array(ids)).records) == [records[one] for one in ids]
    assert listed(data_set.read(np.arange(len(records))).records) == records
    # Nothing looked wrong.
    assert bool(data_set.files.pool._open) == (not can_map)
    data_set.close()


def test_files_compressed_in_all_ways_are_read_together(tmp_path: Path, write_records: WriteRecords) -> None:
    rng = random.Random(5)
    records, paths = [], []
    for options in [f"group_size:{size},{how}" for how in (*COMPRESSIONS, "uncompressed") for size in (1, 4)]:
        some = [record(rng.choice([0, 5, 784, 70_000]), kind % 4, rng) for kind in range(9)]
        paths.append(write_records(tmp_path / options, some, options))
        records += some
    data_set = open_file(*paths)
    for _ in range(30):
        ids = rng.choices(range(len(records)), k=rng.randrange(1, 60))
        assert listed(data_set.read(np.array(ids)).records) == [records[one] for one in ids]
    data_set.close()


@pytest.mark.parametrize("compression", ["zstd", "snappy"])
@pytest.mark.parametrize("kind", range(4))
@pytest.mark.parametrize("length", [784, 40_000, 200_000])
def test_records_lie_in_the_memory_that_was_brought_where_they_take_all_of_it(
    tmp_path: Path, write_records: WriteRecords, length: int, kind: int, compression: str
) -> None:
    records = [record(length, kind, random.Random(seed)) for seed in range(12)]
    data_set = open_file(write_records(tmp_path / "lone", records, f"group_size:1,{compression}"))
    out = np.empty(12 * length, np.uint8)
    for slack in (0, 1):  # too much of it is not used
        out[:] = 0xA5
        found = data_set.read(np.arange(12)[::-1], out=out[: 12 * length - slack]).records
        assert listed(found) == records[::-1]
        assert np.shares_memory(found.data, out) == (not slack and can_decode(ord(compression[0])))
        assert (out == 0xA5).all() == (not np.shares_memory(found.data, out))
    data_set.close()


_HEADER_ENDS = 64 + 40  # of the first chunk
CUT = [record(length, kind, random.Random(length)) for length, kind in itertools.product([300, 784, 5_000], range(4))]


@pytest.mark.parametrize(
    "options", ["group_size:1,zstd", "group_size:5,zstd", "group_size:1,zstd,pad_to_block_boundary:true"]
)
def test_whatever_byte_of_a_chunks_frame_is_another_the_bytes_are_exact_or_an_error_names_the_record(
    tmp_path: Path, write_records: WriteRecords, options: str
) -> None:
    """Of what the frames hold, only hashes could tell: these bytes are not among those that are changed."""
    path = write_records(tmp_path / "a", CUT, options)
    content = Path(path).read_bytes()
    size = 5 if "5" in options else 1
    found = {"exact": 0, "error": 0}
    for at in range(64, _HEADER_ENDS + 40):
        for bit in (0, 7):
            changed = bytearray(content)
            changed[at] ^= 1 << bit
            Path(path).write_bytes(changed)
            outcomes = [read(path, np.arange(len(CUT))), read(path, np.arange(size, len(CUT)))]
            for first, outcome in zip((0, size), outcomes, strict=True):
                if isinstance(outcome, ArsrcReadError):
                    assert outcome.path == path
                    assert outcome.position in (None, 0)  # the whole file, or its first record
                    assert outcome.position is None or first == 0
                    found["error"] += 1
                else:
                    wrong = [row for row, got in enumerate(outcome, first) if got != CUT[row]]
                    assert not wrong or (at >= _HEADER_ENDS + 16 and wrong[-1] < size)
                    found["exact"] += not wrong
    assert min(found.values()) > 50


def read(path: str, ids: Any, **options: Any) -> list[bytes] | ArsrcReadError:
    """Open a file and read records of it."""
    try:
        data_set = open_file(path, **options)
        try:
            return listed(data_set.read(np.asarray(ids)).records)
        finally:
            data_set.close()
    except ArsrcReadError as error:
        return error


def test_zeros_where_the_middle_of_a_copy_never_arrived_are_errors_that_name_the_record(
    tmp_path: Path, write_records: WriteRecords
) -> None:
    rng = random.Random(0)
    records = [record(784, row % 4, rng) for row in range(2_000)]
    path = write_records(tmp_path / "a", records, "group_size:1,zstd")
    num_bytes = os.path.getsize(path)
    with open(path, "r+b") as file:
        file.seek(num_bytes // 3)
        file.write(bytes(num_bytes // 3))
    outcomes = {row: read(path, [row]) for row in range(0, 2_000, 7)}
    errors = {row: outcome for row, outcome in outcomes.items() if isinstance(outcome, ArsrcReadError)}
    assert 50 < len(errors) < 250
    for row, outcome in outcomes.items():
        if row in errors:
            assert (errors[row].path, errors[row].position, errors[row].record_id) == (path, row, row)
        else:
            assert outcome == [records[row]]


@pytest.mark.parametrize("group_size", [1, 8])
def test_two_chunks_that_have_changed_places_are_errors_unless_they_are_of_one_size(
    tmp_path: Path, write_records: WriteRecords, group_size: int
) -> None:
    records = [bytes(random.Random(row).choices(range(row % 7 + 2), k=700)) for row in range(64)]
    path = write_records(tmp_path / "a", records, f"group_size:{group_size},zstd")
    data_set = open_file(path)
    index = data_set.files.opened.files[path].index
    assert index is not None
    begins = (index.places.begins + 24).tolist()  # type: ignore[union-attr]  # all in one block
    data_set.close()
    content = bytearray(Path(path).read_bytes())
    first, (a, b, c) = 1, begins[1:4]
    content[a:c] = content[b:c] + content[a:b]
    assert c < 65_536 < len(content)
    Path(path).write_bytes(content)
    data_set = open_file(path)
    swapped = range(first * group_size, (first + 2) * group_size)
    others = [row for row in range(64) if row not in swapped]
    assert listed(data_set.read(np.array(others)).records) == [records[row] for row in others]
    for row in swapped:
        with pytest.raises(ArsrcReadError) as raised:
            data_set.read(np.array([row]))
        assert (raised.value.path, raised.value.position) == (path, row)
    data_set.close()


# What lies, with right hashes: records as array_record's reader gives them, or its error.


def frame(content: bytes, head: bytes) -> bytes:
    """A frame of one block that is not compressed."""
    return b"\x28\xb5\x2f\xfd" + head + (len(content) << 3 | 1).to_bytes(3, "little") + content


def lone(num_bytes: int, stream: bytes) -> bytes:
    """The data of a chunk of one record of so many bytes."""
    size = varint(num_bytes)
    sizes = varint(len(size)) + frame(size, bytes((0x20, len(size))))
    return b"z" + varint(len(sizes)) + sizes + size + stream


def check_lie(path: Path, chunks: list[Chunk]) -> list[bytes] | ArsrcReadError:
    made = Draft(chunks, "z")
    path.write_bytes(made.bytes())
    num_records = sum(chunk.num_records for chunk in chunks)
    official = read(str(path), range(num_records), checksum="always")
    found = read(str(path), range(num_records))
    assert isinstance(found, ArsrcReadError) == isinstance(official, ArsrcReadError)
    if isinstance(found, list):
        assert found == official
    return found


NOISE = random.Random(7).randbytes(5_000)
STREAMED, TWO_BYTES = b"\x00\x50", b"\x60" + (1_000 - 256).to_bytes(2, "little")


@pytest.mark.parametrize(
    ("num_bytes", "stream", "is_good"),
    [
        (1_000, frame(NOISE[:1_000], TWO_BYTES), True),
        (1_000, frame(NOISE[:1_000], STREAMED), True),
        (1_000, frame(NOISE[:1_000], STREAMED) + b"x", False),
        (1_000, frame(NOISE[:1_000], TWO_BYTES)[:-1], False),
        (1_000, frame(NOISE[:999], TWO_BYTES), False),
        (1_000, frame(NOISE[:1_000], b"\x60\xff\xff"), False),
        (5_000, frame(NOISE, STREAMED), True),
        (5_000, frame(NOISE, b"\x60" + (5_000 - 256).to_bytes(2, "little")), True),
        (5_000, frame(NOISE, b"\x60" + (5_000 - 256).to_bytes(2, "little"))[:-1], False),
        (5_000, frame(NOISE, STREAMED) + b"x", False),
        (0, frame(b"", b"\x20\x00"), True),
        (0, frame(b"", b"\x20\x00") + b"x", False),
        (1 << 40, frame(NOISE, STREAMED), False),
        (1 << 27, frame(NOISE, STREAMED), False),
    ],
)
def test_frames_of_lone_records_that_lie_are_errors(
    tmp_path: Path, num_bytes: int, stream: bytes, is_good: bool
) -> None:
    good = Chunk("r", 1, 1_000, lone(1_000, frame(NOISE[:1_000], TWO_BYTES)))
    lie = Chunk("r", 1, num_bytes, lone(num_bytes, stream))
    for chunks in ([lie], [good] * 20 + [lie] + [good] * 20):
        assert isinstance(check_lie(tmp_path / "lies", chunks), list) == is_good


@pytest.mark.parametrize("sizes", [[(1 << 55) + 20] * 512, [(1 << 55) + 10, (1 << 55) + 30] * 256, [1 << 50, 3]])
def test_sizes_whose_sum_begins_anew_are_errors(tmp_path: Path, sizes: list[int]) -> None:
    num_bytes = sum(sizes) % (1 << 64)
    written = b"".join(map(varint, sizes))
    content = bytes(num_bytes if num_bytes < 1 << 20 else 3)
    parts = [varint(len(part)) + frame(part, STREAMED) for part in (written, content)]
    chunk = Chunk("r", len(sizes), num_bytes, b"z" + varint(len(parts[0])) + b"".join(parts))
    assert isinstance(check_lie(tmp_path / "lies", [chunk]), ArsrcReadError)


def test_a_record_that_cannot_be_read_is_found_by_its_number_wherever_it_is_decoded(
    tmp_path: Path, write_records: WriteRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(0)
    records = [record(60_000, 3, rng) for _ in range(200)]
    path = write_records(tmp_path / "a", records, "group_size:1,zstd")
    data_set = open_file(path, limit=60.0)  # so that the system copies
    compressed = data_set.files.opened.compressed
    assert compressed is not None
    area = compressed.reads._area
    assert area is not None
    bad = 150
    begin = area.data.ctypes.data + area.begins[path] + int(to_physical(compressed._index.begins[[bad]])[0])

    class Unreadable(system.System):
        """The disk gives nothing of a part of one record."""

        def copy(self, pieces: Any, out: Any) -> int:
            is_hit = (pieces[:, 0] > begin + 50) & (pieces[:, 0] < begin + 500) & (pieces[:, 1] > 0)
            hit = np.flatnonzero(is_hit)
            if not len(hit):
                return super().copy(pieces, out)
            before = int(pieces[: hit[0], 1].sum())
            return super().copy(pieces[: hit[0]], out[:before]) if before else 0

    monkeypatch.setattr(system, "calls", Unreadable())
    places = data_set.files.numbering.find(np.arange(200))
    with pytest.raises(BadRows) as raised:
        compressed.read(places)
    assert raised.value.rows.tolist() == [bad]
    monkeypatch.undo()
    data_set.close()
