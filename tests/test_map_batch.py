"""`MapBatch`, and specs that `Map` and `MapBatch` take from the first record."""

import collections
import dataclasses
import json
import pickle
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import arsrc
from arsrc._host.records.codec_identity import describe
from arsrc.codecs import Codec, Map, MapBatch, RecordBatch
from arsrc.errors import ArsrcTypeError, ArsrcValueError, RecordError

NUM_TOKENS = 6
TEXTS = [f"text {i} ".encode() * (1 + i % 3) for i in range(20)]


def tokens(text: bytes) -> np.ndarray:
    """The slow, obvious way: one record."""
    return np.array([*text[:NUM_TOKENS], *[0] * (NUM_TOKENS - len(text))], np.int32)


def tokenize(records: RecordBatch) -> dict[str, Any]:
    padded = np.zeros((len(records), NUM_TOKENS), np.int32)
    for row, text in enumerate(records):
        padded[row, : len(text)] = list(text[:NUM_TOKENS])
    return {"tokens": padded, "length": records.lengths.astype(np.int32)}


def untokenize(elements: dict[str, Any]) -> list[bytes]:
    return [
        bytes(row[:length].astype(np.uint8)) for row, length in zip(elements["tokens"], elements["length"], strict=True)
    ]


SPEC = {"tokens": ("int32", NUM_TOKENS), "length": "int32"}
CODEC = MapBatch(tokenize, SPEC, untokenize)


def batch_of(*records: bytes) -> RecordBatch:
    return RecordBatch.from_records(records)


@pytest.fixture(scope="module")
def path(write_records, tmp_path_factory) -> str:
    return write_records(tmp_path_factory.mktemp("texts") / "texts.array_record", TEXTS)


def served(path: str, codec: Any, **fields: Any) -> Any:
    config = arsrc.ArrayRecordSourceConfig(path, 5, codec, num_epochs=1, **fields)
    batches = [batch.data for _, batch in arsrc.iterate(config)]
    arsrc.close(config)
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *batches)


# A batch of records is a sequence of bytes.


@given(st.lists(st.binary(max_size=5), max_size=6))
def test_records_of_a_batch_are_a_sequence_of_bytes(records: list[bytes]):
    batch = RecordBatch.from_records(records)
    assert list(batch) == records
    assert [batch[row] for row in range(-len(records), len(records))] == records * 2
    for beyond in (len(records), -len(records) - 1):
        with pytest.raises(IndexError):
            batch[beyond]


# MapBatch.


@pytest.mark.parametrize("codec", [CODEC, MapBatch(tokenize)], ids=["spec", "no spec"])
def test_a_function_of_many_records_gives_what_one_of_each_record_gives(path: str, codec: Any):
    found = served(path, codec)
    np.testing.assert_array_equal(found["tokens"], [tokens(text) for text in TEXTS])
    np.testing.assert_array_equal(found["length"], [len(text) for text in TEXTS])


def test_it_is_a_codec_and_a_value_with_or_without_a_spec():
    codecs = [
        CODEC,
        MapBatch(tokenize),
        MapBatch(tokenize, SPEC),
        MapBatch(tokenize, {**SPEC, "length": "int16"}),
        MapBatch(tokenize, SPEC, untokenize, "1"),
        Map(tokenize),
        Map(tokenize, SPEC),
    ]
    assert len(set(codecs)) == len(codecs)
    for codec in codecs:
        assert isinstance(codec, Codec)
        for again in (pickle.loads(pickle.dumps(codec)), dataclasses.replace(codec)):
            assert (again, hash(again), repr(again)) == (codec, hash(codec), repr(codec))
    assert repr(MapBatch(tokenize)) == "MapBatch(fn=tokenize)"
    assert repr(CODEC) == (
        f"MapBatch(fn=tokenize, spec={{'length': int32[], 'tokens': int32[{NUM_TOKENS}]}}, encode_fn=untokenize)"
    )


@given(st.lists(st.binary(min_size=1, max_size=NUM_TOKENS), max_size=5))
def test_what_is_encoded_is_decoded_to_the_same(records: list[bytes]):
    decoded = CODEC.decode(RecordBatch.from_records(records))
    for codec in (CODEC, MapBatch(tokenize, encode_fn=untokenize)):
        assert list(codec.encode(decoded)) == records


def test_what_is_encoded_may_be_a_batch_of_records(tmp_path):
    codec = MapBatch(tokenize, encode_fn=lambda elements: batch_of(*untokenize(elements)))
    elements = tokenize(batch_of(b"ab", b"abc"))
    arsrc.write_array_record(tmp_path / "a", elements, codec=codec)
    config = arsrc.ArrayRecordSourceConfig(str(tmp_path / "a"), 2, codec)
    jax.tree.map(np.testing.assert_array_equal, arsrc.next_batch(config, arsrc.init(config))[1].data, elements)
    arsrc.close(config)


def fails_for_seven(records: RecordBatch) -> Any:
    for record in records:
        if record.startswith(b"text 7 "):
            raise KeyError("seven")
    return tokenize(records)


def names_seven(records: RecordBatch) -> Any:
    for row, record in enumerate(records):
        if record.startswith(b"text 7 "):
            raise RecordError(row, "it is the seventh")
    return tokenize(records)


@pytest.mark.parametrize(
    ("fn", "said"), [(fails_for_seven, "raised KeyError: 'seven'"), (names_seven, "it is the seventh")]
)
@pytest.mark.parametrize("spec", [SPEC, None], ids=["spec", "no spec"])
def test_the_record_that_it_raises_for_is_found_and_named(path: str, fn: Any, said: str, spec: Any):
    config = arsrc.ArrayRecordSourceConfig(path, 5, MapBatch(fn, spec), num_epochs=1)
    with pytest.raises(ArsrcValueError, match=said) as caught:
        list(arsrc.iterate(config))
    assert (caught.value.position, caught.value.record_id) == (7, 7)
    arsrc.close(config)
    masked = dataclasses.replace(config, on_bad_record="mask")
    masks = np.concatenate([batch.mask for _, batch in arsrc.iterate(masked)])
    assert np.flatnonzero(~masks).tolist() == [7]
    arsrc.close(masked)


def longest(records: RecordBatch) -> Any:
    """Pads to the longest of its records, as tokenizers do by default."""
    return {"tokens": np.zeros((len(records), int(records.lengths.max())), np.int32), "length": records.lengths}


@pytest.mark.parametrize(
    ("fn", "error", "said"),
    [
        (lambda records: tokenize(batch_of(*records, b"x")), ArsrcValueError, r"got: +int32\[21\]"),
        (lambda records: tokenize(records)["tokens"], ArsrcValueError, r"leaf \['length'\] of the spec is missing"),
        (
            lambda records: {**tokenize(records), "length": 1.0},
            ArsrcValueError,
            r"leaf \['length'\] is not what the spec",
        ),
        (lambda records: {**tokenize(records), "length": jax.numpy.zeros(2)}, ArsrcTypeError, "is a JAX array"),
        (longest, ArsrcValueError, r"leaf \['tokens'\] is not what the spec says"),
    ],
    ids=["too many", "structure", "no axis", "JAX", "the longest"],
)
def test_a_batch_that_is_not_as_the_spec_says_is_an_error_that_names_the_leaf(fn: Any, error: Any, said: str):
    spec = longest(batch_of(TEXTS[0])) if fn is longest else None
    codec = MapBatch(fn, jax.tree.map(lambda leaf: (leaf.dtype, leaf.shape[1:]), spec) if spec else SPEC)
    records = RecordBatch.from_records(TEXTS)
    with pytest.raises(error, match=said) as caught:
        codec.decode(records)
    assert str(caught.value).startswith("[arsrc] MapBatch.fn: ")
    assert not isinstance(caught.value, RecordError)


def test_a_spec_that_does_not_fit_shows_with_the_first_record():
    with pytest.raises(ArsrcValueError, match=r"MapBatch\.fn: leaf"):
        MapBatch(tokenize, {**SPEC, "length": "int8"}).resolve(b"abc")
    with pytest.raises(RecordError, match="fails_for_seven raised KeyError"):
        MapBatch(fails_for_seven, SPEC).resolve(b"text 7 ")


@pytest.mark.parametrize(
    ("encode_fn", "error", "said"),
    [
        (None, ArsrcTypeError, "there is no encode_fn"),
        (
            lambda elements: b"abc",
            ArsrcTypeError,
            "must return a list of bytes, or a RecordBatch; got returned='bytes'",
        ),
        (lambda elements: ["abc"], ArsrcTypeError, "must return a list of bytes"),
        (lambda elements: [b"abc"], ArsrcValueError, "gave another number of records; got elements=2, records=1"),
        (lambda elements: elements["nothing"], ArsrcValueError, "raised KeyError: 'nothing'"),
    ],
)
def test_an_encode_fn_that_gives_something_else_is_an_error(encode_fn: Any, error: Any, said: str):
    codec = MapBatch(tokenize, SPEC, encode_fn)
    with pytest.raises(error, match=said) as caught:
        codec.encode(tokenize(batch_of(b"ab", b"abc")))
    assert str(caught.value).startswith("[arsrc] MapBatch.encode: ")


def test_decoded_elements_in_files_are_told_apart_by_function_and_spec_and_not_by_what_encodes():
    resolved = MapBatch(tokenize).resolve(TEXTS[0])
    assert describe(resolved) == describe(CODEC)
    others = [MapBatch(longest, SPEC), MapBatch(tokenize, {**SPEC, "length": "int8"}), Map(tokenize, SPEC)]
    versions = [MapBatch(tokenize, SPEC, version=version) for version in "12"]
    assert len({describe(codec) for codec in (CODEC, *others, *versions)}) == 6


# Specs from the first record.


class Point(NamedTuple):
    x: Any
    y: Any


def parse(record: bytes) -> Any:
    fields = json.loads(record)
    return {"id": fields["id"], "weight": fields["weight"], "ok": True, "xy": Point(np.float32(1), np.zeros(2, "u1"))}


RECORDS = [json.dumps({"id": i, "weight": i / 2}).encode() for i in range(6)]


def test_a_map_without_a_spec_takes_it_from_what_its_function_gives_first(write_records, tmp_path):
    expected = {
        "id": jax.ShapeDtypeStruct((), np.int64),
        "weight": jax.ShapeDtypeStruct((), np.float64),
        "ok": jax.ShapeDtypeStruct((), np.bool_),
        "xy": Point(jax.ShapeDtypeStruct((), np.float32), jax.ShapeDtypeStruct((2,), np.uint8)),
    }
    resolved = Map(parse).resolve(RECORDS[0])
    assert resolved.element_spec() == expected
    assert resolved == Map(parse, expected)
    path = write_records(tmp_path / "points", RECORDS)
    config = arsrc.ArrayRecordSourceConfig(path, 3, Map(parse))
    assert config == arsrc.ArrayRecordSourceConfig(path, 3, Map(parse))
    assert hash(config) == hash(pickle.loads(pickle.dumps(config)))
    assert arsrc.batch_spec(config).data["weight"] == jax.ShapeDtypeStruct((3,), np.float32)
    assert "Map" in arsrc.explain(config)
    _, batch = jax.jit(arsrc.next_batch, static_argnums=0)(config, arsrc.init(config))
    assert batch.data["id"].dtype == np.int32
    np.testing.assert_array_equal(batch.data["id"], [0, 1, 2])
    np.testing.assert_array_equal(batch.data["weight"], np.float32([0, 0.5, 1]))
    assert type(batch.data["xy"]) is Point
    arsrc.close(config)


@pytest.mark.parametrize("codec", [Map(parse), MapBatch(tokenize)], ids=["Map", "MapBatch"])
def test_without_a_spec_nothing_is_known_before_the_first_record(codec: Any):
    for ask in (codec.element_spec, lambda: codec.decode(batch_of(RECORDS[0]))):
        with pytest.raises(ArsrcValueError, match=rf"{type(codec).__name__}\.spec: is not known yet\. Call resolve"):
            ask()


def test_a_map_without_a_spec_encodes_elements_as_they_are():
    codec = Map(lambda record: np.frombuffer(record, np.uint8), encode_fn=lambda element: element["a"].tobytes())
    assert list(codec.encode({"a": np.uint8([[1, 2], [3, 4]])})) == [b"\1\2", b"\3\4"]
    with pytest.raises(ArsrcValueError, match=r"leaf \['a'\] is not what the spec says"):
        codec.encode({"a": np.uint8(1)})


@pytest.mark.parametrize(
    ("codec", "said"),
    [
        (Map(lambda record: None), "gives no array. Give a PyTree"),
        (Map(lambda record: {"a": "text"}), r"leaf \['a'\] is str128, which JAX arrays cannot be"),
        (Map(lambda record: {"a": object()}), r"leaf \['a'\] is object, which JAX arrays cannot be"),
        (Map(lambda record: jax.numpy.zeros(3)), r"leaf \(root\) is a JAX array"),
        (Map(lambda record: {}[0]), "raised KeyError: 0"),
        (
            MapBatch(lambda records: np.zeros(3)),
            r"leaf \(root\) is float64\[3\] for one record, without a leading axis",
        ),
        (MapBatch(lambda records: 3), r"leaf \(root\) is int64\[\] for one record, without a leading axis"),
        (MapBatch(lambda records: {}[0]), "raised KeyError: 0"),
    ],
)
def test_a_first_record_that_gives_no_spec_is_named(codec: Any, said: str, path: str):
    with pytest.raises(RecordError, match=said) as caught:
        codec.resolve(b"abc")
    assert caught.value.row == 0
    with pytest.raises(ArsrcValueError, match=said) as placed:
        arsrc.init(arsrc.ArrayRecordSourceConfig(path, 5, codec))
    assert placed.value.record_id == 0


def test_later_records_must_be_like_the_first():
    codec = Map(lambda record: np.frombuffer(record, np.uint8)).resolve(b"abc")
    with pytest.raises(RecordError, match=r"row 1: leaf \(root\) is not what the spec says"):
        codec.decode(batch_of(b"abc", b"abcd"))
    mixed = Map(json.loads).resolve(b"1")
    with pytest.raises(RecordError, match=r"row 1: .*int64.*float64"):
        mixed.decode(batch_of(b"1", b"1.5"))


def test_trees_of_every_kind_of_container_are_inferred():
    tree = collections.OrderedDict(b=[np.int8(1), (2.5,)], a=Point({"c": np.zeros((0, 2))}, True))
    spec = Map(lambda record: tree).resolve(b"").element_spec()
    assert jax.tree.structure(spec) == jax.tree.structure(tree)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), spec, is_leaf=lambda x: hasattr(x, "dtype")) == (
        jax.tree.map(lambda leaf: (np.shape(leaf), np.asarray(leaf).dtype), tree)
    )
