"""When reading ahead pays: the rules on recorded times."""

import itertools

import pytest

from arsrc._host.serving import pacing
from arsrc._host.serving.pacing import Pace

ROWS = 256


def paced(gaps: list[float], costs: list[float]) -> Pace:
    """The pace of a run whose program was away, and whose loads took, for so many seconds."""
    pace = Pace()
    for gap in gaps:
        pace = pacing.came(pace, gap)
    for cost in costs:
        pace = pacing.loaded_here(pace, cost)
    return pace


def reads_ahead(pace: Pace, ahead: str = "auto", is_quick: bool = True, is_shared: bool = False) -> bool:
    return pacing.reads_ahead(pace, ahead, ROWS, is_quick, is_shared)


def test_a_run_of_which_nothing_is_known_is_read_ahead() -> None:
    assert reads_ahead(Pace())
    assert reads_ahead(paced([1e-5], []))
    assert reads_ahead(paced([], [1e-5]))


def test_cheap_loads_in_quick_succession_are_done_where_they_are_asked_for() -> None:
    assert not reads_ahead(paced([50e-6], [80e-6]))


@pytest.mark.parametrize(("gap", "cost"), [(1e-3, 80e-6), (50e-6, 1.0), (1.0, 1.0)])
def test_slow_programs_and_dear_loads_are_read_ahead(gap: float, cost: float) -> None:
    assert reads_ahead(paced([gap], [cost]))


def test_a_load_may_cost_more_the_more_rows_it_has() -> None:
    pace = paced([50e-6], [5e-3])
    assert pacing.reads_ahead(pace, "auto", 256, True, False)
    assert not pacing.reads_ahead(pace, "auto", 10_000, True, False)


def test_one_long_gap_or_load_changes_little_and_many_do() -> None:
    assert not reads_ahead(paced([50e-6, 1.0], [80e-6]))
    assert not reads_ahead(paced([50e-6], [80e-6, 5e-3]))
    assert reads_ahead(paced([50e-6] + [1.0] * 20, [80e-6]))
    assert reads_ahead(paced([50e-6], [80e-6] + [5e-3] * 20))


def test_loads_on_threads_that_compute_little_end_reading_ahead() -> None:
    pace = paced([50e-6], [5e-3])
    for _ in range(3):
        pace = pacing.loaded_ahead(pace, seconds=1e-3, cpu_seconds=60e-6, waited=False)
    assert reads_ahead(pace)  # one measurement on a thread says little
    for _ in range(100):
        pace = pacing.loaded_ahead(pace, seconds=1e-3, cpu_seconds=60e-6, waited=False)
    assert not reads_ahead(pace)


def test_a_load_that_waited_for_the_disk_says_nothing_of_what_it_costs_and_all_of_how_long_it_takes() -> None:
    pace = pacing.loaded_ahead(paced([], [5e-3]), seconds=0.5, cpu_seconds=1e-6, waited=True)
    assert (pace.cost, pace.seconds) == (5e-3, 0.5)


def test_what_decodes_or_is_asked_for_by_several_devices_is_always_loaded_ahead() -> None:
    pace = paced([50e-6], [80e-6])
    assert reads_ahead(pace, is_quick=False)
    assert reads_ahead(pace, is_shared=True)


@pytest.mark.parametrize("pace", [Pace(), paced([50e-6], [80e-6]), paced([1.0], [1.0])])
@pytest.mark.parametrize("is_shared", [False, True])
def test_always_and_never_decide_whatever_was_measured(pace: Pace, is_shared: bool) -> None:
    assert reads_ahead(pace, "always", is_shared=is_shared)
    assert not reads_ahead(pace, "never", is_quick=False, is_shared=is_shared)


# A recorded sequence: a scan whose compiled step gets slower, and quick again.


def decisions(gaps: list[float], cost: float) -> list[bool]:
    pace, found = Pace(), []
    for gap in gaps:
        pace = pacing.came(pace, gap)
        found.append(reads_ahead(pace))
        pace = pacing.loaded_ahead(pace, cost, cost, False) if found[-1] else pacing.loaded_here(pace, cost)
    return found


def test_the_decision_follows_the_program_and_does_not_flicker() -> None:
    quick, slow = [60e-6, 75e-6, 55e-6, 90e-6] * 10, [2e-3, 2.2e-3, 1.9e-3] * 10
    found = decisions([*quick, *slow, *quick], 90e-6)
    assert sum(a != b for a, b in itertools.pairwise(found)) == 3
    assert found[39:41] == [False, False]
    assert all(found[55:70])
    assert not any(found[75:])


# How much is loaded at once.


@pytest.mark.parametrize(
    ("seconds", "rows", "num_bytes", "max_bytes", "size"),
    [
        (None, 256, 200_704, 2**28, 64),  # rows
        (None, 64, 9_633_792, 2**28, 1),  # bytes
        (None, 256, 786_432, 2**28, 21),
        (None, 5, 200, 2000, 5),  # what may be kept: two of them
        (None, 5, 200, 1, 1),
        (0.016, 256, 1024, 2**28, 15),  # time
        (5.0, 256, 1024, 2**28, 1),
        (None, 256, 0, 0, 64),  # elements of no bytes
        (None, 0, 0, 0, 16_384),
    ],
)
def test_a_load_is_bounded_in_rows_bytes_and_time(
    seconds: float | None, rows: int, num_bytes: int, max_bytes: int, size: int
) -> None:
    assert pacing.part_size(Pace(seconds=seconds), rows, num_bytes, max_bytes) == size
