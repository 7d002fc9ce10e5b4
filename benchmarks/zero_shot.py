"""The bundled real/bogus model on a survey that it never saw, beside two controls that look at no shape.

    python benchmarks/zero_shot.py --data FOLDER

FOLDER holds ``stamps.npz`` (``triplets``, ``tick_mask``) and ``labels.csv`` (``label``, ``snid``, ``psf``)
of the human-labelled DECam set. Prints AUC, and accuracy at one half, with 95 % intervals that resample
whole sky objects; then the mean change of the probability under turns and flips, and the speed of the
bare network.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import numpy as np

from transientnet import Triplet, load_model
from transientnet.evaluation.metrics import roc_auc
from transientnet.evaluation.statistics import bootstrap
from transientnet.evaluation.summary import evaluate

FWHM_PER_SIGMA = 2.3548


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    folder = parser.parse_args().data
    with np.load(folder / "stamps.npz", allow_pickle=False) as archive:
        stamps, ticks = archive["triplets"].astype(np.float32), archive["tick_mask"]
    stamps[:, :, ticks] = np.nan
    with open(folder / "labels.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    labels = np.array([row["label"] == "real" for row in rows])
    groups = np.array([row["snid"] for row in rows])
    fwhm = FWHM_PER_SIGMA * np.array([float(row["psf"]) for row in rows])

    classifier = load_model("realbogus")
    print(f"{len(rows)} candidates of {len(np.unique(groups))} objects; {classifier.record.id}")
    for name, seeing in (("seeing given", fwhm), ("seeing estimated", [None] * len(rows))):
        triplets = [Triplet(*images, fwhm=f) for images, f in zip(stamps, seeing, strict=True)]
        probabilities = classifier.predict(triplets).probabilities
        figures = evaluate(probabilities, labels.astype(int), classifier.classes, groups=groups)["metrics"]
        for figure in ("auc", "accuracy"):
            print(f"{name}: {figure} " + "{value:.4f} ({low:.4f}-{high:.4f})".format(**figures[figure]))

    centre = np.nanmean(stamps[:, 2, 24:27, 24:27], axis=(1, 2)) - np.nanmedian(stamps[:, 2], axis=(1, 2))
    low, high = bootstrap(lambda w: roc_auc(centre, labels, w), groups, len(labels))
    print(
        f"control, difference centre minus median: auc {roc_auc(centre, labels):.4f} ({low:.4f}-{high:.4f})"
    )

    changes = []
    reference = classifier.predict([Triplet(*images, fwhm=4.7) for images in stamps[:200]]).probabilities
    for turn in range(1, 8):
        turned = np.rot90(stamps[:200], turn % 4, (2, 3))
        turned = turned[..., ::-1] if turn >= 4 else turned
        answers = classifier.predict([Triplet(*images, fwhm=4.7) for images in turned]).probabilities
        changes.append(np.abs(answers - reference).mean())
    print(f"turns and flips change the probability by {np.mean(changes):.1e} on average")

    tensor = np.random.default_rng(0).normal(size=(64, 3, 63, 63)).astype(np.float32)
    classifier.run(tensor)
    began = time.perf_counter()
    for _ in range(40):
        classifier.run(tensor)
    print(
        f"bare network: {2560 / (time.perf_counter() - began):.0f} stamps per second on {classifier.device}"
    )


if __name__ == "__main__":
    main()
