"""From logits to probabilities that mean something, and to sets of classes that hold the true one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UsageError

__all__ = ["LEVELS", "apply", "prediction_sets", "set_names", "sets_of", "softmax"]

FloatArray = npt.NDArray[np.float64]

LEVELS = (0.9, 0.95, 0.99)
"""Coverages of prediction sets that are stored with a model."""


def apply(logits: npt.ArrayLike, calibration: Mapping[str, Any]) -> npt.NDArray[np.float32]:
    """Calibrated probabilities: ``softmax(logits / temperature + bias)``.

    Parameters
    ----------
    logits : array_like, shape (N, K)
    calibration : mapping
        ``temperature`` (1 if absent) and, for the method ``temperature-bias``, ``bias`` (K,).

    Returns
    -------
    ndarray of float32, shape (N, K)
    """
    z: FloatArray = np.asarray(logits, np.float64) / float(calibration.get("temperature", 1.0))
    z = z + np.asarray(calibration.get("bias", 0.0), np.float64)
    return softmax(z).astype(np.float32)


def softmax(z: FloatArray) -> FloatArray:
    weights: FloatArray = np.exp(z - z.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    return weights


def sets_of(p: npt.NDArray[np.float32], cutoffs: Sequence[float]) -> npt.NDArray[np.bool_]:
    inside: npt.NDArray[np.bool_] = p >= np.asarray(cutoffs, np.float32)
    # A candidate unlike every class has an empty set; the best guess says more than nothing.
    empty = ~inside.any(axis=1)
    inside[empty, p[empty].argmax(axis=1)] = True
    return inside


def prediction_sets(
    probabilities: npt.ArrayLike, conformal: Mapping[str, Any], level: float
) -> npt.NDArray[np.bool_]:
    """Sets of classes that hold the true one at the stated level.

    Parameters
    ----------
    probabilities : array_like, shape (N, K)
        Calibrated; NaN rows give empty sets.
    conformal : mapping
        From `fit_conformal`.
    level : float
        One of the stored levels.

    Returns
    -------
    ndarray of bool, shape (N, K)

    Raises
    ------
    UsageError
        If the model has no sets at that level.
    """
    stored = conformal.get("levels", {})
    if f"{level:g}" not in stored:
        known = f"it has {', '.join(stored)}" if stored else "it has none: it was never calibrated"
        raise UsageError(f"the model has no prediction sets at level {level:g}; {known}")
    p = np.asarray(probabilities, np.float32)
    inside = np.zeros(p.shape, bool)
    usable = np.isfinite(p).all(axis=1)
    inside[usable] = sets_of(p[usable], stored[f"{level:g}"]["cutoffs"])
    return inside


def set_names(inside: npt.NDArray[np.bool_], classes: Sequence[str]) -> npt.NDArray[np.str_]:
    """Sets as text, the class names joined by ``|``: the column ``set`` of a score table."""
    return np.array(
        ["|".join(c for c, there in zip(classes, row, strict=True) if there) for row in inside], str
    )
