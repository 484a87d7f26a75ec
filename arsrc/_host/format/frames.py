"""Where frames of zstd end, as their own headers say."""

import numpy as np
from numpy.typing import NDArray

MOST_BYTES = 1 << 15
"""That a frame holds for each byte of its own: a block takes 4 at least, and holds 128 KiB at most."""

_DESCRIPTOR = 4  # a byte behind the magic number, which says what else a header holds
_BLOCK_HEADER_BYTES = 3
_BLOCK_BYTES = 1 << 17  # that one holds at most
_MORE_BLOCKS = 4
_REPEATED = 1  # the kind of a block that is one byte, many times
_CHECKSUM_BYTES = 4


def _header_bytes(descriptor: int) -> int:
    is_single = descriptor >> 5 & 1
    size_bytes = (is_single, 2, 4, 8)[descriptor >> 6]
    return _DESCRIPTOR + 2 - is_single + (0, 1, 2, 4)[descriptor & 3] + size_bytes


_HEADER_BYTES = np.array([_header_bytes(descriptor) for descriptor in range(256)])


def are_whole(
    data: NDArray[np.uint8], begins: NDArray[np.int64], ends: NDArray[np.int64], sizes: NDArray[np.int64]
) -> bool:
    """Whether each of some frames ends where it should; what it holds is not looked at.

    Args:
        data: u8[...], what they lie in.
        begins: i64[n]
        ends: i64[n]
        sizes: i64[n], bytes that each holds; with many more blocks than these take, it counts as not whole.
    """
    last = len(data) - 1
    if (ends - begins <= _DESCRIPTOR).any():
        return False
    descriptors = data[begins + _DESCRIPTOR]
    at, stops = begins + _HEADER_BYTES[descriptors], ends - _CHECKSUM_BYTES * (descriptors >> 2 & 1)
    for _ in range(_MORE_BLOCKS + 2 * int(sizes.max(initial=0)) // _BLOCK_BYTES):
        if not len(at):
            return True
        if (at + _BLOCK_HEADER_BYTES > stops).any():
            return False
        low, middle, high = (data[np.minimum(at + byte, last)].astype(np.int64) for byte in range(_BLOCK_HEADER_BYTES))
        sizes = (low | middle << 8 | high << 16) >> 3
        at = at + _BLOCK_HEADER_BYTES + np.where(low >> 1 & 3 == _REPEATED, 1, sizes)
        goes_on = low & 1 == 0
        if (at != stops)[~goes_on].any():
            return False
        at, stops = at[goes_on], stops[goes_on]
    return not len(at)
