"""Sources of all kinds whose reading is interrupted, and every step at which Python handles a signal."""

import dataclasses
import dis
import functools
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np
import pytest

import arsrc
from arsrc.codecs import Map

PACKAGE = str(Path(arsrc.__file__).parent)
NUM_ROWS, NUM_VALUES, BATCH = 480, 6, 20
ROWS = np.random.default_rng(0).integers(0, 256, (NUM_ROWS, NUM_VALUES)).astype(np.uint8)
NUM_FILES = 40  # more than are opened at once
KINDS = ["mapped", "mapped, ahead", "groups, in windows", "decoded, cached", "in processes", "with a limit"]


def reversed_row(record: bytes) -> np.ndarray:
    return np.frombuffer(record, np.uint8)[::-1]


def sources(folder: Path) -> dict[str, arsrc.ArrayRecordSourceConfig]:
    """Write files, and return configs that read them in all ways there are."""
    for name, options in (("mapped", "group_size:1,uncompressed"), ("groups", "group_size:8,zstd")):
        (folder / name).mkdir()
        for file, rows in enumerate(np.split(ROWS, NUM_FILES)):
            arsrc.write_array_record(folder / name / f"{file:02d}", rows, options=options)
    mapped = arsrc.ArrayRecordSourceConfig(folder / "mapped/*", BATCH, shuffle_records=True)
    groups = dataclasses.replace(mapped, paths=folder / "groups/*")
    ahead = arsrc.ReadOptions(ahead="always", num_threads=2)
    decoded = Map(reversed_row, np.zeros(NUM_VALUES, np.uint8))
    return {
        "mapped": mapped,
        "mapped, ahead": dataclasses.replace(mapped, read=ahead),
        "groups, in windows": dataclasses.replace(groups, shuffle_block_size=4, shuffle_window_blocks=4, read=ahead),
        "decoded, cached": dataclasses.replace(groups, codec=decoded, cacheable=True),
        "in processes": dataclasses.replace(mapped, codec=dataclasses.replace(decoded, num_processes=2)),
        "with a limit": dataclasses.replace(mapped, read=arsrc.ReadOptions(timeout_seconds=60)),
    }


def expected(config: arsrc.ArrayRecordSourceConfig) -> np.ndarray:
    """Return what the records are decoded to, in their order."""
    return ROWS[:, ::-1] if isinstance(config.codec, Map) else ROWS


def check(config: arsrc.ArrayRecordSourceConfig, batch: Any) -> None:
    """A batch holds what its records hold."""
    np.testing.assert_array_equal(np.asarray(batch.data), expected(config)[np.asarray(batch.record_ids)])


@functools.cache
def steps_of(code: CodeType) -> frozenset[int]:
    """Return the offsets in a function in front of which a signal may be handled: as it begins, loops, or has called.

    A step that an exception would leave by another way than the call in front of it is none: there, as where a `with`
    ends, Python handles the signal inside of the statement.
    """
    entries = [(entry.start, entry.end, entry.target) for entry in dis._parse_exception_table(code)]

    def handler(offset: int) -> int | None:
        return next((target for start, end, target in entries if start <= offset < end), None)

    found, before = set(), None
    for step in dis.get_instructions(code):
        is_behind_call = before is not None and before.opname.startswith("CALL")
        if step.opname in ("RESUME", "JUMP_BACKWARD") or (
            is_behind_call and handler(step.offset) == handler(before.offset)
        ):
            found.add(step.offset)
        before = step
    return frozenset(found)


def at_step(number: int, act: Callable[[], None], work: Callable[[], Any]) -> int:
    """Do `work`, with `act()` at the n-th step where a signal may be handled; return how many came.

    Steps are those of this package, and of the threads of Python's library.
    """
    if sys.version_info[:2] == (3, 12):
        pytest.skip("Python 3.12 shows the steps of a function only when it is called once more")
    count = 0

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal count
        if event == "call":
            if not frame.f_code.co_filename.startswith((PACKAGE, threading.__file__)):
                return None
            frame.f_trace = trace  # first, or Python 3.13 sees the opcodes only when the function is called once more
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        elif event == "opcode" and frame.f_lasti in steps_of(frame.f_code):
            count += 1
            if count == number:
                act()
        return trace

    _traced(trace, work)
    return count


def at_call(code: CodeType, number: int, act: Callable[[], None], work: Callable[[], Any]) -> None:
    """Do `work`, with `act()` as a function is called the n-th time, if it is: a signal may be handled there."""
    count = 0

    def trace(frame: FrameType, event: str, arg: Any) -> None:
        nonlocal count
        if frame.f_code is code:
            count += 1
            if count == number:
                act()

    _traced(trace, work)


def _traced(trace: Callable[[FrameType, str, Any], Any], work: Callable[[], Any]) -> None:
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
