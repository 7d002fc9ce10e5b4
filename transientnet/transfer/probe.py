"""The head: taken from the base model where the classes allow it, then fitted on frozen features."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ContractError
from ..evaluation.splits import grouped_folds
from ..models.record import ModelRecord
from .export import SIDES, load_network
from .network import StampNetwork
from .training import HEAD, Survey

__all__ = ["STRENGTHS", "features_of", "fit_head", "fit_probe", "load_base", "survey_classes"]

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)
"""Pulls towards the head's start among which cross-validation chooses."""

# Newton's method ends where another step would gain less than about this, in nats per label.
_SOLVED, _MOST_STEPS = 1e-10, 100


def survey_classes(labels: Sequence[str], base: ModelRecord) -> tuple[str, ...]:
    """Classes in the base model's order where it knows them all, else sorted."""
    names = set(labels)
    if names <= set(base.classes):
        return tuple(name for name in base.classes if name in names)
    return tuple(sorted(names))


def load_base(path: Path, base: ModelRecord, classes: tuple[str, ...]) -> StampNetwork:
    """The base network with a head for `classes`.

    Where the base model has all of them, its own head is the start and the network already classifies;
    otherwise the head starts from zero.

    Parameters
    ----------
    path : Path
        ONNX file of the base model.
    base : ModelRecord
    classes : tuple of str

    Returns
    -------
    StampNetwork
        With the head `HEAD`, and the base's side heads as they are, which no label of a survey teaches.

    Raises
    ------
    ContractError
        The file holds another kind of network, or more heads than one.
    """
    weights = {
        item.name.split(".")[-2]: item.dims[0]
        for item in onnx.load(str(path), load_external_data=False).graph.initializer
        if item.name.endswith("weight") and ".heads." in f".{item.name}"
    }
    heads = [name for name in weights if name not in SIDES]
    if len(heads) != 1:
        raise ContractError(f"{path}: {base.id} must have one head to adapt, not {len(heads)}")
    sides = {name: int(weights[name]) for name in SIDES if name in weights}
    network = load_network(path, base, {heads[0]: len(base.classes), **sides})
    old = network.heads[heads[0]]
    new = nn.Linear(network.config.features, len(classes))
    assert isinstance(old, nn.Linear)
    with torch.no_grad():
        new.weight.zero_()
        new.bias.zero_()
        if set(classes) <= set(base.classes):
            columns = [base.classes.index(name) for name in classes]
            new.weight.copy_(old.weight[columns])
            new.bias.copy_(old.bias[columns])
    network.heads = nn.ModuleDict({HEAD: new, **{name: network.heads[name] for name in sides}})
    return network


@torch.inference_mode()
def features_of(network: StampNetwork, x: Tensor, batch: int = 256) -> Tensor:
    """Features (N, F) of a normalised tensor (N, 3, S, S), on the CPU."""
    device = next(network.parameters()).device
    network.eval()
    return torch.cat([network.embedding(part.to(device)).cpu() for part in torch.split(x, batch)])


def fit_head(head: nn.Linear, features: Tensor, y: Tensor, weight: Tensor, strength: float) -> None:
    """Fit a linear head on frozen features, in place: a convex problem, solved to its end.

    The penalty is the squared distance from where the head stands, in units of the features'
    spread, so that the head of a base model is improved and never thrown away. Newton's method with a
    backtracking line search.

    Parameters
    ----------
    head : Linear
    features : Tensor, shape (N, F)
    y : Tensor of int64, shape (N,)
    weight : Tensor, shape (N,)
        Of each row; mean 1.
    strength : float
        Of the pull towards the start.
    """
    x = features.double()
    spread = x.std(0).clamp(min=1e-3) if len(x) > 1 else torch.ones(x.shape[1], dtype=x.dtype)
    design = torch.cat([x / spread, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
    before = torch.cat([head.weight.detach().cpu() * spread, head.bias.detach().cpu()[:, None]], dim=1)
    classes, width = before.shape
    truth = F.one_hot(y, classes).double()
    share = weight.double()[:, None] / len(x)
    pull = torch.full((width,), strength, dtype=x.dtype)
    pull[-1] *= 2e-3

    def loss(moved: Tensor) -> tuple[Tensor, Tensor]:
        logs = torch.log_softmax(design @ (before + moved).T, dim=1)
        return (pull * moved**2).sum() / 2 - (share * truth * logs).sum(), logs.exp()

    threads = torch.get_num_threads()
    # Threads that share out products this small wait for each other: on a busy machine, for seconds.
    torch.set_num_threads(1)
    try:
        moved = torch.zeros_like(before)
        value, p = loss(moved)
        for _ in range(_MOST_STEPS):
            gradient = (share * (p - truth)).T @ design + pull * moved
            curvature = torch.zeros(classes, width, classes, width, dtype=x.dtype)
            for k in range(classes):
                for m in range(k + 1):
                    joint = share[:, 0] * p[:, k] * (float(k == m) - p[:, m])
                    curvature[k, :, m] = design.T @ (joint[:, None] * design)
                    curvature[m, :, k] = curvature[k, :, m]
                curvature[k, :, k] += torch.diag(pull)
            step = torch.linalg.solve(curvature.reshape(classes * width, -1), gradient.flatten())
            step, slope, size = step.reshape(before.shape), float(gradient.flatten() @ step), 1.0
            if slope < _SOLVED:
                break
            while (trial := loss(moved - size * step))[0] > value - 1e-4 * size * slope and size > 1e-6:
                size /= 2
            moved, (value, p) = moved - size * step, trial
    finally:
        torch.set_num_threads(threads)
    after = before + moved
    with torch.no_grad():
        head.weight.copy_(after[:, :-1] / spread)
        head.bias.copy_(after[:, -1])


def fit_probe(head: nn.Linear, features: Tensor, survey: Survey, seed: int, folds: int = 5) -> None:
    """Fit a linear head as `fit_head` does, with the strength that an inner cross-validation prefers.

    Parameters
    ----------
    head : Linear
    features : Tensor, shape (N, F)
        Of the survey's rows.
    survey : Survey
    seed : int
        Of the inner folds.
    folds : int
        Number of inner folds; with objects too few to split, the head stays near its start.
    """
    y, weight = survey.y, survey.weight
    inner = grouped_folds(y.numpy(), survey.groups, folds, seed)
    losses = []
    for strength in STRENGTHS:
        total = 0.0
        for train, test in inner:
            trial = copy.deepcopy(head).cpu()
            fit_head(trial, features[train], y[train], weight[train], strength)
            with torch.inference_mode():
                output = trial(features[test]).double()
            total += float((weight[test] * F.cross_entropy(output, y[test], reduction="none")).sum())
        losses.append(total)
    chosen = STRENGTHS[int(np.argmin(losses))] if len(inner) > 1 else STRENGTHS[-1]
    fit_head(head, features, y, weight, chosen)
