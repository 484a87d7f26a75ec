"""Files mapped one behind the other into one reserved range of addresses, to be read as one array.

A range is reserved without memory behind it, then each file is mapped over its part. The standard library
cannot say where a map shall lie, hence libc by ctypes. A ctypes call also releases the GIL, which
`mmap.madvise` does not.
"""

import ctypes
import mmap
import os
import sys
import weakref
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from arsrc._host.storage.open_file import OpenFile

_MAP_FIXED = 0x10
_PROT_NONE = 0
_MAP_FAILED = ctypes.c_void_p(-1).value
# Every file is one map, and Linux allows a process 65530 unless told otherwise: leave some to others.
MAX_MAPS = 32_768


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
    """A reserved range of addresses; it and the files mapped into it stay while anything refers to `data`.

    Attributes:
        data: u8[num_bytes], the whole range, read only. Touching it where no file is mapped, or behind the end of
            a file that was truncated meanwhile, kills the process.
    """

    def __init__(self, address: int, num_bytes: int) -> None:
        self._address = address
        self.data: NDArray[np.uint8] = np.asarray(_Memory(address, num_bytes))

    @classmethod
    def reserve(cls, num_bytes: int) -> Self | None:
        """Reserve a range, or return None where this does not work."""
        if _LIBC is None or num_bytes <= 0:
            return None
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        address = _LIBC.mmap(None, num_bytes, _PROT_NONE, flags, -1, 0)
        return None if address == _MAP_FAILED else cls(address, num_bytes)

    def map_file(self, file: OpenFile, position: int, num_bytes: int) -> None:
        """Map the first `num_bytes` of a file, which may be closed afterwards, to `position`, a multiple of a page.

        Raises:
            OSError: The system refuses.
        """
        if position < 0 or position + num_bytes > len(self.data):
            raise ValueError(f"[{position}, {position + num_bytes}) lies outside the range")
        flags = mmap.MAP_SHARED | _MAP_FIXED
        if _LIBC.mmap(self._address + position, num_bytes, mmap.PROT_READ, flags, file.fd, 0) == _MAP_FAILED:
            errno = ctypes.get_errno()
            raise OSError(errno, os.strerror(errno))

    def expect_random_access(self) -> None:
        """Tell the system not to read the surroundings of a page that it has to fetch."""
        _LIBC.madvise(self._address, len(self.data), mmap.MADV_RANDOM)

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
