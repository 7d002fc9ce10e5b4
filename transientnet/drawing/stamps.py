"""Stamps as 8-bit grey PNG, in the standard library alone."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..triplet import Triplet

__all__ = ["data_uri", "encode_png", "stretch", "strip"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_ABSENT = 235
_GAP = 2


def encode_png(image: npt.NDArray[np.uint8]) -> bytes:
    """An (H, W) array of grey levels as a PNG file; row 0 is at the top."""
    height, width = image.shape
    # One filter byte, 0 for none, leads every line.
    lines = np.zeros((height, width + 1), np.uint8)
    lines[:, 1:] = image

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"".join(
        (
            _SIGNATURE,
            chunk(b"IHDR", header),
            chunk(b"IDAT", zlib.compress(lines.tobytes(), 6)),
            chunk(b"IEND", b""),
        )
    )


def data_uri(image: npt.NDArray[np.uint8]) -> str:
    """A PNG as an address that needs no file."""
    return "data:image/png;base64," + base64.b64encode(encode_png(image)).decode("ascii")


def stretch(stamp: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Grey levels of a stamp between its 1st and 99.5th percentile; missing pixels are light grey."""
    image = np.ma.filled(np.ma.asarray(stamp, dtype=np.float64), np.nan)
    known = np.isfinite(image) & (np.abs(image) < 1e30)
    grey = np.full(image.shape, _ABSENT, np.uint8)
    if known.any():
        low, high = np.percentile(image[known], [1, 99.5])
        scaled = (image[known] - low) / (high - low if high > low else 1.0)
        # 32 levels: noise compresses to half the size, and no eye sees the difference.
        grey[known] = (31 * np.clip(scaled, 0, 1)).astype(np.uint8) * 8
    return grey


def strip(triplet: Triplet, side: int = 63) -> npt.NDArray[np.uint8]:
    """Science, reference and difference side by side, origin at the lower left, `side` pixels high each."""
    parts: list[npt.NDArray[np.uint8]] = []
    for stamp in triplet.stamps:
        usable = stamp is not None and stamp.ndim == 2 and stamp.size > 0
        part = _nearest(stretch(stamp), side) if usable and stamp is not None else _empty(side)
        parts += [part[::-1], np.full((side, _GAP), 255, np.uint8)]
    return np.concatenate(parts[:-1], axis=1)


def _nearest(image: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.uint8]:
    """Bring the larger axis to `side` by picking pixels; centre a narrower one."""
    height, width = image.shape
    longest = max(height, width)
    out = np.full((side, side), _ABSENT, np.uint8)
    rows, columns = (max(1, round(side * length / longest)) for length in (height, width))
    picked = image[_picks(height, rows)][:, _picks(width, columns)]
    top, left = (side - rows) // 2, (side - columns) // 2
    out[top : top + rows, left : left + columns] = picked
    return out


def _picks(length: int, wanted: int) -> npt.NDArray[np.int64]:
    return ((np.arange(wanted) + 0.5) * length / wanted).astype(np.int64)


def _empty(side: int) -> npt.NDArray[np.uint8]:
    """What stands for an absent stamp: a light field with its diagonals drawn."""
    image = np.full((side, side), _ABSENT, np.uint8)
    diagonal: Sequence[int] = range(side)
    image[diagonal, diagonal] = image[diagonal, diagonal[::-1]] = 190
    return image
