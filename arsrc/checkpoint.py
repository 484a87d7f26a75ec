"""Checkpoints: a state as plain values, tied to the data and the order that it belongs to.

`SourceState` is a plain PyTree and can be saved inside the train state, by Orbax for one. The functions here are
for those who want plain values, and a check that a state is restored onto what it was saved from.
"""

import operator
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from arsrc import mixtures
from arsrc._host import registry
from arsrc._host.groups import Group
from arsrc._host.open_source import OpenSource
from arsrc.any_config import AnyConfig
from arsrc.config import ArrayRecordSourceConfig
from arsrc.errors import ArsrcTypeError, ArsrcValueError, said, sides
from arsrc.mixture_config import MixtureConfig
from arsrc.order.mixture import rows_before
from arsrc.order.plan import ORDER_VERSION, PAD_ID
from arsrc.types import SourceState, check_state

FORMAT_VERSION = 1
_BETWEEN = " | "
_WITHOUT = ", without records "
_EXCLUDED = re.compile(re.escape(_WITHOUT) + r"[^|]*?(?=$| \| )")
_FIELDS = ("version", "index", "epoch", "key_impl", "key_words", "fingerprint", "exclude")


def fingerprint(config: AnyConfig) -> str:
    """Return a text that is equal for equal data in equal order; host.

    Enter: record counts, file sizes, and hashes that the format keeps (of the footers and of a spread of chunks),
    which reads kilobytes, not the data; slices; which records are selected, and how they are packed; which order, and
    its version; excluded records. Do not enter: where the files lie, seed, batch size, remainder, epochs, codec,
    `read`, `name`, statistics.

    Raises:
        ArsrcReadError: A file cannot be read.
    """
    return _fingerprint(config)


def _fingerprint(config: AnyConfig) -> str:
    found = _data_and_order(config, registry.source(config, strict=True))
    if isinstance(config, ArrayRecordSourceConfig):
        return found + _excluded(config, "")
    excluded = [_excluded(one, f" of source {number}") for number, one in enumerate(config._sources)]
    return f"{found}{''.join(excluded)}{_BETWEEN}{_weights(config)}"


def check(config: AnyConfig, fingerprint: str) -> None:
    """Raise where `config` has other data or another order than the one of which `fingerprint` is kept; host.

    For those who keep states in checkpoints of their own; `from_state_dict` asks more. Which records are excluded may
    differ, since they change no place of any other: those that were excluded may come back unnoticed. The weights of a
    mixture may not differ: a state that goes on with others goes through `to_state_dict` and `from_state_dict`.

    Args:
        config: The source to go on with.
        fingerprint: What `fingerprint(config)` was when the state was saved; not that of a state dict, which knows no
            weights.

    Raises:
        ArsrcValueError: Data or order differ; both sides are shown.
        ArsrcTypeError: `fingerprint` is no text.
        ArsrcReadError: A file cannot be read.
    """
    if not isinstance(fingerprint, str):
        raise ArsrcTypeError(
            "check", "fingerprint is no text", "Give what fingerprint(config) was.", fingerprint=fingerprint
        )
    saved, here = (_EXCLUDED.sub("", text) for text in (fingerprint.strip(), _fingerprint(config)))
    if saved != here:
        what, fix = "the fingerprint is one of other data or another order", "Use the config of which it was kept:"
        raise ArsrcValueError("check", what, fix + _differences(saved, here))


def _excluded(config: ArrayRecordSourceConfig, of: str) -> str:
    ranges = ", ".join(f"{start}..{stop - 1}" for start, stop in config.exclude)
    return f"{_WITHOUT}{ranges}{of}" if ranges else ""


def _weights(config: MixtureConfig) -> str:
    """Say which shares sources have, and how long."""
    steps = [f"from row {step * config.batch_size} on {list(weights)}" for step, weights in config._stages]
    return f"weights {', '.join(steps)}, stop {config.stop}"


def _data_and_order(config: AnyConfig, host: OpenSource) -> str:
    """Return the fingerprint but for excluded records and weights, which change no place of any other record."""
    texts = [_of_source(one, *place) for one, place in zip(config._sources, host.sources, strict=True)]
    return texts[0] if isinstance(config, ArrayRecordSourceConfig) else _BETWEEN.join([f"{len(texts)} sources", *texts])


def _of_source(config: ArrayRecordSourceConfig, group: Group, place: int) -> str:
    if config.shuffle_records and config.shuffle_block_size > 1:
        order = f"shuffled blocks of {config.shuffle_block_size} in windows of {config.shuffle_window_blocks}"
    elif config.shuffle_records:
        order = "shuffled records"
    elif config.shuffle_files:
        order = "shuffled files"
    else:
        order = "as stored"
    rows = f"{group.num_documents(place)} records"
    if config.select is not None:
        rows += f" selected of {group.num_stored(place)} by {config.select.ids.digest}"
    if config.pack is not None:
        num_rows = group.plans[place].num_records
        rows = f"{num_rows} rows of {config.pack.length} tokens by {group.decoded.table_digest}, {rows}"
    return f"{rows}, data {group.content_hash(place)}, order {ORDER_VERSION} {order}"


def to_state_dict(config: AnyConfig, state: SourceState) -> dict[str, Any]:
    """Return `state` as plain Python values, fit for JSON, with format version, fingerprint and exclusions; host.

    Of a mixture it also says how many rows each source has served, and with which weights. A signal handler may call it
    at any moment: of a source that is open it looks at no file a second time.

    Args:
        config: The source.
        state: A state of it; not traced.
    """
    check_state("to_state_dict", state)
    if isinstance(state.index, jax.core.Tracer):
        raise ArsrcTypeError("to_state_dict", "runs on the host, not inside a JAX transformation")
    with jax.ensure_compile_time_eval():  # JAX may be tracing what a signal handler interrupts
        key_words = np.asarray(jax.random.key_data(state.key)).tolist()
    host = registry.opened(config)
    found = {
        "version": FORMAT_VERSION,
        "index": int(state.index),
        "epoch": int(state.epoch),
        "key_impl": str(jax.random.key_impl(state.key)),
        "key_words": key_words,
        "fingerprint": _data_and_order(config, host),
        "exclude": [list(pair) for pair in host.exclude],
    }
    if isinstance(config, MixtureConfig) and host.plan.mixture is not None:
        found["source_rows"] = rows_before(host.plan.mixture, mixtures.slot_of(host.plan, state))
        found["stages"] = [[step * config.batch_size, list(weights)] for step, weights in config._stages]
    return found


def from_state_dict(config: AnyConfig, state_dict: Mapping[str, Any]) -> SourceState:
    """Return the state that `to_state_dict` saved; host.

    `batch_size`, `remainder`, `num_epochs` and the places of the files may have changed since, and more records may be
    excluded: the stream goes on at the same record. Weights of a mixture may change from there on: what lies behind
    stays, as a stage, and each source goes on where it stands.

    Args:
        config: The source to go on with.
        state_dict: From `to_state_dict`.

    Raises:
        ArsrcValueError: It was saved from other data or another order, by another format version, or is damaged; or
            records that were excluded would come back; or weights would have changed before.
    """
    where = "from_state_dict"
    if not isinstance(state_dict, Mapping):
        raise ArsrcTypeError(
            where,
            "state_dict must be a mapping",
            "Arguments are the config, then what to_state_dict gave: json.loads(text), say.",
            state_dict=type(state_dict).__name__,
        )
    given, state_dict = state_dict, _plain(state_dict)
    if _integers([state_dict.get("version", FORMAT_VERSION)]) != [FORMAT_VERSION]:
        raise ArsrcValueError(
            where,
            f"knows format version {FORMAT_VERSION}",
            "Read it with the arsrc that wrote it.",
            version=state_dict["version"],
        )
    missing = sorted(set(_FIELDS) - set(state_dict))
    if missing:
        raise ArsrcValueError(where, "is no source state", "Use to_state_dict.", missing=missing)
    host = registry.source(config, strict=True)
    _check_same(config, host, state_dict)
    state = SourceState(
        index=jnp.asarray(_u32(state_dict, "index")),
        epoch=jnp.asarray(_u32(state_dict, "epoch")),
        key=_key(state_dict["key_words"], state_dict["key_impl"]),
    )
    if isinstance(config, MixtureConfig):
        mixtures.check_resumed(config, host.plan, state, given)
    return state


def _check_same(config: AnyConfig, host: OpenSource, state_dict: Mapping[str, Any]) -> None:
    """Refuse a state of other data or another order, or that excludes what would come back."""
    where, saved, here = "from_state_dict", state_dict["fingerprint"], _data_and_order(config, host)
    if not isinstance(saved, str):
        raise ArsrcValueError(where, "the fingerprint is no text", fingerprint=saved)
    if saved != here:
        raise ArsrcValueError(
            where,
            "the state belongs to other data or another order",
            "Restore it with the config it was saved with:" + _differences(saved, here),
        )
    excluded = _pairs(state_dict["exclude"])
    back = [pair for pair in excluded if not any(start <= pair[0] and pair[1] <= stop for start, stop in host.exclude)]
    if back:
        raise ArsrcValueError(
            where,
            "records that the run had excluded would come back",
            "Exclude at least what it excluded:" + sides(saved=str(excluded), config=str(list(host.exclude))),
        )


def _differences(saved: str, here: str) -> str:
    """Return both sides, of mixtures of as many sources only those that differ."""
    sources, sources_here = saved.split(_BETWEEN), here.split(_BETWEEN)
    if sources[0] != sources_here[0] or len(sources) != len(sources_here) or len(sources) == 1:
        return sides(saved=saved, config=here)
    pairs = enumerate(zip(sources, sources_here, strict=True), -1)
    found = [
        ("weights" if a.startswith("weights ") else f"source {number}", a, b) for number, (a, b) in pairs if a != b
    ]
    return "".join(sides(**{f"saved, {label}": a, f"config, {label}": b}) for label, a, b in found)


def _plain(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields with scalars as Python has them: savers of arrays give arrays without axes back."""
    try:
        found = {field: state_dict[field] for field in _FIELDS if field in state_dict}
        return {field: one.item() if _is_scalar(one) else one for field, one in found.items()}
    except Exception as error:
        raise ArsrcValueError("from_state_dict", f"the state cannot be read ({said(error)})") from error


def _is_scalar(value: Any) -> bool:
    is_array = isinstance(value, (np.ndarray, np.generic, jax.Array))
    return is_array and value.ndim == 0 and not jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def _integers(values: Any) -> list[int] | None:
    """Return whole numbers below 2**32; None if some are none."""
    if not isinstance(values, (list, tuple, np.ndarray, jax.Array)):
        return None
    try:
        numbers = [-1 if isinstance(value, (bool, np.bool_)) else operator.index(value) for value in values]
    except Exception:  # of whatever stands there
        return None
    return numbers if all(0 <= number <= PAD_ID for number in numbers) else None


def _key(words: Any, impl: Any) -> jax.Array:
    numbers = _integers(words)
    try:
        if numbers is None or not isinstance(impl, str):
            raise ValueError("it is no list of words and the name of a kind")
        key = jax.random.wrap_key_data(jnp.asarray(np.array(numbers, np.uint32)), impl=impl)
        if key.shape != ():
            raise ValueError("is no single key")
        return key
    except (ValueError, TypeError) as error:
        what = f"the key is damaged ({error})"
        raise ArsrcValueError("from_state_dict", what, key_words=words, key_impl=impl) from error


def _pairs(value: Any) -> list[tuple[int, int]]:
    is_list = isinstance(value, (list, tuple, np.ndarray, jax.Array))
    pairs = [_integers(pair) for pair in value] if is_list else [None]
    found = [(pair[0], pair[1]) for pair in pairs if pair is not None and len(pair) == 2 and pair[0] <= pair[1]]
    if len(found) < len(pairs):
        raise ArsrcValueError("from_state_dict", "exclude is no list of ranges of records", exclude=value)
    return found


def _u32(state_dict: Mapping[str, Any], field: str) -> np.uint32:
    numbers = _integers([state_dict[field]])
    if numbers is None:
        raise ArsrcValueError("from_state_dict", f"{field} is no u32", **{field: state_dict[field]})
    return np.uint32(numbers[0])
