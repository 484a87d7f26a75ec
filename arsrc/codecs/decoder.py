"""A codec put to work: batches of records in, checked arrays out."""

import contextlib
import copy
import functools
import pickle
from collections.abc import Callable
from typing import Any, Self

import jax
from numpy.typing import NDArray

from arsrc._host.machine.stopping import Stopped, is_for_process
from arsrc._host.processes.pool import Processes, setup_of
from arsrc._host.processes.worker import Setup
from arsrc._host.records.own_memory import OwnMemory
from arsrc._host.records.stoppable import Stoppable
from arsrc.codecs.base import Codec, PyTree
from arsrc.codecs.bytes_codec import Bytes
from arsrc.codecs.element_tree import ElementTree, plain_template
from arsrc.codecs.image_codec import Image
from arsrc.codecs.map_codec import Map
from arsrc.codecs.packed import TokenLeaves, token_leaves
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
        self._num_processes = 0
        self._processes = Processes(functools.partial(_setup, codec, self._tree)) if isinstance(codec, Map) else None
        self.use(codec)

    def tokens(self) -> TokenLeaves:
        """Return where the tokens of documents stand.

        Raises:
            ArsrcValueError: There is no one array of them.
        """
        return token_leaves(self.codec, self._tree)

    def use(self, codec: Codec) -> None:
        """Decode by as many processes as a codec wants that is equal to this one but for that.

        Raises:
            ArsrcTypeError: Its function cannot be pickled.
            ArsrcValueError: This process is a worker, which runs the script of its parent.
        """
        number = codec.num_processes if isinstance(codec, Map) else 0
        if number and self._processes is not None:
            self._processes.setup()  # an error at once
        self._num_processes = number

    def like(self, codec: Codec) -> Self:
        """Return a decoder that uses a codec in the sense of `use`, and shares all else; raises what that does."""
        found = copy.copy(self)
        found.use(codec)
        return found

    def rest(self) -> None:
        """End the processes that decode; they start again when they are needed."""
        if self._processes is not None:
            self._processes.rest()

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
        number, processes = self._num_processes, self._processes
        if number and processes is not None and len(records):
            stop = records.stop if isinstance(records, Stoppable) else None
            if (leaves := processes.decode(records, number, stop)) is not None:
                return leaves
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


def decoder_of(codec: Codec, first_record: bytes) -> ElementDecoder:
    """Return what decodes by a codec, resolved by a record; the function of one with processes runs in these alone.

    Raises:
        RecordError: The record does not fit the codec.
        ArsrcTypeError: The function of a codec with processes cannot be pickled.
        ArsrcValueError: No process can start.
    """
    if not isinstance(codec, Map) or not codec.num_processes:
        decoder = ElementDecoder(codec.resolve(first_record))
        decoder.try_out(first_record)
        return decoder
    if codec.spec is None:
        return ElementDecoder(_with_spec(codec, first_record))
    decoder = ElementDecoder(codec)
    try:
        decoder.decode(RecordBatch.from_records([first_record]))
    except BaseException:
        decoder.rest()  # at once: the error's traceback keeps it
        raise
    return decoder


def _with_spec(codec: Map, first_record: bytes) -> Map:
    """Return a codec with the spec of what its function gives for a record, in a process of its own."""
    processes = Processes(functools.partial(setup_of, codec.fn, None, _arrays_of, ()))
    try:
        found = processes.decode(RecordBatch.from_records([first_record]), 1, None)
    finally:
        processes.rest()
    if found is None:
        return codec.resolve(first_record)
    return codec._with_spec_of(lambda _: pickle.loads(found[0].tobytes()), first_record, ())


def _arrays_of(function: Callable[[bytes], PyTree]) -> Callable[[bytes], PyTree]:
    """Return what decodes single records to arrays, whatever their spec is, in a worker process."""

    def decode(record: bytes) -> PyTree:
        batch = Map(function).resolve(record).decode(RecordBatch.from_records([record]))
        return jax.tree.map(lambda leaf: leaf[0], batch)

    return decode


def _setup(codec: Map, tree: ElementTree) -> Setup:
    """Return what worker processes decode with."""
    careful = functools.partial(_one_by_one, codec.spec)
    return setup_of(codec.fn, plain_template(tree.treedef), careful, tree.shapes)


def _one_by_one(spec: PyTree, function: Callable[[bytes], PyTree]) -> Callable[[bytes], list[NDArray[Any]]]:
    """Return what decodes single records, in a worker process."""
    decoder = ElementDecoder(Map(function, spec))
    return lambda record: [leaf[0] for leaf in decoder.decode(RecordBatch.from_records([record]))]


def _ordinary(error: BaseException) -> Exception:
    """Return an exception of the same name and text that is one of the codec's, like any other."""
    like = type(type(error).__name__, (Exception,), {})
    found: Exception = like(said(error).partition(": ")[2]).with_traceback(error.__traceback__)
    return found
