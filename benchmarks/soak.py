"""Does anything grow when everything happens at once for an hour?

    python benchmarks/soak.py                 # an hour
    python benchmarks/soak.py --seconds 60    # a shorter one

Compiled loops, loops in Python, caches, new configs, closes, forks, files that are replaced, and a second process that
is killed again and again, all at the same time on the same files. Every byte is checked. Resident memory, threads,
descriptors and maps are looked at every few seconds; those at the end are compared with those after a sixth of the
time, by when everything should have been done often enough.
Writes `results/soak.md` beside this file, or where `--results` says.
"""

import argparse
import faulthandler
import gc
import pathlib
import statistics
import sys
import tempfile
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

import _machine

if TYPE_CHECKING:
    from _soak import World

_RESULTS = pathlib.Path(__file__).parent / "results"
_EVERY = 2.0  # seconds between two looks
_WARM = 1 / 6  # share of the time after which nothing may grow any more
_WINDOW = 1 / 12  # share of the time over which a figure is the median
_MOST_GROWTH = 0.05
_LEAST_SECONDS = 600  # in less, nothing has levelled off


class Figures(NamedTuple):
    """What a process takes."""

    own_megabytes: float
    threads: float
    descriptors: float
    maps: float

    @classmethod
    def now(cls) -> "Figures":
        """Return what this process takes now."""
        lines = pathlib.Path("/proc/self/status").read_text().splitlines()
        found = {name: value.split()[0] for name, _, value in (line.partition(":") for line in lines) if value.strip()}
        return cls(
            int(found["RssAnon"]) / 1024,  # pages of mapped files are the system's, which takes them back
            int(found["Threads"]),
            len(list(pathlib.Path("/proc/self/fd").iterdir())),
            len(pathlib.Path("/proc/self/maps").read_text().splitlines()),
        )


def main() -> int:
    """Do everything at once, and write what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    parser.add_argument("--results", type=pathlib.Path, default=_RESULTS, help="folder to write to")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    machine = _machine.describe(_machine.OURS)
    from _soak import ACTIVITIES, KINDS, World, repeat

    with tempfile.TemporaryDirectory() as folder:
        world = World(pathlib.Path(folder))
        for kind in KINDS:
            world.write(kind)
        threads = [threading.Thread(target=repeat, args=(world, one, options.seed), daemon=True) for one in ACTIVITIES]
        for thread in threads:
            thread.start()
        looks = _watch(options.seconds)
        world.is_over.set()
        for thread in threads:
            thread.join(60)
        hanging = [one.__name__ for one, thread in zip(ACTIVITIES, threads, strict=True) if thread.is_alive()]
        if hanging:
            faulthandler.dump_traceback(all_threads=True)
    world.errors += [f"{one} hangs" for one in hanging]
    text, is_good = _report(options, machine, looks, world)
    print(text)
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "soak.md").write_text(text)
    return 0 if is_good else 1


def _watch(seconds: float) -> list[Figures]:
    """Return figures of so many seconds, looked at in regular steps."""
    looks, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(min(_EVERY, seconds / 60))
        gc.collect()
        looks.append(Figures.now())
    return looks


def _report(
    options: argparse.Namespace,
    machine: dict[str, str],
    looks: list[Figures],
    world: "World",
) -> tuple[str, bool]:
    window = max(1, int(len(looks) * _WINDOW))
    begin = int(len(looks) * _WARM)
    rows, is_good = [], not world.errors
    for number, name in enumerate(("own memory, MiB", "threads", "descriptors", "maps")):
        column = [look[number] for look in looks]
        then, now = statistics.median(column[begin : begin + window]), statistics.median(column[-window:])
        is_good &= options.seconds < _LEAST_SECONDS or now <= (1 + _MOST_GROWTH) * then
        rows.append(f"| {name} | {then:.0f} | {now:.0f} | {now / then:.2f} | {max(column):.0f} |")
    done = ", ".join(f"{name} {count:,}" for name, count in sorted(world.counts.items()))
    shown = "\n".join(f"* {error[-900:]}" for error in world.errors[:10])
    text = f"""\
# Everything at once, for {options.seconds / 60:.0f} minutes

Seed {options.seed}. Medians over a twelfth of the time: after a sixth of it, and at its end.

| | then | at the end | ratio | most |
|---|---|---|---|---|
{chr(10).join(rows)}

Done: {done}. Refused, since files were replaced in the midst of it: {world.num_refused}. Errors: {len(world.errors)}.
{shown}

{_machine.table(machine)}
"""
    return text, is_good


if __name__ == "__main__":
    sys.exit(main())
