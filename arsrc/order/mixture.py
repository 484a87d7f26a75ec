"""The static numbers of a mixture: whose each slot is, how many rows of each source lie before one, where it ends.

A mixture serves *slots*, numbered from 0 without end over all its epochs: (epoch, index) is slot
`epoch * num_records + index`, where an epoch has as many slots as its sources have records together. Stages follow each
other, each with quotas of its own over a period of slots of its own; of the slots from a stage's first one on, slot `h`
has before it, of source `s`,

    quota[s] * (h // period) + rank[s][h % period]

rows of this stage. The k-th row of a source is that at position `k % n` of its own epoch `k // n`. Host: exact Python
integers; `mixed_rows.py` computes the same with 32 bits.
"""

import bisect
import dataclasses
import functools
import itertools
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from arsrc.errors import ArsrcValueError
from arsrc.frozen import HashOnce
from arsrc.order.files import place_among
from arsrc.order.plan import PAD_ID, Plan
from arsrc.order.spread import spread, whole_quotas

Array = Any


@dataclasses.dataclass(frozen=True)
class Mixture(HashOnce):
    """What is fixed about a mixture; hashable.

    Attributes:
        sources: Their plans. `batch_size` and `remainder` of these play no part: all rows of each epoch are served.
        quotas: Of each stage, the slots of its period that each source gets.
        starts: First slot of each stage, ascending from 0.
        stop: "first" ends with the first source that ends, "all" with the last.
    """

    sources: tuple[Plan, ...]
    quotas: tuple[tuple[int, ...], ...]
    starts: tuple[int, ...]
    stop: str

    __hash__ = HashOnce.__hash__

    @functools.cached_property
    def epoch_size(self) -> int:
        """Slots of an epoch: the records of all sources."""
        return sum(one.num_records for one in self.sources)

    @functools.cached_property
    def first_ids(self) -> tuple[int, ...]:
        """First record id of each source."""
        return tuple(itertools.accumulate((one.num_records for one in self.sources[:-1]), initial=0))

    @functools.cached_property
    def bases(self) -> tuple[tuple[int, ...], ...]:
        """Rows of each source that lie before each stage."""
        bases = [(0,) * len(self.sources)]
        for stage, (start, stop) in enumerate(itertools.pairwise(self.starts)):
            rows = zip(bases[-1], self._rows_of_stage(stage, stop - start), strict=True)
            bases.append(tuple(before + more for before, more in rows))
        return tuple(bases)

    @functools.cached_property
    def ends(self) -> tuple[int | None, ...]:
        """The slot from which on each source has no row any more; None where that never comes, or too late to be."""
        return tuple(map(self._end_of_source, range(len(self.sources))))

    @property
    def end(self) -> int | None:
        """The slot at which the stream ends; None where it is endless."""
        if self.stop == "first":
            beyond = (self._slot_of(source, rows) for source, rows in self._finite())
            return min((slot for slot in beyond if slot is not None), default=None)
        lasting = (end is None and quota > 0 for end, quota in zip(self.ends, self.quotas[-1], strict=True))
        if any(lasting):
            return None
        served = [self.bases[-1][source] if end is None else None for source, end in enumerate(self.ends)]
        left = (self._slot_of(source, rows - 1) for source, rows in enumerate(served) if rows)
        return max([slot + 1 for slot in left if slot is not None] + [end for end in self.ends if end is not None])

    def _finite(self) -> list[tuple[int, int]]:
        """Return `(source, its rows in all its epochs)` of those that have an end."""
        counts = [(one.num_epochs, one.num_records) for one in self.sources]
        return [(source, epochs * size) for source, (epochs, size) in enumerate(counts) if epochs >= 0]

    def _end_of_source(self, source: int) -> int | None:
        rows = dict(self._finite()).get(source)
        last = None if rows is None else self._slot_of(source, rows - 1)
        return None if last is None or last >= PAD_ID * self.epoch_size else last + 1

    def _slot_of(self, source: int, row: int) -> int | None:
        """Return the slot that serves this row of a source; None where none does: the inverse of the count."""
        stage = bisect.bisect_right([rows[source] for rows in self.bases], row) - 1
        quotas = self.quotas[stage]
        if quotas[source] == 0:
            return None  # the last stage: before others, those that add no row are passed over
        periods, rest = divmod(row - self.bases[stage][source], quotas[source])
        slots = np.flatnonzero(spread(quotas) == source)
        return self.starts[stage] + periods * sum(quotas) + int(slots[rest])

    def _rows_of_stage(self, stage: int, slots: int) -> list[int]:
        """Return the rows of each source in the first `slots` of a stage."""
        periods, rest = divmod(slots, sum(self.quotas[stage]))
        ranks = np.bincount(spread(self.quotas[stage])[:rest], minlength=len(self.sources)).tolist()
        return [quota * periods + rank for quota, rank in zip(self.quotas[stage], ranks, strict=True)]


def mixture_plan(
    plans: Sequence[Plan], batch_size: int, stages: Sequence[tuple[int, Sequence[float]]], stop: str
) -> Plan:
    """Return the plan of a mixture.

    Args:
        plans: Of its sources.
        batch_size: Rows of a global batch.
        stages: `(step, weights)` of each stage: the batch that it begins with, ascending from 0, and the weights of
            all sources, which sum to 1.
        stop: "first" or "all".

    Raises:
        ArsrcValueError: A positive weight is too small to count; or the sources hold too many records together.
    """
    num_records = sum(plan.num_records for plan in plans)
    if num_records > PAD_ID:
        what = "the sources of a mixture hold more than 2**32 - 1 records together"
        raise ArsrcValueError("sources", what, "Mix fewer of them.", num_records=num_records)
    size = num_records
    coming = [(step * batch_size, whole_quotas(weights)) for step, weights in stages]
    # Epochs are u32: what would come later never does.
    coming = [(start, rows) for start, rows in coming if start < 2**32 * size]
    mixture = Mixture(tuple(plans), tuple(rows for _, rows in coming), tuple(start for start, _ in coming), stop)
    end = mixture.end
    is_endless = end is None or end >= PAD_ID * size
    end_epoch, end_index = (-1, 0) if is_endless or end is None else divmod(end, size)
    firsts = zip(mixture.first_ids, plans, strict=True)
    exclude = tuple((first + start, first + stop) for first, plan in firsts for start, stop in plan.exclude)
    return Plan(
        num_records=num_records,
        batch_size=batch_size,
        num_epochs=end_epoch,
        remainder="wrap",
        shuffle_records=False,
        exclude=exclude,
        mixture=mixture,
        end_index=end_index,
    )


def rows_before(mixture: Mixture, slot: int) -> list[int]:
    """Return how many rows of each source a mixture serves before a slot, exactly; host.

    Slots of sources that have ended count, and hold none of their rows.
    """
    stage = bisect.bisect_right(mixture.starts, slot) - 1
    rows = mixture._rows_of_stage(stage, slot - mixture.starts[stage])
    return [base + more for base, more in zip(mixture.bases[stage], rows, strict=True)]


def source_of(xp: ModuleType, mixture: Mixture, record_ids: Array) -> Array:
    """Return the number of the source that each record is of, u32[...]; of the padding id, that of the last one."""
    firsts = xp.asarray(np.array(mixture.first_ids, np.uint32))
    return (place_among(xp, firsts, record_ids) - 1).astype(np.uint32)
