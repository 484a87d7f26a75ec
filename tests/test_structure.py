"""Files that are damaged around their records: what is served is exact, or an error that names the record."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from mapped_files import Opened, opened, some_records

from arsrc import ArsrcReadError
from arsrc._host.format.gather import gather_equal
from arsrc._host.format.layout import (
    BLOCK_BYTES,
    FIRST_CHUNK,
    STREAM_BYTES,
    logical,
    parse_chunk_header,
    physical,
    varint_size,
)
from arsrc._host.format.singles import copy_singles, damaged_singles, uncompressed
from arsrc._host.format.structure import damaged as damaged_rows
from arsrc._host.machine.buffers import BufferPool
from arsrc._host.readers.group_cache import GroupCache
from arsrc._host.readers.map_reads import BadRows
from arsrc._host.records.data_set import DataSet
from arsrc._host.storage import system
from arsrc._host.storage.paths import FileSlice

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="files are mapped on Linux only")

WriteRecords = Callable[..., str]

LAYOUTS = {
    "uniform": ([9_000] * 12, "group_size:1"),
    "uniform groups": ([700] * 200, "group_size:60"),
    "spans": ([5_000 + 977 * row for row in range(14)], "group_size:1"),
    "groups": ([row * 37 % 1_500 for row in range(200)], "group_size:60"),
    "padded": ([1_000, 2_000, 70_000, 0, 500], "group_size:1,pad_to_block_boundary:true"),
    "large": ([100_000] * 3, "group_size:1"),
    "large spans": ([20_000, 1, 150_000, 65_512, 40_000], "group_size:1"),
}


class Damaged:
    """A mapped file, changed behind the back of everything that looks at its size and its time of change."""

    def __init__(self, path: str, records: list[bytes]) -> None:
        self.path, self.records = path, records
        self.files: Opened = opened(path)
        self.data = Path(path).read_bytes()

    def write(self, data: bytes, at: int = 0) -> None:
        time = os.stat(self.path).st_mtime_ns
        with open(self.path, "r+b") as file:
            file.seek(at)
            file.write(data)
        os.utime(self.path, ns=(time, time))

    @contextlib.contextmanager
    def holding(self, data: bytes, at: int = 0) -> Iterator[None]:
        self.write(data, at)
        try:
            yield
        finally:
            self.write(self.data[at : at + len(data)], at)

    def bad_rows(self) -> list[int]:
        """The rows that are errors; the others are exact, together and each alone."""
        everything = range(len(self.records))
        try:
            assert self.files.records() == self.records
            return []
        except BadRows as error:
            bad = error.rows.tolist()
        good = [row for row in everything if row not in bad]
        assert self.files.records(good) == [self.records[row] for row in good]
        for row in bad[:2]:
            with pytest.raises(BadRows):
                self.files.read([row])
        return bad


@pytest.fixture(params=[False, True], ids=["by the map", "by the system"])
def careful(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether small records too are copied by the system, as they are while the disk reads."""
    monkeypatch.setattr("arsrc._host.readers.cold_rule.ColdRule.note", lambda *_: None)
    monkeypatch.setattr("arsrc._host.readers.cold_rule._FEW_RECORDS", 0)
    return bool(request.param)


@pytest.fixture(params=LAYOUTS)
def damaged(request: pytest.FixtureRequest, tmp_path: Path, write_records: WriteRecords, careful: bool) -> Damaged:
    lengths, options = LAYOUTS[request.param]
    records = some_records(request.param, lengths)
    made = Damaged(write_records(tmp_path / "a", records, f"{options},uncompressed"), records)
    made.files.files.reads.cold.is_worth_asking = careful
    return made


def chunks_of(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Logical begins and ends of the chunks of records, and how many records they have."""
    begin = logical(FIRST_CHUNK)
    while physical(begin) < len(data) - BLOCK_BYTES:
        header = parse_chunk_header(bytes(data[physical(begin + byte)] for byte in range(40)))
        end = begin + 40 + header.data_size
        if header.kind == "r":
            yield begin, end, header.num_records
        begin = end


def test_any_byte_of_a_header_that_is_another_is_noticed_for_the_records_of_its_chunk(damaged: Damaged) -> None:
    *chunks, _ = chunks_of(damaged.data)  # the last one is the footer
    firsts = np.cumsum([0, *(count for *_, count in chunks)])
    assert firsts[-1] == len(damaged.records)
    for number in {0, len(chunks) // 2, len(chunks) - 1}:
        (begin, end, count), first = chunks[number], int(firsts[number])
        rows = list(range(first, first + count))
        values = 42 + varint_size(len(damaged.records[first])) if count == 1 else 41
        for byte in [*range(8, 16), *range(24, values)]:
            at = physical(begin + byte)
            with damaged.holding(bytes([damaged.data[at] ^ 1 << byte % 8]), at):
                bad = damaged.bad_rows()
            # The header of a chunk is also what tells that the one in front of it goes on to its end.
            assert bad == rows or (byte < 40 and bad[-count:] == rows)
        for block in range(-(-begin // STREAM_BYTES), (end - 1) // STREAM_BYTES + 1):
            for byte in range(8, 24):
                at = block * BLOCK_BYTES + byte
                with damaged.holding(bytes([damaged.data[at] ^ 1 << byte % 8]), at):
                    bad = damaged.bad_rows()
                assert bad
                assert set(bad) <= set(rows)
    assert damaged.bad_rows() == []


@pytest.mark.parametrize("length", [0, 1, 46, 127, 128, 784, 9_001])
def test_single_records_are_checked_alike_in_every_way(
    tmp_path: Path, write_records: WriteRecords, length: int
) -> None:
    records = some_records(length, [length] * (200_000 // (length + 40)))
    files = opened(write_records(tmp_path / "a", records, "group_size:1,uncompressed"))
    located, index = files.locate(range(len(records))), files.files._index
    assert files.files.reads._area is not None
    data = files.files.reads._area.data.copy()
    lengths = np.full(len(records), length)
    num_wrong = 0
    for block in range(BLOCK_BYTES, len(data) - 2 * BLOCK_BYTES, BLOCK_BYTES):
        for at in range(block - 100, block + 100):
            data[at] ^= 0x11
            wrong = damaged_rows(lambda begins, size: gather_equal(data, begins, size, None), located, index).tolist()
            copied, rows = copy_singles(data, located.begins, uncompressed(length), None)
            assert copied.tobytes() == gather_equal(data, located.begins, length, None).tobytes()
            assert rows.tolist() == wrong
            assert damaged_singles(data, located.starts, located.begins, lengths).tolist() == wrong
            num_wrong += len(wrong)
            data[at] ^= 0x11
    assert num_wrong


def test_other_bytes_behind_a_record_are_noticed_whatever_kind_of_chunk_they_seem_to_be(damaged: Damaged) -> None:
    *_, (_, end, _), (begin, _, count), _ = chunks_of(damaged.data)
    for kind in b"rp":
        other = bytearray(range(100, 140))
        other[24] = kind
        with damaged.holding(bytes(other), physical(begin)):
            bad = damaged.bad_rows()
        assert (len(damaged.records) - count - 1 in bad) == (begin == end)  # else padding lies between


def test_zeroed_swapped_and_repeated_blocks_are_noticed(damaged: Damaged) -> None:
    num_blocks = len(damaged.data) // BLOCK_BYTES - 1
    blocks = [damaged.data[at * BLOCK_BYTES : (at + 1) * BLOCK_BYTES] for at in range(num_blocks)]
    num_noticed = 0
    for here in range(1, num_blocks):
        for other in (bytes(BLOCK_BYTES), *blocks[1:]):
            with damaged.holding(other, here * BLOCK_BYTES):
                num_noticed += bool(damaged.bad_rows())
    assert num_noticed
    assert damaged.bad_rows() == []


def test_no_record_of_which_the_end_is_missing_is_served(damaged: Damaged) -> None:
    *chunks, (footer, *_) = chunks_of(damaged.data)
    end = physical(footer) + 40
    for begin in np.linspace(FIRST_CHUNK, physical(chunks[-1][1] - 1), 30, dtype=int).tolist():
        with damaged.holding(bytes(end - begin), begin):
            bad = damaged.bad_rows()
        assert bad == list(range(bad[0], len(damaged.records)))


@pytest.mark.parametrize("layout", ["uniform", "spans"])
def test_what_the_middle_of_an_unfinished_copy_holds_is_an_error_that_names_it(
    tmp_path: Path, write_records: WriteRecords, layout: str
) -> None:
    records = some_records(0, [784] * 8_000 if layout == "uniform" else [row % 1_500 for row in range(8_000)])
    path = write_records(tmp_path / "a", records, "group_size:1,uncompressed")
    num_bytes = os.path.getsize(path)
    with open(path, "r+b") as file:
        file.seek(num_bytes // 50)
        file.write(bytes(num_bytes * 9 // 10))
    data_set = DataSet(
        [FileSlice(path)],
        checksum="auto",
        max_open_files=1,
        random_access=False,
        buffers=BufferPool(1 << 20),
        groups=GroupCache(0),
    )
    errors = {}
    for row in range(0, 8_000, 13):
        try:
            assert data_set.read(np.array([row])).records[0] == records[row]
        except ArsrcReadError as error:
            errors[row] = error
    assert 460 < len(errors) < 600
    for row, error in errors.items():
        assert (error.path, error.position, error.record_id) == (path, row, row)
    with pytest.raises(ArsrcReadError) as caught:
        data_set.read(np.arange(8_000))
    assert min(errors) - 13 < caught.value.record_id <= min(errors)
    data_set.close()


# What the system says while it copies.


class Failing(system.System):
    """Copies nothing of some addresses, as where the disk fails or a file was cut."""

    def __init__(self, act: Callable[[], object] = lambda: None) -> None:
        self.bad: tuple[int, int] = (0, 0)
        self.act = act

    def copy(self, pieces: np.ndarray, out: np.ndarray) -> int:
        self.act()
        done = 0
        for address, size in pieces.tolist():
            if address < self.bad[1] and address + size > self.bad[0]:
                break
            done += size
        return min(done, super().copy(pieces, out))


@pytest.mark.parametrize("careful", [True], indirect=True)
def test_records_that_the_disk_cannot_read_are_errors_and_the_others_are_served(
    damaged: Damaged, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Failing()
    monkeypatch.setattr(system, "calls", calls)
    area = damaged.files.files.reads._area
    assert area is not None
    located = damaged.files.locate([1])
    begin = area.data.ctypes.data + int(located.begins[0])
    calls.bad = begin, begin + 1
    with pytest.raises(BadRows) as caught:
        damaged.files.read([2, 1, 0, 1])
    assert caught.value.rows.tolist() == [1, 3]
    assert damaged.files.records([2, 0]) == [damaged.records[2], damaged.records[0]]
    calls.bad = 0, 0
    assert damaged.files.records() == damaged.records


@pytest.mark.parametrize("careful", [True], indirect=True)
def test_a_file_that_is_cut_while_it_is_copied_is_an_error_that_names_it(
    damaged: Damaged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "calls", Failing(lambda: os.truncate(damaged.path, 0)))
    for _ in range(2):
        with pytest.raises(ArsrcReadError, match=r"a file was changed while it was open: it had .* now 0.*/a'"):
            damaged.files.read([1])


def test_where_the_system_forbids_to_copy_records_come_from_the_map(
    tmp_path: Path, write_records: WriteRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Forbidding(system.System):
        def copy(self, pieces: np.ndarray, out: np.ndarray) -> int:
            raise PermissionError

    monkeypatch.setattr(system, "calls", Forbidding())
    for name, (lengths, options) in LAYOUTS.items():
        records = some_records(name, lengths)
        path = write_records(tmp_path / name, records, f"{options},uncompressed")
        assert Damaged(path, records).bad_rows() == []
