"""Values that several threads want and one of them loads."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from arsrc._host.machine.once import Once


def test_many_threads_share_one_load() -> None:
    num_loads = 0
    all_here = threading.Barrier(4)

    def load() -> str:
        nonlocal num_loads
        num_loads += 1
        threading.Event().wait(0.05)
        return "value"

    once = Once(load)

    def ask(_: int) -> str:
        all_here.wait()
        return once.get()

    assert not once.is_good()
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(ask, range(4))) == ["value"] * 4
    assert num_loads == 1
    assert once.is_good()


def test_an_error_is_raised_for_all_who_ask() -> None:
    errors = iter([ValueError("first"), ValueError("second")])

    def load() -> None:
        raise next(errors)

    once = Once(load)
    for _ in range(3):
        with pytest.raises(ValueError, match="first"):
            once.get()
    assert not once.is_good()


def test_where_the_first_is_interrupted_the_next_loads() -> None:
    interrupts = iter([KeyboardInterrupt])

    def load() -> int:
        for interrupt in interrupts:
            raise interrupt
        return 3

    once = Once(load)
    with pytest.raises(KeyboardInterrupt):
        once.get()
    assert not once.is_good()
    assert once.get() == 3
