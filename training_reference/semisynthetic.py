"""Candidates made out of real stamps, for training only.

Real backgrounds, real noise, real subtraction residuals: a stamp is recentred on another place of
itself, where something real or bogus is known to be or is put. What leaves the stamp is missing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["draw"]

FloatArray = npt.NDArray[np.float32]

# Farthest new centre, so that most of the stamp remains.
_REACH = 18


def draw(triplets: FloatArray, n: int, seed: int) -> tuple[FloatArray, npt.NDArray[np.bool_], list[str]]:
    """Make `n` candidates from real triplets.

    Parameters
    ----------
    triplets : ndarray, shape (N, 3, H, W)
        Raw stamps of the training objects alone.
    n : int
    seed : int

    Returns
    -------
    triplets (n, 3, H, W), real (n,), kinds
        Bogus kinds: residual (subtraction at another bright source), noise (peak of the difference),
        dipole (a source of the reference, subtracted from itself after a shift), cosmic ray. Real
        kinds: a point source put into an empty place, or beside a source of the reference.
    """
    maker = _Maker(triplets, np.random.default_rng(seed))
    kinds = maker.rng.choice(
        ["residual", "noise", "dipole", "cosmic ray", "injected beside", "injected"],
        4 * n,
        p=[0.22, 0.18, 0.2, 0.12, 0.14, 0.14],
    )
    made: list[FloatArray] = []
    names: list[str] = []
    for kind in kinds:
        triplet = maker.make(str(kind))
        if triplet is not None:
            made.append(triplet)
            names.append(str(kind))
        if len(made) == n:
            break
    return np.stack(made), np.array([name.startswith("injected") for name in names]), names


class _Maker:
    def __init__(self, triplets: FloatArray, rng: np.random.Generator):
        self.triplets, self.rng = triplets, rng
        self.centre = triplets.shape[-1] // 2

    def make(self, kind: str) -> FloatArray | None:
        """One candidate; None if the drawn stamp has no place for it."""
        rng = self.rng
        row = int(rng.integers(len(self.triplets)))
        noise = self._level(row)[1]
        if kind in ("residual", "noise"):
            place = self._peak(row, *((0, 15.0) if kind == "residual" else (2, 3.0)), hollow=6)
            return None if place is None else self._recentred(row, *place)
        if kind == "dipole":
            place = self._peak(row, int(rng.integers(2)), 10.0, hollow=6 if rng.random() < 0.7 else 0)
            if place is None:
                return None
            triplet = self._recentred(row, *place)
            shift = rng.normal(0, 0.5, 2)
            left = (triplet[1] - _shifted(triplet[1], *shift)) * noise[2] / noise[1] * rng.uniform(0.3, 2)
            triplet[2] += np.nan_to_num(left)
            return triplet
        if kind == "cosmic ray":
            triplet = self._recentred(row, *rng.integers(-14, 15, 2))
            ray = self._ray() * noise[0] * np.exp(rng.uniform(np.log(8), np.log(300)))
            triplet[0] += ray
            triplet[2] += ray * rng.uniform(0.7, 1.2) * noise[2] / noise[0]
            return triplet
        offset = rng.uniform(-14, 14, 2)
        if kind == "injected beside":
            host = self._peak(row, 1, 6.0, hollow=6)
            if host is None:
                return None
            offset = host + rng.normal(0, 2.5, 2)
        triplet = self._recentred(row, *np.round(offset).astype(int))
        fwhm = rng.uniform(1.6, 3.2)
        snr = np.exp(rng.uniform(np.log(5), np.log(150)))
        source = self._point_source(fwhm) * snr * noise[0] * np.sqrt(4 * np.pi) * fwhm / 2.3548
        triplet[0] += source
        triplet[2] += source * noise[2] / (1.15 * noise[0])
        return triplet

    def _level(self, row: int) -> tuple[FloatArray, FloatArray]:
        """Background and noise of the three stamps."""
        sample = self.triplets[row, :, ::2, ::2].reshape(3, -1)
        median = np.nanmedian(sample, axis=1)
        return median, 1.4826 * np.nanmedian(np.abs(sample - median[:, None]), axis=1) + 1e-6

    def _peak(self, row: int, channel: int, threshold: float, hollow: int) -> npt.NDArray[np.intp] | None:
        """Offset from the centre of a local maximum above `threshold` noises, outside the `hollow`."""
        median, noise = self._level(row)
        lo, hi = self.centre - _REACH - 1, self.centre + _REACH + 2
        box = (self.triplets[row, channel, lo:hi, lo:hi] - median[channel]) / noise[channel]
        box = np.nan_to_num(np.abs(box) if channel == 2 else box)
        inner = box[1:-1, 1:-1]
        peak = (inner > threshold) & (inner >= box[:-2, 1:-1]) & (inner >= box[2:, 1:-1])
        peak &= (inner >= box[1:-1, :-2]) & (inner >= box[1:-1, 2:])
        y, x = np.nonzero(peak)
        offsets = np.stack([y - _REACH, x - _REACH], axis=1)
        offsets = offsets[(offsets**2).sum(axis=1) > hollow**2] if hollow else offsets
        return offsets[self.rng.integers(len(offsets))] if len(offsets) else None

    def _recentred(self, row: int, dy: int, dx: int) -> FloatArray:
        return np.stack([_moved(image, -int(dy), -int(dx)) for image in self.triplets[row]])

    def _ray(self) -> FloatArray:
        rng, size = self.rng, self.triplets.shape[-1]
        image = np.zeros((size, size), np.float32)
        length = int(rng.choice([1, 1, 1, 2, 3, 5, 8]))
        angle = rng.uniform(0, np.pi)
        for part in np.arange(length) - (length - 1) / 2:
            y, x = round(self.centre + part * np.sin(angle)), round(self.centre + part * np.cos(angle))
            image[y, x] += rng.uniform(0.5, 1)
        if rng.random() < 0.4:
            # Charge that diffused into the neighbours.
            image += rng.uniform(0, 0.25) * sum(
                np.roll(image, step, axis) for step in (-1, 1) for axis in (0, 1)
            )
        return image

    def _point_source(self, fwhm: float) -> FloatArray:
        """A Moffat profile of unit flux, up to half a pixel off the centre."""
        beta = self.rng.uniform(2.5, 5)
        grid = np.arange(self.triplets.shape[-1]) - self.centre
        y, x = grid[:, None] - self.rng.uniform(-0.5, 0.5), grid[None] - self.rng.uniform(-0.5, 0.5)
        core = fwhm / (2 * np.sqrt(2 ** (1 / beta) - 1))
        profile = (1 + (y**2 + x**2) / core**2) ** -beta
        return (profile / profile.sum()).astype(np.float32)


def _moved(image: FloatArray, dy: int, dx: int) -> FloatArray:
    """Move by whole pixels; NaN comes in."""
    height, width = image.shape
    moved = np.full_like(image, np.nan)
    moved[max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)] = image[
        max(-dy, 0) : height + min(-dy, 0), max(-dx, 0) : width + min(-dx, 0)
    ]
    return moved


def _shifted(image: FloatArray, dy: float, dx: float) -> FloatArray:
    """Move by a fraction of pixels, bilinear."""
    iy, ix = int(np.floor(dy)), int(np.floor(dx))
    fy, fx = dy - iy, dx - ix
    parts = [
        weight * _moved(image, iy + a, ix + b)
        for a, b, weight in (
            (0, 0, (1 - fy) * (1 - fx)),
            (1, 0, fy * (1 - fx)),
            (0, 1, (1 - fy) * fx),
            (1, 1, fy * fx),
        )
    ]
    return np.asarray(sum(parts), np.float32)
