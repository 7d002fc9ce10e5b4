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

from . import learn, pretraining
from .data import MORPHOLOGY, Alerts, Foreign, load, load_foreign, normalised
from .learn import Plan
from .record import write_models

__all__ = ["train"]

# Number of the first simulated chunk that pre-training never sees.
_FURTHER = 1_000_000
Job = tuple[Callable[..., None], tuple[Any, ...]]


def train(
    data: Path,
    output: Path,
    plan: Plan,
    *,
    foreign: Path | None = None,
    test: Path | None = None,
    kinds: Path | None = None,
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
    foreign : Path, optional
        Folder of inspected stamps of other surveys, see `data.load_foreign`.
    test : Path, optional
        Folder of sets to test by that nothing is learnt from, see `families.telescopes`.
    kinds : Path, optional
        Table of the kinds of bogus alerts by visual inspection, see `families.bogus_kinds`.
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
    pool_size = workers or cores()
    os.environ["OMP_NUM_THREADS"] = "1"  # of the workers, which inherit it
    log = _Log(work, {"plan": _plan(plan), "seed": seed})
    pretrained = pretraining.pretrained(work, plan)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(pool_size, mp_context=context) as pool:
        if not all(path.exists() for path in pretrained):
            others = pool_size - 1
            jobs: list[Job] = [(_pretrain, (work, plan, seed, others == 0))]
            jobs += [(pretraining.keep_simulating, (work, plan, k, others)) for k in range(others)]
            log.stage("pre-training", pool, jobs)
        alerts, elsewhere = load(data, limit), load_foreign(foreign)
        log.is_of("data_sha256", alerts.digest)
        log.say(f"{len(alerts)} alerts of {len(np.unique(alerts.groups))} objects, data {alerts.digest[:12]}")
        # Stamps that pre-training never saw: to be replayed, and to judge by.
        further = [work / f"further-{k:03d}.npz" for k in range(plan.replay + plan.judged)]
        simulate = [
            (pretraining.simulate_chunk, (path, _FURTHER + k, plan.batches)) for k, path in enumerate(further)
        ]
        log.stage("simulation", pool, simulate)
        folds = [
            (rows, foreign_rows)
            for rows, foreign_rows in zip(
                grouped_folds(alerts, plan.folds, seed), foreign_folds(elsewhere, plan.folds), strict=True
            )
        ]
        nothing = np.zeros(0, int)
        soups: dict[str, list[Path]] = {}
        jobs = []
        for name, (unseen, foreign_unseen) in [
            *((f"fold{k}", fold) for k, fold in enumerate(folds)),
            ("all", (nothing, nothing)),
        ]:
            rows = np.setdiff1d(np.arange(len(alerts)), unseen)
            foreign_rows = np.setdiff1d(np.flatnonzero(elsewhere.binary >= 0), foreign_unseen)
            # Trainings of several seeds from the end of each cycle: their mean is one network.
            begun = [(k, s) for k in range(len(pretrained)) for s in range(plan.seeds)]
            soups[name] = [work / f"tuned-{name}-{k}-{s}.npz" for k, s in begun]
            jobs += [
                (
                    learn.fine_tune,
                    (
                        path,
                        pretrained[k],
                        further[: plan.replay],
                        alerts,
                        rows,
                        elsewhere,
                        foreign_rows,
                        plan,
                        seed + 100 * s,
                    ),
                )
                for (k, s), path in zip(begun, soups[name], strict=True)
            ]
        log.stage("fine-tuning", pool, jobs)

    held_out, foreign_held_out = _held_out(alerts, elsewhere, folds, soups, plan)
    run = {
        "command": "python -m training_reference train",
        "transientnet": __version__,
        **log.record,
        "cleaning": _write_cleaning(output / "cleaned_labels.csv", alerts),
        "machine": f"{platform.machine()}, {pool_size} processes",
        "wall_seconds": round(sum(log.record["stage_seconds"].values()), 1),
    }
    learn.save(output / "held_out.npz", **held_out)
    write_models(
        learn.soup(soups["all"], plan),
        alerts,
        elsewhere,
        further[plan.replay :],
        held_out,
        foreign_held_out,
        run,
        output,
        resamples,
        test,
        kinds,
    )
    log.say("done")


def _held_out(
    alerts: Alerts,
    elsewhere: Foreign,
    folds: list[tuple[np.ndarray, np.ndarray]],
    soups: dict[str, list[Path]],
    plan: Plan,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Logits of every head from the fold's network that never saw the object; of both sources."""
    tensor = normalised(alerts.triplets, learn.CONTRACT)
    parts = []
    for k, fold in enumerate(folds):
        network = learn.soup(soups[f"fold{k}"], plan)
        parts.append(
            [
                learn.outputs(network, x[rows])
                for x, rows in zip((tensor, elsewhere.tensor), fold, strict=True)
            ]
        )
    found = []
    for which, total in enumerate((len(alerts), len(elsewhere.binary))):
        whole: dict[str, np.ndarray] = {"fold": np.full(total, -1)}
        for k, fold in enumerate(folds):
            whole["fold"][fold[which]] = k
            for name, logits in parts[k][which].items():
                whole.setdefault(name, np.zeros((total, logits.shape[1]), np.float32))[fold[which]] = logits
        found.append(whole)
    return found[0], found[1]


def _write_cleaning(path: Path, alerts: Alerts) -> dict[str, Any]:
    """List the morphology labels that cleaning changed, and count how both kinds agree with inspection."""
    names = (*MORPHOLOGY, "")
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["row", "group", "label", "cleaned", "reason"])
        for row in np.flatnonzero(alerts.rejudged != ""):
            was = {1: "real", 0: "bogus", -1: ""}
            before = 0 if alerts.vetted[row] == 0 else alerts.raw_binary[row]
            now = was[alerts.binary[row]]
            writer.writerow([row, alerts.groups[row], was[before], now, alerts.rejudged[row]])
        for row in np.flatnonzero(alerts.changed != ""):
            was, now = names[alerts.raw_morphology[row]], names[alerts.morphology[row]]
            writer.writerow([row, alerts.groups[row], was, now, alerts.changed[row]])
    seen = (alerts.vetted_morphology >= 0) & (alerts.vetted_morphology < 3)
    agreement = {}
    for name, labels in (("catalogue rules", alerts.raw_morphology), ("cleaned", alerts.rule_morphology)):
        rows = seen & (labels >= 0) & (labels < 3)
        right = labels[rows] == alerts.vetted_morphology[rows]
        agreement[name] = {"n": int(rows.sum()), "agree": int(right.sum())}
    reasons, counts = np.unique(alerts.rejudged[alerts.rejudged != ""], return_counts=True)
    return {
        "changed": int((alerts.changed != "").sum()),
        "rejudged": dict(zip(reasons.tolist(), counts.tolist(), strict=True)),
        "agreement_with_inspection": agreement,
    }


def grouped_folds(alerts: Alerts, count: int, seed: int) -> list[np.ndarray]:
    """Held-out rows of each fold: whole sky objects, classes spread evenly."""
    from sklearn.model_selection import StratifiedGroupKFold

    kind = np.where(alerts.binary == 0, 10, np.where(alerts.binary < 0, 11, alerts.morphology))
    # What is too rare to be in every fold goes with the most common.
    names, index, members = np.unique(kind, return_inverse=True, return_counts=True)
    kind = np.where(members[index] < count, names[members.argmax()], kind)
    # Not the package's split: the records of released weights name these folds by their seed.
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    return [rows for _, rows in splitter.split(kind, kind, alerts.groups)]


def foreign_folds(elsewhere: Foreign, count: int) -> list[np.ndarray]:
    """Held-out rows of each fold: whole groups of visits and objects that hang together, the largest first.

    Where one visit holds a whole set, that set is judged by a network that saw none of it.
    """
    names, index, sizes = np.unique(elsewhere.groups, return_inverse=True, return_counts=True)
    fold = np.zeros(len(names), int)
    load = np.zeros(count, int)
    for name in np.argsort(-sizes, kind="stable"):
        fold[name] = int(load.argmin())
        load[fold[name]] += sizes[name]
    return [np.flatnonzero(fold[index] == k) for k in range(count)]


def _pretrain(work: Path, plan: Plan, seed: int, alone: bool) -> None:
    import torch

    torch.set_num_threads(1)
    pretraining.pretrain(work, plan, seed, alone=alone, log=lambda line: print(line, flush=True))


class _Log:
    """What a run is, and how long its stages took, over all the times that it was started."""

    def __init__(self, work: Path, identity: dict[str, Any]):
        self._path = work / "log.json"
        self._started = time.time()
        self._work = work
        fresh = {"started": time.strftime("%Y-%m-%d"), "commits": {}, "stage_seconds": {}}
        known = self._path.exists()
        self.record: dict[str, Any] = json.loads(self._path.read_text(encoding="utf-8")) if known else fresh
        for key, value in identity.items():
            self.is_of(key, value)
        self.record["commit"] = _commit()
        self._write()

    def is_of(self, key: str, value: Any) -> None:
        """A run has one plan, one seed and one data set, over all the times that it is started."""
        value = json.loads(json.dumps(value))
        if self.record.setdefault(key, value) != value:
            raise SystemExit(
                f"{self._work} belongs to a run of another plan, seed or data: give another --output"
            )
        self._write()

    def _write(self) -> None:
        text = json.dumps(self.record, indent=1)
        self.record = json.loads(text)
        self._path.write_text(text, encoding="utf-8")

    def stage(self, name: str, pool: ProcessPoolExecutor, jobs: list[Job]) -> None:
        """Do independent jobs, and add up the time."""
        started = time.time()
        self.record["commits"].setdefault(name, self.record["commit"])
        self._write()
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
