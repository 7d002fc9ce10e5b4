"""Adapting a model: what the folder holds, what interruption leaves, what is refused."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import transientnet
from transientnet import AdaptConfig, AdaptResult, classify
from transientnet.errors import LabelError, UsageError
from transientnet.models.record import ModelRecord
from transientnet.prepare.contract import InputContract
from transientnet.transfer.adapt import adapt
from transientnet.transfer.doubts import doubtful

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from transientnet.labels.checks import prepare  # noqa: E402
from transientnet.labels.table import read_labels  # noqa: E402
from transientnet.models.registry.resolve import resolve  # noqa: E402
from transientnet.transfer import crossfit  # noqa: E402
from transientnet.transfer.augment import Augmentation  # noqa: E402
from transientnet.transfer.crossfit import Survey, _calibrated, _choose, cross_fit, make_folds  # noqa: E402
from transientnet.transfer.experiment import sentence, significance  # noqa: E402
from transientnet.transfer.export import export_onnx  # noqa: E402
from transientnet.transfer.network import NetworkConfig, StampNetwork  # noqa: E402
from transientnet.transfer.probe import fit_head, load_base, survey_classes  # noqa: E402
from transientnet.transfer.recipe import class_weights, recipe_for  # noqa: E402

QUICK = AdaptConfig(folds=2, steps=8, threads=1, device="cpu")
NETWORK = NetworkConfig((1, 1, 1, 1), (4, 4, 6, 8), (0, 0, 1), 16)
CLASSES = ("hosted", "variable", "bogus", "real")


def stamps(kinds: list[int], seed: int = 0) -> np.ndarray:
    """Triplets of three kinds: 0 noise only, 1 a new source, 2 a dipole."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:63, :63]

    def spot(dx: float) -> np.ndarray:
        spot: np.ndarray = 200.0 * np.exp(-((y - 31) ** 2 + (x - 31 - dx) ** 2) / 5)
        return spot

    frames = {0: (0 * spot(0), 0 * spot(0)), 1: (spot(0), 0 * spot(0)), 2: (spot(1.5), spot(-1.5))}
    out = [
        np.stack([frames[k][0], frames[k][1], frames[k][0] - frames[k][1]]) + rng.normal(0, 8, (3, 63, 63))
        for k in kinds
    ]
    return np.stack(out).astype(np.float32)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """Small networks to start from, of two and of four classes."""
    paths = {}
    for count in (2, 4):
        torch.manual_seed(count)
        path = tmp_path_factory.mktemp("base") / f"base{count}.onnx"
        record = ModelRecord(
            f"base{count}", "1.0.0", CLASSES[-count:], InputContract(), network=NETWORK.to_dict()
        )
        network = StampNetwork({"own": count}, NETWORK).eval()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape))
        export_onnx(network, "own", record, path)
        paths[count] = str(path)
    return paths


@pytest.fixture(scope="module")
def survey() -> tuple[list[str], np.ndarray, list[str]]:
    """24 labels of a survey: real, bogus; two stamps per object."""
    kinds = [0, 0, 1, 1] * 6
    return ["real" if k else "bogus" for k in kinds], stamps(kinds), [f"o{n // 2}" for n in range(24)]


@pytest.fixture(scope="module")
def adapted(survey: Any, bases: Any, tmp_path_factory: pytest.TempPathFactory) -> AdaptResult:
    labels, cutouts, groups = survey
    folder = tmp_path_factory.mktemp("adapted") / "My Survey"
    config = AdaptConfig(folds=2, steps=8, threads=1, device="cpu", label_noise=True, compare_scratch=2)
    return adapt(labels, cutouts=cutouts, groups=groups, base=bases[2], output=str(folder), config=config)


def in_new_process(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False
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


def test_the_folder_is_a_model_that_scores_at_once_without_torch(adapted: AdaptResult) -> None:
    assert {"model.onnx", "weights_manifest.json", "metrics.json"} <= {
        p.name for p in adapted.folder.iterdir()
    }
    assert adapted.record.id == "my-survey@1.0.0"
    assert adapted.record.parent == "base2@1.0.0"
    np.save(adapted.folder.parent / "new.npy", stamps([1, 0], seed=5))
    code = f"""
import sys
sys.modules["torch"] = None
from transientnet import classify
print(classify({str(adapted.folder.parent / "new.npy")!r}, model={str(adapted.model)!r}).labels.tolist())
"""
    assert in_new_process(code) == "['real', 'bogus']"


def test_report_and_card_tell_what_the_run_found(adapted: AdaptResult) -> None:
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


def test_the_comparison_tests_the_same_splits(adapted: AdaptResult) -> None:
    comparison = adapted.metrics["comparison"]
    assert {arm: len(seeds) for arm, seeds in comparison["seeds"].items()} == {
        "transfer": 2, "probe": 2, "scratch": 2
    }  # fmt: skip
    assert {"unpaired", "welch", "paired", "cohen_d"} <= set(comparison["against_scratch"])
    assert "points of balanced accuracy" in comparison["sentence"]


@pytest.mark.parametrize(
    ("transfer", "scratch", "said"),
    [
        ([0.9, 0.91, 0.92], [0.8, 0.81, 0.82], "transfer is better than training from scratch by 10.0"),
        ([0.8, 0.81, 0.82], [0.9, 0.91, 0.92], "no gain: training from scratch is better by 10.0"),
        ([0.8, 0.9, 0.85], [0.81, 0.9, 0.83], "no gain that these labels can show"),
    ],
)
def test_the_answer_in_words(transfer: list[float], scratch: list[float], said: str) -> None:
    tests = significance(transfer, scratch)
    assert sentence(tests, 3, 40).startswith(said)
    assert "rests on" not in sentence(tests, 3, 40)
    assert ("rests on 2 test stamps" in sentence(tests, 3, 2)) == ("better" in said)


def test_a_seed_decides_the_model_and_the_command_is_the_call(
    survey: Any, bases: Any, tmp_path: Path
) -> None:
    from transientnet.cli import app

    typer_testing = pytest.importorskip("typer.testing")
    labels, cutouts, groups = survey
    np.savez(tmp_path / "stamps.npz", triplets=cutouts, id=np.array([f"c{n}" for n in range(24)]))
    with open(tmp_path / "my.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "label", "group"])
        writer.writerows((f"c{n}", labels[n], groups[n]) for n in range(24))
    table, cut = str(tmp_path / "my.csv"), str(tmp_path / "stamps.npz")
    config = AdaptConfig(folds=2, steps=8, threads=1, device="cpu", name="m")
    called = adapt(table, cutouts=cut, base=bases[2], output=str(tmp_path / "one"), config=config)
    how = "--folds 2 --steps 8 --threads 1 --device cpu --name m"
    arguments = [*how.split(), "--base", bases[2], "-o", str(tmp_path / "two")]
    outcome = typer_testing.CliRunner().invoke(
        app, ["adapt", "--labels", table, "--cutouts", cut, *arguments]
    )
    assert outcome.exit_code == 0, outcome.output
    assert "left out of training" in outcome.output
    assert called.model.read_bytes() == (tmp_path / "two" / "model.onnx").read_bytes()


def test_dry_run_reports_and_trains_nothing(survey: Any, tmp_path: Path) -> None:
    from transientnet.cli import app

    runner = pytest.importorskip("typer.testing").CliRunner()
    np.savez(tmp_path / "stamps.npz", triplets=survey[1][:3], id=np.array(["a", "b", "c"]))
    (tmp_path / "my.csv").write_text("id,label,group\na,bogus,1\nb,bogus,2\nnone,real,3\n")
    arguments = ["adapt", "--labels", str(tmp_path / "my.csv"), "--cutouts", str(tmp_path / "stamps.npz"),
                 "-o", str(tmp_path / "out"), "--dry-run"]  # fmt: skip
    outcome = runner.invoke(app, arguments)
    assert outcome.exit_code == 1
    assert "row 3 (none)" in outcome.output
    assert not (tmp_path / "out").exists()


def test_nothing_is_trained_on_bad_input(survey: Any, bases: Any, tmp_path: Path) -> None:
    labels, cutouts, groups = survey
    with pytest.raises(LabelError, match="unusable stamps"):
        adapt(labels, cutouts=np.where(np.arange(24)[:, None, None, None] == 3, 0, cutouts), groups=groups,
              base=bases[2], output=str(tmp_path / "out"), config=QUICK)  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_one_object_per_class_is_too_few(survey: Any, bases: Any, tmp_path: Path) -> None:
    labels, cutouts, _ = survey
    with pytest.raises(LabelError, match="too few labels"):
        adapt(labels, cutouts=cutouts, groups=labels, base=bases[2], output=str(tmp_path), config=QUICK)


@pytest.mark.parametrize(
    "wrong",
    [{"method": "magic"}, {"folds": 1}, {"balance": 2.0}, {"compare_scratch": 1}, {"learning_rate": 0.0}],
)
def test_choices_without_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        AdaptConfig(**wrong)


def test_classes_of_the_surveys_own_and_rows_kept_aside(bases: Any, tmp_path: Path) -> None:
    kinds = [0, 1, 2] * 8
    names = ["noise", "source", "dipole"]
    table = {
        "label": [names[k] for k in kinds],
        "group": list(range(24)),
        "split": ["train"] * 18 + ["test"] * 6,
    }
    config = AdaptConfig(folds=2, steps=8, threads=1, device="cpu", method="probe")
    result = adapt(table, cutouts=stamps(kinds), base=bases[2], output=str(tmp_path / "own"), config=config)
    assert result.record.classes == ("dipole", "noise", "source")
    assert "base" not in result.metrics["cross_validation"]
    assert result.metrics["cross_validation"]["new"]["n"] == 18
    assert result.metrics["test"]["new"]["n"] == 6
    guess = classify(stamps([1, 0, 2], seed=9), model=str(result.model)).labels.tolist()
    assert guess == ["source", "noise", "dipole"]


def test_zeros_and_ones_keep_the_base_model_s_classes(survey: Any, bases: Any, tmp_path: Path) -> None:
    labels, cutouts, groups = survey
    result = adapt(
        [label == "real" for label in labels], cutouts=cutouts, groups=groups, base=bases[2],
        output=str(tmp_path), config=replace(QUICK, method="probe"),
    )  # fmt: skip
    assert result.record.classes == ("bogus", "real")
    assert "base" in result.metrics["cross_validation"]
    assert "spelling: taken: 'False' as 'bogus', 'True' as 'real'" in result.metrics["labels"]["notices"]


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_ctrl_c_leaves_a_model(survey: Any, bases: Any, tmp_path: Path) -> None:
    labels, cutouts, groups = survey

    def impatient(stage: str, done: int, total: int) -> None:
        if stage == "training" and done == 11:
            raise KeyboardInterrupt

    result = adapt(
        labels,
        cutouts=cutouts,
        groups=groups,
        base=bases[2],
        output=str(tmp_path),
        config=QUICK,
        progress=impatient,
    )
    assert result.interrupted
    assert result.metrics["interrupted"]
    # One fold of two was finished: the figures are about the rows that it left out.
    assert result.metrics["cross_validation"]["new"]["n"] == 12
    assert len(classify(cutouts[:2], model=str(result.model))) == 2


def test_ctrl_c_in_the_middle_of_two_folds_leaves_a_model(
    survey: Any, bases: Any, tmp_path: Path, threads: Callable[[int], None]
) -> None:
    labels, cutouts, groups = survey

    def impatient(stage: str, done: int, total: int) -> None:
        if stage == "training" and done == 11:
            # Terminal and launcher may both pass it on.
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    threads(2)
    config = replace(QUICK, steps=100_000, threads=2)
    result = adapt(
        labels, cutouts=cutouts, groups=groups, base=bases[2], output=str(tmp_path), config=config,
        progress=impatient,
    )  # fmt: skip
    assert result.interrupted
    assert result.metrics["training"]["chosen"] in ("base", "probe")
    assert len(classify(cutouts[:2], model=str(result.model))) == 2


@pytest.mark.parametrize("arm_steps", [3, 40])
def test_ctrl_c_in_the_comparison_leaves_the_model_without_it(
    survey: Any, bases: Any, tmp_path: Path, arm_steps: int
) -> None:
    labels, cutouts, groups = survey

    def impatient(stage: str, done: int, total: int) -> None:
        if stage == "comparing" and done == arm_steps:
            os.kill(os.getpid(), signal.SIGINT)

    result = adapt(
        labels, cutouts=cutouts, groups=groups, base=bases[2], output=str(tmp_path),
        config=replace(QUICK, compare_scratch=3), progress=impatient,
    )  # fmt: skip
    assert result.interrupted
    assert "comparison" not in result.metrics
    assert len(classify(cutouts[:2], model=str(result.model))) == 2


def test_sigkill_loses_one_fold_at_most_and_changes_nothing(survey: Any, bases: Any, tmp_path: Path) -> None:
    labels, cutouts, groups = survey
    np.save(tmp_path / "cutouts.npy", cutouts)
    code = f"""
import os, signal
import numpy as np
from transientnet import AdaptConfig, adapt
def tell(stage, done, total):
    if stage == "training" and done == 11:
        os.kill(os.getpid(), signal.SIGKILL)
config = AdaptConfig(folds=2, steps=8, threads=1, device="cpu", name="m")
adapt({labels!r}, cutouts=np.load({str(tmp_path / "cutouts.npy")!r}), groups={groups!r}, base={bases[2]!r},
      output={str(tmp_path / "one")!r}, config=config, progress=tell)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=100, check=False)
    assert done.returncode == -9, done.stderr
    assert [path.name for path in (tmp_path / "one").rglob("*.npz")] == ["fold-0.npz"]
    config = AdaptConfig(folds=2, steps=8, threads=1, device="cpu", name="m")
    how: dict[str, Any] = {"cutouts": cutouts, "groups": groups, "base": bases[2], "config": config}
    resumed = adapt(labels, output=str(tmp_path / "one"), **how)
    whole = adapt(labels, output=str(tmp_path / "two"), **how)
    assert resumed.model.read_bytes() == whole.model.read_bytes()
    assert not list((tmp_path / "one").rglob("fold-*"))


# --- the parts ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def parts(survey: Any, bases: Any) -> tuple[Any, Survey]:
    labels, cutouts, groups = survey
    path, record = resolve(bases[2])
    classes = survey_classes(labels, record)
    table = read_labels(labels, cutouts=cutouts, groups=groups)
    y = np.array([classes.index(name) for name in labels])
    ready = Survey(
        torch.from_numpy(prepare(table.triplets, record.contract).tensor),
        torch.from_numpy(y),
        torch.ones(len(y)),
        table.groups,
    )
    return load_base(path, record, classes), ready


class Killed(Exception):
    pass


def test_folds_side_by_side_end_as_one_after_another(parts: Any, threads: Callable[[int], None]) -> None:
    start, survey = parts
    folds = make_folds(survey.y.numpy(), survey.groups, 3, 0)
    recipe = recipe_for(len(survey), AdaptConfig(steps=5), InputContract())
    fits, counts = [], []
    for count in (1, 3):
        threads(count)
        seen: list[int] = []
        fits.append(
            cross_fit(start, survey, folds, recipe, 0, ready=True, on_step=lambda s=seen: s.append(0))
        )
        counts.append(len(seen))
        assert torch.get_num_threads() == count
    assert counts == [15, 15]
    np.testing.assert_array_equal(fits[0].logits, fits[1].logits)
    assert all(torch.equal(fits[0].weights[name], fits[1].weights[name]) for name in fits[0].weights)


def test_an_error_in_one_fold_ends_the_others(parts: Any, threads: Callable[[int], None]) -> None:
    start, survey = parts
    folds = make_folds(survey.y.numpy(), survey.groups, 3, 0)
    recipe = recipe_for(len(survey), AdaptConfig(steps=100_000), InputContract())
    steps = 0

    def dies() -> None:
        nonlocal steps
        steps += 1
        if steps == 12:
            raise Killed

    threads(2)
    with pytest.raises(Killed):
        cross_fit(start, survey, folds, recipe, 0, ready=True, on_step=dies)


def test_a_killed_run_goes_on_and_ends_the_same(
    parts: Any, tmp_path: Path, threads: Callable[[int], None]
) -> None:
    start, survey = parts
    threads(1)
    folds = make_folds(survey.y.numpy(), survey.groups, 3, 0)
    recipe = recipe_for(len(survey), AdaptConfig(steps=5), InputContract())
    whole = cross_fit(start, survey, folds, recipe, 0, ready=True)
    steps = 0

    def dies() -> None:
        nonlocal steps
        steps += 1
        if steps == 12:
            raise Killed

    with pytest.raises(Killed):
        cross_fit(start, survey, folds, recipe, 0, ready=True, checkpoints=tmp_path, on_step=dies)
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert sorted(kept) == ["fold-0.npz", "fold-1.npz"]
    resumed = cross_fit(start, survey, folds, recipe, 0, ready=True, checkpoints=tmp_path)
    assert all((tmp_path / name).stat().st_mtime_ns == when for name, when in kept.items())
    np.testing.assert_array_equal(resumed.logits, whole.logits)
    assert all(torch.equal(resumed.weights[name], whole.weights[name]) for name in whole.weights)


def test_checkpoints_of_another_run_are_not_taken(tmp_path: Path) -> None:
    first = crossfit.open_checkpoints(tmp_path, crossfit.fingerprint("a", np.zeros(3)))
    (first / "fold-0.npz").write_bytes(b"")
    other = crossfit.open_checkpoints(tmp_path, crossfit.fingerprint("a", np.ones(3)))
    assert other != first
    assert [path.name for path in tmp_path.iterdir()] == [other.name]


def test_the_base_models_head_is_kept_where_it_fits(bases: Any) -> None:
    path, record = resolve(bases[4])
    classes = survey_classes(["bogus", "variable"], record)
    assert classes == ("variable", "bogus")
    network = load_base(path, record, classes)
    x = 3 * torch.randn(4, 3, 63, 63, generator=torch.Generator().manual_seed(0))
    expected = transientnet.load_model(bases[4]).run(x.numpy())[0][:, [1, 2]]
    np.testing.assert_allclose(crossfit.logits_of(network, x).numpy(), expected, atol=1e-4)


def test_folds_never_cut_through_an_object() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 40, 200)
    y = groups % 3
    folds = make_folds(y, groups, 5, 0)
    assert sorted(np.concatenate([fold.test for fold in folds]).tolist()) == list(range(200))
    for fold in folds:
        assert not set(groups[fold.train]) & set(groups[fold.test])


def test_a_strong_pull_keeps_the_head_and_a_weak_one_fits() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(60, 4, generator=generator)
    y = (features[:, 0] > 0).long()
    for strength, right in ((1e6, False), (1e-3, True)):
        head = torch.nn.Linear(4, 2)
        with torch.no_grad():
            head.weight.zero_()
            head.bias.zero_()
        fit_head(head, features, y, torch.ones(60), strength)
        assert bool(head.weight.abs().max() < 1e-3) is not right
        assert bool((head(features).argmax(1) == y).float().mean() > 0.95) is right


def test_class_weights_even_out_rare_classes() -> None:
    y = np.array([0] * 9 + [1])
    even = class_weights(y, np.ones(10), 1.0)
    assert even[:9].sum() == pytest.approx(even[9])
    np.testing.assert_allclose(class_weights(y, np.ones(10), 0.0), 1.0)
    assert class_weights(y, np.array([0.0] + [1.0] * 9), 0.5)[0] == 0


def test_variation_moves_dims_and_repeats() -> None:
    x = torch.from_numpy(np.arcsinh(stamps([1] * 8)[:, :, :, :] / 16)).float()
    still = Augmentation(shift=0, blur=0, noise=0, drop=0)
    np.testing.assert_allclose(still(x, torch.Generator().manual_seed(1)), x, atol=1e-5)
    everything = Augmentation(drop=0.5)
    one, two = (everything(x, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, two)
    assert bool(torch.isfinite(one).all())
    gone = everything(x.repeat(20, 1, 1, 1), torch.Generator().manual_seed(4)).abs().amax((2, 3)) == 0
    assert not bool(gone[:, 0].any())
    assert 0.1 < gone[:, 1].float().mean() < 0.4
    moved = Augmentation(shift=2, blur=0, noise=0)(x, torch.Generator().manual_seed(5))
    peaks = moved[:, 0].flatten(1).argmax(1)
    assert len(set(peaks.tolist())) > 1
    assert bool(((peaks // 63 - 31).abs() <= 3).all() and ((peaks % 63 - 31).abs() <= 3).all())


def test_planted_label_errors_are_doubted() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 300)
    logits = 4.0 * np.eye(3)[truth] + rng.normal(0, 1, (300, 3))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = truth.copy()
    wrong = rng.choice(300, 12, replace=False)
    labels[wrong] = (labels[wrong] + 1) % 3
    doubts = doubtful(p, labels, ["a", "b", "c"])
    found = [doubt["row"] for doubt in doubts]
    assert len(set(wrong) & set(found)) >= 10
    assert len(found) <= 20
    assert doubts[0]["p_likelier"] > doubts[0]["p_label"]
    assert doubtful(p, truth, ["a", "b", "c"]) == [] or len(doubtful(p, truth, ["a", "b", "c"])) < 10


@pytest.mark.parametrize(("gain", "wins"), [(0.0, False), (0.02, False), (3.0, True)])
def test_fine_tuning_is_chosen_only_where_it_is_surely_better(gain: float, wins: bool) -> None:
    rng = np.random.default_rng(1)
    count = 60
    y = torch.arange(count) % 2
    margin = rng.normal(1.0, 1.0, count) * np.where(y.numpy(), 1, -1)
    noisy = margin + rng.normal(0, 0.5, count)
    # Fine-tuning helps all by `gain`, and each one by chance.
    tuned = margin + gain * np.where(y.numpy(), 1, -1) + rng.normal(0, 0.5, count)
    joined = [np.stack([-m, m], axis=1).astype(np.float32) / 2 for m in (noisy, tuned)]
    survey = Survey(torch.zeros(count, 1), y, torch.ones(count), np.arange(count))
    rows = np.arange(count)
    calibrations = [_calibrated(logits, survey, rows) for logits in joined]
    assert (_choose(joined, calibrations, survey, rows, untuned=1) == 1) is wins
