"""Reading records of many files at once, each in the way of its file, and once more where it looks wrong."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from arsrc._host.format.numbering import Found
from arsrc._host.format.record_index import Located
from arsrc._host.machine.bisection import Bisection
from arsrc._host.readers.files import Files, How, Opened
from arsrc._host.readers.group_cache import GroupCache
from arsrc._host.readers.map_reads import BadRows
from arsrc._host.readers.official import ReadFailure
from arsrc._host.readers.verified import Verified
from arsrc._host.storage.stamps import closed
from arsrc.errors import ArsrcError, ArsrcReadError
from arsrc.record_batch import RecordBatch, uniform_offsets

Rows: TypeAlias = NDArray[np.int64]
OnBad: TypeAlias = Callable[[Rows, ArsrcError], None]
"""Told the rows i64[n] of what is bad, and what is wrong with it; may raise that."""
Parts: TypeAlias = list[tuple[Rows, RecordBatch]]
"""Rows, and what they hold."""


class Read(NamedTuple):
    """What was read.

    Attributes:
        records: The records of all rows that are good, in order.
        num_decoded: How many records were decoded for it: whole groups.
    """

    records: RecordBatch
    num_decoded: int


class RecordReads:
    """Reads records of files. Safe to use from several threads.

    Args:
        files: What is open.
        groups: Keeps decoded groups.
        verifies: Whether array_record's reader reads each record the first time.

    Attributes:
        verified: The records of which it has read, None where it need not.
        is_closed: Whether nothing may be read any more.
    """

    def __init__(self, files: Files, groups: GroupCache, verifies: bool) -> None:
        self._files, self._groups, self._numbering = files, groups, files.numbering
        self._bisection = Bisection()
        self.verified = Verified(files.numbering.num_records) if verifies else None
        self.is_closed = False

    def read(self, found: Found, on_bad: OnBad) -> Read:
        """Return records; `on_bad` is told of bad ones, file by file and there by ascending positions."""
        opened = self._files.opened_for(found)
        how = opened.how[found.slices]
        parts: Parts = []
        num_decoded = 0
        for kind in set(how.tolist()) if len(opened.how) > 1 else opened.how.tolist():
            rows = np.flatnonzero(how == kind)
            if kind == How.GROUPED:
                for part, batch, num_records in self._by_group(opened, found, rows, on_bad):
                    parts.append((part, batch))
                    num_decoded += num_records
            else:
                parts += self._alone(opened, How(kind), found, rows, on_bad)
                num_decoded += len(rows)
        return Read(_in_order(parts), num_decoded)

    def can_copy(self, found: Found) -> bool:
        """Whether records can be copied from where they lie: mapped, uncompressed, and verified where they must be."""
        if not (self._files.opened_for(found).how[found.slices] == How.MAPPED).all():
            return False
        return not self._are_left(self._numbering.ids(found)).any()

    def copy(self, located: Located, out: NDArray[np.uint8] | None, on_bad: OnBad) -> RecordBatch:
        """Return mapped records that were located, in `out` where all of them are good."""
        if (mapped := self._files.opened.mapped) is None:
            raise closed()

        def copy(rows: Rows) -> RecordBatch:
            return mapped.copy(located, out) if len(rows) == len(located.starts) else mapped.copy(located.at(rows))

        rows = np.arange(len(located.starts))
        return _in_order(self._from_map(copy, Found(located.slices, located.positions), rows, on_bad))

    def _alone(self, opened: Opened, how: How, found: Found, rows: Rows, on_bad: OnBad) -> Parts:
        """Return records that are read one by one."""
        if how == How.BY_READER:
            return list(self._by_reader(found, rows, on_bad))
        parts: Parts = []
        if self.verified is not None and not self.verified.is_all:
            are_left = self.verified.are_left(self._numbering.ids(found.at(rows)))
            parts += self._by_reader(found, rows[are_left], on_bad)
            rows = rows[~are_left]

        def copy(some: Rows) -> RecordBatch:
            wanted = found if len(some) == len(found.slices) else found.at(some)
            if how == How.MAPPED and opened.mapped is not None:
                return opened.mapped.copy(opened.mapped.locate(wanted))
            assert opened.compressed is not None
            return opened.compressed.read(wanted)

        return parts + self._from_map(copy, found, rows, on_bad)

    def _from_map(self, copy: Callable[[Rows], RecordBatch], found: Found, rows: Rows, on_bad: OnBad) -> Parts:
        """Return what `copy` gives, and by array_record's reader what looks wrong there.

        That one looks at the hashes, and says what is wrong.
        """
        parts: Parts = []
        while len(rows):
            try:
                return [*parts, (rows, copy(rows))]
            except BadRows as error:
                parts += self._by_reader(found, rows[error.rows], on_bad)
                rows = np.delete(rows, error.rows)
        return parts

    def _by_reader(self, found: Found, rows: Rows, on_bad: OnBad) -> Iterator[tuple[Rows, RecordBatch]]:
        """Yield parts, with one read per file where none of its records is bad."""
        if self.is_closed:
            raise closed()
        rows = rows[np.lexsort((found.positions[rows], found.slices[rows]))]
        cuts = np.flatnonzero(np.diff(found.slices[rows])) + 1
        for part in np.split(rows, cuts) if len(rows) else ():
            wanted = found.at(part)
            path, ids = self._numbering.slices[wanted.slices[0]].path, self._numbering.ids(wanted)
            read = functools.partial(self._read_file, path, wanted.positions.tolist(), ids)
            for some, records in self._bisection.parts(ids, read):
                if isinstance(records, list):
                    self._note_verified(wanted.at(np.arange(len(part))[some]))
                    yield part[some], RecordBatch.from_records(records)
                else:
                    assert isinstance(records, ReadFailure)
                    on_bad(part[some], self._unreadable(records, wanted.at(np.arange(len(part))[some])))

    def _by_group(
        self, opened: Opened, found: Found, rows: Rows, on_bad: OnBad
    ) -> Iterator[tuple[Rows, RecordBatch, int]]:
        """Yield parts, each of one group, and how many records were decoded for it.

        A group is read as a whole, and good or bad as a whole.
        """
        if self.is_closed:
            raise closed()
        group_sizes = opened.group_sizes[found.slices]
        units = found.slices << 32 | found.positions // group_sizes
        rows = rows[np.lexsort((found.positions[rows], units[rows]))]
        for part in np.split(rows, np.flatnonzero(np.diff(units[rows])) + 1) if len(rows) else ():
            wanted, size = found.at(part), int(group_sizes[part[0]])
            number, group = int(wanted.slices[0]), int(wanted.positions[0]) // size
            first = group * size
            positions = range(first, min(first + size, int(opened.file_sizes[number])))
            loaded: list[int] = []
            load = functools.partial(self._load_group, opened, wanted, positions, loaded)
            try:
                batch = self._groups.get((number, group), self._group_bytes(opened, number, group), load)
            except ReadFailure as failure:
                on_bad(part, self._unreadable(failure, wanted))
            else:
                yield part, _take(batch, wanted.positions - first), sum(loaded)

    def _group_bytes(self, opened: Opened, number: int, group: int) -> int:
        if opened.compressed is not None and opened.compressed.holds(number):
            return opened.compressed.num_bytes(number, group)
        path = self._numbering.slices[number].path
        return self._files.pool.reader(path, self._files.stamps[path]).chunks.num_bytes(group)

    def _load_group(self, opened: Opened, wanted: Found, positions: Sequence[int], loaded: list[int]) -> RecordBatch:
        """Return all records of a group, which stand at `positions` of a file; how many they are goes to `loaded`."""
        loaded.append(len(positions))
        number, ids = int(wanted.slices[0]), self._numbering.ids(wanted)
        compressed = opened.compressed
        if compressed is not None and compressed.holds(number) and not self._are_left(ids).any():
            with contextlib.suppress(BadRows):  # array_record's reader says what is wrong
                return compressed.read_chunk(number, positions[0] // int(opened.group_sizes[number]))
        records = self._read_file(self._numbering.slices[number].path, positions, ids, 0, len(positions))
        self._note_verified(wanted)
        return RecordBatch.from_records(records)

    def _are_left(self, ids: Rows) -> NDArray[np.bool_]:
        """Return which records array_record's reader has to read, since their hashes were not verified yet."""
        return np.zeros(len(ids), bool) if self.verified is None else self.verified.are_left(ids)

    def _note_verified(self, found: Found) -> None:
        """Take note of all records of the chunks of some in one file, which array_record's reader has read."""
        if self.verified is None:
            return
        number = int(found.slices[0])
        piece = self._numbering.slices[number]
        size = self._files.opened.files[piece.path].group_size
        positions = found.positions
        if size > 1:
            positions = (np.unique(positions // size)[:, None] * size + np.arange(size)).ravel()
            positions = positions[(positions >= piece.start) & (positions < piece.start + piece.num_records)]
        self.verified.add(self._numbering.ids(Found(np.full(len(positions), number), positions)))

    def _read_file(self, path: str, positions: Sequence[int], ids: Rows, first: int, last: int) -> list[bytes]:
        """Return the records at `positions[first:last]` of a file."""
        try:
            return self._files.pool.read(path, positions[first:last], self._files.stamps[path])
        except ArsrcReadError as error:  # of the whole file
            raise error.naming(record_ids=_few(ids[first:last])) from error

    def _unreadable(self, failure: ReadFailure, found: Found) -> ArsrcReadError:
        """Return the error for records of one file that cannot be read."""
        path, ids = self._numbering.slices[found.slices[0]].path, self._numbering.ids(found)
        where = {"path": path, "positions": _few(found.positions), "record_ids": _few(ids)}
        error = ArsrcReadError("read", failure.what, failure.fix, **where).at(
            path, int(found.positions[0]), int(ids[0])
        )
        error.__cause__ = failure.__cause__
        return error


def _in_order(parts: Parts) -> RecordBatch:
    """Return the records of all parts, by ascending rows."""
    if len(parts) == 1 and (np.diff(parts[0][0]) > 0).all():
        return parts[0][1]
    if not parts:
        return RecordBatch.from_records([])
    rows = np.concatenate([rows for rows, _ in parts])
    lengths = np.concatenate([batch.lengths for _, batch in parts])
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    together = RecordBatch(np.concatenate([batch.data for _, batch in parts]), offsets)
    return _take(together, np.argsort(rows, kind="stable"))


def _take(batch: RecordBatch, rows: Rows) -> RecordBatch:
    """Return some records of a batch."""
    lengths = batch.lengths
    if len(lengths) and (lengths == lengths[0]).all():
        length = int(lengths[0])
        data = batch.data.reshape(len(batch), length)[rows]
        return RecordBatch(data.reshape(-1), uniform_offsets(len(rows), length))
    memory = batch.data.data
    begins, ends = batch.offsets[rows].tolist(), batch.offsets[rows + 1].tolist()
    return RecordBatch.from_records([memory[begin:end].tobytes() for begin, end in zip(begins, ends, strict=True)])


def _few(numbers: Sequence[int] | NDArray[np.int64]) -> str:
    head = ", ".join(str(number) for number in numbers[:8])
    return head if len(numbers) <= 8 else f"{head}, ... ({len(numbers)} in all)"
