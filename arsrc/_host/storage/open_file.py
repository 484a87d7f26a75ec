"""Open files, and the few of many that stay open."""

import contextlib
import os
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

from arsrc._host.storage import system
from arsrc._host.storage.stamps import FileStamp

T = TypeVar("T")


def most_open() -> int:
    """Return how many files may stay open for one purpose: a quarter of what the process may open."""
    limit = os.sysconf("SC_OPEN_MAX")  # negative: none
    return sys.maxsize if limit < 0 else max(1, limit // 4)


class OpenFile:
    """A file, open for reading unless `flags` say more, closed by `close()` or when nobody refers to it any more.

    Attributes:
        path: Where it was opened.
        fd: Its descriptor.
    """

    def __init__(self, path: str, flags: int = os.O_RDONLY) -> None:
        self.path = path
        calls = system.calls
        # Without waiting for a writer, where a FIFO took the file's place.
        self.fd = calls.open(path, flags | os.O_NONBLOCK)
        self.close = weakref.finalize(self, _close, calls, self.fd)
        self.close.atexit = False  # other threads may still read

    def stamp(self) -> FileStamp:
        """Return what the file is now."""
        return FileStamp.of(system.calls.fstat(self.fd))

    def read(self, num_bytes: int, position: int) -> bytes:
        """Return the bytes from a position on, fewer where the file ends."""
        return system.calls.pread(self.fd, num_bytes, position)


def _close(calls: system.System, fd: int) -> None:
    with contextlib.suppress(OSError):  # it is closed all the same, and what matters was synced before
        calls.close(fd)


class KeptOpen(Generic[T]):
    """A few things by their path, the least recently used ones let go. Safe to use from several threads.

    What is let go closes when nobody refers to it any more: whoever still reads from it can go on.
    """

    def __init__(self, max_open: int) -> None:
        """Keep at most `max_open`, and at most a quarter of what the process may open."""
        self._max_open = min(max_open, most_open())
        self._open: dict[str, T] = {}  # the one used last at the end
        self._lock = threading.RLock()

    def get(self, path: str, open_it: Callable[[], T]) -> T:
        """Return what is open of `path`, or else what `open_it()` opens."""
        with self._lock:
            if (found := self._open.pop(path, None)) is not None:
                self._open[path] = found
                return found
        opened = open_it()
        with self._lock:
            opened = self._open.pop(path, opened)  # another thread may have opened it meanwhile
            self._open[path] = opened
            for name in list(self._open)[: max(0, len(self._open) - self._max_open)]:
                self._open.pop(name, None)
        return opened

    def close(self) -> None:
        """Let go of all, and keep nothing from now on."""
        with self._lock:
            self._max_open = 0
            self._open.clear()
