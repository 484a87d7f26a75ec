"""When to ask the system for records ahead: only while reads have to wait for the disk."""

_FEW_RECORDS = 64


class ColdRule:
    """Asking costs a system call per record, so that it pays only for what is not in memory yet.

    Whether the next records are in memory shows in those before: they are if the disk read nothing for these, asked or
    not.
    No lock: a read that judges by an older one changes only the speed.

    Attributes:
        is_worth_asking: Whether to ask for the records of the next read.
    """

    def __init__(self) -> None:
        self.is_worth_asking = True
        self._num_reads = self._num_waited = 0

    @property
    def share(self) -> float:
        """Share of the reads for which the disk read something."""
        return self._num_waited / max(self._num_reads, 1)

    def note(self, num_records: int, waited: bool) -> None:
        """Take note of a read, and whether the disk read anything for it. Few records in memory say little."""
        self._num_reads += 1
        self._num_waited += waited
        if waited or num_records >= _FEW_RECORDS:
            self.is_worth_asking = waited
