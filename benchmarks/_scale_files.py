"""Studies of opening many files: real ones, in a process that may open 256, and simulated ones beyond that.

Run as a script it opens the files of one folder and prints figures as JSON; each count has a process of its own.
"""

import contextlib
import functools
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import threading
import time
import types
from typing import Any
from unittest import mock

import numpy as np
from _data import DataSet
from _study import Study, of, timing
from array_record.python.array_record_data_source import ArrayRecordDataSource

import arsrc
from arsrc._host import registry
from arsrc._host.machine.buffers import BufferPool
from arsrc._host.readers import files as arsrc_files
from arsrc._host.readers.group_cache import GroupCache
from arsrc._host.records.data_set import DataSet as ArsrcDataSet
from arsrc._host.storage.paths import FileSlice
from arsrc._host.storage.stamps import FileStamp

_MOST_DESCRIPTORS = 256
_BATCH = 256
_RECORDS_PER_FILE = 256
_RECORD_BYTES = 64
_REAL_FILES = 100
_TIMEOUT_S = 120


def real(quick: bool) -> Study:
    """Over the number of real files."""
    study = Study(
        "Files, opened",
        f"How long does it take to open many files in a process that may hold {_MOST_DESCRIPTORS} descriptors, and "
        f"to read {_BATCH} records from all over them? Files of {_RECORDS_PER_FILE} records; beyond {_REAL_FILES} "
        "they are links to the first ones. The official data source keeps a reader for each file.",
        (
            "files",
            "open",
            "a batch",
            "descriptors, most",
            "descriptors, after",
            "memory, MB",
            "official, open",
            "official, a batch",
        ),
    )
    for count in (1, 10) if quick else (1, 10, 100, 1000, 10_000):
        with tempfile.TemporaryDirectory() as folder:
            _write(pathlib.Path(folder), count)
            ours, official = _measured("arsrc", folder), _measured("official", folder)
        study.rows.append(
            (
                count,
                of(ours["open"]),
                of(ours["batch"]),
                ours["most"],
                ours["after"],
                ours["megabytes"],
                of(official["open"]) if "open" in official else official["error"],
                of(official["batch"]) if "batch" in official else official["error"],
            )
        )
    return study


def _write(folder: pathlib.Path, count: int) -> None:
    data = DataSet(folder, _RECORDS_PER_FILE * min(count, _REAL_FILES), _RECORD_BYTES, min(count, _REAL_FILES))
    data.prepare()
    for number in range(count):
        os.link(data.paths[number % len(data.paths)], folder / f"data-{number:05d}-of-{count:05d}.array_record")


def _measured(who: str, folder: str) -> dict[str, Any]:
    command = [sys.executable, __file__, who, folder]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"more than {_TIMEOUT_S} s"}
    lines = done.stdout.splitlines()
    if done.returncode == 0 and lines:
        found: dict[str, Any] = json.loads(lines[-1])
        return found
    if who == "arsrc":
        raise RuntimeError(done.stderr)
    return {"error": "fails"}


def main(who: str, folder: str) -> None:
    """Open the files of a folder, with few descriptors, and print what it takes."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (_MOST_DESCRIPTORS, limit))
    paths = sorted(str(path) for path in pathlib.Path(folder).glob("data-*.array_record"))
    print(json.dumps(_open_with_arsrc(paths) if who == "arsrc" else _open_officially(paths)))


def _open_with_arsrc(paths: list[str]) -> dict[str, Any]:
    config = arsrc.ArrayRecordSourceConfig(paths, _BATCH, shuffle_records=True)
    memory = _resident_bytes()
    with _watching() as most:
        begin = time.perf_counter()
        num_records = arsrc.num_records(config)
        opened = time.perf_counter() - begin
    elements = registry.source(config).elements
    batch = _batches(lambda ids: elements.read(ids.astype(np.uint32)), num_records)
    megabytes = round((_resident_bytes() - memory) / 1e6)
    return {"open": [opened], "batch": batch, "most": most[0], "after": _num_descriptors(), "megabytes": megabytes}


def _open_officially(paths: list[str]) -> dict[str, Any]:
    begin = time.perf_counter()
    source = ArrayRecordDataSource(paths)
    opened = time.perf_counter() - begin
    try:
        batch = _batches(lambda ids: source.__getitems__(ids.tolist()), len(source))
    except Exception:  # whatever it raises without descriptors
        return {"open": [opened], "error": "fails"}
    return {"open": [opened], "batch": batch}


def _batches(read: Any, num_records: int) -> list[float]:
    """Return the seconds of some reads of random records."""
    rng = np.random.default_rng(0)
    found = timing(lambda: read(rng.integers(0, num_records, _BATCH)))
    return [found.median, found.least, found.greatest]


@contextlib.contextmanager
def _watching() -> Any:
    """Give a list whose only item becomes the most descriptors that were open at once."""
    most, stop = [_num_descriptors()], threading.Event()

    def watch() -> None:
        while not stop.wait(0.001):
            most[0] = max(most[0], _num_descriptors())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        stop.set()
        thread.join()


def _num_descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) - 1  # the listing itself holds one


def _resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


class _NoReaders:
    """Stands in for the pool of readers, and for each of them: counts and gives records without files."""

    num_records, group_size = _RECORDS_PER_FILE, 1

    def __init__(self, max_open: int, limit: float | None) -> None:
        self.chunks = self

    def reader(self, path: str, stamp: FileStamp) -> "_NoReaders":
        return self

    def read(self, path: str, positions: list[int], num_bytes: int) -> list[bytes]:
        del path, num_bytes
        return [bytes(_RECORD_BYTES)] * len(positions)


def _simulated_data_set(files: list[FileSlice]) -> ArsrcDataSet:
    """Return a data set of files that do not exist, of a kind that cannot be mapped: the most costly one."""
    found = {
        "FileStamp": types.SimpleNamespace(there=lambda path: FileStamp(0, 0, 2**17, 0, 0)),
        "index_files": lambda paths: [None] * len(paths),
        "ReaderPool": _NoReaders,
    }
    with mock.patch.multiple(arsrc_files, **found):
        memory = {"buffers": BufferPool(0), "groups": GroupCache(0)}
        return ArsrcDataSet(files, checksum="auto", max_open_files=64, random_access=True, **memory)


def simulated(quick: bool) -> Study:
    """Over the number of simulated files, up to 100,000."""
    study = Study(
        "Files, simulated",
        f"What does it cost beside the reading, to keep the books on so many files and to find {_BATCH} records in "
        "them? Readers are simulated, for files that cannot be mapped.",
        ("files", "open", "a batch", "records"),
    )
    for count in (10, 1000) if quick else (1, 10, 100, 1000, 10_000, 100_000):
        files = [FileSlice(f"data-{number:06d}-of-{count:06d}.array_record") for number in range(count)]
        begin = time.perf_counter()
        data_set = _simulated_data_set(files)
        opened = time.perf_counter() - begin
        record_ids = np.random.default_rng(0).integers(0, data_set.num_records, _BATCH)
        batch = timing(functools.partial(data_set.read, record_ids))
        study.rows.append((count, of([opened]), batch, data_set.num_records))
    return study


if __name__ == "__main__":
    main(*sys.argv[1:])
