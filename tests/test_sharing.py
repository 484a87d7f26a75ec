"""The rows of a batch on several threads: each once, the first error, and nothing that stays behind."""

import os
import sys
import threading
import time

import numpy as np
import pytest

from arsrc._host.machine import sharing
from arsrc._host.machine.sharing import on_rows


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "num_cores", lambda: 4)


def slow(_: int) -> None:
    time.sleep(2e-3)


@pytest.mark.parametrize("num_rows", [0, 1, 2, 3, 50])
def test_each_row_is_done_once(num_rows: int) -> None:
    done: list[int] = []

    def work(row: int) -> None:
        slow(row)
        done.append(row)

    on_rows(work, num_rows)
    assert sorted(done) == list(range(num_rows))


def test_rows_that_take_a_while_are_done_on_several_threads_which_end_with_the_call() -> None:
    threads: set[threading.Thread] = set()

    def work(row: int) -> None:
        threads.add(threading.current_thread())
        slow(row)

    on_rows(work, 40)
    assert len(threads) == 4
    for thread in threads - {threading.current_thread()}:
        thread.join(5)
        assert not thread.is_alive()


def test_rows_that_are_quick_stay_on_the_calling_thread() -> None:
    threads: set[threading.Thread] = set()
    on_rows(lambda row: threads.add(threading.current_thread()), 20)
    assert threads == {threading.current_thread()}


def test_the_error_of_the_first_row_that_fails_is_raised_and_no_further_row_is_begun() -> None:
    for first in (0, 5, 17):
        begun: list[int] = []

        def work(row: int, first: int = first, begun: list[int] = begun) -> None:
            begun.append(row)
            slow(row)
            if row >= first:
                raise KeyError(row)

        with pytest.raises(KeyError) as caught:
            on_rows(work, 1000)
        assert caught.value.args == (first,)
        assert len(begun) < first + 20


def test_what_ends_the_program_goes_before_the_error_of_a_row() -> None:
    def work(row: int) -> None:
        slow(row)
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt if row > 3 else KeyError(row)
        time.sleep(5e-2)
        raise KeyError(row)

    with pytest.raises(KeyError):  # of a row that is done before there are threads
        on_rows(work, 8)

    def later(row: int) -> None:
        if row > 0:
            work(row + 3)
        else:
            slow(row)

    with pytest.raises(KeyboardInterrupt):
        on_rows(later, 8)


def test_nothing_is_held_once_the_call_is_over() -> None:
    untouched = np.zeros(50)
    for _ in range(50):
        out = np.zeros(50)

        def work(row: int, out: np.ndarray = out) -> None:
            time.sleep(1e-4)
            out[row] = 1

        on_rows(work, 50)
        del work
        assert sys.getrefcount(out) == sys.getrefcount(untouched)
        assert out.all()


@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_a_forked_process_does_all_rows_on_its_own_thread() -> None:
    child = os.fork()
    if child == 0:
        threads: set[int] = set()
        on_rows(lambda row: (threads.add(threading.get_ident()), slow(row)), 10)  # type: ignore[func-returns-value]
        os._exit(len(threads))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
