"""From contract and triplets to the network's tensor: the one code path of scoring, training and export.

Per stamp: sentinels and infinities become missing; the stamp is shrunk, if its point-spread
function is broader than the network knows; it is cropped or padded around its centre; its median
is subtracted and it is divided by its noise; an inverse hyperbolic sine keeps a faint source
visible beside a bright one; missing pixels become background. Each stamp is treated by itself, so
gain, zero point and units do not matter, and a row never depends on its neighbours in a batch.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..triplet import CHANNELS, QualityFlag, Triplet
from .contract import InputContract
from .missing import SENTINEL, mark_missing

__all__ = ["Prepared", "estimate_fwhm", "preprocess"]

FloatArray = npt.NDArray[np.float32]

MIN_SIDE = 7
"""Stamps with a side shorter than this, at the network's sampling, hold too little to judge."""

CORE = 5
"""Side of the central box that must not be wholly missing: the candidate itself."""

# What the core's flux must exceed to have a sign: less is left over when rounded numbers cancel.
LEAST_FLUX = 1e-6

# Share of a resampled pixel that must have been seen: more than half, by more than rounding.
LEAST_SEEN = 0.5 + 1e-9

# Shrink factors are rounded to this step in the logarithm, so that stamps share resampling matrices.
FACTOR_STEP = 0.02

# Mean of the lower half of |x| for a unit normal deviate: 2/0.5 (phi(0) - phi(0.6745)).
LOWER_HALF_MEAN = 0.3247

# One stamp's few sources overestimate the seeing by up to this; only what is surely broad is shrunk.
ESTIMATE_MARGIN = 1.2

# As a plain integer: the operators of enumerations are slow, and these run for every stamp.
_UNUSABLE = int(QualityFlag.UNUSABLE)

FWHM_PER_SIGMA = 2.3548
FWHM_STEPS = (1, 2, 3)
FWHM_MIN_SNR = 20.0
FWHM_MAX_SOURCES = 12
# Sharper than any sampled point-spread function: cosmic rays and hot pixels.
FWHM_SHARPEST = 1.0


class Prepared(NamedTuple):
    """Tensor and flags of a batch, row by row as the triplets came.

    tensor : float32, shape (N, 3, S, S); rows that are not usable are zero.
    quality : uint16, shape (N,); `QualityFlag` bits.
    usable : bool, shape (N,); False where no score must be given.
    """

    tensor: FloatArray
    quality: npt.NDArray[np.uint16]
    usable: npt.NDArray[np.bool_]


# A pixel beyond all numbers in units of the noise is infinite, and so refused by the network's answer.
@np.errstate(over="ignore")
def preprocess(triplets: Sequence[Triplet], contract: InputContract) -> Prepared:
    """Bring triplets of any shape, scale and unit onto a model's footing.

    Parameters
    ----------
    triplets : sequence of Triplet
    contract : InputContract

    Returns
    -------
    Prepared
        Never raises for a bad stamp: such a row is zero and flagged.
    """
    n = len(triplets)
    tensor = np.empty((n, 3, contract.size, contract.size), np.float32)
    quality = np.zeros(n, np.uint16)
    stamps: list[list[npt.NDArray[Any] | None]] = []
    for row, triplet in enumerate(triplets):
        stamps.append([_as_image(stamp) for stamp in triplet.stamps])
        unreadable = triplet.error is not None
        quality[row] = QualityFlag.UNREADABLE if unreadable else _policy(stamps[row], contract)
    factors = _shrink_factors(triplets, stamps, quality, contract)

    for channel, name in enumerate(CHANNELS):
        skipped = ((quality & _UNUSABLE) != 0).tolist()
        alike: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        for row in range(n):
            stamp = stamps[row][channel]
            if stamp is not None and not skipped[row]:
                alike[(stamp.shape, _kind(stamp), factors[row])].append(row)
            else:
                tensor[row, channel] = 0.0
        for (_, _, factor), rows in alike.items():
            image, flags = _normalise(_stack(stamps[row][channel] for row in rows), factor, contract)
            if name == "reference":
                # A template that is all one value is a template that does not exist there.
                empty = (flags & QualityFlag.UNUSABLE) != 0
                image[empty] = 0.0
                for index in np.flatnonzero(empty):
                    flags[index] = _policy([stamps[rows[index]][0], None, stamps[rows[index]][2]], contract)
            tensor[rows, channel] = image
            quality[rows] |= flags
    _orient_difference(tensor)
    usable = (quality & QualityFlag.UNUSABLE) == 0
    tensor[~usable] = 0.0
    return Prepared(tensor, quality, usable)


def _as_image(stamp: npt.NDArray[Any] | None) -> npt.NDArray[Any] | None:
    """A plain 2-D array, empty if it is not one; masked pixels are NaN."""
    if stamp is None:
        return None
    # The module of masked arrays is loaded by whoever makes one.
    if type(stamp) is not np.ndarray and isinstance(stamp, np.ma.MaskedArray):
        stamp = np.where(np.ma.getmaskarray(stamp), np.nan, stamp.data.astype(np.float64))
    array = np.asarray(stamp)
    return array if array.ndim == 2 else np.empty((0, 0), np.float32)


def _kind(stamp: npt.NDArray[Any]) -> type[np.floating[Any]]:
    """float32, or float64 where float32 would lose digits."""
    kind, size = stamp.dtype.kind, stamp.dtype.itemsize
    return np.float32 if kind in "biuf" and size <= (4 if kind == "f" else 2) else np.float64


def _stack(stamps: Iterable[npt.NDArray[Any] | None]) -> npt.NDArray[Any]:
    """Like-shaped stamps of one kind as one native array (n, H, W): bytes are swapped as they are copied."""
    images = [stamp for stamp in stamps if stamp is not None]
    stack = np.empty((len(images), *images[0].shape), _kind(images[0]))
    for row, image in enumerate(images):
        stack[row] = image
    return stack


def _policy(stamps: list[npt.NDArray[Any] | None], contract: InputContract) -> int:
    """Flags for absent stamps, after the contract's declared policy."""
    science, reference, difference = stamps
    flags = 0
    if science is None:
        flags |= QualityFlag.MISSING_REQUIRED
    if reference is None:
        flags |= QualityFlag.MISSING_REFERENCE
        if contract.missing_reference == "refuse" or difference is None:
            flags |= QualityFlag.MISSING_REQUIRED
    if difference is None:
        flags |= QualityFlag.MISSING_DIFFERENCE
        if contract.missing_difference == "refuse":
            flags |= QualityFlag.MISSING_REQUIRED
    return flags


def _shrink_factors(
    triplets: Sequence[Triplet],
    stamps: list[list[npt.NDArray[Any] | None]],
    quality: npt.NDArray[np.uint16],
    contract: InputContract,
) -> list[float]:
    """Factor per row that brings the point-spread function into the network's range, at most 1."""
    broadest = contract.fwhm_px[1]
    factors = [1.0] * len(triplets)
    usable = ((quality & _UNUSABLE) == 0).tolist()
    given: dict[int, float] = {}
    unknown: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for row, triplet in enumerate(triplets):
        fwhm, science = triplet.fwhm, stamps[row][0]
        if not usable[row] or science is None:
            continue
        if fwhm is not None and 0 < fwhm < math.inf:
            given[row] = fwhm
        else:
            unknown[(science.shape, _kind(science))].append(row)
    for rows in unknown.values():
        estimates = _estimate_fwhm(_stack(stamps[row][0] for row in rows))
        for row, fwhm in zip(rows, estimates.tolist(), strict=True):
            known = not math.isnan(fwhm)
            quality[row] |= np.uint16(QualityFlag.FWHM_ESTIMATED if known else QualityFlag.FWHM_ASSUMED)
            given[row] = fwhm / ESTIMATE_MARGIN
    for row, fwhm in given.items():
        if fwhm > broadest:
            steps = round(math.log(broadest / fwhm) / FACTOR_STEP)
            factors[row] = math.exp(steps * FACTOR_STEP)
            if steps:
                quality[row] |= np.uint16(QualityFlag.RESAMPLED)
    return factors


def _normalise(
    stack: npt.NDArray[Any], factor: float, contract: InputContract
) -> tuple[FloatArray, npt.NDArray[np.uint16]]:
    """Normalise like-shaped stamps (n, H, W) to (n, S, S), and say what was found."""
    n, height, width = stack.shape
    size = contract.size
    flags = np.zeros(n, np.uint16)
    if min(height, width) * factor < MIN_SIDE:
        flags[:] = QualityFlag.TOO_SMALL
        return np.zeros((n, size, size), np.float32), flags

    highest = stack.max(axis=(1, 2))
    lowest = stack.min(axis=(1, 2))
    # NaN fails both comparisons, so a clean row is proved by two reductions and no temporary.
    clean: npt.NDArray[np.bool_] = np.asarray((highest < SENTINEL) & (lowest > -SENTINEL))
    flags[clean & (highest == lowest)] = QualityFlag.BLANK
    stack, padded, masked = mark_missing(stack, clean)
    if stack.dtype == np.float64:
        # Subtract a pedestal before the digits are cut: the lowest pixel, of those that were observed.
        seen = np.where(np.isnan(stack), np.inf, stack).min(axis=(1, 2))
        pedestal = np.where(np.isfinite(seen), seen, 0.0)
        stack = (stack - pedestal[:, None, None]).astype(np.float32)

    image = _to_grid(stack, factor, size)
    missing: npt.NDArray[np.bool_] = np.isnan(image)
    holes = np.asarray(missing.any(axis=(1, 2)))
    if min(height, width) * factor < size - 0.5:
        _mark(flags, np.ones(n, bool), QualityFlag.PADDED)
    _mark(flags, padded, QualityFlag.PADDED)
    _mark(flags, masked, QualityFlag.MASKED)

    half, core = size // 2, CORE // 2
    centre = missing[:, half - core : half + core + 1, half - core : half + core + 1]
    _mark(flags, np.asarray(centre.all(axis=(1, 2))), QualityFlag.OFF_CHIP)
    background, noise = _background_and_noise(image, holes)
    with np.errstate(divide="ignore", over="ignore"):
        scale = 1.0 / (noise * contract.softening)
    # No noise, none that could be measured, or one too small to divide by: no contrast to judge by.
    bad = ~((scale > 0) & (scale < np.inf)) | ~np.isfinite(background)
    _mark(flags, bad, QualityFlag.BLANK)
    background[bad], scale[bad] = 0.0, 1.0

    image -= background[:, None, None]
    image *= scale[:, None, None]
    if holes.any():
        image[missing] = 0.0
    np.arcsinh(image, out=image)
    return image, flags


def _mark(flags: npt.NDArray[np.uint16], where: npt.NDArray[np.bool_], flag: QualityFlag) -> None:
    flags[where] |= np.uint16(flag)


def _background_and_noise(image: FloatArray, holes: npt.NDArray[np.bool_]) -> tuple[FloatArray, FloatArray]:
    """Median and noise per image, over every second pixel: a grid that turns and flips onto itself.

    The noise is the mean of the lower half of the absolute deviations: as robust as the median
    absolute deviation, and smooth where 8-bit stamps make that one jump between grey levels.
    """
    n = len(image)
    sample = image[:, ::2, ::2].reshape(n, -1)
    background = np.zeros(n, np.float32)
    noise = np.zeros(n, np.float32)
    whole = ~holes
    if whole.all():
        return _robust(sample.copy() if sample.base is image else sample)
    if whole.any():
        background[whole], noise[whole] = _robust(sample[whole])
    # Most rows with holes have the same ones: the margin that a small or a shrunk stamp does not cover.
    alike: dict[bytes, list[int]] = defaultdict(list)
    for row in np.flatnonzero(holes).tolist():
        alike[np.isfinite(image[row]).tobytes()].append(row)
    for rows in alike.values():
        seen = np.isfinite(sample[rows[0]])
        values = sample[rows][:, seen]
        if values.shape[1] < CORE * CORE:
            values = image[rows][:, np.isfinite(image[rows[0]])]
        if values.shape[1]:
            background[rows], noise[rows] = _robust(values)
    return background, noise


def _robust(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Row-wise median and noise of a 2-D array without NaN, which is used up."""
    count = values.shape[1]
    middle = count // 2
    values.sort(axis=1)
    # For an even count the mean of the two middle values, so that an inverted stamp has the inverted median.
    median: FloatArray = (values[:, middle] + values[:, middle - 1 + count % 2]) / np.float32(2)
    values -= median[:, None]
    # The smaller half of the deviations is one stretch of the sorted values: it begins behind those on the
    # left that deviate more than their counterparts beyond its end.
    first = (values[:, middle + 1 :] < -values[:, : count - middle - 1]).sum(axis=1)[:, None]
    np.abs(values, out=values)
    place = np.arange(count)
    lower = np.where((place >= first) & (place <= first + middle), values, 0.0)
    noise = lower.sum(axis=1) / ((middle + 1) * LOWER_HALF_MEAN)
    # More than half of the pixels equal: a mostly flat stamp, where only the rest gives a scale.
    flat = noise <= 1e-6 * np.maximum(values[:, 0], values[:, -1])
    if flat.any():
        noise[flat] = values[flat].mean(axis=1)
    return median.astype(np.float32), noise.astype(np.float32)


def _to_grid(stack: FloatArray, factor: float, size: int) -> FloatArray:
    """Shrink by `factor` and crop or pad to (n, size, size) around the centre; NaN where unseen."""
    n, height, width = stack.shape
    if factor == 1.0 and height % 2 and width % 2:
        if height == width == size:
            return stack.astype(np.float32, copy=True)
        out = np.full((n, size, size), np.nan, np.float32)
        (to_y, from_y), (to_x, from_x) = _overlap(height, size), _overlap(width, size)
        out[:, to_y, to_x] = stack[:, from_y, from_x]
        return out
    rows, cols = _resampling_matrix(height, size, factor), _resampling_matrix(width, size, factor)
    seen = ~np.isnan(stack)
    # In double precision and above the lowest pixel: a level far above the noise, or one that most pixels
    # share, must not become noise by rounding.
    level = np.where(seen, stack, np.inf).min(axis=(1, 2), keepdims=True).astype(np.float64)
    level[~np.isfinite(level)] = 0.0
    shrunk = rows @ np.where(seen, stack - level, 0.0) @ cols.T
    if seen.all():
        weight = np.outer(rows.sum(axis=1), cols.sum(axis=1))
    else:
        weight = rows @ seen.astype(np.float64) @ cols.T
    with np.errstate(invalid="ignore", divide="ignore"):
        # Means over the seen part of each pixel; fluxes per stamp are restored by the normalisation.
        mean: FloatArray = np.where(weight > LEAST_SEEN, shrunk / weight, np.nan).astype(np.float32)
    return mean


def _overlap(length: int, size: int) -> tuple[slice, slice]:
    """Where a centred line of `length` pixels goes in a line of `size`, and which part of it."""
    if length >= size:
        start = (length - size) // 2
        return slice(0, size), slice(start, start + size)
    start = (size - length) // 2
    return slice(start, start + length), slice(0, length)


def _resampling_matrix(length: int, size: int, factor: float) -> npt.NDArray[np.float64]:
    """Area weights (size, length) from a line of pixels to a centred line of broader pixels.

    Each target pixel covers ``1 / factor`` source pixels and averages what it covers: exact for
    flux, free of aliasing, symmetric about the centre, also for even lengths.
    """
    width = 1.0 / factor
    low = (np.arange(size) - size / 2) * width + length / 2
    edges = np.arange(length)
    covered = np.minimum(low[:, None] + width, edges[None] + 1) - np.maximum(low[:, None], edges[None])
    matrix: npt.NDArray[np.float64] = np.clip(covered, 0.0, None) / width
    return matrix


def _orient_difference(tensor: FloatArray) -> None:
    """Flip the sign of differences whose centre is negative: a fading source is a source.

    The sign comes from the flux within the core, which turns and flips onto itself.
    """
    half, core = tensor.shape[-1] // 2, CORE // 2
    flux = tensor[:, 2, half - core : half + core + 1, half - core : half + core + 1].sum(axis=(1, 2))
    tensor[flux < -LEAST_FLUX, 2] *= -1


@np.errstate(over="ignore")
def estimate_fwhm(science: npt.NDArray[Any]) -> float:
    """Estimate the seeing from the sources in one science stamp.

    The curvature of the logarithm of the flux across a source's peak gives the width of a
    Gaussian, at any sub-pixel position. The sharpest of the significant sources bounds the
    point-spread function: galaxies and blends are only ever broader.

    Parameters
    ----------
    science : ndarray, shape (H, W)

    Returns
    -------
    float
        FWHM in pixels; NaN where no source is bright enough to measure it.
    """
    stamp = _as_image(science)
    return float("nan") if stamp is None else float(_estimate_fwhm(_stack([stamp]))[0])


def _estimate_fwhm(stack: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """`estimate_fwhm` of like-shaped stamps (n, H, W)."""
    n = len(stack)
    seeing = np.full(n, np.nan)
    if min(stack.shape[1:]) < MIN_SIDE:
        return seeing
    # NaN fails both comparisons.
    clean = (stack.max(axis=(1, 2)) < SENTINEL) & (stack.min(axis=(1, 2)) > -SENTINEL)
    stack, _, _ = mark_missing(stack, np.asarray(clean))
    image: FloatArray = stack.astype(np.float32, copy=False)
    background, noise = _background_and_noise(image, np.asarray(np.isnan(image).any(axis=(1, 2))))
    noise[~(noise > 0)] = np.nan
    reach = max(FWHM_STEPS)
    inner = image[:, reach:-reach, reach:-reach]
    # Only the few pixels that stick out are looked at further; the margin is for rounding.
    least = background + 0.999 * FWHM_MIN_SNR * noise
    i, y, x = np.nonzero(inner > least[:, None, None])
    y, x = y + reach, x + reach

    def snr(dy: int, dx: int) -> FloatArray:
        values: FloatArray = (image[i, y + dy, x + dx] - background[i]) / noise[i]
        return values

    centre = snr(0, 0)
    peak = centre > FWHM_MIN_SNR
    for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
        peak &= centre >= snr(dy, dx)
    i, y, x, centre = i[peak], y[peak], x[peak], centre[peak]
    order = np.lexsort((-centre, i))
    order = order[_rank(i[order]) < FWHM_MAX_SOURCES]
    i, y, x, centre = i[order], y[order], x[order], np.log(centre[order])

    fwhm = np.full(len(i), np.nan)
    for step in FWHM_STEPS:
        with np.errstate(invalid="ignore", divide="ignore"):
            sides = [np.log(snr(dy, dx)) for dy, dx in ((step, 0), (-step, 0), (0, step), (0, -step))]
            curvature = (4 * centre - sum(sides)) / (2 * step**2)
            measured = FWHM_PER_SIGMA / np.sqrt(np.where(curvature > 0, curvature, np.nan))
        # A longer step beats the noise on a broad profile; on a sharp one it falls into the sky.
        use = np.isfinite(measured) & (np.isnan(fwhm) | (fwhm > 2.0 * step))
        fwhm[use] = measured[use]
    real = np.isfinite(fwhm) & (fwhm > FWHM_SHARPEST)
    i, fwhm = i[real], fwhm[real]
    fwhm = fwhm[np.lexsort((fwhm, i))]
    # The median of the sharper half of each stamp's sources.
    rows, first, count = np.unique(i, return_index=True, return_counts=True)
    half = (count + 1) // 2
    seeing[rows] = (fwhm[first + (half - 1) // 2] + fwhm[first + half // 2]) / 2
    return seeing


def _rank(groups: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Number of each element within its group, where groups stand together."""
    starts: npt.NDArray[np.int64] = np.flatnonzero(np.diff(groups, prepend=-1))
    rank: npt.NDArray[np.int64] = np.arange(len(groups)) - np.repeat(
        starts, np.diff(starts, append=len(groups))
    )
    return rank
