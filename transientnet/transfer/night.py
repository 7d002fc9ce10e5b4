"""`adapt` without a label: a night's own candidates and injected sources choose the threshold."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from ..drawing.charts import Series, chart
from ..drawing.document import Report, paragraph, table
from ..errors import EmptyInputError, UsageError
from ..evaluation.completeness import FEWEST_FOR_A_THRESHOLD, Completeness
from ..evaluation.completeness import completeness as measure
from ..files.atomic import replacing, write_atomically
from ..files.strict_json import dump_json
from ..models.calibration import Calibration
from ..models.cards import CARD_NAME, write_card
from ..models.classifier import Classifier
from ..models.record import METADATA_KEY, ModelRecord
from ..models.registry.manifest import MANIFEST_NAME, manifest_row, write_registry
from ..models.registry.resolve import resolve
from ..models.vectors import write_test_vectors
from ..prepare.preprocess import preprocess
from ..readers.open import open_triplets
from ..triplet import Triplet
from .config import AdaptConfig, Progress
from .folder import check_folder, model_name, own_folder
from .label_free import Source, fit_night
from .outcome import AdaptResult, NightFit, NightMetrics

__all__ = [
    "LEVELS",
    "MOST_STAMPS",
    "Night",
    "add_completeness",
    "read_night",
    "read_unlabelled",
    "start_without_labels",
]

LEVELS = (0.8, 0.9, 0.95, 0.98)
"""Completenesses whose thresholds the record keeps."""

MOST_STAMPS = 4000
"""Candidates of a night that are used."""

_INJECTIONS = 1500


@dataclass(frozen=True, slots=True, eq=False)
class Night:
    """A night without labels, as the base model sees it.

    Attributes
    ----------
    triplets : list of Triplet
    logits : ndarray, shape (N,)
        Of p(real), NaN where unusable.
    injected : Completeness
        Sources injected into the same stamps.
    fit : NightFit
    """

    triplets: list[Triplet]
    logits: npt.NDArray[np.float64]
    injected: Completeness
    fit: NightFit


def read_night(
    source: Any,
    classifier: Classifier,
    *,
    pixel_scale: float | None,
    fwhm: float | None,
    seed: int,
    report: Progress,
) -> Night:
    """Read a night's candidates, score them, inject sources, and fit the threshold.

    Parameters
    ----------
    source : path, glob, directory, ndarray or iterable of Triplet
        As `classify` takes it; the first `MOST_STAMPS` candidates are used.
    classifier : Classifier
        The base model.
    pixel_scale, fwhm : float or None
    seed : int
    report : callable

    Raises
    ------
    UsageError
        The base model does not separate real from bogus.
    EmptyInputError
        Nothing could be read.
    """
    if set(classifier.classes) != {"bogus", "real"}:
        raise UsageError(
            f"{classifier.record.id} has the classes {', '.join(classifier.classes)}; unlabelled candidates "
            "help a model of bogus and real alone"
        )
    report("reading", 0, 1)
    triplets = read_unlabelled(source, pixel_scale=pixel_scale, fwhm=fwhm)
    report("reading", 1, 1)
    probabilities = classifier.predict(triplets).probabilities
    logits = _logits(probabilities[:, classifier.classes.index("real")])
    report("injecting", 0, 1)
    try:
        injected = measure(triplets, model=classifier, injections=_INJECTIONS, fwhm=fwhm, seed=seed)
    except EmptyInputError as error:
        raise EmptyInputError(f"no source can be injected: {error}") from error
    report("injecting", 1, 1)
    fit = fit_night(
        logits, _logits(injected.probability), injected.snr, Source.of(classifier.record), seed=seed
    )
    return Night(triplets, logits, injected, fit)


def read_unlabelled(source: Any, *, pixel_scale: float | None, fwhm: float | None) -> list[Triplet]:
    """The first `MOST_STAMPS` candidates of a night.

    Raises
    ------
    EmptyInputError
        Nothing could be read.
    """
    triplets = list(islice(open_triplets(source, pixel_scale=pixel_scale, fwhm=fwhm), MOST_STAMPS))
    if not triplets or all(triplet.error is not None for triplet in triplets):
        raise EmptyInputError(f"none of {len(triplets)} unlabelled candidates could be read")
    return triplets


def start_without_labels(
    source: Any,
    base: str,
    folder: Path,
    *,
    pixel_scale: float | None,
    fwhm: float | None,
    config: AdaptConfig,
    report: Progress,
) -> AdaptResult:
    """Write a model whose 0.5 is the threshold that a night without labels asks for.

    The network stays as it is, only its calibration changes; without a clear answer not even that.
    """
    began = time.monotonic()
    check_folder(folder)
    path, record = resolve(base)
    classifier = Classifier(path, record, device="cpu", threads=config.threads)
    night = read_night(
        source, classifier, pixel_scale=pixel_scale, fwhm=fwhm, seed=config.seed, report=report
    )
    fit = night.fit
    new = _with_threshold(Calibration.from_dict(record.calibration), fit, record.classes.index("real"))
    p = 1 / (1 + np.exp(-fit.logits(_logits(night.injected.probability))))
    counted = replace(night.injected, model=f"{model_name(config, folder)}@{config.version}", probability=p)
    metrics = NightMetrics(
        outcome=_in_words(fit, record.id),
        base=record.id,
        candidates=len(night.triplets),
        usable=int(np.isfinite(night.logits).sum()),
        injected=len(night.injected),
        fit=fit,
        completeness=counted.to_dict(),
        seconds=round(time.monotonic() - began, 1),
    )
    with own_folder(folder):
        written = _write(folder, path, record, new, metrics, night, counted, config)
    return AdaptResult(folder, written, metrics.to_dict(), False, metrics)


def _with_threshold(before: Calibration, fit: NightFit, real: int) -> Calibration:
    """The calibration whose logit of p(real) is that of `fit`."""
    if fit.reason:
        return before
    bias = list(before.bias) or [0.0, 0.0]
    bias = [fit.slope * value for value in bias]
    bias[real] -= fit.slope * fit.threshold / 2
    bias[1 - real] += fit.slope * fit.threshold / 2
    return Calibration(before.temperature / fit.slope, tuple(bias), "temperature-bias")


def _write(
    folder: Path,
    path: Path,
    base: ModelRecord,
    calibration: Calibration,
    metrics: NightMetrics,
    night: Night,
    counted: Completeness,
    config: AdaptConfig,
) -> ModelRecord:
    # Thresholds and sets were measured on the base model's own survey, by probabilities that are no more.
    changed: dict[str, Any] = {} if night.fit.reason else {"thresholds": (), "conformal": {}, "reference": {}}
    if not night.fit.reason and base.reference:
        # What the stamps looked like there still says what is foreign; what they scored does not hold here.
        kept = ("n", "inputs", "correlation", "thresholds", "quality", "oddity")
        changed["reference"] = {key: base.reference[key] for key in base.reference if key in kept}
    record = replace(
        base,
        name=model_name(config, folder),
        version=config.version,
        calibration=calibration.to_dict(),
        metrics={"evidence": "injected sources and a night without labels", **completeness_block(counted)},
        training={
            "data": f"{metrics.candidates} candidates without labels, {metrics.injected} sources injected",
            "method": "label-free threshold",
            "outcome": metrics.outcome,
            "share_of_reals": _figure(night.fit.share, night.fit.share_low, night.fit.share_high),
            "balanced_accuracy_lost_on_the_base_survey_at_most": max(0.0, round(night.fit.cost, 3))
            if np.isfinite(night.fit.cost)
            else "not known: the base model's record does not say",
            "seed": config.seed,
        },
        description=config.description or f"{base.name} with a threshold for a telescope without labels",
        licence=config.licence or base.licence,
        citation=config.citation or base.citation,
        parent=base.id,
        status="experimental",
        successor="",
        file="",
        sha256="",
        size_bytes=0,
        sources=(),
        test_vectors={},
        card="",
        **changed,
    )
    file = folder / "model.onnx"
    with replacing(file) as partial:
        _rewrite(path, record, partial)
    classifier = Classifier(file, record, device="cpu")
    usable = preprocess(night.triplets[:200], record.contract).usable
    shown = [
        replace(night.triplets[row], id=str(k), group=None, meta={})
        for k, row in enumerate(np.flatnonzero(usable)[:2])
    ]
    vectors = write_test_vectors(folder / "model_vectors.npz", classifier, shown) if shown else None
    row = manifest_row(record, file, vectors=vectors, card=CARD_NAME)
    write_card(row, folder)
    (folder / MANIFEST_NAME).unlink(missing_ok=True)
    write_registry(folder, [row])
    write_atomically(folder / "metrics.json", dump_json(metrics.to_dict()) + "\n")
    _report(row, metrics, night).write(folder / "report.html")
    return row


def _rewrite(base: Path, record: ModelRecord, path: Path) -> None:
    """A file's network, unchanged, with another record."""
    model = onnx.load(str(base), load_external_data=False)
    onnx.helper.set_model_props(model, {METADATA_KEY: record.to_metadata()})
    path.write_bytes(model.SerializeToString(deterministic=True))


def add_completeness(
    row: ModelRecord, folder: Path, triplets: list[Triplet], *, fwhm: float | None, seed: int
) -> ModelRecord:
    """Put thresholds for a completeness on a night without labels into the record of an adapted model.

    Parameters
    ----------
    row : ModelRecord
        The manifest's, of ``model.onnx`` in `folder`.
    folder : Path
    triplets : list of Triplet
        The night's candidates.
    fwhm : float or None
    seed : int

    Returns
    -------
    ModelRecord
        As `row`, with the thresholds; `row` itself, with a warning, where no source can be injected.
    """
    file = folder / "model.onnx"
    classifier = Classifier(file, row, device="cpu")
    try:
        counted = measure(triplets, model=classifier, injections=_INJECTIONS, fwhm=fwhm, seed=seed)
    except EmptyInputError as error:
        # The labels' model is written by now, and good without.
        warnings.warn(f"no thresholds for a completeness: {error}", stacklevel=2)
        return row
    bare = replace(
        row, file="", sha256="", size_bytes=0, sources=(), test_vectors={}, card="",
        metrics={**row.metrics, **completeness_block(counted)},
    )  # fmt: skip
    with replacing(file) as partial:
        _rewrite(file, bare, partial)
    vectors = folder / row.test_vectors["file"] if row.test_vectors else None
    new = manifest_row(bare, file, vectors=vectors, card=CARD_NAME)
    write_card(new, folder)
    (folder / MANIFEST_NAME).unlink(missing_ok=True)
    write_registry(folder, [new])
    return new


def completeness_block(counted: Completeness) -> dict[str, Any]:
    """The field ``metrics`` of a record: recall of injected sources and thresholds for a completeness."""
    recall = counted.recall()
    levels = LEVELS if recall.n >= FEWEST_FOR_A_THRESHOLD else ()
    thresholds = {f"{level:g}": counted.threshold_for(level) for level in levels}
    return {
        "injected": {
            "n": recall.n,
            "recall": _figure(recall.value, recall.low, recall.high),
        },
        "completeness": {level: _figure(t.value, t.low, t.high) for level, t in thresholds.items()},
    }


def _figure(value: float, low: float, high: float) -> dict[str, float | None]:
    figure = {"value": value, "low": low, "high": high}
    return {key: round(number, 4) if np.isfinite(number) else None for key, number in figure.items()}


def _in_words(fit: NightFit, base: str) -> str:
    share = (
        f" About {100 * fit.share:.0f} % of the candidates are real by its estimate "
        f"({100 * fit.share_low:.0f}–{100 * fit.share_high:.0f} %)."
        if np.isfinite(fit.share)
        else ""
    )
    if fit.reason:
        return f"{base} was left as it is: {fit.reason}.{share}"
    before = 1 / (1 + np.exp(-np.array([fit.threshold, fit.low, fit.high])))
    cost = ""
    if np.isfinite(fit.cost):
        cost = (
            f" On the survey that {base} learnt from this costs {100 * max(0.0, fit.cost):.1f} points of "
            "balanced accuracy."
        )
    return (
        f"The network of {base} was kept; what it called {before[0]:.2f} ({before[1]:.2f}–{before[2]:.2f}) "
        f"is now p(real) = 0.5.{share}{cost} No label confirms it."
    )


def _report(record: ModelRecord, metrics: NightMetrics, night: Night) -> Report:
    report = Report(record.id, metrics.outcome)
    edges = np.linspace(-7, 6, 27)
    middle = ((edges[1:] + edges[:-1]) / 2).tolist()
    bright = night.injected.probability[night.injected.snr >= 5]
    curves = []
    for name, logits in (("the night's candidates", night.logits), ("injected sources", _logits(bright))):
        known = logits[np.isfinite(logits)].clip(edges[0], edges[-1])
        curves.append(Series(name, middle, (np.histogram(known, edges)[0] / max(1, len(known))).tolist()))
    report.add_section(
        "The night",
        chart(
            "What the base model says.",
            "log odds of p(real)",
            "share of candidates",
            curves,
            x_range=(-7.0, 6.0),
            note=f"The new 0.5 lies at {night.fit.threshold:.2f}.",
        ),
    )
    rows = [
        [f"{100 * float(level):g} %", f"{value['value']:.3f}", f"{value['low']:.3f}–{value['high']:.3f}"]
        for level, value in record.metrics["completeness"].items()
    ]
    report.add_section(
        "Thresholds",
        table(["completeness", "p(real) ≥", "95 % interval"], rows, "For injected sources, from 5 sigma"),
        paragraph("Purity needs labels: nothing here says how many bogus lie above a threshold."),
    )
    return report


def _logits(p: npt.ArrayLike) -> npt.NDArray[np.float64]:
    inside = np.clip(np.asarray(p, np.float64), 1e-7, 1 - 1e-7)
    return np.asarray(np.log(inside / (1 - inside)))
