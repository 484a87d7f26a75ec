"""The rows of a batch, worked on by several threads at once."""

import collections
import contextlib
import queue
from collections.abc import Callable
from time import perf_counter

from arsrc._host.machine.threads import begin, is_forked, num_cores

_MOST_THREADS = 16  # what else is done for each row, under the interpreter's lock, leaves room for no more
_ALONE_SECONDS = 1e-3  # what takes no longer is done by one thread before others have begun


def on_rows(work: Callable[[int], None], num_rows: int) -> None:
    """Do `work(row)` for each row, on this thread and, where that takes a while, on others that end with the call.

    Rows are begun in order, and no more of them once one has failed.

    Raises:
        BaseException: What `work` raised for the first row for which it raised anything.
    """
    start = perf_counter()
    for row in range(num_rows):
        if row and (perf_counter() - start) / row * (num_rows - row) > _ALONE_SECONDS:
            _share(work, range(row, num_rows))
            return
        work(row)


def _share(work: Callable[[int], None], rows: range) -> None:
    todo = collections.deque(rows)
    failed: list[tuple[int, BaseException]] = []
    ended: queue.SimpleQueue[None] = queue.SimpleQueue()
    # Emptied in the end: a thread that is about to end must not hold what the rows were written into.
    works = [work]

    def run() -> None:
        row = -1
        try:
            while todo:
                try:
                    row = todo.popleft()
                except IndexError:  # another one took the last
                    break
                works[0](row)
        except BaseException as error:
            todo.clear()
            failed.append((row, error))
        ended.put(None)

    num_threads = 1
    try:
        with contextlib.suppress(RuntimeError):  # at the interpreter's exit there are no new ones
            while not is_forked() and num_threads < min(num_cores(), _MOST_THREADS, len(rows)):
                begin(run, "arsrc-rows")
                num_threads += 1
        run()
        for _ in range(num_threads):
            ended.get()
    finally:
        todo.clear()
        works.clear()
    if failed:
        # Those of the process, as an interrupt, before those of a row.
        first = min(failed, key=lambda each: (isinstance(each[1], Exception), each[0]))[1]
        failed.clear()
        try:
            raise first
        finally:
            del first
