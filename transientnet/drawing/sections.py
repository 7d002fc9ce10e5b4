"""The sections on how good one model is, or several side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..triplet import Triplet
from .charts import Series, chart
from .document import heat_table, paragraph, picture_wall, table, verdict
from .nights import figure_text, night_sentence, night_table
from .stamps import caption, data_uri, strip

__all__ = ["Mistake", "evaluation_sections", "figure_name", "mistakes"]

Section = tuple[str, list[str]]

PICTURES = 24
"""Mistakes shown per class."""

_LOWEST_RATE = 0.001
"""Left end of the false positive axis: a night's bogus are thousands, and the rates that matter are small."""

_NAMES = {
    "auc": "Area under the ROC curve",
    "average_precision": "Average precision",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "mcc": "Matthews correlation",
    "calibration_error": "Expected calibration error",
}


class Mistake(NamedTuple):
    """One misjudged candidate: its picture, and what was said of it."""

    kind: str
    picture: str
    caption: str
    probability: float


def mistakes(
    triplets: Sequence[Triplet],
    probabilities: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    classes: Sequence[str],
    limit: int = PICTURES,
) -> list[Mistake]:
    """The surest mistakes of each true class, surest first.

    Parameters
    ----------
    triplets : sequence of Triplet, length N
    probabilities : ndarray, shape (N, K)
    labels : ndarray of int, shape (N,)
    classes : sequence of str, length K
    limit : int
        Per true class.
    """
    usable = np.isfinite(probabilities).all(axis=1)
    predicted = np.where(usable, np.nan_to_num(probabilities).argmax(axis=1), labels)
    found = []
    for c, name in enumerate(classes):
        wrong = np.flatnonzero((labels == c) & (predicted != c))
        wrong = wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")][:limit]
        for row in wrong.tolist():
            said, p = classes[int(predicted[row])], float(probabilities[row].max())
            found.append(
                Mistake(
                    _kind(name, c, classes),
                    data_uri(strip(triplets[row])),
                    f"{triplets[row].id or f'row {row + 1}'}: labelled {name}, judged {said} at {p:.3f}"
                    + (f"; {facts}" if (facts := caption(triplets[row])) else ""),
                    p,
                )
            )
    return found


def _kind(name: str, c: int, classes: Sequence[str]) -> str:
    """Heading of the mistakes on one true class; of two classes the last is the one looked for."""
    if len(classes) != 2:
        return f"Labelled {name}, judged otherwise"
    error = "False negatives" if c == 1 else "False positives"
    return f"{error}: labelled {name}, judged {classes[1 - c]}"


def figure_name(key: str) -> str:
    """What a figure is called on a page; keys as `transientnet.evaluation.summary.evaluate` gives them."""
    if key.startswith("false_negative_rate_at_"):
        return f"Lost at {100 * float(key.rpartition('_')[2]):g} % false positives"
    return _NAMES.get(key, key)


def _interval(figure: Mapping[str, Any], digits: int = 4) -> str:
    value, low, high = (figure[key] for key in ("value", "low", "high"))
    if not np.isfinite([value, low, high]).all():
        return f"{value:.{digits}f}" if np.isfinite(value) else "unknown"
    return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _with_interval(key: str, figure: Mapping[str, Any]) -> str:
    value, interval = figure_text(key, figure)
    return f"{value} ({interval})" if interval else value


def evaluation_sections(
    results: Mapping[str, Mapping[str, Any]],
    *,
    comparisons: Mapping[tuple[str, str], Mapping[str, Any]] | None = None,
    wrong: Mapping[str, Sequence[Mistake]] | None = None,
    brightness: str = "",
) -> list[Section]:
    """Figures, curves, thresholds, confusion, reliability, brightness, comparisons and mistakes.

    Parameters
    ----------
    results : mapping of str to dict
        Per model, in the order to be shown, what `transientnet.evaluation.evaluate` gave.
    comparisons : mapping of (str, str) to dict, optional
        Per pair of models, what `transientnet.evaluation.compare` gave.
    wrong : mapping of str to sequence of Mistake, optional
        Per model, from `mistakes`.
    brightness : str
        What the brightness is: ``magnitude`` or ``signal-to-noise``.

    Returns
    -------
    list of (str, list of str)
        Headings and HTML, for `Report.add_sections`.
    """
    sections: list[Section] = [("Verdict", [verdict(_verdict(results))]), ("Figures", _figures(results))]
    for name in dict.fromkeys(name for result in results.values() for name in result["curves"]):
        having = {model: r["curves"][name] for model, r in results.items() if name in r["curves"]}
        sections.append((f"Finding {name}", _one_class(name, having, brightness)))
    sections.append(("Confusion", [_confusion(model, result) for model, result in results.items()]))
    if comparisons:
        sections.append(("Models against each other", _comparisons(comparisons)))
    for model, shown in (wrong or {}).items():
        heading = f"Mistakes of {model}"
        if not shown:
            sections.append((heading, [paragraph("None on these candidates.")]))
            continue
        parts = [
            paragraph(
                "Science, reference, difference, as the detector saw them. The surest mistakes first.", True
            )
        ]
        for kind in dict.fromkeys(mistake.kind for mistake in shown):
            mine = [(m.picture, m.caption) for m in shown if m.kind == kind]
            parts += [f"<h3>{escape(kind)}</h3>", picture_wall(mine)]
        sections.append((heading, parts))
    return sections


def _verdict(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What each model does, in a sentence that its figures make."""
    sentences = []
    for model, result in results.items():
        accuracy = result["metrics"].get("balanced_accuracy") or result["metrics"]["accuracy"]
        right = (
            f"{100 * accuracy['value']:.1f} % ({100 * accuracy['low']:.1f} to {100 * accuracy['high']:.1f})"
        )
        sentences.append(f"{model} is right on {right} of each class on average ({result['n']} candidates).")
        for name, curves in result["curves"].items():
            tight = curves["thresholds"][0]
            found = f"{100 * tight['recall']:.1f} % ({100 * tight['low']:.1f} to {100 * tight['high']:.1f})"
            rate = f"{100 * tight['false_positive_rate']:g} %"
            sentences.append(f"At {rate} false positives it finds {found} of the {name}.")
            if "night" in curves and (looked := night_sentence(name, curves["night"])):
                sentences.append(looked)
    return sentences


def _figures(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    keys = list(dict.fromkeys(key for result in results.values() for key in result["metrics"]))

    rows: list[list[object]] = [
        [
            figure_name(key),
            *(
                _with_interval(key, r["metrics"][key]) if key in r["metrics"] else ""
                for r in results.values()
            ),
        ]
        for key in keys
    ]
    rows += [
        ["Candidates", *(r["n"] for r in results.values())],
        ["Sky objects", *(r["n_groups"] for r in results.values())],
        ["Not scored", *(r["unusable"] for r in results.values())],
        [
            "Per class",
            *(", ".join(f"{n} {name}" for name, n in r["counts"].items()) for r in results.values()),
        ],
    ]
    return [
        table(["Figure", *results], rows, "Value and 95 % interval; whole sky objects are resampled"),
        paragraph(
            "The calibration error is the mean gap between a stated probability and how often it came true, "
            "less what chance alone would give.",
            True,
        ),
    ]


def _one_class(name: str, having: Mapping[str, Mapping[str, Any]], brightness: str) -> list[str]:
    counts = next(iter(having.values()))
    note = f"{counts['n_positive']} {name} against {counts['n_negative']} others; bands are 95 % intervals."
    charts = [
        chart(
            "Receiver operating characteristic",
            "False positive rate (%)",
            "Recall (%)",
            [
                Series(
                    f"{m}, area {_interval(c['auc'], 3)}",
                    _percent(c["roc"]["fpr"]),
                    _percent(c["roc"]["tpr"]),
                    _percent(c["roc"]["low"]),
                    _percent(c["roc"]["high"]),
                )
                for m, c in having.items()
            ],
            x_range=(100 * _LOWEST_RATE, 100.0),
            y_range=(0.0, 100.0),
            x_log=True,
            note=note,
        ),
        chart(
            "Precision and recall",
            "Recall (%)",
            "Precision (%)",
            [
                Series(
                    f"{m}, average {_interval(c['average_precision'], 3)}",
                    _percent(c["pr"]["recall"]),
                    _percent(c["pr"]["precision"]),
                    _percent(c["pr"]["low"]),
                    _percent(c["pr"]["high"]),
                )
                for m, c in having.items()
            ],
            x_range=(0.0, 100.0),
            y_range=(0.0, 100.0),
            note="Precision depends on the share of each class; a night's is not this set's.",
        ),
        chart(
            "Reliability",
            f"Stated probability of {name}",
            "How often it was true",
            [_dots(m, c["reliability"], "probability", "frequency") for m, c in having.items()],
            diagonal=True,
            note="Bins of equal number; a calibrated model lies on the diagonal.",
        ),
    ]
    charts += [_histogram(m, name, c["histogram"]) for m, c in having.items() if "histogram" in c]
    bright = {m: rows for m, c in having.items() if (rows := c["thresholds"][-1]["recall_by_brightness"])}
    if bright:
        rate = counts["thresholds"][-1]["false_positive_rate"]
        every = [row[k] for rows in bright.values() for row in rows for k in ("from", "to")]
        fewest = min(row["n"] for rows in bright.values() for row in rows)
        logarithmic = brightness != "magnitude" and min(every) > 0
        charts.append(
            chart(
                f"Recall against {brightness or 'brightness'}",
                "Magnitude (mag)" if brightness == "magnitude" else (brightness or "brightness").capitalize(),
                f"Recall at {100 * rate:g} % false positives (%)",
                [
                    _dots(
                        m,
                        [
                            {k: 100 * row[k] for k in ("recall", "low", "high")}
                            | {"middle": _middle(row["from"], row["to"], logarithmic)}
                            for row in rows
                        ],
                        "middle",
                        "recall",
                    )
                    for m, rows in bright.items()
                ],
                x_range=(min(every), max(every)),
                y_range=(0.0, 100.0),
                x_log=logarithmic,
                note=f"Bins of {fewest} or more candidates.",
            )
        )
    thresholds = [
        [
            m,
            f"{100 * t['false_positive_rate']:g} %",
            f"{t['threshold']:.4f}",
            f"{100 * t['recall']:.1f} % ({100 * t['low']:.1f} to {100 * t['high']:.1f})",
        ]
        for m, c in having.items()
        for t in c["thresholds"]
    ]
    return [
        f'<div class="charts">{"".join(charts)}</div>',
        table(
            ["Model", "False positives at most", "Threshold", "Recall (95 %)"],
            thresholds,
            f"Thresholds on the probability of {name}, as these candidates put them",
        ),
        *night_table(name, having),
    ]


def _percent(values: Sequence[float]) -> list[float]:
    return [100 * value for value in values]


def _histogram(model: str, name: str, histogram: Mapping[str, Any]) -> str:
    """Scores of each class, as shares of it: classes of any size are seen side by side."""
    edges = histogram["edges"]
    steps = [edge for pair in pairwise(edges) for edge in pair]
    series = []
    for label, counts in histogram["counts"].items():
        shares = [100 * count / sum(counts) for count in counts]
        heights = [share for share in shares for _ in range(2)]
        series.append(Series(f"{label} ({sum(counts):,})", [0.0, *steps, 1.0], [0.0, *heights, 0.0]))
    return chart(
        f"Scores by class, {model}",
        f"Probability of {name}",
        "Share of the class (%)",
        series,
        y_range=(0.0, max(max(line.y) for line in series)),
        note="Labelled classes; the less they overlap, the better.",
    )


def _middle(low: float, high: float, logarithmic: bool) -> float:
    return math.sqrt(low * high) if logarithmic else (low + high) / 2


def _dots(name: str, rows: Sequence[Mapping[str, float]], x: str, y: str) -> Series:
    across, up, low, high = ([row[key] for row in rows] for key in (x, y, "low", "high"))
    return Series(name, across, up, low, high, points=True)


def _confusion(model: str, result: Mapping[str, Any]) -> str:
    classes = result["classes"]
    rows = []
    for name, counts in zip(classes, result["confusion"], strict=True):
        total = sum(counts) or 1
        rows.append((name, [(f"{n:g} ({100 * n / total:.1f} %)", n / total) for n in counts]))
    return heat_table(
        ["Labelled", *(f"judged {name}" for name in classes)],
        rows,
        f"{model}: candidates, and share of the row",
    )


def _comparisons(comparisons: Mapping[tuple[str, str], Mapping[str, Any]]) -> list[str]:
    rows = [
        [
            f"{first} against {second}",
            c["n"],
            c["only_first_right"],
            c["only_second_right"],
            f"{c['p']:.2g}",
            _interval(c["accuracy"]),
            _interval(c["auc"]),
        ]
        for (first, second), c in comparisons.items()
    ]
    header = [
        "Pair",
        "n",
        "Only first right",
        "Only second right",
        "McNemar p",
        "Accuracy gained",
        "AUC gained",
    ]
    return [
        table(header, rows, "The same candidates judged by both"),
        paragraph("Gained: the first model's figure less the second's, with its paired 95 % interval.", True),
    ]
