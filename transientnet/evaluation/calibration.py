"""Probabilities that mean something: calibration, decision thresholds and prediction sets.

Everything is fitted on candidates that the network was not trained on, stored as plain JSON in the
model's record, and applied after the logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from ..models.calibration import LEVELS, Calibration, Conformal, Coverage, Fit, Threshold, sets_of, softmax
from .metrics import FALSE_POSITIVE_RATES, calibration_error
from .splits import grouped_folds
from .statistics import bootstrap, clopper_pearson

__all__ = [
    "Calibrated",
    "calibrate",
    "fit_calibration",
    "fit_conformal",
    "fit_thresholds",
]

FloatArray = npt.NDArray[np.float64]

TEMPERATURES = (0.02, 50.0)

# A calibration of more parameters must win by this much in cross-validated nats per candidate.
_WORTH = 0.002


class Calibrated(NamedTuple):
    """All that a record says about its probabilities."""

    calibration: Calibration
    thresholds: tuple[Threshold, ...]
    conformal: Conformal

    def to_record(self) -> dict[str, Any]:
        """The fields ``calibration``, ``thresholds`` and ``conformal`` of a `ModelRecord`."""
        return {
            "calibration": self.calibration.to_dict(),
            "thresholds": [threshold.to_dict() for threshold in self.thresholds],
            "conformal": self.conformal.to_dict(),
        }


def calibrate(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    classes: Sequence[str],
    *,
    groups: npt.ArrayLike | None = None,
    weights: npt.ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Calibrated:
    """Fit all that a record says about its probabilities, on held-out candidates.

    Parameters
    ----------
    logits : array_like, shape (N, K)
        Of candidates that the network was not trained on (out of fold, or a held-out set).
    labels : array_like of int, shape (N,)
    classes : sequence of str, length K
    groups : array_like, shape (N,), optional
        Sky objects; folds and resamples keep them whole.
    weights : array_like, shape (N,), optional

    Returns
    -------
    Calibrated

    Raises
    ------
    UsageError
        If a class has no candidate.
    """
    z, y = np.asarray(logits, np.float64), np.asarray(labels, int)
    absent = [name for c, name in enumerate(classes) if not (y == c).any()]
    if absent or z.shape != (len(y), len(classes)) or not np.isfinite(z).all():
        raise UsageError(
            f"calibration needs finite logits (N, {len(classes)}) and held-out candidates of every class"
            + (f"; there are none of {', '.join(absent)}" if absent else "")
        )
    calibration = fit_calibration(z, y, groups=groups, weights=weights, resamples=resamples, seed=seed)
    probabilities = calibration.apply(z)
    return Calibrated(
        calibration,
        fit_thresholds(probabilities, y, classes, groups=groups, resamples=resamples, seed=seed),
        fit_conformal(probabilities, y, groups=groups, seed=seed),
    )


def fit_calibration(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    groups: npt.ArrayLike | None = None,
    weights: npt.ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Calibration:
    """Choose and fit a calibration.

    A temperature (Guo et al. 2017), or a temperature with a bias per class (Alexandari et al. 2020;
    for two classes that is Platt's) where that has the better likelihood in grouped cross-validation.
    Targets are softened as Platt (1999) does, so that separable classes give finite answers.

    Parameters
    ----------
    logits : array_like, shape (N, K)
        Of held-out candidates.
    labels : array_like of int, shape (N,)
    groups, weights : array_like, shape (N,), optional

    Returns
    -------
    Calibration
    """
    z, y = np.asarray(logits, np.float64), np.asarray(labels, int)
    w = np.ones(len(y)) if weights is None else np.asarray(weights, np.float64)
    raw = Calibration().apply(z)
    folds = grouped_folds(y, groups, seed=seed)
    held_out: dict[str, npt.NDArray[np.float32]] = {}
    for method in ("temperature", "temperature-bias"):
        held_out[method] = raw.copy()
        for train, test in folds:
            held_out[method][test] = _fit(z[train], y[train], w[train], method).apply(z[test])
    losses = {method: _nll(p, y, w) for method, p in held_out.items()}
    better = losses["temperature-bias"] < losses["temperature"] - _WORTH
    method = "temperature-bias" if better else "temperature"

    def measured(p: npt.NDArray[np.float32]) -> Fit:
        interval = bootstrap(
            lambda v: calibration_error(p, y, weights=v), groups, len(y), weights=w,
            resamples=resamples, seed=seed,
        )  # fmt: skip
        return Fit(_nll(p, y, w), calibration_error(p, y, weights=w), interval)

    return replace(_fit(z, y, w, method), n=len(y), before=measured(raw), after=measured(held_out[method]))


def _nll(p: npt.NDArray[np.float32], y: npt.NDArray[Any], w: FloatArray) -> float:
    chosen = np.maximum(p[np.arange(len(y)), y].astype(np.float64), 1e-12)
    return float(-(w * np.log(chosen)).sum() / w.sum())


def _fit(z: FloatArray, y: npt.NDArray[Any], w: FloatArray, method: str) -> Calibration:
    """Newton's method on the convex loss in (1 / temperature, bias)."""
    n, k = z.shape
    w = w / w.sum()
    z = z - z.mean(axis=1, keepdims=True)
    target = np.zeros((n, k))
    for c in range(k):
        mine = y == c
        count = w[mine].sum() ** 2 / max((w[mine] ** 2).sum(), 1e-300)
        soft = 1.0 / (count + 2.0)
        target[mine] = soft / (k - 1)
        target[mine, c] = 1.0 - soft
    biases = k if method == "temperature-bias" else 0
    parameters = np.zeros(1 + biases)
    parameters[0] = 1.0
    # A whiff of ridge fixes the one direction that the softmax does not see.
    ridge = 1e-6 * np.eye(1 + biases)
    ridge[0, 0] = 0.0

    def loss(q: FloatArray) -> float:
        score = q[0] * z + (q[1:] if biases else 0.0)
        top = score.max(axis=1, keepdims=True)
        log_p = score - top - np.log(np.exp(score - top).sum(axis=1, keepdims=True))
        return float(-(w @ (target * log_p).sum(axis=1)) + q @ ridge @ q / 2)

    for _ in range(100):
        p = softmax(parameters[0] * z + (parameters[1:] if biases else 0.0))
        residual = w[:, None] * (p - target)
        gradient = np.append((residual * z).sum(), residual.sum(axis=0)[:biases]) + ridge @ parameters
        mean = (p * z).sum(axis=1)
        spread = p * (z - mean[:, None])
        hessian = ridge.copy()
        hessian[0, 0] += w @ (spread * z).sum(axis=1) + 1e-12
        if biases:
            hessian[0, 1:] = hessian[1:, 0] = w @ spread
            hessian[1:, 1:] += np.diag(w @ p) - (p * w[:, None]).T @ p
        step = np.linalg.solve(hessian, gradient)
        size, now = 1.0, loss(parameters)
        while size > 1e-8 and loss(parameters - size * step) > now:
            size /= 2
        parameters = parameters - size * step
        if np.abs(size * step).max() < 1e-9:
            break
    inverse = float(np.clip(parameters[0], 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]))
    bias = (parameters[1:] - parameters[1:].mean()).tolist() if biases else []
    return Calibration(1.0 / inverse, tuple(bias), method)


def fit_thresholds(
    probabilities: npt.ArrayLike,
    labels: npt.ArrayLike,
    classes: Sequence[str],
    *,
    rates: Sequence[float] = FALSE_POSITIVE_RATES,
    groups: npt.ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[Threshold, ...]:
    """Thresholds on a class's probability at stated false positive rates.

    Parameters
    ----------
    probabilities : array_like, shape (N, K)
        Calibrated, of held-out candidates.
    labels : array_like of int, shape (N,)
    classes : sequence of str, length K
        Of two classes the last is thresholded; of more, each against the rest.
    rates : sequence of float

    Returns
    -------
    tuple of Threshold
    """
    p, y = np.asarray(probabilities, np.float64), np.asarray(labels, int)
    rows = []
    for c in [len(classes) - 1] if len(classes) == 2 else range(len(classes)):
        positive = y == c
        others, own = p[~positive, c], p[positive, c]
        if not len(others) or not len(own):
            continue
        negative_groups = None if groups is None else np.asarray(groups)[~positive]
        order = np.argsort(-others, kind="stable")
        for rate in rates:
            cut = _threshold(others, order, rate, np.ones(len(others)))
            low, high = bootstrap(
                partial(_threshold, others, order, rate),
                negative_groups,
                len(others),
                resamples=resamples,
                seed=seed,
            )
            alarms, hits = int((others >= cut).sum()), int((own >= cut).sum())
            rows.append(
                Threshold(
                    classes[c],
                    rate,
                    cut,
                    (low, high),
                    alarms / len(others),
                    clopper_pearson(alarms, len(others)),
                    hits / len(own),
                    clopper_pearson(hits, len(own)),
                    len(others),
                    len(own),
                )
            )
    return tuple(rows)


def _threshold(scores: FloatArray, order: npt.NDArray[Any], rate: float, weights: FloatArray) -> float:
    """Lowest cut that at most `rate` of the weighted scores reach; `order` sorts them downwards."""
    passing = np.cumsum(weights[order])
    # The first score that must not pass any more; the cut lies just above it.
    stop = int(np.searchsorted(passing, rate * passing[-1] * (1 + 1e-12), side="right"))
    highest_refused = scores[order[min(stop, len(order) - 1)]]
    # As float32, the type of every probability, so that the comparison means the same everywhere.
    return float(min(np.nextafter(np.float32(highest_refused), np.float32(2.0)), np.float32(1.0)))


def fit_conformal(
    probabilities: npt.ArrayLike,
    labels: npt.ArrayLike,
    levels: Sequence[float] = LEVELS,
    *,
    groups: npt.ArrayLike | None = None,
    seed: int = 0,
) -> Conformal:
    """Split-conformal prediction sets, class by class.

    A class belongs to a candidate's set if its probability reaches that class's own quantile among
    held-out candidates of the class (label-conditional conformal prediction, Vovk 2012; Sadinle et
    al. 2019): each class is covered at the level, rare ones too.

    Parameters
    ----------
    probabilities : array_like, shape (N, K)
        Calibrated, of held-out candidates.
    labels : array_like of int, shape (N,)
    levels : sequence of float
        Coverages wanted.

    Returns
    -------
    Conformal
        Its coverages are cross-validated by group.
    """
    p, y = np.asarray(probabilities, np.float32), np.asarray(labels, int)
    k = p.shape[1]
    folds = grouped_folds(y, groups, seed=seed)
    stored: dict[str, Coverage] = {}
    for level in levels:
        inside = np.zeros(p.shape, bool)
        tested = np.zeros(len(y), bool)
        for train, test in folds:
            inside[test] = sets_of(p[test], _cutoffs(p[train], y[train], level))
            tested[test] = True
        covered = inside[np.arange(len(y)), y]
        hits, n = int(covered[tested].sum()), int(tested.sum())
        own = [tested & (y == c) for c in range(k)]
        stored[f"{level:g}"] = Coverage(
            _cutoffs(p, y, level),
            hits / n if n else None,
            clopper_pearson(hits, n),
            tuple(float(covered[mine].mean()) if mine.any() else None for mine in own),
            float(inside[tested].sum(axis=1).mean()) if n else None,
        )
    return Conformal(n=tuple(int((y == c).sum()) for c in range(k)), levels=stored)


def _cutoffs(p: npt.NDArray[np.float32], y: npt.NDArray[Any], level: float) -> tuple[float, ...]:
    """Per class, the probability that all but a share of 1 - `level` of its candidates reach."""
    cutoffs = []
    for c in range(p.shape[1]):
        own = np.sort(p[y == c, c])
        # Of n + 1 exchangeable candidates, this many may fall below.
        below = int(np.floor((len(own) + 1) * (1 - level) + 1e-9))
        cutoffs.append(float(own[below - 1]) if below >= 1 else 0.0)
    return tuple(cutoffs)
