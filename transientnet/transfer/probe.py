"""The head: taken from the base model where the classes allow it, then fitted on frozen features."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ContractError
from ..evaluation.splits import grouped_folds
from ..models.record import ModelRecord
from .export import load_network
from .network import StampNetwork
from .training import HEAD, Survey

__all__ = ["STRENGTHS", "features_of", "fit_head", "fit_probe", "load_base", "survey_classes"]

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)
"""Pulls towards the head's start among which cross-validation chooses."""

_SOLVED: Any = {"max_iter": 1000, "tolerance_grad": 1e-6, "tolerance_change": 1e-9, "history_size": 20}


def survey_classes(labels: Sequence[str], base: ModelRecord) -> tuple[str, ...]:
    """Classes in the base model's order where it knows them all, else sorted."""
    names = set(labels)
    if names <= set(base.classes):
        return tuple(name for name in base.classes if name in names)
    return tuple(sorted(names))


def load_base(path: Path, base: ModelRecord, classes: tuple[str, ...]) -> StampNetwork:
    """The base network with a head for `classes`.

    Classes that the base model knows start from its own head; where it knows them all, the network
    already classifies. Other classes start from zero.
    """
    initializers = onnx.load(str(path), load_external_data=False).graph.initializer
    heads = [
        name.split(".")[-2]
        for name in (item.name for item in initializers)
        if name.endswith("weight") and ".heads." in f".{name}"
    ]
    if len(heads) != 1:
        raise ContractError(f"{path}: {base.id} must have one head to adapt, not {len(heads)}")
    network = load_network(path, base, {heads[0]: len(base.classes)})
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
    network.heads = nn.ModuleDict({HEAD: new})
    return network


@torch.inference_mode()
def features_of(network: StampNetwork, x: Tensor, batch: int = 256) -> Tensor:
    """Features (N, F) of a normalised tensor, on the CPU."""
    device = next(network.parameters()).device
    network.eval()
    return torch.cat([network.embedding(part.to(device)).cpu() for part in torch.split(x, batch)])


def fit_head(head: nn.Linear, features: Tensor, y: Tensor, weight: Tensor, strength: float) -> None:
    """Fit a linear head on frozen features, in place: a convex problem, solved to its end.

    The penalty is the squared distance from where the head stands, in units of the features'
    spread, so that the head of a base model is improved and never thrown away.

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
    z = x / spread
    slope = head.weight.detach().cpu().double() * spread
    offset = head.bias.detach().cpu().double()
    share = F.one_hot(y, len(offset)) * weight.double()[:, None] / len(x)
    steeper = torch.zeros_like(slope, requires_grad=True)
    higher = torch.zeros_like(offset, requires_grad=True)
    optimizer = torch.optim.LBFGS([steeper, higher], line_search_fn="strong_wolfe", **_SOLVED)

    def loss() -> Tensor:
        optimizer.zero_grad()
        logs = torch.log_softmax(z @ (slope + steeper).T + offset + higher, dim=1)
        pull = strength * ((steeper**2).sum() / 2 + 1e-3 * (higher**2).sum())
        value: Tensor = pull - (share * logs).sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    threads = torch.get_num_threads()
    # Threads that share out products this small wait for each other: on a busy machine, for seconds.
    torch.set_num_threads(1)
    try:
        optimizer.step(loss)  # type: ignore[no-untyped-call]
    finally:
        torch.set_num_threads(threads)
    with torch.no_grad():
        head.weight.copy_((slope + steeper) / spread)
        head.bias.copy_(offset + higher)


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
