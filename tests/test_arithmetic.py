"""(index, epoch) in closed form, against exact Python integers, up to the ends of u32.

Small sizes are compared with a listing, batch by batch, in test_laws.py; here are the numbers that a listing
does not reach, and the agreement of NumPy and JAX.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from arsrc.config import MAX_BATCH_SIZE
from arsrc.order import arithmetic
from arsrc.order.plan import Plan

MAX = 2**32 - 1
MAX_EPOCHS = 2**32 - 2  # the most that a config takes

edges = st.builds(
    lambda e, d: min(max(2**e + d, 0), MAX), st.sampled_from([0, 1, 8, 16, 30, 31, 32]), st.integers(-2, 2)
)
u32s = st.integers(0, MAX) | edges | st.integers(0, 20)
positive = u32s.map(lambda x: max(x, 1))
batch_sizes = positive.map(lambda x: min(x, MAX_BATCH_SIZE))
epoch_counts = positive.map(lambda x: min(x, MAX_EPOCHS))
any_epochs = st.just(-1) | epoch_counts
remainders = st.sampled_from(["drop", "pad", "wrap"])


def plan_of(num_records: int, batch_size: int, remainder: str, num_epochs: int = -1) -> Plan:
    return Plan(
        num_records=num_records,
        batch_size=batch_size,
        num_epochs=num_epochs,
        remainder=remainder,
        shuffle_records=False,
        file_sizes=(),
    )


@st.composite
def plans(draw: st.DrawFn, num_epochs: st.SearchStrategy[int] = any_epochs) -> Plan:
    plan = plan_of(draw(positive), draw(batch_sizes), draw(remainders), draw(num_epochs))
    assume(plan.steps_per_epoch > 0)
    return plan


@st.composite
def plans_and_states(draw: st.DrawFn) -> tuple[Plan, int, int]:
    """A plan with any state that it can be restored to: any index up to the epoch's end."""
    plan = draw(plans())
    epoch = draw(u32s) if plan.num_epochs < 0 else min(draw(u32s), plan.num_epochs)
    index = draw(u32s) % (plan.num_records + 1)
    return plan, index, epoch


def u32(*values: int) -> np.ndarray:
    return np.array(values, np.uint32)


def pair(result: tuple[Any, Any]) -> tuple[int, int]:
    """Take the numbers out of two u32[1]."""
    assert [(x.dtype, x.shape) for x in result] == [(np.uint32, (1,))] * 2
    return int(result[0][0]), int(result[1][0])


# Exact integers: the same questions without 32 bits.


def exact_settle(plan: Plan, index: int, epoch: int) -> tuple[int, int]:
    """Where the next batch starts; epochs are not counted modulo anything."""
    needed = plan.batch_size if plan.remainder == "drop" else 1
    if plan.num_records - index < needed:
        index, epoch = 0, epoch + 1
    if 0 <= plan.num_epochs <= epoch:
        index, epoch = 0, plan.num_epochs
    return index, epoch


def exact_advance(plan: Plan, index: int, epoch: int, steps: int) -> tuple[int, int]:
    index, epoch = exact_settle(plan, index, epoch)
    n, b = plan.num_records, plan.batch_size
    if plan.remainder == "wrap":
        epochs, index = divmod(index + steps * b, n)
        return exact_settle(plan, index, epoch + epochs)
    left = (n - index) // b if plan.remainder == "drop" else -(-(n - index) // b)
    if steps < left:
        return exact_settle(plan, index + steps * b, epoch)
    epochs, batches = divmod(steps - left, plan.steps_per_epoch)
    return exact_settle(plan, batches * b, epoch + 1 + epochs)


def exact_step(plan: Plan, index: int, epoch: int) -> int:
    index, epoch = exact_settle(plan, index, epoch)
    if plan.remainder == "wrap":
        return -(-(epoch * plan.num_records + index) // plan.batch_size)
    return epoch * plan.steps_per_epoch + index // plan.batch_size


# The steps on the way.


@given(u32s, positive, positive)
@example(MAX, MAX, 1)
@example(MAX, MAX, MAX)
@example(MAX, 1, MAX)
@example(0, MAX, MAX)
@example(MAX, MAX - 1, MAX - 2)
@example(MAX, 2**31, 2**31 - 1)
def test_mul_divmod_is_divmod_of_the_exact_product_and_saturates(x: int, factor: int, divisor: int) -> None:
    quotient, rest = divmod(x * factor, divisor)
    assert pair(arithmetic.mul_divmod(np, u32(x), factor, divisor)) == (min(quotient, MAX), rest)


@given(positive, st.data())
@example(MAX, None)
def test_add_mod_is_the_exact_sum_modulo(modulus: int, data: Any) -> None:
    below = st.integers(0, modulus - 1) | st.integers(0, 20).map(lambda d: max(modulus - 1 - d, 0))
    a, b = (data.draw(below), data.draw(below)) if data else (MAX - 1, MAX - 1)
    quotient, rest = divmod(a + b, modulus)
    assert pair(arithmetic.add_mod(np, u32(a), u32(b), np.uint32(modulus))) == (rest, quotient)


@given(plans_and_states())
def test_settle_gives_the_place_where_the_next_batch_starts(case: tuple[Plan, int, int]) -> None:
    plan, index, epoch = case
    index_after, epoch_after = exact_settle(plan, index, epoch)
    assert pair(arithmetic.settle(np, plan, u32(index), u32(epoch))) == (index_after, epoch_after % 2**32)


@given(plans_and_states())
def test_settle_leaves_a_settled_state_alone(case: tuple[Plan, int, int]) -> None:
    plan, index, epoch = case
    once = arithmetic.settle(np, plan, u32(index), u32(epoch))
    assert pair(arithmetic.settle(np, plan, *once)) == pair(once)


# Advance.


@given(plans_and_states(), u32s)
@example((plan_of(MAX, 1, "drop"), 0, 0), MAX)
@example((plan_of(MAX, 1, "pad"), MAX - 1, 0), MAX)
@example((plan_of(MAX, MAX_BATCH_SIZE, "wrap"), MAX - 1, 0), MAX)
@example((plan_of(MAX, MAX_BATCH_SIZE, "pad"), 3 * MAX_BATCH_SIZE, 7), 1)
@example((plan_of(1, MAX_BATCH_SIZE, "wrap", MAX_EPOCHS), 0, 0), 5)
@example((plan_of(1, MAX_BATCH_SIZE, "wrap", MAX_EPOCHS), 0, MAX_EPOCHS - 1), MAX)
@example((plan_of(1, 1, "drop", MAX_EPOCHS), 0, 1), MAX - 1)
@example((plan_of(2, 2, "drop", MAX_EPOCHS), 1, MAX_EPOCHS - 1), MAX)
# One more epoch where those before it saturate, and where they count up to the last before 0.
@example((plan_of(3, 2**20 + 1, "wrap", MAX_EPOCHS), 2, 0), 2**24 + 1)
@example((plan_of(2, 14_329, "wrap"), 1, 5), 599_479)
def test_advance_is_exact_for_any_number_of_steps(case: tuple[Plan, int, int], steps: int) -> None:
    plan, index, epoch = case
    index_after, epoch_after = exact_advance(plan, index, epoch, steps)
    expected = index_after, epoch_after % 2**32  # an endless source counts modulo
    assert pair(arithmetic.advance(np, plan, u32(index), u32(epoch), u32(steps))) == expected
    assert pair(arithmetic.advance(np, plan, u32(index), u32(epoch), steps)) == expected


def test_the_epoch_of_an_endless_source_counts_modulo_2_to_the_32() -> None:
    for remainder in ("drop", "pad", "wrap"):
        plan = plan_of(10, 5, remainder)
        assert pair(arithmetic.advance(np, plan, u32(5), u32(MAX), u32(1))) == (0, 0)
        assert pair(arithmetic.advance(np, plan, u32(5), u32(MAX), u32(4))) == (5, 1)


def test_more_than_2_to_the_32_epochs_at_once_count_modulo_as_well() -> None:
    plan = plan_of(1, 2**30, "wrap")
    one_by_one = u32(0), u32(7)
    for steps in range(1, 9):
        one_by_one = arithmetic.advance(np, plan, *one_by_one, u32(1))
        assert pair(one_by_one) == (0, 7 + steps % 4 * 2**30)
        assert pair(arithmetic.advance(np, plan, u32(0), u32(7), u32(steps))) == pair(one_by_one)
        assert pair(arithmetic.advance(np, plan, u32(0), u32(7), steps)) == pair(one_by_one)


@given(plans(num_epochs=epoch_counts), u32s, u32s)
@example(plan_of(1, 1, "drop", MAX_EPOCHS), 1, 0)
@example(plan_of(MAX, 10, "pad", MAX_EPOCHS), MAX, 1)
def test_an_exhausted_state_stays(plan: Plan, index: int, steps: int) -> None:
    """Whatever index stands beside the last epoch."""
    index, epoch = index % (plan.num_records + 1), plan.num_epochs
    assert pair(arithmetic.settle(np, plan, u32(index), u32(epoch))) == (0, epoch)
    assert pair(arithmetic.advance(np, plan, u32(index), u32(epoch), u32(steps))) == (0, epoch)


@given(plans(num_epochs=epoch_counts), u32s, u32s, u32s)
@example(plan_of(5, 2, "drop", 3), 5, MAX, 1)  # an epoch that has no next one
@example(plan_of(5, 2, "wrap", MAX_EPOCHS), 5, MAX, 1)
@example(plan_of(5, 2, "pad", MAX_EPOCHS), 4, MAX, MAX)
def test_a_state_beyond_the_last_epoch_is_exhausted(plan: Plan, index: int, epoch: int, steps: int) -> None:
    """As after a restore with fewer epochs than there were."""
    index, epoch = index % (plan.num_records + 1), max(epoch, plan.num_epochs)
    exhausted = 0, plan.num_epochs
    assert pair(arithmetic.settle(np, plan, u32(index), u32(epoch))) == exhausted
    assert pair(arithmetic.advance(np, plan, u32(index), u32(epoch), u32(steps))) == exhausted
    assert arithmetic.step_of(np, plan, u32(index), u32(epoch)).tolist() == [min(plan.total_steps or 0, MAX)]
    assert not arithmetic.rows(np, plan, u32(index), u32(epoch), u32(0))[2].any()


@given(plans(num_epochs=epoch_counts))
def test_the_last_step_is_total_steps_and_none_before_it(plan: Plan) -> None:
    assume(plan.total_steps is not None and plan.total_steps <= MAX)
    start, total = (u32(0), u32(0)), plan.total_steps
    assert pair(arithmetic.advance(np, plan, *start, u32(total))) == (0, plan.num_epochs)
    assert pair(arithmetic.advance(np, plan, *start, u32(total - 1))) != (0, plan.num_epochs)


@given(st.integers(1, 2**70), st.integers(1, 2**30))
def test_sizes_of_a_plan_are_exact_python_integers(num_epochs: int, batch_size: int) -> None:
    for remainder in ("drop", "pad", "wrap"):
        plan = plan_of(MAX, batch_size, remainder, num_epochs)
        per_epoch = MAX // batch_size if remainder == "drop" else (MAX + batch_size - 1) // batch_size
        total = num_epochs * per_epoch
        if remainder == "wrap":
            total = (num_epochs * MAX + batch_size - 1) // batch_size
        assert (plan.steps_per_epoch, plan.total_steps) == (per_epoch, total)
        assert plan_of(MAX, batch_size, remainder).total_steps is None


# Steps.


@given(plans_and_states())
@example((plan_of(MAX, 1, "drop"), 0, 1))
@example((plan_of(MAX, 1, "drop"), MAX - 1, 1))
@example((plan_of(MAX, 1, "wrap"), MAX - 1, MAX))
@example((plan_of(MAX, MAX_BATCH_SIZE, "wrap"), MAX - 1, MAX_BATCH_SIZE))
@example((plan_of(1, MAX_BATCH_SIZE, "wrap"), 0, MAX))
@example((plan_of(1, 1, "pad"), 0, MAX))
@example((plan_of(2, 1, "drop"), 1, MAX))
@example((plan_of(1, 1, "pad", MAX_EPOCHS), 1, MAX_EPOCHS))
def test_step_of_is_exact_and_saturates(case: tuple[Plan, int, int]) -> None:
    plan, index, epoch = case
    settled = exact_settle(plan, index, epoch)
    assume(settled[1] <= MAX)  # an endless epoch that turned over
    step = arithmetic.step_of(np, plan, u32(index), u32(epoch))
    assert step.dtype == np.uint32
    assert step.tolist() == [min(exact_step(plan, index, epoch), MAX)]


@given(plans(), u32s)
def test_step_of_undoes_advance_from_the_first_state(plan: Plan, steps: int) -> None:
    assume(exact_advance(plan, 0, 0, steps)[1] <= MAX)
    after = arithmetic.advance(np, plan, u32(0), u32(0), u32(steps))
    expected = steps if plan.total_steps is None else min(steps, plan.total_steps)
    assert arithmetic.step_of(np, plan, *after).tolist() == [expected]


@pytest.mark.parametrize("remainder", ["drop", "pad", "wrap"])
@pytest.mark.parametrize(("num_records", "batch_size"), [(10, 3), (10, 10), (7, 2), (MAX, 2), (2**31, 2**15 + 1)])
def test_step_of_saturates_at_the_first_step_that_does_not_fit(
    num_records: int, batch_size: int, remainder: str
) -> None:
    plan = plan_of(num_records, batch_size, remainder)
    last = MAX * batch_size // num_records if remainder == "wrap" else MAX // plan.steps_per_epoch
    for epoch in range(max(last - 2, 0), min(last + 3, MAX)):
        index = np.arange(0, num_records, max(num_records // 50, 1) if num_records > 50 else 1, np.uint32)
        steps = arithmetic.step_of(np, plan, index, np.full_like(index, epoch))
        assert steps.tolist() == [min(exact_step(plan, i, epoch), MAX) for i in index.tolist()]


# Rows.


@given(
    positive,
    st.integers(1, 200),
    remainders,
    any_epochs,
    u32s,
    u32s,
    st.booleans(),
)
@example(MAX, 200, "drop", -1, MAX - 200, 0, False)
@example(MAX, 200, "pad", -1, MAX - 1, MAX, False)
@example(MAX, 200, "wrap", -1, MAX - 1, MAX - 1, False)
@example(MAX, 200, "wrap", MAX_EPOCHS, MAX - 1, MAX_EPOCHS - 1, False)
@example(1, 200, "wrap", MAX_EPOCHS, 0, MAX_EPOCHS - 2, False)
@example(3, 200, "wrap", 10, 2, 5, False)
def test_rows_are_exact_up_to_the_last_record(
    num_records: int, batch_size: int, remainder: str, num_epochs: int, index: int, epoch: int, near_end: bool
) -> None:
    plan = plan_of(num_records, batch_size, remainder, num_epochs)
    assume(plan.steps_per_epoch > 0)
    index = max(num_records - index % 300, 0) if near_end else index % (num_records + 1)
    epoch = epoch if num_epochs < 0 else min(epoch, num_epochs)
    first, first_epoch = exact_settle(plan, index, epoch)
    assume(first_epoch <= MAX)
    expected: list[tuple[int, int] | None] = []
    for row in range(batch_size):
        ahead, position = divmod(first + row, num_records)
        is_there = (ahead == 0 or remainder == "wrap") and not 0 <= num_epochs <= first_epoch + ahead
        expected.append((position, (first_epoch + ahead) % 2**32) if is_there else None)
    position, epochs, valid = arithmetic.rows(np, plan, u32(index), u32(epoch))
    assert position.dtype == epochs.dtype == np.uint32
    assert position.shape == valid.shape == (1, batch_size)
    assert epochs.shape in ((1, 1), (1, batch_size))
    epochs = np.broadcast_to(epochs, position.shape)
    rows = zip(position[0].tolist(), epochs[0].tolist(), valid[0].tolist(), strict=True)
    assert [(p, e) if v else None for p, e, v in rows] == expected
    assert (position[~valid] == 0).all()


def test_a_plan_knows_how_many_epochs_a_batch_can_touch() -> None:
    for n, b in itertools.product(range(1, 12), range(1, 40)):
        assert plan_of(n, b, "pad").epochs_in_batch == 1
        index = np.arange(n, dtype=np.uint32)
        plan = plan_of(n, b, "wrap")
        _, epochs, _ = arithmetic.rows(np, plan, index, np.zeros_like(index))
        assert int(epochs.max()) + 1 == plan.epochs_in_batch, (n, b)


# Ends within an epoch: a run of rows, of which the last is any.


@st.composite
def ending(draw: st.DrawFn) -> tuple[Plan, int, int]:
    """A plan that ends at any row, with a state of it, or past it."""
    size = draw(positive)
    end = draw(st.integers(0, MAX_EPOCHS)) * size + draw(u32s) % size
    plan = plan_of(size, draw(batch_sizes), "wrap", end // size)
    plan = dataclasses.replace(plan, end_index=end % size)
    assume(end > 0)
    near = st.integers(-20, 20).map(lambda by: min(max(end + by, 0), MAX * size))
    slot = draw(near | st.integers(0, MAX * size))
    return plan, slot % size, slot // size


@given(ending(), u32s)
@example((dataclasses.replace(plan_of(MAX, 1, "wrap", MAX_EPOCHS), end_index=MAX - 1), 0, 0), MAX)
@example((dataclasses.replace(plan_of(3, MAX_BATCH_SIZE, "wrap", MAX_EPOCHS), end_index=2), 1, MAX_EPOCHS), 1)
@example((dataclasses.replace(plan_of(3, MAX_BATCH_SIZE, "wrap", 0), end_index=2), 1, 7), 1)
def test_a_stream_may_end_within_an_epoch(case: tuple[Plan, int, int], steps: int) -> None:
    plan, index, epoch = case
    size, batch_size = plan.num_records, plan.batch_size
    end = plan.num_epochs * size + plan.end_index
    slot = min(epoch * size + index, end)
    after = arithmetic.advance(np, plan, u32(index), u32(epoch), u32(steps))
    assert pair(after) == tuple(reversed(divmod(min(slot + steps * batch_size, end), size)))
    assert pair(arithmetic.advance(np, plan, u32(index), u32(epoch), steps)) == pair(after)
    assert arithmetic.is_end(np, plan, *after).tolist() == [slot + steps * batch_size >= end]
    assert pair(arithmetic.settle(np, plan, u32(index), u32(epoch))) == tuple(reversed(divmod(slot, size)))
    assert arithmetic.step_of(np, plan, u32(index), u32(epoch)).tolist() == [min(-(-slot // batch_size), MAX)]
    assert plan.total_steps == -(-end // batch_size)
    row = u32(0, 1, batch_size // 2, batch_size - 1)
    valid = arithmetic.rows(np, plan, u32(index), u32(epoch), row)[2]
    assert valid[0].tolist() == [slot + one < end for one in row.tolist()]


# NumPy and JAX.


PLANS = [
    dataclasses.replace(plan_of(1000, 7, "wrap", 2**31), end_index=999),
    dataclasses.replace(plan_of(MAX, MAX_BATCH_SIZE, "wrap", MAX_EPOCHS), end_index=5),
    plan_of(MAX, 7, "drop"),
    plan_of(MAX, 3, "pad", MAX_EPOCHS),
    plan_of(MAX - 1, MAX_BATCH_SIZE, "wrap"),
    plan_of(5, 12, "wrap", 2**31 + 1),
]


def extremes(plan: Plan) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices, epochs and steps at all corners, u32[n] each."""
    n, b = plan.num_records, plan.batch_size
    index = {0, 1, b % n, n // 2, n - n % b, max(n - b, 0), n - 1, n}
    most = MAX if plan.num_epochs < 0 else plan.num_epochs
    epoch = {0, 1, most // 2, most - 1, most}
    steps = {0, 1, 2, plan.steps_per_epoch, 2**31, MAX}
    corners = itertools.product(*(sorted(values) for values in (index, epoch, steps)))
    columns = np.array(list(corners), np.uint32).T
    return columns[0], columns[1], columns[2]


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"{plan.remainder}-{plan.num_records}")
def test_jit_gives_the_numbers_of_numpy(plan: Plan) -> None:
    def everything(xp: Any, index: Any, epoch: Any, steps: Any) -> Sequence[Any]:
        return [
            *arithmetic.settle(xp, plan, index, epoch),
            *arithmetic.advance(xp, plan, index, epoch, steps),
            *arithmetic.advance(xp, plan, index, epoch, MAX),
            arithmetic.step_of(xp, plan, index, epoch),
            *(arithmetic.rows(xp, plan, index, epoch) if plan.batch_size < 100 else ()),
        ]

    corners = extremes(plan)
    # Mapped over single states, as the library does: strict rank promotion refuses rows of many at once.
    on_device = jax.jit(jax.vmap(lambda *state: everything(jnp, *state)))(*corners)
    for device, host in zip(on_device, everything(np, *corners), strict=True):
        assert device.dtype == host.dtype
        assert np.array_equal(np.asarray(device), host)


def test_eager_jax_gives_the_numbers_of_numpy() -> None:
    plan = plan_of(10, 4, "wrap", 3)
    index, epoch = (x.ravel() for x in np.meshgrid(*[np.arange(4, dtype=np.uint32)] * 2))
    steps = np.full_like(index, 2)
    arrays = [jnp.asarray(x) for x in (index, epoch, steps)]
    for device, host in zip(
        arithmetic.advance(jnp, plan, *arrays), arithmetic.advance(np, plan, index, epoch, steps), strict=True
    ):
        assert np.asarray(device).tolist() == host.tolist()
