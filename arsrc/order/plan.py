"""The static numbers of a source: how large it is, and in which order it is served."""

import dataclasses
from typing import TYPE_CHECKING

from arsrc.frozen import HashOnce
from arsrc.order.blocks import Blocks

if TYPE_CHECKING:
    from arsrc.order.mixture import Mixture

PAD_ID = 2**32 - 1
"""Record id of a row that holds no record; also the largest u32."""

ORDER_VERSION = 1
"""Version of the order, part of the fingerprint; a change of any order is a new version."""


@dataclasses.dataclass(frozen=True)
class Plan(HashOnce):
    """The static numbers behind order and state arithmetic: what `config` says and how large the data is.

    Attributes:
        num_records: Records in the data set, in `[1, 2**32 - 1]`, and rows of an epoch; of a mixture, the records of
            all its sources.
        batch_size: Records in a global batch.
        num_epochs: Passes before exhaustion; -1 is endless.
        remainder: "drop", "pad" or "wrap"; always "wrap" of a mixture.
        shuffle_records: Whether all records are permuted each epoch.
        file_sizes: Records of each file if files are permuted each epoch, else empty.
        blocks: The numbers of the block order if records are permuted in blocks, else None.
        exclude: Ranges `[start, stop)` of record ids that are served as padding; sorted and disjoint.
        mixture: The sources and their shares if this is the plan of a mixture, else None.
        end_index: Rows that are served of epoch `num_epochs`: only a mixture may end within an epoch.
    """

    num_records: int
    batch_size: int
    num_epochs: int
    remainder: str
    shuffle_records: bool
    file_sizes: tuple[int, ...] = ()
    blocks: Blocks | None = None
    exclude: tuple[tuple[int, int], ...] = ()
    mixture: "Mixture | None" = None
    end_index: int = 0

    __hash__ = HashOnce.__hash__

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one epoch; under "wrap", batches that hold one epoch's records."""
        if self.remainder == "drop":
            return self.num_records // self.batch_size
        return -(-self.num_records // self.batch_size)

    @property
    def total_steps(self) -> int | None:
        """Batches until exhaustion, None if endless."""
        if self.num_epochs < 0:
            return None
        if self.remainder == "wrap":
            return -(-(self.num_epochs * self.num_records + self.end_index) // self.batch_size)
        return self.num_epochs * self.steps_per_epoch

    @property
    def epochs_in_batch(self) -> int:
        """Most epochs that one batch can touch."""
        if self.remainder != "wrap":
            return 1
        return (self.batch_size + self.num_records - 2) // self.num_records + 1
