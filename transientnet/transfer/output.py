"""The output folder: network, manifest, card, figures. Each file appears whole or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..evaluation.calibration import Calibrated
from ..files.atomic import replacing, write_atomically
from ..files.strict_json import dump_json
from ..models.cards import CARD_NAME, write_card
from ..models.classifier import Classifier
from ..models.outliers import fit_reference
from ..models.record import ModelRecord
from ..models.registry.manifest import MANIFEST_NAME, manifest_row, write_registry
from ..models.vectors import write_test_vectors
from ..prepare.contract import InputContract
from ..triplet import QualityFlag, Triplet
from .export import OPSET, SIDES, rewrite_onnx
from .folder import model_name
from .network import StampNetwork
from .outcome import AdaptMetrics, LeftOut
from .probe import features_of
from .summary import write_report
from .training import HEAD

__all__ = ["write_folder"]

_INPUT = SIDES[1]
#: Share of the survey's labelled stamps that get the flag: as of the sound ones that the bundled models saw.
_FLAGGED = 0.05


def write_folder(
    folder: Path,
    network: StampNetwork,
    contract: InputContract,
    calibrated: Calibrated,
    metrics: AdaptMetrics,
    left_out: LeftOut,
    base: ModelRecord,
    base_file: Path,
) -> ModelRecord:
    """Write model, manifest, card, figures and report.

    Parameters
    ----------
    folder : Path
    network : StampNetwork
        The new one.
    contract : InputContract
        Of the new model.
    calibrated : Calibrated
    metrics : AdaptMetrics
    left_out : LeftOut
    base : ModelRecord
    base_file : Path
        ONNX file of the base model.

    Returns
    -------
    ModelRecord
        The manifest's row.
    """
    config, table, judged = metrics.config, left_out.table, metrics.cross_validation
    kinds = base.network.get("kinds")
    record = ModelRecord(
        name=model_name(config, folder),
        version=config.version,
        classes=metrics.classes,
        contract=contract,
        **calibrated.to_record(),
        reference={**_reference(left_out, metrics), **_oddity(network.cpu(), left_out, base)},
        metrics={
            "n": judged.new["n"],
            "n_groups": judged.new["n_groups"],
            "evidence": judged.evidence,
            **judged.new["metrics"],
            "confusion": judged.new["confusion"],
        },
        training={
            "data": f"{len(table)} labelled stamps of {table.where}",
            "labels": {name: f"{n} stamps" for name, n in metrics.labels.counts.items()},
            "split": f"{judged.folds} folds that keep sky objects whole",
            "method": config.method,
            "chosen": metrics.training.chosen,
            "outcome": metrics.outcome,
            "seed": config.seed,
        },
        network={**network.config.to_dict(), **({"kinds": kinds} if kinds else {})},
        description=config.description or f"{base.name} adapted to {len(table)} labels",
        licence=config.licence,
        citation=config.citation,
        parent=base.id,
        opset=OPSET,
    )
    file = folder / "model.onnx"
    with replacing(file) as partial:
        parity = rewrite_onnx(base_file, network.cpu(), HEAD, record, partial)
    shown = _shown(left_out, len(metrics.classes))
    vectors = write_test_vectors(folder / "model_vectors.npz", Classifier(file, record, device="cpu"), shown)
    row = manifest_row(record, file, vectors=vectors, card=CARD_NAME)
    write_card(row, folder)
    # A folder holds one run's model: an older manifest would describe bytes that are gone.
    (folder / MANIFEST_NAME).unlink(missing_ok=True)
    write_registry(folder, [row])
    write_atomically(folder / "metrics.json", dump_json({**metrics.to_dict(), "parity": parity}) + "\n")
    write_report(folder / "report.html", row, base, metrics, left_out)
    return row


def _reference(left_out: LeftOut, metrics: AdaptMetrics) -> dict[str, Any]:
    """Statistics of the survey's stamps; of those with all three channels, while there are any."""
    absent = QualityFlag.MISSING_REFERENCE | QualityFlag.MISSING_DIFFERENCE
    whole = (left_out.prepared.quality[left_out.rows] & absent) == 0
    if whole.sum() < 2:
        return {}
    rows = left_out.rows[whole]
    return fit_reference(
        left_out.prepared.tensor[rows],
        left_out.probabilities[whole],
        left_out.prepared.quality[rows],
        metrics.classes,
        groups=left_out.table.groups[rows],
        seed=metrics.config.seed,
    )


def _oddity(network: StampNetwork, left_out: LeftOut, base: ModelRecord) -> dict[str, Any]:
    """Threshold of the flag, which as few of the survey's own stamps exceed as of those that taught it."""
    if _INPUT not in network.heads or "oddity" not in base.reference:
        return {}
    features = features_of(network, torch.from_numpy(left_out.prepared.tensor[left_out.rows]))
    with torch.inference_mode():
        sound, broken = network.heads[_INPUT](features).numpy().T
    # The base's own would not do: what it says has moved along with the layers below.
    return {"oddity": {"threshold": float(np.quantile(broken - sound, 1 - _FLAGGED, method="higher"))}}


def _shown(left_out: LeftOut, classes: int) -> list[Triplet]:
    """A stamp of each class, under names that disclose nothing of the survey."""
    rows = [int(left_out.rows[np.flatnonzero(left_out.y == c)[0]]) for c in range(classes)]
    triplets = left_out.table.triplets
    return [replace(triplets[row], id=str(k), group=None, meta={}) for k, row in enumerate(rows)]
