"""From a trained network and its held-out logits to models with their records.

Every figure is cross-validated by sky object: each alert is judged by the fold's network that never
saw its object. No synthetic stamp is ever judged.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from transientnet.drawing.stamps import GAP, encode_png, strip
from transientnet.evaluation import calibration
from transientnet.evaluation.metrics import evaluate, roc_auc
from transientnet.evaluation.statistics import wilson
from transientnet.models.cards import write_card
from transientnet.models.classifier import Classifier
from transientnet.models.outliers import fit_reference
from transientnet.models.record import ModelRecord, Source
from transientnet.models.registry.manifest import manifest_row, write_registry
from transientnet.models.vectors import write_test_vectors
from transientnet.prepare.preprocess import preprocess
from transientnet.transfer.export import OPSET, export_onnx
from transientnet.transfer.network import StampNetwork
from transientnet.triplet import Triplet

from .data import ZTF_FWHM, Alerts
from .learn import CONTRACT, HEADS, real_targets
from .simulator import ZTF_LIKE, simulate

__all__ = ["VERSION", "write_models"]

VERSION = "0.1.0"

_DESCRIPTIONS = {
    "realbogus": "Is the difference-image candidate a real astrophysical source?",
    "3class": "Host morphology of a real candidate.",
    "4class": "Host morphology, or bogus.",
    "5class": "Asteroid, supernova, variable star, AGN or bogus. Experimental: few labels.",
}
_LABELS = (
    "Real and bogus: visual inspection where there was one, else catalogue matches, else the survey's own "
    "score (drb >= 0.9 real, < 0.1 bogus). Host morphology: visual inspection, else PS1 star/galaxy score "
    "and distance and minor-planet match. The rules are in training_reference/data.py."
)
_EVIDENCE = (
    "The inspection was done in two passes by a general vision model, not by astronomers, blind to every "
    "score and to each other; rows where the two agree count. Catalogue matches are minor planets, "
    "spectroscopic transients, and variable stars and active galaxies of Simbad and VSX."
)
_CIRCULAR = (
    "Figures on score labels compare this model with the survey's own network, whose output made those "
    "labels. Figures on raw morphology labels compare it with the catalogue rules, errors included. "
    "Figures on inspected rows are independent of every classifier."
)
# A survey of the size and scale that the models were trained at.
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
        "cleaned": (
            fitting(clean),
            "visual inspection where there was one, else catalogue rules that the reference stamp bears out",
        ),
        "raw labels": (fitting(alerts.raw_morphology), "catalogue rules alone: noisy"),
    }


def measure(
    head: str, logits: np.ndarray, alerts: Alerts, fitted: calibration.Calibrated, resamples: int
) -> dict[str, Any]:
    """Every figure of a head on its evidence sets, from held-out logits."""
    probabilities = fitted.calibration.apply(logits)
    results: dict[str, Any] = {}
    for name, (labels, evidence) in evidence_sets(alerts, head).items():
        known = labels >= 0
        measured = evaluate(
            probabilities[known],
            labels[known],
            HEADS[head],
            groups=alerts.groups[known],
            brightness=alerts.magnitude[known],
            resamples=resamples,
        )
        results[name] = {"evidence": evidence, **measured}
        if head == "realbogus" and name == "vetted":
            results[name]["survey_score"] = _survey_score(probabilities[:, 1], alerts, resamples)
    if head == "realbogus":
        results["catalogue"]["recall"] = _catalogue_recall(probabilities[:, 1], alerts)
        results["brightness"] = _brightness(probabilities[:, 1], alerts)
    return results


def _survey_score(real: np.ndarray, alerts: Alerts, resamples: int) -> dict[str, Any]:
    """The survey's own drb and ours on the same inspected rows, where the packet has one."""
    rows = np.flatnonzero((alerts.vetted >= 0) & np.isfinite(alerts.score))
    rng = np.random.default_rng(0)

    def areas(chosen: np.ndarray) -> tuple[float, float]:
        truth = alerts.vetted[chosen] == 1
        return roc_auc(real[chosen], truth), roc_auc(alerts.score[chosen], truth)

    # One row per sky object: candidates are what is drawn anew.
    draws = [areas(rng.choice(rows, len(rows))) for _ in range(resamples)]
    gains = np.quantile([ours - theirs for ours, theirs in draws], (0.025, 0.975))
    ours, theirs = areas(rows)
    return {"n": len(rows), "auc": theirs, "ours": ours, "gain_interval": gains.tolist()}


def _catalogue_recall(real: np.ndarray, alerts: Alerts) -> list[dict[str, Any]]:
    """Recall of catalogue-matched reals at false positive rates measured on the bogus of the same rows.

    Where the packet has one, the survey's own score is judged alike: how much of what is lost lies in
    the labels.
    """
    matched, bogus = alerts.evidence == "catalogue", alerts.binary == 0
    scored = np.isfinite(alerts.score)
    judged = {
        "all": (real, matched, bogus),
        "not seen as bogus": (real, matched & (alerts.vetted != 0), bogus),
        "with a survey score": (real, matched & scored, bogus & scored),
        "the same, judged by the survey's score": (alerts.score, matched & scored, bogus & scored),
    }
    rows = []
    for rate in (0.01, 0.05):
        for name, (score, reals, others) in judged.items():
            if not (reals.any() and others.any()):
                continue
            threshold = float(np.quantile(score[others], 1 - rate, method="higher"))
            found, n = int((score[reals] > threshold).sum()), int(reals.sum())
            rows.append(
                {
                    "rows": name,
                    "false_positive_rate": rate,
                    "threshold": threshold,
                    "n": n,
                    "bogus": int(others.sum()),
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
    resamples: int,
) -> None:
    """Calibrate, export, and write manifest, cards, vectors and ``results.json``."""
    weights = output / "weights"
    weights.mkdir(exist_ok=True)
    cards = output / "model-cards"
    cards.mkdir(exist_ok=True)
    results: dict[str, Any] = {"run": run, "models": {}}
    rows = []
    quality = preprocess([Triplet(*images, fwhm=ZTF_FWHM) for images in alerts.triplets], CONTRACT).quality
    for head, classes in HEADS.items():
        labels = real_targets(alerts)[head]
        known = labels >= 0
        fitted = calibration.calibrate(
            held_out[head][known],
            labels[known],
            classes,
            groups=alerts.groups[known],
            weights=_even_weights(labels[known]),
            resamples=resamples,
        )
        probabilities = fitted.calibration.apply(held_out[head])
        measured = measure(head, held_out[head], alerts, fitted, resamples)
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
                "data": f"{len(alerts)} ZTF alerts of {len(np.unique(alerts.groups))} sky objects (1.01 "
                "arcsec per pixel, 63x63 pixels); and simulated and semi-synthetic stamps, which only train.",
                "labels": _LABELS,
                "evidence": _EVIDENCE,
                "circular": _CIRCULAR,
                "split": f"{run['plan']['folds']} folds by sky object; every figure is of stamps whose "
                "object the judging network never saw. The shipped weights average "
                f"{run['plan']['seeds']} trainings on all alerts.",
                "prior": "The probabilities are for classes of equal number.",
                "reproduce": f"{run['command']} --data DATA --output RUN --seed {run['seed']}",
                "label counts": {name: int((labels == c).sum()) for c, name in enumerate(classes)},
                **{key: run[key] for key in ("commit", "seed", "data_sha256", "wall_seconds", "machine")},
            },
            **fitted.to_record(),
        )
        path = weights / f"{head}-{VERSION}.onnx"
        export_onnx(network, head, record, path)
        classifier = Classifier(path, record)
        vectors = write_test_vectors(weights / f"{head}-{VERSION}.npz", classifier, _vector_stamps())
        row = manifest_row(record, path, sources=[Source("bundled")], vectors=vectors)
        pictures = (
            []
            if head == "5class"
            else [_worst(cards / f"{head}_surest_mistakes_on_simulated_stamps.png", classifier)]
        )
        write_card(row, cards, pictures=pictures, name=f"{head}.md")
        rows.append(row)
    # A run's own folder is no registry yet: done again, it replaces what it made.
    (output / "weights_manifest.json").unlink(missing_ok=True)
    write_registry(weights, rows, manifest=output / "weights_manifest.json")
    (output / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _even_weights(labels: np.ndarray) -> np.ndarray:
    """Weights that make all classes count alike: the prior that the probabilities state."""
    return np.asarray(len(labels) / np.bincount(labels)[labels] / len(np.unique(labels)))


def _headline(measured: dict[str, Any]) -> dict[str, Any]:
    """What a record carries: figures with n and intervals, without the curves."""
    blocks: dict[str, Any] = {}
    for name, part in measured.items():
        if "metrics" not in part or not part["curves"]:
            continue
        curves = part["curves"]
        blocks[name] = {
            "evidence": part["evidence"],
            "n": part["n"],
            "n_groups": part["n_groups"],
            **part["metrics"],
            "per_class": {
                label: {"auc": {**curve["auc"], "n": part["counts"][label]}}
                for label, curve in curves.items()
            },
            "confusion": part["confusion"],
        }
    if "brightness" in measured:
        bins = [
            {
                "from": b["low"],
                "to": b["high"],
                "recall": b["recall"],
                "low": b["interval"][0],
                "high": b["interval"][1],
                "n": b["n"],
            }
            for b in measured["brightness"]
        ]
        blocks["recall per magnitude at 5 % false positives"] = {"by_brightness": {"real": bins}}
    return blocks


def _worst(path: Path, classifier: Classifier, columns: int = 3, count: int = 12) -> Path:
    """The surest mistakes on simulated stamps, as one picture: science, reference, difference.

    Simulated, since real stamps belong to their surveys.
    """
    drawn = simulate(600, 77, telescope=ZTF_LIKE)
    truth = drawn.morphology if "real" not in classifier.classes else np.where(drawn.real, "real", "bogus")
    truth = np.where(drawn.real | (truth != ""), truth, "bogus")
    rows = np.flatnonzero(np.isin(truth, classifier.classes))
    triplets = [Triplet(*drawn.triplets[row], fwhm=float(drawn.fwhm[row])) for row in rows]
    given = classifier.predict(triplets).probabilities
    right = given[np.arange(len(rows)), [classifier.classes.index(truth[row]) for row in rows]]
    worst = np.argsort(np.where(np.isfinite(right), right, np.inf))[:count]
    strips = [np.pad(strip(triplets[row]), 4, constant_values=GAP) for row in worst]
    lines = [np.concatenate(strips[k : k + columns], axis=1) for k in range(0, count, columns)]
    path.write_bytes(encode_png(np.concatenate(lines)))
    return path


def _vector_stamps() -> list[Triplet]:
    """Simulated stamps, real and bogus, of the size and scale that the models were trained at."""
    kinds = ["supernova", "dipole", "variable star"]
    drawn = simulate(len(kinds), 1, telescope=ZTF_LIKE, kinds=kinds)
    return [
        Triplet(*images, id=kind, fwhm=float(fwhm))
        for images, kind, fwhm in zip(drawn.triplets, kinds, drawn.fwhm, strict=True)
    ]
