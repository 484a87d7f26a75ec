"""What a record is, told by its bytes, against the libraries that write such bytes; and the codec that reads it."""

import functools
import io
import json
import pickle
import re
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import arsrc
from arsrc.cli import kinds, seen, trial
from arsrc.cli.codec_line import codec_text, names_of_some
from arsrc.cli.guess import Sizes, guess
from arsrc.cli.image_heads import image_head
from arsrc.cli.kinds import kind_of
from arsrc.cli.msgpack_wire import value_of
from arsrc.cli.shown import described, hex_dump, lines_of
from arsrc.codecs import document_codec, example_message
from arsrc.codecs.example_wire import features_of
from arsrc.quoted import quoted

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (24, 32, 3), dtype=np.uint8)


class Harm:
    """What a pickle does that nobody should load."""

    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('unpickled')",)


def example_class() -> Any:
    """The message class of `tf.train.Example`, made by protobuf."""
    descriptor_pb2 = pytest.importorskip("google.protobuf.descriptor_pb2")
    from google.protobuf import descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="t", syntax="proto3")
    field = descriptor_pb2.FieldDescriptorProto

    def add(owner: Any, name: str, *fields: tuple[Any, ...]) -> Any:
        message = owner.add(name=name)
        for number, (title, label, kind, type_name) in enumerate(fields, 1):
            message.field.add(name=title, number=number, label=label, type=kind, type_name=type_name)
        return message

    one, many = field.LABEL_OPTIONAL, field.LABEL_REPEATED
    add(file.message_type, "BytesList", ("value", many, field.TYPE_BYTES, None))
    add(file.message_type, "FloatList", ("value", many, field.TYPE_FLOAT, None))
    add(file.message_type, "Int64List", ("value", many, field.TYPE_INT64, None))
    lists = [
        (f"{kind.lower()}_list", one, field.TYPE_MESSAGE, f".t.{kind}List") for kind in ("Bytes", "Float", "Int64")
    ]
    feature = add(file.message_type, "Feature", *lists)
    feature.oneof_decl.add(name="kind")
    for member in feature.field:
        member.oneof_index = 0
    features = add(file.message_type, "Features", ("feature", many, field.TYPE_MESSAGE, ".t.Features.FeatureEntry"))
    entry = add(
        features.nested_type,
        "FeatureEntry",
        ("key", one, field.TYPE_STRING, None),
        ("value", one, field.TYPE_MESSAGE, ".t.Feature"),
    )
    entry.options.map_entry = True
    add(file.message_type, "Example", ("features", one, field.TYPE_MESSAGE, ".t.Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Example"))


def example(**features: list[Any]) -> bytes:
    """A record of these features; a list without values is one of nothing."""
    message = example_class()()
    for name, values in features.items():
        feature = message.features.feature[name]
        kind = type(values[0]) if values else None
        if kind is not None:
            lists = {bytes: feature.bytes_list, float: feature.float_list, int: feature.int64_list}
            lists[kind].value.extend(values)
    return message.SerializeToString()


def encoded(form: str, mode: str = "RGB", size: tuple[int, int] = (32, 24)) -> bytes:
    image = pytest.importorskip("PIL.Image")
    out = io.BytesIO()
    pixels = np.zeros((size[1], size[0]), np.uint16) if mode == "I;16" else np.resize(PIXELS, (size[1], size[0], 3))
    made = image.fromarray(pixels)
    made = made if mode == "I;16" else made.convert(mode)
    if mode == "RGBA":
        made.putalpha(100)
    made.save(out, form, **({"lossless": True} if form == "WEBP" else {}))
    return out.getvalue()


def array_file(save: Any, *args: Any, **named: Any) -> bytes:
    out = io.BytesIO()
    save(out, *args, **named)
    return out.getvalue()


values = st.one_of(
    st.lists(st.binary(max_size=9), max_size=4),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4),
    st.lists(st.floats(width=32, allow_nan=False), max_size=4),
)


@hypothesis.given(st.dictionaries(st.text(max_size=5), values, min_size=1, max_size=5))
def test_features_are_those_that_protobuf_has_written(wanted: dict[str, list[Any]]):
    names = {bytes: "bytes", float: "float32", int: "int64"}
    found = features_of(example(**wanted))
    assert found is not None
    assert {name: feature.values for name, feature in found.items()} == wanted
    assert all(
        feature.kind == (names[type(wanted[name][0])] if wanted[name] else "") for name, feature in found.items()
    )


@hypothesis.given(st.binary(max_size=60), st.integers(0, 60))
def test_what_is_no_example_has_no_features_and_harms_nobody(noise: bytes, cut: int):
    features_of(noise)
    record = example(label=[1], image=[b"0123456789" * 3])
    assert not features_of(record[:cut]) or cut >= len(record)


packable = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(), inner, max_size=20),
    max_leaves=30,
)


@hypothesis.given(st.dictionaries(st.text(), packable, min_size=1) | st.lists(packable, min_size=1))
def test_message_pack_is_read_as_msgspec_has_written_it(wanted: Any):
    msgspec = pytest.importorskip("msgspec")
    record = msgspec.msgpack.encode(wanted)
    assert value_of(record) == wanted
    assert value_of(record + b"\xc0") is None
    assert value_of(record[:-1]) is None


@pytest.mark.parametrize("size", [0, 15, 16, 31, 32, 255, 256, 65_535, 65_536])
def test_message_pack_of_every_size_is_read(size: int):
    msgspec = pytest.importorskip("msgspec")
    wanted = [
        "a" * size,
        b"b" * size,
        [None] * size,
        msgspec.msgpack.Ext(5, b"c" * size),
        {str(i): i for i in range(size)},
    ]
    text, data, items, extension, mapping = value_of(msgspec.msgpack.encode(wanted))  # type: ignore[misc]
    assert [text, data, items, mapping] == [*wanted[:3], wanted[4]]
    assert extension == (5, b"c" * size)


def test_message_pack_without_an_end_is_none():
    assert value_of(b"\x91" * 100_000) is None
    assert value_of(b"\xdf\xff\xff\xff\xff") is None
    assert value_of(b"\x81\x80\x01") is None, "a map is no key"


@pytest.mark.parametrize(
    ("form", "mode", "channels"),
    [
        ("JPEG", "RGB", 3), ("JPEG", "L", 1), ("PNG", "RGB", 3), ("PNG", "RGBA", 4), ("PNG", "L", 1), ("PNG", "P", 3),
        ("PNG", "I;16", 1), ("WEBP", "RGB", 3), ("WEBP", "RGBA", 4), ("GIF", "P", 3), ("BMP", "RGB", 3),
    ],
)  # fmt: skip
@pytest.mark.parametrize("size", [(32, 24), (1, 1), (300, 7)])
def test_the_head_of_an_image_says_its_size(form: str, mode: str, channels: int, size: tuple[int, int]):
    data = encoded(form, mode, size)
    head = image_head(data)
    assert head is not None
    assert (head.format.upper(), head.width, head.height) == (form, *size)
    assert head.channels == channels
    assert head.bits == (16 if mode == "I;16" else 8)
    for cut in range(min(len(data), 200)):
        image_head(data[:cut])


def test_the_heads_of_webp_without_and_with_loss_say_the_size():
    image = pytest.importorskip("PIL.Image")
    out = io.BytesIO()
    image.fromarray(PIXELS).save(out, "WEBP", quality=50)
    assert image_head(out.getvalue()) == ("WebP", 24, 32, 3, 8)
    out = io.BytesIO()
    image.fromarray(PIXELS).convert("RGBA").save(out, "WEBP", quality=50, exif=b"Exif\0\0" + bytes(20))
    found = image_head(out.getvalue())
    assert found is not None
    assert found[:3] == ("WebP", 24, 32)


RECORDS = {
    kinds.NPY: lambda: array_file(np.save, np.zeros(3)),
    kinds.NPZ: lambda: array_file(np.savez, a=np.zeros(3)),
    kinds.PICKLE: lambda: pickle.dumps(Harm()),
    kinds.EXAMPLE: functools.partial(example, label=[3]),
    kinds.IMAGE: functools.partial(encoded, "JPEG"),
    kinds.JSON: lambda: b' {"a": [1, 2]}',
    kinds.TEXT: lambda: bytes("Grüße, {a}\n", "utf-8"),
    kinds.MSGPACK: lambda: b"\x81\xa1a\x01",
    kinds.TOKENS: lambda: np.arange(1, 90, dtype="<i4").tobytes(),
    kinds.BYTES: functools.partial(RNG.bytes, 784),
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_is_told_by_its_bytes(name: str):
    record = RECORDS[name]()
    kind = kind_of(record)
    assert kind.name == name
    assert described(kind)
    assert all(line.isprintable() for line in lines_of(record, kind))


@pytest.mark.parametrize("array", [np.zeros((3, 4)), np.zeros((), "bool"), np.zeros(2, ">i2")])
def test_the_head_of_an_array_says_its_dtype_and_shape(array: np.ndarray):
    assert described(kind_of(array_file(np.save, array))) == f"npy, {array.dtype.name} {array.shape}"
    for save in (np.savez, np.savez_compressed):
        assert kind_of(array_file(save, a=array, b=array)).value == dict.fromkeys("ab", (array.dtype.name, array.shape))


@hypothesis.given(st.integers(0, 400), st.integers(1, 255))
def test_a_damaged_archive_is_one_and_harms_nobody(at: int, flip: int):
    record = bytearray(array_file(np.savez, a=np.zeros(3), b=np.zeros(2)))
    assert kind_of(bytes(record[: max(100, at)])).name == kinds.NPZ
    record[max(at, 100)] ^= flip
    assert kind_of(bytes(record)).name == kinds.NPZ


def test_an_array_of_what_is_no_dtype_harms_nobody():
    record = array_file(np.save, np.zeros(3))
    assert kind_of(record.replace(b"<f8", b"<zz")).name == kinds.NPY


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_told_and_never_loaded(protocol: int):
    assert kind_of(pickle.dumps(Harm(), protocol)).name == kinds.PICKLE


@hypothesis.given(st.binary(max_size=200))
def test_whatever_a_record_holds_it_is_something_and_can_be_shown(record: bytes):
    kind = kind_of(record)
    assert len(list(lines_of(record, kind))) < 50
    assert codec_text([kind], are_equal=True, max_bytes=len(record))


def test_a_hex_dump_shows_where_bytes_stand_and_is_cut():
    lines = list(hex_dump(bytes(range(256)) * 2))
    assert lines[4] == "000040  40 41 42 43 44 45 46 47 48 49 4a 4b 4c 4d 4e 4f  @ABCDEFGHIJKLMNO"
    assert lines[-1] == "... (512 bytes in all)"
    assert lines[0].endswith("  " + "." * 16)


# Codecs.


def text_for(*records: bytes) -> str:
    sizes = [len(record) for record in records]
    return codec_text([kind_of(record) for record in records], len(set(sizes)) == 1, max(sizes))


def test_the_codec_of_examples_has_what_all_of_them_have():
    same, other = encoded("PNG"), encoded("PNG", size=(16, 16))
    one = {
        "id": [b"a1"],
        "label": [7],
        "box": [0.5, 1.5],
        "tags": [1, 2],
        "image": [same],
        "raw": [b"\0\1\2"],
        "none": [],
    }
    found = text_for(
        example(**one), example(**one | {"tags": [1], "image": [other], "id": [b"a23"], "many": [b"", b""]})
    )
    assert found.splitlines() == [
        "TFExample({",
        '    "box": ("float32", (2,)),',
        '    "id": Ragged(max_length=3),',
        '    "image": Image((24, 32, 3), fit="resize"),',
        '    "label": "int64",',
        '    "raw": Bytes(3),',
        '    "tags": Ragged("int64", max_length=2),',
        "})",
    ]


@pytest.mark.parametrize(
    ("records", "text"),
    [
        ([b"\0" * 7] * 2, "Bytes()"),
        ([b"\0" * 7, b"\0"], "Ragged(max_length=7)"),
        ([b"text"] * 2, "Bytes()"),
        ([np.arange(1, 9, dtype="<i4").tobytes()] * 2, 'Struct({"tokens": ("int32", (8,))})'),
        ([np.arange(1, size, dtype="<i4").tobytes() for size in (8, 9)], 'Ragged("int32", max_length=8)'),
        ([b"\0" * 7, b"text"], "Ragged(max_length=7)"),
        ([pickle.dumps(1)], "Bytes()"),
        ([b'{"a": {"b": 1}}'], "Bytes()"),
        ([b"[1, 2]"], "Bytes()"),
        ([array_file(np.save, np.zeros(3))], "Npy()"),
        ([array_file(np.save, np.array(["text"]))], "Bytes()"),
        ([array_file(np.save, np.zeros(size)) for size in (1, 2)], "Ragged(max_length=144)"),
        ([array_file(np.savez, a=np.array([None]))], "Bytes()"),
    ],
)
def test_the_codec_of_records(records: list[bytes], text: str):
    assert text_for(*records) == text


def test_the_codec_of_images_refuses_other_sizes_where_all_have_one():
    assert text_for(encoded("PNG"), encoded("JPEG")) == 'Image((24, 32, 3), fit="exact")'
    assert text_for(encoded("PNG", "L"), encoded("PNG", "RGBA")) == 'Image((24, 32, 4), fit="exact")'
    assert text_for(encoded("PNG", "I;16")) == 'Image((24, 32, 1), fit="exact", dtype="uint16")'


NEARLY_ALL = {
    "image": (lambda: encoded("JPEG"), 'Image((24, 32, 3), fit="exact")', "image"),
    "example": (lambda: example(a=[1]), 'TFExample({"a": "int64"})', "tf.train.Example"),
    "JSON": (lambda: b'{"a": 1}', 'Json({"a": "int64"})', "map of JSON"),
    "npy": (lambda: array_file(np.save, np.zeros(3)), "Npy()", "array of npy"),
    "tokens": (lambda: np.arange(1, 9, dtype="<i4").tobytes(), 'Ragged("int32", max_length=8)', "run of int32 tokens"),
}


@pytest.mark.parametrize("name", NEARLY_ALL)
@pytest.mark.parametrize("bad", [b"", b"no such record", b"[1]", b"{}"])
def test_a_bad_record_among_many_takes_nothing_from_the_codec_and_is_said(name: str, bad: bytes):
    record, text, noun = NEARLY_ALL[name][0](), *NEARLY_ALL[name][1:]
    found = [kind_of(one) for one in [bad, *[record] * 30]]
    codec, remarks = guess(found, Sizes(31, 31, max(len(record), len(bad)), are_equal=False))
    assert codec == text
    assert remarks[1] == f'1 of 31 records that were looked at is no {noun}: on_bad_record="mask".'
    several = guess([*found, *found[:1] * 5], Sizes(36, 36, 99, are_equal=False))
    assert several.codec == "Ragged(max_length=99)", "not of one kind any more"


def test_lengths_of_some_records_are_said_to_be_of_some():
    of_field = [kind_of(b'{"a": "xyz"}')] * 2
    remark = "Its lengths are the longest of 2 records: raise max_length where others are longer."
    assert guess(of_field, Sizes(9, 9, 12, are_equal=True)).remarks[1] == remark
    assert guess(of_field, Sizes(2, 2, 12, are_equal=True)).remarks[1:] == []
    of_bytes = [kind_of(b"text"), kind_of(b"a text")]
    assert guess(of_bytes, Sizes(9, 2, 6, are_equal=False)).remarks[1] == remark
    assert guess(of_bytes, Sizes(9, 9, 6, are_equal=False)).remarks[1:] == []


@pytest.mark.parametrize("codec", ["Json", "MsgPack"])
def test_the_codec_of_fields_has_what_all_records_have_and_arrays_can_hold(codec: str):
    rows = [
        {"a": 1, "b": 1.5, "c": True, "d": "xy", "e": [[1, 2]], "f": [1], "g": {"h": 1}, "i": None, "k": [1.5], "l": 3},
        {"a": 2, "b": 1, "c": False, "d": "\u00e4", "e": [[3, 4]], "f": [], "g": {"h": 1}, "i": 1, "k": ["x"]},
    ]
    if codec == "MsgPack":
        records = [pytest.importorskip("msgspec").msgpack.encode(row) for row in rows]
    else:
        records = [json.dumps(row).encode() for row in rows]
    assert text_for(*records).splitlines() == [
        f"{codec}({{",
        '    "a": "int64",',
        '    "b": "float32",',
        '    "c": "bool",',
        '    "d": Ragged(max_length=2),',
        '    "e": ("int64", (1, 2)),',
        '    "f": Ragged("int64", max_length=1),',
        "})",
    ]
    assert names_of_some([kind_of(record) for record in records]) == ["l"]


def test_the_codec_of_archives_has_the_arrays_that_are_alike_in_all_of_them():
    label, image = np.int32(1), np.zeros((2, 3), np.uint8)
    several = [
        array_file(np.savez, label=label, image=image, text=np.zeros(n), name="x", **{"x" * n: 1}) for n in (1, 2)
    ]
    found = [kind_of(record) for record in several]
    codec, remarks = guess(found, Sizes(2, 2, 9, are_equal=False))
    assert codec == 'Npz({"label": "int32", "image": ("uint8", (2, 3))})'
    assert remarks == [
        "The codec is guessed from 2 of 2 records.",
        "Not in all of them, so left out: x, xx.",
        "Left out, as of several shapes or dtypes, or no numbers: name, text.",
    ]


@pytest.mark.parametrize(
    "record", [pickle.dumps(1), b"[1, 2]", b'{"a": {"b": 1}}', b"\x91\xa0" * 8, b"\x9f" + b"\x01" * 15]
)
def test_records_that_no_codec_decodes_are_said_to_be_bytes(record: bytes):
    kind = kind_of(record)
    codec, remarks = guess([kind], Sizes(1, 1, len(record), are_equal=True))
    assert codec == "Bytes()"
    is_said = (
        f"It gives the bytes of each record, which is {kind.name}: a function of yours decodes them by Map." in remarks
    )
    assert is_said == (kind.name != kinds.BYTES)


def test_what_is_said_of_records_looks_at_each_once(monkeypatch: pytest.MonkeyPatch):
    looked: list[bytes] = []
    monkeypatch.setattr(seen, "kind_of", lambda record: looked.append(record) or kind_of(record))
    one = seen.Seen()
    one.add([b"text", b"more text"])
    assert one.guess().codec == "Ragged(max_length=9)"
    assert looked == [b"text", b"more text"]


GUESSED = {
    "Npz": lambda: [
        array_file(save, a=np.ones((3, 4), ">f4"), b=np.int8(1)) for save in (np.savez, np.savez_compressed)
    ],
    "TFExample": lambda: [example(a=[1, number], b=[0.5] * number, c=[b"x" * number], d=[7]) for number in range(1, 4)],
    "Json": lambda: [json.dumps({"a": number, "b": [1.5] * number, "c": "x" * number}).encode() for number in range(3)],
    "MsgPack": lambda: [b"\x82\xa1a\x01\xa1b\x92\x01\x02", b"\x82\xa1a\xcd\x01\x00\xa1b\x91\x01"],
    "Npy": lambda: [array_file(np.save, np.zeros((3, 4)))] * 2,
    "Image": lambda: [encoded("PNG"), encoded("JPEG", size=(9, 7))],
    "Ragged": lambda: [b"text", b"text of another length"],
    "Struct": lambda: [np.arange(1, 9, dtype="<i4").tobytes()] * 2,
}


@pytest.mark.parametrize("codec", [name for name in GUESSED if hasattr(arsrc.codecs, name)])
def test_the_codec_that_is_guessed_decodes_the_records(codec: str):
    records = GUESSED[codec]()
    text = text_for(*records)
    assert text.startswith(f"{codec}(")
    made = eval(text, vars(arsrc.codecs)).resolve(records[0])
    arsrc.codecs.check_batch(
        made.decode(arsrc.codecs.RecordBatch.from_records(records)), made.element_spec(), len(records)
    )


@pytest.mark.parametrize("codec", GUESSED)
def test_every_codec_that_is_guessed_is_tried_on_all_records(codec: str):
    one = seen.Seen()
    for _ in range(3):
        one.add(GUESSED[codec]() * 200)
    text, remarks = one.guess()
    assert text.startswith(f"{codec}(")
    assert re.search(", and (reads|fits) all of them", remarks[0]), remarks


def test_an_array_of_another_shape_far_behind_is_counted():
    arrays = [array_file(np.save, np.zeros(3))] * 500
    one = seen.Seen()
    one.add([*arrays, array_file(np.save, np.zeros(4)), *arrays, b"", *arrays])
    text, remarks = one.guess()
    assert text == "Npy()"
    assert remarks[1].startswith("It does not read 2 of them (")


def test_a_codec_that_cannot_be_made_here_is_not_said_to_read_all(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(document_codec, "msgspec", None)
    trial._codec.cache_clear()
    one = seen.Seen()
    one.add([json.dumps({"a": "x" * number}).encode() for number in range(1000)])
    remarks = one.guess().remarks
    assert re.fullmatch(r"The codec is guessed from \d+ of 1,000 records\.", remarks[0])
    assert remarks[1].startswith("Its lengths are the longest of ")


def test_an_example_that_cannot_be_read_here_is_not_said_to_be_read(monkeypatch: pytest.MonkeyPatch):
    records = [example(a=[number]) for number in range(1000)]
    odd = b"\x0a\x00" + records[1]  # its features come in two parts
    one = seen.Seen()
    one.add([*records[:501], odd, *records[501:]])
    assert one.guess().remarks[0].endswith(", and reads all of them.")
    monkeypatch.setattr(example_message, "_example_class", lambda: None)
    one = seen.Seen()
    one.add([*records[:501], odd, *records[501:]])
    assert re.fullmatch(r"The codec is guessed from \d+ of 1,001 records\.", one.guess().remarks[0])


@hypothesis.given(
    text=st.text(st.characters(exclude_categories=())) | st.sampled_from(["\N{GRINNING FACE}", '"\\\n', "\ud83d"])
)
def test_a_quoted_name_is_pythons_and_can_be_written(text: str):
    assert eval(quoted(text)) == text
    assert quoted(text).encode()
