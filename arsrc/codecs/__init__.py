"""How the bytes of records become arrays, a whole batch at a time: codecs.

`Bytes` gives records of one length as they are, `Struct` named fields of fixed size, `Ragged` pads records of different
lengths. `TFExample`, `MsgPack` and `Json` take named values out of messages, `Npy` and `Npz` read NumPy's own files,
`Image` decodes pictures. `Map` calls a function for each record, `MapBatch` one for many of them. Anything else that
follows the `Codec` protocol works as well; `check_batch` is the check that it keeps its word. None of them unpickles.
"""

from arsrc.codecs.base import Codec as Codec
from arsrc.codecs.bytes_codec import Bytes as Bytes
from arsrc.codecs.element_tree import check_batch as check_batch
from arsrc.codecs.example_codec import TFExample as TFExample
from arsrc.codecs.image_codec import Image as Image
from arsrc.codecs.json_codec import Json as Json
from arsrc.codecs.map_batch_codec import MapBatch as MapBatch
from arsrc.codecs.map_codec import Map as Map
from arsrc.codecs.msgpack_codec import MsgPack as MsgPack
from arsrc.codecs.npy_codec import Npy as Npy
from arsrc.codecs.npz_codec import Npz as Npz
from arsrc.codecs.ragged_codec import Ragged as Ragged
from arsrc.codecs.struct_codec import Struct as Struct
from arsrc.record_batch import RecordBatch as RecordBatch

__all__ = [
    "Bytes",
    "Codec",
    "Image",
    "Json",
    "Map",
    "MapBatch",
    "MsgPack",
    "Npy",
    "Npz",
    "Ragged",
    "RecordBatch",
    "Struct",
    "TFExample",
    "check_batch",
]


def __dir__() -> list[str]:
    return __all__
