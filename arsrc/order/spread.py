"""Which source each slot of a period belongs to: whole quotas out of weights, and their even spread.

The spread is that of Tijdeman ("The chairman assignment problem", Discrete Mathematics 32, 1980). With `n` sources of
a positive quota and a period of `M` slots, the rows that source `s` has in the first `t` slots deviate from
`t * quota[s] / M` by `1 - 1 / (2 * n - 2)` at most, which is the least that can be had for all quotas: so any stretch
of slots has its shares to within 1 row for two sources, and to within `2 - 1 / (n - 1)` for more.

Exact integers; host.
"""

import functools
import heapq
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from arsrc.errors import ArsrcValueError

MOST_SLOTS = 2**14
"""Most slots of a period: weights are kept to within one part in so many."""

_WHOLE = 1e-9  # what differs less from a whole number is one


def whole_quotas(weights: Sequence[float]) -> tuple[int, ...]:
    """Return the slots that each source gets of a period: of the shortest that holds the weights.

    Where none of up to 2**14 slots does, it is one of 2**14, and the largest remainders are rounded up.

    Args:
        weights: Of all sources; they sum to 1.

    Raises:
        ArsrcValueError: A positive weight gets no slot.
    """
    lengths = np.arange(1, MOST_SLOTS + 1)
    fits = np.ones(len(lengths), bool)
    for weight in set(weights):
        slots = weight * lengths
        fits &= abs(slots - np.rint(slots)) <= _WHOLE
    period = int(lengths[fits.argmax()]) if fits.any() else MOST_SLOTS
    quotas = _rounded(weights, period)
    for source, (weight, quota) in enumerate(zip(weights, quotas, strict=True)):
        if weight > 0 and quota == 0:
            what = f"source {source} is to have less than one row of {period} and would get none"
            raise ArsrcValueError("weights", what, "Give it more weight, or 0.", weight=weight)
    return quotas


def _rounded(weights: Sequence[float], period: int) -> tuple[int, ...]:
    """Return whole numbers near `weights * period` that sum to `period`."""
    slots = np.array(weights) * period
    near = np.rint(slots)
    quotas = np.where(abs(slots - near) <= _WHOLE, near, np.floor(slots)).astype(np.int64)
    largest = np.argsort(quotas - slots, kind="stable")  # remainders, the largest first
    quotas[largest[: period - int(quotas.sum())]] += 1
    return tuple(quotas.tolist())


@functools.lru_cache(256)
def spread(quotas: tuple[int, ...]) -> NDArray[np.uint32]:
    """Return the source of each slot of a period, u32[sum(quotas)], read-only.

    Row `x` of a source may come from the slot on at which its due share is `x + 1 / (2 * n - 2)`, and must have come
    before the share is another `1 - 1 / (n - 1)` larger. Each slot goes to the row that may come and has the nearest
    deadline; of several, to that of the lowest source.
    """
    period = sum(quotas)
    used = np.flatnonzero(quotas)
    if len(used) == 1:
        return _frozen(np.full(period, used[0], np.uint32))
    parts = 2 * len(used) - 2
    source = np.repeat(np.arange(len(quotas)), quotas)  # i64[period], of all rows, as the three below
    quota = np.repeat(np.array(quotas, np.int64), quotas)
    row = np.arange(period) - np.repeat(np.cumsum(quotas) - np.array(quotas), quotas)
    release = -(-period * (parts * row + 1) // (parts * quota))  # rounded up
    # Different fractions with these denominators differ by 2**-28 at least, so that they are ordered as these are.
    deadline = ((parts * row + parts - 1) << 29) // quota
    urgency = np.empty(period, np.int64)
    urgency[np.lexsort((source, deadline))] = np.arange(period)
    order = np.lexsort((urgency, release))
    coming = list(zip(release[order].tolist(), urgency[order].tolist(), source[order].tolist(), strict=True))
    waiting: list[tuple[int, int]] = []
    taken, next_row = np.empty(period, np.uint32), 0
    for slot in range(period):
        while next_row < period and coming[next_row][0] <= slot + 1:
            heapq.heappush(waiting, coming[next_row][1:])
            next_row += 1
        taken[slot] = heapq.heappop(waiting)[1]
    return _frozen(taken)


def _frozen(slots: NDArray[np.uint32]) -> NDArray[np.uint32]:
    slots.flags.writeable = False
    return slots
