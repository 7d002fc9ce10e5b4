"""The output folder: network, manifest, card, figures. Each file appears whole or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..files.atomic import write_atomically
from ..files.strict_json import dump_json
from ..labels.table import Labels
from ..models.cards import CARD_NAME, write_card
from ..models.classifier import Classifier
from ..models.outliers import fit_reference
from ..models.record import ModelRecord
from ..models.registry.manifest import MANIFEST_NAME, manifest_row, write_registry
from ..models.vectors import write_test_vectors
from ..prepare.contract import InputContract
from ..prepare.preprocess import Prepared
from ..triplet import QualityFlag, Triplet
from .config import AdaptConfig
from .export import OPSET, rewrite_onnx
from .network import StampNetwork
from .summary import write_report
from .training import HEAD

__all__ = ["Outcome", "model_name", "write_folder"]


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """All that a run found, before it is written.

    `rows` index `table` and `prepared`; `probabilities` and `labels` are the left-out ones of these
    rows; `calibrated` holds the record's fields ``calibration``, ``thresholds`` and ``conformal``.
    """

    network: StampNetwork
    classes: tuple[str, ...]
    contract: InputContract
    base: ModelRecord
    base_file: Path
    config: AdaptConfig
    calibrated: Mapping[str, Any]
    metrics: Mapping[str, Any]
    table: Labels
    prepared: Prepared
    rows: npt.NDArray[Any]
    probabilities: npt.NDArray[np.float32]
    labels: npt.NDArray[Any]


def model_name(config: AdaptConfig, folder: Path) -> str:
    """The new model's name: as given, or the folder's, in letters that a name may have."""
    text = config.name or folder.resolve().name
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._") or "adapted"


def write_folder(folder: Path, outcome: Outcome) -> ModelRecord:
    """Write everything; the record that it returns is the manifest's row."""
    config, metrics = outcome.config, outcome.metrics
    headline = metrics["cross_validation"]["new"]
    record = ModelRecord(
        name=model_name(config, folder),
        version=config.version,
        classes=outcome.classes,
        contract=outcome.contract,
        calibration=outcome.calibrated["calibration"],
        thresholds=tuple(outcome.calibrated["thresholds"]),
        conformal=outcome.calibrated["conformal"],
        reference=_reference(outcome),
        metrics={
            "n": headline["n"],
            "n_groups": headline["n_groups"],
            "evidence": metrics["cross_validation"]["evidence"],
            **headline["metrics"],
            "confusion": headline["confusion"],
        },
        training={
            "data": f"{len(outcome.table)} labelled stamps of {outcome.table.where}",
            "labels": {name: f"{n} stamps" for name, n in metrics["labels"]["counts"].items()},
            "split": f"{metrics['cross_validation']['folds']} folds that keep sky objects whole",
            "method": config.method,
            "chosen": metrics["training"]["chosen"],
            "seed": config.seed,
        },
        network=outcome.network.config.to_dict(),
        description=config.description or f"{outcome.base.name} adapted to {len(outcome.table)} labels",
        licence=config.licence,
        citation=config.citation,
        parent=outcome.base.id,
        opset=OPSET,
    )
    file = folder / "model.onnx"
    partial = folder / ".model.part.onnx"
    try:
        parity = rewrite_onnx(outcome.base_file, outcome.network.cpu(), HEAD, record, partial)
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)
    shown = _shown(outcome)
    vectors = write_test_vectors(folder / "model_vectors.npz", Classifier(file, record, device="cpu"), shown)
    row = manifest_row(record, file, vectors=vectors, card=CARD_NAME)
    write_card(row, folder)
    # A folder holds one run's model: an older manifest would speak of bytes that are gone.
    (folder / MANIFEST_NAME).unlink(missing_ok=True)
    write_registry(folder, [row])
    write_atomically(folder / "metrics.json", dump_json({**metrics, "parity": parity}) + "\n")
    write_report(folder / "report.html", row, outcome)
    return row


def _reference(outcome: Outcome) -> dict[str, Any]:
    """Statistics of the survey's stamps; of those with all three channels, while there are any."""
    absent = QualityFlag.MISSING_REFERENCE | QualityFlag.MISSING_DIFFERENCE
    whole = (outcome.prepared.quality[outcome.rows] & absent) == 0
    if whole.sum() < 2:
        return {}
    rows = outcome.rows[whole]
    return fit_reference(
        outcome.prepared.tensor[rows],
        outcome.probabilities[whole],
        outcome.prepared.quality[rows],
        outcome.classes,
        groups=outcome.table.groups[rows],
        seed=outcome.config.seed,
    )


def _shown(outcome: Outcome) -> list[Triplet]:
    """A stamp of each class, under names that tell nothing of the survey."""
    rows = [int(outcome.rows[np.flatnonzero(outcome.labels == c)[0]]) for c in range(len(outcome.classes))]
    return [
        replace(outcome.table.triplets[row], id=str(k), group=None, meta={}) for k, row in enumerate(rows)
    ]
