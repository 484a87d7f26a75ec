"""Writes ArrayRecord files: `write_array_record`, from elements to complete files or none."""

import contextlib
import os
import re
import stat
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from arsrc._host import registry
from arsrc._host.machine.progress import track
from arsrc._host.readers.array_record import open_reader, open_writer
from arsrc._host.storage import system
from arsrc._host.storage.file_names import ShardSet, absolute, is_folder, look, names_in, shard_sets
from arsrc._host.storage.open_file import OpenFile
from arsrc._host.storage.set_lock import SetLock, sync_folder
from arsrc.codecs import Bytes, Codec
from arsrc.codecs.check import check_codec, whole_number
from arsrc.codecs.encoding import RecordStream, encode_elements
from arsrc.errors import (
    ArsrcError,
    ArsrcFileNotFoundError,
    ArsrcTypeError,
    ArsrcValueError,
    ArsrcWriteError,
)

SUFFIX = ".array_record"
MAX_SHARDS = 99_999
"""Most shards of one data set: beyond, five digits do not sort."""

_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{12}\.tmp")


def write_array_record(
    path: str | os.PathLike[str],
    elements: Any,
    *,
    codec: Codec = Bytes(),
    num_shards: int = 1,
    options: str = "group_size:1,uncompressed",
) -> tuple[str, ...]:
    """Write elements to one ArrayRecord file, or to several shards.

    Host only; for local files. Memory is constant: elements are encoded in pieces of a few megabytes.

    What `elements` is, is decided by its type:

    * an array, or a dict, tuple or other PyTree of arrays, but no list: one batch, the leading axis counts
      the elements. With the default codec, `u8[n, num_bytes]` is `n` records.
    * a list, a generator or any other iterable: single elements, one after the other, all of one structure,
      shape and dtype. An item that is `bytes` is a record already and is written as it is, unchecked,
      whatever the codec; this is how records of different lengths are written.

    Files appear under their final names only when all of them are complete and on disk; files of the same
    names are replaced, links are followed. A writer that fails removes what it wrote; one that is killed leaves at
    most hidden files `.<name>.<random>.tmp`. Shards have one writer at a time, who holds `.<name>.writing` beside them;
    while it renames them one by one, or if it is killed in these milliseconds, reading the set is an error until it is
    whole, or written once more.

    >>> import numpy as np, tempfile
    >>> path = tempfile.mkdtemp() + "/digits.array_record"
    >>> files = write_array_record(path, np.zeros((10, 64), np.uint8))
    >>> files == (path,)
    True

    Args:
        path: The file to write; `~` is the home folder. With several shards, `dir/name` and
            `dir/name.array_record` both mean `dir/name-00000-of-00004.array_record` and so on. The folder must exist.
        elements: The elements; see above.
        codec: Encodes the elements.
        num_shards: Number of files. If the number of elements is known (a batch, or an iterable with a
            length), the files hold contiguous parts that differ by one record at most: read in sorted order,
            record `i` is element `i`. Else element `i` goes to file `i % num_shards`.
        options: Options of `ArrayRecordWriter`. The default lets records be read straight from a memory map;
            `"group_size:256,zstd"` gives small files for sequential reading.

    Returns:
        The final paths, in sorted order, in the folder as it was given.

    Raises:
        ArsrcTypeError: An argument has a type that cannot be used, or the codec refuses an element's type.
        ArsrcValueError: `path` names no file, there are fewer elements than shards or none, `options` are
            unknown, shards of another number have the same name, or the codec refuses an element.
        ArsrcFileNotFoundError: The folder does not exist.
        ArsrcWriteError: A file cannot be written, as on a full disk, or another writer writes the same shards.
    """
    targets = final_paths(path, num_shards)
    if not isinstance(options, str):
        raise ArsrcTypeError("options", "must be a string", options=options)
    check_codec(codec)
    write_stream(targets, encode_elements(elements, codec), options)
    return targets


def write_stream(targets: Sequence[str], stream: RecordStream, options: str) -> None:
    """Write records to files as `write_array_record` does.

    Args:
        targets: What `final_paths` gave.
        stream: The records.
        options: Options of `ArrayRecordWriter`.
    """
    if stream.num_records is not None:
        _check_count(stream.num_records, len(targets))
    with contextlib.ExitStack() as stack:
        lock = None
        if len(targets) > 1:
            with _failing(targets[0]):
                lock = SetLock(first := absolute(targets[0], "path"))
                stack.callback(lock.release)
                _begin_set(lock, first)
        pieces = track(stream.pieces, "write_array_record", stream.num_records, None)
        stack.enter_context(contextlib.closing(pieces))
        shards = []
        for target in targets:
            shards.append(_Shard(_file(target), options))
            stack.callback(shards[-1].discard)
        if stream.num_records is None:
            _deal(pieces, shards)
        else:
            _fill(pieces, stream.num_records, shards)
        _publish(shards, lock)
    registry.look_again()


def final_paths(path: Any, num_shards: int) -> tuple[str, ...]:
    """Return the paths that `write_array_record` would write, after checking that files can be put there.

    The arguments are its own, and so is what it raises.
    """
    num_shards = whole_number("num_shards", "num_shards", num_shards, 1)
    if not isinstance(path, (str, os.PathLike)) or not isinstance(text := os.fspath(path), str):
        fix = "Arguments are the path, then the elements."
        raise ArsrcTypeError("path", "must be a path", fix, path=type(path).__name__)
    text = os.path.expanduser(text)
    folder, name = os.path.split(text)
    if not name:
        fix = f'Name the file, for example "train{SUFFIX}".'
        raise ArsrcValueError("path", "names no file", fix, path=text)
    if num_shards > MAX_SHARDS:
        raise ArsrcValueError("num_shards", f"must be at most {MAX_SHARDS}", num_shards=num_shards)
    targets = [text]
    if num_shards > 1:
        shards = ShardSet(name.removesuffix(SUFFIX), num_shards, SUFFIX)
        targets = [os.path.join(folder, shards.shard(shard)) for shard in range(num_shards)]
    for target in targets:
        _file(target)
    return tuple(targets)


def _file(target: str) -> str:
    """Return the file that a path leads to, its links followed, which need not be there; it can be replaced."""
    with _failing(target):
        file = system.calls.resolve(absolute(target, "path"))
    if not is_folder(folder := os.path.dirname(file)):
        fix = "Create it with os.makedirs(folder)."
        raise ArsrcFileNotFoundError("path", "the folder does not exist", fix, folder=folder)
    found = look(file, follow_links=False)
    if found is not None and stat.S_ISDIR(found.st_mode):
        raise ArsrcValueError("path", "is a folder", "Name a file in it.", path=target)
    if found is not None and not stat.S_ISREG(found.st_mode):  # a link that was followed and is there leads to itself
        what = "is no regular file, but a pipe, a device or a link to itself"
        raise ArsrcValueError("path", what, "Name a file.", path=target)
    return file


def _begin_set(lock: SetLock, first: str) -> None:
    """Remove what writers of a set have left that were killed; refuse shards of another number.

    A glob would read those as well.
    """
    folder, name = os.path.split(first)
    (shards,) = shard_sets([name])
    names = names_in(folder)
    of_set = lambda one: one._replace(number=shards.number) == shards  # noqa: E731
    found = shard_sets(names)
    stale = [name for one in filter(of_set, found) if one != shards for name in found[one]]
    if stale:
        what = f"{len(stale)} shards of another number have the same name"
        raise ArsrcValueError("num_shards", what, "Delete them first.", first=stale[0])
    if lock.is_alone:
        for name in names:
            part = _TEMPORARY.fullmatch(name)
            if part is not None and any(map(of_set, shard_sets([part[1]]))):
                system.calls.unlink(os.path.join(folder, name))


def _publish(shards: Sequence["_Shard"], lock: SetLock | None) -> None:
    """Put all files into place."""
    with _failing(shards[0].target):
        if lock is not None:
            lock.begin()
        for shard in shards:
            shard.publish()
        for folder in {os.path.dirname(shard.target): None for shard in shards}:
            sync_folder(folder)
        if lock is not None:
            lock.end()


def _check_count(num_records: int, num_shards: int) -> None:
    if num_records < num_shards:
        fix = "An empty file is no data set: every file needs an element."
        what = "there are too few elements"
        raise ArsrcValueError("elements", what, fix, num_elements=num_records, num_shards=num_shards)


def _fill(pieces: Iterable[Sequence[bytes]], num_records: int, shards: list["_Shard"]) -> None:
    """Write contiguous parts, one file after the other."""
    some = filter(None, pieces)
    piece: Sequence[bytes] = ()
    written = 0
    for number, shard in enumerate(shards):
        shard.open()
        left = num_records // len(shards) + (number < num_records % len(shards))
        while left and (piece := piece or next(some, ())):
            part, piece = piece[:left], piece[left:]
            shard.write(part)
            left -= len(part)
            written += len(part)
        shard.close()
    written += len(piece or next(some, ()))
    if written != num_records:
        found = f"more than {num_records}" if written > num_records else written
        fix = "Correct its __len__, or pass iter(elements)."
        what = "the iterable's length is not the number of its elements"
        raise ArsrcValueError("elements", what, fix, length=num_records, found=found)


def _deal(pieces: Iterable[Sequence[bytes]], shards: list["_Shard"]) -> None:
    """Write record `i` to file `i % num_shards`."""
    for shard in shards:
        shard.open()
    written = 0
    for piece in pieces:
        for number, shard in enumerate(shards):
            shard.write(piece[(number - written) % len(shards) :: len(shards)])
        written += len(piece)
    _check_count(written, len(shards))
    for shard in shards:
        shard.close()


class _Shard:
    """One file in the making, under a temporary name until it is published."""

    def __init__(self, target: str, options: str) -> None:
        self.target = target
        # Hidden, so that no glob for data finds it; random, so that two writers never share it.
        folder, name = os.path.split(target)
        self._temporary = os.path.join(folder, f".{name}.{uuid.uuid4().hex[:12]}.tmp")
        self._options = options
        self._writer: Any = None
        self._num_records = 0

    def open(self) -> None:
        try:
            with _failing(self.target):
                self._writer = open_writer(self.target, os.fsencode(self._temporary), self._options)
                if not self._writer.ok():
                    self._writer.close()  # raises with the reason
        except (ValueError, TypeError) as error:  # the second of what is no UTF-8
            raise ArsrcValueError("options", str(error), "", options=self._options) from error

    def write(self, records: Sequence[bytes]) -> None:
        write = self._writer.write
        try:  # for single records too: quicker than `_failing`
            for record in records:
                write(record)
        except RuntimeError as error:
            raise _failure(self.target, error) from error
        self._num_records += len(records)

    def close(self) -> None:
        """Complete the file, check it, and bring it to the disk."""
        with _failing(self.target):
            self._writer.close()
            reader = open_reader(self.target, os.fsencode(self._temporary))
            found = reader.num_records()
            reader.close()  # raises if the file could not be read
            with contextlib.closing(OpenFile(self._temporary)) as file:
                system.calls.sync(file.fd)
        if found != self._num_records:
            raise _failure(self.target, f"the file holds {found} of {self._num_records} records")

    def publish(self) -> None:
        system.calls.rename(self._temporary, self.target)

    def discard(self) -> None:
        """Remove the temporary file, if it is still there."""
        if self._writer is not None:
            with contextlib.suppress(RuntimeError):
                self._writer.close()
        with contextlib.suppress(OSError):  # what has failed before is what counts
            system.calls.unlink(self._temporary)


@contextlib.contextmanager
def _failing(path: str) -> Iterator[None]:
    """Make errors of the system, and of array_record, those of a writer."""
    try:
        yield
    except ArsrcError:
        raise
    except (RuntimeError, OSError) as error:
        raise _failure(path, error) from error


def _failure(path: str, reason: object) -> ArsrcWriteError:
    fix = "Check free space and permissions."
    return ArsrcWriteError("write_array_record", f"writing failed ({reason})", fix, path=path)
