"""How the bytes of records become arrays, a whole batch at a time: codecs.

`Bytes` gives records of one length as they are, `Struct` named fields of fixed size, `Ragged` pads records
of different lengths, `Image` decodes pictures, `Map` calls a function for each record. Anything else that follows the
`Codec` protocol works as well; `check_batch` is the check that it keeps its word.
"""

from arsrc.codecs.base import Codec as Codec
from arsrc.codecs.bytes_codec import Bytes as Bytes
from arsrc.codecs.element_tree import check_batch as check_batch
from arsrc.codecs.image_codec import Image as Image
from arsrc.codecs.map_codec import Map as Map
from arsrc.codecs.ragged_codec import Ragged as Ragged
from arsrc.codecs.struct_codec import Struct as Struct
from arsrc.record_batch import RecordBatch as RecordBatch

__all__ = ["Bytes", "Codec", "Image", "Map", "Ragged", "RecordBatch", "Struct", "check_batch"]
