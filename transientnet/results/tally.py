"""What a person should know of a night before trusting its table: counts, and advice in words."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from ..triplet import QualityFlag
from .columns import plural
from .predictions import Predictions

__all__ = ["Tally"]

#: Candidates from which on "most of them" says something of the telescope.
_ENOUGH = 10


@dataclass(slots=True)
class Tally:
    """Counts over the rows of a run.

    Attributes
    ----------
    rows : int
        Candidates read, usable or not.
    unusable : int
        Rows without probabilities.
    unreadable : int
        Of these, candidates that could not be read.
    flagged : int
        Rows with probabilities and a quality flag.
    labels : Counter
        Rows per label.
    """

    rows: int = 0
    unusable: int = 0
    unreadable: int = 0
    flagged: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    _unknown_seeing: int = 0
    _foreign: int = 0

    @classmethod
    def of(cls, predictions: Predictions) -> Self:
        """Counts of one table."""
        tally = cls()
        tally.add(predictions)
        return tally

    def add(self, predictions: Predictions) -> None:
        """Count further rows."""
        quality, usable = predictions.quality, predictions.usable
        self.rows += len(predictions)
        self.unusable += int((~usable).sum())
        self.flagged += int((usable & (quality != 0)).sum())
        self.labels.update(predictions.counts())
        self.unreadable += _having(quality, QualityFlag.UNREADABLE)
        self._unknown_seeing += _having(quality, QualityFlag.FWHM_ASSUMED)
        self._foreign += _having(quality, QualityFlag.OUT_OF_DISTRIBUTION)

    def summary(self) -> str:
        """The closing line: what was read, what became of it."""
        named = [f"{n:,} {label}" for label, n in sorted(self.labels.items()) if label]
        counts = f": {', '.join(named)}" if named else ""
        return (
            f"{plural(self.rows, 'candidate')} read{counts}; "
            f"{self.flagged:,} flagged, {self.unusable:,} refused"
        )

    def advice(self, model: str, widest: float) -> list[str]:
        """Sentences on what most of the candidates have in common and the model does not expect.

        Parameters
        ----------
        model : str
        widest : float
            FWHM in pixels beyond which the model needs to know the seeing.
        """
        found = []
        if self.rows >= _ENOUGH and 2 * self._unknown_seeing > self.rows:
            found.append(
                f"the seeing of {self._unknown_seeing} of {self.rows} candidates is not known, and no source "
                f"is bright enough to measure it: above {widest:g} pixels give --fwhm "
                "(fwhm= in Python)"
            )
        if self.rows >= _ENOUGH and 2 * self._foreign > self.rows:
            found.append(
                f"{self._foreign} of {self.rows} candidates are unlike what {model} was trained on: look "
                "at some before you trust the numbers; `transientnet adapt` transfers it onto your labels"
            )
        return found


def _having(quality: np.ndarray[tuple[int, ...], np.dtype[np.uint16]], flags: int) -> int:
    return int(((quality & np.uint16(flags)) != 0).sum())
