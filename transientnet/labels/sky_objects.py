"""Which stamps show the same sky object, where no table names it."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..prepare.preprocess import Prepared
from .table import Labels, Text

__all__ = ["GROUPED", "SIMILARITY", "SkyObjects", "sky_objects"]

GROUPED = {
    "table": "groups from the table or the stamps' source",
    "similarity": "groups from the likeness of the stamps, where the table has none",
}
"""Where groups come from, in words."""

SIMILARITY = 0.85
"""Correlation of two reference stamps, without their centres, above which they show the same sky.

On ZTF 97 of 100 pairs above it are the same object, and half of such pairs are above it.
"""

_POOL = 3
_CENTRE = 4


class SkyObjects(NamedTuple):
    """Sky objects of a label table.

    Attributes
    ----------
    repeats : list of list of int
        Rows with one and the same stamp.
    groups : ndarray of str, shape (N,)
        Sky object of every row.
    inferred : ndarray of bool, shape (N,)
        Rows that named none.
    """

    repeats: list[list[int]]
    groups: Text
    inferred: npt.NDArray[np.bool_]


def sky_objects(labels: Labels, prepared: Prepared) -> SkyObjects:
    """Find the sky object of every row.

    Rows without a group are put together when they share a stamp, or when the surroundings of the
    target in their reference stamps correlate by more than `SIMILARITY`. Groups of the table are
    never merged with others, except by rows that repeat one of their stamps.

    Parameters
    ----------
    labels : Labels
    prepared : Prepared
        Its triplets after `preprocess`.

    Returns
    -------
    SkyObjects
    """
    n = len(labels)
    usable = np.flatnonzero(prepared.usable)
    stamps: dict[bytes, list[int]] = defaultdict(list)
    for row in usable.tolist():
        stamps[hashlib.sha256(prepared.tensor[row].tobytes()).digest()].append(row)
    same = [rows for rows in stamps.values() if len(rows) > 1]

    missing = labels.groups == ""
    parent = list(range(n))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for rows in same:
        for row in rows[1:]:
            parent[root(row)] = root(rows[0])
    alone = np.flatnonzero(missing & prepared.usable)
    for one, other in _alike(prepared.tensor[alone, 1]):
        parent[root(int(alone[one]))] = root(int(alone[other]))

    roots = [root(row) for row in range(n)]
    names = {roots[row]: str(labels.groups[row]) for row in reversed(range(n)) if not missing[row]}
    groups = [
        str(labels.groups[row]) or names.get(roots[row]) or f"stamp {labels.rows[roots[row]]}"
        for row in range(n)
    ]
    return SkyObjects(same, np.array(groups, dtype=str), missing & prepared.usable)


def _alike(references: npt.NDArray[np.float32]) -> Iterable[tuple[int, int]]:
    """Pairs of reference stamps that show the same surroundings.

    The centre is left out: two stars of the same brightness are alike there.
    """
    n, size = len(references), references.shape[-1]
    side = size // _POOL
    start = (size - side * _POOL) // 2
    window: npt.NDArray[Any] = references[:, start : start + side * _POOL, start : start + side * _POOL]
    pooled = window.reshape(n, side, _POOL, side, _POOL).mean((2, 4))
    middle, reach = side // 2, min(_CENTRE, side // 4)
    pooled[:, middle - reach : middle + reach + 1, middle - reach : middle + reach + 1] = 0.0
    flat = pooled.reshape(n, side * side)
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    for begin in range(0, n, 1024):
        likeness = flat[begin : begin + 1024] @ flat[: begin + 1024].T
        rows, others = np.nonzero(likeness > SIMILARITY)
        for row, other in zip((rows + begin).tolist(), others.tolist(), strict=True):
            if other < row:
                yield row, other
