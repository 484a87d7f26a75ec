"""How long records are, where the indices of their files tell without reading them."""

import numpy as np
from numpy.typing import NDArray

from arsrc._host.readers.files import Files, How


def known_lengths(files: Files, record_ids: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Return the bytes of records, i64[num_ids]; None: some lie in compressed groups, of which only sums are known.

    Args:
        files: What is open; opened further where that is needed.
        record_ids: i64[num_ids]

    Raises:
        ArsrcIndexError: An id lies outside.
        ArsrcReadError: A file cannot be opened.
    """
    found = files.numbering.find(record_ids)
    opened = files.opened_for(found)
    how = opened.how[found.slices]
    if (how == How.GROUPED).any():
        return None
    lengths = np.empty(len(record_ids), np.int64)
    if len(rows := np.flatnonzero(how == How.MAPPED)) and opened.mapped is not None:
        lengths[rows] = opened.mapped.locate(found.at(rows)).lengths
    if len(rows := np.flatnonzero(how == How.DECODED)) and opened.compressed is not None:
        lengths[rows] = opened.compressed.num_bytes(found.slices[rows], found.positions[rows])
    by_reader = np.flatnonzero(how == How.BY_READER)
    for number in np.unique(found.slices[by_reader]).tolist():
        rows = by_reader[found.slices[by_reader] == number]
        path = files.numbering.slices[number].path
        lengths[rows] = files.pool.reader(path, files.stamps[path]).chunks.decoded_sizes[found.positions[rows]]
    return lengths
