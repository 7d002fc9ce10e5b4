"""A telescope without labels: what its own night makes of the bundled real/bogus model.

    python benchmarks/label_free.py --data FOLDER [--model realbogus] [--page docs/explanation/transfer.md]

FOLDER holds ``decam``, ``rubin`` and ``ztf``, each with ``stamps.npz`` and ``labels.csv``. Labels judge; they
are shown to nothing that chooses. Prints the tables of the page, with ``--page`` it replaces those there: AUC
and accuracy at 0.5 before and after, and at the best threshold that labels would give, with 95 % intervals
over sky objects; and the recall of injected against that of real ZTF sources of the same signal-to-noise.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from training_reference.data import unframed
from training_reference.install import replace_between
from transientnet import AdaptConfig, Triplet, adapt, load_model
from transientnet.evaluation.completeness import Recall, completeness
from transientnet.evaluation.metrics import roc_auc
from transientnet.evaluation.statistics import bootstrap
from transientnet.files.atomic import write_atomically

SNR_EDGES = (5, 7, 10, 20, 50, 100)


class Target(NamedTuple):
    """A night, and the labels that judge it: -1 where there is none."""

    name: str
    triplets: list[Triplet]
    truth: dict[str, np.ndarray]
    groups: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="realbogus")
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    base = load_model(options.model)
    lines = [
        f"With `{base.record.id}` (accuracy in %, with 95 % intervals over sky objects):",
        "",
        "| Night | Candidates | Judged by | n | AUC | at 0.5, before | at 0.5, chosen "
        "| at the best threshold | its 0.5 was |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for number, target in enumerate(targets(options.data)):
            began = time.process_time()
            output = str(Path(folder) / f"night{number}")
            result = adapt(
                unlabelled=target.triplets, base=options.model, output=output, config=AdaptConfig(threads=2)
            )
            seconds = time.process_time() - began
            print(
                f"{target.name}: {seconds:.0f} s of processor time. {result.metrics['outcome']}", flush=True
            )
            before, after = (
                np.nan_to_num(model.predict(target.triplets).probabilities[:, 1].astype(float))
                for model in (base, load_model(result.folder))
            )
            moved = "the same" if result.figures.fit.reason else f"{expit(result.figures.fit.threshold):.2f}"
            for evidence, truth in target.truth.items():
                cells = judge(before, after, truth, target.groups)
                lines.append(
                    f"| {target.name} | {len(before)} | {evidence} | {' | '.join(cells)} | {moved} |"
                )
    lines += ["", *against_reals(options.data / "ztf", options.model)]
    text = "\n".join(lines)
    print(f"\n{text}")
    if options.page is not None:
        page = options.page.read_text(encoding="utf-8")
        write_atomically(options.page, replace_between(page, "label-free", text))


def judge(before: np.ndarray, after: np.ndarray, truth: np.ndarray, groups: np.ndarray) -> list[str]:
    """Cells of one set of labels: their number, AUC, and accuracy before, after and at best."""
    known = truth >= 0
    y, before, after, groups = truth[known] == 1, before[known], after[known], groups[known]
    moved = abs(roc_auc(before, y) - roc_auc(after, y))
    if moved > 1e-3:  # single precision near 0 and 1 may tie what was apart
        raise SystemExit(f"the map is not monotone: the AUC changed by {moved:.4f}")
    best = max(((before >= cut) == y).mean() for cut in np.unique(before))
    accuracies = [interval(((p >= 0.5) == y).astype(float), groups) for p in (before, after)]
    return [str(known.sum()), f"{roc_auc(before, y):.3f}", *accuracies, f"{100 * best:.1f}"]


def interval(right: np.ndarray, groups: np.ndarray) -> str:
    low, high = bootstrap(lambda w: float((w * right).sum() / w.sum()), groups, len(right))
    return f"{100 * right.mean():.1f} ({100 * low:.1f}–{100 * high:.1f})"


def expit(logit: float) -> float:
    return float(1 / (1 + np.exp(-logit)))


def against_reals(folder: Path, model: str) -> list[str]:
    """Recall of injected and of real ZTF sources, in bins of signal-to-noise."""
    stamps, rows = read(folder)
    triplets = [Triplet(*images, id=str(k)) for k, images in enumerate(stamps)]
    began = time.process_time()
    result = completeness(triplets, model=model, injections=1000, snr=(SNR_EDGES[0], SNR_EDGES[-1]))
    print(
        f"{len(result)} injections into {len(triplets)} ZTF stamps: {time.process_time() - began:.1f} s of "
        "processor time",
        flush=True,
    )
    real = np.array(
        [
            (row["vetted"] == "real" or (not row["vetted"] and row["realbogus_evidence"] == "catalogue"))
            and row["realbogus"] != "bogus"
            and float(row["magpsf"] or 0) > 17
            for row in rows
        ]
    )
    p = np.nan_to_num(load_model(model).predict(triplets).probabilities[:, 1])
    lines = [
        "Recall on ZTF, of injected sources and of inspected or catalogue reals fainter than 17 mag:",
        "",
        "| Signal-to-noise | injected | real |",
        "| --- | --- | --- |",
    ]
    for low, high in pairwise(SNR_EDGES):
        injected = result.recall((result.snr >= low) & (result.snr < high))
        own = real & (result.night.snr >= low) & (result.night.snr < high)
        lines.append(f"| {low}–{high} | {injected} | {Recall.of(p[own] >= 0.5)} |")
    return lines


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
        triplets.append(Triplet(*unframed(images), fwhm=float(row["fwhm_sci_px"] or 0) or None))
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
