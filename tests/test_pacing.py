"""When reading ahead pays: the rules on recorded times."""

import itertools
import math

import pytest

from arsrc._host.serving import pacing
from arsrc._host.serving.pacing import Pace

ROWS = 256
DEAR = pacing.CHEAP + pacing.CHEAP_ROW * ROWS  # from here on a load is not cheap
QUICK, SLOW = pacing.TIGHT_GAP / 8, 5 * pacing.TIGHT_GAP
CHEAP = DEAR / 4


def just_below(x: float) -> float:
    return math.nextafter(x, 0)


def many(seconds: float) -> list[float]:
    """So often the same time that one of a hundredth of it, or more, in front of them does not count any more."""
    return [seconds] * math.ceil(math.log(100, pacing.GROWTH) + 1)


def paced(gaps: list[float], costs: list[float]) -> Pace:
    """The pace of a run whose program was away, and whose loads took, for so many seconds."""
    pace = Pace()
    for gap in gaps:
        pace = pacing.came(pace, gap)
    for cost in costs:
        pace = pacing.loaded_here(pace, cost)
    return pace


def reads_ahead(pace: Pace, ahead: str = "auto", is_quick: bool = True, is_shared: bool = False) -> bool:
    return pacing.reads_ahead(pace, ahead, ROWS, 0, is_quick, is_shared)


def test_a_run_of_which_nothing_is_known_is_read_ahead() -> None:
    assert reads_ahead(Pace())
    assert reads_ahead(paced([QUICK], []))
    assert reads_ahead(paced([], [CHEAP]))


def test_a_program_in_quick_succession_loads_several_small_requests_at_once() -> None:
    tight = paced([QUICK], [CHEAP])
    assert pacing.together(tight, ROWS, 200_704) == pacing.MOST_TOGETHER
    assert pacing.together(tight, ROWS, 0) == pacing.MOST_TOGETHER
    least = pacing.TOGETHER_BYTES // pacing.LEAST_TOGETHER
    assert pacing.together(tight, ROWS, least) == pacing.LEAST_TOGETHER
    assert pacing.together(tight, ROWS, least + 1) == 1
    assert pacing.together(paced([SLOW], [CHEAP]), ROWS, 0) == 1
    assert pacing.together(Pace(), ROWS, 0) == 1


@pytest.mark.parametrize("gap", [0.0, QUICK, just_below(pacing.TIGHT_GAP)])
@pytest.mark.parametrize("cost", [0.0, CHEAP, just_below(DEAR)])
def test_cheap_loads_in_quick_succession_are_done_where_they_are_asked_for(gap: float, cost: float) -> None:
    assert not reads_ahead(paced([gap], [cost]))


@pytest.mark.parametrize(
    ("gap", "cost"),
    [(pacing.TIGHT_GAP, CHEAP), (SLOW, CHEAP), (QUICK, DEAR), (QUICK, 1.0), (pacing.TIGHT_GAP, DEAR), (1.0, 1.0)],
)
def test_slow_programs_and_dear_loads_are_read_ahead(gap: float, cost: float) -> None:
    assert reads_ahead(paced([gap], [cost]))


@pytest.mark.parametrize("num_rows", [1, 256, 10_000])
def test_a_load_may_cost_more_the_more_rows_it_has(num_rows: int) -> None:
    dear = pacing.CHEAP + pacing.CHEAP_ROW * num_rows
    assert pacing.reads_ahead(paced([QUICK], [dear]), "auto", num_rows, 0, True, False)
    assert not pacing.reads_ahead(paced([QUICK], [just_below(dear)]), "auto", num_rows, 0, True, False)


@pytest.mark.parametrize("num_bytes", [10**6, 10**8])
def test_a_load_may_cost_more_the_more_bytes_it_has_if_the_program_is_soon_back(num_bytes: int) -> None:
    dear = DEAR + pacing.CHEAP_BYTE * num_bytes
    for cost in (just_below(dear), (DEAR + dear) / 2):
        gap = pacing.SHORT_GAP * cost
        assert pacing.reads_ahead(paced([gap], [cost]), "auto", ROWS, num_bytes, True, False)
        assert not pacing.reads_ahead(paced([just_below(gap)], [cost]), "auto", ROWS, num_bytes, True, False)
    assert pacing.reads_ahead(paced([0.0], [dear]), "auto", ROWS, num_bytes, True, False)


def test_a_program_that_is_away_for_less_than_a_cheap_load_takes_has_nothing_to_hide_it_behind() -> None:
    cost, num_rows = 10 * pacing.TIGHT_GAP, round(20 * pacing.TIGHT_GAP / pacing.CHEAP_ROW)
    assert pacing.reads_ahead(paced([cost], [cost]), "auto", num_rows, 0, True, False)
    assert not pacing.reads_ahead(paced([just_below(cost)], [cost]), "auto", num_rows, 0, True, False)


def test_one_long_gap_or_load_changes_little_and_many_do() -> None:
    assert not reads_ahead(paced([QUICK, 1.0], [CHEAP]))
    assert not reads_ahead(paced([QUICK], [CHEAP, 1.0]))
    assert reads_ahead(paced([QUICK, *many(1.0)], [CHEAP]))
    assert reads_ahead(paced([QUICK], [CHEAP, *many(1.0)]))


def test_times_are_followed_down_at_once_and_up_by_a_bound() -> None:
    pace = paced([1.0, 3.0, 1e-3, 1.1e-3, 1.0], [2.0, 9.0])
    assert pace.gap == pytest.approx(pacing.GROWTH * 1.1e-3)
    assert pace.cost == pytest.approx(pacing.GROWTH * 2.0)
    assert pace.seconds == 9.0


def test_loads_on_threads_that_compute_little_end_reading_ahead() -> None:
    pace = paced([QUICK], [10 * DEAR])
    num_loads = 0
    while reads_ahead(pace) and num_loads < 100:
        pace = pacing.loaded_ahead(pace, seconds=4 * CHEAP, cpu_seconds=CHEAP, waited=False)
        num_loads += 1
    assert num_loads == math.floor(math.log(10, 1 / pacing.FORGETTING)) + 1 > 1  # one says little
    assert pacing.loaded_ahead(pace, 4 * CHEAP, 10 * DEAR, False).cost == 10 * DEAR


def test_the_first_load_on_a_thread_says_what_it_computed() -> None:
    pace = pacing.loaded_ahead(paced([QUICK], []), seconds=1.0, cpu_seconds=CHEAP, waited=False)
    assert pace == Pace(QUICK, CHEAP, 1.0)


@pytest.mark.parametrize("costs", [[], [5e-3]])
def test_a_load_that_waited_for_the_disk_says_nothing_of_what_it_costs_and_all_of_how_long_it_takes(
    costs: list[float],
) -> None:
    before = paced([QUICK], costs)
    assert pacing.loaded_ahead(before, seconds=0.5, cpu_seconds=1e-6, waited=True) == before._replace(seconds=0.5)


def test_what_decodes_or_is_asked_for_by_several_devices_is_always_loaded_ahead() -> None:
    pace = paced([QUICK], [CHEAP])
    assert reads_ahead(pace, is_quick=False)
    assert reads_ahead(pace, is_shared=True)


@pytest.mark.parametrize("pace", [Pace(), paced([QUICK], [CHEAP]), paced([1.0], [1.0])])
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
    quick = [by * QUICK for by in (1.2, 1.5, 1.1, 1.8)] * 10
    slow = [by * SLOW for by in (1.0, 1.1, 0.95)] * len(many(1.0))
    found = decisions([*quick, *slow, *quick], CHEAP)
    until_slow, until_quick = len(quick), len(quick) + len(slow)
    assert sum(a != b for a, b in itertools.pairwise(found)) == 3
    assert not any(found[1 : until_slow + 1])
    assert all(found[until_slow + len(many(1.0)) : until_quick])
    assert not any(found[until_quick:])


# How much is loaded at once.


def part_size(seconds: float | None = None, num_rows: int = 1, num_bytes: int = 0, max_bytes: int = 2**40) -> int:
    return pacing.part_size(Pace(seconds=seconds), num_rows, num_bytes, max_bytes)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_load_is_bounded_in_rows_bytes_and_time(size: int) -> None:
    assert part_size(num_rows=pacing.CHUNK_ROWS // size) == size
    assert part_size(num_bytes=pacing.PART_BYTES // size) == size
    assert part_size(num_bytes=pacing.PART_BYTES // size + 1) == max(1, size - 1)
    assert part_size(num_bytes=100, max_bytes=2 * 100 * size) == size  # two of them may be kept
    assert part_size(num_bytes=100, max_bytes=2 * 100 * size - 1) == max(1, size - 1)
    assert part_size(just_below(pacing.PART_SECONDS / size)) == size
    assert part_size(1.1 * pacing.PART_SECONDS / size) == max(1, size - 1)


def test_a_load_is_never_empty_and_never_larger_than_a_chunk() -> None:
    assert part_size(1e9, 10**9, 10**9, 0) == 1
    for seconds in (None, 0.0, 1e-30):
        assert part_size(seconds, 0) == part_size(seconds, 1) == pacing.CHUNK_ROWS


def test_the_narrowest_bound_of_a_load_holds() -> None:
    bounds = {"num_rows": pacing.CHUNK_ROWS // 9, "num_bytes": pacing.PART_BYTES // 7, "max_bytes": 2**40}
    assert part_size(**bounds) == 7
    assert part_size(**(bounds | {"max_bytes": pacing.PART_BYTES})) == 3
    assert part_size(pacing.PART_SECONDS / 2.5, **bounds) == 2
    assert part_size(**(bounds | {"num_rows": pacing.CHUNK_ROWS})) == 1
