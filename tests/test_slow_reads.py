"""Reads that take long are told of while they do, by one thread, which ends when nothing is read."""

import logging
import os
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fault_systems import Hanging, in_place

import arsrc
from arsrc._host.machine import slow_reads, threads
from arsrc._host.machine.slow_reads import Reading


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads are slow after a twentieth of a second."""
    monkeypatch.setattr(slow_reads, "SLOW_SECONDS", 0.05)
    monkeypatch.setattr(slow_reads, "_PAUSE", 0.01)
    monkeypatch.setattr(slow_reads, "_watch", slow_reads._Watch())  # others' may sleep for seconds


def until(condition) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def texts(caplog: pytest.LogCaptureFixture, level: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == level]


def num_watching() -> int:
    return sum(thread.name == "arsrc-slow-reads" for thread in threading.enumerate())


def test_a_read_is_told_of_once_while_it_is_under_way_and_once_more_when_it_is_over(quick, caplog):
    with caplog.at_level(logging.INFO, "arsrc"):
        with Reading(lambda: "this"), Reading(lambda: "that"):
            until(lambda: len(texts(caplog, "WARNING")) == 2)
            time.sleep(0.05)
            assert not texts(caplog, "INFO")
        assert sorted(texts(caplog, "WARNING")) == [
            f"a read takes longer than 0 s: {what}" for what in ("that", "this")
        ]
        assert [text.partition(": ")[2] for text in texts(caplog, "INFO")] == ["that", "this"]


def test_a_read_that_kept_the_interpreter_from_telling_is_told_of_when_it_is_over(monkeypatch, caplog):
    monkeypatch.setattr(slow_reads, "SLOW_SECONDS", 0.0)
    with caplog.at_level(logging.WARNING, "arsrc"), Reading(lambda: "this"):
        pass
    assert texts(caplog, "WARNING") == ["a read takes longer than 0 s: this"]


def test_quick_reads_of_any_number_are_not_told_of_and_are_watched_by_one_thread_that_ends(quick, caplog, monkeypatch):
    before = num_watching()
    with caplog.at_level(logging.INFO, "arsrc"), ThreadPoolExecutor(8) as pool:

        def read(_: int) -> None:
            with Reading(lambda: "this"):
                assert num_watching() <= before + 1

        list(pool.map(read, range(200)))
    until(lambda: num_watching() == before + 1)
    assert not caplog.records
    monkeypatch.setattr(threads, "IDLE_SECONDS", 0.02)
    until(lambda: num_watching() <= before)
    with Reading(lambda: "again"):
        assert slow_reads._watch.is_running


@pytest.mark.filterwarnings("ignore:.*fork.*")
@pytest.mark.parametrize("is_running", [False, True])
def test_a_forked_child_reads_whatever_its_parent_was_reading_and_locking(quick, is_running):
    slow_reads._watch.is_running = True
    with Reading(lambda: "this"), slow_reads._watch._lock:
        slow_reads._watch.is_running = is_running
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            if slow_reads._under_way:
                os._exit(3)
            with Reading(lambda: "that"):
                os._exit(0 if len(slow_reads._under_way) == 1 else 4)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert len(slow_reads._under_way) == 1


@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_a_read_that_goes_on_in_a_forked_child_ends_there_too(quick):
    reading = Reading(lambda: "this")
    reading.__enter__()
    child = os.fork()
    if child == 0:
        try:
            reading.__exit__()
            os._exit(0)
        finally:
            os._exit(1)
    reading.__exit__()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_file_that_does_not_open_is_named(quick, caplog, tmp_path: Path):
    path = tmp_path / "a"
    path.write_bytes(b"")
    with caplog.at_level(logging.INFO, "arsrc"), ThreadPoolExecutor(1) as pool, in_place(Hanging("open")) as hanging:
        opening = pool.submit(arsrc.num_records, arsrc.ArrayRecordSourceConfig(str(path), 1))
        until(lambda: texts(caplog, "WARNING"))
        hanging.release.set()
        with pytest.raises(arsrc.ArsrcReadError):
            opening.result(10)
    (text,) = texts(caplog, "WARNING")
    assert text == f"a read takes longer than 0 s: opening {str(path)!r}"


@pytest.mark.parametrize("options", ["group_size:1,uncompressed", "group_size:4,zstd"])
def test_what_is_read_is_named_whatever_reads_it(monkeypatch, caplog, tmp_path, options):
    paths = [tmp_path / name for name in ("one", "two")]
    for path in paths:
        arsrc.write_array_record(path, np.zeros((8, 3), np.uint8), options=options)
    config = arsrc.ArrayRecordSourceConfig(list(map(str, paths)), 16, read=arsrc.ReadOptions(read_ahead_bytes=0))
    next(arsrc.iterate(config))
    monkeypatch.setattr(slow_reads, "SLOW_SECONDS", 0.0)
    with caplog.at_level(logging.WARNING, "arsrc"):
        next(arsrc.iterate(config))
    told = " ".join(texts(caplog, "WARNING"))
    if "zstd" in options:
        assert f"4 chunks of 2 files, {str(paths[0])!r} the first" in told
    else:
        assert f"16 records of 2 files, {str(paths[0])!r} the first" in told
    assert re.match("a read takes longer than 0 s: ", told)
