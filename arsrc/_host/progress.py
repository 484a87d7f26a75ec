"""A progress line for long host work, drawn only where a person watches a terminal."""

import sys
from collections.abc import Iterable, Iterator
from time import monotonic

_DELAY = 1.0  # seconds without a line: short work stays silent
_EVERY = 0.2


def track(steps: Iterable[int], total: int, label: str) -> Iterator[int]:
    """Pass `steps` through, positions on the way to `total`, and draw how far they are."""
    out = sys.stderr
    start = drawn = monotonic()
    for step in steps:
        yield step
        now = monotonic()
        if not out.isatty() or now - start < _DELAY or now - drawn < _EVERY:
            continue
        drawn = now
        share = step / total
        left = (now - start) * (1 - share) / share if share else 0.0
        bar = "#" * int(30 * share)
        out.write(f"\r{label} [{bar:<30}] {share:4.0%} {left:5.0f} s left")
        out.flush()
    if drawn != start:
        out.write("\r" + " " * 80 + "\r")
        out.flush()
