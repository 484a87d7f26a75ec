"""Whole numbers of 64 bits in two words of 32, which JAX has with 64-bit types off; alike in NumPy.

A wide number is a pair `(upper, lower)` of u32[...]. All counts modulo 2**64.
"""

from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

Array = Any
Wide: TypeAlias = tuple[Array, Array]
u32 = np.uint32


def add(a: Wide, b: Array) -> Wide:
    """Return `a + b` for u32[...] `b`."""
    lower = a[1] + b
    return a[0] + (lower < b).astype(u32), lower


def add_wide(a: Wide, b: Wide) -> Wide:
    """Return `a + b`."""
    upper, lower = add(a, b[1])
    return upper + b[0], lower


def sub(a: Wide, b: Wide) -> Wide:
    """Return `a - b`."""
    return a[0] - b[0] - (a[1] < b[1]).astype(u32), a[1] - b[1]


def mul(xp: ModuleType, x: Array, factor: Array) -> Wide:
    """Return `x * factor` of u32[...]."""
    if xp is np:
        return _split(x.astype(np.uint64) * factor)
    lower, upper = _low(x) * _high(factor), _high(x) * _low(factor)
    carry = _high(_low(x) * _low(factor)) + _low(lower) + _low(upper)
    return _high(x) * _high(factor) + _high(lower) + _high(upper) + _high(carry), x * factor


def mul_wide(xp: ModuleType, a: Wide, factor: Array) -> Wide:
    """Return `a * factor` for u32[...] `factor`."""
    if xp is np:
        return _split(_joined(a) * factor)
    upper, lower = mul(xp, a[1], factor)
    return upper + a[0] * factor, lower


def divmod_small(xp: ModuleType, a: Wide, divisor: Array) -> tuple[Wide, Array]:
    """Return `divmod(a, divisor)` for u32[...] `divisor` of at most 2**16: a wide quotient and a rest of 32 bits."""
    if xp is np:
        quotient, rest = np.divmod(_joined(a), divisor)
        return _split(quotient), rest.astype(u32)
    rest, digits = xp.zeros_like(a[1]), []
    for digit in (_high(a[0]), _low(a[0]), _high(a[1]), _low(a[1])):  # of 16 bits
        rest = (rest << u32(16)) + digit
        digits.append(rest // divisor)
        rest = rest - digits[-1] * divisor
    return ((digits[0] << u32(16)) + digits[1], (digits[2] << u32(16)) + digits[3]), rest


def divmod_large(xp: ModuleType, a: Wide, divisor: Array) -> tuple[Array, Array]:
    """Return `divmod(a, divisor)` for u32[...] `divisor`, the quotient modulo 2**32.

    In JAX digit by digit, in digits of 16 bits (Warren, Hacker's Delight, second edition, figure 9-3): the divisor is
    shifted so that its first bit is set, and the number with it.
    """
    if xp is np:
        quotient, rest = np.divmod(_joined(a), divisor)
        return quotient.astype(u32), rest.astype(u32)
    shift = _leading_zeros(xp, divisor)
    rest, lower, divisor = a[0] % divisor, a[1] << shift, divisor << shift
    rest = (rest << shift) + ((a[1] >> u32(1)) >> (u32(31) - shift))
    quotient = xp.zeros_like(rest)
    for digit in (_high(lower), _low(lower)):
        part = rest // _high(divisor)
        left = rest - part * _high(divisor)
        for _ in range(2):  # so much too large at most
            over = left < u32(2**16)
            over &= (part >= u32(2**16)) | (part * _low(divisor) > (left << u32(16)) + digit)
            part, left = part - over.astype(u32), left + over.astype(u32) * _high(divisor)
        rest = (rest << u32(16)) + digit - part * divisor
        quotient = (quotient << u32(16)) + part
    return quotient, rest >> shift


def _leading_zeros(xp: ModuleType, x: Array) -> Array:
    """Return how many of the first bits of x, u32[...], are 0."""
    zeros = xp.zeros_like(x)
    for bits in (16, 8, 4, 2, 1):
        is_small = (x >> u32(32 - bits)) == u32(0)
        zeros = zeros + xp.where(is_small, u32(bits), u32(0))
        x = xp.where(is_small, x << u32(bits), x)
    return zeros


def _low(word: Array) -> Array:
    return word & u32(0xFFFF)


def _high(word: Array) -> Array:
    return word >> u32(16)


def _joined(a: Wide) -> Array:
    return (a[0].astype(np.uint64) << np.uint64(32)) + a[1]


def _split(x: Array) -> Wide:
    return (x >> np.uint64(32)).astype(u32), x.astype(u32)
