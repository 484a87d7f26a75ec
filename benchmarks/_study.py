"""A study: how some figures grow with one number, as a table and as curves."""

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds of one call: the median over some calls, the least and the greatest."""

    median: float
    least: float
    greatest: float

    def __str__(self) -> str:
        units = (("s", 1.0), ("ms", 1e3), ("us", 1e6))
        unit, factor = next((one for one in units if self.median * one[1] >= 1), units[-1])
        low, middle, high = (f"{seconds * factor:.3g}" for seconds in (self.least, self.median, self.greatest))
        return f"{middle} {unit}" + (f" ({low} .. {high})" if self.least < self.greatest else "")


def timing(call: Callable[[], Any], most_seconds: float = 0.1) -> Timing:
    """Time at least 10 calls, after one that is not timed; arrays on devices are waited for."""
    jax.block_until_ready(call())
    seconds: list[float] = []
    while len(seconds) < 10 or sum(seconds) < most_seconds:
        begin = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - begin)
    return of(seconds)


def of(seconds: list[float]) -> Timing:
    """Return the timing of calls that took so long."""
    return Timing(statistics.median(seconds), min(seconds), max(seconds))


def times_as_long(seconds: list[float], others: list[float]) -> str:
    """Return how many times as long calls took as others, in pairs that were made together; and how long."""
    ratio = statistics.median(one / other for one, other in zip(seconds, others, strict=True))
    return f"{ratio:.2f} ({of([statistics.median(seconds)])})"


@dataclasses.dataclass
class Study:
    """Figures that may grow with a number.

    Attributes:
        title: What grows.
        question: What the table answers.
        columns: Names of the columns; the first is the number.
        rows: Numbers, timings and texts.
    """

    title: str
    question: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]] = dataclasses.field(default_factory=list)

    def table(self) -> str:
        """Return the study as Markdown."""
        lines = [f"## {self.title}", "", self.question, "", f"| {' | '.join(self.columns)} |"]
        lines.append("|--:" * len(self.columns) + "|")
        lines += [f"| {' | '.join(_text(cell) for cell in row)} |" for row in self.rows]
        return "\n".join(lines)

    def plot(self, axis: Any) -> None:
        """Draw every column of timings over the first one, with logarithmic scales."""
        for number, name in enumerate(self.columns):
            found = [(row[0], row[number]) for row in self.rows if isinstance(row[number], Timing)]
            if found:
                error = [[t.median - t.least for _, t in found], [t.greatest - t.median for _, t in found]]
                axis.errorbar([x for x, _ in found], [t.median for _, t in found], error, marker="o", label=name)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_ylim(bottom=min(1e-5, axis.get_ylim()[0]))
        axis.set_title(self.title)
        axis.set_xlabel(self.columns[0])
        axis.set_ylabel("seconds")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)


def _text(cell: Any) -> str:
    return f"{cell:,}" if isinstance(cell, int) else str(cell)
