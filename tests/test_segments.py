"""Segments: batches that `iterate` stacks, for programs that call no host."""

import itertools
import os
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

import arsrc
from arsrc.codecs import Ragged
from arsrc.devices.dispatched import Dispatched

N = 23
SIZE = 3


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """23 records of one byte: their ids."""
    path = tmp_path_factory.mktemp("segments") / "x.array_record"
    return arsrc.write_array_record(path, np.arange(N, dtype=np.uint8)[:, None])[0]


@pytest.fixture(scope="module")
def config(path: str) -> arsrc.ArrayRecordSourceConfig:
    """Three epochs of 23 records in batches of 4, of which the sixth has one row of padding."""
    return arsrc.ArrayRecordSourceConfig(path, 4, remainder="pad", num_epochs=3, shuffle_records=True)


def add(total: jax.Array, batch: arsrc.Batch) -> tuple[jax.Array, Any]:
    """Sum up what a step can see of a batch; no batch with any other gives this sum."""
    rows = jnp.where(batch.mask, batch.data[:, 0].astype(jnp.uint32), jnp.uint32(99)) + 100 * batch.epochs
    return 31 * total + (rows * jnp.arange(1, 5, dtype=jnp.uint32)).sum(dtype=jnp.uint32), batch.record_ids


@jax.jit
def run_segment(total: jax.Array, batches: arsrc.Batch) -> tuple[jax.Array, Any]:
    return jax.lax.scan(add, total, batches)


ZERO = jnp.uint32(0)


def scanned(config: Any, num_steps: int) -> tuple[Any, Any]:
    _, total, ids = arsrc.scan_steps(config, arsrc.init(config), ZERO, add, num_steps)
    return total, np.asarray(ids)


def test_training_on_segments_is_training_in_a_scan(config: arsrc.ArrayRecordSourceConfig) -> None:
    total, state, ids = ZERO, arsrc.init(config), []
    for after, batches in arsrc.iterate(config, state, num_batches=5):
        total, some = run_segment(total, batches)
        state = after
        ids.append(some)
    assert [len(some) for some in ids] == [5, 5, 5, 3]
    assert arsrc.is_exhausted(config, state)
    expected, expected_ids = scanned(config, 18)
    assert total == expected
    assert np.array_equal(np.concatenate(ids), expected_ids)


def test_a_shorter_segment_that_is_padded_needs_no_program_of_its_own(config: arsrc.ArrayRecordSourceConfig) -> None:
    def padded(leaf: jax.Array) -> jax.Array:
        return jnp.pad(leaf, [(0, 5 - len(leaf))] + [(0, 0)] * (leaf.ndim - 1))

    def step(total: jax.Array, batch: arsrc.Batch) -> tuple[jax.Array, None]:
        return jax.lax.cond(batch.mask.any(), lambda: add(total, batch)[0], lambda: total), None

    run = jax.jit(lambda total, batches: jax.lax.scan(step, total, batches)[0])
    total = ZERO
    for _, batches in arsrc.iterate(config, num_batches=5):
        total = run(total, jax.tree.map(padded, batches))
    assert run._cache_size() == 1
    assert total == scanned(config, 18)[0]


@pytest.mark.parametrize("num_batches", [1, 4, 18, 100])
def test_a_run_goes_on_from_the_state_of_any_segment(config: arsrc.ArrayRecordSourceConfig, num_batches: int) -> None:
    whole = list(arsrc.iterate(config, num_batches=num_batches))
    assert sum(len(batches.mask) for _, batches in whole) == 18
    for number, (state, _) in enumerate(whole, 1):
        again = list(arsrc.iterate(config, state, num_batches=num_batches))
        assert jax.tree.all(jax.tree.map(np.array_equal, [b for _, b in again], [b for _, b in whole[number:]]))


def test_views_and_mixtures_come_in_segments(path: str) -> None:
    documents = arsrc.ArrayRecordSourceConfig(
        path, 2, Ragged("uint8", max_length=1), select=range(1, N), pack=arsrc.Packing(4), num_epochs=3
    )
    sources = [arsrc.ArrayRecordSourceConfig(path, 4, select=s, num_epochs=2) for s in (range(9), range(9, N))]
    mixture = arsrc.MixtureConfig(sources, (1, 2), batch_size=4, stop="all")
    for config in (documents, mixture):
        alone = [batch for _, batch in arsrc.iterate(config)]
        together = [batches for _, batches in arsrc.iterate(config, num_batches=SIZE)]
        assert len(together) > 2
        assert jax.tree.all(
            jax.tree.map(
                np.array_equal,
                jax.tree.map(lambda *leaves: np.concatenate(leaves), *together),
                jax.tree.map(lambda *leaves: np.stack(leaves), *alone),
            )
        )


def test_arrays_are_those_of_the_spec_with_one_axis_more(config: arsrc.ArrayRecordSourceConfig) -> None:
    state, batches = next(arsrc.iterate(config, num_batches=SIZE))
    for leaf, spec in zip(jax.tree.leaves(batches), jax.tree.leaves(arsrc.batch_spec(config)), strict=True):
        assert isinstance(leaf, jax.Array)
        assert (leaf.shape, leaf.dtype) == ((SIZE, *spec.shape), spec.dtype)
    assert state.index.shape == ()


def test_a_program_over_segments_calls_no_host_and_can_be_exported(config: arsrc.ArrayRecordSourceConfig) -> None:
    _, batches = next(arsrc.iterate(config, num_batches=SIZE))
    leaves, treedef = jax.tree.flatten(batches)
    run = jax.jit(lambda total, leaves: run_segment(total, jax.tree.unflatten(treedef, leaves)))
    exported = jax.export.export(run, platforms=["cpu", "tpu"])(ZERO, leaves)
    assert "custom_call" not in exported.mlir_module()
    assert exported.call(ZERO, leaves)[0] == scanned(config, SIZE)[0]


def test_a_program_over_segments_is_kept_in_the_compilation_cache(path: str, tmp_path: Path) -> None:
    code = f"""if True:
        import jax, arsrc
        config = arsrc.ArrayRecordSourceConfig({path!r}, 4, num_epochs=1)
        body = lambda total, batch: (total + batch.data.sum(dtype="uint32"), None)
        def over_segments(batches):
            return jax.lax.scan(body, jax.numpy.uint32(0), batches)[0]
        print(jax.jit(over_segments)(next(arsrc.iterate(config, num_batches=3))[1]))
    """
    keeps = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | keeps, capture_output=True, text=True, check=True
    )
    assert done.stdout == "66\n"
    assert any(name.startswith("jit_over_segments-") for name in os.listdir(tmp_path))


# Where they lie.


@pytest.mark.parametrize("kind", ["one device", "mesh"])
def test_segments_in_pinned_memory_give_what_those_on_the_device_give(
    config: arsrc.ArrayRecordSourceConfig, kind: str
) -> None:
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
    pinned = {
        "one device": SingleDeviceSharding(jax.devices()[0], memory_kind="pinned_host"),
        "mesh": NamedSharding(mesh, PartitionSpec("data"), memory_kind="pinned_host"),
    }[kind]

    @jax.jit
    def run(total: jax.Array, batches: arsrc.Batch) -> tuple[jax.Array, Any]:
        def moved(number: Any) -> arsrc.Batch:
            batch = jax.tree.map(lambda leaf: leaf[number], batches)
            return jax.device_put(batch, jax.memory.Space.Device)

        def step(carry: Any, number: Any) -> tuple[Any, Any]:
            total, batch = carry
            following = moved(jnp.minimum(number + 1, len(batches.mask) - 1))  # beside the step, which needs it not
            total, ids = add(total, batch)
            return (total, following), ids

        (total, _), ids = jax.lax.scan(step, (total, moved(0)), jnp.arange(len(batches.mask)))
        return total, ids

    total, ids = ZERO, []
    for state, batches in arsrc.iterate(config, num_batches=5, device=pinned):
        assert {leaf.sharding.memory_kind for leaf in jax.tree.leaves(batches)} == {"pinned_host"}
        assert state.index.sharding.memory_kind == "device"
        total, some = run(total, batches)
        ids.append(some)
    expected, expected_ids = scanned(config, 18)
    assert total == expected
    assert np.array_equal(np.concatenate(ids), expected_ids)


@pytest.mark.parametrize("num_batches", [None, 2])
def test_batches_lie_in_the_memory_that_is_asked_for(config: arsrc.ArrayRecordSourceConfig, num_batches: Any) -> None:
    sharding = SingleDeviceSharding(jax.devices()[0], memory_kind="pinned_host")
    state, batch = next(arsrc.iterate(config, num_batches=num_batches, device=sharding))
    assert {leaf.sharding.memory_kind for leaf in jax.tree.leaves(batch)} == {"pinned_host"}
    assert state.index.sharding.memory_kind == "device"


# How many there are.


def test_no_third_segment_is_made_while_two_are_in_use(config: arsrc.ArrayRecordSourceConfig) -> None:
    """Programs take far longer than segments do: each is dispatched behind the one before."""

    @jax.jit
    def run(matrix: jax.Array, batches: arsrc.Batch) -> jax.Array:
        matrix = matrix + batches.data[0, 0, 0].astype(jnp.float32)
        return jax.lax.fori_loop(0, 400, lambda _, m: jnp.tanh(m @ matrix), matrix)

    matrix = jnp.zeros((300, 300))
    run(matrix, next(arsrc.iterate(config, num_batches=SIZE))[1]).block_until_ready()
    results: list[Any] = []
    for _, batches in arsrc.iterate(config, num_batches=SIZE):
        if len(results) > 1:
            assert results[-2].is_ready()
        if results:
            assert not results[-1].is_ready()
        results.append(run(matrix, batches))
    assert len(results) == 6


def test_what_was_dispatched_is_done_when_it_is() -> None:
    @jax.jit
    def long(matrix: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, 400, lambda _, m: jnp.tanh(m @ matrix), matrix)

    matrix = jnp.zeros((300, 300))
    long(matrix).block_until_ready()
    dispatched = Dispatched(None)
    assert dispatched.is_done(0)
    dispatched.mark()
    assert dispatched.is_done(60)
    result = long(matrix)
    dispatched.mark()
    assert not dispatched.is_done(0)
    assert dispatched.is_done(60)
    assert result.is_ready()
    result = long(matrix)
    dispatched.mark()
    dispatched.wait()
    assert result.is_ready()


def test_a_segment_that_the_program_lets_go_of_is_gone(config: arsrc.ArrayRecordSourceConfig) -> None:
    for _, batches in itertools.islice(arsrc.iterate(config, num_batches=SIZE), 4):
        kept = weakref.ref(batches.mask)
        del batches
        assert kept() is None


def test_a_segment_is_never_longer_than_what_is_left(config: arsrc.ArrayRecordSourceConfig) -> None:
    state = arsrc.state_at(config, 11)
    ((after, batches),) = arsrc.iterate(config, state, num_batches=2**20)
    assert len(batches.mask) == 7
    assert arsrc.is_exhausted(config, after)
    assert not list(arsrc.iterate(config, after, num_batches=2**20))


# Errors.


@pytest.mark.parametrize("num_batches", [None, SIZE])
def test_a_loop_inside_a_transformation_is_refused_where_it_would_read(
    config: arsrc.ArrayRecordSourceConfig, num_batches: int | None
) -> None:
    loop = arsrc.iterate(config, num_batches=num_batches)
    with pytest.raises(arsrc.ArsrcTypeError, match=r"^\[arsrc\] iterate: runs on the host"):
        jax.jit(lambda: next(loop)[1].mask)()
    loop = arsrc.iterate(config, num_batches=num_batches)
    next(loop)
    time.sleep(0.2)  # the next one is there, most likely

    def in_trace() -> Any:
        for _, batch in loop:
            assert not isinstance(batch.mask, jax.core.Tracer)

    with pytest.raises(arsrc.ArsrcTypeError, match=r"^\[arsrc\] iterate: runs on the host"):
        jax.jit(in_trace)()


@pytest.mark.parametrize("num_batches", [0, -1, 1.5, "2", 2**31, 10**12])
def test_a_number_of_batches_that_makes_no_sense_is_refused(
    config: arsrc.ArrayRecordSourceConfig, num_batches: Any
) -> None:
    with pytest.raises(arsrc.ArsrcError, match=r"^\[arsrc\] iterate: num_batches .*; got num_batches="):
        arsrc.iterate(config, num_batches=num_batches)


def test_a_bad_record_is_an_error_at_its_segment_and_can_be_left_out(tmp_path: Any, write_records: Any) -> None:
    records = [bytes([i] * (3 if i == 11 else 2)) for i in range(20)]
    path = write_records(tmp_path / "x.array_record", records)
    config = arsrc.ArrayRecordSourceConfig(path, 3, num_epochs=1)
    loop = arsrc.iterate(config, num_batches=2)
    state, first = next(loop)
    assert first.record_ids.ravel().tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(arsrc.ArsrcValueError, match=r"^\[arsrc\] decode: record 11 "):
        next(loop)
    without = arsrc.ArrayRecordSourceConfig(path, 3, num_epochs=1, exclude=[11])
    rest = list(arsrc.iterate(without, state, num_batches=2))
    assert [len(batches.mask) for _, batches in rest] == [2, 2]
    assert int(sum(batches.mask.sum() for _, batches in rest)) == 11


def test_segments_go_on_after_the_source_is_closed(config: arsrc.ArrayRecordSourceConfig) -> None:
    def taken(loop: Iterator[Any]) -> list[Any]:
        return [batches.record_ids.tolist() for _, batches in loop]

    expected = taken(arsrc.iterate(config, num_batches=4))
    loop = arsrc.iterate(config, num_batches=4)
    found = taken(itertools.islice(loop, 2))
    arsrc.close(config)
    assert found + taken(loop) == expected
