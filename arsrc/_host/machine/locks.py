"""A lock that knows whose it is: a signal handler may run in the midst of what its own thread keeps others out of."""

import threading
from typing import Any

_RLock: Any = type(threading.RLock())


class OwnedLock(_RLock):  # type: ignore[misc]
    """A lock that the thread which holds it may take again, as a signal handler does."""

    def is_mine(self) -> bool:
        """Whether this thread holds it."""
        return bool(self._is_owned())


class LockOfThread(threading.local):
    """A lock of each thread, which tells a signal handler whether its own thread is in the midst of something.

    No interrupt leaves it taken, as it might a count.
    """

    def __init__(self) -> None:
        self.lock = OwnedLock()
