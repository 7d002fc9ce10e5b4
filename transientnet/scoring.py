"""classify(): source -> readers -> preprocess -> classifier -> Predictions."""

from __future__ import annotations

from typing import Any

from .classifier import BATCH_SIZE, Classifier, load_model
from .errors import ReadError, UsageError
from .predictions import Predictions
from .triplet import Triplet

__all__ = ["classify"]


def classify(
    source: Any,
    *,
    model: str | Classifier = "realbogus",
    pixel_scale: float | None = None,
    fwhm: float | None = None,
    batch_size: int = BATCH_SIZE,
    workers: int | None = None,
    device: str = "auto",
    on_bad: str = "flag",
) -> Predictions:
    """Score candidates from anywhere.

    Parameters
    ----------
    source : path, list of paths, glob, directory, ndarray, Triplet, or iterable of Triplets
        Arrays have shape (3, H, W) or (N, 3, H, W): science, reference, difference.
    model : str or Classifier
        See `load_model`.
    pixel_scale : float, optional
        arcsec per pixel, where the source does not tell or is wrong.
    fwhm : float, optional
        Seeing in pixels, likewise. Where neither tells, it is estimated from the stamps.
    batch_size : int
    workers : int, optional
        Processes that read and score; 1 stays in this process.
    device : {"auto", "cpu", "cuda"}
    on_bad : {"flag", "raise"}
        What an unreadable candidate does: become a row with NaN probabilities and a quality flag,
        or raise `ReadError`.

    Returns
    -------
    Predictions
        One row per candidate, in the order of the source.
    """
    from .readers import open_triplets

    if on_bad not in ("flag", "raise"):
        raise UsageError(f"on_bad must be 'flag' or 'raise', not {on_bad!r}")
    classifier = model if isinstance(model, Classifier) else load_model(model, device=device)
    triplets = open_triplets(source, pixel_scale=pixel_scale, fwhm=fwhm)
    if on_bad == "raise":
        triplets = map(_raise_unreadable, triplets)
    return Predictions.concatenate(
        list(classifier.stream(triplets, batch_size=batch_size)), classifier.classes, classifier.record.id
    )


def _raise_unreadable(triplet: Triplet) -> Triplet:
    if triplet.error is not None:
        raise ReadError(f"{triplet.source or triplet.id}: {triplet.error}")
    return triplet
