"""Candidates made out of real stamps, for training only.

Real backgrounds, real noise, real subtraction residuals. Point sources of the stamp's own seeing are
put in; bogus candidates come from real pixels: residuals of other sources in the field, misregistered
subtraction, saturated cores, cosmic rays, spoiled references, bad lines, edges, and patches of one
candidate moved onto the field of another. What leaves a stamp when it is recentred is missing (NaN).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from training_reference.simulator import detector
from transientnet.prepare.preprocess import estimate_fwhm

__all__ = ["BOGUS", "REAL", "SemiSynthesizer"]

FloatArray = npt.NDArray[np.float32]
Place = npt.NDArray[np.intp]

REAL = ("injected", "injected beside", "injected variable", "transplanted real")
BOGUS = (
    "residual",
    "noise peak",
    "dipole",
    "kernel mismatch",
    "saturated core",
    "cosmic ray",
    "reference artefact",
    "bad column",
    "ghost",
    "chip edge",
    "transplanted bogus",
)
# Share of the injected sources that are much brighter, most of them saturated, and of those that are trailed.
_BRIGHT, _TRAILED = 0.2, 0.12
_SHARE = (0.12, 0.12, 0.08, 0.1, 0.12, 0.09, 0.08, 0.05, 0.05, 0.06, 0.04, 0.02, 0.02, 0.02, 0.03)

# Farthest new centre in px, so that most of the stamp remains.
_REACH = 18
# Radius of a transplanted patch, and of the soft edge around it.
_PATCH, _FEATHER = 9.0, 3.0
_BETA = 3.0


class SemiSynthesizer:
    """Maker of candidates from real triplets.

    Parameters
    ----------
    triplets : ndarray, shape (N, 3, H, W)
        Raw stamps of the training objects alone, square, at least 47 px.
    real : ndarray, shape (N,)
        1 real, 0 bogus, -1 unknown: decides what may be transplanted as what.
    morphology : sequence of str, shape (N,)
        hosted, variable, orphan, or empty where unknown.
    seed : int
    """

    def __init__(self, triplets: FloatArray, real: npt.ArrayLike, morphology: npt.ArrayLike, seed: int):
        if triplets.ndim != 4 or triplets.shape[1] != 3 or min(triplets.shape[2:]) < 2 * _REACH + 11:
            raise ValueError(
                f"triplets must be (N, 3, H, W) with sides of 47 px or more, got {triplets.shape}"
            )
        self.rng = np.random.default_rng(seed)
        self.triplets = triplets.astype(np.float32, copy=False)
        self.centre = triplets.shape[-1] // 2
        self.morphology = np.asarray(morphology, dtype=str)
        label = np.asarray(real)
        # A candidate whose own pixels were not observed gives nothing.
        c = self.centre
        seen = np.isfinite(self.triplets[:, :, c - 2 : c + 3, c - 2 : c + 3]).all(axis=(1, 2, 3))
        self.rows = np.flatnonzero(seen)
        self.pools = {
            "transplanted real": np.flatnonzero(seen & (label == 1)),
            "transplanted bogus": np.flatnonzero(seen & (label == 0)),
            "injected beside": np.flatnonzero(seen & (self.morphology == "hosted")),
            "injected variable": np.flatnonzero(seen & (self.morphology == "variable")),
        }
        self._levels: dict[int, tuple[FloatArray, FloatArray]] = {}
        self._widths: dict[int, float] = {}

    def draw(
        self, n: int
    ) -> tuple[FloatArray, npt.NDArray[np.bool_], npt.NDArray[np.str_], npt.NDArray[np.str_]]:
        """Make `n` candidates.

        Returns
        -------
        triplets (n, 3, H, W), real (n,), morphology (n,), kind (n,)
            The morphology is empty for bogus, and for reals whose host is unknown.
        """
        kinds, c = [*REAL, *BOGUS], self.centre
        made: list[FloatArray] = []
        names: list[str] = []
        types: list[str] = []
        for _ in range(60 * n):
            if len(made) == n:
                break
            kind = str(self.rng.choice(kinds, p=_SHARE))
            candidate = self.make(kind)
            # A place without observed pixels is no candidate.
            if candidate is not None and np.isfinite(candidate[0][:, c - 1 : c + 2, c - 1 : c + 2]).all():
                triplet, morphology = candidate
                self._mask(triplet)
                made.append(triplet)
                names.append(kind)
                types.append(morphology)
        if len(made) < n:
            raise ValueError(
                f"only {len(made)} of {n} candidates could be made of {len(self.rows)} usable stamps"
            )
        return np.stack(made), np.isin(names, REAL), np.array(types, dtype=str), np.array(names, dtype=str)

    def make(self, kind: str) -> tuple[FloatArray, str] | None:
        """One candidate of `kind` and its morphology; None where the drawn stamp has no place for it."""
        pool = self.pools.get(kind, self.rows)
        if not len(pool):
            return None
        row = int(self.rng.choice(pool))
        if kind.startswith("injected"):
            return self._injected(kind, row)
        if kind.startswith("transplanted"):
            return self._transplanted(row, kind.endswith("real"))
        triplet = self._spoiled(kind, row)
        return None if triplet is None else (triplet, "")

    # --- real -------------------------------------------------------------------------------------

    def _injected(self, kind: str, row: int) -> tuple[FloatArray, str] | None:
        """A point source in an empty place, beside a known host, or on a known star."""
        rng, noise = self.rng, self._level(row)[1]
        fwhm = self._fwhm(row)
        flux = min(5 * (1 - rng.random()) ** (-1 / 0.8), 300) * noise[0] * np.sqrt(np.pi) * fwhm
        bright = rng.random() < _BRIGHT
        if bright:
            flux = 10 ** rng.uniform(2, 4.3) * noise[0] * np.sqrt(np.pi) * fwhm
        sign, morphology = 1.0, "orphan"
        if kind == "injected":
            place = self._empty(row, 2.0 * fwhm)
        else:
            # The candidate that the stamp was cut for shall not outshine the new one.
            place = np.rint(rng.normal(0, 1.5, 2) * fwhm).astype(np.intp) * (kind == "injected beside")
            box = self.triplets[row, 2, self.centre - 3 : self.centre + 4, self.centre - 3 : self.centre + 4]
            if kind == "injected beside" and np.abs(box - self._level(row)[0][2]).max() > 8 * noise[2]:
                return None
            morphology = "hosted" if kind == "injected beside" else "variable"
        if place is None:
            return None
        triplet = self._recentred(row, place)
        if kind == "injected variable" and rng.random() < 0.45:
            c = self.centre
            above = triplet[0, c - 2 : c + 3, c - 2 : c + 3] - self._level(row)[0][0]
            flux, sign = min(flux, 0.8 * float(above.sum())), -1.0
            if flux < 5 * noise[0] * np.sqrt(np.pi) * fwhm:
                return None
        source = sign * flux * self._point_source(fwhm)
        if kind == "injected" and rng.random() < _TRAILED:
            source = self._trailed(source, fwhm)
        # Photons of the source bring their own noise.
        peak = float(np.abs(source).max())
        source += 0.02 * np.sqrt(peak * np.abs(source)) * rng.standard_normal(source.shape, np.float32)
        if bright and sign > 0:
            return self._saturated(triplet, source, self._level(row)[0][0]), morphology
        triplet[0] += source
        triplet[2] += source
        return triplet, morphology

    def _trailed(self, source: FloatArray, fwhm: float) -> FloatArray:
        """The source of an exposure in which it moved, brighter by what the trail spreads."""
        length, angle = self.rng.uniform(1, 12), self.rng.uniform(0, np.pi)
        steps = np.arange(-length / 2, length / 2 + 0.25, 0.5)
        moved = [_shifted(source, step * np.sin(angle), step * np.cos(angle)) for step in steps]
        return np.asarray(np.mean(moved, axis=0) * np.sqrt(1 + length / fwhm), np.float32)

    def _saturated(self, triplet: FloatArray, source: FloatArray, sky: np.floating) -> FloatArray:
        """Add a bright source: clipped in the science image, and with ringing around it in the difference."""
        rng = self.rng
        after = triplet[0] + source
        if rng.random() < 0.6:
            after = np.minimum(after, sky + rng.uniform(0.1, 0.9) * float(np.nanmax(after - sky)))
        added = after - triplet[0]
        ringing = np.nan_to_num(added)
        for step in range(1, 1 + int(rng.integers(1, 3))):
            ringing = sum(np.roll(ringing, s, axis) for s in (-step, step) for axis in (0, 1)) / 4
        triplet[0] = after
        triplet[2] += added + np.float32(rng.uniform(0, 1.2)) * (np.nan_to_num(added) - ringing)
        return triplet

    def _transplanted(self, row: int, real: bool) -> tuple[FloatArray, str] | None:
        """The patch around one candidate, moved onto an empty place of another's field."""
        rng = self.rng
        other = int(rng.choice(self.rows))
        place = self._empty(other, 5.0)
        if place is None:
            return None
        field = self._recentred(other, place)
        (median, _), (ground, noise) = self._level(row), self._level(other)
        axis = np.arange(field.shape[-1]) - self.centre
        distance = np.hypot(axis[:, None], axis)
        weight = (0.5 * (1 - np.tanh((distance - _PATCH) / _FEATHER * 2))).astype(np.float32)
        weight[distance > _PATCH + _FEATHER] = 0
        patch = self.triplets[row] - median[:, None, None]
        # The patch brings at most the noise that it has; quieter patches are not made up.
        if (self._level(row)[1] > 1.5 * noise).any():
            return None
        below = field - ground[:, None, None]
        mixed = np.where(weight > 0, weight * patch + np.sqrt(1 - weight**2) * below, below)
        return (mixed + ground[:, None, None]).astype(np.float32), self.morphology[row] if real else ""

    # --- bogus ------------------------------------------------------------------------------------

    def _spoiled(self, kind: str, row: int) -> FloatArray | None:
        rng, (median, noise) = self.rng, self._level(row)
        c = self.centre
        if kind in ("residual", "noise peak"):
            residual = kind == "residual"
            place = self._peak(row, 2, 12.0 if residual else 3.2, 1e9 if residual else 6.0)
            return None if place is None else self._recentred(row, place)
        if kind in ("dipole", "kernel mismatch", "saturated core"):
            # On the candidate's own source, or another one of the field.
            place = self._peak(row, 1, 15.0, 1e9, hollow=0.0 if rng.random() < 0.3 else 6.0)
            if place is None:
                return None
            triplet = self._recentred(row, place)
            core = triplet[:2, c - 2 : c + 3, c - 2 : c + 3] - median[:2, None, None]
            flux = core.sum(axis=(1, 2))
            if not (np.isfinite(flux).all() and flux[0] > 15 * noise[0] and flux[1] > 0):
                return None
            triplet[2] += self._misfit(kind, triplet, core, float(flux[0] / flux[1]), median, noise)
            return triplet if np.abs(triplet[2, c - 2 : c + 3, c - 2 : c + 3]).max() > 5 * noise[2] else None
        triplet = self._recentred(row, rng.integers(-14, 15, 2))
        blank = np.zeros_like(triplet[0])
        level = float(np.hypot(noise[0], 0.3 * noise[2]))
        y, x = c + rng.uniform(-0.5, 0.5, 2)
        if kind == "cosmic ray":
            detector.cosmic_ray(rng, blank, y, x, level * np.exp(rng.uniform(np.log(10), np.log(300))))
        elif kind == "bad column":
            sign = rng.choice([-1, 1])
            detector.bad_line(rng, blank, c, sign * level * np.exp(rng.uniform(np.log(5), np.log(100))))
        elif kind == "ghost":
            radius = rng.uniform(3, 12)
            peak = level * np.exp(rng.uniform(np.log(1.5), np.log(12)))
            detector.ghost(rng, blank, y, x, radius, radius * rng.uniform(-0.2, 0.6), peak)
        elif kind == "chip edge":
            mask = detector.unobserved(rng, len(blank), int(rng.integers(2, 5)), 0)
            peak = level * rng.choice([-1, 1]) * np.exp(rng.uniform(np.log(3), np.log(20)))
            blank += detector.wrong_edge(rng, mask, peak)
            triplet[:, mask] = np.nan
        else:
            return self._spoiled_reference(triplet, level, noise)
        triplet[0] += blank
        triplet[2] += blank * np.float32(rng.uniform(0.85, 1.1))
        return triplet

    def _misfit(
        self,
        kind: str,
        triplet: FloatArray,
        core: FloatArray,
        ratio: float,
        median: FloatArray,
        noise: FloatArray,
    ) -> FloatArray:
        """What a wrong shift, a wrong kernel or a clipped core adds to the difference."""
        rng = self.rng
        if kind == "saturated core":
            clip = median[0] + rng.uniform(0.2, 0.8) * float(core[0].max())
            clipped = np.minimum(triplet[0], clip)
            lost = np.nan_to_num(clipped - triplet[0])
            triplet[0] = clipped
            # Where the detector clips, its response is not the same from pixel to pixel either.
            flat = lost < 0
            uneven = flat * 0.1 * (clip - median[0]) * rng.standard_normal(lost.shape, np.float32)
            return np.asarray(lost + uneven, np.float32)
        source = np.nan_to_num(triplet[1] - median[1]) * np.float32(ratio)
        source[np.abs(source) < 3 * noise[1] * ratio] = 0  # the sky of the reference is not subtracted twice
        if kind == "dipole":
            angle, size = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 1.0)
            moved = _shifted(source, size * np.sin(angle), size * np.cos(angle))
            return np.asarray(source - moved, np.float32)
        blurred = source + rng.uniform(0.1, 0.4) * sum(
            np.roll(source, step, axis) - source for step in (-1, 1) for axis in (0, 1)
        )
        return np.asarray((source - blurred) * rng.choice([-1.0, 1.0]), np.float32)

    def _spoiled_reference(self, triplet: FloatArray, level: float, noise: FloatArray) -> FloatArray:
        """A ray, a dark spot or a noisy patch in the reference; the difference shows it inverted."""
        rng, c = self.rng, self.centre
        blank = np.zeros_like(triplet[1])
        sort = rng.random()
        axis = np.arange(len(blank), dtype=np.float32) - c
        square = (axis[:, None] - rng.uniform(-0.5, 0.5)) ** 2 + (axis - rng.uniform(-0.5, 0.5)) ** 2
        if sort < 0.35:
            detector.cosmic_ray(rng, blank, c, c, level * np.exp(rng.uniform(np.log(10), np.log(200))))
        elif sort < 0.75:
            depth = level * np.exp(rng.uniform(np.log(5), np.log(60)))
            blank -= (depth * np.exp(-0.5 * square / rng.uniform(0.6, 3) ** 2)).astype(np.float32)
        else:
            grain = rng.standard_normal(blank.shape, np.float32) * level * rng.uniform(1.5, 4)
            blank += grain * np.exp(-0.5 * square / rng.uniform(4, 15) ** 2)
            near = np.abs(blank[c - 4 : c + 5, c - 4 : c + 5])
            at = np.unravel_index(int(near.argmax()), near.shape)
            blank = np.roll(blank, (4 - int(at[0]), 4 - int(at[1])), (0, 1))
        triplet[1] += blank
        triplet[2] -= blank
        return triplet

    # --- places -----------------------------------------------------------------------------------

    def _level(self, row: int) -> tuple[FloatArray, FloatArray]:
        """Background and noise of the three stamps."""
        if row not in self._levels:
            sample = self.triplets[row, :, ::2, ::2].reshape(3, -1)
            median = np.nanmedian(sample, axis=1)
            spread = 1.4826 * np.nanmedian(np.abs(sample - median[:, None]), axis=1)
            self._levels[row] = median, spread.astype(np.float32) + np.float32(1e-6)
        return self._levels[row]

    def _fwhm(self, row: int) -> float:
        """Seeing of the science stamp; drawn where its stars do not tell."""
        if row not in self._widths:
            self._widths[row] = estimate_fwhm(self.triplets[row, 0])
        width = self._widths[row]
        return float(np.clip(width, 1.3, 6)) if np.isfinite(width) else float(self.rng.uniform(1.6, 3.2))

    def _box(self, row: int, channel: int, margin: int) -> FloatArray:
        """Significance in the square that new centres lie in, and `margin` px around it."""
        median, noise = self._level(row)
        r = _REACH + margin
        box = self.triplets[
            row, channel, self.centre - r : self.centre + r + 1, self.centre - r : self.centre + r + 1
        ]
        return np.asarray((box - median[channel]) / noise[channel], np.float32)

    def _peak(self, row: int, channel: int, low: float, high: float, hollow: float = 6.0) -> Place | None:
        """Offset of a local extremum of significance `low` to `high`, outside the `hollow` at the centre."""
        box = np.nan_to_num(self._box(row, channel, 1))
        if channel == 2:
            box = np.abs(box)
        inner = box[1:-1, 1:-1]
        peak = (inner > low) & (inner < high)
        for other in (box[:-2, 1:-1], box[2:, 1:-1], box[1:-1, :-2], box[1:-1, 2:]):
            peak &= inner >= other
        offsets = np.argwhere(peak) - _REACH
        offsets = offsets[(offsets**2).sum(axis=1) >= hollow**2]
        return offsets[self.rng.integers(len(offsets))] if len(offsets) else None

    def _empty(self, row: int, radius: float) -> Place | None:
        """Offset of a place without a source of the reference or a change within `radius` px."""
        r = int(np.ceil(radius))
        science, reference, difference = (self._box(row, channel, r) for channel in range(3))
        busy = ~((science < 5) & (reference < 4) & (np.abs(difference) < 5))
        total = np.pad(busy.astype(np.int32), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
        k = 2 * r + 1
        count = total[k:, k:] - total[:-k, k:] - total[k:, :-k] + total[:-k, :-k]
        offsets = np.argwhere(count == 0) - _REACH
        return offsets[self.rng.integers(len(offsets))] if len(offsets) else None

    def _recentred(self, row: int, place: Place) -> FloatArray:
        moved = _moved(self.triplets[row], *(-place))
        if np.abs(place).max() < 4 and self.rng.random() < 0.8:
            # Missing margins shall not tell the kinds that stay where they are from those that move.
            away = self.rng.integers(-14, 15, 2)
            moved = _moved(_moved(moved, *away), *(-away))
        return moved

    def _point_source(self, fwhm: float) -> FloatArray:
        """A Moffat profile of unit flux, up to half a pixel off the centre."""
        axis = np.arange(self.triplets.shape[-1]) - self.centre
        y, x = axis[:, None] - self.rng.uniform(-0.5, 0.5), axis - self.rng.uniform(-0.5, 0.5)
        core = fwhm / (2 * np.sqrt(2 ** (1 / _BETA) - 1))
        profile = (1 + (y**2 + x**2) / core**2) ** -_BETA
        return np.asarray(profile / profile.sum(), np.float32)

    def _mask(self, triplet: FloatArray) -> None:
        """The missing pixels of another stamp, in a few, where they spare the candidate."""
        if self.rng.random() < 0.08:
            mask = np.isnan(self.triplets[int(self.rng.integers(len(self.triplets)))])
            c = self.centre
            if not mask[:, c - 4 : c + 5, c - 4 : c + 5].any():
                triplet[mask] = np.nan


def _moved(images: FloatArray, dy: np.integer, dx: np.integer) -> FloatArray:
    """Move (..., H, W) by whole pixels; NaN comes in."""
    height, width = images.shape[-2:]
    moved = np.full_like(images, np.nan)
    moved[..., max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)] = images[
        ..., max(-dy, 0) : height + min(-dy, 0), max(-dx, 0) : width + min(-dx, 0)
    ]
    return moved


def _shifted(image: FloatArray, dy: float, dx: float) -> FloatArray:
    """Move by a fraction of pixels, cyclic, in the Fourier plane."""
    fy, fx = np.fft.fftfreq(image.shape[0])[:, None], np.fft.rfftfreq(image.shape[1])
    plane = np.fft.rfft2(image) * np.exp(-2j * np.pi * (fy * dy + fx * dx))
    return np.fft.irfft2(plane, s=image.shape).astype(np.float32)
