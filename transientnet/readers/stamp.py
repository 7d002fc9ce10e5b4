"""Cutout bytes of a packet or table cell to pixels: fast where it is plain, astropy where it is not.

Nearly every survey sends gzipped FITS with one plain image. For those a scan of the header and a view of
the buffer give what astropy gives, bit for bit; `benchmarks/decode_speed.py` measures both. Whatever looks
unusual (scaling, blanks, extensions, compression, a short buffer) goes through astropy.
"""

from __future__ import annotations

import importlib
import io
import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ReadError
from .image import Image, card_value, facts

__all__ = ["MAX_FILE_BYTES", "MAX_STAMP_BYTES", "decode_image", "decode_stamp", "gunzip", "plain_file"]

MAX_STAMP_BYTES = 64 * 2**20
"""Most that one cutout may hold after decompression."""
MAX_FILE_BYTES = 2 * 2**30
"""Most that one compressed file may hold after decompression."""

_GZIP = b"\x1f\x8b"
_BLOCK = 2880
_CARD = 80
_END = b"END" + b" " * 77
_MAX_CARDS = 36 * 100
_DTYPES = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
_STRUCTURE = (b"SIMPLE  ", b"BITPIX  ", b"NAXIS   ", b"NAXIS1  ", b"NAXIS2  ")
#: How keywords begin that tell of sampling or seeing.
_TELLING = (b"CD", b"PC", b"PI", b"PL", b"PS", b"SE", b"FW", b"ME")
#: Keywords that change what the pixels mean: astropy's work.
_UNUSUAL = (b"BLANK   ", b"GROUPS  ", b"NAXIS3  ")
#: Keywords that do so unless they have these values.
_NEUTRAL = {b"BSCALE  ": 1, b"BZERO   ": 0, b"PCOUNT  ": 0, b"GCOUNT  ": 1}


def decode_stamp(data: bytes) -> npt.NDArray[Any]:
    """Pixels of one cutout.

    Parameters
    ----------
    data : bytes
        FITS or NumPy file, gzipped or not. Of several image HDUs the first counts; a mask HDU makes NaN.

    Returns
    -------
    ndarray, shape (H, W)

    Raises
    ------
    ReadError
        The bytes are no image, or hold more than `MAX_STAMP_BYTES`.
    """
    return decode_image(data).data


def decode_image(data: bytes) -> Image:
    """As `decode_stamp`, with the pixel scale, FWHM and orientation that the header or PSF tells."""
    if data[:2] == _GZIP:
        data = gunzip(data, MAX_STAMP_BYTES)
    if len(data) > MAX_STAMP_BYTES:
        raise ReadError(f"a cutout of {len(data)} bytes is beyond the limit of {MAX_STAMP_BYTES}")
    image = plain_image(data)
    if image is not None:
        return image
    if data[:6] == b"\x93NUMPY":
        return Image(_numpy_file(data))
    if data[:9] != b"SIMPLE  =":
        raise ReadError(f"cutout bytes are neither FITS nor NumPy (they begin with {bytes(data[:12])!r})")
    from . import hdus

    return hdus.first_image(hdus.read_hdus(data, MAX_STAMP_BYTES))


def gunzip(data: bytes, limit: int) -> bytes:
    """Decompress gzip members, at most `limit` bytes of them."""
    engine = _inflate_engine()
    parts: list[bytes] = []
    left = limit
    while data[:2] == _GZIP:
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
def _inflate_engine() -> Any:
    """isal's zlib where it is installed: twice as fast."""
    try:
        return importlib.import_module("isal.isal_zlib")
    except ImportError:
        return zlib


def plain_image(data: bytes) -> Image | None:
    """The image of a FITS file that is one plain 2-D primary array; None if it is anything else."""
    found = _scan(data)
    if found is None:
        return None
    pixels, cards = found
    if not any(key[:2] in _TELLING for key in cards):
        return Image(pixels)
    return Image(pixels, *facts(*_values(cards)))


def plain_file(data: bytes) -> tuple[Image, dict[str, Any]] | None:
    """As `plain_image`, with all header values."""
    found = _scan(data)
    if found is None:
        return None
    header, comment = _values(found[1])
    return Image(found[0], *facts(header, comment)), header


def _values(cards: dict[bytes, bytes]) -> tuple[dict[str, Any], Callable[[str], str]]:
    parsed = {key.decode("ascii", "replace").rstrip(): card_value(raw) for key, raw in cards.items()}
    return {key: value for key, (value, _) in parsed.items()}, lambda key: parsed[key][1]


def _scan(data: bytes) -> tuple[npt.NDArray[Any], dict[bytes, bytes]] | None:
    if data[:9] != b"SIMPLE  =":
        return None
    cards: dict[bytes, bytes] = {}
    at, stop = 0, min(len(data), _MAX_CARDS * _CARD)
    while at < stop:
        card = data[at : at + _CARD]
        at += _CARD
        if card[8:10] == b"= ":
            if cards.setdefault(card[:8], card[10:]) != card[10:]:
                return None
        elif card == _END:
            break
        elif card[:8] in (b"CONTINUE", b"HIERARCH"):
            return None
    else:
        return None
    if any(key in cards for key in _UNUSUAL):
        return None
    if any(key in cards and card_value(cards[key])[0] != value for key, value in _NEUTRAL.items()):
        return None
    try:
        simple, bits, naxis, width, height = (card_value(cards[key])[0] for key in _STRUCTURE)
        dtype = np.dtype(_DTYPES[bits])
    except (KeyError, TypeError):
        return None
    if simple is not True or naxis != 2 or type(width) is not int or type(height) is not int:
        return None
    start = -(-at // _BLOCK) * _BLOCK
    size = width * height * dtype.itemsize
    if width < 1 or height < 1 or not start + size <= len(data) <= start + -(-size // _BLOCK) * _BLOCK:
        return None
    pixels = np.frombuffer(data, dtype=dtype, count=width * height, offset=start)
    return pixels.reshape(height, width), cards


def _numpy_file(data: bytes) -> npt.NDArray[Any]:
    """A 2-D ``.npy`` in memory, its claims checked before anything is allocated."""
    file = io.BytesIO(data)
    try:
        major, _ = np.lib.format.read_magic(file)
        read_header = (
            np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read_header(file)
        count = int(np.prod(shape, dtype=object))
        if dtype.hasobject or dtype.kind not in "fiub" or len(shape) != 2:
            raise ReadError(f"a NumPy cutout must be a 2-D array of numbers, this is {shape} of {dtype}")
        pixels = np.frombuffer(data, dtype=dtype, count=count, offset=file.tell())
    except (ValueError, TypeError, OverflowError, SyntaxError) as error:
        raise ReadError(f"damaged NumPy cutout: {error}") from error
    return pixels.reshape(shape, order="F" if fortran else "C")
