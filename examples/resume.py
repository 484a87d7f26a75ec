"""Kill training at an arbitrary step, resume it, and end with the same parameters, bit for bit.

One process trains and is killed by SIGKILL at a random step, in the middle of an epoch and, perhaps, of writing
a checkpoint. Another resumes from the last whole checkpoint. A third run is never interrupted. The source state
is one more part of the train state, so that Orbax saves it along: nothing else is needed. The last line is

    the parameters are bit-identical
"""

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
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
    y = np.sin(x).sum(axis=1)
    arsrc.write_array_record(folder / "train", {"x": x, "y": y}, codec=CODEC, num_shards=2)


def init_state(config):
    keys = jax.random.split(jax.random.key(0))
    params = {
        "hidden": jax.random.normal(keys[0], (16, 64)) / 4,
        "out": jax.random.normal(keys[1], (64,)) / 8,
    }
    return TrainState(params, OPTIMIZER.init(params), arsrc.init(config))


def make_train_step(config):
    @jax.jit
    def train_step(state):
        # Noise has a key for each record, made from the source state: it resumes too, without a state of its own.
        keys = arsrc.record_keys(config, state.source)
        noise = jax.vmap(lambda key: 0.1 * jax.random.normal(key, (16,)))(keys)
        source, batch = arsrc.next_batch(config, state.source)

        def loss_fn(params):
            predicted = jnp.tanh((batch.data["x"] + noise) @ params["hidden"]) @ params["out"]
            return jnp.mean((predicted - batch.data["y"]) ** 2)

        updates, opt_state = OPTIMIZER.update(jax.grad(loss_fn)(state.params), state.opt_state)
        return TrainState(optax.apply_updates(state.params, updates), opt_state, source)

    return train_step


def train(folder, checkpoints, kill_at=None):
    """Train from the last checkpoint, if there is one, to the end; return a hash of the parameters."""
    # 1000 records in batches of 32: no epoch ends with a batch, and any step is as good as another to resume at.
    config = arsrc.ArrayRecordSourceConfig(
        folder / "train-*", batch_size=32, codec=CODEC, shuffle_records=True, remainder="wrap"
    )
    train_step = make_train_step(config)
    state = init_state(config)
    options = ocp.CheckpointManagerOptions(save_interval_steps=50, max_to_keep=2)
    # Leaving the block waits for the checkpoint that is being written.
    with ocp.CheckpointManager(checkpoints, options=options) as manager:
        if manager.latest_step() is not None:
            # Typed PRNG keys, like the one in the source state, are saved and restored like other arrays.
            state = manager.restore(manager.latest_step(), args=ocp.args.StandardRestore(state))
            print(f"resumed from the checkpoint of step {arsrc.step_of(config, state.source)}", flush=True)
        for step in range(int(arsrc.step_of(config, state.source)), NUM_STEPS):
            if step == kill_at:
                print(f"killed at step {step} of {NUM_STEPS}", flush=True)
                os.kill(os.getpid(), signal.SIGKILL)  # no handler, no clean-up, no last checkpoint
            state = train_step(state)
            manager.save(step + 1, args=ocp.args.StandardSave(state))  # every 50th; written in the background
    leaves = jax.tree.leaves(state.params)
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in leaves)).hexdigest()


def train_in_process(folder, *args):
    """Run `train` in a process of its own; return its exit status and the last line it printed."""
    command = [sys.executable, __file__, "--train", folder, *args]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout, end="")
    return done.returncode, done.stdout.splitlines()[-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kill-at", type=int, default=random.randrange(NUM_STEPS), help="default: at random")
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)  # what the processes are started with
    args = parser.parse_args()
    if args.train is not None:
        print(train(args.train, args.train / "interrupted", args.kill_at))
        return

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        write_data(folder)
        status, _ = train_in_process(folder, "--kill-at", str(args.kill_at))
        assert status == -signal.SIGKILL, status
        status, resumed = train_in_process(folder, "--kill-at", "-1")
        assert status == 0, status
        uninterrupted = train(folder, folder / "uninterrupted")
    print(f"{uninterrupted}\n")
    assert resumed == uninterrupted
    print("the parameters are bit-identical")


if __name__ == "__main__":
    main()
