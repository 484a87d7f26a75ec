"""`TFExample`: records that are `tf.train.Example` messages, as TFDS and MaxText write them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arsrc.codecs.base import PyTree
from arsrc.codecs.check import field_spec
from arsrc.codecs.defaults import Default, default_of
from arsrc.codecs.element_tree import tree_text
from arsrc.codecs.example_layout import find_spans
from arsrc.codecs.example_message import usual_form
from arsrc.codecs.example_reader import FeatureReader
from arsrc.codecs.example_values import feature_of
from arsrc.codecs.example_walk import Spans
from arsrc.codecs.example_writing import written
from arsrc.codecs.fields import check_names, common_length, field_text, named
from arsrc.errors import ArsrcTypeError, ArsrcValueError, RecordError
from arsrc.record_batch import RecordBatch


@dataclasses.dataclass(frozen=True, repr=False)
class TFExample:
    """Records that are `tf.train.Example` messages, as a dict of some of their features.

    >>> TFExample({"image": ("uint8", (28, 28)), "label": "int32"})
    TFExample({'image': ('uint8', (28, 28)), 'label': 'int32'})

    Which list a record holds decides how it is read. Integers become integers, as long as they fit, and bools, of which
    the format has none of its own; floats become floats. Lists say what they hold: one of integers is no list of
    floats, nor the reverse. One bytes value becomes an array by its bytes, little-endian, as `tf.io.decode_raw` has it.
    Features that are not named are skipped.

    Records are read many at once. Those in a form that writers do not use go one by one through `protobuf`, which is
    an extra: `pip install 'arsrc[formats]'`.

    Attributes:
        features: Mapping of names to a dtype, `(dtype, shape)` or a `jax.ShapeDtypeStruct`; to `Ragged` for lists of
            any length; or to another codec for one bytes value. Kept as a tuple of `(name, spec)`, sorted by name,
            which is accepted as well.
        default: Mapping of names to what stands for a feature that a record has not, or without a value: an array;
            for `Ragged`, one of at most `max_length` items; for another codec, an element. Kept as a tuple of
            `(name, value)`. A feature that is not named here must be in every record.

    Raises:
        ArsrcTypeError: A name is no text, a spec stands for no array and is no codec, or a default is of another
            kind than its feature (at construction).
        ArsrcValueError: There is no feature, a name comes twice, a size is negative, or a default does not fit its
            feature or has none (at construction).
    """

    features: Mapping[str, Any] | tuple[tuple[str, Any], ...]
    # Compared by its bytes: arrays cannot be hashed.
    default: Mapping[str, Any] | tuple[tuple[str, Any], ...] | None = dataclasses.field(default=None, compare=False)
    _defaults: tuple[tuple[str, Default], ...] = dataclasses.field(init=False)
    _readers: tuple[FeatureReader, ...] = dataclasses.field(init=False, compare=False)

    def __post_init__(self) -> None:
        example = 'TFExample({"image": ("uint8", (28, 28)), "label": "int32"})'
        features = tuple(sorted(named("TFExample.features", self.features, example, _holds)))
        for name, _ in features:
            if name != name.encode(errors="ignore").decode():
                raise ArsrcValueError("TFExample.features", "a name cannot be written as UTF-8", name=name)
        given = dict(named("TFExample.default", self.default, example, lambda _, value: value) if self.default else ())
        if extra := sorted(set(given) - {name for name, _ in features}):
            raise ArsrcValueError("TFExample.default", "is given for what is no feature", names=extra)
        defaults = {
            name: default_of(f"TFExample.default {name!r}", spec, given[name])
            for name, spec in features
            if name in given
        }
        object.__setattr__(self, "features", features)
        object.__setattr__(self, "default", tuple((name, each.value) for name, each in defaults.items()) or None)
        object.__setattr__(self, "_defaults", tuple(defaults.items()))
        readers = [FeatureReader(name, feature_of(spec), defaults.get(name)) for name, spec in features]
        object.__setattr__(self, "_readers", tuple(readers))

    def __repr__(self) -> str:
        shown = {name: field_text(spec) for name, spec in self._specs()}
        default = "" if self.default is None else f", default={tree_text(dict(self.default))}"
        return f"TFExample({shown}{default})"

    def __reduce__(self) -> tuple[Any, ...]:
        # Tree definitions with nodes of the user's own cannot be pickled, trees of them can.
        return TFExample, (self.features, self.default)

    def cache_key(self) -> Any:
        """Return what tells decoded elements kept in files from those of other codecs."""
        return self.features, [(name, each.key()) for name, each in self._defaults]

    def resolve(self, first_record: bytes) -> "TFExample":
        """Return the codec with the codecs of its features resolved by their first values; host only.

        Raises:
            RecordError: As `decode`, and where a codec that is not resolved has no value in the record.
        """
        first = RecordBatch.from_records([first_record])
        data, spans = self._spans(first)
        values = [data[begin : begin + length].tobytes() for _, (begin,), (length,) in spans]
        kinds = [int(span.kinds[0]) for span in spans]
        given = zip(self._readers, self._specs(), kinds, values, strict=True)
        specs = {name: reader.resolved(spec, kind, value, first_record) for reader, (name, spec), kind, value in given}
        resolved = TFExample(specs, self.default)
        resolved.decode(first)
        return resolved

    def element_spec(self) -> dict[str, PyTree]:
        """Spec of one element: a dict of the features.

        Raises:
            ArsrcValueError: A codec of a feature is not resolved.
        """
        return {reader.name: reader.feature.element_spec() for reader in self._readers}

    def decode(self, records: RecordBatch) -> dict[str, PyTree]:
        """Return a dict of `dtype[num_records, *shape]`, and of what codecs of features give. Host only.

        Raises:
            RecordError: A record is no Example, has not a feature that has no default, or what it holds of one does
                not fit.
            ArsrcValueError: protobuf is needed and not installed.
        """
        data, spans = self._spans(records)
        return {
            reader.name: reader.read(data, span, records) for reader, span in zip(self._readers, spans, strict=True)
        }

    def encode(self, elements: PyTree) -> RecordBatch:
        """Encode a dict of `dtype[num_records, *shape]`, and of what codecs of features encode. Host only.

        Bools and integers are written as integers, floats as floats of 32 bits, complex numbers and what codecs
        encode as bytes. The features stand in the order of their names.

        Raises:
            ArsrcTypeError: No mapping, or an array has a dtype of another kind.
            ArsrcValueError: Names, shapes or leading axes differ, or a value does not fit.
        """
        check_names("TFExample.encode", elements, [reader.name for reader in self._readers])
        features = {reader.name: reader.feature for reader in self._readers}
        payloads = {
            name: feature.encode(f"TFExample.encode feature {name!r}", elements[name])
            for name, feature in features.items()
        }
        common_length("TFExample.encode", payloads)
        return RecordBatch.from_records(
            written([(name, feature.kind, payloads[name]) for name, feature in features.items()])
        )

    def _specs(self) -> tuple[tuple[str, Any], ...]:
        assert isinstance(self.features, tuple)
        return self.features

    def _spans(self, records: RecordBatch) -> tuple[NDArray[np.uint8], list[Spans]]:
        """Return where each feature lies in each record, and in what.

        Raises:
            RecordError: A record is no Example.
            ArsrcValueError: protobuf is needed and not installed.
        """
        names = [name for name, _ in self._specs()]
        numbers = {name.encode(): number for number, name in enumerate(names)}
        first, last = int(records.offsets[0]), int(records.offsets[-1])
        data = records.data[first:last]
        is_fine, spans = find_spans(data, records.offsets - first, numbers)
        if np.count_nonzero(is_fine) == len(records):
            return data, spans
        rows = np.flatnonzero(~is_fine)
        contents = [records[row] for row in rows.tolist()]
        others = RecordBatch.from_records(contents)
        is_fine, found = find_spans(others.data, others.offsets, numbers, one_by_one=True)
        if not is_fine.all():
            for place in np.flatnonzero(~is_fine).tolist():
                contents[place] = usual_form(int(rows[place]), contents[place], names)
            others = RecordBatch.from_records(contents)
            is_fine, found = find_spans(others.data, others.offsets, numbers, one_by_one=True)
            if not is_fine.all():
                raise RecordError(int(rows[is_fine.argmin()]), "the record holds a list of 2**28 bytes or more")
        for span, other in zip(spans, found, strict=True):
            span.kinds[rows], span.lengths[rows] = other.kinds, other.lengths
            span.begins[rows] = other.begins + len(data)
        return np.concatenate((data, others.data)), spans


def _holds(where: str, spec: Any) -> Any:
    """Return the spec of a feature as `(dtype, shape)`, or the codec that it is."""
    holds = field_spec(where, spec)
    try:
        hash(holds)
    except TypeError as error:
        raise ArsrcTypeError(where, "must be hashable", "Codecs are frozen dataclasses.", codec=spec) from error
    return holds
