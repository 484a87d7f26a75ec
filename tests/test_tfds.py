"""Folders of TFDS: what is read out of them is what tensorflow-datasets reads, in records, splits and features."""

import importlib.util
import json
import logging
import pickle
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from fault_systems import Hanging, Injecting, Nth, failing
from hypothesis import given
from hypothesis import strategies as st

import arsrc
from arsrc import ReadOptions, tfds
from arsrc._host.storage import system
from arsrc.codecs import Bytes, Image, Map, Ragged, RecordBatch, TFExample
from arsrc.tfds.codec import codec_of
from arsrc.tfds.features import Feature

KEPT = Path(__file__).parent / "golden" / "written_by_tfds.zip"

# What one has to say of the features that have no fixed shape, to read all that can be read.
SAID: dict[str, Any] = {
    "photo": Image((3, 2, 3), "exact"),
    "name": Ragged("uint8", max_length=20),
    "any": Ragged("int32", max_length=8),
    "open": Ragged("int32", max_length=8),
    "objects/box": Ragged("float32", max_length=8),
    "objects/label": Ragged("int64", max_length=8),
    "grid/value": Ragged("int16", max_length=8),
    "twice/ragged_flat_values": Ragged("int32", max_length=8),
    "twice/ragged_row_lengths_0": None,
}
NOT_READ = ("zipped", "words", "images", "raws", "floats", "video", "audio", "languages", "steps")
SAID |= dict.fromkeys(NOT_READ)
RENAMED = {"grid": "grid/value", "twice": "twice/ragged_flat_values"}


def num_bytes(record: bytes) -> Any:
    return np.int32(len(record))


class Written(NamedTuple):
    """What tensorflow-datasets wrote, and what it reads."""

    folder: Path
    elements: dict[str, np.ndarray]
    splits: dict[str, Any]
    older: Any


@pytest.fixture(scope="module", params=["kept", "fresh"])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder, archive = tmp_path_factory.mktemp("tfds"), KEPT
    if request.param == "fresh":
        if importlib.util.find_spec("tensorflow_datasets") is None:
            pytest.skip("needs tensorflow-datasets")
        archive = folder / "fresh.zip"
        script = Path(__file__).parent / "written_by_tfds.py"
        subprocess.run([sys.executable, str(script), str(archive)], check=True, capture_output=True)
    with zipfile.ZipFile(archive) as zipped:
        zipped.extractall(folder)
    with np.load(folder / "elements.npz") as elements:
        splits, older = (json.loads((folder / f"{name}.json").read_text()) for name in ("splits", "older"))
        return Written(folder / "numbers", dict(elements), splits, older)


@pytest.fixture
def x64() -> Iterator[None]:
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def batch_of(config: arsrc.ArrayRecordSourceConfig) -> Any:
    _, batch = arsrc.next_batch(config, arsrc.init(config))
    return jax.tree.map(np.asarray, batch.data)


def all_of(folder: Path, split: Any = "all", **options: Any) -> Any:
    """All elements of a split, as one batch."""
    config = tfds.source(folder, split, batch_size=1, **options)
    return batch_of(tfds.source(folder, split, batch_size=arsrc.num_records(config), **options))


def at(tree: Any, name: str) -> Any:
    for key in name.split("/"):
        tree = tree[key]
    return tree


# Against tensorflow-datasets.


@pytest.mark.usefixtures("x64")
def test_elements_are_those_that_tfds_reads(written: Written) -> None:
    data = all_of(written.folder, features=SAID)
    names = {name.partition(":")[0] for name in written.elements}
    assert len(names) == 30
    for name in names:
        want, lengths = written.elements[name], written.elements.get(f"{name}:lengths")
        found = at(data, RENAMED.get(name, name))
        if isinstance(found, dict):
            lengths = np.full(len(want), want[0].size) if lengths is None else lengths
            np.testing.assert_array_equal(found["length"], lengths, err_msg=name)
            rows = zip(found["values"], lengths, strict=True)
            found, want = np.concatenate([row[:length] for row, length in rows]), want.reshape(-1)
        else:
            assert found.shape == want.shape, name
        is_exact = name not in ("twice",)  # empty lists have no dtype there
        assert found.dtype == want.dtype or not is_exact, (name, found.dtype, want.dtype)
        np.testing.assert_array_equal(found, want, err_msg=name)


def test_dicts_inside_of_dicts_are_such_dicts_here(written: Written) -> None:
    spec = arsrc.element_spec(tfds.source(written.folder, batch_size=1, features=SAID))
    assert spec["place"].keys() == {"city", "at"}
    assert spec["place"]["at"].keys() == {"x", "size"}


def test_split_expressions_mean_the_records_that_tfds_reads(written: Written) -> None:
    features = dict.fromkeys([name.partition("/")[0] for name in tfds.info(written.folder).features])
    del features["number"]
    numbers = all_of(written.folder, features=features)["number"].tolist()
    order: dict[str, list[int]] = {}
    for path in tfds.source(written.folder, "all", batch_size=1, features=features).paths:
        file, start, stop = re.fullmatch(r"(.*)\[(\d+):(\d+)\]", path).groups()  # type: ignore[union-attr]
        assert int(start) == 0
        order[file], numbers = numbers[: int(stop)], numbers[int(stop) :]
    assert not numbers

    reversed_slices: list[str] = []

    def records(split: Any) -> list[int] | None:
        try:
            config = tfds.source(written.folder, split, batch_size=1, features=features)
        except arsrc.ArsrcValueError as error:
            reversed_slices.extend([split] if "ends before it starts" in str(error) else [])
            return None
        slices = [re.fullmatch(r"(.*)\[(\d+):(\d+)\]", path).groups() for path in config.paths]  # type: ignore[union-attr]
        return [number for file, start, stop in slices for number in order[file][int(start) : int(stop)]]

    assert len(written.splits) > 300
    for text, want in written.splits.items():
        if text.startswith("even "):
            split, n, drop = text.removeprefix("even ").rsplit(" ", 2)
            found: Any = [records(part) for part in tfds.even_splits(split, int(n), drop_remainder=drop == "True")]
        else:
            found = records(text)
        if text not in reversed_slices:  # "[5:3]" is an error here; TFDS reads nothing, or to the end of a shard
            assert found == want, text


def test_even_splits_of_even_splits_are_halves_of_halves(written: Written) -> None:
    halves = tfds.even_splits("train[1:]", 2)
    quarters = [part for half in halves for part in tfds.even_splits(half, 2)]
    features = {**SAID, "huge": None}
    found = [all_of(written.folder, part, features=features)["number"].tolist() for part in quarters]
    assert [len(part) for part in found] == [3, 2, 3, 2]
    assert [number for part in found for number in part] == written.splits["train[1:]"]


@pytest.mark.parametrize("fields", [("train", 0, 0), ("train", 2, 2), ("train", -1, 2), (3, 0, 1), ("train", 0.5, 2)])
def test_parts_of_splits_that_there_cannot_be_are_refused(fields: Any) -> None:
    with pytest.raises(arsrc.ArsrcError, match=r"EvenSplit\.|split: "):
        tfds.EvenSplit(*fields)


def test_info_says_names_sizes_and_classes(written: Written) -> None:
    info = tfds.info(written.folder)
    assert (info.name, info.version, info.folder) == ("numbers", "1.2.0", str(written.folder / "1.2.0"))
    assert info.splits == {"train": 11, "test": 3, "extra-part": 4}
    names = {name: feature.class_names for name, feature in info.features.items() if feature.class_names}
    assert names == {
        "label": ("cat", "dog", "bird"),
        "mask": ("sky", "sea"),
        "pair": ("x", "y"),
        "objects/label": ("p", "q"),
        "place/city": ("rome", "oslo"),
    }
    counts = {name: feature.num_classes for name, feature in info.features.items() if feature.num_classes is not None}
    assert counts == {name: len(each) for name, each in names.items()} | {"digit": 10}
    assert (
        repr(info.features["objects/box"])
        == "Feature(kind='BBoxFeature', dtype='float32', shape=(4,), sequence_lengths=(None,))"
    )
    assert str(info.features["photo"]) == "Image uint8[any, any, 3], png"


@pytest.mark.parametrize("form", ["FeaturesDict", "Sequence"])
def test_features_in_the_forms_of_older_versions_are_the_same(written: Written, tmp_path: Path, form: str) -> None:
    folder = copy_of(written, tmp_path / "2.0.0")
    (folder / "features.json").write_text(json.dumps(written.older[form]))
    found, want = tfds.info(folder).features, tfds.info(written.folder).features
    assert {name: found[name] for name in want} == want


def copy_of(written: Written, folder: Path) -> Path:
    """A folder of links to the files of another one, but for what tells of them, which is copied."""
    folder.mkdir(exist_ok=True)
    for file in (written.folder / "1.2.0").iterdir():
        if file.suffix in (".json", ".txt"):
            (folder / file.name).write_bytes(file.read_bytes())
        else:
            (folder / file.name).symlink_to(file)
    return folder


# Features that have to be said.


def test_the_error_lists_all_features_that_have_to_be_said_and_what_it_says_can_be_used(written: Written) -> None:
    with pytest.raises(arsrc.ArsrcValueError, match="features: 18 features without a fixed shape") as caught:
        tfds.source(written.folder, batch_size=1)
    text = str(caught.value)
    lines = text[text.index("features={") + len("features=") :].rstrip(".")
    lines = lines.replace("height, width", "3, 2").replace("max_length=...", "max_length=20")
    said = eval(lines, {"Image": Image, "Ragged": Ragged})
    assert set(said) == set(SAID)
    assert {name for name in said if said[name] is None} == set(NOT_READ)
    data = all_of(written.folder, "train", features=said | {"huge": None})
    assert data["photo"].shape == (11, 3, 2, 3)
    assert bytes(data["name"]["values"][0][: data["name"]["length"][0]]) == f"n\u00e4me {data['number'][0]}".encode()
    # All but what has been said.
    with pytest.raises(arsrc.ArsrcValueError, match=r'(?s)1 feature without .*\n    "name": Ragged\(.*# Text\n}'):
        tfds.source(written.folder, batch_size=1, features={name: None for name in SAID if name != "name"})


def test_what_is_said_of_a_feature_stands_in_place_of_what_the_data_set_says(written: Written) -> None:
    features = dict.fromkeys(set(SAID) - {"steps"}) | {
        "label": "int32",
        "image": Map(num_bytes, "int32"),
        "zipped": Map(num_bytes, "int32"),
        "steps/a": Ragged("int32", max_length=3),  # of what "steps" holds, features.json alone cannot tell
        "place": None,
        "objects": None,
        "huge": None,
    }
    data = all_of(written.folder, "train", features=features)
    outermost = {name.partition("/")[0] for name in tfds.info(written.folder).features}
    left_out = {name for name, spec in features.items() if spec is None}
    assert data.keys() == outermost - left_out - {"twice"}
    assert data["label"].dtype == np.int32
    assert (data["image"] > 50).all()
    assert data["steps"]["a"]["values"].tolist() == [[1, 2, 0]] * 11


@pytest.mark.parametrize(
    ("features", "says"),
    [
        ({"lable": None}, "there is no feature 'lable'. Did you mean 'label'?"),
        ({"xyz": "int32"}, "there is no feature 'xyz'. There is 'any', "),
        ({"place": "int32"}, "'place' is a dict of features. There is 'place/at/size'"),
        ({"label/a": "int32"}, "there is no feature 'label/a'"),
        ({"steps": Map(num_bytes, "int32"), "steps/a": "int32"}, "'steps/a' lies inside of a feature that has a spec"),
        (["label"], "must be a mapping of names; got features=['label']"),
        ({3: None}, "must be a mapping of names"),
    ],
)
def test_what_is_no_feature_is_refused_by_name(written: Written, features: Any, says: str) -> None:
    with pytest.raises(arsrc.ArsrcError, match=re.escape(says)):
        tfds.source(written.folder, batch_size=1, features=features)


def test_a_codec_of_nested_dicts_is_a_value_and_writes_what_it_reads(written: Written, tmp_path: Path) -> None:
    config = tfds.source(written.folder, batch_size=11, features=SAID | {"huge": None})
    codec = config.codec
    assert "Nested(TFExample({" in repr(codec)
    again = pickle.loads(pickle.dumps(codec))
    assert (again, hash(again)) == (codec, hash(codec))
    data = batch_of(config)
    data = jax.tree.map(lambda leaf, spec: leaf.astype(spec.dtype), data, codec.element_spec())
    png = {
        name: Image(spec.shape, "exact", dtype=spec.dtype, format="png")
        for name, spec in codec.codec.features
        if isinstance(spec, Image)
    }
    writer = type(codec)(TFExample(dict(codec.codec.features) | png), codec.paths)
    arsrc.write_array_record(tmp_path / "a", data, codec=writer)
    read = batch_of(arsrc.ArrayRecordSourceConfig(str(tmp_path / "a"), 11, codec=codec))
    jax.tree.map(np.testing.assert_array_equal, read, batch_of(config))
    with pytest.raises(arsrc.ArsrcTypeError, match="nested dicts with 'place/"):
        writer.encode(data | {"place": 3})


def test_decoded_elements_are_found_again_in_a_cache_of_files(written: Written, tmp_path: Path) -> None:
    read = ReadOptions(cache_bytes=0, cache_dir=str(tmp_path))
    config = tfds.source(written.folder, batch_size=11, features=SAID | {"huge": None}, cacheable=True, read=read)
    first = batch_of(config)
    arsrc.close(config)
    jax.tree.map(np.testing.assert_array_equal, batch_of(config), first)
    assert arsrc.io_metrics(config)["records_decoded"] == 0


# Folders.


def write_folder(folder: Path, **changes: Any) -> Path:
    """What tells of a data set of one split and one feature, in the form in which TFDS writes it; files of nothing."""
    folder.mkdir(parents=True)
    for shard in range(2):
        (folder / f"digits-train.array_record-0000{shard}-of-00002").touch()
    info = {
        "fileFormat": "array_record",
        "moduleName": "digits",
        "name": "digits",
        "splits": [
            {
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "name": "train",
                "numBytes": "100",
                "shardLengths": ["3", "2"],
            }
        ],
        "version": "1.0.0",
    }
    if "splits" in changes:
        changes["splits"] = [info["splits"][0] | changes["splits"]]  # type: ignore[index]
    (folder / "dataset_info.json").write_text(json.dumps(info | changes))
    number = {"dtype": "int32", "encoding": "none", "shape": {}}
    package = "tensorflow_datasets.core.features"
    scalar = {"pythonClassName": f"{package}.tensor_feature.Tensor", "tensor": number}
    features = {"pythonClassName": f"{package}.features_dict.FeaturesDict", "featuresDict": {"features": {"a": scalar}}}
    (folder / "features.json").write_text(json.dumps(features))
    return folder


def names_of(config: arsrc.ArrayRecordSourceConfig, folder: Path) -> list[str]:
    return [path.removeprefix(f"{folder}/") for path in config.paths]


IN_TWO = ["digits-train.array_record-00000-of-00002[0:3]", "digits-train.array_record-00001-of-00002[0:2]"]


@pytest.mark.parametrize(
    ("split", "want"),
    [
        ({}, IN_TWO),
        ({"filepathTemplate": None}, IN_TWO),
        ({"shardLengths": ["0", "2"]}, IN_TWO[1:]),
        ({"shardLengths": ["4"] + ["0"] * 100_000}, ["digits-train.array_record-000000-of-100001[0:4]"]),
        (
            {"filepathTemplate": "{SPLIT}/part{SHARD_INDEX}of{NUM_SHARDS}.{FILEFORMAT}"},
            ["train/part00000of00002.array_record[0:3]", "train/part00001of00002.array_record[0:2]"],
        ),
    ],
)
def test_files_are_called_as_the_template_says(tmp_path: Path, split: dict[str, Any], want: list[str]) -> None:
    folder = write_folder(tmp_path / "1.0.0", splits=split)
    for path in (folder / name.partition("[")[0] for name in want):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert names_of(tfds.source(folder, batch_size=1), folder) == want


def test_a_folder_without_all_files_of_the_split_is_refused_and_others_of_its_splits_are_not(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "1.0.0", splits={"shardLengths": ["1"] * 20})
    for shard in range(19):
        (folder / f"digits-train.array_record-{shard:05d}-of-00020").touch()
    last = "digits-train.array_record-00019-of-00020"
    with pytest.raises(arsrc.ArsrcFileNotFoundError, match=rf"1 of 20 files .*missing=\['{last}'\]"):
        tfds.source(folder, batch_size=1)
    assert len(tfds.source(folder, "train[:19]", batch_size=1).paths) == 19


def test_records_may_be_there_in_another_format_beside_the_first_one(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", fileFormat="tfrecord", alternativeFileFormats=["array_record"])
    assert names_of(tfds.source(folder, batch_size=1), folder)[0] == "digits-train.array_record-00000-of-00002[0:3]"
    other = write_folder(tmp_path / "b", fileFormat="riegeli")
    with pytest.raises(arsrc.ArsrcValueError, match=r"format 'riegeli'; got folder=.*python -m arsrc convert"):
        tfds.source(other, batch_size=1)
    assert tfds.info(other).splits == {"train": 5}


def test_a_folder_above_the_only_data_set_stands_for_it(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "digits" / "large" / "1.0.0")
    write_folder(tmp_path / "digits" / "large" / "incomplete.ABC_1.0.1")
    (tmp_path / "digits" / "note.txt").write_text("")
    for above in (folder, folder.parent, folder.parent.parent, str(folder), f"{folder}/"):
        assert tfds.info(above).folder.rstrip("/") == str(folder)
    with pytest.raises(
        arsrc.ArsrcFileNotFoundError, match=r"one of 2 levels below has a 'dataset_info.json'.*There is 'digits'\."
    ):
        tfds.info(tmp_path)
    write_folder(tmp_path / "digits" / "small" / "1.0.0")
    with pytest.raises(
        arsrc.ArsrcValueError, match=r"holds 2 data sets.*Give one of them: '.*/digits/large/1.0.0', '.*small/1.0.0'"
    ):
        tfds.info(tmp_path / "digits")


def test_what_is_no_folder_of_tfds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(arsrc.ArsrcFileNotFoundError, match="there is no such folder"):
        tfds.info(tmp_path / "gone")
    (tmp_path / "file").write_text("")
    with pytest.raises(arsrc.ArsrcFileNotFoundError, match="is no folder"):
        tfds.info(tmp_path / "file")
    with pytest.raises(arsrc.ArsrcValueError, match=r"address in place of a path.*Mount"):
        tfds.info("gs://tfds-data/datasets/mnist/3.0.1")
    with pytest.raises(arsrc.ArsrcTypeError, match="must be a path; got folder=3"):
        tfds.info(3)  # type: ignore[arg-type]
    folder = write_folder(tmp_path / "a")
    (folder / "features.json").unlink()
    with pytest.raises(arsrc.ArsrcFileNotFoundError, match=r"has no 'features\.json'"):
        tfds.info(folder)


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(data=st.data())
def test_info_files_with_anything_in_them_are_read_or_refused_by_name(records_dir: Path, data: st.DataObject) -> None:
    folder = records_dir / "tfds_damaged"
    if not folder.exists():
        write_folder(folder)
        (folder / "kept.json").write_text(
            json.dumps([json.loads((folder / n).read_text()) for n in ("dataset_info.json", "features.json")])
        )
    trees = json.loads((folder / "kept.json").read_text())
    places: list[tuple[Any, Any]] = []

    def collect(tree: Any) -> None:
        for key, inner in list(tree.items() if isinstance(tree, dict) else enumerate(tree)):
            places.append((tree, key))
            if isinstance(inner, (dict, list)):
                collect(inner)

    collect(trees)
    parent, key = data.draw(st.sampled_from(range(len(places))).map(places.__getitem__))
    parent[key] = data.draw(TREES)
    for name, tree in zip(("dataset_info.json", "features.json"), trees, strict=True):
        (folder / name).write_text(json.dumps(tree))
    try:
        tfds.source(folder, batch_size=1)
        tfds.info(folder)
    except arsrc.ArsrcError:
        pass


@pytest.mark.parametrize("text", ["", "{", "\xff", "[" * 100_000])
def test_files_that_are_no_json_are_refused_by_name(tmp_path: Path, text: str) -> None:
    folder = write_folder(tmp_path / "a")
    (folder / "dataset_info.json").write_text(text, "latin-1")
    with pytest.raises(
        arsrc.ArsrcValueError, match=r"'dataset_info\.json' is not as TFDS writes it \(.*\); got folder="
    ):
        tfds.info(folder)


# What the documentation shows.


def test_the_example_of_the_documentation_runs_on_such_a_folder(tmp_path: Path, write_records: Any) -> None:
    folder = write_folder(tmp_path / "3.0.1", splits={"shardLengths": ["10", "10"]})
    package = "tensorflow_datasets.core.features"
    content = json.loads((folder / "features.json").read_text())
    content["featuresDict"]["features"] = {
        "image": {
            "pythonClassName": f"{package}.image_feature.Image",
            "image": {"dtype": "uint8", "encodingFormat": "png", "shape": {"dimensions": ["28", "28", "1"]}},
        },
        "label": {
            "pythonClassName": f"{package}.class_label_feature.ClassLabel",
            "classLabel": {"numClasses": "10"},
        },
    }
    (folder / "features.json").write_text(json.dumps(content))
    (folder / "label.labels.txt").write_text("".join(f"{digit}\n" for digit in range(10)))
    codec = TFExample({"image": Image((28, 28, 1), format="png"), "label": "int64"})
    images = np.random.default_rng(0).integers(0, 256, (20, 28, 28, 1), dtype=np.uint8)
    records = codec.encode({"image": images, "label": np.arange(20) % 10})
    for shard in range(2):
        rows = [records[row] for row in range(10 * shard, 10 * shard + 10)]
        write_records(folder / f"digits-train.array_record-{shard:05d}-of-00002", rows)
    page = (Path(__file__).parent.parent / "docs" / "data.md").read_text()
    blocks = re.findall(r"^```python[^\n]*\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    code = next(block for block in blocks if "import tfds" in block)
    shown: dict[str, Any] = {}
    exec(code.replace("~/tensorflow_datasets/mnist/3.0.1", str(folder)).replace("batch_size=64", "batch_size=4"), shown)
    assert shown["names"] == tuple("0123456789")
    assert arsrc.num_records(shown["config"]) == 18
    data = batch_of(shown["validation"])
    np.testing.assert_array_equal(data["image"][:2], images[18:])
    assert data["label"][:2].tolist() == [8, 9]


# Many files, and file systems that fail.


def test_files_are_not_opened_to_be_counted(tmp_path: Path, write_records: Any, caplog: Any) -> None:
    folder = write_folder(tmp_path / "a", splits={"shardLengths": ["2"] * 50})
    codec = TFExample({"a": "int32"})
    for shard in range(50):
        rows = codec.encode({"a": np.array([2 * shard, 2 * shard + 1], np.int32)})
        write_records(folder / f"digits-train.array_record-{shard:05d}-of-00050", [rows[0], rows[1]])
    config = tfds.source(tmp_path, "train[10%:]", batch_size=4)
    with caplog.at_level(logging.INFO, "arsrc"):
        state = arsrc.init(config)
        assert arsrc.num_records(config) == 90
        _, batch = arsrc.next_batch(config, state)
    opened = [record.message for record in caplog.records if record.message.startswith("opened 90 records in 45 files")]
    assert "45 not open yet" in opened[0]
    assert batch.data["a"].tolist() == [10, 11, 12, 13]


@pytest.mark.parametrize("call", ["open", "fstat", "pread", "list_folder", "stat"])
def test_a_folder_that_cannot_be_read_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    folder, texts = write_folder(tmp_path / "a"), []
    for n in range(1, 9):
        nth = Nth(failing(5, call), n)
        # Threads of sources that other tests opened may be at work.
        injecting = Injecting(system.calls, lambda made, nth=nth: nth(made) if str(tmp_path) in made.path else None)
        with monkeypatch.context() as patched:
            patched.setattr(system, "calls", injecting)
            try:
                assert tfds.info(tmp_path).name == "digits"
            except arsrc.ArsrcReadError as error:
                texts.append(str(error))
        assert len(texts) == n or not injecting.num_faults
    assert 2 <= len(texts) <= 6
    assert all(str(tmp_path) in text for text in texts)
    assert tfds.info(folder).name == "digits"


@pytest.mark.parametrize("call", ["fstat", "pread"])
def test_a_file_that_cannot_be_read_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    write_folder(tmp_path / "a")
    nth = Nth(failing(5, call), 1)
    injecting = Injecting(system.calls, lambda made: nth(made) if str(tmp_path) in made.path else None)
    monkeypatch.setattr(system, "calls", injecting)
    with pytest.raises(arsrc.ArsrcReadError) as caught:  # which holds on to what was open
        tfds.info(tmp_path)
    assert injecting.num_faults == 1
    assert not [path for path in injecting.open_paths.values() if str(tmp_path) in path], caught


def test_a_folder_that_hangs_is_an_error_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, hanging = write_folder(tmp_path / "a"), Hanging("open")
    monkeypatch.setattr(system, "calls", hanging)
    with pytest.raises(arsrc.ArsrcReadError, match=r"what is said of the data set in .*timeout_seconds=0\.2"):
        tfds.source(folder, batch_size=1, read=ReadOptions(timeout_seconds=0.2))
    hanging.release.set()
    assert tfds.source(folder, batch_size=1, read=ReadOptions(timeout_seconds=5.0)).batch_size == 1


# Integers from 2**63 on, which TFDS stores as negative ones.

WIDE = np.array([0, 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1], np.uint64)


def written_unsigned(folder: Path, values: np.ndarray) -> Path:
    """A data set of uint64, alone, in pairs, in lists and inside of a dict, stored by their bits as int64."""
    tensor = lambda shape: {  # noqa: E731
        "pythonClassName": "tensorflow_datasets.core.features.tensor_feature.Tensor",
        "tensor": {"shape": {"dimensions": shape}, "dtype": "uint64", "encoding": "none"},
    }
    inner = {
        "one": tensor([]), "pair": tensor(["2"]), "many": tensor(["-1"]), "raw": tensor([]), "plain": tensor([]),
        "in": {
            "pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
            "featuresDict": {"features": {"side": tensor([])}},
        },
    }  # fmt: skip
    inner["raw"]["tensor"]["encoding"] = "bytes"
    inner["plain"]["tensor"]["dtype"] = "int64"
    features = {"pythonClassName": inner["in"]["pythonClassName"], "featuresDict": {"features": inner}}
    (folder / "features.json").write_text(json.dumps(features))
    split = {"name": "train", "numBytes": "1", "shardLengths": [str(len(values))]}
    split["filepathTemplate"] = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    info = {"name": "wide", "version": "1.0.0", "fileFormat": "array_record", "splits": [split]}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    bits = values.view(np.int64)
    specs = {"one": "int64", "pair": ("int64", 2), "many": ("int64", 2), "in/side": "int64", "plain": "int64"}
    codec = TFExample({**specs, "raw": Bytes(8)})
    pairs = np.stack((bits, bits[::-1]), axis=1)
    elements = {"one": bits, "pair": pairs, "many": pairs, "in/side": bits, "plain": bits}
    elements["raw"] = values.astype("<u8").view(np.uint8).reshape(-1, 8)
    arsrc.write_array_record(folder / "wide-train.array_record-00000-of-00001", elements, codec=codec)
    return folder


PAIRS = Ragged("uint64", max_length=3, pad_value=2**64 - 2)


@pytest.mark.usefixtures("x64")
def test_integers_of_uint64_are_those_that_were_stored_by_their_bits(tmp_path: Path) -> None:
    data = all_of(written_unsigned(tmp_path, WIDE), features={"many": PAIRS})
    pairs = np.stack((WIDE, WIDE[::-1]), axis=1)
    for name, want in {"one": WIDE, "raw": WIDE, "in/side": WIDE, "pair": pairs, "plain": WIDE.view(np.int64)}.items():
        found = at(data, name)
        assert found.dtype == want.dtype, name
        np.testing.assert_array_equal(found, want, err_msg=name)
    np.testing.assert_array_equal(data["many"]["values"], np.pad(pairs, ((0, 0), (0, 1)), constant_values=2**64 - 2))


def test_what_is_read_of_uint64_is_written_by_its_bits_and_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    features = {"many": PAIRS, "plain": None, "in": None}
    codec = tfds.source(written_unsigned(tmp_path, WIDE), batch_size=1, features=features).codec
    again = pickle.loads(pickle.dumps(codec))
    assert (again, hash(again)) == (codec, hash(codec))
    pairs = {"values": np.stack((WIDE,) * 3, axis=1), "length": np.full(len(WIDE), 2)}
    elements = {"one": WIDE, "raw": WIDE, "pair": pairs["values"][:, :2], "many": pairs}
    records = codec.encode(elements)
    assert isinstance(records, RecordBatch)
    np.testing.assert_array_equal(codec.decode(records)["one"], WIDE)
    np.testing.assert_array_equal(codec.decode(records)["many"]["values"][:, :2], pairs["values"][:, :2])
    with pytest.raises(arsrc.ArsrcError, match=r"feature 'one': .* does not fit uint64"):
        codec.encode(elements | {"one": WIDE.view(np.int64)})


@pytest.mark.parametrize("dtype", ["uint64", "uint32", "int64", "float32"])
def test_an_optional_number_that_is_missing_is_the_smallest_of_its_dtype(dtype: str) -> None:
    features = {("id",): Feature("Tensor", dtype, (), optional=True), ("k",): Feature("Tensor", "int64", ())}
    found = codec_of(features, None).decode(TFExample({"k": "int64"}).encode({"k": np.array([1])}))
    smallest = np.finfo(dtype).min if dtype == "float32" else np.iinfo(dtype).min
    assert found["id"].dtype == dtype
    assert found["id"].tolist() == [smallest]


@pytest.mark.parametrize("name", ["one", "in", "many"])
def test_without_64_bits_what_does_not_fit_is_an_error_that_names_feature_and_record(tmp_path: Path, name: str) -> None:
    others = dict.fromkeys({"one", "pair", "many", "raw", "plain", "in"} - {name})
    features = others | ({"many": Ragged("uint64", max_length=2)} if name == "many" else {})
    config = tfds.source(written_unsigned(tmp_path, WIDE), batch_size=len(WIDE), features=features)
    what = rf"uint64 values do not fit uint32, .* for leaf \['{name}'\].* high={2**64 - 1}"
    with pytest.raises(arsrc.ArsrcValueError, match=rf"{what}, record_id={0 if name == 'many' else 3}\."):
        next(arsrc.iterate(config))
    with pytest.raises((jax.errors.JaxRuntimeError, ValueError), match=what):
        batch_of(config)
