"""What candidates are made of: kinds, and for each the fluxes, hosts and faults that cause it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from training_reference.simulator.psf import FloatArray
from training_reference.simulator.scene import Gallery, power_law
from training_reference.simulator.subtraction import Errors
from training_reference.simulator.telescope import Telescope

__all__ = ["BOGUS", "CAUSES", "REAL", "Candidates", "draw_candidates", "draw_kinds"]

REAL = {
    "supernova": "hosted",
    "nuclear": "hosted",
    "variable star": "variable",
    "asteroid": "orphan",
    "hostless": "orphan",
}
"""Kinds of real candidates and their host morphology."""

BOGUS = (
    "dipole",
    "kernel mismatch",
    "shape mismatch",
    "flux scale",
    "saturated core",
    "cosmic ray",
    "noise peak",
    "bad column",
    "trail",
    "glints",
    "ghost",
    "spike",
    "crosstalk",
    "reference artefact",
    "noisy reference",
    "chip edge",
)
"""Kinds of bogus candidates."""

CAUSES = {
    "residual": ("dipole", "kernel mismatch", "shape mismatch", "flux scale", "saturated core"),
    "cosmic ray": ("cosmic ray",),
    "line or edge": ("bad column", "chip edge"),
    "trail": ("trail", "glints"),
    "ghost or spike": ("ghost", "spike", "crosstalk"),
    "noise": ("noise peak", "noisy reference"),
}
"""What an observer would call the kinds of `BOGUS`; a spoilt reference has no one name."""

_REAL_SHARE = (0.27, 0.12, 0.34, 0.14, 0.13)
_BOGUS_SHARE = (
    *(0.12, 0.08, 0.08, 0.06, 0.08, 0.14, 0.16, 0.05),
    *(0.03, 0.03, 0.02, 0.03, 0.02, 0.05, 0.03, 0.02),
)
# Share of the reals that outshine the usual range, to what saturates a hundred times over.
_BRIGHT = 0.25
# Share of all candidates that are seen through clouds, which the reference was not.
_CLOUDY = 0.05
# Sources that a candidate sits on, for the kinds that are residuals of one.
_RESIDUALS = ("dipole", "kernel mismatch", "shape mismatch", "flux scale")


@dataclass(slots=True)
class Candidates:
    """Per candidate (b): where it is, what shines there in each image, and what goes wrong.

    Fluxes are in units of the science sky noise per pixel; positions (y, x) in px from the centre.
    """

    kind: npt.NDArray[np.str_]
    real: npt.NDArray[np.bool_]
    position: FloatArray
    science_flux: FloatArray
    reference_flux: FloatArray
    trail: FloatArray
    snr: FloatArray
    host: npt.NDArray[np.intp]  #: index in the gallery, -1 without
    host_flux: FloatArray
    host_position: FloatArray
    science_noise: FloatArray
    reference_noise: FloatArray
    errors: Errors
    #: Share of the light of the sky that clouds let through to the science image.
    transparency: FloatArray
    #: Flux whose change is the candidate; its sign is that of the difference.
    change: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))

    def where(self, *kinds: str) -> npt.NDArray[np.intp]:
        """Rows of the kinds named."""
        return np.flatnonzero(np.isin(self.kind, kinds))


def draw_kinds(rng: np.random.Generator, n: int, bogus_fraction: float) -> npt.NDArray[np.str_]:
    """Kinds of `n` candidates."""
    real = rng.random(n) >= bogus_fraction
    return np.where(real, rng.choice(list(REAL), n, p=_REAL_SHARE), rng.choice(BOGUS, n, p=_BOGUS_SHARE))


def draw_candidates(
    rng: np.random.Generator,
    telescope: Telescope,
    kind: npt.NDArray[np.str_],
    gallery: Gallery,
    fwhm: FloatArray,
    area: FloatArray,
    misshapen: FloatArray,
) -> Candidates:
    """Causes of the candidates of `kind`.

    Parameters
    ----------
    fwhm, area : ndarray, shape (b,)
        Seeing of the science images in px, and the noise-equivalent area of their point-spread
        function in px² (a source is measured with the noise of that many pixels).
    misshapen : ndarray, shape (b,)
        How far that function is from a round Gaussian: residual signal to noise over the source's.
    """
    b = len(kind)
    one = np.float32
    science_noise = np.exp(np.abs(rng.normal(0, 0.12, b))).astype(one)
    reference_noise = (telescope.reference_noise * np.exp(rng.normal(0, 0.15, b))).astype(one)
    noisy = kind == "noisy reference"
    reference_noise[noisy] = np.maximum(reference_noise, 1.0)[noisy] * rng.uniform(1.0, 4.0, int(noisy.sum()))
    # Variance of the assumed point-spread function that a relative error of its width makes.
    variance = 2 * (fwhm / 2.3548) ** 2
    broadening = rng.normal(0, telescope.kernel_error, (b, 3)) * variance[:, None] * [1, 1, 0.5]
    made = Candidates(
        kind=kind,
        real=np.isin(kind, list(REAL)),
        position=np.zeros((b, 2), one),
        science_flux=np.zeros(b, one),
        reference_flux=np.zeros(b, one),
        trail=np.zeros((b, 2), one),
        snr=np.minimum(5 * power_law(rng, (b,), 0.8, 1e3), 10 ** rng.uniform(1, 2.7, b)).astype(one),
        host=np.full(b, -1),
        host_flux=np.zeros(b, one),
        host_position=np.full((b, 2), np.nan, one),
        science_noise=science_noise,
        reference_noise=reference_noise,
        errors=Errors(
            rng.normal(0, telescope.registration, (b, 2)).astype(one),
            broadening.astype(one),
            rng.normal(0, 0.004, b).astype(one),
            np.minimum(np.abs(rng.normal(0, telescope.shape_error, b)), 0.7).astype(one),
        ),
        transparency=np.ones(b, one),
    )
    _transients(rng, telescope, made, gallery, fwhm, area, misshapen)
    _residuals(rng, telescope, made, gallery, fwhm, area, misshapen)
    _clouds(rng, telescope, made, area)
    return made


def _set_host(
    rng: np.random.Generator, made: Candidates, rows: np.ndarray, gallery: Gallery, area: FloatArray
) -> None:
    """Galaxies that the reference shows well, at a surface brightness from faint to bright."""
    index = made.host[rows]
    extent = area[rows] + 12 * gallery.radius[index] ** 2
    significance = 10 ** rng.uniform(1.2, 3.0, len(rows))
    made.host_flux[rows] = significance * made.reference_noise[rows] * np.sqrt(extent)


def _transients(
    rng: np.random.Generator,
    telescope: Telescope,
    made: Candidates,
    gallery: Gallery,
    fwhm: FloatArray,
    area: FloatArray,
    misshapen: FloatArray,
) -> None:
    b = len(made.kind)
    full = 0.6 * telescope.saturation * area
    bright = made.real & (rng.random(b) < _BRIGHT)
    made.snr[bright] = 10 ** rng.uniform(1.7, 5, int(bright.sum()))
    full[bright] *= 50
    # Signal to noise with the source's own photons: f = snr sqrt(v + f / gain).
    sky = (made.science_noise**2 + made.reference_noise**2) * area
    shot = made.snr**2 / telescope.gain
    flux = np.where(bright, made.snr * np.sqrt(sky), (shot + np.sqrt(shot**2 + 4 * made.snr**2 * sky)) / 2)
    flux = np.minimum(flux, full).astype(np.float32)
    made.snr = np.where(made.real, flux / np.sqrt(sky + flux / telescope.gain), 0).astype(np.float32)
    wander = 0.4 * fwhm / np.maximum(made.snr, 4)
    made.position = rng.uniform(-0.5, 0.5, (b, 2)).astype(np.float32)
    made.position += (
        rng.normal(0, 1, (b, 2)) * np.minimum(wander, 0.5)[:, None] * made.real[:, None]
    ).astype(np.float32)
    made.change = np.where(made.real, flux, 0).astype(np.float32)
    rows = made.where("supernova", "asteroid", "hostless")
    made.science_flux[rows] = flux[rows]

    hosted = made.where("supernova", "nuclear")
    nuclear = made.kind[hosted] == "nuclear"
    resolved = int(np.searchsorted(gallery.radius, 0.45 * np.median(fwhm)))
    smallest = min(resolved, len(gallery.radius) - 3)
    made.host[hosted] = np.where(
        nuclear | (rng.random(len(hosted)) < 0.8),
        rng.integers(smallest, len(gallery.radius), len(hosted)),
        rng.integers(0, len(gallery.radius), len(hosted)),
    )
    _set_host(rng, made, hosted, gallery, area)
    # What changes must stand out of the residual of what does not: else nobody could call it real.
    most = rng.uniform(0.4, 1.2, b) * flux / _residual_share(telescope, made, fwhm, misshapen)
    dilution = 1 + 12 * gallery.radius[made.host[hosted]] ** 2 / area[hosted]
    made.host_flux[hosted] = np.minimum(made.host_flux[hosted], (most[hosted] * dilution))
    offset = gallery.offsets(rng, made.host[hosted], nuclear)
    # A transient on an unresolved galaxy looks like a variable star unless it stands beside.
    compact = ~nuclear & (gallery.radius[made.host[hosted]] < 0.4 * fwhm[hosted])
    turn, reach = rng.uniform(0, 2 * np.pi, len(hosted)), rng.uniform(0.7, 3, len(hosted)) * fwhm[hosted]
    beside = np.stack([reach * np.sin(turn), reach * np.cos(turn)], axis=1)
    offset = np.where(compact[:, None], beside, offset)
    offset += nuclear[:, None] * rng.normal(0, 0.05, offset.shape) * fwhm[hosted][:, None]
    made.host_position[hosted] = made.position[hosted] - offset

    # Active nuclei and variable stars shine in the reference too, and dim as often as they brighten.
    rows = made.where("variable star", "nuclear")
    star = made.kind[rows] == "variable star"
    steady = np.where(
        star,
        flux[rows] * 10 ** rng.normal(0.6, 0.6, len(rows)),
        made.host_flux[rows] * 10 ** rng.normal(-0.8, 0.4, len(rows)),
    )
    faintest = 6 * made.reference_noise[rows] * np.sqrt(area[rows])
    steady = np.clip(steady, np.where(star, faintest, 0), 0.6 * full[rows])
    # A bright star's change must stand out of its residual, a saturated one's still more.
    shining = star & (bright[rows] | (steady > telescope.saturation * area[rows]))
    steady[shining] = np.minimum(steady, 10 ** rng.uniform(-0.7, 1.25, len(rows)) * flux[rows])[shining]
    steady[star] = np.minimum(steady, np.maximum(most[rows], faintest))[star]
    dims = rng.random(len(rows)) < np.where(star, 0.45, 0.3)
    steady = np.where(
        dims, np.maximum(steady, flux[rows] * (1 + 0.5 * rng.exponential(1, len(rows)))), steady
    )
    made.reference_flux[rows] = steady
    made.science_flux[rows] = steady + np.where(dims, -flux[rows], flux[rows])
    made.change[rows] *= np.where(dims, -1, 1)
    # The reference caught some supernovae, which are gone now.
    gone = made.where("supernova")
    gone = gone[rng.random(len(gone)) < 0.08]
    made.reference_flux[gone], made.science_flux[gone] = flux[gone], 0
    made.change[gone] *= -1

    rocks = made.where("asteroid")
    longest = np.maximum(0.5 * telescope.size, 1.5 * fwhm[rocks])
    length = 0.5 * fwhm[rocks] * (longest / (0.5 * fwhm[rocks])) ** rng.random(len(rocks))
    length[rng.random(len(rocks)) < 0.45] = 0
    # As bright per length as a round source of the same detection.
    made.science_flux[rocks] *= np.sqrt(1 + length / fwhm[rocks])
    made.change[rocks] = made.science_flux[rocks]
    angle = rng.uniform(0, 2 * np.pi, len(rocks))
    made.trail[rocks] = np.stack([length * np.sin(angle), length * np.cos(angle)], axis=1)
    # The detection is somewhere near the middle of the trail.
    made.position[rocks] += made.trail[rocks] * np.clip(rng.normal(0, 0.08, len(rocks)), -0.25, 0.25)[:, None]


def _residual_share(
    telescope: Telescope, made: Candidates, fwhm: FloatArray, misshapen: FloatArray
) -> FloatArray:
    """Residual of a steady source over its flux, from the errors of the subtraction at each candidate."""
    errors = made.errors
    shift = 0.5 * np.hypot(*errors.shift.T) / fwhm
    width = 0.15 * np.abs(errors.broadening).max(axis=1) / (fwhm / 2.3548) ** 2
    shape = 0.7 * errors.shape * misshapen
    return np.asarray(
        np.sqrt(shift**2 + width**2 + shape**2 + errors.scale**2 + telescope.colour_error**2), np.float32
    )


def _residuals(
    rng: np.random.Generator,
    telescope: Telescope,
    made: Candidates,
    gallery: Gallery,
    fwhm: FloatArray,
    area: FloatArray,
    misshapen: FloatArray,
) -> None:
    """Steady sources with the faults that leave a residual of five or more times the noise."""
    rows = made.where(*_RESIDUALS)
    k = len(rows)
    kind, errors = made.kind[rows], made.errors
    dipole, kernel, shape, scale = (kind == name for name in _RESIDUALS)
    noise = np.hypot(made.science_noise[rows], made.reference_noise[rows]) * np.sqrt(area[rows])
    brightest = 0.8 * telescope.saturation * area[rows]
    # Most residuals that are detected are just so; some are of the brightest stars.
    wanted = np.exp(rng.uniform(np.log(5), np.log(rng.choice([12, 150, 3000], k, p=[0.35, 0.45, 0.2]))))
    # Residual over flux: gross errors show on every star, small ones on bright stars alone.
    gross = rng.random(k) < 0.45
    largest = np.select([dipole, kernel, shape], [0.25, 0.07, 0.6 * np.maximum(misshapen[rows], 0.02)], 0.8)
    share = largest * np.exp(-np.where(gross, rng.uniform(0, 1.5, k), rng.uniform(1.0, 5.0, k)))
    share = np.clip(share, np.minimum(wanted * noise / brightest, largest), largest)
    # A small error is seen where the others are smaller still.
    rest = np.minimum(1, 0.5 * share / _residual_share(telescope, made, fwhm, misshapen)[rows])
    rest = rest.astype(np.float32)
    errors.shift[rows] *= rest[:, None]
    errors.broadening[rows] *= rest[:, None]
    errors.shape[rows] *= rest
    errors.scale[rows] *= rest
    angle, sign = rng.uniform(0, 2 * np.pi, k), rng.choice([-1, 1], k)
    step = 2 * share * fwhm[rows]
    step = (step[:, None] * np.stack([np.sin(angle), np.cos(angle)], axis=1)).astype(np.float32)
    errors.shift[rows[dipole]] = step[dipole]
    variance = (fwhm[rows] / 2.3548) ** 2
    wrong = sign * share / 0.15 * variance
    lopsided = rng.uniform(0.4, 1.4, (k, 2)) * np.where(rng.random((k, 2)) < 0.25, -1, 1)
    for axis in range(2):
        errors.broadening[rows[kernel], axis] = (wrong * lopsided[:, axis])[kernel]
    errors.shape[rows[shape]] = np.minimum(share / (0.7 * np.maximum(misshapen[rows], 0.02)), 0.9)[shape]
    # Faults come together: what triggers has a net flux more often than not.
    net = share * np.where(rng.random(k) < 0.8, rng.uniform(0.1, 1.2, k), 0)
    errors.scale[rows] += sign * net
    # A whole frame scaled wrongly, or the core of one galaxy of another colour.
    errors.scale[rows[scale]] = (sign * share)[scale]
    errors.broadening[rows[scale], 0] = (0.1 * wrong)[scale]

    galaxy = rng.random(k) < np.where(scale & ~gross, 0.85, 0.3)
    index = rng.integers(0, len(gallery.radius), k)
    dilution = np.where(galaxy, np.sqrt(1 + 12 * gallery.radius[index] ** 2 / area[rows]), 1.0)
    flux = np.minimum(wanted * noise / share * dilution, brightest)
    made.host[rows] = np.where(galaxy, index, -1)
    made.host_flux[rows] = np.where(galaxy, flux, 0)
    made.host_position[rows] = made.position[rows]
    for target in (made.science_flux, made.reference_flux):
        target[rows] = np.where(galaxy, 0, flux)

    rows = made.where("saturated core")
    flux = telescope.saturation * area[rows] * np.exp(rng.uniform(-0.4, 3.5, len(rows)))
    made.science_flux[rows] = made.reference_flux[rows] = flux
    # Some artefacts fall on a source.
    rows = made.where(
        "cosmic ray", "noise peak", "bad column", "ghost", "reference artefact", "noisy reference"
    )
    rows = rows[rng.random(len(rows)) < 0.25]
    flux = (10 ** rng.uniform(0.8, 2.2, len(rows))) * np.sqrt(area[rows])
    made.position[rows] += rng.normal(0, 1, (len(rows), 2)) * fwhm[rows][:, None]
    made.science_flux[rows] = made.reference_flux[rows] = flux


def _clouds(rng: np.random.Generator, telescope: Telescope, made: Candidates, area: FloatArray) -> None:
    """Let clouds dim what is steady: the reference is deeper than the science image by so much.

    The subtraction scales the reference down; what the detector adds stays as it is.
    """
    unhurt = np.isin(made.kind, ("cosmic ray", "noise peak"))
    rows = np.flatnonzero(rng.random(len(made.kind)) < np.where(unhurt, 0.15, _CLOUDY))
    share = (10 ** rng.uniform(-2.0, -0.2, len(rows))).astype(np.float32)
    made.transparency[rows] = share
    made.errors.scale[rows] = (1 + made.errors.scale[rows]) * share - 1
    brightest = 50 * telescope.saturation * area[rows]
    change = made.science_flux[rows] - made.reference_flux[rows]
    made.reference_flux[rows] = np.minimum(made.reference_flux[rows] / share, brightest)
    made.science_flux[rows] = np.maximum(share * made.reference_flux[rows] + change, 0)
    made.host_flux[rows] = np.minimum(made.host_flux[rows] / share, brightest)
