"""Recall of injected sources: what is put in, what is counted, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from transientnet import Triplet, completeness, load_model
from transientnet.cli import app
from transientnet.errors import EmptyInputError, UsageError
from transientnet.evaluation.completeness import Recall
from transientnet.evaluation.injection import Injector
from transientnet.evaluation.injection_field import matched_snr, moffat
from transientnet.evaluation.injection_frames import frame_stamps

FWHM = 2.6


def night(n: int = 60, size: int = 63, seed: int = 0, stars: int = 3, real: bool = True) -> list[Triplet]:
    """Simulated candidates: sky with photon noise, stars that subtract well, and a source in the middle."""
    rng = np.random.default_rng(seed)
    source = moffat((size, size), FWHM, 3.0)
    triplets = []
    for k in range(n):
        sky = np.zeros((size, size))
        for _ in range(stars):
            y, x = rng.integers(-size // 2 + 8, size // 2 - 8, 2)
            sky += rng.uniform(2e3, 4e4) * np.roll(source, (y, x), (0, 1))
        reference = 400 + sky + rng.normal(0, 4, sky.shape)
        noise = rng.normal(0, 12, sky.shape)
        transient = rng.uniform(500, 4000) * source if real else 0.0
        difference = noise + transient
        triplets.append(
            Triplet(
                (400 + sky + difference).astype(np.float32),
                reference.astype(np.float32),
                difference.astype(np.float32),
                id=f"c{k}",
                fwhm=FWHM,
                meta={"magnitude": 25 - 2.5 * np.log10(np.sum(transient))} if real else {},
            )
        )
    return triplets


def test_an_injected_source_has_the_brightness_that_was_asked_for() -> None:
    injector = Injector(night(), seed=1)
    measured = []
    for injection in injector.draw([40.0] * 80, place="empty"):
        difference = np.asarray(injection.triplet.difference, float)
        noise = 1.4826 * np.nanmedian(np.abs(difference - np.nanmedian(difference)))
        measured.append(
            matched_snr(difference, FWHM, injector.night.beta, float(np.nanmedian(difference)), noise)
        )
    assert len(measured) == 80
    assert 38 < np.median(measured) < 42
    assert np.percentile(np.abs(np.array(measured) - 40), 90) < 6


def test_the_own_candidate_is_gone_and_the_source_is_in_science_and_difference_alike() -> None:
    bright = night(20, stars=0)
    injector = Injector(bright, seed=2)
    for injection in injector.draw([8.0] * 20, place="empty"):
        own = bright[injection.row]
        new = injection.triplet
        core = np.s_[29:34, 29:34]
        assert np.nansum(np.asarray(new.difference)[core]) < 0.6 * np.nansum(np.asarray(own.difference)[core])
        added = np.asarray(new.science, float) - np.asarray(new.difference, float)
        assert abs(np.nanmedian(added) - 400) < 6
        assert np.nanmax(np.abs(added - 400)) < 40  # nothing was left behind in one of the two


def test_recall_rises_with_brightness_and_a_higher_threshold_loses_more() -> None:
    triplets = night()
    low = completeness(triplets, injections=300, seed=3)
    high = completeness(triplets, injections=300, seed=3, threshold=0.97)
    assert len(low) == 300
    bins = [recall.value for _, _, recall in low.by_snr() if recall.n >= 20]
    assert bins[0] < 0.8 < 0.9 < bins[-1]
    assert high.recall().value < low.recall().value
    assert low.limit(0.5).value < low.limit(0.9).value
    wanted = low.threshold_for(0.95)
    assert wanted.low <= wanted.value <= wanted.high
    kept = completeness(triplets, injections=300, seed=3, threshold=wanted.value)
    assert abs(kept.recall().value - 0.95) < 0.01


def test_the_zero_point_comes_from_candidates_with_magnitudes() -> None:
    result = completeness(night(), injections=50)
    assert abs(result.zero_point - 25) < 0.1
    assert result.by_magnitude()
    assert not completeness(night(real=False), injections=50).by_magnitude()
    assert completeness(night(real=False), injections=50, zero_point=26.0).by_magnitude()


def test_saturated_stamps_clip_what_is_injected() -> None:
    level = 20_000.0
    clipped = [
        Triplet(np.minimum(t.science, level), np.minimum(t.reference, level), t.difference, fwhm=FWHM)
        for t in night(stars=6)
        if t.reference is not None
    ]
    for triplet in clipped:  # a saturated star in each
        triplet.science[8:11, 8:11] = level
    injector = Injector(clipped)
    assert injector.night.saturation == pytest.approx(level, rel=0.02)
    brightest = [float(np.nanmax(i.triplet.science)) for i in injector.draw([20_000.0] * 10)]
    assert brightest
    assert max(brightest) <= level * 1.001


def test_stamps_of_eight_bits_are_recognised_and_stay_so() -> None:
    def scaled(stamp: np.ndarray | None) -> np.ndarray:
        assert stamp is not None
        return np.round((stamp - stamp.min()) / np.ptp(stamp) * 255).astype(np.uint8)

    stamps = [Triplet(*(scaled(s) for s in t.stamps), fwhm=FWHM) for t in night(30)]
    result = completeness(stamps, injections=100)
    assert result.night.eight_bit
    assert result.recall().n > 50


def test_without_stars_the_seeing_must_be_given() -> None:
    rng = np.random.default_rng(0)
    empty = rng.normal(0, 10, (30, 3, 63, 63)).astype(np.float32)
    with pytest.raises(EmptyInputError, match="--fwhm"):
        completeness(empty)
    result = completeness(empty, fwhm=2.5, injections=60)
    assert result.night.stars == 0
    assert len(result) == 60


def test_stamps_without_reference_or_difference() -> None:
    bare = [Triplet(t.science, None, t.difference, fwhm=FWHM) for t in night(30)]
    assert len(completeness(bare, injections=40)) == 40
    single = [Triplet(t.science, t.reference, None, fwhm=FWHM) for t in night(30)]
    assert len(completeness(single, injections=40)) == 40


@pytest.mark.parametrize(
    ("options", "error", "word"),
    [
        ({"model": "3class"}, UsageError, "real or bogus"),
        ({"injections": 0}, UsageError, "at least 1"),
        ({"snr": (5.0, 5.0)}, UsageError, "increasing"),
    ],
)
def test_what_makes_no_sense_is_refused(
    options: dict[str, object], error: type[Exception], word: str
) -> None:
    with pytest.raises(error, match=word):
        completeness(night(4), **options)  # type: ignore[arg-type]


def test_unreadable_and_blank_candidates_are_left_out_or_refused() -> None:
    blank = [Triplet(np.zeros((63, 63))), Triplet.unreadable("x", "x.fits", "damaged")]
    with pytest.raises(EmptyInputError, match="2 candidates"):
        completeness(blank)
    result = completeness([*blank, *night(20)], injections=30)
    assert (result.stamps, result.offered) == (20, 22)


def test_a_trail_is_long() -> None:
    injector = Injector(night(20, stars=0), seed=4)
    injection = next(injector.draw([200.0], place="empty", trail=4.0))
    difference = np.nan_to_num(np.asarray(injection.triplet.difference, float))
    y, x = np.indices(difference.shape) - 31
    weight = np.clip(difference, 40, None) - 40
    spread = np.cov(np.vstack([y.ravel(), x.ravel()]), aweights=weight.ravel())
    small, large = np.linalg.eigvalsh(spread)
    assert large > 3 * small


def test_recall_states_its_interval() -> None:
    recall = Recall.of([True] * 9 + [False])
    assert (recall.n, recall.value) == (10, 0.9)
    assert recall.low < 0.6 < 0.99 < recall.high
    assert str(Recall.of([])) == "no source"


def test_the_command_writes_a_page_figures_and_a_table(tmp_path: Path) -> None:
    stamps = np.stack([np.stack([np.asarray(s) for s in t.stamps]) for t in night(40)])
    np.savez(tmp_path / "night.npz", triplets=stamps, fwhm=np.full(40, FWHM))
    arguments = ["completeness", str(tmp_path / "night.npz"), "-o", str(tmp_path / "out"), "-n", "120"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "120 sources injected into 40 of 40 stamps" in done.output
    figures = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert sum(row["n"] for row in figures["recall_by_snr"]) == 120
    with open(tmp_path / "out" / "injections.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    found = sum(row["found"] == "1" for row in rows if float(row["snr"]) >= 5)
    assert found == round(figures["recall_at_detection"]["recall"] * figures["recall_at_detection"]["n"])
    page = (tmp_path / "out" / "report.html").read_text()
    assert "purity" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    refused = CliRunner().invoke(app, [*arguments, "--min-recall", "0.999", "--threshold", "0.99"])
    assert refused.exit_code == 1
    assert "below 0.999" in refused.output


def test_recall_of_injections_agrees_with_real_sources_of_the_same_brightness(shared_data: Path) -> None:
    """ZTF: inspected or catalogue reals that are not saturated, against injections into the same stamps."""
    with np.load(shared_data / "ztf" / "stamps.npz") as stored:
        stamps = stored["triplets"]
    with open(shared_data / "ztf" / "labels.csv", newline="") as stream:
        labels = list(csv.DictReader(stream))
    triplets = [Triplet(*stamp, id=str(k)) for k, stamp in enumerate(stamps)]
    real = np.array(
        [
            (r["vetted"] == "real" or (r["vetted"] == "" and r["realbogus_evidence"] == "catalogue"))
            and r["realbogus"] != "bogus"
            and float(r["magpsf"] or 0) > 17
            for r in labels
        ]
    )
    classifier = load_model("realbogus")
    result = completeness(triplets, model=classifier, injections=1000, snr=(10, 100))
    p = np.nan_to_num(classifier.predict(triplets).probabilities[:, 1])
    own = result.night.snr
    rows = real & (own >= 10) & (own < 100)
    assert rows.sum() > 300
    assert abs(result.recall().value - (p[rows] >= 0.5).mean()) < 0.04


def frames(size: int = 220) -> dict[str, np.ndarray]:
    """Science, reference and difference of a field with stars and two galaxies."""
    rng = np.random.default_rng(4)
    sky = np.zeros((size, size))
    star = moffat((41, 41), FWHM, 3.0)
    galaxy = moffat((41, 41), 4 * FWHM, 3.0)
    for k in range(24):
        y, x = rng.integers(24, size - 24, 2)
        profile, flux = (galaxy, 4e4) if k < 6 else (star, rng.uniform(3e3, 2e4))
        sky[y - 20 : y + 21, x - 20 : x + 21] += flux * profile
    difference = rng.normal(0, 12, sky.shape)
    reference = 400 + sky + rng.normal(0, 4, sky.shape)
    return {"science": 400 + sky + difference, "reference": reference, "difference": difference}


def test_frames_are_injected_into_at_empty_places_stars_and_galaxies(tmp_path: Path) -> None:
    from astropy.io import fits

    arguments = ["completeness", "-o", str(tmp_path / "out"), "-n", "150", "--fwhm", str(FWHM)]
    for name, image in frames().items():
        fits.PrimaryHDU(image.astype(np.float32)).writeto(tmp_path / f"{name}.fits")
        arguments += [f"--{name}", str(tmp_path / f"{name}.fits")]
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == json.loads((tmp_path / "out" / "metrics.json").read_text())
    places = json.loads(done.stdout)["recall_by_place"]
    assert all(places[name]["n"] >= 10 for name in ("empty", "star", "galaxy"))
    assert places["empty"]["recall"] > 0.7


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "name cutouts"),
        (["--reference", "r.fits"], "--science"),
        (["a", "--science", "s.fits"], "leave out"),
    ],
)
def test_the_command_takes_cutouts_or_frames(arguments: list[str], word: str) -> None:
    refused = CliRunner().invoke(app, ["completeness", *arguments])
    assert isinstance(refused.exception, UsageError)
    assert word in str(refused.exception)


def test_a_frame_smaller_than_a_stamp_is_refused() -> None:
    with pytest.raises(UsageError, match="too few"):
        frame_stamps(np.zeros((40, 40)))
