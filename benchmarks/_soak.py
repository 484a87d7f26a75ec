"""Files that are replaced all the time, and what is done with them at the same time: each checks every byte."""

import dataclasses
import functools
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import arsrc
from arsrc import ArrayRecordSourceConfig, ReadOptions
from arsrc._host import registry
from arsrc.codecs import Struct

NUM_RECORDS = 4_000
NUM_WORDS = 64
CODEC = Struct({"words": ("uint32", (NUM_WORDS,))})
_SHARDS = 4
_READ = ReadOptions(read_ahead_bytes=2**24)  # soon taken whole: that a budget fills up is no growth
_OPTIONS = {
    "plain": "group_size:1,uncompressed",
    "zstd": "group_size:1,zstd",
    "groups": "group_size:100,zstd",
}


def words(xp: Any, generation: Any, record_ids: Any) -> Any:
    """Return u32[n, NUM_WORDS], what records hold: their generation, their id, and what follows from both."""
    column = xp.arange(NUM_WORDS, dtype=xp.uint32)
    ids, generations = (xp.asarray(one, xp.uint32)[..., None] for one in (record_ids, generation))
    mixed = ids * xp.uint32(2_654_435_761) + generations * xp.uint32(40_503)
    mixed = mixed ^ (column * xp.uint32(2_246_822_519))
    return xp.where(column == 0, generations, xp.where(column == 1, ids, mixed))


@dataclasses.dataclass
class World:
    """What the activities share.

    Attributes:
        folder: Where the files and caches are.
        least: By kind of file, the generation that all who begin now read at least.
        most: By kind, the newest that may be there.
        counts: How often each thing was done.
        num_refused: How often a typed error said that files had been replaced in the midst of it.
        errors: What went wrong.
        is_over: When nothing is to begin any more.
    """

    folder: pathlib.Path
    least: dict[str, int] = dataclasses.field(default_factory=dict)
    most: dict[str, int] = dataclasses.field(default_factory=dict)
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    num_refused: int = 0
    errors: list[str] = dataclasses.field(default_factory=list)
    is_over: threading.Event = dataclasses.field(default_factory=threading.Event)

    def write(self, kind: str) -> None:
        """Write the next generation of files of a kind over those that are there, or the first."""
        generation = self.most[kind] = self.most.get(kind, -1) + 1
        folder = self.folder / kind
        folder.mkdir(exist_ok=True)
        elements = {"words": words(np, np.full(NUM_RECORDS, generation), np.arange(NUM_RECORDS))}
        arsrc.write_array_record(
            folder / "data", elements, codec=CODEC, num_shards=_SHARDS, options=_OPTIONS[kind.rstrip("0123456789")]
        )
        self.least[kind] = generation

    def config(self, kind: str, batch_size: int, **fields: Any) -> ArrayRecordSourceConfig:
        """Return a config of files of a kind."""
        paths = str(self.folder / kind / "data@*.array_record")
        return ArrayRecordSourceConfig(paths, batch_size, CODEC, **{"read": _READ} | fields)

    def check(self, data: Any, mask: Any, record_ids: Any, least: int, most: int) -> None:
        """Raise unless each row is what its record holds, of one of these generations."""
        rows, valid = np.asarray(data["words"]), np.asarray(mask)
        generations = rows[valid, 0]  # of its file: shards are replaced one after the other
        if not (rows[valid] == words(np, generations, np.asarray(record_ids)[valid])).all() or rows[~valid].any():
            raise AssertionError(f"wrong bytes in a batch of the generations {np.unique(generations)}")
        if len(generations) and not least <= generations.min() <= generations.max() <= most:
            raise AssertionError(f"a batch of the generations {np.unique(generations)}, not of {least} to {most}")


Activity = Callable[[World, random.Random], None]

_REPLACED = (  # what may be said where files are replaced in the midst of it, and nothing else
    "a file was changed while it was open",
    "the shards may be a mixture of old and new ones: their writer is at it",
    "the state belongs to other data or another order",
)
KINDS = tuple(_OPTIONS)


def _num_wrong(batch: arsrc.Batch) -> jax.Array:
    rows = batch.data["words"]
    expected = words(jnp, rows[:, 0], batch.record_ids)
    return jnp.sum(jnp.where(batch.mask[:, None], rows != expected, rows != 0))


def _counting(carry: jax.Array, batch: arsrc.Batch) -> tuple[jax.Array, None]:
    return carry + _num_wrong(batch), None


@functools.partial(jax.jit, static_argnums=0)
def _train(config: ArrayRecordSourceConfig, state: arsrc.SourceState) -> jax.Array:
    return arsrc.scan_steps(config, state, jnp.int32(0), _counting, 200)[1]


@functools.partial(jax.jit, static_argnums=0)
def _evaluate(config: ArrayRecordSourceConfig, state: arsrc.SourceState) -> jax.Array:
    return arsrc.scan_epoch(config, state, jnp.int32(0), _counting, batches_per_fetch=2)[1]


def train(world: World, rng: random.Random) -> None:
    """A compiled loop over shuffled records, of whatever files there were when it was compiled."""
    config = world.config(rng.choice(KINDS), 64, shuffle_records=True, name="train")
    if wrong := int(_train(config, arsrc.init(config, jax.random.key(rng.randrange(2**32))))):
        raise AssertionError(f"{wrong} wrong words in a compiled loop")


def evaluate(world: World, rng: random.Random) -> None:
    """A compiled epoch, in order, with a padded batch at its end."""
    config = world.config(rng.choice(KINDS), 96, remainder="pad", num_epochs=1, name="eval")
    if wrong := int(_evaluate(config, arsrc.init(config))):
        raise AssertionError(f"{wrong} wrong words in an epoch")


def loop(world: World, rng: random.Random) -> None:
    """A loop in Python, left somewhere."""
    kind = rng.choice(KINDS)
    least = world.least[kind]
    blocks = {"shuffle_records": True, "shuffle_block_size": 50, "shuffle_window_blocks": 8}
    config = world.config(kind, rng.choice((32, 50)), name="loop", **rng.choice(({}, blocks, {"shuffle_files": True})))
    for _, batch in arsrc.iterate(config):
        world.check(batch.data, batch.mask, batch.record_ids, least, world.most[kind])
        if rng.random() < 0.01 or world.is_over.is_set():
            break


def look(world: World, rng: random.Random) -> None:
    """A batch of a source that nobody has asked for before, and never will again."""
    kind, name = rng.choice(KINDS), f"look {rng.random()}"
    least = world.least[kind]
    config = world.config(kind, rng.randrange(1, 33), name=name, seed=rng.randrange(2**32), shuffle_records=True)
    state, batch = arsrc.next_batch(config, arsrc.init(config))
    world.check(batch.data, batch.mask, batch.record_ids, least, world.most[kind])
    arsrc.from_state_dict(config, arsrc.to_state_dict(config, state))


def cached(world: World, rng: random.Random) -> None:
    """Epochs of decoded elements that are kept, in memory or in files."""
    kind = rng.choice(KINDS)
    least = world.least[kind]
    in_files = dataclasses.replace(_READ, cache_bytes=0, cache_dir=str(world.folder / "cache"))
    config = world.config(kind, 100, num_epochs=2, cacheable=True, read=rng.choice((_READ, in_files)), name="cached")
    for _, batch in arsrc.iterate(config):
        world.check(batch.data, batch.mask, batch.record_ids, least, world.most[kind])


def tidy(world: World, rng: random.Random) -> None:
    """All caches in files but the newest deleted, as a person does when the disk is full."""
    folders = sorted((world.folder / "cache").glob("*"), key=lambda folder: folder.stat().st_mtime)
    for folder in folders[:-4]:
        shutil.rmtree(folder, ignore_errors=True)
    world.is_over.wait(rng.uniform(5, 15))


def close(world: World, rng: random.Random) -> None:
    """A source, or all, closed whatever others do with them."""
    world.is_over.wait(rng.uniform(0, 4))
    arsrc.close(rng.choice((None, world.config(rng.choice(KINDS), 64, shuffle_records=True, name="train"))))


def replace(world: World, rng: random.Random) -> None:
    """Files replaced by newer ones."""
    world.is_over.wait(rng.uniform(0, 4))
    world.write(rng.choice(KINDS))


def fork(world: World, rng: random.Random) -> None:
    """A forked child that reads what its parent reads."""
    world.is_over.wait(rng.uniform(0, 2))
    config = world.config("plain", 64, name="fork")
    ids = np.array(rng.sample(range(NUM_RECORDS), 100), np.uint32)
    arsrc.init(config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX and Python warn about forks; here only NumPy runs in the child
        child = os.fork()
    if child == 0:
        signal.alarm(60)
        try:
            (rows,) = registry.source(config).elements.read(ids)
            os._exit(0 if (rows == words(np, rows[:, 0], ids)).all() else 3)
        except Exception as error:
            if was_replaced(error):
                os._exit(0)
            traceback.print_exc()
        finally:
            os._exit(4)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise AssertionError(f"a forked child ended with {code}")


def second(world: World, rng: random.Random) -> None:
    """A process that fills the same caches, killed at any time."""
    command = [sys.executable, __file__, str(world.folder), str(rng.randrange(2**32))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        world.is_over.wait(rng.uniform(2, 20))
        process.send_signal(signal.SIGKILL)
        output, _ = process.communicate()
    if "wrong" in output or "Traceback" in output:
        raise AssertionError(output[-2000:])


ACTIVITIES: tuple[Activity, ...] = (train, evaluate, loop, look, cached, tidy, close, replace, fork, second)


def was_replaced(error: Exception) -> bool:
    """Whether an error says, and says as it should, that files were replaced meanwhile."""
    return "[arsrc]" in str(error) and any(text in str(error) for text in _REPLACED)


def repeat(world: World, activity: Activity, seed: int) -> None:
    """Do a thing again and again until it is over, noting what goes wrong."""
    rng = random.Random(f"{activity.__name__} {seed}")
    while not world.is_over.is_set():
        try:
            activity(world, rng)
        except Exception as error:
            if was_replaced(error):
                world.num_refused += 1
            else:
                world.errors.append(f"{activity.__name__}: {traceback.format_exc()}")
        world.counts[activity.__name__] = world.counts.get(activity.__name__, 0) + 1
        time.sleep(0.01)


def _fill(folder: str, seed: int) -> None:
    """What the second process does: read through the shared caches, whatever generation there is."""
    world, rng = World(pathlib.Path(folder)), random.Random(seed)
    world.least, world.most = dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 2**31)
    while True:
        try:
            cached(world, rng)
        except arsrc.ArsrcError as error:
            if not was_replaced(error):
                raise


if __name__ == "__main__":
    _fill(sys.argv[1], int(sys.argv[2]))
