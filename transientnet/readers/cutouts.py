"""Write cut stamps so that `open_triplets` gives them back bit for bit: a FITS file each, or one stack."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..errors import EmptyInputError
from ..triplet import CHANNELS, Triplet
from .frames import stamp_origin

__all__ = ["write_fits", "write_npz"]

_BLOCK = 2880


def write_fits(triplets: Iterable[Triplet], folder: Path, *, wcs: Any = None) -> Iterator[Path]:
    """Write one multi-extension FITS file per candidate, named after its id.

    The extensions are SCIENCE, REFERENCE and DIFFERENCE, each with the frame's WCS moved to the stamp. The
    primary header has CANDID, OBJECTID (the group), PIXSCALE in arcsec/px, FWHMPX, RA and DEC, as far as
    they are known. A file appears whole or not at all, and no id leads out of `folder`.

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
    astrometry = _wcs_cards(wcs)
    taken: set[str] = set()
    for triplet in triplets:
        if triplet.error is not None:
            continue
        path = folder / f"{_file_name(triplet.id, taken)}.fits"
        with _atomic(path) as file:
            file.write(_header({"SIMPLE": True, "BITPIX": 8, "NAXIS": 0, "EXTEND": True, **_told(triplet)}))
            for channel, stamp in zip(CHANNELS, triplet.stamps, strict=True):
                if stamp is not None:
                    file.write(_image(channel, stamp, triplet, wcs, astrometry))
        yield path


def write_npz(triplets: Iterable[Triplet], path: Path) -> int:
    """Write all candidates into one ``.npz``: ``triplets`` (N, C, H, W), and id, group, ra… of length N.

    ``channels`` names the C channels. Stamps go to disk as they come: memory does not grow with N. The
    number of candidates written is returned; those that could not be cut are left out.

    Raises
    ------
    EmptyInputError
        There is no candidate to write.
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
            for name, value in (("id", triplet.id), ("group", triplet.group or ""), *_numbers(triplet)):
                columns.setdefault(name, []).append(value)
        if not shape:
            raise EmptyInputError(f"no candidate lies on the frames: {path} was not written")
        n = len(columns["id"])
        pixels.seek(0)
        with _atomic(path) as file, zipfile.ZipFile(file, "w") as archive:
            with archive.open("triplets.npy", "w", force_zip64=True) as member:
                described = np.lib.format.header_data_from_array_1_0(np.empty((0, *shape), dtype))
                np.lib.format.write_array_header_1_0(member, {**described, "shape": (n, *shape)})
                shutil.copyfileobj(pixels, member, 2**20)
            for name, values in {"channels": channels, **columns}.items():
                with archive.open(f"{name}.npy", "w") as member:
                    np.lib.format.write_array(member, np.array(values), allow_pickle=False)
    return n


def _numbers(triplet: Triplet) -> Iterator[tuple[str, float]]:
    """What is known in numbers, under the names that the readers look for; NaN where it is not known."""
    for name, value in (
        ("pixel_scale", triplet.pixel_scale),
        ("fwhm_px", triplet.fwhm),
        ("ra", triplet.meta.get("ra")),
        ("dec", triplet.meta.get("dec")),
    ):
        yield name, np.nan if value is None else float(value)


def _told(triplet: Triplet) -> dict[str, Any]:
    keywords = {"pixel_scale": "PIXSCALE", "fwhm_px": "FWHMPX", "ra": "RA", "dec": "DEC"}
    numbers = {keywords[name]: value for name, value in _numbers(triplet) if np.isfinite(value)}
    group = {} if triplet.group is None else {"OBJECTID": triplet.group}
    return {"CANDID": triplet.id, **group, **numbers}


def _wcs_cards(wcs: Any) -> dict[str, Any]:
    """Keywords of a WCS but the reference pixel, which each stamp has for itself."""
    if wcs is None:
        return {}
    header = wcs.to_header(relax=True)
    return {key: header[key] for key in header if key not in ("CRPIX1", "CRPIX2", "COMMENT", "")}


def _image(channel: str, stamp: Any, triplet: Triplet, wcs: Any, astrometry: Mapping[str, Any]) -> bytes:
    data = np.ascontiguousarray(stamp, stamp.dtype.newbyteorder(">"))
    height, width = data.shape
    cards = {
        "XTENSION": "IMAGE",
        "BITPIX": (-8 if data.dtype.kind == "f" else 8) * data.dtype.itemsize,
        "NAXIS": 2,
        "NAXIS1": width,
        "NAXIS2": height,
        "PCOUNT": 0,
        "GCOUNT": 1,
        "EXTNAME": channel.upper(),
        **astrometry,
    }
    if wcs is not None:
        corner = [stamp_origin(np.array([triplet.meta[axis]]), width)[0] for axis in ("x", "y")]
        cards |= {f"CRPIX{i + 1}": float(wcs.wcs.crpix[i] - corner[i]) for i in (0, 1)}
    return _header(cards) + data.tobytes().ljust(-(-data.nbytes // _BLOCK) * _BLOCK, b"\0")


def _header(cards: Mapping[str, Any]) -> bytes:
    from astropy.io.fits import Card

    values = {
        key: value.encode("ascii", "backslashreplace").decode() if isinstance(value, str) else value
        for key, value in cards.items()
    }
    text = "".join(Card(key, value).image for key, value in values.items()) + "END".ljust(80)
    return text.ljust(-(-len(text) // _BLOCK) * _BLOCK).encode("ascii")


def _file_name(id: str, taken: set[str]) -> str:
    """A name that stays in its folder, is no hidden file, and was not used yet on any file system."""
    plain = re.sub(r"[^A-Za-z0-9._+-]+", "_", id).strip("._-")[:120] or "candidate"
    name, number = plain, 1
    while name.lower() in taken:
        number += 1
        name = f"{plain}_{number}"
    taken.add(name.lower())
    return name


@contextmanager
def _atomic(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes its place when it is complete, and leaves nothing behind when it is not."""
    descriptor, partial = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
        # What mkstemp makes is readable by its owner alone; a product is for the team.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(partial, 0o666 & ~umask)
        os.replace(partial, path)
    except BaseException:
        os.unlink(partial)
        raise
