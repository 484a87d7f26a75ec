"""A cache in files and two processes that fill it, close it and are killed, in any order."""

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

import arsrc

NUM_RECORDS, RECORD_BYTES = 300, 500
pytestmark = pytest.mark.processes

# One process that has imported everything forks the others, which takes milliseconds instead of seconds. Its children
# touch no JAX, whose threads they do not have.
PROCESSES = """
    import hashlib, json, os, signal, socket, sys
    import numpy as np
    import arsrc
    from arsrc._host import registry

    def answer(ask):
        read = arsrc.ReadOptions(cache_bytes=0, cache_dir=ask["cache_dir"])
        config = arsrc.ArrayRecordSourceConfig(ask["path"], 4, read=read, cacheable=True)
        if ask["do"] == "close":
            arsrc.close(config)
            return "closed"
        ids = np.array(ask["ids"], np.uint32)
        return hashlib.sha256(registry.source(config).take(ids[None])[0].tobytes()).hexdigest()

    def serve():
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(sys.argv[1])
        file = connection.makefile("rw")
        file.write(f"{os.getpid()}\\\\n")
        file.flush()
        for line in file:
            try:
                said = {"exact": answer(json.loads(line))}
            except arsrc.ArsrcError as error:
                said = {"error": str(error)}
            except BaseException as error:
                said = {"raw": repr(error)}
            file.write(json.dumps(said) + "\\\\n")
            file.flush()

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for _ in sys.stdin:
        if os.fork() == 0:
            try:
                serve()
            finally:
                os._exit(0)
"""


class Processes:
    """Starts processes."""

    def __init__(self, folder: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(Path(arsrc.__file__).parents[1]), "JAX_PLATFORMS": "cpu"}
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(folder / "socket"))
        self._server.listen()
        command = [sys.executable, "-c", textwrap.dedent(PROCESSES).replace("\\\\", "\\"), str(folder / "socket")]
        self._parent = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, start_new_session=True)
        self.rows = np.random.default_rng(0).integers(0, 256, (NUM_RECORDS, RECORD_BYTES)).astype(np.uint8)
        (self.path,) = arsrc.write_array_record(folder / "data", self.rows)

    def start(self) -> "Process":
        assert self._parent.stdin is not None
        self._parent.stdin.write(b"\n")
        self._parent.stdin.flush()
        return Process(self._server.accept()[0])

    def end(self) -> None:
        os.killpg(self._parent.pid, signal.SIGKILL)  # with all that it has started
        self._parent.communicate(timeout=60)
        self._server.close()


class Process:
    """One of them."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(120)
        self._connection, self._file = connection, connection.makefile("rw")
        self._pid = int(self._file.readline())

    def ask(self, **what: Any) -> None:
        self._file.write(json.dumps(what) + "\n")
        self._file.flush()

    def answer(self) -> dict[str, str]:
        return json.loads(self._file.readline())

    def kill(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        self._file.close()
        self._connection.close()


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    found = Processes(tmp_path_factory.mktemp("processes"))
    yield found
    found.end()


def test_what_two_processes_read_through_one_cache_is_exact_whoever_is_killed(processes: Processes) -> None:
    class CacheAndProcesses(RuleBasedStateMachine):
        @initialize()
        def begin(self) -> None:
            self.folder = tempfile.mkdtemp()
            self.both = [processes.start(), processes.start()]

        def teardown(self) -> None:
            if hasattr(self, "both"):
                last = processes.start()
                self.expect(last, range(NUM_RECORDS))
                for process in (*self.both, last):
                    process.kill()
                shutil.rmtree(self.folder)

        def ask(self, process: Process, do: str, ids: Any = ()) -> None:
            process.ask(do=do, path=processes.path, cache_dir=self.folder, ids=list(ids))

        def expect(self, process: Process, ids: Any) -> None:
            self.ask(process, "take", ids)
            assert process.answer() == {"exact": hashlib.sha256(processes.rows[list(ids)].tobytes()).hexdigest()}

        @rule(number=st.integers(0, 1), first=st.integers(0, NUM_RECORDS - 1), num=st.sampled_from([1, 40, 300]))
        def take(self, number: int, first: int, num: int) -> None:
            self.expect(self.both[number], [(first + i) % NUM_RECORDS for i in range(num)])

        @rule(number=st.integers(0, 1))
        def close(self, number: int) -> None:
            self.ask(self.both[number], "close")
            assert self.both[number].answer() == {"exact": "closed"}

        @rule(
            number=st.integers(0, 1),
            during=st.sampled_from(["take", "close"]),
            seconds=st.sampled_from([0, 1e-3, 5e-3]),
        )
        def kill(self, number: int, during: str, seconds: float) -> None:
            self.ask(self.both[number], during, range(NUM_RECORDS))
            time.sleep(seconds)
            self.both[number].kill()
            self.both[number] = processes.start()

    is_thorough = hypothesis.settings().max_examples > 100
    run_state_machine_as_test(
        CacheAndProcesses, settings=settings(stateful_step_count=15, max_examples=150 if is_thorough else 8)
    )
