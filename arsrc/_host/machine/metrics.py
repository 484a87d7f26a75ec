"""Counters of what the host did for one source."""

import threading
from time import perf_counter


class Metrics:
    """Thread-safe sums by name.

    Attributes:
        batches_at_once: How many the program asked for together, last.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # signal handlers look at them, too
        self.batches_at_once = 1
        self._left_at: float | None = None  # when batches were given out last
        self._sums: dict[str, float] = {
            "records_read": 0,
            "bytes_read": 0,
            "records_decoded": 0,
            "bytes_decoded": 0,
            "seconds_read": 0.0,
            "seconds_in_codec": 0.0,
            "seconds_waited": 0.0,
            "seconds_away": 0.0,
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

    def read(self, num_records: int, num_bytes: int, num_decoded: int, start: float, codec_start: float) -> None:
        """Count records that were read and decoded until now.

        Args:
            num_records: How many.
            num_bytes: Their bytes.
            num_decoded: How many were decoded for them: whole groups.
            start: When reading them began, as of `perf_counter`.
            codec_start: When they were there.
        """
        now = perf_counter()
        self.add(
            records_read=num_records,
            bytes_read=num_bytes,
            records_decoded=num_decoded,
            bytes_decoded=num_bytes * num_decoded // max(num_records, 1),
            seconds_read=now - start,
            seconds_in_codec=now - codec_start,
        )

    def serve(self, num_batches: int, asked_at: float, *, is_ready: bool = False, is_here: bool = False) -> None:
        """Count batches that the program waited for until now, or in vain.

        Args:
            num_batches: How many.
            asked_at: When it asked for them, as of `perf_counter`.
            is_ready: Whether they were loaded when it asked.
            is_here: Whether they were loaded on its own thread.
        """
        now = perf_counter()
        with self._lock:
            sums, self.batches_at_once = self._sums, num_batches
            sums["batches_served"] += num_batches
            sums["batches_ready"] += num_batches * is_ready
            sums["batches_here"] += num_batches * is_here
            sums["seconds_waited"] += now - asked_at
            if self._left_at is not None:  # several devices may ask at once
                sums["seconds_away"] += max(0.0, asked_at - self._left_at)
            self._left_at = now

    def snapshot(self) -> dict[str, float]:
        """Return the sums so far."""
        with self._lock:
            return dict(self._sums)
