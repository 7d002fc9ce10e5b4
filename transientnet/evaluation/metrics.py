"""Single figures of merit of scores against labels, weighted; `summary` has them with intervals."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .statistics import wilson

__all__ = [
    "accuracy",
    "average_precision",
    "balanced_accuracy",
    "calibration_error",
    "confusion_matrix",
    "false_negative_rate",
    "matthews",
    "pr_curve",
    "reliability",
    "roc_auc",
    "roc_curve",
]

FloatArray = npt.NDArray[np.float64]
Weights = npt.NDArray[np.float64] | None

FALSE_POSITIVE_RATES = (0.01, 0.05)
"""Rates at which thresholds and recalls are stated."""


def _counts(
    scores: npt.ArrayLike, positive: npt.ArrayLike, weights: npt.ArrayLike | None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Weighted positives and negatives at or above each distinct score, highest first."""
    s = np.asarray(scores, np.float64)
    y = np.asarray(positive, bool)
    w = np.ones(len(s)) if weights is None else np.asarray(weights, np.float64)
    order = np.argsort(-s, kind="stable")
    s, y, w = s[order], y[order], w[order]
    last = np.append(np.flatnonzero(np.diff(s)), len(s) - 1) if len(s) else np.zeros(0, int)
    return np.cumsum(w * y)[last], np.cumsum(w * ~y)[last], s[last]


def roc_curve(
    scores: npt.ArrayLike, positive: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Receiver operating characteristic.

    Parameters
    ----------
    scores : array_like, shape (N,)
        Higher is more positive.
    positive : array_like of bool, shape (N,)
    weights : array_like, shape (N,), optional

    Returns
    -------
    fpr, tpr, thresholds : ndarray
        From (0, 0) at an infinite threshold to (1, 1); NaN where a class is absent.
    """
    hits, alarms, thresholds = _counts(scores, positive, weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        tpr = np.concatenate([[0.0], hits / (hits[-1] if len(hits) else 0.0)])
        fpr = np.concatenate([[0.0], alarms / (alarms[-1] if len(alarms) else 0.0)])
    return fpr, tpr, np.concatenate([[np.inf], thresholds])


def pr_curve(
    scores: npt.ArrayLike, positive: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Recall, precision and thresholds, recall rising."""
    hits, alarms, thresholds = _counts(scores, positive, weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        return hits / (hits[-1] if len(hits) else 0.0), hits / (hits + alarms), thresholds


def roc_auc(scores: npt.ArrayLike, positive: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> float:
    """Area under the ROC curve; NaN where a class is absent."""
    fpr, tpr, _ = roc_curve(scores, positive, weights)
    return float((np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2).sum()) if len(fpr) > 1 else float("nan")


def average_precision(
    scores: npt.ArrayLike, positive: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> float:
    """Mean precision over recall; NaN without a positive."""
    recall, precision, _ = pr_curve(scores, positive, weights)
    if not len(recall):
        return float("nan")
    return float((np.diff(recall, prepend=0.0) * np.nan_to_num(precision)).sum())


def false_negative_rate(
    scores: npt.ArrayLike, positive: npt.ArrayLike, fpr: float, weights: npt.ArrayLike | None = None
) -> float:
    """Positives lost at the loosest threshold with at most `fpr` false positives."""
    alarm, recall, _ = roc_curve(scores, positive, weights)
    if np.isnan(alarm[-1]) or np.isnan(recall[-1]):
        return float("nan")
    return float(1.0 - recall[alarm <= fpr + 1e-12].max())


def confusion_matrix(
    labels: npt.ArrayLike, predicted: npt.ArrayLike, n_classes: int, weights: npt.ArrayLike | None = None
) -> FloatArray:
    """Weighted counts (K, K): rows are the true classes, columns the predicted ones."""
    cells = np.asarray(labels, int) * n_classes + np.asarray(predicted, int)
    counts = np.bincount(cells, None if weights is None else np.asarray(weights, np.float64), n_classes**2)
    return counts.reshape(n_classes, n_classes).astype(np.float64)


def accuracy(matrix: FloatArray) -> float:
    """Fraction on the diagonal of a confusion matrix."""
    total = matrix.sum()
    return float(np.trace(matrix) / total) if total else float("nan")


def balanced_accuracy(matrix: FloatArray) -> float:
    """Mean recall over the classes that occur."""
    totals = matrix.sum(axis=1)
    there = totals > 0
    return float((np.diag(matrix)[there] / totals[there]).mean()) if there.any() else float("nan")


def matthews(matrix: FloatArray) -> float:
    """Matthews correlation coefficient, for any number of classes (Gorodkin 2004); 0 if undefined."""
    true, predicted, n = matrix.sum(axis=1), matrix.sum(axis=0), matrix.sum()
    spread = (n**2 - (predicted**2).sum()) * (n**2 - (true**2).sum())
    if spread <= 0:
        return 0.0
    return float((np.trace(matrix) * n - true @ predicted) / np.sqrt(spread))


def reliability(
    probability: npt.ArrayLike, happened: npt.ArrayLike, bins: int = 10, weights: npt.ArrayLike | None = None
) -> list[dict[str, float]]:
    """Stated against observed frequency in bins of equal mass, with Wilson intervals.

    Parameters
    ----------
    probability : array_like, shape (N,)
        Of the event.
    happened : array_like of bool, shape (N,)

    Returns
    -------
    list of dict
        ``probability`` (mean stated), ``frequency``, ``low``, ``high``, ``n``, ``weight`` per bin.
    """
    p, y = np.asarray(probability, np.float64), np.asarray(happened, np.float64)
    w = np.ones(len(p)) if weights is None else np.asarray(weights, np.float64)
    order = np.argsort(p, kind="stable")
    rows = []
    for part in np.array_split(order, min(bins, len(p)) or 1):
        weight = w[part].sum()
        if weight <= 0:
            continue
        frequency = float((w[part] * y[part]).sum() / weight)
        # Unequal weights carry less than their number (Kish 1965).
        effective = weight**2 / (w[part] ** 2).sum()
        low, high = wilson(frequency * effective, effective)
        rows.append(
            {
                "probability": float((w[part] * p[part]).sum() / weight),
                "frequency": frequency,
                "low": low,
                "high": high,
                "n": len(part),
                "weight": float(weight),
            }
        )
    return rows


def calibration_error(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, bins: int = 15, weights: npt.ArrayLike | None = None
) -> float:
    """Expected calibration error: mean gap between stated and observed frequency.

    Bins hold equal mass. What chance alone adds to each squared gap is subtracted (Brocker 2012),
    or a perfect model would seem worse the fewer stamps it is tested on.

    Parameters
    ----------
    probabilities : array_like, shape (N, K)
        Judged by the second class where K = 2, by the most probable one otherwise (Guo et al. 2017).
    labels : array_like of int, shape (N,)
    """
    p, y = np.asarray(probabilities, np.float64), np.asarray(labels, int)
    if not len(p):
        return float("nan")
    w = np.ones(len(p)) if weights is None else np.asarray(weights, np.float64)
    best = p.argmax(axis=1)
    stated, happened = (p[:, 1], y == 1) if p.shape[1] == 2 else (p.max(axis=1), best == y)
    order = np.argsort(stated, kind="stable")
    total = 0.0
    for part in np.array_split(order, min(bins, len(p))):
        weight = w[part].sum()
        if weight <= 0:
            continue
        frequency = w[part] @ happened[part] / weight
        gap = frequency - w[part] @ stated[part] / weight
        effective = weight**2 / (w[part] ** 2).sum()
        chance = frequency * (1 - frequency) / max(effective - 1, 1)
        total += weight * np.sqrt(max(gap**2 - chance, 0.0))
    return float(total / w.sum()) if w.sum() > 0 else float("nan")
