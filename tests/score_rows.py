"""A score table for the tests, and its rows as text in any format."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from transientnet import Predictions, QualityFlag


def table(n: int = 5, start: int = 0) -> Predictions:
    """Rows of which each third is unusable, with names that need quoting."""
    p = np.linspace(0.1, 0.9, n, dtype=np.float32)
    probabilities = np.stack([1 - p, p], axis=1)
    quality = np.zeros(n, np.uint16)
    probabilities[::3], quality[::3] = np.nan, QualityFlag.BLANK
    ids = [f'c,"{start + i}"' for i in range(n)]
    return Predictions(
        np.array(ids, dtype=str), ("bogus", "real"), probabilities, quality, "m@1.0.0",
        np.array([f"ä/{start + i}.fits" for i in range(n)], dtype=str), {0: "blank"},
    )  # fmt: skip


def read(path: Path) -> list[dict[str, str]]:
    """Rows of any format as text, what is missing as empty."""
    if path.suffix == ".csv":
        with open(path, newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    elif path.suffix == ".parquet":
        pq = pytest.importorskip("pyarrow.parquet")
        rows = pq.read_table(path).to_pylist()
    else:
        from astropy.table import Table

        rows = [dict(zip(row.colnames, row, strict=True)) for row in Table.read(path)]
    return [{key: _text(value) for key, value in row.items()} for row in rows]


def _text(value: object) -> str:
    if value is None or value is np.ma.masked or value != value:
        return ""
    return f"{value:.7f}" if isinstance(value, float | np.floating) else str(value)
