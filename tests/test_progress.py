"""The progress line of long host work: drawn on a terminal, gone when the work is done, and nowhere else."""

import dataclasses
import itertools
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import arsrc
from arsrc.codecs import Bytes, RecordBatch
from arsrc.errors import RecordError

SPAN = 4096  # records that are read before the line is drawn again
NUM_SPANS = 8
LINE = re.compile(r"\r(\w+) \[(#*) *\] +(\d+)% +\d+ s left")


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


def work(path: str, name: str, codec: Bytes) -> None:
    try:
        getattr(arsrc, name)(arsrc.ArrayRecordSourceConfig(path, 1, codec))
        sys.stderr.write("done\n")
    except arsrc.ArsrcValueError:
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
    drawn = [(label, len(bar), int(percent)) for label, bar, percent in LINE.findall(text)]
    assert len(drawn) >= 3
    assert {label for label, _, _ in drawn} == {name}
    percents = [percent for _, _, percent in drawn]
    assert all(a < b for a, b in itertools.pairwise(percents))
    assert percents[-1] >= 100 * (NUM_SPANS - 1) // NUM_SPANS
    assert all(abs(length - 0.3 * percent) <= 1 for _, length, percent in drawn)
    assert shown(text) == ["done", ""]


@pytest.mark.processes
def test_an_error_leaves_no_trace_of_the_line(tmp_path: Path) -> None:
    text = written(tmp_path, "load_resident", "FailingBytes", on_terminal=True)
    assert LINE.search(text)
    assert shown(text) == ["failed", ""]


@pytest.mark.processes
def test_short_work_draws_nothing(tmp_path: Path) -> None:
    assert written(tmp_path, "load_resident", "Bytes", on_terminal=True) == "done\r\n"


@pytest.mark.processes
def test_long_work_draws_nothing_where_standard_error_is_no_terminal(tmp_path: Path) -> None:
    assert written(tmp_path, "load_resident", "SlowBytes", on_terminal=False) == "done\n"


if __name__ == "__main__":
    work(sys.argv[1], sys.argv[2], {codec.__name__: codec for codec in (Bytes, SlowBytes, FailingBytes)}[sys.argv[3]]())
