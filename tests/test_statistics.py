"""Statistics: of what was served, derived from states, and of what a data set holds, against NumPy."""

import dataclasses
import json
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import arsrc
from arsrc import ArrayRecordSourceConfig, ReadOptions
from arsrc.codecs import Bytes, Map, Ragged, Struct

NUM_RECORDS = 23
CODEC = Struct({"image": ("uint8", (2, 3)), "label": "int32", "weight": "float32", "flag": "bool"})

MakeConfig = Callable[..., ArrayRecordSourceConfig]


def elements(num_records: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(num_records)
    return {
        "image": rng.integers(0, 256, (num_records, 2, 3), dtype=np.uint8),
        "label": rng.integers(-(2**31), 2**31, num_records, dtype=np.int32),
        "weight": rng.normal(1000, 1, num_records).astype(np.float32),
        "flag": rng.random(num_records) < 0.3,
    }


@pytest.fixture(scope="module")
def make_config(tmp_path_factory: pytest.TempPathFactory) -> MakeConfig:
    path = tmp_path_factory.mktemp("data") / "a.array_record"
    arsrc.write_array_record(path, elements(NUM_RECORDS), codec=CODEC)

    def make(**fields: Any) -> ArrayRecordSourceConfig:
        return ArrayRecordSourceConfig(**({"paths": path, "batch_size": 5, "codec": CODEC} | fields))

    return make


def counted(config: ArrayRecordSourceConfig, start: arsrc.SourceState, num_steps: int) -> tuple[arsrc.SourceState, int]:
    """The slow, obvious way: take every batch and count its valid rows."""
    state, rows = start, 0
    for _ in range(num_steps):
        rows += int(arsrc.batch_mask(config, state).sum())
        state = arsrc.advance(config, state)
    return state, rows


# What was served.


@pytest.mark.parametrize(
    ("remainder", "batch_size"),
    [
        (remainder, size)
        for remainder in ("drop", "pad", "wrap")
        for size in (5, 23, 40)
        if (remainder, size) != ("drop", 40)
    ],
)
@pytest.mark.parametrize("num_epochs", [-1, 2])
def test_applied_count_is_the_number_of_rows_served(
    make_config: MakeConfig, remainder: str, batch_size: int, num_epochs: int
):
    config = make_config(remainder=remainder, num_epochs=num_epochs, batch_size=batch_size)
    first = arsrc.init(config)
    for num_steps in (0, 1, 4, 5, 9, 30):
        state, rows = counted(config, first, num_steps)
        stats = arsrc.operation_stats(config, state)
        assert stats["applied_count"] == rows, num_steps


def test_skipped_count_is_the_remainder_of_each_epoch_that_is_over(make_config: MakeConfig):
    config = make_config(remainder="drop")
    found = [arsrc.operation_stats(config, arsrc.state_at(config, step))["skipped_count"] for step in (0, 3, 4, 5, 40)]
    # Epochs of 4 batches; 3 of 23 records are passed over at the end of each.
    assert found == [0, 0, 3, 3, 30]


@pytest.mark.parametrize("remainder", ["pad", "wrap"])
def test_nothing_is_skipped_where_no_remainder_is_dropped(make_config: MakeConfig, remainder: str):
    config = make_config(remainder=remainder)
    stats = arsrc.operation_stats(config, arsrc.state_at(config, 1000))
    assert stats["skipped_count"] == 0


def test_after_the_last_epoch_all_records_are_served_or_skipped(make_config: MakeConfig):
    config = make_config(remainder="drop", num_epochs=3)
    stats = arsrc.operation_stats(config, arsrc.state_at(config, 10_000))
    assert stats == {"applied_count": 3 * 20, "skipped_count": 3 * 3}


def test_counting_since_a_state_is_the_reset(make_config: MakeConfig):
    config = make_config(remainder="drop")
    since = arsrc.state_at(config, 3)
    later, rows = counted(config, since, 9)
    stats = arsrc.operation_stats(config, later, since)
    assert stats["applied_count"] == rows == 45
    total, before = (arsrc.operation_stats(config, state) for state in (later, since))
    assert stats == {name: total[name] - before[name] for name in total}
    assert arsrc.operation_stats(config, since, since) == {"applied_count": 0, "skipped_count": 0}


def test_counts_are_exact_python_integers_beyond_64_bits(make_config: MakeConfig):
    config = make_config(remainder="drop", batch_size=5)
    most = np.uint32(2**32 - 1)
    state = arsrc.SourceState(index=jnp.uint32(20), epoch=jnp.asarray(most), key=jax.random.key(0))
    stats = arsrc.operation_stats(config, state)
    assert stats == {"applied_count": (2**32 - 1) * 20 + 20, "skipped_count": (2**32 - 1) * 3}
    assert all(type(count) is int for count in stats.values())


def test_counting_does_not_read_a_record(make_config: MakeConfig):
    config = make_config(name="counting")
    state = arsrc.state_at(config, 100)
    before = arsrc.io_metrics(config)["records_read"]
    arsrc.operation_stats(config, state)
    assert arsrc.io_metrics(config)["records_read"] == before


def test_operation_stats_of_a_traced_state_are_refused(make_config: MakeConfig):
    config = make_config()
    with pytest.raises(arsrc.ArsrcTypeError, match=r"^\[arsrc\] operation_stats: runs on the host"):
        jax.jit(lambda state: arsrc.operation_stats(config, state))(arsrc.init(config))


# The reference's statistics.


def test_compute_statistics_gives_what_the_function_gives(make_config: MakeConfig):
    config = make_config(batch_stats_fn=lambda data: {"mean": data.mean()})
    assert arsrc.compute_statistics(config, np.arange(5.0)) == {"mean": 2.0}


def test_compute_statistics_without_a_function_gives_none(make_config: MakeConfig):
    assert arsrc.compute_statistics(make_config(), np.arange(5.0)) is None


def test_compute_statistics_runs_inside_jit(make_config: MakeConfig):
    config = make_config(batch_stats_fn=lambda data: data["weight"].mean())
    _, batch = arsrc.next_batch(config, arsrc.init(config))
    compiled = jax.jit(lambda data: arsrc.compute_statistics(config, data))(batch.data)
    assert np.isclose(compiled, arsrc.compute_statistics(config, batch.data))


def test_computing_statistics_leaves_nothing_behind(make_config: MakeConfig):
    config = make_config(batch_stats_fn=lambda data: data.mean())
    arsrc.compute_statistics(config, np.ones(3))
    assert arsrc.get_statistics(config) is None


def test_get_statistics_gives_precomputed_ones_first(make_config: MakeConfig):
    config = make_config(precomputed_stats={"mean": 1.0})
    for computed in (None, {"mean": 2.0}):
        assert arsrc.get_statistics(config, computed) == {"mean": 1.0}


def test_get_statistics_gives_what_was_put_in(make_config: MakeConfig):
    given = {"z": {"mean": [1.5, None], "names": ("a", "b")}, "a": 3}
    found = arsrc.get_statistics(make_config(precomputed_stats=types.MappingProxyType(given)))
    assert type(found) is dict
    assert found == given
    assert json.dumps(found) == json.dumps(given)
    assert jax.tree.structure(found) == jax.tree.structure(given)
    arrays = {"mean": np.arange(3.0), "nested": {"on_device": jnp.arange(2)}, "scalar": np.float32(2)}
    found = arsrc.get_statistics(make_config(precomputed_stats=arrays))
    assert jax.tree.map(type, found) == jax.tree.map(type, arrays)
    jax.tree.map(np.testing.assert_array_equal, found, arrays)


def test_what_get_statistics_gives_can_be_changed_without_changing_the_config(make_config: MakeConfig):
    config = make_config(precomputed_stats={"mean": np.zeros(3), "nested": {"on_device": jnp.arange(2)}})
    found = arsrc.get_statistics(config)
    found["mean"] += 1
    found["nested"]["on_device"].delete()
    found["nested"]["new"] = 3
    assert not arsrc.get_statistics(config)["mean"].any()
    assert arsrc.get_statistics(config)["nested"]["on_device"].tolist() == [0, 1]
    assert set(arsrc.get_statistics(config)["nested"]) == {"on_device"}


def test_statistics_of_a_config_can_be_used_in_a_trace(make_config: MakeConfig):
    config = make_config(precomputed_stats={"mean": jnp.ones(3)})
    used = jax.jit(lambda x: x - arsrc.get_statistics(config)["mean"])(jnp.ones(3))
    assert not used.any()


def test_get_statistics_gives_precomputed_ones_first_even_if_there_is_no_entry(make_config: MakeConfig):
    stats = arsrc.get_statistics(make_config(precomputed_stats={}), computed={"mean": 2.0})
    assert stats == {}


def test_get_statistics_gives_else_what_was_computed(make_config: MakeConfig):
    computed = {"mean": 2.0}
    assert arsrc.get_statistics(make_config(), computed) is computed
    assert arsrc.get_statistics(make_config()) is None


def test_replacing_precomputed_statistics_by_none_is_the_reset(make_config: MakeConfig):
    config = dataclasses.replace(make_config(precomputed_stats={"mean": 1.0}), precomputed_stats=None)
    assert arsrc.get_statistics(config, computed=3) == 3


def test_precomputed_statistics_can_hold_what_dataset_statistics_gives(make_config: MakeConfig):
    config = make_config()
    label = arsrc.dataset_statistics(config)["label"]
    with_stats = dataclasses.replace(config, precomputed_stats={"mean": label.mean, "variance": label.variance})
    assert arsrc.get_statistics(with_stats)["mean"] == label.mean
    hash(with_stats)


# The data set's statistics, against NumPy.


def check_leaf(found: arsrc.LeafStatistics, values: np.ndarray):
    wide = values.astype(np.float64)
    assert found.count == len(values)
    assert found.mean.dtype == found.variance.dtype == np.float64
    assert found.min.dtype == found.max.dtype == values.dtype
    assert found.mean.shape == found.variance.shape == found.min.shape == found.max.shape == values.shape[1:]
    np.testing.assert_allclose(found.mean, wide.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.variance, wide.var(0), rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(found.min, values.min(0))
    np.testing.assert_array_equal(found.max, values.max(0))


def test_dataset_statistics_are_those_of_numpy_for_every_leaf(make_config: MakeConfig):
    config = make_config()
    found = arsrc.dataset_statistics(config)
    assert jax.tree.structure(found) == jax.tree.structure(arsrc.element_spec(config))
    values = elements(NUM_RECORDS)
    for name, leaf in found.items():
        check_leaf(leaf, values[name])


def test_dataset_statistics_merge_many_pieces_without_losing_digits(tmp_path: Any):
    num_records = 5000  # several pieces, the last one short
    values = elements(num_records)
    values["weight"] = (values["weight"].astype(np.float64) + 1e6).astype(np.float32)
    path = tmp_path / "a"
    arsrc.write_array_record(path, values, codec=CODEC)
    found = arsrc.dataset_statistics(ArrayRecordSourceConfig(path, 5, CODEC))
    for name, leaf in found.items():
        check_leaf(leaf, values[name])


def test_dataset_statistics_do_not_depend_on_order_batch_size_or_reading(make_config: MakeConfig):
    expected = arsrc.dataset_statistics(make_config())["image"]
    others = [
        {"batch_size": 40, "remainder": "wrap", "num_epochs": 2},
        {"shuffle_records": True},
        {"cacheable": True},
        {"read": ReadOptions(read_ahead_bytes=0)},
    ]
    for fields in others:
        found = arsrc.dataset_statistics(make_config(**fields))["image"]
        np.testing.assert_array_equal(found.mean, expected.mean)
        np.testing.assert_array_equal(found.variance, expected.variance)


def test_dataset_statistics_count_the_records_of_slices_only(make_config: MakeConfig):
    config = make_config()
    sliced = make_config(paths=[f"{config.paths[0]}[20:23]", f"{config.paths[0]}[0:2]"])
    values = {name: np.concatenate([leaf[20:], leaf[:2]]) for name, leaf in elements(NUM_RECORDS).items()}
    for name, leaf in arsrc.dataset_statistics(sliced).items():
        check_leaf(leaf, values[name])


def test_dataset_statistics_of_one_record_have_no_variance(make_config: MakeConfig):
    config = make_config(paths=f"{make_config().paths[0]}[3:4]", batch_size=1)
    leaf = arsrc.dataset_statistics(config)["image"]
    assert leaf.count == 1
    assert not leaf.variance.any()
    np.testing.assert_array_equal(leaf.min, leaf.max)


def test_dataset_statistics_take_every_codec(tmp_path: Any, write_records: Any):
    path = write_records(tmp_path / "a", [bytes([i]) * (i + 1) for i in range(4)])
    ragged = ArrayRecordSourceConfig(path, 1, Ragged(max_length=4))
    check_leaf(arsrc.dataset_statistics(ragged)["length"], np.array([1, 2, 3, 4], np.int32))
    first = ArrayRecordSourceConfig(path, 1, Map(lambda record: np.float32(record[0]), "float32"))
    check_leaf(arsrc.dataset_statistics(first), np.arange(4, dtype=np.float32))
    whole = ArrayRecordSourceConfig(f"{path}[2:3]", 1, Bytes())
    check_leaf(arsrc.dataset_statistics(whole), np.full((1, 3), 2, np.uint8))


def test_dataset_statistics_of_a_record_that_does_not_fit_raise_its_typed_error(tmp_path: Any, write_records: Any):
    path = write_records(tmp_path / "a", [b"abc", b"abc", b"ab"])
    with pytest.raises(arsrc.ArsrcValueError, match=r"record 2 \(record 2 of '.*a'\)"):
        arsrc.dataset_statistics(ArrayRecordSourceConfig(path, 1))
