"""Convert TFRecord files by the command line, without TensorFlow, and train on what comes of it.

scikit-learn's 1,797 digits are written as a TFRecord file of `tf.train.Example` messages, as they stand in countless
data sets. `arsrc convert` makes an ArrayRecord file of it, verifies every checksum, and says by which codec it is read;
then a small network is trained on its features. The last line is

    accuracy 0.9917 on the 360 digits that were not trained on

with an accuracy above 0.96 on any machine.

    python examples/from_tfrecord.py --output outputs
"""

import argparse
import struct
import subprocess
import sys
from pathlib import Path

import google_crc32c
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import arsrc
from arsrc.codecs import TFExample

CODEC = TFExample({"image": ("uint8", (8, 8)), "label": "int32"})
NUM_TEST = 360


def write_tfrecord(path):
    """Write the digits as TensorFlow's TFRecordWriter would: each message with its length, and checksums of both."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))  # they come sorted by who wrote them
    images, labels = digits.images.astype(np.uint8)[order], digits.target.astype(np.int32)[order]
    examples = CODEC.encode({"image": images, "label": labels})
    with path.open("wb") as file:
        for row in range(len(examples)):
            length = struct.pack("<Q", len(examples[row]))
            file.write(length + masked_crc(length) + examples[row] + masked_crc(examples[row]))


def masked_crc(data):
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def logits(params, images):
    x = images.reshape(-1, 64).astype(jnp.float32) / 16  # a pixel counts the dark ones of 16
    return jax.nn.relu(x @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("outputs"), help="folder for the files")
    folder = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    source, target = folder / "digits.tfrecord", folder / "digits.array_record"
    write_tfrecord(source)
    subprocess.run([sys.executable, "-m", "arsrc", "convert", source, target, "--overwrite"], check=True)

    # The last records are for testing: a slice is a data set of its own.
    num_train = arsrc.num_records(arsrc.ArrayRecordSourceConfig(target, batch_size=1, codec=CODEC)) - NUM_TEST
    train = arsrc.ArrayRecordSourceConfig(f"{target}[:{num_train}]", batch_size=32, codec=CODEC, shuffle_records=True)
    test = arsrc.ArrayRecordSourceConfig(f"{target}[{num_train}:]", batch_size=NUM_TEST, codec=CODEC)

    key1, key2 = jax.random.split(jax.random.key(0))
    weights = jax.nn.initializers.he_normal()
    params = {"w1": weights(key1, (64, 128)), "b1": jnp.zeros(128), "w2": weights(key2, (128, 10)), "b2": jnp.zeros(10)}
    optimizer = optax.adam(2e-3)

    def step(carry, batch):
        params, opt_state = carry

        def loss_fn(params):
            found = logits(params, batch.data["image"])
            return optax.softmax_cross_entropy_with_integer_labels(found, batch.data["label"]).mean()

        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    train_epoch = jax.jit(lambda state, carry: arsrc.scan_epoch(train, state, carry, step))
    state, carry = arsrc.init(train), (params, optimizer.init(params))
    for _ in range(20):
        state, carry, losses = train_epoch(state, carry)
    print(f"loss {losses.mean():.3f} after {state.epoch} epochs")

    batch = arsrc.peek(test, arsrc.init(test))
    accuracy = (logits(carry[0], batch.data["image"]).argmax(axis=-1) == batch.data["label"]).mean()
    print(f"accuracy {accuracy:.4f} on the {NUM_TEST} digits that were not trained on")


if __name__ == "__main__":
    main()
