"""How the records of files are decoded, and what is kept of it, of one source or of several."""

import functools
import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arsrc._host.machine.progress import showing
from arsrc._host.records.cache import ElementCache, open_cache
from arsrc._host.records.codec_identity import describe
from arsrc._host.records.data_set import DataSet
from arsrc._host.records.decoding import with_place
from arsrc._host.records.documents import DocumentLengths
from arsrc._host.records.faults import Faults
from arsrc._host.records.kept_table import Bad, kept_table
from arsrc._host.records.leaves import Decoder, TokenLeaves
from arsrc._host.records.packed_rows import shapes_of
from arsrc._host.records.selected import Records
from arsrc.errors import ArsrcError, ArsrcReadError, RecordError
from arsrc.views import pack_table
from arsrc.views.pack_table import PackTable
from arsrc.views.packing import Packing

if TYPE_CHECKING:
    from arsrc.config import ArrayRecordSourceConfig


class Decoded:
    """How records are decoded, and what is kept of it.

    Attributes:
        decoder: With the codec, in which everything is filled in that it takes from its first record.
        tokens: Where the tokens of documents stand, None where rows are records.
        table: Which documents stand in which row, None where rows are records.
        lost: Documents that are in no row since they are bad, and what is wrong with them.
        cache: Where decoded elements are kept, None if they are not.
    """

    def __init__(
        self,
        config: "ArrayRecordSourceConfig",
        data_set: DataSet,
        records: Records,
        firsts: NDArray[np.int64],
        exclude: tuple[tuple[int, int], ...],
        view: str,
    ) -> None:
        """Find out what decodes records, which of them rows are packed of, and open the cache.

        Args:
            config: Of the source, the first one where there are several.
            data_set: All records of the files.
            records: Those of them that are rows, or documents of which rows are packed.
            firsts: First of them of each source, i64[num_sources].
            exclude: Ranges of them that nobody will read.
            view: Says which they are; empty: all.
        """
        self._firsts, self._exclude = firsts, exclude
        self.decoder = _decoder(config, records)
        self.tokens: TokenLeaves | None = None
        self.table: PackTable | None = None
        self.lost: Bad = []
        self.cache: ElementCache | None = None

        def identity() -> str:
            what = f"{data_set.content_hash()} {data_set.stamps()} {describe(self.decoder.codec)}"
            return f"{what} {view}" if view else what

        read, num_rows, shapes = config.read, records.num_records, self.decoder.shapes
        try:
            if config.pack is not None:
                self.tokens = self.decoder.tokens()
                self.table, self.lost = self._packed(config, config.pack, records, identity)
                num_rows, shapes = self.table.num_rows, shapes_of(self.table)
            if config.cacheable:
                # In place of what is excluded, packed rows hold padding; the table is the same.
                without = f" without {exclude}" if config.pack is not None and exclude else ""
                rows = lambda: identity() + without  # noqa: E731
                self.cache = open_cache(num_rows, shapes, read.cache_bytes, read.cache_dir, rows)
        except BaseException:
            self.decoder.rest()  # at once: the error's traceback keeps it
            raise

    def _packed(
        self, config: "ArrayRecordSourceConfig", packing: Packing, records: Records, identity: Callable[[], str]
    ) -> tuple[PackTable, Bad]:
        """Return which documents stand in which row, and those that stand in none."""
        tokens, label = self.tokens, label_of(config.name)
        assert tokens is not None

        def build() -> tuple[PackTable, Bad]:
            faults = Faults(label, config._masks)
            documents = DocumentLengths(records, self.decoder, tokens, self._exclude, config._masks, faults, label)
            show = functools.partial(_shown, f"pack documents{label}")
            table = pack_table.build(packing, documents.find(), self._firsts, show)
            return table, [(record_id, met.reason) for record_id, met in faults.met().items()]

        return kept_table(packing, config.read.cache_dir, identity, build)

    @functools.cached_property
    def table_digest(self) -> str:
        """Tells which documents stand in which row."""
        assert self.table is not None
        digest = hashlib.sha256()
        for array in self.table.to_arrays().values():
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:32]


def first_record(config: "ArrayRecordSourceConfig", first: int = 0) -> int:
    """Return the id of the first record from one on that is not excluded."""
    for start, stop in config.exclude:
        first = stop if start <= first < stop else first
    return first


def _shown(label: str, windows: Any) -> Any:
    """Show how far the packing of windows `(start, stop)` of documents is."""
    windows = list(windows)
    with showing(label, windows[-1][1] if windows else 0) as advance:
        for start, stop in windows:
            yield start, stop
            advance(stop - start)


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
