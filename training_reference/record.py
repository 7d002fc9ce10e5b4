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
from transientnet.evaluation.metrics import roc_auc
from transientnet.evaluation.statistics import wilson
from transientnet.evaluation.summary import evaluate
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

from . import families
from .data import ZTF_FWHM, Alerts, Foreign
from .learn import CONTRACT, EXTRA, HEADS, outputs, real_targets
from .pretraining import load_chunk
from .simulator import ZTF_LIKE, simulate

__all__ = ["VERSION", "write_models"]

VERSION = "0.2.0"

FLAGGED = 0.05
"""Share of sound simulated stamps, of telescopes of every kind, that are flagged as broken."""
# Families that the card of real or bogus shows, and what is simulated for each.
_SHOWN = {
    "saturated sources": "supernova",
    "trailed asteroids": "asteroid",
    "variable stars": "variable star",
    "dipoles": "dipole",
    "cosmic rays": "cosmic ray",
    "noise peaks": "noise peak",
}
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


def write_models(
    network: StampNetwork,
    alerts: Alerts,
    elsewhere: Foreign,
    judged: list[Path],
    held_out: dict[str, np.ndarray],
    foreign_held_out: dict[str, np.ndarray],
    run: dict[str, Any],
    output: Path,
    resamples: int,
    test: Path | None = None,
    kinds_seen: Path | None = None,
) -> None:
    """Calibrate, export, and write manifest, cards, vectors and ``results.json``.

    Parameters
    ----------
    network : StampNetwork
        The mean of the trainings on everything.
    alerts, elsewhere : Alerts and Foreign
        The source survey, and other surveys' stamps.
    judged : list of Path
        Simulated chunks that no training saw.
    held_out, foreign_held_out : dict of ndarray
        Logits of every head, out of fold.
    run : dict
        What the record says of the run.
    output : Path
    resamples : int
    test : Path, optional
        Folder of sets to test by, see `families.telescopes`.
    kinds_seen : Path, optional
        Kinds of bogus by visual inspection, see `families.bogus_kinds`.
    """
    weights, cards = output / "weights", output / "model-cards"
    weights.mkdir(exist_ok=True)
    cards.mkdir(exist_ok=True)
    prepared = preprocess([Triplet(*images, fwhm=ZTF_FWHM) for images in alerts.triplets], CONTRACT)
    simulated = _Simulated(judged, network)
    threshold = float(np.quantile(simulated.oddity, 1 - FLAGGED))
    fits = {head: _calibrate(head, alerts, held_out, simulated, resamples) for head in HEADS}
    results: dict[str, Any] = {"run": run, "models": {}}
    results |= _families(
        network, alerts, elsewhere, judged, held_out, foreign_held_out, fits["realbogus"], prepared.quality,
        threshold, test,
        kinds_seen,
    )  # fmt: skip
    rows = []
    for head, classes in HEADS.items():
        labels, fitted = real_targets(alerts)[head], fits[head]
        probabilities = fitted.calibration.apply(held_out[head])
        measured = measure(head, held_out[head], alerts, fitted, resamples)
        results["models"][head] = measured
        reference = fit_reference(
            prepared.tensor, probabilities, prepared.quality, classes, groups=alerts.groups
        )
        record = ModelRecord(
            name=head,
            version=VERSION,
            classes=classes,
            contract=CONTRACT,
            network={**network.config.to_dict(), "kinds": list(EXTRA["kinds"])},
            opset=OPSET,
            description=_DESCRIPTIONS[head],
            licence="Apache-2.0",
            citation=_CITATION,
            status="experimental" if head == "5class" else "stable",
            reference={**reference, "oddity": {"threshold": threshold}},
            metrics={**_headline(measured), **(_by_family(results) if head == "realbogus" else {})},
            training={
                "data": f"{len(alerts)} ZTF alerts of {len(np.unique(alerts.groups))} sky objects (1.01 "
                f"arcsec per pixel, 63x63 pixels); {int((elsewhere.binary >= 0).sum())} inspected stamps of "
                "Rubin's LSSTCam and of Subaru's HSC (0.17-0.2 arcsec per pixel); and simulated and "
                "semi-synthetic stamps, which only train.",
                "labels": _LABELS,
                "evidence": _EVIDENCE,
                "circular": _CIRCULAR,
                "split": f"{run['plan']['folds']} folds by sky object; every figure is of stamps whose "
                "object the judging network never saw. The shipped weights average "
                f"{run['plan']['seeds'] * len(run['plan']['cycles'])} trainings on all alerts.",
                "prior": "The probabilities are for classes of equal number, and for a mixture of the source "
                "survey and of simulated telescopes of every kind.",
                "reproduce": f"{run['command']} --data DATA --foreign RUBIN --test SETS --output RUN "
                f"--seed {run['seed']}",
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
        pictures = [] if head == "5class" else _pictures(cards, head, classifier)
        write_card(row, cards, pictures=pictures, name=f"{head}.md")
        rows.append(row)
    # A run's own folder is no registry yet: done again, it replaces what it made.
    (output / "weights_manifest.json").unlink(missing_ok=True)
    write_registry(weights, rows, manifest=output / "weights_manifest.json")
    (output / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


class _Simulated:
    """What the network says of simulated stamps that no training saw."""

    def __init__(self, chunks: list[Path], network: StampNetwork):
        parts = []
        for path in chunks:
            tensor, targets = load_chunk(path)
            parts.append((outputs(network, tensor.astype(np.float32)), targets))
        self.logits = {head: np.concatenate([found[head] for found, _ in parts]) for head in parts[0][0]}
        self.targets = {head: np.concatenate([wanted[head] for _, wanted in parts]) for head in parts[0][1]}
        self.oddity = _odds(self.logits)[self.targets["input"] == 0]


def _odds(logits: dict[str, np.ndarray]) -> np.ndarray:
    """Log odds that an input is broken, from the logits of its head."""
    return np.asarray(logits["input"][:, 1] - logits["input"][:, 0])


def _calibrate(
    head: str,
    alerts: Alerts,
    held_out: dict[str, np.ndarray],
    simulated: _Simulated,
    resamples: int,
) -> calibration.Calibrated:
    """Calibration, thresholds and sets of a head.

    The probabilities shall mean what they say on a telescope that nobody trained on: `realbogus` is
    calibrated on a mixture of the source survey and of simulated telescopes, each of half the weight. What
    the score alone calls real has no say. Thresholds and sets are of the source survey's alerts.
    """
    labels = real_targets(alerts)[head]
    known = labels >= 0
    fitted = calibration.calibrate(
        held_out[head][known],
        labels[known],
        HEADS[head],
        groups=alerts.groups[known],
        weights=_even_weights(labels[known]),
        resamples=resamples,
    )
    if head != "realbogus":
        return fitted
    sure = known & ((alerts.vetted >= 0) | (alerts.evidence == "catalogue") | (labels == 0))
    sources = [
        (held_out[head][sure], labels[sure], alerts.groups[sure]),
        (
            simulated.logits[head],
            simulated.targets[head],
            np.arange(len(simulated.targets[head])).astype(str),
        ),
    ]
    logits, wanted, groups, weights = [], [], [], []
    for z, y, group in sources:
        z, y, group = z[y >= 0], y[y >= 0], group[y >= 0]
        logits.append(z)
        wanted.append(y)
        groups.append(group)
        even = _even_weights(y)
        weights.append(even / even.sum())
    mixed = calibration.fit_calibration(
        np.concatenate(logits),
        np.concatenate(wanted),
        groups=np.concatenate(groups),
        weights=np.concatenate(weights) * sum(map(len, wanted)) / len(weights),
        resamples=resamples,
    )
    probabilities = mixed.apply(held_out[head][known])
    return calibration.Calibrated(
        mixed,
        calibration.fit_thresholds(
            probabilities, labels[known], HEADS[head], groups=alerts.groups[known], resamples=resamples
        ),
        calibration.fit_conformal(probabilities, labels[known], groups=alerts.groups[known]),
    )


def _families(
    network: StampNetwork,
    alerts: Alerts,
    elsewhere: Foreign,
    judged: list[Path],
    held_out: dict[str, np.ndarray],
    foreign_held_out: dict[str, np.ndarray],
    fitted: calibration.Calibrated,
    quality: np.ndarray,
    threshold: float,
    test: Path | None,
    kinds_seen: Path | None,
) -> dict[str, Any]:
    """The tables by family, see `families`."""

    def answers(logits: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        real = fitted.calibration.apply(logits["realbogus"])[:, 1]
        return {"real": real, "kinds": logits["kinds"], "odd": _odds(logits)}

    def judge(tensor: np.ndarray) -> dict[str, np.ndarray]:
        return answers(outputs(network, tensor))

    own = answers(held_out)
    rows, kinds = families.simulated_families(judged, judge)
    found = {
        "families": families.source_families(alerts, own["real"], quality),
        "simulated": rows,
        "kinds": {"simulated candidates": kinds},
        "oddity": {
            "threshold": threshold,
            "rows": families.oddities(alerts, own["odd"], threshold, judge),
        },
        "telescopes": families.telescopes(elsewhere, answers(foreign_held_out), test, threshold, judge),
    }
    if kinds_seen is not None:
        found["kinds"]["inspected ZTF alerts"] = families.bogus_kinds(kinds_seen, alerts, own["kinds"])
    return found


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
    return blocks


def _by_family(results: dict[str, Any]) -> dict[str, Any]:
    """Recall per magnitude for the card, at 5 % of the source survey's bogus."""
    bins = []
    for row in results["families"]["rows"]:
        if "magnitude" in row["family"] and "recall" in row:
            low, high = row["family"].replace("below magnitude ", "magnitude 0–").split()[1].split("–")
            found = row["recall"]["5%"]
            bins.append(
                {"from": float(low), "to": float(high), "recall": found["share"]}
                | {key: found[key] for key in ("low", "high", "n")}
            )

    def figure(part: dict[str, Any]) -> dict[str, Any]:
        return {"value": part["share"], **{key: part[key] for key in ("low", "high", "n")}}

    both = [*results["families"]["rows"], *results["simulated"]]
    simulated = {id(row) for row in results["simulated"]}

    def named(row: dict[str, Any]) -> str:
        return f"simulated: {row['family']}" if id(row) in simulated else row["family"]

    return {
        "recall per magnitude at 5 % false positives": {"by_brightness": {"real": bins}},
        "reals found at 0.5": {named(r): figure(r["recall"]["0.5"]) for r in both if "recall" in r},
        "bogus rejected at 0.5": {named(r): figure(r["rejection"]) for r in both if "rejection" in r},
        "right at 0.5 on other telescopes": {
            r["telescope"]: figure(r["accuracy"]) for r in results["telescopes"]
        },
        "area under the ROC curve on other telescopes": {
            r["telescope"]: {**r["auc"], "n": r["n"]} for r in results["telescopes"] if "auc" in r
        },
    }


def _pictures(folder: Path, head: str, classifier: Classifier) -> list[Path]:
    """Simulated stamps for a card: the surest mistakes, and for real or bogus a few of each family.

    Simulated, since real stamps belong to their surveys.
    """
    made = [_worst(folder / f"{head}_surest_mistakes_on_simulated_stamps.png", classifier)]
    if head == "realbogus":
        for number, (family, kind) in enumerate(_SHOWN.items()):
            drawn = simulate(24, 500 + number, telescope=ZTF_LIKE, kinds=[kind] * 24)
            fits = {"saturated": drawn.saturated, "trailed": drawn.trail > 2 * drawn.fwhm}
            rows = np.flatnonzero(fits.get(family.split()[0], drawn.snr > 5))[:6]
            triplets = [Triplet(*drawn.triplets[row]) for row in rows]
            made.append(_sheet(folder / f"simulated_{family.replace(' ', '_')}.png", triplets))
    return made


def _worst(path: Path, classifier: Classifier, count: int = 12) -> Path:
    """The surest mistakes on simulated stamps, as one picture."""
    drawn = simulate(600, 77, telescope=ZTF_LIKE)
    truth = drawn.morphology if "real" not in classifier.classes else np.where(drawn.real, "real", "bogus")
    truth = np.where(drawn.real | (truth != ""), truth, "bogus")
    rows = np.flatnonzero(np.isin(truth, classifier.classes))
    triplets = [Triplet(*drawn.triplets[row], fwhm=float(drawn.fwhm[row])) for row in rows]
    given = classifier.predict(triplets).probabilities
    right = given[np.arange(len(rows)), [classifier.classes.index(truth[row]) for row in rows]]
    worst = np.argsort(np.where(np.isfinite(right), right, np.inf))[:count]
    return _sheet(path, [triplets[row] for row in worst])


def _sheet(path: Path, triplets: list[Triplet], columns: int = 3) -> Path:
    """Science, reference and difference of each, three candidates a line."""
    strips = [np.pad(strip(triplet), 4, constant_values=GAP) for triplet in triplets]
    strips += [np.full_like(strips[0], GAP)] * (-len(strips) % columns)
    lines = [np.concatenate(strips[k : k + columns], axis=1) for k in range(0, len(strips), columns)]
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
