"""Train a convolutional network on a TFDS folder of JPEGs, without TensorFlow.

Pieces of three photos are written as JPEGs in `tf.train.Example` records, in a folder like those that
tensorflow-datasets makes: from the left of the photos for training, from the right for testing. `tfds.source` reads
it; pictures are flipped and lit anew in each epoch by `record_keys`; the network is Flax NNX. Needs no download and no
accelerator. The last two lines are

    test accuracy 0.9972 (359 of 360 pieces)
    wrote outputs/photos.png

with an accuracy above 0.85 whatever the seed. The picture shows pieces with the photo that the network takes them for.

    python examples/train_images.py --epochs 6 --seed 0 --output outputs
"""

import argparse
import itertools
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import optax
from flax import nnx
from matplotlib import get_data_path
from matplotlib.figure import Figure
from sklearn.datasets import load_sample_images

import arsrc
from arsrc import tfds
from arsrc.codecs import Image, TFExample

SIDE = 32
PHOTOS = ("temple", "flower", "portrait")
NUM_RECORDS = {"train": 1200, "test": 360}
NUM_SHARDS = {"train": 4, "test": 1}
PYTHON = "tensorflow_datasets.core.features"
FEATURES = {
    "pythonClassName": f"{PYTHON}.features_dict.FeaturesDict",
    "featuresDict": {
        "features": {
            "image": {
                "pythonClassName": f"{PYTHON}.image_feature.Image",
                "image": {
                    "shape": {"dimensions": ["-1", "-1", "3"]},  # of any size
                    "dtype": "uint8",
                    "encodingFormat": "jpeg",
                },
            },
            "label": {
                "pythonClassName": f"{PYTHON}.class_label_feature.ClassLabel",
                "classLabel": {"numClasses": str(len(PHOTOS))},
            },
        }
    },
}


def cut_pieces(split, rng):
    """Yield pieces of any size and the number of their photo: of its left two thirds to train, of the rest to test."""
    portrait = matplotlib.image.imread(f"{get_data_path()}/sample_data/grace_hopper.jpg")
    parts = []
    for photo in [*load_sample_images().images, portrait]:
        edge = photo.shape[1] * 2 // 3
        parts.append(photo[:, :edge] if split == "train" else photo[:, edge:])
    for _ in range(NUM_RECORDS[split]):
        label = rng.integers(len(parts))
        part, size = parts[label], rng.integers(64, 120)
        top, left = (rng.integers(extent - size) for extent in part.shape[:2])
        yield part[top : top + size, left : left + size], label


def write_folder(folder):
    """Write a data set as tensorflow-datasets lays it out: record files, and files that describe them."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    splits = []
    for split, count in NUM_RECORDS.items():
        records = []
        for piece, label in cut_pieces(split, rng):
            codec = TFExample({"image": Image(piece.shape), "label": "int64"})
            records.append(codec.encode({"image": piece[None], "label": np.array([label])})[0])
        shards = NUM_SHARDS[split]
        arsrc.write_array_record(folder / f"photos-{split}.array_record", records, num_shards=shards)
        splits.append(
            {
                "name": split,
                "filepathTemplate": "{DATASET}-{SPLIT}-{SHARD_X_OF_Y}.{FILEFORMAT}"
                if shards > 1
                else "{DATASET}-{SPLIT}.{FILEFORMAT}",
                "shardLengths": [str(count // shards)] * shards,
            }
        )
    info = {"name": "photos", "version": "1.0.0", "fileFormat": "array_record", "splits": splits}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (folder / "features.json").write_text(json.dumps(FEATURES))
    (folder / "label.labels.txt").write_text("\n".join(PHOTOS))


class Network(nnx.Module):
    """Three convolutions, each of half the size, and a linear layer."""

    def __init__(self, rngs):
        sizes = (3, 16, 32, 64)
        self.convs = nnx.List([nnx.Conv(*pair, (3, 3), strides=2, rngs=rngs) for pair in itertools.pairwise(sizes)])
        self.head = nnx.Linear(64, len(PHOTOS), rngs=rngs)

    def __call__(self, images):
        x = images.astype(jnp.float32) / 127.5 - 1
        for conv in self.convs:
            x = nnx.relu(conv(x))
        return self.head(x.mean(axis=(1, 2)))


def augment(key, image):
    """Flip a picture, or not, and light it anew: as its own key says."""
    flip, light = jax.random.split(key)
    image = jnp.where(jax.random.bernoulli(flip), image[:, ::-1], image).astype(jnp.float32)
    return jnp.clip(image * jax.random.uniform(light, (), minval=0.7, maxval=1.3), 0, 255)


@nnx.jit
def train_step(network, optimizer, batch, keys):
    images = jax.vmap(augment)(keys, batch.data["image"])

    def loss_of(network):
        return optax.softmax_cross_entropy_with_integer_labels(network(images), batch.data["label"]).mean()

    loss, gradients = nnx.value_and_grad(loss_of)(network)
    optimizer.update(network, gradients)
    return loss


@nnx.jit
def guess(network, batch):
    return network(batch.data["image"]).argmax(axis=-1)


def evaluate(network, config):
    """Return what each record is taken for, in their order, and which guesses are right."""
    guesses, right = [], []
    for _, batch in arsrc.iterate(config):  # each record once; the last batch is filled up
        found = guess(network, batch)
        guesses.append(np.asarray(found)[np.asarray(batch.mask)])
        right.append(np.asarray(found == batch.data["label"])[np.asarray(batch.mask)])
    return np.concatenate(guesses), np.concatenate(right)


def draw(path, pictures, names, guesses, right):
    """Save pictures with what they were taken for, the wrong ones first."""
    figure = Figure(figsize=(9, 5), layout="constrained", facecolor="white")
    figure.suptitle(f"{(~right).sum()} of {len(right)} pieces were taken for another photo's", x=0.02, ha="left")
    shown = np.argsort(right, kind="stable")
    for axes, i in zip(figure.subplots(4, 8).flat, shown, strict=False):
        axes.imshow(pictures[i])
        axes.set_axis_off()
        axes.set_title(names[guesses[i]], fontsize=9, pad=3, color="black" if right[i] else "tab:red")
    figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=6, help="passes over the training pieces")
    parser.add_argument("--seed", type=int, default=0, help="of the network, the order and the augmentation")
    parser.add_argument("--output", type=Path, default=Path("outputs"), help="folder for data and picture")
    args = parser.parse_args()

    folder = args.output / "photos" / "1.0.0"
    write_folder(folder)
    names = tfds.info(folder).features["label"].class_names
    features = {"image": Image((SIDE, SIDE, 3))}  # all of one size, whatever that of the JPEG is
    train = tfds.source(folder, "train", batch_size=32, features=features, seed=args.seed, shuffle_records=True)
    test = tfds.source(folder, "test", batch_size=64, features=features, num_epochs=1, remainder="pad")

    network = Network(nnx.Rngs(args.seed))
    rate = optax.cosine_decay_schedule(3e-3, args.epochs * arsrc.steps_per_epoch(train))
    optimizer = nnx.Optimizer(network, optax.adam(rate), wrt=nnx.Param)
    state = arsrc.init(train)
    for epoch in range(1, args.epochs + 1):
        start, losses = time.perf_counter(), []
        batches = arsrc.iterate(train, state)
        for state, batch in itertools.islice(batches, arsrc.steps_per_epoch(train)):
            losses.append(train_step(network, optimizer, batch, arsrc.record_keys(train, state, batch)))
        guesses, right = evaluate(network, test)
        seconds = time.perf_counter() - start
        print(f"epoch {epoch}: loss {np.mean(losses):.4f}, accuracy {right.mean():.4f}, {seconds:.1f} s")

    picture = args.output / "photos.png"
    draw(picture, np.asarray(arsrc.take(test, range(len(right))).data["image"]), names, guesses, right)
    print(f"test accuracy {right.mean():.4f} ({right.sum()} of {len(right)} pieces)")
    print(f"wrote {picture}")


if __name__ == "__main__":
    main()
