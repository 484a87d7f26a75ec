"""A study of the memory that compressed records take beside themselves, in processes of their own."""

import contextlib
import multiprocessing
import pathlib
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
from _data import DataSet
from _records import Readers
from _study import Study, of

import arsrc
from arsrc._host import registry

_BATCH = 256
_RECORD_BYTES = 64
_MOST_BATCHES = 1024

Reading = Callable[[Any], Any]


def compressed(quick: bool) -> Study:
    """Over the number of records in one file."""
    study = Study(
        "Records, compressed",
        f"How much memory of its own does a process take for records of {_RECORD_BYTES} B, zstd, one record to a "
        f"chunk, once it has opened the file and read up to {_MOST_BATCHES} random batches of {_BATCH}? Pages of the "
        "file itself are not counted. Beyond what the official reader takes it is to be at most 16 B a record.",
        ("records", "open", "memory, B a record", "official, open", "official, B a record", "more, B a record"),
    )
    for count in (1_000, 10_000) if quick else (10_000, 100_000, 1_000_000):
        with tempfile.TemporaryDirectory() as folder:
            data = DataSet(pathlib.Path(folder), count, _RECORD_BYTES, options="group_size:1,zstd", sparse=True)
            data.prepare()
            opened, took = _in_a_fresh_process(_arsrc, data)
            opened_officially, took_officially = _in_a_fresh_process(_official, data)
        found = [f"{num_bytes / count:.1f}" for num_bytes in (took, took_officially, took - took_officially)]
        study.rows.append((count, of([opened]), found[0], of([opened_officially]), *found[1:]))
    return study


def _in_a_fresh_process(reading: Callable[[DataSet], Any], data: DataSet) -> tuple[float, int]:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
        return fresh.submit(_measured, reading, data).result()


def _measured(reading: Callable[[DataSet], contextlib.AbstractContextManager[Reading]], data: DataSet) -> Any:
    """Return the seconds that opening takes, and the most memory beyond what the process had before."""
    before, begin = _own_bytes(), time.perf_counter()
    with reading(data) as read:
        opened, most = time.perf_counter() - begin, _own_bytes()
        order = np.random.default_rng(0).permutation(data.num_records)
        for first in range(0, min(data.num_records - _BATCH, _MOST_BATCHES * _BATCH), _BATCH):
            read(order[first : first + _BATCH])
            most = max(most, _own_bytes())
    return opened, most - before - order.nbytes


@contextlib.contextmanager
def _arsrc(data: DataSet) -> Iterator[Reading]:
    config = arsrc.ArrayRecordSourceConfig(data.paths, _BATCH, shuffle_records=True)
    arsrc.num_records(config)
    elements = registry.source(config).elements
    yield lambda ids: elements.read(ids.astype(np.uint32))
    arsrc.close(config)


@contextlib.contextmanager
def _official(data: DataSet) -> Iterator[Reading]:
    readers = Readers(data)
    assert readers.readers[0].num_records() == data.num_records
    yield lambda ids: readers.read(readers.plan(ids))
    readers.close()


def _own_bytes() -> int:
    """Return the resident memory of this process less the pages of files in it."""
    with open("/proc/self/statm") as file:
        resident, of_files = file.read().split()[1:3]
    return (int(resident) - int(of_files)) * resource.getpagesize()
