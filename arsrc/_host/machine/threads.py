"""Threads: how many, how eager, and work that is done on some for the caller."""

import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
_MAX_THREADS = 16
_NICENESS = 5
_PROCESS = os.getpid()


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


def map_paths(function: Callable[[str], T], paths: Sequence[str]) -> dict[str, T]:
    """Return `{path: function(path)}`, computed on threads."""
    if len(paths) > 1 and not is_forked():
        try:
            with ThreadPoolExecutor(min(_MAX_THREADS, len(paths)), "arsrc-files") as threads:
                return dict(zip(paths, threads.map(function, paths), strict=True))
        except RuntimeError as error:
            # At the interpreter's exit there are no new threads, but a state may still be saved.
            if "shutdown" not in str(error):
                raise
    return {path: function(path) for path in paths}
