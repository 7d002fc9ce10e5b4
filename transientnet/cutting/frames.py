"""Cut triplets out of full frames, around the positions of a catalogue."""

from __future__ import annotations

import io
import math
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ReadError, UsageError
from ..files.compressed import gunzip
from ..files.fits_counts import check_counts
from ..readers.hdus import check_size, check_tiles
from ..readers.image import SCALES, facts
from ..readers.surveys import match_channels
from ..triplet import Triplet
from .catalog import read_catalog
from .regrid import Regridder, same_grid

__all__ = ["Frame", "cut_triplets", "open_frame", "stamp_origin"]

MAX_FRAME_BYTES = 4 * 2**30
"""Largest frame that is unpacked into memory; plain FITS images are memory-mapped and may be larger."""
MAX_STAMP_SIDE = 2048

_BATCH = 512
_MASK_NAMES = ("MASK", "DQ", "BPM", "IMMASK", "MSK", "BADPIX", "FLAGS", "FLAG")
_OTHER_PLANES = ("VARIANCE", "VAR", "ERR", "ERROR", "WEIGHT", "WHT", "UNCERT", "STDDEV", "RMS", "BKG", "PSF")
# The planes of a Rubin-style mask (MP_* keywords give the bits) that mean that a pixel was not
# observed. Its other planes describe good pixels: detected, saturated, cosmic ray, interpolated.
_UNOBSERVED_PLANES = ("MP_BAD", "MP_NO_DATA", "MP_UNMASKEDNAN")

Cutter = Callable[[npt.NDArray[Any], npt.NDArray[Any]], Callable[[int], npt.NDArray[Any]]]
"""First columns and rows of a batch of stamps in; a function from index in the batch to stamp out."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One full image.

    Attributes
    ----------
    data : ndarray, shape (H, W)
        Pixels, memory-mapped where the file allows it.
    name : str
        What to call the frame in a message: its path, or its role.
    mask : ndarray of bool, shape (H, W), or None
        True where a pixel was not observed.
    wcs : astropy.wcs.WCS or None
        Celestial WCS.
    pixel_scale : float or None
        arcsec per pixel at the reference point of the WCS.
    fwhm : float or None
        Seeing in pixels, where the header tells.
    """

    data: npt.NDArray[Any]
    name: str
    mask: npt.NDArray[np.bool_] | None = None
    wcs: Any = None
    pixel_scale: float | None = None
    fwhm: float | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        height, width = self.data.shape
        return height, width

    @property
    def dtype(self) -> np.dtype[Any]:
        """Floating type in native byte order that holds the pixels without loss, and NaN."""
        return np.result_type(self.data.dtype.newbyteorder("="), np.float32)


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
    pixel_scale: float | None = None,
    fwhm: float | None = None,
) -> Iterator[Triplet]:
    """Cut a triplet of stamps around each position of a catalogue.

    A target sits on the centre pixel of its stamps to half a pixel, at the edge of a frame too: what
    lies beyond the edge is NaN. A reference or difference on another pixel grid is brought onto the
    science frame's grid, stamp by stamp, through both WCS.

    Parameters
    ----------
    science, reference, difference : path, HDU, NDData, CCDData, ndarray of shape (H, W), or None
        The frames. A path may name an extension, ``"night.fits[SCI]"``; otherwise the only image, or
        the one with a usual name, is taken, and a mask extension beside it is honoured. `.fz` and
        `.gz` are read. Only `science` is required.
    catalog : path, Table, mapping of columns, DataFrame, or ndarray of shape (N, 2)
        Positions; see `read_catalog`.
    size : int
        Side of the stamps in pixels of the science frame.
    x, y, ra, dec, id_column, group_column : str, optional
        Columns of the catalogue, where their names are not the usual ones.
    one_based : bool, optional
        Whether the catalogue counts the first pixel as 1. By default it counts from 0, except in
        SExtractor's ``*_IMAGE`` columns.
    mask : path, HDU, ndarray of shape (H, W), optional
        Frame that marks bad pixels of science and difference.
    mask_bits : int, optional
        Bits of integer masks that mean bad. By default all, and in masks that name their planes
        (Rubin's ``MP_*`` keywords) those for pixels that were not observed.
    pixel_scale : float, optional
        arcsec per pixel; by default from the science frame's WCS.
    fwhm : float, optional
        Seeing in pixels; by default from the science frame's header.

    Yields
    ------
    Triplet
        One per row of the catalogue, in its order. A position wholly off the frame gives stamps of
        NaN, a row without a position an unreadable triplet: both are flagged and neither is scored.

    Raises
    ------
    UsageError
        If `size` or the columns do not make sense, or frames on different grids have no WCS.
    ReadError
        If a frame or the catalogue cannot be read.
    """
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or not 1 <= size <= MAX_STAMP_SIDE:
        raise UsageError(f"size is the side of a stamp in pixels, 1 to {MAX_STAMP_SIDE}, and not {size!r}")
    for name, value in (("pixel_scale", pixel_scale), ("fwhm", fwhm)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise UsageError(f"{name} is a positive number, and not {value!r}")
    size = int(size)
    if science is None:
        raise UsageError("a science frame is needed to cut stamps from")
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
    if positions.ra is not None and positions.dec is not None:
        sky = np.stack([positions.ra, positions.dec], axis=1)
    else:
        sky = _sky(base.wcs, columns, rows)
    pixel_scale = base.pixel_scale if pixel_scale is None else pixel_scale
    fwhm = base.fwhm if fwhm is None else fwhm
    cut_science = _cutter(base, base, size)
    cut_reference = None if template is None else _cutter(template, base, size)
    cut_difference = None if residual is None else _cutter(residual, base, size)

    def triplets() -> Iterator[Triplet]:
        for first in range(0, len(positions), _BATCH):
            batch = slice(first, first + _BATCH)
            known = np.isfinite(columns[batch]) & np.isfinite(rows[batch])
            left, top = stamp_origin(columns[batch], size), stamp_origin(rows[batch], size)
            science_cut = cut_science(left, top)
            reference_cut = cut_reference and cut_reference(left, top)
            difference_cut = cut_difference and cut_difference(left, top)
            for i, row in enumerate(range(len(positions))[batch]):
                if not known[i]:
                    yield Triplet.unreadable(
                        positions.ids[row], base.name, "the catalogue has no position on this frame for it"
                    )
                    continue
                meta = {"source": base.name, "x": float(columns[row]), "y": float(rows[row])}
                if np.isfinite(sky[row]).all():
                    meta |= {"ra": float(sky[row, 0]), "dec": float(sky[row, 1])}
                yield Triplet(
                    science_cut(i),
                    None if reference_cut is None else reference_cut(i),
                    None if difference_cut is None else difference_cut(i),
                    id=positions.ids[row],
                    pixel_scale=pixel_scale,
                    fwhm=fwhm,
                    group=positions.groups[row],
                    meta=meta,
                )

    return triplets()


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


def open_frame(source: Any, role: str, *, mask_bits: int | None = None) -> Frame:
    """Open one full frame.

    Parameters
    ----------
    source : path, HDU, NDData, CCDData or ndarray of shape (H, W)
        Where the pixels are.
    role : str
        What the frame is (``science``, ``reference``, ``difference``, ``mask``): decides which
        extension names are looked for.
    mask_bits : int, optional
        See `cut_triplets`.

    Raises
    ------
    ReadError
        If there is no such file or extension, or no 2-D image in it.
    UsageError
        If the file holds several images and none has a usual name.
    """
    if isinstance(source, Frame):
        return source
    if isinstance(source, str | os.PathLike):
        return _open_file(os.fspath(source), role, mask_bits)
    name = f"the {role} frame"
    # NDData before HDUs: a CCDData has a header too.
    if hasattr(source, "mask") and hasattr(source, "wcs"):
        mask = None if source.mask is None else np.broadcast_to(source.mask, source.data.shape)
        return _frame(source.data, name, mask, source.wcs, (source.meta,))
    if hasattr(source, "header") and hasattr(source, "data"):
        if role == "mask":
            return Frame(_bad(np.asarray(source.data), source.header, mask_bits), name)
        return _frame(source.data, name, None, _wcs(source.header), (source.header,))
    if role == "mask":
        return Frame(_bad(np.asarray(source), None, mask_bits), name)
    data = np.ma.getdata(np.ma.asanyarray(source))
    return _frame(data, name, np.ma.getmaskarray(source) if np.ma.isMaskedArray(source) else None)


def _open_file(name: str, role: str, mask_bits: int | None, *, memmap: bool = True) -> Frame:
    from astropy.io import fits

    match = re.fullmatch(r"(.+)\[(\w+)\]", name)
    path, extension = (match[1], match[2]) if match and not Path(name).exists() else (name, None)
    try:
        with warnings.catch_warnings():
            # Non-standard cards are repaired as astropy reads; nothing that a user could act on.
            warnings.simplefilter("ignore")
            unpacked = _unpacked(path)
            check_counts(path if unpacked is None else unpacked.getvalue())
            with fits.open(unpacked or path, memmap=memmap and unpacked is None) as hdus:
                hdu = _image(hdus, name, role, extension)
                mask_hdu = None if role == "mask" else _mask_of(hdus, hdu)
                if memmap and any(_is_scaled(h) for h in (hdu, mask_hdu) if h is not None):
                    # astropy does not map what it must rescale.
                    return _open_file(name, role, mask_bits, memmap=False)
                for index, one in enumerate(hdus):
                    if one is hdu or one is mask_hdu:
                        _check_size(one, path)
                        if isinstance(one, fits.CompImageHDU):
                            with fits.open(unpacked or path, disable_image_compression=True) as stored:
                                check_tiles(stored[index], MAX_FRAME_BYTES)
                data = _pixels(hdu)
                if role == "mask":
                    return Frame(_bad(data, hdu.header, mask_bits), name)
                mask = None if mask_hdu is None else _bad(_pixels(mask_hdu), mask_hdu.header, mask_bits)
                return _frame(data, name, mask, _wcs(hdu.header, hdus), (hdu.header, hdus[0].header))
    except (ReadError, UsageError):
        raise
    except FileNotFoundError as error:
        raise ReadError(f"no {role} frame at {path}") from error
    except Exception as error:
        raise ReadError(f"cannot read the {role} frame {name}: {type(error).__name__}: {error}") from error


def _unpacked(path: str) -> io.BytesIO | None:
    """What a gzipped file holds, up to the size of the largest frame; None if it is not gzipped."""
    with open(path, "rb") as file:
        if file.read(2) != b"\x1f\x8b":
            return None
        file.seek(0)
        return io.BytesIO(gunzip(file.read(), MAX_FRAME_BYTES))


def _is_image(hdu: Any) -> bool:
    axes = [hdu.header.get(f"NAXIS{i + 1}", 0) for i in range(hdu.header.get("NAXIS", 0))]
    return bool(hdu.is_image and len(axes) >= 2 and min(axes) > 0 and all(n == 1 for n in axes[2:]))


def _is_scaled(hdu: Any) -> bool:
    return any(key in hdu.header for key in ("BSCALE", "BZERO", "BLANK"))


def _image(hdus: Any, name: str, role: str, extension: str | None) -> Any:
    """The HDU that holds the frame."""
    contents = ", ".join(f"{i}:{hdu.name or 'PRIMARY'}" for i, hdu in enumerate(hdus))
    if extension is not None:
        try:
            hdu = hdus[int(extension) if extension.isdigit() else extension]
        except (KeyError, IndexError) as error:
            raise ReadError(f"{name}: no such extension; the file has {contents}") from error
        if not _is_image(hdu):
            raise ReadError(f"{name} is not a 2-D image; the file has {contents}")
        return hdu
    images = {hdu.name.upper() or "PRIMARY": hdu for hdu in hdus if _is_image(hdu)}
    if not images:
        raise ReadError(f"{name} holds no 2-D image; it has {contents}")
    masks = [image for image_name, image in images.items() if image_name in _MASK_NAMES]
    planes = {n: image for n, image in images.items() if n not in (*_MASK_NAMES, *_OTHER_PLANES)}
    if role == "mask":
        planes = planes if not masks else {masks[0].name: masks[0]}
    channels = match_channels(list(planes))
    found = (
        channels.get(role) or channels.get("science") or (next(iter(planes)) if len(planes) == 1 else None)
    )
    if found is not None:
        return planes[found]
    raise UsageError(
        f"{name} holds {len(planes)} images ({contents}): say which is the {role} frame, as in '{name}[SCI]'"
    )


def _mask_of(hdus: Any, image: Any) -> Any:
    """The mask extension that lies beside an image, or None."""
    for hdu in hdus:
        beside = hdu.name.upper() in _MASK_NAMES and hdu is not image and _is_image(hdu)
        if beside and all(hdu.header[key] == image.header[key] for key in ("NAXIS1", "NAXIS2")):
            return hdu
    return None


def _check_size(hdu: Any, path: str) -> None:
    """Refuse an image that would unpack to more than memory is for; what is mapped may be larger."""
    axes = [hdu.header[f"NAXIS{i + 1}"] for i in range(hdu.header["NAXIS"])]
    stored = os.path.getsize(path)
    check_size(abs(hdu.header["BITPIX"]) // 8 * math.prod(axes), stored, max(MAX_FRAME_BYTES, stored))


def _pixels(hdu: Any) -> npt.NDArray[Any]:
    return np.asarray(hdu.data).reshape(hdu.header["NAXIS2"], hdu.header["NAXIS1"])


def _bad(planes: npt.NDArray[Any], header: Any = None, mask_bits: int | None = None) -> npt.NDArray[np.bool_]:
    """True where a mask says that the pixel was not observed."""
    if planes.dtype.kind not in "iu":
        return np.asarray(~np.isfinite(planes) | (planes != 0))
    if mask_bits is None:
        named = [header[key] for key in _UNOBSERVED_PLANES if header is not None and key in header]
        mask_bits = sum(1 << int(bit) for bit in named if 0 <= int(bit) < 64) if named else -1
    bits = mask_bits & ((1 << 8 * planes.dtype.itemsize) - 1)
    return np.asarray((planes & np.array(bits, f"u{planes.dtype.itemsize}").astype(planes.dtype)) != 0)


def _frame(
    data: Any,
    name: str,
    mask: npt.NDArray[np.bool_] | None = None,
    wcs: Any = None,
    headers: Sequence[Mapping[str, Any]] = (),
) -> Frame:
    """A checked frame, with what its WCS and headers tell."""
    data = np.asanyarray(data)
    if data.ndim != 2 or data.dtype.kind not in "biuf" or not data.size:
        raise ReadError(
            f"{name} is an array of shape {data.shape} and dtype {data.dtype}; "
            "a frame is a 2-D image of real numbers"
        )
    wcs, pixel_scale = _celestial(wcs)
    return Frame(data, name, mask, wcs, pixel_scale, _fwhm(headers, pixel_scale))


def _celestial(wcs: Any) -> tuple[Any, float | None]:
    """The part of a WCS that is on the sky, and its arcsec per pixel; None without one that can be used."""
    from astropy.wcs.utils import proj_plane_pixel_area, wcs_to_celestial_frame

    if wcs is None or not wcs.has_celestial:
        return None, None
    try:
        celestial = wcs.celestial
        wcs_to_celestial_frame(celestial)
        scale = float(proj_plane_pixel_area(celestial)) ** 0.5 * 3600
    except Exception:  # wcslib's errors have no common base
        return None, None
    return (celestial, scale) if SCALES[0] < scale < SCALES[1] else (None, None)


def _wcs(header: Any, hdus: Any = None) -> Any:
    """The celestial WCS of a header, or None where it has none that can be used."""
    from astropy.wcs import WCS

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return WCS(header, fobj=hdus)
        except Exception:  # wcslib's errors have no common base, and a frame without WCS is still a frame
            return None


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


def _fwhm(headers: Sequence[Mapping[str, Any]], pixel_scale: float | None) -> float | None:
    """Seeing in pixels that the first header knows that does."""
    for header in headers:
        told = dict(header)
        if pixel_scale is not None:
            told.setdefault("PIXSCALE", pixel_scale)
        fwhm = facts(told, partial(_comment, header))[1]
        if fwhm is not None:
            return fwhm
    return None


def _comment(header: Any, key: str) -> str:
    comments = getattr(header, "comments", {})
    return str(comments[key]) if key in comments else ""
