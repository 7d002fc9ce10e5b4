"""The score table as CSV, ECSV, JSON lines and Parquet, a part at a time.

Every format is written by appending: what was written stays as it is, and a file cut off behind any
part is the table of the parts before. Parquet cannot be (its index stands at the end): its parts go to
a stream of Arrow record batches, from which `finish` makes the Parquet file.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from ..errors import MissingDependencyError, UsageError

if TYPE_CHECKING:
    from .predictions import Predictions

__all__ = ["FORMATS", "Writer", "check_format", "write", "writer_for"]

FORMATS = (".csv", ".ecsv", ".jsonl", ".parquet")
"""File endings of the formats that can be written."""

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


def write(predictions: Predictions, path: Path) -> None:
    """Write a whole table; the file appears whole or not at all."""
    writer = writer_for(path)
    staged, target = (path.with_name(f".{path.name}.{os.getpid()}.{kind}") for kind in ("staged", "part"))
    try:
        with open(staged, "wb") as stream:
            stream.write(writer.header(predictions))
            for start in range(0, len(predictions), _ROW_GROUP):
                stream.write(writer.rows(predictions[start : start + _ROW_GROUP]))
        if writer.staged:
            writer.finish(staged, target)
            os.replace(target, path)
        else:
            os.replace(staged, path)
    finally:
        staged.unlink(missing_ok=True)
        target.unlink(missing_ok=True)


class Writer:
    """One format; this one is CSV."""

    #: Whether the bytes written are not yet the file, so that `finish` must make it.
    staged = False

    def header(self, predictions: Predictions) -> bytes:
        """What comes before the first row of such a table."""
        return _csv([predictions.columns()])

    def rows(self, predictions: Predictions) -> bytes:
        """The rows of one part."""
        return _csv(_cells(predictions, ""))

    def finish(self, staged: Path, target: Path) -> None:
        """Make the file of the bytes written, where `staged` says so."""

    def restore(self, target: Path, staged: Path) -> None:
        """Make the bytes written again of the file, so that more can be appended."""


class _Jsonl(Writer):
    def header(self, predictions: Predictions) -> bytes:
        return b""

    def rows(self, predictions: Predictions) -> bytes:
        columns = predictions.columns()
        values = [_plain(column) for column in columns.values()]
        lines = (json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in zip(*values, strict=True))
        return "".join(lines).encode("ascii")


class _Ecsv(Writer):
    def header(self, predictions: Predictions) -> bytes:
        stream = io.StringIO()
        empty = predictions.to_table()[:0]
        for name in ("id", "source", "label", "model"):
            empty[name] = empty[name].astype(str)
        empty.write(stream, format="ascii.ecsv", delimiter=",")
        # Labels of unusable rows are empty, which astropy reads as masked.
        return stream.getvalue().encode("utf-8")

    def rows(self, predictions: Predictions) -> bytes:
        return _csv(_cells(predictions, "nan"))


class _Parquet(Writer):
    staged = True

    def __init__(self) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise MissingDependencyError.for_extra("parquet", "Writing Parquet") from error
        self._arrow, self._parquet = pyarrow, pyarrow.parquet

    def header(self, predictions: Predictions) -> bytes:
        return bytes(predictions.to_arrow().schema.serialize())

    def rows(self, predictions: Predictions) -> bytes:
        return bytes(predictions.to_arrow().serialize())

    def finish(self, staged: Path, target: Path) -> None:
        with self._arrow.OSFile(str(staged)) as source:
            stream = self._arrow.ipc.open_stream(source)
            with self._parquet.ParquetWriter(target, stream.schema, compression="zstd") as writer:
                for batch in _regrouped(self._arrow, stream):
                    writer.write_table(batch, row_group_size=_ROW_GROUP)

    def restore(self, target: Path, staged: Path) -> None:
        with self._parquet.ParquetFile(target) as source, open(staged, "wb") as stream:
            stream.write(source.schema_arrow.remove_metadata().serialize())
            for batch in source.iter_batches(_ROW_GROUP):
                stream.write(batch.serialize())


_WRITERS = {".csv": Writer, ".ecsv": _Ecsv, ".jsonl": _Jsonl, ".parquet": _Parquet}


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


def _cells(predictions: Predictions, nan: str) -> Iterator[tuple[str, ...]]:
    """Rows of the table as text."""
    return zip(*(_text(column, nan) for column in predictions.columns().values()), strict=True)


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
    return stream.getvalue().encode("utf-8", "surrogateescape")
