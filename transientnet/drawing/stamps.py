"""The one renderer of stamps: for pages as indexed PNG without any library, for figures as RGB.

Conventions: first row at the bottom, grey, a stretch about the background, missing pixels (as `preprocess`
sees them: NaN, sentinels, fill values, masked) in one dull blue that no grey level resembles and that
colour-blind readers tell apart, ticks beside the target and never over it.
"""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from ..prepare.missing import background, observed
from ..triplet import Triplet

__all__ = [
    "GAP",
    "MISSING",
    "PALETTE",
    "STRETCHES",
    "Levels",
    "caption",
    "data_uri",
    "encode_png",
    "levels",
    "panels",
    "sign_of",
    "strip",
]

STRETCHES = ("asinh", "zscale", "linear")

Levels = npt.NDArray[np.uint8]

MISSING, FIELD, CROSS, TICK, GAP = range(5)
"""Levels that are not grey: missing pixels, an empty field, the cross of an absent stamp, ticks, gaps."""
_GREYS = 64
"""Grey levels: noise compresses to half the size, and no eye sees the difference."""

PALETTE: npt.NDArray[np.uint8] = np.array(
    [(42, 74, 107), (235, 235, 235), (190, 190, 190), (240, 228, 66), (255, 255, 255)]
    + [(level, level, level) for level in np.linspace(0, 255, _GREYS).round().astype(int).tolist()],
    np.uint8,
)
"""RGB of the levels: those that are not grey, then black to white."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GAP_WIDTH = 2
# Where the ticks of a strip begin, and how long they are, in parts of the side.
_TICK_FROM, _TICK_LENGTH = 0.11, 0.08
# The sky is shown from so many times the noise below it; the brightest pixel reaches at least so many above.
_BELOW, _ABOVE = -2.0, 5.0


def levels(stamp: npt.NDArray[Any], stretch: str = "asinh") -> Levels:
    """Indices into `PALETTE`, shape (H, W), first row first.

    Parameters
    ----------
    stamp : ndarray, shape (H, W)
    stretch : {"asinh", "zscale", "linear"}
        ``asinh`` of the signal-to-noise from 2 below the sky to the brightest pixel (to 5 at least);
        zscale as IRAF's; or linear from the lowest to the highest pixel.
    """
    image = observed(stamp)
    shown = np.full(image.shape, MISSING, np.uint8)
    seen = np.isfinite(image)
    if not seen.any():
        return shown
    values = image[seen]
    if stretch == "asinh":
        middle, noise = background(image)
        values = np.arcsinh((values - middle) / noise)
        low, high = max(values.min(), np.arcsinh(_BELOW)), max(values.max(), np.arcsinh(_ABOVE))
    elif stretch == "zscale" and values.size > 1 and np.ptp(values) > 0:
        from astropy.visualization import ZScaleInterval

        low, high = ZScaleInterval().get_limits(values)
    else:
        low, high = values.min(), values.max()
    scaled = (values - low) / (high - low if high > low else 1.0)
    shown[seen] = len(PALETTE) - _GREYS + np.rint((_GREYS - 1) * np.clip(scaled, 0, 1)).astype(np.uint8)
    return shown


def panels(triplet: Triplet, side: int = 63, stretch: str = "asinh") -> list[Levels | None]:
    """The three stamps as `levels`, `side` pixels high and wide, first row first; None if absent."""
    return [None if stamp is None else _fitted(levels(stamp, stretch), side) for stamp in triplet.stamps]


def strip(triplet: Triplet, side: int = 63, stretch: str = "asinh") -> Levels:
    """Science, reference and difference side by side as `levels`, each `side` pixels high, with ticks."""
    parts: list[Levels] = []
    for shown in panels(triplet, side, stretch):
        picture = _absent(side) if shown is None else _ticked(shown)
        parts += [picture[::-1], np.full((side, _GAP_WIDTH), GAP, np.uint8)]
    return np.concatenate(parts[:-1], axis=1)


def sign_of(triplet: Triplet) -> str:
    """Sign of the subtraction, in a word; empty where the survey does not give it."""
    positive = triplet.meta.get("is_positive")
    return "" if positive is None else "positive" if positive else "negative"


def caption(triplet: Triplet) -> str:
    """Side of the science stamp on the sky and sign of the subtraction, as far as they are known."""
    across = (triplet.pixel_scale or 0.0) * max(triplet.science.shape)
    return ", ".join(filter(None, (f"{across:.3g}″ across" if across else "", sign_of(triplet))))


def encode_png(image: Levels, transparent: int | None = None) -> bytes:
    """An (H, W) array of `levels` as a PNG file with a palette; row 0 is at the top.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W)
    transparent : int, optional
        A level to see through.
    """
    height, width = image.shape
    # One filter byte, 0 for none, leads every line.
    lines = np.zeros((height, width + 1), np.uint8)
    lines[:, 1:] = image

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    return b"".join(
        (
            _SIGNATURE,
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
            chunk(b"PLTE", PALETTE.tobytes()),
            b"" if transparent is None else chunk(b"tRNS", b"\xff" * transparent + b"\0"),
            chunk(b"IDAT", zlib.compress(lines.tobytes(), 6)),
            chunk(b"IEND", b""),
        )
    )


def data_uri(image: Levels) -> str:
    """A PNG as an address that needs no file."""
    return "data:image/png;base64," + base64.b64encode(encode_png(image)).decode("ascii")


def _fitted(image: Levels, side: int) -> Levels:
    """Bring the larger axis to `side` by picking pixels; centre a narrower one."""
    out = np.full((side, side), FIELD, np.uint8)
    if not image.size:
        return out
    height, width = image.shape
    rows, columns = (max(1, round(side * length / max(height, width))) for length in (height, width))
    top, left = (side - rows) // 2, (side - columns) // 2
    out[top : top + rows, left : left + columns] = image[_picks(height, rows)][:, _picks(width, columns)]
    return out


def _picks(length: int, wanted: int) -> npt.NDArray[np.int64]:
    return ((np.arange(wanted) + 0.5) * length / wanted).astype(np.int64)


def _ticked(image: Levels) -> Levels:
    """A tick to the right of the target and one above it (row 0 is the lowest)."""
    side = len(image)
    middle, start, length = side // 2, round(side * _TICK_FROM), max(2, round(side * _TICK_LENGTH))
    image[middle, middle + start : middle + start + length] = TICK
    image[middle + start : middle + start + length, middle] = TICK
    return image


def _absent(side: int) -> Levels:
    """What stands for an absent stamp: a light field with its diagonals drawn."""
    image = np.full((side, side), FIELD, np.uint8)
    diagonal = np.arange(side)
    image[diagonal, diagonal] = image[diagonal, diagonal[::-1]] = CROSS
    return image
