"""How a source is read, and its inputs: the one listing and the one route from a source to triplets."""

from __future__ import annotations

import glob
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
from .open import open_found, open_triplets
from .sources import StampFiles, expand
from .surveys import load_layout

__all__ = ["Input", "Reading", "find_inputs", "paths_of", "read"]

Input = str | StampFiles
"""One file, or the files of one candidate."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How a source is read: what the user knows of it outranks what it says itself.

    Parameters
    ----------
    layout : str or None
        Survey name or path of a TOML file.
    pixel_scale : float, Quantity, sequence of N, or None
        Arcseconds per pixel; a Quantity may be any angle, or angle per pixel. A sequence has a value for each
        candidate of the source.
    fwhm : float, Quantity, sequence of N, or None
        Seeing in pixels; a Quantity may be an angle too, which the pixel scale converts.

    Raises
    ------
    UsageError
        A value is not positive, or has another unit.
    """

    layout: str | None = None
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

    @property
    def per_candidate(self) -> bool:
        """Whether a value belongs to a certain candidate, so that all are read in one sequence."""
        return isinstance(self.pixel_scale, tuple) or isinstance(self.fwhm, tuple)

    def open(self, source: Any) -> Iterator[Triplet]:
        """Triplets of any source; see `open_triplets`."""
        return self._known(open_triplets(source, layout=self.layout, **self._plain()))

    def read(self, item: Input) -> Iterator[Triplet]:
        """Triplets of one of the inputs that `find_inputs` lists."""
        return self._known(open_found(item, layout=self.layout, **self._plain()))

    def _plain(self) -> dict[str, float | None]:
        """Values that hold for every candidate as they are."""
        fwhm = None if self.fwhm_is_angle or isinstance(self.fwhm, tuple) else self.fwhm
        return {
            "pixel_scale": None if isinstance(self.pixel_scale, tuple) else self.pixel_scale,
            "fwhm": fwhm,
        }

    def _known(self, triplets: Iterator[Triplet]) -> Iterator[Triplet]:
        if not self.per_candidate and not self.fwhm_is_angle:
            return triplets
        return self._filled(triplets)

    def _filled(self, triplets: Iterator[Triplet]) -> Iterator[Triplet]:
        count = -1
        for count, triplet in enumerate(triplets):
            scale, fwhm = _nth("pixel_scale", self.pixel_scale, count), _nth("fwhm", self.fwhm, count)
            if triplet.error is not None:
                yield triplet
                continue
            values: dict[str, Any] = {}
            meta = dict(triplet.meta)
            if scale is not None:
                values["pixel_scale"], meta["pixel_scale_from"] = scale, "user"
                if fwhm is None and (arcsec := meta.get("fwhm_arcsec")) and meta.get("fwhm_from") != "user":
                    values["fwhm"], meta["fwhm_from"] = arcsec / scale, "file"
            if fwhm is not None:
                if self.fwhm_is_angle:
                    known = scale or triplet.pixel_scale
                    if known is None:
                        where = triplet.source or triplet.id
                        raise UsageError(f"{where}: fwhm is an angle, and no pixel scale is known: give one")
                    fwhm /= known
                values["fwhm"], meta["fwhm_from"] = fwhm, "user"
            yield replace(triplet, meta=meta, **values)
        for name in ("pixel_scale", "fwhm"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != count + 1:
                raise UsageError(f"{name} has {len(value)} values for {count + 1} candidates")


def find_inputs(
    source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], layout: str | None = None
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
        if not os.path.lexists(source) and not glob.has_magic(os.fspath(source)):
            raise ReadError(f"{os.fspath(source)}: no such file or folder")
        source = [source]
    return list(group_files(expand([os.fspath(path) for path in source]), load_layout(layout)))


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
        first = paths_of(item)[0]
        yield Triplet.unreadable(
            stem(Path(first)), first, str(error) or "it asks for more memory than there is"
        )


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
