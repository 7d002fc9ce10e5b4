"""What a night is planned by, as a table; the figures come from `transientnet.evaluation.night`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .document import table

__all__ = ["figure_text", "night_figures", "night_table"]

Figure = Mapping[str, Any]


def night_figures(name: str, night: Mapping[str, Any]) -> list[tuple[str, Figure, int]]:
    """Name, figure and digits of each row.

    Parameters
    ----------
    name : str
        The class that is looked for.
    night : mapping
        From `transientnet.evaluation.night.nightly`.
    """
    look, precision = night["to_look_at"], night["precision_at_budget"]
    return [
        *((f"Recall of {name} in the first {row['rank']}", row, 3) for row in night["recall_at_rank"]),
        (f"Candidates to look at for {100 * look['recall']:g} % of {name}", look, 0),
        (f"Share of {name} in the first {precision['budget']}", precision, 3),
    ]


def figure_text(figure: Figure, digits: int) -> tuple[str, str]:
    """Value and 95 % interval of a figure."""
    value, low, high = (f"{figure[key]:.{digits}f}" for key in ("value", "low", "high"))
    return value, f"{low} to {high}"


def night_table(name: str, curves: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The nights of several models side by side, as HTML; empty where none was measured.

    Parameters
    ----------
    name : str
        The class that is looked for.
    curves : mapping of str to mapping
        Per model, that class's part of its evaluation.
    """
    nights = {model: curve["night"] for model, curve in curves.items() if "night" in curve}
    if not nights:
        return []
    columns = [night_figures(name, night) for night in nights.values()]
    rows: list[list[object]] = [
        [row[0][0], *("{} ({})".format(*figure_text(figure, digits)) for _, figure, digits in row)]
        for row in zip(*columns, strict=True)
    ]
    night = next(iter(nights.values()))
    title = (
        f"A night of {night['candidates']} candidates, {100 * night['others']:.3g} % of them not {name}, "
        "the most probable looked at first: value and 95 % interval"
    )
    return [table(["Figure", *nights], rows, title)]
