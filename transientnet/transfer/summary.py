"""The report of an adaptation: one page that opens offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..drawing.charts import Series, chart
from ..drawing.document import Report, paragraph, picture_wall, table
from ..drawing.sections import Mistake, evaluation_sections, mistakes
from ..drawing.stamps import data_uri, strip

if TYPE_CHECKING:
    from ..models.record import ModelRecord
    from .output import Outcome

__all__ = ["write_report"]

_DOUBTS_SHOWN = 24


def write_report(path: Path, record: ModelRecord, outcome: Outcome) -> None:
    """Write the page: what was gained, how good it is, what more labels would bring, what is doubtful."""
    metrics = outcome.metrics
    triplets = [outcome.table.triplets[row] for row in outcome.rows]
    wrong = {record.id: mistakes(triplets, outcome.probabilities, outcome.labels, outcome.classes)}
    cv = metrics["cross_validation"]
    lead = (
        f"{outcome.base.id} adapted to {cv['new']['n']} labels of {cv['new']['n_groups']} sky objects. Every "
        f"figure is about {cv['evidence']}."
    )
    if metrics["interrupted"]:
        lead += " The run was interrupted: this is the best model up to then."
    report = Report(record.id, lead)
    if "comparison" in metrics:
        report.add_section("Transfer against scratch", *_comparison(metrics["comparison"]))
    report.add_sections(_figures(record, outcome.base, cv, wrong, metrics["brightness"]))
    if "test" in metrics:
        for heading, parts in _figures(record, outcome.base, metrics["test"], {}, metrics["brightness"]):
            report.add_section(f"{heading}: {metrics['test']['evidence']}", *parts)
    report.add_section("Learning curves", *_learning(metrics))
    if metrics["config"]["label_noise"]:
        report.add_section("Doubted labels", *_doubts(metrics["doubted_labels"], outcome))
    notices = metrics["labels"]["notices"]
    if notices:
        report.add_section("Notices about the labels", *(paragraph(notice) for notice in notices))
    report.write(path)


def _figures(
    record: ModelRecord,
    base: ModelRecord,
    cv: Mapping[str, Any],
    wrong: Mapping[str, Sequence[Mistake]],
    kind: str,
) -> list[tuple[str, list[str]]]:
    results = {record.id: cv["new"]} | ({base.id: cv["base"]} if "base" in cv else {})
    comparisons = {(record.id, base.id): cv["new_against_base"]} if "base" in cv else None
    return evaluation_sections(results, comparisons=comparisons, wrong=wrong, brightness=kind)


def _comparison(comparison: Mapping[str, Any]) -> list[str]:
    rows = [
        [arm, *(f"{100 * seed['balanced_accuracy']:.1f}" for seed in seeds)]
        for arm, seeds in comparison["seeds"].items()
    ]
    tests = [
        [
            f"transfer against {other}",
            kind,
            f"{100 * result['difference']:+.2f}",
            f"{100 * result['interval'][0]:+.2f} to {100 * result['interval'][1]:+.2f}",
            f"{result['p']:.2g}",
        ]
        for other in ("scratch", "probe")
        for kind, result in comparison[f"against_{other}"].items()
        if kind != "cohen_d"
    ]
    common = comparison["common_test"]
    sizes = f"{comparison['n_train']} labels to train on, {comparison['n_test']} to judge"
    return [
        paragraph(f"{comparison['sentence'].capitalize()}."),
        table(
            ["Arm", *(f"seed {k}" for k in range(len(rows[0]) - 1))], rows, f"Balanced accuracy, %; {sizes}"
        ),
        table(["Arms", "t-test", "Points", "95 % interval", "p"], tests, "Differences over the seeds"),
        paragraph(
            f"On the common test stamps transfer alone is right on {common['only_first_right']}, scratch "
            f"alone on {common['only_second_right']} (McNemar p = {common['p']:.2g}). Splits of one set are "
            "not independent, so the p values over seeds are a little too small.",
            small=True,
        ),
    ]


def _learning(metrics: Mapping[str, Any]) -> list[str]:
    parts = []
    points = metrics.get("learning_curve", [])
    if len(points) > 1:
        values, spread = ([p[key] for p in points] for key in ("balanced_accuracy", "spread"))
        labels = [float(point["labels"]) for point in points]
        series = Series(
            "head on frozen features",
            labels,
            values,
            [v - s for v, s in zip(values, spread, strict=True)],
            [v + s for v, s in zip(values, spread, strict=True)],
            points=True,
        )
        note = "Still rising at the right end: more labels would help. Bars: standard deviation over splits."
        parts.append(
            chart(
                "Balanced accuracy against labels", "Labels", "Balanced accuracy", [series],
                x_range=(0.0, labels[-1]), note=note,
            )
        )  # fmt: skip
    training = metrics["training"]
    rows = [
        [name + (" (chosen)" if name == training["chosen"] else ""), f"{loss:.4f}"]
        for name, loss in zip(training["candidates"], training["left_out_loss"], strict=True)
    ]
    parts.append(table(["Candidate", "Loss"], rows, "Negative log likelihood of left-out rows, calibrated"))
    return parts


def _doubts(doubts: Sequence[Mapping[str, Any]], outcome: Outcome) -> list[str]:
    if not doubts:
        return [paragraph("The cross-validation doubts no label.")]
    at = {int(number): k for k, number in enumerate(outcome.table.rows)}
    pictures = [
        (
            data_uri(strip(outcome.table.triplets[at[doubt["row"]]])),
            f"row {doubt['row']} {doubt['id']}: labelled {doubt['label']}, likelier {doubt['likelier']} "
            f"({doubt['p_likelier']:.2f})",
        )
        for doubt in doubts[:_DOUBTS_SHOWN]
    ]
    more = f"{len(doubts)} labels to look at again; the surest come first. None was changed or left out."
    return [paragraph(more), picture_wall(pictures)]
