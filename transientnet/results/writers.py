"""The score table as CSV, ECSV, JSON lines, Parquet, FITS and VOTable, a part at a time.

CSV, ECSV and JSON lines are written by appending: what was written stays as it is, and a file cut off
behind any part is the table of the parts before. The others are made at the end: the parts of Parquet go to
a stream of Arrow record batches, those of FITS and VOTable to JSON lines, and `finish` makes the file.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import MissingDependencyError, UsageError
from ..files.atomic import replacing
from .columns import Columns, as_arrow

__all__ = ["FORMATS", "Writer", "check_format", "write", "writer_for"]

_DIGITS = 7
_ROW_GROUP = 65536


def check_format(path: Path) -> str:
    """The ending of `path`, if it names a format that can be written.

    Raises
    ------
    UsageError
    """
    ending = path.suffix.lower()
    if ending not in FORMATS:
        raise UsageError(f"cannot write {str(path)!r}: the ending must be one of {', '.join(FORMATS)}")
    return ending


def writer_for(path: Path) -> Writer:
    """The writer that the ending of `path` asks for.

    Raises
    ------
    UsageError
        For another ending.
    MissingDependencyError
        For Parquet without the ``parquet`` extra.
    """
    return _WRITERS[check_format(path)]()


def write(columns: Columns, path: Path) -> None:
    """Write a whole table; the file appears whole or not at all."""
    writer = writer_for(path)
    rows = len(columns["id"])
    with replacing(path) as target:
        staged = target.with_name(target.name + ".staged") if writer.staged else target
        try:
            with open(staged, "wb") as stream:
                stream.write(writer.header(columns))
                for start in range(0, rows, _ROW_GROUP):
                    part = slice(start, start + _ROW_GROUP)
                    stream.write(writer.rows({name: values[part] for name, values in columns.items()}))
            if writer.staged:
                writer.finish(staged, target)
        finally:
            if staged != target:
                staged.unlink(missing_ok=True)


class Writer:
    """One format; this one is CSV."""

    #: Whether the bytes written are not yet the file, so that `finish` must make it.
    staged = False

    def header(self, columns: Columns) -> bytes:
        """What comes before the first row of such a table."""
        return _csv([columns])

    def rows(self, columns: Columns) -> bytes:
        """The rows of one part."""
        return _csv(_cells(columns, ""))

    def finish(self, staged: Path, target: Path) -> None:
        """Make the file of the bytes written, where `staged` says so."""

    def restore(self, target: Path, staged: Path, rows: int) -> None:
        """Make the bytes written again of the file's first `rows`, so that more can be appended."""


class _Jsonl(Writer):
    def header(self, columns: Columns) -> bytes:
        return b""

    def rows(self, columns: Columns) -> bytes:
        values = [_plain(column) for column in columns.values()]
        lines = (json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in zip(*values, strict=True))
        return "".join(lines).encode("ascii")


class _Ecsv(Writer):
    def header(self, columns: Columns) -> bytes:
        from .table import as_table

        stream = io.StringIO()
        # Text has no width here: a later row may have a longer one.
        empty = {name: v[:0].astype(str) if v.dtype.kind == "U" else v[:0] for name, v in columns.items()}
        as_table(empty).write(stream, format="ascii.ecsv", delimiter=",")
        return stream.getvalue().encode("utf-8")

    def rows(self, columns: Columns) -> bytes:
        return _csv(_cells(columns, "nan"))


class _Parquet(Writer):
    staged = True

    def __init__(self) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise MissingDependencyError.for_extra("parquet", "Writing Parquet") from error
        self._arrow, self._parquet = pyarrow, pyarrow.parquet

    def header(self, columns: Columns) -> bytes:
        return bytes(as_arrow(columns).schema.serialize())

    def rows(self, columns: Columns) -> bytes:
        return bytes(as_arrow(columns).serialize())

    def finish(self, staged: Path, target: Path) -> None:
        with self._arrow.OSFile(str(staged)) as source:
            stream = self._arrow.ipc.open_stream(source)
            with self._parquet.ParquetWriter(target, stream.schema, compression="zstd") as writer:
                for batch in _regrouped(self._arrow, stream):
                    writer.write_table(batch, row_group_size=_ROW_GROUP)

    def restore(self, target: Path, staged: Path, rows: int) -> None:
        with self._parquet.ParquetFile(target) as source, open(staged, "wb") as stream:
            stream.write(source.schema_arrow.remove_metadata().serialize())
            for batch in source.iter_batches(_ROW_GROUP):
                if rows > 0:
                    stream.write(batch[:rows].serialize())
                rows -= batch.num_rows


class _Fits(_Jsonl):
    """FITS, which astropy writes from a table in memory; until then the rows are JSON lines."""

    staged = True

    def header(self, columns: Columns) -> bytes:
        # With the kinds of the columns a table without rows has them too.
        return json.dumps({name: values.dtype.kind for name, values in columns.items()}).encode() + b"\n"

    def finish(self, staged: Path, target: Path) -> None:
        with open(staged, encoding="ascii") as stream:
            kinds = json.loads(next(stream))
            records = [json.loads(line) for line in stream]
        columns = {name: _typed(name, kind, [r[name] for r in records]) for name, kind in kinds.items()}
        self._save(columns, target)

    def _save(self, columns: dict[str, npt.NDArray[Any]], target: Path) -> None:
        from .table import as_table

        # The standard's text is ASCII.
        table = as_table({name: _ascii(v) if v.dtype.kind == "U" else v for name, v in columns.items()})
        table["label"] = table["label"].filled("")
        table.write(target, format="fits", overwrite=True)

    def restore(self, target: Path, staged: Path, rows: int) -> None:
        from .table import read_table

        columns = {name: values[:rows] for name, values in read_table(target).items()}
        staged.write_bytes(self.header(columns) + self.rows(columns))


class _VOTable(_Fits):
    """VOTable, likewise."""

    def _save(self, columns: dict[str, npt.NDArray[Any]], target: Path) -> None:
        from .table import as_table

        as_table(columns).write(target, format="votable", overwrite=True)


_WRITERS: dict[str, type[Writer]] = {
    ".csv": Writer,
    ".ecsv": _Ecsv,
    ".jsonl": _Jsonl,
    ".parquet": _Parquet,
    ".fits": _Fits,
    ".vot": _VOTable,
}

FORMATS = tuple(_WRITERS)
"""File endings of the formats that can be written."""


def _typed(name: str, kind: str, values: list[Any]) -> npt.NDArray[Any]:
    """A column of JSON values as it was."""
    if kind == "U":
        return np.array(values, dtype=str)
    if kind == "f":
        dtype = np.float32 if name.startswith("p_") else np.float64
        return np.array([np.nan if value is None else value for value in values], dtype)
    return np.array(values, np.uint16)


def _ascii(texts: npt.NDArray[Any]) -> npt.NDArray[Any]:
    plain = [text.encode("ascii", "backslashreplace").decode("ascii") for text in texts.tolist()]
    return np.array(plain, dtype=str)


def _regrouped(arrow: Any, stream: Any) -> Iterator[Any]:
    """Many small record batches as tables of one row group each."""
    waiting: list[Any] = []
    rows = 0
    for batch in stream:
        waiting.append(batch)
        rows += batch.num_rows
        if rows >= _ROW_GROUP:
            yield arrow.Table.from_batches(waiting)
            waiting, rows = [], 0
    if waiting:
        yield arrow.Table.from_batches(waiting)


def _cells(columns: Columns, nan: str) -> Iterator[tuple[str, ...]]:
    """Rows of the table as text."""
    return zip(*(_text(column, nan) for column in columns.values()), strict=True)


def _text(column: npt.NDArray[Any], nan: str) -> list[str]:
    if column.dtype.kind != "f":
        return [str(value) for value in column.tolist()]
    return [nan if value != value else f"{value:.{_DIGITS}f}" for value in column.tolist()]


def _plain(column: npt.NDArray[Any]) -> list[Any]:
    values: list[Any] = column.tolist()
    if column.dtype.kind != "f":
        return values
    return [None if value != value else round(value, _DIGITS) for value in values]


def _csv(rows: Any) -> bytes:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue().encode("utf-8")
