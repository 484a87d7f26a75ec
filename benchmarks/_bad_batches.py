"""A study of batches of which one record is bad: what the error costs, and what masking does."""

import dataclasses
import functools
import pathlib
import time
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from _data import DataSet
from _forms import inflate
from _study import Study, of, times_as_long

import arsrc
from arsrc import ArrayRecordSourceConfig as Config
from arsrc._host.format.layout import (
    BLOCK_BYTES,
    BLOCK_HEADER_BYTES,
    CHUNK_HEADER_BYTES,
    FIRST_CHUNK,
    logical,
    parse_chunk_header,
)
from arsrc.codecs import Bytes, Map

_RECORD_BYTES = 784
_MOST_BATCHES = 16
_ERRORS = (jax.errors.JaxRuntimeError, ValueError)  # what a callback's error arrives as

Seconds = dict[str, list[float]]


def one_bad_record(folder: pathlib.Path, quick: bool) -> Study:
    """Over the size of a batch."""
    ways = ('"raise"', '"raise", again', '"mask"', '"mask", again')
    study = Study(
        "One bad record",
        f"How long does a batch of records of {_RECORD_BYTES} B take that has one bad record, as an error and masked, "
        "when the record is met for the first time and when it is known? Either the codec refuses it (a `Map` that "
        "inflates, of a mapped file), or its chunk is damaged (of a file with one zstd record to a chunk).",
        ("records", "what fails", "healthy", *ways),
    )
    data = functools.partial(DataSet, folder, 1024 if quick else 65_536, _RECORD_BYTES, sparse=True)
    faults = (
        ("codec", data(form="deflated"), Map(inflate, jax.ShapeDtypeStruct((_RECORD_BYTES,), np.uint8))),
        ("file", data(options="group_size:1,zstd"), Bytes()),
    )
    for batch_size in (64, 256) if quick else (64, 256, 4096, 16_384):
        for what, one, codec in faults:
            one.prepare()
            config = Config(one.paths[0], batch_size, codec=codec, read=arsrc.ReadOptions(ahead="never"))
            healthy, bad = _measured(config, one.num_records // batch_size, 1 if quick else 2)
            ratios = (times_as_long(bad[way], healthy[way]) for way in ways)
            study.rows.append((batch_size, what, of([s for way in ways for s in healthy[way]]), *ratios))
    return study


def _measured(config: Config, most_batches: int, rounds: int) -> tuple[Seconds, Seconds]:
    """Return seconds by ways: of healthy batches, and of the same ones with a bad record, read right after them."""
    num_batches = min(most_batches, _MOST_BATCHES)
    bad_rows = np.random.default_rng(0).integers(1, config.batch_size, num_batches)
    damaged = f"{config.paths[0]}.damaged"
    _damage(config.paths[0], damaged, (np.arange(num_batches) * config.batch_size + bad_rows).tolist())
    healthy, bad = defaultdict(list), defaultdict(list)
    states = [arsrc.state_at(config, step) for step in range(num_batches)]
    read_healthy = _reader(config)
    for on_bad_record in ("raise", "mask"):
        bad_config = dataclasses.replace(config, paths=damaged, on_bad_record=on_bad_record)
        read_bad = _reader(bad_config)
        read_healthy(states[0]), read_bad(states[0])  # compile
        for _ in range(rounds):
            arsrc.close(bad_config)  # which forgets what was bad
            arsrc.init(bad_config)
            for way in (f'"{on_bad_record}"', f'"{on_bad_record}", again'):
                for state in states:
                    seconds, num_good = read_healthy(state)
                    bad_seconds, num_left = read_bad(state)
                    assert num_good == config.batch_size
                    assert num_left == (config.batch_size - 1 if on_bad_record == "mask" else None)
                    healthy[way].append(seconds)
                    bad[way].append(bad_seconds)
        arsrc.close(bad_config)
    arsrc.close(config)
    return healthy, bad


def _reader(config: Config) -> Any:
    """Return what reads the batch of a state: gives the seconds, and how many records there are, None if it fails."""
    step = jax.jit(functools.partial(arsrc.next_batch, config))

    def read(state: arsrc.SourceState) -> tuple[float, int | None]:
        begin = time.perf_counter()
        try:
            _, batch = jax.block_until_ready(step(state))
        except _ERRORS:
            return time.perf_counter() - begin, None
        seconds = time.perf_counter() - begin
        return seconds, int(batch.mask.sum())

    return read


def _damage(source: str, target: str, record_ids: Iterable[int]) -> None:
    """Copy a file of one record to a chunk, with the last byte of these records' chunks changed."""
    blocks = np.fromfile(source, np.uint8).reshape(-1, BLOCK_BYTES)
    stream = blocks[:, BLOCK_HEADER_BYTES:].flatten()
    end, number = logical(FIRST_CHUNK), -1
    for record_id in record_ids:  # in order
        while number < record_id:
            header = parse_chunk_header(stream[end : end + CHUNK_HEADER_BYTES].tobytes())
            end, number = end + CHUNK_HEADER_BYTES + header.data_size, number + 1
        stream[end - 1] ^= 0xFF
    blocks[:, BLOCK_HEADER_BYTES:] = stream.reshape(len(blocks), -1)
    blocks.tofile(target)
