"""Where the records of files lie, of those that can be read from a map.

These are: not transposed, of any group size, uncompressed or compressed in a way that can be decoded here, with a
footer that agrees with the chunks. What is in a footer of uncompressed ones stands there twice, in positions and in
sizes, so that one which is damaged does not agree with itself. Any surprise means no index: array_record's own reader
then reads the file, or fails with an error of its own.
"""

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from arsrc._host.format.chunked import Chunked
from arsrc._host.format.compressed_index import index_compressed
from arsrc._host.format.footer import (
    Chunks,
    CompressedError,
    Footer,
    parse_entries,
    read_chunks,
    read_footer,
    spans_of_values,
    values_of_spans,
)
from arsrc._host.format.groups import index_groups
from arsrc._host.format.layout import (
    CHUNK_HEADER_BYTES,
    FIRST_CHUNK,
    LayoutError,
    logical,
    parse_chunk_header,
    parse_varint,
    physical,
    read_stream,
    varint_size,
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
        path: The file.
        stamp: What it was when it was indexed.
        num_records: Records in it.
        places: Where they lie: at most 8 bytes a record; of compressed files where chunks do, at most 16 bytes each.
    """

    path: str
    stamp: FileStamp
    num_records: int
    places: Places | Chunked

    @property
    def group_size(self) -> int:
        """Records in each chunk but the last one."""
        size = 1 if isinstance(self.places, Spans) else self.places.group_size
        assert isinstance(size, int)
        return size


class _Small(NamedTuple):
    """A file of one record to a chunk, as it seems, whose entries were read with the head of its footer."""

    path: str
    stamp: FileStamp
    footer: Footer


def index_files(paths: Sequence[str]) -> list[FileIndex | None]:
    """Index files; None stands for one that only the official reader can read.

    The footers of small files are parsed together, since NumPy takes as long for one as for some.
    """
    found = [_index(path, keep_small=True) for path in paths]
    small = [one for one in found if isinstance(one, _Small)]
    indices: list[Any]
    try:
        indices = _index_small(small)
    except LayoutError:  # one of them is of another kind
        indices = [_index(one.path, keep_small=False) for one in small]
    rest = iter(indices)
    return [next(rest) if isinstance(one, _Small) else one for one in found]


def _index(path: str, keep_small: bool) -> FileIndex | _Small | None:
    try:
        with contextlib.closing(OpenFile(path)) as file:
            stamp = file.stamp()
            try:
                footer = read_footer(file, stamp.num_bytes)
            except CompressedError:
                return FileIndex(path, stamp, *index_compressed(file, stamp.num_bytes))
            is_small = 0 < footer.entries_bytes == len(footer.some_entries)
            if keep_small and is_small and footer.num_chunks == footer.num_records:
                begin, size = parse_varint(footer.some_entries, 1)
                if logical(begin) >= footer.begin:
                    raise LayoutError("a chunk lies behind the footer")
                _check_header(file, logical(begin), parse_varint(footer.some_entries, size + 1)[0])
                return _Small(path, stamp, footer)
            return FileIndex(path, stamp, footer.num_records, _places(file, stamp, footer))
    except (OSError, LayoutError):
        return None


def _index_small(files: Sequence[_Small]) -> list[FileIndex]:
    """Index files of one record to a chunk, which lie end to end; it is an error if one of them is none."""
    if not files:
        return []
    data = b"".join(file.footer.some_entries for file in files)
    chunks, ends = parse_entries(np.frombuffer(data, np.uint8))
    stops = np.cumsum([file.footer.num_chunks for file in files])
    firsts = np.concatenate(([0], stops[:-1]))
    if ends[-1:] != len(data) or len(ends) != stops[-1] or (chunks.counts != 1).any():
        raise LayoutError("a footer lists other chunks than it counts")
    spans = spans_of_values(chunks.decoded_sizes)
    behind = np.append(chunks.begins[1:], 0)
    behind[stops - 1] = [file.footer.begin for file in files]
    if (chunks.begins + spans != behind).any() or chunks.begins[firsts].min() < logical(FIRST_CHUNK):
        raise LayoutError("chunks do not lie end to end")
    is_uniform = np.minimum.reduceat(spans, firsts) == np.maximum.reduceat(spans, firsts)
    columns = firsts, stops, is_uniform, chunks.begins[firsts], spans[firsts], chunks.decoded_sizes[firsts]
    indices = []
    for file, first, stop, same, begin, span, size in zip(files, *(column.tolist() for column in columns), strict=True):
        if same:
            places: Places = Uniform(size, 1, begin + span - size, span)
        else:
            places = Spans(np.append(chunks.begins[first:stop], file.footer.begin))
        indices.append(FileIndex(file.path, file.stamp, stop - first, places))
    return indices


def _places(file: OpenFile, stamp: FileStamp, footer: Footer) -> Places:
    if footer.num_chunks == footer.num_records:
        begins = _single_begins(file, footer)
        if begins is not None:
            _check_headers(file, begins)
            return _uniform_singles(begins) or Spans(begins)
    chunks = Chunks(*map(np.concatenate, zip(*read_chunks(file, footer), strict=True)))
    area = AddressRange.reserve({file.path: stamp}, random_access=False)
    if area is None or not area.map(file.path, stamp):
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
    values = values_of_spans(begins[1:][rows] - begins[rows])
    for begin, num_bytes in zip(begins[rows].tolist(), values.tolist(), strict=True):
        _check_header(file, begin, num_bytes)


def _check_header(file: OpenFile, begin: int, num_bytes: int) -> None:
    """Look whether a chunk is one uncompressed record of so many bytes."""
    data = read_stream(file, physical(begin), CHUNK_HEADER_BYTES + 1)
    header = parse_chunk_header(data)
    data_size = 2 + varint_size(num_bytes) + num_bytes
    if header[3:] != ("r", 1, num_bytes) or header.data_size != data_size or data[-1]:
        raise LayoutError("a chunk is compressed, transposed, or not what the footer says")


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
    return Uniform(length, group_size, first, span, len(begins) - 2, shift, len(last))
