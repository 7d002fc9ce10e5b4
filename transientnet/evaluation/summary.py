"""How good a model is on one table, and two models on the same: figures with n and intervals."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from .metrics import (
    FALSE_POSITIVE_RATES,
    FloatArray,
    accuracy,
    average_precision,
    balanced_accuracy,
    calibration_error,
    confusion_matrix,
    false_negative_rate,
    matthews,
    pr_curve,
    reliability,
    roc_auc,
    roc_curve,
)
from .statistics import figures, mcnemar, wilson

__all__ = ["compare", "evaluate", "recall_by"]

CURVE_POINTS = 101
"""Length of the grids on which the curves' bootstrap bands stand."""

BRIGHTNESS_BINS = 6

HISTOGRAM_BINS = 20
"""Bins of the scores of each class."""


def recall_by(
    values: npt.ArrayLike, found: npt.ArrayLike, edges: Sequence[float] | None = None
) -> list[dict[str, float]]:
    """Recall in bins of brightness, with Wilson intervals.

    Parameters
    ----------
    values : array_like, shape (N,)
        Magnitude or signal-to-noise of the positives; NaN rows are left out.
    found : array_like of bool, shape (N,)
    edges : sequence of float, optional
        Bin edges; by default quantiles, so that every bin holds alike many.

    Returns
    -------
    list of dict
        ``from``, ``to``, ``recall``, ``low``, ``high``, ``n`` per bin that holds anything.
    """
    v, f = np.asarray(values, np.float64), np.asarray(found, bool)
    known = np.isfinite(v)
    v, f = v[known], f[known]
    if not len(v):
        return []
    if edges is None:
        # Bins of fewer than ten say little.
        bins = max(1, min(BRIGHTNESS_BINS, len(v) // 10))
        edges = np.unique(np.quantile(v, np.linspace(0, 1, bins + 1))).tolist()
        edges = edges if len(edges) > 1 else [edges[0], edges[0]]
    rows = []
    for k, (low, high) in enumerate(pairwise(edges)):
        inside = (v >= low) & ((v < high) | ((k == len(edges) - 2) & (v <= high)))
        n, hits = int(inside.sum()), int(f[inside].sum())
        if n:
            interval = wilson(hits, n)
            rows.append(
                {"from": low, "to": high, "recall": hits / n, "low": interval[0], "high": interval[1], "n": n}
            )
    return rows


def evaluate(
    probabilities: npt.ArrayLike,
    labels: npt.ArrayLike,
    classes: Sequence[str],
    *,
    groups: npt.ArrayLike | None = None,
    weights: npt.ArrayLike | None = None,
    brightness: npt.ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure one model on labelled candidates.

    Parameters
    ----------
    probabilities : array_like, shape (N, K)
        Rows with NaN are counted as ``unusable`` and left out of the rest.
    labels : array_like of int, shape (N,)
        Index of the true class.
    classes : sequence of str, length K
        Of two classes the last is the positive one; of more, each in turn against the rest.
    groups : array_like, shape (N,), optional
        Sky objects, resampled whole.
    weights : array_like, shape (N,), optional
    brightness : array_like, shape (N,), optional
        Magnitude or signal-to-noise of each candidate, NaN where unknown.

    Returns
    -------
    dict
        Plain JSON types: ``n``, ``n_groups``, ``counts``, ``unusable``, ``metrics`` (each
        ``value``, ``low``, ``high``), ``confusion``, and per positive class ``curves``: ROC and
        precision–recall on a grid with bands, ``auc``, ``average_precision``, ``thresholds``,
        ``reliability``, ``recall_by_brightness``, and ``histogram``: the ``edges`` of bins of the score,
        and the candidates of each class in them.
    """
    p, y = np.asarray(probabilities, np.float64), np.asarray(labels, int)
    usable = np.isfinite(p).all(axis=1)
    g = np.arange(len(y)) if groups is None else np.asarray(groups)
    w = np.ones(len(y)) if weights is None else np.asarray(weights, np.float64)
    b = None if brightness is None else np.asarray(brightness, np.float64)[usable]
    unusable = int((~usable).sum())
    p, y, g, w = p[usable], y[usable], g[usable], w[usable]
    k = len(classes)
    predicted = p.argmax(axis=1) if len(p) else np.zeros(0, int)
    positives = [k - 1] if k == 2 else list(range(k))

    def headline(weight: FloatArray) -> list[float]:
        matrix = confusion_matrix(y, predicted, k, weight)
        aucs = [roc_auc(p[:, c], y == c, weight) for c in positives]
        precisions = [average_precision(p[:, c], y == c, weight) for c in positives]
        known = np.isfinite(aucs)
        values = [
            float(np.mean(np.array(aucs)[known])) if known.any() else float("nan"),
            float(np.mean(np.array(precisions)[known])) if known.any() else float("nan"),
            accuracy(matrix),
            balanced_accuracy(matrix),
            matthews(matrix),
            calibration_error(p, y, weights=weight),
        ]
        if k == 2:
            values += [false_negative_rate(p[:, 1], y == 1, rate, weight) for rate in FALSE_POSITIVE_RATES]
        return values

    names = ["auc", "average_precision", "accuracy", "balanced_accuracy", "mcc", "calibration_error"]
    if k == 2:
        names += [f"false_negative_rate_at_{rate:g}" for rate in FALSE_POSITIVE_RATES]
    measured = figures(headline, g, w, resamples=resamples, seed=seed)
    return {
        "n": len(y),
        "n_groups": len(np.unique(g)),
        "unusable": unusable,
        "classes": list(classes),
        "counts": {name: int((y == c).sum()) for c, name in enumerate(classes)},
        "metrics": dict(zip(names, measured, strict=True)),
        "confusion": confusion_matrix(y, predicted, k, w).tolist(),
        "curves": {
            classes[c]: _one_class(p[:, c], y == c, g, w, b, resamples=resamples, seed=seed)
            | {"histogram": _histogram(p[:, c], y, classes)}
            for c in positives
            if 0 < (y == c).sum() < len(y)
        },
    }


def _histogram(scores: FloatArray, y: npt.NDArray[np.intp], classes: Sequence[str]) -> dict[str, Any]:
    edges = np.linspace(0, 1, HISTOGRAM_BINS + 1)
    counts = {name: np.histogram(scores[y == c], edges)[0].tolist() for c, name in enumerate(classes)}
    return {"edges": edges.tolist(), "counts": {name: n for name, n in counts.items() if sum(n)}}


def _one_class(
    scores: FloatArray,
    positive: npt.NDArray[np.bool_],
    groups: npt.NDArray[Any],
    weights: FloatArray,
    brightness: FloatArray | None,
    *,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    grid = np.linspace(0, 1, CURVE_POINTS)

    def curves(weight: FloatArray) -> FloatArray:
        fpr, tpr, _ = roc_curve(scores, positive, weight)
        recall, precision, _ = pr_curve(scores, positive, weight)
        if np.isnan(tpr[-1]) or np.isnan(fpr[-1]):
            return np.full(2 * CURVE_POINTS + 2, np.nan)
        # Both are step functions: the best recall within a rate, the first precision that reaches a recall.
        roc = tpr[np.searchsorted(fpr, grid + 1e-12, side="right") - 1]
        at = np.minimum(np.searchsorted(recall, grid - 1e-12), len(precision) - 1)
        area = roc_auc(scores, positive, weight), average_precision(scores, positive, weight)
        return np.concatenate([roc, precision[at], area])

    measured = figures(curves, groups, weights, resamples=max(100, resamples // 4), seed=seed)

    def band(first: int, of: str) -> dict[str, list[float]]:
        points = measured[first : first + CURVE_POINTS]
        return {
            name: [point[key] for point in points]
            for name, key in ((of, "value"), ("low", "low"), ("high", "high"))
        }

    fpr, tpr, cuts = roc_curve(scores, positive, weights)
    thresholds = []
    for rate in FALSE_POSITIVE_RATES:
        at = np.flatnonzero(fpr <= rate + 1e-12)[-1]
        cut = float(min(cuts[at], 1.0))
        hits = positive & (scores >= cuts[at])
        interval = wilson(int(hits.sum()), int(positive.sum()))
        thresholds.append(
            {
                "false_positive_rate": rate,
                "threshold": cut,
                "recall": float(tpr[at]),
                "low": interval[0],
                "high": interval[1],
                "recall_by_brightness": []
                if brightness is None
                else recall_by(brightness[positive], scores[positive] >= cuts[at]),
            }
        )
    return {
        "n_positive": int(positive.sum()),
        "n_negative": int((~positive).sum()),
        "auc": measured[-2],
        "average_precision": measured[-1],
        "roc": {"fpr": grid.tolist(), **band(0, "tpr")},
        "pr": {"recall": grid.tolist(), **band(CURVE_POINTS, "precision")},
        "thresholds": thresholds,
        "reliability": reliability(scores, positive, weights=weights),
    }


def compare(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    groups: npt.ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Two models on the same candidates: McNemar's test and paired bootstrap differences.

    Parameters
    ----------
    first, second : array_like, shape (N, K)
        Probabilities over the same classes; rows that either cannot use are left out.
    labels : array_like of int, shape (N,)

    Returns
    -------
    dict
        ``n``, ``only_first_right``, ``only_second_right``, ``p`` (McNemar, exact), and first less
        second in ``accuracy`` and ``auc``, each with ``value``, ``low``, ``high``.
    """
    a, b, y = np.asarray(first, np.float64), np.asarray(second, np.float64), np.asarray(labels, int)
    usable = np.isfinite(a).all(axis=1) & np.isfinite(b).all(axis=1)
    a, b, y = a[usable], b[usable], y[usable]
    g = None if groups is None else np.asarray(groups)[usable]
    right_a, right_b = a.argmax(axis=1) == y, b.argmax(axis=1) == y
    positives = [1] if a.shape[1] == 2 else range(a.shape[1])

    def differences(w: FloatArray) -> list[float]:
        aucs = [roc_auc(a[:, c], y == c, w) - roc_auc(b[:, c], y == c, w) for c in positives]
        known = np.isfinite(aucs)
        area = float(np.mean(np.array(aucs)[known])) if known.any() else float("nan")
        return [float(w @ (right_a.astype(float) - right_b) / w.sum()), area]

    only_first, only_second, p = mcnemar(right_a, right_b)
    gained = figures(differences, g, np.ones(len(y)), resamples=resamples, seed=seed)
    return {
        "n": len(y),
        "only_first_right": only_first,
        "only_second_right": only_second,
        "p": p,
        "accuracy": gained[0],
        "auc": gained[1],
    }
