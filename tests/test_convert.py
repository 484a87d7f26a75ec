"""`arsrc convert`: files of every format become the records they hold, or there is an error and no output."""

import functools
import gzip
import io
import json
import os
import re
import struct
import sys
import tarfile
import tracemalloc
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import msgpack
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from array_record.python.array_record_module import ArrayRecordReader

import arsrc
from arsrc._host.storage.paths import FileSlice
from arsrc.cli import main, seen
from arsrc.cli.inputs import array_record, blocks, npz, parquet, tfrecord, window
from arsrc.cli.seen import Seen
from arsrc.record_batch import RecordBatch

GOLDEN = Path(__file__).parent / "golden"  # written by TensorFlow 2.21
GOLDEN_RECORDS = [b"", b"record", bytes(range(200)), b"record"]
RECORDS = [bytes([number]) * (3 + number % 4) for number in range(50)]
FORM = re.compile(r"arsrc: error: [\w.' ]+: \S.*[^.\s]\.( [A-Z].*[.?])?\n", re.DOTALL)

Convert = Callable[..., str]
Fails = Callable[..., str]


# What writes files of other formats.


@functools.cache
def crc32c_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (byte & 1) * 0x82F63B78
        table.append(byte)
    return table


def masked_crc(data: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ crc32c_table()[(crc ^ byte) & 255]
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def tfrecords(records: Sequence[bytes]) -> bytes:
    heads = [struct.pack("<Q", len(record)) for record in records]
    pieces = [
        head + masked_crc(head) + record + masked_crc(record) for head, record in zip(heads, records, strict=True)
    ]
    return b"".join(pieces)


def tar(files: Sequence[tuple[str, bytes]], **options: Any) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", **options) as archive:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def table(path: Path, columns: Any, **options: Any) -> None:
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), path, **options)


LABELS = np.arange(50, dtype=np.int32)
IMAGES = np.arange(50 * 6, dtype=np.uint8).reshape(50, 2, 3)
SAMPLES = [(f"d/{number}", {"jpg": b"\xff" + bytes([number]), "cls": b"%d" % number}) for number in range(50)]
STRUCTS = [image.tobytes() + label.tobytes() for image, label in zip(IMAGES, LABELS, strict=True)]
LINES = [json.dumps({"id": number, "text": "é" * number}, ensure_ascii=False).encode() for number in range(50)]
SAMPLE_FILES = [(f"{key}.{kind}", content) for key, sample in SAMPLES for kind, content in sample.items()]


def write_npz(path: Path, save: Any = np.savez) -> None:
    save(path, image=IMAGES, label=LABELS)


def write_parquet(path: Path) -> None:
    table(path, {"text": [record.decode("latin") for record in RECORDS]}, row_group_size=7)


# Name of the file, what writes it, its records.
FILES: dict[str, tuple[str, Callable[[Path], Any], list[bytes]]] = {
    "tfrecord": ("a.tfrecord", lambda path: path.write_bytes(tfrecords(RECORDS)), RECORDS),
    "tfrecord of another name": ("a", lambda path: path.write_bytes(tfrecords(RECORDS)), RECORDS),
    "tfrecord by gzip": ("a.tfrecord", lambda path: path.write_bytes(gzip.compress(tfrecords(RECORDS))), RECORDS),
    "tfrecord by zlib": ("a.tfrecord", lambda path: path.write_bytes(zlib.compress(tfrecords(RECORDS))), RECORDS),
    "jsonl": ("a.jsonl", lambda path: path.write_bytes(b"\n".join(LINES)), LINES),
    "jsonl by gzip": ("a.jsonl.gz", lambda path: path.write_bytes(gzip.compress(b"\n".join(LINES) + b"\n")), LINES),
    "webdataset": (
        "a.tar",
        lambda path: path.write_bytes(tar(SAMPLE_FILES)),
        [msgpack.packb({"__key__": key, **sample}) for key, sample in SAMPLES],
    ),
    "npz": ("a.npz", write_npz, STRUCTS),
    "npz, compressed": ("a.npz", functools.partial(write_npz, save=np.savez_compressed), STRUCTS),
    "parquet": ("a.parquet", write_parquet, [record.decode("latin").encode() for record in RECORDS]),
}


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of a few hundred bytes take several steps to read, as large ones do."""
    for module in (blocks, window):
        monkeypatch.setattr(module, "BLOCK_BYTES", 100)
    for module in (array_record, npz, parquet):
        monkeypatch.setattr(module, "_STEP_BYTES", 100)


@pytest.fixture
def convert(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Convert:
    """`convert(*args)` in a folder of its own: what the command prints; it must succeed."""
    monkeypatch.chdir(tmp_path)

    def run(*args: str) -> str:
        code = main(["convert", *map(str, args)])
        out, err = capsys.readouterr()
        assert (code, err) == (0, ""), err
        return out

    return run


@pytest.fixture
def fails(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Fails:
    """`fails(*args)`: the error that the command prints; files must be what they were."""
    monkeypatch.chdir(tmp_path)

    def run(*args: str) -> str:
        before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
        code = main(["convert", *map(str, args)])
        out, err = capsys.readouterr()
        assert (code, out) == (1, ""), out
        assert FORM.fullmatch(err), err
        assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
        return err

    return run


def records_of(*paths: str | Path) -> list[bytes]:
    """The records of files, as array_record's own reader reads them."""
    found = []
    for path in paths:
        reader = ArrayRecordReader(os.fspath(path))
        found += reader.read_all()
        reader.close()
    return found


def memory_of(read: Callable[[], Any]) -> int:
    """The most memory that Python's objects took meanwhile."""
    tracemalloc.start()
    try:
        read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# Every format.


@pytest.mark.parametrize("name", FILES)
def test_files_of_every_format_become_their_records(convert, name):
    file, write, expected = FILES[name]
    write(Path(file))
    out = convert(file, "out")
    assert records_of("out") == expected
    assert out.startswith("wrote 50 records, ")
    assert "group_size:1," in ArrayRecordReader("out").writer_options_string()
    assert "uncompressed" in ArrayRecordReader("out").writer_options_string()


@pytest.mark.parametrize("name", FILES)
def test_shards_hold_contiguous_parts_in_the_order_of_the_input(convert, name):
    file, write, expected = FILES[name]
    write(Path(file))
    found = json.loads(convert(file, "out", "--num-shards", "3", "--json"))
    paths = [one["path"] for one in found["files"]]
    assert paths == [os.path.abspath(f"out-0000{shard}-of-00003.array_record") for shard in range(3)]
    assert [one["num_records"] for one in found["files"]] == [17, 17, 16]
    assert records_of(*paths) == expected


@pytest.mark.parametrize("out", ["out", "out.array_record", "folder/out"])
def test_shards_are_named_as_the_set_that_is_read(convert, out):
    Path("folder").mkdir()
    Path("a.tfrecord").write_bytes(tfrecords(RECORDS))
    line = convert("a.tfrecord", out, "--num-shards", "3").splitlines()[0]
    written, name = line.rsplit(" ", 1)
    assert written == f"wrote 50 records, {sum(map(len, RECORDS))} bytes of records, to the 3 files of"
    config = arsrc.ArrayRecordSourceConfig(name, 10, arsrc.codecs.Ragged(max_length=9))
    assert arsrc.num_records(config) == 50
    arsrc.close(config)


def test_what_info_and_convert_print_as_json_has_one_name_for_one_thing(convert, capsys):
    Path("a.jsonl").write_text("\n".join(map(json.dumps, rows_of_several_kinds())))
    found = json.loads(convert("a.jsonl", "out", "--json", "--num-shards", "2"))
    assert main(["info", "out@2.array_record", "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)
    assert {name: found[name] for name in ("files", "num_records", "num_bytes")} == {
        name: whole[name] for name in ("files", "num_records", "num_bytes")
    }
    assert found.keys() <= whole.keys()
    assert found["codec"].startswith("Json({")
    assert whole["codec"].startswith("Json({")
    assert found["remarks"][1:] == [
        "Not in all of them, so to be named with a default: some.",
        "Left out, as null, or nested, or of several kinds, or without a name: nested, null.",
    ]
    assert whole["remarks"][0] == "The codec is guessed from 32 of 1,000 records."


def test_without_a_codec_that_is_known_json_says_null(convert):
    table(Path("a.parquet"), {"a": pa.array([None, 1], pa.int64()), "b": ["x", None]})
    assert json.loads(convert("a.parquet", "out", "--json"))["codec"] is None


def test_inputs_come_in_the_order_in_which_they_are_named_and_globs_in_sorted_order(convert):
    parts = {"c": RECORDS[:10], "a": RECORDS[10:20], "b": RECORDS[20:30], "d": []}
    for name, records in parts.items():
        Path(f"{name}.tfrecord").write_bytes(tfrecords(records))
    convert("d.tfrecord", "c.tfrecord", "[ab].*", "out")
    assert records_of("out") == RECORDS[:30]
    convert("*.tfrecord", "sorted")
    assert records_of("sorted") == RECORDS[10:30] + RECORDS[:10]


def test_sharded_sets_as_tfds_names_them_are_inputs(convert):
    for shard in range(2):
        Path(f"x-train.tfrecord-0000{shard}-of-00002").write_bytes(tfrecords(RECORDS[shard::2]))
    convert("x-train.tfrecord@2", "out")
    assert records_of("out") == RECORDS[::2] + RECORDS[1::2]


def test_options_are_those_of_the_writer(convert, fails):
    Path("a.tfrecord").write_bytes(tfrecords(RECORDS))
    convert("a.tfrecord", "out", "--options", "group_size:10,zstd")
    assert "group_size:10" in ArrayRecordReader("out").writer_options_string()
    assert records_of("out") == RECORDS
    assert "odd" in fails("a.tfrecord", "other", "--options", "odd")


# TFRecord.


def test_the_writer_of_these_tests_writes_what_tensorflow_writes():
    assert tfrecords(GOLDEN_RECORDS) == (GOLDEN / "records.tfrecord").read_bytes()


@pytest.mark.parametrize("name", ["records.tfrecord", "records.gzip", "records.zlib"])
def test_files_that_tensorflow_wrote_are_read(convert, name):
    convert(GOLDEN / name, "out")
    assert records_of("out") == GOLDEN_RECORDS


def test_a_first_length_that_looks_as_a_zlib_or_gzip_file_begins_is_a_length(convert):
    for size in (0x0178, 0x8B1F):
        records = [bytes(size), b"second"]
        Path("a").write_bytes(tfrecords(records))
        convert("a", "out", "--overwrite")
        assert records_of("out") == records


def outcome(path: Path, capsys: Any) -> list[bytes] | str:
    """What becomes of a file: its records, or the error."""
    code = main(["convert", str(path), "out", "--overwrite"])
    err = capsys.readouterr().err
    if code:
        assert repr(str(path)) in err
        assert FORM.fullmatch(err), err
        assert not Path("out").exists()
        return err
    found = records_of("out")
    Path("out").unlink()
    return found


@pytest.mark.usefixtures("convert")
def test_no_flipped_byte_of_a_tfrecord_file_passes(tmp_path, capsys):
    whole = tfrecords([b"", b"abc", b"d" * 30])
    begins = [0, 16, 35]
    for at in range(len(whole)):
        path = tmp_path / "a.tfrecord"
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        position = sum(begin <= at for begin in begins) - 1
        text = outcome(path, capsys)
        assert isinstance(text, str)
        assert f"position={position}, byte={begins[position]}" in text
        assert "the checksum of a record" in text


@pytest.mark.usefixtures("convert")
def test_a_tfrecord_file_that_is_cut_inside_of_a_record_is_an_error(tmp_path, capsys):
    whole = tfrecords([b"", b"abc", b"d" * 30])
    begins = {0: 0, 16: 1, 35: 2, len(whole): 3}
    path = tmp_path / "a.tfrecord"
    for length in range(1, len(whole) + 1):
        path.write_bytes(whole[:length])
        found = outcome(path, capsys)
        if length in begins:
            assert found == [b"", b"abc", b"d" * 30][: begins[length]]
        else:
            assert "ends in the midst of a record" in found
            last = max(begin for begin in begins if begin < length)
            assert f"position={begins[last]}, byte={last}" in found


@pytest.mark.usefixtures("convert")
@pytest.mark.parametrize("name", ["records.gzip", "records.zlib"])
def test_a_packed_file_that_is_damaged_or_cut_gives_its_records_or_an_error(tmp_path, capsys, name):
    whole = (GOLDEN / name).read_bytes()
    path = tmp_path / "a.tfrecord"
    num_errors = 0
    for at in range(0, len(whole), 3):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        found = outcome(path, capsys)
        num_errors += isinstance(found, str)
        assert isinstance(found, str) or found == GOLDEN_RECORDS  # nothing checks gzip's time and system
    assert num_errors > len(whole) // 3 - 5
    for length in range(1, len(whole), 5):
        path.write_bytes(whole[:length])
        assert isinstance(outcome(path, capsys), str)


def test_a_packed_file_of_several_members_and_zeros_behind_them_is_read_to_the_end(convert, fails):
    packed = b"".join(gzip.compress(tfrecords([record])) for record in RECORDS)
    Path("a.tfrecord").write_bytes(packed + bytes(300))
    convert("a.tfrecord", "out")
    assert records_of("out") == RECORDS
    Path("a.tfrecord").write_bytes(packed + b"garbage")
    assert "a compressed file is damaged" in fails("a.tfrecord", "other")


@hypothesis.given(
    records=st.lists(st.one_of(st.binary(max_size=300), st.sampled_from([b"", b"x" * 20, b"y" * 20])), max_size=60),
    block_bytes=st.integers(1, 500),
    pack=st.sampled_from([bytes, gzip.compress, zlib.compress]),
)
@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
def test_records_are_read_wherever_blocks_end(tmp_path, monkeypatch, records, block_bytes, pack):
    for module in (blocks, window):
        monkeypatch.setattr(module, "BLOCK_BYTES", block_bytes)
    path = tmp_path / "a"
    path.write_bytes(pack(tfrecords(records)))
    assert [record for piece in tfrecord.read(str(path)) for record in piece] == records


def test_memory_does_not_grow_with_the_input(tmp_path, monkeypatch):
    for module in (blocks, window):
        monkeypatch.setattr(module, "BLOCK_BYTES", 1 << 19)
    path = tmp_path / "a.tfrecord"
    path.write_bytes(gzip.compress(tfrecords([bytes(10_000)]) * 2_000, 1))  # 20 MB
    tracemalloc.start()
    try:
        assert sum(map(len, tfrecord.read(str(path)))) == 2_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5e6


@pytest.mark.usefixtures("convert")
@pytest.mark.parametrize("pack", [bytes, gzip.compress, zlib.compress])
@pytest.mark.parametrize("length", [40_000_000, 2**31 - 1, 2**31, 2**64 - 1])
def test_a_length_takes_no_memory_by_itself(tmp_path, capsys, monkeypatch, pack, length):
    for module in (blocks, window):
        monkeypatch.setattr(module, "BLOCK_BYTES", 1 << 19)
    head = struct.pack("<Q", length)
    path = tmp_path / "a.tfrecord"
    path.write_bytes(pack(tfrecords([b"abc"]) + head + masked_crc(head) + bytes(30_000_000)))
    errors: list[str] = []
    peak = memory_of(lambda: errors.append(outcome(path, capsys)))
    assert "position=1, byte=19" in errors[0]
    if pack is bytes:
        assert "ends in the midst of a record" in errors[0]
        assert peak < 5e6
    elif length < 2**31:
        assert "ends in the midst of a record" in errors[0]
        assert peak < 7e7
    else:
        assert "the length of a record in a compressed file is larger than 2,147,483,647" in errors[0]
        assert peak < 5e6


# JSON lines.


def test_lines_are_kept_as_they_are_without_their_ends(convert):
    Path("a.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n  [1, 2]  \n"text"\n\n7')
    convert("a.jsonl", "out")
    assert records_of("out") == [b'{"a": 1}', b"[1, 2]", b'"text"', b"7"]


@pytest.mark.parametrize("line", [b'{"a": }', b'{"a": 1', b"{} {}", b'{"a": "\xff"}', b"[" * 100_000, b"\0"])
def test_a_line_that_is_no_json_is_named(convert, fails, line):
    Path("a.jsonl").write_bytes(b'{"a": 1}\n\n{"a": 2}\n' + line + b'\n{"a": 3}\n')
    text = fails("a.jsonl", "out")
    assert "a line is no JSON" in text
    assert "a.jsonl', position=2, line=4." in text


def test_a_cut_file_of_packed_lines_is_an_error(convert, fails):
    whole = gzip.compress(b"\n".join(LINES))
    Path("a.jsonl.gz").write_bytes(whole[:-9])
    assert "ends too early" in fails("a.jsonl.gz", "out")


def rows_of_several_kinds() -> list[dict[str, Any]]:
    """1,000 rows, whose later ones are longer, of other numbers and lists, or lack something."""
    late = range(880, 1000)
    return [
        {
            "text": "x" * (50 if number in late else 3),
            "x": 0.5 if number in late else 1,
            "list": [1] * (5 if number in late else 2),
            "null": None if number in late else 1,
            "nested": {"a": 1},
            **({} if number in late else {"some": 1}),
        }
        for number in range(1000)
    ]


def test_the_codec_is_guessed_from_records_all_over_the_output_and_reads_them(convert):
    rows = rows_of_several_kinds()
    Path("a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    out = convert("a.jsonl", "out")
    assert re.search(
        r"^# The codec is guessed from (\d\d) of 1,000 records, and reads all of them\.$", out, re.MULTILINE
    ), out
    assert "# Not in all of them, so to be named with a default: some.\n" in out
    assert "# Left out, as null, or nested, or of several kinds, or without a name: nested, null.\n" in out
    codec = eval(out.partition("codec=")[2], vars(arsrc.codecs))
    decoded = codec.decode(RecordBatch.from_records(records_of("out")))
    np.testing.assert_array_equal(decoded["x"], [row["x"] for row in rows])


def rows_of_json(*late: Any) -> list[bytes]:
    """Records of growing length, and some that are unlike all in front of them."""
    rows = [{"a": number, "b": "x" * (number % 290), "c": [1.5] * 3} for number in range(1000)]
    return [json.dumps(row).encode() for row in [*rows[:501], *late, *rows[501:]]]


@pytest.mark.parametrize("num_shards", [1, 3])
@pytest.mark.parametrize(
    "late",
    [
        {"a": 1, "b": "x" * 300, "c": [1.5] * 3},
        {"a": 1.5, "b": "x", "c": [1.5] * 3},
        {"a": 1, "b": "x", "c": [1.5] * 9},
        {"a": 1, "c": [1.5] * 3},
        {"a": 1, "b": "x", "c": None},
    ],
)
def test_the_codec_that_convert_prints_reads_records_that_were_not_looked_at(convert, late, num_shards):
    records = rows_of_json(late)
    Path("a.jsonl").write_bytes(b"\n".join(records))
    found = json.loads(convert("a.jsonl", "out", "--json", "--num-shards", str(num_shards)))
    codec = eval(found["codec"], vars(arsrc.codecs))
    decoded = codec.decode(RecordBatch.from_records(records))
    assert "c" in decoded or late["c"] is None
    assert re.fullmatch(r"The codec is guessed from \d+ of 1,001 records, and reads all of them\.", found["remarks"][0])


def test_tokens_and_pictures_that_were_not_looked_at_fit_the_codec_too(convert):
    tokens = [np.arange(1, 9 + number % 5, dtype="<i4").tobytes() for number in range(1000)]
    Path("a.tfrecord").write_bytes(tfrecords([*tokens[:501], b"\1\2\3\4\5", *tokens[501:]]))
    found = json.loads(convert("a.tfrecord", "out", "--json"))
    assert found["codec"] == 'Ragged("int32", max_length=12)'
    assert found["remarks"][1].startswith("It does not read 1 of them (")
    assert found["remarks"][1].endswith('): on_bad_record="mask".')
    pixels = [np.zeros((4, 5 + (number == 501), 3), np.uint8) for number in range(1000)]
    images = arsrc.codecs.Image((4, 5, 3), fit="resize", format="png")
    pictures = [images.encode(one[None, :, :5])[0] for one in pixels]
    wide = arsrc.codecs.Image((4, 6, 3), format="png").encode(pixels[501][None])[0]
    Path("a.tfrecord").write_bytes(tfrecords([*pictures[:501], wide, *pictures[501:]]))
    found = json.loads(convert("a.tfrecord", "out", "--json", "--overwrite"))
    assert found["codec"] == 'Image((4, 5, 3), fit="resize")'
    assert found["remarks"][0].endswith(" of 1,001 records, and fits all of them, as far as heads of pictures tell.")


def test_records_that_no_codec_of_the_others_reads_are_counted(convert):
    Path("a.jsonl").write_bytes(b"\n".join(rows_of_json([1, 2], "text", {"a": "x", "b": "x", "c": [1.5] * 3})))
    found = json.loads(convert("a.jsonl", "out", "--json"))
    assert found["codec"] == 'Json({"b": Ragged(max_length=289), "c": ("float32", (3,))})'
    assert found["remarks"][1].startswith("It does not read 2 of them (the record is no Json map")
    Path("a.jsonl").write_bytes(b"\n".join(rows_of_json(*[[1, 2]] * 400)[:1400]))
    found = json.loads(convert("a.jsonl", "out", "--json", "--overwrite"))
    assert found["codec"].startswith("Ragged(max_length="), "no codec reads nearly all"
    assert found["remarks"][0].endswith(" of 1,400 records, and reads all of them.")


def test_records_are_counted_once_and_looked_at_all_over_the_input_whatever_the_shards(convert):
    Path("a.jsonl").write_bytes(b"\n".join(rows_of_json()))
    one, several = (json.loads(convert("a.jsonl", f"out{n}", "--json", "--num-shards", n)) for n in "12")
    assert (one["codec"], one["remarks"]) == (several["codec"], several["remarks"])


def test_trying_the_codec_takes_no_room_for_long_records_beside_short_ones(tmp_path):
    one = seen.Seen()
    one.add([b'{"a": "x"}'] * 5_000 + [b'{"a": "%b"}' % (b"x" * 2_000_000)])
    assert memory_of(lambda: one.add([b'{"a": "x"}'] * 5_000)) < 20e6
    assert one.guess().codec == 'Json({"a": Ragged(max_length=2000000)})'


def test_the_codec_of_lists_works_as_it_stands(convert):
    Path("a.jsonl").write_text("[1, 2]\n[3, 4, 5]\n")
    out = convert("a.jsonl", "out")
    assert "# It gives the bytes of each record, which is JSON: a function of yours decodes them by Map.\n" in out
    assert eval(out.partition("codec=")[2], vars(arsrc.codecs)) == arsrc.codecs.Ragged(max_length=9)


def test_info_names_the_same_fields_that_are_left_out(convert, capsys):
    Path("a.jsonl").write_text("\n".join(map(json.dumps, rows_of_several_kinds())))
    convert("a.jsonl", "out")
    assert main(["info", "out"]) == 0
    out = capsys.readouterr().out
    assert "# The codec is guessed from 32 of 1,000 records.\n" in out
    assert "# Left out, as null, or nested, or of several kinds, or without a name: nested, null.\n" in out


# WebDataset.


def test_files_of_a_sample_are_told_by_what_stands_before_the_first_dot(convert):
    files = [
        ("README", b"no dot"),
        ("a/1.seg.png", b"seg"),
        ("a/1.JPG", b"jpg"),
        ("b.c/1.cls", b"other folder"),
        ("b.c/.hidden", b"no name"),
        ("b.c/2.cls", b""),
    ]
    Path("a.tar").write_bytes(tar(files))
    convert("a.tar", "out")
    assert [msgpack.unpackb(record) for record in records_of("out")] == [
        {"__key__": "a/1", "seg.png": b"seg", "jpg": b"jpg"},
        {"__key__": "b.c/1", "cls": b"other folder"},
        {"__key__": "b.c/2", "cls": b""},
    ]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_long_names_are_names(convert, form, pack):
    name = "é" * 70 + "/" + "y" * 120
    Path("a.tar").write_bytes(pack(tar([(f"{name}.txt", b"text" * 500)], format=form)))
    convert("a.tar", "out", "--from", "webdataset")
    assert [msgpack.unpackb(record) for record in records_of("out")] == [{"__key__": name, "txt": b"text" * 500}]


def test_a_sample_with_two_files_of_one_kind_is_an_error(convert, fails):
    Path("a.tar").write_bytes(tar([("1.txt", b""), ("2.txt", b"a"), ("2.TXT", b"b")]))
    text = fails("a.tar", "out")
    assert "two files of the kind 'txt'" in text
    assert "position=1, file='2.TXT'" in text


def test_a_sample_whose_files_do_not_stand_side_by_side_is_an_error(fails):
    Path("a.tar").write_bytes(tar([("a.jpg", b"1"), ("b.jpg", b"2"), ("a.cls", b"3")]))
    text = fails("a.tar", "out")
    assert "the files of the sample 'a' do not stand side by side" in text
    assert "file='a.cls'" in text
    assert "sorted by name" in text


@pytest.mark.usefixtures("convert")
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_an_archive_that_is_cut_or_whose_headers_are_damaged_is_an_error(tmp_path, capsys, pack):
    whole = tar([("1.txt", b"a" * 700), ("2.txt", b"b")], format=tarfile.PAX_FORMAT)
    expected = [msgpack.packb({"__key__": "1", "txt": b"a" * 700}), msgpack.packb({"__key__": "2", "txt": b"b"})]
    path = tmp_path / "a.tar"
    data_end = 512 + 1024 + 512 + 512
    for length in [*range(100, data_end + 1, 100), *range(512, data_end + 1, 512)]:
        path.write_bytes(pack(whole[:length]))
        assert "a tar archive is damaged, or not complete" in outcome(path, capsys), length
    path.write_bytes(pack(whole[: data_end + 512]))
    assert outcome(path, capsys) == expected
    for at in [*range(0, 270, 9), *range(1536, 1536 + 270, 9)]:
        path.write_bytes(pack(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :]))
        assert isinstance(outcome(path, capsys), str), at


def sparse_tar(size: int) -> bytes:
    """An archive in which a file is said to be of that size, but for ten bytes all holes."""
    info = tarfile.TarInfo("a.txt")
    info.size, info.type = 10, tarfile.GNUTYPE_SPARSE
    head = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    head[386:410] = b"%011o\0%011o\0" % (0, 10)
    head[483:495] = b"%011o\0" % size
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + b"x" * 10 + bytes(502 + 1024)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_file_with_holes_in_an_archive_is_refused(fails, pack):
    Path("a.tar").write_bytes(pack(sparse_tar(100_000_000)))
    with tarfile.open("a.tar") as archive:
        assert [(member.size, member.issparse()) for member in archive] == [(100_000_000, True)]
    errors = []
    assert memory_of(lambda: errors.append(fails("a.tar", "out"))) < 2e7
    assert "a file with holes, which is not read" in errors[0]
    assert "a.tar', file='a.txt'" in errors[0]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_size_in_an_archive_takes_no_memory_by_itself(fails, pack):
    info = tarfile.TarInfo("a.txt")
    info.size = 500_000_000
    Path("a.tar").write_bytes(pack(info.tobuf() + bytes(2_000)))
    errors = []
    assert memory_of(lambda: errors.append(fails("a.tar", "out"))) < 2e7
    assert "a tar archive is damaged, or not complete" in errors[0]
    assert pack is not bytes or "file='a.txt', size=500000000" in errors[0]


# npz.


def test_rows_of_arrays_are_what_struct_reads(convert):
    arrays = {
        "fortran": np.asfortranarray(IMAGES.astype(">i2")),
        "flag": LABELS % 2 == 0,
        "nothing": np.zeros((50, 0), np.float32),
        "number": LABELS / 7,
    }
    np.savez("a.npz", **arrays)
    np.savez("b.npz", **{name: array[:7] for name, array in arrays.items()})
    found = json.loads(convert("a.npz", "b.npz", "out", "--json"))
    codec = eval(found["codec"], {"Struct": arsrc.codecs.Struct})
    decoded = codec.decode(arsrc.codecs.RecordBatch.from_records(records_of("out")))
    for name, array in arrays.items():
        np.testing.assert_array_equal(decoded[name], np.concatenate([array, array[:7]]))


@pytest.mark.parametrize(
    ("arrays", "holds"),
    [
        ({"a": np.zeros(3), "b": np.zeros(4)}, ("have no common leading axis", "{'a': 3, 'b': 4}")),
        ({"a": np.zeros(3), "b": np.float32(1)}, ("have no common leading axis", "'b': 'no axis'")),
        ({}, ("have no common leading axis",)),
        ({"a": np.array([{}, {}])}, ("holds Python objects", "array='a.npy'", "unpickling runs code")),
        ({"a": np.array(["x", "y"])}, ("no dtype that JAX arrays can have", "dtype='str32'", "a.npz'")),
        ({"a": np.zeros(0)}, ("the inputs hold no records",)),
    ],
)
def test_arrays_that_are_no_rows_are_refused(tmp_path, convert, arrays, holds, capsys):
    np.savez("a.npz", **arrays)
    assert main(["convert", "a.npz", "out", "--from", "npz"]) == 1
    text = capsys.readouterr().err
    for part in holds:
        assert part in text
    assert os.listdir(tmp_path) == ["a.npz"]


def test_archives_of_other_arrays_are_refused(convert, fails):
    np.savez("a.npz", x=LABELS)
    np.savez("b.npz", x=LABELS.astype(np.int64))
    text = fails("a.npz", "b.npz", "out")
    assert "other arrays than the first one" in text
    assert "b.npz'" in text


@pytest.mark.usefixtures("convert")
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_or_cut_archive_of_arrays_gives_its_records_or_an_error(tmp_path, capsys, save):
    path = tmp_path / "a.npz"
    save(path, x=LABELS, y=IMAGES)
    whole = path.read_bytes()
    expected = [label.tobytes() + image.tobytes() for label, image in zip(LABELS, IMAGES, strict=True)]
    outcomes = []
    for at in range(0, whole.index(b"PK\1\2"), 5):  # what comes behind says which arrays there are
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        outcomes.append(outcome(path, capsys))
    for length in range(1, len(whole), 17):
        path.write_bytes(whole[:length])
        outcomes.append(outcome(path, capsys))
    assert all(isinstance(found, str) or found == expected for found in outcomes)
    assert sum(isinstance(found, str) for found in outcomes) > len(outcomes) / 2


# Parquet.


def test_rows_of_numbers_are_what_struct_reads(convert):
    columns = pa.table(
        {
            "x": pa.array(LABELS / 3, pa.float16()),
            "flag": LABELS % 3 == 0,
            "pair": pa.FixedSizeListArray.from_arrays(pa.array(np.arange(200).astype(np.float32)), 4),
            "time": pa.array(LABELS.astype(np.int64), pa.timestamp("us")),
            "day": pa.array(LABELS, pa.date32()),
            "code": pa.array(LABELS % 3).dictionary_encode(),
            "inner": pa.StructArray.from_arrays([pa.array(LABELS)], ["y"]),
        }
    )
    table("a.parquet", columns, row_group_size=20)
    found = json.loads(convert("a.parquet", "out", "--json"))
    codec = eval(found["codec"], {"Struct": arsrc.codecs.Struct})
    decoded = codec.decode(arsrc.codecs.RecordBatch.from_records(records_of("out")))
    expected = {
        "x": (LABELS / 3).astype(np.float16), "flag": LABELS % 3 == 0, "time": LABELS, "day": LABELS,
        "pair": np.arange(200, dtype=np.float32).reshape(50, 4), "code": LABELS % 3, "inner.y": LABELS,
    }  # fmt: skip
    assert list(decoded) == ["x", "flag", "pair", "time", "day", "code", "inner.y"]
    for name, values in expected.items():
        np.testing.assert_array_equal(decoded[name], values)


def test_lists_of_numbers_are_what_ragged_reads(convert):
    lists = [list(range(number % 5)) for number in range(50)]
    table("a.parquet", {"tokens": pa.array(lists, pa.large_list(pa.uint16()))}, row_group_size=9)
    found = json.loads(convert("a.parquet", "out", "--json"))
    assert found["codec"] == 'Ragged("uint16", max_length=4)'
    assert [np.frombuffer(record, "<u2").tolist() for record in records_of("out")] == lists


def test_names_of_columns_are_python_in_the_codec(convert):
    name = "\N{GRINNING FACE} \u00e9"
    table("a.parquet", {name: pa.array(range(50), pa.int32()), "b": pa.array(["x"] * 50)})
    found = json.loads(convert("a.parquet", "out", "--json"))
    assert set(dict(eval(found["codec"], vars(arsrc.codecs)).fields)) == {name, "b"}
    assert name in found["codec"]


def test_other_rows_are_maps_of_names_to_values(convert):
    rows = [
        {
            "image": {"bytes": b"\x89", "path": None}, "label": 3, "x": 0.5,
            "tokens": [1, 2], "pair": [1.0, 2.0], "tags": ["a"],
        },
        {
            "image": {"bytes": b"", "path": "p"}, "label": None, "x": -1.0,
            "tokens": [], "pair": [3.0, 4.0], "tags": None,
        },
    ]  # fmt: skip
    kinds = pa.schema(
        [
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int8()),
            ("x", pa.float32()), ("tokens", pa.list_(pa.int32())), ("pair", pa.list_(pa.float32(), 2)),
            ("tags", pa.list_(pa.string())),
        ]
    )  # fmt: skip
    table("a.parquet", pa.Table.from_pylist(rows, kinds))
    found = json.loads(convert("a.parquet", "out", "--json"))
    assert found["codec"] == (
        'MsgPack({"image.bytes": Ragged(max_length=1), "x": "float32", "tokens": Ragged("int32", max_length=2), '
        '"pair": ("float32", (2,))})'
    )
    assert [msgpack.unpackb(record) for record in records_of("out")] == [
        {
            "image.bytes": b"\x89", "label": 3, "x": 0.5, "tags": ["a"],
            "tokens": np.array([1, 2], "<i4").tobytes(), "pair": np.array([1, 2], "<f4").tobytes(),
        },
        {
            "image.bytes": b"", "image.path": "p", "x": -1.0,
            "tokens": b"", "pair": np.array([3, 4], "<f4").tobytes(),
        },
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("column", "position"),
    [
        (pa.array([1, 2, None]), 2),
        (pa.array([b"a", None]), 1),
        (pa.array([[1], None], pa.list_(pa.int32())), 1),
        (pa.array([[1], [], [1, None], [2]], pa.list_(pa.int32())), 2),
        (pa.array([[1, 2], [3, None]], pa.list_(pa.int32(), 2)), 1),
        (pa.array([[1, 2], [3, 4], None], pa.list_(pa.int32(), 2)), 2),
    ],
)
def test_a_missing_value_that_an_array_needs_is_named(convert, fails, column, position):
    table("a.parquet", {"x": column}, row_group_size=1)
    text = fails("a.parquet", "out")
    by_pyarrow = "Expected all lists to be of size=2"  # which up to some version reads no missing lists of fixed size
    path = str(Path("a.parquet").resolve())
    assert by_pyarrow in text or f"column 'x' has no value in a row; got path={path!r}, position={position}." in text


def test_tables_that_are_no_data_set_are_refused(convert, fails):
    table("a.parquet", {"x": [1]})
    table("b.parquet", {"x": [1.0]})
    text = fails("a.parquet", "b.parquet", "out")
    assert "other columns than the first one" in text
    assert "x: double" in text
    table("a.parquet", pa.table([[1], [2]], names=["x", "x"]))
    assert "two columns of one name" in fails("a.parquet", "out")
    table("a.parquet", pa.table({}))
    assert "has no columns" in fails("a.parquet", "out")


@pytest.mark.usefixtures("convert")
def test_a_damaged_or_cut_table_is_an_error_or_what_it_was(tmp_path, capsys):
    path = tmp_path / "a.parquet"
    table(path, {"x": LABELS}, compression="zstd", write_page_checksum=True, use_dictionary=False)
    whole = path.read_bytes()
    expected = [label.tobytes() for label in LABELS]
    for length in range(4, len(whole), 31):
        path.write_bytes(whole[:length])
        assert isinstance(outcome(path, capsys), str)
    pages = range(4, 200, 3)  # what lies behind describes the columns, and nothing checks that
    outcomes = []
    for at in pages:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        outcomes.append(outcome(path, capsys))
    assert all(isinstance(found, str) or found == expected for found in outcomes)


# ArrayRecord.


@pytest.mark.parametrize(
    "options", ["group_size:1,uncompressed", "group_size:7,zstd", "group_size:9,transpose:true,brotli"]
)
def test_array_record_files_of_all_options_are_inputs(convert, write_records, options):
    for name, records in (("a", RECORDS[:30]), ("b", RECORDS[30:])):
        write_records(name, records, options)
    convert("a", "b", "out", "--options", "group_size:4,zstd")
    assert records_of("out") == RECORDS
    convert("a[5:10]", "b[18:]", "sliced", "--num-shards", "2")
    assert records_of(*sorted(Path().glob("sliced-*"))) == RECORDS[5:10] + RECORDS[48:]


def test_a_damaged_record_of_an_array_record_file_is_named(convert, fails, write_records):
    records = [bytes([number]) * 200 for number in range(20)]
    write_records("a", records, "group_size:1,uncompressed")
    content = bytearray(Path("a").read_bytes())
    content[content.index(records[13]) + 5] ^= 1
    Path("a").write_bytes(content)
    assert f"path={str(Path('a').resolve())!r}, position=13." in fails("a", "out")


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks into /proc")
def test_a_file_that_cannot_be_counted_is_closed(tmp_path, write_records):
    path = write_records(tmp_path / "a", RECORDS, "group_size:7,zstd")
    with pytest.raises(arsrc.ArsrcValueError) as caught:  # which holds on to what was open
        array_record.count([FileSlice(path, 3, 1000)])
    links = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
    assert caught.value is not None
    assert os.path.realpath(path) not in links


def test_a_file_can_be_converted_into_itself(convert, write_records):
    write_records("a", RECORDS, "group_size:7,zstd")
    convert("a", "a", "--overwrite")
    assert records_of("a") == RECORDS
    assert "uncompressed" in ArrayRecordReader("a").writer_options_string()


# What is refused, and what is left behind.


@pytest.mark.parametrize("name", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_has_not_are_refused_since_the_codec_refuses_them(fails, name):
    Path("a.jsonl").write_text(f'{{"a": 1}}\n{{"a": [{name}]}}\n')
    text = fails("a.jsonl", "out")
    assert f"a line is no JSON ({name} is none)" in text
    assert "line=2" in text
    assert not Path("out").exists()


def test_an_output_that_is_there_is_kept_unless_it_may_be_replaced(convert, fails):
    for name in "ab":
        Path(f"{name}.tfrecord").write_bytes(tfrecords(RECORDS))
    text = fails("a.tfrecord", "b.tfrecord")  # as of a glob that the shell expands, and no OUT
    assert "the output is there already" in text
    assert "path='b.tfrecord'" in text
    assert "--overwrite" not in text  # which would not help
    before = Path("b.tfrecord").read_bytes()
    assert "is no ArrayRecord file" in fails("a.tfrecord", "b.tfrecord", "--overwrite")
    assert "is no ArrayRecord file" in fails("a.tfrecord", "a.tfrecord", "--overwrite")
    assert Path("b.tfrecord").read_bytes() == before
    convert("a.tfrecord", "out")
    assert "or give --overwrite" in fails("b.tfrecord", "out")
    convert("b.tfrecord", "out", "--overwrite")
    assert records_of("out") == RECORDS


def test_what_was_there_stays_where_the_input_is_broken(convert, fails, write_records):
    write_records("out", [b"old"])
    Path("a.tfrecord").write_bytes(tfrecords(RECORDS)[:-1])
    assert "position=49" in fails("a.tfrecord", "out", "--overwrite")
    assert "position=49" in fails("a.tfrecord", "out", "--overwrite", "--num-shards", "2")


def test_inputs_of_several_formats_are_refused(convert, fails):
    for name in ("jsonl", "tfrecord"):
        file, write, _ = FILES[name]
        write(Path(file))
    text = fails("a.*", "out")
    assert "the inputs have several formats" in text
    assert "{'jsonl': " in text


@pytest.mark.parametrize("content", [b"some text", b"\x1f\x8bno gzip", bytes(100), b"\x89PNG\r\n\x1a\n"])
def test_a_file_of_no_known_format_is_refused_and_a_format_can_be_said(convert, fails, content):
    Path("a.dat").write_bytes(content)
    assert "of no format that is known here" in fails("a.dat", "out")
    assert "Is it a TFRecord file?" in fails("a.dat", "out", "--from", "tfrecord") or content.startswith(b"\x1f")
    for given in ("array_record", "parquet", "npz", "jsonl", "webdataset"):
        assert "a.dat'" in fails("a.dat", "out", "--from", given)


@pytest.mark.parametrize(
    ("content", "what", "fix"),
    [
        (b"\xff\xd8\xff\xe0", "but a JPEG image", "write_array_record, and read them by the codec Image."),
        (b"GIF89a", "but a GIF image", "write_array_record, and read them by the codec Image."),
        (b"RIFF\0\0\0\0WEBPVP8 ", "but a WebP image", "write_array_record, and read them by the codec Image."),
        (b"a,b\n1,2\n", "but a text file", "Write what it holds with write_array_record"),
        (b"BZh9", "but a file compressed by bzip2", "Unpack it."),
    ],
)
def test_what_a_file_is_that_convert_does_not_read_is_said_with_what_to_do(fails, content, what, fix):
    Path("a.dat").write_bytes(content)
    text = fails("a.dat", "out")
    assert what in text
    assert fix in text


@pytest.mark.parametrize("options", [{}, {"indent": 1}, {"separators": (",\n", ":")}])
def test_a_json_array_is_not_taken_for_lines(convert, fails, options):
    rows = [{"a": 1}, {"a": 2}]
    Path("a.json").write_text(json.dumps(rows, **options))
    assert "is a JSON array, not JSON lines" in fails("a.json", "out")
    Path("a.json").write_text("\n".join(json.dumps(rows) for _ in range(2)))
    convert("a.json", "out")
    assert records_of("out") == [json.dumps(rows).encode()] * 2
    Path("a.jsonl").write_text(json.dumps(rows))
    convert("a.jsonl", "one")
    assert records_of("one") == [json.dumps(rows).encode()]


@pytest.mark.parametrize("name", ["a.tfrecord", "a.jsonl", "a-train.tfrecord-00000-of-00001", "a.jsonl.gz"])
def test_inputs_without_a_record_are_refused(convert, fails, name):
    Path(name).write_bytes(gzip.compress(b"") if name.endswith("gz") else b"")
    for more in ((), ("--num-shards", "2")):
        assert "the inputs hold no records" in fails(name, "out", *more)


def test_a_folder_is_no_input_and_a_glob_is_named(fails):
    Path("folder").mkdir()
    text = fails("folder", "out")
    assert "an input is a folder; got path='folder'. Name its files, by a glob say: 'folder/*'." in text


def test_more_shards_than_records_are_refused(convert, fails):
    Path("a.jsonl").write_bytes(b"1\n2")
    assert "num_elements=2, num_shards=3" in fails("a.jsonl", "out", "--num-shards", "3")


def test_slices_are_of_array_record_files_alone(convert, fails):
    Path("a.jsonl").write_bytes(b"1\n2")
    assert "only ArrayRecord files can be cut into slices" in fails("a.jsonl[0:1]", "out")


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("tfrecord", "google_crc32c", "google-crc32c"),
        ("webdataset", "msgspec.msgpack", "msgspec"),
        ("parquet", "pyarrow", "pyarrow"),
    ],
)
def test_a_package_that_is_not_installed_is_named(convert, fails, monkeypatch, name, module, package):
    file, write, _ = FILES[name]
    write(Path(file))
    monkeypatch.setitem(sys.modules, module, None)
    text = fails(file, "out")
    assert "is not installed" in text
    assert f"package='{package}'. Run pip install 'arsrc[cli]'." in text


def test_of_many_records_those_behind_the_first_ones_are_tried_in_part_and_it_says_how_many(tmp_path: Path) -> None:
    seen, num_records = Seen(), 40_000
    for start in range(0, num_records, 500):
        seen.add(
            [b'{"a": %d, "t": "%s"}' % (row, b"x" * (row % 7 + row // 39_999)) for row in range(start, start + 500)]
        )
    found = seen.guess()
    tried = re.search(r"reads all of the ([\d,]+) that were tried", found.remarks[0])
    assert tried
    num_tried = int(tried[1].replace(",", ""))
    assert 6_000 <= num_tried < 7_000
    assert f"the longest of {num_tried:,} records: raise max_length" in found.remarks[1]
