"""The footer of an ArrayRecord file: where each chunk begins, its decoded size and its number of records.

The footer is one simple chunk of `num_chunks + 1` records. The first holds the counts; each other one is
`08 chunk_offset 10 decoded_size 18 num_records`, so everything behind the first is one run of varints, six
to a chunk. It is parsed in slabs, vectorised: ten million chunks need little memory beside the result.
"""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from arsrc._host.format.layout import (
    BLOCK_BYTES,
    CHUNK_HEADER_BYTES,
    FIRST_CHUNK,
    STREAM_BYTES,
    ChunkHeader,
    LayoutError,
    logical,
    parse_chunk_header,
    parse_varint,
    physical,
    read_footer_offset,
    read_stream,
    to_logical,
    varint_size,
)
from arsrc._host.storage.open_file import OpenFile

_HEAD_BYTES = 4096  # of a footer, read at once: all of it in a small file
SLAB_BYTES = 1 << 17  # the arrays of one slab stay in the cache

ENTRY_VARINTS = 6  # a tag and a value, three times
_TAGS = (0x08, 0x10, 0x18)
_WRITER_OPTIONS = 4  # the number of that field
_MAX_ENTRY_BYTES = 33  # three tags and three varints
_MAX_COUNTS_BYTES = 1 << 16  # with the options of the writer
_MAX_VARINT_BYTES = 8  # 56 bits: far beyond any file, and no overflow of i64


class CompressedError(LayoutError):
    """A footer is compressed, as the chunks of its file are."""


@dataclasses.dataclass(frozen=True)
class Footer:
    """The head of a footer.

    Attributes:
        begin: Logical position of the footer, which is the end of the last chunk.
        num_chunks: Data chunks of the file.
        num_records: Records of the file.
        entries: Logical position of the first chunk's entry.
        entries_bytes: Bytes of all entries.
        some_entries: The first entries, as many bytes as were read with the head.
        writer_options: With which the file was written.
        decoded: The bytes of all its records where it is compressed: `entries` is a position in these then.
    """

    begin: int
    num_chunks: int
    num_records: int
    entries: int
    entries_bytes: int
    some_entries: bytes
    writer_options: str
    decoded: bytes | memoryview | None = None

    def read(self, file: OpenFile, position: int, num_bytes: int) -> bytes:
        """Return some bytes of the entries."""
        if self.decoded is not None:
            return bytes(self.decoded[position : position + num_bytes])
        return read_stream(file, physical(position), num_bytes)


class Counts(NamedTuple):
    """What the first record of a footer says.

    Attributes:
        num_chunks: Data chunks of the file.
        num_records: Records of the file.
        writer_options: With which the file was written.
    """

    num_chunks: int
    num_records: int
    writer_options: str


class Chunks(NamedTuple):
    """Consecutive chunks, as the footer lists them.

    Attributes:
        begins: i64[n], logical positions of the chunk headers.
        decoded_sizes: i64[n], bytes of all records of the chunk.
        counts: i64[n], records of the chunk.
    """

    begins: NDArray[np.int64]
    decoded_sizes: NDArray[np.int64]
    counts: NDArray[np.int64]


def read_footer(file: OpenFile, num_bytes: int) -> Footer:
    """Read the head of the footer of an open file.

    Raises:
        CompressedError: It is compressed.
        LayoutError: It is of another version, or damaged.
    """
    offset = read_footer_offset(file, num_bytes)
    begin = logical(offset)
    head = read_stream(file, offset, min(_HEAD_BYTES, logical(num_bytes - BLOCK_BYTES) - begin))
    header = parse_chunk_header(head)
    data = begin + CHUNK_HEADER_BYTES
    if header.kind != "r" or head[CHUNK_HEADER_BYTES : CHUNK_HEADER_BYTES + 1] != b"\0":
        raise CompressedError("the footer is compressed")
    num_size_bytes, sizes = parse_varint(head, CHUNK_HEADER_BYTES + 1)
    first_size, _ = parse_varint(head, sizes)
    sizes -= CHUNK_HEADER_BYTES
    first = data + sizes + num_size_bytes
    if header.data_size != sizes + num_size_bytes + header.decoded_size or first_size > header.decoded_size:
        raise LayoutError("the footer is damaged")
    _check_end(begin, header, num_bytes)
    if first_size > _HEAD_BYTES:
        raise LayoutError("the footer does not begin with its counts")
    counts = head[first - begin : first - begin + first_size]
    if len(counts) < first_size:  # the sizes of many chunks stand between
        counts = read_stream(file, physical(first), first_size)
    num_chunks, num_records, writer_options = parse_counts(counts)
    # The least that an entry takes, so that nobody trusts a count and runs out of memory.
    if header.num_records != num_chunks + 1 or num_chunks * ENTRY_VARINTS > header.decoded_size:
        raise LayoutError("the footer lists another number of chunks than it says")
    entries, entries_bytes = first + first_size, header.decoded_size - first_size
    some_entries = head[entries - begin :][:entries_bytes]
    return Footer(begin, num_chunks, num_records, entries, entries_bytes, some_entries, writer_options)


def read_footer_header(file: OpenFile, num_bytes: int) -> tuple[int, ChunkHeader]:
    """Return the physical position of the footer of an open file, compressed or not, and the header that stands there.

    Raises:
        LayoutError: There is none, or one that is larger than the file allows.
    """
    offset = read_footer_offset(file, num_bytes)
    begin = logical(offset)
    header = parse_chunk_header(read_stream(file, offset, CHUNK_HEADER_BYTES))
    # What is claimed is allocated: each entry stands for a chunk, which is no less than its header.
    is_plausible = header.kind == "r" and 1 <= header.num_records <= 1 + begin // CHUNK_HEADER_BYTES
    if not is_plausible or header.decoded_size > _MAX_COUNTS_BYTES + header.num_records * _MAX_ENTRY_BYTES:
        raise LayoutError("the footer is damaged")
    _check_end(begin, header, num_bytes)
    return offset, header


def _check_end(begin: int, header: ChunkHeader, num_bytes: int) -> None:
    """Look whether a footer ends where it should in a file of `num_bytes`.

    Behind it is padding, for one more block where its header has no room in this one; then the postscript.
    """
    behind = logical(num_bytes - BLOCK_BYTES) - begin - CHUNK_HEADER_BYTES - header.data_size
    if not 0 <= behind < STREAM_BYTES + CHUNK_HEADER_BYTES:
        raise LayoutError("the footer is out of place")


def parse_counts(record: bytes) -> Counts:
    """Return what `{1: {1: version, 2: num_chunks, 3: num_records, 4: writer_options}}` says."""
    values, options = [], b""
    size, position = parse_varint(record, 1)
    if record[0] != 0x0A or position + size != len(record):
        raise LayoutError("the footer does not begin with its counts")
    for tag in _TAGS:
        if record[position : position + 1] != bytes((tag,)):
            raise LayoutError("the footer does not begin with its counts")
        value, position = parse_varint(record, position + 1)
        values.append(value)
    while position < len(record):  # what is not known is skipped, but what is said twice would count as said last
        tag, position = parse_varint(record, position)
        value, position = parse_varint(record, position)
        if tag >> 3 <= len(_TAGS) or tag & 7 not in (0, 2):
            raise LayoutError("the footer does not begin with its counts")
        if tag & 7:
            if tag >> 3 == _WRITER_OPTIONS:
                options = record[position : position + value]
            position += value
    if position != len(record):
        raise LayoutError("the footer does not begin with its counts")
    version, num_chunks, num_records = values
    if version != 1:
        raise LayoutError(f"the file has format version {version}")
    return Counts(num_chunks, num_records, options.decode(errors="backslashreplace"))


def read_chunks(file: OpenFile, footer: Footer) -> Iterator[Chunks]:
    """Yield all chunks of the file in order, some ten thousands at a time.

    Raises:
        LayoutError: Something else stands there, or chunks are out of order or their records miscounted.
    """
    position, end = footer.entries, footer.entries + footer.entries_bytes
    rest = b""
    num_chunks = num_records = 0
    behind = logical(FIRST_CHUNK) - 1
    while position < end:
        num_bytes = min(SLAB_BYTES, end - position)
        data = rest + footer.read(file, position, num_bytes)
        position += num_bytes
        chunks, stops = parse_entries(np.frombuffer(data, np.uint8))
        if not len(stops):
            rest = data
            continue
        rest = data[stops[-1] :]
        if chunks.begins[0] <= behind or (np.diff(chunks.begins) <= 0).any():
            raise LayoutError("chunks are out of order")
        behind = int(chunks.begins[-1])
        num_chunks += len(chunks.begins)
        num_records += int(chunks.counts.sum())
        yield chunks
    if rest or behind >= footer.begin or (num_chunks, num_records) != (footer.num_chunks, footer.num_records):
        raise LayoutError("the footer lists other chunks than it counts")


def parse_entries(data: NDArray[np.uint8]) -> tuple[Chunks, NDArray[np.int64]]:
    """Parse all whole entries in `data`, of one file or of several; also return where each ends, i64[n].

    Raises:
        LayoutError: Something else stands there.
    """
    last_bytes = np.flatnonzero(data < 0x80)  # i64[num_varints]
    ends = last_bytes[: len(last_bytes) // ENTRY_VARINTS * ENTRY_VARINTS].reshape(-1, ENTRY_VARINTS)
    if not len(ends):
        if len(data) > ENTRY_VARINTS * 10:
            raise LayoutError("the footer holds something else than chunks")
        return Chunks(*(np.zeros(0, np.int64) for _ in _TAGS)), np.zeros(0, np.int64)
    tags = ends[:, ::2]  # i64[n, 3], where the one-byte tags stand
    entry_ends = np.concatenate(([-1], ends[:-1, -1]))
    before = (entry_ends, ends[:, 1], ends[:, 3])
    for column, tag in enumerate(_TAGS):
        at = tags[:, column]
        if (data[at] != tag).any() or (at != before[column] + 1).any():
            raise LayoutError("the footer holds something else than chunks")
    offsets, sizes, counts = (decode_varints(data, tags[:, i] + 1, ends[:, 2 * i + 1]) for i in range(3))
    return Chunks(to_logical(offsets), sizes, counts), ends[:, -1] + 1


def decode_varints(data: NDArray[np.uint8], begins: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the varints whose first and last bytes stand at `begins` and `ends` of `data`."""
    lengths = ends - begins
    shortest, longest = int(lengths.min()), int(lengths.max())
    if longest >= _MAX_VARINT_BYTES:
        raise LayoutError("a number is too large")
    values: NDArray[np.int64] = (data[begins] & 0x7F).astype(np.int64)
    for byte in range(1, longest + 1):
        rows = slice(None) if byte <= shortest else np.flatnonzero(lengths >= byte)
        values[rows] |= (data[begins[rows] + byte] & 0x7F).astype(np.int64) << (7 * byte)
    return values


def varint_words(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return numbers as varints of at most 8 bytes, the first byte lowest."""
    words = values & 0x7F
    for byte in range(1, varint_size(int(values.max(initial=0)))):
        rest = values >> 7 * byte
        words |= (rest & 0x7F) << 8 * byte | (rest > 0) << 8 * byte - 1
    return words


def spans_of_values(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the stream bytes of uncompressed chunks of one record each, from the records' bytes.

    Such a chunk is its header, two bytes, the record's length as a varint, and the record.
    """
    spans = values + (CHUNK_HEADER_BYTES + 3)
    for num_bytes in range(1, varint_size(int(values.max(initial=0)))):
        spans += values >= 1 << 7 * num_bytes
    return spans


def values_of_spans(spans: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the inverse of `spans_of_values`."""
    values = spans - (CHUNK_HEADER_BYTES + 3)
    for num_bytes in range(1, varint_size(int(values.max(initial=0)))):
        values -= spans >= (1 << 7 * num_bytes) + CHUNK_HEADER_BYTES + 3 + num_bytes
    return values
