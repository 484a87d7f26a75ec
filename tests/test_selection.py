"""`select`: only some records are rows, as if the files held these alone."""

import contextlib
import dataclasses
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import arsrc
from arsrc import codecs
from arsrc.views.id_set import IdSet

Config = arsrc.ArrayRecordSourceConfig
WriteRecords = Callable[..., str]

CUTS = ((0, 40, "group_size:1,uncompressed"), (40, 90, "group_size:1,zstd"), (90, 150, "group_size:8,zstd"))
N = 150
RECORDS = [bytes([i, 255 - i]) for i in range(N)]
KEPT = np.array([0, 3, 5, *range(38, 52), 77, *range(100, 140, 3), 149])


@pytest.fixture(scope="module")
def paths(records_dir: Path, write_records: WriteRecords) -> tuple[str, ...]:
    """Three files: uncompressed, zstd, and zstd in groups."""
    return tuple(write_records(records_dir / f"select-{a}", RECORDS[a:b], options) for a, b, options in CUTS)


@pytest.fixture(scope="module")
def kept_paths(records_dir: Path, write_records: WriteRecords) -> tuple[str, ...]:
    """Files that hold the selected records alone."""
    kept = [[RECORDS[i] for i in KEPT if a <= i < b] for a, b, _ in CUTS]
    return tuple(write_records(records_dir / f"kept-{number}", records) for number, records in enumerate(kept))


def equal(a: Any, b: Any) -> bool:
    """Whether two trees of arrays are equal, keys by their words."""
    leaves = [jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, tree) for tree in (a, b)]
    return jax.tree.all(jax.tree.map(np.array_equal, *leaves))


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.asarray(leaf).dtype, jax.dtypes.prng_key)


# The set of ids.


@given(st.integers(1, 5000), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_a_set_gives_its_numbers_by_rank_and_ranks_by_numbers(stop: int, share: float, seed: int):
    mask = np.random.default_rng(seed).random(stop) < share
    mask[seed % stop] = True
    ids = np.flatnonzero(mask)
    for found in (IdSet.of_mask(mask), IdSet.of_ids(ids.astype(np.uint32))):
        assert (found.num_ids, found.stop) == (len(ids), ids[-1] + 1)
        np.testing.assert_array_equal(found.take(np.arange(len(ids))), ids)
        numbers = np.arange(stop + 3000)
        np.testing.assert_array_equal(found.num_below(numbers), np.searchsorted(ids, numbers))
        assert found == pickle.loads(pickle.dumps(found))
        assert found == IdSet.of_mask(np.append(mask, False))


@pytest.mark.parametrize("share", [0.001, 0.01, 0.03, 0.04, 0.5, 1.0])
def test_a_set_takes_a_bit_a_record_or_four_bytes_a_number_whichever_is_less(share: float):
    mask = np.random.default_rng(0).random(1_000_000) < share
    found = IdSet.of_mask(mask)
    assert found.num_bytes <= 1.02 * min(len(mask) / 8, 4 * mask.sum())


def test_large_ids_cost_no_bits_for_all_below():
    found = IdSet.of_ids(np.array([5, 2**32 - 2], np.uint32))
    assert found.num_bytes == 8
    np.testing.assert_array_equal(found.take(np.array([1, 0])), [2**32 - 2, 5])


# What selects.


@pytest.mark.parametrize(
    "select",
    [
        KEPT,
        KEPT[::-1],
        jnp.asarray(KEPT),
        KEPT.astype(np.uint16),
        KEPT.tolist(),
        [0, 3, 5, (38, 52), 77, *range(100, 140, 3), np.int64(149)],
        [range(38, 52), 0, 3, 5, 77, *range(100, 140, 3), 149],
        np.isin(np.arange(N), KEPT),
        jnp.asarray(np.isin(np.arange(N), KEPT)),
    ],
)
def test_ids_ranges_and_masks_that_mean_the_same_make_equal_selections(select: Any):
    config = Config("/a", 4, select=select)
    assert config.select.record_ids.tolist() == KEPT.tolist()
    assert len(config.select) == len(KEPT)
    assert config.select.ids == Config("/a", 4, select=KEPT).select.ids
    assert dataclasses.replace(config, seed=1).select == config.select
    assert hash(config) == hash(dataclasses.replace(config))
    assert pickle.loads(pickle.dumps(config)) == config
    assert repr(config) == f"ArrayRecordSourceConfig(paths='/a', batch_size=4, select=<{len(KEPT)} records>)"


@pytest.mark.parametrize(
    ("select", "what"),
    [
        ([], "selects no record"),
        (np.zeros(5, bool), "selects no record"),
        (np.zeros(0, np.int64), "selects no record"),
        ([(5, 5)], "selects no record"),
        ([3, 3], "selects a record twice.*MixtureConfig"),
        ([(0, 5), 4], "selects a record twice"),
        (np.array([1, 1]), "selects a record twice; got select=1"),
        ([-1], "select"),
        (np.array([-1]), "must be in"),
        (np.array([2**32 - 1]), "must be in"),
        ([(4, 2)], "a range ends before it starts"),
        ([(1, 2, 3)], r"a range is \(start, stop\)"),
        ([range(0, 9, 2)], "a range has steps of 1"),
        ([1.5], "select"),
        (7, "must be record ids"),
        (np.array(7), "must be record ids"),
        ([([1], [2, 3])], "select"),
        ([[1, 2], [3]], r"a range is \(start, stop\)"),
        (b"ab", "must be record ids"),
        ([True, False], "select"),
    ],
)
def test_what_selects_nothing_or_something_twice_is_refused(select: Any, what: str):
    with pytest.raises(arsrc.ArsrcError, match=rf"^\[arsrc\] select.*{what}"):
        Config("/a", 4, select=select)


def test_a_selection_is_made_of_what_select_takes():
    assert arsrc.Selection(KEPT.tolist()) == Config("/a", 4, select=KEPT).select
    mask = arsrc.Selection(np.ones(5, bool))
    assert (len(mask), mask.num_records, mask.data) == (5, 5, None)
    for wrong in (None, 3, [1, 1]):
        with pytest.raises(arsrc.ArsrcError, match=r"^\[arsrc\] select"):
            arsrc.Selection(wrong)
    with pytest.raises(arsrc.ArsrcError, match=r"^\[arsrc\] Selection.num_records"):
        arsrc.Selection([1], num_records="ten")
    with pytest.raises(arsrc.ArsrcError, match=r"^\[arsrc\] Selection.data"):
        arsrc.Selection([1], data=3)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 60)), min_size=1, max_size=6))
def test_ranges_are_what_their_ids_are(gaps: list[tuple[int, int]]):
    ranges, start = [], 0
    for gap, length in gaps:
        start += gap
        ranges.append((start, start + length))
        start += length
    ids = np.concatenate([np.arange(*pair) for pair in ranges])
    assert IdSet.of_ranges(ranges) == IdSet.of_ids(ids.astype(np.uint32))


# Rows are as those of a data set that holds these records alone.

ORDERS = (
    {},
    {"shuffle_records": True},
    {"shuffle_records": True, "shuffle_block_size": 4, "shuffle_window_blocks": 3},
    {"shuffle_files": True},
)


@pytest.mark.parametrize("remainder", ["drop", "pad", "wrap"])
@pytest.mark.parametrize("order", ORDERS)
def test_selected_rows_are_those_of_files_with_these_records_alone(
    paths: tuple[str, ...], kept_paths: tuple[str, ...], order: Any, remainder: Any
):
    options = {"remainder": remainder, "exclude": (1, (9, 12)), "num_epochs": 3, **order}
    some, all_of_them = Config(paths, 8, select=KEPT, **options), Config(kept_paths, 8, **options)
    assert arsrc.num_records(some) == len(KEPT)
    assert arsrc.total_steps(some) == arsrc.total_steps(all_of_them)

    wanted = list(arsrc.iterate(all_of_them))
    assert len(wanted) == arsrc.total_steps(some)
    assert equal(list(arsrc.iterate(some)), wanted)
    state, batch = arsrc.next_batch(some, arsrc.init(some))
    assert equal((state, batch), wanted[0])
    ids = np.array([3, 2**32 - 1, 30, 0], np.uint32)
    assert equal(arsrc.take(some, ids), arsrc.take(all_of_them, ids))


def test_other_ways_to_loop_serve_the_same_rows(paths: tuple[str, ...], kept_paths: tuple[str, ...]):
    config = Config(paths, 8, shuffle_records=True, select=KEPT, num_epochs=2)
    other = Config(kept_paths, 8, shuffle_records=True, num_epochs=2)
    wanted = [batch for _, batch in arsrc.iterate(other)]
    assert equal([batch for _, batch in arsrc.iterate(config)], wanted)
    for changed in ({"cacheable": True}, {"read": arsrc.ReadOptions(checksum="first")}):
        assert equal([batch for _, batch in arsrc.iterate(dataclasses.replace(config, **changed))], wanted)
    _, _, batches = arsrc.scan_steps(
        config, arsrc.init(config), None, lambda carry, batch: (carry, batch), len(wanted), batches_per_fetch=3
    )
    assert equal([jax.tree.map(lambda leaf, at=at: leaf[at], batches) for at in range(len(wanted))], wanted)
    table = arsrc.load_resident(config)
    assert equal(table, arsrc.load_resident(other))
    _, batch = arsrc.next_batch(config, arsrc.init(config), resident=table)
    assert equal(batch, wanted[0])


def test_a_cache_in_files_is_one_selections_own(paths: tuple[str, ...], tmp_path: Path):
    read = arsrc.ReadOptions(cache_bytes=0, cache_dir=str(tmp_path))
    for select in (KEPT, KEPT[1:], None):
        config = Config(paths, 1, select=select, cacheable=True, read=read)
        for _ in range(2):
            found = np.asarray(arsrc.take(config, np.arange(5)).data)[:, 0]
            assert found.tolist() == (np.arange(N) if select is None else select)[:5].tolist()


def test_configs_with_other_selections_share_their_files(paths: tuple[str, ...]):
    from arsrc._host import registry

    configs = [Config(paths, 4, select=select) for select in (KEPT, KEPT[1:], None)]
    files = {registry.source(config).files for config in configs}
    assert len(files) == 1


# Errors name rows by the numbers that the user knows, and records by file and position.


def test_a_bad_record_is_named_by_its_row_and_its_place_in_the_file(tmp_path: Path, write_records: WriteRecords):
    path = write_records(tmp_path / "bad", [b"ab", b"cd", b"x", b"ef"])
    config = Config(path, 1, codecs.Bytes(2), select=[0, 2, 3])
    with pytest.raises(arsrc.ArsrcValueError, match=r"record 1 \(record 2 of ") as caught:
        list(arsrc.iterate(config, arsrc.state_at(config, 1)))
    assert (caught.value.record_id, caught.value.position) == (1, 2)
    bad = arsrc.bad_records(config)
    assert (bad.ids, bad.positions) == ((1,), (2,))
    good = dataclasses.replace(config, exclude=bad.ids, remainder="pad", num_epochs=1)
    assert [bool(batch.mask[0]) for _, batch in arsrc.iterate(good)] == [True, False, True]
    masked = dataclasses.replace(config, on_bad_record="mask")
    assert arsrc.take(masked, [0, 1, 2]).mask.tolist() == [True, False, True]


@pytest.mark.parametrize("options", ["group_size:1,uncompressed", "group_size:1,zstd", "group_size:2,zstd"])
def test_a_record_that_cannot_be_read_is_named_by_its_row(options: str, tmp_path: Path, write_records: WriteRecords):
    rng = np.random.default_rng(0)
    records = [rng.bytes(500) for _ in range(8)]  # which zstd stores as they are
    path = write_records(tmp_path / "flipped", records, options)
    content = bytearray(Path(path).read_bytes())
    content[content.index(records[4][100:200])] ^= 255
    Path(path).write_bytes(content)
    config = Config(path, 1, codecs.Bytes(500), select=[1, *range(4, 8)], read=arsrc.ReadOptions(checksum="always"))
    with pytest.raises(arsrc.ArsrcReadError) as caught:
        next(arsrc.iterate(config, arsrc.state_at(config, 1)))
    assert (caught.value.record_id, caught.value.position) == (1, 4)
    assert arsrc.bad_records(config).ids[0] == 1


# A selection belongs to its data.


def test_what_selects_more_than_there_is_is_an_error_at_init(paths: tuple[str, ...]):
    config = Config(paths, 4, select=[0, N])
    with pytest.raises(
        arsrc.ArsrcValueError, match=rf"select: no such record: the data set has {N}; got record_id={N}"
    ):
        arsrc.init(config)
    config = Config(paths, 4, select=np.ones(N - 1, bool))
    with pytest.raises(arsrc.ArsrcValueError, match=rf"select: was made for {N - 1} records, and the data set has {N}"):
        arsrc.init(config)


def test_records_are_selected_by_a_function_of_their_elements(paths: tuple[str, ...]):
    config = Config(paths, 4, exclude=[4])
    asked: list[int] = []

    def is_even(batch: arsrc.Batch) -> Any:
        assert isinstance(batch.data, np.ndarray)
        assert batch.mask.all()
        asked.extend(batch.record_ids.tolist())
        return batch.data[:, 0] % 2 == 0

    selection = arsrc.select_records(config, is_even)
    assert asked == [i for i in range(N) if i != 4]
    assert selection.record_ids.tolist() == [i for i in range(0, N, 2) if i != 4]
    assert selection.num_records == N
    few = arsrc.select_records(
        dataclasses.replace(config, select=selection, exclude=()), jax.jit(lambda batch: batch.data[:, 0] < 20)
    )
    assert few.record_ids.tolist() == [i for i in range(0, 20, 2) if i != 4]


@pytest.mark.parametrize(
    ("predicate", "what"),
    [
        (lambda batch: np.ones(3, bool), "one boolean for each row"),
        (lambda batch: batch.data[:, 0], "must return booleans"),
        (lambda batch: batch.data[:, 0] > 255, "holds for no record"),
        (None, "predicate is no function"),
    ],
)
def test_what_is_no_verdict_on_each_row_is_refused(paths: tuple[str, ...], predicate: Any, what: str):
    with pytest.raises(arsrc.ArsrcError, match=rf"\[arsrc\] select_records: .*{what}"):
        arsrc.select_records(Config(paths, 4), predicate)


def test_bad_records_are_not_selected_where_they_are_masked(tmp_path: Path, write_records: WriteRecords):
    path = write_records(tmp_path / "bad", [b"ab", b"x", b"cd"])
    config = Config(path, 1, codecs.Bytes(2), on_bad_record="mask")
    selection = arsrc.select_records(config, lambda batch: np.ones(len(batch.mask), bool))
    assert selection.record_ids.tolist() == [0, 2]
    with pytest.raises(arsrc.ArsrcValueError, match="record 1 of "):
        arsrc.select_records(dataclasses.replace(config, on_bad_record="raise"), lambda batch: batch.mask)


def test_a_saved_selection_is_read_again_and_only_for_its_data(
    paths: tuple[str, ...], kept_paths: tuple[str, ...], tmp_path: Path, write_records: WriteRecords
):
    config = Config(paths, 4)
    selection = arsrc.select_records(config, lambda batch: batch.data[:, 0] > 10)
    selection.save(tmp_path / "some.selection")
    for saved in (tmp_path / "some.selection", str(tmp_path / "some.selection")):
        loaded = dataclasses.replace(config, select=saved)
        assert loaded.select == selection
        assert arsrc.num_records(loaded) == N - 11
    other = write_records(tmp_path / "other", [bytes([1, 2])] * N)
    with pytest.raises(arsrc.ArsrcValueError, match="select: was made for other data"):
        arsrc.init(dataclasses.replace(loaded, paths=other))
    with pytest.raises(arsrc.ArsrcValueError, match="select: was made for 150 records"):
        arsrc.init(dataclasses.replace(loaded, paths=kept_paths))


def test_a_file_that_is_no_saved_selection_is_refused(tmp_path: Path):
    path = tmp_path / "some.selection"
    Config("/a", 1, select=[5, 6, 7]).select.save(path)
    content = path.read_bytes()
    for wrong in (b"", b"{}", b"[]\n", content[:-1], content[:-1] + b"x", b"x" + content, content + b"x"):
        path.write_bytes(wrong)
        with pytest.raises(arsrc.ArsrcValueError, match=r"\[arsrc\] select: is no saved selection"):
            Config("/a", 1, select=path)
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with contextlib.suppress(arsrc.ArsrcValueError):
            assert Config("/a", 1, select=path).select.ids.take(np.arange(3)).tolist() == [5, 6, 7]
    with pytest.raises(arsrc.ArsrcReadError, match="cannot be read"):
        Config("/a", 1, select=tmp_path / "none")
    with pytest.raises(arsrc.ArsrcValueError, match="is no saved selection"):
        Config("/a", 1, select=tmp_path)
    with pytest.raises(arsrc.ArsrcWriteError, match="cannot be written"):
        Config("/a", 1, select=[1]).select.save(tmp_path / "none" / "here")


def test_a_checkpoint_knows_what_was_selected(paths: tuple[str, ...]):
    config = Config(paths, 4, shuffle_records=True, select=KEPT)
    state = arsrc.advance(config, arsrc.init(config), 3)
    saved = json.loads(json.dumps(arsrc.to_state_dict(config, state)))
    assert equal(arsrc.from_state_dict(dataclasses.replace(config, batch_size=2), saved), state)
    for other in (KEPT[1:], None, np.setdiff1d(np.arange(N), KEPT)[: len(KEPT)]):
        with pytest.raises(arsrc.ArsrcValueError, match="belongs to other data or another order"):
            arsrc.from_state_dict(dataclasses.replace(config, select=other), saved)
    assert arsrc.fingerprint(config) != arsrc.fingerprint(dataclasses.replace(config, select=None))
