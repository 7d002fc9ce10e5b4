"""Image subtraction with its errors: the difference is A·science − B·reference in Fourier space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training_reference.simulator.psf import ComplexArray, FloatArray, Grid
from training_reference.simulator.telescope import Telescope

__all__ = ["Errors", "subtract"]


@dataclass(slots=True)
class Errors:
    """What the pipeline gets wrong, one row per candidate.

    Parameters
    ----------
    shift : ndarray, shape (b, 2)
        Misregistration (y, x) in px.
    broadening : ndarray, shape (b, 3)
        Error of the assumed science point-spread function: variances yy, xx and covariance in px².
    scale : ndarray, shape (b,)
        Relative error of the flux scale.
    shape : ndarray, shape (b,)
        Share of the science point-spread function that is taken for a round Gaussian of its width: all
        that a kernel of few smooth terms can make of a trailed or defocused one.
    """

    shift: FloatArray
    broadening: FloatArray
    scale: FloatArray
    shape: FloatArray


def subtract(
    science: FloatArray,
    reference: FloatArray,
    science_transfer: ComplexArray,
    reference_transfer: ComplexArray,
    errors: Errors,
    telescope: Telescope,
    grid: Grid,
    reference_noise: FloatArray,
    fwhm: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Difference and its matched-filter image.

    ``method="kernel"`` convolves the sharper image to the broader one (Alard & Lupton 1998);
    ``"zogy"`` is the proper difference of Zackay et al. (2016), whose noise is white.

    Parameters
    ----------
    science, reference : ndarray, shape (b, n, n)
    science_transfer, reference_transfer : ndarray, shape (b, n, n // 2 + 1)
        Transfer functions on the pixel grid.
    reference_noise : ndarray, shape (b,)
        Sky noise of the reference.
    fwhm : ndarray, shape (b,)
        Of the science point-spread function, px.

    Returns
    -------
    difference, filtered : ndarray, shape (b, n, n)
        `filtered` peaks where a detection algorithm would trigger.
    """
    fy, fx = grid.frequencies(fine=False)
    yy, xx, yx = (errors.broadening[:, i, None, None] for i in range(3))
    quadratic = yy * (fy * fy) + xx * (fx * fx) + 2 * yx * (fy * fx)
    assumed = science_transfer * np.exp(np.clip(-2 * np.pi**2 * quadratic, -4, 4)).astype(np.float32)
    rows = np.flatnonzero(errors.shape > 0.01)
    if len(rows):
        sigma2 = ((fwhm[rows] / 2.3548) ** 2)[:, None, None]
        round_ = np.exp(np.float32(-2 * np.pi**2) * sigma2 * (fy * fy + fx * fx))
        # Centred on the grid's origin, as the transfer functions are.
        assumed[rows] += errors.shape[rows, None, None] * (round_ - assumed[rows])
    turns = errors.shift[:, 0, None, None] * fy + errors.shift[:, 1, None, None] * fx
    moved = np.exp((-2j * np.pi) * turns).astype(np.complex64)
    moved *= (1 + errors.scale[:, None, None]).astype(np.float32)
    power = (reference_transfer.real**2 + reference_transfer.imag**2).astype(np.float32)
    if telescope.method == "zogy":
        ratio2 = (reference_noise**2)[:, None, None]
        spectrum = np.sqrt(ratio2 * (assumed.real**2 + assumed.imag**2) + power + np.float32(1e-5))
        flux = np.sqrt(1 + ratio2) / spectrum
        left, right = reference_transfer * flux, assumed * flux
    else:
        # Dividing by a broader transfer function would blow up the noise: convolve the sharper image.
        own = assumed.real**2 + assumed.imag**2
        science_is_broader = own.sum((1, 2), keepdims=True) <= power.sum((1, 2), keepdims=True)
        kernel = assumed * reference_transfer.conj()
        left = np.where(science_is_broader, 1, kernel.conj() / (own + np.float32(2e-3)))
        right = np.where(science_is_broader, kernel / (power + np.float32(2e-3)), 1)
    plane = left * np.fft.rfft2(science).astype(np.complex64, copy=False)
    plane -= right * moved * np.fft.rfft2(reference).astype(np.complex64, copy=False)
    if telescope.ringing > 0:
        sigma2 = ((0.5 * fwhm) ** 2)[:, None, None]
        smooth = np.exp(np.float32(-2 * np.pi**2) * sigma2 * (fy * fy + fx * fx))
        plane *= 1 + np.float32(telescope.ringing) * (1 - smooth)
    match = (left * science_transfer).conj()
    shape = (grid.n, grid.n)
    difference = np.fft.irfft2(plane, s=shape).astype(np.float32, copy=False)
    return difference, np.fft.irfft2(plane * match, s=shape).astype(np.float32, copy=False)
