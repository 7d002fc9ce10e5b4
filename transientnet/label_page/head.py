"""A head refitted on the labels so far, in numpy alone: quick enough to run between two answers.

A multinomial logistic regression on the network's features, with the model's own answer as its start: the
penalty pulls towards that answer, so that a handful of labels moves the threshold first and the directions of
the features later. Heads of several strengths of the pull are averaged, each weighed by how well it foretells
labels of sky objects that it has not seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..models.calibration import softmax

__all__ = ["Head", "Start", "answer", "folds_of", "refit", "solve", "start_of"]

FloatArray = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 1000.0)
"""Of the pull on the features' weights, in labels; heads of all of them are averaged."""

BIAS_PULL, SLOPE_PULL = 0.1, 10.0
"""The pull on the classes' thresholds and on the slope of the model's answer, in labels."""

SHARPNESS = 2.0
"""How much a head counts that foretells unseen labels better, per nat."""

COMPONENTS = 64
"""Features beyond so many are reduced to their principal components: a refit takes a second at most."""

FOLDS = 5
_STEPS, _SOLVED = 200, 1e-7


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """What a head starts from: design (N, D), features scaled to unit spread, a one, and the model's answer.

    ``offset`` (N, K) holds the model's log probabilities; zeros where its classes are others.
    """

    design: FloatArray
    offset: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """A fitted head.

    Attributes
    ----------
    probabilities : ndarray, shape (N, K)
        Of every candidate.
    out_of_fold : ndarray, shape (n, K)
        Of the labelled ones, each by heads that have not seen its sky object.
    strength : float
        The pull that counts most.
    """

    probabilities: FloatArray
    out_of_fold: FloatArray
    strength: float


def start_of(
    features: npt.NDArray[np.floating],
    probabilities: npt.NDArray[np.floating],
    known: Sequence[str],
    classes: Sequence[str],
) -> Start:
    """What the heads of a set of candidates start from.

    Parameters
    ----------
    features : ndarray, shape (N, F)
    probabilities : ndarray, shape (N, M)
        The model's; NaN where it refuses.
    known : sequence of str, length M
        The model's classes.
    classes : sequence of str, length K
        Those of the labels. Where the model does not know one of them, its answer is no start.
    """
    x = np.asarray(features, np.float64)
    x = (x - x.mean(0)) / np.maximum(x.std(0), 1e-3)
    if x.shape[1] > COMPONENTS:
        x = x @ np.linalg.eigh(x.T @ x)[1][:, -COMPONENTS:]
    # Unit length for the typical candidate: the strengths then mean the same for any number of features.
    x /= max(1e-9, np.sqrt((x**2).sum(1).mean()))
    offset = np.zeros((len(x), len(classes)))
    if set(classes) <= set(known):
        columns = [list(known).index(name) for name in classes]
        offset = np.log(np.clip(np.nan_to_num(probabilities[:, columns], nan=0.5), 1e-6, 1.0))
        offset -= offset.mean(1, keepdims=True)
    return Start(np.concatenate([x, np.ones((len(x), 1))], 1), offset)


def folds_of(groups: Sequence[str], seed: int = 0) -> Places:
    """A fold for each label (n,); labels of one sky object share it."""
    objects, place = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    return np.random.default_rng(seed).permutation(len(objects))[place.ravel()] % min(FOLDS, len(objects))


def refit(start: Start, rows: Places, y: Places, folds: Places) -> Head:
    """Fit a head on labels.

    Parameters
    ----------
    start : Start
        Of all N candidates.
    rows, y, folds : ndarray of int, shape (n,)
        Candidates with a label, their class, and the fold that each is in.
    """
    design, offset = start.design[rows], start.offset[rows]
    guesses = np.zeros((len(STRENGTHS), *offset.shape))
    for guess, strength in zip(guesses, STRENGTHS, strict=True):
        for fold in np.unique(folds):
            train, test = folds != fold, folds == fold
            moved = solve(design[train], offset[train], y[train], strength)
            guess[test] = answer(design[test], offset[test], moved)
    gains = np.log(np.maximum(guesses[:, np.arange(len(y)), y], 1e-9)).sum(1)
    weights = np.exp(SHARPNESS * (gains - gains.max()))
    weights[weights < 0.01] = 0.0
    weights /= weights.sum()
    heads = (
        weight * answer(start.design, start.offset, solve(design, offset, y, strength))
        for weight, strength in zip(weights, STRENGTHS, strict=True)
        if weight
    )
    return Head(sum(heads), np.tensordot(weights, guesses, 1), STRENGTHS[int(weights.argmax())])


def answer(design: FloatArray, offset: FloatArray, moved: FloatArray) -> FloatArray:
    """Probabilities (N, K) of a head: ``moved`` (K, D + 1), the last column the change of the slope."""
    return softmax(offset * (1 + moved[:, -1].mean()) + design @ moved[:, :-1].T)


def solve(design: FloatArray, offset: FloatArray, y: Places, strength: float) -> FloatArray:
    """Block-wise Newton steps with a line search on a convex problem; gives ``moved`` (K, D + 1)."""
    (n, width), classes = design.shape, offset.shape[1]
    # The classes' parameters sum to zero at the optimum: they are sought in a basis of what does.
    basis = np.linalg.svd(np.eye(classes) - 1 / classes)[0][:, : classes - 1]
    pull = np.full((classes - 1, width), strength)
    pull[:, -1] = BIAS_PULL
    # One slope for all classes: a parameter of its own behind those of the classes.
    pulls = np.append(pull.ravel(), SLOPE_PULL)
    truth = np.eye(classes)[y]
    theta = np.zeros(len(pulls))

    def loss(theta: FloatArray) -> tuple[float, FloatArray]:
        moved = basis @ theta[:-1].reshape(-1, width)
        z = offset * (1 + theta[-1]) + design @ moved.T
        z -= z.max(1, keepdims=True)
        logs = z - np.log(np.exp(z).sum(1, keepdims=True))
        return float((pulls * theta**2).sum() / 2 - (truth * logs).sum()), np.exp(logs)

    value, p = loss(theta)
    for _ in range(_STEPS):
        residual = p - truth
        gradient = np.append(((residual @ basis).T @ design).ravel(), (residual * offset).sum())
        gradient += pulls * theta
        spread = p * (offset - (p * offset).sum(1, keepdims=True))
        means = p @ basis
        # Block by block: threads that share out larger products wait for each other, on a busy machine for
        # minutes. The line search keeps them honest.
        step = np.empty_like(theta)
        step[-1] = gradient[-1] / (pulls[-1] + float((spread * offset).sum()))
        for k in range(classes - 1):
            part = slice(k * width, (k + 1) * width)
            covariance = p @ basis[:, k] ** 2 - means[:, k] ** 2
            hessian = np.diag(pulls[part]) + design.T @ (covariance[:, None] * design)
            step[part] = np.linalg.solve(hessian, gradient[part])
        slope, size = float(gradient @ step), 1.0
        if slope < _SOLVED * max(1, n):
            break
        while (trial := loss(theta - size * step))[0] > value - 1e-4 * size * slope and size > 1e-6:
            size /= 2
        theta, (value, p) = theta - size * step, trial
    moved = np.empty((classes, width + 1))
    moved[:, :-1], moved[:, -1] = basis @ theta[:-1].reshape(-1, width), theta[-1]
    return moved
