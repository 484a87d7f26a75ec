"""`Runs`: rows that lie end to end as runs of places, padding and pieces in turns."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from arsrc.views.pieces import ranges

_SHORT_PLACES = 100  # of runs that are copied sooner place by place than with a call for each


class Runs:
    """Where padding and pieces begin, in turns, and how long they are.

    Args:
        at: Place of the first token of each piece, i64[num_pieces].
        lengths: Their tokens, i64[num_pieces]; between them is padding.
        num_places: Places of all rows.
    """

    def __init__(self, at: NDArray[np.int64], lengths: NDArray[np.int64], num_places: int) -> None:
        bounds = np.zeros(2 * len(at) + 2, np.int64)
        bounds[1:-1:2] = at
        np.add(at, lengths, out=bounds[2:-1:2])
        bounds[-1] = num_places
        self._num_places = num_places
        self._begins = bounds[:-1]  # i64[2 * num_pieces + 1]
        self._lengths = bounds[1:] - bounds[:-1]  # i64[2 * num_pieces + 1]

    def padding(self) -> NDArray[np.int64]:
        """Return the places of all padding."""
        return ranges(self._begins[::2], self._lengths[::2])

    def spread(self, values: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the value of its piece at each place, 0 in padding: i32[num_places]."""
        in_turns = np.zeros(len(self._begins), np.int32)
        in_turns[1::2] = values
        return np.repeat(in_turns, self._lengths)

    def take(self, data: NDArray[Any], sources: NDArray[np.int64]) -> NDArray[Any]:
        """Return the items of `data` that pieces are copies of, anything in padding: `data.dtype[num_places]`.

        Args:
            data: Contiguous.
            sources: Where in `data` the items of each piece begin, i64[num_pieces].
        """
        longest = int(self._lengths[::2].max())
        if len(data) < longest:
            data = np.concatenate((data, np.zeros(longest - len(data), data.dtype)))
        begins = np.zeros(len(self._begins), np.int64)  # padding is a copy of what `data` begins with
        begins[1::2] = sources
        is_run = self._lengths > 0
        begins, lengths = begins[is_run], self._lengths[is_run]
        ends = begins + lengths
        # Documents that lie end to end in `data` too are copied at once.
        is_cut = np.ones(len(begins) + 1, bool)
        np.not_equal(begins[1:], ends[:-1], out=is_cut[1:-1])
        begins, ends = begins[is_cut[:-1]], ends[is_cut[1:]]
        if self._num_places < _SHORT_PLACES * len(begins):
            return data[ranges(begins, ends - begins)]
        spans = zip((begins * data.itemsize).tolist(), (ends * data.itemsize).tolist(), strict=True)
        view = data.view(np.uint8).data
        return np.frombuffer(bytearray().join([view[begin:end] for begin, end in spans]), data.dtype)
