"""Decoded elements kept in files: for the next process too, and for several at once."""

import contextlib
import logging
import os
import uuid

import numpy as np

from arsrc._host.records.element_rows import RowLayout
from arsrc._host.records.leaves import LeafShapes, Leaves, Load
from arsrc._host.records.row_log import Ids, RowLog
from arsrc._host.storage import system
from arsrc._host.storage.open_file import OpenFile
from arsrc.amounts import counted, in_bytes
from arsrc.errors import ArsrcValueError, ArsrcWriteError, message

_LOG = logging.getLogger("arsrc")


class FileCache:
    """Elements in files, filled as records are first read.

    What goes wrong with the files later is logged, once; the records are then read as if there were no cache, or only
    what is in it already.

    Args:
        num_records: Records in the data set.
        shapes: Shape and dtype of each leaf of an element.
        folder: Folder of the files.
        identity: Says what the elements are.

    Raises:
        ArsrcValueError: There is not enough room on the disk.
        OSError: The files cannot be used.
    """

    def __init__(self, num_records: int, shapes: LeafShapes, folder: str, identity: str) -> None:
        self._folder, self._num_records, self._layout = folder, num_records, RowLayout(shapes, identity)
        self._is_told = False
        system.calls.make_folder(folder)
        _describe(os.path.join(folder, "elements.json"), identity)
        self._log: RowLog | None = self._opened()
        self._is_filled = self._log.is_writable
        if self._is_filled and (missing := self._num_missing_bytes) > (free := system.calls.free_bytes(folder)):
            what = f"{missing} bytes of decoded records are to be kept, {missing - free} more than are free there"
            fix = "Make room, name a ReadOptions.cache_dir on a larger disk, or set cacheable=False."
            raise ArsrcValueError("cacheable", what, fix, cache_dir=folder)
        _LOG.info("%s", self)

    def __str__(self) -> str:
        num_bytes = in_bytes(self._num_records * self._layout.num_bytes)
        what = "kept in files" if self._is_filled else "read from files that are not written to"
        num_there = 0 if self._log is None else self._num_records - self._log.num_missing
        share = f"{num_there:,} of {counted(self._num_records, 'record')} are there"
        return f"decoded records are {what}, {self._folder!r} ({num_bytes}): {share}"

    def _opened(self) -> RowLog:
        return RowLog(self._folder, self._num_records, self._layout)

    @property
    def _num_missing_bytes(self) -> int:
        return 0 if self._log is None else self._log.num_missing * self._layout.num_bytes

    def get(self, ids: Ids, load: Load) -> tuple[Leaves, int]:
        """Return what `ElementCache.get` does."""
        log = self._log
        ends, missing = (ids, np.arange(len(ids))) if log is None else self._find(log, ids)
        if log is not None and not len(missing):
            return log.take(ends), len(ids)
        loaded, new = load(ids[missing])
        if log is not None and self._is_filled and len(loaded):
            self._add(log, loaded, new)
        if len(loaded) == len(ids):
            return new, 0
        found = np.delete(np.arange(len(ids)), missing)
        kept = log.take(ends[found]) if log is not None and len(found) else [leaf[:0] for leaf in new]
        rows = missing[np.isin(ids[missing], loaded)]
        leaves: Leaves = [np.empty((len(ids), *leaf.shape[1:]), leaf.dtype) for leaf in new]
        for leaf, old, one in zip(leaves, kept, new, strict=True):
            leaf[found], leaf[rows] = old, one
        return leaves, len(found)

    def _find(self, log: RowLog, ids: Ids) -> tuple[Ids, Ids]:
        try:
            found = log.find(ids)
        except OSError as error:
            self._stop("used", error)
            return ids, np.arange(len(ids))
        if log.was_bad and not self._is_told:
            self._is_told = True
            what = "decoded records that were kept are not what was written; they are read and decoded again"
            _LOG.warning(message("cacheable", what, cache_dir=self._folder))
        return found

    def _add(self, log: RowLog, ids: Ids, leaves: Leaves) -> None:
        try:
            if log.add(ids, leaves):
                _LOG.info("%s", self)
        except OSError as error:
            self._stop("filled", error)

    def _stop(self, what: str, error: OSError) -> None:
        """Fill it no more; where that is not all, use it no more either."""
        missing = in_bytes(self._num_missing_bytes)
        was_filled, self._is_filled = self._is_filled, False
        if what == "used":
            self._log = None
        if was_filled or what == "used":
            text = f"a cache of decoded records cannot be {what} any more ({error.strerror})"
            fix = "What is not taken from it is read and decoded again."
            _LOG.warning(message("cacheable", text, fix, cache_dir=self._folder, missing=missing))

    def clear(self) -> None:
        """Forget all elements, on disk too; who has the files open goes on with them.

        Raises:
            ArsrcWriteError: They cannot be forgotten on disk.
        """
        try:
            for name in ("places", "rows"):
                with contextlib.suppress(FileNotFoundError):
                    system.calls.unlink(os.path.join(self._folder, name))
            self._log = self._opened()
        except OSError as error:
            self._log = None
            what = f"decoded records cannot be forgotten on disk ({error.strerror})"
            raise ArsrcWriteError("reset_cache", what, cache_dir=self._folder) from error
        self._is_filled = self._log.is_writable


def _describe(path: str, identity: str) -> None:
    """Say in a file what the elements are, if it does not say so."""
    text = identity.encode()
    with contextlib.suppress(FileNotFoundError):
        if OpenFile(path, os.O_RDONLY | os.O_NONBLOCK).read(len(text) + 1, 0) == text:
            return
    part = f"{path}.{uuid.uuid4().hex}"
    file = OpenFile(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        if system.calls.pwrite(file.fd, text, 0) == len(text):
            system.calls.rename(part, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            system.calls.unlink(part)
