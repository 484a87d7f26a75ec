"""When to read ahead: rules on measured times, without a clock of their own.

Threads that load ahead hide what a load takes behind the program's steps. But where loads take hardly any time and the
program is back at once, there is nothing to hide behind, and both would wait for the interpreter lock: then each
load is done when it is asked for, on the program's own thread; of small ones several at once.
"""

from typing import NamedTuple

TIGHT_GAP = 400e-6
"""Seconds: a program that is away for less leaves threads no time to get anything done."""
CHEAP = 100e-6
"""Seconds that a load takes which copies and decodes nothing; `CHEAP_ROW` more for each row."""
CHEAP_ROW = 1.5e-6
CHEAP_BYTE = 1e-9
"""Seconds that a byte may take besides: to copy it once more is what threads cost at least."""
SHORT_GAP = 0.25
"""Share of a load's time: where the program is away for less, threads have little to hide, and copying costs more."""
GROWTH = 1.2
"""Times go up by so much at most from one to the next: one long one, as at an epoch's end, says little."""
FORGETTING = 0.5

CHUNK_ROWS = 16_384
"""Rows that are located together, and loaded: many at once cost far less a row."""
PART_BYTES = 16 * 2**20
PART_SECONDS = 0.25
"""A load that takes longer would keep waiting whoever asks for its first rows, or wants it to end."""
PARTS_AHEAD = 4
MOST_TOGETHER = 8
"""Requests that a program in quick succession loads together: each costs some 0.1 ms besides its rows."""
TOGETHER_BYTES = 2**21
"""Bytes of these at most, so that they are still in the CPU's cache when they are asked for."""
LEAST_TOGETHER = 4
"""Fewer would gain less than it costs to copy their bytes once more."""


class Pace(NamedTuple):
    """What was measured of a run; None before the first measurement.

    Attributes:
        gap: Seconds that the program was away between the last requests.
        cost: Seconds to compute a request, where nothing holds it up.
        seconds: Seconds that loading a request took, with all waiting.
    """

    gap: float | None = None
    cost: float | None = None
    seconds: float | None = None


def came(pace: Pace, gap: float) -> Pace:
    """Return the pace after the program was away for `gap` seconds."""
    return Pace(_slowly(pace.gap, gap), pace.cost, pace.seconds)


def loaded_here(pace: Pace, seconds: float) -> Pace:
    """Return the pace after a request took so many seconds on the program's own thread."""
    return Pace(pace.gap, _slowly(pace.cost, seconds), seconds)


def loaded_ahead(pace: Pace, seconds: float, cpu_seconds: float, waited: bool) -> Pace:
    """Return the pace after each request of a load on another thread took so long.

    What a thread computes there says less of the cost than a load on the program's own, and nothing where it had to
    wait for the disk.
    """
    cost = pace.cost
    if not waited:
        cost = cpu_seconds if cost is None else max(cpu_seconds, FORGETTING * cost)
    return Pace(pace.gap, cost, seconds)


def is_tight(pace: Pace, num_rows: int, num_bytes: int) -> bool:
    """Whether cheap requests of so many rows and bytes come in so quick a succession that threads would be no help."""
    if pace.gap is None or pace.cost is None:
        return False
    cheap = CHEAP + CHEAP_ROW * num_rows
    if pace.cost < cheap:
        return pace.gap < max(TIGHT_GAP, pace.cost)
    return pace.cost < cheap + CHEAP_BYTE * num_bytes and pace.gap < SHORT_GAP * pace.cost


def reads_ahead(pace: Pace, ahead: str, num_rows: int, num_bytes: int, is_quick: bool, is_shared: bool) -> bool:
    """Whether threads are to load what a run will ask for.

    Args:
        pace: What was measured of the run.
        ahead: "auto", "always" or "never".
        num_rows: Rows of a request.
        num_bytes: Its decoded bytes.
        is_quick: Whether a load copies what lies in memory, and computes and waits for little else.
        is_shared: Whether several devices ask for the same.
    """
    if ahead == "auto":
        return is_shared or not is_quick or not is_tight(pace, num_rows, num_bytes)
    return ahead == "always"


def together(pace: Pace, num_rows: int, num_bytes: int) -> int:
    """Return how many requests to load at once on the program's own thread, where threads would be no help."""
    count = min(MOST_TOGETHER, TOGETHER_BYTES // max(num_bytes, 1))
    return count if count >= LEAST_TOGETHER and is_tight(pace, num_rows, num_bytes) else 1


def part_size(pace: Pace, num_rows: int, num_bytes: int, max_bytes: int) -> int:
    """Return how many requests to load together: bounded in rows, bytes and time.

    Args:
        pace: What was measured of the run.
        num_rows: Rows of a request.
        num_bytes: Decoded bytes of a request.
        max_bytes: Most bytes that may be kept; two loads must fit, the one that is used and the next.
    """
    most = [CHUNK_ROWS // max(num_rows, 1)]
    if num_bytes:
        most += [PART_BYTES // num_bytes, max_bytes // num_bytes // 2]
    if pace.seconds:
        most.append(int(min(PART_SECONDS / pace.seconds, CHUNK_ROWS)))
    return max(1, min(most))


def _slowly(before: float | None, now: float) -> float:
    """Follow a time down at once, but up slowly."""
    return now if before is None else min(now, GROWTH * before)
