"""Threads that lend a hand with one large copy: a core alone does not use what memory can give."""

import itertools
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

import numpy as np
from numpy.typing import NDArray

from arsrc._host.threads import is_forked

_PART_BYTES = 4 * 2**20  # below, handing over takes longer than it saves
_MAX_HELPERS = 3


class Copier:
    """Does pieces of work on the calling thread and, where cores are there, on a few others. Safe to share."""

    def __init__(self) -> None:
        self._num_helpers = min(_MAX_HELPERS, (os.cpu_count() or 1) - 1)
        self._threads = ThreadPoolExecutor(_MAX_HELPERS, "arsrc-copy")  # begin with the first task

    def num_parts(self, num_bytes: int) -> int:
        """Return into how many parts to divide a copy of so many bytes."""
        return 1 if is_forked() else max(1, min(self._num_helpers + 1, num_bytes // _PART_BYTES))

    def run(self, work: Callable[[int, int], None], bounds: list[int]) -> None:
        """Call `work(bounds[i], bounds[i + 1])` for all `i`, and return when all are done.

        What no thread has begun when the caller is through with the first part, it does itself: threads that are
        busy elsewhere hold up nobody.
        """
        parts = list(itertools.pairwise(bounds))
        tasks = [(self._submit(work, part), part) for part in parts[1:]]
        try:
            work(*parts[0])
            for task, part in tasks:
                if task is None or task.cancel():
                    work(*part)
        finally:  # after an error too nobody may go on to write where the caller no longer expects it
            begun = [task for task, _ in tasks if task is not None and not task.cancel()]
            wait(begun)
        for task in begun:
            task.result()

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
        """Stop the threads, after what they are doing."""
        self._threads.shutdown(wait=True)

    def _submit(self, work: Callable[[int, int], None], part: tuple[int, int]) -> Future[None] | None:
        try:
            return self._threads.submit(work, *part)
        except RuntimeError:  # the interpreter is exiting, or the source was closed
            return None
