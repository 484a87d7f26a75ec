"""Which record stands where: (key, epoch, position) -> record id, and back.

Every function takes the array namespace `xp` (`numpy` or `jax.numpy`), so that the device and the host compute
the same order from one definition. The host calls them on threads, with arrays of at least one dimension.
"""

import dataclasses
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from arsrc import block_order, permutation
from arsrc.block_order import Blocks
from arsrc.frozen import HashOnce

Array = Any
u32 = np.uint32

PAD_ID = 2**32 - 1
"""Record id of a row that holds no record; also the largest u32."""

ORDER_VERSION = 1
"""Version of the order, part of the fingerprint; a change of any order is a new version."""


@dataclasses.dataclass(frozen=True)
class Plan(HashOnce):
    """The static numbers behind order and state arithmetic: what `config` says and how large the data is.

    Attributes:
        num_records: Records in the data set, in `[1, 2**32 - 1]`.
        batch_size: Records in a global batch.
        num_epochs: Passes before exhaustion; -1 is endless.
        remainder: "drop", "pad" or "wrap".
        shuffle_records: Whether all records are permuted each epoch.
        file_sizes: Records of each file if files are permuted each epoch, else empty.
        blocks: The numbers of the block order if records are permuted in blocks, else None.
        exclude: Ranges `[start, stop)` of record ids that are served as padding; sorted and disjoint.
    """

    num_records: int
    batch_size: int
    num_epochs: int
    remainder: str
    shuffle_records: bool
    file_sizes: tuple[int, ...] = ()
    blocks: Blocks | None = None
    exclude: tuple[tuple[int, int], ...] = ()

    __hash__ = HashOnce.__hash__

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one epoch; under "wrap", batches that hold one epoch's records."""
        if self.remainder == "drop":
            return self.num_records // self.batch_size
        return -(-self.num_records // self.batch_size)

    @property
    def total_steps(self) -> int | None:
        """Batches until exhaustion, None if endless."""
        if self.num_epochs < 0:
            return None
        if self.remainder == "wrap":
            return -(-self.num_epochs * self.num_records // self.batch_size)
        return self.num_epochs * self.steps_per_epoch

    @property
    def epochs_in_batch(self) -> int:
        """Most epochs that one batch can touch."""
        if self.remainder != "wrap":
            return 1
        return (self.batch_size + self.num_records - 2) // self.num_records + 1


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
        return _each_epoch(xp, plan, epoch, position, lambda e: _FileOrder(xp, plan, key_words, e).record_at)
    return position


def position_of(xp: ModuleType, plan: Plan, key_words: Array, epoch: Array, record_id: Array) -> Array:
    """Return the position of `record_id` in `epoch`: the inverse of `record_at`, same shapes and dtypes."""
    if plan.blocks is not None:
        return block_order.position_of(xp, plan.blocks, key_words, epoch, record_id)
    if plan.shuffle_records:
        keys = permutation.round_keys(xp, key_words, epoch, plan.num_records)
        return permutation.unpermute(xp, record_id, keys, plan.num_records)
    if plan.file_sizes:
        return _each_epoch(xp, plan, epoch, record_id, lambda e: _FileOrder(xp, plan, key_words, e).position_of)
    return record_id


def served(xp: ModuleType, plan: Plan, record_id: Array, valid: Array) -> tuple[Array, Array]:
    """Return `(record_id, valid)` with excluded records made invalid, and the padding id wherever it is not valid."""
    if plan.exclude:
        start, stop = np.array(plan.exclude, u32).T
        place = _place(xp, xp.asarray(start), record_id)
        # Place 0 is in front of all ranges: its stop is 0.
        stops = xp.asarray(np.concatenate([np.zeros(1, u32), stop]))
        valid = valid & (record_id >= stops[place])
    return xp.where(valid, record_id, u32(PAD_ID)), valid


def _place(xp: ModuleType, firsts: Array, values: Array) -> Array:
    """Return how many of `firsts`, which are sorted, are no larger than each value."""
    # Under shard_map, JAX before 0.8 wants both to vary over the same devices.
    firsts = firsts + values.ravel()[:1].sum(dtype=u32) * u32(0)
    return xp.searchsorted(firsts, values, side="right")


class _FileOrder:
    """The files in one epoch's order: their numbers and where each one starts."""

    def __init__(self, xp: ModuleType, plan: Plan, key_words: Array, epoch: Array) -> None:
        sizes = np.array(plan.file_sizes, u32)  # u32[num_files]
        self.xp, self.num_files = xp, len(sizes)
        self.keys = permutation.round_keys(xp, key_words, epoch, self.num_files)
        self.base = xp.asarray(np.cumsum(sizes, dtype=u32) - sizes)  # first record id of each file
        self.files = permutation.permute(xp, xp.arange(self.num_files, dtype=u32), self.keys, self.num_files)
        lengths = xp.asarray(sizes)[self.files]
        self.starts = xp.cumsum(lengths, dtype=u32) - lengths  # first position of each file, in epoch order

    def record_at(self, position: Array) -> Array:
        place = _place(self.xp, self.starts, position) - 1
        return self.base[self.files[place]] + position - self.starts[place]

    def position_of(self, record_id: Array) -> Array:
        file = _place(self.xp, self.base, record_id) - 1
        place = permutation.unpermute(self.xp, file.astype(u32), self.keys, self.num_files)
        return self.starts[place] + record_id - self.base[file]


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
