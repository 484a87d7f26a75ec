"""Memory of pictures that few bytes claim to be large: they are decoded, and one at a time."""

import io
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest

from arsrc._host.images.fitting import SMALL_PIXELS
from arsrc.codecs import Image, RecordBatch
from arsrc.errors import RecordError

CODE = """
import io, resource
import PIL.Image
from arsrc._host.machine import sharing
from arsrc.codecs import Image, RecordBatch
sharing.num_cores = lambda: 4
out = io.BytesIO()
PIL.Image.new("1", (2**13, 2**13 + 1)).save(out, "PNG")
codec = Image((4, 4, 3))
codec.decode(RecordBatch.from_records([out.getvalue()]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
codec.decode(RecordBatch.from_records([out.getvalue()] * 3))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


def picture(kind: str, height: int, width: int, shade: int = 7) -> bytes:
    out = io.BytesIO()
    PIL.Image.new("L" if kind == "JPEG" else "P" if kind == "GIF" else "RGB", (width, height), shade).save(out, kind)
    return out.getvalue()


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
def test_a_batch_of_large_pictures_takes_the_memory_of_one() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 160  # MiB; one takes 320


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "JPEG", "BMP"])
def test_large_pictures_of_each_format_are_decoded_to_their_own_rows(kind: str) -> None:
    side = SMALL_PIXELS // 4096
    records = [picture(kind, *size, shade) for shade, size in enumerate([(4, 4), (side + 1, 4096), (4, 4)], 1)]
    codec = Image((2, 2, 3))
    alone = [codec.decode(RecordBatch.from_records([record]))[0] for record in records]
    np.testing.assert_array_equal(codec.decode(RecordBatch.from_records(records)), alone)


def test_the_first_bad_picture_counts_whether_it_is_large_or_small() -> None:
    large = picture("PNG", SMALL_PIXELS // 4096 + 1, 4096)
    broken, good = large[: len(large) // 2], picture("PNG", 4, 4)
    for records, row in (([good, broken, b"no"], 1), ([good, b"no", broken], 1), ([broken, broken, good], 0)):
        with pytest.raises(RecordError) as caught:
            Image((2, 2)).decode(RecordBatch.from_records(records))
        assert caught.value.row == row
