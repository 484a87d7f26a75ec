"""The laws of the source, over random data sets, configs and states.

The oracle is `listing`: it says in plain Python which record of which epoch stands in which row of which
batch. With it the laws are tested on the arithmetic and on `iterate`, which compile nothing, over random configs,
and on the compiled forms over the few configs of `COMPILED`.
"""

import dataclasses
import functools
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import arsrc
from arsrc._host import registry
from arsrc._host.serving.requests import Request
from arsrc.codecs import Ragged
from arsrc.order import arithmetic, record_order
from arsrc.order.plan import Plan

PAD_ID = 2**32 - 1
Row = tuple[int, int] | None  # (epoch, position); None is padding


# The oracle.


def listing(plan: Plan, index: int = 0, epoch: int = 0) -> Iterator[list[Row]]:
    """Yield the rows of each batch from a state on, until the source is exhausted."""
    size = plan.batch_size

    def passes() -> Iterator[list[Row]]:
        """Yield what is left of each epoch."""
        for e in itertools.count(epoch):
            if e == plan.num_epochs:
                return
            yield [(e, p) for p in range(index if e == epoch else 0, plan.num_records)]

    runs: Iterator[Iterator[Row]] = map(iter, passes())
    if plan.remainder == "wrap":
        runs = iter([itertools.chain.from_iterable(runs)])  # all epochs are one run
    for run in runs:
        while rows := list(itertools.islice(run, size)):
            if len(rows) == size or plan.remainder != "drop":
                yield rows + [None] * (size - len(rows))


def ids_of(plan: Plan, words: Sequence[int], rows: list[Row]) -> list[int]:
    """Look the rows up in the tables of their epochs' orders; excluded records are padding too."""
    ids = [PAD_ID if row is None else order_of(plan, tuple(words), row[0])[row[1]] for row in rows]
    return [PAD_ID if any(start <= i < stop for start, stop in plan.exclude) else i for i in ids]


@functools.lru_cache
def order_of(plan: Plan, words: tuple[int, ...], epoch: int) -> list[int]:
    """List the record ids of an epoch in the order in which they are served."""
    position = np.arange(plan.num_records, dtype=np.uint32)
    return record_order.record_at(np, plan, np.array(words, np.uint32), u32(epoch), position).tolist()


def u32(*values: int) -> np.ndarray:
    return np.array(values, np.uint32)


# The arithmetic.


@st.composite
def plans_and_states(draw: st.DrawFn) -> tuple[Plan, int, int]:
    """A small plan and any state it can be restored to: any index up to the epoch's end."""
    remainder = draw(st.sampled_from(["drop", "pad", "wrap"]))
    num_records = draw(st.integers(1, 24))
    sizes = st.integers(1, num_records) if remainder == "drop" else st.integers(1, 60)
    plan = Plan(
        num_records=num_records,
        batch_size=draw(sizes | st.just(num_records)),
        num_epochs=draw(st.sampled_from([-1, 1, 2, 3, 7])),
        remainder=remainder,
        shuffle_records=False,
        file_sizes=(),
    )
    index, epoch = draw(st.integers(0, num_records)), draw(st.integers(0, 7))
    return plan, index, epoch if plan.num_epochs < 0 else min(epoch, plan.num_epochs)


def states_from(plan: Plan, index: int, epoch: int, count: int) -> list[tuple[int, int]]:
    """Walk `count` single steps; the first state is settled."""
    states, state = [], arithmetic.settle(np, plan, u32(index), u32(epoch))
    for _ in range(count):
        states.append((int(state[0][0]), int(state[1][0])))
        state = arithmetic.advance(np, plan, *state, 1)
    return states


@given(plans_and_states())
@example((Plan(5, 5, 2, "wrap", False, ()), 0, 0))
@example((Plan(1, 60, 7, "wrap", False, ()), 0, 0))
@example((Plan(4, 2, 3, "drop", False, ()), 3, 2))
def test_the_rows_of_all_batches_are_those_of_the_listing(case: tuple[Plan, int, int]) -> None:
    plan, index, epoch = case
    expected = list(itertools.islice(listing(plan, index, epoch), 40))
    for rows, (i, e) in zip(expected, states_from(plan, index, epoch, len(expected)), strict=True):
        position, epochs, valid = arithmetic.rows(np, plan, u32(i), u32(e))
        epochs = np.broadcast_to(epochs, position.shape)
        found = zip(epochs[0].tolist(), position[0].tolist(), valid[0].tolist(), strict=True)
        assert [(e, p) if v else None for e, p, v in found] == rows
    if len(expected) < 40:  # the source is exhausted
        end = states_from(plan, index, epoch, len(expected) + 3)[len(expected) :]
        assert end == [(0, plan.num_epochs)] * 3
        assert not arithmetic.rows(np, plan, u32(0), u32(plan.num_epochs))[2].any()


@given(plans_and_states(), st.integers(0, 20), st.integers(0, 20))
def test_steps_add_up(case: tuple[Plan, int, int], a: int, b: int) -> None:
    plan, index, epoch = case
    states = states_from(plan, index, epoch, a + b + 1)
    for steps, start in ((a, (index, epoch)), (a + b, (index, epoch)), (b, states[a])):
        after = arithmetic.advance(np, plan, u32(start[0]), u32(start[1]), u32(steps))
        expected = states[a] if steps == a and start == (index, epoch) else states[a + b]
        assert (int(after[0][0]), int(after[1][0])) == expected


@given(plans_and_states())
def test_step_of_counts_the_batches_since_init(case: tuple[Plan, int, int]) -> None:
    plan, _, _ = case
    total = plan.total_steps
    for step, (index, epoch) in enumerate(states_from(plan, 0, 0, 40)):
        expected = step if total is None else min(step, total)
        assert arithmetic.step_of(np, plan, u32(index), u32(epoch)).tolist() == [expected]
    if total is not None:
        assert sum(1 for _ in listing(plan)) == total


@given(plans_and_states())
def test_an_epoch_has_as_many_batches_as_steps_per_epoch_says(case: tuple[Plan, int, int]) -> None:
    plan = dataclasses.replace(case[0], num_epochs=1)
    assert sum(1 for _ in listing(plan)) == plan.steps_per_epoch == plan.total_steps


# Random data sets, from slices of a few files: one of them empty, one with a single record.

FILE_SIZES = (40, 1, 0, 23)
OPTIONS = ("group_size:1,uncompressed", "group_size:1", "group_size:1", "group_size:4,zstd")


def content(file: int) -> np.ndarray:
    """The records of a file, u8[n, 4]: file number and position."""
    position = np.arange(FILE_SIZES[file], dtype=np.uint8)
    return np.stack([np.full_like(position, 17 * file + 1), position, 255 - position, position * 3], axis=1)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, write_records: Any) -> list[str]:
    folder: Path = tmp_path_factory.mktemp("laws")
    paths = [folder / f"{file}.array_record" for file in range(len(FILE_SIZES))]
    return [write_records(path, list(map(bytes, content(file))), OPTIONS[file]) for file, path in enumerate(paths)]


Piece = tuple[int, int, int]  # file, start, stop


def config_of(files: list[str], pieces: Sequence[Piece], **fields: Any) -> arsrc.ArrayRecordSourceConfig:
    return arsrc.ArrayRecordSourceConfig([f"{files[f]}[{start}:{stop}]" for f, start, stop in pieces], **fields)


def records_of(pieces: Sequence[Piece]) -> np.ndarray:
    """What the data set holds, u8[num_records, 4], in the order of ids."""
    return np.concatenate([content(file)[start:stop] for file, start, stop in pieces])


def packed(records: np.ndarray, length: int) -> np.ndarray:
    """The bytes of records as tokens, end to end in rows of so many, u8[num_rows, length]."""
    tokens = records.ravel()
    return np.pad(tokens, (0, -len(tokens) % length)).reshape(-1, length)


def data_of(records: np.ndarray, ids: Sequence[int]) -> np.ndarray:
    """The rows that a batch with these ids holds."""
    return np.concatenate([records, np.zeros((1, records.shape[1]), np.uint8)])[[min(i, len(records)) for i in ids]]


# Slices of each file, the largest first: hypothesis tries what comes first more often than it should.
SLICES: tuple[Piece, ...] = (
    *((0, 0, 40), (3, 0, 23), (0, 7, 24), (3, 11, 23), (0, 31, 40), (3, 2, 7)),
    *((1, 0, 1), (0, 20, 21), (2, 0, 0), (0, 9, 9), (3, 23, 23), (1, 1, 1)),
)
pieces = st.lists(st.sampled_from(SLICES), min_size=1, max_size=6).filter(
    lambda parts: any(stop > start for _, start, stop in parts)
)


def shuffle(files: bool, records: bool, block_size: int = 1) -> dict[str, Any]:
    fields = {"shuffle_files": files, "shuffle_records": records, "shuffle_block_size": block_size}
    return fields | {"shuffle_window_blocks": 2}


SHUFFLES = {
    "as stored": shuffle(files=False, records=False),
    "files": shuffle(files=True, records=False),
    "records": shuffle(files=False, records=True),
    "blocks": shuffle(files=False, records=True, block_size=3),
}

EXCLUDED: tuple[tuple[int, ...], ...] = ((), (0, 3, 4, 5), (1, 2, 17, 30, 31), (7,))

READS = st.builds(
    arsrc.ReadOptions,
    num_threads=st.sampled_from([1, 2, 5]),
    # None, less than a batch, a few batches, everything.
    read_ahead_bytes=st.sampled_from([0, 1, 300, 2**28]),
    max_open_files=st.sampled_from([1, 256]),
    checksum=st.sampled_from(["auto", "always"]),
)


@st.composite
def fields(draw: st.DrawFn, num_records: int) -> dict[str, Any]:
    """Everything random in a config but the data."""
    remainder = draw(st.sampled_from(["drop", "pad", "wrap"]))
    return {
        "batch_size": draw(st.sampled_from([7, 3, 16, 1, 5, num_records, max(num_records // 2, 1), num_records + 9])),
        "remainder": remainder,
        "num_epochs": draw(st.sampled_from([-1, 1, 2, 5])),
        "seed": draw(st.integers(0, 2**32 - 1)),
        "read": draw(READS),
        "cacheable": draw(st.booleans()),
        "exclude": [i for i in draw(st.sampled_from(EXCLUDED)) if i < num_records - 1],
        **draw(st.sampled_from(list(SHUFFLES.values()))),
    }


@st.composite
def views(draw: st.DrawFn, num_records: int) -> dict[str, Any]:
    """Which rows there are: all records most often, some of them, or what is packed of these."""
    view: dict[str, Any] = {}
    if draw(st.integers(0, 2)) == 2:
        ids = st.integers(0, num_records - 1)
        view["select"] = sorted(draw(st.sets(ids, min_size=min(num_records, 2), max_size=40)))
    if draw(st.integers(0, 2)) == 2:
        view["pack"] = arsrc.Packing(draw(st.integers(1, 9)))
    return view


@dataclasses.dataclass
class Case:
    """A config, a state, and what is expected of them."""

    config: arsrc.ArrayRecordSourceConfig
    records: np.ndarray  # u8[num_rows, ...], what rows hold
    plan: Plan
    state: arsrc.SourceState

    @property
    def words(self) -> list[int]:
        return np.asarray(jax.random.key_data(self.state.key)).tolist()

    def expected(self, count: int, state: arsrc.SourceState | None = None) -> list[list[int]]:
        """Ids of the next `count` batches, fewer at the end."""
        state = self.state if state is None else state
        batches = listing(self.plan, int(state.index), int(state.epoch))
        words = np.asarray(jax.random.key_data(state.key)).tolist()
        return [ids_of(self.plan, words, rows) for rows in itertools.islice(batches, count)]

    def epochs(self, count: int) -> list[list[int]]:
        """Epochs of the rows of the next `count` batches; padding belongs where it would if there were more epochs."""
        endless = dataclasses.replace(self.plan, num_epochs=-1)
        batches = itertools.islice(listing(endless, int(self.state.index), int(self.state.epoch)), count)
        return [[(row or rows[0] or (0, 0))[0] for row in rows] for rows in batches]

    def check(self, batches: Sequence[arsrc.Batch], ids: list[list[int]]) -> None:
        """Compare batches with what the listing and the files say."""
        assert [np.asarray(batch.record_ids).tolist() for batch in batches] == ids
        for batch, expected in zip(batches, ids, strict=True):
            assert np.asarray(batch.mask).tolist() == [i != PAD_ID for i in expected]
            data = batch.data["tokens"] if isinstance(batch.data, dict) else batch.data
            assert np.array_equal(data, data_of(self.records, expected))


def case_of(files: list[str], parts: Sequence[Piece], index: int, epoch: int, **fields: Any) -> Case:
    records = records_of(parts)
    if (select := fields.get("select")) is not None:
        records = records[select]
    if (packing := fields.get("pack")) is not None:
        records = packed(records, packing.length)
        fields |= {"codec": Ragged("uint8", max_length=4), "exclude": ()}
    config = config_of(files, parts, **fields)
    last = config.num_epochs if config.num_epochs >= 0 else epoch
    start = arsrc.SourceState(
        index=jnp.asarray(np.uint32(index)), epoch=jnp.asarray(np.uint32(min(epoch, last))),
        key=jax.random.key(config.seed),
    )  # fmt: skip
    return Case(config, records, registry.source(config).plan, start)


def draw_case(files: list[str], data: st.DataObject, **fixed: Any) -> Case:
    parts = data.draw(pieces)
    num_records = sum(stop - start for _, start, stop in parts)
    view = {} if fixed.keys() & {"select", "pack"} else data.draw(views(num_records))
    num_records = len(view.get("select", range(num_records)))
    if "pack" in view:
        num_records = -(-4 * num_records // view["pack"].length)
    index, epoch = data.draw(st.integers(0, num_records)), data.draw(st.integers(0, 5))
    chosen = data.draw(fields(num_records)) | view | fixed
    if chosen["remainder"] == "drop":
        chosen["batch_size"] = min(chosen["batch_size"], num_records)
    return case_of(files, parts, index, epoch, **chosen)


# The laws on `iterate`.


any_remainder = pytest.mark.parametrize("remainder", ["drop", "pad", "wrap"])
any_shuffle = pytest.mark.parametrize("shuffle", SHUFFLES.values(), ids=SHUFFLES)


@any_remainder
@any_shuffle
@given(data=st.data())
def test_iterate_serves_what_the_listing_says_and_the_files_hold(
    files: list[str], remainder: str, shuffle: dict[str, Any], data: Any
) -> None:
    case = draw_case(files, data, remainder=remainder, **shuffle)
    expected = case.expected(12)
    served = list(itertools.islice(arsrc.iterate(case.config, case.state), 12))
    case.check([batch for _, batch in served], expected)
    assert [np.asarray(batch.epochs).tolist() for _, batch in served] == case.epochs(len(served))
    ahead = states_from(case.plan, int(case.state.index), int(case.state.epoch), len(served) + 1)[1:]
    assert [(int(state.index), int(state.epoch)) for state, _ in served] == ahead
    arsrc.close(case.config)


@any_remainder
@given(data=st.data())
def test_segments_are_the_batches_of_iterate_stacked(files: list[str], remainder: str, data: Any) -> None:
    case = draw_case(files, data, remainder=remainder)
    size = data.draw(st.integers(1, 6))
    batches = itertools.islice(arsrc.iterate(case.config, case.state), 3 * size)
    segments = arsrc.iterate(case.config, case.state, num_batches=size)
    for _ in range(3):
        alone = list(itertools.islice(batches, size))
        state, segment = next(segments, (None, None))
        if not alone:
            assert segment is None
            break
        same(state, alone[-1][0])
        same(segment, jax.tree.map(lambda *leaves: np.stack(leaves), *(batch for _, batch in alone)))
    arsrc.close(case.config)


@any_shuffle
@given(data=st.data())
def test_an_epoch_serves_every_record_once_less_the_dropped_rest(
    files: list[str], shuffle: dict[str, Any], data: Any
) -> None:
    case = draw_case(files, data, num_epochs=2, exclude=(), **shuffle)
    start = dataclasses.replace(case.state, index=jnp.uint32(0), epoch=jnp.uint32(0))
    rows = np.concatenate(
        [np.stack([batch.record_ids, batch.mask], axis=-1) for _, batch in arsrc.iterate(case.config, start)]
    )
    ids = rows[:, 0][rows[:, 1] != 0]
    num_records, size = case.plan.num_records, case.config.batch_size
    per_epoch = num_records // size * size if case.config.remainder == "drop" else num_records
    assert len(ids) == 2 * per_epoch
    for epoch in (ids[:per_epoch], ids[per_epoch:]):
        assert len(set(epoch.tolist())) == per_epoch
        assert epoch.max() < num_records
    arsrc.close(case.config)


@any_remainder
@given(data=st.data())
def test_a_stream_goes_on_after_saving_and_restoring_anywhere(files: list[str], remainder: str, data: Any) -> None:
    case = draw_case(files, data, remainder=remainder)
    steps = data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=3))
    state, expected = case.state, case.expected(sum(steps) + 3)
    batches: list[arsrc.Batch] = []
    for count in [*steps, 3]:
        served = list(itertools.islice(arsrc.iterate(case.config, state), count))
        batches += [batch for _, batch in served]
        state = served[-1][0] if served else state
        for _ in range(2):
            text = json.dumps(arsrc.to_state_dict(case.config, state))
            state = arsrc.from_state_dict(case.config, json.loads(text))
            assert json.dumps(arsrc.to_state_dict(case.config, state)) == text
        if data.draw(st.booleans()):
            arsrc.close(case.config)  # as after a restart
    case.check(batches, expected)
    arsrc.close(case.config)


@given(data=st.data())
def test_a_stream_goes_on_at_the_same_record_with_another_batch_size(files: list[str], data: Any) -> None:
    case = draw_case(files, data, remainder="pad")
    served = list(itertools.islice(arsrc.iterate(case.config, case.state), data.draw(st.integers(1, 8))))
    state = served[-1][0] if served else case.state
    saved = arsrc.to_state_dict(case.config, state)
    size = data.draw(st.integers(1, case.plan.num_records))
    remainder = data.draw(st.sampled_from(["drop", "pad", "wrap"]))
    other = dataclasses.replace(case.config, batch_size=size, remainder=remainder)
    later = Case(other, case.records, registry.source(other).plan, arsrc.from_state_dict(other, saved))
    batches = [batch for _, batch in itertools.islice(arsrc.iterate(other, later.state), 5)]
    later.check(batches, later.expected(5))
    if served and remainder != "drop" and batches:
        rows = itertools.chain(*case.expected(len(served)), *later.expected(5))
        served_ids = [i for i in rows if i != PAD_ID]
        one_by_one = dataclasses.replace(case.plan, batch_size=1)
        singles = listing(one_by_one, int(case.state.index), int(case.state.epoch))
        ids = (ids_of(one_by_one, case.words, rows)[0] for rows in singles)
        assert served_ids == list(itertools.islice((i for i in ids if i != PAD_ID), len(served_ids)))
    for config in (case.config, other):
        arsrc.close(config)


@any_shuffle
@given(data=st.data())
def test_streams_of_one_config_do_not_disturb_each_other(files: list[str], shuffle: dict[str, Any], data: Any) -> None:
    case = draw_case(files, data, **shuffle)
    starts = data.draw(
        st.lists(st.tuples(st.integers(0, case.plan.num_records), st.integers(0, 2)), min_size=2, max_size=4)
    )
    states = [
        dataclasses.replace(case.state, index=jnp.uint32(index), key=jax.random.key(seed)) for index, seed in starts
    ]
    streams = [arsrc.iterate(case.config, state) for state in states]
    served: list[list[arsrc.Batch]] = [[] for _ in streams]
    for turn in data.draw(st.lists(st.integers(0, len(streams) - 1), max_size=24)):
        served[turn] += [batch for _, batch in itertools.islice(streams[turn], 1)]
    for batches, state in zip(served, states, strict=True):
        case.check(batches, case.expected(len(batches), state))
    arsrc.close(case.config)


@any_remainder
@given(data=st.data())
def test_the_rows_of_all_shards_in_order_are_the_global_batch(files: list[str], remainder: str, data: Any) -> None:
    case = draw_case(files, data, remainder=remainder)
    size = case.config.batch_size
    num_shards = data.draw(st.sampled_from([d for d in range(1, size + 1) if size % d == 0]))
    num_batches = data.draw(st.integers(1, 3))
    expected = case.expected(num_batches)
    expected += [[PAD_ID] * size] * (num_batches - len(expected))
    host = registry.source(case.config)
    whole = Request(((int(case.state.index), int(case.state.epoch), *case.words),), num_batches, 0, size)
    for turn in range(2):  # the second time from where the first ended
        rows = size // num_shards
        starts = range(0, size, rows)
        shards = [host.get(Request(whole.states, num_batches, first_row, rows)) for first_row in starts]
        loaded = host.get(whole)
        assert turn or loaded.record_ids[0].tolist() == expected
        assert np.array_equal(np.concatenate([s.record_ids for s in shards], axis=2), loaded.record_ids)
        assert np.array_equal(np.concatenate([s.leaves[0] for s in shards], axis=2), loaded.leaves[0])
        epochs = [np.broadcast_to(s.epochs, s.record_ids.shape) for s in shards]
        assert (np.concatenate(epochs, axis=2) == loaded.epochs).all()
        whole = loaded.after
    arsrc.close(case.config)


@any_shuffle
def test_no_way_of_reading_shows_in_the_results(files: list[str], shuffle: dict[str, Any]) -> None:
    parts = [(0, 3, 40), (2, 0, 0), (3, 0, 23), (1, 0, 1), (0, 0, 5)]
    fields = {"batch_size": 7, "remainder": "wrap", "num_epochs": 4, **shuffle}
    expected: list[list[int]] = []
    aheads = [(0, "auto"), (40, "always"), (2**28, "auto"), (2**28, "always"), (2**28, "never")]
    for threads, (num_bytes, ahead), checksum, cacheable in itertools.product(
        (1, 4), aheads, ("auto", "always"), (False, True)
    ):
        read = arsrc.ReadOptions(num_threads=threads, read_ahead_bytes=num_bytes, checksum=checksum, ahead=ahead)
        case = case_of(files, parts, 0, 0, **fields, read=read, cacheable=cacheable)
        expected = expected or case.expected(1000)
        case.check([batch for _, batch in arsrc.iterate(case.config)], expected)
        if cacheable:
            arsrc.reset_cache(case.config)
            case.check([batch for _, batch in arsrc.iterate(case.config)], expected)
        arsrc.close(case.config)


# The compiled forms.

COMPILED: dict[str, tuple[list[Piece], dict[str, Any]]] = {
    "drop, endless": ([(0, 0, 10)], {"batch_size": 3}),
    "drop, records": (
        [(0, 0, 40), (3, 0, 20)],
        {"batch_size": 20, "shuffle_records": True, "num_epochs": 2, "seed": 7,
         "exclude": (2, (50, 55))},
    ),
    "pad, files": (
        [(0, 5, 19), (2, 0, 0), (1, 0, 1), (3, 0, 8)],
        {"batch_size": 7, "remainder": "pad", "shuffle_files": True, "num_epochs": 3},
    ),
    "wrap, larger than the data": (
        [(3, 2, 7)],
        {"batch_size": 12, "remainder": "wrap", "shuffle_records": True, "cacheable": True},
    ),
    "wrap, files": (
        [(3, 0, 2), (0, 7, 7), (0, 0, 3), (1, 0, 1), (3, 5, 8), (0, 30, 34)],
        {"batch_size": 5, "remainder": "wrap", "shuffle_files": True, "num_epochs": 4, "read":
         arsrc.ReadOptions(read_ahead_bytes=0)},
    ),
    "pad, blocks": (
        [(3, 0, 23)],
        {"batch_size": 23, "remainder": "pad", **SHUFFLES["blocks"]},
    ),
}  # fmt: skip

compiled = pytest.mark.parametrize("name", COMPILED)
few = pytest.mark.parametrize("name", ["drop, records", "pad, files", "wrap, larger than the data"])
steps = st.integers(0, 12)


def compiled_case(files: list[str], name: str, step: int) -> Case:
    """The case after `step` batches, by single steps of the host's arithmetic."""
    parts, fields = COMPILED[name]
    case = case_of(files, parts, 0, 0, **fields)
    index, epoch = states_from(case.plan, 0, 0, step + 1)[-1]
    return case_of(files, parts, index, epoch, **fields)


def same(a: Any, b: Any) -> None:
    """Compare two trees of arrays and keys bit by bit."""
    leaves, treedef = jax.tree.flatten(a)
    others, other_treedef = jax.tree.flatten(b)
    assert treedef == other_treedef
    for x, y in zip(leaves, others, strict=True):
        assert x.dtype == y.dtype
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        assert np.array_equal(x, y)


@compiled
@given(step=steps)
def test_next_batch_is_advance_and_peek(files: list[str], name: str, step: int) -> None:
    case = compiled_case(files, name, step)
    config, state = case.config, case.state
    after, batch = arsrc.next_batch(config, state)
    same(after, arsrc.advance(config, state))
    same(batch, arsrc.peek(config, state))
    same((batch.record_ids, batch.mask), (arsrc.record_ids(config, state), arsrc.batch_mask(config, state)))
    expected = case.expected(1)
    case.check([batch], expected or [[PAD_ID] * config.batch_size])
    assert [batch.epochs.tolist()] == case.epochs(1)
    assert bool(arsrc.is_exhausted(config, state)) is not bool(expected)


@compiled
@given(step=steps)
def test_peek_is_batch_at_the_index_where_no_epoch_ends(files: list[str], name: str, step: int) -> None:
    case = compiled_case(files, name, step)
    config, state = case.config, case.state
    batch = arsrc.batch_at(config, state, state.index)
    n, first = case.plan.num_records, int(state.index)
    rows: list[Row] = [(int(state.epoch), (first + row) % n) for row in range(config.batch_size)]
    case.check([batch], [ids_of(case.plan, case.words, rows)])
    assert set(batch.epochs.tolist()) == {int(state.epoch)}
    if first + config.batch_size <= n and not arsrc.is_exhausted(config, state):
        same(batch, arsrc.peek(config, state))


@compiled
@given(step=st.integers(0, 2**32 - 1) | steps, more=st.integers(0, 2**32 - 1) | steps)
def test_steps_add_up_and_are_counted(files: list[str], name: str, step: int, more: int) -> None:
    parts, fields = COMPILED[name]
    config = config_of(files, parts, **fields)
    plan = registry.source(config).plan
    total, start = arsrc.total_steps(config), arsrc.init(config)
    state = arsrc.state_at(config, step)
    same(state, arsrc.advance(config, start, step))
    if plan.remainder == "wrap" and plan.num_epochs < 0:
        step, more = step // 64, more // 64  # an epoch counter that turns over counts other steps
        state = arsrc.state_at(config, step)
    more = min(more, 2**32 - 1 - step)
    same(arsrc.advance(config, state, more), arsrc.advance(config, start, step + more))
    assert int(arsrc.step_of(config, state)) == (step if total is None else min(step, total))


@few
@given(step=steps)
def test_next_batches_is_next_batch_again_and_again(files: list[str], name: str, step: int) -> None:
    case = compiled_case(files, name, step)
    state, several = arsrc.next_batches(case.config, case.state, 3)
    one, batches = case.state, []
    for _ in range(3):
        one, batch = arsrc.next_batch(case.config, one)
        batches.append(batch)
    same(state, one)
    same(several, jax.tree.map(lambda *leaves: np.stack(leaves), *batches))


@compiled
def test_scan_is_loop_is_iterate(files: list[str], name: str) -> None:
    case = compiled_case(files, name, 1)
    num_steps = 8
    state, _, scanned = arsrc.scan_steps(case.config, case.state, None, lambda carry, batch: (carry, batch), num_steps)
    one, looped = case.state, []
    for _ in range(num_steps):
        one, batch = arsrc.next_batch(case.config, one)
        looped.append(batch)
    same(state, one)
    same(scanned, jax.tree.map(lambda *leaves: np.stack(leaves), *looped))
    iterated = list(itertools.islice(arsrc.iterate(case.config, case.state), num_steps))
    for (after, batch), expected in zip(iterated, looped, strict=False):
        same(batch, expected)
        one = after
    segments = list(itertools.islice(arsrc.iterate(case.config, case.state, num_batches=3), 3))
    found = jax.tree.map(lambda *leaves: np.concatenate(leaves)[:num_steps], *(segment for _, segment in segments))
    same(found, jax.tree.map(lambda *leaves: np.stack(leaves), *(batch for _, batch in iterated)))
    if len(iterated) < num_steps:
        assert arsrc.is_exhausted(case.config, one)
        assert not any(batch.mask.any() for batch in looped[len(iterated) :])


@few
def test_jit_gives_what_eager_calls_give(files: list[str], name: str) -> None:
    case = compiled_case(files, name, 0)
    config = case.config

    def everything(state: arsrc.SourceState, steps: Any, record_id: Any) -> Any:
        return (
            arsrc.next_batch(config, state),
            arsrc.batch_at(config, state, record_id, 4),
            arsrc.take(config, record_id),
            arsrc.advance(config, state, steps),
            arsrc.state_at(config, steps),
            arsrc.step_of(config, state),
            arsrc.is_exhausted(config, state),
            arsrc.locate(config, state, record_id),
            arsrc.record_ids(config, state),
        )

    in_jit = jax.jit(everything)
    for step in (0, 1, 5, 9):
        state = compiled_case(files, name, step).state
        same(in_jit(state, jnp.int32(step), jnp.int32(3)), everything(state, step, np.int32(3)))


def test_switching_jit_off_changes_nothing(files: list[str]) -> None:
    case = compiled_case(files, "drop, endless", 2)
    expected = arsrc.next_batch(case.config, case.state)
    with jax.disable_jit():
        same(arsrc.next_batch(case.config, case.state), expected)


@compiled
@given(epoch=st.integers(0, 2**32 - 1) | st.integers(0, 3))
def test_order_undoes_locate(files: list[str], name: str, epoch: int) -> None:
    case = compiled_case(files, name, 0)
    state = dataclasses.replace(case.state, epoch=jnp.asarray(np.uint32(epoch)))
    everything = np.arange(case.plan.num_records, dtype=np.uint32)
    position = np.asarray(arsrc.locate(case.config, state, everything))
    assert position.dtype == np.uint32
    ids = order_of(case.plan, tuple(case.words), epoch)
    assert [ids[p] for p in position] == everything.tolist()
    assert sorted(position.tolist()) == everything.tolist()


@compiled
def test_an_exhausted_state_stays_and_gives_batches_without_rows(files: list[str], name: str) -> None:
    parts, fields = COMPILED[name]
    config = config_of(files, parts, **fields)
    if config.num_epochs < 0:
        assert arsrc.total_steps(config) is None
        assert not arsrc.is_exhausted(config, arsrc.state_at(config, 10**6))
        return
    total = arsrc.total_steps(config)
    assert total is not None
    last = arsrc.state_at(config, total - 1)
    assert not arsrc.is_exhausted(config, last)
    assert arsrc.peek(config, last).mask.any()
    end = arsrc.advance(config, last)
    assert arsrc.is_exhausted(config, end)
    assert (int(end.index), int(end.epoch)) == (0, config.num_epochs)
    after, batch = arsrc.next_batch(config, end)
    same(after, end)
    assert not batch.mask.any()
    assert not np.asarray(batch.data).any()
    assert set(np.asarray(batch.record_ids).tolist()) == {PAD_ID}
    assert int(batch.epochs[0]) == config.num_epochs
    assert list(arsrc.iterate(config, end)) == []
