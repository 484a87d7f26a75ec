"""`origin`: which records rows are made of, and where these lie."""

import dataclasses
from typing import Any

import jax
import numpy as np

from arsrc._host import registry
from arsrc._host.groups import Group
from arsrc._host.open_source import OpenSource
from arsrc.any_config import AnyConfig
from arsrc.errors import ArsrcTypeError
from arsrc.order.plan import PAD_ID
from arsrc.state import checked_ids, whole_numbers


@dataclasses.dataclass(frozen=True)
class Origin:
    """A record, or a piece of a document, that a row is made of.

    Attributes:
        path: Its file.
        position: Its place in this file.
        record_id: Its number in its source: that of the row, or of the document where rows are packed.
        start: First token of the document that the row holds; 0 where rows are records.
        stop: The first one behind that it does not hold, the end-of-document token not counted; None of a record.
        source: Number of its source in a mixture, else 0.
    """

    path: str
    position: int
    record_id: int
    start: int = 0
    stop: int | None = None
    source: int = 0


def origin(config: AnyConfig, record_ids: Any) -> list[tuple[Origin, ...]]:
    """Return which records rows are made of, and where these lie; host. Nothing is read.

    Args:
        config: The source.
        record_ids: integer[num_rows] as in `batch.record_ids`; not traced.

    Returns:
        For each row the records that it is made of: one, or several where rows are packed, in their order; none of the
        padding id. Excluded documents are among them, and bad ones, in whose place there is padding.

    Raises:
        ArsrcIndexError: An id is not in the data set.
        ArsrcTypeError: `record_ids` are no integers, or not one behind the other.
    """
    host = registry.source(config)
    ids = whole_numbers("origin", "record_ids", record_ids)
    if isinstance(ids, jax.core.Tracer):
        raise ArsrcTypeError("origin", "runs on the host, not inside a JAX transformation")
    if ids.ndim != 1:
        fix = "Give a list of integers, or batch.record_ids."
        raise ArsrcTypeError("origin", "record_ids must be a sequence of integers", fix, shape=ids.shape)
    checked_ids("origin", "record_ids", ids[ids != PAD_ID], 0, host.plan.num_records)
    return [() if row == PAD_ID else _of_row(host, row) for row in ids.tolist()]


def _of_row(host: OpenSource, row: int) -> tuple[Origin, ...]:
    source = 0
    while row >= (size := _plan_size(host, source)):
        source, row = source + 1, row - size
    group, place = host.sources[source]
    if group.decoded.table is None:
        return (Origin(*group.where(place, row), row, source=source),)
    return _of_packed(group, place, row, source)


def _of_packed(group: Group, place: int, row: int, source: int) -> tuple[Origin, ...]:
    assert group.decoded.table is not None
    in_table = row + sum(plan.num_records for plan in group.plans[:place])
    pieces = group.decoded.table.pieces(np.array([in_table]))
    stops = np.minimum(pieces.starts + pieces.lengths, pieces.document_lengths)
    found = []
    for document, start, stop in zip(pieces.documents.tolist(), pieces.starts.tolist(), stops.tolist(), strict=True):
        _, record_id = group.own_record(document)
        found.append(Origin(*group.where(place, record_id), record_id, min(start, stop), stop, source))
    return tuple(found)


def _plan_size(host: OpenSource, source: int) -> int:
    group, place = host.sources[source]
    return group.plans[place].num_records
