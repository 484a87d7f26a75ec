"""Reads from maps of files that may be changed, cut or replaced, or lie on slow disks: what is done around each."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np

from arsrc._host.format.file_index import FileIndex
from arsrc._host.format.layout import to_physical
from arsrc._host.format.numbering import Integers, Numbering
from arsrc._host.machine import slow_reads
from arsrc._host.machine.waiting import num_waits
from arsrc._host.readers.cold_rule import ColdRule
from arsrc._host.storage.address_range import AddressRange
from arsrc._host.storage.stamps import FileWatch, closed

T = TypeVar("T")

_GAP_BYTES = 16_384  # reading so much more takes no longer than another request


class BadRows(Exception):
    """Some records cannot be copied, or something else stands around them than the index says.

    Attributes:
        rows: i64[...], all such rows of those that were asked for.
    """

    def __init__(self, rows: Integers) -> None:
        super().__init__(rows)
        self.rows = rows


class MapReads:
    """Reads of mapped files. Safe to use from several threads.

    Args:
        area: The files, mapped.
        numbering: The slices.
        indices: Those of the files that are read, by path.
        limit: Most seconds that a read may take, None for any.

    Attributes:
        cold: Whether reads wait for the disk.
        limit: The same.
    """

    def __init__(
        self, area: AddressRange, numbering: Numbering, indices: Mapping[str, FileIndex], limit: float | None
    ) -> None:
        self._area: AddressRange | None = area
        self.limit = limit
        found = {number: indices.get(piece.path) for number, piece in enumerate(numbering.slices)}
        self._files = {number: (i.path, i.stamp) for number, i in found.items() if i is not None}
        self._watch = FileWatch(self._files)
        self.cold = ColdRule()

    def run(
        self,
        slices: Integers,
        ranges: Callable[[], tuple[Integers, Integers]],
        read: Callable[[AddressRange, bool], T],
        what: str = "records",
    ) -> T:
        """Return what `read(area, is_careful)` gives, which reads a record of each of some slices.

        Args:
            slices: i64[n]
            ranges: Gives the logical begins and ends of what is read: asked for where that has to be fetched from a
                slow disk.
            read: Reads; with care, by the system alone, where a file is not known to be as long as it was.
            what: What it reads.

        Raises:
            ArsrcReadError: A file was changed while it was open, or the files were closed.
            BadRows: As of `read`.
        """
        return slow_reads.read(
            lambda: self._describe(slices, what), lambda: self._run(slices, ranges, read), self.limit
        )

    def _run(
        self,
        slices: Integers,
        ranges: Callable[[], tuple[Integers, Integers]],
        read: Callable[[AddressRange, bool], T],
    ) -> T:
        area = self._area  # keeps the map until this read is done, whoever closes it meanwhile
        if area is None:
            raise closed()
        is_known = self._watch.check(slices, area.stamp)
        before, is_cold = num_waits(), self.cold.is_worth_asking
        if is_cold:  # a cold disk serves many requests at once faster than one by one
            begins, ends = ranges()
            area.will_need(to_physical(begins), to_physical(ends), _GAP_BYTES)
        # With a limit, too: who waits for the disk by a system call does not hold the interpreter meanwhile.
        is_careful = is_cold or not is_known or self.limit is not None
        try:
            return read(area, is_careful)
        except BadRows as error:
            for number in set(slices[error.rows].tolist()):
                self._watch.look(number, area.stamp)
            raise
        finally:
            self._watch.check(slices, area.stamp)
            self.cold.note(len(slices), num_waits() != before)

    def _describe(self, slices: Integers, what: str) -> str:
        numbers = np.unique(slices).tolist()
        first = self._files[numbers[0]][0] if numbers else ""
        return f"{len(slices)} {what} of {len(numbers)} files, {first!r} the first"

    def take_over(self, before: "MapReads") -> None:
        """Go on where those of fewer files end: with what they have measured, and the files that they refuse."""
        self.cold = before.cold
        self._watch.take_over(before._watch)

    def close(self) -> None:
        """Let go of the files: unmapped when no read is under way any more. Later ones fail."""
        self._area = None
