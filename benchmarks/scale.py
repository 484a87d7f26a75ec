"""What grows with the number of records, files and devices, and what does not?

    python benchmarks/scale.py            # below 4 minutes on 2 idle cores
    python benchmarks/scale.py --quick    # does it run at all?

Up to 2**32 - 1 records, 100,000 files and 4,096 devices: on paper, since the arithmetic needs no data; with real
files as far as that is reasonable; and simulated below the reader's interface beyond. Writes `results/scale.md` and
`.png` beside this file; a quick run writes only where `--results` says.
"""

import argparse
import pathlib
import sys
import time
from typing import TYPE_CHECKING

import _machine

if TYPE_CHECKING:
    from _study import Study  # imports JAX, which must not start before the cores are chosen

_RESULTS = pathlib.Path(__file__).parent / "results"
_HOW = "Medians of some calls after one that is not counted, with the least and the greatest; one call where all agree."


def main() -> int:
    """Run all studies and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few and small numbers: a smoke test")
    parser.add_argument("--results", type=pathlib.Path, help="folder to write to")
    options = parser.parse_args()
    _machine.use_cores(2)
    import _scale_arithmetic
    import _scale_files
    import _scale_memory

    begin = time.perf_counter()
    machine = _machine.describe(_machine.OURS)
    studies = []
    for make in (
        _scale_arithmetic.records,
        _scale_arithmetic.devices,
        _scale_arithmetic.files,
        _scale_files.real,
        _scale_files.simulated,
        _scale_memory.compressed,
    ):
        studies.append(make(options.quick))
        print(f"{studies[-1].table()}\n", flush=True)
    print(f"took {time.perf_counter() - begin:.0f} s")
    folder = options.results or (None if options.quick else _RESULTS)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        parts = ["# Scale", _HOW, *(study.table() for study in studies), "## Machine", _machine.table(machine)]
        (folder / "scale.md").write_text("\n\n".join(parts) + "\n")
        _plot(folder / "scale.png", studies)
    return 0


def _plot(path: pathlib.Path, studies: list["Study"]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 3, figsize=(18, 9), layout="constrained")
    for study, axis in zip(studies, axes.flat, strict=False):
        study.plot(axis)
    for axis in axes.flat[len(studies) :]:
        axis.remove()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
