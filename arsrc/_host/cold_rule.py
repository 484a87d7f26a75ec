"""When to ask the system for records ahead: only while reads have to wait for the disk."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_FIRST = 16
_MOST = 1024


class ColdRule:
    """Asking costs a system call per record, so that it pays only for what is not in memory yet.

    Whether that is so shows in a read that nobody asked for: if it had to wait, the next reads are asked for,
    twice as many each time; if not, none is. No lock: a number that is off by one changes only the speed.
    """

    def __init__(self) -> None:
        self._left = self._next = _FIRST

    def is_worth_asking(self) -> bool:
        """Return whether to ask, and count it."""
        if self._left <= 0:
            return False
        self._left -= 1
        return True

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Notice whether what runs inside has to wait for the disk."""
        before = _num_waits()
        yield
        if self._left <= 0 and _num_waits() != before:
            self._left = self._next
            self._next = min(2 * self._next, _MOST)


def _num_waits() -> int:
    """Return how often this thread touched mapped memory that had to be read from a disk."""
    if sys.platform != "linux":
        return 0
    return resource.getrusage(resource.RUSAGE_THREAD).ru_majflt
