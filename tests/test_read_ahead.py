"""When reading ahead pays."""

import collections
import os
import sys
import threading

import pytest

from arsrc._host.read_ahead import Stream
from arsrc._host.requests import Request
from arsrc._host.threads import give_way

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
