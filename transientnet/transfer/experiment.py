"""Is transfer better than training from scratch with these labels? Many seeds, and tests, answer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..evaluation.calibration import fit_calibration
from ..evaluation.metrics import balanced_accuracy, compare, confusion_matrix, roc_auc
from ..evaluation.statistics import cohen_d, t_test
from ..models.calibration import apply
from ..prepare.contract import InputContract
from .config import AdaptConfig, Progress
from .crossfit import Survey, cross_fit, make_folds
from .network import StampNetwork
from .recipe import recipe_for
from .scratch import LENGTH, train_from_scratch
from .training import logits_of, set_weights

__all__ = ["ARMS", "compare_with_scratch", "significance", "train_arm"]

ARMS = ("transfer", "probe", "scratch")

# Folds of a transfer within the comparison, and the share of the other objects that a seed trains on.
_FOLDS = 3
_SHARE = 0.8
_TEST_FOLDS = 3
_SIGNIFICANT = 0.05
# Test stamps of a class below which the answer hangs on single ones.
_FEW = 10


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
) -> tuple[StampNetwork, dict[str, Any]]:
    """Train one contestant on the same labels as the others.

    Parameters
    ----------
    arm : {"transfer", "probe", "scratch"}
    start : StampNetwork
        The base network with the survey's head; not changed.
    ready : bool
        Whether its head already tells the classes.

    Returns
    -------
    StampNetwork
    dict
        Its calibration; empty for scratch, which has no left-out rows to fit one.

    Raises
    ------
    KeyboardInterrupt
        On Ctrl-C: what ended early is no contestant.
    """
    recipe = recipe_for(len(survey), config, contract)
    device = next(start.parameters()).device
    if arm == "scratch":
        classes = int(survey.y.max()) + 1
        return train_from_scratch(start.config, classes, survey, recipe, seed, device, on_step), {}
    parts = make_folds(survey.y.numpy(), survey.groups, folds, seed)
    fit = cross_fit(
        start, survey, parts, recipe if arm == "transfer" else None, seed, ready=ready, on_step=on_step
    )
    if fit.interrupted:
        raise KeyboardInterrupt
    network = copy.deepcopy(start)
    set_weights(network, fit.weights)
    rows = fit.rows
    calibration = fit_calibration(fit.logits, survey.y[rows].numpy(), groups=survey.groups[rows], resamples=0)
    return network, calibration


def compare_with_scratch(
    start: StampNetwork,
    survey: Survey,
    config: AdaptConfig,
    contract: InputContract,
    ready: bool,
    tell: Progress,
) -> dict[str, Any]:
    """Train `config.compare_scratch` seeds of each arm and test the differences.

    A third of the sky objects is set aside as the test set that all share; each seed draws four
    fifths of the others, and all arms train on them.

    Returns
    -------
    dict
        ``seeds``: scores per arm and seed; ``against_scratch`` and ``against_probe``: see
        `significance`; ``common_test``: McNemar's test and bootstrap intervals of the seeds' mean
        probabilities; ``sentence``: the answer in words.
    """
    y = survey.y.numpy()
    outer = make_folds(y, survey.groups, _TEST_FOLDS, config.seed)[0]
    truth = y[outer.test]
    count = config.compare_scratch
    steps = recipe_for(round(_SHARE * len(outer.train)), config, contract).steps
    total = round(count * steps * (_FOLDS + LENGTH))
    done = 0

    def on_step() -> None:
        nonlocal done
        done += 1
        tell("comparing", min(done, total), total)

    scores: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    mean = {arm: np.zeros((len(truth), int(y.max()) + 1)) for arm in ARMS}
    for seed in range(count):
        rows = _draw(survey, outer.train, seed)
        for arm in ARMS:
            network, calibration = train_arm(
                arm,
                start,
                survey.take(rows),
                config,
                contract,
                config.seed + seed,
                ready=ready,
                on_step=on_step,
            )
            probabilities = apply(logits_of(network, survey.x[outer.test]).numpy(), calibration)
            scores[arm].append(score(probabilities, truth))
            mean[arm] += probabilities / count
    groups = survey.groups[outer.test]
    against = {
        other: significance(
            [s["balanced_accuracy"] for s in scores["transfer"]],
            [s["balanced_accuracy"] for s in scores[other]],
        )
        for other in ("scratch", "probe")
    }
    return {
        "seeds": scores,
        "n_train": round(_SHARE * len(outer.train)),
        "n_test": len(truth),
        "against_scratch": against["scratch"],
        "against_probe": against["probe"],
        "common_test": compare(mean["transfer"], mean["scratch"], truth, groups=groups),
        "sentence": sentence(against["scratch"], count, int(np.bincount(truth).min())),
    }


def _draw(survey: Survey, rows: npt.NDArray[Any], seed: int) -> npt.NDArray[Any]:
    """Rows of four fifths of the sky objects, every class among them."""
    rng = np.random.default_rng((seed, 1))
    y = survey.y.numpy()
    kept: list[Any] = []
    for c in np.unique(y[rows]):
        objects = rng.permutation(np.unique(survey.groups[rows[y[rows] == c]]))
        kept += objects[: max(2, round(_SHARE * len(objects)))].tolist()
    return rows[np.isin(survey.groups[rows], kept)]


def score(probabilities: npt.NDArray[Any], truth: npt.NDArray[Any]) -> dict[str, float]:
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
    """
    found: dict[str, Any] = {}
    for kind in ("unpaired", "welch", "paired"):
        result = t_test(first, second, kind)
        found[kind] = {
            "difference": result.difference,
            "interval": list(result.interval),
            "statistic": result.statistic,
            "df": result.df,
            "p": result.p,
        }
    found["cohen_d"] = cohen_d(first, second)
    return found


def sentence(tests: dict[str, Any], seeds: int, rarest: int) -> str:
    """The comparison's answer, for a reader who wants one.

    `rarest` is how many test stamps the smallest class has: seeds share them, so that no interval over
    seeds tells how much depends on them.
    """
    welch = tests["welch"]
    points = 100 * welch["difference"]
    half = 100 * (welch["interval"][1] - welch["interval"][0]) / 2
    how = f"(95 % interval, {seeds} seeds, Welch p = {welch['p']:.2g})"
    told = f"{abs(points):.1f} ± {half:.1f} points of balanced accuracy {how}"
    if not welch["p"] < _SIGNIFICANT:
        return f"no gain that these labels can show: transfer and scratch differ by {told}"
    few = f"; but it rests on {rarest} test stamps of the rarest class: label more to be sure"
    doubt = few if rarest < _FEW else ""
    if points > 0:
        return f"transfer is better than training from scratch by {told}{doubt}"
    advice = doubt or "; with this many labels train from scratch"
    return f"no gain: training from scratch is better by {told}{advice}"
