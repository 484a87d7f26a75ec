"""Threads: for work that may as well be done by somebody else, and for many files at once."""

import _thread
import collections
import contextlib
import os
import queue
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from time import monotonic, perf_counter, sleep, thread_time
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")
_MAX_THREADS = 16
_MOST_LEFT_BEHIND = 64
_LEAST_WAIT = 0.01  # seconds: shorter waits are those for a core, or for threads of array_record's reader
_LOOK_SECONDS = 1e-3
_NICENESS = 5
_PROCESS = os.getpid()

IDLE_SECONDS = 30.0
"""So long a thread waits for something to do before it ends: longer than most training steps take."""


class Workers:
    """A few threads that do tasks in order: begun when there are some, ended when there have been none for a while.

    For tasks that whoever hands them over does by itself where they are not done in time: nobody waits for a thread. So
    the threads are daemons, with which the interpreter can end whatever they are doing. Who hands over a task takes no
    lock, so that an interrupt may come at any moment, and its handler may do the same.

    Args:
        name: Of the threads.
        give_way: Whether threads of the program go before these, where both want a core.
        on_idle: Says, when there has been nothing to do for a while, whether a thread may end.
    """

    def __init__(self, name: str, give_way: bool = False, on_idle: Callable[[], bool] = lambda: True) -> None:
        self._name, self._give_way, self._on_idle = name, give_way, on_idle
        # Tasks stay here until a thread takes them, so that they can be counted: a queue hands what is put into it to
        # a thread that waits, since Python 3.13, and forgets it before that thread runs.
        self._tasks: collections.deque[Callable[[], None]] = collections.deque()
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()  # rung for each task
        self._threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()  # one that has ended falls out
        self._idle: set[int] = set()  # of those that wait for a task, changed by themselves alone
        self._closed = False

    def submit(self, task: Callable[[], None], most_threads: int) -> bool:
        """Let one of about so many threads do `task`, which raises nothing; False: there are none to be had."""
        if self._closed or is_forked():
            return False
        self._tasks.append(task)
        self._bell.put(None)
        if len(self._idle) >= len(self._tasks) or len(self._threads) >= most_threads:
            return True
        try:
            thread = begin(self._work, self._name)
        except RuntimeError:
            if not self._threads:
                self._tasks.clear()
            return bool(self._threads)
        self._threads.add(thread)  # at once, so that the next task begins no other
        return True

    @property
    def num_threads(self) -> int:
        """How many threads there are."""
        return len(self._threads)

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing that is being done, or to be done."""
        return not self._tasks and len(self._idle) >= len(self._threads)

    def _work(self) -> None:
        self._threads.add(threading.current_thread())  # an interrupt may have kept who began it from doing so
        if self._give_way:
            give_way()
        try:
            while (task := self._next()) is not None:
                task()
                del task  # and with it, what it refers to
        finally:
            self._threads.discard(threading.current_thread())

    def _next(self) -> Callable[[], None] | None:
        """Return the next task, waiting for it; None: there is nothing more to do for this thread."""
        thread = threading.current_thread()
        while True:
            if self._closed:
                self._bell.put(None)  # for the others
                return None
            with contextlib.suppress(IndexError):  # there is none, or another thread was sooner
                return self._tasks.popleft()
            if not self._is_rung() and self._on_idle():
                self._threads.discard(thread)
                if not self._tasks:  # else it was handed over while this thread was still counted
                    return None
                self._threads.add(thread)

    def _is_rung(self) -> bool:
        """Wait for the bell, which may have been rung for a task that is done already; False: not for a while."""
        self._idle.add(threading.get_ident())
        try:
            self._bell.get(timeout=IDLE_SECONDS)
        except queue.Empty:
            return False
        finally:
            self._idle.discard(threading.get_ident())
        return True

    def close(self) -> None:
        """Begin nothing more. May be called again."""
        self._closed = True
        self._tasks.clear()
        self._bell.put(None)

    def wait(self, seconds: float) -> None:
        """Wait so long at most for what is being done after `close`."""
        end = monotonic() + seconds
        while monotonic() < end and len(self._threads) > (threading.current_thread() in self._threads):
            sleep(_LOOK_SECONDS)


_left_behind = Workers("arsrc-limited")


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


def begin(work: Callable[[], None], name: str) -> threading.Thread:
    """Begin a daemon that does `work`, which raises nothing; return it, perhaps not started yet.

    Raises:
        RuntimeError: The interpreter is exiting, or the system has no more threads.
    """
    thread = threading.Thread(target=work, name=name, daemon=True)
    # It waits for a lock that an interrupt of `start` leaves locked: that is no business of the main thread.
    _thread.start_new_thread(_start, (thread,))
    return thread


def _start(thread: threading.Thread) -> None:
    try:
        thread.start()
    except RuntimeError:  # there was one more, this one
        thread.run()


def on_new_thread(function: Callable[[], T]) -> T:
    """Return `function()`, computed on a thread of its own while this one waits."""
    return _map(lambda _: function(), [None])[0]


class Late(Exception):
    """Something takes longer than somebody waits for it."""


def within(seconds: float, function: Callable[[], T]) -> T:
    """Return `function()`, computed on another thread, which is left behind where it takes longer.

    Where no thread is to be had, as in a forked child, it is computed on this one, however long it takes.

    Raises:
        Late: It takes longer.
    """
    ended: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            ended.put((function(), None))
        except BaseException as error:
            ended.put((None, error))

    if not _left_behind.submit(work, _MOST_LEFT_BEHIND):
        return function()
    try:
        result, error = ended.get(timeout=seconds)
    except queue.Empty:
        raise Late from None
    if error is not None:
        raise error
    return result  # type: ignore[return-value]


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
    """Return what `on_threads` does, all of it computed on threads where there are any."""
    results: dict[int, T] = {}
    todo = collections.deque(enumerate(values))
    ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def work() -> None:
        try:
            while todo:
                try:
                    row, value = todo.popleft()
                except IndexError:  # another one took the last
                    break
                results[row] = function(value)
            ended.put(None)
        except BaseException as error:
            todo.clear()
            ended.put(error)

    num_threads = 0
    with contextlib.suppress(RuntimeError):  # at the interpreter's exit there are no new ones
        while num_threads < min(_MAX_THREADS, len(values)):
            begin(work, "arsrc-files")
            num_threads += 1
    if not num_threads:
        work()
    try:
        errors = [ended.get() for _ in range(max(num_threads, 1))]
    finally:
        todo.clear()
    for error in filter(None, errors):
        raise error
    return [results[row] for row in range(len(values))]
