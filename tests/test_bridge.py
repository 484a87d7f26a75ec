"""Which path reads take across the bridge, and what becomes of them where JAX is not what the fast one needs.

That both give the same results is in test_transforms.py, test_ensembles.py and mesh_cases.py.
"""

import functools
import logging
import os
import subprocess
import sys
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import arsrc
from arsrc import bridge, bridge_in_place

on_both_paths = pytest.mark.parametrize("bridge_path", ["fast", "portable"], indirect=True)
choose = bridge._path.__wrapped__  # as a process does that has not read yet


@on_both_paths
def test_programs_call_as_their_path_says(tmp_path, bridge_path):
    config = arsrc.ArrayRecordSourceConfig(arsrc.write_array_record(tmp_path / "x", [b"abc"] * 8), 4)
    text = jax.jit(functools.partial(arsrc.next_batch, config)).lower(arsrc.init(config)).as_text()
    assert ("xla_buffer_python_cpu_callback" in text) == (bridge_path == "fast")
    assert ("xla_ffi_python_cpu_callback" in text) == (bridge_path == "portable")


# The choice.


def in_shard_map(choose: Callable[[], Any]) -> None:
    mesh = jax.make_mesh((1,), ("data",))
    jax.jit(jax.shard_map(lambda x: (choose(), x)[1], mesh=mesh, in_specs=P(), out_specs=P()))(1.0)


def under(context: Callable[[], Any]) -> Callable[[Callable[[], Any]], None]:
    def run(choose: Callable[[], Any]) -> None:
        with context():
            choose()

    return run


PLACES: dict[str, Callable[[Callable[[], Any]], Any]] = {
    "jit": lambda choose: jax.eval_shape(lambda: (choose(), 0)[1]),
    "vmap": lambda choose: jax.vmap(lambda x: (choose(), x)[1])(jnp.ones(2)),
    "grad": lambda choose: jax.grad(lambda x: (choose(), x)[1])(1.0),
    "scan": lambda choose: jax.lax.scan(lambda x, _: (choose(), (x, None))[1], 0, length=2),
    "shard_map": in_shard_map,
    "set_mesh": under(lambda: jax.set_mesh(jax.make_mesh((1,), ("data",)))),
    "disable_jit": under(jax.disable_jit),
    "debug_nans": under(lambda: jax.debug_nans(True)),
    "checking_leaks": under(jax.checking_leaks),
    "transfer_guard": under(lambda: jax.transfer_guard("disallow_explicit")),
}


@pytest.mark.parametrize("place", PLACES)
def test_the_fast_path_is_taken_wherever_the_first_read_stands(caplog, place):
    chosen = []
    PLACES[place](lambda: chosen.append(choose()))
    assert set(chosen) == {bridge_in_place.read}
    assert not [record for record in caplog.records if record.name == "arsrc"]


def writes_zeros(_: Any, __: Any, buffers: Any, ___: Any) -> None:
    for buffer in buffers:
        np.asarray(buffer)[...] = 0


def lacks_something(*_: Any) -> Any:
    raise AttributeError("no attribute 'module_context'")


@pytest.mark.parametrize(
    ("where", "name", "fault"),
    [
        (bridge_in_place, "buffer_callback", None),
        (bridge_in_place, "_each_device_calls", lacks_something),
        (bridge_in_place, "_read_members", lacks_something),
        (bridge_in_place, "mlir", types.SimpleNamespace()),
        (bridge.HostCall, "write", writes_zeros),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_fast_path_that_does_not_work_is_not_taken_and_the_log_says_so(monkeypatch, caplog, where, name, fault):
    """Each fault stands for a version of JAX that does something else; registered again, all is well again."""
    monkeypatch.setattr(where, name, fault)
    with caplog.at_level(logging.INFO, "arsrc"):
        assert choose() is bridge.portable
    (record,) = [record for record in caplog.records if record.name == "arsrc"]
    assert record.getMessage().startswith("[arsrc] read: this JAX does not take the fast path")
    assert f"jax={jax.__version__!r}" in record.getMessage()
    monkeypatch.undo()
    assert choose() is bridge_in_place.read


WITHOUT = """
import logging, sys
logging.basicConfig(format="%(name)s: %(message)s")
sys.modules[sys.argv[2]] = None  # as if this JAX had no such module
import jax
import arsrc

config = arsrc.ArrayRecordSourceConfig(sys.argv[1], 2)
state, first = arsrc.next_batch(config, arsrc.init(config))
_, second = jax.jit(jax.vmap(lambda state: arsrc.next_batch(config, state)))(jax.tree.map(lambda x: x[None], state))
print(first.data.tolist(), second.data.tolist())
"""


@pytest.mark.processes
@pytest.mark.parametrize("module", ["jax.experimental.buffer_callback", "jax.extend.core"])
def test_without_what_the_fast_path_imports_reads_take_the_portable_one_and_say_so_once(tmp_path, module):
    (path,) = arsrc.write_array_record(tmp_path / "x", [bytes([i]) for i in range(4)])
    done = subprocess.run(
        [sys.executable, "-P", "-c", WITHOUT, path, module],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[0] == "[[0], [1]] [[[2], [3]]]"
    assert done.stderr.count("arsrc: [arsrc] read: ") == 1, done.stderr


# Lowering.


def test_who_calls_is_not_known_where_jax_does_not_say_it_as_it_did():
    """Then reads are lowered as by the portable path, which is right wherever they stand."""
    one = types.SimpleNamespace(num_devices=1)
    assert bridge_in_place._each_device_calls(lowering(axis_context=one)) is True
    assert bridge_in_place._each_device_calls(lowering(axis_context=types.SimpleNamespace(num_devices=4))) is False
    for unknown in (lowering(), lowering(axis_context=None), lowering(axis_context=types.SimpleNamespace())):
        assert bridge_in_place._each_device_calls(unknown) is None


def lowering(**fields: Any) -> Any:
    return types.SimpleNamespace(module_context=types.SimpleNamespace(**fields))


def test_a_program_of_which_jax_does_not_say_who_calls_reads_all_the_same(tmp_path, monkeypatch):
    config = arsrc.ArrayRecordSourceConfig(arsrc.write_array_record(tmp_path / "x", [b"ab", b"cd"]), 2)
    monkeypatch.setattr(bridge_in_place, "_each_device_calls", lambda _: None)
    program = jax.jit(lambda state: arsrc.next_batch(config, state)[1].data).lower(arsrc.init(config))
    assert "xla_ffi_python_cpu_callback" in program.as_text()
    np.testing.assert_array_equal(program.compile()(arsrc.init(config)), [list(b"ab"), list(b"cd")])
