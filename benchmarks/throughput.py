"""How fast do shuffled records get from ArrayRecord files to a training step, with arsrc and with others?

    python benchmarks/throughput.py                 # everything, below 18 minutes on 2 idle cores
    python benchmarks/throughput.py --list          # the cases: what is compared, and the target
    python benchmarks/throughput.py --only shards   # one case, or one race, or several
    python benchmarks/throughput.py --quick         # does it run at all? The figures mean nothing

A whole run writes `results/throughput.md`, `.png` and `.json` beside this file; others write only where `--results`
says. Files of 3 GB are made in the temporary folder, and stay there for the next run. Batches have 256 records.
A package that is missing is named in the tables.
"""

import sys

# Worker processes of some contestants import this file again: what takes long is imported in `main`.
import _machine
import _options


def main() -> int:
    """Run what the command line asks for; returns 1 where arsrc itself failed, whatever the figures are."""
    options = _options.parse(__doc__)
    _machine.use_cores(options.cores)
    import _cases
    import _races
    import _report
    import _running

    return _running.main(
        "throughput",
        _report.HOW,
        _cases.CASES,
        lambda: _races.races(options.data, options.quick),
        options,
        plot=_report.plot,
    )


if __name__ == "__main__":
    sys.exit(main())
