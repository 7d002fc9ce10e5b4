"""Tar archives of alert packets, FITS or other files, as surveys hand out whole nights.

Read from front to back and never unpacked to disk: one member is in memory at a time.
"""

from __future__ import annotations

import os
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Self, cast

from ..errors import MissingDependencyError, ReadError
from ..files.compressed import Growth, most_of_a_file
from ..files.paths import stem
from ..triplet import Triplet
from .layouts import Layout
from .sniff import Loaded, open_file, read_file, sniff

__all__ = ["read"]


class _Member(tarfile.TarInfo):
    """A header whose announced size is checked before anything is read because of it."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        member = super().frombuf(buf, encoding, errors)
        _check(member)
        return member


def _check(member: tarfile.TarInfo) -> None:
    if member.size > most_of_a_file():
        raise ReadError(
            f"{member.name!r} in it has {member.size} bytes, beyond the limit of {most_of_a_file()}: "
            "unpack the archive, or raise TRANSIENTNET_MEMORY"
        )


def read(path: str, layout: Layout) -> Iterator[Triplet]:
    """Candidates of the files in an archive, in its order.

    A member without stamps is a flagged row, so is an archive that breaks off.

    Raises
    ------
    ReadError
        The archive is damaged from the start, or has no members.
    """
    n = 0
    try:
        with open_file(path) as raw:
            growth = Growth(raw.seek(0, os.SEEK_END))
        with open_file(path) as raw, tarfile.open(fileobj=raw, mode="r|*", tarinfo=_Member) as archive:
            while (member := archive.next()) is not None:
                # It would keep every header to its end.
                cast(Any, archive).members.clear()
                growth.take(tarfile.BLOCKSIZE + member.size)
                if not member.isfile():
                    continue
                _check(member)
                file = archive.extractfile(member)
                inner = Loaded.of(f"{path}/{member.name}", file.read() if file else b"")
                n += 1
                for triplet in _read_member(inner, layout):
                    yield replace(triplet, meta={**triplet.meta, "source": str(path)})
    except (tarfile.TarError, OSError, EOFError, zlib.error, ReadError) as error:
        message = f"{path}: damaged after {n} files: {error}"
        if not n:
            raise ReadError(message) from error
        yield Triplet.unreadable(f"{stem(path)}_{n}", path, message)
    if not n:
        raise ReadError(f"{path}: an archive without files")


def _read_member(inner: Loaded, layout: Layout) -> Iterator[Triplet]:
    try:
        if sniff(inner) in ("tar", "table"):
            raise ReadError(
                f"{inner}: an archive or a table of file names within an archive: unpack it first"
            )
        yield from read_file(inner, layout)
    except (ReadError, MissingDependencyError) as error:
        yield Triplet.unreadable(stem(inner), inner, str(error))
