"""The races: which contestants run on which files."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import _array_record
import _arsrc
import _bare_zstd
import _cold
import _decoding
import _floors
import _functions
import _loops
import _peers
import _waiting
import jax
import numpy as np
from _data import UNCOMPRESSED, Bytes, DataSet
from _forms import SEED_BYTES, SIDE, inflate
from _harness import Contestant, Race
from _train_step import LongStep

import arsrc
from arsrc.codecs import Codec, Image, Map, MsgPack, TFExample

_SMALL = 784  # bytes, 28 x 28
_PICTURE = 150_528  # bytes, 224 x 224 x 3
_CHECKSUMS = ("auto", "first", "always")
_FIELDS = {"image": ("uint8", (_SMALL,)), "label": "int32"}
_PICTURE_CODEC = Image((SIDE, SIDE, 3))
_ZSTD, _ZSTD_GROUPS = "group_size:1,zstd", "group_size:256,zstd"


def races(folder: pathlib.Path, quick: bool) -> list[Race]:
    """Return all races; the quick ones have small files and one short round."""
    data = functools.partial(DataSet, folder)
    few = 8192 if quick else None
    small = data(few or 60_000, _SMALL)
    million = data(few or 1_000_000, _SMALL, 4)
    one, many = data(few or 262_144, _SMALL), data(few or 262_144, _SMALL, 64)
    large = data(512, 20_000) if quick else data(2_560, _PICTURE)
    zstd = data(few or 60_000, _SMALL, options=_ZSTD, sparse=True)
    sparse = data(few or 60_000, _SMALL, sparse=True)
    deflated = data(few or 60_000, _SMALL, sparse=True, form="deflated")
    noise = data(few or 60_000, _SMALL, options=_ZSTD)
    jpegs = [data(few or 16_384, 1_200 if quick else 12_000, options=options) for options in (_ZSTD, UNCOMPRESSED)]
    photos = [data(few or 2_560, 5_000 if quick else 110_000, options=options) for options in (_ZSTD, UNCOMPRESSED)]
    blocks = data(few or 262_144, _SMALL, options=_ZSTD_GROUPS, sparse=True)
    examples = [data(few or 60_000, _SMALL, options=options, form="example") for options in (UNCOMPRESSED, _ZSTD)]
    packed = data(few or 60_000, _SMALL, form="msgpack")
    drawn = functools.partial(data, 4_096, SEED_BYTES)
    drawn_examples, drawn_alone = drawn(form="example_jpeg"), drawn(form="jpeg")
    tiny, tiny_zstd = (data(few or 1_000_000, 16, options=options) for options in (UNCOMPRESSED, _ZSTD))
    fetches = (1, 16) if quick else (1, 4, 16, 64)
    few_fetches = (16,) if quick else (16, 64)
    waiting_fetches = (16,) if quick else (1, 16)
    rounds, seconds = (1, 0.02) if quick else (5, 0.5)
    race = functools.partial(Race, rounds=rounds, seconds=seconds, unit=(_arsrc.BATCH, "a batch"))
    opening = functools.partial(race, unit=(few or 1_000_000, "an opening"))
    return [
        race(
            "60k",
            "How fast do shuffled records come, and is what is left our cost or JAX's?",
            [small],
            lambda: _everything(small, fetches),
        ),
        race("1m", "And from 1M records?", [million], lambda: _everything(million, fetches), rounds=min(rounds, 3)),
        race("shards", "What do many files cost?", [one, many], lambda: _sharded(one, many, few_fetches)),
        race("body", "What does streaming cost a step that computes?", [small], lambda: _beside_work(small)),
        race("large", "Is a gather of large records as fast as memory?", [large], lambda: _large(large)),
        race(
            "zstd", "And where each record is compressed?", [zstd, sparse], lambda: _compressed(zstd, sparse, fetches)
        ),
        race(
            "noise",
            "What is left of it where nothing can be compressed?",
            [noise, small],
            lambda: _compressed(noise, small, few_fetches),
        ),
        race(
            "noise-12k",
            "And with small pictures?",
            jpegs,
            lambda: _compressed(*jpegs, fetches[1:3]),
            rounds=min(rounds, 3),
        ),
        race(
            "noise-110k",
            "And with photos?",
            photos,
            lambda: _compressed(*photos, fetches[:2], reads=(256,)),
            rounds=min(rounds, 3),
        ),
        race("blocks", "What does locality gain on compressed groups?", [blocks], lambda: _grouped(blocks, fetches)),
        race(
            "wait",
            "Does reading hide behind a step that needs no CPU?",
            [zstd, sparse],
            lambda: [
                *_waiting.contestants(zstd, "zstd", (1.0,) if quick else (0.5, 1.0, 2.0), waiting_fetches),
                *_waiting.contestants(sparse, "mapped", (1.0,) if quick else (1.0, 5.0), waiting_fetches),
            ],
        ),
        race(
            "wait-large",
            "And with large batches?",
            [large],
            lambda: _waiting.contestants(large, "large", (5.0,) if quick else (20.0, 50.0), (1, _waiting.ITERATE), 16),
            rounds=min(rounds, 3),
        ),
        race(
            "cache",
            "Is decoding paid only once?",
            [sparse, zstd, deflated],
            lambda: _cached(sparse, zstd, deflated, few_fetches),
        ),
        race(
            "checksum",
            "What does it cost to verify each record, and to do so once?",
            [one],
            lambda: _verified(one),
            rounds=min(rounds, 3),
            seconds=0.0,
        ),
        race(
            "python",
            "What do worker processes gain for a function of a millisecond of Python?",
            [small],
            lambda: _by_functions(small, _functions.heavy, quick),
            rounds=min(rounds, 3),
            seconds=0.02 if quick else 2.0,
        ),
        race(
            "python-cheap",
            "And for json.loads of 200 bytes?",
            [small],
            lambda: _by_functions(small, _functions.cheap, quick),
            rounds=min(rounds, 3),
        ),
        race(
            "example",
            "And where records are of the kind that people have?",
            [examples[0]],
            lambda: _coded(examples[0], TFExample(_FIELDS), few_fetches),
        ),
        race(
            "example-zstd",
            "And compressed, as they are mostly?",
            [examples[1]],
            lambda: _coded(examples[1], TFExample(_FIELDS), few_fetches),
        ),
        race("msgpack", "And in msgpack?", [packed], lambda: _coded(packed, MsgPack(_FIELDS), few_fetches)),
        race(
            "example-jpeg",
            "And with pictures in it?",
            [drawn_examples],
            lambda: _coded(drawn_examples, TFExample({"image": _PICTURE_CODEC, "label": "int32"}), fetches[:2]),
            rounds=min(rounds, 3),
        ),
        race(
            "jpeg",
            "And pictures alone?",
            [drawn_alone],
            lambda: _coded(drawn_alone, _PICTURE_CODEC, fetches[:2], _flat),
            rounds=min(rounds, 3),
        ),
        race("cold", "What if nothing is in memory?", [million], lambda: _uncached(million, quick), seconds=0.0),
        opening("open", "What does opening cost?", [tiny], lambda: _opening(tiny)),
        opening("open-zstd", "And where they are compressed?", [tiny_zstd], lambda: _opening(tiny_zstd)),
        opening("open-4", "And with 4 files?", [million], lambda: _opening(million)),
    ]


def _everything(data: DataSet, fetches: Sequence[int]) -> list[Contestant]:
    """All that can read records of one length in random order."""
    return [
        *(_arsrc.scan(data, fetch) for fetch in fetches),
        _loops.iterate(data),
        _arsrc.scan(data, resident=True),
        _arsrc.scan(data, 16, name="arsrc with checksums", read=arsrc.ReadOptions(checksum="always")),
        _floors.bare_callback(data),
        _floors.told_callback(data),
        _floors.told_callback(data, gathers=True),
        _floors.gather_on_device(data),
        _floors.memcpy(data),
        _array_record.read(data),
        _array_record.read(data, fed=True),
        _array_record.read(data, 4096),
        _array_record.read(data, 4096, fed=True),
        _array_record.get_items(data),
        _array_record.get_items(data, fed=True),
        _peers.grain_map(data, 0),
        _peers.grain_map(data, 2),
        _peers.grain_map(data, 16),
        _peers.grain_map(data, 0, num_workers=2),
        _peers.grain_map(data, 1, num_workers=2),
        _peers.grain_loader(data),
        _peers.grain_loader(data, 2),
        _peers.torch_loader(data),
        _peers.cyreal_disk(data, 256),
        _peers.datarax_source(data),
    ]


def _sharded(one: DataSet, many: DataSet, fetches: Sequence[int]) -> list[Contestant]:
    files = ((one, "1 file"), (many, "64 files"))
    return [_arsrc.scan(data, fetch, name=name) for data, name in files for fetch in fetches]


def _opening(data: DataSet) -> list[Contestant]:
    return [_arsrc.opening(data), _array_record.opening(data)]


def _beside_work(data: DataSet) -> list[Contestant]:
    body = LongStep(_arsrc.BATCH, 2e-3)
    return [
        _arsrc.scan(data, 16, body=body),
        _arsrc.scan(data, 1, body=body),
        _floors.gather_on_device(data, body=body),
        _floors.gather_on_device(data, body=body, fetch=16),
    ]


def _large(data: DataSet) -> list[Contestant]:
    return [
        _arsrc.gather_on_host(data),
        _floors.memcpy(data),
        _arsrc.scan(data, 1),
        _loops.iterate(data),
        _floors.bare_callback(data),
        _array_record.read(data),
        _array_record.read(data, fed=True),
    ]


def _compressed(
    zstd: DataSet, mapped: DataSet, fetches: Sequence[int], reads: Sequence[int] = (256, 4096)
) -> list[Contestant]:
    """Records that each have a chunk of their own, and the same uncompressed."""
    return [
        *(_arsrc.scan(zstd, fetch) for fetch in fetches),
        _loops.iterate(zstd),
        *(_arsrc.scan(mapped, fetch, name="mapped") for fetch in fetches),
        _bare_zstd.decode(zstd),
        *(_array_record.read(zstd, size, fed=fed) for size in reads for fed in (False, True)),
    ]


def _grouped(data: DataSet, fetches: Sequence[int]) -> list[Contestant]:
    scans = [_arsrc.scan(data, fetch, shuffled=False, shuffle_block_size=256) for fetch in fetches]
    # A few steps at a time: a batch may take as many chunks as it has records.
    scans += [_arsrc.scan(data, fetch, name="full random order", num_steps=32) for fetch in (1, 16)]
    return [*scans, _array_record.read(data), _array_record.read(data, fed=True), _array_record.read(data, 4096)]


def _cached(mapped: DataSet, zstd: DataSet, deflated: DataSet, fetches: Sequence[int]) -> list[Contestant]:
    codec = Map(inflate, jax.ShapeDtypeStruct((_SMALL,), np.dtype(np.uint8)))
    found = [_arsrc.scan(mapped, fetch, name="mapped") for fetch in fetches]
    found += [_arsrc.scan(zstd, fetch, name="cached zstd", cacheable=True) for fetch in fetches]
    return found + [
        _arsrc.scan(deflated, fetch, name="cached inflate", cacheable=True, codec=codec) for fetch in fetches
    ]


def _by_functions(data: DataSet, function: Callable[[bytes], Bytes], quick: bool) -> list[Contestant]:
    """A Python function for each record, in the process that trains, and in two others."""
    codec = Map(function, jax.ShapeDtypeStruct((data.record_bytes,), np.dtype(np.uint8)))
    # Another codec by its version, or both would be decoded by the same.
    in_processes = dataclasses.replace(codec, num_processes=2, version="in processes")
    return [
        _loops.iterate(data, name="arsrc, in process", codec=codec),
        _loops.iterate(data, name="arsrc, 2 processes", codec=in_processes),
        _arsrc.scan(data, 1, name="arsrc, 2 processes", codec=in_processes, num_steps=2 if quick else 4),
        _peers.grain_map(data, 16, function=function),
        _peers.grain_map(data, 0, num_workers=2, function=function),
        _peers.grain_map(data, 1, num_workers=2, function=function),
    ]


def _coded(
    data: DataSet, codec: Codec, fetches: Sequence[int], image: Callable[[Any], jax.Array] | None = None
) -> list[Contestant]:
    """Records that a codec decodes, here and by the loops that people have."""
    image = image or (lambda element: _flat(element["image"]))
    return [
        *(_arsrc.scan(data, fetch, codec=codec, image=image) for fetch in fetches),
        _decoding.loop(data),
        _decoding.read(data),
        _peers.grain_map(data, 0),
        _peers.grain_map(data, 2),
        _peers.grain_map(data, 16),
        _peers.grain_map(data, 0, num_workers=2),
        _peers.grain_map(data, 1, num_workers=2),
    ]


def _flat(images: jax.Array) -> jax.Array:
    return images.reshape(len(images), -1)


def _verified(data: DataSet) -> list[Contestant]:
    """An epoch of files that were opened anew, and the next one."""
    steps = min(data.num_records // _arsrc.BATCH, _arsrc.MOST_STEPS)
    scan = functools.partial(_arsrc.scan_anew, data, 16, steps, counts="reading, the scan, the step")
    return [
        scan(name=f"{checksum}, {epoch}", head_start=epoch == "second epoch", read=arsrc.ReadOptions(checksum=checksum))
        for checksum in _CHECKSUMS
        for epoch in ("first epoch", "second epoch")
    ]


def _uncached(data: DataSet, quick: bool) -> list[Contestant]:
    steps = 2 if quick else 512
    scans = [_cold.scan(data, fetch, steps) for fetch in (1, 16)]
    sizes = (256,) if quick else (256, 4096)
    return scans + [_cold.official_read(data, size, steps * _arsrc.BATCH) for size in sizes]
