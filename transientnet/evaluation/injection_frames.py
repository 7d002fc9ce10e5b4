"""Stamps for injection out of full frames: at random places, on stars and on galaxies."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..cutting.cut import cut_triplets
from ..cutting.frames import open_frame
from ..errors import EmptyInputError, UsageError
from ..prepare.missing import background
from ..triplet import Triplet

__all__ = ["frame_stamps"]

_SOURCE_SNR = 15.0
# Pixels that the sky and the noise of a frame are taken from.
_SAMPLE = 200_000


def frame_stamps(
    science: Any,
    reference: Any = None,
    difference: Any = None,
    *,
    count: int = 600,
    size: int = 63,
    mask: Any = None,
    pixel_scale: float | None = None,
    fwhm: float | None = None,
    seed: int = 0,
) -> list[Triplet]:
    """Cut stamps that `completeness` can inject into, half at random, half around sources of the frame.

    Parameters
    ----------
    science, reference, difference, mask
        Frames, as `transientnet.cutting.cut.cut_triplets` takes them.
    count : int
        Stamps.
    size : int
        Side of a stamp, px.
    pixel_scale, fwhm : float, optional
        arcsec per pixel, and seeing in px, where the header has none.
    seed : int

    Returns
    -------
    list of Triplet

    Raises
    ------
    UsageError
        The frame is smaller than a stamp.
    EmptyInputError
        No stamp of the frame has pixels.
    ReadError
        A frame cannot be read.
    """
    frame = open_frame(science, "science")
    height, width = frame.shape
    if min(height, width) < size:
        raise UsageError(f"{frame.name} has {width} x {height} pixels: too few for stamps of {size}")
    rng = np.random.default_rng(seed)
    image = np.where(frame.mask, np.nan, frame.data) if frame.mask is not None else frame.data
    peaks = _peaks(np.asarray(image, np.float32), size // 2, rng)
    on_source = peaks[rng.permutation(len(peaks))[: count // 2]]
    edge = size // 2
    anywhere = np.column_stack(
        [rng.integers(edge, n - edge, count - len(on_source)) for n in (height, width)]
    )
    places = np.concatenate([on_source, anywhere])
    positions = {"x": places[:, 1], "y": places[:, 0], "id": [f"stamp{k}" for k in range(len(places))]}
    cut = cut_triplets(
        frame, reference, difference, positions, size=size, mask=mask, pixel_scale=pixel_scale, fwhm=fwhm,
        one_based=False,
    )  # fmt: skip
    stamps = [triplet for triplet in cut if triplet.error is None and np.isfinite(triplet.science).any()]
    if not stamps:
        raise EmptyInputError(f"{frame.name}: no part of it has pixels")
    return stamps


def _peaks(image: npt.NDArray[np.float32], edge: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Rows and columns (N, 2) of what stands out of the sky, `edge` pixels within the frame."""
    sample = rng.choice(image.reshape(-1), min(_SAMPLE, image.size), replace=False).astype(np.float64)
    sky, noise = background(sample[None])
    inner = image[edge:-edge, edge:-edge]
    highest = inner > sky + _SOURCE_SNR * max(noise, 1e-9)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            if dy or dx:
                rows = slice(edge + dy, image.shape[0] - edge + dy)
                columns = slice(edge + dx, image.shape[1] - edge + dx)
                highest &= inner >= image[rows, columns]
    return np.argwhere(highest) + edge
