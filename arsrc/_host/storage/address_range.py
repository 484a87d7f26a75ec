"""Files mapped one behind the other into one reserved range of addresses, to be read as one array.

A range is reserved without memory behind it, and each file is mapped over its part when it is opened. The standard
library cannot say where a map shall lie, hence libc by ctypes. A ctypes call also releases the GIL, which
`mmap.madvise` does not.
"""

import contextlib
import ctypes
import itertools
import mmap
import sys
import weakref
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from arsrc._host.storage.open_file import OpenFile
from arsrc._host.storage.stamps import FileStamp, changed
from arsrc.errors import ArsrcReadError

_MAP_FIXED = 0x10
_MAP_NORESERVE = 0x4000
_PART_BYTES = 1 << 16  # files begin at multiples of it; whole ArrayRecord files are as long as some
_PROT_NONE = 0
_MAP_FAILED = ctypes.c_void_p(-1).value
# Every file is one map, and Linux allows a process 65530 unless told otherwise: leave some to others.
_MAX_MAPS = 32_768


def _load_libc() -> Any:
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    size = ctypes.c_size_t
    libc.mmap.argtypes = [ctypes.c_void_p, size, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    libc.mmap.restype = ctypes.c_void_p
    libc.munmap.argtypes = [size, size]
    libc.madvise.argtypes = [size, size, ctypes.c_int]
    return libc


_LIBC = _load_libc()


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
        weakref.finalize(self, _LIBC.munmap, address, num_bytes).atexit = False


class AddressRange:
    """A range of addresses and the files mapped into it, which stay while anything refers to `data`.

    Attributes:
        data: u8[num_bytes], the whole range, read only. Touching it behind the end of a file that was truncated
            meanwhile kills the process.
        begins: Where each file begins in it, by path.
    """

    def __init__(self, address: int, num_bytes: int, begins: dict[str, int], random_access: bool) -> None:
        self.data: NDArray[np.uint8] = np.asarray(_Memory(address, num_bytes))
        self.begins = begins
        self._address, self._random_access = address, random_access
        self._mapped: set[str] = set()

    @classmethod
    def reserve(cls, files: Mapping[str, FileStamp], random_access: bool) -> Self | None:
        """Reserve a range for files, given by their paths; None where there are none, or too many, or maps are not.

        With random access the system fetches single pages. Otherwise it reads on, which is faster for records that
        stand side by side.
        """
        ends = list(itertools.accumulate(-(-stamp.num_bytes // _PART_BYTES) * _PART_BYTES for stamp in files.values()))
        if _LIBC is None or len(files) > _MAX_MAPS or not ends or not ends[-1]:
            return None
        address = _LIBC.mmap(None, ends[-1], _PROT_NONE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE, -1, 0)
        if address == _MAP_FAILED:
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
            with contextlib.closing(OpenFile(path)) as file:
                if (now := file.stamp()) != stamp:
                    raise changed(path, stamp, now)
                address, flags = self._address + self.begins[path], mmap.MAP_SHARED | _MAP_FIXED
                if _LIBC.mmap(address, stamp.num_bytes, mmap.PROT_READ, flags, file.fd, 0) == _MAP_FAILED:
                    return False
        except ArsrcReadError:
            raise
        except OSError:
            return False
        if self._random_access:
            _LIBC.madvise(address, stamp.num_bytes, mmap.MADV_RANDOM)
        self._mapped.add(path)
        return True

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
            _LIBC.madvise(self._address + begin, end - begin, mmap.MADV_WILLNEED)
