"""Decoded elements kept in memory: one array per leaf, filled as records are first read."""

import threading
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from arsrc.errors import ArsrcValueError, message

Leaves = list[NDArray[np.generic]]


class ElementCache:
    """One array `[num_records, ...]` per leaf, and which of its rows are filled.

    Args:
        num_records: Records in the data set.
        spec: Shape and dtype of each leaf of an element.
        max_bytes: Most memory it may take.

    Raises:
        ArsrcValueError: The decoded data set is larger than `max_bytes`.
    """

    def __init__(
        self, num_records: int, spec: Sequence[tuple[tuple[int, ...], np.dtype]], max_bytes: int
    ) -> None:
        self.num_bytes = sum(num_records * int(np.prod(shape)) * dtype.itemsize for shape, dtype in spec)
        if self.num_bytes > max_bytes:
            raise ArsrcValueError(
                message(
                    "cacheable",
                    f"the decoded data set has {self.num_bytes} bytes, more than cache_bytes allows",
                    "Raise ReadOptions.cache_bytes, or set cacheable=False.",
                    cache_bytes=max_bytes,
                )
            )
        # Pages are given by the system when they are first written: an unfilled cache takes no memory.
        self._arrays = [np.empty((num_records, *shape), dtype) for shape, dtype in spec]
        self._filled = np.zeros(num_records, np.bool_)
        self._lock = threading.Lock()

    def get(self, ids: NDArray[np.int64], load: Callable[[NDArray[np.int64]], Leaves]) -> tuple[Leaves, int]:
        """Return the leaves of the records `ids`, and how many of them were there already."""
        missing = ids[~self._filled[ids]]
        if len(missing):
            leaves = load(missing)
            for array, leaf in zip(self._arrays, leaves, strict=True):
                array[missing] = leaf
            # After the rows: two threads may fill a row, with the same bytes, but none may see it half filled.
            with self._lock:
                self._filled[missing] = True
        return [array[ids] for array in self._arrays], len(ids) - len(missing)

    def clear(self) -> None:
        """Forget all elements."""
        with self._lock:
            self._filled[:] = False
