"""Catalogues of positions to cut stamps at: which columns hold what, and where they point."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import EmptyInputError, UsageError
from ..files.tables import open_table
from ..readers.layouts import match_role
from ..readers.vocabulary import normalise

__all__ = ["Catalog", "read_catalog"]

# SExtractor's *_IMAGE columns follow FITS and count the first pixel as 1.
_ONE_BASED = re.compile(r"[xy](win|psf|peak|model)?image")


_COLUMNS = ("x", "y", "ra", "dec", "id_column", "group_column")


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


def read_catalog(catalog: Any, *, one_based: bool | None = None, **columns: str | None) -> Catalog:
    """Read positions from a file, a table or an array: parameters and errors are those of `cut_triplets`.

    `columns` are its ``x``, ``y``, ``ra``, ``dec``, ``id_column`` and ``group_column``.
    """
    x, y, ra, dec, id_column, group_column = (columns.get(name) for name in _COLUMNS)
    table = open_table(_with_names(catalog))
    where, names = table.where, table.names

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
        firsts, seconds = (match_role(names, role) for role in roles)
        return (firsts[0], seconds[0]) if firsts and seconds else None

    pixel, sky = pair(x, y, ("x", "y")), pair(ra, dec, ("ra", "dec"))
    if ra is not None and x is None:
        pixel = None
    if pixel is None and sky is None:
        raise UsageError(
            f"{where} has no columns with usual names for positions: name them with x and y, or ra and dec; "
            f"it has {', '.join(names)}"
        )
    if one_based is None:
        one_based = pixel is not None and _ONE_BASED.fullmatch(normalise(pixel[0])) is not None
    numbered = [name for name in names if normalise(name) == "number"]
    id_name = named(id_column) if id_column else next(iter([*match_role(names, "id"), *numbered]), None)
    group_name = named(group_column) if group_column else next(iter(match_role(names, "group")), None)
    wanted = [name for name in (*(pixel or ()), *(sky or ()), id_name, group_name) if name is not None]
    values = table.columns(wanted, pad=True, keep_empty=True)
    if not table.numbers:
        raise EmptyInputError(f"{where} has no rows: there is nothing to cut")
    count = len(table.numbers)

    def numbers(name: str) -> npt.NDArray[np.float64]:
        return _numbers(values[name], f"column {name!r} of {where}")

    def degrees(name: str, hours: bool) -> npt.NDArray[np.float64]:
        return _degrees(values[name], table.units.get(name), f"column {name!r} of {where}", hours=hours)

    return Catalog(
        ids=tuple(str(i) for i in range(count)) if id_name is None else _texts(values[id_name]),
        groups=(None,) * count
        if group_name is None
        else tuple(text or None for text in _texts(values[group_name])),
        x=None if pixel is None else numbers(pixel[0]) - one_based,
        y=None if pixel is None else numbers(pixel[1]) - one_based,
        ra=None if sky is None else degrees(sky[0], True),
        dec=None if sky is None else degrees(sky[1], False),
    )


def _with_names(catalog: Any) -> Any:
    """The catalogue as a table; of an array the columns are x and y."""
    if isinstance(catalog, str | os.PathLike | Mapping) or hasattr(catalog, "columns"):
        return catalog
    positions = np.asarray(catalog)
    if positions.dtype.names:
        return positions
    if positions.ndim != 2 or positions.shape[1] != 2 or positions.dtype.kind not in "iuf":
        raise UsageError(
            "a catalogue is a path, a table with named columns, or an array of x and y of shape (N, 2); "
            f"this one has shape {positions.shape} and dtype {positions.dtype}"
        )
    return {"x": positions[:, 0], "y": positions[:, 1]}


def _texts(column: Sequence[Any]) -> tuple[str, ...]:
    return tuple("" if value is None else str(value) for value in column)


def _numbers(column: Sequence[Any], what: str) -> npt.NDArray[np.float64]:
    """A column as float64, NaN where it is empty."""
    try:
        return np.array([np.nan if value is None else float(value) for value in column])
    except (TypeError, ValueError) as error:
        raise UsageError(f"{what} does not hold one number per row: {error}") from error


def _degrees(column: Sequence[Any], unit: str | None, what: str, *, hours: bool) -> npt.NDArray[np.float64]:
    """Angles in degrees: numbers by the column's unit, text as sexagesimal (RA in hours)."""
    from astropy import units
    from astropy.coordinates import Angle

    try:
        values = _numbers(column, what)
    except UsageError:
        texts = _texts(column)
        values = np.full(len(texts), np.nan)
        present = [i for i, text in enumerate(texts) if text]
        try:
            angle = units.hourangle if hours else units.deg
            values[present] = Angle([texts[i] for i in present], unit=angle).deg
        except ValueError as error:
            raise UsageError(f"{what} does not hold angles: {error}") from error
        return values
    written = units.Unit(unit or "deg", parse_strict="silent")
    return np.asarray(values * (written.to(units.deg) if written.is_equivalent(units.deg) else 1))


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
