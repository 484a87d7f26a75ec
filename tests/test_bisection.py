"""Bad rows among many, found by bisection: all that is good is done once, and nothing else is lost."""

import math
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from arsrc._host.machine.bisection import Bisection, Faulty


class Work:
    """Doubles numbers, and fails for those of bad units; counts its calls, and the rows of them."""

    def __init__(self, units: list[int], bad: set[int], tells: bool = False) -> None:
        self.units, self.bad, self.tells = units, bad, tells
        self.bisection = Bisection()

    def run(self) -> tuple[list[int], list[int]]:
        """The rows done, and the bad ones."""
        self.calls: list[tuple[int, int]] = []
        done, bad, end = [], [], 0
        for rows, found in self.bisection.parts(np.array(self.units, np.int64), self.do):
            assert rows.start == end, "in order, and without holes"
            end = rows.stop
            if isinstance(found, Faulty):
                assert len(set(self.units[rows])) == 1
                bad += range(rows.start, rows.stop)
            else:
                assert found == [2 * row for row in range(rows.start, rows.stop)]
                done += range(rows.start, rows.stop)
        assert end == len(self.units)
        return done, bad

    def do(self, first: int, last: int) -> list[int]:
        self.calls.append((first, last))
        rows = [row for row in range(first, last) if self.units[row] in self.bad]
        if rows:
            raise Faulty(rows[0] - first if self.tells else None)
        return [2 * row for row in range(first, last)]

    @property
    def cost(self) -> float:
        """How many rows were tried for each that there is."""
        return sum(last - first for first, last in self.calls) / len(self.units)


@hypothesis.given(st.data())
def test_whatever_is_bad_everything_else_is_done_and_in_the_end_as_little_as_can_be_is_tried(data: Any) -> None:
    size = data.draw(st.sampled_from([1, 1, 4]))
    units = [row // size * 7 for row in range(data.draw(st.integers(0, 60)))]
    bad = data.draw(st.sets(st.sampled_from(units))) if units else set()
    work = Work(units, bad, data.draw(st.booleans()))
    expected = (
        [row for row, unit in enumerate(units) if unit not in bad],
        [row for row, unit in enumerate(units) if unit in bad],
    )
    for again in range(3):
        assert work.run() == expected
        if again and units:
            assert work.cost == 1, "what is known to be bad is tried apart"
            assert len(work.calls) <= 2 * len(bad) + 1
    work.bad = set(sorted(bad)[1:])  # one of them is good again
    assert work.run() == (
        [r for r, u in enumerate(units) if u not in work.bad],
        [r for r in expected[1] if units[r] in work.bad],
    )
    work.bad = set()
    assert work.run() == (list(range(len(units))), [])
    assert work.run() == (list(range(len(units))), [])
    assert len(work.calls) == 1, "nothing sticks"


@pytest.mark.parametrize("tells", [False, True])
@pytest.mark.parametrize(("num_rows", "bad"), [(256, 0), (256, 100), (256, 255), (16_384, 5_000)])
def test_one_bad_row_costs_about_as_much_as_doing_everything_once_more(num_rows: int, bad: int, tells: bool) -> None:
    work = Work(list(range(num_rows)), {bad}, tells)
    work.run()
    # To the bad one: what an error costs.
    until = 1 + work.calls.index((bad, bad + 1))
    assert sum(last - first for first, last in work.calls[:until]) <= 2 * num_rows + 1
    assert work.cost <= 3
    assert len(work.calls) <= 2 * math.log2(num_rows) + 2


def test_many_bad_rows_cost_a_few_passes() -> None:
    rng = np.random.default_rng(0)
    for count, most in ((160, 6), (1_600, 6), (16_000, 4)):
        work = Work(list(range(16_000)), set(rng.choice(16_000, count, replace=False).tolist()))
        work.run()
        assert work.cost < most


def test_an_error_that_is_no_fault_of_a_row_goes_through() -> None:
    def do(first: int, last: int) -> None:
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="gone"):
        Bisection().parts(np.arange(5), do)
