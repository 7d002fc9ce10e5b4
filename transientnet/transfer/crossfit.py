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
import hashlib
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock, current_thread, main_thread
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor, nn

from ..errors import LabelError
from ..evaluation.calibration import fit_calibration
from ..models.calibration import apply
from .network import StampNetwork
from .probe import STRENGTHS, choose_strength, features_of, fit_head
from .training import HEAD, Recipe, Weights, average, fine_tune, get_weights, logits_of, set_weights

__all__ = ["CrossFit", "Fold", "Survey", "cross_fit", "make_folds"]

Index = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Survey:
    """Labelled stamps, ready for the network.

    x : Tensor, shape (N, 3, S, S); y : Tensor of int64, shape (N,); weight : Tensor, shape (N,), of
    each row in the loss; groups : shape (N,), sky objects.
    """

    x: Tensor
    y: Tensor
    weight: Tensor
    groups: npt.NDArray[Any]

    def __len__(self) -> int:
        return len(self.y)

    def take(self, rows: Index) -> Survey:
        return Survey(self.x[rows], self.y[rows], self.weight[rows], self.groups[rows])


class Fold(NamedTuple):
    """Rows to train on and rows left out."""

    train: Index
    test: Index


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
        The best, or the best without fine-tuning if that cannot be told from it.
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

    Raises
    ------
    LabelError
        If a class has fewer than two sky objects.
    """
    objects = [len(np.unique(groups[y == c])) for c in np.unique(y)]
    if len(objects) < 2 or min(objects) < 2:
        raise LabelError(
            "every class needs labels of at least two sky objects, to train on one and judge on the other"
        )
    splitter = StratifiedGroupKFold(min(count, *objects), shuffle=True, random_state=seed)
    folds = [Fold(train, test) for train, test in splitter.split(y, y, groups)]
    whole = [f for f in folds if len(f.test) and len(np.unique(y[f.train])) == len(objects)]
    if len(whole) < 2:
        raise LabelError(
            "the sky objects cannot be split so that both halves have every class; label more objects"
        )
    return whole


def cross_fit(
    start: StampNetwork,
    survey: Survey,
    folds: list[Fold],
    recipe: Recipe | None,
    seed: int,
    *,
    ready: bool,
    checkpoints: Path | None = None,
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
        Whether the head of `start` already tells the classes, so that the base model is a candidate.
    checkpoints : Path, optional
        Folder where each finished fold is kept, so that a killed run goes on from there.
    on_step : callable
        Called after each step of each fold, from one thread at a time.
    """
    candidates = ["base"] if ready else []
    features = features_of(start, survey.x)
    networks: list[list[Weights]] = []
    outputs: list[list[Tensor]] = []
    for fold in folds:
        probe = _probe(start, features, survey, fold, seed)
        offered = [start, probe] if ready else [probe]
        networks.append([get_weights(network) for network in offered])
        outputs.append([logits_of(network, survey.x[fold.test]) for network in offered])
    candidates.append("probe")

    interrupted = False
    if recipe is not None:

        def train(number: int, on_step: Callable[[], None]) -> list[Weights]:
            path = checkpoints / f"fold-{number}.npz" if checkpoints else None
            kept = _read(path) if path else None
            if kept is not None:
                for _ in range(recipe.steps):
                    on_step()
                return kept
            network = copy.deepcopy(start)
            if not ready:
                set_weights(network, networks[number][-1])
            part = survey.take(folds[number].train)
            kept = fine_tune(network, part.x, part.y, part.weight, recipe, seed + number, on_step)
            if path:
                _write(path, kept)
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
            steps = [round(recipe.steps * (k + 1) / recipe.snapshots) for k in range(recipe.snapshots)]
            candidates += [f"{step} steps" for step in steps]

    rows = np.concatenate([fold.test for fold in folds])
    order = np.argsort(rows)
    rows = rows[order]
    joined = [torch.cat([o[k] for o in outputs]).numpy()[order] for k in range(len(candidates))]
    calibrations = [_calibrated(logits, survey, rows) for logits in joined]
    losses = [float(found["after"]["nll"]) for found in calibrations]
    chosen = _choose(joined, calibrations, survey, rows, untuned=candidates.index("probe") + 1)
    return CrossFit(
        average([network[chosen] for network in networks]),
        rows,
        joined[chosen],
        tuple(candidates),
        tuple(losses),
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

    On the CPU the folds share the threads out: a small batch keeps one core busy, not several.
    """
    threads = torch.get_num_threads()
    workers = min(count, threads) if device.type == "cpu" else 1
    stop, one_at_a_time = Event(), Lock()

    def step() -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        with one_at_a_time:
            on_step()

    torch.set_num_threads(threads // workers)
    try:
        with _ctrl_c_as(stop.set), ThreadPoolExecutor(workers) as pool:
            futures = [pool.submit(train, number, step) for number in range(count)]
            wait(futures, return_when=FIRST_EXCEPTION)
            stop.set()
            for future in futures:
                future.cancel()
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


@contextmanager
def _ctrl_c_as(call: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C calls `call`, however often it comes; an exception would leave threads behind at their work.

    Signals come to the main thread alone, and not at all to a process that was told to ignore them.
    """
    usual = signal.getsignal(signal.SIGINT)
    if current_thread() is not main_thread() or usual is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: call())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)


def _probe(start: StampNetwork, features: Tensor, survey: Survey, fold: Fold, seed: int) -> StampNetwork:
    """`start` with its head fitted on the fold's training rows; the strength is chosen within them."""
    network = copy.deepcopy(start)
    head = cast(nn.Linear, network.heads[HEAD])
    y, weight = survey.y[fold.train], survey.weight[fold.train]
    try:
        inner = make_folds(y.numpy(), survey.groups[fold.train], 5, seed)
        strength = choose_strength(head, features[fold.train], y, weight, inner)
    except LabelError:
        strength = STRENGTHS[-1]  # too few objects to tell: stay near the start
    fit_head(head, features[fold.train], y, weight, strength)
    return network


def _calibrated(logits: npt.NDArray[np.float32], survey: Survey, rows: Index) -> dict[str, Any]:
    return fit_calibration(
        logits,
        survey.y[rows].numpy(),
        groups=survey.groups[rows],
        weights=survey.weight[rows].numpy(),
        resamples=0,
    )


def _choose(
    joined: list[npt.NDArray[np.float32]],
    calibrations: list[dict[str, Any]],
    survey: Survey,
    rows: Index,
    untuned: int,
) -> int:
    """The candidate with the least loss; a fine-tuned one only if it is better by a standard error.

    The first `untuned` candidates have the trunk of the base model. A few left-out labels cannot tell
    which of many candidates is the best, and the least of many noisy losses is too good to be true (the
    one-standard-error rule of Breiman et al. 1984, over sky objects).
    """
    losses = [found["after"]["nll"] for found in calibrations]
    best, plain = int(np.argmin(losses)), int(np.argmin(losses[:untuned]))
    if best < untuned:
        return best
    y, weight = survey.y[rows].numpy(), survey.weight[rows].numpy()

    def loss(k: int) -> npt.NDArray[np.float64]:
        given = apply(joined[k], calibrations[k])[np.arange(len(y)), y]
        return np.asarray(-weight * np.log(np.maximum(given.astype(np.float64), 1e-12)))

    _, group = np.unique(survey.groups[rows], return_inverse=True)
    gain = np.bincount(group, loss(plain) - loss(best))
    error = np.sqrt(len(gain)) * gain.std(ddof=1) / weight.sum()
    return best if losses[plain] - losses[best] > error else plain


def fingerprint(*parts: Any) -> str:
    """Name of a run: the same input and choices give the same."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(
            np.ascontiguousarray(part).tobytes() if isinstance(part, np.ndarray) else repr(part).encode()
        )
    return digest.hexdigest()[:16]


def open_checkpoints(folder: Path, run: str) -> Path:
    """The run's own folder of checkpoints; those of other runs are removed."""
    own = folder / run
    if folder.is_dir():
        for other in folder.iterdir():
            if other != own:
                shutil.rmtree(other, ignore_errors=True)
    own.mkdir(parents=True, exist_ok=True)
    return own


def _write(path: Path, kept: list[Weights]) -> None:
    arrays = {f"{k}/{name}": v.numpy() for k, weights in enumerate(kept) for name, v in weights.items()}
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    with open(temporary, "wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]
    os.replace(temporary, path)


def _read(path: Path) -> list[Weights] | None:
    if not path.is_file():
        return None
    kept: dict[int, Weights] = {}
    with np.load(path, allow_pickle=False) as arrays:
        for key in arrays.files:
            number, name = key.split("/", 1)
            kept.setdefault(int(number), {})[name] = torch.from_numpy(arrays[key])
    return [kept[number] for number in sorted(kept)]
