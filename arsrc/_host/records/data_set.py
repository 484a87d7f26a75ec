"""The records of all files of a config as one numbered sequence."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from arsrc._host.format.fingerprint import content_sample
from arsrc._host.format.record_index import Located
from arsrc._host.machine import slow_reads
from arsrc._host.machine.buffers import BufferPool
from arsrc._host.machine.copying import Copier
from arsrc._host.machine.threads import on_threads
from arsrc._host.readers.files import Files, How, files_of
from arsrc._host.readers.group_cache import GroupCache
from arsrc._host.records.lengths import known_lengths
from arsrc._host.records.record_reads import OnBad, Read, RecordReads, Rows
from arsrc._host.storage.paths import FileSlice
from arsrc._host.storage.stamps import FileStamp, check_same
from arsrc.errors import ArsrcError
from arsrc.record_batch import RecordBatch

_HASH_SAMPLES = 256  # chunks looked at over the whole data set


def raise_it(_: Rows, error: ArsrcError) -> None:
    """Let what is bad be an error."""
    raise error


class DataSet:
    """Files opened, counted and checked; reads records by id.

    Files that can be mapped are read from one map of them all, and decoded where they are compressed; the others by
    array_record's reader.

    Attributes:
        slices: The files with their record ranges, ends filled in.
        sizes: i64[num_files], records of each slice.
        num_records: Records in all.
        files: What is open of them, and by whom it is read.
        copier: Threads for large copies.
        buffers: Where large batches come from.
    """

    def __init__(
        self,
        slices: Sequence[FileSlice],
        *,
        checksum: str,
        max_open_files: int,
        random_access: bool,
        buffers: BufferPool,
        groups: GroupCache,
        limit: float | None = None,
    ) -> None:
        """Open files.

        Args:
            slices: The files, in the order in which their records are numbered.
            checksum: "always" reads all of them with array_record's reader, which verifies hashes, and "first" each
                record the first time.
            max_open_files: Most files that are kept open, beside those that are mapped.
            random_access: Whether records will be read in random order.
            buffers: Where large batches come from.
            groups: Keeps decoded groups.
            limit: Most seconds that a read may take, None for any.
        """
        self.copier, self.buffers = Copier(), buffers
        self.files = Files(
            slices,
            checksum=checksum,
            max_open_files=max_open_files,
            random_access=random_access,
            buffers=buffers,
            copier=self.copier,
            limit=limit,
        )
        self.slices, self._numbering = self.files.slices, self.files.numbering
        self.sizes = np.array([piece.num_records for piece in self.slices], np.int64)
        self.num_records = self._numbering.num_records
        self._reads = RecordReads(self.files, groups, verifies=checksum == "first")
        self._limit = limit
        self._content_hashes: dict[range, str] = {}

    @property
    def is_closed(self) -> bool:
        """Whether they were closed: nothing can be read any more."""
        return self._reads.is_closed

    @property
    def is_grouped(self) -> bool:
        """Whether there are open files of which a record cannot be read without decoding its neighbours."""
        return bool((self.files.opened.how == How.GROUPED).any())

    @property
    def is_quick(self) -> bool:
        """Whether what is open is read from maps, each record alone."""
        return bool((self.files.opened.how <= How.DECODED).all())

    @property
    def is_verifying(self) -> bool:
        """Whether there are records of which the hash is verified when they are first read."""
        return self._reads.verified is not None and not self._reads.verified.is_all

    @property
    def cold_share(self) -> float:
        """Which share of the reads from maps waited for the disk."""
        return max(
            (files.reads.cold.share for files in self.files.opened.from_maps() if files is not None), default=0.0
        )

    def where(self, record_id: int) -> tuple[str, int]:
        """Return the file of a record and its position in it."""
        found = self._numbering.find(np.array([record_id]))
        return self._numbering.slices[found.slices[0]].path, int(found.positions[0])

    def own(self, record_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the numbers by which their source knows records: the same."""
        return record_ids

    def read(
        self,
        record_ids: NDArray[np.int64],
        on_bad: OnBad = raise_it,
        out: NDArray[np.uint8] | None = None,
        names: NDArray[np.int64] | None = None,
    ) -> Read:
        """Return the records with these ids, in this order; repeats are read once each time.

        Args:
            record_ids: i64[num_rows]
            on_bad: Told of rows that cannot be read, file by file and there by ascending positions; where it raises
                nothing, they are left out.
            out: u8[...], contiguous; may be used for the records where these take as many bytes.
            names: i64[num_rows], how errors are to name them; None: by their ids.

        Raises:
            ArsrcIndexError: An id lies outside.
            ArsrcReadError: A file cannot be read or changed since it was opened, or the files were closed.
        """
        return self._reads.read(self._numbering.find(record_ids, names), on_bad, out)

    def locate(self, record_ids: NDArray[np.int64], names: NDArray[np.int64] | None = None) -> Located | None:
        """Return where records lie, to be copied at any later time; None: they cannot be copied, only read.

        Args:
            record_ids: i64[num_rows]
            names: As for `read`.

        Raises:
            ArsrcIndexError: An id lies outside.
        """
        found = self._numbering.find(record_ids, names)
        mapped = self.files.opened_for(found).mapped
        return mapped.locate(found) if mapped is not None and self._reads.can_copy(found) else None

    def copy(self, located: Located, out: NDArray[np.uint8] | None = None, on_bad: OnBad = raise_it) -> RecordBatch:
        """Return the records that `locate` found.

        Args:
            located: Where they lie.
            out: u8[at least all their bytes], contiguous, to write into.
            on_bad: As for `read`.

        Raises:
            ArsrcReadError: A file changed since it was opened, or the files were closed.
        """
        return self._reads.copy(located, out, on_bad)

    def copy_parts(
        self,
        located: Located,
        skips: NDArray[np.int64],
        lengths: NDArray[np.int64],
        out: NDArray[np.uint8],
        places: NDArray[np.int64],
    ) -> bool:
        """Copy some bytes of each record that `locate` found, each run to a place of its own.

        Args:
            located: Where the records lie.
            skips: i64[num_rows], bytes of each that are left out in front.
            lengths: i64[num_rows], bytes of each that are copied.
            out: u8[...] to write into, contiguous.
            places: i64[num_rows], where in it those of each shall begin.

        Returns:
            Whether no record looks wrong. Else `read` tells what is wrong, and nobody knows what `out` holds.

        Raises:
            ArsrcReadError: As for `copy`.
        """
        return self._reads.copy_parts(located, skips, lengths, out, places)

    def lengths(self, record_ids: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """Return the bytes of records, i64[num_rows]; None where some lie in groups, of which only sums are known."""
        return known_lengths(self.files, record_ids)

    def is_current(self) -> bool:
        """Whether all paths still lead to the files that were opened, unchanged."""

        def look() -> bool:
            stamps = ((FileStamp.at(path), stamp) for path, stamp in self.files.stamps.items())
            return all(now is not None and now.is_untouched(stamp) for now, stamp in stamps)

        return slow_reads.read(lambda: f"looking at {files_of(list(self.files.stamps))}", look, self._limit)

    def content_hash(self, slices: range | None = None) -> str:
        """Return a hash of what slices hold, from kilobytes of their files; the same wherever they lie.

        Args:
            slices: Which; None: all.

        Raises:
            ArsrcReadError: A file cannot be read, or is no longer what was opened, when first asked.
        """
        slices = range(len(self.slices)) if slices is None else slices
        if slices not in self._content_hashes:
            self._content_hashes[slices] = self._sampled(self.slices[slices.start : slices.stop])
        return self._content_hashes[slices]

    def _sampled(self, slices: Sequence[FileSlice]) -> str:
        samples = max(1, _HASH_SAMPLES // len(slices))
        paths = list(dict.fromkeys(piece.path for piece in slices))

        def sample(path: str) -> bytes:
            def read() -> bytes:
                found = content_sample(path, samples)
                check_same(path, self.files.stamps[path])  # afterwards: what was sampled is what was opened
                return found

            return slow_reads.read(lambda: f"samples of {path!r}", read, self._limit)

        contents = dict(zip(paths, on_threads(sample, paths), strict=True))
        digest = hashlib.sha256()
        for piece in slices:
            digest.update(contents[piece.path] + f"{piece.start}:{piece.stop};".encode())
        return digest.hexdigest()[:32]

    def stamps(self) -> str:
        """Return sizes and times of change of the files: what `content_hash` may not see, these do.

        Without inodes: a file that was replaced has another `ctime_ns`, and mounted storage numbers its files anew.
        """
        stamps = self.files.stamps.values()
        return ",".join(f"{stamp.num_bytes}:{stamp.mtime_ns}:{stamp.ctime_ns}" for stamp in stamps)

    def close(self) -> None:
        """Let go of all files; reads of a file that are under way end well, later ones fail."""
        self._reads.is_closed = True
        self.files.close()
        self.copier.close()
