"""Training that is killed, again and again, and resumed from its newest complete checkpoint.

The tests start this file as a script, and kill it by SIGKILL: no handler runs, no last checkpoint is written.
"""

import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

import arsrc
from arsrc.codecs import Struct

N = 60
B = 7  # an epoch ends inside of a batch, nearly always
NUM_STEPS = 180  # 21 epochs
SAVE_EVERY = 4
NUM_KILLS = 5
CODEC = Struct({"id": "int32", "x": ("float32", 8), "y": "float32"})


def config_of(folder: Path, is_cached: bool) -> arsrc.ArrayRecordSourceConfig:
    # A cache in files is another thing that a kill can leave half written.
    read = arsrc.ReadOptions(cache_bytes=0, cache_dir=os.fspath(folder / "cache"))
    return arsrc.ArrayRecordSourceConfig(
        folder / "x.array_record",
        B,
        CODEC,
        shuffle_records=True,
        remainder="wrap",
        cacheable=is_cached,
        read=read if is_cached else arsrc.ReadOptions(),
    )


def first_carry(config: arsrc.ArrayRecordSourceConfig) -> dict[str, Any]:
    return {
        "weights": jnp.zeros(8),
        "velocity": jnp.zeros(8),
        "seen": jnp.zeros(N, jnp.int32),  # how often each record has gone into the weights
        "source": arsrc.init(config),
    }


def make_train_step(config: arsrc.ArrayRecordSourceConfig) -> Any:
    @jax.jit
    def train_step(carry: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        source, batch = arsrc.next_batch(config, carry["source"])
        keys = arsrc.record_keys(config, source, batch)
        noise = jax.vmap(lambda key: jax.random.normal(key, (8,)))(keys)

        def loss_fn(weights: Any) -> Any:
            predicted = jnp.tanh((batch.data["x"] + jnp.float32(0.1) * noise) @ weights)
            return jnp.mean((predicted - batch.data["y"]) ** 2)

        velocity = 0.9 * carry["velocity"] + jax.grad(loss_fn)(carry["weights"])
        after = {
            "weights": carry["weights"] - 0.05 * velocity,
            "velocity": velocity,
            "seen": carry["seen"].at[batch.data["id"]].add(1),
            "source": source,
        }
        return after, batch.record_ids

    return train_step


def train(folder: Path, is_async: bool) -> None:
    """Train to the end, from the newest checkpoint if there is one, and log what each step is fed with."""
    log = os.open(folder / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    config = config_of(folder, is_cached=is_async)
    train_step, carry = make_train_step(config), first_carry(config)
    options = ocp.CheckpointManagerOptions(
        max_to_keep=3, cleanup_tmp_directories=True, enable_async_checkpointing=is_async
    )
    with ocp.CheckpointManager(folder / "checkpoints", options=options) as manager:
        first = manager.latest_step() or 0
        os.write(log, f"start {first}\n".encode())
        if first:
            carry = manager.restore(first, args=ocp.args.StandardRestore(carry))
        for step in range(first, NUM_STEPS):
            carry, ids = train_step(carry)
            os.write(log, f"{step} {' '.join(map(str, ids.tolist()))}\n".encode())
            if (step + 1) % SAVE_EVERY == 0:
                manager.save(step + 1, args=ocp.args.StandardSave(carry))


def lines_of(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def newest_complete(checkpoints: Path) -> int:
    """Orbax gives a checkpoint its name, a number, when it is complete."""
    return max((int(path.name) for path in checkpoints.glob("*") if path.name.isdigit()), default=0)


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_run_that_is_killed_again_and_again_ends_as_if_nothing_had_happened(tmp_path: Path, mode: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 8)).astype(np.float32)
    elements = {"id": np.arange(N, dtype=np.int32), "x": x, "y": np.sin(x).sum(1)}
    arsrc.write_array_record(tmp_path / "x.array_record", elements, codec=CODEC)
    moments = random.Random(mode)
    log = tmp_path / "log"
    starts: list[int] = []

    def launch() -> subprocess.Popen[bytes]:
        starts.append(newest_complete(tmp_path / "checkpoints"))
        with (tmp_path / "output").open("ab") as output:
            command = [sys.executable, __file__, mode, str(tmp_path)]
            environment = os.environ | {"JAX_PLATFORMS": "cpu"}
            return subprocess.Popen(command, env=environment, stdout=output, stderr=output)

    def fail(what: str) -> None:
        pytest.fail(f"{what}\n{(tmp_path / 'output').read_text()}", pytrace=False)

    for _ in range(NUM_KILLS):
        before = len(lines_of(log))
        # Some steps after the start, or while it restores, and anywhere in a step or in the writing of a checkpoint.
        num_lines, delay = moments.randint(1, 30), moments.uniform(0, 0.05)
        process = launch()
        while len(lines_of(log)) < before + num_lines:
            if process.poll() is not None:
                fail(f"ended by itself with {process.returncode}")
            time.sleep(0.002)
        time.sleep(delay)
        process.kill()
        if process.wait() != -9:
            fail(f"not killed, but {process.returncode}")
    if launch().wait() != 0:
        fail("the last run failed")

    # What each run was fed with: step by step from the newest complete checkpoint on, alike when it was run again.
    lines = [line.split() for line in lines_of(log)]
    assert [int(line[1]) for line in lines if line[0] == "start"] == starts
    fed: dict[int, list[int]] = {}
    expected_step = 0
    for first, *rest in lines:
        numbers = [int(number) for number in rest]
        if first == "start":
            expected_step = numbers[0]
            continue
        assert int(first) == expected_step
        assert fed.setdefault(expected_step, numbers) == numbers
        expected_step += 1
    assert list(fed) == list(range(NUM_STEPS))

    # The run that was never interrupted.
    config = config_of(tmp_path, is_cached=False)
    train_step, carry = make_train_step(config), first_carry(config)
    for step in range(NUM_STEPS):
        carry, ids = train_step(carry)
        assert ids.tolist() == fed[step]
    for epoch in np.array([fed[step] for step in range(NUM_STEPS)]).reshape(-1, N):
        assert sorted(epoch.tolist()) == list(range(N))  # no gap and no repeat

    with ocp.CheckpointManager(tmp_path / "checkpoints") as manager:
        assert manager.latest_step() == NUM_STEPS
        last = manager.restore(NUM_STEPS, args=ocp.args.StandardRestore(first_carry(config)))
    assert last["seen"].tolist() == [NUM_STEPS * B // N] * N
    for name in ("weights", "velocity"):
        assert np.asarray(last[name]).tobytes() == np.asarray(carry[name]).tobytes()
    assert np.abs(carry["weights"]).min() > 0  # it learned something that can differ
    assert int(arsrc.step_of(config, last["source"])) == NUM_STEPS


# Checkpoints at any moment, without a crash.


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_checkpoint_may_be_saved_anywhere_and_restored_twice(tmp_path: Path, is_async: bool) -> None:
    """At the start, inside an epoch, at its end, at the end of the last epoch and past it; straight after a restore."""
    path = arsrc.write_array_record(tmp_path / "x.array_record", np.arange(20, dtype=np.uint8)[:, None])
    config = arsrc.ArrayRecordSourceConfig(path, 4, shuffle_records=True, num_epochs=3)
    served = [batch.record_ids.tolist() for _, batch in arsrc.iterate(config)]
    assert len(served) == 15

    @jax.jit
    def step(carry: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        source, batch = arsrc.next_batch(config, carry["source"])
        return {"source": source, "count": carry["count"] + batch.mask.sum(dtype=jnp.int32)}, batch.record_ids

    def rest(carry: dict[str, Any]) -> list[list[int]]:
        found = []
        while not arsrc.is_exhausted(config, carry["source"]):
            carry, ids = step(carry)
            found.append(ids.tolist())
        assert int(carry["count"]) == 60
        return found

    options = ocp.CheckpointManagerOptions(enable_async_checkpointing=is_async)
    first = {"source": arsrc.init(config), "count": jnp.int32(0)}
    with ocp.CheckpointManager(tmp_path / "a", options=options) as manager:
        carry = first
        for number in range(18):
            if number in (0, 3, 5, 10, 15, 17):
                manager.save(number, args=ocp.args.StandardSave(carry))
            carry, ids = step(carry)  # while the checkpoint is written
            assert ids.tolist() == (served[number] if number < 15 else [2**32 - 1] * 4)
    with (
        ocp.CheckpointManager(tmp_path / "a", options=options) as manager,
        ocp.CheckpointManager(tmp_path / "b", options=options) as other,
    ):
        for number in (0, 3, 5, 10, 15, 17):
            restore = ocp.args.StandardRestore(first)
            restored = manager.restore(number, args=restore)
            other.save(number, args=ocp.args.StandardSave(restored))
            other.wait_until_finished()
            for again in (restored, manager.restore(number, args=restore), other.restore(number, args=restore)):
                assert int(arsrc.step_of(config, again["source"])) == min(number, 15)
                assert bool(arsrc.is_exhausted(config, again["source"])) == (number >= 15)
                assert rest(again) == served[number:]


if __name__ == "__main__":
    train(Path(sys.argv[2]), is_async=sys.argv[1] == "async")
