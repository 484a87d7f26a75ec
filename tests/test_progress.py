"""The progress of long host work: drawn on a terminal, and gone when the work is done; elsewhere logged."""

import dataclasses
import itertools
import logging
import os
import pty
import re
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import arsrc
from arsrc._host.machine import progress
from arsrc.codecs import Bytes, RecordBatch
from arsrc.errors import RecordError

SPAN = 512  # records that are read before the line is drawn again
NUM_SPANS = 8
LINE = re.compile(r"\r(\w+): +(\d+)%\|")


@dataclasses.dataclass(frozen=True)
class SlowBytes(Bytes):
    """Bytes that take so long to decode that all spans together last for two seconds, and each is drawn."""

    def resolve(self, first_record: bytes) -> "SlowBytes":
        return SlowBytes(len(first_record))

    def decode(self, records: RecordBatch) -> np.ndarray:
        time.sleep(0.25 * len(records) / SPAN)
        return super().decode(records)


class FailingBytes(SlowBytes):
    """The same, but what lies behind some spans cannot be decoded."""

    def resolve(self, first_record: bytes) -> "FailingBytes":
        return FailingBytes(len(first_record))

    def decode(self, records: RecordBatch) -> np.ndarray:
        decoded = super().decode(records)
        if decoded.any():
            raise RecordError(int(decoded.any(1).argmax()), "is not zero")
        return decoded


def slow_records(num_good: int) -> Iterator[bytes]:
    for number in range(NUM_SPANS):
        time.sleep(0.25)
        yield b"good" if number < num_good else 3


def work(path: str, name: str, codec: Bytes) -> None:
    try:
        if name == "write_array_record":
            num_good = NUM_SPANS - isinstance(codec, FailingBytes)
            arsrc.write_array_record(path, slow_records(num_good))
        else:
            getattr(arsrc, name)(arsrc.ArrayRecordSourceConfig(path, 1, codec))
        sys.stderr.write("done\n")
    except arsrc.ArsrcError:
        sys.stderr.write("failed\n")


def written(tmp_path: Path, *args: str, on_terminal: bool) -> str:
    """Run `work` in a process of its own, and return what it writes to standard error."""
    values = np.zeros((NUM_SPANS * SPAN, 1), np.uint8)
    values[-1] = 1
    (path,) = arsrc.write_array_record(tmp_path / "x.array_record", values)
    command = [sys.executable, __file__, path, *args]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    if not on_terminal:
        done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, timeout=120, check=True)
        return done.stderr
    terminal, stderr = pty.openpty()
    termios.tcsetwinsize(stderr, (24, 80))
    with subprocess.Popen(command, env=environment, stderr=stderr) as process:
        os.close(stderr)
        text = b"".join(iter(lambda: read(terminal), b"")).decode()
    os.close(terminal)
    assert process.returncode == 0, text
    return text


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # how Linux says that nobody has the other end any more
        return b""


def shown(text: str) -> list[str]:
    """Return the lines that stay on a terminal: a carriage return goes back, and what follows is written over."""
    lines = []
    for line in text.replace("\r\n", "\n").split("\n"):
        cells = ""
        for part in line.split("\r"):
            cells = part + cells[len(part) :]
        lines.append(cells.rstrip())
    return lines


@pytest.mark.processes
@pytest.mark.parametrize("name", ["load_resident", "dataset_statistics"])
def test_long_work_draws_a_line_that_grows_to_the_end_and_leaves_no_trace(tmp_path: Path, name: str) -> None:
    text = written(tmp_path, name, "SlowBytes", on_terminal=True)
    drawn = LINE.findall(text)
    assert len(drawn) >= 3
    assert {label for label, _ in drawn} == {name}
    percents = [int(percent) for _, percent in drawn]
    assert all(a < b for a, b in itertools.pairwise(percents))
    assert percents[-1] == 100
    assert shown(text) == ["done", ""]


@pytest.mark.processes
@pytest.mark.parametrize("name", ["load_resident", "write_array_record"])
def test_an_error_leaves_no_trace_of_the_line(tmp_path: Path, name: str) -> None:
    text = written(tmp_path, name, "FailingBytes", on_terminal=True)
    how_far = r" +\d+%\|" if name == "load_resident" else r" \d\.00 records \["  # of an unknown number
    assert len(re.findall(f"\r{name}:{how_far}", text)) >= 2
    assert shown(text) == ["failed", ""]


@pytest.mark.processes
def test_short_work_draws_nothing(tmp_path: Path) -> None:
    assert written(tmp_path, "load_resident", "Bytes", on_terminal=True) == "done\r\n"


@pytest.mark.processes
def test_long_work_draws_nothing_where_standard_error_is_no_terminal(tmp_path: Path) -> None:
    assert written(tmp_path, "load_resident", "SlowBytes", on_terminal=False) == "done\n"


# The log.


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    assert {record.levelname for record in caplog.records} <= {"INFO"}
    return [record.getMessage() for record in caplog.records if "opened" not in record.getMessage()]


def test_long_work_that_nobody_watches_is_logged_as_it_goes_and_when_it_is_done(tmp_path, caplog, monkeypatch) -> None:
    (path,) = arsrc.write_array_record(tmp_path / "x", np.zeros((2 * SPAN + 1, 1), np.uint8))
    monkeypatch.setattr(progress, "_SHORT", 0.0)
    monkeypatch.setattr(progress, "_LOG_EVERY", 0.0)
    with caplog.at_level(logging.INFO, "arsrc"):
        arsrc.dataset_statistics(arsrc.ArrayRecordSourceConfig(path, 1))
    lines = logged(caplog)
    assert len(lines) == 4
    for line, done in zip(lines, ("512", "1,024"), strict=False):
        assert line.startswith(f"dataset_statistics: {done} of 1,025 records, ")
        assert re.search(r"\d+%, \d+ s, about \d+ s left$", line)
    assert re.fullmatch(r"dataset_statistics: 1,025 records, done in \d+\.\d s", lines[-1])
    caplog.clear()
    with caplog.at_level(logging.INFO, "arsrc"):
        arsrc.write_array_record(path, iter([b"a", b"b"]))
    lines = logged(caplog)
    assert lines[:2] == ["write_array_record: 1 record, 0 s", "write_array_record: 2 records, 0 s"]
    assert lines[2].startswith("write_array_record: 2 records, done in 0.")


def test_what_several_threads_do_is_counted_together(caplog, monkeypatch) -> None:
    monkeypatch.setattr(progress, "_SHORT", 0.0)
    with caplog.at_level(logging.INFO, "arsrc"), progress.showing("verify", 40) as advance:
        threads = [threading.Thread(target=lambda: [advance(2) for _ in range(5)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert re.fullmatch(r"verify: 40 records, done in \d+\.\d s", *logged(caplog))


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO])
def test_short_work_and_work_that_fails_is_not_logged_as_done(tmp_path, caplog, monkeypatch, level) -> None:
    with caplog.at_level(level, "arsrc"):
        arsrc.write_array_record(tmp_path / "x", [b"a", b"b"])
    assert not logged(caplog)
    monkeypatch.setattr(progress, "_SHORT", 0.0)
    with caplog.at_level(level, "arsrc"), pytest.raises(arsrc.ArsrcError):
        arsrc.write_array_record(tmp_path / "x", [b"a", 3])
    assert not logged(caplog)


if __name__ == "__main__":
    work(sys.argv[1], sys.argv[2], {codec.__name__: codec for codec in (Bytes, SlowBytes, FailingBytes)}[sys.argv[3]]())
