"""Rows of tokens, packed from documents: which of these stand in a row says a table, made when the source is opened."""

from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arsrc._host.format.record_index import Located
from arsrc._host.machine import profile
from arsrc._host.machine.buffers import BufferPool
from arsrc._host.machine.metrics import Metrics
from arsrc._host.machine.stopping import Stop, check
from arsrc._host.records.decoding import Decoding, with_place
from arsrc._host.records.faults import Faults, Rows
from arsrc._host.records.leaves import Decoder, LeafShapes, Leaves, TokenLeaves
from arsrc._host.records.selected import Records
from arsrc._host.records.stoppable import Stoppable
from arsrc.errors import RecordError
from arsrc.views.pack_table import PackTable
from arsrc.views.pieces import Pieces
from arsrc.views.token_rows import MisfitError, write_around, write_rows

Integers = NDArray[np.int64]
Ranges = tuple[tuple[int, int], ...]


def shapes_of(table: PackTable) -> LeafShapes:
    """Return shape and dtype of each leaf of a row."""
    return [((table.packing.length,), np.dtype(np.int32))] * (5 if table.packing.targets else 3)


class PackedRows:
    """Reads documents, and packs them. A `RowReader`.

    Args:
        source: Where documents come from.
        decoder: Decodes them.
        tokens: Where in a decoded document its tokens stand.
        table: Which documents stand in which row.
        exclude: Ranges of documents in whose place padding stands.
        masks: Whether padding stands in place of a bad document too; else its rows are bad.
        faults: Where bad documents are noted.
        metrics: Where reading is counted.
        buffers: Where memory for rows comes from.
        label: What names the source in errors and profiles.
    """

    def __init__(
        self,
        source: Records,
        decoder: Decoder,
        tokens: TokenLeaves,
        table: PackTable,
        exclude: Ranges,
        masks: bool,
        faults: Faults,
        metrics: Metrics,
        buffers: BufferPool,
        label: str,
    ) -> None:
        self._buffers = buffers
        self._source, self._tokens, self._table = source, tokens, table
        self._decoding = Decoding(source, decoder, label)
        self._exclude = np.array(exclude, np.int64).reshape(-1, 2)
        self._masks, self._faults, self._metrics = masks, faults, metrics
        self._name, self._label = label, f"arsrc: read documents{label}"
        self._misfits = np.zeros(0, np.int64)  # documents with tokens that do not fit
        self.num_rows = table.num_rows
        self.shapes = shapes_of(table)

    def read(self, rows: Rows, stop: Stop | None, outs: Leaves | None) -> Leaves:
        """Return what `RowReader.read` does."""
        with profile.annotate(self._label):
            num_rows, packing = len(rows.ids), self._table.packing
            memory = self._memory(num_rows) if outs is None else outs[: len(self.shapes)]
            leaves = [self._rows_in(out, num_rows) for out in memory]
            pieces = self._table.pieces(rows.ids)
            while True:
                try:
                    if self._is_any_out(pieces.documents) or not self._copy(pieces, leaves, stop):
                        data, begins, masked = self._documents(pieces, rows, stop)
                        write_rows(packing, pieces, num_rows, data, begins, masked, leaves)
                    break
                except MisfitError as error:
                    self._fail(error, rows)  # and once more without the document
            return [*leaves] if rows.bad is None else [leaf[~rows.bad] for leaf in leaves]

    def _fail(self, error: MisfitError, rows: Rows) -> None:
        """Note that a document cannot be packed, or raise why."""
        placed = with_place(RecordError(0, error.what), error.document, self._source, self._name)
        Rows(np.array([error.document]), self._faults, rows.masks).fail(np.zeros(1, np.int64), placed)
        self._misfits = np.append(self._misfits, error.document)

    def _memory(self, num_rows: int) -> Leaves:
        """Return memory for the leaves of rows that was used before, where there is some."""
        num_bytes = num_rows * self._table.packing.length * 4
        return [self._buffers.take(num_bytes).view(np.int32) for _ in self.shapes]

    def _rows_in(self, out: NDArray[Any], num_rows: int) -> NDArray[np.int32]:
        """Return an array of rows that has other leading axes."""
        return out.reshape(num_rows, self._table.packing.length)

    def _copy(self, pieces: Pieces, leaves: list[NDArray[np.int32]], stop: Stop | None) -> bool:
        """Write rows whose tokens can be copied from mapped files; returns whether they can, and none looks wrong."""
        dtype = self._tokens.stored_dtype
        located = None if dtype is None else self._source.locate(pieces.documents)
        if dtype is None or located is None:
            return False
        start, size, packing = perf_counter(), dtype.itemsize, self._table.packing
        stored = leaves[-1] if dtype == np.dtype("<i4") else np.empty(leaves[-1].shape, dtype)
        lengths = np.minimum(pieces.lengths, pieces.document_lengths - pieces.starts)
        places = pieces.rows * packing.length + pieces.columns

        def copy(skips: Integers, lengths: Integers, out: NDArray[Any], places: Integers) -> bool:
            as_bytes = out.reshape(-1).view(np.uint8)
            return self._source.copy_parts(located, skips * size, lengths * size, as_bytes, places * size)

        following: NDArray[Any] | None = None
        if packing.targets:
            following, after = np.empty(len(places), dtype), pieces.starts + pieces.lengths
            is_there = (after < pieces.document_lengths).astype(np.int64)
            if not copy(after * is_there, is_there, following, np.arange(len(places))):
                return False
        if not copy(pieces.starts, lengths, stored, places):
            return False
        check(stop)
        codec_start = perf_counter()
        write_around(packing, pieces, stored, following, leaves)
        self._metrics.read(len(places), int(lengths.sum()) * size, len(places), start, codec_start)
        return True

    def _documents(
        self, pieces: Pieces, rows: Rows, stop: Stop | None
    ) -> tuple[NDArray[Any], Integers, NDArray[np.bool_] | None]:
        """Return tokens, where those of the document of each piece begin, and which pieces are masked.

        Rows may turn out bad.
        """
        is_next = np.ones(len(pieces.documents), np.bool_)  # one document after the other: often in several rows
        np.not_equal(pieces.documents[1:], pieces.documents[:-1], out=is_next[1:])
        number, documents = np.cumsum(is_next) - 1, pieces.documents[is_next]
        is_out, is_misfit = self._are_excluded(documents), np.isin(documents, self._misfits)
        if not self._masks and is_misfit.any():
            rows.bad = np.isin(np.arange(len(rows.ids)), pieces.rows[is_misfit[number]])
        is_out |= is_misfit
        wanted = Rows(documents[~is_out], self._faults, rows.masks)
        data, found = self._read(wanted, stop)
        there = np.flatnonzero(~is_out)
        if wanted.bad is not None:
            is_out[there[wanted.bad]] = True
            are_bad = np.isin(np.arange(len(rows.ids)), pieces.rows[np.isin(number, there[wanted.bad])])
            if self._masks:
                rows.lacks = are_bad
            else:
                rows.bad = are_bad if rows.bad is None else rows.bad | are_bad
            there = there[~wanted.bad]
        begins = np.zeros(len(documents), np.int64)
        begins[there] = found
        return data, begins[number], is_out[number]

    def locate(self, ids: Integers) -> Located | None:
        """Return None: rows are read."""
        del ids
        return None

    def copy(self, located: Located, rows: Rows, stop: Stop | None, outs: Leaves | None) -> Leaves:
        """Return what `read` does."""
        del located
        return self.read(rows, stop, outs)

    def _read(self, documents: Rows, stop: Stop | None) -> tuple[NDArray[Any], Integers]:
        """Return tokens, and where those of each document begin that is good: others may turn out bad."""
        start = perf_counter()
        records, num_decoded = self._source.read(documents.ids, documents.fail)
        check(stop)
        codec_start = perf_counter()
        data: NDArray[Any]
        if (dtype := self._tokens.stored_dtype) is not None:
            data, begins = records.data.view(dtype), records.offsets[:-1] // dtype.itemsize
        else:
            stoppable = records if stop is None else Stoppable(records.data, records.offsets, stop)
            values = self._decoding.decode(stoppable, documents)[self._tokens.values]
            check(stop)
            data, begins = values.reshape(-1), np.arange(len(values)) * values.shape[1]
        self._metrics.read(len(records), records.data.nbytes, num_decoded, start, codec_start)
        return data, begins

    def _is_any_out(self, documents: Integers) -> bool:
        """Whether some documents are not to be read."""
        return bool(self._are_excluded(documents).any() or np.isin(documents, self._misfits).any())

    def _are_excluded(self, documents: Integers) -> NDArray[np.bool_]:
        """Return which documents are excluded, bool[num_documents]."""
        place = np.searchsorted(self._exclude[:, 0], documents, side="right")
        is_out: NDArray[np.bool_] = documents < np.concatenate(([0], self._exclude[:, 1]))[place]
        return is_out
