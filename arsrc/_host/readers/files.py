"""The files of a data set, opened: counted, indexed and mapped; all at once, or when they are first read."""

import collections
import contextlib
import dataclasses
import enum
import itertools
import logging
import sys
from collections.abc import Sequence
from time import perf_counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from arsrc._host.format.chunked import Chunked
from arsrc._host.format.encoding import encoding_of
from arsrc._host.format.file_index import FileIndex, index_files
from arsrc._host.format.numbering import Found, Numbering
from arsrc._host.format.streams import can_decode
from arsrc._host.machine import slow_reads
from arsrc._host.machine.buffers import BufferPool
from arsrc._host.machine.copying import Copier
from arsrc._host.machine.locks import OwnedLock
from arsrc._host.machine.threads import on_threads
from arsrc._host.readers.compressed import CompressedFiles
from arsrc._host.readers.mapped import MappedFiles
from arsrc._host.readers.official import ReaderPool
from arsrc._host.storage.address_range import AddressRange
from arsrc._host.storage.paths import FileSlice
from arsrc._host.storage.set_lock import check_whole
from arsrc._host.storage.stamps import FileStamp, changed, closed
from arsrc.advice import CHECKSUM, NO_MAP
from arsrc.amounts import counted, in_bytes
from arsrc.errors import ArsrcError, ArsrcValueError

MAX_RECORDS = 2**32 - 1
_TOGETHER = 32  # files that are indexed together
_LOG = logging.getLogger("arsrc")


@dataclasses.dataclass(frozen=True, eq=False)
class _File:
    """What opening a file has found; `index` None: only array_record's reader can read it.

    Attributes:
        num_records: Records in it.
        group_size: Records in each chunk but the last one.
        index: Where they lie.
    """

    num_records: int
    group_size: int
    index: FileIndex | None


class How(enum.IntEnum):
    """How the records of a file are read."""

    NOT_OPEN = 0
    MAPPED = 1
    """Copied from a map."""
    DECODED = 2
    """Decoded from a map, each from a chunk of its own."""
    GROUPED = 3
    """A whole group at a time, decoded from a map or by array_record's reader."""
    BY_READER = 4
    """By array_record's reader, each from a chunk of its own."""


class Opened(NamedTuple):
    """What is open of the files of slices; immutable.

    Attributes:
        files: By path.
        mapped: The records of uncompressed files that are mapped, None if there are none.
        compressed: The records of compressed files that are mapped, None if there are none.
        how: u8[num_slices], how the records of each are read.
        is_whole: Whether all are open.
        decoded: How many open files are decoded from a map, by their compression.
        not_mapped: How many open files array_record's reader reads, by what keeps them from being mapped.
        file_sizes: i64[num_slices], records of the whole file of each that is open.
        group_sizes: i64[num_slices], records that are decoded together to read one: of a chunk, 1 of mapped files.
        max_group_size: The largest of these.
    """

    files: dict[str, _File]
    mapped: MappedFiles | None
    compressed: CompressedFiles | None
    how: NDArray[np.uint8]
    is_whole: bool
    decoded: collections.Counter[str]
    not_mapped: collections.Counter[str]
    file_sizes: NDArray[np.int64]
    group_sizes: NDArray[np.int64]
    max_group_size: int

    def from_maps(self) -> tuple[MappedFiles | None, CompressedFiles | None]:
        """Return what reads from maps."""
        return self.mapped, self.compressed


class Files:
    """Files of slices, numbered from one end to the other.

    Those of which a slice has no end are opened to count their records, and all if they are few. Of many, the others
    are opened when they are first read, and only then turn out to have fewer records than a slice wants.

    Attributes:
        slices: The slices, ends filled in.
        numbering: Of the records.
        stamps: What the files were when they were first looked at, by path.
        pool: array_record's readers, for files that are not mapped.
        opened: What is open now.
    """

    def __init__(
        self,
        slices: Sequence[FileSlice],
        *,
        checksum: str,
        max_open_files: int,
        random_access: bool,
        buffers: BufferPool,
        copier: Copier,
        limit: float | None,
    ) -> None:
        """Open files; the arguments are those of `DataSet`."""
        start = perf_counter()
        self.pool = ReaderPool(max_open_files, limit)
        self._limit = limit
        self._map_files = checksum != "always"
        self._buffers, self._copier = buffers, copier
        paths = list(dict.fromkeys(piece.path for piece in slices))
        self.stamps = slow_reads.read(lambda: f"looking at {files_of(paths)}", lambda: _stamps(paths), limit)
        uncounted = {piece.path for piece in slices if piece.stop is None}
        files = self._open(paths if len(paths) <= _TOGETHER else [path for path in paths if path in uncounted])
        self.slices = [one.within(files[one.path].num_records) if one.path in files else one for one in slices]
        num_records = sum(piece.num_records for piece in self.slices)
        if not 0 < num_records <= MAX_RECORDS:
            what = f"the files hold {'more than 2**32 - 1' if num_records else 'no'} records"
            fix = "Choose other files or slices."
            raise ArsrcValueError("paths", what, fix, num_records=num_records, num_files=len(slices))
        self.numbering = Numbering(self.slices)
        stamps = {piece.path: self.stamps[piece.path] for piece in self.numbering.slices}
        self._area = AddressRange.reserve(stamps, random_access) if self._map_files else None
        self._growing = OwnedLock()
        self._is_closed = False
        self._encodings: dict[str, str] = {}  # of files that are not mapped
        self.opened = self._with(files)
        is_odd = NO_MAP in self.opened.not_mapped and sys.platform == "linux"  # elsewhere no file is mapped
        self._log(logging.WARNING if is_odd else logging.INFO, perf_counter() - start)

    def opened_for(self, found: Found) -> Opened:
        """Return what is open, with the files of some records.

        More are opened than are needed now, twice as many as there are, so that tables are not built too often.

        Raises:
            ArsrcReadError: A file cannot be opened, or the files were closed.
            ArsrcValueError: A slice lies beyond the end of its file.
        """
        if self.opened.is_whole or (self.opened.how[found.slices] != How.NOT_OPEN).all():
            return self.opened
        with self._growing:
            self._grow(found)
            return self.opened

    def _grow(self, found: Found) -> None:
        if self._is_closed:
            raise closed()
        start = perf_counter()
        files, slices = self.opened.files, self.numbering.slices
        wanted = dict.fromkeys(slices[number].path for number in np.unique(found.slices).tolist())
        if missing := [path for path in wanted if path not in files]:
            others = dict.fromkeys(piece.path for piece in slices if piece.path not in files)
            more = [path for path in others if path not in wanted][: len(files)]
            with contextlib.suppress(ArsrcError):  # of a file that nobody has asked for
                files = files | self._open_counted(more)
            opened = self._with(files | self._open_counted(missing))
            for before, now in zip(self.opened.from_maps(), opened.from_maps(), strict=True):
                if before is not None and now is not None:
                    now.reads.take_over(before.reads)
            if self._is_closed:
                raise closed()
            self.opened = opened
            self._log(logging.DEBUG, perf_counter() - start)

    @property
    def is_opening_here(self) -> bool:
        """Whether this thread, for which others may be waiting, is opening files: a signal handler asks."""
        return self._growing.is_mine()

    def describe(self) -> str:
        """Return which files are mapped, and which are not and why, in words."""
        opened = self.opened
        num_mapped = len(opened.files) - opened.not_mapped.total() - opened.decoded.total()
        found = [f"{num_mapped:,} mapped"] if num_mapped else []
        for what, some in (("decoded from a map", opened.decoded), ("by array_record's reader", opened.not_mapped)):
            if some:
                reasons = ", ".join(f"{count:,} {reason}" for reason, count in some.most_common())
                found.append(f"{some.total():,} {what} ({reasons})")
        if num_closed := len(self.stamps) - len(opened.files):
            found.append(f"{num_closed:,} not open yet")
        groups = f"; groups of up to {opened.max_group_size} records" if opened.max_group_size > 1 else ""
        return ", ".join(found) + groups

    def __str__(self) -> str:
        num_bytes = in_bytes(sum(stamp.num_bytes for stamp in self.stamps.values()))
        num_records, num_files = counted(self.numbering.num_records, "record"), counted(len(self.stamps), "file")
        return f"{num_records} in {num_files}, {num_bytes}"

    def _log(self, level: int, seconds: float) -> None:
        _LOG.log(level, "opened %s, in %.2f s: %s", str(self), seconds, self.describe())  # who keeps it keeps no files

    def close(self) -> None:
        """Let go of all; reads of a file that are under way end well, later ones fail."""
        self._is_closed = True
        self._area = None
        self.pool.close()
        for files in self.opened.from_maps():
            if files is not None:
                files.reads.close()

    def _open(self, paths: Sequence[str]) -> dict[str, _File]:
        some = [paths[first : first + _TOGETHER] for first in range(0, len(paths), _TOGETHER)]
        return dict(zip(paths, itertools.chain.from_iterable(on_threads(self._open_some, some)), strict=True))

    def _open_counted(self, paths: Sequence[str]) -> dict[str, _File]:
        """Open files, and check that they hold the slices of them."""
        opened = self._open(paths)
        for piece in self.numbering.slices:
            if piece.path in opened:
                piece.within(opened[piece.path].num_records)
        return opened

    def _open_some(self, paths: Sequence[str]) -> list[_File]:
        return slow_reads.read(lambda: f"opening {files_of(paths)}", lambda: self._opened_files(paths), self._limit)

    def _opened_files(self, paths: Sequence[str]) -> list[_File]:
        indices = index_files(paths) if self._map_files else [None] * len(paths)
        files = []
        for path, index in zip(paths, indices, strict=True):
            stamp = self.stamps[path]
            if index is not None and index.stamp != stamp:
                raise changed(path, stamp, index.stamp)
            found = self.pool.reader(path, stamp).chunks if index is None else index
            files.append(_File(found.num_records, found.group_size, index))
        return files

    def _with(self, files: dict[str, _File]) -> Opened:
        """Return what is open when these files are."""
        area, slices, indices = self._area, self.numbering.slices, {}
        for path in (in_slices := dict.fromkeys(piece.path for piece in slices if piece.path in files)):
            if area is not None and (index := files[path].index) is not None and area.map(path, index.stamp):
                indices[path] = index
        chunked = {path: index for path, index in indices.items() if isinstance(index.places, Chunked)}
        plain = {path: index for path, index in indices.items() if path not in chunked}
        mapped = compressed = None
        if area is not None:
            means = self._buffers, self._copier, self._limit
            mapped = MappedFiles(area, self.numbering, plain, *means) if plain else None
            compressed = CompressedFiles(area, self.numbering, chunked, *means) if chunked else None
        # Of files that are not copied from a map, a whole chunk is decoded at a time.
        group_sizes = {path: 1 if path in plain else files[path].group_size for path in in_slices}
        how = dict.fromkeys(plain, How.MAPPED) | dict.fromkeys(chunked, How.DECODED)
        how |= {path: How.BY_READER for path in in_slices if path not in indices}
        how |= {path: How.GROUPED for path, size in group_sizes.items() if size > 1}
        not_mapped = [path for path in in_slices if path not in indices]
        new = [path for path in not_mapped if path not in self._encodings]
        self._encodings |= zip(new, on_threads(self._encoding, new), strict=True)
        return Opened(
            files,
            mapped,
            compressed,
            np.array([how.get(piece.path, How.NOT_OPEN) for piece in slices], np.uint8),
            all(piece.path in files for piece in slices),
            collections.Counter(one.places.encoding for one in chunked.values() if isinstance(one.places, Chunked)),
            collections.Counter(self._obstacle(files[path], self._encodings[path]) for path in not_mapped),
            np.array([files[piece.path].num_records if piece.path in files else 0 for piece in slices], np.int64),
            np.array([group_sizes.get(piece.path, 1) for piece in slices], np.int64),
            max(group_sizes.values(), default=1),
        )

    def _encoding(self, path: str) -> str:
        return slow_reads.read(lambda: f"a chunk of {path!r}", lambda: encoding_of(path), self._limit)

    def _obstacle(self, file: _File, encoding: str) -> str:
        """Return what keeps an open file from being mapped."""
        if not self._map_files:
            return CHECKSUM
        if file.index is not None:
            return NO_MAP
        if encoding in ("brotli", "snappy"):
            return f"{encoding}, one by one" if can_decode(ord(encoding[0])) else f"{encoding} without cramjam"
        return encoding or "of another layout"


def files_of(paths: Sequence[str]) -> str:
    """Return some paths in words."""
    return repr(paths[0]) if len(paths) == 1 else f"{len(paths):,} files, {paths[0]!r} the first"


def _stamps(paths: Sequence[str]) -> dict[str, FileStamp]:
    """Return the stamps of files, of which none is being written."""
    stamps = {path: FileStamp.there(path) for path in paths}
    # Behind all of these: what a writer puts into place from now on is not what they say.
    check_whole(paths)
    return stamps
