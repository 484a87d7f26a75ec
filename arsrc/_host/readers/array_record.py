"""array_record's own reader and writer; its module is imported when one is first wanted, and not before."""

from typing import Any

from arsrc.errors import ArsrcReadError, ArsrcWriteError

_FIX = "Run: pip install --force-reinstall array-record."


def open_reader(path: str, file: str | bytes, **options: Any) -> Any:
    """Return array_record's reader of a file.

    Args:
        path: The file that is meant, for messages.
        file: What the reader opens.
        **options: The reader's.

    Raises:
        ArsrcReadError: array_record cannot be imported.
    """
    try:
        from array_record.python.array_record_module import ArrayRecordReader
    except Exception as error:  # it may be there and broken
        what = f"needs array_record's reader, which cannot be imported ({error})"
        raise ArsrcReadError("open", what, _FIX, path=path) from error
    return ArrayRecordReader(file, **options)


def open_writer(path: str, file: str | bytes, options: str) -> Any:
    """Return array_record's writer of a file.

    Args:
        path: The file that is meant, for messages.
        file: What the writer opens.
        options: The writer's.

    Raises:
        ArsrcWriteError: array_record cannot be imported.
    """
    try:
        from array_record.python.array_record_module import ArrayRecordWriter
    except Exception as error:
        what = f"needs array_record's writer, which cannot be imported ({error})"
        raise ArsrcWriteError("write_array_record", what, _FIX, path=path) from error
    return ArrayRecordWriter(file, options)
