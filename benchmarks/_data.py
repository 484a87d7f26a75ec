"""The files that all contestants read: made here, the same on every machine, kept between runs."""

import dataclasses
import functools
import os
import pathlib

import numpy as np
from _forms import FORMS
from array_record.python.array_record_module import ArrayRecordWriter
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

UNCOMPRESSED = "group_size:1,uncompressed"
_VERSION = 1  # part of the files' names: raise it when what they hold changes
_ID_BYTES = 8
_NOISE_BYTES = 64 * 2**20
_PRIME = 2_654_435_761
_READ_BYTES = 8 * 2**20


@dataclasses.dataclass(frozen=True)
class DataSet:
    """Records of one length in ArrayRecord files.

    Record `i` is its own number, 8 bytes little-endian, and then bytes that follow from it: so whatever a
    loader delivers can be checked, in any order, without having the files at hand.

    Attributes:
        folder: Where folders of files are.
        num_records: Records in all files.
        record_bytes: Bytes of each.
        num_shards: Files; they hold contiguous parts.
        options: Options of `ArrayRecordWriter`.
        sparse: Whether four bytes of five are zero, as in pictures of digits; else no byte can be compressed. zstd
            leaves 0.47 of 784 B, and decodes them no faster than what it shrinks to a third.
        form: How each record is stored, to be decoded by the reader: one of `_forms.FORMS`.
    """

    folder: pathlib.Path
    num_records: int
    record_bytes: int
    num_shards: int = 1
    options: str = UNCOMPRESSED
    sparse: bool = False
    form: str = ""

    @property
    def description(self) -> str:
        """For the tables."""
        kind = self.options + (", four bytes of five are zero" if self.sparse else "")
        kind += f", each record as {self.form}" if self.form else ""
        return f"{self.num_records:,} records of {self.record_bytes:,} B, {self.num_shards} files, `{kind}`."

    @property
    def num_bytes(self) -> int:
        """Bytes of all records."""
        return self.num_records * self.record_bytes

    @property
    def starts(self) -> NDArray[np.int64]:
        """i64[num_shards + 1], number of the first record of each file, and of all records."""
        shards = np.arange(self.num_shards + 1, dtype=np.int64)
        return shards * self.num_records // self.num_shards

    def expected(self, record_ids: NDArray[np.int64]) -> Bytes:
        """Return u8[n, record_bytes], what these records hold."""
        length = self.record_bytes - _ID_BYTES
        windows = np.lib.stride_tricks.sliding_window_view(_noise(self.sparse), length)
        records = np.empty((len(record_ids), self.record_bytes), np.uint8)
        records[:, :_ID_BYTES] = record_ids.astype("<u8")[:, None].view(np.uint8)
        records[:, _ID_BYTES:] = windows[record_ids.astype(np.uint64) * np.uint64(_PRIME) % np.uint64(len(windows))]
        return records

    def record_ids(self, records: Bytes) -> NDArray[np.int64]:
        """Return i64[n], the numbers that u8[n, record_bytes] say they have."""
        return np.ascontiguousarray(records[:, :_ID_BYTES]).view("<u8")[:, 0].astype(np.int64)

    @property
    def paths(self) -> list[str]:
        """Paths of the files, whether they are written or not."""
        kind = self.options.replace(":", "-").replace(",", "_") + "_sparse" * self.sparse
        kind += f"_{self.form}" * bool(self.form)
        folder = self.folder / f"v{_VERSION}_{self.num_records}x{self.record_bytes}_{kind}"
        count = self.num_shards
        return [str(folder / f"data-{shard:05d}-of-{count:05d}.array_record") for shard in range(count)]

    def prepare(self) -> None:
        """Write the files that are not there, and read all through, so that they are in the page cache."""
        starts = self.starts.tolist()
        for shard, path in enumerate(map(pathlib.Path, self.paths)):
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                self._write_file(path, starts[shard], starts[shard + 1])
            with open(path, "rb", buffering=0) as file:
                while file.read(_READ_BYTES):
                    pass

    def _write_file(self, path: pathlib.Path, start: int, stop: int) -> None:
        partial = path.with_suffix(f".{os.getpid()}.part")
        writer = ArrayRecordWriter(str(partial), self.options)
        step = max(1, 2**22 // self.record_bytes)
        for first in range(start, stop, step):
            for record in self.expected(np.arange(first, min(first + step, stop))):
                writer.write(FORMS[self.form].encode(record))
        writer.close()
        with open(partial, "rb") as file:
            os.fsync(file.fileno())  # only clean pages can be dropped from the page cache
        partial.rename(path)  # a run that was killed leaves no half file under the final name


@functools.cache
def _noise(sparse: bool) -> Bytes:
    rng = np.random.default_rng(2026)
    noise = rng.integers(0, 256, _NOISE_BYTES, np.uint8)
    return noise * (rng.integers(0, 5, _NOISE_BYTES, np.uint8) == 0) if sparse else noise
