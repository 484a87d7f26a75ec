"""What steps on an accelerator take, as tables, curves and raw numbers."""

import dataclasses
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import _arsrc
import _machine
import _report
from _cases import Case
from _data import DataSet
from _harness import Outcome, Race
from _ratios import rates, times
from _study import Study, of

ALONE = "step alone"
_GATHER = "device gather"
_AIM_MS = 1.0
_AIM = 1.05

HOW = """\
A turn begins anew in another order and passes one piece of work untimed: a compiled scan, 16 batches of `iterate`, or
a segment. All ways take turns, round after round, in one process; times are medians over the rounds, with the least and
the greatest, and ratios are medians of the ratios of the rounds. Once for each size of batches, what each way delivers
is compared with the files byte by byte. Files are in the page cache.

* A compiled scan is waited for before the next one is dispatched; it has about 0.2 s of steps. Loops in Python have one
  dispatch in flight besides the one that they wait for: a piece ends when the device is done with it, and by then the
  next one is dispatched.
* The step alone is a scan over one batch that is there. What the device does to get at a batch in its memory (gather
  it, cut it out of a segment) takes time that the step alone does not.
* There are as many rounds as the time allows, 3 at most. What is left out has its reason in the table.
"""

_IDLE = """\
Share of the time per step in which the device does not compute the step. It is derived, not measured: 1 - (time of the
step alone) / (time per step), both of the same round. So it counts what the device does to get at the batch as idle."""


@dataclasses.dataclass(frozen=True)
class Point:
    """A size of batches and a step.

    Attributes:
        data: The files.
        ms: What the step is made to take at least, in milliseconds.
    """

    data: DataSet
    ms: float

    @property
    def name(self) -> str:
        """For the tables."""
        return f"{_megabytes(self.data)}, {self.ms:g} ms"


Results = dict[Point, tuple[Race, Mapping[str, Outcome]]]


def _megabytes(data: DataSet) -> str:
    return f"{_arsrc.BATCH * data.record_bytes / 1e6:.1f} MB"


def verdicts(results: Results) -> list[dict[str, Any]]:
    """Return whether segments are about as fast as data on the device, for each step that is not too short."""
    cases = []
    for point, (race, outcomes) in results.items():
        for way in outcomes:
            if "segments" in way and point.ms >= _AIM_MS:
                what = f"time per step over that of the {_GATHER}"
                name = f"{point.name}: {way.removeprefix('arsrc, ')}"
                cases.append(Case(name, race.name, what, times(way, over=_GATHER), at_most=_AIM))
    return _report.verdicts(cases, {race.name: outcomes for race, outcomes in results.values()})


def idle_shares(outcomes: Mapping[str, Outcome]) -> dict[str, list[float] | str]:
    """Return the share of the time in which the device does not compute the step, in each round; or why not."""
    if failure := outcomes[ALONE].failure:
        return dict.fromkeys(list(outcomes)[1:], f"{ALONE}: {failure}")
    return {
        way: outcome.failure or [1 - ratio for ratio in rates(way, over=ALONE)(outcomes)]
        for way, outcome in outcomes.items()
        if way != ALONE
    }


def _studies(results: Results) -> list[Study]:
    """Return two tables for each size of batches: times, and shares of them."""
    studies = []
    for data in dict.fromkeys(point.data for point in results):
        rows, shares = [], []
        found = sorted((point.ms, outcomes) for point, (_, outcomes) in results.items() if point.data == data)
        for ms, outcomes in found:
            rows.append((ms, *[one.failure or of(_seconds(one)) for one in outcomes.values()]))
            shares.append((ms, *map(_percent, idle_shares(outcomes).values())))
        ways = tuple(found[0][1])
        title = f"Batches of {_megabytes(data)}"
        question = "Time per step. The first column is the least that the step was made to take."
        studies.append(Study(title, question, ("ms", *ways), rows))
        studies.append(Study(f"{title}: how long the device idles", _IDLE, ("ms", *ways[1:]), shares))
    return studies


def _seconds(outcome: Outcome) -> list[float]:
    return [_arsrc.BATCH / rate for rate in outcome.rates]


def _percent(shares: list[float] | str) -> str:
    if isinstance(shares, str):
        return shares
    low, middle, high = (f"{100 * share:.1f}" for share in (min(shares), statistics.median(shares), max(shares)))
    return f"{middle} %" + (f" ({low} .. {high})" if len(shares) > 1 else "")


def text(machine: Mapping[str, str], results: Results, seconds: float) -> str:
    """Return all tables as Markdown."""
    counts = {way: one.counts for _, outcomes in results.values() for way, one in outcomes.items()}
    parts = [
        "# On an accelerator",
        f"Segments are to be within {_AIM - 1:.0%} of data on the device, for steps of {_AIM_MS:g} ms and more.",
        _report.cases_table(verdicts(results)),
        *[study.table() for study in _studies(results)],
        f"## How\n\n{HOW}\nIt took {seconds:.0f} s.",
        _machine.table(counts).replace("| | |", "| way | time includes |", 1),
        f"## Machine\n\n{_machine.table(machine)}",
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def write(folder: pathlib.Path, machine: Mapping[str, str], results: Results, seconds: float) -> None:
    """Write `accelerator.md` and `.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "accelerator.md").write_text(text(machine, results, seconds))
    _report.write_json(
        folder / "accelerator.json",
        machine,
        [race for race, _ in results.values()],
        {race.name: outcomes for race, outcomes in results.values()},
        verdicts(results),
        derived_idle_share={race.name: idle_shares(outcomes) for race, outcomes in results.values()},
        took_seconds=round(seconds, 1),
    )


def plot(path: pathlib.Path, results: Results) -> None:
    """Draw the time per step over that of the step alone, and the share in which the device idles."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sets = list(dict.fromkeys(point.data for point in results))
    figure, axes = pyplot.subplots(2, len(sets), figsize=(7 * len(sets), 10), layout="constrained", squeeze=False)
    for column, data in enumerate(sets):
        found = sorted((point.ms, idle_shares(found)) for point, (_, found) in results.items() if point.data == data)
        for number, way in enumerate(found[0][1]):
            measured = [(ms, shares[way]) for ms, shares in found if not isinstance(shares[way], str)]
            _draw(axes[:, column], way, number, measured)
        upper, lower = axes[:, column]
        upper.set(title=f"batches of {_megabytes(data)}", yscale="log", ylabel="time per step over the step alone")
        lower.set(ylim=(-0.05, 1.05), ylabel="share in which the device idles (derived)")
        upper.axhline(1, color="black", linewidth=1)
        for axis in (upper, lower):
            axis.set(xscale="log", xlabel="what the step was made to take at least, ms")
            axis.grid(alpha=0.3)
        if upper.get_legend_handles_labels()[1]:
            upper.legend(fontsize=8)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def _draw(axes: Sequence[Any], way: str, number: int, measured: Sequence[tuple[float, list[float]]]) -> None:
    """Draw one way: the median of the rounds, and what lies between the least and the greatest."""
    if not measured:
        return
    style = {"color": f"C{number}", "marker": "o", "linestyle": "--" if "pinned" in way else "-"}
    for axis, figure in zip(axes, (lambda share: 1 / (1 - share), lambda share: share), strict=True):
        rounds = [sorted(map(figure, shares)) for _, shares in measured]
        middle = [statistics.median(one) for one in rounds]
        error = [[m - one[0] for m, one in zip(middle, rounds, strict=True)]]
        error += [[one[-1] - m for m, one in zip(middle, rounds, strict=True)]]
        axis.errorbar([ms for ms, _ in measured], middle, error, label=way, **style)
