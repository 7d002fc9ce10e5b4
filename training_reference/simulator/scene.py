"""The sky: galaxies with bulge, disc and arms, stars by number counts, and where transients go off."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training_reference.simulator.psf import ComplexArray, FloatArray, Grid, phases
from training_reference.simulator.telescope import Telescope

__all__ = ["Gallery", "draw_gallery", "point_sources", "power_law", "sersic", "sources_like"]


@dataclass(frozen=True, slots=True)
class Gallery:
    """Galaxies of unit flux, sorted by size: Fourier planes and the shape that transients follow."""

    planes: ComplexArray
    radius: FloatArray
    ratio: FloatArray
    angle: FloatArray

    def nearest(self, radius: FloatArray) -> np.ndarray:
        """Index of the galaxy of about the half-light radius asked for, in px."""
        return np.clip(np.searchsorted(self.radius, radius), 0, len(self.radius) - 1)

    def offsets(self, rng: np.random.Generator, index: np.ndarray, nuclear: np.ndarray) -> FloatArray:
        """Positions (b, 2) as (y, x) relative to the galaxy's centre, drawn from its light.

        The radius follows an exponential disc, as do the offsets of supernovae (Kelly et al. 2008).
        """
        reach = rng.gamma(2.0, 1 / 1.678, len(index)) * self.radius[index]
        reach = np.where(nuclear, 0.0, np.minimum(reach, 3 * self.radius[index] + 1))
        turn = rng.uniform(0, 2 * np.pi, len(index))
        u, v = reach * np.cos(turn), reach * np.sin(turn) * self.ratio[index]
        cosine, sine = np.cos(self.angle[index]), np.sin(self.angle[index])
        return np.stack([u * sine + v * cosine, u * cosine - v * sine], axis=1).astype(np.float32)


def draw_gallery(rng: np.random.Generator, telescope: Telescope, grid: Grid, count: int) -> Gallery:
    """`count` galaxies: spirals, ellipticals, clumpy and compact ones, as seen by `telescope`.

    Half-light radii of 0.4–12″ become pixels through the pixel scale, and end at a fifth of the grid.
    """
    smallest = float(np.clip(0.4 / telescope.pixel_scale, 0.15, 0.8))
    largest = max(float(np.clip(12.0 / telescope.pixel_scale, 0.15, grid.n / 5)), 1.5 * smallest)
    radius = np.sort(np.exp(rng.uniform(np.log(smallest), np.log(largest), count))).astype(np.float32)
    ratio = np.clip(rng.beta(2.5, 1.2, count), 0.18, 1).astype(np.float32)
    angle = rng.uniform(0, np.pi, count).astype(np.float32)
    spiral = rng.random(count) < 0.55
    bulge = np.where(spiral, rng.beta(1.5, 5, count), 1.0).astype(np.float32)
    index = np.where(spiral, rng.uniform(1, 2.5, count), rng.uniform(1.0, 4.5, count)).astype(np.float32)

    def column(a: np.ndarray) -> FloatArray:
        return a.astype(np.float32)[:, None, None]

    y, x = grid.axes()
    u = x * np.cos(column(angle)) + y * np.sin(column(angle))
    v = y * np.cos(column(angle)) - x * np.sin(column(angle))
    flat = np.sqrt(u * u + (v / column(ratio)) ** 2 + 0.04) / column(radius)
    theta = np.arctan2(v / column(ratio), u)
    pitch = np.tan(rng.uniform(0.2, 0.6, count))
    arms = rng.integers(2, 5, count)
    phase = column(arms) * (theta - np.log(flat) / column(pitch)) + column(rng.uniform(0, 6.28, count))
    strength = np.where(spiral, rng.uniform(0.2, 1.0, count), 0.0)
    disc = np.exp(-1.678 * flat) * (1 + column(strength) * np.cos(phase)) ** 1.5
    # Bulges are rounder and, in discs, a few times smaller than the whole.
    round_ = column(np.where(spiral, 0.5 + 0.5 * ratio, ratio))
    size = column(np.where(spiral, rng.uniform(0.15, 0.4, count), 1.0))
    r = np.sqrt(u * u + (v / round_) ** 2 + 0.04) / (column(radius) * size)
    core = sersic(r, column(index))
    for part in (disc, core):
        part /= part.sum((1, 2), keepdims=True)
    light = (1 - column(bulge)) * disc + column(bulge) * core
    for k in np.flatnonzero(spiral & (rng.random(count) < 0.25)):  # star-forming clumps
        for _ in range(rng.integers(1, 5)):
            cy, cx = rng.normal(0, radius[k], 2)
            width = rng.uniform(0.1, 0.25) * radius[k] + 0.3
            clump = np.exp(-0.5 * ((x - cx) ** 2 + (y - cy) ** 2) / width**2)
            light[k] += rng.uniform(0.02, 0.15) * clump / clump.sum()
    return Gallery(grid.transform(light), radius, ratio, angle)


def sersic(r: FloatArray, index: FloatArray) -> FloatArray:
    """Surface brightness of a Sérsic profile at `r` half-light radii, 1 at the first."""
    return np.exp(-(2 * index - 1 / 3) * (r ** (1 / index) - 1))


def power_law(rng: np.random.Generator, shape: tuple[int, ...], slope: float, ceiling: float) -> FloatArray:
    """Fluxes of number counts N(>f) ∝ f^-slope, at least 1, at most `ceiling`."""
    return np.minimum((1 - rng.random(shape)) ** (-1 / slope), ceiling).astype(np.float32)


def point_sources(grid: Grid, position: FloatArray, flux: FloatArray) -> ComplexArray:
    """Fourier planes (b, fine, fine // 2 + 1) of sources at `position` (b, k, 2) px from the centre."""
    fy, fx = grid.frequencies(fine=True)
    at = position + grid.centre
    along_y = phases(fy[:, 0], at[..., 0]) * flux[..., None]
    planes: ComplexArray = np.matmul(along_y.transpose(0, 2, 1), phases(fx[0], at[..., 1]))
    return planes


def sources_like(gallery: Gallery, index: np.ndarray, grid: Grid, position: FloatArray) -> ComplexArray:
    """Fourier planes of galaxies of unit flux centred at `position` (b, 2)."""
    fy, fx = grid.frequencies(fine=True)
    at = position + grid.centre
    plane: ComplexArray = gallery.planes[index]
    plane *= phases(fy[:, 0], at[:, 0])[:, :, None]
    plane *= phases(fx[0], at[:, 1])[:, None, :]
    return plane
