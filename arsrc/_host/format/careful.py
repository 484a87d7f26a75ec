"""Copying out of mapped files by the system: where touching the map would end the process, it tells what is missing.

Bytes that a truncation took away and pages that the disk cannot read are such. It takes as long for large records, and
some times longer for small ones, and holds the interpreter lock for none.
"""

import numpy as np
from numpy.typing import NDArray

from arsrc._host.format.gather import gather_equal, gather_ragged, pieces
from arsrc._host.format.layout import BLOCK_BYTES, BLOCK_HEADER_BYTES
from arsrc._host.storage.address_range import AddressRange


def copy_equal(area: AddressRange, begins: NDArray[np.int64], length: int) -> NDArray[np.uint8]:
    """Copy what begins at physical positions, as `gather_equal` does; what cannot be read is zeros."""
    if not area.can_copy:
        return gather_equal(area.data, begins, length, None)
    heads = np.minimum(length, BLOCK_BYTES - begins % BLOCK_BYTES)  # i64[n], bytes in front of a block header
    out = np.zeros(len(begins) * length, np.uint8)
    two = np.stack((begins, begins + heads + BLOCK_HEADER_BYTES), axis=1).ravel()
    failed = area.copy(two, np.stack((heads, length - heads), axis=1).ravel(), out)
    out.reshape(-1, length)[failed // 2] = 0
    return out


def copy_records(
    area: AddressRange, starts: NDArray[np.int64], offsets: NDArray[np.int64], out: NDArray[np.uint8]
) -> NDArray[np.int64]:
    """Copy records of any lengths, as `gather_ragged` does.

    Args:
        area: Whole files.
        starts: i64[n], logical positions of the records.
        offsets: i64[n + 1], where each record shall stand.
        out: u8[offsets[n]] to write into.

    Returns:
        i64[...], rows of the records that cannot be read.
    """
    if not area.can_copy:
        gather_ragged(area.data, starts, offsets, out)
        return np.zeros(0, np.int64)
    rows, begins, sizes = pieces(starts, np.diff(offsets))
    return np.unique(rows[area.copy(begins, sizes, out)])
