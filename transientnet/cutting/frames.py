"""Full frames: pixels, masks, astrometry, and what their headers say of sampling and seeing."""

from __future__ import annotations

import io
import math
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ReadError, UsageError
from ..files.compressed import gunzip
from ..files.fits_counts import check_counts
from ..readers.hdus import check_size, check_tiles
from ..readers.image import SCALES, bad_pixels, facts
from ..readers.layouts import match_channels
from ..readers.vocabulary import companion_of

__all__ = ["Frame", "open_frame"]

MAX_FRAME_BYTES = 4 * 2**30
"""Largest frame that is unpacked into memory; plain FITS images are memory-mapped and may be larger."""


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
        arcsec per pixel at the reference point of the WCS, else as the header says.
    fwhm : float or None
        Seeing in pixels, from the header.
    fwhm_arcsec : float or None
        Seeing in arcseconds where the header gives it so: another pixel scale changes `fwhm`.
    """

    data: npt.NDArray[Any]
    name: str
    mask: npt.NDArray[np.bool_] | None = None
    wcs: Any = None
    pixel_scale: float | None = None
    fwhm: float | None = None
    fwhm_arcsec: float | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        height, width = self.data.shape
        return height, width

    @property
    def dtype(self) -> np.dtype[Any]:
        """Floating type in native byte order that holds the pixels without loss, and NaN."""
        return np.result_type(self.data.dtype.newbyteorder("="), np.float32)


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
        return _frame(source.data, name, mask, source.wcs, source.meta)
    if hasattr(source, "header") and hasattr(source, "data"):
        if role == "mask":
            return Frame(bad_pixels(np.asarray(source.data), source.header, mask_bits), name)
        return _frame(source.data, name, None, _wcs(source.header), source.header)
    if role == "mask":
        return Frame(bad_pixels(np.asarray(source), None, mask_bits), name)
    data = np.ma.getdata(np.ma.asanyarray(source))
    mask = np.ma.getmaskarray(source) if np.ma.isMaskedArray(source) else None
    return _frame(data, name, mask)


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
                    return Frame(bad_pixels(data, hdu.header, mask_bits), name)
                mask = None if mask_hdu is None else bad_pixels(_pixels(mask_hdu), mask_hdu.header, mask_bits)
                header = _inherited(hdu, hdus[0])
                return _frame(data, name, mask, _wcs(hdu.header, hdus), header)
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
    planes = {n: image for n, image in images.items() if companion_of(n)[0] is None}
    masks = {n: image for n, image in images.items() if companion_of(n) == ("mask", None)}
    if role == "mask" and masks:
        return next(iter(masks.values()))
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
        beside = companion_of(hdu.name) == ("mask", None) and hdu is not image and _is_image(hdu)
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


def _inherited(hdu: Any, primary: Any) -> Any:
    """The header of an image, with what a primary HDU without pixels says of all of them."""
    if hdu is primary or primary.header.get("NAXIS"):
        return hdu.header
    header = primary.header.copy()
    header.update(hdu.header)
    return header


def _frame(
    data: Any,
    name: str,
    mask: npt.NDArray[np.bool_] | None = None,
    wcs: Any = None,
    header: Mapping[str, Any] | None = None,
) -> Frame:
    """A checked frame, with what its WCS and header say."""
    data = np.asanyarray(data)
    if data.ndim != 2 or data.dtype.kind not in "biuf" or not data.size:
        raise ReadError(
            f"{name} is an array of shape {data.shape} and dtype {data.dtype}; "
            "a frame is a 2-D image of real numbers"
        )
    wcs, scale = _celestial(wcs)
    known = facts({} if header is None else header, pixel_scale=scale)
    return Frame(data, name, mask, wcs, known.pixel_scale, known.fwhm, known.fwhm_arcsec)


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
