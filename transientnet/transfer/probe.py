"""The head: taken from the base model where the classes allow it, then fitted on frozen features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ContractError
from ..models.record import ModelRecord
from .export import load_network
from .network import StampNetwork
from .training import HEAD

__all__ = ["STRENGTHS", "choose_strength", "features_of", "fit_head", "load_base", "survey_classes"]

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)
"""Pulls towards the head's start among which cross-validation chooses."""

_SOLVED = {"maxiter": 1000, "gtol": 1e-7, "ftol": 1e-13}


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
    """
    x = features.double().numpy()
    spread = np.maximum(x.std(0, ddof=1), 1e-3) if len(x) > 1 else np.ones(x.shape[1])
    z = x / spread
    slope = head.weight.detach().cpu().double().numpy() * spread
    offset = head.bias.detach().cpu().double().numpy()
    truth = np.eye(len(offset))[y.numpy()]
    share = weight.double().numpy()[:, None] / len(x)

    def loss(moved: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        steeper, higher = moved[: slope.size].reshape(slope.shape), moved[slope.size :]
        logs = log_softmax(z @ (slope + steeper).T + offset + higher, axis=1)
        excess = share * (np.exp(logs) - truth)
        value = strength * ((steeper**2).sum() / 2 + 1e-3 * (higher**2).sum()) - (share * truth * logs).sum()
        gradient = excess.T @ z + strength * steeper, excess.sum(0) + 2e-3 * strength * higher
        return value, np.concatenate([part.ravel() for part in gradient])

    found = minimize(loss, np.zeros(slope.size + offset.size), jac=True, method="L-BFGS-B", options=_SOLVED).x
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy((slope + found[: slope.size].reshape(slope.shape)) / spread))
        head.bias.copy_(torch.from_numpy(offset + found[slope.size :]))


def choose_strength(
    head: nn.Linear,
    features: Tensor,
    y: Tensor,
    weight: Tensor,
    folds: Sequence[tuple[npt.NDArray[Any], npt.NDArray[Any]]],
) -> float:
    """The strength with the lowest loss on left-out rows."""
    losses = []
    for strength in STRENGTHS:
        total = 0.0
        for train, test in folds:
            trial = nn.Linear(head.in_features, head.out_features)
            trial.load_state_dict(head.state_dict())
            fit_head(trial, features[train], y[train], weight[train], strength)
            with torch.inference_mode():
                output = trial(features[test]).double()
            total += float((weight[test] * F.cross_entropy(output, y[test], reduction="none")).sum())
        losses.append(total)
    return STRENGTHS[int(np.argmin(losses))]
