"""`PackTable`: which tokens of which documents each row holds, from the documents' lengths alone."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arsrc.views import fit_table, split_table
from arsrc.views.fit_table import FitTable, Track
from arsrc.views.made_by import check, made_by
from arsrc.views.packing import Packing
from arsrc.views.split_table import SplitTable

PackTable = SplitTable | FitTable

_DTYPES: dict[str, dict[str, type]] = {
    "split": {"ends": np.int64, "firsts": np.int64},
    "fit": {"lengths": np.uint32, "documents": np.uint32, "starts": np.uint32, "begins": np.int64},
}


def build(
    packing: Packing, lengths: NDArray[Any], firsts: NDArray[Any] | None = None, track: Track = lambda windows: windows
) -> PackTable:
    """Return the table of documents.

    Args:
        packing: How they are packed.
        lengths: Tokens of each document, integer[num_documents].
        firsts: First document of each source, ascending from 0; no row holds documents of two of them. None: of one.
        track: Wraps the windows that are packed one after the other, as to show progress.

    Raises:
        ArsrcValueError: A length is not in `[0, 2**32 - 2]`.
    """
    starts = np.zeros(1, np.int64) if firsts is None else np.asarray(firsts).astype(np.int64)
    if packing.how == "split":
        return split_table.build(packing, lengths, starts)
    return fit_table.build(packing, lengths, starts, track)


def from_arrays(packing: Packing, arrays: Mapping[str, NDArray[Any]]) -> PackTable:
    """Return the table whose `to_arrays` these are, checked.

    Raises:
        ArsrcValueError: It is of another version or packing, or of no table.
    """
    check(np.array_equal(arrays.get("made_by", ()), made_by(packing)), "it is of another packing or version")
    for name, dtype in _DTYPES[packing.how].items():
        found = arrays.get(name)
        is_right = isinstance(found, np.ndarray) and found.dtype == dtype and found.ndim == 1
        check(is_right, f"it has no {name}")
    return (split_table if packing.how == "split" else fit_table).from_arrays(packing, arrays)
