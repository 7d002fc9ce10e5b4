"""The result table of a run, and its writers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import MissingDependencyError
from .writers import write

__all__ = ["Prediction", "Predictions"]


class Prediction(NamedTuple):
    """One row: what iteration over `Predictions` gives."""

    id: str
    source: str
    label: str
    probabilities: dict[str, float]
    quality: int
    model: str


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """Class probabilities of N candidates over K classes.

    Attributes
    ----------
    ids : ndarray of str, shape (N,)
    classes : tuple of str, length K
    probabilities : ndarray of float32, shape (N, K)
        Calibrated; NaN rows where the candidate is unusable.
    quality : ndarray of uint16, shape (N,)
        `QualityFlag` bits.
    model : str
        ``name@version``.
    sources : ndarray of str, shape (N,)
        File that each candidate came from.
    errors : dict of int to str
        Message per row that could not be read or scored.
    threshold : float or None
        Probability of the last of two classes from which on it is named; by default the more probable
        class is.
    sets : ndarray of bool, shape (N, K), or None
        Classes of each row's prediction set, the column ``set`` of the table.
    """

    ids: npt.NDArray[Any]
    classes: tuple[str, ...]
    probabilities: npt.NDArray[np.float32]
    quality: npt.NDArray[np.uint16]
    model: str
    sources: npt.NDArray[Any]
    errors: dict[int, str]
    threshold: float | None = None
    sets: npt.NDArray[np.bool_] | None = None

    @property
    def labels(self) -> npt.NDArray[Any]:
        """Most probable class per row (or as `threshold` says), shape (N,); empty where unusable."""
        names = np.array([*self.classes, ""])
        usable = np.isfinite(self.probabilities).all(axis=1)
        filled = np.nan_to_num(self.probabilities)
        best = filled.argmax(axis=1) if self.threshold is None else filled[:, -1] >= self.threshold
        return names[np.where(usable, best, len(self.classes))]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: slice) -> Predictions:
        first, last, step = rows.indices(len(self))
        kept = {row: at for at, row in enumerate(range(first, last, step))}
        return replace(
            self,
            ids=self.ids[rows],
            probabilities=self.probabilities[rows],
            quality=self.quality[rows],
            sources=self.sources[rows],
            sets=None if self.sets is None else self.sets[rows],
            errors={kept[row]: message for row, message in self.errors.items() if row in kept},
        )

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Histogram of the probabilities, as a matplotlib figure."""
        from ..drawing.figures import plot_predictions

        return plot_predictions(self, path)

    def _repr_html_(self) -> str:
        html: str = self.to_table()._repr_html_()
        return html

    def __iter__(self) -> Iterator[Prediction]:
        for row, label in enumerate(self.labels):
            yield Prediction(
                str(self.ids[row]),
                str(self.sources[row]),
                str(label),
                dict(zip(self.classes, self.probabilities[row].tolist(), strict=True)),
                int(self.quality[row]),
                self.model,
            )

    @classmethod
    def concatenate(cls, parts: Sequence[Predictions], classes: tuple[str, ...], model: str) -> Predictions:
        """Join batches in order; `classes` and `model` serve when there is none."""
        errors: dict[int, str] = {}
        start = 0
        for part in parts:
            errors.update({start + row: message for row, message in part.errors.items()})
            start += len(part)
        return cls(
            np.concatenate([part.ids for part in parts]) if parts else np.array([], dtype=str),
            classes,
            np.concatenate([part.probabilities for part in parts])
            if parts
            else np.zeros((0, len(classes)), np.float32),
            np.concatenate([part.quality for part in parts]) if parts else np.zeros(0, np.uint16),
            model,
            np.concatenate([part.sources for part in parts]) if parts else np.array([], dtype=str),
            errors,
        )

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """The score table, column by column: id, source, label, p_<class>…, quality, model."""
        columns: dict[str, npt.NDArray[Any]] = {
            "id": self.ids,
            "source": self.sources,
            "label": self.labels,
            **{f"p_{name}": self.probabilities[:, k] for k, name in enumerate(self.classes)},
            "quality": self.quality,
            "model": np.full(len(self), self.model),
        }
        if self.sets is not None:
            names = np.array(self.classes)
            columns["set"] = np.array(["|".join(names[members]) for members in self.sets], dtype=str)
        return columns

    def to_table(self) -> Any:
        """The score table as an `astropy.table.Table`."""
        from astropy.table import Table

        return Table(self.columns(), meta={"model": self.model})

    def to_pandas(self) -> Any:
        """The score table as a pandas DataFrame."""
        try:
            import pandas as pd
        except ImportError as error:
            raise MissingDependencyError("to_pandas() needs pandas: pip install pandas") from error
        return pd.DataFrame(self.columns())

    def to_arrow(self) -> Any:
        """The score table as a `pyarrow.RecordBatch`."""
        try:
            import pyarrow as pa
        except ImportError as error:
            raise MissingDependencyError.for_extra("parquet", "to_arrow()") from error
        arrays = {
            name: pa.array(_utf8(column.tolist()), pa.string())
            if column.dtype.kind == "U"
            else pa.array(column)
            for name, column in self.columns().items()
        }
        return pa.RecordBatch.from_pydict(arrays)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the score table; the ending of `path` chooses CSV, ECSV, JSON lines or Parquet.

        The file appears whole or not at all.

        Raises
        ------
        UsageError
            For another ending.
        MissingDependencyError
            For Parquet without the ``parquet`` extra.
        """
        write(self, Path(path))


def _utf8(texts: list[str]) -> list[str]:
    """Texts that are valid Unicode: file names may not be."""
    return [text.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for text in texts]
