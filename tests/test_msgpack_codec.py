"""`MsgPack`: against a packer and a decoder written out by hand, as an inverse of its encoding, and in every error."""

import dataclasses
import json
import math
import pickle
import struct
import subprocess
import sys
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import arsrc
from arsrc._host.records.codec_identity import describe
from arsrc.codecs import Bytes, Codec, Json, Map, MapBatch, MsgPack, Npy, Ragged, RecordBatch, Struct, check_batch
from arsrc.errors import ArsrcTypeError, ArsrcValueError, RecordError

DTYPES = ["bool", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16"]
DTYPES += [ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.int4]


def packed(value: Any) -> bytes:
    """MessagePack by hand, always in its longest form."""
    match value:
        case None:
            return b"\xc0"
        case bool():
            return b"\xc3" if value else b"\xc2"
        case int() if value < 0:
            return b"\xd3" + value.to_bytes(8, "big", signed=True)
        case int():
            return b"\xcf" + value.to_bytes(8, "big")
        case float():
            return b"\xcb" + struct.pack(">d", value)
        case bytes():
            return b"\xc6" + len(value).to_bytes(4, "big") + value
        case str():
            return b"\xdb" + len(value.encode()).to_bytes(4, "big") + value.encode()
        case list():
            return b"\xdd" + len(value).to_bytes(4, "big") + b"".join(map(packed, value))
        case dict():
            pairs = [packed(each) for pair in value.items() for each in pair]
            return b"\xdf" + len(value).to_bytes(4, "big") + b"".join(pairs)
    raise TypeError(value)


def batch_of(*values: Any) -> RecordBatch:
    return RecordBatch.from_records([packed(value) for value in values])


def same_bits(left: Any, right: Any) -> None:
    left, right = np.asarray(left), np.asarray(right)
    assert (left.dtype, left.shape, left.tobytes()) == (right.dtype, right.shape, right.tobytes())


FIELDS = {
    "image": ("uint8", (2, 3)),
    "label": "int32",
    "weight": ("float32", 2),
    "ok": bool,
    "tokens": Ragged("int16", max_length=4, pad_value=-1),
    "point": Struct({"x": "float32", "y": "float32"}),
}
CODEC = MsgPack(FIELDS, default={"label": -1, "tokens": [7, 8]})
POINT = {
    "image": [[1, 2, 3], [4, 5, 6]],
    "label": 3,
    "weight": [0.5, 2],
    "ok": True,
    "tokens": [1, 2, 3],
    "point": struct.pack("<2f", 1.5, -2),
}


# What it decodes.


def test_named_fields_become_arrays_and_others_are_skipped():
    other = {"ignored": {"a": [None, b"x", {"b": 1.5}]}, **POINT, "more": "text"}
    decoded = CODEC.decode(batch_of(other, POINT))
    assert decoded.keys() == FIELDS.keys()
    same_bits(decoded["image"], np.uint8([[[1, 2, 3], [4, 5, 6]]] * 2))
    same_bits(decoded["label"], np.int32([3, 3]))
    same_bits(decoded["weight"], np.float32([[0.5, 2]] * 2))
    same_bits(decoded["ok"], np.array([True, True]))
    same_bits(decoded["tokens"]["values"], np.int16([[1, 2, 3, -1]] * 2))
    same_bits(decoded["tokens"]["length"], np.int32([3, 3]))
    same_bits(decoded["point"]["y"], np.float32([-2, -2]))


def test_rows_may_hold_lists_or_bytes_or_nothing_where_there_is_a_default():
    rows = [POINT, {**POINT, "image": bytes(range(6)), "tokens": struct.pack("<h", -5), "label": b"\2\0\0\0"}]
    rows += [{name: value for name, value in POINT.items() if name not in ("label", "tokens")}]
    decoded = CODEC.decode(batch_of(*rows))
    same_bits(decoded["image"][1], np.arange(6, dtype=np.uint8).reshape(2, 3))
    same_bits(decoded["label"], np.int32([3, 2, -1]))
    same_bits(decoded["tokens"]["values"], np.int16([[1, 2, 3, -1], [-5, -1, -1, -1], [7, 8, -1, -1]]))
    same_bits(decoded["tokens"]["length"], np.int32([3, 1, 2]))


def test_texts_are_their_utf_8_bytes_for_codecs():
    codec = MsgPack({"text": Ragged(max_length=4), "name": Bytes(), "doc": Map(json.loads)}).resolve(
        packed({"text": "é", "name": "ab", "doc": "[1, 2]"})
    )
    decoded = codec.decode(batch_of({"text": "aé", "name": "cd", "doc": "[3, 4]"}))
    same_bits(decoded["text"]["values"], np.uint8([[97, 195, 169, 0]]))
    same_bits(decoded["name"], np.uint8([[99, 100]]))
    assert [leaf.tolist() for leaf in decoded["doc"]] == [[3], [4]]


def slow(values: list[Any], dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray | None:
    """The slow, obvious way: item by item; None where one does not fit."""

    def leaf(value: Any) -> Any:
        kinds = {"b": bool, "i": (bool, int), "u": (bool, int), "f": (bool, int, float)}[dtype.kind]
        if not isinstance(value, kinds):
            raise ValueError
        if dtype.kind in "iu" and not np.iinfo(dtype).min <= value <= np.iinfo(dtype).max:
            raise ValueError
        with np.errstate(over="ignore"):
            found = dtype.type(float(value)) if dtype.kind == "f" else dtype.type(value)
        if dtype.kind == "f" and math.isfinite(value) and not np.isfinite(found):
            raise ValueError
        return found

    def fill(array: np.ndarray, value: Any, shape: tuple[int, ...]) -> None:
        if not shape:
            array[()] = leaf(value)
            return
        if not isinstance(value, list) or len(value) != shape[0]:
            raise ValueError
        for each, part in zip(value, array, strict=True) if len(shape) > 1 else ():
            fill(part, each, shape[1:])
        if len(shape) == 1:
            for i, each in enumerate(value):
                array[i] = leaf(each)

    arrays = np.empty((len(values), *shape), dtype)
    try:
        for row, value in enumerate(values):
            if isinstance(value, bytes):
                if len(value) != arrays[row].nbytes:
                    return None
                raw = np.frombuffer(value, "u1" if dtype.kind == "b" else dtype.newbyteorder("<"))
                arrays[row] = (raw != 0 if dtype.kind == "b" else raw).reshape(shape)
            else:
                fill(arrays[row : row + 1].reshape(shape) if shape else arrays[row : row + 1].reshape(()), value, shape)
    except ValueError:
        return None
    return arrays


LEAVES = st.one_of(
    st.integers(-3, 300),
    st.integers(-(2**63), 2**64 - 1),
    st.booleans(),
    st.floats(),
    st.none(),
    st.text(max_size=2),
    st.binary(max_size=8),
    st.sampled_from([2**63 - 1, 2**63, 2**64 - 1, -(2**63), 2**53 + 1, 1e300, 65520.0, 0.1]),
)
JUNK = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner))


@st.composite
def fields_with_values(draw: Any) -> tuple[np.dtype, tuple[int, ...], list[Any]]:
    """A dtype, a shape, and values that mostly fit."""
    dtype = np.dtype(draw(st.sampled_from(["bool", "i1", "u1", "i2", "i4", "u8", "i8", "f2", "f4", "f8"])))
    shape = draw(st.lists(st.integers(0, 3), max_size=2).map(tuple))
    fitting = {"b": st.booleans(), "f": st.floats(width=16) | st.integers(-9, 9)}.get(dtype.kind, st.integers(0, 127))
    odd = draw(st.booleans())

    def value(sizes: tuple[int, ...]) -> Any:
        if odd and draw(st.integers(0, 9)) == 0:
            return draw(JUNK)
        return [value(sizes[1:]) for _ in range(sizes[0])] if sizes else draw(fitting)

    raw = st.binary(min_size=math.prod(shape) * dtype.itemsize, max_size=math.prod(shape) * dtype.itemsize)
    return (
        dtype,
        shape,
        [draw(raw) if draw(st.integers(0, 3)) == 0 else value(shape) for _ in range(draw(st.integers(1, 4)))],
    )


@given(fields_with_values())
def test_a_field_is_what_a_slow_decoder_makes_of_it_or_the_row_at_fault_is_named(drawn):
    dtype, shape, values = drawn
    codec = MsgPack({"a": (dtype, shape)})
    records = batch_of(*({"x": 1, "a": value} for value in values))
    expected = slow(values, dtype, shape)
    if expected is not None:
        same_bits(codec.decode(records)["a"], expected)
        return
    with pytest.raises(RecordError, match="field 'a' ") as caught:
        codec.decode(records)
    assert caught.value.row == next(row for row, value in enumerate(values) if slow([value], dtype, shape) is None)


@given(st.binary(max_size=40) | JUNK.map(packed) | st.dictionaries(st.sampled_from(list(FIELDS)), JUNK).map(packed))
def test_junk_is_decoded_or_an_error_of_its_record_and_nothing_else(record: bytes):
    records = RecordBatch.from_records([packed(POINT), record])
    row = 1
    try:
        check_batch(CODEC.decode(records), CODEC.element_spec(), 2)
    except RecordError as error:
        row = error.row
    assert row == 1


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"\xc1",
        packed(POINT)[:-1],
        packed(POINT) + b"\0",
        b"\x91" * 100_000,
        b"\x81\xa1x" + b"\x91" * 100_000,
        b"\xdd\xff\xff\xff\xff",
        b"\x81\xa5image\xdd\xff\xff\xff\xff",
        b"\x81\xa5image\xc6\xff\xff\xff\xff",
        b"\x81\xa5image\xa1\xff",
        packed([1, 2]),
        packed(3),
        packed({b"image": 1}),
    ],
)
def test_broken_bytes_and_what_is_no_map_are_errors_that_name_the_row(record: bytes):
    with pytest.raises(RecordError, match=r"row 1: the record is no MsgPack map that can be read \(") as caught:
        CODEC.decode(RecordBatch.from_records([packed(POINT), record]))
    assert caught.value.row == 1


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in POINT.items() if key != name}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (without("image"), r"field 'image' is missing\. The record has .*'label', .*default={'image': \.\.\.}\."),
        (without("point"), r"field 'point' is missing\. The record has .*'label', .*default={'point': \.\.\.}\."),
        (
            {**POINT, "image": [[1, 2, 3]]},
            r"field 'image' holds a list of 1, not a list of 2 in uint8\[2, 3\]\. Lists are",
        ),
        ({**POINT, "image": bytes(5)}, r"field 'image' holds 5 bytes, not 6 as uint8\[2, 3\] takes\. Bytes for"),
        (
            {**POINT, "image": [[1, 2, 3], [4, 5, 256]]},
            "field 'image' holds 256, which does not fit uint8. Choose a wider",
        ),
        ({**POINT, "label": 2.0}, "field 'label' holds the float 2.0, not a number of int32. Choose a dtype"),
        (
            {**POINT, "image": None},
            "field 'image' holds null, not a list of 2 in .* be null, .* default={'image': ...}.",
        ),
        ({**POINT, "label": "3"}, "field 'label' holds a text of 1, not a number of int32. Texts are read"),
        ({**POINT, "label": 2**64 - 1}, f"field 'label' holds {2**64 - 1}, which does not fit int32"),
        ({**POINT, "weight": [1.0, 1e39]}, r"field 'weight' holds 1e\+39, which does not fit float32"),
        ({**POINT, "ok": 1}, "field 'ok' holds the integer 1, not a bool. Choose"),
        ({**POINT, "tokens": [1, 2**15]}, "field 'tokens' holds 32768, which does not fit int16"),
        ({**POINT, "tokens": "ab"}, "field 'tokens' holds a text of 2, not bytes or a list for Ragged"),
        ({**POINT, "tokens": [0] * 5}, "field 'tokens': the record has 5 items, max_length is 4. Raise"),
        ({**POINT, "tokens": b"abc"}, "field 'tokens': the record has 3 bytes, no whole number of int16 items"),
        ({**POINT, "point": [1.0, 2.0]}, "field 'point' holds a list of 2, not bytes or a text for Struct"),
        ({**POINT, "point": b"abc"}, "field 'point': the record has 3 bytes, not 8 as the fields take"),
    ],
)
def test_a_value_that_does_not_fit_is_an_error_that_names_row_and_field(row: Any, said: str):
    with pytest.raises(RecordError, match=rf"row 2: {said}") as caught:
        CODEC.decode(batch_of(POINT, POINT, row, POINT))
    assert caught.value.row == 2


def test_a_first_record_that_does_not_fit_is_an_error_that_names_the_field_once():
    for row, said in (
        (without("point"), "field 'point' is missing"),
        ({**POINT, "point": b""}, "field 'point': the rec"),
    ):
        with pytest.raises(RecordError) as caught:
            CODEC.resolve(packed(row))
        assert caught.value.what.startswith(said)
        assert caught.value.what.count("field") == 1 or "fields take" in caught.value.what


def test_extension_types_are_no_arrays():
    flax_array = b"\x81\xa5label\xc7\x05\x01abcde"
    with pytest.raises(RecordError, match="field 'label' holds Ext"):
        MsgPack({"label": "int32"}).decode(RecordBatch.from_records([flax_array]))


# Codecs of fields.


def halves(record: bytes) -> Any:
    if record == b"bad":
        raise LookupError("no halves")
    return {"half": np.float32(len(record) / 2)}


def lengths(records: RecordBatch) -> Any:
    return records.lengths


def test_codecs_of_fields_are_resolved_by_the_first_record_and_their_errors_name_the_field():
    codec = MsgPack({"a": Map(halves), "b": MapBatch(lengths), "c": Npy(), "d": Bytes()})
    npy = next(iter(Npy().encode(np.int16([[1, 2]]))))
    first = {"a": b"four", "b": b"xyz", "c": npy, "d": "ab"}
    resolved = codec.resolve(packed(first))
    assert resolved.element_spec() == {
        "a": {"half": jax.ShapeDtypeStruct((), np.float32)},
        "b": jax.ShapeDtypeStruct((), np.int64),
        "c": jax.ShapeDtypeStruct((2,), np.int16),
        "d": jax.ShapeDtypeStruct((2,), np.uint8),
    }
    decoded = resolved.decode(batch_of(first, {**first, "a": b"x"}))
    same_bits(decoded["a"]["half"], np.float32([2, 0.5]))
    with pytest.raises(RecordError, match="row 1: field 'a': halves raised LookupError: no halves"):
        resolved.decode(batch_of(first, {**first, "a": b"bad"}))


HALF = Map(halves, {"half": "float32"})
SCORES = MsgPack({"a": HALF, "b": "int32", "t": Ragged("u1", max_length=4)}, {"a": {"half": -1.0}, "b": 9, "t": "ab"})


def test_an_element_stands_for_what_a_record_has_not_and_errors_name_the_right_row():
    rows = [{}, {"a": b"x", "b": 1}, {"t": b""}, {"a": b"four"}]
    decoded = SCORES.decode(batch_of(*rows))
    same_bits(decoded["a"]["half"], np.float32([-1, 0.5, -1, 2]))
    same_bits(decoded["b"], np.int32([9, 1, 9, 9]))
    same_bits(decoded["t"]["values"], np.uint8([[97, 98, 0, 0], [97, 98, 0, 0], [0] * 4, [97, 98, 0, 0]]))
    same_bits(SCORES.decode(batch_of({}))["a"]["half"], np.float32([-1]))
    for name, wrong in (("a", b"bad"), ("b", "no"), ("t", b"12345")):
        with pytest.raises(RecordError, match=f"field '{name}'") as caught:
            SCORES.decode(batch_of(*rows, {name: wrong}, {}))
        assert caught.value.row == 4


def test_a_codec_that_has_to_be_resolved_needs_a_value_in_the_first_record_in_spite_of_a_default():
    unresolved = MsgPack({"a": Map(halves)}, {"a": {"half": np.float32(-1)}})
    resolved = unresolved.resolve(packed({"a": b"ab"}))
    assert resolved == MsgPack({"a": HALF}, {"a": {"half": np.float32(-1)}})
    same_bits(resolved.decode(batch_of({}, {"a": b"ab"}))["a"]["half"], np.float32([-1, 1]))
    with pytest.raises(
        RecordError, match=r"row 0: field 'a' is missing, from which Map takes what is not given\. Give"
    ):
        unresolved.resolve(packed({}))
    with pytest.raises(ArsrcValueError, match=r"MsgPack\.default 'a' leaf \['half'\]: has another shape"):
        MsgPack({"a": Map(halves)}, {"a": {"half": np.zeros(2, "f4")}}).resolve(packed({"a": b"ab"}))


def test_a_source_reads_it_and_names_the_bad_record(tmp_path, write_records):
    rows = [{**POINT, "label": i} for i in range(8)]
    records = [packed(row) for row in rows]
    records[5] = packed({**POINT, "label": "five"})
    path = write_records(tmp_path / "a", records)
    config = arsrc.ArrayRecordSourceConfig(path, 4, CODEC, num_epochs=1)
    state, batch = jax.jit(arsrc.next_batch, static_argnums=0)(config, arsrc.init(config))
    np.testing.assert_array_equal(batch.data["label"], range(4))
    with pytest.raises(ArsrcValueError, match=r"record 5 .*: field 'label' holds a text of 4") as caught:
        next(arsrc.iterate(config, state))
    assert caught.value.record_id == 5
    arsrc.close(config)


# A value, and an inverse.


def any_codec() -> list[MsgPack]:
    return [
        CODEC,
        MsgPack(FIELDS),
        MsgPack({"label": "int32"}),
        MsgPack({"label": "int32"}, default={"label": 0}),
        MsgPack({"label": "int32"}, default={"label": 1}),
        MsgPack({"label": ("int32", 1)}),
        MsgPack({"a": "float32"}, {"a": math.nan}),
        MsgPack({"b": Bytes(2)}, {"b": np.uint8([1, 2])}),
    ]


def test_it_is_a_frozen_hashable_value():
    codecs = [*any_codec(), Json({"label": "int32"})]
    assert len(set(codecs)) == len(codecs)
    assert codecs[:8] == any_codec()
    assert len({describe(codec) for codec in codecs}) == len(codecs)
    for codec in codecs:
        assert isinstance(codec, Codec)
        for again in (pickle.loads(pickle.dumps(codec)), dataclasses.replace(codec)):
            assert (again, hash(again), repr(again)) == (codec, hash(codec), repr(codec))
            assert describe(again) == describe(codec)
    with pytest.raises(dataclasses.FrozenInstanceError):
        CODEC.fields = {}
    assert repr(codecs[3]) == "MsgPack(fields={'label': 'int32'}, default={'label': int32[]})"
    assert MsgPack({"x": jax.ShapeDtypeStruct((2,), "float32")}) == MsgPack({"x": (np.float32, [2])})


@st.composite
def elements(draw: Any) -> tuple[MsgPack, dict[str, Any]]:
    num_records = draw(st.integers(0, 3))

    def array(dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        size = num_records * math.prod(shape)
        raw = np.frombuffer(draw(st.binary(min_size=size * dtype.itemsize, max_size=size * dtype.itemsize)), np.uint8)
        if dtype == np.bool_:
            raw = raw % 2
        if dtype == np.dtype(ml_dtypes.int4):
            return (raw % 8).astype(dtype).reshape(num_records, *shape)
        return raw.view(dtype).reshape(num_records, *shape)

    fields, values = {}, {}
    for name in draw(
        st.lists(st.text(st.characters(codec="ascii", categories="L"), min_size=1), min_size=1, unique=True)
    ):
        dtype = np.dtype(draw(st.sampled_from(DTYPES)))
        fields[name] = dtype, draw(st.lists(st.integers(0, 3), max_size=2).map(tuple))
        values[name] = array(*fields[name])
    fields["ragged"] = Ragged("int16", max_length=3)
    lengths = draw(st.lists(st.integers(0, 3), min_size=num_records, max_size=num_records))
    kept = np.arange(3) < np.array(lengths, np.int64).reshape(-1, 1)
    padded = np.where(kept, array(np.dtype("int16"), (3,)), np.int16(0))
    values["ragged"] = {"values": padded, "length": np.array(lengths, np.int32)}
    return MsgPack(fields), values


@given(elements())
def test_what_is_encoded_is_decoded_to_the_same(drawn):
    codec, values = drawn
    num_records = len(values["ragged"]["length"])
    decoded = codec.decode(codec.encode(values))
    check_batch(decoded, codec.element_spec(), num_records)
    for name, array in values.items():
        if name == "ragged":
            jax.tree.map(same_bits, decoded[name], array)
        elif array.dtype.kind in "bciu":
            same_bits(decoded[name], array)
        else:  # what a NaN holds beside is not kept
            with np.errstate(invalid="ignore"):
                np.testing.assert_array_equal(decoded[name].astype("f8"), array.astype("f8"))


def test_numbers_are_written_as_numbers_and_arrays_as_bytes():
    codec = MsgPack({"n": "int8", "x": "float16", "a": (">i2", 2), "t": Ragged("uint8", max_length=3)})
    values = {
        "n": np.int8([-1]),
        "x": np.float16([0.5]),
        "a": np.int16([[1, 2]]),
        "t": {"values": np.uint8([[1, 2, 9]]), "length": np.int32([2])},
    }
    [record] = codec.encode(values)
    assert record == b"\x84\xa1a\xc4\x04\1\0\2\0\xa1n\xff\xa1t\xc4\x02\1\2\xa1x\xcb?\xe0\0\0\0\0\0\0"


@pytest.mark.parametrize(
    ("values", "error", "said"),
    [
        (3, ArsrcTypeError, r"MsgPack\.encode: elements must be a mapping of field names to arrays"),
        ({"n": np.zeros(1, int)}, ArsrcValueError, r"MsgPack\.encode: the field names differ"),
        ({"n": np.zeros(1, int), "m": np.zeros(2)}, ArsrcValueError, r"MsgPack\.encode: leading axes differ"),
        ({"n": np.zeros(1), "m": np.zeros(1)}, ArsrcTypeError, r"MsgPack\.encode field 'n': has a dtype of another"),
        ({"n": np.array([300]), "m": np.zeros(1)}, ArsrcValueError, r"field 'n': holds a value that does not fit int8"),
    ],
)
def test_elements_that_do_not_fit_are_not_encoded(values: Any, error: Any, said: str):
    with pytest.raises(error, match=said):
        MsgPack({"n": "int8", "m": "float32"}).encode(values)


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: MsgPack({}), ArsrcValueError, r"MsgPack\.fields: is empty"),
        (lambda: MsgPack("label"), ArsrcTypeError, r"MsgPack\.fields: must be a mapping; .* For example MsgPack\("),
        (lambda: MsgPack({1: "int32"}), ArsrcTypeError, r"MsgPack\.fields: names must be non-empty strings"),
        (lambda: MsgPack((("a", "u1"), ("a", "u1"))), ArsrcValueError, r"MsgPack\.fields: a name comes twice"),
        (lambda: MsgPack({'a"b': "u1"}), ArsrcValueError, r"MsgPack: field names cannot be read"),
        (lambda: MsgPack({"a": "text"}), ArsrcTypeError, r"MsgPack field 'a': is no dtype"),
        (lambda: MsgPack({"a": Ragged}), ArsrcTypeError, r"MsgPack field 'a'"),
        (
            lambda: MsgPack({"a": "u1"}, {"b": 1}),
            ArsrcValueError,
            r"MsgPack\.default: is given for what is no field; got names=\['b'\]",
        ),
        (
            lambda: MsgPack({"a": "u1"}, {"a": 256}),
            ArsrcValueError,
            r"MsgPack\.default 'a': holds a value that does not fit uint8",
        ),
        (
            lambda: MsgPack({"a": "u1"}, {"a": None}),
            ArsrcTypeError,
            r"MsgPack\.default 'a': has a dtype of another kind",
        ),
        (lambda: MsgPack({"a": "u1"}, 3), ArsrcTypeError, r"MsgPack\.default: must be a mapping"),
        (
            lambda: MsgPack({"a": Ragged(max_length=1)}, {"a": [1, 2]}),
            ArsrcValueError,
            r"MsgPack\.default 'a': has more items than max_length=1",
        ),
    ],
)
def test_fields_and_defaults_that_mean_nothing_are_refused(make: Any, error: Any, said: str):
    with pytest.raises(error, match=said):
        make()


def test_without_msgspec_it_says_what_to_install():
    code = """
import sys
sys.modules["msgspec"] = None
from arsrc.codecs import Json, MsgPack
for codec in (Json, MsgPack):
    try:
        codec({"a": "u1"})
    except ValueError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for name, line in zip(("Json", "MsgPack"), done.stdout.splitlines(), strict=True):
        assert line == f"[arsrc] {name}: needs msgspec, which is not installed. Run: pip install 'arsrc[formats]'."
