"""`TFExample` against `protobuf` itself: what it takes, what it gives, what it refuses; and all of its errors."""

import dataclasses
import itertools
import pickle
import struct
import subprocess
import sys
from typing import Any, NamedTuple

import jax
import ml_dtypes
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import arsrc
from arsrc._host.records.stoppable import Stoppable
from arsrc.codecs import Bytes, Codec, Map, MsgPack, Ragged, RecordBatch, Struct, TFExample, check_batch
from arsrc.codecs.example_heads import ABSENT, UNSET
from arsrc.codecs.example_layout import find_spans
from arsrc.codecs.example_message import _example_class
from arsrc.codecs.example_wire import feature_names
from arsrc.codecs.varints import are_whole, packed_varints, varint_values
from arsrc.errors import ArsrcTypeError, ArsrcValueError, RecordError

Example = _example_class()


class Pair(NamedTuple):
    first: Any
    second: Any


def parse_pair(record: bytes) -> Pair:
    return Pair(np.frombuffer(record[:2], np.uint8), np.float32(record[2]))


def dump_pair(pair: Pair) -> bytes:
    return pair.first.tobytes() + bytes((int(pair.second),))


PAIR = Map(parse_pair, Pair(("uint8", 2), "float32"), dump_pair)
EVERY = TFExample(
    {
        "flag": "bool",
        "image": ("uint8", (2, 3)),
        "label": "int32",
        "half": ("bfloat16", 2),
        "wide": ("float64", ()),
        "ids": Ragged("int64", max_length=5, pad_value=-1),
        "boxes": Ragged("float32", max_length=4, pad_value=np.nan),
        "bits": ("complex64", 1),
        "blob": Bytes(3),
        "pair": PAIR,
        "point": Struct({"x": "float32", "y": "int16"}),
    }
)


def example(**features: Any) -> Any:
    """A message of these features: bytes, or lists of bytes, integers or floats."""
    message = Example()
    for name, value in features.items():
        feature = message.features.feature[name]
        values = value if isinstance(value, list) else [value]
        if value is None:
            continue
        if not values:
            feature.float_list.SetInParent()
        elif isinstance(values[0], bytes):
            feature.bytes_list.value.extend(values)
        elif isinstance(values[0], float):
            feature.float_list.value.extend(values)
        else:
            feature.int64_list.value.extend(values)
    return message


def record(**features: Any) -> bytes:
    return example(**features).SerializeToString(deterministic=True)


def batch_of(*records: bytes) -> RecordBatch:
    return RecordBatch.from_records(records)


def nested(tag: int, content: bytes) -> bytes:
    """A field with a length, as protocol buffers write it."""
    return bytes((tag,)) + varint(len(content)) + content


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def entry(key: bytes, feature: bytes) -> bytes:
    return nested(0x0A, nested(0x0A, key) + nested(0x12, feature))


def elements(num: int) -> dict[str, Any]:
    """Random elements of `EVERY`."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 5, num)
    return {
        "flag": rng.integers(0, 2, num).astype(bool),
        "image": rng.integers(0, 256, (num, 2, 3), dtype=np.uint8),
        "label": rng.integers(-(2**31), 2**31, num).astype(np.int32),
        "half": rng.normal(size=(num, 2)).astype(ml_dtypes.bfloat16),
        "wide": rng.normal(size=num).astype(np.float32).astype(np.float64),
        "ids": {
            "values": np.where(np.arange(5) < lengths[:, None], rng.integers(-(2**63), 2**63 - 1, (num, 5)), -1),
            "length": lengths.astype(np.int32),
        },
        "boxes": {
            "values": np.where(np.arange(4) < lengths[:, None] % 4, rng.normal(size=(num, 4)), np.nan).astype("f4"),
            "length": (lengths % 4).astype(np.int32),
        },
        "bits": rng.normal(size=(num, 1)).astype(np.complex64),
        "blob": rng.integers(0, 256, (num, 3), dtype=np.uint8),
        "pair": Pair(rng.integers(0, 256, (num, 2), dtype=np.uint8), rng.integers(0, 9, num).astype(np.float32)),
        "point": {"x": rng.normal(size=num).astype(np.float32), "y": rng.integers(-99, 99, num).astype(np.int16)},
    }


def assert_same(left: Any, right: Any) -> None:
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        one, other = np.asarray(one), np.asarray(other)
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert one.tobytes() == other.tobytes()


# Round trips, and the message that they go through.


@pytest.mark.parametrize("num", [0, 1, 7, 300])
def test_what_is_encoded_is_decoded(num: int) -> None:
    given_elements = elements(num)
    decoded = EVERY.decode(EVERY.encode(given_elements))
    check_batch(decoded, EVERY.element_spec(), num)
    assert_same(decoded, given_elements)


def test_encoded_records_are_what_protobuf_writes_in_order_of_the_keys() -> None:
    found = elements(20)
    for row, written in enumerate(EVERY.encode(found)[row] for row in range(20)):
        ids, boxes = (found[name]["values"][row][: found[name]["length"][row]] for name in ("ids", "boxes"))
        message = example(
            flag=int(found["flag"][row]),
            image=found["image"][row].reshape(-1).tolist(),
            label=int(found["label"][row]),
            half=found["half"][row].astype(float).tolist(),
            wide=float(found["wide"][row]),
            bits=found["bits"][row].tobytes(),
            blob=found["blob"][row].tobytes(),
            pair=dump_pair(Pair(found["pair"].first[row], found["pair"].second[row])),
            point=struct.pack("<fh", found["point"]["x"][row], found["point"]["y"][row]),
        )
        message.features.feature["ids"].int64_list.value.extend(ids.tolist())
        message.features.feature["boxes"].float_list.value.extend(boxes.tolist())
        assert written == message.SerializeToString(deterministic=True)


def test_an_array_is_read_from_bytes_too_little_endian() -> None:
    codec = TFExample({"a": ("int16", (2, 2)), "flags": ("bool", 3), "ragged": Ragged("float32", max_length=3)})
    values = np.array([[1, -2], [300, -400]], "<i2")
    rows = batch_of(*[record(a=values.tobytes(), flags=b"\x00\x07\x01", ragged=struct.pack("<2f", 1, 2))] * 2)
    found = codec.decode(rows)
    assert found["a"].tolist() == [values.tolist()] * 2
    assert found["flags"].tolist() == [[False, True, True]] * 2
    assert found["ragged"]["values"].tolist() == [[1, 2, 0]] * 2


def test_records_that_hold_a_feature_in_different_ways_are_read_together() -> None:
    codec = TFExample({"a": "int32", "c": ("float32", 2)}, default={"a": -1})
    rows = [record(a=7, c=[1.0, 2.0]), record(c=struct.pack("<2f", 3, 4)), record(a=struct.pack("<i", 9), c=[5.0, 6.0])]
    rows = rows * 20
    found = codec.decode(batch_of(*rows))
    assert found["a"].tolist() == [7, -1, 9] * 20
    assert found["c"].tolist() == [[1, 2], [3, 4], [5, 6]] * 20


def test_features_that_are_not_named_are_skipped_and_records_need_not_begin_the_data() -> None:
    rows = [record(a=i, b=b"x" * (i % 300), c=[float(i)] * (i % 5), d=[b"p", b"q"]) for i in range(400)]
    whole = batch_of(b"garbage", *rows, b"garbage")
    part = RecordBatch(whole.data, whole.offsets[1:-1])
    found = TFExample({"a": "int32"}).decode(part)
    assert list(found) == ["a"]
    assert found["a"].tolist() == list(range(400))


# Defaults.


def test_missing_features_and_those_without_a_value_become_their_defaults() -> None:
    codec = TFExample(
        {"a": ("int8", 2), "r": Ragged("uint8", max_length=4, pad_value=9), "p": PAIR, "b": "int32"},
        default={"a": [1, 2], "r": [3], "p": Pair(np.array([4, 5]), 6)},
    )
    rows = [record(b=1), record(b=2, a=[7, 8], r=[1, 2], p=b"\x07\x08\x09"), record(b=3, a=None, r=None, p=None)]
    found = codec.decode(batch_of(*rows))
    check_batch(found, codec.element_spec(), 3)
    assert found["a"].tolist() == [[1, 2], [7, 8], [1, 2]]
    assert found["r"]["values"].tolist() == [[3, 9, 9, 9], [1, 2, 9, 9], [3, 9, 9, 9]]
    assert found["r"]["length"].tolist() == [1, 2, 1]
    assert found["p"].first.tolist() == [[4, 5], [7, 8], [4, 5]]
    assert found["p"].second.tolist() == [6, 9, 6]


def test_an_empty_list_is_a_value_and_no_default_stands_for_it() -> None:
    codec = TFExample({"r": Ragged("int32", max_length=2), "n": ("float32", 0)}, default={"r": [1]})
    empty = entry(b"n", nested(0x12, b"")) + entry(b"r", nested(0x1A, b""))
    found = codec.decode(batch_of(nested(0x0A, empty), nested(0x0A, empty)))
    assert found["r"]["length"].tolist() == [0, 0]
    assert found["n"].shape == (2, 0)


def test_what_is_given_for_several_rows_is_no_memory_of_the_codec() -> None:
    codec = TFExample({"a": ("int32", 2)}, default={"a": [1, 2]})
    codec.decode(batch_of(b"", b""))["a"][:] = 0
    assert codec.decode(batch_of(b""))["a"].tolist() == [[1, 2]]


# As a value.


def test_it_is_a_frozen_hashable_value_that_can_be_pickled_and_replaced() -> None:
    codecs = [EVERY, TFExample({"a": "int32", "p": PAIR}, default={"a": 3, "p": Pair(np.array([1, 2]), 0)})]
    for codec in codecs:
        assert isinstance(codec, Codec)
        for copy in (pickle.loads(pickle.dumps(codec)), dataclasses.replace(codec)):
            assert copy == codec
            assert hash(copy) == hash(codec)
            assert repr(copy) == repr(codec)
        with pytest.raises(dataclasses.FrozenInstanceError):
            codec.features = ()  # type: ignore[misc]


def test_order_and_form_of_specs_do_not_count_and_defaults_do() -> None:
    one = TFExample({"a": "int32", "b": ("float32", 2)}, default={"a": 1})
    assert one == TFExample({"b": jax.ShapeDtypeStruct((2,), "float32"), "a": np.int32}, {"a": np.int64(1)})
    different = [
        one,
        TFExample({"a": "int32", "b": ("float32", 2)}),
        TFExample({"a": "int32", "b": ("float32", 2)}, default={"a": 2}),
        TFExample({"a": "int32", "b": ("float32", 2)}, default={"b": [1, np.nan]}),
        TFExample({"a": "int32", "b": ("float32", 3)}),
        TFExample({"a": "int32", "b": Ragged("float32", max_length=2)}),
    ]
    assert len(set(different)) == len(different)
    again = TFExample({"a": "int32", "b": ("float32", 2)}, default={"b": [1, np.nan]})
    assert again == different[3]


def test_its_repr_is_short() -> None:
    codec = TFExample({"b": ("float32", 2), "a": "int32", "r": Ragged("int8", max_length=3)}, default={"a": 1})
    text = "{'a': 'int32', 'b': ('float32', (2,)), 'r': Ragged(dtype=dtype('int8'), max_length=3)}"
    assert repr(codec) == f"TFExample({text}, default={{'a': int32[]}})"


def test_codecs_of_features_are_resolved_by_the_first_record() -> None:
    codec = TFExample({"blob": Bytes(), "more": Bytes()}, default={"blob": np.zeros(3, np.uint8)})
    resolved = codec.resolve(record(blob=b"abc", more=b"de"))
    assert resolved.features == (("blob", Bytes(3)), ("more", Bytes(2)))
    assert resolved.default[0][0] == "blob"
    with pytest.raises(RecordError, match="'blob' is missing, and nothing else says"):
        codec.resolve(record(more=b"de"))
    with pytest.raises(ArsrcValueError, match=r"'blob'.*another shape"):
        codec.resolve(record(blob=b"abcd", more=b"de"))


def test_it_is_read_from_files_and_cached_by_what_it_holds(tmp_path: Any) -> None:
    path = str(tmp_path / "examples.array_record")
    want = elements(12)
    del want["ids"]  # of 64 bits
    codec = TFExample({name: spec for name, spec in EVERY.features if name != "ids"}, default={"half": [0, 1]})
    arsrc.write_array_record(path, want, codec=codec)
    read = arsrc.ReadOptions(cache_bytes=0, cache_dir=str(tmp_path / "cache"))
    config = arsrc.ArrayRecordSourceConfig(path, batch_size=4, codec=codec, cacheable=True, read=read, num_epochs=2)
    batches = [batch.data for _, batch in arsrc.iterate(config)]
    assert len(batches) == 6
    np.testing.assert_array_equal(np.concatenate([b["label"] for b in batches[:3]]), want["label"])
    np.testing.assert_array_equal(np.concatenate([b["image"] for b in batches[3:]]), want["image"])
    arsrc.close(config)


# Against protobuf, record by record.


def slow_value(spec: Any, feature: Any) -> Any:
    """What a feature holds by a spec, in the obvious way; ValueError if it does not fit."""
    kind = feature.WhichOneof("kind")
    values = list(getattr(feature, kind).value)
    codec = None if isinstance(spec, tuple) else spec
    if kind == "bytes_list":
        if len(values) != 1:
            raise ValueError("not one value")
        if codec is not None:
            return jax.tree.map(lambda leaf: leaf[0], codec.decode(batch_of(values[0])))
        dtype, shape = spec
        stored = "uint8" if dtype == np.bool_ else dtype.newbyteorder("<")
        return np.frombuffer(values[0], stored).astype(dtype).reshape(shape)
    if codec is not None and not isinstance(codec, Ragged):
        raise ValueError("no bytes")
    dtype, shape = (codec.dtype, (len(values),)) if codec is not None else spec
    if (kind == "float_list") != (dtype.kind == "f"):
        raise ValueError("another kind")
    if kind == "int64_list":
        array = np.array([dtype.type(value) if dtype != np.bool_ else _bool(value) for value in values], dtype)
        if any(int(one) != value for one, value in zip(array.tolist(), values, strict=True)):
            raise ValueError("does not fit")
    else:
        with np.errstate(over="ignore"):
            array = np.array(values, np.float32).astype(dtype)
        if (np.isfinite(np.array(values)) & ~np.isfinite(array)).any():
            raise ValueError("does not fit")
    if codec is None:
        return array.reshape(shape)
    raw = array.astype(array.dtype.newbyteorder("<")).tobytes()
    return jax.tree.map(lambda leaf: leaf[0], codec.decode(batch_of(raw)))


def _bool(value: int) -> bool:
    if value not in (0, 1):
        raise ValueError("does not fit")
    return bool(value)


def slow_element(codec: TFExample, content: bytes) -> Any:
    """The element of one record by protobuf, None if there is none."""
    defaults = dict(codec.default or ())
    try:
        features = Example.FromString(content).features.feature
        found = {}
        for name, spec in codec.features:
            if name in features and features[name].WhichOneof("kind"):
                found[name] = slow_value(spec, features[name])
            elif isinstance(spec, Ragged):
                items = defaults[name]
                found[name] = jax.tree.map(lambda leaf: leaf[0], spec.decode(batch_of(items.tobytes())))
            else:
                found[name] = defaults[name]
    except Exception:
        return None
    return found


NAMES = ["a", "b", "c", "é", "longer name"]
SPECS = st.sampled_from(
    [
        "int32", "uint8", "bool", "float32", "float16", "uint64",
        ("int64", 2), ("float32", 2), ("uint8", 3), ("int8", 0),
        Ragged("int16", max_length=3), Ragged("float32", max_length=3, overflow="truncate"), Ragged(max_length=2),
        Bytes(3), Struct({"x": "uint8", "y": "int16"}),
    ]
)  # fmt: skip
INTEGERS = st.one_of(st.integers(0, 200), st.integers(-(2**63), 2**63 - 1))
VALUES = st.one_of(
    st.lists(INTEGERS, max_size=4).map(lambda v: ("int64_list", v)),
    st.lists(st.floats(width=32), max_size=4).map(lambda v: ("float_list", v)),
    st.lists(st.binary(max_size=4), min_size=1, max_size=1).map(lambda v: ("bytes_list", v)),
    st.lists(st.binary(max_size=4), max_size=3).map(lambda v: ("bytes_list", v)),
    st.just(None),
)


def numbers(kind: str, values: list[Any], form: str) -> bytes:
    """A list in a form: packed, not packed, or in several pieces."""
    pack = (lambda v: varint(v & 2**64 - 1)) if kind == "int64_list" else (lambda v: struct.pack("<f", v))
    if kind == "bytes_list":
        return b"".join(nested(0x0A, value) for value in values)
    if form == "unpacked":
        tag = b"\x08" if kind == "int64_list" else b"\x0d"
        return b"".join(tag + pack(value) for value in values)
    pieces = [values[:1], values[1:]] if form == "pieces" else [values] * bool(values)
    return b"".join(nested(0x0A, b"".join(map(pack, piece))) for piece in pieces)


@st.composite
def records(draw: Any) -> bytes:
    """Records in any form: in any order, with keys that come twice, unknown fields, damage."""
    entries = []
    for name in draw(st.lists(st.sampled_from(NAMES), max_size=5)):
        value = draw(VALUES)
        if value is None:
            feature = b""
        else:
            kind, values = value
            form = draw(st.sampled_from(["packed", "packed", "packed", "unpacked", "pieces"]))
            tag = {"bytes_list": 0x0A, "float_list": 0x12, "int64_list": 0x1A}[kind]
            feature = nested(tag, numbers(kind, values, form))
        odd = draw(st.sampled_from(["", "", "", "", "twice", "unknown", "group"]))
        feature += {"": b"", "twice": feature, "unknown": b"\x20\x07", "group": b"\x23\x24"}[odd]
        entries.append(entry(name.encode(), feature))
    content = nested(0x0A, b"".join(entries))
    how = draw(st.sampled_from(["", "", "", "", "flip", "cut", "insert", "append", "merge"]))
    at = draw(st.integers(0, len(content)))
    if how == "flip" and at < len(content):
        content = content[:at] + bytes((content[at] ^ 1 << draw(st.integers(0, 7)),)) + content[at + 1 :]
    if how == "cut":
        content = content[:at]
    if how == "insert":
        content = content[:at] + draw(st.binary(min_size=1, max_size=2)) + content[at:]
    if how == "append":
        content += draw(st.sampled_from([b"\x10\x01", b"\x0a\x00", b"\x12\x01x", b"\x0b\x0c", b"\x00"]))
    if how == "merge":
        content += nested(0x0A, entry(b"a", nested(0x1A, nested(0x0A, b"\x07"))))
    return content


def zeros_of(codec: Any) -> Any:
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), codec.element_spec())


@st.composite
def codecs(draw: Any) -> TFExample:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True))
    bare = TFExample({name: draw(SPECS) for name in names})
    defaults = {}
    for name, spec in bare.features:
        if isinstance(spec, Ragged):
            defaults[name] = np.ones(1, spec.dtype)
        else:
            defaults[name] = zeros_of(spec) if not isinstance(spec, tuple) else np.zeros(spec[1], spec[0])
    return dataclasses.replace(bare, default=defaults)


def check_like_protobuf(codec: TFExample, rows: list[bytes]) -> None:
    """Check that a batch is what its records are one by one, or an error of a record that has no element."""
    wanted = [slow_element(codec, content) for content in rows]
    if any(want is None for want in wanted):
        with pytest.raises(RecordError) as caught:
            codec.decode(batch_of(*rows))
        assert wanted[caught.value.row] is None
    good = [row for row, want in enumerate(wanted) if want is not None]
    found = codec.decode(batch_of(*(rows[row] for row in good)))
    for at, row in enumerate(good):
        assert_same(jax.tree.map(lambda leaf, at=at: leaf[at], found), wanted[row])


@given(codecs(), st.lists(records(), min_size=1, max_size=6), st.integers(1, 12))
def test_any_records_are_what_protobuf_says_they_are(codec: TFExample, found: list[bytes], times: int) -> None:
    check_like_protobuf(codec, found * times)


@given(st.lists(records(), min_size=1, max_size=20))
def test_what_is_walked_through_is_what_protobuf_takes(found: list[bytes]) -> None:
    rows = batch_of(*found)
    is_fine, spans = find_spans(rows.data, rows.offsets, {name.encode(): i for i, name in enumerate(NAMES)})
    for row in np.flatnonzero(is_fine):
        features = Example.FromString(found[row]).features.feature
        for name, span in zip(NAMES, spans, strict=True):
            kind = features[name].WhichOneof("kind") if name in features else None
            assert (span.kinds[row] in (ABSENT, UNSET)) == (kind is None)


def damaged(whole: bytes) -> list[bytes]:
    """A record cut at each place, and with each bit flipped."""
    cuts = [whole[:end] for end in range(len(whole))]
    flips = [
        whole[:at] + bytes((whole[at] ^ 1 << bit,)) + whole[at + 1 :] for at in range(len(whole)) for bit in range(8)
    ]
    return cuts + flips


def test_a_record_with_any_one_bit_flipped_or_cut_anywhere_is_what_protobuf_says_it_is() -> None:
    whole = record(a=[1, -2, 300], b=[1.5], c=b"abc", d=[b"x", b"yz"], e=None)
    codec = TFExample(
        {"a": Ragged("int64", max_length=9), "b": "float32", "c": Bytes(3)},
        default={"a": [5], "b": 0, "c": np.zeros(3, np.uint8)},
    )
    check_like_protobuf(codec, [whole, *damaged(whole)])


def test_lengths_that_claim_more_than_the_record_has_are_errors_before_anything_is_made_of_them() -> None:
    codec = TFExample({"a": Ragged("int64", max_length=9)})
    for claim in (2**31 - 1, 2**40, 2**60, 2**64 - 1):
        payload = b"\x0a" + varint(claim) + b"\x01"
        for content in (
            entry(b"a", nested(0x1A, payload)),
            b"\x0a" + varint(claim),
            nested(0x0A, b"\x0a" + varint(claim)),
        ):
            with pytest.raises(RecordError, match=r"row 0: the record is no tf\.train\.Example"):
                codec.decode(batch_of(nested(0x0A, content)))


@pytest.mark.parametrize("first", [b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\0\0\0\0WEBP"])
def test_where_bytes_are_those_of_a_picture_the_codec_for_them_is_named(first: bytes) -> None:
    picture, pixels = first + bytes(884), bytes(768)
    for codec, encoded in (
        (TFExample({"a": ("uint8", (16, 16, 3))}), lambda a: record(a=a)),
        (MsgPack({"a": ("uint8", (16, 16, 3))}), lambda a: msgspec.msgpack.encode({"a": a})),
    ):
        with pytest.raises(RecordError, match=r"row 1: .* 768 as uint8.* picture: decode them with Image\("):
            codec.decode(batch_of(encoded(pixels), encoded(picture)))
        with pytest.raises(RecordError, match=r"row 0: .* 768 as uint8") as caught:
            codec.decode(batch_of(encoded(pixels[:-1])))
        assert "Image(" not in str(caught.value)


def test_of_what_stands_in_place_of_a_missing_feature_the_names_most_like_it_are_said() -> None:
    names = {f"x{i}": i for i in range(20)} | {"label": 1}
    with pytest.raises(RecordError, match=r"'Label' is missing\. The record has 'label', 'x.* and 15 more\. Where"):
        TFExample({"Label": "int32"}).decode(batch_of(record(**names)))
    with pytest.raises(RecordError, match=r"'Image' is missing, .* The record has 'image'\."):
        TFExample({"Image": Bytes()}).resolve(record(image=b"x" * 300))
    assert feature_names(nested(0x12, b"x") + nested(0x0A, entry(b"a", b"") + entry(b"b", b""))) == ["a", "b"]


@given(st.binary(max_size=60))
def test_names_are_looked_for_in_any_bytes(content: bytes) -> None:
    assert all(isinstance(name, str) for name in feature_names(content))


def test_a_record_of_very_many_features_takes_no_memory_for_each() -> None:
    content = nested(0x0A, b"".join(entry(b"%d" % i, nested(0x1A, b"")) for i in range(5000)))
    rows = batch_of(*[content] * 50)
    is_fine, _ = find_spans(rows.data, rows.offsets, {})
    assert not is_fine.any()
    with pytest.raises(RecordError, match="'a' is missing"):
        TFExample({"a": "int32"}).decode(batch_of(content))


@pytest.mark.parametrize("num_bytes", [11, 16_380, 16_384, 16_390, 40_000, 2_000_000])
def test_an_integer_that_never_ends_is_an_error_of_its_record_alone(num_bytes: int) -> None:
    numbers = [2**40, 1, 300] * 4000
    good = record(numbers=numbers)
    start = b"".join(map(varint, numbers[:100]))
    bad = nested(0x0A, entry(b"numbers", nested(0x1A, nested(0x0A, start + b"\xff" * num_bytes + b"\1"))))
    codec = TFExample({"numbers": Ragged("int64", max_length=12_000)})
    with pytest.raises(RecordError, match=r"row 1: the record is no tf\.train\.Example"):
        codec.decode(batch_of(good, bad, good))
    assert codec.decode(batch_of(good, good))["numbers"]["values"].tolist() == [numbers] * 2


@pytest.mark.parametrize("num_records", range(1, 7))
def test_few_records_of_many_features_in_any_order_are_read_beside_any_others(num_records: int) -> None:
    """Records that are of no form that others have are understood one by one, however few there are."""
    rng = np.random.default_rng(num_records)
    names = [f"f{number:02}" for number in range(40)]
    entries = [entry(name.encode(), nested(0x1A, nested(0x0A, b"\1"))) for name in names]
    others = [entry(b"x%d" % number, b"") for number in range(20)]
    mixed = [nested(0x0A, b"".join(rng.permutation(entries).tolist())) for _ in range(num_records)]
    odd = [nested(0x0A, b"".join(some)) for some in (others, entries[:1])]
    codec = TFExample(dict.fromkeys(names, "int64"), default=dict.fromkeys(names, -1))
    for rows in (mixed, [*mixed, *odd[:1]], [*odd, *mixed]):
        found = codec.decode(batch_of(*rows))
        for row, content in enumerate(rows):
            alone = codec.decode(batch_of(content))
            assert all(found[name][row] == alone[name][0] for name in names)
    assert find_spans(*packed(mixed), {name.encode(): i for i, name in enumerate(names)}, one_by_one=True)[0].all()


def packed(rows: list[bytes]) -> tuple[Any, Any]:
    return batch_of(*rows).data, batch_of(*rows).offsets


# What records are walked through at once.


def is_walked(rows: list[bytes]) -> bool:
    batch = batch_of(*rows)
    return bool(find_spans(batch.data, batch.offsets, {b"image": 0})[0].all())


@pytest.mark.parametrize("low", [0, 100, 16_000])
def test_records_as_writers_write_them_are_walked_through_whatever_their_lengths(low: int) -> None:
    rows = [
        record(
            image=b"x" * (low + i % 400),
            label=i * i,
            name=b"n" * (i % 200),
            box=[1.0] * (i % 4),
            ids=[-i] * (1 + i % 3),
            tags=[b"t" * (i % 9)] * (1 + i % 4),
        )
        for i in range(300)
    ]
    assert is_walked(rows)


def test_the_order_of_features_may_differ_from_record_to_record() -> None:
    rng = np.random.default_rng(0)
    entries = [
        entry(b"image", nested(0x0A, nested(0x0A, b"abc"))),
        entry(b"b", b""),
        entry(b"c", nested(0x1A, b"\x0a\x01\x07")),
    ]
    assert is_walked([nested(0x0A, b"".join(entries[i] for i in rng.permutation(3))) for _ in range(400)])


@pytest.mark.parametrize("stem", ["k", "a name that is long, and of which the last bytes differ ", "x" * 140])
def test_many_features_in_random_order_are_walked_through_key_by_key(stem: str) -> None:
    rng = np.random.default_rng(0)
    names = [f"{stem}{i}" for i in range(40)]
    held = rng.random((100, 40)) < 0.9
    values = rng.integers(0, 2**40, (100, 40)) >> rng.integers(0, 40, (100, 40))
    rows = [
        nested(0x0A, b"".join(entry(names[i].encode(), nested(0x1A, nested(0x0A, varint(int(values[row, i])))))
                              for i in rng.permutation(40) if held[row, i]))
        for row in range(100)
    ]  # fmt: skip
    data = batch_of(*rows)
    numbers = {name.encode(): i for i, name in enumerate(names)}
    is_fine, spans = find_spans(data.data, data.offsets, numbers)
    assert is_fine.all()
    assert (np.stack([span.kinds != ABSENT for span in spans], axis=1) == held).all()
    found = TFExample(dict.fromkeys(names, "int64"), dict.fromkeys(names, -1)).decode(batch_of(*rows, b"", *rows, b""))
    want = np.where(held, values, -1)
    for i, name in enumerate(names):
        assert found[name].tolist() == [*want[:, i].tolist(), -1] * 2


def test_a_key_that_comes_twice_is_the_last_one_whatever_the_order() -> None:
    one, two, other = (
        entry(key, nested(0x1A, b"\x0a\x01" + value)) for key, value in ((b"a", b"\1"), (b"a", b"\2"), (b"b", b"\3"))
    )
    longer = nested(
        0x0A, b"\x0a\x81\x00a" + nested(0x12, nested(0x1A, b"\x0a\x01\x04"))
    )  # by a byte of the key's length
    orders = [
        one + other,
        other + two,
        one + other + two,
        two + other + one,
        one + other + longer,
        longer + one + other,
    ]
    rows = [nested(0x0A, content) for content in orders * 9]
    assert TFExample({"a": "int32", "b": "int32"}).decode(batch_of(*rows))["a"].tolist() == [1, 2, 2, 1, 4, 1] * 9


@pytest.mark.parametrize("num", [1, 2, 4, 8, 16, 64])
def test_no_record_needs_protobuf_for_the_records_beside_it(num: int, monkeypatch: pytest.MonkeyPatch) -> None:
    names = "abcdefgh"
    rows = [
        nested(0x0A, b"".join(entry(name.encode(), nested(0x1A, nested(0x0A, varint(row)))) for name in order))
        for row, order in enumerate(itertools.islice(itertools.permutations(names), 0, 600 * num, 600))
    ]
    monkeypatch.setattr("arsrc.codecs.example_codec.usual_form", None)
    found = TFExample(dict.fromkeys(names, "int64")).decode(batch_of(*rows))
    for name in names:
        np.testing.assert_array_equal(found[name], np.arange(num))


def test_without_protobuf_usual_records_are_read_and_others_are_an_error_that_says_what_to_install() -> None:
    code = """
import sys
sys.modules["google.protobuf"] = None
import numpy as np
from arsrc.codecs import RecordBatch, TFExample
codec = TFExample({"a": "int32"})
rows = codec.encode({"a": np.arange(3)})
assert codec.decode(rows)["a"].tolist() == [0, 1, 2]
unpacked = b"\\n\\r\\n\\x0b\\n\\x01a\\x12\\x06\\x1a\\x04\\x08\\x07\\x08\\x07"
try:
    codec.decode(RecordBatch.from_records([rows[0], unpacked]))
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    what = "a record is no tf.train.Example in the usual form, and protobuf, which reads any, is not installed"
    assert done.stdout.strip() == f"ArsrcValueError [arsrc] TFExample: {what}. Run: pip install 'arsrc[formats]'."


def test_codecs_of_features_are_stopped_as_the_records_are() -> None:
    records = TFExample({"pair": PAIR}).encode({"pair": elements(3)["pair"]})
    asked: list[bool] = []

    def stop() -> bool:
        asked.append(True)
        return False

    TFExample({"pair": PAIR}).decode(Stoppable(records.data, records.offsets, stop))
    assert len(asked) == 3


# Varints.


@given(
    st.lists(st.lists(st.one_of(INTEGERS, st.integers(0, 2**40)), max_size=5), min_size=1, max_size=9),
    st.integers(1, 99),
)
def test_varints_are_read_as_they_are_written(lists: list[list[int]], times: int) -> None:
    lists = lists * times
    values = np.array([value for one in lists for value in one], np.int64)
    content, widths = packed_varints(values)
    assert content.tobytes() == b"".join(varint(int(value) & 2**64 - 1) for value in values)
    counts = np.array([len(one) for one in lists])
    ends = np.concatenate(([0], np.cumsum(widths)))[np.cumsum(counts)]
    begins = np.concatenate(([0], ends[:-1]))
    data = np.concatenate((content, np.zeros(1, np.uint8)))
    assert are_whole(data, begins, ends - begins).all()
    found, parts = varint_values(data, begins, ends - begins)
    assert found.tolist() == counts.tolist()
    assert [int(value) for part in parts for value in part] == values.tolist()


@pytest.mark.parametrize("num_bits", [7, 8, 14, 15, 21, 22, 28, 29, 35, 56, 57, 64])
def test_varints_of_any_width_are_read_in_lists_of_many_thousands(num_bits: int) -> None:
    values = np.random.default_rng(0).integers(0, 2**num_bits, 10_000, np.uint64).view(np.int64)
    values >>= np.arange(10_000) % 3
    rows = [record(a=values[:7001].tolist()), record(), record(a=values[7001:].tolist())]
    found = TFExample({"a": Ragged("int64", max_length=7001)}, {"a": []}).decode(batch_of(*rows))["a"]["values"]
    assert np.concatenate((found[0], found[2][:2999])).tolist() == values.tolist()


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=4),
            st.sampled_from([b"\xff" * n + b"\x01" for n in range(8, 12)] + [b"\xff" * 9 + b"\x02"]),
        ),
        min_size=1,
        max_size=9,
    )
)
def test_pieces_that_are_no_whole_varints_are_found(found: list[bytes]) -> None:
    batch = batch_of(*found, b"\x00")
    whole = are_whole(batch.data, batch.offsets[:-2], batch.lengths[:-1])
    for content, is_whole in zip(found, whole, strict=True):
        try:
            Example.FromString(nested(0x0A, entry(b"a", nested(0x1A, nested(0x0A, content)))))
        except Exception:
            assert not is_whole
        else:
            # What follows one that is not whole may count as its rest.
            assert is_whole or not whole.all()


# Errors.


@pytest.mark.parametrize(
    ("make", "kind", "texts"),
    [
        (lambda: TFExample({}), ArsrcValueError, ("TFExample.features", "is empty")),
        (
            lambda: TFExample(3),
            ArsrcTypeError,
            ("TFExample.features", "must be a mapping", "fields=3", "For example"),
        ),
        (lambda: TFExample({"": "int32"}), ArsrcTypeError, ("non-empty strings", "name=''")),
        (lambda: TFExample({3: "int32"}), ArsrcTypeError, ("non-empty strings", "name=3")),
        (lambda: TFExample({"\ud800": "int32"}), ArsrcValueError, ("a name cannot be written as UTF-8",)),
        (lambda: TFExample((("a", "int32"), ("a", "int8"))), ArsrcValueError, ("a name comes twice", "('a', 'int8')")),
        (lambda: TFExample({"a": "text"}), ArsrcTypeError, ("TFExample field 'a'", "no dtype")),
        (lambda: TFExample({"a": 3}), ArsrcTypeError, ("TFExample field 'a'", "no array spec")),
        (lambda: TFExample({"a": Bytes}), ArsrcTypeError, ("TFExample field 'a'",)),
        (
            lambda: TFExample({"a": type("Odd", (Bytes,), {"__hash__": None})()}),
            ArsrcTypeError,
            ("TFExample field 'a'", "hashable"),
        ),
        (lambda: TFExample({"a": "int8"}, {"b": 1}), ArsrcValueError, ("TFExample.default", "no feature", "['b']")),
        (lambda: TFExample({"a": "int8"}, 3), ArsrcTypeError, ("TFExample.default", "must be a mapping", "fields=3")),
        (lambda: TFExample({"a": "int8"}, {"a": 300}), ArsrcValueError, ("TFExample.default 'a'", "300", "int8")),
        (lambda: TFExample({"a": "int8"}, {"a": [1]}), ArsrcValueError, ("TFExample.default 'a'", "another shape")),
        (
            lambda: TFExample({"a": PAIR}, {"a": Pair([1, 2], 0)}),
            ArsrcValueError,
            ("TFExample.default 'a'", "leaf .first of the spec is missing"),
        ),
        (lambda: TFExample({"a": "int8"}, {"a": 0.5}), ArsrcTypeError, ("TFExample.default 'a'", "another kind")),
        (
            lambda: TFExample({"a": Ragged("int8", max_length=2)}, {"a": [1, 2, 3]}),
            ArsrcValueError,
            ("TFExample.default 'a'", "max_length=2", "num_items=3"),
        ),
        (lambda: TFExample({"a": PAIR}, {"a": 3}), ArsrcValueError, ("TFExample.default 'a'",)),
        (
            lambda: TFExample({"a": PAIR}, {"a": Pair(np.arange(3), 0)}),
            ArsrcValueError,
            ("default 'a' leaf", "another shape"),
        ),
        (lambda: TFExample({"a": "int8"}).encode([1]), ArsrcTypeError, ("TFExample.encode", "mapping", "'list'")),
        (
            lambda: TFExample({"a": "int8"}).encode({"b": 1}),
            ArsrcValueError,
            ("field names differ", "['a']", "['b']"),
        ),
        (
            lambda: TFExample({"a": "int8", "b": "int8"}).encode({"a": np.zeros(2, int), "b": np.zeros(3, int)}),
            ArsrcValueError,
            ("leading axes differ", "lengths={'a': 2, 'b': 3}"),
        ),
        (
            lambda: TFExample({"a": "uint64"}).encode({"a": np.array([2**63], np.uint64)}),
            ArsrcValueError,
            ("TFExample.encode feature 'a'", f"value={2**63}"),
        ),
        (
            lambda: TFExample({"a": "float64"}).encode({"a": np.array([1e300])}),
            ArsrcValueError,
            ("TFExample.encode feature 'a'", "float32", "1e+300"),
        ),
    ],
)
def test_what_cannot_be_meant_is_an_error_at_once(make: Any, kind: type, texts: tuple[str, ...]) -> None:
    with pytest.raises(kind) as caught:
        make()
    for text in texts:
        assert text in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "content", "texts"),
    [
        ("int32", record(b=1), ("feature 'a' is missing. The record has 'b'. Where", "default={'a': ...}.")),
        ("int32", record(a=None), ("feature 'a' is missing. It stands there without a value",)),
        ("int32", record(a=[1, 2]), ("feature 'a': it holds 2 values, not 1 as int32[] takes", "Ragged")),
        ("int32", record(a=1.5), ("feature 'a': it holds floats, which are no int32",)),
        ("float32", record(a=1), ("feature 'a': it holds integers, which are no float32",)),
        ("complex64", record(a=1.5), ("feature 'a': it holds floats, which are no complex64",)),
        ("int32", record(a=2**31), ("feature 'a': it holds 2147483648, which does not fit int32",)),
        ("uint64", record(a=-1), ("feature 'a': it holds -1, which does not fit uint64",)),
        ("bool", record(a=2), ("feature 'a': it holds 2, which does not fit bool",)),
        ("float16", record(a=1e6), ("feature 'a': it holds 1000000.0, which does not fit float16",)),
        ("int32", record(a=b"abc"), ("feature 'a': it holds 3 bytes, not 4 as int32[] takes",)),
        ("int32", record(a=[b"abcd", b"efgh"]), ("feature 'a' holds 2 bytes values, not one",)),
        (Bytes(3), record(a=1), ("feature 'a': it holds integers, where a codec needs bytes",)),
        (Bytes(3), record(a=b"ab"), ("feature 'a': the record has 2 bytes, not 3",)),
        (Ragged("int8", max_length=2), record(a=[1, 2, 3]), ("feature 'a': the record has 3 items", "max_length is 2")),
        (PAIR, record(a=b"a"), ("feature 'a': parse_pair raised IndexError",)),
        ("int32", b"no example", ("the record is no tf.train.Example",)),
    ],
)
def test_a_record_that_does_not_fit_is_an_error_that_names_row_and_feature(
    spec: Any, content: bytes, texts: tuple[str, ...]
) -> None:
    fits = {
        "int32": 1, "float32": 1.0, "complex64": bytes(8), "uint64": 1, "bool": 1, "float16": 1.0, Bytes(3): b"abc",
        Ragged("int8", max_length=2): [1], PAIR: b"abc",
    }[spec]  # fmt: skip
    codec = TFExample({"a": spec})
    good = record(a=fits)
    for rows, bad in (([content], 0), ([good] * 20 + [content] + [good] * 9, 20), ([good, good, content], 2)):
        with pytest.raises(RecordError) as caught:
            codec.decode(batch_of(*rows))
        assert caught.value.row == bad
        for text in (f"row {bad}: ", *texts):
            assert text in str(caught.value)
