"""How the records of files are decoded, and what is kept of it, of one source or of several."""

from typing import TYPE_CHECKING

import numpy as np

from arsrc._host.records.cache import ElementCache, open_cache
from arsrc._host.records.codec_identity import describe
from arsrc._host.records.data_set import DataSet
from arsrc._host.records.decoding import with_place
from arsrc._host.records.leaves import Decoder
from arsrc._host.records.selected import Records
from arsrc.errors import ArsrcError, ArsrcReadError, RecordError

if TYPE_CHECKING:
    from arsrc.config import ArrayRecordSourceConfig


class Decoded:
    """How records are decoded, and what is kept of it.

    Attributes:
        decoder: With the codec, in which everything is filled in that it takes from its first record.
        cache: Where decoded elements are kept, None if they are not.
    """

    def __init__(self, config: "ArrayRecordSourceConfig", data_set: DataSet, records: Records, view: str) -> None:
        """Find out what decodes records, and open the cache.

        Args:
            config: Of the source, the first one where there are several.
            data_set: All records of the files.
            records: Those of them that are rows.
            view: Says which they are; empty: all.
        """
        self.decoder = _decoder(config, records)
        self.cache: ElementCache | None = None
        if not config.cacheable:
            return

        def identity() -> str:
            what = f"{data_set.content_hash()} {data_set.stamps()} {describe(self.decoder.codec)}"
            return f"{what} {view}" if view else what

        try:
            read = config.read
            self.cache = open_cache(
                records.num_records, self.decoder.shapes, read.cache_bytes, read.cache_dir, identity
            )
        except BaseException:
            self.decoder.rest()  # at once: the error's traceback keeps it
            raise


def first_record(config: "ArrayRecordSourceConfig", first: int = 0) -> int:
    """Return the id of the first record from one on that is not excluded."""
    for start, stop in config.exclude:
        first = stop if start <= first < stop else first
    return first


def label_of(name: str | None) -> str:
    """Return what names a source in errors and profiles."""
    return "" if name is None else f" ({name})"


def _decoder(config: "ArrayRecordSourceConfig", records: Records) -> Decoder:
    """Return the decoder that fits the first record; where bad ones are masked, one behind it may stand in for it.

    Those that are tried lie ever farther behind it, so that a damaged stretch of a file is left soon.
    """
    first = first_record(config)
    others = [first_record(config, first + 2**power - 1) for power in range(1, 33)] if config._masks else []
    errors: dict[int, ArsrcError] = {}
    for record_id in [min(first, records.num_records - 1), *(one for one in others if one < records.num_records)]:
        try:
            return config._decoder(records.read(np.array([record_id])).records[0])
        except RecordError as error:
            errors[record_id] = with_place(error, record_id, records, label_of(config.name))
        except ArsrcReadError as error:
            if error.position is None:  # the whole file
                raise
            errors[record_id] = error
    failed, *also_bad = errors
    raise errors[failed].naming(also_bad=also_bad) if also_bad else errors[failed]
