"""Decoded elements kept, in memory or in files, filled as records are first read."""

import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from arsrc._host.records.file_cache import FileCache
from arsrc._host.records.leaves import LeafShapes, Leaves, Load
from arsrc.amounts import counted, in_bytes
from arsrc.errors import ArsrcValueError

_LOG = logging.getLogger("arsrc")
_LAYOUT = 2  # of the files: those of another one are not looked for


class ElementCache(Protocol):
    """Elements by record id, shown as text with how many are there."""

    def get(self, ids: NDArray[np.int64], load: Load) -> tuple[Leaves, int]:
        """Return the leaves of the records `ids`, and how many of them were there already.

        Rows of records that are not there, and that `load` does not give either, hold anything.
        """
        ...

    def clear(self) -> None:
        """Forget all elements, on disk too."""
        ...


class MemoryCache:
    """One array `[num_records, ...]` per leaf, and which of its rows are filled.

    Args:
        num_records: Records in the data set.
        shapes: Shape and dtype of each leaf of an element.
    """

    def __init__(self, num_records: int, shapes: LeafShapes) -> None:
        self._lock = threading.RLock()
        self._filled = np.zeros(num_records, np.bool_)
        # Pages are given by the system when they are first written: what is not filled takes no memory.
        self._arrays: Leaves = [np.empty((num_records, *shape), dtype) for shape, dtype in shapes]
        self._num_missing = num_records
        _LOG.info("%s", self)

    def __str__(self) -> str:
        num_bytes = in_bytes(sum(array.nbytes for array in self._arrays))
        share = f"{len(self._filled) - self._num_missing:,} of {counted(len(self._filled), 'record')}"
        return f"decoded records are kept in memory ({num_bytes}): {share} are there"

    def get(self, ids: NDArray[np.int64], load: Load) -> tuple[Leaves, int]:
        """Return what `ElementCache.get` does."""
        missing = ids[~self._filled[ids]] if self._num_missing else ids[:0]
        if len(missing):
            loaded, leaves = load(missing)
            for array, leaf in zip(self._arrays, leaves, strict=True):
                array[loaded] = leaf
            self._mark(loaded)
        return [array.take(ids, axis=0) for array in self._arrays], len(ids) - len(missing)

    def _mark(self, ids: NDArray[np.int64]) -> None:
        # After the rows: two threads may fill a row, with the same bytes, but none may see it half filled.
        with self._lock:
            num_new = len(np.unique(ids[~self._filled[ids]]))
            self._filled[ids] = True
            self._num_missing -= num_new  # afterwards: an interrupt between leaves rows to look for, and none unfilled
            is_full = num_new > 0 == self._num_missing
        if is_full:
            _LOG.info("%s", self)

    def clear(self) -> None:
        """Forget all elements."""
        with self._lock:
            self._filled[:] = False
            self._num_missing = len(self._filled)


def open_cache(
    num_records: int, shapes: LeafShapes, max_bytes: int, cache_dir: str | None, identity: Callable[[], str]
) -> ElementCache:
    """Return a cache in memory if it fits into `max_bytes`, else in files under `cache_dir`.

    Args:
        num_records: Records in the data set.
        shapes: Shape and dtype of each leaf of an element.
        max_bytes: Most memory it may take.
        cache_dir: Where caches in files lie; None allows none.
        identity: Says what the elements are (data and codec): each has a folder of its own.

    Raises:
        ArsrcValueError: The decoded data set does not fit, in memory or on the disk of `cache_dir`, or that cannot be
            used.
    """
    num_bytes = num_records * sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in shapes)
    if num_bytes <= max_bytes:
        return MemoryCache(num_records, shapes)
    if cache_dir is None:
        what = f"the decoded data set has {num_bytes} bytes, more than cache_bytes allows"
        fix = "Raise ReadOptions.cache_bytes, name a ReadOptions.cache_dir, or set cacheable=False."
        raise ArsrcValueError("cacheable", what, fix, cache_bytes=max_bytes)
    leaves = [[list(shape), str(dtype)] for shape, dtype in shapes]
    what = json.dumps({"layout": _LAYOUT, "elements": identity(), "leaves": leaves}, indent=1)
    folder = os.path.join(cache_dir, f"arsrc-{hashlib.sha256(what.encode()).hexdigest()[:32]}")
    try:
        return FileCache(num_records, shapes, folder, what)
    except OSError as error:
        fault = f"cache_dir cannot be used ({error.strerror})"
        fix = "Name a folder to write to, or one in which these records are kept."
        raise ArsrcValueError("cacheable", fault, fix, cache_dir=cache_dir, path=error.filename) from error
