"""Whether it is quiet enough to measure: nobody works on another's time, and the machine itself goes on."""

import contextlib
import os
import pathlib
import threading
import time
from types import TracebackType
from typing import Self

_WINDOW_S = 0.03
_PULSE_S = 0.2


def settle(limit_s: float) -> None:
    """Wait until neither this process nor its workers use the CPU, but no longer than that."""
    deadline = time.perf_counter() + limit_s
    while time.perf_counter() < deadline:
        begin = cpu_seconds()
        time.sleep(_WINDOW_S)
        if cpu_seconds() - begin < _WINDOW_S / 5:
            return


def cpu_seconds() -> float:
    """Return the CPU time that this process and its workers have used; of workers it is known in hundredths."""
    ticks = 0
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) == os.getpid():  # of its parent
                ticks += int(fields[11]) + int(fields[12])  # user and system time
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


class Pulse:
    """Notices when everything stood still meanwhile, as a virtual machine does that is paused or moved.

    Attributes:
        gap_s: Longest time in which a thread that wakes up all the time did not.
    """

    def __init__(self) -> None:
        self.gap_s = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def _beat(self) -> None:
        last = time.monotonic()
        while not self._stop.wait(_PULSE_S):
            now = time.monotonic()
            self.gap_s, last = max(self.gap_s, now - last), now
        self.gap_s = max(self.gap_s, time.monotonic() - last)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
