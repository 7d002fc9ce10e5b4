"""The score table as astropy shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.table import Column, MaskedColumn, Table

from ..files.tables import open_table
from .columns import Columns

__all__ = ["ScoreTable", "as_table", "read_table"]

_UNITS = {"ra": "deg", "dec": "deg", "x": "pix", "y": "pix"}
_DESCRIPTIONS = {
    "id": "candidate",
    "source": "file that the candidate came from",
    "label": "class named; masked where the candidate could not be scored",
    "quality": "QualityFlag bits",
    "model": "name@version",
    "ra": "right ascension (ICRS)",
    "dec": "declination (ICRS)",
    "x": "column in the frame, the centre of the first pixel at 0",
    "y": "row in the frame, the centre of the first pixel at 0",
    "set": "classes of the prediction set",
    "kind": "kind of bogus, where the candidate is named bogus",
}
_LINE = 80
#: What a narrow terminal can do without, first to go first.
_LATER = ("model", "source", "y", "x", "set", "kind", "dec", "ra")


class ScoreTable(Table):  # type: ignore[misc, unused-ignore]
    """An astropy table in which masked values sort last, also from the highest value down."""

    def argsort(self, keys: Any = None, kind: Any = None, reverse: bool = False) -> npt.NDArray[np.intp]:
        """Indices that sort the table, as `astropy.table.Table.argsort`, masked values last."""
        order: npt.NDArray[np.intp] = super().argsort(keys, kind=kind, reverse=reverse)
        absent = np.zeros(len(self), bool)
        for name in [keys] if isinstance(keys, str) else list(keys or self.colnames):
            absent |= np.ma.getmaskarray(np.ma.asarray(self[name]))
        return np.concatenate([order[~absent[order]], order[absent[order]]])

    def write(self, *args: Any, **kwargs: Any) -> Any:
        """Write all columns with all digits, as `astropy.table.Table.write`."""
        plain = Table(self)
        plain.pprint_exclude_names = None
        for column in plain.itercols():
            column.info.format = None
        return plain.write(*args, **kwargs)


def as_table(columns: Columns) -> ScoreTable:
    """The score table for astropy: units, descriptions, values of unusable rows masked.

    A line of 80 characters shows ids and probabilities whole: columns that do not fit beside them are in
    the table, but not printed (`Table.pprint_exclude_names`).
    """
    table = ScoreTable(meta={"model": str(columns["model"][0])} if len(columns["model"]) else None)
    probabilities = [name for name in columns if name.startswith("p_")]
    unusable = np.isnan([columns[name] for name in probabilities]).any(axis=0)
    for name, values in columns.items():
        about = f"probability of {name[2:]}" if name in probabilities else _DESCRIPTIONS.get(name)
        options = {"unit": _UNITS.get(name), "description": about}
        if name == "label" or name in probabilities:
            table[name] = MaskedColumn(values, mask=unusable, **options)
        elif name in _UNITS:
            table[name] = MaskedColumn(values, mask=np.isnan(values), **options)
        else:
            # VOTable has no unsigned integers of 16 bits.
            table[name] = Column(values.astype(np.int32) if values.dtype == np.uint16 else values, **options)
    for name in probabilities:
        table[name].info.format = ".4f"
    widths = {name: 1 + _width(name, values) for name, values in columns.items()}
    hidden = []
    for name in _LATER:
        if name in widths and sum(widths.values()) - 1 > _LINE:
            hidden.append(name)
            del widths[name]
    table.pprint_exclude_names = hidden or None
    return table


def _width(name: str, values: npt.NDArray[Any]) -> int:
    """Characters that a column takes at most."""
    longest = {"U": values.dtype.itemsize // 4, "f": 6 if values.dtype == np.float32 else 12}
    return max(len(name), longest.get(values.dtype.kind, 5))


def read_table(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The columns of a score table; what is masked is NaN or empty.

    Raises
    ------
    ReadError
        The file is absent or damaged.
    """
    columns: dict[str, npt.NDArray[Any]] = {}
    for name, cells in open_table(path).columns().items():
        if name == "quality":
            columns[name] = np.array(cells, np.int64)
        elif name.startswith("p_") or name in _UNITS:
            columns[name] = np.array([np.nan if cell is None else cell for cell in cells], np.float64)
        else:
            columns[name] = np.array(["" if cell is None else cell for cell in cells], str)
    return columns
