"""One worker process, as the process sees it that wants something decoded."""

import contextlib
import multiprocessing.spawn
import os
import pickle
import signal
import subprocess
from collections.abc import Callable
from multiprocessing import connection
from time import monotonic
from typing import Any, TypeAlias

import numpy as np

from arsrc._host.processes import worker
from arsrc._host.processes.worker import Done, Setup, Task
from arsrc._host.records.leaves import Leaves
from arsrc._host.storage import system
from arsrc.errors import ArsrcValueError, RecordError, said
from arsrc.record_batch import RecordBatch

_LEAST_BYTES = 65_536
_LOOK_SECONDS = 0.1  # between two looks at whether it is alive, and still wanted
_START_SECONDS = 120.0  # a script that is imported, with all that it imports, from a slow disk
_END_SECONDS = 1.0  # for a record that nobody wants any more, and for what a process does as it ends

IsWanted: TypeAlias = Callable[[], bool]


class Unwanted(Exception):
    """Nobody wants the answer any more."""


class Died(Exception):
    """The process has ended; the text says how.

    Attributes:
        row: The row that it was at; None where it was at none.
    """

    row: int | None = None


class Process:
    """A process that decodes records, and the memory that it shares with this one. For one thread at a time.

    The memory has no name, and is gone with both processes, however they end.

    Args:
        setup: What it decodes with.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup, self._shapes = setup, setup.shapes
        self._number, self._is_ready, self._is_asked = 0, False, False
        self._process: subprocess.Popen[bytes] | None = None
        self._deadline = 0.0
        self._connection: Any = None
        self._memory: int | None = None
        self._map: Any = None

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._process is not None and self._process.poll() is not None

    def start(self, is_wanted: IsWanted) -> None:
        """Return when it has started.

        Raises:
            ArsrcValueError: It cannot.
            Unwanted: Nobody wants it any more; it goes on starting.
        """
        if self._is_ready:
            return
        if not is_wanted():
            raise Unwanted
        try:
            if self._process is None:
                self._begin()
            failure = self._answer(lambda: is_wanted() and monotonic() < self._deadline)
        except Died as error:
            raise _start_error(f"a worker process ended while it started, {error}") from None
        except OSError as error:
            raise _start_error(f"a worker process cannot be started ({said(error)})") from error
        except Unwanted:
            if monotonic() < self._deadline:
                raise
            raise _start_error(f"a worker process did not start within {_START_SECONDS:.0f} s") from None
        if failure is not None:
            raise _start_error(f"a worker process cannot start ({failure.splitlines()[-1]})", failure)
        self._is_ready = True

    def _begin(self) -> None:
        self._deadline = monotonic() + _START_SECONDS
        self._memory = system.calls.open_memory()
        self._connection, other = connection.Pipe()
        with other:
            self._process = _begun(other.fileno(), self._memory, self._setup.main["sys_path"])
        try:
            self._connection.send_bytes(pickle.dumps(tuple(self._setup)))
        except OSError:
            raise self._died() from None

    def decode(self, records: RecordBatch, first: int, last: int, is_wanted: IsWanted) -> Leaves:
        """Return the leaves of the records in the rows `[first, last)`, which hold until the next call.

        Where their shapes are not known, it is the first element, pickled, as one leaf of bytes.

        Raises:
            RecordError: A record does not fit.
            Died: The process has ended.
            Unwanted: Nobody wants them any more.
            MemoryError: There is too little for them.
        """
        self._settle()
        num_rows, (start, stop) = last - first, records.offsets[[first, last]].tolist()
        num_bytes = stop - start
        where = worker.places(num_rows, num_bytes, self._shapes)
        self._make_room(where.end)
        worker.offsets(self._map, num_rows)[:] = records.offsets[first : last + 1] - start
        np.ndarray(num_bytes, np.uint8, self._map, where.records)[:] = records.data[start:stop]
        self._number += 1
        words = np.frombuffer(self._map, np.int64, 2)
        words[:] = self._number, worker.NO_ROW
        try:
            self._send(Task(self._number, num_rows, num_bytes, len(self._map)))
            done = Done(*self._answer(is_wanted))
        except Died as error:
            error.row = int(words[1]) if words[1] != worker.NO_ROW else None
            raise
        except Unwanted:
            words[0] = 0
            raise
        self._is_asked = False
        if done.error is not None:
            raise _record_error(done)
        if done.element is not None:
            return [np.frombuffer(done.element, np.uint8)]
        return worker.leaves(self._map, where.leaves, num_rows, self._shapes)

    def shrink(self) -> None:
        """Give back the memory, where the process does not write to it."""
        if self._memory is not None and self._map is not None and not self._is_asked:
            self._map = system.calls.share(self._memory, _LEAST_BYTES)

    def end(self) -> None:
        """Return when it has ended: when it is done with its record, or a second later."""
        if self._process is not None:
            self._connection.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._connection is not None:
            self._connection.close()
        if self._memory is not None:
            system.calls.close(self._memory)
        self._memory = self._map = None

    def _settle(self) -> None:
        """Take the answer that was not wanted any more.

        Raises:
            Died: There is none for too long, or the process has ended.
        """
        if self._is_asked:
            end = monotonic() + _END_SECONDS
            try:
                self._answer(lambda: monotonic() < end)
            except Unwanted:
                raise Died("it went on with a record that nobody wants") from None
            self._is_asked = False

    def _make_room(self, num_bytes: int) -> None:
        assert self._memory is not None
        if self._map is not None and len(self._map) >= num_bytes:
            return
        size = max(_LEAST_BYTES, 1 << (num_bytes - 1).bit_length())
        try:
            self._map = system.calls.share(self._memory, size)
        except OSError as error:
            raise MemoryError(f"{size} bytes to share with a worker process: {error}") from error

    def _send(self, task: Task) -> None:
        try:
            self._is_asked = True
            self._connection.send(tuple(task))
        except OSError:
            raise self._died() from None

    def _answer(self, is_wanted: IsWanted) -> Any:
        """Return what the process says.

        Raises:
            Died: It has ended.
            Unwanted: Nobody wants it any more.
        """
        try:
            while not self._connection.poll(_LOOK_SECONDS):
                if not is_wanted():
                    raise Unwanted
                # What the function has begun may hold the other end.
                if self.is_over and not self._connection.poll(0):
                    raise self._died()
            return self._connection.recv()
        except (EOFError, OSError):
            raise self._died() from None

    def _died(self) -> Died:
        assert self._process is not None
        try:
            code = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:  # the function has closed what is not its own
            self._process.kill()
            code = self._process.wait()
        names = {number.value: number.name for number in signal.Signals}
        return Died(f"by {names.get(-code, f'signal {-code}')}" if code < 0 else f"with exit code {code}")


def _begun(other: int, memory: int, folders: list[str]) -> "subprocess.Popen[bytes]":
    """Begin a worker that has two descriptors, and imports from some folders."""
    # As multiprocessing begins processes; by means of it, the parent's script would run in each, and its own process
    # that watches over resources, and a fork of the parent that ends would end them.
    options = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    arguments = map(str, (other, memory, os.getpid()))
    command = [multiprocessing.spawn.get_executable(), *options, worker.__file__, *arguments, *folders]
    # It begins with it held up, and ignores it: an interrupt of the terminal goes to all.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=(other, memory))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_error(what: str, report: str = "") -> ArsrcValueError:
    fix = (
        "It imports the module of the function, or the script that defines it: there, what begins to read stands under "
        'if __name__ == "__main__". A function that is typed in is found by no other process: put it into a module.'
    )
    return ArsrcValueError("Map.num_processes", what, f"{fix}\n{report}".rstrip())


def _record_error(done: Done) -> RecordError:
    assert done.error is not None
    error = pickle.loads(done.error)
    if not isinstance(error, RecordError):
        return RecordError(done.num_rows, f"a worker process raised {said(error)}")
    found = RecordError(done.num_rows, error.what, error.fix)
    if done.cause is not None:
        found.__cause__ = pickle.loads(done.cause)
    return found
