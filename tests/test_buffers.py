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
        assert sum(buffer.nbytes for buffer in pool._buffers) <= 1_000_000


def test_what_does_not_fit_is_not_kept() -> None:
    pool = BufferPool(100_000)
    large = pool.take(200_000)
    small = pool.take(90_000)
    assert len(pool._buffers) == 1
    assert pool.take(50_000).nbytes == 50_000
    assert len(pool._buffers) == 1
    del large, small
    pool.take(20_000)
    assert [buffer.nbytes < 30_000 for buffer in pool._buffers] == [True]


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
    assert sum(buffer.nbytes for buffer in pool._buffers) <= 4_000_000
