"""Fine-tuning: from one network to the averaged weights along its way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .augment import Augmentation
from .network import StampNetwork

__all__ = [
    "HEAD",
    "Recipe",
    "Weights",
    "average",
    "batches",
    "fast_math",
    "fine_tune",
    "get_weights",
    "logits_of",
    "set_weights",
]

HEAD = "survey"
"""Name of the head that adapting trains."""

Weights = dict[str, Tensor]

# The average of the weights reaches back over about 1 / (1 + this) of the steps so far.
_RECENT = 6.0
_WARM_UP = 0.1
_LARGEST_GRADIENT = 5.0


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
        # torch < 2.10 cannot tell.
        tell: Callable[[], dict[str, Any]] = getattr(torch.cpu, "get_capabilities", dict)
        able = bool(tell().get("avx512_bf16") or tell().get("amx_bf16"))
    else:
        able = torch.cuda.is_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=able)


@torch.inference_mode()
def logits_of(network: StampNetwork, x: Tensor, batch: int = 256) -> Tensor:
    """Logits (N, K) of a normalised tensor, in full precision, on the CPU."""
    device = next(network.parameters()).device
    network.eval()
    parts = [network.heads[HEAD](network.embedding(part.to(device))).cpu() for part in torch.split(x, batch)]
    return torch.cat(parts)


def batches(n: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Batches without end; every row once before any comes again."""
    left = torch.empty(0, dtype=torch.long)
    while True:
        while len(left) < batch:
            left = torch.cat([left, torch.randperm(n, generator=generator)])
        yield left[:batch]
        left = left[batch:]


def _stages(network: StampNetwork) -> list[nn.Module]:
    return [network.stem, *network.stages, network.embed, network.heads]


def fine_tune(
    network: StampNetwork,
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    recipe: Recipe,
    seed: int,
    on_step: Callable[[], None] = lambda: None,
) -> list[Weights]:
    """Train all layers of a network whose batch statistics are folded.

    Parameters
    ----------
    network : StampNetwork
        With a head `HEAD`; changed in place.
    x : Tensor, shape (N, 3, S, S)
        Normalised stamps.
    y : Tensor of int64, shape (N,)
    weight : Tensor, shape (N,)
        Weight of each row in the loss; mean 1.
    recipe : Recipe
    seed : int
    on_step : callable
        Called after every step.

    Returns
    -------
    list of Weights
        Running averages of the weights at equal distances, last one at the end.
    """
    device = next(network.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    stages = _stages(network)
    rates = [recipe.decay ** (len(stages) - 1 - depth) for depth in range(len(stages))]
    optimizer = torch.optim.AdamW(
        [
            {"params": list(stage.parameters()), "lr": recipe.learning_rate * rate}
            for stage, rate in zip(stages, rates, strict=True)
        ],
        weight_decay=0.0,
        fused=True,
    )
    warm = max(1, round(_WARM_UP * recipe.steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / warm))
    parameters = [p for stage in stages for p in stage.parameters()]
    start = [p.detach().clone() for p in parameters]
    mean = [p.detach().clone() for p in parameters]
    marks = {round(recipe.steps * (k + 1) / recipe.snapshots) for k in range(recipe.snapshots)}
    kept: list[Weights] = []
    network.train()
    for step, rows in enumerate(batches(len(x), recipe.batch, generator)):
        if step == recipe.steps:
            break
        batch = recipe.augmentation(x[rows].to(device), generator)
        batch = batch.contiguous(memory_format=torch.channels_last)  # a quarter faster on the CPU
        with fast_math(device):
            output = network.heads[HEAD](network.embedding(batch))
        losses = F.cross_entropy(output.float(), y[rows].to(device), reduction="none")
        loss = (weight[rows].to(device) * losses).mean()
        if recipe.anchor:
            loss = loss + recipe.anchor * cast(
                Tensor, sum(((p - q) ** 2).sum() for p, q in zip(parameters, start, strict=True))
            )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, _LARGEST_GRADIENT)
        optimizer.step()
        schedule.step()
        share = (_RECENT + 1) / (step + 1 + _RECENT)
        torch._foreach_lerp_(mean, [p.detach() for p in parameters], share)
        if step + 1 in marks:
            names = {id(p): name for name, p in network.named_parameters()}
            kept.append({names[id(p)]: m.cpu().clone() for p, m in zip(parameters, mean, strict=True)})
        on_step()
    return kept
