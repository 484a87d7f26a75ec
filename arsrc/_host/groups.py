"""Sources whose records are read together: those that share files, and how these are decoded."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from arsrc._host.decoded import Decoded
from arsrc._host.open_files import OpenFiles
from arsrc._host.records.selected import Part, Records, records_of
from arsrc.errors import ArsrcValueError, sides
from arsrc.order.blocks import Blocks
from arsrc.order.plan import Plan
from arsrc.views.pack_table import PackTable

if TYPE_CHECKING:
    from arsrc.config import ArrayRecordSourceConfig

Ranges = tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """Sources that are read together, and what they share with others; most often it is one source.

    Attributes:
        configs: One for each source; what they share is the first one's.
        files: The files of all.
        parts: Which of their records are rows of each source, or documents of which rows are packed.
        decoded: How records are decoded, and what is kept of it.
        shared: Keeps alive what others may find and share, as long as this group lives.
    """

    configs: "tuple[ArrayRecordSourceConfig, ...]"
    files: OpenFiles
    parts: tuple[Part, ...]
    decoded: Decoded
    shared: tuple[object, ...]

    @functools.cached_property
    def records(self) -> Records:
        """The records of all sources, one source behind the other."""
        return records_of(self.files.data_set, self.parts)

    @functools.cached_property
    def plans(self) -> tuple[Plan, ...]:
        """The plan of each source.

        Raises:
            ArsrcValueError: One has no rows, or excludes what there is not.
        """
        return tuple(map(self._plan, range(len(self.configs))))

    @property
    def exclude(self) -> Ranges:
        """Ranges of excluded records, as `records` numbers them."""
        return excluded(self.configs, self._firsts)

    @property
    def _firsts(self) -> NDArray[np.int64]:
        """First record of each source, and the number of records of all, i64[num_sources + 1]."""
        return first_records(self.files, self.parts)

    def own_record(self, record_id: int) -> tuple[int, int]:
        """Return the place of the source that a record of `records` is of, and how this one numbers it."""
        place = int(np.searchsorted(self._firsts, record_id, side="right")) - 1
        return place, record_id - int(self._firsts[place])

    def where(self, place: int, record_id: int) -> tuple[str, int]:
        """Return the file of a source's record and its position in it."""
        return self.records.where(int(self._firsts[place]) + record_id)

    def num_stored(self, source: int) -> int:
        """Return the records of the files of a source, whether they are rows or not."""
        part = self.parts[source]
        return int(self.files.data_set.sizes[part.first_slice : part.stop_slice].sum())

    def num_documents(self, source: int) -> int:
        """Return the records that are rows of a source, or of which its rows are packed."""
        return int(self.parts[source].sizes(self.files.data_set).sum())

    def content_hash(self, source: int) -> str:
        """Return a hash of what the files of a source hold, from kilobytes of them."""
        part = self.parts[source]
        return self.files.data_set.content_hash(range(part.first_slice, part.stop_slice))

    def _plan(self, source: int) -> Plan:
        config, sizes = self.configs[source], self.parts[source].sizes(self.files.data_set)
        num_documents = int(sizes.sum())
        _check_excluded(config.exclude, num_documents)
        if self.decoded.table is not None:
            sizes = self._packed_sizes(source, sizes)
        num_rows = int(sizes.sum())
        if not num_rows:
            fix = "Documents without tokens are in no row, nor are bad ones, and long ones that are dropped."
            raise ArsrcValueError("pack", "no document has tokens", fix, paths=config.paths[:3])
        by_block = config.shuffle_records and config.shuffle_block_size > 1
        window_size = config.shuffle_block_size * config.shuffle_window_blocks
        return Plan(
            num_records=num_rows,
            batch_size=config.batch_size,
            num_epochs=config.num_epochs,
            remainder=config.remainder,
            shuffle_records=config.shuffle_records,
            file_sizes=tuple(sizes.tolist()) if config.shuffle_files else (),
            blocks=Blocks(num_rows, config.shuffle_block_size, window_size) if by_block else None,
            exclude=() if config.pack is not None else own_excluded(config, num_documents),
        )

    def _packed_sizes(self, source: int, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the packed rows of files: of each where that matters, by the first document, else of all."""
        table = self.decoded.table
        assert table is not None
        first, stop = self._firsts[source : source + 2]
        ends = first + np.cumsum(sizes) if self.configs[source].shuffle_files else np.array([stop])
        bounds = [first_row(table, document) for document in (first, *ends.tolist())]
        return np.diff(bounds)


def first_row(table: PackTable, document: int) -> int:
    """Return the first packed row that begins with a document or one behind it."""
    low, high = 0, table.num_rows
    while low < high:
        middle = (low + high) // 2
        if table.first_documents(np.array([middle]))[0] < document:
            low = middle + 1
        else:
            high = middle
    return low


def first_records(files: OpenFiles, parts: Sequence[Part]) -> NDArray[np.int64]:
    """Return the first record of each source, and the number of records of all, i64[num_sources + 1]."""
    return np.cumsum([0, *(int(part.sizes(files.data_set).sum()) for part in parts)])


def excluded(configs: "Sequence[ArrayRecordSourceConfig]", firsts: NDArray[np.int64]) -> Ranges:
    """Return ranges of excluded records, where those of several sources are numbered one source behind the other."""
    by_source = zip(configs, firsts[:-1].tolist(), np.diff(firsts).tolist(), strict=True)
    return tuple(
        (first + start, first + stop) for config, first, size in by_source for start, stop in own_excluded(config, size)
    )


def own_excluded(config: "ArrayRecordSourceConfig", num_records: int) -> Ranges:
    """Return the excluded ranges of a source of so many records, which none of them goes beyond."""
    exclude: Ranges = config.exclude
    return tuple((start, min(stop, num_records)) for start, stop in exclude if start < num_records)


def random_access(config: "ArrayRecordSourceConfig") -> bool:
    """Whether records are read in random order, without locality."""
    return config.shuffle_records and config.shuffle_block_size == 1


def part_of(config: "ArrayRecordSourceConfig", files: OpenFiles) -> Part:
    """Return which records are rows of a source.

    Raises:
        ArsrcValueError: It selects records that there are none of, or selects from other data.
    """
    slices = files.slices_of(config.paths)
    selection = config.select
    if selection is None:
        return Part(slices.start, slices.stop, None)
    num_records = int(files.data_set.sizes[slices.start : slices.stop].sum())
    fix = "Select anew, by select_records for one, or give the paths for which it was made."
    if selection.num_records not in (None, num_records):
        what = f"was made for {selection.num_records} records, and the data set has {num_records}"
        raise ArsrcValueError("select", what, fix, select=selection)
    if selection.ids.stop > num_records:
        what = f"no such record: the data set has {num_records}"
        raise ArsrcValueError("select", what, record_id=selection.ids.stop - 1)
    if selection.data is not None and selection.data != (found := files.data_set.content_hash(slices)):
        raise ArsrcValueError("select", "was made for other data", fix + sides(select=selection.data, paths=found))
    return Part(slices.start, slices.stop, selection.ids)


def _check_excluded(exclude: Ranges, num_records: int) -> None:
    if exclude and exclude[-1][0] >= num_records:
        what = f"no such record: the data set has {num_records}"
        raise ArsrcValueError("exclude", what, exclude=exclude[-1])
    if sum(min(stop, num_records) - min(start, num_records) for start, stop in exclude) == num_records:
        raise ArsrcValueError("exclude", f"excludes all {num_records} records", exclude=exclude)
