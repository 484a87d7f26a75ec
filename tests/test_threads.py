"""Many values computed: by one thread while none of them waits, by many from there on."""

import threading
import time
from typing import Any

import pytest
from interrupting import at_step

from arsrc._host.machine import threads
from arsrc._host.machine.threads import on_threads


def whose(value: Any) -> tuple[Any, bool]:
    if value == "slow":
        time.sleep(0.03)
    return value, threading.current_thread() is threading.main_thread()


def test_what_does_not_wait_is_done_on_the_thread_that_asks() -> None:
    assert on_threads(whose, range(100)) == [(value, True) for value in range(100)]
    assert on_threads(whose, []) == []


def test_from_the_first_that_waits_on_others_help() -> None:
    values = [0, 1, "slow", 3, "slow", 5, *["slow"] * 30]
    start = time.monotonic()
    assert on_threads(whose, values) == [(value, row < 3) for row, value in enumerate(values)]
    assert time.monotonic() - start < 0.03 * 32


@pytest.mark.parametrize("values", [["bad"], ["slow", "bad", 1]], ids=["here", "on threads"])
def test_an_error_reaches_whoever_asked(values: list[Any]) -> None:
    def fail(value: Any) -> Any:
        if value == "bad":
            raise OSError("bad")
        return whose(value)

    with pytest.raises(OSError, match="bad"):
        on_threads(fail, values)


def test_a_fork_has_no_other_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "is_forked", lambda: True)
    assert on_threads(whose, ["slow", 1, 2]) == [("slow", True), (1, True), (2, True)]


def test_tasks_are_done_wherever_an_interrupt_comes_while_a_thread_is_begun() -> None:
    number, is_interrupted = 1, True

    def hit() -> None:
        raise KeyboardInterrupt

    while is_interrupted:
        is_interrupted = False
        workers, done = threads.Workers("arsrc-test"), threading.Event()
        try:
            at_step(number, hit, lambda workers=workers: workers.submit(lambda: None, 1))  # type: ignore[misc]
        except KeyboardInterrupt:
            is_interrupted = True
        workers.submit(done.set, 1)
        assert done.wait(10), number
        workers.close()
        workers.wait(10)
        assert not workers._threads
        number += 1
    assert number > 5


def test_tasks_that_are_handed_over_at_once_are_done_at_once_although_one_thread_waits_for_some() -> None:
    for _ in range(20):
        workers, together, done = threads.Workers("arsrc-test"), threading.Barrier(3), threading.Event()
        workers.submit(done.set, 2)
        assert done.wait(10)
        while not workers.is_idle:
            time.sleep(1e-3)
        for _ in range(2):
            workers.submit(lambda together=together: together.wait(5) and None, 2)  # type: ignore[misc]
        together.wait(5)  # each of the tasks ends with the other one alone
        assert workers.num_threads == 2
        workers.close()
        workers.wait(10)


def test_a_thread_that_waits_is_given_the_next_task_and_no_other_is_begun() -> None:
    workers = threads.Workers("arsrc-test")
    for _ in range(20):
        done = threading.Event()
        workers.submit(done.set, 8)
        assert done.wait(10)
        while not workers.is_idle:
            time.sleep(1e-3)
    assert workers.num_threads == 1
    workers.close()
    workers.wait(10)


def test_an_error_of_any_kind_reaches_whoever_asked_for_work_on_threads() -> None:
    def fails() -> None:
        raise IndexError("of its own")

    with pytest.raises(IndexError, match="of its own"):
        threads.on_new_thread(fails)
