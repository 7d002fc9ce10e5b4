"""Point-spread functions as optical transfer functions, and the way from Fourier planes to pixels.

Scenes live in the Fourier plane of a grid `oversample` times finer than the pixels: point sources
then have exact sub-pixel positions, and undersampled telescopes alias as real detectors do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training_reference.simulator.telescope import Telescope

__all__ = ["Grid", "draw_transfer", "phases"]

FloatArray = npt.NDArray[np.float32]
ComplexArray = npt.NDArray[np.complex64]
MARGIN = 8


def _fast_length(n: int) -> int:
    """Smallest even length >= n with no prime factor above 5."""
    n += n % 2
    while True:
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 2


@dataclass(frozen=True, slots=True)
class Grid:
    """Pixel grid of one batch: `n` pixels a side, at least `MARGIN` beyond the stamp on every side."""

    n: int
    oversample: int

    @classmethod
    def of(cls, telescope: Telescope) -> Grid:
        """The grid that holds the stamps of `telescope`, twice finer where its PSF is undersampled."""
        sharpest = min(telescope.fwhm * np.exp(-2 * telescope.seeing_scatter), telescope.reference_fwhm)
        margin = max(MARGIN, int(np.ceil(1.5 * telescope.fwhm)))
        return cls(_fast_length(telescope.size + 2 * margin), 2 if sharpest < 2.4 else 1)

    @property
    def fine(self) -> int:
        """Side of the fine grid."""
        return self.n * self.oversample

    @property
    def centre(self) -> int:
        """Index of the pixel that the candidate falls on."""
        return self.n // 2

    def frequencies(self, *, fine: bool) -> tuple[FloatArray, FloatArray]:
        """Frequencies in cycles per pixel: (m, 1) along y and (1, m // 2 + 1) along x."""
        m, step = (self.fine, 1 / self.oversample) if fine else (self.n, 1.0)
        fy = np.fft.fftfreq(m, step).astype(np.float32)[:, None]
        return fy, np.fft.rfftfreq(m, step).astype(np.float32)[None]

    def axes(self) -> tuple[FloatArray, FloatArray]:
        """Offsets of the fine grid's points from its centre in pixels: (m, 1) and (1, m)."""
        x = ((np.arange(self.fine) - self.fine // 2) / self.oversample).astype(np.float32)
        return x[:, None], x[None]

    def transform(self, image: FloatArray) -> ComplexArray:
        """Fourier plane of fine images centred on the grid, normalised to unit flux."""
        plane = np.fft.rfft2(np.fft.ifftshift(image, axes=(-2, -1))).astype(np.complex64, copy=False)
        plane /= np.maximum(plane[..., :1, :1].real, 1e-12)
        return plane

    def pixels(self, plane: ComplexArray) -> FloatArray:
        """Pixel values (b, n, n) of fine Fourier planes (b, fine, fine // 2 + 1)."""
        if self.oversample == 1:
            return np.fft.irfft2(plane, s=(self.n, self.n)).astype(np.float32, copy=False)
        # Keeping every second row is adding the two halves of the spectrum.
        rows = np.fft.ifft(plane[:, : self.n] + plane[:, self.n :], axis=1)
        columns = np.fft.irfft(rows, n=self.fine, axis=2)[:, :, ::2]
        return (2.0 * columns).astype(np.float32)


def phases(frequency: FloatArray, position: FloatArray) -> ComplexArray:
    """exp(-2πi f x) for frequencies (m,) and positions (...): shape (..., m)."""
    turns = position[..., None] * frequency
    turns = (turns - np.rint(turns)) * np.float32(-2 * np.pi)
    result = np.empty(turns.shape, np.complex64)
    result.real = np.cos(turns)
    result.imag = np.sin(turns)
    return result


def draw_transfer(
    rng: np.random.Generator,
    telescope: Telescope,
    fwhm: npt.NDArray[np.floating],
    grid: Grid,
    *,
    defocus: npt.NDArray[np.floating] | None = None,
    tracking: npt.NDArray[np.floating] | None = None,
) -> ComplexArray:
    """Transfer functions of one point-spread function per entry of `fwhm`, pixel response included.

    Elliptical Moffat profiles with diffraction spikes, defocus annulus and tracking trails.

    Parameters
    ----------
    fwhm : array, shape (k,)
        Full widths at half maximum in pixels.
    defocus, tracking : array, shape (k,), optional
        Radius of the annulus and length of the trail in FWHM; by default the telescope's.

    Returns
    -------
    ndarray, complex64, shape (k, fine, fine // 2 + 1)
        1 at zero frequency: flux is conserved.
    """
    k = len(fwhm)
    y, x = grid.axes()
    width = np.asarray(fwhm, np.float32)[:, None, None]
    angle = rng.uniform(0, np.pi, (k, 1, 1)).astype(np.float32)
    ratio = (1 - np.clip(np.abs(rng.normal(telescope.ellipticity, 0.03, (k, 1, 1))), 0, 0.4)).astype(
        np.float32
    )
    u = (x * np.cos(angle) + y * np.sin(angle)) * np.sqrt(ratio)
    v = (y * np.cos(angle) - x * np.sin(angle)) / np.sqrt(ratio)
    beta = np.clip(rng.normal(telescope.beta, 0.2, (k, 1, 1)), 2.2, 6.0).astype(np.float32)
    alpha2 = width**2 / (4 * (2 ** (1 / beta) - 1))
    profile = (1 + (u * u + v * v) / alpha2) ** -beta
    plane = grid.transform(profile.astype(np.float32))
    if telescope.spike_flux > 0:
        plane += telescope.spike_flux * (_spikes(telescope, x, y, grid) - plane)
    radius = np.hypot(x, y)
    annuli = np.full(k, telescope.defocus) if defocus is None else defocus
    for row in np.flatnonzero(annuli > 0.1):
        outer = max(float(annuli[row]) * telescope.fwhm, 1.5)
        plane[row] *= grid.transform(((radius <= outer) & (radius >= 0.45 * outer)).astype(np.float32))
    fy, fx = grid.frequencies(fine=True)
    lengths = telescope.tracking * rng.uniform(0.5, 1.5, k) if tracking is None else tracking
    if (lengths > 0).any():
        length = (telescope.fwhm * lengths).astype(np.float32)[:, None, None]
        turn = np.float32(rng.uniform(0, np.pi))
        plane *= np.sinc(length * (fx * np.cos(turn) + fy * np.sin(turn))).astype(np.float32)
    return (plane * np.sinc(fx) * np.sinc(fy)).astype(np.complex64)


def _spikes(telescope: Telescope, x: FloatArray, y: FloatArray, grid: Grid) -> ComplexArray:
    """Transfer function of the diffraction arms alone."""
    image = np.zeros((grid.fine, grid.fine), np.float32)
    length = max(6.0, 3.0 * telescope.fwhm)
    for arm in range(telescope.spikes // 2):
        angle = telescope.spike_angle + 2 * np.pi * arm / telescope.spikes
        along = np.abs(x * np.cos(angle) + y * np.sin(angle))
        across = (y * np.cos(angle) - x * np.sin(angle)) / (0.35 * telescope.fwhm)
        image += (1.0 if arm == 0 else 0.35) * np.exp(-along / length - across**2)
    return grid.transform(image)
