"""Pixels of a stamp that were not observed: sentinels, padding, and what pipelines fill holes with."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["SENTINEL", "background", "mad_noise", "mark_missing", "observed"]

SENTINEL = 1e30
"""Absolute values above this are markers for missing pixels, not fluxes."""

# A value that unseen pixels were filled with has at least so many of them, and lies so many times the noise
# (median absolute deviation) from the nearest other one where values come again anyway: grey levels.
FEWEST_FILLED = 9
FILLED_FROM_OTHERS = 10.0
# Different fills of one stamp: that of the frame's edge, of masked pixels, of the subtraction.
FILLS = 3
FEWEST_USUAL = 25
# Least share of the pixels that are not fill, of those unlike all others, and of a fill's pixels that are
# one of 2 x 2 of them: negative noise that was cut off at zero is an eighth.
USUAL = 0.25
DISTINCT = 0.9
SOLID = 0.4


def observed(stamp: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """One stamp with NaN where `preprocess` takes a pixel for missing.

    Parameters
    ----------
    stamp : ndarray, shape (H, W)

    Returns
    -------
    ndarray, shape (H, W)
        Empty if the stamp is not 2-D.
    """
    image = np.ma.filled(np.ma.asarray(stamp).astype(np.float64), np.nan)
    if image.ndim != 2 or image.size == 0:
        return np.empty((0, 0))
    with np.errstate(invalid="ignore"):
        clean = np.array([bool((np.abs(image) < SENTINEL).all())])
    return np.asarray(mark_missing(image[None], clean)[0][0], np.float64)


def mad_noise(values: npt.NDArray[np.floating[Any]], middle: float) -> float:
    """Noise of some pixels about `middle`: the scaled median absolute deviation; 0 without pixels."""
    return 1.4826 * float(np.median(np.abs(values - middle))) if values.size else 0.0


def background(image: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Median and noise (scaled median absolute deviation, else standard deviation, else 1) of seen pixels."""
    values = image[np.isfinite(image)]
    if not values.size:
        return 0.0, 1.0
    middle = float(np.median(values))
    return middle, mad_noise(values, middle) or float(values.std()) or 1.0


def mark_missing(
    stack: npt.NDArray[Any], clean: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Turn sentinels, infinities, and what a survey pads with or fills unseen pixels with into NaN.

    Parameters
    ----------
    stack : ndarray, shape (n, H, W)
        Like-shaped stamps, floats; not changed.
    clean : ndarray of bool, shape (n,)
        Rows that hold no NaN, infinity or sentinel.

    Returns
    -------
    ndarray, shape (n, H, W)
        `stack` itself where nothing is missing.
    padded : ndarray of bool, shape (n,)
        Rows with a margin of one value.
    masked : ndarray of bool, shape (n,)
        Rows with other missing pixels.
    """
    padded, masked = np.zeros(len(stack), bool), ~clean
    margins = np.zeros(len(stack), bool)
    for line in (stack[:, 0], stack[:, -1], stack[:, :, 0], stack[:, :, -1]):
        margins |= line.max(axis=1) == line.min(axis=1)
    if masked.any():
        stack = stack.copy()
        with np.errstate(invalid="ignore"):
            stack[masked] = np.where(np.abs(stack[masked]) < SENTINEL, stack[masked], np.nan)
    fills = _may_be_filled(stack)
    if not margins.any() and not fills.any():
        return stack, padded, masked
    if not masked.any():
        stack = stack.copy()
    for row in np.flatnonzero(fills):
        (padded if margins[row] else masked)[row] |= _blank_fills(stack[row])
    for row in np.flatnonzero(margins):
        padded[row] |= _blank_margins(stack[row])
    return stack, padded, masked


def _may_be_filled(stack: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Rows in which a corner equals what is beside it, or many pixels do though they are no integers."""
    middle = stack[:, stack.shape[1] // 2]
    several: npt.NDArray[np.bool_] = np.asarray(
        ((stack[:, :, 1:] == stack[:, :, :-1]).sum(axis=(1, 2)) >= FEWEST_FILLED)
        & (middle != np.rint(middle)).any(axis=1)
    )
    for turned in (stack, stack[:, ::-1], stack[:, :, ::-1], stack[:, ::-1, ::-1]):
        several |= (turned[:, 0, 0] == turned[:, 0, 1]) & (turned[:, 0, 0] == turned[:, 1, 0])
    return several


def _blank_fills(image: npt.NDArray[Any]) -> bool:
    """Set what unseen pixels of one image were filled with to NaN, in place; True if there was anything.

    Such a value comes in blocks among values that hardly come twice, or holds a corner and is far from all
    others. The highest value is none: that may be a saturated star. Nor is what holds every corner, or
    what makes up most of the stamp: that is the background of one without noise, or of few grey levels.
    """
    values, counts = np.unique(image[np.isfinite(image)], return_counts=True)
    corners = image[:: len(image) - 1, :: image.shape[1] - 1]
    candidates = np.isin(values, corners)
    # Of equally frequent values the highest, on every processor.
    candidates[np.argsort(counts, kind="stable")[-FILLS:]] = True
    candidates &= counts >= FEWEST_FILLED
    kinds, usual = values[~candidates], np.repeat(values[~candidates], counts[~candidates])
    if len(usual) < max(FEWEST_USUAL, USUAL * counts.sum()):
        return False
    distinct = len(kinds) > DISTINCT * len(usual)
    least = FILLED_FROM_OTHERS * np.median(np.abs(usual - np.median(usual)))
    found = False
    for value in values[candidates]:
        filled, holds = image == value, corners == value
        blocks = filled[1:, 1:] & filled[1:, :-1] & filled[:-1, 1:] & filled[:-1, :-1]
        solid = distinct and blocks.sum() > SOLID * filled.sum()
        far = holds.any() and np.abs(kinds - value).min() > least
        if value < kinds[-1] and not holds.all() and (solid or far):
            image[filled] = np.nan
            found = True
    return found


def _blank_margins(image: npt.NDArray[Any]) -> bool:
    """Set the constant margins of one image to NaN, in place; True if there were any.

    A margin counts when its lines share one value: at least two lines, or one line of zeros.
    """
    found = False
    for view in (image, image[::-1], image.T, image.T[::-1]):
        value = view[0, 0]
        constant = (view == value).all(axis=1)
        depth = len(view) if constant.all() else int(np.argmin(constant))
        if depth >= 2 or (depth == 1 and value == 0):
            view[:depth] = np.nan
            found = True
    return found
