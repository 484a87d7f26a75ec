"""`checksum="first"`: hashes are verified when records are first read, and cost nothing from then on."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import arsrc
from arsrc import ReadOptions
from arsrc._host.machine.buffers import BufferPool
from arsrc._host.readers.group_cache import GroupCache
from arsrc._host.readers.verified import Verified
from arsrc._host.records.data_set import DataSet
from arsrc._host.storage.paths import FileSlice
from arsrc.errors import ArsrcReadError
from arsrc.record_batch import RecordBatch

WriteRecords = Callable[..., str]

RECORDS = [row.tobytes() for row in np.random.default_rng(0).integers(0, 9, (60, 300), dtype=np.uint8)]
OPTIONS = ["group_size:1,uncompressed", "group_size:7,uncompressed", "group_size:1,zstd", "group_size:7,zstd"]


def open_files(*slices: FileSlice) -> DataSet:
    memory = {"buffers": BufferPool(1 << 24), "groups": GroupCache(0)}
    return DataSet(slices, checksum="first", max_open_files=4, random_access=True, **memory)


def listed(batch: RecordBatch) -> list[bytes]:
    return [batch[row] for row in range(len(batch))]


@given(st.integers(1, 100), st.lists(st.lists(st.integers(0, 99), max_size=30), max_size=9))
def test_records_are_left_until_they_were_added(num_records: int, added: list[list[int]]) -> None:
    verified, seen = Verified(num_records), set[int]()
    for ids in [*added, list(range(num_records))]:
        some = [one % num_records for one in ids]
        verified.add(np.array(some, np.int64))
        seen |= set(some)
        left = verified.are_left(np.arange(num_records))
        assert np.flatnonzero(left).tolist() == [one for one in range(num_records) if one not in seen]
        assert verified.is_all == (len(seen) == num_records)


@pytest.mark.parametrize("options", OPTIONS)
def test_a_flipped_bit_is_an_error_the_first_time_and_other_records_come_from_the_map_then(
    tmp_path: Path, write_records: WriteRecords, options: str
) -> None:
    path = write_records(tmp_path / "a", RECORDS, options)
    content = bytearray(Path(path).read_bytes())
    content[64 + 40 + 60] ^= 1  # inside the first record, or of its chunk
    Path(path).write_bytes(content)
    size = 7 if "7" in options else 1
    data_set = open_files(FileSlice(path, 0, 30), FileSlice(path, 30, 60))
    good = np.arange(size, len(RECORDS))
    assert data_set.locate(good) is None
    assert data_set.is_verifying
    for _ in range(2):
        assert listed(data_set.read(good).records) == RECORDS[size:]
        with pytest.raises(ArsrcReadError) as raised:
            data_set.read(np.arange(len(RECORDS)))
        assert (raised.value.path, raised.value.position, raised.value.record_id) == (path, 0, 0)
    os.unlink(path)  # array_record's reader refuses it now
    assert listed(data_set.read(good).records) == RECORDS[size:]
    located = data_set.locate(good)
    assert (located is not None) == ("uncompressed" in options)
    if located is not None:
        assert listed(data_set.copy(located)) == RECORDS[size:]
    assert data_set.is_verifying
    data_set.close()


@pytest.mark.parametrize("options", OPTIONS)
def test_the_second_epoch_reads_nothing_by_array_records_reader(
    tmp_path: Path, write_records: WriteRecords, options: str
) -> None:
    path = write_records(tmp_path / "a", RECORDS, options)
    data_set = open_files(FileSlice(path, 3, 50))
    for ids in np.array_split(np.random.default_rng(0).permutation(47), 5):
        assert listed(data_set.read(ids).records) == [RECORDS[3 + one] for one in ids]
    assert not data_set.is_verifying
    assert data_set.files.pool._open
    data_set.files.pool._open.clear()
    assert listed(data_set.read(np.arange(47)).records) == RECORDS[3:50]
    assert not data_set.files.pool._open
    data_set.close()


def test_batches_are_the_same_in_every_epoch_whichever_way_hashes_are_verified(
    tmp_path: Path, write_records: WriteRecords
) -> None:
    paths = [write_records(tmp_path / str(number), RECORDS, options) for number, options in enumerate(OPTIONS)]
    batches = {}
    for checksum in ("auto", "first", "always"):
        read = ReadOptions(checksum=checksum)
        config = arsrc.ArrayRecordSourceConfig(paths, 16, shuffle_records=True, num_epochs=3, read=read)
        batches[checksum] = [np.asarray(batch.data) for _, batch in arsrc.iterate(config)]
        arsrc.close(config)
    assert len(batches["auto"]) == 3 * 240 // 16
    for checksum in ("first", "always"):
        np.testing.assert_array_equal(batches[checksum], batches["auto"])
