"""Intervals and tests on plain numbers; scipy only where the extra ``adapt`` has brought it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = [
    "Comparison",
    "Interval",
    "binomial_test",
    "bootstrap",
    "bootstrap_weights",
    "clopper_pearson",
    "cohen_d",
    "figures",
    "fisher_exact",
    "mcnemar",
    "t_test",
    "wilson",
]

FloatArray = npt.NDArray[np.float64]
Interval = tuple[float, float]

LEVEL = 0.95
"""Confidence level of every interval, unless another is asked for."""


class Comparison(NamedTuple):
    """Outcome of a test between two samples.

    Attributes
    ----------
    difference : float
        Mean of the first less mean of the second.
    interval : (float, float)
        95 % confidence interval of the difference.
    statistic, df : float
        Test statistic and its degrees of freedom.
    p : float
        Two-sided.
    """

    difference: float
    interval: Interval
    statistic: float
    df: float
    p: float


def _log_binomials(n: int) -> FloatArray:
    """Logarithms of the n + 1 binomial coefficients."""
    k = np.arange(n)
    return np.concatenate([[0.0], np.cumsum(np.log((n - k) / (k + 1.0)))])


def clopper_pearson(hits: int, n: int) -> Interval:
    """Exact 95 % interval of a proportion (Clopper & Pearson 1934)."""
    if n == 0:
        return (0.0, 1.0)
    logs, k = _log_binomials(n), np.arange(n + 1)

    def lowest(hits: int) -> float:
        """The proportion at which so many hits, or more, are one case in forty."""
        low, high = 0.0, 1.0
        for _ in range(60 if hits else 0):
            p = (low + high) / 2
            tail = np.exp(logs[hits:] + k[hits:] * math.log(p) + (n - k[hits:]) * math.log1p(-p)).sum()
            low, high = (p, high) if tail < (1 - LEVEL) / 2 else (low, p)
        return low

    return (lowest(hits), 1.0 - lowest(n - hits))


def wilson(hits: float, n: float) -> Interval:
    """95 % interval of a proportion by its score (Wilson 1927)."""
    if n == 0:
        return (0.0, 1.0)
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    p = hits / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (max(0.0, centre - half), min(1.0, centre + half))


def binomial_test(hits: int, n: int) -> float:
    """Two-sided exact p of `hits` in `n` throws of a fair coin."""
    fewer = min(hits, n - hits)
    return min(1.0, 2 * float(np.exp(_log_binomials(n)[: fewer + 1] - n * math.log(2)).sum()))


def mcnemar(first: npt.ArrayLike, second: npt.ArrayLike) -> tuple[int, int, float]:
    """Exact McNemar test of two classifiers on the same rows.

    Parameters
    ----------
    first, second : array_like of bool, shape (N,)
        Whether each classifier is right.

    Returns
    -------
    only_first, only_second : int
        Rows that one alone has right.
    p : float
    """
    one, two = np.asarray(first, bool), np.asarray(second, bool)
    only_first, only_second = int((one & ~two).sum()), int((~one & two).sum())
    return only_first, only_second, binomial_test(only_first, only_first + only_second)


def t_test(first: npt.ArrayLike, second: npt.ArrayLike, kind: str = "welch") -> Comparison:
    """Two-sided t-test between the means of two samples.

    Parameters
    ----------
    first, second : array_like, shape (N,) and (M,)
    kind : {"welch", "unpaired", "paired"}
        Unequal variances; one common variance; differences row by row (N = M).

    Returns
    -------
    Comparison
        p is NaN for samples too small to test, and 0 or 1 where neither sample varies.
    """
    from scipy import stats

    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    paired = kind == "paired"
    if kind not in ("welch", "unpaired", "paired"):
        raise ValueError(f"kind must be welch, unpaired or paired, not {kind!r}")
    if paired and len(a) != len(b):
        raise ValueError(f"a paired test needs samples of one length, not {len(a)} and {len(b)}")
    if min(len(a), len(b)) < 2:
        return Comparison(math.nan, (math.nan, math.nan), math.nan, math.nan, math.nan)
    difference = float(a.mean() - b.mean())
    if not (np.ptp(a - b) if paired else max(np.ptp(a), np.ptp(b))) > 0:
        df = len(a) - 1.0 if paired else len(a) + len(b) - 2.0
        statistic = math.copysign(math.inf, difference) if difference else 0.0
        return Comparison(difference, (difference, difference), statistic, df, float(difference == 0))
    with warnings.catch_warnings():
        # Samples that hardly vary are warned of; the answer is right.
        warnings.simplefilter("ignore", RuntimeWarning)
        test = stats.ttest_rel(a, b) if paired else stats.ttest_ind(a, b, equal_var=kind == "unpaired")
    low, high = test.confidence_interval(LEVEL)
    return Comparison(
        difference, (float(low), float(high)), float(test.statistic), float(test.df), float(test.pvalue)
    )


def cohen_d(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Difference of means in units of the pooled standard deviation; NaN where neither varies."""
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if len(a) + len(b) < 3:
        return math.nan
    pooled = (((a - a.mean()) ** 2).sum() + ((b - b.mean()) ** 2).sum()) / (len(a) + len(b) - 2)
    return float((a.mean() - b.mean()) / math.sqrt(pooled)) if pooled > 0 else math.nan


def fisher_exact(hits: int, n: int, other_hits: int, m: int) -> float:
    """Two-sided exact p of `hits` of `n` against `other_hits` of `m` (Fisher 1934)."""
    total = hits + other_hits
    low, high = max(0, total - m), min(n, total)
    k = np.arange(low, high)
    # Logarithms of the ratios of neighbouring hypergeometric probabilities.
    steps = np.log(((n - k) * (total - k)) / ((k + 1.0) * (m - total + k + 1)))
    logs = np.concatenate([[0.0], np.cumsum(steps)])
    p = np.exp(logs - logs.max())
    return min(1.0, float(p[p <= p[hits - low] * (1 + 1e-7)].sum() / p.sum()))


def bootstrap_weights(
    groups: npt.ArrayLike | None, n: int, resamples: int = 1000, seed: int = 0
) -> Iterator[FloatArray]:
    """Multiplicities (N,) of resamples of whole groups; rows of one object stay together."""
    index = np.arange(n) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1].ravel()
    count = int(index.max()) + 1 if n else 0
    rng = np.random.default_rng(seed)
    for _ in range(resamples):
        drawn = np.bincount(rng.integers(0, count, count), minlength=count).astype(np.float64)
        yield drawn[index]


def bootstrap(
    metric: Callable[[FloatArray], Any],
    groups: npt.ArrayLike | None,
    n: int,
    *,
    weights: npt.ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[Any, Any]:
    """95 % percentile interval of a metric of weighted rows, resampling groups.

    Parameters
    ----------
    metric : callable
        Takes weights (N,), gives a number or an array of one dimension; NaN resamples are left out.
    groups : array_like, shape (N,), or None
        Sky objects; None takes each row as its own.
    n : int
        Number of rows.
    weights : array_like, shape (N,), optional

    Returns
    -------
    low, high
        Of the shape that `metric` gives; NaN where no resample gave a number.
    """
    base = np.ones(n) if weights is None else np.asarray(weights, np.float64)
    table = np.array([metric(base * w) for w in bootstrap_weights(groups, n, resamples, seed)], np.float64)
    bounds = np.full((2, *table.shape[1:]), np.nan)
    known = np.asarray(np.isfinite(table).any(axis=0))
    if known.any():
        bounds[:, known] = np.nanquantile(table[:, known], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return (float(bounds[0]), float(bounds[1])) if bounds.ndim == 1 else (bounds[0], bounds[1])


def figures(
    metric: Callable[[FloatArray], Any],
    groups: npt.ArrayLike | None,
    weights: FloatArray,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> list[dict[str, float]]:
    """Each number of a metric with its 95 % interval: ``value``, ``low``, ``high``; see `bootstrap`."""
    low, high = bootstrap(metric, groups, len(weights), weights=weights, resamples=resamples, seed=seed)
    return [
        {"value": float(v), "low": float(a), "high": float(b)}
        for v, a, b in zip(metric(weights), low, high, strict=True)
    ]
