"""Windows of a block order, decoded whole: each group of a compressed file is decoded once per window."""

import threading
from collections.abc import Callable, Hashable
from typing import NamedTuple

from arsrc._host.machine.once import Once
from arsrc._host.records.leaves import Leaves


class _Window(NamedTuple):
    num_bytes: int
    leaves: Once[Leaves]


class Windows:
    """The windows used last, of all sources of the same files; equal requests share one load.

    They may take half of what may be kept, so that batches are read ahead beside them; but always two of them, this
    and the next.

    Args:
        max_bytes: Most bytes that may be kept for all purposes.
        make_room: Called with the most bytes that may be kept besides.
    """

    def __init__(self, max_bytes: int, make_room: Callable[[int], None]) -> None:
        self._max_bytes, self._make_room = max_bytes, make_room
        self._windows: dict[tuple[object, Hashable], _Window] = {}  # the one used last at the end
        self._lock = threading.RLock()

    @property
    def num_bytes(self) -> int:
        """Bytes that they take."""
        return sum(window.num_bytes for window in list(self._windows.values()))

    def most_bytes(self, num_bytes: int) -> int:
        """Return what windows of so many bytes take at most."""
        return max(self._max_bytes // 2, 2 * num_bytes)

    def fits(self, num_bytes: int) -> bool:
        """Whether windows of so many bytes can be kept."""
        return 2 * num_bytes <= self._max_bytes

    def get(self, owner: object, key: Hashable, num_bytes: int, load: Callable[[], Leaves]) -> Leaves:
        """Return the leaves of a window of `owner`, loading it if it is not there."""
        if (owner, key) not in self._windows:
            self._make_room(self._max_bytes - num_bytes)
        with self._lock:
            window = self._windows.pop((owner, key), None)
            if window is None:
                kept = list(self._windows)
                while len(kept) > 1 and self.num_bytes + num_bytes > self._max_bytes // 2:
                    self._windows.pop(kept.pop(0), None)
                window = _Window(num_bytes, Once())
            self._windows[owner, key] = window  # the last
        return window.leaves.get(load)

    def forget(self, owner: object) -> None:
        """Let go of the windows of a source."""
        with self._lock:
            for name in list(self._windows):
                if name[0] is owner:
                    self._windows.pop(name, None)

    def clear(self) -> None:
        """Let go of all windows."""
        with self._lock:
            self._windows.clear()
