"""Which records could not be read or decoded: a list of those that a source met, and the rows of one read."""

import logging
import threading
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from arsrc._host.records.leaves import Leaves
from arsrc.amounts import counted
from arsrc.errors import ArsrcError, message

_MOST_CHARACTERS = 500  # of a reason that is kept

_LOG = logging.getLogger("arsrc")


class Met(NamedTuple):
    """How often a record was met that is bad, and why, when last."""

    times: int
    reason: str


_NEVER = Met(0, "")


class Faults:
    """The bad records that a source has met.

    Args:
        label: What names the source in the log.
        are_masked: Whether they are served as masked rows, of which the log tells.
        met: Those that are known from the start, and why they are bad.
    """

    def __init__(self, label: str, are_masked: bool, met: Iterable[tuple[int, str]] = ()) -> None:
        self._label, self.are_masked = label, are_masked
        self._met = {record_id: Met(1, reason) for record_id, reason in met}
        self._lock = threading.RLock()  # a signal may come while it is held, and its handler read

    def note(self, record_ids: Sequence[int], error: ArsrcError) -> None:
        """Take note of records that are bad for one reason."""
        reason = error.what[:_MOST_CHARACTERS]
        with self._lock:
            before = len(self._met)
            for record_id in record_ids:
                self._met[record_id] = Met(self._met.get(record_id, _NEVER).times + 1, reason)
            num_met = len(self._met)
        if self.are_masked and len(str(num_met)) > len(str(before or "")):  # at the first, and at powers of ten
            num = counted(num_met, "record")
            last = record_ids[-1] if error.record_id is None else error.record_id  # as its source knows it
            what = f"met {num} so far that cannot be read or decoded, and become masked rows; the last one: {reason}"
            _LOG.warning(message(f"on_bad_record{self._label}", what, "See bad_records(config).", record_id=last))

    def met(self) -> dict[int, Met]:
        """Return the bad records by their ids, in ascending order."""
        return dict(sorted(self._met.copy().items()))


class Rows:
    """The rows of one read, of which some may turn out to be bad.

    Args:
        ids: i64[num_rows], the records in them.
        faults: Where bad ones are noted.
        masks: Whether a bad one is a masked row, and no error.

    Attributes:
        ids: As given.
        masks: As given.
        bad: bool[num_rows], which rows are bad; None as long as none is.
        lacks: bool[num_rows], which of the others lack something that was bad; None as long as none does.
    """

    def __init__(self, ids: NDArray[np.int64], faults: Faults, masks: bool) -> None:
        self.ids = ids
        self.bad: NDArray[np.bool_] | None = None
        self.lacks: NDArray[np.bool_] | None = None
        self._faults, self.masks = faults, masks

    def fail(self, rows: NDArray[np.int64], error: ArsrcError) -> None:
        """Note that some rows are bad, or raise why."""
        self._faults.note(self.ids[rows].tolist(), error)
        if not self.masks:
            raise error
        self.bad = np.zeros(len(self.ids), np.bool_) if self.bad is None else self.bad
        self.bad[rows] = True

    def complete(self, leaves: Leaves) -> Leaves:
        """Return the leaves of all rows for those of the good ones; bad rows are zero.

        With masks there is one more, bool[num_rows], which are good.
        """
        if self.bad is None:
            return [*leaves, np.ones(len(self.ids), np.bool_)] if self.masks else leaves
        good = ~self.bad
        whole: Leaves = [np.zeros((len(good), *leaf.shape[1:]), leaf.dtype) for leaf in leaves]
        for zeros, leaf in zip(whole, leaves, strict=True):
            zeros[good] = leaf
        return [*whole, good]
