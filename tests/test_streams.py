"""Compressed streams: what they hold, within the room they are given, or an error."""

import random

import numpy as np
import pytest
import zstandard

from arsrc._host.format.frames import are_whole
from arsrc._host.format.layout import LayoutError
from arsrc._host.format.streams import BROTLI, SNAPPY, ZSTD, can_decode, decode, decode_all

RNG = random.Random(0)
RECORDS = [
    b"x",
    b"hello " * 200,
    RNG.randbytes(300),
    RNG.randbytes(5_000),
    bytes(100_000),
    bytes(RNG.choices(range(9), k=200_000)),
    RNG.randbytes(131_073),
]


def frame(data: bytes, **options: bool) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(data)


def laid(streams: list[bytes]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Streams with something in front of each, and where they begin and end."""
    lengths = sizes_of(streams)
    data = np.frombuffer(b"".join(b"?" + stream for stream in streams) + b"?", np.uint8)
    ends = np.cumsum(lengths + 1)
    return data, ends - lengths, ends


def split(data: bytes | memoryview, sizes: np.ndarray) -> list[bytes]:
    assert len(data) == sizes.sum()
    return [bytes(data[end - size : end]) for size, end in zip(sizes, np.cumsum(sizes), strict=True)]


def sizes_of(records: list[bytes]) -> np.ndarray:
    return np.array([len(record) for record in records], np.int64)


@pytest.mark.parametrize("says_size", [True, False])
@pytest.mark.parametrize("records", [RECORDS, RECORDS[:1], [*RECORDS, b""], [b""], []], ids=len)
def test_many_frames_decode_to_what_was_compressed(records: list[bytes], says_size: bool) -> None:
    streams = [frame(record, write_content_size=says_size, write_checksum=not says_size) for record in records]
    decoded, bad = decode_all(ZSTD, *laid(streams), sizes_of(records))
    assert bad == []
    assert split(decoded, sizes_of(records)) == records


@pytest.mark.parametrize("says_size", [True, False])
def test_those_that_are_damaged_are_named_and_the_others_decoded(says_size: bool) -> None:
    streams = [frame(record, write_content_size=says_size) for record in RECORDS]
    sizes = sizes_of(RECORDS)
    sizes[2] += 1
    sizes[5] -= 1
    streams[3] = streams[3][:-1]
    streams[6] = b"no frame"
    decoded, bad = decode_all(ZSTD, *laid(streams), sizes)
    assert bad == [2, 3, 5, 6]
    found = split(decoded, sizes)
    assert all(found[row] == record for row, record in enumerate(RECORDS) if row not in bad)


@pytest.mark.parametrize("says_size", [True, False])
@pytest.mark.parametrize("checksum", [True, False])
def test_frames_are_whole_where_nothing_is_missing_or_follows(says_size: bool, checksum: bool) -> None:
    streams = [frame(record, write_content_size=says_size, write_checksum=checksum) for record in [*RECORDS, b""]]
    sizes = sizes_of([*RECORDS, b""])
    assert are_whole(*laid(streams), sizes)
    for row, stream in enumerate(streams):
        for other in (stream + b"x", stream[:-1], stream[:4], b"", stream + stream):
            assert not are_whole(*laid([*streams[:row], other, *streams[row + 1 :]]), sizes)
    decoded, bad = decode_all(ZSTD, *laid([streams[0] + b"x", streams[1]]), sizes_of(RECORDS[:2]))
    assert bad == [0]
    assert split(decoded, sizes_of(RECORDS[:2]))[1] == RECORDS[1]
    for stream in (streams[-1] + b"x", streams[-1][:-1], b""):
        with pytest.raises(LayoutError):
            decode(ZSTD, stream, 0)


def test_a_frame_of_very_many_blocks_is_decoded_alone() -> None:
    head = frame(b"", write_content_size=False)[:6]
    many = head + bytes(3 * 1000) + b"\x09\x00\x00x"  # empty blocks, and one of a byte that is not compressed
    assert not are_whole(*laid([many]), np.array([1]))
    decoded, bad = decode_all(ZSTD, *laid([many, frame(b"yy")]), np.array([1, 2]))
    assert (bytes(decoded), bad) == (b"xyy", [])


def test_nothing_is_decoded_beyond_the_room_that_it_is_given() -> None:
    huge = bytearray(frame(bytes(1 << 20)))
    assert zstandard.frame_content_size(bytes(huge)) == 1 << 20
    with pytest.raises(LayoutError, match="says another number of bytes"):
        decode(ZSTD, bytes(huge), 100)
    huge[6:10] = (1 << 31).to_bytes(4, "little")  # claimed, and not there
    with pytest.raises(LayoutError, match="says another number of bytes"):
        decode(ZSTD, bytes(huge), 100)
    for room in (0, 1, 999):
        with pytest.raises(LayoutError):
            decode(ZSTD, frame(bytes(1_000), write_content_size=False), room)


def test_other_compressions_are_decoded_where_the_library_is_there() -> None:
    assert can_decode(ZSTD)
    assert not can_decode(ord("x"))
    cramjam = pytest.importorskip("cramjam")
    for letter, compress in ((BROTLI, cramjam.brotli.compress), (SNAPPY, cramjam.snappy.compress_raw)):
        assert can_decode(letter)
        for record in [*RECORDS, b""]:
            stream = bytes(compress(record))
            assert bytes(decode(letter, stream, len(record))) == record
            with pytest.raises(LayoutError):
                decode(letter, stream, len(record) + 1)
            if record:
                with pytest.raises(LayoutError):
                    decode(letter, stream, len(record) - 1)
                with pytest.raises(LayoutError):
                    decode(letter, stream[:-1], len(record))
        sizes = sizes_of([*RECORDS, b""])
        streams = [bytes(compress(record)) for record in [*RECORDS, b""]]
        decoded, bad = decode_all(letter, *laid(streams), sizes)
        assert (split(decoded, sizes), bad) == ([*RECORDS, b""], [])
        streams[1] = streams[1][:-1]
        assert decode_all(letter, *laid(streams), sizes)[1] == [1]
