"""`bad_records`: which records could not be read or decoded."""

import dataclasses

from arsrc._host import registry
from arsrc.any_config import AnyConfig


@dataclasses.dataclass(frozen=True)
class BadRecords:
    """Records that could not be read or decoded; one entry for each in every column, by ascending ids.

    Attributes:
        ids: Their numbers in the data set, as `exclude` takes them: those of documents where rows are packed.
        paths: The file of each.
        positions: The place of each in its file.
        reasons: What was wrong with each, when last met.
        counts: How often each was met, by threads that read ahead too.
        sources: Of a mixture, the number of the source of each, whose `exclude` takes it; else 0.
    """

    ids: tuple[int, ...] = ()
    paths: tuple[str, ...] = ()
    positions: tuple[int, ...] = ()
    reasons: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    sources: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)


def bad_records(config: AnyConfig) -> BadRecords:
    """Return the bad records that were met since the source was opened, whatever `on_bad_record` is; host.

    `dataclasses.replace(config, exclude=bad_records(config).ids)` reads around them. What nobody has read yet is not
    known: `dataset_statistics` reads every record once. Configs that differ in `seed` or statistics alone are one
    source.

    Returns:
        The records, in columns.
    """
    host = registry.opened(config)
    met = host.bad_records()
    places = [host.where(source, record_id) for source, record_id, _ in met]
    return BadRecords(
        ids=tuple(record_id for _, record_id, _ in met),
        paths=tuple(path for path, _ in places),
        positions=tuple(position for _, position in places),
        reasons=tuple(one.reason for _, _, one in met),
        counts=tuple(one.times for _, _, one in met),
        sources=tuple(source for source, _, _ in met),
    )
