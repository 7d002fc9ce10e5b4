"""How much labels have taught so far, and what the next ones are worth: the learning curve of the head."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..evaluation.statistics import figures
from .head import FloatArray, Places, Start, answer, solve

__all__ = ["NEXT", "learning_curve"]

SIZES = (15, 25, 50, 75, 100, 150, 200, 300, 500, 1000, 2000)
NEXT = 100
"""Labels that the extrapolation looks ahead."""

RESAMPLES = 300


def learning_curve(
    start: Start, rows: Places, y: Places, folds: Places, groups: npt.NDArray[np.str_], strength: float
) -> dict[str, Any]:
    """Accuracy against number of labels, each label judged by heads that have not seen its sky object.

    Every size is judged on the same candidates, all that have a label, so that the points compare; the first
    point is the model's own answer. The worth of the next labels comes from a fit of the error as
    ``a + b / sqrt(n)`` to the other points, without which a curve of few labels says nothing of later ones.

    Parameters
    ----------
    start : Start
    rows, y, folds, groups : ndarray, shape (n,)
        Labels in the order in which they were given.
    strength : float
        Pull of the heads.

    Returns
    -------
    dict
        ``labels`` (list of mean numbers of labels learned from), ``accuracy``, ``low``, ``high`` (lists; 95 %
        bootstrap of sky objects), ``next`` (``labels``, ``points``, ``low``, ``high`` in per cent, or None
        with fewer than three sizes).
    """
    design, offset = start.design[rows], start.offset[rows]
    largest = min(int((folds != fold).sum()) for fold in np.unique(folds))
    sizes = [0, *(size for size in SIZES if size < 0.9 * largest), largest]
    right = np.zeros((len(sizes), len(rows)))
    for place, size in enumerate(sizes):
        for fold in np.unique(folds):
            test, train = folds == fold, np.flatnonzero(folds != fold)[:size]
            moved = np.zeros((offset.shape[1], design.shape[1] + 1))
            if len(np.unique(y[train])) > 1:
                moved = solve(design[train], offset[train], y[train], strength)
            right[place, test] = answer(design[test], offset[test], moved).argmax(1) == y[test]
    known = np.array(sizes[1:], np.float64)

    def metric(weights: FloatArray) -> list[float]:
        total = weights.sum()
        found: list[float] = (right @ weights / total).tolist() if total else [np.nan] * len(sizes)
        if len(known) < 3:
            return found
        slope = np.polyfit(1 / np.sqrt(known), 1 - np.array(found[1:]), 1)[0]
        worth = max(0.0, slope) * (1 / np.sqrt(len(rows)) - 1 / np.sqrt(len(rows) + NEXT))
        return [*found, 100 * worth]

    measured = figures(metric, groups, np.ones(len(rows)), resamples=RESAMPLES)
    points, ahead = measured[: len(sizes)], measured[len(sizes) :]
    worth = {name: ahead[0][key] for name, key in _ENDS.items()} | {"labels": NEXT} if ahead else None
    curve = {name: [point[key] for point in points] for name, key in _ENDS.items() if name != "points"}
    return {"labels": sizes, "accuracy": [point["value"] for point in points], **curve, "next": worth}


_ENDS = {"points": "value", "low": "low", "high": "high"}
