"""The graph of `transientnet.models.outliers`: is this candidate like what the model was trained on?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from . import outliers
from .raw_graph import Value

__all__ = ["out_of_distribution"]


def out_of_distribution(
    tensor: Value, no_reference: Value, no_difference: Value, size: int, reference: Mapping[str, Any]
) -> Value:
    """Rows whose statistics lie beyond the model's thresholds.

    Parameters
    ----------
    tensor : Value
        float32, shape (N, 3, S, S), prepared.
    no_reference, no_difference : Value
        bool, shape (N,).
    size : int
        S.
    reference : mapping
        From `transientnet.models.outliers.fit_reference`; not empty.
    """
    scores = _normal_scores(_statistics(tensor, size), reference)
    everything, without_reference, without_difference = (
        (scores @ scores.graph.lift(outliers.precision(reference, absent), np.float64) * scores).sum(1) > 1.0
        for absent in ("", "reference", "difference")
    )
    return (
        (~no_reference & ~no_difference & everything)
        | (no_reference & ~no_difference & without_reference)
        | (~no_reference & no_difference & without_difference)
    )


def _statistics(tensor: Value, size: int) -> Value:
    """`input_statistics` as float64, shape (N, 24)."""
    graph, count, pixels = tensor.graph, tensor.dim(0), size * size
    low = (size - outliers.CORE) // 2
    core = tensor.part(2, low, low + outliers.CORE).part(3, low, low + outliers.CORE)
    flat = tensor.reshape(count, 3, pixels)
    power = (flat * flat).sum(2) / float(pixels) + 1e-6
    rms = power.call("Sqrt")
    vertical = (flat.part(2, size) * flat.part(2, 0, -size)).sum(2)
    horizontal = (tensor.part(3, 1) * tensor.part(3, 0, -1)).sum(2, 3)
    likeness = [
        (flat.take(a, axis=1) * flat.take(b, axis=1)).sum(1, keep=True)
        / (rms.part(1, a, a + 1) * rms.part(1, b, b + 1))
        / float(pixels)
        for a, b in outliers.PAIRS
    ]
    return graph.join(
        core.max(2, 3),
        core.mean(2, 3),
        rms.call("Log"),
        (vertical + horizontal) / (power * (2.0 * (pixels - size))),
        flat.mean(2),
        flat.max(2),
        flat.min(2),
        *likeness,
        axis=1,
    ).cast(np.float64)


def _normal_scores(values: Value, reference: Mapping[str, Any]) -> Value:
    """Each statistic (N, 24) on the scale of a unit normal deviate: a sum of ramps between the quantiles."""
    quantiles = np.array([reference["inputs"][name] for name in outliers.STATISTICS])
    deviates = outliers.normal_deviates(quantiles.shape[1])
    scale = outliers.scales(quantiles.T, deviates)
    lowest, highest = quantiles[:, 0], quantiles[:, -1]
    beyond = (values - highest).maximum(0.0) - (-values + lowest).maximum(0.0)
    left, span = quantiles[:, :-1], np.diff(quantiles, axis=1)
    above = values.expand(2) - left
    # Where quantiles coincide the ramp is a step.
    ramp = (above / np.where(span > 0, span, 1.0)).maximum(0.0).minimum(1.0)
    if not span.all():
        step = (above >= 0.0).cast(np.float64)
        flat = values.graph.lift(span == 0, np.bool_)
        ramp = flat.where(step, ramp)
    scores: Value = (ramp * np.diff(deviates)).sum(2) + deviates[0] + beyond / scale
    return scores
