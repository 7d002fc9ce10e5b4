"""In which order candidates are asked about: what teaches most, with a random share between.

That candidate comes next whose label would make the head's answers about all candidates most certain: the one
that lowers their total variance most (V-optimal design; Cohn, Ghahramani & Jordan 1996), greedily, with the
features' covariance as labelled so far. So an uncertain candidate that stands for many comes before one that
stands for itself, and a hundred like artefacts are not asked about in a row. ``benchmarks/label_queue.py``
measures it. A random share, drawn by the hash of each candidate's name, is the same in every run and on every
machine: its labels are a uniform sample of the night, which the others are not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..triplet import QualityFlag
from .candidates import Candidate
from .head import BIAS_PULL, SLOPE_PULL, Start

__all__ = [
    "RANDOM",
    "UNCERTAIN",
    "UNUSABLE",
    "how_chosen",
    "is_random",
    "most_teaching",
    "random_order",
    "teaching_order",
]

RANDOM, UNCERTAIN, UNUSABLE = "random", "uncertain", "unusable"

PICKED = 200
"""Candidates that are picked one by one; those behind follow by uncertainty, until the next refit."""

FIRST = 25
"""Labels of which half are drawn at random."""

PULL = 3.0
"""The strength of the head's pull that the covariance assumes; see `head.STRENGTHS`."""


def _draw(candidate: Candidate) -> float:
    """A number in [0, 1) that belongs to the candidate, wherever its files lie."""
    name = f"{candidate.id}\n{candidate.group}".encode()
    return int.from_bytes(hashlib.sha256(name).digest()[:8], "big") / 2**64


def how_chosen(
    items: Sequence[Candidate], quality: npt.NDArray[np.uint16], share: float
) -> npt.NDArray[np.str_]:
    """Why each candidate is in the queue: random, uncertain, or unusable (at the end)."""
    drawn = np.array([_draw(item) for item in items]) < share
    unusable = (quality & QualityFlag.UNUSABLE) != 0
    return np.where(unusable, UNUSABLE, np.where(drawn, RANDOM, UNCERTAIN))


def is_random(place: int, labelled: int, share: float) -> bool:
    """Whether a place of the queue goes to the random share, so many labels having been given before.

    The share holds for every beginning of the queue, not only for the whole; but half of the first labels are
    random, since a model's threshold on a new telescope is what it knows worst.
    """
    if share and place + labelled < FIRST:
        share = max(share, 0.5)
    return int((place + 1) * share) > int(place * share)


def random_order(items: Sequence[Candidate]) -> list[int]:
    """Rows in a random order, those of the random share first: before a model has seen them."""
    return sorted(range(len(items)), key=lambda row: _draw(items[row]))


def teaching_order(
    items: Sequence[Candidate],
    chosen: npt.NDArray[np.str_],
    start: Start,
    probabilities: npt.NDArray[np.floating],
    share: float,
    labelled: Sequence[int] = (),
) -> list[int]:
    """Rows in the order in which to ask.

    Parameters
    ----------
    items : sequence of Candidate, length N
    chosen : ndarray of str, shape (N,)
        From `how_chosen`.
    start : Start
        Features of the candidates, as the head sees them.
    probabilities : ndarray, shape (N, K)
        What is thought of the candidates now.
    share : float
        Part of the queue that is drawn at random, 0 to 1.
    labelled : sequence of int
        Rows with a label.
    """
    random = sorted(np.flatnonzero(chosen == RANDOM).tolist(), key=lambda row: _draw(items[row]))
    done = set(labelled)
    rows = np.array([row for row in np.flatnonzero(chosen == UNCERTAIN) if row not in done], np.int64)
    teaching = [*most_teaching(start, probabilities, rows, list(labelled)), *sorted(done)]
    teaching = [row for row in teaching if chosen[row] == UNCERTAIN]
    order: list[int] = []
    random.reverse()
    teaching.reverse()
    while random and teaching:
        take_random = is_random(len(order), len(done), share)
        order.append((random if take_random else teaching).pop())
    return [*order, *random[::-1], *teaching[::-1], *np.flatnonzero(chosen == UNUSABLE).tolist()]


def most_teaching(
    start: Start,
    probabilities: npt.NDArray[np.floating],
    rows: npt.NDArray[np.int64],
    labelled: Sequence[int],
    count: int = PICKED,
) -> list[int]:
    """`rows` in the order of what their labels teach; the first `count` are picked one after the other."""
    p = np.clip(np.nan_to_num(np.asarray(probabilities, np.float64), nan=0.0), 0.0, 1.0)
    # Variance of an answer: that of Bernoulli's trial for two classes.
    spread = (p * (1 - p)).sum(1) / 2
    x = np.concatenate([start.design, start.offset[:, 1:] - start.offset[:, :1]], 1)
    pull = np.full(x.shape[1], PULL)
    pull[start.design.shape[1] - 1], pull[start.design.shape[1] :] = BIAS_PULL, SLOPE_PULL
    seen = x[list(labelled)]
    covariance = np.linalg.inv(np.diag(pull) + (seen * spread[list(labelled), None]).T @ seen)
    # How the head's uncertainty shows in the answers about all candidates: the root of its metric.
    shown = x[[*rows, *labelled]] * spread[[*rows, *labelled], None]
    values, vectors = np.linalg.eigh(shown.T @ shown / max(1, len(shown)))
    root = vectors * np.sqrt(np.maximum(values, 0))
    asked, weight = x[rows], spread[rows]
    against = asked @ covariance
    own, effect = (against * asked).sum(1), against @ root
    free = np.ones(len(rows), bool)
    order: list[int] = []
    for _ in range(min(count, len(rows))):
        gain = weight * (effect**2).sum(1) / (1 + weight * own)
        best = int(np.argmax(np.where(free, gain, -1.0)))
        order.append(best)
        free[best] = False
        direction, scale = against[best].copy(), weight[best] / (1 + weight[best] * own[best])
        along = asked @ direction
        against -= scale * np.outer(along, direction)
        own -= scale * along**2
        effect -= scale * np.outer(along, direction @ root)
    rest = np.flatnonzero(free)
    order += rest[np.argsort(-weight[rest], kind="stable")].tolist()
    return [int(row) for row in rows[order]]
