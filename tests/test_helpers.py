"""Threads that lend a hand with large copies."""

import os
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from arsrc._host.helpers import Helpers

MANY_BYTES = 2**30


@pytest.fixture
def helpers() -> Iterator[Helpers]:
    made = Helpers()
    yield made
    made.close()


def test_every_part_is_done_once(helpers: Helpers) -> None:
    done: list[tuple[int, int]] = []
    helpers.run(lambda start, stop: done.append((start, stop)), [0, 3, 3, 10, 11])
    assert sorted(done) == [(0, 3), (3, 3), (3, 10), (10, 11)]


def test_small_copies_are_not_divided(helpers: Helpers) -> None:
    assert helpers.num_parts(0) == helpers.num_parts(2**20) == 1


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="there are no cores to help")
def test_large_copies_are_divided_among_a_few_threads(helpers: Helpers) -> None:
    assert 2 <= helpers.num_parts(MANY_BYTES) <= 4
    threads = set()
    both = threading.Barrier(2, timeout=30)

    def work(start: int, stop: int) -> None:
        del start, stop
        threads.add(threading.get_ident())
        both.wait()

    helpers.run(work, [0, 1, 2])
    assert len(threads) == 2
    assert threading.get_ident() in threads


def test_helpers_that_are_busy_elsewhere_hold_up_nobody(helpers: Helpers) -> None:
    release, busy = threading.Event(), threading.Semaphore(0)

    def block(start: int, stop: int) -> None:
        del stop
        if start:
            busy.release()
        release.wait(30)

    others = threading.Thread(target=helpers.run, args=(block, [0, 1, 2, 3, 4]))
    others.start()
    for _ in range(3):
        assert busy.acquire(timeout=30)
    done = []
    helpers.run(lambda start, stop: done.append(start), [0, 1, 2, 3])
    release.set()
    others.join()
    assert sorted(done) == [0, 1, 2]


@pytest.mark.parametrize("wrong", [0, 1, 2])
def test_an_error_of_any_part_reaches_the_caller(helpers: Helpers, wrong: int) -> None:
    def work(start: int, stop: int) -> None:
        del stop
        if start == wrong:
            raise ValueError(f"part {start}")

    with pytest.raises(ValueError, match=f"part {wrong}"):
        helpers.run(work, [0, 1, 2, 3])


def test_no_part_goes_on_when_an_error_has_come_back(helpers: Helpers) -> None:
    begun, ended = threading.Event(), threading.Event()

    def work(start: int, stop: int) -> None:
        del stop
        if start:
            begun.set()
            time.sleep(0.2)
            ended.set()
        else:
            begun.wait(30)
            raise ValueError("the first part")

    with pytest.raises(ValueError, match="the first part"):
        helpers.run(work, [0, 1, 2])
    assert ended.is_set()


def test_after_it_was_closed_the_caller_does_all(helpers: Helpers) -> None:
    helpers.close()
    done = []
    helpers.run(lambda start, stop: done.append(start), [0, 1, 2])
    assert done == [0, 1]


@pytest.mark.parametrize("shape", [(3,), (3_000, 5_000), (0, 7), ()])
def test_a_copy_is_equal(helpers: Helpers, shape: tuple[int, ...]) -> None:
    source = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    for array in (source, source.T):  # the second is not contiguous
        out = np.zeros(array.shape, np.uint8)
        helpers.copy(array, out)
        np.testing.assert_array_equal(out, array)


@pytest.mark.processes
@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_a_forked_process_has_no_helpers(helpers: Helpers) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(helpers.num_parts(MANY_BYTES))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
