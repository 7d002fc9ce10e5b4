"""What a survey's stamps say of themselves: sky, noise, seeing, point-spread function, saturation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ..prepare.missing import background, observed
from ..prepare.preprocess import MIN_SIDE, estimate_fwhm
from ..triplet import Triplet

__all__ = [
    "Field",
    "Night",
    "box_maximum",
    "clipping_level",
    "field_of",
    "half_width",
    "is_eight_bit",
    "matched_snr",
    "measured_profile",
    "moffat",
    "own_snr_of",
    "photon_noise",
    "required",
]

FloatArray = npt.NDArray[np.float64]

_BETA = 3.0
_STARS_FOR_A_PROFILE = 5


@dataclass(frozen=True, slots=True)
class Night:
    """What a survey's stamps say of themselves.

    Attributes
    ----------
    beta : float
        Moffat exponent of the point-spread function, from `stars` stars (3 where there are fewer than five).
    stars : int
    saturation : float or None
        Level of the science stamps at which pixels clip, None where none is seen to.
    photons : float
        Variance that a unit of flux brings (the inverse gain), 0 where it cannot be measured.
    eight_bit : bool
        Each stamp was scaled to 0–255 by itself: fluxes are known relative to the noise alone.
    snr : ndarray, shape (N,)
        Matched-filter signal-to-noise of the survey's own candidates, NaN where unmeasurable.
    """

    beta: float
    stars: int
    saturation: float | None
    photons: float
    eight_bit: bool
    snr: FloatArray


@lru_cache(maxsize=256)
def moffat(
    shape: tuple[int, int], fwhm: float, beta: float, trail: float = 0.0, angle: float = 0.0
) -> FloatArray:
    """A point source of unit flux at the centre of a stamp, or a trail.

    Parameters
    ----------
    shape : (int, int)
    fwhm : float
        px.
    beta : float
        Moffat (1969) exponent.
    trail : float
        Length in px.
    angle : float
        Of the trail, radians from the x axis.

    Returns
    -------
    ndarray, shape `shape`
        Read-only.
    """
    alpha = fwhm / (2 * math.sqrt(2 ** (1 / beta) - 1))
    y, x = (np.arange(n) - n // 2 for n in shape)
    steps = max(1, math.ceil(2 * trail / max(fwhm, 1.0)) + 1) if trail else 1
    profile = np.zeros(shape)
    for shift in np.linspace(-trail / 2, trail / 2, steps):
        dy, dx = y - shift * math.sin(angle), x - shift * math.cos(angle)
        # The mean over each pixel, on a grid of 3 x 3: a sharp source is not its value at the centre.
        for sy in (-1 / 3, 0, 1 / 3):
            for sx in (-1 / 3, 0, 1 / 3):
                profile += (1 + ((dy[:, None] + sy) ** 2 + (dx + sx) ** 2) / alpha**2) ** -beta
    profile /= profile.sum()
    profile.flags.writeable = False
    return profile


def matched_snr(image: FloatArray, fwhm: float, beta: float, sky: float, noise: float) -> float:
    """Signal-to-noise of a matched filter at the centre of a stamp, over white noise; always positive."""
    profile = moffat((image.shape[0], image.shape[1]), fwhm, beta)
    seen = np.isfinite(image)
    weight = profile[seen]
    power = float((weight**2).sum())
    if power <= 0 or not noise > 0:
        return math.nan
    return abs(float(((image[seen] - sky) * weight).sum())) / (noise * math.sqrt(power))


@dataclass(frozen=True, slots=True)
class Field:
    """Stamps of one candidate: missing pixels NaN, background and noise per channel, seeing, brightness."""

    number: int
    stamps: tuple[FloatArray | None, ...]
    sky: tuple[float, ...]
    noise: tuple[float, ...]
    fwhm: float
    own_snr: float = math.nan

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the stamps."""
        height, width = _first(self.stamps).shape
        return height, width

    @property
    def detection(self) -> int:
        """The channel in which a source is detected: the difference, else the science stamp."""
        return 2 if self.stamps[2] is not None else 0


def is_eight_bit(triplet: Triplet) -> bool:
    """Whether each stamp of a triplet was scaled to 0-255 by itself."""
    present = [np.asarray(stamp) for stamp in triplet.stamps if stamp is not None and np.size(stamp)]

    def whole(stamp: npt.NDArray[Any]) -> bool:
        values = np.ma.compressed(np.ma.masked_invalid(stamp.astype(np.float64)))
        return (
            bool(values.size)
            and bool((values == np.rint(values)).all())
            and values.min() >= 0
            and values.max() <= 255
        )

    return len(present) > 1 and all(map(whole, present)) and any(np.nanmax(s) > 200 for s in present)


def field_of(number: int, triplet: Triplet) -> Field | None:
    """The triplet prepared for injection; None where it cannot be used."""
    if triplet.error is not None:
        return None
    shape = np.shape(triplet.science)
    if len(shape) != 2 or min(shape) < 2 * MIN_SIDE + 1:
        return None
    stamps: list[FloatArray | None] = []
    sky, noise = [], []
    for stamp in triplet.stamps:
        if stamp is None or np.shape(stamp) != shape:
            stamps.append(None)
            sky.append(0.0)
            noise.append(0.0)
            continue
        image = observed(stamp)
        seen = image[np.isfinite(image)]
        if seen.size < shape[0] * shape[1] / 3 or np.ptp(seen) == 0:
            stamps.append(None)
            sky.append(0.0)
            noise.append(0.0)
            continue
        middle, spread = background(image)
        stamps.append(image)
        sky.append(middle)
        noise.append(spread)
    if stamps[0] is None:
        return None
    centre = stamps[0][shape[0] // 2 - 1 : shape[0] // 2 + 2, shape[1] // 2 - 1 : shape[1] // 2 + 2]
    if not np.isfinite(centre).all():
        return None
    fwhm = triplet.fwhm if triplet.fwhm is not None and triplet.fwhm > 0 else estimate_fwhm(triplet.science)
    return Field(number, tuple(stamps), tuple(sky), tuple(noise), float(fwhm))


def own_snr_of(field: Field, beta: float) -> float:
    """Matched-filter signal-to-noise of the stamp's own candidate."""
    channel = field.detection
    image = required(field.stamps[channel])
    return matched_snr(image, field.fwhm, beta, field.sky[channel], field.noise[channel])


def measured_profile(fields: Sequence[Field]) -> tuple[float, int]:
    """Moffat exponent of the night's stars and how many there are.

    Bright isolated unsaturated peaks of the science stamps, their radial profiles in units of the seeing.
    """
    radii, values = [], []
    stars = 0
    for field in fields[:2000]:
        image, sky, noise = required(field.stamps[0]), field.sky[0], field.noise[0]
        deviation = np.where(np.isfinite(image), (image - sky) / (noise or 1.0), -np.inf)
        reach = max(3, math.ceil(2.0 * field.fwhm))
        peaks = (deviation >= box_maximum(deviation, min(reach, 7))) & (deviation > 60)
        for y, x in np.argwhere(peaks)[:3]:
            part = deviation[y - reach : y + reach + 1, x - reach : x + reach + 1]
            if part.shape != (2 * reach + 1, 2 * reach + 1) or not np.isfinite(part).all():
                continue
            if (
                abs(half_width(deviation, int(y), int(x)) / (field.fwhm / 2) - 1) > 0.3
                or (part > 0.97 * part.max()).sum() > 2
            ):
                continue
            axis = np.arange(-reach, reach + 1)
            radius = np.hypot(axis[:, None], axis) / field.fwhm
            ring = (radius > 0.4) & (radius < 1.6)
            radii.append(radius[ring])
            values.append(part[ring] / part.max())
            stars += 1
    if stars < _STARS_FOR_A_PROFILE:
        return _BETA, stars
    r, v = np.concatenate(radii), np.concatenate(values)
    trial = np.array([1.8, 2.2, 2.6, 3.0, 3.5, 4.2, 5.5, 8.0])
    losses = [np.abs(v - (1 + 4 * (2 ** (1 / b) - 1) * r**2) ** -b).mean() for b in trial]
    return float(trial[int(np.argmin(losses))]), stars


def clipping_level(fields: Sequence[Field]) -> float | None:
    """Level at which science pixels clip: a plateau of the brightest ones that several stamps share."""
    tops = []
    for field in fields:
        image = required(field.stamps[0])
        top = float(np.nanmax(image))
        # Within one per cent of the top, counted from the sky.
        plateau = int((image > field.sky[0] + 0.99 * (top - field.sky[0])).sum())
        if plateau >= 4 and (top - field.sky[0]) > 100 * field.noise[0]:
            tops.append(top)
    return float(np.median(tops)) if len(tops) >= 3 else None


def photon_noise(fields: Sequence[Field]) -> float:
    """Variance that a unit of flux brings, at most what the stamps allow; 0 where they say nothing.

    Two bounds: the noise of the sky over its level (where the sky was not subtracted), and the variance of
    the difference where stars were subtracted, which holds residuals of the subtraction, too.
    """
    bounds = [f.noise[0] ** 2 / f.sky[0] for f in fields if f.sky[0] > 3 * f.noise[0]]
    ratios = []
    for field in fields:
        science, difference = field.stamps[0], field.stamps[2]
        if science is None or difference is None or not field.noise[2] > 0:
            continue
        above = science - field.sky[0]
        bright = (above > 20 * field.noise[0]) & (above < 400 * field.noise[0]) & np.isfinite(difference)
        if bright.sum() >= 12:
            excess = (difference[bright] - field.sky[2]) ** 2 - field.noise[2] ** 2
            ratios.append(float(np.median(excess / above[bright])) / 0.455)  # median of a chi-square of one
    measured = [float(np.quantile(ratios, 0.1))] if len(ratios) >= 10 else []
    measured += [float(np.median(bounds))] if len(bounds) > len(fields) / 2 else []
    return max(0.0, min(measured)) if measured else 0.0


def box_maximum(image: FloatArray, half: int) -> FloatArray:
    """Largest value in the square around each pixel; infinite where it does not fit."""
    side = 2 * half + 1
    out = np.full(image.shape, np.inf)
    if min(image.shape) >= side:
        rows = np.lib.stride_tricks.sliding_window_view(image, side, axis=0).max(axis=-1)
        out[half:-half, half:-half] = np.lib.stride_tricks.sliding_window_view(rows, side, axis=1).max(
            axis=-1
        )
    return out


def half_width(deviation: FloatArray, y: int, x: int) -> float:
    """Half width at half maximum of a peak, px: from the area above half of it around the peak."""
    reach = 12
    part = deviation[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
    above = part > deviation[y, x] / 2
    cy, cx = y - max(0, y - reach), x - max(0, x - reach)
    # Only what hangs together with the peak along its row and column.
    row, column = above[cy], above[:, cx]

    def run(line: npt.NDArray[np.bool_], at: int) -> int:
        right = int(np.argmin(line[at:])) if not line[at:].all() else len(line) - at
        left = int(np.argmin(line[at::-1])) if not line[at::-1].all() else at + 1
        return right + left - 1

    return (run(row, cx) + run(column, cy)) / 4


def _first(stamps: Sequence[FloatArray | None]) -> FloatArray:
    return next(stamp for stamp in stamps if stamp is not None)


def required(stamp: Any) -> Any:
    """A stamp that is known to be there."""
    assert stamp is not None
    return stamp
