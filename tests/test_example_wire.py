"""`tf.train.Example` records in odd forms: what is read of them without `protobuf` is what it reads; their codecs."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import arsrc.codecs
from arsrc.cli import kinds
from arsrc.cli.guess import Guess, Sizes, guess
from arsrc.cli.kinds import kind_of
from arsrc.codecs import RecordBatch, TFExample
from arsrc.codecs.example_message import _example_class
from arsrc.codecs.example_wire import Feature, feature_names, features_of
from arsrc.errors import ArsrcError

KINDS = {"bytes_list": "bytes", "float_list": "float32", "int64_list": "int64"}
Example = _example_class()


def varint(value: int, padding: int = 0) -> bytes:
    """A varint, longer than it need be if it is to be."""
    out = [value >> 7 * place & 0x7F for place in range(max(1, -(-value.bit_length() // 7)) + padding)]
    return bytes([byte | 0x80 for byte in out[:-1]] + out[-1:])


def nested(number: int, content: bytes, padding: int = 0) -> bytes:
    return varint(number << 3 | 2, padding) + varint(len(content), padding) + content


def example(*entries: bytes) -> bytes:
    return nested(1, b"".join(entries))


def entry(name: bytes, feature: bytes) -> bytes:
    return nested(1, nested(1, name) + nested(2, feature))


def group(depth: int) -> bytes:
    return b"\x23" * depth + b"\x24" * depth


ONE, TWO = nested(3, nested(1, b"\x01")), nested(3, b"\x08\x02")
FIELDS = st.one_of(  # that no message here knows, or that are of another type there
    st.builds(lambda number, value: varint(number << 3) + varint(value), st.integers(1, 6), st.integers(0, 2**64 - 1)),
    st.sampled_from([b"\x21" + bytes(8), b"\x0d" + bytes(4), b"\x22\x01x", b"\x23\x00\x07\x24", b"\x1b\x0b\x0c\x1c"]),
    st.sampled_from([b"\xfa\xff\xff\xff\x0f\x00", b"\x23", b"\x24", b"\x23\x2c", b"\x00\x00", b"\x26", group(2)]),
    st.integers(94, 101).map(group),
)
INTEGERS = st.one_of(
    st.integers(0, 2**64 - 1).map(varint), st.integers(0, 127).map(lambda last: b"\xff" * 9 + bytes([last]))
)
FLOATS = st.binary(min_size=4, max_size=4)


def several(part: st.SearchStrategy[bytes], max_size: int = 2) -> st.SearchStrategy[bytes]:
    """Some of it, most often one, and now and then what is not known."""
    one = st.lists(part, min_size=1, max_size=1)
    some = st.lists(st.one_of(part, part, part, FIELDS), max_size=max_size)
    return st.one_of(one, one, one, some).map(b"".join)


def field(number: int, content: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.builds(nested, st.just(number), content, st.sampled_from([0] * 9 + [1]))


packed = {2: FLOATS, 3: INTEGERS}
single = {2: FLOATS.map(lambda item: b"\x0d" + item), 3: INTEGERS.map(lambda item: b"\x08" + item)}
numbers = [
    field(kind, several(field(1, st.lists(packed[kind], max_size=3).map(b"".join)) | single[kind], 3))
    for kind in (2, 3)
]
lists = st.one_of(field(1, several(field(1, st.binary(max_size=3)))), *numbers)
names = field(1, st.sampled_from([b"", b"a", b"a", b"b", b"\xc3\xa9"]))
entries = field(1, st.builds(bytes.__add__, several(names), several(field(2, several(lists, 3)))))
whole = several(field(1, several(entries, 4)))
cut = st.builds(lambda record, at: record[: at % (len(record) + 1)], whole, st.integers(0))
RECORDS = st.one_of(whole, whole, whole, cut)


def by_protobuf(record: bytes) -> dict[str, Feature] | None:
    try:
        found = Example.FromString(record).features.feature
    except Exception:
        return None
    held = {name: found[name].WhichOneof("kind") for name in sorted(found)}
    return {
        name: Feature(KINDS[kind], list(getattr(found[name], kind).value)) if kind else Feature("", [])
        for name, kind in held.items()
    }


@hypothesis.given(RECORDS)
def test_features_are_those_that_protobuf_reads_whatever_the_form(record: bytes):
    want = by_protobuf(record)
    assert repr(features_of(record)) == repr(want)  # where NaNs are equal
    if want is not None:
        assert feature_names(record) == sorted(want)


@pytest.mark.parametrize(
    ("record", "values"),
    [
        (example(entry(b"a", ONE + TWO)), [1, 2]),
        (example(nested(1, nested(1, b"a") + nested(2, ONE) + nested(2, TWO))), [1, 2]),
        (example(entry(b"a", ONE + nested(2, b"") + TWO)), [2]),
        (example(entry(b"a", ONE), entry(b"a", TWO)), [2]),
        (example(entry(b"a", ONE)) + example(entry(b"b", TWO)), [1]),
        (example(entry(b"a", b"\x20\x07" + nested(3, nested(1, b"\x01") + b"\x23\x24\x08\x02"))), [1, 2]),
    ],
)
def test_what_comes_twice_is_merged_and_what_is_not_known_is_skipped(record: bytes, values: list[int]):
    assert kind_of(record).name == kinds.EXAMPLE
    assert features_of(record)["a"] == Feature("int64", values)
    assert TFExample({"a": ("int64", len(values))}).decode(RecordBatch.from_records([record]))["a"].tolist() == [values]


def guessed(records: list[bytes]) -> Guess:
    lengths = {len(record) for record in records}
    sizes = Sizes(len(records), len(records), max(lengths), len(lengths) == 1)
    return guess([kind_of(record) for record in records], sizes)


def check_guess(records: list[bytes]) -> str:
    """Check that the codec that is guessed reads the records, and return it."""
    text = guessed(records).codec
    if text.startswith("TFExample("):
        codec = eval(text, vars(arsrc.codecs)).resolve(records[0])
        decoded = codec.decode(RecordBatch.from_records(records))
        arsrc.codecs.check_batch(decoded, codec.element_spec(), len(records))
    return text


@hypothesis.given(st.lists(RECORDS, min_size=1, max_size=3))
def test_a_codec_of_examples_that_is_guessed_reads_them_whatever_their_form(records: list[bytes]):
    check_guess(records)


FLOAT, UNSET, EMPTY, NAMELESS = (
    entry(b"a", nested(2, nested(1, bytes(4)))), entry(b"a", b""), entry(b"a", nested(2, b"")), entry(b"", ONE),
)  # fmt: skip
BITMAP = b"BM" + bytes(60)  # of no pixels


@pytest.mark.parametrize(
    ("other", "remark"),
    [(FLOAT, "Left out, "), (EMPTY, "Left out, "), (UNSET, "with a default: a."), (b"", "with a default: a.")],
)
def test_a_feature_that_some_records_hold_otherwise_is_left_out_of_the_codec_and_named(other: bytes, remark: str):
    records = [example(entry(b"a", ONE), entry(b"b", ONE)), example(other, entry(b"b", TWO))]
    assert check_guess(records) == 'TFExample({"b": "int64"})'
    assert any(remark in line for line in guessed(records).remarks)


def test_a_feature_without_a_name_is_left_out_of_the_codec_and_named():
    record = example(NAMELESS, entry(b"b", ONE))
    assert check_guess([record]) == 'TFExample({"b": "int64"})'
    assert guessed([record]).remarks[-1].endswith('or without a name: "".')
    assert check_guess([example(NAMELESS)]) == "Bytes()"


def test_a_picture_of_no_pixels_is_no_picture_to_the_codec():
    assert check_guess([example(entry(b"a", nested(1, nested(1, BITMAP))))]) == 'TFExample({"a": Bytes(62)})'


def test_a_text_is_no_example_whatever_its_characters_say():
    text = example(nested(1, nested(1, b"nine char"))) + nested(9, b"J" * 74)
    assert by_protobuf(text)
    assert kind_of(text).name == kinds.TEXT


@pytest.mark.parametrize("num_bytes", [300, 310, 400, 5000])
def test_features_of_long_names_are_read(num_bytes: int):
    name = "x" * num_bytes
    codec = TFExample({name: "int32", "y": "int32"})
    values = {name: np.arange(9, dtype=np.int32), "y": np.arange(9, dtype=np.int32)}
    np.testing.assert_array_equal(codec.decode(codec.encode(values))[name], values[name])
    odd = example(entry(name.encode(), ONE + TWO), entry(b"y", TWO))
    with pytest.raises(ArsrcError, match="holds 2 values"):
        codec.decode(RecordBatch.from_records([odd]))
