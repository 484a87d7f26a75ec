"""`Npz`: records that are several named arrays as numpy.savez writes them."""

import dataclasses
import math
import zipfile
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from arsrc.codecs.base import PyTree
from arsrc.codecs.check import array_spec
from arsrc.codecs.columns import in_field
from arsrc.codecs.fields import check_names, common_length, field_text, named
from arsrc.codecs.npy_codec import decoded, encoded
from arsrc.codecs.npy_format import MOST_HEADER_BYTES
from arsrc.errors import ArsrcError, RecordError, said
from arsrc.record_batch import RecordBatch

Spec = tuple[np.dtype[Any], tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Npz:
    """Records that are named arrays as numpy.savez or numpy.savez_compressed writes them, of which a dict is made.

    Arrays that are not named are skipped. Nothing is unpickled.

    Attributes:
        fields: Mapping of names to a dtype, `(dtype, shape)` or a `jax.ShapeDtypeStruct`. Kept as a tuple of
            `(name, (dtype, shape))`, sorted by name.

    Raises:
        ArsrcTypeError: A name is no string, or a spec stands for no array (at construction).
        ArsrcValueError: There is no field, a name comes twice, or a size is negative (at construction).
    """

    fields: Mapping[str, Any] | tuple[tuple[str, Spec], ...]

    def __post_init__(self) -> None:
        example = 'Npz({"image": ("uint8", (28, 28)), "label": "int32"})'
        fields = named("Npz.fields", self.fields, example, array_spec)
        object.__setattr__(self, "fields", tuple(sorted(fields, key=lambda field: field[0])))

    def __repr__(self) -> str:
        return f"Npz({ {name: field_text(spec) for name, spec in self._fields().items()} })"

    def resolve(self, first_record: bytes) -> "Npz":
        """Check the first record; host only.

        Raises:
            RecordError: It does not fit.
        """
        self.decode(RecordBatch.from_records([first_record]))
        return self

    def element_spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Spec of one element: a dict of the fields."""
        return {name: jax.ShapeDtypeStruct(shape, dtype) for name, (dtype, shape) in self._fields().items()}

    def decode(self, records: RecordBatch) -> dict[str, NDArray[Any]]:
        """Return a dict of `dtype[num_records, *shape]`. Host only.

        Raises:
            RecordError: A record is no such file, or an array is missing or another one than the fields say.
        """
        fields = self._fields()
        columns: dict[str, list[bytes]] = {name: [] for name in fields}
        for row, record in enumerate(records):
            for name, member in self._members(record, row).items():
                columns[name].append(member)
        found = {}
        for name, members in columns.items():
            try:
                found[name] = decoded(RecordBatch.from_records(members), *fields[name])
            except RecordError as error:
                raise in_field(name, error) from error
        return found

    def encode(self, elements: PyTree) -> RecordBatch:
        """Encode a mapping of `dtype[num_records, *shape]`, uncompressed. Host only.

        Raises:
            ArsrcTypeError: No mapping, or a field has a dtype of another kind.
            ArsrcValueError: Names, shapes or leading axes differ, or a value does not fit.
        """
        fields = self._fields()
        check_names("Npz.encode", elements, list(fields))
        columns = {name: encoded(f"Npz.encode field {name!r}", elements[name], *spec) for name, spec in fields.items()}
        num_records = common_length("Npz.encode", columns)
        return RecordBatch.from_records(
            [_archive({name: column[row] for name, column in columns.items()}) for row in range(num_records)]
        )

    def _members(self, record: bytes, row: int) -> dict[str, bytes]:
        """Return the arrays of one record as numpy.save would have written them."""
        try:
            with zipfile.ZipFile(BytesIO(record)) as archive:
                infos = {info.filename: info for info in archive.infolist()}
                return {
                    name: _member(archive, name, infos.get(f"{name}.npy"), spec, row)
                    for name, spec in self._fields().items()
                }
        except (ArsrcError, MemoryError):
            raise
        except Exception as error:
            what = f"the record is no file as numpy.savez writes it ({said(error)})"
            raise RecordError(row, what) from error

    def _fields(self) -> dict[str, Spec]:
        return dict(self.fields)


def _member(archive: zipfile.ZipFile, name: str, info: zipfile.ZipInfo | None, spec: Spec, row: int) -> bytes:
    """Return the bytes of one array; never more than the spec allows, whatever the file says of itself."""
    if info is None:
        raise RecordError(row, f"field {name!r} is missing", f"The record holds {sorted(archive.namelist())}.")
    dtype, shape = spec
    most = MOST_HEADER_BYTES + math.prod(shape) * dtype.itemsize
    if info.file_size > most or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        what = f"field {name!r} has {info.file_size} bytes in compression {info.compress_type}"
        raise RecordError(row, what, "Write the arrays by numpy.savez or numpy.savez_compressed.")
    with archive.open(info) as file:
        return file.read(info.file_size)  # with a number: else all that is compressed would be made room for


def _archive(members: dict[str, bytes]) -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, member in members.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member)
    return file.getvalue()
