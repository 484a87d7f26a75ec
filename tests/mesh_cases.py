"""What test_mesh.py runs on eight devices: global batches on meshes, each device reading only its rows.

To run it by itself: `XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m pytest tests/mesh_cases.py`
"""

import dataclasses
import functools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import arsrc
from arsrc.codecs import Map, Struct

N = 100
B = 24  # divides among 1, 2, 3, 4, 6 and 8 devices
PAD_ID = 2**32 - 1
CODEC = Struct({"id": "uint32", "x": ("float32", 3)})

Config = arsrc.ArrayRecordSourceConfig

on_both_paths = pytest.mark.parametrize("bridge_path", ["fast", "portable"], indirect=True)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    ids = np.arange(N, dtype=np.uint32)
    x = np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32)
    return arsrc.write_array_record(
        tmp_path_factory.mktemp("mesh") / "x.array_record", {"id": ids, "x": x}, codec=CODEC
    )[0]


@pytest.fixture
def make(path: str, request: pytest.FixtureRequest, bridge_path: str) -> Callable[..., Config]:
    """`make(**fields)`: a config whose metrics are those of this test alone."""
    defaults = {"batch_size": B, "codec": CODEC, "shuffle_records": True, "name": request.node.name}
    return lambda **fields: Config(path, **(defaults | fields))


def mesh_of(shape: tuple[int, ...], names: tuple[str, ...]) -> Mesh:
    return Mesh(np.array(jax.devices()[: np.prod(shape)]).reshape(shape), names)


def line(num_devices: int) -> Mesh:
    return mesh_of((num_devices,), ("data",))


# name: (mesh, what the batch is divided over)
MESHES: dict[str, Callable[[], tuple[Mesh, Any]]] = {
    "1": lambda: (line(1), "data"),
    "3": lambda: (line(3), "data"),
    "8": lambda: (line(8), "data"),
    "8 reversed": lambda: (Mesh(np.array(jax.devices()[::-1]), ("data",)), "data"),
    "rows of 4 x 2": lambda: (mesh_of((4, 2), ("data", "model")), "data"),
    "columns of 2 x 4": lambda: (mesh_of((2, 4), ("model", "data")), "data"),
    "all of 4 x 2": lambda: (mesh_of((4, 2), ("data", "model")), ("data", "model")),
    "all of 4 x 2 the other way": lambda: (mesh_of((4, 2), ("data", "model")), ("model", "data")),
    "two of three": lambda: (mesh_of((2, 2, 2), ("data", "tensor", "fsdp")), ("data", "fsdp")),
}


def on_meshes(*names: str) -> Any:
    return pytest.mark.parametrize("mesh_name", names)


def stream(config: Config, num_steps: int, state: Any = None) -> arsrc.Batch:
    """Return the next batches as one device in a plain Python loop gets them, stacked; exhausted ones too."""
    batches = []
    for _, (_, batch) in zip(range(num_steps), arsrc.iterate(config, state), strict=False):
        ids, mask = np.asarray(batch.record_ids), np.asarray(batch.mask)
        assert np.array_equal(batch.data["id"], np.where(mask, ids, 0))  # each record holds its id
        batches.append(jax.tree.map(np.asarray, batch))
    empty = jax.tree.map(np.zeros_like, batches[0])
    pads, epochs = np.full((2, config.batch_size), [[PAD_ID], [config.num_epochs % 2**32]], np.uint32)
    empty = dataclasses.replace(empty, record_ids=pads, epochs=epochs)
    batches += [empty] * (num_steps - len(batches))
    return jax.tree.map(lambda *leaves: np.stack(leaves), *batches)


def same(batch: Any, expected: Any) -> bool:
    return jax.tree.structure(batch) == jax.tree.structure(expected) and all(
        left.dtype == right.dtype and np.array_equal(left, right)
        for left, right in zip(jax.tree.leaves(batch), jax.tree.leaves(expected), strict=True)
    )


def at(config: Config, state: arsrc.SourceState, step: int) -> bool:
    wanted = arsrc.state_at(config, step)
    return (int(state.index), int(state.epoch)) == (int(wanted.index), int(wanted.epoch))


def on_devices(function: Callable[..., Any], mesh: Mesh, out_specs: Any, **options: Any) -> Callable[..., Any]:
    """`jit(shard_map(function))`, with replicated arguments."""
    return jax.jit(jax.shard_map(function, mesh=mesh, in_specs=P(), out_specs=out_specs, **options))


def number_of(device: Any, mesh: Mesh, axis_name: Any) -> tuple[int, int]:
    """Return `(d, D)`: which one a device is along some axes of the mesh."""
    place = dict(zip(mesh.axis_names, np.argwhere(mesh.devices == device)[0], strict=True))
    d, num_devices = 0, 1
    for name in (axis_name,) if isinstance(axis_name, str) else axis_name:
        d, num_devices = d * mesh.shape[name] + int(place[name]), num_devices * mesh.shape[name]
    return d, num_devices


def each_device_has_its_rows(batch: Any, expected: Any, mesh: Mesh, axis_name: Any, rows_axis: int) -> bool:
    """Whether device `d` of `D` holds rows `[d * B / D, (d + 1) * B / D)`, and all devices hold some."""
    for leaf, whole in zip(jax.tree.leaves(batch), jax.tree.leaves(expected), strict=True):
        assert {shard.device for shard in leaf.addressable_shards} == set(mesh.devices.ravel())
        for shard in leaf.addressable_shards:
            d, num_devices = number_of(shard.device, mesh, axis_name)
            rows = slice(d * B // num_devices, (d + 1) * B // num_devices)
            if not np.array_equal(shard.data, whole[(slice(None),) * rows_axis + (rows,)]):
                return False
    return True


# Records that cannot be decoded.


def all_but_some(record: bytes) -> dict[str, np.ndarray]:
    found = np.frombuffer(record, np.uint32, 1)[0]
    if found % 7 == 3:
        raise ValueError("no")
    return {"id": found, "x": np.frombuffer(record, np.float32, 3, 4)}


def all_of_them(record: bytes) -> dict[str, np.ndarray]:
    return {"id": np.frombuffer(record, np.uint32, 1)[0], "x": np.frombuffer(record, np.float32, 3, 4)}


@on_both_paths
@on_meshes("columns of 2 x 4")
def test_devices_mask_the_rows_of_bad_records_and_no_others(make: Callable[..., Config], mesh_name: str) -> None:
    mesh, axis_name = MESHES[mesh_name]()
    healthy = make(remainder="pad", num_epochs=2)
    config = dataclasses.replace(healthy, codec=Map(all_but_some, CODEC.element_spec()), on_bad_record="mask")
    expected = stream(dataclasses.replace(healthy, exclude=range(3, N, 7)), 10)
    run = on_devices(
        lambda state: arsrc.next_batches(config, state, 10, axis_name=axis_name), mesh, (P(), P(None, axis_name))
    )
    _, batches = run(arsrc.init(config))
    assert each_device_has_its_rows(batches, expected, mesh, axis_name, rows_axis=1)
    assert same(batches, expected)
    whole = arsrc.next_global_batch(config, arsrc.init(config), mesh=mesh, axis_name=axis_name, num_batches=10)[1]
    assert same(whole, expected)
    spec = NamedSharding(mesh, P(axis_name))
    for step, (_, batch) in enumerate(arsrc.iterate(config, device=spec)):
        assert same(batch, jax.tree.map(lambda leaf, step=step: leaf[step], expected))
    assert arsrc.bad_records(config).ids == tuple(range(3, N, 7))


# Mixtures.


@on_both_paths
@on_meshes("3", "two of three")
def test_devices_get_their_rows_of_a_mixture(make: Callable[..., Config], mesh_name: str) -> None:
    mesh, axis_name = MESHES[mesh_name]()
    sources = make(num_epochs=1, exclude=[3]), make(select=[(0, 7)], codec=Map(all_of_them, CODEC.element_spec()))
    mix = arsrc.MixtureConfig(sources, (3, 1), batch_size=B, stop="all")
    batches = [jax.tree.map(np.asarray, batch) for _, (_, batch) in zip(range(8), arsrc.iterate(mix), strict=False)]
    expected = jax.tree.map(lambda *leaves: np.stack(leaves), *batches)
    assert 0 < (~expected.mask).sum() < expected.mask.size / 2
    run = on_devices(
        lambda state: arsrc.next_batches(mix, state, 8, axis_name=axis_name), mesh, (P(), P(None, axis_name))
    )
    _, found = run(arsrc.init(mix))
    assert each_device_has_its_rows(found, expected, mesh, axis_name, rows_axis=1)
    assert same(found, expected)
    whole = arsrc.next_global_batch(mix, arsrc.init(mix), mesh=mesh, axis_name=axis_name, num_batches=8)[1]
    assert same(whole, expected)
    spec = NamedSharding(mesh, P(axis_name))
    for step, (_, batch) in zip(range(8), arsrc.iterate(mix, device=spec), strict=False):
        assert same(batch, jax.tree.map(lambda leaf, step=step: leaf[step], expected))
    table = arsrc.load_resident(mix, device=NamedSharding(mesh, P()))
    with_table = jax.jit(lambda state, table: arsrc.next_batches(mix, state, 8, resident=table))
    assert same(with_table(arsrc.init(mix), table)[1], expected)


# Inside shard_map.


@on_meshes("1", "3", "8 reversed", "all of 4 x 2 the other way", "two of three")
def test_devices_in_shard_map_get_their_rows(make: Callable[..., Config], mesh_name: str) -> None:
    """Over the end of an epoch, where some devices get no record at all, and over the end of the last one."""
    mesh, axis_name = MESHES[mesh_name]()
    config = make(remainder="pad", num_epochs=2)

    def run(state: arsrc.SourceState) -> Any:
        return jax.lax.scan(lambda state, _: arsrc.next_batch(config, state, axis_name=axis_name), state, length=12)

    state, batches = on_devices(run, mesh, (P(), P(None, axis_name)))(arsrc.init(config))
    expected = stream(config, 12)
    assert expected.mask.sum() == 2 * N
    assert each_device_has_its_rows(batches, expected, mesh, axis_name, rows_axis=1)
    assert same(batches, expected)
    assert arsrc.is_exhausted(config, state)


@on_both_paths
@on_meshes("3", "two of three")
def test_devices_in_shard_map_get_their_rows_of_several_batches_at_once(
    make: Callable[..., Config], mesh_name: str
) -> None:
    mesh, axis_name = MESHES[mesh_name]()
    config = make(remainder="wrap")
    run = on_devices(
        lambda state: arsrc.next_batches(config, state, 6, axis_name=axis_name),
        mesh,
        (P(), P(None, axis_name)),
    )
    state, batches = run(arsrc.state_at(config, 3))
    expected = stream(config, 6, arsrc.state_at(config, 3))
    assert each_device_has_its_rows(batches, expected, mesh, axis_name, rows_axis=1)
    assert at(config, state, 9)


@on_both_paths
@pytest.mark.parametrize("read_ahead_bytes", [0, 2**28])
def test_each_record_is_read_by_one_device_only(make: Callable[..., Config], read_ahead_bytes: int) -> None:
    config = make(remainder="pad", num_epochs=1, read=arsrc.ReadOptions(read_ahead_bytes=read_ahead_bytes))
    mesh = line(4)
    run = on_devices(
        lambda state: arsrc.scan_epoch(config, state, None, lambda _, b: (None, b), axis_name="data"),
        mesh,
        (P(), None, P(None, "data")),
    )
    _, _, batches = run(arsrc.init(config))
    ids = batches.record_ids
    assert sorted(np.asarray(ids)[np.asarray(ids) != PAD_ID].tolist()) == list(range(N))
    assert arsrc.io_metrics(config)["records_read"] == N


@pytest.mark.parametrize(("shape", "batches_per_fetch"), [((4, 2), 1), ((4, 2), 2), ((1, 8), 1)])
@pytest.mark.parametrize("in_lockstep", [True, False])
def test_rows_are_read_once_and_shared_along_other_axes(
    make: Callable[..., Config], shape: tuple[int, int], batches_per_fetch: int, in_lockstep: bool
) -> None:
    """Whether devices wait for each other after each step, as in training, or run ahead, as in evaluation."""
    mesh = mesh_of(shape, ("data", "model"))
    config = make(remainder="pad", num_epochs=2)
    num_steps = arsrc.total_steps(config)

    def body(total: Any, batch: arsrc.Batch) -> tuple[Any, Any]:
        part = batch.data["x"].sum()
        return total + (jax.lax.psum(part, ("data", "model")) if in_lockstep else part), batch.record_ids

    def run(state: arsrc.SourceState) -> Any:
        _, total, ids = arsrc.scan_steps(
            config, state, jnp.float32(0), body, num_steps, axis_name="data", batches_per_fetch=batches_per_fetch
        )
        return total[None], ids

    _, ids = on_devices(run, mesh, (P(("data", "model")), P(None, "data")), check_vma=False)(arsrc.init(config))
    assert same(ids, stream(dataclasses.replace(config, name="expected"), num_steps).record_ids)
    assert arsrc.io_metrics(config)["records_read"] == 2 * N


@on_both_paths
@pytest.mark.parametrize("what", ["data", "mask", "record_ids", "taken", "members"])
def test_jax_knows_that_devices_have_other_rows(make: Callable[..., Config], what: str) -> None:
    """Else it would let batches leave as replicated, and leave the sum over devices out of gradients."""
    config = make()
    mesh = line(4)

    def run(state: arsrc.SourceState) -> Any:
        if what == "members":
            state = arsrc.advance(config, state, jax.lax.axis_index("data").astype(jnp.uint32))
            return arsrc.next_batch(config, state)[1].data["x"]
        _, batch = arsrc.next_batch(config, state, axis_name="data")
        if what == "taken":
            return arsrc.take(config, batch.record_ids).data["x"]
        return batch.data["x"] if what == "data" else getattr(batch, what)

    with pytest.raises(ValueError, match=r"out_specs.*replicat"):
        on_devices(run, mesh, P())(arsrc.init(config))
    on_devices(run, mesh, P("data"))(arsrc.init(config))


@on_both_paths
@pytest.mark.parametrize("loop", ["while_loop", "cond", "without jit"])
def test_transformations_inside_shard_map(make: Callable[..., Config], loop: str) -> None:
    mesh = line(4)
    config = make()
    expected = stream(config, 3)

    def third(state: arsrc.SourceState) -> Any:
        fetch = functools.partial(arsrc.next_batch, config, axis_name="data")
        if loop == "while_loop":
            state, _ = jax.lax.while_loop(
                lambda carry: carry[1] < 2, lambda carry: (fetch(carry[0])[0], carry[1] + 1), (state, 0)
            )
        elif loop == "cond":
            for _ in range(2):
                state = jax.lax.cond(state.index >= 0, lambda state: fetch(state)[0], lambda state: state, state)
        else:
            state = arsrc.advance(config, state, 2)
        return fetch(state)[1].data["x"]

    run = jax.shard_map(third, mesh=mesh, in_specs=P(), out_specs=P("data"))
    run = run if loop == "without jit" else jax.jit(run)
    assert np.array_equal(run(arsrc.init(config)), expected.data["x"][2])


@on_both_paths
def test_a_gradient_is_summed_over_the_devices(make: Callable[..., Config]) -> None:
    """Of a weight that all devices share, as of any other loss in shard_map; of weights of their own it is not."""
    config, mesh = make(), line(4)

    def run(state: arsrc.SourceState, shared: Any, own: Any) -> Any:
        def loss(shared: Any, own: Any) -> Any:
            x = arsrc.next_batch(config, state, axis_name="data")[1].data["x"]
            return (shared * own[0] * x.sum(0)).sum()

        return jax.grad(loss, argnums=(0, 1))(shared, own)

    program = jax.shard_map(run, mesh=mesh, in_specs=(P(), P(), P("data")), out_specs=(P(), P("data")))
    shared, own = jax.jit(program)(arsrc.init(config), jnp.ones(3), jnp.ones((4, 3)))
    sums = stream(config, 1).data["x"][0].reshape(4, -1, 3).sum(1)
    np.testing.assert_allclose(own, sums, rtol=1e-5)
    np.testing.assert_allclose(shared, sums.sum(0), rtol=1e-5)


@on_both_paths
def test_an_axis_that_is_left_to_the_compiler_is_refused_by_jax(make: Callable[..., Config]) -> None:
    mesh = mesh_of((4, 2), ("data", "model"))
    config = make()
    run = on_devices(
        lambda state: arsrc.next_batch(config, state, axis_name="data")[1].data,
        mesh,
        P("data"),
        axis_names={"data"},
    )
    with pytest.raises(NotImplementedError, match="manual"):
        run(arsrc.init(config))


READS = {
    "next_batch": lambda config, state: arsrc.next_batch(config, state)[1],
    "data of next_batch": lambda config, state: arsrc.next_batch(config, state)[1].data,
    "data of next_batches": lambda config, state: arsrc.next_batches(config, state, 2)[1].data,
    "data of batch_at": lambda config, state: arsrc.batch_at(config, state, 3, 5).data,
    "data of take": lambda config, state: arsrc.take(config, arsrc.record_ids(config, state)).data,
}


@on_both_paths
@pytest.mark.parametrize("name", READS)
def test_a_program_that_jax_divides_by_itself_reads_once_and_every_device_has_it(
    make: Callable[..., Config], name: str
) -> None:
    config = make(read=arsrc.ReadOptions(read_ahead_bytes=0))
    state = arsrc.state_at(config, 2)
    everywhere = jax.device_put(state, jax.sharding.NamedSharding(line(4), P()))
    expected = jax.tree.leaves(READS[name](config, state))
    before = arsrc.io_metrics(config)["records_read"]
    found = jax.block_until_ready(jax.jit(functools.partial(READS[name], config))(everywhere))
    assert arsrc.io_metrics(config)["records_read"] == before + expected[0].size
    for leaf, whole in zip(jax.tree.leaves(found), expected, strict=True):
        assert len(leaf.addressable_shards) == 4
        for shard in leaf.addressable_shards:
            np.testing.assert_array_equal(shard.data, whole[shard.index])


def test_each_device_has_the_keys_of_its_rows(make: Callable[..., Config]) -> None:
    """Over the end of an epoch: as one device has them, in shard_map and on global arrays."""
    config, axis_name = make(remainder="wrap", shuffle_records=False), "data"
    state = arsrc.state_at(config, 4)
    expected = arsrc.peek(config, state)
    assert set(expected.epochs.tolist()) == {0, 1}

    def keys_of(batch: arsrc.Batch) -> Any:
        return jax.random.key_data(arsrc.record_keys(config, state, batch))

    def on_device(state: arsrc.SourceState) -> Any:
        batch = arsrc.next_batch(config, state, axis_name=axis_name)[1]
        return batch, keys_of(batch)

    expected_keys = keys_of(expected)
    mesh = line(4)
    for check_vma in (True, False):
        batch, keys = on_devices(on_device, mesh, P("data"), check_vma=check_vma)(state)
        assert same((batch, keys), (expected, expected_keys))
    _, batches = arsrc.next_global_batch(config, state, mesh=mesh, axis_name=axis_name, num_batches=2)
    assert same(keys_of(batches)[0], expected_keys)
    after, batch = next(arsrc.iterate(config, state, device=NamedSharding(mesh, P("data"))))
    assert same(jax.random.key_data(arsrc.record_keys(config, after, batch)), expected_keys)


@pytest.mark.parametrize("axis_name", ["data", ("data",), ["data"]])
def test_each_device_has_the_ids_and_the_mask_of_its_rows(make: Callable[..., Config], axis_name: Any) -> None:
    config = make(remainder="pad")
    state = arsrc.state_at(config, 4)  # the last batch, of four records

    def on_device(state: arsrc.SourceState) -> Any:
        return [function(config, state, axis_name=axis_name) for function in (arsrc.record_ids, arsrc.batch_mask)]

    ids, mask = on_devices(on_device, line(4), P("data"))(state)
    np.testing.assert_array_equal(ids, arsrc.record_ids(config, state))
    np.testing.assert_array_equal(mask, arsrc.batch_mask(config, state))
    assert mask.sum() == 4


@on_both_paths
def test_without_axis_name_each_device_gets_the_whole_batch(make: Callable[..., Config]) -> None:
    config = make(num_epochs=1)
    run = on_devices(lambda state: arsrc.next_batch(config, state), line(4), P())
    _, batch = run(arsrc.init(config))
    expected = jax.tree.map(lambda leaf: leaf[0], stream(config, 1))
    assert all(np.array_equal(shard.data, expected.mask) for shard in batch.mask.addressable_shards)
    assert same(batch, expected)


@on_both_paths
def test_an_error_in_the_rows_of_one_device_is_raised_and_the_rest_can_be_had(tmp_path: Path, bridge_path: str) -> None:
    records = [bytes([i] * (3 if i == 11 else 2)) for i in range(24)]
    path = arsrc.write_array_record(tmp_path / "bad.array_record", records)
    config = Config(path, 8, num_epochs=1)
    run = on_devices(lambda state: arsrc.next_batch(config, state, axis_name="data")[1].data, line(4), P("data"))
    for step, is_good in ((0, True), (1, False), (2, True), (1, False), (0, True)):
        if is_good:
            data = run(arsrc.state_at(config, step))
            assert np.asarray(data)[:, 0].tolist() == list(range(8 * step, 8 * step + 8))
        else:
            with pytest.raises(
                (jax.errors.JaxRuntimeError, ValueError), match=r"\[arsrc\] decode: record 11 \(record 11 of "
            ):
                jax.block_until_ready(run(arsrc.state_at(config, step)))


# From outside: next_global_batch.


def fits(batch: Any, sharding: NamedSharding) -> bool:
    leaves = jax.tree.leaves(batch)
    return all(
        isinstance(leaf.sharding, NamedSharding)
        and leaf.sharding.mesh == sharding.mesh
        and leaf.sharding.is_equivalent_to(sharding, leaf.ndim)
        for leaf in leaves
    )


@on_meshes("1", "8 reversed", "columns of 2 x 4", "all of 4 x 2")
def test_a_global_batch_has_the_sharding_that_one_expects(make: Callable[..., Config], mesh_name: str) -> None:
    mesh, axis_name = MESHES[mesh_name]()
    config = make(remainder="pad", num_epochs=2)
    expected = stream(config, 6)
    state = arsrc.state_at(config, 3)
    for step in range(3, 6):  # the second state is one that lies on the mesh
        state, batch = arsrc.next_global_batch(config, state, mesh=mesh, axis_name=axis_name)
        assert fits(batch, NamedSharding(mesh, P(axis_name)))
        wanted = jax.tree.map(lambda leaf, step=step: leaf[step], expected)
        assert each_device_has_its_rows(batch, wanted, mesh, axis_name, rows_axis=0)
        assert same(batch, wanted)
        assert fits((state.index, state.epoch, state.key), NamedSharding(mesh, P()))
    assert at(config, state, 6)


@on_meshes("3", "rows of 4 x 2")
def test_global_batches_in_jit_and_several_at_once(make: Callable[..., Config], mesh_name: str) -> None:
    mesh, axis_name = MESHES[mesh_name]()
    config = make(remainder="wrap")
    get = functools.partial(arsrc.next_global_batch, config, mesh=mesh, axis_name=axis_name)
    expected = stream(config, 4)

    state, batch = jax.jit(get)(arsrc.init(config))
    assert fits(batch, NamedSharding(mesh, P(axis_name)))
    assert same(batch, jax.tree.map(lambda leaf: leaf[0], expected))
    for num_batches in (1, 3) if mesh_name == "3" else (2,):
        after, batches = get(state, num_batches=num_batches)
        assert fits(batches, NamedSharding(mesh, P(None, axis_name)))
        assert same(batches, jax.tree.map(lambda leaf, n=num_batches: leaf[1 : 1 + n], expected))
        assert at(config, after, 1 + num_batches)


def test_a_state_may_be_donated(make: Callable[..., Config]) -> None:
    config, mesh = make(), line(4)
    step = jax.jit(functools.partial(arsrc.next_global_batch, config, mesh=mesh, axis_name="data"), donate_argnums=0)
    state, ids = arsrc.init(config), []
    for _ in range(3):
        state, batch = step(state)
        ids.append(np.asarray(batch.record_ids))
    assert same(np.stack(ids), stream(config, 3).record_ids)
    states = [
        state
        for _, (state, _) in zip(range(3), arsrc.iterate(config, device=NamedSharding(mesh, P("data"))), strict=False)
    ]
    for number, state in enumerate(states):  # two of them with one array would be an error
        assert at(config, step(state)[0], number + 2)


@pytest.mark.parametrize(("num_saved", "num_restored"), [(8, 8), (8, 4), (1, 8)])
def test_the_lines_of_the_documentation_restore_onto_any_mesh(
    make: Callable[..., Config], tmp_path: Path, monkeypatch: Any, num_saved: int, num_restored: int
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[1] / "docs" / "checkpoints.md").read_text()
    (lines,) = [code for code in re.findall(r"^```python\n(.*?)^```", page, re.M | re.S) if "import orbax" in code]
    without_saving = re.sub(r"^    manager\.(save|wait).*\n", "", lines, flags=re.M)
    assert without_saving.count("\n") == lines.count("\n") - 2
    config = make(shuffle_records=False)

    def train_step(mesh: Mesh) -> Callable[..., Any]:
        @jax.jit
        def step(train_state: Any) -> Any:
            source, batch = arsrc.next_global_batch(config, train_state["source"], mesh=mesh, axis_name="data")
            params = jax.tree.map(lambda w: w + batch.data["x"].sum(), train_state["params"])
            return {"params": params, "source": source}, batch.record_ids

        return step

    params, names = jnp.arange(8.0), {"jax": jax, "arsrc": arsrc, "config": config}
    mesh = line(num_saved)
    before = {"params": jax.device_put(params, NamedSharding(mesh, P("data"))), "source": arsrc.init(config)}
    before, _ = train_step(mesh)(before)
    exec(lines, names | {"params": before["params"], "later": before["source"]})
    mesh = line(num_restored)
    names |= {"params": jax.device_put(params, NamedSharding(mesh, P("data"))), "later": None}
    exec(without_saving, names)
    restored = names["restored"]
    assert same(restored["params"], before["params"])
    assert at(config, restored["source"], 1)
    after, ids = train_step(mesh)(restored)
    assert same(ids, stream(config, 2).record_ids[1])
    assert at(config, after["source"], 2)


@on_both_paths
def test_a_mesh_of_explicit_axes_types_the_batch(make: Callable[..., Config]) -> None:
    config = make()
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
    with jax.set_mesh(mesh):

        @jax.jit
        def run(state: arsrc.SourceState) -> Any:
            _, batch = arsrc.next_global_batch(config, state, mesh=mesh, axis_name="data")
            assert jax.typeof(batch.data["x"]).sharding.spec == P("data", None)
            return batch.record_ids, batch.data["x"] * jnp.float32(2)

        ids, twice = run(arsrc.init(config))
    assert twice.sharding.is_equivalent_to(NamedSharding(mesh, P("data")), 2)
    assert same(ids, stream(config, 1).record_ids[0])


def test_the_same_program_trains_alike_on_any_mesh(make: Callable[..., Config]) -> None:
    """Data parallel with the batch fetched inside of the loss: gradients are those of one device."""
    config = make(remainder="wrap")

    def losses_on(mesh: Mesh) -> np.ndarray:
        def run(state: arsrc.SourceState, weights: Any) -> Any:
            def step(carry: Any, _: None) -> Any:
                state, weights = carry

                def loss_fn(weights: Any) -> Any:
                    after, batch = arsrc.next_batch(config, state, axis_name="data")
                    error = batch.data["x"] @ weights - batch.data["x"].sum(1)
                    return jax.lax.pmean(jnp.mean(error**2), "data"), after

                (loss, state), grad = jax.value_and_grad(loss_fn, has_aux=True)(weights)
                return (state, weights - 0.1 * grad), loss

            return jax.lax.scan(step, (state, weights), length=20)[1]

        return np.asarray(on_devices(run, mesh, P())(arsrc.init(config), jnp.zeros(3)))

    one = losses_on(line(1))
    assert one[-1] < one[0] / 10
    for num_devices in (3, 8):
        np.testing.assert_allclose(losses_on(line(num_devices)), one, rtol=1e-5)


# Loops.


def put_out(carry: Any, batch: arsrc.Batch) -> tuple[Any, Any]:
    return carry, batch


def collect(count: Any, batch: arsrc.Batch) -> tuple[Any, Any]:
    return count + batch.mask.sum(dtype=jnp.int32), {"batch": batch, "count": count}


def test_scans_over_global_batches(make: Callable[..., Config]) -> None:
    mesh, axis_name = MESHES["rows of 4 x 2"]()
    config = make(remainder="pad", num_epochs=2)
    expected = stream(config, 12)
    options = {"mesh": mesh, "axis_name": axis_name, "batches_per_fetch": 3}

    @jax.jit
    def run(state: arsrc.SourceState) -> Any:
        state, count, first = arsrc.scan_epoch(config, state, jnp.int32(0), collect, **options)
        state, count, second = arsrc.scan_steps(config, state, count, collect, 7, **options)
        return state, count, jax.tree.map(lambda *parts: jnp.concatenate(parts), first, second)

    state, count, outputs = run(arsrc.init(config))
    assert same(outputs["batch"], expected)
    assert int(count) == 2 * N
    assert np.asarray(outputs["count"]).tolist() == [0, *expected.mask.sum(1).cumsum()[:-1].tolist()]
    assert outputs["batch"].data["x"].sharding.is_equivalent_to(NamedSharding(mesh, P(None, "data")), 3)
    assert arsrc.is_exhausted(config, state)


@on_both_paths
@pytest.mark.parametrize("batches_per_fetch", [1, 3])
def test_scans_inside_shard_map(make: Callable[..., Config], batches_per_fetch: int) -> None:
    mesh = line(3)
    config = make(remainder="wrap")

    def run(state: arsrc.SourceState) -> Any:
        options = {"axis_name": "data", "batches_per_fetch": batches_per_fetch}
        state, _, first = arsrc.scan_epoch(config, state, None, put_out, **options)
        state, _, second = arsrc.scan_steps(config, state, None, put_out, 4, **options)
        return state, jax.tree.map(lambda *parts: jnp.concatenate(parts), first, second)

    state, batches = on_devices(run, mesh, (P(), P(None, "data")))(arsrc.init(config))
    assert same(batches, stream(config, 9))
    assert at(config, state, 9)


@on_meshes(*MESHES)
def test_iterate_gives_global_arrays(make: Callable[..., Config], mesh_name: str) -> None:
    mesh, axis_name = MESHES[mesh_name]()
    config = make(remainder="pad", num_epochs=1)
    sharding = NamedSharding(mesh, P(axis_name))
    expected = stream(dataclasses.replace(config, name="expected"), 5)
    served = list(arsrc.iterate(config, device=sharding))
    assert len(served) == 5
    for step, (state, batch) in enumerate(served):
        assert fits(batch, sharding)
        assert fits((state.index, state.epoch, state.key), NamedSharding(mesh, P()))
        assert same(batch, jax.tree.map(lambda leaf, step=step: leaf[step], expected))
        assert at(config, state, step + 1)
    assert arsrc.io_metrics(config)["records_read"] == N


@on_meshes(*MESHES)
def test_segments_are_divided_as_batches_are(make: Callable[..., Config], mesh_name: str) -> None:
    mesh, axis_name = MESHES[mesh_name]()
    config = make(remainder="pad", num_epochs=1)
    expected = stream(dataclasses.replace(config, name="expected"), 5)
    served = list(arsrc.iterate(config, num_batches=2, device=NamedSharding(mesh, P(axis_name))))
    for first, (state, segment) in zip((0, 2, 4), served, strict=True):
        assert fits(segment, NamedSharding(mesh, P(None, axis_name)))
        assert fits((state.index, state.epoch, state.key), NamedSharding(mesh, P()))
        assert same(segment, jax.tree.map(lambda leaf, first=first: leaf[first : first + 2], expected))
        assert at(config, state, min(first + 2, 5))
    assert arsrc.io_metrics(config)["records_read"] == N


@pytest.mark.parametrize("num_batches", [None, 2])
def test_iterate_heeds_its_device_and_no_mesh_that_is_set(make: Callable[..., Config], num_batches: int | None) -> None:
    config = make(remainder="pad", num_epochs=1)
    expected = list(arsrc.iterate(config, num_batches=num_batches))
    square = mesh_of((2, 2), ("data", "model"))
    placements = (None, jax.devices()[3], NamedSharding(line(2), P("data")), NamedSharding(square, P("data")))
    for mesh in (jax.make_mesh((4,), ("data",)), square):
        for device in placements:
            with jax.set_mesh(mesh):
                served = list(arsrc.iterate(config, num_batches=num_batches, device=device))
            for (state, batch), (wanted_state, wanted) in zip(served, expected, strict=True):
                assert same(batch, wanted)
                assert (int(state.index), int(state.epoch)) == (int(wanted_state.index), int(wanted_state.epoch))


def test_a_state_that_lies_on_a_mesh_goes_on_in_all_ways(make: Callable[..., Config]) -> None:
    config, mesh = make(), mesh_of((4, 2), ("data", "model"))
    sharding = NamedSharding(mesh, P("data"))
    batches = arsrc.iterate(config, device=sharding)
    (state, _), (_, expected) = next(batches), next(batches)
    assert same(arsrc.next_global_batch(config, state, mesh=mesh, axis_name="data")[1], expected)
    assert same(arsrc.next_batch(config, state)[1], expected)
    assert same(arsrc.peek(config, state), expected)
    assert same(next(arsrc.iterate(config, state))[1], expected)
    assert same(arsrc.record_ids(config, state), expected.record_ids)
    assert same(arsrc.batch_mask(config, state), expected.mask)
    assert at(config, arsrc.advance(config, state, 7), 8)
    assert int(arsrc.step_of(config, state)) == 1
    assert arsrc.to_state_dict(config, state) == arsrc.to_state_dict(config, arsrc.state_at(config, 1))


def test_iterate_replicates(make: Callable[..., Config]) -> None:
    config = make()
    sharding = NamedSharding(line(4), P())
    for _, (_, batch) in zip(range(2), arsrc.iterate(config, device=sharding), strict=False):
        assert fits(batch, sharding)
    assert same(batch, jax.tree.map(lambda leaf: leaf[1], stream(config, 2)))


# A batch that does not divide.


@pytest.mark.parametrize(
    "call",
    ["next_batch", "next_batches", "next_global_batch", "in jit", "num_batches", "scan_steps", "scan_epoch"],
)
def test_a_batch_that_does_not_divide_is_an_error_when_traced(make: Callable[..., Config], call: str) -> None:
    config, mesh = make(batch_size=10), mesh_of((4, 2), ("data", "model"))
    get = functools.partial(arsrc.next_global_batch, config, mesh=mesh, axis_name="data")
    calls: dict[str, Callable[..., Any]] = {
        "next_batch": on_devices(lambda s: arsrc.next_batch(config, s, axis_name="data")[0], mesh, P()),
        "next_batches": on_devices(lambda s: arsrc.next_batches(config, s, 2, axis_name="data")[0], mesh, P()),
        "next_global_batch": get,
        "in jit": jax.jit(get),
        "num_batches": functools.partial(get, num_batches=2),
        "scan_steps": lambda s: arsrc.scan_steps(config, s, None, put_out, 2, mesh=mesh, axis_name="data"),
        "scan_epoch": on_devices(lambda s: arsrc.scan_epoch(config, s, None, put_out, axis_name="data")[0], mesh, P()),
    }
    pattern = r"^\[arsrc\] .* 4 devices; got batch_size=10, axis_name='data'\. .*multiple of 4"
    with pytest.raises(arsrc.ArsrcValueError, match=pattern):
        jax.eval_shape(calls[call], arsrc.init(config))


def test_iterate_refuses_a_batch_that_does_not_divide_at_once(make: Callable[..., Config]) -> None:
    config = make(batch_size=10)
    with pytest.raises(arsrc.ArsrcValueError, match=r"^\[arsrc\] .*batch_size=10"):
        arsrc.iterate(config, device=NamedSharding(line(4), P("data")))


# Resident tables.


@pytest.mark.parametrize("fields", [{"exclude": [3, (40, 60)]}, {"remainder": "pad", "num_epochs": 2}])
def test_a_resident_table_serves_devices_without_a_callback(
    make: Callable[..., Config], fields: dict[str, Any]
) -> None:
    config, mesh = make(**fields), mesh_of((4, 2), ("data", "model"))
    table = arsrc.load_resident(config, device=NamedSharding(mesh, P()))
    assert fits(table, NamedSharding(mesh, P()))
    read = arsrc.io_metrics(config)["records_read"]

    def run(state: arsrc.SourceState, table: Any) -> Any:
        options = {"axis_name": "data", "resident": table}
        state, one = arsrc.next_batch(config, state, **options)
        state, two = arsrc.next_batches(config, state, 2, **options)
        state, _, three = arsrc.scan_steps(config, state, None, put_out, 3, **options)
        return state, jax.tree.map(lambda a, b, c: jnp.concatenate([a[None], b, c]), one, two, three)

    program = on_devices(run, mesh, (P(), P(None, "data"))).lower(arsrc.init(config), table)
    assert "callback" not in program.as_text()
    state, batches = program.compile()(arsrc.init(config), table)
    assert arsrc.io_metrics(config)["records_read"] == read
    expected = stream(dataclasses.replace(config, name="expected"), 6)
    assert same(batches, expected)
    assert at(config, state, 6)
    # Outside of shard_map the compiler divides the work.
    plain = jax.jit(
        lambda state, table: arsrc.next_batch(config, state, resident=table)[1],
        out_shardings=NamedSharding(mesh, P("data")),
    )
    assert same(plain(arsrc.init(config), table), jax.tree.map(lambda leaf: leaf[0], expected))


# Excluded records, caches, locality.


@pytest.mark.parametrize(
    "fields", [{"cacheable": True}, {"shuffle_block_size": 8, "shuffle_window_blocks": 2}], ids=["cached", "blocks"]
)
def test_excluded_records_are_masked_on_all_devices(make: Callable[..., Config], fields: dict[str, Any]) -> None:
    mesh = mesh_of((4, 2), ("data", "model"))
    whole = make(num_epochs=2, remainder="wrap", **fields)
    config = dataclasses.replace(whole, exclude=[5, (30, 50)])
    _, batches = arsrc.next_global_batch(config, arsrc.init(config), mesh=mesh, axis_name="data", num_batches=9)
    expected = stream(whole, 9)
    out = (expected.record_ids == 5) | ((expected.record_ids >= 30) & (expected.record_ids < 50))
    assert out.sum() == 42
    expected = dataclasses.replace(
        expected,
        record_ids=np.where(out, np.uint32(PAD_ID), expected.record_ids),
        mask=expected.mask & ~out,
        data={"id": np.where(out, np.uint32(0), expected.data["id"]), "x": expected.data["x"] * ~out[..., None]},
    )
    assert same(batches, expected)


# Ensembles on meshes.


@pytest.fixture
def members(make: Callable[..., Config]) -> tuple[Config, arsrc.SourceState, arsrc.Batch]:
    """An ensemble of two orders, and its third batch."""
    config = make(remainder="wrap")
    keys = jax.random.split(jax.random.key(0), 2)
    states = jax.vmap(lambda key: arsrc.state_at(config, 2, key))(keys)
    each = [stream(config, 1, arsrc.state_at(config, 2, key)) for key in keys]
    return config, states, jax.tree.map(lambda *leaves: np.concatenate(leaves), *each)


@on_both_paths
def test_each_device_reads_its_rows_for_all_members(members: Any) -> None:
    config, states, expected = members
    mesh = line(4)
    fetch = jax.vmap(functools.partial(arsrc.next_batch, config, axis_name="data"))
    run = on_devices(fetch, mesh, (P(), P(None, "data")))
    assert same(run(states)[1], expected)
    _, batches = jax.vmap(lambda s: arsrc.next_global_batch(config, s, mesh=mesh, axis_name="data"))(states)
    assert same(batches, expected)
    assert fits(batches, NamedSharding(mesh, P(None, "data")))


@on_both_paths
def test_members_may_lie_on_devices_of_their_own(members: Any) -> None:
    config, states, expected = members
    mesh = mesh_of((2, 4), ("member", "data"))
    fetch = jax.vmap(functools.partial(arsrc.next_batch, config, axis_name="data"))
    specs = (P("member"), P("member", "data"))
    run = jax.jit(jax.shard_map(fetch, mesh=mesh, in_specs=P("member"), out_specs=specs))
    after, batches = run(states)
    assert same(batches, expected)
    assert fits(batches, NamedSharding(mesh, P("member", "data")))
    assert after.index.sharding.is_equivalent_to(NamedSharding(mesh, P("member")), 1)


# Elastic restarts.


def served_by_hand(orders: list[list[int]], remainder: str, state: arsrc.SourceState, size: int) -> Iterator[list[int]]:
    """Deal out the records of epochs, one after the other: slow and obvious."""
    index, epoch = int(state.index), int(state.epoch)
    while True:
        if index == N or (remainder == "drop" and index + size > N):
            index, epoch = 0, epoch + 1
        ids: list[int] = []
        while len(ids) < size and (remainder == "wrap" or index < N):
            if index == N:
                index, epoch = 0, epoch + 1
            ids.append(orders[epoch][index])
            index += 1
        yield ids + [PAD_ID] * (size - len(ids))


@pytest.fixture(scope="module")
def orders(path: str) -> list[list[int]]:
    """The first epochs, one batch each."""
    config = Config(path, N, CODEC, shuffle_records=True)
    return stream(config, 50).record_ids.tolist()


NUM_DEVICES = st.sampled_from([1, 2, 3, 4, 8])


@hypothesis.example(before=1, after=8, step=4, num_steps=1, factor=1)
@hypothesis.example(before=8, after=3, step=3, num_steps=3, factor=2)
@hypothesis.given(NUM_DEVICES, NUM_DEVICES, st.integers(0, 20), st.integers(1, 3), st.integers(1, 2))
def test_a_run_that_was_saved_on_some_devices_goes_on_with_others(
    path: str, orders: list[list[int]], before: int, after: int, step: int, num_steps: int, factor: int
) -> None:
    """With batches of the same size, or of twice as many records."""
    config = Config(path, B, CODEC, shuffle_records=True, remainder="wrap")

    def run(config: Config, num_devices: int, state: arsrc.SourceState) -> arsrc.SourceState:
        expected = served_by_hand(orders, "wrap", state, config.batch_size)
        for _ in range(num_steps):
            state, batch = arsrc.next_global_batch(config, state, mesh=line(num_devices), axis_name="data")
            assert np.asarray(batch.record_ids).tolist() == next(expected)
            assert same(np.asarray(batch.data["id"]), np.asarray(batch.record_ids))
        return state

    state = run(config, before, arsrc.state_at(config, step))
    assert at(config, state, step + num_steps)
    saved = json.dumps(arsrc.to_state_dict(config, state))
    config = dataclasses.replace(config, batch_size=factor * B)
    run(config, after, arsrc.from_state_dict(config, json.loads(saved)))


@hypothesis.example(remainder="wrap", before=33, after=7, step=3)  # where one record of an epoch is left
@hypothesis.example(remainder="pad", before=33, after=7, step=3)
@hypothesis.given(st.sampled_from(["drop", "pad", "wrap"]), st.integers(1, N), st.integers(1, N), st.integers(0, 30))
def test_a_run_goes_on_at_the_same_record_with_batches_of_another_size(
    path: str, orders: list[list[int]], remainder: Any, before: int, after: int, step: int
) -> None:
    """The index counts records: where it stands does not depend on how many are served at once."""
    config = Config(path, before, CODEC, shuffle_records=True, remainder=remainder)
    state = arsrc.state_at(config, step)
    for size in (before, after, before):
        config = dataclasses.replace(config, batch_size=size)
        expected = served_by_hand(orders, remainder, state, size)
        batches = arsrc.iterate(config, state)
        for _ in range(3):
            state, batch = next(batches)
            assert np.asarray(batch.record_ids).tolist() == next(expected)
        arsrc.close(config)
