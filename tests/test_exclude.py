"""`config.exclude`: records served as padding and never read, while everything else stays where it is in the order."""

import collections
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

import arsrc
from arsrc.codecs import Bytes, Map, Struct

N = 60
PAD_ID = 2**32 - 1
EXCLUDE = (0, 7, (20, 31), 59)
EXCLUDED = frozenset([0, 7, *range(20, 31), 59])
RECORDS = [bytes([i, 255 - i]) for i in range(N)]

Config = arsrc.ArrayRecordSourceConfig
WriteRecords = Callable[..., str]


@pytest.fixture(scope="module")
def path(records_dir: Path, write_records: WriteRecords) -> str:
    return write_records(records_dir / "exclude.array_record", RECORDS)


@pytest.fixture(scope="module")
def paths(records_dir: Path, write_records: WriteRecords) -> list[str]:
    """The same records in three files of 10, 30 and 20, the second one compressed in groups."""
    cuts = ((0, 10, "group_size:1,uncompressed"), (10, 40, "group_size:8,zstd"), (40, N, "group_size:1,uncompressed"))
    return [write_records(records_dir / f"exclude-{a}", RECORDS[a:b], options) for a, b, options in cuts]


@pytest.fixture
def config(path: str) -> Config:
    return Config(path, 8, shuffle_records=True, remainder="pad", num_epochs=2, exclude=EXCLUDE)


def masked(ids: np.ndarray, excluded: Any = EXCLUDED) -> np.ndarray:
    """Ids as they are with padding in place of excluded ones."""
    return np.where(np.isin(ids, list(excluded)), np.uint32(PAD_ID), ids)


def holds(batch: arsrc.Batch, ids: np.ndarray) -> bool:
    """Whether a batch has these ids, their records, and zeros without a record."""
    ids = np.asarray(ids)
    data = np.zeros((*ids.shape, 2), np.uint8)
    for place in np.argwhere(ids != PAD_ID):
        data[tuple(place)] = list(RECORDS[ids[tuple(place)]])
    return (
        np.array_equal(batch.record_ids, ids)
        and np.array_equal(batch.mask, ids != PAD_ID)
        and np.array_equal(batch.data, data)
    )


def without_exclusion(config: Config, start: arsrc.SourceState | None = None) -> list[tuple[Any, np.ndarray]]:
    """(state after it, ids) of each batch, with nothing excluded."""
    whole = dataclasses.replace(config, exclude=())
    return [(state, np.asarray(batch.record_ids)) for state, batch in arsrc.iterate(whole, start)]


def position(state: arsrc.SourceState) -> tuple[int, int]:
    return int(state.index), int(state.epoch)


# What is served.

ORDERS: dict[str, dict[str, Any]] = {
    "as stored": {},
    "records": {"shuffle_records": True},
    "files": {"shuffle_files": True},
    "blocks": {"shuffle_records": True, "shuffle_block_size": 8, "shuffle_window_blocks": 3},
}


@pytest.mark.parametrize("cacheable", [False, True], ids=["", "cached"])
@pytest.mark.parametrize("remainder", ["drop", "pad", "wrap"])
@pytest.mark.parametrize("order", ORDERS)
def test_everything_else_stays_where_it_is(paths: list[str], order: str, remainder: Any, cacheable: bool) -> None:
    config = Config(paths, 8, remainder=remainder, num_epochs=2, exclude=EXCLUDE, cacheable=cacheable, **ORDERS[order])
    served = list(arsrc.iterate(config))
    expected = without_exclusion(config)
    assert len(served) == len(expected) == arsrc.total_steps(config)
    for (state, batch), (other, ids) in zip(served, expected, strict=True):
        assert position(state) == position(other)
        assert holds(batch, masked(ids))
    arsrc.close(config)


@pytest.mark.parametrize("order", ["files", "blocks"])
def test_device_and_host_mask_the_same_rows(paths: list[str], order: str) -> None:
    """`iterate` computes ids on the host, `next_batch` on the device, and reads what the host computed."""
    config = Config(paths, 8, remainder="wrap", num_epochs=3, exclude=EXCLUDE, **ORDERS[order])
    num_steps = arsrc.total_steps(config)
    _, _, batches = arsrc.scan_steps(config, arsrc.init(config), None, lambda _, b: (None, b), num_steps)
    by_host = [np.asarray(batch.record_ids) for _, batch in arsrc.iterate(config)]
    assert np.array_equal(batches.record_ids, by_host)
    assert holds(batches, np.stack(by_host))


def test_what_is_excluded_is_known_from_the_step_number_alone(config: Config) -> None:
    before = arsrc.io_metrics(config)["records_read"]
    expected = without_exclusion(config)
    for step in (0, 3, 7, 12, 15):
        state = arsrc.state_at(config, step)
        assert np.array_equal(arsrc.record_ids(config, state), masked(expected[step][1]))
        assert np.array_equal(arsrc.batch_mask(config, state), masked(expected[step][1]) != PAD_ID)
    assert arsrc.io_metrics(config)["records_read"] == before


def test_where_a_record_stands_does_not_depend_on_what_is_excluded(config: Config) -> None:
    whole = dataclasses.replace(config, exclude=())
    state = arsrc.state_at(config, 9)
    assert np.array_equal(arsrc.locate(config, state, np.arange(N)), arsrc.locate(whole, state, np.arange(N)))
    assert int(arsrc.step_of(config, state)) == 9
    assert position(state) == position(arsrc.state_at(whole, 9))
    assert arsrc.steps_per_epoch(config) == arsrc.steps_per_epoch(whole)
    assert arsrc.num_records(config) == N


def test_the_keys_of_other_records_stay_as_they_are(config: Config) -> None:
    whole = dataclasses.replace(config, exclude=())
    state = arsrc.state_at(config, 2)
    mask = np.asarray(arsrc.batch_mask(config, state))
    assert 0 < mask.sum() < len(mask)
    keys = [arsrc.record_keys(c, state, arsrc.peek(c, state)) for c in (config, whole)]
    assert np.array_equal(*(np.asarray(jax.random.key_data(k))[mask] for k in keys))


def test_a_batch_of_excluded_records_only_is_a_step_like_any_other(path: str) -> None:
    config = Config(path, 5, num_epochs=1, exclude=[(10, 20)])
    state, masks = arsrc.init(config), []
    for _ in range(12):
        assert not arsrc.is_exhausted(config, state)
        state, batch = arsrc.next_batch(config, state)
        masks.append(batch.mask.tolist())
    assert arsrc.is_exhausted(config, state)
    assert [any(mask) for mask in masks] == [True, True, False, False, *[True] * 8]
    assert [any(batch.mask.tolist()) for _, batch in arsrc.iterate(config)] == [any(mask) for mask in masks]


def test_random_access_by_position_masks_too(config: Config) -> None:
    state = arsrc.state_at(config, 8)
    whole = dataclasses.replace(config, exclude=())
    for start in (0, 13, 55, -4):
        ids = np.asarray(arsrc.batch_at(whole, state, start, 12).record_ids)
        assert holds(arsrc.batch_at(config, state, start, 12), masked(ids))
    assert holds(arsrc.peek(config, state), masked(np.asarray(arsrc.peek(whole, state).record_ids)))


def test_a_batch_can_be_taken_again(config: Config) -> None:
    _, batch = arsrc.next_batch(config, arsrc.init(config))
    assert PAD_ID in np.asarray(batch.record_ids)
    assert holds(arsrc.take(config, batch.record_ids), np.asarray(batch.record_ids))


@hypothesis.given(
    st.sets(st.integers(0, N - 1), max_size=N - 1),
    st.integers(1, 70),
    st.sampled_from(["pad", "wrap"]),
    st.sampled_from(list(ORDERS)),
    st.integers(0, 40),
)
def test_any_set_of_records(
    paths: list[str], excluded: set[int], batch_size: int, remainder: Any, order: str, step: int
) -> None:
    config = Config(paths, batch_size, remainder=remainder, exclude=excluded, **ORDERS[order])
    start = arsrc.state_at(config, step)
    whole = arsrc.iterate(dataclasses.replace(config, exclude=()), start)
    batches = arsrc.iterate(config, start)
    for _ in range(3):
        (state, batch), (_, other) = next(batches), next(whole)
        assert holds(batch, masked(np.asarray(other.record_ids), excluded))
        assert int(arsrc.step_of(config, state)) > step
    arsrc.close(config)


# Never read.


def flip_a_byte_of(path: Path, record: bytes) -> None:
    content = bytearray(path.read_bytes())
    assert content.count(record) == 1
    content[content.index(record) + 5] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("bad", [0, 17, 59])
def test_a_corrupted_record_does_no_harm_when_it_is_excluded(
    tmp_path: Path, write_records: WriteRecords, bad: int
) -> None:
    """The first one is what a codec takes its shape from."""
    records = list(map(bytes, np.random.default_rng(0).integers(0, 256, (N, 40), np.uint8)))
    path = Path(write_records(tmp_path / "x.array_record", records, "group_size:1,uncompressed"))
    flip_a_byte_of(path, records[bad])
    checked = arsrc.ReadOptions(checksum="always")
    config = Config(path, 4, num_epochs=2, shuffle_records=True, remainder="pad", read=checked)
    with pytest.raises(
        arsrc.ArsrcReadError, match=rf"^\[arsrc\] .* record_ids='{bad}'\. .* by exclude=bad_records\(config\)\.ids\.$"
    ):
        list(arsrc.iterate(config))
    config = dataclasses.replace(config, exclude=[bad])
    _, _, ids = arsrc.scan_steps(config, arsrc.init(config), None, lambda _, b: (None, b.record_ids), 30)
    counts = collections.Counter(np.asarray(ids).ravel().tolist())
    assert counts.pop(PAD_ID) == 2
    assert counts == dict.fromkeys(set(range(N)) - {bad}, 2)


def test_a_record_that_does_not_fit_the_codec_does_no_harm_when_it_is_excluded(
    tmp_path: Path, write_records: WriteRecords
) -> None:
    records = [*RECORDS[:30], b"too long", *RECORDS[31:]]
    path = write_records(tmp_path / "x.array_record", records)
    config = Config(path, 6, num_epochs=1, shuffle_records=True)
    with pytest.raises(arsrc.ArsrcValueError, match=r"^\[arsrc\] decode: record 30 "):
        list(arsrc.iterate(config))
    config = dataclasses.replace(config, exclude=[30])
    assert sum(int(batch.mask.sum()) for _, batch in arsrc.iterate(config)) == N - 1
    table = arsrc.load_resident(config)
    assert np.asarray(table)[[29, 30, 31]].tolist() == [list(RECORDS[29]), [0, 0], list(RECORDS[31])]
    assert arsrc.dataset_statistics(config).count == N - 1


def count_reads(config: Config, read: Callable[[Config], Any]) -> collections.Counter[int]:
    """How often each record is decoded by `read`."""
    seen: collections.Counter[int] = collections.Counter()

    def decode(record: bytes) -> np.ndarray:
        seen[record[0]] += 1
        return np.frombuffer(record, np.uint8)

    config = dataclasses.replace(config, codec=Map(decode, ("uint8", 2)))
    read(config)
    arsrc.close(config)
    return seen


def whole_run(config: Config) -> Any:
    num_steps = arsrc.total_steps(config)
    return arsrc.scan_steps(config, arsrc.init(config), None, lambda _, b: (None, b.data), num_steps)[2]


@pytest.mark.parametrize(("order", "cacheable"), [*((order, False) for order in ORDERS), ("blocks", True)])
def test_excluded_records_are_never_decoded(paths: list[str], order: str, cacheable: bool) -> None:
    config = Config(paths, 8, remainder="pad", num_epochs=2, exclude=EXCLUDE, cacheable=cacheable, **ORDERS[order])
    seen = count_reads(config, whole_run)
    assert set(seen) == set(range(N)) - EXCLUDED


def test_whole_passes_over_the_data_leave_excluded_records_out(config: Config) -> None:
    for read in (arsrc.load_resident, arsrc.dataset_statistics):
        seen = count_reads(config, read)
        assert seen.pop(1) == 2  # the codec looks at the first of them when the files are opened
        assert seen == dict.fromkeys(set(range(2, N)) - EXCLUDED, 1)


def test_statistics_of_data_whose_beginning_is_excluded_are_those_of_the_rest(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=5_000)
    path = arsrc.write_array_record(tmp_path / "x", {"x": values}, codec=Struct({"x": "float64"}))[0]
    found = arsrc.dataset_statistics(Config(path, 8, codec=Struct({"x": "float64"}), exclude=[(0, 4_500)]))["x"]
    assert (found.count, found.min, found.max) == (500, values[4_500:].min(), values[4_500:].max())
    np.testing.assert_allclose([found.mean, found.variance], [values[4_500:].mean(), values[4_500:].var()])


def test_only_what_is_served_counts_as_read(config: Config) -> None:
    config = dataclasses.replace(config, name="counted")
    assert len(list(arsrc.iterate(config))) == 16
    assert arsrc.io_metrics(config)["records_read"] == 2 * (N - len(EXCLUDED))


# Under transformations, and with other sources of the same records.


@pytest.mark.parametrize("fields", [{}, {"remainder": "pad", "num_epochs": 2}, {"remainder": "wrap"}])
def test_a_resident_table_gives_zeros_for_excluded_records(path: str, fields: dict[str, Any]) -> None:
    config = Config(path, 8, shuffle_records=True, exclude=EXCLUDE, **fields)
    table = arsrc.load_resident(config)
    _, batches = jax.jit(lambda state, table: arsrc.next_batches(config, state, 8, resident=table))(
        arsrc.init(config), table
    )
    expected = arsrc.next_batches(config, arsrc.init(config), 8)[1]
    assert holds(batches, np.asarray(expected.record_ids))
    assert (np.asarray(batches.record_ids) == PAD_ID).any()
    # A table of all records serves a config that leaves some out, too.
    everything = arsrc.load_resident(dataclasses.replace(config, exclude=()))
    _, batches = arsrc.next_batches(config, arsrc.init(config), 8, resident=everything)
    assert holds(batches, np.asarray(expected.record_ids))


def test_ensembles_leave_out_the_same_records(config: Config) -> None:
    keys = jax.random.split(jax.random.key(3), 4)
    states = jax.vmap(lambda key: arsrc.state_at(config, 3, key))(keys)
    _, batches = jax.jit(jax.vmap(lambda state: arsrc.next_batch(config, state)))(states)
    for member, key in enumerate(keys):
        _, ids = without_exclusion(config, arsrc.state_at(config, 3, key))[0]
        one = jax.tree.map(lambda leaf, member=member: leaf[member], batches)
        assert holds(one, masked(ids))


def test_gradients_do_not_see_excluded_records(config: Config) -> None:
    @jax.jit
    def loss_and_grad(weight: Any) -> Any:
        def loss(weight: Any) -> Any:
            _, batch = arsrc.next_batch(config, arsrc.init(config))
            return jnp.mean((weight * batch.data[:, 0].astype(jnp.float32)) ** 2, where=batch.mask)

        return jax.value_and_grad(loss)(weight)

    ids = masked(without_exclusion(config)[0][1])
    mean = np.mean(ids[ids != PAD_ID].astype(float) ** 2)
    np.testing.assert_allclose(loss_and_grad(jnp.float32(1)), [mean, 2 * mean], rtol=1e-6)


def test_a_cache_in_files_is_shared_with_other_exclusions(tmp_path: Path, path: str) -> None:
    """What one run left out, another may need."""
    read = arsrc.ReadOptions(cache_bytes=0, cache_dir=str(tmp_path))
    config = Config(path, 8, remainder="pad", num_epochs=1, cacheable=True, exclude=EXCLUDE, read=read)
    for exclude, num_read in ((EXCLUDE, N - len(EXCLUDED)), (EXCLUDE, 0), ((), len(EXCLUDED)), ([3], 0)):
        one = dataclasses.replace(config, exclude=exclude)
        served = np.concatenate([np.asarray(batch.data)[np.asarray(batch.mask)] for _, batch in arsrc.iterate(one)])
        left_out = EXCLUDED if exclude == EXCLUDE else set(exclude)
        assert served.tolist() == [list(RECORDS[i]) for i in range(N) if i not in left_out]
        assert arsrc.io_metrics(one)["records_read"] == num_read
        arsrc.close(one)


# Going on without some records.


def test_a_run_goes_on_without_records_that_harmed_it(config: Config) -> None:
    """A checkpoint of the run with them is accepted, and everything else comes as it would have."""
    whole = dataclasses.replace(config, exclude=())
    saved = json.dumps(arsrc.to_state_dict(whole, arsrc.state_at(whole, 5)))
    state = arsrc.from_state_dict(config, json.loads(saved))
    rest = [np.asarray(batch.record_ids) for _, batch in arsrc.iterate(config, state)]
    assert np.array_equal(rest, masked(np.stack([ids for _, ids in without_exclusion(config)[5:]])))


def test_what_a_run_left_out_does_not_come_back_unnoticed(config: Config) -> None:
    saved = json.loads(json.dumps(arsrc.to_state_dict(config, arsrc.state_at(config, 5))))
    more = dataclasses.replace(config, exclude=[*config.exclude, 0, (N - 2, N)])
    for same in (config, more):
        assert position(arsrc.from_state_dict(same, saved)) == position(arsrc.state_at(config, 5))
    for less in (dataclasses.replace(config, exclude=()), dataclasses.replace(config, exclude=config.exclude[1:])):
        with pytest.raises(arsrc.ArsrcValueError, match="records that the run had excluded would come back"):
            arsrc.from_state_dict(less, saved)


def test_excluded_records_show_in_the_fingerprint(config: Config) -> None:
    whole = dataclasses.replace(config, exclude=())
    one = dataclasses.replace(config, exclude=[3])
    assert arsrc.fingerprint(one) == f"{arsrc.fingerprint(whole)}, without records 3..3"
    assert len({arsrc.fingerprint(each) for each in (whole, one, config)}) == 3
    assert arsrc.fingerprint(dataclasses.replace(config, exclude=[3, 4])) == (
        arsrc.fingerprint(dataclasses.replace(config, exclude=[(3, 5)]))
    )


# The field and the data.


def test_records_are_excluded_as_they_come_from_batches(path: str) -> None:
    ids = [1, 2, 5]
    for entries in (ids, np.array(ids), jnp.array(ids, jnp.uint32), list(jnp.array(ids)), [range(1, 3), 5]):
        assert Config(path, 1, exclude=entries).exclude == ((1, 3), (5, 6))


def test_excluding_all_records_is_refused(path: str) -> None:
    config = Config(path, 1, exclude=[(0, N)])
    with pytest.raises(arsrc.ArsrcValueError, match=rf"^\[arsrc\] exclude: excludes all {N} records"):
        arsrc.init(config)
    state = arsrc.init(dataclasses.replace(config, exclude=[(0, N - 1)], remainder="pad"))
    assert position(state) == (0, 0)


def test_records_beyond_the_end_may_be_excluded(path: str) -> None:
    """A list of bad records may be longer than the slice of the data that is read today."""
    config = Config(path, 10, num_epochs=1, exclude=[3, (55, 10**9)])
    ids = [i for _, batch in arsrc.iterate(config) for i in batch.record_ids.tolist() if i != PAD_ID]
    assert ids == [i for i in range(55) if i != 3]


def test_exclusion_is_by_record_id_over_all_files_and_slices(paths: list[str]) -> None:
    config = Config([f"{paths[1]}[5:]", paths[0]], 5, Bytes(), num_epochs=1, exclude=[1, (24, 27)])
    served = np.concatenate([np.asarray(batch.data)[np.asarray(batch.mask)] for _, batch in arsrc.iterate(config)])
    stored = [*range(15, 40), *range(10)]
    assert served[:, 0].tolist() == [i for row, i in enumerate(stored) if row not in (1, 24, 25, 26)]
