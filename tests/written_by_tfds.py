"""Writes an archive of a folder that tensorflow-datasets wrote, with what it reads out of it and makes of splits.

    python tests/written_by_tfds.py tests/golden/written_by_tfds.zip

Needs tensorflow-datasets and what reads pictures for it, opencv-python-headless. In the archive:

    numbers/1.2.0/   the folder
    elements.npz     what TFDS reads of all splits, by the features' names, nested ones joined by "/"
    splits.json      expressions, and for each the records that TFDS reads, by the feature "number", or null: an error
    older.json       the features in the two older forms of `features.json`: all, and sequences alone
"""

import itertools
import json
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

F = tfds.features

FEATURES = {
    "number": np.int32,
    "image": F.Image(shape=(4, 5, 3), encoding_format="png"),
    "depth": F.Image(shape=(3, 4, 1), dtype=np.uint16, encoding_format="png"),
    "mask": F.LabeledImage(labels=["sky", "sea"], shape=(3, 4, 1)),
    "photo": F.Image(encoding_format="png"),
    "label": F.ClassLabel(names=["cat", "dog", "bird"]),
    "digit": F.ClassLabel(num_classes=10),
    "flag": np.bool_,
    "small": np.uint8,
    "huge": np.uint64,
    "double": F.Scalar(np.float64),
    "half": F.Tensor(shape=(2,), dtype=np.float16),
    "matrix": F.Tensor(shape=(2, 3), dtype=np.float32),
    "raw": F.Tensor(shape=(2, 3), dtype=np.int16, encoding="bytes"),
    "raw_scalar": F.Tensor(shape=(), dtype=np.float32, encoding="bytes"),
    "box": F.BBoxFeature(),
    "three": F.Sequence(np.int32, length=3),
    "pair": F.Sequence(F.ClassLabel(names=["x", "y"]), length=2),
    "boxes": F.Sequence(F.BBoxFeature(), length=2),
    "place": {
        "city": F.ClassLabel(names=["rome", "oslo"]),
        "at": {"x": np.float32, "size": F.Tensor(shape=(2,), dtype=np.int64)},
    },
    "maybe": F.Scalar(np.int32, optional=True),
    # without a fixed shape
    "name": F.Text(),
    "any": F.Sequence(np.int32),
    "open": F.Tensor(shape=(None, 2), dtype=np.int32),
    "objects": F.Sequence({"box": F.BBoxFeature(), "label": F.ClassLabel(names=["p", "q"])}),
    "grid": F.Tensor(shape=(None, None), dtype=np.int16, encoding="bytes"),
    "twice": F.Sequence(F.Sequence(np.int32)),
    # stored in ways that are not read
    "zipped": F.Tensor(shape=(2,), dtype=np.int16, encoding="zlib"),
    "words": F.Tensor(shape=(2,), dtype=np.str_),
    "images": F.Sequence(F.Image(shape=(2, 2, 3)), length=2),
    "raws": F.Sequence(F.Tensor(shape=(2,), dtype=np.int16, encoding="bytes"), length=2),
    "floats": F.Image(shape=(2, 2, 1), dtype=np.float32, encoding_format="png"),
    "video": F.Video(shape=(2, 2, 2, 3)),
    "audio": F.Audio(),
    "languages": F.Translation(languages=["en", "de"]),
    "steps": F.Dataset({"a": np.int32}),
}  # fmt: skip


def example(number: int) -> dict:
    rng = np.random.default_rng(number)

    def few(*shape: int, dtype: type = np.uint8, most: int = 200) -> np.ndarray:
        return rng.integers(0, most, shape).astype(dtype)

    box = F.BBox(0.25, 0.5, 0.75, (number % 8 + 1) / 8 * 0.5 + 0.5)
    return {
        "number": number,
        "image": few(4, 5, 3),
        "depth": few(3, 4, 1, dtype=np.uint16, most=60_000),
        "mask": few(3, 4, 1, most=2),
        "photo": few(3, 2, 3),
        "label": number % 3,
        "digit": number % 10,
        "flag": number % 2 == 0,
        "small": 255 - number,
        "huge": 2**62 + number,
        "double": number / 3,
        "half": np.array([number, 0.5], np.float16),
        "matrix": few(2, 3, dtype=np.float32) / 7,
        "raw": few(2, 3, dtype=np.int16) - np.int16(100),
        "raw_scalar": np.float32(number / 7),
        "box": box,
        "three": few(3, dtype=np.int32),
        "pair": [number % 2, 1],
        "boxes": [box, box],
        "place": {"city": number % 2, "at": {"x": number / 2, "size": few(2, dtype=np.int64)}},
        "maybe": None if number % 2 else number,
        "name": f"n\u00e4me {number}",
        "any": few(number % 4, dtype=np.int32),
        "open": few(number % 3, 2, dtype=np.int32),
        "objects": [{"box": box, "label": i % 2} for i in range(number % 3)],
        "grid": few(number % 2 + 1, 2, dtype=np.int16),
        "twice": [few(i, dtype=np.int32) for i in range(number % 3)],
        "zipped": few(2, dtype=np.int16),
        "words": ["a", "b"],
        "images": few(2, 2, 2, 3),
        "raws": few(2, 2, dtype=np.int16),
        "floats": few(2, 2, 1, dtype=np.float32),
        "video": few(2, 2, 2, 3),
        "audio": np.arange(3),
        "languages": {"en": "a", "de": "b"},
        "steps": [{"a": 1}, {"a": 2}],
    }


class Numbers(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.2.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(builder=self, features=F.FeaturesDict(FEATURES))

    def _split_generators(self, _):
        ranges = {"train": range(11), "test": range(100, 103), "extra-part": range(200, 204)}
        return {name: ((number, example(number)) for number in numbers) for name, numbers in ranges.items()}

    def _generate_examples(self):
        raise NotImplementedError


def expressions() -> list[str]:
    ends = ["", "0", "1", "3", "11", "12", "-1", "-4", "-11", "-12", "1_0", "1.5"]
    percents = ["", "0%", "5%", "13.7%", "50%", "100%", "101%", "-5%", "-50%", "-100%", "4.5%"]
    shards = ["", "1shard", "2shard", "3shard", "-1shard", "-2shard"]
    slices = [f"train[{a}:{b}]" for side in (ends, percents, shards) for a, b in itertools.product(side, side)]
    slices += [
        "train[1shard]",
        "train[-1shard]",
        "train[0shard]",
        "train[2]",
        "train[5%]",
        "train[10:50%]",
        "train[1:2:3]",
    ]
    names = [
        "train",
        "test",
        "extra-part",
        "all",
        "all[:1]",
        "none",
        "",
        "train+test",
        "test + train[:2]",
        "train[",
        "train[a:]",
    ]
    sums = ["train[:30%]+test[50%:]", "train+train", "test[:1]+test[2:]+extra-part", "train+", "all+test", "train test"]
    return [*slices, *names, *sums]


def numbers_of(builder: tfds.core.DatasetBuilder, split, numbers: dict[tuple[str, int], int]) -> list[int] | None:
    """The records that TFDS reads; none where it reads nothing, or raises."""
    try:
        pieces = builder.info.splits[split].file_instructions
    except (AssertionError, NotImplementedError, ValueError, KeyError):
        return None
    found = []
    for piece in pieces:
        stop = piece.examples_in_shard if piece.take == -1 else piece.skip + piece.take
        found += [numbers[Path(piece.filename).name, place] for place in range(piece.skip, stop)]
    return found or None


def flat(tree, name: str = "") -> dict[str, np.ndarray]:
    if isinstance(tree, dict):
        return {
            key: leaf for k, inner in tree.items() for key, leaf in flat(inner, f"{name}/{k}" if name else k).items()
        }
    return {name: tree}


NOT_READ = ("zipped", "words", "images", "raws", "floats", "video", "audio", "languages", "steps")


def read_elements(builder: tfds.core.DatasetBuilder) -> dict[str, np.ndarray]:
    """What TFDS reads of all splits, in order: an array of each feature, flat and with lengths where sizes vary."""
    features = F.FeaturesDict({name: feature for name, feature in FEATURES.items() if name not in NOT_READ})
    dtypes = flat(features.np_dtype)  # Python's own numbers stand for scalars
    columns: dict[str, list] = {}
    for split in builder.info.splits:
        for record in builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES):
            for name, leaf in flat(features.deserialize_example_np(record)).items():
                leaf = np.frombuffer(leaf, np.uint8) if isinstance(leaf, bytes) else leaf
                leaf = np.concatenate([[], *leaf]) if name == "twice" else leaf
                leaf = np.iinfo(np.int32).min if leaf is None else leaf  # as its tf.data pipelines have it
                dtype = np.uint8 if name == "name" else dtypes[name]
                columns.setdefault(name, []).append(np.asarray(leaf, dtype))
    found = {}
    for name, leaves in columns.items():
        if len({leaf.shape for leaf in leaves}) == 1:
            found[name] = np.stack(leaves)
        else:
            found[name] = np.concatenate([leaf.reshape(-1) for leaf in leaves])
            found[f"{name}:lengths"] = np.array([leaf.size for leaf in leaves])
    return found


def older_form(feature: dict) -> dict:
    """The form of a feature before version 4.5, which TFDS still reads; as it is where that class had no such form."""
    name = feature["pythonClassName"]
    fields = next((value for key, value in feature.items() if key != "pythonClassName"), {})

    def shape(fields: dict) -> list[int | None]:
        sizes = [int(size) for size in fields["shape"].get("dimensions", [])]
        return [None if size < 0 else size for size in sizes]

    match name.rpartition(".")[2]:
        case "FeaturesDict":
            content = {key: older_form(inner) for key, inner in fields["features"].items()}
        case "Sequence":
            length = int(fields["length"])
            content = {"feature": older_form(fields["feature"]), "length": None if length < 0 else length}
        case "Tensor":
            content = {"shape": shape(fields), "dtype": fields["dtype"], "encoding": fields["encoding"]}
        case "Image":
            encoding = fields.get("encodingFormat")
            content = {"shape": shape(fields), "dtype": fields["dtype"], "encoding_format": encoding}
        case "ClassLabel":
            content = {"num_classes": int(fields["numClasses"])}
        case "Text":
            content = {}
        case _:
            return feature
    return {"type": name, "content": content}


def main(out: str) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        builder = Numbers(data_dir=folder, file_format="array_record")
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=3))
        elements = read_elements(builder)
        np.savez(folder / "elements.npz", **elements)
        places = [
            (name, place)
            for split in builder.info.splits.values()
            for name, size in zip(split.filenames, split.shard_lengths, strict=True)
            for place in range(size)
        ]
        numbers = dict(zip(places, elements["number"].tolist(), strict=True))
        found = {text: numbers_of(builder, text, numbers) for text in expressions()}
        for text, n, drop in itertools.product(["train", "train[1:]+test", "all"], [1, 2, 3, 4, 5], [False, True]):
            parts = tfds.even_splits(text, n, drop_remainder=drop)
            found[f"even {text} {n} {drop}"] = [numbers_of(builder, part, numbers) for part in parts]
        (folder / "splits.json").write_text(json.dumps(found))
        older = {"FeaturesDict": older_form(json.loads((builder.data_path / "features.json").read_text()))}
        older["Sequence"] = json.loads((builder.data_path / "features.json").read_text())
        older["Sequence"]["featuresDict"]["features"] |= {
            name: {"pythonClassName": old["type"], "jsonFeature": {"json": json.dumps(old["content"])}}
            for name, old in older["FeaturesDict"]["content"].items()
            if old.get("type", "").endswith(".Sequence")
        }
        for form in older.values():
            assert repr(F.FeaturesDict.from_json(json.loads(json.dumps(form)))) == repr(F.FeaturesDict(FEATURES))
        (folder / "older.json").write_text(json.dumps(older))
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as zipped:
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    zipped.writestr(
                        zipfile.ZipInfo(str(path.relative_to(folder))), path.read_bytes(), zipfile.ZIP_DEFLATED
                    )


if __name__ == "__main__":
    main(sys.argv[1])
