"""Outcomes as a Markdown table, a plot and raw numbers."""

import json
import math
import pathlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import _machine
from _cases import Case
from _harness import Outcome, Race

Results = Mapping[str, Mapping[str, Outcome]]  # by race and contestant

HOW = """\
A rate is records per second in the steady state: each turn begins anew in another order, one piece of work (for
those that read ahead, as much as they hold ready) passes untimed, and nobody works while it is another's turn.
Contestants take turns, round after round, in one process on the same files, which are in the page cache unless it
says otherwise. Figures are medians over the rounds, with the least and the greatest; a ratio is the median of the
ratios of the rounds. Before, what each of them delivers was compared with the files byte by byte.

* "Fed", all loaders and all scans include what it takes to have the batch used by a jitted step, which reads one
  byte of each cache line. The official reader without "fed" only reads to a list of Python bytes, with indices made
  beforehand; ratios are taken against that, in its favour.
* CPU time is that of all threads of the process and of its workers, reading ahead and the step included.
* The official reader verifies a hash of each chunk that it reads. arsrc reads uncompressed files from a map, and
  does not, unless asked to: "arsrc with checksums".
* Grain's own source reads record by record. One written by hand that reads whole batches with the official reader
  would be as fast as its `read(256), fed`, at most.
* Blocks of neighbours that move together are a weaker shuffle than the random reads they are compared with.
* "16 per fetch" is what `scan_steps` was asked for. It fetches somewhat fewer batches at once where that divides the
  steps: of an epoch of 234 steps 13, and 3 for 4, and 39 for 64.
* Pages are dropped from the page cache of this machine alone: a virtual disk may be cached elsewhere.
"""

_COLORS = {"arsrc": "#1b7837", "floor": "#999999", "official": "#762a83", "Grain": "#e08214"}


def verdicts(cases: Sequence[Case], results: Results) -> list[dict[str, Any]]:
    """Return what became of each case whose race was run."""
    found = []
    for case in cases:
        if case.race not in results:
            continue
        ratios = case.ratios(results[case.race])
        ratio = statistics.median(ratios) if ratios else None
        found.append(
            {
                "case": case.name,
                "what": case.what,
                "target": case.target,
                "ratio": ratio,
                "ratios": ratios,
                "verdict": case.verdict(ratio),
            }
        )
    return found


def cases_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the cases as Markdown."""
    lines = ["| case | what | target | ratio | min .. max | verdict |", "|---|---|---|---|---|---|"]
    for row in rows:
        spread = f"{min(row['ratios']):.3g} .. {max(row['ratios']):.3g}" if row["ratios"] else ""
        ratio = f"{row['ratio']:.3g}" if row["ratio"] is not None else ""
        cells = (row["case"], row["what"], row["target"], ratio, spread, row["verdict"])
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def race_table(race: Race, outcomes: Mapping[str, Outcome]) -> str:
    """Return what the contestants of one race did, the fastest first, as Markdown."""
    lines = [f"### {race.name}: {race.question}", ""]
    lines += [data.description for data in race.data]
    (size, unit), one = race.unit, race.counted
    lines += ["", f"| contestant | {one}s/s | min .. max | ms {unit} | CPU us a {one} | time includes |"]
    lines += ["|---|--:|---|--:|--:|---|"]
    for name, outcome in sorted(outcomes.items(), key=lambda item: -item[1].median):
        if outcome.failure is not None:
            lines.append(f"| {name} | | | | | {outcome.failure} |")
            continue
        rate, rates = outcome.median, outcome.rates
        spread = f"{_grouped(min(rates))} .. {_grouped(max(rates))}"
        times = f"{_grouped(1e3 * size / rate)} | {_grouped(1e6 * statistics.median(outcome.cpu_seconds))}"
        lines.append(f"| {name} | {_grouped(rate)} | {spread} | {times} | {outcome.counts} |")
    repeated = sum(outcome.num_repeated for outcome in outcomes.values())
    if repeated:
        lines += ["", f"{repeated} turns were repeated: everything stood still in them for seconds."]
    return "\n".join(lines)


def _grouped(value: float) -> str:
    """Return a number with three digits that count."""
    digits = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0
    return f"{float(f'{value:.3g}'):,.{digits}f}"


def write(
    folder: pathlib.Path,
    name: str,
    how: str,
    machine: Mapping[str, str],
    races: Sequence[Race],
    results: Results,
    rows: Sequence[Mapping[str, Any]],
) -> None:
    """Write `name.md` and `name.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    run = [race for race in races if race.name in results]
    parts = [f"# {name.title()}", cases_table(rows), "## How", how, "## Machine", _machine.table(machine), "## Races"]
    parts += [race_table(race, results[race.name]) for race in run]
    (folder / f"{name}.md").write_text("\n\n".join(part.strip() for part in parts) + "\n")
    write_json(folder / f"{name}.json", machine, run, results, rows)


def write_json(
    path: pathlib.Path,
    machine: Mapping[str, str],
    races: Sequence[Race],
    results: Results,
    rows: Sequence[Mapping[str, Any]],
    **others: Any,
) -> None:
    """Write what each contestant did in each round of the races, and `others` as they are."""
    raw: dict[str, Any] = {"machine": machine, "cases": rows}
    for race in races:
        outcomes = results[race.name]
        rates, times = _each_round(outcomes, lambda one: one.rates), _each_round(outcomes, lambda one: one.cpu_seconds)
        raw.setdefault(f"{race.counted}s_per_second", {})[race.name] = rates
        raw.setdefault(f"cpu_seconds_per_{race.counted}", {})[race.name] = times
    path.write_text(json.dumps(raw | others, indent=1) + "\n")


def _each_round(outcomes: Mapping[str, Outcome], figure: Callable[[Outcome], list[float]]) -> dict[str, Any]:
    """Return a figure of each contestant, or why there is none."""
    return {name: outcome.failure or figure(outcome) for name, outcome in outcomes.items()}


def plot(path: pathlib.Path, results: Results, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw the rates of the largest races, and what became of the cases."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [name for name in ("60k", "1m") if name in results]
    figure, axes = pyplot.subplots(1, len(shown) + 1, figsize=(7 * (len(shown) + 1), 8), layout="constrained")
    axes = [axes] if not shown else list(axes)
    for name, axis in zip(shown, axes, strict=False):
        _plot_race(axis, name, results[name])
    _plot_cases(axes[-1], [row for row in rows if row["ratio"] is not None])
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def _plot_race(axis: Any, name: str, outcomes: Mapping[str, Outcome]) -> None:
    found = sorted(((one, o) for one, o in outcomes.items() if o.median), key=lambda item: item[1].median)
    rates = [outcome.median for _, outcome in found]
    low = [outcome.median - min(outcome.rates) for _, outcome in found]
    high = [max(outcome.rates) - outcome.median for _, outcome in found]
    colors = [_COLORS.get(outcome.family, "#4393c3") for _, outcome in found]
    axis.barh([one for one, _ in found], rates, xerr=(low, high), color=colors, capsize=2)
    axis.set_xscale("log")
    axis.set_xlabel("records per second")
    axis.set_title(f"{name} records of 784 bytes, shuffled")


def _plot_cases(axis: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """How far each ratio is beyond its target: to the right of 1 it is reached."""
    found = []
    for row in reversed(rows):
        kind, _, number = row["target"].rpartition(" ")
        margin = row["ratio"] / float(number)
        found.append((row["case"], margin if kind == "at least" else 1 / margin))
    colors = ["#1b7837" if margin >= 1 else "#b2182b" for _, margin in found]
    names, margins = [name for name, _ in found], [margin for _, margin in found]
    axis.hlines(names, 1, margins, color=colors, linewidth=4)
    axis.scatter(margins, names, color=colors, zorder=2)
    axis.set_xscale("log")
    axis.axvline(1, color="black", linewidth=1)
    axis.set_xlabel("measured over target, beyond 1 is reached")
    axis.set_title("targets")
