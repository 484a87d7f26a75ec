"""What the device asks the host for, and what it gets."""

import dataclasses
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from arsrc._host.records.leaves import Leaves


class Request(NamedTuple):
    """Some rows of the batches from one state on, or from several (an ensemble); a tuple, to be a quick key.

    Attributes:
        states: `(index, epoch, *key_words)` of each member.
        num_batches: Consecutive batches of each.
        first_row: First row wanted of each batch.
        num_rows: Rows wanted of each batch.
        num_askers: How many devices of this process may ask for the same, at most.
    """

    states: tuple[tuple[int, ...], ...]
    num_batches: int
    first_row: int
    num_rows: int
    num_askers: int = 1

    @property
    def num_elements(self) -> int:
        """Rows in all."""
        return len(self.states) * self.num_batches * self.num_rows


class Planned(NamedTuple):
    """Consecutive requests.

    Attributes:
        requests: At least one.
        after: The request that follows the last of them, exhausted or not.
        ended: Whether it is exhausted.
    """

    requests: list[Request]
    after: Request
    ended: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Loaded:
    """What a request brings.

    Attributes:
        leaves: One array `[num_states, num_batches, num_rows, ...]` per leaf; zero in rows without a record.
        record_ids: u32[num_states, num_batches, num_rows]; the padding id in rows without a record.
        epochs: u32[num_states, num_batches, 1 or num_rows]; one entry if all rows are of one epoch.
        after: The request that follows, exhausted or not.
    """

    leaves: Leaves
    record_ids: NDArray[np.uint32]
    epochs: NDArray[np.uint32]
    after: Request
