"""The whole run: simulate, pre-train, cross-validate, train on all, calibrate, export, record.

Folds and seeds are independent jobs, done side by side on the machine's cores.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import multiprocessing
import os
import platform
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np

from transientnet import __version__
from transientnet.settings import cores

from . import learn
from .data import MORPHOLOGY, Alerts, load, normalised
from .learn import HEADS, Plan
from .record import write_models

__all__ = ["train"]

Job = tuple[Callable[..., None], tuple[Any, ...]]


def train(
    data: Path,
    output: Path,
    plan: Plan,
    *,
    seed: int = 0,
    workers: int | None = None,
    limit: int | None = None,
    resamples: int = 1000,
) -> None:
    """Make every bundled model.

    Parameters
    ----------
    data : Path
        Prepared folder, or folder of ZTF packets, see `data`.
    output : Path
        Gets ``weights/``, ``weights_manifest.json``, model cards, ``results.json`` and
        ``cleaned_labels.csv``; and ``work/``, the stages' own files, by which a killed run goes on.
    plan : Plan
    seed : int
    workers : int, optional
        Processes; by default the cores.
    limit : int, optional
        Use the first alerts only.
    resamples : int
        Of the bootstrap behind the intervals.
    """
    work = output / "work"
    work.mkdir(parents=True, exist_ok=True)
    alerts = load(data, limit)
    log = _Log(work, {"plan": _plan(plan), "seed": seed, "data_sha256": alerts.digest})
    log.say(f"{len(alerts)} alerts of {len(np.unique(alerts.groups))} objects, data {alerts.digest[:12]}")

    pool_size = workers or cores()
    os.environ["OMP_NUM_THREADS"] = "1"  # of the workers, which inherit it
    chunks = [work / f"simulated-{index:03d}.npz" for index in range(plan.chunks)]
    pretrained = work / "pretrained.npz"
    folds = grouped_folds(alerts, plan.folds, seed)
    everything = np.arange(len(alerts))
    jobs: list[Job] = []
    soups: dict[str, list[Path]] = {}
    for name, unseen in [*((f"fold{k}", rows) for k, rows in enumerate(folds)), ("all", everything[:0])]:
        rows = np.setdiff1d(everything, unseen)
        soups[name] = [work / f"tuned-{name}-{s}.npz" for s in range(plan.seeds)]
        jobs += [
            (learn.fine_tune, (path, pretrained, chunks, alerts, rows, plan, seed + 100 * s))
            for s, path in enumerate(soups[name])
        ]
    with ProcessPoolExecutor(pool_size, mp_context=multiprocessing.get_context("spawn")) as pool:
        simulate = [(learn.simulate_chunk, (path, index, plan.batches)) for index, path in enumerate(chunks)]
        log.stage("simulation", pool, simulate)
        log.stage("pre-training", pool, [(_pretrain, (pretrained, chunks, plan, seed))])
        log.stage("fine-tuning", pool, jobs)

    tensor = normalised(alerts.triplets, learn.CONTRACT)
    held_out = {name: np.zeros((len(alerts), len(c)), np.float32) for name, c in HEADS.items()}
    for k, rows in enumerate(folds):
        logits = learn.outputs(learn.soup(soups[f"fold{k}"], plan), tensor[rows])
        for name in HEADS:
            held_out[name][rows] = logits[name]
    fold = np.zeros(len(alerts), int)
    for k, rows in enumerate(folds):
        fold[rows] = k
    learn.save(output / "held_out.npz", fold=fold, **held_out)
    run = {
        "command": "python -m training_reference train",
        "transientnet": __version__,
        **log.record,
        "cleaning": _write_cleaning(output / "cleaned_labels.csv", alerts),
        "machine": f"{platform.machine()}, {pool_size} processes",
        "wall_seconds": round(sum(log.record["stage_seconds"].values()), 1),
    }
    write_models(learn.soup(soups["all"], plan), alerts, tensor, held_out, run, output, resamples)
    log.say("done")


def _write_cleaning(path: Path, alerts: Alerts) -> dict[str, Any]:
    """List the morphology labels that cleaning changed, and count how both kinds agree with inspection."""
    names = (*MORPHOLOGY, "")
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["row", "group", "label", "cleaned", "reason"])
        for row in np.flatnonzero(alerts.changed != ""):
            was, now = names[alerts.raw_morphology[row]], names[alerts.morphology[row]]
            writer.writerow([row, alerts.groups[row], was, now, alerts.changed[row]])
    seen = (alerts.vetted_morphology >= 0) & (alerts.vetted_morphology < 3)
    agreement = {}
    for name, labels in (("catalogue rules", alerts.raw_morphology), ("cleaned", alerts.rule_morphology)):
        rows = seen & (labels >= 0) & (labels < 3)
        right = labels[rows] == alerts.vetted_morphology[rows]
        agreement[name] = {"n": int(rows.sum()), "agree": int(right.sum())}
    return {"changed": int((alerts.changed != "").sum()), "agreement_with_inspection": agreement}


def grouped_folds(alerts: Alerts, count: int, seed: int) -> list[np.ndarray]:
    """Held-out rows of each fold: whole sky objects, classes spread evenly."""
    from sklearn.model_selection import StratifiedGroupKFold

    kind = np.where(alerts.binary == 0, 10, np.where(alerts.binary < 0, 11, alerts.morphology))
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    return [rows for _, rows in splitter.split(kind, kind, alerts.groups)]


def _pretrain(path: Path, chunks: list[Path], plan: Plan, seed: int) -> None:
    import torch

    # The only job of its stage: it may have the whole machine.
    torch.set_num_threads(cores())
    learn.pretrain(path, chunks, plan, seed, lambda line: print(line, flush=True))


class _Log:
    """What a run is, and how long its stages took, over all the times that it was started."""

    def __init__(self, work: Path, identity: dict[str, Any]):
        self._path = work / "log.json"
        self._started = time.time()
        fresh = {**identity, "commit": _commit(), "started": time.strftime("%Y-%m-%d"), "stage_seconds": {}}
        if self._path.exists():
            self.record = json.loads(self._path.read_text(encoding="utf-8"))
            if any(self.record[key] != json.loads(json.dumps(value)) for key, value in identity.items()):
                raise SystemExit(
                    f"{work} belongs to a run of another plan, seed or data: give another --output"
                )
        else:
            self.record = fresh
            self._write()

    def _write(self) -> None:
        self._path.write_text(json.dumps(self.record, indent=1), encoding="utf-8")

    def stage(self, name: str, pool: ProcessPoolExecutor, jobs: list[Job]) -> None:
        """Do independent jobs, and add up the time."""
        started = time.time()
        waiting = [pool.submit(function, *arguments) for function, arguments in jobs]
        try:
            for done, future in enumerate(as_completed(waiting), 1):
                future.result()
                self.say(f"{name} {done}/{len(waiting)}")
        finally:
            seconds = self.record["stage_seconds"]
            seconds[name] = round(seconds.get(name, 0.0) + time.time() - started, 1)
            self._write()

    def say(self, line: str) -> None:
        print(f"[{time.time() - self._started:6.0f} s] {line}", flush=True)


def _plan(plan: Plan) -> dict[str, Any]:
    return {**dataclasses.asdict(plan), "network": plan.network.to_dict()}


def _commit() -> str:
    """The commit of the code that runs, with a mark if the tree differs from it."""

    def git(*words: str) -> str:
        root = Path(__file__).resolve().parent
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
