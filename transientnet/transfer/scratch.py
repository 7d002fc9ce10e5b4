"""Training from random weights with the care that a rival deserves: batch statistics, annealing."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from .crossfit import Survey
from .network import NetworkConfig, StampNetwork
from .training import HEAD, Recipe, batches, fast_math

__all__ = ["train_from_scratch"]

LEARNING_RATE = 3e-3
WEIGHT_DECAY = 1e-2
LENGTH = 2.0
"""Random weights get this many times the steps of a transfer."""


def train_from_scratch(
    config: NetworkConfig,
    classes: int,
    survey: Survey,
    recipe: Recipe,
    seed: int,
    device: torch.device,
    on_step: Callable[[], None] = lambda: None,
) -> StampNetwork:
    """A network of the same shape that has seen the survey's labels only, batch statistics folded.

    Parameters
    ----------
    config : NetworkConfig
    classes : int
    survey : Survey
    recipe : Recipe
        Of the transfer that it is compared with: steps, batch and augmentation.
    seed : int
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = StampNetwork({HEAD: classes}, config).to(device)
    generator = torch.Generator().manual_seed(seed)
    steps = round(LENGTH * recipe.steps)
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, 10 * (step + 1) / steps) * (1 + math.cos(math.pi * step / steps)) / 2
    )
    network.train()
    for _, rows in zip(range(steps), batches(len(survey), recipe.batch, generator), strict=False):
        x = recipe.augmentation(survey.x[rows].to(device), generator)
        x = x.contiguous(memory_format=torch.channels_last)
        with fast_math(device):
            output = network.heads[HEAD](network.embedding(x))
        losses = F.cross_entropy(output.float(), survey.y[rows].to(device), reduction="none")
        loss = (survey.weight[rows].to(device) * losses).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        on_step()
    return network.eval().fold()
