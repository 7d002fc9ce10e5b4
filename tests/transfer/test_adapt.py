"""Adapting a model: what the folder holds, what interruption leaves, what is refused."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_survey import QUICK, Labelled, stamps

from training_reference.simulator import ZTF_LIKE, simulate
from transientnet import AdaptConfig, AdaptResult, QualityFlag, Triplet, adapt, classify, load_model
from transientnet.errors import LabelError, UsageError
from transientnet.files.strict_json import dump_json
from transientnet.transfer.outcome import Choice, Judgement, Rise, in_words, versus

Bases = dict[int, str]


def run(survey: Labelled, base: str, folder: Path, config: AdaptConfig = QUICK, **how: Any) -> AdaptResult:
    return adapt(
        survey.labels,
        cutouts=survey.cutouts,
        groups=survey.groups,
        base=base,
        output=str(folder),
        config=config,
        **how,
    )


def same_network(one: Path, two: Path) -> bool:
    """Whether two models give the same logits, bit for bit."""
    x = 3 * np.random.default_rng(0).normal(size=(4, 3, 63, 63)).astype(np.float32)
    return np.array_equal(load_model(one).run(x)[0], load_model(two).run(x)[0])


def in_new_process(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_adapt_loads_no_torch() -> None:
    code = """
import sys
from transientnet import adapt, AdaptConfig
assert callable(adapt)
AdaptConfig(folds=3)
print("torch" in sys.modules)
"""
    assert in_new_process(code) == "False"


def test_without_torch_the_extra_is_named() -> None:
    code = """
import sys
sys.modules["torch"] = None
from transientnet import adapt
from transientnet.errors import MissingDependencyError
try:
    adapt(["a"], cutouts=None)
except MissingDependencyError as error:
    print(error)
"""
    assert "transientnet[adapt]" in in_new_process(code)


def test_the_folder_is_a_model_that_scores_at_once_without_torch(
    adapted: AdaptResult, tmp_path: Path
) -> None:
    assert {"model.onnx", "weights_manifest.json", "metrics.json"} <= {
        p.name for p in adapted.folder.iterdir()
    }
    assert adapted.record.id == "my-survey@1.0.0"
    assert adapted.record.parent == "base2@1.0.0"
    np.save(tmp_path / "new.npy", stamps([1, 0], seed=5))
    code = f"""
import sys
sys.modules["torch"] = None
from transientnet import classify
print(classify({str(tmp_path / "new.npy")!r}, model={str(adapted.model)!r}).labels.tolist())
"""
    assert in_new_process(code) == "['real', 'bogus']"


def test_report_and_card_show_what_the_run_found(adapted: AdaptResult) -> None:
    page = (adapted.folder / "report.html").read_text(encoding="utf-8")
    for words in (
        "Transfer against scratch",
        "Doubted labels",
        "Learning curves",
        "base2@1.0.0",
        "Recall against signal-to-noise in the difference stamp",
        "Confusion",
        "Reliability",
        "Mistakes",
        adapted.metrics["outcome"],
        str(adapted.figures.learning_rise),
    ):
        assert words in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    card = (adapted.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "my-survey@1.0.0" in card
    assert "12 stamps" in card


def test_figures_come_from_rows_left_out(adapted: AdaptResult) -> None:
    metrics = json.loads((adapted.folder / "metrics.json").read_text())
    cv = metrics["cross_validation"]
    assert cv["new"]["n"] == cv["base"]["n"] == 24
    assert cv["new"]["n_groups"] == 12
    assert metrics["labels"]["counts"] == {"bogus": 12, "real": 12}
    chosen = metrics["training"]["candidates"].index(metrics["training"]["chosen"])
    losses = metrics["training"]["left_out_loss"]
    untuned = metrics["training"]["candidates"].index("probe") + 1
    assert chosen in (int(np.argmin(losses)), int(np.argmin(losses[:untuned])))
    assert [point["labels"] for point in metrics["learning_curve"]][-1] == 16
    assert not metrics["interrupted"]
    assert {key: metrics[key] for key in adapted.metrics} == json.loads(dump_json(adapted.metrics))


def test_the_comparison_tests_the_same_splits(adapted: AdaptResult) -> None:
    comparison = adapted.metrics["comparison"]
    assert {arm: len(seeds) for arm, seeds in comparison["seeds"].items()} == {
        "transfer": 2, "probe": 2, "scratch": 2
    }  # fmt: skip
    assert {"unpaired", "welch", "paired", "cohen_d"} <= set(comparison["against_scratch"])
    assert "points of balanced accuracy" in comparison["sentence"]


def test_a_seed_decides_the_network_and_the_command_is_the_call(
    survey: Labelled, bases: Bases, adapted: AdaptResult, tmp_path: Path
) -> None:
    from transientnet.cli import app

    typer_testing = pytest.importorskip("typer.testing")
    np.savez(tmp_path / "stamps.npz", triplets=survey.cutouts, id=np.array([f"c{n}" for n in range(24)]))
    with open(tmp_path / "my.csv", "w", newline="") as stream:
        stream.write("# labels of the first night\n")
        writer = csv.writer(stream)
        writer.writerow(["id", "verdict", "field"])
        writer.writerows((f"c{n}", survey.labels[n], survey.groups[n]) for n in range(24))
    how = "--folds 2 --steps 8 --threads 1 --device cpu --label-column verdict --group-column field"
    arguments = ["adapt", "--labels", str(tmp_path / "my.csv"), "--cutouts", str(tmp_path / "stamps.npz")]
    arguments += [*how.split(), "--base", bases[2], "-o", str(tmp_path / "two")]
    outcome = typer_testing.CliRunner().invoke(app, arguments)
    assert outcome.exit_code == 0, outcome.output
    assert "left out of training" in outcome.output
    assert adapted.metrics["outcome"] in outcome.output
    assert same_network(adapted.model, tmp_path / "two" / "model.onnx")


def test_dry_run_reports_and_trains_nothing(survey: Labelled, tmp_path: Path) -> None:
    from transientnet.cli import app

    runner = pytest.importorskip("typer.testing").CliRunner()
    np.savez(tmp_path / "stamps.npz", triplets=survey.cutouts[:3], id=np.array(["a", "b", "c"]))
    (tmp_path / "my.csv").write_text("id,label,group\na,bogus,1\nb,bogus,2\nnone,reel,3\n")
    arguments = ["adapt", "--labels", str(tmp_path / "my.csv"), "--cutouts", str(tmp_path / "stamps.npz"),
                 "-o", str(tmp_path / "out"), "--dry-run"]  # fmt: skip
    outcome = runner.invoke(app, arguments)
    assert outcome.exit_code == 1
    assert "unreadable stamps: row 3 (none)" in outcome.output
    assert "'reel' (row 3 (none)) is close to 'real'" in outcome.output
    assert "is close to" not in runner.invoke(app, [*arguments, "--new-classes"]).output
    assert not (tmp_path / "out").exists()


def test_nothing_is_trained_on_bad_input(survey: Labelled, bases: Bases, tmp_path: Path) -> None:
    blank = np.where(np.arange(24)[:, None, None, None] == 3, 0, survey.cutouts)
    with pytest.raises(LabelError, match="unusable stamps"):
        run(survey._replace(cutouts=blank), bases[2], tmp_path / "out")
    misspelt = ["reel", *survey.labels[1:]]
    with pytest.raises(LabelError, match=r"'reel' .*row 1.* is close to 'real'"):
        run(survey._replace(labels=misspelt), bases[2], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_object_per_class_is_too_few(survey: Labelled, bases: Bases, tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="too few labels"):
        run(survey._replace(groups=survey.labels), bases[2], tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [{"method": "magic"}, {"folds": 1}, {"balance": 2.0}, {"compare_scratch": 1}, {"learning_rate": 0.0}],
)
def test_choices_without_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        AdaptConfig(**wrong)


def test_classes_of_the_surveys_own_and_rows_kept_aside(bases: Bases, tmp_path: Path) -> None:
    kinds = [0, 1, 2] * 8
    names = ["noise", "source", "dipole"]
    table = {
        "label": [names[k] for k in kinds],
        "group": list(range(24)),
        "split": ["train"] * 18 + ["test"] * 6,
    }
    result = adapt(
        table,
        cutouts=stamps(kinds),
        base=bases[2],
        output=str(tmp_path / "own"),
        config=replace(QUICK, method="probe"),
    )
    assert result.record.classes == ("dipole", "noise", "source")
    assert "base" not in result.metrics["cross_validation"]
    assert "Against the base model" not in result.metrics["outcome"]
    assert result.metrics["cross_validation"]["new"]["n"] == 18
    assert result.metrics["test"]["new"]["n"] == 6
    guess = classify(stamps([1, 0, 2], seed=9), model=str(result.model)).labels.tolist()
    assert guess == ["source", "noise", "dipole"]


def test_zeros_and_ones_keep_the_base_model_s_classes(survey: Labelled, bases: Bases, tmp_path: Path) -> None:
    truth = [label == "real" for label in survey.labels]
    result = run(survey._replace(labels=truth), bases[2], tmp_path, replace(QUICK, method="probe"))
    assert result.record.classes == ("bogus", "real")
    assert "base" in result.metrics["cross_validation"]
    assert "spelling: read 'False' as 'bogus', 'True' as 'real'" in result.metrics["labels"]["notices"]


# --- the folder --------------------------------------------------------------------------------------


def test_a_folder_of_other_files_is_left_alone(survey: Labelled, bases: Bases, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("of last year")
    (tmp_path / "metrics.json").write_text('{"models": {}}')
    with pytest.raises(
        UsageError, match=r"holds files that adapt did not write \(metrics.json, report.html\)"
    ):
        run(survey, bases[2], tmp_path)
    assert (tmp_path / "report.html").read_text() == "of last year"
    with pytest.raises(UsageError, match="is a file"):
        run(survey, bases[2], tmp_path / "report.html")


def test_an_earlier_output_is_replaced_also_one_of_an_earlier_version(
    survey: Labelled, bases: Bases, adapted: AdaptResult, tmp_path: Path
) -> None:
    # Earlier versions left no lock behind.
    for name in ("metrics.json", "model.onnx"):
        (tmp_path / name).write_bytes((adapted.folder / name).read_bytes())
    (tmp_path / "notes.txt").write_text("mine")
    first = run(survey, bases[2], tmp_path, replace(QUICK, method="probe"))
    second = run(survey, bases[2], tmp_path, replace(QUICK, method="probe", version="1.0.1"))
    assert first.record.version == "1.0.0"
    assert load_model(second.model).record.version == "1.0.1"
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_second_run_into_the_same_folder_is_refused_while_the_first_works(
    survey: Labelled, bases: Bases, tmp_path: Path
) -> None:
    refused: list[str] = []

    def second(stage: str, done: int, total: int) -> None:
        if stage == "measuring" and done == 0:
            with pytest.raises(UsageError, match="another adapt is writing to it") as error:
                run(survey, bases[2], tmp_path)
            refused.append(str(error.value))

    result = run(survey, bases[2], tmp_path, replace(QUICK, method="probe"), progress=second)
    assert len(refused) == 1
    assert str(tmp_path) in refused[0]
    assert len(classify(survey.cutouts[:2], model=str(result.model))) == 2


# --- interruptions -----------------------------------------------------------------------------------


class Killed(Exception):
    pass


def test_ctrl_c_leaves_a_model(survey: Labelled, bases: Bases, tmp_path: Path) -> None:
    def impatient(stage: str, done: int, total: int) -> None:
        if stage == "training" and done == 11:
            raise KeyboardInterrupt

    result = run(survey, bases[2], tmp_path, progress=impatient)
    assert result.interrupted
    assert result.metrics["interrupted"]
    assert "learning_curve" not in result.metrics
    # One fold of two was finished: the figures are about the rows that it left out.
    assert result.metrics["cross_validation"]["new"]["n"] == 12
    assert len(classify(survey.cutouts[:2], model=str(result.model))) == 2


def test_ctrl_c_in_the_middle_of_two_folds_leaves_a_model(
    survey: Labelled, bases: Bases, tmp_path: Path, threads: Any, ctrl_c: None
) -> None:
    def impatient(stage: str, done: int, total: int) -> None:
        if stage == "training" and done == 11:
            # Terminal and launcher may both pass it on.
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    threads(2)
    config = replace(QUICK, steps=100_000, threads=2)
    result = run(survey, bases[2], tmp_path, config, progress=impatient)
    assert result.interrupted
    assert result.metrics["training"]["chosen"] in ("base", "probe")
    assert len(classify(survey.cutouts[:2], model=str(result.model))) == 2


@pytest.mark.parametrize("arm_steps", [3, 40])
def test_ctrl_c_in_the_comparison_leaves_the_model_without_it(
    survey: Labelled, bases: Bases, tmp_path: Path, ctrl_c: None, arm_steps: int
) -> None:
    def impatient(stage: str, done: int, total: int) -> None:
        if stage == "comparing" and done == arm_steps:
            os.kill(os.getpid(), signal.SIGINT)

    config = replace(QUICK, method="probe", compare_scratch=3)
    result = run(survey, bases[2], tmp_path, config, progress=impatient)
    assert result.interrupted
    assert "comparison" not in result.metrics
    assert len(classify(survey.cutouts[:2], model=str(result.model))) == 2


def test_sigkill_loses_one_fold_at_most_and_changes_nothing(
    survey: Labelled, bases: Bases, adapted: AdaptResult, tmp_path: Path
) -> None:
    np.save(tmp_path / "cutouts.npy", survey.cutouts)
    folder = tmp_path / "one"
    code = f"""
import os, signal
import numpy as np
from transientnet import AdaptConfig, adapt
def kill(stage, done, total):
    if stage == "training" and done == 11:
        os.kill(os.getpid(), signal.SIGKILL)
config = AdaptConfig(folds=2, steps=8, threads=1, device="cpu")
adapt({survey.labels!r}, cutouts=np.load({str(tmp_path / "cutouts.npy")!r}), groups={survey.groups!r},
      base={bases[2]!r}, output={str(folder)!r}, config=config, progress=kill)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=300, check=False)
    assert done.returncode == -9, done.stderr
    kept = {path.name: path.stat().st_mtime_ns for path in folder.rglob("*.npz")}
    assert list(kept) == ["fold-0.npz"]
    seen: list[dict[str, int]] = []

    def look(stage: str, done: int, total: int) -> None:
        if stage == "training" and done == 9:
            seen.append({path.name: path.stat().st_mtime_ns for path in folder.rglob("*.npz")})

    # What the model is called, and under which licence, has nothing to do with the training.
    config = replace(QUICK, name="other", licence="CC-BY-4.0", citation="us", version="2.0.0")
    resumed = run(survey, bases[2], folder, config, progress=look)
    assert seen == [kept]
    assert resumed.record.licence == "CC-BY-4.0"
    assert same_network(resumed.model, adapted.model)
    assert not list(folder.rglob("fold-*"))


def test_other_labels_or_another_seed_do_not_go_on_from_a_killed_run(
    survey: Labelled, bases: Bases, tmp_path: Path
) -> None:
    def die(stage: str, done: int, total: int) -> None:
        if stage == "training" and done == 11:
            raise Killed

    flipped = ["bogus" if name == "real" else "real" for name in survey.labels]
    names = set()
    for labels, config in (
        (survey.labels, QUICK),
        (flipped, QUICK),
        (survey.labels, replace(QUICK, seed=1)),
        (survey.labels, replace(QUICK, learning_rate=2e-3)),
    ):
        with pytest.raises(Killed):
            run(survey._replace(labels=labels), bases[2], tmp_path, config, progress=die)
        (checkpoint,) = tmp_path.rglob("fold-0.npz")
        names.add(checkpoint.parent.name)
    assert len(names) == 4


# --- the outcome in words ----------------------------------------------------------------------------

GAINED = {
    "n": 300,
    "accuracy": {"value": 0.05, "low": 0.02, "high": 0.08},
    "auc": {"value": 0.001, "low": -0.01, "high": 0.012},
}


@pytest.mark.parametrize(
    ("candidates", "chosen", "said"),
    [
        (
            ("base", "probe", "8 steps"),
            "base",
            "base network b@1 was kept: neither a new last layer nor fine",
        ),
        (("base", "probe"), "base", "base network b@1 was kept: a new last layer was not better"),
        (
            ("base", "probe", "8 steps"),
            "probe",
            "Only the last layer of b@1 was refitted, on 40 labels; fine-t",
        ),
        (("probe",), "probe", "Only the last layer of b@1 was refitted, on 40 labels. Against"),
        (
            ("base", "probe", "8 steps"),
            "8 steps",
            "All layers of b@1 were fine-tuned on 40 labels: 8 steps did",
        ),
    ],
)
def test_the_outcome_says_what_became_of_the_base(
    candidates: tuple[str, ...], chosen: str, said: str
) -> None:
    from transientnet.models.calibration import Calibration

    choice = Choice(candidates, (0.1,) * len(candidates), chosen)
    judged = Judgement({}, "left out", {}, GAINED)
    text = in_words(choice, judged, Calibration(1.5), Calibration(0.75), "b@1", 40)
    assert said in text
    assert ("temperature 1.50 to 0.75" in text) == (chosen == "base")
    assert "accuracy +5.0 points (+2.0 to +8.0), better" in text
    assert "AUC +0.1 points (-1.0 to +1.2), no difference that these labels can show" in text


def test_a_loss_is_called_one() -> None:
    worse = {**GAINED, "auc": {"value": -0.02, "low": -0.03, "high": -0.01}}
    assert "AUC -2.0 points (-3.0 to -1.0), worse" in versus(worse)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.01, 0.05, "more labels would help"),
        (-0.004, 0.006, "would gain little"),
        (-0.02, 0.06, "too uncertain"),
    ],
)
def test_the_learning_curve_s_caption_follows_its_end(low: float, high: float, said: str) -> None:
    text = str(Rise(100, 200, (low + high) / 2, low, high))
    assert said in text
    assert "From 100 to 200 labels" in text


def test_an_adapted_model_names_kinds_and_flags_what_is_broken(tmp_path: Path) -> None:
    drawn = simulate(120, 3, telescope=ZTF_LIKE)
    triplets = [Triplet(*images, fwhm=2.0) for images in drawn.triplets]
    found = adapt(
        np.where(drawn.real, "real", "bogus").tolist(),
        cutouts=triplets,
        base="realbogus",
        output=str(tmp_path / "m"),
        config=AdaptConfig(method="probe", compare_scratch=False),
    )
    model = load_model(found.model)
    assert model.kinds == load_model("realbogus").kinds

    def flagged(some: list[Triplet]) -> float:
        quality = model.predict(some).quality
        return float(((quality & QualityFlag.OUT_OF_DISTRIBUTION) != 0).mean())

    assert flagged(triplets) <= 0.06
    noise = np.random.default_rng(0).normal(size=(50, 3, 63, 63))
    assert flagged([Triplet(*images, fwhm=2.0) for images in noise]) > 0.8
