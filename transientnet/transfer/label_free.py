"""The threshold of a telescope without a label: from its own night, and from sources injected into it.

A night is a mixture of two populations in the logit of p(real), and two estimates say where they part.

1. *Injection.* What the network makes of reals here is seen on sources injected into the night's own
   stamps. What it makes of bogus is taken to be as on the survey that it learnt from, but for a place and a
   width that the night decides, and a part of it that the network takes for half real. Fitted by maximum a
   posteriori likelihood, the mixture gives the threshold with the fewest expected errors.
2. *Share of reals.* Where the probabilities are right but for the share of reals, expectation maximisation
   gives that share (Saerens, Latinne & Decaestecker 2002, Neural Computation 14, 21), and its threshold.

The first is wrong where injected sources are easier than the night's own, the second where the network meets
bogus here that it never saw. Their mean is taken; where they contradict each other, half of the way that
injection asks for. It becomes p(real) = 0.5. The map is monotone: the order of the candidates, and so the
AUC, stays. Loads no torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from ..models.calibration import Conformal, Threshold
from ..models.record import ModelRecord
from .outcome import NightFit

__all__ = ["DETECTED", "FEWEST", "MOST_LOST", "Source", "fit_night"]

FloatArray = npt.NDArray[np.float64]

FEWEST = 60
"""Candidates that a night must have for two populations to be separated."""

MOST_LOST = 0.10
"""Balanced accuracy on the base model's own survey that a new threshold may cost at most."""

# The logits as a histogram.
_EDGES = np.linspace(-9.0, 9.0, 181)
_GRID = (_EDGES[1:] + _EDGES[:-1]) / 2
_STEP = float(_GRID[1] - _GRID[0])
_SMOOTHING = 0.5
# Signal-to-noise of the injected sources that stand for the night's reals, evenly spread over its logarithm.
DETECTED = 5.0
# How far the populations may move from where injection and the source survey put them: standard deviations of
# the priors in logits, that of the width in its logarithm; and the pull of the share of reals towards a half.
_REAL_SHIFT, _BOGUS_SHIFT, _BOGUS_WIDTH, _EVEN = 0.2, 1.5, 0.35, 2.0
_WIDTH, _WINGS = 2.0, 0.1
# Bogus that looks half real: its share (and, in logits of it, the prior's width), place and width.
_HARD, _HARD_SHIFT, _HARD_AT, _HARD_WIDTH = 0.15, 1.0, 1.0, 1.2
# Candidates of either kind that the estimate of the share starts from.
_PRIOR = 10.0
_RESAMPLES = 24
_FARTHEST = 4.0
# Of either population a night must be expected to have so many.
_OF_EITHER = 5.0
# Share of bright injected sources that the base model must call real: if fewer, either the injection or the
# model does not work here.
_BRIGHT, _RECOVERED, _BRIGHT_ENOUGH = 10.0, 0.5, 50
# Shifts of the threshold, in logits, that are not worth a new model, and errors per candidate that are not
# worth a shift.
_WORTH, _ALIKE = 0.2, 0.005


class Source(NamedTuple):
    """What a record says about p(real) of the held-out candidates of the survey that its model learnt from.

    Attributes
    ----------
    bogus, real : ndarray, shape (M, 2)
        Logits, ascending, and the share of the class below each.
    """

    bogus: FloatArray
    real: FloatArray

    @classmethod
    def of(cls, record: ModelRecord) -> Source:
        """From thresholds, prediction sets and reference statistics of a model of bogus and real."""
        bogus: list[tuple[float, float]] = []
        real: list[tuple[float, float]] = []
        column = record.classes.index("real")
        for threshold in map(Threshold.from_dict, record.thresholds):
            if threshold.name == "real":
                at = _logit(threshold.threshold)
                bogus.append((at, 1 - threshold.measured_false_positive_rate))
                real.append((at, 1 - threshold.recall))
        for level, stored in Conformal.from_dict(record.conformal).levels.items():
            bogus.append((_logit(1 - stored.cutoffs[1 - column]), float(level)))
            real.append((_logit(stored.cutoffs[column]), 1 - float(level)))
        scores, named = record.reference.get("scores", {}), record.reference.get("labels", {})
        if "real" in scores and named.get("bogus"):
            # The middle of what was called bogus, most of which is.
            quantiles = np.linspace(0, 1, len(scores["real"]))
            middle = _logit(float(np.interp(named["bogus"] / 2, quantiles, scores["real"])))
            bogus.append((min(middle, -1.0), 0.5))
        return cls(_ascending(bogus), _ascending(real))

    @property
    def middle(self) -> float:
        """Median logit of bogus, or a usual one where the record does not say."""
        if len(self.bogus) and self.bogus[0, 1] <= 0.5:
            return float(np.interp(0.5, self.bogus[:, 1], self.bogus[:, 0]))
        return -3.0

    def cost(self, threshold: float) -> float:
        """Balanced accuracy lost there by a threshold other than 0, in logits; NaN where it is unknown."""
        if not len(self.bogus) or not len(self.real):
            return math.nan
        below = [
            [float(np.interp(at, *known.T)) for at in (0.0, threshold)] for known in (self.bogus, self.real)
        ]
        (bogus_before, bogus_now), (real_before, real_now) = below
        return ((bogus_before - bogus_now) + (real_now - real_before)) / 2

    def bounded(self, threshold: float) -> float:
        """The threshold, or the last one on the way to it that costs no more than `MOST_LOST`."""
        steps = np.linspace(0.0, threshold, 101)
        dear = [k for k, at in enumerate(steps) if self.cost(float(at)) > MOST_LOST]
        return float(steps[dear[0] - 1]) if dear else threshold


def fit_night(
    night: npt.ArrayLike,
    injected: npt.ArrayLike,
    injected_snr: npt.ArrayLike,
    source: Source,
    *,
    seed: int = 0,
) -> NightFit:
    """Choose the threshold for a night without labels, or find that the night does not constrain it.

    Parameters
    ----------
    night : array_like, shape (N,)
        Logit of p(real) of the night's candidates; NaN where unusable.
    injected, injected_snr : array_like, shape (M,)
        That of injected sources, evenly spread over the logarithm of the signal-to-noise.
    source : Source
    seed : int
        Of the resampled nights.

    Returns
    -------
    NightFit
    """
    z, found = _finite(night), _finite(injected)
    found_snr = np.asarray(injected_snr, np.float64)[np.isfinite(np.asarray(injected, np.float64))]
    if len(z) < FEWEST:
        return NightFit(reason=f"{len(z)} usable candidates are too few; {FEWEST} are needed")
    bright = found[found_snr >= _BRIGHT]
    if len(bright) < _BRIGHT_ENOUGH:
        return NightFit(reason=f"only {len(bright)} bright sources could be injected into the stamps")
    recovered = float((bright >= 0).mean())
    if recovered < _RECOVERED:
        return NightFit(
            reason=f"the base model finds only {100 * recovered:.0f} % of the sources injected at a "
            f"signal-to-noise of {_BRIGHT:g} or more: labels are needed here"
        )
    rng = np.random.default_rng(seed)
    bins = np.histogram(z, _EDGES)[0].astype(np.float64)
    reals = _density(found[found_snr >= DETECTED])
    mixture = _fit(bins, reals, source)
    values, shares = [], []
    for _ in range(_RESAMPLES):
        again = rng.multinomial(len(z), bins / bins.sum()).astype(np.float64)
        drawn = _fit(again, reals, source, start=mixture)
        values.append(_blend(drawn.threshold, _by_share(again)))
        shares.append(drawn.share)
    low, high = (float(v) for v in np.quantile(values, [0.025, 0.975]))
    share_low, share_high = (float(v) for v in np.quantile(shares, [0.025, 0.975]))
    fit = NightFit(share=mixture.share, share_low=share_low, share_high=share_high)
    for name, share in (("real", mixture.share), ("bogus", 1 - mixture.share)):
        if share * len(z) < _OF_EITHER:
            return replace(fit, reason=f"the night shows hardly any {name}")
    threshold = source.bounded(_blend(mixture.threshold, _by_share(bins)))
    if abs(threshold) < _WORTH:
        return replace(fit, reason="the night asks for no other threshold")
    return replace(
        fit,
        threshold=threshold,
        low=low,
        high=high,
        slope=mixture.slope(threshold),
        saved=mixture.errors(0.0) - mixture.errors(threshold),
        cost=source.cost(threshold),
    )


def _blend(by_injection: float, by_share: float) -> float:
    agreed = by_share if by_injection * by_share > 0 else 0.0
    return float(np.clip((by_injection + agreed) / 2, -_FARTHEST, _FARTHEST))


def _by_share(bins: FloatArray) -> float:
    """The threshold for the share of reals that expectation maximisation finds, from calibrated logits."""
    p = 1 / (1 + np.exp(-_GRID))
    share = 0.5
    for _ in range(300):
        real = p * share / (p * share + (1 - p) * (1 - share))
        before, share = share, float(((bins * real).sum() + _PRIOR) / (bins.sum() + 2 * _PRIOR))
        if abs(share - before) < 1e-6:
            break
    return math.log((1 - share) / share)


@dataclass(frozen=True, slots=True, eq=False)
class _Mixture:
    """Share of reals, both densities on `_GRID`, and the parameters that gave them."""

    share: float
    reals: FloatArray
    bogus: FloatArray
    parameters: FloatArray

    @property
    def posterior(self) -> FloatArray:
        real = self.share * self.reals
        return np.asarray(real / (real + (1 - self.share) * self.bogus))

    def errors(self, threshold: float) -> float:
        """Expected errors per candidate."""
        below = np.clip((threshold - _EDGES[:-1]) / _STEP, 0, 1)
        return float(
            self.share * (below * self.reals).sum() + (1 - self.share) * ((1 - below) * self.bogus).sum()
        )

    @property
    def threshold(self) -> float:
        """The one nearest to 0, within `_FARTHEST`, with hardly more than the fewest expected errors.

        Where the populations lie far apart the errors hardly change between them, and their minimum may lie
        anywhere: within `_ALIKE` of it a threshold counts as good as the best.
        """
        trial = _EDGES[np.abs(_EDGES) <= _FARTHEST + _STEP / 2]
        errors = np.array([self.errors(float(edge)) for edge in trial])
        good = trial[errors <= errors.min() + _ALIKE]
        return float(good[int(np.argmin(np.abs(good)))])

    def slope(self, threshold: float) -> float:
        """Factor on the logits about a threshold that comes closest to the posterior."""
        posterior = np.clip(self.posterior, 1e-4, 1 - 1e-4)
        weight = self.share * self.reals + (1 - self.share) * self.bogus
        trial = np.linspace(0.3, 1.5, 25)
        p = 1 / (1 + np.exp(-trial[:, None] * (_GRID - threshold)))
        p = np.clip(p, 1e-6, 1 - 1e-6)
        loss = -(weight * (posterior * np.log(p) + (1 - posterior) * np.log1p(-p))).sum(axis=1)
        return float(trial[int(np.argmin(loss))])


def _fit(bins: FloatArray, injected: FloatArray, source: Source, start: _Mixture | None = None) -> _Mixture:
    """The mixture with the largest posterior density."""
    middle = source.middle

    def mixture(x: FloatArray) -> _Mixture:
        reals = np.interp(_GRID - x[0] * _REAL_SHIFT, _GRID, injected)
        u = (_GRID - middle - x[1] * _BOGUS_SHIFT) / (_WIDTH * math.exp(x[2] * _BOGUS_WIDTH))
        plain = (1 - _WINGS) * np.exp(-(u**2) / 2) + _WINGS / 2 * np.exp(-(u**2) / 8)
        hard = np.exp(-(((_GRID - _HARD_AT - x[5]) / _HARD_WIDTH) ** 2) / 2)
        part = _share_of(_logit(_HARD) + _HARD_SHIFT * x[4])
        bogus = (1 - part) * plain / plain.sum() + part * hard / hard.sum()
        return _Mixture(_share_of(x[3]), reals / reals.sum(), bogus, x)

    def loss(x: FloatArray) -> float:
        made = mixture(x)
        density = made.share * made.reals + (1 - made.share) * made.bogus
        penalty = (x[[0, 1, 2, 4, 5]] ** 2).sum() / 2 - _EVEN * math.log(
            max(made.share * (1 - made.share), 1e-9)
        )
        return float(-(bins * np.log(density + 1e-9)).sum() + penalty)

    share = float(np.clip(bins[_GRID > 0].sum() / bins.sum(), 0.05, 0.95))
    starts = [np.array([0.0, moved, 0.0, _logit(share), 0.0, 0.0]) for moved in (0.0, 1.0)]
    starts.append(np.array([0.0, 0.0, 0.0, _logit(0.6 * share), 1.0, 0.5]))
    if start is not None:
        starts = [start.parameters]
    ends = []
    for x in starts:
        # By itself scipy would move a parameter that starts at 0 by 0.00025, and end where it began.
        options = {
            "maxiter": 3000,
            "xatol": 0.01,
            "fatol": 0.01,
            "initial_simplex": [x, *(x + 0.6 * np.eye(len(x)))],
        }
        ends.append(minimize(loss, x, method="Nelder-Mead", options=options))
    return mixture(min(ends, key=lambda end: float(end.fun)).x)


def _density(z: FloatArray) -> FloatArray:
    """Kernel density on `_GRID`, sum 1."""
    density = np.exp(-(((_GRID - z.clip(-8, 8)[:, None]) / _SMOOTHING) ** 2) / 2).sum(axis=0)
    return np.asarray(density / density.sum() + 1e-7)


def _finite(z: npt.ArrayLike) -> FloatArray:
    values = np.asarray(z, np.float64)
    return np.asarray(values[np.isfinite(values)].clip(_EDGES[0] + 1e-6, _EDGES[-1] - 1e-6))


def _ascending(points: list[tuple[float, float]]) -> FloatArray:
    """Points sorted by both coordinates: measured shares below growing thresholds cannot fall."""
    table = np.array(points, np.float64).reshape(-1, 2)
    return np.column_stack([np.sort(table[:, 0]), np.sort(table[:, 1])])


def _share_of(logit: float) -> float:
    return float(1 / (1 + math.exp(-logit)))


def _logit(p: Any) -> float:
    inside = min(max(float(p), 1e-6), 1 - 1e-6)
    return math.log(inside / (1 - inside))
