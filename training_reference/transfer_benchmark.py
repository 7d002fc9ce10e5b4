"""Does transfer beat training from scratch on another telescope? One command, one table.

    python -m training_reference.transfer_benchmark --data DATA --run RUN

Source ZTF, target DECam (human labels, split by sky object): with 5, 15, 50, 150 labels per class and
with all, over many seeds, each of these learns the same labels and is judged on the same stamps, a
third of the sky objects that it never saw:

transfer, probe, scratch
    The arms of ``transientnet adapt --compare-scratch``.
zero-shot
    The base model as it is.
forest
    A random forest on the normalised central pixels of the three stamps.
grey levels
    Boosted trees on nine numbers per stamp that know no shape (median, mean and spread of each channel
    as stored). The set was scaled channel by channel, which leaks the label: what these reach says
    nothing about sources.
untrained
    Difference stamp: centre minus median. No training at all.

Then the target is the 2018 nights of ZTF, with three and with four classes. Their bases are trained here
without the sky objects of those nights, from the simulation and pre-training of RUN, the output of a
finished ``python -m training_reference train``.

Every finished trial is kept in ``RUN/transfer/trials.jsonl``; a run that was stopped goes on from there. The
tables go into ``docs/benchmarks.md``. The target's stamps stay where they are: nothing trained on them is
kept in the repository.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from transientnet.evaluation.metrics import (
    accuracy,
    balanced_accuracy,
    confusion_matrix,
    false_negative_rate,
    matthews,
    roc_auc,
)
from transientnet.evaluation.statistics import cohen_d, t_test
from transientnet.labels.checks import prepare
from transientnet.models.registry.resolve import resolve
from transientnet.transfer.config import AdaptConfig
from transientnet.triplet import Triplet

from .data import MORPHOLOGY, load, load_foreign
from .install import ROOT, replace_between
from .pretraining import pretrained

ARMS = ("transfer", "probe", "scratch", "zero-shot", "forest", "grey levels", "untrained")
BASED = ("transfer", "probe", "zero-shot")
"""Arms that start from the base model."""

METRICS = {
    "auc": "AUC",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "mcc": "MCC",
    "fnr": "Lost at 5 % FPR",
}

SIZES = (5, 15, 50, 150, 0)
"""Labels per class; 0 is all of them."""

SEEDS = {5: 10, 15: 10, 50: 10, 150: 10, 0: 4}
MORPHOLOGY_SEEDS = {15: 10, 0: 5}
QUICK_SEEDS = {5: 3, 15: 3, 50: 2}

TEST_SHARE = 0.35
FEWEST = 3
"""Labels of a class, to learn from at least; the 2018 nights have six hosted candidates in all."""

YEAR_2018 = (2458119.5, 2458484.5)


class Trial(NamedTuple):
    """One arm on one draw of labels."""

    arm: str
    size: int
    seed: int


@dataclass(frozen=True)
class Target:
    """A labelled set: normalised stamps, the stored pixels, classes and sky objects."""

    name: str
    x: np.ndarray
    raw: np.ndarray
    y: np.ndarray
    groups: np.ndarray
    classes: tuple[str, ...]


@cache
def load_target(data: str, base: str, morphology: bool) -> Target:
    record = resolve(base)[1]
    if morphology:
        alerts = load(Path(data) / "ztf")
        label = np.array([record.classes.index(n) if n in record.classes else -1 for n in MORPHOLOGY])
        y = np.where(alerts.morphology >= 0, label[alerts.morphology], -1)
        keep = (alerts.jd >= YEAR_2018[0]) & (alerts.jd < YEAR_2018[1]) & (y >= 0)
        raw, groups, y = alerts.triplets[keep], alerts.groups[keep], y[keep]
        triplets = [Triplet(*stamps) for stamps in raw]
        name = "ZTF 2018"
    else:
        with np.load(Path(data) / "decam" / "stamps.npz") as arrays:
            raw = arrays["triplets"].astype(np.float32)
            raw[:, :, arrays["tick_mask"].astype(bool)] = np.nan
        with open(Path(data) / "decam" / "labels.csv", newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        # The table's psf is the Gaussian sigma in pixels.
        triplets = [
            Triplet(*stamps, pixel_scale=0.263, fwhm=2.355 * float(row["psf"]))
            for stamps, row in zip(raw, rows, strict=True)
        ]
        y = np.array([record.classes.index(row["label"]) for row in rows])
        groups = np.array([row["snid"] for row in rows])
        name = "DECam"
    prepared = prepare(triplets, record.contract)
    if not prepared.usable.all():
        sys.exit(f"{name}: {int((~prepared.usable).sum())} stamps cannot be used")
    return Target(name, prepared.tensor, raw, y, groups, record.classes)


def draw(target: Target, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to learn from and rows to be judged on; no sky object is in both, and every class is in each."""
    rng = np.random.default_rng(seed)
    k, held = len(target.classes), np.ones(len(target.y), bool)
    while (
        np.bincount(target.y[~held], minlength=k).min() < FEWEST
        or np.bincount(target.y[held], minlength=k).min() == 0
    ):
        objects = rng.permutation(np.unique(target.groups))
        held = np.isin(target.groups, objects[: round(TEST_SHARE * len(objects))])
    learn = rng.permutation(np.flatnonzero(~held))
    if size:
        learn = np.concatenate([learn[target.y[learn] == c][:size] for c in range(len(target.classes))])
    return learn, np.flatnonzero(held)


def measure(scores: np.ndarray, truth: np.ndarray, decided: bool) -> dict[str, float]:
    """Figures of class scores (N, K); undecided scores have no threshold, so no accuracy."""
    k = scores.shape[1]
    positives = [1] if k == 2 else range(k)
    found = {"auc": float(np.mean([roc_auc(scores[:, c], truth == c) for c in positives]))}
    if k == 2:
        found["fnr"] = false_negative_rate(scores[:, 1], truth == 1, 0.05)
    if decided:
        matrix = confusion_matrix(truth, scores.argmax(axis=1), k)
        found |= {
            "accuracy": accuracy(matrix),
            "balanced_accuracy": balanced_accuracy(matrix),
            "mcc": matthews(matrix),
        }
    return found


def centre_minus_median(raw: np.ndarray) -> np.ndarray:
    """(N, 2) scores of the difference stamps."""
    middle = raw.shape[-1] // 2
    centre = raw[:, 2, middle - 1 : middle + 2, middle - 1 : middle + 2].mean(axis=(1, 2))
    score = centre - np.nanmedian(raw[:, 2], axis=(1, 2))
    return np.stack([-score, score], axis=1)


def run_trial(trial: Trial, data: str, base: str, morphology: bool) -> dict[str, float]:
    """Train one arm on one draw and judge it."""
    target = load_target(data, base, morphology)
    learn, test = draw(target, trial.size, trial.seed)
    truth = target.y[test]
    if trial.arm == "untrained":
        return measure(centre_minus_median(target.raw[test]), truth, decided=False)
    if trial.arm in ("forest", "grey levels"):
        return measure(_trees(trial, target, learn, test), truth, decided=True)
    return measure(_network(trial, target, base, learn, test), truth, decided=True)


def _trees(trial: Trial, target: Target, learn: np.ndarray, test: np.ndarray) -> np.ndarray:
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

    if trial.arm == "forest":
        middle = target.x.shape[-1] // 2
        pixels = target.x[:, :, middle - 5 : middle + 6, middle - 5 : middle + 6].reshape(len(target.x), -1)
        model = RandomForestClassifier(
            400, min_samples_leaf=2, class_weight="balanced", random_state=trial.seed
        )
    else:
        axes = (2, 3)
        pixels = np.concatenate(
            [np.nanmedian(target.raw, axes), np.nanmean(target.raw, axes), np.nanstd(target.raw, axes)],
            axis=1,
        )
        leaf = max(2, min(20, len(learn) // 10))
        model = HistGradientBoostingClassifier(max_iter=150, min_samples_leaf=leaf, random_state=trial.seed)
    model.fit(pixels[learn], target.y[learn])
    return model.predict_proba(pixels[test])


def _network(trial: Trial, target: Target, base: str, learn: np.ndarray, test: np.ndarray) -> np.ndarray:
    import torch

    from transientnet.models.calibration import apply
    from transientnet.transfer.experiment import train_arm
    from transientnet.transfer.probe import load_base
    from transientnet.transfer.training import Survey, class_weights, logits_of

    torch.set_num_threads(1)
    config = AdaptConfig(seed=trial.seed, device="cpu")
    path, record = resolve(base)
    start = load_base(path, record, target.classes)
    x = torch.from_numpy(target.x[test])
    if trial.arm == "zero-shot":
        return apply(logits_of(start, x).numpy(), record.calibration)
    y = target.y[learn]
    survey = Survey(
        torch.from_numpy(target.x[learn]),
        torch.from_numpy(y),
        torch.from_numpy(class_weights(y, np.ones(len(y)), config.balance)),
        target.groups[learn],
    )
    network, calibration = train_arm(
        trial.arm, start, survey, config, record.contract, trial.seed, ready=True
    )
    return calibration.apply(logits_of(network, x).numpy())


# --- the table ---------------------------------------------------------------------------------------


def summarise(trials: dict[Trial, dict[str, float]]) -> dict[str, Any]:
    """Means with 95 % intervals over the seeds, and tests of transfer against the others."""
    table: list[dict[str, Any]] = []
    tests: list[dict[str, Any]] = []
    for size in SIZES:
        by_arm = {
            arm: {t.seed: found for t, found in trials.items() if (t.arm, t.size) == (arm, size)}
            for arm in ARMS
        }
        for arm, seeds in by_arm.items():
            if seeds:
                row: dict[str, Any] = {"labels_per_class": size or "all", "arm": arm, "seeds": len(seeds)}
                for metric in METRICS:
                    values = [found[metric] for found in seeds.values() if metric in found]
                    if values:
                        interval = t_test(values, np.zeros(len(values)), "paired").interval
                        row[metric] = {"mean": float(np.mean(values)), "interval": list(interval)}
                table.append(row)
        for other in ("scratch", "probe", "zero-shot"):
            shared = sorted(set(by_arm["transfer"]) & set(by_arm[other]))
            for metric in ("auc", "accuracy"):
                a, b = ([by_arm[arm][seed][metric] for seed in shared] for arm in ("transfer", other))
                if len(shared) > 1:
                    paired = t_test(a, b, "paired")
                    tests.append(
                        {
                            "labels_per_class": size or "all",
                            "against": other,
                            "metric": metric,
                            "seeds": len(shared),
                            "difference": paired.difference,
                            "interval": list(paired.interval),
                            "p_unpaired": t_test(a, b, "unpaired").p,
                            "p_welch": t_test(a, b, "welch").p,
                            "p_paired": paired.p,
                            "cohen_d": cohen_d(a, b),
                        }
                    )
    return {"table": table, "tests": tests}


def to_markdown(summary: dict[str, Any], title: str, target: Target) -> str:
    """Two tables for the documentation."""
    share = f"{TEST_SHARE:.0%} of the {len(np.unique(target.groups))} sky objects"
    lines = [
        f"### {title}",
        "",
        f"Judged on {share} ({len(target.y)} stamps in all), drawn anew for each seed. Means over seeds, "
        "with 95 % intervals over seeds in brackets.",
        "",
    ]
    lines += ["| Labels per class | | Seeds | " + " | ".join(METRICS.values()) + " |"]
    lines += ["| --- | --- | --- |" + " --- |" * len(METRICS)]
    for row in summary["table"]:
        cells = [_cell(row.get(metric)) for metric in METRICS]
        lines.append(
            f"| {row['labels_per_class']} | {row['arm']} | {row['seeds']} | " + " | ".join(cells) + " |"
        )
    lines += ["", "Transfer less the other, in points (100 × the figure):", ""]
    lines += [
        "| Labels per class | Against | Figure | Difference | Unpaired p | Welch p | Paired p | Cohen's d |"
    ]
    lines += ["| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for test in summary["tests"]:
        low, high = (100 * value for value in test["interval"])
        lines.append(
            f"| {test['labels_per_class']} | {test['against']} | {METRICS[test['metric']]} "
            f"| {100 * test['difference']:+.1f} [{low:+.1f}, {high:+.1f}] | {test['p_unpaired']:.2g} "
            f"| {test['p_welch']:.2g} | {test['p_paired']:.2g} | {test['cohen_d']:.1f} |"
        )
    return "\n".join(lines) + "\n"


def _cell(figure: dict[str, Any] | None) -> str:
    if figure is None:
        return ""
    low, high = figure["interval"]
    told = f"{figure['mean']:.3f}"
    return told if not np.isfinite(low) else f"{told} [{low:.3f}, {high:.3f}]"


# --- the command -------------------------------------------------------------------------------------


def base_without_2018(run: Path, data: Path, name: str) -> Path:
    """An ONNX of model `name` that never saw the sky objects of the 2018 nights."""
    from .learn import Plan, fine_tune, soup

    folder = run / "transfer"
    path = folder / f"{name}-without-2018.onnx"
    if not path.is_file():
        from transientnet.transfer.export import export_onnx

        alerts = load(data / "ztf")
        nights = (alerts.jd >= YEAR_2018[0]) & (alerts.jd < YEAR_2018[1])
        rows = np.flatnonzero(~np.isin(alerts.groups, np.unique(alerts.groups[nights])))
        work, weights = run / "work", folder / "without-2018.npz"
        chunks = sorted(work.glob("further-*.npz"))[: Plan().replay]
        nothing = np.zeros(0, int)
        fine_tune(
            weights,
            pretrained(work, Plan())[-1],
            chunks,
            alerts,
            rows,
            load_foreign(None),
            nothing,
            Plan(),
            0,
        )
        # What the shipped calibration learned, it learned from 2018 too.
        record = replace(resolve(name)[1], calibration={"method": "temperature", "temperature": 1.0})
        export_onnx(soup([weights], Plan()), name, record, path)
    return path


def plan(quick: bool, morphology: bool) -> Iterator[Trial]:
    """Trials, small sizes first."""
    seeds = QUICK_SEEDS if quick else MORPHOLOGY_SEEDS if morphology else SEEDS
    arms = [arm for arm in ARMS if not (morphology and arm in ("untrained", "grey levels"))]
    for size, count in seeds.items():
        for seed in range(count):
            for arm in arms:
                yield Trial(arm, size, seed)


def _keys(trials: list[Trial], base: str, morphology: bool) -> dict[Trial, str]:
    """Names of trials by what they depend on: target, choices, code, and the base if an arm has one."""
    import transientnet.transfer

    path, record = resolve(base)
    digest = hashlib.sha256(repr((AdaptConfig(), record.classes, morphology)).encode())
    for file in sorted(Path(transientnet.transfer.__path__[0]).glob("*.py")):
        digest.update(file.read_bytes())
    alone = digest.hexdigest()[:12]
    digest.update(path.read_bytes())
    based = digest.hexdigest()[:12]
    return {t: f"{t.arm}/{t.size}/{t.seed}/{based if t.arm in BASED else alone}" for t in trials}


def compare(base: str, options: argparse.Namespace, morphology: bool) -> None:
    """Do the missing trials of one target, and write its table."""
    kept = options.run / "transfer" / "trials.jsonl"
    known: dict[str, dict[str, float]] = {}
    if kept.is_file():
        for line in kept.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            known[row["key"]] = row["found"]
    wanted = list(plan(options.quick, morphology))
    keys = _keys(wanted, base, morphology)
    missing = [trial for trial in wanted if keys[trial] not in known]
    with (
        open(kept, "a", encoding="utf-8") as stream,
        ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool,
    ):
        jobs = {
            pool.submit(run_trial, trial, str(options.data), base, morphology): trial for trial in missing
        }
        for done, job in enumerate(as_completed(jobs), 1):
            key, found = keys[jobs[job]], job.result()
            known[key] = found
            stream.write(json.dumps({"key": key, "found": found}) + "\n")
            stream.flush()
            print(f"{done}/{len(missing)} {key} AUC {found['auc']:.3f}", file=sys.stderr)

    record = resolve(base)[1]
    summary = summarise({trial: known[keys[trial]] for trial in wanted})
    target = load_target(str(options.data), base, morphology)
    title = f"{record.id} to {target.name}: {', '.join(target.classes)}"
    text = to_markdown(summary, title, target)
    print(text)
    if not options.quick:
        page = ROOT / "docs" / "benchmarks.md"
        marker = f"transfer {record.name}"
        page.write_text(replace_between(page.read_text(encoding="utf-8"), marker, text), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with decam/ and ztf/")
    parser.add_argument("--run", type=Path, required=True, help="output of the finished training")
    parser.add_argument("--quick", action="store_true", help="few seeds and sizes; prints the table only")
    parser.add_argument("--only", choices=("realbogus", "3class", "4class"), help="one of the three tables")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    (options.run / "transfer").mkdir(exist_ok=True)
    if options.only in (None, "realbogus"):
        compare("realbogus", options, morphology=False)
    for name in ("3class", "4class"):
        if options.only in (None, name):
            compare(str(base_without_2018(options.run, options.data, name)), options, morphology=True)


if __name__ == "__main__":
    main()
