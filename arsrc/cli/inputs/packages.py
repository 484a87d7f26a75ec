"""The optional packages by which input files are read, and what is said where one is missing."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from arsrc.errors import ArsrcValueError


@contextlib.contextmanager
def needed_for(what: str, package: str) -> Iterator[None]:
    """Import a package of the extra `cli` within.

    Raises:
        ArsrcValueError: It is not installed.
    """
    try:
        yield
    except ImportError as error:
        text = f"a package that is needed for {what} is not installed"
        raise ArsrcValueError("convert", text, "Run pip install 'arsrc[cli]'.", package=package) from error


def packed_map() -> Callable[[dict[str, Any]], bytes]:
    """Return what makes MessagePack of a map."""
    with needed_for("MessagePack records", "msgspec"):
        from msgspec.msgpack import Encoder
    return Encoder().encode
