"""Kill training at an arbitrary step, resume it, and end with the same parameters, bit for bit.

A process that trains is killed by SIGKILL at a random step: in the middle of an epoch and, perhaps, of
writing a checkpoint. Training is then resumed from the last whole checkpoint, and compared with a run that
was never interrupted. The source state is a part of the train state, so Orbax saves it too. The last line is

    the parameters are bit-identical
"""

import argparse
import multiprocessing
import os
import random
import signal
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp

import arsrc
from arsrc.codecs import Struct

CODEC = Struct({"x": ("float32", 16), "y": "float32"})
NUM_STEPS = 400
OPTIMIZER = optax.adam(1e-3)


class TrainState(NamedTuple):
    params: Any
    opt_state: Any
    source: arsrc.SourceState


def write_data(folder):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1000, 16)).astype(np.float32)
    arsrc.write_array_record(folder / "train", {"x": x, "y": np.sin(x).sum(1)}, codec=CODEC, num_shards=2)


def init_state(config):
    hidden, out = jax.random.split(jax.random.key(0))
    params = {"hidden": jax.random.normal(hidden, (16, 64)) / 4, "out": jax.random.normal(out, (64,)) / 8}
    return TrainState(params, OPTIMIZER.init(params), arsrc.init(config))


def make_train_step(config):
    @jax.jit
    def train_step(state):
        source, batch = arsrc.next_batch(config, state.source)
        # One key for each record, made from the source state: augmentation resumes too, with nothing to save.
        keys = arsrc.record_keys(config, source, batch)
        noise = jax.vmap(lambda key: 0.1 * jax.random.normal(key, (16,)))(keys)

        def loss_fn(params):
            predicted = jnp.tanh((batch.data["x"] + noise) @ params["hidden"]) @ params["out"]
            return jnp.mean((predicted - batch.data["y"]) ** 2)

        updates, opt_state = OPTIMIZER.update(jax.grad(loss_fn)(state.params), state.opt_state)
        return TrainState(optax.apply_updates(state.params, updates), opt_state, source)

    return train_step


def train(data, checkpoints, kill_at=None):
    """Train to the end, from the last checkpoint if there is one; return the parameters."""
    # 1000 records in batches of 32: no epoch ends with a batch, so most steps lie inside of one.
    config = arsrc.ArrayRecordSourceConfig(
        data / "train-*", batch_size=32, codec=CODEC, shuffle_records=True, remainder="wrap"
    )
    train_step = make_train_step(config)
    state = init_state(config)
    options = ocp.CheckpointManagerOptions(
        save_interval_steps=50,
        max_to_keep=2,
        cleanup_tmp_directories=True,  # of a checkpoint that a killed process was writing
    )
    # Leaving the block waits until the last checkpoint is written.
    with ocp.CheckpointManager(checkpoints, options=options) as manager:
        if manager.latest_step() is not None:
            # Orbax saves and restores typed PRNG keys, as in the source state, like any other array.
            state = manager.restore(manager.latest_step(), args=ocp.args.StandardRestore(state))
        first_step = int(arsrc.step_of(config, state.source))
        print(f"training from step {first_step}", flush=True)
        for step in range(first_step, NUM_STEPS):
            if step == kill_at:
                print(f"killed at step {step}", flush=True)
                os.kill(os.getpid(), signal.SIGKILL)  # no handler, no clean-up, no last checkpoint
            state = train_step(state)
            # Saves every 50th, in the background.
            manager.save(step + 1, args=ocp.args.StandardSave(state))
    return state.params


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kill-at", type=int, help=f"a step below {NUM_STEPS}; default: at random")
    kill_at = parser.parse_args().kill_at
    kill_at = random.randrange(NUM_STEPS) if kill_at is None else kill_at

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        write_data(folder)
        # Spawned, not forked: neither JAX nor open files survive a fork.
        process = multiprocessing.get_context("spawn").Process(
            target=train, args=(folder, folder / "interrupted", kill_at)
        )
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL, process.exitcode
        resumed = train(folder, folder / "interrupted")
        uninterrupted = train(folder, folder / "uninterrupted")

    for name in resumed:
        assert np.asarray(resumed[name]).tobytes() == np.asarray(uninterrupted[name]).tobytes(), name
    print("the parameters are bit-identical")


if __name__ == "__main__":
    main()
