"""Write cut stamps so that `open_triplets` gives them back bit for bit: a FITS file each, or one stack."""

from __future__ import annotations

import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..files.atomic import replacing
from ..triplet import CHANNELS, Triplet
from .cut import stamp_origin

__all__ = ["write_fits", "write_npz"]

_BLOCK = 2880


def write_fits(triplets: Iterable[Triplet], folder: Path, *, wcs: Any = None) -> Iterator[Path]:
    """Write one multi-extension FITS file per candidate, named after its id.

    The extensions are SCIENCE, REFERENCE and DIFFERENCE, each with the frame's WCS moved to the stamp. The
    primary header has CANDID, OBJECTID (the group), PIXSCALE in arcsec/px, FWHMPX, RA and DEC as far as they
    are known, and the position on the frame, XPOS and YPOS, counted from 1. A file appears whole or not at
    all, and no id leads out of `folder`.

    Parameters
    ----------
    triplets : iterable of Triplet
        As `cut_triplets` yields them; those that could not be cut are left out.
    folder : Path
        Where to write; made if it is absent.
    wcs : astropy.wcs.WCS, optional
        Of the frame that the stamps were cut from.

    Yields
    ------
    Path
        Each file, once it is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    astrometry = _Astrometry(wcs)
    taken: set[str] = set()
    for triplet in triplets:
        if triplet.error is not None:
            continue
        path = folder / f"{_file_name(triplet.id, taken)}.fits"
        with replacing(path) as partial, open(partial, "wb") as file:
            primary = {"SIMPLE": True, "BITPIX": 8, "NAXIS": 0, "EXTEND": True, **_primary(triplet)}
            file.write(_header(_cards(primary)))
            for channel, stamp in zip(CHANNELS, triplet.stamps, strict=True):
                if stamp is not None:
                    file.write(_image(channel, stamp, triplet, astrometry))
        yield path


def write_npz(triplets: Iterable[Triplet], path: Path) -> int:
    """Write all candidates into one ``.npz``: ``triplets`` (N, C, H, W), and id, group, ra… of length N.

    ``channels`` names the C channels. Stamps go to disk as they come: memory does not grow with N. The
    number of candidates written is returned; those that could not be cut are left out. Without any, no file
    is written.
    """
    columns: dict[str, list[Any]] = {}
    shape: tuple[int, ...] = ()
    dtype = np.dtype(np.float32)
    channels: list[str] = []
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path.parent) as pixels:
        for triplet in triplets:
            if triplet.error is not None:
                continue
            stamps = [stamp for stamp in triplet.stamps if stamp is not None]
            if not shape:
                channels = [c for c, s in zip(CHANNELS, triplet.stamps, strict=True) if s is not None]
                dtype = np.result_type(*stamps)
                shape = (len(stamps), *triplet.science.shape)
            pixels.write(np.stack(stamps).astype(dtype).tobytes())
            for name, value in (
                ("id", triplet.id),
                ("group", triplet.group or ""),
                *_numbers(triplet).items(),
            ):
                columns.setdefault(name, []).append(value)
        if not shape:
            return 0
        n = len(columns["id"])
        pixels.seek(0)
        with replacing(path) as partial, zipfile.ZipFile(partial, "w") as archive:
            with archive.open("triplets.npy", "w", force_zip64=True) as member:
                described = np.lib.format.header_data_from_array_1_0(np.empty((0, *shape), dtype))
                np.lib.format.write_array_header_1_0(member, {**described, "shape": (n, *shape)})
                shutil.copyfileobj(pixels, member, 2**20)
            for name, values in {"channels": channels, **columns}.items():
                with archive.open(f"{name}.npy", "w") as member:
                    np.lib.format.write_array(member, np.array(values), allow_pickle=False)
    return n


#: Names that the readers look for, in an .npz and in a header: the FITS standard counts pixels from 1.
_NUMBERS = {
    "pixel_scale": "PIXSCALE",
    "fwhm_px": "FWHMPX",
    "ra": "RA",
    "dec": "DEC",
    "xpos": "XPOS",
    "ypos": "YPOS",
}


def _numbers(triplet: Triplet) -> dict[str, float]:
    """What is known in numbers, NaN where it is not known."""
    meta = triplet.meta
    known = (triplet.pixel_scale, triplet.fwhm, meta.get("ra"), meta.get("dec"), meta["x"] + 1, meta["y"] + 1)
    values = (np.nan if value is None else float(value) for value in known)
    return dict(zip(_NUMBERS, values, strict=True))


def _primary(triplet: Triplet) -> dict[str, Any]:
    """Cards of a primary header that say which candidate it is, and what is known of it."""
    numbers = {_NUMBERS[name]: value for name, value in _numbers(triplet).items() if np.isfinite(value)}
    group = {} if triplet.group is None else {"OBJECTID": triplet.group}
    return {"CANDID": triplet.id, **group, **numbers}


class _Astrometry:
    """The WCS of a frame as header cards, moved to one stamp after the other."""

    def __init__(self, wcs: Any) -> None:
        header = {} if wcs is None else wcs.to_header(relax=True)
        own = ("CRPIX1", "CRPIX2", "COMMENT", "")
        self._common = _cards({key: header[key] for key in header if key not in own})
        self._reference_pixel = None if wcs is None else wcs.wcs.crpix

    def cards(self, triplet: Triplet) -> str:
        if self._reference_pixel is None:
            return ""
        position = np.array([triplet.meta["x"], triplet.meta["y"]])
        moved = self._reference_pixel - stamp_origin(position, triplet.science.shape[1])
        return self._common + _cards({"CRPIX1": float(moved[0]), "CRPIX2": float(moved[1])})


def _image(channel: str, stamp: npt.NDArray[Any], triplet: Triplet, astrometry: _Astrometry) -> bytes:
    data = np.ascontiguousarray(stamp, stamp.dtype.newbyteorder(">"))
    height, width = data.shape
    structure = {
        "XTENSION": "IMAGE",
        "BITPIX": (-8 if data.dtype.kind == "f" else 8) * data.dtype.itemsize,
        "NAXIS": 2,
        "NAXIS1": width,
        "NAXIS2": height,
        "PCOUNT": 0,
        "GCOUNT": 1,
        "EXTNAME": channel.upper(),
    }
    return _header(_cards(structure) + astrometry.cards(triplet)) + _filled(data.tobytes(), b"\0")


def _cards(values: Mapping[str, Any]) -> str:
    from astropy.io.fits import Card

    cards = []
    for key, value in values.items():
        if isinstance(value, str):
            cards.append(Card(key, value.encode("ascii", "backslashreplace").decode()).image)
        else:
            number = value.item() if isinstance(value, np.generic) else value
            word = "T" if number is True else repr(number).upper()
            cards.append(f"{key:<8}= {word:>20}".ljust(80))
    return "".join(cards)


def _header(cards: str) -> bytes:
    return _filled((cards + "END".ljust(80)).encode("ascii"), b" ")


def _filled(content: bytes, filler: bytes) -> bytes:
    return content.ljust(-(-len(content) // _BLOCK) * _BLOCK, filler)


def _file_name(id: str, taken: set[str]) -> str:
    """A name that stays in its folder, is not hidden, and was not used yet on any file system."""
    plain = re.sub(r"[^A-Za-z0-9._+-]+", "_", id).strip("._-")[:120] or "candidate"
    name, number = plain, 1
    while name.lower() in taken:
        number += 1
        name = f"{plain}_{number}"
    taken.add(name.lower())
    return name
