"""Codecs: how the bytes of records become arrays, a whole batch at a time.

`Bytes` gives records of one length as they are, `Struct` named fields of fixed size, `Ragged` pads records
of different lengths, `Map` calls a function for each record. Anything else that follows the `Codec` protocol
works as well; `check_batch` is the check that it keeps its word.
"""

from arsrc.record_batch import RecordBatch as RecordBatch

from .base import Codec as Codec
from .bytes_codec import Bytes as Bytes
from .element_tree import check_batch as check_batch
from .map_codec import Map as Map
from .ragged_codec import Ragged as Ragged
from .struct_codec import Struct as Struct

__all__ = ["Bytes", "Codec", "Map", "Ragged", "RecordBatch", "Struct", "check_batch"]
