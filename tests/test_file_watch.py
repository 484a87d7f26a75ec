"""Files that are changed, replaced or removed while they are mapped."""

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mapped_files import file_index, opened, some_records

from arsrc._host.machine.buffers import BufferPool
from arsrc._host.readers.mapped import BadRows
from arsrc._host.storage import address_range
from arsrc._host.storage.address_range import AddressRange
from arsrc.errors import ArsrcReadError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="files are mapped on Linux only")

WriteRecords = Callable[..., str]


def change(path: str, how: str) -> None:
    """Do to a file what must not be done to it while it is mapped."""
    size = os.path.getsize(path)
    if how in ("emptied", "cut", "longer"):
        os.truncate(path, {"emptied": 0, "cut": size - 65_536, "longer": size + 65_536}[how])
    else:
        with open(path, "r+b") as file:
            file.seek(1_000)
            file.write(b"other")
    os.utime(path, ns=(0, 12_345))


@pytest.mark.parametrize("how", ["emptied", "cut", "longer", "written to"])
@pytest.mark.parametrize("num_files", [1, 3])
def test_a_file_changed_in_place_is_an_error_that_names_it(
    tmp_path: Path, write_records: WriteRecords, how: str, num_files: int
) -> None:
    records = some_records(0, [784] * 500)
    paths = [write_records(tmp_path / f"{i}", records, "group_size:1,uncompressed") for i in range(num_files)]
    files = opened(*paths)
    record_ids = np.arange(500) + 500 * (num_files - 1)
    assert files.records(record_ids) == records
    change(paths[-1], how)
    for _ in range(2):
        # With many files each is looked at only every few microseconds.
        threading.Event().wait(0.01)
        with pytest.raises(ArsrcReadError, match=r"^\[arsrc\] read: a file was changed .*" + paths[-1]):
            files.read(record_ids)
    if num_files > 1:
        assert files.records(np.arange(500)) == records
    os.remove(paths[-1])  # what was removed as it was can be read on, but not this
    with pytest.raises(ArsrcReadError, match=r"^\[arsrc\] read: a file was changed .*" + paths[-1]):
        files.read(record_ids)


AWAY: dict[str, Callable[[Path, Path], None]] = {
    "moved": lambda path, new: path.rename(new),
    "another at its path": lambda path, new: (path.rename(new), path.write_bytes(b"other"))[0],
    "another link of it": lambda path, new: (os.link(path, new), path.unlink())[0],
    "a symlink that leads elsewhere": lambda path, new: (path.unlink(), path.symlink_to("elsewhere"))[0],
}


@pytest.mark.parametrize("max_open", [0, 100], ids=["no descriptor left", "descriptors"])
@pytest.mark.parametrize("how", ["emptied", "cut", "written to"])
@pytest.mark.parametrize("away", AWAY)
@pytest.mark.parametrize("length", [784, 70_000])
def test_a_file_that_is_no_longer_at_its_path_is_still_looked_at(
    tmp_path: Path,
    write_records: WriteRecords,
    monkeypatch: pytest.MonkeyPatch,
    max_open: int,
    how: str,
    away: str,
    length: int,
) -> None:
    monkeypatch.setattr(address_range, "most_open", lambda: len(address_range._kept) + max_open)
    records = some_records(0, [length] * 10)
    real, path, new = tmp_path / "real", tmp_path / "a", tmp_path / "new"
    write_records(real, records, "group_size:1,uncompressed")
    if "symlink" in away:
        new = real
        path.symlink_to(real)
    else:
        real.rename(path)
    files = opened(os.fspath(path))
    assert files.records() == records
    AWAY[away](path, new)
    assert files.records() == records
    change(os.fspath(new), how)
    if max_open:
        with pytest.raises(ArsrcReadError, match=r"^\[arsrc\] read: a file was changed .*/a'"):
            files.read([9])
    elif how == "emptied":
        with pytest.raises(BadRows):
            files.read([9])
    else:  # nobody can tell, but the record is as it was
        assert files.records([9]) == [records[9]]


def test_as_many_files_are_looked_at_by_descriptors_as_the_system_allows(
    tmp_path: Path, write_records: WriteRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(address_range, "most_open", lambda: before + 3)
    before = len(address_range._kept)
    paths = [write_records(tmp_path / f"{i}", [b"abc"] * 5, "group_size:1,uncompressed") for i in range(5)]
    files = opened(*paths)
    assert len(address_range._kept) == before + 3
    files.close()
    assert len(address_range._kept) == before


def test_a_file_that_is_written_to_while_it_is_copied_is_an_error(tmp_path: Path, write_records: WriteRecords) -> None:
    class Writing(BufferPool):
        def take(self, num_bytes: int) -> np.ndarray:
            change(path, "written to")
            return super().take(num_bytes)

    path = write_records(tmp_path / "a", some_records(0, [784] * 500), "group_size:1,uncompressed")
    files = opened(path, buffers=Writing(1 << 20))
    with pytest.raises(ArsrcReadError, match=r"^\[arsrc\] read: a file was changed .*/a'"):
        files.read(np.arange(100, 400))


def test_a_file_that_was_removed_or_replaced_is_still_read_as_it_was(
    tmp_path: Path, write_records: WriteRecords
) -> None:
    records = some_records(0, [784] * 500)
    path = write_records(tmp_path / "a", records, "group_size:1,uncompressed")
    files = opened(path)
    os.replace(write_records(tmp_path / "b", [b"other"], "group_size:1,uncompressed"), path)
    assert files.records() == records
    os.remove(path)
    assert files.records() == records


def test_a_file_that_changed_between_indexing_and_mapping_is_an_error(
    tmp_path: Path, write_records: WriteRecords
) -> None:
    path = write_records(tmp_path / "a", [b"x"] * 100, "group_size:1,uncompressed")
    index = file_index(path)
    assert index is not None
    area = AddressRange.reserve({index.path: index.stamp}, False)
    assert area is not None
    change(path, "written to")
    with pytest.raises(ArsrcReadError, match="a file was changed"):
        area.map(index.path, index.stamp)
    os.remove(path)
    assert not area.map(index.path, index.stamp)
