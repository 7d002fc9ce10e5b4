"""What detectors and sky add: noise, saturation, cosmic rays, trails, ghosts, bad lines, edges."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from training_reference.simulator.psf import FloatArray
from training_reference.simulator.telescope import Telescope

__all__ = [
    "add_background",
    "bad_line",
    "blotch",
    "cosmic_ray",
    "diffraction_spike",
    "ghost",
    "noise",
    "noise_bump",
    "satellite_trail",
    "saturate",
    "unobserved",
    "wrong_edge",
]


def noise(
    rng: np.random.Generator, image: FloatArray, sky: FloatArray, gain: FloatArray, smoothing: float
) -> FloatArray:
    """Noise of images (b, n, n): sky noise `sky` (b,) and the shot noise of sources.

    Parameters
    ----------
    gain : ndarray, shape (b,)
        Electrons per unit of flux.
    smoothing : float
        Weight of each neighbour in a separable kernel, as resampling correlates noise; the variance
        per pixel stays what it was.
    """
    drawn = rng.standard_normal(image.shape, np.float32)
    if smoothing > 0:
        for axis in (1, 2):
            drawn = drawn + np.float32(smoothing) * (np.roll(drawn, 1, axis) + np.roll(drawn, -1, axis))
        drawn /= np.float32(1 + 2 * smoothing**2)
    variance = (sky**2)[:, None, None] + np.maximum(image, 0) / gain[:, None, None]
    return drawn * np.sqrt(variance, dtype=np.float32)


def add_background(rng: np.random.Generator, image: FloatArray, telescope: Telescope) -> None:
    """Column pattern of the readout for all; gradients, fringes and amplifier steps for some, in place."""
    b, n = image.shape[:2]
    if telescope.stripes > 0:
        period = int(rng.integers(2, 6))
        pattern = rng.standard_normal((b, 1, period), np.float32)
        strength = telescope.stripes * rng.exponential(1.0, (b, 1, 1)).astype(np.float32)
        image += strength * np.tile(pattern, n // period + 1)[:, :, :n]
    line = np.linspace(-1, 1, n, dtype=np.float32)
    for row in np.flatnonzero(rng.random(b) < 0.1):
        sort = rng.random()
        if sort < 0.6:
            a, c, curve = rng.normal(0, 0.8, 3)
            image[row] += (
                np.float32(a) * line[:, None] + np.float32(c) * line + np.float32(0.5 * curve) * line**2
            )
        elif sort < 0.85:
            ky, kx = rng.uniform(-9, 9, 2).astype(np.float32)
            wave = np.sin(ky * line[:, None] + kx * line + np.float32(rng.uniform(0, 6)))
            image[row] += np.float32(rng.uniform(0.2, 1.5)) * wave
        else:
            image[row][:, : int(rng.integers(1, n))] += np.float32(rng.normal(0, 1.5))


def saturate(
    rng: np.random.Generator, image: FloatArray, level: float, *, bleeds: bool, core: str = "clip"
) -> list[tuple[int, npt.NDArray[np.bool_]]]:
    """Clip images (b, n, n) at `level` in place, charge bleeding along columns.

    Parameters
    ----------
    core : {"clip", "interpolate", "dark"}
        What saturated pixels hold, see `Telescope.saturated_core`.

    Returns
    -------
    list of (row, mask)
        The images with saturated pixels, and which those are.
    """
    found = []
    for row in np.flatnonzero(image.max((1, 2)) > level):
        pixels = image[row]
        mask = pixels > level
        deep = pixels > level * rng.uniform(1.5, 4)
        if bleeds:
            for x in np.flatnonzero(mask.any(axis=0)):
                run = np.flatnonzero(mask[:, x])
                reach = int(min(0.15 * pixels[run, x].sum() / level, 0.5 * len(mask)))
                mask[max(0, run[0] - reach) : run[-1] + reach + 1, x] = True
        # Full wells differ a little, and the response bends before them.
        near = (pixels > 0.7 * level) & ~mask
        pixels[near] *= np.float32(rng.uniform(0.94, 1.0))
        pixels[mask] = level * (1 + 0.02 * rng.standard_normal(int(mask.sum()), np.float32))
        if core == "dark":
            pixels[deep] *= np.float32(rng.uniform(-0.1, 0.6))
        elif core == "interpolate":
            columns = np.arange(pixels.shape[1])
            for y in np.flatnonzero(mask.any(axis=1) & ~mask.all(axis=1)):
                hidden = mask[y]
                pixels[y, hidden] = np.interp(columns[hidden], columns[~hidden], pixels[y, ~hidden])
        found.append((int(row), mask))
    return found


def cosmic_ray(rng: np.random.Generator, image: FloatArray, y: float, x: float, peak: float) -> None:
    """A hot pixel, a straight track or the curl of a slow electron through (y, x), in place.

    Sharper than any point-spread function where the detector was read; charge diffusion and the
    resampling onto the reference's grid make it one to two pixels wide.
    """
    n = len(image)
    length = 0.0 if rng.random() < 0.35 else float(np.exp(rng.uniform(0, np.log(20))))
    steps = np.arange(-length / 2, length / 2 + 0.125, 0.25)
    angle = rng.uniform(0, np.pi) + np.zeros(len(steps))
    if length > 3 and rng.random() < 0.2:
        angle = angle + np.cumsum(rng.normal(0, 0.25, len(steps)))
    ys = y + np.cumsum(0.25 * np.sin(angle)) - (0.25 * np.sin(angle)).sum() / 2
    xs = x + np.cumsum(0.25 * np.cos(angle)) - (0.25 * np.cos(angle)).sum() / 2
    rows, columns = np.rint(ys).astype(int), np.rint(xs).astype(int)
    inside = (rows >= 0) & (rows < n) & (columns >= 0) & (columns < n)
    deposit = np.zeros((n, n), np.float32)
    charge = rng.uniform(0.6, 1.0, len(steps)) * np.exp(np.cumsum(rng.normal(0, 0.08, len(steps))))
    np.add.at(deposit, (rows[inside], columns[inside]), charge[inside].astype(np.float32))
    deposit *= np.float32(peak / max(float(deposit.max()), 1e-9))
    # Left, right, above and below alike for diffusion; one corner for a shift by a fraction of a pixel.
    if rng.random() < 0.5:
        spread = np.float32(rng.uniform(0.02, 0.2))
        deposit += spread * sum(np.roll(deposit, step, axis) for step in (-1, 1) for axis in (0, 1))
    if rng.random() < 0.4:
        for axis in (0, 1):
            share = np.float32(rng.uniform(0, 0.5))
            deposit = (1 - share) * deposit + share * np.roll(deposit, int(rng.choice([-1, 1])), axis)
    image += deposit


def diffraction_spike(
    rng: np.random.Generator, image: FloatArray, y: float, x: float, level: float, width: float
) -> None:
    """The arm of a bright star nearby through (y, x), of Gaussian profile (sigma `width` px), in place.

    It fades away from the star, and its knots and gaps make detections along it.
    """
    axis = np.arange(len(image), dtype=np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    along = (axis[:, None] - y) * np.sin(angle) + (axis - x) * np.cos(angle)
    across = (axis[:, None] - y) * np.cos(angle) - (axis - x) * np.sin(angle)
    knots = 1 + rng.uniform(0, 0.6) * np.cos(along / rng.uniform(1, 3) + rng.uniform(0, 6.28))
    arm = np.exp(-along / rng.uniform(4, 25) - 0.5 * (across / width) ** 2) * knots
    arm = np.minimum(arm, rng.uniform(2, 30))
    # Where the arm is weak the light of the star's halo is not seen either.
    image += (level * arm).astype(np.float32)


def noise_bump(
    rng: np.random.Generator, image: FloatArray, y: float, x: float, level: float, width: float
) -> None:
    """What noise is on average where it has a peak: a lump of its correlation length, in place.

    Parameters
    ----------
    level : float
        Height of the lump.
    width : float
        FWHM of the point-spread function that the image was filtered with, px.
    """
    axis = np.arange(len(image), dtype=np.float32)
    dy, dx = axis[:, None] - y, axis - x
    turn = rng.uniform(0, np.pi)
    u, v = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
    a, b = width / 2.3548 * rng.uniform(0.5, 1.4, 2)
    image += (level * np.exp(-0.5 * ((u / a) ** 2 + (v / b) ** 2))).astype(np.float32)


def bad_line(rng: np.random.Generator, image: FloatArray, place: int, level: float) -> None:
    """A hot or dead column or row, or the part of one, in place."""
    lines = image if rng.random() < 0.7 else image.T
    n = len(lines)
    start = 0 if rng.random() < 0.6 else int(rng.integers(0, n // 2 + 1))
    width = int(rng.choice([1, 1, 1, 2, 3]))
    part = lines[start:, place : place + width]
    part += level * (1 + 0.1 * rng.standard_normal(part.shape, np.float32))


def satellite_trail(
    rng: np.random.Generator, image: FloatArray, y: float, x: float, level: float, width: float
) -> None:
    """A straight trail of Gaussian profile (sigma `width` px) through (y, x), in place."""
    axis = np.arange(len(image), dtype=np.float32)
    angle = rng.uniform(0, np.pi)
    distance = (axis[:, None] - y) * np.cos(angle) - (axis - x) * np.sin(angle)
    image += (level * np.exp(-0.5 * (distance / width) ** 2)).astype(np.float32)


def ghost(
    rng: np.random.Generator, image: FloatArray, y: float, x: float, radius: float, hole: float, level: float
) -> None:
    """An out-of-focus reflection: a disc with a hole of radius `hole` and soft edges, in place."""
    axis = np.arange(len(image), dtype=np.float32)
    distance = np.hypot(axis[:, None] - y, axis - x)
    soft = np.float32(rng.uniform(0.1, 0.3) * radius + 0.3)
    inner = _step((hole - distance) / soft) if hole > 0 else np.float32(0)
    image += np.float32(level) * (_step((radius - distance) / soft) - inner)


def _step(x: FloatArray) -> FloatArray:
    return (0.5 * (1 + np.tanh(x))).astype(np.float32)


def blotch(
    rng: np.random.Generator, image: FloatArray, y: float, x: float, level: float, width: float
) -> None:
    """Worse noise around a place, of a grain coarser or finer than the seeing `width`, in place."""
    n = len(image)
    axis = np.arange(n, dtype=np.float32)
    reach = rng.uniform(2, 6) * width
    grain = rng.standard_normal((n, n), np.float32)
    for _ in range(rng.integers(0, 3)):
        grain = (grain + np.roll(grain, 1, 0) + np.roll(grain, 1, 1)) / np.float32(np.sqrt(3))
    image += level * grain * np.exp(-0.5 * ((axis[:, None] - y) ** 2 + (axis - x) ** 2) / reach**2)


def unobserved(rng: np.random.Generator, n: int, gap: float, spread: float) -> npt.NDArray[np.bool_]:
    """Mask (n, n) beyond a chip edge that passes `gap` to `gap + spread` px from the centre."""
    axis = np.arange(n) - n // 2
    tilt = rng.normal(0, 0.1) if rng.random() < 0.3 and spread > 0 else 0.0
    mask = axis[None] + tilt * axis[:, None] > gap + rng.uniform(0, spread)
    if rng.random() < 0.5:
        mask = mask[:, ::-1]
    return mask if rng.random() < 0.5 else mask.T


def wrong_edge(rng: np.random.Generator, mask: npt.NDArray[np.bool_], level: float) -> FloatArray:
    """What the last one to three lines before a chip edge (mask) hold too much or too little."""
    strip = np.zeros_like(mask)
    for shift in range(1, int(rng.integers(2, 5))):
        for axis in (0, 1):
            strip |= np.roll(mask, shift, axis) | np.roll(mask, -shift, axis)
    return (level * rng.uniform(0.3, 1, mask.shape) * (strip & ~mask)).astype(np.float32)
