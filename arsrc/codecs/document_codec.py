"""What `MsgPack` and `Json` share: records that are one map of names to values, of which some are wanted."""

import abc
import dataclasses
import functools
import itertools
import operator
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import jax
import numpy as np
from numpy.typing import NDArray

from arsrc.codecs.base import Codec, PyTree
from arsrc.codecs.check import array_spec
from arsrc.codecs.columns import MISSING, Holds, blob, column, in_field
from arsrc.codecs.fields import check_names, common_length, field_text, named
from arsrc.codecs.ragged_codec import Ragged
from arsrc.codecs.struct_codec import stored_dtype
from arsrc.errors import ArsrcValueError, RecordError, said
from arsrc.frozen import Terse
from arsrc.record_batch import RecordBatch

try:
    import msgspec
except ImportError:  # an extra
    msgspec = None


@dataclasses.dataclass(frozen=True, repr=False)
class DocumentCodec(Terse, abc.ABC):
    """Base of the codecs of records that are a map of names to values.

    Attributes:
        fields: What is wanted of the map, as `(name, (dtype, shape))` or `(name, codec)`.
        default: What stands for fields that a record has not: `(name, bytes)`, as a record might hold them.
    """

    fields: Mapping[str, Any] | tuple[tuple[str, Holds], ...]
    default: Mapping[str, Any] | tuple[tuple[str, bytes], ...] = ()

    _format: ClassVar[str]
    """Name of msgspec's module for the format."""

    def __post_init__(self) -> None:
        name = type(self).__name__
        if msgspec is None:
            raise ArsrcValueError(name, "needs msgspec, which is not installed", "Run: pip install 'arsrc[formats]'.")
        example = f'{name}({{"image": ("uint8", (28, 28)), "label": "int32"}})'
        object.__setattr__(self, "fields", named(f"{name}.fields", self.fields, example, self._holds))
        object.__setattr__(self, "default", self._defaults(self.default))
        try:
            _ = self._decoder
        except ValueError as error:
            raise ArsrcValueError(name, f"field names cannot be read ({error})", fields=list(self._fields())) from error

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.fields, self.default)

    def cache_key(self) -> Any:
        """Return what tells decoded elements kept in files from those of other codecs."""
        return self.fields, self.default

    def _shown(self, field: str) -> str:
        if field == "fields":
            return str({name: field_text(holds) for name, holds in self._fields().items()})
        return str(dict(getattr(self, field)))

    def resolve(self, first_record: bytes) -> Self:
        """Return the codec with those of its fields resolved, checked with the first record; host only.

        Raises:
            RecordError: The record does not fit.
        """
        records = RecordBatch.from_records([first_record])
        [document] = self._documents(records)
        resolved: list[tuple[str, Holds]] = []
        for number, (name, holds) in enumerate(self._fields().items()):
            if not isinstance(holds, tuple):
                try:
                    holds = holds.resolve(blob(name, holds, getattr(document, f"f{number}")))
                except RecordError as error:
                    raise error if error.what.startswith(f"field {name!r}") else in_field(name, error) from error
            resolved.append((name, holds))
        codec = type(self)(tuple(resolved), self.default)
        codec.decode(records)
        return codec

    def element_spec(self) -> dict[str, PyTree]:
        """Spec of one element: a dict of the fields."""
        return {
            name: jax.ShapeDtypeStruct(holds[1], holds[0]) if isinstance(holds, tuple) else holds.element_spec()
            for name, holds in self._fields().items()
        }

    def decode(self, records: RecordBatch) -> dict[str, PyTree]:
        """Return a dict of the fields: `dtype[num_records, *shape]`, or what a codec gives. Host only.

        Raises:
            RecordError: A record is no such map, or a field is missing, of another kind, shape or length, or does not
                fit its dtype or its codec.
        """
        documents = self._documents(records)
        return {
            name: column(name, holds, list(map(operator.attrgetter(f"f{number}"), documents)), records)
            for number, (name, holds) in enumerate(self._fields().items())
        }

    def encode(self, elements: PyTree) -> RecordBatch:
        """Encode a mapping of `dtype[num_records, *shape]`, or of what a field's codec encodes. Host only.

        Raises:
            ArsrcTypeError: No mapping, or a field has a dtype of another kind.
            ArsrcValueError: Names, shapes or leading axes differ, or the format cannot hold a value.
        """
        where = f"{type(self).__name__}.encode"
        fields = self._fields()
        check_names(where, elements, list(fields))
        columns = {
            name: self._values(f"{where} field {name!r}", holds, elements[name]) for name, holds in fields.items()
        }
        common_length(where, columns)
        encode = getattr(msgspec, self._format).Encoder().encode
        rows = zip(*columns.values(), strict=True)
        return RecordBatch.from_records([encode(dict(zip(fields, row, strict=True))) for row in rows])

    @functools.cached_property
    def _decoder(self) -> Any:
        """What decodes a record to an object with the attributes `f0`, `f1`, ..., one a field.

        What is not named is skipped, without making objects of it.
        """
        default = dict(self.default)
        attributes = [(f"f{i}", Any, default.get(name, MISSING)) for i, name in enumerate(self._fields())]
        names = {f"f{i}": name for i, name in enumerate(self._fields())}
        document = msgspec.defstruct("Document", attributes, rename=names, gc=False)
        return getattr(msgspec, self._format).Decoder(document)

    @abc.abstractmethod
    def _values(self, where: str, holds: Holds, elements: PyTree) -> list[Any]:
        """Return a field of a batch as what records hold, one value a record."""

    def _documents(self, records: RecordBatch) -> list[Any]:
        data: Any = records.data
        decode, data = self._decoder.decode, memoryview(data)
        found: list[Any] = []
        try:
            for start, stop in itertools.pairwise(records.offsets.tolist()):
                found.append(decode(data[start:stop]))
        except MemoryError:
            raise
        except Exception as error:
            what = f"the record is no {type(self).__name__} map that can be read ({said(error)})"
            raise RecordError(len(found), what) from error
        return found

    def _fields(self) -> dict[str, Holds]:
        return dict(self.fields)

    def _holds(self, where: str, value: Any) -> Holds:
        if isinstance(value, Codec) and not isinstance(value, type):
            return value
        return array_spec(where, value)

    def _defaults(self, default: Any) -> tuple[tuple[str, bytes], ...]:
        """Return the defaults as bytes, checked."""
        where = f"{type(self).__name__}.default"
        if not default:
            return ()
        given = dict(named(where, default, 'default={"label": -1}', lambda _, value: value))
        fields = self._fields()
        if unknown := sorted(given.keys() - fields):
            raise ArsrcValueError(where, "names what is no field", unknown=unknown, fields=list(fields))
        found = []
        for name, value in given.items():
            value = value.tolist() if isinstance(value, np.ndarray | np.generic | jax.Array) else value
            try:
                found.append((name, _as_bytes(name, fields[name], value)))
            except RecordError as error:
                raise ArsrcValueError(where, error.what, error.fix) from error
        return tuple(found)


def _as_bytes(name: str, holds: Holds, value: Any) -> bytes:
    """Return a value as the bytes that a record might hold in its place."""
    none = RecordBatch.from_records([])
    if isinstance(holds, tuple):
        array: NDArray[Any] = column(name, holds, [value], none)
        return array.astype(stored_dtype(holds[0])).tobytes()
    found = blob(name, holds, value)
    if isinstance(holds, Ragged):
        column(name, holds, [found], none)
    return found
