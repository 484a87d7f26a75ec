"""WebDataset archives: samples whose files stand side by side in a tar archive, under one name."""

import re
import tarfile
from collections.abc import Iterator
from typing import Self

from arsrc.cli.inputs.damage import damage
from arsrc.cli.inputs.packages import packed_map
from arsrc.cli.inputs.window import Window

KEY = "__key__"
_NAME = re.compile(r"(?P<key>(?:.*/)?[^/.]+)\.(?P<kind>[^/]+)", re.DOTALL)
_FIX = "A sample is the files of one name that stand side by side: sample.jpg, sample.cls."
_SORT = "Write the archive with its files sorted by name: tar --sort=name -cf new.tar folder."


def read(path: str) -> Iterator[list[bytes]]:
    """Yield the samples of an archive, which may be compressed by gzip, as MessagePack maps, each by itself.

    Of `train/17.jpg` and `train/17.cls` side by side: `{"__key__": "train/17", "jpg": bytes, "cls": bytes}`. What is no
    file, and files whose names have no dot or begin with one, are passed over.

    Samples may come in any order, as shuffled ones do. So that one whose files do not stand side by side is an error,
    and not two samples, a number is kept for each that was seen: some 100 bytes a sample, until the archive ends.

    Raises:
        ArsrcReadError: The archive is damaged or not complete, has a file with holes, or one sample has two files of
            one kind, or files that do not stand side by side.
        ArsrcValueError: What writes MessagePack is not installed.
    """
    encode = packed_map()
    sample: dict[str, str | bytes] = {}
    position = 0
    done = set[int]()  # hashes of the keys of samples, which are shorter than these
    for name, content in _files(path):
        match = _NAME.fullmatch(name)
        if match is None:
            continue
        key, kind = match["key"], match["kind"].lower()
        if sample and sample[KEY] != key:
            yield [encode(sample)]
            done.add(hash(sample[KEY]))
            position += 1
            sample = {}
        if hash(key) in done:
            what = f"the files of the sample {key!r} do not stand side by side"
            raise damage(path, what, _SORT, position=position, file=name)
        if kind in sample:
            what = f"a sample has two files of the kind {kind!r}"
            raise damage(path, what, _FIX, position=position, file=name)
        sample = sample or {KEY: key}
        sample[kind] = content
    if sample:
        yield [encode(sample)]


def _files(path: str) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each file of an archive."""
    window = Window(path)
    try:
        # As a stream, in blocks of the archive's own.
        with tarfile.open(fileobj=window, mode="r|", bufsize=tarfile.RECORDSIZE, tarinfo=_Header) as archive:  # type: ignore[call-overload]
            while (member := archive.next()) is not None:
                archive.members.clear()  # it keeps what it has seen
                name = member.name
                if member.issparse():  # its holes would be made of a header alone
                    what = "a tar archive has a file with holes, which is not read"
                    raise damage(path, what, "Write it anew, without --sparse.", file=name)
                if member.isreg() and (opened := archive.extractfile(member)) is not None:
                    end = member.offset_data + member.size
                    if window.num_bytes is not None and end > window.num_bytes:
                        what = "a tar archive is damaged, or not complete (a file in it is larger than what is left)"
                        raise damage(path, what, file=name, size=member.size)
                    content = opened.read()  # block by block, whatever the header says
                    if len(content) != member.size:
                        raise tarfile.ReadError("unexpected end of data")
                    yield name, content
    except (tarfile.TarError, _HeaderError) as error:
        what = f"a tar archive is damaged, or not complete ({error})"
        raise damage(path, what, before_byte=window.byte) from error


class _HeaderError(Exception):
    """A header is damaged, or missing: what `tarfile` takes for the end of an archive."""


def _no_header(error: tarfile.HeaderError) -> _HeaderError:
    return _HeaderError(str(error))


class _Header(tarfile.TarInfo):
    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        """Return the next header; only zeros are the end."""
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":
                raise
            raise _no_header(error) from error
