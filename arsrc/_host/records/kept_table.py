"""Tables of packed rows, kept in files for the next process."""

import hashlib
import logging
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arsrc._host.storage import system
from arsrc._host.storage.whole_files import read_whole, write_whole
from arsrc.errors import ArsrcError, ArsrcValueError, message
from arsrc.views import pack_table
from arsrc.views.pack_table import PackTable
from arsrc.views.packing import Packing

_KIND = "arsrc packed rows 1"
_LOG = logging.getLogger("arsrc")

Bad = list[tuple[int, str]]


def kept_table(
    packing: Packing, folder: str | None, identity: Callable[[], str], build: Callable[[], tuple[PackTable, Bad]]
) -> tuple[PackTable, Bad]:
    """Return a table, and which documents are in no row since they are bad: from a file where it is there.

    What lacks bad documents is not kept: others may be able to read them, or ask for an error.

    Args:
        packing: How documents are packed.
        folder: Where tables are kept; None keeps none.
        identity: Says of which documents the table is.
        build: Makes it.

    Raises:
        ArsrcValueError: The folder cannot be used.
    """
    if folder is None:
        return build()
    what = identity()
    path = os.path.join(folder, f"arsrc-{hashlib.sha256(what.encode()).hexdigest()[:32]}.rows")
    try:
        system.calls.make_folder(folder)
        facts, data = read_whole(path, _KIND)
        return pack_table.from_arrays(packing, _arrays(facts["arrays"], data)), []
    except FileNotFoundError:
        pass
    except OSError as error:
        fault, fix = f"cache_dir cannot be used ({error.strerror})", "Name a folder to write to."
        raise ArsrcValueError("cache_dir", fault, fix, cache_dir=folder, path=path) from error
    except (ArsrcError, ValueError, KeyError) as error:
        text = f"a table of packed rows that was kept cannot be used ({error}); it is made again"
        _LOG.warning(message("pack", text, path=path))
    table, bad = build()
    if bad:
        return table, bad
    try:
        arrays = table.to_arrays()
        kinds = {name: [str(array.dtype), len(array)] for name, array in arrays.items()}
        write_whole(path, _KIND, {"arrays": kinds}, b"".join(array.tobytes() for array in arrays.values()))
    except OSError as error:
        text = f"a table of packed rows cannot be kept ({error.strerror}); the next process makes it again"
        _LOG.warning(message("pack", text, path=path))
    return table, bad


def _arrays(kinds: dict[str, Any], data: bytes) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file."""
    arrays, begin = {}, 0
    for name, (dtype, size) in kinds.items():
        arrays[name] = np.frombuffer(data, dtype, size, begin)
        begin += arrays[name].nbytes
    return arrays
