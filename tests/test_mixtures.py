"""`MixtureConfig` on real files: each source is served in its own order, at its own pace, in its share.

The order by itself is tested in test_mixture_order.py, on numbers alone.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import arsrc
from arsrc import MixtureConfig, Packing, ReadOptions
from arsrc._host import registry
from arsrc.codecs import Map, Ragged, Struct
from arsrc.order.spread import spread, whole_quotas

Config = arsrc.ArrayRecordSourceConfig

PAD_ID = 2**32 - 1
CODEC = Struct({"id": "uint32", "x": ("float32", 3)})
DTYPE = np.dtype([("id", "<u4"), ("x", "<f4", 3)])
SIZES = {"large": 40, "middle": 13, "small": 3, "one": 1}
LAYOUTS = {
    "large": "group_size:1,uncompressed",
    "middle": "group_size:4,zstd",
    "small": "group_size:1,zstd",
    "one": "group_size:1,uncompressed",
}
ORDERS: dict[str, dict[str, Any]] = {
    "as stored": {},
    "records": {"shuffle_records": True},
    "blocks": {"shuffle_records": True, "shuffle_block_size": 2, "shuffle_window_blocks": 2},
    "files": {"shuffle_files": True},
}


def parse(record: bytes) -> dict[str, Any]:
    (row,) = np.frombuffer(record, DTYPE)
    return {"id": row["id"], "x": row["x"]}


# The elements of CODEC, decoded in another way: sources with either are read in groups of their own.
MAP = Map(parse, {"id": jax.ShapeDtypeStruct((), np.uint32), "x": jax.ShapeDtypeStruct((3,), np.float32)})


@pytest.fixture(scope="module")
def paths(records_dir: Path) -> dict[str, tuple[str, ...]]:
    """Files of each data set: 1000 times its number is the id of its first record."""
    folder = records_dir / "mixtures"
    folder.mkdir(exist_ok=True)
    return {name: write(folder / name, number, LAYOUTS[name]) for number, name in enumerate(SIZES)}


def write(path: Path, number: int, options: str = LAYOUTS["large"], size: int | None = None) -> tuple[str, ...]:
    ids = 1000 * number + np.arange(size or list(SIZES.values())[number], dtype=np.uint32)
    x = np.random.default_rng(number).normal(size=(len(ids), 3)).astype(np.float32)
    shards = 3 if len(ids) > 10 else 1
    return tuple(arsrc.write_array_record(path, {"id": ids, "x": x}, codec=CODEC, num_shards=shards, options=options))


@pytest.fixture(scope="module")
def source(paths: dict[str, tuple[str, ...]]) -> Callable[..., Config]:
    """`source(name, **fields)`: a config of one of the data sets."""
    return lambda name, **fields: Config(paths[name], **({"batch_size": 2, "codec": CODEC} | fields))


def stacked(batches: Sequence[arsrc.Batch], like: Config | MixtureConfig) -> arsrc.Batch:
    """Batches one behind the other, as NumPy arrays."""
    spec = jax.tree.map(lambda leaf: np.empty((0, *leaf.shape[1:]), leaf.dtype), arsrc.batch_spec(like))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), spec, *batches)


def served(config: Config | MixtureConfig, num_batches: int, state: Any = None) -> arsrc.Batch:
    """The rows of so many batches, or of all that there are."""
    return stacked([batch for _, batch in itertools.islice(arsrc.iterate(config, state), num_batches)], config)


def alone(source: Config) -> Config:
    """The source by itself, in whose epochs no row is left out."""
    return dataclasses.replace(source, remainder="wrap", batch_size=4)


def slots(mix: MixtureConfig, num_batches: int) -> list[tuple[int, int | None]]:
    """Whose each slot is, and which of its rows, by a counter for each source; None once it has ended."""
    quotas = [whole_quotas(weights) for _, weights in mix._stages]
    starts = [step * mix.batch_size for step, _ in mix._stages]
    pairs = [(one.num_epochs, arsrc.num_records(alone(one))) for one in mix.sources]
    ends = [num_epochs * size if num_epochs >= 0 else math.inf for num_epochs, size in pairs]
    counts, found = [0] * len(ends), []
    for slot in range(num_batches * mix.batch_size):
        stage = sum(start <= slot for start in starts) - 1
        layout = spread(quotas[stage])
        number = int(layout[(slot - starts[stage]) % len(layout)])
        has_ended = counts[number] >= ends[number]
        if has_ended and mix.stop == "first":
            return found
        found.append((number, None if has_ended else counts[number]))
        counts[number] += 1
    lasting = zip(ends, mix._stages[-1][1], counts, strict=True)
    if any(weight > 0 and count < end for end, weight, count in lasting):
        return found
    return found[: max(slot for slot, (_, row) in enumerate(found) if row is not None) + 1]


def expected(mix: MixtureConfig, num_batches: int, key: Any = None) -> arsrc.Batch:
    """The rows of a mixture, each taken from what its source serves alone under its key."""
    key = jax.random.key(mix.seed) if key is None else key
    found = slots(mix, num_batches)
    firsts = np.cumsum([0, *(arsrc.num_records(alone(one)) for one in mix.sources)])
    streams = []
    for number, one in enumerate(mix.sources):
        count = sum(of == number for of, _ in found)
        state = arsrc.init(alone(one), jax.random.fold_in(key, number))
        streams.append(served(alone(one), -(-count // 4), state))
    rows = [jax.tree.map(lambda leaf, row=row: leaf[row or 0], streams[number]) for number, row in found]
    batch = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
    mask = np.array([row is not None for _, row in found]) & batch.mask
    ids = np.where(mask, batch.record_ids + firsts[[number for number, _ in found]], PAD_ID).astype(np.uint32)
    data = jax.tree.map(lambda leaf: np.where(mask.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, 0), batch.data)
    return arsrc.Batch(data=data, mask=mask, record_ids=ids, epochs=batch.epochs)


def check(found: arsrc.Batch, wanted: arsrc.Batch) -> None:
    """Compare rows, behind which there may be masked ones to the end of the last batch."""
    num_rows = len(wanted.mask)
    assert not found.mask[num_rows:].any()
    found = jax.tree.map(lambda leaf: leaf[:num_rows], found)
    np.testing.assert_array_equal(found.mask, wanted.mask)
    np.testing.assert_array_equal(found.record_ids, wanted.record_ids)
    np.testing.assert_array_equal(found.epochs[found.mask], wanted.epochs[wanted.mask])
    jax.tree.map(np.testing.assert_array_equal, found.data, wanted.data)


# Law 10: the rows of a source are its stream alone, under its key.


@st.composite
def mixtures(draw: Any) -> Callable[[Callable[..., Config]], MixtureConfig]:
    """What makes a mixture of any sources."""
    sources = []
    for name in draw(st.lists(st.sampled_from(list(SIZES)), min_size=1, max_size=4)):
        fields = dict(ORDERS[draw(st.sampled_from(list(ORDERS)))])
        fields["codec"] = draw(st.sampled_from([CODEC, MAP]))
        fields["cacheable"] = draw(st.booleans())
        fields["num_epochs"] = draw(st.sampled_from([-1, -1, 1, 3]))
        fields["read"] = draw(st.sampled_from([ReadOptions(), ReadOptions(ahead="always"), ReadOptions(ahead="never")]))
        if SIZES[name] > 2:
            fields["select"] = draw(st.sampled_from([None, [0, 2], [(1, SIZES[name])]]))
            fields["exclude"] = draw(st.sampled_from([(), [1], [0]]))
        sources.append((name, fields))
    weights = st.lists(st.integers(0, 5), min_size=len(sources), max_size=len(sources)).filter(any)
    steps = sorted({0, *draw(st.lists(st.integers(1, 12), max_size=2))})
    stages = [(step, draw(weights)) for step in steps]
    fields = {"batch_size": draw(st.integers(1, 9)), "stop": draw(st.sampled_from(["first", "all"]))}
    seed = draw(st.integers(0, 2**32 - 1))
    return lambda source: MixtureConfig(
        [source(name, **fields) for name, fields in sources], stages=stages, seed=seed, **fields
    )


@given(mixtures())
def test_rows_of_a_source_are_its_own_stream_under_its_key_and_counted(
    source: Callable[..., Config], make: Any
) -> None:
    mix = make(source)
    steps = list(itertools.islice(arsrc.iterate(mix), 20))
    found = stacked([batch for _, batch in steps], mix)
    total = arsrc.total_steps(mix)
    assert len(steps) == (20 if total is None else min(total, 20))
    rows = slots(mix, 20)
    if rows:
        check(found, expected(mix, 20))
    for step, (state, _) in enumerate(steps, 1):
        served_rows = [number for number, row in rows[: step * mix.batch_size] if row is not None]
        counts = np.bincount(served_rows, minlength=len(mix.sources)).tolist()
        assert arsrc.source_counts(mix, state) == tuple(counts)


@pytest.fixture(scope="module")
def documents(records_dir: Path, write_records: Any) -> list[list[str]]:
    """Two data sets of documents, each in two files; a document's tokens are its number."""
    lengths = np.random.default_rng(3).integers(0, 12, (2, 2, 10)).tolist()
    return [
        [
            write_records(
                records_dir / f"mixed-documents-{number}-{half}",
                [bytes([100 * number + 10 * half + n + 1]) * length for n, length in enumerate(some)],
            )
            for half, some in enumerate(of_set)
        ]
        for number, of_set in enumerate(lengths)
    ]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("how", ["split", "fit"])
def test_rows_of_packed_sources_are_their_own_streams(documents: list[list[str]], how: Any, order: str) -> None:
    first, second = documents
    packed: dict[str, Any] = {"codec": Ragged("uint8", max_length=12), "pack": Packing(8, how), **ORDERS[order]}
    few = {"exclude": [1, 7], "select": [(2, 19)]}
    sources = [Config(first, 1, **packed), Config(second, 1, **packed), Config(second, 1, **packed, **few)]
    mix = MixtureConfig(sources, (3, 1, 2), batch_size=5)
    assert len(registry.source(mix).groups) == 1
    check(served(mix, 15), expected(mix, 15))


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_rows_of_a_source_are_its_own_stream_for_keys_of_every_kind(source: Any, impl: str) -> None:
    mix = MixtureConfig([source(name, shuffle_records=True) for name in ("middle", "small")], (2, 1), batch_size=4)
    key = jax.random.key(5, impl=impl)
    check(served(mix, 8, arsrc.init(mix, key)), expected(mix, 8, key))


def test_each_source_goes_through_its_own_epochs(source: Any) -> None:
    mix = MixtureConfig(
        [source("large", shuffle_records=True), source("small", shuffle_records=True)], (1, 1), batch_size=4
    )
    batch = served(mix, 20)
    small = batch.record_ids >= 40
    assert np.array_equal(batch.epochs[small], np.arange(40) // 3)
    assert np.array_equal(batch.epochs[~small], np.zeros(40))
    for epoch in range(13):  # each record once in each
        assert sorted(batch.data["id"][small & (batch.epochs == epoch)]) == [2000, 2001, 2002]


# Sources that share.


def test_selections_of_one_data_set_share_its_files(source: Any) -> None:
    parts = [source("large", select=[(0, 9)]), source("large", select=[(9, 40)]), source("large", select=[3, 30])]
    mix = MixtureConfig(parts, (1, 1, 1), batch_size=6)
    (group,) = registry.source(mix).groups
    assert group.files is registry.source(source("large")).files
    assert group.files.data_set.num_records == 40
    assert arsrc.num_records(mix) == 42
    check(served(mix, 12), expected(mix, 12))


def test_the_same_source_twice_has_two_orders(source: Any) -> None:
    one = source("large", shuffle_records=True)
    mix = MixtureConfig([one, one], (1, 1), batch_size=80)
    batch = served(mix, 1)
    first, second = (batch.data["id"][batch.record_ids // 40 == number] for number in (0, 1))
    assert sorted(first) == sorted(second) == list(range(40))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    "fields",
    [
        {"cacheable": True},
        {"read": ReadOptions(checksum="first")},
        {"read": ReadOptions(checksum="always")},
        {"read": ReadOptions(ahead="never")},
        {"read": ReadOptions(ahead="always")},
        {"read": ReadOptions(read_ahead_bytes=0)},
        {"read": ReadOptions(num_threads=4, ahead="always", max_open_files=1)},
        {"read": ReadOptions(timeout_seconds=60)},
        {"codec": MAP},
        {"codec": MAP, "cacheable": True},
        {"on_bad_record": "mask"},
    ],
    ids=str,
)
@pytest.mark.parametrize("which", ["one", "all"])
def test_how_sources_are_read_changes_no_batch(source: Any, fields: dict[str, Any], which: str) -> None:
    plain = [source(name, shuffle_records=True) for name in SIZES]
    mix = MixtureConfig(plain, (4, 3, 2, 1), batch_size=7)
    changes = [fields if which == "all" or number == 1 else {} for number in range(4)]
    changes = [change | {key: fields[key] for key in fields if key == "on_bad_record"} for change in changes]
    sources = [dataclasses.replace(one, **change) for one, change in zip(plain, changes, strict=True)]
    found = served(dataclasses.replace(mix, sources=sources), 25)
    jax.tree.map(np.testing.assert_array_equal, found, served(mix, 25))


def test_elements_kept_under_a_folder_are_those_that_were_read(source: Any, tmp_path: Path) -> None:
    read = ReadOptions(cache_bytes=0, cache_dir=str(tmp_path))
    sources = [source(name, cacheable=True, read=read, codec=codec) for name in SIZES for codec in (CODEC, MAP)]
    mix = MixtureConfig(sources, [1] * 8, batch_size=16)
    wanted = expected(
        dataclasses.replace(mix, sources=[dataclasses.replace(one, cacheable=False) for one in sources]), 10
    )
    for _ in range(3):
        check(served(mix, 10), wanted)
        before = arsrc.io_metrics(mix)
        arsrc.close()
    assert before["records_read"] == 0
    assert before["cache_hits"] > 0


# Where it ends.


@pytest.mark.parametrize("batch_size", [4, 64])
def test_a_mixture_that_ends_with_its_last_source_serves_each_row_of_each_epoch(source: Any, batch_size: int) -> None:
    sources = [
        source("large", num_epochs=1),
        source("small", num_epochs=5, exclude=[2]),
        source("middle", num_epochs=2),
    ]
    mix = MixtureConfig(sources, (2, 1, 1), batch_size=batch_size, stop="all")
    steps = arsrc.total_steps(mix)
    batch = served(mix, 1000)
    assert len(batch.mask) == steps * batch_size
    assert batch.mask.sum() == 40 + 2 * 5 + 13 * 2
    assert sorted(batch.data["id"][batch.mask]) == sorted([*range(40), *[2000, 2001] * 5, *[*range(1000, 1013)] * 2])
    assert batch.mask[-batch_size:].any()
    assert not jax.tree.leaves(batch.data)[0][~batch.mask].any()
    end = arsrc.state_at(mix, steps)
    assert arsrc.is_exhausted(mix, end)
    assert not arsrc.is_exhausted(mix, arsrc.state_at(mix, steps - 1))
    assert arsrc.source_counts(mix, end) == (40, 15, 26)
    assert arsrc.source_counts(mix, arsrc.state_at(mix, steps + 99)) == (40, 15, 26)
    assert int(arsrc.step_of(mix, end)) == steps
    after, empty = arsrc.next_batch(mix, end)
    assert not empty.mask.any()
    assert (int(after.index), int(after.epoch)) == (int(end.index), int(end.epoch))


def test_a_mixture_that_ends_with_its_first_source_ends_in_front_of_the_row_that_is_missing(source: Any) -> None:
    mix = MixtureConfig([source("small", num_epochs=2), source("large")], (1, 3), batch_size=5)
    batch = served(mix, 1000)
    num_rows = int(batch.mask.sum())
    small = batch.record_ids[batch.mask] < 3
    assert small.sum() == 6
    assert batch.mask[:num_rows].all()  # and rows behind the end alone are masked
    more = served(dataclasses.replace(mix, sources=[source("small"), source("large")]), 10)
    assert more.record_ids[num_rows] < 3  # the next one would be of the source that has ended
    assert arsrc.source_counts(mix, arsrc.state_at(mix, arsrc.total_steps(mix))) == (6, num_rows - 6)


def test_a_mixture_with_an_endless_source_is_endless(source: Any) -> None:
    mix = MixtureConfig([source("small", num_epochs=1), source("large")], (1, 1), batch_size=4, stop="all")
    assert arsrc.total_steps(mix) is None
    batch = served(mix, 10)
    assert batch.mask.sum() == 3 + 20
    assert dataclasses.replace(mix, stop="first") != mix
    assert arsrc.total_steps(dataclasses.replace(mix, stop="first")) == 2


# Counts, and which source.


def test_counts_are_exact_beyond_32_bits(source: Any) -> None:
    mix = MixtureConfig([source("large"), source("small")], (3, 1), batch_size=2**16)
    state = arsrc.state_at(mix, 2**20 - 1)
    rows = (2**20 - 1) * 2**16
    assert arsrc.source_counts(mix, state) == (rows // 4 * 3, rows // 4)


def test_excluded_rows_count(source: Any) -> None:
    mix = MixtureConfig([source("small", exclude=[0, 1]), source("large")], (1, 1), batch_size=12)
    assert arsrc.source_counts(mix, arsrc.state_at(mix, 2)) == (12, 12)
    assert served(mix, 2).mask.sum() == 12 + 4


def test_a_source_that_is_no_mixture_counts_its_rows(source: Any) -> None:
    one = source("middle", batch_size=4, num_epochs=2)
    assert arsrc.source_counts(one, arsrc.state_at(one, 2)) == (8,)
    assert arsrc.source_counts(one, arsrc.state_at(one, 5)) == (12 + 8,)  # one of 13 was passed over
    assert arsrc.operation_stats(one, arsrc.state_at(one, 5))["applied_count"] == 20


def test_ids_tell_their_source(source: Any) -> None:
    mix = MixtureConfig([source(name) for name in SIZES], (1, 1, 1, 1), batch_size=4)
    ids = np.array([[0, 39, 40, 52], [53, 55, 56, PAD_ID]], np.uint32)
    found = arsrc.source_ids(mix, ids)
    assert found.dtype == jnp.uint32
    wanted = [[0, 0, 1, 1], [2, 2, 3, PAD_ID]]
    assert found.tolist() == wanted
    assert jax.jit(lambda ids: arsrc.source_ids(mix, ids))(ids).tolist() == wanted
    assert jax.vmap(lambda ids: arsrc.source_ids(mix, ids))(jnp.asarray(ids)).tolist() == wanted
    assert int(arsrc.source_ids(mix, 40)) == 1
    assert arsrc.source_ids(mix.sources[0], [0, 39, PAD_ID]).tolist() == [0, 0, PAD_ID]


@pytest.mark.parametrize("outside", [57, PAD_ID - 1])
def test_an_id_that_no_record_has_is_of_no_source(source: Any, outside: int) -> None:
    mix = MixtureConfig([source(name) for name in SIZES], (1, 1, 1, 1), batch_size=4)
    with pytest.raises(arsrc.ArsrcIndexError, match=rf"source_ids: record_ids must be in \[0, 57\); .*={outside}"):
        arsrc.source_ids(mix, [0, outside])


def test_keys_of_rows_differ_by_the_epoch_of_their_source(source: Any) -> None:
    mix = MixtureConfig([source("large"), source("one")], (1, 1), batch_size=6)
    state = arsrc.init(mix)
    _, batch = arsrc.next_batch(mix, state)
    keys = {tuple(words) for words in np.asarray(jax.random.key_data(arsrc.record_keys(mix, state, batch))).tolist()}
    assert batch.record_ids.tolist().count(40) == 3
    assert len(keys) == 6


# Stages.


def test_a_change_of_weights_begins_no_source_again(source: Any) -> None:
    sources = [source("large", shuffle_records=True), source("middle", shuffle_records=True)]
    stages = [(0, (1, 0)), (3, (1, 3)), (7, (0, 1))]
    mix = MixtureConfig(sources, stages=stages, batch_size=4)
    check(served(mix, 12), expected(mix, 12))
    counts = [arsrc.source_counts(mix, arsrc.state_at(mix, step)) for step in (3, 7, 10)]
    assert counts == [(12, 0), (16, 12), (16, 24)]


def test_a_source_without_weight_is_not_served_and_still_numbered(source: Any) -> None:
    mix = MixtureConfig([source("middle"), source("small"), source("large")], (1, 0, 1), batch_size=4)
    batch = served(mix, 30)
    assert set(np.asarray(arsrc.source_ids(mix, batch.record_ids)).tolist()) == {0, 2}
    assert batch.record_ids.max() == 13 + 3 + 39


# Balanced sampling.


def test_a_mixture_of_the_selections_of_each_class_is_balanced(source: Any) -> None:
    rare = [3, 17, 28]
    common = [i for i in range(40) if i not in rare]
    mix = MixtureConfig(
        [source("large", select=ids, shuffle_records=True) for ids in (common, rare)], (1, 1), batch_size=8
    )
    batch = served(mix, 20)
    is_rare = np.isin(batch.data["id"], rare)
    assert np.array_equal(is_rare.reshape(20, 8).sum(1), [4] * 20)
    assert batch.epochs[is_rare].max() == 79 // 3
    assert batch.epochs[~is_rare].max() == 79 // 37
    counts = np.bincount(batch.data["id"][is_rare], minlength=40)[rare]
    assert counts.max() - counts.min() <= 1
    ids = np.asarray(arsrc.source_ids(mix, batch.record_ids))
    assert np.array_equal(ids == 1, is_rare)


def test_records_selected_by_their_elements_are_mixed(source: Any) -> None:
    whole = source("large")
    odd = arsrc.select_records(whole, lambda batch: batch.data["id"] % 8 == 1)
    even = arsrc.select_records(whole, lambda batch: batch.data["id"] % 2 == 0)
    mix = MixtureConfig([dataclasses.replace(whole, select=one) for one in (odd, even)], (1, 1), batch_size=10)
    batch = served(mix, 3)
    is_odd = batch.data["id"] % 2 == 1
    assert batch.data["id"][is_odd].tolist() == [1, 9, 17, 25, 33] * 3
    assert batch.data["id"][~is_odd].tolist() == list(range(0, 30, 2))


# What is known of a mixture.


def test_sizes_and_specs_are_those_of_the_sources_together(source: Any) -> None:
    mix = MixtureConfig(
        [source(name, codec=codec) for name, codec in zip(SIZES, [CODEC, MAP] * 2, strict=True)], (1,) * 4, batch_size=8
    )
    assert arsrc.num_records(mix) == sum(SIZES.values())
    assert arsrc.steps_per_epoch(mix) == 8  # of 57 rows
    assert arsrc.total_steps(mix) is None
    assert arsrc.element_spec(mix) == arsrc.element_spec(mix.sources[0])
    spec = arsrc.batch_spec(mix)
    _, batch = arsrc.next_batch(mix, arsrc.init(mix))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), batch) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), spec
    )


def test_statistics_of_a_mixture_count_each_record_of_each_source_once(source: Any) -> None:
    mix = MixtureConfig(
        [source("large"), source("small", exclude=[0]), source("middle", codec=MAP)], (1, 1, 1), batch_size=4
    )
    found = arsrc.dataset_statistics(mix)
    ids = np.array([*range(40), 2001, 2002, *range(1000, 1013)], np.float64)
    assert found["id"].count == len(ids)
    np.testing.assert_allclose(found["id"].mean, ids.mean())
    np.testing.assert_allclose(found["id"].variance, ids.var())
    assert (found["id"].min, found["id"].max) == (0, 2002)


def test_served_rows_are_counted_and_statistics_are_kept(source: Any) -> None:
    sources = [source("large", precomputed_stats={"of": "a source"}), source("small")]
    mix = MixtureConfig(sources, (1, 1), batch_size=4, batch_stats_fn=lambda data: data["id"].sum())
    state = arsrc.state_at(mix, 100)
    assert arsrc.operation_stats(mix, state) == {"applied_count": 400, "skipped_count": 0}
    assert arsrc.compute_statistics(mix, {"id": np.arange(4)}) == 6
    assert arsrc.get_statistics(mix) is None
    assert arsrc.get_statistics(mix, 3) == 3
    kept = dataclasses.replace(mix, batch_stats_fn=None, precomputed_stats={"mean": np.ones(2)})
    assert arsrc.get_statistics(kept)["mean"].tolist() == [1, 1]
    assert registry.source(kept) is registry.source(mix)


def test_a_stochastic_mixture_takes_the_key_of_its_stream(source: Any) -> None:
    sources = [source("large", shuffle_records=True), source("middle", shuffle_records=True)]
    mix = MixtureConfig(sources, (1, 1), batch_size=4, stochastic=True, stream_name="data")
    assert arsrc.requires_rng_streams(mix) == ["data"]
    arsrc.ensure_rng_streams(mix, ["data"])
    with pytest.raises(arsrc.ArsrcValueError, match="takes its key"):
        arsrc.init(mix)
    key = jax.random.key(7)
    state = arsrc.init(mix, {"data": key})
    assert arsrc.requires_rng_streams(dataclasses.replace(mix, stochastic=False, stream_name=None)) is None
    check(served(mix, 5, state), expected(dataclasses.replace(mix, stochastic=False, stream_name=None), 5, state.key))
    with pytest.raises(arsrc.ArsrcError):
        arsrc.init(mix, {"other": key})


def test_the_key_is_by_default_that_of_the_mixture_s_seed(source: Any) -> None:
    mixes = [
        MixtureConfig([source("large", shuffle_records=True, seed=seed)] * 2, (1, 1), batch_size=4, seed=of_mix)
        for seed, of_mix in ((1, 1), (2, 1), (1, 2))
    ]
    first, other_source, other_mix = (served(mix, 3).record_ids.tolist() for mix in mixes)
    assert first == other_source != other_mix


def test_explain_says_what_each_source_is(source: Any) -> None:
    sources = [source("large", shuffle_records=True), source("middle", codec=MAP), source("large", select=[1, 2])]
    mix = MixtureConfig(sources, stages=[(0, (2, 1, 1)), (5, (0, 1, 1))], batch_size=4, name="blend")
    served(mix, 10)
    text = arsrc.explain(mix)
    assert text.startswith("blend: 3 sources, in 2 stages; ")
    for part in ("source 0, 50.0%, then 0.0%: ", "source 2, 25.0%, then 50.0%", "2 of 40 records selected", "Map"):
        assert part in text
    assert " batches, " in text


def test_metrics_count_what_all_groups_read(source: Any) -> None:
    sources = [source("large"), source("middle", codec=MAP)]
    mix = MixtureConfig(sources, (1, 1), batch_size=8, name="counted")
    before = arsrc.io_metrics(mix)
    assert before["batches_served"] == 0
    served(mix, 5)
    after = arsrc.io_metrics(mix)
    assert after["batches_served"] >= 5
    assert after["records_read"] >= 40
    assert after["bytes_read"] == 16 * after["records_read"]
