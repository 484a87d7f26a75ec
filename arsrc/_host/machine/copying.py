"""Threads that lend a hand with one large copy: a core alone does not use what memory can give."""

import contextlib
import itertools
import queue
import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from arsrc._host.machine.threads import Workers, is_forked, num_cores

_PART_BYTES = 4 * 2**20  # below, handing over takes longer than it saves
_MAX_HELPERS = 3
_LOOK_SECONDS = 0.05


class Copier:
    """Does pieces of work on the calling thread and, where cores are there, on a few others. Safe to share."""

    def __init__(self) -> None:
        self._num_helpers = min(_MAX_HELPERS, num_cores() - 1)
        self._threads = Workers("arsrc-copy")

    def num_parts(self, num_bytes: int) -> int:
        """Return into how many parts to divide a copy of so many bytes."""
        return 1 if is_forked() else max(1, min(self._num_helpers + 1, num_bytes // _PART_BYTES))

    def run(self, work: Callable[[int, int], None], bounds: list[int]) -> None:
        """Call `work(bounds[i], bounds[i + 1])` for all `i`, and return when all are done.

        What no thread has begun when the caller is through with the first part, it does itself: threads that are
        busy elsewhere hold up nobody.
        """
        shared = _Work(work, list(itertools.pairwise(bounds)))
        try:
            try:
                for _ in range(len(bounds) - 2):
                    if not self._threads.submit(shared.help, _MAX_HELPERS):
                        break
                shared.take_parts()
            finally:
                shared.wait()
        except BaseException:  # an interrupt, which may have kept it from waiting
            shared.wait()
            raise
        for error in shared.errors:
            raise error

    def copy(self, source: NDArray[np.generic], out: NDArray[np.generic]) -> None:
        """Copy an array into another of the same shape and dtype."""
        num_parts = self.num_parts(out.nbytes)
        if num_parts == 1 or not (source.flags.c_contiguous and out.flags.c_contiguous):
            out[...] = source
            return
        there, here = out.reshape(-1), source.reshape(-1)

        def work(start: int, stop: int) -> None:
            there[start:stop] = here[start:stop]

        self.run(work, [len(here) * i // num_parts for i in range(num_parts + 1)])

    def close(self) -> None:
        """Stop the threads, without waiting for what they are doing."""
        self._threads.close()


class _Work:
    """Parts of one piece of work, each taken by one thread; who comes late finds none.

    No lock is taken: who helps says so before it takes a part, and the caller waits for nobody else.

    Attributes:
        errors: What helpers raised.
    """

    def __init__(self, work: Callable[[int, int], None], parts: list[tuple[int, int]]) -> None:
        self._work, self._parts = work, parts[::-1]
        self._helping: set[int] = set()
        self._one_ended: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.errors: list[BaseException] = []

    def take_parts(self) -> None:
        """Do parts until none is left."""
        while True:
            try:
                part = self._parts.pop()
            except IndexError:
                return
            self._work(*part)

    def help(self) -> None:
        """Do parts on a helper's thread until none is left, or one has failed."""
        self._helping.add(threading.get_ident())
        try:
            self.take_parts()
        except BaseException as error:
            self.errors.append(error)
            self._parts.clear()
        self._helping.discard(threading.get_ident())
        self._one_ended.put(None)

    def wait(self) -> None:
        """Return when nobody helps any more: who called no longer expects anybody to write."""
        self._parts.clear()
        while self._helping:
            with contextlib.suppress(queue.Empty):
                self._one_ended.get(timeout=_LOOK_SECONDS)
