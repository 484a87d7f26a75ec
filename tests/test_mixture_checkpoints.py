"""States of mixtures that are saved and restored: as they were, with other weights from there on, or not at all."""

import dataclasses
import itertools
import json
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
from arsrc import MixtureConfig
from arsrc.codecs import Struct

Config = arsrc.ArrayRecordSourceConfig

CODEC = Struct({"id": "uint32"})
SIZES = (23, 7, 4)


def write(path: Path, number: int, size: int) -> str:
    return arsrc.write_array_record(path, {"id": 1000 * number + np.arange(size, dtype=np.uint32)}, codec=CODEC)[0]


@pytest.fixture(scope="module")
def paths(records_dir: Path) -> list[str]:
    return [write(records_dir / f"mixture-saved-{number}", number, size) for number, size in enumerate(SIZES)]


@pytest.fixture(scope="module")
def make(paths: list[str]) -> Callable[..., MixtureConfig]:
    """`make(weights, **fields)`: a mixture of all, shuffled."""

    def make(weights: Any = (4, 2, 1), **fields: Any) -> MixtureConfig:
        sources = tuple(Config(path, 1, CODEC, shuffle_records=True) for path in paths)
        return MixtureConfig(**({"sources": sources, "weights": weights, "batch_size": 5} | fields))

    return make


def rows(mix: MixtureConfig, state: Any, num_rows: int) -> list[tuple[int, int, int]]:
    """Ids, epochs and values of the next rows."""
    batches = [batch for _, batch in itertools.islice(arsrc.iterate(mix, state), -(-num_rows // mix.batch_size))]
    columns = [np.concatenate([getattr(batch, name) for batch in batches]) for name in ("record_ids", "epochs")]
    columns.append(np.concatenate([batch.data["id"] for batch in batches]))
    return list(zip(*(column[:num_rows].tolist() for column in columns), strict=True))


def through_json(saved: Any) -> Any:
    return json.loads(json.dumps(saved))


def words(state: arsrc.SourceState) -> tuple[int, int, list[int]]:
    return int(state.index), int(state.epoch), np.asarray(jax.random.key_data(state.key)).tolist()


@given(
    step=st.integers(0, 200),
    further=st.integers(0, 40),
    stages=st.lists(st.tuples(st.integers(1, 50), st.tuples(*[st.integers(1, 4)] * 3)), max_size=2),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_state_goes_on_as_if_nothing_had_happened_twice(
    make: Any, step: int, further: int, stages: Any, seed: int
) -> None:
    later = dict(stages)
    mix = make(None, stages=[(0, (4, 2, 1)), *sorted(later.items())], seed=seed)
    state = arsrc.state_at(mix, step)
    for _ in range(2):
        restored = arsrc.from_state_dict(mix, through_json(arsrc.to_state_dict(mix, state)))
        assert words(restored) == words(state)
        assert rows(mix, restored, 9) == rows(mix, state, 9)
        state = arsrc.advance(mix, state, further)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.parametrize("step", [0, 1, 7, 30])
def test_a_state_goes_on_at_the_same_row_with_another_batch_size(make: Any, batch_size: int, step: int) -> None:
    mix = make()
    state = arsrc.state_at(mix, step)
    other = dataclasses.replace(mix, batch_size=batch_size)
    restored = arsrc.from_state_dict(other, through_json(arsrc.to_state_dict(mix, state)))
    assert rows(other, restored, 70) == rows(mix, state, 70)
    assert arsrc.source_counts(other, restored) == arsrc.source_counts(mix, state)
    back = arsrc.from_state_dict(mix, through_json(arsrc.to_state_dict(other, restored)))
    assert words(back) == words(state)


@pytest.mark.parametrize("step", [1, 4, 19])
def test_weights_that_change_at_a_restart_begin_no_source_again(make: Any, step: int) -> None:
    mix = make((4, 2, 1))
    state = arsrc.state_at(mix, step)
    counts = arsrc.source_counts(mix, state)
    changed = dataclasses.replace(mix, weights=None, stages=[(0, (4, 2, 1)), (step, (1, 1, 1))])
    restored = arsrc.from_state_dict(changed, through_json(arsrc.to_state_dict(mix, state)))
    assert arsrc.source_counts(changed, restored) == counts
    after = rows(changed, restored, 30)
    firsts = np.cumsum([0, *SIZES])
    for number, (size, count) in enumerate(zip(SIZES, counts, strict=True)):
        alone = Config(mix.sources[number].paths, 1, CODEC, shuffle_records=True)
        stream = arsrc.iterate(alone, arsrc.state_at(alone, count, jax.random.fold_in(state.key, number)))
        wanted = [int(batch.record_ids[0]) + firsts[number] for _, batch in itertools.islice(stream, 10)]
        found = [record_id for record_id, _, _ in after if firsts[number] <= record_id < firsts[number] + size]
        assert found == wanted
    # And it is the stream of a run that had the stages from its beginning.
    assert after == rows(changed, arsrc.state_at(changed, step), 30)
    again = dataclasses.replace(mix, weights=None, stages=[*changed.stages, (step + 2, (0, 0, 1))])
    state = arsrc.advance(changed, restored, 2)
    restored = arsrc.from_state_dict(again, through_json(arsrc.to_state_dict(changed, state)))
    assert all(record_id >= 30 for record_id, _, _ in rows(again, restored, 10))


def test_the_advice_that_refuses_other_weights_is_right_as_it_stands(make: Any) -> None:
    mix = make((4, 2, 1))
    saved = through_json(arsrc.to_state_dict(mix, arsrc.state_at(mix, 7)))
    other = make((1, 1, 1))
    with pytest.raises(arsrc.ArsrcValueError) as caught:
        arsrc.from_state_dict(other, saved)
    text = str(caught.value)
    assert "[20, 10, 5]" in text
    advised = text[text.index("stages=") + 7 : text.index("):\n") + 1].replace("(...)", "(1, 1, 1)")
    fits = dataclasses.replace(other, weights=None, stages=eval(advised))
    assert arsrc.source_counts(fits, arsrc.from_state_dict(fits, saved)) == (20, 10, 5)


def test_a_stage_that_ends_within_a_batch_of_another_size_is_refused(make: Any) -> None:
    mix = make(None, stages=[(0, (1, 1, 1)), (3, (1, 0, 0))])
    saved = arsrc.to_state_dict(mix, arsrc.state_at(mix, 8))
    with pytest.raises(arsrc.ArsrcValueError, match="no whole number of batches of 4"):
        arsrc.from_state_dict(dataclasses.replace(mix, batch_size=4), saved)
    same = dataclasses.replace(mix, batch_size=1, stages=[(0, (1, 1, 1)), (15, (1, 0, 0))])
    assert rows(same, arsrc.from_state_dict(same, saved), 30) == rows(mix, arsrc.state_at(mix, 8), 30)


def test_equal_shares_are_equal_however_they_are_written(make: Any) -> None:
    mix = make((4, 2, 1))
    saved = arsrc.to_state_dict(mix, arsrc.state_at(mix, 9))
    for same in (
        make((40, 20, 10)),
        make(None, stages=[(0, (8, 4, 2))]),
        make(None, stages=[(0, (4, 2, 1)), (9, (1, 1, 0))]),
    ):
        assert arsrc.source_counts(same, arsrc.from_state_dict(same, saved)) == arsrc.source_counts(
            mix, arsrc.state_at(mix, 9)
        )


@pytest.mark.parametrize("stop", ["first", "all"])
def test_an_exhausted_state_stays_exhausted(make: Any, stop: str) -> None:
    endless = make()
    sources = [dataclasses.replace(one, num_epochs=3) for one in endless.sources]
    mix = dataclasses.replace(endless, sources=sources, stop=stop)
    end = arsrc.state_at(mix, arsrc.total_steps(mix) + 3)
    restored = arsrc.from_state_dict(mix, through_json(arsrc.to_state_dict(mix, end)))
    assert words(restored) == words(end)
    assert arsrc.is_exhausted(mix, restored)
    assert list(arsrc.iterate(mix, restored)) == []
    longer = arsrc.from_state_dict(endless, arsrc.to_state_dict(mix, arsrc.state_at(mix, 2)))
    assert rows(endless, longer, 20) == rows(endless, arsrc.state_at(endless, 2), 20)


@pytest.mark.parametrize("num_epochs", [1, 2, 4])
def test_a_state_behind_an_end_that_came_nearer_is_exhausted(make: Any, num_epochs: int) -> None:
    endless = make()
    saved = arsrc.to_state_dict(endless, arsrc.state_at(endless, 500))
    sources = [dataclasses.replace(one, num_epochs=num_epochs) for one in endless.sources]
    for stop in ("first", "all"):
        mix = dataclasses.replace(endless, sources=sources, stop=stop)
        restored = arsrc.from_state_dict(mix, saved)
        assert arsrc.is_exhausted(mix, restored)
        assert list(arsrc.iterate(mix, restored)) == []
        assert not arsrc.peek(mix, restored).mask.any()


def refused(mix: MixtureConfig, saved: Any) -> str:
    with pytest.raises(arsrc.ArsrcValueError) as caught:
        arsrc.from_state_dict(mix, saved)
    return str(caught.value)


def test_other_sources_are_refused_with_those_that_differ(make: Any, paths: list[str], tmp_path: Path) -> None:
    mix = make()
    a, b, c = mix.sources
    saved = through_json(arsrc.to_state_dict(mix, arsrc.state_at(mix, 3)))
    both = "belongs to other data or another order"
    added = refused(make((4, 2, 1, 1), sources=[a, b, c, a]), saved)
    assert both in added
    assert all(part in added for part in ("3 sources", "4 sources"))
    assert "2 sources" in refused(make((4, 2), sources=[a, b]), saved)
    swapped = refused(make(sources=[b, a, c]), saved)
    assert all(part in swapped for part in ("saved, source 0:", "config, source 1:"))
    assert "source 2:" not in swapped
    for other in (
        dataclasses.replace(b, shuffle_records=False),
        dataclasses.replace(b, shuffle_block_size=2),
        dataclasses.replace(b, select=[1, 2]),
        dataclasses.replace(b, paths=write(tmp_path / "other", 5, 7)),
    ):
        text = refused(make(sources=[a, other, c]), saved)
        assert both in text
        assert "source 1:" in text
        assert "source 0:" not in text
    assert both in refused(mix, arsrc.to_state_dict(a, arsrc.init(a)))
    with pytest.raises(arsrc.ArsrcValueError, match=both):
        arsrc.from_state_dict(a, saved)


def test_a_source_whose_file_was_written_anew_is_refused(make: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "own", 7, 9)
    own = Config(path, 1, CODEC)
    mix = make((1, 1), sources=[make().sources[0], own])
    saved = arsrc.to_state_dict(mix, arsrc.state_at(mix, 3))
    write(tmp_path / "own", 8, 9)
    assert "source 1:" in refused(mix, saved)
    write(tmp_path / "own", 7, 9)
    assert rows(mix, arsrc.from_state_dict(mix, saved), 8) == rows(mix, arsrc.state_at(mix, 3), 8)


def test_records_of_a_source_that_were_excluded_may_not_come_back(make: Any) -> None:
    mix = make()
    a, b, c = mix.sources
    fewer = make(sources=[a, dataclasses.replace(b, exclude=[2]), c])
    saved = through_json(arsrc.to_state_dict(fewer, arsrc.state_at(fewer, 3)))
    assert saved["exclude"] == [[25, 26]]
    assert "would come back" in refused(mix, saved)
    assert "would come back" in refused(make(sources=[dataclasses.replace(a, exclude=[2]), b, c]), saved)
    more = make(sources=[dataclasses.replace(a, exclude=[2]), dataclasses.replace(b, exclude=[(1, 4)]), c])
    assert words(arsrc.from_state_dict(more, saved)) == words(arsrc.state_at(more, 3))


# Damage.

ODD = [None, True, -1, 1.5, float("nan"), float("inf"), "12", b"", [], {}, [[]], [None], 10**400, {"a": 1}, object()]


@pytest.mark.parametrize("value", ODD, ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize("field", ["source_rows", "stages", "index", "epoch", "fingerprint", "exclude", "key_words"])
def test_a_damaged_entry_is_refused_by_a_typed_error(make: Any, field: str, value: Any) -> None:
    mix = make()
    saved = arsrc.to_state_dict(mix, arsrc.state_at(mix, 3))
    if (field, repr(value)) in {("exclude", "[]")}:
        return
    text = refused(mix, saved | {field: value})
    assert text.startswith("[arsrc] from_state_dict: ")


@pytest.mark.parametrize(
    "changes",
    [
        {"stages": [[0, [1.0, None]]]},
        {"stages": [["a", [1.0]]]},
        {"stages": [[0]]},
        {"stages": [[0.5, [1, 1, 1]]]},
        {"source_rows": [9, 4]},
        {"source_rows": [9, 4, True]},
        {"source_rows": [9, 4, 2.0]},
        {"source_rows": "942"},
    ],
    ids=str,
)
def test_damaged_rows_of_sources_are_refused(make: Any, changes: Any) -> None:
    mix = make()
    refused(mix, arsrc.to_state_dict(mix, arsrc.state_at(mix, 3)) | changes)


@pytest.mark.parametrize("field", ["source_rows", "stages"])
def test_a_state_without_an_entry_of_mixtures_is_refused(make: Any, field: str) -> None:
    mix = make()
    saved = arsrc.to_state_dict(mix, arsrc.init(mix))
    del saved[field]
    assert field in refused(mix, saved)


def test_a_fingerprint_that_goes_on_behind_its_end_is_refused_with_both_sides(make: Any) -> None:
    mix = make()
    saved = arsrc.to_state_dict(mix, arsrc.init(mix))
    text = refused(mix, saved | {"fingerprint": saved["fingerprint"] + " | more"})
    assert "more" in text.splitlines()[1]
    assert "config:" in text.splitlines()[2]


def test_a_saver_that_makes_arrays_of_numbers_gives_the_state_back(make: Any) -> None:
    mix = make()
    state = arsrc.state_at(mix, 3)
    saved = arsrc.to_state_dict(mix, state)
    arrays = saved | {
        "index": jnp.asarray(saved["index"]),
        "source_rows": np.array(saved["source_rows"]),
        "key_words": np.array(saved["key_words"], np.uint32),
        "stages": [[np.int64(0), np.array(mix.weights)]],
    }
    assert words(arsrc.from_state_dict(mix, arrays)) == words(state)


# What else identifies a mixture.


def test_a_fingerprint_changes_with_weights_sources_and_what_they_exclude(make: Any) -> None:
    mix = make()
    a, b, c = mix.sources
    others = [
        make((1, 1, 1)),
        make(None, stages=[(0, (4, 2, 1)), (5, (1, 1, 1))]),
        make(None, stages=[(0, (4, 2, 1)), (6, (1, 1, 1))]),
        make(stop="all"),
        make((4, 2), sources=[a, b]),
        make(sources=[b, a, c]),
        make(sources=[a, b, dataclasses.replace(c, shuffle_records=False)]),
        make(sources=[dataclasses.replace(a, exclude=[3]), b, c]),
        make(sources=[a, dataclasses.replace(b, exclude=[3]), c]),
        make(sources=[dataclasses.replace(a, exclude=[3]), dataclasses.replace(b, exclude=[3]), c]),
    ]
    found = [arsrc.fingerprint(one) for one in (mix, *others)]
    assert len(set(found)) == len(found)
    assert not any("\n" in text for text in found)
    for kept in (found[0], *found[-3:]):  # those that differ in what is excluded
        for same in (mix, *others[-3:]):
            arsrc.check(same, kept)
        for number, other in enumerate(others[:-3]):
            with pytest.raises(arsrc.ArsrcValueError, match=r"^\[arsrc\] check: ") as caught:
                arsrc.check(other, kept)
            assert ("weights:" in str(caught.value)) == (number < 4)


def test_what_changes_neither_data_nor_order_changes_no_fingerprint(make: Any) -> None:
    mix = make()
    named = [dataclasses.replace(one, batch_size=9, seed=3, name="a", cacheable=True) for one in mix.sources]
    for same in (make((8, 4, 2)), make(batch_size=9), make(seed=1, name="b"), make(sources=named)):
        assert arsrc.fingerprint(same) == arsrc.fingerprint(mix)


def test_a_state_is_a_plain_tree_of_three_arrays(make: Any) -> None:
    mix = make()
    state = arsrc.state_at(mix, 3)
    assert len(jax.tree.leaves(state)) == 3
    assert (state.index.shape, state.epoch.shape, state.key.shape) == ((), (), ())
    arrays = {
        "index": np.asarray(state.index),
        "epoch": np.asarray(state.epoch),
        "key": np.asarray(jax.random.key_data(state.key)),
    }
    restored = arsrc.SourceState(
        index=jnp.asarray(arrays["index"]),
        epoch=jnp.asarray(arrays["epoch"]),
        key=jax.random.wrap_key_data(arrays["key"]),
    )
    assert rows(mix, restored, 20) == rows(mix, state, 20)


def test_to_state_dict_refuses_a_traced_state(make: Any) -> None:
    mix = make()
    with pytest.raises(arsrc.ArsrcTypeError, match="runs on the host"):
        jax.jit(lambda state: arsrc.to_state_dict(mix, state))(arsrc.init(mix))
