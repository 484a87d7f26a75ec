"""Best-fit decreasing: pieces into as few rows as go, equal pieces and equal rows handled at once."""

import numpy as np
from numpy.typing import NDArray


def best_fit(sizes: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Return the row that each piece goes to, i64[num_pieces], rows numbered from 0 without gaps.

    The longest come first, each into the row with the least room that it fits (D. S. Johnson, Near-optimal bin packing
    algorithms, 1973). Costs a step for each run of equal pieces into equal rows, not for each piece.

    Args:
        sizes: i64[num_pieces], each in `[1, length]`.
        length: Room of an empty row.
    """
    num_pieces = len(sizes)
    # Of different keys, so that every way to sort gives the same.
    keys = np.sort((length - sizes) * num_pieces + np.arange(num_pieces))
    descending, order = length - keys // max(1, num_pieces), keys % max(1, num_pieces)
    begins = np.flatnonzero(np.diff(descending, prepend=length + 1))
    counts = np.diff(begins, append=num_pieces)
    firsts, num_rows, each = _steps(descending[begins].tolist(), counts.tolist(), length)
    num_placed = num_rows * each
    place = np.arange(num_pieces) - np.repeat(np.cumsum(num_placed) - num_placed, num_placed)
    rows = np.empty(num_pieces, np.int64)
    rows[order] = np.repeat(firsts, num_placed) + place // np.repeat(each, num_placed)
    return rows


def _steps(sizes: list[int], counts: list[int], length: int) -> NDArray[np.int64]:
    """Return first row, number of rows and pieces in each row of every step, i64[3, num_steps]."""
    rooms, steps, num_rows = _Rooms(length), [], 0
    for size, count in zip(sizes, counts, strict=True):
        while count:
            room = rooms.smallest(size)
            if room:
                first, available = rooms.take(room)
            else:
                room, first, available = length, num_rows, count
            each = min(room // size, count)
            filled = min(available, count // each)
            steps.append((first, filled, each))
            count -= filled * each
            rooms.put(room - each * size, first, filled)
            if first == num_rows:  # new ones, as many as are needed
                num_rows += filled
            else:
                rooms.put(room, first + filled, available - filled)
    return np.array(steps, np.int64).reshape(-1, 3).T


class _Rooms:
    """Which rows have how much room: ranges of rows by their room, and a set of the rooms that there are.

    The set is bits in two levels, since an operation on one integer of `length` bits takes long for long rows.
    """

    def __init__(self, length: int) -> None:
        self._shift = (length.bit_length() + 1) // 2
        self._low = (1 << self._shift) - 1
        self._blocks = [0] * ((length >> self._shift) + 1)
        self._top = 0
        self._ranges: dict[int, list[tuple[int, int]]] = {}

    def smallest(self, size: int) -> int:
        """Return the least room of at least `size`, 0 if there is none."""
        block = size >> self._shift
        bits = self._blocks[block] >> (size & self._low)
        if bits:
            return size + (bits & -bits).bit_length() - 1
        later = self._top >> (block + 1)
        if not later:
            return 0
        block += (later & -later).bit_length()
        bits = self._blocks[block]
        return (block << self._shift) + (bits & -bits).bit_length() - 1

    def take(self, room: int) -> tuple[int, int]:
        """Take out a range of rows with this room; return its first row and its number of rows."""
        ranges = self._ranges[room]
        found = ranges.pop()
        if not ranges:
            block = room >> self._shift
            self._blocks[block] ^= 1 << (room & self._low)
            if not self._blocks[block]:
                self._top ^= 1 << block
        return found

    def put(self, room: int, first: int, num_rows: int) -> None:
        """Put in a range of rows with this room."""
        if not room or not num_rows:
            return
        ranges = self._ranges.setdefault(room, [])
        if not ranges:
            block = room >> self._shift
            self._blocks[block] |= 1 << (room & self._low)
            self._top |= 1 << block
        ranges.append((first, num_rows))
