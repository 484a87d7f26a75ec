"""Tables of packed rows: every token once, in the rows that a slow and obvious packing says."""

import itertools
import pickle
import time
import zlib
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from arsrc.errors import ArsrcTypeError, ArsrcValueError
from arsrc.views import fit_table, pack_table
from arsrc.views.best_fit import best_fit
from arsrc.views.made_by import VERSION
from arsrc.views.pack_table import PackTable
from arsrc.views.packing import Packing

Piece = tuple[int, int, int, int]  # document, start, length, column

LENGTHS = st.lists(st.integers(0, 40), max_size=60)
SOURCES = st.lists(LENGTHS, min_size=1, max_size=4)


@st.composite
def packings(draw: Any, how: str | None = None) -> Packing:
    return Packing(
        draw(st.integers(1, 24)),
        how or draw(st.sampled_from(["split", "fit"])),  # type: ignore[arg-type]
        longer=draw(st.sampled_from(["cut", "truncate", "drop"])),
        end_of_document=draw(st.sampled_from([None, 7])),
    )


def kept(packing: Packing, length: int) -> int:
    """Tokens of a document in rows, with its end-of-document token."""
    full = length + (packing.end_of_document is not None) if length else 0
    if full > packing.length and packing.longer != "cut":
        return packing.length if packing.longer == "truncate" else 0
    return full


def rows_of(table: PackTable) -> list[list[Piece]]:
    rows: list[list[Piece]] = [[] for _ in range(table.num_rows)]
    found = table.pieces(np.arange(table.num_rows))
    for row, *piece in zip(*(values.tolist() for values in found[:5]), strict=True):
        rows[row].append(tuple(piece))
    return rows


def split_slowly(packing: Packing, lengths: list[int]) -> list[list[Piece]]:
    """Token by token."""
    tokens = [(d, i) for d, length in enumerate(lengths) for i in range(kept(packing, length))]
    rows = []
    for begin in range(0, len(tokens), packing.length):
        row: list[Piece] = []
        for column, (document, place) in enumerate(tokens[begin : begin + packing.length]):
            if row and row[-1][0] == document:
                row[-1] = (*row[-1][:2], row[-1][2] + 1, row[-1][3])
            else:
                row.append((document, place, 1, column))
        rows.append(row)
    return rows


def built_of(packing: Packing, sources: list[list[int]]) -> PackTable:
    sizes = [len(source) for source in sources]
    return pack_table.build(packing, np.array(list(itertools.chain(*sources)), np.int64), np.cumsum([0, *sizes[:-1]]))


def same(one: PackTable, other: PackTable) -> None:
    found, wanted = one.to_arrays(), other.to_arrays()
    assert found.keys() == wanted.keys()
    for name, array in found.items():
        assert array.dtype == wanted[name].dtype
        np.testing.assert_array_equal(array, wanted[name], name)


def lognormal(num_documents: int) -> np.ndarray:
    return np.clip(np.exp(np.random.default_rng(0).normal(5.5, 1, num_documents)), 10, 2000).astype(np.int64)


@hypothesis.given(packings("split"), LENGTHS)
def test_split_rows_are_those_of_a_packing_token_by_token(packing: Packing, lengths: list[int]) -> None:
    assert rows_of(pack_table.build(packing, np.array(lengths, np.int64))) == split_slowly(packing, lengths)


@hypothesis.given(packings(), LENGTHS)
def test_every_token_of_every_document_is_in_rows_once_and_in_order(packing: Packing, lengths: list[int]) -> None:
    table = pack_table.build(packing, np.array(lengths, np.int64))
    rows = rows_of(table)
    pieces = sorted(piece for row in rows for piece in row)
    tokens = [(document, start + i) for document, start, length, _ in pieces for i in range(length)]
    assert tokens == [(d, i) for d, length in enumerate(lengths) for i in range(kept(packing, length))]
    assert table.num_tokens == len(tokens)
    assert table.num_documents == len(lengths)
    assert table.fill == len(tokens) / max(1, len(rows) * packing.length)


@hypothesis.given(packings(), LENGTHS)
def test_pieces_of_a_row_lie_end_to_end_inside_of_it_in_order_of_documents(
    packing: Packing, lengths: list[int]
) -> None:
    table = pack_table.build(packing, np.array(lengths, np.int64))
    for row in rows_of(table):
        documents, _, sizes, columns = zip(*row, strict=True)
        assert list(documents) == sorted(set(documents))
        assert list(columns) == np.cumsum([0, *sizes[:-1]]).tolist()
        assert 0 < sum(sizes) <= packing.length


@hypothesis.given(packings(), SOURCES, st.randoms(use_true_random=False))
def test_any_rows_may_be_asked_for_in_any_order_and_more_than_once(
    packing: Packing, sources: list[list[int]], random: Any
) -> None:
    table = built_of(packing, sources)
    lengths = list(itertools.chain(*sources))
    rows = rows_of(table)
    asked = [random.randrange(len(rows)) for _ in range(10 if rows else 0)]
    found = table.pieces(np.array(asked, np.int64))
    wanted = [(i, *piece) for i, row in enumerate(asked) for piece in rows[row]]
    assert list(zip(*(values.tolist() for values in found[:5]), strict=True)) == wanted
    ends = packing.end_of_document is not None
    assert found.document_lengths.tolist() == [kept(packing, lengths[d]) - ends for d in found.documents]
    firsts = table.first_documents(np.arange(len(rows)))
    assert firsts.tolist() == sorted(firsts.tolist()) == [row[0][0] for row in rows]


@hypothesis.given(packings("fit"), LENGTHS)
def test_a_document_that_fits_a_row_is_in_one_piece(packing: Packing, lengths: list[int]) -> None:
    rows = rows_of(pack_table.build(packing, np.array(lengths, np.int64)))
    cut = {document for row in rows for document, start, _, _ in row if start}
    assert cut == {d for d, length in enumerate(lengths) if kept(packing, length) > packing.length}


@hypothesis.given(packings(), SOURCES)
def test_the_table_of_several_sources_has_the_rows_of_each(packing: Packing, sources: list[list[int]]) -> None:
    tables = [pack_table.build(packing, np.array(source, np.int64)) for source in sources]
    joined = built_of(packing, sources)
    documents, rows = 0, []
    for table in tables:
        rows += [[(d + documents, *piece) for d, *piece in row] for row in rows_of(table)]
        documents += table.num_documents
    assert rows_of(joined) == rows
    assert joined.num_tokens == sum(table.num_tokens for table in tables)


@hypothesis.given(packings(), SOURCES)
def test_a_table_that_was_kept_is_the_same(packing: Packing, sources: list[list[int]]) -> None:
    table = built_of(packing, sources)
    same(pack_table.from_arrays(packing, table.to_arrays()), table)


@pytest.mark.parametrize("how", ["split", "fit"])
@pytest.mark.parametrize("longer", ["cut", "truncate"])
def test_any_other_number_in_a_kept_table_is_refused_or_makes_a_table_that_holds_together(
    how: Any, longer: Any
) -> None:
    packing = Packing(8, how, longer=longer)
    arrays = pack_table.build(packing, np.array([3, 20, 0, 8, 5, 1]), np.array([0, 3])).to_arrays()
    num_refused = 0
    for name, values in arrays.items():
        for place in range(len(values)):
            for change in (-9, -1, 1, 1000):
                changed = values.copy()
                changed[place] += np.array(change).astype(values.dtype)
                try:
                    table = pack_table.from_arrays(packing, arrays | {name: changed})
                except ArsrcValueError:
                    num_refused += 1
                else:
                    assert name in ("ends", "lengths", "firsts")
                    tokens = [(d, s + i) for row in rows_of(table) for d, s, n, _ in row for i in range(n)]
                    assert len(set(tokens)) == len(tokens) == table.num_tokens
    assert num_refused > 20


@pytest.mark.parametrize("how", ["split", "fit"])
def test_what_is_no_kept_table_of_this_packing_is_refused(how: Any) -> None:
    packing = Packing(8, how)
    arrays = pack_table.build(packing, np.array([3, 20, 0, 8, 5, 1])).to_arrays()
    others = [Packing(9, how), Packing(8, "fit" if how == "split" else "split"), Packing(8, how, longer="drop")]
    for other in [*others, Packing(8, how, end_of_document=0)]:
        with pytest.raises(ArsrcValueError, match=r"^\[arsrc\] pack table: it is of another packing.*make it anew\.$"):
            pack_table.from_arrays(other, arrays)
    pack_table.from_arrays(Packing(8, how, pad_value=3, targets=True), arrays)  # which changes no table
    for name in arrays.keys() - {"made_by"}:
        values: Any = arrays[name]
        cut = [] if name == "ends" else [values[:-1]]  # a table of fewer documents
        for wrong in (*cut, values.astype(np.float64), values[None], values.tolist(), None):
            with pytest.raises(ArsrcValueError):
                pack_table.from_arrays(packing, arrays | {name: wrong})
    with pytest.raises(ArsrcValueError):
        pack_table.from_arrays(packing, {})


@pytest.mark.parametrize("lengths", [[3, -1], [2**32 - 1], [0, 2**40]])
def test_a_length_that_no_document_has_is_an_error_that_names_it(lengths: list[int]) -> None:
    with pytest.raises(
        ArsrcValueError, match=rf"^\[arsrc\] lengths: .*; got document={len(lengths) - 1}, num_tokens={lengths[-1]}\.$"
    ):
        pack_table.build(Packing(8), np.array(lengths))


# Best fit.


@hypothesis.given(st.integers(1, 70), st.lists(st.integers(1, 70), max_size=80))
def test_best_fit_is_that_of_a_loop_over_pieces_in_its_number_of_rows(length: int, sizes: list[int]) -> None:
    sizes = [min(size, length) for size in sizes]
    rows = best_fit(np.array(sizes, np.int64), length)
    rooms: list[int] = []
    for size in sorted(sizes, reverse=True):
        fitting = [(room, row) for row, room in enumerate(rooms) if room >= size]
        row = min(fitting)[1] if fitting else len(rooms)
        rooms[row : row + 1] = [(rooms[row] if fitting else length) - size]
    filled = np.bincount(rows, np.array(sizes), minlength=0) if sizes else np.empty(0)
    assert sorted(length - filled) == sorted(rooms)


@pytest.mark.parametrize("length", [128, 2048, 131_072])
def test_rows_of_documents_of_many_lengths_are_nearly_full(length: int) -> None:
    assert pack_table.build(Packing(length, "fit"), lognormal(200_000)).fill > 0.98


def test_documents_that_share_a_row_are_neighbours() -> None:
    table = pack_table.build(Packing(2048, "fit"), lognormal(50_000))
    pieces = table.pieces(np.arange(table.num_rows))
    assert np.ptp(pieces.documents // fit_table._WINDOW_DOCUMENTS) > 3
    first = table.first_documents(pieces.rows)
    assert np.all(first // fit_table._WINDOW_DOCUMENTS == pieces.documents // fit_table._WINDOW_DOCUMENTS)


@pytest.mark.parametrize(
    ("length", "num_tokens", "window"),
    [
        (64, 9, fit_table._WINDOW_DOCUMENTS),
        (2048, 10, -(-fit_table._WINDOW_ROWS * 2048 // 10)),  # tokens for enough rows
        (2**24, 1, 100_000),
    ],
)
def test_a_window_has_enough_documents_and_rows_and_progress_is_told_of_it(
    length: int, num_tokens: int, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_table, "_MOST_DOCUMENTS", 100_000)
    seen: list[tuple[int, int]] = []

    def track(windows: Any) -> Any:
        for item in windows:
            seen.append(item)
            yield item

    packing, lengths = Packing(length, "fit"), np.full(250_000, num_tokens)
    firsts = np.array([0, 1000])
    same(pack_table.build(packing, lengths, firsts, track), pack_table.build(packing, lengths, firsts))
    begins = [0, *range(1000, len(lengths), window)]
    assert seen == list(zip(begins, [*begins[1:], len(lengths)], strict=True))


# A change of these numbers is a new version of the table: what was kept would be served in other rows.
@pytest.mark.parametrize(("how", "checksum"), [("split", 2154812303), ("fit", 3282180992)])
def test_rows_are_what_they_were(how: Any, checksum: int) -> None:
    lengths = (np.arange(30_000) * 7919 % 1301).astype(np.int64)
    table = pack_table.build(Packing(512, how, end_of_document=1), lengths)
    pieces = np.stack(table.pieces(np.arange(table.num_rows)))
    assert (VERSION, zlib.crc32(pieces.astype("<i8").tobytes())) == (1, checksum)


@pytest.mark.parametrize(("how", "most_seconds"), [("split", 0.05), ("fit", 0.5)])
@pytest.mark.parametrize(
    ("length", "lengths"),
    [
        (2048, lognormal(100_000)),
        (128, lognormal(100_000)),
        (131_072, lognormal(100_000)),
        (2048, np.full(100_000, 300)),
        (2048, np.full(100_000, 1)),
        (128, np.full(100_000, 1000)),
    ],
)
def test_tables_of_a_hundred_thousand_documents_are_made_in_an_instant(
    how: Any, most_seconds: float, length: int, lengths: np.ndarray
) -> None:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        pack_table.build(Packing(length, how), lengths)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < most_seconds


@pytest.mark.parametrize("how", ["split", "fit"])
def test_tables_take_some_bytes_a_piece(how: Any) -> None:
    for length, lengths in ((2048, lognormal(100_000)), (128, np.full(10_000, 1280))):
        table = pack_table.build(Packing(length, how), lengths)
        num_bytes = sum(array.nbytes for array in table.to_arrays().values()) - 60
        num_pieces = len(table.pieces(np.arange(table.num_rows)).rows)
        assert num_bytes <= (8 * len(lengths) if how == "split" else 20 * num_pieces)


# `Packing` itself.


def test_a_packing_is_a_value_with_a_short_repr() -> None:
    packing = Packing(np.int64(2048), "fit", pad_value=np.int32(-1), targets=np.True_)
    assert repr(packing) == "Packing(length=2048, how='fit', pad_value=-1, targets=True)"
    assert packing == Packing(2048, "fit", pad_value=-1, targets=True)
    assert hash(packing) == hash(pickle.loads(pickle.dumps(packing)))
    assert {name for name in dir(packing) if not name.startswith("_")} == {
        "length", "how", "longer", "end_of_document", "pad_value", "targets",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "kind", "where"),
    [
        ({"length": 0}, ArsrcValueError, "Packing.length"),
        ({"length": 2**24 + 1}, ArsrcValueError, "Packing.length"),
        ({"length": True}, ArsrcTypeError, "Packing.length"),
        ({"length": 2.0}, ArsrcTypeError, "Packing.length"),
        ({"how": "best"}, ArsrcValueError, "Packing.how"),
        ({"how": ["fit"]}, ArsrcValueError, "Packing.how"),
        ({"longer": "wrap"}, ArsrcValueError, "Packing.longer"),
        ({"end_of_document": 2**31}, ArsrcValueError, "Packing.end_of_document"),
        ({"end_of_document": "a"}, ArsrcTypeError, "Packing.end_of_document"),
        ({"pad_value": -(2**31) - 1}, ArsrcValueError, "Packing.pad_value"),
        ({"pad_value": None}, ArsrcTypeError, "Packing.pad_value"),
        ({"targets": 1}, ArsrcTypeError, "Packing.targets"),
    ],
)
def test_a_packing_that_cannot_be_is_refused_when_it_is_made(fields: Any, kind: type[Exception], where: str) -> None:
    with pytest.raises(kind, match=rf"^\[arsrc\] {where}: must .*; got {where.rpartition('.')[2]}="):
        Packing(**({"length": 8} | fields))
