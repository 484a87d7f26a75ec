"""Windows of a block order, decoded whole: each group of a compressed file is decoded once per window."""

import collections
import threading
from collections.abc import Callable, Hashable

from arsrc._host.machine.once import Once
from arsrc._host.records.leaves import Leaves


class Windows:
    """The windows used last, at most `max_windows` of them; equal requests share one load."""

    def __init__(self, max_windows: int, window_bytes: int) -> None:
        self._max_windows, self._window_bytes = max_windows, window_bytes
        self._windows: collections.OrderedDict[Hashable, Once[Leaves]] = collections.OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, load: Callable[[], Leaves]) -> Leaves:
        """Return the leaves of a window, loading it if it is not there."""
        with self._lock:
            window = self._windows.setdefault(key, Once())
            self._windows.move_to_end(key)
            while len(self._windows) > self._max_windows:
                self._windows.popitem(last=False)
        return window.get(load)

    @property
    def num_bytes(self) -> int:
        """Bytes that they take."""
        return len(self._windows) * self._window_bytes

    def clear(self) -> None:
        """Let go of all windows."""
        with self._lock:
            self._windows.clear()
