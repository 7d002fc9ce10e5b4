"""One decoded stamp, and the facts of its header: sampling, seeing, orientation, each with its unit."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .vocabulary import SCALE_KEYS, UNOBSERVED_PLANES, seeing_keys, unit_of_seeing

__all__ = [
    "SCALES",
    "Facts",
    "Image",
    "bad_pixels",
    "facts",
    "oriented_like",
    "psf_fwhm",
    "seeing_px",
    "sky_axes",
]

#: Plausible arcsec per pixel of a telescope that takes stamps; beyond it a header is not believed.
SCALES = (5e-3, 600.0)
#: Plausible FWHM in pixels.
_FWHMS = (0.3, 200.0)
#: Plausible FWHM in arcseconds.
_SEEINGS = (0.01, 120.0)


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """A stamp of shape (H, W), masked pixels NaN, and its PSF image; the others are those of `Facts`."""

    data: npt.NDArray[Any]
    pixel_scale: float | None = None
    fwhm: float | None = None
    matrix: npt.NDArray[np.float64] | None = None
    fwhm_arcsec: float | None = None
    psf: npt.NDArray[Any] | None = None

    def seeing(self) -> tuple[float | None, float | None]:
        """FWHM in pixels, and in arcseconds if the header gives it so; the PSF counts where it gives none.

        The PSF is measured here, and not when the stamp is decoded: that takes longer than decoding it.
        """
        measured = psf_fwhm(self.psf) if self.fwhm is None and self.psf is not None else None
        return (self.fwhm, self.fwhm_arcsec) if measured is None else (measured, None)


class Facts(NamedTuple):
    """What a FITS header says of an image; None where it says nothing.

    Attributes
    ----------
    pixel_scale : float or None
        arcsec per pixel.
    fwhm : float or None
        Seeing in pixels. None where it is given in arcseconds and no pixel scale is known.
    matrix : ndarray of float64, shape (2, 2), or None
        Linear part of the WCS, (x, y) in pixels to (RA, Dec) in degrees.
    fwhm_arcsec : float or None
        Seeing in arcseconds where the header gives it so: another pixel scale changes `fwhm`.
    """

    pixel_scale: float | None
    fwhm: float | None
    matrix: npt.NDArray[np.float64] | None
    fwhm_arcsec: float | None


def facts(
    header: Mapping[str, Any],
    comment: Callable[[str], str] | None = None,
    *,
    pixel_scale: float | None = None,
) -> Facts:
    """Sampling, seeing and orientation that a FITS header gives, in our units.

    Parameters
    ----------
    header : mapping
        Keyword to value; an `astropy.io.fits.Header` is one.
    comment : callable, optional
        Comment of a keyword, which names the unit; by default from ``header.comments``, if it has these.
    pixel_scale : float, optional
        arcsec per pixel as known better than by this header: from the user, or from the whole WCS.
    """
    if comment is None:
        comments = getattr(header, "comments", None)

        def comment(key: str) -> str:
            return str(comments[key]) if comments is not None and key in header else ""

    matrix = _matrix(header)
    scale: float | None = None
    if matrix is not None:
        scale = math.sqrt(abs(_determinant(matrix))) * 3600
        if not SCALES[0] < scale < SCALES[1]:
            scale = matrix = None
    if scale is None:
        scale = next((v for key in SCALE_KEYS if (v := _sampling(header, key, comment)) is not None), None)
    if pixel_scale is not None:
        scale = pixel_scale
    fwhm, arcsec = _fwhm(header, comment, scale)
    return Facts(scale, fwhm, matrix, arcsec)


def _sampling(header: Mapping[str, Any], key: str, comment: Callable[[str], str]) -> float | None:
    value = _number(header, key, math.nan)
    value *= 3600 if re.search(r"\bdeg", comment(key).lower()) else 1
    return value if SCALES[0] < value < SCALES[1] else None


def _fwhm(
    header: Mapping[str, Any], comment: Callable[[str], str], scale: float | None
) -> tuple[float | None, float | None]:
    """The seeing in pixels, and in arcseconds if it is given so."""
    in_arcsec: float | None = None
    for key in seeing_keys(header):
        value = _positive(header, key, 0.0, math.inf)
        unit = None if value is None else unit_of_seeing(key, comment(key))
        if value is None or unit is None:
            continue
        if unit == "px" and _FWHMS[0] < value < _FWHMS[1]:
            return value, None
        if unit == "arcsec" and _SEEINGS[0] < value < _SEEINGS[1]:
            # Kept where the scale makes no sense of it: a better one may.
            in_arcsec = in_arcsec or value
            if (width := seeing_px(value, scale)) is not None:
                return width, value
    return None, in_arcsec


def seeing_px(arcsec: float | None, scale: float | None) -> float | None:
    """FWHM in pixels of a seeing in arcseconds; None without a scale in arcsec per pixel that makes sense."""
    width = None if arcsec is None or scale is None else arcsec / scale
    return width if width is not None and _FWHMS[0] < width < _FWHMS[1] else None


def _positive(header: Mapping[str, Any], key: str, low: float, high: float) -> float | None:
    value = _number(header, key, math.nan)
    return value if low < value < high else None


def _number(header: Mapping[str, Any], key: str, default: float) -> float:
    value = header.get(key)
    if value is None or isinstance(value, bool):
        return default
    try:
        return float(value)
    except (TypeError, ValueError):
        return default


def _matrix(header: Mapping[str, Any]) -> npt.NDArray[np.float64] | None:
    names = ((1, 1), (1, 2), (2, 1), (2, 2))
    steps = [_number(header, f"CDELT{i}", 1.0) for i in (1, 2)]
    if any(f"CD{i}_{j}" in header for i, j in names):
        values = [_number(header, f"CD{i}_{j}", 0.0) for i, j in names]
    elif any(f"PC{i}_{j}" in header for i, j in names):
        values = [_number(header, f"PC{i}_{j}", float(i == j)) * steps[i - 1] for i, j in names]
    elif "CDELT1" in header and "CDELT2" in header:
        turn = math.radians(_number(header, "CROTA2", 0.0))
        cos, sin = math.cos(turn), math.sin(turn)
        values = [steps[0] * cos, -steps[1] * sin, steps[0] * sin, steps[1] * cos]
    else:
        return None
    matrix = np.array(values, dtype=np.float64).reshape(2, 2)
    per_degree = {"arcsec": 3600.0, "arcmin": 60.0}.get(str(header.get("CUNIT1", "deg")).strip().lower(), 1.0)
    matrix /= per_degree
    usable = np.isfinite(matrix).all() and np.abs(matrix).max() < 1 and _determinant(matrix) != 0
    return matrix if usable else None


def _determinant(matrix: npt.NDArray[np.floating[Any]]) -> float:
    (a, b), (c, d) = matrix.tolist()
    return float(a * d - b * c)


def sky_axes(matrix: npt.NDArray[np.float64] | None) -> dict[str, float]:
    """Directions of north and east in a picture whose first row is at the bottom.

    Parameters
    ----------
    matrix : ndarray of float64, shape (2, 2), or None
        As in `Facts`.

    Returns
    -------
    dict
        ``north`` and ``east`` in degrees from up, anticlockwise; empty without a WCS.
    """
    if matrix is None:
        return {}
    (a, b), (c, d) = matrix.tolist()
    turned = math.copysign(1.0, a * d - b * c)
    # Columns of the inverse, but for a positive factor: what a step on the sky is in pixels.
    steps = {"north": (-b * turned, a * turned), "east": (d * turned, -c * turned)}
    return {name: math.degrees(math.atan2(-x, y)) for name, (x, y) in steps.items()}


def oriented_like(image: Image, matrix: npt.NDArray[np.float64] | None) -> Image:
    """Bring `image` into the orientation of `matrix` if flips and quarter turns do it.

    Any other rotation (by more than 10 degrees from those) is left alone: it needs a resampling of the
    whole frame.
    """
    if image.matrix is None or matrix is None or image.matrix.tolist() == matrix.tolist():
        return image
    # Columns: the steps of the target grid's x and y, in this image's pixels.
    step = np.linalg.solve(image.matrix, matrix)
    step /= math.sqrt(abs(_determinant(step)))
    turn = np.rint(step)
    if np.abs(step - turn).max() > math.sin(math.radians(10)) or abs(_determinant(turn)) != 1:
        return image
    data = image.data
    if turn[0, 0] == 0:
        data, turn = data.T, turn[::-1]
    if turn[0, 0] < 0:
        data = data[:, ::-1]
    if turn[1, 1] < 0:
        data = data[::-1, :]
    return replace(image, data=data, matrix=matrix)


def psf_fwhm(psf: npt.NDArray[Any]) -> float | None:
    """FWHM in pixels of a PSF image: of the circle with the area above half maximum.

    The area is counted on a grid eight times as fine, interpolated by the Fourier transform.
    """
    fine = 8
    if psf.ndim != 2 or min(psf.shape) < 5 or max(psf.shape) > 256:
        return None
    image = np.nan_to_num(np.asarray(psf, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    if not image.max() > 0:
        return None
    waves = np.fft.fftshift(np.fft.fft2(image))
    for axis, n in ((1, psf.shape[1]), (0, psf.shape[0])):
        # An axis at a time: the rows that the other one adds are zero, and so is what they become.
        before = fine * n // 2 - n // 2
        margins = [(before, (fine - 1) * n - before) if i == axis else (0, 0) for i in (0, 1)]
        waves = np.fft.ifft(np.fft.ifftshift(np.pad(waves, margins), axes=axis), axis=axis)
    image = waves.real
    peak = image.max()
    if not (np.isfinite(peak) and peak > 0):
        return None
    fwhm = 2 * math.sqrt(np.count_nonzero(image >= peak / 2) / math.pi) / fine
    return fwhm if _FWHMS[0] < fwhm < min(psf.shape) else None


def bad_pixels(
    mask: npt.NDArray[Any], header: Mapping[str, Any] | None = None, bits: int | None = None
) -> npt.NDArray[np.bool_]:
    """True where a mask says that a pixel was not observed.

    Parameters
    ----------
    mask : ndarray
        Boolean, bits in integers, or numbers of which all but 0 are bad.
    header : mapping, optional
        Header of an integer mask, which may name its planes.
    bits : int, optional
        Bits of an integer mask that are bad; by default those of the planes in `header`, else all.
    """
    if mask.dtype.kind not in "iu":
        return np.asarray(~np.isfinite(mask) | (mask != 0))
    if bits is None:
        named = [header[key] for key in UNOBSERVED_PLANES if header is not None and key in header]
        bits = sum(1 << int(bit) for bit in named if 0 <= int(bit) < 64) if named else -1
    bits &= (1 << 8 * mask.dtype.itemsize) - 1
    return np.asarray((mask & np.array(bits, f"u{mask.dtype.itemsize}").astype(mask.dtype)) != 0)


_CARD = re.compile(rb"\s*(?:'((?:[^']|'')*)'|([^/']*))(?:\s*/(.*))?", re.DOTALL)


def card_value(raw: bytes) -> tuple[Any, str]:
    """Value and comment of a card's bytes behind ``KEYWORD=``."""
    found = _CARD.match(raw)
    if found is None:
        return None, ""
    text, plain, comment = found.groups()
    remark = (comment or b"").decode("ascii", "replace")
    if text is not None:
        return text.replace(b"''", b"'").decode("ascii", "replace").rstrip(), remark
    word = (plain or b"").strip().decode("ascii", "replace")
    if word in ("T", "F"):
        return word == "T", remark
    try:
        return (float(word.replace("D", "E")) if set(word) & set(".eEdD") else int(word)), remark
    except ValueError:
        return None, remark
