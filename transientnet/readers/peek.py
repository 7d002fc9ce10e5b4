"""Whether a file is a candidate (or many) of its own, or one stamp: by its headers alone."""

from __future__ import annotations

import gzip
import math
import re
import sys
import zlib
from collections.abc import Iterator, Mapping
from typing import IO, Any

from ..errors import ReadError
from ..files.compressed import most_of_a_file
from .hdus import Hdu
from .layouts import match_channels
from .plain import header_of
from .sniff import sniff, unzipped

__all__ = ["is_candidate"]

_BLOCK = 2880
_MAX_HEADER = 100 * _BLOCK
#: A block of a FITS header, up to its end.
_LAST_CARD = re.compile(rb"(?:.{80}){0,35}?END {77}", re.DOTALL)


def is_candidate(path: str) -> bool:
    """Whether a file is a candidate (or many) of its own, not a single stamp: by its headers."""
    try:
        kind = sniff(path)
        if kind != "fits":
            return kind not in ("npy", None)
        with unzipped(path) as file:
            return _has_channels(file, most_of_a_file() if isinstance(file, gzip.GzipFile) else sys.maxsize)
    except (ReadError, OSError, EOFError, zlib.error):
        # Whoever reads it says what is wrong.
        return False


def _has_channels(file: IO[bytes] | gzip.GzipFile, limit: int) -> bool:
    """Whether a FITS file holds a cube, or extensions or columns of two channels."""
    names: list[str] = []
    for header in _headers(file, limit):
        packed = "Z" if header.get("ZIMAGE") is True else ""
        if not packed and header.get("XTENSION") == "BINTABLE":
            names += [str(value) for key, value in header.items() if key.startswith("TTYPE")]
        elif Hdu(0, name := str(header.get("EXTNAME", "")).strip(), 1, header, {}).kind == "image":
            sides = [_count(header, f"{packed}NAXIS{i + 1}") for i in range(_axes(header, packed))]
            if sum(side > 1 for side in sides) > 2:
                return True
            if sides:
                names.append(name)
    return len(match_channels(names)) > 1


def _headers(file: IO[bytes] | gzip.GzipFile, limit: int) -> Iterator[Mapping[str, Any]]:
    """The headers of a FITS file, its pixels passed over; they end where it is damaged or beyond `limit`."""
    at = 0
    while at < limit:
        file.seek(at)
        header = b""
        while _LAST_CARD.match(header, max(len(header) - _BLOCK, 0)) is None:
            block = file.read(_BLOCK)
            if len(block) < _BLOCK or len(header) > _MAX_HEADER:
                return
            header += block
        at += len(header)
        values, _ = header_of(header)
        yield values
        sides = [_count(values, f"NAXIS{i + 1}") for i in range(_axes(values))]
        pixels = math.prod(sides) + _count(values, "PCOUNT") if sides else 0
        bits = values.get("BITPIX")
        size = abs(bits) // 8 * pixels if isinstance(bits, int) else 0
        at += -(-size // _BLOCK) * _BLOCK


def _axes(header: Mapping[str, Any], packed: str = "") -> int:
    # The standard allows 999; a damaged header may claim any number.
    return min(_count(header, f"{packed}NAXIS"), 999)


def _count(header: Mapping[str, Any], key: str) -> int:
    value = header.get(key)
    return value if isinstance(value, int) and value > 0 else 0
