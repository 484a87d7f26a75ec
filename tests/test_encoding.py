"""What a file's first chunk says of all."""

from pathlib import Path

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader

from arsrc._host.format.encoding import encoding_of

RECORDS = [row.tobytes() for row in np.random.default_rng(0).integers(0, 9, (20, 100), dtype=np.uint8)]


@pytest.mark.parametrize("group_size", [1, 7, 20, 300])
@pytest.mark.parametrize(
    ("options", "encoding"),
    [
        ("uncompressed", ""),
        ("zstd", "zstd"),
        ("brotli:3", "brotli"),
        ("snappy", "snappy"),
        ("uncompressed,transpose:true", "transposed"),
        ("zstd,transpose:true", "transposed zstd"),
        ("zstd,pad_to_block_boundary:true", "zstd"),
    ],
)
def test_the_encoding_is_the_one_that_the_file_was_written_with(
    tmp_path: Path, write_records, options, encoding, group_size
):
    path = write_records(tmp_path / "x", RECORDS, f"group_size:{group_size},{options}")
    assert encoding_of(path) == encoding
    assert f"group_size:{group_size}," in ArrayRecordReader(path).writer_options_string()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        bytes(1 << 17),
        bytes(88) + b"p" + b"\xff" * 100,
        bytes(72) + b"\xff" * 16 + b"p" + bytes(99),
    ],
)
def test_a_file_of_another_kind_is_none_of_them(tmp_path: Path, content):
    (tmp_path / "x").write_bytes(content)
    assert encoding_of(str(tmp_path / "x")) == encoding_of(str(tmp_path / "gone")) == ""
