"""Memory that is used again: never while anybody still refers to it."""

import gc
import threading
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arsrc._host.machine.buffers import BufferPool

MANY = 1 << 26


def kept_bytes(pool: BufferPool) -> int:
    return sum(block.num_bytes for block in pool._blocks)


def test_memory_that_nobody_refers_to_is_given_out_again() -> None:
    pool = BufferPool(MANY)
    address = pool.take(100_000).ctypes.data
    assert pool.take(100_000).ctypes.data == address
    assert pool.take(90_000).ctypes.data == address


@pytest.mark.parametrize("num_bytes", [1, 4_096, 100_001, 1 << 20])
def test_memory_begins_where_jax_can_use_it_without_a_copy(num_bytes: int) -> None:
    pool = BufferPool(MANY)
    for _ in range(3):
        array = pool.take(num_bytes)
        assert array.ctypes.data % 64 == 0
        assert len(array) == num_bytes
    held = [pool.take(num_bytes) for _ in range(5)]
    assert len({array.ctypes.data for array in held}) == 5


def in_a_cycle(array: np.ndarray) -> Any:
    cycle: list[Any] = [array[:3]]
    cycle.append(cycle)
    return cycle


HOLDERS: dict[str, Callable[[np.ndarray], Any]] = {
    "array": lambda array: array,
    "view": lambda array: array[10:20],
    "view of a view": lambda array: array.reshape(-1, 4)[3:][::2].view(np.int32),
    "memoryview": lambda array: memoryview(array)[5:9],
    "frombuffer": lambda array: np.frombuffer(array, np.uint16),
    "jax": jax.device_put,
    "dlpack": np.from_dlpack,
    "closure": lambda array: lambda: array[0],
    "cycle": in_a_cycle,
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_memory_is_not_given_out_while_something_refers_to_it(holder: str) -> None:
    pool = BufferPool(MANY)
    array = pool.take(4_096 * 16)
    array[:] = 1
    address = array.ctypes.data
    held = HOLDERS[holder](array)
    if holder == "jax":
        held.block_until_ready()
    del array
    for _ in range(3):
        other = pool.take(4_096 * 16)
        if holder != "jax":  # which copies, or not, as it likes
            assert other.ctypes.data != address
        other[:] = 2
    if holder == "jax":
        assert (np.asarray(held) == 1).all()
    del held, other
    gc.collect()
    taken = [pool.take(4_096 * 16) for _ in range(4)]
    assert address in [array.ctypes.data for array in taken]


@given(st.lists(st.tuples(st.integers(0, 300_000), st.booleans()), max_size=40))
def test_arrays_have_their_size_and_never_overlap(requests: list[tuple[int, bool]]) -> None:
    pool = BufferPool(1_000_000)
    held: list[tuple[np.ndarray, int]] = []
    for number, (num_bytes, keep) in enumerate(requests):
        array = pool.take(num_bytes)
        assert (array.dtype, array.shape) == (np.uint8, (num_bytes,))
        assert array.flags.c_contiguous
        assert array.flags.writeable
        array[:] = number
        if keep:
            held.append((array, number))
        del array
        assert all((kept == value).all() for kept, value in held)
        assert kept_bytes(pool) <= 1_000_000


def test_what_does_not_fit_is_not_kept() -> None:
    pool = BufferPool(100_000)
    large = pool.take(200_000)
    small = pool.take(90_000)
    assert pool.idle_bytes == 0
    assert 90_000 <= kept_bytes(pool) <= 100_000
    assert pool.take(50_000).nbytes == 50_000
    assert pool.idle_bytes == 0
    del large, small
    assert 90_000 <= pool.idle_bytes <= 100_000
    pool.take(20_000)  # there is room for it only in place of the other
    assert 20_000 <= pool.idle_bytes < 30_000


def test_idle_memory_is_let_go_of_on_demand_and_what_is_lent_never() -> None:
    pool = BufferPool(MANY)
    lent = [pool.take(100_000) for _ in range(5)]
    for number, array in enumerate(lent):
        array[:] = number
    assert pool.idle_bytes == 0
    del lent[:3], array
    each = pool.idle_bytes // 3
    assert each >= 100_000
    pool.shrink(3 * each)
    assert pool.idle_bytes == 3 * each
    pool.shrink(2 * each - 1)
    assert pool.idle_bytes == each
    pool.shrink(0)
    assert pool.idle_bytes == 0
    again = [pool.take(100_000) for _ in range(3)]
    for array in again:
        array[:] = 9
    assert [set(array.tolist()) for array in lent] == [{3}, {4}]
    assert kept_bytes(pool) == 5 * each


def test_an_array_outlives_its_pool() -> None:
    pool = BufferPool(MANY)
    array = pool.take(1 << 20)
    array[:] = 7
    view = array[5:]
    del pool, array
    others = [np.zeros(1 << 20, np.uint8) for _ in range(20)]
    assert (view == 7).all()
    del others


def test_an_array_may_die_while_its_pool_is_busy() -> None:
    """The collector runs whenever it likes: also inside a locked section of the same thread."""
    pool = BufferPool(MANY)
    cycle = in_a_cycle(pool.take(100_000))
    with pool._lock:
        del cycle
        gc.collect()
    assert pool.idle_bytes >= 100_000


def test_jax_uses_an_array_without_a_copy_and_it_is_not_given_out_meanwhile() -> None:
    pool = BufferPool(MANY)
    array = pool.take(1 << 20)
    array[:] = 1
    address = array.ctypes.data
    alias = jax.device_put(array, may_alias=True)
    assert alias.unsafe_buffer_pointer() == address
    del array
    gc.collect()
    other = pool.take(1 << 20)
    assert other.ctypes.data != address
    other[:] = 2
    assert (np.asarray(alias) == 1).all()
    del alias
    gc.collect()
    assert pool.take(1 << 20).ctypes.data == address


def test_threads_never_share_memory() -> None:
    pool = BufferPool(4_000_000)
    wrong: list[int] = []

    def work(seed: int) -> None:
        draw = np.random.default_rng(seed)
        held: list[tuple[np.ndarray, int]] = []
        for _ in range(400):
            array = pool.take(int(draw.integers(1, 60_000)))
            value = int(draw.integers(256))
            array[:] = value
            held.append((array[:: int(draw.integers(1, 4))], value))
            del array
            if len(held) > 4:
                kept, value = held.pop(int(draw.integers(4)))
                if not (kept == value).all():
                    wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert kept_bytes(pool) <= 4_000_000
    assert pool.idle_bytes == kept_bytes(pool) > 0
