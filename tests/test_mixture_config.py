"""`MixtureConfig`: its rules, how weights are given, and configs as values."""

import dataclasses
import inspect
import pickle
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from arsrc import ArrayRecordSourceConfig, ArsrcError, ReadOptions
from arsrc.mixture_config import MixtureConfig

A = ArrayRecordSourceConfig("a", 2)
B = ArrayRecordSourceConfig("b", 3, shuffle_records=True)


def mixture(weights: Any = (0.7, 0.3), **fields: Any) -> MixtureConfig:
    return MixtureConfig(**({"sources": (A, B), "weights": weights, "batch_size": 4} | fields))


def staged(*stages: Any) -> MixtureConfig:
    return mixture(None, stages=stages)


@pytest.mark.parametrize(
    "weights",
    [
        [0.7, 0.3],
        (7, 3),
        np.array([7, 3]),
        np.array([0.7, 0.3]),
        jnp.array([7, 3]),
        (np.float64(70), 30),
        (7e307, 3e307),
        iter((7, 3)),
    ],
    ids=lambda weights: type(weights).__name__,
)
def test_weights_are_kept_as_floats_that_sum_to_1(weights: Any) -> None:
    config = mixture(weights)
    assert config.weights == pytest.approx((0.7, 0.3), abs=1e-15)
    assert all(type(weight) is float for weight in config.weights)
    assert config._stages == ((0, config.weights),)


def test_weights_of_stages_are_kept_likewise() -> None:
    config = staged([0, [1, 3]], (np.int64(10), jnp.array([1.0, 0.0])))
    assert config.stages == config._stages == ((0, (0.25, 0.75)), (10, (1.0, 0.0)))


def test_sources_are_kept_as_a_tuple() -> None:
    assert mixture(sources=[A, B]).sources == (A, B)


@pytest.mark.parametrize("weights", [(0.1, 0.2), (1 / 3, 2 / 3), (3, 11), (1e301, 7e301)])
def test_a_config_made_of_a_config_is_equal_to_it(weights: Any) -> None:
    config = mixture(weights)
    assert dataclasses.replace(config) == config
    assert pickle.loads(pickle.dumps(config)) == config
    assert hash(pickle.loads(pickle.dumps(config))) == hash(config)


def test_what_no_program_depends_on_is_left_out_of_the_mixture_and_of_its_sources() -> None:
    other = mixture(sources=(dataclasses.replace(A, seed=1), B), seed=2, precomputed_stats={"mean": 1})
    assert other != mixture()
    assert other._of_programs == mixture()._of_programs
    assert other._of_programs._of_programs is other._of_programs
    assert mixture((1, 1))._of_programs != mixture()._of_programs


def test_a_mixture_masks_if_its_sources_do() -> None:
    assert not mixture()._masks
    masking = [dataclasses.replace(one, on_bad_record="mask") for one in (A, B)]
    assert mixture(sources=masking)._masks
    with pytest.raises(ValueError, match=r"^\[arsrc\] sources: sources 0 and 1 differ in on_bad_record"):
        mixture(sources=(A, masking[1]))


def test_the_text_shows_what_is_not_as_by_default() -> None:
    assert repr(mixture(sources=(A,), weights=(1,), stop="all")).endswith("weights=(1.0,), batch_size=4, stop='all')")
    assert "seed" not in repr(mixture())


def test_batch_size_has_no_default_and_is_given_by_name() -> None:
    assert MixtureConfig((A, B), (7, 3), batch_size=4) == mixture()
    with pytest.raises(TypeError, match="batch_size"):
        MixtureConfig((A, B), (7, 3))  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("make", "kind", "text"),
    [
        (lambda: mixture(sources=()), ValueError, "sources: a mixture has at least one source"),
        (lambda: mixture(sources=A), TypeError, "sources: must be a sequence of ArrayRecordSourceConfig"),
        (lambda: mixture(sources={A, B}), TypeError, "sources: must be a sequence of ArrayRecordSourceConfig"),
        (lambda: mixture(sources=("a", "b")), TypeError, "sources: source 0 is no ArrayRecordSourceConfig"),
        (lambda: mixture(sources=(A, mixture())), TypeError, r"sources: source 1 is a mixture.*multiplied"),
        (
            lambda: mixture(sources=(A, dataclasses.replace(B, stochastic=True, stream_name="s"))),
            ValueError,
            r"sources: source 1 is stochastic.*stream_name='s'. Make the mixture stochastic",
        ),
        (lambda: mixture(None), ValueError, "weights: a mixture has weights or stages"),
        (lambda: mixture(stages=((0, (1, 1)),)), ValueError, "weights: a mixture has weights or stages"),
        (lambda: mixture((1,)), ValueError, "weights: there are 2 sources and 1 weights"),
        (lambda: mixture("12"), TypeError, "weights: must be numbers"),
        (lambda: mixture(("1", "2")), TypeError, "weights: must be numbers"),
        (lambda: mixture((True, 1)), TypeError, "weights: must be numbers"),
        (lambda: mixture({0.3, 0.7}), TypeError, "weights: must be numbers"),
        (lambda: mixture(0.5), TypeError, "weights: must be numbers"),
        (lambda: mixture((10**400, 1)), TypeError, "weights: must be numbers"),
        (lambda: mixture((1j, 1)), TypeError, "weights: must be numbers"),
        (lambda: mixture(np.ones((2, 2))), TypeError, "weights: must be numbers"),
        (lambda: mixture((-0.1, 1)), ValueError, "weights: weights must be finite and not negative"),
        (lambda: mixture((float("inf"), 1)), ValueError, "weights: weights must be finite"),
        (lambda: mixture((float("nan"), 1)), ValueError, "weights: weights must be finite"),
        (lambda: mixture((0, 0)), ValueError, "weights: all weights are 0"),
        (lambda: mixture((1, 1e-9)), ValueError, "weights: source 1 is to have less than one row"),
        (lambda: staged((0, (1, 1)), (5, (1, 1e-9))), ValueError, "weights: source 1 is to have less than one row"),
        (lambda: staged((1, (1, 1))), ValueError, "stages: steps must ascend from 0"),
        (lambda: staged((0, (1, 1)), (5, (1, 1)), (5, (1, 1))), ValueError, "stages: steps must ascend from 0"),
        (lambda: staged((0, (1, 1)), (-5, (1, 1))), ValueError, "stages: step must be"),
        (lambda: staged((0, (1, 1)), (2**62 + 1, (1, 1))), ValueError, "stages: step must be"),
        (lambda: staged((0, (1, 1)), (0.5, (1, 1))), TypeError, "stages: step must be"),
        (lambda: staged((0, (0, 0))), ValueError, "stages: all weights are 0"),
        (lambda: staged(0), TypeError, "stages: must be a sequence of pairs"),
        (lambda: mixture(None, stages="ab"), TypeError, "stages: must be a sequence of pairs"),
        (lambda: mixture(None, stages={0: (1, 1)}), TypeError, "stages: must be a sequence of pairs"),
        (lambda: mixture(stop="last"), ValueError, "stop: must be one of"),
        (lambda: mixture(batch_size=0), ValueError, "batch_size: "),
        (lambda: mixture(seed=-1), ValueError, "seed: "),
        (lambda: mixture(stochastic=True), ValueError, "stream_name: "),
        (lambda: mixture(stochastic=1), TypeError, "stochastic: must be True or False"),
        (lambda: mixture(name=3), TypeError, "name: must be a string"),
        (lambda: mixture(batch_stats_fn=3), TypeError, "batch_stats_fn: must be callable"),
        (
            lambda: mixture(batch_stats_fn=print, precomputed_stats={}),
            ValueError,
            "batch_stats_fn: .*exclude each other",
        ),
        (lambda: mixture(precomputed_stats=3), TypeError, "precomputed_stats: must be a mapping"),
        (lambda: mixture(batch_stats_fn=Unhashable()), TypeError, "config: a field cannot be hashed"),
    ],
)
def test_what_cannot_be_used_is_refused_when_a_config_is_made(make: Any, kind: type, text: str) -> None:
    with pytest.raises(kind, match=rf"^\[arsrc\] {text}") as caught:
        make()
    assert isinstance(caught.value, ArsrcError)


class Unhashable:
    __hash__ = None  # type: ignore[assignment]

    def __call__(self, data: Any) -> Any:
        return data


def test_every_attribute_has_a_text() -> None:
    for field in dataclasses.fields(MixtureConfig):
        assert f"\n    {field.name}: " in (inspect.getdoc(MixtureConfig) or "")


def test_batches_are_read_ahead_as_the_first_source_says() -> None:
    first = dataclasses.replace(A, read=ReadOptions(num_threads=1))
    assert mixture(sources=(first, B)).read.num_threads == 1
