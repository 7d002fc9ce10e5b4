"""The network: a small residual CNN whose answer does not change when a stamp is turned or flipped.

Every convolution is a group convolution over D4, the eight turns and flips of the square (Cohen &
Welling 2016, arXiv 1602.07576): features come in sets of eight orientations that share weights.
Written out, it is an ordinary convolution, and that is what the ONNX file holds. Stamps enter as a
fovea (the central half at full sampling) beside the whole field at half sampling, so that the
expensive layers see 31x31 pixels instead of 63x63. Convolutions with stride 2 and no padding keep
the grid's centre: 63, 31, 15, 7, 3.

Batch statistics serve the first training only: `fold` merges them into the convolutions, so what is
shipped, and what is fine-tuned later, has none.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["NetworkConfig", "StampNetwork"]


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """Shape of the network.

    Attributes
    ----------
    widths : tuple of int
        Feature sets at 31, 15, 7 and 3 pixels; each set is eight orientations.
    blocks : tuple of int
        Residual blocks at 15, 7 and 3 pixels.
    features : int
        Length of the invariant feature vector before the head.
    """

    widths: tuple[int, ...] = (2, 4, 8, 12)
    blocks: tuple[int, ...] = (1, 1, 1)
    features: int = 64

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> NetworkConfig:
        return cls(tuple(data["widths"]), tuple(data["blocks"]), int(data["features"]))

    def to_dict(self) -> dict[str, Any]:
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()
        }


def _turn(grid: Tensor, element: int) -> Tensor:
    """Apply one of the eight elements of D4 to the last two axes."""
    grid = torch.rot90(grid, element % 4, (-2, -1))
    return grid.flip(-1) if element >= 4 else grid


def _permutation(element: int) -> list[int]:
    return cast(list[int], _turn(torch.arange(9).reshape(3, 3), element).flatten().tolist())


def _group_index(size: int) -> Tensor:
    """Where each weight of a written-out kernel comes from: (8 out, 8 in, size, size) into (8, size, size).

    Kernel of output orientation u: turned by u in space, its input orientations shuffled by u.
    """
    table = {tuple(_permutation(u)): u for u in range(8)}
    base = torch.arange(8 * size * size).reshape(8, size, size)
    index = torch.empty(8, 8, size, size, dtype=torch.long)
    corner = torch.arange(9).reshape(3, 3)
    for u in range(8):
        for h in range(8):
            # Orientation h of the base kernel lands at orientation u∘h.
            product = table[tuple(_turn(_turn(corner, h), u).flatten().tolist())]
            index[u, product] = _turn(base[h], u)
    return index


class _Conv(nn.Module):
    """Group convolution with bias; `lift` takes plain channels in."""

    def __init__(
        self, inputs: int, outputs: int, size: int, stride: int = 1, padding: int = 0, lift: bool = False
    ):
        super().__init__()
        self.inputs, self.outputs, self.size = inputs, outputs, size
        self.stride, self.padding, self.lift = stride, padding, lift
        depth = 1 if lift else 8
        self.weight = nn.Parameter(torch.empty(outputs, inputs, depth * size * size))
        nn.init.kaiming_normal_(self.weight.view(outputs, -1), nonlinearity="relu")
        self.bias = nn.Parameter(torch.zeros(outputs))
        if lift:
            index = torch.stack([_turn(torch.arange(size * size).reshape(size, size), u) for u in range(8)])[
                :, None
            ]
        else:
            index = _group_index(size)
        self.register_buffer("index", index, persistent=False)

    def kernel(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the ordinary convolution that this one is."""
        index = cast(Tensor, self.index)
        full = self.weight[:, :, index]  # (out, in, 8, depth, k, k)
        full = full.permute(0, 2, 1, 3, 4, 5).reshape(self.outputs * 8, -1, self.size, self.size)
        return full, self.bias.repeat_interleave(8)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.kernel()
        return F.conv2d(x, weight, bias, self.stride, self.padding)


class _Norm(nn.Module):
    """Batch normalisation over feature sets: one statistic for all eight orientations."""

    def __init__(self, sets: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(sets)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return cast(Tensor, self.norm(x.reshape(n, c // 8, 8 * h, w))).reshape(n, c, h, w)


class _ConvNorm(nn.Module):
    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__()
        self.conv = _Conv(*args, **kwargs)
        self.norm: nn.Module = _Norm(self.conv.outputs)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.norm(self.conv(x)))

    @torch.no_grad()
    def fold(self) -> None:
        """Merge the running statistics into the convolution."""
        if isinstance(self.norm, nn.Identity):
            return
        norm = cast(_Norm, self.norm).norm
        scale = norm.weight / torch.sqrt(cast(Tensor, norm.running_var) + norm.eps)
        self.conv.weight.mul_(scale[:, None, None])
        self.conv.bias.copy_((self.conv.bias - cast(Tensor, norm.running_mean)) * scale + norm.bias)
        self.norm = nn.Identity()


class _Block(nn.Module):
    def __init__(self, sets: int):
        super().__init__()
        self.first = _ConvNorm(sets, sets, 3, padding=1)
        self.second = _ConvNorm(sets, sets, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


class StampNetwork(nn.Module):
    """Trunk and heads.

    Parameters
    ----------
    heads : dict of str to int
        Name and number of classes of each head. A shipped network has one.
    config : NetworkConfig
    """

    def __init__(self, heads: dict[str, int], config: NetworkConfig | None = None):
        super().__init__()
        self.config = config = config or NetworkConfig()
        widths = config.widths
        self.stem = _ConvNorm(6, widths[0], 3, padding=1, lift=True)
        stages: list[nn.Module] = []
        for before, after, blocks in zip(widths[:-1], widths[1:], config.blocks, strict=True):
            stages.append(
                nn.Sequential(
                    _ConvNorm(before, after, 3, stride=2), nn.ReLU(), *[_Block(after) for _ in range(blocks)]
                )
            )
        self.stages = nn.ModuleList(stages)
        self.embed = nn.Linear(4 * widths[-1] + 2 * widths[-2], config.features)
        self.heads = nn.ModuleDict({name: nn.Linear(config.features, count) for name, count in heads.items()})

    @staticmethod
    def _foveate(x: Tensor) -> Tensor:
        """(N, 3, 63, 63) -> (N, 6, 31, 31): the centre at full sampling, the field at half."""
        field = F.avg_pool2d(x, 3, 2)
        side = field.shape[-1]
        start = (x.shape[-1] - side) // 2
        return torch.cat([x[:, :, start : start + side, start : start + side], field], dim=1)

    def embedding(self, x: Tensor) -> Tensor:
        """Invariant features (N, F) of a normalised tensor (N, 3, S, S)."""
        x = F.relu(self.stem(self._foveate(x)))
        pooled: list[Tensor] = []
        for depth, stage in enumerate(self.stages):
            x = stage(x)
            if depth >= len(self.stages) - 2:
                last = depth == len(self.stages) - 1
                pooled += self._pool(x, with_mean=last)
        return F.relu(self.embed(torch.cat(pooled, dim=1)))

    @staticmethod
    def _pool(x: Tensor, with_mean: bool) -> list[Tensor]:
        """Invariants: over the eight orientations, of the central pixel and of the whole grid."""
        n, c, h, w = x.shape
        centre = x[:, :, h // 2, w // 2].reshape(n, c // 8, 8)
        pooled = [centre.mean(2), centre.amax(2)]
        if with_mean:
            mean = x.mean((2, 3)).reshape(n, c // 8, 8)
            pooled += [mean.mean(2), mean.amax(2)]
        return pooled

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.embedding(x)
        return {name: head(features) for name, head in self.heads.items()}

    def fold(self) -> StampNetwork:
        """Merge batch statistics into the weights, in place."""
        for module in self.modules():
            if isinstance(module, _ConvNorm):
                module.fold()
        return self

    def written_out(self) -> StampNetwork:
        """A copy without batch statistics in which every convolution is an ordinary one."""
        network = copy.deepcopy(self).fold().eval()
        for path, module in list(network.named_modules()):
            if isinstance(module, _ConvNorm):
                source = module.conv
                weight, bias = source.kernel()
                plain = nn.Conv2d(weight.shape[1], len(weight), source.size, source.stride, source.padding)
                plain.weight.data, plain.bias = weight.detach(), nn.Parameter(bias.detach())
                network.set_submodule(path, plain)
        return network

    @torch.no_grad()
    def read_written_out(self, weights: Mapping[str, Tensor]) -> None:
        """Take the weights of a network that was written out; the inverse of `written_out`.

        Heads that the weights lack, or that have another size, keep their own.

        Raises
        ------
        KeyError
            If `weights` lacks a part of the trunk.
        RuntimeError
            If a part has another shape.
        """
        self.fold()
        for path, module in self.named_modules():
            if isinstance(module, _ConvNorm):
                conv = module.conv
                # Output orientation 0 is the base kernel itself.
                conv.weight.copy_(weights[f"{path}.weight"][::8].reshape_as(conv.weight))
                conv.bias.copy_(weights[f"{path}.bias"][::8])
        _copy_linear(self.embed, weights, "embed")
        for name, head in self.heads.items():
            weight = weights.get(f"heads.{name}.weight")
            if weight is not None and weight.shape == head.weight.shape:
                _copy_linear(cast(nn.Linear, head), weights, f"heads.{name}")


def _copy_linear(layer: nn.Linear, weights: Mapping[str, Tensor], path: str) -> None:
    layer.weight.copy_(weights[f"{path}.weight"].reshape_as(layer.weight))
    layer.bias.copy_(weights[f"{path}.bias"].reshape_as(layer.bias))
