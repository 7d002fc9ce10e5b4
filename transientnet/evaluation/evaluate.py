"""Models on a table of labels: the report and its figures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from ..drawing.document import Report
from ..drawing.sections import evaluation_sections, mistakes
from ..errors import LabelError
from ..files.atomic import write_atomically
from ..files.strict_json import dump_json
from ..labels.checks import prepare
from ..labels.sky_objects import GROUPED, sky_objects
from ..labels.table import Labels, read_labels
from ..models.classifier import Classifier, load_model
from ..results.predictions import Predictions
from ..triplet import QualityFlag
from .brightness import brightness
from .night import LABELLED, Night, nightly
from .summary import compare, evaluate

__all__ = ["measure"]


def measure(
    labels: Any,
    models: Sequence[str],
    output: str | os.PathLike[str],
    *,
    cutouts: Any = None,
    pixel_scale: float | None = None,
    fwhm: float | None = None,
    night: Night = LABELLED,
    label_column: str | None = None,
    group_column: str | None = None,
) -> dict[str, dict[str, Any]]:
    """Score labelled candidates with each model, and write ``report.html`` and ``metrics.json``.

    Parameters
    ----------
    labels, cutouts, pixel_scale, fwhm, label_column, group_column
        As in `transientnet.labels.read_labels`. Rows that name no sky object are put together as `adapt`
        does it, by the likeness of their stamps: intervals resample whole objects.
    models : sequence of str
        Names or paths; they are compared pairwise where their classes are the same.
    output : path
        Folder, made if absent.
    night : Night
        The night that the nightly figures are for. Its share of bogus is for models of two classes;
        of more, each class has the share that it has among the labels.

    Returns
    -------
    dict
        Per model what `transientnet.evaluation.summary.evaluate` gives, per curve ``night`` from
        `transientnet.evaluation.night.nightly`, and ``left_out``: rows that could not be scored, and why.

    Raises
    ------
    LabelError
        If the table has a class that a model does not know, or fewer than two classes.
    UsageError
        If the night's numbers are out of range.
    """
    table = read_labels(
        labels,
        cutouts=cutouts,
        pixel_scale=pixel_scale,
        fwhm=fwhm,
        label_column=label_column,
        group_column=group_column,
    )
    labelled = np.flatnonzero(table.labels != "")
    table = table.select(labelled)
    if len(table.classes) < 2:
        raise LabelError(
            f"{table.where}: an evaluation needs labels of two classes, not {len(table.classes)}"
        )
    classifiers = [load_model(name) for name in models]
    groups, guessed = table.groups, bool((table.groups == "").any())
    if guessed:
        groups = sky_objects(table, prepare(table.triplets, classifiers[0].contract)).groups
    kind, bright = brightness(table.triplets)
    results: dict[str, dict[str, Any]] = {}
    judged, wrong = {}, {}
    for name, classifier in zip(models, classifiers, strict=True):
        index = _class_numbers(table, classifier)
        classes, predictions = classifier.classes, classifier.predict(table.triplets)
        p = predictions.probabilities
        key = (
            classifier.record.id
            if classifier.record.id not in results
            else f"{classifier.record.id} ({name})"
        )
        result = evaluate(p, index, classes, groups=groups, weights=table.weights, brightness=bright)
        usable = np.isfinite(p).all(axis=1)
        for wanted, curve in result["curves"].items():
            c = classes.index(wanted)
            curve["night"] = nightly(
                p[usable, c],
                index[usable] == c,
                night if len(classes) == 2 else night._replace(others=None),
                groups=groups[usable],
                weights=table.weights[usable],
            )
        result["left_out"] = [
            f"{table.named(row)}: {_why(predictions, row)}" for row in np.flatnonzero(~usable).tolist()
        ]
        results[key], judged[key] = result, (p, index, classes)
        wrong[key] = mistakes(table.triplets, p, index, classes)
    comparisons = {
        (first, second): compare(judged[first][0], judged[second][0], judged[first][1], groups=groups)
        for first, second in combinations(results, 2)
        if judged[first][2] == judged[second][2]
    }
    lead = f"{len(table)} labelled candidates of {table.where}, {len(np.unique(groups))} sky objects"
    lead += f" ({GROUPED['similarity']})." if guessed else "."
    report = Report(f"Evaluation of {', '.join(results)}", lead)
    report.add_sections(evaluation_sections(results, comparisons=comparisons, wrong=wrong, brightness=kind))
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    report.write(folder / "report.html")
    pairs = [{"first": first, "second": second, **result} for (first, second), result in comparisons.items()]
    write_atomically(folder / "metrics.json", dump_json({"models": results, "comparisons": pairs}) + "\n")
    return results


def _class_numbers(table: Labels, classifier: Classifier) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Each label as the number of the model's class."""
    named = table.spelled_as(classifier.classes)
    if unknown := sorted(set(named.classes) - set(classifier.classes)):
        raise LabelError(
            f"{table.where}: {classifier.record.id} does not know the class {', '.join(unknown)}; "
            f"it has {', '.join(classifier.classes)}"
        )
    return np.array([classifier.classes.index(label) for label in named.labels])


def _why(predictions: Predictions, row: int) -> str:
    """Why a candidate has no probability."""
    flags = QualityFlag.names(int(predictions.quality[row]) & int(QualityFlag.UNUSABLE))
    return predictions.errors.get(row) or ", ".join(flags).lower().replace("_", " ")
