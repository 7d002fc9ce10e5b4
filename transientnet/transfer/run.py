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
from ..evaluation.splits import Fold
from ..evaluation.summary import compare, evaluate
from ..labels.checks import LabelCheck, check_labels, prepare
from ..labels.table import Labels, read_labels
from ..models.calibration import Calibration
from ..models.classifier import Classifier
from ..models.record import ModelRecord
from ..models.registry.resolve import resolve
from ..prepare.contract import InputContract
from ..prepare.preprocess import Prepared
from ..triplet import Triplet
from .checkpoints import CHECKPOINTS, Checkpoints, fingerprint
from .config import AdaptConfig, Progress, silent
from .crossfit import cross_fit, make_folds
from .doubts import doubtful
from .experiment import compare_with_scratch, learning_curve
from .folder import check_folder, own_folder
from .night import add_completeness, read_unlabelled
from .outcome import (
    AdaptMetrics,
    AdaptResult,
    Choice,
    Comparison,
    CurvePoint,
    Judgement,
    LabelSummary,
    LeftOut,
    Rise,
    in_words,
)
from .output import write_folder
from .probe import load_base, survey_classes
from .training import Survey, class_weights, logits_of, recipe_for, set_weights

__all__ = ["run"]

#: The cross-validation, the split kept aside, the learning curve, the report.
_MEASUREMENTS = 4


def run(
    labels: Any,
    *,
    cutouts: Any,
    groups: Any,
    unlabelled: Any,
    pixel_scale: float | None,
    fwhm: float | None,
    base: str,
    output: str,
    config: AdaptConfig,
    progress: Progress | None,
) -> AdaptResult:
    """See `transientnet.transfer.adapt.adapt`."""
    began = time.monotonic()
    report = progress or silent
    folder = Path(output)
    check_folder(folder)
    path, record = resolve(base)
    report("reading", 0, 1)
    table = read_labels(
        labels,
        cutouts=cutouts,
        groups=groups,
        pixel_scale=pixel_scale,
        fwhm=fwhm,
        label_column=config.label_column,
        group_column=config.group_column,
    )
    table = table.spelled_as(record.classes)
    everything = prepare(table.triplets, record.contract)
    if unlabelled is not None and "real" not in table.labels and "bogus" not in table.labels:
        raise UsageError(
            "unlabelled candidates help a model of bogus and real; the labels have other classes"
        )
    night = None
    if unlabelled is not None:
        # A night that cannot be read is found before the training, not after it.
        night = read_unlabelled(unlabelled, pixel_scale=pixel_scale, fwhm=fwhm)
    checked = check_labels(table, everything, record, new_classes=config.new_classes)
    table = checked.require(skip_bad=config.skip_bad)
    use = checked.usable
    prepared = Prepared(everything.tensor[use], everything.quality[use], everything.usable[use])
    report("reading", 1, 1)
    with own_folder(folder):
        result = _train(folder, checked, table, prepared, record, path, config, report, began)
        if night is None or result.interrupted:
            return result
        written = add_completeness(result.record, folder, night, fwhm=fwhm, seed=config.seed)
        return replace(result, record=written)


def _train(
    folder: Path,
    checked: LabelCheck,
    table: Labels,
    prepared: Prepared,
    record: ModelRecord,
    path: Path,
    config: AdaptConfig,
    report: Progress,
    began: float,
) -> AdaptResult:
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
    network_file = np.frombuffer(path.read_bytes(), np.uint8)
    training = fingerprint(
        network_file, classes, recipe, config.seed, device.type, prepared.tensor[learn], y[learn], weight,
        table.groups[learn], *(fold.train for fold in folds),
    )  # fmt: skip
    checkpoints = Checkpoints(folder / CHECKPOINTS, training)
    fit = cross_fit(
        start,
        survey,
        folds,
        recipe,
        config.seed,
        ready=known,
        checkpoints=checkpoints,
        on_step=_counter("training", 0 if recipe is None else recipe.steps * len(folds), report),
    )
    set_weights(start, fit.weights)

    report("measuring", 0, _MEASUREMENTS)
    truth, objects = survey.y.numpy()[fit.rows], survey.groups[fit.rows]
    calibrated = calibrate(fit.logits, truth, classes, groups=objects, seed=config.seed)
    left_out = LeftOut(table, prepared, learn[fit.rows], calibrated.calibration.apply(fit.logits), truth)
    kind, bright = brightness(table.triplets)
    base = Classifier(path, record, device="cpu") if known else None
    judge = _Judge(classes, table, y, bright, prepared, base)
    judged = judge(
        left_out.probabilities, left_out.rows, "rows left out by grouped cross-validation", len(folds)
    )
    report("measuring", 1, _MEASUREMENTS)
    test = None
    if len(aside):
        logits = logits_of(start, torch.from_numpy(prepared.tensor[aside])).numpy()
        test = judge(
            calibrated.calibration.apply(logits), aside, "rows of the split 'test', never trained on"
        )
    interrupted = fit.interrupted
    curve: tuple[CurvePoint, ...] = ()
    rise: Rise | None = None
    comparison: Comparison | None = None
    if not interrupted:
        try:
            fresh = load_base(path, record, classes).to(device)
            report("measuring", 2, _MEASUREMENTS)
            curve, rise = learning_curve(fresh, survey, config.seed)
            report("measuring", 3, _MEASUREMENTS)
            if config.compare_scratch:
                comparison = compare_with_scratch(
                    fresh,
                    survey,
                    config,
                    record.contract,
                    ready=known,
                    on_step=lambda done, total: report("comparing", done, total),
                )
        except KeyboardInterrupt:
            interrupted = True
    doubts = doubtful(left_out.probabilities, truth, classes) if config.label_noise else []
    choice = Choice(fit.candidates, fit.losses, fit.candidates[fit.chosen])
    before = Calibration.from_dict(record.calibration)
    metrics = AdaptMetrics(
        outcome=in_words(choice, judged, before, calibrated.calibration, record.id, len(survey)),
        classes=classes,
        base=record.id,
        method=config.method,
        brightness=kind,
        labels=LabelSummary(
            len(table),
            checked.counts,
            checked.objects,
            checked.grouped_by,
            tuple(f"{problem.kind}: {problem.message}" for problem in checked.problems),
        ),
        cross_validation=judged,
        test=test,
        training=choice,
        learning_curve=curve,
        learning_rise=rise,
        comparison=comparison,
        doubted_labels=tuple(
            replace(doubt, row=int(table.rows[row]), id=table.triplets[row].id)
            for doubt, row in ((doubt, int(left_out.rows[doubt.row])) for doubt in doubts)
        ),
        interrupted=interrupted,
        config=config,
        seconds=round(time.monotonic() - began, 1),
    )
    contract = _contract(record.contract, table.triplets)
    written = write_folder(folder, start, contract, calibrated, metrics, left_out, record, path)
    if not interrupted:
        checkpoints.clear()
    report("measuring", _MEASUREMENTS, _MEASUREMENTS)
    return AdaptResult(folder, written, metrics.to_dict(), interrupted, metrics)


def _counter(stage: str, total: int, report: Progress) -> Callable[[], None]:
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        report(stage, done, total)

    return step


def _device(config: AdaptConfig) -> torch.device:
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("device 'cuda' was asked for, but torch finds none; use device='auto'")
    return torch.device("cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu")


def _splits(
    table: Labels, y: npt.NDArray[Any], config: AdaptConfig
) -> tuple[npt.NDArray[Any], list[Fold], npt.NDArray[Any]]:
    """Rows to learn from, folds over them, and rows kept aside as the table's split asks."""
    learn, aside = np.flatnonzero(table.split != "test"), np.flatnonzero(table.split == "test")
    validation = table.split[learn] == "validation"
    if validation.any():
        return learn, [Fold(np.flatnonzero(~validation), np.flatnonzero(validation))], aside
    return learn, make_folds(y[learn], table.groups[learn], config.folds, config.seed), aside


def _contract(base: InputContract, triplets: Sequence[Triplet]) -> InputContract:
    scales = [triplet.pixel_scale for triplet in triplets if triplet.pixel_scale]
    return replace(base, pixel_scale_arcsec=float(np.median(scales))) if scales else base


@dataclass(frozen=True, slots=True, eq=False)
class _Judge:
    """Figures of the new model and, on the same rows, of the base model where it has the classes."""

    classes: tuple[str, ...]
    table: Labels
    y: npt.NDArray[Any]
    bright: npt.NDArray[np.float64]
    prepared: Prepared
    base: Classifier | None

    def __call__(
        self,
        probabilities: npt.NDArray[np.float32],
        rows: npt.NDArray[Any],
        evidence: str,
        folds: int | None = None,
    ) -> Judgement:
        truth, groups = self.y[rows], self.table.groups[rows]

        def figures(p: npt.NDArray[np.float32]) -> dict[str, Any]:
            return evaluate(p, truth, self.classes, groups=groups, brightness=self.bright[rows])

        if self.base is None:
            return Judgement(figures(probabilities), evidence, folds=folds)
        every = self.base.probabilities(self.base.run(self.prepared.tensor[rows])[0])
        chosen = every[:, [self.base.classes.index(name) for name in self.classes]]
        before = chosen / np.maximum(chosen.sum(axis=1, keepdims=True), 1e-12)
        gained = compare(probabilities, before, truth, groups=groups)
        return Judgement(figures(probabilities), evidence, figures(before), gained, folds)
