"""A codec put to work: batches of records in, checked arrays out."""

from typing import Any

from numpy.typing import NDArray

from arsrc.codecs.base import Codec
from arsrc.codecs.element_tree import ElementTree
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

    def decode(self, records: RecordBatch) -> list[NDArray[Any]]:
        """Return one array `[len(records), ...]` per leaf, in tree order.

        Raises:
            RecordError: A record does not fit the codec.
            ArsrcValueError: The codec gave another structure, shape or dtype than its `element_spec` says.
            ArsrcTypeError: The codec gave a JAX array.
        """
        return self._tree.leaves_of(self.codec.decode(records), len(records), "decode")
