"""The records that are rows, as rows number them: all of a data set, some, or those of several sources in one."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from arsrc._host.format.record_index import Located
from arsrc._host.records.data_set import DataSet, raise_it
from arsrc._host.records.record_reads import OnBad, Read
from arsrc.record_batch import RecordBatch
from arsrc.views.id_set import IdSet

Integers = NDArray[np.int64]


class Records(Protocol):
    """Records by the numbers of rows; `DataSet` is one, whose rows are all its records."""

    @property
    def num_records(self) -> int:
        """How many there are."""
        ...

    def read(self, record_ids: Integers, on_bad: OnBad = raise_it, out: NDArray[np.uint8] | None = None) -> Read:
        """Return what `DataSet.read` does."""
        ...

    def locate(self, record_ids: Integers) -> Located | None:
        """Return what `DataSet.locate` does."""
        ...

    def copy(self, located: Located, out: NDArray[np.uint8] | None = None, on_bad: OnBad = raise_it) -> RecordBatch:
        """Return what `DataSet.copy` does."""
        ...

    def copy_parts(
        self, located: Located, skips: Integers, lengths: Integers, out: NDArray[np.uint8], places: Integers
    ) -> bool:
        """Do what `DataSet.copy_parts` does."""
        ...

    def where(self, record_id: int) -> tuple[str, int]:
        """Return the file of a record and its position in it."""
        ...

    def own(self, rows: Integers) -> Integers:
        """Return the numbers by which their sources know records, i64[n] both."""
        ...

    def lengths(self, record_ids: Integers) -> Integers | None:
        """Return the bytes of records where that is known without reading them, else None."""
        ...


class Part(NamedTuple):
    """Files of a data set that lie one behind the other, and which of their records are rows.

    Attributes:
        first_slice: Number of the first of the files.
        stop_slice: Number of the first one behind.
        ids: The records, numbered from the first one of these files on; None: all.
    """

    first_slice: int
    stop_slice: int
    ids: IdSet | None

    def sizes(self, data_set: DataSet) -> Integers:
        """Return i64[num_files], the rows of each file."""
        sizes = data_set.sizes[self.first_slice : self.stop_slice]
        if self.ids is None:
            return sizes
        return np.diff(self.ids.num_below(np.concatenate(([0], np.cumsum(sizes)))))


class SelectedRecords:
    """Records of parts of a data set, one behind the other.

    Attributes:
        num_records: How many there are.
    """

    def __init__(self, data_set: DataSet, parts: Sequence[Part]) -> None:
        self._data_set, self._ids = data_set, [part.ids for part in parts]
        firsts = np.concatenate(([0], np.cumsum(data_set.sizes)))[[part.first_slice for part in parts]]
        num_rows = np.array([part.sizes(data_set).sum() for part in parts], np.int64)
        self._bases = np.cumsum(num_rows) - num_rows  # i64[num_parts], the first row of each
        self._shifts = firsts - np.where([ids is None for ids in self._ids], self._bases, 0)
        self.num_records = int(num_rows.sum())

    def ids(self, rows: Integers) -> Integers:
        """Return the records of rows, i64[n] both, as the data set numbers them."""
        if len(self._ids) == 1:
            ids = self._ids[0]
            return (rows if ids is None else ids.take(rows)) + self._shifts[0]
        parts = np.searchsorted(self._bases, rows, side="right") - 1
        found = rows + self._shifts[parts]
        for number in np.unique(parts).tolist():
            if (ids := self._ids[number]) is not None:
                at = np.flatnonzero(parts == number)
                found[at] = ids.take(rows[at] - self._bases[number]) + self._shifts[number]
        return found

    def own(self, rows: Integers) -> Integers:
        """Return the numbers by which their parts know rows, i64[n] both."""
        if len(self._ids) == 1:
            return rows
        return rows - self._bases[np.searchsorted(self._bases, rows, side="right") - 1]

    def read(self, record_ids: Integers, on_bad: OnBad = raise_it, out: NDArray[np.uint8] | None = None) -> Read:
        """Return the records of rows; see `DataSet.read`."""
        return self._data_set.read(self.ids(record_ids), on_bad, out, names=self.own(record_ids))

    def locate(self, record_ids: Integers) -> Located | None:
        """Return where the records of rows lie; see `DataSet.locate`."""
        return self._data_set.locate(self.ids(record_ids), names=self.own(record_ids))

    def copy(self, located: Located, out: NDArray[np.uint8] | None = None, on_bad: OnBad = raise_it) -> RecordBatch:
        """Return the records that `locate` found; see `DataSet.copy`."""
        return self._data_set.copy(located, out, on_bad)

    def copy_parts(
        self, located: Located, skips: Integers, lengths: Integers, out: NDArray[np.uint8], places: Integers
    ) -> bool:
        """Copy some bytes of each record that `locate` found; see `DataSet.copy_parts`."""
        return self._data_set.copy_parts(located, skips, lengths, out, places)

    def where(self, record_id: int) -> tuple[str, int]:
        """Return the file of a row's record and its position in it."""
        return self._data_set.where(int(self.ids(np.array([record_id]))[0]))

    def lengths(self, record_ids: Integers) -> Integers | None:
        """Return the bytes of rows' records; see `DataSet.lengths`."""
        return self._data_set.lengths(self.ids(record_ids))


def records_of(data_set: DataSet, parts: Sequence[Part]) -> Records:
    """Return the records of parts: the data set itself where they are all of it."""
    if len(parts) == 1 and parts[0] == Part(0, len(data_set.sizes), None):
        return data_set
    return SelectedRecords(data_set, parts)
