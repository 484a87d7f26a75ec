"""Elements as rows of bytes: where their leaves lie, and a checksum at the end of each."""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arsrc._host.records.leaves import LeafShapes, Leaves

_WORD = np.dtype("<u4")
_PIECE = 4096  # words: what is multiplied stays in the processor's cache
_WEIGHTS = np.frombuffer(hashlib.shake_128(b"arsrc rows of elements 1").digest(8 * (_PIECE + 1)), "<u8")

Array = NDArray[Any]


class RowLayout:
    """How an element is laid out as a row of bytes.

    Args:
        shapes: Shape and dtype of each leaf of an element.
        identity: Says what the elements are; the checksums of others do not fit.

    Attributes:
        num_bytes: Bytes of a row.
    """

    def __init__(self, shapes: LeafShapes, identity: str) -> None:
        self._shapes = shapes
        self._key = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8], "little")
        ends = np.cumsum([int(np.prod(shape)) * dtype.itemsize for shape, dtype in shapes]).tolist()
        self._spans = list(zip([0, *ends[:-1]], ends, strict=True))
        self.num_bytes = (-(-ends[-1] // _WORD.itemsize) + 1) * _WORD.itemsize

    def pack(self, leaves: Leaves, ids: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return elements as rows, u8[len(ids), num_bytes]."""
        rows = np.zeros((len(ids), self.num_bytes), np.uint8)
        for leaf, (start, stop), (_, dtype) in zip(leaves, self._spans, self._shapes, strict=True):
            if start < stop:
                rows[:, start:stop] = np.ascontiguousarray(leaf, dtype).reshape(len(ids), -1).view(np.uint8)
        words = rows.view(_WORD)
        words[:, -1] = _checksums(words[:, :-1], ids, self._key)
        return rows

    def take(self, data: memoryview, ends: NDArray[np.int64]) -> Leaves:
        """Return the leaves of the rows that end at some places in `data`."""
        leaves = []
        for (start, stop), (shape, dtype) in zip(self._spans, self._shapes, strict=True):
            found = _pieces(data, ends - (self.num_bytes - start), stop - start)
            leaves.append(found.view(dtype).reshape(len(ends), *shape))
        return leaves

    def are_whole(self, data: memoryview, ends: Array, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which rows, that end at some places in `data`, hold what was packed for some ids; bool[len(ids)]."""
        words = _pieces(data, ends - self.num_bytes, self.num_bytes).view(_WORD).reshape(len(ids), -1)
        return _checksums(words[:, :-1], ids, self._key) == words[:, -1]


def _pieces(data: memoryview, begins: NDArray[np.int64], num_bytes: int) -> Array:
    """Return pieces of `data` of the same length, one behind the other."""
    if num_bytes == 0:
        return np.empty(0, np.uint8)
    # As items without a type, one at each byte, which NumPy copies as fast as memory allows.
    items = np.ndarray((max(0, len(data) - num_bytes + 1),), f"V{num_bytes}", data, strides=(1,))
    return items[begins]


def _checksums(words: Array, ids: NDArray[np.int64], key: int) -> NDArray[np.uint32]:
    """Return a checksum of each row, of its words, its id and a key; u32[num_rows].

    The high halves of sums of words times 64-bit weights: of what is not as it was, one in 2**32 passes (Lemire and
    Kaser, "Strongly universal string hashing is fast", 2014). Long rows go in pieces, each with the sum of the one
    before as a further word.

    Args:
        words: u32[num_rows, num_words]
        ids: i64[num_rows]
        key: 64 bits.
    """
    sums = ids.astype(np.uint64)
    for start in range(0, words.shape[1], _PIECE):
        piece = words[:, start : start + _PIECE].astype(np.uint64)
        sums = (piece.dot(_WEIGHTS[: piece.shape[1]]) + sums * _WEIGHTS[_PIECE] + np.uint64(key)) >> np.uint64(32)
    return sums.astype(np.uint32)
