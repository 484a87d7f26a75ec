"""What a codec is given: records of which no more are wanted at some time."""

import dataclasses
from collections.abc import Iterator

from arsrc._host.machine.stopping import Stop, check
from arsrc.record_batch import RecordBatch


@dataclasses.dataclass(frozen=True, eq=False)
class Stoppable(RecordBatch):
    """Records of which no more are given out when `stop` says so: codecs that go record by record end there."""

    stop: Stop

    def __getitem__(self, row: int) -> bytes:
        check(self.stop)
        return super().__getitem__(row)

    def __iter__(self) -> Iterator[bytes]:
        for record in super().__iter__():
            check(self.stop)
            yield record
