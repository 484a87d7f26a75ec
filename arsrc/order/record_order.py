"""Which record stands where: (key, epoch, position) -> record id, and back.

Every function takes the array namespace `xp` (`numpy` or `jax.numpy`), so that the device and the host compute
the same order from one definition. The host calls them on threads, with arrays of at least one dimension.
"""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from arsrc.order import blocks as block_order
from arsrc.order import permutation
from arsrc.order.files import FileOrder, place_among
from arsrc.order.mixed_rows import SourceRows, rows_in_slots
from arsrc.order.mixture import Mixture
from arsrc.order.plan import PAD_ID, Plan

Array = Any
u32 = np.uint32


def rows_at(
    xp: ModuleType, plan: Plan, key_words: Array, epoch: Array, position: Array, valid: Array
) -> tuple[Array, Array, Array]:
    """Return what rows at `position` of `epoch` hold, of a mixture too.

    Args:
        xp: `numpy` or `jax.numpy`.
        plan: The static numbers.
        key_words: u32[num_words], words of the state's key; of a mixture, those of its sources' keys, one behind the
            other.
        epoch: u32[...], broadcastable with `position`.
        position: u32[...], in `[0, num_records)`.
        valid: bool[...], of the shape of `position`, which of them are asked for.

    Returns:
        `(record_ids u32[...], valid bool[...], epochs u32[...])`: ids with the padding id in rows without a record, and
        the epochs that rows belong to: `epoch` as it is, or of a mixture those of the sources.
    """
    if plan.mixture is None:
        return *served(xp, plan, record_at(xp, plan, key_words, epoch, position), valid), epoch
    rows = rows_in_slots(xp, plan.mixture, epoch, position)
    valid = valid if rows.valid is None else valid & rows.valid
    words = xp.reshape(xp.asarray(key_words), (len(plan.mixture.sources), -1))
    return *served(xp, plan, _mixed_ids(xp, plan.mixture, words, rows), valid), rows.epoch


def record_at(
    xp: ModuleType,
    plan: Plan,
    key_words: Array,
    epoch: Array,
    position: Array,
    epochs: Sequence[Array] | None = None,
) -> Array:
    """Return the ids of the records at `position` of `epoch`; of a plan that is no mixture's.

    Args:
        xp: `numpy` or `jax.numpy`.
        plan: The static numbers.
        key_words: u32[num_words], words of the state's key.
        epoch: u32[...], broadcastable with `position`.
        position: u32[...], in `[0, num_records)`.
        epochs: u32[] each, which `epoch` is one of; None if they follow each other, as in a batch.

    Returns:
        u32[...], record ids.
    """
    if plan.blocks is not None:
        return block_order.record_at(xp, plan.blocks, key_words, epoch, position)
    if plan.shuffle_records:
        keys = permutation.round_keys(xp, key_words, epoch, plan.num_records)
        return permutation.permute(xp, position, keys, plan.num_records)
    if plan.file_sizes:
        epochs = _epochs(xp, plan, epoch) if epochs is None else epochs
        return _each_epoch(xp, epochs, epoch, position, lambda e: FileOrder(xp, plan, key_words, e).record_at)
    return position


def position_of(xp: ModuleType, plan: Plan, key_words: Array, epoch: Array, record_id: Array) -> Array:
    """Return the position of `record_id` in `epoch`: the inverse of `record_at`, same shapes and dtypes."""
    if plan.blocks is not None:
        return block_order.position_of(xp, plan.blocks, key_words, epoch, record_id)
    if plan.shuffle_records:
        keys = permutation.round_keys(xp, key_words, epoch, plan.num_records)
        return permutation.unpermute(xp, record_id, keys, plan.num_records)
    if plan.file_sizes:
        epochs = _epochs(xp, plan, epoch)
        return _each_epoch(xp, epochs, epoch, record_id, lambda e: FileOrder(xp, plan, key_words, e).position_of)
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


def _mixed_ids(xp: ModuleType, mixture: Mixture, key_words: Array, rows: SourceRows) -> Array:
    """Return the ids of rows of several sources; `key_words` u32[num_sources, num_words]."""
    # Orders by record are one permutation each, and are computed together, whatever their number.
    sizes = tuple(one.num_records if one.shuffle_records and one.blocks is None else 0 for one in mixture.sources)
    ids = xp.copy(rows.position)
    if any(sizes):
        ids = permutation.permute_each(xp, ids, key_words, rows.epoch, rows.source, sizes)
    for number, one in enumerate(mixture.sources):
        if one.blocks is None and not one.file_sizes:
            continue
        own = rows.source == u32(number)
        if xp is not np:
            found = _record_at_own(xp, one, key_words[number], rows, own)
            ids = xp.where(own, found, ids)
        elif own.any():
            ids[own] = record_at(np, one, key_words[number], rows.epoch[own], rows.position[own])
    return ids + xp.take(xp.asarray(np.array(mixture.first_ids, u32)), rows.source, mode="clip")


def _record_at_own(xp: ModuleType, plan: Plan, key_words: Array, rows: SourceRows, own: Array) -> Array:
    """Return the ids of those rows that are a source's own; shapes are static, and other rows give what is no id."""
    epoch = xp.where(own, rows.epoch, xp.max(xp.where(own, rows.epoch, u32(0))))  # one that own rows are of, if any
    # Rows of one stretch of slots, or of two: of an epoch's end and its beginning.
    most = min(epoch.size, (epoch.size - 4) // plan.num_records + 4) if epoch.size > 4 else epoch.size
    epochs = list(xp.unique(epoch, size=most)) if plan.file_sizes else None
    return record_at(xp, plan, key_words, epoch, xp.where(own, rows.position, u32(0)), epochs)


def _epochs(xp: ModuleType, plan: Plan, epoch: Array) -> Sequence[Array]:
    """Return the epochs that rows of one batch can be of."""
    if xp is np:
        return list(np.unique(epoch))
    return [xp.ravel(epoch)[0] + u32(later) for later in range(plan.epochs_in_batch)]


def _each_epoch(
    xp: ModuleType,
    epochs: Sequence[Array],
    epoch: Array,
    values: Array,
    order_of: Callable[[Array], Callable[[Array], Array]],
) -> Array:
    """Apply `order_of(e)` to the values of each epoch `e`: tables are built once per epoch, not per value."""
    result = order_of(epochs[0])(values)
    for one in epochs[1:]:
        result = xp.where(epoch == one, order_of(one)(values), result)
    return result
