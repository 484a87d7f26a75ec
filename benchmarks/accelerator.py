"""On an accelerator, what does a step cost more when its batch comes from files than from the device's memory?

    python benchmarks/accelerator.py                    # below 6 minutes; one line where there is no accelerator
    python benchmarks/accelerator.py --without pinned   # leaves out the ways whose names hold that
    python benchmarks/accelerator.py --anyway           # runs without one, in small: does it run at all?

A step is a loop of matrix products that takes 0.1 to 10 ms on batches of 0.2 to 38.5 MB. The batch comes from a
table on the device, gathered by a plain index or by arsrc; or it is streamed from files: in a scan, with 1, 16 or 64
batches a callback; by `iterate`, one by one or in segments of 16 or 64; or in segments in pinned memory of the host.
What no longer fits into `--seconds` is left out, and the tables say so. Needs arsrc, jax and matplotlib alone, and for
everything 20 GB of the host's memory and 10 GB of the device's. Writes `results/accelerator.md`, `.json` and `.png`
beside this file, the first two after each race; with `--anyway` only where `--results` says.
"""

import argparse
import contextlib
import dataclasses
import functools
import pathlib
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

import _accelerator_report as report
import _arsrc
import _floors
import _harness
import _loops
import _machine
import jax
from _data import DataSet
from _harness import Contestant, Pieces, Race, Session, Unable
from _train_step import LongStep

import arsrc
from arsrc._host.machine import memory

_RESULTS = pathlib.Path(__file__).parent / "results"
# 15 races of 11 ways: 3 rounds of 0.6 s a turn would take 300 s, and a program a way, to be compiled, 100 s or more. So
# each race has its share of the time that is left, and as many rounds as that allows.
_STEPS_MS = (1.0, 3.0, 10.0, 0.3, 0.1)  # what matters most comes first, in case that time is short
_ROUNDS = 3
_TURN_S = 0.2
_COPIES = 32  # of the batch, for products of tens of microseconds
_PIECE_BYTES = 2 * 10**9  # of one compiled scan that streams: a second or so
_LOADS_AHEAD = 4  # that are kept on the host: the one that is used, and those that are ready or being loaded
_LOADS_ON_HOST = 8  # besides those, what is on its way, or pinned
_LOADS_ON_DEVICE = 4


def main() -> int:
    """Measure all sizes and steps and write the results; returns 1 where something broke."""
    options = _options()
    small = jax.default_backend() == "cpu"
    if small and not options.anyway:
        print("accelerator: there is none here, and nothing to measure")
        return 0
    begin = time.perf_counter()
    end = begin + options.seconds
    machine = {"device": jax.devices()[0].device_kind, **_machine.describe(_machine.OURS)}
    machine["threads that read ahead"] = str(_num_threads())
    folder = options.results or (None if small else _RESULTS)
    say = lambda text: print(f"[{time.perf_counter() - begin:4.0f} s] {text}", file=sys.stderr, flush=True)  # noqa: E731
    points = _points(options.data, small)
    results: report.Results = {}
    for number, point in enumerate(points):
        now = time.perf_counter()
        until = now + (end - now) / (len(points) - number)  # what one does not need is there for those that follow
        race = _race(point, is_first=point.data not in [one.data for one in results], without=options.without)
        race = dataclasses.replace(race, rounds=1 if small else _ROUNDS, until=until, end=end)
        if now < end:
            point.data.prepare()
        results[point] = race, _harness.run(race, say)
        if folder is not None:
            report.write(folder, machine, results, time.perf_counter() - begin)
    print(report.text(machine, results, time.perf_counter() - begin))
    if folder is not None:
        report.plot(folder / "accelerator.png", results)
    broken = [f"{race.name}: {name}" for race, found in results.values() for name in found if found[name].is_broken]
    print("".join(f"failed: {text}\n" for text in broken), file=sys.stderr, end="")
    return int(bool(broken))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anyway", action="store_true", help="run on the CPU as well, with few and small cases")
    parser.add_argument("--seconds", type=float, default=330.0, help="begin nothing later than that (default: 330)")
    parser.add_argument("--without", metavar="PART", nargs="+", default=[], help="parts of names of ways to leave out")
    parser.add_argument("--results", type=pathlib.Path, help="folder to write to")
    folder = pathlib.Path(tempfile.gettempdir()) / "arsrc-benchmarks"
    parser.add_argument("--data", type=pathlib.Path, default=folder, help="folder for the files that are made")
    return parser.parse_args()


def _points(folder: pathlib.Path, small: bool) -> list[report.Point]:
    """Return all sizes and steps, in the order in which they are measured."""
    sizes = [(8192, 784)] if small else [(60_000, 784), (10_240, 9_408), (1_280, 150_528)]
    sets = [DataSet(folder, *size) for size in sizes]
    return [report.Point(one, ms) for ms in (_STEPS_MS[:1] if small else _STEPS_MS) for one in sets]


def _race(point: report.Point, is_first: bool, without: Sequence[str]) -> Race:
    """Return the race of all ways for one size and step; the first of a size checks what is delivered."""

    def contestants() -> list[Contestant]:
        return [_apart(one, load_bytes, is_first, without) for one, load_bytes in _ways(point.data, _step(point.ms))]

    return Race(point.name, "", [point.data], contestants, _ROUNDS, _TURN_S, (_arsrc.BATCH, "a step"), 0.3)


@functools.cache
def _step(ms: float) -> LongStep:
    return LongStep(_arsrc.BATCH, ms / 1000, 1 if jax.default_backend() == "cpu" else _COPIES)


def _ways(data: DataSet, body: LongStep) -> list[tuple[Contestant, int]]:
    """Return all ways to get the batch, each with the bytes of its loads."""
    batch_bytes = _arsrc.BATCH * data.record_bytes
    jitted = jax.jit(lambda carry, batch: body(carry, batch)[0])

    def num_steps(most: float, of: int = 16) -> int:
        return max(of, int(min(_TURN_S / body.seconds, 1024, most)) // of * of)

    def read(num_batches: int) -> arsrc.ReadOptions:
        ahead = max(2**28, _LOADS_AHEAD * num_batches * batch_bytes)
        return arsrc.ReadOptions(num_threads=_num_threads(), read_ahead_bytes=ahead)

    def streamed(num_batches: int) -> Contestant:
        steps = num_steps(_PIECE_BYTES / batch_bytes, max(16, num_batches))
        return _arsrc.scan(data, num_batches, body=body, num_steps=steps, read=read(num_batches))

    def segments(num_batches: int, pinned: bool) -> Contestant:
        return _loops.segments(data, num_batches, body=body, pinned=pinned, read=read(num_batches))

    most = num_steps(1024)
    return [
        (_floors.on_device(data, body=body, name=report.ALONE, num_steps=most), 0),
        (_floors.gather_on_device(data, body=body, num_steps=most), 0),
        (_arsrc.scan(data, resident=True, body=body, num_steps=most), 0),
        *[(streamed(count), count * batch_bytes) for count in (1, 16, 64)],
        (_loops.iterate(data, jitted=jitted, read=read(16)), batch_bytes),
        *[(segments(count, pinned), count * batch_bytes) for pinned in (False, True) for count in (16, 64)],
    ]


def _num_threads() -> int:
    """Threads that read ahead: half of the cores, the others launch what the device does."""
    return max(2, min(8, _machine.num_cores() // 2))


def _apart(one: Contestant, load_bytes: int, is_checked: bool, without: Sequence[str]) -> Contestant:
    """Return a contestant that keeps no memory for later turns, and takes part only where there is enough of it."""

    @contextlib.contextmanager
    def opened() -> Iterator[Session]:
        if any(part in one.name for part in without):
            raise Unable("left out: the command line says so")
        _check_memory(load_bytes)
        with one.open() as session:

            def pieces(turn: int) -> Pieces:
                try:
                    yield from session.pieces(turn)
                finally:
                    arsrc.close()  # those of the same files share the memory for reading ahead

            yield Session(pieces, session.batches if is_checked else None)

    return dataclasses.replace(one, open=opened)


def _check_memory(load_bytes: int) -> None:
    """Raise `Unable` where loads of so many bytes find too little memory."""
    device = jax.devices()[0].memory_stats() or {}
    free = {"host": memory.free_bytes()}
    if "bytes_limit" in device:
        free["device"] = device["bytes_limit"] - device["bytes_in_use"]
    for where, count in (("host", _LOADS_ON_HOST), ("device", _LOADS_ON_DEVICE)):
        if count * load_bytes > free.get(where, count * load_bytes):
            needs, has = count * load_bytes / 1e9, free[where] / 1e9
            raise Unable(f"left out: needs {needs:.1f} GB of the {where}'s memory, of which {has:.1f} GB are free")


if __name__ == "__main__":
    sys.exit(main())
