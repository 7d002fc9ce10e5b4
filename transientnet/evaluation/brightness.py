"""How bright the candidates are: recall is stated per brightness."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..prepare.missing import SENTINEL, mad_noise
from ..triplet import Triplet

__all__ = ["brightness"]

_KEYS = {"magnitude": ("magnitude", "magpsf"), "signal-to-noise": ("snr",)}

# Fewer known values than this are not worth bins.
_FEWEST = 10
# Side of the aperture, pixels.
_APERTURE = 5


def brightness(triplets: Sequence[Triplet]) -> tuple[str, npt.NDArray[np.float64]]:
    """The brightness that most candidates carry or, where they carry none, what their stamps show.

    Returns
    -------
    str
        ``magnitude``, ``signal-to-noise``, or ``signal-to-noise in the difference stamp``: the flux in
        5x5 pixels around the centre over its noise.
    ndarray of float64, shape (N,)
        NaN where unknown.
    """
    found = {
        kind: np.array([_carried(triplet, keys) for triplet in triplets], np.float64)
        for kind, keys in _KEYS.items()
    }
    kind = max(found, key=lambda name: np.isfinite(found[name]).sum())
    if np.isfinite(found[kind]).sum() >= _FEWEST:
        return kind, found[kind]
    return "signal-to-noise in the difference stamp", np.array([_seen(triplet) for triplet in triplets])


def _carried(triplet: Triplet, keys: Sequence[str]) -> float:
    return next(
        (float(triplet.meta[key]) for key in keys if isinstance(triplet.meta.get(key), int | float)), math.nan
    )


def _seen(triplet: Triplet) -> float:
    """Absolute: a fading source is a source."""
    if triplet.difference is None:
        return math.nan
    stamp = np.ma.filled(np.ma.asarray(triplet.difference, np.float64), np.nan)
    if stamp.ndim != 2:
        return math.nan
    stamp = np.where(np.abs(stamp) < SENTINEL, stamp, np.nan)
    known = stamp[np.isfinite(stamp)]
    top, left = ((side - _APERTURE) // 2 for side in stamp.shape)
    box = stamp[max(top, 0) : top + _APERTURE, max(left, 0) : left + _APERTURE]
    box = box[np.isfinite(box)]
    if not len(box) or len(known) <= len(box):
        return math.nan
    background = float(np.median(known))
    noise = mad_noise(known, background)
    if not noise > 0:
        return math.nan
    return abs(float((box - background).sum())) / (noise * math.sqrt(len(box)))
