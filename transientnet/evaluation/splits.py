"""Cross-validation that keeps sky objects whole: the one split of training, calibration and reports."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Fold", "draw_objects", "grouped_folds"]

Index = npt.NDArray[np.intp]


class Fold(NamedTuple):
    """Row numbers to train on, and those left out."""

    train: Index
    test: Index


def grouped_folds(
    labels: npt.ArrayLike, groups: npt.ArrayLike | None, count: int = 5, seed: int = 0
) -> list[Fold]:
    """Folds that never cut through a sky object and share out every class.

    Objects are dealt in random order, those with many rows first, each to the fold that has the least of
    its classes so far.

    Parameters
    ----------
    labels : array_like, shape (N,)
        Class of each row.
    groups : array_like, shape (N,), or None
        Sky object of each row; None takes each row as an object of its own.
    count : int
        Number of folds.
    seed : int

    Returns
    -------
    list of Fold
        Only those that leave rows out and train on every class: fewer than `count` where objects are few,
        none where a class has one object.
    """
    y = np.unique(np.asarray(labels), return_inverse=True)[1].ravel()
    names = (
        np.arange(len(y)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1].ravel()
    )
    rows = np.zeros((int(names.max(initial=-1)) + 1, int(y.max(initial=-1)) + 1))
    np.add.at(rows, (names, y), 1.0)
    share = rows / np.maximum(rows.sum(axis=0), 1.0)
    order = np.random.default_rng(seed).permutation(len(rows))
    order = order[np.argsort(-rows[order].sum(axis=1), kind="stable")]
    load, fold = np.zeros((count, rows.shape[1])), np.zeros(len(rows), int)
    for item in order.tolist():
        # Least increase of the squared loads; then the fold with the least of all classes.
        fold[item] = np.lexsort((load.sum(axis=1), load @ share[item]))[0]
        load[fold[item]] += share[item]
    folds = [Fold(np.flatnonzero(fold[names] != k), np.flatnonzero(fold[names] == k)) for k in range(count)]
    return [f for f in folds if len(f.test) and len(np.unique(y[f.train])) == rows.shape[1]]


def draw_objects(
    labels: npt.NDArray[np.generic],
    groups: npt.NDArray[np.generic],
    rows: Index,
    share: float,
    rng: np.random.Generator,
    *,
    least: int = 1,
) -> Index:
    """Rows of a random share of the sky objects of each class.

    Parameters
    ----------
    labels, groups : ndarray, shape (N,)
        Class and sky object of each row.
    rows : ndarray of int
        Row numbers to draw from.
    share : float
        Of the objects of each class, 0 to 1.
    rng : numpy.random.Generator
    least : int
        Objects drawn of each class at least, as far as there are any.

    Returns
    -------
    ndarray of int
        Chosen row numbers, in the order of `rows`.
    """
    kept: list[Any] = []
    for name in np.unique(labels[rows]):
        objects = rng.permutation(np.unique(groups[rows[labels[rows] == name]]))
        kept += objects[: max(least, round(share * len(objects)))].tolist()
    return rows[np.isin(groups[rows], kept)]
