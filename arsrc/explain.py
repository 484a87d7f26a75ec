"""`explain`: how a source is read, what limits it, and what would help, in words."""

from arsrc._host import registry
from arsrc._host.machine.threads import num_cores
from arsrc._host.open_source import OpenSource, random_access
from arsrc.advice import Facts, limits
from arsrc.amounts import counted, in_bytes, in_seconds
from arsrc.codecs import Map
from arsrc.config import ArrayRecordSourceConfig


def explain(config: ArrayRecordSourceConfig) -> str:
    """Return how this source is read, what limits it, and what would help, in a few lines of text; host.

    It judges by the files, by the options, and by what `io_metrics` has counted so far: ask after some hundred steps of
    the training loop. Its wording may change; programs ask `io_metrics`.
    """
    source = registry.opened(config)
    facts = _facts(config, source)
    found = limits(facts)
    lines = [
        f"{config.name or 'source'}: {source.files.data_set.files}",
        f"files: {source.files.data_set.files.describe()}",
        f"order: {_order(config)}; {counted(source.plan.steps_per_epoch, 'batch')} of {config.batch_size} an epoch",
        f"elements: {facts.codec}, {counted(source.elements.num_bytes, 'byte')} each; {_cache(source)}",
        f"ahead: {_ahead(facts)}",
        f"so far: {_so_far(facts)}",
        *(f"limited: {limit.what}\n  would help: {'; or '.join(limit.helps)}" for limit in found),
    ]
    if not found:
        lines.append("limited: " + ("by nothing here" if facts.is_measured else "ask again after some hundred steps"))
    return "\n".join(lines)


def _facts(config: ArrayRecordSourceConfig, source: OpenSource) -> Facts:
    data_set, num_bytes = source.files.data_set, source.elements.num_bytes
    opened = data_set.files.opened
    blocks = source.plan.blocks
    window_size = blocks.window_size if blocks else opened.max_group_size * config.shuffle_window_blocks
    codec = source.schema.codec
    return Facts(
        batch_bytes=config.batch_size * num_bytes,
        all_bytes=source.plan.num_records * num_bytes,
        encodings=tuple(opened.not_mapped),
        compressions=tuple(opened.decoded),
        is_verifying=data_set.is_verifying,
        group_size=opened.max_group_size,
        is_random=random_access(config),
        block_size=config.shuffle_block_size,
        window_bytes=min(window_size, source.plan.num_records) * _record_bytes(source),
        is_cached=config.cacheable,
        codec=type(codec).__name__,
        is_python=isinstance(codec, Map),
        num_processes=config.codec.num_processes if isinstance(config.codec, Map) else 0,
        ahead=source.ahead,
        cold=data_set.cold_share,
        num_threads=config.read.num_threads,
        num_cores=num_cores(),
        read_ahead_bytes=config.read.read_ahead_bytes,
        cache_bytes=config.read.cache_bytes,
        metrics=source.metrics(),
    )


def _record_bytes(source: OpenSource) -> int:
    """Return the mean length of the records that were read; of their elements, before any was."""
    metrics = source.metrics()
    num_records = int(metrics["records_read"])
    return int(metrics["bytes_read"]) // num_records if num_records else source.elements.num_bytes


def _order(config: ArrayRecordSourceConfig) -> str:
    if config.shuffle_block_size > 1:
        return f"blocks of {config.shuffle_block_size}, mixed in windows of {config.shuffle_window_blocks} blocks"
    if config.shuffle_records:
        return "all records shuffled"
    return "files shuffled" if config.shuffle_files else "as stored"


def _cache(source: OpenSource) -> str:
    return "not cached" if source.elements.cache is None else str(source.elements.cache)


def _ahead(facts: Facts) -> str:
    if facts.ahead == "never":
        return "nothing is read ahead"
    when = "where it is of use" if facts.ahead == "auto" else "always"
    return f"{when}, {in_bytes(facts.read_ahead_bytes)} by {counted(facts.num_threads, 'thread')} at most"


def _so_far(facts: Facts) -> str:
    metrics = facts.metrics
    num_batches = int(metrics["batches_served"])
    if not num_batches:
        return "no batches"
    ready, here = metrics["batches_ready"] / num_batches, metrics["batches_here"] / num_batches
    return (
        f"{counted(num_batches, 'batch')}, {ready:.0%} there when asked for, {here:.0%} loaded on the program's own "
        f"thread; to get them took {in_seconds(metrics['seconds_waited'])}, {facts.waiting:.0%} of its time"
    )
