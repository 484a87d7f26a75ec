"""A writer of ArrayRecord files that lie: any number in them may be wrong, and all hashes right."""

import dataclasses
import struct
from collections.abc import Callable, Iterator, Sequence

from arsrc._host.format.highway_hash import highway_hash
from arsrc._host.format.layout import (
    BLOCK_BYTES,
    BLOCK_HEADER_BYTES,
    CHUNK_HEADER_BYTES,
    MAGIC,
    STREAM_BYTES,
    logical,
    parse_chunk_header,
    parse_varint,
    physical,
    varint,
)

_MASK = (1 << 64) - 1


# Streams that every decompressor takes, of pieces that stand in them as they are.


def _zstd(data: bytes) -> bytes:
    out = [b"\x28\xb5\x2f\xfd\xa0", struct.pack("<I", len(data))]
    for part, is_last in _parts(data):
        out += [(is_last | len(part) << 3).to_bytes(3, "little"), part]
    return b"".join(out)


def _brotli(data: bytes) -> bytes:
    out, shift = [], 1  # the size of the window is said in one bit, 0
    for part, _ in _parts(data) if data else ():
        out += [((len(part) - 1 << 3 | 1 << 19) << shift).to_bytes(3, "little"), part]
        shift = 0
    return b"".join(out) + bytes((3 << shift,))


def _snappy(data: bytes) -> bytes:
    out = [varint(len(data))]
    for part, _ in _parts(data) if data else ():
        out += [b"\xf4" + struct.pack("<H", len(part) - 1), part]
    return b"".join(out)


def _parts(data: bytes) -> Iterator[tuple[bytes, bool]]:
    for at in range(0, max(len(data), 1), 1 << 16):
        yield data[at : at + (1 << 16)], at + (1 << 16) >= len(data)


_STREAMS: dict[str, Callable[[bytes], bytes]] = {"b": _brotli, "s": _snappy, "z": _zstd}


@dataclasses.dataclass
class Chunk:
    """A chunk; what is None stands in the file as it should."""

    kind: str
    num_records: int
    decoded_size: int
    data: bytes
    data_size: int | None = None
    data_hash: int | None = None
    header_hash: int | None = None

    @classmethod
    def of(cls, records: Sequence[bytes], compression: str = "\0") -> "Chunk":
        """A simple chunk, compressed by "b", "s", "z", or not at all."""
        sizes, values = b"".join(varint(len(record)) for record in records), b"".join(records)
        num_bytes = len(values)
        if compression in _STREAMS:
            sizes, values = (varint(len(part)) + _STREAMS[compression](part) for part in (sizes, values))
        return cls("r", len(records), num_bytes, compression.encode() + varint(len(sizes)) + sizes + values)

    def header(self) -> bytes:
        size = len(self.data) if self.data_size is None else self.data_size
        data_hash = highway_hash(self.data) if self.data_hash is None else self.data_hash
        words = size, data_hash, ord(self.kind) | self.num_records << 8, self.decoded_size
        rest = struct.pack("<4Q", *(word & _MASK for word in words))
        signature = highway_hash(rest) if self.header_hash is None else self.header_hash & _MASK
        return struct.pack("<Q", signature) + rest


class _Stream:
    """Chunks one behind the other, with block headers between."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._bounds: list[tuple[int, int]] = []  # of chunks, physical

    @property
    def position(self) -> int:
        """Where the next chunk begins: at the begin of a block that is its header."""
        return _boundary(len(self.data))

    def put(self, chunk: Chunk) -> int:
        """Append a chunk; return where it begins."""
        begin = self.position
        self.data += chunk.header() + chunk.data
        self.data += bytes(max(0, _end_of_records(begin, chunk.num_records) - len(self.data)))
        self._bounds.append((begin, self.position))
        return begin

    def pad(self) -> None:
        """Fill the block."""
        if left := -len(self.data) % STREAM_BYTES:
            left += STREAM_BYTES if left < CHUNK_HEADER_BYTES else 0
            self.put(Chunk("p", 0, 0, bytes(left - CHUNK_HEADER_BYTES)))

    def bytes(self) -> bytes:
        out, bounds = [], iter(self._bounds)
        begin, end = next(bounds)
        for at in range(0, len(self.data), STREAM_BYTES):
            boundary = _boundary(at)
            while end <= boundary:
                begin, end = next(bounds)
            words = struct.pack("<2Q", boundary - begin, end - boundary)
            out += [struct.pack("<Q", highway_hash(words)), words, self.data[at : at + STREAM_BYTES]]
        return b"".join(out)


def _boundary(position: int) -> int:
    """Where a chunk at a logical position begins."""
    return physical(position) - (0 if position % STREAM_BYTES else BLOCK_HEADER_BYTES)


def _end_of_records(begin: int, num_records: int) -> int:
    """The least logical end of a chunk: each record has a physical position of its own."""
    end = begin + (num_records if num_records < 1 << 20 else 0)
    if 0 < end % BLOCK_BYTES <= BLOCK_HEADER_BYTES:
        end = end // BLOCK_BYTES * BLOCK_BYTES + BLOCK_HEADER_BYTES + 1
    return logical(end)


@dataclasses.dataclass
class Draft:
    """What a file will say; what is None it says as it should.

    Attributes:
        chunks: Of data.
        compression: Of the footer.
        pads: Whether each chunk of data is padded to a block.
        entries: The footer's: where each chunk begins, its decoded size, its number of records.
        counts: The footer's: format version, number of chunks, number of records.
        tail: What stands behind the counts.
        moved: Bytes that stand at the begin of the next record of the footer, by the record's number.
        offset: The postscript's.
        footer: Changes to the footer's chunk.
        postscript: Changes to the postscript's chunk.
    """

    chunks: list[Chunk]
    compression: str = "\0"
    pads: bool = False
    entries: list[list[int]] | None = None
    counts: list[int] | None = None
    tail: bytes = b""
    moved: dict[int, int] = dataclasses.field(default_factory=dict)
    offset: int | None = None
    footer: dict[str, int] = dataclasses.field(default_factory=dict)
    postscript: dict[str, int] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, data: bytes) -> "Draft":
        """What a file says that array_record has written."""
        stream = b"".join(data[at + BLOCK_HEADER_BYTES : at + BLOCK_BYTES] for at in range(0, len(data), BLOCK_BYTES))
        numbers = logical(len(data) - BLOCK_BYTES) + CHUNK_HEADER_BYTES + 6
        footer = logical(parse_varint(stream, numbers)[0])
        chunks = []
        at = CHUNK_HEADER_BYTES
        while at < footer:
            header = parse_chunk_header(stream[at : at + CHUNK_HEADER_BYTES])
            end = at + CHUNK_HEADER_BYTES + header.data_size
            chunks.append(Chunk(*header[3:], stream[at + CHUNK_HEADER_BYTES : end]))
            at = max(end, _end_of_records(_boundary(at), header.num_records))
        is_padded = any(chunk.kind == "p" for chunk in chunks)
        return cls([c for c in chunks if c.kind != "p"], chr(stream[footer + CHUNK_HEADER_BYTES]), is_padded)

    def fill_in(self) -> None:
        """Let the footer say what is right, so that it can be changed."""
        _, self.entries = self._data()
        self.counts = [1, len(self.entries), sum(count for *_, count in self.entries)]

    def bytes(self) -> bytes:
        stream, entries = self._data()
        entries = entries if self.entries is None else self.entries
        head = _message(self.counts or (1, len(entries), sum(count for *_, count in entries))) + self.tail
        records = [b"\x0a" + varint(len(head)) + head, *map(_message, entries)]
        for number, num_bytes in self.moved.items():
            if number + 1 < len(records):
                here, there = records[number : number + 2]
                records[number : number + 2] = [here[:-num_bytes], here[-num_bytes:] + there]
        offset = stream.put(dataclasses.replace(Chunk.of(records, self.compression), **self.footer))
        stream.pad()
        record = _message((offset if self.offset is None else self.offset, MAGIC))
        stream.put(dataclasses.replace(Chunk.of([record] * 3), **self.postscript))
        stream.pad()
        return stream.bytes()

    def _data(self) -> tuple[_Stream, list[list[int]]]:
        stream, entries = _Stream(), []
        stream.put(Chunk("s", 0, 0, b""))
        for chunk in self.chunks:
            entries.append([stream.put(chunk), chunk.decoded_size, chunk.num_records])
            if self.pads:
                stream.pad()
        return stream, entries


def _message(values: Sequence[int]) -> bytes:
    return b"".join(bytes((tag,)) + varint(value & _MASK) for tag, value in zip(b"\x08\x10\x18", values, strict=False))


def sign(data: bytearray, base: bytes) -> None:
    """Make the hashes right again, of all chunks and blocks of `base` of which something was changed."""
    stream = bytearray().join(
        data[at + BLOCK_HEADER_BYTES : at + BLOCK_BYTES] for at in range(0, len(data), BLOCK_BYTES)
    )
    at = 0
    while at + CHUNK_HEADER_BYTES <= len(stream):
        header = parse_chunk_header(stream[at : at + CHUNK_HEADER_BYTES])
        begin, end = at + CHUNK_HEADER_BYTES, at + CHUNK_HEADER_BYTES + header.data_size
        if (
            header.data_size
            and end <= len(stream)
            and data[physical(at) : physical(end)] != base[physical(at) : physical(end)]
        ):
            stream[at + 16 : at + 24] = struct.pack("<Q", highway_hash(bytes(stream[begin:end])))
        if header.data_size or header.kind == "s":
            stream[at : at + 8] = struct.pack("<Q", highway_hash(bytes(stream[at + 8 : begin])))
        if end > len(stream):
            break
        at = max(end, _end_of_records(_boundary(at), header.num_records))
    for number, at in enumerate(range(0, len(data), BLOCK_BYTES)):
        data[at : at + 8] = struct.pack("<Q", highway_hash(bytes(data[at + 8 : at + BLOCK_HEADER_BYTES])))
        part = stream[number * STREAM_BYTES : (number + 1) * STREAM_BYTES]
        data[at + BLOCK_HEADER_BYTES : at + BLOCK_HEADER_BYTES + len(part)] = part
