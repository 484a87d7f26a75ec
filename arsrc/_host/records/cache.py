"""Decoded elements kept: one array per leaf, in memory or in files, filled as records are first read."""

import hashlib
import json
import logging
import os
import shutil
import threading
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from arsrc._host.records.leaves import LeafShapes, Leaves
from arsrc.amounts import counted, in_bytes
from arsrc.errors import ArsrcValueError

_LOG = logging.getLogger("arsrc")

Load: TypeAlias = Callable[[NDArray[np.int64]], tuple[NDArray[np.int64], Leaves]]
"""Gives those of some ids whose records can be read, and the leaves of these."""


class ElementCache:
    """One array `[num_records, ...]` per leaf, and which of its rows are filled.

    In files, the cache is there for the next process too: rows are marked as filled on disk only after they
    have been written out, when the cache is full or closed, so that a killed process loses work, not data.

    Args:
        num_records: Records in the data set.
        shapes: Shape and dtype of each leaf of an element.
        folder: Folder of the files; None keeps the elements in memory.
    """

    def __init__(self, num_records: int, shapes: LeafShapes, folder: str | None) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._filled = np.zeros(num_records, np.bool_)
        self._found_whole = True
        if folder is not None:
            os.makedirs(folder, exist_ok=True)
        # Pages are given by the system when they are first written: what is not filled takes no memory.
        self._arrays = [self._array(i, (num_records, *s), dtype) for i, (s, dtype) in enumerate(shapes)]
        if folder is not None and self._found_whole:
            self._filled = self._marked()
        self._num_missing = num_records - int(self._filled.sum())
        _LOG.info("%s", self)

    def __str__(self) -> str:
        num_bytes = in_bytes(sum(array.nbytes for array in self._arrays))
        where = "in memory" if self._folder is None else f"in files, {self._folder!r}"
        num_there = len(self._filled) - self._num_missing
        share = f"{num_there:,} of {counted(len(self._filled), 'record')}"
        return f"decoded records are kept {where} ({num_bytes}): {share} are there"

    @property
    def _marks(self) -> str:
        assert self._folder is not None
        return os.path.join(self._folder, "filled")

    def _marked(self) -> NDArray[np.bool_]:
        """Return which rows are marked as filled on disk, bool[num_records]."""
        if _size(self._marks) != len(self._filled):
            return np.zeros(len(self._filled), np.bool_)
        return np.fromfile(self._marks, np.bool_)

    def _array(self, number: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        num_bytes = int(np.prod(shape)) * dtype.itemsize
        if self._folder is None or num_bytes == 0:
            return np.empty(shape, dtype)
        path = os.path.join(self._folder, f"leaf-{number}")
        if _size(path) != num_bytes:
            self._found_whole = False  # what was filled in it is lost: nobody may take it for filled again
            self._remove_marks()
            with open(path, "ab") as file:
                file.truncate(num_bytes)
        raw = np.memmap(path, np.uint8, "r+", shape=(num_bytes,))
        return raw.view(dtype).reshape(shape)

    def get(self, ids: NDArray[np.int64], load: Load) -> tuple[Leaves, int]:
        """Return the leaves of the records `ids`, and how many of them were there already.

        Rows of records that are not there, and that `load` does not give either, hold anything.
        """
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
            self._num_missing -= num_new
            self._filled[ids] = True
            full = num_new > 0 == self._num_missing
        if full:
            self.close()
            _LOG.info("%s", self)

    def clear(self) -> None:
        """Forget all elements, on disk too."""
        with self._lock:
            self._filled[:] = False
            self._num_missing = len(self._filled)
            if self._folder is not None:
                self._remove_marks()

    def _remove_marks(self) -> None:
        if os.path.exists(self._marks):
            os.remove(self._marks)

    def close(self) -> None:
        """Write out what is filled."""
        if self._folder is None:
            return
        with self._lock:
            filled = self._filled | self._marked()  # several processes may share the files
            for array in self._arrays:
                if isinstance(base := _memmap(array), np.memmap):
                    base.flush()
            part = f"{self._marks}.{os.getpid()}"
            filled.tofile(part)
            os.replace(part, self._marks)


def open_cache(
    num_records: int, shapes: LeafShapes, max_bytes: int, cache_dir: str | None, identity: Callable[[], str]
) -> ElementCache:
    """Return a cache in memory if it fits into `max_bytes`, else in files under `cache_dir`.

    Args:
        num_records: Records in the data set.
        shapes: Shape and dtype of each leaf of an element.
        max_bytes: Most memory it may take.
        cache_dir: Where caches in files lie; None allows none.
        identity: Says what the elements are (fingerprint and codec): each has a folder of its own.

    Raises:
        ArsrcValueError: The decoded data set does not fit, in memory or on the disk of `cache_dir`.
    """
    num_bytes = num_records * sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in shapes)
    if num_bytes <= max_bytes:
        return ElementCache(num_records, shapes, None)
    sizes = f"the decoded data set has {num_bytes} bytes"
    if cache_dir is None:
        fix = "Raise ReadOptions.cache_bytes, name a ReadOptions.cache_dir, or set cacheable=False."
        raise ArsrcValueError("cacheable", f"{sizes}, more than cache_bytes allows", fix, cache_bytes=max_bytes)
    what = json.dumps({"elements": identity(), "leaves": [[list(s), str(d)] for s, d in shapes]}, indent=1)
    folder = os.path.join(cache_dir, f"arsrc-{hashlib.sha256(what.encode()).hexdigest()[:32]}")
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        what = f"cache_dir cannot be used ({error.strerror})"
        raise ArsrcValueError("cacheable", what, "Name a folder to write to.", cache_dir=cache_dir) from error
    free = shutil.disk_usage(folder).free + _bytes_in(folder)
    if num_bytes > free:
        raise ArsrcValueError("cacheable", f"{sizes}, {free} are free in cache_dir", cache_dir=cache_dir)
    with open(os.path.join(folder, "elements.json"), "w") as file:
        file.write(what)
    return ElementCache(num_records, shapes, folder)


def _size(path: str) -> int:
    """Return the bytes of a file, -1 if there is none."""
    return os.path.getsize(path) if os.path.exists(path) else -1


def _memmap(array: NDArray[Any]) -> Any:
    while isinstance(array.base, np.ndarray) and not (isinstance(array, np.memmap) and array.dtype == np.uint8):
        array = array.base
    return array


def _bytes_in(folder: str) -> int:
    return sum(entry.stat().st_blocks * 512 for entry in os.scandir(folder))
