"""Find the records behind a loss spike from the step number alone, and train on without them.

A few records of the data are mislabelled. Whenever the loss jumps, the state of that step is computed from its
number, the records of its batch are looked at, and training goes on from the last checkpoint before the jump
with the bad ones excluded. All other records keep their places in the order. Where documents are packed, a row
holds pieces of several records: `origin` says which. The last lines are

    found all bad records: 271 828 1414 1618 1732
    all others are served at the same step and in the same row as before
    row 88 is packed from
      text-00001-of-00002.array_record, record 59, tokens 15 to 66
      text-00001-of-00002.array_record, record 60, tokens 0 to 75
    row 53 is packed from
      text-00000-of-00002.array_record, record 96, tokens 16 to 41
      text-00000-of-00002.array_record, record 97, tokens 0 to 44
      text-00000-of-00002.array_record, record 98, tokens 0 to 56
"""

import dataclasses
import functools
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import arsrc
from arsrc.codecs import Ragged, Struct

CODEC = Struct({"x": ("float32", 8), "y": "float32"})
NUM_RECORDS = 2000
BAD = [271, 828, 1414, 1618, 1732]
NUM_STEPS = 160  # four epochs
CHECKPOINT_EVERY = 20


def write_data(path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(NUM_RECORDS, 8)).astype(np.float32)
    y = x.sum(1) + 0.1 * rng.normal(size=NUM_RECORDS)
    y[BAD] = 999  # what somebody wrote for "unknown"
    arsrc.write_array_record(path, {"x": x, "y": y}, codec=CODEC)


def squared_errors(weights, data):
    return (data["x"] @ weights - data["y"]) ** 2


@functools.partial(jax.jit, static_argnums=0)
def train(config, state, weights):
    """Train until the next checkpoint; return state, weights and the loss of each step."""

    def train_step(weights, batch):
        def loss_fn(weights):
            # Excluded records arrive as rows of padding.
            return jnp.mean(squared_errors(weights, batch.data), where=batch.mask)

        loss, grad = jax.value_and_grad(loss_fn)(weights)
        return weights - 0.05 * grad, loss

    return arsrc.scan_steps(config, state, weights, train_step, CHECKPOINT_EVERY)


def find_spike(losses):
    """Return the number of the first step whose loss is far above the smallest one before it, or None."""
    smallest = np.minimum.accumulate(losses)
    spikes = np.flatnonzero(losses[1:] > 20 * smallest[:-1]) + 1
    return int(spikes[0]) if len(spikes) else None


def find_bad_records(config, step, weights):
    """Return the ids of the records of one step that do not fit; nothing of that step was kept."""
    state = arsrc.state_at(config, step)
    ids = arsrc.record_ids(config, state)
    batch = arsrc.take(config, ids)
    errors = np.asarray(squared_errors(weights, batch.data))
    rows = np.flatnonzero(batch.mask & (errors > 100 * np.median(errors)))
    for row in rows:
        x, y = batch.data["x"][row], batch.data["y"][row]
        shown = " ".join(f"{value:.1f}" for value in x)
        print(f"  record {ids[row]}: y = {y:.1f}, and {x @ weights:.1f} predicted from x = {shown}")
    return [int(ids[row]) for row in rows]


def show_packed_rows(folder):
    """Print which documents the rows of one step hold, and which tokens of each."""
    rng = np.random.default_rng(0)
    documents = [rng.integers(2**16, size=length, dtype=np.uint16) for length in rng.integers(40, 100, 200)]
    records = [document.astype("<u2").tobytes() for document in documents]
    paths = arsrc.write_array_record(folder / "text", records, num_shards=2)
    config = arsrc.ArrayRecordSourceConfig(
        paths, batch_size=2, codec=Ragged("uint16", max_length=100), shuffle_records=True, pack=arsrc.Packing(128)
    )
    batch = arsrc.peek(config, arsrc.state_at(config, 10))
    for row, pieces in enumerate(arsrc.origin(config, batch.record_ids)):
        print(f"row {batch.record_ids[row]} is packed from")
        for segment, piece in enumerate(pieces, start=1):
            tokens = batch.data["tokens"][row][batch.data["segment_ids"][row] == segment]
            np.testing.assert_array_equal(tokens, documents[piece.record_id][piece.start : piece.stop])
            print(f"  {Path(piece.path).name}, record {piece.position}, tokens {piece.start} to {piece.stop - 1}")


def main():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.array_record"
        write_data(path)
        original = config = arsrc.ArrayRecordSourceConfig(path, batch_size=50, codec=CODEC, shuffle_records=True)

        state, weights, losses = arsrc.init(config), jnp.zeros(8), np.zeros(0)
        found = []
        while len(losses) < NUM_STEPS:
            # `state` and `weights` are the last checkpoint; they are replaced by the next one if all went well.
            later_state, later_weights, more = train(config, state, weights)
            spike = find_spike(np.concatenate([losses, more]))
            if spike is None:
                state, weights, losses = later_state, later_weights, np.concatenate([losses, more])
                print(f"step {len(losses)}: loss {losses[-1]:.4f}")
                continue
            print(f"step {spike}: the loss jumps to {more[spike - len(losses)]:.0f}")
            found += find_bad_records(config, spike, weights)
            arsrc.close(config)
            config = dataclasses.replace(config, exclude=found)
            print(f"going on from step {len(losses)} without", *found)

        assert sorted(found) == BAD
        print("found all bad records:", *sorted(found))
        for step in range(NUM_STEPS):
            before, after = (arsrc.record_ids(c, arsrc.state_at(c, step)) for c in (original, config))
            np.testing.assert_array_equal(after, np.where(np.isin(before, BAD), np.uint32(2**32 - 1), before))
        print("all others are served at the same step and in the same row as before")
        show_packed_rows(Path(folder))


if __name__ == "__main__":
    main()
