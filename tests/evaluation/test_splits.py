"""Folds keep sky objects whole, share out every class, and repeat with their seed."""

from __future__ import annotations

import numpy as np
import pytest

from transientnet.evaluation.splits import draw_objects, grouped_folds


@pytest.mark.parametrize("count", [2, 5])
def test_folds_never_cut_through_an_object_and_leave_every_row_out_once(count: int) -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 40, 200)
    y = groups % 3
    folds = grouped_folds(y, groups, count, 0)
    assert sorted(np.concatenate([fold.test for fold in folds]).tolist()) == list(range(200))
    for fold in folds:
        assert not set(groups[fold.train]) & set(groups[fold.test])
        assert len(fold.train) + len(fold.test) == 200


def test_every_fold_gets_its_share_of_each_class_also_where_objects_differ_in_size() -> None:
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(120), rng.geometric(0.2, 120))
    y = np.where(np.isin(groups, np.arange(12)), 2, groups % 2)
    for c in range(3):
        shares = [(y[fold.test] == c).sum() / (y == c).sum() for fold in grouped_folds(y, groups)]
        assert len(shares) == 5
        assert max(shares) < 0.45
        assert min(shares) > 0.05


def test_a_seed_repeats_its_folds_and_another_deals_anew() -> None:
    y, groups = np.arange(60) % 2, np.arange(60) // 2
    one, again, other = (
        [fold.test.tolist() for fold in grouped_folds(y, groups, 3, seed)] for seed in (0, 0, 1)
    )
    assert one == again != other


def test_names_and_rows_without_objects_are_dealt_too() -> None:
    y = np.array(["bogus", "real"] * 10)
    assert sum(len(fold.test) for fold in grouped_folds(y, None)) == 20


@pytest.mark.parametrize(
    ("y", "groups", "left"),
    [([0, 0, 1, 1], [0, 1, 2, 2], 2), ([0, 0, 0, 1], [0, 1, 2, 2], 2), ([0, 1], [0, 0], 0), ([], [], 0)],
)
def test_a_fold_that_would_train_on_fewer_classes_is_dropped(
    y: list[int], groups: list[int], left: int
) -> None:
    folds = grouped_folds(y, groups, 5)
    assert len(folds) == left
    for fold in folds:
        assert set(np.array(y)[fold.train]) == set(y)


def test_a_share_of_the_objects_keeps_every_class() -> None:
    groups = np.arange(40) // 2
    y = np.where(groups < 2, 1, 0)
    rows = draw_objects(y, groups, np.arange(40), 0.25, np.random.default_rng(0))
    assert set(y[rows]) == {0, 1}
    assert len(rows) == 2 * (1 + 4)
    assert all(
        (groups == groups[row]).sum() == np.isin(rows, np.flatnonzero(groups == groups[row])).sum()
        for row in rows
    )
