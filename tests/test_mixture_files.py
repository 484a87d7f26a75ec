"""The files of mixtures: records that are bad, files that are replaced, closed, retired, or never there."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import arsrc
from arsrc import MixtureConfig, Packing, ReadOptions
from arsrc._host import open_files, registry
from arsrc.codecs import Map, Ragged, Struct

Config = arsrc.ArrayRecordSourceConfig

CODEC = Struct({"id": "uint32"})
SIZES = (20, 9, 6)
BAD = {1003, 1007, 2004}


def picky(record: bytes) -> dict[str, Any]:
    (found,) = np.frombuffer(record, "<u4")
    if found in BAD:
        raise ValueError("spoilt")
    return {"id": found}


def parse(record: bytes) -> dict[str, Any]:
    return {"id": np.frombuffer(record, "<u4")[0]}


PICKY, PLAIN = (Map(fn, {"id": jax.ShapeDtypeStruct((), np.uint32)}) for fn in (picky, parse))


@pytest.fixture(autouse=True)
def nothing_open(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(open_files, "_LOOK_SHARE", 0)  # however long looking takes on a busy machine
    arsrc.close()
    yield
    arsrc.close()


def write(path: Path, number: int, size: int) -> str:
    ids = 1000 * number + np.arange(size, dtype=np.uint32)
    return arsrc.write_array_record(path, {"id": ids}, codec=CODEC)[0]


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    return [write(tmp_path / f"{number}", number, size) for number, size in enumerate(SIZES)]


@pytest.fixture
def make(paths: list[str]) -> Callable[..., MixtureConfig]:
    """`make(*codecs, **fields)`: a mixture of the three files, which are read together where their codecs are equal."""

    def make(*codecs: Any, **fields: Any) -> MixtureConfig:
        codecs = codecs or (CODEC,) * 3
        sources = [Config(path, 2, codec, **fields) for path, codec in zip(paths, codecs, strict=True)]
        return MixtureConfig(sources, (1, 1, 1), batch_size=6)

    return make


GROUPS = {"one group": (PICKY,) * 3, "several groups": (CODEC, PICKY, PICKY), "taking turns": (PICKY, CODEC, PICKY)}


def served(mix: MixtureConfig, num_batches: int = 12, state: Any = None) -> arsrc.Batch:
    batches = [batch for _, batch in itertools.islice(arsrc.iterate(mix, state), num_batches)]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *batches)


def same(found: Any, wanted: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


# Bad records.


@pytest.mark.parametrize("cacheable", [False, True])
@pytest.mark.parametrize("groups", GROUPS)
def test_bad_records_of_sources_are_masked_as_if_they_were_excluded(make: Any, groups: str, cacheable: bool) -> None:
    codecs = GROUPS[groups]
    mix = make(*codecs, on_bad_record="mask", cacheable=cacheable)
    bad = [
        [i for i in range(size) if 1000 * number + i in BAD and codec is PICKY]
        for number, (size, codec) in enumerate(zip(SIZES, codecs, strict=True))
    ]
    healthy = make(on_bad_record="mask")
    excluded = [dataclasses.replace(one, exclude=ids) for one, ids in zip(healthy.sources, bad, strict=True)]
    wanted = served(dataclasses.replace(healthy, sources=excluded))
    for _ in range(2):
        same(served(mix), wanted)
    assert 0 < (~wanted.mask).sum() < 30
    _, eager = arsrc.next_batches(mix, arsrc.init(mix), 12)
    same(jax.tree.map(lambda leaf: np.asarray(leaf).reshape(-1), eager), wanted)
    found = arsrc.bad_records(mix)
    places = [(number, i) for number, ids in enumerate(bad) for i in ids]
    assert list(zip(found.sources, found.ids, strict=True)) == places
    assert found.paths == tuple(mix.sources[number].paths[0] for number, _ in places)
    assert found.positions == found.ids
    assert all("spoilt" in reason for reason in found.reasons)
    around = [
        dataclasses.replace(one, exclude=[i for s, i in zip(found.sources, found.ids, strict=True) if s == number])
        for number, one in enumerate(mix.sources)
    ]
    same(served(dataclasses.replace(mix, sources=around)), wanted)


@pytest.mark.parametrize("groups", GROUPS)
def test_an_error_names_the_record_of_the_source_and_the_rest_is_served(make: Any, groups: str) -> None:
    codecs = GROUPS[groups]
    mix = make(*codecs)
    wanted = served(make())
    state, errors = arsrc.init(mix), []
    for step in range(4):
        try:
            batch = arsrc.next_batch(mix, state)[1]
        except Exception as error:
            errors.append(str(error))
        else:
            same(batch, jax.tree.map(lambda leaf, step=step: leaf[6 * step : 6 * step + 6], wanted))
        state = arsrc.advance(mix, state)
    assert errors
    for text in errors:
        assert "spoilt" in text
        assert any(
            f"record {bad % 1000} (record {bad % 1000} of {mix.sources[bad // 1000].paths[0]!r})" in text for bad in BAD
        )
    with pytest.raises(arsrc.ArsrcValueError) as caught:
        served(mix)
    error = caught.value
    assert error.record_id == error.position
    assert (error.path, error.position) in {(mix.sources[bad // 1000].paths[0], bad % 1000) for bad in BAD}


def test_a_bad_first_record_is_an_error_of_init_or_is_masked(paths: list[str]) -> None:
    sources = [
        Config(paths[0], 1, CODEC, on_bad_record="mask"),
        Config(paths[2], 1, PICKY, select=[4, 5], on_bad_record="mask"),
    ]
    mix = MixtureConfig(sources, (1, 1), batch_size=4)
    batch = served(mix, 2)
    assert sorted(zip(batch.data["id"].tolist(), batch.mask.tolist(), strict=True)) == [
        (0, False), (0, False), (0, True), (1, True), (2, True), (3, True), (2005, True), (2005, True)
    ]  # fmt: skip
    raising = [dataclasses.replace(one, on_bad_record="raise") for one in sources]
    with pytest.raises(arsrc.ArsrcValueError, match=r"record 4 of '.*2'\).*spoilt"):
        served(dataclasses.replace(mix, sources=raising), 2)


def test_bytes_that_are_damaged_are_masked_in_their_source(make: Any, paths: list[str]) -> None:
    fields: dict[str, Any] = {"read": ReadOptions(checksum="always"), "on_bad_record": "mask"}
    wanted = served(make(**fields))
    arsrc.close()
    content = bytearray(Path(paths[1]).read_bytes())
    content[content.index(np.uint32(1005).tobytes())] ^= 0xFF
    Path(paths[1]).write_bytes(content)
    found = served(make(**fields))
    hit = wanted.data["id"] == 1005
    assert np.array_equal(found.mask, ~hit)
    assert not found.data["id"][hit].any()
    assert np.array_equal(found.data["id"][~hit], wanted.data["id"][~hit])
    bad = arsrc.bad_records(make(**fields))
    assert (bad.sources, bad.ids) == ((1,), (5,))


def test_excluded_documents_of_packed_sources_leave_the_rows_of_the_others_alone(
    tmp_path: Path, write_records: Any
) -> None:
    documents = [[bytes([50 * number + n + 1]) * (n % 5 + 1) for n in range(12)] for number in range(2)]
    files = [write_records(tmp_path / f"documents-{number}", some) for number, some in enumerate(documents)]
    packed = [Config(path, 1, Ragged("uint8", max_length=8), pack=Packing(6)) for path in files]
    mix = MixtureConfig(packed, (1, 1), batch_size=4)
    wanted = served(mix, 3)
    fewer = dataclasses.replace(mix, sources=[packed[0], dataclasses.replace(packed[1], exclude=[4])])
    found = served(fewer, 3)
    gone = wanted.data["tokens"] == 50 + 4 + 1
    assert gone.any()
    alone = served(dataclasses.replace(mix, sources=[packed[0]] * 2), 3)
    first = np.asarray(arsrc.source_ids(mix, found.record_ids)) == 0
    assert np.array_equal(found.data["tokens"][first], alone.data["tokens"][first])
    assert not (found.data["tokens"] == 55).any()


# Files that are replaced, gone, or of other elements.


@pytest.mark.parametrize("groups", ["one group", "several groups"])
def test_a_source_that_was_written_anew_is_read_as_it_is_now(make: Any, paths: list[str], tmp_path: Path, groups: str):
    codecs = (CODEC,) * 3 if groups == "one group" else (CODEC, PLAIN, CODEC)
    mix = make(*codecs)
    before = served(mix, 2)
    assert set(before.data["id"] // 1000) == {0, 1, 2}
    write(tmp_path / "1", 5, SIZES[1])
    state = arsrc.init(mix)
    after = served(mix, 2, state)
    assert set(after.data["id"] // 1000) == {0, 5, 2}
    same((after.mask, after.record_ids), (before.mask, before.record_ids))
    same(np.asarray(arsrc.next_batches(mix, state, 2)[1].data["id"]).ravel(), after.data["id"])
    write(tmp_path / "1", 6, 4)
    assert arsrc.num_records(mix) == 20 + 4 + 6
    assert set(served(mix, 2).data["id"] // 1000) == {0, 6, 2}


def test_a_loop_goes_on_with_the_files_with_which_it_began(make: Any, tmp_path: Path) -> None:
    mix = make(CODEC, PLAIN, CODEC)
    wanted = served(mix, 6)
    loop = arsrc.iterate(mix)
    batches = [next(loop)[1]]
    other = tmp_path / "beside"
    write(other, 5, SIZES[1])
    other.rename(tmp_path / "1")
    arsrc.init(mix)
    batches += [next(loop)[1] for _ in range(2)]
    found = np.concatenate([batch.data["id"] for batch in batches])
    same(found, wanted.data["id"][: len(found)])
    assert set(served(mix, 2).data["id"] // 1000) == {0, 5, 2}


def test_a_source_whose_file_is_gone_is_an_error_that_names_it_and_does_not_stick(make: Any, paths: list[str]) -> None:
    mix = make(CODEC, PLAIN, CODEC)
    Path(paths[1]).rename(paths[1] + "-away")
    with pytest.raises(arsrc.ArsrcFileNotFoundError, match="/1"):
        arsrc.init(mix)
    Path(paths[1] + "-away").rename(paths[1])
    assert served(mix, 1).mask.all()


@pytest.mark.parametrize("options", [{}, {"codec": PLAIN}], ids=["one group", "several groups"])
def test_a_source_with_a_wrong_selection_is_an_error_of_init(make: Any, options: Any) -> None:
    mix = make()
    wrong = dataclasses.replace(mix.sources[1], select=[100], **options)
    with pytest.raises(arsrc.ArsrcValueError, match=r"select: no such record: the data set has 9"):
        arsrc.init(dataclasses.replace(mix, sources=[mix.sources[0], wrong, mix.sources[2]]))
    wrong = dataclasses.replace(mix.sources[1], exclude=[100], **options)
    with pytest.raises(arsrc.ArsrcValueError, match=r"exclude: no such record: the data set has 9"):
        arsrc.init(dataclasses.replace(mix, sources=[mix.sources[0], wrong, mix.sources[2]]))
    assert served(mix, 1).mask.all()


@pytest.mark.parametrize(
    "codec",
    [
        Struct({"other": "uint32"}),
        Struct({"id": "int32"}),
        Struct({"id": ("uint16", 2)}),
        Map(lambda record: np.frombuffer(record, "<u4")[0], jax.ShapeDtypeStruct((), np.uint32)),
    ],
    ids=["name", "dtype", "shape", "structure"],
)
def test_sources_of_other_elements_are_refused_with_both_specs(make: Any, codec: Any) -> None:
    mix = make(CODEC, CODEC, codec)
    with pytest.raises(
        arsrc.ArsrcValueError, match=r"sources 0 and 2 have other elements[\s\S]*source 0: .*\n.*source 2: "
    ):
        arsrc.init(mix)


def test_a_packed_source_and_one_that_is_not_are_refused(make: Any, paths: list[str]) -> None:
    documents = Config(paths[0], 1, Ragged("uint32", max_length=4), pack=Packing(4))
    with pytest.raises(arsrc.ArsrcValueError, match="sources 0 and 1 have other elements"):
        arsrc.init(MixtureConfig([make().sources[0], documents], (1, 1), batch_size=2))


# How long things live.


def test_closing_a_mixture_leaves_the_sources_that_share_its_files_reading(make: Any) -> None:
    mix = make(CODEC, PLAIN, CODEC)
    one = mix.sources[1]
    alone = dataclasses.replace(one, codec=PLAIN)
    arsrc.init(alone)
    wanted = served(mix, 2)
    source = registry.source(mix)
    assert registry.source(alone).files in [group.files for group in source.groups]
    arsrc.close(mix)
    assert source.is_closed
    assert not registry.source(alone).is_closed
    assert next(arsrc.iterate(alone))[1].data["id"].tolist() == [1000, 1001]
    same(served(mix, 2), wanted)
    arsrc.close(alone)
    same(served(mix, 2), wanted)
    data_sets = [group.files.data_set for group in registry.source(mix).groups]
    arsrc.close()
    assert all(data_set.is_closed for data_set in data_sets)


@pytest.mark.parametrize("closed", ["the mixture", "a source of it", "all"])
def test_a_loop_goes_on_whatever_is_closed_meanwhile(make: Any, closed: str) -> None:
    mix = make(CODEC, PLAIN, CODEC)
    wanted = served(mix, 8)
    arsrc.init(mix.sources[0])
    found = []
    for _, batch in itertools.islice(arsrc.iterate(mix), 8):
        found.append(np.asarray(batch.data["id"]))
        arsrc.close({"the mixture": mix, "a source of it": mix.sources[0], "all": None}[closed])
    same(np.concatenate(found), wanted.data["id"])


@pytest.fixture
def none_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is not asked for at this moment is idle, and only one idle source is kept."""
    monkeypatch.setattr(registry, "_IDLE_SECONDS", 0.0)
    monkeypatch.setattr(registry, "_MOST_IDLE", 1)


def test_mixtures_that_take_turns_are_retired_and_go_on(make: Any, none_idle: None) -> None:
    mixes = [
        dataclasses.replace(make(CODEC, codec, CODEC), batch_size=size)
        for codec, size in ((PLAIN, 4), (CODEC, 4), (CODEC, 5))
    ]
    singles = [dataclasses.replace(mixes[1].sources[number], batch_size=3) for number in range(3)]
    wanted = [served(mix, 6).data["id"] for mix in mixes]
    loops = [arsrc.iterate(mix) for mix in mixes]
    found: list[list[np.ndarray]] = [[] for _ in mixes]
    for _ in range(6):
        for number, loop in enumerate(loops):
            found[number].append(np.asarray(next(loop)[1].data["id"]))
            arsrc.init(singles[number])
    for rows, of_mix in zip(found, wanted, strict=True):
        same(np.concatenate(rows), of_mix)
    assert len(registry._registry.sources) <= 3


def test_a_compiled_step_runs_on_when_its_mixture_was_closed_or_retired(make: Any, none_idle: None) -> None:
    mix = make(CODEC, PLAIN, CODEC)
    step = jax.jit(functools.partial(arsrc.next_batch, mix))
    wanted = served(mix, 3).data["id"].reshape(3, 6)
    state = arsrc.init(mix)
    for number in range(3):
        state, batch = step(state)
        same(np.asarray(batch.data["id"]), wanted[number])
        for other in range(2):
            arsrc.init(dataclasses.replace(mix.sources[0], batch_size=1 + other))
        arsrc.close()


def test_configs_of_mixtures_that_differ_in_seeds_share_all_that_is_open(make: Any) -> None:
    mix = make(CODEC, PLAIN, CODEC)
    other = dataclasses.replace(mix, seed=9, sources=[dataclasses.replace(one, seed=4) for one in mix.sources])
    assert registry.source(mix) is registry.source(other)
    larger = registry.source(dataclasses.replace(mix, batch_size=9))
    assert larger is not registry.source(mix)
    pairs = zip(larger.groups, registry.source(mix).groups, strict=True)
    assert all(a.files is b.files and a.decoded is b.decoded for a, b in pairs)


def test_kept_elements_are_forgotten_in_all_groups(make: Any) -> None:
    mix = make(CODEC, PLAIN, CODEC, cacheable=True)
    served(mix)
    hits = arsrc.io_metrics(mix)["cache_hits"]
    served(mix)
    assert arsrc.io_metrics(mix)["cache_hits"] > hits > 0
    read = arsrc.io_metrics(mix)["records_read"]
    arsrc.reset_cache(mix)
    served(mix)
    assert arsrc.io_metrics(mix)["records_read"] >= read + 20
