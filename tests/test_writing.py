"""`write_array_record`: what array_record's own reader finds, and that there are whole files or none."""

import dataclasses
import errno
import glob
import itertools
import os
import re
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader
from hypothesis import given
from hypothesis import strategies as st

import arsrc
import arsrc.codecs.encoding as encoding
from arsrc._host.storage import system
from arsrc.codecs import Bytes, Map, Ragged, RecordBatch, Struct
from arsrc.errors import ArsrcError, ArsrcFileNotFoundError, ArsrcReadError, ArsrcTypeError, ArsrcValueError
from arsrc.writing import ArsrcWriteError, write_array_record

POINTS = Struct({"xy": ("float32", 2), "label": "int32"})


def read(path: str) -> list[bytes]:
    reader = ArrayRecordReader(path)
    assert reader.ok()
    records: list[bytes] = reader.read_all()
    reader.close()
    return records


def points(num_points: int) -> dict[str, np.ndarray]:
    xy = np.arange(2 * num_points, dtype=np.float32).reshape(num_points, 2)
    return {"xy": xy, "label": np.arange(num_points, dtype=np.int32)}


def single_points(num_points: int) -> list[dict[str, np.ndarray]]:
    batch = points(num_points)
    return [{name: column[row] for name, column in batch.items()} for row in range(num_points)]


# What the files hold.


@given(records=st.lists(st.binary(max_size=40), min_size=1, max_size=30), num_shards=st.integers(1, 5))
def test_shards_of_a_sized_iterable_hold_its_records_in_order(
    records: list[bytes], num_shards: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    num_shards = min(num_shards, len(records))
    paths = write_array_record(tmp_path_factory.mktemp("out") / "data", records, num_shards=num_shards)
    parts = [read(path) for path in sorted(paths)]
    assert list(itertools.chain(*parts)) == records
    sizes = [len(part) for part in parts]
    assert len(sizes) == num_shards
    assert max(sizes) - min(sizes) <= 1


@given(records=st.lists(st.binary(max_size=40), min_size=1, max_size=30), num_shards=st.integers(1, 5))
def test_shards_of_a_generator_are_dealt_round(
    records: list[bytes], num_shards: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    num_shards = min(num_shards, len(records))
    paths = write_array_record(tmp_path_factory.mktemp("out") / "data", iter(records), num_shards=num_shards)
    assert [read(path) for path in paths] == [records[shard::num_shards] for shard in range(num_shards)]


@pytest.mark.parametrize("options", ["group_size:1,uncompressed", "group_size:256,zstd", "group_size:7", ""])
def test_all_records_come_back_whatever_the_options(tmp_path: Path, options: str) -> None:
    records = [bytes([i % 256]) * (i % 50) for i in range(1000)]
    (path,) = write_array_record(tmp_path / "data", records, options=options)
    assert read(path) == records
    written = ArrayRecordReader(path).writer_options_string()
    assert ("uncompressed" in written) == ("uncompressed" in options)


def test_a_batch_a_list_and_a_generator_of_the_same_elements_give_the_same_records(tmp_path: Path) -> None:
    num_points = 2500  # several pieces of a stream
    expected = POINTS.encode(points(num_points))
    for elements in (
        points(num_points),
        {name: jnp.asarray(column) for name, column in points(num_points).items()},
        single_points(num_points),
        iter(single_points(num_points)),
    ):
        (path,) = write_array_record(tmp_path / "points", elements, codec=POINTS)
        assert read(path) == [expected[row] for row in range(num_points)]


def test_rows_of_bytes_are_records_of_the_default_codec(tmp_path: Path) -> None:
    rows = np.arange(12, dtype=np.uint8).reshape(4, 3)
    expected = [row.tobytes() for row in rows]
    for elements in (rows, list(rows), iter(rows), rows.T.copy().T):
        (path,) = write_array_record(tmp_path / "rows", elements)
        assert read(path) == expected


def test_a_tuple_is_a_batch_and_so_is_a_numpy_archive(tmp_path: Path) -> None:
    class Pair(NamedTuple):
        a: Any
        b: Any

    codec = Map(lambda record: None, Pair("int32", "int32"), lambda pair: b"%d %d" % pair)
    (path,) = write_array_record(
        tmp_path / "pairs", Pair(np.arange(3, dtype=np.int32), np.ones(3, np.int32)), codec=codec
    )
    assert read(path) == [b"0 1", b"1 1", b"2 1"]
    np.savez(tmp_path / "points.npz", **points(3))
    with np.load(tmp_path / "points.npz") as archive:
        (path,) = write_array_record(tmp_path / "points", archive, codec=POINTS)
    assert len(read(path)) == 3


def test_bytes_are_written_as_they_are_between_elements_of_any_codec(tmp_path: Path) -> None:
    elements = single_points(3)
    encoded = POINTS.encode(points(3))
    (path,) = write_array_record(tmp_path / "data", [elements[0], b"raw", *elements[1:], b""], codec=POINTS)
    assert read(path) == [encoded[0], b"raw", encoded[1], encoded[2], b""]


def test_ragged_batches_are_written_without_their_padding(tmp_path: Path) -> None:
    batch = {"values": np.arange(6, dtype=np.int16).reshape(2, 3), "length": np.array([1, 3])}
    (path,) = write_array_record(tmp_path / "data", batch, codec=Ragged("int16", max_length=3))
    assert [np.frombuffer(record, "<i2").tolist() for record in read(path)] == [[0], [3, 4, 5]]


def test_a_record_batch_is_an_iterable_of_records(tmp_path: Path) -> None:
    (path,) = write_array_record(tmp_path / "data", RecordBatch.from_records([b"a", b"", b"bc"]))
    assert read(path) == [b"a", b"", b"bc"]


def test_a_generator_may_fill_one_buffer_again_and_again(tmp_path: Path) -> None:
    def numbers() -> Iterator[np.ndarray]:
        buffer = np.zeros(4, np.uint8)
        for i in range(10):
            buffer[:] = i
            yield buffer

    (path,) = write_array_record(tmp_path / "data", numbers())
    assert read(path) == [bytes([i] * 4) for i in range(10)]


@dataclasses.dataclass(frozen=True)
class Witness(Bytes):
    """Remembers how many bytes were encoded at once."""

    pieces: list[int] = dataclasses.field(default_factory=list, compare=False)

    def encode(self, elements: Any) -> RecordBatch:
        self.pieces.append(elements.nbytes)
        return super().encode(elements)


@pytest.mark.parametrize("is_stream", [False, True])
def test_memory_does_not_grow_with_the_number_of_elements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_stream: bool
) -> None:
    monkeypatch.setattr(encoding, "PIECE_BYTES", 1000)
    codec = Witness()
    rows = np.zeros((100, 90), np.uint8)
    write_array_record(tmp_path / "data", iter(rows) if is_stream else rows, codec=codec)
    assert sum(codec.pieces) == rows.nbytes
    assert max(codec.pieces) <= 1000 + 90


# Names.


def test_one_file_is_named_as_given_and_shards_by_their_number(tmp_path: Path) -> None:
    records = [b"a", b"b", b"c"]
    for name in ("plain", "with.array_record", "other.suffix"):
        assert write_array_record(tmp_path / name, records) == (str(tmp_path / name),)
    expected = tuple(str(tmp_path / f"train-0000{i}-of-00003.array_record") for i in range(3))
    assert write_array_record(str(tmp_path / "train"), records, num_shards=3) == expected
    assert write_array_record(tmp_path / "train.array_record", records, num_shards=3) == expected
    assert all(os.path.exists(path) for path in expected)


def test_a_name_without_a_folder_is_written_to_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert write_array_record("data", [b"a"]) == ("data",)
    assert write_array_record("data", [b"a", b"b"], num_shards=2)[1] == "data-00001-of-00002.array_record"
    assert len(os.listdir(tmp_path)) == 3


def test_files_of_the_same_name_are_replaced(tmp_path: Path) -> None:
    write_array_record(tmp_path / "data", [b"old"] * 5, num_shards=2)
    paths = write_array_record(tmp_path / "data", [b"new", b"newer"], num_shards=2)
    assert [read(path) for path in paths] == [[b"new"], [b"newer"]]
    assert len(os.listdir(tmp_path)) == 2


def test_many_shards(tmp_path: Path) -> None:
    records = [b"%d" % i for i in range(130)]
    paths = write_array_record(tmp_path / "data", iter(records), num_shards=64)
    assert [record for path in paths for record in read(path)] == [
        record for shard in range(64) for record in records[shard::64]
    ]


# Whole files or none.


class Broken(Exception):
    """Raised by a generator of elements."""


@pytest.mark.parametrize("num_shards", [1, 4])
@pytest.mark.parametrize("error", [Broken, KeyboardInterrupt])
def test_a_generator_that_raises_leaves_nothing_and_the_old_files_as_they_were(
    tmp_path: Path, num_shards: int, error: type[BaseException]
) -> None:
    def elements() -> Iterator[bytes]:
        for _ in range(5000):
            yield bytes(1000)
        raise error

    with pytest.raises(error):
        write_array_record(tmp_path / "data", elements(), num_shards=num_shards)
    assert os.listdir(tmp_path) == []

    old = write_array_record(tmp_path / "data", [b"old"] * 4, num_shards=num_shards)
    with pytest.raises(error):
        write_array_record(tmp_path / "data", elements(), num_shards=num_shards)
    assert sorted(os.listdir(tmp_path)) == [os.path.basename(path) for path in old]
    assert set(read(old[0])) == {b"old"}


@pytest.mark.parametrize(("wrong", "piece"), [(500, "1 to 1024"), (2500, "2049 to 2999")])
def test_a_refused_element_is_found_by_its_number(tmp_path: Path, wrong: int, piece: str) -> None:
    elements: list[Any] = [b"raw", *({"x": np.int64(i)} for i in range(1, 3000))]
    elements[wrong] = {"x": np.int64(2**40)}
    with pytest.raises(ArsrcValueError, match="value=1099511627776") as caught:
        write_array_record(tmp_path / "data", elements, codec=Struct({"x": "int32"}))
    assert caught.value.__notes__ == [f"while encoding the elements {piece}"]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("is_file", "text"),
    [(False, r"writing failed \(ArrayRecord file should be"), (True, "holds 1 of 2 records")],
)
def test_a_file_that_does_not_hold_what_was_written_is_not_published(tmp_path: Path, is_file: bool, text: str) -> None:
    def elements() -> Iterator[bytes]:
        yield b"a"
        (written,) = tmp_path.glob(".data*.tmp")
        write_array_record(tmp_path / "other", [b"other"])
        os.replace(tmp_path / "other", written)
        if not is_file:
            written.write_bytes(b"something else")
        yield b"b"

    with pytest.raises(ArsrcWriteError, match=text):
        write_array_record(tmp_path / "data", elements())
    assert os.listdir(tmp_path) == []


KILLED = """
    import sys, time
    from arsrc.writing import write_array_record

    def elements():
        while True:
            yield bytes(200_000)
            time.sleep(0.001)

    write_array_record(sys.argv[1], elements(), num_shards=int(sys.argv[2]))
"""


@pytest.mark.processes
@pytest.mark.parametrize("num_shards", [1, 3])
def test_a_killed_writer_leaves_no_file_under_a_final_name(tmp_path: Path, num_shards: int) -> None:
    old = write_array_record(tmp_path / "data", [b"old"] * 3, num_shards=num_shards)
    environment = {**os.environ, "PYTHONPATH": str(Path(encoding.__file__).parents[2])}
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path / "data"), str(num_shards)]
    with subprocess.Popen(command, env=environment) as writer:
        try:
            deadline = time.monotonic() + 60
            while not any(file.stat().st_size for file in tmp_path.glob(".data*.tmp")):
                assert writer.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.01)
        finally:
            writer.kill()
    assert writer.returncode == -signal.SIGKILL
    found = {file.name for file in tmp_path.iterdir() if not file.name.startswith(".")}
    assert found == {os.path.basename(path) for path in old}
    assert list(itertools.chain(*map(read, old))) == [b"old"] * 3
    assert sorted(glob.glob(str(tmp_path / "*"))) == list(old)


KILLED_BETWEEN_SHARDS = """
    import os, signal, sys
    from arsrc._host.storage import system
    from arsrc.writing import write_array_record

    class Killed(system.System):
        def rename(self, old, new):
            super().rename(old, new)
            os.kill(os.getpid(), signal.SIGKILL)

    system.calls = Killed()
    write_array_record(sys.argv[1], [b"new"] * 3, num_shards=3)
"""


@pytest.mark.processes
def test_a_set_whose_writer_was_killed_between_two_shards_is_an_error_until_it_is_written_again(tmp_path: Path) -> None:
    paths = write_array_record(tmp_path / "data", [b"old"] * 3, num_shards=3)
    config = arsrc.ArrayRecordSourceConfig(tmp_path / "data-*", 3)
    assert arsrc.num_records(config) == 3
    environment = {**os.environ, "PYTHONPATH": str(Path(encoding.__file__).parents[2])}
    command = [sys.executable, "-c", textwrap.dedent(KILLED_BETWEEN_SHARDS), str(tmp_path / "data")]
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    assert [read(path) for path in paths] == [[b"new"], [b"old"], [b"old"]]
    text = r"^\[arsrc\] open: the shards may be a mixture .* got path='.*/\.data\.array_record\.writing'\. Wait"
    for names in (tmp_path / "data-*", tmp_path / "data@3.array_record", paths, paths[1]):
        with pytest.raises(ArsrcReadError, match=text):
            arsrc.num_records(arsrc.ArrayRecordSourceConfig(names, 1))
    with pytest.raises(ArsrcReadError, match=text):
        arsrc.init(config)
    with pytest.raises(ArsrcValueError):  # a writer that fails before it puts anything into place changes nothing
        write_array_record(tmp_path / "data", iter([b"new", 3]), num_shards=3)
    with pytest.raises(ArsrcReadError, match=text):
        arsrc.init(config)
    write_array_record(tmp_path / "data", [b"newer"] * 3, num_shards=3)
    assert np.asarray(arsrc.take(config, range(3)).data).tobytes() == b"newer" * 3
    assert sorted(os.listdir(tmp_path)) == sorted(os.path.basename(path) for path in paths)  # nothing else is left
    arsrc.close(config)


def test_of_two_writers_of_the_same_shards_at_the_same_time_one_is_refused(tmp_path: Path) -> None:
    def elements() -> Iterator[bytes]:
        yield b"first"
        text = (
            r"^\[arsrc\] write_array_record: another writer writes the same shards; got path='.*/\.data\..*\.writing'"
        )
        for num_shards in (2, 3):  # a glob would read those of another number too
            with pytest.raises(ArsrcWriteError, match=text):
                write_array_record(tmp_path / "data", [b"second"] * 3, num_shards=num_shards)
        write_array_record(tmp_path / "other", [b"second"] * 2, num_shards=2)
        yield b"first"

    paths = write_array_record(tmp_path / "data", elements(), num_shards=2)
    assert [read(path) for path in paths] == [[b"first"]] * 2
    write_array_record(tmp_path / "data", [b"third"] * 2, num_shards=2)
    assert [read(path) for path in paths] == [[b"third"]] * 2
    assert len(os.listdir(tmp_path)) == 4


class NoLocks(system.System):
    """A file system without locks, on which another writer comes in between two shards."""

    def __init__(self, number: int, come_in: Callable[[], None]) -> None:
        self._number, self._come_in = number, come_in

    def lock(self, fd: int) -> bool:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    def rename(self, old: str, new: str) -> None:
        self._number -= 1
        if self._number == 0:
            self._come_in()
        super().rename(old, new)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_without_locks_writers_at_the_same_time_find_out_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def come_in() -> None:
        write_array_record(tmp_path / "data", [b"other"] * 3, num_shards=3)

    monkeypatch.setattr(system, "calls", NoLocks(number, come_in))
    with pytest.raises(ArsrcWriteError, match=r"another writer wrote the same shards at the same time.* once more"):
        write_array_record(tmp_path / "data", [b"this"] * 3, num_shards=3)
    config = arsrc.ArrayRecordSourceConfig(tmp_path / "data-*", 3)
    with pytest.raises(ArsrcReadError, match="mixture"):
        arsrc.num_records(config)
    write_array_record(tmp_path / "data", [b"again"] * 3, num_shards=3)
    assert arsrc.num_records(config) == 3
    arsrc.close(config)


class Replacing(system.System):
    """Lets somebody come in after the n-th look at a path."""

    def __init__(self, n: int, come_in: Callable[[], None]) -> None:
        self._n, self._come_in = n, come_in

    def stat(self, path: str, follow_links: bool = True) -> os.stat_result:
        try:
            return super().stat(path, follow_links)
        finally:
            self._n -= 1
            if self._n == 0:
                self._come_in()


def test_a_set_that_is_replaced_while_it_is_opened_is_read_as_no_mixture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "calls", system.System())
    paths = write_array_record(tmp_path / "data", [b"old"] * 3, num_shards=3)
    config = arsrc.ArrayRecordSourceConfig(paths, 3)

    class Slow(system.System):
        """Puts one shard into place, and the others when the reader is done."""

        num_renamed = 0

        def rename(self, old: str, new: str) -> None:
            self.num_renamed += 1
            if self.num_renamed == 2:
                is_begun.set()
                assert go_on.wait(60)
            super().rename(old, new)

    def write_slowly() -> None:
        monkeypatch.setattr(system, "calls", Slow())
        write_array_record(tmp_path / "data", [b"new"] * 3, num_shards=3)

    def come_in() -> None:
        writers.append(thread.submit(write_slowly))
        assert is_begun.wait(60)

    outcomes = []
    with ThreadPoolExecutor(1) as thread:
        for n in range(1, 24):
            is_begun, go_on, writers = threading.Event(), threading.Event(), list[Any]()
            monkeypatch.setattr(system, "calls", Replacing(n, come_in))
            try:
                outcomes.append(b"".join(bytes(row) for row in next(arsrc.iterate(config))[1].data))
            except ArsrcReadError:
                outcomes.append(b"error")
            go_on.set()
            for writer in writers:
                writer.result(60)
            monkeypatch.setattr(system, "calls", system.System())
            write_array_record(tmp_path / "data", [b"old"] * 3, num_shards=3)
            assert bytes(next(arsrc.iterate(config))[1].data[0]) == b"old"
            arsrc.close()
    assert set(outcomes) == {b"old" * 3, b"error"}


def link(path: Path, target: Any) -> Path:
    path.symlink_to(target)
    return path


def test_links_are_followed_and_stay(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (path,) = write_array_record(link(tmp_path / "data", "disk/there"), [b"a"])
    assert path == str(tmp_path / "data")
    write_array_record(link(tmp_path / "twice", "data"), [b"b"])
    assert read(str(tmp_path / "disk" / "there")) == [b"b"]
    assert sorted(os.listdir(tmp_path)) == ["data", "disk", "twice"]
    assert os.readlink(tmp_path / "data") == "disk/there"
    link(tmp_path / "set-00001-of-00002.array_record", "disk/second")
    write_array_record(tmp_path / "set", [b"1", b"2"], num_shards=2)
    assert read(str(tmp_path / "disk" / "second")) == [b"2"]
    assert sorted(os.listdir(tmp_path / "disk")) == ["second", "there"]


def test_what_is_no_regular_file_is_refused_and_stays(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    link(tmp_path / "circle", "circle")
    link(tmp_path / "to the pipe", "pipe")
    link(tmp_path / "to a folder", tmp_path)
    link(tmp_path / "nowhere", "no folder/data")
    os.mkfifo(tmp_path / "set-00001-of-00002.array_record")
    before = sorted(os.listdir(tmp_path))
    for name in ("pipe", "circle", "to the pipe"):
        with pytest.raises(ArsrcValueError, match=rf"path: is no regular file.* got path='.*/{name}'"):
            write_array_record(tmp_path / name, [b"a"])
    with pytest.raises(ArsrcValueError, match="path: is a folder"):
        write_array_record(tmp_path / "to a folder", [b"a"])
    with pytest.raises(ArsrcFileNotFoundError, match=r"the folder does not exist; got folder='.*/no folder'"):
        write_array_record(tmp_path / "nowhere", [b"a"])
    with pytest.raises(ArsrcValueError, match="path: is no regular file"):
        write_array_record(tmp_path / "set", [b"1", b"2"], num_shards=2)
    with pytest.raises(ArsrcValueError, match="path: is no regular file"):
        write_array_record("/dev/null", [b"a"])
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize("num_shards", [1, 3])
def test_a_full_disk_is_an_error_that_names_the_file_and_leaves_nothing(tmp_path: Path, num_shards: int) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(ArsrcWriteError, match=r"writing failed \(.*File too large.*got path='.*data") as caught:
            write_array_record(tmp_path / "data", (bytes(100_000) for _ in range(90)), num_shards=num_shards)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert isinstance(caught.value, OSError)
    assert os.listdir(tmp_path) == []


# Errors. `{}` stands for the test's folder.


@dataclasses.dataclass(frozen=True)
class Forgetful(Bytes):
    """Loses the last record."""

    def encode(self, elements: Any) -> RecordBatch:
        return super().encode(elements[:-1])


class Sized:
    """An iterable whose length is wrong."""

    def __init__(self, length: int, num_elements: int) -> None:
        self._length, self._num_elements = length, num_elements

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        return itertools.repeat(b"a", self._num_elements)


A = {"path": "{}/data", "elements": [b"a"]}

REFUSED = [
    ({**A, "path": ""}, ArsrcValueError, r"path: names no file; got path=''\. Name the file"),
    ({**A, "path": "{}/"}, ArsrcValueError, r"path: names no file"),
    ({**A, "path": "{}"}, ArsrcValueError, r"path: is a folder; got path="),
    ({**A, "path": 3}, ArsrcTypeError, r"path: must be a path; got path='int'"),
    ({**A, "path": b"data"}, ArsrcTypeError, r"path: must be a path; got path='bytes'"),
    (
        {**A, "path": "{}/no/data"},
        ArsrcFileNotFoundError,
        r"path: the folder does not exist; .*/no'\. Create it",
    ),
    ({**A, "num_shards": 0}, ArsrcValueError, r"num_shards: must be at least 1; got num_shards=0"),
    ({**A, "num_shards": 1.0}, ArsrcTypeError, r"num_shards: must be an integer; got num_shards=1\.0"),
    (
        {**A, "num_shards": 10**5},
        ArsrcValueError,
        r"num_shards: must be at most 99999; got num_shards=100000",
    ),
    ({**A, "num_shards": 2}, ArsrcValueError, r"too few elements; got num_elements=1, num_shards=2"),
    (
        {**A, "options": "nonsense:1"},
        ArsrcValueError,
        r"options: Unknown option nonsense.*got options='nonsense:1'",
    ),
    ({**A, "options": "group_size:0"}, ArsrcValueError, r"options: Option group_size: invalid value"),
    ({**A, "options": None}, ArsrcTypeError, r"options: must be a string; got options=None"),
    ({**A, "codec": Bytes}, ArsrcTypeError, r"codec: is no codec; got codec=<class"),
    ({**A, "elements": []}, ArsrcValueError, r"too few elements; got num_elements=0, num_shards=1"),
    ({**A, "elements": iter([])}, ArsrcValueError, r"too few elements; got num_elements=0, num_shards=1"),
    (
        {**A, "elements": iter([b"a"]), "num_shards": 2},
        ArsrcValueError,
        r"too few elements; got num_elements=1, num_shards=2",
    ),
    ({**A, "elements": np.zeros((0, 3), np.uint8)}, ArsrcValueError, r"too few elements; got num_elements=0"),
    (
        {**A, "elements": b"abc"},
        ArsrcTypeError,
        r"elements: is a single record; .*'bytes'\. Put records into a list",
    ),
    ({**A, "elements": 3}, ArsrcTypeError, r"elements: is no batch and no iterable; got elements='int'"),
    ({**A, "elements": {}}, ArsrcValueError, r"elements: the batch has no arrays"),
    (
        {**A, "elements": (b"a", b"b")},
        ArsrcValueError,
        r"elements: leaf \[0\] has no leading axis\. .*as a list",
    ),
    (
        {**A, "elements": {"x": np.zeros(2), "y": np.zeros(3)}},
        ArsrcValueError,
        r"elements: leading axes differ; got lengths=\{\"\['x'\]\": 2, \"\['y'\]\": 3\}",
    ),
    (
        {**A, "elements": [{"x": 1}, {"y": 1}]},
        ArsrcValueError,
        r"element 1: leaf \['x'\] .*missing\. .*\n  spec: \['x'\]\n  got:  \['y'\]\nEvery element",
    ),
    (
        {**A, "elements": [{"x": 1}, {"x": 0.5}]},
        ArsrcValueError,
        r"element 1: leaf \['x'\] differs .*\n  spec: int64\[\]\n  got:  float64\[\]\nEvery element",
    ),
    (
        {**A, "elements": [np.zeros(2, np.uint8), np.zeros(3, np.uint8)]},
        ArsrcValueError,
        r"element 1: leaf \(root\) differs .*\n  spec: uint8\[2\]\n  got:  uint8\[3\].* encoded by yourself\.$",
    ),
    (
        {**A, "elements": [b"", {"a": b"x" * 801}, {"a": b"xyz"}]},
        ArsrcValueError,
        r"leaf \['a'\] differs.*\n  spec: bytes of 801\n  got:  bytes of 3\n",
    ),
    ({**A, "elements": ["text"]}, ArsrcValueError, r"Bytes\.encode: .*got elements='text\[1\]'"),
    (
        {**A, "elements": np.zeros((2, 3), np.uint8), "codec": Forgetful()},
        ArsrcValueError,
        r"codec: Forgetful\.encode gave another number of records; got elements=2, records=1",
    ),
    (
        {**A, "elements": Sized(3, 2)},
        ArsrcValueError,
        r"length is not .*got length=3, found=2\. Correct its __len__",
    ),
    ({**A, "elements": Sized(3, 4)}, ArsrcValueError, r"length is not .*got length=3, found='more than 3'"),
    ({**A, "elements": Sized(4, 1), "num_shards": 4}, ArsrcValueError, r"got length=4, found=1"),
]


@pytest.mark.parametrize(("arguments", "error", "text"), REFUSED, ids=[text for _, _, text in REFUSED])
def test_what_cannot_be_written_is_refused_and_leaves_nothing(
    tmp_path: Path, arguments: dict[str, Any], error: type[ArsrcError], text: str
) -> None:
    keywords = dict(arguments)
    path, elements = keywords.pop("path"), keywords.pop("elements")
    if isinstance(path, str):
        path = path.replace("{}", str(tmp_path))
    with pytest.raises(error, match=r"^\[arsrc\] ") as caught:
        write_array_record(path, elements, **keywords)
    assert re.search(text, str(caught.value), re.DOTALL)
    assert os.listdir(tmp_path) == []


def test_shards_of_another_number_are_not_left_beside_the_new_ones(tmp_path: Path) -> None:
    old = write_array_record(tmp_path / "data", [b"a"] * 3, num_shards=3)
    text = r"num_shards: 3 shards of another number .*got first='data-00000-of-00003\.array_record'\. Delete"
    with pytest.raises(ArsrcValueError, match=text):
        write_array_record(tmp_path / "data", [b"a"] * 3, num_shards=2)
    assert [read(path) for path in old] == [[b"a"]] * 3


def test_a_folder_that_cannot_be_written_to_is_named() -> None:
    with pytest.raises(ArsrcWriteError, match=r"writing failed \(open\(\) failed: .*got path='/proc/data'"):
        write_array_record("/proc/data", [b"a"])
