"""Cutout bytes of a packet or table cell to pixels: fast where they are plain, astropy where they are not."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ReadError
from ..files.compressed import GZIP, gunzip, most_of_a_stamp
from .hdus import first_image, read_hdus
from .image import Image
from .plain import plain_image

__all__ = ["decode_image", "decode_stamp"]


def decode_stamp(data: bytes) -> npt.NDArray[Any]:
    """Pixels of one cutout.

    Parameters
    ----------
    data : bytes
        FITS or NumPy file, gzipped or not. Of several image HDUs the first counts; a mask HDU makes NaN.

    Returns
    -------
    ndarray, shape (H, W)

    Raises
    ------
    ReadError
        The bytes are not an image, or hold more than the bound of memory allows.
    """
    return decode_image(data).data


def decode_image(data: bytes, limit: int | None = None) -> Image:
    """As `decode_stamp`, with the pixel scale, FWHM and orientation that the header or PSF gives.

    `limit` is what a stamp may hold in bytes, where `most_of_a_stamp` was asked already.
    """
    if limit is None:
        limit = most_of_a_stamp()
    if data[:2] == GZIP:
        data = gunzip(data, limit)
    if len(data) > limit:
        raise ReadError(f"a cutout of {len(data)} bytes is beyond the limit of {limit}")
    image = plain_image(data)
    if image is not None:
        return image
    if data[:6] == b"\x93NUMPY":
        return Image(_numpy_file(data))
    if data[:9] != b"SIMPLE  =":
        raise ReadError(f"cutout bytes are neither FITS nor NumPy (they begin with {bytes(data[:12])!r})")
    return first_image(read_hdus(data, limit))


def _numpy_file(data: bytes) -> npt.NDArray[Any]:
    """A 2-D ``.npy`` in memory, its claims checked before anything is allocated."""
    file = io.BytesIO(data)
    try:
        major, _ = np.lib.format.read_magic(file)
        read_header = (
            np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read_header(file)
        count = int(np.prod(shape, dtype=object))
        if dtype.hasobject or dtype.kind not in "fiub" or len(shape) != 2:
            raise ReadError(f"a NumPy cutout must be a 2-D array of numbers, this is {shape} of {dtype}")
        pixels = np.frombuffer(data, dtype=dtype, count=count, offset=file.tell())
    except (ValueError, TypeError, OverflowError, SyntaxError) as error:
        raise ReadError(f"damaged NumPy cutout: {error}") from error
    return pixels.reshape(shape, order="F" if fortran else "C")
