"""How many real transients a model would lose on this telescope: recall of injected sources, without a label.

The field's way to know what a survey misses (e.g. Frohmaier et al. 2017, ApJS 230, 4): put sources of known
brightness into the survey's own images and count what comes back. Here it is the classifier that is measured,
not the detection, and not the subtraction: sources are added to the difference stamp as they are to the
science stamp, so a subtraction that fails on a real source is not seen; nor is purity, which needs labels.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import EmptyInputError, UsageError
from ..models.classifier import Classifier, load_model
from ..readers.layouts import Layout
from ..readers.open import open_triplets
from ..triplet import Triplet
from .injection import Injection, Injector
from .injection_field import Night
from .injection_places import OFFSETS, PLACES
from .statistics import clopper_pearson

__all__ = ["FEWEST_FOR_A_THRESHOLD", "SNR_EDGES", "Completeness", "Limit", "Recall", "completeness"]

FloatArray = npt.NDArray[np.float64]

SNR_EDGES = (3.0, 5.0, 7.0, 10.0, 15.0, 25.0, 50.0, 100.0, 300.0)
"""Bins of signal-to-noise in which recall is given."""

DETECTED = 5.0
"""Signal-to-noise from which a pipeline calls a source a detection; recall as one number starts there."""

FEWEST_FOR_A_THRESHOLD = 20
"""Injected sources of a signal-to-noise of `DETECTED` or more that a threshold for a completeness needs."""

_MOST_STAMPS = 4000
_RESAMPLES = 300
# Candidates with a magnitude that a zero point needs, and the signal-to-noise that each must have.
_FOR_ZERO_POINT, _ZERO_POINT_SNR = 10, 10.0
_SHOWN_LOSSES = 24


@dataclass(frozen=True, slots=True)
class Recall:
    """Share of injected sources that a model calls real.

    Attributes
    ----------
    n : int
        Injected sources.
    value, low, high : float
        Share and its 95 % interval (Clopper & Pearson 1934); NaN where `n` is 0.
    """

    n: int
    value: float
    low: float
    high: float

    @classmethod
    def of(cls, found: npt.ArrayLike) -> Recall:
        """From one bool per source."""
        hits = np.asarray(found, bool)
        if not hits.size:
            return cls(0, math.nan, math.nan, math.nan)
        low, high = clopper_pearson(int(hits.sum()), hits.size)
        return cls(hits.size, float(hits.mean()), low, high)

    def __str__(self) -> str:
        if not self.n:
            return "no source"
        return f"{100 * self.value:.1f} % ({100 * self.low:.1f}–{100 * self.high:.1f}, n {self.n})"


@dataclass(frozen=True, slots=True)
class Limit:
    """Signal-to-noise (or threshold) with a 95 % interval from resampled stamps; NaN where never reached."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, eq=False)
class Completeness:
    """Injected sources and what the model said of them.

    Attributes
    ----------
    model : str
        ``name@version``.
    threshold : float
        p(real) from which a source counts as found.
    night : Night
        What was measured of the survey: point-spread function, saturation, photon noise.
    fwhm_measured : bool
        Whether the seeing was given or measured on the stamps' own sources; else the user's value was used.
    stamps : int
        Stamps that were used, of `offered`.
    snr, probability, offset : ndarray, shape (N,)
    place : ndarray of str, shape (N,)
    row : ndarray of int, shape (N,)
        Stamp that each source was put into.
    magnitude : ndarray, shape (N,)
        NaN without a zero point.
    losses : list of (Triplet, float, float)
        The surest losses at a signal-to-noise of a detection or more: stamps, signal-to-noise, p(real).
    """

    model: str
    threshold: float
    night: Night
    fwhm_measured: bool
    stamps: int
    offered: int
    snr: FloatArray
    probability: FloatArray
    offset: FloatArray
    place: npt.NDArray[np.str_]
    row: npt.NDArray[np.int64]
    magnitude: FloatArray
    zero_point: float = math.nan
    trail: float = 0.0
    losses: list[tuple[Triplet, float, float]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.snr)

    @property
    def found(self) -> npt.NDArray[np.bool_]:
        """Whether each source lies above the threshold; an unusable stamp is a loss."""
        return np.nan_to_num(self.probability, nan=-1.0) >= self.threshold

    def recall(self, rows: npt.ArrayLike | None = None) -> Recall:
        """Recall of some sources; by default of all at `DETECTED` or more."""
        return Recall.of(self.found[self.snr >= DETECTED if rows is None else np.asarray(rows)])

    def by_snr(self) -> list[tuple[float, float, Recall]]:
        """Recall in each bin of `SNR_EDGES`."""
        return _binned(self.snr, self.found, SNR_EDGES)

    def by_magnitude(self) -> list[tuple[float, float, Recall]]:
        """Recall in bins of half a magnitude; empty without a zero point."""
        known = self.magnitude[np.isfinite(self.magnitude)]
        if not known.size:
            return []
        edges = np.arange(math.floor(2 * known.min()) / 2, known.max() + 0.5, 0.5)
        return [row for row in _binned(self.magnitude, self.found, edges.tolist()) if row[2].n]

    def by_place(self) -> dict[str, Recall]:
        """Recall on empty sky, stars and galaxies, at `DETECTED` or more."""
        detected = self.snr >= DETECTED
        return {name: self.recall(detected & (self.place == name)) for name in PLACES}

    def by_offset(self) -> list[tuple[float, Recall]]:
        """Recall at each distance from a galaxy's centre, in units of its half width at half maximum."""
        detected = (self.snr >= DETECTED) & (self.place == "galaxy")
        return [(offset, self.recall(detected & (self.offset == offset))) for offset in OFFSETS]

    def limit(self, level: float, *, seed: int = 0) -> Limit:
        """Signal-to-noise above which the recall is at least `level` (0.5 and 0.9 are customary)."""
        order = np.argsort(self.snr)
        return self._resampled(lambda rows: _reached(self.snr[rows], self.found[rows], level), order, seed)

    def threshold_for(self, wanted: float, *, seed: int = 0) -> Limit:
        """Largest threshold at which a share `wanted` of the detected sources is still found.

        Parameters
        ----------
        wanted : float
            Between 0 and 1.

        Raises
        ------
        UsageError
            `wanted` is not a share, or fewer than `FEWEST_FOR_A_THRESHOLD` sources could be injected.
        """
        if not 0 < wanted < 1:
            raise UsageError(f"a completeness is a share between 0 and 1, not {wanted}")
        rows = np.flatnonzero(self.snr >= DETECTED)
        if len(rows) < FEWEST_FOR_A_THRESHOLD:
            raise UsageError(f"{len(rows)} injected sources are too few for a threshold: give more stamps")
        p = np.nan_to_num(self.probability, nan=0.0)
        return self._resampled(lambda at: float(np.quantile(p[at], 1 - wanted, method="lower")), rows, seed)

    def _resampled(
        self, figure: Callable[[npt.NDArray[np.int64]], float], rows: npt.NDArray[np.int64], seed: int
    ) -> Limit:
        """A figure of some rows, with the interval of resampled stamps."""
        rng = np.random.default_rng(seed)
        stamps, inverse = np.unique(self.row[rows], return_inverse=True)
        members = [rows[inverse == k] for k in range(len(stamps))]
        values = []
        for _ in range(_RESAMPLES):
            chosen = np.concatenate([members[k] for k in rng.integers(0, len(stamps), len(stamps))])
            values.append(figure(chosen[np.argsort(self.snr[chosen], kind="stable")]))
        known = np.array(values)[np.isfinite(values)]
        low, high = np.quantile(known, [0.025, 0.975]) if known.size else (math.nan, math.nan)
        return Limit(figure(rows), float(low), float(high))

    def to_dict(self) -> dict[str, Any]:
        """Every figure, as plain types; what `completeness` writes to ``metrics.json``."""

        def row(recall: Recall) -> dict[str, float]:
            return {"n": recall.n, "recall": recall.value, "low": recall.low, "high": recall.high}

        def limit(found: Limit) -> dict[str, float]:
            return {"value": found.value, "low": found.low, "high": found.high}

        return {
            "model": self.model,
            "threshold": self.threshold,
            "injected": len(self),
            "stamps": self.stamps,
            "stamps_offered": self.offered,
            "trail_fwhm": self.trail,
            "psf": {
                "moffat_beta": self.night.beta,
                "stars": self.night.stars,
                "fwhm_measured": self.fwhm_measured,
            },
            "saturation": self.night.saturation,
            "photon_variance_per_flux": self.night.photons,
            "eight_bit": self.night.eight_bit,
            "zero_point": self.zero_point,
            "recall_at_detection": {"snr": DETECTED, **row(self.recall())},
            "recall_by_snr": [{"snr": [a, b], **row(r)} for a, b, r in self.by_snr()],
            "recall_by_magnitude": [{"magnitude": [a, b], **row(r)} for a, b, r in self.by_magnitude()],
            "recall_by_place": {name: row(r) for name, r in self.by_place().items()},
            "recall_by_offset": [{"half_widths": o, **row(r)} for o, r in self.by_offset()],
            "snr_of_recall": {str(level): limit(self.limit(level)) for level in (0.5, 0.9)},
            "threshold_of_completeness": {
                str(wanted): limit(self.threshold_for(wanted)) for wanted in (0.9, 0.95, 0.98)
            }
            if (self.snr >= DETECTED).sum() >= FEWEST_FOR_A_THRESHOLD
            else {},
        }


def completeness(
    source: Any,
    *,
    model: str | Classifier = "realbogus",
    layout: str | Path | Layout | None = None,
    pixel_scale: float | None = None,
    fwhm: float | None = None,
    injections: int = 1000,
    snr: tuple[float, float] = (SNR_EDGES[0], SNR_EDGES[-1]),
    trail: float = 0.0,
    zero_point: float | None = None,
    threshold: float | None = None,
    seed: int = 0,
) -> Completeness:
    """Inject sources into a survey's own stamps and count what a model calls real.

    Parameters
    ----------
    source : path, glob, directory, ndarray, Triplet or iterable of Triplets
        Candidates of any night, real or not, as `classify` takes them; the first 4,000 are used.
    model : str or Classifier
        One with a class ``real``, or a class ``bogus`` beside others.
    layout : str, path or Layout, optional
    pixel_scale, fwhm : float, optional
        arcsec per pixel, and seeing in px, where the stamps do not say; the seeing is measured on their
        stars where it can be.
    injections : int
        Sources, spread evenly over the logarithm of the signal-to-noise.
    snr : (float, float)
        Range of the signal-to-noise of a matched filter in the difference stamp.
    trail : float
        Length of trails in units of the seeing; 0 injects point sources.
    zero_point : float, optional
        Magnitude of a flux of one in the science stamps. By default it is found from candidates that carry
        a magnitude.
    threshold : float, optional
        p(real) from which a source counts as found; by default 0.5.
    seed : int

    Returns
    -------
    Completeness

    Raises
    ------
    EmptyInputError
        No stamp can be used: none could be read, or none has a known or measurable seeing.
    UsageError
        The model knows neither ``real`` nor ``bogus``, or a number makes no sense.

    Notes
    -----
    What this cannot know: sources that the subtraction loses or spoils (the source is added behind it), those
    that the detection misses, and purity, the share of bogus candidates above the threshold.
    """
    if injections < 1 or not 0 < snr[0] < snr[1] or trail < 0:
        raise UsageError(
            "injections must be at least 1, snr an increasing pair and trail not negative: "
            f"{injections}, {snr}, {trail}"
        )
    classifier = model if isinstance(model, Classifier) else load_model(model)
    real = real_column(classifier)
    offered = list(
        islice(open_triplets(source, layout=layout, pixel_scale=pixel_scale, fwhm=fwhm), _MOST_STAMPS)
    )
    injector = Injector(offered, fwhm=fwhm, seed=seed)
    if not injector.count:
        raise EmptyInputError(_why_nothing(offered))
    rng = np.random.default_rng((seed, 1))
    wanted = np.exp(rng.uniform(math.log(snr[0]), math.log(snr[1]), injections))
    made = list(injector.draw(wanted.tolist(), trail=trail))
    if not made:
        raise EmptyInputError(
            f"none of {injector.count} stamps has a place to inject a source into: quiet sky, a star or a "
            "galaxy within reach of the centre"
        )
    probability = _ask(classifier, made, real)
    zero = _zero_point(offered, injector) if zero_point is None else zero_point
    flux = np.array([injection.flux for injection in made])
    result = Completeness(
        classifier.record.id,
        0.5 if threshold is None else threshold,
        injector.night,
        injector.measured_fwhm,
        injector.count,
        len(offered),
        np.array([injection.snr for injection in made]),
        probability,
        np.array([injection.offset for injection in made]),
        np.array([injection.place for injection in made]),
        np.array([injection.row for injection in made]),
        zero - 2.5 * np.log10(flux),
        zero,
        trail,
    )
    lost = np.flatnonzero(~result.found & (result.snr >= DETECTED))
    # The surest losses: bright, and far below the threshold.
    sure = lost[np.argsort((np.nan_to_num(probability[lost]) - 1) * np.log(result.snr[lost]))]
    result.losses.extend(
        (made[k].triplet, float(result.snr[k]), float(probability[k])) for k in sure[:_SHOWN_LOSSES]
    )
    return result


def real_column(classifier: Classifier) -> Callable[[npt.NDArray[Any]], FloatArray]:
    """How to get p(real) from a model's probabilities (N, K).

    Raises
    ------
    UsageError
        The model knows neither ``real`` nor ``bogus``.
    """
    classes = classifier.classes
    if "real" in classes:
        return lambda p: np.asarray(p[:, classes.index("real")], np.float64)
    if "bogus" in classes:
        return lambda p: 1.0 - np.asarray(p[:, classes.index("bogus")], np.float64)
    raise UsageError(
        f"{classifier.record.id} distinguishes {', '.join(classes)}, not real from bogus: "
        "name a model with a class real or bogus"
    )


def _ask(
    classifier: Classifier, made: Sequence[Injection], real: Callable[[npt.NDArray[Any]], FloatArray]
) -> FloatArray:
    return real(classifier.predict([injection.triplet for injection in made]).probabilities)


def _why_nothing(offered: Sequence[Triplet]) -> str:
    unreadable = sum(triplet.error is not None for triplet in offered)
    if unreadable == len(offered):
        return f"none of {len(offered)} candidates could be read"
    return (
        f"none of {len(offered)} candidates can take an injected source: {unreadable} could not be read, the "
        "others are too small or blank, or their seeing is neither given nor measurable on stars: give --fwhm"
    )


def _zero_point(offered: Sequence[Triplet], injector: Injector) -> float:
    """Median zero point of bright candidates that carry a magnitude; NaN where there are few."""
    points = []
    for row, triplet in enumerate(offered):
        magnitude, snr = triplet.meta.get("magnitude"), injector.night.snr[row]
        if isinstance(magnitude, (int, float)) and math.isfinite(magnitude) and snr > _ZERO_POINT_SNR:
            flux = injector.flux_of(row)
            if flux > 0:
                points.append(float(magnitude) + 2.5 * math.log10(flux))
    return float(np.median(points)) if len(points) >= _FOR_ZERO_POINT else math.nan


def _binned(
    values: FloatArray, found: npt.NDArray[np.bool_], edges: Sequence[float]
) -> list[tuple[float, float, Recall]]:
    return [
        (float(low), float(high), Recall.of(found[(values >= low) & (values < high)]))
        for low, high in pairwise(edges)
    ]


def _reached(snr: FloatArray, found: npt.NDArray[np.bool_], level: float) -> float:
    """Where the monotone recall (isotonic regression over sorted `snr`) reaches `level`; NaN if nowhere."""
    fitted = _isotonic(found.astype(np.float64))
    above = fitted >= level
    return float(snr[int(np.argmax(above))]) if above.any() else math.nan


def _isotonic(values: FloatArray) -> FloatArray:
    """Least-squares increasing fit: pool adjacent violators (Ayer et al. 1955)."""
    level: list[float] = []
    weight: list[int] = []
    for value in values.tolist():
        level.append(value)
        weight.append(1)
        while len(level) > 1 and level[-2] >= level[-1]:
            total = weight[-2] + weight[-1]
            level[-2] = (level[-2] * weight[-2] + level[-1] * weight[-1]) / total
            weight[-2] = total
            del level[-1], weight[-1]
    return np.repeat(level, weight)


def write_table(result: Completeness, path: str | os.PathLike[str]) -> Path:
    """The injected sources as CSV: stamp, snr, magnitude, place, offset, p_real, found."""
    import csv

    from ..files.atomic import replacing

    target = Path(path)
    with replacing(target) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["stamp", "snr", "magnitude", "place", "offset", "p_real", "found"])
        for k in range(len(result)):
            numbers = (result.magnitude[k], result.offset[k], result.probability[k])
            magnitude, offset, p = ("" if math.isnan(v) else f"{v:.4f}" for v in numbers)
            snr, found = f"{result.snr[k]:.3f}", int(result.found[k])
            writer.writerow([result.row[k], snr, magnitude, result.place[k], offset, p, found])
    return target
