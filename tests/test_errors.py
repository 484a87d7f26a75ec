"""Every error: its form, its type, what it names, and that the source goes on working after it."""

import ast
import bz2
import collections
import copy
import dataclasses
import functools
import gzip
import io
import itertools
import json
import lzma
import os
import pickle
import re
import sys
import tarfile
import threading
import time
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import arsrc
from arsrc import ArrayRecordSourceConfig, ReadOptions, Selection, tfds
from arsrc._host import registry
from arsrc.codecs import Bytes, Json, Map, MsgPack, Ragged, Struct, TFExample
from arsrc.errors import message
from arsrc.mixture_config import MixtureConfig
from arsrc.order.mixture import mixture_plan
from arsrc.order.plan import Plan
from arsrc.views.id_set import IdSet

PACKAGE = Path(arsrc.__file__).parent

# [arsrc] <where>: <what is wrong>; got <name>=<value>. <What to do.>
FORM = re.compile(
    r"\[arsrc\] (?P<where>[\w.]+(?: [\w.'()-]+)*): "
    r"(?P<what>[^\sA-Z](?:(?!; got ).)*?[^.\s])"
    r"(?:; got (?P<got>\w+=.+?))?"
    r"(?:\.|: (?=\n))(?P<fix>[ \n].*)?",
    re.DOTALL,
)

NUM_RECORDS = 200
RECORD_BYTES = 1000
DATA = np.random.default_rng(0).integers(0, 256, (NUM_RECORDS, RECORD_BYTES), dtype=np.uint8)
KINDS = {
    "mapped": "group_size:1,uncompressed",
    "grouped": "group_size:10,uncompressed",
    "zstd": "group_size:1,zstd",
    "brotli": "group_size:1,brotli",  # which array_record's reader reads
}
NO_AHEAD = ReadOptions(read_ahead_bytes=0)
# What JAX makes of an exception inside a callback; before 0.8, compiled programs raise the second.
CALLBACK_ERRORS = (jax.errors.JaxRuntimeError, ValueError)


def text_of(error: BaseException) -> str:
    """The library's own text; JAX puts a traceback around what is raised inside a callback."""
    match = re.search(r"\[arsrc\] .*", str(error), re.DOTALL)
    assert match, f"no [arsrc] text in {error!r}"
    return match[0].rstrip()


def check_form(text: str) -> dict[str, str | None]:
    match = FORM.fullmatch(text)
    assert match, text
    assert not any(line.startswith((".", ";")) for line in text.splitlines()), text
    assert "got got=" not in text
    assert ".." not in text.replace("...", ""), text
    return match.groupdict()


class World(NamedTuple):
    """Files that are whole and files that are not."""

    folder: Path
    path: str

    def config(self, **fields: Any) -> ArrayRecordSourceConfig:
        return ArrayRecordSourceConfig(**({"paths": self.path, "batch_size": 4, "read": NO_AHEAD} | fields))

    def state(self, **fields: Any) -> arsrc.SourceState:
        return arsrc.init(self.config(**fields))


def mixture(weights: Any = None, **fields: Any) -> Callable[[World], MixtureConfig]:
    """What makes a mixture of two sources."""
    return lambda world: MixtureConfig(
        **({"sources": [world.config()] * 2, "weights": weights, "batch_size": 4} | fields)
    )


def write_all(path: Path, write_records: Any, options: str, data: np.ndarray = DATA) -> str:
    return write_records(path, [row.tobytes() for row in data], options)


def without_array_record(call: Callable[[World], Any]) -> Callable[[World], Any]:
    """What calls as if array_record were not installed."""

    def run(world: World) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "array_record.python.array_record_module", None)
            return call(world)

    return run


def archive(module: Any, name: str) -> bytes:
    """An archive of one file, as `module` makes it."""
    out = io.BytesIO()
    if module is zipfile:
        with zipfile.ZipFile(out, "w") as zipped:
            zipped.writestr(name, "text")
    else:
        with tarfile.open(fileobj=out, mode="w") as tar:
            tar.addfile(tarfile.TarInfo(name))
    return out.getvalue()


# How the first record of a file of TensorFlow's events begins, of 24 bytes: its length, and a checksum of that.
TFRECORD = bytes.fromhex("1800000000000000a37f4b22") + bytes(24 + 4)

# What is no ArrayRecord file.
OTHER_FILES = {
    "empty": b"",
    "zeros": bytes(70_000),
    "text": b"record\n" * 100,
    "section": b"[section]\na = 1\n",
    "umlauts": ("\u00e4" * 300).encode(),
    "json": b'\xef\xbb\xbf {"a": 1}\n',
    "list": b'[\n  "a"]',
    "page": b"\n<!DOCTYPE HTML><title>404</title>",
    "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n",
    "tfrecord": TFRECORD,
    "tfrecord.gz": gzip.compress(TFRECORD),
    "noise.gz": gzip.compress(DATA[0].tobytes()),
    "cut.gz": gzip.compress(DATA[0].tobytes())[:12],
    "gz.gz": gzip.compress(gzip.compress(TFRECORD)),
    "zip": archive(zipfile, "a"),
    "tar": archive(tarfile, "a"),
    "xz": lzma.compress(b"text"),
    "bz2": bz2.compress(b"text"),
    "zst": b"\x28\xb5\x2f\xfd....",
    "parquet": b"PAR1....",
    "npy": b"\x93NUMPY....",
    "noise": DATA[0].tobytes(),
}


def write_tfds(folder: Path, **changes: Any) -> None:
    """What tells of a data set of TFDS, in the older form, and files without records."""
    folder.mkdir(parents=True)
    split = {"name": "train", "shardLengths": ["3", "2"]}
    info = {"name": "a", "version": "1.0.0", "fileFormat": "array_record", "splits": [split]} | changes
    (folder / "dataset_info.json").write_text(json.dumps(info))
    for shard in range(1 if folder.name == "halved" else 2):
        (folder / f"a-train.array_record-0000{shard}-of-00002").touch()

    def feature(kind: str, content: Any) -> Any:
        return {"type": f"tensorflow_datasets.core.features.{kind}", "content": content}

    number = feature("Tensor", {"shape": [], "dtype": "int32"})
    features = {"a": number, "b": feature("FeaturesDict", {"c": number})}
    features |= {"text": feature("Text", {})} if folder.name == "text" else {}
    features |= {"steps": feature("Dataset", {})} if folder.name == "opaque" else {}
    (folder / "features.json").write_text(json.dumps(feature("FeaturesDict", features)))
    if folder.name == "no features":
        (folder / "features.json").unlink()
    if folder.name == "odd":
        (folder / "a.labels.txt").mkdir()


TFDS_FOLDERS: dict[str, dict[str, Any]] = {
    "good": {},
    "text": {},
    "opaque": {},
    "odd": {},
    "no features": {},
    "no name": {"name": None, "version": None, "splits": [3]},
    "riegeli": {"fileFormat": "riegeli"},
    "halved": {},
}


def of_tfds(name: str = "good", split: Any = "train", **options: Any) -> Callable[[World], Any]:
    return lambda world: tfds.source(world.folder / "tfds" / name, split, batch_size=1, **options)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, write_records: Any) -> World:
    folder = tmp_path_factory.mktemp("world")
    path = write_all(folder / "whole", write_records, KINDS["mapped"])
    whole = Path(path).read_bytes()
    for name, content in OTHER_FILES.items():
        (folder / name).write_bytes(content)
    os.mkfifo(folder / "fifo")
    (folder / "nowhere").symlink_to("gone")
    (folder / "truncated").write_bytes(whole[: len(whole) // 2 // 65536 * 65536])
    (folder / "cut").write_bytes(whole[:-1])
    write_all(folder / "brotli", write_records, KINDS["brotli"])
    (folder / "begun").write_bytes(whole[:10])
    (folder / "packed").write_bytes(gzip.compress(whole))
    (folder / "damaged").write_bytes(whole[:-65536] + whole[-65536:].replace(b"r", b"s", 1))
    for name, changes in TFDS_FOLDERS.items():
        write_tfds(folder / "tfds" / name, **changes)
    write_records(folder / "none", [])
    write_records(folder / "lengths", [b"abc", b"abc", b"abc", b"de", b"abc", b"abc"])
    write_records(folder / "many", [b""] * 100_000, "group_size:100000")
    return World(folder, path)


# Functions at module level: equal in every process, and picklable.


def fails(record: bytes) -> Any:
    if record == b"de":
        raise KeyError("no such label")
    return np.uint8(record[0])


def other_dtype(record: bytes) -> Any:
    return np.float64(record[0])


def jax_array(record: bytes) -> Any:
    return jnp.zeros(3)


@dataclasses.dataclass(frozen=True)
class Huge:
    """A codec whose elements have a terabyte each; it never decodes one."""

    def resolve(self, first_record: bytes) -> "Huge":
        return self

    def element_spec(self) -> Any:
        return jax.ShapeDtypeStruct((2**37,), np.float64)

    def decode(self, records: Any) -> Any:
        raise NotImplementedError

    def encode(self, elements: Any) -> Any:
        raise NotImplementedError


class Instruction(NamedTuple):
    filename: str
    skip: int
    take: int
    examples_in_shard: int


class Case(NamedTuple):
    """What to do, the type that is raised, and what the text must hold."""

    run: Callable[[World], Any]
    kind: type[arsrc.ArsrcError]
    where: str
    holds: tuple[str, ...] = ()


def case(kind: type[arsrc.ArsrcError], where: str, *holds: str) -> Callable[[Callable[[World], Any]], Case]:
    return lambda run: Case(run, kind, where, holds)


def construct(**fields: Any) -> Callable[[World], Any]:
    return lambda world: world.config(**fields)


def opened(paths: str, **fields: Any) -> Callable[[World], Any]:
    return lambda world: world.state(paths=f"{world.folder}/{paths}", **fields)


VALUE, TYPE, INDEX = arsrc.ArsrcValueError, arsrc.ArsrcTypeError, arsrc.ArsrcIndexError
READ, WRITE, MISSING = arsrc.ArsrcReadError, arsrc.ArsrcWriteError, arsrc.ArsrcFileNotFoundError


def stacked(world: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), world.state())


def saved(world: World, **changes: Any) -> Any:
    config = world.config()
    return arsrc.from_state_dict(config, arsrc.to_state_dict(config, arsrc.init(config)) | changes)


def saved_mixture(world: World, *weights: Any, **changes: Any) -> Any:
    """What is saved after 3 batches with equal weights, restored with others."""
    then, now = mixture((1, 1))(world), mixture(*weights or [(1, 1)])(world)
    return arsrc.from_state_dict(now, arsrc.to_state_dict(then, arsrc.state_at(then, 3)) | changes)


class Unreadable(dict[str, Any]):
    def __getitem__(self, key: str) -> Any:
        raise OSError("gone")


def deleted(state: arsrc.SourceState) -> arsrc.SourceState:
    for leaf in jax.tree.leaves(state):
        leaf.delete()
    return state


def scan(world: World, num_steps: int, **options: Any) -> Any:
    config = world.config()
    return arsrc.scan_steps(config, arsrc.init(config), (), lambda c, b: ((), None), num_steps, **options)


WITH_NUMBERS: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "take": ("record_ids", lambda value, world: arsrc.take(world.config(), value)),
    "locate": ("record_id", lambda value, world: arsrc.locate(world.config(), world.state(), value)),
    "batch_at": ("start", lambda value, world: arsrc.batch_at(world.config(), world.state(), value)),
    "advance": ("steps", lambda value, world: arsrc.advance(world.config(), world.state(), value)),
    "state_at": ("step", lambda value, world: arsrc.state_at(world.config(), value)),
}
NO_INTEGERS = {
    "texts": (["1"], "dtype('<U1')"),
    "a text": ("1", "dtype('<U1')"),
    "floats": ([1.0], "dtype('float64')"),
    "truth values": ([True], "dtype('bool')"),
    "None": (None, "dtype('O')"),
    "objects": ([object(), 1], "dtype('O')"),
    "a dict": ({"a": 1}, "dtype('O')"),
    "lists of several lengths": ([[1], [2, 3]], "'list'. Give"),
    "a key": (jax.random.key(0), "'PRNGKeyArray'"),
}

CASES = {
    # construction of the config
    "paths that are none": Case(construct(paths=3), TYPE, "paths", ("paths=3",)),
    "no paths": Case(construct(paths=[]), VALUE, "paths", ("paths=[]", "Name at least one")),
    "an entry that is no path": Case(construct(paths=["a", 3.5]), TYPE, "paths", ("path=3.5",)),
    "an empty path": Case(construct(paths=["a", ""]), VALUE, "paths", ("path=''",)),
    "an instruction that is no range": Case(
        construct(paths=Instruction("a", 5, -1, 3)), VALUE, "paths", ("'a'", "skip=5", "take=-1")
    ),
    "an instruction whose numbers are none": Case(
        construct(paths=Instruction("a", "x", 1, 3)), TYPE, "paths", ("'a'", "skip='x'")
    ),
    "a path that no file can have": Case(construct(paths="a\0b"), VALUE, "paths", ("null character",)),
    "a FIFO": Case(opened("fifo"), VALUE, "paths", ("is a FIFO", "/fifo'")),
    "a link to nothing": Case(opened("nowhere"), MISSING, "paths", ("link to '", "/gone', where there is nothing")),
    "a link to nothing among others": Case(opened("nowher*"), MISSING, "paths", ("leads to no file", "/nowhere'")),
    "a slice that ends before it starts": Case(construct(paths="a[5:3]"), VALUE, "paths", ("/a[5:3]'",)),
    "missing local files": Case(
        construct(paths=["gone-1", "gone-2*"], local_files_only=True),
        MISSING,
        "paths",
        ("2 of 2", "/gone-1'", "/gone-2*'"),
    ),
    "a batch size of zero": Case(construct(batch_size=0), VALUE, "batch_size", ("batch_size=0", "[1, ")),
    "a batch size that is no integer": Case(construct(batch_size=2.5), TYPE, "batch_size", ("batch_size=2.5",)),
    "a seed that is too large": Case(construct(seed=2**32), VALUE, "seed", ("seed=4294967296",)),
    "no epochs": Case(construct(num_epochs=0), VALUE, "num_epochs", ("num_epochs=0", "Use -1")),
    "a flag that is none": Case(construct(cacheable=1), TYPE, "cacheable", ("cacheable=1",)),
    "an unknown remainder": Case(construct(remainder="keep"), VALUE, "remainder", ("'keep'", "'wrap'")),
    "both shuffles": Case(
        construct(shuffle_files=True, shuffle_records=True), VALUE, "shuffle_files", ("exclude each other",)
    ),
    "blocks without a shuffle": Case(
        construct(shuffle_block_size=2), VALUE, "shuffle_block_size", ("shuffle_block_size=2",)
    ),
    "a window that is too large": Case(
        construct(shuffle_records=True, shuffle_block_size=2**20, shuffle_window_blocks=2**20),
        VALUE,
        "shuffle_window_blocks",
        ("1048576",),
    ),
    "an exclusion that is none": Case(construct(exclude=3), TYPE, "exclude", ("exclude=3",)),
    "an excluded range that is none": Case(construct(exclude=[(1, 2, 3)]), VALUE, "exclude", ("(1, 2, 3)",)),
    "an excluded id below zero": Case(construct(exclude=[-1]), VALUE, "exclude", ("exclude=-1",)),
    "no stream name": Case(construct(stochastic=True), VALUE, "stream_name", ("stream_name=",)),
    "a stream name too many": Case(construct(stream_name="d"), VALUE, "stream_name", ("stream_name='d'",)),
    "a stream name that is none": Case(
        construct(stochastic=True, stream_name=3), TYPE, "stream_name", ("stream_name=3",)
    ),
    "statistics twice": Case(
        construct(batch_stats_fn=len, precomputed_stats={}), VALUE, "batch_stats_fn", ("precomputed_stats",)
    ),
    "a statistics function that is none": Case(
        construct(batch_stats_fn=3), TYPE, "batch_stats_fn", ("batch_stats_fn=3",)
    ),
    "statistics that are no mapping": Case(
        construct(precomputed_stats=3), TYPE, "precomputed_stats", ("precomputed_stats=3",)
    ),
    "statistics that cannot be copied": Case(
        construct(precomputed_stats={"lock": threading.Lock()}), TYPE, "precomputed_stats", ("['lock']", "pickle")
    ),
    "a name that is none": Case(construct(name=3), TYPE, "name", ("name=3",)),
    "read options that are none": Case(construct(read=3), TYPE, "read", ("read=3",)),
    "a codec that is none": Case(construct(codec=Bytes), TYPE, "codec", ("Bytes()",)),
    "a codec that cannot be hashed": Case(
        construct(codec=type("Odd", (Bytes,), {"__hash__": None})()), TYPE, "config", ("frozen dataclasses",)
    ),
    "a read option that is too small": Case(
        lambda world: ReadOptions(num_threads=0), VALUE, "ReadOptions.num_threads", ("num_threads=0",)
    ),
    "a read option that is no integer": Case(
        lambda world: ReadOptions(cache_bytes=1.5), TYPE, "ReadOptions.cache_bytes", ("cache_bytes=1.5",)
    ),
    "a cache folder that is none": Case(
        lambda world: ReadOptions(cache_dir=3), TYPE, "ReadOptions.cache_dir", ("cache_dir=3",)
    ),
    "a limit that is no number": Case(
        lambda world: ReadOptions(timeout_seconds="1"), TYPE, "ReadOptions.timeout_seconds", ("timeout_seconds='1'",)
    ),
    "a limit of no time": Case(
        lambda world: ReadOptions(timeout_seconds=0), VALUE, "ReadOptions.timeout_seconds", ("None waits for ever",)
    ),
    "an unknown checksum": Case(
        lambda world: ReadOptions(checksum="crc"), VALUE, "ReadOptions.checksum", ("'crc'", "'always'")
    ),
    # opening
    "a missing file": Case(opened("gone"), MISSING, "paths", ("1 of 1", "/gone'")),
    "a pattern without a file": Case(opened("gone-*"), MISSING, "paths", ("/gone-*'",)),
    **{
        f"a file that is {name}": Case(opened(name), READ, "open", (f"/{name}'", "num_bytes=", *holds))
        for name, holds in {
            "empty": ("is empty", "num_bytes=0", "written and copied"),
            "zeros": ("begins with zeros", "written and copied"),
            "truncated": ("no complete ArrayRecord file", "there is no postscript", "written and copied"),
            "cut": ("no complete ArrayRecord file", "no multiple of 64 KiB", "written and copied"),
            "begun": ("no complete ArrayRecord file", "written and copied"),
            "damaged": ("no complete ArrayRecord file", "there is no postscript"),
            "packed": ("a gzip file of an ArrayRecord file", "Unpack"),
            "text": ("but a text file", "num_bytes=700", "write_array_record"),
            "section": ("but a text file",),
            "umlauts": ("but a text file",),
            "json": ("but a JSON file", "write_array_record"),
            "list": ("but a JSON file",),
            "page": ("but a web page", "Download it anew"),
            "pointer": ("but a pointer of Git LFS", "git lfs pull"),
            "tfrecord": ("but a TFRecord file", "arsrc convert"),
            "tfrecord.gz": ("but a gzip file of a TFRecord file", "arsrc convert"),
            "noise.gz": ("but a gzip file of a file that begins with the bytes",),
            "cut.gz": ("but a gzip file", "Unpack"),
            "gz.gz": ("but a gzip file of a gzip file; got", "Unpack"),
            "zip": ("but a zip archive", "Unpack"),
            "tar": ("but a tar archive", "Unpack"),
            "xz": ("compressed by xz", "Unpack"),
            "bz2": ("compressed by bzip2", "Unpack"),
            "zst": ("compressed by zstd", "Unpack"),
            "parquet": ("but a Parquet file", "arsrc convert"),
            "npy": ("but a NumPy file", "write_array_record"),
            "noise": ("but a file that begins with the bytes", DATA[0, :8].tobytes().hex(" ")),
        }.items()
    },
    "a folder": Case(opened(""), VALUE, "paths", ("is a folder", "No name in ", "'array_record'")),
    "an empty data set": Case(opened("none"), VALUE, "paths", ("no records", "num_records=0", "num_files=1")),
    "an empty slice": Case(opened("whole[7:7]"), VALUE, "paths", ("no records",)),
    "too many records": Case(
        lambda world: world.state(paths=[f"{world.folder}/many"] * 42_950),
        VALUE,
        "paths",
        ("2**32 - 1", "num_records=4295000000", "num_files=42950"),
    ),
    "a slice beyond the end": Case(
        opened("whole[0:1000000000]"), VALUE, "paths", ("200 records", "/whole[0:1000000000]'")
    ),
    "a slice that begins beyond the end": Case(
        opened("whole[1000000000:]"), VALUE, "paths", ("200 records", "/whole[1000000000:]'")
    ),
    "fewer records than a batch": Case(
        opened("whole", batch_size=201), VALUE, "batch_size", ("200 records", "batch_size=201", '"pad"')
    ),
    "every record excluded": Case(opened("whole", exclude=[(0, 200)]), VALUE, "exclude", ("200 records",)),
    "a selection of nothing": Case(construct(select=[]), VALUE, "select", ("selects no record",)),
    "a selection that is none": Case(construct(select=3), TYPE, "select", ("select=3", "a boolean array")),
    "a record selected twice": Case(construct(select=[7, 5, 7]), VALUE, "select", ("select=7", "MixtureConfig")),
    "a selected id that no record has": Case(
        construct(select=np.array([2**32 - 1])), VALUE, "select", ("must be in [0, 4294967295)", "select=4294967295")
    ),
    "a selected record that there is not": Case(
        opened("whole", select=[200]), VALUE, "select", ("has 200", "record_id=200")
    ),
    "a mask for other data": Case(
        opened("whole", select=np.ones(199, bool)),
        VALUE,
        "select",
        ("made for 199 records", "has 200", "<199 records>"),
    ),
    "a selection for other data": Case(
        opened("whole", select=Selection(IdSet.of_mask(np.ones(200, bool)), 200, "0" * 32)),
        VALUE,
        "select",
        ("made for other data", "0" * 32),
    ),
    "a selection of nothing known": Case(
        lambda world: Selection(None), TYPE, "select", ("must be record ids, ranges", "ids=None")
    ),
    "a selection for data that is no text": Case(
        lambda world: Selection([1], data=3), TYPE, "Selection.data", ("must be a text", "data=3")
    ),
    "the origin of one row": Case(
        lambda world: arsrc.origin(world.config(), 3), TYPE, "origin", ("a sequence of integers", "shape=()")
    ),
    "a saved selection that is none": Case(
        lambda world: world.config(select=world.path), VALUE, "select", ("is no saved selection", "Selection.save")
    ),
    "a saved selection that is not there": Case(construct(select="/none"), READ, "select", ("No such file", "'/none'")),
    "a selection saved nowhere": Case(
        lambda world: world.config(select=[1]).select.save("/none/here"), WRITE, "Selection.save", ("'/none/here'",)
    ),
    "records selected by what is no function": Case(
        lambda world: arsrc.select_records(world.config(), None), TYPE, "select_records", ("predicate='NoneType'",)
    ),
    "records selected by numbers": Case(
        lambda world: arsrc.select_records(world.config(), lambda batch: batch.record_ids),
        TYPE,
        "select_records",
        ("must return booleans", "dtype='uint32'"),
    ),
    "records selected by too few booleans": Case(
        lambda world: arsrc.select_records(world.config(), lambda batch: batch.mask[:1]),
        VALUE,
        "select_records",
        ("one boolean for each row", "shape=(1,)"),
    ),
    "records selected by what never holds": Case(
        lambda world: arsrc.select_records(world.config(), lambda batch: ~batch.mask),
        VALUE,
        "select_records",
        ("holds for no record",),
    ),
    "a first record that does not fit": Case(
        opened("whole", codec=Bytes(7), name="train"),
        VALUE,
        "decode (train)",
        ("record 0 (record 0 of ", "/whole'", "1000 bytes", "not 7"),
    ),
    "a function that gives another dtype": Case(
        opened("whole", codec=Map(other_dtype, "uint8")),
        VALUE,
        "decode",
        ("record 0", "uint8[]", "float64[]", 'np.asarray(leaf, "uint8")'),
    ),
    "a function that gives JAX arrays": Case(
        opened("whole", codec=Map(jax_array, ("float32", 3))), VALUE, "decode", ("record 0", "NumPy arrays")
    ),
    "a function that other processes cannot find": Case(
        opened("whole", codec=Map(lambda record: np.uint8(0), "uint8", num_processes=2)),
        TYPE,
        "Map.num_processes",
        ("can be pickled", "fn=<function", "top level of a module"),
    ),
    "a cache that does not fit into memory": Case(
        opened("whole", cacheable=True, read=ReadOptions(cache_bytes=10)),
        VALUE,
        "cacheable",
        ("200000 bytes", "cache_bytes=10"),
    ),
    "a cache that does not fit on the disk": Case(
        lambda world: world.state(
            cacheable=True, codec=Huge(), read=ReadOptions(cache_bytes=0, cache_dir=f"{world.folder}/cache")
        ),
        VALUE,
        "cacheable",
        ("more than are free there", "/cache/arsrc-"),
    ),
    # states
    "init with what is no key": Case(lambda world: arsrc.init(world.config(), 3), TYPE, "init", ("key=3",)),
    "init with several keys": Case(
        lambda world: arsrc.init(world.config(), jax.random.split(jax.random.key(0), 3)), TYPE, "init", ("key<fry>[3]",)
    ),
    "init with words of another number": Case(
        lambda world: arsrc.init(world.config(), jnp.zeros(3, jnp.uint32)), TYPE, "init", ("uint32[3]",)
    ),
    "init with floats": Case(lambda world: arsrc.init(world.config(), jnp.zeros(2)), TYPE, "init", ("float32[2]",)),
    "init of a stochastic source without a key": Case(
        opened("whole", stochastic=True, stream_name="data"), VALUE, "init", ("stream_name='data'",)
    ),
    "init with a missing stream": Case(
        lambda world: arsrc.init(world.config(stochastic=True, stream_name="data"), {"params": jax.random.key(0)}),
        VALUE,
        "ensure_rng_streams",
        ("'data'", "names=['params']"),
    ),
    "advance by a negative number": Case(
        lambda world: arsrc.advance(world.config(), world.state(), -1), VALUE, "advance", ("steps=-1",)
    ),
    "advance by a float": Case(
        lambda world: arsrc.advance(world.config(), world.state(), 1.5), TYPE, "advance", ("steps=", "float")
    ),
    "advance by several numbers": Case(
        lambda world: arsrc.advance(world.config(), world.state(), [1, 2]), TYPE, "advance", ("shape=(2,)", "jax.vmap")
    ),
    "state_at beyond u32": Case(
        lambda world: arsrc.state_at(world.config(), 2**32), VALUE, "state_at", ("step=4294967296",)
    ),
    "locate beyond the data": Case(
        lambda world: arsrc.locate(world.config(), world.state(), [0, 200]),
        INDEX,
        "locate",
        ("[0, 200)", "record_id=200"),
    ),
    # reading
    "a state that is none": Case(
        lambda world: arsrc.next_batch(world.config(), 3), TYPE, "next_batch", ("state='int'",)
    ),
    "state and config in the wrong order": Case(
        lambda world: arsrc.next_batch(world.state(), world.config()), TYPE, "config", ("the config, then a state",)
    ),
    "state and config in the wrong order in the arithmetic": Case(
        lambda world: arsrc.advance(world.state(), world.config()), TYPE, "config", ("config='SourceState'",)
    ),
    "a path in place of a config": Case(lambda world: arsrc.init(world.path), TYPE, "config", ("config='str'",)),
    "a stack of states in the arithmetic": Case(
        lambda world: arsrc.record_ids(
            world.config(), jax.vmap(functools.partial(arsrc.state_at, world.config()))(jnp.arange(3))
        ),
        TYPE,
        "record_ids",
        ("shape=(3,)", "jax.vmap"),
    ),
    "a number of batches that is no integer": Case(
        lambda world: arsrc.next_batches(world.config(), world.state(), 2.9), TYPE, "next_batches", ("num_batches=2.9",)
    ),
    "a traced number of batches": Case(
        lambda world: jax.jit(lambda n: arsrc.next_batches(world.config(), world.state(), n))(2),
        TYPE,
        "next_batches",
        ("static",),
    ),
    "an axis that the mesh has not": Case(
        lambda world: arsrc.next_global_batch(
            world.config(), world.state(), mesh=jax.make_mesh((1,), ("data",)), axis_name="model"
        ),
        VALUE,
        "next_global_batch",
        ("axis_name='model'", "mesh_axes=('data',)"),
    ),
    "no batches": Case(
        lambda world: arsrc.next_batches(world.config(), world.state(), 0), VALUE, "next_batches", ("num_batches=0",)
    ),
    "batch_at beyond the end": Case(
        lambda world: arsrc.batch_at(world.config(), world.state(), 200), INDEX, "batch_at", ("start=200", "200)")
    ),
    "batch_at before the beginning": Case(
        lambda world: arsrc.batch_at(world.config(), world.state(), -201), INDEX, "batch_at", ("start=-201",)
    ),
    "batch_at of no records": Case(
        lambda world: arsrc.batch_at(world.config(), world.state(), 0, 0), VALUE, "batch_at", ("size=0",)
    ),
    "batch_at of a size that is no integer": Case(
        lambda world: arsrc.batch_at(world.config(), world.state(), 0, 2.9), TYPE, "batch_at", ("size=2.9",)
    ),
    "batch_at of several positions": Case(
        lambda world: arsrc.batch_at(world.config(), world.state(), [0, 5]), TYPE, "batch_at", ("shape=(2,)", "take")
    ),
    "take beyond the data": Case(
        lambda world: arsrc.take(world.config(), [3, 200]), INDEX, "take", ("[0, 200)", "record_ids=200")
    ),
    "read_records of one number": Case(
        lambda world: arsrc.read_records(world.path, 3), TYPE, "read_records", ("shape=()", "Give a list")
    ),
    "read_records of an id outside": Case(
        lambda world: arsrc.read_records(world.path, [3, 200]), INDEX, "read_records", ("[0, 200)", "ids=200")
    ),
    "take of a negative id": Case(lambda world: arsrc.take(world.config(), [-1]), INDEX, "take", ("record_ids=-1",)),
    "take of a negative id beyond 64 bits": Case(
        lambda world: arsrc.take(world.config(), [3, -(2**70)]), INDEX, "take", (f"record_ids={-(2**70)}",)
    ),
    **{
        f"{where} of {what}": Case(functools.partial(run, value), TYPE, where, (f"{name}=", "must be integers", held))
        for where, (name, run) in WITH_NUMBERS.items()
        for what, (value, held) in NO_INTEGERS.items()
    },
    # loops
    "a body that is no function": Case(
        lambda world: arsrc.scan_steps(world.config(), world.state(), lambda carry, _: (carry, None), 0, 2),
        TYPE,
        "scan_steps",
        ("body='int'", "config, state, carry, body"),
    ),
    "a carry in place of the state": Case(
        lambda world: arsrc.scan_epoch(world.config(), 0, world.state(), lambda carry, _: (carry, None)),
        TYPE,
        "scan_steps",
        ("state='int'",),
    ),
    "a mesh without an axis": Case(
        lambda world: scan(world, 1, mesh=jax.make_mesh((1,), ("data",))), VALUE, "scan_steps", ("axis_name",)
    ),
    "a table and a mesh": Case(
        lambda world: scan(world, 1, mesh=jax.make_mesh((1,), ("data",)), axis_name="data", resident=0),
        VALUE,
        "scan_steps",
        ("jax.shard_map", "resident=table"),
    ),
    "a table that is none": Case(
        lambda world: arsrc.next_batch(world.config(), world.state(), resident=world.config()),
        VALUE,
        "next_batch",
        ("ArrayRecordSourceConfig", "load_resident"),
    ),
    "iterate over a spec": Case(
        lambda world: arsrc.iterate(world.config(), device=jax.sharding.PartitionSpec("data")),
        TYPE,
        "iterate",
        ("device=", "NamedSharding"),
    ),
    "iterate onto the name of a device": Case(
        lambda world: arsrc.iterate(world.config(), device="cpu"), TYPE, "iterate", ("device='cpu'",)
    ),
    "a cache in what is no folder": Case(
        lambda world: world.state(cacheable=True, read=ReadOptions(cache_bytes=0, cache_dir=world.path)),
        VALUE,
        "cacheable",
        ("cache_dir=", "Name a folder"),
    ),
    "a number of steps that is no integer": Case(
        lambda world: scan(world, 3.5), TYPE, "scan_steps", ("num_steps=3.5",)
    ),
    "a body that gives the carry alone": Case(
        lambda world: arsrc.scan_steps(world.config(), world.state(), 0, lambda carry, _: carry, 2),
        TYPE,
        "scan_steps",
        ("(carry, output)",),
    ),
    "a body that gives nothing, with several batches in a fetch": Case(
        lambda world: arsrc.scan_steps(world.config(), world.state(), 0, lambda *_: None, 2, batches_per_fetch=2),
        TYPE,
        "scan_steps",
        ("(carry, output)", "returned='NoneType'"),
    ),
    "a negative number of steps": Case(lambda world: scan(world, -1), VALUE, "scan_steps", ("num_steps=-1",)),
    "no batches in a fetch": Case(
        lambda world: scan(world, 1, batches_per_fetch=0), VALUE, "scan_steps", ("batches_per_fetch=0",)
    ),
    "a loop of no steps at once": Case(lambda world: scan(world, 2, unroll=0), VALUE, "scan_steps", ("unroll=0",)),
    "a part of steps at once": Case(lambda world: scan(world, 2, unroll=1.5), TYPE, "scan_steps", ("unroll=1.5",)),
    "keys of no batch": Case(
        lambda world: arsrc.record_keys(world.config(), world.state(), arsrc.record_ids(world.config(), world.state())),
        TYPE,
        "record_keys",
        ("batch='ArrayImpl'",),
    ),
    "iterate under jit": Case(
        lambda world: jax.jit(lambda state: next(arsrc.iterate(world.config(), state)))(world.state()),
        TYPE,
        "iterate",
        ("scan_epoch",),
    ),
    # resident tables
    "a table of another data set": Case(
        lambda world: arsrc.next_batch(world.config(), world.state(), resident=jnp.zeros((3, 1000), jnp.uint8)),
        VALUE,
        "next_batch",
        ("uint8[200, 1000]", "uint8[3, 1000]"),
    ),
    "a table on the name of a device": Case(
        lambda world: arsrc.load_resident(world.config(), device="cpu"), TYPE, "load_resident", ("device='cpu'",)
    ),
    "a table that does not fit into memory": Case(
        lambda world: arsrc.load_resident(world.config(codec=Huge())),
        VALUE,
        "load_resident",
        (f"{200 * 2**40} bytes", "free"),
    ),
    # checkpoints
    "a state dict that is none": Case(
        lambda world: arsrc.from_state_dict(world.config(), 3), TYPE, "from_state_dict", ("='int'",)
    ),
    "a state dict with missing entries": Case(
        lambda world: arsrc.from_state_dict(world.config(), {"index": 0}), VALUE, "from_state_dict", ("'epoch'",)
    ),
    "a state dict of another version": Case(
        lambda world: saved(world, version=9), VALUE, "from_state_dict", ("version=9",)
    ),
    "a state dict of other data": Case(
        lambda world: saved(world, fingerprint="3 records, other data"),
        VALUE,
        "from_state_dict",
        ("3 records, other data", "200 records, "),
    ),
    "a state dict with a damaged index": Case(
        lambda world: saved(world, index=-3), VALUE, "from_state_dict", ("index=-3",)
    ),
    "a state dict with another fingerprint": Case(
        lambda world: saved(world, fingerprint=3), VALUE, "from_state_dict", ("fingerprint=3",)
    ),
    "a check against other data": Case(
        lambda world: arsrc.check(world.config(), "3 records, other data"),
        VALUE,
        "check",
        ("3 records, other data", "200 records, "),
    ),
    "a check against no text": Case(
        lambda world: arsrc.check(world.config(), None), TYPE, "check", ("fingerprint=None",)
    ),
    "a state dict that cannot be read": Case(
        lambda world: arsrc.from_state_dict(world.config(), Unreadable(index=0)),
        VALUE,
        "from_state_dict",
        ("OSError: gone",),
    ),
    "a state that was donated": Case(
        lambda world: arsrc.advance(world.config(), deleted(world.state())), VALUE, "advance", ("donated",)
    ),
    "a key that was donated": Case(
        lambda world: arsrc.init(world.config(), deleted(world.state()).key), VALUE, "init", ("donated",)
    ),
    "a batch larger than any memory": Case(
        lambda world: arsrc.next_batch(world.config(batch_size=2**20, codec=Huge(), remainder="pad"), world.state()),
        VALUE,
        "read",
        (str(2**60), "smaller batches"),
    ),
    "an axis that no shard_map divides": Case(
        lambda world: arsrc.next_batch(world.config(), world.state(), axis_name="data"),
        VALUE,
        "axis_name",
        ("axis_name='data'", "jax.shard_map"),
    ),
    "a stack of states to next_batch": Case(
        lambda world: arsrc.next_batch(world.config(), stacked(world)), TYPE, "next_batch", ("shape=(2,)", "vmap")
    ),
    "a stack of states to iterate": Case(
        lambda world: list(arsrc.iterate(world.config(), stacked(world))), TYPE, "iterate", ("shape=(2,)",)
    ),
    "a stack of states to to_state_dict": Case(
        lambda world: arsrc.to_state_dict(world.config(), stacked(world)), TYPE, "to_state_dict", ("shape=(2,)",)
    ),
    "an excluded record that there is not": Case(
        lambda world: arsrc.init(world.config(exclude=[7, 200])), VALUE, "exclude", ("(200, 201)", "has 200")
    ),
    "a function whose elements cannot be told from those of another": Case(
        lambda world: world.state(
            codec=Map(functools.partial(lambda lock, record: np.int32(0), threading.Lock()), "int32"),
            cacheable=True,
            read=ReadOptions(cache_bytes=0, cache_dir=f"{world.folder}/cache"),
        ),
        VALUE,
        "cacheable",
        ("_thread.lock", "in memory"),
    ),
    "an excluded range with gaps": Case(
        lambda world: world.config(exclude=[range(0, 4, 2)]), VALUE, "exclude", ("range(0, 4, 2)", "steps of 1")
    ),
    "an address in place of a path": Case(
        lambda world: world.config(paths="gs://bucket/data"), VALUE, "paths", ("gs://bucket/data", "Mount")
    ),
    "an excluded range that ends before it starts": Case(
        lambda world: world.config(exclude=[(10, 5)]), VALUE, "exclude", ("(10, 5)", "before it starts")
    ),
    "a state dict with a damaged exclusion": Case(
        lambda world: saved(world, exclude=[7]), VALUE, "from_state_dict", ("exclude=[7]",)
    ),
    "a state dict with an exclusion that the config has not": Case(
        lambda world: saved(world, exclude=[[3, 5]]), VALUE, "from_state_dict", ("(3, 5)", "come back")
    ),
    "a state dict with a damaged key": Case(
        lambda world: saved(world, key_words=[1]), VALUE, "from_state_dict", ("key_words=[1]",)
    ),
    "to_state_dict under jit": Case(
        lambda world: jax.jit(lambda state: arsrc.to_state_dict(world.config(), state))(world.state()),
        TYPE,
        "to_state_dict",
        ("runs on the host",),
    ),
    # folders of TFDS
    "a folder that is none": Case(lambda world: tfds.info(3), TYPE, "folder", ("must be a path", "folder=3")),
    "a folder that is not there": Case(of_tfds("gone"), MISSING, "folder", ("no such folder", "/tfds/gone'")),
    "a file in place of a folder": Case(
        of_tfds("good/features.json"), MISSING, "folder", ("is no folder", "/features.json'")
    ),
    "a folder of several data sets": Case(
        of_tfds(""), VALUE, "folder", ("holds 8 data sets", "Give one", "/tfds/good'")
    ),
    "a folder without a data set": Case(
        lambda world: tfds.info(Path(__file__).parent), MISSING, "folder", ("neither this folder", "There is '")
    ),
    "a folder without features": Case(of_tfds("no features"), MISSING, "folder", ("has no 'features.json'",)),
    "a folder of other files": Case(
        of_tfds("no name"), VALUE, "folder", ("'dataset_info.json' is not as TFDS writes",)
    ),
    "a folder with a folder in place of a file": Case(of_tfds("odd"), READ, "folder", ("no file", "/a.labels.txt'")),
    "a data set in another format": Case(of_tfds("riegeli"), VALUE, "folder", ("'riegeli'", "python -m arsrc convert")),
    "a data set of which a file is missing": Case(
        of_tfds("halved"),
        MISSING,
        "folder",
        (
            "is not complete: 1 of 2 files",
            "/tfds/halved'",
            "missing=['a-train.array_record-00001-of-00002']",
            "Copy",
        ),
    ),
    "a codec for a data set that says it": Case(
        of_tfds(codec=Bytes()), TYPE, "source", ("codec is what the folder says", "codec=Bytes()", "by features")
    ),
    "paths for a data set that says them": Case(of_tfds(paths="a"), TYPE, "source", ("paths='a'", "by split")),
    "an option that is misspelt": Case(
        of_tfds(shufle_records=True), TYPE, "source", ("'shufle_records'", "Did you mean 'shuffle_records'?")
    ),
    "an option that is none": Case(of_tfds(xyz=1), TYPE, "source", ("'xyz'", "fields of ArrayRecordSourceConfig")),
    "a part of a split expression that is none": Case(
        lambda world: tfds.even_splits("trian[", 3), VALUE, "split", ("no split expression", "'trian['", "train[:90%]")
    ),
    "a part of a slice that is none": Case(
        lambda world: tfds.EvenSplit("train[1:2:3]", 0, 2), VALUE, "split", ("no split expression", "'train[1:2:3]'")
    ),
    "a split that is none": Case(of_tfds(split=3), TYPE, "split", ("split=3", 'Write for example "train"')),
    "a split that is not there": Case(of_tfds(split="test"), VALUE, "split", ("'test'", "There is 'train'")),
    "a split expression that is none": Case(
        of_tfds(split="train[5"), VALUE, "split", ("no split expression", "There is 'train'.")
    ),
    "a slice that is none": Case(of_tfds(split="train[5]"), VALUE, "split", ("no split expression",)),
    "a slice of all splits": Case(of_tfds(split="all[:1]"), VALUE, "split", ("cannot be sliced", "'all[:1]'")),
    "a slice with half a record": Case(of_tfds(split="train[:1.5]"), VALUE, "split", ("a number that is none",)),
    "a slice outside of its split": Case(of_tfds(split="train[:6]"), VALUE, "split", ("which has 5 records",)),
    "a slice of a split from behind": Case(of_tfds(split="train[3:2]"), VALUE, "split", ("ends before it starts",)),
    "a slice of nothing": Case(of_tfds(split="train[2:2]"), VALUE, "split", ("holds no records", "'train[2:2]'")),
    "no even splits": Case(lambda world: tfds.even_splits("train", 0), VALUE, "even_splits", ("at least 1", "n=0")),
    "features that are none": Case(of_tfds(features=["a"]), TYPE, "features", ("features=['a']", "For example")),
    "a feature that is not there": Case(of_tfds(features={"aa": None}), VALUE, "features", ("Did you mean 'a'?",)),
    "a spec for several features": Case(of_tfds(features={"b": "int32"}), VALUE, "features", ("'b'", "There is 'b/c'")),
    "a spec inside of a feature that has one": Case(
        of_tfds("opaque", features={"steps": Map(fails, "uint8"), "steps/a": "int32"}),
        VALUE,
        "features",
        ("'steps/a'",),
    ),
    "features that are all left out": Case(
        of_tfds(features={"a": None, "b": None}), VALUE, "features", ("leaves no feature", "There is 'a', 'b/c'")
    ),
    "a feature without a fixed shape": Case(
        of_tfds("text"), VALUE, "features", ("1 feature without", '"text": Ragged("uint8", max_length=...),  # Text')
    ),
    "an element whose dicts are none": Case(
        lambda world: of_tfds()(world).codec.encode({"a": np.zeros(1, np.int32), "b": 3}),
        TYPE,
        "Nested.encode",
        ("'b/c'", "elements='int'"),
    ),
    **{
        f"processes of a Map inside of {codec.__name__}": Case(
            lambda world, codec=codec: codec({"a": Map(fails, "uint8", num_processes=2)}),
            VALUE,
            f"{codec.__name__} field 'a'",
            ("runs in no worker processes", "num_processes=2", "Leave it out here"),
        )
        for codec in (Json, MsgPack, TFExample)
    },
    "processes of a Map inside of a data set of TFDS": Case(
        of_tfds(features={"a": Map(fails, "uint8", num_processes=2)}),
        VALUE,
        "TFExample field 'a'",
        ("runs in no worker processes",),
    ),
    "operation_stats under jit": Case(
        lambda world: jax.jit(lambda state: arsrc.operation_stats(world.config(), state))(world.state()),
        TYPE,
        "operation_stats",
        ("runs on the host",),
    ),
    "a weight that gets no row": Case(
        mixture((1 - 1e-6, 1e-6)), VALUE, "weights", ("source 1", "weight=1e-06", "or 0")
    ),
    "weights that are no numbers": Case(mixture("ab"), TYPE, "weights", ("weights='ab'",)),
    "a weight for each of fewer sources": Case(mixture((1,)), VALUE, "weights", ("2 sources and 1 weights",)),
    "a negative weight": Case(mixture((1, -2)), VALUE, "weights", ("weights=[1.0, -2.0]",)),
    "weights of zero": Case(mixture((0, 0)), VALUE, "weights", ("all weights are 0",)),
    "weights and stages": Case(mixture((1, 1), stages=[(0, (1, 1))]), VALUE, "weights", ("Give one of them",)),
    "stages that are none": Case(mixture(stages=[3]), TYPE, "stages", ("stages=[3]",)),
    "stages that do not begin at 0": Case(mixture(stages=[(5, (1, 1))]), VALUE, "stages", ("steps=[5]",)),
    "sources that are none": Case(mixture((1,), sources=3), TYPE, "sources", ("sources='int'",)),
    "no sources": Case(mixture((), sources=()), VALUE, "sources", ("sources=()",)),
    "a source that is none": Case(mixture((1,), sources=["a"]), TYPE, "sources", ("source 0", "source='a'")),
    "a mixture of mixtures": Case(
        lambda world: mixture((1,), sources=[mixture((1, 1))(world)])(world), TYPE, "sources", ("multiplied",)
    ),
    "a stochastic source of a mixture": Case(
        lambda world: mixture((1,), sources=[world.config(stochastic=True, stream_name="a")])(world),
        VALUE,
        "sources",
        ("stream_name='a'",),
    ),
    "sources that hold too many records": Case(
        lambda world: mixture_plan([Plan(2**32 - 1, 1, -1, "drop", False)] * 2, 1, [(0, (0.5, 0.5))], "first"),
        VALUE,
        "sources",
        ("num_records=8589934590",),
    ),
    "a record located in a mixture": Case(
        lambda world: arsrc.locate(mixture((1, 1))(world), arsrc.init(mixture((1, 1))(world)), 3),
        VALUE,
        "locate",
        ("several times", "Locate it in its source"),
    ),
    "sources of which one masks bad records": Case(
        lambda world: mixture((1, 1), sources=[world.config(), world.config(on_bad_record="mask")])(world),
        VALUE,
        "sources",
        ("0 and 1 differ", "on_bad_record='mask'"),
    ),
    "sources of other elements": Case(
        lambda world: arsrc.init(
            mixture((1, 1, 1), sources=[*[world.config()] * 2, world.config(codec=Struct({"a": ("u1", 1000)}))])(world)
        ),
        VALUE,
        "sources",
        ("sources 0 and 2 have other elements", "source 0:", "source 2:"),
    ),
    "a mixture with a source whose file is gone": Case(
        lambda world: arsrc.init(mixture((1, 1), sources=[world.config(), world.config(paths="/none")])(world)),
        arsrc.ArsrcFileNotFoundError,
        "paths",
        ("/none",),
    ),
    "a mixture restored with other weights": Case(
        lambda world: saved_mixture(world, (3, 1)),
        VALUE,
        "from_state_dict",
        ("saved:  [6, 6]", "config: [9, 3]", "stages=((0, (0.5, 0.5)), (3, (...)))"),
    ),
    "a state of a mixture without its rows": Case(
        lambda world: saved_mixture(world, source_rows=None), VALUE, "from_state_dict", ("is no state of a mixture",)
    ),
    "a state of a mixture with half a row": Case(
        lambda world: saved_mixture(world, source_rows=[7.5, 3]),
        VALUE,
        "from_state_dict",
        ("is no state of a mixture", "float"),
    ),
    "records selected in a mixture": Case(
        lambda world: arsrc.select_records(mixture((1, 1))(world), lambda batch: batch.mask),
        VALUE,
        "select_records",
        ("of one source", "Select in the sources"),
    ),
    "source_counts under jit": Case(
        lambda world: jax.jit(lambda state: arsrc.source_counts(world.config(), state))(world.state()),
        TYPE,
        "source_counts",
        ("runs on the host",),
    ),
    "the source of a record that is no integer": Case(
        lambda world: arsrc.source_ids(mixture((1, 1))(world), 0.5), TYPE, "source_ids", ("dtype('float64')",)
    ),
    "a file that needs array_record's reader, which is not installed": Case(
        without_array_record(lambda world: world.state(paths=str(world.folder / "brotli"))),
        READ,
        "open",
        ("needs array_record's reader, which cannot be imported", "brotli", "pip install"),
    ),
    "writing without array_record": Case(
        without_array_record(lambda world: arsrc.write_array_record(world.folder / "new", [b"a"])),
        arsrc.ArsrcWriteError,
        "write_array_record",
        ("needs array_record's writer, which cannot be imported", "new", "pip install"),
    ),
    "a packing that is none": Case(construct(pack=128), TYPE, "pack", ("pack=128",)),
    "documents without tokens": Case(
        lambda world: arsrc.init(
            world.config(codec=Ragged("uint8", max_length=1000), pack=arsrc.Packing(8, "fit", longer="drop"))
        ),
        VALUE,
        "pack",
        ("no document has tokens", "long ones that are dropped"),
    ),
}

# Messages that no call here brings about, and why.
NOT_PROVOKED = {
    "in a program of several processes, JAX would make one host read for all": "needs several processes",
    "the batch does not divide among": "needs several devices",
    "array_record gave too few records": "a guard: no damage is known that leads there",
    "cannot look at a file": "needs a file system that fails",
    "cannot look into a folder": "needs a file system that fails",
    "cannot look at an open file": "needs a file system that fails",
    "the output is smaller than the records": "a guard between the parts of the host side",
    "a record id lies outside": "a guard: ids are checked before",
    "memory ran out while": "needs a process with little memory",
    "is relative, and the working folder": "needs a working folder that is gone",
    "is no regular file": "a guard: what paths lead to is looked at before",
    "cannot read a file": "needs a file system that fails",
    "a file of it cannot be read": "needs a file system that fails",
    "a file of it changed": "needs a file system that fails",
}


@pytest.fixture(scope="module")
def raised(world: World) -> dict[str, BaseException]:
    """What each case raises."""
    found: dict[str, BaseException] = {}
    for name, case in CASES.items():
        try:
            case.run(world)
        except Exception as error:
            found[name] = error
    return found


@pytest.mark.parametrize("name", CASES)
def test_an_error_has_its_type_its_form_and_names_what_is_wrong(raised, name):
    case = CASES[name]
    assert name in raised, "nothing was raised"
    error = raised[name]
    assert type(error) is case.kind, "".join(traceback.format_exception(error))
    text = str(error)
    assert text.startswith("[arsrc] "), text
    assert check_form(text)["where"] == case.where, text
    for part in case.holds:
        assert part in text, text


@pytest.mark.parametrize(
    ("kind", "built_in"),
    [(VALUE, ValueError), (TYPE, TypeError), (INDEX, IndexError), (READ, OSError), (MISSING, FileNotFoundError)],
)
def test_errors_are_caught_by_their_built_in_kinds_and_by_the_base_class(raised, kind, built_in):
    errors = [error for error in raised.values() if type(error) is kind]
    assert errors
    for error in errors:
        assert isinstance(error, built_in)
        assert isinstance(error, arsrc.ArsrcError)


def test_errors_of_files_do_not_show_an_errno_in_front_of_their_text(raised):
    for error in raised.values():
        if isinstance(error, OSError):
            assert str(error).startswith("[arsrc] ")


# The texts in the source, each of them.


ERROR = re.compile(r"Arsrc\w+Error|kind|message")


def message_calls() -> list[tuple[str, ast.Call]]:
    return [
        (f"{file.relative_to(PACKAGE).as_posix()}:{node.lineno}", node)
        for file in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and ERROR.fullmatch(node.func.id)
    ]


def shown(node: ast.expr | None) -> str | None:
    """The text of a literal, with `{}` for what is filled in; None where it is not a literal."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(shown(part) if isinstance(part, ast.Constant) else "{}" for part in node.values)  # type: ignore[misc]
    return None


@pytest.mark.parametrize(("place", "call"), message_calls(), ids=[place for place, _ in message_calls()])
def test_a_text_in_the_source_fits_the_form(place, call):
    where, what, *fix = [*call.args, None]
    assert where is not None
    assert what is not None, "a message needs to say where and what"
    if text := shown(what):
        assert not text.endswith((".", "\n", " ")), "the full stop is added"
        assert not text[0].isupper() or text.split()[0].endswith(("s.encode", "Codec")), text
        assert ";" not in text
    if text := shown(fix[0]):
        assert text[0].isupper() or text.startswith("{}\n"), "what to do is a sentence"
        assert text.rstrip().endswith((".", ":")) or text.endswith("{}"), text


def test_every_text_in_the_source_is_provoked_here_or_stands_on_the_list_of_those_that_are_not(raised):
    texts = [str(error) for error in raised.values()]
    provoked_below = (
        "array_record's reader fails",
        "a file changed while open",
        "the files changed after the program was compiled",
        "no such record",
        "values do not fit",
        "row {}",
        "cannot open a file",
        "the files were closed",
    )
    left = []
    for place, call in message_calls():
        if place.startswith(("cli/", "codecs/", "writing.py")):
            continue  # tested beside the commands, the codecs and the writer
        what = shown(call.args[1])
        if what is None or what.startswith(provoked_below) or any(t in what for t in (*NOT_PROVOKED, *provoked_below)):
            continue
        pattern = re.compile(".*".join(map(re.escape, what.split("{}"))), re.DOTALL)
        if not any(pattern.search(text) for text in texts):
            left.append(f"{place}: {what}")
    assert not left, "\n".join(left)


@pytest.mark.parametrize(
    "text",
    [
        "[arsrc] where what",
        "where: what.",
        "[arsrc] where: What.",
        "[arsrc] where: what; got 3.",
        "[arsrc] where: what",
        "[arsrc] where: what..",
        "[arsrc] where: what; got got=3.",
        "[arsrc] where: what.\n. Do it.",
    ],
)
def test_the_form_itself_can_fail(text):
    assert check_form("[arsrc] where: what; got a=3. Do it.") == {
        "where": "where",
        "what": "what",
        "got": "a=3",
        "fix": " Do it.",
    }
    with pytest.raises(AssertionError):
        check_form(text)


def test_message_builds_the_form():
    assert message("here", "is wrong") == "[arsrc] here: is wrong."
    assert message("here", "is wrong", "Do it.") == "[arsrc] here: is wrong. Do it."
    assert message("here", "is wrong", "Do it.", a=1, b="x") == "[arsrc] here: is wrong; got a=1, b='x'. Do it."


def test_record_error_says_row_reason_and_fix():
    error = arsrc.RecordError(3, "is short", "Write it anew.")
    assert str(error) == "[arsrc] decode: row 3: is short. Write it anew."
    assert (error.row, error.what, error.fix) == (3, "is short", "Write it anew.")


@pytest.mark.parametrize("copied", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))], ids=["copy", "pickle"])
@pytest.mark.parametrize(
    "error",
    [
        arsrc.RecordError(3, "is short", "Write it anew."),
        arsrc.ArsrcReadError("read", "is gone", path="a", record_id=3),
        arsrc.ArsrcReadError("read", "is gone", record_ids="3, 4").at("a", 1, 3),
        arsrc.ArsrcFileNotFoundError("paths", "is gone", "Look.", missing=["a"], codec=lambda record: record),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_goes_from_one_process_to_another(error, copied):
    again = copied(error)
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.args == error.args
    assert {**vars(again), "got": None} == {**vars(error), "got": None}
    assert again.got.keys() == error.got.keys()
    assert again.got.get("record_id") == error.got.get("record_id")
    assert (again.path, again.position, again.record_id) == (error.path, error.position, error.record_id)


def test_an_error_names_its_record_by_attributes_and_none_where_there_is_none(raised):
    error = arsrc.ArsrcReadError("read", "is gone", path="a").at("b", 1, 3)
    assert (error.path, error.position, error.record_id) == ("b", 1, 3)
    more = error.naming(record_ids="3, 4")
    assert (more.path, more.position, more.record_id) == ("b", 1, 3)
    assert more.got == {"path": "a", "record_ids": "3, 4"}
    for name, record_id in (("take beyond the data", 200), ("locate beyond the data", 200), ("no batches", None)):
        found = raised[name]
        assert (found.path, found.position, found.record_id) == (None, None, record_id)
    assert raised["a file that is text"].path.endswith("/text")
    assert raised["paths that are none"].path is None


# Errors inside callbacks.


FETCHES: dict[str, Callable[[ArrayRecordSourceConfig, arsrc.SourceState], Any]] = {
    "eagerly": arsrc.next_batch,
    "under jit": lambda config, state: jax.jit(functools.partial(arsrc.next_batch, config))(state),
    "in a scan": lambda config, state: arsrc.scan_steps(config, state, (), lambda c, b: (c, b.data), 2),
    "in several batches": lambda config, state: arsrc.next_batches(config, state, 2),
    "under vmap": lambda config, state: jax.vmap(functools.partial(arsrc.next_batch, config))(
        jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), state)
    ),
    "in grad": lambda config, state: jax.grad(
        lambda w: w * arsrc.peek(config, state).mask.sum(dtype=jnp.float32) + arsrc.peek(config, state).data[0]
    )(1.0),
    "in peek": arsrc.peek,
    "in batch_at": lambda config, state: arsrc.batch_at(config, state, 0, 4),
    "in take": lambda config, state: arsrc.take(config, [0, 1, 2, 3]),
}


@pytest.mark.parametrize("how", [how for how in FETCHES if how != "in grad"])
def test_an_error_inside_a_callback_arrives_with_its_whole_text(world, how):
    path = f"{world.folder}/lengths"
    config = world.config(paths=path, batch_size=2, codec=Map(fails, "uint8"), name="labels", num_epochs=1)
    state = arsrc.state_at(config, 0 if how in ("in batch_at", "in take") else 1)
    with pytest.raises(CALLBACK_ERRORS) as caught:
        jax.block_until_ready(FETCHES[how](config, state))
    assert not isinstance(caught.value, arsrc.ArsrcError), "raised before the callback"
    text = text_of(caught.value)
    assert check_form(text)["where"] == "decode (labels)"
    assert f"record 3 (record 3 of {path!r}): fails raised KeyError: 'no such label'. It was raised here:\n" in text
    line = fails.__code__.co_firstlineno + 2
    assert text.endswith(f'\n  File "{__file__}", line {line}, in fails\n    raise KeyError("no such label")')
    assert text.count("File") == 1, "frames of the library"
    arsrc.close(config)


@dataclasses.dataclass(frozen=True)
class Own(Bytes):
    """A codec of a user's own, which fails as those do, two functions and a library deep."""

    def decode(self, records: Any) -> Any:
        return self.parse(records) if len(records) > 1 else super().decode(records)

    def parse(self, records: Any) -> Any:
        return json.loads(records[0])


def test_an_error_of_a_codec_of_ones_own_shows_the_lines_of_that_codec_alone(world):
    config = world.config(codec=Own(RECORD_BYTES))
    with pytest.raises(CALLBACK_ERRORS) as caught:
        jax.block_until_ready(arsrc.next_batch(config, arsrc.init(config)))
    text = text_of(caught.value)
    check_form(text)
    assert "Own raised UnicodeDecodeError" in text or "Own raised JSONDecodeError" in text
    assert "so that the record is named. It was raised here:\n" in text
    assert re.findall(r"File .*/(\w+\.py)\", line \d+, in (\w+)", text) == [
        ("test_errors.py", "decode"),
        ("test_errors.py", "parse"),
    ]


def test_iterate_raises_the_typed_error_with_its_cause(world):
    config = world.config(paths=f"{world.folder}/lengths", batch_size=2, codec=Map(fails, "uint8"))
    batches = arsrc.iterate(config)
    next(batches)
    with pytest.raises(arsrc.ArsrcValueError, match="record 3 ") as caught:
        next(batches)
    path = f"{world.folder}/lengths"
    assert (caught.value.path, caught.value.position, caught.value.record_id) == (path, 3, 3)
    assert isinstance(caught.value.__cause__, arsrc.RecordError)
    assert isinstance(caught.value.__cause__.__cause__, KeyError)


@pytest.mark.parametrize(
    ("codec", "reason"),
    [
        (Bytes(), "the record has 2 bytes, not 3"),
        (Struct({"x": ("uint8", 3)}), "the record has 2 bytes, not 3"),
        (Ragged("int8", max_length=2), "the record has 3 items, max_length is 2"),
        (Map(fails, "uint8"), "fails raised KeyError"),
    ],
    ids=["Bytes", "Struct", "Ragged", "Map"],
)
def test_a_record_that_does_not_fit_is_named_by_file_position_and_id(world, codec, reason):
    path = f"{world.folder}/lengths"
    config = world.config(paths=[f"{path}[3:4]", f"{path}[0:3]", f"{path}[3:6]"], batch_size=1, codec=codec)
    if isinstance(codec, Ragged):
        wanted = (1, 0)
    else:
        config = dataclasses.replace(config, paths=config.paths[1:])
        wanted = (3, 3)
    with pytest.raises(CALLBACK_ERRORS) as caught:
        jax.block_until_ready(arsrc.take(config, [wanted[0]]))
    text = text_of(caught.value)
    check_form(text)
    assert f"record {wanted[0]} (record {wanted[1]} of {path!r}): {reason}" in text


def test_a_traced_id_out_of_range_is_an_error_of_the_callback(world):
    config = world.config()
    for wrong in (200, 2**32 - 2):
        with pytest.raises(CALLBACK_ERRORS) as caught:
            jax.block_until_ready(jax.jit(functools.partial(arsrc.take, config))(np.uint32([0, wrong])))
        text = text_of(caught.value)
        assert check_form(text)["got"] == f"record_id={wrong}"
        assert "the data set has 200" in text


# After an error.


def check_works(config: ArrayRecordSourceConfig, state: arsrc.SourceState, data: np.ndarray = DATA):
    """The source serves the right batch, eagerly, compiled and iterated."""
    for _, batch in (
        arsrc.next_batch(config, state),
        jax.jit(functools.partial(arsrc.next_batch, config))(state),
        next(arsrc.iterate(config, state)),
    ):
        np.testing.assert_array_equal(np.asarray(batch.data), data[np.asarray(batch.record_ids)])


def words_of(state: arsrc.SourceState) -> tuple[int, int, list[int]]:
    return int(state.index), int(state.epoch), jax.random.key_data(state.key).tolist()


class Running:
    """A program and a loop that have begun."""

    def __init__(self, config: ArrayRecordSourceConfig) -> None:
        self.step = jax.jit(functools.partial(arsrc.next_batch, config))
        self.loop = arsrc.iterate(config)
        self.goes_on(arsrc.init(config))
        while not registry.opened(config).files.ahead._workers.is_idle:  # a thread is reading
            time.sleep(0.01)

    def goes_on(self, state: arsrc.SourceState) -> None:
        for _, batch in (self.step(state), next(self.loop)):
            np.testing.assert_array_equal(np.asarray(batch.data), DATA[np.asarray(batch.record_ids)])

    def fails(self, state: arsrc.SourceState) -> str:
        """The program fails, and the loop where it needs what is not there yet; returns the text."""
        with pytest.raises(CALLBACK_ERRORS) as caught:
            jax.block_until_ready(self.step(state))
        with pytest.raises(arsrc.ArsrcError) as typed:
            collections.deque(itertools.islice(self.loop, 10_000), 0)
        check_form(str(typed.value))
        check_form(text := text_of(caught.value))
        return text


def check_fails(config: ArrayRecordSourceConfig, state: arsrc.SourceState) -> str:
    """Fetching and iterating fail alike, and the state stays; returns the text."""
    before = words_of(state)
    with pytest.raises(CALLBACK_ERRORS) as caught:
        jax.block_until_ready(arsrc.next_batch(config, state))
    with pytest.raises(arsrc.ArsrcError) as typed:
        next(arsrc.iterate(config, state))
    assert words_of(state) == before
    text = text_of(caught.value)
    check_form(text)
    check_form(str(typed.value))
    return text


@pytest.mark.parametrize("name", ["gone", "empty", "text", "truncated"])
def test_after_a_failed_opening_the_source_opens_once_the_file_is_whole(world, tmp_path, name):
    path = tmp_path / "a"
    if name != "gone":
        path.write_bytes((world.folder / name).read_bytes())
    config = world.config(paths=str(path))
    for _ in range(2):
        with pytest.raises(arsrc.ArsrcError, match=re.escape(str(path))):
            arsrc.init(config)
        with pytest.raises(arsrc.ArsrcError):
            arsrc.num_records(config)
    path.unlink(missing_ok=True)
    path.write_bytes(Path(world.path).read_bytes())
    check_works(config, arsrc.init(config))
    arsrc.close(config)


@pytest.fixture
def config_of(tmp_path: Path, write_records: Any) -> Callable[..., ArrayRecordSourceConfig]:
    def make(kind: str, **fields: Any) -> ArrayRecordSourceConfig:
        path = write_all(tmp_path / "a", write_records, KINDS[kind])
        return ArrayRecordSourceConfig(**({"paths": path, "batch_size": 4, "read": NO_AHEAD} | fields))

    return make


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ahead", [0, 2**28])
def test_a_file_that_is_truncated_after_opening(config_of, kind, ahead):
    config = config_of(kind, read=ReadOptions(read_ahead_bytes=ahead))
    path = Path(config.paths[0])
    whole = path.read_bytes()
    running = Running(config)
    last = arsrc.state_at(config, 5049)  # far from what may have been read ahead
    with path.open("r+b") as file:
        file.truncate(65536)
    text = running.fails(last)
    assert repr(str(path)) in text
    assert "65536" in text
    assert str(len(whole)) in text
    if kind == "brotli":
        assert "record_ids='196, 197, 198, 199'" in text
    with pytest.raises(arsrc.ArsrcReadError, match=re.escape(repr(str(path)))):
        arsrc.init(config)
    path.unlink()
    path.write_bytes(whole)
    check_works(config, last)
    arsrc.close(config)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_removed_after_opening_is_read_to_the_end(config_of, kind):
    config = config_of(kind)
    running = Running(config)
    os.unlink(config.paths[0])
    running.goes_on(arsrc.state_at(config, 49))
    arsrc.close(config)
    with pytest.raises(arsrc.ArsrcFileNotFoundError, match=re.escape(config.paths[0])):
        arsrc.next_batch(config, arsrc.state_at(config, 49))


def test_a_removed_file_that_was_let_go_of_is_an_error_that_names_it(tmp_path, write_records):
    paths = [write_all(tmp_path / name, write_records, KINDS["brotli"], DATA[i::2]) for i, name in enumerate("ab")]
    config = ArrayRecordSourceConfig(paths, 4, read=ReadOptions(read_ahead_bytes=0, max_open_files=1))
    state = arsrc.state_at(config, 30)
    check_works(config, state, np.concatenate([DATA[0::2], DATA[1::2]]))
    step = jax.jit(functools.partial(arsrc.next_batch, config)).lower(state).compile()
    first = arsrc.init(config)
    whole = Path(paths[0]).read_bytes()
    os.unlink(paths[0])
    with pytest.raises(CALLBACK_ERRORS) as caught:
        jax.block_until_ready(step(first))
    text = text_of(caught.value)
    assert repr(paths[0]) in text
    assert "cannot open a file (No such file or directory)" in text
    assert "record_ids='0, 1, 2, 3'" in text
    Path(paths[0]).write_bytes(whole)  # who knows what it holds now
    with pytest.raises(CALLBACK_ERRORS, match="a file was changed while it was open"):
        jax.block_until_ready(step(first))
    check_works(config, arsrc.init(config), np.concatenate([DATA[0::2], DATA[1::2]]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_replaced_by_renaming_is_read_as_it_was_by_what_has_begun(config_of, write_records, kind):
    config = config_of(kind)
    path = config.paths[0]
    running, state = Running(config), arsrc.state_at(config, 20)
    write_all(Path(path + ".new"), write_records, KINDS[kind], DATA[::-1])
    os.replace(path + ".new", path)
    running.goes_on(state)
    check_works(config, state, DATA[::-1])
    arsrc.close(config)


@pytest.mark.parametrize("kind", ["mapped", "grouped", "zstd"])
def test_a_mapped_file_that_is_written_over_is_an_error_and_no_other_data(config_of, kind):
    config = config_of(kind)
    path = Path(config.paths[0])
    running, state = Running(config), arsrc.state_at(config, 20)
    content = bytearray(path.read_bytes())
    content[100_000] ^= 1
    with path.open("r+b") as file:
        file.write(content)
    assert repr(str(path)) in running.fails(state)


# Damage inside a file.


def flipped(path: Path, position: int) -> bytes:
    content = bytearray(path.read_bytes())
    content[position] ^= 0xFF
    return bytes(content)


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_that_are_corrupt_in_the_middle_of_a_record_are_found_where_hashes_are_checked(config_of, kind):
    config = config_of(kind, read=ReadOptions(read_ahead_bytes=0, checksum="always"))
    path = Path(config.paths[0])
    at = path.read_bytes().find(DATA[100, 300:340].tobytes())
    assert at > 0, "random bytes are stored as they are"
    path.write_bytes(flipped(path, at))
    state = arsrc.init(config)
    failed = []
    for step in range(50):
        try:
            after, batch = jax.block_until_ready(arsrc.next_batch(config, state))
        except CALLBACK_ERRORS as error:
            failed.append((step, text_of(error)))
            after = arsrc.advance(config, state)
        else:
            np.testing.assert_array_equal(np.asarray(batch.data), DATA[np.asarray(batch.record_ids)])
        state = after
    # One batch, or the batches of the chunk of ten records that holds record 100.
    assert [step for step, _ in failed] == ([25, 26, 27] if kind == "grouped" else [25])
    for step, text in failed:
        check_form(text)
        assert repr(str(path)) in text
        bad = range(4 * step, min(4 * step + 4, 110)) if kind == "grouped" else [100]  # those alone, not the batch
        listed = ", ".join(map(str, bad))
        assert f"positions='{listed}'" in text
        assert f"record_ids='{listed}'" in text
    with pytest.raises(arsrc.ArsrcReadError) as caught:
        next(arsrc.iterate(config, arsrc.state_at(config, 25)))
    assert (caught.value.path, caught.value.position, caught.value.record_id) == (str(path), 100, 100)
    check_works(config, arsrc.state_at(config, 40))
    arsrc.close(config)


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_byte_anywhere_but_in_a_record_gives_right_records_or_a_clear_error(config_of, tmp_path, kind):
    whole = Path(config_of(kind).paths[0])
    content = whole.read_bytes()
    places = np.arange(len(content))
    places = places[places % 65536 >= 24]  # without block headers, records lie in one piece
    stream = np.frombuffer(content, np.uint8)[places].tobytes()
    inside = np.zeros(len(content), bool)
    for row in DATA:
        at = stream.find(row.tobytes())
        inside[places[at : at + RECORD_BYTES]] |= at >= 0
    rng = np.random.default_rng(0)
    headers = [block + i for block in range(0, len(content), 65536) for i in range(64) if not inside[block + i]]
    others = rng.permutation(np.flatnonzero(~inside & (np.frombuffer(content, np.uint8) > 0)))[:60].tolist()
    num_errors = 0
    for number, position in enumerate(headers[::5] + others):
        path = tmp_path / f"flip-{number}"
        path.write_bytes(flipped(whole, position))
        config = ArrayRecordSourceConfig(str(path), 40, num_epochs=1, read=NO_AHEAD)
        try:
            found = np.concatenate([np.asarray(batch.data) for _, batch in arsrc.iterate(config)])
        except arsrc.ArsrcError as error:
            text = str(error)
            num_errors += 1
            check_form(text)
            found = DATA if repr(str(path)) in text else text
        np.testing.assert_array_equal(found, DATA, err_msg=f"byte {position}")
        arsrc.close(config)
        path.unlink()
    assert num_errors > 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_any_other_length_is_refused(config_of, tmp_path, kind):
    whole = Path(config_of(kind).paths[0]).read_bytes()
    lengths = [1, 63, 64, 100, 65535, 65536, 131072, len(whole) - 65536, len(whole) - 1]
    contents = [whole[:length] for length in lengths if length < len(whole)]
    contents += [whole + b"x", whole + bytes(65536), whole[65536:], whole[65536:] + bytes(65536)]
    for number, content in enumerate(contents):
        path = tmp_path / f"length-{number}"
        path.write_bytes(content)
        with pytest.raises(arsrc.ArsrcReadError, match=re.escape(repr(str(path)))) as caught:
            arsrc.init(ArrayRecordSourceConfig(str(path), 4))
        check_form(str(caught.value))


# Files that changed behind a compiled program.


@pytest.mark.parametrize(
    ("data", "then", "now"),
    [(DATA[:120], "200", "120"), (DATA[:, :500], "1000", "500")],
    ids=["fewer records", "shorter records"],
)
def test_a_program_compiled_for_other_data_says_so_and_fresh_calls_go_on(config_of, write_records, data, then, now):
    config = config_of("mapped")
    step = jax.jit(functools.partial(arsrc.next_batch, config))
    state = arsrc.init(config)
    step(state)
    arsrc.close(config)
    write_all(Path(config.paths[0]), write_records, KINDS["mapped"], data)
    with pytest.raises(CALLBACK_ERRORS) as caught:
        jax.block_until_ready(step(state))
    text = text_of(caught.value)
    check_form(text)
    assert "the files changed after the program was compiled" in text
    assert then in text
    assert now in text
    assert arsrc.num_records(config) == len(data)
    _, batch = arsrc.next_batch(config, state)
    np.testing.assert_array_equal(np.asarray(batch.data), data[:4])
    check_works(config, arsrc.init(config), data)
    arsrc.close(config)
    write_all(Path(config.paths[0]), write_records, KINDS["mapped"])
    np.testing.assert_array_equal(np.asarray(step(state)[1].data), DATA[:4])
    arsrc.close(config)


def test_a_config_that_is_closed_and_whose_files_did_not_change_needs_no_new_program(config_of):
    config = config_of("mapped")
    step = jax.jit(functools.partial(arsrc.next_batch, config))
    state = arsrc.init(config)
    first = step(state)[1].data
    arsrc.close(config)
    np.testing.assert_array_equal(step(state)[1].data, first)
    arsrc.close(config)
