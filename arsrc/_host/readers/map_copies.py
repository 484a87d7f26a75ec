"""Copies of what stands in mapped files, of one length or of several: by NumPy, or with care by the system."""

import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from arsrc._host.format.careful import copy_equal, copy_records
from arsrc._host.format.gather import LARGE_RECORD_BYTES, gather_equal, gather_ragged
from arsrc._host.format.layout import to_physical
from arsrc._host.format.numbering import Integers
from arsrc._host.format.structure import CopyEqual
from arsrc._host.readers.map_reads import BadRows
from arsrc._host.storage.address_range import AddressRange


class Streams(NamedTuple):
    """Bytes of chunks.

    Attributes:
        data: u8[...], what they lie in.
        begins: i64[n], where those of each begin.
        ends: i64[n]
    """

    data: NDArray[np.uint8]
    begins: Integers
    ends: Integers


def copier_of(area: AddressRange, is_careful: bool) -> CopyEqual:
    """Return what copies bytes of one length from physical positions."""
    if is_careful and area.can_copy:
        return functools.partial(copy_equal, area)
    return lambda begins, length: gather_equal(area.data, begins, length, None)


def gather(area: AddressRange, starts: Integers, lengths: Integers, is_careful: bool) -> Streams:
    """Copy bytes that stand at logical positions."""
    offsets, most = np.zeros(len(starts) + 1, np.int64), int(lengths.max())
    np.cumsum(lengths, out=offsets[1:])
    if is_careful and area.can_copy:
        data = np.empty(offsets[-1], np.uint8)
        if len(rows := copy_records(area, starts, offsets, data)):
            raise BadRows(rows)
    elif most <= LARGE_RECORD_BYTES and most * len(starts) <= 2 * offsets[-1]:
        # As much of each as of the longest: that takes less time than to look at each.
        data, begins = gather_equal(area.data, to_physical(starts), most, None), np.arange(len(starts)) * most
        return Streams(data, begins, begins + lengths)
    else:
        data = gather_ragged(area.data, starts, offsets, None)
    return Streams(data, offsets[:-1], offsets[1:])
