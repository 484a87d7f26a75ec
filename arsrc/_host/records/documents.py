"""How many tokens documents have: from the indices of their files where these tell, else by reading all once."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from arsrc._host.machine.bisection import Bisection, Faulty
from arsrc._host.machine.progress import track
from arsrc._host.records.decoding import Decoding, with_place
from arsrc._host.records.faults import Faults, Rows
from arsrc._host.records.leaves import Decoder, Leaves, TokenLeaves
from arsrc._host.records.selected import Records
from arsrc.errors import ArsrcError, RecordError

Integers = NDArray[np.int64]

_SPAN_KNOWN, _SPAN_READ = 65_536, 1024


class _Documents(Rows):
    """Documents of which some may be bad, since nobody will read them: they have no tokens."""

    def __init__(self, ids: Integers, faults: Faults, may_fail: NDArray[np.bool_]) -> None:
        super().__init__(ids, faults, masks=True)
        self._may_fail = may_fail

    def fail(self, rows: Integers, error: ArsrcError) -> None:
        """Note that some documents are bad, or raise why."""
        if not self._may_fail[rows].all():
            raise error
        super().fail(rows, error)


class DocumentLengths:
    """Finds out how many tokens documents have.

    Args:
        source: The documents.
        decoder: Decodes them.
        tokens: Where in a decoded document its tokens stand.
        exclude: Ranges of documents that may be bad.
        masks: Whether all may be.
        faults: Where bad ones are noted.
        label: What names the source in errors.
    """

    def __init__(
        self,
        source: Records,
        decoder: Decoder,
        tokens: TokenLeaves,
        exclude: tuple[tuple[int, int], ...],
        masks: bool,
        faults: Faults,
        label: str,
    ) -> None:
        self._source, self._tokens, self._faults, self._label = source, tokens, faults, label
        self._decoding = Decoding(source, decoder, label)
        self._bisection = Bisection()
        self._may_fail = np.full(source.num_records, masks)
        for start, stop in exclude:
            self._may_fail[start:stop] = True

    def find(self) -> NDArray[np.uint32]:
        """Return the tokens of each document, u32[num_documents]; bad ones have none.

        Raises:
            ArsrcReadError: A document cannot be read.
            ArsrcValueError: It does not fit the codec.
        """
        lengths = np.zeros(self._source.num_records, np.uint32)
        is_known = self._tokens.stored_dtype is not None and self._source.lengths(np.zeros(1, np.int64)) is not None
        for ids in self._spans(_SPAN_KNOWN if is_known else _SPAN_READ):
            documents = _Documents(ids, self._faults, self._may_fail[ids])
            found = (
                self._of_records(documents) if self._tokens.stored_dtype is not None else self._of_elements(documents)
            )
            lengths[ids if documents.bad is None else ids[~documents.bad]] = found
        return lengths

    def _spans(self, size: int) -> Iterator[Integers]:
        num_documents = self._source.num_records
        label = f"lengths of documents{self._label}"
        for start in track(range(0, num_documents, size), label, num_documents, size):
            yield np.arange(start, min(start + size, num_documents))

    def _of_records(self, documents: _Documents) -> Integers:
        """Return the tokens of those records that are good, whose bytes are tokens."""
        num_bytes = self._source.lengths(documents.ids)
        if num_bytes is None:
            num_bytes = self._source.read(documents.ids, documents.fail).records.lengths
        good = np.arange(len(documents.ids)) if documents.bad is None else np.flatnonzero(~documents.bad)

        def count(first: int, last: int) -> Integers:
            try:
                return self._tokens.lengths(num_bytes[first:last])
            except RecordError as error:
                raise Faulty(error.row) from error

        found = []
        for some, lengths in self._bisection.parts(documents.ids[good], count):
            if isinstance(lengths, Faulty):
                cause = lengths.__cause__
                assert isinstance(cause, RecordError)
                error = with_place(cause, int(documents.ids[good[some.start]]), self._source, self._label)
                documents.fail(good[some], error)
            else:
                found.append(lengths)
        return np.concatenate([np.zeros(0, np.int64), *found])

    def _of_elements(self, documents: _Documents) -> Integers:
        """Return the tokens of those documents that are good, decoded."""
        records = self._source.read(documents.ids, documents.fail).records
        return lengths_of(self._decoding.decode(records, documents), self._tokens, documents, self._source, self._label)


def lengths_of(leaves: Leaves, tokens: TokenLeaves, documents: Rows, source: Records, label: str) -> Integers:
    """Return the tokens of those decoded documents that are good, of which others may turn out bad."""
    values = leaves[tokens.values]
    if tokens.length is None:
        return np.full(len(values), values.shape[1])
    lengths = leaves[tokens.length].astype(np.int64)
    wrong = (lengths < 0) | (lengths > values.shape[1])
    if not wrong.any():
        return lengths
    good = np.arange(len(documents.ids)) if documents.bad is None else np.flatnonzero(~documents.bad)
    for row in np.flatnonzero(wrong).tolist():
        what = f"a document of {values.shape[1]} tokens at most says that it has {lengths[row]}"
        error = with_place(RecordError(0, what), int(documents.ids[good[row]]), source, label)
        documents.fail(good[row : row + 1], error)
    return lengths[~wrong]
