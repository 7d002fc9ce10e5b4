"""The table by family: which candidates are found and rejected, by brightness, host, kind and telescope.

One accuracy says little of a classifier. Here stand the recall per magnitude and host, of trailed and
saturated sources and at a stamp's edge, the rejection per kind of bogus, and every telescope beside its
own score. Real stamps are judged by networks that never saw their sky object; simulated ones are of chunks
that no training saw.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from transientnet import Triplet, open_triplets
from transientnet.evaluation.metrics import balanced_accuracy, confusion_matrix, roc_auc
from transientnet.evaluation.statistics import bootstrap, wilson
from transientnet.prepare.preprocess import preprocess
from transientnet.triplet import QualityFlag

from .broken import BROKEN, break_flux
from .data import MORPHOLOGY, ZTF_FWHM, Alerts, Foreign, load_foreign
from .learn import CONTRACT, EXTRA

__all__ = ["bogus_kinds", "oddities", "simulated_families", "source_families", "telescopes"]

Judge = Callable[[np.ndarray], dict[str, np.ndarray]]
"""Of a prepared tensor: ``real``, the calibrated probability; ``kinds``, logits; ``odd``, log odds."""

MAGNITUDES = (0, 14, 15, 16, 17, 18, 19, 20, 23)
# A science core of so many counts is near the full well of the source survey's detectors.
_NEAR_FULL = 20_000.0
_PER_BROKEN = 300


def share(hits: np.ndarray) -> dict[str, Any]:
    """A share with its number and 95 % interval."""
    n, found = len(hits), int(hits.sum())
    low, high = wilson(found, n)
    return {"n": n, "share": found / n, "low": low, "high": high}


def source_families(alerts: Alerts, real: np.ndarray, quality: np.ndarray) -> dict[str, Any]:
    """Recall of catalogue-matched or inspected reals, and rejection of inspected bogus, of the source survey.

    Parameters
    ----------
    alerts : Alerts
    real : ndarray, shape (N,)
        Calibrated probability, out of fold.
    quality : ndarray of uint16, shape (N,)

    Returns
    -------
    dict
        ``thresholds`` at 1 and 5 % of the bogus; ``rows``: family, and recall at one half and at both
        thresholds, or the share of bogus below one half.
    """
    bogus = alerts.binary == 0
    truth = (alerts.binary == 1) & ((alerts.evidence == "catalogue") | (alerts.vetted == 1))
    thresholds = {
        f"{rate:.0%}": float(np.quantile(real[bogus], 1 - rate, method="higher")) for rate in (0.01, 0.05)
    }
    c = alerts.triplets.shape[-1] // 2
    sky = np.nanmedian(alerts.triplets[:, :2], axis=(2, 3))
    peak = np.nanmax(alerts.triplets[:, :2, c - 2 : c + 3, c - 2 : c + 3], axis=(2, 3)) - sky
    edge = (quality & (QualityFlag.PADDED | QualityFlag.MASKED)) != 0
    families = {"all": np.ones(len(alerts), bool)}
    families |= {
        f"magnitude {low}–{high}" if low else f"below magnitude {high}": (alerts.magnitude >= low)
        & (alerts.magnitude < high)
        for low, high in pairwise(MAGNITUDES)
    }
    families |= {name: alerts.morphology == code for code, name in enumerate(MORPHOLOGY[:3])}
    families |= {"near saturation": (peak > _NEAR_FULL).any(axis=1), "unobserved pixels": edge}
    rows = []
    for name, members in families.items():
        chosen = truth & members
        row: dict[str, Any] = {"family": name}
        if chosen.any():
            row["recall"] = {"0.5": share(real[chosen] >= 0.5)} | {
                rate: share(real[chosen] > level) for rate, level in thresholds.items()
            }
        rejected = (alerts.vetted == 0) & bogus & members
        if rejected.any():
            row["rejection"] = share(real[rejected] < 0.5)
        if len(row) > 1:
            rows.append(row)
    return {"thresholds": thresholds, "rows": rows}


def simulated_families(chunks: list[Path], judge: Judge) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Recall and rejection per kind of simulated candidate of any telescope, and the kinds' confusion."""
    parts: dict[str, list[np.ndarray]] = {}
    for path in chunks:
        with np.load(path, allow_pickle=False) as chunk:
            answers = judge(chunk["tensor"].astype(np.float32))
            truth = {name: chunk[name] for name in ("real", "cause", "kind", "snr", "trail", "saturated")}
            for name, values in {**truth, "p": answers["real"], "named": answers["kinds"].argmax(1)}.items():
                parts.setdefault(name, []).append(values)
    d = {name: np.concatenate(values) for name, values in parts.items()}
    real, bogus, p = d["real"] == 1, d["real"] == 0, d["p"]
    families = {
        "signal to noise below 7": real & (d["snr"] < 7),
        "signal to noise 7–30": real & (d["snr"] >= 7) & (d["snr"] < 30),
        "signal to noise 30–1,000": real & (d["snr"] >= 30) & (d["snr"] < 1000),
        "signal to noise above 1,000": real & (d["snr"] >= 1000),
        "saturated": real & d["saturated"],
        "trail shorter than two FWHM": real & (d["trail"] > 0) & (d["trail"] < 2),
        "trail of two FWHM or more": real & (d["trail"] >= 2),
    }
    rows = [
        {"family": name, "recall": {"0.5": share(p[which] >= 0.5)}}
        for name, which in families.items()
        if which.any()
    ]
    rows += [
        {"family": str(kind), "rejection": share(p[bogus & (d["kind"] == kind)] < 0.5)}
        for kind in np.unique(d["kind"][bogus])
    ]
    known = d["cause"] >= 0
    names = EXTRA["kinds"]
    confusion = confusion_matrix(d["cause"][known], d["named"][known], len(names))
    kinds = {
        "names": list(names),
        "confusion": np.asarray(confusion).astype(int).tolist(),
        "accuracy": share(d["cause"][known] == d["named"][known]),
        "balanced_accuracy": float(balanced_accuracy(confusion)),
    }
    return rows, kinds


def oddities(alerts: Alerts, sound: np.ndarray, threshold: float, judge: Judge) -> list[dict[str, Any]]:
    """Share of source alerts that are flagged, as they are and broken in every way.

    Parameters
    ----------
    sound : ndarray, shape (N,)
        Log odds of the alerts as they are, out of fold.
    """
    rng = np.random.default_rng(0)
    rows = [{"input": "as it is", "flagged": share(sound > threshold)}]
    for kind in BROKEN:
        chosen = rng.choice(len(alerts), min(_PER_BROKEN, len(alerts)), replace=False)
        broken, _ = break_flux(rng, alerts.triplets[chosen], [kind])
        made = preprocess([Triplet(*stamps, fwhm=ZTF_FWHM) for stamps in broken], CONTRACT)
        refused = ~made.usable
        flagged = refused | (judge(made.tensor)["odd"] > threshold)
        rows.append({"input": kind, "flagged": share(flagged)})
    return rows


def telescopes(
    elsewhere: Foreign, held_out: dict[str, np.ndarray], test: Path | None, threshold: float, judge: Judge
) -> list[dict[str, Any]]:
    """Every other telescope: its inspected rows, beside its own score where it has one.

    Parameters
    ----------
    elsewhere, held_out : Foreign and dict
        What was learnt from, and what the folds' networks that had not seen it say (as a `Judge` does).
    test : Path, optional
        Folder with ``decam``, ``rubin`` and ``packets``: never learnt from.
    threshold : float
        Of the flag.
    judge : callable
    """
    rows = []
    for name in np.unique(elsewhere.sets):
        which = elsewhere.sets == name
        own = np.array([float(row["reliability"] or "nan") for row in elsewhere.rows])[which]
        answers = {key: values[which] for key, values in held_out.items()}
        objects = np.array([row["diaObjectId"] for row in elsewhere.rows])[which]
        title = f"{name}, cross-validated"
        rows.append(_telescope(title, answers, elsewhere.binary[which], objects, threshold, own))
    if test is None:
        return rows
    untouched = load_foreign(test / "rubin", ("rubin_lsstcam",))
    own = np.array([float(row["reliability"] or "nan") for row in untouched.rows])
    objects = np.array([row["diaObjectId"] for row in untouched.rows])
    answers = judge(untouched.tensor)
    rows.append(_telescope("rubin_lsstcam", answers, untouched.binary, objects, threshold, own))
    tensor, labels, vetted, groups = _decam(test / "decam")
    answers = judge(tensor)
    rows.append(_telescope("DECam, inspected", answers, vetted, groups, threshold))
    rows.append(_telescope("DECam, people's labels", answers, labels, groups, threshold))
    for name, tensor, labels, groups in _packets(test / "packets"):
        rows.append(_telescope(name, judge(tensor), labels, groups, threshold))
    return rows


def _telescope(
    name: str,
    answers: dict[str, np.ndarray],
    labels: np.ndarray,
    groups: np.ndarray,
    threshold: float,
    own: np.ndarray | None = None,
) -> dict[str, Any]:
    known = labels >= 0
    p, y, groups = answers["real"][known], labels[known] == 1, groups[known]
    odd = answers["odd"][known] > threshold
    wrong = (p >= 0.5) != y
    row: dict[str, Any] = {
        "telescope": name,
        "n": int(known.sum()),
        "reals": int(y.sum()),
        "accuracy": share(~wrong),
        "recall": share(p[y] >= 0.5) if y.any() else None,
        "rejection": share(p[~y] < 0.5) if (~y).any() else None,
        "flagged": share(odd),
        "wrong if flagged": share(wrong[odd]) if odd.any() else None,
        "wrong if not": share(wrong[~odd]) if (~odd).any() else None,
    }
    if y.any() and not y.all():
        low, high = bootstrap(lambda w: roc_auc(p, y, w), groups, len(y))
        row["auc"] = {"value": roc_auc(p, y), "low": low, "high": high}
        score = None if own is None else own[known]
        if score is not None and np.isfinite(score).any():
            seen = np.isfinite(score)
            low, high = bootstrap(lambda w: roc_auc(score[seen], y[seen], w), groups[seen], int(seen.sum()))
            row["own"] = {
                "n": int(seen.sum()),
                "value": roc_auc(score[seen], y[seen]),
                "low": low,
                "high": high,
            }
            row["own accuracy"] = share((score[seen] >= 0.5) == y[seen])
    return row


def _decam(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Tensor, people's labels, inspected labels and sky objects of the DECam set."""
    with np.load(folder / "stamps.npz", allow_pickle=False) as archive:
        stamps = archive["triplets"].astype(np.float32)
        stamps[:, :, archive["tick_mask"]] = np.nan
    with open(folder / "labels.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    code = {"real": 1, "bogus": 0}
    # The table's psf is the Gaussian sigma in pixels.
    triplets = [
        Triplet(*images, fwhm=2.3548 * float(row["psf"])) for images, row in zip(stamps, rows, strict=True)
    ]
    return (
        preprocess(triplets, CONTRACT).tensor,
        np.array([code[row["label"]] for row in rows]),
        np.array([code.get(row["vetted"], -1) for row in rows]),
        np.array([row["snid"] for row in rows]),
    )


def _packets(folder: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Survey, tensor, inspected labels and ids of the loose packets."""
    with open(folder / "vetted.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    for survey in sorted({row["folder"] for row in rows}):
        mine = [row for row in rows if row["folder"] == survey]
        triplets, labels = [], []
        for file in sorted({row["file"] for row in mine}):
            wanted = {row["id"]: row["vetted"] for row in mine if row["file"] == file}
            found = [t for t in open_triplets(folder / survey / file) if t.error is None]
            for triplet in found:
                label = wanted.get(triplet.id, next(iter(wanted.values())) if len(found) == 1 else "")
                triplets.append(triplet)
                labels.append({"real": 1, "bogus": 0}.get(label, -1))
        prepared = preprocess(triplets, CONTRACT)
        usable = prepared.usable
        names = np.array([f"{survey} {k}" for k in range(len(triplets))])
        yield survey, prepared.tensor[usable], np.array(labels)[usable], names[usable]


def bogus_kinds(table: Path, alerts: Alerts, kinds: np.ndarray) -> dict[str, Any]:
    """How often the kind that the network names is that of visual inspection.

    Parameters
    ----------
    table : Path
        Columns ``row`` (of the alerts) and ``kind``.
    kinds : ndarray, shape (N, K)
        Logits of the alerts, out of fold.
    """
    with open(table, newline="", encoding="utf-8") as stream:
        rows = [(int(row["row"]), row["kind"]) for row in csv.DictReader(stream)]
    names = EXTRA["kinds"]
    index = np.array([row for row, kind in rows if kind in names and row < len(alerts)])
    truth = np.array([names.index(kind) for row, kind in rows if kind in names and row < len(alerts)])
    named = kinds[index].argmax(axis=1)
    confusion = np.asarray(confusion_matrix(truth, named, len(names))).astype(int)
    return {"names": list(names), "confusion": confusion.tolist(), "accuracy": share(named == truth)}
