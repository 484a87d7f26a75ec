"""Records to elements by a codec, which some of them may not fit: these are found and named."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from arsrc._host.machine.bisection import Bisection, Faulty
from arsrc._host.records.faults import Rows
from arsrc._host.records.leaves import Decoder, Leaves
from arsrc._host.records.selected import Records
from arsrc.errors import ArsrcError, ArsrcValueError, RecordError, said
from arsrc.own_code import raised_at
from arsrc.record_batch import RecordBatch


class Decoding:
    """Decodes records.

    Args:
        source: Where they come from.
        decoder: Decodes them.
        label: What names the source in errors.
    """

    def __init__(self, source: Records, decoder: Decoder, label: str) -> None:
        self._source, self._decoder, self._label = source, decoder, label
        self._bisection = Bisection()

    def decode(self, records: RecordBatch, rows: Rows) -> Leaves:
        """Return the leaves of the records of those rows that are good, of which others may turn out bad here.

        Raises:
            ArsrcValueError: A record does not fit the codec and `rows` lets none be bad, the codec fails for several
                records and for none of them alone, or what it gives is not what its spec says.
        """
        good = None if rows.bad is None else np.flatnonzero(~rows.bad)
        ids = rows.ids if good is None else rows.ids[good]
        if not len(ids):
            return self._none()
        errors: list[Exception] = []

        def decode(first: int, last: int) -> Leaves:
            try:
                return self._decoder.decode(_part(records, first, last))
            except RecordError as error:
                errors.append(error)
                raise Faulty(error.row if 0 <= error.row < last - first else None) from error
            except (ArsrcError, MemoryError):  # no record's fault, nor the codec's
                raise
            except Exception as error:  # of a codec of the user's own
                errors.append(error)
                raise Faulty from error

        parts: list[Leaves] = []
        is_any_bad = False
        for some, leaves in self._bisection.parts(ids, decode):
            if isinstance(leaves, Faulty):
                bad = np.arange(len(ids))[some] if good is None else good[some]
                error = self._of_record(leaves.__cause__, int(ids[some.start]))
                if _is_short_of_memory(leaves.__cause__):  # which says nothing of the record: it is not masked
                    raise error
                rows.fail(bad, error)
                is_any_bad = True
            else:
                parts.append(leaves)
        if errors and not is_any_bad:
            raise self._of_all(errors[0], ids) from errors[0]
        if len(parts) == 1:
            return parts[0]
        parts.append(self._none())  # where all are bad
        return [np.concatenate(leaf) for leaf in zip(*parts, strict=True)]

    def _none(self) -> Leaves:
        """Return the leaves of no record, which no codec needs to be able to give."""
        return [np.empty((0, *shape), dtype) for shape, dtype in self._decoder.shapes]

    def _of_record(self, error: BaseException | None, record_id: int) -> ArsrcValueError:
        """Return the error for a record that the codec refuses alone."""
        assert isinstance(error, Exception)
        if not isinstance(error, RecordError):
            error, cause = RecordError(0, self._raised(error), raised_at(error)), error
            error.__cause__ = cause
        return with_place(error, record_id, self._source, self._label)

    def _of_all(self, error: Exception, ids: NDArray[np.int64]) -> ArsrcValueError:
        """Return the error for records that the codec refuses together, and none of them alone."""
        if isinstance(error, RecordError) and 0 <= error.row < len(ids):
            return with_place(error, int(ids[error.row]), self._source, self._label)
        fix = f"Let it raise RecordError(row, what), so that the record is named. {raised_at(error)}".rstrip()
        shown = [*ids[:8].tolist(), *(["..."] if len(ids) > 8 else [])]
        return ArsrcValueError(f"decode{self._label}", self._raised(error), fix, record_ids=shown)

    def _raised(self, error: Exception) -> str:
        return f"the codec {type(self._decoder.codec).__name__} raised {said(error)}"


def with_place(error: RecordError, record_id: int, source: Records, label: str) -> ArsrcValueError:
    """Return a codec's error with the record's place in the data set instead of its row."""
    path, position = source.where(record_id)
    record_id = int(source.own(np.array([record_id]))[0])
    what = f"record {record_id} (record {position} of {path!r}): {error.what}"
    placed = ArsrcValueError(f"decode{label}", what, error.fix).at(path, position, record_id)
    placed.__cause__, placed.what = error, error.what
    return placed


def _is_short_of_memory(error: BaseException | None) -> bool:
    return error is not None and isinstance(error.__cause__, MemoryError)


def _part(records: RecordBatch, first: int, last: int) -> RecordBatch:
    """Return some of the records, which are stopped as all of them are."""
    if last - first == len(records):
        return records
    offsets = records.offsets[first : last + 1]
    data = records.data[offsets[0] : offsets[-1]]
    return dataclasses.replace(records, data=data, offsets=offsets - offsets[0])
