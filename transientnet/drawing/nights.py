"""What a night is planned by, in words and as a table; figures of `transientnet.evaluation.night`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .document import table

__all__ = ["figure_text", "night_figures", "night_sentence", "night_table"]

Figure = Mapping[str, Any]

_SHARES = ("accuracy", "balanced_accuracy", "false_negative_rate", "recall", "precision")
"""Figures that are shares of candidates, and shown in per cent; areas and correlations go up to 1."""


def night_figures(name: str, night: Mapping[str, Any]) -> list[tuple[str, str, Figure]]:
    """Name, key (for `figure_text`) and figure of each row.

    Parameters
    ----------
    name : str
        The class that is looked for.
    night : mapping
        From `transientnet.evaluation.night.nightly`.
    """
    look, precision = night["to_look_at"], night["precision_at_budget"]
    return [
        *(
            (f"Recall of {name} in the first {row['rank']:,}", "recall", row)
            for row in night["recall_at_rank"]
        ),
        (f"Candidates to look at for {100 * look['recall']:g} % of {name}", "to_look_at", look),
        (f"Share of {name} in the first {precision['budget']:,}", "precision", precision),
    ]


def figure_text(key: str, figure: Figure) -> tuple[str, str]:
    """Value and 95 % interval of a figure, in the unit that it has on every page and in every table.

    Parameters
    ----------
    key : str
        As `transientnet.evaluation.summary.evaluate` and `night_figures` call it.
    figure : mapping
        ``value``, ``low``, ``high``.
    """
    value, low, high = (float(figure[bound]) for bound in ("value", "low", "high"))
    if key == "to_look_at":
        texts = [f"{x:,.0f}" for x in (value, low, high)]
    elif key.startswith(_SHARES):
        texts = [f"{100 * value:.1f} %", f"{100 * low:.1f}", f"{100 * high:.1f}"]
    else:
        texts = [f"{x:.4f}" for x in (value, low, high)]
    unknown = [x != x for x in (value, low, high)]
    return "unknown" if unknown[0] else texts[0], "" if any(unknown) else f"{texts[1]} to {texts[2]}"


def night_sentence(name: str, night: Mapping[str, Any]) -> str:
    """How many candidates of the night are to be looked at."""
    look = night["to_look_at"]
    value, interval = figure_text("to_look_at", look)
    if value == "unknown":
        return ""
    return (
        f"In a night of {night['candidates']:,} candidates, looking at the first {value} ({interval}) finds "
        f"{100 * look['recall']:g} % of the {name}."
    )


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
        [row[0][0], *("{} ({})".format(*figure_text(key, figure)) for _, key, figure in row)]
        for row in zip(*columns, strict=True)
    ]
    night = next(iter(nights.values()))
    title = (
        f"A night of {night['candidates']:,} candidates, {100 * night['others']:.3g} % of them not {name}, "
        "the most probable looked at first: value and 95 % interval"
    )
    return [table(["Figure", *nights], rows, title)]
