"""`vmap` over states: one callback reads for a whole ensemble, and a record that several members want only once.

That all forms of `vmap` work is in test_transforms.py; this is what they cost, and what each member gets.
"""

import collections
import dataclasses
import functools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

import arsrc
from arsrc.codecs import Bytes, RecordBatch

N = 23
PAD_ID = 2**32 - 1
NO_READ_AHEAD = arsrc.ReadOptions(read_ahead_bytes=0)  # then one callback is one read

Config = arsrc.ArrayRecordSourceConfig

on_both_paths = pytest.mark.parametrize("bridge_path", ["fast", "portable"], indirect=True)


class Log:
    """What was decoded: the records of each call."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self._lock = threading.Lock()

    def add(self, records: RecordBatch) -> None:
        with self._lock:
            self.calls.append([records[row][0] for row in range(len(records))])


@dataclasses.dataclass(frozen=True)
class LoggedBytes:
    """`Bytes` that keeps a log; a codec like any that users write."""

    log: Log
    inner: Bytes = Bytes()

    def resolve(self, first_record: bytes) -> "LoggedBytes":
        return dataclasses.replace(self, inner=self.inner.resolve(first_record))

    def element_spec(self) -> Any:
        return self.inner.element_spec()

    def decode(self, records: RecordBatch) -> Any:
        self.log.add(records)
        return self.inner.decode(records)

    def encode(self, elements: Any) -> RecordBatch:
        return self.inner.encode(elements)


@pytest.fixture(scope="module")
def path(records_dir: Path) -> str:
    """23 records of one byte: their ids."""
    return arsrc.write_array_record(records_dir / "ensembles", np.arange(N, dtype=np.uint8)[:, None])[0]


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def logged(path: str, log: Log, bridge_path: str) -> Config:
    options: dict[str, Any] = {"shuffle_records": True, "remainder": "wrap", "read": NO_READ_AHEAD}
    config = Config(path, 4, LoggedBytes(log), name=bridge_path, **options)
    arsrc.init(config)
    log.calls.clear()  # a codec is tried out when its files are opened
    return config


def seeds(config: Config, *numbers: int, step: int = 0) -> arsrc.SourceState:
    """The states of an ensemble, one seed for each member."""
    return stack([arsrc.state_at(config, step, jax.random.key(number)) for number in numbers])


def stack(states: list[arsrc.SourceState]) -> arsrc.SourceState:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


def member(tree: Any, number: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[number], tree)


def same(left: Any, right: Any) -> bool:
    def raw(leaf: Any) -> Any:
        return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf

    return jax.tree.structure(left) == jax.tree.structure(right) and all(
        a.dtype == b.dtype and np.array_equal(raw(a), raw(b))
        for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    )


def each_is_its_own(fetch: Callable[[arsrc.SourceState], Any], states: arsrc.SourceState, **options: Any) -> bool:
    """Whether `vmap(fetch)` gives each member what `fetch` gives it alone."""
    together = jax.vmap(fetch, **options)(states)
    return all(same(member(together, m), fetch(member(states, m))) for m in range(len(states.index)))


# One callback.


@on_both_paths
def test_a_step_of_an_ensemble_is_one_callback(logged: Config, log: Log) -> None:
    states = seeds(logged, *range(10))
    step = jax.jit(jax.vmap(lambda state: arsrc.next_batch(logged, state)))
    states, batch = step(states)
    assert batch.data.shape == (10, 4, 1)
    assert len(log.calls) == 1
    for _ in range(5):
        states, batch = step(states)
        batch.data.block_until_ready()
    assert len(log.calls) == 6


@on_both_paths
@pytest.mark.parametrize("num_batches", [1, 3])
def test_several_batches_for_all_members_are_one_callback(logged: Config, log: Log, num_batches: int) -> None:
    states = seeds(logged, 1, 2, 3)
    _, batches = jax.jit(jax.vmap(lambda state: arsrc.next_batches(logged, state, num_batches)))(states)
    assert batches.data.shape == (3, num_batches, 4, 1)
    assert len(log.calls) == 1
    _, alone = arsrc.next_batches(logged, member(states, 1), num_batches)
    assert same(member(batches, 1), alone)


def test_a_scan_of_an_ensemble_calls_once_a_step_or_a_fetch(logged: Config, log: Log) -> None:
    def run(state: arsrc.SourceState, batches_per_fetch: int = 1) -> Any:
        return arsrc.scan_steps(
            logged, state, None, lambda _, batch: (None, batch), 8, batches_per_fetch=batches_per_fetch
        )[2]

    states = seeds(logged, 4, 5, 6)
    together = jax.jit(jax.vmap(run))(states)
    assert len(log.calls) == 8
    log.calls.clear()
    assert same(jax.jit(jax.vmap(lambda state: run(state, 4)))(states), together)
    assert len(log.calls) == 2
    for m in range(3):
        assert same(member(together, m), run(member(states, m)))


# Each record once.


def test_what_several_members_want_is_read_once(logged: Config, log: Log) -> None:
    """Members at the same place of the same order, at overlapping places, and in other orders."""
    fetch = jax.jit(jax.vmap(lambda state: arsrc.next_batch(logged, state)[1]))
    state = arsrc.state_at(logged, 2)
    near = dataclasses.replace(state, index=state.index + jnp.uint32(2))
    ensembles = {
        "same": stack([state] * 5),
        "overlapping": stack([state, near, state]),
        "other orders": seeds(logged, *range(8)),
    }
    for name, states in ensembles.items():
        arsrc.init(logged)
        before, log.calls = arsrc.io_metrics(logged)["records_read"], []
        wanted = set(np.asarray(fetch(states).record_ids).ravel().tolist())
        assert len(log.calls) == 1, name
        assert collections.Counter(log.calls[0]) == dict.fromkeys(wanted, 1), name
        assert arsrc.io_metrics(logged)["records_read"] - before == len(wanted), name
    assert len(wanted) > 4


def test_an_ensemble_larger_than_the_data_reads_no_more_than_the_data(logged: Config, log: Log) -> None:
    jax.vmap(lambda state: arsrc.next_batch(logged, state))(seeds(logged, *range(40)))
    assert len(log.calls[-1]) <= N


# Each member as if it were alone.

FIELDS: dict[str, dict[str, Any]] = {
    "pad": {"remainder": "pad", "num_epochs": 2},
    "drop": {"remainder": "drop", "num_epochs": 2},
    "blocks": {"shuffle_block_size": 4, "shuffle_window_blocks": 2},
    "cached": {"cacheable": True},
    "excluded": {"exclude": [0, (5, 12)]},
}


@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
def test_members_get_what_they_would_get_alone(path: str, fields: dict[str, Any]) -> None:
    """Though they stand in other epochs, and some of them past the last one."""
    config = Config(path, 4, **({"shuffle_records": True} | fields))
    states = stack([arsrc.state_at(config, step, jax.random.key(step % 3)) for step in (0, 3, 5, 11, 40)])
    assert each_is_its_own(lambda state: arsrc.next_batch(config, state), states)


@hypothesis.given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 60)), min_size=1, max_size=6))
def test_any_ensemble_is_served_as_its_members(path: str, places: list[tuple[int, int]]) -> None:
    """Any seeds at any steps, the host's side and the device's: `iterate` knows of no ensemble."""
    config = Config(path, 5, shuffle_records=True, remainder="pad", num_epochs=8)
    each = [arsrc.state_at(config, step, jax.random.key(seed)) for seed, step in places]
    padded = each + each[:1] * (6 - len(each))  # one program for all examples
    after, batches = jax.vmap(functools.partial(arsrc.next_batch, config))(stack(padded))
    for m, state in enumerate(each):
        wanted = next(arsrc.iterate(config, state), None)
        if wanted is None:
            assert not np.asarray(batches.mask[m]).any()
            assert same(member(after, m), state)
        else:
            assert same((member(after, m), member(batches, m)), wanted)


@on_both_paths
def test_the_axis_of_members_may_lie_anywhere(logged: Config) -> None:
    states = seeds(logged, 1, 2, 3)
    axes = arsrc.Batch(data=2, mask=1, record_ids=0, epochs=1)
    fetch = lambda state: arsrc.next_batch(logged, state)[1]  # noqa: E731
    batches = jax.vmap(fetch, out_axes=axes)(states)
    expected = jax.vmap(fetch)(states)
    assert np.array_equal(np.moveaxis(np.asarray(batches.data), 2, 0), expected.data)
    assert np.array_equal(np.asarray(batches.mask).T, expected.mask)
    assert np.array_equal(np.asarray(batches.epochs).T, expected.epochs)


@on_both_paths
def test_an_ensemble_of_one_and_of_none(logged: Config) -> None:
    states = seeds(logged, 7)
    assert each_is_its_own(lambda state: arsrc.next_batch(logged, state), states)
    none = jax.tree.map(lambda leaf: leaf[:0], states)
    after, batches = jax.vmap(lambda state: arsrc.next_batch(logged, state))(none)
    assert batches.data.shape == (0, 4, 1)
    assert after.index.shape == (0,)


@on_both_paths
def test_random_access_for_an_ensemble_reads_each_record_once(logged: Config, log: Log) -> None:
    states, starts = seeds(logged, 1, 2, 3), jnp.array([0, 20, -3], jnp.int32)
    batches = jax.vmap(lambda state, start: arsrc.batch_at(logged, state, start, 6))(states, starts)
    assert len(log.calls) == 1
    assert collections.Counter(log.calls[0]) == dict.fromkeys(np.unique(batches.record_ids).tolist(), 1)
    assert np.array_equal(batches.data[..., 0], batches.record_ids)
    taken = jax.vmap(lambda ids: arsrc.take(logged, ids))(jnp.array([[1, 2, 3], [3, 2, 2]], jnp.uint32))
    assert taken.data[..., 0].tolist() == [[1, 2, 3], [3, 2, 2]]
    assert log.calls[1:] == [[1, 2, 3]]


def test_a_resident_table_serves_an_ensemble_without_a_callback(path: str) -> None:
    config = Config(path, 4, shuffle_records=True)
    table = arsrc.load_resident(config)
    program = jax.jit(jax.vmap(lambda s, t: arsrc.next_batch(config, s, resident=t), in_axes=(0, None)))
    states = seeds(config, 1, 2)
    assert "callback" not in program.lower(states, table).as_text()
    assert same(program(states, table), jax.vmap(lambda state: arsrc.next_batch(config, state))(states))


def test_an_ensemble_is_trained_as_its_members_would_be_alone(path: str) -> None:
    """Three models, each with an order of its own, in one program: the weights of separate runs."""
    config = Config(path, 4, shuffle_records=True)

    def run(state: arsrc.SourceState) -> Any:
        def body(weight: Any, batch: arsrc.Batch) -> tuple[Any, Any]:
            x = batch.data[:, 0].astype(jnp.float32) / N
            loss, grad = jax.value_and_grad(lambda w: jnp.mean((w * x - x**2) ** 2))(weight)
            return weight - grad, loss

        return arsrc.scan_epoch(config, state, jnp.float32(0), body)[1:]

    states = seeds(config, 1, 2, 3)
    weights, losses = jax.jit(jax.vmap(run))(states)
    assert len(set(weights.tolist())) == 3
    for m in range(3):
        weight, loss = run(member(states, m))
        np.testing.assert_allclose(weights[m], weight, rtol=1e-5)
        np.testing.assert_allclose(losses[m], loss, rtol=1e-5)


@on_both_paths
def test_an_error_in_the_batch_of_one_member_names_the_record(tmp_path: Path, bridge_path: str) -> None:
    records = [bytes([i] * (3 if i == 9 else 2)) for i in range(16)]
    config = Config(arsrc.write_array_record(tmp_path / "x", records), 4, num_epochs=1)
    fetch = jax.jit(jax.vmap(lambda state: arsrc.next_batch(config, state)[1].data))
    with pytest.raises((jax.errors.JaxRuntimeError, ValueError), match=r"\[arsrc\] decode: record 9 \(record 9 of "):
        jax.block_until_ready(fetch(stack([arsrc.state_at(config, step) for step in (0, 2)])))
    good = fetch(stack([arsrc.state_at(config, step) for step in (0, 3)]))
    assert np.asarray(good)[..., 0].tolist() == [[0, 1, 2, 3], [12, 13, 14, 15]]
