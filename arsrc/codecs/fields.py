"""Named fields as users declare them, and batches of named arrays to encode."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from arsrc.codecs.base import Codec
from arsrc.codecs.element_tree import both_sides
from arsrc.errors import ArsrcError, ArsrcTypeError, ArsrcValueError, RecordError, said
from arsrc.own_code import raised_at
from arsrc.record_batch import RecordBatch

T = TypeVar("T")


def named(where: str, fields: Any, example: str, normal: Callable[[str, Any], T]) -> tuple[tuple[str, T], ...]:
    """Return a mapping of names to what `normal(place, value)` makes of its values, as a tuple; that is taken too.

    Raises:
        ArsrcTypeError: It is no mapping, or a name is no string; `where` is what errors name as the place.
        ArsrcValueError: There is no field, or a name comes twice.
    """
    owner = where.partition(".")[0]
    if isinstance(fields, Mapping):
        entries = list(fields.items())
    elif isinstance(fields, tuple) and all(isinstance(entry, tuple) and len(entry) == 2 for entry in fields):
        entries = list(fields)
    else:
        raise ArsrcTypeError(where, "must be a mapping", f"For example {example}.", fields=fields)
    for name, _ in entries:
        if not isinstance(name, str) or not name:
            raise ArsrcTypeError(where, "names must be non-empty strings", name=name)
    if not entries or len({name for name, _ in entries}) < len(entries):
        raise ArsrcValueError(where, "a name comes twice" if entries else "is empty", fields=fields)
    return tuple((name, normal(f"{owner} field {name!r}", value)) for name, value in entries)


def check_names(where: str, elements: Any, names: list[str]) -> None:
    """Check that a batch to encode is a mapping with these names.

    Raises:
        ArsrcTypeError: It is none.
        ArsrcValueError: The names differ.
    """
    if not isinstance(elements, Mapping):
        what = "elements must be a mapping of field names to arrays"
        raise ArsrcTypeError(where, what, elements=type(elements).__name__)
    if set(elements) != set(names):
        fix = both_sides(str(sorted(names)), str(sorted(map(str, elements))))
        raise ArsrcValueError(where, "the field names differ", fix)


def encoded_by(codec: Codec, where: str, elements: Any) -> RecordBatch:
    """Return what the codec of a field encodes; errors name `where` as the place around the codec's own.

    Raises:
        ArsrcError: What the codec raises.
        MemoryError: There is too little for it.
    """
    try:
        return codec.encode(elements)
    except MemoryError:
        raise
    except Exception as error:
        if isinstance(error, ArsrcError) and not isinstance(error, RecordError):
            raise error.inside(where) from error.__cause__
        what = f"{type(codec).__name__}.encode raised {said(error)}"
        raise ArsrcValueError(where, what, raised_at(error)) from error


def common_length(where: str, columns: Mapping[str, Any]) -> int:
    """Return how many items each field of a batch to encode has.

    Raises:
        ArsrcValueError: They differ.
    """
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ArsrcValueError(where, "leading axes differ", lengths=lengths)
    return next(iter(lengths.values()))


def field_text(holds: Any) -> Any:
    """Return what a field holds as a user writes it: a codec, `(dtype name, shape)`, or a scalar's dtype's name."""
    if not isinstance(holds, tuple):
        return holds
    dtype, shape = holds
    return (dtype.name, shape) if shape else dtype.name
