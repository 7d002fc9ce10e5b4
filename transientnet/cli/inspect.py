"""``transientnet inspect``: what a file holds, and what is known about it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..triplet import Triplet

__all__ = ["inspect"]


def inspect(
    files: Annotated[list[str], typer.Argument(help="FITS, Avro, Parquet, npy… files, globs or folders.")],
    layout: Annotated[str | None, typer.Option(help="Survey name, or a TOML file with field names.")] = None,
    pixel_scale: Annotated[
        float | None, typer.Option(help="arcsec per pixel, if the files have none.")
    ] = None,
    fwhm: Annotated[float | None, typer.Option(help="Seeing in pixels, if the files have none.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a candidate.")] = False,
) -> None:
    """Show survey, format, stamps, pixel scale and FWHM of every candidate, and what is missing."""
    from ..errors import EmptyInputError
    from ..readers.open import open_triplets

    triplets = open_triplets(files, layout=layout, pixel_scale=pixel_scale, fwhm=fwhm)
    readable = False
    if as_json:
        for row in map(_describe, triplets):
            readable |= row["error"] is None
            typer.echo(json.dumps(row))
    else:
        for source, rows in groupby(map(_describe, triplets), key=lambda row: row["source"]):
            lines = list(rows)
            readable |= any(row["error"] is None for row in lines)
            _print(source, lines)
    if not readable:
        raise EmptyInputError("none of the candidates could be read")


def _describe(triplet: Triplet) -> dict[str, Any]:
    """What is known of one candidate; numbers that were estimated or assumed say so."""
    import numpy as np

    from ..errors import ReadError
    from ..prepare.preprocess import estimate_fwhm
    from ..readers.sniff import sniff
    from ..triplet import CHANNELS

    try:
        kind = sniff(triplet.source)
    except ReadError:
        kind = None
    row: dict[str, Any] = {
        "source": triplet.source,
        "format": kind,
        "survey": triplet.meta.get("survey"),
        "id": triplet.id,
        "group": triplet.group,
        "error": triplet.error,
    }
    if triplet.error is not None:
        return row
    for channel, stamp in zip(CHANNELS, triplet.stamps, strict=True):
        if stamp is None:
            row[channel] = None
            continue
        lost = int(np.count_nonzero(~np.isfinite(stamp))) if stamp.dtype.kind == "f" else 0
        row[channel] = {"shape": list(stamp.shape), "dtype": stamp.dtype.name, "nan": lost}
    width, known = triplet.fwhm, triplet.meta.get("fwhm_from")
    if width is None:
        width = estimate_fwhm(triplet.science)
        width, known = (width, "estimated") if math.isfinite(width) else (None, None)
    row |= {
        "pixel_scale": triplet.pixel_scale,
        "pixel_scale_from": triplet.meta.get("pixel_scale_from"),
        "fwhm": width,
        "fwhm_from": known,
        "is_positive": triplet.meta.get("is_positive"),
        "truncated": bool(triplet.meta.get("truncated", False)),
    }
    return row


#: How a number came to be known, in the words of the output.
_ORIGINS = {
    "user": "given",
    "file": "from the file",
    "layout": "assumed, from the layout",
    "survey": "assumed for the survey",
    "estimated": "estimated from the stamp",
}


def _print(source: str, rows: list[dict[str, Any]]) -> None:
    from ..results.columns import plural

    first = next((row for row in rows if row["error"] is None), rows[0])
    typer.echo(
        f"{source}: {first['format'] or 'unknown format'}, {first['survey'] or 'survey not recognised'}, "
        f"{plural(len(rows), 'candidate')}"
    )
    for row in rows:
        typer.echo(f"  {row['id']}: {'; '.join(_facts(row))}")


def _facts(row: dict[str, Any]) -> Iterator[str]:
    from ..triplet import CHANNELS

    if row["error"] is not None:
        yield f"unreadable: {row['error']}"
        return
    yield from _stamps({channel: row[channel] for channel in CHANNELS}.items())
    for name, label, unit in (("pixel_scale", "pixel scale", "arcsec/px"), ("fwhm", "FWHM", "px")):
        value = row[name]
        origin = _ORIGINS.get(row[f"{name}_from"], "from the file")
        yield f"{label} unknown" if value is None else f"{label} {value:.4g} {unit} ({origin})"
    if row["is_positive"] is not None:
        yield "positive" if row["is_positive"] else "negative detection"
    if row["truncated"]:
        yield "cut at a chip edge, target off centre by an unknown amount"


def _stamps(stamps: Iterable[tuple[str, dict[str, Any] | None]]) -> Iterator[str]:
    for channel, stamp in stamps:
        if stamp is None:
            yield f"no {channel}"
            continue
        text = f"{channel} {'x'.join(map(str, stamp['shape']))} {stamp['dtype']}"
        yield f"{text} ({stamp['nan']} NaN)" if stamp["nan"] else text
