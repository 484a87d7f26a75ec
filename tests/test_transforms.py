"""The contract for JAX transformations, one by one; by both paths of the bridge where a path may matter.

Both are compared with the same slow, obvious results, bit for bit, and so with each other.
"""

import contextlib
import dataclasses
import functools
import itertools
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.experimental import io_callback
from jax.sharding import PartitionSpec

import arsrc
from arsrc import ArrayRecordSourceConfig, ReadOptions, bridge
from arsrc.codecs import Map, Struct

NUM_RECORDS = 23
CODEC = Struct({"x": "int32", "y": ("float32", 3)})
X = np.arange(NUM_RECORDS, dtype=np.int32)
Y = np.arange(NUM_RECORDS * 3, dtype=np.float32).reshape(NUM_RECORDS, 3)

MakeConfig = Callable[..., ArrayRecordSourceConfig]

on_both_paths = pytest.mark.parametrize("bridge_path", ["fast", "portable"], indirect=True)


@pytest.fixture(scope="module")
def make_config(tmp_path_factory: pytest.TempPathFactory) -> MakeConfig:
    path = tmp_path_factory.mktemp("data") / "a.array_record"
    arsrc.write_array_record(path, {"x": X, "y": Y}, codec=CODEC)

    def make(**fields: Any) -> ArrayRecordSourceConfig:
        return ArrayRecordSourceConfig(**({"paths": path, "batch_size": 4, "codec": CODEC} | fields))

    return make


@pytest.fixture
def config(make_config: MakeConfig, bridge_path: str) -> ArrayRecordSourceConfig:
    # Without read-ahead, the host does exactly what programs ask for, and counts say what they asked for.
    # Without a shuffle, programs are small and compile fast: most transformations do not care.
    return make_config(read=ReadOptions(read_ahead_bytes=0), name=bridge_path)


@pytest.fixture
def shuffled(make_config: MakeConfig, bridge_path: str) -> ArrayRecordSourceConfig:
    return make_config(shuffle_records=True, read=ReadOptions(read_ahead_bytes=0), name=bridge_path)


@pytest.fixture
def state(config: ArrayRecordSourceConfig) -> arsrc.SourceState:
    return arsrc.state_at(config, 3)


@pytest.fixture
def ensemble(config: ArrayRecordSourceConfig) -> arsrc.SourceState:
    """Three states with keys of their own, at places of their own."""
    keys = jax.random.split(jax.random.key(1), 3)
    return jax.vmap(lambda key, step: arsrc.state_at(config, step, key))(keys, jnp.array([0, 4, 9]))


def member(states: arsrc.SourceState, *index: int) -> arsrc.SourceState:
    return jax.tree.map(lambda leaf: leaf[index], states)


def stacked(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def check_equal(found: Any, expected: Any):
    """Equal structure, dtypes, shapes and bits."""

    def plain(leaf: Any) -> np.ndarray:
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(leaf) if is_key else leaf)

    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        np.testing.assert_array_equal(plain(one), plain(other))


def expected_batches(
    config: ArrayRecordSourceConfig, state: arsrc.SourceState, num_batches: int
) -> tuple[arsrc.SourceState, list[arsrc.Batch]]:
    """The slow, obvious way: ids from the state, rows from NumPy."""
    batches = []
    for _ in range(num_batches):
        ids = np.asarray(arsrc.record_ids(config, state))
        rows = jax.tree.map(jnp.asarray, {"x": X[ids], "y": Y[ids]})
        epochs = jnp.full(len(ids), state.epoch)  # none ends inside of a batch
        batches.append(
            arsrc.Batch(data=rows, mask=jnp.ones(len(ids), bool), record_ids=jnp.asarray(ids), epochs=epochs)
        )
        state = arsrc.advance(config, state)
    return state, batches


@contextlib.contextmanager
def reads(config: ArrayRecordSourceConfig, num_batches: int) -> Iterator[None]:
    """Check how many batches the body makes the host serve."""
    before = arsrc.io_metrics(config)["batches_served"]
    yield
    jax.effects_barrier()
    assert arsrc.io_metrics(config)["batches_served"] - before == num_batches


def count_callbacks(function: Callable[..., Any], *args: Any) -> int:
    """How often a callback stands in the compiled program."""
    text = jax.jit(function).lower(*args).compile().as_text()
    return len(re.findall(r"custom-call\(.*python_cpu_callback", text))  # io_callback's, or that writes in place


def loss(weight: Any, batch: arsrc.Batch) -> Any:
    return (weight * batch.data["y"]).sum()


def total_y(batch: arsrc.Batch) -> float:
    return float(np.asarray(batch.data["y"]).sum())


# jit and control flow.


def test_a_batch_is_what_numpy_holds_at_its_record_ids(shuffled, state):
    after, (batch,) = expected_batches(shuffled, state, 1)
    check_equal(arsrc.next_batch(shuffled, state), (after, batch))


@on_both_paths
def test_jit(shuffled, state):
    with reads(shuffled, 2):
        eager = arsrc.next_batch(shuffled, state)
        compiled = jax.jit(functools.partial(arsrc.next_batch, shuffled))(state)
        check_equal(compiled, eager)


def test_jit_with_the_config_as_a_static_argument(config, state):
    compiled = jax.jit(arsrc.next_batch, static_argnums=0)(config, state)
    check_equal(compiled, arsrc.next_batch(config, state))


@on_both_paths
def test_jit_with_a_donated_state(shuffled):
    step = jax.jit(functools.partial(arsrc.next_batch, shuffled), donate_argnums=0)
    expected, batches = expected_batches(shuffled, arsrc.init(shuffled), 4)
    state = arsrc.init(shuffled)
    for batch in batches:
        state, found = step(state)
        check_equal(found, batch)
    check_equal(state, expected)


def states_from_one(config: ArrayRecordSourceConfig, key: Any) -> dict[str, arsrc.SourceState]:
    """States that the functions give, made from one key and from one another."""
    state = arsrc.init(config, key)
    served = [after for after, _ in itertools.islice(arsrc.iterate(config, state), 3)]
    on_device = next(arsrc.iterate(config, state, device=jax.devices()[0]))[0]
    mesh = jax.make_mesh((1,), ("data",))
    on_mesh = next(arsrc.iterate(config, state, device=jax.sharding.NamedSharding(mesh, PartitionSpec("data"))))[0]
    body = lambda carry, _: (carry, None)  # noqa: E731
    return {
        "init": state,
        "init again": arsrc.init(config, key),
        "init in jit": jax.jit(functools.partial(arsrc.init, config))(key),
        "advance": arsrc.advance(config, state),
        "advance by nothing": arsrc.advance(config, state, 0),
        "state_at": arsrc.state_at(config, 0, key),
        "next_batch": arsrc.next_batch(config, state)[0],
        "next_batches": arsrc.next_batches(config, state, 2)[0],
        "scan_steps": arsrc.scan_steps(config, state, 0, body, 2)[0],
        "no steps": arsrc.scan_steps(config, state, 0, body, 0)[0],
        "all steps unrolled": arsrc.scan_steps(config, state, 0, body, 2, unroll=True)[0],
        "saved": arsrc.from_state_dict(config, arsrc.to_state_dict(config, state)),
        "global": arsrc.next_global_batch(config, state, mesh=mesh, axis_name="data")[0],
        "iterate on a device": on_device,
        "iterate on a mesh": on_mesh,
        **{f"iterate, {number}": after for number, after in enumerate(served)},
    }


@pytest.mark.parametrize(
    ("make_key", "fields"),
    [(jax.random.key, {}), (jax.random.PRNGKey, {"stochastic": True, "stream_name": "data"})],
    ids=["typed", "words, of a stream"],
)
def test_donating_a_state_takes_nothing_from_any_other(make_config, make_key, fields):
    config, key = make_config(**fields), make_key(7)
    states = states_from_one(config, key)
    step = jax.jit(functools.partial(arsrc.advance, config), donate_argnums=0)
    for name, state in states.items():
        step(state)
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state)), name
    check_equal(key, make_key(7))


def test_donating_an_ensemble_leaves_the_keys_it_was_made_of(config):
    keys = jax.random.split(jax.random.key(1), 3)
    ensemble = jax.vmap(functools.partial(arsrc.init, config))(keys)
    jax.jit(jax.vmap(functools.partial(arsrc.next_batch, config)), donate_argnums=0)(ensemble)
    check_equal(keys, jax.random.split(jax.random.key(1), 3))


def test_donating_a_batch_takes_nothing_from_any_other(make_config):
    """Of what iterate reads ahead, of the ids that take is given, and of a cache."""
    config = make_config(cacheable=True)
    overwrite = jax.jit(lambda batch: jax.tree.map(jnp.invert, (batch.mask, batch.record_ids)), donate_argnums=0)
    expected = [jax.tree.map(np.array, batch) for _, batch in itertools.islice(arsrc.iterate(config), 4)]
    for _ in range(2):
        for (_, batch), wanted in zip(itertools.islice(arsrc.iterate(config), 4), expected, strict=True):
            check_equal(batch, jax.tree.map(jnp.asarray, wanted))
            overwrite(batch)
    ids = jnp.arange(4, dtype=jnp.uint32)
    overwrite(arsrc.take(config, ids))
    assert ids.tolist() == [0, 1, 2, 3]


@on_both_paths
@pytest.mark.parametrize("batches_per_fetch", [1, 2])
def test_scan(config, state, batches_per_fetch):
    def body(carry: Any, batch: arsrc.Batch) -> tuple[Any, Any]:
        return carry + batch.data["x"].sum(), batch

    with reads(config, 5):
        run = functools.partial(arsrc.scan_steps, config, body=body, num_steps=5)
        after, total, found = jax.jit(lambda s: run(s, jnp.int32(0), batches_per_fetch=batches_per_fetch))(state)
        after.index.block_until_ready()
    expected, batches = expected_batches(config, state, 5)
    check_equal(after, expected)
    check_equal(found, stacked(batches))
    assert int(total) == int(found.data["x"].sum())


@on_both_paths
def test_fori_loop(config, state):
    def body(_: Any, carry: Any) -> Any:
        state, total = carry
        state, batch = arsrc.next_batch(config, state)
        return state, total + batch.data["y"].sum()

    with reads(config, 4):
        after, total = jax.jit(lambda s: jax.lax.fori_loop(0, 4, body, (s, jnp.float32(0))))(state)
        total.block_until_ready()
    expected, batches = expected_batches(config, state, 4)
    check_equal(after, expected)
    assert float(total) == sum(map(total_y, batches))


@on_both_paths
def test_while_loop(config):
    run_out = dataclasses.replace(config, num_epochs=2)

    @jax.jit
    def run(state: arsrc.SourceState) -> Any:
        def body(carry: Any) -> Any:
            state, num_rows = carry
            state, batch = arsrc.next_batch(run_out, state)
            return state, num_rows + batch.mask.sum(dtype=jnp.uint32)

        return jax.lax.while_loop(lambda carry: ~arsrc.is_exhausted(run_out, carry[0]), body, (state, jnp.uint32(0)))

    state, num_rows = run(arsrc.init(run_out))
    assert int(num_rows) == 2 * 20
    assert bool(arsrc.is_exhausted(run_out, state))


@on_both_paths
@pytest.mark.parametrize("fetch", [True, False])
def test_cond_reads_only_in_the_branch_that_is_taken(config, state, fetch):
    @jax.jit
    def step(fetch: Any, state: arsrc.SourceState) -> Any:
        def skip(state: arsrc.SourceState) -> Any:
            return arsrc.advance(config, state), jnp.zeros((4, 3))

        def read(state: arsrc.SourceState) -> Any:
            state, batch = arsrc.next_batch(config, state)
            return state, batch.data["y"]

        return jax.lax.cond(fetch, read, skip, state)

    expected, (batch,) = expected_batches(config, state, 1)
    with reads(config, int(fetch)):
        after, rows = step(fetch, state)
        rows.block_until_ready()
    check_equal(after, expected)
    check_equal(rows, batch.data["y"] if fetch else jnp.zeros((4, 3)))


def test_switch_between_sources(config, make_config):
    other = make_config(seed=7, shuffle_records=True)

    @jax.jit
    def step(which: Any, state: arsrc.SourceState) -> arsrc.Batch:
        return jax.lax.switch(which, [functools.partial(arsrc.peek, c) for c in (config, other)], state)

    for which, source in enumerate((config, other)):
        state = arsrc.init(source)
        check_equal(step(which, state), arsrc.peek(source, state))


def test_a_state_computed_inside_jit_need_never_leave_it(config):
    @jax.jit
    def run(key: Any, step: Any) -> arsrc.Batch:
        return arsrc.peek(config, arsrc.advance(config, arsrc.init(config, key), step))

    key = jax.random.key(9)
    check_equal(run(key, 5), arsrc.peek(config, arsrc.state_at(config, 5, key)))


# Derivatives.


@on_both_paths
def test_grad_of_a_loss_that_fetches_inside(config, state):
    _, (batch,) = expected_batches(config, state, 1)
    with reads(config, 1):
        gradient = jax.grad(lambda weight: loss(weight, arsrc.peek(config, state)))(2.0)
    assert float(gradient) == total_y(batch)


@on_both_paths
def test_value_and_grad_with_the_state_as_auxiliary_value(config, state):
    def objective(weight: Any, state: arsrc.SourceState) -> Any:
        state, batch = arsrc.next_batch(config, state)
        return loss(weight, batch), (state, batch)

    (value, aux), gradient = jax.jit(jax.value_and_grad(objective, has_aux=True))(2.0, state)
    after, (batch,) = expected_batches(config, state, 1)
    check_equal(aux, (after, batch))
    assert float(value) == 2 * total_y(batch)
    assert float(gradient) == total_y(batch)


@on_both_paths
def test_grad_through_a_scan_that_fetches(config, state):
    def objective(weight: Any) -> Any:
        run = arsrc.scan_steps(config, state, jnp.float32(0), lambda a, b: (a + loss(weight, b), None), 3)
        return run[1]

    _, batches = expected_batches(config, state, 3)
    with reads(config, 3):
        gradient = jax.jit(jax.grad(objective))(2.0)
        gradient.block_until_ready()
    assert float(gradient) == sum(map(total_y, batches))


@on_both_paths
def test_jvp_and_hessian_of_a_loss_that_fetches_inside(config, state):
    _, (batch,) = expected_batches(config, state, 1)
    value, tangent = jax.jvp(lambda w: loss(w, arsrc.peek(config, state)), (2.0,), (1.0,))
    assert (float(value), float(tangent)) == (2 * total_y(batch), total_y(batch))
    assert float(jax.hessian(lambda w: loss(w * w, arsrc.peek(config, state)))(2.0)) == 2 * total_y(batch)


# vmap.


def expected_of_members(config: ArrayRecordSourceConfig, states: arsrc.SourceState, *shape: int) -> Any:
    each = [arsrc.next_batch(config, member(states, *index)) for index in np.ndindex(shape)]
    return jax.tree.map(lambda leaf: leaf.reshape(shape + leaf.shape[1:]), stacked(each))


@on_both_paths
def test_vmap_over_states(shuffled, ensemble):
    with reads(shuffled, 3):
        found = jax.vmap(functools.partial(arsrc.next_batch, shuffled))(ensemble)
        found[1].mask.block_until_ready()
    check_equal(found, expected_of_members(shuffled, ensemble, 3))


@on_both_paths
def test_vmap_of_jit_and_jit_of_vmap(config, ensemble):
    step = functools.partial(arsrc.next_batch, config)
    expected = expected_of_members(config, ensemble, 3)
    check_equal(jax.vmap(jax.jit(step))(ensemble), expected)
    check_equal(jax.jit(jax.vmap(step))(ensemble), expected)


@on_both_paths
def test_vmap_makes_one_callback_for_the_whole_ensemble_and_no_loop(config, ensemble):
    step = jax.vmap(functools.partial(arsrc.next_batch, config))
    assert count_callbacks(step, ensemble) == 1
    assert " while(" not in jax.jit(step).lower(ensemble).compile().as_text()


@on_both_paths
def test_nested_vmap(config, ensemble):
    grid = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf[::-1]]), ensemble)
    step = functools.partial(arsrc.next_batch, config)
    check_equal(jax.vmap(jax.vmap(step))(grid), expected_of_members(config, grid, 2, 3))
    assert count_callbacks(jax.vmap(jax.vmap(step)), grid) == 1


@on_both_paths
def test_vmap_of_scan_equals_a_scan_for_each_member(config, ensemble):
    def run(state: arsrc.SourceState) -> Any:
        return arsrc.scan_steps(config, state, jnp.int32(0), lambda a, b: (a + b.data["x"].sum(), b), 3)

    with reads(config, 9):
        found = jax.vmap(run)(ensemble)
        found[1].block_until_ready()
    check_equal(found, stacked([run(member(ensemble, i)) for i in range(3)]))


@on_both_paths
def test_scan_of_vmap_equals_vmap_of_scan(config, ensemble):
    step = jax.vmap(functools.partial(arsrc.next_batch, config))
    after, batches = jax.lax.scan(lambda states, _: step(states), ensemble, length=2)
    first, one = step(ensemble)
    second, two = step(first)
    check_equal((after, batches), (second, stacked([one, two])))


def test_vmap_over_a_part_of_the_state(config, state):
    epochs = jnp.arange(3, dtype=jnp.uint32)
    found = jax.vmap(lambda epoch: arsrc.peek(config, dataclasses.replace(state, epoch=epoch)))(epochs)
    each = [arsrc.peek(config, dataclasses.replace(state, epoch=epoch)) for epoch in epochs]
    check_equal(found, stacked(each))


@on_both_paths
def test_vmap_over_parameters_alone_reads_once(config, state):
    _, (batch,) = expected_batches(config, state, 1)
    with reads(config, 1):
        found = jax.vmap(lambda weight: loss(weight, arsrc.peek(config, state)))(jnp.arange(3.0))
        found.block_until_ready()
    assert found.tolist() == [0, total_y(batch), 2 * total_y(batch)]


@on_both_paths
def test_vmap_of_grad_over_states_and_parameters(config, ensemble):
    gradient = jax.grad(lambda weight, state: loss(weight, arsrc.peek(config, state)))
    found = jax.vmap(gradient)(jnp.ones(3), ensemble)
    assert found.tolist() == [total_y(arsrc.peek(config, member(ensemble, i))) for i in range(3)]


@on_both_paths
def test_vmap_of_batch_at_and_take(config, state):
    starts = jnp.array([0, 7, 22])
    found = jax.vmap(lambda start: arsrc.batch_at(config, state, start, 3))(starts)
    check_equal(found, stacked([arsrc.batch_at(config, state, start, 3) for start in starts.tolist()]))
    ids = jnp.array([[0, 22], [5, 5], [2**32 - 1, 1]], jnp.uint32)
    check_equal(jax.vmap(functools.partial(arsrc.take, config))(ids), stacked([arsrc.take(config, i) for i in ids]))


def test_an_axis_of_vmap_is_no_axis_of_devices(config, ensemble):
    step = functools.partial(arsrc.next_batch, config, axis_name="members")
    with pytest.raises(arsrc.ArsrcValueError, match=r"is no axis of a mesh that jax.shard_map divides here"):
        jax.vmap(step, axis_name="members")(ensemble)


def test_vmap_of_next_batches(config, ensemble):
    step = functools.partial(arsrc.next_batches, config, num_batches=2)
    check_equal(jax.vmap(step)(ensemble), stacked([step(member(ensemble, i)) for i in range(3)]))


def test_vmap_of_the_arithmetic_of_states(config, ensemble):
    record = jnp.array([0, 7, 22])
    functions = [
        functools.partial(arsrc.advance, config),
        functools.partial(arsrc.step_of, config),
        functools.partial(arsrc.is_exhausted, config),
        functools.partial(arsrc.record_ids, config),
        functools.partial(arsrc.batch_mask, config),
        lambda state: arsrc.record_keys(config, state, arsrc.next_batch(config, state)[1]),
        lambda state: arsrc.locate(config, state, record),
    ]
    for function in functions:
        check_equal(jax.vmap(function)(ensemble), stacked([function(member(ensemble, i)) for i in range(3)]))


def test_a_fetch_in_a_branch_that_only_some_members_take(config, ensemble):
    flags = [True, False, True]

    def sometimes(flag: Any, state: arsrc.SourceState) -> Any:
        return jax.lax.cond(flag, lambda s: arsrc.peek(config, s).data["y"], lambda s: jnp.zeros((4, 3)), state)

    found = jax.vmap(sometimes)(jnp.array(flags), ensemble)
    check_equal(found, stacked([sometimes(flag, member(ensemble, i)) for i, flag in enumerate(flags)]))


def test_a_while_loop_that_members_leave_at_different_times(config, ensemble):
    def run(limit: Any, state: arsrc.SourceState) -> Any:
        def body(carry: Any) -> Any:
            step, state, total = carry
            state, batch = arsrc.next_batch(config, state)
            return step + 1, state, total + batch.data["x"].sum()

        return jax.lax.while_loop(lambda carry: carry[0] < limit, body, (0, state, jnp.int32(0)))[1:]

    limits = [2, 0, 3]
    found = jax.vmap(run)(jnp.array(limits), ensemble)
    check_equal(found, stacked([run(limit, member(ensemble, i)) for i, limit in enumerate(limits)]))


# Rematerialisation, and what nobody uses.


def test_a_fetch_inside_checkpoint_is_read_again_for_the_derivative(config, state):
    _, (batch,) = expected_batches(config, state, 1)

    @jax.checkpoint
    def inside(weight: Any) -> Any:
        return (jnp.sin(weight * arsrc.peek(config, state).data["y"])).sum()

    def plain(weight: Any) -> Any:
        return (jnp.sin(weight * batch.data["y"])).sum()

    with reads(config, 2):
        found = jax.jit(jax.value_and_grad(inside))(2.0)
        jax.block_until_ready(found)
    np.testing.assert_allclose(found, jax.value_and_grad(plain)(2.0), rtol=1e-5)


def test_a_scan_of_checkpointed_steps_that_fetch(config, state):
    @jax.checkpoint
    def step(weight: Any, state: arsrc.SourceState) -> Any:
        state, batch = arsrc.next_batch(config, state)
        return state, jnp.tanh(weight * batch.data["y"]).sum()

    def objective(weight: Any) -> Any:
        return jax.lax.scan(lambda s, _: step(weight, s), state, length=3)[1].sum()

    def plain(weight: Any) -> Any:
        return sum(jnp.tanh(weight * batch.data["y"]).sum() for batch in expected_batches(config, state, 3)[1])

    np.testing.assert_allclose(jax.jit(jax.grad(objective))(0.1), jax.grad(plain)(0.1), rtol=1e-5)


@on_both_paths
def test_checkpoint_around_what_computes_reads_once(config, state):
    _, (batch,) = expected_batches(config, state, 1)
    with reads(config, 1):
        found = jax.grad(lambda weight: jax.checkpoint(loss)(weight, arsrc.peek(config, state)))(2.0)
    assert float(found) == total_y(batch)


def test_a_batch_whose_data_nobody_uses_is_not_read(config, state):
    with reads(config, 0):
        after, ids = jax.jit(
            lambda s: arsrc.scan_steps(config, s, (), lambda _, b: ((), (b.record_ids, b.mask)), 4)[::2]
        )(state)
        jax.block_until_ready(ids)
    expected, batches = expected_batches(config, state, 4)
    check_equal((after, ids), (expected, stacked([(b.record_ids, b.mask) for b in batches])))


# What the fast path alone can do: JAX takes a callback for an effect, and so the portable path for one.


def in_checkpoint(config: ArrayRecordSourceConfig, states: arsrc.SourceState) -> Any:
    """JAX does not know that running a callback twice does no harm."""
    return jax.grad(jax.checkpoint(lambda weight: loss(weight, arsrc.peek(config, member(states, 0)))))(2.0)


def in_a_branch_of_some_members(config: ArrayRecordSourceConfig, states: arsrc.SourceState) -> Any:
    """It would have to run both branches for all members."""

    def sometimes(flag: Any, state: arsrc.SourceState) -> Any:
        return jax.lax.cond(flag, lambda s: arsrc.peek(config, s).data["y"], lambda s: jnp.zeros((4, 3)), state)

    return jax.vmap(sometimes)(jnp.array([True, False, True]), states)


def in_a_loop_that_some_members_have_left(config: ArrayRecordSourceConfig, states: arsrc.SourceState) -> Any:
    """It would have to run the body for them too."""

    def run(limit: Any, state: arsrc.SourceState) -> Any:
        return jax.lax.while_loop(lambda s: s.index < limit, lambda s: arsrc.next_batch(config, s)[0], state)

    return jax.vmap(run)(jnp.array([8, 0, 12], jnp.uint32), states)


# And without a change of a batch: it leaves out what nobody uses, and refuses a plain `jit` over several processes.
FAST_ONLY = [in_checkpoint, in_a_branch_of_some_members, in_a_loop_that_some_members_have_left]


@pytest.mark.parametrize("read", FAST_ONLY)
def test_what_the_fast_path_alone_can_do_is_refused_by_jax_on_the_portable_one(
    config, ensemble, make_config, monkeypatch, read
):
    expected = read(config, ensemble)
    monkeypatch.setattr(bridge, "_path", lambda: bridge.portable)
    try:
        found = read(make_config(name="portable"), ensemble)
    except Exception as error:  # JAX has no one type for it
        assert re.search(r"(IO effects?|Effects) not supported in", str(error))  # noqa: PT017
    else:  # JAX 0.7 does not see through custom_vmap
        check_equal(found, expected)


# What does not work today, and fails clearly.


@on_both_paths
def test_export_of_a_program_that_fetches_is_refused_by_jax(config, state):
    with pytest.raises(NotImplementedError, match="callback"):
        export.export(jax.jit(lambda state: arsrc.peek(config, state).data))(state)


def test_export_of_the_arithmetic_of_states_works(config, state):
    def ids(index: Any, epoch: Any, words: Any) -> Any:
        key = jax.random.wrap_key_data(words)
        return arsrc.record_ids(config, arsrc.SourceState(index=index, epoch=epoch, key=key))

    args = (state.index, state.epoch, jax.random.key_data(state.key))
    exported = export.export(jax.jit(ids))(*args)
    check_equal(exported.call(*args), arsrc.record_ids(config, state))


CACHED_PROGRAMS = """
import os, sys
import jax, jax.numpy as jnp
import arsrc

jax.config.update("jax_compilation_cache_dir", sys.argv[2])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
config = arsrc.ArrayRecordSourceConfig(sys.argv[1], 4)
state = arsrc.init(config)

def fetch(state):
    return arsrc.next_batch(config, state)[1].data.sum(dtype=jnp.uint32)

def train(batch):
    return batch.data.sum(dtype=jnp.uint32)

_, batch = next(arsrc.iterate(config, state))
names = os.listdir(sys.argv[2])
print(jax.jit(fetch)(state), jax.jit(train)(batch), any(name.startswith("jit_train-") for name in names))
"""


@pytest.mark.processes
def test_the_persistent_compilation_cache_mixes_up_no_data_and_holds_steps_fed_by_iterate(tmp_path, write_records):
    printed = []
    for value in (1, 2):
        path = write_records(tmp_path / f"{value}.array_record", [bytes([value] * 3)] * 8)
        done = subprocess.run(
            [sys.executable, "-P", "-c", CACHED_PROGRAMS, path, str(tmp_path)],
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout.split())
    assert printed == [["12", "12", "False"], ["24", "24", "True"]]


@pytest.mark.parametrize(
    "function",
    [
        lambda config, state: next(arsrc.iterate(config, state)),
        arsrc.to_state_dict,
        arsrc.operation_stats,
    ],
    ids=["iterate", "to_state_dict", "operation_stats"],
)
def test_what_runs_on_the_host_says_so_under_jit(config, state, function):
    with pytest.raises(arsrc.ArsrcTypeError, match=r"^\[arsrc\] \w+: runs on the host, not inside a JAX"):
        jax.jit(functools.partial(function, config))(state)


# Devices.


@on_both_paths
def test_shard_map_over_a_mesh_of_one_device(config, state):
    mesh = jax.make_mesh((1,), ("data",))
    step = functools.partial(arsrc.next_batch, config, axis_name="data")
    specs = (PartitionSpec(), PartitionSpec("data"))
    sharded = jax.shard_map(step, mesh=mesh, in_specs=PartitionSpec(), out_specs=specs, check_vma=False)
    expected = arsrc.next_batch(config, state)
    check_equal(jax.jit(sharded)(state), expected)
    check_equal(sharded(state), expected)


@on_both_paths
def test_scan_inside_shard_map(config, state):
    mesh = jax.make_mesh((1,), ("data",))

    def run(state: arsrc.SourceState) -> Any:
        state, _, batches = arsrc.scan_steps(config, state, (), lambda _, b: ((), b), 3, axis_name="data")
        return state, batches

    specs = (PartitionSpec(), PartitionSpec(None, "data"))
    sharded = jax.shard_map(run, mesh=mesh, in_specs=PartitionSpec(), out_specs=specs, check_vma=False)
    after, batches = expected_batches(config, state, 3)
    check_equal(jax.jit(sharded)(state), (after, stacked(batches)))


# Types, promotion and debugging switches.


@contextlib.contextmanager
def setting(name: str, value: Any) -> Iterator[None]:
    before = getattr(jax.config, name)
    jax.config.update(name, value)
    try:
        yield
    finally:
        jax.config.update(name, before)


def test_these_tests_run_with_strict_promotion_and_64_bit_types_off():
    assert jax.config.jax_numpy_dtype_promotion == "strict"
    assert jax.config.jax_numpy_rank_promotion == "raise"
    assert not jax.config.jax_enable_x64


def test_64_bit_types_change_no_result(config, shuffled):
    def everything() -> Any:
        state = arsrc.state_at(shuffled, 7)
        return [
            arsrc.next_batch(shuffled, state),
            next(arsrc.iterate(shuffled, state)),
            arsrc.record_keys(shuffled, state, arsrc.peek(shuffled, state)),
            arsrc.locate(shuffled, state, 3),
            arsrc.step_of(config, state),
            jax.jit(functools.partial(arsrc.next_batches, config, num_batches=2))(state),
            arsrc.batch_at(config, state, -3, 5),
            jax.jit(lambda start: arsrc.batch_at(config, state, start, 5))(-3),
            arsrc.take(config, [22, 0]),
        ]

    off = everything()
    with setting("jax_enable_x64", True):
        on = everything()
    check_equal(on, off)


WIDE = Struct({"i": "int64", "u": "uint64", "f": "float64", "b": "bool"})


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> ArrayRecordSourceConfig:
    """Records 0 to 3 fit 32 bits, record 4 does not fit int32, record 5 does not fit uint32."""
    path = tmp_path_factory.mktemp("wide") / "a.array_record"
    values = {
        "i": np.array([0, -1, -(2**31), 2**31 - 1, 2**31, 0]),
        "u": np.array([0, 1, 2, 2**32 - 1, 0, 2**32], np.uint64),
        "f": np.linspace(0, 1, 6),
        "b": np.arange(6) % 2 == 0,
    }
    arsrc.write_array_record(path, values, codec=WIDE)
    return ArrayRecordSourceConfig(path, 4, WIDE, num_epochs=1, remainder="pad")


def test_wide_fields_arrive_with_32_bits_where_64_bit_types_are_off(wide):
    dtypes = {"i": np.int32, "u": np.uint32, "f": np.float32, "b": np.bool_}
    assert {name: spec.dtype for name, spec in arsrc.element_spec(wide).items()} == dtypes
    for batch in (arsrc.take(wide, range(4)), next(arsrc.iterate(wide))[1]):
        assert {name: leaf.dtype for name, leaf in batch.data.items()} == dtypes
        assert batch.data["i"].tolist() == [0, -1, -(2**31), 2**31 - 1]
        assert batch.data["u"].tolist() == [0, 1, 2, 2**32 - 1]
        np.testing.assert_array_equal(batch.data["f"], np.linspace(0, 1, 6)[:4].astype(np.float32))


def test_wide_fields_arrive_with_64_bits_where_they_are_on(wide):
    with setting("jax_enable_x64", True):
        dtypes = {"i": np.int64, "u": np.uint64, "f": np.float64, "b": np.bool_}
        assert {name: spec.dtype for name, spec in arsrc.element_spec(wide).items()} == dtypes
        batch = arsrc.take(wide, range(6))
        assert batch.data["i"].tolist() == [0, -1, -(2**31), 2**31 - 1, 2**31, 0]
        assert batch.data["u"].tolist() == [0, 1, 2, 2**32 - 1, 0, 2**32]
        np.testing.assert_array_equal(batch.data["f"], np.linspace(0, 1, 6))


@pytest.mark.parametrize(
    ("record_id", "kinds"),
    [(4, r"int64 values do not fit int32.* for leaf \['i'\]"), (5, r"uint64 .* uint32.* for leaf \['u'\]")],
)
def test_values_that_do_not_fit_32_bits_are_an_error_and_no_other_number(wide, record_id, kinds):
    with pytest.raises((jax.errors.JaxRuntimeError, ValueError), match=rf"\[arsrc\] decode: .*{kinds}"):
        jax.block_until_ready(arsrc.take(wide, [0, record_id]))
    assert arsrc.take(wide, [0]).data["i"].tolist() == [0]


WAYS_TO_RECORD_4 = {
    "take": lambda config: arsrc.take(config, [[3, 3], [2, 4]]),
    "next_batch": lambda config: arsrc.next_batch(config, arsrc.state_at(config, 2)),
    "next_batches": jax.jit(lambda config: arsrc.next_batches(config, arsrc.init(config), 3), static_argnums=0),
    "members": lambda config: jax.vmap(lambda state: arsrc.next_batch(config, state))(
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *(arsrc.state_at(config, step) for step in (0, 2)))
    ),
    "iterate": lambda config: list(arsrc.iterate(config)),
}


@pytest.mark.parametrize("bridge_path", ["fast", "portable"], indirect=True)
@pytest.mark.parametrize("way", WAYS_TO_RECORD_4)
def test_the_error_of_a_value_that_does_not_fit_32_bits_names_its_record(wide, way, bridge_path):
    config = dataclasses.replace(wide, batch_size=2, name=bridge_path)
    with pytest.raises(
        (jax.errors.JaxRuntimeError, ValueError), match=r"do not fit int32.*high=2147483648, record_id=4"
    ):
        jax.block_until_ready(WAYS_TO_RECORD_4[way](config))


def test_values_that_do_not_fit_32_bits_are_a_typed_error_at_their_own_batch_of_iterate(wide):
    batches = arsrc.iterate(dataclasses.replace(wide, batch_size=1))
    served = []
    for _ in range(4):
        served.append(next(batches)[1].data["i"].item())
        time.sleep(0.1)  # lets the batches behind be read ahead
    assert served == [0, -1, -(2**31), 2**31 - 1]
    with pytest.raises(arsrc.ArsrcValueError, match="int64 values do not fit int32"):
        next(batches)


def test_values_of_less_than_a_byte_arrive_as_they_are(tmp_path):
    path = str(tmp_path / "packed")
    arsrc.write_array_record(path, [bytes([i, 15 - i, 3]) for i in range(8)])
    spec = jax.ShapeDtypeStruct((3,), jnp.int4)
    config = ArrayRecordSourceConfig(path, 3, Map(_as_int4, spec), num_epochs=1, remainder="pad")
    expected = [[i - 16 * (i > 7), (15 - i) - 16 * (15 - i > 7), 3] for i in range(8)] + [[0, 0, 0]]
    batches = jax.jit(lambda state: arsrc.next_batches(config, state, 3)[1])(arsrc.init(config))
    assert batches.data.dtype == jnp.int4
    assert batches.data.astype(jnp.int8).reshape(9, 3).tolist() == expected
    check_equal(batches.data[2], list(arsrc.iterate(config))[2][1].data)


def _as_int4(record: bytes) -> np.ndarray:
    return np.frombuffer(record, np.int8).astype(jnp.int4)


@on_both_paths
def test_disable_jit(make_config, bridge_path):
    config = make_config(name=bridge_path)
    state = arsrc.state_at(config, 2)
    expected = arsrc.next_batch(config, state), arsrc.take(config, [3])
    with jax.disable_jit():
        found = arsrc.next_batch(config, state), arsrc.take(config, [3])
    check_equal(found, expected)


@on_both_paths
@pytest.mark.parametrize("switch", [jax.debug_nans, jax.debug_infs])
def test_a_search_for_nans_that_finds_none(config, state, switch):
    expected = arsrc.next_batch(config, state)
    with switch(True):
        check_equal(arsrc.next_batch(config, state), expected)
        check_equal(jax.jit(functools.partial(arsrc.next_batch, config))(state), expected)


FETCHES: dict[str, Callable[[Callable[[Any], Any], Any], Any]] = {
    "eager": lambda fetch, state: fetch(state),
    "jit": lambda fetch, state: jax.jit(fetch)(state),
    "scan": lambda fetch, state: jax.lax.scan(lambda s, _: fetch(s), state, length=2),
    "jit of scan": lambda fetch, state: jax.jit(lambda s: jax.lax.scan(lambda s, _: fetch(s), s, length=2))(state),
    "vmap": lambda fetch, state: jax.vmap(fetch)(stacked([state, state])),
    "a row with one": lambda fetch, state: jax.jit(lambda s: fetch(s)[1]["y"][1])(state),
    "a row without": lambda fetch, state: jax.jit(lambda s: fetch(s)[1]["y"][0])(state),
    "no jit": lambda fetch, state: jax.disable_jit()(fetch)(state),
}


@on_both_paths
@pytest.mark.parametrize(
    ("how", "switch", "value"),
    [*((how, jax.debug_nans, np.nan) for how in FETCHES), ("jit", jax.debug_infs, np.inf)],
)
def test_nans_in_the_data_are_found_where_those_of_a_plain_callback_are(tmp_path, bridge_path, how, switch, value):
    values = np.array([0, value, 2, 3], np.float32)
    codec = Struct({"y": "float32"})
    path = arsrc.write_array_record(tmp_path / "x", {"y": values}, codec=codec)
    config = ArrayRecordSourceConfig(path, 4, codec)
    state = arsrc.init(config)

    def by_hand(state: arsrc.SourceState) -> Any:
        spec = jax.ShapeDtypeStruct((4,), jnp.float32)
        return arsrc.advance(config, state), {"y": io_callback(lambda _: values, spec, state.index, ordered=False)}

    def fetch(state: arsrc.SourceState) -> Any:
        state, batch = arsrc.next_batch(config, state)
        return state, batch.data

    def outcome(fetch: Callable[[Any], Any]) -> Any:
        try:
            return FETCHES[how](fetch, state)
        except FloatingPointError as error:
            return type(error)

    expected = outcome(fetch)
    with switch(True):
        found, plain = outcome(fetch), outcome(by_hand)
    if how == "a row without":
        check_equal((found, plain), (expected, expected))
    else:
        assert found is plain is FloatingPointError
    check_equal(outcome(fetch), expected)


@on_both_paths
def test_checking_of_tracer_leaks(config, state):
    with jax.checking_leaks():
        check_equal(jax.jit(functools.partial(arsrc.next_batch, config))(state), arsrc.next_batch(config, state))


def test_eval_shape_gives_the_specs_and_reads_nothing(config, state):
    before = arsrc.io_metrics(config)
    _, batch = jax.eval_shape(functools.partial(arsrc.next_batch, config), state)
    assert batch == arsrc.batch_spec(config)
    assert arsrc.io_metrics(config)["records_read"] == before["records_read"]


# Size and cost.


@pytest.mark.parametrize(("impl", "num_bytes"), [("threefry2x32", 16), ("rbg", 24), ("unsafe_rbg", 24)])
def test_a_state_takes_at_most_32_bytes(config, impl, num_bytes):
    state = arsrc.init(config, jax.random.key(0, impl=impl))
    arrays = [state.index, state.epoch, jax.random.key_data(state.key)]
    assert len(jax.tree.leaves(state)) == 3
    assert sum(array.nbytes for array in arrays) == num_bytes


def num_operations(function: Callable[..., Any], *args: Any) -> dict[str, int]:
    """How often each operation stands in the compiled program, inside fusions and calls too."""
    text = jax.jit(function).lower(*args).compile().as_text()
    counts: dict[str, int] = {}
    for name in re.findall(r" = [^=]*? ([a-z][a-z-]*)\(", text):
        counts[name] = counts.get(name, 0) + 1
    return counts


def test_unused_parts_of_a_batch_cost_nothing_under_jit(shuffled, state):
    data = num_operations(lambda state: arsrc.peek(shuffled, state).data, state)
    whole = num_operations(lambda state: arsrc.peek(shuffled, state), state)
    assert data["custom-call"] == whole["custom-call"] == 1
    rounds = {"xor", "multiply", "shift-right-logical"}
    assert rounds & set(whole), "the permutation of the record ids has other operations"
    assert not rounds & set(data)
    assert " while" not in data
    assert sum(data.values()) < 25 < sum(whole.values())


def test_the_mask_alone_needs_no_permutation(shuffled, state):
    mask = num_operations(functools.partial(arsrc.batch_mask, shuffled), state)
    assert not {"xor", "multiply", "shift-right-logical", "custom-call"} & set(mask)


def test_arithmetic_of_states_has_no_callback(config, state):
    for function in (arsrc.advance, arsrc.step_of, arsrc.is_exhausted, arsrc.record_ids):
        assert count_callbacks(functools.partial(function, config), state) == 0
    assert count_callbacks(functools.partial(arsrc.record_keys, config), state, arsrc.peek(config, state)) == 0
    assert count_callbacks(functools.partial(arsrc.init, config), jax.random.key(0)) == 0


@on_both_paths
def test_a_program_has_one_callback_for_each_fetch(config, state):
    assert count_callbacks(functools.partial(arsrc.next_batch, config), state) == 1
    assert count_callbacks(functools.partial(arsrc.next_batches, config, num_batches=5), state) == 1

    def run(state: arsrc.SourceState) -> Any:
        return arsrc.scan_epoch(config, state, jnp.int32(0), lambda a, b: (a + b.data["x"].sum(), None))

    assert count_callbacks(run, state) == 1


# Traces.


def test_equal_configs_are_traced_once(make_config):
    @functools.partial(jax.jit, static_argnums=0)
    @chex.assert_max_traces(n=1)
    def step(config: ArrayRecordSourceConfig, state: arsrc.SourceState) -> Any:
        return arsrc.next_batch(config, state)

    chex.clear_trace_counter()
    for _ in range(3):
        config = make_config(shuffle_records=True, name="traced once")
        state = arsrc.init(config)
        for _ in range(3):
            state, _ = step(config, state)


def test_eager_calls_with_equal_configs_compile_nothing_new(make_config, caplog):
    def run() -> None:
        config = make_config(shuffle_records=True, name="compiled once")
        state = arsrc.state_at(config, 2)
        for _ in range(2):
            state, batch = arsrc.next_batch(config, state)
        arsrc.batch_at(config, state, 3, 2)
        arsrc.take(config, np.array([1, 2], np.uint32))
        arsrc.record_keys(config, state, batch)
        jax.block_until_ready((state, batch))

    run()
    with jax.log_compiles():
        run()
        assert not [record for record in caplog.records if "ompiling" in record.getMessage()]
        jax.jit(lambda x: x + 1.5)(1.0)
        assert [record for record in caplog.records if "ompiling" in record.getMessage()], "no log to look at"


@on_both_paths
def test_equal_configs_make_equal_programs(make_config, bridge_path):
    programs = set()
    for _ in range(2):
        config = make_config(shuffle_records=True, name=f"equal programs, {bridge_path}")
        program = jax.make_jaxpr(functools.partial(arsrc.next_batch, config))(arsrc.init(config))
        programs.add(str(program))
    assert len(programs) == 1


@on_both_paths
def test_fetches_of_one_program_with_equal_configs_have_equal_callbacks(make_config, state, bridge_path):
    primitive, param = {"fast": ("arsrc_read", "call"), "portable": ("io_callback", "callback")}[bridge_path]

    def callback_params(config: ArrayRecordSourceConfig) -> list[Any]:
        found = []

        def visit(jaxpr: Any) -> None:
            for equation in jaxpr.eqns:
                if equation.primitive.name == primitive:
                    found.append(equation.params[param])
                for inner in jax.tree.leaves(
                    list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")
                ):
                    inner = getattr(inner, "jaxpr", inner)
                    if hasattr(inner, "eqns"):
                        visit(inner)

        jax.clear_caches()
        visit(jax.make_jaxpr(functools.partial(arsrc.next_batch, config))(state).jaxpr)
        return found

    one, other = (callback_params(make_config(name="equal callbacks")) for _ in range(2))
    (different,) = callback_params(make_config(name="another"))
    assert len(one) == len(other) == 1
    assert one == other
    assert hash(one[0]) == hash(other[0])
    assert different != one[0]
