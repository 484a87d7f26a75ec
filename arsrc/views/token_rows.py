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


class MisfitError(ArsrcValueError):
    """A document has a token that does not fit.

    Attributes:
        document: Its number.
    """

    def __init__(self, document: int, what: str) -> None:
        super().__init__("tokens", what, document=document)
        self.document = document


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
        MisfitError: A token does not fit int32.
    """
    if outs is None:
        outs = empty_rows(packing, num_rows)
    number = _numbers(pieces)
    if masked is not None and np.count_nonzero(masked):
        is_there = ~masked
        pieces, begins, number = Pieces(*(values[is_there] for values in pieces)), begins[is_there], number[is_there]
    tokens = outs[-1].reshape(-1)
    _write_tokens(packing, pieces, Runs(_places(packing, pieces), pieces.lengths, len(tokens)), data, begins, tokens)
    following = _following(packing, pieces, data, begins) if packing.targets else None
    _finish(packing, pieces, number, following, outs)
    return list(outs)


def empty_rows(packing: Packing, num_rows: int) -> list[NDArray[np.int32]]:
    """Return arrays for rows, i32[num_rows, length] each, that hold anything."""
    return [np.empty((num_rows, packing.length), np.int32) for _ in range(5 if packing.targets else 3)]


def write_around(
    packing: Packing,
    pieces: Pieces,
    stored: NDArray[Any],
    following: NDArray[Any] | None,
    outs: Sequence[NDArray[np.int32]],
) -> None:
    """Write the arrays of rows of which the tokens that documents hold stand in their places.

    Args:
        packing: How the rows are packed.
        pieces: What stands in them.
        stored: integer[num_rows, length], anything where no document's token stands; may be the last of `outs`.
        following: With targets, the token of its document behind each piece, integer[num_pieces]; anything where there
            is none.
        outs: Arrays to write to, contiguous.

    Raises:
        MisfitError: A token does not fit int32.
    """
    if not _fits(stored.dtype):
        in_data = np.minimum(pieces.lengths, pieces.document_lengths - pieces.starts)
        flat = stored.reshape(-1)
        flat[Runs(_places(packing, pieces), in_data, len(flat)).padding()] = 0
        _check_fit(packing, pieces, flat)
    if stored is not outs[-1]:
        outs[-1][...] = stored
    _write_ends(packing, pieces, outs[-1].reshape(-1))
    behind = None if following is None else _behind(packing, pieces, following)
    _finish(packing, pieces, _numbers(pieces), behind, outs)


def _finish(
    packing: Packing,
    pieces: Pieces,
    number: NDArray[np.int64],
    following: tuple[NDArray[np.int64], NDArray[np.bool_]] | None,
    outs: Sequence[NDArray[np.int32]],
) -> None:
    """Write what stands beside tokens, and padding."""
    positions, segment_ids, *of_targets, tokens = (out.reshape(-1) for out in outs)
    at = _places(packing, pieces)
    runs = Runs(at, pieces.lengths, len(tokens))
    padding = runs.padding()
    places = np.arange(packing.length, dtype=np.int32)
    np.subtract(places, runs.spread(pieces.columns).reshape(outs[0].shape), out=outs[0])
    positions[padding] = 0
    segment_ids[...] = runs.spread(number)
    tokens[padding] = packing.pad_value
    if following is not None:
        target_segment_ids, targets = of_targets
        targets[:-1] = tokens[1:]
        targets[padding] = packing.pad_value
        target_segment_ids[...] = segment_ids
        lasts = at + pieces.lengths - 1
        targets[lasts], is_last = following
        target_segment_ids[lasts[is_last]] = 0


def _numbers(pieces: Pieces) -> NDArray[np.int64]:
    """Return the number of each piece in its row, from 1 on, i64[num_pieces]."""
    number = np.arange(len(pieces.columns))
    number -= np.maximum.accumulate(np.where(pieces.columns == 0, number, 0)) - 1
    return number


def _places(packing: Packing, pieces: Pieces) -> NDArray[np.int64]:
    """Return where in rows that lie end to end pieces begin, i64[num_pieces]."""
    return pieces.rows * packing.length + pieces.columns


def _write_tokens(
    packing: Packing, pieces: Pieces, runs: Runs, data: NDArray[Any], begins: NDArray[np.int64], out: _Flat
) -> None:
    """Write the tokens of pieces; what stands in padding is to be written afterwards."""
    in_data = np.minimum(pieces.lengths, pieces.document_lengths - pieces.starts)  # but for end-of-document tokens
    if packing.end_of_document is not None:
        runs = Runs(_places(packing, pieces), in_data, len(out))
    found = runs.take(data, begins + pieces.starts)
    if not _fits(data.dtype):
        found[runs.padding()] = 0
        _check_fit(packing, pieces, found)
    out[...] = found
    _write_ends(packing, pieces, out)


def _write_ends(packing: Packing, pieces: Pieces, out: _Flat) -> None:
    """Write end-of-document tokens."""
    if packing.end_of_document is not None:
        is_end = pieces.starts + pieces.lengths > pieces.document_lengths
        out[(_places(packing, pieces) + pieces.lengths - 1)[is_end]] = packing.end_of_document


def _following(
    packing: Packing, pieces: Pieces, data: NDArray[Any], begins: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the token of its document behind each piece, and whether there is none and it is padding."""
    after = pieces.starts + pieces.lengths
    in_data = np.flatnonzero(after < pieces.document_lengths)
    following = np.zeros(len(after), data.dtype)
    following[in_data] = data[begins[in_data] + after[in_data]]
    return _behind(packing, pieces, following)


def _behind(packing: Packing, pieces: Pieces, following: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return what `_following` does, where the tokens that documents hold are there; anything where there is none."""
    after = pieces.starts + pieces.lengths
    in_data = np.flatnonzero(after < pieces.document_lengths)
    found = following[in_data]
    wrong = None if _fits(found.dtype) else _misfit(found)
    if wrong is not None:
        raise _error(pieces.documents[in_data[wrong]], found[wrong])
    behind = np.full(len(after), packing.pad_value)
    behind[in_data] = found
    is_last = after >= pieces.document_lengths
    if packing.end_of_document is not None:
        behind[after == pieces.document_lengths] = packing.end_of_document
        is_last = after > pieces.document_lengths
    return behind, is_last


def _check_fit(packing: Packing, pieces: Pieces, tokens: NDArray[Any]) -> None:
    """Raise an error if a token of rows, integer[num_places], does not fit int32."""
    wrong = _misfit(tokens)
    if wrong is not None:
        document = pieces.documents[np.searchsorted(_places(packing, pieces), wrong, side="right") - 1]
        raise _error(document, tokens[wrong])


def _fits(dtype: np.dtype[Any]) -> bool:
    """Say whether all numbers of a dtype fit int32."""
    return np.can_cast(dtype, np.int32)


def _misfit(tokens: NDArray[Any]) -> int | None:
    """Return the place of the first token that does not fit int32, if there is one."""
    if not len(tokens) or (tokens.max() < 2**31 and tokens.min() >= -(2**31)):
        return None
    return int(((tokens >= 2**31) | (tokens < -(2**31))).argmax())


def _error(document: np.int64, token: np.generic) -> MisfitError:
    return MisfitError(int(document), f"a token does not fit int32: {int(token)}")
