"""What a codec gives, in memory that nobody else writes into: copies of what it may use again."""

import contextlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arsrc._host.machine.locks import OwnedLock
from arsrc._host.records.leaves import Leaves
from arsrc.errors import ArsrcReadError

_ALONE = [np.empty(0)]
_TO_COUNT = sys.getrefcount(_ALONE[0]) - 1  # references that counting adds by itself


class OwnMemory:
    """Lets one codec decode; on one thread at a time from when it gives what it may use again."""

    def __init__(self) -> None:
        self._turn: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        self._lock = OwnedLock()

    def of(self, decode: Callable[[], Leaves], data: NDArray[np.uint8]) -> Leaves:
        """Return what `decode()` gives for records with these bytes, which nobody writes into."""
        if self._lock.is_mine():
            what = "a signal handler read in the midst of a codec that uses again what it gives"
            raise ArsrcReadError("decode", what, "Let the handler set a flag, and read when the step is over.")
        with self._turn:
            leaves = decode()
            kept = [i for i in range(len(leaves)) if _is_kept(leaves, i, data)]
            for i in kept:
                leaves[i] = leaves[i].copy()
        if kept:
            self._turn = self._lock
        return leaves


def _is_kept(leaves: Leaves, i: int, data: NDArray[np.uint8]) -> bool:
    """Whether others than `leaves` may hold the memory of a leaf."""
    if leaves[i].base is not None and (leaves[i].base is data or leaves[i].base is data.base):
        return False
    # Before anything here refers to them.
    num_leaf, num_base = sys.getrefcount(leaves[i]) - _TO_COUNT, sys.getrefcount(leaves[i].base) - _TO_COUNT
    leaf: Any = leaves[i]
    if isinstance(getattr(leaf.base, "base", leaf.base), bytes) or np.may_share_memory(leaf, data):
        return False
    owner, num_owner = (leaf, num_leaf) if leaf.base is None else (leaf.base, num_base)
    if not isinstance(owner, np.ndarray) or not owner.flags.owndata:
        return True
    of_leaf, of_owner = (sum((one is array) + (one.base is array) for one in leaves) for array in (leaf, owner))
    return num_leaf > of_leaf or num_owner > of_owner
