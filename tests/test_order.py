"""Which record stands where: the orders of an epoch, their inverses, and their bits in NumPy and JAX."""

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from arsrc.order import record_order
from arsrc.order.blocks import Blocks
from arsrc.order.plan import Plan

KEY = (0, 42)
MAX = 2**32 - 1

u32s = st.integers(0, MAX)
key_words = st.lists(u32s, min_size=2, max_size=2) | st.lists(u32s, min_size=4, max_size=4)


def plan_of(num_records: int, **fields: Any) -> Plan:
    defaults = {
        "batch_size": 1,
        "num_epochs": -1,
        "remainder": "drop",
        "shuffle_records": False,
        "file_sizes": (),
    }
    return Plan(num_records=num_records, **defaults | fields)


def by_records(num_records: int, **fields: Any) -> Plan:
    return plan_of(num_records, shuffle_records=True, **fields)


def by_files(sizes: Sequence[int], **fields: Any) -> Plan:
    return plan_of(sum(sizes), file_sizes=tuple(sizes), **fields)


def by_blocks(num_records: int, block_size: int, window_blocks: int, **fields: Any) -> Plan:
    blocks = Blocks(num_records, block_size, block_size * window_blocks)
    return plan_of(num_records, shuffle_records=True, blocks=blocks, **fields)


def u32(values: Any) -> np.ndarray:
    return np.asarray(values, np.uint32)


def ids_of(plan: Plan, epoch: int = 0, words: Sequence[int] = KEY, position: Any = None) -> list[int]:
    """List the record ids at positions of an epoch, at all by default."""
    position = np.arange(plan.num_records) if position is None else position
    ids = record_order.record_at(np, plan, u32(words), u32([epoch]), u32(position))
    assert ids.dtype == np.uint32
    return ids.tolist()


def positions_of(plan: Plan, epoch: int, words: Sequence[int], record_id: Any) -> list[int]:
    position = record_order.position_of(np, plan, u32(words), u32([epoch]), u32(record_id))
    assert position.dtype == np.uint32
    return position.tolist()


sizes = st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any)
plans = (
    st.integers(1, 90).map(plan_of)
    | st.integers(1, 90).map(by_records)
    | sizes.map(by_files)
    | st.builds(by_blocks, st.integers(1, 90), st.integers(2, 12), st.integers(1, 5))
)


# Every order.


@given(plans, u32s, key_words)
@example(by_files([0, 0, 1, 0]), 0, [0, 42])
@example(by_files([5]), MAX, [0, 42])
@example(by_blocks(3, 10, 2), 1, [0, 42])
@example(by_blocks(90, 10, 3), 1, [0, 42])
@example(by_blocks(61, 10, 3), 1, [0, 42])
@example(by_blocks(60, 10, 30), 1, [0, 42])
@example(by_records(1), 1, [0, 42])
def test_an_epoch_holds_every_record_once_and_knows_where(plan: Plan, epoch: int, words: list[int]) -> None:
    ids = ids_of(plan, epoch, words)
    assert sorted(ids) == list(range(plan.num_records))
    positions = positions_of(plan, epoch, words, range(plan.num_records))
    assert [ids[position] for position in positions] == list(range(plan.num_records))


def test_records_come_as_stored_without_a_shuffle() -> None:
    assert ids_of(plan_of(7), epoch=3) == list(range(7))
    assert positions_of(plan_of(7), 3, KEY, [6, 0]) == [6, 0]


SHUFFLED = {
    "records": by_records(100),
    "files": by_files([2, 3, 0, 1, 4, 2, 2, 5, 1, 3, 2, 2]),
    "blocks": by_blocks(100, 7, 3),
}
shuffled = pytest.mark.parametrize("plan", SHUFFLED.values(), ids=SHUFFLED)


@shuffled
def test_orders_differ_between_epochs_and_between_seeds(plan: Plan) -> None:
    grid = itertools.product(range(40, 46), range(6))
    orders = {(seed, epoch): tuple(ids_of(plan, epoch, (0, seed))) for seed, epoch in grid}
    assert len(set(orders.values())) == len(orders)
    assert orders[42, 1] != orders[43, 0]
    assert orders[42, 1] != orders[41, 2]


@shuffled
def test_the_same_epoch_of_the_same_key_has_the_same_order(plan: Plan) -> None:
    assert ids_of(plan, 5, (1, 2)) == ids_of(plan, 5, (1, 2))


@shuffled
def test_every_word_of_the_key_changes_the_order(plan: Plan) -> None:
    words = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (0, 0)]
    assert len({tuple(ids_of(plan, 0, w)) for w in words}) == len(words)


@pytest.mark.parametrize("plan", [SHUFFLED["records"], SHUFFLED["blocks"]], ids=["records", "blocks"])
def test_all_records_come_first_about_equally_often(plan: Plan) -> None:
    epochs = np.arange(4000, dtype=np.uint32)
    firsts = np.bincount(record_order.record_at(np, plan, u32(KEY), epochs, np.zeros_like(epochs)), minlength=100)
    assert abs(firsts - 40).max() < 6 * 40**0.5


# Files.


def runs_of(ids: Sequence[int], file_sizes: Sequence[int]) -> list[int]:
    """List the files in the order of an epoch; each file's records must be together and in order."""
    base = np.cumsum([0, *file_sizes])
    starts = {int(base[file]): file for file, size in enumerate(file_sizes) if size}
    files, rest = [], list(ids)
    while rest:
        file = starts[rest[0]]
        size = file_sizes[file]
        assert rest[:size] == list(range(int(base[file]), int(base[file]) + size))
        files.append(file)
        rest = rest[size:]
    return files


@given(sizes, st.integers(0, 100), key_words)
def test_shuffled_files_keep_their_records_together_and_in_order(
    file_sizes: list[int], epoch: int, words: list[int]
) -> None:
    files = runs_of(ids_of(by_files(file_sizes), epoch, words), file_sizes)
    assert sorted(files) == [file for file, size in enumerate(file_sizes) if size]


def test_all_orders_of_three_files_occur_about_equally_often() -> None:
    file_sizes = [3, 1, 2]
    plan = by_files(file_sizes)
    seen = Counter(tuple(runs_of(ids_of(plan, epoch), file_sizes)) for epoch in range(300))
    assert set(seen) == set(itertools.permutations(range(3)))
    assert all(abs(count - 50) < 5 * 50**0.5 for count in seen.values())


def test_files_up_to_the_largest_data_set_are_found() -> None:
    file_sizes = [2**31, 0, 1, 2**31 - 3, 1]
    plan = by_files(file_sizes)
    assert plan.num_records == MAX
    base = np.cumsum([0, *file_sizes])
    for epoch in range(6):
        corners = [p for start in base[:-1] for p in (int(start), int(start) - 1) if 0 <= p < MAX] + [MAX - 1]
        positions = positions_of(plan, epoch, KEY, corners)
        assert max(positions) < MAX
        assert ids_of(plan, epoch, position=positions) == corners
        for first, size in zip(base.tolist(), file_sizes, strict=False):
            if size > 1:
                start, second, last = positions_of(plan, epoch, KEY, [first, first + 1, first + size - 1])
                assert (second, last) == (start + 1, start + size - 1)


# Blocks.


def blocks_in(ids: Sequence[int], plan: Plan) -> set[int]:
    """Say from which blocks records come; the rest that fills no block counts as one."""
    assert plan.blocks is not None
    return {i // plan.blocks.block_size for i in ids}


@given(st.integers(1, 6), st.integers(2, 9), st.integers(1, 5), st.integers(0, 100), key_words)
def test_a_window_holds_whole_blocks(
    num_windows: int, block_size: int, window_blocks: int, epoch: int, words: list[int]
) -> None:
    window = block_size * window_blocks
    plan = by_blocks(num_windows * window, block_size, window_blocks)
    ids = ids_of(plan, epoch, words)
    for start in range(0, len(ids), window):
        inside = ids[start : start + window]
        assert len(blocks_in(inside, plan)) == window_blocks
    assert len(blocks_in(ids, plan)) == num_windows * window_blocks


@given(st.integers(10, 200), st.integers(2, 9), st.integers(1, 5), st.integers(0, 100))
def test_a_window_touches_few_blocks_where_the_last_block_is_short(
    num_records: int, block_size: int, window_blocks: int, epoch: int
) -> None:
    plan = by_blocks(num_records, block_size, window_blocks)
    assume(plan.blocks is not None and plan.blocks.tail)
    window = block_size * window_blocks
    ids = ids_of(plan, epoch)
    touched = sum(len(blocks_in(ids[start : start + window], plan)) for start in range(0, len(ids), window))
    num_blocks = -(-num_records // block_size)
    assert num_blocks <= touched <= num_blocks + 2  # the short block and its partner may come twice


def test_records_of_a_window_are_mixed_and_windows_hold_other_blocks_each_epoch() -> None:
    plan = by_blocks(1000, 10, 4)
    windows = [ids_of(plan, epoch)[:40] for epoch in range(20)]
    assert len({frozenset(window) for window in windows}) == 20
    assert all(sorted(window) != window for window in windows)
    # Neighbours in a file are as a rule no neighbours in the stream.
    pairs = [b - a == 1 for window in windows for a, b in itertools.pairwise(window)]
    assert sum(pairs) < len(pairs) / 10


def test_with_blocks_no_record_stands_last_more_often_than_another() -> None:
    """A dropped rest must not be the same few records, whichever window they fall into."""
    num_epochs = 4000
    for num_records, block_size, window_blocks in ((103, 10, 2), (117, 10, 2), (7, 10, 2)):
        plan = by_blocks(num_records, block_size, window_blocks)
        epoch = np.repeat(np.arange(num_epochs, dtype=np.uint32), 3)
        position = np.tile(u32([num_records - 3, num_records - 2, num_records - 1]), num_epochs)
        lasts = np.bincount(record_order.record_at(np, plan, u32(KEY), epoch, position), minlength=num_records)
        mean = 3 * num_epochs / num_records
        assert abs(lasts - mean).max() < 6 * mean**0.5, plan.blocks


def test_largest_block_orders_come_back() -> None:
    corners = [0, 1, 2**31, MAX - 2, MAX - 1]
    for block_size, window_blocks in ((2, 1), (7, 32), (1000, 1000), (2**31, 1), (2**16, 2**15)):
        plan = by_blocks(MAX, block_size, window_blocks)
        ids = ids_of(plan, 3, position=corners)
        assert max(ids) < MAX
        assert positions_of(plan, 3, KEY, ids) == corners
        positions = positions_of(plan, 3, KEY, corners)
        assert max(positions) < MAX
        assert ids_of(plan, 3, position=positions) == corners


# NumPy and JAX.


def positions_for(plan: Plan) -> np.ndarray:
    """All positions of a small epoch, both ends of a large one."""
    n = plan.num_records
    return u32(range(n) if n < 1000 else [*range(20), n // 2, *range(n - 20, n)])


ON_DEVICE = {
    **SHUFFLED,
    "most records": by_records(MAX),
    "most files": by_files([2**31, 0, 1, 2**31 - 3, 1]),
    "files, several epochs in a batch": by_files([3, 0, 1, 5], batch_size=20, remainder="wrap"),
    "most blocks": by_blocks(MAX, 1000, 32),
}


@pytest.mark.parametrize(
    ("name", "words"),
    [*((name, KEY) for name in ON_DEVICE), *((name, (1, 2, 3, MAX)) for name in SHUFFLED)],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)} words",
)
def test_jit_gives_the_bits_of_numpy(name: str, words: tuple[int, ...]) -> None:
    plan = ON_DEVICE[name]
    position = positions_for(plan)

    @jax.jit
    def both(words: jax.Array, epoch: jax.Array) -> tuple[jax.Array, jax.Array]:
        ids = record_order.record_at(jnp, plan, words, epoch, jnp.asarray(position))
        return ids, record_order.position_of(jnp, plan, words, epoch, jnp.asarray(position))

    for epoch in (0, 1, MAX):
        for array, function in zip(
            both(u32(words), u32(epoch)), (record_order.record_at, record_order.position_of), strict=True
        ):
            expected = function(np, plan, u32(words), u32([epoch]), position)
            assert array.dtype == np.uint32
            assert np.array_equal(array, expected)


@pytest.mark.parametrize("first", [7, MAX - 1])  # epochs count modulo 2**32
@pytest.mark.parametrize("name", ["records", "files, several epochs in a batch", "blocks"])
def test_an_epoch_for_each_position_gives_what_each_epoch_gives_alone(name: str, first: int) -> None:
    plan = ON_DEVICE[name]
    if plan.remainder != "wrap" and not plan.blocks:
        plan = by_records(100, batch_size=300, remainder="wrap")
    most = min(plan.epochs_in_batch, 3) if plan.remainder == "wrap" else 3
    position = np.tile(np.arange(plan.num_records, dtype=np.uint32), most)
    each = u32([(first + later) % 2**32 for later in range(most)])
    epochs = np.repeat(each, plan.num_records)
    alone = [i for epoch in each.tolist() for i in ids_of(plan, epoch)]
    assert record_order.record_at(np, plan, u32(KEY), epochs, position).tolist() == alone
    in_jit = jax.jit(lambda e, p: record_order.record_at(jnp, plan, jnp.asarray(u32(KEY)), e, p))(epochs, position)
    assert np.asarray(in_jit).tolist() == alone
