"""The arrays of packed rows, from tables of pieces and the tokens of their documents."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arsrc.errors import ArsrcValueError
from arsrc.views.packing import Packing
from arsrc.views.pieces import Pieces
from arsrc.views.runs import Runs

_Flat = NDArray[np.int32]  # rows end to end


def write_rows(
    packing: Packing,
    pieces: Pieces,
    num_rows: int,
    data: NDArray[Any],
    begins: NDArray[np.int64],
    masked: NDArray[np.bool_] | None = None,
    outs: Sequence[NDArray[np.int32]] | None = None,
) -> list[NDArray[np.int32]]:
    """Return the arrays of rows in order of their names, each i32[num_rows, length].

    They are positions, segment_ids, with targets also target_segment_ids and targets, and tokens.

    Args:
        packing: How the rows are packed.
        pieces: What stands in them.
        num_rows: How many there are; those without pieces are padding.
        data: The documents' tokens, integer[num_tokens], contiguous.
        begins: Where in `data` the document of each piece begins, i64[num_pieces].
        masked: Pieces in whose place padding stands, bool[num_pieces]; the others keep their numbers.
        outs: Arrays to write to, contiguous.

    Raises:
        ArsrcValueError: A token does not fit int32.
    """
    if outs is None:
        outs = [np.empty((num_rows, packing.length), np.int32) for _ in range(5 if packing.targets else 3)]
    positions, segment_ids, *of_targets, tokens = (out.reshape(-1) for out in outs)
    number = np.arange(len(begins))
    number -= np.maximum.accumulate(np.where(pieces.columns == 0, number, 0)) - 1  # from 1 in each row
    if masked is not None and np.count_nonzero(masked):
        is_there = ~masked
        pieces, begins, number = Pieces(*(values[is_there] for values in pieces)), begins[is_there], number[is_there]

    at = pieces.rows * packing.length + pieces.columns  # i64[num_pieces]
    runs = Runs(at, pieces.lengths, len(tokens))
    padding = runs.padding()
    places = np.arange(packing.length, dtype=np.int32)
    np.subtract(places, runs.spread(pieces.columns).reshape(outs[0].shape), out=outs[0])
    positions[padding] = 0
    segment_ids[...] = runs.spread(number)
    _write_tokens(packing, pieces, runs, data, begins, tokens)
    tokens[padding] = packing.pad_value
    if of_targets:
        target_segment_ids, targets = of_targets
        targets[:-1] = tokens[1:]
        targets[padding] = packing.pad_value
        target_segment_ids[...] = segment_ids
        lasts = at + pieces.lengths - 1
        targets[lasts], is_last = _following(packing, pieces, data, begins)
        target_segment_ids[lasts[is_last]] = 0
    return list(outs)


def _write_tokens(
    packing: Packing, pieces: Pieces, runs: Runs, data: NDArray[Any], begins: NDArray[np.int64], out: _Flat
) -> None:
    """Write the tokens of pieces; what stands in padding is to be written afterwards."""
    at = pieces.rows * packing.length + pieces.columns
    in_data = np.minimum(pieces.lengths, pieces.document_lengths - pieces.starts)  # but for end-of-document tokens
    if packing.end_of_document is not None:
        runs = Runs(at, in_data, len(out))
    found = runs.take(data, begins + pieces.starts)
    if not _fits(data.dtype):
        found[runs.padding()] = 0
        wrong = _misfit(found)
        if wrong is not None:
            document = pieces.documents[np.searchsorted(at, wrong, side="right") - 1]
            raise _error(document, found[wrong])
    out[...] = found
    if packing.end_of_document is not None:
        out[(at + in_data)[in_data < pieces.lengths]] = packing.end_of_document


def _following(
    packing: Packing, pieces: Pieces, data: NDArray[Any], begins: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the token of its document behind each piece, and whether there is none and it is padding."""
    after = pieces.starts + pieces.lengths
    in_data = np.flatnonzero(after < pieces.document_lengths)
    found = data[begins[in_data] + after[in_data]]
    wrong = None if _fits(data.dtype) else _misfit(found)
    if wrong is not None:
        raise _error(pieces.documents[in_data[wrong]], found[wrong])
    following = np.full(len(after), packing.pad_value)
    following[in_data] = found
    is_last = after >= pieces.document_lengths
    if packing.end_of_document is not None:
        following[after == pieces.document_lengths] = packing.end_of_document
        is_last = after > pieces.document_lengths
    return following, is_last


def _fits(dtype: np.dtype[Any]) -> bool:
    """Say whether all numbers of a dtype fit int32."""
    return np.can_cast(dtype, np.int32)


def _misfit(tokens: NDArray[Any]) -> int | None:
    """Return the place of the first token that does not fit int32, if there is one."""
    if not len(tokens) or (tokens.max() < 2**31 and tokens.min() >= -(2**31)):
        return None
    return int(((tokens >= 2**31) | (tokens < -(2**31))).argmax())


def _error(document: np.int64, token: np.generic) -> ArsrcValueError:
    what = "a token does not fit int32"
    return ArsrcValueError("tokens", what, document=int(document), token=int(token))
