"""A score table read back."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import EmptyInputError, ReadError, TransientnetError, UsageError
from ..files.tables import open_table
from .columns import POSITIONS
from .predictions import Predictions
from .writers import FORMATS

__all__ = ["read_scores"]


def read_scores(path: str | os.PathLike[str]) -> Predictions:
    """Read what ``transientnet score -o`` or `Predictions.write` wrote, in any of its formats.

    Parameters
    ----------
    path : path
        ``.csv``, ``.ecsv``, ``.jsonl``, ``.parquet``, ``.fits`` or ``.vot``.

    Returns
    -------
    Predictions
        Messages of unreadable rows are not in a table, so that ``errors`` is empty. ``threshold`` is the
        smallest probability that was named the last class, where labels follow a threshold.

    Raises
    ------
    ReadError
        The file is absent, damaged, or no score table.
    EmptyInputError
        It has no row.
    """
    source = Path(path)
    if source.suffix.lower() not in FORMATS:
        raise UsageError(f"{source}: a score table ends in one of {', '.join(FORMATS)}")
    try:
        columns = open_table(source).columns()
        classes = tuple(name[2:] for name in columns if name.startswith("p_"))
        if not classes or "quality" not in columns:
            raise ReadError(f"{source}: not a score table: it has no column p_<class>, or no quality")
        rows = len(columns["quality"])
        if not rows:
            raise EmptyInputError(f"{source}: no candidate")
        models, sets = _texts(columns.get("model", [""])), columns.get("set")
        predictions = Predictions(
            _texts(columns.get("id", [""] * rows)),
            classes,
            np.stack([_numbers(columns[f"p_{name}"]) for name in classes], axis=1).astype(np.float32),
            _numbers(columns["quality"]).astype(np.uint16),
            str(models[0]),
            _texts(columns.get("source", [""] * rows)),
            {},
            sets=None if sets is None else _members(_texts(sets), classes),
            kinds=_texts(columns["kind"]) if "kind" in columns else None,
            positions={name: _numbers(columns[name]) for name in POSITIONS if name in columns},
        )
    except TransientnetError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ReadError(f"{source}: cannot be read as a score table: {reason}") from error
    return _with_threshold(predictions, _texts(columns["label"])) if "label" in columns else predictions


def _texts(cells: Sequence[Any]) -> npt.NDArray[Any]:
    return np.array(["" if cell is None else str(cell) for cell in cells], dtype=str)


def _numbers(cells: Sequence[Any]) -> npt.NDArray[np.float64]:
    try:
        return np.array([np.nan if cell is None else float(cell) for cell in cells], np.float64)
    except ValueError as error:
        raise ValueError(f"a cell is not a number ({error})") from error


def _members(sets: npt.NDArray[Any], classes: tuple[str, ...]) -> npt.NDArray[np.bool_]:
    return np.array([[name in text.split("|") for name in classes] for text in sets.tolist()], bool)


def _with_threshold(predictions: Predictions, labels: npt.NDArray[Any]) -> Predictions:
    """The labels of the table, where they are not those of the most probable class."""
    from dataclasses import replace

    if len(predictions.classes) != 2 or (predictions.labels == labels).all():
        return predictions
    named = predictions.probabilities[labels == predictions.classes[-1], -1]
    return replace(predictions, threshold=float(named.min()) if len(named) else 1.0)
