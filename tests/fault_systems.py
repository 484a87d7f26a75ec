"""Systems to put in place of the operating one: in memory, with faults, and with threads in a seed's order."""

import contextlib
import ctypes
import errno
import inspect
import itertools
import mmap
import os
import posixpath
import random
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias, TypeVar

import pytest

from arsrc._host.storage import system
from arsrc._host.storage.system import System

Calls = TypeVar("Calls", bound=System)


@contextlib.contextmanager
def in_place(calls: Calls) -> Iterator[Calls]:
    """Let all file access go to this system for a while."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(system, "calls", calls)
        yield calls


class Hanging(system.System):
    """Lets one kind of call hang until it is released."""

    def __init__(self, name: str) -> None:
        self.release, self.num_hung = threading.Event(), 0
        real = getattr(self, name)

        def hang(*args: Any) -> Any:
            if not self.release.is_set():
                self.num_hung += 1
                self.release.wait(60)
            return real(*args)

        setattr(self, name, hang)


# In memory.


class _File:
    """A file, or a folder, and what of it is on the disk."""

    def __init__(self, inode: int, mode: int) -> None:
        self.inode, self.mode = inode, mode
        self.data = bytearray()
        self.on_disk = b""
        self.changed_at = 0
        self.locked_by: int | None = None

    def written(self, draw: random.Random) -> "_File":
        """What is there after the power failed: what was synced, or later content, or zeros for a part of that."""
        lost = _File(self.inode, self.mode)
        lost.changed_at = self.changed_at
        late = bytes(self.data)
        cut = draw.randrange(len(late) + 1)
        choices = [self.on_disk, late, late[:cut], late[:cut] + bytes(len(late) - cut)]
        lost.on_disk = self.on_disk if self.on_disk == late else draw.choice(choices)
        lost.data = bytearray(lost.on_disk)
        return lost


class InMemory(System):
    """Files and folders in memory, of which it is known what would be left if the power failed.

    Maps are copies. Files that lie below `beside` on the disk are taken over when they are first opened: what
    array_record's writer wrote there, nothing of it synced.
    """

    def __init__(self, beside: str | None = None) -> None:
        self._beside = beside
        self._files: dict[str, _File] = {"/": _File(0, stat.S_IFDIR)}
        self._on_disk = dict(self._files)
        self._names: list[tuple[str, str, _File | None]] = []  # folder, name and file of changes that are not on disk
        self._open: dict[int, tuple[str, _File]] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()

    @property
    def num_open(self) -> int:
        """How many descriptors are open."""
        return len(self._open)

    def put(self, path: str, data: bytes) -> None:
        """Put a file on the disk, and the folders above it."""
        self.make_folder(posixpath.dirname(path))
        file = _File(next(self._numbers), stat.S_IFREG)
        file.data, file.on_disk, file.changed_at = bytearray(data), data, next(self._numbers)
        self._files[path] = self._on_disk[path] = file

    def names(self) -> list[str]:
        """All files, by their paths."""
        return [path for path, file in self._files.items() if stat.S_ISREG(file.mode)]

    def after_power_failure(self, seed: Any) -> "InMemory":
        """What a new process finds: of what was not synced, some, as a seed says."""
        draw = random.Random(repr(seed))
        after = InMemory(self._beside)
        files = dict(self._on_disk)
        for path, other, file in self._names:
            if draw.random() < 0.5:
                if other and path in files:
                    files[other] = files.pop(path)
                elif not other and file is None:
                    files.pop(path, None)
                elif file is not None:
                    files[path] = file
        after._files = {path: file.written(draw) for path, file in files.items()}
        after._on_disk = dict(after._files)
        after._numbers = itertools.count(next(self._numbers) + 1)
        return after

    def _at(self, path: str) -> _File:
        path = posixpath.normpath(path)
        if path not in self._files:
            if self._beside is not None and path.startswith(self._beside) and os.path.isfile(path):
                file = _File(next(self._numbers), stat.S_IFREG)
                with open(path, "rb") as real:
                    file.data = bytearray(real.read())
                file.changed_at = next(self._numbers)
                self._files[path] = file
                self._names.append((path, "", file))
            else:
                raise _error(errno.ENOENT, path)
        return self._files[path]

    def stat(self, path: str, follow_links: bool = True) -> os.stat_result:
        return _stat_result(self._at(path))

    def open_memory(self) -> int:
        raise OSError(errno.ENOSYS, "array_record's reader is outside of it")

    def fstat(self, fd: int) -> os.stat_result:
        return _stat_result(self._open[fd][1])

    def list_folder(self, folder: str) -> list[str]:
        folder = posixpath.normpath(folder)
        if not stat.S_ISDIR(self._at(folder).mode):
            raise _error(errno.ENOTDIR, folder)
        return [posixpath.basename(path) for path in self._files if posixpath.dirname(path) == folder != path]

    def open(self, path: str, flags: int = os.O_RDONLY) -> int:
        with self._lock:
            path = posixpath.normpath(path)
            try:
                file = self._at(path)
            except FileNotFoundError:
                if not flags & os.O_CREAT:
                    raise
                if not stat.S_ISDIR(self._at(posixpath.dirname(path)).mode):
                    raise _error(errno.ENOTDIR, path) from None
                file = self._files[path] = _File(next(self._numbers), stat.S_IFREG)
                self._names.append((path, "", file))
            else:
                if flags & os.O_EXCL:
                    raise _error(errno.EEXIST, path)
            fd = 1_000_000 + next(self._numbers)
            self._open[fd] = (path, file)
            return fd

    def close(self, fd: int) -> None:
        _, file = self._open.pop(fd)
        if file.locked_by == fd:
            file.locked_by = None

    def pread(self, fd: int, num_bytes: int, position: int) -> bytes:
        return bytes(self._open[fd][1].data[position : position + num_bytes])

    def pwrite(self, fd: int, data: bytes | memoryview, position: int) -> int:
        file = self._open[fd][1]
        file.data.extend(bytes(max(0, position - len(file.data))))
        file.data[position : position + len(data)] = data
        file.changed_at = next(self._numbers)
        return len(data)

    def truncate(self, fd: int, num_bytes: int) -> None:
        """Make a file so long, as somebody else may."""
        file = self._open[fd][1]
        del file.data[num_bytes:]
        file.data.extend(bytes(num_bytes - len(file.data)))
        file.changed_at = next(self._numbers)

    def sync(self, fd: int) -> None:
        path, file = self._open[fd]
        if stat.S_ISREG(file.mode):
            file.on_disk = bytes(file.data)
            return
        left = [change for change in self._names if posixpath.dirname(change[0]) != path]
        inside = {p: f for p, f in self._files.items() if posixpath.dirname(p) == path}
        outside = {p: f for p, f in self._on_disk.items() if posixpath.dirname(p) != path}
        self._names, self._on_disk = left, outside | inside | {path: file}

    def rename(self, old: str, new: str) -> None:
        with self._lock:
            old, new = posixpath.normpath(old), posixpath.normpath(new)
            self._at(old)
            self._files[new] = self._files.pop(old)
            self._names.append((old, new, None))
            if self._beside is not None and old.startswith(self._beside):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(old)

    def unlink(self, path: str) -> None:
        with self._lock:
            path = posixpath.normpath(path)
            self._at(path)
            del self._files[path]
            self._names.append((path, "", None))
            if self._beside is not None and path.startswith(self._beside):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)

    def resolve(self, path: str) -> str:
        return posixpath.normpath(path)

    def lock(self, fd: int) -> bool:
        with self._lock:
            file = self._open[fd][1]
            if file.locked_by is not None:
                return False
            file.locked_by = fd
            return True

    def make_folder(self, path: str) -> None:
        while path not in self._files:
            self._files[path] = self._on_disk[path] = _File(next(self._numbers), stat.S_IFDIR)
            path = posixpath.dirname(path)

    def map(self, fd: int, address: int, num_bytes: int) -> bool:
        # The pages are reserved without rights: anonymous ones in their place can be written to.
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | system._MAP_FIXED
        system._LIBC.mmap(address, num_bytes, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
        data = self.pread(fd, num_bytes, 0)
        ctypes.memmove(address, data, len(data))
        return True


def _stat_result(file: _File) -> os.stat_result:
    size, time = len(file.data), file.changed_at
    numbers = (file.mode | 0o644, file.inode, 1, 1, 0, 0, size, 0, 0, 0)
    times = {"st_mtime_ns": time, "st_ctime_ns": time, "st_atime_ns": 0, "st_blocks": -(-size // 512)}
    return os.stat_result(numbers, times)


def _error(code: int, path: str) -> OSError:
    return OSError(code, os.strerror(code), path)


# With faults.


class Call(NamedTuple):
    """One call of a system."""

    name: str
    arguments: tuple[Any, ...]
    path: str
    inner: System

    def __call__(self) -> Any:
        return getattr(self.inner, self.name)(*self.arguments)


Fault: TypeAlias = Callable[[Call], Any]
Rule: TypeAlias = Callable[[Call], Fault | None]

METHODS = [name for name, _ in inspect.getmembers(System, inspect.isfunction) if name[0] != "_"]
READS = {"pread"}
WRITES = {"pwrite", "sync", "rename", "make_folder"}
WITHOUT_ERRORS = {"reserve", "map", "advise", "unmap"}  # which say in another way that they fail


class Crash(BaseException):
    """The process ends here: nothing of it runs any more, so that every later call is one too."""


class Injecting(System):
    """Another system, of whose calls some go wrong.

    Attributes:
        rule: Says of a call which fault it meets, if any.
        log: The calls, as (name of the thread, name of the call).
        num_faults: How many calls met one.
        open: The descriptors that are open, with their paths.
    """

    def __init__(self, inner: System, rule: Rule = lambda _: None, order: "Order | None" = None) -> None:
        self.inner, self.rule, self.order = inner, rule, order
        self.log: list[tuple[str, str]] = []
        self.num_faults = 0
        self.open_paths: dict[int, str] = {}

    def _call(self, name: str, *arguments: Any) -> Any:
        if self.order is not None:
            self.order.point()
        self.log.append((threading.current_thread().name, name))
        first = arguments[0] if arguments else ""
        path = first if isinstance(first, str) else self.open_paths.get(first, "") if isinstance(first, int) else ""
        call = Call(name, arguments, path, self.inner)
        fault = self.rule(call)
        try:
            if fault is None:
                result = call()
            else:
                self.num_faults += 1
                result = fault(call)
        finally:
            if name == "close":
                self.open_paths.pop(first, None)
        if name == "open":
            self.open_paths[result] = path
        return result


def _method(name: str) -> Callable[..., Any]:
    def method(self: Injecting, *arguments: Any, **keywords: Any) -> Any:
        bound = inspect.signature(getattr(System, name)).bind(self, *arguments, **keywords)
        return self._call(name, *bound.args[1:])

    return method


for _name in METHODS:
    setattr(Injecting, _name, _method(_name))


class Kind(NamedTuple):
    """A kind of fault, and which calls it may meet."""

    fault: Fault
    calls: set[str]

    def applies(self, call: Call) -> bool:
        return call.name in self.calls


def failing(code: int, *calls: str) -> Kind:
    """Calls that fail with an error; all if none are named."""

    def fault(call: Call) -> Any:
        if call.name == "close":
            call()  # Linux closes a descriptor whatever it says
        if call.name == "reserve":
            return None
        if call.name in WITHOUT_ERRORS:
            return False
        raise _error(code, call.path)

    return Kind(fault, set(calls or METHODS) - {"unmap"})


def _short(call: Call) -> Any:
    """Do half of it, as a signal or a full disk can bring about."""
    fd, what, position = call.arguments
    return getattr(call.inner, call.name)(fd, what // 2 if call.name == "pread" else what[: len(what) // 2], position)


def _of_another_place(call: Call) -> Any:
    fd, what, position = call.arguments
    return getattr(call.inner, call.name)(fd, what, max(0, position - 4096) if position else 4096)


def _zeros(call: Call) -> Any:
    return bytes(call.arguments[1])


def _cut_before(call: Call) -> Any:
    """Let somebody make the file shorter between two calls."""
    if call.path:
        fd = call.inner.open(call.path, os.O_RDWR)
        truncate = call.inner.truncate if isinstance(call.inner, InMemory) else os.ftruncate
        truncate(fd, call.inner.fstat(fd).st_size // 2)
        call.inner.close(fd)
    return call()


def _crash(call: Call) -> Any:
    if call.name in ("close", "unmap"):  # of what falls with the process, and may be asked for by the collector
        return
    raise Crash(call.name)


KINDS: dict[str, Kind] = {
    "EIO": failing(errno.EIO),
    "EMFILE": failing(errno.EMFILE, "open", "list_folder"),
    "ENOSPC": failing(errno.ENOSPC, *WRITES, "open"),
    "EACCES": failing(errno.EACCES, "open", "stat", "list_folder", *WRITES),
    "ESTALE": failing(errno.ESTALE, "stat", "fstat", "open", *READS),
    "short": Kind(_short, {*READS, "pwrite"}),
    "another place": Kind(_of_another_place, READS),
    "zeros": Kind(_zeros, READS),
    "cut": Kind(_cut_before, {*READS, "map"}),
}
CRASH = Kind(_crash, set(METHODS))


class Nth:
    """A rule: the n-th call that a kind of fault may meet does, once or with all that follow.

    Attributes:
        num_calls: How many calls it may have met.
    """

    def __init__(self, kind: Kind, n: int, once: bool = True) -> None:
        self._kind, self._n, self._once = kind, n, once
        self.num_calls = 0
        self._lock = threading.Lock()

    def __call__(self, call: Call) -> Fault | None:
        if not self._kind.applies(call):
            return None
        with self._lock:
            self.num_calls += 1
            is_met = self.num_calls == self._n or (self.num_calls > self._n and not self._once)
        return self._kind.fault if is_met else None


class NowAndThen:
    """A rule: a share of the calls meets a fault of some kind, as a seed says, call by call of each thread."""

    def __init__(self, seed: Any, share: float, kinds: Iterable[str]) -> None:
        self._seed, self._share = seed, share
        self._kinds = [KINDS[kind] for kind in kinds]
        self._counts: dict[str, int] = {}

    def __call__(self, call: Call) -> Fault | None:
        who = threading.current_thread().name
        self._counts[who] = self._counts.get(who, 0) + 1
        draw = random.Random(f"{self._seed} {who} {self._counts[who]}")
        kind = draw.choice(self._kinds)
        return kind.fault if draw.random() < self._share and kind.applies(call) else None


# Threads in a seed's order.


class Order:
    """Lets one thread at a time go on from one marked point to its next, in an order that a seed decides.

    At each point a thread draws a rank from the seed, its name and the number of its points; when all are at a point,
    the one of the lowest rank goes on. A thread that does not come back for a while waits for another one elsewhere, or
    has ended, and is not waited for.

    Args:
        seed: Decides.
        threads: Those that are waited for from the beginning.
        seconds: So long is a while.
    """

    def __init__(self, seed: Any, threads: Iterable[threading.Thread] = (), seconds: float = 0.5) -> None:
        self._seed, self._threads, self._seconds = seed, set(threads), seconds
        self._here: dict[threading.Thread, float] = {}
        self._counts: dict[threading.Thread, int] = {}
        self._moved = threading.Condition()

    def point(self) -> None:
        """Wait until it is this thread's turn."""
        this = threading.current_thread()
        with self._moved:
            self._threads.add(this)
            self._counts[this] = self._counts.get(this, 0) + 1
            self._here[this] = random.Random(f"{self._seed} {this.name} {self._counts[this]}").random()
            self._moved.notify_all()
            while not (self._threads <= self._here.keys() and min(self._here, key=self._here.__getitem__) is this):
                if not self._moved.wait(self._seconds):
                    self._threads &= self._here.keys()
                    self._moved.notify_all()
            del self._here[this]

    def leave(self) -> None:
        """Do not wait for this thread any more."""
        with self._moved:
            self._threads.discard(threading.current_thread())
            self._moved.notify_all()
