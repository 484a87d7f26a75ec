"""`Pieces`: which tokens of which documents stand where in rows."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Pieces(NamedTuple):
    """Pieces in order of row and place; all arrays are i64[num_pieces].

    Attributes:
        rows: Which of the rows that were asked for a piece stands in; ascending.
        documents: The document that it is of.
        starts: Its first token in the document, its end-of-document token among them.
        lengths: Its tokens, likewise.
        columns: Where in the row it begins.
        document_lengths: Tokens of the document without its end-of-document token, as far as they are in rows.
    """

    rows: NDArray[np.int64]
    documents: NDArray[np.int64]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    columns: NDArray[np.int64]
    document_lengths: NDArray[np.int64]


def ranges(begins: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the numbers of ranges one behind the other, i64[counts.sum()]."""
    before = np.cumsum(counts) - counts
    return np.repeat(begins - before, counts) + np.arange(int(counts.sum()))
