"""Train on several hosts: the same program runs on each, and each reads only the records that its devices need.

On a cluster (a TPU pod, Slurm, ...), start it on every host, with a folder that all of them see:

    python examples/multi_host.py --cluster --folder /shared/folder

Without --cluster it shows the same on one machine: it starts itself as one process, then as two processes of two
CPU devices each, and compares. The last lines are

    each of 2 processes read 5120 of 10240 records
    the losses are those of one process
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

import arsrc
from arsrc.codecs import Struct

CODEC = Struct({"x": ("float32", 16), "y": "float32"})
NUM_EPOCHS = 5


def write_data(folder):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2048, 16)).astype(np.float32)
    arsrc.write_array_record(folder / "train", {"x": x, "y": np.sin(x).sum(1)}, codec=CODEC, num_shards=4)


def init_params():
    hidden, out = jax.random.split(jax.random.key(0))
    return {"hidden": jax.random.normal(hidden, (16, 64)) / 4, "out": jax.random.normal(out, (64,)) / 8}


def train_step(params, batch):
    """One step on a global batch: nothing here knows of devices or hosts, JAX divides the work as the batch is."""

    def loss_fn(params):
        predicted = jnp.tanh(batch.data["x"] @ params["hidden"]) @ params["out"]
        return jnp.mean((predicted - batch.data["y"]) ** 2)

    loss, grads = jax.value_and_grad(loss_fn)(params)
    return jax.tree.map(lambda p, g: p - 0.03 * g, params, grads), loss


def train(folder):
    """Train on all devices of all processes; return the losses."""
    # One process writes; a real data set is there already.
    if jax.process_index() == 0:
        write_data(folder)
    multihost_utils.sync_global_devices("the data is written")

    # The same config and state in every process: they say what the global batch is.
    config = arsrc.ArrayRecordSourceConfig(
        folder / "train-*", batch_size=64, codec=CODEC, shuffle_records=True, num_epochs=NUM_EPOCHS
    )
    mesh = Mesh(jax.devices(), ("data",))

    @jax.jit
    def train_epoch(state, params):
        return arsrc.scan_epoch(config, state, params, train_step, axis_name="data", mesh=mesh)

    state, params = arsrc.init(config), init_params()
    losses = []
    for epoch in range(NUM_EPOCHS):
        state, params, epoch_losses = train_epoch(state, params)
        losses.append(np.asarray(epoch_losses))
        print(f"process {jax.process_index()}, epoch {epoch}: loss {losses[-1].mean():.4f}", flush=True)
    return np.concatenate(losses), int(arsrc.io_metrics(config)["records_read"])


def launch(folder, num_processes, num_devices):
    """Run this file in some processes of so many CPU devices each; return the losses and records read of each."""
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={num_devices}",
    }
    command = [sys.executable, __file__, "--folder", folder, "--coordinator", coordinator]
    processes = [
        subprocess.Popen([*command, "--num-processes", str(num_processes), "--process", str(i)], env=environment)
        for i in range(num_processes)
    ]
    try:
        for process in processes:
            if process.wait(timeout=200) != 0:
                raise SystemExit(f"a process ended with {process.returncode}")
    finally:
        for process in processes:
            process.kill()  # one that waits for another that has failed
    results = [np.load(folder / f"result-{i}.npz") for i in range(num_processes)]
    return [result["losses"] for result in results], [int(result["records_read"]) for result in results]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cluster", action="store_true", help="this is one host of several")
    parser.add_argument("--folder", type=Path, help="where the data lies, and the results go")
    parser.add_argument("--coordinator", help="address of process 0, where JAX cannot find it by itself")
    parser.add_argument("--num-processes", type=int)
    parser.add_argument("--process", type=int)
    args = parser.parse_args()

    if args.cluster or args.coordinator:
        if args.folder is None:
            parser.error("name a --folder that all hosts see")
        if args.coordinator:
            jax.config.update("jax_cpu_collectives_implementation", "gloo")  # how CPUs talk to each other
        # Without arguments it finds its settings on TPU pods, Slurm, Open MPI and Kubernetes.
        jax.distributed.initialize(args.coordinator, args.num_processes, args.process)
        losses, records_read = train(args.folder)
        np.savez(args.folder / f"result-{jax.process_index()}", losses=losses, records_read=records_read)
        return

    with tempfile.TemporaryDirectory() as folder:
        (alone,), (total,) = launch(Path(folder) / "one", num_processes=1, num_devices=1)
        each_losses, each_read = launch(Path(folder) / "two", num_processes=2, num_devices=2)
    for losses in each_losses:
        # But for the order in which devices sum floating-point numbers up.
        np.testing.assert_allclose(losses, alone, rtol=1e-3)
    assert each_read == [total // 2] * 2
    print(f"each of 2 processes read {each_read[0]} of {total} records")
    print("the losses are those of one process")


if __name__ == "__main__":
    main()
