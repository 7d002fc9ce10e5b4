"""The completeness of a telescope in words, as a page, as figures and as a table."""

from __future__ import annotations

import math
from pathlib import Path

from ..drawing.charts import Series, chart
from ..drawing.document import Report, paragraph, picture_wall, table
from ..drawing.stamps import data_uri, strip
from ..files.atomic import write_atomically
from ..files.strict_json import dump_json
from .completeness import DETECTED, Completeness, Limit, Recall, write_table

__all__ = ["summary", "write_folder"]

UNKNOWN = (
    "Not measured here: sources that the subtraction spoils (each is added to the difference as to the "
    "science stamp), sources that the detection misses, and purity, the share of bogus among what is called "
    "real."
)


def summary(result: Completeness) -> list[str]:
    """The outcome in a few lines for a terminal."""
    half, most = result.limit(0.5), result.limit(0.9)
    lines = [
        f"{result.model} at p(real) ≥ {result.threshold:g}: {len(result)} sources injected into "
        f"{result.stamps} of {result.offered} stamps",
        f"recall at signal-to-noise ≥ {DETECTED:g}: {result.recall()}",
        f"half of them found from signal-to-noise {_limit(half)}, 90 % from {_limit(most)}",
    ]
    lines += [f"  {low:>5g}–{high:<5g} {recall}" for low, high, recall in result.by_snr() if recall.n]
    lines += [f"{_WHERE[name]}: {recall}" for name, recall in result.by_place().items() if recall.n]
    if (result.snr >= DETECTED).sum() >= 20:
        wanted = result.threshold_for(0.95)
        lines.append(
            f"95 % of these are found from p(real) ≥ {wanted.value:.3f} ({wanted.low:.3f}–{wanted.high:.3f})"
        )
    return [*lines, *_notes(result)]


_WHERE = {"empty": "on empty sky", "star": "on stars", "galaxy": "at galaxies"}


def _notes(result: Completeness) -> list[str]:
    """What the reader must know of how the sources were made, as this night allowed."""
    night = result.night
    notes = []
    if night.stars < 5:
        seeing = "measured on the stamps" if result.fwhm_measured else "given"
        notes.append(
            f"The point-spread function is a Moffat profile of the seeing {seeing}: too few bright stars to "
            "measure its wings."
        )
    if night.eight_bit:
        notes.append(
            "The stamps were scaled to 8 bits one by one: fluxes are known relative to the noise alone, and "
            "what a source would change in the scaling is imitated."
        )
    elif night.photons == 0:
        notes.append("The stamps do not show the photon noise of sources: none was added.")
    if result.stamps < 100:
        notes.append(f"{result.stamps} stamps are few: the same sky, stars and hosts come again and again.")
    return notes


def _limit(limit: Limit) -> str:
    if math.isnan(limit.value):
        return "nowhere in the injected range"
    return f"{limit.value:.1f} ({limit.low:.1f}–{limit.high:.1f})"


def write_folder(result: Completeness, folder: Path) -> list[Path]:
    """Write ``report.html``, ``metrics.json`` and ``injections.csv``; gives their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    page, figures = folder / "report.html", folder / "metrics.json"
    _page(result).write(page)
    write_atomically(figures, dump_json(result.to_dict()) + "\n")
    return [page, figures, write_table(result, folder / "injections.csv")]


def _page(result: Completeness) -> Report:
    first, *rest = summary(result)[:3]
    report = Report(f"Completeness of {result.model}", f"{first}; {'; '.join(rest)}.")
    bins = [row for row in result.by_snr() if row[2].n]
    curves = [
        chart(
            "Recall against brightness.",
            "Signal-to-noise",
            "Recall (%)",
            [_series("injected sources", [(math.sqrt(a * b), r) for a, b, r in bins])],
            x_range=(bins[0][0], bins[-1][1]),
            y_range=(0.0, 100.0),
            x_log=True,
        )
    ]
    if magnitudes := result.by_magnitude():
        curves.append(
            chart(
                "Recall against magnitude.",
                "Magnitude (mag)",
                "Recall (%)",
                [_series("injected sources", [((a + b) / 2, r) for a, b, r in magnitudes])],
                x_range=(magnitudes[0][0], magnitudes[-1][1]),
                y_range=(0.0, 100.0),
                note=f"Zero point {result.zero_point:.2f}.",
            )
        )
    rows = [[f"{a:g}–{b:g}", r.n, *_cells(r)] for a, b, r in bins]
    report.add_section(
        "Recall",
        f'<div class="charts">{"".join(curves)}</div>',
        table(["signal-to-noise", "n", "recall", "95 % interval"], rows, "Recall by signal-to-noise"),
    )
    places = [[_WHERE[name], r.n, *_cells(r)] for name, r in result.by_place().items() if r.n]
    offsets = [[f"{offset:g}", r.n, *_cells(r)] for offset, r in result.by_offset() if r.n]
    parts = [
        table(["place", "n", "recall", "95 % interval"], places, f"Recall at signal-to-noise ≥ {DETECTED:g}")
    ]
    if offsets:
        caption = "Recall by distance from a galaxy's centre, in units of its half width at half maximum"
        parts.append(table(["distance", "n", "recall", "95 % interval"], offsets, caption))
    report.add_section("Where", *parts)
    if (result.snr >= DETECTED).sum() >= 20:
        thresholds = [
            [f"{100 * wanted:g} %", f"{t.value:.3f}", f"{t.low:.3f}–{t.high:.3f}"]
            for wanted in (0.8, 0.9, 0.95, 0.98)
            if (t := result.threshold_for(wanted))
        ]
        caption = f"Threshold of p(real) that keeps a share of sources at signal-to-noise ≥ {DETECTED:g}"
        report.add_section(
            "Thresholds", table(["completeness", "p(real) ≥", "95 % interval"], thresholds, caption)
        )
    if result.losses:
        wall = picture_wall(
            (data_uri(strip(triplet)), f"signal-to-noise {snr:.0f}, p(real) {p:.3f}")
            for triplet, snr, p in result.losses
        )
        report.add_section("Surest losses", wall)
    report.add_section("How it was made", *map(paragraph, [*_notes(result), UNKNOWN]))
    return report


def _cells(recall: Recall) -> list[str]:
    return [f"{100 * recall.value:.1f} %", f"{100 * recall.low:.1f}–{100 * recall.high:.1f}"]


def _series(name: str, points: list[tuple[float, Recall]]) -> Series:
    return Series(
        name,
        [x for x, _ in points],
        [100 * r.value for _, r in points],
        [100 * r.low for _, r in points],
        [100 * r.high for _, r in points],
        points=True,
    )
