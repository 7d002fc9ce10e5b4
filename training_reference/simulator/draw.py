"""One batch of triplets: sky, two exposures, subtraction, cut-out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training_reference.simulator import detector
from training_reference.simulator.candidates import (
    BOGUS,
    CAUSES,
    REAL,
    Candidates,
    draw_candidates,
    draw_kinds,
)
from training_reference.simulator.psf import MARGIN, ComplexArray, FloatArray, Grid, draw_transfer
from training_reference.simulator.scene import (
    Gallery,
    draw_gallery,
    point_sources,
    power_law,
    sources_like,
)
from training_reference.simulator.subtraction import subtract
from training_reference.simulator.telescope import Telescope

__all__ = ["Simulated", "simulate"]

# Point-spread functions per batch; every stamp takes one of each.
_SCIENCE_PSFS, _REFERENCE_PSFS = 12, 4
_BRIGHTEST = 6
# Share of residuals whose place is that of their star, not of the strongest excess.
_FITTED = 0.5
_ZERO_POINT = 25.0


@dataclass(frozen=True, slots=True)
class Simulated:
    """Triplets of one telescope and their truth.

    Attributes
    ----------
    triplets : ndarray, float32, shape (n, 3, size, size)
        Science, reference, difference in raw units; unobserved pixels as the survey leaves them.
    real : ndarray, shape (n,)
    morphology : ndarray of str, shape (n,)
        hosted, variable or orphan; empty for bogus.
    kind : ndarray of str, shape (n,)
        One of `REAL` or `BOGUS`.
    snr : ndarray, shape (n,)
        Signal to noise of the change (real), or significance of the detection (bogus).
    magnitude : ndarray, shape (n,)
        Of the change in raw units, zero point 25.
    positive : ndarray of bool, shape (n,)
        Sign of the candidate in the difference.
    host_offset : ndarray, shape (n,)
        Distance from the host's nucleus in px; NaN without a host.
    fwhm : ndarray, shape (n,)
        Seeing of the science stamps in px, as a pipeline would measure it.
    trail : ndarray, shape (n,)
        Length of a moving source's trail in px.
    saturated : ndarray of bool, shape (n,)
        Whether science or reference is saturated within the seeing of the candidate.
    telescope : Telescope
    """

    triplets: FloatArray
    real: npt.NDArray[np.bool_]
    morphology: npt.NDArray[np.str_]
    kind: npt.NDArray[np.str_]
    snr: FloatArray
    magnitude: FloatArray
    positive: npt.NDArray[np.bool_]
    host_offset: FloatArray
    fwhm: FloatArray
    trail: FloatArray
    saturated: npt.NDArray[np.bool_]
    telescope: Telescope

    @property
    def pixel_scale(self) -> float:
        """arcsec per pixel."""
        return self.telescope.pixel_scale


def simulate(
    n: int,
    seed: int,
    *,
    telescope: Telescope | None = None,
    kinds: Sequence[str] | None = None,
    bogus_fraction: float = 0.5,
) -> Simulated:
    """Draw `n` candidates of one telescope.

    Parameters
    ----------
    n : int
        64 to 256 at once is fastest.
    seed : int
        Same arguments, same stamps.
    telescope : Telescope, optional
        By default drawn from the seed.
    kinds : sequence of str, optional
        Kind of each candidate, from `REAL` and `BOGUS`; by default drawn.
    bogus_fraction : float
        Share of bogus candidates where the kinds are drawn.

    Raises
    ------
    ValueError
        A kind is unknown, or there are not `n` of them.
    """
    rng = np.random.default_rng(seed)
    scope = telescope or Telescope.draw(rng)
    kind = draw_kinds(rng, n, bogus_fraction) if kinds is None else np.array(kinds, dtype=str)
    unknown = sorted(set(kind.tolist()) - set(REAL) - set(BOGUS))
    if unknown or kind.shape != (n,):
        raise ValueError(
            f"kinds: {n} of {[*REAL, *BOGUS]} are needed, got {len(kind)} with unknown {unknown}"
        )
    return _Draw(rng, scope, kind).run()


class _Draw:
    """State of one batch while it is drawn."""

    def __init__(self, rng: np.random.Generator, telescope: Telescope, kind: npt.NDArray[np.str_]):
        self.rng, self.telescope, self.n = rng, telescope, len(kind)
        self.grid = Grid.of(telescope)
        seeing = telescope.fwhm * np.exp(rng.normal(0, telescope.seeing_scatter, _SCIENCE_PSFS))
        seeing = np.clip(seeing, 1.1, 9.0)
        deep = np.clip(telescope.reference_fwhm * np.exp(rng.normal(0, 0.08, _REFERENCE_PSFS)), 1.1, 9.0)
        one = rng.random(_SCIENCE_PSFS) < 0.6  # of the exposures some are spoilt
        defocus = np.hypot(
            telescope.defocus, telescope.science_defocus * one * rng.uniform(0.3, 1.2, len(one))
        )
        tracking = np.hypot(
            telescope.tracking * rng.uniform(0.5, 1.5, len(one)),
            telescope.science_tracking * one * rng.uniform(0.3, 1.2, len(one)),
        )
        science = draw_transfer(rng, telescope, seeing, self.grid, defocus=defocus, tracking=tracking)
        reference = draw_transfer(rng, telescope, deep, self.grid)
        pick = rng.integers(_SCIENCE_PSFS, size=self.n)
        pick_reference = rng.integers(_REFERENCE_PSFS, size=self.n)
        self.fine_transfers = science[pick], reference[pick_reference]
        profiles = [self.grid.pixels(bank) for bank in (science, reference)]
        sampled = [np.fft.rfft2(profile).astype(np.complex64) for profile in profiles]
        self.transfers = sampled[0][pick], sampled[1][pick_reference]
        self.area = (1 / (profiles[0] ** 2).sum((1, 2)))[pick]
        # Seeing as measured: atmosphere, optics and the pixel's own width.
        blur = 0.46 + ((1.6 * defocus) ** 2 + (0.7 * tracking) ** 2) * telescope.fwhm**2
        width = np.sqrt(seeing**2 + blur)
        self.fwhm = width[pick].astype(np.float32)
        misshapen = self._misshapen(profiles[0], width)[pick]
        count = int(np.clip(self.n // 4, 12, 48))
        self.gallery: Gallery = draw_gallery(rng, telescope, self.grid, count)
        self.candidates: Candidates = draw_candidates(
            rng, telescope, kind, self.gallery, self.fwhm, self.area, misshapen
        )

    def _misshapen(self, profiles: FloatArray, fwhm: np.ndarray) -> FloatArray:
        """How far point-spread functions are from round Gaussians of their width, in signal to noise."""
        fy, fx = self.grid.frequencies(fine=False)
        sigma2 = ((fwhm / 2.3548) ** 2)[:, None, None]
        round_ = np.fft.irfft2(np.exp(-2 * np.pi**2 * sigma2 * (fy * fy + fx * fx)), s=profiles.shape[1:])
        off = ((profiles - round_) ** 2).sum((1, 2)) / (profiles**2).sum((1, 2))
        return np.sqrt(off).astype(np.float32)

    def run(self) -> Simulated:
        made, scope = self.candidates, self.telescope
        science, reference = self._exposures()
        images = self._detected(science, reference)
        self._faults(images)
        self._edges(science)
        difference, filtered = subtract(
            *images,
            *self.transfers,
            made.errors,
            scope,
            self.grid,
            made.reference_noise / made.science_noise,
            self.fwhm,
        )
        self._combed(difference, images[0])
        noise = 1.4826 * np.median(np.abs(filtered[:, ::3, ::3]), axis=(1, 2))
        centre, peak = self._triggers(filtered)
        if scope.blanks_core:
            for row, mask in self.saturated:
                difference[row][mask] = 0
        triplets = self._cut(*images, difference, centre)
        triplets *= np.float32(scope.unit)
        level = scope.background * np.exp(self.rng.normal(0, 0.3, self.n))
        observed = np.isfinite(triplets[:, :2])
        np.add(triplets[:, :2], level[:, None, None, None], out=triplets[:, :2], where=observed)
        self._fill(triplets)

        change = np.where(made.real, made.change, peak * self.area)
        offset = np.hypot(*(made.host_position - made.position).T)
        return Simulated(
            triplets=triplets,
            real=made.real,
            morphology=np.array([REAL.get(str(kind), "") for kind in made.kind]),
            kind=made.kind,
            snr=np.where(made.real, made.snr, np.abs(peak) / np.maximum(noise, 1e-9)).astype(np.float32),
            magnitude=(_ZERO_POINT - 2.5 * np.log10(np.maximum(np.abs(change) * scope.unit, 1e-6))).astype(
                np.float32
            ),
            positive=change > 0,
            host_offset=np.where(made.real, offset, np.nan).astype(np.float32),
            fwhm=self.fwhm,
            trail=np.hypot(*made.trail.T).astype(np.float32),
            saturated=self._saturated_core(centre),
            telescope=scope,
        )

    def _saturated_core(self, centre: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
        """Which candidates have saturated pixels of science or reference in their core."""
        core = np.zeros(self.n, bool)
        for row, mask in self.saturated:
            (y, x), r = centre[row], max(2, round(float(self.fwhm[row])))
            core[row] |= mask[y - r : y + r + 1, x - r : x + r + 1].any()
        return core

    def _combed(self, difference: FloatArray, science: FloatArray) -> None:
        """Lines that alternate where an undersampled bright source was shifted to the reference's grid."""
        if not self.telescope.comb:
            return
        level = self.telescope.saturation * self.rng.uniform(0.02, 0.5)
        bright = np.clip(np.nan_to_num(science, nan=0.0) / level - 0.5, 0, 1)
        lines = np.where(np.arange(self.grid.n) % 2, 1, -1).astype(np.float32)[:, None]
        size = self.rng.uniform(0, self.telescope.comb, (self.n, 1, 1)).astype(np.float32)
        difference += np.abs(difference) * bright.astype(np.float32) * size * lines

    # --- sky --------------------------------------------------------------------------------------

    def _exposures(self) -> tuple[FloatArray, FloatArray]:
        """Noise-free science and reference images (n, grid, grid)."""
        made = self.candidates
        position, flux = self._field_stars()
        sky = point_sources(self.grid, position, flux)
        self._galaxies(sky)
        ones = np.ones((self.n, 1), np.float32)
        target = point_sources(self.grid, made.position[:, None], ones)
        reference = sky + made.reference_flux[:, None, None] * target
        # Stars have colours of their own, and bandpasses and epochs differ.
        colour = self.rng.normal(0, self.telescope.colour_error, (self.n, _BRIGHTEST)).astype(np.float32)
        sky += point_sources(self.grid, position[:, :_BRIGHTEST], flux[:, :_BRIGHTEST] * colour)
        cloudy = np.flatnonzero(made.transparency < 1)
        sky[cloudy] *= made.transparency[cloudy, None, None]
        self._glints(sky)
        rows = np.flatnonzero(made.trail.any(axis=1))
        if len(rows):
            fy, fx = self.grid.frequencies(fine=True)
            turns = made.trail[rows, 0, None, None] * fy + made.trail[rows, 1, None, None] * fx
            target[rows] *= np.sinc(turns)
        target *= made.science_flux[:, None, None]
        sky += target
        sky *= self.fine_transfers[0]
        reference *= self.fine_transfers[1]
        return self.grid.pixels(sky), self.grid.pixels(reference)

    def _field_stars(self) -> tuple[FloatArray, FloatArray]:
        """Positions (n, k, 2) and fluxes (n, k), brightest first, none at the candidate itself."""
        rng, scope, n = self.rng, self.telescope, self.grid.n
        number = rng.poisson(np.minimum(scope.stars * n**2 * np.exp(rng.normal(0, 0.9, self.n)), 90))
        slots = max(int(number.max(initial=0)), _BRIGHTEST)
        faintest = 3 * self.candidates.reference_noise * np.sqrt(self.area)
        flux = power_law(rng, (self.n, slots), rng.uniform(0.6, 0.9), 3e5) * faintest[:, None]
        flux[np.arange(slots) >= number[:, None]] = 0
        position = rng.uniform(-n / 2, n / 2, (self.n, slots, 2)).astype(np.float32)
        # A star at the place of a transient would make it a variable star.
        near = np.hypot(*np.moveaxis(position, 2, 0)) < (1.5 * self.fwhm + 1)[:, None]
        flux[near & self.candidates.real[:, None]] = 0
        order = np.argsort(-flux, axis=1)
        return np.take_along_axis(position, order[:, :, None], 1), np.take_along_axis(flux, order, 1)

    def _galaxies(self, sky: ComplexArray) -> None:
        """Add hosts and up to two galaxies of the field."""
        made, rng = self.candidates, self.rng
        rows = np.flatnonzero(made.host >= 0)
        self._add_galaxies(sky, rows, made.host[rows], made.host_position[rows], made.host_flux[rows])
        for _ in range(2):
            rows = np.flatnonzero(rng.random(self.n) < 0.35)
            index = rng.integers(0, len(self.gallery.radius), len(rows))
            position = rng.uniform(-self.grid.n / 2, self.grid.n / 2, (len(rows), 2)).astype(np.float32)
            extent = self.area[rows] + 12 * self.gallery.radius[index] ** 2
            flux = 10 ** rng.uniform(0.7, 2.4, len(rows)) * made.reference_noise[rows] * np.sqrt(extent)
            clear = np.hypot(*position.T) > 3 * self.gallery.radius[index] + 1.5 * self.fwhm[rows]
            keep = clear | ~made.real[rows]
            self._add_galaxies(sky, rows[keep], index[keep], position[keep], flux[keep])

    def _add_galaxies(
        self, sky: ComplexArray, rows: np.ndarray, index: np.ndarray, position: FloatArray, flux: np.ndarray
    ) -> None:
        if len(rows):
            planes = sources_like(self.gallery, index, self.grid, position)
            planes *= flux.astype(np.float32)[:, None, None]
            sky[rows] += planes

    def _glints(self, sky: ComplexArray) -> None:
        """Trains of flashes of a tumbling satellite: equal dots at equal distances, in the science image."""
        rng, made = self.rng, self.candidates
        central = made.kind == "glints"
        rows = np.flatnonzero(central | (rng.random(self.n) < 0.01))
        if not len(rows):
            return
        k = len(rows)
        step = np.minimum(
            rng.uniform(1.5, 8, k) * self.fwhm[rows], rng.uniform(0.12, 0.36, k) * self.telescope.size
        )
        angle = rng.uniform(0, np.pi, k)
        heading = np.stack([np.sin(angle), np.cos(angle)], axis=1)
        start = np.where(central[rows, None], made.position[rows], 0)
        across = np.stack([-heading[:, 1], heading[:, 0]], axis=1)
        aside = rng.uniform(6, 20, k) * rng.choice([-1, 1], k) * ~central[rows]
        start = start + across * aside[:, None]
        ticks = np.arange(-8, 9)
        position = start[:, None] + (ticks[None] * step[:, None])[..., None] * heading[:, None]
        inside = (np.abs(position) < self.grid.n / 2 - 1).all(axis=2)
        flux = (
            np.exp(rng.uniform(np.log(6), np.log(150), k))
            * np.sqrt(self.area[rows])
            * made.science_noise[rows]
        )
        # Three flashes at least tell a train from a lone source.
        short = step < 0.2 * self.telescope.size
        one_sided = (short & (rng.random(k) < 0.25))[:, None] & (ticks < 0)
        flux = flux[:, None] * inside * ~one_sided * np.exp(rng.normal(0, 0.15, (k, len(ticks))))
        sky[rows] += point_sources(self.grid, position.astype(np.float32), flux.astype(np.float32))

    # --- detectors --------------------------------------------------------------------------------

    def _detected(self, science: FloatArray, reference: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Add noise, backgrounds and saturation."""
        rng, scope, made = self.rng, self.telescope, self.candidates
        gain = np.full(self.n, scope.gain, np.float32)
        science += detector.noise(rng, science, made.science_noise, gain, scope.science_smoothing)
        # As many electrons more as the reference is deeper.
        deeper = gain / np.minimum(made.reference_noise, 1) ** 2
        reference += detector.noise(rng, reference, made.reference_noise, deeper, scope.reference_smoothing)
        detector.add_background(rng, science, scope)
        bleeds = bool(rng.random() < 0.6)
        level = scope.saturation
        core = scope.saturated_core
        self.saturated = detector.saturate(rng, science, level, bleeds=bleeds, core=core)
        level *= float(rng.uniform(0.8, 2.0))
        self.saturated += detector.saturate(rng, reference, level, bleeds=bleeds, core=core)
        return science, reference

    def _faults(self, images: tuple[FloatArray, FloatArray]) -> None:
        """Artefacts: at the candidate where they are its cause, elsewhere in a few stamps of every kind."""
        rng, made, c = self.rng, self.candidates, self.grid.centre
        science, reference = images
        total = np.hypot(made.science_noise, made.reference_noise)
        stray = rng.random((self.n, 4)) < [0.06, 0.015, 0.006, 0.005]
        causes = ("cosmic ray", "bad column", "trail", "ghost")
        for row in range(self.n):
            kind, noise, width = str(made.kind[row]), float(total[row]), float(self.fwhm[row])
            y, x = c + made.position[row]
            if kind in causes:
                self._fault(kind, science[row], y, x, noise, width)
            elif kind == "crosstalk":
                level = rng.choice([-1, 1]) * noise * np.exp(rng.uniform(np.log(2), np.log(30)))
                detector.ghost(rng, science[row], y, x, rng.uniform(1.3, 2.5) * width, 0.0, level)
            elif kind == "spike":
                level = noise * np.exp(rng.uniform(np.log(3), np.log(100)))
                sigma = width / 2.3548 * rng.uniform(0.6, 1.3)
                detector.diffraction_spike(rng, science[row], y, x, level, sigma)
                if rng.random() < 0.5:
                    # The reference has the arm too, of another epoch's angle or brightness.
                    share = rng.uniform(0.2, 0.9)
                    detector.diffraction_spike(rng, reference[row], y, x, share * level, sigma)
            elif kind == "noise peak" and rng.random() < 0.6:
                # Of millions of places the few with four to six standard deviations are looked at.
                level = rng.uniform(3.0, 6.2) * noise * 2 / np.sqrt(self.area[row])
                image, sign = (reference, -1) if rng.random() < 0.15 else (science, rng.choice([-1, 1]))
                detector.noise_bump(rng, image[row], y, x, sign * level, width)
            elif kind == "noise peak":
                detector.blotch(rng, science[row], y, x, noise * rng.uniform(0.6, 2.2), width)
            elif kind == "reference artefact":
                self._spoil(reference[row], y, x, noise, width)
            elif kind == "noisy reference":
                level = max(made.reference_noise[row], 0.7 * made.science_noise[row]) * rng.uniform(0.7, 2.5)
                detector.blotch(rng, reference[row], y, x, level, width)
            for cause in np.flatnonzero(stray[row]):
                aside, along = rng.uniform(8, c - 4, 2) * rng.choice([-1, 1], 2) + c
                target = science[row] if rng.random() < 0.92 else reference[row]
                self._fault(causes[cause], target, aside, along, noise, width)

    def _edges(self, science: FloatArray) -> None:
        """Chip edges in a few stamps; as the cause of a candidate, the last lines went wrong."""
        rng, made, n, size = self.rng, self.candidates, self.grid.n, self.telescope.size
        self.edges: list[tuple[int, npt.NDArray[np.bool_], list[int]]] = []
        # Frames that a pipeline leaves around what it could subtract.
        for row in np.flatnonzero(rng.random(self.n) < 0.05):
            least = max(12.0, 1.6 * float(self.fwhm[row]))
            inner = rng.uniform(least, max(size / 2, least + 2))
            axis = np.abs(np.arange(n) - n // 2)
            frame = np.maximum(axis[:, None], axis) > inner
            self.edges.append((int(row), frame, [[0, 1, 2], [2]][int(rng.random() < 0.3)]))
        cause = made.kind == "chip edge"
        for row in np.flatnonzero(cause | (rng.random(self.n) < 0.06)):
            gap = float(rng.integers(2, 5) if cause[row] else 3 + 1.5 * self.fwhm[row])
            mask = detector.unobserved(rng, n, gap, 0 if cause[row] else max(size / 2 - gap, 1))
            if cause[row]:
                level = made.science_noise[row] * np.exp(rng.uniform(np.log(2), np.log(20)))
                science[row] += detector.wrong_edge(rng, mask, rng.choice([-1, 1]) * level)
            channels = [[0, 1, 2], [0, 2], [1, 2], [2]][rng.choice(4, p=[0.6, 0.15, 0.1, 0.15])]
            self.edges.append((int(row), mask, channels))

    def _fault(self, kind: str, image: FloatArray, y: float, x: float, noise: float, width: float) -> None:
        rng = self.rng
        if kind == "cosmic ray":
            peak = noise * np.exp(rng.uniform(np.log(8), np.log(1000)))
            detector.cosmic_ray(rng, image, y, x, peak)
        elif kind == "bad column":
            level = noise * rng.choice([-1, 1]) * np.exp(rng.uniform(np.log(5), np.log(200)))
            detector.bad_line(rng, image, round(x), level)
        elif kind == "trail":
            level = noise * np.exp(rng.uniform(np.log(1.5), np.log(500)))
            detector.satellite_trail(rng, image, y, x, level, width / 2.3548 * rng.uniform(0.9, 2.5))
        else:
            level = noise * np.exp(rng.uniform(np.log(1), np.log(12)))
            radius = rng.uniform(1.5, 6) * width
            detector.ghost(rng, image, y, x, radius, radius * rng.uniform(-0.2, 0.6), level)

    def _spoil(self, image: FloatArray, y: float, x: float, noise: float, width: float) -> None:
        """A dark spot, a cosmic ray or a bad line in the reference, which the difference shows inverted."""
        rng = self.rng
        choice = rng.random()
        if choice < 0.5:
            axis = np.arange(len(image), dtype=np.float32)
            radius = rng.uniform(0.25, 1.3) * width
            depth = noise * np.exp(rng.uniform(np.log(4), np.log(60))) * (1 if rng.random() < 0.85 else -1)
            spot = ((axis[:, None] - y) ** 2 + (axis - x) ** 2) / radius**2
            image -= depth * (np.exp(-0.5 * spot) if rng.random() < 0.5 else np.exp(-0.5 * spot**2))
        else:
            self._fault("cosmic ray" if choice < 0.8 else "bad column", image, y, x, noise, width)

    # --- from images to stamps --------------------------------------------------------------------

    def _triggers(self, filtered: FloatArray) -> tuple[npt.NDArray[np.intp], FloatArray]:
        """Pixel (n, 2) that each stamp is centred on and the filtered value there.

        Real candidates are where the source is, within the error of its position; bogus ones at the
        strongest excess near their cause, positive or negative, or on the star that they are a residual of.
        """
        made, c = self.candidates, self.grid.centre
        centre = np.full((self.n, 2), c)
        for index, mask, _ in self.edges:
            filtered[index][mask] = 0
        reach = np.minimum(np.ceil(0.9 * self.fwhm + 1), MARGIN).astype(int)
        reach[
            made.where(
                "saturated core",
                "noise peak",
                "noisy reference",
                "shape mismatch",
                "spike",
                "bad column",
                "ghost",
                "chip edge",
            )
        ] = MARGIN
        peak = centre.copy()
        for row in np.flatnonzero(~made.real):
            r = int(reach[row])
            box = np.abs(filtered[row, c - r : c + r + 1, c - r : c + r + 1])
            peak[row] += np.array(np.unravel_index(int(box.argmax()), box.shape)) - r
        # Some pipelines fit both lobes of a residual, and give the place of the star.
        fitted = np.isin(made.kind, CAUSES["residual"]) & (self.rng.random(self.n) < _FITTED)
        centre = np.where(fitted[:, None], c + np.rint(made.position).astype(int), peak)
        # Stamps may be cut at the place of an object, which is not quite that of this detection.
        aside = np.rint(self.rng.normal(0, self.telescope.centring, centre.shape) * self.fwhm[:, None])
        centre = np.clip(centre + np.clip(aside, -2, 2).astype(int), c - MARGIN, c + MARGIN)
        return centre, filtered[np.arange(self.n), peak[:, 0], peak[:, 1]]

    def _cut(
        self, science: FloatArray, reference: FloatArray, difference: FloatArray, centre: npt.NDArray[np.intp]
    ) -> FloatArray:
        """Stamps (n, 3, size, size) with the candidate at pixel size // 2; saturated stars masked."""
        size, scope = self.telescope.size, self.telescope
        start = centre - size // 2
        triplets = np.empty((self.n, 3, size, size), np.float32)
        for row, (y, x) in enumerate(start):
            box = np.s_[row, y : y + size, x : x + size]
            triplets[row] = science[box], reference[box], difference[box]
        for row, mask, channels in self.edges:
            (y, x) = start[row]
            triplets[row, channels] = np.where(
                mask[y : y + size, x : x + size], np.nan, triplets[row, channels]
            )
        if scope.masks_saturation:
            for row, mask in self.saturated:
                y, x = np.nonzero(mask)
                pad = int(2 + 0.8 * self.fwhm[row] + 0.5 * np.sqrt(len(y)))
                low = np.array([y.min(), x.min()]) - start[row] - pad
                high = np.array([y.max(), x.max()]) - start[row] + pad + 1
                if ((low - 4 > size // 2) | (high + 4 <= size // 2)).any():
                    (y0, x0), (y1, x1) = np.clip(low, 0, size), np.clip(high, 0, size)
                    triplets[row, :, y0:y1, x0:x1] = np.nan
        return triplets

    def _fill(self, triplets: FloatArray) -> None:
        """Leave unobserved pixels as the survey does: NaN, zero or a constant."""
        fill = self.telescope.fill * self.telescope.unit
        if np.isfinite(fill):
            np.nan_to_num(triplets, copy=False, nan=fill)
