"""Write the example cutouts: simulated triplets, one FITS file each, the same bytes every time.

python docs/examples/make_examples.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from astropy.io import fits

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from training_reference.simulator import Telescope, simulate  # noqa: E402

SURVEY = Telescope(
    pixel_scale=1.01,
    fwhm=2.2,
    reference_fwhm=2.0,
    size=63,
    beta=3.2,
    ellipticity=0.05,
    reference_noise=0.35,
    gain=20.0,
    saturation=4000.0,
    stars=1.2,
    galaxies=0.25,
    spikes=0.0,
    misregistration=0.03,
    correlated=0.2,
)
"""A small survey: 1.01 arcsec per pixel, FWHM 2.2 px."""

# Name: kind and seed, picked so that each shows what it is named for.
EXAMPLES = {
    "supernova_on_galaxy": ("supernova", 16),
    "supernova_faint": ("supernova", 6),
    "nuclear_agn": ("nuclear", 3),
    "variable_star": ("variable star", 25),
    "variable_star_fading": ("variable star", 22),
    "asteroid": ("asteroid", 14),
    "hostless": ("hostless", 29),
    "dipole": ("dipole", 28),
    "cosmic_ray": ("cosmic ray", 9),
    "saturated_star": ("saturated core", 12),
    "chip_edge": ("hostless", 34),
    "blank": ("hostless", 15),
    "missing_reference": ("supernova", 3),
}


def stamps(name: str) -> list[np.ndarray | None]:
    """Science, reference and difference of one example; the reference is None where there is none."""
    kind, seed = EXAMPLES[name]
    images = simulate(1, seed, telescope=SURVEY, kinds=[kind]).triplets[0]
    triplet: list[np.ndarray | None] = list(images)
    if name == "chip_edge":
        images[:, :, 44:] = np.nan
    elif name == "blank":
        images[:] = 0.0
    elif name == "missing_reference":
        triplet[1] = None
    return triplet


def write(folder: Path) -> list[Path]:
    """Write every example into `folder`; gives the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in EXAMPLES:
        primary = fits.PrimaryHDU()
        primary.header["CANDID"] = (name, "name of the candidate")
        primary.header["PIXSCALE"] = (SURVEY.pixel_scale, "[arcsec/pixel]")
        primary.header["FWHMPX"] = (SURVEY.fwhm, "[pixel] seeing")
        primary.header["ORIGIN"] = ("simulated", "docs/examples/make_examples.py")
        hdus = [primary]
        for channel, image in zip(("SCIENCE", "REFERENCE", "DIFFERENCE"), stamps(name), strict=True):
            if image is not None:
                hdus.append(fits.ImageHDU(image.astype(">f4"), name=channel))
        path = folder / f"{name}.fits"
        fits.HDUList(hdus).writeto(path, overwrite=True)
        paths.append(path)
    return paths


if __name__ == "__main__":
    for path in write(Path(__file__).resolve().parent / "cutouts"):
        print(path.relative_to(ROOT))
