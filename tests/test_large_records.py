"""Records that are copied by the system, straight into place."""

import mmap
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mapped_files import opened, some_records

from arsrc import ArsrcReadError
from arsrc._host.format.layout import to_physical
from arsrc._host.machine.buffers import BufferPool
from arsrc._host.machine.copying import Copier

WriteRecords = Callable[..., str]
LENGTHS = [20_000, 65_511, 65_512, 65_513, 131_024, 300_000, 17_000, 1, 150_528, 64_000]

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs Linux")


@pytest.mark.parametrize("group_size", [1, 3])
@pytest.mark.parametrize("helped", [False, True])
def test_records_come_whole_and_in_order(
    tmp_path: Path, write_records: WriteRecords, group_size: int, helped: bool
) -> None:
    records = [some_records(seed, LENGTHS * 4) for seed in (0, 1)]
    options = f"group_size:{group_size},uncompressed"
    paths = [write_records(tmp_path / str(i), some, options) for i, some in enumerate(records)]
    copier = Copier()
    if not helped:
        copier.close()  # from now on whoever copies is alone
    files = opened(*paths, copier=copier)
    everything = records[0] + records[1]
    ids = np.random.default_rng(0).permutation(len(everything)).tolist() * 2
    assert files.records(ids) == [everything[i] for i in ids]
    files.close()
    copier.close()


def test_records_of_one_length_come_whole(tmp_path: Path, write_records: WriteRecords) -> None:
    records = some_records(0, [150_528] * 40)
    copier = Copier()
    files = opened(write_records(tmp_path / "a", records, "group_size:1,uncompressed"), copier=copier)
    ids = [39, 0, 0, *range(40)]
    assert files.records(ids) == [records[i] for i in ids]
    files.close()
    copier.close()


def test_a_record_may_have_more_pieces_than_one_call_takes(tmp_path: Path, write_records: WriteRecords) -> None:
    records = some_records(0, [40_000_000, 30_000])
    files = opened(write_records(tmp_path / "a", records, "group_size:1,uncompressed"))
    assert files.records([1, 0]) == records[::-1]
    files.close()


def test_a_file_that_was_replaced_still_gives_its_old_records(tmp_path: Path, write_records: WriteRecords) -> None:
    old, new = some_records(0, [30_000] * 4), some_records(1, [30_000] * 4)
    path = write_records(tmp_path / "a", old, "group_size:1,uncompressed")
    files = opened(path)
    os.replace(write_records(tmp_path / "b", new, "group_size:1,uncompressed"), path)
    assert files.records([3, 1]) == [old[3], old[1]]
    files.close()


def test_a_file_that_was_removed_still_gives_its_records(tmp_path: Path, write_records: WriteRecords) -> None:
    records = some_records(0, [30_000] * 4)
    path = write_records(tmp_path / "a", records, "group_size:1,uncompressed")
    files = opened(path)
    os.remove(path)
    assert files.records([3, 1]) == [records[3], records[1]]
    files.close()


@pytest.mark.parametrize("read_before", [False, True])
def test_a_file_that_became_shorter_is_an_error_that_names_it(
    tmp_path: Path, write_records: WriteRecords, read_before: bool
) -> None:
    path = write_records(tmp_path / "a", some_records(0, [100_000] * 8), "group_size:1,uncompressed")
    files = opened(path)
    if read_before:
        files.read([0])
    os.truncate(path, 200_000)
    with pytest.raises(ArsrcReadError, match=r"changed while it was open: it had .* bytes, now 200000"):
        files.read([7])
    files.close()


class Between(BufferPool):
    """Does something when memory is asked for: behind the look at the files, in front of the reading."""

    def __init__(self) -> None:
        super().__init__(1 << 20)
        self.act: Callable[[], object] = lambda: None

    def take(self, num_bytes: int) -> np.ndarray:
        self.act()
        return super().take(num_bytes)


@pytest.mark.parametrize("missing", [1, 20])
@pytest.mark.parametrize("read_before", [False, True])
def test_a_file_that_becomes_shorter_between_the_look_at_it_and_the_reading_is_an_error_that_names_it(
    tmp_path: Path, write_records: WriteRecords, read_before: bool, missing: int
) -> None:
    path = write_records(tmp_path / "a", some_records(0, [100_000] * 8), "group_size:1,uncompressed")
    files = opened(path, buffers=(between := Between()))
    located = files.locate([7])
    end = int(to_physical(located.starts + located.lengths - 1)[0]) + 1
    assert end % mmap.PAGESIZE > 20, "in the map, what is missing is zeros and no fault"
    if read_before:
        files.read([0])
    between.act = lambda: os.truncate(path, end - missing)
    with pytest.raises(ArsrcReadError, match=f"changed while it was open: it had .* bytes, now {end - missing}; .*/a'"):
        files.read([7])
    files.close()


@pytest.mark.parametrize("act", [os.remove, lambda path: os.replace(path + ".new", path)], ids=["removed", "replaced"])
@pytest.mark.parametrize("read_before", [False, True])
def test_a_file_that_goes_between_the_look_at_it_and_the_reading_still_gives_its_records(
    tmp_path: Path, write_records: WriteRecords, read_before: bool, act: Callable[[str], None]
) -> None:
    records = some_records(0, [100_000] * 4)
    path = write_records(tmp_path / "a", records, "group_size:1,uncompressed")
    write_records(tmp_path / "a.new", [b"new"], "group_size:1,uncompressed")
    files = opened(path, buffers=(between := Between()))
    if read_before:
        files.read([0])
    between.act = lambda: act(path)
    assert files.records([3, 1]) == [records[3], records[1]]
    files.close()


def test_closed_files_are_an_error(tmp_path: Path, write_records: WriteRecords) -> None:
    files = opened(write_records(tmp_path / "a", some_records(0, [30_000]), "group_size:1,uncompressed"))
    files.close()
    with pytest.raises(ArsrcReadError, match="the files were closed"):
        files.read([0])
