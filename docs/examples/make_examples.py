"""Write the example cutouts: simulated triplets, one FITS file each.

    python docs/examples/make_examples.py [FOLDER]

Every file holds the extensions SCIENCE, REFERENCE and DIFFERENCE (float32, 63x63) with a sky
orientation, the pixel scale (PIXSCALE, arcsec) and the seeing (FWHM, px); the primary header names
the candidate (OBJECT) and its simulated truth (TRUTH). Seeds are fixed: the same NumPy on the same
kind of processor gives the same bytes.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy.io import fits

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from training_reference.simulator import DECAM_LIKE, ZTF_LIKE, Telescope, simulate  # noqa: E402

_NEARBY = replace(
    DECAM_LIKE, size=63, pixel_scale=0.4, fwhm=2.9, reference_fwhm=2.7, fill=float("nan"), reference_noise=0.3
)


class Example(NamedTuple):
    """Candidate `index` of `count` of one kind that `seed` draws."""

    kind: str
    seed: int
    index: int
    count: int = 12
    telescope: Telescope = ZTF_LIKE
    #: What the survey failed to deliver: "reference", or "all" for blank stamps.
    lost: str = ""


EXAMPLES = {
    "supernova_on_galaxy": Example("supernova", 12, 9, 48, _NEARBY),
    "supernova_faint": Example("supernova", 12, 14, 24),
    "nuclear_agn": Example("nuclear", 12, 0),
    "variable_star": Example("variable star", 13, 9),
    "variable_star_fading": Example("variable star", 15, 8),
    "asteroid": Example("asteroid", 31, 1, 6),
    "hostless": Example("hostless", 10, 1, 6),
    "dipole": Example("dipole", 14, 1, 6),
    "cosmic_ray": Example("cosmic ray", 17, 4, 6),
    "saturated_star": Example("saturated core", 11, 0, 6),
    "chip_edge": Example("hostless", 22, 19, 48),
    "blank": Example("hostless", 15, 1, 6, lost="all"),
    "missing_reference": Example("asteroid", 20, 4, 6, lost="reference"),
}


def make(name: str) -> fits.HDUList:
    """The example `name` as FITS units, primary header first."""
    example = EXAMPLES[name]
    batch = simulate(
        example.count, example.seed, telescope=example.telescope, kinds=[example.kind] * example.count
    )
    stamps = batch.triplets[example.index]
    if example.lost == "all":
        stamps = np.zeros_like(stamps)
    primary = fits.PrimaryHDU()
    primary.header["OBJECT"] = (name, "name of the candidate")
    primary.header["TRUTH"] = (example.kind, "kind of the simulated candidate")
    units = [primary]
    for extension, stamp in zip(("SCIENCE", "REFERENCE", "DIFFERENCE"), stamps, strict=True):
        if example.lost != extension.lower():
            units.append(_unit(extension, stamp, batch.pixel_scale, float(batch.fwhm[example.index])))
    return fits.HDUList(units)


def _unit(extension: str, stamp: np.ndarray, pixel_scale: float, fwhm: float) -> fits.ImageHDU:
    unit = fits.ImageHDU(stamp, name=extension)
    step, centre = pixel_scale / 3600, stamp.shape[0] // 2 + 1
    for key, value in (
        ("PIXSCALE", pixel_scale),
        ("CTYPE1", "RA---TAN"),
        ("CTYPE2", "DEC--TAN"),
        ("CRVAL1", 150.0),
        ("CRVAL2", 2.2),
        ("CRPIX1", float(centre)),
        ("CRPIX2", float(centre)),
        ("CD1_1", -step),
        ("CD1_2", 0.0),
        ("CD2_1", 0.0),
        ("CD2_2", step),
    ):
        unit.header[key] = value
    if extension == "SCIENCE":
        unit.header["FWHM"] = (round(fwhm, 3), "[px] seeing")
    return unit


def main(folder: Path) -> None:
    """Write all examples into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in EXAMPLES:
        make(name).writeto(folder / f"{name}.fits", overwrite=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "cutouts")
