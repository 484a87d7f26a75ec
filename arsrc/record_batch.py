"""`RecordBatch`: the bytes of several records, as readers give them and codecs take them."""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True, eq=False)
class RecordBatch:
    """The bytes of several records laid end to end, as in Arrow's variable-size binary layout.

    Attributes:
        data: u8[total_bytes], the records' bytes; contiguous and read-only.
        offsets: i64[num_records + 1], read-only; record `row` is `data[offsets[row]:offsets[row + 1]]`.
    """

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    def __post_init__(self) -> None:
        # Views: whoever made the arrays may go on writing.
        if self.data.flags.writeable:
            object.__setattr__(self, "data", _read_only(self.data))
        if self.offsets.flags.writeable:
            object.__setattr__(self, "offsets", _read_only(self.offsets))

    @classmethod
    def from_records(cls, records: Sequence[bytes]) -> Self:
        """Lay `records` end to end."""
        lengths = np.fromiter(map(len, records), np.int64, len(records))
        offsets = np.zeros(len(records) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        return cls(np.frombuffer(b"".join(records), np.uint8), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> bytes:
        """The bytes of one record, copied."""
        if row < 0:  # from the end, as sequences count
            row = range(len(self))[row]
        return self.data[self.offsets[row] : self.offsets[row + 1]].tobytes()

    def __iter__(self) -> Iterator[bytes]:
        """The bytes of each record, copied."""
        data: Any = self.data
        data = memoryview(data)  # of which pieces are taken faster than of an array
        for start, stop in itertools.pairwise(self.offsets.tolist()):
            yield bytes(data[start:stop])

    @property
    def lengths(self) -> NDArray[np.int64]:
        """i64[num_records], bytes of each record."""
        return np.diff(self.offsets)


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    view = array[:]
    view.flags.writeable = False
    return view


@functools.lru_cache(8)
def uniform_offsets(num_records: int, num_bytes: int) -> NDArray[np.int64]:
    """Return the offsets i64[num_records + 1] of records of one length; the same read-only array each time."""
    offsets = np.arange(num_records + 1, dtype=np.int64) * num_bytes
    offsets.flags.writeable = False
    return offsets
