"""Keys of the order, and the caller's streams of keys."""

import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from arsrc.any_config import AnyConfig
from arsrc.errors import ArsrcTypeError, ArsrcValueError
from arsrc.order.plan import Plan
from arsrc.types import is_deleted

Array = jax.Array


def order_key(config: AnyConfig, key: Array | Mapping[str, Array] | None) -> Array:
    """Return the key of the order that `init(config, key)` is to have."""
    if not config.stochastic:
        return jax.random.key(config.seed) if key is None else _typed_key(key)
    assert config.stream_name is not None
    if isinstance(key, Mapping):
        ensure_rng_streams(config, list(key))
        key = key[config.stream_name]
    if key is None:
        raise ArsrcValueError(
            "init",
            "a stochastic source takes its key from the caller",
            "Call init(config, key), or init(config, {stream_name: key}).",
            stream_name=config.stream_name,
        )
    return jax.random.fold_in(_typed_key(key), np.uint32(zlib.crc32(config.stream_name.encode())))


def order_words(plan: Plan, key: Array) -> Array:
    """Return the words that the order depends on, u32[num_words]: of the key, or of a mixture those of its sources'.

    The host cannot derive keys, so that they cross the bridge: source `s` has the key `fold_in(key, s)`.
    """
    if plan.mixture is None:
        return jax.random.key_data(key)
    numbers = np.arange(len(plan.mixture.sources), dtype=np.uint32)
    words_of = lambda number: jax.random.key_data(jax.random.fold_in(key, number))  # noqa: E731
    # Keys of some kinds are folded in another way under vmap, and each source's is to be that of the source alone.
    is_elementwise = jax.random.key_impl(key) in ("threefry2x32", "rbg")
    words: Array = jax.vmap(words_of)(numbers) if is_elementwise else jax.lax.map(words_of, numbers)
    return words.ravel()


def _typed_key(key: Any) -> Array:
    """Return `key` as a typed key in memory of its own: states are donated, and the caller's key is not."""
    if is_deleted(key):
        raise ArsrcValueError("init", "the key is deleted: it was donated to a function", "Make it again.")
    dtype = getattr(key, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key) and key.shape == ():
        return jnp.copy(key)
    try:
        if dtype == np.uint32 and key.ndim == 1:
            return jnp.copy(jax.random.wrap_key_data(key))
    except TypeError:  # not as many words as a key has
        pass
    shown = f"{dtype}{list(key.shape)}" if dtype is not None else key
    raise ArsrcTypeError("init", "key is no single PRNG key", "Use jax.random.key(seed).", key=shown)


def requires_rng_streams(config: AnyConfig) -> list[str] | None:
    """Return the names of the key streams that `init` needs, None if it needs none."""
    return [config.stream_name] if config.stream_name is not None else None


def ensure_rng_streams(config: AnyConfig, names: list[str]) -> None:
    """Check that the key streams that `init` needs are among `names`.

    Args:
        config: The source.
        names: Names of the streams that there are.

    Raises:
        ArsrcValueError: One is missing.
    """
    missing = sorted(set(requires_rng_streams(config) or ()) - set(names))
    if missing:
        raise ArsrcValueError("ensure_rng_streams", f"no key stream {missing[0]!r}", "Add it.", names=sorted(names))
