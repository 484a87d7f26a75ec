"""Train on files of which some records are bad: masked as they are met, listed, and excluded from then on.

scikit-learn's digits are written as compressed records, as pictures are. Two of these were cut short before, which the
codec finds; two are changed in the files, which the files' own hashes show when they are first read. The last lines are

    found all bad records: 271 828 1414 1618
    excluded from the first step on, they leave the same weights, bit for bit
"""

import dataclasses
import functools
import tempfile
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import arsrc
from arsrc.codecs import Map

CUT, CHANGED = [271, 1414], [828, 1618]
BAD = sorted(CUT + CHANGED)


def decode(record):
    return {"image": np.frombuffer(zlib.decompress(record[1:]), np.uint8), "label": np.int32(record[0])}


CODEC = Map(decode, {"image": ("uint8", 64), "label": "int32"})


def write_data(folder):
    """Write the digits to two files, bad ones among them; return the paths."""
    images, labels = load_digits(return_X_y=True)
    records = [bytes([y]) + zlib.compress(x) for x, y in zip(images.astype(np.uint8), labels, strict=True)]
    for i in CUT:
        records[i] = records[i][:20]
    paths = arsrc.write_array_record(folder / "train", records, num_shards=2, options="group_size:1,zstd")
    for path in map(Path, paths):
        content = bytearray(path.read_bytes())
        for i in CHANGED:
            if (place := content.find(records[i])) >= 0:  # zstd keeps what zlib has compressed as it is
                content[place + 10] ^= 1
        path.write_bytes(content)
    return paths


@functools.partial(jax.jit, static_argnums=0)
def train(config, state, weights):
    """Train for three epochs; return state, weights and the loss of each step."""

    def train_step(weights, batch):
        def loss_fn(weights):
            scores = jax.nn.log_softmax(batch.data["image"] / 16 @ weights)
            losses = -jnp.take_along_axis(scores, batch.data["label"][:, None], axis=1)
            # Bad records arrive as rows of zeros, which must not count.
            return jnp.sum(losses[:, 0] * batch.mask) / batch.mask.sum()

        loss, grad = jax.value_and_grad(loss_fn)(weights)
        return weights - 0.5 * grad, loss

    return arsrc.scan_steps(config, state, weights, train_step, 3 * arsrc.steps_per_epoch(config))


def main():
    with tempfile.TemporaryDirectory() as folder:
        paths = write_data(Path(folder))
        config = arsrc.ArrayRecordSourceConfig(
            paths,
            64,
            CODEC,
            shuffle_records=True,
            remainder="pad",
            num_epochs=6,
            read=arsrc.ReadOptions(checksum="first"),
        )
        met = None
        try:
            for _ in arsrc.iterate(config):  # ends at the first bad record: on_bad_record="raise" is the default
                pass
        except arsrc.ArsrcError as error:
            met = error.record_id
            step = arsrc.locate(config, arsrc.init(config), met) // config.batch_size
            print(f"step {step} fails: record {met}, at {error.position} in {Path(error.path).name}")
        assert met in BAD

        masking = dataclasses.replace(config, on_bad_record="mask")
        begin = arsrc.init(config), jnp.zeros((64, 10))
        state, weights, losses = train(masking, *begin)
        print(f"epoch {state.epoch}: loss {losses[-1]:.4f}, with bad records masked:")
        bad = arsrc.bad_records(masking)
        for i, path, position, reason in zip(bad.ids, bad.paths, bad.positions, bad.reasons, strict=True):
            print(f"  {i}, at {position} in {Path(path).name}: {reason}")

        # From here on, any further bad record is an error. All others keep their places in the order.
        excluding = dataclasses.replace(config, exclude=bad.ids)
        later_state, _, losses = train(excluding, state, weights)
        print(f"epoch {later_state.epoch}: loss {losses[-1]:.4f}, without them")
        assert list(bad.ids) == BAD
        print("found all bad records:", *bad.ids)
        np.testing.assert_array_equal(train(excluding, *begin)[1], weights)
        print("excluded from the first step on, they leave the same weights, bit for bit")


if __name__ == "__main__":
    main()
