"""Whole numbers of 64 bits in two words, against Python's own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from arsrc.order import wide

u32s, u64s = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
BOTH = pytest.mark.parametrize("xp", [np, jnp])


def words(xp: object, *values: int) -> tuple[np.ndarray, ...]:
    """The words of wide numbers, each u32[1]."""
    return tuple(xp.asarray(np.array([word], np.uint32)) for value in values for word in divmod(value, 2**32))


def u32(xp: object, value: int) -> np.ndarray:
    return xp.asarray(np.array([value], np.uint32))


def number(found: tuple[np.ndarray, np.ndarray]) -> int:
    assert all(word.dtype == np.uint32 for word in found)
    return (int(found[0][0]) << 32) + int(found[1][0])


@BOTH
@given(u64s, u64s, u32s)
def test_sums_differences_and_products_count_modulo_64_bits(xp: object, a: int, b: int, small: int) -> None:
    wide_a, wide_b, word = words(xp, a), words(xp, b), u32(xp, small)
    assert number(wide.add(wide_a, word)) == (a + small) % 2**64
    assert number(wide.add_wide(wide_a, wide_b)) == (a + b) % 2**64
    assert number(wide.sub(wide_a, wide_b)) == (a - b) % 2**64
    assert number(wide.mul(xp, wide_a[1], word)) == a % 2**32 * small
    assert number(wide.mul_wide(xp, wide_a, word)) == a * small % 2**64


@BOTH
@given(u64s, st.integers(1, 2**16))
@example(2**64 - 1, 1)
@example(2**64 - 1, 2**16)
def test_a_small_divisor_gives_a_wide_quotient(xp: object, a: int, divisor: int) -> None:
    quotient, rest = wide.divmod_small(xp, words(xp, a), u32(xp, divisor))
    assert (number(quotient), int(rest[0])) == divmod(a, divisor)


@BOTH
@given(u64s, st.integers(1, 2**32 - 1))
@example(2**64 - 1, 1)
@example(2**64 - 1, 2**32 - 1)
@example(2**63 - 1, 2**31)
@example(2**64 - 1, 2**31 + 1)
def test_any_divisor_gives_a_quotient_modulo_32_bits(xp: object, a: int, divisor: int) -> None:
    quotient, rest = wide.divmod_large(xp, words(xp, a), u32(xp, divisor))
    assert (int(quotient[0]), int(rest[0])) == (a // divisor % 2**32, a % divisor)


def test_division_is_right_where_a_digit_is_guessed_too_large() -> None:
    random = np.random.default_rng(0)
    upper, lower, divisor = random.integers(0, 2**32, (3, 10**6), np.uint32)
    small = divisor >> random.integers(0, 32, 10**6, np.uint32)
    divisor = np.maximum(np.where(random.random(10**6) < 0.5, small, np.uint32(2**31) + (small >> 1)), 1)
    device = jax.jit(functools.partial(wide.divmod_large, jnp))((upper, lower), divisor)
    for one, other in zip(device, wide.divmod_large(np, (upper, lower), divisor), strict=True):
        assert np.array_equal(one, other)
