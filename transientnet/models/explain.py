"""Where a model looks: what happens to a probability when a patch of the stamps is hidden."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ReadError, UsageError
from ..prepare.preprocess import preprocess
from ..triplet import CHANNELS, QualityFlag, Triplet
from .record import ModelRecord

__all__ = ["Explanation", "explain"]

PATCH = 9
"""Side of the hidden patch in pixels of the network's tensor."""

STEP = 3
_BATCH = 64


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Explanation:
    """How the probability of one class rests on the parts of the stamps.

    Attributes
    ----------
    triplet : Triplet
    label : str
        The class explained: the most probable one, unless another was asked for.
    probability : float
        Of that class, nothing hidden.
    importance : ndarray of float32, shape (S, S)
        Probability lost when a patch around the pixel is hidden in all three stamps; negative where
        hiding it speaks for the class.
    channels : ndarray of float32, shape (3, S, S)
        The same, the patch hidden in one stamp alone.
    tensor : ndarray of float32, shape (3, S, S)
        The stamps as the network sees them.
    model : str
        ``name@version``.
    """

    triplet: Triplet
    label: str
    probability: float
    importance: npt.NDArray[np.float32]
    channels: npt.NDArray[np.float32]
    tensor: npt.NDArray[np.float32]
    model: str

    def __repr__(self) -> str:
        return f"<Explanation of {self.triplet.id!r}: {self.label} {self.probability:.3f} by {self.model}>"

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """The three stamps beside the occlusion map, as a matplotlib figure; saved where `path` is given."""
        from ..drawing.figures import plot_explanation

        name = f"{self.triplet.id}: " if self.triplet.id else ""
        title = f"{name}{self.label} {self.probability:.3f} by {self.model}"
        return plot_explanation(self.tensor, self.importance, self.label, title, path)


def explain(
    record: ModelRecord,
    probabilities: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]],
    triplet: Triplet,
    label: str | None = None,
) -> Explanation:
    """What `Classifier.explain` gives: the occlusion map (Zeiler & Fergus 2014), from the answers alone.

    `probabilities` makes calibrated probabilities (N, K) of prepared stamps (N, 3, S, S).
    """
    if label is not None and label not in record.classes:
        raise UsageError(f"{record.id} has no class {label!r}; it has {', '.join(record.classes)}")
    tensor, quality, usable = preprocess([triplet], record.contract)
    if not usable[0]:
        names = " ".join(QualityFlag.names(int(quality[0]))).lower()
        raise ReadError(f"{triplet.source or triplet.id or 'the triplet'} cannot be explained: {names}")
    whole = probabilities(tensor)[0]
    index = record.classes.index(label) if label is not None else int(whole.argmax())
    size = tensor.shape[-1]
    starts = _starts(size)
    places = [(c, y, x) for c in range(-1, len(CHANNELS)) for y in starts for x in starts]
    lost = np.zeros((1 + len(CHANNELS), size, size), np.float64)
    count = np.zeros_like(lost)
    for first in range(0, len(places), _BATCH):
        part = places[first : first + _BATCH]
        hidden = np.repeat(tensor, len(part), axis=0)
        for row, (channel, y, x) in enumerate(part):
            # Zero is the background level; the first round hides it in all stamps.
            hidden[row, slice(None) if channel < 0 else channel, y : y + PATCH, x : x + PATCH] = 0.0
        p = probabilities(hidden)[:, index]
        for (channel, y, x), value in zip(part, p, strict=True):
            lost[channel + 1, y : y + PATCH, x : x + PATCH] += float(whole[index] - value)
            count[channel + 1, y : y + PATCH, x : x + PATCH] += 1
    maps = (lost / count).astype(np.float32)
    name = record.classes[index]
    return Explanation(triplet, name, float(whole[index]), maps[0], maps[1:], tensor[0], record.id)


def _starts(size: int) -> list[int]:
    """Patch positions that cover the field, the same from either end."""
    last = size - PATCH
    near = range(0, last // 2 + 1, STEP)
    return sorted({*near, *(last - start for start in near)})
