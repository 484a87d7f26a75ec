"""What `structure` checks, for records that each have a chunk of their own, in memory: in few operations on arrays.

The header of such a chunk stands right in front of the record and the next one right behind, and it is of the same form
for all. Only where a block begins in between more is to be done.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from arsrc._host.format.footer import spans_of_values
from arsrc._host.format.layout import BLOCK_BYTES, BLOCK_HEADER_BYTES, CHUNK_HEADER_BYTES, varint_size
from arsrc._host.format.numbering import Column
from arsrc._host.format.record_index import Located
from arsrc._host.format.structure import FIELD_BYTES, KIND, RECORDS

_IN_BLOCK = BLOCK_BYTES - 1
_MARGIN = BLOCK_HEADER_BYTES + 1
_FIELDS = np.array([0, 0, RECORDS | 1 << 8, 0], "<i8")
_NONE = np.zeros(0, np.int64)


def damaged_singles(data: NDArray[np.uint8], located: Located) -> NDArray[np.int64]:
    """Return the rows of the records around which something else stands.

    Args:
        data: u8[range_bytes], whole files.
        located: Where the records lie, none longer than `LARGE_RECORD_BYTES`.
    """
    begins, lengths = located.begins, located.lengths
    if isinstance(lengths, int):
        heads: Column = CHUNK_HEADER_BYTES + 2 + varint_size(lengths)
    else:
        heads = spans_of_values(lengths) - lengths
    firsts, behind = begins - heads, begins + (lengths + KIND)
    fields = _from(data, FIELD_BYTES)[firsts + 8].view("<i8").reshape(-1, 4)
    # In front of these, or before the kind of the chunk behind, a block begins.
    cut = ((firsts - _MARGIN) & _IN_BLOCK > BLOCK_BYTES - 2 * _MARGIN - heads - lengths).nonzero()[0]
    wrong = _across_blocks(data, cut, begins, firsts, behind, fields) if len(cut) else _NONE
    # The same for all now, so that one comparison does.
    fields[:, 0] -= heads + (lengths - CHUNK_HEADER_BYTES)
    fields[:, 1] = 0
    fields[:, 3] -= lengths
    kinds = data[behind]
    if fields.tobytes() != _FIELDS.tobytes() * len(begins) or kinds.tobytes() != bytes((RECORDS,)) * len(begins):
        return np.union1d(wrong, np.flatnonzero((fields != _FIELDS).any(axis=1) | (kinds != RECORDS)))
    return wrong


def _across_blocks(
    data: NDArray[np.uint8],
    cut: NDArray[np.int64],
    begins: NDArray[np.int64],
    firsts: NDArray[np.int64],
    behind: NDArray[np.int64],
    fields: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Put `behind` and `fields` of some rows right, and return those of them with a wrong block header."""
    begin, first = begins[cut], firsts[cut]
    is_early = begin & _IN_BLOCK <= begin - first + BLOCK_HEADER_BYTES  # the block begins in front of the record
    block = (begin & ~_IN_BLOCK) + BLOCK_BYTES * ~is_early
    first -= BLOCK_HEADER_BYTES * is_early
    behind[cut] += BLOCK_HEADER_BYTES * ~is_early
    if is_early.any():
        places = first[is_early, None] + np.arange(8, CHUNK_HEADER_BYTES)
        places += BLOCK_HEADER_BYTES * (places >= block[is_early, None])
        fields[cut[is_early]] = data[places].view("<i8")
    after = behind[cut] - KIND - block
    distances = _from(data, 16)[block + 8].view("<i8").reshape(-1, 2)
    wrong: NDArray[np.bool_] = (distances[:, 0] != block - first) | (distances[:, 1] != after)
    return cut[wrong & (is_early | (after > BLOCK_HEADER_BYTES))]  # else it begins behind the chunk


def _from(data: NDArray[np.uint8], num_bytes: int) -> Any:
    """Return so many bytes from every byte on."""
    return np.ndarray((len(data) - num_bytes + 1,), np.dtype((np.void, num_bytes)), data, strides=(1,))
