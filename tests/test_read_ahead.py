"""What reading ahead keeps and lets go, with loads that are told here what to do, and that it loses nothing."""

import collections
import contextlib
import itertools
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from arsrc._host.machine import threads
from arsrc._host.machine.buffers import BufferPool
from arsrc._host.machine.metrics import Metrics
from arsrc._host.machine.threads import give_way
from arsrc._host.readers.group_cache import GroupCache
from arsrc._host.serving import pacing, read_ahead, runs
from arsrc._host.serving.read_ahead import Client, ReadAhead
from arsrc._host.serving.requests import Loaded, Planned, Request
from arsrc.errors import ArsrcReadError
from arsrc.record_batch import RecordBatch

MAX_BYTES = 500  # 50 requests of 10 elements of a byte


def request(index: int, num_askers: int = 1, num_rows: int = 10) -> Request:
    return Request(((index, 0, 7),), 1, 0, num_rows, num_askers)


def index_of(one: Request) -> int:
    return one.states[0][0]


class Numbers:
    """Loads for request `i` the number `i`: plans, locates and loads as `Loader` does."""

    def __init__(self, before: Callable[[list[int]], None] = lambda numbers: None, end: int = 10**9) -> None:
        self.before, self.end = before, end
        self.loads: list[list[int]] = []  # numbers that were loaded together
        self.plans: list[int] = []  # how many requests were planned together

    def plan(self, first: Request, count: int) -> Planned:
        assert count >= 1
        start = index_of(first)
        stop = max(start + 1, min(start + count, self.end))
        requests = [first._replace(states=((number, 0, 7),)) for number in range(start, stop)]
        self.plans.append(len(requests))
        return Planned(requests, first._replace(states=((stop, 0, 7),)), stop >= self.end)

    def locate(self, requests: Sequence[Request]) -> None:
        return None

    def load(self, planned: Planned, rows: Any, first: int, last: int, outs: Any, stop: Any) -> list[Loaded]:
        numbers = [index_of(one) for one in planned.requests[first:last]]
        self.before(numbers)
        self.loads.append(numbers)
        after = [*planned.requests, planned.after]
        return [
            Loaded([np.full((1, 1, 10), number)], *np.zeros((2, 1, 1, 10), np.uint32), after[first + row + 1])
            for row, number in enumerate(numbers)
        ]


def client(loader: Any, **fields: Any) -> Client:
    options = {
        "is_quick": False,
        "ahead": "auto",
        "num_threads": 2,
        "is_grouped": False,
        "metrics": Metrics(),
    }
    return Client(loader, 1, **(options | fields))


class Ahead(ReadAhead):
    """What is tested, with what the tests look at."""

    def __init__(self, max_bytes: int = MAX_BYTES, pool_bytes: int = 0) -> None:
        self.buffers = BufferPool(pool_bytes)
        self.groups = GroupCache(max_bytes // 2)
        super().__init__(self.buffers, self.groups, max_bytes)

    def have_idle_buffers(self) -> None:
        arrays = [self.buffers.take(8_000) for _ in range(5)]
        del arrays
        assert self.buffers.idle_bytes >= 40_000

    def number(self, one: Client, index: int, num_askers: int = 1) -> int:
        return int(self.get(one, request(index, num_askers)).leaves[0][0, 0, 0])

    def wait_until_ready(self, one: Client, index: int, seconds: float = 2) -> bool:
        end = time.monotonic() + seconds
        while not self.is_ready(one, request(index)):
            if time.monotonic() > end:
                return False
            time.sleep(0.001)
        return True

    def check(self, *clients: Client) -> None:
        """The books agree with each other, and are as small as they shall be."""
        assert sum(self.kept().values()) <= MAX_BYTES
        assert len(self.runs) <= read_ahead._MAX_RUNS
        for one in clients:
            assert all(place.run in self.runs and place.chunk in place.run.chunks for place in one.places.values())
        for run in self.runs:
            assert run.chunks[0].stop >= run.next
            assert run.chunks[-1].stop <= 2 * run.loaded_until + 1, "far more is planned than is loaded"
            in_chunks = {part for chunk in run.chunks for part in chunk.parts if part is not None}
            assert in_chunks == set(run.parts), "what was let go of is kept, or the other way round"


@pytest.fixture
def ahead() -> Iterator[Ahead]:
    made = Ahead()
    yield made
    made.close()
    made.wait(10)


# Interrupts, and runs that meet.


@pytest.mark.parametrize("place", ["load", "plan"])
def test_a_request_that_was_interrupted_can_be_asked_for_again(ahead: Ahead, place: str) -> None:
    interrupts = iter([True, False, True, True])
    main = threading.main_thread()

    def interrupted(*_: Any) -> None:
        if threading.current_thread() is main and next(interrupts, False):
            raise KeyboardInterrupt

    class Interrupted(Numbers):
        def plan(self, first: Request, count: int) -> Planned:
            if place == "plan":
                interrupted()
            return super().plan(first, count)

    one = client(Interrupted(interrupted) if place == "load" else Interrupted())
    found, num_interrupts = [], 0
    while len(found) < 100:
        try:
            found.append(ahead.number(one, len(found)))
        except KeyboardInterrupt:
            num_interrupts += 1
    assert found == list(range(100))
    assert num_interrupts >= 1


class Hit(BaseException):
    """An interrupt."""


# What runs under the lock. (Python delivers no interrupt where a `with` ends, as a trace function would.)
BOOKS = {
    getattr(kind, name).__code__
    for kind, names in (
        (ReadAhead, ("_ask", "_schedule", "_make_room", "_end")),
        (runs.Run, ("plan", "at", "add_part", "let_go", "end", "_drop_chunk")),
        (runs.Part, ("__init__", "drop")),
        (runs.Chunk, ("__init__",)),
    )
    for name in names
}


def interrupted_at(number: int, work: Callable[[], Any]) -> bool:
    """Do `work`, interrupted at the n-th line that it runs of the books of reading ahead; whether there is one."""
    count = 0

    def at_line(frame: Any, event: str, arg: Any) -> Any:
        nonlocal count
        if event == "line":
            count += 1
            if count == number:
                raise Hit
        return at_line

    sys.settrace(lambda frame, event, arg: at_line if frame.f_code in BOOKS else None)
    try:
        work()
    except Hit:
        return True
    finally:
        sys.settrace(None)
    return False


def test_an_interrupt_at_any_line_of_the_books_leaves_nothing_wrong() -> None:
    """The lines of the first requests one by one, later ones, which are much the same, here and there."""
    number = 1
    while True:
        ahead = Ahead()
        one = client(Numbers())

        def ask(count: int, ahead: Ahead = ahead, one: Client = one) -> None:
            for index in range(count):
                assert ahead.number(one, index) == index

        was_interrupted = interrupted_at(number, lambda ask=ask: ask(12))
        ask(24)
        ahead.check(one)
        ahead.close()
        if not was_interrupted:
            break
        number += 1 if number < 150 else 17
    assert number > 300


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_is_ended_by_what_is_no_error_is_counted_and_replaced(ahead: Ahead) -> None:
    main = threading.main_thread()

    def before(numbers: list[int]) -> None:
        if threading.current_thread() is not main:
            raise SystemExit

    one = client(Numbers(before))
    for index in range(30):
        with contextlib.suppress(SystemExit):
            ahead.number(one, index)
        time.sleep(0.002)
    assert one.metrics.snapshot()["background_errors"] >= 1
    one.loader.before = lambda numbers: None
    for index in range(1_000, 1_020):
        assert ahead.number(one, index) == index
    assert ahead.wait_until_ready(one, 1_020)


@pytest.mark.parametrize("num_askers", [2, 4])
def test_devices_that_share_requests_load_them_once_also_where_nothing_is_read_ahead(
    ahead: Ahead, num_askers: int
) -> None:
    loader = Numbers()
    one = client(loader, ahead="never")
    for index in range(50):
        for _ in range(num_askers):
            assert ahead.number(one, index, num_askers) == index
    assert loader.loads == [[index] for index in range(50)]


def test_runs_that_meet_leave_no_batches_behind_that_nobody_asks_for(ahead: Ahead) -> None:
    one = client(Numbers())
    for first in range(0, 2_000, 100):  # a run, then its last steps again, then somewhere else
        for index in (*range(first, first + 60), *range(first + 40, first + 61)):
            assert ahead.number(one, index) == index
    num_ready = 0
    for index in range(5_000, 5_200):
        # The first, and two while the runs before it still count as such that take turns with it, are not.
        num_ready += index == 5_000 or ahead.wait_until_ready(one, index, 0.5 if index < 5_010 else 2)
        assert ahead.number(one, index) == index
    assert num_ready >= 198
    assert sum(ahead.kept().values()) <= MAX_BYTES


def test_a_run_that_comes_to_where_another_began_goes_on_with_what_that_one_has_loaded() -> None:
    ahead, loader = Ahead(max_bytes=10**4), Numbers()
    one = client(loader)
    for index in [*range(3), 40, *range(3, 60)]:
        assert ahead.number(one, index) == index
    assert sorted(n for numbers in loader.loads for n in numbers if n < 60) == list(range(60))
    ahead.close()
    ahead.wait(10)


def test_two_loops_over_the_same_requests_load_each_once_while_they_keep_up(ahead: Ahead) -> None:
    loader = Numbers()
    one = client(loader)
    for index in range(100):
        for _ in range(2):
            assert ahead.number(one, index) == index
    loaded = sorted(number for numbers in loader.loads for number in numbers)
    assert len(loaded) == len(set(loaded))


# What is kept.


asks = st.tuples(
    st.integers(0, 1), st.sampled_from(["next"] * 6 + ["skip", "again", "back", "forget"]) | st.integers(0, 2_000)
)


@given(st.lists(asks, max_size=100))
@example([(0, 100 * i) for i in range(60)])
@example([(0, "next")] * 80)
@example([(0, "next")] * 9 + [(0, "skip")] * 3)
@example([(0, "next")] * 9 + [(0, "back"), (0, "next"), (0, "next")] * 3)
def test_what_is_known_of_requests_stays_small_and_no_more_than_what_is_kept(asks: list[tuple[int, Any]]) -> None:
    ahead, clients, at, windows = Ahead(), [client(Numbers()), client(Numbers())], [0, 0], {}
    for number, ask in asks:
        one = clients[number]
        if ask == "forget":
            ahead.forget(one)
            continue
        at[number] = {
            "next": at[number] + 1,
            "skip": at[number] + 4,
            "again": at[number],
            "back": max(at[number] - 2, 0),
        }.get(ask, ask)
        assert ahead.number(one, at[number]) == at[number]
        ahead.check(*clients)
        for run in ahead.runs:
            assert run.window <= min(max(1, 2 * windows.get(run, 0)), MAX_BYTES // run.request_bytes)
            windows[run] = run.window
            assert all(part.stop >= run.next for part in run.parts)
        place = one.places[request(at[number])]
        assert place.run.next > place.chunk.start + place.row
    ahead.close()
    assert not ahead.runs
    assert not any(each.places for each in clients)
    ahead.wait(10)


@pytest.mark.parametrize(("num_rows", "chunk"), [(20_000, 1), (8_192, 2), (4_000, 4)])
def test_what_is_planned_and_loaded_ahead_doubles_up_to_a_bound(num_rows: int, chunk: int) -> None:
    loader, ahead = Numbers(), Ahead(max_bytes=10**9)
    one, windows = client(loader), []
    for index in range(40):
        ahead.get(one, request(index, num_rows=num_rows))
        (run,) = ahead.runs
        windows.append(run.window)
        assert run.window - max(1, min(chunk, run.window // 2)) < run.loaded_until - run.next <= run.window
    most = pacing.PARTS_AHEAD * chunk
    assert windows == [min(2**step, most) for step in range(40)]
    assert loader.plans == [min(2**step, chunk) for step in range(len(loader.plans))]
    ahead.close()
    ahead.wait(10)
    assert max(map(len, loader.loads)) <= chunk


def test_a_loop_is_one_run_also_where_nothing_is_read_ahead(ahead: Ahead) -> None:
    loader = Numbers()
    one = client(loader, ahead="never")
    assert [ahead.number(one, index) for index in range(100)] == list(range(100))
    assert len(ahead.runs) == 1
    assert loader.plans == [1, 2, 4, 8, 16, 32, 64]
    assert loader.loads == [[index] for index in range(100)]


def test_requests_larger_than_all_that_may_be_kept_are_loaded_alone() -> None:
    loader, ahead = Numbers(), Ahead(max_bytes=9)
    one = client(loader)
    for index in range(10):
        assert ahead.number(one, index) == index
        assert sum(ahead.kept().values()) == 0
    assert loader.loads == [[index] for index in range(10)]
    ahead.close()


@pytest.mark.parametrize("num_askers", [1, 4])
def test_no_more_bytes_are_kept_than_may_be(ahead: Ahead, num_askers: int) -> None:
    one, most = client(Numbers()), 0
    for index in range(300):
        ahead.number(one, index, num_askers)
        most = max(most, sum(ahead.kept().values()))
    assert 100 < most <= MAX_BYTES


def test_what_several_devices_ask_for_is_kept_until_all_have_it(ahead: Ahead) -> None:
    loader = Numbers()
    one = client(loader)
    for first in range(0, 200, 10):  # one is ahead of the others by up to ten steps
        for device in range(4):
            for index in range(first, first + 10):
                assert ahead.number(one, index, 4) == index, device
    assert sorted(n for numbers in loader.loads for n in numbers if n < 200) == list(range(200))


@pytest.mark.parametrize("num_coming", [1, 2, 3])
def test_as_many_askers_are_waited_for_as_come(ahead: Ahead, num_coming: int) -> None:
    loader = Numbers()
    one = client(loader)
    for first in range(0, 200, 5):  # one is ahead of the others by up to five steps
        for _ in range(num_coming):
            for index in range(first, first + 5):
                assert ahead.number(one, index, 4) == index
    (run,) = ahead.runs
    assert run.num_askers == num_coming
    assert sorted(n for numbers in loader.loads for n in numbers if n < 200) == list(range(200))


def test_askers_who_never_come_are_waited_for_once(ahead: Ahead) -> None:
    one = client(Numbers())
    held = []
    for index in range(200):  # four might come, two do
        for _ in range(2):
            ahead.number(one, index, 4)
        (run,) = ahead.runs
        held.append(sum(part.num_bytes for part in run.parts if part.stop < run.next))
    assert max(held[:60]) > 100
    assert max(held[60:]) == 0


def test_idle_buffers_make_room_for_what_is_read_ahead_and_both_for_groups() -> None:
    ahead, lent = Ahead(50_000, pool_bytes=10**6), []
    one = client(Numbers(lambda numbers: lent.append(ahead.buffers.take(1_000 * len(numbers)))))
    one.element_bytes = 1_000
    ahead.have_idle_buffers()
    for index in range(20):
        assert ahead.number(one, index) == index
        assert sum(ahead.kept().values()) <= 50_000
    assert ahead.kept()["bytes_ahead"] > 20_000
    group = RecordBatch.from_records([bytes(9_000)])
    for name in range(4):
        ahead.groups.get({name: 9_000}, lambda names: dict.fromkeys(names, group))
    assert ahead.groups.num_bytes == 18_000
    for index in range(20, 40):
        assert ahead.number(one, index) == index
    assert 0 < ahead.kept()["bytes_ahead"] <= 25_000
    assert sum(ahead.kept().values()) <= 50_000
    ahead.close()


def test_memory_is_given_back_when_nobody_has_asked_for_a_while() -> None:
    ahead, one = Ahead(50_000, pool_bytes=10**6), client(Numbers())
    for index in range(5):
        ahead._asked_at -= 2 * threads.IDLE_SECONDS
        ahead.number(one, index)
        assert not ahead._rest_if_idle(), "it was asked for just now"
    ahead.have_idle_buffers()
    assert sum(ahead.kept().values()) > 40_000
    ahead._asked_at -= threads.IDLE_SECONDS
    assert ahead._rest_if_idle()
    assert sum(ahead.kept().values()) == 0
    ahead.close()


def test_a_source_that_asks_takes_the_place_of_one_that_no_longer_does(ahead: Ahead) -> None:
    for turn in range(20):
        one = client(Numbers())
        for index in range(60):
            assert ahead.number(one, index) == index
        assert turn < 3 or ahead.wait_until_ready(one, 60)
        assert sum(ahead.kept().values()) <= MAX_BYTES


def test_what_is_kept_for_one_source_can_be_let_go_alone(ahead: Ahead) -> None:
    one, other = client(Numbers()), client(Numbers())
    for index in range(20):
        ahead.number(one, index)
        ahead.number(other, index)
    assert ahead.wait_until_ready(other, 20)
    ahead.forget(one)
    assert ahead.is_ready(other, request(20))
    assert not ahead.is_ready(one, request(20))
    assert not one.places
    ahead.forget()
    assert sum(ahead.kept().values()) == 0
    assert ahead.number(one, 20) == 20


def test_nothing_is_loaded_beyond_the_end(ahead: Ahead) -> None:
    loader = Numbers(end=33)
    one = client(loader)
    for index in range(33):
        assert ahead.number(one, index) == index
    time.sleep(0.05)
    assert sorted(n for numbers in loader.loads for n in numbers) == list(range(33))
    assert not ahead.is_ready(one, request(33))


def test_modes_can_change_at_any_request(ahead: Ahead) -> None:
    one = client(Numbers())
    for index in range(500):
        one.ahead = "never" if index // 37 % 2 else "always"
        assert ahead.number(one, index) == index
        assert sum(ahead.kept().values()) <= MAX_BYTES
    assert one.metrics.snapshot()["batches_here"] >= 50


def test_what_is_not_read_ahead_is_ready_if_it_is_cheap_and_known(ahead: Ahead) -> None:
    one = client(Numbers(end=3), ahead="never", is_quick=True)
    tight, dear = pacing.Pace(0.0, 0.0), pacing.Pace(1.0, 1.0)
    assert not ahead.is_ready(one, request(0))
    for index in range(3):
        ahead.number(one, index)
        (run,) = ahead.runs
        for mode, pace in itertools.product(("auto", "always", "never"), (tight, dear)):
            one.ahead, run.pace = mode, pace
            is_ready = ahead.is_ready(one, request(index + 1))
            assert is_ready == (mode == "auto" and pace is tight and index < 2), (index, mode, pace)
        one.ahead = "never"


def test_metrics_say_what_was_ready_and_what_was_loaded_by_who_asked(ahead: Ahead) -> None:
    one, counts = client(Numbers(), ahead="never"), []
    for index in range(3):
        asked = request(index)._replace(num_batches=3)
        end = time.monotonic() + 10
        while index == 2 and not ahead.is_ready(one, asked) and time.monotonic() < end:
            time.sleep(0.001)
        ahead.get(one, asked)
        one.ahead = "always"
        found = one.metrics.snapshot()
        counts.append([found[f"batches_{kind}"] for kind in ("served", "here")])
    assert counts == [[3, 3], [6, 3], [9, 3]]
    assert 3 <= found["batches_ready"] <= 6


# Errors.


def test_the_error_of_one_request_does_not_reach_another(ahead: Ahead) -> None:
    def before(numbers: list[int]) -> None:
        if 37 in numbers:
            raise ArsrcReadError("read", "37 is bad")

    one = client(Numbers(before))
    for _ in range(3):  # and does not stick
        for index in range(60):
            if index == 37:
                with pytest.raises(ArsrcReadError, match="37 is bad"):
                    ahead.number(one, index)
            else:
                assert ahead.number(one, index) == index


def test_a_request_with_a_bad_record_is_loaded_alone_and_the_others_of_its_part_are_there(ahead: Ahead) -> None:
    class Around(Numbers):
        def load(self, planned: Planned, rows: Any, first: int, last: int, outs: Any, stop: Any) -> Any:
            found = super().load(planned, rows, first, last, outs, stop)
            numbers = [index_of(one) for one in planned.requests[first:last]]
            if numbers == [37]:
                raise ArsrcReadError("read", "37 is bad")
            return [None if number == 37 else one for number, one in zip(numbers, found, strict=True)]

    loader = Around()
    one = client(loader, ahead="always")
    for index in range(60):
        assert index < 9 or ahead.wait_until_ready(one, index + (index == 37))
        assert index != 37 or not ahead.is_ready(one, request(index))
        for _ in range(2 if index == 37 else 0):
            with pytest.raises(ArsrcReadError, match="37 is bad"):
                ahead.number(one, index)
        if index != 37:
            assert ahead.number(one, index) == index
    loads = collections.Counter(number for numbers in loader.loads for number in numbers)
    assert loads.pop(37) == 3, "once ahead, and when it is asked for"
    assert set(loads.values()) == {1}


@pytest.mark.parametrize("place", ["plan", "locate"])
def test_an_error_while_planning_does_not_stick(ahead: Ahead, place: str) -> None:
    class Failing(Numbers):
        fails = True

        def plan(self, first: Request, count: int) -> Planned:
            if self.fails and place == "plan":
                raise ArsrcReadError("read", "cannot plan")
            return super().plan(first, count)

        def locate(self, requests: Sequence[Request]) -> None:
            if self.fails and place == "locate":
                raise ArsrcReadError("read", "cannot locate")

    loader = Failing()
    one = client(loader)
    for _ in range(2):
        with pytest.raises(ArsrcReadError, match="cannot"):
            ahead.number(one, 0)
    loader.fails = False
    for index in range(10):
        assert ahead.number(one, index) == index
    loader.fails = True
    for index in range(10, 200):
        try:
            ahead.number(one, index)
        except ArsrcReadError:
            break
    else:
        pytest.fail("the error did not arrive")
    loader.fails = False
    assert [ahead.number(one, later) for later in range(index, index + 50)] == list(range(index, index + 50))


def test_what_fails_on_a_thread_and_nobody_could_expect_is_counted_logged_once_and_raised_to_who_asks(
    ahead: Ahead, caplog: pytest.LogCaptureFixture
) -> None:
    main = threading.main_thread()

    def before(numbers: list[int]) -> None:
        if threading.current_thread() is not main:
            raise AttributeError("there is no such thing here")

    one = client(Numbers(before))
    failed = []
    with caplog.at_level(logging.ERROR, "arsrc"):
        for index in range(40):
            while True:
                try:
                    found = ahead.number(one, index)
                except AttributeError:
                    failed.append(index)
                else:
                    assert found == index
                    break
            time.sleep(0.002)
    assert failed
    assert len(failed) == len(set(failed)), "an error is raised once"
    assert one.metrics.snapshot()["background_errors"] >= len(failed)
    assert len([record for record in caplog.records if record.name == "arsrc"]) == 1


def part_of(loader: Numbers, count: int) -> runs.Part:
    """A part with the last `count` of a chunk's four requests, numbers 3 to 6."""
    run = runs.Run(loader, {}, 1, 10)
    run.plan(request(0))
    for number in (1, 3):
        found = run.at(number)
    assert found is not None
    return run.add_part(found[0], 4 - count, 4)


def test_a_part_that_fails_where_it_is_asked_for_is_not_tried_again_but_each_request_alone() -> None:
    tried: list[list[int]] = []

    def before(numbers: list[int]) -> None:
        tried.append(numbers)
        raise ArsrcReadError("read", "5 is bad")

    part = part_of(Numbers(before), 3)
    assert part.get(2) is None
    part.load_ahead()
    assert part.get(1) is None
    assert tried == [[4, 5, 6]]


def test_a_part_of_one_request_raises_its_error_until_it_can_be_loaded() -> None:
    def before(numbers: list[int]) -> None:
        raise ArsrcReadError("read", f"{numbers} is bad")

    loader = Numbers(before)
    part = part_of(loader, 1)
    for _ in range(2):
        with pytest.raises(ArsrcReadError, match=r"\[6\] is bad"):
            part.get(3)
    loader.before = lambda numbers: None
    loaded = part.get(3)
    assert loaded is not None
    assert int(loaded.leaves[0][0, 0, 0]) == 6


def test_a_part_that_was_let_go_of_or_failed_is_not_loaded_ahead() -> None:
    loader = Numbers()
    dropped, failed, error = part_of(loader, 4), part_of(loader, 4), KeyError("a")
    dropped.drop()
    failed.fail(error)
    for part in (dropped, failed):
        part.load_ahead()
        assert not part.is_loaded
    assert loader.loads == []
    with pytest.raises(KeyError):
        failed.get(0)
    assert failed.get(0) is None, "an error is raised once"
    assert dropped.get(0) is not None, "who waits for it still gets it"


# Time.


def test_what_loads_take_is_measured_for_each_request_wherever_they_are_done(ahead: Ahead) -> None:
    seconds = 0.002
    one = client(Numbers(lambda numbers: time.sleep(seconds * len(numbers))))
    ahead.number(one, 0)
    one.ahead = "never"
    ahead.number(one, 500)
    run = next(reversed(ahead.runs))
    assert run.pace.gap is None
    time.sleep(seconds)
    ahead.number(one, 501)
    gap = run.pace.gap
    assert gap is not None
    assert seconds <= gap < 50 * seconds
    ahead.number(one, 501)  # not the one that is expected next: says nothing of the program's pace
    assert run.pace.gap == gap
    assert run.pace.seconds is not None
    assert run.pace.cost is not None
    assert seconds <= run.pace.cost < 50 * seconds
    assert seconds <= run.pace.seconds < 50 * seconds
    one.ahead = "always"
    for index in range(1_000, 1_040):
        ahead.number(one, index)
    run = next(reversed(ahead.runs))
    assert max(map(len, one.loader.loads)) > 10
    assert run.pace.seconds is not None
    assert seconds <= run.pace.seconds < 50 * seconds
    assert run.pace.cost is not None
    assert 0 < run.pace.cost < seconds, "sleeping is no computing"


def test_a_slow_load_is_not_made_larger_than_a_quarter_of_a_second() -> None:
    loader = Numbers(lambda numbers: time.sleep(0.06 * len(numbers)))
    ahead, one = Ahead(max_bytes=10**6), client(loader)
    for index in range(12):
        assert ahead.number(one, index) == index
    ahead.close()
    assert max(map(len, loader.loads)) <= 4


def test_closing_does_not_wait_for_what_a_load_is_doing(ahead: Ahead) -> None:
    go_on = threading.Event()
    main = threading.main_thread()
    loader = Numbers(lambda numbers: None if threading.current_thread() is main else go_on.wait(60))
    one = client(loader)
    assert ahead.number(one, 0) == 0
    time.sleep(0.05)
    start = time.monotonic()
    ahead.close()
    ahead.wait(0.1)
    assert time.monotonic() - start < 5
    assert ahead.number(one, 5) == 5  # on the program's own thread
    go_on.set()


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
