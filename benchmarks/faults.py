"""What do faults, and being ready for them, cost?

    python benchmarks/faults.py            # below 2 minutes on 2 idle cores
    python benchmarks/faults.py --quick    # does it run at all?

Batches are read one by one, nothing ahead, so that no cost hides behind a step: batches with a record that cannot be
read or decoded, against the same ones without; and healthy data with what guards against faults, against without.
Writes `results/faults.md` beside this file; a quick run writes only where `--results` says.
"""

import argparse
import logging
import pathlib
import sys
import tempfile
import time

import _machine

_RESULTS = pathlib.Path(__file__).parent / "results"
_HOW = (
    "Batches are read when they are asked for, none ahead. Times are medians, one of each row with the least and the "
    "greatest. A ratio says how many times as long as that one something took: the median over many turns, in which "
    "both were measured one right after the other."
)


def main() -> int:
    """Run both studies and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few and small batches: a smoke test")
    parser.add_argument("--results", type=pathlib.Path, help="folder to write to")
    options = parser.parse_args()
    _machine.use_cores(2)
    import _bad_batches  # imports JAX, which must not start before the cores are chosen
    import _guards

    logging.getLogger("arsrc").setLevel(logging.ERROR)  # it tells of masked records
    begin = time.perf_counter()
    machine = _machine.describe(_machine.OURS)
    studies = []
    for make in (_bad_batches.one_bad_record, _guards.being_ready):
        with tempfile.TemporaryDirectory() as folder:
            studies.append(make(pathlib.Path(folder), options.quick))
        print(f"{studies[-1].table()}\n", flush=True)
    print(f"took {time.perf_counter() - begin:.0f} s")
    results = options.results or (None if options.quick else _RESULTS)
    if results is not None:
        results.mkdir(parents=True, exist_ok=True)
        parts = ["# Faults", _HOW, *(study.table() for study in studies), "## Machine", _machine.table(machine)]
        (results / "faults.md").write_text("\n\n".join(parts) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
