"""`python -m arsrc`, and the script `arsrc`: the command line."""

import _thread
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs


def main() -> int:
    """Run one command; return its exit code."""
    before, sys.unraisablehook = sys.unraisablehook, _report
    try:
        from arsrc import cli  # here, since that takes a while, and Ctrl-C may come meanwhile

        return cli.main()
    except KeyboardInterrupt:
        return 130
    finally:
        sys.unraisablehook = before


def _report(ignored: "UnraisableHookArgs") -> None:
    """Report what Python ignores; but a Ctrl-C that met a finalizer, or JAX's callback of `gc`, comes once more."""
    if issubclass(ignored.exc_type, KeyboardInterrupt):
        _thread.start_new_thread(_interrupt, ())  # not by `threading`, one of whose locks may be held here
    else:
        sys.__unraisablehook__(ignored)


def _interrupt() -> None:
    time.sleep(0.01)  # until the main thread has left the hook
    _thread.interrupt_main()


if __name__ == "__main__":
    sys.exit(main())
