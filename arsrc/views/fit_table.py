"""`FitTable`: documents whole, in the rows where they fit best among neighbouring documents."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arsrc.views.best_fit import best_fit
from arsrc.views.made_by import check, made_by
from arsrc.views.packing import Packing, num_ends, packed_lengths
from arsrc.views.pieces import Pieces, ranges

Track = Callable[[Iterable[tuple[int, int]]], Iterable[tuple[int, int]]]

# A window has so many documents, and tokens for so many rows: fewer of either, and rows are filled less well. More,
# and what stands in a row lies far apart in a file.
_WINDOW_DOCUMENTS = 2**13
_WINDOW_ROWS = 2**8
_MOST_DOCUMENTS = 2**22  # at once, for memory


@dataclasses.dataclass(frozen=True, eq=False)
class FitTable:
    """Which pieces each row has: 8 bytes a piece, 8 a row and 4 a document.

    Attributes:
        packing: How the documents are packed.
        lengths: Tokens of each document in rows, u32[num_documents].
        documents: The document of each piece, u32[num_pieces].
        starts: Its first token in the document, u32[num_pieces]; a piece goes on for a row or to the document's end.
        begins: First piece of each row, and the number of pieces, i64[num_rows + 1].
    """

    packing: Packing
    lengths: NDArray[np.uint32]
    documents: NDArray[np.uint32]
    starts: NDArray[np.uint32]
    begins: NDArray[np.int64]

    @property
    def num_documents(self) -> int:
        """Documents, those in no row too."""
        return len(self.lengths)

    @property
    def num_rows(self) -> int:
        """Rows, each with a token at least."""
        return len(self.begins) - 1

    @property
    def num_tokens(self) -> int:
        """Tokens of documents in rows."""
        return int(self.lengths.sum(dtype=np.int64))

    @property
    def fill(self) -> float:
        """Share of all tokens of rows that are no padding."""
        return self.num_tokens / max(1, self.num_rows * self.packing.length)

    def first_documents(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the first document of each row, i64[num_asked]."""
        return self.documents[self.begins[rows]].astype(np.int64)

    def pieces(self, rows: NDArray[np.int64]) -> Pieces:
        """Return the pieces that stand in these rows, by row and place."""
        first = self.begins[rows]
        counts = self.begins[rows + 1] - first
        places = ranges(first, counts)
        documents = self.documents[places].astype(np.int64)
        starts = self.starts[places].astype(np.int64)
        full = self.lengths[documents].astype(np.int64)
        lengths = np.minimum(full - starts, self.packing.length)
        before = np.cumsum(lengths) - lengths
        columns = before - np.repeat(before[np.cumsum(counts) - counts], counts)
        row = np.repeat(np.arange(len(rows)), counts)
        return Pieces(row, documents, starts, lengths, columns, full - num_ends(self.packing))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return what the table is made of and by, to be kept."""
        names = "lengths", "documents", "starts", "begins"
        return {name: getattr(self, name) for name in names} | {"made_by": made_by(self.packing)}


def build(packing: Packing, lengths: NDArray[np.int64], firsts: NDArray[np.int64], track: Track) -> FitTable:
    """Return the table of documents of some lengths in sources."""
    full = packed_lengths(packing, lengths)
    found = [
        _window(full[start:stop], start, packing.length) for start, stop in track([*_windows(packing, full, firsts)])
    ]
    documents, starts, is_first = (np.concatenate(parts) for parts in zip(*found, strict=True)) if found else _NOTHING
    begins = np.append(np.flatnonzero(is_first), len(documents))
    return FitTable(packing, full.astype(np.uint32), documents, starts, begins)


def from_arrays(packing: Packing, arrays: Mapping[str, NDArray[Any]]) -> FitTable:
    """Return the table that is made of these arrays, checked."""
    lengths, documents, starts, begins = (arrays[name] for name in ("lengths", "documents", "starts", "begins"))
    length, num_pieces = packing.length, len(documents)
    check(len(starts) == num_pieces, "pieces are missing")
    check(len(begins) > 0 and begins[0] == 0 and begins[-1] == num_pieces, "rows are out of bounds")
    check(np.all(begins[1:] > begins[:-1]), "rows are not in order")
    check(num_pieces == 0 or documents.max() < len(lengths), "a document is out of bounds")
    check(packing.longer == "cut" or np.all(lengths <= length), "a document is longer than a row")
    per_document = -(-lengths.astype(np.int64) // length)
    number, rest = np.divmod(starts.astype(np.int64), length)
    check(not rest.any() and np.all(number < per_document[documents]), "a piece begins where none does")
    places = (np.cumsum(per_document) - per_document)[documents] + number
    check(num_pieces == per_document.sum() and np.all(np.bincount(places) == 1), "a piece is missing or there twice")
    sizes = np.minimum(lengths[documents] - starts, length).astype(np.int64)
    check(np.all(np.diff(np.concatenate(([0], np.cumsum(sizes)))[begins]) <= length), "a row is too long")
    is_first = np.zeros(num_pieces + 1, bool)
    is_first[begins] = True
    check(np.all(is_first[1:-1] | (documents[1:] > documents[:-1])), "pieces are not in order")
    heads = documents[begins[:-1]]
    check(np.all(heads[1:] >= heads[:-1]), "rows are not in order")
    return FitTable(packing, lengths, documents, starts, begins)


_Parts = tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.bool_]]
_NOTHING: _Parts = np.empty(0, np.uint32), np.empty(0, np.uint32), np.empty(0, bool)


def _windows(packing: Packing, full: NDArray[np.int64], firsts: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Give the documents that are packed together, as ranges."""
    ends = np.cumsum(full)
    for start, stop in zip(firsts.tolist(), [*firsts[1:].tolist(), len(full)], strict=True):
        while start < stop:
            before = int(ends[start - 1]) if start else 0
            enough = int(np.searchsorted(ends, before + _WINDOW_ROWS * packing.length)) + 1
            window = min(max(start + _WINDOW_DOCUMENTS, enough), start + _MOST_DOCUMENTS, stop)
            yield start, window
            start = window


def _window(full: NDArray[np.int64], start: int, length: int) -> _Parts:
    """Return documents, starts and whether they begin a row, of the pieces of all rows of a window."""
    kept = np.flatnonzero(full)  # i64[num_kept]
    num_kept = len(kept)
    # A document's last piece is the one that shares a row; the pieces before it are whole rows.
    whole_rows = (full[kept] - 1) // length
    rows = best_fit(full[kept] - whole_rows * length, length)
    heads = np.empty(num_kept, np.int64)
    heads[rows[::-1]] = np.arange(num_kept)[::-1]  # the first document of each row
    heads = heads[rows]  # i64[num_kept]
    # Numbers for rows in order of their first documents: those that a document fills, then the one that it opens.
    opened = np.cumsum(whole_rows + 1) - 1
    numbers = opened[heads]
    whole_of = np.repeat(np.arange(num_kept), whole_rows)
    place = ranges(np.zeros(num_kept, np.int64), whole_rows)
    keys = np.concatenate((numbers, (opened - whole_rows)[whole_of] + place)) * num_kept
    keys += np.concatenate((np.arange(num_kept), whole_of))
    row, documents = np.divmod(np.sort(keys), max(1, num_kept))  # keys differ, so that every way to sort is the same
    is_first = np.diff(row, prepend=-1) > 0
    # A row is one that its document fills, or the document's last piece stands in it: an earlier one, or the next.
    place = row - (opened - whole_rows)[documents]
    starts = np.where(place >= 0, place, whole_rows[documents]) * length
    return (kept[documents] + start).astype(np.uint32), starts.astype(np.uint32), is_first
