"""Earlier detections, upper limits and forced photometry that an alert packet brings along.

Scoring needs none of them, so that `read` steps over them; the label page asks for those of one candidate.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ReadError, UsageError
from .layouts import Layout, load_layout, match_roles
from .sniff import sniff
from .vocabulary import normalise

__all__ = ["Measurement", "history"]

#: Names of lists of earlier measurements, and whether those are forced photometry; normalised.
_LISTS = {
    **dict.fromkeys(("prvcandidates", "prvdiasources"), False),
    **dict.fromkeys(("fphists", "prvdiaforcedsources", "prvdiaforcedsource"), True),
}
#: Names beside those of `vocabulary.ROLES`.
_ERRORS = ("sigmapsf", "sigpsf", "psfmagerr", "magerr", "forcediffimmagunc")
_LIMITS = ("diffmaglim", "limitingmag", "maglim")
_ZERO_POINTS = ("magzpsci",)
_MJD = 2400000.5
_DEPTH = 3
#: Forced fluxes above 3 sigma are detections, those below give 5 sigma limits (Masci et al. 2023, ZTF).
_DETECTION, _LIMIT = 3.0, 5.0
_FAINTEST = 40.0


class Measurement(NamedTuple):
    """One point of a light curve of the difference images.

    ``mjd`` in days; ``magnitude`` with its ``error``, or an upper ``limit``, in magnitudes; ``band``, empty
    where not given; ``fainter`` than the reference; from ``forced`` photometry; ``now``: the
    candidate itself.
    """

    mjd: float
    band: str
    magnitude: float | None
    error: float | None
    limit: float | None
    fainter: bool
    forced: bool
    now: bool


def history(
    path: str, number: int, layout: str | Path | Layout | None = None, survey: str = ""
) -> list[Measurement]:
    """The light curve in the packet of one candidate, oldest first; empty where the file has none.

    Parameters
    ----------
    path : str
        File of the candidate.
    number : int
        Its place among the candidates of the file, from 0.
    layout : str, path or Layout, optional
        The user's.
    survey : str
        The survey's name, where it is known: it names filters and zero points.

    Raises
    ------
    ReadError
        The file cannot be read, or has fewer candidates.
    """
    kind = sniff(path) if Path(path).is_file() else ""
    known = load_layout(layout)
    try:
        if kind == "parquet":
            record: Mapping[str, Any] = _module(kind).read_record(path, number)
        elif kind in ("avro", "json"):
            record = _module(kind).read_record(path, number, known)
        else:
            return []
    except ReadError:
        raise
    except Exception as error:
        raise ReadError(
            f"{path}: the light curve cannot be read ({type(error).__name__}: {error})"
        ) from error
    with suppress(UsageError):
        known = known if known.name or not survey else load_layout(survey)
    points = [_point(_flat(record), known, forced=False, now=True)]
    for name, values in _lists(record):
        forced = _LISTS[normalise(name)]
        points += [_point(_flat(one), known, forced, now=False) for one in values if isinstance(one, Mapping)]
    found = sorted((point for point in points if point is not None), key=lambda point: point.mjd)
    return found if len(found) > 1 else []


def _module(kind: str) -> Any:
    return importlib.import_module(f"{__package__}.{kind}")


def _lists(record: Mapping[str, Any], depth: int = 0) -> Iterator[tuple[str, list[Any]]]:
    for name, value in record.items():
        if normalise(name) in _LISTS and isinstance(value, list):
            yield name, value
        elif isinstance(value, Mapping) and depth < _DEPTH:
            yield from _lists(value, depth + 1)


def _flat(record: Mapping[str, Any], prefix: str = "", depth: int = 0) -> dict[str, Any]:
    """Numbers and texts of a record and of those within, by dotted name."""
    found: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, Mapping) and depth < _DEPTH:
            found |= _flat(value, f"{prefix}{name}.", depth + 1)
        elif isinstance(value, (str, int, float)):
            found[f"{prefix}{name}"] = value
    return found


def _point(values: Mapping[str, Any], layout: Layout, forced: bool, now: bool) -> Measurement | None:
    roles = match_roles(tuple(values), layout)

    def first(*names: str) -> Any:
        return next((values[name] for name in names if _sound(values[name])), None)

    def role(name: str) -> Any:
        return first(*roles.get(name, ()))

    def named(names: tuple[str, ...]) -> Any:
        return first(*(n for wanted in names for n in values if normalise(n.rpartition(".")[2]) == wanted))

    jd, mjd = role("jd"), role("mjd")
    time = mjd if mjd is not None else None if jd is None else jd - _MJD
    if time is None:
        return None
    magnitude, error, limit = role("magnitude"), named(_ERRORS), named(_LIMITS)
    flux, noise, zero_point = role("flux"), role("flux_error"), named(_ZERO_POINTS) or layout.zero_point
    if magnitude is None and flux is not None and noise and noise > 0 and zero_point:
        if abs(flux) >= _DETECTION * noise:
            magnitude, error = zero_point - 2.5 * math.log10(abs(flux)), 1.0857 * noise / abs(flux)
        else:
            limit = zero_point - 2.5 * math.log10(_LIMIT * noise)
    if magnitude is not None:
        limit = None
    if not any(value is not None and 0 < value < _FAINTEST for value in (magnitude, limit)):
        return None
    band, positive = role("band"), role("is_positive")
    below = (flux or 0) < 0 if positive is None else str(positive).lower() in ("f", "0", "false", "-1")
    name = "" if band is None else layout.bands.get(str(band), str(band))
    return Measurement(
        float(time), name, magnitude, error, limit, magnitude is not None and below, forced, now
    )


def _sound(value: Any) -> bool:
    """Whether a value is given: no null, NaN, or the -99, -999, -99999 that stand for it."""
    if isinstance(value, str):
        return value != ""
    return (
        math.isfinite(value)
        and abs(value) < 1e30
        and not (value <= -99 and set(str(int(value))) == {"-", "9"})
    )
