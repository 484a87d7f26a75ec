"""Some of the numbers below 2**32, in ascending order, in little memory."""

import hashlib
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Integers: TypeAlias = NDArray[np.int64]

_BLOCK_WORDS = 32  # of 64 bits: one count for so many takes 1.6 % more
_TOGETHER = 1 << 16  # that are looked up at once: each takes some hundred bytes meanwhile
_BLOCK_BITS = 64 * _BLOCK_WORDS
_BITS_OF = np.argsort(  # i64[256, 8], where the bits of each octet are that are set
    1 - np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little"), axis=1, kind="stable"
)


class IdSet:
    """Numbers, each once: one bit for each number up to the largest, or four bytes for each, whichever is less.

    Attributes:
        num_ids: How many there are.
        stop: The largest, plus one.
        digest: Tells them from others.
    """

    def __init__(self, ids: NDArray[np.uint32] | None, bits: NDArray[np.uint8] | None) -> None:
        """Take them in one of their forms: `ids` u32[num_ids], ascending; or `bits` u8[...], the lowest bit first."""
        self._ids = ids
        self._words: NDArray[np.uint64] | None = None
        if bits is not None:
            self._words = np.zeros(-(-len(bits) // (_BLOCK_WORDS * 8)) * _BLOCK_WORDS, "<u8")
            self._words.view(np.uint8)[: len(bits)] = bits
            counts = np.bitwise_count(self._words.reshape(-1, _BLOCK_WORDS)).sum(1, dtype=np.int64)
            self._before = np.concatenate(([0], np.cumsum(counts))).astype(np.uint32)  # in front of each block
            last = int(np.flatnonzero(bits)[-1])
            self.num_ids, self.stop = int(self._before[-1]), 8 * last + int(bits[last]).bit_length()
        elif ids is not None:
            self.num_ids, self.stop = len(ids), int(ids[-1]) + 1
        self.digest = hashlib.sha256(self.to_bytes()).hexdigest()[:32]

    @classmethod
    def of_mask(cls, mask: NDArray[np.bool_]) -> "IdSet":
        """Return the places at which a mask is True, one at least."""
        stop = len(mask) - int(mask[::-1].argmax())
        if _is_less_in_bits(int(mask.sum()), stop):
            return cls(None, np.packbits(mask[:stop], bitorder="little"))
        return cls(np.flatnonzero(mask).astype(np.uint32), None)

    @classmethod
    def of_ids(cls, ids: NDArray[np.uint32]) -> "IdSet":
        """Return ascending numbers, one at least and none twice."""
        stop = int(ids[-1]) + 1
        if not _is_less_in_bits(len(ids), stop):
            return cls(ids, None)
        mask = np.zeros(stop, np.bool_)
        mask[ids] = True
        return cls(None, np.packbits(mask, bitorder="little"))

    @classmethod
    def of_ranges(cls, ranges: Sequence[tuple[int, int]]) -> "IdSet":
        """Return the numbers of ascending ranges `[start, stop)`, of which none is empty and no two overlap."""
        stop = ranges[-1][1]
        if not _is_less_in_bits(sum(end - start for start, end in ranges), stop):
            return cls(np.concatenate([np.arange(start, end, dtype=np.uint32) for start, end in ranges]), None)
        bits = np.zeros(-(-stop // 8), np.uint8)
        for start, end in ranges:
            first, last = start // 8, (end - 1) // 8
            bits[first + 1 : last] = 255
            head, tail = 255 << start % 8 & 255, 255 >> 7 - (end - 1) % 8
            if first == last:
                bits[first] |= head & tail
            else:
                bits[first] |= head
                bits[last] |= tail
        return cls(None, bits)

    @classmethod
    def from_bytes(cls, kind: str, data: bytes) -> "IdSet":
        """Return what `to_bytes` gave for one of this `kind`.

        Raises:
            ValueError: It is nothing that it gives.
        """
        if kind == "bits" and data and data[-1]:
            return cls(None, np.frombuffer(data, np.uint8))
        if kind == "ids" and data and len(data) % 4 == 0:
            ids = np.frombuffer(data, "<u4").astype(np.uint32)
            if (ids[1:] > ids[:-1]).all():
                return cls(ids, None)
        raise ValueError(f"these are no {kind}")

    @property
    def kind(self) -> str:
        """In which form they are: "bits" or "ids"."""
        return "ids" if self._words is None else "bits"

    @property
    def num_bytes(self) -> int:
        """Memory that they take."""
        if self._words is None:
            return 4 * self.num_ids
        return self._words.nbytes + self._before.nbytes

    def to_bytes(self) -> bytes:
        """Return them as they are kept in files."""
        if self._ids is not None:
            return self._ids.astype("<u4").tobytes()
        assert self._words is not None
        return self._words.view(np.uint8)[: -(-self.stop // 8)].tobytes()

    def take(self, ranks: Integers) -> Integers:
        """Return the numbers i64[n] at ranks i64[n] (how many are less), all in `[0, num_ids)`."""
        if self._words is None:
            assert self._ids is not None
            return self._ids[ranks].astype(np.int64)
        if len(ranks) > _TOGETHER:
            parts = range(0, len(ranks), _TOGETHER)
            return np.concatenate([self.take(ranks[first : first + _TOGETHER]) for first in parts])
        block = np.searchsorted(self._before, ranks, side="right") - 1
        rest = ranks - self._before[block]  # how many of the block stand in front
        at = np.arange(len(ranks))
        words = self._words.reshape(-1, _BLOCK_WORDS)[block]  # u64[n, _BLOCK_WORDS]
        word, rest = _find(np.bitwise_count(words), rest)
        octets = words[at, word, None].astype("<u8", copy=False).view(np.uint8)  # u8[n, 8]
        octet, rest = _find(np.bitwise_count(octets), rest)
        return block * _BLOCK_BITS + word * 64 + octet * 8 + _BITS_OF[octets[at, octet], rest]

    def num_below(self, numbers: Integers) -> Integers:
        """Return how many are less than each of `numbers` i64[n]."""
        if self._words is None:
            assert self._ids is not None
            return np.searchsorted(self._ids, numbers)
        numbers = np.minimum(numbers, self.stop)
        block = numbers // _BLOCK_BITS
        words = np.append(self._words, np.zeros(_BLOCK_WORDS, np.uint64)).reshape(-1, _BLOCK_WORDS)[block]
        bits = np.unpackbits(words.astype("<u8").view(np.uint8), axis=1, bitorder="little")
        counts = (bits * (np.arange(_BLOCK_BITS) < (numbers % _BLOCK_BITS)[:, None])).sum(1, dtype=np.int64)
        return self._before[block] + counts

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdSet) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __reduce__(self) -> tuple[Any, ...]:
        return IdSet.from_bytes, (self.kind, self.to_bytes())


def _find(counts: NDArray[np.uint8], rest: Integers) -> tuple[Integers, Integers]:
    """Return in which entry of each row of counts the `rest`-th one lies, and how many of it stand in front."""
    sums = np.cumsum(counts, axis=1, dtype=np.uint16)
    entry = (sums <= rest[:, None].astype(np.uint16)).sum(axis=1, dtype=np.int64)
    rows = np.arange(len(sums))
    return entry, rest - sums[rows, entry] + counts[rows, entry]


def _is_less_in_bits(num_ids: int, stop: int) -> bool:
    return stop <= 32 * num_ids
