"""What can be wrong with a label table, found before anything is trained or judged with it."""

from __future__ import annotations

import difflib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import LabelError
from ..models.record import ModelRecord
from ..models.registry.resolve import resolve
from ..prepare.contract import InputContract
from ..prepare.preprocess import Prepared, preprocess
from ..triplet import QualityFlag, Triplet
from .sky_objects import GROUPED, sky_objects
from .table import Labels, bare_name, read_labels

__all__ = ["LabelCheck", "Problem", "check_labels", "check_table", "prepare"]

ALIKE = 0.75
"""Likeness (`difflib`) of two class names from which on one may be a misspelling of the other."""

RARE = 5
"""A class name is rare beside another one that stands in this many times as many rows; and so is a class
that the base model lacks and that has fewer rows than this, beside such a class."""

_LISTED = 12
_CHUNK = 256


@dataclass(frozen=True, slots=True)
class Problem:
    """One kind of trouble.

    Attributes
    ----------
    kind : str
    rows : tuple of int
        Index into the labels.
    message : str
    fatal : bool
        The table must not be used as it is.
    skippable : bool
        The rows may be left out instead of corrected.
    """

    kind: str
    rows: tuple[int, ...]
    message: str
    fatal: bool = True
    skippable: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class LabelCheck:
    """Result of `check_labels`.

    Attributes
    ----------
    labels : Labels
        With every group filled in.
    counts : dict of str to int
        Rows per class.
    objects : dict of str to int
        Sky objects per class.
    grouped_by : {"table", "similarity"}
        Where the groups come from; "similarity" as soon as one had to be inferred from the stamps.
    problems : tuple of Problem
    usable : ndarray of bool, shape (N,)
        Rows with a class and stamps that can be used, not part of any fatal problem.
    """

    labels: Labels
    counts: dict[str, int]
    objects: dict[str, int]
    grouped_by: str
    problems: tuple[Problem, ...]
    usable: npt.NDArray[np.bool_]

    @property
    def ok(self) -> bool:
        """True if no problem is fatal."""
        return not any(problem.fatal for problem in self.problems)

    def lines(self) -> list[str]:
        """The report of ``--dry-run``, line by line."""
        n = len(self.labels)
        objects = len(set(self.labels.groups[self.labels.labels != ""].tolist()))
        found = f"{_count(n, 'row')}, {_count(objects, 'sky object')}"
        lines = [f"{self.labels.where}: {found} ({GROUPED[self.grouped_by]})"]
        lines += [
            f"  {name}: {_count(count, 'row')}, {_count(self.objects[name], 'object')}"
            for name, count in self.counts.items()
        ]
        for problem in sorted(self.problems, key=lambda problem: not problem.fatal):
            lines.append(f"{'error' if problem.fatal else 'notice'}: {problem.kind}: {problem.message}")
        return lines

    def require(self, *, skip_bad: bool = False) -> Labels:
        """The rows that may be used.

        Parameters
        ----------
        skip_bad : bool
            Leave out rows with unusable stamps or contradicting labels instead of refusing.

        Raises
        ------
        LabelError
            If a fatal problem remains; the message lists all of them.
        """
        fatal = [p for p in self.problems if p.fatal and not (skip_bad and p.skippable)]
        if fatal:
            text = "; ".join(f"{problem.kind}: {problem.message}" for problem in fatal)
            hint = "; or leave such rows out with skip_bad" if any(p.skippable for p in fatal) else ""
            raise LabelError(f"{self.labels.where}: {text}. Correct the table{hint}")
        return self.labels.select(self.usable)


def check_labels(
    labels: Labels, prepared: Prepared, base: ModelRecord | None = None, *, new_classes: bool = False
) -> LabelCheck:
    """Check a label table row by row.

    Parameters
    ----------
    labels : Labels
    prepared : Prepared
        Its triplets after `preprocess`.
    base : ModelRecord, optional
        The model to start from: classes that it does not have are reported.
    new_classes : bool
        Accept class names that look like a slip: close to a class of the base model, close to a name with
        `RARE` times as many rows, or in fewer than `RARE` rows beside a class with `RARE` times as many.

    Returns
    -------
    LabelCheck
    """
    problems: list[Problem] = []
    named = labels.labels != ""
    unread = np.array([triplet.error is not None for triplet in labels.triplets], bool)
    unusable = ~prepared.usable & ~unread

    def report(kind: str, rows: Sequence[int], text: str, **how: bool) -> None:
        if rows:
            problems.append(Problem(kind, tuple(rows), text, **how))

    rows = np.flatnonzero(unread).tolist()
    text = _listed(f"{labels.named(row)}: {labels.triplets[row].error}" for row in rows)
    report("unreadable stamps", rows, text, skippable=True)
    rows = np.flatnonzero(unusable).tolist()
    text = _listed(f"{labels.named(row)}: {_why(int(prepared.quality[row]))}" for row in rows)
    report("unusable stamps", rows, text, skippable=True)
    rows = np.flatnonzero(~named).tolist()
    report("no label", rows, f"{len(rows)} rows have no label and are left out", fatal=False)
    if labels.renamed:
        text = ", ".join(f"{name!r} as {other!r}" for name, other in labels.renamed.items())
        rows = np.flatnonzero(np.isin(labels.labels, list(labels.renamed.values()))).tolist()
        report("spelling", rows, f"read {text}", fatal=False)
    for others in _alike_names(labels.classes):
        rows = np.flatnonzero(np.isin(labels.labels, others)).tolist()
        report(
            "class names", rows, f"{', '.join(map(repr, others))} differ only in case or spaces: one class?"
        )

    slips = {} if new_classes else _slips(labels, base)
    for name, text in slips.items():
        rows = np.flatnonzero(labels.labels == name).tolist()
        text = f"{name!r} ({_listed(map(labels.named, rows))}) {text}"
        report("new classes", rows, f"{text}: correct the label, or allow new classes (--new-classes)")

    same, groups, inferred = sky_objects(labels, prepared)
    labels = replace(labels, groups=groups)
    conflicts: list[int] = []
    repeats: list[int] = []
    for copies in same:
        known = [row for row in copies if named[row]]
        if len({str(labels.labels[row]) for row in known}) > 1:
            conflicts += known
        elif len(known) > 1:
            repeats += known[1:]
    text = _listed(f"{labels.named(row)} is {str(labels.labels[row])!r}" for row in conflicts)
    report("conflicting labels", conflicts, f"one stamp has several labels: {text}", skippable=True)
    text = _listed(labels.named(row) for row in repeats)
    report("duplicates", repeats, f"{len(repeats)} rows repeat the stamp of another row: {text}", fatal=False)
    rows = np.flatnonzero(inferred).tolist()
    report(
        "groups",
        rows,
        f"{len(rows)} rows name no sky object; where their stamps show the same sky they were put together. "
        "On ZTF that finds half of the pairs: a column 'group' keeps objects out of both sides of a split",
        fatal=False,
    )
    rows = _leaks(labels)
    text = _listed(
        f"{labels.named(row)} of {str(labels.groups[row])!r} is in {str(labels.split[row]) or 'train'!r}"
        for row in rows
    )
    report("leakage", rows, f"one sky object is in several splits: {text}")

    new = [n for n in labels.classes if base is not None and n not in base.classes and n not in slips]
    if base is not None and new:
        rows = np.flatnonzero(np.isin(labels.labels, new)).tolist()
        text = f"{', '.join(map(repr, new))} ({_count(len(rows), 'row')}) not among {', '.join(base.classes)}"
        report(
            "new classes", rows, f"{text} of {base.id}: the model gets a last layer of its own", fatal=False
        )

    usable = named & prepared.usable & ~unread
    usable[conflicts] = False
    for name, text in _too_few(labels, usable).items():
        rows = np.flatnonzero(labels.labels == name).tolist()
        report("too few labels", rows, f"{name!r} {text}")
    counts = Counter(labels.labels[named].tolist())
    objects = {name: len(set(labels.groups[labels.labels == name].tolist())) for name in counts}
    return LabelCheck(
        labels,
        dict(sorted(counts.items())),
        objects,
        "similarity" if inferred.any() else "table",
        tuple(problems),
        usable,
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _listed(items: Iterable[str]) -> str:
    """The first few of many, in words."""
    items = list(items)
    more = f"; and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return "; ".join(items[:_LISTED]) + more


def _why(quality: int) -> str:
    bad = quality & int(QualityFlag.UNUSABLE)
    return ", ".join(name.lower().replace("_", " ") for name in QualityFlag.names(bad))


def _alike_names(classes: Sequence[str]) -> list[list[str]]:
    alike: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        alike[bare_name(name)].append(name)
    return [others for others in alike.values() if len(others) > 1]


def _slips(labels: Labels, base: ModelRecord | None) -> dict[str, str]:
    """Class names that may not be meant, and why."""
    counts = Counter(name for name in labels.labels.tolist() if name)
    known = base.classes if base is not None else ()
    found = {}
    for name in labels.classes:
        if name in known:
            continue
        bare = bare_name(name)
        much = [other for other in counts if counts[other] >= RARE * counts[name]]
        # Spellings that differ in case alone are an error of their own.
        likely = {bare_name(other): other for other in (*much, *known) if bare_name(other) != bare}
        if close := difflib.get_close_matches(bare, likely, 1, ALIKE):
            found[name] = f"is close to {likely[close[0]]!r}"
        elif base is not None and much and counts[name] < RARE:
            found[name] = f"has {_count(counts[name], 'row')} and is not a class of {base.id}"
    return found


def _too_few(labels: Labels, usable: npt.NDArray[np.bool_]) -> dict[str, str]:
    """Classes that cannot be trained on some sky objects and judged on others, and why."""
    classes = labels.classes
    if len(classes) == 1:
        return {classes[0]: "is the only class; a classifier needs rows of at least two"}
    validation = labels.split == "validation"
    train = (labels.split != "test") & ~validation
    judged = bool((usable & validation).any())
    found = {}
    for name in classes:
        rows = usable & (labels.labels == name)
        objects = len(set(labels.groups[rows & train].tolist()))
        if objects == 0:
            found[name] = "has no usable row to train on"
        elif judged and not (rows & validation).any():
            found[name] = "has no usable row in the split 'validation'; calibration needs every class"
        elif objects == 1 and not judged:
            found[name] = (
                "has usable rows of one sky object; two are needed, to train on one and judge on another"
            )
    return found


def _leaks(labels: Labels) -> list[int]:
    splits: dict[str, set[str]] = defaultdict(set)
    for group, split in zip(labels.groups.tolist(), labels.split.tolist(), strict=True):
        splits[group].add(split or "train")
    return [row for row, group in enumerate(labels.groups.tolist()) if len(splits[group]) > 1]


def check_table(
    labels: Any,
    *,
    cutouts: Any = None,
    groups: Any = None,
    pixel_scale: float | None = None,
    fwhm: float | None = None,
    base: str = "realbogus",
    label_column: str | None = None,
    group_column: str | None = None,
    new_classes: bool = False,
) -> LabelCheck:
    """Read and check a label table without training anything.

    Parameters
    ----------
    labels, cutouts, groups, pixel_scale, fwhm, label_column, group_column
        As for `read_labels`.
    base : str
        Model whose contract decides which stamps can be used.
    new_classes : bool
        As for `check_labels`.

    Returns
    -------
    LabelCheck

    Raises
    ------
    LabelError
        The table cannot be read.
    """
    record = resolve(base)[1]
    table = read_labels(
        labels,
        cutouts=cutouts,
        groups=groups,
        pixel_scale=pixel_scale,
        fwhm=fwhm,
        label_column=label_column,
        group_column=group_column,
    ).spelled_as(record.classes)
    prepared = prepare(table.triplets, record.contract)
    return check_labels(table, prepared, record, new_classes=new_classes)


def prepare(triplets: Sequence[Triplet], contract: InputContract) -> Prepared:
    """`preprocess` in chunks, which bounds the memory of its temporaries."""
    parts = [preprocess(triplets[i : i + _CHUNK], contract) for i in range(0, len(triplets), _CHUNK)]
    return Prepared(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
