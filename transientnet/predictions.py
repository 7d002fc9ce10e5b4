"""The result table of a run, and its writers."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .errors import MissingDependencyError, UsageError

__all__ = ["FORMATS", "Prediction", "Predictions"]

FORMATS = (".csv", ".ecsv", ".jsonl", ".parquet")
"""File endings that `Predictions.write` knows."""

PROBABILITY_DIGITS = 7


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
        Message per row that could not be read.
    """

    ids: npt.NDArray[Any]
    classes: tuple[str, ...]
    probabilities: npt.NDArray[np.float32]
    quality: npt.NDArray[np.uint16]
    model: str
    sources: npt.NDArray[Any]
    errors: dict[int, str]

    @property
    def labels(self) -> npt.NDArray[Any]:
        """Most probable class per row, shape (N,); empty where unusable."""
        names = np.array([*self.classes, ""])
        usable = np.isfinite(self.probabilities).all(axis=1)
        best = np.where(usable, np.nan_to_num(self.probabilities).argmax(axis=1), len(self.classes))
        return names[best]

    def __len__(self) -> int:
        return len(self.ids)

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Histogram of the probabilities, as a matplotlib figure."""
        from .plotting import plot_predictions

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
        return {
            "id": self.ids,
            "source": self.sources,
            "label": self.labels,
            **{f"p_{name}": self.probabilities[:, k] for k, name in enumerate(self.classes)},
            "quality": self.quality,
            "model": np.full(len(self), self.model),
        }

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
        target = Path(path)
        ending = check_format(target)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            if ending == ".csv":
                with open(temporary, "w", newline="", encoding="utf-8") as stream:
                    write_csv(self, stream)
            elif ending == ".jsonl":
                with open(temporary, "w", encoding="utf-8") as stream:
                    write_jsonl(self, stream)
            elif ending == ".ecsv":
                self.to_table().write(temporary, format="ascii.ecsv", overwrite=True)
            else:
                _write_parquet(self, temporary)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


def check_format(path: Path) -> str:
    """The ending of `path`, if it names a format that can be written."""
    ending = path.suffix.lower()
    if ending not in FORMATS:
        raise UsageError(f"cannot write {str(path)!r}: the ending must be one of {', '.join(FORMATS)}")
    return ending


def format_rows(predictions: Predictions) -> Iterator[list[str]]:
    """Cells of the score table as text, row by row; NaN is an empty cell."""
    for row in predictions:
        cells = ("" if np.isnan(p) else f"{p:.{PROBABILITY_DIGITS}f}" for p in row.probabilities.values())
        yield [row.id, row.source, row.label, *cells, str(row.quality), row.model]


def write_csv(predictions: Predictions, stream: IO[str], header: bool = True) -> None:
    """Append the score table as CSV to an open text stream."""
    writer = csv.writer(stream, lineterminator="\n")
    if header:
        writer.writerow(predictions.columns())
    writer.writerows(format_rows(predictions))


def write_jsonl(predictions: Predictions, stream: IO[str]) -> None:
    """Append one JSON object per row to an open text stream; NaN is null."""
    buffer = io.StringIO()
    for row in predictions:
        record: dict[str, Any] = {"id": row.id, "source": row.source, "label": row.label}
        for name, p in row.probabilities.items():
            record[f"p_{name}"] = None if np.isnan(p) else round(p, PROBABILITY_DIGITS)
        buffer.write(json.dumps(record | {"quality": row.quality, "model": row.model}) + "\n")
    stream.write(buffer.getvalue())


def _write_parquet(predictions: Predictions, path: Path) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingDependencyError.for_extra("parquet", "Writing Parquet") from error
    columns: Iterable[tuple[str, Any]] = predictions.columns().items()
    pq.write_table(
        pa.table({name: v.astype(str).tolist() if v.dtype.kind in "UO" else v for name, v in columns}), path
    )
