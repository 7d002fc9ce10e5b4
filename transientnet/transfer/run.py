"""`adapt`, step by step: labels, checks, cross-validation, calibration, evidence, folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..errors import UsageError
from ..evaluation.brightness import brightness
from ..evaluation.calibration import calibrate
from ..evaluation.metrics import compare, evaluate
from ..labels.checks import check_labels, prepare
from ..labels.table import Labels, read_labels
from ..models.calibration import apply
from ..models.record import ModelRecord
from ..models.registry.resolve import resolve
from ..prepare.contract import InputContract
from ..prepare.preprocess import Prepared
from ..triplet import Triplet
from .config import AdaptConfig, AdaptResult, Progress
from .crossfit import Fold, Survey, cross_fit, fingerprint, make_folds, open_checkpoints
from .doubts import doubtful
from .experiment import compare_with_scratch
from .learning import learning_curve
from .output import Outcome, write_folder
from .probe import load_base, survey_classes
from .recipe import class_weights, recipe_for
from .training import logits_of, set_weights

__all__ = ["run"]

CHECKPOINTS = ".checkpoints"


def run(
    labels: Any,
    *,
    cutouts: Any,
    groups: Any,
    pixel_scale: float | None,
    fwhm: float | None,
    base: str,
    output: str,
    config: AdaptConfig,
    progress: Progress | None,
) -> AdaptResult:
    """See `transientnet.adapt.adapt`."""
    began = time.monotonic()
    tell = progress or _silent
    path, record = resolve(base)
    tell("reading", 0, 1)
    table = read_labels(labels, cutouts=cutouts, groups=groups, pixel_scale=pixel_scale, fwhm=fwhm)
    table = table.spelled_as(record.classes)
    everything = prepare(table.triplets, record.contract)
    checked = check_labels(table, everything, record)
    table = checked.require(skip_bad=config.skip_bad)
    use = checked.usable
    prepared = Prepared(everything.tensor[use], everything.quality[use], everything.usable[use])
    tell("reading", 1, 1)

    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    device = _device(config)
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)

    classes = survey_classes(table.labels.tolist(), record)
    start = load_base(path, record, classes).to(device)
    known = set(classes) <= set(record.classes)
    y = np.array([classes.index(name) for name in table.labels])
    learn, folds, aside = _splits(table, y, config)
    weight = class_weights(y[learn], table.weights[learn], config.balance)
    survey = Survey(
        torch.from_numpy(prepared.tensor[learn]),
        torch.from_numpy(y[learn]),
        torch.from_numpy(weight),
        table.groups[learn],
    )
    recipe = None if config.method == "probe" else recipe_for(len(survey), config, record.contract)

    steps = 0 if recipe is None else recipe.steps * len(folds)
    checkpoints = open_checkpoints(
        folder / CHECKPOINTS,
        fingerprint(
            record.sha256, record.id, config, classes, prepared.tensor, y, weight, table.groups, recipe
        ),
    )
    fit = cross_fit(
        start,
        survey,
        folds,
        recipe,
        config.seed,
        ready=known,
        checkpoints=checkpoints,
        on_step=_counter("training", steps, tell),
    )
    set_weights(start, fit.weights)

    tell("measuring", 0, 1)
    truth, objects = survey.y.numpy()[fit.rows], survey.groups[fit.rows]
    told = calibrate(fit.logits, truth, classes, groups=objects, seed=config.seed)
    rows = learn[fit.rows]
    kind, bright = brightness(table.triplets)
    evidence = _Evidence(classes, table, y, record if known else None, path, prepared, bright)
    metrics: dict[str, Any] = {
        "classes": list(classes),
        "base": record.id,
        "method": config.method,
        "brightness": kind,
        "labels": {
            "rows": len(table),
            "counts": checked.counts,
            "objects": checked.objects,
            "grouped_by": checked.grouped_by,
            "notices": [f"{problem.kind}: {problem.message}" for problem in checked.problems],
        },
        "cross_validation": evidence.of(apply(fit.logits, told["calibration"]), rows)
        | {"folds": len(folds), "evidence": "rows left out by grouped cross-validation"},
        "training": {
            "candidates": list(fit.candidates),
            "left_out_loss": list(fit.losses),
            "chosen": fit.candidates[fit.chosen],
        },
    }
    if len(aside):
        logits = logits_of(start, torch.from_numpy(prepared.tensor[aside])).numpy()
        metrics["test"] = evidence.of(apply(logits, told["calibration"]), aside) | {
            "evidence": "rows of the split 'test', never trained on"
        }
    interrupted = fit.interrupted
    if not interrupted:
        try:
            metrics["learning_curve"] = learning_curve(
                load_base(path, record, classes).to(device), survey, config.seed
            )
            if config.compare_scratch:
                metrics["comparison"] = compare_with_scratch(
                    load_base(path, record, classes).to(device), survey, config, record.contract, known, tell
                )
        except KeyboardInterrupt:
            interrupted = True
    doubts = doubtful(apply(fit.logits, told["calibration"]), truth, classes) if config.label_noise else []
    metrics["doubted_labels"] = [
        doubt | {"row": int(table.rows[rows[doubt["row"]]]), "id": table.triplets[rows[doubt["row"]]].id}
        for doubt in doubts
    ]
    metrics["interrupted"] = interrupted
    metrics["config"] = config.to_dict()
    metrics["seconds"] = round(time.monotonic() - began, 1)
    outcome = Outcome(
        network=start,
        classes=classes,
        contract=_contract(record.contract, table.triplets),
        base=record,
        base_file=path,
        config=config,
        calibrated=told,
        metrics=metrics,
        table=table,
        rows=rows,
        probabilities=apply(fit.logits, told["calibration"]),
        labels=truth,
        prepared=prepared,
    )
    written = write_folder(folder, outcome)
    if not interrupted:
        for file in sorted(checkpoints.glob("*")):
            file.unlink()
        checkpoints.rmdir()
        checkpoints.parent.rmdir()
    tell("measuring", 1, 1)
    return AdaptResult(folder, written, metrics, interrupted)


def _silent(stage: str, done: int, total: int) -> None:
    pass


def _counter(stage: str, total: int, tell: Progress) -> Callable[[], None]:
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        tell(stage, done, total)

    return step


def _device(config: AdaptConfig) -> torch.device:
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("device 'cuda' was asked for, but torch finds none; use device='auto'")
    return torch.device("cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu")


def _splits(
    table: Labels, y: npt.NDArray[Any], config: AdaptConfig
) -> tuple[npt.NDArray[Any], list[Fold], npt.NDArray[Any]]:
    """Rows to learn from, folds over them, and rows kept aside as the table's split says."""
    learn, aside = np.flatnonzero(table.split != "test"), np.flatnonzero(table.split == "test")
    given = table.split[learn] == "validation"
    if given.any():
        return learn, [Fold(np.flatnonzero(~given), np.flatnonzero(given))], aside
    return learn, make_folds(y[learn], table.groups[learn], config.folds, config.seed), aside


def _contract(base: InputContract, triplets: Sequence[Triplet]) -> InputContract:
    scales = [triplet.pixel_scale for triplet in triplets if triplet.pixel_scale]
    return replace(base, pixel_scale_arcsec=float(np.median(scales))) if scales else base


@dataclass(frozen=True, slots=True, eq=False)
class _Evidence:
    """Figures of the new model and, on the same rows, of the base model where it tells the classes."""

    classes: tuple[str, ...]
    table: Labels
    y: npt.NDArray[Any]
    base: ModelRecord | None
    path: Path
    prepared: Prepared
    bright: npt.NDArray[np.float64]

    def of(self, probabilities: npt.NDArray[np.float32], rows: npt.NDArray[Any]) -> dict[str, Any]:
        truth, groups = self.y[rows], self.table.groups[rows]
        how = {"groups": groups, "brightness": self.bright[rows]}
        found = {"new": evaluate(probabilities, truth, self.classes, **how)}
        if self.base is not None:
            from ..models.classifier import Classifier

            classifier = Classifier(self.path, self.base, device="cpu")
            every = classifier.probabilities(classifier.run(self.prepared.tensor[rows])[0])
            chosen = every[:, [self.base.classes.index(name) for name in self.classes]]
            before = chosen / np.maximum(chosen.sum(axis=1, keepdims=True), 1e-12)
            found["base"] = evaluate(before, truth, self.classes, **how)
            found["new_against_base"] = compare(probabilities, before, truth, groups=groups)
        return found
