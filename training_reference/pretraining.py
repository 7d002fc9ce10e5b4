"""Pre-training on simulated stamps that are new all the time.

Processes beside the trainer fill chunks of stamps; the trainer holds a window of the newest ones, draws
its batches from it, and drops the oldest chunk for each one that comes. A chunk is a function of its
number, so a run that was killed goes on from its checkpoint and makes again what it needs.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from transientnet.prepare.preprocess import preprocess
from transientnet.transfer.augment import Augmentation
from transientnet.transfer.network import StampNetwork
from transientnet.transfer.training import get_weights
from transientnet.triplet import Triplet

from .broken import break_tensor
from .data import MORPHOLOGY, SCIENCE
from .learn import CONTRACT, EXTRA, Plan, Targets, best_device, new_network, save, step, targets_of
from .simulator import CAUSES, simulate

__all__ = ["CHECKPOINT_STEPS", "chunk_path", "keep_simulating", "load_chunk", "pretrain", "pretrained",
           "simulate_chunk"]  # fmt: skip

# What the simulator's kinds are among the broker's classes; a hostless transient is none of them.
_SCIENCE_OF = {"asteroid": 0, "supernova": 1, "variable star": 2, "nuclear": 3, "hostless": -1}
_CAUSE_OF = {kind: code for code, kinds in enumerate(CAUSES.values()) for kind in kinds}

SIMULATED_AT_ONCE = 128
# Share of simulated batches that are scaled to 8 bits per channel, as some surveys store stamps.
_EIGHT_BIT = 0.25
# Share of simulated batches whose seeing is not told to the preprocess.
_UNTOLD = 0.3
# Share of a batch that is broken on purpose.
_BROKEN = 0.08
# Chunks that may wait for the trainer; seconds that it waits for one before it makes it itself.
_AHEAD, _PATIENCE = 6, 90.0
CHECKPOINT_STEPS = 200
"""Steps after which a killed run need not do anything again."""


def pretrained(work: Path, plan: Plan) -> list[Path]:
    """The weights at the end of each cycle."""
    return [work / f"pretrained-{k}.npz" for k in range(len(plan.cycles))]


def chunk_path(work: Path, index: int) -> Path:
    """Where a chunk is kept while it is needed."""
    return work / f"simulated-{index:06d}.npz"


def simulate_chunk(path: Path, index: int, batches: int) -> None:
    """Simulate, normalise and store one chunk: half-precision tensors and their targets."""
    if path.exists():
        return
    tensors: list[np.ndarray] = []
    truth: dict[str, list[np.ndarray]] = {}
    for batch in range(batches):
        seed = index * 1000 + batch
        rng = np.random.default_rng((seed, 1))
        drawn = simulate(SIMULATED_AT_ONCE, seed)
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
        codes = [MORPHOLOGY.index(name or "bogus") for name in drawn.morphology]
        kinds = [
            _SCIENCE_OF.get(str(kind), -1 if is_real else SCIENCE.index("bogus"))
            for kind, is_real in zip(drawn.kind, drawn.real, strict=True)
        ]
        causes = [_CAUSE_OF.get(str(kind), -1) for kind in drawn.kind]
        for name, values in {
            "real": np.where(prepared.usable, drawn.real, -1),
            "morphology": np.where(prepared.usable, codes, -1),
            "science": np.where(prepared.usable, kinds, -1),
            "cause": np.where(prepared.usable, causes, -1),
            # Not taught: what the tables ask for.
            "kind": drawn.kind,
            "snr": drawn.snr,
            "trail": drawn.trail / drawn.fwhm,
            "saturated": drawn.saturated,
        }.items():
            truth.setdefault(name, []).append(values)
    save(
        path, tensor=np.concatenate(tensors), **{name: np.concatenate(parts) for name, parts in truth.items()}
    )


def load_chunk(path: Path) -> tuple[np.ndarray, Targets]:
    """Stamps of one chunk and their targets."""
    with np.load(path, allow_pickle=False) as chunk:
        truth = [chunk[name].astype(np.int64) for name in ("real", "morphology", "science", "cause")]
        usable = np.where(truth[0] >= 0, 0, -1)
        return chunk["tensor"], targets_of(*truth, broken=usable)


def keep_simulating(work: Path, plan: Plan, number: int, count: int) -> None:
    """Make every `count`-th chunk, not too far ahead of the trainer, until it is done."""
    progress, done = work / "progress.txt", pretrained(work, plan)[-1]
    index = number
    while index < plan.chunks and not done.exists():
        oldest = int(progress.read_text()) if progress.exists() else 0
        if index < oldest:
            index += count
        elif index >= oldest + plan.window + _AHEAD:
            time.sleep(0.5)
        else:
            simulate_chunk(chunk_path(work, index), index, plan.batches)
            index += count


class _Window:
    """The newest chunks in memory."""

    def __init__(self, work: Path, plan: Plan, alone: bool):
        self._work, self._plan, self._alone = work, plan, alone
        self._rows = plan.batches * SIMULATED_AT_ONCE
        size = CONTRACT.size
        self.tensor = np.empty((plan.window * self._rows, 3, size, size), np.float16)
        self.targets: Targets = {}
        self._oldest, self._loaded = -1, 0

    def move(self, oldest: int) -> None:
        """Hold the chunks `oldest` to `oldest` + window."""
        if oldest == self._oldest:
            return
        for index in range(max(self._loaded, oldest), oldest + self._plan.window):
            self._load(index)
        self._loaded, self._oldest = oldest + self._plan.window, oldest
        progress = self._work / "progress.txt"
        progress.with_suffix(".part").write_text(str(oldest))
        progress.with_suffix(".part").replace(progress)
        for path in self._work.glob("simulated-*.npz"):
            if int(path.stem.split("-")[1]) < oldest:
                path.unlink(missing_ok=True)

    def _load(self, index: int) -> None:
        path, waited = chunk_path(self._work, index), 0.0
        while not self._alone and not path.exists() and waited < _PATIENCE:
            time.sleep(0.2)
            waited += 0.2
        simulate_chunk(path, index, self._plan.batches)
        at = index % self._plan.window * self._rows
        stamps, targets = load_chunk(path)
        self.tensor[at : at + self._rows] = stamps
        for head, values in targets.items():
            self.targets.setdefault(head, np.full(len(self.tensor), -1))[at : at + self._rows] = values


def pretrain(work: Path, plan: Plan, seed: int, *, alone: bool, log: Callable[[str], None] = print) -> None:
    """Train on simulated stamps alone; each cycle ends in a network, its batch statistics folded.

    Parameters
    ----------
    work : Path
        Holds the chunks, the checkpoint and the result.
    plan : Plan
    seed : int
    alone : bool
        Whether no other process makes the chunks.
    log : callable
    """
    ends = dict(zip(np.cumsum(plan.cycles).tolist(), pretrained(work, plan), strict=True))
    if all(path.exists() for path in ends.values()):
        return
    torch.manual_seed(seed)
    rng = np.random.default_rng((seed, 2))
    # A quarter to a half faster on the CPU than the other order of the axes.
    network = new_network(plan).to(best_device(), memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(network.parameters(), plan.pretrain_rate, weight_decay=0.02, fused=True)
    vary = Augmentation(shift=0.0, blur=0.0, noise=0.0, drop=0.08, softening=CONTRACT.softening)
    generator = torch.Generator().manual_seed(seed)
    checkpoint = work / "pretraining.checkpoint.npz"
    first = _restore(checkpoint, network, optimizer, rng, generator)
    window = _Window(work, plan, alone)
    spoilt = max(2, round(_BROKEN * plan.pretrain_batch))
    recent = 0.0
    for number in range(first, plan.pretrain_steps):
        if number == first or number in ends:
            schedule = _cycle(optimizer, plan, number)
        window.move(number // plan.fresh_every)
        rows = rng.integers(0, len(window.tensor), plan.pretrain_batch)
        x = window.tensor[rows].astype(np.float32)
        targets = {head: y[rows] for head, y in window.targets.items()}
        x[:spoilt] = break_tensor(rng, x[:spoilt], CONTRACT)
        for head, wanted in targets.items():
            wanted[:spoilt] = EXTRA["input"].index("broken") if head == "input" else -1
        loss = step(network, optimizer, vary(torch.from_numpy(x), generator), targets, plan.smoothing)
        schedule.step()
        recent = loss if number == first else 0.98 * recent + 0.02 * loss
        if number % CHECKPOINT_STEPS == CHECKPOINT_STEPS - 1 or number + 1 == plan.pretrain_steps:
            log(f"pre-training step {number + 1}/{plan.pretrain_steps}: loss {recent:.3f}")
            _store(checkpoint, network, optimizer, number + 1, rng, generator)
        if number + 1 in ends:
            folded = get_weights(copy.deepcopy(network).fold())
            save(ends[number + 1], **{name: value.numpy() for name, value in folded.items()})
    checkpoint.unlink(missing_ok=True)
    for chunk in work.glob("simulated-*.npz"):
        chunk.unlink(missing_ok=True)


def _cycle(optimizer: torch.optim.Optimizer, plan: Plan, number: int) -> torch.optim.lr_scheduler.LRScheduler:
    """The cycle of learning rate and momentum that step `number` is in, where that step finds it."""
    ends = np.cumsum(plan.cycles)
    k = int(np.searchsorted(ends, number, side="right"))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, plan.pretrain_rate * (k + 1) ** -0.5, total_steps=plan.cycles[k]
    )
    with warnings.catch_warnings():
        # The steps of the optimizer were done by the run that was killed.
        warnings.simplefilter("ignore")
        for _ in range(number - int(ends[k]) + plan.cycles[k]):
            schedule.step()
    return schedule


def _store(path: Path, network: StampNetwork, optimizer: torch.optim.Optimizer, number: int,
           rng: np.random.Generator, generator: torch.Generator) -> None:  # fmt: skip
    arrays = {f"net/{name}": value.cpu().numpy() for name, value in network.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        arrays |= {f"opt/{index}/{name}": value.cpu().numpy() for name, value in state.items()}
    random = rng.bit_generator.state
    words = [(random["state"][name] >> (64 * k)) & (2**64 - 1) for name in ("state", "inc") for k in (0, 1)]
    # Half of a number that was drawn may wait for its turn.
    words += [random["has_uint32"], random["uinteger"]]
    save(
        path,
        step=np.array(number),
        numpy=np.array(words, np.uint64),
        torch=generator.get_state().numpy(),
        **arrays,
    )


def _restore(path: Path, network: StampNetwork, optimizer: torch.optim.Optimizer,
             rng: np.random.Generator, generator: torch.Generator) -> int:  # fmt: skip
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
    optimizer.load_state_dict(state)
    words = [int(word) for word in arrays["numpy"]]
    inner = {"state": words[0] | words[1] << 64, "inc": words[2] | words[3] << 64}
    waiting = dict(zip(("has_uint32", "uinteger"), words[4:], strict=False))
    rng.bit_generator.state = {**rng.bit_generator.state, "state": inner, **waiting}
    generator.set_state(torch.from_numpy(arrays["torch"]))
    return int(arrays["step"])
