"""Varints: integers of seven bits a byte, the lowest first; many at once."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arsrc.codecs.pieces import end_to_end, pieces

_MAX_BYTES = 10  # of a varint of 64 bits, the last of which holds the highest bit alone
WORD_BYTES = 8
_PART_BYTES = 1 << 14  # of varints that are looked through at once
_PART_VALUES = 1 << 12  # varints that are decoded at once, by arrays of up to eight times as many bytes as they have
_KEPT = np.array([(1 << 8 * width) - 1 for width in range(9)], np.uint64)  # the bytes of varints, by their number
_GOES_ON = 0x8080808080808080
_FOUR_GO_ON = np.uint32(0x80808080)
# By the same, the highest bit of each byte but the last one; nothing is no varint.
_GOING_ON = np.array([1] + [_GOES_ON & ((1 << 8 * width - 8) - 1) for width in range(1, 9)], np.uint64)


def are_whole(data: NDArray[np.uint8], begins: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which pieces of `data` are whole varints of at most 64 bits, perhaps none; bool[num_pieces]."""
    whole: NDArray[np.bool_] = data[begins + lengths - 1] < 0x80
    if np.count_nonzero(whole) < len(whole):
        whole |= lengths == 0
    if np.count_nonzero(lengths < _MAX_BYTES) == len(lengths):
        return whole
    content = end_to_end(data, begins, lengths)
    if not any(map(_goes_on_long, (content[at : at + _PART_BYTES + 7] for at in range(0, len(content), _PART_BYTES)))):
        return whole
    bounds, at = np.cumsum(lengths), 0
    for part in _parts(content):
        ends = np.flatnonzero(part < 0x80)
        widths = np.diff(ends, prepend=-1)
        wrong = ends[(widths > _MAX_BYTES) | ((widths == _MAX_BYTES) & (part[ends] > 1))]
        whole[np.searchsorted(bounds, wrong + at, "right")] = False
        at += len(part)
    return whole


def varint_values(
    data: NDArray[np.uint8], begins: NDArray[np.int64], lengths: NDArray[np.int64]
) -> tuple[NDArray[np.int64], Iterable[NDArray[Any]]]:
    """Return how many varints are in each of some pieces of `data` that are whole, i64[num_pieces], and their values.

    The values come in parts, one behind the other, of which each is small enough for the processor's cache.
    """
    if np.count_nonzero(lengths == 1) == len(lengths):
        return lengths, [data[begins]]
    if int(lengths.max()) <= WORD_BYTES <= len(data):
        # Mostly one to a piece.
        places = np.minimum(begins, len(data) - WORD_BYTES)
        words = words_at(data, places) >> (8 * (begins - places)).astype(np.uint64) & _KEPT[lengths]
        if np.count_nonzero(words & np.uint64(_GOES_ON) == _GOING_ON[lengths]) == len(words):
            return np.ones(len(words), np.int64), [_values(words, WORD_BYTES).view(np.int64)]
    content = end_to_end(data, begins, lengths)
    ends = np.flatnonzero(content < 0x80)
    counts = np.diff(np.searchsorted(ends, np.cumsum(lengths)), prepend=0)
    if len(ends) == len(content):
        return counts, [content] if len(content) else []
    return counts, _values_in_parts(content, ends)


def _goes_on_long(content: NDArray[np.uint8]) -> bool:
    """Whether eight bytes in a row say that their varint goes on."""
    words = content[: len(content) & ~3].view("<u4") & _FOUR_GO_ON  # of which one lies in any such eight
    if not np.count_nonzero(words == _FOUR_GO_ON):
        return False
    goes_on = content >= 0x80
    for step in (1, 2, 4):
        goes_on = goes_on[:-step] & goes_on[step:]
    return bool(np.count_nonzero(goes_on))


def _parts(content: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """Yield varints that lie end to end some thousands at a time."""
    at = 0
    while at < len(content):
        end, window = at + _PART_BYTES, _MAX_BYTES
        while end < len(content) and content[end - 1] >= 0x80:
            stops = content[end : end + window] < 0x80
            end += int(stops.argmax()) + 1 if stops.any() else len(stops)
            window *= 2
        yield content[at:end]
        at = end


def _values_in_parts(content: NDArray[np.uint8], ends: NDArray[np.int64]) -> Iterator[NDArray[Any]]:
    """Yield the values of varints that lie end to end, by where each ends, some thousands at a time."""
    begin = 0
    for first in range(0, len(ends), _PART_VALUES):
        part_ends = ends[first : first + _PART_VALUES]
        end = int(part_ends[-1]) + 1
        yield _part_values(content[begin:end], part_ends - begin)
        begin = end


def _part_values(content: NDArray[np.uint8], ends: NDArray[np.int64]) -> NDArray[Any]:
    """Return the values of varints that lie end to end, by where each ends."""
    firsts = np.concatenate(([0], ends[:-1] + 1))
    widths = ends - firsts + 1
    widest = int(widths.max())
    if widest <= 4:
        return _short_values(content, widest)[firsts]
    behind = np.concatenate((content, np.zeros(WORD_BYTES, np.uint8)))
    values = _values(words_at(behind, firsts) & _KEPT[np.minimum(widths, WORD_BYTES)], widest).view(np.int64)
    for place in range(WORD_BYTES, widest):
        rows = np.flatnonzero(widths > place)
        values[rows] |= (content[firsts[rows] + place] & 0x7F).astype(np.int64) << 7 * place
    return values


def _short_values(content: NDArray[np.uint8], widest: int) -> NDArray[Any]:
    """Return the value of what goes on from each byte to the end of its varint, none of them of more than 4 bytes."""
    signed: Any = np.int16 if widest <= 2 else np.int32
    own = (content & 0x7F).astype(signed)
    goes_on = (content.view(np.int8) >> 7).astype(signed)[:-1]  # all bits or none
    values = own.copy()
    for _ in range(widest - 1):  # each time, those become right that have one byte more
        rest = values[1:] << signed(7)
        rest &= goes_on
        rest |= own[:-1]
        values[:-1] = rest
    return values


def packed_varints(values: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return integers as varints, one behind the other, and the bytes of each, i64[n]."""
    rest = values.astype(np.int64).view(np.uint64)
    if not len(rest) or int(rest.max()) < 0x80:
        return rest.astype(np.uint8), np.ones(len(rest), np.int64)
    table = np.zeros((len(rest), _MAX_BYTES), np.uint8)
    widths = np.ones(len(rest), np.int64)
    for place in range(_MAX_BYTES):
        table[:, place] = (rest & np.uint64(0x7F)).astype(np.uint8)
        rest = rest >> np.uint64(7)
        goes_on = rest != 0
        table[goes_on, place] |= 0x80
        widths += goes_on
    return table[np.arange(_MAX_BYTES) < widths[:, None]], widths


def words_at(data: NDArray[np.uint8], begins: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return the eight bytes at some places of `data`; u64[n]."""
    words: NDArray[np.uint64] = pieces(data, begins, WORD_BYTES).view("<u8")
    return words


def _values(words: NDArray[Any], widest: int) -> NDArray[Any]:
    """Return the values of varints, given as words, zeros behind their ends; of the words' dtype."""
    word = words.dtype.type
    for num_bytes, mask in ((1, 0x007F007F007F007F), (2, 0x00003FFF00003FFF), (4, 0x000000000FFFFFFF)):
        if widest > num_bytes:
            # Of each two neighbours of so many bytes, the bits of the higher are brought next to those of the lower.
            mask = word(mask & np.iinfo(words.dtype).max)
            words = words & mask | (words >> word(8 * num_bytes) & mask) << word(7 * num_bytes)
    return words
