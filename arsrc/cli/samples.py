"""What some records of a data set are, read one by one."""

from typing import NamedTuple

import numpy as np

from arsrc._host.records.data_set import DataSet
from arsrc.cli.kinds import Kind, kind_of
from arsrc.errors import ArsrcReadError

_MOST_SAMPLES = 32
_MOST_BYTES = 64 * 2**20  # of all that are looked at


class Samples(NamedTuple):
    """Some records.

    Attributes:
        ids: Of those that can be read.
        kinds: What each is.
        sizes: Bytes of each.
        unreadable: What is wrong with the first that cannot be read; empty if there is none.
    """

    ids: list[int]
    kinds: list[Kind]
    sizes: list[int]
    unreadable: str


def samples_of(data_set: DataSet, group_size: int) -> Samples:
    """Look at the first record and at others: from everywhere where that is quick, else from the first group."""
    num_records = data_set.num_records
    reach = num_records if group_size == 1 else min(num_records, max(group_size, _MOST_SAMPLES))
    found = Samples([], [], [], "")
    for number in range(min(reach, _MOST_SAMPLES)):
        record_id = number * reach // min(reach, _MOST_SAMPLES)
        try:
            record = data_set.read(np.array([record_id])).records[0]
        except ArsrcReadError as error:
            found = found._replace(unreadable=found.unreadable or f"record {record_id}: {error.what}")
            continue
        found.ids.append(record_id)
        found.kinds.append(kind_of(record))
        found.sizes.append(len(record))
        if sum(found.sizes) > _MOST_BYTES:
            break
    return found
