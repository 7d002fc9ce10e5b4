"""classify(): source -> readers -> preprocess -> classifier -> Predictions, on as many cores as it pays."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

from ..errors import ReadError, UsageError
from ..models.classifier import BATCH_SIZE, Classifier, load_model
from ..results.predictions import Predictions
from ..settings import cores
from ..triplet import Triplet
from .batches import Batch, Input, Part, Reading, batches, find_inputs, score, units
from .engine import in_order
from .workers import Workers

__all__ = ["Part", "Reading", "classify", "find_inputs", "raise_bad", "score_inputs", "score_triplets"]

#: From this many inputs on, the half second that worker processes need to start is worth it.
_MANY_INPUTS = 1000


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
        How many work at a time: processes for files, threads for what is in memory or in one file.
        1 uses one core. By default all cores, and processes only for so many files that they pay.
    device : {"auto", "cpu", "cuda"}
    on_bad : {"flag", "raise"}
        What an unreadable candidate does: become a row with NaN probabilities and a quality flag,
        or raise `ReadError`.

    Returns
    -------
    Predictions
        One row per candidate, in the order of the source.

    Raises
    ------
    ReadError
        Nothing there to read; with ``on_bad="raise"`` also for the first candidate that is unreadable.
    """
    if on_bad not in ("flag", "raise"):
        raise UsageError(f"on_bad must be 'flag' or 'raise', not {on_bad!r}")
    reading = Reading(None, pixel_scale, fwhm, batch_size)
    classifier = model if isinstance(model, Classifier) else load_model(model, device=device, threads=1)
    if _is_paths(source):
        if isinstance(source, (str, os.PathLike)):
            reading.open(source)  # complains at once when the one thing named does not exist
        parts = score_inputs(find_inputs(source), classifier, reading, workers=workers, identify=False)
    else:
        parts = score_triplets(reading.open(source), classifier, reading, workers=workers)
    results = []
    for part in parts:
        if on_bad == "raise":
            raise_bad(part.predictions)
        results.append(part.predictions)
    return Predictions.concatenate(results, classifier.classes, classifier.record.id)


def score_inputs(
    inputs: Sequence[Input],
    classifier: Classifier,
    reading: Reading,
    *,
    workers: int | None = None,
    skip: int = 0,
    identify: bool = True,
) -> Iterator[Part]:
    """Score inputs as they come from `find_inputs`: parts of the table in order, with constant memory.

    Parameters
    ----------
    inputs : sequence of Input
    classifier : Classifier
    reading : Reading
    workers : int, optional
        As in `classify`.
    skip : int
        Rows of the first input to pass over.
    identify : bool
        Look up the content ids that the marks of each part carry.

    Yields
    ------
    Part
    """
    _check(workers)
    processes = (cores() if len(inputs) >= _MANY_INPUTS else 1) if workers is None else workers
    processes = min(processes, len(inputs))
    if processes > 1 and classifier.device == "cpu":
        most = max(1, min(reading.batch_size, -(-len(inputs) // (4 * processes))))
        with Workers(classifier, reading) as pool:
            yield from in_order(pool.run, units(inputs, most, skip), processes)
    else:
        found = batches(inputs, reading, identify=identify, skip=skip)
        yield from in_order(partial(_score, classifier), found, _threads(workers))


def score_triplets(
    triplets: Iterable[Triplet], classifier: Classifier, reading: Reading, *, workers: int | None = None
) -> Iterator[Part]:
    """Score triplets as they come, on threads: parts of the table in order, with constant memory."""
    _check(workers)
    return in_order(partial(_score, classifier), _cut(triplets, reading.batch_size), _threads(workers))


def _check(workers: int | None) -> None:
    if workers is not None and workers < 1:
        raise UsageError(f"workers must be at least 1, not {workers}")


def raise_bad(predictions: Predictions) -> None:
    """Raise `ReadError` for the first row that could not be read or scored."""
    for row, message in predictions.errors.items():
        raise ReadError(f"{predictions.sources[row] or predictions.ids[row]}: {message}")


def _threads(workers: int | None) -> int:
    return cores() if workers is None else workers


def _score(classifier: Classifier, batch: Batch) -> tuple[Part]:
    return (score(classifier, batch),)


def _cut(triplets: Iterable[Triplet], size: int) -> Iterator[Batch]:
    iterator = iter(triplets)
    while batch := list(islice(iterator, size)):
        yield Batch(batch, ())


def _is_paths(source: Any) -> bool:
    if isinstance(source, (str, os.PathLike)):
        return True
    return (
        isinstance(source, (list, tuple))
        and len(source) > 0
        and all(isinstance(item, (str, os.PathLike)) for item in source)
    )
