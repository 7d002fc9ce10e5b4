"""The output folder: network, manifest, card, figures. Each file appears whole or not at all."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UsageError
from ..evaluation.calibration import Calibrated
from ..files.atomic import replacing, write_atomically
from ..files.locks import exclusive
from ..files.strict_json import dump_json
from ..models.cards import CARD_NAME, write_card
from ..models.classifier import Classifier
from ..models.outliers import fit_reference
from ..models.record import ModelRecord
from ..models.registry.manifest import MANIFEST_NAME, manifest_row, write_registry
from ..models.vectors import write_test_vectors
from ..prepare.contract import InputContract
from ..triplet import QualityFlag, Triplet
from .config import AdaptConfig
from .export import OPSET, rewrite_onnx
from .network import StampNetwork
from .outcome import AdaptMetrics, LeftOut
from .summary import write_report
from .training import HEAD

__all__ = ["check_folder", "model_name", "own_folder", "write_folder"]

_LOCKED = "adapt"
"""What the lock in the folder is named after; it stays there and marks the folder as one of adapt's."""


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds files which no adaptation wrote.

    Raises
    ------
    UsageError
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; adapt writes a folder: name another with -o (output=)")
    names = sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) if folder.exists() else []
    if names and not (folder / f".{_LOCKED}.lock").exists() and not _written_before(folder):
        shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        raise UsageError(
            f"{folder}: holds files that adapt did not write ({shown}); name a new or empty folder with -o "
            "(output=)"
        )


def _written_before(folder: Path) -> bool:
    """Whether the folder holds the output of a version that left no lock behind."""
    try:
        return {"cross_validation", "training", "base"} <= set(
            json.loads((folder / "metrics.json").read_bytes())
        )
    except (OSError, ValueError, TypeError):
        return False


@contextmanager
def own_folder(folder: Path) -> Iterator[None]:
    """Make the output folder, and keep other adaptations out of it while the block runs.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    UsageError
        It holds other files, or another process writes to it.
    """
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    refusal = UsageError(
        f"{folder}: another adapt is writing to it; wait for its end, or name another folder"
    )
    with exclusive(folder / _LOCKED, refusal):
        yield


def model_name(config: AdaptConfig, folder: Path) -> str:
    """The new model's name: `config.name`, or the folder's, in letters that a name may have."""
    text = config.name or folder.resolve().name
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._") or "adapted"


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
    record = ModelRecord(
        name=model_name(config, folder),
        version=config.version,
        classes=metrics.classes,
        contract=contract,
        **calibrated.to_record(),
        reference=_reference(left_out, metrics),
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
        network=network.config.to_dict(),
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


def _shown(left_out: LeftOut, classes: int) -> list[Triplet]:
    """A stamp of each class, under names that disclose nothing of the survey."""
    rows = [int(left_out.rows[np.flatnonzero(left_out.y == c)[0]]) for c in range(classes)]
    triplets = left_out.table.triplets
    return [replace(triplets[row], id=str(k), group=None, meta={}) for k, row in enumerate(rows)]
