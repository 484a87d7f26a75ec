"""Every way to read a mixture gives the same batches: eager, compiled, in loops, by ensembles, from a table, on a mesh.

What these batches are is tested in test_mixtures.py.
"""

import dataclasses
import functools
import itertools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import arsrc
from arsrc import MixtureConfig
from arsrc.codecs import Map, Struct

Config = arsrc.ArrayRecordSourceConfig

PAD_ID = 2**32 - 1
CODEC = Struct({"id": "uint32"})
SIZES = (23, 8, 5)
STEPS = 11


def parse(record: bytes) -> dict[str, Any]:
    return {"id": np.frombuffer(record, "<u4")[0]}


MAP = Map(parse, {"id": jax.ShapeDtypeStruct((), np.uint32)})


@pytest.fixture(scope="module")
def mix(records_dir: Path) -> MixtureConfig:
    """A mixture of three groups and two stages, whose first source ends, and of which a record is excluded.

    That programs have the orders of blocks and files too is tested in test_mixture_order.py; these compile slowly.
    """
    orders: list[dict[str, Any]] = [
        {"num_epochs": 1},
        {"shuffle_records": True, "exclude": [3], "codec": MAP},
        {"shuffle_records": True, "cacheable": True},
    ]
    sources = []
    for number, (size, order) in enumerate(zip(SIZES, orders, strict=True)):
        ids = 1000 * number + np.arange(size, dtype=np.uint32)
        path = records_dir / f"mixture-loops-{number}"
        paths = arsrc.write_array_record(path, {"id": ids}, codec=CODEC, num_shards=2)
        sources.append(Config(paths, 2, **({"codec": CODEC} | order)))
    return MixtureConfig(sources, stages=[(0, (2, 1, 1)), (6, (1, 1, 2))], batch_size=6, stop="all")


@pytest.fixture(scope="module")
def wanted(mix: MixtureConfig) -> arsrc.Batch:
    """The first batches, as `iterate` gives them."""
    return iterated(mix, arsrc.init(mix))


def iterated(mix: MixtureConfig, state: Any) -> arsrc.Batch:
    return stack([batch for _, batch in itertools.islice(arsrc.iterate(mix, state), STEPS)])


def stack(batches: Any) -> Any:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *batches)


def check(found: Any, wanted: Any) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


def rows(wanted: arsrc.Batch) -> arsrc.Batch:
    """Without the axis of batches."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), wanted)


def loop(mix: MixtureConfig, step: Any) -> Any:
    state, batches = arsrc.init(mix), []
    for _ in range(STEPS):
        state, batch = step(state)
        batches.append(batch)
    return state, stack(batches)


def at(mix: MixtureConfig, state: arsrc.SourceState, step: int) -> bool:
    there = arsrc.state_at(mix, step)
    return (int(state.index), int(state.epoch)) == (int(there.index), int(there.epoch))


def test_there_are_masked_rows_of_both_kinds_and_sources_of_several_epochs(mix: Any, wanted: arsrc.Batch) -> None:
    assert 0 < (~wanted.mask).sum() < wanted.mask.size / 2
    assert wanted.epochs.max() > 2
    ids = wanted.record_ids[wanted.mask]
    assert set(np.searchsorted([23, 31], ids, side="right").tolist()) == {0, 1, 2}
    assert 23 + 3 not in ids
    assert sum(ids < 23) == 23


def test_next_batch_in_a_loop(mix: Any, wanted: Any) -> None:
    state, found = loop(mix, functools.partial(arsrc.next_batch, mix))
    check(found, wanted)
    assert at(mix, state, STEPS)


def test_next_batch_compiled(mix: Any, wanted: Any) -> None:
    state, found = loop(mix, jax.jit(functools.partial(arsrc.next_batch, mix)))
    check(found, wanted)
    assert at(mix, state, STEPS)


def test_peek_and_advance(mix: Any, wanted: Any) -> None:
    _, found = loop(mix, lambda state: (arsrc.advance(mix, state), arsrc.peek(mix, state)))
    check(found, wanted)


@pytest.mark.parametrize("num_batches", [1, STEPS])
def test_next_batches(mix: Any, wanted: Any, num_batches: int) -> None:
    state, found = arsrc.next_batches(mix, arsrc.init(mix), num_batches)
    check(found, jax.tree.map(lambda leaf: leaf[:num_batches], wanted))
    assert at(mix, state, num_batches)


@pytest.mark.parametrize("options", [{}, {"batches_per_fetch": 4}, {"batches_per_fetch": 11, "unroll": 2}], ids=str)
def test_scan_steps(mix: Any, wanted: Any, options: Any) -> None:
    scan = jax.jit(lambda state: arsrc.scan_steps(mix, state, 0, lambda n, batch: (n + 1, batch), STEPS, **options))
    state, carry, found = scan(arsrc.init(mix))
    check(found, wanted)
    assert int(carry) == STEPS
    assert at(mix, state, STEPS)


def test_scan_epoch_goes_through_the_batches_of_an_epoch_of_the_mixture(mix: Any, wanted: Any) -> None:
    steps = arsrc.steps_per_epoch(mix)
    assert steps == 6  # 36 rows
    state, _, found = arsrc.scan_epoch(mix, arsrc.init(mix), (), lambda carry, batch: (carry, batch))
    check(found, jax.tree.map(lambda leaf: leaf[:steps], wanted))
    assert at(mix, state, steps)


def test_the_arithmetic_of_states(mix: Any, wanted: Any) -> None:
    for step in range(STEPS):
        state = arsrc.state_at(mix, step)
        assert int(arsrc.step_of(mix, state)) == step
        assert np.array_equal(arsrc.record_ids(mix, state), wanted.record_ids[step])
        assert np.array_equal(arsrc.batch_mask(mix, state), wanted.mask[step])
        assert not arsrc.is_exhausted(mix, state)


def test_iterate_goes_on_from_any_state(mix: Any, wanted: Any) -> None:
    for step in (1, 5, 6, 9):
        states, batches = zip(
            *itertools.islice(arsrc.iterate(mix, arsrc.state_at(mix, step)), STEPS - step), strict=True
        )
        check(stack(batches), jax.tree.map(lambda leaf, step=step: leaf[step:], wanted))
        assert at(mix, states[-1], STEPS)


def test_iterate_onto_a_device(mix: Any, wanted: Any) -> None:
    device = jax.devices()[0]
    check(stack([batch for _, batch in itertools.islice(arsrc.iterate(mix, device=device), STEPS)]), wanted)


@pytest.mark.parametrize("start", [0, 7, 35, -1, -36])
def test_batch_at_gives_rows_of_the_state_s_epoch(mix: Any, wanted: Any, start: int) -> None:
    first = jax.tree.map(lambda leaf: leaf[:36], rows(wanted))
    found = arsrc.batch_at(mix, arsrc.init(mix), start, 8)
    check(found, jax.tree.map(lambda leaf: leaf[np.arange(start, start + 8) % 36], first))
    traced = jax.jit(lambda start: arsrc.batch_at(mix, arsrc.init(mix), start, 8))(start)
    check(traced, found)


@pytest.mark.parametrize("start", [36, -37])
def test_batch_at_takes_positions_of_the_mixture_s_epoch(mix: Any, start: int) -> None:
    with pytest.raises(arsrc.ArsrcIndexError, match=r"\[-36, 36\)"):
        arsrc.batch_at(mix, arsrc.init(mix), start)


def test_take_gives_the_rows_of_ids(mix: Any, wanted: Any) -> None:
    found = arsrc.take(mix, wanted.record_ids)
    check(found, dataclasses.replace(wanted, epochs=np.zeros_like(wanted.epochs)))
    excluded = arsrc.take(mix, [26, 0, 35])
    assert excluded.data["id"].tolist() == [1003, 0, 2004]
    with pytest.raises(arsrc.ArsrcIndexError, match=r"\[0, 36\)"):
        arsrc.take(mix, [36])


def test_a_traced_id_that_no_record_has_is_an_error(mix: Any) -> None:
    with pytest.raises(Exception, match=r"\[arsrc\] take: no such record: the data set has 36; got record_id=36"):
        jax.block_until_ready(jax.jit(lambda ids: arsrc.take(mix, ids))(jnp.array([36])))


def test_a_resident_table_holds_the_rows_of_all_sources(mix: Any, wanted: Any) -> None:
    table = arsrc.load_resident(mix)
    ids = np.array([*range(23), *range(1000, 1008), *range(2000, 2005)])
    assert np.array_equal(table["id"], np.where(ids == 1003, 0, ids))
    step = jax.jit(functools.partial(arsrc.next_batch, mix))
    check(loop(mix, lambda state: step(state, resident=table))[1], wanted)
    scanned = arsrc.scan_steps(mix, arsrc.init(mix), (), lambda c, b: (c, b), STEPS, resident=table)
    check(scanned[2], wanted)


def test_an_ensemble_of_keys_gets_the_batches_of_each(mix: Any) -> None:
    keys = jax.random.split(jax.random.key(3), 3)
    states = jax.vmap(lambda key: arsrc.init(mix, key))(keys)
    step = jax.jit(jax.vmap(functools.partial(arsrc.next_batch, mix)))
    found = []
    for _ in range(STEPS):
        states, batch = step(states)
        found.append(batch)
    for member, key in enumerate(keys):
        alone = iterated(mix, arsrc.init(mix, key))
        check(jax.tree.map(lambda leaf, member=member: leaf[:, member], stack(found)), alone)
    assert len({tuple(ids) for ids in stack(found).record_ids[0].tolist()}) == 3


def test_an_ensemble_whose_members_stand_at_other_steps(mix: Any, wanted: Any) -> None:
    starts = np.array([0, 5, 7])
    states = jax.vmap(lambda step: arsrc.state_at(mix, step))(starts)
    _, batches = jax.vmap(lambda state: arsrc.next_batches(mix, state, 2))(states)
    for member, start in enumerate(starts):
        check(
            jax.tree.map(lambda leaf, member=member: leaf[member], batches),
            jax.tree.map(lambda leaf, start=start: leaf[start : start + 2], wanted),
        )


def test_keys_of_rows_are_those_of_id_and_epoch_in_every_form(mix: Any, wanted: Any) -> None:
    state = arsrc.init(mix)
    words = lambda keys: np.asarray(jax.random.key_data(keys))  # noqa: E731
    keys = words(arsrc.record_keys(mix, state, wanted))
    scanned = arsrc.scan_steps(
        mix, state, (), lambda carry, batch: (carry, jax.random.key_data(arsrc.record_keys(mix, state, batch))), STEPS
    )[2]
    np.testing.assert_array_equal(scanned, keys)
    valid = wanted.mask
    pairs = np.stack([wanted.epochs[valid], wanted.record_ids[valid]], 1)
    assert len(np.unique(pairs, axis=0)) == len(np.unique(keys[valid], axis=0)) == valid.sum()


def test_a_mesh_of_one_device(mix: Any, wanted: Any) -> None:
    mesh = jax.make_mesh((1,), ("data",))
    _, found = loop(mix, functools.partial(arsrc.next_global_batch, mix, mesh=mesh, axis_name="data"))
    check(found, wanted)
    step = functools.partial(arsrc.next_batch, mix, axis_name="data")
    specs = (P(), P("data"))
    sharded = jax.jit(jax.shard_map(step, mesh=mesh, in_specs=P(), out_specs=specs, check_vma=False))
    check(loop(mix, sharded)[1], wanted)


def test_states_at_the_very_end_are_exhausted_in_every_form(mix: Any) -> None:
    sources = [dataclasses.replace(one, num_epochs=1) for one in mix.sources]
    short = dataclasses.replace(mix, sources=sources)
    steps = arsrc.total_steps(short)
    batches = [batch for _, batch in arsrc.iterate(short)]
    assert len(batches) == steps
    _, found = arsrc.next_batches(short, arsrc.init(short), steps + 2)
    check(jax.tree.map(lambda leaf: leaf[:steps], found), stack(batches))
    assert not found.mask[steps:].any()
    assert (np.asarray(found.record_ids[steps:]) == PAD_ID).all()
    assert int(found.mask.sum()) == 23 + 7 + 5


def test_equal_mixtures_are_traced_once(mix: Any) -> None:
    traces = []

    @jax.jit
    def step(state: arsrc.SourceState) -> Any:
        traces.append(1)
        return arsrc.next_batch(dataclasses.replace(mix, seed=len(traces)), state)

    for seed in range(3):
        step(arsrc.init(dataclasses.replace(mix, seed=seed)))
    assert len(traces) == 1
