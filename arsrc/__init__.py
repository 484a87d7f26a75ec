"""arsrc: ArrayRecord files into JAX training, as a pure function of a tiny state.

    state        = arsrc.init(config)
    state, batch = arsrc.next_batch(config, state)

A map of the package, in the order in which data flows:

    config.py       what is fixed: ArrayRecordSourceConfig, ReadOptions
    mixture_config.py  several sources in fixed shares: MixtureConfig
    selection.py    which records are rows: Selection; select_records.py, those that a function holds for
    views/          rows of tokens, packed from documents: Packing; and sets of ids
    types.py        what moves, and what it brings: SourceState, Batch
    state.py        init and the arithmetic of states
    keys.py         keys and streams
    sizes.py        what is known of an open source
    mixtures.py     what is asked of mixtures alone: source_counts, source_ids
    origin.py       which records rows are made of
    bad_records.py  which records could not be read
    read_records.py records as they are, without a config; open_paths.py, their files
    explain.py      how it is read, in words; advice.py, the rules
    order/          which row comes where
    programs.py     functions compiled for one data set each
    fetch.py        next_batch and its kin
    host_call.py    one call of the host
    bridge.py       how compiled programs make it, by one callback; bridge_in_place.py, its fast path
    scan.py         scan_epoch, scan_steps; slow_loops.py, what XLA runs slowly in them
    iterate.py      iterate
    mesh.py         next_global_batch
    devices/        which rows a device gets, and load_resident
    checkpoint.py   fingerprint, check, to_state_dict, from_state_dict
    statistics.py   of what was served, and of what the data holds
    writing.py      write_array_record
    tfds/           folders as TFDS leaves them, as configs
    codecs/         record bytes to arrays and back
    amounts.py      numbers in texts
    record_batch.py the bytes of several records, from readers to codecs
    frozen.py       values that are hashed, compared and shown
    errors.py       ArsrcError and its kinds
    own_code.py     which code is the user's own
    cli/            python -m arsrc
    _host/          everything impure, and no JAX
        registry.py, open_source.py    what is open, and for whom
        serving/                       when: requests, runs, read-ahead
        processes/                     where functions run that hold the interpreter lock
        records/                       what: elements by record id
        readers/                       how: maps, large records, array_record's reader
        format/                        where in a file
        storage/                       the bytes, and which files a config means
        machine/                       threads, memory, waiting, counts
"""

from arsrc._host.machine import starting as _starting  # before all that takes long to import

# isort: split
from arsrc import codecs as codecs
from arsrc import tfds as tfds
from arsrc.bad_records import BadRecords as BadRecords
from arsrc.bad_records import bad_records as bad_records
from arsrc.checkpoint import check as check
from arsrc.checkpoint import fingerprint as fingerprint
from arsrc.checkpoint import from_state_dict as from_state_dict
from arsrc.checkpoint import to_state_dict as to_state_dict
from arsrc.config import ArrayRecordSourceConfig as ArrayRecordSourceConfig
from arsrc.config import ReadOptions as ReadOptions
from arsrc.devices.resident import load_resident as load_resident
from arsrc.errors import ArsrcError as ArsrcError
from arsrc.errors import ArsrcFileNotFoundError as ArsrcFileNotFoundError
from arsrc.errors import ArsrcIndexError as ArsrcIndexError
from arsrc.errors import ArsrcReadError as ArsrcReadError
from arsrc.errors import ArsrcTypeError as ArsrcTypeError
from arsrc.errors import ArsrcValueError as ArsrcValueError
from arsrc.errors import ArsrcWriteError as ArsrcWriteError
from arsrc.errors import RecordError as RecordError
from arsrc.explain import explain as explain
from arsrc.fetch import batch_at as batch_at
from arsrc.fetch import next_batch as next_batch
from arsrc.fetch import next_batches as next_batches
from arsrc.fetch import peek as peek
from arsrc.fetch import take as take
from arsrc.iterate import iterate as iterate
from arsrc.keys import ensure_rng_streams as ensure_rng_streams
from arsrc.keys import requires_rng_streams as requires_rng_streams
from arsrc.mesh import next_global_batch as next_global_batch
from arsrc.mixture_config import MixtureConfig as MixtureConfig
from arsrc.mixtures import source_counts as source_counts
from arsrc.mixtures import source_ids as source_ids
from arsrc.origin import Origin as Origin
from arsrc.origin import origin as origin
from arsrc.read_records import read_records as read_records
from arsrc.scan import scan_epoch as scan_epoch
from arsrc.scan import scan_steps as scan_steps
from arsrc.select_records import select_records as select_records
from arsrc.selection import Selection as Selection
from arsrc.sizes import batch_spec as batch_spec
from arsrc.sizes import close as close
from arsrc.sizes import element_spec as element_spec
from arsrc.sizes import io_metrics as io_metrics
from arsrc.sizes import num_records as num_records
from arsrc.sizes import reset_cache as reset_cache
from arsrc.sizes import steps_per_epoch as steps_per_epoch
from arsrc.sizes import total_steps as total_steps
from arsrc.state import advance as advance
from arsrc.state import batch_mask as batch_mask
from arsrc.state import init as init
from arsrc.state import is_exhausted as is_exhausted
from arsrc.state import locate as locate
from arsrc.state import record_ids as record_ids
from arsrc.state import record_keys as record_keys
from arsrc.state import state_at as state_at
from arsrc.state import step_of as step_of
from arsrc.statistics import LeafStatistics as LeafStatistics
from arsrc.statistics import compute_statistics as compute_statistics
from arsrc.statistics import dataset_statistics as dataset_statistics
from arsrc.statistics import get_statistics as get_statistics
from arsrc.statistics import operation_stats as operation_stats
from arsrc.types import Batch as Batch
from arsrc.types import SourceState as SourceState
from arsrc.views.packing import Packing as Packing
from arsrc.writing import write_array_record as write_array_record

__version__ = "0.1.0"

__all__ = [
    "ArrayRecordSourceConfig",
    "ArsrcError",
    "ArsrcFileNotFoundError",
    "ArsrcIndexError",
    "ArsrcReadError",
    "ArsrcTypeError",
    "ArsrcValueError",
    "ArsrcWriteError",
    "BadRecords",
    "Batch",
    "LeafStatistics",
    "MixtureConfig",
    "Origin",
    "Packing",
    "ReadOptions",
    "RecordError",
    "Selection",
    "SourceState",
    "advance",
    "bad_records",
    "batch_at",
    "batch_mask",
    "batch_spec",
    "check",
    "close",
    "codecs",
    "compute_statistics",
    "dataset_statistics",
    "element_spec",
    "ensure_rng_streams",
    "explain",
    "fingerprint",
    "from_state_dict",
    "get_statistics",
    "init",
    "io_metrics",
    "is_exhausted",
    "iterate",
    "load_resident",
    "locate",
    "next_batch",
    "next_batches",
    "next_global_batch",
    "num_records",
    "operation_stats",
    "origin",
    "peek",
    "read_records",
    "record_ids",
    "record_keys",
    "requires_rng_streams",
    "reset_cache",
    "scan_epoch",
    "scan_steps",
    "select_records",
    "source_counts",
    "source_ids",
    "state_at",
    "step_of",
    "steps_per_epoch",
    "take",
    "tfds",
    "to_state_dict",
    "total_steps",
    "write_array_record",
]


def __dir__() -> list[str]:
    return __all__


_starting.over()
