"""Documents of tokens in ArrayRecord files, made here; each token says where it is from."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from _harness import WrongDelivery
from numpy.typing import NDArray

import arsrc

MAX_TOKENS = 2_000
ROW = 2_048
NAMES = ("tokens", "segment_ids", "positions")

_OFFSET_BITS = 11  # 2,000 offsets; the bits of 2**18 documents are left for their numbers
_VERSION = 1  # part of the files' names: raise it when what they hold changes
_READ_BYTES = 8 * 2**20
_SHUFFLED_ROWS = 256  # so many hold documents from all over

Rows = Mapping[str, NDArray[np.int32]]  # each i32[num_rows, ROW]


@dataclasses.dataclass(frozen=True)
class Documents:
    """Documents with lengths as those of texts: log-normal, from 10 to 2,000 tokens.

    Token `i` of document `d` is `d * 2048 + i`: so whatever a packing makes of them can be checked.

    Attributes:
        folder: Where folders of files are.
        num_documents: Documents in all files.
        num_files: Files; they hold contiguous parts.
    """

    folder: pathlib.Path
    num_documents: int
    num_files: int

    @functools.cached_property
    def lengths(self) -> NDArray[np.int64]:
        """i64[num_documents], tokens of each."""
        normal = np.random.default_rng(0).normal(5.5, 1, self.num_documents)
        return np.clip(np.exp(normal), 10, MAX_TOKENS).astype(np.int64)

    @functools.cached_property
    def ends(self) -> NDArray[np.int64]:
        """i64[num_documents], the place behind each where all stand end to end."""
        return np.cumsum(self.lengths)

    @property
    def num_tokens(self) -> int:
        """Tokens of all documents."""
        return int(self.ends[-1])

    def documents(self, tokens: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return which documents tokens are of, of the same shape."""
        return tokens >> _OFFSET_BITS

    @property
    def description(self) -> str:
        """For the tables."""
        return (
            f"{self.num_documents:,} documents of 10 to {MAX_TOKENS:,} tokens, {self.num_tokens:,} tokens, "
            f"{self.num_files} files, `group_size:1,uncompressed`."
        )

    @property
    def paths(self) -> tuple[str, ...]:
        """Paths of the files, whether they are written or not."""
        folder = self.folder / f"documents_v{_VERSION}_{self.num_documents}"
        names = (f"data-{file:05d}-of-{self.num_files:05d}.array_record" for file in range(self.num_files))
        return tuple(str(folder / name) for name in names)

    def tokens(self, first: int, stop: int) -> NDArray[np.int32]:
        """Return the tokens of documents end to end, i32[num_tokens]."""
        lengths = self.lengths[first:stop]
        begins = np.cumsum(lengths) - lengths
        documents = np.arange(first, stop) << _OFFSET_BITS
        return (np.repeat(documents - begins, lengths) + np.arange(lengths.sum())).astype(np.int32)

    def prepare(self) -> None:
        """Write the files that are not there, and read all through, so that they are in the page cache."""
        starts = [file * self.num_documents // self.num_files for file in range(self.num_files + 1)]
        for file, path in enumerate(map(pathlib.Path, self.paths)):
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                arsrc.write_array_record(path, self._records(starts[file], starts[file + 1]))
            with open(path, "rb", buffering=0) as opened:
                while opened.read(_READ_BYTES):
                    pass

    def _records(self, first: int, stop: int) -> Iterator[bytes]:
        for document in range(first, stop):
            yield self.tokens(document, document + 1).astype("<i4").tobytes()

    def check(self, batches: Iterable[Rows], *, whole: bool, once: bool = True, least: int = 0) -> float:
        """Return which part of some rows is tokens.

        Args:
            batches: Rows as they are delivered, in any order.
            whole: Whether no document may be cut; else rows may begin and end within one.
            once: Whether no token may be there twice.
            least: Tokens that must be there.

        Raises:
            WrongDelivery: They are not what documents of these files become.
        """
        seen = np.zeros(self.num_tokens, np.bool_)
        num_tokens = num_places = 0
        some = []
        for batch in batches:
            places = self._places({name: np.asarray(batch[name]) for name in NAMES}, whole)
            seen[places] = True
            num_tokens, num_places = num_tokens + len(places), num_places + batch["tokens"].size
            some.append(self.documents(np.asarray(batch["tokens"])[:, ROW // 2]))
        if np.ptp(np.concatenate(some)[:_SHUFFLED_ROWS]) < 0.8 * self.num_documents:
            raise WrongDelivery("rows in order, or from one place")
        if once and np.count_nonzero(seen) < num_tokens:
            raise WrongDelivery("tokens twice")
        if num_tokens < least:
            raise WrongDelivery("too few tokens")
        return num_tokens / num_places

    def _places(self, rows: Rows, whole: bool) -> NDArray[np.int64]:
        """Return where the tokens of rows stand among all, i64[num_tokens]."""
        if any(array.dtype != np.int32 or array.shape[1:] != (ROW,) for array in rows.values()):
            raise WrongDelivery("rows of another type or shape")
        tokens, segment_ids, positions = (rows[name] for name in NAMES)
        is_there = segment_ids > 0
        documents, offsets = self.documents(tokens), tokens & (1 << _OFFSET_BITS) - 1
        if tokens.min() < 0 or documents.max() >= self.num_documents or (offsets >= self.lengths[documents]).any():
            raise WrongDelivery("tokens that are not in the files")
        if (segment_ids[:, 0] != 1).any() or positions[:, 0].any():
            raise WrongDelivery("rows that do not begin with a piece")
        if any(array[~is_there].any() for array in rows.values()) or (is_there[:, 1:] > is_there[:, :-1]).any():
            raise WrongDelivery("padding that is no zeros, or not at the end")
        inside = np.diff(segment_ids) == 0  # of a piece, or of padding; bool[num_rows, ROW - 1]
        begins, goes_on = ~inside & is_there[:, 1:], inside & is_there[:, 1:]
        if (np.diff(segment_ids)[begins] != 1).any() or positions[:, 1:][begins].any():
            raise WrongDelivery("pieces that are not numbered")
        if (np.diff(tokens)[goes_on] != 1).any() or (np.diff(positions)[goes_on] != 1).any():
            raise WrongDelivery("pieces with holes")
        ends = ~inside & is_there[:, :-1]
        is_last = offsets == self.lengths[documents] - 1
        if offsets[:, 1:][begins].any() or not is_last[:, :-1][ends].all():
            raise WrongDelivery("documents cut within a row")
        if whole and (offsets[:, 0].any() or not is_last[:, -1][is_there[:, -1]].all()):
            raise WrongDelivery("documents cut between rows")
        begin = self.ends - self.lengths
        return (begin[documents] + offsets)[is_there]
