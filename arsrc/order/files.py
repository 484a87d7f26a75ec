"""Files in another order each epoch, records as stored inside a file."""

from types import ModuleType
from typing import Any

import numpy as np

from arsrc.order import permutation
from arsrc.order.plan import Plan

Array = Any
u32 = np.uint32


class FileOrder:
    """The files in one epoch's order: their numbers and where each one starts."""

    def __init__(self, xp: ModuleType, plan: Plan, key_words: Array, epoch: Array) -> None:
        sizes = np.array(plan.file_sizes, u32)  # u32[num_files]
        self.xp, self.num_files = xp, len(sizes)
        self.keys = permutation.round_keys(xp, key_words, epoch, self.num_files)
        self.base = xp.asarray(np.cumsum(sizes, dtype=u32) - sizes)  # first record id of each file
        self.files = permutation.permute(xp, xp.arange(self.num_files, dtype=u32), self.keys, self.num_files)
        lengths = xp.asarray(sizes)[self.files]
        self.starts = xp.cumsum(lengths, dtype=u32) - lengths  # first position of each file, in epoch order

    def record_at(self, position: Array) -> Array:
        """Return the ids of the records at these positions."""
        place = place_among(self.xp, self.starts, position) - 1
        return self.base[self.files[place]] + position - self.starts[place]

    def position_of(self, record_id: Array) -> Array:
        """Return the positions of these records."""
        file = place_among(self.xp, self.base, record_id) - 1
        place = permutation.unpermute(self.xp, file.astype(u32), self.keys, self.num_files)
        return self.starts[place] + record_id - self.base[file]


def place_among(xp: ModuleType, firsts: Array, values: Array) -> Array:
    """Return how many of `firsts`, which are sorted, are no larger than each value."""
    # Under shard_map, JAX before 0.8 wants both to vary over the same devices.
    firsts = firsts + values.ravel()[:1].sum(dtype=u32) * u32(0)
    return xp.searchsorted(firsts, values, side="right")
