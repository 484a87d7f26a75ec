"""Where the values of `tf.train.Example` records lie: all records of a batch are walked at once.

What stands before a payload, its head, is the same in most records, but for the lengths in it. So the head in one
record is parsed in Python, and all records that go on with a like one are taken with it by array operations; then
those that are left by a head of theirs, and so on, entry by entry; where keys come in any order, all entries of one key
together. All lengths are checked against each other, and
every payload is looked through, asked for or not: what passes, `protobuf` reads, and reads the same way. What does not
pass may still be an Example, in another form: `protobuf` knows.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from arsrc.codecs.example_heads import ABSENT, ENTRY_TAG, MAX_LENGTH_BYTES, entry_head, first_head
from arsrc.codecs.example_walk import FEW, MAX_STEPS, Spans, Walk
from arsrc.codecs.varints import WORD_BYTES, words_at

_MAX_MISSES = 4  # so many heads of few records are learned all the same
_ODD = np.uint64(0x9E3779B97F4A7C15)  # so that sums of what differs differ, as a rule


def find_spans(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], names: Mapping[bytes, int], one_by_one: bool = False
) -> tuple[NDArray[np.bool_], list[Spans]]:
    """Return which records were understood, bool[num_records], and where each feature lies in these.

    Args:
        data: u8[...]
        offsets: i64[num_records + 1], where the records begin and end in `data`.
        names: Numbers the features that are asked for, by name.
        one_by_one: Whether each record is understood by heads of its own, if need be: what is read of it then does not
            depend on the records beside it. Else those that few records share are given up where there are many.
    """
    walk = Walk(data, offsets[:-1], offsets[1:], names, len(offsets) if one_by_one else _MAX_MISSES)
    walk.step(first_head, is_of_one_key=not one_by_one)
    if walk.is_of_other_keys:
        return _in_any_order(data, offsets, names)
    walk.go(entry_head, max(MAX_STEPS, len(names)))
    return walk.is_fine, [walk.spans_of(number) for number in names.values()]


def _in_any_order(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], names: Mapping[bytes, int]
) -> tuple[NDArray[np.bool_], list[Spans]]:
    """Return what `find_spans` does where the order differs: entries of one key are taken as if they were records."""
    is_fine, rows, begins, ends = _entries(data, offsets)
    found = Walk(data, offsets[:-1], offsets[1:], names, 0)
    misses = 0
    for group in _alike(data, begins):
        walk = Walk(data, begins[group], ends[group], names, _MAX_MISSES)
        misses += len(group) < FEW
        if misses <= _MAX_MISSES * FEW:
            walk.go(entry_head, 1)
            is_fine[rows[group[~walk.is_fine]]] = False
        else:
            is_fine[rows[group]] = False
        for number, of_entries in walk.spans.items():
            held, spans = np.flatnonzero(of_entries.kinds != ABSENT), found.spans_of(number)
            places = rows[group[held]]
            is_fine &= np.bincount(places, minlength=len(is_fine)) + (spans.kinds != ABSENT) < 2  # else it comes twice
            spans.kinds[places], spans.begins[places], spans.lengths[places] = of_entries.take(held)
    return is_fine, [found.spans_of(number) for number in names.values()]


def _alike(data: NDArray[np.uint8], begins: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the numbers of entries in groups; those of one key are in one, as a rule with no others."""
    last = len(data) - WORD_BYTES
    keys, _ = _nested(data, begins, np.full(len(begins), len(data)))
    lengths = data[np.minimum(keys + 1, len(data) - 1)].astype(np.int64)  # of most keys
    # The first and the last bytes of a key, and none beside it, where other lengths are.
    marks = words_at(data, np.minimum(keys, last)) << (64 - 8 * np.minimum(lengths + 2, 8)).astype(np.uint64)
    marks += np.where(lengths < 8, 0, words_at(data, np.clip(keys + lengths - 6, 0, last))) * _ODD
    order = np.argsort(marks, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(marks[order])) + 1)


def _entries(
    data: NDArray[np.uint8], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return which records are made of entries, as it seems, and of each entry its record, its begin and its end."""
    stops = offsets[1:]
    at, ends = _nested(data, offsets[:-1], stops)
    is_fine = ends == stops
    found = []
    rows = np.arange(len(stops))
    for _ in range(MAX_STEPS):
        rows = rows[is_fine[rows] & (at[rows] < stops[rows])]
        if not len(rows):
            break
        begins = at[rows]
        _, ends = _nested(data, begins, stops[rows])
        at[rows] = ends
        is_fine[rows] = ends > begins
        found.append((rows, begins, ends))
    is_fine[rows] = False
    all_rows, all_begins, all_ends = (np.concatenate(parts) for parts in zip(*found, strict=True))
    is_kept = is_fine[all_rows]
    return is_fine, all_rows[is_kept], all_begins[is_kept], all_ends[is_kept]


def _nested(
    data: NDArray[np.uint8], at: NDArray[np.int64], stops: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return begins and ends of what stands behind the tag of an entry and its length; ends are 0 where none does."""
    last = len(data) - 1
    begins, lengths = at + 2, data[np.minimum(at + 1, last)].astype(np.int64)
    for place in range(1, MAX_LENGTH_BYTES):
        goes_on = np.flatnonzero(lengths >> 7 * place)
        if not len(goes_on):
            break
        # Less the bit that says so.
        lengths[goes_on] += (data[np.minimum(begins[goes_on], last)].astype(np.int64) - 1) << 7 * place
        begins[goes_on] += 1
    ends = begins + lengths
    is_nested = (data[np.minimum(at, last)] == ENTRY_TAG) & (lengths < 1 << 7 * MAX_LENGTH_BYTES) & (ends <= stops)
    return begins, np.where(is_nested, ends, 0)
