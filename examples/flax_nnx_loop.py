"""Train a Flax NNX network in both loops: epochs as compiled scans, and a Python loop around a jitted step.

A small network with batch normalisation tells two rings of noisy points apart. The first epochs are scans inside
`nnx.jit`: network and optimizer go through them as one PyTree, which `nnx.split` makes of them and `nnx.merge` makes
them of. The rest is a Python loop, which goes on where the last scan ended. The last line is

    1000 of 1000 points right, after 512 steps in scans and 512 in a Python loop
"""

import itertools
import tempfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import arsrc
from arsrc.codecs import Struct

CODEC = Struct({"x": ("float32", 2), "label": "int32"})
EPOCHS = 4  # in each of the loops


def write_rings(path, num_points, seed):
    """Write points of two rings, around one middle."""
    rng = np.random.default_rng(seed)
    label = rng.integers(2, size=num_points, dtype=np.int32)
    radius = 1.0 + label + rng.uniform(-0.25, 0.25, num_points)
    angle = rng.uniform(0, 2 * np.pi, num_points)
    x = np.stack((radius * np.cos(angle), radius * np.sin(angle)), axis=1).astype(np.float32)
    arsrc.write_array_record(path, {"x": x, "label": label}, codec=CODEC)


class Network(nnx.Module):
    """One hidden layer, normalised."""

    def __init__(self, rngs):
        self.hidden = nnx.Linear(2, 32, rngs=rngs)
        self.norm = nnx.BatchNorm(32, rngs=rngs)
        self.out = nnx.Linear(32, 2, rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.relu(self.norm(self.hidden(x))))


def train_step(network, optimizer, batch):
    """Update network and optimizer in place, as NNX does; return the loss."""

    def loss_of(network):
        logits = network(batch.data["x"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch.data["label"]).mean()

    loss, gradients = nnx.value_and_grad(loss_of)(network)
    optimizer.update(network, gradients)
    return loss


jitted_step = nnx.jit(train_step)


@nnx.jit(static_argnames="config")
def train_epoch(network, optimizer, state, config):
    """One epoch as one scan. The source's state goes in and comes out; NNX keeps what it does to the others."""
    graph, tree = nnx.split((network, optimizer))

    def body(tree, batch):
        network, optimizer = nnx.merge(graph, tree)
        loss = train_step(network, optimizer, batch)
        return nnx.state((network, optimizer)), loss

    state, tree, losses = arsrc.scan_epoch(config, state, tree, body)
    nnx.update((network, optimizer), tree)
    return state, losses.mean()


def main():
    with tempfile.TemporaryDirectory() as folder:
        train_path, test_path = Path(folder) / "train.array_record", Path(folder) / "test.array_record"
        write_rings(train_path, 8192, seed=0)
        write_rings(test_path, 1000, seed=1)
        config = arsrc.ArrayRecordSourceConfig(train_path, batch_size=64, codec=CODEC, shuffle_records=True)
        steps = arsrc.steps_per_epoch(config)

        network = Network(nnx.Rngs(0))
        optimizer = nnx.Optimizer(network, optax.adam(1e-2), wrt=nnx.Param)
        state = arsrc.init(config)
        for epoch in range(EPOCHS):
            state, loss = train_epoch(network, optimizer, state, config)
            print(f"epoch {epoch} in a scan: loss {loss:.4f}")
        batches = arsrc.iterate(config, state)
        for epoch in range(EPOCHS, 2 * EPOCHS):
            # With each batch comes the state behind it, which would be saved with the network.
            losses = [jitted_step(network, optimizer, batch) for _, batch in itertools.islice(batches, steps)]
            print(f"epoch {epoch} in a loop: loss {jnp.stack(losses).mean():.4f}")

        network.eval()  # averages of the batches normalise from here on
        test = arsrc.ArrayRecordSourceConfig(test_path, batch_size=1000, codec=CODEC)
        _, batch = arsrc.next_batch(test, arsrc.init(test))
        num_right = (network(batch.data["x"]).argmax(axis=-1) == batch.data["label"]).sum()
    num_steps = EPOCHS * steps
    points = f"{num_right} of {len(batch.mask)} points right"
    print(f"{points}, after {num_steps} steps in scans and {num_steps} in a Python loop")


if __name__ == "__main__":
    main()
