"""Every choice of an adaptation. Loads no torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Protocol

from ..errors import UsageError

__all__ = ["METHODS", "AdaptConfig", "Progress", "silent"]

METHODS = ("transfer", "probe")


class Progress(Protocol):
    """What is called as the work goes on: `done` of `total` steps of `stage`."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Hear that `done` of `total` steps of a stage are over."""


def silent(stage: str, done: int, total: int) -> None:
    """Progress that nobody sees."""


@dataclass(frozen=True, slots=True)
class AdaptConfig:
    """Choices of `adapt`; the defaults were chosen by measurement and fit 15 labels and 5,000.

    Attributes
    ----------
    method : {"transfer", "probe"}
        Fine-tune all layers, or fit the last layer alone.
    folds : int
        Parts of the grouped cross-validation, each of which trains one network. The shipped network
        is the mean of their weights.
    steps : int, optional
        Gradient steps per fold; by default after the number of labels.
    batch : int
    learning_rate : float
        Of the head.
    decay : float
        Each stage towards the input has this times the rate of the one above it; more than 1 trains
        the input faster.
    anchor : float
        Pull towards the base weights (L2-SP).
    balance : float
        0 counts every label alike, 1 every class alike.
    shift, blur, noise, drop : float
        See `Augmentation`.
    compare_scratch : int
        Seeds of the comparison of transfer, linear probe and training from scratch; 0 for none.
    label_noise : bool
        List the labels that the cross-validation doubts.
    skip_bad : bool
        Leave out rows with unusable stamps or contradicting labels, instead of refusing the table.
    new_classes : bool
        Class names that look like misspellings are meant as they are; see `check_labels`.
    label_column, group_column : str, optional
        Columns of the table that hold the classes and the sky objects, where they have names of their own.
    seed : int
    device : {"auto", "cpu", "cuda"}
    threads : int, optional
        Of the CPU, shared out among the folds; by default one per core.
    name : str, optional
        Of the new model; by default the output folder's.
    version : str
    description, licence, citation : str
        For the manifest and the card.
    """

    method: str = "transfer"
    folds: int = 5
    steps: int | None = None
    batch: int = 32
    learning_rate: float = 1e-3
    decay: float = 1.0
    anchor: float = 0.0
    balance: float = 0.5
    shift: float = 1.0
    blur: float = 0.5
    noise: float = 0.7
    drop: float = 0.0
    compare_scratch: int = 0
    label_noise: bool = False
    skip_bad: bool = False
    new_classes: bool = False
    label_column: str | None = None
    group_column: str | None = None
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    name: str | None = None
    version: str = "1.0.0"
    description: str = ""
    licence: str = ""
    citation: str = ""

    def __post_init__(self) -> None:
        problems = []
        if self.method not in METHODS:
            problems.append(f"method must be one of {', '.join(METHODS)}, not {self.method!r}")
        if self.device not in ("auto", "cpu", "cuda"):
            problems.append(f"device must be auto, cpu or cuda, not {self.device!r}")
        for name, least in (("folds", 2), ("batch", 1), ("compare_scratch", 0), ("steps", 1), ("threads", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                problems.append(f"{name} must be at least {least}, not {value!r}")
        ranges = {
            "learning_rate": (1e-9, 1.0), "decay": (1e-3, 1e3), "anchor": (0.0, 1e6), "shift": (0.0, 15.0),
            "blur": (0.0, 1.0), "noise": (0.0, 100.0), "balance": (0.0, 1.0), "drop": (0.0, 1.0),
        }  # fmt: skip
        problems += [
            f"{name} must be from {low:g} to {high:g}, not {getattr(self, name)!r}"
            for name, (low, high) in ranges.items()
            if not low <= getattr(self, name) <= high
        ]
        if self.compare_scratch == 1:
            problems.append("compare_scratch must be 0, or at least 2: one seed has no spread to test with")
        if problems:
            raise UsageError("adapt: " + "; ".join(problems))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return dataclasses.asdict(self)
