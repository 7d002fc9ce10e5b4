"""Readers: any source of candidates in, `Triplet` objects out.

A source takes four steps: `sources` and `grouping` find its files and which of them are the stamps of one
candidate, `sniff` recognises each by its content, the module of its format decodes it, and `candidate` puts
stamps and scalars together. Names are understood through `surveys`, headers through `image`. What the user
says, and what a survey is known for, is filled in here.
"""

from __future__ import annotations

import glob
import importlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import ReadError, TransientnetError, UsageError
from ..files.paths import stem
from ..triplet import Triplet
from .grouping import group_files
from .sniff import Loaded, read_file
from .sources import StampFiles, expand
from .surveys import Layout, load_layout

__all__ = [
    "Layout",
    "Loaded",
    "StampFiles",
    "decode_packet",
    "load_layout",
    "open_found",
    "open_triplets",
]


def open_triplets(
    source: Any,
    *,
    layout: str | Path | Layout | None = None,
    pixel_scale: float | None = None,
    fwhm: float | None = None,
) -> Iterator[Triplet]:
    """Read candidates from anything that holds them, one at a time.

    Parameters
    ----------
    source : path, list of paths, glob, directory, ndarray, HDUList, bytes, Triplet, or iterable of these
        Files are recognised by content. Folders are searched to the bottom, sorted by name. A table with
        the columns ``science``, ``reference``, ``difference`` names the files of a candidate per row; tables
        in folders are left alone. Arrays are
        ``(3, H, W)`` or ``(N, 3, H, W)``: science, reference, difference; channels may be last where that
        is clear from the shape. Stamps may also be `NDData`, `CCDData` or `Cutout2D` objects, three in a
        row or named in a mapping. Bytes are those of a file: of an alert packet, for one.
    layout : str, path or Layout, optional
        A survey's name, a TOML file, or a `Layout`: how the source names its stamps. Found out if not
        given.
    pixel_scale, fwhm : float, optional
        arcsec per pixel, and seeing in pixels; they go before what the files say.

    Yields
    ------
    Triplet
        In the order of the source. A file or packet that cannot be read is a triplet with
        `Triplet.error` set, so that every candidate keeps its row.

    Raises
    ------
    EmptyInputError
        A folder or glob holds nothing to read.
    ReadError
        The only file named does not exist.
    UsageError
        The layout, pixel scale, FWHM or source makes no sense.
    """
    chosen = load_layout(layout)
    given = _given(pixel_scale, fwhm)
    if isinstance(source, (str, os.PathLike)) and not _exists(source):
        raise ReadError(f"{os.fspath(source)}: no such file or folder")
    return (_complete(triplet, chosen, given) for triplet in _open(source, chosen))


def open_found(
    found: str | StampFiles,
    *,
    layout: str | Path | Layout | None = None,
    pixel_scale: float | None = None,
    fwhm: float | None = None,
) -> Iterator[Triplet]:
    """As `open_triplets`, for one of the things that `expand` and `group_files` have found."""
    chosen = load_layout(layout)
    given = _given(pixel_scale, fwhm)
    return (_complete(triplet, chosen, given) for triplet in _read_found(found, chosen))


def decode_packet(data: bytes, source: str, layout: Layout) -> Iterator[Triplet]:
    """Candidates of one packet in memory, Avro or JSON, as a broker delivers it; unreadable if damaged."""
    packet = Loaded.of(source, data)
    try:
        yield from _module("json" if data[:1] == b"{" else "avro").read(packet, layout)
    except ReadError as error:
        yield Triplet.unreadable(source, source, str(error))


def _given(pixel_scale: float | None, fwhm: float | None) -> dict[str, float | None]:
    given = {"pixel_scale": pixel_scale, "fwhm": fwhm}
    for name, value in given.items():
        if value is not None and not 0 < value < float("inf"):
            raise UsageError(f"{name} is {value}: it must be a positive number")
    return given


def _exists(source: str | os.PathLike[str]) -> bool:
    return os.path.lexists(source) or glob.has_magic(os.fspath(source))


def _open(source: Any, layout: Layout, row: int = 0) -> Iterator[Triplet]:
    if isinstance(source, Triplet):
        yield source
    elif isinstance(source, (bytes, bytearray, memoryview)):
        yield from _read_found(Loaded.of("memory", bytes(source)), layout)
    elif isinstance(source, StampFiles):
        yield from _read_found(source, layout)
    elif isinstance(source, (str, os.PathLike)):
        yield from _read_files([source], layout)
    elif isinstance(source, (list, tuple)) and all(isinstance(s, (str, os.PathLike)) for s in source):
        yield from _read_files(source, layout)
    elif hasattr(source, "index_of") and hasattr(source, "writeto"):
        yield from _read_hdulist(source, layout)
    elif _module("arrays").in_memory(source):
        yield from _module("arrays").from_memory(source, layout, start=row)
    else:
        for item in source:
            for triplet in _open(item, layout, row):
                row += 1
                yield triplet


def _read_hdulist(opened: Any, layout: Layout) -> Iterator[Triplet]:
    """Candidates of an `astropy.io.fits.HDUList`."""
    name = opened.filename() or "memory"
    try:
        yield from _module("fits").read_hdulist(name, _module("hdus").opened_hdus(opened), layout)
    except ReadError as error:
        yield Triplet.unreadable(stem(name), name, str(error))


def _read_files(sources: Iterable[str | os.PathLike[str]], layout: Layout) -> Iterator[Triplet]:
    for found in group_files(expand([os.fspath(source) for source in sources]), layout):
        yield from _read_found(found, layout)


def _read_found(found: str | StampFiles, layout: Layout) -> Iterator[Triplet]:
    if isinstance(found, StampFiles):
        yield from _module("files").read_stamps(found, layout)
        return
    path = found
    try:
        yield from read_file(path, layout)
    except UsageError:
        raise
    except (TransientnetError, OSError) as error:
        yield Triplet.unreadable(stem(path), path, str(error))


def _module(name: str) -> Any:
    return importlib.import_module(f"{__package__}.{name}")


def _complete(triplet: Triplet, layout: Layout, given: dict[str, float | None]) -> Triplet:
    """Fill in pixel scale and FWHM: the user's word, else the file's, else the layout's."""
    if triplet.error is not None:
        # The row has its source beside it.
        error = triplet.error.removeprefix(f"{triplet.source}: ")
        return replace(triplet, meta={**triplet.meta, "error": error})
    values: dict[str, Any] = {}
    meta = dict(triplet.meta)
    for name, value in given.items():
        own, usual = getattr(triplet, name), getattr(layout, name)
        if value is not None:
            values[name], meta[f"{name}_from"] = float(value), "user"
        elif name == "fwhm" and (arcsec := meta.get("fwhm_arcsec")) and "pixel_scale" in values:
            # The pixel scale that is known better converts the header's arcseconds.
            values[name], meta[f"{name}_from"] = arcsec / values["pixel_scale"], "file"
        elif own is not None:
            meta.setdefault(f"{name}_from", "file")
        elif usual is not None:
            values[name], meta[f"{name}_from"] = usual, "layout"
    if layout.name:
        meta.setdefault("survey", layout.name)
    return triplet if not values and meta == triplet.meta else replace(triplet, meta=meta, **values)
