"""Several processes under `jax.distributed`: each reads only what its devices need, all see one stream.

The tests start this file as a script, once for each process; what the processes got comes back in files.
"""

import contextlib
import functools
import json
import os
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import arsrc
from arsrc._host import registry
from arsrc.codecs import Ragged, Struct

N = 50
B = 12  # divides among 1, 3 and 4 devices
PAD_ID = 2**32 - 1
CODEC = Struct({"id": "uint32", "x": ("float32", 3)})
TIMEOUT = 240  # seconds; a process takes a few, on a machine that has nothing else to do

Config = arsrc.ArrayRecordSourceConfig

pytestmark = [pytest.mark.slow, pytest.mark.processes, pytest.mark.timeout(3 * TIMEOUT)]


def config_of(folder: Path, **fields: Any) -> Config:
    defaults = {"batch_size": B, "codec": CODEC, "shuffle_records": True}
    return Config(folder / "x.array_record", **(defaults | fields))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    x = np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32)
    elements = {"id": np.arange(N, dtype=np.uint32), "x": x}
    arsrc.write_array_record(tmp_path / "x.array_record", elements, codec=CODEC)
    return tmp_path


# Processes.


@contextlib.contextmanager
def free_port() -> Iterator[int]:
    """Keep a port from others while it is used: bound here and not listened on, it is ours for all servers we start."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def run_hosts(task: str, folder: Path, num_processes: int, num_devices: int) -> list[Any]:
    """Run a task in some processes of so many devices each; return what it gave in each of them."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["JAX_PLATFORMS"] = "cpu"
    environment["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={num_devices}"
    outputs = [folder / f"{task}-{i}-of-{num_processes}" for i in range(num_processes)]
    processes: list[subprocess.Popen[bytes]] = []
    with free_port() as port:
        try:
            for i, output in enumerate(outputs):
                command = [
                    sys.executable,
                    __file__,
                    task,
                    str(folder),
                    str(output),
                    *map(str, (port, num_processes, i)),
                ]
                with output.with_suffix(".log").open("wb") as log:
                    processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
            problem = wait_for(processes)
        finally:
            for process in processes:
                process.kill()
                process.wait()
    if problem:
        logs = [f"--- process {i}\n{output.with_suffix('.log').read_text()}" for i, output in enumerate(outputs)]
        pytest.fail(f"{task}: {problem}\n" + "\n".join(logs), pytrace=False)
    return [pickle.loads(output.read_bytes()) for output in outputs]


def wait_for(processes: list[subprocess.Popen[bytes]]) -> str | None:
    """Wait until all have ended well, or one has not: the others would wait for it for ever."""
    deadline = time.monotonic() + TIMEOUT
    while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
        if any(process.returncode for process in processes):
            deadline = min(deadline, time.monotonic() + 5)  # what the others have to say
        time.sleep(0.05)
    failed = {i: process.returncode for i, process in enumerate(processes) if process.returncode}
    if failed:
        return f"exit codes {failed} (by process)"
    return f"not done after {TIMEOUT} s" if None in (process.returncode for process in processes) else None


def main() -> None:
    task, folder, output, port, num_processes, i = sys.argv[1:]
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", int(num_processes), int(i))
    result = TASKS[task](Path(folder))
    Path(output).write_bytes(pickle.dumps(result))
    jax.distributed.shutdown()


def all_devices() -> Mesh:
    return Mesh(np.array(jax.devices()), ("data",))


def parts(batches: arsrc.Batch, rows_axis: int) -> list[tuple[int, Any]]:
    """Return what this process has of a global batch: (first row, rows), as NumPy arrays, of each device."""
    leaves, treedef = jax.tree.flatten(batches)
    each = [sorted(leaf.addressable_shards, key=lambda shard: shard.device.id) for leaf in leaves]
    return [
        (shards[0].index[rows_axis].start or 0, jax.tree.unflatten(treedef, [np.asarray(s.data) for s in shards]))
        for shards in zip(*each, strict=True)
    ]


def stacked(batches: list[list[tuple[int, Any]]]) -> list[tuple[int, Any]]:
    """Stack the parts of batches that follow one another."""
    return [
        (device[0][0], jax.tree.map(lambda *leaves: np.stack(leaves), *[rows for _, rows in device]))
        for device in zip(*batches, strict=True)
    ]


# All ways to get global batches.

NUM_STEPS = 10  # two epochs of five batches, the last one with two records


def by_iterate(config: Config, state: arsrc.SourceState) -> Any:
    sharding = NamedSharding(all_devices(), P("data"))
    return stacked([parts(batch, 0) for _, batch in arsrc.iterate(config, state, device=sharding)])


def by_segments(config: Config, state: arsrc.SourceState) -> Any:
    sharding = NamedSharding(all_devices(), P("data"))
    segments = arsrc.iterate(config, state, num_batches=4, device=sharding)
    return functools.reduce(stacked_along, [parts(batches, 1) for _, batches in segments])


def by_global_batch(config: Config, state: arsrc.SourceState) -> Any:
    batches = []
    for _ in range(NUM_STEPS):
        state, batch = arsrc.next_global_batch(config, state, mesh=all_devices(), axis_name="data")
        batches.append(parts(batch, 0))
    assert bool(arsrc.is_exhausted(config, state))
    return stacked(batches)


def by_global_batches_in_jit(config: Config, state: arsrc.SourceState) -> Any:
    @jax.jit
    def run(state: arsrc.SourceState) -> Any:
        options = {"mesh": all_devices(), "axis_name": "data"}
        state, first = arsrc.next_global_batch(config, state, num_batches=5, **options)
        return arsrc.next_global_batch(config, state, num_batches=5, **options)[1], first

    second, first = run(state)
    return stacked_along(parts(first, 1), parts(second, 1))


def stacked_along(first: Any, second: Any) -> Any:
    join = lambda *leaves: np.concatenate(leaves)  # noqa: E731
    return [(row, jax.tree.map(join, one, two)) for (row, one), (_, two) in zip(first, second, strict=True)]


def by_scan(config: Config, state: arsrc.SourceState) -> Any:
    @jax.jit
    def run(state: arsrc.SourceState) -> Any:
        body = lambda count, batch: (count + batch.mask.sum(dtype=jnp.int32), batch)  # noqa: E731
        options = {"mesh": all_devices(), "axis_name": "data"}
        return arsrc.scan_steps(config, state, jnp.int32(0), body, NUM_STEPS, **options)

    _, count, batches = run(state)
    assert int(count) == 2 * N  # summed over all devices
    return parts(batches, 1)


def by_shard_map(config: Config, state: arsrc.SourceState) -> Any:
    def run(state: arsrc.SourceState) -> Any:
        return jax.lax.scan(lambda s, _: arsrc.next_batch(config, s, axis_name="data"), state, length=NUM_STEPS)

    program = jax.shard_map(run, mesh=all_devices(), in_specs=P(), out_specs=(P(), P(None, "data")))
    return parts(jax.jit(program)(state)[1], 1)


def by_resident_table(config: Config, state: arsrc.SourceState) -> Any:
    table = arsrc.load_resident(config, device=NamedSharding(all_devices(), P()))

    def run(state: arsrc.SourceState, table: Any) -> Any:
        return arsrc.next_batches(config, state, NUM_STEPS, axis_name="data", resident=table)[1]

    program = jax.shard_map(run, mesh=all_devices(), in_specs=P(), out_specs=P(None, "data"))
    return parts(jax.jit(program)(state, table), 1)


WAYS = (by_iterate, by_segments, by_global_batch, by_global_batches_in_jit, by_scan, by_shard_map, by_resident_table)


def serve(folder: Path) -> Any:
    """Get the stream in all ways; give what this process has of it, and how many records it read."""
    results = {}
    for way in WAYS:
        config = config_of(folder, num_epochs=2, remainder="pad", name=way.__name__)
        results[way.__name__] = way(config, arsrc.init(config)), arsrc.io_metrics(config)["records_read"]
    return results


def expected_stream(config: Config) -> arsrc.Batch:
    """The stream as one device in one process gets it."""
    batches = [jax.tree.map(np.asarray, batch) for _, batch in arsrc.iterate(config)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *batches)


@pytest.mark.parametrize(("num_processes", "num_devices"), [(2, 2), (3, 1)])
def test_processes_share_one_stream_and_each_reads_its_part(folder: Path, num_processes: int, num_devices: int) -> None:
    expected = expected_stream(config_of(folder, num_epochs=2, remainder="pad"))
    assert expected.mask.sum() == 2 * N
    results = run_hosts("serve", folder, num_processes, num_devices)
    size = B // (num_processes * num_devices)
    for way in WAYS:
        firsts = []
        for result in results:
            devices, records_read = result[way.__name__]
            num_valid = 0
            for first, rows in devices:
                firsts.append(first)
                wanted = jax.tree.map(lambda leaf, first=first: leaf[:, first : first + size], expected)
                assert jax.tree.all(jax.tree.map(np.array_equal, rows, wanted)), (way.__name__, first)
                num_valid += int(rows.mask.sum())
            assert records_read == (N if way is by_resident_table else num_valid), way.__name__
        assert sorted(firsts) == list(range(0, B, size)), way.__name__


# A mixture of packed selections, gone on with where one process stood.


def mixture_of(folder: Path) -> arsrc.MixtureConfig:
    documents = {"codec": Ragged("int32", max_length=4), "pack": arsrc.Packing(6), "num_epochs": 3}
    sources = [config_of(folder, select=select, **documents) for select in ([(0, 30)], [(30, N)])]
    return arsrc.MixtureConfig(sources, (2, 1), batch_size=B, stop="all")


def serve_mixture(folder: Path) -> Any:
    mixture = mixture_of(folder)
    state = arsrc.from_state_dict(mixture, json.loads((folder / "state.json").read_text()))
    return {way.__name__: way(mixture, state) for way in (by_iterate, by_segments, by_shard_map)}


def test_processes_go_on_with_a_mixture_of_packed_rows_where_one_stood(folder: Path) -> None:
    mixture = mixture_of(folder)
    start = arsrc.state_at(mixture, 2)
    (folder / "state.json").write_text(json.dumps(arsrc.to_state_dict(mixture, start)))
    batches = [jax.tree.map(np.asarray, batch) for _, batch in arsrc.iterate(mixture, start)]
    for result in run_hosts("serve_mixture", folder, 2, 2):
        for name, devices in result.items():
            for first, rows in devices:
                for step, batch in enumerate(batches):
                    wanted = jax.tree.map(lambda leaf, first=first: leaf[first : first + B // 4], batch)
                    found = jax.tree.map(lambda leaf, step=step: leaf[step], rows)
                    assert jax.tree.all(jax.tree.map(np.array_equal, found, wanted)), (name, first, step)


# Meshes with two axes.


def serve_on_two_axes(folder: Path) -> Any:
    """Divide batches over processes, or over the devices of each process, and replicate along the other axis."""
    devices = np.array(jax.devices()).reshape(jax.process_count(), -1)
    results = {}
    for names in (("data", "model"), ("model", "data")):
        config = config_of(folder, num_epochs=2, remainder="pad", name=" ".join(names))
        state, batches = arsrc.init(config), []
        for _ in range(NUM_STEPS):
            state, batch = arsrc.next_global_batch(config, state, mesh=Mesh(devices, names), axis_name="data")
            batches.append(parts(jax.block_until_ready(batch), 0))
        results[names] = stacked(batches), arsrc.io_metrics(config)["records_read"]
    return results


def test_devices_of_a_process_that_have_the_same_rows_read_them_once(folder: Path) -> None:
    expected = expected_stream(config_of(folder, num_epochs=2, remainder="pad"))
    results = run_hosts("serve_on_two_axes", folder, 2, 2)
    for process, result in enumerate(results):
        half = slice(process * B // 2, (process + 1) * B // 2)
        for names, rows_of_device, num_read in (
            (("data", "model"), [half, half], int(expected.mask[:, half].sum())),
            (("model", "data"), [slice(0, B // 2), slice(B // 2, B)], 2 * N),
        ):
            devices, records_read = result[names]
            for (first, rows), wanted in zip(devices, rows_of_device, strict=True):
                assert first == wanted.start
                assert np.array_equal(rows.record_ids, expected.record_ids[:, wanted])
                assert np.array_equal(rows.data["x"], expected.data["x"][:, wanted])
            assert records_read == num_read, (names, process)


def keep_on_two_axes(folder: Path) -> Any:
    """Run on; give by mesh how many askers each run expects in the end, and the bytes that lie behind it."""
    devices = np.array(jax.devices()).reshape(jax.process_count(), -1)
    results = {}
    for names in (("data", "model"), ("model", "data")):
        read = arsrc.ReadOptions(read_ahead_bytes=40 * B * 16)
        config = config_of(folder, read=read, name=" ".join(names))
        mesh = Mesh(devices, names)

        def run(state: arsrc.SourceState, config: Config = config, mesh: Mesh = mesh) -> Any:
            body = lambda total, batch: (total + batch.data["x"].sum(), None)  # noqa: E731
            return arsrc.scan_steps(config, state, jnp.float32(0), body, 200, mesh=mesh, axis_name="data")[1]

        jax.block_until_ready(jax.jit(run)(arsrc.init(config)))
        runs = list(registry.source(config).files.ahead.runs)
        behind = [sum(part.num_bytes for part in run.parts if part.stop < run.next) for run in runs]
        results[names] = [run.num_askers for run in runs], behind, arsrc.io_metrics(config)["records_read"]
    return results


def test_nobody_waits_for_long_for_askers_that_are_other_processes(folder: Path) -> None:
    """The devices along the other axis are this process's, which all ask, or one of each process, so that one asks."""
    for result in run_hosts("keep_on_two_axes", folder, 2, 2):
        num_askers, behind, _ = result["data", "model"]
        assert num_askers == [2]
        assert sum(behind) <= 2 * B // 2 * 16
        num_askers, behind, _ = result["model", "data"]
        assert num_askers == [1, 1]
        assert behind == [0, 0]


# What is refused.


def ask_plainly(folder: Path) -> dict[str, str]:
    """Call what would make one process read for all; give the errors."""
    config = config_of(folder)
    state = arsrc.init(config)
    on_mesh, _ = arsrc.next_global_batch(config, state, mesh=all_devices(), axis_name="data")
    served = arsrc.io_metrics(config)["batches_served"]
    calls: dict[str, Callable[[], Any]] = {
        "jit": lambda: jax.jit(lambda state: arsrc.next_batch(config, state))(on_mesh),
        "lower": lambda: jax.jit(lambda state: arsrc.next_batch(config, state)).lower(on_mesh),
        "eager": lambda: arsrc.next_batch(config, on_mesh),
        "several": lambda: jax.jit(lambda state: arsrc.next_batches(config, state, 2))(on_mesh),
        "peek": lambda: jax.jit(lambda state: arsrc.peek(config, state))(on_mesh),
        "batch_at": lambda: jax.jit(lambda state: arsrc.batch_at(config, state, 0).data)(on_mesh),
        "take": lambda: jax.jit(lambda state: arsrc.take(config, arsrc.record_ids(config, state)).data)(on_mesh),
        "a local state": lambda: jax.jit(lambda x: arsrc.next_batch(config, state)[1].data["id"] + x)(on_mesh.epoch),
        "scan_epoch": lambda: arsrc.scan_epoch(config, on_mesh, None, lambda _, b: (None, b.data["id"])),
    }
    errors = {}
    for name, call in calls.items():
        try:
            call()
            errors[name] = "none"
        except arsrc.ArsrcValueError as error:
            errors[name] = str(error)
    assert arsrc.io_metrics(config)["batches_served"] == served  # refused before it runs
    # Each process for itself, on a device of its own: those are no global programs, and work.
    for next_batch in (arsrc.next_batch, jax.jit(arsrc.next_batch, static_argnums=0)):
        _, batch = next_batch(config, state)
        assert np.array_equal(batch.data["id"], batch.record_ids)
        assert np.array_equal(arsrc.record_ids(config, state), batch.record_ids)
    return errors


def test_a_plain_call_is_refused_and_the_text_says_what_to_do(folder: Path) -> None:
    for errors in run_hosts("ask_plainly", folder, 2, 1):
        for name, text in errors.items():
            assert text.startswith("[arsrc] "), (name, text)
            for part in ("num_processes=2", "next_global_batch(config", "axis_name=", "iterate(config", "device="):
                assert part in text, (name, text)


# Elastic restarts.

STEPS_OF_STAGE = 3


def go_on(folder: Path) -> Any:
    """Restore the newest checkpoint, if there is one, train some steps, and save; give the global record ids.

    What is trained is how often each record was seen: whole numbers, alike on any number of devices.
    """
    import orbax.checkpoint as ocp

    config = config_of(folder, remainder="wrap")
    mesh = all_devices()
    everywhere = NamedSharding(mesh, P())

    @jax.jit
    def train_step(carry: Any) -> Any:
        source, batch = arsrc.next_global_batch(config, carry["source"], mesh=mesh, axis_name="data")
        seen = carry["seen"].at[batch.data["id"].astype(jnp.int32)].add(1)
        return {"source": source, "seen": jax.lax.with_sharding_constraint(seen, everywhere)}, batch.record_ids

    carry = {"source": arsrc.init(config), "seen": jnp.zeros(N, jnp.int32)}
    with ocp.CheckpointManager(folder / "checkpoints") as manager:
        first = manager.latest_step() or 0
        if first:
            like = jax.jit(lambda carry: carry, out_shardings=everywhere)(carry)
            carry = manager.restore(first, args=ocp.args.StandardRestore(like))
        served = []
        for _ in range(STEPS_OF_STAGE):
            carry, ids = train_step(carry)
            served.append([(shard.index[0].start or 0, np.asarray(shard.data)) for shard in ids.addressable_shards])
        step = int(arsrc.step_of(config, carry["source"]))
        assert step == first + STEPS_OF_STAGE
        manager.save(step, args=ocp.args.StandardSave(carry))
    return served, np.asarray(carry["seen"].addressable_data(0))


def test_a_run_goes_on_with_other_numbers_of_processes_and_devices(folder: Path) -> None:
    """Saved by one process of four devices, continued by two of two, then by three of one."""
    stages = ((1, 4), (2, 2), (3, 1))
    config = config_of(folder, remainder="wrap")
    stream = arsrc.iterate(config)
    counts = np.zeros(N, np.int32)
    for stage in stages:
        results = run_hosts("go_on", folder, *stage)
        for step in range(STEPS_OF_STAGE):
            pieces = dict(piece for served, _ in results for piece in served[step])
            ids = np.concatenate([pieces[first] for first in sorted(pieces)])
            assert ids.tolist() == np.asarray(next(stream)[1].record_ids).tolist(), (stage, step)
            np.add.at(counts, ids, 1)
        for _, seen in results:
            assert seen.tolist() == counts.tolist(), stage
    assert counts.sum() == len(stages) * STEPS_OF_STAGE * B
    assert set(counts.tolist()) == {2, 3}  # no gap and no repeat: 108 records are 2.16 epochs


TASKS = {
    function.__name__: function
    for function in (serve, serve_mixture, serve_on_two_axes, keep_on_two_axes, ask_plainly, go_on)
}

if __name__ == "__main__":
    main()
