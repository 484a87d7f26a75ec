"""Any call of the system may fail: what comes is the exact bytes or a typed error, and then the exact bytes again."""

import collections
import gc
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import hypothesis
import numpy as np
import pytest
from fault_systems import KINDS, Injecting, InMemory, Kind, Nth, in_place

import arsrc
from arsrc import ArrayRecordSourceConfig as Config
from arsrc._host import open_source, registry
from arsrc._host.storage.system import System
from arsrc.codecs import Bytes, Ragged

IS_THOROUGH = hypothesis.settings().max_examples > 100
STEP = 5  # of so many calls one is tried in a quick run


def random_records(sizes: list[int]) -> list[bytes]:
    draw = np.random.default_rng(0)
    return [draw.bytes(size) for size in sizes]


RAGGED = [7 * i % 90 for i in range(40)]
SETS: dict[str, tuple[list[int], dict[str, Any], Any]] = {
    "uniform": ([784] * 40, {}, Bytes()),
    "spans": (RAGGED, {}, Ragged(max_length=90)),
    "groups": (RAGGED, {"options": "group_size:7,uncompressed"}, Ragged(max_length=90)),
    "large": ([150_000] * 6, {}, Bytes()),
    "shards": ([100] * 40, {"num_shards": 3}, Bytes()),
    "zstd": ([784] * 40, {"options": "group_size:4,zstd"}, Bytes()),
}


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Config]:
    folder = tmp_path_factory.mktemp("sets")
    found = {}
    for name, (sizes, how, codec) in SETS.items():
        paths = arsrc.write_array_record(folder / name, random_records(sizes), **how)
        found[name] = Config(paths, 6, codec, shuffle_records=True, num_epochs=1)
    return found


@pytest.fixture(autouse=True)
def nothing_open(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(open_source, "_LOOK_SHARE", 0)  # however long looking takes on a busy machine
    arsrc.close()
    yield
    arsrc.close()


# What is done, on the host alone; each gives something to compare.


def digest(tree: Any) -> str:
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in arsrc_leaves(tree))).hexdigest()


def arsrc_leaves(tree: Any) -> list[Any]:
    return list(tree.values()) if isinstance(tree, dict) else list(tree) if isinstance(tree, list) else [tree]


def take(config: Config) -> Any:
    source = registry.source(config)
    ids = np.arange(source.plan.num_records, dtype=np.uint32)[::-1]
    return [digest(source.take(ids[None, first : first + 7])) for first in range(0, len(ids), 7)]


def iterate(config: Config) -> Any:
    return [(batch.record_ids.tolist(), digest(batch.data)) for _, batch in arsrc.iterate(config)]


def checkpoint(config: Config) -> Any:
    state = arsrc.state_at(config, 2)
    saved = arsrc.to_state_dict(config, state)
    restored = arsrc.from_state_dict(config, saved)
    return saved, int(restored.index), int(restored.epoch)


DONE: dict[str, Callable[[Config], Any]] = {"take": take, "iterate": iterate, "checkpoint": checkpoint}


# What came of it.


Tally: TypeAlias = collections.Counter[str]
TALLIES: dict[str, Tally] = collections.defaultdict(collections.Counter)


def try_each(kind: Kind, inner: System, work: Callable[[], Any], mend: Callable[[], None], tally: Tally) -> None:
    """Let the n-th call fail, n = 1, 2, ... until there are no more, once and from then on."""
    with in_place(inner):
        expected = work()
        arsrc.close()
    tried = []
    for once in (True, False):
        n, is_reached = 1, True
        while is_reached:
            rule = Nth(kind, n, once)
            calls = Injecting(inner, rule)
            tried.append(calls)
            where = f"call {n}, {'once' if once else 'from then on'}"
            with in_place(calls):
                try:
                    found = work()
                except arsrc.ArsrcError as error:
                    check_error(error, where)
                    outcome = "error"
                else:
                    assert found == expected, where
                    outcome = "exact"
                tally[outcome] += min(calls.num_faults, 1)
                calls.rule = lambda _: None
                mend()
                assert work() == expected, f"after {where}"
                arsrc.close()
            is_reached = rule.num_calls >= n
            n += 1 if IS_THOROUGH else STEP
    gc.collect()
    assert [calls.open_paths for calls in tried] == [{}] * len(tried)


def check_error(error: arsrc.ArsrcError, where: str) -> None:
    text = str(error)
    assert text.startswith("[arsrc] "), where
    assert "/" in text, where  # the file that it is about


@pytest.mark.parametrize("what", DONE)
@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("another place", "zeros", "cut")])
def test_a_call_that_fails_gives_the_exact_bytes_or_a_typed_error(
    configs: dict[str, Config], kind: str, name: str, what: str
) -> None:
    config = configs[name]
    try_each(KINDS[kind], System(), lambda: DONE[what](config), lambda: None, TALLIES[kind])


def teardown_module() -> None:
    for kind, tally in sorted(TALLIES.items()):
        print(kind, dict(tally))
