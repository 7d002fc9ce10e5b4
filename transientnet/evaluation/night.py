"""What a night is planned by: how many candidates to look at, and what is found among them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from .metrics import roc_curve
from .statistics import figures

__all__ = ["LABELLED", "RANKS", "RECALL", "Night", "nightly"]

RANKS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
"""Ranks K at which recall is measured, as far as a night reaches."""

RECALL = 0.95
"""Share of the wanted class for which the candidates to look at are counted."""


class Night(NamedTuple):
    """The night that figures are for; by default one just like the labelled candidates.

    Attributes
    ----------
    candidates : int or None
        Candidates a night.
    others : float or None
        Share of them that is not of the wanted class: for real/bogus the share of bogus, 0 to 1.
    budget : int or None
        Candidates that somebody looks at; by default a tenth of the night.
    """

    candidates: int | None = None
    others: float | None = None
    budget: int | None = None


LABELLED = Night()
"""A night just like the labelled candidates."""


def nightly(
    scores: npt.ArrayLike,
    positive: npt.ArrayLike,
    night: Night = LABELLED,
    *,
    groups: npt.ArrayLike | None = None,
    weights: npt.ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Figures of a night whose candidates are looked at from the highest score downwards.

    The labelled candidates are weighted so that each class has its share of the night. Equal scores
    stand in random order: the figures are means over it.

    Parameters
    ----------
    scores : array_like, shape (N,)
        Probability of the wanted class.
    positive : array_like of bool, shape (N,)
        Whether a candidate is of that class.
    night : Night
    groups, weights : array_like, shape (N,), optional
        Sky objects, resampled whole, and weights of the candidates.

    Returns
    -------
    dict
        ``candidates``, ``others``, ``n_positive``; ``recall_at_rank``, a list with ``rank`` and the recall
        among so many candidates; ``to_look_at``, the candidates that hold a share ``recall`` of the wanted
        class; ``precision_at_budget`` with ``budget``. Each figure has ``value``, ``low``, ``high``.

    Raises
    ------
    UsageError
        If a number of the night is out of its range.
    """
    y = np.asarray(positive, bool)
    w = np.ones(len(y)) if weights is None else np.asarray(weights, np.float64)
    candidates = len(y) if night.candidates is None else night.candidates
    others = float(w[~y].sum() / w.sum()) if night.others is None else night.others
    budget = max(1, candidates // 10) if night.budget is None else night.budget
    if not 0 < others < 1 or not 1 <= budget <= candidates:
        raise UsageError(
            f"a night needs a share of bogus between 0 and 1 and a budget of 1 to all of its candidates, "
            f"not {others:g}, {budget} of {candidates}"
        )
    ranks = [rank for rank in RANKS if rank < candidates] or [candidates]

    def planned(weight: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        fpr, tpr, _ = roc_curve(scores, y, weight)
        if math.isnan(fpr[-1]) or math.isnan(tpr[-1]):
            return np.full(len(ranks) + 2, np.nan)
        looked_at = candidates * (others * fpr + (1 - others) * tpr)
        recalls = np.interp([*ranks, budget], looked_at, tpr)
        # The first score by which enough are found, and the part of its candidates that it takes.
        last = int(np.searchsorted(tpr, RECALL - 1e-12))
        part = (RECALL - tpr[last - 1]) / (tpr[last] - tpr[last - 1])
        needed = looked_at[last - 1] + part * (looked_at[last] - looked_at[last - 1])
        precision = recalls[-1] * (1 - others) * candidates / budget
        return np.array([*recalls[:-1], np.ceil(needed - 1e-9), precision])

    each = figures(planned, groups, w, resamples=resamples, seed=seed)
    return {
        "candidates": candidates,
        "others": others,
        "n_positive": int(y.sum()),
        "recall_at_rank": [{"rank": rank, **figure} for rank, figure in zip(ranks, each[:-2], strict=True)],
        "to_look_at": {"recall": RECALL, **each[-2]},
        "precision_at_budget": {"budget": budget, **each[-1]},
    }
