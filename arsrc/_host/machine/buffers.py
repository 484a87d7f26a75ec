"""Memory that is used again: fresh large arrays cost more in page faults than copying into them does."""

import sys
import threading

import numpy as np
from numpy.typing import NDArray

_ALIGNMENT = 64  # bytes; JAX on a CPU uses such arrays where they are, and copies others
_STEPS = 8  # sizes are rounded up to an eighth of a power of two, so that neighbours fit each other


def _num_references(buffers: list[NDArray[np.uint8]], index: int) -> int:
    return sys.getrefcount(buffers[index])


# What an array has that only its list refers to; measured, since it depends on the interpreter.
_UNUSED = _num_references([np.empty(1, np.uint8)], 0)


class BufferPool:
    """Gives out arrays, and gives their memory out again when nobody refers to it any more.

    There is no way to hand an array back, hence none to do it too early: the views that callers, codecs or
    JAX hold all refer to the pool's array, and its reference count tells. Safe to use from several threads.
    """

    def __init__(self, max_bytes: int) -> None:
        """Make an empty pool.

        Args:
            max_bytes: How much memory it may keep. What does not fit is given out fresh and not kept.
        """
        self._max_bytes = max_bytes
        self._buffers: list[NDArray[np.uint8]] = []
        self._lock = threading.Lock()

    @property
    def idle_bytes(self) -> int:
        return 0

    def shrink(self, max_idle_bytes: int) -> None:
        return None

    def clear(self) -> None:
        return None

    def take(self, num_bytes: int) -> NDArray[np.uint8]:
        """Return an array `u8[num_bytes]` with anything in it; its memory begins at a multiple of 64."""
        size = _rounded(num_bytes)
        with self._lock:
            unused = [i for i in range(len(self._buffers)) if _num_references(self._buffers, i) == _UNUSED]
            # The smallest that is large enough, unless that would waste more than half of it.
            fits = [i for i in unused if size <= self._buffers[i].nbytes <= 2 * size]
            if fits:
                return _aligned(self._buffers[min(fits, key=lambda i: self._buffers[i].nbytes)], num_bytes)
            spare = self._max_bytes - sum(buffer.nbytes for buffer in self._buffers)
            for i in reversed(unused):
                if spare >= size:
                    break
                spare += self._buffers.pop(i).nbytes
            buffer = np.empty(size, np.uint8)
            if spare >= size:
                self._buffers.append(buffer)
            return _aligned(buffer, num_bytes)


def _rounded(num_bytes: int) -> int:
    step = max(4096, (1 << max(num_bytes - 1, 1).bit_length()) // 2 // _STEPS)
    return -(-num_bytes // step) * step + _ALIGNMENT


def _aligned(buffer: NDArray[np.uint8], num_bytes: int) -> NDArray[np.uint8]:
    start = -buffer.ctypes.data % _ALIGNMENT
    return buffer[start : start + num_bytes]
