"""Work that can be told to end before it is done."""

from collections.abc import Callable

Stop = Callable[[], bool]
"""Says whether a piece of work is not wanted any more; it then ends between two records."""


class Stopped(BaseException):
    """Work ended before it was done, since nobody wants it any more: no error, so that no codec takes it for one."""


def check(stop: Stop | None) -> None:
    """Raise `Stopped` where `stop` says so."""
    if stop is not None and stop():
        raise Stopped
