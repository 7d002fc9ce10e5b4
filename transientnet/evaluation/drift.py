"""Has the survey drifted? A night's scores and stamps against what the model's record expects."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import EmptyInputError, MissingDependencyError, ReadError, UsageError
from ..models.outliers import STATISTICS, input_statistics
from ..models.record import ModelRecord
from ..prepare.contract import InputContract
from ..prepare.preprocess import preprocess
from ..triplet import QualityFlag, Triplet
from .statistics import kolmogorov_smirnov

__all__ = ["Drift", "ScoreTable", "compare_flags", "compare_inputs", "compare_scores", "read_scores"]

FloatArray = npt.NDArray[np.float64]

LIMIT = 0.2
"""Population stability index above which a distribution is commonly held to have shifted."""

BINS = 10
_BATCH = 64

EXPECTED_FLAGS = (
    QualityFlag.UNUSABLE | QualityFlag.MASKED | QualityFlag.PADDED | QualityFlag.OUT_OF_DISTRIBUTION
)


class Drift(NamedTuple):
    """One quantity of a night.

    Attributes
    ----------
    name : str
    n : int
        Candidates of the night.
    psi : float
        Population stability index; below 0.1 is calm, above 0.2 a shift.
    ks : float
        Kolmogorov–Smirnov distance; NaN for flags.
    p : float
        Of that distance; with many candidates harmless shifts are significant too, so the limit is
        on `psi`.
    """

    name: str
    n: int
    psi: float
    ks: float
    p: float


@dataclass(frozen=True, slots=True, eq=False)
class ScoreTable:
    """What `transientnet score` wrote: probabilities (N, K), quality (N,), and the model's name."""

    classes: tuple[str, ...]
    probabilities: FloatArray
    quality: npt.NDArray[np.uint16]
    model: str


def read_scores(path: str | os.PathLike[str]) -> ScoreTable:
    """Read a score table: .csv, .ecsv, .jsonl or .parquet.

    Raises
    ------
    ReadError
        If it is absent or not a score table.
    EmptyInputError
        If it has no row.
    """
    source = Path(path)
    try:
        columns = _columns(source)
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, UsageError):
            raise
        raise ReadError(f"{source}: cannot be read as a score table ({error})") from error
    classes = tuple(name[2:] for name in columns if name.startswith("p_"))
    if not classes or "quality" not in columns:
        raise ReadError(f"{source}: not a score table: no p_<class> or quality column")
    if not len(columns["quality"]):
        raise EmptyInputError(f"{source}: no candidate")
    try:
        return ScoreTable(
            classes,
            np.stack([_numbers(columns[f"p_{name}"]) for name in classes], axis=1),
            _numbers(columns["quality"]).astype(np.uint16),
            str(columns["model"][0]) if "model" in columns else "",
        )
    except ValueError as error:
        raise ReadError(f"{source}: a cell is not a number ({error})") from error


def _columns(path: Path) -> dict[str, list[Any]]:
    ending = path.suffix.lower()
    if ending == ".csv":
        with open(path, newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            rows = list(reader)
        return {name: [row[name] for row in rows] for name in reader.fieldnames or ()}
    if ending == ".jsonl":
        import json

        with open(path, encoding="utf-8") as stream:
            records = [json.loads(line) for line in stream if line.strip()]
        return {name: [record[name] for record in records] for name in (records[0] if records else ())}
    if ending == ".parquet":
        try:
            import pyarrow.parquet as pq
        except ImportError as error:
            raise MissingDependencyError.for_extra("parquet", "Reading Parquet") from error
        columns: dict[str, list[Any]] = pq.read_table(path).to_pydict()
        return columns
    if ending == ".ecsv":
        from astropy.table import Table

        table = Table.read(path, format="ascii.ecsv")
        return {name: np.ma.filled(np.ma.asarray(table[name])).tolist() for name in table.colnames}
    raise UsageError(f"{path}: a score table ends in .csv, .ecsv, .jsonl or .parquet")


def _numbers(cells: Sequence[Any]) -> FloatArray:
    return np.array([np.nan if cell in ("", None) else float(cell) for cell in cells], np.float64)


def compare_scores(night: ScoreTable, expected: Mapping[str, Any] | ScoreTable) -> list[Drift]:
    """Probabilities per class against a record's reference, or another night's table."""
    usable = np.isfinite(night.probabilities).all(axis=1)
    drifts = []
    for c, name in enumerate(night.classes):
        if isinstance(expected, ScoreTable):
            other = expected.probabilities[:, expected.classes.index(name)]
            quantiles, n = np.quantile(other[np.isfinite(other)], np.linspace(0, 1, 41)), len(other)
        else:
            quantiles, n = np.asarray(expected["scores"][name], np.float64), int(expected["n"])
        drifts.append(_drift(f"p_{name}", night.probabilities[usable, c], quantiles, n))
    return drifts


def compare_flags(night: ScoreTable, expected: Mapping[str, Any] | ScoreTable) -> list[Drift]:
    """Share of each flag that tells of the stamps' state."""
    n = len(night.quality)
    drifts = []
    for flag in QualityFlag:
        if not flag.value & EXPECTED_FLAGS or not flag.name:
            continue
        if isinstance(expected, ScoreTable):
            share, weight = float(((expected.quality & flag.value) != 0).mean()), len(expected.quality)
        else:
            # By its definition one in a hundred training candidates is flagged as foreign.
            share = 0.01 if flag == QualityFlag.OUT_OF_DISTRIBUTION else expected["quality"][flag.name]
            weight = int(expected["n"])
        now = float(((night.quality & flag.value) != 0).mean())
        if share or now:
            psi = _psi(np.array([1 - share, share]), np.array([1 - now, now]), weight, n)
            drifts.append(Drift(flag.name.lower(), n, psi, float("nan"), float("nan")))
    return drifts


def compare_inputs(
    triplets: Iterable[Triplet], contract: InputContract, reference: Mapping[str, Any], limit: int = 2000
) -> list[Drift]:
    """Statistics of the first `limit` stamps against a record's reference."""
    parts = []
    for batch in _batches(islice(triplets, limit)):
        prepared = preprocess(batch, contract)
        parts.append(input_statistics(prepared.tensor[prepared.usable]))
    values = np.concatenate(parts) if parts else np.zeros((0, len(STATISTICS)))
    if not len(values):
        raise EmptyInputError("none of the stamps could be used to look for a drift")
    return [
        _drift(name, values[:, i], np.asarray(reference["inputs"][name], np.float64), int(reference["n"]))
        for i, name in enumerate(STATISTICS)
    ]


def _batches(triplets: Iterator[Triplet]) -> Iterator[list[Triplet]]:
    while batch := list(islice(triplets, _BATCH)):
        yield batch


def needs_reference(record: ModelRecord) -> Mapping[str, Any]:
    """The record's reference statistics; raises `UsageError` where it has none."""
    if not record.reference:
        raise UsageError(
            f"{record.id} carries no reference statistics; compare with an earlier night: --reference TABLE"
        )
    return record.reference


def _drift(name: str, values: FloatArray, quantiles: FloatArray, n_expected: int) -> Drift:
    n = len(values)
    if not n:
        return Drift(name, 0, float("nan"), float("nan"), float("nan"))
    levels = np.linspace(0, 1, len(quantiles))
    # Bins of equal expected mass; equal edges (many scores of exactly 1) become one bin.
    edges = np.unique(np.interp(np.linspace(0, 1, BINS + 1)[1:-1], levels, quantiles))
    low, high = _cumulative(edges, quantiles, levels)
    share = np.diff(np.concatenate([[0.0], (low + high) / 2, [1.0]]))
    position = (
        np.searchsorted(np.sort(values), edges, "left") + np.searchsorted(np.sort(values), edges, "right")
    ) / 2
    now = np.diff(np.concatenate([[0.0], position / n, [1.0]]))
    ordered = np.sort(values)
    low, high = _cumulative(ordered, quantiles, levels)
    below = np.searchsorted(ordered, ordered, "left") / n
    upto = np.searchsorted(ordered, ordered, "right") / n
    ks = float(max((upto - high).max(), (low - below).max(), 0.0))
    p = kolmogorov_smirnov(ks, n * n_expected / (n + n_expected))
    return Drift(name, n, _psi(share, now, n_expected, n), ks, p)


def _cumulative(
    values: FloatArray, quantiles: FloatArray, levels: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Expected share below, and up to, each value; they differ where many expected values are equal."""
    high = np.interp(values, quantiles, levels)
    reversed_ = np.interp(-values, -quantiles[::-1], 1 - levels[::-1])
    low = 1 - reversed_
    return np.minimum(low, high), np.maximum(low, high)


def _psi(expected: FloatArray, now: FloatArray, n_expected: int, n: int) -> float:
    """Population stability index, with half a candidate in each bin so that an empty one stays finite."""
    bins = len(expected)
    a = (expected * n_expected + 0.5) / (n_expected + 0.5 * bins)
    b = (now * n + 0.5) / (n + 0.5 * bins)
    return float(((b - a) * np.log(b / a)).sum())
