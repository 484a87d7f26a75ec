"""Which files can be read from a map, and where their records lie in them."""

import os
import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader
from mapped_files import file_index, open_indexed, opened, some_records

from arsrc._host.format.chunked import Chunked
from arsrc._host.format.file_index import FileIndex, index_files
from arsrc._host.format.numbering import Numbering
from arsrc._host.format.places import Groups, Spans, Uniform
from arsrc._host.format.streams import can_decode
from arsrc._host.readers.map_reads import BadRows
from arsrc._host.storage import system
from arsrc._host.storage.address_range import AddressRange
from arsrc._host.storage.paths import FileSlice

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="files are mapped on Linux only")

WriteRecords = Callable[..., str]

LENGTHS = [0, 1, 100, 127, 128, 784, 16_384, 16_385, *range(65_466, 65_474), *range(65_509, 65_538, 3)]


def index_of(path: str) -> FileIndex:
    """The index of a file that must have one; every record of the file, read both ways, is compared."""
    expected = ArrayRecordReader(path).read_all()
    index = file_index(path)
    assert index is not None
    if expected:
        files = opened(path)
        assert files.records() == expected
        assert files.records(range(len(expected))[::-1]) == expected[::-1]
        files.close()
    return index


@pytest.mark.parametrize("group_size", [1, 7, 256])
@pytest.mark.parametrize("compression", ["uncompressed", "zstd", "brotli", "snappy"])
@pytest.mark.parametrize("layout", ["", "pad_to_block_boundary:true", "transpose:true"])
def test_files_have_an_index_of_records_or_of_chunks_unless_only_array_record_can_read_them(
    tmp_path: Path, write_records: WriteRecords, group_size: int, compression: str, layout: str
) -> None:
    lengths = [*LENGTHS, 200_000, 0, 70_000, 0, 3, 784]
    options = f"group_size:{group_size},{compression},{layout}".rstrip(",")
    path = write_records(tmp_path / "a", some_records(options, lengths), options)
    if compression == "uncompressed" and layout != "transpose:true":
        index_of(path)
    elif can_decode(ord(compression[0])) and layout != "transpose:true" and (compression != "brotli" or group_size > 1):
        index = file_index(path)
        assert index is not None
        assert isinstance(index.places, Chunked)
        assert index.num_records == len(lengths)
    else:
        assert file_index(path) is None


@pytest.mark.parametrize("group_size", [1, 2, 7, 256])
@pytest.mark.parametrize("length", [*LENGTHS, 200_000])
def test_records_of_one_length_need_no_table(
    tmp_path: Path, write_records: WriteRecords, length: int, group_size: int
) -> None:
    for num_records in (1, group_size, 17):
        records = some_records(length, [length] * num_records)
        path = write_records(tmp_path / "a", records, f"group_size:{group_size},uncompressed")
        places = index_of(path).places
        assert isinstance(places, Uniform)
        assert places.length == length


@pytest.mark.parametrize("group_size", [1, 2, 3, 7, 256])
def test_a_table_takes_at_most_eight_bytes_a_record(
    tmp_path: Path, write_records: WriteRecords, group_size: int
) -> None:
    records = some_records(group_size, [100 + row % 100 for row in range(2_048)])
    places = index_of(write_records(tmp_path / "a", records, f"group_size:{group_size},uncompressed")).places
    assert isinstance(places, Spans if group_size == 1 else Groups)
    tables = [table for table in vars(places).values() if isinstance(table, np.ndarray)]
    assert sum(table.nbytes for table in tables) <= 8 * (len(records) + 2)


def test_a_file_without_records_has_an_index_but_no_map(tmp_path: Path, write_records: WriteRecords) -> None:
    empty = write_records(tmp_path / "a", [], "group_size:1,uncompressed")
    path = write_records(tmp_path / "b", [b"abc"], "group_size:1,uncompressed")
    assert index_of(empty)
    assert opened(empty, path, empty).records() == [b"abc"]
    assert empty not in Path("/proc/self/maps").read_text()
    assert AddressRange.reserve({}, False) is None


def test_files_that_are_indexed_together_are_indexed_as_each_alone(tmp_path: Path, write_records: WriteRecords) -> None:
    equal, others = some_records(0, [20] * 50), some_records(1, [row % 7 * 40 for row in range(30)])
    made = {
        "equal": (equal, "group_size:1,uncompressed"),
        "one": (equal[:1], "group_size:1,uncompressed"),
        "others": (others, "group_size:1,uncompressed"),
        "none": ([], "group_size:1,uncompressed"),
        "groups": (equal, "group_size:7,uncompressed"),
        "padded": (others, "group_size:1,uncompressed,pad_to_block_boundary:true"),
        "zstd": (equal, "group_size:1,zstd"),
    }
    paths = {name: write_records(tmp_path / name, *what) for name, what in made.items()}
    good = ["equal", "one", "others", "equal"]
    assert all(index_files([paths[name] for name in good]))
    for some in (good, list(paths), ["padded", *good], ["others", "missing", "zstd", "others"], []):
        together = index_files([paths.get(name, "missing") for name in some])
        for name, index in zip(some, together, strict=True):
            alone = file_index(paths.get(name, "missing"))
            if alone is None or index is None:
                assert alone is index
                continue
            assert (index.path, index.stamp, index.num_records) == (alone.path, alone.stamp, len(made[name][0]))
            assert type(index.places) is type(alone.places)
            for field, value in vars(index.places).items():
                np.testing.assert_array_equal(value, vars(alone.places)[field])


def test_what_is_no_array_record_file_has_no_index(tmp_path: Path, write_records: WriteRecords) -> None:
    data = Path(write_records(tmp_path / "a", [b"abc"] * 10, "group_size:1,uncompressed")).read_bytes()
    for bad in (
        b"",
        b"text\n" * 40_000,
        bytes(131_072),
        data[:-1],
        data[:-65_536],
        data + data,
        data[65_536:],
    ):
        (tmp_path / "bad").write_bytes(bad)
        assert file_index(os.fspath(tmp_path / "bad")) is None
    assert file_index(os.fspath(tmp_path / "missing")) is None
    assert file_index(os.fspath(tmp_path)) is None


@pytest.mark.parametrize("options", ["group_size:1,uncompressed", "group_size:3,uncompressed"])
def test_a_damaged_footer_or_chunk_header_means_no_index_or_an_error_or_the_same_records(
    tmp_path: Path, write_records: WriteRecords, options: str
) -> None:
    records = some_records(0, [row % 7 * 40 for row in range(20)])
    path = write_records(tmp_path / "a", records, options)
    data = Path(path).read_bytes()
    end_of_data = data.rindex(b"group_size") + 400
    draw = random.Random(0)
    num_refused = num_noticed = 0
    for position in [*range(64, end_of_data, 3), *range(len(data) - 65_536, len(data) - 65_400)]:
        damaged = bytearray(data)
        damaged[position] ^= 1 << draw.randrange(8)
        (tmp_path / "b").write_bytes(damaged)
        index = file_index(os.fspath(tmp_path / "b"))
        if index is None:
            num_refused += 1
            continue
        assert index.num_records == len(records)
        numbering = Numbering([FileSlice(index.path, 0, len(records))])
        files = open_indexed(numbering, {index.path: index})
        # Only the payload, and hashes and sizes that nothing depends on, may be damaged unnoticed.
        try:
            assert [len(record) for record in files.records()] == [len(record) for record in records]
        except BadRows:
            num_noticed += 1
        files.close()
    assert num_refused > 60
    # Groups have fewer chunks, and more of their bytes are payload.
    assert num_refused + num_noticed > (220 if options.startswith("group_size:1,") else 130)


def test_where_files_cannot_be_mapped_there_is_no_map(
    tmp_path: Path, write_records: WriteRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = "group_size:1,uncompressed"
    path = write_records(tmp_path / "a", [b"abc"] * 10, options)
    index = file_index(path)
    assert index is not None
    monkeypatch.setattr(system, "_LIBC", None)  # as on systems other than Linux
    assert AddressRange.reserve({index.path: index.stamp}, False) is None
    grouped = write_records(tmp_path / "b", [b"abc"] * 10, "group_size:4,uncompressed")
    assert file_index(grouped) is None
