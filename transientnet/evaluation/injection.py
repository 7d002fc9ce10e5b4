"""Sources injected into a survey's own stamps: its sky, its noise, its neighbours, its subtraction."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..prepare.missing import background, observed
from ..prepare.preprocess import MIN_SIDE, estimate_fwhm
from ..triplet import Triplet

__all__ = ["OFFSETS", "PLACES", "Injection", "Injector", "Night", "matched_snr", "moffat"]

FloatArray = npt.NDArray[np.float64]

PLACES = ("empty", "star", "galaxy")
"""Where sources are put: on empty sky, on a star, and at offsets from a resolved galaxy."""

OFFSETS = (0.0, 0.5, 1.0, 2.0)
"""Distances from a galaxy's centre in units of its half width at half maximum."""

_BETA = 3.0
# Neighbours must stand out by so much to be called a star or a galaxy, and be so much broader than the
# point-spread function to be called a galaxy.
_SOURCE_SNR = 15.0
_RESOLVED = 1.35
# A place is quiet where nothing in the box around it sticks out of the noise by more.
_QUIET = 4.0
# The patch that hides a stamp's own candidate, in units of the seeing and of the half side; its soft edge.
_PATCH_FWHM, _PATCH_MOST, _FEATHER = 2.2, 0.4, 0.25
# Parts of the half side by which a stamp may be shifted where its own candidate cannot be hidden.
_SHIFT = 0.35
# A stamp's own candidate may be so bright where it stays in the field.
_OWN_SNR = 8.0
_STARS_FOR_A_PROFILE = 5
_EIGHT_BIT = 255.0
# Noise of the science stamp over that of the difference, where each was scaled by itself: the reference of
# a difference brings a little noise of its own.
_SCIENCE_SHARE = 1 / 1.2


@dataclass(frozen=True, slots=True)
class Injection:
    """One injected source.

    Attributes
    ----------
    triplet : Triplet
        With the source at its centre.
    row : int
        Number of the stamp that it was put into.
    snr : float
        Flux over the noise of a matched filter in the difference stamp (in the science stamp where there
        is no difference).
    flux : float
        In the science stamp's units.
    place : str
        One of `PLACES`.
    offset : float
        Distance from the neighbour's centre in units of its half width at half maximum; NaN on empty sky.
    trail : float
        Length of the trail in px, 0 for a point source.
    """

    triplet: Triplet
    row: int
    snr: float
    flux: float
    place: str
    offset: float = math.nan
    trail: float = 0.0


@dataclass(frozen=True, slots=True)
class Night:
    """What a survey's stamps say of themselves.

    Attributes
    ----------
    beta : float
        Moffat exponent of the point-spread function, from `stars` stars (3 where there are fewer than five).
    stars : int
    saturation : float or None
        Level of the science stamps at which pixels clip, None where none is seen to.
    photons : float
        Variance that a unit of flux brings (the inverse gain), 0 where it cannot be measured.
    eight_bit : bool
        Each stamp was scaled to 0–255 by itself: fluxes are known relative to the noise alone.
    snr : ndarray, shape (N,)
        Matched-filter signal-to-noise of the survey's own candidates, NaN where unmeasurable.
    """

    beta: float
    stars: int
    saturation: float | None
    photons: float
    eight_bit: bool
    snr: FloatArray


def moffat(
    shape: tuple[int, int], fwhm: float, beta: float, trail: float = 0.0, angle: float = 0.0
) -> FloatArray:
    """A point source of unit flux at the centre of a stamp, or a trail.

    Parameters
    ----------
    shape : (int, int)
    fwhm : float
        px.
    beta : float
        Moffat (1969) exponent.
    trail : float
        Length in px.
    angle : float
        Of the trail, radians from the x axis.

    Returns
    -------
    ndarray, shape `shape`
    """
    alpha = fwhm / (2 * math.sqrt(2 ** (1 / beta) - 1))
    y, x = (np.arange(n) - n // 2 for n in shape)
    steps = max(1, math.ceil(2 * trail / max(fwhm, 1.0)) + 1) if trail else 1
    profile = np.zeros(shape)
    for shift in np.linspace(-trail / 2, trail / 2, steps):
        dy, dx = y - shift * math.sin(angle), x - shift * math.cos(angle)
        # The mean over each pixel, on a grid of 3 x 3: a sharp source is not its value at the centre.
        for sy in (-1 / 3, 0, 1 / 3):
            for sx in (-1 / 3, 0, 1 / 3):
                profile += (1 + ((dy[:, None] + sy) ** 2 + (dx + sx) ** 2) / alpha**2) ** -beta
    return np.asarray(profile / profile.sum())


def matched_snr(image: FloatArray, fwhm: float, beta: float, sky: float, noise: float) -> float:
    """Signal-to-noise of a matched filter at the centre of a stamp, over white noise; always positive."""
    profile = moffat((image.shape[0], image.shape[1]), fwhm, beta)
    seen = np.isfinite(image)
    weight = profile[seen]
    power = float((weight**2).sum())
    if power <= 0 or not noise > 0:
        return math.nan
    return abs(float(((image[seen] - sky) * weight).sum())) / (noise * math.sqrt(power))


@dataclass(frozen=True, slots=True)
class _Field:
    """Stamps of one candidate: missing pixels NaN, background and noise per channel, seeing, brightness."""

    number: int
    stamps: tuple[FloatArray | None, ...]
    sky: tuple[float, ...]
    noise: tuple[float, ...]
    fwhm: float
    own_snr: float = math.nan

    @property
    def shape(self) -> tuple[int, int]:
        height, width = _first(self.stamps).shape
        return height, width

    @property
    def detection(self) -> int:
        """The channel in which a source is detected: the difference, else the science stamp."""
        return 2 if self.stamps[2] is not None else 0


class _Site(NamedTuple):
    """A place in a field: what is there, offset from the centre (y, x), and how the centre comes there."""

    place: str
    y: int
    x: int
    offset: float
    hidden: bool


class Injector:
    """Puts sources into the stamps of one night.

    Parameters
    ----------
    triplets : sequence of Triplet
        The survey's own candidates, whatever they are. What cannot be used (no science stamp, too small,
        nothing observed at the centre) is left out.
    fwhm : float, optional
        Seeing in px where neither a triplet nor its stars say.
    seed : int

    Attributes
    ----------
    night : Night
    count : int
        Stamps that can be used.

    Notes
    -----
    Real pixels are kept. Where the stamp's own candidate is compact, sky from a quiet place of the same
    stamp is moved over it, feathered so that its noise stays, and the source is added there: no pixel goes
    missing. Otherwise the stamp is shifted a little to a quiet place, a star or a galaxy, and what lies
    beyond its edge is missing.
    """

    def __init__(self, triplets: Sequence[Triplet], *, fwhm: float | None = None, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self._triplets = list(triplets)
        fields = [f for number, t in enumerate(self._triplets) if (f := _field(number, t)) is not None]
        known = [f.fwhm for f in fields if math.isfinite(f.fwhm)]
        usual = float(np.median(known)) if known else (fwhm or math.nan)
        fields = [f if math.isfinite(f.fwhm) else replace(f, fwhm=usual) for f in fields]
        self.measured_fwhm = bool(known)
        self._fields = [f for f in fields if math.isfinite(f.fwhm)]
        self._eight_bit = bool(self._triplets) and all(_is_eight_bit(t) for t in self._triplets[:200])
        beta, stars = _profile(self._fields)
        self._fields = [replace(f, own_snr=_own_snr(f, beta)) for f in self._fields]
        self._sites: dict[int, list[_Site]] = {}
        own = np.full(len(self._triplets), np.nan)
        own[[f.number for f in self._fields]] = [f.own_snr for f in self._fields]
        saturation = None if self._eight_bit else _saturation(self._fields)
        photons = 0.0 if self._eight_bit else _photon_noise(self._fields)
        self.night = Night(beta, stars, saturation, photons, self._eight_bit, own)
        self.count = len(self._fields)

    def draw(
        self, snr: Sequence[float], *, place: str | None = None, trail: float = 0.0
    ) -> Iterator[Injection]:
        """One injection for each wanted signal-to-noise, as far as the stamps have room for it.

        Parameters
        ----------
        snr : sequence of float
        place : str, optional
            One of `PLACES`; by default what the drawn stamp offers, each kind as often as the others.
        trail : float
            Length in units of the seeing, 0 for a point source; directions are random.

        Yields
        ------
        Injection
        """
        for wanted in snr:
            for _ in range(40):
                if not self._fields:
                    return
                field = self._fields[int(self._rng.integers(len(self._fields)))]
                site = self._site(field, place)
                if site is not None:
                    yield self._inject(field, site, float(wanted), trail * field.fwhm)
                    break

    def flux_of(self, number: int) -> float:
        """Matched-filter flux of a stamp's own candidate in its difference; NaN where it cannot be used."""
        found = next((f for f in self._fields if f.number == number), None)
        if found is None:
            return math.nan
        profile = moffat(found.shape, found.fwhm, self.night.beta)
        noise = found.noise[found.detection]
        return found.own_snr * noise / math.sqrt(float((profile**2).sum()))

    def _site(self, field: _Field, place: str | None) -> _Site | None:
        if field.number not in self._sites:
            self._sites[field.number] = list(_find_sites(field, self._rng))
        sites = self._sites[field.number]
        kinds = sorted({site.place for site in sites})
        if place is None and kinds:
            place = kinds[int(self._rng.integers(len(kinds)))]
        fitting = [site for site in sites if site.place == place]
        return fitting[int(self._rng.integers(len(fitting)))] if fitting else None

    def _inject(self, field: _Field, site: _Site, snr: float, trail: float) -> Injection:
        move = _hidden if site.hidden else _shifted
        stamps = [
            None if s is None else move(s, sky, field, site)
            for s, sky in zip(field.stamps, field.sky, strict=True)
        ]
        profile = moffat(
            field.shape, field.fwhm, self.night.beta, trail, float(self._rng.uniform(0, math.pi))
        )
        noise = field.noise[field.detection]
        flux = snr * noise / math.sqrt(float((profile**2).sum()))
        ratio = 1.0
        if self._eight_bit and field.detection == 2:
            # Each channel has units of its own: the same photons stand out of the noise of both.
            ratio = field.noise[0] / field.noise[2] / _SCIENCE_SHARE if field.noise[2] > 0 else 1.0
        source = flux * profile
        source += self._rng.standard_normal(source.shape) * np.sqrt(
            np.maximum(source, 0) * self.night.photons
        )
        science = _required(stamps[0])
        new = science + source * ratio
        if self.night.saturation is not None:
            new = np.minimum(new, np.maximum(science, self.night.saturation))
        if stamps[2] is not None:
            # What the science stamp could not hold is missing in the difference, too.
            stamps[2] = stamps[2] + (new - science) / ratio
        stamps[0] = new
        if self._eight_bit:
            stamps = [None if s is None else _to_eight_bit(s) for s in stamps]
        own = self._triplets[field.number]
        images = [None if s is None else s.astype(np.float32) for s in stamps]
        triplet = Triplet(
            _required(images[0]), images[1], images[2],
            id=own.id, pixel_scale=own.pixel_scale, fwhm=own.fwhm or field.fwhm, group=own.group,
            meta=own.meta,
        )  # fmt: skip
        return Injection(triplet, field.number, snr, flux * ratio, site.place, site.offset, trail)


def _first(stamps: Sequence[FloatArray | None]) -> FloatArray:
    return next(stamp for stamp in stamps if stamp is not None)


def _required(stamp: Any) -> Any:
    assert stamp is not None
    return stamp


def _is_eight_bit(triplet: Triplet) -> bool:
    """Whether each stamp of a triplet was scaled to 0-255 by itself."""
    present = [np.asarray(stamp) for stamp in triplet.stamps if stamp is not None and np.size(stamp)]

    def whole(stamp: npt.NDArray[Any]) -> bool:
        values = np.ma.compressed(np.ma.masked_invalid(stamp.astype(np.float64)))
        return (
            bool(values.size)
            and bool((values == np.rint(values)).all())
            and values.min() >= 0
            and values.max() <= 255
        )

    return len(present) > 1 and all(map(whole, present)) and any(np.nanmax(s) > 200 for s in present)


def _to_eight_bit(stamp: FloatArray) -> FloatArray:
    low, high = np.nanmin(stamp), np.nanmax(stamp)
    scaled: FloatArray = np.rint((stamp - low) / max(high - low, 1e-9) * _EIGHT_BIT)
    return scaled


def _field(number: int, triplet: Triplet) -> _Field | None:
    """The triplet prepared for injection; None where it cannot be used."""
    if triplet.error is not None:
        return None
    shape = np.shape(triplet.science)
    if len(shape) != 2 or min(shape) < 2 * MIN_SIDE + 1:
        return None
    stamps: list[FloatArray | None] = []
    sky, noise = [], []
    for stamp in triplet.stamps:
        if stamp is None or np.shape(stamp) != shape:
            stamps.append(None)
            sky.append(0.0)
            noise.append(0.0)
            continue
        image = observed(stamp)
        seen = image[np.isfinite(image)]
        if seen.size < shape[0] * shape[1] / 3 or np.ptp(seen) == 0:
            stamps.append(None)
            sky.append(0.0)
            noise.append(0.0)
            continue
        middle, spread = background(image)
        stamps.append(image)
        sky.append(middle)
        noise.append(spread)
    if stamps[0] is None:
        return None
    centre = stamps[0][shape[0] // 2 - 1 : shape[0] // 2 + 2, shape[1] // 2 - 1 : shape[1] // 2 + 2]
    if not np.isfinite(centre).all():
        return None
    fwhm = triplet.fwhm if triplet.fwhm is not None and triplet.fwhm > 0 else estimate_fwhm(triplet.science)
    return _Field(number, tuple(stamps), tuple(sky), tuple(noise), float(fwhm))


def _own_snr(field: _Field, beta: float) -> float:
    channel = field.detection
    image = _required(field.stamps[channel])
    return matched_snr(image, field.fwhm, beta, field.sky[channel], field.noise[channel])


def _significance(field: _Field) -> FloatArray:
    """Largest deviation of all channels in units of their noise, infinite where something is missing."""
    parts = [
        np.where(np.isfinite(s), np.abs(s - sky) / (noise or 1.0), np.inf)
        for s, sky, noise in zip(field.stamps, field.sky, field.noise, strict=True)
        if s is not None
    ]
    return np.asarray(np.max(parts, axis=0))


def _box_maximum(image: FloatArray, half: int) -> FloatArray:
    """Largest value in the square around each pixel; infinite where it does not fit."""
    side = 2 * half + 1
    out = np.full(image.shape, np.inf)
    if min(image.shape) >= side:
        rows = np.lib.stride_tricks.sliding_window_view(image, side, axis=0).max(axis=-1)
        out[half:-half, half:-half] = np.lib.stride_tricks.sliding_window_view(rows, side, axis=1).max(
            axis=-1
        )
    return out


def _find_sites(field: _Field, rng: np.random.Generator, most: int = 12) -> Iterator[_Site]:
    """Places of a field that a source may be put to."""
    height, width = field.shape
    cy, cx, half = height // 2, width // 2, min(height, width) // 2
    patch = min(max(_PATCH_FWHM * field.fwhm, 4.0), _PATCH_MOST * half)
    edge = max(1.5, _FEATHER * patch)
    reach = int(patch + edge)
    deviation = _significance(field)
    y, x = np.indices(field.shape)
    distance = np.hypot(y - cy, x - cx)
    ring = deviation[(distance > patch) & (distance < patch + edge + 1)]
    # The own candidate is compact: nothing of it, nor of its host, sticks out beyond the patch.
    compact = (
        bool(np.isfinite(ring).all())
        and float(np.median(ring)) < 1.6
        and float((ring > _QUIET).mean()) < 0.02
    )
    box = max(2, math.ceil(field.fwhm))
    quiet = _box_maximum(deviation, box) < _QUIET + 0.5
    shift = int(_SHIFT * half)
    if compact:
        whole = np.isfinite(_box_maximum(deviation, reach))
        rows, columns = np.nonzero(quiet & whole & (distance > 1.3 * patch))
        for k in rng.permutation(len(rows))[:most]:
            yield _Site("empty", int(rows[k]) - cy, int(columns[k]) - cx, math.nan, True)
    elif field.own_snr < _OWN_SNR:
        rows, columns = np.nonzero(quiet & (distance <= shift) & (distance > 1.5 * field.fwhm))
        for k in rng.permutation(len(rows))[:most]:
            yield _Site("empty", int(rows[k]) - cy, int(columns[k]) - cx, math.nan, False)
    yield from _beside_neighbours(field, rng, shift, box)


def _beside_neighbours(field: _Field, rng: np.random.Generator, shift: int, box: int) -> Iterator[_Site]:
    """Stars, and offsets from galaxies, whose difference is quiet."""
    channel = 1 if field.stamps[1] is not None else 0
    image, sky, noise = _required(field.stamps[channel]), field.sky[channel], field.noise[channel]
    height, width = field.shape
    cy, cx = height // 2, width // 2
    deviation = np.where(np.isfinite(image), (image - sky) / (noise or 1.0), -np.inf)
    peaks = (deviation >= _box_maximum(deviation, 2)) & (deviation > _SOURCE_SNR)
    for y, x in np.argwhere(peaks):
        if math.hypot(y - cy, x - cx) > shift + 2 * field.fwhm:
            continue
        hwhm = _half_width(deviation, int(y), int(x))
        resolved = hwhm > _RESOLVED * field.fwhm / 2
        for offset in OFFSETS if resolved else (0.0,):
            angle = rng.uniform(0, 2 * math.pi)
            ty, tx = round(y + offset * hwhm * math.sin(angle)), round(x + offset * hwhm * math.cos(angle))
            if abs(ty - cy) > shift or abs(tx - cx) > shift:
                continue
            if field.stamps[2] is not None:
                around = field.stamps[2][max(0, ty - box) : ty + box + 1, max(0, tx - box) : tx + box + 1]
                off = np.abs(around - field.sky[2]) / (field.noise[2] or 1.0)
                if not np.isfinite(off).all() or off.max() > 1.5 * _QUIET:
                    continue
            if math.hypot(ty - cy, tx - cx) > 1.5 and field.own_snr > _OWN_SNR:
                continue
            yield _Site("galaxy" if resolved else "star", ty - cy, tx - cx, offset, False)


def _half_width(deviation: FloatArray, y: int, x: int) -> float:
    """Half width at half maximum of a peak, px: from the area above half of it around the peak."""
    reach = 12
    part = deviation[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
    above = part > deviation[y, x] / 2
    cy, cx = y - max(0, y - reach), x - max(0, x - reach)
    # Only what hangs together with the peak along its row and column.
    row, column = above[cy], above[:, cx]

    def run(line: npt.NDArray[np.bool_], at: int) -> int:
        right = int(np.argmin(line[at:])) if not line[at:].all() else len(line) - at
        left = int(np.argmin(line[at::-1])) if not line[at::-1].all() else at + 1
        return right + left - 1

    return (run(row, cx) + run(column, cy)) / 4


def _hidden(stamp: FloatArray, sky: float, field: _Field, site: _Site) -> FloatArray:
    """The stamp with the sky of a quiet place moved over its centre."""
    height, width = stamp.shape
    cy, cx, half = height // 2, width // 2, min(height, width) // 2
    patch = min(max(_PATCH_FWHM * field.fwhm, 4.0), _PATCH_MOST * half)
    edge = max(1.5, _FEATHER * patch)
    reach = int(patch + edge)
    axis = np.arange(-reach, reach + 1)
    weight = np.clip((patch + edge - np.hypot(axis[:, None], axis)) / edge, 0, 1)
    out = stamp.copy()
    target = (slice(cy - reach, cy + reach + 1), slice(cx - reach, cx + reach + 1))
    y, x = cy + site.y, cx + site.x
    moved = stamp[y - reach : y + reach + 1, x - reach : x + reach + 1] - sky
    below = np.nan_to_num(out[target] - sky)
    out[target] = sky + np.where(
        weight > 0, weight * moved + np.sqrt(1 - weight**2) * below, out[target] - sky
    )
    return out


def _shifted(stamp: FloatArray, sky: float, field: _Field, site: _Site) -> FloatArray:
    """The stamp centred on another place; NaN beyond its edge."""
    out = np.full_like(stamp, np.nan)
    (to_y, from_y), (to_x, from_x) = (
        _moved(n, d) for n, d in zip(stamp.shape, (site.y, site.x), strict=True)
    )
    out[to_y, to_x] = stamp[from_y, from_x]
    return out


def _moved(length: int, by: int) -> tuple[slice, slice]:
    low, high = max(0, by), min(length, length + by)
    return slice(low - by, high - by), slice(low, high)


def _profile(fields: Sequence[_Field]) -> tuple[float, int]:
    """Moffat exponent of the night's stars and how many there are.

    Bright isolated unsaturated peaks of the science stamps, their radial profiles in units of the seeing.
    """
    radii, values = [], []
    stars = 0
    for field in fields[:2000]:
        image, sky, noise = _required(field.stamps[0]), field.sky[0], field.noise[0]
        deviation = np.where(np.isfinite(image), (image - sky) / (noise or 1.0), -np.inf)
        reach = max(3, math.ceil(2.0 * field.fwhm))
        peaks = (deviation >= _box_maximum(deviation, min(reach, 7))) & (deviation > 60)
        for y, x in np.argwhere(peaks)[:3]:
            part = deviation[y - reach : y + reach + 1, x - reach : x + reach + 1]
            if part.shape != (2 * reach + 1, 2 * reach + 1) or not np.isfinite(part).all():
                continue
            if (
                abs(_half_width(deviation, int(y), int(x)) / (field.fwhm / 2) - 1) > 0.3
                or (part > 0.97 * part.max()).sum() > 2
            ):
                continue
            axis = np.arange(-reach, reach + 1)
            radius = np.hypot(axis[:, None], axis) / field.fwhm
            ring = (radius > 0.4) & (radius < 1.6)
            radii.append(radius[ring])
            values.append(part[ring] / part.max())
            stars += 1
    if stars < _STARS_FOR_A_PROFILE:
        return _BETA, stars
    r, v = np.concatenate(radii), np.concatenate(values)
    trial = np.array([1.8, 2.2, 2.6, 3.0, 3.5, 4.2, 5.5, 8.0])
    losses = [np.abs(v - (1 + 4 * (2 ** (1 / b) - 1) * r**2) ** -b).mean() for b in trial]
    return float(trial[int(np.argmin(losses))]), stars


def _saturation(fields: Sequence[_Field]) -> float | None:
    """Level at which science pixels clip: a plateau of the brightest ones that several stamps share."""
    tops = []
    for field in fields:
        image = _required(field.stamps[0])
        top = float(np.nanmax(image))
        # Within one per cent of the top, counted from the sky.
        plateau = int((image > field.sky[0] + 0.99 * (top - field.sky[0])).sum())
        if plateau >= 4 and (top - field.sky[0]) > 100 * field.noise[0]:
            tops.append(top)
    return float(np.median(tops)) if len(tops) >= 3 else None


def _photon_noise(fields: Sequence[_Field]) -> float:
    """Variance that a unit of flux brings, at most what the stamps allow; 0 where they say nothing.

    Two bounds: the noise of the sky over its level (where the sky was not subtracted), and the variance of
    the difference where stars were subtracted, which holds residuals of the subtraction, too.
    """
    bounds = [f.noise[0] ** 2 / f.sky[0] for f in fields if f.sky[0] > 3 * f.noise[0]]
    ratios = []
    for field in fields:
        science, difference = field.stamps[0], field.stamps[2]
        if science is None or difference is None or not field.noise[2] > 0:
            continue
        above = science - field.sky[0]
        bright = (above > 20 * field.noise[0]) & (above < 400 * field.noise[0]) & np.isfinite(difference)
        if bright.sum() >= 12:
            excess = (difference[bright] - field.sky[2]) ** 2 - field.noise[2] ** 2
            ratios.append(float(np.median(excess / above[bright])) / 0.455)  # median of a chi-square of one
    measured = [float(np.quantile(ratios, 0.1))] if len(ratios) >= 10 else []
    measured += [float(np.median(bounds))] if len(bounds) > len(fields) / 2 else []
    return max(0.0, min(measured)) if measured else 0.0
