"""Layouts: what one survey, or one user, calls and how it samples its stamps.

The table of known surveys (``surveys.toml``) is written in the form that a user writes for
``--layout my.toml``. Names that a `Layout` lists go before the words of the field (`vocabulary`).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..triplet import CHANNELS
from .vocabulary import ROLES, WORD, channel_of, is_companion, last_channel_of, listed, weak_channel_of

__all__ = [
    "GENERIC",
    "Layout",
    "combined",
    "load_layout",
    "match_channels",
    "match_role",
    "match_roles",
    "recognise",
    "surveys",
]


@dataclass(frozen=True, kw_only=True, eq=False)
class Layout:
    """How a survey names and samples its stamps.

    Parameters
    ----------
    name : str
        The survey, as shown to the user; empty for the generic layout.
    recognise : tuple of str
        Regular expressions; one that matches an Avro schema name, a publisher, an object name or an
        instrument in a header recognises the survey.
    fields : mapping of str to tuple of str
        Names of ``science``, ``reference``, ``difference``, ``id``, ``group``, ``ra``, ``dec``, ``jd``,
        ``mjd``, ``magnitude``, ``flux``, ``flux_error``, ``snr``, ``band``, ``is_positive``,
        ``is_negative``, ``x``, ``y`` (on the chip, 1-based), ``edge_distance``, ``pixel_scale``, ``fwhm``
        (px), ``fwhm_arcsec``, ``source_fwhm`` (of the candidate, not the seeing) or ``survey``,
        before the generic ones. Case and punctuation do not count; ``candidate.ra`` names a field of a
        nested record, a number an HDU.
    order : tuple of str
        Channels of a cube, of a stack, and of stamps that have no names.
    packet_order : tuple of str
        Order of the cutouts in a packet that comes without its schema.
    pixel_scale : float or None
        arcsec per pixel, where the file has none.
    fwhm : float or None
        Typical seeing FWHM in pixels, where the file has none.
    stamp_size : int or None
        Width of a whole stamp in pixels; what is missing was cut off at the edge of the chip. Image files
        larger than this, and of 256 pixels or more, are full frames.
    bands : mapping of str to str
        Names of numbered filters.
    zero_point : float or None
        Magnitude of a flux of one, where packets have fluxes and no magnitudes.
    schema : str or None
        Path of an Avro schema (``.avsc``) for packets that come without one; types that it does not
        define are looked up in files of their name beside it.
    sources : str
        Where the numbers come from.
    """

    name: str = ""
    recognise: tuple[str, ...] = ()
    fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    order: tuple[str, ...] = CHANNELS
    packet_order: tuple[str, ...] = CHANNELS
    pixel_scale: float | None = None
    fwhm: float | None = None
    stamp_size: int | None = None
    bands: Mapping[str, str] = field(default_factory=dict)
    zero_point: float | None = None
    schema: str | None = None
    sources: str = ""

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], where: str = "layout") -> Layout:
        """Build from parsed TOML; unknown keys and roles are errors, so that a typo is not ignored."""
        known = {f.name for f in fields(cls)}
        roles = {*CHANNELS, *ROLES}
        values = dict(values)
        named = values.pop("fields", {})
        for bad, allowed in ((set(values) - known, known), (set(named) - roles, roles)):
            if bad:
                raise UsageError(f"{where}: unknown {sorted(bad)}; known are {sorted(allowed)}")
        try:
            for key in ("recognise", "order", "packet_order"):
                if key in values:
                    values[key] = _strings(values[key])
            for key in ("pixel_scale", "fwhm", "zero_point"):
                if values.get(key) is not None:
                    values[key] = float(values[key])
            aliases = {role: _strings(names) for role, names in named.items()}
            for key in ("order", "packet_order"):
                if not set(values.get(key, ())) <= set(CHANNELS):
                    raise ValueError(f"{key} names {values[key]}, channels are {CHANNELS}")
            for pattern in values.get("recognise", ()):
                re.compile(pattern)
            values["bands"] = {str(k): str(v) for k, v in values.get("bands", {}).items()}
        except (TypeError, ValueError, AttributeError, re.error) as error:
            raise UsageError(f"{where}: {error}") from error
        return cls(fields=aliases, **values)


def _strings(value: Any) -> tuple[str, ...]:
    if isinstance(value, (str, int)):
        return (str(value),)
    return tuple(str(item) for item in value)


GENERIC = Layout()
"""The layout of an unknown survey: the field's own words, no assumed numbers."""


@lru_cache(maxsize=1)
def surveys() -> tuple[Layout, ...]:
    """The surveys that are known by name, from ``surveys.toml``."""
    text = resources.files(__package__).joinpath("surveys.toml").read_text(encoding="utf-8")
    return tuple(
        Layout.from_mapping({"name": name, **values}, where=f"surveys.toml [{name}]")
        for name, values in tomllib.loads(text).items()
    )


def load_layout(layout: str | Path | Layout | None) -> Layout:
    """Layout of a survey name, of a TOML file, or as it is; None is the generic one.

    Raises
    ------
    UsageError
        No survey has that name and no such file exists, or the file is not a layout.
    """
    if layout is None:
        return GENERIC
    if isinstance(layout, Layout):
        return layout
    for survey in surveys():
        if survey.name.lower() == str(layout).lower():
            return survey
    path = Path(layout)
    try:
        state = path.stat()
        return _load_layout(path, state.st_mtime_ns, state.st_size)
    except OSError as error:
        names = ", ".join(survey.name for survey in surveys())
        raise UsageError(
            f"layout {layout!s}: neither a known survey ({names}) nor a readable file"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"layout {path}: not valid TOML: {error}") from error


@lru_cache(maxsize=8)
def _load_layout(path: Path, changed: int, size: int) -> Layout:
    """The layout of a file, cached for as long as its date and size stay the same."""
    values = tomllib.loads(path.read_text(encoding="utf-8"))
    loaded = Layout.from_mapping(values, where=f"layout {path}")
    if loaded.schema is not None:
        loaded = replace(loaded, schema=str(path.parent / loaded.schema))
    return loaded


def recognise(texts: Iterable[str]) -> Layout | None:
    """The survey that one of `texts` (schema name, publisher, object, instrument) names, or None."""
    return _recognise(tuple(dict.fromkeys(text for text in texts if text)))


@lru_cache(maxsize=4096)
def _recognise(texts: tuple[str, ...]) -> Layout | None:
    for text in texts:
        for survey in surveys():
            if any(re.search(pattern, text, re.IGNORECASE) for pattern in survey.recognise):
                return survey
    return None


def _innermost(name: str) -> str:
    """The part of a nested name that counts, whatever the record around it is called."""
    return name.rpartition(".")[2]


def _channel_of_last(name: str) -> str | None:
    return channel_of(_innermost(name))


@lru_cache(maxsize=16384)
def _channel_among_others(name: str) -> str | None:
    """Channel of a name with further words: the last one named, ``goodSeeingDiff_templateExp``."""
    words = WORD.findall(name)
    if any(is_companion(word) for word in words):
        return None
    return next((channel for word in reversed(words) if (channel := channel_of(word)) is not None), None)


def match_channels(names: Sequence[str], layout: Layout = GENERIC) -> dict[str, str]:
    """Which of `names` hold the stamps: ``{"science": "SCI", …}``, only for channels that were found.

    Parameters
    ----------
    names : sequence of str
        Names of fields, extensions, columns, data sets. Those of nested records are written with dots,
        ``cutoutScience.stampData``.
    layout : Layout
        Its names go before the words of the field.
    """
    found: dict[str, str] = {}
    for channel in CHANNELS:
        first = next(listed(names, layout.fields.get(channel, ())), None)
        if first is not None:
            found[channel] = first
    for understand in (channel_of, weak_channel_of, _channel_of_last):
        if understand is _channel_of_last and "science" in found:
            continue
        for name in names:
            heard = understand(name)
            if heard is not None and heard not in found and name not in found.values():
                found[heard] = name
    for understand in (last_channel_of, _channel_among_others):
        further: dict[str, list[str]] = {}
        for name in names:
            heard = understand(_innermost(name))
            if heard is not None and heard not in found and name not in found.values():
                further.setdefault(heard, []).append(name)
        # SCI_1 and SCI_2 are of several candidates.
        clear = understand is last_channel_of or all(len(named) == 1 for named in further.values())
        if clear and {*found, *further}.issuperset(CHANNELS):
            found |= {channel: named[0] for channel, named in further.items()}
    return {channel: found[channel] for channel in CHANNELS if channel in found}


@lru_cache(maxsize=256)
def match_roles(names: tuple[str, ...], layout: Layout = GENERIC) -> dict[str, list[str]]:
    """`match_role` of every role that one of `names` plays."""
    return {role: found for role in ROLES if (found := match_role(names, role, layout))}


@lru_cache(maxsize=256)
def combined(layout: Layout, survey: Layout) -> Layout:
    """`survey` with the names that `layout` lists before its own."""
    roles = {*layout.fields, *survey.fields}
    names = {role: (*layout.fields.get(role, ()), *survey.fields.get(role, ())) for role in roles}
    return replace(survey, fields=names)


def match_role(names: Sequence[str], role: str, layout: Layout = GENERIC) -> list[str]:
    """Which of `names` play `role` (a key of `Layout.fields`), best first: a value may be null."""
    return list(listed(names, (*layout.fields.get(role, ()), *ROLES.get(role, ()))))
