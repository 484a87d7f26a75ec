"""`read_records`: what stands in files, by id, and nothing left open."""

import gc
import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import arsrc
from arsrc._host import registry

NUM_RECORDS = 70
RECORDS = [bytes([number]) * (1 + 7 * number) for number in range(NUM_RECORDS)]
OPTIONS = ["group_size:1,uncompressed", "group_size:1,zstd", "group_size:8,zstd", "group_size:8,transpose:true"]


@pytest.mark.parametrize("options", OPTIONS)
def test_records_come_as_they_were_written_in_the_order_of_the_ids(options: str, tmp_path: Path):
    arsrc.write_array_record(tmp_path / "x.array_record", RECORDS, num_shards=3, options=options)
    ids = np.random.default_rng(0).integers(0, NUM_RECORDS, 3000)  # repeated, and more than are read at once
    path = f"{tmp_path}/x@3.array_record"
    assert arsrc.read_records(path, ids) == [RECORDS[number] for number in ids]
    assert arsrc.read_records(path, range(NUM_RECORDS)) == RECORDS
    assert arsrc.read_records(path, ()) == []


def test_paths_are_those_of_a_config(tmp_path: Path, write_records: Any):
    path = write_records(tmp_path / "x", RECORDS)
    assert arsrc.read_records([f"{path}[10:20]", f"{tmp_path}/*"], [0, 9, 10, 11]) == [
        RECORDS[i] for i in (10, 19, 0, 1)
    ]


def test_a_bad_record_is_an_error_only_where_it_is_asked_for(tmp_path: Path, write_records: Any):
    path = Path(write_records(tmp_path / "x", RECORDS, "group_size:1,zstd"))
    data = bytearray(path.read_bytes())
    data[70 + 20] ^= 0xFF  # record 0
    path.write_bytes(data)
    assert arsrc.read_records(path, [5]) == [RECORDS[5]]
    with pytest.raises(arsrc.ArsrcReadError) as caught:
        arsrc.read_records(path, [5, 0])
    assert (caught.value.path, caught.value.position, caught.value.record_id) == (str(path), 0, 0)


def test_nothing_stays_open_and_an_open_source_shares_its_files(tmp_path: Path, write_records: Any):
    path = write_records(tmp_path / "x", RECORDS, "group_size:1,uncompressed")
    config = arsrc.ArrayRecordSourceConfig(path, 1, shuffle_records=True)
    gc.disable()  # what is let go of has to close at once
    try:
        before = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []
        arsrc.read_records(path, [1, 2])
        with pytest.raises(arsrc.ArsrcIndexError):
            arsrc.read_records(path, [NUM_RECORDS])
        assert len(os.listdir("/proc/self/fd") if before else []) == len(before)
        lent = weakref.ref(registry.open_files(config))
        assert lent() is None
    finally:
        gc.enable()
    codec = arsrc.codecs.Ragged(max_length=1000)
    config = arsrc.ArrayRecordSourceConfig(path, 1, codec, shuffle_records=True)
    arsrc.init(config)
    assert registry.open_files(config) is registry.opened(config).files
    arsrc.read_records(path, [1])
    assert not registry.opened(config).files.is_closed
    arsrc.close(config)


def test_files_that_were_replaced_are_read_as_they_are_now(tmp_path: Path, write_records: Any):
    path = write_records(tmp_path / "x", RECORDS)
    arsrc.num_records(arsrc.ArrayRecordSourceConfig(path, 1, arsrc.codecs.Ragged(max_length=9), shuffle_records=True))
    write_records(tmp_path / "y", RECORDS[::-1])
    os.replace(tmp_path / "y", path)
    assert arsrc.read_records(path, [0]) == RECORDS[-1:]
    arsrc.close()


@pytest.mark.parametrize("ids", [[True], [1.5], "ab", None, [[1]], 3])
def test_ids_that_are_none_are_refused(ids: Any, tmp_path: Path, write_records: Any):
    path = write_records(tmp_path / "x", RECORDS)
    with pytest.raises(arsrc.ArsrcTypeError):
        arsrc.read_records(path, ids)
