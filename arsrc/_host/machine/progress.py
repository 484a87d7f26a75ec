"""A progress line for long host work, drawn only where a person watches a terminal."""

import sys
from collections.abc import Iterator, Sequence
from time import monotonic

_DELAY = 1.0  # seconds without a line: short work stays silent
_EVERY = 0.2


def track(steps: Sequence[int], label: str) -> Iterator[int]:
    """Pass `steps` through, each of about the same work, and draw how many are done."""
    out = sys.stderr
    is_watched = out is not None and out.isatty()  # None: the process began without one
    start = drawn = monotonic()
    try:
        for num_done, step in enumerate(steps, 1):
            yield step
            now = monotonic()
            if not is_watched or now - start < _DELAY or now - drawn < _EVERY:
                continue
            drawn = now
            share = num_done / len(steps)
            left = (now - start) * (1 - share) / share
            bar = "#" * int(30 * share)
            out.write(f"\r{label} [{bar:<30}] {share:4.0%} {left:5.0f} s left")
            out.flush()
    finally:  # an error message begins on a clean line
        if drawn != start:
            out.write("\r" + " " * 80 + "\r")
            out.flush()
