"""`read_records`: the bytes of some records, without a config."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from arsrc._host.records.data_set import DataSet
from arsrc.errors import ArsrcIndexError, ArsrcReadError, ArsrcTypeError
from arsrc.open_paths import data_set_of
from arsrc.state import whole_numbers

_TOGETHER = 1024  # records that are read at once


def read_records(paths: Any, ids: Any) -> list[bytes]:
    """Return the bytes of records, as they stand in the files; host.

    To look at data, and for tools: no JAX device is touched. The files are opened for each call, unless a source has
    them open, so ask for many records at once.

    Args:
        paths: What the field `paths` of a config takes: a path, a glob, a sharded set, a slice, or a sequence of these.
        ids: Record ids in any order, integer[num_ids] or a sequence of integers, in `[0, num_records)`.

    Returns:
        The records, in the order of the ids.

    Raises:
        ArsrcTypeError: `ids` are no integers, or not one behind the other.
        ArsrcIndexError: An id is not in the data set.
        ArsrcFileNotFoundError: A path matches no file.
        ArsrcReadError: A file or a record cannot be read.
    """
    wanted = whole_numbers("read_records", "ids", ids)
    if wanted.ndim != 1:
        fix = "Give a list of integers."
        raise ArsrcTypeError("read_records", "ids must be a sequence of integers", fix, shape=wanted.shape)
    while True:
        data_set = data_set_of(paths)
        try:
            return _records(data_set, wanted)
        except ArsrcReadError:
            if not data_set.is_closed:  # else another thread has closed the source whose files they are
                raise


def _records(data_set: DataSet, ids: NDArray[Any]) -> list[bytes]:
    """Return records by their ids, integer[num_ids]."""
    outside = (ids < 0) | (ids >= data_set.num_records)
    if outside.any():
        wrong = int(ids[outside][0])
        raise ArsrcIndexError("read_records", f"ids must be in [0, {data_set.num_records})", ids=wrong)
    found: list[bytes] = []
    for start in range(0, len(ids), _TOGETHER):
        batch = data_set.read(ids[start : start + _TOGETHER].astype(np.int64)).records
        found += [batch[row] for row in range(len(batch))]
    return found
