"""Counters of what the host did for one source."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter


class Metrics:
    """Thread-safe sums by name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums: dict[str, float] = {
            "records_read": 0,
            "bytes_read": 0,
            "seconds_read": 0.0,
            "seconds_waited": 0.0,
            "cache_hits": 0,
            "batches_served": 0,
            "batches_ready": 0,
            "batches_here": 0,
            "background_errors": 0,
        }

    def add(self, **amounts: float) -> None:
        """Add to the sums."""
        with self._lock:
            for name, amount in amounts.items():
                self._sums[name] += amount

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the seconds that the body takes."""
        start = perf_counter()
        try:
            yield
        finally:
            self.add(**{name: perf_counter() - start})

    def snapshot(self) -> dict[str, float]:
        """Return the sums so far."""
        with self._lock:
            return dict(self._sums)
