"""On an accelerator, what does a step cost more when its batch comes from files than from the device's memory?

    python benchmarks/accelerator.py            # about 5 minutes; one line where there is no accelerator
    python benchmarks/accelerator.py --anyway   # runs without one, in small: does it run at all?

A step is a loop of matrix products that takes 0.1 to 10 ms on batches of 0.2 to 38.5 MB. The batch comes from a
table on the device, gathered by a plain index or by arsrc; or it is streamed from files, with one or 16 batches a
callback in a scan, or by `iterate`. Needs arsrc, jax and matplotlib alone. Writes `results/accelerator.md` and
`.png` beside this file, with `--anyway` only where `--results` says.
"""

import argparse
import functools
import pathlib
import sys
import tempfile
import time
from collections.abc import Sequence

import _arsrc
import _floors
import _harness
import _machine
import jax
from _data import DataSet
from _harness import Contestant, Race
from _study import Study, of
from _train_step import LongStep

import arsrc

_RESULTS = pathlib.Path(__file__).parent / "results"
_SECONDS = 0.3
_GIB = 2**30


def main() -> int:
    """Measure all sizes and steps and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anyway", action="store_true", help="run on the CPU as well, with few and small cases")
    parser.add_argument("--results", type=pathlib.Path, help="folder to write to")
    options = parser.parse_args()
    small = jax.default_backend() == "cpu"
    if small and not options.anyway:
        print("accelerator: there is none here, and nothing to measure")
        return 0
    begin = time.perf_counter()
    machine = {"device": jax.devices()[0].device_kind, **_machine.describe(_machine.OURS)}
    data = functools.partial(DataSet, pathlib.Path(tempfile.gettempdir()) / "arsrc-benchmarks")
    sets = [data(8192, 784)] if small else [data(60_000, 784), data(10_240, 9_408), data(1_280, 150_528)]
    steps_ms = (1.0,) if small else (0.1, 0.3, 1.0, 3.0, 10.0)
    studies: list[Study] = []
    for one in sets:
        one.prepare()
        studies.append(_study(one, steps_ms))
        print(f"{studies[-1].table()}\n", flush=True)
    print(f"took {time.perf_counter() - begin:.0f} s")
    folder = options.results or (None if small else _RESULTS)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        parts = ["# On an accelerator", *(study.table() for study in studies), "## Machine", _machine.table(machine)]
        (folder / "accelerator.md").write_text("\n\n".join(parts) + "\n")
        _plot(folder / "accelerator.png", studies)
    return int(any(isinstance(cell, str) for study in studies for row in study.rows for cell in row))  # why it failed


def _study(data: DataSet, steps_ms: Sequence[float]) -> Study:
    """Return the time per step for each step and way to get the batch."""
    rows = []
    for ms in steps_ms:
        outcomes = _harness.run(_race(data, ms), lambda text: print(text, file=sys.stderr, flush=True))
        cells = (
            of([_arsrc.BATCH / rate for rate in outcome.rates]) if outcome.median else str(outcome.failure)
            for outcome in outcomes.values()
        )
        rows.append((ms, *cells))
    title = f"Batches of {_arsrc.BATCH * data.record_bytes / 1e6:.1f} MB"
    question = "Time per step. The first column is the least that the step was made to take, alone."
    return Study(title, question, ("ms", *outcomes), rows)


def _race(data: DataSet, ms: float) -> Race:
    """Return the race of all ways for one step."""
    name = f"{data.record_bytes} B, {ms:g} ms"
    contestants = functools.partial(_contestants, data, ms / 1000)
    return Race(name, "", [data], contestants, 3, _SECONDS, (_arsrc.BATCH, "a step"), idle_limit_s=1.0)


def _contestants(data: DataSet, seconds: float) -> list[Contestant]:
    body = LongStep(_arsrc.BATCH, seconds)
    num_steps = max(32, min(512, int(_SECONDS / body.seconds) // 16 * 16))
    read = arsrc.ReadOptions(read_ahead_bytes=4 * _GIB)  # several fetches of 16 large batches
    scan = functools.partial(_arsrc.scan, data, body=body, num_steps=num_steps, read=read)
    return [
        _floors.gather_on_device(data, body=body, num_steps=num_steps),
        scan(resident=True),
        scan(16),
        scan(1),
        _arsrc.iterate(data, jitted=jax.jit(lambda carry, batch: body(carry, batch)[0]), read=read),
    ]


def _plot(path: pathlib.Path, studies: Sequence[Study]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(studies), figsize=(6 * len(studies), 5), layout="constrained", squeeze=False)
    for study, axis in zip(studies, axes.flat, strict=True):
        study.plot(axis)
        axis.set_xlabel("step alone, ms")
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
