"""The network: a small residual CNN whose answer does not change when a stamp is turned or flipped.

Every convolution commutes with D4, the eight turns and flips of the square (Cohen & Welling 2016,
arXiv 1602.07576): some features come in sets of eight orientations that share weights, others have
no orientation and kernels that are their own mirror image. Written out, it is an ordinary
convolution, and that is what the ONNX file holds. Stamps enter as a fovea (the central half at full
sampling) beside the whole field at half sampling, so that the expensive layers see 31x31 pixels
instead of 63x63; and once more as fluxes in units of the central peak, where the shape of a bright
source shows that the logarithm of the first scale hides. Beside what is seen stands how much the
planes agree: the noise of a difference is that of the images it was made of, pixel by pixel, so it
correlates with theirs; a plane of another candidate does not. Convolutions with stride 2 and no padding
keep the grid's centre: 63, 31, 15, 7, 3.

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

# Beyond this the tensor's hyperbolic sine means nothing but "saturated".
_LARGEST = 15.0
# The central peak is looked for this far from the candidate, in pixels.
_PEAK_REACH = 5
# Neighbours are cut off at so many peaks; the peak itself gets the spread that the other scale has.
_MOST_PEAKS, _PEAK_SCALE = 3.0, 3.0
# Planes whose noise is compared; no pixel counts for more than so much of the tensor's scale.
_PAIRS = ((0, 2), (1, 2), (0, 1))
_MOST_NOISE = 0.5
# Of an absent plane, which correlates with none.
_LEAST_POWER = 1e-4


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """Shape of the network.

    Attributes
    ----------
    oriented, plain : tuple of int
        Features at 31, 15, 7 and 3 pixels, see `Width`.
    blocks : tuple of int
        Residual blocks at 15, 7 and 3 pixels.
    features : int
        Length of the invariant feature vector before the head.
    agreement : bool
        Whether the correlations of the planes' noise are among what the features are made of; models
        before 0.2.0 lack them.
    """

    oriented: tuple[int, ...] = (1, 2, 4, 6)
    plain: tuple[int, ...] = (8, 16, 32, 36)
    blocks: tuple[int, ...] = (1, 1, 1)
    features: int = 64
    agreement: bool = True

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> NetworkConfig:
        """From the field ``network`` of a record."""
        return cls(
            tuple(data["oriented"]),
            tuple(data["plain"]),
            tuple(data["blocks"]),
            int(data["features"]),
            bool(data.get("agreement", False)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
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


@dataclass(frozen=True, slots=True)
class Width:
    """How many features a layer has.

    Attributes
    ----------
    oriented : int
        Sets of eight orientations (the regular representation of D4): 8 channels each.
    plain : int
        Features without orientation (the trivial representation): 1 channel each.
    """

    oriented: int
    plain: int

    @property
    def channels(self) -> int:
        return 8 * self.oriented + self.plain


def _orbits(size: int) -> Tensor:
    """Number of the orbit under D4 that each pixel of a (size, size) kernel belongs to."""
    turned = torch.stack([_turn(torch.arange(size * size).reshape(size, size), u) for u in range(8)])
    return cast(Tensor, torch.unique(turned.amin(0), return_inverse=True)[1])


class _Conv(nn.Module):
    """Convolution that commutes with turns and flips, between layers of oriented and plain features.

    Four kinds of free weights: oriented to oriented (a kernel per relative orientation), plain to
    oriented and oriented to plain (one kernel, seen in eight orientations), and plain to plain (a
    kernel that is its own image under all turns and flips).
    """

    def __init__(self, inputs: Width, outputs: Width, size: int, stride: int = 1, padding: int = 0):
        super().__init__()
        self.inputs, self.outputs, self.size = inputs, outputs, size
        self.stride, self.padding = stride, padding
        area = size * size
        orbits = _orbits(size)
        std = (2.0 / (inputs.channels * area)) ** 0.5
        self.oo = nn.Parameter(std * torch.randn(outputs.oriented, inputs.oriented, 8 * area))
        self.po = nn.Parameter(std * torch.randn(outputs.oriented, inputs.plain, area))
        self.op = nn.Parameter(std * torch.randn(outputs.plain, inputs.oriented, area))
        self.pp = nn.Parameter(std * torch.randn(outputs.plain, inputs.plain, int(orbits.max()) + 1))
        self.bias = nn.Parameter(torch.zeros(outputs.oriented + outputs.plain))
        turns = torch.stack([_turn(torch.arange(area).reshape(size, size), u) for u in range(8)])
        self.register_buffer("group", _group_index(size), persistent=False)
        self.register_buffer("turns", turns, persistent=False)
        self.register_buffer("orbits", orbits, persistent=False)

    def kernel(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the ordinary convolution that this one is."""
        group, turns, orbits = (cast(Tensor, b) for b in (self.group, self.turns, self.orbits))
        k, rows, columns = self.size, 8 * self.outputs.oriented, 8 * self.inputs.oriented
        oo = self.oo[:, :, group].permute(0, 2, 1, 3, 4, 5).reshape(rows, columns, k, k)
        po = self.po[:, :, turns].permute(0, 2, 1, 3, 4).reshape(rows, self.inputs.plain, k, k)
        op = self.op[:, :, turns].reshape(self.outputs.plain, columns, k, k)
        pp = self.pp[:, :, orbits]
        weight = torch.cat([torch.cat([oo, po], 1), torch.cat([op, pp], 1)], 0)
        oriented = self.outputs.oriented
        return weight, torch.cat([self.bias[:oriented].repeat_interleave(8), self.bias[oriented:]])

    @torch.no_grad()
    def read(self, weight: Tensor, bias: Tensor) -> None:
        """Take the free weights out of a written-out kernel: orientation 0 is the kernel itself."""
        rows, columns = 8 * self.outputs.oriented, 8 * self.inputs.oriented
        self.oo.copy_(weight[:rows:8, :columns].reshape_as(self.oo))
        self.po.copy_(weight[:rows:8, columns:].reshape_as(self.po))
        self.op.copy_(weight[rows:, :columns:8].reshape_as(self.op))
        flat = cast(Tensor, self.orbits).flatten().tolist()
        first = [flat.index(orbit) for orbit in range(self.pp.shape[2])]
        self.pp.copy_(weight[rows:, columns:].flatten(2)[:, :, first])
        self.bias.copy_(torch.cat([bias[:rows:8], bias[rows:]]))

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.kernel()
        return F.conv2d(x, weight, bias, self.stride, self.padding)


class _Norm(nn.Module):
    """Batch normalisation with one statistic for all eight orientations of a feature."""

    def __init__(self, width: Width):
        super().__init__()
        self.oriented = 8 * width.oriented
        self.sets = nn.BatchNorm2d(width.oriented)
        self.plain = nn.BatchNorm2d(width.plain)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        sets, plain = x[:, : self.oriented], x[:, self.oriented :]
        sets = self.sets(sets.reshape(n, self.oriented // 8, 8 * h, w)).reshape(n, self.oriented, h, w)
        return torch.cat([sets, self.plain(plain)], 1)

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """What the running statistics do to each feature."""
        scales, shifts = [], []
        for norm in (self.sets, self.plain):
            scale = norm.weight / torch.sqrt(cast(Tensor, norm.running_var) + norm.eps)
            scales.append(scale)
            shifts.append(norm.bias - cast(Tensor, norm.running_mean) * scale)
        return torch.cat(scales), torch.cat(shifts)


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
        scale, shift = cast(_Norm, self.norm).scale_and_shift()
        oriented = self.conv.outputs.oriented
        for part, factor in (
            (self.conv.oo, scale[:oriented]),
            (self.conv.po, scale[:oriented]),
            (self.conv.op, scale[oriented:]),
            (self.conv.pp, scale[oriented:]),
        ):
            part.mul_(factor[:, None, None])
        self.conv.bias.copy_(self.conv.bias * scale + shift)
        self.norm = nn.Identity()


class _Block(nn.Module):
    def __init__(self, width: Width):
        super().__init__()
        self.first = _ConvNorm(width, width, 3, padding=1)
        self.second = _ConvNorm(width, width, 3, padding=1)

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
        widths = [Width(*pair) for pair in zip(config.oriented, config.plain, strict=True)]
        self.last = widths[-1]
        self.stem = _ConvNorm(Width(0, 12), widths[0], 3, padding=1)
        stages: list[nn.Module] = []
        for before, after, blocks in zip(widths[:-1], widths[1:], config.blocks, strict=True):
            stages.append(
                nn.Sequential(
                    _ConvNorm(before, after, 3, stride=2), nn.ReLU(), *[_Block(after) for _ in range(blocks)]
                )
            )
        self.stages = nn.ModuleList(stages)
        pooled = 2 * (2 * self.last.oriented + self.last.plain)
        if config.agreement:
            pooled += 4 * len(_PAIRS)
        self.embed = nn.Linear(pooled, config.features)
        self.heads = nn.ModuleDict({name: nn.Linear(config.features, count) for name, count in heads.items()})

    @staticmethod
    def _foveate(x: Tensor) -> Tensor:
        """(N, 3, 63, 63) -> (N, 12, 31, 31): the centre at full sampling, the field at half.

        Both in the tensor's own scale, then both in units of the stamp's central peak.
        """
        field = F.avg_pool2d(x, 3, 2)
        side = field.shape[-1]
        start = (x.shape[-1] - side) // 2
        both = torch.cat([x[:, :, start : start + side, start : start + side], field], dim=1)
        # The hyperbolic sine by one exponential: runtimes have a fast one, and no fast sinh.
        grown = torch.exp(both.clamp(-_LARGEST, _LARGEST))
        flux = 0.5 * (grown - 1.0 / grown)
        box = slice(side // 2 - _PEAK_REACH, side // 2 + _PEAK_REACH + 1)
        peak = flux[:, :3, box, box].abs().amax((2, 3), keepdim=True).clamp(min=1.0)
        in_peaks = (flux / torch.cat([peak, peak], dim=1)).clamp(-_MOST_PEAKS, _MOST_PEAKS)
        return torch.cat([both, _PEAK_SCALE * in_peaks], dim=1)

    @staticmethod
    def _agreement(planes: Tensor) -> Tensor:
        """(N, 6, 31, 31), centre and field -> (N, 12): correlations of the planes' noise, and their sizes."""
        rough = planes - F.avg_pool2d(planes, 3, 1, 1, count_include_pad=False)
        rough = rough.clamp(-_MOST_NOISE, _MOST_NOISE).flatten(2)
        found = []
        for first in (0, 3):
            band = rough[:, first : first + 3]
            product = band @ band.transpose(1, 2) / band.shape[2]
            power = [product[:, k, k] + _LEAST_POWER for k in range(3)]
            found += [product[:, i, j] / torch.sqrt(power[i] * power[j]) for i, j in _PAIRS]
        correlation = torch.stack(found, dim=1)
        return torch.cat([correlation, correlation.abs()], dim=1)

    def embedding(self, x: Tensor) -> Tensor:
        """Invariant features (N, F) of a normalised tensor (N, 3, S, S)."""
        seen = self._foveate(x)
        x = F.relu(self.stem(seen))
        for stage in self.stages:
            x = stage(x)
        pooled: list[Tensor] = [self._agreement(seen[:, :6])] if self.config.agreement else []
        for values in (x.mean((2, 3)), x.amax((2, 3))):
            # The shape's own number, not len(): an exported batch must stay free.
            sets = values[:, : 8 * self.last.oriented].reshape(x.shape[0], self.last.oriented, 8)
            pooled += [sets.mean(2), sets.amax(2), values[:, 8 * self.last.oriented :]]
        return F.relu(self.embed(torch.cat(pooled, dim=1)))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Logits of each head for stamps (N, 3, S, S)."""
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
                module.conv.read(weights[f"{path}.weight"], weights[f"{path}.bias"])
        _copy_linear(self.embed, weights, "embed")
        for name, head in self.heads.items():
            weight = weights.get(f"heads.{name}.weight")
            if weight is not None and weight.shape == head.weight.shape:
                _copy_linear(cast(nn.Linear, head), weights, f"heads.{name}")


def _copy_linear(layer: nn.Linear, weights: Mapping[str, Tensor], path: str) -> None:
    layer.weight.copy_(weights[f"{path}.weight"].reshape_as(layer.weight))
    layer.bias.copy_(weights[f"{path}.bias"].reshape_as(layer.bias))
