"""`SplitTable`: documents end to end, cut into rows wherever a row is full."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from arsrc.views.made_by import check, made_by
from arsrc.views.packing import Packing, num_ends, packed_lengths
from arsrc.views.pieces import Pieces, ranges


@dataclasses.dataclass(frozen=True, eq=False)
class SplitTable:
    """Where each document ends, which is all there is to know: 8 bytes a document.

    Places count over all rows, those of padding too: the first document of a source begins a row.

    Attributes:
        packing: How the documents are packed.
        ends: Place behind each document's last token, i64[num_documents].
        firsts: First document of each source, i64[num_sources].
    """

    packing: Packing
    ends: NDArray[np.int64]
    firsts: NDArray[np.int64]

    @property
    def num_documents(self) -> int:
        """Documents, those in no row too."""
        return len(self.ends)

    @property
    def num_rows(self) -> int:
        """Rows, each with a token at least."""
        return -(-int(self.ends[-1]) // self.packing.length) if len(self.ends) else 0

    @property
    def num_tokens(self) -> int:
        """Tokens of documents in rows."""
        later = self.firsts[(self.firsts > 0) & (self.firsts < len(self.ends))]
        padding = -self.ends[np.unique(later) - 1] % self.packing.length
        return int(self.ends[-1] - padding.sum()) if len(self.ends) else 0

    @property
    def fill(self) -> float:
        """Share of all tokens of rows that are no padding."""
        return self.num_tokens / max(1, self.num_rows * self.packing.length)

    def first_documents(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the first document of each row, i64[num_asked]."""
        return np.searchsorted(self.ends, rows * self.packing.length, side="right")

    def pieces(self, rows: NDArray[np.int64]) -> Pieces:
        """Return the pieces that stand in these rows, by row and place."""
        length = self.packing.length
        first = self.first_documents(rows)
        last = np.searchsorted(self.ends, (rows + 1) * length, side="left")
        counts = np.minimum(last + 1, len(self.ends)) - first
        documents = ranges(first, counts)
        row = np.repeat(np.arange(len(rows)), counts)
        row_begins = np.repeat(rows * length, counts)
        begins, ends = self._begins(documents), self.ends[documents]
        from_place = np.maximum(begins, row_begins)
        lengths = np.minimum(ends, row_begins + length) - from_place
        full = np.maximum(ends - begins - num_ends(self.packing), 0)
        found = Pieces(row, documents, from_place - begins, lengths, from_place - row_begins, full)
        in_row = lengths > 0
        # Left out are documents without tokens, and what begins another source.
        return found if in_row.all() else Pieces(*(values[in_row] for values in found))

    def to_arrays(self) -> dict[str, NDArray[np.int64]]:
        """Return what the table is made of and by, to be kept."""
        return {"ends": self.ends, "firsts": self.firsts, "made_by": made_by(self.packing)}

    def _begins(self, documents: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the place of the first token of documents."""
        begins = np.where(documents > 0, self.ends[documents - 1], 0)
        place = np.minimum(np.searchsorted(self.firsts, documents), len(self.firsts) - 1)
        is_first = self.firsts[place] == documents
        return np.where(is_first, begins + -begins % self.packing.length, begins)


def build(packing: Packing, lengths: NDArray[np.int64], firsts: NDArray[np.int64]) -> SplitTable:
    """Return the table of documents of some lengths in sources."""
    ends = np.cumsum(packed_lengths(packing, lengths))
    before = np.concatenate(([0], ends))[np.append(firsts, len(ends))]  # i64[num_sources + 1]
    padding = -np.diff(before) % packing.length
    ends += np.repeat(np.cumsum(padding) - padding, np.diff(firsts, append=len(ends)))
    return SplitTable(packing, ends, firsts)


def from_arrays(packing: Packing, arrays: Mapping[str, NDArray[np.int64]]) -> SplitTable:
    """Return the table that is made of these arrays, checked."""
    ends, firsts = arrays["ends"], arrays["firsts"]
    check(len(firsts) > 0 and firsts[0] == 0 and firsts[-1] <= len(ends), "sources are out of bounds")
    check(np.all(firsts[1:] >= firsts[:-1]), "sources are not in order")
    table = SplitTable(packing, ends, firsts)
    check(np.all(ends >= 0), "a document ends before the first row")
    lengths = ends - table._begins(np.arange(len(ends)))
    check(np.all(lengths >= 0), "a document ends before it begins")
    check(packing.longer == "cut" or np.all(lengths <= packing.length), "a document is longer than a row")
    return table
