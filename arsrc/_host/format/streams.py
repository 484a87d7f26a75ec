"""Compressed streams: what stands in chunks behind the letter of a compression, and what it decodes to.

None is given more room than whoever asks expects to find in it.
"""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from arsrc._host.format.frames import MOST_BYTES, are_whole
from arsrc._host.format.layout import LayoutError

try:
    import cramjam
except ImportError:  # an extra
    cramjam = None

_of_thread = threading.local()
_HAS_MANY = hasattr(zstandard.ZstdDecompressor, "multi_decompress_to_buffer")  # not so everywhere

ZSTD, BROTLI, SNAPPY = ord("z"), ord("b"), ord("s")

_INTO: dict[int, Callable[[Any, Any], int]] = (
    {BROTLI: cramjam.brotli.decompress_into, SNAPPY: cramjam.snappy.decompress_raw_into} if cramjam else {}
)


def can_decode(letter: int) -> bool:
    """Whether streams of a compression can be decoded here: of brotli and snappy where cramjam is installed."""
    return letter == ZSTD or letter in _INTO


def decode(letter: int, stream: bytes | memoryview, num_bytes: int) -> bytes | memoryview:
    """Return the bytes that one stream holds.

    Raises:
        LayoutError: It does not hold so many, is damaged, or something follows it, which of brotli nobody sees.
    """
    if letter == ZSTD:
        return _decode_zstd(stream, num_bytes)
    out = np.empty(num_bytes, np.uint8).data
    _decode_into(letter, stream, out)
    return out


def decode_all(
    letter: int, data: NDArray[np.uint8], begins: NDArray[np.int64], ends: NDArray[np.int64], sizes: NDArray[np.int64]
) -> tuple[bytes | memoryview, list[int]]:
    """Decode many streams, without the interpreter lock where it is zstd.

    Args:
        letter: Their compression.
        data: u8[...], what they lie in.
        begins: i64[n]
        ends: i64[n]
        sizes: i64[n], bytes that each holds.

    Returns:
        What they hold, end to end, and the numbers of those that are damaged, in whose place anything may stand.
    """
    # Of no frames, or of one that holds nothing, that function ends the process; what follows a frame it does not see.
    if letter == ZSTD and _HAS_MANY and sizes.any() and sizes.all() and are_whole(data, begins, ends, sizes):
        segments = np.stack((begins, ends - begins), axis=1).astype("<u8").tobytes()
        try:
            together = zstandard.BufferWithSegments(data.data, segments)
            wanted = sizes.astype("<u8").tobytes()
            found: Any = _decompressor().multi_decompress_to_buffer(together, wanted)
            return b"".join(found), []
        except zstandard.ZstdError:  # of one of them
            pass
    # Into one piece of memory: objects that stay, one for each, would set off the garbage collector.
    streams, out = data.data, np.empty(int(sizes.sum()), np.uint8).data
    at, bad = 0, []
    for row, (begin, end, size) in enumerate(zip(begins.tolist(), ends.tolist(), sizes.tolist(), strict=True)):
        try:
            _decode_into(letter, streams[begin:end], out[at : at + size])
        except LayoutError:
            bad.append(row)
        at += size
    return out, bad


def _decompressor() -> zstandard.ZstdDecompressor:
    """Return that of this thread: making one takes as long as decoding some kilobytes."""
    if (found := getattr(_of_thread, "decompressor", None)) is None:
        found = _of_thread.decompressor = zstandard.ZstdDecompressor()
    return found


def _decode_into(letter: int, stream: bytes | memoryview, out: memoryview) -> None:
    if letter == ZSTD:
        out[:] = _decode_zstd(stream, len(out))
        return
    try:
        found = _INTO[letter](stream, out)
    except cramjam.DecompressionError as error:
        raise LayoutError(str(error)) from error
    if found != len(out):
        raise LayoutError("a stream holds another number of bytes")


def _decode_zstd(stream: bytes | memoryview, num_bytes: int) -> bytes:
    if num_bytes > MOST_BYTES * len(stream):
        raise LayoutError("a frame cannot hold so many bytes")
    if not num_bytes and not are_whole(np.frombuffer(stream, np.uint8), *np.array([[0], [len(stream)], [0]])):
        raise LayoutError("a frame of nothing is none")
    try:
        said = zstandard.frame_content_size(stream)  # which is believed by what decodes it
        if said not in (-1, num_bytes):
            raise LayoutError("a frame says another number of bytes")
        # None at all means any number.
        found = _decompressor().decompress(stream, max_output_size=max(num_bytes, 1), allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise LayoutError(str(error)) from error
    if len(found) != num_bytes:
        raise LayoutError("a frame holds another number of bytes")
    return found
