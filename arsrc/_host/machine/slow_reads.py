"""Reads that take unusually long, as of a disk that is gone: told of while they do, and given up at a limit.

One thread looks at those that are under way every few seconds, and ends when nothing has been read for a while. Where a
read keeps the interpreter lock, as small ones of mapped files do, it is told of as soon as it is over.
"""

import logging
import os
import threading
import weakref
from collections.abc import Callable
from time import perf_counter, sleep
from typing import TypeVar

from arsrc._host.machine import threads
from arsrc.errors import ArsrcReadError

T = TypeVar("T")
SLOW_SECONDS = 30.0
_PAUSE = 3.0  # seconds between two looks
_LOG = logging.getLogger("arsrc")


class Reading:
    """A read, under way in the body of a `with` statement.

    Args:
        what: Says what is being read.
    """

    __slots__ = ("__weakref__", "_is_told", "_reference", "_start", "_what")

    def __init__(self, what: Callable[[], str]) -> None:
        self._what, self._start, self._is_told = what, perf_counter(), False
        self._reference = weakref.ref(self)

    def __enter__(self) -> None:
        _under_way[self._reference] = None
        _watch.is_busy = True
        if not _watch.is_running:
            _watch.start()

    def __exit__(self, *_: object) -> None:
        _under_way.pop(self._reference, None)  # a fork forgets them
        self.look()
        if self._is_told:
            _LOG.info("after %.0f s it is over: %s", perf_counter() - self._start, self._what())

    def look(self) -> None:
        """Tell of it, once, if it takes long."""
        if not self._is_told and perf_counter() - self._start > SLOW_SECONDS:
            self._is_told = True
            _LOG.warning("a read takes longer than %.0f s: %s", SLOW_SECONDS, self._what())


def read(what: Callable[[], str], function: Callable[[], T], limit: float | None) -> T:
    """Return `function()`, which reads.

    Args:
        what: Says what is being read.
        function: With a limit it is done on another thread, and must write to nothing but what it returns.
        limit: Most seconds that it may take; None for any.

    Raises:
        ArsrcReadError: It takes longer.
    """

    def watched() -> T:
        with Reading(what):
            return function()

    if limit is None:
        return watched()
    try:
        return threads.within(limit, watched)
    except threads.Late as error:
        late = f"a read takes longer than it may: {what()}"
        fix = "The next call reads again. Look whether the disk or the network hangs, or raise the limit."
        raise ArsrcReadError("read", late, fix, timeout_seconds=limit) from error


class _Watch:
    """The thread that looks at what is under way.

    Attributes:
        is_running: Whether there is one.
        is_busy: Whether a read has begun since it looked last.
    """

    def __init__(self) -> None:
        self.is_running = self.is_busy = False
        self._lock = threading.RLock()

    def start(self) -> None:
        if threads.is_forked():  # asked before the lock, which a thread of the parent may have held for ever
            return
        with self._lock:
            if self.is_running:
                return
            try:
                threads.begin(self._run, "arsrc-slow-reads")
            except RuntimeError:
                return
            self.is_running = True

    def _run(self) -> None:
        idle_seconds = 0.0
        while idle_seconds < threads.IDLE_SECONDS:
            self.is_busy = False
            sleep(pause := min(_PAUSE, threads.IDLE_SECONDS))
            for reference in list(_under_way):
                if (read := reference()) is None:  # an interrupt kept it from ending
                    _under_way.pop(reference, None)
                else:
                    read.look()
            idle_seconds = 0.0 if self.is_busy or _under_way else idle_seconds + pause
        with self._lock:
            self.is_running = False
        if _under_way:  # a read that began just now saw this thread still running
            self.start()


_under_way: dict[weakref.ref[Reading], None] = {}
_watch = _Watch()
os.register_at_fork(after_in_child=_under_way.clear)
