"""A study of what guards against faults: what it costs where there are none."""

import dataclasses
import pathlib
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _data import DataSet
from _study import Study, of, times_as_long

import arsrc
from arsrc import ArrayRecordSourceConfig as Config

_RECORD_BYTES = 784
_NUM_STEPS = 32
_CACHES = ("cache, filled", "cache, opened", "cache, again")

Scan = Callable[[arsrc.SourceState], float]


def being_ready(folder: pathlib.Path, quick: bool) -> Study:
    """Over the size of a batch."""
    unlike: dict[str, dict[str, Any]] = {
        "plain": {},
        "timeout_seconds=60": {"read": arsrc.ReadOptions(ahead="never", timeout_seconds=60)},
        'on_bad_record="mask"': {"on_bad_record": "mask"},
        'checksum="always"': {"read": arsrc.ReadOptions(ahead="never", checksum="always")},
    }
    study = Study(
        "Being ready for them",
        f"How long does a batch of records of {_RECORD_BYTES} B take in a scan, in random order from a mapped file, "
        "with each of these alone? The cache is in files: filled; read for the first time after it was opened, when "
        "the checksums in it are looked at; and read again.",
        ("records", *unlike, *_CACHES),
    )
    data = DataSet(folder, 8192 if quick else 65_536, _RECORD_BYTES)
    data.prepare()
    in_files = arsrc.ReadOptions(ahead="never", cache_bytes=0, cache_dir=str(folder / "cache"))
    for batch_size in (64,) if quick else (64, 256, 1024):
        plain = Config(data.paths[0], batch_size, shuffle_records=True, read=arsrc.ReadOptions(ahead="never"))
        configs = {name: dataclasses.replace(plain, **fields) for name, fields in unlike.items()}
        cached = dataclasses.replace(plain, cacheable=True, read=in_files)
        seconds = _measured(configs, cached, 3 if quick else 40)
        ratios = (times_as_long(seconds[name], seconds["plain"]) for name in study.columns[2:])
        study.rows.append((batch_size, of(seconds["plain"]), *ratios))
        arsrc.close()
    return study


def _measured(configs: dict[str, Config], cached: Config, num_turns: int) -> dict[str, list[float]]:
    """Return the seconds of a batch by column; all take turns on the same records, other ones each turn."""
    scans = {name: _scan(config) for name, config in configs.items()}
    scan_cached = _scan(cached)
    seconds = defaultdict(list)
    rng = np.random.default_rng(0)
    for turn in range(num_turns + 1):
        state = arsrc.state_at(cached, turn * _NUM_STEPS)
        scans["plain"](state)  # whoever is first finds the records where the others do
        for name in rng.permutation([*scans, "cache"]).tolist():
            found = _with_cache(cached, scan_cached, state) if name == "cache" else {name: scans[name](state)}
            for column, one in found.items():
                seconds[column].append(one)
    return {column: all_turns[1:] for column, all_turns in seconds.items()}  # the first one compiled


def _with_cache(config: Config, scan: Scan, state: arsrc.SourceState) -> dict[str, float]:
    arsrc.reset_cache(config)
    filled = scan(state)
    arsrc.close(config)
    arsrc.init(config)
    return dict(zip(_CACHES, (filled, scan(state), scan(state)), strict=True))


def _scan(config: Config) -> Scan:
    """Return what gives the seconds of a batch, in a scan that begins at some state."""

    def body(carry: Any, batch: arsrc.Batch) -> tuple[Any, None]:
        return carry + batch.data[:, 0].sum(dtype=jnp.uint32), None

    run = jax.jit(lambda state: arsrc.scan_steps(config, state, jnp.uint32(0), body, _NUM_STEPS))

    def seconds(state: arsrc.SourceState) -> float:
        begin = time.perf_counter()
        jax.block_until_ready(run(state))
        return (time.perf_counter() - begin) / _NUM_STEPS

    return seconds
