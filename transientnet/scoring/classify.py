"""classify(): readers -> prepare -> models -> results, on as many cores as it pays."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from ..errors import ReadError, TransientnetWarning, UsageError
from ..models.classifier import BATCH_SIZE, Classifier, load_model
from ..readers.open import Input, Reading
from ..results.predictions import Predictions
from ..results.tally import Tally
from ..settings import cores
from ..triplet import Triplet
from .batches import Batch, Part, batches, cut, maps, score, units, weight
from .boot import MANY_INPUTS
from .engine import in_order
from .workers import Workers

__all__ = ["classify", "raise_bad", "score_inputs", "score_triplets"]


def classify(
    source: Any,
    *,
    model: str | Classifier = "realbogus",
    pixel_scale: Any = None,
    fwhm: Any = None,
    batch_size: int = BATCH_SIZE,
    workers: int | None = None,
    device: str = "auto",
    on_bad: str = "flag",
    threshold: float | None = None,
    sets: float | None = None,
    kinds: bool = False,
) -> Predictions:
    """Score candidates from anywhere.

    Parameters
    ----------
    source : path, list of paths, glob, directory, ndarray, Triplet, or iterable of Triplets
        Arrays have shape (3, H, W) or (N, 3, H, W): science, reference, difference.
    model : str or Classifier
        See `load_model`.
    pixel_scale : float or Quantity, or one per candidate, optional
        arcsec per pixel, where the source has none or a wrong one.
    fwhm : float or Quantity, or one per candidate, optional
        Seeing in pixels (an angle as a Quantity), likewise. Without either it is estimated from the stamps.
    batch_size : int
        Candidates that go through the network at a time; on a CPU, more than 64 do not pay.
    workers : int, optional
        How many work at a time: processes for files, threads for what is in memory or in one file.
        1 uses one core. By default all cores, and processes only for so many files that they pay.
    device : {"auto", "cpu", "cuda"}
        Where the network runs: ``auto`` takes a GPU if onnxruntime-gpu finds one, ``cuda`` insists on it.
    on_bad : {"flag", "raise"}
        What an unreadable candidate does: become a row with NaN probabilities and a quality flag,
        or raise `ReadError`.
    threshold : float, optional
        Name the last of two classes (real) from this probability on; by default the more probable class.
    sets : float, optional
        Add the classes that hold the true one at this level, say 0.95.
    kinds : bool
        Add which kind of bogus each rejected candidate is, where the model names them.

    Returns
    -------
    Predictions
        One row per candidate, in the order of the source.

    Raises
    ------
    ReadError
        There is nothing to read; with ``on_bad="raise"`` also for the first candidate that is unreadable.
    UsageError
        An argument makes no sense.

    Warns
    -----
    TransientnetWarning
        The seeing of most candidates is not known, or most are unlike what the model was trained on.

    Examples
    --------
    >>> import numpy as np
    >>> from transientnet import classify
    >>> stamps = np.random.default_rng(0).normal(100, 5, (2, 3, 63, 63))
    >>> predictions = classify(stamps, fwhm=2.4)
    >>> len(predictions), predictions.classes
    (2, ('bogus', 'real'))
    """
    if on_bad not in ("flag", "raise"):
        raise UsageError(f"on_bad must be 'flag' or 'raise', not {on_bad!r}")
    reading = Reading(None, pixel_scale, fwhm)
    classifier = model if isinstance(model, Classifier) else load_model(model, device=device, threads=1)
    options: dict[str, Any] = {"batch_size": batch_size, "workers": workers}
    if (inputs := reading.inputs(source)) is not None:
        parts = score_inputs(inputs, classifier, reading, identify=False, **options)
    else:
        parts = score_triplets(reading.open(source), classifier, **options)
    results = []
    for part in parts:
        if on_bad == "raise":
            raise_bad(part.predictions)
        results.append(part.predictions)
    table = classifier.joined(results, threshold, sets, kinds)
    for advice in Tally.of(table).advice(table.model, classifier.record.contract.fwhm_px[1]):
        warnings.warn(advice, TransientnetWarning, stacklevel=2)
    return table


def score_inputs(
    inputs: Sequence[Input],
    classifier: Classifier,
    reading: Reading,
    *,
    batch_size: int = BATCH_SIZE,
    workers: int | None = None,
    skips: Sequence[int] = (),
    identify: bool = True,
    keep: bool = False,
) -> Iterator[Part]:
    """Score inputs as they come from `find_inputs`: parts of the table in order, with constant memory.

    Parameters
    ----------
    inputs : sequence of Input
    classifier : Classifier
    reading : Reading
    batch_size, workers : int
        As in `classify`.
    skips : sequence of int
        Rows of the first inputs to pass over.
    identify : bool
        Look up the content ids that the marks of each part carry.
    keep : bool
        Keep the triplets of each part; they stay in this process, which works on threads.

    Yields
    ------
    Part
    """
    _check(batch_size, workers)
    processes = (cores() if len(inputs) >= MANY_INPUTS else 1) if workers is None else workers
    processes, threads = min(processes, len(inputs)), cores() if workers is None else workers
    # A mapped file that is cut short ends the process that reads it: never this one.
    apart = processes > 1 or any(map(maps, inputs))
    if apart and classifier.device == "cpu" and not keep:
        most = max(1, min(batch_size, -(-len(inputs) // (4 * processes))))
        with Workers(classifier, reading, batch_size, threads=1 if processes > 1 else threads) as pool:
            yield from in_order(pool.run, units(inputs, most, skips), processes)
    else:
        found = batches(inputs, reading, batch_size, skips=skips, identify=identify)
        yield from in_order(partial(_score, classifier, keep), found, threads, weight)


def score_triplets(
    triplets: Iterable[Triplet],
    classifier: Classifier,
    *,
    batch_size: int = BATCH_SIZE,
    workers: int | None = None,
    keep: bool = False,
) -> Iterator[Part]:
    """Score triplets as they come, on threads: parts of the table in order, with constant memory."""
    _check(batch_size, workers)
    found = (Batch(batch, ()) for batch in cut(triplets, batch_size))
    threads = cores() if workers is None else workers
    return in_order(partial(_score, classifier, keep), found, threads, weight)


def raise_bad(predictions: Predictions) -> None:
    """Raise `ReadError` for the first row that could not be read or scored."""
    for row, message in predictions.errors.items():
        raise ReadError(f"{predictions.sources[row] or predictions.ids[row]}: {message}")


def _check(batch_size: int, workers: int | None) -> None:
    for name, value in (("batch_size", batch_size), ("workers", workers)):
        if value is not None and value < 1:
            raise UsageError(f"{name} must be at least 1, not {value}")


def _score(classifier: Classifier, keep: bool, batch: Batch) -> tuple[Part]:
    return (score(classifier, batch, keep=keep),)
