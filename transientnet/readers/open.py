"""Readers: any source of candidates in, `Triplet` objects out.

A source takes four steps: `sources` and `grouping` find its files and which of them are the stamps of one
candidate, `sniff` recognises each by its content, the module of its format decodes it, and `candidate` puts
stamps and scalars together. Names are understood through `vocabulary` and `layouts`, headers through `image`.
What the user gives, and what a survey is known for, is filled in here.
"""

from __future__ import annotations

import glob
import importlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ReadError, TransientnetError, UsageError
from ..files.paths import stem
from ..triplet import Triplet
from .grouping import group_files
from .image import seeing_px
from .layouts import Layout, load_layout
from .sniff import Loaded, read_file
from .sources import StampFiles, expand

__all__ = [
    "Input",
    "Reading",
    "decode_packet",
    "find_inputs",
    "open_triplets",
    "paths_of",
    "read",
]

Input = str | StampFiles
"""One file, or the files of one candidate."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How a source is read: the parameters of `open_triplets`, which raises the same errors.

    Parameters
    ----------
    layout, pixel_scale, fwhm
        As in `open_triplets`.
    """

    layout: str | Path | Layout | None = None
    pixel_scale: Any = None
    fwhm: Any = None
    #: Whether `fwhm` is in arcseconds.
    fwhm_is_angle: bool = False

    def __post_init__(self) -> None:
        scale, _ = _values("pixel_scale", self.pixel_scale, ("arcsec / pix", "arcsec"))
        fwhm, unit = _values("fwhm", self.fwhm, ("pix", "arcsec"))
        object.__setattr__(self, "pixel_scale", scale)
        object.__setattr__(self, "fwhm", fwhm)
        object.__setattr__(self, "fwhm_is_angle", self.fwhm_is_angle or unit == "arcsec")

    def inputs(self, source: Any) -> list[Input] | None:
        """The inputs of a source of files; None if it is in memory, or read in one sequence.

        A sequence it is where pixel scale or FWHM are given for each candidate.
        """
        whole = isinstance(self.pixel_scale, tuple) or isinstance(self.fwhm, tuple)
        return None if whole or not _is_paths(source) else find_inputs(source, self.layout)

    def open(self, source: Any) -> Iterator[Triplet]:
        """Triplets of any source; see `open_triplets`."""
        layout = load_layout(self.layout)
        if isinstance(source, (str, os.PathLike)):
            _check_exists(source)
        return self._completed(_open(source, layout), layout)

    def read(self, item: Input) -> Iterator[Triplet]:
        """Triplets of one of the inputs that `find_inputs` lists."""
        layout = load_layout(self.layout)
        return self._completed(_read_found(item, layout), layout)

    def _completed(self, triplets: Iterable[Triplet], layout: Layout) -> Iterator[Triplet]:
        number = -1
        for number, triplet in enumerate(triplets):
            scale = _nth("pixel_scale", self.pixel_scale, number)
            fwhm = _nth("fwhm", self.fwhm, number)
            if triplet.error is None:
                yield _complete(triplet, layout, scale, fwhm, self.fwhm_is_angle)
            else:
                # The row has its source beside it.
                error = triplet.error.removeprefix(f"{triplet.source}: ")
                yield replace(triplet, meta={**triplet.meta, "error": error})
        for name, value in (("pixel_scale", self.pixel_scale), ("fwhm", self.fwhm)):
            if isinstance(value, tuple) and len(value) != number + 1:
                raise UsageError(f"{name} has {len(value)} values for {number + 1} candidates")


def _complete(
    triplet: Triplet, layout: Layout, scale: float | None, fwhm: float | None, is_angle: bool
) -> Triplet:
    """Fill in pixel scale and seeing: the user's, else the file's, else the layout's."""
    meta = triplet.meta
    values: dict[str, Any] = {}
    notes: dict[str, str] = {}
    arcsec = meta.get("fwhm_arcsec")
    if fwhm is not None and is_angle:
        known = scale or triplet.pixel_scale or layout.pixel_scale
        if known is None:
            where = triplet.source or triplet.id
            raise UsageError(f"{where}: fwhm is an angle, and no pixel scale is known: give one")
        fwhm /= known
    for name, given in (("pixel_scale", scale), ("fwhm", fwhm)):
        usual = getattr(layout, name)
        if given is not None:
            values[name], notes[f"{name}_from"] = given, "user"
        elif name == "fwhm" and arcsec and "pixel_scale" in values and meta.get("fwhm_from") != "user":
            # The better pixel scale converts the header's arcseconds.
            converted = seeing_px(arcsec, values["pixel_scale"])
            if converted is not None:
                values[name], notes["fwhm_from"] = converted, "file"
        elif getattr(triplet, name) is not None:
            if f"{name}_from" not in meta:
                notes[f"{name}_from"] = "file"
        elif usual is not None:
            values[name], notes[f"{name}_from"] = usual, "layout"
    if layout.name and "survey" not in meta:
        notes["survey"] = layout.name
    return replace(triplet, meta={**meta, **notes}, **values) if notes else triplet


def open_triplets(
    source: Any,
    *,
    layout: str | Path | Layout | None = None,
    pixel_scale: Any = None,
    fwhm: Any = None,
) -> Iterator[Triplet]:
    """Read candidates from anything that holds them, one at a time.

    Parameters
    ----------
    source : path, list of paths, glob, directory, ndarray, HDUList, file, bytes, Triplet or iterable
        Files are recognised by content. Folders are searched to the bottom, sorted by name. A table with
        the columns ``science``, ``reference``, ``difference`` names the files of a candidate per row; tables
        in folders are left alone. Arrays are
        ``(3, H, W)`` or ``(N, 3, H, W)``: science, reference, difference; channels may be last where that
        is clear from the shape. Stamps may also be `NDData`, `CCDData` or `Cutout2D` objects, three in a
        row or named in a mapping. Bytes, or what an open binary file holds, may be an alert packet.
    layout : str, path or Layout, optional
        A survey's name, a TOML file, or a `Layout`: how the source names its stamps. By default the survey
        is recognised.
    pixel_scale : float, Quantity, or sequence of N, optional
        Arcseconds per pixel; a Quantity may be any angle, or angle per pixel. A sequence has a value for each
        candidate. It outranks the source's own, and converts a seeing that the source gives in arcseconds.
    fwhm : float, Quantity, or sequence of N, optional
        Seeing in pixels; a Quantity may be an angle too, which the pixel scale converts.

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
        The layout or source makes no sense, or pixel scale or FWHM is not positive or has another unit.
    """
    return Reading(layout, pixel_scale, fwhm).open(source)


def find_inputs(
    source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    layout: str | Path | Layout | None = None,
) -> list[Input]:
    """The inputs that paths, globs and folders mean, in order; files of one candidate are one input.

    Raises
    ------
    EmptyInputError
        A folder or glob holds nothing to read.
    ReadError
        The one path named does not exist.
    UsageError
        The layout makes no sense.
    """
    if isinstance(source, (str, os.PathLike)):
        _check_exists(source)
    return list(group_files(expand(_paths(source)), load_layout(layout)))


def paths_of(item: Input) -> list[str]:
    """Every file of an input."""
    return [item] if isinstance(item, str) else list(item.paths.values())


def read(item: Input, reading: Reading) -> Iterator[Triplet]:
    """Candidates of one input; what cannot be read as a whole is one unreadable candidate."""
    try:
        yield from reading.read(item)
    except UsageError:
        raise
    except (TransientnetError, OSError, MemoryError) as error:
        # The file has gone, or changed its nature, since it was listed; or it is too large for this machine.
        first, reason = paths_of(item)[0], str(error) or "it asks for more memory than there is"
        yield Triplet.unreadable(stem(Path(first)), first, reason)


def decode_packet(data: bytes, source: str, layout: Layout) -> Iterator[Triplet]:
    """Candidates of one packet in memory, Avro or JSON, as a broker delivers it; unreadable if damaged."""
    packet = Loaded.of(source, data)
    try:
        yield from _module("json" if data[:1] == b"{" else "avro").read(packet, layout)
    except ReadError as error:
        yield Triplet.unreadable(source, source, str(error))


def _check_exists(path: str | os.PathLike[str]) -> None:
    if not os.path.lexists(path) and not glob.has_magic(os.fspath(path)):
        raise ReadError(f"{os.fspath(path)}: no such file or folder")


def _open(source: Any, layout: Layout, row: int = 0) -> Iterator[Triplet]:
    if isinstance(source, Triplet):
        yield source
    elif isinstance(source, (bytes, bytearray, memoryview)):
        yield from _read_found(Loaded.of("memory", bytes(source)), layout)
    elif callable(getattr(source, "read", None)) and not hasattr(source, "shape"):
        yield from _read_found(_content(source), layout)
    elif isinstance(source, StampFiles):
        yield from _read_found(source, layout)
    elif _is_paths(source):
        for item in group_files(expand(_paths(source)), layout):
            yield from _read_found(item, layout)
    elif hasattr(source, "index_of") and hasattr(source, "writeto"):
        yield from _read_hdulist(source, layout)
    elif _module("arrays").in_memory(source):
        yield from _module("arrays").from_memory(source, layout, start=row)
    else:
        for item in source:
            for triplet in _open(item, layout, row):
                row += 1
                yield triplet


def _content(file: Any) -> Loaded:
    """The bytes of a file that is open already, under its name if it has one."""
    data, name = file.read(), getattr(file, "name", None)
    if not isinstance(data, bytes):
        raise UsageError(f"{name or file} is open as text: open it in binary mode ('rb')")
    return Loaded.of(name if isinstance(name, str) else "memory", data)


def _read_hdulist(opened: Any, layout: Layout) -> Iterator[Triplet]:
    """Candidates of an `astropy.io.fits.HDUList`."""
    name = opened.filename() or "memory"
    try:
        yield from _module("fits").read_hdulist(name, _module("hdus").opened_hdus(opened), layout)
    except ReadError as error:
        yield Triplet.unreadable(stem(name), name, str(error))


def _is_paths(source: Any) -> bool:
    if isinstance(source, (list, tuple)):
        return all(isinstance(item, (str, os.PathLike)) for item in source)
    return isinstance(source, (str, os.PathLike))


def _paths(source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[str]:
    return [os.fspath(path) for path in ([source] if isinstance(source, (str, os.PathLike)) else source)]


def _read_found(found: Input, layout: Layout) -> Iterator[Triplet]:
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


def _values(name: str, value: Any, units: tuple[str, ...]) -> tuple[Any, str]:
    """A number or a tuple of them, in the first of the units that the value has."""
    unit = units[0]
    if value is None:
        return None, unit
    if hasattr(value, "unit"):
        value, unit = _converted(name, value, units)
    try:
        numbers = np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name} is {value!r}: it must be a number, or one for each candidate") from error
    if numbers.ndim > 1 or not (np.isfinite(numbers) & (numbers > 0)).all():
        raise UsageError(f"{name} is {value}: it must be a positive number, or one for each candidate")
    return (float(numbers) if numbers.ndim == 0 else tuple(numbers.tolist())), unit


def _converted(name: str, value: Any, units: tuple[str, ...]) -> tuple[Any, str]:
    from astropy.units import Quantity, UnitConversionError

    for unit in units:
        try:
            return Quantity(value).to_value(unit), unit
        except UnitConversionError:
            continue
    raise UsageError(f"{name} has the unit {value.unit}: it must be {' or '.join(units)}")


def _nth(name: str, value: Any, number: int) -> float | None:
    if not isinstance(value, tuple):
        return None if value is None else float(value)
    if number >= len(value):
        raise UsageError(f"{name} has {len(value)} values for more candidates than that")
    return float(value[number])
