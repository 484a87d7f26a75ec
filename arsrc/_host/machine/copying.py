"""Threads that lend a hand with one large copy: a core alone does not use what memory can give."""

import collections
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arsrc._host.machine.threads import Workers, is_forked, num_cores

_PART_BYTES = 4 * 2**20  # below, handing over takes longer than it saves
_MAX_HELPERS = 3
# As conditions take a lock again: no signal ends it, and no handler runs meanwhile.
_acquire: Any = type(threading.RLock())._acquire_restore  # type: ignore[attr-defined]


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
        busy elsewhere hold up nobody. Where an interrupt comes, nobody goes on writing when it is raised.
        """
        shared = _Work(work, list(itertools.pairwise(bounds)))
        wait, ends = collections.deque[object](maxlen=0).extend, shared.ends()
        try:
            self._call_helpers(shared, len(bounds) - 2)
            shared.take_parts()
        finally:
            wait(ends)  # one call of C, in front of which and in which no interrupt comes, however many do
        for error in shared.errors:
            raise error

    def _call_helpers(self, shared: "_Work", num_parts: int) -> None:
        # A loop of its own: since Python 3.13, an interrupt as such a loop jumps back passes by a `try` around it.
        for _ in range(num_parts):
            if not self._threads.submit(shared.help, _MAX_HELPERS):
                break

    def run_rows(self, work: Callable[[int, int], None], offsets: NDArray[np.int64]) -> None:
        """Call `work(first, last)` for runs of rows, in as many parts as their bytes, `offsets` apart, are worth."""
        num_rows = len(offsets) - 1
        num_parts = max(1, min(self.num_parts(int(offsets[-1])), num_rows))
        self.run(work, [num_rows * i // num_parts for i in range(num_parts + 1)])

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

    Attributes:
        errors: What helpers raised.
    """

    def __init__(self, work: Callable[[int, int], None], parts: list[tuple[int, int]]) -> None:
        self._work, self._parts = work, parts[::-1]
        self._helping: list[Any] = []  # a lock of each helper, which it holds as long as it helps
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
        with (helping := threading.RLock()):
            self._helping.append(helping)  # before it takes a part: who takes the rest away looks here after that
            try:
                self.take_parts()
            except BaseException as error:
                self.errors.append(error)
                self._parts.clear()

    def ends(self) -> Iterator[object]:
        """Return what takes away, as it is gone through, the parts that are left, and waits for all who help."""
        mine = 1, threading.get_ident()
        return itertools.chain(map(list.clear, [self._parts]), map(_acquire, self._helping, itertools.repeat(mine)))
