"""Loops over batches: `scan_epoch`, `scan_steps` and `iterate`."""

import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import arsrc
from arsrc.codecs import Map, Ragged, Struct
from arsrc.scan import _fetch_size

PAD_ID = 2**32 - 1
N = 23

WriteRecords = Callable[..., str]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """23 records of one byte: their ids."""
    path = tmp_path_factory.mktemp("loop") / "x.array_record"
    return arsrc.write_array_record(path, np.arange(N, dtype=np.uint8)[:, None])[0]


@pytest.fixture(scope="module")
def config(path: str) -> arsrc.ArrayRecordSourceConfig:
    """Three epochs of 23 records in batches of 4, of which the sixth has one row of padding."""
    return arsrc.ArrayRecordSourceConfig(path, 4, remainder="pad", num_epochs=3, shuffle_records=True)


def ids_of(batches: Any) -> list[list[int]]:
    return [np.asarray(batch.record_ids).tolist() for _, batch in batches]


def collect(carry: Any, batch: arsrc.Batch) -> tuple[Any, Any]:
    """Count the records, sum their bytes, and put out which they were."""
    count, total = carry
    values = jnp.where(batch.mask, batch.data[:, 0].astype(jnp.uint32), jnp.uint32(0))
    total = total + values.sum(dtype=jnp.uint32)
    return (count + batch.mask.sum(dtype=jnp.uint32), total), {"ids": batch.record_ids, "count": count}


START = (jnp.uint32(0), jnp.uint32(0))

# Scans.


@pytest.mark.parametrize(("num_steps", "batches_per_fetch"), [(6, 1), (6, 2), (7, 3), (2, 3), (19, 4), (1, 1)])
def test_scan_steps_gives_the_batches_of_iterate_in_order(
    config: arsrc.ArrayRecordSourceConfig, num_steps: int, batches_per_fetch: int
) -> None:
    """However many batches a callback brings: more than there are steps, or no divisor of them."""
    expected = ids_of(itertools.islice(arsrc.iterate(config), num_steps))
    expected += [[PAD_ID] * 4] * (num_steps - len(expected))
    state, (count, total), outputs = arsrc.scan_steps(
        config, arsrc.init(config), START, collect, num_steps, batches_per_fetch=batches_per_fetch
    )
    assert np.asarray(outputs["ids"]).tolist() == expected
    served = [i for ids in expected for i in ids if i != PAD_ID]
    assert (int(count), int(total)) == (len(served), sum(served))
    before = [sum(i != PAD_ID for ids in expected[:step] for i in ids) for step in range(num_steps)]
    assert np.asarray(outputs["count"]).tolist() == before
    after = arsrc.state_at(config, num_steps)
    assert (int(state.index), int(state.epoch)) == (int(after.index), int(after.epoch))


@pytest.mark.parametrize("batches_per_fetch", [1, 3])
def test_no_steps_change_nothing_and_put_out_nothing(
    config: arsrc.ArrayRecordSourceConfig, batches_per_fetch: int
) -> None:
    start = arsrc.state_at(config, 2)
    state, carry, outputs = arsrc.scan_steps(config, start, START, collect, 0, batches_per_fetch=batches_per_fetch)
    assert (int(state.index), int(state.epoch)) == (int(start.index), int(start.epoch))
    assert [int(x) for x in carry] == [0, 0]
    assert outputs["ids"].shape == (0, 4)
    assert outputs["ids"].dtype == np.uint32
    assert outputs["count"].shape == (0,)


@pytest.mark.parametrize("batches_per_fetch", [1, 4])
def test_scan_epoch_serves_one_epoch(config: arsrc.ArrayRecordSourceConfig, batches_per_fetch: int) -> None:
    state = arsrc.init(config)
    for epoch in range(2):
        state, (count, total), outputs = arsrc.scan_epoch(
            config, state, START, collect, batches_per_fetch=batches_per_fetch
        )
        assert (int(state.index), int(state.epoch)) == (0, epoch + 1)
        assert (int(count), int(total)) == (N, N * (N - 1) // 2)
        ids = np.asarray(outputs["ids"]).ravel()
        assert sorted(ids[ids != PAD_ID].tolist()) == list(range(N))


def test_scans_run_in_jit_and_from_any_state(config: arsrc.ArrayRecordSourceConfig) -> None:
    @jax.jit
    def run(state: arsrc.SourceState) -> Any:
        return arsrc.scan_steps(config, state, START, collect, 5, batches_per_fetch=2)

    for step in (0, 3, 16):
        start = arsrc.state_at(config, step)
        expected = ids_of(itertools.islice(arsrc.iterate(config, start), 5))
        state, _, outputs = run(start)
        assert np.asarray(outputs["ids"]).tolist()[: len(expected)] == expected
        assert int(arsrc.step_of(config, state)) == min(step + 5, 18)


def test_a_body_may_put_out_nothing_or_keys(config: arsrc.ArrayRecordSourceConfig) -> None:
    state = arsrc.init(config)
    _, carry, outputs = arsrc.scan_steps(config, state, jnp.uint32(0), lambda c, _: (c + 1, None), 3)
    assert (int(carry), outputs) == (3, None)
    _, _, keys = arsrc.scan_steps(
        config, state, None, lambda c, b: (c, jax.random.key(b.record_ids[0])), 5, batches_per_fetch=2
    )
    firsts = [ids[0] for ids in ids_of(itertools.islice(arsrc.iterate(config), 5))]
    assert np.asarray(jax.random.key_data(keys))[:, 1].tolist() == firsts


@pytest.mark.parametrize(
    ("num_steps", "most", "expected"),
    [
        (234, 1, 1),
        (234, 4, 3),
        (234, 16, 13),
        (234, 64, 39),
        (1024, 64, 64),
        (7, 4, 4),
        (2, 3, 2),
        (5, 16, 16),
        (0, 8, 8),
    ],
)
def test_fetches_have_one_size_where_the_number_of_steps_allows(num_steps: int, most: int, expected: int) -> None:
    assert _fetch_size(num_steps, most) == expected


@pytest.mark.parametrize(
    ("batches_per_fetch", "unroll", "is_loop"),
    [(1, False, True), (1, 2, True), (2, 2, True), (1, 5, False), (3, True, False)],
)
def test_unrolling_changes_no_result_and_in_full_leaves_no_loop(
    path: str, batches_per_fetch: int, unroll: int | bool, is_loop: bool
) -> None:
    config = arsrc.ArrayRecordSourceConfig(path, 4, num_epochs=1)
    start = arsrc.init(config)
    run = functools.partial(
        arsrc.scan_steps, config, body=collect, num_steps=5, batches_per_fetch=batches_per_fetch, unroll=unroll
    )
    program = jax.jit(run).lower(start, carry=START).compile()
    assert (" while(" in program.as_text()) is is_loop
    state, (count, _), outputs = program(start, carry=START)
    assert outputs["ids"].ravel().tolist() == list(range(20))
    assert outputs["count"].tolist() == [0, 4, 8, 12, 16]
    assert int(count) == 20
    assert arsrc.is_exhausted(config, state)


def test_every_loop_has_the_same_keys_of_its_rows(path: str) -> None:
    """Over the end of an epoch, from the state before the batch or after it."""
    config = arsrc.ArrayRecordSourceConfig(path, 5, remainder="wrap", shuffle_records=True)
    start, num_steps = arsrc.init(config, jax.random.key(7)), 6

    def bits(state: arsrc.SourceState, batch: arsrc.Batch) -> Any:
        return jax.random.key_data(arsrc.record_keys(config, state, batch))

    served = list(itertools.islice(arsrc.iterate(config, start), num_steps))
    expected = np.stack([bits(after, batch) for after, batch in served])
    assert np.array_equal(expected, np.stack([bits(start, batch) for _, batch in served]))
    rows = [(e, i) for _, b in served for e, i in zip(b.epochs.tolist(), b.record_ids.tolist(), strict=True)]
    assert rows[22][0] == 0
    assert rows[23][0] == 1
    for row in (0, 22, 23):
        by_hand = jax.random.fold_in(jax.random.fold_in(start.key, rows[row][0]), rows[row][1])
        assert np.array_equal(jax.random.key_data(by_hand), expected.reshape(-1, 2)[row])

    _, _, scanned = arsrc.scan_steps(
        config, start, None, lambda _, b: (None, bits(start, b)), num_steps, batches_per_fetch=2
    )
    assert np.array_equal(scanned, expected)
    _, batches = arsrc.next_batches(config, start, num_steps)
    assert np.array_equal(bits(start, batches), expected)
    members = jax.vmap(lambda key: arsrc.init(config, key))(jax.random.split(start.key, 2))
    _, batches = jax.vmap(functools.partial(arsrc.next_batch, config))(members)
    each = [jax.tree.map(lambda leaf, m=m: leaf[m], (members, batches)) for m in range(2)]
    assert np.array_equal(jax.vmap(bits)(members, batches), np.stack([bits(*one) for one in each]))


@pytest.mark.parametrize(
    "setting",
    [
        lambda: jax.transfer_guard("disallow"),
        jax.disable_jit,
        lambda: jax.debug_nans(True),
        lambda: jax.default_device(jax.devices()[0]),
    ],
    ids=["transfer guard", "disable_jit", "debug_nans", "default_device"],
)
@pytest.mark.parametrize("num_rows", [4, 100], ids=["small", "large"])
def test_iterate_gives_arrays_of_jax_whatever_jax_is_set_to(tmp_path: Path, setting: Any, num_rows: int) -> None:
    values = np.random.default_rng(0).normal(size=(3 * num_rows, 4096)).astype(np.float32)
    values[5] = np.nan  # data may hold it
    codec = Struct({"x": ("float32", 4096)})
    path = arsrc.write_array_record(tmp_path / "x", {"x": values}, codec=codec)[0]
    config = arsrc.ArrayRecordSourceConfig(path, num_rows, codec=codec, num_epochs=1)
    state = arsrc.init(config)
    with setting():
        found = list(arsrc.iterate(config, state))
    for step, (after, batch) in enumerate(found):
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves((after, batch)))
        np.testing.assert_array_equal(batch.data["x"], values[step * num_rows : (step + 1) * num_rows])
    assert len(found) == 3


def test_scans_refuse_numbers_that_make_no_sense(config: arsrc.ArrayRecordSourceConfig) -> None:
    state = arsrc.init(config)
    for num_steps, arguments, value in (
        (-1, {}, "num_steps=-1"),
        (2**31, {}, "num_steps=2147483648"),
        (3, {"batches_per_fetch": 0}, "batches_per_fetch=0"),
        (3, {"unroll": 0}, "unroll=0"),
    ):
        with pytest.raises(arsrc.ArsrcValueError, match=rf"^\[arsrc\] scan_steps: .*{value}"):
            arsrc.scan_steps(config, state, START, collect, num_steps, **arguments)


# Iterate.


def test_iterate_ends_after_the_last_epoch(config: arsrc.ArrayRecordSourceConfig) -> None:
    served = list(arsrc.iterate(config))
    assert len(served) == arsrc.total_steps(config) == 18
    assert arsrc.is_exhausted(config, served[-1][0])
    assert not arsrc.is_exhausted(config, served[-2][0])
    assert list(arsrc.iterate(config, served[-1][0])) == []
    iterator = arsrc.iterate(config, served[-2][0])
    assert ids_of([next(iterator)]) == ids_of(served[-1:])
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(iterator)


def test_iterate_ends_even_where_batches_past_the_end_were_asked_for(path: str) -> None:
    config = arsrc.ArrayRecordSourceConfig(path, 4, num_epochs=2)
    end = arsrc.state_at(config, 10)
    for _ in range(2):
        assert not arsrc.next_batch(config, end)[1].mask.any()
        assert len(list(itertools.islice(arsrc.iterate(config), 50))) == 10
        assert list(itertools.islice(arsrc.iterate(config, end), 50)) == []
    arsrc.close(config)


def test_iterate_starts_at_any_state(config: arsrc.ArrayRecordSourceConfig) -> None:
    served = list(arsrc.iterate(config))
    for step, (state, _) in enumerate(served, start=1):
        assert ids_of(itertools.islice(arsrc.iterate(config, state), 2)) == ids_of(served[step : step + 2])


def test_iterate_gives_jax_arrays_of_the_batch_spec(config: arsrc.ArrayRecordSourceConfig) -> None:
    state, batch = next(arsrc.iterate(config))
    spec = arsrc.batch_spec(config)
    assert jax.tree.structure(batch) == jax.tree.structure(spec)
    for leaf, expected in zip(jax.tree.leaves(batch), jax.tree.leaves(spec), strict=True):
        assert isinstance(leaf, jax.Array)
        assert (leaf.shape, leaf.dtype) == (expected.shape, expected.dtype)
    first = arsrc.init(config)
    assert jax.tree.structure(state) == jax.tree.structure(first)
    for leaf, expected in zip(jax.tree.leaves(state), jax.tree.leaves(first), strict=True):
        assert (leaf.shape, leaf.dtype) == (expected.shape, expected.dtype)


def test_iterate_puts_batches_where_it_is_told(config: arsrc.ArrayRecordSourceConfig) -> None:
    device = jax.devices()[-1]
    mesh = jax.sharding.Mesh(np.array([device]), ("data",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    default = list(itertools.islice(arsrc.iterate(config), 3))
    for place in (device, sharding):
        placed = list(itertools.islice(arsrc.iterate(config, device=place), 3))
        assert ids_of(placed) == ids_of(default)
        for state, batch in placed:
            leaves = [*jax.tree.leaves(batch), state.index, state.epoch]
            assert all(leaf.committed for leaf in leaves)
            if place is sharding:
                assert all(leaf.sharding == sharding for leaf in leaves)
        after, batch = arsrc.next_batch(config, placed[0][0])
        assert ids_of([(after, batch)]) == ids_of(default[1:2])


def test_iterate_refuses_a_traced_state(config: arsrc.ArrayRecordSourceConfig) -> None:
    with pytest.raises(arsrc.ArsrcTypeError, match=r"^\[arsrc\] iterate: .*scan_epoch"):
        jax.jit(lambda state: next(arsrc.iterate(config, state))[1].mask)(arsrc.init(config))


def test_what_cannot_be_opened_is_an_error_at_once(tmp_path: Path) -> None:
    config = arsrc.ArrayRecordSourceConfig(tmp_path / "missing", 1)
    with pytest.raises(arsrc.ArsrcFileNotFoundError, match="missing"):
        arsrc.iterate(config)


def test_iterate_goes_on_after_the_source_is_closed(path: str) -> None:
    config = arsrc.ArrayRecordSourceConfig(path, 2, num_epochs=2, shuffle_records=True)
    expected = ids_of(arsrc.iterate(config))
    iterator = arsrc.iterate(config)
    served = []
    for batch in iterator:
        served.append(batch)
        if len(served) in (1, 5, 6):
            arsrc.close(config)
    assert ids_of(served) == expected
    arsrc.close(config)


def test_an_abandoned_iterator_holds_nothing_up(path: str) -> None:
    config = arsrc.ArrayRecordSourceConfig(path, 2, read=arsrc.ReadOptions(read_ahead_bytes=8, num_threads=1))
    expected = ids_of(itertools.islice(arsrc.iterate(config), 4))
    iterators = [arsrc.iterate(config) for _ in range(40)]
    for iterator in iterators:
        assert ids_of(itertools.islice(iterator, 1)) == expected[:1]
    assert ids_of(itertools.islice(iterators[7], 3)) == expected[1:4]
    arsrc.close(config)


# Errors in the middle of a stream.

READS = {
    "no read-ahead": arsrc.ReadOptions(read_ahead_bytes=0),
    "little": arsrc.ReadOptions(read_ahead_bytes=20, num_threads=1),
    "default": arsrc.ReadOptions(),
}
any_read = pytest.mark.parametrize("read", READS.values(), ids=READS)


def serve(
    config: arsrc.ArrayRecordSourceConfig, state: arsrc.SourceState | None = None
) -> tuple[list[tuple[arsrc.SourceState, arsrc.Batch]], arsrc.ArsrcError | None]:
    """Iterate to the end or to the first error; give what came before it, and the error."""
    served = []
    try:
        for result in arsrc.iterate(config, state):
            served.append(result)  # noqa: PERF402  (what came before an error counts)
    except arsrc.ArsrcError as error:
        return served, error
    return served, None


@pytest.fixture(scope="module")
def bad_path(tmp_path_factory: pytest.TempPathFactory, write_records: WriteRecords) -> str:
    """20 records of which number 11 is longer than the others."""
    records = [bytes([i] * (3 if i == 11 else 2)) for i in range(20)]
    return write_records(tmp_path_factory.mktemp("bad") / "bad.array_record", records)


@any_read
def test_a_bad_record_is_an_error_at_its_batch_and_the_rest_can_be_had(bad_path: str, read: arsrc.ReadOptions) -> None:
    config = arsrc.ArrayRecordSourceConfig(bad_path, 3, num_epochs=1, remainder="pad", read=read)
    for _ in range(2):
        served, error = serve(config)
        assert type(error) is arsrc.ArsrcValueError
        assert str(error).startswith("[arsrc] decode: record 11 (record 11 of '")
        assert ids_of(served) == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    last = served[-1][0]
    for _ in range(2):
        again, error = serve(config, last)
        assert again == []
        assert "record 11" in str(error)
    rest, error = serve(config, arsrc.advance(config, last))
    assert error is None
    assert ids_of(rest) == [[12, 13, 14], [15, 16, 17], [18, 19, PAD_ID]]
    arsrc.close(config)


@any_read
def test_a_bad_record_fails_next_batch_at_its_step_and_the_rest_can_be_had(
    bad_path: str, read: arsrc.ReadOptions
) -> None:
    config = arsrc.ArrayRecordSourceConfig(bad_path, 3, num_epochs=1, remainder="pad", read=read)
    state = arsrc.init(config)
    for step in range(7):
        if step == 3:
            with pytest.raises(
                (jax.errors.JaxRuntimeError, ValueError), match=r"\[arsrc\] decode: record 11 \(record 11 of "
            ):
                jax.block_until_ready(arsrc.next_batch(config, state))
            state = arsrc.advance(config, state)
            continue
        state, batch = arsrc.next_batch(config, state)
        expected = [3 * step + row if 3 * step + row < 20 else 0 for row in range(3)]
        assert np.asarray(batch.data)[:, 0].tolist() == expected
    assert arsrc.is_exhausted(config, state)
    arsrc.close(config)


class _Trouble:
    """A decode function whose world fails for a while, at one record."""

    def __init__(self) -> None:
        self.is_failing = False

    def __call__(self, record: bytes) -> np.ndarray:
        if self.is_failing and record[0] == 9:
            raise OSError("the disk has gone")
        return np.frombuffer(record, np.uint8)


@any_read
def test_a_stream_goes_on_from_its_last_state_when_trouble_has_passed(path: str, read: arsrc.ReadOptions) -> None:
    trouble = _Trouble()
    config = arsrc.ArrayRecordSourceConfig(path, 2, Map(trouble, ("uint8", 1)), num_epochs=1, read=read)
    trouble.is_failing = True
    served, error = serve(config)
    assert type(error) is arsrc.ArsrcValueError
    assert "record 9" in str(error)
    assert "the disk has gone" in str(error)
    assert len(served) == 4
    trouble.is_failing = False
    served += arsrc.iterate(config, served[-1][0])
    assert ids_of(served) == [[2 * i, 2 * i + 1] for i in range(N // 2)]
    assert np.concatenate([batch.data for _, batch in served])[:, 0].tolist() == list(range(N - 1))
    arsrc.close(config)


@any_read
def test_a_lost_file_is_an_error_that_names_it_and_the_stream_goes_on_when_it_is_back(
    tmp_path: Path, write_records: WriteRecords, read: arsrc.ReadOptions
) -> None:
    records = [bytes([i]) * 2000 for i in range(60)]
    paths = [
        write_records(tmp_path / f"{f}.array_record", records[20 * f : 20 * f + 20], "group_size:1,brotli")
        for f in range(3)
    ]
    config = arsrc.ArrayRecordSourceConfig(
        paths, 5, Ragged(max_length=2000), num_epochs=1,
        read=arsrc.ReadOptions(read_ahead_bytes=read.read_ahead_bytes, num_threads=1, max_open_files=1),
    )  # fmt: skip
    loop = arsrc.iterate(config)
    served = [next(loop)]
    elsewhere = tmp_path / "elsewhere"
    Path(paths[1]).rename(elsewhere)
    with pytest.raises(arsrc.ArsrcReadError) as error:
        served += loop  # item by item
    assert "1.array_record" in str(error.value)
    assert ids_of(served) == [list(range(i, i + 5)) for i in range(0, 20, 5)]
    with pytest.raises(arsrc.ArsrcFileNotFoundError, match=r"1\.array_record"):
        next(arsrc.iterate(config, served[-1][0]))
    elsewhere.rename(paths[1])
    served += arsrc.iterate(config, served[-1][0])
    assert [i for ids in ids_of(served) for i in ids] == list(range(60))
    arsrc.close(config)
