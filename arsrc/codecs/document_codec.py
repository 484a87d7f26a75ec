"""What `MsgPack` and `Json` share: records that are one map of names to values, of which some are wanted."""

import abc
import dataclasses
import functools
import itertools
import operator
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import jax

from arsrc.codecs.base import Codec, PyTree
from arsrc.codecs.check import field_spec
from arsrc.codecs.columns import MISSING, Holds, blob, column, in_field
from arsrc.codecs.defaults import Default, default_of
from arsrc.codecs.element_tree import tree_text
from arsrc.codecs.extra import not_installed
from arsrc.codecs.field_advice import for_missing
from arsrc.codecs.fields import check_names, common_length, field_text, named
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
        default: What stands for fields that a record has not, as `(name, value)`.
    """

    fields: Mapping[str, Any] | tuple[tuple[str, Holds], ...]
    # Compared by its bytes: arrays cannot be hashed.
    default: Mapping[str, Any] | tuple[tuple[str, Any], ...] | None = dataclasses.field(default=None, compare=False)
    _defaults: tuple[tuple[str, Default], ...] = dataclasses.field(init=False, repr=False)

    _format: ClassVar[str]
    """Name of msgspec's module for the format."""

    def __post_init__(self) -> None:
        name = type(self).__name__
        if msgspec is None:
            raise not_installed(name, "needs msgspec, which is not installed")
        example = f'{name}({{"image": ("uint8", (28, 28)), "label": "int32"}})'
        object.__setattr__(self, "fields", tuple(sorted(named(f"{name}.fields", self.fields, example, self._holds))))
        defaults = self._checked_defaults(f"{name}.default") if self.default else ()
        object.__setattr__(self, "_defaults", defaults)
        object.__setattr__(self, "default", tuple((name, each.value) for name, each in defaults) or None)
        try:
            _ = self._decoder
        except ValueError as error:
            raise ArsrcValueError(name, f"field names cannot be read ({error})", fields=list(self._fields())) from error

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.fields, self.default)

    def cache_key(self) -> Any:
        """Return what tells decoded elements kept in files from those of other codecs."""
        return self.fields, [(name, each.key()) for name, each in self._defaults]

    def _shown(self, field: str) -> str:
        if field == "fields":
            return str({name: field_text(holds) for name, holds in self._fields().items()})
        return tree_text({name: each.value for name, each in self._defaults})

    def resolve(self, first_record: bytes) -> Self:
        """Return the codec with those of its fields resolved, checked with the first record; host only.

        Raises:
            RecordError: The record does not fit.
        """
        records = RecordBatch.from_records([first_record])
        [document] = self._documents(records)
        defaults = dict(self._defaults)
        resolved: list[tuple[str, Holds]] = []
        for number, (name, holds) in enumerate(self._fields().items()):
            value = getattr(document, f"f{number}")
            if not isinstance(holds, tuple):
                if value is MISSING and name not in defaults:
                    raise self._missing(name, 0, first_record)
                is_absent = value is MISSING or (value is None and name in defaults)
                holds = _as_it_is(name, holds) if is_absent else _resolved(name, holds, value)
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
        documents, defaults = self._documents(records), dict(self._defaults)
        found = {}
        for number, (name, holds) in enumerate(self._fields().items()):
            values = list(map(operator.attrgetter(f"f{number}"), documents))
            try:
                found[name] = column(name, holds, values, records, defaults.get(name))
            except RecordError as error:
                if error.what == f"field {name!r} is missing":
                    raise self._missing(name, error.row, records[error.row]) from error
                raise
        return found

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
        names = {f"f{number}": name for number, name in enumerate(self._fields())}
        attributes = [(attribute, Any, MISSING) for attribute in names]
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

    def _missing(self, name: str, row: int, record: bytes) -> RecordError:
        """Return the error of a record that has not a field, which names what it has."""
        held = getattr(msgspec, self._format).Decoder(dict[str, msgspec.Raw])
        try:
            names = list(held.decode(record))
        except (msgspec.MsgspecError, UnicodeError):  # of keys that are no texts
            names = []
        return RecordError(row, f"field {name!r} is missing", for_missing(name, names))

    def _fields(self) -> dict[str, Holds]:
        return dict(self.fields)

    def _holds(self, where: str, value: Any) -> Holds:
        return field_spec(where, value)

    def _checked_defaults(self, where: str) -> tuple[tuple[str, Default], ...]:
        given = dict(named(where, self.default, 'default={"label": -1}', lambda _, value: value))
        fields = self._fields()
        if extra := sorted(given.keys() - fields):
            raise ArsrcValueError(where, "is given for what is no field", names=extra)
        return tuple((name, default_of(f"{where} {name!r}", fields[name], given[name])) for name in sorted(given))


def _resolved(name: str, codec: Codec, value: Any) -> Codec:
    """Return the codec of a field with what it takes from the first record's value filled in."""
    first = blob(name, codec, value)
    try:
        return codec.resolve(first)
    except RecordError as error:
        raise in_field(name, error) from error


def _as_it_is(name: str, codec: Codec) -> Codec:
    """Return the codec of a field that the first record has not, if it takes nothing from it."""
    try:
        codec.element_spec()
    except ArsrcValueError as error:
        what = f"field {name!r} is missing, from which {type(codec).__name__} takes what is not given"
        raise RecordError(0, what, "Give the codec its spec.") from error
    return codec
