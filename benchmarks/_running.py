"""What scripts of races do: run those that are asked for, judge the cases, and write all down."""

import argparse
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import _harness
import _machine
import _report
from _cases import Case
from _harness import Race


def main(
    name: str,
    how: str,
    cases: Sequence[Case],
    make_races: Callable[[], Sequence[Race]],
    options: argparse.Namespace,
    plot: Callable[[pathlib.Path, Any, Any], None] | None = None,
) -> int:
    """Run what the command line asks for; returns 1 where arsrc itself failed, whatever the figures are."""
    if options.list:
        for case in cases:
            print(f"{case.name:14} race {case.race:11} {case.target:14} {case.what}")
        return 0
    cases = [case for case in cases if not options.only or {case.name, case.race} & set(options.only)]
    wanted = {case.race for case in cases}
    if not wanted:
        print(f"there is no case {' or '.join(options.only)}: see --list", file=sys.stderr)
        return 2
    begin = time.perf_counter()
    machine = _machine.describe()
    print("\n".join(f"{part}: {value}" for part, value in machine.items()), flush=True)
    races = [race for race in make_races() if race.name in wanted]
    results = {}
    for race in races:
        say = lambda text: print(f"[{time.perf_counter() - begin:4.0f} s] {text}", file=sys.stderr, flush=True)  # noqa: E731
        for data in race.data:
            data.prepare()
        results[race.name] = _harness.run(race, say)
        print(f"\n{_report.race_table(race, results[race.name])}", flush=True)
    rows = _report.verdicts(cases, results)
    note = "; a quick run, whose figures mean nothing" if options.quick else ""
    print(f"\n{_report.cases_table(rows)}\n\ntook {time.perf_counter() - begin:.0f} s{note}")
    if options.results is not None:
        _report.write(options.results, name, how, machine, races, results, rows)
        if plot is not None:
            plot(options.results / f"{name}.png", results, rows)
    failed = [
        f"{race}: {name}: {outcome.failure}"
        for race, outcomes in results.items()
        for name, outcome in outcomes.items()
        if outcome.is_broken and outcome.family in ("arsrc", "floor", "official")
    ]
    print("".join(f"failed: {text}\n" for text in failed), file=sys.stderr, end="")
    return 1 if failed else 0
