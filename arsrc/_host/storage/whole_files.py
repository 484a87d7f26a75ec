"""Small files that are read and written as a whole, and are never seen half written."""

import contextlib
import errno
import hashlib
import json
import os
import uuid
from typing import Any

from arsrc._host.storage import system
from arsrc._host.storage.file_names import kind_of
from arsrc._host.storage.open_file import OpenFile
from arsrc._host.storage.set_lock import sync_folder


def write_whole(path: str, kind: str, facts: dict[str, Any], data: bytes) -> None:
    """Write a file: a line with a digest and JSON that says of what kind it is and what is in it, then data.

    Raises:
        OSError: It cannot be written; whatever was there before is there still.
    """
    line = json.dumps({"kind": kind, "num_bytes": len(data), **facts}).encode()
    content = _digest(line, data) + b" " + line + b"\n" + data
    part = f"{path}.{uuid.uuid4().hex}"
    try:
        with contextlib.closing(OpenFile(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)) as file:
            position = 0
            while position < len(content):  # the system writes 2 GiB at once at most
                count = system.calls.pwrite(file.fd, memoryview(content)[position:], position)
                if not count:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), part)
                position += count
            system.calls.sync(file.fd)
        system.calls.rename(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            system.calls.unlink(part)
        raise
    sync_folder(os.path.dirname(path))


def read_whole(path: str, kind: str) -> tuple[dict[str, Any], bytes]:
    """Return what `write_whole` wrote: what the line says, and the data.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is of another kind, or is not what was written; the text says so.
    """
    if kind_of(path) not in ("a file", None):  # who opens a FIFO may wait for ever
        raise ValueError("it is no file")
    with contextlib.closing(OpenFile(path)) as file:
        num_bytes = file.stamp().num_bytes
        content = bytearray()
        while len(content) < num_bytes and (part := file.read(num_bytes - len(content), len(content))):
            content += part
    end = max(content.find(b"\n"), 0)
    digest, line, data = bytes(content[:64]), bytes(content[65:end]), bytes(content[end + 1 :])
    try:
        facts: Any = json.loads(line)
        is_one = facts["kind"] == kind
    except (ValueError, TypeError, KeyError):
        is_one = False
    if not is_one:
        raise ValueError("it is of another kind")
    if digest != _digest(line, data):
        raise ValueError("it is not what was written: it was cut, or its bytes have changed")
    return dict(facts), data


def _digest(line: bytes, data: bytes) -> bytes:
    digest = hashlib.sha256(line)
    digest.update(data)
    return digest.hexdigest().encode()
