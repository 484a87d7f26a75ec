"""`explain`: how a source is read, what limits it, and what would help, in words."""

from collections.abc import Sequence

from arsrc._host import registry
from arsrc._host.groups import Group, random_access
from arsrc._host.machine.threads import num_cores
from arsrc._host.open_source import OpenSource
from arsrc.advice import Facts, limits
from arsrc.amounts import counted, in_bytes, in_seconds
from arsrc.any_config import AnyConfig
from arsrc.codecs import Map
from arsrc.config import ArrayRecordSourceConfig
from arsrc.mixture_config import MixtureConfig


def explain(config: AnyConfig) -> str:
    """Return how this source is read, what limits it, and what would help, in a few lines of text; host.

    It judges by the files, by the options, and by what `io_metrics` has counted so far: ask after some hundred steps of
    the training loop. Its wording may change; programs ask `io_metrics`.
    """
    host = registry.opened(config)
    facts = [_facts(one, host, *place) for one, place in zip(config._sources, host.sources, strict=True)]
    found = list(dict.fromkeys(limit for one in facts for limit in limits(one)))
    lines = _of_mixture(config, host, facts) if isinstance(config, MixtureConfig) else _of_one(config, host, facts[0])
    lines += [
        f"ahead: {_ahead(facts[0])}",
        f"so far: {_so_far(facts[0])}",
        *(f"limited: {limit.what}\n  would help: {'; or '.join(limit.helps)}" for limit in found),
    ]
    if not found:
        lines.append(
            "limited: " + ("by nothing here" if facts[0].is_measured else "ask again after some hundred steps")
        )
    return "\n".join(lines)


def _of_mixture(config: MixtureConfig, host: OpenSource, facts: Sequence[Facts]) -> list[str]:
    """Return what there is to say of a mixture and its sources."""
    stages = "" if len(config._stages) == 1 else f", in {len(config._stages)} stages"
    epoch = f"{counted(host.plan.steps_per_epoch, 'batch')} of {config.batch_size} an epoch"
    lines = [f"{config.name or 'mixture'}: {counted(len(facts), 'source')}{stages}; {epoch}"]
    lines += [f"files: {group.files.data_set.files}; {group.files.data_set.files.describe()}" for group in host.groups]
    shares = zip(*(weights for _, weights in config._stages), strict=True)
    for number, (source, place, fact, share) in enumerate(
        zip(config._sources, host.sources, facts, shares, strict=True)
    ):
        parts = ", then ".join(f"{part:.1%}" for part in share)
        rows = counted(place[0].plans[place[1]].num_records, "row")
        lines.append(f"source {number}, {parts}: {rows}; {_order(source)}; {_elements(source, host, *place, fact)}")
    return lines


def _of_one(config: ArrayRecordSourceConfig, host: OpenSource, facts: Facts) -> list[str]:
    """Return what there is to say of a source that is none of a mixture."""
    files = host.files.data_set.files
    epoch = f"{counted(host.plan.steps_per_epoch, 'batch')} of {config.batch_size} an epoch"
    return [
        f"{config.name or 'source'}: {files}",
        f"files: {files.describe()}",
        f"order: {_order(config)}; {epoch}",
        f"elements: {_elements(config, host, *host.sources[0], facts)}",
    ]


def _elements(config: ArrayRecordSourceConfig, host: OpenSource, group: Group, place: int, facts: Facts) -> str:
    """Say what rows are, and whether they are kept."""
    kept = "not cached" if group.decoded.cache is None else str(group.decoded.cache)
    each = counted(host.elements.num_bytes, "byte")
    return f"{facts.codec}{_view(config, group, place)}, {each} each; {kept}"


def _view(config: ArrayRecordSourceConfig, group: Group, place: int) -> str:
    """Say which records are rows, where these are not all of them."""
    text = ""
    if config.select is not None:
        text += f", {group.num_documents(place):,} of {counted(group.num_stored(place), 'record')} selected"
    if config.pack is not None and group.decoded.table is not None:
        rows, share = counted(group.plans[place].num_records, "row"), group.decoded.table.fill
        text += f", packed into {rows} of {config.pack.length} tokens ({config.pack.how}), {share:.1%} full"
    return text


def _facts(config: ArrayRecordSourceConfig, source: OpenSource, group: Group, place: int) -> Facts:
    data_set, num_bytes = group.files.data_set, source.elements.num_bytes
    opened, plan = data_set.files.opened, group.plans[place]
    blocks = plan.blocks
    window_size = blocks.window_size if blocks else opened.max_group_size * config.shuffle_window_blocks
    codec = group.decoded.decoder.codec
    return Facts(
        batch_bytes=source.plan.batch_size * num_bytes,
        batches_at_once=source.batches_at_once,
        all_bytes=plan.num_records * num_bytes,
        encodings=tuple(opened.not_mapped),
        compressions=tuple(opened.decoded),
        is_verifying=data_set.is_verifying,
        group_size=opened.max_group_size,
        is_random=random_access(config),
        block_size=config.shuffle_block_size,
        window_bytes=min(window_size, plan.num_records) * _record_bytes(source),
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
        return "all records shuffled" if config.pack is None else "all rows shuffled"
    return "files shuffled" if config.shuffle_files else "as stored"


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
