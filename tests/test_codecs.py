"""Codecs: each against a slow oracle, as an inverse of its encoding, as a value, and in every error."""

import dataclasses
import json
import math
import pickle
import re
import struct
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arsrc.codecs import Bytes, Codec, Map, Ragged, RecordBatch, Struct, check_batch
from arsrc.codecs.element_tree import ElementTree
from arsrc.errors import ArsrcTypeError, ArsrcValueError, RecordError

DTYPES = [
    np.dtype(name) for name in ["bool", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16"]
] + [np.dtype(t) for t in (ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2)]

SHAPES = st.lists(st.integers(0, 3), max_size=3).map(tuple)
SMALL = Struct({"x": ("float32", 2), "y": "int32"})


def batch_of(*records: bytes) -> RecordBatch:
    return RecordBatch.from_records(records)


def arrays(dtype: np.dtype, shape: tuple[int, ...]) -> st.SearchStrategy[np.ndarray]:
    """Arrays of any bit pattern, NaNs of every kind included."""
    size = math.prod(shape) * dtype.itemsize
    raw = st.binary(min_size=size, max_size=size).map(lambda b: np.frombuffer(b, np.uint8))
    if dtype == np.bool_:
        return raw.map(lambda a: (a % 2).view(np.bool_).reshape(shape))
    return raw.map(lambda a: a.view(dtype).reshape(shape))


def same_bits(left: Any, right: Any) -> bool:
    left, right = np.asarray(left), np.asarray(right)
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


def parse_point(record: bytes) -> dict[str, Any]:
    fields = json.loads(record)
    return {"xy": np.array(fields["xy"], np.float32), "label": np.int32(fields["label"])}


def dump_point(point: dict[str, Any]) -> bytes:
    return json.dumps({"xy": point["xy"].tolist(), "label": int(point["label"])}).encode()


POINT_SPEC = {"xy": ("float32", (2,)), "label": "int32"}
POINT = Map(parse_point, POINT_SPEC, dump_point)


class Pair(NamedTuple):
    first: Any
    second: Any


def parse_pair(record: bytes) -> Pair:
    return Pair(np.frombuffer(record, np.uint8), np.float32(len(record)))


# Every codec as a value.

CODECS = [
    Bytes(),
    Bytes(3),
    SMALL,
    Struct({"a": ml_dtypes.bfloat16, "b": (bool, (2, 2))}),
    Ragged(max_length=4),
    Ragged("float16", max_length=4, pad_value=math.nan, overflow="truncate"),
    Ragged(ml_dtypes.bfloat16, max_length=1),
    POINT,
    Map(parse_pair, Pair(("uint8", (3,)), "float32")),
]


@pytest.mark.parametrize("codec", CODECS, ids=lambda value: type(value).__name__)
def test_a_codec_is_a_frozen_hashable_value_that_can_be_pickled_and_replaced(codec: Any) -> None:
    assert isinstance(codec, Codec)
    for copy in (pickle.loads(pickle.dumps(codec)), dataclasses.replace(codec)):
        assert copy == codec
        assert hash(copy) == hash(codec)
        assert repr(copy) == repr(codec)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(codec, dataclasses.fields(codec)[0].name, None)


def test_codecs_that_differ_are_unequal() -> None:
    different = [
        *CODECS,
        Struct({"y": "int32", "x": ("float32", 2)}),
        Ragged(max_length=4, pad_value=1),
        Ragged("int8", max_length=4),
        Map(parse_point, POINT_SPEC),
        Map(dump_point, POINT_SPEC, dump_point),
        Map(parse_point, {**POINT_SPEC, "label": "int16"}, dump_point),
        Map(parse_point, POINT_SPEC, dump_point, "1"),
        Map(parse_point, POINT_SPEC, dump_point, version="2"),
    ]
    assert len(set(different)) == len(different)


def test_specs_written_differently_give_equal_codecs() -> None:
    assert Struct({"x": (np.float32, [2]), "y": jnp.int32}) == SMALL
    assert Struct((("x", np.dtype(">f4"), (2,)), ("y", "i4", ()))) == SMALL
    assert Struct({"x": jax.ShapeDtypeStruct((2,), "float32"), "y": np.zeros((), np.int32)}) == SMALL
    spec = {"label": jax.ShapeDtypeStruct((), np.int32), "xy": np.zeros(2, np.float32)}
    assert Map(parse_point, spec, dump_point) == POINT
    assert Map(parse_point, spec, dump_point, version="1") == Map(parse_point, POINT_SPEC, dump_point, version="1")
    assert Ragged("u1", max_length=np.int64(4), pad_value=np.float32(0)) == Ragged(max_length=4)


def test_changing_a_spec_after_the_codec_is_made_changes_nothing() -> None:
    spec = dict(POINT_SPEC)
    codec = Map(parse_point, spec, dump_point)
    spec["label"] = "int8"
    codec.element_spec()["label"] = None
    assert codec == POINT
    assert codec.element_spec() == POINT.element_spec()


@pytest.mark.parametrize(
    ("codec", "record"),
    [
        (Bytes(), b"abc"),
        (SMALL, bytes(12)),
        (Ragged(max_length=4), b"ab"),
        (POINT, b'{"xy":[1,2],"label":3}'),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("num_records", [0, 1, 3])
def test_a_batch_of_any_size_follows_the_element_spec(codec: Any, record: bytes, num_records: int) -> None:
    codec = codec.resolve(record)
    decoded = codec.decode(RecordBatch.from_records([record] * num_records))
    assert all(type(leaf) is np.ndarray for leaf in check_batch(decoded, codec.element_spec(), num_records))
    if num_records:
        encoded = codec.encode(decoded)
        again = codec.decode(encoded)
        jax.tree.map(np.testing.assert_array_equal, decoded, again)


@pytest.mark.parametrize(
    ("codec", "record"),
    [(Bytes(3), b"ab"), (SMALL, bytes(11)), (Ragged("i4", max_length=4), b"abc"), (POINT, b"{}")],
    ids=lambda value: type(value).__name__,
)
def test_a_first_record_that_does_not_fit_is_refused_at_open(codec: Any, record: bytes) -> None:
    with pytest.raises(RecordError) as caught:
        codec.resolve(record)
    assert caught.value.row == 0


@pytest.mark.parametrize(
    "codec", [Bytes(4), Struct({"x": "f4"}), Ragged("f4", max_length=1)], ids=lambda value: type(value).__name__
)
def test_records_may_start_anywhere_in_the_data(codec: Any) -> None:
    whole = RecordBatch(np.arange(14, dtype=np.uint8)[1:], np.array([1, 5, 9], np.int64))
    copied = batch_of(whole[0], whole[1])
    left, right = codec.decode(whole), codec.decode(copied)
    assert all(map(same_bits, jax.tree.leaves(left), jax.tree.leaves(right)))
    if not isinstance(codec, Bytes):
        assert all(leaf.flags.aligned and leaf.flags.c_contiguous for leaf in jax.tree.leaves(left))


# Bytes.


@given(num_bytes=st.integers(0, 9), num_records=st.integers(1, 9), data=st.data())
def test_bytes_decodes_to_rows_and_encodes_back(num_bytes: int, num_records: int, data: Any) -> None:
    record = st.binary(min_size=num_bytes, max_size=num_bytes)
    records = data.draw(st.lists(record, min_size=num_records, max_size=num_records))
    codec = Bytes().resolve(records[0])
    assert codec == Bytes(num_bytes)
    rows = codec.decode(batch_of(*records))
    assert rows.dtype == np.uint8
    assert rows.shape == (num_records, num_bytes)
    assert [row.tobytes() for row in rows] == records
    for encoder in (codec, Bytes()):
        encoded = encoder.encode(rows)
        assert [encoded[row] for row in range(len(encoded))] == records


def test_bytes_copies_nothing() -> None:
    records = batch_of(b"abc", b"def")
    assert np.shares_memory(Bytes(3).decode(records), records.data)


def test_bytes_names_the_first_record_of_another_length_and_ragged() -> None:
    with pytest.raises(RecordError, match=r"row 1: the record has 2 bytes, not 3\. .*Ragged\(") as caught:
        Bytes(3).decode(batch_of(b"abc", b"de", b"f"))
    assert caught.value.row == 1


# Struct.


@given(st.lists(st.tuples(st.sampled_from(DTYPES), SHAPES), min_size=1, max_size=5), st.integers(0, 4), st.data())
def test_struct_encodes_and_decodes_every_dtype_bit_for_bit(fields: Any, num_records: int, data: Any) -> None:
    names = [f"field {i}" for i in range(len(fields))]
    codec = Struct(dict(zip(names, fields, strict=True)))
    columns = {
        name: data.draw(arrays(dtype, (num_records, *shape)))
        for name, (dtype, shape) in zip(names, fields, strict=True)
    }
    encoded = codec.encode(columns)
    assert len(encoded) == num_records
    for row in range(num_records):
        assert encoded[row] == b"".join(columns[name][row].tobytes() for name in names)
    decoded = codec.decode(encoded)
    assert list(decoded) == names
    assert all(same_bits(decoded[name], columns[name]) for name in names)
    assert all(leaf.flags.c_contiguous and leaf.dtype.isnative for leaf in decoded.values())
    check_batch(decoded, codec.element_spec(), num_records)


@given(st.lists(st.tuples(st.floats(width=32, allow_nan=False), st.integers(-(2**15), 2**15 - 1), st.booleans())))
def test_struct_reads_what_the_standard_library_packs_little_endian(rows: list[Any]) -> None:
    codec = Struct({"f": "float32", "h": "int16", "b": "bool"})
    decoded = codec.decode(RecordBatch.from_records([struct.pack("<fh?", *row) for row in rows]))
    assert list(zip(*(decoded[name].tolist() for name in "fhb"), strict=True)) == rows


def test_struct_gives_clean_bools_for_any_byte() -> None:
    decoded = Struct({"a": ("bool", (3,))}).decode(batch_of(b"\x00\x02\xff"))
    assert decoded["a"].view(np.uint8).tolist() == [[0, 1, 1]]


def test_struct_encodes_integers_and_floats_of_another_width_if_they_fit() -> None:
    codec = Struct({"f": "float32", "i": "uint8", "w": ml_dtypes.bfloat16, "c": "complex64"})
    elements = {
        "f": np.array([0.1, np.inf]),
        "i": np.array([0, 255]),
        "w": np.array([1, 2], np.float32),
        "c": np.array([1j, 2]),
    }
    decoded = codec.decode(codec.encode(elements))
    assert decoded["f"].tolist() == [np.float32(0.1), np.inf]
    assert decoded["i"].tolist() == [0, 255]
    assert decoded["w"].astype(np.float32).tolist() == [1, 2]
    assert decoded["c"].tolist() == [1j, 2]
    assert codec.decode(codec.encode(jax.tree.map(jnp.asarray, decoded)))["i"].tolist() == [0, 255]


def test_struct_knows_the_bytes_of_a_record() -> None:
    assert Struct({"image": ("uint8", (28, 28)), "label": "int32"}).record_bytes == 788


def test_struct_says_which_bytes_its_fields_take() -> None:
    what = r"row 0: the record has 13 bytes, not 12 as the fields take \(x: float32\[2\], y: int32\[\]\)\."
    with pytest.raises(RecordError, match=what):
        SMALL.decode(batch_of(bytes(13)))


# Ragged.


@given(
    dtype=st.sampled_from(DTYPES),
    lengths=st.lists(st.integers(0, 7), max_size=6),
    max_length=st.integers(1, 8),
    data=st.data(),
)
def test_ragged_pads_and_cuts_as_a_loop_over_the_records_does(
    dtype: np.dtype, lengths: list[int], max_length: int, data: Any
) -> None:
    codec = Ragged(dtype, max_length=max_length, pad_value=1, overflow="truncate")
    items = [data.draw(arrays(dtype, (length,))) for length in lengths]
    decoded = codec.decode(RecordBatch.from_records([item.tobytes() for item in items]))
    expected = np.ones((len(lengths), max_length), dtype)
    for row, item in enumerate(items):
        expected[row, : min(len(item), max_length)] = item[:max_length]
    assert same_bits(decoded["values"], expected)
    assert same_bits(decoded["length"], np.minimum(np.array(lengths, np.int32), max_length))
    check_batch(decoded, codec.element_spec(), len(lengths))

    again = codec.encode(decoded)
    assert [again[row] for row in range(len(items))] == [item[:max_length].tobytes() for item in items]
    if max(lengths, default=0) <= max_length:
        strict = dataclasses.replace(codec, overflow="error").decode(again)
        assert same_bits(strict["values"], expected)


@pytest.mark.parametrize(
    ("dtype", "pad"),
    [("int32", -1), ("float32", math.nan), ("bfloat16", 0.5), ("bool", True), ("float16", 0.1)],
)
def test_ragged_pads_with_the_pad_value(dtype: str, pad: Any) -> None:
    codec = Ragged(dtype, max_length=2, pad_value=pad)
    expected = np.full((1, 2), pad).astype(codec.dtype)
    assert same_bits(codec.decode(batch_of(b""))["values"], expected)
    assert codec == pickle.loads(pickle.dumps(codec))


def test_ragged_names_the_first_record_that_is_too_long() -> None:
    records = batch_of(b"ab", b"abcde", b"abcdef")
    with pytest.raises(RecordError, match=r'row 1: the record has 5 items, max_length is 4\. .*"truncate"'):
        Ragged(max_length=4).decode(records)


def test_ragged_names_the_first_record_that_is_no_whole_number_of_items() -> None:
    with pytest.raises(RecordError, match=r"row 1: the record has 6 bytes, no whole number of int32 items\."):
        Ragged("int32", max_length=4, overflow="truncate").decode(batch_of(bytes(8), bytes(6)))


# Map.


@given(st.lists(st.tuples(*[st.floats(width=32, allow_nan=False)] * 2, st.integers(-(2**31), 2**31 - 1))))
def test_map_stacks_what_its_function_gives_and_encodes_back(points: list[Any]) -> None:
    elements = [{"xy": np.array(p[:2], np.float32), "label": np.int32(p[2])} for p in points]
    records = RecordBatch.from_records([dump_point(element) for element in elements])
    decoded = POINT.decode(records)
    for row, element in enumerate(elements):
        assert same_bits(decoded["xy"][row], element["xy"])
        assert same_bits(decoded["label"][row], element["label"])
    check_batch(decoded, POINT.element_spec(), len(points))
    if points:
        again = POINT.encode(jax.tree.map(jnp.asarray, decoded))
        assert again.data.tobytes() == records.data.tobytes()
        assert again.offsets.tolist() == records.offsets.tolist()


def test_map_keeps_tuples_and_a_pair_of_dtype_and_shape_is_one_array() -> None:
    codec = Map(parse_pair, Pair(("uint8", 3), "float32"))
    assert codec.element_spec() == Pair(jax.ShapeDtypeStruct((3,), np.uint8), jax.ShapeDtypeStruct((), np.float32))
    decoded = codec.decode(batch_of(b"abc", b"def"))
    assert isinstance(decoded, Pair)
    assert decoded.second.tolist() == [3, 3]
    assert Map(parse_pair, ("uint8", "float32")).element_spec() != Map(parse_pair, ("uint8", (3,))).element_spec()


MAP_ERRORS = {
    "the function raises": (
        lambda record: 1 / 0,
        r"row 0: .*<lambda> raised ZeroDivisionError: division by zero\.",
    ),
    "another dtype": (
        lambda record: {"xy": np.zeros(2), "label": np.int32(0)},
        r"row 0: leaf \['xy'\] is not what the spec says\. .*\n  spec: float32\[2\]\n  got:  float64\[2\]$",
    ),
    "another shape": (
        lambda record: {"xy": np.zeros((1, 2), np.float32), "label": np.int32(0)},
        r"leaf \['xy'\] .*\n  spec: float32\[2\]\n  got:  float32\[1, 2\]$",
    ),
    "a Python number": (
        lambda record: {"xy": np.zeros(2, np.float32), "label": 3},
        r"leaf \['label'\] .*\n  spec: int32\[\]\n  got:  int64\[\]$",
    ),
    "a missing leaf": (
        lambda record: {"xy": np.zeros(2, np.float32)},
        r"leaf \['label'\] of the spec is missing\. .*\n  spec: \['label'\], \['xy'\]\n  got:  \['xy'\]$",
    ),
    "an additional leaf": (
        lambda record: {"xy": 0, "label": 0, "z": 0},
        r"leaf \['z'\] is not in the spec\. ",
    ),
    "another container": (lambda record: [0, 0], r"leaf \['label'\] of the spec is missing"),
    "a JAX array": (
        lambda record: {"xy": jnp.zeros(2), "label": np.int32(0)},
        r"leaf \['xy'\] is a JAX array\. .*NumPy",
    ),
}


@pytest.mark.parametrize("case", MAP_ERRORS)
def test_map_names_the_record_and_the_leaf_that_differ(case: str) -> None:
    fn, text = MAP_ERRORS[case]
    with pytest.raises(RecordError, match=r"^\[arsrc\] decode: row 0: ") as caught:
        Map(fn, POINT_SPEC).decode(batch_of(b""))
    assert re.search(text, str(caught.value), re.DOTALL)
    assert caught.value.row == 0


@pytest.mark.parametrize(
    ("leaf", "spec", "hint"),
    [
        (3, "int32", 'np.asarray(leaf, "int32"), or let the spec say int64.'),
        (np.float64(3), "float32", 'np.asarray(leaf, "float32"), or let the spec say float64.'),
        (np.ones(2), ("bfloat16", 3), 'np.asarray(leaf, "bfloat16"), or let the spec say float64.'),
        (np.array(3, jnp.bfloat16), "float32", 'np.asarray(leaf, "float32"), or let the spec say bfloat16.'),
        (np.array(3, ">i4"), "int32", 'np.asarray(leaf, "int32").'),
        ("3", "int32", None),
        (np.array(3, object), "int32", None),
        (np.ones(2, np.float32), ("float32", 3), None),
    ],
    ids=["an int", "a scalar", "another shape too", "bfloat16", "byte order", "text", "an object", "a shape alone"],
)
def test_a_leaf_of_another_dtype_is_told_to_be_cast_where_it_can_be(leaf: Any, spec: Any, hint: str | None) -> None:
    codec = Map(lambda record: leaf, spec)
    with pytest.raises(RecordError) as caught:
        codec.decode(batch_of(b""))
    text = str(caught.value)
    assert "is not what the spec says. " in text
    assert ("Cast it" in text) == (hint is not None)
    if hint:
        assert f"Cast it, as by {hint} Both sides:" in text
        wanted = codec.element_spec()
        cast = np.asarray(leaf, wanted.dtype.name)
        assert cast.dtype == wanted.dtype


def test_map_counts_rows_and_chains_the_functions_exception() -> None:
    good = b'{"xy": [1, 2], "label": 3}'
    with pytest.raises(RecordError, match="parse_point raised JSONDecodeError") as caught:
        POINT.decode(batch_of(good, good, b"{"))
    assert caught.value.row == 2
    assert isinstance(caught.value.__cause__, json.JSONDecodeError)


def test_map_shows_containers_where_the_leaves_have_the_same_paths() -> None:
    with pytest.raises(RecordError, match=r"the containers differ.*\n  spec: .*\(\*, \*\).*\n  got:  .*\[\*, \*\]"):
        Map(lambda record: [0, 0], ("uint8", "uint8")).decode(batch_of(b""))


# The check for any codec.


def test_check_batch_returns_the_leaves_in_tree_order() -> None:
    spec = {"b": jax.ShapeDtypeStruct((), np.int32), "a": jax.ShapeDtypeStruct((2,), np.float32)}
    decoded = {"b": np.zeros(3, np.int32), "a": np.ones((3, 2), np.float32)}
    leaves = check_batch(decoded, spec, 3)
    assert leaves[0] is decoded["a"]
    assert leaves[1] is decoded["b"]
    assert ElementTree(spec).shapes == (((2,), np.dtype("float32")), ((), np.dtype("int32")))


@pytest.mark.parametrize(
    ("decoded", "error", "text"),
    [
        (
            np.zeros((2, 3)),
            ArsrcValueError,
            r"leaf \(root\) .*\n  spec: float32\[2, 3\]\n  got:  float64\[2, 3\]$",
        ),
        (np.zeros((3, 3), "f4"), ArsrcValueError, r"\n  spec: float32\[2, 3\]\n  got:  float32\[3, 3\]$"),
        (
            np.zeros((2, 3), ">f4"),
            ArsrcValueError,
            r"\n  spec: float32\[2, 3\]\n  got:  float32\[2, 3\] \(>f4\)$",
        ),
        (1.0, ArsrcValueError, r"\n  spec: float32\[2, 3\]\n  got:  float64\[\]$"),
        ([np.zeros((2, 3), "f4")], ArsrcValueError, r"leaf \(root\) of the spec is missing"),
        (jnp.zeros((2, 3)), ArsrcTypeError, r"leaf \(root\) is a JAX array\. .*deadlock"),
    ],
)
def test_check_batch_shows_both_sides_of_what_differs(decoded: Any, error: type, text: str) -> None:
    with pytest.raises(error, match=r"^\[arsrc\] decode: ") as caught:
        check_batch(decoded, jax.ShapeDtypeStruct((3,), np.float32), 2)
    assert re.search(text, str(caught.value), re.DOTALL)


def test_a_spec_without_dtypes_is_refused() -> None:
    with pytest.raises(ArsrcTypeError, match=r"^\[arsrc\] element_spec: leaf \['a'\] is no array spec; got leaf=3"):
        ElementTree({"a": 3})


# What cannot be constructed or encoded.

ZEROS = {"x": np.zeros((1, 2)), "y": np.zeros(1, int)}
RAGGED = Ragged("int16", max_length=3)

REFUSED = [
    (lambda: Bytes(-1), ArsrcValueError, r"Bytes\.num_bytes: must be at least 0; got num_bytes=-1"),
    (lambda: Bytes("3"), ArsrcTypeError, r"Bytes\.num_bytes: must be an integer; got num_bytes='3'"),
    (lambda: Bytes(True), ArsrcTypeError, r"must be an integer; got num_bytes=True"),
    (lambda: Bytes().element_spec(), ArsrcValueError, r"Bytes\.num_bytes: is not known yet\. .*resolve"),
    (lambda: Bytes().decode(batch_of(b"a")), ArsrcValueError, r"is not known yet"),
    (lambda: Bytes().encode(np.zeros(3, np.uint8)), ArsrcValueError, r"u8\[.*got elements='uint8\[3\]'"),
    (
        lambda: Bytes().encode(np.zeros((1, 2))),
        ArsrcTypeError,
        r"Bytes\.encode: .*uint8\[n, 2\].*float64\[1, 2\]",
    ),
    (lambda: Bytes(3).encode(np.zeros((1, 2), np.uint8)), ArsrcValueError, r"uint8\[n, 3\].*uint8\[1, 2\]"),
    (lambda: Struct({}), ArsrcValueError, r"Struct\.fields: is empty"),
    (lambda: Struct("x"), ArsrcTypeError, r"Struct\.fields: must be a mapping; got fields='x'\. For example"),
    (lambda: Struct((("x", "f4", ()), ("x", "f4", ()))), ArsrcValueError, r"a name comes twice"),
    (lambda: Struct({"": "f4"}), ArsrcTypeError, r"names must be non-empty strings; got name=''"),
    (lambda: Struct({1: "f4"}), ArsrcTypeError, r"names must be non-empty strings; got name=1"),
    (
        lambda: Struct({"x": "nonsense"}),
        ArsrcTypeError,
        r"Struct field 'x': is no dtype; got dtype='nonsense'",
    ),
    (lambda: Struct({"x": None}), ArsrcTypeError, r"Struct field 'x': is no array spec; got spec=None"),
    (lambda: Struct({"x": "S3"}), ArsrcTypeError, r"no dtype that JAX arrays can have; got dtype='bytes24'"),
    (lambda: Struct({"x": "datetime64[s]"}), ArsrcTypeError, r"no dtype that JAX arrays can have"),
    (lambda: Struct({"x": np.longdouble}), ArsrcTypeError, r"no dtype that JAX arrays can have"),
    (lambda: Struct({"x": object}), ArsrcTypeError, r"no dtype that JAX arrays can have"),
    (lambda: Struct({"x": "f4,f4"}), ArsrcTypeError, r"no dtype that JAX arrays can have"),
    (
        lambda: Struct({"x": ("f4", (2, -1))}),
        ArsrcValueError,
        r"Struct field 'x' shape: size must be at least 0; got size=-1",
    ),
    (lambda: SMALL.encode(np.zeros(3)), ArsrcTypeError, r"must be a mapping .*got elements='ndarray'"),
    (lambda: SMALL.encode({"x": 1, "z": 2}), ArsrcValueError, r"names differ.*\['x', 'y'\].*\['x', 'z'\]"),
    (
        lambda: SMALL.encode({**ZEROS, "x": np.zeros((1, 3))}),
        ArsrcValueError,
        r"'x'.*float32\[n, 2\].*float64\[1, 3\]",
    ),
    (
        lambda: SMALL.encode({**ZEROS, "y": np.zeros(2, int)}),
        ArsrcValueError,
        r"axes differ; .*'x': 1, 'y': 2",
    ),
    (
        lambda: SMALL.encode({**ZEROS, "y": np.zeros(1)}),
        ArsrcTypeError,
        r"'y'.*kind.*int32\[n\].*float64\[1\]",
    ),
    (lambda: SMALL.encode({**ZEROS, "y": [0]}), ArsrcTypeError, r"'y': is a list\. .*tree"),
    (
        lambda: SMALL.encode({**ZEROS, "y": np.array([2**31])}),
        ArsrcValueError,
        r"'y'.*int32; got value=2147483648",
    ),
    (
        lambda: SMALL.encode({**ZEROS, "x": np.full((1, 2), 1e99)}),
        ArsrcValueError,
        r"'x'.*float32; got value=1e\+99",
    ),
    (
        lambda: Struct({"x": "int64"}).encode({"x": np.array([2**63], np.uint64)}),
        ArsrcValueError,
        r"does not fit int64; got value=9223372036854775808",
    ),
    (
        lambda: Struct({"x": "uint64"}).encode({"x": np.array([-1])}),
        ArsrcValueError,
        r"does not fit uint64; got value=-1",
    ),
    (
        lambda: Ragged(max_length=0),
        ArsrcValueError,
        r"Ragged\.max_length: must be at least 1; got max_length=0",
    ),
    (
        lambda: Map(len, "int64", num_processes=-1),
        ArsrcValueError,
        r"Map\.num_processes: must be at least 0; got num_processes=-1",
    ),
    (
        lambda: Map(len, "int64", num_processes=1.5),
        ArsrcTypeError,
        r"Map\.num_processes: must be an integer; got num_processes=1\.5",
    ),
    (lambda: Ragged(max_length=2**31), ArsrcValueError, r"Ragged\.max_length: must be below 2\*\*31"),
    (
        lambda: Ragged(max_length=2.0),
        ArsrcTypeError,
        r"Ragged\.max_length: must be an integer; got max_length=2\.0",
    ),
    (lambda: Ragged("U4", max_length=2), ArsrcTypeError, r"Ragged\.dtype: is no dtype that JAX"),
    (lambda: Ragged(None, max_length=2), ArsrcTypeError, r"Ragged\.dtype: is no dtype"),
    (
        lambda: Ragged(max_length=2, overflow="cut"),
        ArsrcValueError,
        r"Ragged\.overflow: .*got overflow='cut'",
    ),
    (lambda: Ragged(max_length=2, pad_value=256), ArsrcValueError, r"does not fit uint8; got pad_value=256"),
    (lambda: Ragged(max_length=2, pad_value=0.5), ArsrcValueError, r"does not fit uint8; got pad_value=0\.5"),
    (
        lambda: Ragged(max_length=2, pad_value=math.nan),
        ArsrcValueError,
        r"does not fit uint8; got pad_value=nan",
    ),
    (lambda: Ragged(max_length=2, pad_value=2**99), ArsrcValueError, r"does not fit uint8"),
    (lambda: Ragged("f2", max_length=2, pad_value=1e9), ArsrcValueError, r"does not fit float16"),
    (
        lambda: Ragged(max_length=2, pad_value="x"),
        ArsrcTypeError,
        r"is no number of uint8; got pad_value='x'",
    ),
    (
        lambda: Ragged("f4", max_length=2, pad_value=1j),
        ArsrcTypeError,
        r"is no number of float32; got pad_value=1j",
    ),
    (lambda: RAGGED.encode(np.zeros(3)), ArsrcTypeError, r"Ragged\.encode: .*got elements='ndarray'"),
    (lambda: RAGGED.encode({"values": 0}), ArsrcTypeError, r"Ragged\.encode: .*got elements=\['values'\]"),
    (
        lambda: RAGGED.encode({"values": np.zeros((2, 4), int), "length": np.zeros(2, int)}),
        ArsrcValueError,
        r"Ragged\.encode 'values'.*int16\[n, 3\].*int64\[2, 4\]",
    ),
    (
        lambda: RAGGED.encode({"values": np.zeros((2, 3), int), "length": np.zeros(1, int)}),
        ArsrcValueError,
        r"leading axes differ; got values=\(2, 3\), length=\(1,\)",
    ),
    (
        lambda: RAGGED.encode({"values": np.zeros((2, 3), int), "length": np.array([0, 4])}),
        ArsrcValueError,
        r"a length is not in \[0, 3\]; got length=4",
    ),
    (lambda: Map(3, "f4"), ArsrcTypeError, r"Map\.fn: must be callable; got fn=3"),
    (lambda: Map(len, "f4", 3), ArsrcTypeError, r"Map\.encode_fn: must be callable"),
    (lambda: Map(Unhashable(), "f4"), ArsrcTypeError, r"Map\.fn: must be hashable"),
    (lambda: Map(len, "f4", version=2), ArsrcTypeError, r"Map\.version: must be a text; got version=2"),
    (lambda: Map(len, {}), ArsrcValueError, r"Map\.spec: has no leaf"),
    (lambda: Map(len, {"a": 3}), ArsrcTypeError, r"Map\.spec leaf \['a'\]: is no array spec; got spec=3"),
    (
        lambda: Map(parse_point, POINT_SPEC).encode({}),
        ArsrcTypeError,
        r"Map\.encode: there is no encode_fn\. Give",
    ),
    (
        lambda: POINT.encode({"xy": np.zeros((1, 2)), "label": np.zeros(1, np.int32)}),
        ArsrcValueError,
        r"Map\.encode: leaf \['xy'\] .*float32\[1, 2\].*float64\[1, 2\]",
    ),
    (
        lambda: Map(len, "f4", int).encode(np.zeros(1, "f4")),
        ArsrcTypeError,
        r"element 0: int must return bytes; .*'int'",
    ),
    (
        lambda: Map(len, "f4", parse_point).encode(np.zeros(1, "f4")),
        ArsrcValueError,
        r"Map\.encode: element 0: parse_point raised TypeError",
    ),
]


@dataclasses.dataclass
class Unhashable:
    def __call__(self, record: bytes) -> int:
        return 0


@pytest.mark.parametrize(("build", "error", "text"), REFUSED, ids=[text for _, _, text in REFUSED])
def test_what_cannot_be_used_is_refused_with_its_value(build: Any, error: type, text: str) -> None:
    with pytest.raises(error, match=r"^\[arsrc\] ") as caught:
        build()
    assert re.search(text, str(caught.value), re.DOTALL)
