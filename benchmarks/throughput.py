"""How fast do shuffled records get from ArrayRecord files to a training step, with arsrc and with others?

    python benchmarks/throughput.py                 # everything, below 18 minutes on 2 idle cores
    python benchmarks/throughput.py --list          # the cases: what is compared, and the target
    python benchmarks/throughput.py --only shards   # one case, or one race, or several
    python benchmarks/throughput.py --quick         # does it run at all? The figures mean nothing

A whole run writes `results/throughput.md`, `.png` and `.json` beside this file; others write only where `--results`
says. Files of 3 GB are made in the temporary folder, and stay there for the next run. Batches have 256 records.
A package that is missing is named in the tables.
"""

import argparse
import pathlib
import sys
import tempfile
import time

# Worker processes of some contestants import this file again: what takes long is imported in `main`.
import _machine

_RESULTS = pathlib.Path(__file__).parent / "results"


def main() -> int:
    """Run what the command line asks for; returns 1 where arsrc itself failed, whatever the figures are."""
    options = _parse()
    _machine.use_cores(options.cores)
    import _cases
    import _harness
    import _races
    import _report

    if options.list:
        for case in _cases.CASES:
            print(f"{case.name:14} race {case.race:11} {case.target:14} {case.what}")
        return 0
    cases = [case for case in _cases.CASES if not options.only or {case.name, case.race} & set(options.only)]
    wanted = {case.race for case in cases}
    if not wanted:
        print(f"there is no case {' or '.join(options.only)}: see --list", file=sys.stderr)
        return 2
    begin = time.perf_counter()
    machine = _machine.describe()
    print("\n".join(f"{name}: {value}" for name, value in machine.items()), flush=True)
    races = [race for race in _races.races(options.data, options.quick) if race.name in wanted]
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
        _report.write(options.results, machine, races, results, rows)
    failed = [
        f"{race}: {name}: {outcome.failure}"
        for race, outcomes in results.items()
        for name, outcome in outcomes.items()
        if outcome.is_broken and outcome.family in ("arsrc", "floor", "official")
    ]
    print("".join(f"failed: {text}\n" for text in failed), file=sys.stderr, end="")
    return 1 if failed else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--list", action="store_true", help="list the cases and stop")
    parser.add_argument("--only", metavar="CASE", nargs="+", default=[], help="cases or races of the list")
    parser.add_argument("--quick", action="store_true", help="small files and one short round: a smoke test")
    parser.add_argument("--cores", type=int, default=2, help="cores that all contestants share (default: 2)")
    parser.add_argument("--results", type=pathlib.Path, help="folder to write to")
    folder = pathlib.Path(tempfile.gettempdir()) / "arsrc-benchmarks"
    parser.add_argument("--data", type=pathlib.Path, default=folder, help="folder for the files that are made")
    options = parser.parse_args()
    if options.results is None and not options.quick and not options.only:
        options.results = _RESULTS
    return options


if __name__ == "__main__":
    sys.exit(main())
