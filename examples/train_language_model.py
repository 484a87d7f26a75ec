"""Train a small language model on packed rows of two corpora in changing shares; kill it, resume it, compare.

The code of Python's standard library and sheets of sums are written as ArrayRecord files, a document to a record, a
token to a byte. They are packed into rows of 256 tokens and mixed 70 to 30, from half-way on 30 to 70. A segment of
steps, reading included, is one call of one jitted function. A process that trains is killed in the middle of a
segment; training goes on from the last checkpoint, and is compared with one that was never interrupted. Needs no
download and no accelerator. The last lines are

    rows of code: 70.0% in the first half, 30.0% in the second
    loss 6.17 at the first step, 2.02 at the last
    the weights are bit-identical
    wrote outputs/language_model.png

with a last loss below 2.5 whatever the seed. The picture shows the loss on both corpora, and their shares.

    python examples/train_language_model.py --segments 10 --seed 0 --output outputs
"""

import argparse
import functools
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from matplotlib.figure import Figure

import arsrc
from arsrc.codecs import Ragged

CORPORA = ("code", "sums")
END = 256  # behind each document; the other tokens are bytes
LENGTH, BATCH_SIZE, SEGMENT = 256, 16, 10
WIDTH, HEADS, LAYERS = 64, 2, 2


class TrainState(NamedTuple):
    params: Any
    opt_state: Any
    source: arsrc.SourceState


def pieces_of_code():
    """Yield what stands between two empty lines in the modules of the standard library: functions and classes."""
    for path in sorted(Path(os.__file__).parent.glob("*.py")):
        yield from filter(None, path.read_bytes().split(b"\n\n\n"))


def sheets_of_sums():
    rng = np.random.default_rng(0)
    for length in rng.integers(1, 12, 4000):
        numbers = rng.integers(100, size=(length, 2)).tolist()
        yield "".join(f"{a} + {b} = {a + b}\n" for a, b in numbers).encode()


def write_documents(path, documents):
    records = [np.frombuffer(document, np.uint8).astype("<u2").tobytes() for document in documents]
    arsrc.write_array_record(path, records)
    print(f"{path.stem}: {len(records):,} documents, {sum(map(len, records)) // 2:,} tokens")


def make_config(folder, num_steps, seed):
    def source(name, how):
        packing = arsrc.Packing(LENGTH, how, end_of_document=END, targets=True)
        path, codec = folder / f"{name}.array_record", Ragged("uint16", max_length=2**20)
        return arsrc.ArrayRecordSourceConfig(path, BATCH_SIZE, codec, shuffle_records=True, pack=packing)

    # Sums are short and stay whole; code is cut where a row ends.
    sources = source("code", "split"), source("sums", "fit")
    stages = (0, (0.7, 0.3)), (num_steps // 2, (0.3, 0.7))
    return arsrc.MixtureConfig(sources, stages=stages, batch_size=BATCH_SIZE, seed=seed, name="text")


def init_params(key):
    keys = iter(jax.random.split(key, 3 + 4 * LAYERS))
    normal = lambda rows, columns: jax.random.normal(next(keys), (rows, columns)) / rows**0.5  # noqa: E731
    shapes = {"qkv": (WIDTH, 3 * WIDTH), "out": (WIDTH, WIDTH), "up": (WIDTH, 4 * WIDTH), "down": (4 * WIDTH, WIDTH)}
    return {
        "tokens": normal(END + 1, WIDTH),
        "positions": normal(LENGTH, WIDTH),
        "blocks": [{name: normal(*shape) for name, shape in shapes.items()} for _ in range(LAYERS)],
        "head": normal(WIDTH, END + 1),
    }


def logits_of(params, data):
    """Return f32[batch, LENGTH, END + 1]: a transformer in which a document sees nothing of its neighbours."""
    norm = functools.partial(jax.nn.standardize, axis=-1)
    segments = data["segment_ids"]
    is_seen = (segments[:, :, None] == segments[:, None, :]) & jnp.tri(LENGTH, dtype=bool)  # bool[batch, to, from]
    x = params["tokens"][data["tokens"]] + params["positions"][data["positions"]]
    for block in params["blocks"]:
        heads = (norm(x) @ block["qkv"]).reshape(*x.shape[:2], 3, HEADS, -1)
        attended = jax.nn.dot_product_attention(*jnp.moveaxis(heads, 2, 0), mask=is_seen[:, None])
        x += attended.reshape(x.shape) @ block["out"]
        x += jax.nn.gelu(norm(x) @ block["up"]) @ block["down"]
    return norm(x) @ params["head"]


def losses_of(params, batch, source_ids):
    """Return the loss of a batch, and that of each corpus in it."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits_of(params, batch.data), batch.data["targets"])
    has_target = batch.data["target_segment_ids"] > 0  # neither padding nor the end of a document
    of_each = [losses.mean(where=has_target & (source_ids == i)[:, None]) for i in range(len(CORPORA))]
    return losses.mean(where=has_target), jnp.stack(of_each)


def make_optimizer(num_steps):
    return optax.adam(optax.warmup_cosine_decay_schedule(0, 1e-2, num_steps // 10, num_steps))


@functools.partial(jax.jit, static_argnums=(0, 1))
def train_segment(config, num_steps, state):
    """Return the state after the next steps of `num_steps`, and their losses."""

    def train_step(carry, batch):
        params, opt_state = carry
        source_ids = arsrc.source_ids(config, batch.record_ids)
        (loss, of_each), grads = jax.value_and_grad(losses_of, has_aux=True)(params, batch, source_ids)
        updates, opt_state = make_optimizer(num_steps).update(grads, opt_state)
        return (optax.apply_updates(params, updates), opt_state), jnp.append(loss, of_each)

    source, (params, opt_state), losses = arsrc.scan_steps(
        config, state.source, (state.params, state.opt_state), train_step, SEGMENT, batches_per_fetch=SEGMENT
    )
    return TrainState(params, opt_state, source), losses


def train(config, num_steps, seed, checkpoints, kill_at=None):
    """Train to the end, from the last checkpoint if there is one; return the weights, and the losses of all steps."""
    params = init_params(jax.random.key(seed))
    state = TrainState(params, make_optimizer(num_steps).init(params), arsrc.init(config))
    options = ocp.CheckpointManagerOptions(max_to_keep=2, cleanup_tmp_directories=True)
    with ocp.CheckpointManager(checkpoints, options=options) as manager:
        if manager.latest_step() is not None:
            state = manager.restore(manager.latest_step(), args=ocp.args.StandardRestore(state))
        first_step, losses = int(arsrc.step_of(config, state.source)), []
        print(f"training from step {first_step}", flush=True)
        segment = train_segment.lower(config, num_steps, state).compile()  # ahead: no speed includes it
        for step in range(first_step, num_steps, SEGMENT):
            if step == kill_at:
                manager.wait_until_finished()  # the last checkpoint is whole, however fast the machine is
                # While the segment runs: no handler, no clean-up, no checkpoint of it.
                threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGKILL)).start()
            start = time.perf_counter()
            state, more = segment(state)
            losses.append(jax.device_get(more))
            speed = SEGMENT * BATCH_SIZE * LENGTH / (time.perf_counter() - start)
            print(f"step {step + SEGMENT:3}: loss {losses[-1][-1, 0]:.2f}, {speed:8,.0f} tokens/s", flush=True)
            manager.save(step + SEGMENT, args=ocp.args.StandardSave(state))  # in the background
    return state.params, np.concatenate(losses)


def train_and_kill(run, checkpoints, kill_at):
    """Train in another process, which is killed while it does the steps after `kill_at`."""
    # Spawned, not forked: neither JAX nor open files survive a fork.
    process = multiprocessing.get_context("spawn").Process(target=run, args=(checkpoints, kill_at))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL, process.exitcode
    print(f"killed in the segment after step {kill_at}")


def measure_input(config, num_steps):
    """Print how fast a loop gets tokens that does nothing but count them."""

    def count(num_tokens, batch):
        return num_tokens + (batch.data["segment_ids"] > 0).sum(), None

    @jax.jit
    def read(source):
        return arsrc.scan_steps(config, source, 0, count, num_steps, batches_per_fetch=10)

    read(arsrc.init(config))[1].block_until_ready()
    start = time.perf_counter()
    num_tokens = int(read(arsrc.init(config))[1])
    speed, share = num_tokens / (time.perf_counter() - start), num_tokens / (num_steps * BATCH_SIZE * LENGTH)
    print(f"input alone: {speed:,.0f} tokens/s, in {share:.1%} of the places of the rows")


def draw(path, losses, shares):
    """Save the loss of each corpus at each step, and its share of the rows."""
    figure = Figure(figsize=(7, 5), layout="constrained", facecolor="white")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    curves = (above, "loss", losses[:, 1:]), (below, "share of the rows of a batch", shares)
    for axes, title, of_each in curves:
        for name, values in zip(CORPORA, of_each.T, strict=True):
            axes.plot(values, label=name)
        axes.set_title(title, loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.margins(x=0.02)
    above.legend(frameon=False)
    below.set(ylim=(0, 1), xlabel="step")
    figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--segments", type=int, default=10, help=f"of {SEGMENT} steps each; at least 2")
    parser.add_argument("--seed", type=int, default=0, help="of the model and of the order")
    parser.add_argument("--output", type=Path, default=Path("outputs"), help="folder for data and picture")
    args = parser.parse_args()

    folder = args.output / "text"
    folder.mkdir(parents=True, exist_ok=True)
    write_documents(folder / "code.array_record", pieces_of_code())
    write_documents(folder / "sums.array_record", sheets_of_sums())

    num_steps = args.segments * SEGMENT
    config = make_config(folder, num_steps, args.seed)
    with tempfile.TemporaryDirectory() as checkpoints:
        run = functools.partial(train, config, num_steps, args.seed)
        train_and_kill(run, Path(checkpoints) / "interrupted", args.segments // 2 * SEGMENT)
        measure_input(config, num_steps)
        resumed, _ = run(Path(checkpoints) / "interrupted")
        uninterrupted, losses = run(Path(checkpoints) / "uninterrupted")

    counts = [arsrc.source_counts(config, arsrc.state_at(config, step)) for step in range(num_steps + 1)]
    shares = np.diff(counts, axis=0) / BATCH_SIZE  # f64[num_steps, 2]
    halves = [half[:, 0].mean() for half in np.split(shares, [num_steps // 2])]
    print("rows of code: {:.1%} in the first half, {:.1%} in the second".format(*halves))
    print(f"loss {losses[0, 0]:.2f} at the first step, {losses[-1, 0]:.2f} at the last")
    for one, other in zip(jax.tree.leaves(resumed), jax.tree.leaves(uninterrupted), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()
    print("the weights are bit-identical")
    picture = args.output / "language_model.png"
    draw(picture, losses, shares)
    print(f"wrote {picture}")


if __name__ == "__main__":
    main()
