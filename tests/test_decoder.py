"""Decoding asks nothing of JAX: no Python code of it is entered on the thread that decodes."""

import dataclasses
import gc
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

import arsrc
from arsrc._host import registry
from arsrc._host.records.own_memory import OwnMemory
from arsrc.codecs import Bytes, Codec, Map, Ragged, Struct, check_batch
from arsrc.codecs.decoder import ElementDecoder
from arsrc.record_batch import RecordBatch

RECORDS = [bytes(range(row, row + 12)) for row in range(20)]


class Pair(NamedTuple):
    first: Any
    second: Any


@dataclasses.dataclass
class Node:
    """A node of a user's own, whose parts are told by his own functions."""

    left: Any
    right: Any


jax.tree_util.register_pytree_node(Node, lambda node: ((node.left, node.right), None), lambda _, parts: Node(*parts))


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Point:
    x: Any
    y: Any


def array(record: bytes) -> Any:
    return np.frombuffer(record, np.uint8)


def nested(record: bytes) -> Any:
    return {"b": (array(record)[:2], [array(record)[2]]), "a": Pair(array(record), None), "c": {}}


def nodes(record: bytes) -> Any:
    return Node({"point": Point(array(record)[:3], array(record)[3])}, array(record))


def scalars(record: bytes) -> Any:
    return {"int": record[0], "float": record[1] / 2, "bool": True}


ROW = ("uint8", 12)
CODECS: dict[str, Codec] = {
    "Bytes": Bytes(),
    "Struct": Struct({"a": ("float32", 2), "b": "bool", "c": ("uint8", 3)}),
    "Ragged": Ragged("uint16", max_length=4, overflow="truncate"),
    "Map to one array": Map(array, ROW),
    "Map to nested containers": Map(nested, {"b": (("uint8", 2), ["uint8"]), "a": Pair(ROW, None), "c": {}}),
    "Map to nodes of the user's": Map(nodes, Node({"point": Point(("uint8", 3), "uint8")}, ROW)),
    "Map to Python's numbers": Map(scalars, {"int": "int64", "float": "float64", "bool": "bool"}),
}


def jax_frames(work: Callable[[], object]) -> set[str]:
    """The Python functions of JAX that a thread enters while it does `work`."""
    entered: set[str] = set()

    def watch(frame: FrameType, event: str, arg: object) -> None:
        del arg
        module = frame.f_globals.get("__name__", "")
        if event == "call" and module.partition(".")[0] in {"jax", "jaxlib"}:
            entered.add(f"{module}.{frame.f_code.co_qualname}")

    def watched() -> None:
        gc.disable()  # the collector, which calls a hook of JAX, runs at any time
        sys.setprofile(watch)
        try:
            work()
        finally:
            sys.setprofile(None)
            gc.enable()

    with ThreadPoolExecutor(1) as thread:
        thread.submit(watched).result()
    return entered


@pytest.mark.parametrize("name", CODECS)
def test_a_codec_decodes_without_entering_jax(name: str) -> None:
    decoder = ElementDecoder(CODECS[name].resolve(RECORDS[0]))
    records = RecordBatch.from_records(RECORDS)
    assert not jax_frames(lambda: decoder.decode(records))
    decoded = decoder.codec.decode(records)
    expected = check_batch(decoded, decoder.codec.element_spec(), len(RECORDS))
    assert all(map(np.array_equal, decoder.decode(records), expected))
    assert jax.tree.structure(decoded) == jax.tree.structure(decoder.codec.element_spec())


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("options", ["group_size:1,uncompressed", "group_size:4"])
def test_the_host_reads_records_without_entering_jax(tmp_path: Path, name: str, options: str) -> None:
    path = str(tmp_path / "records")
    arsrc.write_array_record(path, list(RECORDS), options=options)
    config = arsrc.ArrayRecordSourceConfig(path, 4, codec=CODECS[name])
    elements = registry.source(config).elements
    found: list[list[np.ndarray]] = []
    assert not jax_frames(lambda: found.append(elements.read(np.arange(20, dtype=np.uint32))))
    expected = CODECS[name].resolve(RECORDS[0]).decode(RecordBatch.from_records(RECORDS))
    assert all(map(np.array_equal, found[0], jax.tree.leaves(expected)))


def test_python_code_of_jax_is_seen_where_it_runs() -> None:
    assert any("tree_flatten" in name for name in jax_frames(lambda: jax.tree_util.tree_flatten({"a": 1})))


def test_a_handler_that_reads_in_the_midst_of_a_codec_with_a_buffer_of_its_own_is_refused():
    own, buffer = OwnMemory(), np.zeros(4, np.uint8)

    def decode(value: int) -> list[np.ndarray]:
        buffer[:] = value
        return [buffer]

    def interrupted() -> list[np.ndarray]:
        buffer[:2] = 1
        with pytest.raises(arsrc.ArsrcReadError, match="signal handler"):
            own.of(lambda: decode(9), data)
        buffer[2:] = 1
        return [buffer]

    data = np.zeros(4, np.uint8)
    own.of(lambda: decode(3), data)  # from now on it is known that it holds what it gives
    assert own.of(interrupted, data)[0].tolist() == [1, 1, 1, 1]


def test_what_lies_in_the_memory_of_bytes_is_not_copied_since_nobody_writes_there():
    own, data, joined = OwnMemory(), np.zeros(4, np.uint8), bytes(8)
    for leaf in (lambda: np.frombuffer(joined, "u2"), lambda: np.frombuffer(joined, "u1").reshape(2, 4)[:, 1:]):
        assert np.shares_memory(own.of(lambda leaf=leaf: [leaf()], data)[0], np.frombuffer(joined, "u1"))
