"""Contestants that find none of their files in the page cache, as in the first epoch of a large data set."""

import contextlib
import ctypes
import mmap
import os
from collections.abc import Iterator

import numpy as np
from _array_record import orders
from _arsrc import NOTHING, scan_anew
from _data import DataSet
from _harness import Contestant, Pieces, Session, Unable
from _records import Readers

_MOST_RESIDENT = 0.05
"""Part of large files that may be in memory when a turn begins: opening reads their footers."""

_LARGE_BYTES = 2**28


def drop(paths: list[str]) -> None:
    """Drop the pages of files from the page cache: of files that are on disk, and that nobody has mapped."""
    if not hasattr(os, "posix_fadvise"):
        raise Unable("pages cannot be dropped from the page cache here")
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def resident_fraction(paths: list[str]) -> float:
    """Return which part of the files' pages is in the page cache, as mincore says."""
    libc = ctypes.CDLL(None, use_errno=True)
    found = total = 0
    for path in paths:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            view = np.frombuffer(mapped, np.uint8)
            pages = np.zeros(-(-len(view) // mmap.PAGESIZE), np.uint8)
            address, length = ctypes.c_void_p(view.ctypes.data), ctypes.c_size_t(len(view))
            if libc.mincore(address, length, ctypes.c_void_p(pages.ctypes.data)):
                raise Unable(f"mincore fails here ({os.strerror(ctypes.get_errno())})")
            found, total = found + int((pages & 1).sum()), total + len(pages)
            del view
    return found / total


def _check_cold(data: DataSet) -> None:
    resident = resident_fraction(data.paths)
    if resident > _MOST_RESIDENT and data.num_bytes > _LARGE_BYTES:
        raise Unable(f"{resident:.0%} of the files stayed in the page cache: pages cannot be dropped here")


def scan(data: DataSet, batches_per_fetch: int, steps: int) -> Contestant:
    """arsrc's scan over files that were dropped and opened anew."""

    @contextlib.contextmanager
    def dropping() -> Iterator[None]:
        drop(data.paths)
        yield
        _check_cold(data)

    counts = "reading from disk, the scan, the step; opening is not counted"
    return scan_anew(data, batches_per_fetch, steps, name="arsrc, cold scan", counts=counts, around_opening=dropping)


def official_read(data: DataSet, size: int, num_records: int) -> Contestant:
    """`ArrayRecordReader.read` over files that were dropped and opened anew; to Python bytes, no step."""

    @contextlib.contextmanager
    def opened() -> Iterator[Session]:
        def pieces(turn: int) -> Pieces:
            drop(data.paths)
            readers = Readers(data)
            try:
                plans = [readers.plan(ids) for ids in orders(data, size, turn)]
                assert sum(reader.num_records() for reader in readers.readers) == data.num_records
                _check_cold(data)
                reads = iter(plans)
                yield NOTHING
                while True:
                    for _ in range(num_records // size):
                        readers.read(next(reads))
                    yield num_records, lambda: None
            finally:
                readers.close()

        yield Session(pieces, None)

    counts = "reading from disk to Python bytes; opening is not counted"
    return Contestant(f"official, cold read({size})", "official", counts, opened)
