"""Train in a plain Python loop, by `arsrc.iterate`: a jitted step for each batch, then a jitted scan for each segment.

Fits a plane through noisy points and prints the weights that made them. The last lines are

    found 2.00 -3.00 0.50
    in segments of 16 batches: found 2.00 -3.00 0.50
"""

import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import arsrc
from arsrc.codecs import Struct

CODEC = Struct({"x": ("float32", 3), "y": "float32"})
WEIGHTS = np.array([2.0, -3.0, 0.5], np.float32)


def write_points(path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20_000, 3)).astype(np.float32)
    y = x @ WEIGHTS + 0.1 * rng.normal(size=len(x))
    arsrc.write_array_record(path, {"x": x, "y": y}, codec=CODEC)


@jax.jit
def train_step(weights, batch):
    def loss_fn(weights):
        error = batch.data["x"] @ weights - batch.data["y"]
        # The last batch of an epoch is filled up with rows that must not count.
        return jnp.mean(error**2, where=batch.mask)

    loss, grad = jax.value_and_grad(loss_fn)(weights)
    return weights - 0.02 * grad, loss


@jax.jit
def train_segment(weights, batches):
    return jax.lax.scan(train_step, weights, batches)


def shown(weights):
    return "found " + " ".join(f"{weight:.2f}" for weight in weights)


def main():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "points.array_record"
        write_points(path)
        config = arsrc.ArrayRecordSourceConfig(
            path, batch_size=256, codec=CODEC, shuffle_records=True, remainder="pad", num_epochs=5
        )
        weights = jnp.zeros(3)
        # Files are read and batches transferred while the step before runs. The loop ends after num_epochs.
        # `state` is the one after its batch: saved with the weights, `iterate(config, state)` goes on there.
        for state, batch in arsrc.iterate(config):
            weights, loss = train_step(weights, batch)
            step = int(arsrc.step_of(config, state))
            if step % arsrc.steps_per_epoch(config) == 0:
                print(f"step {step:3}, epoch {state.epoch} done: loss {loss:.4f}")
        print(shown(weights))

        # The same batches, 16 at a time on the device: one dispatch for 16 steps. The last segment is shorter.
        weights = jnp.zeros(3)
        for _, batches in arsrc.iterate(config, num_batches=16):
            weights, _ = train_segment(weights, batches)
        print("in segments of 16 batches:", shown(weights))


if __name__ == "__main__":
    main()
