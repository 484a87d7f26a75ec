"""How fast do packed tokens and mixtures get to a training step, with arsrc, with Grain, and packed by hand?

    python benchmarks/packing.py                # everything, below 6 minutes on 2 idle cores
    python benchmarks/packing.py --list         # the cases: what is compared, and the target
    python benchmarks/packing.py --only split   # one case, or one race, or several
    python benchmarks/packing.py --quick        # does it run at all? The figures mean nothing

A whole run writes `results/packing.md` and `.json` beside this file; others write only where `--results` says.
Files of 0.6 GB are made in the temporary folder, and stay there for the next run; 3 GB of memory are taken.
"""

import sys

# Worker processes of some contestants import this file again: what takes long is imported in `main`.
import _machine
import _options


def main() -> int:
    """Run what the command line asks for; returns 1 where arsrc itself failed, whatever the figures are."""
    options = _options.parse(__doc__)
    _machine.use_cores(options.cores)
    import _packing_cases
    import _packing_races
    import _running

    data = _packing_races.documents(options.data, options.quick)
    return _running.main(
        "packing",
        _packing_races.HOW,
        _packing_cases.cases(data),
        lambda: _packing_races.races(options.data, options.quick),
        options,
    )


if __name__ == "__main__":
    sys.exit(main())
