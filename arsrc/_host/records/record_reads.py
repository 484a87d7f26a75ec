"""Reading records of many files at once, each in the way of its file, and once more where it looks wrong."""

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
from arsrc._host.records.joining import in_order, take
from arsrc._host.storage.stamps import closed
from arsrc.errors import ArsrcError, ArsrcReadError
from arsrc.record_batch import RecordBatch

Rows: TypeAlias = NDArray[np.int64]
OnBad: TypeAlias = Callable[[Rows, ArsrcError], None]
"""Told the rows i64[n] of what is bad, and what is wrong with it; may raise that."""
Parts: TypeAlias = list[tuple[Rows, RecordBatch]]
"""Rows, and what they hold."""

_GROUP_BITS = 32
_GROUP_MASK = (1 << _GROUP_BITS) - 1
_SLAB_BYTES = 16 * 2**20  # of groups that are decoded together


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

    def read(self, found: Found, on_bad: OnBad, out: NDArray[np.uint8] | None = None) -> Read:
        """Return records; `on_bad` is told of bad ones, file by file and there by ascending positions.

        Of as many bytes as `out` has, they may lie there.
        """
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
                parts += self._alone(opened, How(kind), found, rows, on_bad, out)
                num_decoded += len(rows)
        return Read(in_order(parts), num_decoded)

    def can_copy(self, found: Found) -> bool:
        """Whether records can be copied from where they lie: mapped, uncompressed, and verified where they must be."""
        if not (self._files.opened_for(found).how[found.slices] == How.MAPPED).all():
            return False
        return self.verified is None or not self.verified.are_left(self._numbering.ids(found)).any()

    def copy(self, located: Located, out: NDArray[np.uint8] | None, on_bad: OnBad) -> RecordBatch:
        """Return mapped records that were located, in `out` where all of them are good."""
        if (mapped := self._files.opened.mapped) is None:
            raise closed()
        try:
            return mapped.copy(located, out)
        except BadRows as error:
            found, bad = Found(located.slices, located.positions, located.names), error.rows
        parts = list(self._by_reader(found, bad, on_bad))
        rows = np.delete(np.arange(len(located.starts)), bad)
        return in_order(parts + self._from_map(lambda some: mapped.copy(located.at(some)), found, rows, on_bad))

    def copy_parts(self, located: Located, skips: Rows, lengths: Rows, out: NDArray[np.uint8], places: Rows) -> bool:
        """Copy some bytes of each of mapped records that were located; returns whether none of them looks wrong."""
        if (mapped := self._files.opened.mapped) is None:
            raise closed()
        try:
            mapped.copy_parts(located, skips, lengths, out, places)
        except BadRows:
            return False
        return True

    def _alone(
        self, opened: Opened, how: How, found: Found, rows: Rows, on_bad: OnBad, out: NDArray[np.uint8] | None
    ) -> Parts:
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
            return opened.compressed.read(wanted, out)

        alike = [rows] if how == How.MAPPED or opened.compressed is None else opened.compressed.alike(found, rows)
        return parts + [part for some in alike for part in self._from_map(copy, found, some, on_bad)]

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
            read = functools.partial(self._read_file, path, wanted.positions.tolist(), wanted.names)
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
        units = found.slices << _GROUP_BITS | found.positions // opened.group_sizes[found.slices]
        rows = rows[np.lexsort((found.positions[rows], units[rows]))]
        parts = np.split(rows, np.flatnonzero(np.diff(units[rows])) + 1) if len(rows) else []
        names = units[[part[0] for part in parts]] if parts else units[:0]
        sizes = self._group_bytes(opened, names)
        for some in _slabs(sizes):
            wanted, loaded = dict(zip(names[some].tolist(), parts[some], strict=True)), dict[int, int]()
            load = functools.partial(self._load_groups, opened, found, wanted, loaded)
            groups = self._groups.get(dict(zip(wanted, sizes[some].tolist(), strict=True)), load)
            for name, part in wanted.items():
                if isinstance(group := groups[name], ReadFailure):
                    on_bad(part, self._unreadable(group, found.at(part), int(opened.group_sizes[name >> _GROUP_BITS])))
                else:
                    first = (name & _GROUP_MASK) * int(opened.group_sizes[name >> _GROUP_BITS])
                    yield part, take(group, found.positions[part] - first), loaded.get(name, 0)

    def _group_bytes(self, opened: Opened, names: Rows) -> Rows:
        """Return how many bytes each group takes: its records, and where they begin."""
        sizes = np.empty(len(names), np.int64)
        for number in np.unique(names >> _GROUP_BITS).tolist():
            at = names >> _GROUP_BITS == number
            groups = names[at] & _GROUP_MASK
            if opened.compressed is not None and opened.compressed.holds(number):
                sizes[at] = opened.compressed.num_bytes(np.full(len(groups), number), groups)
            else:
                path = self._numbering.slices[number].path
                sizes[at] = self._files.pool.reader(path, self._files.stamps[path]).chunks.decoded_sizes[groups]
        numbers, groups = names >> _GROUP_BITS, names & _GROUP_MASK
        group_sizes = opened.group_sizes[numbers]
        return sizes + 8 * (np.minimum(group_sizes, opened.file_sizes[numbers] - groups * group_sizes) + 1)

    def _load_groups(
        self, opened: Opened, found: Found, wanted: dict[int, Rows], loaded: dict[int, int], names: Sequence[int]
    ) -> dict[int, RecordBatch | ReadFailure]:
        """Return the records of whole groups; how many were decoded of each goes to `loaded`.

        Args:
            opened: What is open.
            found: Where the records are that are asked for.
            wanted: Rows of these, by the name of their group.
            loaded: Records that were decoded, by the name of a group.
            names: The groups that are to be read.
        """
        groups: dict[int, RecordBatch | ReadFailure] = {}
        for name in names:
            number, group = name >> _GROUP_BITS, name & _GROUP_MASK
            size = int(opened.group_sizes[number])
            loaded[name] = min(size, int(opened.file_sizes[number]) - group * size)
        if (compressed := opened.compressed) is not None:
            from_map = [name for name in names if compressed.holds(name >> _GROUP_BITS)]
            if self.verified is not None:
                ids = {name: self._numbering.ids(found.at(wanted[name])) for name in from_map}
                from_map = [name for name in from_map if not self.verified.are_left(ids[name]).any()]
            while from_map:
                at = np.array(from_map)
                try:
                    batches = compressed.read_chunks(at >> _GROUP_BITS, at & _GROUP_MASK)
                except BadRows as error:  # array_record's reader says what is wrong
                    from_map = np.delete(at, error.rows).tolist()
                else:
                    groups |= zip(from_map, batches, strict=True)
                    break
        for name in names:
            if name not in groups:
                try:
                    groups[name] = self._read_group(opened, found.at(wanted[name]), loaded[name])
                except ReadFailure as failure:
                    groups[name] = failure
        return groups

    def _read_group(self, opened: Opened, wanted: Found, count: int) -> RecordBatch:
        """Return by array_record's reader all records of the group in which some lie."""
        number, names = int(wanted.slices[0]), wanted.names
        size = int(opened.group_sizes[number])
        first = int(wanted.positions[0]) // size * size
        records = self._read_file(self._numbering.slices[number].path, range(first, first + count), names, 0, count)
        self._note_verified(wanted)
        return RecordBatch.from_records(records)

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
        self.verified.add(self._numbering.ids(Found(np.full(len(positions), number), positions, positions)))

    def _read_file(self, path: str, positions: Sequence[int], names: Rows, first: int, last: int) -> list[bytes]:
        """Return the records at `positions[first:last]` of a file."""
        try:
            return self._files.pool.read(path, positions[first:last], self._files.stamps[path])
        except ArsrcReadError as error:  # of the whole file
            raise error.naming(record_ids=_few(names[first:last])) from error

    def _unreadable(self, failure: ReadFailure, found: Found, group_size: int = 1) -> ArsrcReadError:
        """Return the error for records of one file that cannot be read, and of one group if that has a size."""
        path, names = self._numbering.slices[found.slices[0]].path, found.names
        where = {"path": path, "positions": _few(found.positions), "record_ids": _few(names)}
        what = failure.what
        if group_size > 1:
            what += f"; all records of its chunk, of up to {group_size}, are lost"
        error = ArsrcReadError("read", what, failure.fix, **where).at(path, int(found.positions[0]), int(names[0]))
        error.__cause__ = failure.__cause__
        return error


def _slabs(sizes: Rows) -> Iterator[slice]:
    """Yield runs of groups that take a bounded number of bytes together, or are one."""
    start = num_bytes = 0
    for at, size in enumerate(sizes.tolist()):
        if at > start and num_bytes + size > _SLAB_BYTES:
            yield slice(start, at)
            start, num_bytes = at, 0
        num_bytes += size
    if len(sizes):
        yield slice(start, len(sizes))


def _few(numbers: Sequence[int] | NDArray[np.int64]) -> str:
    head = ", ".join(str(number) for number in numbers[:8])
    return head if len(numbers) <= 8 else f"{head}, ... ({len(numbers)} in all)"
