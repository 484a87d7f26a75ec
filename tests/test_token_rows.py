"""Arrays of packed rows: what a slow and obvious writer makes, and documents made of them again."""

from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from arsrc.errors import ArsrcValueError
from arsrc.views import pack_table, runs
from arsrc.views.packing import Packing
from arsrc.views.pieces import Pieces
from arsrc.views.token_rows import write_rows

NAMES = ("positions", "segment_ids", "target_segment_ids", "targets", "tokens")
DTYPES = ["<u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", ">i4"]


@st.composite
def packings(draw: Any) -> Packing:
    return Packing(
        draw(st.sampled_from([1, 2, 3, 7, 16, 300])),
        draw(st.sampled_from(["split", "fit"])),
        longer=draw(st.sampled_from(["cut", "truncate", "drop"])),
        end_of_document=draw(st.sampled_from([None, -7])),
        pad_value=draw(st.sampled_from([0, -1, 2**31 - 1])),
        targets=draw(st.booleans()),
    )


def documents_of(packing: Packing, lengths: list[int], dtype: str) -> list[list[int]]:
    """Documents whose tokens differ as far as their dtype lets them."""
    most = min(np.iinfo(dtype).max, 2**31 - 1)
    before = np.cumsum([0, *lengths])
    return [[(most - before[d] - i) % most for i in range(n)] for d, n in enumerate(lengths)]


def kept(packing: Packing, document: list[int]) -> list[int]:
    """The tokens of a document that are in rows."""
    ends = [] if packing.end_of_document is None or not document else [packing.end_of_document]
    whole = document + ends
    if len(whole) <= packing.length or packing.longer == "cut":
        return whole
    return document[: packing.length - len(ends)] + ends if packing.longer == "truncate" else []


def end_to_end(documents: list[list[int]], dtype: str, odd: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """All documents as one array that begins at an odd address, and where each begins in it."""
    tokens = np.array([token for document in documents for token in document], dtype)
    data = np.frombuffer(bytes(odd) + tokens.tobytes(), np.uint8)[odd:].view(dtype)
    return data, np.cumsum([0, *map(len, documents)])


def write_slowly(
    packing: Packing, pieces: Pieces, num_rows: int, documents: list[list[int]], masked: list[bool]
) -> dict[str, np.ndarray]:
    """Token by token."""
    rows = {name: np.zeros((num_rows, packing.length), np.int32) for name in NAMES}
    rows["tokens"][:] = rows["targets"][:] = packing.pad_value
    number = dict.fromkeys(range(num_rows), 0)
    columns = dict.fromkeys(range(num_rows), 0)
    for row, document, start, length, is_masked in zip(*[v.tolist() for v in pieces[:4]], masked, strict=True):
        number[row] += 1
        tokens = kept(packing, documents[document])
        for place in range(start, start + length):
            column = columns[row]
            columns[row] += 1
            if is_masked:
                continue
            rows["tokens"][row, column] = tokens[place]
            rows["segment_ids"][row, column] = number[row]
            rows["positions"][row, column] = place - start
            if place + 1 < len(tokens):
                rows["targets"][row, column] = tokens[place + 1]
                rows["target_segment_ids"][row, column] = number[row]
    return {name: values for name, values in rows.items() if packing.targets or not name.startswith("target")}


def same(found: list[np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    for array, (name, values) in zip(found, wanted.items(), strict=True):
        assert (array.dtype, array.shape) == (np.int32, values.shape)
        np.testing.assert_array_equal(array, values, name)


@pytest.mark.parametrize("short_tokens", [0, 100, 10**9], ids=["runs", "as it is", "tokens"])
@hypothesis.given(packings(), st.lists(st.integers(0, 40), max_size=30), st.sampled_from(DTYPES), st.data())
def test_rows_are_what_a_writer_makes_token_by_token(
    short_tokens: int, packing: Packing, lengths: list[int], dtype: str, data: Any
) -> None:
    table = pack_table.build(packing, np.array(lengths, np.int64))
    asked = data.draw(st.lists(st.integers(0, table.num_rows - 1), max_size=8)) if table.num_rows else []
    num_rows = len(asked) + data.draw(st.integers(0, 2))
    pieces = table.pieces(np.array(asked, np.int64))
    masked = np.array(data.draw(st.lists(st.booleans(), min_size=len(pieces.rows), max_size=len(pieces.rows))), bool)
    documents = documents_of(packing, lengths, dtype)
    flat, begins = end_to_end(documents, dtype, data.draw(st.integers(0, 3)))
    begins = begins[pieces.documents]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "_SHORT_PLACES", short_tokens)
        found = write_rows(packing, pieces, num_rows, flat, begins, masked)
        same(found, write_slowly(packing, pieces, num_rows, documents, masked.tolist()))
        outs = [np.full_like(array, 99) for array in found]
        again = write_rows(packing, pieces, num_rows, flat, begins, masked if masked.any() else None, outs)
    assert all(array is out for array, out in zip(again, outs, strict=True))
    for one, other in zip(again, found, strict=True):
        np.testing.assert_array_equal(one, other)


@hypothesis.given(packings(), st.lists(st.integers(0, 40), max_size=30), st.sampled_from(DTYPES))
def test_rows_cut_at_segments_are_the_documents(packing: Packing, lengths: list[int], dtype: str) -> None:
    table = pack_table.build(packing, np.array(lengths, np.int64))
    documents = documents_of(packing, lengths, dtype)
    flat, begins = end_to_end(documents, dtype)
    pieces = table.pieces(np.arange(table.num_rows))
    found = write_rows(packing, pieces, table.num_rows, flat, begins[pieces.documents])
    segment_ids, tokens = found[1], found[-1]
    segments = [
        row_tokens[ids == n].tolist()
        for ids, row_tokens in zip(segment_ids, tokens, strict=True)
        for n in range(1, ids.max() + 1)
    ]
    made: list[list[int]] = [[] for _ in documents]
    for _, document, segment in sorted(zip(pieces.starts, pieces.documents, segments, strict=True)):
        made[document] += segment
    assert made == [kept(packing, document) for document in documents]


def test_a_row_reads_as_the_docs_say() -> None:
    packing = Packing(7, end_of_document=9, pad_value=-1, targets=True)
    pieces = pack_table.build(packing, np.array([2, 4, 1])).pieces(np.arange(2))
    rows = write_rows(packing, pieces, 2, np.array([1, 2, 3, 4, 5, 6, 7]), np.array([0, 2, 6])[pieces.documents])
    assert dict(zip(NAMES, (row.tolist() for row in rows), strict=True)) == {
        "positions": [[0, 1, 2, 0, 1, 2, 3], [0, 0, 1, 0, 0, 0, 0]],
        "segment_ids": [[1, 1, 1, 2, 2, 2, 2], [1, 2, 2, 0, 0, 0, 0]],
        "target_segment_ids": [[1, 1, 0, 2, 2, 2, 2], [0, 2, 0, 0, 0, 0, 0]],
        "targets": [[2, 9, -1, 4, 5, 6, 9], [-1, 9, -1, -1, -1, -1, -1]],
        "tokens": [[1, 2, 9, 3, 4, 5, 6], [9, 7, 9, -1, -1, -1, -1]],
    }


@pytest.mark.parametrize("dtype", ["<u4", "<i8", "<u8"])
@pytest.mark.parametrize("token", [2**31, 2**32 - 1, 2**40, -(2**31) - 1])
def test_a_token_that_does_not_fit_is_an_error_that_names_its_document(dtype: str, token: int) -> None:
    if not np.iinfo(dtype).min <= token <= np.iinfo(dtype).max:
        return
    packing = Packing(4, targets=True, end_of_document=1)
    pieces = pack_table.build(packing, np.array([2, 6])).pieces(np.array([0, 1, 2]))  # AA1B BBBB B1
    for place, document in enumerate([0, 0, 1, 1, 1, 1, 1, 1]):
        data = np.zeros(8, dtype)
        data[place] = token
        begins = np.array([0, 2])[pieces.documents]
        with pytest.raises(
            ArsrcValueError, match=rf"^\[arsrc\] tokens: .* fit int32: {token}; got document={document}\.$"
        ):
            write_rows(packing, pieces, 3, data, begins)
        masked = pieces.documents == document
        write_rows(packing, pieces, 3, data, begins, masked)
        if place != 3:  # as a target alone
            continue
        first = Pieces(*(values[:2] for values in pieces))
        with pytest.raises(ArsrcValueError, match=f"fit int32: {token}; got document=1"):
            write_rows(packing, first, 1, data, begins[:2])


def test_tokens_at_the_ends_of_int32_pass() -> None:
    packing = Packing(4)
    pieces = pack_table.build(packing, np.array([4])).pieces(np.array([0]))
    values = [2**31 - 1, -(2**31), 0, 1]
    (*_, tokens) = write_rows(packing, pieces, 1, np.array(values, np.int64), np.zeros(1, np.int64))
    assert tokens.tolist() == [values]
