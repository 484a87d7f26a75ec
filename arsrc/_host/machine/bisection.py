"""Many things done at once although some of them are bad: these are found by bisection, and known the next time."""

import bisect
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")

_MOST_KNOWN = 65_536


class Faulty(Exception):
    """What was to be done at once cannot be, since something of it is bad; `__cause__` says what went wrong.

    Attributes:
        row: The first bad row, None where it is not known.
    """

    def __init__(self, row: int | None = None) -> None:
        super().__init__(row)
        self.row = row


class Bisection:
    """Does for many rows at once what fails where one of them is bad. Safe to use from several threads.

    Rows that are good or bad together are a unit. Units that were bad are done apart from the others the next time, and
    are like any other again as soon as that succeeds.
    """

    def __init__(self) -> None:
        self._known: set[int] = set()

    def parts(self, units: NDArray[np.int64], do: Callable[[int, int], T]) -> Iterable[tuple[slice, T | Faulty]]:
        """Return rows and what `do(first, last)` gives for them, in order; for the rows of a bad unit, what it raised.

        To find one bad unit takes about as long as to do everything once more; nothing is done again that succeeded.

        Args:
            units: i64[num_rows], the unit of each row; those of one stand together.
            do: Does some of the rows, or raises `Faulty`.
        """
        tried = None
        if not self._known:
            try:
                return [(slice(0, len(units)), do(0, len(units)))]
            except Faulty as fault:
                tried = fault
        return self._around_bad(units, do, tried)

    def _around_bad(
        self, units: NDArray[np.int64], do: Callable[[int, int], T], tried: Faulty | None
    ) -> Iterator[tuple[slice, T | Faulty]]:
        """Do what `parts` does, whose `do` has raised `tried` for all rows if that is not None."""
        firsts = np.flatnonzero(np.diff(units, prepend=units[:1] - 1))  # i64[num_units], first row of each
        names, bounds = units[firsts].tolist(), [*firsts.tolist(), len(units)]
        known = [] if tried else [unit for unit, name in enumerate(names) if name in self._known]
        low, size, bad_until = 0, len(names), 0  # something is bad in the units [low, bad_until)
        while low < len(names):
            place = bisect.bisect_left(known, low)
            stop = known[place] if place < len(known) else len(names)
            high = low + 1 if stop == low else min(low + size, stop)
            rows = slice(bounds[low], bounds[high])
            done: T | Faulty
            try:
                if tried is not None:
                    raise tried
                done = do(rows.start, rows.stop)
            except Faulty as fault:
                tried = None
                if high > low + 1:
                    at = None if fault.row is None else bisect.bisect_right(bounds, rows.start + fault.row) - 1
                    bad_until = high if at is None else at + 1
                    size = max(1, (high - low) // 2 if at is None else at - low)
                    continue
                if len(self._known) < _MOST_KNOWN:
                    self._known.add(names[low])
                done, bad_until, size = fault, 0, len(names) if stop == low else 1
            else:
                self._known.discard(names[low])
                size = max(1, (bad_until - high) // 2) if high < bad_until else 2 * size
            yield rows, done
            low = high
