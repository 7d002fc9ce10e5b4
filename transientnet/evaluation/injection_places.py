"""Places in a survey's stamps that a source may be injected at: quiet sky, stars, offsets from galaxies."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .injection_field import Field, FloatArray, box_maximum, half_width, required

__all__ = ["OFFSETS", "PLACES", "Site", "find_sites", "hidden_under_sky", "shifted_to"]

PLACES = ("empty", "star", "galaxy")
"""Where sources are put: on empty sky, on a star, and at offsets from a resolved galaxy."""

OFFSETS = (0.0, 0.5, 1.0, 2.0)
"""Distances from a galaxy's centre in units of its half width at half maximum."""

# Neighbours must stand out by so much to be called a star or a galaxy, and be so much broader than the
# point-spread function to be called a galaxy.
_SOURCE_SNR = 15.0
_RESOLVED = 1.35
# A place is quiet where nothing in the box around it sticks out of the noise by more.
_QUIET = 4.0
# The patch that hides a stamp's own candidate, in units of the seeing and of the half side; its soft edge.
_PATCH_FWHM, _PATCH_MOST, _FEATHER = 2.2, 0.4, 0.25
# Parts of the half side by which a stamp may be shifted where its own candidate cannot be hidden.
_SHIFT = 0.35
# A stamp's own candidate may be so bright where it stays in the field.
_OWN_SNR = 8.0


class Site(NamedTuple):
    """A place in a field: what is there, offset from the centre (y, x), and how the centre comes there."""

    place: str
    y: int
    x: int
    offset: float
    hidden: bool


def _significance(field: Field) -> FloatArray:
    """Largest deviation of all channels in units of their noise, infinite where something is missing."""
    parts = [
        np.where(np.isfinite(s), np.abs(s - sky) / (noise or 1.0), np.inf)
        for s, sky, noise in zip(field.stamps, field.sky, field.noise, strict=True)
        if s is not None
    ]
    return np.asarray(np.max(parts, axis=0))


def find_sites(field: Field, rng: np.random.Generator, most: int = 12) -> Iterator[Site]:
    """Places of a field that a source may be put to."""
    height, width = field.shape
    cy, cx, half = height // 2, width // 2, min(height, width) // 2
    patch = min(max(_PATCH_FWHM * field.fwhm, 4.0), _PATCH_MOST * half)
    edge = max(1.5, _FEATHER * patch)
    reach = int(patch + edge)
    deviation = _significance(field)
    y, x = np.indices(field.shape)
    distance = np.hypot(y - cy, x - cx)
    ring = deviation[(distance > patch) & (distance < patch + edge + 1)]
    # The own candidate is compact: nothing of it, nor of its host, sticks out beyond the patch.
    compact = (
        bool(np.isfinite(ring).all())
        and float(np.median(ring)) < 1.6
        and float((ring > _QUIET).mean()) < 0.02
    )
    box = max(2, math.ceil(field.fwhm))
    quiet = box_maximum(deviation, box) < _QUIET + 0.5
    shift = int(_SHIFT * half)
    if compact:
        whole = np.isfinite(box_maximum(deviation, reach))
        rows, columns = np.nonzero(quiet & whole & (distance > 1.3 * patch))
        for k in rng.permutation(len(rows))[:most]:
            yield Site("empty", int(rows[k]) - cy, int(columns[k]) - cx, math.nan, True)
    elif field.own_snr < _OWN_SNR:
        rows, columns = np.nonzero(quiet & (distance <= shift) & (distance > 1.5 * field.fwhm))
        for k in rng.permutation(len(rows))[:most]:
            yield Site("empty", int(rows[k]) - cy, int(columns[k]) - cx, math.nan, False)
    yield from _beside_neighbours(field, rng, shift, box)


def _beside_neighbours(field: Field, rng: np.random.Generator, shift: int, box: int) -> Iterator[Site]:
    """Stars, and offsets from galaxies, whose difference is quiet."""
    channel = 1 if field.stamps[1] is not None else 0
    image, sky, noise = required(field.stamps[channel]), field.sky[channel], field.noise[channel]
    height, width = field.shape
    cy, cx = height // 2, width // 2
    deviation = np.where(np.isfinite(image), (image - sky) / (noise or 1.0), -np.inf)
    peaks = (deviation >= box_maximum(deviation, 2)) & (deviation > _SOURCE_SNR)
    for y, x in np.argwhere(peaks):
        if math.hypot(y - cy, x - cx) > shift + 2 * field.fwhm:
            continue
        hwhm = half_width(deviation, int(y), int(x))
        resolved = hwhm > _RESOLVED * field.fwhm / 2
        for offset in OFFSETS if resolved else (0.0,):
            angle = rng.uniform(0, 2 * math.pi)
            ty, tx = round(y + offset * hwhm * math.sin(angle)), round(x + offset * hwhm * math.cos(angle))
            if abs(ty - cy) > shift or abs(tx - cx) > shift:
                continue
            if field.stamps[2] is not None:
                around = field.stamps[2][max(0, ty - box) : ty + box + 1, max(0, tx - box) : tx + box + 1]
                off = np.abs(around - field.sky[2]) / (field.noise[2] or 1.0)
                if not np.isfinite(off).all() or off.max() > 1.5 * _QUIET:
                    continue
            if math.hypot(ty - cy, tx - cx) > 1.5 and field.own_snr > _OWN_SNR:
                continue
            yield Site("galaxy" if resolved else "star", ty - cy, tx - cx, offset, False)


def hidden_under_sky(stamp: FloatArray, sky: float, field: Field, site: Site) -> FloatArray:
    """The stamp with the sky of a quiet place moved over its centre."""
    height, width = stamp.shape
    cy, cx, half = height // 2, width // 2, min(height, width) // 2
    patch = min(max(_PATCH_FWHM * field.fwhm, 4.0), _PATCH_MOST * half)
    edge = max(1.5, _FEATHER * patch)
    reach = int(patch + edge)
    axis = np.arange(-reach, reach + 1)
    weight = np.clip((patch + edge - np.hypot(axis[:, None], axis)) / edge, 0, 1)
    out = stamp.copy()
    target = (slice(cy - reach, cy + reach + 1), slice(cx - reach, cx + reach + 1))
    y, x = cy + site.y, cx + site.x
    moved = stamp[y - reach : y + reach + 1, x - reach : x + reach + 1] - sky
    below = np.nan_to_num(out[target] - sky)
    out[target] = sky + np.where(
        weight > 0, weight * moved + np.sqrt(1 - weight**2) * below, out[target] - sky
    )
    return out


def shifted_to(stamp: FloatArray, sky: float, field: Field, site: Site) -> FloatArray:
    """The stamp centred on another place; NaN beyond its edge."""
    out = np.full_like(stamp, np.nan)
    (to_y, from_y), (to_x, from_x) = (
        _moved(n, d) for n, d in zip(stamp.shape, (site.y, site.x), strict=True)
    )
    out[to_y, to_x] = stamp[from_y, from_x]
    return out


def _moved(length: int, by: int) -> tuple[slice, slice]:
    low, high = max(0, by), min(length, length + by)
    return slice(low - by, high - by), slice(low, high)
