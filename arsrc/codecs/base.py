"""What every codec is: whole batches of record bytes in, arrays out."""

from typing import Any, Protocol, runtime_checkable

from arsrc.record_batch import RecordBatch

PyTree = Any


@runtime_checkable
class Codec(Protocol):
    """Turns record bytes into arrays, a whole batch at a time.

    Codecs are frozen, hashable dataclasses: they are part of the config and thereby of what `jit` keys its
    cache on. `decode` runs on host threads inside a callback: NumPy only, no JAX arrays, and it must not
    depend on anything but its arguments. Arrays that it gives and still holds, perhaps to write into them again, are
    copied; it then decodes on one thread at a time. Whatever it raises is an error of its records. Decoded elements
    that are kept in files are found again by the codec's code, what that reaches and what the codec holds, or, where
    it has a method `cache_key()`, by its class's name and what this gives.
    """

    def resolve(self, first_record: bytes) -> "Codec":
        """Return the codec with everything filled in that it takes from the data (called once, at open).

        Args:
            first_record: Bytes of the first record of the data set.
        """
        ...

    def element_spec(self) -> PyTree:
        """PyTree of `jax.ShapeDtypeStruct` of one element, without batch axis (resolved codecs only)."""
        ...

    def decode(self, records: RecordBatch) -> PyTree:
        """Decode a batch: the tree of `element_spec`, with leaves of shape `[len(records), ...]`.

        The arrays of `records` are read-only.

        Raises:
            RecordError: A record does not fit the codec.
        """
        ...

    def encode(self, elements: PyTree) -> RecordBatch:
        """Encode a batch of elements (leaves of shape `[num_records, ...]`): the inverse of `decode`.

        Raises:
            ArsrcTypeError: The codec has no inverse.
            ArsrcValueError: The elements do not fit the codec.
        """
        ...
