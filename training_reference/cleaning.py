"""Cleaning of host-morphology labels: what the catalogue said against what the reference stamp shows.

Catalogue rules err where the catalogue is deeper than the survey's reference, where it has no entry,
and where a minor planet passes a star. The class is about the reference, so the reference decides: a
source at the candidate's place, and how concentrated it is. No network has a say in it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from transientnet.prepare.contract import InputContract
from transientnet.prepare.preprocess import preprocess
from transientnet.triplet import Triplet

__all__ = ["Counterpart", "clean", "counterparts", "on_bright_star"]

HOSTED, VARIABLE, ORPHAN = 0, 1, 2

_SEEN, _UNSEEN = 6.0, 4.0
"""Signal to noise of a counterpart that is there, and of none, in the central 5x5 pixels."""

_RESOLVED, _POINT_LIKE = 0.5, 0.6
"""Flux within 2 px over flux within 6 px: below, a galaxy; above, a star. Between, nobody knows."""

_BESIDE = 1.5
"""A star farther off than this, in pixels, is not the candidate."""


_BRIGHT_STAR = 100.0
"""Signal to noise of a star that leaves residuals."""


class Counterpart(NamedTuple):
    """What the reference stamps show at the candidate's place; each of shape (N,).

    snr : signal to noise in the central 5x5 pixels.
    concentration : flux within 2 px of the brightest central pixel over that within 6 px.
    offset : distance of that pixel from the centre, px.
    """

    snr: np.ndarray
    concentration: np.ndarray
    offset: np.ndarray


def counterparts(triplets: np.ndarray, fwhm: float, contract: InputContract) -> Counterpart:
    """Measure the reference stamps of raw triplets (N, 3, H, W)."""
    snr, concentration, offset = (np.zeros(len(triplets)) for _ in range(3))
    middle = contract.size // 2
    grid = np.arange(contract.size)
    reach = slice(middle - 4, middle + 5)
    for row, stamps in enumerate(triplets):
        tensor = preprocess([Triplet(*stamps, fwhm=fwhm)], contract).tensor[0, 1].astype(np.float64)
        flux = np.sinh(tensor) * contract.softening
        snr[row] = flux[middle - 2 : middle + 3, middle - 2 : middle + 3].sum() / 5
        y, x = (k + middle - 4 for k in np.unravel_index(np.argmax(flux[reach, reach]), (9, 9)))
        distance = np.hypot(grid[:, None] - y, grid[None] - x)
        whole = flux[distance <= 6].sum()
        concentration[row] = flux[distance <= 2].sum() / whole if whole > 0 else np.nan
        offset[row] = np.hypot(y - middle, x - middle)
    return Counterpart(snr, concentration, offset)


def on_bright_star(seen: Counterpart) -> np.ndarray:
    """Which candidates stand on a star whose residual alone may be what was detected; shape (N,)."""
    star = (seen.concentration > _POINT_LIKE) | (seen.snr > 3 * _BRIGHT_STAR)
    return np.asarray((seen.snr > _BRIGHT_STAR) & (seen.offset <= _BESIDE) & star)


def clean(labels: np.ndarray, seen: Counterpart) -> tuple[np.ndarray, np.ndarray]:
    """Labels that the reference bears out.

    Parameters
    ----------
    labels : ndarray of int, shape (N,)
        0 hosted, 1 variable, 2 orphan; anything else is left alone.
    seen : Counterpart

    Returns
    -------
    labels : ndarray of int, shape (N,)
        -1 where label and reference differ and the reference does not tell what it is instead.
    reasons : ndarray of str, shape (N,)
        Why a label was changed; empty where it was not.
    """
    cleaned = labels.copy()
    present, absent = seen.snr > _SEEN, seen.snr < _UNSEEN
    star = present & (seen.concentration > _POINT_LIKE) & (seen.offset <= _BESIDE)
    galaxy = present & (seen.concentration < _RESOLVED)
    neither = present & ~star & ~galaxy
    # A saturated or blended star is no galaxy: more is asked here.
    broad = present & (seen.concentration < _RESOLVED - 0.1)
    reasons = np.full(len(labels), "", dtype="<U60")
    for was, where, now, why in (
        (ORPHAN, star, VARIABLE, "a point source in the reference"),
        (ORPHAN, galaxy, HOSTED, "a resolved source in the reference"),
        (ORPHAN, neither, -1, "a source of unclear shape in the reference"),
        (HOSTED, absent, ORPHAN, "no source in the reference"),
        (HOSTED, star, VARIABLE, "a point source in the reference"),
        (HOSTED, neither, -1, "a source of unclear shape in the reference"),
        (VARIABLE, absent, -1, "no source in the reference"),
        (VARIABLE, broad, -1, "a resolved source in the reference"),
    ):
        rows = (labels == was) & where
        cleaned[rows], reasons[rows] = now, why
    return cleaned, reasons
