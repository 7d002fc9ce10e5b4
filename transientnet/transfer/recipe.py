"""How long and how strongly to train, from the number of labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..prepare.contract import InputContract
from .augment import Augmentation
from .config import AdaptConfig
from .training import Recipe

__all__ = ["class_weights", "recipe_for"]

SNAPSHOTS = 8

# Steps of a fold grow with the square root of the labels, between these.
_STEPS_PER_ROOT = 25.0
_FEWEST, _MOST = 120, 2500


def recipe_for(labels: int, config: AdaptConfig, contract: InputContract) -> Recipe:
    """The fine-tuning that `config` asks for; what it leaves open follows the number of labels."""
    steps = config.steps or int(np.clip(_STEPS_PER_ROOT * np.sqrt(labels), _FEWEST, _MOST))
    return Recipe(
        steps=steps,
        snapshots=min(SNAPSHOTS, steps),
        batch=min(config.batch, labels),
        learning_rate=config.learning_rate,
        decay=config.decay,
        anchor=config.anchor,
        augmentation=Augmentation(config.shift, config.blur, config.noise, config.drop, contract.softening),
    )


def class_weights(
    y: npt.NDArray[Any], given: npt.NDArray[np.float64], balance: float
) -> npt.NDArray[np.float32]:
    """Weight of each row in the loss, mean 1: the table's, times a power of the class's rarity."""
    share = np.bincount(y, weights=given)
    weight = given * (share.sum() / np.maximum(share, 1e-12))[y] ** balance
    even: npt.NDArray[np.float32] = (weight / weight.mean()).astype(np.float32)
    return even
