"""The one rule of which numbers a dtype takes, over the codecs that read and write named values."""

import json
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arsrc.codecs import Json, MsgPack, Npy, Ragged, RecordBatch, Struct, TFExample
from arsrc.codecs.check import cast_batch
from arsrc.errors import ArsrcTypeError, ArsrcValueError, RecordError

WRITERS = {Json: lambda value: json.dumps(value).encode(), MsgPack: msgspec.msgpack.encode}
FLOATS = [np.dtype(each) for each in (np.float16, np.float32, np.float64, ml_dtypes.bfloat16)]
INTEGERS = st.integers(-(2**63), 2**64 - 1) | st.builds(
    lambda power, near, sign: sign * (2**power + near), st.integers(0, 62), st.integers(-1, 1), st.sampled_from([1, -1])
)


def is_exact(number: int, dtype: np.dtype[Any]) -> bool:
    with np.errstate(over="ignore"):
        held = float(np.float64(number).astype(dtype))
    return np.isfinite(held) and int(held) == number


def decoded(kind: type, spec: Any, *values: Any) -> Any:
    records = RecordBatch.from_records([WRITERS[kind]({"a": value}) for value in values])
    return kind({"a": spec}).decode(records)["a"]


@pytest.mark.parametrize("kind", [Json, MsgPack])
@given(number=INTEGERS, dtype=st.sampled_from(FLOATS), others=st.lists(st.floats(-1, 1), max_size=2))
def test_an_integer_is_decoded_to_a_float_that_holds_it_exactly_or_is_named(
    kind: type, number: int, dtype: np.dtype[Any], others: list[float]
) -> None:
    values, shape = [*others, number], len(others) + 1
    if is_exact(number, dtype):
        found = decoded(kind, (dtype, shape), values)
        assert int(found[0, -1]) == number
        assert np.array_equal(found[0, :-1], np.array(others).astype(dtype))
        return
    with pytest.raises(RecordError, match=f"row 1: field 'a' holds {number}, which does not fit {dtype.name} exactly"):
        decoded(kind, (dtype, shape), [0] * shape, values)


@given(numbers=st.lists(INTEGERS, min_size=1, max_size=3), dtype=st.sampled_from(FLOATS))
def test_integers_are_encoded_as_floats_that_hold_them_exactly_or_the_first_wrong_one_is_named(
    numbers: list[int], dtype: np.dtype[Any]
) -> None:
    whole = np.uint64 if min(numbers) >= 0 else np.int64
    array = np.array([min(number, np.iinfo(whole).max) for number in numbers], whole)
    wrong = [number for number in array.tolist() if not is_exact(number, dtype)]
    if wrong:
        with pytest.raises(
            ArsrcValueError, match=f"an integer that does not fit {dtype.name} exactly; got value={wrong[0]}"
        ):
            cast_batch("x", array, dtype, ())
    else:
        assert [int(each) for each in cast_batch("x", array, dtype, ())] == array.tolist()


@pytest.mark.parametrize("codec", [TFExample, Json, MsgPack, Struct])
@pytest.mark.parametrize("whole", [np.int8, np.int64, np.uint64])
def test_every_codec_encodes_integers_where_floats_are_declared_by_the_same_rule(codec: Any, whole: type) -> None:
    codec = codec({"a": "float32"})
    assert codec.decode(codec.encode({"a": np.array([1, 2], whole)}))["a"].tolist() == [1.0, 2.0]
    if np.iinfo(whole).max > 2**24:
        with pytest.raises(
            ArsrcValueError, match=r"field|feature.*'a'.*does not fit float32 exactly; got value=16777217"
        ):
            codec.encode({"a": np.array([1, 2**24 + 1, 2**24 + 3], whole)})
    with pytest.raises(ArsrcTypeError, match="another kind"):
        type(codec)({"a": "int32"}).encode({"a": np.ones(2, np.float32)})
    with pytest.raises(ArsrcTypeError, match="another kind"):
        type(codec)({"a": "bool"}).encode({"a": np.ones(2, whole)})


@pytest.mark.parametrize("kind", [TFExample, Json, MsgPack])
def test_defaults_and_paddings_are_integers_that_floats_hold_exactly(kind: Any) -> None:
    assert kind({"a": "float32"}, default={"a": 2**24}).default[0][1] == 2**24
    for wrong, dtype in ((2**24 + 1, "float32"), (2**53 + 1, "float64")):
        with pytest.raises(ArsrcValueError, match=str(wrong)):
            kind({"a": dtype}, default={"a": wrong})
        with pytest.raises(ArsrcValueError, match=str(wrong)):
            Ragged(dtype, max_length=1, pad_value=wrong)


@pytest.mark.parametrize("kind", [Json, MsgPack])
@pytest.mark.parametrize(
    ("dtype", "values", "wrong"),
    [
        ("uint64", [5, -1], "-1"),
        ("int64", [-9, 2**63], str(2**63)),
        ("int8", [100, 300, -400], "300"),
        ("float32", [1, 1e38, -1e39], "-1e[+]39"),
        ("float64", [2**53, 2**53 + 1], str(2**53 + 1)),
        ("int32", [5, True, 1.5], "the float 1.5"),
        ("bool", [True, 1], "the integer 1"),
    ],
)
def test_the_value_that_is_named_is_the_first_wrong_one(kind: type, dtype: str, values: list[Any], wrong: str) -> None:
    for spec in ((dtype, len(values)), Ragged(dtype, max_length=9)):
        with pytest.raises(RecordError, match=f"field 'a' holds {wrong}"):
            decoded(kind, spec, values)


def test_a_huge_integer_is_named_and_none_of_those_beside_it() -> None:
    with pytest.raises(RecordError, match="holds a huge integer, which does not fit float32"):
        decoded(Json, ("float32", 3), [5, 10**400, 1])


def test_lists_of_examples_are_typed() -> None:
    """No integers for floats, nor the reverse; 0 and 1 are its bools, of which it has none of its own."""
    whole = TFExample({"a": "int64"}).encode({"a": np.array([0, 1])})
    real = TFExample({"a": "float32"}).encode({"a": np.array([0, 1], np.float32)})
    for records, dtype, held in ((whole, "float32", "integers"), (real, "int64", "floats"), (real, "bool", "floats")):
        with pytest.raises(RecordError, match=f"'a'.* holds {held}, which are no {dtype}"):
            TFExample({"a": dtype}).decode(records)
    assert TFExample({"a": "bool"}).decode(whole)["a"].tolist() == [False, True]


@pytest.mark.parametrize("whole", [np.int64, np.uint64])
def test_npy_writes_no_rounded_integers(whole: type) -> None:
    with pytest.raises(ArsrcValueError, match=f"got value={np.iinfo(whole).max}"):
        Npy("float64").encode(np.array([1, np.iinfo(whole).max], whole))


NAN, INF = float("nan"), float("inf")
SMALL_FLOATS = ["float4_e2m1fn", "float6_e3m2fn", "float8_e4m3fn", "float8_e5m2", "bfloat16", "float16", "float32"]


@pytest.mark.parametrize("dtype", [jnp.dtype(name) for name in SMALL_FLOATS if hasattr(jnp, name)], ids=str)
@pytest.mark.parametrize("number", [1.0, 3.0, 7.5, 29.0, 500.0, 1e30, 1e300, NAN, INF, -INF])
def test_a_float_is_rounded_or_refused_and_never_another_number(dtype: Any, number: float) -> None:
    """Of floats of few bits some take what is too large for their largest, and some have no infinity or NaN."""
    try:
        found = float(cast_batch("encode", np.array([number]), dtype, ())[0])
    except ArsrcValueError:
        assert not abs(number) <= 3
        return
    assert found == pytest.approx(number, rel=0.25, nan_ok=True)


def test_floats_of_few_bits_are_no_integers_and_no_smaller_floats() -> None:
    half = np.array([1.5, 3.0], jnp.float8_e5m2)
    with pytest.raises(ArsrcTypeError, match="another kind"):
        cast_batch("encode", half, np.dtype(jnp.int4), ())
    with pytest.raises(ArsrcValueError, match=r"value=57344\.0"):
        cast_batch("encode", np.array([57344.0], jnp.float8_e5m2), np.dtype(jnp.float8_e4m3fn), ())
