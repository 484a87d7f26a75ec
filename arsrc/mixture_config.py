"""What is fixed about a mixture of sources: `MixtureConfig`, checked at construction."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Literal, cast, get_args

import numpy as np

from arsrc.codecs.check import whole_number
from arsrc.config import (
    MAX_BATCH_SIZE,
    ArrayRecordSourceConfig,
    ReadOptions,
    _boolean,
    _check_stream,
    _frozen,
    _one_of,
)
from arsrc.errors import ArsrcTypeError, ArsrcValueError, said
from arsrc.frozen import HashOnce, Terse
from arsrc.order.spread import whole_quotas

Stop = Literal["first", "all"]
Weights = tuple[float, ...]

_LAST_STEP = 2**62
_EXACT = (
    1e-12  # weights whose sum is as near to 1 are kept as they are, so that a config made of a config is equal to it
)


@dataclasses.dataclass(frozen=True, repr=False)
class MixtureConfig(HashOnce, Terse):
    """Several sources served as one stream, each row from one of them, in fixed shares; taken wherever a config is.

    A mixture serves slots, numbered from 0 without end. Weights become whole numbers over a period of slots: of the
    shortest of at most 2**14 slots that holds the weights of all stages, else of 2**14, which keeps each to within
    1e-4. A period's slots are spread evenly, the same in each: whatever stretch of slots of one stage one takes, a
    batch, say, it has its shares to within 1 row for two sources, and to within `2 - 1 / (n - 1)` rows for `n`.

    The sources' own orders hold (`shuffle_*`, `exclude`). Source `s` has the key `jax.random.fold_in(state.key, s)`,
    and goes through its own epochs at its own pace: its rows are, one after another, those of all its epochs, whatever
    the others do. No row of an epoch is left out, so that `batch_size` and `remainder` of sources play no part, nor do
    their `seed`, `name` and statistics.

    The state is that of any source. An epoch of a mixture is a whole number of periods, about as many rows as its
    sources hold together; it has no rest: batches run over its end. `record_ids` number the sources' records one source
    behind the other, and `epochs` of a batch are those of the sources.

    Attributes:
        sources: The sources, `ArrayRecordSourceConfig`s of one element spec. Mixtures do not nest: list the sources of
            the inner one, with its weights multiplied by its own weight. Kept as a tuple.
        weights: The share of each source: nonnegative numbers, of which not all are 0. Kept as a tuple of floats that
            sum to 1. A positive weight so small that it gets no slot of a period is an error.
        batch_size: Rows of a global batch, over all devices and hosts.
        stages: In place of `weights`, those of several stages: `((0, weights), (100_000, others))` changes them from
            step 100,000 on, counted in batches from `init`. Steps ascend from 0. Rows go on where they were: a change
            of weights begins no source again.
        stop: What happens when a source with `num_epochs` has served them. "first" ends the mixture, in front of the
            slot that would take one row more. With "all" the source's slots are masked rows from then on, and the
            mixture ends behind the last row of its sources; it is endless if one with a positive weight in the last
            stage is.
        seed: Seed of the order, in `[0, 2**32)`; the default key of `init`.
        stochastic: The caller gives the key at `init`; needs `stream_name`. Sources must not be stochastic themselves.
        stream_name: Name of the caller's key stream; folded into the key.
        name: A label for errors, metrics and profiles.
        read: Threads and memory with which the mixture is read ahead: speed only.
        batch_stats_fn: Function behind `compute_statistics`.
        precomputed_stats: What `get_statistics` gives; excludes `batch_stats_fn`. Copied: arrays too.

    Raises:
        ArsrcValueError: A field has a value that cannot be used (at construction).
        ArsrcTypeError: A field has a type that cannot be used (at construction).
    """

    sources: Any
    weights: Any = None
    _: dataclasses.KW_ONLY
    batch_size: int
    stages: Any = ()
    stop: Stop = "first"
    seed: int = 42
    stochastic: bool = False
    stream_name: str | None = None
    name: str | None = None
    read: ReadOptions = ReadOptions()
    batch_stats_fn: Callable[[Any], Any] | None = None
    precomputed_stats: Mapping[str, Any] | None = None

    __hash__ = HashOnce.__hash__

    def __post_init__(self) -> None:
        put = lambda field, value: object.__setattr__(self, field, value)  # noqa: E731
        put("sources", _sources(self.sources))
        put("batch_size", whole_number("batch_size", "batch_size", self.batch_size, 1, MAX_BATCH_SIZE))
        put("seed", whole_number("seed", "seed", self.seed, 0, 2**32 - 1))
        put("stages", _stages(self.stages, len(self.sources)))
        if (self.weights is None) != bool(self.stages):
            what = "a mixture has weights or stages, and one of them alone"
            raise ArsrcValueError("weights", what, "Give one of them.", weights=self.weights, stages=self.stages)
        if self.weights is not None:
            put("weights", _shares("weights", self.weights, len(self.sources)))
        whole_quotas([weights for _, weights in self._stages])
        _one_of("stop", self.stop, get_args(Stop))
        put("stochastic", _boolean("stochastic", self.stochastic))
        _check_stream(self.stochastic, self.stream_name)
        ArrayRecordSourceConfig._check_statistics(cast(Any, self))
        put("precomputed_stats", _frozen(self.precomputed_stats))
        if self.name is not None and not isinstance(self.name, str):
            raise ArsrcTypeError("name", "must be a string or None", name=self.name)
        if not isinstance(self.read, ReadOptions):
            raise ArsrcTypeError("read", "must be a ReadOptions", read=self.read)
        try:
            hash(self)
        except Exception as error:
            what, fix = f"a field cannot be hashed ({said(error)})", "Give functions."
            raise ArsrcTypeError("config", what, fix) from error

    @functools.cached_property
    def _of_programs(self) -> "MixtureConfig":
        """The config but for what no compiled program depends on: those that differ in this share all that is open."""
        found = object.__new__(type(self))
        sources = tuple(source._of_programs for source in self.sources)
        others = {"sources": sources, "seed": 0, "batch_stats_fn": None, "precomputed_stats": None}
        found.__dict__.update(self.__getstate__() | others | {"_of_programs": found})
        return found

    @property
    def _masks(self) -> bool:
        """Whether bad records of a source are masked rows."""
        return any(source._masks for source in self.sources)

    @property
    def _stages(self) -> tuple[tuple[int, Weights], ...]:
        """The weights of all stages, with the step that each begins at."""
        stages: tuple[tuple[int, Weights], ...] = self.stages or ((0, self.weights),)
        return stages


def _sources(given: Any) -> tuple[ArrayRecordSourceConfig, ...]:
    fix = "Give a tuple of them."
    if isinstance(given, MixtureConfig | ArrayRecordSourceConfig) or not isinstance(given, Sequence):
        raise ArsrcTypeError(
            "sources", "must be a sequence of ArrayRecordSourceConfig", fix, sources=type(given).__name__
        )
    sources = tuple(given)
    if not sources:
        raise ArsrcValueError("sources", "a mixture has at least one source", fix, sources=given)
    for number, source in enumerate(sources):
        if isinstance(source, MixtureConfig):
            fix = "List its sources in its place, with their weights multiplied by the weight that it has here."
            raise ArsrcTypeError("sources", f"source {number} is a mixture, and mixtures do not nest", fix)
        if not isinstance(source, ArrayRecordSourceConfig):
            raise ArsrcTypeError("sources", f"source {number} is no ArrayRecordSourceConfig", source=source)
        if source.stochastic:
            what = f"source {number} is stochastic, and the keys of sources are made from that of the mixture"
            raise ArsrcValueError("sources", what, "Make the mixture stochastic.", stream_name=source.stream_name)
    return sources


def _stages(given: Any, num_sources: int) -> tuple[tuple[int, Weights], ...]:
    pairs: list[Any] = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [None]
    if not all(isinstance(pair, Sequence) and len(pair) == 2 for pair in pairs):
        raise ArsrcTypeError("stages", "must be a sequence of pairs (step, weights)", stages=given)
    steps = [whole_number("stages", "step", step, 0, _LAST_STEP) for step, _ in pairs]
    if steps and (steps[0] != 0 or any(later <= step for step, later in itertools.pairwise(steps))):
        raise ArsrcValueError("stages", "steps must ascend from 0", steps=steps)
    return tuple(
        (step, _shares("stages", weights, num_sources)) for step, (_, weights) in zip(steps, pairs, strict=True)
    )


def _shares(field: str, given: Any, num_sources: int) -> Weights:
    """Return weights as floats that sum to 1."""
    try:
        if not isinstance(given, Iterable) or isinstance(given, str | bytes | Mapping | AbstractSet):
            raise TypeError
        values = list(given)
        if any(isinstance(value, str | bytes | bool | np.bool_) for value in values):
            raise TypeError
        weights = [float(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        raise ArsrcTypeError(field, "must be numbers, one for each source", weights=given) from None
    if len(weights) != num_sources:
        raise ArsrcValueError(field, f"there are {num_sources} sources and {len(weights)} weights", weights=weights)
    if not all(0 <= weight < math.inf for weight in weights):
        raise ArsrcValueError(field, "weights must be finite and not negative", weights=weights)
    if not any(weights):
        raise ArsrcValueError(field, "all weights are 0", weights=weights)
    largest = max(weights)
    if largest > 1e300:  # the sum might not be finite
        weights = [weight / largest for weight in weights]
    total = math.fsum(weights)
    return tuple(weights) if abs(total - 1) <= _EXACT else tuple(weight / total for weight in weights)
