"""The triplet of stamps around one candidate, and what can be wrong with it."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntFlag
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["CHANNELS", "QualityFlag", "Triplet"]

CHANNELS = ("science", "reference", "difference")
"""The three stamps of a triplet, always in this order."""


class QualityFlag(IntFlag):
    """What was noticed about a stamp; 16 bits, combined with ``|``.

    A row with any bit of ``UNUSABLE`` gets NaN probabilities. The other bits say what the
    probabilities rest on.
    """

    OK = 0
    #: The file or packet could not be decoded; the message is in ``Triplet.error``.
    UNREADABLE = 1 << 0
    #: A stamp that the model requires is blank: without noise, or without one finite pixel.
    BLANK = 1 << 1
    #: Too few pixels for the model's field.
    TOO_SMALL = 1 << 2
    #: The candidate's own pixels were not observed (off the chip, or masked).
    OFF_CHIP = 1 << 3
    #: A stamp that the model's contract cannot do without is absent.
    MISSING_REQUIRED = 1 << 4
    #: Scoring failed: the network gave no finite number, or the worker process died on this stamp twice.
    FAILED = 1 << 5
    #: No reference stamp; handled as the contract declares.
    MISSING_REFERENCE = 1 << 6
    #: No difference stamp; handled as the contract declares.
    MISSING_DIFFERENCE = 1 << 7
    #: Some pixels were NaN, infinite, sentinels, a fill value or masked, and became background.
    MASKED = 1 << 8
    #: The stamp does not cover the model's field; the rest was filled with the background.
    PADDED = 1 << 9
    #: The stamp was resampled to the model's sampling of the point-spread function.
    RESAMPLED = 1 << 10
    #: The FWHM was not given: it was estimated from the sources in the science stamp.
    FWHM_ESTIMATED = 1 << 11
    #: The FWHM was neither given nor measurable: the stamp was used at its own sampling.
    FWHM_ASSUMED = 1 << 12
    #: Unlike what the model was trained on: the probability deserves distrust.
    OUT_OF_DISTRIBUTION = 1 << 13

    UNUSABLE = UNREADABLE | BLANK | TOO_SMALL | OFF_CHIP | MISSING_REQUIRED | FAILED

    @classmethod
    def names(cls, value: int) -> list[str]:
        """Names of the bits set in `value`, lowest first."""
        return [flag.name for flag in cls if flag.name and flag.value & value == flag.value]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Triplet:
    """Science, reference and difference stamps of one candidate.

    Parameters
    ----------
    science : ndarray, shape (H, W)
        Science stamp in the survey's own units, target at the centre. Masked pixels are NaN.
        Empty (shape ``(0, 0)``) when the candidate could not be read; see `error`.
    reference, difference : ndarray, shape (H, W), or None
        Template and difference stamps, None where the survey has none. Shapes may differ.
    id : str
        Name of the candidate, unique within its source where the source is.
    pixel_scale : float or None
        arcsec per pixel.
    fwhm : float or None
        Seeing: full width at half maximum of the point-spread function, in pixels.
    group : str or None
        Sky object that the candidate belongs to; splits never cut through a group.
    meta : mapping
        What else the source says: ``source`` (the file), ``survey``, ``error``, ``ra`` and ``dec`` in
        degrees (ICRS), ``x`` and ``y`` in pixels of the frame, from 0, ``north`` and ``east`` in degrees
        anticlockwise from up (first row at the bottom), ``files`` where each stamp has a file of its own…
    """

    science: npt.NDArray[Any]
    reference: npt.NDArray[Any] | None = None
    difference: npt.NDArray[Any] | None = None
    id: str = ""
    pixel_scale: float | None = None
    fwhm: float | None = None
    group: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def unreadable(cls, id: str, source: str, error: str) -> Triplet:
        """A candidate that could not be decoded: it stays in the table, flagged."""
        return cls(np.empty((0, 0), np.float32), id=id, meta={"source": source, "error": error})

    @property
    def error(self) -> str | None:
        """Why the candidate could not be read, or None."""
        value = self.meta.get("error")
        return None if value is None else str(value)

    @property
    def source(self) -> str:
        """The file (or other source) that the candidate came from."""
        return str(self.meta.get("source", ""))

    @property
    def stamps(self) -> tuple[npt.NDArray[Any] | None, ...]:
        """The stamps in the order of `CHANNELS`."""
        return (self.science, self.reference, self.difference)

    def plot(self, path: str | os.PathLike[str] | None = None, *, stretch: str = "asinh") -> Any:
        """The three stamps, origin at the lower left, as a matplotlib figure.

        Parameters
        ----------
        path : path, optional
            Also write the figure there.
        stretch : {"asinh", "zscale", "linear"}
            See `transientnet.drawing.stamps.levels`.
        """
        return _drawing("figures").plot_triplet(self, path, stretch=stretch)

    def __repr__(self) -> str:
        if self.error is not None:
            return f"<Triplet {self.id!r}: unreadable, {self.error}>"
        stamps = zip(CHANNELS, self.stamps, strict=True)
        facts = [f"{name} {'x'.join(map(str, stamp.shape))}" for name, stamp in stamps if stamp is not None]
        facts += [] if self.pixel_scale is None else [f"{self.pixel_scale:.4g} arcsec/px"]
        facts += [] if self.fwhm is None else [f"FWHM {self.fwhm:.3g} px"]
        return f"<Triplet {self.id!r}: {', '.join(facts)}>"

    def _repr_html_(self) -> str:
        from html import escape

        stamps, name = _drawing("stamps"), escape(self.id, quote=True)
        image = stamps.data_uri(stamps.strip(self))
        facts = "".join(f" ({text})" for text in [stamps.caption(self)] if text)
        return f'<img src="{image}" alt="stamps of {name}" width="386"><br>{name}{facts}'


def _drawing(module: str) -> Any:
    """A module of the room that draws triplets.

    It is looked up by name when it is called: this module is the ground that every room stands on, drawing
    included, and imports none of them.
    """
    return importlib.import_module(f"{__package__}.drawing.{module}")
