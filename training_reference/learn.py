"""Learning: simulated stamps, pre-training on them, fine-tuning on real ones.

Every step is a function of its seed and its inputs, writes its result once and whole, and finds it
again when the run is started anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from transientnet.prepare.contract import InputContract
from transientnet.prepare.preprocess import preprocess
from transientnet.transfer.augment import Augmentation
from transientnet.transfer.network import NetworkConfig, StampNetwork
from transientnet.transfer.training import Weights, average, fast_math, get_weights, set_weights
from transientnet.triplet import Triplet

from .data import MORPHOLOGY, SCIENCE, Alerts, normalised
from .semisynthetic import SemiSynthesizer
from .simulator import simulate

__all__ = [
    "HEADS",
    "Plan",
    "evened",
    "fine_tune",
    "joint_loss",
    "new_network",
    "outputs",
    "pretrain",
    "real_targets",
    "save",
    "simulate_chunk",
    "soup",
]

HEADS: dict[str, tuple[str, ...]] = {
    "realbogus": ("bogus", "real"),
    "3class": MORPHOLOGY[:3],
    "4class": MORPHOLOGY,
    "5class": SCIENCE,
}
"""Model names and their classes: one trunk, a head each."""

CONTRACT = InputContract()

Targets = dict[str, np.ndarray]

# What the simulator's kinds are among the broker's classes; a hostless transient is none of them.
_SCIENCE_OF = {"asteroid": 0, "supernova": 1, "variable star": 2, "nuclear": 3, "hostless": -1}

_SIMULATED_AT_ONCE = 128
# Share of simulated batches that are scaled to 8 bits per channel, as some surveys store stamps.
_EIGHT_BIT = 0.25
# Share of simulated batches whose seeing is not told to the preprocess.
_UNTOLD = 0.3
_LARGEST_GRADIENT = 5.0


@dataclass(frozen=True)
class Plan:
    """Sizes of a training run.

    Attributes
    ----------
    chunks : int
        Simulated stamps, in chunks of `batches` times 128.
    pretrain_steps, pretrain_batch : int
    folds, seeds : int
        Of the cross-validation; the shipped network averages the weights of `seeds` trainings on all.
    steps : int
        Fine-tuning steps, of `real` + `semi` + `replay` stamps each.
    made : int
        Semi-synthetic stamps per fine-tuning.
    rate : float
        Learning rate of fine-tuning.
    evenness : float
        Real stamps are drawn by their class's rarity to this power.
    """

    chunks: int = 120
    batches: int = 20
    pretrain_steps: int = 15000
    pretrain_batch: int = 128
    pretrain_rate: float = 4e-3
    folds: int = 5
    seeds: int = 4
    steps: int = 400
    real: int = 64
    semi: int = 16
    replay: int = 8
    made: int = 4000
    rate: float = 1e-3
    smoothing: float = 0.02
    evenness: float = 0.7
    network: NetworkConfig = field(default_factory=NetworkConfig)


SMOKE = Plan(chunks=2, batches=2, pretrain_steps=20, pretrain_batch=32, folds=2, seeds=1, steps=20, made=100)


def save(path: Path, **arrays: np.ndarray) -> None:
    """Write an ``.npz`` whole or not at all."""
    temporary = path.with_name(f".{path.name}.part")
    with open(temporary, "wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]
    os.replace(temporary, path)


def simulate_chunk(path: Path, index: int, batches: int) -> None:
    """Simulate, normalise and store one chunk: half-precision tensors and their targets."""
    if path.exists():
        return
    tensors, real, morphology, science = [], [], [], []
    for batch in range(batches):
        seed = index * 1000 + batch
        rng = np.random.default_rng((seed, 1))
        drawn = simulate(_SIMULATED_AT_ONCE, seed)
        stamps = drawn.triplets
        if rng.random() < _EIGHT_BIT:
            low, high = (f(stamps, axis=(2, 3), keepdims=True) for f in (np.nanmin, np.nanmax))
            stamps = np.round((stamps - low) / np.maximum(high - low, 1e-9) * 255)
        told = rng.random() >= _UNTOLD
        prepared = preprocess(
            [
                Triplet(*images, fwhm=float(fwhm) if told else None)
                for images, fwhm in zip(stamps, drawn.fwhm, strict=True)
            ],
            CONTRACT,
        )
        tensors.append(prepared.tensor.astype(np.float16))
        real.append(np.where(prepared.usable, drawn.real, -1))
        codes = [MORPHOLOGY.index(name or "bogus") for name in drawn.morphology]
        morphology.append(np.where(prepared.usable, codes, -1))
        kinds = [
            _SCIENCE_OF.get(str(kind), -1 if is_real else SCIENCE.index("bogus"))
            for kind, is_real in zip(drawn.kind, drawn.real, strict=True)
        ]
        science.append(np.where(prepared.usable, kinds, -1))
    truth = {"real": real, "morphology": morphology, "science": science}
    save(
        path, tensor=np.concatenate(tensors), **{name: np.concatenate(parts) for name, parts in truth.items()}
    )


def load_simulation(paths: list[Path]) -> tuple[np.ndarray, Targets]:
    """Stamps of all chunks and their targets."""
    truth: dict[str, list[np.ndarray]] = {"real": [], "morphology": [], "science": []}
    for path in paths:
        with np.load(path, allow_pickle=False) as chunk:
            for name, parts in truth.items():
                parts.append(chunk[name])
    # Gigabytes: filled in place, not put together from copies.
    tensor = np.empty((sum(map(len, truth["real"])), 3, CONTRACT.size, CONTRACT.size), np.float16)
    at = 0
    for path in paths:
        with np.load(path, allow_pickle=False) as chunk:
            stamps = chunk["tensor"]
            tensor[at : at + len(stamps)] = stamps
            at += len(stamps)
    return tensor, _targets(*(np.concatenate(parts) for parts in truth.values()))


def _targets(real: np.ndarray, morphology: np.ndarray, science: np.ndarray) -> Targets:
    return {
        "realbogus": real,
        "3class": np.where(morphology < 3, morphology, -1),
        "4class": morphology,
        "5class": science,
    }


def real_targets(alerts: Alerts) -> Targets:
    """Targets of real stamps, visual inspection first."""
    return _targets(alerts.binary, alerts.morphology, alerts.science)


def joint_loss(outputs: dict[str, Tensor], targets: Targets, smoothing: float) -> Tensor:
    """Sum of the cross entropies of the heads that have targets, over the rows with a label there."""
    losses = []
    for head, target in targets.items():
        logits, wanted = outputs[head], torch.from_numpy(target)
        if (wanted >= 0).any():
            losses.append(
                F.cross_entropy(
                    logits.float(), wanted, ignore_index=-1, label_smoothing=smoothing, reduction="sum"
                )
                / len(wanted)
            )
    return torch.stack(losses).sum()


def _step(
    network: StampNetwork, optimizer: torch.optim.Optimizer, x: Tensor, targets: Targets, smoothing: float
) -> float:
    device = next(network.parameters()).device
    with fast_math(device):
        predicted = network(x.to(device))
    loss = joint_loss({head: logits.cpu() for head, logits in predicted.items()}, targets, smoothing)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(network.parameters(), _LARGEST_GRADIENT)
    optimizer.step()
    return float(loss.detach())


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def new_network(plan: Plan) -> StampNetwork:
    """A network of the plan's shape with random weights."""
    return StampNetwork({name: len(classes) for name, classes in HEADS.items()}, plan.network)


def pretrain(
    path: Path, chunks: list[Path], plan: Plan, seed: int, log: Callable[[str], None] = print
) -> None:
    """Train on simulated stamps alone; batch statistics are folded into the stored weights."""
    if path.exists():
        return
    torch.manual_seed(seed)
    rng = np.random.default_rng((seed, 2))
    tensor, targets = load_simulation(chunks)
    network = new_network(plan).to(_device()).train()
    optimizer = torch.optim.AdamW(network.parameters(), plan.pretrain_rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, plan.pretrain_rate, total_steps=plan.pretrain_steps
    )
    vary = Augmentation(shift=0.0, blur=0.0, noise=0.0, drop=0.08, softening=CONTRACT.softening)
    generator = torch.Generator().manual_seed(seed)
    checkpoint = path.with_suffix(".checkpoint.npz")
    first = _restore(checkpoint, network, optimizer, schedule, rng, generator)
    for step in range(first, plan.pretrain_steps):
        rows = rng.integers(0, len(tensor), plan.pretrain_batch)
        x = vary(torch.from_numpy(tensor[rows].astype(np.float32)), generator)
        loss = _step(network, optimizer, x, {head: y[rows] for head, y in targets.items()}, plan.smoothing)
        schedule.step()
        if step % 100 == 99 or step + 1 == plan.pretrain_steps:
            log(f"pre-training step {step + 1}/{plan.pretrain_steps}: loss {loss:.3f}")
            _store(checkpoint, network, optimizer, step + 1, rng, generator)
    network.fold()
    save(path, **{name: value.numpy() for name, value in get_weights(network).items()})
    checkpoint.unlink(missing_ok=True)


def _store(path: Path, network: StampNetwork, optimizer: torch.optim.Optimizer, step: int,
           rng: np.random.Generator, generator: torch.Generator) -> None:  # fmt: skip
    arrays = {f"net/{name}": value.cpu().numpy() for name, value in network.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        arrays |= {f"opt/{index}/{name}": value.cpu().numpy() for name, value in state.items()}
    random = rng.bit_generator.state["state"]
    words = [(random[name] >> (64 * k)) & (2**64 - 1) for name in ("state", "inc") for k in (0, 1)]
    save(
        path,
        step=np.array(step),
        numpy=np.array(words, np.uint64),
        torch=generator.get_state().numpy(),
        **arrays,
    )


def _restore(path: Path, network: StampNetwork, optimizer: torch.optim.Optimizer,
             schedule: torch.optim.lr_scheduler.LRScheduler, rng: np.random.Generator,
             generator: torch.Generator) -> int:  # fmt: skip
    """Go on where a killed run stood; gives the number of steps done."""
    if not path.exists():
        return 0
    with np.load(path, allow_pickle=False) as stored:
        arrays = dict(stored)
    network.load_state_dict(
        {n.removeprefix("net/"): torch.from_numpy(v) for n, v in arrays.items() if n[:4] == "net/"}
    )
    state = optimizer.state_dict()
    for name, value in arrays.items():
        if name.startswith("opt/"):
            _, index, key = name.split("/")
            state["state"].setdefault(int(index), {})[key] = torch.from_numpy(value)
    step = int(arrays["step"])
    for _ in range(step):
        schedule.step()
    state["param_groups"] = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict(state)
    words = [int(word) for word in arrays["numpy"]]
    inner = {"state": words[0] | words[1] << 64, "inc": words[2] | words[3] << 64}
    rng.bit_generator.state = {**rng.bit_generator.state, "state": inner}
    generator.set_state(torch.from_numpy(arrays["torch"]))
    return step


def fine_tune(
    path: Path,
    pretrained: Path,
    chunks: list[Path],
    alerts: Alerts,
    rows: np.ndarray,
    plan: Plan,
    seed: int,
    heads: Collection[str] = tuple(HEADS),
) -> None:
    """Train on the real alerts `rows`, candidates made out of them, and replayed simulation.

    Writes the running average of the weights. Only `heads` learn, and with them the trunk.
    """
    if path.exists():
        return
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    rng = np.random.default_rng((seed, 3))
    known = alerts.take(rows)
    x_real, y_real = normalised(known.triplets, CONTRACT), real_targets(known)
    hosts = [MORPHOLOGY[code] if 0 <= code < 3 else "" for code in known.morphology]
    made, made_real, made_host, _ = SemiSynthesizer(known.triplets, known.binary, hosts, seed).draw(plan.made)
    codes = np.array([MORPHOLOGY.index(host) if host else -1 for host in made_host])
    x_made = normalised(made, CONTRACT).astype(np.float16)
    y_made = _targets(
        made_real.astype(int),
        np.where(made_real, codes, MORPHOLOGY.index("bogus")),
        np.where(made_real, -1, SCIENCE.index("bogus")),
    )
    x_sim, y_sim = load_simulation(
        chunks[: 1 + plan.replay * plan.steps // (plan.batches * _SIMULATED_AT_ONCE)]
    )
    network = _load(pretrained, plan).to(_device()).train()
    optimizer = torch.optim.AdamW(network.parameters(), plan.rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, plan.rate, total_steps=plan.steps, pct_start=0.15
    )
    # No interpolated shift and no blur: they would soften what tells a cosmic ray from a star.
    vary = Augmentation(shift=0.0, blur=0.0, noise=0.4, drop=0.05, softening=CONTRACT.softening)
    generator = torch.Generator().manual_seed(seed)
    chance = evened(known, plan.evenness)
    mean = get_weights(network)
    for step in range(plan.steps):
        i = rng.choice(len(x_real), plan.real, p=chance)
        j = rng.integers(0, len(x_made), plan.semi)
        k = rng.integers(0, len(x_sim), plan.replay)
        x = np.concatenate([x_real[i], x_made[j].astype(np.float32), x_sim[k].astype(np.float32)])
        targets = {head: np.concatenate([y_real[head][i], y_made[head][j], y_sim[head][k]]) for head in heads}
        moved = torch.from_numpy(x).roll(tuple(rng.integers(-1, 2, 2).tolist()), (2, 3))
        _step(network, optimizer, vary(moved, generator), targets, plan.smoothing)
        schedule.step()
        keep = min(0.99, (step + 1) / (step + 10))
        for name, value in get_weights(network).items():
            mean[name].lerp_(value, 1 - keep)
    save(path, **{name: value.numpy() for name, value in mean.items()})


def evened(alerts: Alerts, power: float) -> np.ndarray:
    """Chance of each real stamp to be drawn: rare classes more often, unknown ones as the common."""
    count = np.bincount(alerts.morphology[alerts.morphology >= 0], minlength=len(MORPHOLOGY))
    weight = (count.max() / np.maximum(count, 1)) ** power
    chance = np.where(alerts.morphology >= 0, weight[alerts.morphology], 1.0)
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
    parts: dict[str, list[np.ndarray]] = {name: [] for name in (*HEADS, "features")}
    for start in range(0, len(tensor), batch):
        features = network.embedding(torch.from_numpy(tensor[start : start + batch]))
        parts["features"].append(features.numpy())
        for name in HEADS:
            parts[name].append(network.heads[name](features).numpy())
    return {name: np.concatenate(values) for name, values in parts.items()}
