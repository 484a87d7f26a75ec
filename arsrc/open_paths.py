"""Files by their paths alone, where neither order nor codec matters."""

from typing import Any

from arsrc._host import registry
from arsrc._host.records.data_set import DataSet
from arsrc.config import ArrayRecordSourceConfig


def data_set_of(paths: Any) -> DataSet:
    """Return the records that paths mean; the files close when nobody refers to them any more."""
    return registry.open_files(ArrayRecordSourceConfig(paths, batch_size=1, shuffle_records=True)).data_set
