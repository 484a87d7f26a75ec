"""What is fixed about a mixture of sources: `MixtureConfig`, checked at construction."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Literal, cast, get_args

import numpy as np

from arsrc.codecs import Codec
from arsrc.codecs.check import whole_number
from arsrc.codecs.element_tree import tree_text
from arsrc.codecs.packed import Mixed, Packed
from arsrc.config import (
    MAX_BATCH_SIZE,
    ArrayRecordSourceConfig,
    ReadOptions,
    _boolean,
    _check_stream,
    _frozen,
    _one_of,
)
from arsrc.errors import ArsrcTypeError, ArsrcValueError, said, sides
from arsrc.frozen import HashOnce, Terse
from arsrc.order.mixture import mixture_plan
from arsrc.order.plan import Plan
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
    shortest of at most 2**14 slots that holds them, else of 2**14, which keeps each to within 1e-4. A period's slots
    are spread evenly, the same in each: whatever stretch of slots of one stage one takes, a batch, say, it has its
    shares to within 1 row for two sources, and to within `2 - 1 / (n - 1)` rows for `n`.

    The sources' own orders hold (`shuffle_*`, `exclude`). Source `s` has the key `jax.random.fold_in(state.key, s)`,
    and goes through its own epochs at its own pace: its rows are, one after another, those of all its epochs, whatever
    the others do. No row of an epoch is left out, so that `batch_size` and `remainder` of sources play no part, nor do
    their `seed`, `name` and statistics. Each is read as its `read` says; threads and memory for batches that are read
    ahead are those of the first one. All have one `on_bad_record`.

    The state is that of any source. An epoch of a mixture is as many rows as its sources hold together, whichever
    these are; it has no rest: batches run over its end. `record_ids` number the sources' records one source
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
        for _, weights in self._stages:
            whole_quotas(weights)
        _one_of("stop", self.stop, get_args(Stop))
        put("stochastic", _boolean("stochastic", self.stochastic))
        _check_stream(self.stochastic, self.stream_name)
        ArrayRecordSourceConfig._check_statistics(cast(Any, self))
        put("precomputed_stats", _frozen(self.precomputed_stats))
        if self.name is not None and not isinstance(self.name, str):
            raise ArsrcTypeError("name", "must be a string or None", name=self.name)
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
    def read(self) -> ReadOptions:
        """How batches are read ahead: as the first source says."""
        options: ReadOptions = self.sources[0].read
        return options

    @property
    def _sources(self) -> tuple[ArrayRecordSourceConfig, ...]:
        """The sources."""
        sources: tuple[ArrayRecordSourceConfig, ...] = self.sources
        return sources

    @functools.cached_property
    def _groups(self) -> tuple[tuple[int, ...], ...]:
        """The numbers of the sources that are read together: those that decode, keep and read alike."""
        groups: dict[Any, list[int]] = {}
        for number, source in enumerate(self._sources):
            groups.setdefault((source.codec, source.pack, source.cacheable, source.read), []).append(number)
        return tuple(map(tuple, groups.values()))

    def _plan(self, plans: Sequence[Plan]) -> Plan:
        """Return the plan, where those of the sources are these.

        Raises:
            ArsrcValueError: They hold too many rows together.
        """
        return mixture_plan(plans, self.batch_size, self._stages, self.stop)

    def _row_codec(self, codecs: Sequence[Codec]) -> Codec | Packed | Mixed:
        """Return what has the spec of rows, where these decode the records of groups.

        Raises:
            ArsrcValueError: Their specs differ.
        """
        configs = [self._sources[sources[0]] for sources in self._groups]
        found = [config._row_codec([codec]) for config, codec in zip(configs, codecs, strict=True)]
        texts = [tree_text(codec.element_spec()) for codec in found]
        for sources, text in zip(self._groups, texts, strict=True):
            if text != texts[0]:
                what = f"sources 0 and {sources[0]} have other elements"
                fix = "Let all sources give elements of one structure, shapes and dtypes:"
                both = sides(**{"source 0": texts[0], f"source {sources[0]}": text})
                raise ArsrcValueError("sources", what, fix + both)
        return found[0] if len(found) == 1 else Mixed(tuple(found))

    @property
    def _masks(self) -> bool:
        """Whether bad records are masked rows."""
        return self._sources[0]._masks

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
        if source.on_bad_record != given[0].on_bad_record:
            what = f"sources 0 and {number} differ in on_bad_record"
            raise ArsrcValueError("sources", what, "Let all sources have one.", on_bad_record=source.on_bad_record)
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
