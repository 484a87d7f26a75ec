"""arsrc: ArrayRecord files into JAX training, as a pure function of a tiny state.

    state        = arsrc.init(config)
    state, batch = arsrc.next_batch(config, state)

A map of the package, in the order in which data flows:

    config.py       what is fixed: ArrayRecordSourceConfig, ReadOptions
    state.py        what moves: SourceState, Batch; init and the arithmetic of states
    permutation.py  a keyed bijection on [0, n)
    block_order.py  a random order with locality
    order.py        (key, epoch, position) -> record id
    arithmetic.py   (index, epoch) in closed form, on u32
    shards.py       which rows of a batch a device gets
    opened.py       sizes and specs, metrics, close
    source.py       next_batch and its kin
    bridge.py       how compiled programs call the host: all callbacks
    mesh.py         next_global_batch
    resident.py     load_resident
    loop.py         scan_epoch, scan_steps, iterate
    checkpoint.py   fingerprint, to_state_dict, from_state_dict
    statistics.py   of what was served, and of what the data holds
    writing.py      write_array_record
    codecs/         record bytes to arrays and back
    _host/          files, readers, threads, caches: everything impure
    errors.py       ArsrcError and its kinds
"""

from arsrc.checkpoint import fingerprint as fingerprint
from arsrc.checkpoint import from_state_dict as from_state_dict
from arsrc.checkpoint import to_state_dict as to_state_dict
from arsrc.config import ArrayRecordSourceConfig as ArrayRecordSourceConfig
from arsrc.config import ReadOptions as ReadOptions
from arsrc.errors import ArsrcError as ArsrcError
from arsrc.errors import ArsrcFileNotFoundError as ArsrcFileNotFoundError
from arsrc.errors import ArsrcIndexError as ArsrcIndexError
from arsrc.errors import ArsrcReadError as ArsrcReadError
from arsrc.errors import ArsrcTypeError as ArsrcTypeError
from arsrc.errors import ArsrcValueError as ArsrcValueError
from arsrc.errors import ArsrcWriteError as ArsrcWriteError
from arsrc.errors import RecordError as RecordError
from arsrc.loop import iterate as iterate
from arsrc.loop import scan_epoch as scan_epoch
from arsrc.loop import scan_steps as scan_steps
from arsrc.mesh import next_global_batch as next_global_batch
from arsrc.opened import batch_spec as batch_spec
from arsrc.opened import close as close
from arsrc.opened import element_spec as element_spec
from arsrc.opened import io_metrics as io_metrics
from arsrc.opened import num_records as num_records
from arsrc.opened import reset_cache as reset_cache
from arsrc.opened import steps_per_epoch as steps_per_epoch
from arsrc.opened import total_steps as total_steps
from arsrc.resident import load_resident as load_resident
from arsrc.source import batch_at as batch_at
from arsrc.source import next_batch as next_batch
from arsrc.source import next_batches as next_batches
from arsrc.source import peek as peek
from arsrc.source import take as take
from arsrc.state import Batch as Batch
from arsrc.state import SourceState as SourceState
from arsrc.state import advance as advance
from arsrc.state import batch_mask as batch_mask
from arsrc.state import ensure_rng_streams as ensure_rng_streams
from arsrc.state import init as init
from arsrc.state import is_exhausted as is_exhausted
from arsrc.state import locate as locate
from arsrc.state import record_ids as record_ids
from arsrc.state import record_keys as record_keys
from arsrc.state import requires_rng_streams as requires_rng_streams
from arsrc.state import state_at as state_at
from arsrc.state import step_of as step_of
from arsrc.statistics import LeafStatistics as LeafStatistics
from arsrc.statistics import compute_statistics as compute_statistics
from arsrc.statistics import dataset_statistics as dataset_statistics
from arsrc.statistics import get_statistics as get_statistics
from arsrc.statistics import operation_stats as operation_stats
from arsrc.writing import write_array_record as write_array_record

__version__ = "0.1.0"
