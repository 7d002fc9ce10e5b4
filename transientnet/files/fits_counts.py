"""Counts in FITS headers that would keep a reader busy for ever."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ..errors import ReadError

__all__ = ["check_counts", "check_rows"]

_COUNT = re.compile(rb"(NAXIS[0-9 ]{3}|ZNAXIS[0-9 ]{2}|TFIELDS |[PG]COUNT  )= *([+-]?[0-9]{1,30})")
#: Bytes; a multiple of the cards' and blocks' lengths.
_PIECE = 2880 * 1024
_NUMBERED = ("NAXIS", "ZNAXIS", "TFIELDS")


def check_counts(data: bytes | str) -> None:
    """Refuse counts that keep astropy busy for ever.

    It asks for each axis and column by name, so there are 999 at most, as the FITS standard says; and a
    negative size leads it back to where it came from.
    """
    for piece in (data,) if isinstance(data, bytes) else _pieces(data):
        for card in _COUNT.finditer(piece):
            name, count = card[1].decode().strip(), int(card[2])
            if card.start() % 80 == 0 and (count < 0 or (count > 999 and name in _NUMBERED)):
                raise ReadError(f"damaged FITS: {name} is {count}")


def check_rows(header: Any, size: int) -> None:
    """Refuse a table with rows that a file of `size` bytes cannot hold, rows of no bytes among them."""
    width, rows = int(header["NAXIS1"]), int(header["NAXIS2"])
    if rows and (width < 1 or rows * width > size):
        raise ReadError(f"damaged FITS: {rows} rows of {width} bytes in a file of {size}")


def _pieces(path: str) -> Iterator[bytes]:
    """The file in pieces that cut no card; read, not mapped: a file that is cut short meanwhile only ends."""
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            yield piece
