"""Contestants: a Python loop over a record's best decoder, of records in memory, or read by array_record's reader."""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from _array_record import orders
from _arsrc import BATCH, CHECKED
from _data import DataSet
from _forms import decode, is_lossy
from _harness import Contestant, Pieces, Session
from _records import Readers

_IN_MEMORY = 8192  # records: what a processor's caches do not hold, and every machine's memory does


def loop(data: DataSet) -> Contestant:
    """Decoding alone, on one core: each record's bytes are in memory already."""

    @contextlib.contextmanager
    def opened() -> Iterator[Session]:
        readers = Readers(data)
        records = readers.__getitems__(np.arange(min(_IN_MEMORY, data.num_records)))
        readers.close()
        yield _session(data, BATCH, lambda ids: [records[row] for row in (ids % len(records)).tolist()], checked=False)

    return Contestant("bare loop", "floor", "decoding one by one, stacking; no reading, no step", opened)


def read(data: DataSet, size: int = 4096) -> Contestant:
    """`ArrayRecordReader.read` with so many random indices, and that loop."""

    @contextlib.contextmanager
    def opened() -> Iterator[Session]:
        readers = Readers(data)
        try:
            yield _session(data, size, lambda ids: readers.read(readers.plan(ids)), checked=not is_lossy(data.form))
        finally:
            readers.close()

    counts = "reading to Python bytes, decoding one by one, stacking; no step"
    return Contestant(f"official read({size}) and the loop", "official", counts, opened)


def _session(data: DataSet, size: int, read_some: Callable[[Any], list[bytes]], checked: bool) -> Session:
    decode_one = functools.partial(decode, data.form)

    def batches(turn: int) -> Iterator[Any]:
        for ids in itertools.cycle(orders(data, size, turn)):
            elements = [decode_one(record) for record in read_some(ids)]
            for first in range(0, size, BATCH):
                some = elements[first : first + BATCH]
                yield {name: np.stack([element[name] for element in some]) for name in some[0]}

    def pieces(turn: int) -> Pieces:
        every = batches(turn)
        while True:
            for _ in itertools.islice(every, size // BATCH):
                pass
            yield size, lambda: None

    def delivered() -> Iterator[Any]:
        return (batch["image"] for batch in itertools.islice(batches(0), CHECKED))

    return Session(pieces, delivered if checked else None)
