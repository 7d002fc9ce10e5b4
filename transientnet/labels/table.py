"""A survey's own labels: a table of names, joined with the stamps that it refers to.

A row's stamps are found in one of four ways: ``path`` (a file with the candidate);
``science``, ``reference``, ``difference`` (a file each); ``id`` (the candidate's name in the source
given as `cutouts`); or none of these, and row i is candidate i of `cutouts`, as it also is where
candidates have no names. ``label`` is the class. ``group`` (sky object), ``weight``, ``split`` (train,
validation or test), ``pixel_scale`` and ``fwhm`` are optional. Packets' names are understood as well:
``candid``, ``objectId``, ``fwhm_px``. Lines that start with ``#`` are comments.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import LabelError, ReadError, TransientnetError
from ..files.tables import open_table
from ..triplet import CHANNELS, Triplet

__all__ = ["COLUMNS", "SPLITS", "Labels", "bare_name", "read_labels"]

COLUMNS = ("path", *CHANNELS, "id", "label", "group", "weight", "split", "pixel_scale", "fwhm")
"""Columns that are read; a table may have others."""

SPLITS = ("train", "validation", "test")

#: Columns that may have a packet's name: candid, objectId, pixscale, fwhm_px.
_AS_PACKETS_HAVE_THEM = ("id", "group", "pixel_scale", "fwhm")

#: Of two classes, which a number or a truth value means.
_NUMBERS = {"0": 0, "0.0": 0, "false": 0, "1": 1, "1.0": 1, "true": 1}

Text = npt.NDArray[np.str_]
Table = dict[str, list[str]]


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """Labelled candidates, row by row as the table has them.

    Attributes
    ----------
    triplets : tuple of Triplet
        One per row; `Triplet.error` is set where the stamp could not be read.
    labels : ndarray of str, shape (N,)
        Class names; empty where the table has none.
    groups : ndarray of str, shape (N,)
        Sky objects; empty where neither the table nor the stamps' source names one.
    weights : ndarray of float64, shape (N,)
        How much a row counts in training.
    split : ndarray of str, shape (N,)
        One of `SPLITS`, or empty.
    rows : ndarray of int, shape (N,)
        Row number in the table; 1 is the first row below the header.
    where : str
        Name of the table, for messages.
    renamed : dict of str to str
        Labels of the table that were read as a class of another spelling.
    """

    triplets: tuple[Triplet, ...]
    labels: Text
    groups: Text
    weights: npt.NDArray[np.float64]
    split: Text
    rows: npt.NDArray[np.int64]
    where: str = "labels"
    renamed: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.triplets)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that occur, sorted."""
        return tuple(sorted({str(label) for label in self.labels if label}))

    def select(self, index: npt.NDArray[Any]) -> Labels:
        """The rows that `index` (integers, or a mask) chooses."""
        chosen = np.arange(len(self))[index]
        return replace(
            self,
            triplets=tuple(self.triplets[row] for row in chosen),
            labels=self.labels[chosen],
            groups=self.groups[chosen],
            weights=self.weights[chosen],
            split=self.split[chosen],
            rows=self.rows[chosen],
        )

    def spelled_as(self, classes: Sequence[str]) -> Labels:
        """The same labels in a model's spelling.

        A label that differs from a class in case or spaces only is that class. Of two classes, 0 or false
        is the first and 1 or true the second, as the field writes bogus and real. Others stay as they are.
        """
        spelling = {bare_name(name): name for name in classes}
        if len(classes) == 2 and {bare_name(name) for name in self.classes} <= _NUMBERS.keys():
            spelling |= {word: classes[number] for word, number in _NUMBERS.items()}
        renamed = {name: spelling.get(bare_name(name), name) for name in self.classes if name not in classes}
        renamed = {name: other for name, other in renamed.items() if name != other}
        labels = np.array([renamed.get(label, label) for label in self.labels.tolist()], dtype=str)
        return replace(self, labels=labels, renamed={**self.renamed, **renamed}) if renamed else self

    def named(self, row: int) -> str:
        """A row in a message: its number, and the candidate's name if it has one."""
        name = self.triplets[row].id
        return f"row {self.rows[row]}" + (f" ({name})" if name else "")


def read_labels(
    labels: Any,
    *,
    cutouts: Any = None,
    groups: Any = None,
    pixel_scale: float | None = None,
    fwhm: float | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
) -> Labels:
    """Read a label table and the stamps that it names.

    Parameters
    ----------
    labels : path, table or sequence of str
        A ``.csv``, ``.tsv`` or ``.txt`` (commas, semicolons or tabs), ``.ecsv`` or ``.parquet`` file; an
        astropy Table, a pandas DataFrame or a mapping of columns; or N class names, for N stamps in
        `cutouts`.
    cutouts : path or ndarray, optional
        Any source that `open_triplets` reads, or an array (N, 3, H, W). A folder is also where
        relative paths of the table start; otherwise they start at the table's own folder.
    groups : sequence, optional
        Sky object of each row, instead of the column.
    pixel_scale, fwhm : float, optional
        arcsec per pixel, and seeing in pixels, for rows whose cells are empty.
    label_column, group_column : str, optional
        Columns of the classes and of the sky objects, where they are not ``label`` and ``group``.

    Returns
    -------
    Labels
        Rows whose stamps cannot be read stay, with `Triplet.error` set.

    Raises
    ------
    LabelError
        The table has no rows or lacks a column, a cell cannot be understood, or the table does not say
        where the stamps are.
    MissingDependencyError
        For Parquet without the ``parquet`` extra.
    """
    chosen = {
        column: name
        for column, name in (("label", label_column), ("group", group_column))
        if name is not None
    }
    table, where, folder = _load(labels, cutouts, chosen)
    count = len(table["label"])
    if count == 0:
        raise LabelError(f"{where}: no rows")
    if groups is not None:
        table["group"] = [_text(value) for value in groups]
        if len(table["group"]) != count:
            raise LabelError(f"{where}: {count} labels, but {len(table['group'])} groups")
    scales = _numbers(table, "pixel_scale", where)
    seeings = _numbers(table, "fwhm", where)
    weights = _numbers(table, "weight", where, zero=True)
    split = np.array([value.lower() for value in table.get("split", [""] * count)], dtype=str)
    if bad := sorted(set(split.tolist()) - {"", *SPLITS}):
        raise LabelError(f"{where}: split must be one of {', '.join(SPLITS)} or empty, not {bad[0]!r}")

    triplets = [
        _with(triplet, scale or pixel_scale, seeing or fwhm)
        for triplet, scale, seeing in zip(
            _stamps(table, cutouts, folder, where), scales, seeings, strict=True
        )
    ]
    column = table.get("group", [""] * count)
    return Labels(
        tuple(triplets),
        np.array(table["label"], dtype=str),
        np.array(
            [own or triplet.group or "" for own, triplet in zip(column, triplets, strict=True)], dtype=str
        ),
        np.array([1.0 if weight is None else weight for weight in weights]),
        split,
        np.arange(1, count + 1),
        where,
    )


def _with(triplet: Triplet, pixel_scale: float | None, fwhm: float | None) -> Triplet:
    """The table's values outrank the file's."""
    if triplet.error is not None:
        return triplet
    return replace(triplet, pixel_scale=pixel_scale or triplet.pixel_scale, fwhm=fwhm or triplet.fwhm)


# --- the table ---------------------------------------------------------------------------------------


def _load(labels: Any, cutouts: Any, chosen: Mapping[str, str]) -> tuple[Table, str, Path]:
    """Known columns as text, the table's name, and the folder where its paths start."""
    base = Path(cutouts) if isinstance(cutouts, (str, os.PathLike)) and os.path.isdir(cutouts) else None
    if isinstance(labels, (str, os.PathLike)):
        path = Path(labels)
        columns = _read_file(path, chosen)
        where, folder = str(path), base or path.parent
    elif isinstance(labels, Mapping) or hasattr(labels, "columns"):
        names = [str(name) for name in (labels if isinstance(labels, Mapping) else labels.columns)]
        columns = {name: list(labels[name]) for name in names}
        where, folder = "labels", base or Path()
    else:
        columns = {"label": list(labels)}
        where, folder = "labels", base or Path()
    known = _known(columns, chosen)
    if lacking := [chosen.get(column, column) for column in ("label", *chosen) if column not in known]:
        raise LabelError(
            f"{where}: no column {lacking[0]!r}"
            + (", which holds the classes" if lacking[0] == chosen.get("label", "label") else "")
            + f"; it has {', '.join(columns) or 'none'}; name another with label_column or group_column "
            "(--label-column, --group-column)"
        )
    return (
        {column: [_text(value) for value in columns[name]] for column, name in known.items()},
        where,
        folder,
    )


def _known(names: Iterable[str], chosen: Mapping[str, str]) -> dict[str, str]:
    """Which of a table's `names` are read, by the column of `COLUMNS` that they are; `chosen` ones first."""
    from ..readers.layouts import match_role
    from ..readers.vocabulary import normalise

    names = list(names)
    found = {name.strip().lower(): name for name in names if name.strip().lower() in COLUMNS}
    for column, name in chosen.items():
        found.pop(column, None)
        if name in names:
            found[column] = name
    # "object" may be a kind as well as a name.
    others = [name for name in names if name not in found.values() and normalise(name) != "object"]
    for column in _AS_PACKETS_HAVE_THEM:
        if column not in {*found, *chosen} and (called := match_role(others, column)):
            found[column] = called[0]
    return found


def _read_file(path: Path, chosen: Mapping[str, str]) -> dict[str, list[Any]]:
    def known(names: Sequence[str]) -> list[str]:
        found = _known(names, chosen)
        # Without labels the columns are named in a message, and not read.
        return list(found.values()) if "label" in found else []

    try:
        table = open_table(path, header=lambda names: bool(known(names)))
        if len(set(table.names)) != len(table.names):
            raise LabelError(f"{path}: two columns have the same name")
        read = table.columns(known(table.names))
    except ReadError as error:
        raise LabelError(str(error)) from error
    return {name: read.get(name, []) for name in table.names}


def bare_name(name: str) -> str:
    """A name without what people write differently."""
    return "".join(name.casefold().split())


def _text(value: Any) -> str:
    """A cell as text; missing values of any library are empty."""
    if value is None or np.ma.is_masked(value):
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip()
    if isinstance(value, (float, np.floating)):
        if math.isnan(value):
            return ""
        # Integer columns with a gap become floats in pandas: 7.0 is object 7.
        return str(int(value)) if float(value).is_integer() else str(float(value))
    text = str(value).strip()
    return "" if text in ("<NA>", "NaT") else text


def _numbers(table: Table, name: str, where: str, *, zero: bool = False) -> list[float | None]:
    """A column of positive numbers; None where the cell is empty."""
    values: list[float | None] = []
    for row, cell in enumerate(table.get(name, [""] * len(table["label"])), 1):
        try:
            value = float(cell) if cell else None
        except ValueError:
            value = math.nan
        if value is not None and not (0 < value < math.inf or (zero and value == 0)):
            raise LabelError(f"{where}: row {row}: {name} is {cell!r}; it must be a positive number or empty")
        values.append(value)
    return values


# --- the stamps --------------------------------------------------------------------------------------


def _stamps(table: Table, cutouts: Any, folder: Path, where: str) -> list[Triplet]:
    from ..readers.open import open_triplets

    count = len(table["label"])
    ids = table.get("id", [""] * count)
    if "path" in table:
        return _from_paths(table["path"], ids, folder)
    if "science" in table:
        return [
            _from_files({c: table[c][row] for c in CHANNELS if c in table}, ids[row], folder)
            for row in range(count)
        ]
    if cutouts is None:
        raise LabelError(
            f"{where}: it does not say where the stamps are; add a column 'path', or columns 'science', "
            "'reference', 'difference', or name the file or folder that holds the stamps with cutouts "
            "(--cutouts)"
        )
    if "id" in table and not isinstance(cutouts, np.ndarray):
        name = os.fspath(cutouts) if isinstance(cutouts, (str, os.PathLike)) else "cutouts"
        return _by_id(ids, open_triplets(cutouts), name)
    found = list(open_triplets(cutouts))
    if len(found) != count:
        raise LabelError(
            f"{where}: {count} labels, but cutouts hold {len(found)} candidates; "
            "without a column 'id' they must match row by row"
        )
    return [
        replace(t, id=name) if name and t.error is None else t for t, name in zip(found, ids, strict=True)
    ]


def _by_id(ids: Sequence[str], triplets: Iterable[Triplet], source: str) -> list[Triplet]:
    """Pick candidates by name out of a stream; or row by row, if they have numbers for names and all fit."""
    wanted = set(ids)
    found: dict[str, Triplet] = {}
    twice: set[str] = set()
    nameless: list[Triplet] = []
    for number, triplet in enumerate(triplets):
        if len(nameless) == number and number < len(ids) and triplet.id == str(number):
            nameless.append(triplet)
        else:
            nameless = []
        if triplet.id in wanted:
            if triplet.id in found:
                twice.add(triplet.id)
            found[triplet.id] = triplet
    if not found and len(nameless) == len(ids):
        return [
            replace(triplet, id=name) if name and triplet.error is None else triplet
            for triplet, name in zip(nameless, ids, strict=True)
        ]
    return [
        Triplet.unreadable(name, source, f"{source}: several candidates are named {name!r}")
        if name in twice
        else found.get(name) or Triplet.unreadable(name, source, f"{source}: no candidate is named {name!r}")
        for name in ids
    ]


def _from_paths(paths: Sequence[str], ids: Sequence[str], folder: Path) -> list[Triplet]:
    """Open each file once, also where several rows name candidates in the same one."""
    rows: dict[str, list[int]] = defaultdict(list)
    for row, path in enumerate(paths):
        rows[path].append(row)
    triplets: dict[int, Triplet] = {}
    for path, members in rows.items():
        chosen = _from_path(path, [ids[row] for row in members], folder)
        triplets.update(zip(members, chosen, strict=True))
    return [triplets[row] for row in range(len(paths))]


def _from_path(path: str, ids: list[str], folder: Path) -> list[Triplet]:
    from ..readers.open import open_triplets

    source = str(folder / path)
    try:
        if not path:
            raise LabelError("the path is empty")
        found = list(open_triplets(source))
    except TransientnetError as error:
        return [Triplet.unreadable(name, source, str(error)) for name in ids]
    if len(found) == 1:
        return found * len(ids)
    if all(ids):
        return _by_id(ids, found, source)
    message = f"{source}: holds {len(found)} candidates; name the one meant in a column 'id'"
    return [Triplet.unreadable(name, source, message) for name in ids]


def _from_files(cells: Mapping[str, str], name: str, folder: Path) -> Triplet:
    from ..files.paths import stem
    from ..readers.files import read_stamps
    from ..readers.layouts import load_layout
    from ..readers.sources import StampFiles

    paths = {channel: str(folder / cell) for channel, cell in cells.items() if cell}
    source = paths.get("science", "")
    name = name or (stem(source) if source else "")
    try:
        if not source:
            raise LabelError("the science cell is empty")
        found = list(read_stamps(StampFiles(name, paths), load_layout(None)))
        if len(found) != 1:
            raise LabelError(
                f"{source}: holds {len(found)} candidates, but a row of the table is one candidate"
            )
        return found[0]
    except (TransientnetError, OSError) as error:
        return Triplet.unreadable(name, source, str(error))
