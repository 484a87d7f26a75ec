"""Records that cannot be read or decoded: masked, or an error of their own step, and never in the way of others."""

import collections
import dataclasses
import functools
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import arsrc
from arsrc._host import registry
from arsrc.codecs import Bytes, Map, RecordBatch

N = 120
PAD_ID = 2**32 - 1
CALLBACK_ERRORS = (jax.errors.JaxRuntimeError, ValueError)
SPEC = {"id": jax.ShapeDtypeStruct((), np.uint32), "x": jax.ShapeDtypeStruct((3,), np.float32)}

Config = arsrc.ArrayRecordSourceConfig

RECORDS = [
    np.uint32(i).tobytes() + np.random.default_rng(i).normal(size=3).astype(np.float32).tobytes() for i in range(N)
]


def parse(record: bytes) -> dict[str, Any]:
    return {"id": np.frombuffer(record, np.uint32, 1)[0], "x": np.frombuffer(record, np.float32, 3, 4)}


@dataclasses.dataclass(frozen=True)
class Parse:
    """Parses records but for some."""

    refused: frozenset[int] = frozenset()

    def __call__(self, record: bytes) -> dict[str, Any]:
        if (found := parse(record))["id"] in self.refused:
            raise KeyError("no such label")
        return found


@dataclasses.dataclass(frozen=True)
class Whole:
    """A codec of a user's own for whole batches, which does not say what it does not like."""

    refused: frozenset[int] = frozenset()

    def resolve(self, first_record: bytes) -> "Whole":
        self.decode(RecordBatch.from_records([first_record]))
        return self

    def element_spec(self) -> Any:
        return SPEC

    def decode(self, records: RecordBatch) -> Any:
        rows = records.data.reshape(len(records), 16)
        ids = rows[:, :4].copy().view(np.uint32)[:, 0]
        if np.isin(ids, list(self.refused)).any():
            raise ArithmeticError("something is odd")
        return {"id": ids, "x": rows[:, 4:].copy().view(np.float32)}

    def encode(self, elements: Any) -> RecordBatch:
        raise NotImplementedError


CODEC = Map(Parse(), SPEC)


def damage(source: str, target: str, *places: int) -> str:
    """Copy a file with some bytes changed."""
    content = bytearray(Path(source).read_bytes())
    for place in places:
        content[place] ^= 0xFF
    Path(target).write_bytes(content)
    return target


def flip(source: str, target: str, ids: Any) -> str:
    """Copy an uncompressed file with a bit of these records changed."""
    content = Path(source).read_bytes()
    return damage(source, target, *(content.index(RECORDS[i]) + 9 for i in ids))


def blot(source: str, target: str, ids: Any) -> str:
    """Copy an uncompressed file with zeros in the headers of these records' chunks."""
    content = bytearray(Path(source).read_bytes())
    for i in ids:
        begin = content.index(RECORDS[i]) - 43
        content[begin : begin + 24] = bytes(24)  # but for the kind, which the record before looks at, too
    Path(target).write_bytes(content)
    return target


def unreadable(path: str) -> frozenset[int]:
    """Which records array_record's own reader does not give, asked one by one."""
    bad = set()
    for position in range(N):
        reader = ArrayRecordReader(path)
        try:
            assert reader.read([position]) == [RECORDS[position]]
        except RuntimeError:
            bad.add(position)
    return frozenset(bad)


@dataclasses.dataclass(frozen=True)
class Pair:
    """A config of data with bad records, and one of the same data without."""

    config: Config
    healthy: Config
    bad: frozenset[int]

    def of(self, **fields: Any) -> "Pair":
        return dataclasses.replace(
            self,
            config=dataclasses.replace(self.config, **fields),
            healthy=dataclasses.replace(self.healthy, **fields | {"on_bad_record": "raise"}),
        )

    def expected(self, read: Callable[[Config], Any]) -> Any:
        """What `read` is to give: what it gives of healthy data, with the bad rows masked."""
        return jax.tree.map(self._masked, read(self.healthy), is_leaf=lambda tree: isinstance(tree, arsrc.Batch))

    def _masked(self, batch: Any) -> Any:
        if not isinstance(batch, arsrc.Batch):
            return batch
        bad = np.isin(batch.record_ids, list(self.bad))

        def zeroed(leaf: Any) -> Any:
            return np.where(bad.reshape(bad.shape + (1,) * (leaf.ndim - bad.ndim)), np.zeros_like(leaf), leaf)

        return dataclasses.replace(
            batch,
            data=jax.tree.map(zeroed, batch.data),
            mask=np.asarray(batch.mask) & ~bad,
            record_ids=np.where(bad, np.uint32(PAD_ID), batch.record_ids),
        )


@pytest.fixture(scope="module")
def healthy(records_dir: Path, write_records: Any) -> dict[str, str]:
    options = {"single": "group_size:1,uncompressed", "grouped": "group_size:8,zstd"}
    return {name: write_records(records_dir / f"bad-{name}", RECORDS, option) for name, option in options.items()}


CHECKED = arsrc.ReadOptions(checksum="always")
BAD = frozenset({5, 40, 41, 42, 77, N - 1})


def make(kind: str, healthy: dict[str, str], folder: Path) -> Pair:
    base = Config(
        "none", 8, CODEC, num_epochs=2, shuffle_records=True, remainder="pad", on_bad_record="mask", name=kind
    )
    put = functools.partial(dataclasses.replace, base)
    single, grouped = healthy["single"], healthy["grouped"]
    if kind == "flipped":
        path = flip(single, str(folder / "flipped"), BAD)
        pair = Pair(put(paths=path, read=CHECKED), put(paths=single, read=CHECKED), BAD)
    elif kind == "blotted":
        pair = Pair(put(paths=blot(single, str(folder / "blotted"), BAD)), put(paths=single), BAD)
    elif kind == "broken chunk":
        path = damage(grouped, str(folder / "broken"), 700, 1_900)
        pair = Pair(put(paths=path), put(paths=grouped), unreadable(path))
        assert len(pair.bad) == 16
    elif kind == "refused by row":
        pair = Pair(put(paths=single, codec=Map(Parse(BAD), SPEC)), put(paths=single), BAD)
    elif kind == "refused as a whole":
        pair = Pair(put(paths=single, codec=Whole(BAD)), put(paths=single, codec=Whole()), BAD)
    else:  # both, of several files
        path = damage(grouped, str(folder / "broken"), 700)
        blotted = blot(single, str(folder / "blotted"), [5])
        bad = {N + i for i in unreadable(path)} | {2 * N + 5 - 3}
        codec = Map(Parse(frozenset({17, 60})), SPEC)
        pair = Pair(
            put(paths=[single, path, f"{blotted}[3:9]"], codec=codec),
            put(paths=[single, grouped, f"{single}[3:9]"]),
            frozenset({17, 60, N + 17, N + 60} | bad),
        )
        assert len(pair.bad) == 13
    return pair.of()


KINDS = ["flipped", "blotted", "broken chunk", "refused by row", "refused as a whole", "several"]


@pytest.fixture
def pair(kind: str, healthy: dict[str, str], tmp_path: Path) -> Iterator[Pair]:
    made = make(kind, healthy, tmp_path)
    yield made
    arsrc.close(made.config)


def same(found: Any, expected: Any) -> bool:
    return jax.tree.structure(found) == jax.tree.structure(expected) and all(
        np.asarray(left).dtype == np.asarray(right).dtype and np.array_equal(left, right)
        for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    )


# Every way to read.


def eagerly(config: Config, step: Any = None, num_steps: int = 18) -> Any:
    state, batches = arsrc.init(config), []
    for _ in range(num_steps):
        state, batch = (step or functools.partial(arsrc.next_batch, config))(state)
        batches.append(batch)
    return batches, int(state.index), int(state.epoch)


def jitted(config: Config) -> Any:
    return eagerly(config, jax.jit(functools.partial(arsrc.next_batch, config)))


def scanned(config: Config, **options: Any) -> Any:
    collect = lambda carry, batch: (carry + batch.mask.sum(), batch)  # noqa: E731
    scan = lambda state: arsrc.scan_epoch(config, state, jnp.int32(0), collect, **options)[2]  # noqa: E731
    return jax.jit(scan)(arsrc.init(config))


def iterated(config: Config, **options: Any) -> Any:
    return [batch for _, batch in arsrc.iterate(config, **options)]


def of_an_ensemble(config: Config) -> Any:
    states = jax.vmap(lambda key: arsrc.state_at(config, 3, key))(jax.random.split(jax.random.key(1), 3))
    return jax.jit(jax.vmap(lambda state: arsrc.next_batches(config, state, 4)))(states)[1]


def at_random(config: Config) -> Any:
    state = arsrc.state_at(config, 4)
    take = jax.jit(functools.partial(arsrc.take, config))
    ids = np.random.default_rng(0).integers(0, N, (3, 7)).astype(np.uint32)
    return [
        arsrc.batch_at(config, state, 3, N),
        arsrc.batch_at(config, state, -5),
        arsrc.take(config, [5, 5, PAD_ID, 0, 77]),
        take(ids),
        arsrc.peek(config, state),
        jax.vmap(functools.partial(arsrc.take, config))(ids),
    ]


def resident(config: Config) -> Any:
    table = arsrc.load_resident(config)
    step = jax.jit(lambda state, table: arsrc.next_batches(config, state, 18, resident=table))
    return step(arsrc.init(config), table)[1]


def mesh() -> Mesh:
    return Mesh(np.array(jax.devices()[:1]), ("data",))


def on_a_mesh(config: Config) -> Any:
    state = arsrc.init(config)
    inside = jax.shard_map(
        lambda state: arsrc.next_batches(config, state, 9, axis_name="data")[1],
        mesh=mesh(),
        in_specs=PartitionSpec(),
        out_specs=PartitionSpec(None, "data"),
    )
    return [
        jax.jit(inside)(state),
        arsrc.next_global_batch(config, state, mesh=mesh(), axis_name="data", num_batches=9)[1],
        arsrc.next_global_batch(config, state, mesh=mesh(), axis_name="data")[1],
        *iterated(config, device=NamedSharding(mesh(), PartitionSpec("data"))),
    ]


def in_gradients(config: Config) -> Any:
    def loss(weight: Any, state: Any) -> Any:
        batch = jax.checkpoint(lambda: arsrc.peek(config, state))()
        return jnp.sum(weight * batch.data["x"]), batch

    return jax.jit(jax.grad(loss, has_aux=True))(jnp.float32(2), arsrc.state_at(config, 1))[1]


WAYS: dict[str, Callable[[Config], Any]] = {
    "eagerly": eagerly,
    "under jit": jitted,
    "in a scan": scanned,
    "in a scan of several": functools.partial(scanned, batches_per_fetch=5),
    "iterate": iterated,
    "an ensemble": of_an_ensemble,
    "random access": at_random,
    "a resident table": resident,
    "a mesh": on_a_mesh,
    "gradients": in_gradients,
}


@pytest.mark.parametrize("kind", ["several"])
@pytest.mark.parametrize("way", WAYS)
def test_bad_records_are_masked_and_all_else_is_as_it_would_be(pair: Pair, way: str) -> None:
    assert same(WAYS[way](pair.config), pair.expected(WAYS[way]))


ORDERS: dict[str, dict[str, Any]] = {
    "as stored": {"shuffle_records": False, "remainder": "wrap"},
    "all shuffled": {"remainder": "drop", "batch_size": 7},
    "in blocks": {"shuffle_block_size": 8, "shuffle_window_blocks": 4},
    "one batch an epoch": {"batch_size": N},
    "single records": {"batch_size": 1, "num_epochs": 1},
    "from a cache": {"cacheable": True},
    "not ahead": {"read": dataclasses.replace(CHECKED, ahead="never")},
    "always ahead": {"read": dataclasses.replace(CHECKED, ahead="always")},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ORDERS)
def test_bad_records_are_masked_in_every_order_however_they_are_bad(pair: Pair, order: str) -> None:
    pair = pair.of(**ORDERS[order])
    for _ in range(2):  # the second time it is known which they are
        assert same(iterated(pair.config), pair.expected(iterated))
    found = arsrc.bad_records(pair.config)
    assert set(found.ids) <= pair.bad
    if order != "all shuffled":
        assert set(found.ids) == pair.bad
    arsrc.close(pair.config)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_met_is_listed_and_can_be_excluded(pair: Pair) -> None:
    masked = iterated(pair.config)
    found = arsrc.bad_records(pair.config)
    assert found.ids == tuple(sorted(pair.bad))
    assert len(found) == len(pair.bad)
    assert all(times >= 1 for times in found.counts)
    where = registry.opened(pair.config).files.data_set.where
    assert list(zip(found.paths, found.positions, strict=True)) == [where(i) for i in found.ids]
    assert all(reason and not reason.startswith("record ") for reason in found.reasons)
    excluded = dataclasses.replace(pair.config, exclude=found.ids, on_bad_record="raise")
    assert same(iterated(excluded), masked)
    assert arsrc.bad_records(excluded).ids == ()
    arsrc.close(excluded)


# Random ones.


def first_tries(config: Config) -> list[int]:
    """Where the shapes of elements may be taken from."""
    excluded = {i for start, stop in config.exclude for i in range(start, stop)}
    first = next(i for i in range(N) if i not in excluded)
    tries = [next(i for i in range(first + 2**k - 1, 2 * N) if i not in excluded) for k in range(7)]
    return [i for i in tries if i < N]


@hypothesis.given(data=st.data())
def test_any_set_of_bad_records_masks_these_and_no_others(
    data: Any, healthy: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    flipped = data.draw(st.sets(st.integers(0, N - 1), max_size=N - 1), label="flipped")
    refused = data.draw(st.frozensets(st.integers(0, N - 1), max_size=4), label="refused")
    path = flip(healthy["single"], str(tmp_path_factory.getbasetemp() / "bad-law"), flipped)
    order = data.draw(
        st.sampled_from([{"shuffle_records": True}, {}, {"shuffle_records": True, "shuffle_block_size": 4}]),
        label="order",
    )
    healthy_one = Config(
        healthy["single"],
        data.draw(st.integers(1, N), label="batch_size"),
        CODEC,
        num_epochs=data.draw(st.integers(1, 2)),
        remainder=data.draw(st.sampled_from(["drop", "pad", "wrap"])),
        exclude=data.draw(st.sampled_from([(), (3, (50, 60))])),
        read=CHECKED,
        **order,
    )
    config = dataclasses.replace(healthy_one, paths=path, codec=Map(Parse(refused), SPEC), on_bad_record="mask")
    pair = Pair(config, healthy_one, frozenset(flipped | refused))
    if set(first_tries(config)) <= pair.bad:
        with pytest.raises(arsrc.ArsrcError, match="also_bad"):
            arsrc.init(config)
        return
    masked = iterated(config)
    expected = pair.expected(iterated)
    assert same(masked, expected)
    ids = arsrc.bad_records(config).ids
    assert same(iterated(dataclasses.replace(config, exclude=(*config.exclude, *ids))), expected)
    arsrc.close()


# What stays, and what does not.

REFUSED: set[int] = set()


def moody(record: bytes) -> dict[str, Any]:
    found = parse(record)
    if int(found["id"]) in REFUSED:
        raise ValueError("not now")
    return found


@pytest.mark.parametrize("how", ["as it is", "in blocks", "from a cache", "from files"])
def test_a_bad_record_is_tried_again_and_never_kept_as_good(healthy: dict[str, str], tmp_path: Path, how: str) -> None:
    fields: dict[str, Any] = {
        "as it is": {},
        "in blocks": ORDERS["in blocks"],
        "from a cache": ORDERS["from a cache"],
        "from files": {"cacheable": True, "read": arsrc.ReadOptions(cache_bytes=0, cache_dir=str(tmp_path))},
    }[how]
    config = Config(healthy["grouped"], 8, Map(moody, SPEC, version="1"), num_epochs=1, shuffle_records=True, name=how)
    config = dataclasses.replace(config, on_bad_record="mask", **fields)
    good = dataclasses.replace(config, codec=CODEC, cacheable=False)
    kept: set[int] = set()
    for bad in ({3, 90}, {3}, {7, 8, 9}, set(), {50}):
        REFUSED.clear()
        REFUSED.update(bad)
        assert same(iterated(config), Pair(config, good, frozenset(bad - kept)).expected(iterated))
        kept |= set(range(N)) - bad if config.cacheable else set()
        registry.opened(config).files.ahead.forget()  # what was read ahead is as it was then
    REFUSED.clear()
    assert arsrc.bad_records(config).counts[:1] == (2,) or how == "in blocks"
    arsrc.close(config)


# Errors.


def step_or_error(batches: Iterator[Any]) -> Any:
    """The next state, or the error."""
    try:
        return next(batches)[0]
    except arsrc.ArsrcError as error:
        return error


def steps_that_fail(config: Config) -> dict[int, arsrc.ArsrcError]:
    """Iterate to the end, beginning again behind each error; asks twice, and gives the errors by their steps."""
    errors: dict[int, arsrc.ArsrcError] = {}
    state, total = arsrc.init(config), arsrc.total_steps(config)
    batches = arsrc.iterate(config, state)
    while (step := int(arsrc.step_of(config, state))) != total:
        found = step_or_error(batches)
        if isinstance(found, arsrc.SourceState):
            state = found
            continue
        assert step not in errors or str(found) == str(errors[step])
        state = arsrc.advance(config, state) if step in errors else state
        errors[step] = found
        batches = arsrc.iterate(config, state)
    return errors


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["as stored", "in blocks", "from a cache", "always ahead", "not ahead"])
def test_an_error_comes_at_its_step_alone_and_names_a_record_of_it(pair: Pair, order: str) -> None:
    config = dataclasses.replace(pair.of(**ORDERS[order]).config, on_bad_record="raise")
    healthy = pair.of(**ORDERS[order]).healthy
    bad_of = {
        step: sorted(pair.bad & set(batch.record_ids.tolist()))
        for step, (_, batch) in enumerate(arsrc.iterate(healthy))
    }
    errors = steps_that_fail(config)
    assert list(errors) == [step for step, bad in bad_of.items() if bad]
    for step, error in errors.items():
        assert error.record_id in bad_of[step]
        assert (error.path, error.position) == registry.opened(config).files.data_set.where(error.record_id)
        if isinstance(error, arsrc.ArsrcReadError):
            unreadable = [i for i in bad_of[step] if i not in (17, 60, N + 17, N + 60)]
            assert error.record_id == next(i for i in unreadable if i // N == error.record_id // N), (
                "the first of a file"
            )
        assert re.search(
            r"array_record's reader fails|a chunk is not what|raised KeyError|raised ArithmeticError", str(error)
        )
    arsrc.close(config)


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_reads_on_the_host_raises_an_error_that_knows_its_record(pair: Pair) -> None:
    config = dataclasses.replace(pair.config, on_bad_record="raise")
    first = min(pair.bad)
    if config.name == "several":
        config, first = dataclasses.replace(config, paths=config.paths[1]), 17
    for read in (arsrc.load_resident, arsrc.dataset_statistics):
        with pytest.raises(arsrc.ArsrcError) as caught:
            read(config)
        assert (caught.value.path, caught.value.position) == (config.paths[0], caught.value.record_id)
        assert caught.value.record_id == (
            first if config.name != "several" else min(i - N for i in pair.bad if i > N + 17)
        )
    with pytest.raises(CALLBACK_ERRORS, match=rf"record_ids='{first}\b|record {first} "):
        jax.block_until_ready(arsrc.take(config, [1, first, 2]))
    arsrc.close(config)


@pytest.mark.parametrize("kind", KINDS)
def test_statistics_leave_masked_records_out(pair: Pair) -> None:
    found = arsrc.dataset_statistics(pair.config)
    expected = arsrc.dataset_statistics(dataclasses.replace(pair.healthy, exclude=sorted(pair.bad)))
    assert found["id"].count == arsrc.num_records(pair.config) - len(pair.bad)
    np.testing.assert_allclose(found["x"].mean, expected["x"].mean, rtol=1e-12)
    assert np.array_equal(found["id"].max, expected["id"].max)


# What is no fault of a record.


@dataclasses.dataclass(frozen=True)
class Wrong(Whole):
    """A codec with a mistake."""

    mistake: str = ""

    def decode(self, records: RecordBatch) -> Any:
        found = super().decode(records)
        if len(records) > 1 and self.mistake == "together":
            raise ArithmeticError("more than one")
        if self.mistake == "memory" and (found["id"] == 5).any():
            raise MemoryError
        if len(records) > 1 and self.mistake == "shapes":
            found["id"] = found["id"][:-1]
        return found


@pytest.mark.parametrize(
    ("mistake", "kind", "text"),
    [
        ("together", arsrc.ArsrcValueError, "raised ArithmeticError: more than one; got record_ids="),
        ("shapes", arsrc.ArsrcValueError, "is not what the spec says"),
        ("memory", arsrc.ArsrcValueError, r"record 5 \(.* raised MemoryError"),
    ],
)
def test_what_is_no_fault_of_a_record_is_an_error_in_either_case(
    healthy: dict[str, str], mistake: str, kind: type[Exception], text: str
) -> None:
    config = Config(healthy["single"], 8, Wrong(mistake=mistake), on_bad_record="mask")
    with pytest.raises(kind, match=text):
        next(arsrc.iterate(config))
    assert not arsrc.bad_records(config).ids
    arsrc.close(config)


@dataclasses.dataclass(frozen=True)
class NeedsSome(Whole):
    """A codec that cannot decode nothing."""

    def decode(self, records: RecordBatch) -> Any:
        return super().decode(RecordBatch.from_records([bytes(one) for one in np.stack([*map(_array, records)])]))


def _array(record: bytes) -> np.ndarray:
    return np.frombuffer(record, np.uint8)


def test_a_batch_of_bad_records_alone_is_masked_whatever_the_codec(healthy: dict[str, str], tmp_path: Path) -> None:
    path = damage(healthy["grouped"], str(tmp_path / "broken"), 700, 1_900)
    read = arsrc.ReadOptions(ahead="never")
    options: dict[str, Any] = {"on_bad_record": "mask", "num_epochs": 1, "read": read}
    config = Config(path, 4, NeedsSome(), **options)
    num_valid = [int(batch.mask.sum()) for _, batch in arsrc.iterate(config)]
    assert 0 in num_valid[:-1]
    assert len(arsrc.bad_records(config).ids) == 16
    arsrc.close(config)


@pytest.mark.parametrize("kind", ["flipped", "broken chunk"])
def test_a_file_that_is_gone_or_changed_is_an_error_in_either_case(pair: Pair) -> None:
    config = dataclasses.replace(pair.config, num_epochs=-1, read=dataclasses.replace(CHECKED, ahead="never"))
    batches = arsrc.iterate(config)
    next(batches)
    (path,) = config.paths
    content = Path(path).read_bytes()
    os.unlink(path)
    with pytest.raises(arsrc.ArsrcReadError, match="is gone") as caught:  # where it meets a bad one
        collections.deque(batches, 0)
    assert (caught.value.path, caught.value.record_id) == (path, None)
    Path(path).write_bytes(content)
    arsrc.close(config)
    batches = arsrc.iterate(config)
    next(batches)
    with open(path, "ab") as file:
        file.write(b"more")
    with pytest.raises(arsrc.ArsrcReadError, match="a file was changed while it was open"):
        collections.deque(batches, 0)
    arsrc.close(config)
    os.unlink(path)
    with pytest.raises(arsrc.ArsrcFileNotFoundError):
        arsrc.init(config)


# The first record, of which shapes are taken.


@pytest.mark.parametrize("shuffled", [False, True])
def test_the_next_good_record_stands_in_for_a_first_one_that_is_bad(
    healthy: dict[str, str], tmp_path: Path, shuffled: bool
) -> None:
    path = flip(healthy["single"], str(tmp_path / "bad"), [*range(7), 9])
    config = Config(path, 8, Bytes(), num_epochs=1, read=CHECKED, on_bad_record="mask", shuffle_records=shuffled)
    pair = Pair(config, dataclasses.replace(config, paths=healthy["single"]), frozenset([*range(7), 9])).of()
    assert same(iterated(config), pair.expected(iterated))
    with pytest.raises(arsrc.ArsrcReadError, match="array_record's reader fails") as caught:
        arsrc.init(dataclasses.replace(config, on_bad_record="raise"))
    assert caught.value.record_id == 0
    arsrc.close(config)


def test_where_all_records_that_are_tried_are_bad_that_is_an_error_which_says_so(healthy: dict[str, str]) -> None:
    config = Config(
        healthy["single"], 8, Map(Parse(frozenset(range(2, N))), SPEC), exclude=[(0, 2)], on_bad_record="mask"
    )
    with pytest.raises(arsrc.ArsrcValueError, match=r"record 2 .* got also_bad=\[3, 5, 9, 17, 33, 65\]") as caught:
        arsrc.init(config)
    assert caught.value.record_id == 2
    assert isinstance(caught.value.__cause__, arsrc.RecordError)


# In nobody's way.


def wait_for_parts(config: Config) -> None:
    """Wait until all that is read ahead is there, or has failed."""
    parts = [part for run in list(registry.opened(config).files.ahead.runs) for part in list(run.parts)]
    end = time.monotonic() + 60
    while not all(part.is_loaded or part._failed for part in parts) and time.monotonic() < end:
        time.sleep(0.001)


@pytest.mark.parametrize("kind", ["read", "decode"])
def test_steps_far_before_a_bad_record_come_from_threads_and_so_do_those_behind(
    healthy: dict[str, str], tmp_path: Path, kind: str
) -> None:
    bad, path = 97, healthy["single"]
    config = Config(path, 2, CODEC, num_epochs=1, read=dataclasses.replace(CHECKED, ahead="always"), name=kind)
    if kind == "read":
        config = dataclasses.replace(config, paths=flip(path, str(tmp_path / "bad"), [bad]))
    else:
        config = dataclasses.replace(config, codec=Map(Parse(frozenset([bad])), SPEC))
    state, batches, failed = arsrc.init(config), arsrc.iterate(config), []
    for step in range(N // 2):
        found = step_or_error(batches)
        if isinstance(found, arsrc.SourceState):
            state = found
        else:
            failed.append((step, found.record_id))
            state = arsrc.advance(config, state)
            batches = arsrc.iterate(config, state)
        wait_for_parts(config)
    assert failed == [(bad // 2, bad)]
    metrics = arsrc.io_metrics(config)
    assert metrics["batches_ready"] >= N // 2 - 6
    assert metrics["records_read"] <= N + 10, "healthy ones are read once"
    arsrc.close(config)


@pytest.mark.parametrize("how", ["closed", "replaced"])
def test_after_an_error_a_file_that_is_whole_again_gives_its_bytes(
    healthy: dict[str, str], tmp_path: Path, how: str
) -> None:
    path = flip(healthy["single"], str(tmp_path / "bad"), [50])
    config = Config(path, 10, CODEC, num_epochs=1, read=CHECKED, name=how)
    batches = arsrc.iterate(config)
    for _ in range(5):
        state, _ = next(batches)
    for _ in range(3):
        with pytest.raises(arsrc.ArsrcReadError, match="record_ids='50'"):
            next(arsrc.iterate(config, state))
    if how == "closed":
        arsrc.close(config)
        shutil.copy(healthy["single"], path)
    else:
        shutil.copy(healthy["single"], f"{path}.new")
        os.replace(f"{path}.new", path)
    _, batch = next(arsrc.iterate(config, state))
    assert np.asarray(batch.data["id"]).tolist() == list(range(50, 60))
    assert arsrc.bad_records(config).ids == ()
    arsrc.close(config)


def test_the_log_tells_of_masked_records_at_the_first_and_at_powers_of_ten(
    healthy: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    config = Config(
        healthy["single"], 1, Map(Parse(frozenset(range(1, 100, 2))), SPEC), num_epochs=2, on_bad_record="mask"
    )
    with caplog.at_level(logging.WARNING, "arsrc"):
        iterated(dataclasses.replace(config, read=arsrc.ReadOptions(read_ahead_bytes=0)))
    texts = [record.getMessage() for record in caplog.records]
    assert [re.search(r"met (\d+) record", text)[1] for text in texts] == ["1", "10"]  # type: ignore[index]
    assert all(text.startswith("[arsrc] on_bad_record: ") and "raised KeyError" in text for text in texts)


def test_the_plan_of_a_batch_does_not_know_what_is_bad(healthy: dict[str, str]) -> None:
    config = Config(healthy["single"], 8, Map(Parse(frozenset([2])), SPEC), on_bad_record="mask")
    state = arsrc.init(config)
    assert arsrc.batch_mask(config, state).all()
    assert arsrc.record_ids(config, state).tolist() == list(range(8))
    assert arsrc.peek(config, state).record_ids.tolist() == [0, 1, PAD_ID, 3, 4, 5, 6, 7]


def test_a_table_of_another_kind_is_refused(healthy: dict[str, str]) -> None:
    config = Config(healthy["single"], 8, CODEC)
    masked = dataclasses.replace(config, on_bad_record="mask")
    for one, other in ((config, masked), (masked, config)):
        with pytest.raises(arsrc.ArsrcValueError, match="the resident table is not this data set"):
            arsrc.next_batch(one, arsrc.init(one), resident=arsrc.load_resident(other))


def test_programs_of_configs_without_masks_are_as_they_were(healthy: dict[str, str]) -> None:
    config = Config(healthy["single"], 8, CODEC)
    masked = dataclasses.replace(config, on_bad_record="mask")
    programs = [str(jax.make_jaxpr(functools.partial(arsrc.next_batch, c))(arsrc.init(c))) for c in (config, masked)]
    results = [re.findall(r"(\S+:\S+(?: \S+:\S+)*) = arsrc_read", program)[0].split() for program in programs]
    assert [len(names) for names in results] == [2, 3]
