"""What a worker process does: a script that imports this package, and JAX with it, only where a record goes wrong.

Its arguments are the descriptors of a connection and of a file in memory, the id of the process that wants it, and
where that imports from. What it is asked to do, and whether it could, goes over the connection, as plain values;
records and elements go through the memory:

    word 0      the number of the task that is wanted; the worker ends another one between two records
    word 1      the row that the worker is at
    from 64 on  where records begin, i64[num_rows + 1]; their bytes; each leaf, [num_rows, *shape]; all aligned to 64
"""

import contextlib
import math
import mmap
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from typing import Any, NamedTuple

if __name__ == "__main__":  # its own folder is no place to import from, the places of its parent are
    sys.path[:] = sys.argv[4:]

import numpy as np

_ALIGNMENT = 64  # bytes
_LOOK_SECONDS = 0.5  # between two looks at whether the parent is alive
_LEAVES = {np.ndarray, bool, int, float, complex}

NO_ROW = -1
"""Where a worker is that has not begun, or is done."""

LeafShapes = Sequence[tuple[tuple[int, ...], "np.dtype[Any]"]]


class Setup(NamedTuple):
    """What a worker is told first; what is user's own is pickled apart, so that it is told what cannot be loaded.

    Attributes:
        main: What `multiprocessing.spawn.prepare` makes the process like its parent by.
        function: Pickled, what decodes a record.
        template: Pickled, an element with the numbers of its leaves in their places, of plain containers; or None.
        careful: Pickled, what makes a function from a record to leaves of the function: it knows any tree, and says
            what is wrong with a record.
        shapes: Shape and dtype of each leaf; none where they are not known: elements are then given back as they are.
    """

    main: dict[str, Any]
    function: bytes
    template: bytes
    careful: bytes
    shapes: LeafShapes


class Task(NamedTuple):
    """Some records to decode.

    Attributes:
        number: Its number, from 1 on.
        num_rows: How many there are.
        num_bytes: Bytes of all of them.
        size: Bytes of the memory.
    """

    number: int
    num_rows: int
    num_bytes: int
    size: int


class Done(NamedTuple):
    """What came of a task.

    Attributes:
        num_rows: How many records were decoded.
        error: Pickled, the `RecordError` of the next one; None where it was decoded, or is not wanted.
        cause: Pickled, what the function raised for it; None where it did not, or that cannot be pickled.
        element: Pickled, the element of the first one, where shapes of leaves are not known.
    """

    num_rows: int
    error: bytes | None = None
    cause: bytes | None = None
    element: bytes | None = None


class Places(NamedTuple):
    """Where things lie in the memory, in bytes from its beginning."""

    records: int
    leaves: list[int]
    end: int


def places(num_rows: int, num_bytes: int, shapes: LeafShapes) -> Places:
    """Return where the records and leaves of a task lie."""
    sizes = [8 * (num_rows + 1), num_bytes]
    sizes += [num_rows * math.prod(shape) * dtype.itemsize for shape, dtype in shapes]
    starts = [_ALIGNMENT]
    for size in sizes:
        starts.append(-(-(starts[-1] + size) // _ALIGNMENT) * _ALIGNMENT)
    return Places(starts[1], starts[2:-1], starts[-1])


def offsets(memory: mmap.mmap, num_rows: int) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """Return where records begin and the last ends among their bytes, i64[num_rows + 1], to be read and written."""
    return np.ndarray((num_rows + 1,), np.int64, memory, _ALIGNMENT)


def leaves(memory: mmap.mmap, starts: Sequence[int], num_rows: int, shapes: LeafShapes) -> list[Any]:
    """Return the leaves of a task, [num_rows, *shape], to be read and written."""
    each = zip(starts, shapes, strict=True)
    return [np.ndarray((num_rows, *shape), dtype, memory, start) for start, (shape, dtype) in each]


def place(template: Any, element: Any, found: list[Any]) -> bool:
    """Put the leaves of an element into a list, by the numbers in `template`.

    False: its structure is another one, or a leaf is neither an array of NumPy's nor a number, and may be a container.
    """
    kind = type(template)
    if kind is int:
        found[template] = element
        return type(element) in _LEAVES or isinstance(element, np.generic)
    if type(element) is not kind:
        return False
    if kind is dict:
        return template.keys() == element.keys() and all(
            place(part, element[key], found) for key, part in template.items()
        )
    return template is None or (
        len(template) == len(element) and all(map(place, template, element, [found] * len(template)))
    )


class _Decoder:
    """Decodes records one by one."""

    def __init__(self, setup: Setup) -> None:
        self._shapes, self._make_careful = setup.shapes, setup.careful
        self._function = pickle.loads(setup.function)
        self._template = pickle.loads(setup.template)
        self._found: list[Any] = [None] * len(setup.shapes)
        self._careful: Any = None

    def decode(self, record: bytes) -> list[Any]:
        """Return the leaves of an element.

        Raises:
            RecordError: The record does not fit the codec.
        """
        with contextlib.suppress(BaseException):  # it is decoded once more, which raises what is wrong
            if self._template is not None and place(self._template, self._function(record), self._found):
                return [self._array(leaf, *wanted) for leaf, wanted in zip(self._found, self._shapes, strict=True)]
        found: list[Any] = self._carefully(record)
        self._template = None  # the next one would be decoded twice too
        return found

    def pickled(self, record: bytes) -> bytes:
        """Return an element whose leaves are not known, pickled.

        Raises:
            RecordError: It is none that JAX arrays can hold.
        """
        with contextlib.suppress(BaseException):  # as above
            found = pickle.dumps(self._function(record))
            if "jax" not in sys.modules:  # else there may be arrays of JAX, which must not get to the parent
                return found
        return pickle.dumps(self._carefully(record))

    def _carefully(self, record: bytes) -> Any:
        if self._careful is None:
            self._careful = pickle.loads(self._make_careful)(self._function)  # which imports the package
        return self._careful(record)

    @staticmethod
    def _array(leaf: Any, shape: tuple[int, ...], dtype: "np.dtype[Any]") -> Any:
        leaf = np.asarray(leaf)
        if leaf.dtype != dtype or leaf.shape != shape:
            raise ValueError
        return leaf


class _Worker:
    """Does what it is asked until the connection ends."""

    def __init__(self, connection: Any, memory: int) -> None:
        self._connection, self._memory = connection, memory
        self._map: Any = None

    def run(self) -> None:
        try:
            setup = Setup(*pickle.loads(self._connection.recv_bytes()))
            try:
                decoder = _prepared(setup)
            except BaseException as error:
                self._connection.send("".join(traceback.format_exception(error)))
                return
            self._connection.send(None)
            while True:
                task = Task(*self._connection.recv())
                self._connection.send(tuple(self._do(task, decoder, setup.shapes)))
        except (EOFError, ConnectionError):  # nobody wants anything any more
            return

    def _do(self, task: Task, decoder: _Decoder, shapes: LeafShapes) -> Done:
        """Decode the records of a task, up to one that is bad; return a `Done`."""
        if self._map is None or len(self._map) != task.size:
            self._map = mmap.mmap(self._memory, task.size)
        where = places(task.num_rows, task.num_bytes, shapes)
        ends = (where.records + offsets(self._map, task.num_rows)).tolist()
        columns = leaves(self._map, where.leaves, task.num_rows, shapes)
        with memoryview(self._map) as memory, memory[:16].cast("q") as words:
            for row in range(task.num_rows):
                if words[0] != task.number:
                    return Done(row)
                words[1] = row
                record = memory[ends[row] : ends[row + 1]].tobytes()
                try:
                    if not shapes:
                        return Done(1, element=decoder.pickled(record))
                    element = decoder.decode(record)
                except Exception as error:
                    return _bad(row, error)
                for column, leaf in zip(columns, element, strict=True):
                    column[row] = leaf
            words[1] = NO_ROW
        return Done(task.num_rows)


def _prepared(setup: Setup) -> _Decoder:
    """Make the process like its parent, and load what it decodes with."""
    from multiprocessing import process, spawn

    # By this, others that begin processes notice as well that the parent's script runs once more.
    process.current_process()._inheriting = True  # type: ignore[attr-defined]
    try:
        spawn.prepare(setup.main)
        return _Decoder(setup)
    finally:
        del process.current_process()._inheriting  # type: ignore[attr-defined]


def _bad(row: int, error: Exception) -> Done:
    """Return what is said of a record that does not fit."""
    try:
        cause = pickle.dumps(error.__cause__)
        pickle.loads(cause)
    except Exception:
        cause = None
    error.__cause__ = None
    return Done(row, pickle.dumps(error), cause)


def _run(connection: int, memory: int, parent: int) -> None:
    """Work until the parent wants no more, or is no more: in a thread, so that whatever the function does is seen."""
    from multiprocessing.connection import Connection

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    thread = threading.Thread(target=_Worker(Connection(connection), memory).run, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_LOOK_SECONDS)
        if os.getppid() != parent:
            os._exit(1)


if __name__ == "__main__":
    _run(*map(int, sys.argv[1:4]))
