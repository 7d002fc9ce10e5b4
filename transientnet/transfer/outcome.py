"""What an adaptation found: the figures behind ``metrics.json``, and what they mean in words. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..files.strict_json import plain
from ..labels.table import Labels
from ..models.calibration import Calibration
from ..models.record import ModelRecord
from ..prepare.preprocess import Prepared
from .config import AdaptConfig

__all__ = [
    "AdaptMetrics",
    "AdaptResult",
    "Choice",
    "Comparison",
    "CurvePoint",
    "Doubt",
    "Judgement",
    "LabelSummary",
    "LeftOut",
    "NightFit",
    "NightMetrics",
    "Rise",
    "in_words",
    "versus",
]

_FLAT = 0.01
"""A gain of balanced accuracy below this is not worth labelling for."""


@dataclass(frozen=True, slots=True)
class LabelSummary:
    """The labels of a run: rows used, rows and sky objects per class, and what the checks noticed."""

    rows: int
    counts: Mapping[str, int]
    objects: Mapping[str, int]
    grouped_by: str
    notices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Judgement:
    """Models on one set of rows.

    Attributes
    ----------
    new : mapping
        The new model, as `transientnet.evaluation.summary.evaluate` measures it.
    base, new_against_base : mapping or None
        The base model, and both compared by `transientnet.evaluation.summary.compare`; None where it does
        not have the classes.
    evidence : str
        Which rows these are.
    folds : int or None
        Of the cross-validation.
    """

    new: Mapping[str, Any]
    evidence: str
    base: Mapping[str, Any] | None = None
    new_against_base: Mapping[str, Any] | None = None
    folds: int | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """The candidates of the cross-validation, their loss on left-out rows, and the one that is shipped."""

    candidates: tuple[str, ...]
    left_out_loss: tuple[float, ...]
    chosen: str


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Balanced accuracy of a head fitted on so many labels: mean and standard deviation over splits."""

    labels: int
    balanced_accuracy: float
    spread: float


@dataclass(frozen=True, slots=True)
class Rise:
    """Change of balanced accuracy when the number of labels is doubled, with its 95 % interval."""

    labels_from: int
    labels_to: int
    difference: float
    low: float
    high: float

    def __str__(self) -> str:
        """The change, and what it says about more labels."""
        if self.low > 0:
            meaning = "more labels would help"
        elif self.high < _FLAT:
            meaning = "more labels of this kind would gain little"
        else:
            meaning = "too uncertain to say whether more labels would help"
        change = f"{_points(self.difference)} ({_points(self.low)} to {_points(self.high)})"
        return (
            f"From {self.labels_from} to {self.labels_to} labels the balanced accuracy of the last layer "
            f"alone changes by {change} points: {meaning}."
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """Transfer, linear probe and training from scratch over many seeds.

    Attributes
    ----------
    seeds : mapping of str to list of dict
        Per arm and seed, ``balanced_accuracy`` and ``auc`` on the common test stamps.
    n_train, n_test : int
        Labels that each seed draws, and common test stamps.
    against_scratch, against_probe : mapping
        Of transfer, from `transientnet.transfer.experiment.significance`.
    common_test : mapping
        Transfer against scratch by the mean probabilities of all seeds.
    sentence : str
        The answer in words.
    """

    seeds: Mapping[str, list[dict[str, float]]]
    n_train: int
    n_test: int
    against_scratch: Mapping[str, Any]
    against_probe: Mapping[str, Any]
    common_test: Mapping[str, Any]
    sentence: str


@dataclass(frozen=True, slots=True)
class Doubt:
    """A label that networks which never saw its row contradict, with the probabilities of both classes."""

    row: int
    label: str
    likelier: str
    p_label: float
    p_likelier: float
    id: str = ""

    def __str__(self) -> str:
        likelier = f"likelier {self.likelier} ({self.p_likelier:.2f})"
        return f"row {self.row} ({self.id}): labelled {self.label}, {likelier}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptMetrics:
    """All figures of a run.

    Attributes
    ----------
    outcome : str
        What became of the base model, and what that gained, in words.
    classes : tuple of str
    base : str
        ``name@version``.
    method : {"transfer", "probe"}
    brightness : str
        What recall by brightness is measured against.
    labels : LabelSummary
    cross_validation : Judgement
        On the rows that each fold left out.
    test : Judgement or None
        On the table's rows of the split ``test``.
    training : Choice
    learning_curve : tuple of CurvePoint
        Empty after Ctrl-C.
    learning_rise : Rise or None
    comparison : Comparison or None
    doubted_labels : tuple of Doubt
    interrupted : bool
    config : AdaptConfig
    seconds : float
        Wall time of the run.
    """

    outcome: str
    classes: tuple[str, ...]
    base: str
    method: str
    brightness: str
    labels: LabelSummary
    cross_validation: Judgement
    test: Judgement | None
    training: Choice
    learning_curve: tuple[CurvePoint, ...]
    learning_rise: Rise | None
    comparison: Comparison | None
    doubted_labels: tuple[Doubt, ...]
    interrupted: bool
    config: AdaptConfig
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, as in ``metrics.json``: what was not measured is left out."""
        data: dict[str, Any] = plain(self)
        for part in (data, data["cross_validation"], data["test"] or {}):
            for key in [key for key, value in part.items() if value is None]:
                del part[key]
        if not self.learning_curve:
            del data["learning_curve"]
        return data


@dataclass(frozen=True, slots=True)
class NightFit:
    """What a night without labels says about the threshold.

    Attributes
    ----------
    threshold : float
        The base model's logit of p(real) that becomes 0.5; 0 leaves the model as it is.
    low, high : float
        95 % interval of the threshold over resampled nights.
    slope : float
        Factor on the logits about the threshold.
    share : float
        Estimated share of reals among the night's candidates, with its interval `share_low`, `share_high`.
    saved : float
        Errors per candidate that the mixture of the first estimate expects to be saved.
    cost : float
        Balanced accuracy that the threshold costs on the base model's own survey; NaN where its record does
        not say.
    reason : str
        Why the model stays as it is; empty where it does not.
    """

    threshold: float = 0.0
    low: float = 0.0
    high: float = 0.0
    slope: float = 1.0
    share: float = math.nan
    share_low: float = math.nan
    share_high: float = math.nan
    saved: float = 0.0
    cost: float = 0.0
    reason: str = ""

    def logits(self, before: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """New logits of p(real) from the base model's."""
        return np.asarray(self.slope * (np.asarray(before, np.float64) - self.threshold))


@dataclass(frozen=True, slots=True, kw_only=True)
class NightMetrics:
    """What a start without labels measured; no figure of it rests on a label.

    Attributes
    ----------
    outcome : str
        What became of the base model, in words.
    base : str
        ``name@version``.
    candidates, usable : int
        Of the night.
    injected : int
        Sources injected into it.
    fit : NightFit
    completeness : mapping
        Recall of injected sources, as `Completeness.to_dict` gives it, by the new probabilities.
    seconds : float
        Wall time of the run.
    """

    outcome: str
    base: str
    candidates: int
    usable: int
    injected: int
    fit: NightFit
    completeness: Mapping[str, Any]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, as in ``metrics.json``."""
        data: dict[str, Any] = plain(self)
        return data


@dataclass(frozen=True, slots=True, eq=False)
class LeftOut:
    """The rows that some fold left out, and what the cross-validation says of them.

    Attributes
    ----------
    table : Labels
    prepared : Prepared
        Of all rows of the table.
    rows : ndarray of int, shape (M,)
        Row numbers, from 0.
    probabilities : ndarray of float32, shape (M, K)
        Calibrated, out of fold.
    y : ndarray of int, shape (M,)
        Class of each.
    """

    table: Labels
    prepared: Prepared
    rows: npt.NDArray[Any]
    probabilities: npt.NDArray[np.float32]
    y: npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class AdaptResult:
    """What `adapt` made.

    Attributes
    ----------
    folder : Path
    record : ModelRecord
        The manifest's row of the new model.
    metrics : mapping
        As in ``metrics.json``: the cross-validated figures of the new model and of the base model,
        the learning curve, and the comparison and doubted labels if asked for.
    interrupted : bool
        Ctrl-C came; the model is the best so far.
    figures : AdaptMetrics or NightMetrics
        The same figures as objects; of a start without labels the latter.
    """

    folder: Path
    record: ModelRecord
    metrics: Mapping[str, Any] = field(repr=False)
    interrupted: bool
    figures: AdaptMetrics | NightMetrics = field(repr=False)

    @property
    def model(self) -> Path:
        """The new network, for ``transientnet score -m``."""
        return self.folder / "model.onnx"


def in_words(
    training: Choice, judged: Judgement, before: Calibration, after: Calibration, base: str, labels: int
) -> str:
    """What became of the base model, and what that gained.

    Parameters
    ----------
    training : Choice
    judged : Judgement
        Of the cross-validation.
    before, after : Calibration
        Of the base model and of the new one.
    base : str
        Name of the base model.
    labels : int
        Rows learned from.
    """
    tuned = "fine-tuning all layers" if any(name.endswith(" steps") for name in training.candidates) else ""
    if training.chosen == "base":
        other = f"neither a new last layer nor {tuned} was" if tuned else "a new last layer was not"
        text = (
            f"The base network {base} was kept: {other} better on the rows left out. Only its calibration "
            f"changed (temperature {before.temperature:.2f} to {after.temperature:.2f})"
        )
    elif training.chosen == "probe":
        text = f"Only the last layer of {base} was refitted, on {labels} labels"
        text += f"; {tuned} was not surely better on the rows left out" if tuned else ""
    else:
        others = "the base model or a new last layer" if "base" in training.candidates else "a new last layer"
        text = (
            f"All layers of {base} were fine-tuned on {labels} labels: {training.chosen} did better than "
            f"{others} on the rows left out"
        )
    gain = versus(judged.new_against_base) if judged.new_against_base else ""
    return f"{text}. {gain}".rstrip()


def versus(compared: Mapping[str, Any]) -> str:
    """The new model against the base model, in words.

    Parameters
    ----------
    compared : mapping
        From `transientnet.evaluation.summary.compare`, new model first.
    """
    parts = []
    for key, name in (("accuracy", "accuracy"), ("auc", "AUC")):
        value, low, high = (compared[key][bound] for bound in ("value", "low", "high"))
        verdict = "better" if low > 0 else "worse" if high < 0 else "no difference that these labels can show"
        parts.append(f"{name} {_points(value)} points ({_points(low)} to {_points(high)}), {verdict}")
    stamps = f"{compared['n']} stamps left out of training"
    return f"Against the base model as it was, on {stamps}: {'; '.join(parts)}."


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"
