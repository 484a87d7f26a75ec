"""Elements in two files that only grow: their rows, and which record lies where."""

import errno
import os
import stat
import threading
from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from arsrc._host.records.element_rows import RowLayout
from arsrc._host.records.leaves import Leaves
from arsrc._host.storage import system
from arsrc._host.storage.open_file import OpenFile

_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
_BLOCK_BYTES = 1 << 18  # packed, written and checked at a time, in the processor's cache
_PLACES_BYTES = 1 << 20  # read at a time
_PLACE = np.dtype(("<i8", 2))  # a record, and where its row ends: writes that a full disk cuts leave whole ones

Ids: TypeAlias = NDArray[np.int64]


class RowLog:
    """Elements by record id, which any number of processes add to and take from.

    Rows are appended to one file and never written over; then their places are appended to the other. A row is taken
    once this process has read it back, and found what was written. So whatever a kill, a full disk or a cut of power
    leaves of the files costs work and no data, in whatever order it came to the disk: nothing waits for that.

    Args:
        folder: Where the files lie, made if there are none.
        num_records: Records there may be.
        layout: How elements lie in rows.

    Attributes:
        was_bad: Whether there were rows that are not what was written.
        is_writable: Whether more can be added.

    Raises:
        OSError: The files cannot be opened. The methods raise it where they cannot be read or written to.
    """

    def __init__(self, folder: str, num_records: int, layout: RowLayout) -> None:
        self._layout, self._lock = layout, threading.RLock()
        self._rows, are_writable = _opened(os.path.join(folder, "rows"))
        self._places, self.is_writable = _opened(os.path.join(folder, "places"))
        self.is_writable &= are_writable
        self._data = memoryview(b"")  # the file, as far as rows were looked at
        # Where the row of each record ends: 0 for nowhere, and less than that as long as it was not read back.
        self._ends = np.zeros(num_records, np.int64)
        self._num_read, self.was_bad = 0, False
        for ids, ends in self._new_places():
            self._ends[ids] = -ends
        self._most_missing = self.num_missing

    @property
    def num_missing(self) -> int:
        """Records whose place is not known."""
        return len(self._ends) - int(np.count_nonzero(self._ends))

    def find(self, ids: Ids) -> tuple[Ids, Ids]:
        """Return where the rows of some records end, and the positions in `ids` of those that are not there."""
        self._num_bytes()
        missing = np.flatnonzero((ends := self._ends[ids]) <= 0)
        if len(missing):
            if np.count_nonzero(ends) < len(ids):
                self._look()
            others = ids[missing]
            if len(unchecked := others[self._ends[others] < 0]):
                self._check(unchecked)
            missing = np.flatnonzero((ends := self._ends[ids]) <= 0)
        return ends, missing

    def take(self, ends: Ids) -> Leaves:
        """Return the leaves of rows that were found."""
        return self._layout.take(self._data, ends)

    def add(self, ids: Ids, leaves: Leaves) -> bool:
        """Add records; return whether that made it complete."""
        at = np.argsort(ids)  # neighbours are likely to be read together again
        at = at[np.append(True, np.diff(ids[at]) > 0)]  # each record once
        ids = ids[at]
        for start in range(0, len(ids), step := self._num_at_once):
            some, which = ids[start : start + step], at[start : start + step]
            rows = self._layout.pack([leaf[which] for leaf in leaves], some)
            with self._lock:  # threads share the descriptor, and with it the place where it is
                begin = system.calls.append(self._rows.fd, rows.data)
                ends = begin + self._layout.num_bytes * np.arange(1, len(some) + 1)
                places = np.stack([some, ends], 1).astype(_PLACE.base).data
                self._add_places(places)
        return self._look()

    def _add_places(self, places: memoryview) -> None:
        while rest := system.calls.append(self._places.fd, places) % _PLACE.itemsize:  # the file was cut
            system.calls.append(self._places.fd, bytes(_PLACE.itemsize - rest))

    @property
    def _num_at_once(self) -> int:
        return max(1, _BLOCK_BYTES // self._layout.num_bytes)

    def _num_bytes(self) -> int:
        """Return how long the file of rows is."""
        num_mapped = len(self._data)  # first: meanwhile, other threads may add to the file and map more of it
        num_bytes = system.calls.fstat(self._rows.fd).st_size
        if num_bytes < num_mapped:  # behind its end, a map must not be touched
            raise OSError(errno.EIO, "a file was cut", self._rows.path)
        return num_bytes

    def _look(self) -> bool:
        """Note what was added since, here or by others; return whether that made it complete."""
        with self._lock:
            was_complete = self._most_missing == 0
            for ids, ends in self._new_places():
                before = self._ends[ids]
                self._most_missing -= len(ids) - int(np.count_nonzero(before))
                self._ends[ids[before <= 0]] = -ends[before <= 0]
            if self._most_missing <= 0:  # records may have come twice
                self._most_missing = self.num_missing
            return self._most_missing == 0 and not was_complete

    def _new_places(self) -> Iterator[tuple[Ids, Ids]]:
        """Yield records, and where their rows end, that have not been read yet."""
        end = system.calls.fstat(self._places.fd).st_size
        while (num_bytes := min(end - self._num_read, _PLACES_BYTES)) > 0:
            data = system.calls.pread(self._places.fd, num_bytes, self._num_read)
            num_places = len(data) // _PLACE.itemsize
            if num_places == 0:
                return
            self._num_read += num_places * _PLACE.itemsize
            found = np.frombuffer(data, _PLACE.base, 2 * num_places).reshape(-1, 2)
            is_one = (found[:, 0] >= 0) & (found[:, 0] < len(self._ends)) & (found[:, 1] >= self._layout.num_bytes)
            yield found[is_one, 0], found[is_one, 1]

    def _check(self, ids: Ids) -> None:
        """Read rows back, and forget the places of those that are not what was written."""
        ends = -self._ends[ids]
        if ends.max() > len(self._data):
            with self._lock:
                if num_bytes := self._num_bytes():
                    self._data = system.calls.view(self._rows.fd, num_bytes)
        is_good = ends <= len(self._data)
        inside = np.flatnonzero(is_good & (ends > 0))
        for start in range(0, len(inside), step := self._num_at_once):
            some = inside[start : start + step]
            is_good[some] = self._layout.are_whole(self._data, ends[some], ids[some])
        with self._lock:
            is_same = (ends > 0) & (self._ends[ids] == -ends)  # others may have looked at it, or added it, meanwhile
            self._ends[ids[is_good & is_same]] = ends[is_good & is_same]
            bad = ids[~is_good & is_same]
            self._ends[bad] = 0
            self._most_missing += len(bad)
            self.was_bad |= len(bad) > 0


def _opened(path: str) -> tuple[OpenFile, bool]:
    """Return a file, made if there is none, and whether it can be added to."""
    flags = os.O_NOFOLLOW | os.O_NONBLOCK  # nor wait for the other end of a pipe
    try:
        file, is_writable = OpenFile(path, flags | os.O_RDWR | os.O_CREAT | os.O_APPEND), True
    except OSError as error:
        if error.errno not in _READ_ONLY:
            raise
        try:
            file, is_writable = OpenFile(path, flags | os.O_RDONLY), False
        except FileNotFoundError:
            raise error from None
    if not stat.S_ISREG(system.calls.fstat(file.fd).st_mode):
        raise OSError(errno.EINVAL, "is no regular file", path)
    return file, is_writable
