"""Interrupts and signal handlers, at any moment: nothing hangs, and afterwards all is as it was."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import arsrc
from arsrc import ArrayRecordSourceConfig
from arsrc._host.machine import slow_reads

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals come at random times by a timer")

IS_THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
SECONDS, NUM_SEEDS = ("20", 10) if IS_THOROUGH else ("2", 1)

# What both scripts begin with: files, and a check of every byte that comes out of them.
BEGIN = """
import faulthandler, functools, itertools, os, random, signal, sys, time
faulthandler.dump_traceback_later(60 + float(sys.argv[2]), exit=True)
import jax, numpy as np
import arsrc
from arsrc import ArrayRecordSourceConfig, ReadOptions
from arsrc._host import registry
from arsrc._host.machine import copying

rng = random.Random(int(sys.argv[3]))
expected = np.arange(2_000, dtype="<u4").repeat(16).reshape(2_000, 16).view(np.uint8)

def config(kind, **fields):
    return ArrayRecordSourceConfig(f"{sys.argv[1]}/{kind}", 50, shuffle_records=True, **fields)

configs = [
    config("plain"), config("plain", read=ReadOptions(ahead="always")), config("zstd"), config("zstd", cacheable=True),
    config("zstd", shuffle_block_size=20, shuffle_window_blocks=4),
]

def check(batch):
    assert (np.asarray(batch.data) == expected[np.asarray(batch.record_ids)]).all()

def look(config):
    for _, batch in itertools.islice(arsrc.iterate(config), rng.randrange(1, 30)):
        check(batch)

def eager(config):
    state = arsrc.init(config)
    for _ in range(3):
        state, batch = arsrc.next_batch(config, state)
        check(batch)

@functools.cache
def scan_of(config):
    return jax.jit(lambda state: arsrc.scan_steps(config, state, 0, lambda carry, batch: (carry, batch), 5)[2])

def scan(config):
    batches = scan_of(config)(arsrc.state_at(config, rng.randrange(30)))
    check(jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), batches))

copying._PART_BYTES = 512  # batches are copied by several threads
state = arsrc.init(configs[0])
for one in configs:
    look(one), eager(one), scan(one)
end = time.monotonic() + float(sys.argv[2])
count = 0
"""

INTERRUPTED = (
    BEGIN
    + """
kinds = [os.path.dirname(one.__file__) + os.sep for one in (registry, arsrc, jax)]
what = left = None

def interrupt(_, frame):
    global count, left
    left -= 1
    if not left:
        signal.setitimer(signal.ITIMER_REAL, 0)
    kind = None
    while frame is not None and kind is None:
        kind = next((kind for kind in kinds if frame.f_code.co_filename.startswith(kind)), None)
        frame = frame.f_back
    # One behind the other, and in compiled programs, they come in reading alone: JAX is not made for them.
    if kind == kinds[0] or (kind and what is not scan and most == 1):
        count += 1
        raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
while time.monotonic() < end:
    one = rng.choice(configs)
    what = rng.choice([look, look, look, scan, lambda one: arsrc.close(), arsrc.close, arsrc.num_records])
    left = most = rng.choice([1, 1, 8])
    try:
        signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-5, 2e-2), rng.uniform(5e-5, 2e-3))
        what(one)
    except KeyboardInterrupt:
        pass
    except (SystemError, ValueError, RuntimeError) as error:  # of Python itself, where JAX was interrupted, or of JAX
        assert isinstance(error.__cause__, KeyboardInterrupt) or "KeyboardInterrupt" in str(error), error
    signal.setitimer(signal.ITIMER_REAL, 0)
for one in configs:
    look(one), eager(one), scan(one)
print(count)
# The interpreter ends with all sources open and being read ahead.
"""
)

HANDLED = (
    BEGIN
    + """
calls = [
    arsrc.io_metrics, arsrc.num_records, arsrc.steps_per_epoch, arsrc.fingerprint, arsrc.close, lambda _: arsrc.close(),
    lambda one: arsrc.to_state_dict(one, state), lambda one: arsrc.operation_stats(one, state),
    lambda one: registry.source(one).elements.read(np.arange(9, dtype=np.uint32)),
    lambda one: check(next(arsrc.iterate(one))[1]),
]

def handle(*_):
    global count
    count += 1
    try:
        rng.choice(calls)(rng.choice(configs))
    except arsrc.ArsrcReadError as error:
        assert "signal handler" in str(error), error
    signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-4, 5e-3))

signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 1e-3)
while time.monotonic() < end:
    rng.choice([look, look, look, lambda one: arsrc.close(), arsrc.close])(rng.choice(configs))
signal.setitimer(signal.ITIMER_REAL, 0)
for one in configs:
    look(one), eager(one)
print(count)
"""
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("signals")
    rows = np.arange(2_000, dtype="<u4").repeat(16).reshape(2_000, 16).view(np.uint8)
    for name, options in (("plain", "group_size:1,uncompressed"), ("zstd", "group_size:20,zstd")):
        arsrc.write_array_record(folder / name, rows, options=options)
    return folder


def run(script: str, folder: Path, seed: int) -> int:
    """Run a script in a process of its own; return how many signals came."""
    command = [sys.executable, "-c", textwrap.dedent(script), str(folder), SECONDS, str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return int(done.stdout.split()[-1])


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(NUM_SEEDS))
def test_interrupts_at_any_time_leave_nothing_that_hangs_or_is_wrong(folder: Path, seed: int) -> None:
    assert run(INTERRUPTED, folder, seed) > 50


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(NUM_SEEDS))
def test_signal_handlers_may_call_the_source_at_any_time(folder: Path, seed: int) -> None:
    assert run(HANDLED, folder, seed) > 50


def test_a_read_that_was_interrupted_is_told_of_no_more() -> None:
    read = slow_reads.Reading(lambda: "a file")
    read.__enter__()
    reference = read._reference
    assert reference in slow_reads._under_way
    del read
    assert reference() is None


def test_a_checkpoint_is_made_in_the_midst_of_a_step_whatever_became_of_the_files(tmp_path: Path) -> None:
    path = tmp_path / "a.array_record"
    arsrc.write_array_record(path, np.zeros((10, 4), np.uint8))
    config = ArrayRecordSourceConfig(str(path), 2)
    state = arsrc.init(config)
    saved = arsrc.to_state_dict(config, state)
    path.unlink()
    assert arsrc.to_state_dict(config, state) == saved


def test_a_checkpoint_is_made_while_jax_is_tracing(tmp_path: Path) -> None:
    path = tmp_path / "a.array_record"
    arsrc.write_array_record(path, np.zeros((10, 4), np.uint8))
    config = ArrayRecordSourceConfig(str(path), 2)
    state = arsrc.init(config)
    saved = []

    @jax.jit
    def step(weights: Any) -> Any:
        weights = weights + jax.lax.fori_loop(0, 2, lambda _, total: total + 1, 0)
        signal.raise_signal(signal.SIGUSR1)  # its handler runs at once
        return weights

    before = signal.signal(signal.SIGUSR1, lambda *_: saved.append(arsrc.to_state_dict(config, state)))
    try:
        step(1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert saved == [arsrc.to_state_dict(config, state)]
