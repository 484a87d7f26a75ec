"""Which row of which source a mixture serves in a slot: the counts of `mixture.py` with 32 bits, NumPy and JAX alike.

Numbers of slots, and of a source's rows, have up to 64 bits (`wide.py`). Epochs count modulo 2**32.
"""

import functools
import itertools
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from arsrc.order import wide
from arsrc.order.mixture import Mixture
from arsrc.order.plan import PAD_ID
from arsrc.order.spread import MOST_SLOTS, spread

Array = Any
u32 = np.uint32


class SourceRows(NamedTuple):
    """What slots hold; all arrays of one shape.

    Attributes:
        source: u32[...], numbers of the sources.
        epoch: u32[...], epochs of their own.
        position: u32[...], positions in these.
        valid: bool[...], whether the source has not ended; None if all are.
    """

    source: Array
    epoch: Array
    position: Array
    valid: Array | None


def rows_in_slots(xp: ModuleType, mixture: Mixture, epoch: Array, position: Array) -> SourceRows:
    """Return the rows in slots of a mixture.

    Args:
        xp: `numpy` or `jax.numpy`.
        mixture: The static numbers.
        epoch: u32[...], epochs of the mixture, broadcastable with `position`.
        position: u32[...], in `[0, epoch_size)`.
    """
    tables, epoch = _tables(mixture), xp.broadcast_to(epoch, position.shape)
    stage = _stages(xp, tables.starts, epoch, position)  # u32[...]
    of_stage = _Stage(*_columns(xp, tables.stages, stage))
    slot = wide.add(wide.mul(xp, epoch, u32(mixture.epoch_size)), position)
    slot = wide.sub(slot, (of_stage.start_upper, of_stage.start_lower))
    periods, slot = wide.divmod_small(xp, slot, of_stage.period)

    # u32[...]: the source above, and the number of its rows before the slot in this period below.
    found = _columns(xp, tables.slots, of_stage.first + slot)[0]
    source, rank = found // u32(MOST_SLOTS), found % u32(MOST_SLOTS)
    of_row = _Counts(*_columns(xp, tables.counts, stage * u32(len(mixture.sources)) + source))
    row = wide.add(wide.mul_wide(xp, periods, of_row.quota), rank)
    row = wide.add_wide(row, (of_row.base_upper, of_row.base_lower))
    turns, place = wide.divmod_large(xp, row, of_row.size)
    valid = None
    if tables.ends is not None:
        end_epoch, end_index = _columns(xp, tables.ends, source)
        valid = (epoch < end_epoch) | ((epoch == end_epoch) & (position < end_index))
    return SourceRows(source, turns, place, valid)


class _Stage(NamedTuple):
    """A stage."""

    start_upper: Array  # its first slot
    start_lower: Array
    period: Array  # slots of its period
    first: Array  # where the layout of these begins


class _Counts(NamedTuple):
    """How a source's rows are counted in a stage."""

    quota: Array  # rows of a period
    size: Array  # rows of an epoch of its own
    base_upper: Array  # rows before the stage
    base_lower: Array


class _Tables(NamedTuple):
    """What is looked up, u32[num_entries, num_columns] each; `ends` is None where no row is masked."""

    starts: NDArray[u32]  # epoch and index of each stage but the first
    stages: NDArray[u32]  # _Stage of each
    slots: NDArray[u32]  # source * MOST_SLOTS + rank, of each slot of each layout
    counts: NDArray[u32]  # _Counts of each source in each stage
    ends: NDArray[u32] | None  # epoch and index from which on each source has no rows


@functools.lru_cache(64)
def _tables(mixture: Mixture) -> _Tables:
    layouts = list(dict.fromkeys(mixture.quotas))
    sizes = [sum(layout) for layout in layouts]
    firsts = dict(zip(layouts, itertools.accumulate(sizes[:-1], initial=0), strict=True))
    starts = [divmod(start, mixture.epoch_size) for start in mixture.starts]
    stages = [
        (*divmod(start, 2**32), sum(quotas), firsts[quotas])
        for start, quotas in zip(mixture.starts, mixture.quotas, strict=True)
    ]
    counts = [
        (quota, source.num_records, *divmod(base, 2**32))
        for quotas, bases in zip(mixture.quotas, mixture.bases, strict=True)
        for quota, base, source in zip(quotas, bases, mixture.sources, strict=True)
    ]
    ends = None
    if mixture.stop == "all" and any(end is not None for end in mixture.ends):
        never = (PAD_ID, PAD_ID)
        ends = _table([never if end is None else divmod(end, mixture.epoch_size) for end in mixture.ends])
    slots = np.concatenate([_slots(layout) for layout in layouts])
    return _Tables(_table(starts)[1:], _table(stages), slots[:, None], _table(counts), ends)


def _slots(quotas: tuple[int, ...]) -> NDArray[u32]:
    """Return `source * MOST_SLOTS + rank` of each slot of a period."""
    source = spread(quotas)
    order = np.argsort(source, kind="stable")
    rank = np.empty(len(source), u32)
    rank[order] = np.arange(len(source)) - np.repeat(np.cumsum(quotas) - np.array(quotas), quotas)
    return source * u32(MOST_SLOTS) + rank


def _table(entries: Any) -> NDArray[u32]:
    return np.array(entries, u32)


def _columns(xp: ModuleType, table: NDArray[u32], entry: Array) -> Array:
    """Return each column's value at the entries, u32[num_columns, ...]."""
    return xp.moveaxis(xp.take(xp.asarray(table), entry, axis=0, mode="clip"), -1, 0)


def _stages(xp: ModuleType, starts: NDArray[u32], epoch: Array, position: Array) -> Array:
    """Return the number of the stage that each slot is in."""
    if len(starts) == 0:
        return xp.zeros_like(position)
    start_epoch, start_index = (column.reshape(*(1,) * position.ndim, -1) for column in starts.T)
    epoch, position = epoch[..., None], position[..., None]
    begun = (epoch > start_epoch) | ((epoch == start_epoch) & (position >= start_index))
    return xp.sum(begun, axis=-1, dtype=u32)
