"""Cross-validation, the head, the arms of the comparison, and doubts about labels."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_survey import Labelled, stamps

from transientnet import AdaptConfig, InputContract, load_model
from transientnet.errors import LabelError
from transientnet.labels.checks import prepare
from transientnet.labels.table import read_labels
from transientnet.models.registry.resolve import resolve
from transientnet.transfer.doubts import doubtful

torch = pytest.importorskip("torch")

from transientnet.transfer.augment import Augmentation  # noqa: E402
from transientnet.transfer.checkpoints import Checkpoints, fingerprint  # noqa: E402
from transientnet.transfer.crossfit import choose, cross_fit, make_folds  # noqa: E402
from transientnet.transfer.experiment import learning_curve, sentence, significance  # noqa: E402
from transientnet.transfer.network import StampNetwork  # noqa: E402
from transientnet.transfer.probe import fit_head, load_base, survey_classes  # noqa: E402
from transientnet.transfer.training import Survey, class_weights, logits_of, recipe_for  # noqa: E402

Parts = tuple[StampNetwork, Survey]


@pytest.fixture(scope="module")
def parts(survey: Labelled, bases: dict[int, str]) -> Parts:
    path, record = resolve(bases[2])
    classes = survey_classes(survey.labels, record)
    table = read_labels(survey.labels, cutouts=survey.cutouts, groups=survey.groups)
    y = np.array([classes.index(name) for name in survey.labels])
    ready = Survey(
        torch.from_numpy(prepare(table.triplets, record.contract).tensor),
        torch.from_numpy(y),
        torch.ones(len(y)),
        table.groups,
    )
    return load_base(path, record, classes), ready


def recipe(steps: int, labels: int = 24) -> Any:
    return recipe_for(labels, AdaptConfig(steps=steps), InputContract())


def folds_of(survey: Survey) -> Any:
    return make_folds(survey.y.numpy(), survey.groups, 3, 0)


class Killed(Exception):
    pass


def dies_at(step: int) -> Callable[[], None]:
    steps = 0

    def on_step() -> None:
        nonlocal steps
        steps += 1
        if steps == step:
            raise Killed

    return on_step


def test_folds_side_by_side_end_as_one_after_another(parts: Parts, threads: Callable[[int], None]) -> None:
    start, survey = parts
    fits, counts = [], []
    for count in (1, 3):
        threads(count)
        seen: list[int] = []
        fits.append(
            cross_fit(
                start, survey, folds_of(survey), recipe(5), 0, ready=True, on_step=lambda s=seen: s.append(0)
            )
        )
        counts.append(len(seen))
        assert torch.get_num_threads() == count
    assert counts == [15, 15]
    np.testing.assert_array_equal(fits[0].logits, fits[1].logits)
    assert all(torch.equal(fits[0].weights[name], fits[1].weights[name]) for name in fits[0].weights)


def test_an_error_in_one_fold_ends_the_others(parts: Parts, threads: Callable[[int], None]) -> None:
    start, survey = parts
    threads(2)
    with pytest.raises(Killed):
        cross_fit(start, survey, folds_of(survey), recipe(100_000), 0, ready=True, on_step=dies_at(12))


@pytest.fixture
def alarm() -> Iterator[int]:
    """A signal that raises `Killed` in the main thread."""

    def handler(*_: object) -> None:
        raise Killed

    usual = signal.signal(signal.SIGTERM, handler)
    yield signal.SIGTERM
    signal.signal(signal.SIGTERM, usual)


def test_an_error_in_the_main_thread_ends_the_folds(
    parts: Parts, threads: Callable[[int], None], alarm: int
) -> None:
    start, survey = parts
    threads(2)
    steps, total = 0, 3 * 2000

    def on_step() -> None:
        nonlocal steps
        steps += 1
        if steps == 12:
            os.kill(os.getpid(), alarm)

    with pytest.raises(Killed):
        cross_fit(start, survey, folds_of(survey), recipe(2000), 0, ready=True, on_step=on_step)
    assert 12 <= steps < total
    ended = steps
    cross_fit(start, survey, folds_of(survey), recipe(1), 0, ready=True)
    assert steps == ended


def test_a_killed_run_goes_on_and_ends_the_same(
    parts: Parts, tmp_path: Path, threads: Callable[[int], None]
) -> None:
    start, survey = parts
    threads(1)
    folds, plan = folds_of(survey), recipe(5)
    whole = cross_fit(start, survey, folds, plan, 0, ready=True)
    checkpoints = Checkpoints(tmp_path, "run")
    with pytest.raises(Killed):
        cross_fit(start, survey, folds, plan, 0, ready=True, checkpoints=checkpoints, on_step=dies_at(12))
    kept = {path.name: path.stat().st_mtime_ns for path in checkpoints.folder.iterdir()}
    assert sorted(kept) == ["fold-0.npz", "fold-1.npz"]
    # A file that the disk or a person damaged is trained anew.
    (checkpoints.folder / "fold-1.npz").write_bytes(b"PK damaged")
    resumed = cross_fit(start, survey, folds, plan, 0, ready=True, checkpoints=checkpoints)
    assert (checkpoints.folder / "fold-0.npz").stat().st_mtime_ns == kept["fold-0.npz"]
    np.testing.assert_array_equal(resumed.logits, whole.logits)
    assert all(torch.equal(resumed.weights[name], whole.weights[name]) for name in whole.weights)


def test_checkpoints_of_another_run_are_not_taken(tmp_path: Path) -> None:
    first = Checkpoints(tmp_path, fingerprint("a", np.zeros(3)))
    first.write(0, [{"weight": torch.ones(2)}])
    assert torch.equal(first.read(0)[0]["weight"], torch.ones(2))
    other = Checkpoints(tmp_path, fingerprint("a", np.ones(3)))
    assert other.read(0) is None
    assert [path.name for path in tmp_path.iterdir()] == [other.folder.name]
    other.clear()
    assert not tmp_path.exists()


def test_the_base_models_head_is_kept_where_it_fits(bases: dict[int, str]) -> None:
    path, record = resolve(bases[4])
    classes = survey_classes(["bogus", "variable"], record)
    assert classes == ("variable", "bogus")
    network = load_base(path, record, classes)
    x = 3 * torch.randn(4, 3, 63, 63, generator=torch.Generator().manual_seed(0))
    expected = load_model(bases[4]).run(x.numpy())[0][:, [1, 2]]
    np.testing.assert_allclose(logits_of(network, x).numpy(), expected, atol=1e-4)


def test_folds_that_cannot_be_made_are_refused() -> None:
    y = np.array([0, 0, 0, 1, 1, 1])
    for groups in (np.arange(6) // 3, np.zeros(6)):
        with pytest.raises(LabelError, match="cannot be split"):
            make_folds(y, groups, 5, 0)
    with pytest.raises(LabelError):
        make_folds(np.zeros(6), np.arange(6), 5, 0)


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
    x = torch.from_numpy(np.arcsinh(stamps([1] * 8) / 16)).float()
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
    found = [doubt.row for doubt in doubts]
    assert len(set(wrong) & set(found)) >= 10
    assert len(found) <= 20
    assert doubts[0].p_likelier > doubts[0].p_label
    assert len(doubtful(p, truth, ["a", "b", "c"])) < 10


@pytest.mark.parametrize(("gain", "wins"), [(0.0, False), (0.02, False), (3.0, True)])
def test_fine_tuning_is_chosen_only_where_it_is_surely_better(gain: float, wins: bool) -> None:
    rng = np.random.default_rng(1)
    count = 60
    y = np.arange(count) % 2
    margin = rng.normal(1.0, 1.0, count) * np.where(y, 1, -1)
    noisy = margin + rng.normal(0, 0.5, count)
    # Fine-tuning helps all by `gain`, and each one by chance.
    tuned = margin + gain * np.where(y, 1, -1) + rng.normal(0, 0.5, count)
    joined = [np.stack([-m, m], axis=1).astype(np.float32) / 2 for m in (noisy, tuned)]
    chosen, losses = choose(joined, y, np.ones(count), np.arange(count), untuned=1)
    assert (chosen == 1) is wins
    assert len(losses) == 2


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


def test_the_learning_curve_rises_where_labels_help_and_not_where_half_do(parts: Parts) -> None:
    start, _ = parts
    rng = np.random.default_rng(0)
    y = torch.arange(200) % 2
    easy = torch.from_numpy(stamps(y.tolist())[:, :, :, :] / 16).float().arcsinh()
    noise = torch.from_numpy(rng.normal(size=easy.shape)).float()
    for x, learnt in ((easy, True), (noise, False)):
        points, rise = learning_curve(start, Survey(x, y, torch.ones(200), np.arange(200)), 0)
        assert [point.labels for point in points] == sorted({point.labels for point in points})
        assert (points[-1].balanced_accuracy > 0.9) is learnt
        assert rise is not None
        assert rise.low <= 0 <= rise.high
        assert (rise.labels_from, rise.labels_to) == (points[2].labels, points[-1].labels)
