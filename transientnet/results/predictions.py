"""Predictions: what scoring N candidates over K classes gives."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from ..drawing.figures import plot_predictions
from ..errors import MissingDependencyError
from ..triplet import QualityFlag, Triplet
from .columns import POSITIONS, as_arrow, one_line, plural
from .writers import write

__all__ = ["BOGUS", "Prediction", "Predictions"]

#: The class that kinds of bogus divide.
BOGUS = "bogus"
#: Rows that a notebook shows.
_SHOWN = 20
#: No degree and no pixel: sentinels of surveys and infinity.
_BEYOND = 1e9


class Prediction(NamedTuple):
    """One row of `Predictions`."""

    id: str
    source: str
    label: str
    probabilities: dict[str, float]
    quality: int
    model: str


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Predictions:
    """Class probabilities of N candidates over K classes.

    ``predictions[0]`` is a `Prediction`; a slice, a mask or a list of indices gives `Predictions`; a name
    such as ``predictions["p_real"]`` gives that column of the score table.

    Attributes
    ----------
    ids : ndarray of str, shape (N,)
        Names of the candidates.
    classes : tuple of str, length K
        Names of the classes, in the order of the probabilities.
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
    kinds : ndarray of str, shape (N,), or None
        Which kind of bogus a row is, if it is one; empty where unusable. The column ``kind`` of the table
        has it for rows that are named bogus.
    positions : dict of str to ndarray of float64, shape (N,)
        Where the candidates are, as far as the source says: ``ra`` and ``dec`` in degrees (ICRS), ``x``
        and ``y`` in pixels of the frame from 0; NaN in rows without.
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
    positions: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    kinds: npt.NDArray[Any] | None = None

    @classmethod
    def of(
        cls,
        triplets: Sequence[Triplet],
        classes: tuple[str, ...],
        probabilities: npt.NDArray[np.float32],
        quality: npt.NDArray[np.uint16],
        model: str,
        errors: Mapping[int, str] | None = None,
        kinds: npt.NDArray[Any] | None = None,
    ) -> Predictions:
        """The rows of `triplets`; those for which the model gave no number are flagged ``FAILED``.

        Parameters
        ----------
        triplets : sequence of Triplet, length N
            The candidates: their names, sources, positions and errors are taken over.
        classes : tuple of str, length K
            Names of the classes, in the order of the probabilities.
        probabilities : ndarray of float32, shape (N, K)
            Of each class, 0 to 1; NaN rows are unusable.
        quality : ndarray of uint16, shape (N,)
            ``UNUSABLE`` bits where the model was not asked.
        model : str
            Name and version, ``realbogus@1.0.0``.
        errors : mapping of int to str, optional
            Messages of rows beside those of the triplets.
        kinds : ndarray of str, shape (N,), optional
            Which kind of bogus each rejected candidate is.
        """
        known = dict(errors or {})
        known |= {row: triplet.error for row, triplet in enumerate(triplets) if triplet.error is not None}
        silent = np.isnan(probabilities).any(axis=1) & ((quality & QualityFlag.UNUSABLE) == 0)
        if silent.any():
            probabilities, quality = probabilities.copy(), quality.copy()
            probabilities[silent] = np.nan
            quality[silent] |= np.uint16(QualityFlag.FAILED)
            known |= {int(row): f"{model} gives no number for it" for row in np.flatnonzero(silent)}
        positions = {}
        for name in POSITIONS:
            values = [triplet.meta.get(name) for triplet in triplets]
            if any(value is not None for value in values):
                positions[name] = np.array([_number(value) for value in values], np.float64)
        return cls(
            np.array([triplet.id for triplet in triplets], dtype=str),
            classes,
            probabilities,
            quality,
            model,
            np.array([triplet.source for triplet in triplets], dtype=str),
            known,
            positions=positions,
            kinds=kinds,
        )

    @property
    def usable(self) -> npt.NDArray[np.bool_]:
        """Rows that have probabilities, shape (N,)."""
        usable: npt.NDArray[np.bool_] = np.asarray(np.isfinite(self.probabilities).all(axis=1))
        return usable

    @property
    def labels(self) -> npt.NDArray[Any]:
        """Most probable class per row (or as `threshold` says), shape (N,); empty where unusable."""
        names = np.array([*self.classes, ""])
        filled = np.nan_to_num(self.probabilities)
        best = filled.argmax(axis=1) if self.threshold is None else filled[:, -1] >= self.threshold
        return names[np.where(self.usable, best, len(self.classes))]

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        counts = ", ".join(f"{n} {label or 'unusable'}" for label, n in self.counts().items())
        return (
            f"<Predictions of {self.model}: {plural(len(self), 'candidate')}{': ' if counts else ''}{counts}>"
        )

    def _repr_html_(self) -> str:
        html: str = self[:_SHOWN].to_table()._repr_html_()
        rest = f"<p>{len(self) - _SHOWN} more rows</p>" if len(self) > _SHOWN else ""
        return html + rest

    def counts(self) -> dict[str, int]:
        """How many rows have which label, ``""`` for unusable ones; labels without a row are left out."""
        names, n = np.unique(self.labels, return_counts=True)
        found = dict(zip(names.tolist(), n.tolist(), strict=True))
        return {name: found[name] for name in (*self.classes, "") if name in found}

    @overload
    def __getitem__(self, rows: int | np.integer[Any]) -> Prediction: ...

    @overload
    def __getitem__(self, rows: str) -> npt.NDArray[Any]: ...

    @overload
    def __getitem__(self, rows: slice | Sequence[int] | npt.NDArray[Any]) -> Predictions: ...

    def __getitem__(self, rows: Any) -> Any:
        if isinstance(rows, str):
            columns = self.columns()
            if rows not in columns:
                raise KeyError(f"no column {rows!r}; there are {', '.join(columns)}")
            return columns[rows]
        chosen = np.arange(len(self))[np.zeros(0, int) if isinstance(rows, list) and not rows else rows]
        if chosen.ndim == 0:
            return next(iter(self[[int(chosen)]]))
        errors = self.errors and {
            at: self.errors[row] for at, row in enumerate(chosen.tolist()) if row in self.errors
        }
        return replace(
            self,
            ids=self.ids[chosen],
            probabilities=self.probabilities[chosen],
            quality=self.quality[chosen],
            sources=self.sources[chosen],
            sets=None if self.sets is None else self.sets[chosen],
            kinds=None if self.kinds is None else self.kinds[chosen],
            errors=errors,
            positions={name: values[chosen] for name, values in self.positions.items()},
        )

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
        if not parts:
            return cls.of([], classes, np.zeros((0, len(classes)), np.float32), np.zeros(0, np.uint16), model)
        errors: dict[int, str] = {}
        start = 0
        for part in parts:
            errors.update({start + row: message for row, message in part.errors.items()})
            start += len(part)
        sets = [part.sets for part in parts if part.sets is not None]
        # Rows for which no network was asked have none; the others keep theirs.
        kinds = [np.full(len(part), "") if part.kinds is None else part.kinds for part in parts]
        named = any(part.kinds is not None for part in parts)
        known = [name for name in POSITIONS if any(name in part.positions for part in parts)]
        return cls(
            np.concatenate([part.ids for part in parts]),
            classes,
            np.concatenate([part.probabilities for part in parts]),
            np.concatenate([part.quality for part in parts]),
            model,
            np.concatenate([part.sources for part in parts]),
            errors,
            parts[0].threshold,
            np.concatenate(sets) if len(sets) == len(parts) else None,
            {name: np.concatenate([part.position(name) for part in parts]) for name in known},
            np.concatenate(kinds) if named else None,
        )

    def position(self, name: str) -> npt.NDArray[np.float64]:
        """One of ``ra``, ``dec``, ``x``, ``y`` per row, NaN where it is not known, shape (N,)."""
        values = self.positions.get(name)
        return np.full(len(self), np.nan) if values is None else values

    def columns(self, positions: bool | None = None) -> dict[str, npt.NDArray[Any]]:
        """The score table, column by column.

        Parameters
        ----------
        positions : bool, optional
            Whether ``ra``, ``dec``, ``x`` and ``y`` are among the columns, empty or not; by default those
            that are known for a row.

        Returns
        -------
        dict of str to ndarray, each of shape (N,)
            id, source, label, p_<class>…, quality, model; then ra, dec, x, y, set, and kind. Characters that
            would break a row are escaped.
        """
        columns: dict[str, npt.NDArray[Any]] = {
            "id": _text(self.ids),
            "source": _text(self.sources),
            "label": self.labels,
            **{f"p_{name}": self.probabilities[:, k] for k, name in enumerate(self.classes)},
            "quality": self.quality,
            "model": np.full(len(self), self.model),
        }
        for name in POSITIONS:
            if positions or (positions is None and name in self.positions):
                columns[name] = self.position(name)
        if self.sets is not None:
            names = np.array(self.classes)
            columns["set"] = np.array(["|".join(names[members]) for members in self.sets], dtype=str)
        if self.kinds is not None:
            columns["kind"] = np.where(self.labels == BOGUS, self.kinds, "")
        return columns

    def to_table(self) -> Any:
        """The score table as an `astropy.table.Table`.

        Columns have units and descriptions. Label and probabilities of unusable rows are masked and sort
        last. A line of 80 characters shows ids and probabilities; columns that do not fit beside them are
        there, but not printed (`Table.pprint_exclude_names`).
        """
        from .table import as_table

        return as_table(self.columns())

    def to_pandas(self, positions: bool | None = None) -> Any:
        """The score table as a pandas DataFrame; `positions` as in `columns`."""
        try:
            import pandas as pd
        except ImportError as error:
            raise MissingDependencyError("to_pandas() needs pandas: pip install pandas") from error
        return pd.DataFrame(self.columns(positions))

    def to_arrow(self, positions: bool | None = None) -> Any:
        """The score table as a `pyarrow.RecordBatch`; `positions` as in `columns`."""
        return as_arrow(self.columns(positions))

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the score table: CSV, ECSV, JSON lines, Parquet, FITS or VOTable, by the ending of `path`.

        The file appears whole or not at all.

        Raises
        ------
        UsageError
            For another ending.
        MissingDependencyError
            For Parquet without the ``parquet`` extra.
        """
        write(self.columns(), Path(path))

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Histogram of the probabilities, as a matplotlib figure; saved where `path` is given."""
        return plot_predictions(self.classes, self.probabilities, self.model, path)


def _text(texts: npt.NDArray[Any]) -> npt.NDArray[Any]:
    found = texts.tolist()
    safe = one_line(found)
    return texts if safe == found else np.array(safe, dtype=str)


def _number(value: Any) -> float:
    """A position as a float; NaN where it is not one."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return float("nan")
    return number if abs(number) < _BEYOND else float("nan")
