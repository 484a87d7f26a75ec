"""Orders computed in slabs: thousands of positions at once cost a fraction of a few hundred at a time.

What counts is less the time than the interpreter lock: NumPy gives it up and takes it back at each operation, of
which the order takes two hundred whatever the size, and each time the training step may be kept waiting.
"""

import collections
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SLAB = 2**16  # positions
_NUM_SLABS = 8


class Slabs:
    """Remembers the slabs of orders that were used last.

    Args:
        record_at: Computes ids: `record_at(key_words u32[num_words], epoch u32[1], position u32[n]) -> u32[n]`.
        num_records: Positions in an epoch.
    """

    def __init__(self, record_at: Callable[..., NDArray[np.uint32]], num_records: int) -> None:
        self._record_at, self._num_records = record_at, num_records
        self._slabs: collections.OrderedDict[tuple[int, ...], NDArray[np.uint32]] = collections.OrderedDict()
        self._lock = threading.Lock()

    def record_at(self, key_words: NDArray[Any], epoch: NDArray[Any], position: NDArray[Any]) -> NDArray[np.uint32]:
        """Return u32[*position.shape], what `record_at` gives; `epoch` broadcasts with `position`."""
        slab, offset = np.divmod(position, np.uint32(_SLAB))
        which = (epoch.astype(np.uint64) << np.uint64(32)) | slab  # u64[*position.shape]
        first = int(which.flat[0])
        if (which == first).all():
            return self._slab(key_words, first >> 32, first & 0xFFFFFFFF)[offset]
        ids = np.empty(position.shape, np.uint32)
        for one in np.unique(which).tolist():
            here = which == one
            ids[here] = self._slab(key_words, one >> 32, one & 0xFFFFFFFF)[offset[here]]
        return ids

    def _slab(self, key_words: NDArray[Any], epoch: int, number: int) -> NDArray[np.uint32]:
        key = (*key_words.tolist(), epoch, number)
        with self._lock:
            if key in self._slabs:
                self._slabs.move_to_end(key)
                return self._slabs[key]
        first = number * _SLAB
        position = np.arange(first, min(first + _SLAB, self._num_records), dtype=np.uint32)
        ids = self._record_at(key_words, np.array([epoch], np.uint32), position)
        with self._lock:
            self._slabs[key] = ids
            while len(self._slabs) > _NUM_SLABS:
                self._slabs.popitem(last=False)
        return ids
