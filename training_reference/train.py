"""The whole run: simulate, pre-train, cross-validate, train on all, calibrate, export, record.

Folds and seeds are independent jobs, done side by side on the machine's cores.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np

from transientnet import __version__

from . import learn
from .data import Alerts, load, normalised
from .learn import HEADS, Plan
from .record import write_models

__all__ = ["train"]


def train(
    data: Path,
    output: Path,
    plan: Plan,
    *,
    seed: int = 0,
    workers: int | None = None,
    limit: int | None = None,
) -> None:
    """Make every bundled model.

    Parameters
    ----------
    data : Path
        Prepared folder, or folder of ZTF packets, see `data`.
    output : Path
        Gets ``weights/``, ``weights_manifest.json``, model cards and ``results.json``; and ``work/``,
        the stages' own files, by which a killed run goes on.
    plan : Plan
    seed : int
    workers : int, optional
        Processes; by default the cores.
    limit : int, optional
        Use the first alerts only.
    """
    started, cpu = time.time(), time.process_time()
    clock: dict[str, float] = {}
    work = output / "work"
    work.mkdir(parents=True, exist_ok=True)
    alerts = load(data, limit)
    _guard(work, plan, seed, alerts)
    say = _teller(started)
    say(f"{len(alerts)} alerts of {len(np.unique(alerts.groups))} objects, data {alerts.digest[:12]}")

    pool_size = workers or len(os.sched_getaffinity(0))
    os.environ["OMP_NUM_THREADS"] = "1"  # of the workers, which inherit it
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(pool_size, mp_context=context) as pool:
        chunks = [work / f"simulated-{index:03d}.npz" for index in range(plan.chunks)]
        _run(
            pool,
            [(learn.simulate_chunk, (path, index)) for index, path in enumerate(chunks)],
            "simulated chunk",
            say,
        )
        clock["simulation"] = time.time() - started

        pretrained = work / "pretrained.npz"
        _run(pool, [(_pretrain, (pretrained, chunks, plan, seed))], "pre-training", say)
        clock["pretraining"] = time.time() - started

        folds = grouped_folds(alerts, plan.folds, seed)
        everything = np.arange(len(alerts))
        jobs, soups = [], {}
        for name, held_out in [
            *((f"fold{k}", rows) for k, rows in enumerate(folds)),
            ("all", everything[:0]),
        ]:
            rows = np.setdiff1d(everything, held_out)
            soups[name] = [work / f"tuned-{name}-{s}.npz" for s in range(plan.seeds)]
            jobs += [
                (learn.fine_tune, (path, pretrained, chunks, alerts, rows, plan, seed + 100 * s))
                for s, path in enumerate(soups[name])
            ]
        _run(pool, jobs, "fine-tuning", say)
        clock["fine-tuning"] = time.time() - started

    tensor = normalised(alerts.triplets, learn.CONTRACT)
    held_out: dict[str, np.ndarray] = {
        name: np.zeros((len(alerts), len(c)), np.float32) for name, c in HEADS.items()
    }
    for k, rows in enumerate(folds):
        logits = learn.outputs(learn.soup(soups[f"fold{k}"], plan), tensor[rows])
        for name in HEADS:
            held_out[name][rows] = logits[name]
    final = learn.soup(soups["all"], plan)
    np.savez(output / "held_out.npz", fold=_fold_of(folds, len(alerts)), **held_out)  # type: ignore[arg-type]
    run = {
        "command": "python -m training_reference train",
        "transientnet": __version__,
        "commit": _commit(),
        "seed": seed,
        "data_sha256": alerts.digest,
        "plan": dataclasses.asdict(plan),
        "machine": f"{platform.machine()}, {pool_size} processes",
        "finished": time.strftime("%Y-%m-%d", time.gmtime()),
        "wall_seconds": round(time.time() - started, 1),
        "stage_ends_seconds": {name: round(seconds, 1) for name, seconds in clock.items()},
    }
    write_models(final, alerts, tensor, held_out, run, output)
    (output / "run.json").write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
    say(f"done; {time.process_time() - cpu:.0f} s of processor time in the parent")


def grouped_folds(alerts: Alerts, count: int, seed: int) -> list[np.ndarray]:
    """Held-out rows of each fold: whole sky objects, classes spread evenly."""
    from sklearn.model_selection import StratifiedGroupKFold

    kind = np.where(alerts.binary == 0, 10, np.where(alerts.binary < 0, 11, alerts.morphology))
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    return [rows for _, rows in splitter.split(kind, kind, alerts.groups)]


def _fold_of(folds: list[np.ndarray], n: int) -> np.ndarray:
    fold = np.full(n, -1)
    for k, rows in enumerate(folds):
        fold[rows] = k
    return fold


def _pretrain(path: Path, chunks: list[Path], plan: Plan, seed: int) -> None:
    import torch

    # The only job of its stage: it may have the whole machine.
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    learn.pretrain(path, chunks, plan, seed, lambda line: print(line, flush=True))


def _run(pool: ProcessPoolExecutor, jobs: Iterable[tuple[Callable[..., None], tuple[Any, ...]]], name: str,
         say: Callable[[str], None]) -> None:  # fmt: skip
    waiting = [pool.submit(function, *arguments) for function, arguments in jobs]
    for done, future in enumerate(as_completed(waiting), 1):
        future.result()
        say(f"{name} {done}/{len(waiting)}")


def _guard(work: Path, plan: Plan, seed: int, alerts: Alerts) -> None:
    """Refuse to go on from the files of another run."""
    identity = json.dumps([dataclasses.asdict(plan), seed, alerts.digest], sort_keys=True)
    stamp = work / "identity.json"
    if stamp.exists() and stamp.read_text(encoding="utf-8") != identity:
        raise SystemExit(f"{work} belongs to a run with another plan, seed or data: give another --output")
    stamp.write_text(identity, encoding="utf-8")


def _commit() -> str:
    """The commit of the code that runs, with a mark if the tree differs from it."""
    root = Path(__file__).resolve().parent
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True
        )
        status = subprocess.run(["git", "status", "--porcelain", "--untracked-files=no"], cwd=root, capture_output=True,
                                text=True, check=True)  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit.stdout.strip() + ("+changes" if status.stdout.strip() else "")


def _teller(started: float) -> Callable[[str], None]:
    def say(line: str) -> None:
        print(f"[{time.time() - started:6.0f} s] {line}", flush=True)

    return say
