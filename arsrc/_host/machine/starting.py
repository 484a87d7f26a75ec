"""Ctrl-C while the command line imports the library: it ends the process at once, without a traceback.

What is imported first, as this module is, says so for all that is imported behind it, until `over()`.
"""

import signal
import sys
import threading
from collections.abc import Sequence


def is_command(argv: Sequence[str], orig_argv: Sequence[str]) -> bool:
    """Say whether a process that imports the library runs `python -m arsrc` or the script `arsrc`."""
    if list(argv[:1]) == ["-m"]:  # so it is while the package of a module that is to be run is imported
        return orig_argv[-len(argv) :][:1] in (["arsrc"], ["-marsrc"])
    return argv[:1] != [] and argv[0].rpartition("/")[2] == "arsrc"


def over() -> None:
    """End this: from now on Ctrl-C is an exception, as in every program."""
    if _ENDS:
        signal.signal(signal.SIGINT, signal.default_int_handler)


_ENDS = (
    is_command(sys.argv, sys.orig_argv)
    and threading.current_thread() is threading.main_thread()
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler  # it may be ignored, as under nohup
)
if _ENDS:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
