"""The output folder: network, manifest, card, figures. Each file appears whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..contract import InputContract, ModelRecord, Source
from ..labels import Labels
from ..preprocess import Prepared
from .config import AdaptConfig
from .export import OPSET, export_onnx
from .network import StampNetwork
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
        metrics={
            "n": headline["n"],
            "n_groups": headline["n_groups"],
            "evidence": metrics["cross_validation"]["evidence"],
            **headline["metrics"],
        },
        training={
            "labels": metrics["labels"],
            "split": f"{metrics['cross_validation']['folds']} folds grouped by sky object",
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
        parity = export_onnx(outcome.network.cpu(), HEAD, record, partial)
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)
    content = file.read_bytes()
    record = replace(
        record,
        file=file.name,
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        sources=(Source("path", path=file.name),),
    )
    _write_json(folder / "metrics.json", {**metrics, "parity": parity})
    _write_json(
        folder / "weights_manifest.json",
        {"schema_version": 1, "defaults": {record.name: record.version}, "models": [record.to_dict()]},
    )
    return record


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(_without_nan(data), indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def _without_nan(value: Any) -> Any:
    """JSON knows no NaN: null."""
    if isinstance(value, Mapping):
        return {str(key): _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
