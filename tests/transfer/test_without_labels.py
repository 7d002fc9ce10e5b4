"""A telescope without a label: what its night and injected sources say about the threshold."""

from __future__ import annotations

import csv
import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_survey import QUICK, Labelled
from typer.testing import CliRunner

from transientnet import AdaptConfig, AdaptResult, Triplet, adapt, completeness, load_model
from transientnet.cli import app
from transientnet.errors import EmptyInputError, UsageError

pytest.importorskip("scipy")
pytest.importorskip("onnx")

from transientnet.evaluation.injection_field import moffat
from transientnet.transfer.label_free import Source, fit_night
from transientnet.transfer.outcome import NightMetrics

UNKNOWN = Source(np.zeros((0, 2)), np.zeros((0, 2)))
FWHM = 2.6


def logits(
    n: int, share: float, bogus: float = -3.0, real: float = 3.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A night's logits and its truth; logits of injected sources and their signal-to-noise."""
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < share
    night = np.where(truth, rng.normal(real, 0.8, n), rng.normal(bogus, 1.2, n))
    return night, truth, rng.normal(real, 0.8, 1000), np.exp(rng.uniform(np.log(3), np.log(300), 1000))


@pytest.mark.parametrize(("share", "gain"), [(0.08, 0.2), (0.3, 0.1), (0.7, 0.025)])
def test_a_threshold_that_lies_too_low_is_found(share: float, gain: float) -> None:
    """Bogus that the network takes for real, as on a telescope that it never saw."""
    night, truth, injected, snr = logits(800, share, bogus=-0.2)
    fit = fit_night(night, injected, snr, UNKNOWN)
    assert not fit.reason
    before, after = ((night > at) == truth for at in (0.0, fit.threshold))
    assert after.mean() > before.mean() + gain
    assert fit.low <= fit.threshold <= fit.high
    assert abs(fit.share - share) < 0.05
    order = np.argsort(night)
    assert (np.diff(fit.logits(night)[order]) >= 0).all()


@pytest.mark.parametrize("seed", range(4))
def test_a_night_as_on_the_base_survey_changes_nothing(seed: int) -> None:
    """Both populations lie far apart: any threshold between them is as good."""
    night, _, injected, snr = logits(800, 0.5, seed=seed)
    fit = fit_night(night, injected, snr, UNKNOWN)
    assert fit.reason == "the night asks for no other threshold"
    assert fit.threshold == 0
    assert (fit.logits(night) == night).all()
    assert abs(fit.share - 0.5) < 0.07


@pytest.mark.parametrize(
    ("night", "injected", "word"),
    [
        (logits(40, 0.5)[0], logits(40, 0.5)[2], "too few"),
        (logits(300, 0.5)[0], logits(300, 0.5)[2][:60], "could be injected"),
        (logits(300, 0.5)[0], logits(300, 0.5)[2] - 6, "labels are needed"),
        (logits(300, 0.0)[0], logits(300, 0.0)[2], "hardly any real"),
        (logits(300, 1.0)[0], logits(300, 1.0)[2], "hardly any bogus"),
    ],
)
def test_what_a_night_does_not_tell_is_refused(night: np.ndarray, injected: np.ndarray, word: str) -> None:
    snr = np.exp(np.linspace(np.log(3), np.log(300), len(injected)))
    fit = fit_night(night, injected, snr, UNKNOWN)
    assert word in fit.reason
    assert fit.threshold == 0


def test_the_threshold_costs_the_base_survey_no_more_than_the_bound() -> None:
    """Where the night asks for more, the record's own figures hold it."""
    source = Source.of(load_model("realbogus").record)
    night, _, injected, snr = logits(600, 0.03, bogus=1.5, real=4.0)
    fit = fit_night(night, injected, snr, source)
    assert source.cost(fit.threshold) <= 0.1 + 1e-9
    assert fit.cost == pytest.approx(source.cost(fit.threshold), abs=1e-9) or fit.reason


def night(n: int = 120, real: float = 0.5, seed: int = 0) -> list[Triplet]:
    """Stamps of a telescope: stars that subtract well, and new sources or dipoles in the middle."""
    rng = np.random.default_rng(seed)
    source = moffat((51, 51), FWHM, 3.0)
    triplets = []
    for k in range(n):
        sky = sum(
            rng.uniform(2e3, 2e4) * np.roll(source, tuple(rng.integers(-18, 18, 2)), (0, 1)) for _ in range(3)
        )
        strength = rng.uniform(600, 3000)
        centre = strength * source
        if rng.random() >= real:
            centre = strength * (source - np.roll(source, 2, 1))
        difference = centre + rng.normal(0, 12, (51, 51))
        images = (400 + sky + difference, 400 + sky + rng.normal(0, 4, (51, 51)), difference)
        triplets.append(Triplet(*(i.astype(np.float32) for i in images), id=f"c{k}", fwhm=FWHM))
    return triplets


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the command wrote from a night without labels."""
    folder = tmp_path_factory.mktemp("night")
    stamps = np.stack([np.stack([np.asarray(s) for s in t.stamps]) for t in night()])
    np.savez(folder / "night.npz", triplets=stamps, fwhm=np.full(len(stamps), FWHM))
    done = CliRunner().invoke(
        app, ["adapt", "--unlabelled", str(folder / "night.npz"), "-o", str(folder / "mine")]
    )
    assert done.exit_code == 0, done.output
    assert "injected sources lie at p(real)" in done.output
    return folder


def test_the_folder_holds_a_model_that_ranks_as_the_base_does(started: Path) -> None:
    new, base = load_model(started / "mine"), load_model("realbogus")
    assert new.record.parent == base.record.id
    candidates = night(40, seed=3)
    before, after = (model.predict(candidates).probabilities[:, 1] for model in (base, new))
    assert (np.argsort(after, kind="stable") == np.argsort(before, kind="stable")).all()
    figures = json.loads((started / "mine" / "metrics.json").read_text())
    assert figures["candidates"] == 120
    assert figures["outcome"] in (started / "mine" / "MODEL_CARD.md").read_text()
    assert (started / "mine" / "report.html").stat().st_size > 1000
    verified = CliRunner().invoke(app, ["models", "verify", str(started / "mine")])
    assert verified.exit_code == 0, verified.output


@pytest.mark.parametrize("own", [True, False], ids=["by the record", "measured on the night"])
def test_score_takes_the_threshold_of_a_completeness(started: Path, own: bool, tmp_path: Path) -> None:
    model = str(started / "mine" / "model.onnx") if own else "realbogus"
    table = tmp_path / "scores.csv"
    arguments = ["score", str(started / "night.npz"), "-m", model, "--completeness", "0.9", "-o", str(table)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    said = done.output.split("p(real) ≥ ")[1].split()[0]
    with open(table, newline="") as stream:
        rows = list(csv.DictReader(stream))
    called = [float(row["p_real"]) for row in rows if row["label"] == "real"]
    others = [float(row["p_real"]) for row in rows if row["label"] == "bogus"]
    assert min(called) >= float(said) - 1e-3
    assert not others or max(others) <= float(said) + 1e-3
    if own:
        stored = load_model(model).record.metrics["completeness"]["0.9"]["value"]
        assert float(said) == pytest.approx(stored, abs=1e-3)


def test_labels_decide_and_the_night_adds_thresholds_for_a_completeness(
    survey: Labelled, bases: dict[int, str], tmp_path: Path
) -> None:
    """The same network and figures as from the labels alone; the record has what injection measured."""

    def adapted(name: str, unlabelled: list[Triplet] | None) -> AdaptResult:
        return adapt(
            survey.labels, cutouts=survey.cutouts, groups=survey.groups, unlabelled=unlabelled, base=bases[2],
            output=str(tmp_path / name), config=replace(QUICK, method="probe"),
        )  # fmt: skip

    alone, both = adapted("alone", None), adapted("both", night(30))
    assert "completeness" not in alone.record.metrics
    candidates = night(20, seed=4)
    new = load_model(tmp_path / "both")
    assert new.predict(candidates).probabilities == pytest.approx(
        load_model(tmp_path / "alone").predict(candidates).probabilities, abs=1e-6
    )
    stored = new.record.metrics["completeness"]
    assert list(stored) == ["0.8", "0.9", "0.95", "0.98"]
    values = [stored[level]["value"] for level in stored]
    assert values == sorted(values, reverse=True)
    measured = completeness(night(30), model=new, injections=1500, threshold=stored["0.9"]["value"])
    assert measured.recall().value == pytest.approx(0.9, abs=0.01)
    assert both.record.metrics["completeness"] == stored
    assert new.record.sha256 == hashlib.sha256((tmp_path / "both" / "model.onnx").read_bytes()).hexdigest()
    verified = CliRunner().invoke(app, ["models", "verify", str(tmp_path / "both")])
    assert verified.exit_code == 0, verified.output


def test_a_night_beside_labels_that_takes_no_source_leaves_the_model_of_the_labels(
    survey: Labelled, bases: dict[int, str], tmp_path: Path
) -> None:
    def adapted(unlabelled: object) -> AdaptResult:
        return adapt(
            survey.labels, cutouts=survey.cutouts, groups=survey.groups, unlabelled=unlabelled, base=bases[2],
            output=str(tmp_path / "mine"), config=replace(QUICK, method="probe"),
        )  # fmt: skip

    with pytest.raises(EmptyInputError, match="unlabelled"):  # before anything is trained
        adapted([Triplet.unreadable("x", "x.fits", "damaged")])
    assert not (tmp_path / "mine" / "model.onnx").exists()
    with pytest.warns(UserWarning, match="no thresholds for a completeness"):
        result = adapted(np.zeros((3, 3, 63, 63), np.float32))
    assert "completeness" not in load_model(result.folder).record.metrics


def test_a_night_of_a_hundred_without_any_real_is_answered_or_refused(tmp_path: Path) -> None:
    result = adapt(unlabelled=night(100, real=0.0, seed=5), output=str(tmp_path / "none"))
    assert isinstance(result.figures, NightMetrics)
    fit = result.figures.fit
    assert fit.reason or fit.share_high < 0.5
    assert result.model.exists()


def test_stamps_of_eight_bits_and_stamps_without_a_reference(tmp_path: Path) -> None:
    def scaled(stamp: np.ndarray | None) -> np.ndarray:
        assert stamp is not None
        return np.round((stamp - stamp.min()) / np.ptp(stamp) * 255).astype(np.uint8)

    eight = [Triplet(*(scaled(s) for s in t.stamps), fwhm=FWHM) for t in night(80)]
    bare = [replace(t, reference=None) for t in night(80)]
    for name, triplets in (("eight", eight), ("bare", bare)):
        result = adapt(unlabelled=triplets, output=str(tmp_path / name))
        assert 0 < result.record.metrics["completeness"]["0.9"]["value"] < 1


@pytest.mark.parametrize(
    ("options", "error", "word"),
    [
        ({}, UsageError, "needs labels"),
        ({"unlabelled": "x.npz", "groups": ["a"]}, UsageError, "belong to labels"),
        ({"unlabelled": np.zeros((3, 3, 63, 63), np.float32)}, EmptyInputError, "injected"),
        ({"unlabelled": night(4), "base": "3class"}, UsageError, "bogus and real"),
    ],
)
def test_what_makes_no_sense_is_refused(
    options: dict[str, object], error: type[Exception], word: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=word):
        adapt(output=str(tmp_path / "new"), config=AdaptConfig(), **options)  # type: ignore[arg-type]


def test_no_torch_is_loaded(started: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from transientnet import adapt; "
        f"adapt(unlabelled={str(started / 'night.npz')!r}, output={str(tmp_path / 'new')!r}); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_command_prints_its_figures_for_a_script(started: Path, tmp_path: Path) -> None:
    arguments = [
        "--unlabelled",
        str(started / "night.npz"),
        "-o",
        str(tmp_path / "mine"),
        "--json",
        "--stages",
    ]
    done = CliRunner().invoke(app, ["adapt", *arguments])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == json.loads((tmp_path / "mine" / "metrics.json").read_text())
    stages = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert stages
    assert {*stages[-1]} == {"stage", "done", "total"}
