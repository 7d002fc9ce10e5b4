"""Intervals and tests against scipy's."""

from __future__ import annotations

import math

import numpy as np
import pytest

from transientnet.evaluation import statistics as stats

scipy_stats = pytest.importorskip("scipy.stats")


@pytest.mark.parametrize(("hits", "n"), [(0, 7), (7, 7), (3, 10), (1, 400), (996, 1000), (0, 1)])
def test_proportion_intervals(hits: int, n: int) -> None:
    test = scipy_stats.binomtest(hits, n)
    assert stats.clopper_pearson(hits, n) == pytest.approx(
        tuple(test.proportion_ci(method="exact")), abs=1e-9
    )
    assert stats.wilson(hits, n) == pytest.approx(tuple(test.proportion_ci(method="wilson")), abs=1e-12)


def test_proportion_of_nothing_is_unknown() -> None:
    assert stats.clopper_pearson(0, 0) == stats.wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("hits", "n"), [(0, 0), (0, 5), (2, 5), (5, 10), (12, 90), (480, 1000)])
def test_fair_coin(hits: int, n: int) -> None:
    expected = scipy_stats.binomtest(hits, n).pvalue if n else 1.0
    assert stats.binomial_test(hits, n) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_counts_only_disagreements() -> None:
    first = np.array([1, 1, 1, 1, 1, 1, 0, 0, 1, 1], bool)
    second = np.array([1, 1, 0, 0, 0, 0, 1, 0, 0, 0], bool)
    only_first, only_second, p = stats.mcnemar(first, second)
    assert (only_first, only_second) == (6, 1)
    assert p == pytest.approx(scipy_stats.binomtest(1, 7).pvalue)


@pytest.mark.parametrize("kind", ["welch", "unpaired", "paired"])
def test_t_tests(kind: str) -> None:
    rng = np.random.default_rng(3)
    a = rng.normal(0.9, 0.02, 12)
    b = rng.normal(0.88, 0.05, 12 if kind == "paired" else 9)
    ours = stats.t_test(a, b, kind)
    if kind == "paired":
        theirs = scipy_stats.ttest_rel(a, b)
    else:
        theirs = scipy_stats.ttest_ind(a, b, equal_var=kind == "unpaired")
    assert ours.statistic == pytest.approx(theirs.statistic)
    assert ours.p == pytest.approx(theirs.pvalue)
    assert ours.df == pytest.approx(theirs.df)
    assert ours.interval == pytest.approx(tuple(theirs.confidence_interval(0.95)), rel=1e-6)


def test_t_test_of_constant_and_tiny_samples() -> None:
    assert stats.t_test([1, 1], [0, 0]).p == 0
    assert stats.t_test([1, 1], [1, 1], "paired").p == 1
    assert math.isnan(stats.t_test([1], [0, 1]).p)
    with pytest.raises(ValueError, match="one length"):
        stats.t_test([1, 2], [1, 2, 3], "paired")


def test_effect_size_is_in_pooled_deviations() -> None:
    assert stats.cohen_d([2, 4], [0, 2]) == pytest.approx(math.sqrt(2))
    assert math.isnan(stats.cohen_d([1, 1], [0, 0]))


@pytest.mark.parametrize(
    ("hits", "n", "others", "m"),
    [(0, 5, 0, 9), (5, 5, 0, 9), (3, 10, 40, 2000), (0, 200, 300, 2000), (199, 200, 5, 90), (1, 1, 1, 1)],
)
def test_fisher_s_exact_test(hits: int, n: int, others: int, m: int) -> None:
    expected = scipy_stats.fisher_exact([[hits, n - hits], [others, m - others]]).pvalue
    assert stats.fisher_exact(hits, n, others, m) == pytest.approx(expected, rel=1e-6)


def test_bootstrap_covers_the_mean_and_keeps_groups_whole() -> None:
    values = np.random.default_rng(0).normal(size=400)
    low, high = stats.bootstrap(lambda w: (w * values).sum() / w.sum(), None, 400, resamples=400)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.15)
    # Four copies of each row teach nothing: the interval must not shrink.
    copies, groups = np.repeat(values, 4), np.repeat(np.arange(400), 4)
    again = stats.bootstrap(lambda w: (w * copies).sum() / w.sum(), groups, 1600, resamples=400)
    assert again == pytest.approx((low, high))
