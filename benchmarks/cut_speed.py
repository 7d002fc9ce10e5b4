"""Time of cutting triplets out of one set of full frames, and how well another pixel grid is met.

Run from a checkout: ``python benchmarks/cut_speed.py [--candidates 10000] [--side 4096]``. It makes a set of
frames in a temporary folder, cuts stamps on the science grid, with a reference on another grid, and into
files, and prints seconds, candidates per second and the peak memory of the process.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from transientnet import cut_triplets
from transientnet.cutting.cutouts import write_fits, write_npz
from transientnet.cutting.frames import open_frame


def grid(side: int, scale: float, angle: float, shift: float) -> WCS:
    """A gnomonic WCS: arcsec/px, rotation in degrees, offset of the field's centre in pixels."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.0, 2.0]
    wcs.wcs.crpix = [side / 2 + 0.5 + shift, side / 2 + 0.5 - shift]
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    wcs.wcs.cd = np.array([[-cos, sin], [sin, cos]]) * scale / 3600
    return wcs


def write_frame(path: Path, wcs: WCS, side: int, seed: int, sources: np.ndarray, fwhm: float) -> None:
    """A frame of noise and Gaussian stars of 10,000 counts at sky positions `sources`."""
    pixels = np.random.default_rng(seed).normal(0, 5, (side, side)).astype(np.float32)
    sigma, half = fwhm / 2.3548, 12
    for x, y in zip(*wcs.world_to_pixel_values(sources[:, 0], sources[:, 1]), strict=True):
        column, row = round(float(x)), round(float(y))
        if half <= column < side - half and half <= row < side - half:
            along_x = np.exp(-0.5 * ((np.arange(-half, half + 1) + column - x) / sigma) ** 2)
            along_y = np.exp(-0.5 * ((np.arange(-half, half + 1) + row - y) / sigma) ** 2)
            stamp = 1e4 / (2 * np.pi * sigma**2) * np.outer(along_y, along_x)
            pixels[row - half : row + half + 1, column - half : column + half + 1] += stamp
    header = wcs.to_header()
    header["FWHM"] = (fwhm, "pixels")
    fits.writeto(path, pixels, header)


def timed(label: str, candidates: int, work: Callable[[], int]) -> None:
    """Run and print one line."""
    start = time.perf_counter()
    done = work()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert done == candidates
    print(f"{label:<58} {seconds:7.2f} s {done / seconds:9.0f} /s   peak {peak:6.0f} MiB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidates", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=4096)
    options = parser.parse_args()
    n, side = options.candidates, options.side
    science_grid = grid(side, 0.4, 0.0, 0.0)
    other_grid = grid(side, 0.33, 12.0, 30.3)
    rng = np.random.default_rng(1)
    x, y = rng.uniform(0, side, (2, n))
    sky = np.stack(science_grid.pixel_to_world_values(x, y), axis=1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        science, reference = folder / "science.fits", folder / "reference.fits"
        difference, rotated = folder / "difference.fits", folder / "rotated.fits"
        for path, wcs, seed, fwhm in (
            (science, science_grid, 2, 3.0),
            (reference, science_grid, 3, 3.0),
            (difference, science_grid, 4, 3.0),
            (rotated, other_grid, 5, 3.0 * 0.4 / 0.33),
        ):
            write_frame(path, wcs, side, seed, sky, fwhm)
        catalog = folder / "candidates.csv"
        Table({"id": np.arange(n), "ra": sky[:, 0], "dec": sky[:, 1]}).write(catalog, format="ascii.csv")
        same = (science, reference, difference, catalog)
        print(f"{n} candidates, 63 x 63 pixels, frames of {side} x {side}")
        timed("one grid, RA and Dec through the WCS", n, lambda: sum(1 for _ in cut_triplets(*same)))
        timed(
            "reference of 0.33 on a science grid of 0.40 arcsec/px, 12 deg",
            n,
            lambda: sum(1 for _ in cut_triplets(science, rotated, difference, catalog)),
        )
        wcs = open_frame(science, "science").wcs
        timed(
            "one grid, into FITS files",
            n,
            lambda: sum(1 for _ in write_fits(cut_triplets(*same), folder / "stamps", wcs=wcs)),
        )
        timed("one grid, into one .npz", n, lambda: write_npz(cut_triplets(*same), folder / "stamps.npz"))
        print("resampled stars against their true places:", end=" ")
        fluxes, offsets = [], []
        yy, xx = np.mgrid[-7:8, -7:8]
        for triplet in cut_triplets(science, rotated, None, Table({"x": x[:500], "y": y[:500]}), size=15):
            stamp = triplet.reference
            assert stamp is not None
            if not np.isfinite(stamp).all():
                continue
            core = np.where(np.hypot(xx, yy) < 6, stamp - np.median(stamp), 0.0)
            true = [triplet.meta[axis] - np.ceil(triplet.meta[axis] - 7.5) - 7 for axis in ("x", "y")]
            fluxes.append(core.sum())
            offsets.append(
                [(core * xx).sum() / core.sum() - true[0], (core * yy).sum() / core.sum() - true[1]]
            )
        flux, (right, up) = np.median(fluxes) / 1e4, np.median(offsets, axis=0)
        print(f"flux {flux:.3f}, median offset {right:+.3f} {up:+.3f} px, {len(fluxes)} stars")


if __name__ == "__main__":
    main()
