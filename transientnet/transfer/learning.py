"""What more labels would bring: the left-out loss and balanced accuracy against the number of labels."""

from __future__ import annotations

import copy
from typing import Any, cast

import numpy as np
from torch import nn

from ..evaluation.metrics import balanced_accuracy, confusion_matrix
from .crossfit import Survey, make_folds
from .network import StampNetwork
from .probe import features_of, fit_head
from .training import HEAD

__all__ = ["learning_curve"]

_SHARES = (0.125, 0.25, 0.5, 0.75, 1.0)
_REPEATS = 4
_STRENGTH = 0.01


def learning_curve(start: StampNetwork, survey: Survey, seed: int) -> list[dict[str, Any]]:
    """Balanced accuracy on left-out objects of a head fitted on a share of the labels.

    On frozen features, so that the whole curve costs seconds: what counts is its slope.

    Returns
    -------
    list of dict
        ``labels``, ``balanced_accuracy`` and ``spread`` (standard deviation over repeats).
    """
    features = features_of(start, survey.x)
    y = survey.y.numpy()
    classes = int(y.max()) + 1
    points = []
    for share in _SHARES:
        scores, sizes = [], []
        for repeat in range(_REPEATS):
            rng = np.random.default_rng((seed, repeat))
            for fold in make_folds(y, survey.groups, 3, seed + repeat):
                objects = rng.permutation(np.unique(survey.groups[fold.train]))
                kept = objects[: max(1, round(share * len(objects)))]
                rows = fold.train[np.isin(survey.groups[fold.train], kept)]
                if len(np.unique(y[rows])) < classes:
                    continue
                head = cast(nn.Linear, copy.deepcopy(start.heads[HEAD])).cpu()
                fit_head(head, features[rows], survey.y[rows], survey.weight[rows], _STRENGTH)
                guess = head(features[fold.test]).argmax(1).numpy()
                scores.append(balanced_accuracy(confusion_matrix(y[fold.test], guess, classes)))
                sizes.append(len(rows))
        if scores:
            points.append(
                {
                    "labels": round(float(np.mean(sizes))),
                    "balanced_accuracy": float(np.mean(scores)),
                    "spread": float(np.std(scores)),
                }
            )
    return points
