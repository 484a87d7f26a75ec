"""`explain`: what it says of real files, before and after they were read."""

import dataclasses

import numpy as np
import pytest

import arsrc
from arsrc import ReadOptions
from arsrc.amounts import counted, in_bytes, in_seconds
from arsrc.codecs import Map

N = 400
DATA = np.random.default_rng(0).integers(0, 9, (N, 100), dtype=np.uint8)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    kinds = {"plain": "group_size:1,uncompressed", "groups": "group_size:64,zstd"}
    return {kind: arsrc.write_array_record(folder / kind, DATA, options=options)[0] for kind, options in kinds.items()}


def lines(config) -> dict[str, str]:
    """What is said, by its first word; several of a kind joined."""
    found: dict[str, str] = {}
    for line in arsrc.explain(config).splitlines():
        name, _, text = line.strip().partition(": ")
        found[name] = f"{found[name]} | {text}" if name in found else text
    return found


def test_a_source_that_was_not_used_says_what_it_is(paths):
    config = arsrc.ArrayRecordSourceConfig(paths["plain"], 16, name="train")
    assert lines(config) == {
        "train": "400 records in 1 file, 131 kB",
        "files": "1 mapped",
        "order": "as stored; 25 batches of 16 an epoch",
        "elements": "Bytes, 100 bytes each; not cached",
        "ahead": "where it is of use, 268 MB by 2 threads at most",
        "so far": "no batches",
        "limited": "ask again after some hundred steps",
    }


def test_groups_at_random_are_explained_before_and_after_they_were_read(paths):
    read = ReadOptions(read_ahead_bytes=0)
    config = arsrc.ArrayRecordSourceConfig([paths["groups"], paths["plain"]], 8, shuffle_records=True, read=read)
    found = lines(config)
    assert found["files"] == "1 mapped, 1 decoded from a map (1 zstd); groups of up to 64 records"
    assert found["order"] == "all records shuffled; 100 batches of 8 an epoch"
    assert found["ahead"] == "nothing is read ahead"
    assert found["limited"] == "groups of 64 are read at random: each record costs its whole group"
    assert found["would help"].startswith("set shuffle_block_size=64")
    batches = arsrc.iterate(config)
    for _ in range(50):
        next(batches)
    metrics = arsrc.io_metrics(config)
    waste = metrics["records_decoded"] / metrics["records_read"]
    assert 8 < waste < 64
    assert metrics["bytes_decoded"] == pytest.approx(metrics["records_decoded"] * 100)
    found = lines(config)
    assert f"(so far {waste:.3g} records for each one read)" in found["limited"]
    assert "decoded from zstd" in found["limited"]
    assert "nothing is read ahead" in found["limited"]
    assert found["so far"].startswith("50 batches, 0% there when asked for, 100% loaded on the program's own thread; ")


def test_blocks_of_the_size_that_is_advised_decode_each_record_once(paths):
    read = ReadOptions(ahead="always")
    config = arsrc.ArrayRecordSourceConfig(paths["groups"], 8, shuffle_records=True, shuffle_block_size=64, read=read)
    found = lines(config)
    assert found["order"] == "blocks of 64, mixed in windows of 32 blocks; 50 batches of 8 an epoch"
    assert found["ahead"] == "always, 268 MB by 2 threads at most"
    assert "groups" not in found["limited"]
    batches = arsrc.iterate(dataclasses.replace(config, num_epochs=1))
    assert len(list(batches)) == 50
    metrics = arsrc.io_metrics(dataclasses.replace(config, num_epochs=1))
    assert metrics["records_read"] == N
    assert N - 64 <= metrics["records_decoded"] <= N  # the first group when the source was opened


def work(record):
    for _ in range(100):
        record = bytes(byte ^ 0 for byte in record)
    return np.frombuffer(record, np.uint8)


def test_a_python_function_is_named_with_its_cost_and_a_cache_with_what_it_holds(paths):
    read = ReadOptions(read_ahead_bytes=0)
    codec = Map(work, ("uint8", 100))
    config = arsrc.ArrayRecordSourceConfig(paths["plain"], 16, codec=codec, num_epochs=1, cacheable=True, read=read)
    for _ in arsrc.iterate(config):
        pass
    found = lines(config)
    metrics = arsrc.io_metrics(config)
    cost = in_seconds(metrics["seconds_in_codec"] / N)
    assert found["limited"].endswith(
        f"the codec Map takes {cost} a record, in Python, which runs on one core at a time"
    )
    assert "wait for later epochs, which come from the cache" in found["would help"]
    kept = "decoded records are kept in memory (40 kB): 400 of 400 records are there"
    assert found["elements"] == f"Map, 100 bytes each; {kept}"


def test_amounts_are_short_and_have_units():
    assert [counted(n, "batch") for n in (0, 1, 12_345)] == ["0 batches", "1 batch", "12,345 batches"]
    sizes = {1: "1 byte", 784: "784 bytes", 999: "999 bytes", 1000: "1 kB", 999_600: "1 MB", 15_680_000: "15.7 MB"}
    assert {size: in_bytes(size) for size in sizes} == sizes
    assert in_bytes(3.2e12) == "3.2 TB"
    times = {0: "0 us", 1.24e-6: "1.24 us", 0.00999: "9.99 ms", 1: "1 s", 123.4: "123 s", 12_345: "12,345 s"}
    assert {time: in_seconds(time) for time in times} == times


def test_segments_too_large_to_be_read_ahead_are_told(paths):
    config = arsrc.ArrayRecordSourceConfig(paths["plain"], 16, read=ReadOptions(read_ahead_bytes=20_000))
    next(arsrc.iterate(config, num_batches=10))
    found = lines(config)
    assert found["limited"] == "10 batches at a time, 16 kB, are too large to be read ahead"
    assert found["would help"] == "set ReadOptions(read_ahead_bytes=64000); or ask for fewer at a time"
