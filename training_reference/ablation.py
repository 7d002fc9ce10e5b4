"""What each part of the recipe is worth: the run's own folds, one seed, one thing changed at a time.

``python -m training_reference ablation RUN --data DATA [--decam DECAM]`` reuses the simulated stamps and
the pre-trained weights of a finished RUN, trains every variant on its first folds, judges them on the
objects held out, and rewrites the table in ``docs/benchmarks.md``. Finished trainings are kept in
``RUN/ablation`` and not repeated.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from transientnet.evaluation.metrics import balanced_accuracy, confusion_matrix, roc_auc
from transientnet.prepare.preprocess import preprocess
from transientnet.settings import cores
from transientnet.transfer.augment import Augmentation
from transientnet.transfer.network import StampNetwork
from transientnet.transfer.training import fast_math
from transientnet.triplet import Triplet

from . import learn, pretraining
from .data import Alerts, load, load_foreign, normalised
from .install import ROOT, replace_between
from .learn import CONTRACT, EXTRA, HEADS, Plan, real_targets
from .train import grouped_folds

__all__ = ["VARIANTS", "ablate"]


@dataclass(frozen=True)
class Variant:
    """One row of the table.

    Attributes
    ----------
    name : str
    plan : dict
        What differs from the run's plan.
    labels : str
        "cleaned" (as shipped), "inspected" (no cleaning), or "raw" (neither inspection nor cleaning).
    start : str
        "pretrained", "untouched" (no real stamp is seen), "scratch" (real stamps alone, the shipped
        network), "contrasted" (ditto, after self-supervised training on every real stamp, those held
        out too), "plain" (an ordinary residual CNN on real stamps, judged over all turns and flips).
    mixup : float
        Parameter of the beta distribution; from scratch only.
    distilled : float
        Share of the answers of other networks in the labels.
    alone : bool
        A fine-tuning per head, not one for all.
    """

    name: str
    plan: dict[str, Any] = dataclasses.field(default_factory=dict)
    labels: str = "cleaned"
    start: str = "pretrained"
    mixup: float = 0.0
    distilled: float = 0.0
    alone: bool = False


VARIANTS = {
    "shipped": Variant("as shipped, one seed"),
    "no-made": Variant("no candidates made out of real stamps", {"semi": 0}),
    "more-made": Variant("three times as many of them", {"semi": 48}),
    "no-replay": Variant("no replayed simulation", {"simulated": 0}),
    "more-replay": Variant("twice as much of it", {"simulated": 48}),
    "real-only": Variant("neither of the two", {"semi": 0, "simulated": 0}),
    "even": Variant("classes drawn as they come", {"evenness": 0.0}),
    "uncleaned": Variant("labels not cleaned by the reference stamp", labels="inspected"),
    "raw": Variant("raw labels: neither inspection nor cleaning", labels="raw"),
    "alone": Variant("each head fine-tuned alone, not four heads on one trunk", alone=True),
    "distilled": Variant("labels mixed half and half with the answers of plain networks", distilled=0.5),
    "simulation": Variant("simulation alone, no real stamp", start="untouched"),
    "scratch": Variant("real stamps alone", start="scratch"),
    "scratch-mixup": Variant("real stamps alone, with mixup", start="scratch", mixup=0.4),
    "contrasted": Variant("ditto without mixup, after self-supervised training", start="contrasted"),
    "plain": Variant("plain residual CNN, real stamps alone, mean over turns and flips", start="plain"),
    "plain-raw": Variant("ditto, raw labels", start="plain", labels="raw"),
}

_SCRATCH_STEPS, _SCRATCH_RATE, _SCRATCH_BATCH = 450, 4e-3, 64
_CONTRAST_STEPS, _CONTRAST_TEMPERATURE = 300, 0.2
_TEACHER_FOLDS = 4
# How often each stamp comes with a label drawn from what the teachers say of it.
_DRAWS = 4


class _PlainBlock(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(width), nn.BatchNorm2d(width)])

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norms[0](self.first(x)))
        return F.relu(x + self.norms[1](self.second(inner)))


class PlainNetwork(nn.Module):
    """What one would write first: a residual CNN on the normalised stamps."""

    def __init__(self) -> None:
        super().__init__()
        widths = (16, 32, 64, 96)
        layers: list[nn.Module] = [nn.Conv2d(3, 16, 5, 2, 2, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
            layers.append(_PlainBlock(after))
        self.trunk = nn.Sequential(*layers)
        self.heads = nn.ModuleDict({name: nn.Linear(192, len(classes)) for name, classes in HEADS.items()})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.trunk(x)
        pooled = F.dropout(torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1), 0.3, self.training)
        return {name: head(pooled) for name, head in self.heads.items()}


def _train_from_scratch(
    network: nn.Module, x: np.ndarray, alerts: Alerts, plan: Plan, mixup: float, seed: int
) -> nn.Module:
    rng = np.random.default_rng(seed)
    targets = {head: y for head, y in real_targets(alerts).items() if head in HEADS}
    optimizer = torch.optim.AdamW(network.parameters(), _SCRATCH_RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _SCRATCH_RATE, total_steps=_SCRATCH_STEPS)
    chance = learn.evened(alerts, plan.evenness)
    network.train()
    for _ in range(_SCRATCH_STEPS):
        rows = rng.choice(len(x), _SCRATCH_BATCH, p=chance)
        batch = torch.rot90(torch.from_numpy(x[rows]), int(rng.integers(4)), (2, 3))
        batch = batch.flip(3) if rng.random() < 0.5 else batch
        share = float(rng.beta(mixup, mixup)) if mixup else 1.0
        other = rng.permutation(len(rows))
        with fast_math(torch.device("cpu")):
            given = network(share * batch + (1 - share) * batch[other])
        loss = share * learn.joint_loss(given, {h: y[rows] for h, y in targets.items()}, plan.smoothing)
        if mixup:
            mixed = {h: y[rows[other]] for h, y in targets.items()}
            loss = loss + (1 - share) * learn.joint_loss(given, mixed, plan.smoothing)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return network.eval()


def _contrast(network: StampNetwork, x: np.ndarray, seed: int) -> None:
    """Teach the trunk to know a stamp again at other noise, seeing and offset (SimCLR, arXiv 2002.05709)."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    head = nn.Sequential(nn.Linear(network.embed.out_features, 64), nn.ReLU(), nn.Linear(64, 32))
    weights = [*network.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(weights, 2e-3, weight_decay=0.02)
    vary = Augmentation(drop=0.1, softening=CONTRACT.softening)
    network.train()
    for _ in range(_CONTRAST_STEPS):
        batch = torch.from_numpy(x[rng.choice(len(x), _SCRATCH_BATCH, replace=False)])
        views = torch.cat([vary(batch, generator), vary(batch, generator)])
        with fast_math(torch.device("cpu")):
            seen = F.normalize(head(network.embedding(views)).float(), dim=1)
        alike = (seen @ seen.T / _CONTRAST_TEMPERATURE).fill_diagonal_(-torch.inf)
        loss = F.cross_entropy(alike, torch.arange(len(views)).roll(len(batch)))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def _distilled(known: Alerts, share: float, plan: Plan, seed: int) -> Alerts:
    """Every stamp several times; a `share` of the labels is drawn from what networks say that never saw it.

    On average that is the loss of labels softened by the teachers' probabilities.
    """
    rng = np.random.default_rng((seed, 4))
    said = {name: np.zeros((len(known), len(classes)), np.float32) for name, classes in HEADS.items()}
    x, everything = normalised(known.triplets, CONTRACT), np.arange(len(known))
    for k, held in enumerate(grouped_folds(known, _TEACHER_FOLDS, seed)):
        rows = np.setdiff1d(everything, held)
        teacher = _train_from_scratch(PlainNetwork(), x[rows], known.take(rows), plan, 0.0, seed + k)
        for name, given in _probabilities(teacher, x[held], True).items():
            said[name][held] = given
    many = known.take(np.tile(everything, _DRAWS))
    drawn = {}
    for name, head in (("binary", "realbogus"), ("morphology", "4class"), ("science", "5class")):
        labels, chance = getattr(many, name), np.tile(said[head], (_DRAWS, 1)).cumsum(1)
        answer = np.minimum((rng.random((len(many), 1)) > chance).sum(1), chance.shape[1] - 1)
        drawn[name] = np.where((labels >= 0) & (rng.random(len(many)) < share), answer, labels)
    return dataclasses.replace(many, **drawn)


@torch.inference_mode()
def _probabilities(network: nn.Module, x: np.ndarray, turns: bool) -> dict[str, np.ndarray]:
    parts: dict[str, list[np.ndarray]] = {name: [] for name in HEADS}
    for start in range(0, len(x), 256):
        batch = torch.from_numpy(x[start : start + 256])
        views = [torch.rot90(batch, k, (2, 3)) for k in range(4)] if turns else [batch]
        views += [view.flip(3) for view in views] if turns else []
        given = [network(view) for view in views]
        for name in HEADS:
            parts[name].append(torch.stack([g[name].softmax(1) for g in given]).mean(0).numpy())
    return {name: np.concatenate(values) for name, values in parts.items()}


def _relabelled(alerts: Alerts, labels: str) -> Alerts:
    if labels == "raw":
        return dataclasses.replace(alerts, binary=alerts.raw_binary, morphology=alerts.raw_morphology)
    if labels == "inspected":
        rule = np.where(alerts.changed != "", alerts.raw_morphology, alerts.morphology)
        return dataclasses.replace(alerts, morphology=rule)
    return alerts


def _job(
    key: str, fold: int, unseen: np.ndarray, run: Path, alerts: Alerts, plan: Plan, foreign: np.ndarray
) -> None:
    """Train one variant on one fold; keep its probabilities of the held-out and the foreign stamps."""
    target = run / "ablation" / f"{key}-{fold}.npz"
    if target.exists():
        return
    torch.set_num_threads(1)
    torch.manual_seed(fold)
    variant = VARIANTS[key]
    plan = dataclasses.replace(plan, **variant.plan)
    pretrained = pretraining.pretrained(run / "work", plan)[-1]
    chunks = sorted((run / "work").glob("further-*.npz"))[: plan.replay]
    none = load_foreign(None)
    known = _relabelled(alerts, variant.labels)
    rows = np.setdiff1d(np.arange(len(alerts)), unseen)
    if variant.distilled:
        known = _distilled(known.take(rows), variant.distilled, plan, fold)
        rows = np.arange(len(known))
    if variant.start == "pretrained":
        networks: dict[str, nn.Module] = {}
        for heads in [(name,) for name in HEADS] if variant.alone else [tuple(HEADS)]:
            weights = target.with_name(f"{key}-{fold}.weights.npz")
            nothing = np.zeros(0, int)
            learn.fine_tune(
                weights, pretrained, chunks, known, rows, none, nothing, plan, fold, (*heads, *EXTRA)
            )
            networks |= dict.fromkeys(heads, learn.soup([weights], plan))
            weights.unlink()
    elif variant.start == "untouched":
        networks = dict.fromkeys(HEADS, learn.soup([pretrained], plan))
    else:
        everything = normalised(known.triplets, CONTRACT)
        fresh = PlainNetwork() if variant.start == "plain" else learn.new_network(plan)
        if variant.start == "contrasted" and isinstance(fresh, StampNetwork):
            _contrast(fresh, everything, fold)
        trained = _train_from_scratch(fresh, everything[rows], known.take(rows), plan, variant.mixup, fold)
        networks = dict.fromkeys(HEADS, trained)
    turns = variant.start == "plain"
    stamps = normalised(alerts.triplets[unseen], CONTRACT)
    said = {name: _probabilities(network, stamps, turns)[name] for name, network in networks.items()}
    real = networks["realbogus"]
    other = _probabilities(real, foreign, turns)["realbogus"][:, 1] if len(foreign) else np.zeros(0)
    learn.save(target, foreign=other, rows=unseen, **said)


def _decam(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Normalised DECam stamps, and whether each is real."""
    with np.load(folder / "stamps.npz", allow_pickle=False) as arrays:
        stamps = arrays["triplets"].astype(np.float32)
        stamps[:, :, arrays["tick_mask"].astype(bool)] = np.nan
    with open(folder / "labels.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    triplets = [Triplet(*s, fwhm=2.355 * float(r["psf"])) for s, r in zip(stamps, rows, strict=True)]
    return preprocess(triplets, CONTRACT).tensor, np.array([row["label"] == "real" for row in rows])


def ablate(run: Path, data: Path, decam: Path | None, folds: int, workers: int | None) -> None:
    """Train, judge, and rewrite the table.

    Parameters
    ----------
    run : Path
        Output of a finished ``train``.
    data : Path
        What it was trained on.
    decam : Path, optional
        Folder of the DECam set, judged and never trained on.
    folds : int
        How many of the run's folds.
    workers : int, optional
    """
    log = json.loads((run / "work" / "log.json").read_text(encoding="utf-8"))
    alerts, plan = load(data), Plan()
    if log["data_sha256"] != alerts.digest:
        raise SystemExit(f"{run} was trained on other data than {data}")
    (run / "ablation").mkdir(exist_ok=True)
    foreign, real = _decam(decam) if decam else (np.zeros((0,)), np.zeros(0, bool))
    held = grouped_folds(alerts, plan.folds, log["seed"])[:folds]
    os.environ["OMP_NUM_THREADS"] = "1"
    pool = ProcessPoolExecutor(workers or cores(), mp_context=multiprocessing.get_context("spawn"))
    with pool:
        jobs = [
            pool.submit(_job, key, k, rows, run, alerts, plan, foreign)
            for key in VARIANTS
            for k, rows in enumerate(held)
        ]
        for job in jobs:
            job.result()
    lines = [
        f"Run of {log['started']}, {folds} of its {plan.folds} folds, one seed each.",
        "",
        "| training | inspected rows: AUC | raw labels: AUC | 3class, inspected | 4class, cleaned "
        "| 4class, raw | DECam, no label used: AUC |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for key, variant in VARIANTS.items():
        parts = [np.load(run / "ablation" / f"{key}-{k}.npz") for k in range(folds)]
        lines.append(f"| {variant.name} | " + " | ".join(_figures(parts, alerts, real)) + " |")
    counts = np.concatenate(held)
    inspected, raw = (int((labels[counts] >= 0).sum()) for labels in (alerts.vetted, alerts.raw_binary))
    lines += [
        "",
        f"n = {inspected} inspected rows, {raw} raw real/bogus labels; morphology in balanced accuracy.",
    ]
    page = ROOT / "docs" / "benchmarks.md"
    text = replace_between(page.read_text(encoding="utf-8"), "ablation", "\n".join(lines))
    page.write_text(text, encoding="utf-8")
    print("\n".join(lines))


def _figures(parts: list[Any], alerts: Alerts, real: np.ndarray) -> list[str]:
    rows = np.concatenate([part["rows"] for part in parts])
    binary = np.concatenate([part["realbogus"] for part in parts])[:, 1]
    cells = [
        f"{roc_auc(binary[labels >= 0], labels[labels >= 0] == 1):.3f}"
        for labels in (alerts.vetted[rows], alerts.raw_binary[rows])
    ]
    for head, labels in (
        ("3class", alerts.vetted_morphology[rows]),
        ("4class", alerts.morphology[rows]),
        ("4class", alerts.raw_morphology[rows]),
    ):
        classes = len(HEADS[head])
        fits = (labels >= 0) & (labels < classes)
        given = np.concatenate([part[head] for part in parts])[fits].argmax(1)
        cells.append(f"{100 * balanced_accuracy(confusion_matrix(labels[fits], given, classes)):.1f} %")
    foreign = [roc_auc(part["foreign"], real) for part in parts] if len(real) else []
    return [*cells, f"{np.mean(foreign):.3f}" if foreign else "not measured"]
