"""Copying records out of mapped files: from logical positions in a range of blocks to one array of bytes.

The record bytes of a file lie end to end but for block headers. So a record is copied as if no header cut it,
which NumPy does for many at once, and the few that one does cut are put right afterwards.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from arsrc._host.format.layout import BLOCK_BYTES, BLOCK_HEADER_BYTES, STREAM_BYTES, to_physical

# From here on the copy itself takes so long that a call for each record no longer counts.
LARGE_RECORD_BYTES = 16_384

_SLAB_BYTES = 1 << 18  # copied twice, the first time into the cache
_GIL_ROWS = 512  # NumPy releases the GIL above 500 indices
_GIL_SLAB_BYTES = 1 << 20
_JOIN_BYTES = 1 << 18


def gather_equal(
    data: NDArray[np.uint8], begins: NDArray[np.int64], length: int, out: NDArray[np.uint8] | None
) -> NDArray[np.uint8]:
    """Copy records of one length, at most `STREAM_BYTES`, out of a range of blocks.

    Args:
        data: u8[range_bytes], whole files.
        begins: i64[n], physical positions of the records.
        length: Bytes of each record.
        out: u8[>= n * length] to write into, or None for a new array.

    Returns:
        u8[n * length], the beginning of `out` where that is given.
    """
    num_rows = len(begins)
    if not num_rows * length:
        return np.empty(0, np.uint8) if out is None else out[:0]
    row: Any = np.dtype((np.void, length))
    # One element at every byte: an index is a position, and an element the record that begins there.
    source = np.ndarray((len(data) - length + 1,), row, data, strides=(1,))
    if out is None:
        result: NDArray[np.uint8] = source[begins].view(np.uint8)
    else:
        result = out[: num_rows * length]
        rows = result.view(row)
        slab = slab_rows(num_rows, length)
        for first in range(0, num_rows, slab):
            rows[first : first + slab] = source[begins[first : first + slab]]
    cut = np.flatnonzero((begins & (BLOCK_BYTES - 1)) > BLOCK_BYTES - length)
    for index, begin in zip(cut.tolist(), begins[cut].tolist(), strict=True):
        head = -begin % BLOCK_BYTES  # bytes in front of the block header
        behind = begin + head + BLOCK_HEADER_BYTES
        result[index * length + head : (index + 1) * length] = data[behind : behind + length - head]
    return result


def slab_rows(num_rows: int, length: int) -> int:
    """Return how many of so many rows to copy at once."""
    if num_rows >= _GIL_ROWS and _GIL_ROWS * length <= _GIL_SLAB_BYTES:
        return max(_GIL_ROWS, _SLAB_BYTES // length)
    return max(1, _SLAB_BYTES // length)


def gather_ragged(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    offsets: NDArray[np.int64],
    out: NDArray[np.uint8] | None,
) -> NDArray[np.uint8]:
    """Copy records of any lengths out of a range of blocks.

    Args:
        data: u8[range_bytes], whole files.
        starts: i64[n], logical positions of the records.
        offsets: i64[n + 1], where each record shall stand.
        out: u8[>= offsets[n]] to write into, or None for a new array.

    Returns:
        u8[offsets[n]], the beginning of `out` where that is given; else it may be read-only.
    """
    num_rows, num_bytes = len(starts), int(offsets[-1])
    if out is None and num_bytes <= _JOIN_BYTES:
        return np.frombuffer(_join(data, starts, np.diff(offsets)), np.uint8)
    result = np.empty(num_bytes, np.uint8) if out is None else out[:num_bytes]
    slab = max(1, _JOIN_BYTES * num_rows // max(num_bytes, 1))
    for first in range(0, num_rows, slab):
        bounds = offsets[first : first + slab + 1]
        joined = _join(data, starts[first : first + slab], np.diff(bounds))
        result[bounds[0] : bounds[-1]] = np.frombuffer(joined, np.uint8)
    return result


def _join(data: NDArray[np.uint8], starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> bytes:
    begins = to_physical(starts)
    memory = data.data
    ends = (begins + lengths).tolist()
    records: list[Any] = [memory[b:e] for b, e in zip(begins.tolist(), ends, strict=True)]
    cut = np.flatnonzero(starts % STREAM_BYTES > STREAM_BYTES - lengths)
    if len(cut):
        rows, piece_begins, sizes = pieces(starts[cut], lengths[cut])
        for row in cut.tolist():
            records[row] = b""
        columns = cut[rows], piece_begins, piece_begins + sizes
        for row, begin, end in zip(*(column.tolist() for column in columns), strict=True):
            records[row] += memory[begin:end]
    return b"".join(records)


def scatter(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    out: NDArray[np.uint8],
    places: NDArray[np.int64],
) -> None:
    """Copy runs of bytes out of a range of blocks, each to a place of its own; between them stands anything then.

    Args:
        data: u8[range_bytes], whole files.
        starts: i64[n], logical positions of the runs.
        lengths: i64[n], bytes of each.
        out: u8[...] to write into, contiguous.
        places: i64[n], where in it each run shall begin; ascending, one behind the other.
    """
    begins = to_physical(starts)
    cut = np.flatnonzero(starts % STREAM_BYTES > STREAM_BYTES - lengths)
    if len(cut):
        rows, cut_begins, sizes = pieces(starts[cut], lengths[cut])
        before = np.cumsum(sizes) - sizes
        cut_places = places[cut][rows] + before - before[np.searchsorted(rows, rows)]
        places, begins, lengths = (
            np.concatenate((np.delete(whole, cut), parts))
            for whole, parts in ((places, cut_places), (begins, cut_begins), (lengths, sizes))
        )
        order = np.argsort(places, kind="stable")
        places, begins, lengths = places[order], begins[order], lengths[order]
    copy_runs(data, begins, lengths, out, places)


def copy_runs(
    data: NDArray[np.uint8],
    begins: NDArray[np.int64],
    lengths: NDArray[np.int64],
    out: NDArray[np.uint8],
    places: NDArray[np.int64],
) -> None:
    """Do what `scatter` does, with physical positions of runs that no block header cuts."""
    if not len(places):
        return
    ends = places + lengths
    gaps = np.append(places[1:], ends[-1]) - ends
    gap_rows = np.flatnonzero(gaps)
    # Copied twice, the first time into the cache: quicker than each to its place.
    slab = max(1, _JOIN_BYTES * len(places) // max(int(ends[-1] - places[0]), 1))
    for first in range(0, len(places), slab):
        last = min(first + slab, len(places))
        memory = data.data
        bounds = zip(begins[first:last].tolist(), (begins + lengths)[first:last].tolist(), strict=True)
        runs: list[Any] = [memory[begin:end] for begin, end in bounds]
        some = gap_rows[np.searchsorted(gap_rows, first) : np.searchsorted(gap_rows, last)]
        for number, row in enumerate(some.tolist()):
            runs.insert(row - first + 1 + number, bytes(gaps[row]))
        joined = np.frombuffer(b"".join(runs), np.uint8)
        out[places[first] : places[first] + len(joined)] = joined


def pieces(
    starts: NDArray[np.int64], lengths: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Cut logical ranges at block headers: rows, physical begins and lengths, in order."""
    firsts = starts // STREAM_BYTES
    counts = (starts + lengths - 1) // STREAM_BYTES - firsts + 1
    rows = np.repeat(np.arange(len(starts)), counts)  # i64[num_pieces]
    blocks = np.arange(len(rows)) + np.repeat(firsts - np.cumsum(counts) + counts, counts)
    begins = np.maximum(starts[rows], blocks * STREAM_BYTES)
    ends = np.minimum((starts + lengths)[rows], (blocks + 1) * STREAM_BYTES)
    return rows, begins + BLOCK_HEADER_BYTES * (blocks + 1), ends - begins
