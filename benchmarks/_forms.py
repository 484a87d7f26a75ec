"""How records stand in files that people have, and how a record is decoded by the best that they have for it.

Worker processes import this module: no JAX in here.
"""

import functools
import io
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Element = dict[str, Any]

SIDE = 96
"""Pixels of a picture's side as it is delivered."""
SEED_BYTES = 24 * 24 * 3
"""Bytes of a record that a picture is drawn from."""
_DRAWN_SIDE, _QUALITY = 256, 75


class Form(NamedTuple):
    """A form of records.

    Attributes:
        encode: Makes of what `DataSet` gives what is stored.
        decode: Makes an element of what is stored: a dict with an "image" and perhaps a "label".
    """

    encode: Callable[[Bytes], bytes]
    decode: Callable[[bytes], Element]


def label_of(record: Bytes) -> int:
    """Return the label that belongs to a record."""
    return int(record[0]) % 10


@functools.cache
def _example() -> Any:
    """Return the class of the message tf.train.Example, as TensorFlow's example.proto and feature.proto define it."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="bench.proto", package="bench", syntax="proto3")
    one, many = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL, descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
    types = descriptor_pb2.FieldDescriptorProto

    def message(name: str, *fields: tuple[str, int, int, int, str], within: Any = file.message_type) -> Any:
        found = within.add(name=name)
        for field, number, label, kind, of in fields:
            found.field.add(name=field, number=number, label=label, type=kind, type_name=of or None)
        return found

    message("BytesList", ("value", 1, many, types.TYPE_BYTES, ""))
    message("FloatList", ("value", 1, many, types.TYPE_FLOAT, ""))
    message("Int64List", ("value", 1, many, types.TYPE_INT64, ""))
    feature = message(
        "Feature",
        ("bytes_list", 1, one, types.TYPE_MESSAGE, ".bench.BytesList"),
        ("float_list", 2, one, types.TYPE_MESSAGE, ".bench.FloatList"),
        ("int64_list", 3, one, types.TYPE_MESSAGE, ".bench.Int64List"),
    )
    feature.oneof_decl.add(name="kind")
    for field in feature.field:
        field.oneof_index = 0
    features = message("Features", ("feature", 1, many, types.TYPE_MESSAGE, ".bench.Features.FeatureEntry"))
    entry = message(
        "FeatureEntry",
        ("key", 1, one, types.TYPE_STRING, ""),
        ("value", 2, one, types.TYPE_MESSAGE, ".bench.Feature"),
        within=features.nested_type,
    )
    entry.options.map_entry = True
    message("Example", ("features", 1, one, types.TYPE_MESSAGE, ".bench.Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("bench.Example"))


def _encode_example(image: bytes, label: int) -> bytes:
    example = _example()()
    example.features.feature["image"].bytes_list.value.append(image)
    example.features.feature["label"].int64_list.value.append(label)
    found: bytes = example.SerializeToString(deterministic=True)
    return found


def _parse_example(record: bytes) -> tuple[bytes, int]:
    feature = _example().FromString(record).features.feature
    return feature["image"].bytes_list.value[0], feature["label"].int64_list.value[0]


def _decode_example(record: bytes) -> Element:
    image, label = _parse_example(record)
    return {"image": np.frombuffer(image, np.uint8), "label": label}


def _draw(record: Bytes) -> bytes:
    """Return a picture of about 10 kB, as smooth as a photo, as JPEG."""
    from PIL import Image

    small = Image.fromarray(record.reshape(24, 24, 3))
    stored = io.BytesIO()
    small.resize((_DRAWN_SIDE, _DRAWN_SIDE), Image.Resampling.BICUBIC).save(stored, "JPEG", quality=_QUALITY)
    return stored.getvalue()


def decode_jpeg(stored: bytes) -> Bytes:
    """Return a JPEG as u8[SIDE, SIDE, 3]: scaled while it is decoded, then resized."""
    import simplejpeg
    from PIL import Image

    pixels = simplejpeg.decode_jpeg(stored, min_height=SIDE, min_width=SIDE)
    return np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def _decode_example_jpeg(record: bytes) -> Element:
    image, label = _parse_example(record)
    return {"image": decode_jpeg(image), "label": label}


def _pack(record: Bytes) -> bytes:
    import msgspec

    return msgspec.msgpack.encode({"image": record.tobytes(), "label": label_of(record)})


def _unpack(stored: bytes) -> Element:
    import msgspec

    fields = msgspec.msgpack.decode(stored)
    return {"image": np.frombuffer(fields["image"], np.uint8), "label": fields["label"]}


def inflate(stored: bytes) -> Bytes:
    """Decode a deflated record."""
    return np.frombuffer(zlib.decompress(stored), np.uint8)


FORMS = {
    "": Form(lambda record: record.tobytes(), lambda record: {"image": np.frombuffer(record, np.uint8)}),
    "deflated": Form(zlib.compress, lambda stored: {"image": inflate(stored)}),
    "example": Form(lambda record: _encode_example(record.tobytes(), label_of(record)), _decode_example),
    "example_jpeg": Form(lambda record: _encode_example(_draw(record), label_of(record)), _decode_example_jpeg),
    "jpeg": Form(_draw, lambda stored: {"image": decode_jpeg(stored)}),
    "msgpack": Form(_pack, _unpack),
}
"""By name; the empty one are the bytes as they are."""


def decode(form: str, stored: bytes) -> Element:
    """Decode a record of a form."""
    return FORMS[form].decode(stored)


def is_lossy(form: str) -> bool:
    """Whether pictures of a form are not the bytes that they were made of."""
    return "jpeg" in form
