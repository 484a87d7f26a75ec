"""`tf.train.Example` records in any form, read by `protobuf`, which is an extra."""

import functools
from collections.abc import Sequence
from typing import Any

from arsrc.codecs.extra import not_installed
from arsrc.errors import RecordError

_PACKAGE = "arsrc.example"
# Messages, each with its fields: name, number, type, label, and the name of a message for the type of one.
_BYTES, _FLOAT, _INT64, _STRING, _MESSAGE = 12, 2, 3, 9, 11
_ONE, _MANY = 1, 3


def usual_form(row: int, record: bytes, names: Sequence[str]) -> bytes:
    """Return an Example of these features alone in the form that writers give it; those that are missing have no value.

    Raises:
        RecordError: It is none, or a feature has several bytes values.
        ArsrcValueError: protobuf is needed and not installed.
    """
    example_class = _example_class()
    if example_class is None:
        what = "a record is no tf.train.Example in the usual form, and protobuf, which reads any, is not installed"
        raise not_installed("TFExample", what)
    from google.protobuf.message import DecodeError

    try:
        found = example_class.FromString(record).features.feature
    except (DecodeError, UnicodeError) as error:
        raise RecordError(row, "the record is no tf.train.Example", "Look at it with the codec Map.") from error
    example = example_class()
    for name in names:
        feature = example.features.feature[name]
        if name in found:
            feature.CopyFrom(found[name])
            feature.DiscardUnknownFields()
            num_values = len(feature.bytes_list.value)
            if feature.WhichOneof("kind") == "bytes_list" and num_values != 1:
                raise RecordError(row, f"feature {name!r} holds {num_values} bytes values, not one")
    return bytes(example.SerializeToString(deterministic=True))


@functools.cache
def _example_class() -> Any:
    """Return the class of messages, which is made here, so that none has to be installed; None: no protobuf."""
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ImportError:
        return None
    file = descriptor_pb2.FileDescriptorProto(name="arsrc/example.proto", package=_PACKAGE, syntax="proto3")
    for name, items in (("BytesList", _BYTES), ("FloatList", _FLOAT), ("Int64List", _INT64)):
        _add_field(file.message_type.add(name=name), "value", 1, items, _MANY)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, kind in enumerate(("bytes_list", "float_list", "int64_list"), 1):
        field = _add_field(feature, kind, number, _MESSAGE, _ONE, kind.title().replace("_", ""))
        field.oneof_index = 0
    features = file.message_type.add(name="Features")
    _add_field(features, "feature", 1, _MESSAGE, _MANY, "Features.FeatureEntry")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    _add_field(entry, "key", 1, _STRING, _ONE)
    _add_field(entry, "value", 2, _MESSAGE, _ONE, "Feature")
    _add_field(file.message_type.add(name="Example"), "features", 1, _MESSAGE, _ONE, "Features")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Example"))


def _add_field(message: Any, name: str, number: int, kind: int, label: int, type_name: str = "") -> Any:
    field = message.field.add(name=name, number=number, type=kind, label=label)
    if type_name:
        field.type_name = f".{_PACKAGE}.{type_name}"
    return field
