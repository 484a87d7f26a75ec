"""Work that can be told to end before it is done."""

import threading
from collections.abc import Callable

Stop = Callable[[], bool]
"""Says whether a piece of work is not wanted any more; it then ends between two records."""


class Stopped(BaseException):
    """Work ended before it was done, since nobody wants it any more: no error, so that no codec takes it for one."""


def check(stop: Stop | None) -> None:
    """Raise `Stopped` where `stop` says so."""
    if stop is not None and stop():
        raise Stopped


def is_for_process(error: BaseException) -> bool:
    """Whether an exception that came out of a user's code is not about what this was doing.

    A signal handler runs in the midst of any code of the main thread: it may be that, as for Ctrl-C, which raised it.
    """
    return not isinstance(error, Exception) and threading.current_thread() is threading.main_thread()
