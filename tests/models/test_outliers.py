"""What a model was not trained on is flagged, not hidden."""

from __future__ import annotations

import json

import numpy as np
import pytest

from transientnet import InputContract, QualityFlag, Triplet
from transientnet.models.outliers import STATISTICS, fit_reference, input_statistics, ood_score
from transientnet.prepare.preprocess import Prepared, preprocess

CONTRACT = InputContract()
CLASSES = ("bogus", "real")


def triplets(n: int, seed: int) -> list[Triplet]:
    """Sources of many brightnesses, some with a host, on noise of 1."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((63, 63)) - 31
    profile = np.exp(-(x**2 + y**2) / (2 * 1.0**2))
    out = []
    for _ in range(n):
        host = rng.uniform(0, 200) * np.exp(-((x - rng.normal()) ** 2 + (y - rng.normal()) ** 2) / 18)
        flux = 10 ** rng.uniform(1, 3) * profile
        noise = rng.normal(size=(3, 63, 63))
        out.append(Triplet(100 + host + flux + noise[0], 90 + host + noise[1], flux + noise[2], fwhm=2.4))
    return out


def prepare(stamps: list[Triplet]) -> Prepared:
    return preprocess(stamps, CONTRACT)


@pytest.fixture(scope="module")
def reference() -> dict:
    prepared = prepare(triplets(500, 1))
    p = np.random.default_rng(0).dirichlet([1, 1], 500)
    return fit_reference(prepared.tensor, p, prepared.quality, CLASSES)


def score(stamps: list[Triplet], reference: dict) -> np.ndarray:
    prepared = prepare(stamps)
    assert prepared.usable.all()
    return ood_score(prepared.tensor, prepared.quality, reference)


def test_one_in_a_hundred_of_its_own_kind_is_flagged(reference: dict) -> None:
    assert (score(triplets(300, 2), reference) > 1).mean() < 0.05


@pytest.mark.parametrize(
    "damage",
    [
        lambda s: (s[2], s[0], s[1]),
        lambda s: tuple(np.clip(image, None, np.percentile(image, 60)) for image in s),
        lambda s: tuple(image + 5 * np.arange(63) for image in s),
        lambda s: tuple(np.repeat(np.repeat(image[::4, ::4], 4, 0), 4, 1)[:63, :63] for image in s),
    ],
    ids=["shuffled channels", "saturated", "gradient", "blocky"],
)
def test_corrupted_stamps_are_flagged(damage, reference: dict) -> None:
    bad = [Triplet(*damage(t.stamps), fwhm=2.4) for t in triplets(60, 3)]
    assert (score(bad, reference) > 1).mean() > 0.9


def test_absent_stamp_is_judged_by_what_is_there(reference: dict) -> None:
    for absent in ("reference", "difference"):
        kept = [
            Triplet(
                t.science,
                None if absent == "reference" else t.reference,
                None if absent == "difference" else t.difference,
                fwhm=2.4,
            )
            for t in triplets(200, 4)
        ]
        assert (score(kept, reference) > 1).mean() < 0.05


def test_statistics_do_not_turn_with_the_stamp() -> None:
    tensor = prepare(triplets(20, 5)).tensor
    turned = np.rot90(tensor, 1, (2, 3))[..., ::-1]
    assert np.allclose(input_statistics(turned), input_statistics(tensor), atol=1e-4)
    assert input_statistics(tensor).shape == (20, len(STATISTICS))


def test_reference_is_small_json_and_reads_back_alike(reference: dict) -> None:
    text = json.dumps(reference, allow_nan=False)
    assert len(text) < 40_000
    stamps = triplets(20, 6)
    assert np.array_equal(score(stamps, json.loads(text)), score(stamps, reference))


def test_thirty_candidates_are_enough_for_a_careful_threshold() -> None:
    prepared = prepare(triplets(30, 7))
    few = fit_reference(prepared.tensor, np.full((30, 2), 0.5), prepared.quality, CLASSES)
    assert (score(triplets(200, 8), few) > 1).mean() < 0.25
    shuffled = [Triplet(t.difference, t.science, t.reference, fwhm=2.4) for t in triplets(50, 9)]
    assert (score(shuffled, few) > 1).mean() > 0.8


def test_flags_of_the_training_set_are_kept(reference: dict) -> None:
    assert set(reference["quality"]) == {flag.name for flag in QualityFlag}
    assert sum(reference["labels"].values()) == pytest.approx(1)
