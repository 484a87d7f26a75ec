"""Footers of files that array_record's reader reads, checked before it is asked to believe them."""

import contextlib
import dataclasses
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader
from bad_files import GOOD, Base
from hostile_files import Chunk, Draft

from arsrc._host.format.chunk_list import ChunkList
from arsrc._host.format.highway_hash import highway_hash
from arsrc._host.format.layout import LayoutError, logical
from arsrc._host.machine.buffers import BufferPool
from arsrc._host.readers import footer_records
from arsrc._host.readers.footer_records import list_chunks
from arsrc._host.readers.group_cache import GroupCache
from arsrc._host.records.data_set import DataSet
from arsrc._host.storage.open_file import OpenFile
from arsrc._host.storage.paths import FileSlice
from arsrc.errors import ArsrcReadError

WriteRecords = Callable[..., str]

RECORDS = [random.Random(n).randbytes(30 + n) for n in range(40)]


def listed(path: str | Path) -> ChunkList:
    with contextlib.closing(OpenFile(os.fspath(path))) as file:
        return list_chunks(file)


def draft(group_size: int = 1, compression: str = "z") -> Draft:
    groups = [RECORDS[at : at + group_size] for at in range(0, len(RECORDS), group_size)]
    made = Draft([Chunk.of(records, compression) for records in groups], compression)
    made.fill_in()
    return made


@contextlib.contextmanager
def opened(path: Path, data: bytes, checksum: str = "auto") -> Iterator[DataSet]:
    path.write_bytes(data)
    slices = [FileSlice(os.fspath(path))]
    memory = {"buffers": BufferPool(1 << 20), "groups": GroupCache(1 << 20)}
    with contextlib.closing(
        DataSet(slices, checksum=checksum, max_open_files=4, random_access=True, **memory)
    ) as data_set:
        yield data_set


@pytest.mark.parametrize("name", GOOD)
def test_chunks_are_those_that_one_finds_from_header_to_header(tmp_path: Path, name: str) -> None:
    base = Base.load(name)
    (tmp_path / "a").write_bytes(base.data)
    chunks = listed(tmp_path / "a")
    made = Draft.of(base.data)
    made.fill_in()
    entries = made.entries or []
    assert chunks.num_records == len(base.records)
    assert chunks.decoded_sizes.tolist() == [size for _, size, _ in entries]
    assert chunks.group_size == (entries[0][2] if entries else 1)
    if chunks.group_size > 1:
        assert chunks.begins.tolist() == [logical(begin) for begin, _, _ in entries]


@pytest.mark.parametrize("compression", ["uncompressed", "zstd", "brotli", "snappy"])
def test_a_footer_of_many_blocks_is_read_some_records_at_a_time(
    tmp_path: Path, write_records: WriteRecords, monkeypatch: pytest.MonkeyPatch, compression: str
) -> None:
    draw = random.Random(0)
    lengths = [draw.randrange(3) for _ in range(60_000)]
    records = [bytes(length) for length in lengths]
    path = write_records(tmp_path / "a", records, f"group_size:1,{compression}")
    monkeypatch.setattr(footer_records, "_SLAB_RECORDS", 9_999)
    chunks = listed(path)
    assert chunks.decoded_sizes.tolist() == lengths
    assert chunks.decoded_sizes.dtype == np.uint8  # a byte a record, not eight


def test_hashes_are_those_of_files(tmp_path: Path, write_records: WriteRecords) -> None:
    records = [random.Random(n).randbytes(n) for n in range(100)]  # all remainders of 32
    data = Path(write_records(tmp_path / "a", records, "group_size:1,uncompressed")).read_bytes()
    at = 64
    for record in records:
        words = np.frombuffer(data[at : at + 40], "<u8").tolist()
        assert words[0] == highway_hash(data[at + 8 : at + 40])
        assert words[2] == highway_hash(data[at + 40 : at + 42 + 1 + len(record)])
        at += 43 + len(record)


@pytest.mark.parametrize("compression", "\0zbs")
@pytest.mark.parametrize("checksum", ["auto", "always"])
def test_a_footer_that_lies_is_refused_by_name_and_reason(tmp_path: Path, compression: str, checksum: str) -> None:
    made = draft(7, compression)
    made.entries[2][0] = made.entries[1][0]
    expected = r"\[arsrc\] open: is a damaged ArrayRecord file \(chunks are out of order\); got path="
    with pytest.raises(ArsrcReadError, match=expected), opened(tmp_path / "a", made.bytes(), checksum):
        pass


def test_a_chunk_larger_than_memory_is_refused(tmp_path: Path) -> None:
    made = draft()
    made.chunks[3].decoded_size = made.entries[3][1] = 1 << 50
    with (
        pytest.raises(ArsrcReadError, match=f"a chunk takes {(1 << 50) + 8} bytes"),
        opened(tmp_path / "a", made.bytes()),
    ):
        pass


@pytest.mark.parametrize(("group_size", "there", "here"), [(1, 1, 3), (7, 0, 2)])
def test_a_chunk_in_the_place_of_another_is_no_record(tmp_path: Path, group_size: int, there: int, here: int) -> None:
    """It has right hashes, and fits into the place: only the footer knows that it holds something else."""
    made = draft(group_size)
    small, large = made.chunks[there], made.chunks[here]
    assert len(small.data) < len(large.data)
    data, (begin, at) = bytearray(made.bytes()), (made.entries[number][0] for number in (there, here))
    size = 40 + len(small.data)
    data[at : at + size] = data[begin : begin + size]
    with opened(tmp_path / "a", bytes(data)) as data_set:
        good = [row for row in range(len(RECORDS)) if row // group_size != here]
        batch = data_set.read(np.array(good)).records
        assert [bytes(batch[n]) for n in range(len(good))] == [RECORDS[row] for row in good]
        for _ in range(2):
            with pytest.raises(ArsrcReadError, match="a chunk holds other records than the footer says") as raised:
                data_set.read(np.arange(len(RECORDS)))
            assert (raised.value.position, raised.value.record_id) == (here * group_size,) * 2


def test_where_there_are_no_files_in_memory_one_without_a_name_does(
    tmp_path: Path, write_records: WriteRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_records(tmp_path / "a", RECORDS, "group_size:3,zstd")
    monkeypatch.delattr(os, "memfd_create")
    assert listed(path).num_records == len(RECORDS)


def test_a_footer_that_cannot_be_decompressed_is_refused(tmp_path: Path) -> None:
    made = draft()
    (tmp_path / "a").write_bytes(dataclasses.replace(made, compression="x").bytes())
    with pytest.raises(LayoutError, match="the footer cannot be decoded"):
        listed(tmp_path / "a")


def test_reading_footers_leaves_no_descriptor_open(tmp_path: Path, write_records: WriteRecords) -> None:
    path = write_records(tmp_path / "a", RECORDS, "group_size:1,zstd")
    listed(path)
    before = os.listdir("/proc/self/fd")
    for _ in range(5):
        listed(path)
    assert os.listdir("/proc/self/fd") == before
    assert ArrayRecordReader(path).ok()
