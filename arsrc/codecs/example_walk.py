"""A walk through many `tf.train.Example` records at once: over what comes next in each, by heads that are alike."""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from arsrc.codecs.example_heads import ABSENT, FLOATS, INTEGERS, MAX_HEAD_BYTES, SEVERAL, Head, value_head
from arsrc.codecs.pieces import pieces
from arsrc.codecs.varints import are_whole

MAX_STEPS = 256
"""Entries of a record, and bytes values of an entry."""
FEW = 8
"""Records for which a head is not worth being learned."""

Rows = slice | NDArray[np.int64]


class Spans(NamedTuple):
    """Where one feature lies in each of some records.

    Attributes:
        kinds: u8[n], what is there.
        begins: i64[n], where the payload begins in the data.
        lengths: i64[n], its bytes.
    """

    kinds: NDArray[np.uint8]
    begins: NDArray[np.int64]
    lengths: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> "Spans":
        """Return the spans of some of the records."""
        return Spans(self.kinds[rows], self.begins[rows], self.lengths[rows])


class Walk:
    """Where a walk through all records, or through one entry of each, stands."""

    def __init__(
        self,
        data: NDArray[np.uint8],
        begins: NDArray[np.int64],
        ends: NDArray[np.int64],
        names: Mapping[bytes, int],
        max_misses: int,
    ) -> None:
        self.at, self.ends = begins.copy(), ends
        self.is_fine = np.ones(len(begins), np.bool_)
        self.is_of_other_keys = False
        self.spans: dict[int, Spans] = {}
        self._data, self._names, self._max_misses = data, names, max_misses
        self._head_bytes = MAX_HEAD_BYTES + max(map(len, names), default=0)

    def go(self, parse: Callable[[bytes], Head | None], max_steps: int) -> None:
        """Go on to the ends of all records."""
        for _ in range(max_steps):
            if not self.step(parse):
                return
        self.is_fine &= self.at == self.ends

    def step(self, parse: Callable[[bytes], Head | None], is_of_one_key: bool = False) -> bool:
        """Step over what comes next in all records that are not at their ends; return whether there are any.

        If it has to be of one key, and is not, it is left there.
        """
        is_left = self.is_fine & (self.at < self.ends)
        num_left = num_any = int(np.count_nonzero(is_left))
        # All of them as a slice, which makes views, sooner than copies are made.
        rows: Rows = slice(None) if num_left == len(is_left) else np.flatnonzero(is_left)
        misses, key = 0, b""
        while num_left and misses < self._max_misses:
            at, ends = self.at[rows], self.ends[rows]
            begin, end = int(at[0]), int(ends[0])
            head = parse(self._data[begin : min(begin + self._head_bytes, end)].tobytes())
            if head is None or begin + head.total > end or head.record_bytes not in (None, end - begin):
                misses += 1
                rows = np.arange(len(is_left))[rows]
                self.is_fine[rows[0]] = False
                rows = rows[1:]
                num_left -= 1
                continue
            if is_of_one_key and head.key != (key := key or head.key):
                self.is_of_other_keys = True
                return True
            matched, totals = _match(head, self._data, at, ends)
            num_matched = int(np.count_nonzero(matched))
            num_left -= num_matched
            if not num_left:
                self._take(head, rows, totals)
                break
            misses += num_matched < FEW
            rows = np.arange(len(is_left))[rows]
            self._take(head, rows[matched], totals[matched])
            rows = rows[~matched]
        if num_left:
            self.is_fine[rows] = False
        return bool(num_any)

    def _take(self, head: Head, rows: Rows, totals: NDArray[np.int64]) -> None:
        """Step over an entry; look whether the payload is whole, and keep where it is."""
        num_bytes = len(head.content)
        begins, lengths = self.at[rows] + num_bytes, totals - num_bytes
        self.at[rows] += totals
        if head.kind == FLOATS:
            self.is_fine[rows] &= lengths % 4 == 0
        if head.kind == INTEGERS and not head.is_fixed:
            self.is_fine[rows] &= are_whole(self._data, begins, lengths)
        number = self._names.get(head.key)
        if head.kind == SEVERAL:
            self.is_fine[rows] &= number is None and self._are_values(begins, begins + lengths)
        if number is None:
            return
        if number not in self.spans and len(begins) == len(self.at):
            self.spans[number] = Spans(np.full(len(begins), head.kind, np.uint8), begins, lengths)
            return
        spans = self.spans_of(number)
        self.is_fine[rows] &= spans.kinds[rows] == ABSENT  # else the key comes twice
        spans.kinds[rows], spans.begins[rows], spans.lengths[rows] = head.kind, begins, lengths

    def _are_values(self, begins: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which payloads are bytes values, end to end; bool[n]."""
        walk = Walk(self._data, begins, ends, {}, self._max_misses)
        walk.go(value_head, MAX_STEPS)
        return walk.is_fine

    def spans_of(self, number: int) -> Spans:
        """Return the spans of a feature, as far as they are known."""
        if number not in self.spans:
            places = np.zeros((2, len(self.at)), np.int64)
            self.spans[number] = Spans(np.zeros(len(self.at), np.uint8), *places)
        return self.spans[number]


def _match(
    head: Head, data: NDArray[np.uint8], at: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return which records go on with a like head, and how many bytes it and its payload take, i64[n].

    A head is like another one if it differs in lengths alone, none of them takes another number of bytes, and all of
    them end at the same place, which lies in the record; but for the record's own length, which ends where that does.
    """
    num_bytes = len(head.content)
    # Those whose records end before that match nothing: no total is less than the bytes of the head.
    found = pieces(data, np.minimum(at, len(data) - num_bytes), num_bytes)
    if found.tobytes() == head.content * len(at):
        matched = at + head.total <= ends
        if head.record_bytes is not None:
            matched &= at + head.record_bytes == ends
        return matched, np.full(len(at), head.total)
    found = found.reshape(len(at), num_bytes)
    mask, columns, weights, constants = _masks(num_bytes, head.lengths)
    # Where the lengths end; as floats of 64 bits, exact here, since NumPy multiplies no integers as fast.
    sums = weights @ found[:, columns].astype(np.float64).T + constants  # f64[num_lengths, n]
    totals = sums[-1].astype(np.int64)
    matched = at + totals <= ends
    if head.record_bytes is not None:
        matched &= at + sums[0] == ends
        sums = sums[1:]
    for sum_of_one in sums[:-1]:
        matched &= sum_of_one == sums[-1]
    like, content = found & mask, np.frombuffer(head.content, np.uint8) & mask
    if like.tobytes() != content.tobytes() * len(at):
        matched &= (like == content).all(1)
    if head.is_fixed:
        matched &= totals == num_bytes
    return matched, totals


@functools.lru_cache(256)
def _masks(
    num_bytes: int, lengths: tuple[tuple[int, int], ...]
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Return which bits of a head are the same in all like ones, and what makes ends of the bytes of the lengths."""
    mask = np.full(num_bytes, 0xFF, np.uint8)
    columns = np.array([column for begin, end in lengths for column in range(begin, end)])
    mask[columns] = 0x80
    weights = np.zeros((len(lengths), len(columns)))
    constants = np.zeros((len(lengths), 1))
    column = 0
    for number, (begin, end) in enumerate(lengths):
        constants[number] = end
        for place in range(end - begin):
            weights[number, column] = 1 << 7 * place
            constants[number] -= 0x80 << 7 * place if begin + place + 1 < end else 0  # these say that it goes on
            column += 1
    return mask, columns, weights, constants
