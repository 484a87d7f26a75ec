"""A writer of ArrayRecord files that lie: any number may be wrong, and all hashes right."""

import dataclasses
import struct
from collections.abc import Callable, Sequence

BLOCK, BLOCK_HEADER, CHUNK_HEADER = 1 << 16, 24, 40
MAGIC = 0x71930E704FDAE05E

_MASK = (1 << 64) - 1
_KEY = struct.unpack("<4Q", b"Riegeli/records\n" * 2)
_INIT = (
    (0xDBE6D5D5FE4CCE2F, 0xA4093822299F31D0, 0x13198A2E03707344, 0x243F6A8885A308D3),
    (0x3BD39E10CB0EF593, 0xC0ACF169B5F18A8C, 0xBE5466CF34E90C6C, 0x452821E638D01377),
)


def _swap(word: int) -> int:
    return (word >> 32 | word << 32) & _MASK


def _zip(a: int, b: int) -> tuple[int, int]:
    """Mix the bytes of two lanes, as HighwayHash's "zipper merge" does."""
    x, y = b.to_bytes(8, "little"), a.to_bytes(8, "little")
    low = bytes((x[3], y[4], x[2], x[5], y[6], x[1], y[7], x[0]))
    high = bytes((y[3], x[4], y[2], y[5], y[1], x[6], y[0], x[7]))
    return int.from_bytes(low, "little"), int.from_bytes(high, "little")


def highway_hash(data: bytes) -> int:
    """HighwayHash64 with the key of Riegeli."""
    mul0, mul1 = list(_INIT[0]), list(_INIT[1])
    v0 = [a ^ b for a, b in zip(mul0, _KEY, strict=True)]
    v1 = [a ^ _swap(b) for a, b in zip(mul1, _KEY, strict=True)]

    def update(lanes: Sequence[int]) -> None:
        for i in range(4):
            v1[i] = (v1[i] + mul0[i] + lanes[i]) & _MASK
            mul0[i] ^= (v1[i] & 0xFFFFFFFF) * (v0[i] >> 32)
            v0[i] = (v0[i] + mul1[i]) & _MASK
            mul1[i] ^= (v0[i] & 0xFFFFFFFF) * (v1[i] >> 32)
        for source, target in ((v1, v0), (v0, v1)):
            for i in (0, 2):
                low, high = _zip(source[i + 1], source[i])
                target[i] = (target[i] + low) & _MASK
                target[i + 1] = (target[i + 1] + high) & _MASK

    whole = len(data) & ~31
    for lanes in struct.iter_unpack("<4Q", data[:whole]):
        update(lanes)
    if rest := data[whole:]:
        size, num_odd = len(rest), len(rest) & 3
        for i in range(4):
            v0[i] = (v0[i] + (size << 32) + size) & _MASK
            halves = (v1[i] & 0xFFFFFFFF, v1[i] >> 32)
            low, high = ((half << size | half >> 32 - size) & 0xFFFFFFFF for half in halves)
            v1[i] = low | high << 32
        packet = bytearray(rest[: size & ~3].ljust(32, b"\0"))
        if size & 16:
            packet[28:32] = rest[-4:]
        elif num_odd:
            odd = rest[size & ~3 :]
            packet[16:19] = bytes((odd[0], odd[num_odd >> 1], odd[num_odd - 1]))
        update(struct.unpack("<4Q", packet))
    for _ in range(4):
        update([_swap(v0[i]) for i in (2, 3, 0, 1)])
    return (v0[0] + v1[0] + mul0[0] + mul1[0]) & _MASK


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def parse_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 0x80:
            return value, at


# Streams that every decompressor takes, made without compressors.


def _zstd(data: bytes) -> bytes:
    """One frame, its size in front, of blocks that hold their bytes as they are."""
    out = [b"\x28\xb5\x2f\xfd\xa0", struct.pack("<I", len(data))]
    for at in range(0, max(len(data), 1), 1 << 16):
        part = data[at : at + (1 << 16)]
        is_last = at + (1 << 16) >= len(data)
        out += [(is_last | len(part) << 3).to_bytes(3, "little"), part]
    return b"".join(out)


def _brotli(data: bytes) -> bytes:
    """Meta-blocks that hold their bytes as they are, then an empty one."""
    out = []
    shift = 1  # the window's size is said in one bit, 0
    for at in range(0, len(data), 1 << 16):
        part = data[at : at + (1 << 16)]
        out += [((len(part) - 1 << 3 | 1 << 19) << shift).to_bytes(3, "little"), part]
        shift = 0
    return b"".join(out) + bytes((3 << shift,))


def _snappy(data: bytes) -> bytes:
    out = [varint(len(data))]
    for at in range(0, len(data), 1 << 16):
        part = data[at : at + (1 << 16)]
        out += [b"\xf4" + struct.pack("<H", len(part) - 1), part]
    return b"".join(out)


STREAMS: dict[str, Callable[[bytes], bytes]] = {"b": _brotli, "s": _snappy, "z": _zstd}


def simple_data(records: Sequence[bytes], compression: str = "\0") -> bytes:
    """The data of a simple chunk."""
    sizes, values = b"".join(varint(len(record)) for record in records), b"".join(records)
    if compression == "\0":
        return b"\0" + varint(len(sizes)) + sizes + values
    stream = STREAMS[compression]
    sizes = varint(len(sizes)) + stream(sizes)
    return compression.encode() + varint(len(sizes)) + sizes + varint(len(values)) + stream(values)


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
    def simple(cls, records: Sequence[bytes], compression: str = "\0") -> "Chunk":
        return cls("r", len(records), sum(map(len, records)), simple_data(records, compression))

    def header(self) -> bytes:
        size = len(self.data) if self.data_size is None else self.data_size
        data_hash = highway_hash(self.data) if self.data_hash is None else self.data_hash
        kind = ord(self.kind) | self.num_records << 8
        rest = struct.pack("<4Q", *(n & _MASK for n in (size, data_hash, kind, self.decoded_size)))
        return struct.pack("<Q", highway_hash(rest) if self.header_hash is None else self.header_hash) + rest


def physical(position: int) -> int:
    """Where a byte of the stream stands in the file."""
    return position + BLOCK_HEADER * (position // (BLOCK - BLOCK_HEADER) + 1)


def logical(position: int) -> int:
    block, in_block = divmod(position, BLOCK)
    return block * (BLOCK - BLOCK_HEADER) + max(in_block - BLOCK_HEADER, 0)


class _Stream:
    """Chunks one behind the other, with block headers between."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._bounds: list[tuple[int, int]] = []  # of chunks: physical begin and end

    @property
    def position(self) -> int:
        """Where the next chunk begins; at the begin of a block that is its header."""
        at = len(self.data)
        return physical(at) - (BLOCK_HEADER if at % (BLOCK - BLOCK_HEADER) == 0 else 0)

    def put(self, chunk: Chunk) -> int:
        """Append a chunk; return where it begins."""
        begin = self.position
        self.data += chunk.header() + chunk.data
        behind = begin + chunk.num_records if chunk.num_records < 1 << 20 else 0
        if 0 < behind % BLOCK < BLOCK_HEADER + 1:
            behind = behind // BLOCK * BLOCK + BLOCK_HEADER + 1
        # Each record has a position of its own, so that chunks of many small ones are followed by a gap.
        self.data += bytes(max(0, logical(behind) - len(self.data)))
        self._bounds.append((begin, self.position))
        return begin

    def pad(self) -> None:
        """Fill the block."""
        if left := -len(self.data) % (BLOCK - BLOCK_HEADER):
            left += BLOCK - BLOCK_HEADER if left < CHUNK_HEADER else 0
            self.put(Chunk("p", 0, 0, bytes(left - CHUNK_HEADER)))

    def bytes(self) -> bytes:
        out = []
        bounds = iter(self._bounds)
        begin, end = next(bounds)
        for number, at in enumerate(range(0, len(self.data), BLOCK - BLOCK_HEADER)):
            boundary = number * BLOCK
            while end <= boundary:
                begin, end = next(bounds)
            words = struct.pack("<2Q", boundary - begin, end - boundary)
            out += [struct.pack("<Q", highway_hash(words)), words, self.data[at : at + BLOCK - BLOCK_HEADER]]
        return b"".join(out)


@dataclasses.dataclass
class Draft:
    """What a file will say; what is None it says as it should.

    Attributes:
        chunks: Of data.
        compression: Of the footer: "\\0", or the letter of a compression.
        entries: The footer's: where each chunk begins, its decoded size, its number of records.
        counts: The footer's: format version, number of chunks, number of records.
        tail: What stands behind the counts.
        footer_offset: The postscript's.
        footer: Changes to the footer's chunk.
        postscript: Changes to the postscript's chunk.
        pads: Whether each chunk of data is padded to a block.
    """

    chunks: list[Chunk]
    compression: str = "\0"
    entries: list[tuple[int, int, int]] | None = None
    counts: tuple[int, int, int] | None = None
    tail: bytes = b""
    footer_offset: int | None = None
    footer: dict[str, int] = dataclasses.field(default_factory=dict)
    postscript: dict[str, int] = dataclasses.field(default_factory=dict)
    pads: bool = False

    def right_entries(self) -> list[tuple[int, int, int]]:
        stream = _Stream()
        stream.put(Chunk("s", 0, 0, b""))
        entries = []
        for chunk in self.chunks:
            entries.append((stream.put(chunk), chunk.decoded_size, chunk.num_records))
            if self.pads:
                stream.pad()
        return entries

    def bytes(self) -> bytes:
        stream = _Stream()
        stream.put(Chunk("s", 0, 0, b""))
        entries = []
        for chunk in self.chunks:
            entries.append((stream.put(chunk), chunk.decoded_size, chunk.num_records))
            if self.pads:
                stream.pad()
        entries = entries if self.entries is None else self.entries
        counts = self.counts or (1, len(entries), sum(count for _, _, count in entries))
        head = b"".join(bytes((tag,)) + varint(count) for tag, count in zip(b"\x08\x10\x18", counts, strict=True))
        head += self.tail
        records = [b"\x0a" + varint(len(head)) + head]
        records += [b"".join(bytes((t,)) + varint(n) for t, n in zip(b"\x08\x10\x18", e, strict=True)) for e in entries]
        footer = dataclasses.replace(Chunk.simple(records, self.compression), **self.footer)
        offset = stream.put(footer)
        stream.pad()
        offset = offset if self.footer_offset is None else self.footer_offset
        record = b"\x08" + varint(offset) + b"\x10" + varint(MAGIC)
        stream.put(dataclasses.replace(Chunk.simple([record] * 3), **self.postscript))
        stream.pad()
        return stream.bytes()


def draft_of(data: bytes) -> Draft:
    """What a file says that array_record has written."""
    stream = b"".join(data[at + BLOCK_HEADER : at + BLOCK] for at in range(0, len(data), BLOCK))
    record_bytes = stream[logical(len(data) - BLOCK) + CHUNK_HEADER + 5 :]
    footer = logical(parse_varint(record_bytes, 1)[0])
    chunks = []
    at = CHUNK_HEADER
    pads = False
    while at < footer:
        _, size, _, kind, decoded = struct.unpack_from("<5Q", stream, at)
        chunk = Chunk(chr(kind & 0xFF), kind >> 8, decoded, stream[at + CHUNK_HEADER : at + CHUNK_HEADER + size])
        pads |= chunk.kind == "p"
        if chunk.kind != "p":
            chunks.append(chunk)
        end = at + CHUNK_HEADER + size
        begin = physical(at) - (BLOCK_HEADER if at % (BLOCK - BLOCK_HEADER) == 0 else 0)
        behind = begin + chunk.num_records
        if 0 < behind % BLOCK < BLOCK_HEADER + 1:
            behind = behind // BLOCK * BLOCK + BLOCK_HEADER + 1
        at = max(end, logical(behind))
    return Draft(chunks, chr(stream[footer + CHUNK_HEADER]), pads=pads)
