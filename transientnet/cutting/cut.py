"""Cut triplets out of full frames, around the positions of a catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from ..readers.image import sky_axes
from ..readers.open import Reading
from ..triplet import Triplet
from .catalog import read_catalog
from .frames import Frame, open_frame
from .regrid import Regridder, same_grid

__all__ = ["cut_triplets", "stamp_origin"]

MAX_STAMP_SIDE = 2048
_BATCH = 512

Cutter = Callable[[npt.NDArray[Any], npt.NDArray[Any]], Callable[[int], npt.NDArray[Any]]]
"""First columns and rows of a batch of stamps in; a function from index in the batch to stamp out."""


def cut_triplets(
    science: Any,
    reference: Any,
    difference: Any,
    catalog: Any,
    *,
    size: int = 63,
    x: str | None = None,
    y: str | None = None,
    ra: str | None = None,
    dec: str | None = None,
    id_column: str | None = None,
    group_column: str | None = None,
    one_based: bool | None = None,
    mask: Any = None,
    mask_bits: int | None = None,
    pixel_scale: Any = None,
    fwhm: Any = None,
) -> Iterator[Triplet]:
    """Cut a triplet of stamps around each position of a catalogue.

    The target sits on the centre pixel of its stamps to half a pixel, at the edge of a frame too: what
    lies beyond the edge is NaN. A reference or difference on another pixel grid is brought onto the
    science frame's grid, stamp by stamp, through both WCS.

    Parameters
    ----------
    science, reference, difference : path, HDU, NDData, CCDData, ndarray of shape (H, W), or None
        The frames; only `science` is required. A path may name an extension, ``"night.fits[SCI]"``;
        otherwise the only image, or the one with a usual name, is taken, and a mask extension beside it is
        honoured. Files may be tile-compressed (`.fz`) or gzipped.
    catalog : path, Table, mapping of columns, DataFrame, or ndarray of shape (N, 2)
        Positions: a CSV, ECSV, SExtractor, VOTable, FITS (LDAC too) or Parquet file, recognised by content;
        an array holds x and y.
    size : int
        Side of the stamps in pixels of the science frame.
    x, y, ra, dec, id_column, group_column : str, optional
        Columns of the catalogue, where their names are not the usual ones; pixels go before the sky.
    one_based : bool, optional
        Whether the catalogue counts the first pixel as 1. By default it counts from 0, except in
        SExtractor's ``*_IMAGE`` columns.
    mask : path, HDU or ndarray of shape (H, W), optional
        Marks bad pixels of science and difference.
    mask_bits : int, optional
        Bits of integer masks that mean bad. By default all of them, and in masks that name their planes
        (Rubin's ``MP_*`` keywords) those for pixels that were not observed.
    pixel_scale : float or Quantity, optional
        arcsec per pixel, by default from the WCS or header of the science frame. It also converts a seeing
        that the header gives in arcseconds.
    fwhm : float or Quantity, optional
        Seeing in pixels (or an angle), by default from the science frame's header.

    Yields
    ------
    Triplet
        One per row of the catalogue, in its order. A row without a position, or whose stamp would lie
        wholly off the science frame, is an unreadable triplet that says so. ``meta`` has the position:
        ``x`` and ``y`` in pixels from 0, ``ra`` and ``dec`` in degrees where they are known.

    Raises
    ------
    UsageError
        `size`, `pixel_scale`, `fwhm` or the columns do not make sense, or frames on different grids have no
        WCS.
    ReadError
        A frame or the catalogue cannot be read.
    EmptyInputError
        The catalogue has no row.

    Examples
    --------
    >>> import numpy as np
    >>> from transientnet import cut_triplets
    >>> frame = np.arange(80.0 * 100).reshape(80, 100)
    >>> near, off = cut_triplets(frame, None, frame, {"x": [40, 900], "y": [30, 30]}, size=5)
    >>> near.science.shape, near.meta["x"], bool(near.science[2, 2] == frame[30, 40])
    ((5, 5), 40.0, True)
    >>> off.error
    'x = 900.0, y = 30.0 is off the frame of 100 x 80 pixels'
    """
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or not 1 <= size <= MAX_STAMP_SIDE:
        raise UsageError(f"size is the side of a stamp in pixels, from 1 to {MAX_STAMP_SIDE}, not {size!r}")
    reading = Reading(None, pixel_scale, fwhm)
    size = int(size)
    if science is None:
        raise UsageError("stamps are cut from a science frame, and none is given")
    base = open_frame(science, "science", mask_bits=mask_bits)
    template = None if reference is None else open_frame(reference, "reference", mask_bits=mask_bits)
    residual = None if difference is None else open_frame(difference, "difference", mask_bits=mask_bits)
    if mask is not None:
        bad = open_frame(mask, "mask", mask_bits=mask_bits).data
        base, residual = _masked(base, bad), residual and _masked(residual, bad)
    positions = read_catalog(
        catalog, x=x, y=y, ra=ra, dec=dec, id_column=id_column, group_column=group_column, one_based=one_based
    )
    columns, rows = positions.pixels(base.wcs, base.name)
    sky = (
        _sky(base.wcs, columns, rows)
        if positions.ra is None or positions.dec is None
        else np.stack([positions.ra, positions.dec], axis=1)
    )
    left, top = stamp_origin(columns, size), stamp_origin(rows, size)
    height, width = base.shape
    known = np.isfinite(columns) & np.isfinite(rows)
    inside = (left < width) & (left + size > 0) & (top < height) & (top + size > 0)
    axes = sky_axes(None if base.wcs is None or base.wcs.wcs.lngtyp != "RA" else base.wcs.pixel_scale_matrix)
    cut_science = _cutter(base, base, size)
    cut_reference = None if template is None else _cutter(template, base, size)
    cut_difference = None if residual is None else _cutter(residual, base, size)

    def triplets() -> Iterator[Triplet]:
        for first in range(0, len(positions), _BATCH):
            batch = slice(first, first + _BATCH)
            science_stamp = cut_science(left[batch], top[batch])
            reference_stamp = cut_reference and cut_reference(left[batch], top[batch])
            difference_stamp = cut_difference and cut_difference(left[batch], top[batch])
            for i, row in enumerate(range(len(positions))[batch]):
                where: dict[str, Any] = {"source": base.name, **axes}
                if known[row]:
                    where |= {"x": float(columns[row]), "y": float(rows[row])}
                if np.isfinite(sky[row]).all():
                    where |= {"ra": float(sky[row, 0]), "dec": float(sky[row, 1])}
                if not (known[row] and inside[row]):
                    unreadable = Triplet.unreadable(positions.ids[row], base.name, _fault(where, base))
                    yield replace(unreadable, group=positions.groups[row], meta={**where, **unreadable.meta})
                    continue
                if base.fwhm_arcsec is not None:
                    where["fwhm_arcsec"] = base.fwhm_arcsec
                yield Triplet(
                    science_stamp(i),
                    reference_stamp and reference_stamp(i),
                    difference_stamp and difference_stamp(i),
                    id=positions.ids[row],
                    pixel_scale=base.pixel_scale,
                    fwhm=base.fwhm,
                    group=positions.groups[row],
                    meta=where,
                )

    return reading.open(triplets())


def _fault(where: dict[str, Any], base: Frame) -> str:
    """Why there is no stamp at a position of the catalogue."""
    height, width = base.shape
    frame = f"the frame of {width} x {height} pixels"
    if "x" in where:
        return f"x = {where['x']}, y = {where['y']} is off {frame}"
    if "ra" in where:
        return f"RA {where['ra']}, Dec {where['dec']} is off {frame}"
    return "the catalogue gives no position for it"


def stamp_origin(position: npt.NDArray[Any], size: int) -> npt.NDArray[np.int64]:
    """First column (or row) of the stamps around some positions, shape (N,).

    The target comes to lie within half a pixel of the stamp's middle, ``(size - 1) / 2``. Positions
    far beyond any frame, and NaN, are brought to where nothing overlaps.
    """
    far = 1e7
    origin: npt.NDArray[np.int64] = np.ceil(
        np.clip(np.nan_to_num(position, nan=-far), -far, far) - size / 2
    ).astype(np.int64)
    return origin


def _masked(frame: Frame, bad: npt.NDArray[np.bool_]) -> Frame:
    """The frame with more bad pixels."""
    if bad.shape != frame.shape:
        raise UsageError(
            f"the mask has shape {bad.shape} and {frame.name} has {frame.shape}; they must agree"
        )
    return replace(frame, mask=bad if frame.mask is None else frame.mask | bad)


def _cutter(frame: Frame, base: Frame, size: int) -> Cutter:
    """How stamps come out of a frame: straight, or brought onto the grid of `base`."""
    if frame is not base and not same_grid(base.wcs, base.shape, frame.wcs, frame.shape):
        if base.wcs is None or frame.wcs is None:
            lacking = base.name if base.wcs is None else frame.name
            raise UsageError(
                f"{frame.name} has shape {frame.shape}, {base.name} has {base.shape}: their pixels can "
                f"only be related through the WCS of both, and {lacking} has none: resample one of them"
            )
        regridder = Regridder(frame.data, frame.mask, frame.wcs, base.wcs, size)

        def resampled(left: npt.NDArray[Any], top: npt.NDArray[Any]) -> Callable[[int], npt.NDArray[Any]]:
            lattices = regridder.lattices(left, top)
            return lambda i: regridder.cut(lattices[i], frame.dtype)

        return resampled

    def straight(left: npt.NDArray[Any], top: npt.NDArray[Any]) -> Callable[[int], npt.NDArray[Any]]:
        return lambda i: _window(frame, int(left[i]), int(top[i]), size)

    return straight


def _window(frame: Frame, left: int, top: int, size: int) -> npt.NDArray[Any]:
    """A square cut; NaN where the frame has no pixel or a bad one."""
    stamp = np.full((size, size), np.nan, frame.dtype)
    rows = slice(max(top, 0), max(min(top + size, frame.shape[0]), 0))
    columns = slice(max(left, 0), max(min(left + size, frame.shape[1]), 0))
    if rows.start < rows.stop and columns.start < columns.stop:
        inside = stamp[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        inside[...] = frame.data[rows, columns]
        if frame.mask is not None:
            inside[frame.mask[rows, columns]] = np.nan
    return stamp


def _sky(wcs: Any, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """RA and Dec in degrees of some pixels, shape (N, 2); NaN without a WCS."""
    if wcs is None:
        return np.full((len(x), 2), np.nan)
    from astropy.wcs.utils import pixel_to_skycoord

    sky = pixel_to_skycoord(x, y, wcs).icrs
    return np.stack([sky.ra.deg, sky.dec.deg], axis=1)
