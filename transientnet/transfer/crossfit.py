"""Grouped cross-validation that is also the training: one network per fold, their mean is shipped.

All folds start from the same base weights, so the mean of their weights is a network too
(Wortsman et al. 2022, arXiv 2203.05482), one that has seen every label, while each fold's own
network gives honest logits for the rows that it left out. Along the way every fold offers the same
candidates: the base model as it is, a new head on frozen features, and averaged weights after more
and more steps. Which of them is shipped is decided for all folds together, by the left-out
likelihood: with few labels the run stops early, or leaves the trunk of the base model as it is unless
fine-tuning is better by more than its standard error.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from threading import Event, Lock
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ..errors import LabelError
from ..evaluation.calibration import fit_calibration
from ..evaluation.splits import Fold, grouped_folds
from ..scoring.interrupts import on_interrupt
from .checkpoints import Checkpoints
from .network import StampNetwork
from .probe import features_of, fit_probe
from .training import (
    HEAD,
    Index,
    Recipe,
    Survey,
    Weights,
    average,
    fine_tune,
    get_weights,
    logits_of,
    set_weights,
)

__all__ = ["CrossFit", "choose", "cross_fit", "make_folds"]


@dataclass(frozen=True, slots=True, eq=False)
class CrossFit:
    """What cross-validation gave.

    Attributes
    ----------
    weights : Weights
        Mean over the folds of the chosen candidate.
    rows : ndarray of int
        Rows that some fold left out, which all figures are about.
    logits : ndarray, shape (len(rows), K)
        Of those rows, by networks that had not seen them (nor their sky objects).
    candidates : tuple of str
        Names of the candidates, as far as they were trained.
    losses : tuple of float
        Calibrated negative log likelihood of each on left-out rows.
    chosen : int
        The best, or the best without fine-tuning where fine-tuning is not surely better.
    interrupted : bool
    """

    weights: Weights
    rows: Index
    logits: npt.NDArray[np.float32]
    candidates: tuple[str, ...]
    losses: tuple[float, ...]
    chosen: int
    interrupted: bool


def make_folds(y: npt.NDArray[Any], groups: npt.NDArray[Any], count: int, seed: int) -> list[Fold]:
    """Folds that keep sky objects whole and share out the classes; fewer where a class is small.

    Parameters
    ----------
    y, groups : ndarray, shape (N,)
        Class and sky object of each row.
    count : int
        Folds wanted.
    seed : int

    Returns
    -------
    list of Fold

    Raises
    ------
    LabelError
        If the sky objects of a class are too few to train on some and judge on others.
    """
    objects = [len(np.unique(groups[y == c])) for c in np.unique(y)]
    folds = grouped_folds(y, groups, min(count, *objects), seed) if len(objects) > 1 else []
    if len(folds) < 2:
        raise LabelError(
            "the sky objects cannot be split so that every class is trained on some and judged on others; "
            "label more objects of the rarest class"
        )
    return folds


def cross_fit(
    start: StampNetwork,
    survey: Survey,
    folds: list[Fold],
    recipe: Recipe | None,
    seed: int,
    *,
    ready: bool,
    checkpoints: Checkpoints | None = None,
    on_step: Callable[[], None] = lambda: None,
) -> CrossFit:
    """Train one network per fold and average them.

    Parameters
    ----------
    start : StampNetwork
        The base network with a head `HEAD`; not changed.
    survey : Survey
    folds : list of Fold
    recipe : Recipe or None
        None fits the head alone.
    seed : int
    ready : bool
        Whether the head of `start` already knows the classes, so that the base model is a candidate.
    checkpoints : Checkpoints, optional
        Where each finished fold is kept, so that a killed run goes on from there.
    on_step : callable
        Called after each step of each fold, from one thread at a time.

    Returns
    -------
    CrossFit
        After Ctrl-C, of the folds that were finished by then; without any, of those without fine-tuning.
    """
    features = features_of(start, survey.x)
    networks: list[list[Weights]] = []
    outputs: list[list[Tensor]] = []
    for fold in folds:
        probe = copy.deepcopy(start)
        fit_probe(cast(nn.Linear, probe.heads[HEAD]), features[fold.train], survey.take(fold.train), seed)
        offered = [start, probe] if ready else [probe]
        networks.append([get_weights(network) for network in offered])
        outputs.append([logits_of(network, survey.x[fold.test]) for network in offered])
    candidates = ["base", "probe"] if ready else ["probe"]
    untuned, interrupted = len(candidates), False
    if recipe is not None:

        def train(number: int, on_step: Callable[[], None]) -> list[Weights]:
            kept = checkpoints.read(number) if checkpoints else None
            if kept is not None:
                for _ in range(recipe.steps):
                    on_step()
                return kept
            network = copy.deepcopy(start)
            if not ready:
                set_weights(network, networks[number][-1])
            kept = fine_tune(network, survey.take(folds[number].train), recipe, seed + number, on_step)
            if checkpoints:
                checkpoints.write(number, kept)
            return kept

        done, interrupted = _side_by_side(train, len(folds), next(start.parameters()).device, on_step)
        network = copy.deepcopy(start)
        for number, kept in done.items():
            for weights in kept:
                set_weights(network, weights)
                outputs[number].append(logits_of(network, survey.x[folds[number].test]))
            networks[number] += kept
        if finished := sorted(done):
            folds = [folds[k] for k in finished]
            networks = [networks[k] for k in finished]
            outputs = [outputs[k] for k in finished]
            candidates += [f"{step} steps" for step in recipe.marks]

    rows = np.concatenate([fold.test for fold in folds])
    order = np.argsort(rows)
    rows = rows[order]
    joined = [torch.cat([o[k] for o in outputs]).numpy()[order] for k in range(len(candidates))]
    chosen, losses = choose(
        joined, survey.y[rows].numpy(), survey.weight[rows].numpy(), survey.groups[rows], untuned
    )
    return CrossFit(
        average([network[chosen] for network in networks]),
        rows,
        joined[chosen],
        tuple(candidates),
        losses,
        chosen,
        interrupted,
    )


def _side_by_side(
    train: Callable[[int, Callable[[], None]], list[Weights]],
    count: int,
    device: torch.device,
    on_step: Callable[[], None],
) -> tuple[dict[int, list[Weights]], bool]:
    """What `train` gives for each fold that ended, and whether Ctrl-C came before all had.

    On the CPU the folds share the threads out: a small batch keeps one core busy, not several. Any
    error, of a fold or in this thread, stops all folds at their next step.
    """
    threads = torch.get_num_threads()
    workers = min(count, threads) if device.type == "cpu" else 1
    stop, one_at_a_time = Event(), Lock()

    def step() -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        with one_at_a_time:
            on_step()

    torch.set_num_threads(max(1, threads // workers))
    try:
        with on_interrupt(stop.set), ThreadPoolExecutor(workers) as pool:
            futures = [pool.submit(train, number, step) for number in range(count)]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                stop.set()
                pool.shutdown(cancel_futures=True)
    finally:
        torch.set_num_threads(threads)
    done: dict[int, list[Weights]] = {}
    for number, future in enumerate(futures):
        if future.cancelled():
            continue
        error = future.exception()
        if error is None:
            done[number] = future.result()
        elif not isinstance(error, KeyboardInterrupt):
            raise error
    return done, len(done) < count


def choose(
    logits: list[npt.NDArray[np.float32]],
    y: npt.NDArray[Any],
    weight: npt.NDArray[Any],
    groups: npt.NDArray[Any],
    untuned: int,
) -> tuple[int, tuple[float, ...]]:
    """The candidate with the least loss; a fine-tuned one only if it is better by a standard error.

    A few left-out labels do not show which of many candidates is the best: the smallest of many noisy
    losses is too good to be true (the one-standard-error rule of Breiman et al. 1984, over sky objects).

    Parameters
    ----------
    logits : list of ndarray, each of shape (N, K)
        Of the left-out rows, by each candidate.
    y, weight, groups : ndarray, shape (N,)
        Class, weight and sky object of each row.
    untuned : int
        The first so many candidates have the trunk of the base model.

    Returns
    -------
    chosen : int
    losses : tuple of float
        Calibrated negative log likelihood of each candidate, out of fold.
    """
    fitted = [fit_calibration(z, y, groups=groups, weights=weight, resamples=0) for z in logits]
    losses = tuple(calibration.after.nll if calibration.after else np.inf for calibration in fitted)
    best, plain = int(np.argmin(losses)), int(np.argmin(losses[:untuned]))
    if best < untuned:
        return best, losses

    def loss(k: int) -> npt.NDArray[np.float64]:
        own = fitted[k].apply(logits[k])[np.arange(len(y)), y]
        return np.asarray(-weight * np.log(np.maximum(own.astype(np.float64), 1e-12)))

    _, group = np.unique(groups, return_inverse=True)
    gain = np.bincount(group, loss(plain) - loss(best))
    error = np.sqrt(len(gain)) * gain.std(ddof=1) / weight.sum()
    return (best if losses[plain] - losses[best] > error else plain), losses
