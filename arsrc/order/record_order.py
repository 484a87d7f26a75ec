"""Which record stands where: (key, epoch, position) -> record id, and back.

Every function takes the array namespace `xp` (`numpy` or `jax.numpy`), so that the device and the host compute
the same order from one definition. The host calls them on threads, with arrays of at least one dimension.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from arsrc.order import blocks as block_order
from arsrc.order import permutation
from arsrc.order.files import FileOrder, place_among
from arsrc.order.plan import PAD_ID, Plan

Array = Any
u32 = np.uint32


def record_at(xp: ModuleType, plan: Plan, key_words: Array, epoch: Array, position: Array) -> Array:
    """Return the ids of the records at `position` of `epoch`.

    Args:
        xp: `numpy` or `jax.numpy`.
        plan: The static numbers.
        key_words: u32[num_words], words of the state's key.
        epoch: u32[...], broadcastable with `position`.
        position: u32[...], in `[0, num_records)`.

    Returns:
        u32[...], record ids.
    """
    if plan.blocks is not None:
        return block_order.record_at(xp, plan.blocks, key_words, epoch, position)
    if plan.shuffle_records:
        keys = permutation.round_keys(xp, key_words, epoch, plan.num_records)
        return permutation.permute(xp, position, keys, plan.num_records)
    if plan.file_sizes:
        return _each_epoch(xp, plan, epoch, position, lambda e: FileOrder(xp, plan, key_words, e).record_at)
    return position


def position_of(xp: ModuleType, plan: Plan, key_words: Array, epoch: Array, record_id: Array) -> Array:
    """Return the position of `record_id` in `epoch`: the inverse of `record_at`, same shapes and dtypes."""
    if plan.blocks is not None:
        return block_order.position_of(xp, plan.blocks, key_words, epoch, record_id)
    if plan.shuffle_records:
        keys = permutation.round_keys(xp, key_words, epoch, plan.num_records)
        return permutation.unpermute(xp, record_id, keys, plan.num_records)
    if plan.file_sizes:
        return _each_epoch(xp, plan, epoch, record_id, lambda e: FileOrder(xp, plan, key_words, e).position_of)
    return record_id


def served(xp: ModuleType, plan: Plan, record_id: Array, valid: Array) -> tuple[Array, Array]:
    """Return `(record_id, valid)` with excluded records made invalid, and the padding id wherever it is not valid."""
    if plan.exclude:
        start, stop = np.array(plan.exclude, u32).T
        place = place_among(xp, xp.asarray(start), record_id)
        # Place 0 is in front of all ranges: its stop is 0.
        stops = xp.asarray(np.concatenate([np.zeros(1, u32), stop]))
        valid = valid & (record_id >= stops[place])
    return xp.where(valid, record_id, u32(PAD_ID)), valid


def _each_epoch(
    xp: ModuleType,
    plan: Plan,
    epoch: Array,
    values: Array,
    order_of: Callable[[Array], Callable[[Array], Array]],
) -> Array:
    """Apply `order_of(e)` to the values of each epoch `e`: tables are built once per epoch, not per value."""
    epochs: Any
    if xp is np:
        epochs = np.unique(epoch)
    else:
        epochs = [xp.ravel(epoch)[0] + u32(later) for later in range(plan.epochs_in_batch)]
    result = order_of(epochs[0])(values)
    for one in epochs[1:]:
        result = xp.where(epoch == one, order_of(one)(values), result)
    return result
