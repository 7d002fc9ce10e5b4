"""Figures of merit against scikit-learn's, and what a user learns from them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from transientnet.evaluation import metrics as ev
from transientnet.evaluation.summary import compare, evaluate, recall_by

metrics = pytest.importorskip("sklearn.metrics")


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 400)
    # Rounded, so that there are ties.
    return np.round(np.clip(0.3 * y + rng.normal(0.35, 0.25, 400), 0, 1), 2), y, rng.uniform(0.2, 3, 400)


@pytest.mark.parametrize("weighted", [False, True])
def test_areas_and_curves(data, weighted: bool) -> None:
    scores, y, w = data
    weight = w if weighted else None
    assert ev.roc_auc(scores, y, weight) == pytest.approx(
        metrics.roc_auc_score(y, scores, sample_weight=weight)
    )
    assert ev.average_precision(scores, y, weight) == pytest.approx(
        metrics.average_precision_score(y, scores, sample_weight=weight)
    )
    fpr, tpr, cuts = ev.roc_curve(scores, y, weight)
    theirs = metrics.roc_curve(y, scores, sample_weight=weight, drop_intermediate=False)
    assert np.allclose(fpr, theirs[0])
    assert np.allclose(tpr, theirs[1])
    assert np.allclose(cuts[1:], theirs[2][1:])


def test_confusion_and_its_figures() -> None:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 4, 300)
    guess = np.where(rng.random(300) < 0.6, y, rng.integers(0, 4, 300))
    w = rng.uniform(0.1, 2, 300)
    matrix = ev.confusion_matrix(y, guess, 4, w)
    assert np.allclose(matrix, metrics.confusion_matrix(y, guess, sample_weight=w))
    assert ev.accuracy(matrix) == pytest.approx(metrics.accuracy_score(y, guess, sample_weight=w))
    assert ev.balanced_accuracy(matrix) == pytest.approx(
        metrics.balanced_accuracy_score(y, guess, sample_weight=w)
    )
    assert ev.matthews(matrix) == pytest.approx(metrics.matthews_corrcoef(y, guess, sample_weight=w))


def test_one_class_alone_has_no_area() -> None:
    assert math.isnan(ev.roc_auc([0.1, 0.9], [1, 1]))
    assert math.isnan(ev.false_negative_rate([0.1, 0.9], [1, 1], 0.05))
    assert ev.matthews(np.array([[5.0, 0], [0, 0]])) == 0


def test_losses_at_a_false_positive_rate_are_never_optimistic() -> None:
    scores = np.concatenate([np.linspace(0, 0.5, 100), [0.9], np.linspace(0.45, 1, 100)])
    y = np.concatenate([np.zeros(101), np.ones(100)])
    lost = ev.false_negative_rate(scores, y, 0.01)
    cut = scores[y == 0][np.argsort(-scores[y == 0])][1]
    assert lost == pytest.approx((scores[y == 1] <= cut).mean())


def test_calibration_error_sees_overconfidence_and_forgives_chance() -> None:
    rng = np.random.default_rng(2)
    p = rng.uniform(size=3000)
    y = (rng.random(3000) < p).astype(int)
    assert ev.calibration_error(np.stack([1 - p, p], 1), y) < 0.015
    bold = np.clip(1.6 * p - 0.3, 0, 1)
    assert ev.calibration_error(np.stack([1 - bold, bold], 1), y) > 0.07


def test_reliability_bins_hold_everything_once() -> None:
    rng = np.random.default_rng(3)
    p = rng.uniform(size=205)
    rows = ev.reliability(p, rng.random(205) < p)
    assert sum(row["n"] for row in rows) == 205
    assert all(row["low"] <= row["frequency"] <= row["high"] for row in rows)


def test_recall_by_brightness_leaves_unknown_out_and_keeps_the_last_edge() -> None:
    rows = recall_by([17, 18, 19, 20, math.nan], [1, 1, 1, 0, 1], edges=[17, 18.5, 20])
    assert [(row["n"], row["recall"]) for row in rows] == [(2, 1.0), (2, 0.5)]
    assert recall_by([math.nan], [True]) == []
    assert recall_by([18.0] * 5, [True] * 5)[0]["n"] == 5


@pytest.mark.parametrize("k", [2, 3])
def test_evaluate_counts_unusable_rows_and_brackets_its_values(k: int) -> None:
    rng = np.random.default_rng(4)
    y = rng.integers(0, k, 300)
    p = rng.dirichlet(np.ones(k), 300)
    p[np.arange(300), y] += 0.8
    p /= p.sum(axis=1, keepdims=True)
    p[:7] = np.nan
    names = [f"c{i}" for i in range(k)]
    groups = np.arange(300) // 3
    found = evaluate(p, y, names, groups=groups, brightness=rng.uniform(16, 21, 300), resamples=100)
    assert (found["n"], found["unusable"]) == (293, 7)
    for name, figure in found["metrics"].items():
        if name != "calibration_error":
            assert figure["low"] <= figure["value"] <= figure["high"]
    assert list(found["curves"]) == (["c1"] if k == 2 else names)
    curve = found["curves"]["c1"]
    assert curve["auc"]["value"] == pytest.approx(metrics.roc_auc_score(y[7:] == 1, p[7:, 1]))
    assert curve["thresholds"][1]["recall_by_brightness"]


def test_evaluate_of_nothing_usable_says_so() -> None:
    found = evaluate(np.full((4, 2), np.nan), [0, 1, 0, 1], ["a", "b"], resamples=5)
    assert found["n"] == 0
    assert found["unusable"] == 4
    assert math.isnan(found["metrics"]["auc"]["value"])


def test_compare_tells_the_better_model() -> None:
    rng = np.random.default_rng(5)
    y = rng.integers(0, 2, 500)
    good, poor = (np.clip(0.5 + gain * (y - 0.5) + rng.normal(0, 0.2, 500), 0, 1) for gain in (0.7, 0.2))
    found = compare(np.stack([1 - good, good], 1), np.stack([1 - poor, poor], 1), y, resamples=200)
    assert found["p"] < 0.001
    assert found["auc"]["low"] > 0
    assert found["only_first_right"] > found["only_second_right"]
