"""`iterate`: batches for a loop in Python."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from arsrc import sizes
from arsrc._host import registry
from arsrc._host.open_source import OpenSource
from arsrc._host.serving.requests import Request
from arsrc.any_config import AnyConfig
from arsrc.codecs.element_tree import leaf_paths
from arsrc.devices.placement import Placement, check_placement, place, placer, replicated, rows_of_process
from arsrc.errors import ArsrcError, ArsrcReadError, ArsrcTypeError
from arsrc.fetch import read_from, source_of
from arsrc.host_call import narrowed
from arsrc.keys import order_words
from arsrc.order.plan import PAD_ID
from arsrc.state import init
from arsrc.types import Batch, SourceState, check_state


def iterate(
    config: AnyConfig,
    state: SourceState | None = None,
    *,
    device: Placement = None,
) -> Iterator[tuple[SourceState, Batch]]:
    """Return an iterator of `(state after the batch, batch)`, without callbacks, for loops outside jit; host.

    The same batches as `next_batch`, read ahead on threads, the next one transferred while this one is used.
    Ends when the source is exhausted.

    Args:
        config: The source.
        state: Where to start; defaults to `init(config)`.
        device: Device or sharding of the arrays; defaults to JAX's default device. With a sharding over the devices of
            several processes every process reads the rows of its devices, and gets global arrays. Rank-1 specs such as
            `PartitionSpec("data")` fit all leaves.

    Raises:
        ArsrcError: As for `init`, and where `batch_size` does not divide among the devices, at once; and what
            went wrong with a record, with its type, at its batch. After an error, or Ctrl-C, iterate again from the
            last state: an iterator that was interrupted is at its end.
    """
    start = init(config) if state is None else state
    check_state("iterate", start)
    if isinstance(start.index, jax.core.Tracer):
        raise ArsrcTypeError("iterate", "runs on the host, not inside a JAX transformation", "Use scan_epoch there.")
    check_placement("iterate", device)
    rows = rows_of_process(device, config.batch_size)
    return _batches(registry.source(config, strict=state is not None), config, start, device, rows)


def _batches(
    host: OpenSource, config: AnyConfig, start: SourceState, placement: Placement, rows: range
) -> Iterator[tuple[SourceState, Batch]]:
    schema = host.schema
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(sizes.element_spec(config))]
    dtypes += [np.dtype(bool)] * schema.config._masks  # which rows hold a record
    treedef = jax.tree.structure(schema.codec.element_spec())
    paths = leaf_paths(schema.codec.element_spec()) + ["mask"] * schema.config._masks
    key_words = np.asarray(jax.random.key_data(start.key))
    place_both = placer(placement, rows.start, config.batch_size, schema)
    order = np.asarray(order_words(schema.plan, start.key))
    key = jax.random.wrap_key_data(place(key_words, replicated(placement)), impl=jax.random.key_impl(start.key))

    def source() -> OpenSource:
        nonlocal host
        if host.is_closed:
            try:
                newer = source_of(schema)
            except ArsrcReadError:  # the files are others now: the loop goes on as long as it can read the older ones
                if not host.can_read:
                    raise
            else:
                if newer.schema == schema or not host.can_read:
                    host = newer
        return host

    def fetch(request: Request) -> tuple[Request, tuple[SourceState, Batch]]:
        loaded = read_from(source, lambda one: one.get(request))
        ids: Any = loaded.record_ids[0, 0]
        mask: Any = ids != np.uint32(PAD_ID)
        narrow = zip(loaded.leaves, dtypes, paths, strict=True)
        leaves = [narrowed(leaf[0, 0], dtype, path, ids) for leaf, dtype, path in narrow]
        if schema.config._masks:
            mask = leaves.pop()
            ids = np.where(mask, ids, np.uint32(PAD_ID))
        epochs: Any = np.broadcast_to(loaded.epochs[0, 0], ids.shape)
        data = jax.tree.unflatten(treedef, leaves)
        batch = Batch(data=data, mask=mask, record_ids=ids, epochs=epochs)
        index, epoch = np.array(loaded.after.states[0][:2], np.uint32)
        state = SourceState(index=index, epoch=epoch, key=key)
        return loaded.after, place_both(state, batch)

    state = (int(start.index), int(start.epoch), *order.tolist())
    request = Request((state,), 1, rows.start, len(rows))
    item: tuple[Request, tuple[SourceState, Batch]] | None = None
    failed: Exception | None = None
    while not host.is_exhausted(request):
        if failed is not None:
            raise failed
        after, result = item or fetch(request)
        item = None
        try:
            # Else it would mean waiting for files before this batch is used.
            if source().is_ready(after):
                item = fetch(after)
        except (ArsrcError, OSError):  # of the next step, which fetches again
            item = None
        except Exception as error:
            failed = error
        yield result
        request = after
