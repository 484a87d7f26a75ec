"""The one seam of file access: all that is asked of the operating system, and what tests put in its place.

array_record's own reader and writer take paths, and so stand outside of it.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import sys
import tempfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAP_FIXED = 0x10
_MAP_NORESERVE = 0x4000
_PROT_NONE = 0
_MAP_FAILED = ctypes.c_void_p(-1).value


class System:
    """The operating system. Every method raises `OSError` where it fails, unless it says otherwise."""

    def stat(self, path: str, follow_links: bool = True) -> os.stat_result:
        """Return what a path leads to, or what lies there itself, a link perhaps."""
        return os.stat(path, follow_symlinks=follow_links)

    def fstat(self, fd: int) -> os.stat_result:
        """Return what an open file is."""
        return os.fstat(fd)

    def list_folder(self, folder: str) -> list[str]:
        """Return the names in a folder."""
        return os.listdir(folder)

    def open(self, path: str, flags: int = os.O_RDONLY) -> int:
        """Open a file; return its descriptor."""
        return os.open(path, flags, 0o666)

    def open_memory(self) -> int:
        """Return the descriptor of a file without a name, in memory where that can be; its path is `/dev/fd/...`."""
        if hasattr(os, "memfd_create"):
            return os.memfd_create("arsrc")
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        os.close(fd)

    def pread(self, fd: int, num_bytes: int, position: int) -> bytes:
        """Return the bytes from a position on, fewer where the file ends."""
        return os.pread(fd, num_bytes, position)

    def pwrite(self, fd: int, data: bytes | memoryview, position: int) -> int:
        """Write at a position; return how many bytes were written."""
        return os.pwrite(fd, data, position)

    def append(self, fd: int, data: bytes | memoryview) -> int:
        """Write at the end of a file that was opened for it, behind what others write there; return where it begins."""
        if os.write(fd, data) < memoryview(data).nbytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.lseek(fd, 0, os.SEEK_CUR) - memoryview(data).nbytes

    def sync(self, fd: int) -> None:
        """Return when what was written to a file, or changed in a folder, is on the disk."""
        os.fsync(fd)

    def rename(self, old: str, new: str) -> None:
        """Move a file, over the one that is there."""
        os.replace(old, new)

    def unlink(self, path: str) -> None:
        """Remove a file."""
        os.unlink(path)

    def resolve(self, path: str) -> str:
        """Return where a path leads to, all links followed; what is not there stays as it is."""
        return os.path.realpath(path)

    def lock(self, fd: int) -> bool:
        """Lock an open file against all others who do the same, until it is closed; returns whether nobody had."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def make_folder(self, path: str) -> None:
        """Make a folder, and those above it, where there is none."""
        os.makedirs(path, exist_ok=True)

    def free_bytes(self, folder: str) -> int:
        """Return how many bytes can still be written to the disk of a folder."""
        found = os.statvfs(folder)
        return found.f_bavail * found.f_frsize

    def view(self, fd: int, num_bytes: int) -> memoryview:
        """Return the beginning of a file, mapped to be read."""
        try:
            return memoryview(mmap.mmap(fd, num_bytes, access=mmap.ACCESS_READ))
        except ValueError as error:  # the file is shorter
            raise OSError(errno.EINVAL, str(error)) from error

    def share(self, fd: int, num_bytes: int) -> mmap.mmap:
        """Give a file so many bytes, and return it mapped to be read and written, also by other processes."""
        os.ftruncate(fd, num_bytes)
        if hasattr(os, "posix_fallocate"):  # where memory has run out, this says so; writing would end the process
            os.posix_fallocate(fd, 0, num_bytes)
        return mmap.mmap(fd, num_bytes)

    def reserve(self, num_bytes: int) -> int | None:
        """Return the address of a range without memory behind it; None where there is none to be had."""
        if _LIBC is None:
            return None
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        address: int = _LIBC.mmap(None, num_bytes, _PROT_NONE, flags, -1, 0)
        return None if address == _MAP_FAILED else address

    def map(self, fd: int, address: int, num_bytes: int) -> bool:
        """Map the beginning of a file to a part of a reserved range, to be read; returns whether."""
        result: int = _LIBC.mmap(address, num_bytes, mmap.PROT_READ, mmap.MAP_SHARED | _MAP_FIXED, fd, 0)
        return result != _MAP_FAILED

    def advise(self, address: int, num_bytes: int, advice: int) -> bool:
        """Say how mapped bytes will be used; returns whether it was taken. Releases the interpreter lock."""
        return bool(_LIBC.madvise(address, num_bytes, advice) == 0)

    def copy(self, pieces: NDArray[np.uint64], out: NDArray[np.uint8]) -> int:
        """Copy mapped bytes one behind the other, without touching them; releases the interpreter lock.

        Args:
            pieces: u64[n, 2], at most 1024 addresses and lengths.
            out: u8[sum of the lengths]

        Returns:
            How many bytes there were in front of the first one that cannot be read.
        """
        to = np.array([out.ctypes.data, len(out)], np.uint64)
        arguments = to.ctypes.data, 1, pieces.ctypes.data, len(pieces), 0
        num_bytes: int = _LIBC.process_vm_readv(os.getpid(), *arguments)
        if num_bytes < 0 and (number := ctypes.get_errno()) != errno.EFAULT:
            raise OSError(number, os.strerror(number))
        return max(num_bytes, 0)

    def unmap(self, address: int, num_bytes: int) -> None:
        """Give a range back."""
        _LIBC.munmap(address, num_bytes)


def _load_libc() -> Any:
    """Return the C library: the standard library of Python cannot say where a map shall lie."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    size = ctypes.c_size_t
    libc.mmap.argtypes = [ctypes.c_void_p, size, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    libc.mmap.restype = ctypes.c_void_p
    libc.munmap.argtypes = [size, size]
    libc.madvise.argtypes = [size, size, ctypes.c_int]
    libc.process_vm_readv.argtypes = [ctypes.c_int, size, ctypes.c_ulong, size, ctypes.c_ulong, ctypes.c_ulong]
    libc.process_vm_readv.restype = ctypes.c_ssize_t
    return libc


_LIBC = _load_libc()

calls = System()
"""What all file access goes through."""
