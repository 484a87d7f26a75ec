"""Parquet files: a row is a record, of a form that follows from the columns."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from arsrc.cli.inputs.columns import Rows, holds, laid_open
from arsrc.cli.inputs.damage import damage
from arsrc.cli.inputs.packages import needed_for
from arsrc.cli.inputs.row_records import Notes, form_of
from arsrc.errors import ArsrcValueError

_STEP_BYTES = 8 << 20  # of rows that are read at once


class Table:
    """The rows of one or several files.

    One column of bytes or texts gives these as they are, one of lists of numbers gives the numbers of each list end to
    end. Columns that all hold a number, or as many numbers in each row, give what `Struct` reads; all others
    MessagePack maps of names to values. Fields of nested columns count as columns, `image.bytes` say.

    Attributes:
        num_records: How many there are.

    Raises:
        ArsrcReadError: A file is no Parquet file, or damaged; later: a value is missing that an array needs.
        ArsrcValueError: pyarrow is not installed, or columns differ between files.
    """

    def __init__(self, paths: Sequence[str], notes: Callable[[], Notes]) -> None:
        """Look at the files; `notes` makes what takes note of bytes and texts."""
        with needed_for("Parquet files", "pyarrow"):
            import pyarrow
            import pyarrow.parquet
        self._arrow: Any = pyarrow
        self._paths = paths
        self.num_records = 0
        schema: Any = None
        for path in paths:
            with self._opened(path) as file:
                found = file.schema_arrow
                self.num_records += file.metadata.num_rows
            if schema is not None and not found.equals(schema):
                got = {"path": path, "first": str(schema), "here": str(found)}
                raise ArsrcValueError("convert", "a Parquet file has other columns than the first one", **got)
            schema = found
        names, columns = laid_open(self._arrow, schema.empty_table())
        if not columns or len(set(names)) < len(names):
            what = "a Parquet file has two columns of one name" if columns else "a Parquet file has no columns"
            raise ArsrcValueError("convert", what, path=paths[0], columns=names)
        self._form = form_of(names, [holds(self._arrow, column.type) for column in columns], notes)

    @property
    def codec(self) -> str:
        """The codec that reads the records, as text; what it says of lengths is of the records that went by."""
        return self._form.codec

    def __iter__(self) -> Iterator[list[bytes]]:
        """Yield the records, some at a time."""
        for path in self._paths:
            position = 0
            for batch in self._batches(path):
                names, columns = laid_open(self._arrow, self._arrow.Table.from_batches([batch]))
                yield self._form.records(Rows(names, columns, path, position))
                position += batch.num_rows

    def _batches(self, path: str) -> Iterator[Any]:
        with self._opened(path) as file:
            for number in range(file.metadata.num_row_groups):
                group = file.metadata.row_group(number)
                size = min(max(1, _STEP_BYTES * group.num_rows // max(1, group.total_byte_size)), 65_536)
                rows = iter(file.iter_batches(size, row_groups=[number]))
                while (batch := self._doing(path, functools.partial(next, rows, None), row_group=number)) is not None:
                    yield batch

    def _opened(self, path: str) -> Any:
        return self._doing(path, lambda: self._arrow.parquet.ParquetFile(path, page_checksum_verification=True))

    def _doing(self, path: str, do: Callable[[], Any], **where: Any) -> Any:
        """Do what pyarrow does; what it raises becomes the error of a damaged file."""
        try:
            return do()
        except (self._arrow.ArrowException, OSError, ValueError) as error:
            raise damage(path, f"is no whole Parquet file ({str(error).strip()})", **where) from error
