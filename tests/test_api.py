"""The public surface: names, parameters, docstrings."""

import dataclasses
import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from typing import Any

import pytest

import arsrc
import arsrc.codecs

PACKAGE = Path(arsrc.__file__).parent

# Every public function with its parameters, in order, and their defaults. A change here is a change for
# users: it belongs into the changelog, and a renamed or moved parameter breaks their code.
FUNCTIONS = {
    # core
    "init": "(config, key=None)",
    "next_batch": "(config, state, *, axis_name=None, resident=None)",
    "next_batches": "(config, state, num_batches, *, axis_name=None, resident=None)",
    "batch_at": "(config, state, start, size=None)",
    "take": "(config, record_ids)",
    "peek": "(config, state)",
    # state arithmetic
    "advance": "(config, state, steps=1)",
    "state_at": "(config, step, key=None)",
    "step_of": "(config, state)",
    "is_exhausted": "(config, state)",
    "record_ids": "(config, state, *, axis_name=None)",
    "batch_mask": "(config, state, *, axis_name=None)",
    "record_keys": "(config, state, batch)",
    "locate": "(config, state, record_id)",
    # sizes and specs
    "num_records": "(config)",
    "steps_per_epoch": "(config)",
    "total_steps": "(config)",
    "element_spec": "(config)",
    "batch_spec": "(config)",
    "check": "(config, fingerprint)",
    "fingerprint": "(config)",
    # loops
    "scan_epoch": (
        "(config, state, carry, body, *, batches_per_fetch=1, axis_name=None, mesh=None, resident=None, unroll=1)"
    ),
    "scan_steps": (
        "(config, state, carry, body, num_steps, *, batches_per_fetch=1, axis_name=None, mesh=None, "
        "resident=None, unroll=1)"
    ),
    "iterate": "(config, state=None, *, num_batches=None, device=None)",
    # devices and hosts
    "next_global_batch": "(config, state, *, mesh, axis_name, num_batches=None)",
    "load_resident": "(config, *, device=None)",
    # checkpoints
    "to_state_dict": "(config, state)",
    "from_state_dict": "(config, state_dict)",
    # without a config
    "read_records": "(paths, ids)",
    # statistics and housekeeping
    "operation_stats": "(config, state, since=None)",
    "compute_statistics": "(config, data)",
    "get_statistics": "(config, computed=None)",
    "dataset_statistics": "(config)",
    "requires_rng_streams": "(config)",
    "ensure_rng_streams": "(config, names)",
    "reset_cache": "(config)",
    "close": "(config=None)",
    "select_records": "(config, predicate)",
    "origin": "(config, record_ids)",
    "source_counts": "(config, state)",
    "source_ids": "(config, record_ids)",
    "io_metrics": "(config)",
    "bad_records": "(config)",
    "explain": "(config)",
    # writing
    "write_array_record": ("(path, elements, *, codec=Bytes(), num_shards=1, options='group_size:1,uncompressed')"),
}

CLASSES = {
    "ArrayRecordSourceConfig": (
        "(paths, batch_size, codec=Bytes(), seed=42, num_epochs=-1, shuffle_files=False, "
        "shuffle_records=False, shuffle_block_size=1, shuffle_window_blocks=32, remainder='drop', "
        "exclude=(), stochastic=False, stream_name=None, local_files_only=False, cacheable=False, "
        "batch_stats_fn=None, precomputed_stats=None, name=None, read=ReadOptions(), "
        "on_bad_record='raise', select=None, pack=None)"
    ),
    "ReadOptions": (
        "(num_threads=2, read_ahead_bytes=268435456, max_open_files=256, cache_bytes=4294967296, "
        "cache_dir=None, checksum='auto', ahead='auto', timeout_seconds=None)"
    ),
    "MixtureConfig": (
        "(sources, weights=None, *, batch_size, stages=(), stop='first', seed=42, stochastic=False, "
        "stream_name=None, name=None, batch_stats_fn=None, precomputed_stats=None)"
    ),
    "Packing": "(length, how='split', *, longer='cut', end_of_document=None, pad_value=0, targets=False)",
    "SourceState": "(index, epoch, key)",
    "Batch": "(data, mask, record_ids, epochs)",
    "LeafStatistics": "(count, mean, variance, min, max)",
    "Origin": "(path, position, record_id, start=0, stop=None, source=0)",
    "Selection": "(ids, num_records=None, data=None)",
    "BadRecords": "(ids=(), paths=(), positions=(), reasons=(), counts=(), sources=())",
}

ERRORS = {
    "ArsrcError": Exception,
    "ArsrcValueError": ValueError,
    "ArsrcTypeError": TypeError,
    "ArsrcIndexError": IndexError,
    "ArsrcFileNotFoundError": FileNotFoundError,
    "ArsrcReadError": OSError,
    "ArsrcWriteError": OSError,
    "RecordError": ValueError,
}

CODECS = {
    "Bytes": "(num_bytes=None)",
    "Struct": "(fields)",
    "Ragged": "(dtype='uint8', *, max_length, pad_value=0, overflow='error')",
    "Image": "(shape, fit='resize', *, dtype='uint8', orient=False, format='jpeg', quality=95)",
    "TFExample": "(features, default=None)",
    "MsgPack": "(fields, default=None)",
    "Json": "(fields, default=None)",
    "Npy": "(spec=None)",
    "Npz": "(fields)",
    "Map": "(fn, spec=None, encode_fn=None, version=None, num_processes=0)",
    "MapBatch": "(fn, spec=None, encode_fn=None, version=None)",
    "RecordBatch": "(data, offsets)",
}

TFDS = {
    "source": "(folder, split='train', *, batch_size, features=None, **options)",
    "info": "(folder)",
    "even_splits": "(split, n, *, drop_remainder=False)",
    "DatasetInfo": "(name, version, splits, features, folder)",
    "EvenSplit": "(split, index, num_parts, drop_remainder=False)",
    "Feature": (
        "(kind, dtype='', shape=(), *, sequence_lengths=(), encoding='', optional=False, num_classes=None, "
        "class_names=())"
    ),
}

CONFIG_ONLY = {"config", "state"}


def signature(function: Any) -> str:
    """The parameters of a callable without their types."""
    found = inspect.signature(function)
    bare = [p.replace(annotation=p.empty) for p in found.parameters.values() if p.name != "self"]
    return str(found.replace(parameters=bare, return_annotation=found.empty))


def public_names(module: Any) -> set[str]:
    return {name for name, value in vars(module).items() if not (name.startswith("_") or inspect.ismodule(value))}


# Names and parameters.


def test_the_public_names_are_these_and_no_others():
    assert public_names(arsrc) == {*FUNCTIONS, *CLASSES, *ERRORS}


def test_what_completion_and_a_star_import_give_is_the_public_names_and_the_modules():
    namespace: dict[str, Any] = {}
    exec("from arsrc import *", namespace)
    assert namespace.keys() - {"__builtins__"} == set(dir(arsrc)) == {*FUNCTIONS, *CLASSES, *ERRORS, "codecs", "tfds"}


def test_help_on_a_config_shows_fields_alone():
    shown = {name for name in dir(arsrc.ArrayRecordSourceConfig("a", 1)) if not name.startswith("_")}
    assert shown == {field.name for field in dataclasses.fields(arsrc.ArrayRecordSourceConfig)}


def test_the_public_names_of_the_codecs_are_these_and_no_others():
    assert public_names(arsrc.codecs) == {*CODECS, "Codec", "check_batch"}
    assert set(dir(arsrc.codecs)) == set(arsrc.codecs.__all__) == public_names(arsrc.codecs)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_parameters_of_a_function_keep_names_order_and_defaults(name: str):
    assert signature(getattr(arsrc, name)) == FUNCTIONS[name]


@pytest.mark.parametrize("name", CLASSES)
def test_fields_of_a_class_keep_names_order_and_defaults(name: str):
    assert signature(getattr(arsrc, name)) == CLASSES[name]


@pytest.mark.parametrize("name", CODECS)
def test_parameters_of_a_codec_keep_names_order_and_defaults(name: str):
    assert signature(getattr(arsrc.codecs, name)) == CODECS[name]


def test_the_public_names_for_folders_of_tfds_are_these_and_no_others():
    assert public_names(arsrc.tfds) == set(dir(arsrc.tfds)) == set(arsrc.tfds.__all__) == set(TFDS)


@pytest.mark.parametrize("name", TFDS)
def test_parameters_for_folders_of_tfds_keep_names_order_and_defaults(name: str):
    assert signature(getattr(arsrc.tfds, name)) == TFDS[name]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_config_and_state_come_first_in_this_order(name: str):
    parameters = list(inspect.signature(getattr(arsrc, name)).parameters)
    if "config" in parameters:
        assert parameters[0] == "config"
    if "state" in parameters:
        assert parameters[1] == "state"


@pytest.mark.parametrize("name", [*FUNCTIONS, *CLASSES])
def test_every_parameter_and_result_has_a_type(name: str):
    target = getattr(arsrc, name)
    found = inspect.signature(target)
    bare = [p.name for p in found.parameters.values() if p.annotation is p.empty and p.name != "self"]
    assert not bare
    if inspect.isfunction(target):
        assert found.return_annotation is not found.empty


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_public_classes_are_frozen_dataclasses(name: str):
    cls = getattr(arsrc, name)
    assert dataclasses.is_dataclass(cls)
    assert cls.__dataclass_params__.frozen


def test_there_is_a_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+", arsrc.__version__)


def test_the_package_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").exists()


# Errors.


@pytest.mark.parametrize("name", ERRORS)
def test_a_public_error_derives_from_the_base_class_and_a_built_in_kind(name: str):
    error = getattr(arsrc, name)
    assert issubclass(error, arsrc.ArsrcError)
    assert issubclass(error, ERRORS[name])


def test_every_error_class_of_the_package_that_begins_with_its_name_derives_from_the_base_class():
    names = [info.name for info in pkgutil.walk_packages(arsrc.__path__, "arsrc.")]
    found = {
        name: value
        for module in map(importlib.import_module, names)
        for name, value in vars(module).items()
        if inspect.isclass(value) and name.startswith("Arsrc")
    }
    assert set(found) == {name for name in ERRORS if name.startswith("Arsrc")}
    assert all(issubclass(kind, arsrc.ArsrcError) for kind in found.values())


# Docstrings.


def sections(text: str) -> dict[str, list[str]]:
    """Google-style sections of a docstring, each with the names of its entries."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in inspect.cleandoc(text).splitlines():
        if heading := re.fullmatch(r"(Args|Attributes|Returns|Raises|Yields):", line):
            current = found.setdefault(heading[1], [])
        elif entry := re.match(r" {4}\*{0,2}([\w.]+): ", line):
            current.append(entry[1])
        elif line and not line.startswith(" "):
            current = []
    return found


@pytest.mark.parametrize("name", [*FUNCTIONS, *CLASSES, *ERRORS])
def test_every_public_name_has_a_docstring_of_its_own(name: str):
    target = getattr(arsrc, name)
    text = vars(target).get("__doc__") if inspect.isclass(target) else target.__doc__
    assert text, name
    first = inspect.cleandoc(text).splitlines()[0]
    assert first[0].isupper()
    assert first.rstrip().endswith((".", ",")) or len(first) > 80, first
    assert not text.startswith(f"{name}("), "generated by dataclass"


@pytest.mark.parametrize("name", arsrc.codecs.__all__)
def test_every_public_name_of_the_codecs_has_a_docstring_of_its_own(name: str):
    text = getattr(arsrc.codecs, name).__doc__
    assert text
    assert not text.startswith(f"{name}("), "generated by dataclass"


@pytest.mark.parametrize("name", TFDS)
def test_every_public_name_for_folders_of_tfds_has_a_docstring_that_lists_all(name: str):
    target = getattr(arsrc.tfds, name)
    found = sections(target.__doc__)
    if inspect.isclass(target):
        assert found["Attributes"] == [field.name for field in dataclasses.fields(target)]
    else:
        assert found["Args"] == list(inspect.signature(target).parameters)
        assert set(ERRORS).issuperset(found["Raises"])
        assert found["Returns"] or "Returns:" in target.__doc__


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_docstring_lists_every_argument_where_there_is_more_than_config_and_state(name: str):
    function = getattr(arsrc, name)
    parameters = list(inspect.signature(function).parameters)
    listed = sections(function.__doc__).get("Args")
    if listed is not None or not CONFIG_ONLY.issuperset(parameters):
        assert listed == parameters


@pytest.mark.parametrize("name", CLASSES)
def test_a_docstring_lists_every_attribute_of_a_class(name: str):
    cls = getattr(arsrc, name)
    assert sections(cls.__doc__)["Attributes"] == [field.name for field in dataclasses.fields(cls)]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_docstring_says_what_comes_back(name: str):
    function = getattr(arsrc, name)
    if inspect.signature(function).return_annotation is not None:
        assert "Return" in function.__doc__ or "Returns" in sections(function.__doc__), name


def test_every_section_that_names_errors_names_public_ones():
    known = set(ERRORS) | {"jax.errors.JaxRuntimeError"}
    for name in [*FUNCTIONS, *CLASSES]:
        assert known.issuperset(sections(getattr(arsrc, name).__doc__).get("Raises", [])), name
