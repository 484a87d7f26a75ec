"""`select_records`: which records a function of their elements holds for."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from arsrc import sizes
from arsrc._host import registry
from arsrc._host.open_source import OpenSource
from arsrc.codecs.element_tree import leaf_paths
from arsrc.config import ArrayRecordSourceConfig
from arsrc.errors import ArsrcTypeError, ArsrcValueError
from arsrc.host_call import narrowed
from arsrc.order.plan import PAD_ID
from arsrc.selection import Selection
from arsrc.types import Batch
from arsrc.views.id_set import IdSet


def select_records(config: ArrayRecordSourceConfig, predicate: Callable[[Batch], Any]) -> Selection:
    """Read and decode every record once, and return those that `predicate` holds for; host, with a progress bar.

    `dataclasses.replace(config, select=select_records(config, predicate))` serves them alone; `Selection.save` keeps
    them. It is tied to the data that it was made for. Where the config selects itself, it is chosen among these.

    Args:
        config: The source; its order plays no part.
        predicate: `predicate(batch) -> bool[num_rows]`, asked with some hundreds of records at a time in the order of
            the files: a `Batch` of NumPy arrays, all rows valid. Excluded records are not asked about and not
            selected, nor are those that cannot be read where `on_bad_record="mask"`.

    Returns:
        The selection, a value.

    Raises:
        ArsrcTypeError: `predicate` is no function, or gives no booleans.
        ArsrcValueError: It gives another number of them than there are rows, or holds for no record; or a record does
            not fit the codec.
        ArsrcReadError: A record cannot be read.
    """
    given: Any = predicate
    if not callable(given):
        fix = "Give a function of a batch that returns a boolean for each row."
        raise ArsrcTypeError("select_records", "predicate is no function", fix, predicate=type(given).__name__)
    registry.source(config)
    if config._sources != (config,) or config.pack is not None:
        what = "selects records of one source, which are not packed"
        raise ArsrcValueError("select_records", what, "Select in the sources, and pack what is selected.")
    host = registry.source(config, strict=True)
    ((group, place),) = host.sources
    kept = [batch.record_ids[_verdict(predicate, batch)] for batch in _batches(host, config)]
    rows = np.concatenate(kept) if kept else np.zeros(0, np.uint32)
    if not len(rows):
        raise ArsrcValueError("select_records", "predicate holds for no record")
    ids = rows if config.select is None else config.select.ids.take(rows.astype(np.int64)).astype(np.uint32)
    return Selection(IdSet.of_ids(ids), group.num_stored(place), group.content_hash(place))


def _batches(host: OpenSource, config: ArrayRecordSourceConfig) -> Iterator[Batch]:
    """Yield all elements as batches of NumPy arrays, with the dtypes that arrive on devices."""
    spec = sizes.element_spec(config)
    dtypes, paths, treedef = [leaf.dtype for leaf in jax.tree.leaves(spec)], leaf_paths(spec), jax.tree.structure(spec)
    for ids in host.spans("select_records"):
        leaves = host.elements.read(ids, masks=host.masks)
        good = leaves.pop().astype(bool) & (ids != PAD_ID) if host.masks else ids != PAD_ID
        ids = ids[good]
        if len(ids):
            narrow = zip(leaves, dtypes, paths, strict=True)
            data = jax.tree.unflatten(treedef, [narrowed(leaf[good], dtype, path, ids) for leaf, dtype, path in narrow])
            of_numpy: Any = Batch
            yield of_numpy(data=data, mask=np.ones(len(ids), bool), record_ids=ids, epochs=np.zeros_like(ids))


def _verdict(predicate: Callable[[Batch], Any], batch: Batch) -> NDArray[np.bool_]:
    found = np.asarray(predicate(batch))
    if found.dtype != bool:
        raise ArsrcTypeError("select_records", "predicate must return booleans", dtype=found.dtype.name)
    if found.shape != batch.mask.shape:
        what = "predicate must return one boolean for each row"
        raise ArsrcValueError("select_records", what, shape=found.shape, num_rows=len(batch.mask))
    return found
