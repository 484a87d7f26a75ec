"""Compiled programs: how many are kept, however many configs and shapes there have been."""

import functools
import gc
import os
from collections.abc import Callable

import hypothesis
import jax
import numpy as np
import pytest

import arsrc
from arsrc import ArrayRecordSourceConfig, programs
from arsrc.devices import placement

WARM = 6
LAST = max(12, hypothesis.settings.default.max_examples // 2)
MOST_KEPT = 4


def make_config(path: str, number: int = 0, batch_size: int = 8) -> ArrayRecordSourceConfig:
    return ArrayRecordSourceConfig(path, batch_size, name=f"number {number}")


def without_jit(path: str, number: int) -> None:
    with jax.disable_jit():
        arsrc.next_batch(config := make_config(path, number), arsrc.init(config))


def of_config(function: Callable[..., object]) -> Callable[[str, int], None]:
    def sweep(path: str, number: int) -> None:
        config = make_config(path, number)
        function(config, arsrc.init(config))
        arsrc.close(config)

    return sweep


def of_shape(function: Callable[..., object]) -> Callable[[str, int], None]:
    def sweep(path: str, number: int) -> None:
        config = make_config(path)
        function(config, arsrc.init(config), number + 1)

    return sweep


def keys(config: ArrayRecordSourceConfig, state: arsrc.SourceState, size: int) -> object:
    numbers = np.arange(size, dtype=np.uint32)
    batch = arsrc.Batch(data=None, mask=np.ones(size, bool), record_ids=numbers, epochs=numbers)
    return arsrc.record_keys(config, state, batch)


SWEEPS = {
    "next_batch": of_config(arsrc.next_batch),
    "advance": of_config(arsrc.advance),
    "iterate": lambda path, number: next(arsrc.iterate(make_config(path, batch_size=number + 1))),
    "without jit": without_jit,
    "next_batches": of_shape(arsrc.next_batches),
    "batch_at": of_shape(lambda config, state, size: arsrc.batch_at(config, state, 0, size)),
    "take": of_shape(lambda config, state, size: arsrc.take(config, np.zeros(size, int))),
    "locate": of_shape(lambda config, state, size: arsrc.locate(config, state, np.zeros(size, int))),
    "record_keys": of_shape(keys),
}


def usage() -> tuple[int, int]:
    gc.collect()
    num_programs = len(jax.devices()[0].client.live_executables())
    return num_programs, len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0


@pytest.mark.parametrize("name", SWEEPS)
def test_programs_of_many_configs_and_shapes_level_off(name, tmp_path, write_records, monkeypatch):
    few = functools.lru_cache(MOST_KEPT)(programs.program.__wrapped__)
    for module in (programs, placement):
        monkeypatch.setattr(module, "program", few)
    path = write_records(tmp_path / "a", [bytes([i]) for i in range(LAST + 8)], "group_size:1,uncompressed")
    for number in range(WARM):
        SWEEPS[name](path, number)
    before = usage()
    for number in range(WARM, LAST):
        SWEEPS[name](path, number)
    now = usage()
    assert all(after <= then for after, then in zip(now, before, strict=True)), (before, now)
