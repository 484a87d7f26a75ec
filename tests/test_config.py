"""`ArrayRecordSourceConfig` and `ReadOptions`: defaults, rules, paths, and configs as values."""

import dataclasses
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import arsrc
from arsrc import ArrayRecordSourceConfig, Packing, ReadOptions
from arsrc.codecs import Bytes, Map, Ragged, Struct


@dataclasses.dataclass
class FileInstruction:
    """What TFDS calls a file instruction."""

    filename: Any
    skip: int
    take: int
    examples_in_shard: int


def config_with(**fields: Any) -> ArrayRecordSourceConfig:
    return ArrayRecordSourceConfig(**({"paths": "a.array_record", "batch_size": 2} | fields))


def first_byte(record: bytes) -> Any:
    return np.uint8(record[0])


def mean_of(data: Any) -> Any:
    return data.mean()


# Defaults and rules of the reference.


def test_the_fields_of_the_reference_keep_their_defaults():
    config = config_with()
    assert not config.cacheable
    assert config.batch_stats_fn is None
    assert config.precomputed_stats is None
    assert not config.stochastic
    assert config.stream_name is None
    assert config.seed == 42
    assert config.num_epochs == -1
    assert not config.shuffle_files
    assert not config.local_files_only


def test_stochastic_without_a_stream_name_is_refused():
    with pytest.raises(ValueError, match=r"^\[arsrc\] stream_name: stochastic=True needs a stream_name"):
        config_with(stochastic=True)


def test_a_stream_name_without_stochastic_is_refused():
    with pytest.raises(ValueError, match=r"^\[arsrc\] stream_name: .*got stream_name='data'"):
        config_with(stream_name="data")


def test_stochastic_with_a_stream_name_is_accepted():
    config = config_with(stochastic=True, stream_name="data")
    assert (config.stochastic, config.stream_name) == (True, "data")


def test_batch_stats_fn_and_precomputed_stats_exclude_each_other():
    with pytest.raises(ValueError, match=r"^\[arsrc\] batch_stats_fn: .* exclude each other"):
        config_with(batch_stats_fn=mean_of, precomputed_stats={"mean": 0.0})


def test_precomputed_stats_of_no_entry_still_exclude_batch_stats_fn():
    with pytest.raises(ValueError, match="exclude each other"):
        config_with(batch_stats_fn=mean_of, precomputed_stats={})


# Every field.


@pytest.mark.parametrize(
    ("field", "value", "kept"),
    [
        ("batch_size", 1, 1),
        ("batch_size", np.int64(3), 3),
        ("batch_size", 2**30, 2**30),
        ("seed", 0, 0),
        ("seed", 2**32 - 1, 2**32 - 1),
        ("num_epochs", -1, -1),
        ("num_epochs", 1, 1),
        ("num_epochs", 2**32 - 2, 2**32 - 2),
        ("remainder", "drop", "drop"),
        ("remainder", "pad", "pad"),
        ("remainder", "wrap", "wrap"),
        ("shuffle_files", np.True_, True),
        ("shuffle_records", True, True),
        ("cacheable", True, True),
        ("name", "train", "train"),
        ("batch_stats_fn", mean_of, mean_of),
        ("codec", Struct({"x": "int32"}), Struct({"x": "int32"})),
        ("read", ReadOptions(num_threads=1), ReadOptions(num_threads=1)),
    ],
)
def test_a_field_takes_what_it_should(field: str, value: Any, kept: Any):
    found = getattr(config_with(**{field: value}), field)
    assert found == kept
    assert type(found) is type(kept)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch_size", 0),
        ("batch_size", -1),
        ("batch_size", 2**30 + 1),
        ("batch_size", 2**70),
        ("seed", -1),
        ("seed", 2**32),
        ("num_epochs", 0),
        ("num_epochs", -2),
        ("num_epochs", 2**32 - 1),
        ("shuffle_block_size", 0),
        ("shuffle_block_size", 2**31 + 1),
        ("shuffle_window_blocks", 0),
        ("remainder", "keep"),
        ("remainder", None),
        ("remainder", []),
    ],
)
def test_a_value_that_cannot_be_used_is_a_value_error_that_shows_it(field: str, value: Any):
    with pytest.raises(arsrc.ArsrcValueError) as caught:
        config_with(**{field: value})
    assert str(caught.value).startswith(f"[arsrc] {field}: ")
    assert f"; got {field}={value!r}." in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("paths", 3),
        ("paths", None),
        ("paths", b"a.array_record"),
        ("batch_size", 2.0),
        ("batch_size", True),
        ("batch_size", "2"),
        ("batch_size", None),
        ("seed", 1.5),
        ("seed", None),
        ("num_epochs", 3.0),
        ("shuffle_block_size", 2.0),
        ("shuffle_window_blocks", True),
        ("shuffle_files", 1),
        ("shuffle_files", None),
        ("shuffle_records", "yes"),
        ("stochastic", 1),
        ("local_files_only", 0),
        ("cacheable", 1),
        ("batch_stats_fn", 3),
        ("precomputed_stats", [1.0]),
        ("name", 3),
        ("read", None),
        ("read", ReadOptions),
        ("codec", None),
        ("codec", "bytes"),
        ("codec", Bytes),
    ],
)
def test_a_type_that_cannot_be_used_is_a_type_error_that_shows_the_value(field: str, value: Any):
    with pytest.raises(arsrc.ArsrcTypeError) as caught:
        config_with(**{field: value})
    assert str(caught.value).startswith(f"[arsrc] {field}: ")
    assert f"; got {field}={value!r}." in str(caught.value)


def test_a_stream_name_that_is_no_string_is_a_type_error():
    with pytest.raises(arsrc.ArsrcTypeError, match=r"^\[arsrc\] stream_name: .*got stream_name=3"):
        config_with(stochastic=True, stream_name=3)


@pytest.mark.parametrize(
    ("exclude", "kept"),
    [
        ((), ()),
        ([3], ((3, 4),)),
        ([(2, 5)], ((2, 5),)),
        ([7, (2, 5), 4, (5, 6)], ((2, 6), (7, 8))),
        (np.array([1, 9]), ((1, 2), (9, 10))),
        (range(3), ((0, 3),)),
        ([(4, 4)], ()),
    ],
)
def test_excluded_records_are_kept_as_ranges_in_order(exclude: Any, kept: tuple[tuple[int, int], ...]):
    config = config_with(exclude=exclude)
    assert config.exclude == kept
    assert dataclasses.replace(config, seed=1).exclude == kept


@pytest.mark.parametrize(
    ("exclude", "kind"),
    [
        (3, TypeError),
        ("3", TypeError),
        ([1.5], TypeError),
        ([True], TypeError),
        ([(1, 2, 3)], ValueError),
        ([-1], ValueError),
        ([(5, 3)], ValueError),
        ([2**32], ValueError),
    ],
)
def test_what_is_no_exclusion_is_refused(exclude: Any, kind: type[Exception]):
    with pytest.raises(arsrc.ArsrcError, match=r"^\[arsrc\] exclude: .*got exclude=") as caught:
        config_with(exclude=exclude)
    assert isinstance(caught.value, kind)


def test_one_of_two_shuffles_is_not_passed_over_in_silence():
    with pytest.raises(arsrc.ArsrcValueError, match=r"^\[arsrc\] shuffle_files: .* exclude each other"):
        config_with(shuffle_files=True, shuffle_records=True)


def test_blocks_without_shuffle_records_are_refused():
    with pytest.raises(arsrc.ArsrcValueError, match=r"^\[arsrc\] shuffle_block_size: .*got shuffle_block_size=4"):
        config_with(shuffle_block_size=4)


def test_a_window_of_more_records_than_there_can_be_is_refused():
    with pytest.raises(arsrc.ArsrcValueError, match=r"^\[arsrc\] shuffle_window_blocks: .*65536.*65536"):
        config_with(shuffle_records=True, shuffle_block_size=2**16, shuffle_window_blocks=2**16)
    config_with(shuffle_records=True, shuffle_block_size=2**16, shuffle_window_blocks=2**16 - 1)


def test_a_field_that_cannot_be_hashed_is_a_type_error():
    @dataclasses.dataclass
    class Mean:
        def __call__(self, data: Any) -> Any:
            return data.mean()

    with pytest.raises(arsrc.ArsrcTypeError, match=r"^\[arsrc\] config: a field cannot be hashed"):
        config_with(batch_stats_fn=Mean())


def test_paths_and_batch_size_have_no_default():
    with pytest.raises(TypeError, match="'paths' and 'batch_size'"):
        ArrayRecordSourceConfig()  # type: ignore[call-arg]


def test_a_field_cannot_be_set_later():
    config = config_with()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 3  # type: ignore[misc]


def test_a_codec_of_ones_own_needs_no_base_class():
    @dataclasses.dataclass(frozen=True)
    class Own:
        def resolve(self, first_record: bytes) -> "Own":
            return self

        def element_spec(self) -> Any:
            return jax.ShapeDtypeStruct((), np.uint8)

        def decode(self, records: Any) -> Any:
            return records.data[records.offsets[:-1]]

        def encode(self, elements: Any) -> Any:
            raise NotImplementedError

    assert config_with(codec=Own()).codec == Own()


# ReadOptions.


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("num_threads", 0, ValueError),
        ("num_threads", 1.5, TypeError),
        ("num_threads", True, TypeError),
        ("read_ahead_bytes", -1, ValueError),
        ("max_open_files", 0, ValueError),
        ("cache_bytes", -1, ValueError),
        ("cache_dir", 3, TypeError),
        ("cache_dir", b"cache", TypeError),
        ("checksum", "never", ValueError),
        ("checksum", None, ValueError),
    ],
)
def test_a_read_option_that_cannot_be_used_is_refused(field: str, value: Any, kind: type[Exception]):
    with pytest.raises(arsrc.ArsrcError) as caught:
        ReadOptions(**{field: value})
    assert isinstance(caught.value, kind)
    assert str(caught.value).startswith(f"[arsrc] ReadOptions.{field}: ")
    assert f"; got {field}={value!r}." in str(caught.value)


def test_read_options_take_zero_bytes_and_paths():
    read = ReadOptions(read_ahead_bytes=0, cache_bytes=0, cache_dir=Path("cache"))  # type: ignore[arg-type]
    assert (read.read_ahead_bytes, read.cache_bytes, read.cache_dir) == (0, 0, os.path.abspath("cache"))


# Paths.


@pytest.mark.parametrize(
    ("paths", "kept"),
    [
        ("a", ("a",)),
        (Path("data/a"), (os.path.join("data", "a"),)),
        ("data/*.array_record", ("data/*.array_record",)),
        (["a", Path("b")], ("a", "b")),
        (("a", "a"), ("a", "a")),
        ("a[10:90]", ("a[10:90]",)),
        (FileInstruction("a", 1, 2, 9), ("a[1:3]",)),
        (FileInstruction("a", 1, -1, 9), ("a[1:9]",)),
        (FileInstruction(Path("a"), 0, 0, 9), ("a[0:0]",)),
        ([FileInstruction("a", 0, 4, 9), "b", FileInstruction("c", 5, -1, 9)], ("a[0:4]", "b", "c[5:9]")),
    ],
)
def test_paths_are_kept_as_a_tuple_of_absolute_strings(paths: Any, kept: tuple[str, ...]):
    assert config_with(paths=paths).paths == tuple(os.path.join(os.getcwd(), path) for path in kept)


def test_an_iterator_of_paths_is_refused_since_it_could_be_read_only_once():
    with pytest.raises(arsrc.ArsrcTypeError, match=r"^\[arsrc\] paths: "):
        config_with(paths=iter(["a"]))


@pytest.mark.parametrize("paths", [[], (), "", ["a", ""]])
def test_paths_without_a_name_are_refused(paths: Any):
    with pytest.raises(arsrc.ArsrcValueError, match=r"^\[arsrc\] paths: .*empty"):
        config_with(paths=paths)


@pytest.mark.parametrize("paths", [["a", 3], ["a", b"b"], [None]])
def test_an_entry_of_paths_that_is_no_path_is_named(paths: Any):
    with pytest.raises(arsrc.ArsrcTypeError) as caught:
        config_with(paths=paths)
    assert f"got path={paths[-1]!r}" in str(caught.value)


def test_a_slice_that_ends_before_it_starts_is_refused_at_construction():
    with pytest.raises(arsrc.ArsrcValueError, match=r"ends before it starts; got path='.*/a\[9:3\]'"):
        config_with(paths="a[9:3]")


@pytest.mark.parametrize(("skip", "take", "length"), [(-1, 2, 9), (3, -1, 1)])
def test_a_file_instruction_that_is_no_range_is_refused(skip: int, take: int, length: int):
    with pytest.raises(arsrc.ArsrcValueError, match=rf"no range; got skip={skip}, take={take}"):
        config_with(paths=FileInstruction("a", skip, take, length))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, write_records: Any) -> Path:
    """Folder with `s-0`, `s-1`, `s-2` of 3, 4 and 5 records of one byte, numbered through."""
    folder = tmp_path_factory.mktemp("shards")
    first = 0
    for shard, size in enumerate((3, 4, 5)):
        write_records(folder / f"s-{shard}", [bytes([first + i]) for i in range(size)])
        first += size
    return folder


@pytest.mark.parametrize(
    ("paths", "records"),
    [
        ("s-1", range(3, 7)),
        ("s-?", range(12)),
        (["s-2", "s-0"], [*range(7, 12), *range(3)]),
        (["s-2", "s-*"], [*range(7, 12), *range(12)]),
        ("s-1[1:3]", [4, 5]),
        ("s-1[1:]", [4, 5, 6]),
        ("s-1[:2]", [3, 4]),
        ("s-1[:]", range(3, 7)),
        ("s-*[1:2]", [1, 4, 8]),
        (["s-0[2:3]", "s-1[0:0]", "s-0[0:1]"], [2, 0]),
        ([FileInstruction("s-1", 2, -1, 4), FileInstruction("s-0", 0, 2, 3)], [5, 6, 0, 1]),
    ],
)
def test_records_are_numbered_as_paths_list_them(shards: Path, paths: Any, records: Any):
    def inside(path: Any) -> Any:
        if isinstance(path, FileInstruction):
            return dataclasses.replace(path, filename=shards / path.filename)
        return os.fspath(shards / path)

    full = [inside(path) for path in paths] if isinstance(paths, list) else inside(paths)
    config = ArrayRecordSourceConfig(full, 1, read=ReadOptions(read_ahead_bytes=0))
    records = list(records)
    assert arsrc.num_records(config) == len(records)
    assert arsrc.take(config, np.arange(len(records))).data[:, 0].tolist() == records
    arsrc.close(config)


def test_a_double_star_finds_files_in_nested_folders_in_sorted_order(tmp_path: Path, write_records: Any):
    for number, name in enumerate(("b/x", "a/y", "a/c/z", "x")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_records(tmp_path / f"{name}.array_record", [bytes([number])])
    config = ArrayRecordSourceConfig(f"{tmp_path}/**/*.array_record", 1)
    assert arsrc.take(config, np.arange(4)).data[:, 0].tolist() == [2, 1, 0, 3]


def test_a_name_with_glob_characters_means_the_file_of_that_name_if_there_is_one(tmp_path: Path, write_records: Any):
    odd = write_records(tmp_path / "a[1-2]*", [b"odd"])
    write_records(tmp_path / "a1", [b"one"])
    config = ArrayRecordSourceConfig(odd, 1)
    assert bytes(np.asarray(arsrc.take(config, np.arange(1)).data)[0]) == b"odd"


def test_local_files_only_names_every_missing_path(shards: Path):
    paths = [str(shards / name) for name in ("s-0", "gone", "none-*", "lost[1:2]")]
    with pytest.raises(FileNotFoundError) as caught:
        config_with(paths=paths, local_files_only=True)
    assert isinstance(caught.value, arsrc.ArsrcFileNotFoundError)
    assert f"[arsrc] paths: 3 of 4 paths match no file; got missing={paths[1:]!r}. " in str(caught.value)


def test_local_files_only_accepts_what_is_there(shards: Path):
    config_with(paths=[str(shards / "s-0"), str(shards / "s-*"), f"{shards}/s-1[0:2]"], local_files_only=True)


def test_without_local_files_only_missing_files_are_found_by_init(tmp_path: Path):
    config = config_with(paths=str(tmp_path / "gone"))
    with pytest.raises(arsrc.ArsrcFileNotFoundError, match="gone"):
        arsrc.init(config)


# Configs are values.


def rich_config(**fields: Any) -> ArrayRecordSourceConfig:
    stats = {"mean": np.arange(3.0), "nested": {"count": 3, "none": None}}
    return config_with(
        **{
            "paths": ["b", Path("a"), "c[1:2]"],
            "codec": Struct({"x": ("float32", (2, 3)), "y": "int64"}),
            "precomputed_stats": stats,
            "name": "train",
            "read": ReadOptions(num_threads=3),
        }
        | fields
    )


def test_equal_configs_are_equal_and_hash_equal():
    assert rich_config() == rich_config()
    assert hash(rich_config()) == hash(rich_config())
    assert {rich_config(): "found"}[rich_config()] == "found"


def test_paths_in_another_form_make_no_other_config():
    forms = ["a", Path("a"), ["a"], ("a",), [Path("a")]]
    assert len({config_with(paths=form) for form in forms}) == 1
    instruction = FileInstruction("a", 1, 2, 9)
    assert config_with(paths=instruction) == config_with(paths=["a[1:3]"])


CHANGES: list[dict[str, Any]] = [
    {"paths": ["a", "b"]},
    {"batch_size": 3},
    {"codec": Ragged("int32", max_length=3)},
    {"seed": 43},
    {"num_epochs": 2},
    {"shuffle_files": True},
    {"shuffle_records": True},
    {"shuffle_records": True, "shuffle_block_size": 4},
    {"shuffle_window_blocks": 8},
    {"remainder": "wrap"},
    {"exclude": [3]},
    {"stochastic": True, "stream_name": "data"},
    {"cacheable": True},
    {"precomputed_stats": {"mean": np.arange(3.0), "nested": {"count": 4, "none": None}}},
    {"precomputed_stats": {"mean": np.arange(3.0, dtype=np.float32), "nested": {"count": 3, "none": None}}},
    {"precomputed_stats": None, "batch_stats_fn": mean_of},
    {"name": None},
    {"read": ReadOptions()},
    {"on_bad_record": "mask"},
    {"select": [(0, 7)]},
    {"pack": Packing(8)},
]


@pytest.mark.parametrize("change", CHANGES, ids="-".join)
def test_replace_makes_a_changed_copy_and_leaves_the_original(change: dict[str, Any]):
    config = rich_config()
    changed = dataclasses.replace(config, **change)
    assert changed != config
    assert hash(changed) != hash(config)
    assert changed == rich_config(**change)
    assert config == rich_config()
    assert all(getattr(changed, field) is not None for field in change if change[field] is not None)


def test_every_field_but_local_files_only_is_covered_by_a_change():
    changed = {field for change in CHANGES for field in change}
    fields = {field.name for field in dataclasses.fields(ArrayRecordSourceConfig)}
    assert fields - changed == {"local_files_only"}


def test_replace_checks_the_changed_fields():
    with pytest.raises(arsrc.ArsrcValueError, match="got batch_size=0"):
        dataclasses.replace(rich_config(), batch_size=0)


def test_replace_forgets_the_hash_of_the_original():
    config = rich_config()
    hash(config)
    assert hash(dataclasses.replace(config, seed=1)) == hash(rich_config(seed=1))


def test_a_pickled_config_comes_back_equal():
    config = rich_config(precomputed_stats=None, codec=Map(first_byte, "uint8"), batch_stats_fn=mean_of)
    hash(config)
    back = pickle.loads(pickle.dumps(config))
    assert back == config
    assert hash(back) == hash(config)
    assert back.codec.element_spec() == config.codec.element_spec()


HASHES_IN_ANOTHER_PROCESS = """
import pickle, sys
import numpy as np
from arsrc import ArrayRecordSourceConfig, ReadOptions
from arsrc.codecs import Struct

theirs = pickle.loads(sys.stdin.buffer.read())
stats = {"mean": np.arange(3.0), "nested": {"count": 3, "none": None}}
codec = Struct({"x": ("float32", (2, 3)), "y": "int64"})
ours = ArrayRecordSourceConfig(
    ["b", "a", "c[1:2]"], 2, codec, precomputed_stats=stats, name="train", read=ReadOptions(num_threads=3)
)
assert ours == theirs
assert {ours: "found"}[theirs] == "found"
print(hash("the seed of string hashes"), hash(ours))
"""


@pytest.mark.processes
def test_a_config_pickled_after_hashing_can_be_looked_up_in_another_process():
    config = rich_config()
    hash(config)  # cached in this process, and of no use in the other
    done = subprocess.run(
        [sys.executable, "-P", "-c", HASHES_IN_ANOTHER_PROCESS],
        input=pickle.dumps(config),
        env=os.environ | {"PYTHONHASHSEED": "7", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    text_hash, config_hash = map(int, done.stdout.split())
    assert text_hash != hash("the seed of string hashes"), "both processes hash alike: this shows nothing"
    assert config_hash != hash(config)


@pytest.mark.parametrize(
    ("config", "shown"),
    [
        (config_with(paths="/a"), "paths='/a', batch_size=2"),
        (config_with(paths=["/a", "/b[1:2]"]), "paths=('/a', '/b[1:2]'), batch_size=2"),
        (config_with(paths=["/a"] * 1000), "paths=<'/a' and 999 more>, batch_size=2"),
        (
            config_with(paths="/a", exclude=[1, (7, 420)], shuffle_records=True, batch_stats_fn=mean_of),
            "paths='/a', batch_size=2, shuffle_records=True, exclude=<414 records>, batch_stats_fn=mean_of",
        ),
        (
            config_with(paths="/a", precomputed_stats={"mean": np.zeros(10_000)}, read=ReadOptions(num_threads=3)),
            "paths='/a', batch_size=2, precomputed_stats=<mean>, read=ReadOptions(num_threads=3)",
        ),
        (
            config_with(paths="/a", codec=Struct({"x": ("float32", (2, 3)), "y": "int64"})),
            "paths='/a', batch_size=2, codec=Struct({'x': ('float32', (2, 3)), 'y': 'int64'})",
        ),
        (
            config_with(paths="/a", codec=Map(first_byte, {"x": ("uint8", 3)})),
            "paths='/a', batch_size=2, codec=Map(fn=first_byte, spec={'x': uint8[3]})",
        ),
    ],
    ids=range(7),
)
def test_a_config_shows_what_is_not_as_by_default(config: ArrayRecordSourceConfig, shown: str):
    assert repr(config) == f"ArrayRecordSourceConfig({shown})"


def test_read_options_show_what_is_not_as_by_default():
    assert repr(ReadOptions()) == "ReadOptions()"
    assert repr(ReadOptions(num_threads=2, checksum="always")) == "ReadOptions(checksum='always')"


# Statistics inside a config.


def test_precomputed_stats_read_like_the_mapping_they_were():
    stats = rich_config().precomputed_stats
    assert stats is not None
    assert list(stats) == ["mean", "nested"]
    assert len(stats) == 2
    assert stats["mean"].tolist() == [0.0, 1.0, 2.0]
    assert stats["nested"] == {"count": 3, "none": None}
    with pytest.raises(KeyError):
        stats["missing"]


def test_precomputed_stats_cannot_be_set():
    with pytest.raises(TypeError):
        rich_config().precomputed_stats["mean"] = 1.0  # type: ignore[index]


def test_precomputed_stats_do_not_follow_the_dict_they_came_from():
    source: dict[str, Any] = {"mean": 1.0}
    config = config_with(precomputed_stats=source)
    source["mean"] = 2.0
    assert config.precomputed_stats == config_with(precomputed_stats={"mean": 1.0}).precomputed_stats
    assert config.precomputed_stats["mean"] == 1.0  # type: ignore[index]


def test_precomputed_stats_do_not_follow_arrays_that_were_put_in_or_given_out():
    mean = np.zeros(3)
    config = config_with(precomputed_stats={"mean": mean, "nested": {"low": [mean]}})
    mean += 1
    config.precomputed_stats["mean"][:] = 2  # type: ignore[index]
    config.precomputed_stats["nested"]["low"].append(3)  # type: ignore[index]
    assert config == config_with(precomputed_stats={"mean": np.zeros(3), "nested": {"low": [np.zeros(3)]}})
    assert not config.precomputed_stats["mean"].any()  # type: ignore[index]
    assert len(config.precomputed_stats["nested"]["low"]) == 1  # type: ignore[index]


def test_precomputed_stats_of_what_dataset_statistics_gives_compare_by_content():
    def config_of(mean: float) -> ArrayRecordSourceConfig:
        leaf = arsrc.LeafStatistics(3, np.full(2, mean), np.ones(2), np.zeros(2), np.ones(2))
        return config_with(precomputed_stats={"x": leaf})

    assert config_of(1) == config_of(1) == pickle.loads(pickle.dumps(config_of(1)))
    assert hash(config_of(1)) == hash(config_of(1))
    assert config_of(1) != config_of(2)


def test_a_config_that_is_made_in_a_trace_holds_arrays():
    mean, made = jnp.zeros(3), []

    def make(scale: Any) -> Any:
        made.append(config_with(precomputed_stats={"mean": mean}))
        return scale * arsrc.get_statistics(made[0])["mean"]

    jax.jit(make)(2.0)
    assert made[0].precomputed_stats["mean"].tolist() == [0.0] * 3


def test_precomputed_stats_compare_by_the_content_of_arrays_of_any_library():
    left = config_with(precomputed_stats={"mean": np.ones(3, np.float32), "nan": np.float32("nan")})
    right = config_with(precomputed_stats={"nan": np.float32("nan"), "mean": jnp.ones(3, jnp.float32)})
    assert left == right
    assert hash(left) == hash(right)


def test_precomputed_stats_of_frozen_stats_are_taken_as_they_are():
    config = rich_config()
    assert dataclasses.replace(config, seed=1).precomputed_stats == config.precomputed_stats


def test_precomputed_stats_with_names_that_do_not_sort_are_an_arsrc_error():
    with pytest.raises(arsrc.ArsrcTypeError, match=r"^\[arsrc\] precomputed_stats: "):
        config_with(precomputed_stats={1: 2.0, "mean": 3.0})
