"""FITS of any shape through astropy, with bounds on what a header may claim."""

from __future__ import annotations

import io
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ReadError
from ..files.compressed import GZIP, gunzip, most_of_a_file, most_of_a_stamp
from ..files.fits_counts import check_counts, check_rows
from .image import Image, bad_pixels, facts
from .plain import header_of, plain_file, plain_hdu
from .sniff import Loaded, open_file
from .vocabulary import NAME_KEYS, companion_of

__all__ = [
    "MAX_RATIO",
    "Hdu",
    "apply_mask",
    "check_size",
    "check_tiles",
    "first_image",
    "hdu_image",
    "header_values",
    "is_mapped",
    "load_hdus",
    "load_image",
    "opened_hdus",
    "pick",
    "read_hdus",
]

MAX_RATIO = 1000
"""Most that an image may unpack to, as a multiple of its file, once it is beyond what a cutout may hold."""

#: Magic, two sides, scale, sum and bit planes.
_HCOMPRESS_HEADER = 25
#: Number of keywords of a bare primary header: SIMPLE, BITPIX, NAXIS, EXTEND.
_BARE = 4


@dataclass(frozen=True, slots=True, eq=False)
class Hdu:
    """One HDU: its name as written, header values and comments, pixels or table rows (or None)."""

    index: int
    name: str
    version: int
    header: Mapping[str, Any]
    comments: Mapping[str, str]
    data: npt.NDArray[Any] | None = None
    rows: Any = None
    inherited: Hdu | None = None
    """A primary HDU without pixels, whose header holds for all others (the standard's INHERIT)."""

    @property
    def keywords(self) -> Mapping[str, Any]:
        """The header, with what it inherits."""
        return self.header if self.inherited is None else {**self.inherited.header, **self.header}

    def comment(self, key: str) -> str:
        """Comment of one of the `keywords`."""
        if key in self.header or self.inherited is None:
            return self.comments.get(key, "")
        return self.inherited.comments.get(key, "")

    @property
    def kind(self) -> str:
        """``image``, ``mask``, ``psf`` or ``other``, by name."""
        return companion_of(self.name)[0] or "image"


def read_hdus(data: bytes | str, limit: int) -> list[Hdu]:
    """All HDUs of a FITS file that hold numbers.

    Parameters
    ----------
    data : bytes or str
        The file's bytes, or the path of a large file (it is memory-mapped).
    limit : int
        Most bytes of pixels that one HDU may claim.

    Raises
    ------
    ReadError
        The file is damaged, or claims more than `limit`.
    """
    plain = _plain_hdus(data) if isinstance(data, bytes) else None
    if plain is not None:
        return _related(plain)
    try:
        with warnings.catch_warnings():
            # astropy warns of every repaired card; a stamp that decodes is good enough.
            warnings.simplefilter("ignore")
            return _related(list(_hdus(data, limit)))
    except ReadError:
        raise
    except MemoryError as error:
        raise ReadError("the FITS file needs more memory than is available") from error
    except Exception as error:  # astropy answers damaged headers with nearly every exception there is
        raise ReadError(f"damaged FITS: {type(error).__name__}: {error}") from error


def _related(hdus: list[Hdu]) -> list[Hdu]:
    """What depends on all HDUs together: inherited headers, and names that all of them share."""
    images = [hdu for hdu in hdus if hdu.data is not None]
    if len(images) > 1 and len({hdu.name for hdu in images}) == 1 and "EXTNAME" not in images[0].header:
        hdus = [replace(hdu, name="") if hdu.data is not None else hdu for hdu in hdus]
    first = hdus[0] if hdus else None
    if first is None or first.data is not None or len(first.header) <= _BARE:
        return hdus
    return [first, *(replace(hdu, inherited=first) for hdu in hdus[1:])]


def _plain_hdus(data: bytes) -> list[Hdu] | None:
    """All HDUs without astropy, if they are plain images; None if one is not."""
    hdus: list[Hdu] = []
    at = 0
    while at < len(data):
        found = plain_hdu(data, at)
        if found is None:
            return None
        pixels, header, at = found
        values, comments = header_of(header)
        name, version = _name_and_version(values)
        hdus.append(Hdu(len(hdus), name, version, values, comments, pixels))
    return hdus


def _name_and_version(header: Mapping[str, Any]) -> tuple[str, int]:
    version = header.get("EXTVER", 1)
    name = next((str(header[key]).strip() for key in NAME_KEYS if header.get(key)), "")
    return name, version if isinstance(version, int) else 1


def _hdus(data: bytes | str, limit: int) -> Iterator[Hdu]:
    from astropy.io import fits

    check_counts(data)
    stored = len(data) if isinstance(data, bytes) else os.path.getsize(data)

    def check(index: int, hdu: Any) -> None:
        if isinstance(hdu, fits.BinTableHDU) and not isinstance(hdu, fits.CompImageHDU):
            check_rows(hdu.header, stored)
            return
        axes = [int(hdu.header.get(f"NAXIS{i + 1}", 0)) for i in range(hdu.header["NAXIS"])]
        if min(axes) < 0:
            raise ReadError(f"HDU {index} has sides of {axes} pixels")
        packed = isinstance(hdu, fits.CompImageHDU)
        # astropy converts scaled pixels in memory, and maps others.
        scaled = (hdu.header.get("BSCALE", 1), hdu.header.get("BZERO", 0)) != (1, 0) or "BLANK" in hdu.header
        most = limit if packed or scaled or isinstance(data, bytes) else stored
        width = abs(int(hdu.header.get("BITPIX", 8))) // 8
        if scaled:
            # float32 for up to 16 bits, float64 for more.
            width = 4 if width < 4 else 8
        check_size(width * math.prod(axes), stored, most)
        if packed:
            again = io.BytesIO(data) if isinstance(data, bytes) else data
            with fits.open(again, disable_image_compression=True) as packed:
                check_tiles(packed[index], limit)

    file = io.BytesIO(data) if isinstance(data, bytes) else data
    with fits.open(file, memmap=not isinstance(data, bytes), lazy_load_hdus=True) as opened:
        yield from _contents(opened, check)


def opened_hdus(opened: Any) -> list[Hdu]:
    """All HDUs that hold numbers of an `astropy.io.fits.HDUList` that is open already."""
    return _related(list(_contents(opened, lambda index, hdu: None)))


def _contents(opened: Any, check: Callable[[int, Any], None]) -> Iterator[Hdu]:
    """The HDUs of an open file; `check` is called before the pixels of one are read."""
    from astropy.io import fits

    for index, hdu in enumerate(opened):
        header, comments = _plain_header(hdu.header)
        common = (index, *_name_and_version(header), header, comments)
        # In astropy 6.1 a compressed image is a table too.
        if isinstance(hdu, fits.BinTableHDU) and not isinstance(hdu, fits.CompImageHDU):
            check(index, hdu)
            yield Hdu(*common, rows=hdu.data)
        elif not getattr(hdu, "is_image", False) or hdu.header.get("NAXIS", 0) < 1:
            # A primary header without pixels names the candidate.
            yield Hdu(*common)
        else:
            check(index, hdu)
            pixels = hdu.data
            yield Hdu(*common, data=None if pixels is None else np.asarray(pixels))


def check_size(size: int, stored: int, limit: int) -> None:
    """Refuse an image of more than `limit` bytes, or of far more than a file of `stored` bytes can pack."""
    limit = min(limit, max(most_of_a_stamp(), MAX_RATIO * stored))
    if size > limit:
        raise ReadError(f"{size} bytes of pixels claimed by a file of {stored}: the limit is {limit}")


def _plain_header(header: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Values and comments of the cards that hold a plain value and can be parsed; the first one counts."""
    from astropy.io.fits import VerifyError

    values: dict[str, Any] = {}
    comments: dict[str, str] = {}
    for card in header.cards:
        try:
            if card.keyword and card.keyword not in values and isinstance(card.value, (str, int, float)):
                values[card.keyword], comments[card.keyword] = card.value, str(card.comment)
        except VerifyError:
            continue
    return values, comments


def check_tiles(table: Any, limit: int) -> None:
    """Refuse compressed tiles that astropy unpacks without a bound, or beyond the memory it set aside.

    Gzip tiles may inflate to anything. HCOMPRESS and PLIO tiles state their own size, and C code trusts
    them.

    Parameters
    ----------
    table : BinTableHDU
        The image as it is stored, opened with ``disable_image_compression=True``.
    limit : int
        Most bytes that gzip tiles may unpack to.
    """
    header = table.header
    method = str(header.get("ZCMPTYPE", "")).strip()
    for i in range(1, 10):
        if str(header.get(f"ZNAME{i}", "")).strip() == "BYTEPIX" and header.get(f"ZVAL{i}") not in (
            1,
            2,
            4,
            8,
        ):
            raise ReadError(f"damaged FITS: pixels of {header.get(f'ZVAL{i}')} bytes")
    shapes = _tile_shapes(header)
    for name in table.columns.names:
        if not name.endswith("COMPRESSED_DATA"):
            continue
        for tile in table.data[name]:
            raw = np.ascontiguousarray(tile)
            stream = raw.tobytes()
            size = next(shapes, 0) if name == "COMPRESSED_DATA" else 0
            if stream[:2] == b"\x1f\x8b":
                limit -= len(gunzip(stream, limit))
            elif method.startswith("HCOMPRESS") and stream:
                claimed = int.from_bytes(stream[2:6], "big") * int.from_bytes(stream[6:10], "big")
                if claimed != size or len(stream) < _HCOMPRESS_HEADER:
                    raise ReadError(f"damaged FITS: a tile of {size} pixels claims {claimed}")
            elif method.startswith("PLIO") and stream:
                words = np.frombuffer(stream, raw.dtype if raw.itemsize == 2 else ">i2").astype(np.int64)
                # Header of a pixel list, see IRAF's plio.x: lengths are in words of two bytes.
                if len(words) < 3 or (words[2] <= 0 and len(words) < 5):
                    raise ReadError("damaged FITS: a tile ends within its header")
                claimed = words[2] if words[2] > 0 else (words[4] << 15) + words[3]
                if not 0 <= claimed <= len(words):
                    raise ReadError(f"damaged FITS: a tile of {len(words)} words claims {claimed}")


def _tile_shapes(header: Mapping[str, Any]) -> Iterator[int]:
    """Pixels of each tile of a compressed image, in the order of the tiles."""
    axes = range(int(header.get("ZNAXIS", 0)), 0, -1)
    lengths = [int(header[f"ZNAXIS{i}"]) for i in axes]
    tiles = [int(header.get(f"ZTILE{i}", header["ZNAXIS1"] if i == 1 else 1)) for i in axes]
    if min(*tiles, *lengths, 1) < 1:
        raise ReadError(f"damaged FITS: tiles of {tiles} pixels in an image of {lengths}")
    counts = [-(-length // tile) for length, tile in zip(lengths, tiles, strict=True)]
    for index in np.ndindex(*counts):
        yield math.prod(
            min(tile, length - i * tile) for i, tile, length in zip(index, tiles, lengths, strict=True)
        )


def hdu_image(hdu: Hdu, mask: Hdu | None = None, psf: Hdu | None = None) -> Image | None:
    """The HDU as an `Image`, None where it holds no pixels."""
    if hdu.data is None or hdu.data.size == 0:
        return None
    scale, fwhm, matrix, arcsec = facts(hdu.keywords, hdu.comment)
    data = hdu.data
    while data.ndim > 2 and data.shape[0] == 1:
        data = data[0]
    if mask is not None and mask.data is not None:
        if data.nbytes > most_of_a_file():
            raise ReadError(
                f"{data.nbytes} bytes of pixels with a mask, which are masked in memory, are beyond the "
                f"limit of {most_of_a_file()}: raise TRANSIENTNET_MEMORY, or write the file in parts"
            )
        data = apply_mask(data, mask)
    return Image(data, scale, fwhm, matrix, arcsec, None if psf is None else psf.data)


def apply_mask(data: npt.NDArray[Any], mask: Hdu) -> npt.NDArray[Any]:
    """`data` with NaN where `mask` says bad; as it is when the mask has another shape."""
    if mask.data is None or mask.data.shape != data.shape:
        return data
    bad = bad_pixels(mask.data, mask.header)
    if not bad.any():
        return data
    whole = np.array(data, dtype=np.result_type(data.dtype.newbyteorder("="), np.float32))
    whole[bad] = np.nan
    return whole


def pick(hdus: Sequence[Hdu], kind: str, channel: str = "", version: int = 1) -> Hdu | None:
    """The mask or PSF that belongs to a stamp: by the channel in its name, else the one without."""
    found = [hdu for hdu in hdus if hdu.kind == kind and hdu.data is not None]
    of = {hdu.index: companion_of(hdu.name)[1] for hdu in found}
    mine = [hdu for hdu in found if of[hdu.index] == channel] or [
        hdu for hdu in found if of[hdu.index] is None
    ]
    return next((hdu for hdu in mine if hdu.version == version), mine[0] if len(mine) == 1 else None)


def first_image(hdus: Sequence[Hdu]) -> Image:
    """First image of one stamp's file (image, then perhaps mask, uncertainty and PSF).

    Raises
    ------
    ReadError
        No HDU holds a 2-D image.
    """
    for hdu in hdus:
        if hdu.kind in ("mask", "psf", "other") and hdu.index > 0:
            continue
        image = hdu_image(hdu, pick(hdus, "mask"), pick(hdus, "psf"))
        if image is not None and image.data.ndim == 2:
            return image
    raise ReadError("no HDU holds a 2-D image")


def header_values(hdus: Sequence[Hdu]) -> dict[str, Any]:
    """Keywords of all headers; the first HDU that has one counts."""
    values: dict[str, Any] = {}
    for hdu in reversed(hdus):
        values |= hdu.header
    return values


def load_image(path: str) -> tuple[Image | None, Mapping[str, Any]]:
    """The first image of a FITS file (mask applied) and its header values; None if it has no pixels.

    Raises
    ------
    ReadError
        The file is damaged or holds no 2-D image.
    """
    found = load_hdus(path)
    if isinstance(found, tuple):
        return found
    if all(hdu.data is None and hdu.rows is None for hdu in found):
        return None, header_values(found)
    try:
        return first_image(found), header_values(found)
    except ReadError as error:
        raise ReadError(f"{path}: {error}") from error


def is_mapped(path: str) -> bool:
    """Whether a FITS file is mapped into memory when it is read: it is not packed, and large."""
    if isinstance(path, Loaded) or os.path.getsize(path) <= most_of_a_file() // 2:
        return False
    with open(path, "rb") as file:
        return file.read(9) == b"SIMPLE  ="


def load_hdus(path: str) -> list[Hdu] | tuple[Image, Mapping[str, Any]]:
    """All HDUs, or at once the image of a plain file."""
    try:
        limit = most_of_a_file()
        if is_mapped(path):
            return read_hdus(path, limit)
        with open_file(path) as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise ReadError(f"{len(data)} bytes or more in memory are beyond the limit of {limit}")
        if data[:2] == GZIP:
            data = gunzip(data, limit)
        if data[:9] != b"SIMPLE  =":
            raise ReadError("not a FITS file")
        return plain_file(data) or read_hdus(data, limit)
    except ReadError as error:
        raise ReadError(f"{path}: {error}") from error
    except OSError as error:
        raise ReadError(f"{path}: {error.strerror or error}") from error
