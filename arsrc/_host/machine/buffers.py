"""Memory that is used again: fresh large arrays cost more in page faults than copying into them does."""

import weakref

import numpy as np
from numpy.typing import NDArray

from arsrc._host.machine.locks import OwnedLock

_ALIGNMENT = 64  # bytes; JAX on a CPU uses such arrays where they are, and copies others
_STEPS = 8  # sizes are rounded up to an eighth of a power of two, so that neighbours fit each other


class _Lease:
    """Some memory as NumPy sees it: each array over it refers to this, directly or through another array."""

    def __init__(self, memory: NDArray[np.uint8], address: int, num_bytes: int) -> None:
        self._memory = memory  # lives as long as any array over it, whatever becomes of the pool
        self.__array_interface__ = {"shape": (num_bytes,), "typestr": "|u1", "data": (address, False), "version": 3}


class _Block:
    """Memory that one array after the other is made of."""

    def __init__(self, num_bytes: int) -> None:
        self.num_bytes = num_bytes
        self._memory = np.empty(num_bytes, np.uint8)
        address = self._memory.ctypes.data
        self._address = address + -address % _ALIGNMENT
        self._lease: weakref.ref[_Lease] | None = None

    def is_idle(self) -> bool:
        """Whether no array refers to it."""
        return self._lease is None or self._lease() is None

    def lend(self, num_bytes: int) -> NDArray[np.uint8]:
        """Return an array over the beginning of it."""
        lease = _Lease(self._memory, self._address, num_bytes)
        self._lease = weakref.ref(lease)
        return np.asarray(lease)


class BufferPool:
    """Gives out arrays, and gives their memory out again when the last array over it is gone.

    There is no way to hand an array back, hence none to do it too early: the views that callers, codecs or JAX
    hold all keep the lease of its memory alive, and a weak reference tells. Nothing has to run when a lease ends,
    which may be at any moment in any thread. Safe to use from several threads.
    """

    def __init__(self, max_bytes: int) -> None:
        """Keep at most `max_bytes`, lent or idle: what does not fit is given out fresh and not kept."""
        self._max_bytes = max_bytes
        self._blocks: list[_Block] = []
        self._lock = OwnedLock()

    def take(self, num_bytes: int) -> NDArray[np.uint8]:
        """Return an array `u8[num_bytes]` with anything in it; its memory begins at a multiple of 64."""
        size = _rounded(num_bytes)
        if self._lock.is_mine():  # a signal handler, while it is being decided which memory to lend
            return _Block(size).lend(num_bytes)
        with self._lock:
            return self._block(size).lend(num_bytes)

    @property
    def is_empty(self) -> bool:
        """Whether no memory is kept, lent or idle."""
        return not self._blocks

    @property
    def idle_bytes(self) -> int:
        """Bytes that are kept and that no array refers to."""
        with self._lock:
            return sum(block.num_bytes for block in self._idle())

    def shrink(self, max_idle_bytes: int) -> None:
        """Let go of idle memory, the oldest first, until no more than `max_idle_bytes` are kept."""
        with self._lock:
            self._shrink(max_idle_bytes)

    # The methods below run under the lock.

    def _block(self, size: int) -> _Block:
        """Return an idle block, or a new one, of so many bytes."""
        # The smallest that is large enough, unless that would waste more than half of it.
        fits = [block for block in self._idle() if size <= block.num_bytes <= 2 * size]
        if fits:
            return min(fits, key=lambda block: block.num_bytes)
        block = _Block(size)
        lent_bytes = sum(one.num_bytes for one in self._blocks if not one.is_idle())
        if lent_bytes + size <= self._max_bytes:
            self._shrink(self._max_bytes - lent_bytes - size)
            self._blocks.append(block)
        return block

    def _idle(self) -> list[_Block]:
        return [block for block in self._blocks if block.is_idle()]

    def _shrink(self, max_idle_bytes: int) -> None:
        idle, dropped = self._idle(), set[_Block]()
        while idle and sum(block.num_bytes for block in idle) > max_idle_bytes:
            dropped.add(idle.pop(0))
        self._blocks = [block for block in self._blocks if block not in dropped]


def _rounded(num_bytes: int) -> int:
    step = max(4096, (1 << max(num_bytes - 1, 1).bit_length()) // 2 // _STEPS)
    return -(-num_bytes // step) * step + _ALIGNMENT
