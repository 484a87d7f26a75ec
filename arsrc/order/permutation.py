"""The keyed bijection on [0, n): the order of one epoch, evaluated point by point.

A ragged Feistel network. The numbers 0 .. n - 1 fill a nearly square grid row by row; the last row may be
shorter. Rounds in turn rotate every column by an amount drawn from its number and a round key, then every row
likewise. Each round moves exactly these n cells, so the whole is a bijection, with no table and no cycle
walking, and its inverse costs the same.

All functions take the array namespace `xp`, `numpy` or `jax.numpy`, and give the same bits in both: on the
host, and eagerly or under jit, scan and vmap, with 64-bit types on or off. Arithmetic is uint32 and wraps.

    >>> permute(np, np.arange(10), round_keys(np, key_words=(0, 42), epoch=0, n=10), n=10).tolist()
    [4, 1, 8, 2, 0, 6, 7, 3, 9, 5]

The order is version 1 and part of the format: whatever changes a bit of it is a new version beside it. It is
not cryptographic.

Sources: generalised Feistel networks: Black and Rogaway, "Ciphers with Arbitrary Finite Domains" (CT-RSA
2002); the round function's mixer: fmix32 of MurmurHash3 (Appleby).
"""

import functools
import math
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any, NamedTuple, TypeAlias

import numpy as np

Array: TypeAlias = Any  # numpy.ndarray or jax.Array, as `xp` says


def _word(value: int) -> Array:
    """Make a constant u32[]: JAX reads a bare int as int32; NumPy is quicker with 0-d arrays than scalars."""
    return np.array(value, np.uint32)


_SPREAD = _word(0x9E3779B1)
_MIX_1, _MIX_2 = _word(0x85EBCA6B), _word(0xC2B2AE35)
_LOW_HALF = _word(0xFFFF)
_13, _16 = _word(13), _word(16)


class Grid(NamedTuple):
    """The cells 0 .. n - 1 laid out row by row; static, sides of at most 2**16.

    Attributes:
        n: Number of cells.
        num_rows: Length of the first `last_row` columns; the others have one cell less.
        num_columns: Length of all rows but the last.
        last_row: Length of the last row, in [1, num_columns].
    """

    n: int
    num_rows: int
    num_columns: int
    last_row: int


@functools.lru_cache
def grid(n: int) -> Grid:
    """Lay out n cells, 1 <= n <= 2**32 - 1, as nearly square as serves."""
    num_columns = math.isqrt(n - 1) + 1  # ceil(sqrt(n))
    if n % 2 == 1 and num_columns**2 == n:
        num_columns += 1  # rotations of odd cycles only are even permutations, which are half of all
    num_rows = -(-n // num_columns)
    return Grid(n, num_rows, num_columns, n - (num_rows - 1) * num_columns)


def num_rounds(n: int) -> int:
    """Count the rounds for n cells: 8 from 32769 on; more below, where a round has few rotations."""
    if n == 1:
        return 2  # any even number would do: nothing can move
    return max(8, 4 + 2 * -(-32 // (n - 1).bit_length()))


def round_keys(xp: ModuleType, key_words: Iterable[Array], epoch: Array, n: int) -> list[Array]:
    """Derive the round keys of an epoch, or of one epoch per element.

    Args:
        xp: `numpy` or `jax.numpy`.
        key_words: The words of `jax.random.key_data(key)`: scalars u32[], or one array u32[num_words].
        epoch: u32[...], any shape that broadcasts with the positions.
        n: Number of cells, static.

    Returns:
        `num_rounds(n)` arrays u32[...] of the shape of `epoch`.
    """
    keys = _lanes(n)  # u32[num_rounds]
    for word in key_words:
        keys = mix(xp.broadcast_to(_u32(xp, word), keys.shape), keys)  # u32[num_rounds]
    epoch = _u32(xp, epoch)
    keys = keys.reshape(-1, *(1,) * epoch.ndim)  # u32[num_rounds, 1 ...]
    return list(mix(xp.broadcast_to(epoch, (len(keys), *epoch.shape)), keys))  # u32[num_rounds, ...]


def permute(xp: ModuleType, position: Array, round_keys: Sequence[Array], n: int) -> Array:
    """Map positions to values of the permutation that the round keys select.

    Args:
        xp: `numpy` or `jax.numpy`.
        position: u32[...], all below n.
        round_keys: The result of `round_keys` for this n.
        n: Number of cells, static.

    Returns:
        u32[...], all below n, of the shape to which the positions and the round keys broadcast.
    """
    columns, rows = _lines(n)
    row, column, shape = _split(xp, position, round_keys, n)
    for column_key, row_key in zip(round_keys[::2], round_keys[1::2], strict=True):
        row = _forward(xp, row, *_rotation(columns, column, column_key))
        column = _forward(xp, column, *_rotation(rows, row, row_key))
    return _join(row, column, n).reshape(shape)


def unpermute(xp: ModuleType, value: Array, round_keys: Sequence[Array], n: int) -> Array:
    """Map values back to their positions: the inverse of `permute`, with the same arguments and shapes."""
    columns, rows = _lines(n)
    row, column, shape = _split(xp, value, round_keys, n)
    for column_key, row_key in zip(round_keys[-2::-2], round_keys[::-2], strict=True):
        column = _backward(xp, column, *_rotation(rows, row, row_key))
        row = _backward(xp, row, *_rotation(columns, column, column_key))
    return _join(row, column, n).reshape(shape)


def permute_each(
    xp: ModuleType, position: Array, key_words: Array, epoch: Array, which: Array, sizes: tuple[int, ...]
) -> Array:
    """Map positions of many permutations at once, each to what `permute` gives for it with its own key and n.

    Args:
        xp: `numpy` or `jax.numpy`.
        position: u32[...], each below the size of its permutation.
        key_words: u32[num_sizes, num_words], the words of the key of each permutation.
        epoch: u32[...], of the shape of `position`.
        which: u32[...], likewise: number of the permutation.
        sizes: Number of cells of each, static; 0 leaves its positions where they are.

    Returns:
        u32[...], of the shape of `position`.
    """
    table, lanes = _tables(sizes)
    keys = xp.asarray(lanes)  # u32[num_sizes, max_rounds]
    for word in xp.moveaxis(key_words, 1, 0):
        keys = mix(xp.broadcast_to(word[:, None], keys.shape), keys)
    of_cell = lambda values: xp.moveaxis(xp.take(values, which, axis=0, mode="clip"), -1, 0)  # noqa: E731
    keys = of_cell(keys)  # u32[max_rounds, ...]
    keys = mix(xp.broadcast_to(epoch, keys.shape), keys)
    num_columns, last_row, full_rows, rounds = of_cell(xp.asarray(table))
    columns, rows = _Lines(last_row, _word(1), full_rows), _Lines(full_rows, num_columns - last_row, last_row)
    row = position // num_columns
    column = position - row * num_columns
    fewest = min(map(num_rounds, filter(None, sizes)), default=0)
    for number, (column_key, row_key) in enumerate(zip(keys[::2], keys[1::2], strict=True)):
        turns = (rounds > np.uint32(2 * number)).astype(np.uint32) if 2 * number >= fewest else None
        row = _forward(xp, row, *_rotation(columns, column, column_key, turns))
        column = _forward(xp, column, *_rotation(rows, row, row_key, turns))
    return row * num_columns + column


@functools.lru_cache(64)
def _tables(sizes: tuple[int, ...]) -> tuple[Array, Array]:
    """Describe each grid, u32[num_sizes, 4], and start the keys of its rounds, u32[num_sizes, max_rounds]."""
    counts = [num_rounds(n) if n else 0 for n in sizes]
    lanes = np.zeros((len(sizes), max(counts)), np.uint32)
    grids = np.array([[1, 0, 0, 0]] * len(sizes), np.uint32)  # lines without cells do not turn
    for number, n in enumerate(sizes):
        if n:
            _, num_rows, num_columns, last_row = grid(n)
            grids[number] = num_columns, last_row, num_rows - 1, counts[number]
            lanes[number, : counts[number]] = _lanes(n)
    return grids, lanes


class _Lines(NamedTuple):
    """All columns, or all rows: the first `num_long` have length `short + difference`, the others `short`."""

    num_long: Array  # u32[], or u32[...] of the grid of each cell, as the others
    difference: Array
    short: Array


@functools.lru_cache
def _lines(n: int) -> tuple[_Lines, _Lines]:
    """Describe the columns and the rows of n cells."""
    _, num_rows, num_columns, last_row = grid(n)
    columns = (last_row, 1, num_rows - 1)
    rows = (num_rows - 1, num_columns - last_row, last_row)
    return _Lines(*map(_word, columns)), _Lines(*map(_word, rows))


@functools.lru_cache
def _lanes(n: int) -> Array:
    """Start the key of each round from its number and n, which are static: u32[num_rounds]."""
    number = np.arange(1, num_rounds(n) + 1, dtype=np.uint32)
    return mix(np.full_like(number, n), mix(number, np.zeros_like(number)))


def _split(xp: ModuleType, cell: Array, round_keys: Sequence[Array], n: int) -> tuple[Array, Array, tuple[int, ...]]:
    """Give the row and the column of each cell, at least u32[1], and the shape that the result is to have."""
    cell = _u32(xp, cell)
    shape = np.broadcast_shapes(cell.shape, round_keys[0].shape)
    cell = xp.broadcast_to(cell, shape or (1,))  # NumPy warns where scalars wrap; arrays wrap in silence
    num_columns = np.uint32(grid(n).num_columns)
    row = cell // num_columns
    return row, cell - row * num_columns, shape


def _join(row: Array, column: Array, n: int) -> Array:
    """Give the cell at each row and column."""
    return row * np.uint32(grid(n).num_columns) + column


def _rotation(lines: _Lines, line: Array, key: Array, turns: Array | None = None) -> tuple[Array, Array]:
    """Draw by how much each line turns, none where `turns` is 0; give that and the line's length."""
    length = (line < lines.num_long).astype(np.uint32)  # by arithmetic: numpy.where is five times slower
    length *= lines.difference
    length += lines.short
    amount = _below(length, mix(line, key))
    return amount if turns is None else amount * turns, length


def _forward(xp: ModuleType, x: Array, amount: Array, length: Array) -> Array:
    """Give (x + amount) mod length, both below length; uses up amount."""
    amount += x
    return xp.minimum(amount, amount - length)  # a negative difference has wrapped and is the larger


def _backward(xp: ModuleType, x: Array, amount: Array, length: Array) -> Array:
    """Give (x - amount) mod length, both below length."""
    amount = x - amount
    return xp.minimum(amount, amount + length)


def mix(x: Array, key: Array) -> Array:
    """Mix x and a key that broadcasts to its shape into one word, u32[...]."""
    x = x * _SPREAD  # from here on in place in NumPy
    x += key
    x ^= x >> _16
    x *= _MIX_1
    x ^= x >> _13
    x *= _MIX_2
    x ^= x >> _16
    return x


def _below(length: Array, x: Array) -> Array:
    """Scale x to [0, length) as floor(x * length / 2**32), exact for length <= 2**16; uses up x."""
    high = x >> _16
    high *= length
    x &= _LOW_HALF
    x *= length
    x >>= _16
    high += x
    high >>= _16
    return high


def _u32(xp: ModuleType, x: Array) -> Array:
    """Give x as an array u32[...]."""
    return xp.asarray(x, dtype=np.uint32)
