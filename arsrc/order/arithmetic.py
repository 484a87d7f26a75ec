"""Where a stream stands: closed-form arithmetic on (index, epoch), alike in NumPy and JAX.

All values are u32, and no sum on the way exceeds 2**32 - 1, with 64-bit types off. `index` may be any record
position: a run may go on with another batch size. Steps that cannot be represented saturate at 2**32 - 1; epochs
of an endless source count modulo 2**32.
"""

import functools
import operator
from types import ModuleType
from typing import Any

import numpy as np

from arsrc.order.plan import PAD_ID, Plan

Array = Any
u32 = np.uint32


def settle(xp: ModuleType, plan: Plan, index: Array, epoch: Array) -> tuple[Array, Array]:
    """Return the (index, epoch) of the next batch: past an epoch's last batch is the next epoch's first.

    Past the end it is `(end_index, num_epochs)`: the one exhausted state.
    """
    index, epoch = _later(xp, plan, index, xp.zeros_like(epoch), epoch)  # so that one more epoch still fits
    left = u32(plan.num_records) - xp.minimum(index, u32(plan.num_records))
    ended = left < u32(plan.batch_size if plan.remainder == "drop" else 1)
    return _later(xp, plan, xp.where(ended, u32(0), index), epoch, ended.astype(u32))


def is_end(xp: ModuleType, plan: Plan, index: Array, epoch: Array) -> Array:
    """Return whether a place that `settle` or `advance` gives is the exhausted state, bool[...]."""
    if plan.num_epochs < 0:
        return xp.zeros_like(epoch, bool)
    return (epoch == u32(plan.num_epochs)) & (index == u32(plan.end_index))


def advance(xp: ModuleType, plan: Plan, index: Array, epoch: Array, steps: Array | int) -> tuple[Array, Array]:
    """Return (index, epoch) after `steps` batches; an exhausted state stays.

    Args:
        xp: `numpy` or `jax.numpy`.
        plan: The static numbers.
        index: u32[...].
        epoch: u32[...].
        steps: An int in `[0, 2**32)` or u32[...].
    """
    index, epoch = settle(xp, plan, index, epoch)
    move = _move_wrap if plan.remainder == "wrap" else _move_whole_epochs
    index, ahead = move(xp, plan, index, steps)
    return _later(xp, plan, index, epoch, ahead)


def rows(
    xp: ModuleType, plan: Plan, index: Array, epoch: Array, row: Array | None = None
) -> tuple[Array, Array, Array]:
    """Return what rows of the next batch are.

    Args:
        xp: `numpy` or `jax.numpy`.
        plan: The static numbers.
        index: u32[...].
        epoch: u32[...], of the same shape.
        row: u32[num_rows], numbers of rows below `batch_size`; None takes all of them.

    Returns:
        `(position u32[..., num_rows], epoch u32[..., 1 or num_rows], valid bool[..., num_rows])`; the position of a
        row that is not valid is 0.
    """
    index, epoch = settle(xp, plan, index, epoch)
    index, epoch = index[..., None], epoch[..., None]
    row = np.arange(plan.batch_size, dtype=u32) if row is None else row
    room = u32(plan.num_records) - index  # u32[..., 1], records left in the epoch, at least 1
    if plan.remainder == "wrap":
        passes, rest = row // u32(plan.num_records), row % u32(plan.num_records)
        ends = rest >= room
        position = xp.where(ends, rest - room, index + rest)
        ahead = passes + ends.astype(u32)
        valid = xp.ones_like(ends)
    else:
        ahead = u32(0)
        valid = row < room
        position = index + row
    if plan.num_epochs >= 0:
        valid = valid & ~_is_past(plan, position, epoch, ahead)
    epoch = epoch + ahead
    return xp.where(valid, position, u32(0)), epoch, valid


def step_of(xp: ModuleType, plan: Plan, index: Array, epoch: Array) -> Array:
    """Return the number of batches before (index, epoch), u32[...]."""
    index, epoch = settle(xp, plan, index, epoch)
    size = plan.batch_size
    if plan.remainder != "wrap":
        return _saturating_add(xp, _saturating_mul(xp, epoch, plan.steps_per_epoch), index // u32(size))
    # ceil((epoch * epoch_size + index) / batch_size); only the exhausted state is no multiple.
    batches, rest = mul_divmod(xp, epoch, plan.num_records, size)
    rest = rest + index % u32(size)
    part = index // u32(size) + (rest + u32(size - 1)) // u32(size)
    return _saturating_add(xp, batches, part)


def mul_divmod(xp: ModuleType, x: Array, factor: int, divisor: int, saturate: bool = True) -> tuple[Array, Array]:
    """Return `divmod(x * factor, divisor)` for u32[...] `x` and static ints.

    The product has 64 bits and does not fit: double and add, dividing at each bit of `factor`. A quotient beyond
    32 bits saturates, or counts modulo 2**32.
    """
    add = functools.partial(_saturating_add, xp) if saturate else operator.add
    divisor_ = u32(divisor)
    x_quotient, x_rest = x // divisor_, x % divisor_
    quotient, rest = xp.zeros_like(x), xp.zeros_like(x)
    for bit in bin(factor)[2:]:
        rest, carry = add_mod(xp, rest, rest, divisor_)
        quotient = add(add(quotient, quotient), carry)
        if bit == "1":
            rest, carry = add_mod(xp, rest, x_rest, divisor_)
            quotient = add(quotient, add(x_quotient, carry))
    return quotient, rest


def _later(xp: ModuleType, plan: Plan, index: Array, epoch: Array, ahead: Array) -> tuple[Array, Array]:
    """Return (index, epoch) with `epoch` so many later, no later than the end; `epoch` is not past it."""
    if plan.num_epochs < 0:
        return index, epoch + ahead
    index = xp.where(_is_past(plan, index, epoch, ahead), u32(plan.end_index), index)
    return index, epoch + xp.minimum(ahead, u32(plan.num_epochs) - epoch)


def _is_past(plan: Plan, index: Array, epoch: Array, ahead: Array) -> Array:
    """Return whether (index, epoch + ahead) is no place before the end."""
    room = u32(plan.num_epochs) - epoch  # distances: the sum may not fit
    if plan.end_index == 0:
        return ahead >= room
    return (ahead > room) | ((ahead == room) & (index >= u32(plan.end_index)))


def _move_whole_epochs(xp: ModuleType, plan: Plan, index: Array, steps: Array | int) -> tuple[Array, Array]:
    """Return (index, epochs ahead) after `steps` batches of epochs that each start with a fresh batch."""
    size, per_epoch = u32(plan.batch_size), u32(plan.steps_per_epoch)
    steps = xp.full_like(index, steps) if isinstance(steps, int) else steps
    room = u32(plan.num_records) - index
    left = room // size if plan.remainder == "drop" else (room - u32(1)) // size + u32(1)
    over = steps - left  # garbage where the epoch does not end, and masked there
    ends = steps >= left
    index = xp.where(ends, over % per_epoch * size, index + steps * size)
    return index, xp.where(ends, over // per_epoch + u32(1), u32(0))


def _move_wrap(xp: ModuleType, plan: Plan, index: Array, steps: Array | int) -> tuple[Array, Array]:
    """Return (index, epochs ahead) after `steps` batches of one endless run of records."""
    finite = plan.num_epochs >= 0
    if isinstance(steps, int):
        whole, part = divmod(steps * plan.batch_size, plan.num_records)
        whole = min(whole, PAD_ID) if finite else whole % 2**32
        ahead, rest = xp.full_like(index, whole), xp.full_like(index, part)
    else:
        ahead, rest = mul_divmod(xp, steps, plan.batch_size, plan.num_records, saturate=finite)
    index, carry = add_mod(xp, index, rest, u32(plan.num_records))
    return index, _saturating_add(xp, ahead, carry) if finite else ahead + carry


def add_mod(xp: ModuleType, a: Array, b: Array, modulus: np.uint32) -> tuple[Array, Array]:
    """Return `((a + b) % modulus, (a + b) // modulus)` for a, b below the modulus."""
    room = modulus - a
    ends = b >= room
    return xp.where(ends, b - room, a + b), ends.astype(u32)


def _saturating_add(xp: ModuleType, a: Array, b: Array) -> Array:
    return a + xp.minimum(b, u32(PAD_ID) - a)


def _saturating_mul(xp: ModuleType, x: Array, factor: int) -> Array:
    most = u32(PAD_ID // max(factor, 1))
    return xp.where(x > most, u32(PAD_ID), x * u32(factor))
