"""Learning: the network's heads, the plan of a run, and fine-tuning on real stamps.

Every step is a function of its seed and its inputs, writes its result once and whole, and finds it
again when the run is started anew. `pretraining` makes the weights that fine-tuning starts from.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from transientnet.prepare.contract import InputContract
from transientnet.transfer.augment import Augmentation
from transientnet.transfer.network import NetworkConfig, StampNetwork
from transientnet.transfer.training import Weights, average, fast_math, get_weights, set_weights

from .broken import break_tensor
from .data import MORPHOLOGY, SCIENCE, Alerts, Foreign, normalised
from .semisynthetic import SemiSynthesizer
from .simulator import CAUSES

__all__ = [
    "EXTRA",
    "HEADS",
    "Plan",
    "best_device",
    "evened",
    "fine_tune",
    "joint_loss",
    "new_network",
    "outputs",
    "real_targets",
    "save",
    "soup",
    "step",
    "targets_of",
]

HEADS: dict[str, tuple[str, ...]] = {
    "realbogus": ("bogus", "real"),
    "3class": MORPHOLOGY[:3],
    "4class": MORPHOLOGY,
    "5class": SCIENCE,
}
"""Model names and their classes: one trunk, a head each."""

EXTRA: dict[str, tuple[str, ...]] = {"kinds": tuple(CAUSES), "input": ("sound", "broken")}
"""Heads that every model carries beside its own: which kind of bogus, and whether the input is sound."""

CONTRACT = InputContract()

Targets = dict[str, np.ndarray]

_LARGEST_GRADIENT = 5.0
# The side tasks shall not lead the trunk.
_WEIGHT = {"kinds": 0.3, "input": 0.4}
# Magnitudes between which real stamps are evened out, and how much oftener the rarest are drawn at the most.
_BRIGHTNESS, _MOST_OFTEN = (15.0, 16.0, 17.0), 8.0
# What the makers of candidates out of real stamps call the kinds of bogus.
_CAUSE_OF_MADE = {
    "dipole": "residual",
    "kernel mismatch": "residual",
    "saturated core": "residual",
    "cosmic ray": "cosmic ray",
    "bad column": "line or edge",
    "chip edge": "line or edge",
    "ghost": "ghost or spike",
    "noise peak": "noise",
}


@dataclass(frozen=True)
class Plan:
    """Sizes of a training run.

    Attributes
    ----------
    cycles : tuple of int
        Steps of pre-training, as cycles of the learning rate: it rises and falls in each, and each begins
        where the one before ended. The peak of cycle k is `pretrain_rate` / sqrt(k).
    pretrain_batch : int
    pretrain_rate : float
    batches : int
        Size of a simulated chunk, times 128 stamps.
    window : int
        Chunks that batches are drawn from.
    fresh_every : int
        Steps after which a new chunk replaces the oldest.
    replay, judged : int
        Further chunks: for fine-tuning; and, never trained on, for calibration and the tables.
    folds, seeds : int
        Of the cross-validation. A network is the mean of `seeds` trainings from the end of each cycle.
    steps : int
        Fine-tuning steps, of `real` + `foreign` + `semi` + `simulated` + `broken` stamps each.
    made : int
        Semi-synthetic stamps per fine-tuning.
    rate : float
        Learning rate of fine-tuning.
    evenness : float
        Real stamps are drawn by their class's rarity to this power.
    """

    cycles: tuple[int, ...] = (10_000,)
    pretrain_batch: int = 128
    pretrain_rate: float = 4e-3
    batches: int = 20
    window: int = 16
    fresh_every: int = 40
    replay: int = 6
    judged: int = 3
    folds: int = 5
    seeds: int = 4
    steps: int = 500
    real: int = 64
    foreign: int = 8
    semi: int = 16
    simulated: int = 16
    broken: int = 6
    made: int = 4000
    rate: float = 1e-3
    smoothing: float = 0.02
    evenness: float = 0.7
    network: NetworkConfig = field(default_factory=NetworkConfig)

    @property
    def pretrain_steps(self) -> int:
        """Steps of pre-training."""
        return sum(self.cycles)

    @property
    def chunks(self) -> int:
        """Simulated chunks that pre-training sees."""
        return self.window + (self.pretrain_steps - 1) // self.fresh_every


LONG = Plan(cycles=(100_000,), fresh_every=20)
"""Eight hours on two cores: every stamp is seen once."""

SMOKE = Plan(
    cycles=(12, 8), pretrain_batch=32, batches=2, window=1, fresh_every=20, replay=1, judged=1, folds=2,
    seeds=1, steps=20, made=100,
)  # fmt: skip


def save(path: Path, **arrays: np.ndarray) -> None:
    """Write an ``.npz`` whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    with open(temporary, "wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]
    os.replace(temporary, path)


def targets_of(
    real: np.ndarray,
    morphology: np.ndarray,
    science: np.ndarray,
    cause: np.ndarray,
    broken: np.ndarray | None = None,
) -> Targets:
    """Targets of every head; -1 is none. Without `broken` all stamps are sound."""
    return {
        "realbogus": real,
        "3class": np.where(morphology < 3, morphology, -1),
        "4class": morphology,
        "5class": science,
        "kinds": cause,
        "input": np.zeros_like(real) if broken is None else broken,
    }


def real_targets(alerts: Alerts) -> Targets:
    """Targets of real stamps, visual inspection first."""
    unknown = np.full(len(alerts), -1)
    return targets_of(alerts.binary, alerts.morphology, alerts.science, unknown)


def joint_loss(outputs: dict[str, Tensor], targets: Targets, smoothing: float) -> Tensor:
    """Sum of the cross entropies of the heads that have targets, over the rows with a label there."""
    losses = []
    for head, target in targets.items():
        logits, wanted = outputs[head], torch.from_numpy(target)
        if (wanted >= 0).any():
            entropy = F.cross_entropy(
                logits.float(), wanted, ignore_index=-1, label_smoothing=smoothing, reduction="sum"
            )
            losses.append(_WEIGHT.get(head, 1.0) * entropy / len(wanted))
    return torch.stack(losses).sum()


def step(
    network: StampNetwork, optimizer: torch.optim.Optimizer, x: Tensor, targets: Targets, smoothing: float
) -> float:
    """One step of the optimizer on a batch; gives the loss."""
    device = next(network.parameters()).device
    with fast_math(device):
        predicted = network(x.to(device, memory_format=torch.channels_last))
    loss = joint_loss({head: logits.cpu() for head, logits in predicted.items()}, targets, smoothing)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(network.parameters(), _LARGEST_GRADIENT)
    optimizer.step()
    return float(loss.detach())


def best_device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def new_network(plan: Plan) -> StampNetwork:
    """A network of the plan's shape with random weights."""
    heads = {name: len(classes) for name, classes in {**HEADS, **EXTRA}.items()}
    return StampNetwork(heads, plan.network)


def fine_tune(
    path: Path,
    pretrained: Path,
    replay: list[Path],
    alerts: Alerts,
    rows: np.ndarray,
    foreign: Foreign,
    foreign_rows: np.ndarray,
    plan: Plan,
    seed: int,
    heads: Collection[str] = (*HEADS, *EXTRA),
) -> None:
    """Train on real alerts, candidates made out of them, other surveys' stamps, and replayed simulation.

    Writes the running average of the weights. Only `heads` learn, and with them the trunk.

    Parameters
    ----------
    path, pretrained : Path
        Where the weights go, and those that it starts from.
    replay : list of Path
        Chunks of simulated stamps.
    alerts, rows : Alerts and ndarray
        The source survey, and the alerts of it that may be learnt from.
    foreign, foreign_rows : Foreign and ndarray
        Other surveys' inspected stamps, and those that may be learnt from.
    plan : Plan
    seed : int
    heads : collection of str
    """
    from .pretraining import load_chunk

    if path.exists():
        return
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    rng = np.random.default_rng((seed, 3))
    known = alerts.take(rows)
    hosts = [MORPHOLOGY[code] if 0 <= code < 3 else "" for code in known.morphology]
    made, made_real, made_host, made_kind = SemiSynthesizer(known.triplets, known.binary, hosts, seed).draw(
        plan.made
    )
    codes = np.array([MORPHOLOGY.index(host) if host else -1 for host in made_host])
    causes = [_CAUSE_OF_MADE.get(str(kind), "") for kind in made_kind]
    chunks = [load_chunk(chunk) for chunk in replay]
    elsewhere = foreign.take(foreign_rows)
    # Tensor, targets, chance and number of each source; what the batch holds, in this order.
    sources = [
        (normalised(known.triplets, CONTRACT), real_targets(known), evened(known, plan.evenness), plan.real),
        (
            elsewhere.tensor,
            targets_of(
                elsewhere.binary, elsewhere.morphology, *(np.full(len(elsewhere.binary), -1) for _ in "ab")
            ),
            elsewhere.chance(),
            plan.foreign if len(elsewhere.binary) else 0,
        ),
        (
            normalised(made, CONTRACT).astype(np.float16),
            targets_of(
                made_real.astype(int),
                np.where(made_real, codes, MORPHOLOGY.index("bogus")),
                np.where(made_real, -1, SCIENCE.index("bogus")),
                np.array([EXTRA["kinds"].index(cause) if cause else -1 for cause in causes]),
            ),
            None,
            plan.semi,
        ),
        (
            np.concatenate([tensor for tensor, _ in chunks]),
            {head: np.concatenate([truth[head] for _, truth in chunks]) for head in chunks[0][1]},
            None,
            plan.simulated,
        ),
    ]
    network = _load(pretrained, plan).to(best_device(), memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(network.parameters(), plan.rate, weight_decay=0.02, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, plan.rate, total_steps=plan.steps, pct_start=0.15
    )
    # No interpolated shift and no blur: they would soften what tells a cosmic ray from a star.
    vary = Augmentation(shift=0.0, blur=0.0, noise=0.4, drop=0.05, softening=CONTRACT.softening)
    generator = torch.Generator().manual_seed(seed)
    mean = get_weights(network)
    for number in range(plan.steps):
        drawn = [
            rng.choice(len(tensor), count, p=chance) if count else np.zeros(0, int)
            for tensor, _, chance, count in sources
        ]
        x = np.concatenate([part[0][i].astype(np.float32) for part, i in zip(sources, drawn, strict=True)])
        targets = {
            head: np.concatenate([part[1][head][i] for part, i in zip(sources, drawn, strict=True)])
            for head in heads
        }
        if plan.broken and "input" in heads:
            spoilt = break_tensor(rng, x[rng.choice(len(x), plan.broken, replace=False)], CONTRACT)
            x = np.concatenate([x, spoilt])
            for head, wanted in targets.items():
                code = EXTRA["input"].index("broken") if head == "input" else -1
                targets[head] = np.concatenate([wanted, np.full(plan.broken, code)])
        moved = torch.from_numpy(x).roll(tuple(rng.integers(-1, 2, 2).tolist()), (2, 3))
        step(network, optimizer, vary(moved, generator), targets, plan.smoothing)
        schedule.step()
        keep = min(0.99, (number + 1) / (number + 10))
        for name, value in get_weights(network).items():
            mean[name].lerp_(value, 1 - keep)
    save(path, **{name: value.numpy() for name, value in mean.items()})


def evened(alerts: Alerts, power: float) -> np.ndarray:
    """Chance of each real stamp to be drawn: rare classes and bright sources more often.

    Real or bogus decides first, then host and brightness; unknown classes are drawn as the common ones.
    """
    bright = np.digitize(alerts.magnitude, _BRIGHTNESS)  # NaN is faint
    cells = np.unique(np.stack([alerts.binary, alerts.morphology, bright]), axis=1, return_inverse=True)[1]
    count = np.bincount(cells.ravel())
    weight = np.minimum((count.max() / count) ** power, _MOST_OFTEN)[cells.ravel()]
    chance = np.where(alerts.binary >= 0, weight, 1.0)
    return np.asarray(chance / chance.sum())


def _load(path: Path, plan: Plan) -> StampNetwork:
    network = new_network(plan).fold()
    with np.load(path, allow_pickle=False) as stored:
        set_weights(network, {name: torch.from_numpy(stored[name]) for name in stored.files})
    return network


def soup(paths: list[Path], plan: Plan) -> StampNetwork:
    """One network with the mean of the weights of several that started from the same ones."""
    many: list[Weights] = [get_weights(_load(path, plan)) for path in paths]
    network = _load(paths[0], plan)
    set_weights(network, average(many))
    return network.eval()


@torch.inference_mode()
def outputs(network: StampNetwork, tensor: np.ndarray, batch: int = 256) -> dict[str, np.ndarray]:
    """Logits of every head, and the features, of a normalised tensor."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in (*HEADS, *EXTRA, "features")}
    for start in range(0, max(len(tensor), 1), batch):
        features = network.embedding(torch.from_numpy(tensor[start : start + batch]))
        parts["features"].append(features.numpy())
        for name in (*HEADS, *EXTRA):
            parts[name].append(network.heads[name](features).numpy())
    return {name: np.concatenate(values) for name, values in parts.items()}
