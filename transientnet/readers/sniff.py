"""What a file is, by its content: endings lie."""

from __future__ import annotations

import gzip
import io
import os
import re
import stat
import zlib
from pathlib import Path
from typing import IO

from ..errors import ReadError
from ..files.tables import split_names

__all__ = ["FORMATS", "Loaded", "NotAFileError", "open_file", "sniff", "sniff_bytes"]

FORMATS = ("fits", "avro", "avro-framed", "parquet", "npy", "npz", "hdf5", "json", "tar")
"""Formats that hold stamps, as `sniff` names them; a ``table`` (CSV, VOTable) may name files of them."""

_MAGIC = (
    (b"SIMPLE  =", "fits"),
    (b"Obj\x01", "avro"),
    (b"PAR1", "parquet"),
    (b"\x93NUMPY", "npy"),
    (b"PK\x03\x04", "npz"),
    (b"\x89HDF\r\n\x1a\n", "hdf5"),
)
_HEAD = 4096
#: The beginning of a JSON object, or of a list of them.
_RECORD = re.compile(rb'(?:\xef\xbb\xbf)?\s*(?:\[\s*)?\{\s*["}]')
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
    """A path leads to something that is no regular file."""


class Loaded(str):
    """A path together with the bytes of its file, which need not be read again."""

    data: bytes

    @classmethod
    def of(cls, path: str, data: bytes) -> Loaded:
        loaded = cls(path)
        loaded.data = data
        return loaded


def open_file(path: str | Path, buffering: int = -1) -> IO[bytes]:
    """The file at `path`, or its bytes where they are known.

    Raises
    ------
    NotAFileError
        It is a folder, or a pipe, socket or device: opening these may block for ever.
    """
    if isinstance(path, Loaded):
        return io.BytesIO(path.data)
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        if stat.S_ISDIR(mode):
            # What cannot be listed says why.
            os.scandir(path).close()
        kind = next((name for test, name in _OTHER_NODES if test(mode)), "not a file")
        raise NotAFileError(f"{path}: {kind}, which is not read; stamps are read from regular files")
    return open(path, "rb", buffering)


def sniff_bytes(head: bytes) -> str | None:
    """Format of a file by its first bytes: one of `FORMATS`, a ``table``, or None.

    A bare record behind a schema registry's frame (one zero byte, four bytes of schema number) has no
    magic of its own: it is taken for one when its first kilobytes are binary.
    """
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[257:262] == b"ustar":
        return "tar"
    if len(head) > 64 and head[0] == 0 and any(head[1:5]):
        return "avro-framed"
    if _RECORD.match(head):
        return "json"
    return "table" if _is_table(head) else None


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
