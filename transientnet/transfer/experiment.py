"""What the labels are worth: transfer against training from scratch, and what more labels would bring."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from torch import nn

from ..evaluation.calibration import fit_calibration
from ..evaluation.metrics import balanced_accuracy, confusion_matrix, roc_auc
from ..evaluation.splits import draw_objects
from ..evaluation.statistics import cohen_d, t_test
from ..evaluation.summary import compare
from ..models.calibration import Calibration
from ..prepare.contract import InputContract
from .config import AdaptConfig
from .crossfit import cross_fit, make_folds
from .network import StampNetwork
from .outcome import Comparison, CurvePoint, Rise
from .probe import features_of, fit_head
from .training import (
    HEAD,
    SCRATCH_LENGTH,
    Survey,
    logits_of,
    recipe_for,
    set_weights,
    train_from_scratch,
)

__all__ = ["ARMS", "compare_with_scratch", "learning_curve", "sentence", "significance", "train_arm"]

ARMS = ("transfer", "probe", "scratch")

# Folds of a transfer within the comparison, and the share of the other objects that a seed trains on.
_FOLDS = 3
_SHARE = 0.8
_TEST_FOLDS = 3
_SIGNIFICANT = 0.05
# Test stamps of a class below which the answer hangs on single ones.
_FEW = 10

# Of the learning curve: the trend is that between the second of these shares and the last.
_SHARES = (0.125, 0.25, 0.5, 0.75, 1.0)
_HALF = _SHARES.index(0.5)
_REPEATS = 4
_STRENGTH = 0.01


def train_arm(
    arm: str,
    start: StampNetwork,
    survey: Survey,
    config: AdaptConfig,
    contract: InputContract,
    seed: int,
    *,
    ready: bool,
    folds: int = _FOLDS,
    on_step: Callable[[], None] = lambda: None,
) -> tuple[StampNetwork, Calibration]:
    """Train one candidate model on the same labels as the others.

    Parameters
    ----------
    arm : {"transfer", "probe", "scratch"}
    start : StampNetwork
        The base network with the survey's head; not changed.
    survey : Survey
        Labels to learn from.
    config : AdaptConfig
    contract : InputContract
    seed : int
    ready : bool
        Whether the head of `start` already knows the classes.
    folds : int
        Of the cross-validation.
    on_step : callable
        Called after every step.

    Returns
    -------
    StampNetwork
    Calibration
        Without effect for scratch, which leaves out no rows to fit one.

    Raises
    ------
    KeyboardInterrupt
        On Ctrl-C: a model that was stopped early is not compared.
    """
    recipe = recipe_for(len(survey), config, contract)
    device = next(start.parameters()).device
    if arm == "scratch":
        classes = int(survey.y.max()) + 1
        network = train_from_scratch(start.config, classes, survey, recipe, seed, device, on_step)
        return network, Calibration()
    parts = make_folds(survey.y.numpy(), survey.groups, folds, seed)
    fit = cross_fit(
        start, survey, parts, recipe if arm == "transfer" else None, seed, ready=ready, on_step=on_step
    )
    if fit.interrupted:
        raise KeyboardInterrupt
    network = copy.deepcopy(start)
    set_weights(network, fit.weights)
    rows = fit.rows
    truth, groups = survey.y[rows].numpy(), survey.groups[rows]
    return network, fit_calibration(fit.logits, truth, groups=groups, resamples=0)


def compare_with_scratch(
    start: StampNetwork,
    survey: Survey,
    config: AdaptConfig,
    contract: InputContract,
    *,
    ready: bool,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """Train `config.compare_scratch` seeds of each arm and test the differences.

    A third of the sky objects is set aside as the test set that all share; each seed draws four
    fifths of the others, and all arms train on them.

    Parameters
    ----------
    start, survey, config, contract, ready
        As for `train_arm`.
    on_step : callable
        Called as ``on_step(done, total)``.

    Returns
    -------
    Comparison
    """
    y = survey.y.numpy()
    outer = make_folds(y, survey.groups, _TEST_FOLDS, config.seed)[0]
    truth = y[outer.test]
    count = config.compare_scratch
    steps = recipe_for(round(_SHARE * len(outer.train)), config, contract).steps
    total = round(count * steps * (_FOLDS + SCRATCH_LENGTH))
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        on_step(min(done, total), total)

    scores: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    mean = {arm: np.zeros((len(truth), int(y.max()) + 1)) for arm in ARMS}
    for seed in range(count):
        rng = np.random.default_rng((seed, 1))
        drawn = survey.take(draw_objects(y, survey.groups, outer.train, _SHARE, rng, least=2))
        for arm in ARMS:
            network, calibration = train_arm(
                arm, start, drawn, config, contract, config.seed + seed, ready=ready, on_step=step
            )
            probabilities = calibration.apply(logits_of(network, survey.x[outer.test]).numpy())
            scores[arm].append(_score(probabilities, truth))
            mean[arm] += probabilities / count
    against = {
        other: significance(*([s["balanced_accuracy"] for s in scores[arm]] for arm in ("transfer", other)))
        for other in ("scratch", "probe")
    }
    return Comparison(
        seeds=scores,
        n_train=round(_SHARE * len(outer.train)),
        n_test=len(truth),
        against_scratch=against["scratch"],
        against_probe=against["probe"],
        common_test=compare(mean["transfer"], mean["scratch"], truth, groups=survey.groups[outer.test]),
        sentence=sentence(against["scratch"], count, int(np.bincount(truth).min())),
    )


def _score(probabilities: npt.NDArray[Any], truth: npt.NDArray[Any]) -> dict[str, float]:
    """Balanced accuracy and (mean one-against-rest) AUC."""
    k = probabilities.shape[1]
    matrix = confusion_matrix(truth, probabilities.argmax(axis=1), k)
    positives = [1] if k == 2 else range(k)
    aucs = [roc_auc(probabilities[:, c], truth == c) for c in positives]
    return {"balanced_accuracy": balanced_accuracy(matrix), "auc": float(np.mean(aucs))}


def significance(first: Sequence[float], second: Sequence[float]) -> dict[str, Any]:
    """Difference of two arms over the same seeds: the unpaired, Welch's and the paired t-test.

    Splits of one set are not independent, so every p is a little too small; the paired test at
    least takes the splits' own difficulty out.

    Parameters
    ----------
    first, second : sequence of float
        A figure of each arm, seed by seed.

    Returns
    -------
    dict
        Per test ``difference``, ``interval`` (95 %), ``statistic``, ``df`` and ``p``; and ``cohen_d``.
    """
    tests = {kind: t_test(first, second, kind)._asdict() for kind in ("unpaired", "welch", "paired")}
    return {**tests, "cohen_d": cohen_d(first, second)}


def sentence(tests: dict[str, Any], seeds: int, rarest: int) -> str:
    """The comparison's answer in words.

    Parameters
    ----------
    tests : dict
        From `significance`, transfer first.
    seeds : int
    rarest : int
        Test stamps of the smallest class: all seeds share them, so no interval over seeds shows how much
        depends on them.
    """
    welch = tests["welch"]
    points = 100 * welch["difference"]
    half = 100 * (welch["interval"][1] - welch["interval"][0]) / 2
    how = f"(95 % interval, {seeds} seeds, Welch p = {welch['p']:.2g})"
    gap = f"{abs(points):.1f} ± {half:.1f} points of balanced accuracy {how}"
    if not welch["p"] < _SIGNIFICANT:
        return f"no gain that these labels can show: transfer and scratch differ by {gap}"
    few = f"; but it rests on {rarest} test stamps of the rarest class: label more to be sure"
    doubt = few if rarest < _FEW else ""
    if points > 0:
        return f"transfer is better than training from scratch by {gap}{doubt}"
    advice = doubt or "; with this many labels train from scratch"
    return f"no gain: training from scratch is better by {gap}{advice}"


def learning_curve(
    start: StampNetwork, survey: Survey, seed: int
) -> tuple[tuple[CurvePoint, ...], Rise | None]:
    """Balanced accuracy on left-out objects of a head fitted on a share of the labels.

    On frozen features, so that the whole curve costs seconds: what counts is its slope.

    Parameters
    ----------
    start : StampNetwork
        With the survey's head.
    survey : Survey
    seed : int

    Returns
    -------
    tuple of CurvePoint
    Rise or None
        From half of the labels to all, over the same splits. Splits share rows, so its variance is that of
        Nadeau & Bengio (2003). None where there are too few splits or labels for one.
    """
    features = features_of(start, survey.x)
    y = survey.y.numpy()
    classes = int(y.max()) + 1
    scores: list[list[float]] = [[] for _ in _SHARES]
    sizes: list[list[int]] = [[] for _ in _SHARES]
    held = 0.0
    for repeat in range(_REPEATS):
        rng = np.random.default_rng((seed, repeat))
        for fold in make_folds(y, survey.groups, 3, seed + repeat):
            held = len(fold.test) / len(fold.train)
            for k, share in enumerate(_SHARES):
                rows = draw_objects(y, survey.groups, fold.train, share, rng)
                head = cast(nn.Linear, copy.deepcopy(start.heads[HEAD])).cpu()
                fit_head(head, features[rows], survey.y[rows], survey.weight[rows], _STRENGTH)
                guess = head(features[fold.test]).argmax(1).numpy()
                scores[k].append(balanced_accuracy(confusion_matrix(y[fold.test], guess, classes)))
                sizes[k].append(len(rows))
    labels = [round(float(np.mean(each))) for each in sizes]
    points = tuple(
        CurvePoint(n, float(np.mean(each)), float(np.std(each)))
        for k, (n, each) in enumerate(zip(labels, scores, strict=True))
        if n not in labels[:k]
    )
    change = t_test(scores[-1], scores[_HALF], "paired")
    if labels[_HALF] == labels[-1] or not np.isfinite(change.interval).all():
        return points, None
    half = (change.interval[1] - change.interval[0]) / 2 * np.sqrt(1 + len(scores[-1]) * held)
    return points, Rise(
        labels[_HALF], labels[-1], change.difference, change.difference - half, change.difference + half
    )
