"""The one reader of tables: CSV as people write it, ECSV, VOTable, SExtractor, FITS, Parquet, JSON lines.

Whatever a table says, no other file and no socket is opened, and its rows are bounded by its bytes.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np

from ..errors import MissingDependencyError, ReadError, UsageError
from .compressed import GZIP, gunzip
from .foreign_tables import columns_of, open_parquet, read_columns

__all__ = ["KINDS", "MAX_TABLE_BYTES", "Table", "open_table", "split_names"]

MAX_TABLE_BYTES = 2 * 2**30
"""Most that a table may hold in memory, unpacked; CSV and JSON lines are streamed and may be larger."""

KINDS = "CSV (comma, semicolon or tab), ECSV, SExtractor, VOTable, FITS, Parquet and JSON lines"
"""Kinds of tables that are read, for messages."""

_BATCH_ROWS = 1024
#: A cell that names a file, and no column.
_A_FILE = re.compile(r"/|\.(?:fits?|fz|gz|npy)$", re.IGNORECASE)
_XML = re.compile(rb"\s*<")


Rows = Iterator[tuple[int, Sequence[Any], int | None]]
"""Number of each row, its cells, and how many more (below 0: fewer) it has than the header; None if empty."""


@dataclass(slots=True)
class Table:
    """An open table, whose rows can be read once.

    Attributes
    ----------
    where : str
        What to call it in a message: its path.
    names : tuple of str
        Columns, as written. A column without a name (the index that pandas writes) has the name "".
    units : mapping of str to str
        Unit of each column that has one.
    counted : str
        What rows are numbered by in messages: "line" of a text file, or "row".
    numbers : list of int
        Those of the rows that `columns` has read.
    """

    where: str
    names: tuple[str, ...]
    _read: Callable[[Sequence[str]], Rows]
    units: Mapping[str, str] = field(default_factory=dict)
    counted: str = "row"
    numbers: list[int] = field(default_factory=list)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Rows one after the other: column to Python or NumPy value, None where empty or masked.

        Cells beyond the last column and rows of empty cells are left out; cells that are lacking are None.
        """
        for _, cells, excess in self._read(self.names):
            if excess is not None:
                yield dict(zip(self.names, cells, strict=True))

    def columns(
        self, wanted: Iterable[str] | None = None, *, pad: bool = False, keep_empty: bool = False
    ) -> dict[str, list[Any]]:
        """Read the rows into columns of values as in `rows`.

        Parameters
        ----------
        wanted : iterable of str, optional
            Columns to read; by default all. Of two columns of one name the first counts.
        pad : bool
            Whether cells may be lacking at the end of a row; otherwise that is an error.
        keep_empty : bool
            Whether a row of nothing but empty cells counts.

        Raises
        ------
        ReadError
            The table is damaged, or a row has too few or too many cells.
        """
        columns: dict[str, list[Any]] = {name: [] for name in (self.names if wanted is None else wanted)}
        for number, cells, excess in self._read(tuple(columns)):
            if excess is None and not keep_empty:
                continue
            if excess and (excess > 0 or not pad):
                header = len(self.names)
                raise ReadError(
                    f"{self.where}: {self.counted} {number} has {header + excess} cells, "
                    f"the header has {header}"
                )
            self.numbers.append(number)
            for column, cell in zip(columns.values(), cells, strict=True):
                column.append(cell)
        return columns


def open_table(source: Any, *, header: Callable[[Sequence[str]], bool] | None = None) -> Table:
    """Open a table file of any kind, recognised by content, or take a table that is in memory.

    Parameters
    ----------
    source : path, astropy Table, DataFrame, mapping of columns, or structured ndarray
        A file may be gzipped.
    header : callable, optional
        Whether names are those of columns that the caller looks for: decides whether the names of a CSV
        file stand in its first line or in the comment above it (as np.savetxt and TOPCAT write them).

    Raises
    ------
    ReadError
        It is absent, damaged or no table, or it points to data outside itself.
    MissingDependencyError
        It is Parquet and pyarrow is not installed.
    """
    if not isinstance(source, str | os.PathLike):
        return _in_memory(source)
    where = os.fspath(source)
    try:
        opened = _opener(where)
        with opened() as stream:
            head = stream.read(4096)
        return _open(head, opened, where, header or (lambda names: True))
    except ReadError as error:
        if where in str(error):
            raise
        raise ReadError(f"{where}: {error}") from error
    except MissingDependencyError:
        raise
    except Exception as error:  # each kind of table fails with classes of its own
        raise _unreadable(where, error) from error


def split_names(line: str) -> tuple[list[str], str]:
    """The cells of a table's first line, and what separates them: comma, semicolon or tab."""
    separator = max(",;\t", key=line.count)
    try:
        names = next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    except csv.Error:
        names = []
    return [name.strip() for name in names] or [""], separator


def _unreadable(where: str, error: Exception) -> ReadError:
    if isinstance(error, UnicodeDecodeError):
        return ReadError(f"{where}: the table is not in UTF-8 ({error})")
    return ReadError(
        f"{where} cannot be read as a table ({type(error).__name__}: {str(error)[:200]}); {KINDS} tables are"
    )


def _opener(where: str) -> Callable[[], IO[bytes]]:
    """What opens the file, unpacked, as often as is needed."""
    # A pipe would be waited for, and a device may never end.
    if os.path.exists(where) and not os.path.isfile(where):
        raise ReadError(f"{where}: not a regular file")
    try:
        with open(where, "rb") as stream:
            if stream.read(len(GZIP)) != GZIP:
                return lambda: open(where, "rb")
            data = gunzip(GZIP + stream.read(), MAX_TABLE_BYTES)
            return lambda: io.BytesIO(data)
    except ReadError as error:
        raise ReadError(f"{where}: {error}") from error
    except (OSError, ValueError) as error:
        raise ReadError(
            f"cannot open the table {where}: {getattr(error, 'strerror', '') or error}"
        ) from error


def _open(
    head: bytes, opened: Callable[[], IO[bytes]], where: str, header: Callable[[Sequence[str]], bool]
) -> Table:
    if head.startswith(b"PAR1"):
        names, rows = open_parquet(opened, where, MAX_TABLE_BYTES)
        return Table(where, names, lambda wanted: ((n, [*map(_plain, row)], 0) for n, row in rows(wanted)))
    text = head.removeprefix(b"\xef\xbb\xbf")
    if text.startswith(b"{"):
        return _json_lines(opened, where)
    form = _form(text)
    if form is None:
        return _csv(opened, where, header)
    with opened() as stream:
        return _from_columns(*read_columns(stream, form, MAX_TABLE_BYTES), where)


def _form(head: bytes) -> str | None:
    """What astropy calls the table that begins so; None for CSV."""
    if head.startswith(b"SIMPLE"):
        return "fits"
    if _XML.match(head):
        return "votable"
    if head.startswith(b"# %ECSV"):
        return "ascii.ecsv"
    if head.startswith(b"#") and head.split()[1:2] == [b"1"]:
        return "ascii.sextractor"
    line = next((line for line in head.splitlines() if not line.startswith(b"#") and line.strip()), b"")
    return "ascii" if not set(b",;\t") & set(line) and len(line.split()) > 1 else None


# --- lines -------------------------------------------------------------------------------------------


def _csv(opened: Callable[[], IO[bytes]], where: str, header: Callable[[Sequence[str]], bool]) -> Table:
    comment = first = ""
    with _text(opened()) as lines:
        for line in lines:
            if line.lstrip(" ").startswith("#"):
                comment = line.lstrip(" ").removeprefix("#")
            elif line.strip():
                first = line
                break
        separator = split_names(first)[1]
        names = next(_records(itertools.chain([first], lines), separator, where), (0, [""]))[1]
    if not any(names):
        raise ReadError(f"{where}: the table is empty")
    above = split_names(comment)[0]
    is_data = not header(names) or any(_A_FILE.search(name) or _is_number(name) for name in names)
    in_comment = len(above) == len(names) == len(set(above)) and is_data and header(above)
    names = above if in_comment else names

    def read(wanted: Sequence[str]) -> Rows:
        at = [names.index(name) for name in wanted]
        with _text(opened()) as lines:
            for number, cells in itertools.islice(
                _records(lines, separator, where), 0 if in_comment else 1, None
            ):
                while len(cells) > len(names) and not cells[-1]:
                    cells.pop()
                row = [(cells[i] or None) if i < len(cells) else None for i in at]
                yield number, row, len(cells) - len(names) if any(cells) else None

    return Table(where, tuple(names), read, counted="line")


def _text(stream: IO[bytes]) -> io.TextIOWrapper:
    # csv wants to see the ends of lines, and cells may hold some.
    return io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _records(lines: Iterable[str], separator: str, where: str) -> Iterator[tuple[int, list[str]]]:
    """Rows of a CSV file with the number of their first line; comments and empty lines left out."""
    number = 0
    begins = True

    def fed() -> Iterator[str]:
        nonlocal number, begins
        for at, line in enumerate(lines, 1):
            if begins and line.lstrip(" ").startswith("#"):
                continue
            if begins:
                number, begins = at, False
            yield line

    try:
        for row in csv.reader(fed(), strict=True, delimiter=separator, skipinitialspace=True):
            cells = [cell.strip() for cell in row]
            if any(cells) or len(cells) > 1:
                yield number, cells
            begins = True
    except csv.Error as error:
        raise ReadError(f"{where}: line {number} is not a row of a CSV table: {error}") from error
    except (UnicodeDecodeError, OSError) as error:
        raise _unreadable(where, error) from error


def _json_lines(opened: Callable[[], IO[bytes]], where: str) -> Table:
    def records() -> Iterator[tuple[int, dict[str, Any]]]:
        with opened() as stream:
            for number, line in enumerate(stream, 1):
                if not line.strip():
                    continue
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise ReadError(f"{where}: line {number} is not JSON: {error}") from error
                if not isinstance(record, dict):
                    raise ReadError(f"{where}: line {number} is not a JSON object")
                yield number, record

    def read(wanted: Sequence[str]) -> Rows:
        for number, record in records():
            yield number, [_plain(record.get(name)) for name in wanted], 0

    return Table(where, tuple(next(records())[1]), read, counted="line")


# --- columns in memory --------------------------------------------------------------------------------


def _in_memory(source: Any) -> Table:
    where = "the table"
    if hasattr(source, "colnames"):
        return _from_columns(*columns_of(source), where)
    if isinstance(source, Mapping):
        return _from_columns({str(name): source[name] for name in source}, {}, where)
    if hasattr(source, "columns"):
        return _from_columns({str(name): list(source[name]) for name in source.columns}, {}, where)
    if isinstance(source, np.ndarray) and source.dtype.names:
        return _from_columns({name: source[name] for name in source.dtype.names}, {}, where)
    raise UsageError(
        "a table is a path, an astropy Table, a DataFrame, a mapping of columns or a structured array, "
        f"and not {type(source).__name__}"
    )


def _from_columns(columns: Mapping[str, Any], units: Mapping[str, str], where: str) -> Table:
    sizes = {len(column) for column in columns.values()}
    if len(sizes) > 1:
        raise UsageError(f"{where}: its columns have different lengths")

    def read(wanted: Sequence[str]) -> Rows:
        numbers = range(1, next(iter(sizes), 0) + 1)
        for number, *cells in zip(numbers, *(_values(columns[name]) for name in wanted), strict=True):
            yield number, cells, 0

    return Table(where, tuple(columns), read, units)


def _values(column: Any) -> Iterator[Any]:
    """Cells of a column as Python values, a piece at a time."""
    if not isinstance(column, np.ndarray):
        if not hasattr(column, "unmasked"):
            yield from map(_plain, column)
            return
        column = np.ma.array(column.unmasked, mask=column.mask)
    mask = np.ma.getmask(column)
    # As a plain array: a column of FITS texts insists on UTF-8, which old catalogues are not.
    data = np.asarray(np.ma.getdata(column))
    for first in range(0, len(data), _BATCH_ROWS):
        piece = slice(first, first + _BATCH_ROWS)
        if data.ndim > 1:
            yield from data[piece]
            continue
        hidden = itertools.repeat(False) if mask is np.ma.nomask else mask[piece].tolist()
        for value, masked in zip(data[piece].tolist(), hidden, strict=False):
            yield None if masked else _plain(value)


def _plain(value: Any) -> Any:
    """A cell as a Python value; None for what any library means by missing."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        return value.strip() or None
    return None if value is np.ma.masked or type(value).__name__ in ("NAType", "NaTType") else value
