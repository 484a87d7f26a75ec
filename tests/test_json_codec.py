"""`Json`: against Python's own json, as an inverse of its encoding, and in every error."""

import itertools
import json
import math
from typing import Any

import jax
import ml_dtypes
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import arsrc
from arsrc._host.machine.stopping import Stopped
from arsrc._host.records.stoppable import Stoppable
from arsrc.codecs import Bytes, Json, Map, MapBatch, MsgPack, Ragged, RecordBatch, Struct, TFExample, check_batch
from arsrc.errors import ArsrcTypeError, ArsrcValueError, RecordError

CODEC = Json(
    {
        "id": "int32",
        "xy": ("float32", 2),
        "ok": "bool",
        "text": Ragged(max_length=8),
        "ids": Ragged("int64", max_length=3),
    },
    default={"ok": False, "text": "none", "ids": []},
)


def batch_of(*values: Any) -> RecordBatch:
    return RecordBatch.from_records([json.dumps(value).encode() for value in values])


TEXTS = st.text(st.characters(codec="utf-8"), max_size=2)
ROWS = st.fixed_dictionaries(
    {
        "id": st.integers(-(2**31), 2**31 - 1),
        "xy": st.lists(st.floats(width=32, allow_nan=False), min_size=2, max_size=2),
    },
    optional={
        "ok": st.booleans(),
        "text": TEXTS,
        "ids": st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3),
        "more": st.recursive(st.none() | TEXTS | st.integers(), lambda x: st.lists(x) | st.dictionaries(TEXTS, x)),
    },
).filter(lambda row: all(map(math.isfinite, row["xy"])))


@given(st.lists(ROWS, min_size=1, max_size=4))
def test_fields_are_what_pythons_json_reads(rows: list[dict[str, Any]]):
    records = batch_of(*rows)
    decoded = CODEC.decode(records)
    check_batch(decoded, CODEC.element_spec(), len(rows))
    for row, record in enumerate(records):
        expected = {"ok": False, "text": "none", "ids": [], **json.loads(record)}
        assert decoded["id"][row] == expected["id"]
        np.testing.assert_array_equal(decoded["xy"][row], np.float32(expected["xy"]))
        assert decoded["ok"][row] == expected["ok"]
        for name, items in (("text", list(expected["text"].encode())), ("ids", expected["ids"])):
            assert decoded[name]["length"][row] == len(items)
            assert decoded[name]["values"][row].tolist() == items + [0] * (
                decoded[name]["values"].shape[1] - len(items)
            )
    again = CODEC.decode(CODEC.encode(decoded))
    for one, other in zip(
        *(check_batch(each, CODEC.element_spec(), len(rows)) for each in (decoded, again)), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert all(isinstance(json.loads(record), dict) for record in CODEC.encode(decoded))


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "xy", "text", "ids", "z"]), inner)
    ),
)


@given(st.binary(max_size=30) | JUNK.map(lambda value: json.dumps(value).encode()))
def test_junk_is_decoded_or_an_error_of_its_record_and_nothing_else(record: bytes):
    good = {"id": 1, "xy": [1, 2]}
    row = 1
    try:
        check_batch(
            CODEC.decode(RecordBatch.from_records([json.dumps(good).encode(), record])), CODEC.element_spec(), 2
        )
    except RecordError as error:
        row = error.row
    assert row == 1


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"{",
        b"[1]",
        b"null",
        b'{"id": 1, "xy": [1, 2]} {}',
        b'{"id": NaN, "xy": [1, 2]}',
        b'{"id": 1, "xy": [1, 1e999]}',
        b'{"id": 1, "xy": [1, 2], "text": "\\ud800"}',
        b'{"id": 1, "xy": [1, 2], "text": "\xff"}',
        b'{"id": ' + b"9" * 5000 + b', "xy": [1, 2]}',
        b'{"z": ' + b"[" * 100_000 + b"}",
        b'\xef\xbb\xbf{"id": 1, "xy": [1, 2]}',
    ],
)
def test_what_is_no_json_object_is_an_error_that_names_the_row(record: bytes):
    with pytest.raises(RecordError, match=r"row 0: the record is no Json map that can be read \("):
        CODEC.decode(RecordBatch.from_records([record]))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"id": 1.0}, "field 'id' holds the float 1.0, not a number of int32"),
        ({"id": True, "xy": [True, True], "ok": 1}, "field 'ok' holds the integer 1, not a bool"),
        ({"text": True}, "field 'text' holds true, not bytes"),
        ({"id": 10**30}, f"field 'id' holds {10**30}, which does not fit int32"),
        ({"id": 10**60}, "field 'id' holds a huge integer, which does not fit int32"),
        ({"id": "x" * 500}, "field 'id' holds a text of 500, not a number of int32"),
        ({"xy": [1, None]}, "field 'xy' holds null, not a number of float32. Lists with null"),
        ({"xy": "12"}, r"field 'xy' holds a text of 2, not a list of 2 in float32\[2\]"),
        ({"xy": [10**400, 1]}, "field 'xy' holds a huge integer, which does not fit float32"),
        ({"id": None}, "field 'id' holds null, not a number of int32. Where it may be null, .* default={'id': ...}"),
        ({"text": {"a": 1}}, "field 'text' holds a map of 1, not bytes or a text or a list for Ragged. Maps inside"),
        ({"text": [1, 256]}, "field 'text' holds 256, which does not fit uint8"),
        ({"text": "123456789"}, "field 'text': the record has 9 items, max_length is 8"),
        ({"ids": "12345678"}, "field 'ids' holds a text of 8, not bytes or a list for Ragged"),
    ],
)
def test_a_value_that_does_not_fit_is_an_error_that_names_row_and_field(values: Any, said: str):
    good = {"id": 1, "xy": [1, 2]}
    with pytest.raises(RecordError, match=f"row 1: {said}"):
        CODEC.decode(batch_of(good, {**good, **values}, good))


def test_where_a_field_is_missing_the_names_of_the_record_are_said():
    said = r"field 'Label' is missing\. The record has 'image', 'label'\. Where a .* default={'Label': \.\.\.}\.$"
    for codec in (Json({"Label": "int32"}), Json({"Label": Bytes()})):
        with pytest.raises(RecordError, match=said):
            codec.resolve(b'{"label": 3, "image": {"a": [1]}}')


@pytest.mark.parametrize("kind", [Json, MsgPack])
def test_null_is_missing_where_a_default_stands_for_the_field(kind: type):
    encode = (msgspec.json if kind is Json else msgspec.msgpack).encode
    fields = {"id": "int32", "xy": ("float32", 2), "text": Ragged(max_length=4), "pair": Struct({"a": "uint8"})}
    default = {"id": -1, "xy": [0, 0], "text": "?", "pair": {"a": 9}}
    good = {"id": 5, "xy": [1, 2], "text": "ab", "pair": "\1"}
    records = [dict.fromkeys(good), good, {}, {**good, "id": None}, {**good, "xy": None}]
    codec = kind(fields, default).resolve(encode(records[0]))
    found = codec.decode(RecordBatch.from_records([*map(encode, records)]))
    without = [{name: value for name, value in one.items() if value is not None} for one in records]
    jax.tree.map(np.testing.assert_array_equal, found, codec.decode(RecordBatch.from_records([*map(encode, without)])))
    assert found["id"].tolist() == [-1, 5, -1, -1, 5]
    assert found["pair"]["a"].tolist() == [9, 1, 9, 1, 1]
    with pytest.raises(RecordError, match="row 1: field 'id' holds null"):
        kind(fields).decode(RecordBatch.from_records([encode(good), encode({**good, "id": None})]))
    with pytest.raises(RecordError, match="row 0: field 'xy' holds null"):
        codec.decode(RecordBatch.from_records([encode({**good, "xy": [1, None]})]))


@pytest.mark.parametrize("kind", [Json, MsgPack, TFExample])
def test_maps_in_maps_and_classes_of_codecs_are_no_specs_of_fields(kind: type):
    with pytest.raises(ArsrcTypeError, match=r"field 'a': is a mapping; .* Maps in maps are not read: .* an instance"):
        kind({"a": {"b": "int32"}})
    with pytest.raises(ArsrcTypeError, match=r"field 'a': is the class of a codec; .* Give an instance: Bytes\("):
        kind({"a": Bytes})


def test_a_default_of_another_kind_is_shown_without_an_axis_of_records():
    with pytest.raises(ArsrcTypeError, match=r"default 'a': has a dtype .*\n  spec: int32\[\]\n  got:  float64\[\]$"):
        Json({"a": "int32"}, default={"a": 1.5})


def test_texts_go_to_codecs_and_come_back():
    codec = Json({"a": Bytes(), "b": Map(json.loads, "int64", lambda x: str(int(x)).encode())})
    codec = codec.resolve(b'{"a": "xy", "b": "12"}')
    decoded = codec.decode(batch_of({"a": "zz", "b": "7"}))
    assert (decoded["a"].tolist(), decoded["b"].tolist()) == ([[122, 122]], [7])
    assert [json.loads(record) for record in codec.encode(decoded)] == [{"a": "zz", "b": "7"}]
    with pytest.raises(ArsrcValueError, match=r"Json\.encode field 'a': Bytes gave bytes that are no text, which JSON"):
        codec.encode({"a": np.uint8([[255, 0]]), "b": np.int64([7])})


@pytest.mark.parametrize("dtype", ["bool", "i1", "u8", "i8", "f2", "f4", "f8", ml_dtypes.bfloat16, ml_dtypes.int4])
@pytest.mark.parametrize("shape", [(), (2,), (0, 2), (2, 0), (1, 2)])
def test_every_dtype_and_shape_comes_back(dtype: Any, shape: tuple[int, ...]):
    codec = Json({"a": (dtype, shape)})
    array = (np.arange(3 * math.prod(shape)) / 3 % 1.9).astype(np.float32).astype(dtype).reshape(3, *shape)
    found = codec.decode(codec.encode({"a": array}))["a"]
    assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())


def test_the_ends_of_64_bits_come_back():
    codec = Json({"a": "uint64", "b": "int64", "c": "float64"})
    values = {"a": np.uint64([2**64 - 1]), "b": np.int64([-(2**63)]), "c": np.float64([5e-324])}
    decoded = codec.decode(codec.encode(values))
    assert all(decoded[name] == values[name] for name in values)


def test_what_json_cannot_hold_is_refused():
    with pytest.raises(ArsrcTypeError, match=r"Json field 'a': is complex, and JSON has no such numbers"):
        Json({"a": "complex64"})
    with pytest.raises(ArsrcTypeError, match=r"Json field 'a': is complex"):
        Json({"a": Ragged("complex64", max_length=1)})
    with pytest.raises(ArsrcValueError, match=r"Json\.encode field 'a': holds a number that is not finite.*value=nan"):
        Json({"a": "float32"}).encode({"a": np.float32([math.nan])})


def words(records: RecordBatch) -> np.ndarray:
    return np.array([record.count(b" ") + 1 for record in records], np.int32)


def test_a_function_of_many_texts_reads_one_field_of_json_lines(tmp_path, write_records):
    rows = [{"text": "a " * i + "b", "url": "x"} for i in range(6)]
    path = write_records(tmp_path / "lines", [json.dumps(row).encode() for row in rows])
    config = arsrc.ArrayRecordSourceConfig(path, 6, Json({"text": MapBatch(words)}))
    _, batch = arsrc.next_batch(config, arsrc.init(config))
    assert batch.data["text"].tolist() == [1, 2, 3, 4, 5, 6]
    arsrc.close(config)


@pytest.mark.parametrize(
    "codec", [Map(len, "int64"), MapBatch(lambda records: np.array([*map(len, records)]), "int64")]
)
def test_functions_of_fields_end_between_two_records_when_nobody_wants_them(codec: Any):
    records, served = batch_of(*({"text": "ab"} for _ in range(9))), itertools.count()
    stoppable = Stoppable(records.data, records.offsets, lambda: next(served) > 4)
    with pytest.raises(Stopped):
        Json({"text": codec}).decode(stoppable)
    assert next(served) == 6
