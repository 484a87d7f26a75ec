"""`Npy` and `Npz`: against numpy.save, numpy.savez and numpy.load, and in every error."""

import dataclasses
import io
import math
import os
import pickle
import sys
import tracemalloc
import zipfile
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import arsrc
from arsrc._host.records.codec_identity import describe
from arsrc.codecs import Bytes, Codec, Npy, Npz, Ragged, RecordBatch, TFExample, check_batch
from arsrc.codecs.npy_format import header_of
from arsrc.errors import ArsrcTypeError, ArsrcValueError, RecordError

DTYPES = ["bool", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16"]
GOOD = np.arange(6, dtype=np.float32).reshape(2, 3)
CODEC = Npy(("float32", (2, 3)))


def saved(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asanyarray(array), version)
    return file.getvalue()


def zipped(compressed: bool = False, **arrays: Any) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


def batch_of(*records: bytes) -> RecordBatch:
    return RecordBatch.from_records(records)


def same_bits(left: Any, right: Any) -> None:
    left, right = np.asarray(left), np.asarray(right)
    assert (left.dtype, left.shape, left.tobytes()) == (right.dtype, right.shape, right.tobytes())


@st.composite
def batches(draw: Any) -> np.ndarray:
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = draw(st.lists(st.integers(0, 3), max_size=3).map(tuple))
    num_records = draw(st.integers(1, 4))
    size = num_records * math.prod(shape) * dtype.itemsize
    raw = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), np.uint8)
    return (raw % 2 if dtype.kind == "b" else raw).view(dtype).reshape(num_records, *shape)


# Npy.


@given(batches(), st.data())
def test_records_of_numpy_save_in_any_form_are_the_arrays(arrays: np.ndarray, data: Any):
    def form(array: np.ndarray) -> bytes:
        order, byte_order = data.draw(st.sampled_from("CF")), data.draw(st.sampled_from("<>"))
        version = data.draw(st.sampled_from([(1, 0), (2, 0), (3, 0)]))
        return saved(np.asarray(array, array.dtype.newbyteorder(byte_order), order=order), version)

    forms = [form(array) for array in arrays] if data.draw(st.booleans()) else list(map(saved, arrays))
    for codec in (Npy(), Npy((arrays.dtype, arrays.shape[1:]))):
        codec = codec.resolve(forms[0])
        decoded = codec.decode(RecordBatch.from_records(forms))
        check_batch(decoded, codec.element_spec(), len(arrays))
        same_bits(decoded, arrays)
        assert decoded.flags.c_contiguous
        assert decoded.flags.aligned


@given(batches())
def test_numpy_load_reads_what_is_encoded_and_it_is_what_numpy_save_writes(arrays: np.ndarray):
    for codec in (Npy(), Npy((arrays.dtype, arrays.shape[1:]))):
        encoded = codec.encode(arrays)
        same_bits(codec.resolve(encoded[0]).decode(encoded), arrays)
        for record, array in zip(encoded, arrays, strict=True):
            same_bits(np.load(io.BytesIO(record), allow_pickle=False), array)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn])
def test_dtypes_of_ml_dtypes_are_read_where_the_spec_names_them(dtype: Any):
    arrays = np.arange(6).astype(dtype).reshape(2, 3)
    codec = Npy((dtype, 3))
    assert [record[:128] for record in codec.encode(arrays)] == [header_of(np.dtype(dtype), (3,))] * 2
    same_bits(codec.decode(codec.encode(arrays)), arrays)
    raw = [saved(array.view(f"V{arrays.itemsize}")) for array in arrays]
    same_bits(codec.decode(RecordBatch.from_records(raw)), arrays)
    with pytest.raises(
        RecordError, match=r"row 0: the record holds void\d+\[3\], which JAX arrays cannot be\. .*bfloat16"
    ):
        Npy().resolve(raw[0])


def test_a_bool_is_true_unless_its_byte_is_zero():
    record = saved(np.array([True, False, True]))[:-3] + b"\2\0\1"
    assert Npy(("bool", 3)).decode(batch_of(record)).view(np.uint8).tolist() == [[1, 0, 1]]


def test_records_of_equal_headers_are_decoded_at_once_and_not_one_by_one():
    one, many = (RecordBatch.from_records([saved(GOOD)] * num_records) for num_records in (1, 200))
    assert count_calls(CODEC.decode, many) == count_calls(CODEC.decode, one)
    of_both = RecordBatch.from_records([saved(GOOD), saved(np.asfortranarray(GOOD))] * 100)
    assert count_calls(CODEC.decode, of_both) < 3 * count_calls(CODEC.decode, one)


def count_calls(function: Any, argument: Any) -> int:
    """How many functions of Python's and of C's are called in a call."""
    calls = 0

    def count(frame: Any, event: str, value: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    function(argument)
    before = sys.getprofile()
    sys.setprofile(count)
    try:
        function(argument)
    finally:
        sys.setprofile(before)
    return calls


def with_header(text: str, body: bytes = b"", version: int = 1) -> bytes:
    encoded = text.encode()
    return (
        b"\x93NUMPY" + bytes([version, 0]) + len(encoded).to_bytes(2 if version == 1 else 4, "little") + encoded + body
    )


def header(descr: str = "'<f4'", fortran: str = "False", shape: str = "(2, 3)", more: str = "") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, {more}}}"


def flipped(record: bytes, at: int) -> bytes:
    return record[:at] + bytes([record[at] ^ 1]) + record[at + 1 :]


BROKEN = {
    "empty": (b"", "no array as numpy.save writes it"),
    "short": (b"\x93NUMPY\1", "no array as numpy.save writes it"),
    "text": (b"just some text, not an array", "no array as numpy.save writes it"),
    "version": (with_header(header(), GOOD.tobytes(), 9), "no array as numpy.save writes it"),
    "minor": (flipped(saved(GOOD), 7), "no array as numpy.save writes it"),
    "cut": (saved(GOOD)[:-1], r"the record has 151 bytes, its header says 152: float32\[2, 3\]"),
    "longer": (saved(GOOD) + b"\0", "the record has 153 bytes, its header says 152"),
    "cut header": (saved(GOOD)[:100], "header is said to have 118 bytes, the record has 100"),
    "long header": (with_header(" " * 11_000 + header(), version=2), "header is said to have 110.. bytes"),
    "huge header": (b"\x93NUMPY\2\0\xff\xff\xff\xff" + b"{}" * 9, "header is said to have 4294967295 bytes"),
    "no dict": (with_header("[1]"), "header cannot be read"),
    "no Python": (with_header("{'descr'"), "header cannot be read"),
    "no text": (b"\x93NUMPY\1\0\4\0\xff\xff\xff\xff", "header cannot be read"),
    "code": (with_header(header(descr="__import__('os').abort()")), "header cannot be read"),
    "nested": (with_header("(" * 5000), "header cannot be read"),
    "signs": (with_header("-" * 9000 + "1"), "header cannot be read"),
    "more": (with_header(header(more="'a': 1")), "header cannot be read"),
    "negative": (with_header(header(shape="(-2, -3)"), GOOD.tobytes()), "header cannot be read"),
    "bool size": (with_header(header(shape="(True, 6)"), GOOD.tobytes()), "header cannot be read"),
    "list": (with_header(header(shape="[2, 3]"), GOOD.tobytes()), "header cannot be read"),
    "order": (with_header(header(fortran="0"), GOOD.tobytes()), "header cannot be read"),
    "huge": (with_header(header(shape="(2 ** 60,)")), "header cannot be read"),
    "claims": (with_header(header(shape=f"({2**60}, {2**60})"), b"1234"), "its header says 53"),
    "objects": (
        saved(np.array([{}, None])),
        r"an array of '\|O', which is no dtype of numbers, and objects are not unpickled",
    ),
    "texts": (saved(np.array(["a", "b"])), "an array of '<U1', which is no dtype of numbers"),
    "dates": (saved(np.array(["2020"], "M8[D]")), r"an array of '<M8\[D\]', which is no dtype of numbers"),
    "structs": (saved(np.zeros(2, [("a", "f4")])), "which is no dtype of numbers"),
    "odd dtype": (with_header(header(descr="'<f3'")), "an array of '<f3', which is no dtype of numbers"),
    "longdouble": (saved(np.zeros(2, np.longdouble)), "holds another array than the spec says"),
    "other dtype": (
        saved(GOOD.astype("i4")),
        r"holds another array than the spec says.*\n.*float32\[2, 3\]\n.*int32\[2, 3\]",
    ),
    "other shape": (saved(GOOD.T), r"holds another array.*\n.*float32\[2, 3\]\n.*float32\[3, 2\]"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_record_that_is_something_else_is_an_error_that_names_its_row(kind: str):
    record, said = BROKEN[kind]
    good = saved(GOOD)
    for records in (batch_of(good, record, good), batch_of(good, good[:-1] + b"\1", record)):
        with pytest.raises(RecordError, match=said) as caught:
            CODEC.decode(records)
        assert caught.value.row == next(row for row, each in enumerate(records) if each == record)
    if kind not in ("other dtype", "other shape"):
        with pytest.raises(RecordError, match=said if kind != "longdouble" else "which JAX arrays cannot be"):
            Npy().resolve(record)


def test_a_header_that_claims_more_than_there_is_takes_no_memory():
    claims = with_header(header(shape=f"({2**33},)"), b"1234")
    tracemalloc.start()
    try:
        for codec in (Npy(), Npy(("float32", 2**33))):
            with pytest.raises(RecordError, match=f"its header says {2**35 + len(claims) - 4}"):
                codec.resolve(claims)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda junk: saved(GOOD)[: 128 - len(junk)] + junk))
def test_junk_is_an_error_of_its_record_and_nothing_else(junk: bytes):
    for records in (batch_of(junk), batch_of(saved(GOOD), junk), batch_of(junk, saved(GOOD))):
        with pytest.raises(RecordError):
            CODEC.decode(records)


@given(st.lists(st.tuples(st.integers(0, 127), st.integers(0, 255)), min_size=1, max_size=3))
def test_a_header_with_flipped_bytes_is_the_same_array_or_an_error(flips: list[tuple[int, int]]):
    record = bytearray(saved(GOOD))
    for at, byte in flips:
        record[at] = byte
    try:
        decoded = CODEC.decode(batch_of(saved(GOOD), bytes(record)))
    except RecordError:
        decoded = None
    if decoded is not None:
        same_bits(decoded[1], np.load(io.BytesIO(record), allow_pickle=False).astype(np.float32))
    else:
        assert bytes(record) != saved(GOOD)


def test_sources_take_the_spec_from_the_first_record(tmp_path):
    arrays = np.random.default_rng(0).normal(size=(10, 4, 2)).astype(np.float16)
    arsrc.write_array_record(tmp_path / "a", arrays, codec=Npy())
    config = arsrc.ArrayRecordSourceConfig(str(tmp_path / "a"), 5, Npy(), num_epochs=1)
    assert arsrc.element_spec(config) == jax.ShapeDtypeStruct((4, 2), np.float16)
    found = np.concatenate([batch.data for _, batch in arsrc.iterate(config)])
    same_bits(found, arrays)
    arsrc.close(config)


def test_they_are_frozen_hashable_values():
    codecs: list[Any] = [Npy(), CODEC, Npy("float32"), Npz({"a": "u1"}), Npz({"a": ("u1", 1)}), Npz({"b": "u1"})]
    assert len(set(codecs)) == len(codecs)
    assert len({describe(codec) for codec in codecs[1:]}) == len(codecs) - 1
    for codec in codecs:
        assert isinstance(codec, Codec)
        for again in (pickle.loads(pickle.dumps(codec)), dataclasses.replace(codec)):
            assert (again, hash(again), repr(again)) == (codec, hash(codec), repr(codec))
    with pytest.raises(dataclasses.FrozenInstanceError):
        CODEC.spec = None
    assert list(map(repr, codecs[:4])) == ["Npy()", "Npy(('float32', (2, 3)))", "Npy('float32')", "Npz({'a': 'uint8'})"]
    assert Npy(jax.ShapeDtypeStruct((2, 3), "float32")) == CODEC == Npy(GOOD)


@pytest.mark.parametrize(
    ("act", "error", "said"),
    [
        (lambda: Npy().element_spec(), ArsrcValueError, r"Npy\.spec: is not known yet\. Call resolve"),
        (lambda: Npy().decode(batch_of(saved(GOOD))), ArsrcValueError, r"Npy\.spec: is not known yet"),
        (lambda: Npy("text"), ArsrcTypeError, r"Npy\.spec: is no dtype"),
        (lambda: CODEC.encode(GOOD), ArsrcValueError, r"Npy\.encode: has another shape"),
        (
            lambda: CODEC.encode(np.zeros((1, 2, 3), complex)),
            ArsrcTypeError,
            r"Npy\.encode: has a dtype of another kind",
        ),
        (lambda: Npy().encode(np.array(["a"])), ArsrcTypeError, r"Npy\.encode: is no dtype that JAX arrays can have"),
        (lambda: Npy().encode(np.float32(1)), ArsrcValueError, r"Npy\.encode: has another shape"),
        (lambda: Npz({}), ArsrcValueError, r"Npz\.fields: is empty"),
        (lambda: Npz({"a": "text"}), ArsrcTypeError, r"Npz field 'a': is no dtype"),
        (lambda: Npz({"a": "u1"}).encode({"b": 1}), ArsrcValueError, r"Npz\.encode: the field names differ"),
        (lambda: Npz({"a": "u1"}).encode({"a": GOOD}), ArsrcValueError, r"Npz\.encode field 'a': has another shape"),
        (
            lambda: Npz({"a": "u1", "b": "u1"}).encode({"a": np.zeros(1, "u1"), "b": np.zeros(2, "u1")}),
            ArsrcValueError,
            r"Npz\.encode: leading axes differ",
        ),
    ],
)
def test_what_means_nothing_is_refused(act: Any, error: Any, said: str):
    with pytest.raises(error, match=said):
        act()


# Npz.


@given(batches(), batches(), st.booleans())
def test_records_of_numpy_savez_are_dicts_of_their_arrays(left: np.ndarray, right: np.ndarray, compressed: bool):
    rows = range(min(len(left), len(right)))
    records = [zipped(compressed, a=left[row], other=GOOD, b=np.asarray(right[row], order="F")) for row in rows]
    codec = Npz({"a": (left.dtype, left.shape[1:]), "b": (right.dtype, right.shape[1:])})
    decoded = codec.resolve(records[0]).decode(RecordBatch.from_records(records))
    check_batch(decoded, codec.element_spec(), len(rows))
    same_bits(decoded["a"], left[: len(rows)])
    same_bits(decoded["b"], right[: len(rows)])
    encoded = codec.encode(decoded)
    for row in rows:
        with np.load(io.BytesIO(encoded[row]), allow_pickle=False) as file:
            same_bits(file["a"], left[row])
            same_bits(file["b"], right[row])
    assert list(codec.encode(codec.decode(encoded))) == list(encoded)


def member(name: str, content: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr(name, content)
    return file.getvalue()


PLAIN = zipped(a=GOOD)
BROKEN_NPZ = {
    "empty": (b"", "the record is no file as numpy.savez writes it"),
    "npy": (saved(GOOD), "the record is no file as numpy.savez writes it"),
    "cut": (PLAIN[:-1], "the record is no file as numpy.savez writes it"),
    "checksum": (flipped(PLAIN, PLAIN.index(GOOD.tobytes()) + 5), "no file as numpy.savez .*Bad CRC"),
    "missing": (zipped(b=GOOD), r"field 'a' is missing\. The record holds \['b.npy'\]"),
    "other": (zipped(a=GOOD.T), "field 'a': the record holds another array than the spec says"),
    "objects": (zipped(a=np.array([{}])), "field 'a': .*objects are not unpickled"),
    "no npy": (member("a.npy", b"text"), "field 'a': the record is no array as numpy.save"),
    "lzma": (member("a.npy", saved(GOOD), zipfile.ZIP_LZMA), "field 'a' has 152 bytes in compression 14"),
    "bomb": (member("a.npy", bytes(10**7), zipfile.ZIP_DEFLATED), "field 'a' has 10000000 bytes in compression 8"),
}


@pytest.mark.parametrize("kind", BROKEN_NPZ)
def test_a_record_that_is_another_file_is_an_error_that_names_its_row(kind: str):
    record, said = BROKEN_NPZ[kind]
    codec = Npz({"a": ("float32", (2, 3))})
    with pytest.raises(RecordError, match=f"row 1: {said}" if "field" in said[:5] else said) as caught:
        codec.decode(batch_of(PLAIN, record, PLAIN))
    assert caught.value.row == 1


def test_what_is_compressed_beyond_what_it_says_takes_no_memory():
    record = bytearray(member("a.npy", bytes(2**26), zipfile.ZIP_DEFLATED))
    at = record.index(b"PK\1\2") + 24
    record[at : at + 4] = (152).to_bytes(4, "little")  # its length, as the directory says
    tracemalloc.start()
    try:
        with pytest.raises(RecordError):
            Npz({"a": ("float32", (2, 3))}).resolve(bytes(record))
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


@given(st.lists(st.tuples(st.integers(0, len(PLAIN) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_junk_in_an_npz_is_decoded_or_an_error_of_its_record_and_nothing_else(flips: list[tuple[int, int]]):
    record = bytearray(PLAIN)
    for at, byte in flips:
        record[at] = byte
    row = 1
    try:
        Npz({"a": ("float32", (2, 3))}).decode(batch_of(PLAIN, bytes(record)))
    except RecordError as error:
        row = error.row
    assert row == 1


def test_the_order_of_fields_of_npz_does_not_count() -> None:
    one, other = Npz({"a": "int32", "b": "uint8"}), Npz({"b": "uint8", "a": "int32"})
    assert one == other
    assert hash(one) == hash(other)
    assert repr(one) == repr(other)


def test_decoding_enters_no_python_code_of_jax() -> None:
    wanted = {"a": "int32", "b": ("float32", 2), "c": Ragged("int32", max_length=3)}
    default = {"a": 1, "b": np.zeros(2, "f4"), "c": np.arange(2)}
    example = TFExample(wanted, default)
    rows = example.encode(
        {
            "a": np.array([1]),
            "b": np.ones((1, 2), "f4"),
            "c": {"values": np.array([[1, 2, 3]]), "length": np.array([2])},
        }
    )
    raw = TFExample({"b": Bytes(8)}).encode({"b": np.zeros((1, 8), "u1")})
    other = TFExample({"z": "int32"}).encode({"z": np.array([1])})
    npz, npy = Npz({"a": "int32", "b": ("float32", 2)}), Npy(("int32", 2))
    arrays = npz.encode({"a": np.array([1, 2]), "b": np.ones((2, 2), "f4")})
    big_endian = io.BytesIO()
    np.save(big_endian, np.arange(2, dtype=">i4"))
    batches = [
        (example, RecordBatch.from_records([rows[0], raw[0], other[0]])),
        (npz, arrays),
        (npy, RecordBatch.from_records([npy.encode(np.array([[1, 2]]))[0], big_endian.getvalue()])),
    ]
    entered: set[str] = set()
    folder = os.path.dirname(jax.__file__) + os.sep

    def note(frame: Any, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(folder):
            entered.add(f"{frame.f_code.co_filename}:{frame.f_code.co_name}")

    sys.setprofile(note)
    try:
        for codec, records in batches:
            codec.decode(records)
    finally:
        sys.setprofile(None)
    assert not entered
