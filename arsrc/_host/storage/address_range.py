"""Files mapped one behind the other into one reserved range of addresses, to be read as one array.

A range is reserved without memory behind it, and each file is mapped over its part when it is opened.
"""

import contextlib
import itertools
import mmap
import weakref
from collections.abc import Mapping
from typing import Self

import numpy as np
from numpy.typing import NDArray

from arsrc._host.storage import system
from arsrc._host.storage.open_file import OpenFile, most_open
from arsrc._host.storage.stamps import FileStamp, changed
from arsrc.errors import ArsrcReadError

_PART_BYTES = 1 << 16  # files begin at multiples of it; whole ArrayRecord files are as long as some
# Every file is one map, and Linux allows a process 65530 unless told otherwise: leave some to others.
_MAX_MAPS = 32_768
_MAX_PIECES = 1024  # of one call, says Linux
_kept: weakref.WeakSet[OpenFile] = weakref.WeakSet()  # of all ranges


def _can_copy() -> bool:
    """Whether the system lets this process copy from itself: containers may forbid the call."""
    source = np.ones(1, np.uint8)
    try:
        return system.calls.copy(np.array([[source.ctypes.data, 1]], np.uint64), np.empty(1, np.uint8)) == 1
    except OSError:
        return False


class _Memory:
    """A range of addresses as NumPy sees it, read only; given back when the last array over it is gone."""

    def __init__(self, address: int, num_bytes: int) -> None:
        self.__array_interface__ = {
            "shape": (num_bytes,),
            "typestr": "|u1",
            "data": (address, True),
            "version": 3,
        }
        # At exit other threads may still read; the system takes the range back anyway.
        weakref.finalize(self, system.calls.unmap, address, num_bytes).atexit = False


class AddressRange:
    """A range of addresses and the files mapped into it, which stay while anything refers to `data`.

    Attributes:
        data: u8[num_bytes], the whole range, read only. Touching it behind the end of a file that was truncated
            meanwhile, or where the disk fails, kills the process; `copy` does not.
        begins: Where each file begins in it, by path.
        can_copy: Whether the system permits `copy`.
    """

    def __init__(self, address: int, num_bytes: int, begins: dict[str, int], random_access: bool) -> None:
        self.data: NDArray[np.uint8] = np.asarray(_Memory(address, num_bytes))
        self.begins = begins
        self._address, self._random_access = address, random_access
        self._mapped: dict[str, OpenFile | None] = {}  # None: a descriptor too many
        self.can_copy = _can_copy()

    @classmethod
    def reserve(cls, files: Mapping[str, FileStamp], random_access: bool) -> Self | None:
        """Reserve a range for files, given by their paths; None where there are none, or too many, or maps are not.

        With random access the system fetches single pages. Otherwise it reads on, which is faster for records that
        stand side by side.
        """
        ends = list(itertools.accumulate(-(-stamp.num_bytes // _PART_BYTES) * _PART_BYTES for stamp in files.values()))
        if len(files) > _MAX_MAPS or not ends or not ends[-1]:
            return None
        if (address := system.calls.reserve(ends[-1])) is None:
            return None
        return cls(address, ends[-1], dict(zip(files, [0, *ends[:-1]], strict=True)), random_access)

    def map(self, path: str, stamp: FileStamp) -> bool:
        """Map a file, if it is not mapped yet; returns whether it is.

        Raises:
            ArsrcReadError: It is not what its stamp says any more.
        """
        if path in self._mapped:
            return True
        try:
            file = OpenFile(path)
            if (now := file.stamp()) != stamp:
                file.close()
                raise changed(path, stamp, now)
            address = self._address + self.begins[path]
            if not system.calls.map(file.fd, address, stamp.num_bytes):
                return False
        except ArsrcReadError:
            raise
        except OSError:
            return False
        if self._random_access:
            system.calls.advise(address, stamp.num_bytes, mmap.MADV_RANDOM)
        is_kept = len(_kept) < most_open()
        if is_kept:
            _kept.add(file)
        self._mapped[path] = file if is_kept else None
        return True

    def stamp(self, path: str) -> FileStamp | None:
        """Return what a mapped file is now, wherever it was moved to; None where no descriptor of it is kept."""
        file = self._mapped[path]
        return None if file is None else file.stamp()

    def copy(self, begins: NDArray[np.int64], sizes: NDArray[np.int64], out: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Copy pieces of the range one behind the other by the system, which tells of what cannot be read.

        Args:
            begins: i64[n]
            sizes: i64[n]
            out: u8[sum of sizes]

        Returns:
            i64[...], numbers of the pieces that cannot be read; what stands in their place means nothing.
        """
        pieces = np.stack((begins + self._address, sizes), axis=1).astype(np.uint64)
        ends = np.cumsum(sizes)
        failed, first = [], 0
        while first < len(pieces):
            last = min(first + _MAX_PIECES, len(pieces))
            at = int(ends[first] - sizes[first])
            done = at
            with contextlib.suppress(OSError):  # of the first piece, as it seems
                done += system.calls.copy(pieces[first:last], out[at : int(ends[last - 1])])
            first = last
            if done != ends[last - 1]:
                first = int(np.searchsorted(ends, done, side="right")) + 1
                failed.append(first - 1)
        return np.array(failed, np.int64)

    def will_need(self, begins: NDArray[np.int64], ends: NDArray[np.int64], gap: int) -> None:
        """Start reading the bytes `[begins, ends)` into the page cache, without waiting for them.

        Args:
            begins: i64[n], in any order.
            ends: i64[n]
            gap: Read what lies between two ranges too where it is at most so many bytes.
        """
        order = np.argsort(begins)
        begins = begins[order] // mmap.PAGESIZE * mmap.PAGESIZE
        reach = np.maximum.accumulate(ends[order])  # i64[n], the end of all ranges so far
        apart = np.flatnonzero(begins[1:] > reach[:-1] + gap)
        firsts = begins[np.concatenate(([0], apart + 1))] if len(begins) else begins
        lasts = reach[np.concatenate((apart, [len(reach) - 1]))] if len(begins) else reach
        for begin, end in zip(firsts.tolist(), lasts.tolist(), strict=True):
            system.calls.advise(self._address + begin, end - begin, mmap.MADV_WILLNEED)
