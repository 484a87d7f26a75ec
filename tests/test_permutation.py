"""The keyed bijection: its definition, its algebra, its two backends, and its statistics.

The statistical tests use fixed keys, so they give the same verdict on every run. Their thresholds lie five
standard deviations out: a sound permutation exceeds one of them for about one choice of keys in a million.
Where a test has a sibling "too few rounds would be seen", that one runs the same statistic on four rounds, to
show that it can fail.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from arsrc.order.permutation import grid, num_rounds, permute, round_keys, unpermute

MAX_N = 2**32 - 1
KEY = (0, 42)

u32s = st.integers(0, MAX_N)
key_words = st.lists(u32s, min_size=2, max_size=2) | st.lists(u32s, min_size=4, max_size=4)
powers_and_neighbours = st.builds(lambda e, d: 2**e + d, st.integers(1, 31), st.integers(-1, 1))
squares_and_neighbours = st.builds(lambda b, d: b * b + d, st.integers(2, 65535), st.integers(-1, 1))
counts = st.integers(1, MAX_N) | st.integers(1, 300) | powers_and_neighbours | squares_and_neighbours


def values_at(
    position: Any, n: int, words: Sequence[int] = KEY, epoch: Any = 0, rounds: int | None = None
) -> np.ndarray:
    """Permute on the host, with the first `rounds` rounds only if given."""
    return np.asarray(permute(np, position, round_keys(np, words, epoch, n)[:rounds], n))


def positions_near(n: int) -> np.ndarray:
    """Positions at both ends, in the middle and round the ends of rows: u32[...]."""
    b = grid(n).num_columns
    centres = np.array([0, 1, n // 2, b, n - n % b, n - 1], np.int64)
    return np.unique(np.clip(centres[:, None] + np.arange(-2, 3), 0, n - 1)).astype(np.uint32)


# The definition.


def oracle(position: int, n: int, words: Sequence[int], epoch: int) -> int:
    """The definition in exact integers, one position at a time."""

    def mix(x: int, key: int) -> int:
        x = (0x9E3779B1 * x + key) % 2**32
        x = (x ^ x >> 16) * 0x85EBCA6B % 2**32
        x = (x ^ x >> 13) * 0xC2B2AE35 % 2**32
        return x ^ x >> 16

    if n == 1:
        return 0
    b = math.isqrt(n)
    if b * b < n or n % 2 == 1:
        b += 1
    q, r = divmod(position, b)
    for j in range(max(8, 4 + 2 * math.ceil(32 / (n - 1).bit_length()))):
        key = 0
        for word in (j + 1, n, *words, epoch):
            key = mix(word, key)
        if j % 2 == 0:
            m = math.ceil((n - r) / b)
            q = (q + mix(r, key) * m // 2**32) % m
        else:
            m = min(b, n - q * b)
            r = (r + mix(q, key) * m // 2**32) % m
    return q * b + r


@settings(deadline=None)
@given(counts, key_words, u32s, u32s)
@example(MAX_N, [MAX_N] * 4, MAX_N, 65535)
@example(65535**2, [0, 0], 0, 65536)
def test_values_are_those_of_the_definition(n: int, words: list[int], epoch: int, anywhere: int) -> None:
    position = [0, anywhere % n, n - 1]
    expected = [oracle(p, n, words, epoch) for p in position]
    assert values_at(np.array(position, np.uint32), n, words, epoch).tolist() == expected


@pytest.mark.parametrize(
    ("n", "position", "expected"),
    [
        (10, list(range(10)), [4, 1, 8, 2, 0, 6, 7, 3, 9, 5]),
        (1000, [0, 1, 2, 3, 999], [188, 302, 582, 398, 174]),
        (10**6, [0, 1, 2, 3, 999_999], [60079, 566646, 841942, 592384, 580655]),
        (MAX_N, [0, 1, 2, 3, MAX_N - 1], [3106788552, 3756786612, 2152367448, 3191245104, 1566250588]),
    ],
)
def test_version_1_of_the_order_never_changes(n: int, position: list[int], expected: list[int]) -> None:
    assert values_at(np.array(position, np.uint32), n).tolist() == expected


def test_round_keys_never_change() -> None:
    keys = [int(key) for key in round_keys(np, KEY, 0, 10**6)]
    assert keys[:4] == [0x198B6E80, 0x2A120A77, 0x572679BD, 0xA972FAD8]


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (2, 68),
        (3, 36),
        (4, 36),
        (5, 26),
        (128, 14),
        (129, 12),
        (1024, 12),
        (1025, 10),
        (32768, 10),
        (32769, 8),
    ],
)
def test_small_permutations_get_more_rounds(n: int, expected: int) -> None:
    assert num_rounds(n) == len(round_keys(np, KEY, 0, n)) == expected


@settings(deadline=None)
@given(counts)
@example(MAX_N)
@example(65535**2)
def test_a_grid_holds_every_cell_and_its_sides_fit_16_bits(n: int) -> None:
    cells = grid(n)
    assert cells.n == n == (cells.num_rows - 1) * cells.num_columns + cells.last_row
    assert 1 <= cells.last_row <= cells.num_columns
    assert max(cells.num_rows, cells.num_columns) <= 2**16


# A bijection, and its inverse.


def test_every_n_up_to_2000_is_a_bijection_with_an_inverse() -> None:
    for n in range(1, 2001):
        position = np.arange(n, dtype=np.uint32)
        keys = round_keys(np, KEY, n, n)
        value = permute(np, position, keys, n)
        assert (np.bincount(value, minlength=n) == 1).all(), n
        assert (unpermute(np, value, keys, n) == position).all(), n


@settings(deadline=None)
@given(counts, key_words, u32s, st.lists(u32s))
@example(MAX_N, [0, 0], 0, [])
@example(65535**2, [0, 0], 0, [])
def test_large_n_come_back_from_both_sides(n: int, words: list[int], epoch: int, anywhere: list[int]) -> None:
    position = np.concatenate([positions_near(n), np.array(anywhere, np.uint32) % np.uint32(n)])
    keys = round_keys(np, words, epoch, n)
    for there, back in ((permute, unpermute), (unpermute, permute)):
        value = there(np, position, keys, n)
        assert value.max() < n
        assert (back(np, value, keys, n) == position).all()


def test_one_cell_stays_where_it_is() -> None:
    keys = round_keys(np, KEY, 3, 1)
    assert permute(np, np.zeros(2, np.uint32), keys, 1).tolist() == [0, 0]
    assert unpermute(np, np.zeros(2, np.uint32), keys, 1).tolist() == [0, 0]


# NumPy and JAX, shapes and types.


@pytest.fixture(params=[False, True], ids=["32-bit types", "64-bit types"])
def x64(request: pytest.FixtureRequest) -> Iterator[bool]:
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", request.param)
    yield request.param
    jax.config.update("jax_enable_x64", before)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("n", "words"), [(1, KEY), (1000, (1, 2, 3, MAX_N)), (65535**2, KEY), (MAX_N, (1, 2, 3, MAX_N))]
)
def test_jit_gives_the_bits_of_numpy(n: int, words: tuple[int, ...]) -> None:
    @jax.jit
    def both(words: jax.Array, epoch: jax.Array, position: jax.Array) -> tuple[jax.Array, jax.Array]:
        keys = round_keys(jnp, words, epoch, n)
        return permute(jnp, position, keys, n), unpermute(jnp, position, keys, n)

    position = positions_near(n)
    words_array, epoch = np.array(words, np.uint32), np.uint32(MAX_N)
    keys = round_keys(np, words, epoch, n)
    for result, function in zip(both(words_array, epoch, position), (permute, unpermute), strict=True):
        expected = function(np, position, keys, n)
        assert result.dtype == expected.dtype == np.uint32
        assert np.asarray(result).tolist() == expected.tolist()


def test_eager_jax_gives_the_bits_of_numpy() -> None:
    n, position = 10**6, np.arange(100, dtype=np.uint32)
    keys = round_keys(jnp, jax.random.key_data(jax.random.key(42)), jnp.uint32(5), n)
    assert np.array_equal(permute(jnp, jnp.asarray(position), keys, n), values_at(position, n, epoch=5))


@pytest.mark.parametrize("xp", [np, jnp], ids=["numpy", "jax"])
def test_an_epoch_per_element_gives_what_each_epoch_gives_alone(xp: Any) -> None:
    n, position = 10**6, np.arange(90, dtype=np.uint32)
    epoch = position // np.uint32(30)  # u32[90]

    def both(position: Any, epoch: Any) -> tuple[Any, Any]:
        keys = round_keys(xp, KEY, epoch, n)
        value = permute(xp, position, keys, n)
        return value, unpermute(xp, value, keys, n)

    value, back = (both if xp is np else jax.jit(both))(position, epoch)
    alone = [values_at(position, n, epoch=e)[30 * e : 30 * e + 30] for e in range(3)]
    assert np.asarray(value).tolist() == np.concatenate(alone).tolist()
    assert np.asarray(back).tolist() == position.tolist()


@pytest.mark.parametrize("n", [1, 10])
@pytest.mark.parametrize("xp", [np, jnp], ids=["numpy", "jax"])
@pytest.mark.parametrize(
    ("position", "epoch", "result"),
    [
        ((), (), ()),
        ((5,), (), (5,)),
        ((), (5,), (5,)),
        ((4, 5), (4, 1), (4, 5)),
        ((1, 5), (4, 1), (4, 5)),
        ((0,), (), (0,)),
    ],
)
def test_shapes_broadcast_and_types_stay(
    xp: Any, n: int, position: tuple[int, ...], epoch: tuple[int, ...], result: tuple[int, ...]
) -> None:
    def both(position: Any, epoch: Any) -> tuple[Any, Any]:
        keys = round_keys(xp, KEY, epoch, n)
        return permute(xp, position, keys, n), unpermute(xp, position, keys, n)

    arguments = np.zeros(position, np.uint32), np.zeros(epoch, np.uint32)
    for array in both(*arguments) if xp is np else jax.eval_shape(both, *arguments):
        assert (array.shape, array.dtype) == (result, np.uint32)


def test_arguments_are_left_as_they_were() -> None:
    words, epoch, position = (
        np.array(KEY, np.uint32),
        np.arange(9, dtype=np.uint32),
        np.arange(9, dtype=np.uint32),
    )
    keys = round_keys(np, words, epoch, 9)
    kept = [key.copy() for key in keys]
    unpermute(np, permute(np, position, keys, 9), keys, 9)
    assert words.tolist() == list(KEY)
    assert epoch.tolist() == position.tolist() == list(range(9))
    assert all(np.array_equal(key, copy) for key, copy in zip(keys, kept, strict=True))


def test_a_key_may_be_scalars_or_one_array_and_may_be_mapped_over() -> None:
    n, words, position = 10**6, np.array([[0, 42], [7, 8]], np.uint32), np.arange(100, dtype=np.uint32)
    mapped = jax.jit(jax.vmap(lambda w, e: permute(jnp, position, round_keys(jnp, w, e, n), n)))(words, words[:, 1])
    for row, (high, low) in zip(mapped, words, strict=True):
        from_array = permute(np, position, round_keys(np, np.array([high, low]), low, n), n)
        assert np.asarray(row).tolist() == from_array.tolist()
        assert from_array.tolist() == values_at(position, n, (int(high), int(low)), int(low)).tolist()


# Statistics.


def deviation(observed: np.ndarray, expected: np.ndarray | float, freedom: int) -> float:
    """Chi-square of the counts as standard deviations from its mean (Wilson and Hilferty, 1931)."""
    chi_square = float(((observed - expected) ** 2 / expected).sum())
    spread = 2 / (9 * freedom)
    return (math.cbrt(chi_square / freedom) - (1 - spread)) / math.sqrt(spread)


def order_deviation(n: int, words: Sequence[int], num_epochs: int, rounds: int | None = None) -> float:
    """How far the orders of many epochs are from uniform over all n!."""
    position = np.arange(n, dtype=np.uint32)[None]  # u32[1, n]
    epoch = np.arange(num_epochs, dtype=np.uint32)[:, None]  # u32[num_epochs, 1]
    value = values_at(position, n, words, epoch, rounds)  # u32[num_epochs, n]
    code = value @ (n ** np.arange(n, dtype=np.uint32)).astype(np.uint32)  # one number per order
    occurring, observed = np.unique(code, return_counts=True)
    missing = math.factorial(n) - len(occurring)
    observed = np.concatenate([observed, np.zeros(missing, observed.dtype)])
    return deviation(observed, num_epochs / math.factorial(n), math.factorial(n) - 1)


@pytest.mark.parametrize("words", [KEY, (0, 0), (1, 2, 3, 4)], ids=str)
@pytest.mark.parametrize("n", [2, 3, 4, 5, 6])
def test_all_orders_of_a_few_records_are_equally_likely(n: int, words: tuple[int, ...]) -> None:
    assert abs(order_deviation(n, words, 200 * 720)) < 5


def test_all_orders_are_equally_likely_over_seeds_too() -> None:
    n, seeds = 4, jnp.arange(24 * 1000, dtype=jnp.uint32)
    position = np.arange(n, dtype=np.uint32)
    orders = jax.jit(jax.vmap(lambda seed: permute(jnp, position, round_keys(jnp, (0, seed), 0, n), n)))(seeds)
    _, observed = np.unique(np.asarray(orders), axis=0, return_counts=True)
    assert len(observed) == 24
    assert abs(deviation(observed, 1000, 23)) < 5


@pytest.mark.parametrize("n", [3, 4, 5, 6])
def test_too_few_rounds_would_be_seen_in_the_orders(n: int) -> None:
    assert order_deviation(n, KEY, 200 * 720, rounds=4) > 20


@pytest.mark.parametrize("n", [8, 9, 25, 49])
def test_half_of_all_orders_are_odd_permutations(n: int) -> None:
    epoch = np.arange(4000, dtype=np.uint32)[:, None]
    value = values_at(np.arange(n, dtype=np.uint32)[None], n, epoch=epoch)  # u32[4000, n]
    inversions = np.zeros(len(epoch), np.int64)
    for i in range(n - 1):
        inversions += (value[:, i + 1 :] < value[:, i : i + 1]).sum(axis=1)
    num_odd = int((inversions % 2).sum())
    assert abs(num_odd - 2000) < 5 * math.sqrt(4000 / 4)


def class_counts(n: int, batch_size: int, first: int, num_epochs: int, rounds: int | None = None) -> np.ndarray:
    """Count the records of ten classes in one batch of each epoch, labels sorted: i64[num_epochs, 10]."""
    position = np.arange(first, first + batch_size, dtype=np.uint32)[None]
    epoch = np.arange(num_epochs, dtype=np.uint32)[:, None]
    label = values_at(position, n, epoch=epoch, rounds=rounds) // np.uint32(n // 10)
    return np.stack([(label == c).sum(axis=1) for c in range(10)], axis=1)


def hypergeometric_deviation(observed: np.ndarray, n: int, batch_size: int) -> float:
    """How far the counts of one class of n / 10 records are from the hypergeometric law."""
    size = n // 10
    law = [
        math.comb(size, k) * math.comb(n - size, batch_size - k) / math.comb(n, batch_size)
        for k in range(batch_size + 1)
    ]
    expected = len(observed) * np.array(law)
    inner = np.flatnonzero(expected > 20)  # one bin per count here, the tails join the outermost two
    low, high = int(inner[0]), int(inner[-1])
    bins = np.bincount(np.clip(observed, low, high) - low, minlength=high - low + 1)
    folded = expected[low : high + 1].copy()
    folded[0] += expected[:low].sum()
    folded[-1] += expected[high + 1 :].sum()
    return deviation(bins, folded, len(folded) - 1)


def mean_balance(observed: np.ndarray, n: int, batch_size: int) -> float:
    """How far the mean chi-square of the batches' ten counts is from its exact value, in standard errors."""
    chi_squares = ((observed - batch_size / 10) ** 2 / (batch_size / 10)).sum(axis=1)
    exact = 9 * (n - batch_size) / (n - 1)
    return float((chi_squares.mean() - exact) / (chi_squares.std() / math.sqrt(len(chi_squares))))


@pytest.mark.parametrize(
    ("n", "batch_size", "first"), [(1000, 100, 0), (1000, 100, 900), (10**4, 256, 0), (10**6, 256, 123_456)]
)
def test_batches_of_sorted_labels_follow_the_hypergeometric_law(n: int, batch_size: int, first: int) -> None:
    observed = class_counts(n, batch_size, first, 2**21 // batch_size)
    for c in range(10):
        assert abs(hypergeometric_deviation(observed[:, c], n, batch_size)) < 5, c
    assert abs(mean_balance(observed, n, batch_size)) < 5


def test_too_few_rounds_would_be_seen_in_the_batches() -> None:
    observed = class_counts(1000, 100, 900, 2**21 // 100, rounds=4)
    assert abs(mean_balance(observed, 1000, 100)) > 10


def relation(x: np.ndarray, y: np.ndarray) -> tuple[float, float, int]:
    """Correlation and 16 x 16 contingency of two orders, in standard deviations; number of agreements."""
    n = len(x)
    correlation = float(np.corrcoef(x, y)[0, 1]) * math.sqrt(n - 1)
    cells = (x.astype(np.int64) * 16 // n) * 16 + y.astype(np.int64) * 16 // n
    width = np.bincount(np.arange(n) * 16 // n)
    expected = np.outer(width, width).ravel() / n
    contingency = deviation(np.bincount(cells, minlength=256), expected, 15 * 15)
    return correlation, contingency, int((x == y).sum())


@pytest.mark.parametrize(
    ("first", "second"),
    [((0, 0), (0, 1)), ((0, 0), (1, 0)), ((1, 0), (0, 1))],
    ids=["epochs e and e + 1", "seeds s and s + 1", "(s + 1, e) and (s, e + 1)"],
)
@pytest.mark.parametrize("n", [5000, 99_999])
def test_neighbouring_orders_are_unrelated(n: int, first: tuple[int, int], second: tuple[int, int]) -> None:
    position = np.arange(n, dtype=np.uint32)
    correlations = []
    for seed, epoch in itertools.product((0, 42, 2**31, MAX_N - 1), (0, 1, 255)):
        x, y = (values_at(position, n, (0, seed + s), epoch + e) for s, e in (first, second))
        for lag in (0, 1):
            correlation, contingency, num_agreeing = relation(np.roll(x, lag), y)
            assert abs(contingency) < 5
            assert num_agreeing < 12  # Poisson of mean 1
            correlations.append(correlation)
    assert max(map(abs, correlations)) < 5
    assert abs(sum(correlations)) / math.sqrt(len(correlations)) < 5


def test_neighbouring_records_are_unrelated_in_one_order() -> None:
    n = 99_999
    for epoch in range(20):
        value = values_at(np.arange(n, dtype=np.uint32), n, epoch=epoch)
        correlation, contingency, _ = relation(np.roll(value, 1), value)
        assert abs(correlation) < 5
        assert abs(contingency) < 5


@pytest.mark.parametrize("words", [(0, 42), (5, 6, 7, 8)], ids=["two words", "four words"])
def test_every_bit_of_every_key_word_and_of_the_epoch_changes_the_order(words: tuple[int, ...]) -> None:
    n, position = 10**6, np.arange(64, dtype=np.uint32)
    seen = {values_at(position, n, words, 9).tobytes()}
    for lane, bit in itertools.product(range(len(words) + 1), range(32)):
        flipped = [*words, 9]
        flipped[lane] ^= 1 << bit
        seen.add(values_at(position, n, flipped[:-1], flipped[-1]).tobytes())
    assert len(seen) == 1 + 32 * (len(words) + 1)


def test_a_longer_key_is_not_its_beginning() -> None:
    position = np.arange(64, dtype=np.uint32)
    orders = {values_at(position, 10**6, words, 0).tobytes() for words in [(0, 42), (0, 42, 0, 0), (0, 0, 0, 42)]}
    assert len(orders) == 3
