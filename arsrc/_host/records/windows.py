"""Windows of a block order, decoded whole: each group of a compressed file is decoded once per window."""

import collections
import threading
from collections.abc import Callable, Hashable

from arsrc._host.machine.budget import Budget
from arsrc._host.machine.once import Once
from arsrc._host.records.leaves import Leaves


class Windows:
    """The windows used last, at most `max_windows` of them; equal requests share one load."""

    def __init__(self, max_windows: int, window_bytes: int, budget: Budget) -> None:
        self._max_windows, self._window_bytes, self._budget = max_windows, window_bytes, budget
        self._windows: collections.OrderedDict[Hashable, Once[Leaves]] = collections.OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, load: Callable[[], Leaves]) -> Leaves:
        """Return the leaves of a window, loading it if it is not there."""
        with self._lock:
            if key not in self._windows:
                self._windows[key] = Once()
                self._budget.hold("groups", self._window_bytes)
            window = self._windows[key]
            self._windows.move_to_end(key)
            while len(self._windows) > self._max_windows:
                self._forget_oldest()
        return window.get(load)

    def clear(self) -> None:
        """Let go of all windows."""
        with self._lock:
            while self._windows:
                self._forget_oldest()

    def _forget_oldest(self) -> None:
        self._windows.popitem(last=False)
        self._budget.hold("groups", -self._window_bytes)
