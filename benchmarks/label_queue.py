"""What the label page's queue is worth: AUC and accuracy against labels given, in its order and at random.

For each draw the sky objects are split in two; labels are given to the one part in the order of the page's
queue (a fifth of it random, the head refitted and the queue ordered anew as the page does) or at random,
and the refitted head is judged on the other part, whose objects nothing has seen but the scale of the
features. DECam has labels by people; of Rubin and HSC the blind visual inspection, without the set
``rubin_lsstcam`` that nothing may be chosen by: it is shown beside, as a test alone.

    python benchmarks/label_queue.py --data ../shared/data --draws 20
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import numpy as np

from training_reference.data import unframed
from transientnet import Triplet, load_model
from transientnet.evaluation.metrics import roc_auc
from transientnet.evaluation.statistics import t_test
from transientnet.label_page.head import folds_of, refit, start_of
from transientnet.label_page.queue import is_random, most_teaching
from transientnet.label_page.session import EACH
from transientnet.models.classifier import Classifier
from transientnet.prepare.preprocess import preprocess

SIZES = (0, 15, 25, 50, 100, 150)
SHARE, HELD = 0.2, 0.4
FWHM_PER_SIGMA = 2.3548


class Night:
    """Candidates of one telescope: what the network makes of them, and what people said."""

    def __init__(
        self,
        classifier: Classifier,
        triplets: list[Triplet],
        y: np.ndarray,
        groups: np.ndarray,
        extra: np.ndarray,
    ):
        parts = [preprocess(triplets[k : k + 64], classifier.contract) for k in range(0, len(triplets), 64)]
        outputs = [classifier.run(part.tensor) for part in parts]
        usable = np.concatenate([part.usable for part in parts])
        probabilities = np.concatenate([classifier.probabilities(output[0]) for output in outputs])
        features = np.concatenate([output[-1] for output in outputs])
        columns = [classifier.classes.index(name) for name in ("bogus", "real")]
        self.p, self.y, self.groups, self.extra = (
            a[usable] for a in (probabilities[:, columns], y, groups, extra)
        )
        self.start = start_of(features[usable], self.p, ("bogus", "real"), ("bogus", "real"))


def decam(folder: Path, classifier: Classifier) -> Night:
    with np.load(folder / "stamps.npz", allow_pickle=False) as archive:
        stamps, ticks = archive["triplets"].astype(np.float32), archive["tick_mask"].astype(bool)
    stamps[:, :, ticks] = np.nan
    rows = _rows(folder)
    triplets = [
        Triplet(*images, pixel_scale=0.263, fwhm=FWHM_PER_SIGMA * float(row["psf"]))
        for images, row in zip(stamps, rows, strict=True)
    ]
    y = np.array([row["label"] == "real" for row in rows], np.int64)
    return Night(classifier, triplets, y, np.array([row["snid"] for row in rows]), np.zeros(len(rows), bool))


def rubin(folder: Path, classifier: Classifier) -> Night:
    with np.load(folder / "stamps.npz", allow_pickle=False) as archive:
        stamps = archive["triplets"]
    rows = [(k, row) for k, row in enumerate(_rows(folder)) if row["vetted"]]
    triplets = []
    for k, row in rows:
        numbers = {"pixel_scale": row["pixel_scale"], "fwhm": row["fwhm_sci_px"]}
        triplets.append(Triplet(*unframed(stamps[k]), **{name: float(v) for name, v in numbers.items() if v}))
    y = np.array([row["vetted"] == "real" for _, row in rows], np.int64)
    extra = np.array([row["set"] == "rubin_lsstcam" for _, row in rows])
    return Night(classifier, triplets, y, np.array([row["diaObjectId"] for _, row in rows]), extra)


def _rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "labels.csv", newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def batch_of(
    night: Night, order: str, p: np.ndarray, given: list[int], free: np.ndarray, rng: np.random.Generator
) -> list[int]:
    """The next rows to label."""
    drawn = rng.permutation(free).tolist()
    if order == "random":
        return drawn[:EACH]
    chosen: list[int] = []
    teaching = most_teaching(night.start, p, free, given, EACH)
    while len(chosen) < min(EACH, len(free)):
        random = is_random(len(chosen), len(given), SHARE)
        chosen.append(next(row for row in (drawn if random else teaching) if row not in chosen))
    return chosen


def one_draw(night: Night, order: str, seed: int) -> tuple[dict[int, tuple[float, ...]], float]:
    """AUC and accuracy by number of labels (and on the extra rows), and the slowest refit in seconds."""
    rng = np.random.default_rng(seed)
    objects = rng.permutation(np.unique(night.groups[~night.extra]))
    held = np.isin(night.groups, objects[: round(HELD * len(objects))])
    test, free = held & ~night.extra, np.flatnonzero(~held & ~night.extra)
    p, given, found, slowest = night.p.astype(float), [], {}, 0.0

    def judge(count: int, p: np.ndarray) -> None:
        figures = []
        for rows in (test, night.extra):
            if rows.any():
                figures += [
                    roc_auc(p[rows, 1], night.y[rows] == 1),
                    float(((p[rows, 1] >= 0.5) == night.y[rows]).mean()),
                ]
        found[count] = tuple(figures)

    judge(0, p)
    learned = p
    while len(given) < SIZES[-1] and len(free):
        new = batch_of(night, order, p, given, free, rng)
        free = np.setdiff1d(free, new)
        for k in range(len(new)):
            rows = np.array([*given, *new[: k + 1]])
            if len(rows) in SIZES or k == len(new) - 1:
                began = time.perf_counter()
                if len(np.unique(night.y[rows])) == 2:
                    folds = folds_of(night.groups[rows].tolist())
                    learned = refit(night.start, rows, night.y[rows], folds).probabilities
                slowest = max(slowest, time.perf_counter() - began)
            if len(rows) in SIZES:
                judge(len(rows), learned)
        given += new
        p = learned
    return found, slowest


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=20)
    options = parser.parse_args()
    classifier = load_model("realbogus", threads=1)
    for name, read in (("decam", decam), ("rubin", rubin)):
        night = read(options.data / name, classifier)
        print(
            f"{name}: {len(night.y)} candidates of {len(np.unique(night.groups))} objects; "
            f"{classifier.record.id}"
        )
        table = {}
        for order in ("queue", "random"):
            draws = [one_draw(night, order, seed) for seed in range(options.draws)]
            sizes = [n for n in SIZES if all(n in found for found, _ in draws)]
            table[order] = {n: np.array([found[n] for found, _ in draws]) for n in sizes}
            for n, values in table[order].items():
                error = values.std(0, ddof=1) / np.sqrt(len(values))
                figures = [
                    f"{what} {m:.4f} ± {e:.4f}"
                    for what, m, e in zip(
                        ("AUC", "accuracy", "rubin_lsstcam AUC", "accuracy"),
                        values.mean(0),
                        error,
                        strict=False,
                    )
                ]
                print(f"  {order:6} {n:4} labels: {', '.join(figures)}")
            print(f"  {order:6} slowest refit: {max(slowest for _, slowest in draws):.2f} s")
        for few, many in ((15, 15), (25, 25), (50, 50), (100, 100), (50, 150)):
            if few in table["queue"] and many in table["random"]:
                for k, what in enumerate(("AUC", "accuracy")):
                    test = t_test(table["queue"][few][:, k], table["random"][many][:, k], "paired")
                    low, high = test.interval
                    print(
                        f"  {few} of the queue less {many} random: {what} {test.difference:+.4f} "
                        f"({low:+.4f} to {high:+.4f}), p {test.p:.3f}"
                    )


if __name__ == "__main__":
    main()
