"""A stamp model as meas_transiNet loads one: this file, a checkpoint and a meta file, and torch alone.

`GRAPH` lists the operators of the model from raw stamps to calibrated probabilities, in the order of their
work; `transientnet models export` writes it from the model's own ONNX graph. The module below walks it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["StampModel"]

GRAPH = json.loads('{"tensors": [], "nodes": [], "stamps": 0, "fwhm": 1, "score": 2}')

Values = Sequence[Any]
Attributes = dict[str, Any]


def _axes(value: Tensor | None) -> tuple[int, ...]:
    return () if value is None else tuple(value.reshape(-1).tolist())


def _div(a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _slice(
    x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None
) -> Tensor:
    bounds = zip(
        _axes(starts),
        _axes(ends),
        _axes(axes) if axes is not None else range(x.dim()),
        _axes(steps) if steps is not None else (1,) * x.dim(),
        strict=False,
    )
    for start, end, axis, step in bounds:
        index: list[Any] = [slice(None)] * x.dim()
        index[axis] = slice(start, end, step)
        x = x[tuple(index)]
    return x


def _gather(x: Tensor, indices: Tensor, axis: int) -> Tensor:
    axis %= x.dim()
    wrapped = torch.where(indices < 0, indices + x.shape[axis], indices)
    taken = x.index_select(axis, wrapped.reshape(-1))
    return taken.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def _reshape(x: Tensor, shape: Tensor, allowzero: int) -> Tensor:
    dims = _axes(shape)
    return x.reshape(dims if allowzero else [d or x.shape[i] for i, d in enumerate(dims)])


def _squeezed(x: Tensor, axes: Tensor | None) -> Tensor:
    return x.squeeze(_axes(axes)) if axes is not None else x.squeeze()


def _unsqueezed(x: Tensor, axes: Tensor) -> Tensor:
    rank = x.dim() + axes.numel()
    for axis in sorted(axis % rank for axis in _axes(axes)):
        x = x.unsqueeze(axis)
    return x


def _reduced(kind: Callable[..., Tensor]) -> Callable[[Values, Attributes], Tensor]:
    def reduce(v: Values, a: Attributes) -> Tensor:
        axes = _axes(v[1] if len(v) > 1 else None) or tuple(range(v[0].dim()))
        return kind(v[0], axes, keepdim=bool(a.get("keepdims", 1)))

    return reduce


def _pad(x: Tensor, pads: Tensor, value: Tensor | None = None) -> Tensor:
    sizes, rank = _axes(pads), x.dim()
    pairs = [size for axis in reversed(range(rank)) for size in (sizes[axis], sizes[axis + rank])]
    return F.pad(x, pairs, value=0 if value is None else value.item())


def _top(v: Values, a: Attributes) -> tuple[Tensor, Tensor]:
    axis, count, largest = a.get("axis", -1), _axes(v[1])[0], bool(a.get("largest", 1))
    if not a.get("sorted", 1):
        values, places = torch.topk(v[0], count, axis, largest=largest, sorted=False)
        return values, places
    # Of equals the first comes first, which `topk` does not promise.
    values, places = torch.sort(v[0], dim=axis, descending=largest, stable=True)
    return values.narrow(axis, 0, count), places.narrow(axis, 0, count)


def _put(x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    return x.index_put(tuple(indices.unbind(-1)), updates)


def _put_elements(v: Values, a: Attributes) -> Tensor:
    x: Tensor = v[0]
    axis = a.get("axis", 0)
    return x.scatter_add(axis, *v[1:]) if a.get("reduction") == "add" else x.scatter(axis, *v[1:])


def _expand(x: Tensor, shape: Tensor) -> Tensor:
    dims = _axes(shape)
    x = x.reshape((1,) * (len(dims) - x.dim()) + tuple(x.shape))
    # One-sided expansion is not enough: a dimension of the shape may be 1 where the tensor's is longer.
    return x.expand([-1 if dim == 1 else dim for dim in dims])


def _running(x: Tensor, axis: Tensor, reverse: int) -> Tensor:
    along = int(axis)
    return x.flip(along).cumsum(along).flip(along) if reverse else x.cumsum(along, dtype=x.dtype)


def _conv(v: Values, a: Attributes) -> Tensor:
    rank = v[0].dim() - 2
    pads = a.get("pads", [0] * 2 * rank)
    sides = [size for axis in reversed(range(rank)) for size in (pads[axis], pads[axis + rank])]
    kernel = {"stride": a.get("strides", 1), "dilation": a.get("dilations", 1), "groups": a.get("group", 1)}
    return F.conv2d(F.pad(v[0], sides), v[1], v[2] if len(v) > 2 else None, **kernel)


def _gemm(v: Values, a: Attributes) -> Tensor:
    left, right = (x.T if a.get(key) else x for x, key in ((v[0], "transA"), (v[1], "transB")))
    product: Tensor = a.get("alpha", 1.0) * (left @ right)
    return product + a.get("beta", 1.0) * v[2] if len(v) > 2 else product


def _average_pool(v: Values, a: Attributes) -> Tensor:
    pads = a.get("pads", [0, 0, 0, 0])
    return F.avg_pool2d(
        v[0], a["kernel_shape"], a.get("strides", 1), pads[:2], bool(a.get("ceil_mode")),
        bool(a.get("count_include_pad")),
    )  # fmt: skip


def _clip(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    return torch.clamp(x, low, high)


OPERATORS: dict[str, Callable[[Values, Attributes], Any]] = {
    "Abs": lambda v, a: v[0].abs(),
    "Add": lambda v, a: v[0] + v[1],
    "And": lambda v, a: v[0] & v[1],
    "AveragePool": _average_pool,
    "Cast": lambda v, a: v[0].to(getattr(torch, a["to"])),
    "Clip": lambda v, a: _clip(*v),
    "Ceil": lambda v, a: v[0].ceil(),
    "Concat": lambda v, a: torch.cat(list(v), a["axis"]),
    "Conv": _conv,
    "CumSum": lambda v, a: _running(v[0], v[1], a.get("reverse", 0)),
    "Div": lambda v, a: _div(*v),
    "Equal": lambda v, a: v[0] == v[1],
    "Erf": lambda v, a: v[0].erf(),
    "Exp": lambda v, a: v[0].exp(),
    "Expand": lambda v, a: _expand(*v),
    "Flatten": lambda v, a: v[0].flatten(a.get("axis", 1)),
    "Floor": lambda v, a: v[0].floor(),
    "Gather": lambda v, a: _gather(v[0], v[1], a.get("axis", 0)),
    "GatherElements": lambda v, a: v[0].gather(a.get("axis", 0), v[1]),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda v, a: v[0].mean(tuple(range(2, v[0].dim())), keepdim=True),
    "Greater": lambda v, a: v[0] > v[1],
    "GreaterOrEqual": lambda v, a: v[0] >= v[1],
    "Identity": lambda v, a: v[0],
    "IsNaN": lambda v, a: v[0].isnan(),
    "Less": lambda v, a: v[0] < v[1],
    "LessOrEqual": lambda v, a: v[0] <= v[1],
    "Log": lambda v, a: v[0].log(),
    "MatMul": lambda v, a: v[0] @ v[1],
    "Max": lambda v, a: torch.maximum(*v),
    "Min": lambda v, a: torch.minimum(*v),
    "Mod": lambda v, a: torch.remainder(*v),
    "Mul": lambda v, a: v[0] * v[1],
    "Neg": lambda v, a: -v[0],
    "NonZero": lambda v, a: v[0].nonzero().T,
    "Not": lambda v, a: ~v[0],
    "Or": lambda v, a: v[0] | v[1],
    "Pad": lambda v, a: _pad(*v[:3]),
    "Pow": lambda v, a: v[0] ** v[1],
    "Range": lambda v, a: torch.arange(*(int(x) for x in v), device=v[0].device),
    "Reciprocal": lambda v, a: v[0].reciprocal(),
    "ReduceMax": _reduced(torch.amax),
    "ReduceMean": _reduced(torch.mean),
    "ReduceMin": _reduced(torch.amin),
    "ReduceSum": _reduced(torch.sum),
    "Relu": lambda v, a: v[0].relu(),
    "Reshape": lambda v, a: _reshape(v[0], v[1], a.get("allowzero", 0)),
    "Round": lambda v, a: v[0].round(),
    "ScatterElements": _put_elements,
    "ScatterND": lambda v, a: _put(*v),
    "Shape": lambda v, a: torch.tensor(v[0].shape[a.get("start", 0) : a.get("end")], device=v[0].device),
    "Sigmoid": lambda v, a: v[0].sigmoid(),
    "Sign": lambda v, a: v[0].sign(),
    "Sinh": lambda v, a: v[0].sinh(),
    "Slice": lambda v, a: _slice(*v),
    "Softmax": lambda v, a: v[0].softmax(a.get("axis", -1)),
    "Sqrt": lambda v, a: v[0].sqrt(),
    "Squeeze": lambda v, a: _squeezed(v[0], v[1] if len(v) > 1 else None),
    "Sub": lambda v, a: v[0] - v[1],
    "Tanh": lambda v, a: v[0].tanh(),
    "TopK": _top,
    "Transpose": lambda v, a: v[0].permute(a["perm"]),
    "Unsqueeze": lambda v, a: _unsqueezed(*v),
    "Where": lambda v, a: torch.where(*v),
}


class StampModel(nn.Module):
    """Calibrated probability that a candidate is real.

    NaN where there is nothing to judge, such as a blank stamp. The seeing is estimated from the science
    stamp, as for files that do not say it.
    """

    def __init__(self) -> None:
        super().__init__()
        for number, (kind, shape) in enumerate(GRAPH["tensors"]):
            self.register_buffer(f"t{number}", torch.zeros(shape, dtype=getattr(torch, kind)))
        # A value is kept no longer than it is needed.
        last = {value: at for at, node in enumerate(GRAPH["nodes"]) for value in node[1]}
        self._done = [[v for v in set(node[1]) if last[v] == at] for at, node in enumerate(GRAPH["nodes"])]

    def forward(self, blob: Tensor) -> Tensor:
        """Probabilities (N, 1) of stamps (N, 3, H, W): difference, science, template."""
        values: dict[int, Any] = {-1: None}
        values.update((number, buffer) for number, buffer in enumerate(self.buffers()))
        values[GRAPH["stamps"]] = blob.float()[:, [1, 2, 0]]
        values[GRAPH["fwhm"]] = blob.new_zeros(len(blob), dtype=torch.float32)
        for (kind, inputs, outputs, attributes), done in zip(GRAPH["nodes"], self._done, strict=True):
            found = OPERATORS[kind]([values[i] for i in inputs], attributes)
            values.update(zip(outputs, found if kind == "TopK" else (found,), strict=False))
            for value in done:
                if value >= 0 and value != GRAPH["score"]:
                    del values[value]
        score: Tensor = values[GRAPH["score"]]
        return score.reshape(-1, 1)
