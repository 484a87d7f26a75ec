"""Decoded groups, kept within a bound in bytes: each is decoded once for all who want records of it for a while."""

import threading
from collections.abc import Callable, Hashable

from arsrc._host.machine.once import Once
from arsrc.record_batch import RecordBatch


class GroupCache:
    """The groups used last. Who asks for one while another loads it waits. Safe to use from several threads.

    Args:
        max_bytes: Most bytes that are kept.

    Attributes:
        max_bytes: The same.
        num_bytes: Bytes that they take.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.num_bytes = max_bytes, 0
        self._groups: dict[Hashable, tuple[int, Once[RecordBatch]]] = {}  # the one used last at the end
        self._lock = threading.RLock()

    def get(self, name: Hashable, num_bytes: int, load: Callable[[], RecordBatch]) -> RecordBatch:
        """Return a group of so many bytes, loading it if it is not there."""
        if num_bytes > self.max_bytes:
            return load()
        with self._lock:
            if (kept := self._groups.pop(name, None)) is None:
                self._make_room(num_bytes)
                kept = num_bytes, Once()
            self._groups[name] = kept
        return kept[1].get(load)

    def _make_room(self, num_bytes: int) -> None:
        """Let go of the oldest until so many bytes more can be kept."""
        self.num_bytes += num_bytes
        while self.num_bytes > self.max_bytes:
            freed, _ = self._groups.pop(next(iter(self._groups)))
            self.num_bytes -= freed

    def clear(self) -> None:
        """Let go of all."""
        with self._lock:
            self._groups.clear()
            self.num_bytes = 0
