"""A random order with locality: blocks of neighbouring records move together, and mix inside windows.

An epoch is cut into windows of `block_size * window_blocks` positions, the last one shorter. A position is
permuted inside its window to a *slot*; slots lie block by block, and blocks are permuted over the epoch:

    position --permute in the window--> slot --permute the blocks--> record id

The `num_records % block_size` records that fill no block are the *tail*. Each epoch they change places with as
many records of one random block, the *partner*, which serve as the short last block instead: no record stands
last in every epoch, and none is dropped more often than another.

Files that are compressed in groups decode a whole group for any of its records: with `block_size` a multiple of
the group size, a window reads each of its groups once. NumPy and JAX alike, as `record_order.py`.
"""

import dataclasses
from types import ModuleType
from typing import Any

import numpy as np

from arsrc.order import permutation

Array = Any
u32 = np.uint32

_PARTNER = u32(2**32 - 1)  # stands in place of a window's number where the partner is drawn


@dataclasses.dataclass(frozen=True)
class Blocks:
    """The static numbers of a block order.

    Attributes:
        num_records: Records in all.
        block_size: Records of a block.
        window_size: Positions of a window, a multiple of `block_size`.
    """

    num_records: int
    block_size: int
    window_size: int

    @property
    def num_blocks(self) -> int:
        """Full blocks."""
        return self.num_records // self.block_size

    @property
    def tail(self) -> int:
        """Records that fill no block."""
        return self.num_records % self.block_size


def record_at(xp: ModuleType, blocks: Blocks, key_words: Array, epoch: Array, position: Array) -> Array:
    """Return the ids of the records at `position`; as `record_order.record_at`."""
    slot = slot_of(xp, blocks, key_words, epoch, position)
    return record_in_slot(xp, blocks, key_words, epoch, slot)


def position_of(xp: ModuleType, blocks: Blocks, key_words: Array, epoch: Array, record_id: Array) -> Array:
    """Return the positions of `record_id`; as `record_order.position_of`."""
    slot = _slot_with(xp, blocks, key_words, epoch, record_id)
    return _in_window(xp, permutation.unpermute, blocks, key_words, epoch, slot)


def slot_of(xp: ModuleType, blocks: Blocks, key_words: Array, epoch: Array, position: Array) -> Array:
    """Return the slot, u32[...], that each position of an epoch takes its record from; in the same window."""
    return _in_window(xp, permutation.permute, blocks, key_words, epoch, position)


def record_in_slot(xp: ModuleType, blocks: Blocks, key_words: Array, epoch: Array, slot: Array) -> Array:
    """Return the ids of the records, u32[...], in slots of an epoch: neighbours, up to the ends of blocks."""
    if not blocks.num_blocks:
        return slot
    size, tail = u32(blocks.block_size), u32(blocks.tail)
    place, offset = slot // size, slot % size
    last = place >= u32(blocks.num_blocks)
    keys = permutation.round_keys(xp, key_words, epoch, blocks.num_blocks)
    full = xp.minimum(place, u32(blocks.num_blocks - 1))
    block = permutation.permute(xp, full, keys, blocks.num_blocks)
    if not blocks.tail:
        return block * size + offset
    partner, first = _partner(xp, blocks, key_words, epoch)
    turned = _turn_back(xp, offset, first, size)
    to_tail = ~last & (block == partner) & (turned < tail)
    from_partner = partner * size + _turn(xp, offset, first, size)
    full_block = xp.where(to_tail, u32(blocks.num_blocks) * size + turned, block * size + offset)
    return xp.where(last, from_partner, full_block)


def _slot_with(xp: ModuleType, blocks: Blocks, key_words: Array, epoch: Array, record_id: Array) -> Array:
    """Return the slot that holds each record: the inverse of `record_in_slot`."""
    if not blocks.num_blocks:
        return record_id
    size, tail = u32(blocks.block_size), u32(blocks.tail)
    block, offset = record_id // size, record_id % size
    keys = permutation.round_keys(xp, key_words, epoch, blocks.num_blocks)
    if not blocks.tail:
        return permutation.unpermute(xp, block, keys, blocks.num_blocks) * size + offset
    partner, first = _partner(xp, blocks, key_words, epoch)
    turned = _turn_back(xp, offset, first, size)
    to_last = (block == partner) & (turned < tail)
    in_tail = block >= u32(blocks.num_blocks)
    offset = xp.where(in_tail, _turn(xp, offset, first, size), offset)
    block = xp.minimum(xp.where(in_tail, partner, block), u32(blocks.num_blocks - 1))
    place = permutation.unpermute(xp, block, keys, blocks.num_blocks)
    return xp.where(to_last, u32(blocks.num_blocks) * size + turned, place * size + offset)


def _partner(xp: ModuleType, blocks: Blocks, key_words: Array, epoch: Array) -> tuple[Array, Array]:
    """Draw with what the tail changes places: a block, and the first offset in it, u32[...] as `epoch`.

    Drawn as one record of all, so that each is as likely to end up last: the tail's own leave it in its place,
    with itself as the partner.
    """
    keys = permutation.round_keys(xp, key_words, _word(xp, epoch, _PARTNER), blocks.num_records)
    record = permutation.permute(xp, xp.zeros_like(keys[0]), keys, blocks.num_records)
    partner, first = record // u32(blocks.block_size), record % u32(blocks.block_size)
    return partner, xp.where(partner == u32(blocks.num_blocks), u32(0), first)


def _turn(xp: ModuleType, offset: Array, first: Array, size: np.uint32) -> Array:
    """Return `(offset + first) % size`, both below `size`."""
    room = size - first
    return xp.where(offset < room, offset + first, offset - room)


def _turn_back(xp: ModuleType, offset: Array, first: Array, size: np.uint32) -> Array:
    """Return `(offset - first) % size`, both below `size`."""
    return xp.where(offset >= first, offset - first, offset + (size - first))


def _in_window(xp: ModuleType, permute: Any, blocks: Blocks, key_words: Array, epoch: Array, position: Array) -> Array:
    """Permute positions inside their windows, each window of each epoch in its own way."""
    size = blocks.window_size
    num_full, rest = divmod(blocks.num_records, size)
    window, offset = position // u32(size), position % u32(size)
    word = _word(xp, epoch, window)
    moved = None
    for length in (size, rest):
        if length == 0 or (length == size and not num_full):
            continue
        keys = permutation.round_keys(xp, key_words, word, length)
        inside = permute(xp, xp.minimum(offset, u32(length - 1)), keys, length)
        moved = inside if moved is None else xp.where(window < u32(num_full), moved, inside)
    return window * u32(size) + moved


def _word(xp: ModuleType, epoch: Array, window: Array) -> Array:
    """Mix epoch and window into one word, which stands in for the epoch of a permutation of its own."""
    epoch, window = xp.broadcast_arrays(epoch, window)
    return permutation.mix(window, permutation.mix(epoch, xp.ones_like(epoch)))
