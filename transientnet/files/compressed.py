"""Gzip within bounds: what unpacks to more than it may is an error, not memory."""

from __future__ import annotations

import importlib
import zlib
from functools import lru_cache
from typing import Any

from ..errors import ReadError

__all__ = ["GZIP", "gunzip", "inflate_engine"]

GZIP = b"\x1f\x8b"
"""What every gzip member begins with."""


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
            raise ReadError(f"decompresses to more than the limit of {limit} bytes")
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
