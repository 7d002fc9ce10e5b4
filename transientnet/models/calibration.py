"""From logits to probabilities that mean something, and to sets of classes that hold the true one.

`Calibration`, `Threshold` and `Conformal` are what the fields ``calibration``, ``thresholds`` and
``conformal`` of a model's record hold as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from ..files.strict_json import plain

__all__ = [
    "LEVELS",
    "Calibration",
    "Conformal",
    "Coverage",
    "Fit",
    "Threshold",
    "apply",
    "prediction_sets",
    "sets_of",
    "softmax",
]

FloatArray = npt.NDArray[np.float64]
Interval = tuple[float, float]

LEVELS = (0.9, 0.95, 0.99)
"""Coverages of prediction sets that are stored with a model."""


@dataclass(frozen=True, slots=True)
class Fit:
    """How well probabilities agree with labels.

    Attributes
    ----------
    nll : float
        Negative log likelihood per candidate, nats.
    ece : float
        Expected calibration error, with its 95 % interval `ece_interval`.
    """

    nll: float
    ece: float
    ece_interval: Interval


@dataclass(frozen=True, slots=True)
class Calibration:
    """``softmax(logits / temperature + bias)``, and what it gained.

    Attributes
    ----------
    temperature : float
    bias : tuple of float, length K
        Empty without one.
    method : {"temperature", "temperature-bias"}
    n : int
        Held-out candidates that it was fitted on.
    before, after : Fit or None
        Uncalibrated, and calibrated out of fold.
    """

    temperature: float = 1.0
    bias: tuple[float, ...] = ()
    method: str = "temperature"
    n: int = 0
    before: Fit | None = None
    after: Fit | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read the record's field ``calibration``; an empty one changes nothing."""

        def fit(key: str) -> Fit | None:
            figures = data.get(key)
            return Fit(figures["nll"], figures["ece"], tuple(figures["ece_interval"])) if figures else None

        return cls(
            float(data.get("temperature", 1.0)),
            tuple(data.get("bias", ())),
            str(data.get("method", "temperature")),
            int(data.get("n", 0)),
            fit("before"),
            fit("after"),
        )

    def to_dict(self) -> dict[str, Any]:
        """The record's field ``calibration``."""
        data = {"method": self.method, **plain(self)}
        return {key: value for key, value in data.items() if value not in (None, [])}

    def apply(self, logits: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Calibrated probabilities (N, K) of logits (N, K)."""
        z: FloatArray = np.asarray(logits, np.float64) / self.temperature
        return softmax(z + np.asarray(self.bias or 0.0, np.float64)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Threshold:
    """A cut on one class's probability, and what it did to held-out candidates.

    Attributes
    ----------
    name : str
        The class; ``class`` in the record.
    false_positive_rate : float
        Asked for; `measured_false_positive_rate` is what came out.
    threshold : float
        A candidate passes with a probability of at least this; bootstrap interval `threshold_interval`.
    recall : float
        Share of the class that passes. `false_positive_interval` and `recall_interval` are exact.
    n_negative, n_positive : int
        Held-out candidates of the other classes and of this one.
    """

    name: str
    false_positive_rate: float
    threshold: float
    threshold_interval: Interval
    measured_false_positive_rate: float
    false_positive_interval: Interval
    recall: float
    recall_interval: Interval
    n_negative: int
    n_positive: int

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read one of the record's ``thresholds``."""
        values = _with_tuples(data)
        return cls(values.pop("class"), **values)

    def to_dict(self) -> dict[str, Any]:
        """One of the record's ``thresholds``."""
        data: dict[str, Any] = plain(self)
        return {"class": data.pop("name"), **data}


@dataclass(frozen=True, slots=True)
class Coverage:
    """Prediction sets at one level.

    Attributes
    ----------
    cutoffs : tuple of float, length K
        Least probability with which each class is in the set.
    coverage, mean_size : float or None
        Share of held-out candidates whose set holds their class, and classes per set; cross-validated,
        None where no candidate could be left out. `coverage_interval` is exact.
    class_coverage : tuple of (float or None), length K
    """

    cutoffs: tuple[float, ...]
    coverage: float | None = None
    coverage_interval: Interval = (0.0, 1.0)
    class_coverage: tuple[float | None, ...] = ()
    mean_size: float | None = None


@dataclass(frozen=True, slots=True)
class Conformal:
    """Split-conformal prediction sets of a model.

    Attributes
    ----------
    method : str
    n : tuple of int, length K
        Held-out candidates of each class.
    levels : mapping of str to Coverage
        By the coverage asked for, as text: ``"0.95"``.
    """

    method: str = "class-conditional"
    n: tuple[int, ...] = ()
    levels: Mapping[str, Coverage] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read the record's field ``conformal``; an empty one has no level."""
        levels = {level: Coverage(**_with_tuples(values)) for level, values in data.get("levels", {}).items()}
        return cls(data.get("method", "class-conditional"), tuple(data.get("n", ())), levels)

    def to_dict(self) -> dict[str, Any]:
        """The record's field ``conformal``."""
        data: dict[str, Any] = plain(self)
        return data

    def sets(self, probabilities: npt.ArrayLike, level: float) -> npt.NDArray[np.bool_]:
        """Sets of classes that hold the true one at the stated level.

        Parameters
        ----------
        probabilities : array_like, shape (N, K)
            Calibrated; NaN rows give empty sets.
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
        if f"{level:g}" not in self.levels:
            known = (
                f"it has {', '.join(self.levels)}" if self.levels else "it has none: it was never calibrated"
            )
            raise UsageError(f"the model has no prediction sets at level {level:g}; {known}")
        p = np.asarray(probabilities, np.float32)
        inside = np.zeros(p.shape, bool)
        usable = np.isfinite(p).all(axis=1)
        inside[usable] = sets_of(p[usable], self.levels[f"{level:g}"].cutoffs)
        return inside


def _with_tuples(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}


def apply(logits: npt.ArrayLike, calibration: Calibration | Mapping[str, Any]) -> npt.NDArray[np.float32]:
    """Calibrated probabilities (N, K) of logits (N, K), by a calibration or the record's JSON of one."""
    if not isinstance(calibration, Calibration):
        calibration = Calibration.from_dict(calibration)
    return calibration.apply(logits)


def prediction_sets(
    probabilities: npt.ArrayLike, conformal: Conformal | Mapping[str, Any], level: float
) -> npt.NDArray[np.bool_]:
    """Sets (N, K) of classes, by `Conformal.sets` or the record's JSON of one."""
    if not isinstance(conformal, Conformal):
        conformal = Conformal.from_dict(conformal)
    return conformal.sets(probabilities, level)


def softmax(z: FloatArray) -> FloatArray:
    """Rows of probabilities (N, K) from logits, without overflow."""
    weights: FloatArray = np.exp(z - z.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    return weights


def sets_of(p: npt.NDArray[np.float32], cutoffs: Sequence[float]) -> npt.NDArray[np.bool_]:
    """Which classes reach their cutoffs, shape (N, K); the likeliest where none does."""
    inside: npt.NDArray[np.bool_] = p >= np.asarray(cutoffs, np.float32)
    # A candidate unlike every class has an empty set; the best guess says more than nothing.
    empty = ~inside.any(axis=1)
    inside[empty, p[empty].argmax(axis=1)] = True
    return inside
