"""Rubin's reliability, this package's p(real), and one behind the other, on inspected Rubin and HSC alerts.

    python benchmarks/rubin_reliability.py --data FOLDER [--model realbogus] [--page docs/how-to/rubin.md]

FOLDER holds ``stamps.npz`` (``triplets``, NaN outside the native stamp) and ``labels.csv`` (``set``,
``vetted``, ``reliability``, ``diaObjectId``, ``visit``, ``fwhm_sci_px``). Prints the
tables of the page; with ``--page`` it replaces those there. The cuts are those that brokers use, chosen
without a look at these labels.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from training_reference.data import unframed
from training_reference.install import replace_between
from transientnet import Triplet, load_model
from transientnet.evaluation.completeness import real_column
from transientnet.evaluation.metrics import roc_auc
from transientnet.evaluation.statistics import bootstrap, clopper_pearson
from transientnet.files.atomic import write_atomically
from transientnet.models.classifier import Classifier

SETS = {
    "rubin_lsstcam": "LSSTCam, commissioning and early survey",
    "rubin_lsstcam_2026": "LSSTCam 2026, one broker's choice",
    "subaru_hsc": "Subaru/HSC, Rubin's pipeline",
}
LEARNT = ("LSSTCam", "HSC")
"""Words of a model's record that say it has learnt from the last two sets."""

Bools = npt.NDArray[np.bool_]
Scores = npt.NDArray[np.float64]


class Alerts(NamedTuple):
    """Inspected alerts of one set: N labels, both scores (p NaN where refused), objects and visits."""

    real: Bools
    reliability: Scores
    p: Scores
    objects: npt.NDArray[Any]
    visits: int


CUTS: dict[str, Callable[[Alerts], Bools]] = {
    "reliability ≥ 0.5": lambda a: a.reliability >= 0.5,
    "p(real) ≥ 0.5": lambda a: a.p >= 0.5,
    "reliability ≥ 0.5, then p(real) ≥ 0.5": lambda a: (a.reliability >= 0.5) & (a.p >= 0.5),
    "reliability ≥ 0.1, then p(real) ≥ 0.5": lambda a: (a.reliability >= 0.1) & (a.p >= 0.5),
}


def read(folder: Path, classifier: Classifier) -> dict[str, Alerts]:
    with open(folder / "labels.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    with np.load(folder / "stamps.npz", allow_pickle=False) as archive:
        stamps = archive["triplets"]
    triplets = []
    for images, row in zip(stamps, rows, strict=True):
        triplets.append(
            Triplet(*unframed(images), fwhm=float(row["fwhm_sci_px"]) if row["fwhm_sci_px"] else None)
        )
    p = real_column(classifier)(classifier.predict(triplets).probabilities)
    found = {}
    for name in SETS:
        chosen = [
            k for k, row in enumerate(rows) if row["set"] == name and row["vetted"] in ("real", "bogus")
        ]
        found[name] = Alerts(
            np.array([rows[k]["vetted"] == "real" for k in chosen]),
            np.array([float(rows[k]["reliability"]) for k in chosen]),
            p[chosen],
            np.array([rows[k]["diaObjectId"] for k in chosen]),
            len({rows[k]["visit"] for k in chosen}),
        )
    return found


def auc(scores: Scores, alerts: Alerts, where: Bools) -> str:
    """AUC with a 95 % interval that resamples objects; rows without a score come last."""
    scores, real, objects = np.nan_to_num(scores)[where], alerts.real[where], alerts.objects[where]
    if real.all() or not real.any():
        return "–"
    low, high = bootstrap(lambda w: roc_auc(scores, real, w), objects, len(real))
    return f"{roc_auc(scores, real):.3f} [{low:.3f}, {high:.3f}]"


def share(kept: Bools, of: Bools) -> str:
    hits, n = int((kept & of).sum()), int(of.sum())
    low, high = clopper_pearson(hits, n)
    return f"{hits} of {n} [{low:.0%}, {high:.0%}]"


def tables(found: dict[str, Alerts], classifier: Classifier) -> str:
    training = str(classifier.record.training.get("data", ""))
    learnt = any(word in training for word in LEARNT)
    lines = [
        f"Model {classifier.record.id}. 95 % intervals in brackets: of AUC over sky objects, of shares "
        "exact, as if each alert were of another object.",
        "",
        "| alerts | real (objects), bogus | visits | AUC of reliability | AUC of p(real) "
        "| behind reliability ≥ 0.5: AUC of reliability | and of p(real) |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, alerts in found.items():
        every, behind = np.ones(len(alerts.real), bool), alerts.reliability >= 0.5
        cells = [
            auc(scores, alerts, where)
            for where in (every, behind)
            for scores in (alerts.reliability, alerts.p)
        ]
        objects = len(np.unique(alerts.objects[alerts.real]))
        counts = f"{alerts.real.sum()} ({objects}), {(~alerts.real).sum()}"
        mark = " †" if learnt and name != "rubin_lsstcam" else ""
        lines.append(f"| {SETS[name]}{mark} | {counts} | {alerts.visits} | {' | '.join(cells)} |")
    lines += ["", "| alerts | cut | reals kept | bogus kept |", "| --- | --- | --- | --- |"]
    for name, alerts in found.items():
        for cut, kept in CUTS.items():
            cells = [share(kept(alerts), of) for of in (alerts.real, ~alerts.real)]
            lines.append(f"| {SETS[name]} | {cut} | {' | '.join(cells)} |")
    better = [
        name
        for name, alerts in found.items()
        if roc_auc(alerts.reliability, alerts.real) > roc_auc(np.nan_to_num(alerts.p), alerts.real)
    ]
    for score, names in (("Reliability", better), ("p(real)", [n for n in found if n not in better])):
        if names:
            lines += ["", f"{score} ranks better on: {'; '.join(SETS[name] for name in names)}."]
    if learnt:
        lines += ["", "† The model has learnt from stamps of this set: its figures there flatter it."]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="realbogus")
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    classifier = load_model(options.model)
    text = tables(read(options.data, classifier), classifier)
    print(text)
    if options.page is not None:
        page = options.page.read_text(encoding="utf-8")
        write_atomically(options.page, replace_between(page, "reliability", text))


if __name__ == "__main__":
    main()
