"""Files opened for the mapped reader, for tests of several modules."""

import dataclasses
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

from arsrc._host.format.file_index import FileIndex, index_files
from arsrc._host.format.numbering import Numbering
from arsrc._host.format.record_index import Located
from arsrc._host.machine.buffers import BufferPool
from arsrc._host.machine.copying import Copier
from arsrc._host.readers.mapped import MappedFiles
from arsrc._host.storage.address_range import AddressRange
from arsrc._host.storage.paths import FileSlice
from arsrc.record_batch import RecordBatch


def some_records(seed: Any, lengths: Sequence[int]) -> list[bytes]:
    draw = random.Random(repr(seed))
    return [draw.randbytes(length) for length in lengths]


def file_index(path: str) -> FileIndex | None:
    """Index one file."""
    (index,) = index_files([path])
    return index


@dataclasses.dataclass
class Opened:
    """Mapped files with their numbering."""

    numbering: Numbering
    files: MappedFiles

    @property
    def num_records(self) -> int:
        return self.numbering.num_records

    def locate(self, record_ids: Any) -> Located:
        return self.files.locate(self.numbering.find(np.asarray(record_ids, np.int64)))

    def read(self, record_ids: Any, out: Any = None) -> RecordBatch:
        return self.files.copy(self.locate(record_ids), out)

    def records(self, record_ids: Any = None, out: Any = None) -> list[bytes]:
        """The records with these ids; None: all."""
        ids = np.arange(self.num_records) if record_ids is None else record_ids
        batch = self.read(ids, out)
        assert len(batch) == len(ids)
        return [batch[row] for row in range(len(batch))]

    def close(self) -> None:
        self.files.reads.close()


def opened(*slices: str | FileSlice, **options: Any) -> Opened:
    """Map whole files, or slices of them, which must all be of the kind that can be mapped."""
    parts = [FileSlice(part) if isinstance(part, str) else part for part in slices]
    num_records = {part.path: ArrayRecordReader(part.path).num_records() for part in parts}
    indices = {
        path: index
        for path, number in num_records.items()
        if (index := file_index(path)) and index.num_records == number
    }
    assert indices.keys() == num_records.keys()
    numbering = Numbering([part.within(num_records[part.path]) for part in parts])
    return open_indexed(numbering, indices, **options)


def open_indexed(
    numbering: Numbering, indices: dict[str, FileIndex], random_access: bool = False, **options: Any
) -> Opened:
    """Map files with their indices."""
    area = AddressRange.reserve({index.path: index.stamp for index in indices.values()}, random_access)
    assert area is not None
    assert all(area.map(index.path, index.stamp) for index in indices.values() if index.num_records)
    defaults = {"buffers": BufferPool(1 << 30), "copier": Copier()}
    return Opened(numbering, MappedFiles(area, numbering, indices, **(defaults | options)))
