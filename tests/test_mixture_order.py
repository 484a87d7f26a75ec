"""Mixtures: whose each slot is, which of its rows, and where it ends, against counters that are kept slot by slot."""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import arsrc
from arsrc import state as states
from arsrc._host import registry
from arsrc._host.serving.loading import Loader
from arsrc._host.serving.requests import Request
from arsrc.errors import ArsrcValueError
from arsrc.keys import order_words
from arsrc.order import arithmetic, permutation, record_order
from arsrc.order.blocks import Blocks
from arsrc.order.mixture import Mixture, mixture_plan, rows_before, source_of
from arsrc.order.plan import PAD_ID, Plan
from arsrc.order.spread import MOST_SLOTS, spread, whole_quotas
from arsrc.state import next_rows

MAX = 2**32 - 1


def u32(values: Any) -> np.ndarray:
    return np.asarray(values, np.uint32)


def normal(weights: Sequence[float]) -> tuple[float, ...]:
    return tuple(weight / sum(weights) for weight in weights)


def source(num_records: int, order: str = "records", num_epochs: int = -1, exclude: Any = ()) -> Plan:
    return Plan(
        num_records=num_records,
        batch_size=3,
        num_epochs=num_epochs,
        remainder="drop",
        shuffle_records=order in ("records", "blocks"),
        file_sizes=(num_records // 2, num_records - num_records // 2) if order == "files" else (),
        blocks=Blocks(num_records, 3, 6) if order == "blocks" else None,
        exclude=exclude,
    )


def mixed(plans: Sequence[Plan], *stages: Any, batch_size: int = 4, stop: str = "first") -> Plan:
    """A mixture with `stages` of `(step, weights)`, or with weights alone."""
    stages = tuple(stage if isinstance(stage[1], tuple) else (0, stage) for stage in stages)
    return mixture_plan(plans, batch_size, [(step, normal(weights)) for step, weights in stages], stop)


def mixture_of(plan: Plan) -> Mixture:
    assert plan.mixture is not None
    return plan.mixture


def words_of(plan: Plan, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**32, 2 * len(mixture_of(plan).sources), np.uint32)


# Simulation: a counter for each source.

Row = tuple[int, int, int] | None  # source, epoch and position of its own


def simulated(plan: Plan) -> Iterator[Row]:
    """The rows of all slots, up to the end: counters, and Tijdeman's rule by fractions."""
    mixture = mixture_of(plan)
    counts = [0] * len(mixture.sources)
    ended = [False] * len(mixture.sources)
    for slot in itertools.count():
        stage = sum(start <= slot for start in mixture.starts) - 1
        quotas = mixture.quotas[stage]
        h = (slot - mixture.starts[stage]) % sum(quotas)
        taken = tijdeman(quotas)[h]
        one = mixture.sources[taken]
        epoch, position = divmod(counts[taken], one.num_records)
        counts[taken] += 1
        if 0 <= one.num_epochs <= epoch:
            if mixture.stop == "first":
                return
            ended[taken] = True
            yield None
            continue
        yield taken, epoch, position


CACHE: dict[tuple[int, ...], list[int]] = {}


def tijdeman(quotas: tuple[int, ...]) -> list[int]:
    if quotas not in CACHE:
        period, n = sum(quotas), sum(quota > 0 for quota in quotas)
        least = Fraction(1, 2 * n - 2) if n > 1 else Fraction(0)
        counts, taken = [0] * len(quotas), []
        for t in range(1, period + 1):
            due = {s: Fraction(quota * t, period) - counts[s] for s, quota in enumerate(quotas) if quota}
            may = [s for s, share in due.items() if share >= least]
            taken.append(min(may, key=lambda s: ((1 - least - due[s]) / quotas[s], s)))
            counts[taken[-1]] += 1
        CACHE[quotas] = taken
    return CACHE[quotas]


def own_ids(plan: Plan, words: np.ndarray, row: Row) -> int:
    """The id of a row, from the source's order alone."""
    if row is None:
        return PAD_ID
    mixture = mixture_of(plan)
    number, epoch, position = row
    one = mixture.sources[number]
    own = words.reshape(len(mixture.sources), -1)[number]
    ids = record_order.record_at(np, one, own, u32([epoch]), u32([position]))
    ids, _ = record_order.served(np, one, ids, np.ones(1, bool))
    return PAD_ID if ids[0] == PAD_ID else int(ids[0]) + mixture.first_ids[number]


def slots_of(plan: Plan, slots: Any, xp: Any = np, words: np.ndarray | None = None) -> tuple[Any, Any, Any]:
    epoch, position = np.divmod(np.asarray(slots, np.uint64), plan.num_records)
    valid = np.ones(position.shape, bool)
    arrays = words_of(plan) if words is None else words, u32(epoch), u32(position), valid
    return record_order.rows_at(np, plan, *arrays) if xp is np else compiled(plan)(*arrays)


@functools.cache
def compiled(plan: Plan) -> Any:
    return jax.jit(lambda *arrays: record_order.rows_at(jnp, plan, *arrays))


orders = st.sampled_from(["records", "stored", "files", "blocks"])
sources = st.builds(source, st.integers(4, 40), orders, st.sampled_from([-1, -1, 1, 2, 3]))


@st.composite
def mixtures(draw: st.DrawFn) -> Plan:
    plans = draw(st.lists(sources, min_size=1, max_size=4))
    weights = st.lists(st.integers(0, 6), min_size=len(plans), max_size=len(plans)).filter(any)
    steps = draw(st.lists(st.integers(1, 30), unique=True, max_size=2).map(sorted))
    stages = [(step, tuple(draw(weights))) for step in (0, *steps)]
    return mixed(plans, *stages, batch_size=draw(st.integers(1, 30)), stop=draw(st.sampled_from(["first", "all"])))


# Quotas and their spread.


def deviation(quotas: tuple[int, ...]) -> Fraction:
    """The largest deviation of any source in any prefix of a period."""
    taken, period = spread(quotas), sum(quotas)
    assert np.bincount(taken, minlength=len(quotas)).tolist() == list(quotas)
    counts = np.cumsum(taken[None] == np.arange(len(quotas))[:, None], axis=1)
    return Fraction(int(abs(counts * period - np.outer(quotas, np.arange(1, period + 1))).max()), period)


def bound(quotas: Sequence[int]) -> Fraction:
    n = sum(quota > 0 for quota in quotas)
    return 1 - Fraction(1, 2 * n - 2) if n > 1 else Fraction(0)


def test_the_spread_is_that_of_the_rule_and_keeps_its_bound_for_all_small_quotas() -> None:
    for n in range(1, 5):
        for quotas in itertools.product(range(5), repeat=n):
            if any(quotas):
                assert spread(quotas).tolist() == tijdeman(quotas), quotas
                assert deviation(quotas) <= bound(quotas), quotas


@given(st.lists(st.integers(0, 400), min_size=1, max_size=30).filter(any))
def test_the_spread_keeps_its_bound(quotas: list[int]) -> None:
    assert deviation(tuple(quotas)) <= bound(quotas)


@given(st.lists(st.integers(1, 50), min_size=2, max_size=8), st.integers(1, 300))
def test_every_stretch_has_its_shares_to_within_twice_the_bound(quotas: list[int], size: int) -> None:
    plan = mixed([source(10**6, "stored")] * len(quotas), quotas, batch_size=size)
    mixture = mixture_of(plan)
    period = sum(mixture.quotas[0])
    found = source_of(np, mixture, slots_of(plan, np.arange(2 * period + size))[0])
    counts = np.cumsum(np.pad(found[None] == np.arange(len(quotas))[:, None], ((0, 0), (1, 0))), axis=1)
    stretches = counts[:, size:] - counts[:, :-size]
    off = abs(stretches * period - np.array(mixture.quotas[0])[:, None] * size).max()
    assert Fraction(int(off), period) <= 2 * bound(quotas)


@pytest.mark.parametrize(
    ("weights", "quotas"),
    [
        ((0.7, 0.3), (7, 3)),
        ((1.0,), (1,)),
        ((0.5, 0.0, 0.5), (1, 0, 1)),
        ((0.25, 0.75), (1, 3)),
        ((1 / 3, 2 / 3), (1, 2)),
        ((1 / 16384, 16383 / 16384), (1, 16383)),
    ],
)
def test_weights_become_whole_numbers_over_the_shortest_period(weights: Any, quotas: Any) -> None:
    assert whole_quotas(weights) == quotas


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=40))
def test_weights_that_no_period_holds_are_kept_to_within_one_part_in_ten_thousand(weights: list[float]) -> None:
    shares = normal(weights)
    quotas = whole_quotas(shares)
    assert sum(quotas) <= MOST_SLOTS
    assert max(abs(q / sum(quotas) - share) for q, share in zip(quotas, shares, strict=True)) < 1e-4


@pytest.mark.parametrize("weight", [1e-6, 1e-12])
def test_a_weight_that_would_get_no_slot_is_refused(weight: float) -> None:
    with pytest.raises(ArsrcValueError, match="source 1 is to have less than one row"):
        whole_quotas((1 - weight, weight))


# Rows.


@given(mixtures(), st.integers(0, 500))
def test_slots_hold_the_rows_that_counters_give(plan: Plan, seed: int) -> None:
    words = words_of(plan, seed)
    rows = list(itertools.islice(simulated(plan), 400))
    ids, valid, epochs = slots_of(plan, np.arange(len(rows)), words=words)
    assert ids.tolist() == [own_ids(plan, words, row) for row in rows]
    assert valid.tolist() == [row is not None for row in rows]
    assert epochs[valid].tolist() == [row[1] for row in rows if row]


@given(mixtures())
def test_a_source_is_served_in_its_own_order_epoch_after_epoch(plan: Plan) -> None:
    mixture, words = mixture_of(plan), words_of(plan)
    ids, valid, epochs = slots_of(plan, np.arange(plan.num_records))
    numbers = source_of(np, mixture, ids)
    for number, one in enumerate(mixture.sources):
        mine = valid & (numbers == number)
        if not mine.any():
            continue
        row = np.arange(mine.sum())
        alone = record_order.record_at(
            np, one, words.reshape(-1, 2)[number], u32(row // one.num_records), u32(row % one.num_records)
        )
        assert (ids[mine] - u32(mixture.first_ids[number])).tolist() == alone.tolist()
        assert epochs[mine].tolist() == (row // one.num_records).tolist()


def test_jit_gives_the_rows_of_numpy() -> None:
    """Of all orders, over ends of epochs and stages, and where a stretch goes on at its epoch's beginning."""
    files = dataclasses.replace(source(200, "stored", 3), file_sizes=(5,) * 40)
    plans = [source(301), files, source(97, "blocks"), source(50, "stored"), source(2000, num_epochs=1)]
    plan = mixed(plans, (0, (1, 2, 3, 4, 0)), (100, (5, 1, 1, 1, 6)), stop="all")
    for start in (0, 350, 2000, 5000, 10**9):
        for first in (start, start // plan.num_records * plan.num_records + plan.num_records - 20):
            slots = first // plan.num_records * plan.num_records + (first + np.arange(600)) % plan.num_records
            for host, device in zip(slots_of(plan, slots), slots_of(plan, slots, jnp), strict=True):
                assert (host.dtype, host.tolist()) == (device.dtype, device.tolist())


LARGE = [
    mixed([source(MAX // 2), source(MAX // 2 - 5, "stored")], [0.3, 0.7]),
    mixed([source(1, "stored"), source(MAX - 7), source(3)], [5, 1, 3]),
    mixed([source(2**20), source(977, "blocks")], (0, (0.123, 0.877)), (2**40, (1.0, 3.0)), batch_size=1000),
    mixed([source(1000, num_epochs=2**32 - 2), source(10, num_epochs=3)], [0.9, 0.1], stop="all"),
]


@pytest.mark.parametrize("plan", LARGE)
def test_rows_are_those_of_exact_integers_far_beyond_32_bits(plan: Plan) -> None:
    mixture = mixture_of(plan)
    last = 2**32 * plan.num_records - 1
    ends = [plan.num_epochs * plan.num_records + plan.end_index] if plan.num_epochs >= 0 else []
    marks = [
        0,
        plan.num_records,
        2**31 * plan.num_records,
        last,
        *mixture.starts,
        *ends,
        *map(int, np.geomspace(1, last)),
    ]
    slots = sorted({min(max(mark + by, 0), last) for mark in marks for by in range(-3, 4)})
    words, expected = words_of(plan), []
    for slot in slots:
        before, after = rows_before(mixture, slot), rows_before(mixture, slot + 1)
        (taken,) = (number for number, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1])
        epoch, position = divmod(before[taken], mixture.sources[taken].num_records)
        ended = 0 <= mixture.sources[taken].num_epochs <= epoch
        row = None if ended and mixture.stop == "all" else (taken, epoch % 2**32, position)
        expected.append((own_ids(plan, words, row), row[1] if row else None))
    wide = [divmod(slot, plan.num_records) for slot in slots]
    arrays = *(u32(part) for part in zip(*wide, strict=True)), np.ones(len(slots), bool)
    host = record_order.rows_at(np, plan, words, *arrays)
    ids, valid, epochs = (part.tolist() for part in host)
    assert [(i, e if v else None) for i, v, e in zip(ids, valid, epochs, strict=True)] == expected
    device = compiled(plan)(words, *arrays)
    assert [part.tolist() for part in host] == [part.tolist() for part in device]


@given(mixtures(), st.integers(0, 2000))
def test_rows_before_counts_the_slots_of_each_source(plan: Plan, slot: int) -> None:
    mixture = mixture_of(plan)
    endless = tuple(dataclasses.replace(one, num_epochs=-1) for one in mixture.sources)
    rows = itertools.islice(
        simulated(dataclasses.replace(plan, mixture=dataclasses.replace(mixture, sources=endless))), slot
    )
    taken = [row[0] for row in rows if row]
    assert rows_before(mixture, slot) == [taken.count(number) for number in range(len(endless))]


def test_excluded_records_of_a_source_are_masked_and_keep_their_slots() -> None:
    plan = mixed([source(10, exclude=((2, 4),)), source(7, "stored", exclude=((0, 1),))], [1, 1])
    free = mixed([source(10), source(7, "stored")], [1, 1])
    assert plan.exclude == ((2, 4), (10, 11))
    ids, valid, _ = slots_of(plan, np.arange(60))
    full, *_ = slots_of(free, np.arange(60))
    assert np.array_equal(valid, ~np.isin(full, [2, 3, 10]))
    assert np.array_equal(ids, np.where(valid, full, PAD_ID))


def test_the_source_of_a_record_is_the_one_whose_numbers_it_is_among() -> None:
    mixture = mixture_of(mixed([source(4), source(1), source(5)], [1, 1, 1]))
    ids = np.arange(10, dtype=np.uint32)
    assert mixture.first_ids == (0, 4, 5)
    assert source_of(np, mixture, ids).tolist() == [0] * 4 + [1] + [2] * 5
    assert source_of(jnp, mixture, jnp.asarray(ids)).tolist() == [0] * 4 + [1] + [2] * 5


# Many permutations at once.


@given(
    st.lists(st.sampled_from([0, 1, 2, 3, 7, 9, 100, 1025, 32768, 32769, 10**6, MAX]), min_size=1, max_size=6),
    st.integers(0, 2**32 - 1),
)
def test_many_permutations_at_once_are_each_of_them_alone(sizes: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    words = random.integers(0, 2**32, (len(sizes), 2), np.uint32)
    which = random.integers(0, len(sizes), 200, np.uint32)
    epoch = random.integers(0, 2**32, 200, np.uint32)
    position = u32(random.integers(0, 2**32, 200) % np.maximum(np.array(sizes)[which], 1))
    expected = position.copy()
    for number, n in enumerate(sizes):
        own = which == number
        if n and own.any():
            keys = permutation.round_keys(np, words[number], epoch[own], n)
            expected[own] = permutation.permute(np, position[own], keys, n)
    together = permutation.permute_each(np, position, words, epoch, which, tuple(sizes))
    assert together.tolist() == expected.tolist()


def test_many_permutations_at_once_are_those_of_numpy_when_compiled() -> None:
    sizes = (5, 0, 10**6, 1)
    which = np.arange(40, dtype=np.uint32) % np.uint32(4)
    arrays = np.zeros(40, np.uint32), u32(np.arange(8)).reshape(4, 2), np.arange(40, dtype=np.uint32), which
    device = jax.jit(lambda *args: permutation.permute_each(jnp, *args, sizes))(*arrays)
    assert device.tolist() == permutation.permute_each(np, *arrays, sizes).tolist()


# Epochs, ends and steps.


def test_an_epoch_has_as_many_rows_as_all_sources_whatever_the_weights() -> None:
    assert mixed([source(10), source(14)], [1, 4]).num_records == 24
    assert mixed([source(1), source(1)], [1, 99]).num_records == 2
    huge = mixed([source(MAX - 1), source(1)], [1, MOST_SLOTS - 1])
    assert (huge.num_records, huge.remainder) == (MAX, "wrap")


def test_weights_of_a_later_stage_change_nothing_before_it() -> None:
    sources, stage = [source(1234), source(77)], (5000, (1234.0, 4567.0))
    awkward = [(2**0.5, 1.0), (0.1234567, 0.8765433), (0.7, 0.3)]
    for weights in awkward:
        before, after = (mixed(sources, *stages, batch_size=10) for stages in (((0, weights),), ((0, weights), stage)))
        slots = np.concatenate([np.arange(50_000)[::-97], [0, 49_999]])
        assert slots_of(before, slots)[0].tolist() == slots_of(after, slots)[0].tolist()
        assert rows_before(mixture_of(before), 50_000) == rows_before(mixture_of(after), 50_000)


def test_sources_with_too_many_records_together_are_refused() -> None:
    with pytest.raises(ArsrcValueError, match="more than 2"):
        mixed([source(MAX), source(1)], [1, 1])


@given(mixtures())
def test_a_stream_ends_where_the_counters_end(plan: Plan) -> None:
    most = 3000
    rows = list(itertools.islice(simulated(plan), most))
    end = None if plan.num_epochs < 0 else plan.num_epochs * plan.num_records + plan.end_index
    if mixture_of(plan).stop == "first":
        assert end == (None if len(rows) == most else len(rows))
    elif end is None:
        assert any(rows[-200:])
    else:
        assert rows[end - 1] is not None
        assert not any(rows[end:])
        assert end + 200 < most


def test_ends_are_exact_python_integers() -> None:
    plan = mixed([source(1000, num_epochs=10**6), source(5)], (0, (1.0, 1.0)), (10**12, (1.0, 9.0)), batch_size=7)
    assert plan.num_epochs * plan.num_records + plan.end_index == 2 * 10**9
    later = mixed([source(1000, num_epochs=10**6), source(5)], (0, (1.0, 1.0)), (10**8, (1.0, 9.0)), batch_size=7)
    served = 7 * 10**8 // 2
    left = 10**9 - served
    end = later.num_epochs * later.num_records + later.end_index
    assert abs(end - (7 * 10**8 + 10 * left)) <= 10
    assert rows_before(mixture_of(later), end)[0] == 10**9
    assert rows_before(mixture_of(later), end + 1)[0] == 10**9 + 1


def test_an_end_and_a_stage_that_no_epoch_reaches_are_none() -> None:
    plan = mixed(
        [source(10**6, num_epochs=2**32 - 2), source(10, "stored")], (0, (1.0, 9.0)), (2**62, (1.0, 1.0)), batch_size=9
    )
    assert (plan.num_epochs, plan.end_index, plan.total_steps) == (-1, 0, None)
    assert mixture_of(plan).starts == (0,)


def test_all_stages_of_zero_weight_for_a_finite_source_leave_the_others_endless() -> None:
    plans = [source(10, num_epochs=1), source(10)]
    assert mixed(plans, [0, 1]).num_epochs == -1
    assert mixed(plans, [0, 1], stop="all").num_epochs == -1
    stages = (0, (0.0, 1.0)), (5, (1.0, 0.0))
    plan = mixed(plans, *stages, stop="all")
    assert plan.num_epochs * plan.num_records + plan.end_index == 20 + 10
    assert plan.total_steps == 8


@given(mixtures(), st.integers(0, 300), st.integers(0, 300), st.integers(0, 200))
def test_batches_of_a_mixture_are_stretches_of_its_slots(plan: Plan, start: int, steps: int, more: int) -> None:
    end = MAX * plan.num_records if plan.num_epochs < 0 else plan.num_epochs * plan.num_records + plan.end_index
    size = plan.batch_size
    state = [u32([part]) for part in reversed(divmod(start, plan.num_records))]
    slot = lambda pair: int(pair[1][0]) * plan.num_records + int(pair[0][0])  # noqa: E731
    once = arithmetic.advance(np, plan, *state, steps)
    assert slot(once) == min(start + steps * size, end)
    assert slot(arithmetic.advance(np, plan, *once, u32([more]))) == slot(
        arithmetic.advance(np, plan, *state, steps + more)
    )
    position, epoch, valid = arithmetic.rows(np, plan, *once)
    slots = [int(e) * plan.num_records + int(p) for e, p in zip(epoch[0], position[0], strict=True)]
    expected = range(slot(once), slot(once) + size)
    assert valid[0].tolist() == [one < end for one in expected]
    assert [one for one, is_there in zip(slots, valid[0], strict=True) if is_there] == [e for e in expected if e < end]
    assert arithmetic.is_end(np, plan, *once).tolist() == [slot(once) == end]
    assert arithmetic.step_of(np, plan, *once).tolist() == [-(-slot(once) // size)]


@given(mixtures(), st.integers(0, 10**6))
def test_step_of_undoes_advance_in_a_mixture(plan: Plan, steps: int) -> None:
    after = arithmetic.advance(np, plan, u32([0]), u32([0]), steps)
    most = steps if plan.total_steps is None else min(steps, plan.total_steps)
    assert arithmetic.step_of(np, plan, *after).tolist() == [most]


# Keys.


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_the_words_of_a_mixture_are_those_of_the_folded_keys(impl: str) -> None:
    key = jax.random.key(42, impl=impl)
    plan = mixed([source(10), source(4), source(6)], [1, 1, 2])
    alone = np.concatenate([jax.random.key_data(jax.random.fold_in(key, number)) for number in range(3)]).tolist()
    assert order_words(plan, key).tolist() == alone
    assert jax.jit(lambda key: order_words(plan, key))(key).tolist() == alone


def test_the_words_of_one_source_are_those_of_its_key() -> None:
    key = jax.random.key(42)
    assert order_words(source(10), key).tolist() == jax.random.key_data(key).tolist()


# Callers: the same rows on the device and on the host.


@pytest.fixture(scope="module")
def opened(records_dir: Path, write_records: Any) -> Any:
    """A data set of 60 records, whose ids are those of three sources one behind the other."""
    path = write_records(records_dir / "mixed.array_record", [bytes([number] * 4) for number in range(60)])
    return registry.source(arsrc.ArrayRecordSourceConfig(path, 1))


@pytest.mark.parametrize("stop", ["first", "all"])
def test_the_host_loads_the_rows_that_a_program_computes_up_to_the_end(opened: Any, stop: str) -> None:
    plans = [source(30, num_epochs=2), source(20, "blocks", num_epochs=1), source(10, "stored", num_epochs=3)]
    plan = mixed(plans, (0, (3, 2, 1)), (6, (1, 2, 3)), batch_size=7, stop=stop)
    loader = Loader(plan, opened.elements, masks=False)
    state = state_of(jax.random.key(7))
    request = Request(((0, 0, *order_words(plan, state.key).tolist()),), 1, 0, plan.batch_size)
    planned = loader.plan(request, 1000)
    assert len(planned.requests) == plan.total_steps
    assert loader.is_exhausted(planned.after)
    assert not loader.is_exhausted(planned.requests[-1])
    located = loader.locate(planned.requests)
    loaded = loader.load(planned, located, 0, len(planned.requests))
    next_batch = jax.jit(lambda state: (*next_rows(plan, state), states._advance(plan, state, jnp.uint32(1))))
    for number, one in enumerate(loaded):
        assert one is not None
        ids, mask, epochs, state = next_batch(state)
        assert one.record_ids[0, 0].tolist() == ids.tolist()
        assert np.array_equal(one.epochs[0, 0][mask], epochs[mask])
        assert one.leaves[0][0, 0, :, 0].tolist() == np.where(mask, ids, 0).tolist()
        assert int(states._step_of(plan, state)) == number + 1
        assert bool(states._is_exhausted(plan, state)) == (number + 1 == len(loaded))
    counts = np.bincount(np.concatenate([one.record_ids.ravel() for one in loaded if one]) % PAD_ID, minlength=60)
    if stop == "all":  # each source in all its epochs; padding counts as record 0
        assert counts[1:].tolist() == [2] * 29 + [1] * 20 + [3] * 10


def state_of(key: Any) -> arsrc.SourceState:
    return arsrc.SourceState(index=jnp.uint32(0), epoch=jnp.uint32(0), key=key)


def test_members_of_an_ensemble_have_rows_of_their_own(opened: Any) -> None:
    plan = mixed([source(40), source(20, "stored")], [2, 1], batch_size=12)
    keys = jax.vmap(jax.random.key)(jnp.arange(3, dtype=jnp.uint32))
    members = [(5 * n, n, *order_words(plan, keys[n]).tolist()) for n in range(3)]
    rows = Loader(plan, opened.elements, masks=False).locate([Request(tuple(members), 2, 0, 12)])
    start = arsrc.SourceState(index=jnp.uint32([0, 5, 10]), epoch=jnp.arange(3, dtype=jnp.uint32), key=keys)
    ids, _, epochs = jax.vmap(lambda state: next_rows(plan, state))(start)
    assert rows.ids[0, :, 0].tolist() == ids.tolist()
    assert rows.epochs[0, :, 0].tolist() == epochs.tolist()
    assert rows.whole == [True]


def test_a_part_of_a_batch_is_what_the_batch_holds_there() -> None:
    files = dataclasses.replace(source(33, "stored"), file_sizes=(11, 3, 19))
    plan = mixed([source(50), files], [1, 3], batch_size=24)
    state = arsrc.SourceState(index=jnp.uint32(31), epoch=jnp.uint32(5), key=jax.random.key(3))
    whole = next_rows(plan, state)
    parts = [next_rows(plan, state, first, 8) for first in (0, 8, 16)]
    for number, one in enumerate(whole):
        assert one.tolist() == np.concatenate([part[number] for part in parts]).tolist()
