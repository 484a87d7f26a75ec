"""A codec put to work: batches of records in, checked arrays out."""

import contextlib
from typing import Any

from numpy.typing import NDArray

from arsrc._host.machine.stopping import Stopped, is_for_process
from arsrc._host.records.own_memory import OwnMemory
from arsrc.codecs.base import Codec
from arsrc.codecs.bytes_codec import Bytes
from arsrc.codecs.element_tree import ElementTree
from arsrc.codecs.image_codec import Image
from arsrc.codecs.map_codec import Map
from arsrc.codecs.ragged_codec import Ragged
from arsrc.codecs.struct_codec import Struct
from arsrc.errors import said
from arsrc.record_batch import RecordBatch


class ElementDecoder:
    """What the host decodes with; the tree of the elements is taken apart here, so that decoding asks nothing of JAX.

    Attributes:
        codec: The codec, resolved.
        shapes: Shape and dtype of each leaf of an element, in tree order.
    """

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self._tree = ElementTree(codec.element_spec())
        self.shapes = self._tree.shapes
        self._own_memory = OwnMemory()

    def try_out(self, first_record: bytes) -> None:
        """Find out from one record whether a codec of the user's own uses again what it gives."""
        if not isinstance(self.codec, (Bytes, Image, Map, Ragged, Struct)):
            with contextlib.suppress(Exception):  # which is told to who asks for the record
                self.decode(RecordBatch.from_records([first_record]))

    def decode(self, records: RecordBatch) -> list[NDArray[Any]]:
        """Return one array `[len(records), ...]` per leaf, in tree order.

        Raises:
            RecordError: A record does not fit the codec.
            ArsrcValueError: The codec gave another structure, shape or dtype than its `element_spec` says.
            ArsrcTypeError: The codec gave a JAX array.
            Exception: What else the codec raised.
        """
        return self._own_memory.of(lambda: self._leaves(records), records.data)

    def _leaves(self, records: RecordBatch) -> list[NDArray[Any]]:
        try:
            return self._tree.leaves_of(self.codec.decode(records), len(records), "decode")
        except Stopped:
            raise
        except BaseException as error:
            is_ordinary = isinstance(error, Exception) and not isinstance(error, MemoryError)
            if is_ordinary or is_for_process(error):
                raise
            raise _ordinary(error) from error  # a codec ends no thread, as by sys.exit


def _ordinary(error: BaseException) -> Exception:
    """Return an exception of the same name and text that is one of the codec's, like any other."""
    like = type(type(error).__name__, (Exception,), {})
    found: Exception = like(said(error).partition(": ")[2]).with_traceback(error.__traceback__)
    return found
