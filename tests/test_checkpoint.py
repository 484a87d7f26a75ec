"""Fingerprints, states as plain values, and states inside Orbax checkpoints."""

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import arsrc
from arsrc import ArrayRecordSourceConfig, ReadOptions
from arsrc.codecs import Ragged

RECORDS = [bytes([i, 2 * i, 3 * i % 256]) for i in range(50)]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, write_records: Any) -> str:
    return write_records(tmp_path_factory.mktemp("data") / "a.array_record", RECORDS)


@pytest.fixture(scope="module")
def config(path: str) -> ArrayRecordSourceConfig:
    return ArrayRecordSourceConfig(path, 8, shuffle_records=True, remainder="wrap")


@pytest.fixture(scope="module")
def stored(config: ArrayRecordSourceConfig) -> ArrayRecordSourceConfig:
    """The same data, unshuffled."""
    return dataclasses.replace(config, shuffle_records=False)


def same_state(left: arsrc.SourceState, right: arsrc.SourceState) -> bool:
    leaves = [
        (state.index, state.epoch, jax.random.key_data(state.key), jax.random.key_impl(state.key))
        for state in (left, right)
    ]
    return all(
        np.array_equal(a, b) and getattr(a, "dtype", 0) == getattr(b, "dtype", 0) for a, b in zip(*leaves, strict=True)
    )


# Fingerprints: what leaves them as they are.


def test_a_fingerprint_is_one_line_of_text_that_says_how_many_records_there_are(
    config: ArrayRecordSourceConfig,
):
    text = arsrc.fingerprint(config)
    assert isinstance(text, str)
    assert "\n" not in text
    assert text.startswith("50 records, ")


def test_a_fingerprint_is_the_same_each_time_and_after_opening_anew(config: ArrayRecordSourceConfig):
    before = arsrc.fingerprint(config)
    assert arsrc.fingerprint(config) == before
    arsrc.close(config)
    assert arsrc.fingerprint(config) == before


@pytest.mark.parametrize(
    "change",
    [
        {"name": "train"},
        {"read": ReadOptions(num_threads=1, read_ahead_bytes=0, checksum="always")},
        {"seed": 7},
        {"batch_size": 5},
        {"remainder": "drop"},
        {"num_epochs": 3},
        {"cacheable": True},
        {"codec": Ragged(max_length=4)},
        {"precomputed_stats": {"mean": 1.0}},
        {"batch_stats_fn": len},
        {"stochastic": True, "stream_name": "data"},
        {"local_files_only": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_is_neither_data_nor_order_does_not_enter_the_fingerprint(
    config: ArrayRecordSourceConfig, change: dict[str, Any]
):
    changed = dataclasses.replace(config, **change)
    assert arsrc.fingerprint(changed) == arsrc.fingerprint(config)
    arsrc.close(changed)


def test_moved_and_copied_files_have_the_same_fingerprint(config: ArrayRecordSourceConfig, path: str, tmp_path: Path):
    copy = shutil.copy(path, tmp_path / "copy")
    moved = shutil.move(shutil.copy(path, tmp_path / "b"), tmp_path / "elsewhere")
    for place in (copy, moved, f"{tmp_path}/co*"):
        assert arsrc.fingerprint(dataclasses.replace(config, paths=place)) == arsrc.fingerprint(config)


def test_a_slice_of_all_records_has_the_fingerprint_of_the_whole_file(config: ArrayRecordSourceConfig, path: str):
    for form in (f"{path}[:]", f"{path}[0:50]"):
        assert arsrc.fingerprint(dataclasses.replace(config, paths=form)) == arsrc.fingerprint(config)


# Fingerprints: what changes them.


@pytest.mark.parametrize("options", ["group_size:1", "group_size:1,uncompressed", "group_size:25,zstd"])
@pytest.mark.parametrize("number", [0, 17, 49])
def test_one_flipped_bit_in_data_that_is_written_anew_changes_the_fingerprint(
    stored: ArrayRecordSourceConfig, tmp_path: Path, write_records: Any, options: str, number: int
):
    original = write_records(tmp_path / "a", RECORDS, options)
    records = list(RECORDS)
    records[number] = bytes([records[number][0] ^ 1]) + records[number][1:]
    other = write_records(tmp_path / "b", records, options)
    prints = [arsrc.fingerprint(dataclasses.replace(stored, paths=place)) for place in (original, other)]
    assert prints[0] != prints[1]


@pytest.mark.parametrize(
    "change",
    [
        {"shuffle_records": False},
        {"shuffle_records": False, "shuffle_files": True},
        {"shuffle_block_size": 4},
        {"shuffle_block_size": 5},
        {"shuffle_block_size": 4, "shuffle_window_blocks": 2},
    ],
    ids=str,
)
def test_another_order_has_another_fingerprint(config: ArrayRecordSourceConfig, change: dict[str, Any]):
    seen = SEEN_ORDERS.setdefault(arsrc.fingerprint(config), {})
    text = arsrc.fingerprint(dataclasses.replace(config, **change))
    assert text != arsrc.fingerprint(config)
    assert seen.setdefault(text, str(change)) == str(change)


SEEN_ORDERS: dict[str, dict[str, str]] = {}


def test_the_window_does_not_matter_where_there_are_no_blocks(config: ArrayRecordSourceConfig):
    other = dataclasses.replace(config, shuffle_window_blocks=8)
    assert arsrc.fingerprint(other) == arsrc.fingerprint(config)


def test_other_slices_counts_and_file_orders_have_other_fingerprints(
    stored: ArrayRecordSourceConfig, path: str, tmp_path: Path, write_records: Any
):
    other = write_records(tmp_path / "other", [bytes(3)] * 50)
    fewer = write_records(tmp_path / "fewer", RECORDS[:49])
    places = [
        path,
        fewer,
        f"{path}[0:49]",
        f"{path}[1:50]",
        f"{path}[0:25]",
        [f"{path}[0:25]", f"{path}[25:50]"],
        [f"{path}[25:50]", f"{path}[0:25]"],
        [path, path],
        [path, other],
        [other, path],
    ]
    prints = [arsrc.fingerprint(dataclasses.replace(stored, paths=place)) for place in places]
    assert len(set(prints)) == len(places)


def test_the_fingerprint_of_a_large_file_notices_a_change_where_the_format_keeps_its_hashes(
    stored: ArrayRecordSourceConfig, tmp_path: Path, write_records: Any
):
    rng = np.random.default_rng(0)
    records = [rng.bytes(1000) for _ in range(2000)]
    prints = []
    for name, extra in (("a", b""), ("b", b"x"), ("c", b"xy")):
        changed = [*records[:1000], records[1000] + extra, *records[1001:]]
        place = write_records(tmp_path / name, changed, "group_size:1,uncompressed")
        prints.append(arsrc.fingerprint(dataclasses.replace(stored, paths=place, codec=Ragged(max_length=1002))))
    assert len(set(prints)) == 3


# States as plain values.


@pytest.mark.parametrize("step", [0, 1, 6, 7, 1000])
def test_a_state_survives_json(config: ArrayRecordSourceConfig, step: int):
    state = arsrc.state_at(config, step)
    text = json.dumps(arsrc.to_state_dict(config, state))
    back = arsrc.from_state_dict(config, json.loads(text))
    assert same_state(back, state)
    expected, batch = arsrc.next_batch(config, state)
    after, restored = arsrc.next_batch(config, back)
    assert same_state(after, expected)
    assert np.array_equal(restored.data, batch.data)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_keys_of_every_implementation_survive(config: ArrayRecordSourceConfig, impl: str):
    state = arsrc.init(config, jax.random.key(5, impl=impl))
    back = arsrc.from_state_dict(config, json.loads(json.dumps(arsrc.to_state_dict(config, state))))
    assert same_state(back, state)
    assert back.key.dtype == state.key.dtype


def test_a_state_dict_holds_plain_values_only(config: ArrayRecordSourceConfig):
    state_dict = arsrc.to_state_dict(config, arsrc.state_at(config, 7))
    assert state_dict == {
        "version": 1,
        "index": 6,
        "epoch": 1,
        "key_impl": "threefry2x32",
        "key_words": [0, 42],
        "fingerprint": arsrc.fingerprint(config),
        "exclude": [],
    }
    assert all(type(value) in (int, str, list) for value in state_dict.values())


def test_the_largest_state_survives(config: ArrayRecordSourceConfig):
    largest = np.uint32(2**32 - 1)
    state = arsrc.SourceState(
        index=jnp.uint32(3), epoch=jnp.asarray(largest), key=jax.random.wrap_key_data(jnp.full(2, largest))
    )
    back = arsrc.from_state_dict(config, json.loads(json.dumps(arsrc.to_state_dict(config, state))))
    assert same_state(back, state)


def test_restoring_twice_gives_the_same_stream(config: ArrayRecordSourceConfig):
    saved = arsrc.to_state_dict(config, arsrc.state_at(config, 3))
    once = arsrc.from_state_dict(config, saved)
    twice = arsrc.from_state_dict(config, arsrc.to_state_dict(config, once))
    assert same_state(once, twice)
    assert np.array_equal(arsrc.record_ids(config, once), arsrc.record_ids(config, twice))


def test_moved_files_and_another_batch_size_go_on_at_the_same_record(
    config: ArrayRecordSourceConfig, path: str, tmp_path: Path
):
    saved = arsrc.to_state_dict(config, arsrc.state_at(config, 2))
    moved = dataclasses.replace(config, paths=shutil.copy(path, tmp_path / "moved"), batch_size=4, name="new")
    back = arsrc.from_state_dict(moved, saved)
    expected = np.asarray(arsrc.record_ids(config, arsrc.state_at(config, 2)))
    assert arsrc.record_ids(moved, back).tolist() == expected[:4].tolist()
    assert arsrc.next_batch(moved, back)[1].record_ids.tolist() == expected[:4].tolist()


# What is refused.


def test_a_state_of_other_data_or_another_order_is_refused_with_both_sides_on_aligned_lines(
    config: ArrayRecordSourceConfig, stored: ArrayRecordSourceConfig, path: str
):
    saved = arsrc.to_state_dict(config, arsrc.init(config))
    others = [
        stored,
        dataclasses.replace(config, paths=f"{path}[0:49]"),
        dataclasses.replace(config, shuffle_block_size=2),
    ]
    for other in others:
        with pytest.raises(ValueError, match=r"^\[arsrc\] from_state_dict: ") as caught:
            arsrc.from_state_dict(other, saved)
        assert isinstance(caught.value, arsrc.ArsrcValueError)
        text = str(caught.value)
        columns = [
            line.index(side)
            for side in (arsrc.fingerprint(config), arsrc.fingerprint(other))
            for line in text.splitlines()
            if side in line
        ]
        assert len(columns) == 2, text
        assert columns[0] == columns[1], text
        assert not any(line.startswith(".") for line in text.splitlines()), text


def test_check_refuses_other_data_and_other_orders_and_nothing_else(
    config: ArrayRecordSourceConfig, stored: ArrayRecordSourceConfig, path: str
):
    excluding = dataclasses.replace(config, exclude=[3, (7, 9)])
    alike = [config, excluding, dataclasses.replace(config, batch_size=5, seed=1, remainder="drop")]
    others = [stored, dataclasses.replace(config, paths=f"{path}[0:49]")]
    for kept in map(arsrc.fingerprint, (config, excluding)):
        for same in alike:
            arsrc.check(same, kept + "\n")  # as a text file keeps it
        for other in others:
            with pytest.raises(arsrc.ArsrcValueError, match=r"^\[arsrc\] check: ") as caught:
                arsrc.check(other, kept)
            assert arsrc.fingerprint(config) in str(caught.value)
            assert arsrc.fingerprint(other) in str(caught.value)


@pytest.mark.parametrize("other", [None, [], "state", 3])
def test_what_is_no_mapping_is_a_type_error(config: ArrayRecordSourceConfig, other: Any):
    with pytest.raises(arsrc.ArsrcTypeError, match=r"^\[arsrc\] from_state_dict: state_dict must be a mapping; got "):
        arsrc.from_state_dict(config, other)


def test_missing_entries_are_all_named(config: ArrayRecordSourceConfig):
    saved = arsrc.to_state_dict(config, arsrc.init(config))
    del saved["epoch"], saved["key_words"]
    with pytest.raises(arsrc.ArsrcValueError, match=re.escape("got missing=['epoch', 'key_words']")):
        arsrc.from_state_dict(config, saved)


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("version", 2),
        ("version", None),
        ("index", -1),
        ("index", 2**32),
        ("index", 1.0),
        ("index", "1"),
        ("index", True),
        ("epoch", 2**32),
        ("epoch", None),
        ("key_words", [1]),
        ("key_words", [1, 2, 3]),
        ("key_words", [-1, 2]),
        ("key_words", [2**32, 0]),
        ("key_words", "words"),
        ("key_words", [[1, 2]]),
        ("key_words", [1.5, 2.5]),
        ("key_impl", "rot13"),
        ("key_impl", "rbg"),
        ("key_impl", 3),
        ("fingerprint", ""),
        ("fingerprint", None),
        ("exclude", None),
        ("exclude", [3]),
        ("exclude", [[1, 2.5]]),
    ],
)
def test_a_damaged_entry_is_refused_and_shown(config: ArrayRecordSourceConfig, entry: str, value: Any):
    saved = arsrc.to_state_dict(config, arsrc.init(config)) | {entry: value}
    with pytest.raises(arsrc.ArsrcValueError, match=r"^\[arsrc\] from_state_dict: ") as caught:
        arsrc.from_state_dict(config, saved)
    assert str(value) in str(caught.value)


def test_an_index_beyond_the_data_goes_on_with_the_next_epoch(config: ArrayRecordSourceConfig):
    saved = arsrc.to_state_dict(config, arsrc.init(config)) | {"index": 50}
    back = arsrc.from_state_dict(config, saved)
    assert arsrc.record_ids(config, back).tolist() == (
        arsrc.record_ids(config, dataclasses.replace(back, index=jnp.uint32(0), epoch=jnp.uint32(1))).tolist()
    )


def test_a_traced_state_cannot_be_saved(config: ArrayRecordSourceConfig):
    with pytest.raises(arsrc.ArsrcTypeError, match=r"^\[arsrc\] to_state_dict: runs on the host"):
        jax.jit(lambda state: arsrc.to_state_dict(config, state))(arsrc.init(config))


# Orbax.


def train_state(config: ArrayRecordSourceConfig, step: int) -> dict[str, Any]:
    return {"params": {"w": jnp.arange(3.0)}, "source": arsrc.state_at(config, step), "step": jnp.int32(step)}


def test_orbax_saves_and_restores_a_state_inside_the_train_state(config: ArrayRecordSourceConfig, tmp_path: Path):
    ocp = pytest.importorskip("orbax.checkpoint")
    saved = train_state(config, 5)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "saved", saved)
        checkpointer.wait_until_finished()
        back = checkpointer.restore(tmp_path / "saved", train_state(config, 0))
    assert jax.tree.structure(back) == jax.tree.structure(saved)
    assert same_state(back["source"], saved["source"])
    state, batch = arsrc.next_batch(config, back["source"])
    expected, same = arsrc.next_batch(config, saved["source"])
    assert same_state(state, expected)
    assert np.array_equal(batch.data, same.data)


def test_an_orbax_manager_restores_the_step_that_is_asked_for(config: ArrayRecordSourceConfig, tmp_path: Path):
    ocp = pytest.importorskip("orbax.checkpoint")
    with ocp.CheckpointManager(tmp_path / "steps") as manager:
        for step in (2, 9):
            manager.save(step, args=ocp.args.StandardSave(train_state(config, step)))
        manager.wait_until_finished()
        args = ocp.args.StandardRestore(train_state(config, 0))
        restored = {step: manager.restore(step, args=args)["source"] for step in (2, 9)}
    for step, state in restored.items():
        assert same_state(state, arsrc.state_at(config, step))
        assert int(arsrc.step_of(config, state)) == step


def test_a_file_that_was_replaced_has_another_fingerprint(config: ArrayRecordSourceConfig, tmp_path: Path):
    path = tmp_path / "replaced"
    arsrc.write_array_record(path, [bytes(3)] * 40)
    replaced = ArrayRecordSourceConfig(path, 4)
    before = arsrc.fingerprint(replaced)
    state = arsrc.init(replaced)
    arsrc.write_array_record(path, [bytes(3)] * 39 + [b"new"])
    assert arsrc.fingerprint(replaced) != before
    assert arsrc.to_state_dict(replaced, state)["fingerprint"] == arsrc.fingerprint(replaced)
