"""Profiles show the host's work by name: how often a program waited for batches, and which threads loaded them."""

import itertools
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from jax.experimental import io_callback
from jax.profiler import ProfileData

import arsrc

WAIT, LOAD = "arsrc: wait for a batch (digits)", "arsrc: load batches (digits)"
NUM_STEPS = 40
NAP_MS = 5


class Span(NamedTuple):
    """A stretch of work on one thread; times in nanoseconds since the profile began."""

    thread: int
    start: float
    end: float


def spans(folder: Path, name: str) -> list[Span]:
    """Return the work of this name in the only profile under `folder`, in the order in which it began."""
    (path,) = folder.rglob("*.xplane.pb")
    threads = itertools.chain.from_iterable(plane.lines for plane in ProfileData.from_file(str(path)).planes)
    found = [
        Span(thread, event.start_ns, event.start_ns + event.duration_ns)
        for thread, line in enumerate(threads)
        for event in line.events
        if event.name == name
    ]
    return sorted(found, key=lambda span: span.start)


def nap(carry: Any) -> Any:
    time.sleep(NAP_MS / 1000)
    return np.asarray(carry)


def slow_body(carry: Any, batch: arsrc.Batch) -> tuple[Any, None]:
    carry = carry ^ batch.data[0, 0]
    return io_callback(nap, jax.ShapeDtypeStruct((), np.uint8), carry, ordered=False), None


def profile(folder: Path, read: arsrc.ReadOptions, batches_per_fetch: int) -> None:
    """Profile a scan over records of which nothing was read before."""
    path = arsrc.write_array_record(folder / "x.array_record", np.zeros((4000, 1000), np.uint8))
    config = arsrc.ArrayRecordSourceConfig(path, 100, shuffle_records=True, read=read, name="digits")

    def train(state: arsrc.SourceState) -> Any:
        fetch = {"batches_per_fetch": batches_per_fetch}
        return arsrc.scan_steps(config, state, np.uint8(0), slow_body, NUM_STEPS, **fetch)[:2]

    state = arsrc.init(config)
    program = jax.jit(train).lower(state).compile()
    with jax.profiler.trace(str(folder / "profile")):
        jax.block_until_ready(program(state))
    arsrc.close(config)


@pytest.mark.parametrize("batches_per_fetch", [1, 4])
def test_a_program_waits_once_for_each_fetch_and_threads_load_beside_a_slow_body(
    tmp_path: Path, batches_per_fetch: int
) -> None:
    profile(tmp_path, arsrc.ReadOptions(), batches_per_fetch)
    waits, loads = spans(tmp_path, WAIT), spans(tmp_path, LOAD)

    assert len(waits) == NUM_STEPS // batches_per_fetch
    for wait, following in itertools.pairwise(waits):
        assert wait.end > wait.start
        assert following.start - wait.end > 0.9e6 * batches_per_fetch * NAP_MS

    waiting = {wait.thread for wait in waits}
    ahead = [load for load in loads if load.thread not in waiting]
    # Several batches are loaded at once, so there are fewer loads than batches; who comes first loads for itself.
    assert 2 <= len(ahead) < NUM_STEPS
    for load in set(loads) - set(ahead):
        assert any(wait.thread == load.thread and wait.start < load.start < load.end < wait.end for wait in waits[:1])


def test_without_read_ahead_each_wait_is_a_load_on_its_own_thread(tmp_path: Path) -> None:
    profile(tmp_path, arsrc.ReadOptions(read_ahead_bytes=0), 1)
    waits, loads = spans(tmp_path, WAIT), spans(tmp_path, LOAD)
    assert len(waits) == len(loads) == NUM_STEPS
    for wait, load in zip(waits, loads, strict=True):
        assert wait.thread == load.thread
        assert wait.start < load.start < load.end < wait.end
