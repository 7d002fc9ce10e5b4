"""Labels that the cross-validation doubts (confident learning; Northcutt et al. 2021, arXiv 1911.00068)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .outcome import Doubt

__all__ = ["doubtful"]


def doubtful(
    probabilities: npt.NDArray[Any], labels: npt.NDArray[Any], classes: Sequence[str]
) -> list[Doubt]:
    """Rows that networks which never saw them confidently put into another class.

    A row counts as confidently of class c where its probability reaches the mean probability of c
    among the rows labelled c: each class is judged by its own confidence.

    Parameters
    ----------
    probabilities : ndarray, shape (N, K)
        Out of fold.
    labels : ndarray of int, shape (N,)
    classes : sequence of str, length K

    Returns
    -------
    list of Doubt
        Most doubtful first; `Doubt.row` counts from 0.
    """
    p = np.asarray(probabilities, np.float64)
    usual = np.array(
        [p[labels == c, c].mean() if (labels == c).any() else np.inf for c in range(len(classes))]
    )
    confident = np.where(p >= usual, p, -1.0)
    likelier = confident.argmax(axis=1)
    every = np.arange(len(p))
    margin = p[every, likelier] - p[every, labels]
    rows = np.flatnonzero((confident.max(axis=1) > 0) & (likelier != labels) & (margin > 0))
    return [
        Doubt(r, classes[labels[r]], classes[likelier[r]], float(p[r, labels[r]]), float(p[r, likelier[r]]))
        for r in rows[np.argsort(-margin[rows], kind="stable")].tolist()
    ]
