"""Contestants: array_record's own reader and data source, raw and feeding a training step."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from _arsrc import BATCH, CHECKED
from _data import DataSet
from _harness import Contestant, Pieces, Session
from _records import Readers, join
from _train_step import start, step
from array_record.python.array_record_data_source import ArrayRecordDataSource

_MOST_READS = 512  # plans of so many reads are made before the time runs, and used again and again


def orders(data: DataSet, size: int, turn: int) -> list[Any]:
    """Return i64[size] ids of some reads that together serve no record twice."""
    ids = np.random.default_rng(turn).permutation(data.num_records)
    num_reads = max(1, min(data.num_records // size, _MOST_READS))
    return [ids[size * read : size * (read + 1)] for read in range(num_reads)]


def _contestant(
    data: DataSet,
    name: str,
    counts: str,
    source: Callable[[], contextlib.AbstractContextManager[Any]],
    size: int,
    fed: bool,
) -> Contestant:
    """A contestant that reads `size` records a call; `source()` gives `(plan of ids, read of a plan)`."""

    @contextlib.contextmanager
    def opened() -> Iterator[Session]:
        with source() as (plan, read):

            def pieces(turn: int) -> Pieces:
                carry = start()
                for one in itertools.cycle([plan(ids) for ids in orders(data, size, turn)]):
                    records = read(one)
                    if fed:
                        batches = join(records)
                        for first in range(0, size, BATCH):
                            carry = step(carry, batches[first : first + BATCH])
                    yield size, carry.block_until_ready

            yield Session(pieces, lambda: [join(read(plan(ids))) for ids in orders(data, size, 0)[:CHECKED]])

    counts += ", joined to an array, one dispatch of the step a batch" if fed else "; no array, no step"
    return Contestant(name + (", fed" if fed else ""), "official", counts, opened)


def read(data: DataSet, size: int = BATCH, *, fed: bool = False) -> Contestant:
    """`ArrayRecordReader.read` with so many random indices; the indices are made beforehand."""

    @contextlib.contextmanager
    def source() -> Iterator[Any]:
        readers = Readers(data)
        try:
            yield readers.plan, readers.read
        finally:
            readers.close()

    counts = "reading to Python bytes, file by file"
    return _contestant(data, f"official read({size})", counts, source, size, fed)


def get_items(data: DataSet, size: int = BATCH, *, fed: bool = False) -> Contestant:
    """`ArrayRecordDataSource.__getitems__` with so many random indices, which reads files on threads."""

    @contextlib.contextmanager
    def source() -> Iterator[Any]:
        with ArrayRecordDataSource(data.paths) as records:
            yield (lambda ids: ids.tolist()), records.__getitems__

    counts = "reading to Python bytes, a thread for each file"
    return _contestant(data, f"official __getitems__({size})", counts, source, size, fed)


def opening(data: DataSet) -> Contestant:
    """Opening a reader for each file, one after the other."""

    @contextlib.contextmanager
    def opened() -> Iterator[Session]:
        def pieces(turn: int) -> Pieces:
            del turn
            while True:
                readers = Readers(data)
                num_records = sum(reader.num_records() for reader in readers.readers)
                readers.close()
                yield num_records, lambda: None

        yield Session(pieces, None)

    return Contestant("official, open", "official", "opening a reader for each file, and closing it", opened)
