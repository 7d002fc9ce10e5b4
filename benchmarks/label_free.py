"""A telescope without labels: what its own night makes of the bundled real/bogus model.

    python benchmarks/label_free.py --data FOLDER [--model realbogus]

FOLDER holds ``decam``, ``rubin`` and ``ztf``, each with ``stamps.npz`` and ``labels.csv``. Labels judge; they
are shown to nothing that chooses. Prints, per set, AUC and accuracy at 0.5 before and after, at the best
threshold that labels would give, with 95 % intervals over sky objects; the wall time of each start and of
1,000 injections; and the recall of injected against that of real ZTF sources of the same signal-to-noise.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from transientnet import AdaptConfig, Triplet, adapt, load_model
from transientnet.evaluation.completeness import Recall, completeness
from transientnet.evaluation.metrics import roc_auc
from transientnet.evaluation.statistics import bootstrap

SNR_EDGES = (5, 7, 10, 20, 50, 100)


class Target(NamedTuple):
    """A night, and the labels that judge it: -1 where there is none."""

    name: str
    triplets: list[Triplet]
    truth: dict[str, np.ndarray]
    groups: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="realbogus")
    options = parser.parse_args()
    base = load_model(options.model)
    print(f"{base.record.id}, without a label")
    with tempfile.TemporaryDirectory() as folder:
        for number, target in enumerate(targets(options.data)):
            began = time.perf_counter()
            output = str(Path(folder) / f"night{number}")
            result = adapt(
                unlabelled=target.triplets, base=options.model, output=output, config=AdaptConfig(threads=2)
            )
            seconds = time.perf_counter() - began
            new = load_model(result.folder)
            print(f"\n{target.name}: {len(target.triplets)} candidates, {seconds:.0f} s")
            print(f"  {result.metrics['outcome']}")
            scores = [
                np.nan_to_num(model.predict(target.triplets).probabilities[:, 1].astype(float))
                for model in (base, new)
            ]
            for evidence, truth in target.truth.items():
                judge(evidence, scores, truth, target.groups)
    against_reals(options.data / "ztf", options.model)


def judge(evidence: str, scores: list[np.ndarray], truth: np.ndarray, groups: np.ndarray) -> None:
    """Print the figures of one set of labels."""
    known = truth >= 0
    y, groups = truth[known] == 1, groups[known]
    before, after = (values[known] for values in scores)
    print(f"  {evidence}: n {known.sum()}, {y.sum()} real")
    for name, p in (("AUC before", before), ("AUC after", after)):
        print(f"    {name:30} {interval(lambda w, p=p: roc_auc(p, y, w), groups, len(y))}")
    cuts = np.unique(before)
    best = float(cuts[int(np.argmax([((before >= cut) == y).mean() for cut in cuts]))])
    for name, p, cut in (
        ("accuracy at 0.5, before", before, 0.5),
        ("accuracy at 0.5, chosen", after, 0.5),
        (f"accuracy at {best:.2f}, the best", before, best),
    ):
        right = ((p >= cut) == y).astype(float)
        print(f"    {name:30} {interval(lambda w, r=right: float((w * r).sum() / w.sum()), groups, len(y))}")


def interval(figure: Any, groups: np.ndarray, n: int) -> str:
    low, high = bootstrap(figure, groups, n)
    return f"{figure(np.ones(n)):.3f} ({low:.3f}-{high:.3f})"


def against_reals(folder: Path, model: str) -> None:
    """Recall of injected and of real ZTF sources, in bins of signal-to-noise."""
    stamps, rows = read(folder)
    triplets = [Triplet(*images, id=str(k)) for k, images in enumerate(stamps)]
    began = time.perf_counter()
    result = completeness(triplets, model=model, injections=1000, snr=(SNR_EDGES[0], SNR_EDGES[-1]))
    print(f"\n{len(result)} injections into {len(triplets)} ZTF stamps: {time.perf_counter() - began:.0f} s")
    real = np.array(
        [
            (row["vetted"] == "real" or (not row["vetted"] and row["realbogus_evidence"] == "catalogue"))
            and row["realbogus"] != "bogus"
            and float(row["magpsf"] or 0) > 17
            for row in rows
        ]
    )
    p = np.nan_to_num(load_model(model).predict(triplets).probabilities[:, 1])
    print("signal-to-noise: recall of injected sources | of inspected or catalogue reals fainter than 17 mag")
    for low, high in pairwise(SNR_EDGES):
        injected = result.recall((result.snr >= low) & (result.snr < high))
        own = real & (result.night.snr >= low) & (result.night.snr < high)
        print(f"  {low:>3}-{high:<3} {injected} | {Recall.of(p[own] >= 0.5)}")


def targets(folder: Path) -> Iterator[Target]:
    """DECam, then Rubin and HSC, each as one night."""
    with np.load(folder / "decam" / "stamps.npz", allow_pickle=False) as archive:
        stamps, ticks = archive["triplets"].astype(np.float32), archive["tick_mask"].astype(bool)
    stamps[:, :, ticks] = np.nan
    rows = read(folder / "decam")[1]
    truth = {
        name: codes([row[column] for row in rows])
        for name, column in (("people's labels", "label"), ("inspected", "vetted"))
    }
    groups = np.array([row["snid"] for row in rows])
    yield Target("DECam", [Triplet(*images) for images in stamps], truth, groups)
    stamps, rows = read(folder / "rubin")
    triplets = []
    for images, row in zip(stamps, rows, strict=True):
        seen = np.isfinite(images).any(axis=0)
        y, x = (np.flatnonzero(seen.any(axis=axis)) for axis in (1, 0))
        inner = images[:, y[0] : y[-1] + 1, x[0] : x[-1] + 1]
        triplets.append(Triplet(*inner, fwhm=float(row["fwhm_sci_px"] or 0) or None))
    vetted = codes([row["vetted"] for row in rows])
    groups = np.array([row["diaObjectId"] for row in rows])
    sets = np.array([row["set"] for row in rows])
    for name, chosen in (
        ("Rubin LSSTCam", sets != "subaru_hsc"),
        ("Rubin LSSTCam, test only", sets == "rubin_lsstcam"),
        ("Subaru HSC", sets == "subaru_hsc"),
        ("Rubin and HSC as one night", sets != ""),
    ):
        picked = [triplets[k] for k in np.flatnonzero(chosen)]
        yield Target(name, picked, {"inspected": vetted[chosen]}, groups[chosen])


def read(folder: Path) -> tuple[np.ndarray, list[dict[str, str]]]:
    with np.load(folder / "stamps.npz", allow_pickle=False) as archive:
        stamps = archive["triplets"]
    with open(folder / "labels.csv", newline="", encoding="utf-8") as stream:
        return stamps, list(csv.DictReader(stream))


def codes(labels: list[str]) -> np.ndarray:
    return np.array([{"real": 1, "bogus": 0}.get(label, -1) for label in labels])


if __name__ == "__main__":
    main()
