"""`pack`: records that are documents become rows of tokens, and each token stands in one row, once."""

import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import arsrc
from arsrc import Packing
from arsrc.codecs import Map, Ragged, Struct, TFExample

Config = arsrc.ArrayRecordSourceConfig
WriteRecords = Callable[..., str]

RNG = np.random.default_rng(0)
LENGTHS = [0, 3, 40, 7, 16, 1, 0, 33, *RNG.integers(1, 30, 60).tolist(), 5]
DOCUMENTS = [np.arange(length, dtype=np.int32) + 1000 * number for number, length in enumerate(LENGTHS)]
N = len(DOCUMENTS)
LAYOUTS = ("group_size:1,uncompressed", "group_size:1,zstd", "group_size:8,zstd", "group_size:4,uncompressed")
CODEC = Ragged("int32", max_length=64)
PACKINGS = [
    Packing(16, how, longer=longer, end_of_document=end, pad_value=-1, targets=targets)
    for how in ("split", "fit")
    for longer, end, targets in (("cut", None, False), ("cut", 7, True), ("truncate", 7, True), ("drop", None, True))
]
OPTIONS: dict[str, Any] = {"remainder": "pad", "num_epochs": 1}


@pytest.fixture(scope="module")
def paths(records_dir: Path, write_records: WriteRecords) -> tuple[str, ...]:
    """The documents in files of several layouts."""
    cuts = [0, 10, 30, 50, N]
    return tuple(
        write_records(records_dir / f"pack-{number}", [d.tobytes() for d in DOCUMENTS[a:b]], options)
        for number, (a, b, options) in enumerate(zip(cuts[:-1], cuts[1:], LAYOUTS, strict=True))
    )


@pytest.fixture(scope="module")
def path(records_dir: Path, write_records: WriteRecords) -> str:
    """The documents in one file that is copied from its map."""
    return write_records(records_dir / "pack", [d.tobytes() for d in DOCUMENTS], LAYOUTS[0])


def rows_of(config: Config) -> dict[str, np.ndarray]:
    """All rows of a config's data set, by their numbers."""
    return {name: np.asarray(leaf) for name, leaf in arsrc.load_resident(config).items()}


def equal(a: Any, b: Any) -> bool:
    return jax.tree.all(jax.tree.map(np.array_equal, a, b))


def documents_in(rows: dict[str, np.ndarray], packing: Packing) -> dict[int, list[int]]:
    """The tokens of each document, by its number, as rows hold them; checks what stands beside them."""
    found: dict[int, list[int]] = {}
    pieces = []
    for row in range(len(rows["tokens"])):
        segments = rows["segment_ids"][row]
        for number in range(1, int(segments.max()) + 1):
            at = np.flatnonzero(segments == number)
            assert at.tolist() == list(range(at[0], at[-1] + 1))
            assert rows["positions"][row, at].tolist() == list(range(len(at)))
            tokens = rows["tokens"][row, at].tolist()
            pieces.append(tokens)
            if packing.targets:
                targets, there = rows["targets"][row, at], rows["target_segment_ids"][row, at] != 0
                assert targets[:-1].tolist() == tokens[1:]
                assert there[:-1].all()
                assert there[-1] or targets[-1] == packing.pad_value
        padding = segments == 0
        assert (rows["tokens"][row, padding] == packing.pad_value).all()
        assert (rows["positions"][row, padding] == 0).all()
    for tokens in sorted(pieces, key=lambda tokens: tokens[0]):
        body = tokens[:-1] if packing.end_of_document is not None and tokens[-1] == packing.end_of_document else tokens
        if not body:
            continue
        document, start = divmod(body[0], 1000)
        assert start == len(found.setdefault(document, []))
        found[document] += body
    return found


@pytest.mark.parametrize("packing", PACKINGS, ids=repr)
def test_rows_hold_each_token_once(path: str, packing: Packing):
    rows = rows_of(Config(path, 4, CODEC, pack=packing))
    assert {leaf.dtype.name for leaf in rows.values()} == {"int32"}
    room = packing.length - (packing.end_of_document is not None)
    wanted = {number: document.tolist() for number, document in enumerate(DOCUMENTS) if len(document)}
    if packing.longer == "truncate":
        wanted = {number: tokens[:room] for number, tokens in wanted.items()}
    if packing.longer == "drop":
        wanted = {number: tokens for number, tokens in wanted.items() if len(tokens) <= room}
    assert documents_in(rows, packing) == wanted


@pytest.mark.parametrize("packing", PACKINGS[::3], ids=repr)
@pytest.mark.parametrize(
    "options", [{}, {"checksum": "always"}, {"checksum": "first"}, {"timeout_seconds": 60}, {"read_ahead_bytes": 0}]
)
def test_rows_are_the_same_however_files_are_laid_out_and_read(
    path: str, paths: tuple[str, ...], packing: Packing, options: Any
):
    wanted = rows_of(Config(path, 4, CODEC, pack=packing))
    read = arsrc.ReadOptions(**options)
    for _ in range(2):
        assert equal(rows_of(Config(path, 4, CODEC, pack=packing, read=read)), wanted)
    assert equal(rows_of(Config(paths, 4, CODEC, pack=packing, read=read)), wanted)
    for alone in paths:
        config = Config(alone, 1, CODEC, pack=packing, read=read)
        assert documents_in(rows_of(config), packing)


def test_rows_are_the_same_whatever_codec_the_documents_have(path: str, tmp_path: Path, write_records: WriteRecords):
    packing = PACKINGS[-2]
    wanted = rows_of(Config(path, 4, CODEC, pack=packing))
    codec = TFExample({"tokens": Ragged("int32", max_length=64), "id": ("int32", ())})
    padded = [np.pad(d, (0, 64 - len(d))) for d in DOCUMENTS]
    elements = {
        "tokens": {"values": np.stack(padded), "length": np.array(LENGTHS, np.int32)},
        "id": np.arange(N, dtype=np.int32),
    }
    (examples,) = arsrc.write_array_record(tmp_path / "examples", elements, codec=codec)
    assert equal(rows_of(Config(examples, 4, codec, pack=packing)), wanted)
    small = [Config(path, 4, Ragged(dtype, max_length=64), pack=packing) for dtype in ("uint16", "int64")]
    for config, dtype in zip(small, ("uint16", "int64"), strict=True):
        other = write_records(tmp_path / dtype, [d.astype(dtype).tobytes() for d in DOCUMENTS], LAYOUTS[0])
        narrow = dtype == "uint16"
        found = rows_of(dataclasses.replace(config, paths=other))
        if narrow:
            assert equal(found["segment_ids"], wanted["segment_ids"])
            inside = wanted["segment_ids"] != 0
            assert equal(found["tokens"][inside] % 65536, wanted["tokens"][inside] % 65536)
        else:
            assert equal(found, wanted)


def test_documents_of_one_length_are_packed_too(tmp_path: Path):
    tokens = np.arange(60, dtype=np.int32).reshape(12, 5)
    codec = Struct({"tokens": ("int32", (5,))})
    (path,) = arsrc.write_array_record(tmp_path / "fixed", {"tokens": tokens}, codec=codec)
    rows = rows_of(Config(path, 1, codec, pack=Packing(8)))
    assert rows["tokens"].ravel().tolist() == [*range(60), *[0] * 4]
    by_function = Map(lambda record: np.frombuffer(record, np.int32))
    assert equal(rows_of(Config(path, 1, by_function, pack=Packing(8))), rows)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.integers(1, 24), st.booleans(), st.integers(1, 5))
def test_any_documents_come_back_in_any_batches(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], length: int, is_fit: bool, batch_size: int
):
    documents = [np.arange(n, dtype=np.int32) + 1000 * number for number, n in enumerate(lengths)]
    folder = tmp_path_factory.mktemp("any")
    (path,) = arsrc.write_array_record(folder / "any", (d.tobytes() for d in documents))
    packing = Packing(length, "fit" if is_fit else "split")
    config = Config(path, batch_size, CODEC, pack=packing, shuffle_records=True, **OPTIONS)
    if not any(lengths):
        with pytest.raises(arsrc.ArsrcValueError, match="pack: no document has tokens"):
            arsrc.init(config)
        return
    batches = [batch for _, batch in arsrc.iterate(config)]
    mask = np.concatenate([batch.mask for batch in batches])
    ids = np.concatenate([batch.record_ids for batch in batches])[mask]
    assert sorted(ids.tolist()) == list(range(arsrc.num_records(config)))
    names = batches[0].data
    rows = {name: np.concatenate([batch.data[name] for batch in batches])[mask][np.argsort(ids)] for name in names}
    wanted = {number: d.tolist() for number, d in enumerate(documents) if len(d)}
    assert documents_in(rows, packing) == wanted
    arsrc.close(config)


@pytest.mark.parametrize("packing", [PACKINGS[1], PACKINGS[4]], ids=repr)
@pytest.mark.parametrize(
    "order",
    [
        {},
        {"shuffle_records": True},
        {"shuffle_records": True, "shuffle_block_size": 4, "shuffle_window_blocks": 2},
        {"shuffle_files": True},
    ],
)
def test_orders_epochs_and_loops_are_those_of_rows(paths: tuple[str, ...], packing: Packing, order: Any):
    config = Config(paths, 5, CODEC, pack=packing, num_epochs=2, remainder="wrap", **order)
    table, num_rows = rows_of(config), arsrc.num_records(config)
    steps = list(arsrc.iterate(config))
    assert len(steps) == arsrc.total_steps(config)
    seen: list[int] = []
    for _, batch in steps:
        ids = np.asarray(batch.record_ids)[np.asarray(batch.mask)]
        seen += ids.tolist()
        for name, leaf in batch.data.items():
            assert equal(np.asarray(leaf)[np.asarray(batch.mask)], table[name][ids])
    assert sorted(seen) == sorted([*range(num_rows)] * 2)
    assert sorted(seen[:num_rows]) == list(range(num_rows))
    _, _, batches = arsrc.scan_steps(
        config, arsrc.init(config), None, lambda carry, batch: (carry, batch), len(steps), batches_per_fetch=3
    )
    assert equal([jax.tree.map(lambda leaf, at=at: leaf[at], batches.data) for at in range(len(steps))],
                 [batch.data for _, batch in steps])  # fmt: skip
    resident = arsrc.next_batch(config, arsrc.init(config), resident=arsrc.load_resident(config))
    assert equal(resident[1].data, steps[0][1].data)
    assert equal(arsrc.next_batch(config, arsrc.init(config))[1].data, steps[0][1].data)
    cached = dataclasses.replace(config, cacheable=True)
    for _ in range(2):
        assert equal([batch.data for _, batch in arsrc.iterate(cached)], [batch.data for _, batch in steps])


def test_files_shuffled_move_rows_of_the_same_file_together(paths: tuple[str, ...]):
    config = Config(paths, 1, CODEC, pack=Packing(16, "fit"), shuffle_files=True, num_epochs=1)
    first = [int(batch.data["tokens"][0, 0]) // 1000 for _, batch in arsrc.iterate(config)]
    files = np.searchsorted([10, 30, 50], first, side="right")
    assert len(np.unique(files[np.flatnonzero(np.diff(files))])) <= 4
    assert (np.diff(np.flatnonzero(np.diff(files))) > 0).all()
    assert np.count_nonzero(np.diff(files)) == 3


# Some documents: selected, excluded, bad.


@pytest.mark.parametrize("how", ["split", "fit"])
def test_selected_documents_are_packed_as_if_there_were_no_others(
    paths: tuple[str, ...], tmp_path: Path, write_records: WriteRecords, how: Any
):
    select = np.arange(1, N, 3)
    other = write_records(tmp_path / "some", [DOCUMENTS[i].tobytes() for i in select])
    packing = Packing(16, how, targets=True)
    found = rows_of(Config(paths, 4, CODEC, pack=packing, select=select))
    assert equal(found, rows_of(Config(other, 4, CODEC, pack=packing)))


@pytest.mark.parametrize("packing", [PACKINGS[0], PACKINGS[5]], ids=repr)
@pytest.mark.parametrize("codec", [CODEC, Map(lambda record: {"values": np.resize(np.frombuffer(record, np.int32), 64),
                                                             "length": np.int32(len(record) // 4)})])  # fmt: skip
def test_an_excluded_document_leaves_padding_where_it_stood(path: str, packing: Packing, codec: Any):
    config = Config(path, 4, codec, pack=packing)
    whole, holed = rows_of(config), rows_of(dataclasses.replace(config, exclude=[2, (10, 13)]))
    is_out = np.isin(whole["tokens"] // 1000, [2, 10, 11, 12]) & (whole["segment_ids"] != 0)
    is_out |= whole["tokens"] == 7
    inside = ~is_out & (whole["segment_ids"] != 0)
    for name in ("tokens", "segment_ids", "positions"):
        assert equal(holed[name][inside], whole[name][inside])
    gone = holed["segment_ids"][np.isin(whole["tokens"] // 1000, [2, 10, 11, 12]) & (whole["segment_ids"] != 0)]
    assert not gone.any()
    assert (holed["tokens"][holed["segment_ids"] == 0] == packing.pad_value).all()
    assert not np.isin(holed["tokens"][holed["segment_ids"] != 0] // 1000, [2, 10, 11, 12]).any()
    with pytest.raises(arsrc.ArsrcValueError, match=f"exclude: excludes all {N} records"):
        arsrc.init(dataclasses.replace(config, exclude=[(0, N)]))


def flipped(tmp_path: Path, write_records: WriteRecords, bad: int) -> str:
    """A file in which the bytes of a document are not what their hash says."""
    path = Path(write_records(tmp_path / "flipped", [d.tobytes() for d in DOCUMENTS], LAYOUTS[0]))
    content = bytearray(path.read_bytes())
    content[content.index(DOCUMENTS[bad].tobytes())] ^= 1
    path.write_bytes(content)
    return str(path)


def test_a_document_that_cannot_be_read_is_an_error_or_leaves_padding(tmp_path: Path, write_records: WriteRecords):
    path = flipped(tmp_path, write_records, 2)
    read = arsrc.ReadOptions(checksum="always")
    config = Config(path, 2, CODEC, pack=Packing(16), read=read, **OPTIONS)
    with pytest.raises(arsrc.ArsrcReadError) as caught:
        list(arsrc.iterate(config))
    assert (caught.value.record_id, caught.value.position) == (2, 2)
    assert arsrc.bad_records(config).ids == (2,)
    masked, excluded = dataclasses.replace(config, on_bad_record="mask"), dataclasses.replace(config, exclude=[2])
    here = dataclasses.replace(masked, read=arsrc.ReadOptions(checksum="always", ahead="never"))
    for batches_per_fetch, one in ((1, masked), (3, masked), (1, here), (3, here)):
        _, _, (rows, mask) = arsrc.scan_epoch(
            one,
            arsrc.init(one),
            None,
            lambda carry, batch: (carry, (batch.data, batch.mask)),
            batches_per_fetch=batches_per_fetch,
        )
        wanted = jax.tree.map(lambda *leaves: np.stack(leaves), *(b.data for _, b in arsrc.iterate(excluded)))
        assert equal(rows, wanted)
        assert np.asarray(mask).sum() == arsrc.num_records(config)
        assert arsrc.bad_records(one).ids == (2,)


def test_a_document_that_does_not_fit_its_codec_is_told_of_when_the_table_is_made(
    tmp_path: Path, write_records: WriteRecords, caplog: pytest.LogCaptureFixture
):
    records = [b"abcd", b"abcdefgh", b"abc", b"abcdefghijkl"]
    path = write_records(tmp_path / "odd", records)
    config = Config(path, 1, CODEC, pack=Packing(2), **OPTIONS)
    with pytest.raises(arsrc.ArsrcValueError, match=r"record 2 \(record 2 of .*no whole number of int32") as caught:
        arsrc.init(config)
    assert (caught.value.record_id, caught.value.position) == (2, 2)
    excluded = rows_of(dataclasses.replace(config, exclude=[2]))
    masked = dataclasses.replace(config, on_bad_record="mask", read=arsrc.ReadOptions(cache_dir=str(tmp_path / "kept")))
    for _ in range(2):
        assert equal(arsrc.load_resident(masked)[0], excluded)
        assert arsrc.bad_records(masked).ids == (2,)
        assert arsrc.bad_records(masked).positions == (2,)
        arsrc.close(masked)
    with pytest.raises(arsrc.ArsrcValueError, match="record 2 "):  # what lacks documents is not kept
        arsrc.init(dataclasses.replace(masked, on_bad_record="raise"))
    long = Config(path, 1, Ragged("int32", max_length=2), pack=Packing(2))
    with pytest.raises(arsrc.ArsrcValueError, match=r"record 2 .*no whole number|record 3 .*max_length is 2"):
        arsrc.init(long)


# The table is kept.


def test_a_table_is_made_once_and_kept_in_a_file(
    path: str, paths: tuple[str, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    read = arsrc.ReadOptions(cache_dir=str(tmp_path))
    codec = Map(
        lambda record: {"values": np.resize(np.frombuffer(record, np.int32), 64), "length": np.int32(len(record) // 4)}
    )
    config = Config(path, 4, codec, pack=Packing(16, "fit"), read=read)
    wanted = rows_of(config)
    (table,) = tmp_path.glob("*.rows")
    content = table.read_bytes()
    arsrc.close()
    arsrc.init(config)
    assert arsrc.io_metrics(config)["records_read"] == 0
    assert equal(rows_of(config), wanted)
    for other in (
        dataclasses.replace(config, pack=Packing(16, "split")),
        dataclasses.replace(config, select=[1, 2, 3]),
    ):
        assert not equal(rows_of(other)["tokens"], wanted["tokens"])
    assert len(list(tmp_path.glob("*.rows"))) == 3
    for wrong in (content[:-1], content[:200], b"", content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]):
        arsrc.close()
        table.write_bytes(wrong)
        with caplog.at_level(logging.WARNING, "arsrc"):
            assert equal(rows_of(config), wanted)
        assert "it is made again" in caplog.text
        assert table.read_bytes() == content
        caplog.clear()


def test_a_checkpoint_belongs_to_one_packing(path: str):
    config = Config(path, 4, CODEC, shuffle_records=True, pack=Packing(16))
    state = arsrc.advance(config, arsrc.init(config), 3)
    saved = json.loads(json.dumps(arsrc.to_state_dict(config, state)))
    same = dataclasses.replace(config, batch_size=2, pack=Packing(16, pad_value=5, targets=True))
    assert int(arsrc.from_state_dict(same, saved).index) == int(state.index)
    for packing in (Packing(16, "fit"), Packing(8), Packing(16, longer="drop"), Packing(16, end_of_document=3), None):
        with pytest.raises(arsrc.ArsrcValueError, match="belongs to other data or another order"):
            arsrc.from_state_dict(dataclasses.replace(config, pack=packing), saved)


def test_cached_rows_are_of_one_exclusion_and_none_lacks_a_document_for_ever(
    path: str, tmp_path: Path, write_records: WriteRecords
):
    kept = arsrc.ReadOptions(cache_bytes=0, cache_dir=str(tmp_path / "cache"))
    config = Config(path, 4, CODEC, pack=Packing(16), cacheable=True, read=kept)
    plain = [rows_of(dataclasses.replace(config, cacheable=False, exclude=exclude)) for exclude in ((), (2,), (5,))]
    for _ in range(2):
        for exclude, wanted in zip(((2,), (), (5,)), (plain[1], plain[0], plain[2]), strict=True):
            assert equal(rows_of(dataclasses.replace(config, exclude=exclude)), wanted)
    fails = {"now": False}

    def decode(record: bytes) -> Any:
        if fails["now"] and len(record) == 4 * LENGTHS[2]:
            raise ValueError("for once")
        return {"values": np.resize(np.frombuffer(record, np.int32), 64), "length": np.int32(len(record) // 4)}

    masked = Config(path, 4, Map(decode), pack=Packing(16), cacheable=True, on_bad_record="mask")
    arsrc.init(masked)
    for now, wanted in ((True, plain[1]), (False, plain[0]), (True, plain[0])):
        fails["now"] = now
        assert equal(arsrc.load_resident(masked)[0], wanted)


@pytest.mark.parametrize("length", [-1, 65, 2**31 - 1])
def test_a_length_that_no_document_can_have_is_an_error(path: str, length: int):
    def decode(record: bytes) -> Any:
        is_odd = len(record) == 4 * LENGTHS[2]
        values = np.resize(np.frombuffer(record, np.int32), 64)
        return {"values": values, "length": np.int32(length if is_odd else len(record) // 4)}

    config = Config(path, 4, Map(decode), pack=Packing(16))
    with pytest.raises(arsrc.ArsrcValueError, match=rf"record 2 .* 64 tokens at most says that it has {length}"):
        arsrc.init(config)
    wanted = rows_of(Config(path, 4, CODEC, pack=Packing(16), exclude=[2]))
    assert not equal(rows_of(dataclasses.replace(config, exclude=[2])), wanted)  # it never had a place
    assert arsrc.bad_records(dataclasses.replace(config, on_bad_record="mask")).ids == (2,)


def test_exclusions_without_an_end_stay_within_their_source(path: str):
    open_ended = Config(path, 4, CODEC, exclude=[(60, 2**32 - 1)])
    for pack in (None, Packing(16)):
        first = dataclasses.replace(open_ended, pack=pack)
        second = dataclasses.replace(first, exclude=[(0, 3), (65, 1000)])
        mixture = arsrc.MixtureConfig((first, second), (1, 1), batch_size=4)
        size = arsrc.num_records(first)
        alone = [arsrc.load_resident(one) for one in (first, second)]
        both = arsrc.load_resident(mixture)
        assert equal(both, jax.tree.map(lambda a, b: np.concatenate([a, b]), *alone))
        assert len(jax.tree.leaves(both)[0]) == 2 * size
        state = arsrc.state_at(mixture, 3)
        assert equal(arsrc.from_state_dict(mixture, arsrc.to_state_dict(mixture, state)).index, state.index)


# What cannot be packed.


@pytest.mark.parametrize(
    ("codec", "what"),
    [
        (Ragged("float32", max_length=64), "have 0"),
        (Struct({"a": ("int32", (2,)), "b": ("int32", (2,))}), r"have 2; got arrays=\"\['a'\], \['b'\]\""),
        (Struct({"a": ("int32", (2, 2))}), "have 0"),
    ],
)
def test_elements_without_one_array_of_tokens_are_refused(
    tmp_path: Path, write_records: WriteRecords, codec: Any, what: str
):
    path = write_records(tmp_path / "some", [bytes(16)] * 3)
    with pytest.raises(arsrc.ArsrcValueError, match=rf"\[arsrc\] pack: packs one array of tokens.*{what}"):
        arsrc.init(Config(path, 1, codec, pack=Packing(4)))


def test_what_is_no_packing_is_refused():
    with pytest.raises(arsrc.ArsrcTypeError, match=r"\[arsrc\] pack: must be a Packing or None"):
        Config("/a", 1, pack=16)


def test_a_token_that_does_not_fit_is_its_documents_fault(tmp_path: Path, write_records: WriteRecords):
    documents = [np.array([1, 2], np.uint32), np.array([3, 2**31], np.uint32), np.array([4], np.uint32)]
    for options in LAYOUTS[:2]:
        path = write_records(tmp_path / "large", [d.tobytes() for d in documents], options)
        config = Config(path, 1, Ragged("uint32", max_length=4), pack=Packing(2), **OPTIONS)
        for batches_per_fetch in (1, 2):
            with pytest.raises(Exception, match=r"record 1 \(record 1 of .*does not fit int32: 2147483648"):
                arsrc.scan_epoch(
                    config,
                    arsrc.init(config),
                    0,
                    lambda carry, batch: (carry, batch.data),
                    batches_per_fetch=batches_per_fetch,
                )
        with pytest.raises(arsrc.ArsrcValueError, match=r"record 1 \(record 1 of ") as caught:
            list(arsrc.iterate(config))
        assert (caught.value.record_id, caught.value.position) == (1, 1)
        assert arsrc.bad_records(config).ids == (1,)
        masked = dataclasses.replace(config, on_bad_record="mask")
        wanted = [batch.data for _, batch in arsrc.iterate(dataclasses.replace(config, exclude=[1]))]
        assert equal([batch.data for _, batch in arsrc.iterate(masked)], wanted)


def test_rows_without_a_record_are_zero(path: str):
    config = Config(path, 2, CODEC, pack=Packing(16, pad_value=5))
    batch = arsrc.take(config, [2**32 - 1, 0, 2**32 - 1])
    assert batch.mask.tolist() == [False, True, False]
    assert not np.asarray(batch.data["tokens"])[[0, 2]].any()
    assert not np.asarray(arsrc.take(config, [2**32 - 1]).data["tokens"]).any()
