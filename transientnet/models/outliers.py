"""Is this candidate an input that the model can judge? The network's own word, or statistics of its stamps.

Networks that were trained to separate sound stamps of any telescope from broken ones (planes in the wrong
order, shuffled pixels, gradients, pure noise) have an output ``oddity``, and the flag is set where it exceeds
the threshold in the record. It is quiet on a telescope that the model never saw and judges well. For networks
without that output plain statistics of the normalised stamps (peaks, noise, smoothness, how the stamps
resemble each other) are compared with those of the training stamps: every foreign telescope is flagged.
``benchmarks/ood_auc.py`` measures both. The drift check rests on the statistics alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from ..triplet import CHANNELS, QualityFlag

__all__ = [
    "STATISTICS",
    "fit_reference",
    "input_statistics",
    "normal_deviates",
    "ood_score",
    "out_of_distribution",
    "precision",
    "scales",
]

FloatArray = npt.NDArray[np.float64]

_PER_CHANNEL = ("core_peak", "core_mean", "noise", "smoothness", "mean", "peak", "dip")
PAIRS = ((0, 1), (0, 2), (1, 2))
STATISTICS = (
    *(f"{name}_{channel}" for name in _PER_CHANNEL for channel in CHANNELS),
    *(f"likeness_{CHANNELS[a]}_{CHANNELS[b]}" for a, b in PAIRS),
)
"""Names of the statistics, in order."""

QUANTILES = 41
"""Length of the stored quantile lists."""

PASSING = 0.99
"""Share of the training distribution that is not flagged."""

# Which statistics remain when a stamp is absent, and the quality flag that says so.
_ABSENT = {
    "": 0,
    "reference": int(QualityFlag.MISSING_REFERENCE),
    "difference": int(QualityFlag.MISSING_DIFFERENCE),
}
CORE = 5
_DIGITS = 5


def input_statistics(tensor: npt.NDArray[np.float32]) -> FloatArray:
    """Statistics of normalised stamps that do not change when these are turned or flipped.

    Parameters
    ----------
    tensor : ndarray of float32, shape (N, 3, S, S)
        From `preprocess`.

    Returns
    -------
    ndarray, shape (N, 24)
        Columns as in `STATISTICS`: per stamp the peak and mean of the central 5×5 pixels, the
        logarithm of the root mean square, the correlation of neighbouring pixels, the mean, the
        highest and the lowest pixel; and the correlation of each pair of stamps.
    """
    tensor = np.ascontiguousarray(tensor, np.float32)
    n, channels, size, _ = tensor.shape
    low, pixels, pairs = (size - CORE) // 2, size * size, size * size - size
    flat = tensor.reshape(n, channels, pixels)
    core = tensor[:, :, low : low + CORE, low : low + CORE]
    power = np.einsum("ncp,ncp->nc", flat, flat) / pixels + 1e-6
    rms = np.sqrt(power)
    vertical = np.einsum("ncp,ncp->nc", flat[:, :, size:], flat[:, :, :-size])
    horizontal = np.einsum("ncij,ncij->nc", tensor[..., 1:], tensor[..., :-1])
    likeness = [np.einsum("np,np->n", flat[:, a], flat[:, b]) / (rms[:, a] * rms[:, b]) for a, b in PAIRS]
    return np.concatenate(
        [
            core.max(axis=(2, 3)),
            core.mean(axis=(2, 3)),
            np.log(rms),
            (vertical + horizontal) / (2 * pairs * power),
            flat.mean(axis=2),
            flat.max(axis=2),
            flat.min(axis=2),
            np.stack(likeness, axis=1) / pixels,
        ],
        axis=1,
    ).astype(np.float64)


def fit_reference(
    tensor: npt.NDArray[np.float32],
    probabilities: npt.ArrayLike,
    quality: npt.ArrayLike,
    classes: tuple[str, ...],
    *,
    groups: npt.ArrayLike | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """What a model's record keeps of its training distribution.

    Parameters
    ----------
    tensor : ndarray of float32, shape (N, 3, S, S)
        Prepared real candidates, usable and with all three stamps; no synthetic ones.
    probabilities : array_like, shape (N, K)
        Calibrated, out of fold if they can be: the scores that the drift check expects.
    quality : array_like of uint16, shape (N,)
    classes : tuple of str, length K
    groups : array_like, shape (N,), optional
        Sky objects, for the held-out distances that the thresholds rest on.

    Returns
    -------
    dict
        The field ``reference`` of a `ModelRecord`: ``n``; ``inputs`` with the quantiles of each
        statistic; ``correlation`` of their normal scores; ``thresholds`` of the distance, with all
        stamps and without reference or difference; ``scores`` with quantiles per class; ``labels``
        and ``quality`` with the share of each class and flag.
    """
    values = input_statistics(tensor)
    n = len(values)
    if n < 2:
        raise UsageError("reference statistics need at least two candidates")
    probability, flags = np.asarray(probabilities, np.float64), np.asarray(quality, np.uint16)
    fitted = _fit(values)
    index = np.arange(n) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1].ravel()
    # Not the split of `evaluation`, a room above: thresholds of released records rest on these folds.
    fold = np.random.default_rng(seed).permutation(int(index.max()) + 1)[index] % 5
    distance = {name: np.full(n, np.nan) for name in _ABSENT}
    for number in np.unique(fold):
        test, train = fold == number, fold != number
        if train.sum() > 1:
            parts = _fit(values[train])
            for name in _ABSENT:
                distance[name][test] = _distance(values[test], parts, name)
    grid = np.linspace(0, 1, QUANTILES)
    best = probability.argmax(axis=1)
    return {
        "n": n,
        **fitted,
        "thresholds": {
            name: _rounded(np.nanquantile(d, PASSING, method="higher")) for name, d in distance.items()
        },
        "scores": {name: _rounded(np.quantile(probability[:, c], grid)) for c, name in enumerate(classes)},
        "labels": {name: _rounded((best == c).mean()) for c, name in enumerate(classes)},
        "quality": {
            flag.name: _rounded(((flags & flag.value) != 0).mean()) for flag in QualityFlag if flag.name
        },
    }


def _fit(values: FloatArray) -> dict[str, Any]:
    n, width = values.shape
    quantiles = np.quantile(values, np.linspace(0, 1, QUANTILES), axis=0)
    scores = _normal_scores(values, quantiles)
    scores -= scores.mean(axis=0)
    spread = np.sqrt((scores**2).mean(axis=0) + 1e-12)
    correlation = (scores / spread).T @ (scores / spread) / n
    # Few candidates say little about correlations: lean towards none.
    lean = width / (width + n)
    correlation = (1 - lean) * correlation + lean * np.eye(width)
    return {
        "inputs": {name: _rounded(quantiles[:, i]) for i, name in enumerate(STATISTICS)},
        "correlation": [_rounded(row) for row in correlation],
    }


def _rounded(value: Any) -> Any:
    """Numbers as JSON keeps them: no more digits than they are worth."""
    if np.ndim(value) == 0:
        return float(f"{float(value):.{_DIGITS}g}")
    return [float(f"{v:.{_DIGITS}g}") for v in np.asarray(value, np.float64).tolist()]


def _normal_scores(values: FloatArray, quantiles: FloatArray) -> FloatArray:
    """Each statistic on the scale of a unit normal deviate; beyond the extremes it grows linearly."""
    deviates = normal_deviates(len(quantiles))
    scale = scales(quantiles, deviates)
    scores = np.empty_like(values)
    for i in range(values.shape[1]):
        known = quantiles[:, i]
        beyond = np.maximum(values[:, i] - known[-1], 0) - np.maximum(known[0] - values[:, i], 0)
        scores[:, i] = np.interp(values[:, i], known, deviates) + beyond / scale[i]
    return scores


def normal_deviates(count: int) -> FloatArray:
    """Unit normal deviates of evenly spaced quantiles; plotting positions keep the extremes finite."""
    from statistics import NormalDist

    steps = count - 1
    ranks = np.clip(np.arange(count) / steps, 0.25 / steps, 1 - 0.25 / steps)
    return np.array([NormalDist().inv_cdf(r) for r in ranks], np.float64)


def scales(quantiles: FloatArray, deviates: FloatArray) -> FloatArray:
    """Per statistic, what one deviate is worth beyond the extremes of its quantiles (Q, F)."""
    scale: FloatArray = np.maximum((quantiles[-1] - quantiles[0]) / (deviates[-1] - deviates[0]), 1e-6)
    return scale


def precision(reference: Mapping[str, Any], absent: str) -> FloatArray:
    """The matrix whose quadratic form in the normal scores is `ood_score`, shape (F, F).

    Parameters
    ----------
    reference : mapping
        From `fit_reference`.
    absent : {"", "reference", "difference"}
        The stamp that is absent: its rows and columns are zero.
    """
    keep = _kept(absent)
    matrix = np.zeros((len(STATISTICS), len(STATISTICS)))
    correlation = np.asarray(reference["correlation"], np.float64)[np.ix_(keep, keep)]
    matrix[np.ix_(keep, keep)] = np.linalg.inv(correlation) / reference["thresholds"][absent]
    return matrix


def _kept(absent: str) -> list[int]:
    """Statistics of the stamps that are there."""
    return [i for i, name in enumerate(STATISTICS) if not absent or absent not in name]


def _distance(values: FloatArray, fitted: Mapping[str, Any], absent: str) -> FloatArray:
    """Squared Mahalanobis distance of normal scores, over the statistics of the stamps that are there."""
    keep = _kept(absent)
    quantiles = np.array([fitted["inputs"][name] for name in STATISTICS]).T
    correlation = np.asarray(fitted["correlation"], np.float64)[np.ix_(keep, keep)]
    scores = _normal_scores(values[:, keep], quantiles[:, keep])
    return np.asarray((scores * np.linalg.solve(correlation, scores.T).T).sum(axis=1))


def ood_score(
    tensor: npt.NDArray[np.float32], quality: npt.ArrayLike, reference: Mapping[str, Any]
) -> FloatArray:
    """How foreign each candidate is, in units of the threshold.

    Parameters
    ----------
    tensor : ndarray of float32, shape (N, 3, S, S)
        Prepared, usable candidates.
    quality : array_like of uint16, shape (N,)
        Their flags: absent stamps are left out of the distance.
    reference : mapping
        From `fit_reference`.

    Returns
    -------
    ndarray, shape (N,)
        Above 1 for what only one in a hundred training candidates exceeds.
    """
    flags = np.asarray(quality, np.uint16)
    values = input_statistics(tensor)
    score = np.zeros(len(values))
    either = _ABSENT["reference"] | _ABSENT["difference"]
    for name, flag in _ABSENT.items():
        rows = (flags & either) == flag
        if rows.any():
            score[rows] = _distance(values[rows], reference, name) / reference["thresholds"][name]
    return score


def out_of_distribution(
    tensor: npt.NDArray[np.float32],
    quality: npt.ArrayLike,
    reference: Mapping[str, Any],
    oddity: npt.ArrayLike | None = None,
) -> npt.NDArray[np.bool_]:
    """Which candidates deserve `QualityFlag.OUT_OF_DISTRIBUTION`; none where the model has no reference.

    Parameters
    ----------
    tensor, quality, reference
        As for `ood_score`.
    oddity : array_like, shape (N,), optional
        The network's own log odds that the input is broken, where it gives them: compared with
        ``reference["oddity"]["threshold"]``, and the statistics are not looked at.
    """
    if oddity is not None:
        return np.asarray(oddity, np.float64) > float(reference["oddity"]["threshold"])
    if not reference:
        return np.zeros(len(tensor), bool)
    return np.asarray(ood_score(tensor, quality, reference) > 1.0)
