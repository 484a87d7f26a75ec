"""Data is what array_record's own reader returns for the ids served, however files are written and listed."""

import dataclasses
import glob
import itertools
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader
from hypothesis import example, given
from hypothesis import strategies as st

import arsrc
from arsrc.codecs import Ragged, Struct

COMPRESSIONS = ("uncompressed", "zstd", "brotli", "snappy")
GROUP_SIZES = (1, 7, 256)
CHECKSUMS = ("auto", "always")
NUM_RECORDS = 300  # more than one group of 256
MAX_LENGTH = 200

WriteRecords = Callable[..., str]


def stored(path: str) -> list[bytes]:
    """Read a file with array_record's own reader."""
    reader = ArrayRecordReader(path)
    records = reader.read_all()
    reader.close()
    return records


def served(config: arsrc.ArrayRecordSourceConfig) -> tuple[list[int], list[Any]]:
    """Give the ids of one epoch and the decoded rows, as the source serves them."""
    ids: list[int] = []
    rows: list[Any] = []
    config = dataclasses.replace(config, num_epochs=1, remainder="pad")
    for _, batch in arsrc.iterate(config):
        for row in np.flatnonzero(batch.mask):
            ids.append(int(batch.record_ids[row]))
            leaves = batch.data if isinstance(batch.data, dict) else {"": batch.data}
            rows.append({name: np.asarray(leaf)[row] for name, leaf in leaves.items()})
    arsrc.close(config)
    return ids, rows


def text_of(row: Any) -> bytes:
    """Undo `Ragged`: the bytes of a record."""
    return row["values"][: row["length"]].tobytes()


def check(paths: Any, expected: Sequence[bytes], **fields: Any) -> None:
    """Compare every record of a source, by its id, with what is stored; lengths differ."""
    config = arsrc.ArrayRecordSourceConfig(paths, 64, Ragged(max_length=MAX_LENGTH), **fields)
    ids, rows = served(config)
    assert sorted(ids) == list(range(len(expected)))
    assert [text_of(row) for row in rows] == [expected[i] for i in ids]
    assert all(not row["values"][row["length"] :].any() for row in rows)


@pytest.fixture(scope="module")
def ragged_files(tmp_path_factory: pytest.TempPathFactory, write_records: WriteRecords) -> dict[str, str]:
    """One file of records of 0 to 200 bytes for each compression and group size."""
    folder = tmp_path_factory.mktemp("ragged")
    paths = {}
    for number, (compression, size) in enumerate(itertools.product(COMPRESSIONS, GROUP_SIZES)):
        random = np.random.default_rng(number)
        lengths = random.integers(0, MAX_LENGTH + 1, NUM_RECORDS)
        records = [random.integers(0, 4, length, np.uint8).tobytes() for length in lengths]
        path, options = folder / f"{number:02d}.array_record", f"group_size:{size},{compression}"
        paths[options] = write_records(path, records, options)
    return paths


ALL_OPTIONS = [f"group_size:{size},{compression}" for compression in COMPRESSIONS for size in GROUP_SIZES]


@pytest.mark.parametrize("checksum", CHECKSUMS)
@pytest.mark.parametrize("options", ALL_OPTIONS)
def test_records_are_those_that_array_record_reads(ragged_files: dict[str, str], options: str, checksum: str) -> None:
    path = ragged_files[options]
    expected = stored(path)
    assert len(expected) == NUM_RECORDS
    read = arsrc.ReadOptions(checksum=checksum)
    check(path, expected, read=read)
    check(path, expected, read=read, shuffle_records=True)


@pytest.mark.parametrize("checksum", CHECKSUMS)
@pytest.mark.parametrize("shuffle", ["shuffle_files", "shuffle_records"])
def test_several_files_of_any_kind_are_one_sequence(ragged_files: dict[str, str], shuffle: str, checksum: str) -> None:
    paths = list(ragged_files.values())
    expected = [record for path in paths for record in stored(path)]
    read = arsrc.ReadOptions(checksum=checksum, max_open_files=3)
    check(paths, expected, read=read, **{shuffle: True})


@pytest.mark.parametrize("options", ["group_size:7,uncompressed", "group_size:256,zstd"])
def test_blocks_and_caches_hold_the_same_records(ragged_files: dict[str, str], options: str) -> None:
    path = ragged_files[options]
    expected = stored(path)
    order = {"shuffle_records": True, "shuffle_block_size": 7, "shuffle_window_blocks": 4}
    check(path, expected, **order)
    check(path, expected, **order, cacheable=True)


def slice_text(start: int | None, stop: int | None) -> str:
    return f"[{'' if start is None else start}:{'' if stop is None else stop}]"


cut = st.integers(0, NUM_RECORDS)
slices = st.lists(
    st.tuples(st.sampled_from(ALL_OPTIONS), st.none() | cut, st.none() | cut).filter(
        lambda part: part[1] is None or part[2] is None or part[1] <= part[2]
    ),
    min_size=1,
    max_size=5,
)


@given(parts=slices, checksum=st.sampled_from(CHECKSUMS))
@example(parts=[(ALL_OPTIONS[0], 0, 0), (ALL_OPTIONS[0], 299, 300), (ALL_OPTIONS[0], 300, None)], checksum="auto")
@example(parts=[(ALL_OPTIONS[2], 255, 257), (ALL_OPTIONS[2], 256, 256), (ALL_OPTIONS[5], 1, 8)], checksum="auto")
def test_slices_are_python_slices_of_their_files(
    ragged_files: dict[str, str], parts: list[tuple[str, int | None, int | None]], checksum: str
) -> None:
    paths = [ragged_files[options] + slice_text(start, stop) for options, start, stop in parts]
    expected = [record for options, start, stop in parts for record in stored(ragged_files[options])[start:stop]]
    if expected:
        check(paths, expected, read=arsrc.ReadOptions(checksum=checksum))
    else:
        config = arsrc.ArrayRecordSourceConfig(paths, 1, Ragged(max_length=MAX_LENGTH))
        with pytest.raises(arsrc.ArsrcValueError, match="no records"):
            arsrc.init(config)


def test_a_file_may_come_twice(ragged_files: dict[str, str]) -> None:
    path = ragged_files["group_size:7,zstd"]
    check([path, f"{path}[3:5]", path], [*stored(path), *stored(path)[3:5], *stored(path)])


def test_globs_expand_in_sorted_order_where_they_stand(tmp_path: Path, write_records: WriteRecords) -> None:
    for name in ("b-10", "b-2", "a-1", "c-0"):
        write_records(tmp_path / f"{name}.array_record", [f"{name}/{i}".encode() for i in range(3)])
    config_paths = [tmp_path / "c-*", tmp_path / "[ab]-*.array_record", tmp_path / "a-1.array_record"]
    names = ["c-0", "a-1", "b-10", "b-2", "a-1"]
    check(config_paths, [f"{name}/{i}".encode() for name in names for i in range(3)])
    in_order = [record for path in sorted(glob.glob(f"{tmp_path}/*")) for record in stored(path)]
    check(str(tmp_path / "*.array_record"), in_order)


def test_a_glob_may_be_sliced(tmp_path: Path, write_records: WriteRecords) -> None:
    for name in ("0", "1"):
        write_records(tmp_path / f"{name}.array_record", [f"{name}/{i}".encode() for i in range(5)])
    check(f"{tmp_path}/*.array_record[1:3]", [b"0/1", b"0/2", b"1/1", b"1/2"])


def test_a_name_with_the_letters_of_a_glob_is_that_file(tmp_path: Path, write_records: WriteRecords) -> None:
    path = write_records(tmp_path / "[ab]*.array_record", [b"this"])
    write_records(tmp_path / "a1.array_record", [b"not this"])
    check(path, [b"this"])


def test_file_instructions_are_slices(ragged_files: dict[str, str]) -> None:
    first, second = ragged_files["group_size:1,uncompressed"], ragged_files["group_size:256,brotli"]

    def instruction(filename: str, skip: int, take: int) -> types.SimpleNamespace:
        fields = {"filename": filename, "skip": skip, "take": take, "examples_in_shard": NUM_RECORDS}
        return types.SimpleNamespace(**fields)

    a, b = stored(first), stored(second)
    instructions = [
        instruction(first, 10, 5),
        instruction(second, 290, -1),
        instruction(first, 0, NUM_RECORDS),
    ]
    check(instructions, [*a[10:15], *b[290:], *a])
    check(instruction(second, 7, 1), b[7:8])


@pytest.mark.parametrize("checksum", CHECKSUMS)
@pytest.mark.parametrize(
    "options",
    [
        "group_size:1,uncompressed",
        "group_size:3,uncompressed",
        "group_size:3,zstd",
        "group_size:1,uncompressed,pad_to_block_boundary:true",
        "group_size:4,uncompressed,transpose:true",
    ],
)
def test_records_larger_than_a_block_of_the_file_are_whole(
    tmp_path: Path, write_records: WriteRecords, options: str, checksum: str
) -> None:
    """A file has a header every 64 KiB, which may stand inside a record."""
    random = np.random.default_rng(0)
    lengths = [1, 65_536, 0, 3, 65_500, 200_000, 65_535, 65_537, 7, 131_072, 60_000, 5_000, 1]
    records = [random.bytes(length) for length in lengths]
    path = write_records(tmp_path / "large.array_record", records, options)
    assert stored(path) == records
    config = arsrc.ArrayRecordSourceConfig(
        path, 4, Ragged(max_length=200_000), read=arsrc.ReadOptions(checksum=checksum), shuffle_records=True
    )
    ids, rows = served(config)
    assert [text_of(row) for row in rows] == [records[i] for i in ids]


# The other codecs.


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("size", GROUP_SIZES)
def test_bytes_are_the_records(tmp_path: Path, write_records: WriteRecords, compression: str, size: int) -> None:
    random = np.random.default_rng(size)
    options = f"group_size:{size},{compression}"
    path = write_records(tmp_path / "x.array_record", [random.bytes(33) for _ in range(NUM_RECORDS)], options)
    expected = stored(path)
    ids, rows = served(arsrc.ArrayRecordSourceConfig(path, 50, shuffle_records=True))
    assert sorted(ids) == list(range(NUM_RECORDS))
    assert [row[""].tobytes() for row in rows] == [expected[i] for i in ids]


FIELDS: dict[str, Any] = {"label": "int32", "image": ("uint8", (3, 5)), "weight": "float32", "flag": "bool"}
PACKED = np.dtype([("label", "<i4"), ("image", "u1", (3, 5)), ("weight", "<f4"), ("flag", "?")])


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("size", GROUP_SIZES)
def test_structs_are_the_fields_of_the_records(
    tmp_path: Path, write_records: WriteRecords, compression: str, size: int
) -> None:
    random = np.random.default_rng(size)
    table = np.zeros(NUM_RECORDS, PACKED)
    table["label"] = random.integers(-(2**31), 2**31, NUM_RECORDS)
    table["image"] = random.integers(0, 256, (NUM_RECORDS, 3, 5))
    table["weight"] = random.normal(size=NUM_RECORDS)
    table["flag"] = random.integers(0, 2, NUM_RECORDS)
    options = f"group_size:{size},{compression}"
    path = write_records(tmp_path / "x.array_record", [row.tobytes() for row in table], options)
    ids, rows = served(arsrc.ArrayRecordSourceConfig(path, 50, Struct(FIELDS), shuffle_records=True))
    expected = np.frombuffer(b"".join(stored(path)), PACKED)[ids]
    for name in FIELDS:
        found = np.stack([row[name] for row in rows])
        assert found.dtype == PACKED[name].base
        assert np.array_equal(found, expected[name])


def test_take_and_next_batch_give_what_array_record_gives_for_the_ids(ragged_files: dict[str, str]) -> None:
    path = ragged_files["group_size:7,zstd"]
    expected = stored(path)
    config = arsrc.ArrayRecordSourceConfig(path, 40, Ragged(max_length=MAX_LENGTH), shuffle_records=True)
    for batch in (arsrc.next_batch(config, arsrc.init(config))[1], arsrc.take(config, np.arange(40) * 7)):
        values, lengths = np.asarray(batch.data["values"]), np.asarray(batch.data["length"])
        for row, record_id in enumerate(np.asarray(batch.record_ids)):
            assert values[row, : lengths[row]].tobytes() == expected[record_id]
    arsrc.close(config)
