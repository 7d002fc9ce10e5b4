"""Unpacking within bounds: what unpacks to more than it may is an error, not memory."""

from __future__ import annotations

import importlib
import zlib
from functools import lru_cache
from typing import Any

from ..errors import ReadError
from ..settings import memory_limit

__all__ = ["GZIP", "Growth", "gunzip", "inflate_engine", "most_of_a_file", "most_of_a_stamp"]

GZIP = b"\x1f\x8b"
"""What every gzip member begins with."""


def most_of_a_file() -> int:
    """Bytes that a packed file, or a part of one that is read at once, may unpack to; copies follow."""
    return memory_limit() // 4


def most_of_a_stamp() -> int:
    """Bytes that one cutout may hold, unpacked: three of them are prepared together, with copies."""
    return memory_limit() // 16


_MAX_GROWTH = 200
"""Times its size that a packed file may unpack to, where that is beyond the bound of a file."""


class Growth:
    """What a packed file may still unpack to, in all: stamps pack far less than is allowed here.

    A few bytes may stand for any number of rows otherwise, each of which is within every other bound.

    Parameters
    ----------
    packed : int
        Size of the file in bytes.
    least : int, optional
        Bytes that a file of any size may unpack to; by default the bound of a file.
    """

    def __init__(self, packed: int, least: int | None = None) -> None:
        self._most = self._left = max(most_of_a_file() if least is None else least, _MAX_GROWTH * packed)

    def check(self, size: int, label: str = "the file") -> None:
        """Raise `ReadError` where `size` bytes more are too many."""
        if size > self._left:
            raise ReadError(
                f"{label} unpacks to more than the {self._most / 2**20:,.0f} MiB that its size allows: "
                "refused; if it is sound, write it anew without compression, or raise TRANSIENTNET_MEMORY"
            )

    def take(self, size: int, label: str = "the file") -> None:
        """Count `size` bytes, or raise `ReadError` where they are too many."""
        self.check(size, label)
        self._left -= size


def gunzip(data: bytes, limit: int) -> bytes:
    """Decompress gzip members, at most `limit` bytes of them.

    Raises
    ------
    ReadError
        The stream is damaged or truncated, or holds more than `limit` bytes.
    """
    engine = inflate_engine()
    parts: list[bytes] = []
    left = limit
    while data[:2] == GZIP:
        stream = engine.decompressobj(wbits=31)
        try:
            part = stream.decompress(data, left + 1)
        except engine.error as error:
            raise ReadError(f"damaged gzip: {error}") from error
        left -= len(part)
        if left < 0:
            raise ReadError(
                f"decompresses to more than the limit of {limit} bytes; if it is sound, unpack it, or raise "
                "TRANSIENTNET_MEMORY"
            )
        if not stream.eof:
            raise ReadError("truncated gzip")
        parts.append(part)
        data = stream.unused_data
    return parts[0] if len(parts) == 1 else b"".join(parts)


@lru_cache(maxsize=1)
def inflate_engine() -> Any:
    """isal's zlib where it is installed: twice as fast, ten times in checksums."""
    try:
        return importlib.import_module("isal.isal_zlib")
    except ImportError:
        return zlib
