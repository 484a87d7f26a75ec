"""The file format: positions, headers, postscript, and the sample that identifies a file's content."""

import contextlib
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader
from hypothesis import given

from arsrc._host.format import layout
from arsrc._host.format.fingerprint import content_sample
from arsrc._host.format.layout import BLOCK_BYTES, CHUNK_HEADER_BYTES, FIRST_CHUNK
from arsrc._host.storage.open_file import OpenFile
from arsrc.errors import ArsrcReadError

WriteRecords = Callable[..., str]

KINDS = [
    f"group_size:{group_size},{kind}"
    for group_size in (1, 7, 256)
    for kind in (
        "uncompressed",
        "zstd",
        "brotli",
        "snappy",
        "uncompressed,transpose:true",
        "zstd,transpose:true",
        "uncompressed,pad_to_block_boundary:true",
        "zstd,pad_to_block_boundary:true",
    )
]


def some_records(seed: int | str, num_records: int = 40) -> list[bytes]:
    draw = random.Random(seed)
    lengths = [draw.choice([0, 1, 100, 784, 20_000, 65_500, 65_536, 150_000]) for _ in range(num_records)]
    return [draw.randbytes(length) for length in lengths]


def walk(path: str | Path) -> tuple[list[tuple[int, layout.ChunkHeader]], bytes]:
    """Every chunk of a file in order, found by walking from header to header: (logical position, header)."""
    data = Path(path).read_bytes()
    stream = b"".join(data[at + 24 : at + BLOCK_BYTES] for at in range(0, len(data), BLOCK_BYTES))
    chunks: list[tuple[int, layout.ChunkHeader]] = []
    at = 0
    while at < len(stream):
        chunks.append((at, layout.parse_chunk_header(stream[at : at + CHUNK_HEADER_BYTES])))
        at += CHUNK_HEADER_BYTES + chunks[-1][1].data_size
    return chunks, stream


@given(st.integers(0, 2**45))
def test_a_logical_position_and_its_physical_one_are_inverse(position: int) -> None:
    there = layout.physical(position)
    assert there % BLOCK_BYTES >= 24
    assert layout.logical(there) == position
    assert layout.to_physical(np.array([position])) == [there]
    assert layout.to_logical(np.array([there])) == [position]


@given(st.integers(0, 2**29), st.integers(0, 23))
def test_a_position_in_a_block_header_means_the_byte_behind_it(block: int, in_header: int) -> None:
    position = block * BLOCK_BYTES + in_header
    assert layout.logical(position) == layout.logical(block * BLOCK_BYTES + 24)
    assert layout.to_logical(np.array([position])) == [layout.logical(position)]


@given(st.integers(0, 2**63 - 1))
def test_varints_are_read_back(value: int) -> None:
    rest, data = value, b""
    while rest >= 0x80:
        data += bytes((rest & 0x7F | 0x80,))
        rest >>= 7
    data += bytes((rest,))
    assert layout.parse_varint(b"\x01" + data + b"\x01", 1) == (value, 1 + len(data))
    assert layout.varint_size(value) == len(data)


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff" * 20])
def test_a_varint_without_an_end_is_refused(data: bytes) -> None:
    with pytest.raises(layout.LayoutError):
        layout.parse_varint(data, 0)


@pytest.mark.parametrize("options", KINDS)
def test_walking_from_header_to_header_finds_all_records_and_the_footer(
    tmp_path: Path, write_records: WriteRecords, options: str
) -> None:
    records = some_records(options)
    path = write_records(tmp_path / "a", records, options)
    chunks, _ = walk(path)
    assert chunks[0][1].kind == "s"
    data_chunks = [header for _, header in chunks if header.kind in "rt"][:-2]
    assert sum(header.num_records for header in data_chunks) == len(records)
    assert sum(header.decoded_size for header in data_chunks) == sum(map(len, records))
    with contextlib.closing(OpenFile(path)) as file:
        footer = layout.read_footer_offset(file, os.path.getsize(path))
    (behind_data,) = [begin for begin, header in chunks if header.num_records == len(data_chunks) + 1][-1:]
    assert layout.logical(footer) == behind_data


def test_a_postscript_is_refused_if_any_of_its_bytes_but_hashes_and_the_offset_is_another(
    tmp_path: Path, write_records: WriteRecords
) -> None:
    block = Path(write_records(tmp_path / "a", some_records(0))).read_bytes()[-BLOCK_BYTES:][:256]
    layout.parse_postscript(block)
    data = 24 + CHUNK_HEADER_BYTES
    _, behind = layout.parse_varint(block, data + 6)
    for position in (
        *range(32, 40),
        *range(48, 56),
        *range(data, data + 6),
        *range(behind, data + 5 + block[data + 2]),
    ):
        for bit in range(8):
            damaged = bytearray(block)
            damaged[position] ^= 1 << bit
            with pytest.raises(layout.LayoutError):
                layout.parse_postscript(bytes(damaged))


@pytest.mark.parametrize("parse", [layout.parse_chunk_header, layout.parse_block_header])
def test_a_header_that_is_cut_off_is_refused(parse: Callable[[bytes], Any]) -> None:
    num_bytes = CHUNK_HEADER_BYTES if parse is layout.parse_chunk_header else 24
    parse(bytes(num_bytes))
    with pytest.raises(layout.LayoutError):
        parse(bytes(num_bytes - 1))


@pytest.mark.parametrize("options", ["group_size:1,uncompressed", "group_size:7,zstd,pad_to_block_boundary:true"])
def test_block_headers_point_at_the_chunks_around_them(
    tmp_path: Path, write_records: WriteRecords, options: str
) -> None:
    path = write_records(tmp_path / "a", some_records(0), options)
    chunks, _ = walk(path)
    begins = {begin for begin, _ in chunks}
    ends = {begin + CHUNK_HEADER_BYTES + header.data_size for begin, header in chunks}
    data = Path(path).read_bytes()
    for boundary in range(BLOCK_BYTES, len(data), BLOCK_BYTES):
        previous_chunk, next_chunk = layout.parse_block_header(data[boundary : boundary + 24])
        assert layout.logical(boundary - previous_chunk) in begins
        assert layout.logical(boundary + next_chunk) in ends


@given(st.integers(FIRST_CHUNK, 4 * BLOCK_BYTES), st.integers(0, 3 * BLOCK_BYTES))
def test_reading_the_stream_leaves_out_block_headers(
    records_dir: Path, write_records: WriteRecords, position: int, num_bytes: int
) -> None:
    path = records_dir / "stream"
    if not path.exists():
        write_records(path, some_records(1), "group_size:1,uncompressed")
    _, stream = walk(path)
    begin = layout.logical(position)
    with contextlib.closing(OpenFile(os.fspath(path))) as file:
        data = layout.read_stream(file, position, num_bytes)
    assert data == stream[begin : begin + num_bytes]


def test_reading_the_stream_beyond_the_end_is_refused(tmp_path: Path, write_records: WriteRecords) -> None:
    path = write_records(tmp_path / "a", [b"abc"])
    with contextlib.closing(OpenFile(path)) as file, pytest.raises(layout.LayoutError):
        layout.read_stream(file, os.path.getsize(path) - 10, 11)


@pytest.mark.parametrize("options", KINDS)
def test_a_copy_a_moved_and_a_touched_file_have_the_same_sample(
    tmp_path: Path, write_records: WriteRecords, options: str
) -> None:
    path = write_records(tmp_path / "a", some_records(2), options)
    sample = content_sample(path, 3)
    shutil.copy(path, tmp_path / "b")
    os.utime(path, (1, 1))
    os.rename(path, tmp_path / "c")
    for name in "bc":
        assert content_sample(os.fspath(tmp_path / name), 3) == sample
    assert len(sample) == 32


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("num_records", [1, 40])
def test_another_payload_in_the_first_or_last_chunk_gives_another_sample(
    tmp_path: Path, write_records: WriteRecords, options: str, num_records: int
) -> None:
    records = [random.Random(row).randbytes(3_000) for row in range(num_records)]
    path = write_records(tmp_path / "a", records, options)
    for row in {0, num_records - 1}:
        changed = list(records)
        changed[row] = random.Random("other").randbytes(3_000)
        other = write_records(tmp_path / "b", changed, options)
        assert os.path.getsize(other) == os.path.getsize(path)
        assert content_sample(other, 0) != content_sample(path, 0)


@pytest.mark.parametrize("options", ["group_size:1,uncompressed", "group_size:4,uncompressed", "group_size:1,zstd"])
def test_another_payload_at_any_sampled_block_boundary_gives_another_sample(
    tmp_path: Path, write_records: WriteRecords, options: str
) -> None:
    records = [random.Random(row).randbytes(5_000) for row in range(120)]
    path = write_records(tmp_path / "a", records, options)
    num_blocks = os.path.getsize(path) // BLOCK_BYTES
    sample, first_row, seen = content_sample(path, num_blocks), 0, 0
    for begin, header in walk(path)[0]:
        if header.kind != "r" or first_row == len(records):
            continue
        first, end = layout.physical(begin), layout.physical(begin + CHUNK_HEADER_BYTES + header.data_size)
        if first // BLOCK_BYTES < end // BLOCK_BYTES:
            changed = list(records)
            changed[first_row] = changed[first_row][::-1]
            other = write_records(tmp_path / "b", changed, options)
            assert content_sample(other, num_blocks) != sample
            seen += 1
        first_row += header.num_records
    assert seen >= 8


def test_more_samples_see_more_and_none_see_only_the_ends(tmp_path: Path, write_records: WriteRecords) -> None:
    records = [random.Random(row).randbytes(5_000) for row in range(120)]
    path = write_records(tmp_path / "a", records, "group_size:1,uncompressed")
    boundary = 4 * BLOCK_BYTES // (5_000 + 44)  # the record that this boundary cuts
    records[boundary] = records[boundary][::-1]
    other = write_records(tmp_path / "b", records, "group_size:1,uncompressed")
    assert content_sample(other, 0) == content_sample(path, 0)
    assert content_sample(other, 64) != content_sample(path, 64)


def test_padding_is_not_mistaken_for_content(tmp_path: Path, write_records: WriteRecords) -> None:
    # Chunks that end so close to a block's end that their padding goes on through the whole next block.
    options = "group_size:1,uncompressed,pad_to_block_boundary:true"
    for length in range(65_405, 65_440):
        records = [bytes((length % 251,)) * length, b"x" * 10, bytes((length % 251,)) * length]
        path = write_records(tmp_path / "a", records, options)
        records[2] = records[2][:-1] + b"\xff"
        other = write_records(tmp_path / "b", records, options)
        assert content_sample(other, 0) != content_sample(path, 0)


def test_other_counts_and_lengths_give_another_sample(tmp_path: Path, write_records: WriteRecords) -> None:
    contents: list[list[bytes]] = [[], [b""], [b"", b""], [b"ab"], [b"a", b"b"], [b"a", b""], [b"", b"a"]]
    paths = [write_records(tmp_path / f"{row}", records) for row, records in enumerate(contents)]
    assert len({content_sample(path, 1) for path in paths}) == len(contents)


def test_a_sample_reads_kilobytes_of_a_large_file(
    tmp_path: Path, write_records: WriteRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_records(tmp_path / "a", some_records(3, 200), "group_size:1,uncompressed")
    num_read = 0
    pread = os.pread

    def counting_pread(*args: Any) -> bytes:
        nonlocal num_read
        num_read += len(data := pread(*args))
        return data

    monkeypatch.setattr(os, "pread", counting_pread)
    content_sample(path, 8)
    assert os.path.getsize(path) > 50 * BLOCK_BYTES
    assert num_read < 2 * BLOCK_BYTES


def test_a_damaged_block_header_does_not_stop_the_sample(tmp_path: Path, write_records: WriteRecords) -> None:
    path = write_records(tmp_path / "a", some_records(4), "group_size:1,uncompressed")
    sample = content_sample(path, 100)
    with open(path, "r+b") as file:
        file.seek(2 * BLOCK_BYTES + 8)
        file.write(b"\xff" * 16)
    assert ArrayRecordReader(path).ok()
    assert content_sample(path, 100) != sample


def test_what_is_no_array_record_file_is_refused_with_its_name(tmp_path: Path, write_records: WriteRecords) -> None:
    whole = Path(write_records(tmp_path / "whole", some_records(5))).read_bytes()
    cases = {
        "empty": b"",
        "text": b"hello\n" * 50_000,
        "zeros": bytes(4 * BLOCK_BYTES),
        "cut": whole[:-1],
        "cut_block": whole[:-BLOCK_BYTES],
        "longer": whole + bytes(BLOCK_BYTES),
    }
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ArsrcReadError, match=rf"^\[arsrc\] fingerprint: is no complete .*{name}'"):
            content_sample(os.fspath(tmp_path / name), 2)
    with pytest.raises(ArsrcReadError, match=r"^\[arsrc\] fingerprint: cannot read a file .*missing'"):
        content_sample(os.fspath(tmp_path / "missing"), 2)
