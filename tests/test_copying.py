"""Threads that lend a hand with large copies."""

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

import numpy as np
import pytest

from arsrc._host.machine import copying
from arsrc._host.machine.copying import Copier

MANY_BYTES = 2**30


@pytest.fixture
def copier() -> Iterator[Copier]:
    made = Copier()
    yield made
    made.close()


def test_every_part_is_done_once(copier: Copier) -> None:
    done: list[tuple[int, int]] = []
    copier.run(lambda start, stop: done.append((start, stop)), [0, 3, 3, 10, 11])
    assert sorted(done) == [(0, 3), (3, 3), (3, 10), (10, 11)]


def test_small_copies_are_not_divided(copier: Copier) -> None:
    assert copier.num_parts(0) == copier.num_parts(2**20) == 1


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="there are no cores to help")
def test_large_copies_are_divided_among_a_few_threads(copier: Copier) -> None:
    assert 2 <= copier.num_parts(MANY_BYTES) <= 4
    threads = set()
    both = threading.Barrier(2, timeout=30)

    def work(start: int, stop: int) -> None:
        del start, stop
        threads.add(threading.get_ident())
        both.wait()

    copier.run(work, [0, 1, 2])
    assert len(threads) == 2
    assert threading.get_ident() in threads


def test_helpers_that_are_busy_elsewhere_hold_up_nobody(copier: Copier) -> None:
    release, busy = threading.Event(), threading.Semaphore(0)

    def block(start: int, stop: int) -> None:
        del stop
        if start:
            busy.release()
        release.wait(30)

    others = threading.Thread(target=copier.run, args=(block, [0, 1, 2, 3, 4]))
    others.start()
    for _ in range(3):
        assert busy.acquire(timeout=30)
    done = []
    copier.run(lambda start, stop: done.append(start), [0, 1, 2, 3])
    release.set()
    others.join()
    assert sorted(done) == [0, 1, 2]


@pytest.mark.parametrize("wrong", [0, 1, 2])
def test_an_error_of_any_part_reaches_the_caller(copier: Copier, wrong: int) -> None:
    def work(start: int, stop: int) -> None:
        del stop
        if start == wrong:
            raise ValueError(f"part {start}")

    with pytest.raises(ValueError, match=f"part {wrong}"):
        copier.run(work, [0, 1, 2, 3])


def test_no_part_goes_on_when_an_error_has_come_back(copier: Copier) -> None:
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
        copier.run(work, [0, 1, 2])
    assert ended.is_set()


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="there are no cores to help")
def test_no_part_goes_on_when_interrupts_have_come_one_behind_the_other(copier: Copier) -> None:
    main, draw = threading.main_thread(), random.Random(0)
    is_over, num_working, num_interrupts = threading.Event(), [0], 0
    counting = threading.Lock()

    class Hit(BaseException):
        """An interrupt."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        while frame is not None:
            if frame.f_code.co_filename == copying.__file__:
                raise Hit
            frame = frame.f_back

    def send() -> None:
        while not is_over.wait(draw.expovariate(1 / draw.choice([1e-4, 2e-3]))):
            signal.pthread_kill(main.ident or 0, signal.SIGUSR1)

    def work(start: int, stop: int) -> None:
        del start, stop
        if threading.current_thread() is main:
            time.sleep(0.0002)
            return
        with counting:
            num_working[0] += 1
        time.sleep(0.001)
        with counting:
            num_working[0] -= 1

    before = signal.signal(signal.SIGUSR1, interrupt)
    sender = threading.Thread(target=send)
    sender.start()
    end = time.monotonic() + 2
    try:
        while time.monotonic() < end:
            try:
                copier.run(work, list(range(9)))
            except Hit:
                num_interrupts += 1
            assert not num_working[0]
    finally:
        is_over.set()
        sender.join()
        signal.signal(signal.SIGUSR1, before)
    assert num_interrupts > 20


def test_after_it_was_closed_the_caller_does_all(copier: Copier) -> None:
    copier.close()
    done = []
    copier.run(lambda start, stop: done.append(start), [0, 1, 2])
    assert done == [0, 1]


@pytest.mark.parametrize("shape", [(3,), (3_000, 5_000), (0, 7), ()])
def test_a_copy_is_equal(copier: Copier, shape: tuple[int, ...]) -> None:
    source = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    for array in (source, source.T):  # the second is not contiguous
        out = np.zeros(array.shape, np.uint8)
        copier.copy(array, out)
        np.testing.assert_array_equal(out, array)


@pytest.mark.processes
@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_a_forked_process_has_no_helpers(copier: Copier) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(copier.num_parts(MANY_BYTES))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
