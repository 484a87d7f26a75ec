"""A cache of elements in memory or in files, which several processes fill, clear and are killed over."""

import errno
import itertools
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import arsrc
from arsrc._host.records import file_cache
from arsrc._host.records.cache import MemoryCache, open_cache
from arsrc._host.records.element_rows import RowLayout
from arsrc._host.records.file_cache import FileCache
from arsrc._host.storage import system
from arsrc._host.storage.system import System

NUM_RECORDS = 12
LEAVES = [np.arange(24, dtype=np.int16).reshape(12, 2), np.linspace(0, 1, 12), np.empty((12, 0), np.uint8)]
EVERYTHING = list(range(NUM_RECORDS))
SHAPES: Any = [(leaf.shape[1:], leaf.dtype) for leaf in LEAVES]
ROW_BYTES = 16
DATA_BYTES = 12 * NUM_RECORDS


class Process:
    """A cache as one process has it, and which rows it is to find there: those of all who have the same files."""

    def __init__(self, folder: str | None, there: set[int]) -> None:
        self.folder, self.there = folder, there
        self.cache: Any = (
            MemoryCache(NUM_RECORDS, SHAPES) if folder is None else FileCache(NUM_RECORDS, SHAPES, folder, "elements")
        )

    def get(self, ids: list[int]) -> int:
        """Read rows, which are exact; return how many were there."""
        self.loaded: list[int] = []

        def load(missing: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
            self.loaded.extend(missing.tolist())
            return missing, [leaf[missing] for leaf in LEAVES]

        leaves, num_found = self.cache.get(np.array(ids, np.int64), load)
        for leaf, expected in zip(leaves, LEAVES, strict=True):
            np.testing.assert_array_equal(leaf, expected[ids])
            assert leaf.dtype == expected.dtype
        assert num_found == len(ids) - len(self.loaded)
        return num_found

    def expect(self, ids: list[int]) -> None:
        """Read rows, of which just those that are to be there are found."""
        self.get(ids)
        assert self.loaded == [i for i in ids if i not in self.there]
        self.there |= set(ids)


def filled(folder: Path, ids: list[int] = EVERYTHING) -> set[int]:
    Process(str(folder), set()).expect(ids)
    return set(ids)


some_ids = st.lists(st.integers(0, NUM_RECORDS - 1), max_size=NUM_RECORDS) | st.just(EVERYTHING)
steps = st.tuples(st.integers(0, 1), some_ids | st.sampled_from(["killed", "killed", "clear"]))


@given(st.lists(steps, max_size=12))
def test_rows_are_found_that_anybody_filled_unless_they_were_forgotten(steps: list[tuple[int, Any]]) -> None:
    there: set[int] = set()
    with tempfile.TemporaryDirectory() as folder:
        processes = [Process(folder, there) for _ in range(2)]
        for number, step in steps:
            process = processes[number]
            if step == "killed":
                processes[number] = Process(folder, there)
            elif step == "clear":
                process.cache.clear()
                process.there = there = set()  # the other one goes on with the files that it has open
            else:
                process.expect(step)
        Process(folder, there).expect(EVERYTHING)


@given(st.lists(some_ids | st.just("clear"), max_size=8))
def test_rows_are_found_in_memory_until_they_are_cleared(steps: list[Any]) -> None:
    process = Process(None, set())
    for step in steps:
        if step == "clear":
            process.cache.clear()
            process.there = set()
        else:
            process.expect(step)


def test_only_new_rows_are_written(tmp_path: Path) -> None:
    filled(tmp_path, [3, 3, 0])
    assert (tmp_path / "rows").stat().st_size == 2 * ROW_BYTES
    process = Process(str(tmp_path), {0, 3})
    process.expect([0, 3, 1])
    process.expect(EVERYTHING)
    process.expect(EVERYTHING)
    assert (tmp_path / "rows").stat().st_size == NUM_RECORDS * ROW_BYTES


def test_rows_that_two_threads_look_at_at_once_stay(tmp_path: Path) -> None:
    filled(tmp_path)
    process = Process(str(tmp_path), set(EVERYTHING))
    for _ in range(2):  # the second one comes too late, as a thread may that saw the rows before the first was done
        process.cache._log._check(np.arange(NUM_RECORDS))
    process.expect(EVERYTHING)
    assert not process.cache._log.was_bad


# What others did to the files.


def mutate(data: bytes, how: str, draw: random.Random) -> bytes:
    first = draw.randrange(len(data))
    last = draw.randrange(first, len(data)) + 1
    if how == "flip":
        return data[:first] + bytes([data[first] ^ 1 << draw.randrange(8)]) + data[first + 1 :]
    if how == "cut":
        return data[:first]
    if how == "longer":
        return data + draw.randbytes(last)
    if how == "moved":
        return data[first:] + data[:first]
    return data[:first] + (bytes(last - first) if how == "zeros" else draw.randbytes(last - first)) + data[last:]


@given(
    name=st.sampled_from(["rows", "places", "elements.json"]),
    how=st.sampled_from(["flip", "cut", "longer", "moved", "zeros", "garbage"]),
    seed=st.integers(0, 2**32),
)
def test_whatever_is_done_to_the_files_costs_work_and_no_data(name: str, how: str, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        filled(Path(folder))
        path = Path(folder, name)
        path.write_bytes(mutate(path.read_bytes(), how, random.Random(seed)))
        for _ in range(2):  # places behind a cut may look like others, until they come once more
            Process(folder, set()).get(EVERYTHING)
        Process(folder, set(EVERYTHING)).expect(EVERYTHING)  # what was bad is there again


def test_rows_that_changed_are_told_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    filled(tmp_path)
    (tmp_path / "rows").write_bytes(bytes(NUM_RECORDS * ROW_BYTES))
    process = Process(str(tmp_path), set())
    process.get([1, 2])
    process.get([3, 4])
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith("[arsrc] cacheable: decoded records that were kept are not what was written; ")
    assert repr(str(tmp_path)) in warning


def test_rows_of_other_elements_are_not_taken_for_these(tmp_path: Path) -> None:
    others = FileCache(NUM_RECORDS, SHAPES, str(tmp_path / "other"), "other elements")
    others.get(np.arange(NUM_RECORDS), lambda ids: (ids, [leaf[ids] * 0 for leaf in LEAVES]))
    filled(tmp_path / "these")
    for name in ("rows", "places"):
        shutil.copy(tmp_path / "other" / name, tmp_path / "these" / name)
    Process(str(tmp_path / "these"), set()).expect(EVERYTHING)


@pytest.mark.parametrize("num_bytes", [4, 100, 4 * 4096 - 4, 4 * 4096, 4 * 4096 + 8, 100_000])
def test_a_row_is_whole_only_with_each_bit_as_it_was_and_for_its_own_record(num_bytes: int) -> None:
    draw = np.random.default_rng(num_bytes)
    shapes: Any = [((num_bytes,), np.dtype(np.uint8))]
    ids = np.arange(5, 8)
    rows = RowLayout(shapes, "x").pack([draw.integers(0, 256, (3, num_bytes), dtype=np.uint8)], ids)
    ends = rows.shape[1] * np.arange(1, 4)

    def are_whole(rows: np.ndarray, ids: np.ndarray = ids, identity: str = "x") -> list[bool]:
        return RowLayout(shapes, identity).are_whole(rows.data.cast("B"), ends, ids).tolist()

    assert are_whole(rows) == [True] * 3
    for bit in [0, 8 * rows.shape[1] - 1, *draw.integers(0, 8 * rows.shape[1], 200)]:
        changed = rows.copy()
        changed[1, bit // 8] ^= 1 << bit % 8
        assert are_whole(changed) == [True, False, True]
    assert are_whole(rows, ids + 1) == are_whole(rows, identity="y") == [False] * 3
    assert are_whole(rows[::-1].copy()) == [False, True, False]


def test_files_that_are_cut_while_they_are_open_are_used_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    process = Process(str(tmp_path), set())
    process.expect([0, 1, 2])
    process.expect([0, 1, 2])
    os.truncate(tmp_path / "rows", ROW_BYTES)
    assert process.get([0, 1, 2]) == process.get([0, 1, 2]) == 0
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "cannot be used any more (a file was cut)" in warning


def test_files_that_grow_while_they_are_looked_at_are_not_taken_for_cut_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    process = Process(str(tmp_path), set())
    process.expect([0, 1])
    process.expect([0, 1])

    class Grows(System):
        """Another thread adds records and reads them back, right after the first look at the file."""

        is_first = True

        def fstat(self, fd: int) -> os.stat_result:
            found = super().fstat(fd)
            if self.is_first:
                self.is_first = False
                with ThreadPoolExecutor(1) as pool:
                    assert pool.submit(lambda: (process.get([2, 3, 4]), process.get([2, 3, 4]))).result() == (0, 3)
            return found

    monkeypatch.setattr(system, "calls", Grows())
    assert process.get([0, 1]) == 2
    assert process.get([2, 3, 4]) == 3
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_what_is_open_of_a_folder_that_was_deleted_stays_in_use(tmp_path: Path) -> None:
    process = Process(str(tmp_path / "x"), set())
    process.expect([0, 1, 2])
    shutil.rmtree(tmp_path / "x")
    process.expect([2, 3])
    process.expect(EVERYTHING)
    process.expect(EVERYTHING)
    with pytest.raises(arsrc.ArsrcWriteError, match=r"^\[arsrc\] reset_cache: .*No such file.*cache_dir="):
        process.cache.clear()
    assert process.get(EVERYTHING) == 0


# What cannot be used.


def opened(folder: Path) -> Any:
    return open_cache(NUM_RECORDS, SHAPES, 0, str(folder), lambda: "elements")


@pytest.mark.parametrize("name", ["rows", "places"])
@pytest.mark.parametrize(
    "put",
    [os.mkdir, os.mkfifo, lambda path: os.symlink("/etc/hostname", path), lambda path: os.symlink(path, path)],
    ids=["folder", "pipe", "link", "loop"],
)
def test_what_lies_in_the_place_of_a_file_and_is_none_is_refused(
    tmp_path: Path, name: str, put: Callable[[str], None]
) -> None:
    opened(tmp_path)
    (folder,) = tmp_path.iterdir()
    (folder / name).unlink()
    put(str(folder / name))
    with pytest.raises(arsrc.ArsrcValueError, match=r"^\[arsrc\] cacheable: cache_dir cannot be used .*") as raised:
        opened(tmp_path)
    assert raised.value.path == str(folder / name)


def test_a_cache_without_room_is_refused_with_how_much_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class AlmostFull(System):
        def free_bytes(self, folder: str) -> int:
            return NUM_RECORDS * ROW_BYTES - 5

    monkeypatch.setattr(system, "calls", AlmostFull())
    what = f"{NUM_RECORDS * ROW_BYTES} bytes of decoded records are to be kept, 5 more than are free there"
    with pytest.raises(arsrc.ArsrcValueError, match=what):
        opened(tmp_path)
    monkeypatch.undo()
    filled(next(tmp_path.iterdir()), [7])
    monkeypatch.setattr(system, "calls", AlmostFull())
    opened(tmp_path)


class ReadOnly(System):
    """A disk, or a folder, that cannot be written to."""

    def __init__(self, code: int) -> None:
        self.code = code

    def open(self, path: str, flags: int = os.O_RDONLY) -> int:
        if flags & (os.O_RDWR | os.O_WRONLY | os.O_CREAT):
            raise OSError(self.code, os.strerror(self.code), path)
        return super().open(path, flags)

    def unlink(self, path: str) -> None:
        raise OSError(self.code, os.strerror(self.code), path)


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_a_cache_that_cannot_be_written_to_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    there = filled(tmp_path / "x", [0, 1, 2])
    monkeypatch.setattr(system, "calls", ReadOnly(code))
    process = Process(str(tmp_path / "x"), there)
    for _ in range(2):
        assert process.get(EVERYTHING) == 3
    assert "read from files that are not written to" in str(process.cache)
    with pytest.raises(arsrc.ArsrcWriteError, match=os.strerror(code)):
        process.cache.clear()
    assert process.get(EVERYTHING) == 0
    with pytest.raises(arsrc.ArsrcValueError, match=os.strerror(code)):
        opened(tmp_path / "y")
    monkeypatch.undo()
    Process(str(tmp_path / "x"), there).expect(EVERYTHING)


# Faults of each call.


class Failing(System):
    """A system whose n-th call of some kinds fails, and perhaps all that follow."""

    def __init__(self, names: tuple[str, ...], n: int, code: int, once: bool) -> None:
        self.num_calls = self.num_failed = 0
        for name in names:
            setattr(self, name, self._failing(getattr(self, name), n, code, once))

    def _failing(self, call: Callable[..., Any], n: int, code: int, once: bool) -> Callable[..., Any]:
        def failing(*arguments: Any) -> Any:
            self.num_calls += 1
            if self.num_calls != n and (once or self.num_calls < n):
                return call(*arguments)
            self.num_failed += 1
            if call.__name__ == "append":  # a part of it is there
                os.write(arguments[0], bytes(arguments[1])[:7])
            raise OSError(code, os.strerror(code))

        return failing


DISK = ("append", "pwrite", "rename", "make_folder")
READING = ("open", "fstat", "pread", "view", "free_bytes")


@pytest.mark.parametrize("once", [True, False], ids=["once", "from then on"])
@pytest.mark.parametrize(
    ("names", "code"),
    [(DISK, errno.ENOSPC), (DISK, errno.EDQUOT), (DISK + READING, errno.EIO), (("open",), errno.EMFILE)],
    ids=["full disk", "quota", "bad disk", "too many open"],
)
def test_any_call_may_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], code: int, once: bool
) -> None:
    for n in itertools.count(1):
        folder = tmp_path / str(n)
        monkeypatch.setattr(system, "calls", Failing(names, n, code, once))
        for ids in ([3, 4, 5], [5, 6], EVERYTHING):
            try:
                process = Process(str(folder), set())
            except (arsrc.ArsrcValueError, OSError):  # which `open_cache` makes one of ours
                continue
            process.get(ids)
            process.get(ids)
        num_failed = system.calls.num_failed  # type: ignore[attr-defined]
        monkeypatch.setattr(system, "calls", System())
        for _ in range(2):
            Process(str(folder), set()).get(EVERYTHING)
        Process(str(folder), set(EVERYTHING)).expect(EVERYTHING)
        if num_failed == 0:
            break
    assert n > 3


def test_a_disk_that_runs_full_is_told_of_once_and_what_is_there_stays_in_use(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    process = Process(str(tmp_path), set())
    process.expect([0, 1, 2, 3])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6 * ROW_BYTES + 3, limits[1]))  # the system writes a part, then refuses
    try:
        assert process.get([4, 5, 6, 7]) == process.get([8]) == 0
        assert process.get(EVERYTHING) == 4
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "cannot be filled any more" in warning
    assert "missing='128 bytes'" in warning
    Process(str(tmp_path), {0, 1, 2, 3}).expect(EVERYTHING)
    Process(str(tmp_path), set(EVERYTHING)).expect(EVERYTHING)


# Real processes.

MANY = 50_000

FILLS = f"""
    import sys
    import numpy as np
    from arsrc._host.records.file_cache import FileCache

    rows = np.random.default_rng(0).integers(0, 256, ({MANY}, 100), dtype=np.uint8)
    cache = FileCache({MANY}, [((100,), rows.dtype)], sys.argv[1], "elements")
    draw = np.random.default_rng(int(sys.argv[2]))
    print("begun", flush=True)
    while True:
        ids = draw.integers(0, {MANY}, 20)
        (found,), _ = cache.get(ids, lambda missing: (missing, [rows[missing]]))
        assert np.array_equal(found, rows[ids])
"""


@pytest.mark.processes
def test_processes_that_are_killed_while_they_fill_one_cache_leave_what_they_wrote(tmp_path: Path) -> None:
    moments = random.Random(0)
    rows = np.random.default_rng(0).integers(0, 256, (MANY, 100), dtype=np.uint8)

    def begin(number: int) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", textwrap.dedent(FILLS), str(tmp_path), str(number)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    both = [begin(0), begin(1)]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
    for process in both:
        time.sleep(moments.uniform(0.01, 0.1))
        process.kill()
        _, errors = process.communicate()
        assert process.returncode == -signal.SIGKILL, errors
        cache = FileCache(MANY, [((100,), rows.dtype)], str(tmp_path), "elements")
        num_there = 0
        for _ in range(2):  # while the other one still writes
            (found,), num_there = cache.get(np.arange(MANY), lambda missing: (missing, [rows[missing]]))
            np.testing.assert_array_equal(found, rows)
        assert num_there == MANY


def test_several_who_open_one_folder_at_once_all_do(tmp_path):
    for attempt in range(20):
        path, start = str(tmp_path / f"{attempt}"), threading.Barrier(8)

        def describe(path: str = path, start: threading.Barrier = start) -> None:
            start.wait(10)
            file_cache._describe(path, "what it is")

        with ThreadPoolExecutor(8) as pool:
            for done in [pool.submit(describe) for _ in range(8)]:
                done.result(10)
        assert Path(path).read_text() == "what it is"
    assert len(os.listdir(tmp_path)) == 20
