"""Train an Equinox network in both loops, save it with the source's state, and resume it.

A small network learns a sine. The first epoch is a scan inside `eqx.filter_jit`, whose carry are the arrays of the
network; the rest is a Python loop around a step. In the middle of an epoch, everything is saved to one file, from which
another run starts. The last lines are

    resumed at step 200, record 4608 of epoch 1
    400 steps: the same network, bit for bit
"""

import itertools
import json
import tempfile
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import arsrc
from arsrc.codecs import Struct

CODEC = Struct({"x": ("float32", 1), "y": ("float32", 1)})
OPTIMIZER = optax.adam(1e-2)
SAVE_AT, NUM_STEPS = 200, 400


def new_network():
    """Return a network and the state of its optimizer."""
    network = eqx.nn.MLP(1, 1, width_size=32, depth=2, key=jax.random.key(0))
    return network, OPTIMIZER.init(eqx.filter(network, eqx.is_array))


def update(network, optimizer_state, batch):
    @eqx.filter_value_and_grad
    def loss_and_gradients(network):
        return jnp.mean((jax.vmap(network)(batch.data["x"]) - batch.data["y"]) ** 2)

    loss, gradients = loss_and_gradients(network)
    updates, optimizer_state = OPTIMIZER.update(gradients, optimizer_state)
    return eqx.apply_updates(network, updates), optimizer_state, loss


train_step = eqx.filter_jit(update)


@eqx.filter_jit
def train_epoch(config, state, network, optimizer_state):
    """One epoch as one scan. A config is no array: `filter_jit` takes it as static, and `partition` the activations."""
    arrays, static = eqx.partition(network, eqx.is_array)

    def body(carry, batch):
        arrays, optimizer_state = carry
        network, optimizer_state, loss = update(eqx.combine(arrays, static), optimizer_state, batch)
        return (eqx.filter(network, eqx.is_array), optimizer_state), loss

    state, (arrays, optimizer_state), losses = arsrc.scan_epoch(config, state, (arrays, optimizer_state), body)
    return state, eqx.combine(arrays, static), optimizer_state, losses.mean()


def train_until(step, config, state, network, optimizer_state):
    """Train in a Python loop until so many steps are done in all."""
    num_steps = step - int(arsrc.step_of(config, state))
    batches = itertools.islice(arsrc.iterate(config, state), num_steps)
    for state, batch in batches:  # noqa: B007 - the last one is returned
        network, optimizer_state, loss = train_step(network, optimizer_state, batch)
    print(f"step {step}: loss {loss:.4f}")
    return state, network, optimizer_state


def save(path, config, state, network, optimizer_state):
    """Write a line of JSON, and the leaves behind it: Equinox serialises arrays, but no typed PRNG keys."""
    with path.open("wb") as file:
        file.write(json.dumps(arsrc.to_state_dict(config, state)).encode() + b"\n")
        eqx.tree_serialise_leaves(file, (network, optimizer_state))


def restore(path, config):
    """Return state, network and optimizer's state; other data or another order than was saved is an error."""
    with path.open("rb") as file:
        state = arsrc.from_state_dict(config, json.loads(file.readline()))
        return state, *eqx.tree_deserialise_leaves(file, new_network())


def main():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sine.array_record"
        x = np.linspace(-3, 3, 8192, dtype=np.float32)[:, None]
        arsrc.write_array_record(path, {"x": x, "y": np.sin(x)}, codec=CODEC)
        config = arsrc.ArrayRecordSourceConfig(path, batch_size=64, codec=CODEC, shuffle_records=True)

        state, network, optimizer_state, loss = train_epoch(config, arsrc.init(config), *new_network())
        print(f"step {arsrc.step_of(config, state)}: loss {loss:.4f} on average, in a scan")
        saved = train_until(SAVE_AT, config, state, network, optimizer_state)
        checkpoint = Path(folder) / "checkpoint.eqx"
        save(checkpoint, config, *saved)
        _, network, _ = train_until(NUM_STEPS, config, *saved)

        restored = restore(checkpoint, config)
        _, again, _ = train_until(NUM_STEPS, config, *restored)
        state = restored[0]
        print(f"resumed at step {arsrc.step_of(config, state)}, record {state.index} of epoch {state.epoch}")
    outcome = "the same network, bit for bit" if eqx.tree_equal(network, again) else "another network"
    print(f"{NUM_STEPS} steps: {outcome}")


if __name__ == "__main__":
    main()
