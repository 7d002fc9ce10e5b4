"""A survey small enough to train on in a test: simulated stamps, labels and networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from transientnet import AdaptConfig

QUICK = AdaptConfig(folds=2, steps=8, threads=1, device="cpu", name="my-survey")


class Labelled(NamedTuple):
    """Class, stamps and sky object of each candidate."""

    labels: list[str]
    cutouts: np.ndarray
    groups: list[str]


def stamps(kinds: Sequence[int], seed: int = 0) -> np.ndarray:
    """Triplets of three kinds: 0 noise only, 1 a new source, 2 a dipole."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:63, :63]

    def spot(dx: float) -> np.ndarray:
        return np.asarray(200.0 * np.exp(-((y - 31) ** 2 + (x - 31 - dx) ** 2) / 5))

    frames = {0: (0 * spot(0), 0 * spot(0)), 1: (spot(0), 0 * spot(0)), 2: (spot(1.5), spot(-1.5))}
    out = [
        np.stack([frames[k][0], frames[k][1], frames[k][0] - frames[k][1]]) + rng.normal(0, 8, (3, 63, 63))
        for k in kinds
    ]
    return np.stack(out).astype(np.float32)


def labelled() -> Labelled:
    """24 labels, half real and half bogus; two stamps per object."""
    kinds = [0, 0, 1, 1] * 6
    return Labelled(
        ["real" if k else "bogus" for k in kinds], stamps(kinds), [f"o{n // 2}" for n in range(24)]
    )
