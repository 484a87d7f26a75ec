"""Elements of groups of sources that are read each in its own way."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from arsrc._host.format.record_index import Located
from arsrc._host.machine.stopping import Stop
from arsrc._host.records.elements import Elements, all_spans, each_once, refuse_outside
from arsrc._host.records.leaves import Leaves
from arsrc.order.plan import PAD_ID

Integers = NDArray[np.int64]


class MixedElements:
    """Reads rows of several groups, which are numbered by source. Like `Elements`.

    Attributes:
        num_records: How many rows there are.
        shapes: Shape and dtype of each leaf of an element.
        num_bytes: Decoded bytes of one element.
        label: What names the sources in errors and profiles.
    """

    def __init__(self, groups: Sequence[Elements], group_of: Sequence[int], num_rows: Sequence[int]) -> None:
        """Number the rows of groups anew.

        Args:
            groups: Whose rows are those of their sources, one source behind the other.
            group_of: The group of each source.
            num_rows: The rows of each source.
        """
        self._groups, self._group_of = groups, np.array(group_of)
        sizes = np.array(num_rows, np.int64)
        self._bases = np.cumsum(sizes) - sizes  # i64[num_sources], the first row of each
        in_group = np.zeros(len(sizes), np.int64)  # likewise, as its group numbers them
        for group in range(len(groups)):
            at = np.flatnonzero(self._group_of == group)
            in_group[at] = np.cumsum(sizes[at]) - sizes[at]
        self._shifts = in_group - self._bases
        self.num_records = int(sizes.sum())
        self.shapes, self.num_bytes, self.label = groups[0].shapes, groups[0].num_bytes, groups[0].label

    def read(
        self,
        record_ids: NDArray[np.uint32],
        stop: Stop | None = None,
        masks: bool = False,
        outs: Leaves | None = None,
    ) -> Leaves:
        """Return what `Elements.read` does."""
        del outs
        ids = record_ids.ravel().astype(np.int64)
        shapes = [*self.shapes, *([((), np.dtype(bool))] if masks else [])]
        leaves: Leaves = [np.empty((len(ids), *shape), dtype) for shape, dtype in shapes]
        sources = np.searchsorted(self._bases, ids, side="right") - 1
        is_row, groups = ids != PAD_ID, self._group_of[sources]
        refuse_outside(ids[is_row], self.num_records)
        for whole in leaves if not is_row.all() else ():
            whole[~is_row] = 0
        for number, elements in enumerate(self._groups):
            at = np.flatnonzero(is_row & (groups == number))
            if len(at):
                rows = (ids[at] + self._shifts[sources[at]]).astype(np.uint32)
                for whole, leaf in zip(leaves, elements.read(rows, stop, masks), strict=True):
                    whole[at] = leaf
        return [leaf.reshape(*record_ids.shape, *leaf.shape[1:]) for leaf in leaves]

    def read_once(self, record_ids: NDArray[np.uint32], stop: Stop | None = None, masks: bool = False) -> Leaves:
        """Return what `Elements.read_once` does."""
        return each_once(lambda ids: self.read(ids, stop, masks), record_ids)

    def locate(self, record_ids: NDArray[np.uint32]) -> Located | None:
        """Return None: rows are read."""
        del record_ids
        return None

    def copy(
        self,
        located: Located,
        record_ids: NDArray[np.uint32],
        outs: Leaves | None,
        stop: Stop | None = None,
        masks: bool = False,
    ) -> Leaves:
        """Return what `read` does."""
        del located
        return self.read(record_ids, stop, masks, outs)

    def spans(self, label: str) -> Iterator[NDArray[np.uint32]]:
        """Yield what `Elements.spans` does."""
        return all_spans(self.num_records, self.num_bytes, label)
