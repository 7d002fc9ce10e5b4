"""FITS without astropy: a scan of a plain header and a view of the buffer, bit for bit what astropy gives.

Nearly every survey sends gzipped FITS with one plain image. Whatever looks unusual (scaling, blanks,
extensions, compression, a short buffer) is left to `hdus`; `benchmarks/decode_speed.py` measures both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from .image import Facts, Image, card_value, facts

__all__ = [
    "header_of",
    "plain_file",
    "plain_hdu",
    "plain_image",
]

_BLOCK = 2880
_CARD = 80
_END = b"END" + b" " * 77
_MAX_CARDS = 36 * 100
_DTYPES = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
_MAX_AXES = 4
#: Keywords that change what the pixels mean: astropy's work.
_UNUSUAL = (b"BLANK   ", b"GROUPS  ")
#: Keywords that do so unless they have these values.
_NEUTRAL = {b"BSCALE  ": 1, b"BZERO   ": 0, b"PCOUNT  ": 0, b"GCOUNT  ": 1}


def plain_image(data: bytes) -> Image | None:
    """The image of a FITS file that is one plain 2-D primary array; None if it is anything else."""
    found = _lone(data)
    return None if found is None else Image(found[0], *_facts(found[1]))


def plain_file(data: bytes) -> tuple[Image, Mapping[str, Any]] | None:
    """As `plain_image`, with all header values."""
    found = _lone(data)
    return None if found is None else (Image(found[0], *_facts(found[1])), header_of(found[1])[0])


def _lone(data: bytes) -> tuple[npt.NDArray[Any], bytes] | None:
    found = plain_hdu(data, 0)
    if found is None or found[0] is None or found[0].ndim != 2 or found[2] < len(data):
        return None
    return found[0], found[1]


def plain_hdu(data: bytes, at: int) -> tuple[npt.NDArray[Any] | None, bytes, int] | None:
    """The HDU that begins at `at`, if it holds one plain array or nothing: pixels, header, end."""
    end = data.find(_END, at, at + _MAX_CARDS * _CARD)
    if end < 0 or (end - at) % _CARD:
        return None
    header = data[at:end]
    found = _structure(header)
    if found is None:
        return None
    dtype, shape = found
    start = at + -(-(end + _CARD - at) // _BLOCK) * _BLOCK
    if not shape:
        return None, header, start
    count = math.prod(shape)
    size = count * dtype.itemsize
    if start + size > len(data):
        return None
    pixels = np.frombuffer(data, dtype=dtype, count=count, offset=start).reshape(shape)
    return pixels, header, start + -(-size // _BLOCK) * _BLOCK


# Stamps of a survey have one header, or a few.
@lru_cache(maxsize=128)
def _structure(header: bytes) -> tuple[np.dtype[Any], tuple[int, ...]] | None:
    """Type and shape of a plain array, the shape empty if there are no pixels; None if it is not plain."""
    cards: dict[bytes, bytes] = {}
    for at in range(0, len(header), _CARD):
        card = header[at : at + _CARD]
        if card[8:10] == b"= ":
            if cards.setdefault(card[:8], card[10:]) != card[10:]:
                return None
        elif card[:8] in (b"CONTINUE", b"HIERARCH"):
            return None
    if any(key in cards for key in _UNUSUAL):
        return None
    if any(key in cards and card_value(cards[key])[0] != value for key, value in _NEUTRAL.items()):
        return None
    if header[:9] == b"SIMPLE  =":
        plain = card_value(cards.get(b"SIMPLE  ", b""))[0] is True
    else:
        plain = header[:9] == b"XTENSION=" and card_value(cards.get(b"XTENSION", b""))[0] == "IMAGE"
    bits, naxis = (card_value(cards.get(key, b""))[0] for key in (b"BITPIX  ", b"NAXIS   "))
    if not plain or bits not in _DTYPES or type(naxis) is not int or not 0 <= naxis <= _MAX_AXES:
        return None
    axes = [card_value(cards.get(b"NAXIS%d  " % (i + 1), b""))[0] for i in range(naxis)]
    if b"NAXIS%d  " % (naxis + 1) in cards or not all(type(axis) is int and axis >= 1 for axis in axes):
        return None
    return np.dtype(_DTYPES[bits]), tuple(reversed(axes))


@lru_cache(maxsize=128)
def _facts(header: bytes) -> Facts:
    values, comments = header_of(header)
    return facts(values, lambda key: comments.get(key, ""))


@lru_cache(maxsize=128)
def header_of(header: bytes) -> tuple[Mapping[str, Any], Mapping[str, str]]:
    """Values and comments of a header's cards."""
    values: dict[str, Any] = {}
    comments: dict[str, str] = {}
    for at in range(0, len(header), _CARD):
        card = header[at : at + _CARD]
        if card[8:10] == b"= ":
            value, comment = card_value(card[10:])
            if value is not None:
                key = card[:8].decode("ascii", "replace").rstrip()
                values[key], comments[key] = value, comment
    return MappingProxyType(values), MappingProxyType(comments)
