"""On a CPU, what do segments gain over callbacks, and what do they lose against data that is in memory already?

    python benchmarks/segments.py                # everything, about 2 minutes on 2 idle cores
    python benchmarks/segments.py --list         # the cases: what is compared, and the target
    python benchmarks/segments.py --only empty   # one case, or one race, or several
    python benchmarks/segments.py --quick        # does it run at all? The figures mean nothing

A whole run writes `results/segments.md` and `.json` beside this file; others write only where `--results` says.
`accelerator.py` asks the same of an accelerator.
"""

import pathlib
import sys

import _arsrc
import _floors
import _loops
import _machine
import _options
import _running
from _cases import Case
from _data import DataSet
from _harness import Contestant, Outcome, Race
from _ratios import Ratios, rates
from _train_step import LongStep

_SIZES = (16, 64)
_SEGMENTS, _GATHER = "arsrc, segments", "device gather"

HOW = """\
How contestants take turns, and what a rate is, is said in throughput.md: the same harness measures them. Batches have
256 records of 784 B, uncompressed, in random order, 0.2 MB together. An empty step adds up one byte of each cache line.
A segment's program is dispatched while the one before it runs.
"""


def main() -> int:
    """Run what the command line asks for; returns 1 where arsrc itself failed, whatever the figures are."""
    options = _options.parse(__doc__)
    _machine.use_cores(options.cores)
    return _running.main("segments", HOW, _cases(), lambda: _races(options.data, options.quick), options)


def _cases() -> list[Case]:
    by_scan = "segments of 16 or 64, over scan_steps with 16 batches a fetch"
    return [
        Case("empty", "empty", f"an empty step: {by_scan}", rates(_SEGMENTS, over="arsrc, scan, 16"), at_least=1.3),
        Case("empty-memory", "empty", "the same, over a gather from memory", rates(_SEGMENTS, over=_GATHER)),
        Case(
            "iterate", "empty", "milliseconds a batch that iterate takes", _milliseconds("arsrc, iterate"), at_most=0.25
        ),
        Case("step", "step", "a step of 2 ms: segments, over a gather", rates(_SEGMENTS, over=_GATHER), at_least=0.97),
        Case("step-scan", "step", f"the same: {by_scan}", rates(_SEGMENTS, over="arsrc, scan, 16")),
    ]


def _milliseconds(name: str) -> Ratios:
    def found(outcomes: dict[str, Outcome]) -> list[float]:
        return [1000 * _arsrc.BATCH / rate for rate in outcomes[name].rates]

    return found


def _races(folder: pathlib.Path, quick: bool) -> list[Race]:
    """Return all races; the quick ones have small files and one short round."""
    data = DataSet(folder, 8_192 if quick else 60_000, 784)
    rounds, seconds = (1, 0.02) if quick else (7, 2.0)

    def race(name: str, title: str, contestants: object) -> Race:
        return Race(name, title, [data], contestants, rounds, seconds, (_arsrc.BATCH, "a batch"))

    return [
        race("empty", "What does a batch cost where the step is empty?", lambda: _empty(data)),
        race("step", "And where it takes 2 ms?", lambda: _beside_work(data)),
    ]


def _empty(data: DataSet) -> list[Contestant]:
    return [
        *(_loops.segments(data, size) for size in _SIZES),
        _arsrc.scan(data, 16),
        _arsrc.scan(data, 64),
        _loops.iterate(data),
        _arsrc.scan(data, resident=True),
        _floors.gather_on_device(data),
    ]


def _beside_work(data: DataSet) -> list[Contestant]:
    body = LongStep(_arsrc.BATCH, 2e-3)
    return [
        *(_loops.segments(data, size, body=body) for size in _SIZES),
        _arsrc.scan(data, 16, body=body),
        _floors.gather_on_device(data, body=body),
    ]


if __name__ == "__main__":
    sys.exit(main())
