"""How far long host work is: drawn where a person watches, else logged."""

import contextlib
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from time import monotonic
from typing import Any, TypeVar

from arsrc.amounts import counted

_SHORT = 1.0  # seconds: work that takes less stays silent
_LOG_EVERY = 30.0  # seconds
_LOG = logging.getLogger("arsrc")

T = TypeVar("T")


def track(items: Iterable[T], label: str, num_records: int | None, each: int | None = 1) -> Generator[T, None, None]:
    """Pass items through, and show how far the work on them is.

    Args:
        items: Of about the same work each.
        label: What is being done.
        num_records: Records of all items; None if nobody knows.
        each: Records of one item; None: each item is a sequence of as many records as it is long.
    """
    num_done = 0
    with showing(label, num_records) as advance:
        for item in items:
            yield item
            step = len(item) if each is None else each  # type: ignore[arg-type]
            if num_records is not None:
                step = min(step, num_records - num_done)  # the last may be a smaller one
            num_done += step
            advance(step)


@contextlib.contextmanager
def showing(label: str, num_records: int | None) -> Iterator[Callable[[int], None]]:
    """Show how far work is: on a terminal, in a notebook, else in the log.

    Args:
        label: What is being done.
        num_records: Records in all; None if nobody knows.

    Yields:
        What is to be called with each number of records that was done, from any thread.
    """
    bar = _bar(label, num_records) if _is_watched() else None
    start = logged = monotonic()
    num_done = 0
    lock = threading.RLock()

    def advance(step: int) -> None:
        nonlocal num_done, logged
        with lock:
            num_done += step
            if bar is not None:
                bar.update(step)
            elif (now := monotonic()) - logged >= _LOG_EVERY:
                logged = now
                _LOG.info("%s: %s", label, _so_far(num_done, num_records, now - start))

    with contextlib.nullcontext() if bar is None else bar:  # an error message begins on a clean line
        yield advance
    if (seconds := monotonic() - start) >= _SHORT:
        _LOG.info("%s: %s, done in %.1f s", label, counted(num_done, "record"), seconds)


def _bar(label: str, num_records: int | None) -> Any:
    # Imported here: it takes as long as all the rest of a start, and begins a thread and a lock of processes.
    from tqdm import TqdmWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TqdmWarning)  # in a notebook without ipywidgets, of which the bar is text then
        from tqdm.auto import tqdm
    return tqdm(total=num_records, desc=label, unit=" records", unit_scale=True, leave=False, delay=_SHORT)


def _is_watched() -> bool:
    """Whether a person sees at once what is written to standard error: on a terminal, or in a notebook."""
    out = sys.stderr  # None: the process began without one
    if out is None or out.closed:
        return False
    return out.isatty() or type(out).__module__.startswith("ipykernel.")


def _so_far(num_done: int, num_records: int | None, seconds: float) -> str:
    if num_records is None:
        return f"{counted(num_done, 'record')}, {seconds:.0f} s"
    share = min(1.0, num_done / num_records)
    left = seconds * (1 - share) / share
    return f"{num_done:,} of {num_records:,} records, {share:.0%}, {seconds:.0f} s, about {left:.0f} s left"
