"""Probabilities, thresholds and prediction sets keep what they promise on candidates never seen."""

from __future__ import annotations

import json

import numpy as np
import pytest

from transientnet.errors import UsageError
from transientnet.evaluation.calibration import calibrate, fit_calibration, fit_conformal, fit_thresholds
from transientnet.evaluation.metrics import calibration_error
from transientnet.models.calibration import apply, prediction_sets


def sample(n: int, k: int = 2, *, overconfidence: float = 1.0, bias: float = 0.0, seed: int = 0):
    """Logits of a model whose truth is softmax((logits - bias of class 0) / overconfidence)."""
    rng = np.random.default_rng(seed)
    true = 2.0 * rng.normal(size=(n, k))
    p = np.exp(true) / np.exp(true).sum(axis=1, keepdims=True)
    labels = (rng.random((n, 1)) > np.cumsum(p, axis=1)).sum(axis=1).clip(0, k - 1)
    logits = overconfidence * true
    logits[:, 0] += bias
    return logits, labels, p


@pytest.mark.parametrize("k", [2, 4])
def test_temperature_is_recovered_and_probabilities_become_true(k: int) -> None:
    logits, labels, truth = sample(6000, k, overconfidence=3.0)
    fitted = fit_calibration(logits, labels, resamples=50)
    assert fitted.method == "temperature"
    assert fitted.temperature == pytest.approx(3.0, rel=0.08)
    assert fitted.before.ece > 0.05 > 4 * fitted.after.ece
    fresh, _, fresh_truth = sample(1000, k, overconfidence=3.0, seed=1)
    assert np.abs(apply(fresh, fitted) - fresh_truth).max() < 0.05
    assert truth.shape == apply(logits, fitted).shape


def test_class_bias_is_fitted_only_where_it_pays() -> None:
    logits, labels, _ = sample(4000, 3, bias=2.0)
    fitted = fit_calibration(logits, labels, resamples=20)
    assert fitted.method == "temperature-bias"
    bias = np.array(fitted.bias)
    assert bias[1] - bias[0] == pytest.approx(2.0, abs=0.25)
    fresh, fresh_labels, _ = sample(4000, 3, bias=2.0, seed=1)
    assert calibration_error(apply(fresh, fitted), fresh_labels) < 0.02


def test_weights_change_what_is_fitted() -> None:
    logits, labels, _ = sample(4000)
    odd = np.arange(4000) % 2 == 1
    flipped = np.where(odd, 1 - labels, labels)
    fitted = fit_calibration(logits, flipped, weights=np.where(odd, 1e-6, 1.0), resamples=20)
    assert fitted.temperature == pytest.approx(1.0, rel=0.15)


def test_separable_classes_give_finite_probabilities() -> None:
    logits = np.array([[5.0, -5.0], [4.0, -4.0], [-4.0, 4.0], [-5.0, 5.0]] * 4)
    labels = np.array([0, 0, 1, 1] * 4)
    fitted = fit_calibration(logits, labels, resamples=20)
    p = apply(logits, fitted)
    assert np.isfinite(p).all()
    assert 0 < p.min() < p.max() < 1


def test_reversed_logits_do_not_invert_the_model() -> None:
    logits, labels, _ = sample(500)
    fitted = fit_calibration(-logits, labels, resamples=20)
    assert fitted.temperature > 0


@pytest.mark.parametrize("rate", [0.01, 0.05])
def test_threshold_keeps_its_false_positive_rate_on_new_candidates(rate: float) -> None:
    logits, labels, _ = sample(20_000, seed=3)
    row = fit_thresholds(apply(logits, {}), labels, ("bogus", "real"), rates=[rate], resamples=100)[0]
    assert row.name == "real"
    assert row.measured_false_positive_rate <= rate
    assert row.threshold_interval[0] <= row.threshold <= row.threshold_interval[1]
    fresh, fresh_labels, _ = sample(20_000, seed=4)
    alarms = apply(fresh, {})[fresh_labels == 0, 1] >= row.threshold
    low, high = row.false_positive_interval
    assert low - 0.002 <= alarms.mean() <= high + 0.002


def test_threshold_with_ties_and_with_too_few_negatives_stays_on_the_safe_side() -> None:
    p = np.array([[0.5, 0.5]] * 90 + [[0.1, 0.9]] * 10, np.float32)
    labels = np.array([0] * 90 + [1] * 10)
    row = fit_thresholds(p, labels, ("bogus", "real"), rates=[0.05], resamples=20)[0]
    assert row.measured_false_positive_rate == 0
    assert row.recall == 1
    few = fit_thresholds(p[80:], labels[80:], ("bogus", "real"), rates=[0.01], resamples=20)[0]
    assert few.threshold > 0.5
    assert few.false_positive_interval[1] > 0.2  # ten bogus cannot prove one per cent


@pytest.mark.parametrize("k", [2, 4])
def test_prediction_sets_cover_every_class_at_their_level(k: int) -> None:
    logits, labels, _ = sample(8000, k, bias=1.0)
    conformal = fit_conformal(apply(logits, {}), labels)
    fresh, fresh_labels, _ = sample(8000, k, bias=1.0, seed=9)
    for level in (0.9, 0.95, 0.99):
        inside = prediction_sets(apply(fresh, {}), conformal, level)
        hit = inside[np.arange(8000), fresh_labels]
        for c in range(k):
            assert hit[fresh_labels == c].mean() == pytest.approx(level, abs=0.02)
        stored = conformal.levels[f"{level:g}"]
        assert stored.coverage_interval[0] <= stored.coverage <= stored.coverage_interval[1]
        assert stored.mean_size == pytest.approx(inside.sum(axis=1).mean(), abs=0.05)


def test_few_labels_give_wide_sets_not_false_promises() -> None:
    logits, labels, _ = sample(12)
    conformal = fit_conformal(apply(logits, {}), labels, [0.99])
    assert prediction_sets(apply(logits, {}), conformal, 0.99).all()


def test_sets_of_unusable_rows_are_empty_and_others_never() -> None:
    logits, labels, _ = sample(2000, 3)
    p = apply(logits, {})
    p[5] = np.nan
    conformal = fit_conformal(p[100:], labels[100:])
    inside = prediction_sets(p, conformal, 0.9)
    assert not inside[5].any()
    assert inside[np.arange(2000) != 5].any(axis=1).all()


def test_level_that_is_not_stored_is_refused_with_those_that_are() -> None:
    logits, labels, _ = sample(200)
    conformal = fit_conformal(apply(logits, {}), labels, [0.9])
    with pytest.raises(UsageError, match=r"0\.9"):
        prediction_sets(apply(logits, {}), conformal, 0.95)
    with pytest.raises(UsageError, match="never calibrated"):
        prediction_sets(apply(logits, {}), {}, 0.95)


def test_calibrate_gives_json_fields_of_a_record() -> None:
    logits, labels, _ = sample(600, 3)
    calibrated = calibrate(logits, labels, ("a", "b", "c"), groups=np.arange(600) // 2, resamples=30)
    fields = calibrated.to_record()
    assert json.loads(json.dumps(fields, allow_nan=False)) == fields
    assert {row["class"] for row in fields["thresholds"]} == {"a", "b", "c"}
    with pytest.raises(UsageError, match="none of c"):
        calibrate(logits[labels < 2], labels[labels < 2], ("a", "b", "c"))
