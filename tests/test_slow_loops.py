"""Loops that XLA runs slowly on CPUs are told of, once, and others are not."""

import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import arsrc
from arsrc import slow_loops
from arsrc.codecs import Struct

CODEC = Struct({"image": ("float32", (8, 8, 1))})


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> arsrc.ArrayRecordSourceConfig:
    images = np.random.default_rng(0).normal(size=(8, 8, 8, 1)).astype(np.float32)
    path = arsrc.write_array_record(tmp_path_factory.mktemp("images") / "x", {"image": images}, codec=CODEC)[0]
    return arsrc.ArrayRecordSourceConfig(path, 2, CODEC)


def loss(kernel: Any, image: Any, layout: tuple[str, str, str]) -> Any:
    image = image if layout[0] == "NHWC" else jnp.moveaxis(image, -1, 1)
    kernel = kernel if layout[1] == "HWIO" else jnp.transpose(kernel, (3, 2, 0, 1))
    return (jax.lax.conv_general_dilated(image, kernel, (2, 2), "SAME", dimension_numbers=layout) ** 2).sum()


NHWC, NCHW = ("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW")


def forward(kernel: Any, batch: arsrc.Batch) -> tuple[Any, Any]:
    return kernel, loss(kernel, batch.data["image"], NHWC)


def channels_first(kernel: Any, batch: arsrc.Batch) -> tuple[Any, Any]:
    return kernel, loss(kernel, batch.data["image"], NCHW)


def train(kernel: Any, batch: arsrc.Batch) -> tuple[Any, Any]:
    value, gradient = jax.value_and_grad(loss)(kernel, batch.data["image"], NHWC)
    return kernel - jnp.float32(0.01) * gradient, value


def train_in_branch(kernel: Any, batch: arsrc.Batch) -> tuple[Any, Any]:
    return jax.lax.cond(batch.mask[0], train, forward, kernel, batch)


@pytest.mark.parametrize(
    ("body", "options", "is_slow"),
    [
        (forward, {}, False),
        (channels_first, {}, True),
        (train, {}, True),
        (train, {"unroll": 2}, True),
        (train, {"unroll": True}, False),
        (train, {"batches_per_fetch": 4}, True),
        (train, {"batches_per_fetch": 16}, True),
        (train, {"batches_per_fetch": 2, "unroll": 4}, False),
        (train_in_branch, {"unroll": True}, True),
    ],
)
def test_a_loop_is_told_of_once_where_it_is_slow(
    config: arsrc.ArrayRecordSourceConfig, caplog: Any, body: Any, options: dict[str, Any], is_slow: bool
) -> None:
    slow_loops._warn.cache_clear()
    kernel = jnp.ones((3, 3, 1, 2))
    num_traces = 0

    def counted(carry: Any, batch: arsrc.Batch) -> tuple[Any, Any]:
        nonlocal num_traces
        num_traces += 1
        return body(carry, batch)

    with caplog.at_level(logging.WARNING, "arsrc"):
        for _ in range(2):
            jax.eval_shape(
                lambda state: arsrc.scan_steps(config, state, kernel, counted, 4, **options), arsrc.init(config)
            )
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == is_slow
    assert all(text.startswith("[arsrc] scan_steps: ") and "unroll=True" in text for text in told)
    assert num_traces == 2


def test_a_loop_that_is_looked_at_runs_under_all_that_jax_does(config: arsrc.ArrayRecordSourceConfig) -> None:
    """Inside of a gradient and of vmap, with a body that closes over what is being transformed."""
    state = arsrc.init(config)

    def total(weight: Any) -> Any:
        def body(carry: Any, batch: arsrc.Batch) -> tuple[Any, Any]:
            return carry + weight * batch.data["image"].sum(), None

        return arsrc.scan_steps(config, state, jnp.float32(0), body, 2)[1]

    weights = jnp.array([2, 3], jnp.float32)
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(total)))(weights)
    np.testing.assert_allclose(values, weights * gradients, rtol=1e-6)
    with jax.disable_jit():
        np.testing.assert_allclose(total(weights[0]), values[0], rtol=1e-5)


@pytest.mark.parametrize("batches_per_fetch", [1, 2])
def test_bodies_see_values_where_nothing_is_compiled(
    config: arsrc.ArrayRecordSourceConfig, batches_per_fetch: int
) -> None:
    state, seen = arsrc.init(config), []

    def body(carry: Any, batch: arsrc.Batch) -> tuple[Any, Any]:
        seen.append(float(carry))
        return carry + batch.mask.sum() / 2, batch.record_ids

    fetch = {"batches_per_fetch": batches_per_fetch}
    with jax.disable_jit():
        _, total, ids = arsrc.scan_steps(config, state, jnp.float32(0), body, 3, **fetch)
        _, epoch_total, _ = arsrc.scan_epoch(config, state, jnp.float32(0), body, **fetch)
    assert (float(total), float(epoch_total)) == (3, 4)
    assert seen == [0, 1, 2, 0, 1, 2, 3]
    np.testing.assert_array_equal(ids, np.arange(6).reshape(3, 2))
