"""The report of an adaptation: one page that opens offline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..drawing.charts import Dots, Series, chart, dot_chart
from ..drawing.document import Report, paragraph, picture_wall, table
from ..drawing.sections import Mistake, Section, evaluation_sections, mistakes
from ..drawing.stamps import data_uri, strip
from ..models.record import ModelRecord
from .outcome import AdaptMetrics, Comparison, Doubt, Judgement, LeftOut

__all__ = ["write_report"]

_DOUBTS_SHOWN = 24


def write_report(
    path: Path, record: ModelRecord, base: ModelRecord, metrics: AdaptMetrics, left_out: LeftOut
) -> None:
    """Write the page: what was gained, how good it is, what more labels would bring, what is doubtful.

    Parameters
    ----------
    path : Path
    record, base : ModelRecord
        Of the new model and of the one that it started from.
    metrics : AdaptMetrics
    left_out : LeftOut
    """
    triplets = [left_out.table.triplets[row] for row in left_out.rows]
    wrong = mistakes(triplets, left_out.probabilities, left_out.y, metrics.classes)
    judged = metrics.cross_validation
    lead = (
        f"{base.id} adapted to {judged.new['n']} labels of {judged.new['n_groups']} sky objects. "
        f"{metrics.outcome} Every figure is about {judged.evidence}."
    )
    if metrics.interrupted:
        lead += " The run was interrupted: this is the best model up to then."
    report = Report(record.id, lead)
    if metrics.comparison:
        report.add_section("Transfer against scratch", *_comparison(metrics.comparison))
    report.add_sections(_figures(record, base, judged, wrong, metrics.brightness))
    if metrics.test:
        for heading, parts in _figures(record, base, metrics.test, None, metrics.brightness):
            report.add_section(f"{heading}: {metrics.test.evidence}", *parts)
    report.add_section("Learning curves", *_learning(metrics))
    if metrics.config.label_noise:
        report.add_section("Doubted labels", *_doubts(metrics.doubted_labels, left_out))
    if metrics.labels.notices:
        report.add_section("Notices about the labels", *map(paragraph, metrics.labels.notices))
    report.write(path)


def _figures(
    record: ModelRecord, base: ModelRecord, judged: Judgement, wrong: list[Mistake] | None, kind: str
) -> list[Section]:
    results = {record.id: judged.new}
    comparisons = {}
    if judged.base is not None and judged.new_against_base is not None:
        results[base.id] = judged.base
        comparisons[record.id, base.id] = judged.new_against_base
    shown = {} if wrong is None else {record.id: wrong}
    return evaluation_sections(results, comparisons=comparisons, wrong=shown, brightness=kind)


def _comparison(comparison: Comparison) -> list[str]:
    rows = [
        [arm, *(f"{100 * seed['balanced_accuracy']:.1f}" for seed in seeds)]
        for arm, seeds in comparison.seeds.items()
    ]
    tests = [
        [
            f"transfer against {other}",
            kind,
            f"{100 * result['difference']:+.2f}",
            f"{100 * result['interval'][0]:+.2f} to {100 * result['interval'][1]:+.2f}",
            f"{result['p']:.2g}",
        ]
        for other, found in (("scratch", comparison.against_scratch), ("probe", comparison.against_probe))
        for kind, result in found.items()
        if kind != "cohen_d"
    ]
    each = {
        arm: [100 * seed["balanced_accuracy"] for seed in seeds] for arm, seeds in comparison.seeds.items()
    }
    gains = [
        Dots(f"{other}, {kind.replace('_', ' ')}", (), *(100 * v for v in (r["difference"], *r["interval"])))
        for other, found in (("scratch", comparison.against_scratch), ("probe", comparison.against_probe))
        for kind, r in found.items()
        if kind != "cohen_d"
    ]
    common = comparison.common_test
    sizes = f"{comparison.n_train} labels to train on, {comparison.n_test} to judge"
    return [
        paragraph(f"{comparison.sentence.capitalize()}."),
        '<div class="charts">'
        + dot_chart(
            "Balanced accuracy over the seeds",
            "Balanced accuracy (%)",
            [Dots(arm, values, sum(values) / len(values)) for arm, values in each.items()],
            note="A dot is a seed, the bar their mean.",
        )
        + dot_chart(
            "What transfer gains",
            "Points of balanced accuracy (%)",
            gains,
            zero=True,
            note="Transfer less the arm named, with 95 % intervals.",
        )
        + "</div>",
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


def _learning(metrics: AdaptMetrics) -> list[str]:
    parts = []
    points = metrics.learning_curve
    if len(points) > 1:
        labels = [float(point.labels) for point in points]
        series = Series(
            "head on frozen features",
            labels,
            [100 * point.balanced_accuracy for point in points],
            [100 * (point.balanced_accuracy - point.spread) for point in points],
            [100 * (point.balanced_accuracy + point.spread) for point in points],
            points=True,
        )
        trend = f"{metrics.learning_rise} " if metrics.learning_rise else ""
        parts.append(
            chart(
                "Balanced accuracy against labels", "Labels", "Balanced accuracy (%)", [series],
                x_range=(0.0, labels[-1]), y_range=(0.0, 100.0),
                note=f"{trend}Bars: standard deviation over splits.",
            )
        )  # fmt: skip
    training = metrics.training
    rows = [
        [name + (" (chosen)" if name == training.chosen else ""), f"{loss:.4f}"]
        for name, loss in zip(training.candidates, training.left_out_loss, strict=True)
    ]
    parts.append(table(["Candidate", "Loss"], rows, "Negative log likelihood of left-out rows, calibrated"))
    return parts


def _doubts(doubts: Sequence[Doubt], left_out: LeftOut) -> list[str]:
    if not doubts:
        return [paragraph("The cross-validation doubts no label.")]
    at = {int(number): k for k, number in enumerate(left_out.table.rows)}
    pictures = [
        (data_uri(strip(left_out.table.triplets[at[doubt.row]])), str(doubt))
        for doubt in doubts[:_DOUBTS_SHOWN]
    ]
    more = f"{len(doubts)} labels to look at again; the surest come first. None was changed or left out."
    return [paragraph(more), picture_wall(pictures)]
