"""Bring one frame's pixels onto another frame's grid, only where a stamp needs them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Regridder", "same_grid"]

_SAME_GRID_PX = 0.5
_MAX_SUPERSAMPLING = 8


def same_grid(wcs: Any, shape: tuple[int, int], other_wcs: Any, other_shape: tuple[int, int]) -> bool:
    """Whether two frames can be cut at the same pixels.

    Differences below half a pixel are left alone: pipelines register frames by their stars and
    seldom bring both headers' astrometry into line afterwards, and interpolating for less than
    that would blur more than it aligns.
    """
    if shape != other_shape:
        return False
    if wcs is None or other_wcs is None:
        return True
    height, width = shape
    x, y = (a.ravel() for a in np.meshgrid(np.linspace(0, width - 1, 3), np.linspace(0, height - 1, 3)))
    there = _pixel_to_pixel(wcs, other_wcs, x, y)
    return bool(np.all(np.hypot(there[0] - x, there[1] - y) < _SAME_GRID_PX))


class Regridder:
    """Cuts of `data` sampled on the pixel grid of another frame.

    The map between the two grids is evaluated through both WCS at nine points of each stamp and
    carried to its pixels by biquadratic interpolation: over a stamp, optical distortion is far below
    a hundredth of a pixel from that. Values come from cubic convolution (Keys 1981, a = -1/2); where
    `data` has much finer pixels, each output pixel averages a grid of samples, so that nothing aliases.
    Counts per pixel are scaled by the ratio of pixel areas: flux is conserved.

    Parameters
    ----------
    data : ndarray, shape (H, W)
        Frame to take pixels from; may be memory-mapped.
    mask : ndarray of bool, shape (H, W), or None
        True where `data` is to be ignored.
    wcs, target_wcs : astropy.wcs.WCS
        Astrometry of `data` and of the grid to sample on.
    size : int
        Side of a stamp in pixels of the target grid.
    """

    def __init__(
        self,
        data: npt.NDArray[Any],
        mask: npt.NDArray[np.bool_] | None,
        wcs: Any,
        target_wcs: Any,
        size: int,
    ) -> None:
        from astropy.wcs.utils import proj_plane_pixel_area

        self._data, self._mask, self._wcs, self._target_wcs, self._size = data, mask, wcs, target_wcs, size
        area_ratio = float(proj_plane_pixel_area(target_wcs) / proj_plane_pixel_area(wcs))
        self._flux_factor = area_ratio
        self._fine = min(max(round(math.sqrt(area_ratio)), 1), _MAX_SUPERSAMPLING)
        samples = (np.arange(size * self._fine) + 0.5) / self._fine - 0.5
        self._knots = np.array([0.0, (size - 1) / 2, size - 1.0]) if size > 1 else np.array([-0.5, 0.0, 0.5])
        self._basis = _quadratic_basis(self._knots, samples)

    def lattices(self, x0: npt.NDArray[Any], y0: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Positions in `data` of nine points of each stamp, shape (N, 2, 3, 3), as x and y.

        `x0` and `y0`, shape (N,), are the first column and row of the stamps on the target grid.
        """
        shape = (len(x0), 3, 3)
        x = np.broadcast_to(x0[:, None, None] + self._knots[None, None, :], shape)
        y = np.broadcast_to(y0[:, None, None] + self._knots[None, :, None], shape)
        there = _pixel_to_pixel(self._target_wcs, self._wcs, x.ravel(), y.ravel())
        return np.stack([there[0].reshape(shape), there[1].reshape(shape)], axis=1)

    def cut(self, lattice: npt.NDArray[np.float64], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """One stamp, shape (size, size); NaN where `data` has no pixel for it."""
        fine = self._basis.shape[0]
        blank = np.full((self._size, self._size), np.nan, dtype)
        if not np.isfinite(lattice).all():
            return blank
        x, y = self._basis @ lattice @ self._basis.T
        height, width = self._data.shape
        left, top = max(math.floor(x.min()) - 1, 0), max(math.floor(y.min()) - 1, 0)
        right, bottom = min(math.ceil(x.max()) + 3, width), min(math.ceil(y.max()) + 3, height)
        if left >= right or top >= bottom:
            return blank
        patch = np.array(self._data[top:bottom, left:right], np.float64)
        if self._mask is not None:
            patch[self._mask[top:bottom, left:right]] = np.nan
        values = _cubic(patch, x.ravel() - left, y.ravel() - top).reshape(fine, fine)
        if self._fine > 1:
            blocks = values.reshape(self._size, self._fine, self._size, self._fine)
            good = np.isfinite(blocks)
            count = good.sum(axis=(1, 3))
            total = np.where(good, blocks, 0).sum(axis=(1, 3))
            # Half of the samples at least, or the pixel was not observed.
            values = np.where(2 * count >= self._fine**2, total / np.maximum(count, 1), np.nan)
        return (values * self._flux_factor).astype(dtype)


def _pixel_to_pixel(
    wcs: Any, other: Any, x: npt.NDArray[Any], y: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Pixels of `wcs` as pixels of `other`; NaN where the sky point has no place there."""
    from astropy.wcs import NoConvergence
    from astropy.wcs.utils import pixel_to_pixel

    try:
        there = pixel_to_pixel(wcs, other, x, y)
    except NoConvergence as error:
        # A few points far off the frame must not cost the others their positions.
        there = error.best_solution.T
        for bad in (error.divergent, error.slow_conv):
            if bad is not None:
                there[:, bad] = np.nan
    return np.asarray(there[0], np.float64), np.asarray(there[1], np.float64)


def _quadratic_basis(knots: npt.NDArray[Any], at: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Lagrange polynomials of three knots at some points, shape (len(at), 3)."""
    a, b, c = knots
    return np.stack(
        [
            (at - b) * (at - c) / ((a - b) * (a - c)),
            (at - a) * (at - c) / ((b - a) * (b - c)),
            (at - a) * (at - b) / ((c - a) * (c - b)),
        ],
        axis=1,
    )


def _cubic_weights(t: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float64], ...]:
    """Keys' weights of the four neighbours of a point at fraction `t` past the second one."""
    t2 = t * t
    t3 = t2 * t
    return (
        -0.5 * t3 + t2 - 0.5 * t,
        1.5 * t3 - 2.5 * t2 + 1.0,
        -1.5 * t3 + 2.0 * t2 + 0.5 * t,
        0.5 * t3 - 0.5 * t2,
    )


def _cubic(
    patch: npt.NDArray[np.float64], x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """`patch` at fractional positions, shape (P,); NaN outside and on NaN pixels.

    A position whose nearest pixel is good but whose wider neighbourhood is not takes the nearest
    pixel's value: a NaN costs its own area and not a rim of two pixels around it.
    """
    height, width = patch.shape
    padded = np.pad(patch, 2, constant_values=np.nan).ravel()
    stride = width + 4
    inside = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
    x, y = np.where(inside, x, 0.0), np.where(inside, y, 0.0)
    column, row = np.floor(x).astype(np.intp), np.floor(y).astype(np.intp)
    corner = (row + 1) * stride + column + 1
    across, down = _cubic_weights(x - column), _cubic_weights(y - row)
    value = np.zeros(len(x))
    for i in range(4):
        line = corner + i * stride
        value += down[i] * sum(across[j] * padded.take(line + j) for j in range(4))
    nearest = padded.take((np.rint(y).astype(np.intp) + 2) * stride + np.rint(x).astype(np.intp) + 2)
    return np.where(inside, np.where(np.isfinite(value), value, nearest), np.nan)
