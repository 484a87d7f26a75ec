"""`iterate`: batches, or segments of several, for a loop in Python."""

from collections.abc import Iterator
from time import perf_counter
from typing import Any

import jax
import numpy as np

from arsrc import sizes
from arsrc._host import registry
from arsrc._host.open_source import OpenSource
from arsrc._host.serving.requests import Request
from arsrc.any_config import AnyConfig
from arsrc.codecs.check import whole_number
from arsrc.codecs.element_tree import leaf_paths
from arsrc.devices.dispatched import Dispatched
from arsrc.devices.placement import Placement, check_placement, placer, rows_of_process, stacked
from arsrc.errors import ArsrcError, ArsrcReadError, ArsrcTypeError
from arsrc.fetch import read_from, source_of
from arsrc.host_call import narrowed
from arsrc.keys import order_words
from arsrc.order.plan import PAD_ID
from arsrc.state import init
from arsrc.types import Batch, SourceState, check_state

_PATIENCE = 0.25
"""Share of the time that the program was away, to wait for the device before the next segment is handed out.

Where the program waits for results, or launches kernels itself, the device is done about when the program is back: the
segment behind the next one is transferred at once, or nothing would hide that. Else it has time until the program asks.
"""


def iterate(
    config: AnyConfig,
    state: SourceState | None = None,
    *,
    num_batches: int | None = None,
    device: Placement = None,
) -> Iterator[tuple[SourceState, Batch]]:
    """Return an iterator of `(state after the batch, batch)`, without callbacks, for loops outside jit; host.

    The same batches as `next_batch`, read ahead on threads, the next one transferred while this one is used.
    Ends when the source is exhausted.

    With `num_batches` these are segments: so many batches stacked, for one call of a jitted `jax.lax.scan` over them.
    Two lie on the device, the one that is used and the next; while the next is asked for, also the one before, as long
    as the caller holds it. The last one is shorter where the source ends within it.

    Args:
        config: The source.
        state: Where to start; defaults to `init(config)`.
        num_batches: Batches of a segment, at least 1; by default batches come one by one.
        device: Device or sharding of a batch's arrays; defaults to JAX's default device. With a sharding over the
            devices of several processes every process reads the rows of its devices, and gets global arrays. Rank-1
            specs such as `PartitionSpec("data")` fit all leaves. The first axis of segments is not divided.

    Returns:
        Of `(state, batch)`; leaves of `batch.data` are `[batch_size, ...]`, of segments
        `[num_batches, batch_size, ...]`; `mask`, `record_ids` and `epochs` have the same leading axes.

    Raises:
        ArsrcError: As for `init`, and where `batch_size` does not divide among the devices, at once; and what
            went wrong with a record, with its type, at its batch, or at the segment that holds it. After an error, or
            Ctrl-C, iterate again from the last state: an iterator that was interrupted is at its end.
        ArsrcTypeError: With `num_batches`, a sharding that is no `NamedSharding`.
        ArsrcValueError: `num_batches` is less than 1, or so large that rows have no numbers.
    """
    with jax.transfer_guard("allow"):
        start = init(config) if state is None else state
    check_state("iterate", start)
    if isinstance(start.index, jax.core.Tracer):
        raise _in_a_trace()
    check_placement("iterate", device)
    rows = rows_of_process(device, config.batch_size)
    if num_batches is not None:
        num_batches = whole_number("iterate", "num_batches", num_batches, 1, PAD_ID // config.batch_size)
        device = stacked("iterate", device)
    return _batches(registry.source(config, strict=state is not None), config, start, num_batches, device, rows)


def _batches(
    host: OpenSource, config: AnyConfig, start: SourceState, num_batches: int | None, placement: Placement, rows: range
) -> Iterator[tuple[SourceState, Batch]]:
    if isinstance(jax.random.key_data(start.key), jax.core.Tracer):  # it is asked for the first time in a trace
        raise _in_a_trace()
    schema = host.schema
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(sizes.element_spec(config))]
    dtypes += [np.dtype(bool)] * schema.config._masks  # which rows hold a record
    treedef = jax.tree.structure(schema.codec.element_spec())
    paths = leaf_paths(schema.codec.element_spec()) + ["mask"] * schema.config._masks
    row_axis = 0 if num_batches is None else 1
    place_both = placer(placement, rows.start, config.batch_size, row_axis, start.key, schema)
    order = np.asarray(order_words(schema.plan, start.key))
    dispatched = None if num_batches is None else Dispatched(placement)

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
        # What is wanted of [num_states, num_batches, batch_size, ...].
        part = (0, 0) if num_batches is None else (0, slice(host.num_left(request)))
        ids: Any = loaded.record_ids[part]
        mask: Any = ids != np.uint32(PAD_ID)
        narrow = zip(loaded.leaves, dtypes, paths, strict=True)
        leaves = [narrowed(leaf[part], dtype, path, ids) for leaf, dtype, path in narrow]
        if schema.config._masks:
            mask = leaves.pop()
            ids = np.where(mask, ids, np.uint32(PAD_ID))
        epochs: Any = np.broadcast_to(loaded.epochs[part], ids.shape)
        data = jax.tree.unflatten(treedef, leaves)
        batch = Batch(data=data, mask=mask, record_ids=ids, epochs=epochs)
        scalars, batch = place_both(np.array(loaded.after.states[0][:2], np.uint32), batch)
        if isinstance(scalars[0], jax.core.Tracer):
            raise _in_a_trace()
        return loaded.after, (SourceState(index=scalars[0], epoch=scalars[1], key=scalars[2]), batch)

    state = (int(start.index), int(start.epoch), *order.tolist())
    request = Request((state,), num_batches or 1, rows.start, len(rows))
    request = request._replace(num_batches=max(1, host.num_left(request)))
    item: tuple[Request, tuple[SourceState, Batch]] | None = None
    failed: Exception | None = None
    seconds_away = 0.0
    while not host.is_exhausted(request):
        if failed is not None:
            raise failed
        if item is None and dispatched is not None:
            dispatched.wait()  # for what used the segment before the one that is used now
        after, result = item or fetch(request)
        item = None
        if dispatched is not None:
            dispatched.mark()
        try:
            # Else it would mean waiting for files, or for the device, before this batch is used.
            if source().is_ready(after) and (dispatched is None or dispatched.is_done(_PATIENCE * seconds_away)):
                item = fetch(after)
        except (ArsrcError, OSError, jax.errors.JaxRuntimeError):
            item = None  # the next step fetches again, when the device has more room
        except Exception as error:
            failed = error
        left_at, given = perf_counter(), [result]
        del result  # or its memory would be held until the next one is asked for
        yield given.pop()
        seconds_away = perf_counter() - left_at
        request = after


def _in_a_trace() -> ArsrcTypeError:
    return ArsrcTypeError("iterate", "runs on the host, not inside a JAX transformation", "Use scan_epoch there.")
