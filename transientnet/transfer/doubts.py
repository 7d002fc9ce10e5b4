"""Labels that the cross-validation doubts (confident learning; Northcutt et al. 2021, arXiv 1911.00068)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["doubtful"]


def doubtful(
    probabilities: npt.NDArray[Any], labels: npt.NDArray[Any], classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Rows that networks which never saw them confidently put into another class.

    A row counts as confidently of class c where its probability reaches the mean probability of c
    among the rows labelled c: each class is judged by its own confidence.

    Parameters
    ----------
    probabilities : ndarray, shape (N, K)
        Out of fold.
    labels : ndarray of int, shape (N,)
    classes : sequence of str

    Returns
    -------
    list of dict
        ``row``, ``label``, ``likelier`` and the probabilities of both; most doubtful first.
    """
    p = np.asarray(probabilities, np.float64)
    usual = np.array(
        [p[labels == c, c].mean() if (labels == c).any() else np.inf for c in range(len(classes))]
    )
    confident = np.where(p >= usual, p, -1.0)
    likelier = confident.argmax(axis=1)
    rows = np.flatnonzero((confident.max(axis=1) > 0) & (likelier != labels))
    margin = p[rows, likelier[rows]] - p[rows, labels[rows]]
    rows = rows[margin > 0]
    order = np.argsort(-(p[rows, likelier[rows]] - p[rows, labels[rows]]), kind="stable")
    return [
        {
            "row": int(row),
            "label": classes[labels[row]],
            "likelier": classes[likelier[row]],
            "p_label": float(p[row, labels[row]]),
            "p_likelier": float(p[row, likelier[row]]),
        }
        for row in rows[order].tolist()
    ]
