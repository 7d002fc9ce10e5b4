"""A simulator of triplets for any telescope, which knows its truth.

Everything is in units of the science stamp's sky noise, and a batch is one telescope: pixel scale,
seeing, depth of the reference, gain, saturation and stamp size are drawn once (or given), then many
scenes at once. A static scene of stars and galaxies is convolved with the science and with the
reference point-spread function; the difference is what subtraction leaves: the transient, the noise of
both, and the residuals of an imperfect match to first order (a shift is a gradient, a wrong kernel is
a Laplacian, a wrong scale is the scene itself). Detectors add what detectors add.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["BOGUS", "REAL", "Simulated", "Telescope", "draw_telescope", "simulate"]

FloatArray = npt.NDArray[np.float32]

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
    "saturated core",
    "cosmic ray",
    "noise peak",
    "bad column",
    "trail",
    "ghost",
    "reference artefact",
    "chip edge",
)
"""Kinds of bogus candidates."""

# Pixels beyond the stamp that are rendered too, so that sources outside reach in.
_MARGIN = 8


@dataclass(frozen=True, slots=True)
class Telescope:
    """One survey's imaging.

    pixel_scale in arcsec per pixel, fwhm in pixels, `size` of the stamps in pixels, noise of the
    reference in units of the science noise, gain in electrons per sky noise, saturation in sky noise,
    `stars` and `galaxies` per 1000 pixels.
    """

    pixel_scale: float
    fwhm: float
    reference_fwhm: float
    size: int
    beta: float
    ellipticity: float
    reference_noise: float
    gain: float
    saturation: float
    stars: float
    galaxies: float
    spikes: float
    misregistration: float
    correlated: float


@dataclass(frozen=True, slots=True)
class Simulated:
    """A batch of triplets (n, 3, H, W) in sky noise, with their truth, one telescope for all."""

    triplets: FloatArray
    real: npt.NDArray[np.bool_]
    morphology: npt.NDArray[np.str_]
    kind: npt.NDArray[np.str_]
    snr: FloatArray
    host_offset: FloatArray
    telescope: Telescope


def draw_telescope(rng: np.random.Generator, size: int | None = None) -> Telescope:
    """A telescope at random: 0.2-9 arcsec per pixel, FWHM 1.2-8 px."""
    fwhm = float(np.exp(rng.triangular(np.log(1.2), np.log(2.3), np.log(8.0))))
    seeing = float(np.exp(rng.uniform(np.log(0.7), np.log(4.0))))
    return Telescope(
        pixel_scale=float(np.clip(seeing / fwhm, 0.2, 9.0)),
        fwhm=fwhm,
        reference_fwhm=fwhm * float(rng.uniform(0.7, 1.15)),
        size=size or int(rng.choice([31, 41, 51, 61, 63, 63, 63, 63, 64, 81, 101])),
        beta=float(rng.uniform(2.3, 5.0)),
        ellipticity=float(rng.beta(1.5, 8.0)),
        reference_noise=float(np.exp(rng.uniform(np.log(0.05), 0.0))),
        gain=float(np.exp(rng.uniform(np.log(3.0), np.log(60.0)))),
        saturation=float(np.exp(rng.uniform(np.log(800.0), np.log(20000.0)))),
        stars=float(np.exp(rng.uniform(np.log(0.3), np.log(8.0)))),
        galaxies=float(rng.uniform(0.1, 0.8)),
        spikes=float(rng.choice([0.0, 0.0, 1.0])) * float(rng.uniform(0.002, 0.02)),
        misregistration=float(rng.gamma(1.5, 0.04)),
        correlated=float(rng.choice([0.0, 0.5])) * float(rng.random()),
    )


def simulate(
    n: int,
    seed: int,
    *,
    telescope: Telescope | None = None,
    kinds: list[str] | None = None,
    bogus_fraction: float = 0.45,
) -> Simulated:
    """Draw `n` triplets of one telescope.

    Parameters
    ----------
    n : int
    seed : int
        Same seed, same stamps.
    telescope : Telescope, optional
        By default drawn from the seed.
    kinds : list of str, optional
        Kind of each candidate, from `REAL` and `BOGUS`; by default drawn.
    bogus_fraction : float
    """
    rng = np.random.default_rng(seed)
    scope = telescope or draw_telescope(rng)
    if kinds is None:
        real = rng.random(n) >= bogus_fraction
        kind = np.where(
            real,
            rng.choice(list(REAL), n, p=[0.3, 0.12, 0.26, 0.16, 0.16]),
            rng.choice(BOGUS, n, p=[0.16, 0.1, 0.14, 0.12, 0.14, 0.06, 0.06, 0.05, 0.12, 0.05]),
        )
    else:
        kind = np.array(kinds)
        real = np.isin(kind, list(REAL))
    return _Draw(n, rng, scope, kind, real).run()


class _Draw:
    """State of one batch while it is drawn: stamps (n, side, side) with a margin around them."""

    def __init__(
        self,
        n: int,
        rng: np.random.Generator,
        scope: Telescope,
        kind: npt.NDArray[np.str_],
        real: npt.NDArray[np.bool_],
    ):
        self.n, self.rng, self.scope, self.kind, self.real = n, rng, scope, kind, real
        self.side = scope.size + 2 * _MARGIN
        self.centre = (self.side - 1) / 2
        self.grid = np.arange(self.side, dtype=np.float32)
        # Effective number of sky-noise pixels under the point-spread function.
        self.area = np.sqrt(4 * np.pi) * scope.fwhm / 2.3548
        self.snr = np.zeros(n, np.float32)
        self.offset = np.full(n, np.nan, np.float32)

    def run(self) -> Simulated:
        scope, n = self.scope, self.n
        scene = np.zeros((n, self.side, self.side), np.float32)
        self._stars(scene)
        self._galaxies(scene)
        transient, fading = self._candidates(scene)

        science_psf = self._psf(scope.fwhm)
        reference_psf = self._psf(scope.reference_fwhm)
        shape = (self.side + 24, self.side + 24)
        spectrum = np.fft.rfft2(scene, shape)
        matched = self._convolve(spectrum, science_psf, shape)
        reference = self._convolve(spectrum, reference_psf, shape)
        new = self._convolve(np.fft.rfft2(transient, shape), science_psf, shape)
        # A source that faded was in the reference, not in the science stamp.
        signed = np.where(fading, -1, 1)[:, None, None].astype(np.float32)
        science = matched + new * signed
        self._calibrate(science)

        difference = new + self._residuals(matched)
        noise_s, noise_r = self._noise(science, 1.0), self._noise(reference, scope.reference_noise)
        difference += np.where(fading[:, None, None], -1, 1) * (noise_s - noise_r)
        science += noise_s
        reference += noise_r
        images = np.stack([science, reference, difference], axis=1)
        self._saturate(images, matched)
        self._artefacts(images)
        m = _MARGIN
        images = images[:, :, m:-m, m:-m]
        self._background(images)
        self._edges(images)
        morphology = np.array([REAL.get(str(kind), "") for kind in self.kind])
        return Simulated(images, self.real, morphology, self.kind, self.snr, self.offset, scope)

    # --- the static scene -------------------------------------------------------------------------

    def _deposit(
        self, scene: FloatArray, row: npt.NDArray, y: npt.NDArray, x: npt.NDArray, flux: npt.NDArray
    ) -> None:  # type: ignore[type-arg]
        """Add point sources, shared between the four pixels around each."""
        iy, ix = np.floor(y).astype(int), np.floor(x).astype(int)
        fy, fx = y - iy, x - ix
        for dy, wy in ((0, 1 - fy), (1, fy)):
            for dx, wx in ((0, 1 - fx), (1, fx)):
                inside = (iy + dy >= 0) & (iy + dy < self.side) & (ix + dx >= 0) & (ix + dx < self.side)
                np.add.at(scene, (row[inside], iy[inside] + dy, ix[inside] + dx), (flux * wy * wx)[inside])

    def _stars(self, scene: FloatArray) -> None:
        count = self.rng.poisson(self.scope.stars * self.side**2 / 1000, self.n)
        row = np.repeat(np.arange(self.n), count)
        y, x = self.rng.uniform(0, self.side - 1, (2, len(row)))
        # Counts grow by about 10^(0.3 m): flux^-0.75, from below the noise up to saturation.
        flux = self.area * 3 * (1 - self.rng.random(len(row)) * 0.9999) ** (-1 / 0.75)
        self._deposit(scene, row, y, x, np.minimum(flux, self.scope.saturation * 60))

    def _galaxies(self, scene: FloatArray) -> None:
        count = self.rng.poisson(self.scope.galaxies * self.side**2 / 1000, self.n)
        row = np.repeat(np.arange(self.n), count)
        k = len(row)
        self._render_galaxies(
            scene,
            row,
            *self.rng.uniform(0, self.side - 1, (2, k)),
            self._galaxy_radii(k),
            self._galaxy_flux(k),
        )

    def _galaxy_radii(self, k: int) -> npt.NDArray[np.float64]:
        return np.clip(self.scope.fwhm * np.exp(self.rng.normal(-0.1, 0.6, k)), 0.3, self.scope.size / 5)

    def _galaxy_flux(self, k: int, faintest: float = 6.0) -> npt.NDArray[np.float64]:
        return self.area * faintest * (1 - self.rng.random(k) * 0.999) ** (-1 / 0.9)

    def _render_galaxies(self, scene, row, y, x, radius, flux) -> None:  # type: ignore[no-untyped-def]
        """Sersic bulge and disc with arms, inclined; radius is the disc's half-light radius in pixels."""
        rng, k = self.rng, len(row)
        if k == 0:
            return
        bulge = rng.beta(1.2, 1.8, k)
        axis = rng.uniform(0.25, 1.0, k)
        angle = rng.uniform(0, np.pi, k)
        arms = rng.uniform(0, 0.9, k) * (rng.random(k) < 0.5)
        wind, phase = rng.uniform(1.5, 4, k) * rng.choice([-1, 1], k), rng.uniform(0, 2 * np.pi, k)
        half = int(np.clip(np.ceil(radius.max() * 4), 4, 24))
        step = np.arange(-half, half + 1)
        iy, ix = np.round(y).astype(int), np.round(x).astype(int)
        dy = (step[None, :, None] - (y - iy)[:, None, None]).astype(np.float32)
        dx = (step[None, None, :] - (x - ix)[:, None, None]).astype(np.float32)
        sin, cos = (f(angle)[:, None, None].astype(np.float32) for f in (np.sin, np.cos))
        u, v = dx * cos + dy * sin, (dy * cos - dx * sin)
        r_disc = np.sqrt(u**2 + (v / axis[:, None, None].astype(np.float32)) ** 2 + 0.04)
        r_bulge = np.sqrt(u**2 + (v / np.sqrt(axis)[:, None, None].astype(np.float32)) ** 2 + 0.04)
        scale = radius[:, None, None].astype(np.float32)
        disc = np.exp(-1.68 * r_disc / scale)
        theta = np.arctan2(v, u)
        spiral = np.cos(2 * theta + wind[:, None, None] * np.log(r_disc / scale + 0.3) + phase[:, None, None])
        disc *= 1 + arms[:, None, None].astype(np.float32) * spiral.astype(np.float32)
        core = (
            np.exp(-7.67 * ((r_bulge / (0.4 * scale)) ** 0.25 - 1))
            if rng.random() < 0.5
            else np.exp(-3.67 * ((r_bulge / (0.4 * scale)) ** 0.5 - 1))
        )
        for part, share in ((disc, 1 - bulge), (core, bulge)):
            part *= (share * flux / part.sum((1, 2)))[:, None, None]
        patch = (disc + core).astype(np.float32)
        for index in range(k):
            y0, x0 = iy[index] - half, ix[index] - half
            ya, yb = max(0, y0), min(self.side, y0 + 2 * half + 1)
            xa, xb = max(0, x0), min(self.side, x0 + 2 * half + 1)
            if ya < yb and xa < xb:
                scene[row[index], ya:yb, xa:xb] += patch[index, ya - y0 : yb - y0, xa - x0 : xb - x0]

    # --- the candidates ---------------------------------------------------------------------------

    def _candidates(self, scene: FloatArray) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """Put every candidate's counterpart into the scene; give the transients and which ones fade."""
        rng, n = self.rng, self.n
        transient = np.zeros_like(scene)
        snr = np.exp(rng.triangular(np.log(5), np.log(12), np.log(400), n)).astype(np.float32)
        flux = snr * self.area
        centre = np.full((2, n), self.centre) + rng.normal(0, 0.25, (2, n)) + rng.uniform(-0.3, 0.3, (2, n))

        def at(kind: str) -> npt.NDArray[np.intp]:
            return np.flatnonzero(self.kind == kind)

        hosted = np.flatnonzero(np.isin(self.kind, ["supernova", "nuclear"]))
        radius = np.clip(
            self.scope.fwhm * np.exp(rng.normal(0.35, 0.6, len(hosted))), 0.5, self.scope.size / 5
        )
        direction = rng.uniform(0, 2 * np.pi, len(hosted))
        distance = np.where(
            self.kind[hosted] == "nuclear",
            rng.rayleigh(0.15, len(hosted)),
            radius * rng.gamma(1.8, 0.6, len(hosted)),
        )
        distance = np.minimum(distance, self.scope.size / 3)
        self.offset[hosted] = distance
        host_flux = np.maximum(self._galaxy_flux(len(hosted), 10.0), self.area * 8)
        self._render_galaxies(
            scene,
            hosted,
            centre[0, hosted] + distance * np.sin(direction),
            centre[1, hosted] + distance * np.cos(direction),
            radius,
            host_flux,
        )

        star = at("variable star")
        base = self.area * np.exp(rng.uniform(np.log(15), np.log(3000), len(star)))
        self._deposit(scene, star, *centre[:, star], base)
        # A star's photometric variation is a fraction of it, within what the detection asks for.
        flux[star] = np.clip(base * np.exp(rng.normal(-1.5, 0.8, len(star))), 5 * self.area, None)
        fading = np.zeros(n, bool)
        fading[star] = rng.random(len(star)) < 0.45
        flux[star] = np.where(
            fading[star], np.minimum(flux[star], 0.9 * np.maximum(base, 5.6 * self.area)), flux[star]
        )
        faded = np.flatnonzero(
            ~fading & np.isin(self.kind, ["supernova", "nuclear"]) & (rng.random(n) < 0.25)
        )
        fading[faded] = True
        # What fades was there before.
        self._deposit(scene, faded, *centre[:, faded], flux[faded])

        for kind in ("supernova", "nuclear", "variable star", "hostless"):
            which = at(kind)
            self._deposit(transient, which, *centre[:, which], flux[which])
        rock = at("asteroid")
        length = np.where(rng.random(len(rock)) < 0.3, rng.uniform(0.5, 3, len(rock)) * self.scope.fwhm, 0)
        heading = rng.uniform(0, 2 * np.pi, len(rock))
        for part in np.linspace(-0.5, 0.5, 7):
            y = centre[0, rock] + part * length * np.sin(heading)
            self._deposit(
                transient, rock, y, centre[1, rock] + part * length * np.cos(heading), flux[rock] / 7
            )

        for kind, low, high in (
            ("dipole", 30, 3000),
            ("kernel mismatch", 100, 5000),
            ("saturated core", 0, 0),
        ):
            which = at(kind)
            if kind == "saturated core":
                bright = self.scope.saturation * self.area**2 * np.exp(rng.uniform(0, 3.5, len(which)))
            else:
                bright = self.area * np.exp(rng.uniform(np.log(low), np.log(high), len(which)))
            as_galaxy = rng.random(len(which)) < (0.35 if kind != "saturated core" else 0)
            self._deposit(scene, which[~as_galaxy], *centre[:, which[~as_galaxy]], bright[~as_galaxy])
            k = int(as_galaxy.sum())
            self._render_galaxies(
                scene,
                which[as_galaxy],
                *centre[:, which[as_galaxy]],
                self._galaxy_radii(k),
                bright[as_galaxy],
            )
        self.snr = np.where(self.real, flux / self.area, 0).astype(np.float32)
        return transient, fading

    # --- optics and subtraction -------------------------------------------------------------------

    def _psf(self, fwhm: float) -> FloatArray:
        scope = self.scope
        half = 12
        y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)
        angle = self.rng.uniform(0, np.pi)
        u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        # The bilinear deposit broadens by up to a quarter of a pixel squared.
        core = np.sqrt(max(fwhm**2 - 0.9, 0.8)) / (2 * np.sqrt(2 ** (1 / scope.beta) - 1))
        psf = (1 + (u**2 * (1 + scope.ellipticity) + v**2 / (1 + scope.ellipticity)) / core**2) ** -scope.beta
        psf /= psf.sum()
        if scope.spikes:
            for a, b in ((u, v), (v, u)):
                psf += scope.spikes * np.exp(-np.abs(a) / 8) * (np.abs(b) < 0.6) / 16
        return (psf / psf.sum()).astype(np.float32)

    def _convolve(
        self, spectrum: npt.NDArray[np.complex64], psf: FloatArray, shape: tuple[int, int]
    ) -> FloatArray:
        image = np.fft.irfft2(spectrum * np.fft.rfft2(psf, shape)[None], shape)
        half = psf.shape[0] // 2
        return image[:, half : half + self.side, half : half + self.side].astype(np.float32)

    def _residuals(self, matched: FloatArray) -> FloatArray:
        """What an imperfect match of the reference leaves, for every source in the stamp."""
        rng, n, scope = self.rng, self.n, self.scope
        shift = rng.normal(0, scope.misregistration, (n, 2))
        dipole = self.kind == "dipole"
        angle = rng.uniform(0, 2 * np.pi, n)
        size = rng.uniform(0.15, 1.0, n) * scope.fwhm / 2.4
        shift[dipole] = (size[:, None] * np.stack([np.sin(angle), np.cos(angle)], 1))[dipole]
        kernel = rng.normal(0, 0.02, n) * scope.fwhm**2 / 5
        mismatch = self.kind == "kernel mismatch"
        kernel[mismatch] = (rng.choice([-1, 1], n) * rng.uniform(0.08, 0.4, n) * scope.fwhm**2 / 5)[mismatch]
        scale = rng.normal(0, 0.004, n)
        gy = np.zeros_like(matched)
        gx = np.zeros_like(matched)
        gy[:, 1:-1] = (matched[:, 2:] - matched[:, :-2]) / 2
        gx[:, :, 1:-1] = (matched[:, :, 2:] - matched[:, :, :-2]) / 2
        laplace = np.zeros_like(matched)
        laplace[:, 1:-1, 1:-1] = (
            matched[:, 2:, 1:-1]
            + matched[:, :-2, 1:-1]
            + matched[:, 1:-1, 2:]
            + matched[:, 1:-1, :-2]
            - 4 * matched[:, 1:-1, 1:-1]
        )
        weights = [w.astype(np.float32)[:, None, None] for w in (shift[:, 0], shift[:, 1], kernel, scale)]
        return weights[0] * gy + weights[1] * gx + weights[2] * laplace + weights[3] * matched

    def _noise(self, image: FloatArray, sky: float) -> FloatArray:
        sigma = np.sqrt(sky**2 + np.maximum(image, 0) * sky**2 / self.scope.gain)
        noise = self.rng.standard_normal(image.shape, np.float32)
        if self.scope.correlated:
            c = np.float32(self.scope.correlated)
            noise[:, 1:] += c * noise[:, :-1]
            noise[:, :, 1:] += c * noise[:, :, :-1]
            noise /= 1 + c**2
        return noise * sigma

    def _calibrate(self, science: FloatArray) -> None:
        np.maximum(science, -5, out=science)

    # --- detector ---------------------------------------------------------------------------------

    def _saturate(self, images: FloatArray, matched: FloatArray) -> None:
        limit = self.scope.saturation
        core = matched > limit
        for row in np.flatnonzero(core.any(axis=(1, 2))):
            mask = core[row]
            if self.rng.random() < 0.5:
                # Bleeding along columns, further for more charge.
                column = np.flatnonzero(mask.any(axis=0))
                for x in column:
                    y = np.flatnonzero(mask[:, x])
                    extra = int(min(self.side, matched[row, y, x].sum() / limit / 4))
                    mask[max(0, y[0] - extra) : y[-1] + extra + 1, x] = True
            residual = self.rng.normal(0, 1, (self.side, self.side)) * limit * self.rng.uniform(0.01, 0.3)
            residual = residual + limit * self.rng.normal(0, 0.3)
            images[row, 0] = np.where(
                mask, limit * self.rng.uniform(0.9, 1.1), np.minimum(images[row, 0], limit)
            )
            images[row, 1] = np.minimum(images[row, 1], limit * self.rng.uniform(0.9, 2.0))
            if self.rng.random() < 0.3:
                images[row, 2][mask] = np.nan if self.rng.random() < 0.3 and not self.real[row] else 0.0
            else:
                images[row, 2] = np.where(mask, residual, images[row, 2])

    def _artefacts(self, images: FloatArray) -> None:
        rng, c = self.rng, round(self.centre)
        for row in range(self.n):
            kind = str(self.kind[row])
            if kind == "cosmic ray":
                self._ray(images[row], c, c, np.exp(rng.uniform(np.log(8), np.log(500))))
            elif kind == "noise peak":
                self._peak(images[row], c)
            elif kind == "bad column":
                self._column(images[row], c)
            elif kind == "trail":
                self._trail(images[row], self.centre, np.exp(rng.uniform(np.log(4), np.log(60))))
            elif kind == "ghost":
                self._ghost(images[row])
            elif kind == "reference artefact":
                self._reference_artefact(images[row], c)
            # What lies elsewhere in the stamp says nothing about the candidate.
            if rng.random() < 0.06:
                y, x = rng.integers(4, self.side - 4, 2)
                if abs(y - c) + abs(x - c) > 12:
                    self._ray(images[row], int(y), int(x), np.exp(rng.uniform(np.log(8), np.log(300))))
            if rng.random() < 0.02:
                self._column(
                    images[row], int(rng.choice([rng.integers(4, c - 8), rng.integers(c + 8, self.side - 4)]))
                )
            if rng.random() < 0.02:
                self._trail(
                    images[row],
                    float(rng.choice([c - 14, c + 14])),
                    np.exp(rng.uniform(np.log(4), np.log(40))),
                )

    def _ray(self, triplet: FloatArray, y: int, x: int, peak: float) -> None:
        """A cosmic ray or hot pixels: sharper than any point-spread function, in the science stamp."""
        rng = self.rng
        length = int(rng.choice([1, 1, 1, 1, 2, 2, 3, 4, 6, 10, 16]))
        angle = rng.uniform(0, np.pi)
        add = np.zeros((self.side, self.side), np.float32)
        for part in np.arange(length) - length / 2 + 0.5:
            py, px = round(y + part * np.sin(angle)), round(x + part * np.cos(angle))
            if 0 <= py < self.side and 0 <= px < self.side:
                add[py, px] += peak * rng.uniform(0.4, 1.0)
        if rng.random() < 0.4:
            spread = rng.uniform(0.03, 0.2)
            add += spread * (
                np.roll(add, 1, 0) + np.roll(add, -1, 0) + np.roll(add, 1, 1) + np.roll(add, -1, 1)
            )
        triplet[0] += add
        triplet[2] += add * rng.uniform(0.8, 1.1)

    def _peak(self, triplet: FloatArray, c: int) -> None:
        """A peak of the difference's own noise, as a matched filter would find one."""
        m = self.scope.size // 2 - 2
        view = triplet[2, c - m : c + m + 1, c - m : c + m + 1]
        smooth = view[1:-1, 1:-1] * 2 + view[:-2, 1:-1] + view[2:, 1:-1] + view[1:-1, :-2] + view[1:-1, 2:]
        y, x = np.unravel_index(np.nanargmax(np.abs(smooth)), smooth.shape)
        dy, dx = int(y) + 1 - m, int(x) + 1 - m
        triplet[:] = np.roll(triplet, (-dy, -dx), (1, 2))
        if triplet[2, c, c] < 0:
            triplet[2] *= -1

    def _column(self, triplet: FloatArray, place: int) -> None:
        rng = self.rng
        lines = triplet if rng.random() < 0.7 else triplet.transpose(0, 2, 1)
        width = int(rng.choice([1, 1, 2, 3]))
        level = rng.choice([-1, 1]) * np.exp(rng.uniform(np.log(4), np.log(200)))
        for channel in (0, 2) if rng.random() < 0.7 else (1, 2):
            lines[channel, :, place : place + width] += level * (
                1 + 0.1 * rng.standard_normal((self.side, 1))
            )

    def _trail(self, triplet: FloatArray, through: float, level: float) -> None:
        angle = self.rng.uniform(0, np.pi)
        distance = (self.grid[:, None] - through) * np.cos(angle) - (self.grid[None] - self.centre) * np.sin(
            angle
        )
        width = self.scope.fwhm / 2.3548 * self.rng.uniform(0.8, 2.0)
        profile = level * np.exp(-0.5 * (distance / width) ** 2)
        if self.rng.random() < 0.4:
            # Glints of a tumbling satellite: a row of dots.
            along = (self.grid[:, None] - through) * np.sin(angle) + (self.grid[None] - self.centre) * np.cos(
                angle
            )
            period = self.rng.uniform(2.5, 6) * self.scope.fwhm
            phase = along - period * np.round(along / period)
            profile *= np.exp(-0.5 * (phase / width) ** 2)
        triplet[0] += profile
        triplet[2] += profile

    def _ghost(self, triplet: FloatArray) -> None:
        rng = self.rng
        y, x = (
            self.grid[:, None] - self.centre - rng.normal(0, 2),
            self.grid[None] - self.centre - rng.normal(0, 2),
        )
        radius = np.sqrt(y**2 + x**2).clip(max=40)
        outer = rng.uniform(1.5, 5) * self.scope.fwhm
        inner = outer * rng.uniform(0, 0.7)
        shape = 1 / (1 + np.exp((radius - outer) / 0.7)) - 1 / (1 + np.exp((radius - inner) / 0.7))
        level = np.exp(rng.uniform(np.log(1.5), np.log(20)))
        triplet[0] += level * shape
        triplet[2] += level * shape

    def _reference_artefact(self, triplet: FloatArray, c: int) -> None:
        """A hole, a cosmic ray or a noisy patch in the reference: the difference shows it inverted."""
        rng = self.rng
        before = triplet[1].copy()
        choice = rng.random()
        y, x = self.grid[:, None] - self.centre, self.grid[None] - self.centre
        if choice < 0.45:
            radius = rng.uniform(0.3, 1.2) * self.scope.fwhm
            depth = np.exp(rng.uniform(np.log(4), np.log(60))) * self.scope.reference_noise
            triplet[1] -= depth * np.exp(-0.5 * (y**2 + x**2) / radius**2)
        elif choice < 0.75:
            patch = np.exp(-0.5 * (y**2 + x**2) / rng.uniform(4, 15) ** 2)
            noise = rng.standard_normal(triplet[1].shape) * rng.uniform(2, 8) * self.scope.reference_noise
            triplet[1] += noise * (patch if rng.random() < 0.5 else 1)
            dy, dx = np.unravel_index(
                np.argmax((before - triplet[1])[c - 8 : c + 9, c - 8 : c + 9]), (17, 17)
            )
            triplet[2] += before - triplet[1]
            triplet[:] = np.roll(triplet, (8 - int(dy), 8 - int(dx)), (1, 2))
            return
        else:
            spare = np.zeros_like(triplet)
            self._ray(spare, c, c, np.exp(rng.uniform(np.log(8), np.log(200))) * self.scope.reference_noise)
            triplet[1] += spare[0]
        triplet[2] += before - triplet[1]
        if rng.random() < 0.5:
            triplet[2] *= np.sign(triplet[2, c, c]) or 1

    def _background(self, images: FloatArray) -> None:
        """Sky level, gradients, fringes, amplifier steps; small ones in the difference too."""
        rng, n, size = self.rng, self.n, self.scope.size
        line = np.linspace(-1, 1, size, dtype=np.float32)
        slope = rng.normal(0, 0.7, (n, 3, 2)).astype(np.float32) * (rng.random((n, 3, 1)) < 0.25)
        slope[:, 2] *= 0.4
        images += slope[:, :, 0, None, None] * line[:, None] + slope[:, :, 1, None, None] * line[None]
        for row in np.flatnonzero(rng.random(n) < 0.04):
            wave = np.sin(
                line[:, None] * rng.uniform(-9, 9) + line[None] * rng.uniform(-9, 9) + rng.uniform(0, 6)
            )
            images[row, [0, 2]] += rng.uniform(0.2, 1.5) * wave
        for row in np.flatnonzero(rng.random(n) < 0.02):
            images[row, 0, :, : int(rng.integers(1, size))] += rng.normal(0, 2)

    def _edges(self, images: FloatArray) -> None:
        """The chip ends within the stamp: NaN, as every reader gives missing pixels."""
        rng, size = self.rng, self.scope.size
        edge = (self.kind == "chip edge") | (rng.random(self.n) < 0.05)
        for row in np.flatnonzero(edge):
            bogus = self.kind[row] == "chip edge"
            reach = int(rng.integers(1, 4)) + size // 2 if bogus else int(rng.integers(size // 2 + 5, size))
            view = images[row] if rng.random() < 0.5 else images[row].transpose(0, 2, 1)
            if rng.random() < 0.5:
                view = view[:, ::-1]
            if bogus:
                # A subtraction goes wrong along the last rows.
                depth = int(rng.integers(2, 5))
                view[2, reach - depth : reach] += np.exp(rng.uniform(np.log(3), np.log(40))) * rng.uniform(
                    0.3, 1, size
                )
            channels = slice(None) if rng.random() < 0.7 else slice(1, None)
            view[channels, reach:] = np.nan
