"""The reference source: its members have counterparts, and its flaws are absent."""

import ast
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import arsrc
from arsrc import ArrayRecordSourceConfig
from arsrc.codecs import Map

FILE_SIZES = (7, 5, 8, 6, 4)
NUM_RECORDS = sum(FILE_SIZES)

MakeConfig = Callable[..., ArrayRecordSourceConfig]


@pytest.fixture(scope="module")
def make_config(tmp_path_factory: pytest.TempPathFactory, write_records: Any) -> MakeConfig:
    """Configs over five files; the first byte of a record is its id."""
    folder = tmp_path_factory.mktemp("data")
    ids = iter(range(NUM_RECORDS))
    for file, size in enumerate(FILE_SIZES):
        write_records(folder / f"{file}", [bytes([record_id]) for record_id in itertools.islice(ids, size)])

    def make(**fields: Any) -> ArrayRecordSourceConfig:
        return ArrayRecordSourceConfig(**({"paths": str(folder / "*"), "batch_size": 4} | fields))

    return make


def epoch_order(config: ArrayRecordSourceConfig, epoch: int = 0, key: Any = None) -> list[int]:
    """What the files give for one epoch, read through `batch_at`."""
    state = arsrc.init(config, key)
    state = arsrc.SourceState(index=state.index, epoch=np.uint32(epoch), key=state.key)
    return np.asarray(arsrc.batch_at(config, state, 0, NUM_RECORDS).data)[:, 0].tolist()


def served(config: ArrayRecordSourceConfig, state: arsrc.SourceState, num_batches: int) -> list[list[int]]:
    batches = itertools.islice(arsrc.iterate(config, state), num_batches)
    return [np.asarray(batch.data)[:, 0].tolist() for _, batch in batches]


# Flaws.


@pytest.mark.parametrize("remainder", ["drop", "pad", "wrap"])
def test_restoring_and_then_iterating_goes_on_in_the_middle_of_the_epoch(make_config: MakeConfig, remainder: str):
    config = make_config(shuffle_records=True, remainder=remainder)
    first = arsrc.init(config)
    uninterrupted = served(config, first, 20)
    for step in (1, 3, 7, 8, 15):
        saved = arsrc.to_state_dict(config, arsrc.state_at(config, step))
        arsrc.close(config)
        restored = arsrc.from_state_dict(config, saved)
        assert served(config, restored, 20 - step) == uninterrupted[step:]


def test_iterating_twice_from_one_state_gives_the_same_batches(make_config: MakeConfig):
    config = make_config(shuffle_records=True)
    state = arsrc.state_at(config, 3)
    assert served(config, state, 5) == served(config, state, 5)


def test_shuffle_files_moves_whole_files_and_leaves_records_in_order_inside_them(make_config: MakeConfig):
    config = make_config(shuffle_files=True)
    ends = np.cumsum(FILE_SIZES)
    files = [list(range(end - size, end)) for end, size in zip(ends, FILE_SIZES, strict=True)]
    orders = set()
    for epoch in range(8):
        order = epoch_order(config, epoch)
        moved = sorted(files, key=lambda file: order.index(file[0]))
        assert order == [record_id for file in moved for record_id in file]
        orders.add(tuple(order))
    assert len(orders) > 4, "the files are hardly shuffled"


def test_epochs_of_one_seed_are_no_epochs_of_another(make_config: MakeConfig):
    orders = {
        (seed, epoch): tuple(epoch_order(make_config(shuffle_records=True, seed=seed), epoch))
        for seed in (41, 42, 43, 44)
        for epoch in range(4)
    }
    assert len(set(orders.values())) == len(orders)


@pytest.mark.parametrize("num_records", [10, 100_000])
def test_a_state_has_a_few_bytes_however_many_records_there_are(tmp_path: Path, num_records: int):
    path = tmp_path / "a"
    arsrc.write_array_record(path, np.zeros((num_records, 1), np.uint8))
    config = ArrayRecordSourceConfig(path, 4, shuffle_records=True)
    state = arsrc.init(config)
    assert sum(leaf.nbytes for leaf in jax.tree.leaves((state.index, state.epoch))) == 8
    assert jax.random.key_data(state.key).nbytes == 8
    assert len(str(arsrc.to_state_dict(config, state))) < 400
    arsrc.close(config)


def test_the_key_that_init_takes_decides_the_order(make_config: MakeConfig):
    config = make_config(shuffle_records=True)
    orders = [epoch_order(config, key=jax.random.key(seed)) for seed in range(4)]
    assert len(set(map(tuple, orders))) == 4
    assert epoch_order(config, key=jax.random.key(2)) == orders[2]
    assert epoch_order(config) == epoch_order(config, key=jax.random.key(42)), "the default is the seed"


def test_the_key_of_a_stochastic_source_decides_the_order_too(make_config: MakeConfig):
    config = make_config(shuffle_records=True, stochastic=True, stream_name="data")
    orders = {tuple(epoch_order(config, key=jax.random.key(seed))) for seed in range(4)}
    assert len(orders) == 4


def test_a_batch_that_wraps_goes_on_with_the_order_of_the_next_epoch(make_config: MakeConfig):
    config = make_config(shuffle_records=True, remainder="wrap")
    stream = list(itertools.chain.from_iterable(served(config, arsrc.init(config), 3 * NUM_RECORDS // 4 + 1)))
    epochs = [stream[i * NUM_RECORDS : (i + 1) * NUM_RECORDS] for i in range(3)]
    assert epochs == [epoch_order(config, epoch) for epoch in range(3)]
    assert len(set(map(tuple, epochs))) == 3


def test_no_test_replaces_the_reader_by_a_mock():
    for file in sorted(Path(__file__).parent.glob("*.py")):
        tree = ast.parse(file.read_text())
        imported = {
            name
            for node in ast.walk(tree)
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for name in [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
        }
        assert not any("mock" in name for name in imported), file.name


# Members.


def test_len_and_total_records_are_num_records(make_config: MakeConfig):
    assert arsrc.num_records(make_config()) == NUM_RECORDS


def test_an_element_at_a_position_of_the_current_order_is_batch_at_of_size_one(make_config: MakeConfig):
    config = make_config(shuffle_records=True)
    state, order = arsrc.init(config), epoch_order(config)
    for position in (0, 11, NUM_RECORDS - 1, -1, -NUM_RECORDS):
        batch = arsrc.batch_at(config, state, position, 1)
        assert np.asarray(batch.data)[:, 0].tolist() == [order[position]]


@pytest.mark.parametrize("position", [NUM_RECORDS, -NUM_RECORDS - 1, 10**9])
def test_a_position_out_of_range_is_an_index_error(make_config: MakeConfig, position: int):
    config = make_config()
    with pytest.raises(IndexError, match=rf"\[arsrc\] batch_at: .*got start={position}"):
        arsrc.batch_at(config, arsrc.init(config), position, 1)


def test_get_batch_at_is_batch_at_which_wraps_shuffles_and_does_not_advance(make_config: MakeConfig):
    config = make_config(shuffle_records=True)
    state, order = arsrc.state_at(config, 2), epoch_order(config)
    batch = arsrc.batch_at(config, state, 27, 6)
    assert np.asarray(batch.data)[:, 0].tolist() == order[27:] + order[:3]
    assert batch.mask.all()
    traced = jax.jit(lambda start: arsrc.batch_at(config, state, start, 6))(27)
    assert np.array_equal(traced.data, batch.data)


def test_decode_is_the_function_of_a_map_codec(make_config: MakeConfig):
    decode = lambda record: {"id": np.frombuffer(record, np.uint8)[0]}  # noqa: E731
    config = make_config(codec=Map(decode, {"id": "uint8"}))
    _, batch = next(arsrc.iterate(config))
    assert np.asarray(batch.data["id"]).tolist() == [0, 1, 2, 3]


def test_get_batch_is_next_batch_with_a_mask_for_what_an_epoch_has_left(make_config: MakeConfig):
    config = make_config(batch_size=20, remainder="pad", num_epochs=2)
    state, num_valid = arsrc.init(config), []
    for _ in range(6):
        state, batch = arsrc.next_batch(config, state)
        num_valid.append(int(batch.mask.sum()))
    assert num_valid == [20, 10, 20, 10, 0, 0]


@pytest.mark.parametrize("drop_last", [True, False])
def test_drop_last_is_remainder(make_config: MakeConfig, drop_last: bool):
    config = make_config(batch_size=20, remainder="drop" if drop_last else "wrap")
    assert [batch[0] for batch in served(config, arsrc.init(config), 3)] == ([0, 0, 0] if drop_last else [0, 20, 10])


def test_record_indices_at_are_the_ids_that_are_served_there(make_config: MakeConfig):
    config = make_config(shuffle_records=True)
    order = epoch_order(config)
    assert np.asarray(arsrc.record_ids(config, arsrc.state_at(config, 3))).tolist() == order[12:16]
    assert np.asarray(arsrc.batch_at(config, arsrc.init(config), 13, 4).record_ids).tolist() == order[13:17]


def test_iteration_ends_after_num_epochs_and_reshuffles_each_of_them(make_config: MakeConfig):
    config = make_config(shuffle_records=True, remainder="pad", num_epochs=2, batch_size=10)
    batches = served(config, arsrc.init(config), 100)
    assert len(batches) == 6
    epochs = [list(itertools.chain.from_iterable(batches[i : i + 3])) for i in (0, 3)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(NUM_RECORDS))
    assert epochs[0] != epochs[1]


def test_iteration_without_num_epochs_does_not_end(make_config: MakeConfig):
    config = make_config(batch_size=30)
    assert len(served(config, arsrc.init(config), 50)) == 50


def test_process_is_record_ids_and_take(make_config: MakeConfig):
    config = make_config(shuffle_records=True)
    state = arsrc.state_at(config, 2)
    batch = arsrc.take(config, arsrc.record_ids(config, state))
    expected = arsrc.peek(config, state)
    assert jax.tree.all(jax.tree.map(np.array_equal, batch, expected))


def test_rng_streams_are_required_of_stochastic_sources_only(make_config: MakeConfig):
    stochastic = make_config(stochastic=True, stream_name="data")
    assert arsrc.requires_rng_streams(stochastic) == ["data"]
    assert arsrc.requires_rng_streams(make_config()) is None
    arsrc.ensure_rng_streams(stochastic, ["params", "data"])
    arsrc.ensure_rng_streams(make_config(), [])
    with pytest.raises(ValueError, match=r"^\[arsrc\] ensure_rng_streams: no key stream 'data'"):
        arsrc.ensure_rng_streams(stochastic, ["params"])


def test_init_of_a_stochastic_source_needs_a_key_or_a_mapping_of_them(make_config: MakeConfig):
    config = make_config(stochastic=True, stream_name="data")
    with pytest.raises(ValueError, match=r"^\[arsrc\] init: "):
        arsrc.init(config)
    with pytest.raises(ValueError, match="no key stream 'data'"):
        arsrc.init(config, {"params": jax.random.key(0)})
    key = jax.random.key(5)
    from_key, from_mapping = (
        arsrc.init(config, key),
        arsrc.init(config, {"params": jax.random.key(0), "data": key}),
    )
    assert np.array_equal(jax.random.key_data(from_key.key), jax.random.key_data(from_mapping.key))
    other = arsrc.init(make_config(stochastic=True, stream_name="evaluation"), key)
    assert not np.array_equal(jax.random.key_data(from_key.key), jax.random.key_data(other.key))


def test_a_clone_is_the_state_used_twice(make_config: MakeConfig):
    config = make_config(shuffle_records=True)
    state = arsrc.state_at(config, 4)
    arsrc.next_batch(config, state)
    assert (int(state.index), int(state.epoch)) == (16, 0)
    assert served(config, state, 3) == served(config, arsrc.state_at(config, 4), 3)
