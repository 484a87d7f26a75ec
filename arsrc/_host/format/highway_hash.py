"""HighwayHash64, the hash in the headers of chunks and blocks, of a few bytes.

Source: J. Alakuijala, B. Cox, J. Wassenberg, "Fast keyed hash/pseudo-random function using SIMD multiply and permute".
"""

import functools
import struct
from collections.abc import Sequence

_MASK = (1 << 64) - 1
_HALF = (1 << 32) - 1
_KEY = struct.unpack("<4Q", b"Riegeli/records\n" * 2)
_INIT_0 = (0xDBE6D5D5FE4CCE2F, 0xA4093822299F31D0, 0x13198A2E03707344, 0x243F6A8885A308D3)
_INIT_1 = (0x3BD39E10CB0EF593, 0xC0ACF169B5F18A8C, 0xBE5466CF34E90C6C, 0x452821E638D01377)


@functools.lru_cache(256)  # files of one size end alike
def highway_hash(data: bytes) -> int:
    """Return the hash of bytes, under the key of all ArrayRecord files; some ten microseconds for each 32 bytes."""
    state = _State()
    whole = len(data) & ~31
    for lanes in struct.iter_unpack("<4Q", data[:whole]):
        state.update(lanes)
    if rest := data[whole:]:
        state.update_rest(rest)
    return state.finish()


class _State:
    """Four times four lanes of 64 bits."""

    def __init__(self) -> None:
        self.mul_0, self.mul_1 = list(_INIT_0), list(_INIT_1)
        self.v_0 = [a ^ b for a, b in zip(_INIT_0, _KEY, strict=True)]
        self.v_1 = [a ^ _swap(b) for a, b in zip(_INIT_1, _KEY, strict=True)]

    def update(self, lanes: Sequence[int]) -> None:
        v_0, v_1, mul_0, mul_1 = self.v_0, self.v_1, self.mul_0, self.mul_1
        for i in range(4):
            v_1[i] = (v_1[i] + mul_0[i] + lanes[i]) & _MASK
            mul_0[i] ^= (v_1[i] & _HALF) * (v_0[i] >> 32)
            v_0[i] = (v_0[i] + mul_1[i]) & _MASK
            mul_1[i] ^= (v_0[i] & _HALF) * (v_1[i] >> 32)
        for source, target in ((v_1, v_0), (v_0, v_1)):
            for i in (0, 2):
                low, high = _zipper_merge(source[i], source[i + 1])
                target[i] = (target[i] + low) & _MASK
                target[i + 1] = (target[i + 1] + high) & _MASK

    def update_rest(self, rest: bytes) -> None:
        """Take the last 1 to 31 bytes."""
        size, num_odd = len(rest), len(rest) & 3
        for i in range(4):
            self.v_0[i] = (self.v_0[i] + (size << 32) + size) & _MASK
            low, high = (_rotate(half, size) for half in (self.v_1[i] & _HALF, self.v_1[i] >> 32))
            self.v_1[i] = low | high << 32
        packet = bytearray(rest[: size & ~3].ljust(32, b"\0"))
        if size & 16:
            packet[28:] = rest[-4:]
        elif num_odd:
            odd = rest[-num_odd:]
            packet[16:19] = bytes((odd[0], odd[num_odd >> 1], odd[-1]))
        self.update(struct.unpack("<4Q", packet))

    def finish(self) -> int:
        for _ in range(4):
            self.update([_swap(self.v_0[i]) for i in (2, 3, 0, 1)])
        return (self.v_0[0] + self.v_1[0] + self.mul_0[0] + self.mul_1[0]) & _MASK


def _swap(word: int) -> int:
    return (word >> 32 | word << 32) & _MASK


def _rotate(half: int, bits: int) -> int:
    return (half << bits | half >> 32 - bits) & _HALF


def _zipper_merge(low: int, high: int) -> tuple[int, int]:
    a, b = low.to_bytes(8, "little"), high.to_bytes(8, "little")
    merged = (a[3], b[4], a[2], a[5], b[6], a[1], b[7], a[0]), (b[3], a[4], b[2], b[5], b[1], a[6], b[0], a[7])
    return int.from_bytes(merged[0], "little"), int.from_bytes(merged[1], "little")
