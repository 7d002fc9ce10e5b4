"""Tables that astropy and pyarrow read: FITS, VOTable, ECSV and other ASCII, Parquet; within bounds, offline.

No table makes them open another file or a socket, and no count of rows is believed that its bytes cannot
carry.
"""

from __future__ import annotations

import io
import math
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

import numpy as np

from ..errors import MissingDependencyError, ReadError
from .compressed import Growth
from .fits_counts import check_counts, check_rows
from .parquet_pages import batches

__all__ = ["columns_of", "open_parquet", "read_columns"]

Columns = tuple[dict[str, Any], dict[str, str]]
"""Arrays by name, and the units of those that have one."""

_BATCH_ROWS = 1024
#: Columns of a SExtractor catalogue; it has some hundred parameters, and vectors of them.
_MAX_COLUMNS = 5000


def read_columns(stream: IO[bytes], form: str, limit: int) -> Columns:
    """Columns of a table.

    Parameters
    ----------
    stream : file
        Its bytes.
    form : str
        ``fits``, or what astropy calls the format: ``votable``, ``ascii.ecsv``…
    limit : int
        Most bytes that it may take in memory.

    Raises
    ------
    ReadError
        It is too large, claims rows that are not there, or refers to data elsewhere.
    Exception
        astropy's own, where the table is damaged.
    """
    with _offline():
        if form == "fits":
            return _fits(stream)
        data = stream.read(limit + 1)
        if len(data) > limit:
            raise ReadError(f"the table is larger than the limit of {limit} bytes")
        from astropy.table import Table

        if form == "votable":
            _check_votable(data, limit)
            return columns_of(Table.read(io.BytesIO(data), format=form))
        text = data.decode("utf-8-sig")
        if form == "ascii.ecsv":
            # A masked cell of an array column takes the place of a whole array.
            shapes = re.findall(r"subtype:[^\[\n,}]*\[([0-9, null]*)\]", text)
            sides = (math.prod(int(n) for n in re.findall(r"[0-9]+", shape)) for shape in shapes)
            if (side := max(sides, default=1)) > len(text):
                raise ReadError(f"cells of {side} values in a table of {len(text)} bytes")
        # As lines: a text alone could be taken for the name of a file, or for an address.
        lines = [line.rstrip("\n") for line in io.StringIO(text, newline=None)]
        if form == "ascii.sextractor":
            # A vector of values is announced by the number of the next column: gaps become columns.
            named = (re.match(r"\s*#\s*0*([0-9]+)\s", line) for line in lines)
            last = max((int(number[1][:9]) for number in named if number), default=0)
            if last > _MAX_COLUMNS:
                raise ReadError(f"it names column {last}; a SExtractor catalogue has up to {_MAX_COLUMNS}")
        return columns_of(Table.read(lines, format=form))


def columns_of(table: Any) -> Columns:
    """Columns of an astropy Table."""
    columns = {str(name): table.columns[name] for name in table.colnames}
    units = {name: getattr(column, "unit", None) for name, column in columns.items()}
    return columns, {name: str(unit) for name, unit in units.items() if unit is not None}


@contextmanager
def _offline() -> Iterator[None]:
    """astropy without the network: times in a table make it ask for leap seconds."""
    from astropy.utils.data import conf as data
    from astropy.utils.iers import conf as earth

    with (
        warnings.catch_warnings(),
        data.set_temp("allow_internet", False),
        earth.set_temp("auto_download", False),
    ):
        # Units that astropy does not know, and VOTables of an older standard, do not matter here.
        warnings.simplefilter("ignore")
        yield


def _check_votable(data: bytes, limit: int) -> None:
    """Refuse what would open another file or a socket, and rows that no bytes carry."""
    from xml.parsers import expat

    rows, values = 0, 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal rows, values
        name = tag.rpartition(":")[2].upper()
        if name == "STREAM" and any(key.rpartition(":")[2].lower() == "href" for key in attributes):
            raise ReadError(
                f"the rows of this VOTable lie elsewhere ({attributes.get('href', '')[:100]}), and "
                "nothing is fetched: save it with its rows inside (TABLEDATA or BINARY2)"
            )
        if name == "TABLE":
            claimed = attributes.get("nrows", "0").strip()
            if not claimed.isdecimal() or int(claimed[:20]) > len(data):
                raise ReadError(f"{claimed[:20]} rows claimed by {len(data)} bytes")
            values = 0
        elif name == "FIELD":
            sides = [int(n) for n in re.findall(r"[0-9]+", attributes.get("arraysize", "1"))]
            count = math.prod(sides)
            if count < 1 or count > max(len(data), 1024):
                raise ReadError(f"cells of {count} values in a file of {len(data)} bytes")
            values += count
        elif name in ("BINARY", "BINARY2") and not values:
            raise ReadError("rows without columns")
        elif name == "TR":
            rows += 1
            if rows * values * 8 > limit:
                raise ReadError(f"its rows are larger than the limit of {limit} bytes")

    def entity(*declared: Any) -> None:
        raise ReadError("a VOTable that declares entities is not read")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.EntityDeclHandler = entity
    parser.Parse(data, True)


def _fits(stream: IO[bytes]) -> Columns:
    from astropy.io import fits

    data = stream.getvalue() if isinstance(stream, io.BytesIO) else str(stream.name)
    check_counts(data)
    size = len(data) if isinstance(data, bytes) else os.path.getsize(data)
    with fits.open(stream, memmap=False, character_as_bytes=True) as hdus:
        # LDAC files carry the image header in a one-row table before the catalogue itself.
        hdu = next(
            (
                hdu
                for hdu in hdus
                if isinstance(hdu, fits.BinTableHDU | fits.TableHDU) and hdu.name.upper() != "LDAC_IMHEAD"
            ),
            None,
        )
        if hdu is None:
            raise ReadError("the FITS file has no table extension")
        check_rows(hdu.header, size)
        rows = int(hdu.header["NAXIS2"])
        columns: dict[str, Any] = {}
        units: dict[str, str] = {}
        for column in hdu.columns:
            # Arrays of variable length lie in a heap that all rows may point to.
            if rows and column.format.lstrip("0123456789")[:1] not in ("P", "Q"):
                values = np.asarray(hdu.data.field(column.name))
                missing = column.null is not None and values.dtype.kind in "iu"
                columns[column.name] = (
                    np.ma.masked_equal(values, column.null, copy=False) if missing else values
                )
            elif not rows:
                columns[column.name] = np.empty(0)
            if column.unit:
                units[column.name] = str(column.unit)
    return columns, units


def open_parquet(
    opened: Callable[[], IO[bytes]], where: str, limit: int
) -> tuple[tuple[str, ...], Callable[[Sequence[str]], Iterator[tuple[int, Sequence[Any]]]]]:
    """Names of a Parquet file's columns, and what reads the rows (with their numbers) of some of them.

    Raises
    ------
    ReadError
        The file is damaged, or what is read of it takes more than `limit` bytes.
    MissingDependencyError
        pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError.for_extra("parquet", "Reading Parquet") from error
    with opened() as stream:
        names = tuple(pyarrow.parquet.ParquetFile(stream).schema_arrow.names)

    def read(wanted: Sequence[str]) -> Iterator[tuple[int, Sequence[Any]]]:
        number, growth = 0, Growth(0, least=limit)
        try:
            with opened() as stream, opened() as pages:
                file = pyarrow.parquet.ParquetFile(stream)
                # Without columns no bytes carry the rows, whatever their number is.
                for group in range(file.metadata.num_row_groups if wanted else 0):
                    for batch in batches(file, pages, group, wanted, growth, _BATCH_ROWS):
                        for row in zip(*(batch.column(name).to_pylist() for name in wanted), strict=True):
                            number += 1
                            yield number, row
        except ReadError as error:
            raise ReadError(f"{where}: row {number}: {error}") from error
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise ReadError(f"{where} is damaged behind row {number}: {str(error)[:200]}") from error

    return names, read
