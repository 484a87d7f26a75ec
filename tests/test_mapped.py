"""Reading from the map: every record equals what array_record's own reader gives, or there is no map."""

import contextlib
import itertools
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mapped_files import Opened, opened, some_records

from arsrc._host.machine import waiting
from arsrc._host.machine.buffers import BufferPool
from arsrc._host.machine.waiting import num_waits
from arsrc._host.readers.cold_rule import ColdRule
from arsrc._host.storage.open_file import most_open
from arsrc._host.storage.paths import FileSlice
from arsrc.errors import ArsrcIndexError, ArsrcReadError, ArsrcValueError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="files are mapped on Linux only")

WriteRecords = Callable[..., str]

LENGTHS = [0, 1, 100, 127, 128, 784, 16_384, 16_385, *range(65_466, 65_474), *range(65_509, 65_538, 3)]


@given(
    st.lists(st.sampled_from([*LENGTHS, 2, 3, 50, 5_000, 30_000, 200_000]), min_size=1, max_size=60),
    st.sampled_from([1, 1, 2, 7, 256]),
    st.sampled_from(["", ",pad_to_block_boundary:true"]),
    st.data(),
)
def test_any_ids_of_any_lengths_are_read(
    records_dir: Path,
    write_records: WriteRecords,
    lengths: list[int],
    group_size: int,
    padding: str,
    data: st.DataObject,
) -> None:
    records = some_records(0, lengths)
    path = write_records(records_dir / "any", records, f"group_size:{group_size},uncompressed{padding}")
    files = opened(path, random_access=data.draw(st.booleans()))
    for _ in range(3):
        ids = data.draw(st.lists(st.integers(0, len(records) - 1), max_size=40))
        expected = [records[i] for i in ids]
        out = np.full(sum(map(len, expected)) + 5, 0xAA, np.uint8)
        assert files.records(ids) == expected
        assert files.records(ids, out) == expected
        assert bytes(out) == b"".join(expected) + b"\xaa" * 5
    files.close()
    os.remove(path)


# Many files.


def test_many_small_shards_of_all_kinds_are_one_sequence(tmp_path: Path, write_records: WriteRecords) -> None:
    expected: list[bytes] = []
    paths = []
    for shard in range(300):
        length = (100, 784, 784, 0, 3_000)[shard % 5]
        lengths = [length] * 9 if shard % 3 else [length + row for row in range(shard % 11)]
        records = some_records(shard, lengths)
        options = f"group_size:{(1, 1, 4, 256)[shard % 4]},uncompressed"
        paths.append(write_records(tmp_path / f"{shard}", records, options))
        expected += records
    files = opened(*paths, random_access=True)
    assert files.num_records == len(expected)
    assert files.records() == expected
    ids = np.random.default_rng(0).integers(0, len(expected), 5_000)
    assert files.records(ids) == [expected[i] for i in ids]
    assert 0 < num_open(tmp_path) <= most_open()
    files.close()
    assert num_open(tmp_path) == 0


def num_open(folder: Path) -> int:
    """How many descriptors of this process are of files in a folder."""
    found = 0
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the list itself
            found += os.readlink(f"/proc/self/fd/{number}").startswith(f"{folder}/")
    return found


@pytest.mark.parametrize("options", ["group_size:1,uncompressed", "group_size:4,uncompressed"])
@pytest.mark.parametrize("lengths", [[500] * 30, list(range(400, 430))])
def test_slices_of_the_same_and_of_other_files_are_one_sequence(
    tmp_path: Path, write_records: WriteRecords, options: str, lengths: list[int]
) -> None:
    content = [some_records(name, lengths) for name in "ab"]
    paths = [write_records(tmp_path / name, content[i], options) for i, name in enumerate("ab")]
    slices = [(0, 3, 11), (1, 0, 30), (0, 0, 4), (0, 29, 30), (1, 8, 8), (1, 4, 8), (0, 27, 29)]
    files = opened(*(FileSlice(paths[file], *bounds) for file, *bounds in slices))
    assert num_maps(paths[0]) == 1
    assert files.records() == [r for file, start, stop in slices for r in content[file][start:stop]]


def test_slices_may_differ_much_in_size(tmp_path: Path, write_records: WriteRecords) -> None:
    expected: list[bytes] = []
    paths = []
    for shard, num_records in enumerate([1, 2_000, 1, 3, 500]):
        records = some_records(shard, [8] * num_records)
        paths.append(write_records(tmp_path / f"{shard}", records, "group_size:1,uncompressed"))
        expected += records
    assert opened(*paths).records() == expected


# What the caller gets.


def test_ids_outside_are_refused(tmp_path: Path, write_records: WriteRecords) -> None:
    files = opened(write_records(tmp_path / "a", [b"x"] * 10, "group_size:1,uncompressed"))
    start = r"^\[arsrc\] read: a record id lies outside \[0, 10\)"
    for wrong in (-1, 10, 2**40, -(2**63)):
        for call in (files.read, files.locate):
            with pytest.raises(ArsrcIndexError, match=rf"{start}; got record_id={wrong}\."):
                call(np.array([3, wrong, 4]))
    assert files.records([]) == []


def test_an_output_that_is_too_small_is_refused(tmp_path: Path, write_records: WriteRecords) -> None:
    files = opened(write_records(tmp_path / "a", [b"abc"] * 10, "group_size:1,uncompressed"))
    with pytest.raises(ArsrcValueError, match=r"out_bytes=29, record_bytes=30\."):
        files.read(np.arange(10), np.empty(29, np.uint8))


@pytest.mark.parametrize("lengths", [[784] * 4_000, [200_000] * 12, [50, 5_000] * 500])
def test_large_batches_come_from_the_pool_and_are_not_overwritten_while_held(
    tmp_path: Path, write_records: WriteRecords, lengths: list[int]
) -> None:
    records = some_records(0, lengths)
    path = write_records(tmp_path / "a", records, "group_size:1,uncompressed")
    pool = BufferPool(1 << 30)
    files = opened(path, buffers=pool)
    ids = np.arange(len(records))
    first = files.read(ids)
    second = files.read(ids[::-1])
    assert bytes(first.data) == b"".join(records)
    assert bytes(second.data) == b"".join(records[::-1])
    address = first.data.ctypes.data
    del first
    assert files.read(ids).data.ctypes.data == address


def test_records_outlive_the_map(tmp_path: Path, write_records: WriteRecords) -> None:
    for lengths in ([784] * 100, [10, 200] * 50, [100_000] * 3, [0, 150_000]):
        records = some_records(0, lengths)
        path = write_records(tmp_path / "a", records, "group_size:1,uncompressed")
        files = opened(path)
        batch = files.read(np.arange(len(records)))
        files.close()
        del files
        assert [batch[row] for row in range(len(batch))] == records


# Asking the system for records ahead.


def is_in_memory(path: str, position: int) -> bool:
    with open(path, "rb") as file:
        try:
            return os.preadv(file.fileno(), [bytearray(1)], position, os.RWF_NOWAIT) == 1
        except BlockingIOError:
            return False


def drop_from_memory(path: str) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def test_a_cold_read_brings_in_the_records_and_not_what_lies_between(
    tmp_path: Path, write_records: WriteRecords
) -> None:
    records = some_records(0, [200_000] * 50)
    path = write_records(tmp_path / "a", records, "group_size:1,uncompressed")
    files = opened(path, random_access=True)
    drop_from_memory(path)
    if is_in_memory(path, 100 + 46 * 200_000):  # far from the others: to ask may bring in what lies around
        pytest.skip("the file system keeps files in memory")
    assert files.records([30, 10, 11]) == [records[row] for row in (30, 10, 11)]
    middles = {row: 100_000 + row * 200_120 for row in (10, 11, 20, 30, 40)}
    assert [row for row in middles if is_in_memory(path, middles[row])] == [10, 11, 30]


def test_records_are_asked_for_while_the_disk_reads_and_not_when_they_are_in_memory() -> None:
    rule = ColdRule()
    assert rule.is_worth_asking
    for num_records, waited, expected in [(1, False, True), (256, False, False), (1, False, False), (1, True, True)]:
        rule.note(num_records, waited)
        assert rule.is_worth_asking == expected


def test_this_thread_sees_that_the_disk_reads(tmp_path: Path, write_records: WriteRecords) -> None:
    path = write_records(tmp_path / "a", some_records(0, [784] * 3_000), "group_size:1,uncompressed")
    files = opened(path, random_access=True)
    drop_from_memory(path)
    if is_in_memory(path, 1_000_000):
        pytest.skip("the file system keeps files in memory")
    ids = np.random.default_rng(0).integers(0, 3_000, 500)
    waits = []
    for _ in range(2):
        before = num_waits()
        files.read(ids)
        waits.append(num_waits() - before)
    assert waits[0] > 0
    assert waits[1] == 0


def test_where_the_system_does_not_count_for_threads_nobody_ever_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_THREAD", None)  # as on macOS
    assert num_waits() == 0


# Closing.


def num_maps(path: str) -> int:
    return sum(path in line for line in Path("/proc/self/maps").read_text().splitlines())


def test_closing_unmaps_and_later_reads_fail(tmp_path: Path, write_records: WriteRecords) -> None:
    path = write_records(tmp_path / "a", [b"abc"] * 10, "group_size:1,uncompressed")
    files = opened(path)
    assert num_maps(path) == 1
    files.close()
    files.close()
    assert num_maps(path) == 0
    with pytest.raises(ArsrcReadError, match=r"^\[arsrc\] read: the files were closed"):
        files.read(np.array([0]))


def test_files_that_nobody_uses_any_more_are_unmapped(tmp_path: Path, write_records: WriteRecords) -> None:
    path = write_records(tmp_path / "a", [b"abc"] * 10, "group_size:4,uncompressed")
    files = opened(path)
    batch = files.read(np.arange(10))
    assert num_maps(path) == 1
    del files
    assert num_maps(path) == 0
    assert batch[9] == b"abc"


@pytest.mark.parametrize("lengths", [[784] * 3_000, [10, 1_500] * 1_000, [150_000] * 20])
def test_closing_while_threads_read_gives_whole_records_or_an_error(
    tmp_path: Path, write_records: WriteRecords, lengths: list[int]
) -> None:
    records = some_records(0, lengths)
    path = write_records(tmp_path / "a", records, "group_size:1,uncompressed")
    pool = BufferPool(1 << 24)
    for delay in (0.0, 0.01, 0.05):
        files = opened(path, buffers=pool)
        outcomes: list[str] = []

        def read_until_closed(seed: int, files: Opened = files, outcomes: list[str] = outcomes) -> None:
            rng = np.random.default_rng(seed)
            for turn in itertools.count():
                ids = rng.integers(0, len(records), min(len(records), 700) if turn % 2 else 10)
                try:
                    batch = files.read(ids)
                except ArsrcReadError:
                    break
                if b"".join(records[i] for i in ids) != bytes(batch.data):
                    outcomes.append("wrong")
            outcomes.append("closed")

        threads = [threading.Thread(target=read_until_closed, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        threading.Event().wait(delay)
        files.close()
        for thread in threads:
            thread.join()
        assert outcomes == ["closed"] * 4
