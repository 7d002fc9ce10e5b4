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
from ..labels.table import read_labels
from ..models.classifier import load_model
from ..results.predictions import Predictions
from ..triplet import QualityFlag
from .brightness import brightness
from .metrics import compare, evaluate

__all__ = ["measure"]


def measure(
    labels: Any,
    models: Sequence[str],
    output: str | os.PathLike[str],
    *,
    cutouts: Any = None,
    pixel_scale: float | None = None,
    fwhm: float | None = None,
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

    Returns
    -------
    dict
        Per model what `transientnet.evaluation.evaluate` gives, and ``left_out``: rows that could not be
        scored, and why.

    Raises
    ------
    LabelError
        If the table has a class that a model does not know, or fewer than two classes.
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
    judged, wrong, orders = {}, {}, {}
    for name, classifier in zip(models, classifiers, strict=True):
        named = table.spelled_as(classifier.classes)
        unknown = sorted(set(named.classes) - set(classifier.classes))
        if unknown:
            raise LabelError(
                f"{table.where}: {classifier.record.id} does not know the class {', '.join(unknown)}; "
                f"it has {', '.join(classifier.classes)}"
            )
        index = np.array([classifier.classes.index(label) for label in named.labels])
        predictions = classifier.predict(table.triplets)
        probabilities = predictions.probabilities
        key = classifier.record.id
        if key in results:
            key = f"{key} ({name})"
        results[key] = evaluate(
            probabilities,
            index,
            classifier.classes,
            groups=groups,
            weights=table.weights,
            brightness=bright,
        )
        results[key]["left_out"] = [
            f"{table.named(row)}: {_why(predictions, row)}"
            for row in np.flatnonzero(np.isnan(probabilities).any(axis=1)).tolist()
        ]
        judged[key], orders[key] = (probabilities, index), classifier.classes
        wrong[key] = mistakes(table.triplets, probabilities, index, classifier.classes)
    comparisons = {
        (first, second): compare(judged[first][0], judged[second][0], judged[first][1], groups=groups)
        for first, second in combinations(results, 2)
        if orders[first] == orders[second]
    }
    lead = f"{len(table)} labelled candidates of {table.where}, {len(np.unique(groups))} sky objects"
    lead += f" ({GROUPED['similarity']})." if guessed else "."
    report = Report(f"Evaluation of {', '.join(results)}", lead)
    report.add_sections(evaluation_sections(results, comparisons=comparisons, wrong=wrong, brightness=kind))
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    report.write(folder / "report.html")
    figures = {
        "models": results,
        "comparisons": [
            {"first": first, "second": second, **result} for (first, second), result in comparisons.items()
        ],
    }
    write_atomically(folder / "metrics.json", dump_json(figures) + "\n")
    return results


def _why(predictions: Predictions, row: int) -> str:
    """Why a candidate has no probability."""
    flags = QualityFlag.names(int(predictions.quality[row]) & int(QualityFlag.UNUSABLE))
    return predictions.errors.get(row) or ", ".join(flags).lower().replace("_", " ")
