"""What a file is, by its content: endings lie."""

from __future__ import annotations

import gzip
import importlib
import io
import os
import re
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from ..errors import ReadError
from ..files.compressed import GZIP
from ..files.tables import split_names
from ..triplet import Triplet
from .layouts import Layout

__all__ = [
    "FORMATS",
    "Loaded",
    "NotAFileError",
    "open_file",
    "read_file",
    "refuse_other_nodes",
    "size_of",
    "sniff",
    "sniff_bytes",
    "unzipped",
]


class Format(NamedTuple):
    """A format of files: how its first bytes look (a regular expression), and the module that reads it.

    The module has ``read(path, layout) -> Iterator[Triplet]``. It yields in the order of the file and holds
    one candidate, or one block of them, at a time; a candidate that cannot be decoded is
    `Triplet.unreadable`, and a file that cannot be read as a whole raises `ReadError`.
    """

    name: str
    module: str
    signature: bytes


_FORMATS = (
    Format("fits", "fits", rb"SIMPLE  ="),
    Format("avro", "avro", rb"Obj\x01"),
    Format("parquet", "parquet", rb"PAR1"),
    Format("npy", "arrays", rb"\x93NUMPY"),
    Format("npz", "arrays", rb"PK\x03\x04"),
    Format("hdf5", "hdf5", rb"\x89HDF\r\n\x1a\n"),
    Format("tar", "archive", rb".{257}ustar"),
    # A bare record behind a schema registry's frame (a zero byte, four bytes of schema number) has no
    # signature of its own.
    Format("avro-framed", "avro", rb"\0(?!\0{4}).{64}"),
    # An object, or a list of them.
    Format("json", "json", rb'(?:\xef\xbb\xbf)?\s*(?:\[\s*)?\{\s*["}]'),
)
FORMATS = tuple(form.name for form in _FORMATS)
"""Formats that hold stamps, as `sniff` names them; a ``table`` (CSV, VOTable) may name files of them."""
_MODULES = {**{form.name: form.module for form in _FORMATS}, "table": "files"}
_SIGNATURES = [(re.compile(form.signature, re.DOTALL).match, form.name) for form in _FORMATS]
_HEAD = 4096
#: What a line of text does not have.
_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]")
#: The name of a column; the first may have none, as pandas writes its index.
_COLUMN = re.compile(r"[^{}<>\0]{1,60}")
_VOTABLE = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:\?xml|VOTABLE)")


_OTHER_NODES = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class NotAFileError(ReadError):
    """A path leads to something that is not a regular file."""


class Loaded(str):
    """A path together with the bytes of its file, which need not be read again."""

    data: bytes

    @classmethod
    def of(cls, path: str, data: bytes) -> Loaded:
        """The path with the bytes of its file."""
        loaded = cls(path)
        loaded.data = data
        return loaded


def open_file(path: str | Path, buffering: int = -1) -> IO[bytes]:
    """The file at `path`, or its bytes where they are known; `sniff` has looked whether it can be opened."""
    return io.BytesIO(path.data) if isinstance(path, Loaded) else open(path, "rb", buffering)


def size_of(path: str | Path) -> int:
    """Bytes of the file as it is stored."""
    return len(path.data) if isinstance(path, Loaded) else os.path.getsize(path)


def unzipped(path: str | Path) -> IO[bytes]:
    """As `open_file`, unpacked where the file is gzipped."""
    file = open_file(path)
    zipped = file.read(2) == GZIP
    file.seek(0)
    if not zipped:
        return file
    if isinstance(path, Loaded):
        return gzip.GzipFile(fileobj=file)  # type: ignore[return-value]
    file.close()
    return gzip.open(path)  # type: ignore[return-value]


def refuse_other_nodes(path: str | Path) -> None:
    """Refuse folders, and pipes, sockets and devices, which may block for ever when they are opened."""
    mode = os.stat(path).st_mode
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        # A folder that cannot be listed says why.
        os.scandir(path).close()
    kind = next((name for test, name in _OTHER_NODES if test(mode)), "not a file")
    raise NotAFileError(f"{path}: {kind}; stamps are read from regular files only")


def sniff_bytes(head: bytes) -> str | None:
    """Format of a file by its first bytes: one of `FORMATS`, a ``table``, or None."""
    for matches, name in _SIGNATURES:
        if matches(head):
            return name
    return "table" if _is_table(head) else None


def read_file(path: str, layout: Layout) -> Iterator[Triplet]:
    """Candidates of one file in any format.

    Raises
    ------
    ReadError
        The file cannot be opened or read as a whole, or is in none of the formats.
    """
    name = sniff(path)
    if name is None:
        raise ReadError(
            f"{path}: empty, or not in a supported format ({', '.join(FORMATS)}, or a table (CSV, ECSV, "
            "VOTable) with column names); it is the content that counts, not the ending"
        )
    # Imported when first met.
    yield from importlib.import_module(f"{__package__}.{_MODULES[name]}").read(path, layout)


def _is_table(head: bytes) -> bool:
    """Whether these are the first lines of a table with names of columns: ECSV, VOTable, CSV."""
    if head.startswith(b"# %ECSV ") or (_VOTABLE.match(head) and b"<VOTABLE" in head):
        return True
    lines = head.removeprefix(b"\xef\xbb\xbf").splitlines()
    line = next((line for line in lines if not line.startswith(b"#")), b"")
    if _BINARY.search(line):
        return False
    first, *others = split_names(line.decode("utf-8", "replace"))[0]
    return bool(others) and all(_COLUMN.fullmatch(name) for name in (first or "index", *others))


def sniff(path: str | Path) -> str | None:
    """Format of the file at `path`, looked up inside gzip too.

    Raises
    ------
    ReadError
        The file cannot be opened.
    """
    try:
        if not isinstance(path, Loaded):
            refuse_other_nodes(path)
        # Most files of a night are looked at once to find them: no more is read than is needed.
        with open_file(path, _HEAD) as file:
            head = _head(file)
    except ReadError:
        raise
    except OSError as error:
        raise ReadError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ReadError(f"{path!r} is not a file name: {error}") from error
    return sniff_bytes(head)


def _head(file: IO[bytes]) -> bytes:
    head = file.read(_HEAD)
    if not head.startswith(b"\x1f\x8b"):
        return head
    file.seek(0)
    try:
        with gzip.GzipFile(fileobj=file) as inner:
            return inner.read(_HEAD)
    except (OSError, EOFError, zlib.error):
        return b""
