"""Training a network on labels: how long, fine-tuning from a base, and from random weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..prepare.contract import InputContract
from .augment import Augmentation
from .config import AdaptConfig
from .network import NetworkConfig, StampNetwork

__all__ = [
    "HEAD",
    "SCRATCH_LENGTH",
    "Recipe",
    "Survey",
    "Weights",
    "average",
    "class_weights",
    "fast_math",
    "fine_tune",
    "get_weights",
    "logits_of",
    "recipe_for",
    "set_weights",
    "train_from_scratch",
]

HEAD = "survey"
"""Name of the head that adapting trains."""

SCRATCH_LENGTH = 2.0
"""Random weights get this many times the steps of a transfer."""

Weights = dict[str, Tensor]
Index = npt.NDArray[np.intp]

# Steps of a fold grow with the square root of the labels, between these.
_STEPS_PER_ROOT = 25.0
_FEWEST, _MOST = 120, 2500
_SNAPSHOTS = 8
# The average of the weights reaches back over about 1 / (1 + this) of the steps so far.
_RECENT = 6.0
_WARM_UP = 0.1
_LARGEST_GRADIENT = 5.0

_SCRATCH_RATE, _SCRATCH_DECAY = 3e-3, 1e-2


@dataclass(frozen=True, slots=True, eq=False)
class Survey:
    """Labelled stamps, ready for the network.

    Attributes
    ----------
    x : Tensor of float32, shape (N, 3, S, S)
        Normalised stamps.
    y : Tensor of int64, shape (N,)
        Class of each.
    weight : Tensor, shape (N,)
        Of each row in the loss; mean 1.
    groups : ndarray, shape (N,)
        Sky objects.
    """

    x: Tensor
    y: Tensor
    weight: Tensor
    groups: npt.NDArray[Any]

    def __len__(self) -> int:
        return len(self.y)

    def take(self, rows: Index) -> Survey:
        """The rows that `rows` numbers."""
        return Survey(self.x[rows], self.y[rows], self.weight[rows], self.groups[rows])


@dataclass(frozen=True, slots=True)
class Recipe:
    """Choices of one fine-tuning.

    Attributes
    ----------
    steps : int
        Gradient steps.
    snapshots : int
        How often along the way the averaged weights are kept.
    batch : int
    learning_rate : float
        Of the head; each stage towards the input has `decay` times the rate of the one above.
    decay : float
    anchor : float
        Pull of the weights towards where they started (L2-SP).
    augmentation : Augmentation
    """

    steps: int
    snapshots: int
    batch: int
    learning_rate: float
    decay: float
    anchor: float
    augmentation: Augmentation

    @property
    def marks(self) -> list[int]:
        """Steps after which the averaged weights are kept, the last one at the end."""
        return [round(self.steps * (k + 1) / self.snapshots) for k in range(self.snapshots)]


def recipe_for(labels: int, config: AdaptConfig, contract: InputContract) -> Recipe:
    """The fine-tuning that `config` asks for; what it leaves open follows the number of labels.

    Parameters
    ----------
    labels : int
    config : AdaptConfig
    contract : InputContract
        Its softening is that of the stamps.
    """
    steps = config.steps or int(np.clip(_STEPS_PER_ROOT * np.sqrt(labels), _FEWEST, _MOST))
    return Recipe(
        steps=steps,
        snapshots=min(_SNAPSHOTS, steps),
        batch=min(config.batch, labels),
        learning_rate=config.learning_rate,
        decay=config.decay,
        anchor=config.anchor,
        augmentation=Augmentation(config.shift, config.blur, config.noise, config.drop, contract.softening),
    )


def class_weights(
    y: npt.NDArray[Any], given: npt.NDArray[np.float64], balance: float
) -> npt.NDArray[np.float32]:
    """Weight of each row in the loss, mean 1: the table's, times a power of the class's rarity.

    Parameters
    ----------
    y : ndarray of int, shape (N,)
        Class of each row.
    given : ndarray, shape (N,)
        Weight of each row in the table.
    balance : float
        0 counts every label alike, 1 every class alike.
    """
    share = np.bincount(y, weights=given)
    weight = given * (share.sum() / np.maximum(share, 1e-12))[y] ** balance
    even: npt.NDArray[np.float32] = (weight / weight.mean()).astype(np.float32)
    return even


def get_weights(network: nn.Module) -> Weights:
    """A copy of the weights, on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in network.named_parameters()}


@torch.no_grad()
def set_weights(network: nn.Module, weights: Weights) -> None:
    """Put weights back that `get_weights` gave."""
    for name, value in network.named_parameters():
        value.copy_(weights[name])


def average(many: list[Weights]) -> Weights:
    """Mean of networks that started from the same weights: one network."""
    return {name: torch.stack([weights[name] for weights in many]).mean(0) for name in many[0]}


def fast_math(device: torch.device) -> AbstractContextManager[object]:
    """Half-precision multiplication where the machine has it in hardware."""
    if device.type == "cpu":
        # torch < 2.10 does not know.
        capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        able = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    else:
        able = torch.cuda.is_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=able)


@torch.inference_mode()
def logits_of(network: StampNetwork, x: Tensor, batch: int = 256) -> Tensor:
    """Logits (N, K) of a normalised tensor (N, 3, S, S), in full precision, on the CPU."""
    device = next(network.parameters()).device
    network.eval()
    parts = [network.heads[HEAD](network.embedding(part.to(device))).cpu() for part in torch.split(x, batch)]
    return torch.cat(parts)


def _batches(n: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Batches without end; every row once before any comes again."""
    left = torch.empty(0, dtype=torch.long)
    while True:
        while len(left) < batch:
            left = torch.cat([left, torch.randperm(n, generator=generator)])
        yield left[:batch]
        left = left[batch:]


def _gradient_steps(
    network: StampNetwork,
    survey: Survey,
    recipe: Recipe,
    count: int,
    optimizer: torch.optim.Optimizer,
    rate: Callable[[int], float],
    seed: int,
    penalty: Callable[[], Tensor] | None = None,
) -> Iterator[int]:
    """Train a network in place for `count` steps; yields the number of each step once it is done."""
    device = next(network.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    network.train()
    for step, rows in zip(range(count), _batches(len(survey), recipe.batch, generator), strict=False):
        batch = recipe.augmentation(survey.x[rows].to(device), generator)
        batch = batch.contiguous(memory_format=torch.channels_last)  # a quarter faster on the CPU
        with fast_math(device):
            output = network.heads[HEAD](network.embedding(batch))
        losses = F.cross_entropy(output.float(), survey.y[rows].to(device), reduction="none")
        loss = (survey.weight[rows].to(device) * losses).mean()
        if penalty is not None:
            loss = loss + penalty()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, _LARGEST_GRADIENT)
        optimizer.step()
        schedule.step()
        yield step + 1


def fine_tune(
    network: StampNetwork,
    survey: Survey,
    recipe: Recipe,
    seed: int,
    on_step: Callable[[], None] = lambda: None,
) -> list[Weights]:
    """Train all layers of a network whose batch statistics are folded.

    Parameters
    ----------
    network : StampNetwork
        With a head `HEAD`; changed in place.
    survey : Survey
        Rows to train on.
    recipe : Recipe
    seed : int
    on_step : callable
        Called after every step.

    Returns
    -------
    list of Weights
        Running averages of the weights after the steps `Recipe.marks`.
    """
    stages = [network.stem, *network.stages, network.embed, network.heads]
    rates = [recipe.learning_rate * recipe.decay ** (len(stages) - 1 - depth) for depth in range(len(stages))]
    groups = [{"params": list(s.parameters()), "lr": r} for s, r in zip(stages, rates, strict=True)]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0, fused=True)
    warm = max(1, round(_WARM_UP * recipe.steps))
    parameters = [p for stage in stages for p in stage.parameters()]
    start = [p.detach().clone() for p in parameters]
    mean = [p.detach().clone() for p in parameters]

    def pull() -> Tensor:
        return recipe.anchor * cast(
            Tensor, sum(((p - q) ** 2).sum() for p, q in zip(parameters, start, strict=True))
        )

    names = {id(p): name for name, p in network.named_parameters()}
    kept: list[Weights] = []
    steps = _gradient_steps(
        network, survey, recipe, recipe.steps, optimizer, lambda step: min(1.0, (step + 1) / warm), seed,
        pull if recipe.anchor else None,
    )  # fmt: skip
    for step in steps:
        torch._foreach_lerp_(mean, [p.detach() for p in parameters], (_RECENT + 1) / (step + _RECENT))
        if step in recipe.marks:
            kept.append({names[id(p)]: m.cpu().clone() for p, m in zip(parameters, mean, strict=True)})
        on_step()
    return kept


def train_from_scratch(
    config: NetworkConfig,
    classes: int,
    survey: Survey,
    recipe: Recipe,
    seed: int,
    device: torch.device,
    on_step: Callable[[], None] = lambda: None,
) -> StampNetwork:
    """Train from random weights with the care that a rival deserves: batch statistics, annealing.

    Parameters
    ----------
    config : NetworkConfig
        Shape of the network.
    classes : int
    survey : Survey
        All that the network ever sees.
    recipe : Recipe
        Of the transfer that it is compared with: steps, batch and augmentation.
    seed : int
    device : torch.device
    on_step : callable
        Called after every step.

    Returns
    -------
    StampNetwork
        With its batch statistics folded.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = StampNetwork({HEAD: classes}, config).to(device)
    count = round(SCRATCH_LENGTH * recipe.steps)
    optimizer = torch.optim.AdamW(
        network.parameters(), _SCRATCH_RATE, weight_decay=_SCRATCH_DECAY, fused=True
    )

    def rate(step: int) -> float:
        return min(1.0, 10 * (step + 1) / count) * (1 + math.cos(math.pi * step / count)) / 2

    for _ in _gradient_steps(network, survey, recipe, count, optimizer, rate, seed):
        on_step()
    return network.eval().fold()
