"""`bad_records`: which records could not be read or decoded."""

import dataclasses

from arsrc._host import registry
from arsrc.config import ArrayRecordSourceConfig


@dataclasses.dataclass(frozen=True)
class BadRecords:
    """Records that could not be read or decoded; one entry for each in every column, by ascending ids.

    Attributes:
        ids: Their numbers in the data set, as `exclude` takes them.
        paths: The file of each.
        positions: The place of each in its file.
        reasons: What was wrong with each, when last met.
        counts: How often each was met, by threads that read ahead too.
    """

    ids: tuple[int, ...] = ()
    paths: tuple[str, ...] = ()
    positions: tuple[int, ...] = ()
    reasons: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)


def bad_records(config: ArrayRecordSourceConfig) -> BadRecords:
    """Return the bad records that were met since the source was opened, whatever `on_bad_record` is; host.

    `dataclasses.replace(config, exclude=bad_records(config).ids)` reads around them. What nobody has read yet is not
    known: `dataset_statistics` reads every record once. Configs that differ in `seed` or statistics alone are one
    source.

    Returns:
        The records, in columns.
    """
    source = registry.opened(config)
    met = source.elements.faults.met()
    places = [source.records.where(record_id) for record_id in met]
    return BadRecords(
        ids=tuple(met),
        paths=tuple(path for path, _ in places),
        positions=tuple(position for _, position in places),
        reasons=tuple(one.reason for one in met.values()),
        counts=tuple(one.times for one in met.values()),
    )
