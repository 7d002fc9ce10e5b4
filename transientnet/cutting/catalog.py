"""Catalogues of positions to cut stamps at: which columns hold what, and where they point."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ..errors import EmptyInputError, MissingDependencyError, ReadError, UsageError
from ..files.compressed import gunzip
from ..readers.hdus import check_counts
from ..readers.stamp import MAX_FILE_BYTES
from ..readers.surveys import GENERIC, Layout, match_role, normalise

__all__ = ["Catalog", "read_catalog", "read_table"]

# SExtractor's *_IMAGE columns follow FITS and count the first pixel as 1.
_ONE_BASED = re.compile(r"[xy](win|psf|peak|model)?image")


@dataclass(frozen=True, slots=True, eq=False)
class Catalog:
    """Candidates of one set of frames.

    Attributes
    ----------
    ids : tuple of str
        Name of each candidate: the id column, else the row's number.
    groups : tuple of (str or None)
        Sky object of each candidate.
    x, y : ndarray, shape (N,), or None
        Pixel positions, counted from 0 at the centre of the first pixel.
    ra, dec : ndarray, shape (N,), or None
        ICRS degrees.
    """

    ids: tuple[str, ...]
    groups: tuple[str | None, ...]
    x: npt.NDArray[np.float64] | None
    y: npt.NDArray[np.float64] | None
    ra: npt.NDArray[np.float64] | None
    dec: npt.NDArray[np.float64] | None

    def __len__(self) -> int:
        return len(self.ids)

    def pixels(self, wcs: Any, frame: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Pixel positions on a frame, through its WCS where the catalogue gives the sky only.

        NaN where a sky position does not fall on the frame's side of the sky.
        """
        if self.x is not None and self.y is not None:
            return self.x, self.y
        assert self.ra is not None
        assert self.dec is not None
        if wcs is None:
            raise UsageError(
                f"{frame} has no celestial WCS, so RA and Dec cannot be turned into pixels: "
                "add pixel columns to the catalogue and name them with x and y, or solve the astrometry first"
            )
        return _sky_to_pixel(wcs, self.ra, self.dec)


def read_catalog(
    catalog: Any,
    *,
    x: str | None = None,
    y: str | None = None,
    ra: str | None = None,
    dec: str | None = None,
    id_column: str | None = None,
    group_column: str | None = None,
    one_based: bool | None = None,
    layout: Layout = GENERIC,
) -> Catalog:
    """Read positions from a file, a table or an array.

    Parameters
    ----------
    catalog : path, Table, mapping of columns, DataFrame, or ndarray of shape (N, 2)
        CSV, ECSV, SExtractor, VOTable, FITS (LDAC too) or Parquet file, told apart by content. An
        array holds x and y.
    x, y, ra, dec : str, optional
        Columns to use. Otherwise found by their usual names, pixels before sky.
    id_column, group_column : str, optional
        Columns with the candidate's name and its sky object.
    one_based : bool, optional
        Whether the first pixel's centre is at 1 (FITS, IRAF, SExtractor) and not at 0. By default 0,
        except for SExtractor's ``*_IMAGE`` columns.
    layout : Layout
        Its column names go before the usual ones.

    Raises
    ------
    UsageError
        If no pair of position columns is found, or a named column is absent.
    ReadError
        If the file is no table.
    EmptyInputError
        If the table has no row.
    """
    where, table = _load(catalog)
    if not len(table):
        raise EmptyInputError(f"{where} has no rows: there is nothing to cut")
    names = [str(name) for name in table.colnames]

    def named(name: str) -> str:
        found = next((n for n in names if n == name), None) or next(
            (n for n in names if n.lower() == name.lower()), None
        )
        if found is None:
            raise UsageError(f"{where} has no column {name!r}; it has {', '.join(names)}")
        return found

    def pair(first: str | None, second: str | None, roles: tuple[str, str]) -> tuple[str, str] | None:
        if (first is None) != (second is None):
            raise UsageError(
                f"{roles[0]} and {roles[1]} name the columns of one position: give both or neither"
            )
        if first is not None and second is not None:
            return named(first), named(second)
        firsts, seconds = (match_role(names, role, layout) for role in roles)
        return (firsts[0], seconds[0]) if firsts and seconds else None

    pixel, sky = pair(x, y, ("x", "y")), pair(ra, dec, ("ra", "dec"))
    if ra is not None and x is None:
        pixel = None
    if pixel is None and sky is None:
        raise UsageError(
            f"no position columns known in {where}: name them with x and y, or ra and dec; "
            f"it has {', '.join(names)}"
        )
    if one_based is None:
        one_based = pixel is not None and _ONE_BASED.fullmatch(normalise(pixel[0])) is not None
    numbered = [name for name in names if normalise(name) == "number"]
    id_name = (
        named(id_column) if id_column else next(iter([*match_role(names, "id", layout), *numbered]), None)
    )
    group_name = named(group_column) if group_column else next(iter(match_role(names, "group", layout)), None)
    return Catalog(
        ids=tuple(str(i) for i in range(len(table))) if id_name is None else _texts(table[id_name]),
        groups=(None,) * len(table)
        if group_name is None
        else tuple(text or None for text in _texts(table[group_name])),
        x=None if pixel is None else _numbers(table[pixel[0]], where) - one_based,
        y=None if pixel is None else _numbers(table[pixel[1]], where) - one_based,
        ra=None if sky is None else _degrees(table[sky[0]], where, hours=True),
        dec=None if sky is None else _degrees(table[sky[1]], where, hours=False),
    )


def _load(catalog: Any) -> tuple[str, Any]:
    """What to call the catalogue in a message, and the catalogue as an astropy Table."""
    from astropy.table import Table

    if isinstance(catalog, str | os.PathLike):
        return str(catalog), read_table(Path(catalog))
    if isinstance(catalog, Table):
        return "the catalogue", catalog
    if isinstance(catalog, Mapping):
        return "the catalogue", Table(dict(catalog))
    if hasattr(catalog, "to_dict") and hasattr(catalog, "columns"):
        return "the catalogue", Table.from_pandas(catalog)
    positions = np.asarray(catalog)
    if positions.dtype.names:
        return "the catalogue", Table(positions)
    if positions.ndim != 2 or positions.shape[1] != 2 or positions.dtype.kind not in "iuf":
        raise UsageError(
            "a catalogue is a path, a table with named columns, or an array of x and y of shape (N, 2); "
            f"this one has shape {positions.shape} and dtype {positions.dtype}"
        )
    return "the catalogue", Table({"x": positions[:, 0], "y": positions[:, 1]})


def read_table(path: Path) -> Any:
    """A table file of any kind as an astropy Table.

    Raises
    ------
    ReadError
        It is damaged, or no table.
    MissingDependencyError
        It is Parquet and pyarrow is not installed.
    """
    import warnings

    from astropy.table import Table

    try:
        with path.open("rb") as file:
            head = file.read(2048)
    except OSError as error:
        raise ReadError(f"cannot open the catalogue {path}: {error.strerror or error}") from error
    if head.startswith(b"PAR1"):
        return _read_parquet(path)
    try:
        with warnings.catch_warnings():
            # Units that astropy does not know, and VOTables of an older standard, do not matter here.
            warnings.simplefilter("ignore")
            if head.startswith(b"SIMPLE"):
                check_counts(str(path))
                return _read_fits_table(path)
            if head.startswith(b"\x1f\x8b"):
                data = gunzip(path.read_bytes(), MAX_FILE_BYTES)
                check_counts(data)
                return _read_fits_table(io.BytesIO(data))
            if head.lstrip().startswith((b"<?xml", b"<VOTABLE")):
                return Table.read(path, format="votable")
            if head.startswith(b"# %ECSV"):
                return Table.read(path, format="ascii.ecsv")
            if head.startswith(b"#") and head.split()[1:2] == [b"1"]:
                return Table.read(path, format="ascii.sextractor")
            first = head.splitlines()[0] if head.strip() else b""
            if b"," in first:
                return Table.read(path, format="ascii.csv")
            return Table.read(path, format="ascii")
    except MissingDependencyError:
        raise
    except Exception as error:  # each of astropy's readers raises classes of its own
        kind = "" if isinstance(error, ReadError) else f"{type(error).__name__}: "
        raise ReadError(
            f"{path} cannot be read as a catalogue ({kind}{str(error)[:200]}); "
            "CSV, ECSV, SExtractor, VOTable, FITS and Parquet tables are"
        ) from error


def _read_fits_table(file: Path | IO[bytes]) -> Any:
    from astropy.io import fits
    from astropy.table import Table

    with fits.open(file, memmap=False) as hdus:
        # LDAC files carry the image header in a one-row table before the catalogue itself.
        tables = [
            hdu
            for hdu in hdus
            if isinstance(hdu, fits.BinTableHDU | fits.TableHDU) and hdu.name.upper() != "LDAC_IMHEAD"
        ]
        if not tables:
            raise ReadError("it holds no table extension, and a FITS catalogue needs one")
        return Table.read(tables[0])


def _read_parquet(path: Path) -> Any:
    from astropy.table import Table

    try:
        import pyarrow
        import pyarrow.parquet
        import pyarrow.types as kinds
    except ImportError as error:
        raise MissingDependencyError.for_extra("parquet", "A Parquet catalogue") from error

    def plain(kind: Any) -> bool:
        return bool(kinds.is_floating(kind) or kinds.is_integer(kind) or kinds.is_string(kind))

    try:
        schema = pyarrow.parquet.read_schema(path)
        table = pyarrow.parquet.read_table(path, columns=[f.name for f in schema if plain(f.type)])
        return Table({name: table[name].to_numpy() for name in table.column_names})
    except (pyarrow.ArrowException, OSError) as error:
        raise ReadError(f"{path} cannot be read as a Parquet catalogue: {error}") from error


def _texts(column: Any) -> tuple[str, ...]:
    masked = np.ma.getmaskarray(column)
    # As a plain array: a column of FITS texts insists on UTF-8, which old catalogues are not.
    values = np.asarray(np.ma.getdata(column)).tolist()
    texts = (v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in values)
    return tuple("" if m else text.strip() for text, m in zip(texts, masked, strict=True))


def _numbers(column: Any, where: str) -> npt.NDArray[np.float64]:
    """A column as float64 with NaN where it is masked."""
    try:
        values = np.array(np.ma.getdata(column), np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"column {column.name!r} of {where} does not hold numbers: {error}") from error
    if values.ndim != 1:
        raise UsageError(f"column {column.name!r} of {where} holds arrays, and one number per row is needed")
    values[np.ma.getmaskarray(column)] = np.nan
    return values


def _degrees(column: Any, where: str, *, hours: bool) -> npt.NDArray[np.float64]:
    """Angles as degrees: numbers by the column's unit, texts as sexagesimal (RA in hours)."""
    from astropy import units
    from astropy.coordinates import Angle

    if np.ma.getdata(column).dtype.kind in "OSU":
        texts = _texts(column)
        try:
            return _numbers_from(texts)
        except ValueError:
            pass
        angles = np.full(len(texts), np.nan)
        present = [i for i, text in enumerate(texts) if text]
        try:
            unit = units.hourangle if hours else units.deg
            angles[present] = Angle([texts[i] for i in present], unit=unit).deg
        except ValueError as error:
            raise UsageError(f"column {column.name!r} of {where} holds no angles: {error}") from error
        return angles
    values = _numbers(column, where)
    unit = getattr(column, "unit", None)
    if unit is not None and unit.is_equivalent(units.deg):
        return np.asarray((values * unit).to_value(units.deg), np.float64)
    return values


def _numbers_from(texts: Sequence[str]) -> npt.NDArray[np.float64]:
    return np.array([float(text) if text else np.nan for text in texts])


def _sky_to_pixel(
    wcs: Any, ra: npt.NDArray[np.float64], dec: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    from astropy.coordinates import SkyCoord
    from astropy.wcs import NoConvergence
    from astropy.wcs.utils import pixel_to_skycoord, skycoord_to_pixel

    x, y = np.full(len(ra), np.nan), np.full(len(ra), np.nan)
    valid = np.isfinite(ra) & np.isfinite(dec) & (np.abs(dec) <= 90)
    sky = SkyCoord(ra[valid], dec[valid], unit="deg")
    try:
        there = np.array(skycoord_to_pixel(sky, wcs, mode="all"))
    except NoConvergence as error:
        there = np.array(error.best_solution.T)
    # Distortion polynomials diverge far from the frame and can throw a distant position onto it:
    # only what maps back to where it came from is believed.
    back = pixel_to_skycoord(*there, wcs, mode="all")
    with np.errstate(invalid="ignore"):
        there[:, ~(back.separation(sky).arcsec < 1.0)] = np.nan
    x[valid], y[valid] = there
    return x, y
