"""The options with which a file was written, as its footer says."""

import contextlib

from arsrc._host.format.compressed_index import read_compressed_footer
from arsrc._host.format.footer import CompressedError, read_footer
from arsrc._host.format.layout import LayoutError
from arsrc._host.storage.open_file import OpenFile


def writer_options(path: str) -> str | None:
    """Return the options of `ArrayRecordWriter`; None: if anybody can tell, it is array_record's reader."""
    try:
        with contextlib.closing(OpenFile(path)) as file:
            num_bytes = file.stamp().num_bytes
            try:
                footer = read_footer(file, num_bytes)
            except CompressedError:
                _, footer = read_compressed_footer(file, num_bytes)
    except (OSError, LayoutError):
        return None
    return footer.writer_options
