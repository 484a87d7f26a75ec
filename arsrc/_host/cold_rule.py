"""When to ask the system for records ahead: only while reads have to wait for the disk."""

import resource

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

    def had_to_wait(self) -> None:
        """Take note that a read that nobody asked for had to wait for the disk."""
        if self._left <= 0:
            self._left = self._next
            self._next = min(2 * self._next, _MOST)


def num_waits() -> int:
    """Return a number that grows when this thread has to wait for what is not in memory."""
    usage = resource.getrusage(resource.RUSAGE_THREAD)
    return usage.ru_majflt + usage.ru_inblock
