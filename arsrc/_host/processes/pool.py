"""The worker processes of one function: batches are split among them, from several threads at once."""

import collections
import contextlib
import functools
import itertools
import math
import pickle
import queue
import threading
import weakref
from collections.abc import Callable, Iterable
from multiprocessing import process, spawn
from time import perf_counter
from typing import Any

import numpy as np

from arsrc._host.machine import threads
from arsrc._host.machine.stopping import Stop, check
from arsrc._host.machine.threads import Workers
from arsrc._host.processes.process import Died, Process, Unwanted
from arsrc._host.processes.worker import LeafShapes, Setup
from arsrc._host.records.leaves import Leaves
from arsrc.errors import ArsrcTypeError, ArsrcValueError, RecordError, said
from arsrc.record_batch import RecordBatch

_TASKS_PER_PROCESS = 4  # of a batch at most: who is done sooner does more
_TASK_SECONDS = 5e-3  # a task costs about a tenth of a millisecond to hand over
_LOOK_SECONDS = 0.05
_MOST_TRIES = 3  # at a task that processes have ended before
_MAIN_PARTS = ("sys_path", "sys_argv", "orig_dir", "dir")
_MAIN_SCRIPT = ("init_main_from_name", "init_main_from_path")

Idle = collections.deque[Process]


class Processes:
    """Decodes by processes, begun when there is something to do, and kept.

    Each is used by one thread at a time, which is never the main one: no interrupt comes in the midst of a task.

    Args:
        make_setup: Says what they decode with, or raises why there can be none.
    """

    def __init__(self, make_setup: Callable[[], Setup]) -> None:
        self._make_setup = make_setup
        self._setup: Setup | None = None
        self._idle: Idle = collections.deque()
        self._starting = threading.Lock()
        self._has_started = False
        self._num_rests = 0
        self._row_seconds = math.inf  # what the last task took a row
        itself = weakref.ref(self)  # threads that wait for something to do keep nothing alive
        self._threads = Workers("arsrc-processes", on_idle=lambda: _rest(itself()))
        weakref.finalize(self, _end, self._idle, self._threads)

    def setup(self) -> Setup:
        """Return what they decode with.

        Raises:
            ArsrcError: There can be none.
        """
        if self._setup is None:
            self._setup = self._make_setup()
        return self._setup

    def decode(self, records: RecordBatch, num_processes: int, stop: Stop | None) -> Leaves | None:
        """Return the leaves of some records; None where there are no threads to be had, as in a forked child.

        Args:
            records: The records.
            num_processes: How many processes may be busy with them.
            stop: Says whether they are not wanted any more.

        Raises:
            RecordError: A record does not fit, or a process has ended over it; the first such.
            ArsrcValueError: No process can start.
            Stopped: `stop` said so.
        """
        num_tasks = _num_tasks(len(records), num_processes, self._row_seconds)
        bounds = np.linspace(0, len(records), num_tasks + 1).astype(int).tolist()
        job = _Job(records, self.setup().shapes, itertools.pairwise(bounds), stop)
        try:
            num_threads = min(num_tasks, num_processes)
            for _ in range(num_threads):
                if not self._threads.submit(functools.partial(self._do, job), num_processes):
                    return None
            for _ in range(num_threads):
                job.await_thread()
            check(stop)
        finally:
            job.end = 0
        if job.error is not None:
            raise job.error
        return job.leaves

    def rest(self) -> None:
        """End the processes: those that are busy when they are done. May be used again."""
        self._num_rests += 1
        _end(self._idle)

    def _do(self, job: "_Job") -> None:
        """Do tasks of a job, on a thread, until there are none."""
        try:
            with contextlib.suppress(IndexError, Unwanted):
                while True:
                    first, last = job.tasks.popleft()
                    try:
                        self._decode(job, first, last)
                    except Unwanted:
                        raise
                    except BaseException as error:
                        job.fail(first, error)
        finally:
            job.done.put(None)

    def _decode(self, job: "_Job", first: int, last: int) -> None:
        for tries in range(1, _MOST_TRIES + 1):
            num_rests, one = self._num_rests, self._take()
            is_good = False
            try:
                self._start(one, job, first)
                begin = perf_counter()
                leaves = one.decode(job.records, first, last, lambda: job.wants(first))
                self._row_seconds = (perf_counter() - begin) / (last - first)
                job.put(first, last, leaves)
                is_good = True
                return
            except (RecordError, Unwanted):
                is_good = True
                raise
            except Died as error:
                if error.row is not None or tries == _MOST_TRIES:
                    what = f"the worker process that decoded it ended, {error}"
                    fix = "Another one is begun. One that SIGKILL ends may have taken too much memory."
                    raise RecordError(error.row or 0, what, fix) from None
            finally:
                if not is_good:
                    one.kill()
                else:
                    self._idle.append(one)
                    if num_rests != self._num_rests:  # it was to end meanwhile
                        _end(self._idle)

    def _take(self) -> Process:
        """Return a process that nobody uses."""
        with contextlib.suppress(IndexError):
            while True:
                one = self._idle.pop()
                if not one.is_over:
                    return one
                one.kill()
        return Process(self.setup())

    def _start(self, one: Process, job: "_Job", first: int) -> None:
        """Start a process, the first one alone: where that cannot be, no others are begun."""
        with contextlib.nullcontext() if self._has_started else self._starting:
            one.start(lambda: job.wants(first))
            self._has_started = True

    def shrink(self) -> None:
        """Give back the memory of processes that nobody uses."""
        for _ in range(len(self._idle)):
            with contextlib.suppress(IndexError, OSError):
                one = self._idle.popleft()
                try:
                    one.shrink()
                finally:
                    self._idle.append(one)


class _Job:
    """Records that are decoded, in several tasks.

    Attributes:
        records: The records.
        leaves: Their leaves.
        tasks: Rows from where to where are still to be decoded.
        end: Rows from here on are not wanted any more.
        error: What is wrong with the first row that is bad.
        done: Gets an entry when a thread finds no more to do.
    """

    def __init__(
        self, records: RecordBatch, shapes: LeafShapes, tasks: Iterable[tuple[int, int]], stop: Stop | None
    ) -> None:
        self.records, self.tasks, self._stop = records, collections.deque(tasks), stop
        self.leaves: Leaves = [np.empty((len(records), *shape), dtype) for shape, dtype in shapes]
        self.end = len(records)
        self.error: BaseException | None = None
        self.done: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._lock = threading.Lock()  # taken by threads of the pool alone

    def wants(self, row: int) -> bool:
        """Whether a row is still wanted."""
        return row < self.end and not (self._stop is not None and self._stop())

    def put(self, first: int, last: int, leaves: Leaves) -> None:
        """Take the leaves of some rows."""
        if not self.leaves:  # of shapes that are not known: what comes of one record
            self.leaves = leaves
            return
        for whole, leaf in zip(self.leaves, leaves, strict=True):
            whole[first:last] = leaf

    def await_thread(self) -> None:
        """Wait for a thread to find no more to do."""
        while True:
            check(self._stop)
            try:
                return self.done.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                pass

    def fail(self, first: int, error: BaseException) -> None:
        """Note what is wrong with a row of the task that begins at `first`, or with no row."""
        row = 0
        if isinstance(error, RecordError):
            row = first + error.row
            cause = error.__cause__
            error = RecordError(row, error.what, error.fix)
            error.__cause__ = cause
        with self._lock:
            if row < self.end:
                self.end, self.error = row, error


def _num_tasks(num_rows: int, num_processes: int, row_seconds: float) -> int:
    """Return how many tasks a batch is split in, where a row takes so long."""
    worthwhile = int(min(num_rows * row_seconds / _TASK_SECONDS, num_rows))
    return min(num_rows, max(num_processes, min(worthwhile, _TASKS_PER_PROCESS * num_processes)))


def _rest(pool: Processes | None) -> bool:
    """Give back memory, where there is still something to be decoded at all; a thread may then end."""
    if pool is not None:
        pool.shrink()
    return True


def _end(idle: Idle, workers: Workers | None = None) -> None:
    """End processes that nobody uses, and let threads that have nothing to do."""
    if threads.is_forked():  # they are the parent's
        return
    if workers is not None:
        workers.close()
    with contextlib.suppress(IndexError):
        while True:
            one = idle.pop()
            try:
                threads.begin(one.end, "arsrc-processes-end")
            except RuntimeError:  # the interpreter is exiting
                one.kill()


def setup_of(function: Any, template: Any, careful: Any, shapes: LeafShapes) -> Setup:
    """Return what worker processes decode records with.

    Args:
        function: Decodes a record.
        template: An element with the numbers of its leaves in their places, of plain containers; None if it has others.
        careful: Makes a function from a record to leaves of the function, for what `template` does not fit.
        shapes: Shape and dtype of each leaf; none where they are not known.

    Raises:
        ArsrcTypeError: The function cannot be pickled.
        ArsrcValueError: This process is a worker, which runs the script of its parent.
    """
    if getattr(process.current_process(), "_inheriting", False):
        what = "a script that worker processes run, to find a function of it, begins to read there too"
        fix = 'Let what begins to read stand under if __name__ == "__main__", or the function in a module of its own.'
        raise ArsrcValueError("Map.num_processes", what, fix)
    try:
        pickled = pickle.dumps(function)
    except Exception as error:
        what = f"worker processes need a function that can be pickled ({said(error)})"
        fix = "Define it at the top level of a module, and give it what it holds by functools.partial."
        raise ArsrcTypeError("Map.num_processes", what, fix, fn=function) from error
    try:
        found = spawn.get_preparation_data("arsrc")
    except OSError as error:  # the working folder is gone
        what = f"worker processes cannot be begun where this one is ({said(error)})"
        raise ArsrcValueError("Map.num_processes", what, "Change to a folder that is there.") from error
    # The script runs once more only where something of it is needed.
    parts = (*_MAIN_PARTS, *_MAIN_SCRIPT) if b"__main__" in pickled else _MAIN_PARTS
    main = {name: found[name] for name in parts if name in found}
    main["sys_path"] = [folder for folder in main["sys_path"] if isinstance(folder, str)]
    return Setup(main, pickled, pickle.dumps(template), pickle.dumps(careful), shapes)
