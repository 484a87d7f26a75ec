"""Errors of encoding name the field that is wrong, in whatever codec and however deep it lies."""

import pickle
from typing import Any

import numpy as np
import pytest

from arsrc.codecs import Bytes, Image, Json, Map, MsgPack, Npy, Ragged, RecordBatch, Struct, TFExample
from arsrc.errors import ArsrcError
from arsrc.tfds.nested import Nested


class Broken(Bytes):
    """A codec of the user's own."""

    def encode(self, elements: Any) -> Any:
        return {}[str(elements)]


INNER = [
    (Image((4, 4, 3)), np.zeros((1, 5, 4, 3), np.uint8), "Image.encode: has another shape"),
    (Npy("float32"), np.zeros((1, 2), np.float32), "Npy.encode: has another shape"),
    (Struct({"x": "int32"}), {"y": np.zeros(1)}, "Struct.encode: the field names differ"),
    (
        Struct({"x": "int32"}),
        {"x": np.array([2**40])},
        "Struct.encode field 'x': holds a value that does not fit int32",
    ),
    (
        Ragged("int8", max_length=2),
        {"values": np.zeros((1, 2), np.int8), "length": np.array([3])},
        "Ragged.encode: a length",
    ),
    (Map(bytes), np.zeros(1), "Map.encode: there is no encode_fn"),
    (Broken(1), np.zeros(1), "Broken.encode raised KeyError"),
]


@pytest.mark.parametrize(("codec", "elements", "text"), INNER)
@pytest.mark.parametrize("outer", [TFExample, MsgPack, Json])
def test_an_error_of_a_fields_codec_names_the_field(outer: Any, codec: Any, elements: Any, text: str) -> None:
    word = "feature" if outer is TFExample else "field"
    alone = outer({"a b": codec, "label": "int32"})
    for whole, name, batch in (
        (alone, "a b", {"a b": elements, "label": np.zeros(1, np.int32)}),
        (Nested(outer({"a/b": codec}), (("a", "b"),)), "a/b", {"a": {"b": elements}}),
    ):
        with pytest.raises(ArsrcError) as caught:
            whole.encode(batch)
        where = f"[arsrc] {outer.__name__}.encode {word} {name!r}"
        assert str(caught.value).startswith(f"{where}: {text}" if codec.__class__ is Broken else f"{where}, {text}")
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_each_codec_around_another_is_named_and_what_was_found_is_kept() -> None:
    inner = MsgPack({"numbers": Struct({"x": "int8"})})
    with pytest.raises(ArsrcError) as caught:
        TFExample({"message": inner}).encode({"message": {"numbers": {"x": np.array([1, 300])}}})
    text = "TFExample.encode feature 'message', MsgPack.encode field 'numbers', Struct.encode field 'x': holds"
    assert str(caught.value).startswith(f"[arsrc] {text}")
    assert caught.value.got == {"value": 300}


def test_memory_that_runs_out_in_a_fields_codec_is_no_fault_of_the_field() -> None:
    class Full(Bytes):
        def encode(self, elements: Any) -> RecordBatch:
            raise MemoryError("no room")

    for outer in (TFExample, MsgPack, Json):
        with pytest.raises(MemoryError, match="no room"):
            outer({"a": Full()}).encode({"a": np.zeros((1, 3), np.uint8)})
