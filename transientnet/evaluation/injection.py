"""Sources injected into a survey's own stamps: its sky, its noise, its neighbours, its subtraction."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..triplet import Triplet
from .injection_field import (
    Field,
    FloatArray,
    Night,
    clipping_level,
    field_of,
    is_eight_bit,
    measured_profile,
    moffat,
    own_snr_of,
    photon_noise,
    required,
)
from .injection_places import Site, find_sites, hidden_under_sky, shifted_to

__all__ = ["Injection", "Injector"]

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
        fields = [f for number, t in enumerate(self._triplets) if (f := field_of(number, t)) is not None]
        known = [f.fwhm for f in fields if math.isfinite(f.fwhm)]
        usual = float(np.median(known)) if known else (fwhm or math.nan)
        fields = [f if math.isfinite(f.fwhm) else replace(f, fwhm=usual) for f in fields]
        self.measured_fwhm = bool(known)
        self._fields = [f for f in fields if math.isfinite(f.fwhm)]
        self._eight_bit = bool(self._triplets) and all(is_eight_bit(t) for t in self._triplets[:200])
        beta, stars = measured_profile(self._fields)
        self._fields = [replace(f, own_snr=own_snr_of(f, beta)) for f in self._fields]
        self._sites: dict[int, list[Site]] = {}
        own = np.full(len(self._triplets), np.nan)
        own[[f.number for f in self._fields]] = [f.own_snr for f in self._fields]
        saturation = None if self._eight_bit else clipping_level(self._fields)
        photons = 0.0 if self._eight_bit else photon_noise(self._fields)
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

    def _site(self, field: Field, place: str | None) -> Site | None:
        if field.number not in self._sites:
            self._sites[field.number] = list(find_sites(field, self._rng))
        sites = self._sites[field.number]
        kinds = sorted({site.place for site in sites})
        if place is None and kinds:
            place = kinds[int(self._rng.integers(len(kinds)))]
        fitting = [site for site in sites if site.place == place]
        return fitting[int(self._rng.integers(len(fitting)))] if fitting else None

    def _inject(self, field: Field, site: Site, snr: float, trail: float) -> Injection:
        move = hidden_under_sky if site.hidden else shifted_to
        stamps = [
            None if s is None else move(s, sky, field, site)
            for s, sky in zip(field.stamps, field.sky, strict=True)
        ]
        angle = float(self._rng.uniform(0, math.pi))
        profile = moffat(field.shape, field.fwhm, self.night.beta, trail, angle if trail else 0.0)
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
        science = required(stamps[0])
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
            required(images[0]), images[1], images[2],
            id=own.id, pixel_scale=own.pixel_scale, fwhm=own.fwhm or field.fwhm, group=own.group,
            meta=own.meta,
        )  # fmt: skip
        return Injection(triplet, field.number, snr, flux * ratio, site.place, site.offset, trail)


def _to_eight_bit(stamp: FloatArray) -> FloatArray:
    low, high = np.nanmin(stamp), np.nanmax(stamp)
    scaled: FloatArray = np.rint((stamp - low) / max(high - low, 1e-9) * _EIGHT_BIT)
    return scaled
