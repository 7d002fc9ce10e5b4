"""Line charts as inline SVG: sharp at any size, a few kB, with a text for those who cannot see them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

__all__ = ["COLOURS", "Dots", "Series", "chart", "dot_chart"]

COLOURS = ("#0072b2", "#d55e00", "#00795a", "#a1457c", "#8a6100", "#444444")
"""Told apart with any colour vision (after Okabe & Ito 2008, darkened for contrast on white)."""

_DASHES = ("", "7 3", "2 3", "9 3 2 3", "1 4", "12 4")
_WIDTH, _HEIGHT = 420, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 16, 12, 50


class Series(NamedTuple):
    """One line; `low` and `high` draw a band, or bars at the points where `points` is set."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    points: bool = False


class Dots(NamedTuple):
    """A row of a `dot_chart`: single measurements, and their mean or difference with its interval."""

    name: str
    dots: Sequence[float]
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan


def dot_chart(title: str, label: str, rows: Sequence[Dots], *, zero: bool = False, note: str = "") -> str:
    """Rows of dots and intervals over one axis.

    Parameters
    ----------
    title : str
    label : str
        What the axis shows, with its unit.
    rows : sequence of Dots
        From the top; NaN is left out.
    zero : bool
        Draw a line at zero, for differences.
    note : str
    """
    values = [v for row in rows for v in (*row.dots, row.value, row.low, row.high) if v == v]
    low, high = min([*values, 0.0] if zero else values), max([*values, 0.0] if zero else values)
    margin = 0.06 * (high - low) or 0.5
    x0, x1 = low - margin, high + margin
    left, step = 24 + 8 * max(len(row.name) for row in rows), 36
    floor = _TOP + step * len(rows)

    def at(x: float) -> float:
        return round(left + (x - x0) / (x1 - x0) * (_WIDTH - _RIGHT - left), 1)

    parts = []
    for x in _ticks(x0, x1):
        parts += [
            f'<line x1="{at(x)}" y1="{_TOP}" x2="{at(x)}" y2="{floor}" class="grid"/>',
            f'<text x="{at(x)}" y="{floor + 18}" text-anchor="middle">{x:.4g}</text>',
        ]
    if zero:
        parts.append(f'<line x1="{at(0)}" y1="{_TOP}" x2="{at(0)}" y2="{floor}" class="diagonal"/>')
    for k, row in enumerate(rows):
        colour, y = COLOURS[k % len(COLOURS)], _TOP + step * (k + 0.5)
        parts.append(f'<text x="{left - 10}" y="{y + 5}" text-anchor="end">{escape(row.name)}</text>')
        parts += [
            f'<circle cx="{at(x)}" cy="{y}" r="4" fill="{colour}" opacity="0.45"/>'
            for x in row.dots
            if x == x
        ]
        if row.low == row.low and row.high == row.high:
            parts.append(
                f'<line x1="{at(row.low)}" y1="{y}" x2="{at(row.high)}" y2="{y}" stroke="{colour}" '
                'stroke-width="2.5"/>'
            )
        if row.value == row.value:
            parts.append(
                f'<line x1="{at(row.value)}" y1="{y - 9}" x2="{at(row.value)}" y2="{y + 9}" '
                f'stroke="{colour}" stroke-width="3"/>'
            )
    parts.append(
        f'<text x="{(left + _WIDTH - _RIGHT) / 2}" y="{floor + 40}" text-anchor="middle" class="axis">'
        f"{escape(label)}</text>"
    )
    spoken = escape(f"{title}: {label} of {', '.join(row.name for row in rows)}", quote=True)
    return (
        f'<figure class="chart"><svg viewBox="0 0 {_WIDTH} {floor + 48}" role="img" aria-label="{spoken}">'
        f"{''.join(parts)}</svg><figcaption><strong>{escape(title)}</strong> {escape(note)}</figcaption>"
        "</figure>"
    )


def chart(
    title: str,
    x_label: str,
    y_label: str,
    series: Sequence[Series],
    *,
    x_range: tuple[float, float] = (0.0, 1.0),
    y_range: tuple[float, float] = (0.0, 1.0),
    diagonal: bool = False,
    x_log: bool = False,
    note: str = "",
) -> str:
    """A figure with its legend below; NaN points are left out.

    With `x_log` the x axis is logarithmic, `x_range` positive; points below it stand at its left end.
    """
    x0, x1 = x_range if x_range[1] > x_range[0] else (x_range[0] - 0.5, x_range[0] + 0.5)
    y0, y1 = y_range
    x_ticks = _decades(x0, x1) if x_log else _ticks(x0, x1)
    lowest = x0

    def scaled(x: float) -> float:
        return math.log10(max(x, lowest)) if x_log else x

    x0, x1 = scaled(x0), scaled(x1)

    def at(x: float, y: float) -> tuple[float, float]:
        across = _LEFT + (scaled(x) - x0) / (x1 - x0) * (_WIDTH - _LEFT - _RIGHT)
        down = _HEIGHT - _BOTTOM - (y - y0) / (y1 - y0) * (_HEIGHT - _TOP - _BOTTOM)
        return round(across, 1), round(down, 1)

    def path(points: Sequence[tuple[float, float]]) -> str:
        return " ".join(f"{across},{down}" for across, down in points)

    parts = []
    for x in x_ticks:
        across, floor = at(x, y0)
        parts += [
            f'<line x1="{across}" y1="{_TOP}" x2="{across}" y2="{floor}" class="grid"/>',
            f'<text x="{across}" y="{floor + 18}" text-anchor="middle">{x:.4g}</text>',
        ]
    for y in _ticks(y0, y1):
        left, down = at(lowest, y)
        parts += [
            f'<line x1="{left}" y1="{down}" x2="{_WIDTH - _RIGHT}" y2="{down}" class="grid"/>',
            f'<text x="{left - 7}" y="{down + 5}" text-anchor="end">{y:.4g}</text>',
        ]
    if diagonal:
        parts.append(
            f'<polyline points="{path([at(x_range[0], y0), at(x_range[1], y1)])}" class="diagonal"/>'
        )
    for k, line in enumerate(series):
        colour, dash = COLOURS[k % len(COLOURS)], _DASHES[k % len(_DASHES)]
        rows = [i for i, (x, y) in enumerate(zip(line.x, line.y, strict=True)) if x == x and y == y]
        points = [at(line.x[i], line.y[i]) for i in rows]
        if len(line.low) and line.points:
            for i in rows:
                (across, bottom), (_, top) = at(line.x[i], line.low[i]), at(line.x[i], line.high[i])
                parts.append(
                    f'<line x1="{across}" y1="{bottom}" x2="{across}" y2="{top}" stroke="{colour}" '
                    'stroke-width="1.5"/>'
                )
        elif len(line.low):
            there = [i for i in rows if line.low[i] == line.low[i]]
            edge = [at(line.x[i], line.high[i]) for i in there]
            edge += [at(line.x[i], line.low[i]) for i in reversed(there)]
            parts.append(f'<polygon points="{path(edge)}" fill="{colour}" opacity="0.16"/>')
        parts.append(
            f'<polyline points="{path(points)}" fill="none" stroke="{colour}" stroke-width="2.2" '
            f'stroke-dasharray="{dash}" stroke-linejoin="round"/>'
        )
        if line.points:
            parts += [f'<circle cx="{a}" cy="{d}" r="3.6" fill="{colour}"/>' for a, d in points]
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    parts += [
        f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 8}" text-anchor="middle" class="axis">'
        f"{escape(x_label)}</text>",
        f'<text transform="translate(15 {middle}) rotate(-90)" text-anchor="middle" class="axis">'
        f"{escape(y_label)}</text>",
    ]
    legend = "".join(
        f'<li><svg width="34" height="10" aria-hidden="true"><line x1="1" y1="5" x2="33" y2="5" '
        f'stroke="{COLOURS[k % len(COLOURS)]}" stroke-width="3" '
        f'stroke-dasharray="{_DASHES[k % len(_DASHES)]}"/></svg> {escape(line.name)}</li>'
        for k, line in enumerate(series)
    )
    label = escape(f"{title}: {y_label} against {x_label}", quote=True)
    return (
        f'<figure class="chart"><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg><figcaption><strong>{escape(title)}</strong> {escape(note)}"
        f'<ul class="legend">{legend}</ul></figcaption></figure>'
    )


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers within a range, about five."""
    size = 10.0 ** math.floor(math.log10((high - low) / 5))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor * 6 >= high - low)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def _decades(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten within a range; the powers alone where it spans many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1,) if high / low > 300 else (1, 2, 5)
    found = [factor * 10.0**power for power in powers for factor in factors]
    return [x for x in found if low * (1 - 1e-9) <= x <= high * (1 + 1e-9)]
