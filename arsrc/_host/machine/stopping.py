"""Work that can be told to end before it is done."""

from collections.abc import Callable

Stop = Callable[[], bool]
"""Says whether a piece of work is not wanted any more; it then ends between two records."""


class Stopped(Exception):
    """Work ended before it was done, since nobody wants it any more."""


def check(stop: Stop | None) -> None:
    """Raise `Stopped` where `stop` says so."""
    if stop is not None and stop():
        raise Stopped
