"""What is known of a config once its files are open: sizes, specs, what was read; and closing them."""

from typing import Any

import jax
import numpy as np

from arsrc._host import registry
from arsrc.any_config import AnyConfig
from arsrc.types import Batch


def num_records(config: AnyConfig) -> int:
    """Return the number of records in the data set; host, or while tracing."""
    return registry.source(config, strict=True).plan.num_records


def steps_per_epoch(config: AnyConfig) -> int:
    """Return the number of batches in an epoch; host, or while tracing.

    `num_records // batch_size` with `remainder="drop"`, else rounded up. Under "wrap" epochs do not end with a
    batch: it is the number of batches that hold one epoch's records.
    """
    return registry.source(config).plan.steps_per_epoch


def total_steps(config: AnyConfig) -> int | None:
    """Return the number of batches until the source is exhausted, None if endless; host, or while tracing."""
    return registry.source(config).plan.total_steps


def element_spec(config: AnyConfig) -> Any:
    """Return the PyTree of `jax.ShapeDtypeStruct` of one element; host, or while tracing.

    Dtypes are those that arrive on the device: with 64-bit types off, 64-bit leaves arrive with 32.
    """
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype)),
        registry.source(config).schema.codec.element_spec(),
    )


def batch_spec(config: AnyConfig) -> Batch:
    """Return the `Batch` of `jax.ShapeDtypeStruct` that `next_batch` gives; host, or while tracing."""
    size = (config.batch_size,)
    spec: Any = Batch  # of specs in place of arrays
    batch: Batch = spec(
        data=jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(size + leaf.shape, leaf.dtype), element_spec(config)),
        mask=jax.ShapeDtypeStruct(size, np.dtype(bool)),
        record_ids=jax.ShapeDtypeStruct(size, np.dtype(np.uint32)),
        epochs=jax.ShapeDtypeStruct(size, np.dtype(np.uint32)),
    )
    return batch


def reset_cache(config: AnyConfig) -> None:
    """Forget the decoded elements that `cacheable=True` keeps; host."""
    registry.opened(config).reset_cache()


def close(config: AnyConfig | None = None) -> None:
    """Close the source of `config`, or all; host. Files, threads and caches open again when they are next used.

    Files that another open config reads too stay open. Returns within a second, whatever codecs are doing.

    Args:
        config: The source; None closes all.
    """
    registry.close(config)


def io_metrics(config: AnyConfig) -> dict[str, float]:
    """Return what the host did since the source was opened; host.

    Configs that differ in `seed` or statistics alone are one source. A batch that was read and not asked for yet may be
    served later without being read again.

    Returns:
        `records_read` and `bytes_read`, from files or from groups that were kept; `records_decoded` and `bytes_decoded`
        for them, which are more where whole groups are decoded, and fewer where these were kept (as many records as the
        groups hold, of the mean length of those that were read); `seconds_read` spent reading and decoding them (summed
        over threads), of these `seconds_in_codec`; `seconds_waited` by callers for data, and `seconds_away` between one
        answer and the next question; `cache_hits` (records); `batches_served`, those of `batch_at` and `take` too, of
        these `batches_ready` when they were asked for, and `batches_here`, which were loaded on the program's own
        thread since others were thought to be of no use; `background_errors` of threads that nobody could expect; and
        `bytes_ahead`, `bytes_groups` and `bytes_buffers` that are kept now, for all sources of the same files, of
        batches read ahead, of decoded groups, and of memory to be used again.
    """
    return registry.opened(config).metrics()
