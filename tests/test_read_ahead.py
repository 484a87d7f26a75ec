"""When reading ahead pays, and that it loses nothing."""

import collections
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from arsrc._host.machine.metrics import Metrics
from arsrc._host.machine.threads import give_way
from arsrc._host.serving.read_ahead import ReadAhead, Stream
from arsrc._host.serving.requests import Loaded, Request

REQUEST = Request(states=((0, 0, 0, 0),), num_batches=1, first_row=0, num_rows=256)


def stream(gaps: list[float], costs: list[float]) -> Stream:
    """A stream whose program was away, and whose loads took, for so many seconds."""
    made = Stream(REQUEST, collections.deque())
    for gap in gaps:
        made.left_at = 0.0
        made.came(gap)
    for cost in costs:
        made.took(cost)
    return made


def test_a_new_stream_is_not_tight() -> None:
    assert not stream([], []).is_tight(REQUEST)
    assert not stream([1e-5], []).is_tight(REQUEST)
    assert not stream([], [1e-5]).is_tight(REQUEST)


def test_cheap_loads_in_quick_succession_are_tight() -> None:
    assert stream([50e-6], [80e-6]).is_tight(REQUEST)


@pytest.mark.parametrize(("gap", "cost"), [(1e-3, 80e-6), (50e-6, 1.0), (1.0, 1.0)])
def test_slow_programs_and_dear_loads_are_not(gap: float, cost: float) -> None:
    assert not stream([gap], [cost]).is_tight(REQUEST)


def test_one_long_gap_or_load_changes_little_and_many_do() -> None:
    assert stream([50e-6, 1.0], [80e-6]).is_tight(REQUEST)
    assert stream([50e-6], [80e-6, 5e-3]).is_tight(REQUEST)
    assert not stream([50e-6] + [1.0] * 20, [80e-6]).is_tight(REQUEST)
    assert not stream([50e-6], [80e-6] + [5e-3] * 20).is_tight(REQUEST)


def test_loads_on_threads_that_compute_little_make_a_stream_tight_again() -> None:
    slow = stream([50e-6], [5e-3])
    assert not slow.is_tight(REQUEST)
    for _ in range(100):
        slow.took_elsewhere(60e-6)
    assert slow.is_tight(REQUEST)


def test_what_several_devices_ask_for_is_loaded_for_all() -> None:
    assert not stream([50e-6], [80e-6]).is_tight(REQUEST._replace(num_askers=2))


@pytest.mark.skipif(sys.platform != "linux", reason="priorities of threads are a matter of the system")
# Interrupts, and runs that meet.


def request(index: int) -> Request:
    return Request(((index, 0, 7),), 1, 0, 10)


def loaded(one: Request) -> Loaded:
    return Loaded(
        [np.full((1, 1, 10), one.states[0][0])], np.zeros((1, 1, 10), np.uint32), request(one.states[0][0] + 1)
    )


@pytest.fixture
def make_ahead() -> Iterator[Callable[..., ReadAhead]]:
    """`make(load, following)`: reads ahead at most 50 requests of 10 elements."""
    opened: list[ReadAhead] = []

    def make(load: Callable[..., Any], following: Callable[..., Any]) -> ReadAhead:
        opened.append(ReadAhead(load, following, 1, 500, False, 2, Metrics()))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def load_all(requests: Sequence[Request], _: Any) -> list[Loaded]:
    return [loaded(one) for one in requests]


def next_ones(one: Request, count: int) -> list[Request]:
    return [request(one.states[0][0] + later) for later in range(1, count + 1)]


def value(found: Loaded) -> int:
    return int(found.leaves[0][0, 0, 0])


@pytest.mark.parametrize("place", ["load", "following"])
def test_a_request_that_was_interrupted_can_be_asked_for_again(
    make_ahead: Callable[..., ReadAhead], place: str
) -> None:
    interrupts = iter([True, False, True, True])
    main = threading.main_thread()

    def interrupted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            if threading.current_thread() is main and next(interrupts, False):
                raise KeyboardInterrupt
            return function(*arguments)

        return call

    load = interrupted(load_all) if place == "load" else load_all
    following = interrupted(next_ones) if place == "following" else next_ones
    ahead = make_ahead(load, following)
    found, num_interrupts = [], 0
    while len(found) < 100:
        try:
            found.append(value(ahead.get(request(len(found)))))
        except KeyboardInterrupt:
            num_interrupts += 1
    assert found == list(range(100))
    assert num_interrupts >= 1


def test_runs_that_meet_leave_no_batches_behind_that_nobody_asks_for(make_ahead: Callable[..., ReadAhead]) -> None:
    ahead = make_ahead(load_all, next_ones)
    for first in range(0, 2_000, 100):  # a run, then its last steps again, then somewhere else
        for index in (*range(first, first + 60), *range(first + 40, first + 61)):
            assert value(ahead.get(request(index))) == index
    num_ready = 0
    for index in range(5_000, 5_200):
        for _ in range(1_000):
            if ahead.is_ready(request(index)):
                num_ready += 1
                break
            threading.Event().wait(0.001)
        assert value(ahead.get(request(index))) == index
    assert num_ready >= 198  # all but the first


def test_the_error_of_one_request_does_not_reach_another(make_ahead: Callable[..., ReadAhead]) -> None:
    def load(requests: Sequence[Request], _: Any) -> list[Loaded]:
        if request(37) in requests:
            raise ValueError("37 is bad")
        return load_all(requests, None)

    ahead = make_ahead(load, next_ones)
    for index in range(60):
        if index == 37:
            with pytest.raises(ValueError, match="37 is bad"):
                ahead.get(request(index))
        else:
            assert value(ahead.get(request(index))) == index


def test_threads_that_load_go_behind_those_of_the_program() -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    found: list[int] = []

    def work() -> None:
        give_way()
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [min(before + 5, 19)]
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
