"""Which records have been read by array_record's reader, which verifies hashes: one bit for each."""

import threading

import numpy as np
from numpy.typing import NDArray


class Verified:
    """Records of a data set, by their ids, whose hashes were verified. Safe to use from several threads.

    Args:
        num_records: Records in all.
    """

    def __init__(self, num_records: int) -> None:
        self._bits = np.zeros(-(-num_records // 8), np.uint8)
        self._num_records = self._num_left = num_records
        self._is_all = False
        self._lock = threading.RLock()

    @property
    def is_all(self) -> bool:
        """Whether none is left."""
        if not self._is_all and self._num_left <= 0:  # a signal handler that reads may have counted some twice
            self._num_left = self._num_records - int(np.bitwise_count(self._bits).sum())
            self._is_all = self._num_left == 0
        return self._is_all

    def are_left(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which of some records were not verified yet."""
        if self.is_all:
            return np.zeros(len(ids), bool)
        return self._bits[ids >> 3] >> (ids & 7).astype(np.uint8) & 1 == 0

    def add(self, ids: NDArray[np.int64]) -> None:
        """Take note of records that were verified."""
        with self._lock:
            new = np.unique(ids[self.are_left(ids)])
            np.bitwise_or.at(self._bits, new >> 3, np.uint8(1) << (new & 7).astype(np.uint8))
            self._num_left -= len(new)
