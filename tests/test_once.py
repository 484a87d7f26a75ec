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

    once = Once()

    def ask(_: int) -> str:
        all_here.wait()
        return once.get(load)

    assert once.value is None
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(ask, range(4))) == ["value"] * 4
    assert num_loads == 1
    assert once.value is not None


def test_an_error_is_raised_to_who_asked_and_the_next_tries_again() -> None:
    errors = iter([ValueError("first"), ValueError("second")])

    def load() -> str:
        for error in errors:
            raise error
        return "value"

    once = Once()
    for text in ("first", "second"):
        with pytest.raises(ValueError, match=text):
            once.get(load)
        assert once.value is None
    assert once.get(load) == "value"


def test_where_the_first_is_interrupted_the_next_loads() -> None:
    interrupts = iter([KeyboardInterrupt])

    def load() -> int:
        for interrupt in interrupts:
            raise interrupt
        return 3

    once = Once()
    with pytest.raises(KeyboardInterrupt):
        once.get(load)
    assert once.value is None
    assert once.get(load) == 3
