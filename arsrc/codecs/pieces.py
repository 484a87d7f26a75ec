"""Pieces of the bytes of a batch, taken out of it: of one length, of any, and padded to one."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_SHORT_BYTES = 64  # pieces that array operations copy sooner than a call for each
_SLAB_BYTES = 1 << 17  # of masks that are made at once


def pieces(data: NDArray[np.uint8], begins: NDArray[np.int64], num_bytes: int) -> NDArray[np.uint8]:
    """Return pieces of `data` of one length, one behind the other."""
    if num_bytes == 0:
        return np.empty(0, np.uint8)
    if num_bytes == 1:
        return data[begins]
    # As items without a type, one at each byte, which NumPy copies as fast as memory allows.
    items: NDArray[Any] = np.ndarray((max(0, len(data) - num_bytes + 1),), f"V{num_bytes}", data, strides=(1,))
    return items[begins].view(np.uint8)


def end_to_end(data: NDArray[np.uint8], begins: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return pieces of `data` of any lengths, one behind the other; perhaps read-only."""
    if not len(begins) or np.count_nonzero(lengths == lengths[0]) == len(lengths):
        return pieces(data, begins, int(lengths[0]) if len(begins) else 0)
    total = int(lengths.sum())
    if total < _SHORT_BYTES * len(lengths):
        before = np.cumsum(lengths) - lengths
        return data[np.repeat(begins - before, lengths) + np.arange(total)]
    view = data.data
    spans = zip(begins.tolist(), (begins + lengths).tolist(), strict=True)
    return np.frombuffer(b"".join([view[begin:end] for begin, end in spans]), np.uint8)


def padded(
    data: NDArray[np.uint8], begins: NDArray[np.int64], lengths: NDArray[np.int64], row_bytes: int, pad: int
) -> NDArray[np.uint8]:
    """Return pieces of `data` in rows of one length, u8[num_pieces, row_bytes].

    Args:
        data: u8[...]
        begins: i64[num_pieces]
        lengths: i64[num_pieces], of which none is greater than `row_bytes`.
        row_bytes: Bytes of a row.
        pad: The byte behind each piece.
    """
    if len(data) < row_bytes:
        data = np.concatenate((data, np.zeros(row_bytes - len(data), np.uint8)))
    last = len(data) - row_bytes
    # Whole rows are copied, beyond the pieces' ends, and what is beyond is masked: a call for each piece takes longer.
    rows = pieces(data, np.minimum(begins, last), row_bytes).reshape(len(begins), row_bytes)
    shortest = int(lengths.min(initial=row_bytes))
    tail_bytes = row_bytes - shortest
    masks = np.zeros(2 * tail_bytes, np.uint8)
    masks[:tail_bytes] = 0xFF
    slab = max(1, _SLAB_BYTES // max(1, tail_bytes))
    for first in range(0, len(begins) if tail_bytes else 0, slab):
        tails = rows[first : first + slab, shortest:]
        kept = pieces(masks, row_bytes - lengths[first : first + slab], tail_bytes).reshape(tails.shape)
        tails &= kept
        if pad:
            tails |= ~kept & np.uint8(pad)
    is_cut = begins > last
    for row in np.flatnonzero(is_cut).tolist() if np.count_nonzero(is_cut) else ():
        begin, length = begins[row], lengths[row]
        rows[row, :length] = data[begin : begin + length]
        rows[row, length:] = pad
    return rows
