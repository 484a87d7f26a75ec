"""Threads: for work that may as well be done by somebody else, and for many files at once."""

import collections
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic, perf_counter, thread_time
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")
_MAX_THREADS = 16
_LEAST_WAIT = 0.01  # seconds: shorter waits are those for a core, or for threads of array_record's reader
_NICENESS = 5
_PROCESS = os.getpid()

IDLE_SECONDS = 30.0
"""So long a thread waits for something to do before it ends: longer than most training steps take."""


class Workers:
    """A few threads that do tasks in order: begun when there are some, ended when there have been none for a while.

    For tasks that whoever hands them over does by itself where they are not done in time: nobody waits for a thread. So
    the threads are daemons, with which the interpreter can end whatever they are doing.

    Args:
        name: Of the threads.
        give_way: Whether threads of the program go before these, where both want a core.
        on_idle: Says, when there has been nothing to do for a while, whether a thread may end.
    """

    def __init__(self, name: str, give_way: bool = False, on_idle: Callable[[], bool] = lambda: True) -> None:
        self._name, self._give_way, self._on_idle = name, give_way, on_idle
        self._tasks: collections.deque[Callable[[], None]] = collections.deque()
        self._threads: list[threading.Thread] = []
        self._num_waiting = 0
        self._closed = False
        self._state = threading.Condition(threading.Lock())

    def submit(self, task: Callable[[], None], most_threads: int) -> bool:
        """Let one of at most so many threads do `task`, which raises nothing; False: there are none to be had."""
        with self._state:
            if self._closed or is_forked():
                return False
            self._tasks.append(task)
            self._state.notify()
            if self._num_waiting >= len(self._tasks) or len(self._threads) >= most_threads:
                return True
            try:
                self._start()
            except RuntimeError:  # the interpreter is exiting, or the system has no more threads
                if not self._threads:
                    self._tasks.clear()
                return bool(self._threads)
            return True

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        self._threads.append(thread)
        try:
            thread.start()
        except BaseException:
            self._threads.remove(thread)
            raise

    def _work(self) -> None:
        if self._give_way:
            give_way()
        try:
            while (task := self._next()) is not None:
                task()
                del task  # and with it, what it refers to
        finally:
            with self._state:
                self._threads.remove(threading.current_thread())

    def _next(self) -> Callable[[], None] | None:
        """Return the next task, waiting for it; None: there is nothing more to do for this thread."""
        while True:
            with self._state:
                self._num_waiting += 1
                came = self._state.wait_for(lambda: self._tasks or self._closed, IDLE_SECONDS)
                self._num_waiting -= 1
                if self._closed:
                    return None
                if came:
                    return self._tasks.popleft()
            if self._on_idle() and not self._tasks:
                return None

    def close(self) -> None:
        """Begin nothing more. May be called again."""
        with self._state:
            self._closed = True
            self._tasks.clear()
            self._state.notify_all()

    def wait(self, seconds: float) -> None:
        """Wait so long at most for what is being done after `close`."""
        end = monotonic() + seconds
        for thread in list(self._threads):
            if thread is not threading.current_thread():
                thread.join(max(0.0, end - monotonic()))


def is_forked() -> bool:
    """Whether this process is a fork of the one that imported arsrc: array_record's readers crash on its threads."""
    return os.getpid() != _PROCESS


def num_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def give_way() -> None:
    """Let the threads of the training program go before this one, where both want a core."""
    if sys.platform == "linux":  # elsewhere this is the priority of the whole process
        os.nice(_NICENESS)


def on_new_thread(function: Callable[[], T]) -> T:
    """Return `function()`, computed on a thread of its own while this one waits."""
    with ThreadPoolExecutor(1, "arsrc-apart") as thread:
        return thread.submit(function).result()


def on_threads(function: Callable[[S], T], values: Sequence[S]) -> list[T]:
    """Return `[function(value) for value in values]`, computed on threads from the first one on that has to wait.

    What does not wait, as for files in memory, is done sooner by one thread than by many that want the interpreter.
    """
    results: list[T] = []
    start, cpu_start = perf_counter(), thread_time()
    while len(results) < len(values):
        results.append(function(values[len(results)]))
        cpu_seconds = thread_time() - cpu_start
        waited = perf_counter() - start - cpu_seconds
        if waited > max(cpu_seconds, _LEAST_WAIT) and not is_forked():
            return results + _map(function, values[len(results) :])
    return results


def _map(function: Callable[[S], T], values: Sequence[S]) -> list[T]:
    try:
        with ThreadPoolExecutor(_MAX_THREADS, "arsrc-files") as threads:
            return list(threads.map(function, values))
    except RuntimeError as error:
        # At the interpreter's exit there are no new threads, but a state may still be saved.
        if "shutdown" not in str(error):
            raise
    return [function(value) for value in values]
