"""How states and batches show themselves: short, wherever they are."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import arsrc
from arsrc.codecs import Struct

CODEC = Struct({"x": "float32", "image": ("uint8", (2, 2))})
DATA = "data={'image': uint8[4, 2, 2], 'x': float32[4]}"
ABSTRACT = f"Batch({DATA}, mask=bool[4])"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> arsrc.ArrayRecordSourceConfig:
    path = tmp_path_factory.mktemp("types") / "a"
    elements = {"x": np.arange(10, dtype=np.float32), "image": np.zeros((10, 2, 2), np.uint8)}
    arsrc.write_array_record(path, elements, codec=CODEC)
    return arsrc.ArrayRecordSourceConfig(path, 4, CODEC, remainder="pad")


def test_a_state_shows_where_it_stands(config: arsrc.ArrayRecordSourceConfig) -> None:
    assert repr(arsrc.state_at(config, 7)) == str(arsrc.state_at(config, 7)) == "SourceState(epoch=2, index=4)"


def test_a_batch_shows_its_shapes_and_how_many_rows_are_valid(config: arsrc.ArrayRecordSourceConfig) -> None:
    assert repr(arsrc.peek(config, arsrc.state_at(config, 1))) == f"Batch({DATA}, num_valid=4)"
    assert repr(arsrc.peek(config, arsrc.state_at(config, 2))) == f"Batch({DATA}, num_valid=2)"


def test_what_has_no_values_shows_shapes(config: arsrc.ArrayRecordSourceConfig) -> None:
    shown = []

    def step(state: arsrc.SourceState) -> Any:
        state, batch = arsrc.next_batch(config, state)
        shown.append((repr(state), repr(batch)))
        return state, batch

    state = arsrc.init(config)
    specs = jax.eval_shape(step, state)
    shown.append((repr(specs[0]), repr(specs[1])))
    jax.vmap(step)(jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), state))
    assert shown == 3 * [("SourceState(epoch=uint32[], index=uint32[])", ABSTRACT)]
    assert repr(arsrc.batch_spec(config)) == ABSTRACT


def test_stacks_show_shapes_and_all_valid_rows(config: arsrc.ArrayRecordSourceConfig) -> None:
    states = jax.vmap(lambda step: arsrc.state_at(config, step))(jnp.arange(3))
    assert repr(states) == "SourceState(epoch=uint32[3], index=uint32[3])"
    batches = arsrc.next_batches(config, arsrc.init(config), 3)[1]
    assert repr(batches) == "Batch(data={'image': uint8[3, 4, 2, 2], 'x': float32[3, 4]}, num_valid=10)"


def test_deleted_arrays_show_shapes(config: arsrc.ArrayRecordSourceConfig) -> None:
    state, batch = arsrc.next_batch(config, arsrc.init(config))
    for leaf in jax.tree.leaves((state.index, state.epoch, batch)):
        leaf.delete()
    assert repr(state) == "SourceState(epoch=uint32[], index=uint32[])"
    assert repr(batch) == ABSTRACT


def test_a_repr_does_not_wait_for_a_device_that_is_busy() -> None:
    busy = jax.jit(lambda x: jax.lax.fori_loop(0, 40, lambda _, y: x @ y / 700, x)[0, 0].astype(jnp.uint32))
    index = busy(jnp.ones((700, 700)))
    state = arsrc.SourceState(index=index, epoch=np.uint32(0), key=None)
    assert repr(state) == "SourceState(epoch=0, index=uint32[])"
    jax.block_until_ready(index)
    assert repr(state) == "SourceState(epoch=0, index=1)"


class Stubborn:
    """Fails at whatever it is asked."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __repr__(self) -> str:
        raise RuntimeError("repr")


FILLINGS: list[Callable[[Any], Any]] = [
    lambda leaf: None,
    lambda leaf: 0,
    lambda leaf: str(leaf.shape),
    lambda leaf: jax.sharding.PartitionSpec("data"),
    lambda leaf: np.zeros(leaf.shape, leaf.dtype) if leaf.dtype != jax.random.key(0).dtype else leaf,
    lambda leaf: np.array(["text"]),
    lambda leaf: object(),
    lambda leaf: Stubborn(),
]


@pytest.mark.parametrize("fill", FILLINGS, ids=range(len(FILLINGS)))
def test_whatever_stands_in_the_place_of_arrays_has_a_short_repr(
    config: arsrc.ArrayRecordSourceConfig, fill: Callable[[Any], Any]
) -> None:
    state = arsrc.init(config)
    for tree, start in ((state, "SourceState(epoch="), (arsrc.peek(config, state), "Batch(data=")):
        text = repr(jax.tree.map(fill, tree))
        assert text.startswith(start)
        assert len(text) < 300


def test_a_repr_transfers_nothing_where_that_is_forbidden(config: arsrc.ArrayRecordSourceConfig) -> None:
    state = arsrc.state_at(config, 7)
    with jax.transfer_guard("disallow"):
        assert repr(state).startswith("SourceState(epoch=")
