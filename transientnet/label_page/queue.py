"""In which order candidates are asked about: what teaches most, with a random share between.

Uncertain candidates come first (Lewis & Gale 1994), in steps of similar uncertainty; within a step
those come first that lie farthest from all before in the model's feature space (k-centre greedy,
Sener & Savarese 2018), so that a hundred like artefacts are not asked about in a row. A random share,
drawn by the hash of each candidate's name, is the same in every run and on every machine: its labels
are a uniform sample of the night, which the others are not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from .candidates import Candidate, Judgement, unusable

__all__ = ["RANDOM", "UNCERTAIN", "UNUSABLE", "how_chosen", "teaching_order"]

RANDOM, UNCERTAIN, UNUSABLE = "random", "uncertain", "unusable"

_STEPS = 8
_STEP_SIZES = (16, 512)


def _draw(candidate: Candidate) -> float:
    """A number in [0, 1) that belongs to the candidate, wherever its files lie."""
    name = f"{candidate.id}\n{candidate.group}".encode()
    return int.from_bytes(hashlib.sha256(name).digest()[:8], "big") / 2**64


def how_chosen(items: Sequence[Candidate], share: float) -> list[str]:
    """Why each candidate is in the queue: random, uncertain, or unusable (at the end)."""
    return [UNUSABLE if unusable(item) else RANDOM if _draw(item) < share else UNCERTAIN for item in items]


def teaching_order(
    items: Sequence[Candidate], judgement: Judgement, share: float, labelled: Iterable[int] = ()
) -> list[int]:
    """Rows in the order in which to ask.

    Parameters
    ----------
    items : sequence of Candidate, length N
    judgement : Judgement
    share : float
        Part of the queue that is drawn at random, 0 to 1.
    labelled : iterable of int
        Rows with a label: what is unlike them comes first.
    """
    chosen = np.array(how_chosen(items, share))
    random = sorted(np.flatnonzero(chosen == RANDOM).tolist(), key=lambda row: _draw(items[row]))
    uncertain = _by_teaching(np.flatnonzero(chosen == UNCERTAIN), judgement, list(labelled))
    order: list[int] = []
    while random and uncertain:
        # The share holds for every beginning of the queue, not only for the whole.
        take_random = int((len(order) + 1) * share) > int(len(order) * share)
        order.append((random if take_random else uncertain).pop(0))
    return [*order, *random, *uncertain, *np.flatnonzero(chosen == UNUSABLE).tolist()]


def _by_teaching(rows: npt.NDArray[np.int64], judgement: Judgement, labelled: list[int]) -> list[int]:
    if len(rows) == 0:
        return []
    p = np.clip(np.nan_to_num(judgement.probabilities[rows], nan=1.0), 1e-9, 1.0)
    entropy = -(p * np.log(p)).sum(axis=1)
    rows = rows[np.argsort(-entropy, kind="stable")]
    features = judgement.features - judgement.features.mean(axis=0)
    features = features / np.maximum(features.std(axis=0), 1e-6)
    known = features[labelled]
    size = int(np.clip(len(rows) // _STEPS, *_STEP_SIZES))
    order: list[int] = []
    for start in range(0, len(rows), size):
        step = rows[start : start + size]
        order += step[_farthest_first(features[step], known)].tolist()
    return order


def _farthest_first(points: npt.NDArray[np.float32], known: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Order of the points so that each is as far as can be from those before and from `known`."""
    distance = np.full(len(points), np.inf, np.float32)
    for start in range(0, len(known), 512):
        distance = np.minimum(distance, _squared(points, known[start : start + 512]).min(axis=1))
    order = np.empty(len(points), np.int64)
    for place in range(len(points)):
        order[place] = best = int(np.argmax(distance))
        distance = np.minimum(distance, _squared(points, points[best : best + 1])[:, 0])
        distance[order[: place + 1]] = -1.0
    return order


def _squared(points: npt.NDArray[np.float32], others: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    squares = (points**2).sum(1)[:, None] + (others**2).sum(1)[None] - 2 * points @ others.T
    clipped: npt.NDArray[np.float32] = np.maximum(squares, 0.0)
    return clipped
