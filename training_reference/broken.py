"""Inputs that no survey would send on purpose, to teach what a broken stamp looks like.

Planes in the wrong order, pixels shuffled, gradients, a plane of another candidate, pure noise: whoever
reads a file with the wrong columns makes them. The network learns to tell them from sound stamps of any
telescope, which is what its out-of-distribution output says.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from transientnet.prepare.contract import InputContract
from transientnet.prepare.preprocess import preprocess
from transientnet.triplet import Triplet

__all__ = ["BROKEN", "break_flux", "break_tensor"]

FloatArray = npt.NDArray[np.float32]
Breaker = Callable[[np.random.Generator, FloatArray, FloatArray], FloatArray]


def _turned(rng: np.random.Generator, stamps: FloatArray, other: FloatArray) -> FloatArray:
    return stamps[[1, 2, 0]] if rng.random() < 0.5 else stamps[[2, 0, 1]]


def _swapped(rng: np.random.Generator, stamps: FloatArray, other: FloatArray) -> FloatArray:
    # Science and reference in each other's place are a source that faded: nothing in them is wrong.
    return stamps[[2, 1, 0]] if rng.random() < 0.5 else stamps[[0, 2, 1]]


def _shuffled(rng: np.random.Generator, stamps: FloatArray, other: FloatArray) -> FloatArray:
    flat = stamps.reshape(3, -1)
    if rng.random() < 0.5:
        return flat[:, rng.permutation(flat.shape[1])].reshape(stamps.shape)
    return rng.permuted(flat, axis=1).reshape(stamps.shape)


def _gradient(rng: np.random.Generator, stamps: FloatArray, other: FloatArray) -> FloatArray:
    line = np.linspace(-0.5, 0.5, stamps.shape[-1], dtype=np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    ramp = line[:, None] * np.sin(angle) + line * np.cos(angle)
    height = np.nanstd(stamps, axis=(1, 2), keepdims=True) * np.exp(rng.uniform(np.log(3), np.log(60)))
    return np.asarray(stamps + height * ramp, np.float32)


def _wrong_plane(rng: np.random.Generator, stamps: FloatArray, other: FloatArray) -> FloatArray:
    broken = stamps.copy()
    plane = int(rng.choice(3, p=[0.3, 0.1, 0.6]))
    broken[plane] = other[int(rng.integers(3)) if rng.random() < 0.3 else plane]
    return broken


def _displaced(rng: np.random.Generator, stamps: FloatArray, other: FloatArray) -> FloatArray:
    broken = stamps.copy()
    plane = int(rng.choice([0, 2]))
    broken[plane] = np.roll(broken[plane], tuple(rng.choice([-1, 1], 2) * rng.integers(6, 20, 2)), (0, 1))
    return broken


def _pure_noise(rng: np.random.Generator, stamps: FloatArray, other: FloatArray) -> FloatArray:
    drawn = rng.standard_normal(stamps.shape, np.float32)
    if rng.random() < 0.3:
        drawn += np.roll(drawn, 1, 1) + np.roll(drawn, 1, 2)
    return drawn


def _columns(rng: np.random.Generator, stamps: FloatArray, other: FloatArray) -> FloatArray:
    broken = stamps.copy()
    for plane in broken:
        plane[:, rng.integers(0, plane.shape[1], int(rng.integers(4, 10)))] = np.nanmax(plane)
    return broken


def _clipped(rng: np.random.Generator, stamps: FloatArray, other: FloatArray) -> FloatArray:
    level = np.nanpercentile(stamps, rng.uniform(55, 85), axis=(1, 2), keepdims=True)
    return np.asarray(np.minimum(stamps, level), np.float32)


def _smoothed(rng: np.random.Generator, stamps: FloatArray, other: FloatArray) -> FloatArray:
    reach = range(-2, 3)
    moved = [np.roll(stamps, (a, b), (1, 2)) for a in reach for b in reach]
    return np.asarray(np.mean(moved, axis=0), np.float32)


def _negative(rng: np.random.Generator, stamps: FloatArray, other: FloatArray) -> FloatArray:
    return stamps * np.float32([[[-1]], [[-1]], [[1]]])


BROKEN: dict[str, Breaker] = {
    "planes turned": _turned,
    "planes swapped": _swapped,
    "pixels shuffled": _shuffled,
    "gradient": _gradient,
    "wrong plane": _wrong_plane,
    "plane displaced": _displaced,
    "pure noise": _pure_noise,
    "bright columns": _columns,
    "clipped": _clipped,
    "smoothed": _smoothed,
    "negative": _negative,
}
"""What may be broken: of fluxes (3, H, W), and those of another candidate, a broken triplet."""


def break_flux(
    rng: np.random.Generator, flux: FloatArray, kinds: list[str] | None = None
) -> tuple[FloatArray, npt.NDArray[np.str_]]:
    """Break triplets (n, 3, H, W) of at least two candidates, each in one way; NaN is kept.

    Returns
    -------
    flux (n, 3, H, W), kinds (n,)
    """
    chosen = rng.choice(list(BROKEN) if kinds is None else kinds, len(flux))
    made = [BROKEN[str(kind)](rng, flux[row], flux[row - 1]) for row, kind in enumerate(chosen)]
    return np.stack(made).astype(np.float32), chosen


def break_tensor(rng: np.random.Generator, tensor: FloatArray, contract: InputContract) -> FloatArray:
    """Break normalised stamps (n, 3, S, S) and normalise them anew."""
    flux = np.sinh(tensor.astype(np.float32)) * contract.softening
    # A plane that is absent altogether stays so.
    flux[(tensor == 0) & (tensor != 0).any(axis=(2, 3), keepdims=True)] = np.nan
    broken, _ = break_flux(rng, flux)
    sharp = contract.fwhm_px[0]  # their sampling stays as it is
    return preprocess([Triplet(*stamps, fwhm=sharp) for stamps in broken], contract).tensor
