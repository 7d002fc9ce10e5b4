"""Counts in FITS headers that would keep a reader busy for ever."""

from __future__ import annotations

import contextlib
import mmap
import re
from typing import Any

from ..errors import ReadError

__all__ = ["check_counts"]

_COUNT = re.compile(rb"(NAXIS[0-9 ]{3}|ZNAXIS[0-9 ]{2}|TFIELDS |[PG]COUNT  )= *([+-]?[0-9]{1,30})")
_NUMBERED = ("NAXIS", "ZNAXIS", "TFIELDS")


def check_counts(data: bytes | str) -> None:
    """Refuse counts that keep astropy busy for ever.

    It asks for each axis and column by name, so there are 999 at most, as the FITS standard says; and a
    negative size leads it back to where it came from.
    """
    with contextlib.ExitStack() as files:
        if isinstance(data, str):
            file = files.enter_context(open(data, "rb"))
            view: Any = files.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        else:
            view = data
        for card in _COUNT.finditer(view):
            name, count = card[1].decode().strip(), int(card[2])
            if card.start() % 80 == 0 and (count < 0 or (count > 999 and name in _NUMBERED)):
                raise ReadError(f"damaged FITS: {name} is {count}")
