"""Tags beside a score: what holds, what follows from what, and what an unusable candidate has."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from transientnet import Triplet, load_model, open_triplets
from transientnet.errors import UsageError
from transientnet.scoring.tags import TAGS, reference_peak, tag, tag_packets


def star(peak: float, x: float = 31, y: float = 31, fwhm: float | None = 2.0) -> Triplet:
    """A star of so many sigma in every stamp, 1 % of it left over in the difference."""
    rng = np.random.default_rng(4)
    rows, columns = np.mgrid[:63, :63]
    light = 5 * peak * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 2)
    science, reference = rng.normal(100, 5, (2, 63, 63)) + light
    return Triplet(science, reference, science - reference + 0.01 * light, fwhm=fwhm, pixel_scale=1.0)


def test_the_peak_is_that_of_the_centre_in_units_of_the_noise() -> None:
    assert reference_peak(star(800)) == pytest.approx(800, rel=0.15)
    assert reference_peak(star(800, x=10)) < 5
    assert reference_peak(star(800, x=35)) < 150 < 500 < reference_peak(star(800, x=35, fwhm=5.0))
    assert math.isnan(reference_peak(Triplet(np.ones((9, 9)))))
    assert math.isnan(reference_peak(Triplet(np.ones((9, 9)), np.full((9, 9), np.nan))))


def test_tags_follow_from_each_other(shared_data: Path) -> None:
    triplets = list(open_triplets(shared_data / "packets" / "fink" / "ztf_alerts.parquet"))
    blank = Triplet(np.zeros((63, 63)), np.zeros((63, 63)), np.zeros((63, 63)))
    scores, tags = tag([*triplets, blank], load_model("realbogus"), load_model("3class"))
    assert tags[-1] == []
    assert any("bright_star" in each for each in tags)
    for label, each in zip(scores.labels, tags, strict=True):
        assert each == [word for word in TAGS if word in each]
        assert ("real" in each) == (label == "real")
        assert ("variable_source" in each) == ({"real", "on_point_source"} <= set(each))
        assert "on_point_source" in each or "bright_star" not in each


def test_models_must_have_the_classes_that_tags_are_made_of() -> None:
    with pytest.raises(UsageError, match="no class 'real'"):
        tag_packets([], model="3class")
    with pytest.raises(UsageError, match="no class 'variable'"):
        tag_packets([], morphology="realbogus")
    assert tag_packets([]) == []
