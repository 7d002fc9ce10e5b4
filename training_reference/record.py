"""From a trained network and its held-out logits to models with their records.

Every figure is cross-validated by sky object: each alert is judged by the fold's network that never
saw its object. No synthetic stamp is ever judged.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from transientnet.registry.card import write_card
from transientnet.registry.manifest import manifest_row, write_registry
from transientnet.registry.vectors import write_test_vectors

from transientnet import calibration
from transientnet.adapt.export import OPSET, export_onnx
from transientnet.adapt.network import StampNetwork
from transientnet.classifier import Classifier
from transientnet.contract import ModelRecord, Source
from transientnet.evaluation import evaluate, roc_auc
from transientnet.outliers import fit_reference
from transientnet.preprocess import preprocess
from transientnet.stats import wilson
from transientnet.triplet import Triplet

from .data import ZTF_FWHM, Alerts
from .learn import CONTRACT, HEADS, real_targets
from .simulator import Telescope, simulate

__all__ = ["VERSION", "write_models"]

VERSION = "0.1.0"

_DESCRIPTIONS = {
    "realbogus": "Is the difference-image candidate a real astrophysical source?",
    "3class": "Host morphology of a real candidate.",
    "4class": "Host morphology, or bogus.",
    "5class": "Asteroid, supernova, variable star, AGN or bogus. Experimental: few labels.",
}
_LABELS = (
    "Real and bogus: visual inspection where there was one (by a general vision model in two blind "
    "passes, not by astronomers), else catalogue matches, else the survey's own score (drb >= 0.9 real, "
    "< 0.1 bogus; circular in a comparison with that score). Host morphology: visual inspection, else PS1 "
    "star/galaxy score and distance and minor-planet match. See training_reference/data.py."
)
_CITATION = "Method after arXiv:2606.15705; see CITATION.cff."


def evidence_sets(alerts: Alerts, head: str) -> dict[str, tuple[np.ndarray, str]]:
    """The labels that a head is judged by: name -> (label or -1 per row, what they rest on)."""
    if head == "realbogus":
        catalogue = (alerts.evidence == "catalogue") & (alerts.vetted != 0)
        return {
            "vetted": (alerts.vetted, "visual inspection, independent of every classifier"),
            "raw labels": (
                alerts.raw_binary,
                "catalogue matches, and the survey's own score: circular with it",
            ),
            "score labels": (
                np.where((alerts.evidence == "score") | (alerts.raw_binary == 0), alerts.raw_binary, -1),
                "the survey's own score: circular with it",
            ),
            "catalogue": (
                np.where(catalogue, 1, np.where(alerts.binary == 0, 0, -1)),
                "reals matched with catalogues, against every bogus",
            ),
            "all": (alerts.binary, "the training labels"),
        }
    clean = real_targets(alerts)[head]
    if head == "5class":
        return {"all": (clean, "catalogue and broker classes; bogus as in training")}
    classes = len(HEADS[head])

    def fitting(labels: np.ndarray) -> np.ndarray:
        return np.where(labels < classes, labels, -1)

    return {
        "vetted": (fitting(alerts.vetted_morphology), "visual inspection"),
        "cleaned": (fitting(clean), "visual inspection where there was one, else catalogue rules"),
        "raw labels": (fitting(alerts.raw_morphology), "catalogue rules alone: noisy"),
    }


def measure(head: str, logits: np.ndarray, alerts: Alerts, fitted: dict[str, Any]) -> dict[str, Any]:
    """Every figure of a head on its evidence sets, from held-out logits."""
    probabilities = calibration.apply(logits, fitted["calibration"])
    results: dict[str, Any] = {}
    for name, (labels, evidence) in evidence_sets(alerts, head).items():
        known = labels >= 0
        measured = evaluate(
            probabilities[known],
            labels[known],
            HEADS[head],
            groups=alerts.groups[known],
            brightness=alerts.magnitude[known],
        )
        results[name] = {"evidence": evidence, **measured}
        if head == "realbogus" and name == "vetted":
            results[name]["survey_score"] = _survey_score(alerts)
    if head == "realbogus":
        results["catalogue"]["recall"] = _catalogue_recall(probabilities[:, 1], alerts)
        results["brightness"] = _brightness(probabilities[:, 1], alerts)
    return results


def _survey_score(alerts: Alerts) -> dict[str, Any]:
    """The survey's own drb on the same inspected rows, where the packet has one."""
    rows = (alerts.vetted >= 0) & np.isfinite(alerts.score)
    return {"n": int(rows.sum()), "auc": roc_auc(alerts.score[rows], alerts.vetted[rows] == 1)}


def _catalogue_recall(real: np.ndarray, alerts: Alerts) -> list[dict[str, Any]]:
    """Recall of catalogue-matched reals at false positive rates measured on all bogus."""
    bogus = np.sort(real[alerts.binary == 0])
    rows = []
    for rate in (0.01, 0.05):
        threshold = float(np.quantile(bogus, 1 - rate, method="higher"))
        matched = alerts.evidence == "catalogue"
        for name, which in (("all", matched), ("not seen as bogus", matched & (alerts.vetted != 0))):
            found, n = int((real[which] > threshold).sum()), int(which.sum())
            rows.append(
                {
                    "rows": name,
                    "false_positive_rate": rate,
                    "threshold": threshold,
                    "n": n,
                    "recall": found / n,
                    "interval": list(wilson(found, n)),
                }
            )
    return rows


def _brightness(real: np.ndarray, alerts: Alerts) -> list[dict[str, Any]]:
    """Recall of reals per magnitude bin at 5 % false positives."""
    threshold = float(np.quantile(real[alerts.binary == 0], 0.95, method="higher"))
    rows = []
    for low, high in ((0, 16), (16, 17), (17, 18), (18, 19), (19, 20), (20, 23)):
        which = (alerts.binary == 1) & (alerts.magnitude >= low) & (alerts.magnitude < high)
        found, n = int((real[which] > threshold).sum()), int(which.sum())
        if n:
            rows.append(
                {"low": low, "high": high, "n": n, "recall": found / n, "interval": list(wilson(found, n))}
            )
    return rows


def write_models(
    network: StampNetwork,
    alerts: Alerts,
    tensor: np.ndarray,
    held_out: dict[str, np.ndarray],
    run: dict[str, Any],
    output: Path,
) -> None:
    """Calibrate, export, and write manifest, cards, vectors and ``results.json``."""
    weights = output / "weights"
    weights.mkdir(exist_ok=True)
    results: dict[str, Any] = {"run": run, "models": {}}
    rows = []
    quality = preprocess([Triplet(*images, fwhm=ZTF_FWHM) for images in alerts.triplets], CONTRACT).quality
    for head, classes in HEADS.items():
        labels = real_targets(alerts)[head]
        known = labels >= 0
        fitted = calibration.calibrate(
            held_out[head][known], labels[known], classes, groups=alerts.groups[known]
        )
        probabilities = calibration.apply(held_out[head], fitted["calibration"])
        measured = measure(head, held_out[head], alerts, fitted)
        results["models"][head] = measured
        record = ModelRecord(
            name=head,
            version=VERSION,
            classes=classes,
            contract=CONTRACT,
            network=network.config.to_dict(),
            opset=OPSET,
            description=_DESCRIPTIONS[head],
            licence="Apache-2.0",
            citation=_CITATION,
            status="experimental" if head == "5class" else "stable",
            reference=fit_reference(tensor, probabilities, quality, classes, groups=alerts.groups),
            metrics=_headline(measured),
            training={
                "data": f"{len(alerts)} ZTF alerts of {len(np.unique(alerts.groups))} objects; simulated and "
                "semi-synthetic stamps for training only",
                "labels": _LABELS,
                "counts": {name: int((labels == c).sum()) for c, name in enumerate(classes)},
                "split": f"{run['plan']['folds']} folds by sky object; the shipped weights average "
                f"{run['plan']['seeds']} trainings on all alerts",
                **{
                    key: run[key]
                    for key in ("command", "commit", "seed", "data_sha256", "wall_seconds", "machine")
                },
            },
            **fitted,
        )
        path = weights / f"{head}-{VERSION}.onnx"
        export_onnx(network, head, record, path)
        vectors = write_test_vectors(
            weights / f"{head}-{VERSION}.npz", Classifier(path, record), _vector_stamps()
        )
        card = write_card(record, weights / f"{head}-{VERSION}.md")
        rows.append(manifest_row(record, path, sources=[Source("bundled")], vectors=vectors, card=card.name))
    write_registry(weights, rows, manifest=output / "weights_manifest.json")
    (output / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _headline(measured: dict[str, Any]) -> dict[str, Any]:
    """What a record carries: all but the curves."""
    return {
        name: {key: value for key, value in part.items() if key not in ("curves", "unusable")}
        if isinstance(part, dict)
        else part
        for name, part in measured.items()
    }


def _vector_stamps() -> list[Triplet]:
    """Simulated stamps, real and bogus, of the size and scale that the models were trained at."""
    scope = Telescope(1.01, 2.2, 2.0, 63, 3.0, 0.05, 0.4, 20.0, 3000.0, 1.5, 0.3, 0.0, 0.05, 0.3)
    kinds = ["supernova", "dipole", "variable star"]
    drawn = simulate(len(kinds), 1, telescope=scope, kinds=kinds)
    return [
        Triplet(*images, id=kind, fwhm=scope.fwhm) for images, kind in zip(drawn.triplets, kinds, strict=True)
    ]
