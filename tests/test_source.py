"""`next_batch` and its kin: batches, random access, keys, sizes, metrics, traces, and opening again."""

import dataclasses
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import arsrc
from arsrc.codecs import Map, Ragged, Struct

PAD_ID = 2**32 - 1
N = 23

FIELDS: dict[str, Any] = {"label": "int32", "image": ("uint8", (2, 3)), "wide": "int64", "real": "float64"}


def elements() -> dict[str, np.ndarray]:
    """What the records hold; `label` is the id times three."""
    i = np.arange(N)
    image = (i[:, None] * 7 + np.arange(6)).astype(np.uint8).reshape(N, 2, 3)
    return {"label": (3 * i).astype(np.int32), "image": image, "wide": i - 5, "real": i / 3}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("source") / "x.array_record"
    return arsrc.write_array_record(path, elements(), codec=Struct(FIELDS))[0]


@pytest.fixture(scope="module")
def config(path: str) -> arsrc.ArrayRecordSourceConfig:
    return arsrc.ArrayRecordSourceConfig(path, 5, Struct(FIELDS), remainder="pad", shuffle_records=True)


def check(batch: arsrc.Batch) -> None:
    """Compare each row with the record that its id names, or with padding."""
    ids, mask = np.asarray(batch.record_ids), np.asarray(batch.mask)
    assert mask.dtype == np.bool_
    assert ids.dtype == np.uint32
    assert np.array_equal(mask, ids != PAD_ID)
    for name, stored in elements().items():
        leaf = np.asarray(batch.data[name])
        expected = np.concatenate([stored, np.zeros_like(stored[:1])])[np.minimum(ids, N)]
        assert leaf.shape == (*ids.shape, *stored.shape[1:])
        assert np.array_equal(leaf, expected.astype(leaf.dtype))


def ids_of(batch: arsrc.Batch) -> list[Any]:
    return np.asarray(batch.record_ids).tolist()


# Batches.


def test_next_batch_gives_a_batch_and_the_state_after_it(config: arsrc.ArrayRecordSourceConfig) -> None:
    state, seen = arsrc.init(config), []
    for step in range(7):
        state, batch = arsrc.next_batch(config, state)
        check(batch)
        seen += ids_of(batch)
        assert int(arsrc.step_of(config, state)) == step + 1
    assert Counter(seen[:25]) == Counter([*range(N), PAD_ID, PAD_ID])
    assert seen[23:25] == [PAD_ID] * 2
    assert (int(state.index), int(state.epoch)) == (10, 1)


def test_the_same_state_gives_the_same_batch_in_any_order_of_calls(
    config: arsrc.ArrayRecordSourceConfig,
) -> None:
    steps = [0, 3, 1, 3, 9, 0, 8, 7]
    batches = [arsrc.peek(config, arsrc.state_at(config, step)) for step in steps]
    for batch in batches:
        check(batch)
    first = {step: ids_of(batch) for step, batch in zip(steps, batches, strict=True)}
    assert [ids_of(batch) for batch in batches] == [first[step] for step in steps]
    loop = [ids_of(batch) for _, batch in itertools.islice(arsrc.iterate(config), 10)]
    assert first == {step: loop[step] for step in first}


def test_peek_leaves_the_state_and_is_what_comes_next(config: arsrc.ArrayRecordSourceConfig) -> None:
    state = arsrc.state_at(config, 4)
    batch = arsrc.peek(config, state)
    check(batch)
    assert ids_of(batch) == ids_of(arsrc.next_batch(config, state)[1])
    assert batch.mask.tolist() == [True, True, True, False, False]


def test_next_batches_stacks_batches_over_the_end_of_an_epoch(config: arsrc.ArrayRecordSourceConfig) -> None:
    start = arsrc.state_at(config, 3)
    state, batches = arsrc.next_batches(config, start, 4)
    check(batches)
    assert batches.record_ids.shape == (4, 5)
    assert batches.data["image"].shape == (4, 5, 2, 3)
    assert ids_of(batches) == [ids_of(b) for _, b in itertools.islice(arsrc.iterate(config, start), 4)]
    assert int(arsrc.step_of(config, state)) == 7
    with pytest.raises(arsrc.ArsrcValueError, match=r"^\[arsrc\] next_batches: .*num_batches=0"):
        arsrc.next_batches(config, start, 0)


# Random access.


@pytest.fixture(scope="module")
def stored(path: str) -> arsrc.ArrayRecordSourceConfig:
    """In stored order, so that ids are positions; 'wrap', so that an epoch's end would show."""
    return arsrc.ArrayRecordSourceConfig(path, 5, Struct(FIELDS), remainder="wrap")


@given(start=st.integers(-N, N - 1), epoch=st.integers(0, 2))
def test_batch_at_wraps_at_the_end_within_the_epoch(
    config: arsrc.ArrayRecordSourceConfig, start: int, epoch: int
) -> None:
    state = dataclasses.replace(arsrc.init(config), epoch=jnp.asarray(np.uint32(epoch)))
    batch = arsrc.batch_at(config, state, start)
    check(batch)
    assert np.asarray(batch.mask).all()
    positions = np.asarray(arsrc.locate(config, state, batch.record_ids))
    assert positions.tolist() == [(start + row) % N for row in range(5)]


@pytest.mark.parametrize("size", [1, N, N + 1, 60])
def test_batch_at_may_be_of_any_size(stored: arsrc.ArrayRecordSourceConfig, size: int) -> None:
    batch = arsrc.batch_at(stored, arsrc.init(stored), -2, size)
    check(batch)
    assert ids_of(batch) == [(N - 2 + row) % N for row in range(size)]


@pytest.mark.parametrize("dtype", ["int8", "int32", "uint8", "uint32"])
def test_batch_at_takes_a_traced_start_modulo_the_records(stored: arsrc.ArrayRecordSourceConfig, dtype: str) -> None:
    state = arsrc.init(stored)
    at = jax.jit(lambda start: arsrc.batch_at(stored, state, start, 3).record_ids)
    limits = np.iinfo(dtype)
    for start in (0, 22, 23, 24, 100, limits.max, limits.min, limits.min + 1, -1, -23, -24):
        if limits.min <= start <= limits.max:
            ids = at(jnp.asarray(start, dtype)).tolist()
            assert ids == [(start + row) % N for row in range(3)], start


def test_batch_at_refuses_what_is_no_position(stored: arsrc.ArrayRecordSourceConfig) -> None:
    state = arsrc.init(stored)
    for start in (N, -N - 1, np.uint32(PAD_ID), 2**40):
        with pytest.raises(arsrc.ArsrcIndexError, match=rf"^\[arsrc\] batch_at: .*\[-23, 23\).*start={start}"):
            arsrc.batch_at(stored, state, start)
    with pytest.raises(arsrc.ArsrcTypeError, match=r"^\[arsrc\] batch_at: .*float"):
        arsrc.batch_at(stored, state, 1.5)
    with pytest.raises(arsrc.ArsrcValueError, match=r"^\[arsrc\] batch_at: .*size=0"):
        arsrc.batch_at(stored, state, 0, 0)


def test_the_state_does_not_move_batch_at(config: arsrc.ArrayRecordSourceConfig) -> None:
    first, later = arsrc.init(config), arsrc.state_at(config, 3)
    assert int(later.epoch) == 0
    assert ids_of(arsrc.batch_at(config, first, 7)) == ids_of(arsrc.batch_at(config, later, 7))


@pytest.mark.parametrize("shape", [(), (1,), (4,), (2, 3), (1, 2, 2), (0,), (2, 0)])
def test_take_gives_records_in_any_shape(config: arsrc.ArrayRecordSourceConfig, shape: tuple[int, ...]) -> None:
    ids = np.random.default_rng(0).integers(0, N, shape)
    batch = arsrc.take(config, ids)
    assert ids_of(batch) == ids.tolist()
    check(batch)


def test_take_repeats_records_and_pads(config: arsrc.ArrayRecordSourceConfig) -> None:
    ids = np.array([[22, 22, PAD_ID], [0, PAD_ID, 22]], np.uint32)
    batch = arsrc.take(config, ids)
    check(batch)
    assert ids_of(batch) == ids.tolist()
    assert batch.mask.tolist() == [[True, True, False], [True, False, True]]


def test_take_of_the_ids_of_a_batch_is_the_batch_but_for_its_epochs(config: arsrc.ArrayRecordSourceConfig) -> None:
    last = arsrc.state_at(config, 9)
    for batch in (arsrc.peek(config, last), arsrc.next_batches(config, last, 4)[1]):
        assert (np.asarray(batch.epochs) > 0).all()
        batch = dataclasses.replace(batch, epochs=np.zeros(batch.mask.shape, np.uint32))
        assert not np.asarray(batch.mask).all()
        for ids in (batch.record_ids, np.asarray(batch.record_ids)):
            again = arsrc.take(config, ids)
            jax.tree.map(np.testing.assert_array_equal, again, batch)


def test_take_runs_in_jit_with_ids_that_are_computed_there(config: arsrc.ArrayRecordSourceConfig) -> None:
    batch = jax.jit(lambda i: arsrc.take(config, (i * 7) % N))(jnp.arange(4))
    check(batch)
    assert ids_of(batch) == [0, 7, 14, 21]


def test_take_and_locate_take_lists_of_traced_ids(config: arsrc.ArrayRecordSourceConfig) -> None:
    state = arsrc.init(config)
    ids, positions = jax.jit(
        lambda i: (arsrc.take(config, [i, i + 1, 3]).record_ids, arsrc.locate(config, state, [i]))
    )(5)
    assert ids.tolist() == [5, 6, 3]
    assert positions.tolist() == arsrc.locate(config, state, [5]).tolist()


@pytest.mark.parametrize("bad", [N, -1, 2**32, 2**40])
def test_take_refuses_ids_that_are_not_there(config: arsrc.ArrayRecordSourceConfig, bad: int) -> None:
    with pytest.raises(arsrc.ArsrcIndexError, match=rf"^\[arsrc\] take: .*\[0, 23\).*record_ids={bad}"):
        arsrc.take(config, np.array([0, bad]))


@pytest.mark.parametrize("bad", [N, 2**31 - 1, -1, -2])
def test_take_fails_at_run_time_where_traced_ids_are_not_there(config: arsrc.ArrayRecordSourceConfig, bad: int) -> None:
    with pytest.raises((jax.errors.JaxRuntimeError, ValueError), match=r"\[arsrc\] take: .*the data set has 23"):
        jax.block_until_ready(jax.jit(lambda i: arsrc.take(config, i))(jnp.array([0, bad], jnp.int32)))


NO_NUMBERS = [True, np.True_, [True, False, True], [0, True], np.array([True]), jnp.array([False]), 1.0]
BY_NUMBER = {
    "take": arsrc.take,
    "batch_at": lambda config, number: arsrc.batch_at(config, arsrc.init(config), number),
    "advance": lambda config, number: arsrc.advance(config, arsrc.init(config), number),
    "state_at": arsrc.state_at,
    "locate": lambda config, number: arsrc.locate(config, arsrc.init(config), number),
}


@pytest.mark.parametrize("number", NO_NUMBERS, ids=str)
@pytest.mark.parametrize("name", BY_NUMBER)
def test_booleans_and_floats_are_no_numbers_of_records_or_steps(
    config: arsrc.ArrayRecordSourceConfig, name: str, number: Any
) -> None:
    call = BY_NUMBER[name]
    if name in ("take", "locate") or np.ndim(number) == 0:
        with pytest.raises(arsrc.ArsrcTypeError, match=rf"^\[arsrc\] {name}: \w+ must be integers; got "):
            call(config, number)
    if isinstance(number, (np.ndarray, jax.Array)):
        number = number[0]
    if not isinstance(number, list):
        with pytest.raises(arsrc.ArsrcTypeError, match=rf"^\[arsrc\] {name}: \w+ must be integers; got "):
            jax.jit(lambda traced: call(config, traced))(number)


def test_locate_refuses_ids_that_are_not_there(config: arsrc.ArrayRecordSourceConfig) -> None:
    for bad in (N, -1, PAD_ID):
        with pytest.raises(arsrc.ArsrcIndexError, match=rf"^\[arsrc\] locate: .*\[0, 23\).*record_id={bad}"):
            arsrc.locate(config, arsrc.init(config), bad)


# Keys of rows.


def keys_by_record(config: arsrc.ArrayRecordSourceConfig, num_steps: int) -> dict[tuple[int, int], list[int]]:
    """Map (epoch, record id) to the words of the row's key, over the first steps."""
    found: dict[tuple[int, int], list[int]] = {}
    for after, batch in itertools.islice(arsrc.iterate(config), num_steps):
        keys = arsrc.record_keys(config, after, batch)
        assert keys.shape == (config.batch_size,)
        assert jnp.issubdtype(keys.dtype, jax.dtypes.prng_key)
        rows = zip(batch.epochs.tolist(), batch.record_ids.tolist(), strict=True)
        found |= dict(zip(rows, np.asarray(jax.random.key_data(keys)).tolist(), strict=True))
    return {(epoch, record_id): words for (epoch, record_id), words in found.items() if record_id != PAD_ID}


def test_keys_of_records_do_not_depend_on_the_batch_size(config: arsrc.ArrayRecordSourceConfig) -> None:
    wrapped = dataclasses.replace(config, batch_size=7, remainder="wrap")
    a, b = keys_by_record(config, 10), keys_by_record(wrapped, 7)
    assert len(a) == 2 * N
    assert a == {place: b[place] for place in a}
    assert len({tuple(words) for words in a.values()}) == 2 * N


def test_keys_of_records_depend_on_the_key_of_the_state(config: arsrc.ArrayRecordSourceConfig) -> None:
    batch = arsrc.peek(config, arsrc.init(config))
    a = arsrc.record_keys(config, arsrc.init(config), batch)
    b = arsrc.record_keys(config, arsrc.init(config, jax.random.key(1)), batch)
    assert not (jax.random.key_data(a) == jax.random.key_data(b)).any()


def test_a_four_word_key_keeps_its_kind(config: arsrc.ArrayRecordSourceConfig) -> None:
    state = arsrc.init(config, jax.random.key(42, impl="rbg"))
    after, batch = arsrc.next_batch(config, state)
    assert arsrc.record_keys(config, state, batch).dtype == state.key.dtype
    check(batch)
    assert after.key.dtype == state.key.dtype
    assert ids_of(batch) != ids_of(arsrc.peek(config, arsrc.init(config)))
    text = json.dumps(arsrc.to_state_dict(config, after))
    again = arsrc.from_state_dict(config, json.loads(text))
    assert again.key.dtype == after.key.dtype
    following = [ids_of(b) for _, b in itertools.islice(arsrc.iterate(config, state), 3)]
    assert ids_of(arsrc.peek(config, again)) == following[1]


# Sizes and specs.


def test_sizes_are_those_of_the_data(config: arsrc.ArrayRecordSourceConfig) -> None:
    for remainder, num_epochs, per_epoch, total in (
        ("drop", -1, 4, None),
        ("drop", 3, 4, 12),
        ("pad", 3, 5, 15),
        ("wrap", 3, 5, 14),
        ("wrap", -1, 5, None),
    ):
        other = dataclasses.replace(config, remainder=remainder, num_epochs=num_epochs)
        assert arsrc.num_records(other) == N
        assert arsrc.steps_per_epoch(other) == per_epoch
        assert arsrc.total_steps(other) == total
        if total is not None:
            assert sum(1 for _ in arsrc.iterate(other)) == total
        arsrc.close(other)


def test_specs_are_what_arrives(config: arsrc.ArrayRecordSourceConfig) -> None:
    spec = arsrc.element_spec(config)
    assert {name: (leaf.shape, str(leaf.dtype)) for name, leaf in spec.items()} == {
        "label": ((), "int32"),
        "image": ((2, 3), "uint8"),
        "wide": ((), "int32"),  # 64-bit types are off
        "real": ((), "float32"),
    }
    batch, expected = arsrc.peek(config, arsrc.init(config)), arsrc.batch_spec(config)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), batch) == jax.tree.map(lambda x: (x.shape, x.dtype), expected)
    traced = jax.eval_shape(lambda: arsrc.peek(config, arsrc.init(config)))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), traced) == jax.tree.map(lambda x: (x.shape, x.dtype), expected)


@pytest.fixture
def x64() -> Iterator[None]:
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.mark.usefixtures("x64")
def test_64_bit_types_arrive_whole_where_they_are_on(path: str) -> None:
    config = arsrc.ArrayRecordSourceConfig(path, 4, Struct(FIELDS), shuffle_records=True, name="64 bits")
    assert arsrc.element_spec(config)["wide"].dtype == np.int64
    state, batch = arsrc.next_batch(config, arsrc.init(config))
    check(batch)
    assert (batch.data["wide"].dtype, batch.data["real"].dtype) == (np.int64, np.float64)
    assert np.array_equal(batch.data["real"], np.asarray(batch.record_ids) / 3)
    assert (state.index.dtype, state.epoch.dtype) == (np.uint32, np.uint32)
    assert ids_of(next(arsrc.iterate(config))[1]) == ids_of(batch)
    assert int(arsrc.step_of(config, arsrc.state_at(config, 9))) == 9
    jax.config.update("jax_enable_x64", False)
    assert ids_of(arsrc.peek(config, arsrc.init(config))) == ids_of(batch)
    arsrc.close(config)


def test_numbers_that_do_not_fit_32_bits_are_an_error_and_not_cut(tmp_path: Any) -> None:
    codec = Struct({"x": "int64"})
    path = arsrc.write_array_record(tmp_path / "x.array_record", {"x": np.array([1, 2**31])}, codec=codec)
    config = arsrc.ArrayRecordSourceConfig(path, 1, codec)
    iterator = arsrc.iterate(config)
    assert next(iterator)[1].data["x"].tolist() == [1]
    with pytest.raises(
        arsrc.ArsrcValueError, match=r"do not fit int32, .* for leaf \['x'\].*high=2147483648, record_id=1"
    ):
        next(iterator)
    arsrc.close(config)


# Metrics.


def empty_and_first(record: bytes) -> dict[str, np.ndarray]:
    return {"none": np.zeros((0, 3), np.float32), "first": np.uint8(record[0])}


EMPTY = {
    "some": Struct({"none": ("float32", (2, 0)), "x": "float32", "flags": ("bool", (0,))}),
    "all": Struct({"none": ("int16", (0,))}),
    "map": Map(empty_and_first, {"none": ("float32", (0, 3)), "first": "uint8"}),
}


@pytest.mark.parametrize("cache", ["", "memory", "files"])
@pytest.mark.parametrize("name", EMPTY)
def test_leaves_of_size_zero_arrive_like_others(tmp_path: Any, name: str, cache: str) -> None:
    codec: Any = EMPTY[name]
    if isinstance(codec, Struct):
        elements = {field: np.arange(7).repeat(np.prod(shape, dtype=int)).reshape(7, *shape).astype(dtype)
                    for field, dtype, shape in codec.fields}  # fmt: skip
    else:
        elements = [bytes([i]) for i in range(7)]
    path = arsrc.write_array_record(tmp_path / "a", elements, codec=codec)
    read = arsrc.ReadOptions(cache_bytes=0 if cache == "files" else 2**20, cache_dir=tmp_path / "cache")
    config = arsrc.ArrayRecordSourceConfig(path, 4, codec, cacheable=bool(cache), remainder="pad", read=read)
    _, batch = jax.jit(lambda state: arsrc.next_batch(config, state))(arsrc.state_at(config, 1))
    spec = arsrc.batch_spec(config)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), batch) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), spec
    )
    for field in {"x", "first"} & set(batch.data):
        assert batch.data[field].tolist() == [4, 5, 6, 0]
    _, again = next(arsrc.iterate(config, arsrc.state_at(config, 1)))
    jax.tree.map(np.testing.assert_array_equal, batch, again)
    statistics = arsrc.dataset_statistics(config)["none"]
    assert statistics.mean.shape == statistics.min.shape == batch.data["none"].shape[1:]
    table = arsrc.load_resident(config)
    assert table["none"].shape == (7, *batch.data["none"].shape[1:])
    arsrc.close(config)


@pytest.mark.parametrize("cacheable", [False, True])
def test_metrics_count_what_was_read(config: arsrc.ArrayRecordSourceConfig, cacheable: bool) -> None:
    read = arsrc.ReadOptions(read_ahead_bytes=0)
    config = dataclasses.replace(config, read=read, num_epochs=2, cacheable=cacheable)
    arsrc.close(config)
    assert set(arsrc.io_metrics(config)) >= {
        "records_read", "bytes_read", "seconds_read", "seconds_waited",
        "cache_hits", "batches_served", "batches_ready",
    }  # fmt: skip
    before = arsrc.io_metrics(config)
    assert before["records_read"] == before["batches_served"] == before["bytes_read"] == 0
    assert sum(1 for _ in arsrc.iterate(config)) == 10
    after = arsrc.io_metrics(config)
    num_read = N if cacheable else 2 * N
    assert after["records_read"] == num_read
    assert after["cache_hits"] == 2 * N - num_read
    assert after["bytes_read"] == num_read * Struct(FIELDS).record_bytes
    assert after["batches_served"] == 10
    assert after["seconds_read"] > 0
    if cacheable:
        arsrc.reset_cache(config)
        assert sum(1 for _ in arsrc.iterate(config)) == 10
        assert arsrc.io_metrics(config)["records_read"] == 2 * N
    arsrc.close(config)


def test_metrics_of_read_ahead_are_plausible(config: arsrc.ArrayRecordSourceConfig) -> None:
    config = dataclasses.replace(config, num_epochs=6, name="metrics of read-ahead")
    assert sum(1 for _ in arsrc.iterate(config)) == 30
    metrics = arsrc.io_metrics(config)
    assert metrics["batches_served"] == 30
    assert 0 <= metrics["batches_ready"] <= 30
    assert metrics["records_read"] == 6 * N  # nothing twice, nothing past the end
    assert metrics["seconds_waited"] >= 0
    arsrc.close(config)


def test_operation_stats_count_what_was_served_and_passed_over(config: arsrc.ArrayRecordSourceConfig) -> None:
    counts = {}
    for remainder in ("drop", "pad", "wrap"):
        other = dataclasses.replace(config, remainder=remainder)
        since, later = arsrc.state_at(other, 2), arsrc.state_at(other, 11)
        stats = arsrc.operation_stats(other, later), arsrc.operation_stats(other, later, since)
        served = [int(batch.mask.sum()) for _, batch in itertools.islice(arsrc.iterate(other), 11)]
        assert [s["applied_count"] for s in stats] == [sum(served), sum(served[2:])]
        counts[remainder] = [s["skipped_count"] for s in stats]
        arsrc.close(other)
    assert counts == {"drop": [6, 6], "pad": [0, 0], "wrap": [0, 0]}


# Traces.


@pytest.fixture
def traces() -> Iterator[list[str]]:
    """The functions that JAX traces while a test runs."""
    names: list[str] = []

    def listen(event: str, _: float, **fields: Any) -> None:
        if event.endswith("/jaxpr_trace_duration"):
            names.append(str(fields.get("fun_name")))

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    # Only newer versions of JAX can take one listener back.
    getattr(jax.monitoring, "unregister_event_duration_listener", lambda _: None)(listen)


def use_everything(config: arsrc.ArrayRecordSourceConfig, step: int) -> None:
    state = arsrc.state_at(config, step)
    state, batch = arsrc.next_batch(config, state)
    arsrc.peek(config, state)
    arsrc.next_batches(config, state, 2)
    arsrc.batch_at(config, state, step)
    arsrc.take(config, np.arange(4) + step)
    arsrc.advance(config, state, step)
    arsrc.step_of(config, state)
    arsrc.is_exhausted(config, state)
    arsrc.record_ids(config, state)
    arsrc.batch_mask(config, state)
    arsrc.record_keys(config, state, batch)
    arsrc.locate(config, state, step)


def test_each_function_is_traced_once_however_often_it_is_called(path: str, traces: list[str]) -> None:
    fields: dict[str, Any] = {"batch_size": 3, "num_epochs": 3, "name": "traces"}
    config = arsrc.ArrayRecordSourceConfig(path, codec=Struct(FIELDS), **fields)
    use_everything(config, step=0)
    assert traces
    traces.clear()
    equal = arsrc.ArrayRecordSourceConfig((path,), codec=Struct(Struct(FIELDS).fields), **fields)
    assert equal == config
    assert equal is not config
    for step in range(3):
        use_everything(config, step)
        use_everything(equal, step)
        arsrc.close(config)
    assert traces == []


def test_equal_configs_share_one_trace_of_a_users_program_and_one_source(path: str) -> None:
    count = 0

    def step(config: arsrc.ArrayRecordSourceConfig, state: arsrc.SourceState) -> Any:
        nonlocal count
        count += 1
        return arsrc.next_batch(config, state)

    compiled = jax.jit(step, static_argnums=0)
    make = lambda **fields: arsrc.ArrayRecordSourceConfig([path], 4, Struct(FIELDS), num_epochs=2, **fields)  # noqa: E731
    for config in (make(), make(), dataclasses.replace(make(), batch_size=4)):
        state = arsrc.init(config)
        for _ in range(3):
            state, batch = compiled(config, state)
            check(batch)
    assert count == 1
    assert arsrc.io_metrics(make())["batches_served"] == 9
    assert hash(make()) == hash(make())
    assert make() != make(seed=1)
    compiled(make(seed=1), arsrc.init(make(seed=1)))
    assert count == 2
    for config in (make(), make(seed=1)):
        arsrc.close(config)


# Closing and opening.


def test_a_closed_source_opens_again_with_the_next_call(config: arsrc.ArrayRecordSourceConfig) -> None:
    expected = [ids_of(batch) for _, batch in itertools.islice(arsrc.iterate(config), 6)]
    compiled = jax.jit(lambda state: arsrc.next_batch(config, state))
    state, served = arsrc.init(config), []
    for step in range(6):
        state, batch = (compiled if step % 2 else lambda s: arsrc.next_batch(config, s))(state)
        check(batch)
        served.append(ids_of(batch))
        for _ in range(step % 3):  # closing twice is no error
            arsrc.close(config)
    assert served == expected
    assert arsrc.io_metrics(config)["batches_served"] <= 6


def test_closing_what_was_never_opened_is_no_error(path: str) -> None:
    arsrc.close(arsrc.ArrayRecordSourceConfig(path, 3, name="never opened"))


def test_data_that_changed_since_a_program_was_compiled_is_refused(tmp_path: Any) -> None:
    path = tmp_path / "x.array_record"
    arsrc.write_array_record(path, np.zeros((6, 2), np.uint8))
    config = arsrc.ArrayRecordSourceConfig(path, 2)
    compiled = jax.jit(lambda state: arsrc.next_batch(config, state))
    state, _ = compiled(arsrc.init(config))
    arsrc.write_array_record(path, np.zeros((7, 2), np.uint8))
    arsrc.close(config)
    with pytest.raises((jax.errors.JaxRuntimeError, ValueError), match=r"\[arsrc\] read: the files changed"):
        jax.block_until_ready(compiled(state))
    state, batch = arsrc.next_batch(config, arsrc.init(config))
    assert ids_of(batch) == [0, 1]
    arsrc.close(config)


def test_different_configs_of_one_file_do_not_mix(path: str) -> None:
    configs = [
        arsrc.ArrayRecordSourceConfig(path, 4, codec, shuffle_records=True, seed=seed)
        for codec in (Struct(FIELDS), Ragged(max_length=40))
        for seed in (1, 2)
    ]
    streams = [arsrc.iterate(config) for config in configs]
    served = [[ids_of(next(stream)[1]) for _ in range(3)] for stream in streams]
    again = [[ids_of(b) for _, b in itertools.islice(arsrc.iterate(config), 3)] for config in configs]
    assert served == again
    assert served[0] == served[2]
    assert served[0] != served[1]
    for config in configs:
        arsrc.close(config)
