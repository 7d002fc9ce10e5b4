"""Frames with known pixels, grids and stars, for tests of cutting."""

from __future__ import annotations

from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

HEIGHT, WIDTH = 90, 120
FRAME = np.arange(HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)


def grid(
    scale: float = 0.5, angle: float = 0.0, shift: tuple[float, float] = (0.0, 0.0), ctype: str = "TAN"
) -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = [f"RA---{ctype}", f"DEC--{ctype}"]
    wcs.wcs.crval = [150.0, 2.0]
    wcs.wcs.crpix = [60.5 + shift[0], 45.5 + shift[1]]
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    wcs.wcs.cd = np.array([[-cos, sin], [sin, cos]]) * scale / 3600
    wcs.wcs.set()
    return wcs


def stars(wcs: WCS, shape: tuple[int, int], sky: Any, sigma: float) -> Any:
    """Gaussian stars of 1000 counts at sky positions, without noise."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    image = np.zeros(shape)
    for ra, dec in sky:
        x, y = wcs.world_to_pixel_values(ra, dec)
        image += (
            np.exp(-0.5 * ((columns - x) ** 2 + (rows - y) ** 2) / sigma**2) * 1000 / (2 * np.pi * sigma**2)
        )
    return image


def hdu(data: Any, wcs: WCS | None = None, **cards: Any) -> fits.PrimaryHDU:
    header = fits.Header() if wcs is None else wcs.to_header()
    header.update(cards)
    return fits.PrimaryHDU(data, header)
