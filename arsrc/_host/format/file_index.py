"""Where the records of one file lie, if it is of the kind that can be read from a map.

That kind is: uncompressed, not transposed, of any group size, with a footer that agrees with the chunks and
with what array_record's own reader says. Any surprise means no index: the official reader then reads the
file, or fails with an error of its own.
"""

import contextlib
import dataclasses
import os

import numpy as np
from numpy.typing import NDArray

from arsrc._host.format.footer import Chunks, Footer, read_chunks, read_footer, spans_of_values, values_of_spans
from arsrc._host.format.groups import index_groups
from arsrc._host.format.layout import (
    CHUNK_HEADER_BYTES,
    LayoutError,
    parse_chunk_header,
    physical,
    read_stream,
)
from arsrc._host.format.places import Groups, Places, Spans, Uniform
from arsrc._host.storage.address_range import AddressRange
from arsrc._host.storage.open_file import OpenFile
from arsrc._host.storage.stamps import FileStamp

_NUM_HEADERS = 8  # chunk headers looked at, but for one, where the footer tells all


@dataclasses.dataclass(frozen=True, eq=False)
class FileIndex:
    """Where the records of one file lie.

    Attributes:
        path: The file, absolute.
        stamp: What it was when it was indexed.
        places: Where they lie: at most 8 bytes a record.
    """

    path: str
    stamp: FileStamp
    places: Places


def file_index(path: str, num_records: int) -> FileIndex | None:
    """Index one file, or return None where only the official reader can read it.

    Args:
        path: An ArrayRecord file.
        num_records: What array_record's own reader says, after its `ok()`: it has checked the footer's hash.
    """
    path = os.path.abspath(path)
    try:
        with contextlib.closing(OpenFile(path)) as file:
            stamp = file.stamp()
            footer = read_footer(file, stamp.num_bytes)
            if footer.num_records != num_records:
                return None
            return FileIndex(path, stamp, _places(file, stamp, footer))
    except (OSError, LayoutError):
        return None


def _places(file: OpenFile, stamp: FileStamp, footer: Footer) -> Places:
    if footer.num_chunks == footer.num_records:
        begins = _single_begins(file, footer)
        if begins is not None:
            _check_headers(file, begins)
            return _uniform_singles(begins) or Spans(begins)
    chunks = Chunks(*map(np.concatenate, zip(*read_chunks(file, footer), strict=True)))
    area = AddressRange.of_files({file.path: stamp}, random_access=False)
    if area is None:
        raise LayoutError("files cannot be mapped here")
    groups = index_groups(area, chunks, footer.begin)
    return _uniform_groups(groups, int(chunks.counts[0])) or groups


def _single_begins(file: OpenFile, footer: Footer) -> NDArray[np.int64] | None:
    """Return where chunks of one record each begin, and the footer; None if they do not lie end to end."""
    begins = np.empty(footer.num_chunks + 1, np.int64)
    begins[-1] = expected = footer.begin
    row = 0
    for chunks in read_chunks(file, footer):
        if (chunks.counts != 1).any():
            raise LayoutError("chunks differ in their number of records")
        behind = chunks.begins + spans_of_values(chunks.decoded_sizes)
        if (row and chunks.begins[0] != expected) or (chunks.begins[1:] != behind[:-1]).any():
            return None
        begins[row : row + len(behind)] = chunks.begins
        row += len(behind)
        expected = int(behind[-1])
    return begins if expected == footer.begin else None


def _check_headers(file: OpenFile, begins: NDArray[np.int64]) -> None:
    """Look whether some chunks, spread over the file, are what the footer says."""
    last = len(begins) - 2
    # Few in a small file: of those there may be ten thousand.
    num_steps = min(_NUM_HEADERS, 1 + (last >> 13))
    rows = sorted({last * step // num_steps for step in range(num_steps + 1)}) if last >= 0 else []
    spans = begins[1:][rows] - begins[rows]
    columns = begins[rows].tolist(), spans.tolist(), values_of_spans(spans).tolist()
    for begin, span, value in zip(*columns, strict=True):
        data = read_stream(file, physical(begin), CHUNK_HEADER_BYTES + 1)
        header = parse_chunk_header(data)
        if (header.kind, header.num_records, header.decoded_size) != ("r", 1, value) or data[-1]:
            raise LayoutError("a chunk is compressed, transposed, or not what the footer says")
        if header.data_size != span - CHUNK_HEADER_BYTES:
            raise LayoutError("a chunk has another size than its records")


def _uniform_singles(begins: NDArray[np.int64]) -> Uniform | None:
    num_records = len(begins) - 1
    if not num_records:
        return Uniform(0, 1, 0, 0)
    span = int(begins[1] - begins[0])
    # The first comparison spares the second one an array for most files of other kinds.
    if begins[-1] - begins[0] != span * num_records or (np.diff(begins) != span).any():
        return None
    length = int(values_of_spans(np.array([span]))[0])
    return Uniform(length, 1, int(begins[1]) - length, span)


def _uniform_groups(groups: Groups, group_size: int) -> Uniform | None:
    begins, within = groups.begins, groups.within
    full = (len(begins) - 2) * group_size  # records in front of the last chunk
    span = int(begins[1] - begins[0])
    length = span - int(within[min(group_size, len(within)) - 1])
    steps = np.arange(group_size) * length
    last = within[full:]
    if (
        groups.ends is not None
        or (np.diff(begins[:-1]) != span).any()
        or (within[:full].reshape(-1, group_size) != within[0] + steps).any()
        or (last != last[0] + steps[: len(last)]).any()
        or begins[-1] - begins[-2] != last[-1] + length
    ):
        return None
    first, shift = int(begins[0]) + int(within[0]), int(within[0]) - int(last[0])
    return Uniform(length, group_size, first, span, len(begins) - 2, shift)
