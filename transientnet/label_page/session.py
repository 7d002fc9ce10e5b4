"""The work of all labellers on one set of candidates: whose turn is what, and what is done."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from ..models.calibration import softmax
from ..triplet import QualityFlag
from .candidates import Candidates, Judgement
from .curve import learning_curve
from .head import folds_of, refit, start_of
from .journal import KINDS, LABEL, NONE, SKIP, UNSURE, Answer, Journal
from .queue import RANDOM, how_chosen, random_order, teaching_order

__all__ = ["Session", "class_keys"]

AHEAD = 40
"""Candidates announced to the page in advance, so that it can fetch their stamps."""

REPEAT_EACH, REPEAT_AFTER = 25, 15
"""One question in so many is asked a second time, so many answers later at the earliest."""

LEASE = 300.0
"""Seconds for which a candidate that one labeller looks at is not given to another."""

COMMAND_KEYS = frozenset("cfgmnsuxz")
"""Letters that the page itself uses; a class gets another letter of its name."""

EACH = 10
"""Labels after which the head is fitted anew."""

MAX_NOTE = 2000


def class_keys(classes: Sequence[str], wanted: Mapping[str, str] | None = None) -> list[str]:
    """A key per class: the one that is wanted, else the first free letter of its name; digits work for all.

    Raises
    ------
    UsageError
        A wanted key is not a single letter, is the page's own or another class's, or there is no such class.
    """
    wanted = {name: key.lower() for name, key in (wanted or {}).items()}
    if unknown := sorted(set(wanted) - set(classes)):
        raise UsageError(f"--keys: no class {unknown[0]!r}; the classes are {', '.join(classes)}")
    for name, key in wanted.items():
        if len(key) != 1 or not key.isalpha() or key in COMMAND_KEYS:
            raise UsageError(
                f"--keys: {name}={key} is not a free letter; "
                f"the page itself uses {', '.join(sorted(COMMAND_KEYS))}"
            )
    if len(set(wanted.values())) < len(wanted):
        raise UsageError("--keys: two classes have the same key")
    taken = COMMAND_KEYS | set(wanted.values())
    keys: list[str] = []
    for name in classes:
        letters = (c for c in name.lower() if c.isascii() and c.isalpha() and c not in taken)
        keys.append(wanted.get(name) or next((c for c in letters if c not in keys), ""))
    return keys


class Session:
    """State of a labelling run; every method is called from one thread.

    Parameters
    ----------
    candidates : Candidates
    journal : Journal
    classes : sequence of str
    share : float
        Part of the queue that is drawn at random; asked of every labeller, for their agreement.
    """

    def __init__(
        self, candidates: Candidates, journal: Journal, classes: Sequence[str], share: float
    ) -> None:
        self.candidates = candidates
        self.journal = journal
        self.classes = tuple(classes)
        self.share = share
        self._leases: dict[int, tuple[str, float]] = {}
        #: labeller -> row that they are asked about a second time
        self._asked_again: dict[str, int] = {}
        self.generation = 0
        self.use(candidates.unjudged())

    def use(self, judgement: Judgement) -> None:
        """Take another model's answers and features, and put the queue in the order that they suggest."""
        self.taking(judgement)()()

    def taking(self, judgement: Judgement) -> Callable[[], Callable[[], None]]:
        """`use` in two parts, as `fitting`: the order of ten thousand takes a second of another thread."""
        items, share, classes = self.candidates.items, self.share, self.classes
        done = self._labels()[0].tolist()

        def work() -> Callable[[], None]:
            chosen = how_chosen(items, judgement.quality, share)
            start = start_of(judgement.features, judgement.probabilities, judgement.classes, classes)
            order = random_order(items)
            if judgement.model:
                order = teaching_order(items, chosen, start, softmax(start.offset), share, done)

            def finish() -> None:
                self.judgement, self.chosen, self.start, self.order = judgement, chosen, start, order
                self._drawn = chosen == RANDOM
                self.curve: dict[str, Any] | None = None
                self.fitted_on = 0
                self.generation += 1

            return finish

        return work

    def _labels(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Rows that have a label, in the order of their answers, and their classes."""
        index, classes = self.candidates.index, self.classes
        pairs = [
            (index[key], classes.index(label))
            for key, label in self.journal.labels().items()
            if label in classes and key in index
        ]
        found = np.array(pairs, np.int64).reshape(-1, 2)
        return found[:, 0], found[:, 1]

    def due(self) -> bool:
        """Whether so many labels came since the last refit that another one is worth its second."""
        rows, y = self._labels()
        if not self.judgement.model:
            return False
        return len(rows) - self.fitted_on >= EACH and len(set(y)) > 1

    def fitting(self) -> Callable[[], Callable[[], None]]:
        """A refit of the head on the labels so far.

        Returns
        -------
        callable
            The work, for another thread. It gives what is left to do in the session's own thread: to put the
            queue in the new order, and to show the new learning curve.
        """
        (rows, y), start = self._labels(), self.start
        items, share, chosen = self.candidates.items, self.share, self.chosen
        groups = np.array([items[row].group or items[row].key for row in rows])

        def work() -> Callable[[], None]:
            folds = folds_of(groups.tolist())
            head = refit(start, rows, y, folds)
            curve = learning_curve(start, rows, y, folds, groups, head.strength)
            order = teaching_order(items, chosen, start, head.probabilities, share, rows.tolist())

            def finish() -> None:
                # Otherwise another model's features are in use by now.
                if self.start is start:
                    self.order, self.curve, self.fitted_on = order, curve, len(rows)
                    self.generation += 1

            return finish

        return work

    # --- questions -----------------------------------------------------------------------------------

    def upcoming(self, labeller: str) -> list[int]:
        """The next rows for a labeller; the first is theirs for a while."""
        rows: list[int] = []
        for row in self.queue(labeller):
            rows.append(row)
            if len(rows) == AHEAD:
                break
        again = self.again(labeller)
        if again is not None:
            rows.insert(min(len(rows), 2), again)
        now = time.monotonic()
        self._leases = {r: held for r, held in self._leases.items() if held[0] != labeller and held[1] > now}
        if rows:
            self._leases.setdefault(rows[0], (labeller, now + LEASE))
        return rows

    def again(self, labeller: str) -> int | None:
        """A row to ask a labeller about a second time, hidden among the others; None while none is due."""
        if labeller not in self._asked_again:
            answers = self.journal.answers[labeller]
            labelled = [key for key, answer in answers.items() if answer.kind == LABEL]
            asked = self.journal.count_repeated(labeller)
            if len(labelled) >= REPEAT_EACH * (asked + 1):
                # Long enough ago to be forgotten, and not seen with the model's opinion since.
                index, journal = self.candidates.index, self.journal
                old = [
                    key
                    for key in labelled[:-REPEAT_AFTER]
                    if key in index
                    and not journal.was_repeated(labeller, key)
                    and not journal.has_seen(labeller, key)
                ]
                if old:
                    self._asked_again[labeller] = index[old[len(labelled) % len(old)]]
        return self._asked_again.get(labeller)

    def queue(self, labeller: str) -> Iterator[int]:
        """Rows that are open to a labeller, in order; those skipped come last."""
        mine = self.journal.answers[labeller]
        others = [answers for name, answers in self.journal.answers.items() if name != labeller]
        now = time.monotonic()
        skipped: list[int] = []
        keys = self.candidates.keys
        for row in self.order:
            key = keys[row]
            kind = mine[key].kind if key in mine else NONE
            if kind in (LABEL, UNSURE):
                continue
            if not self._drawn[row]:
                holder, until = self._leases.get(row, (labeller, 0.0))
                if holder != labeller and until > now:
                    continue
                if any(answers[key].kind in (LABEL, UNSURE) for answers in others if key in answers):
                    continue
            if kind == SKIP:
                skipped.append(row)
            else:
                yield row
        yield from skipped

    def opinion(self, labeller: str, row: int) -> dict[str, Any]:
        """What the model thinks of a candidate; that it was seen is kept.

        Raises
        ------
        UsageError
            The labeller has not answered yet: an opinion heard before is an opinion shared.
        """
        answer = self.journal.answers[labeller].get(self.candidates.items[row].key)
        if answer is None or answer.kind not in (LABEL, UNSURE):
            raise UsageError("the model's opinion comes after your answer")
        self.journal.saw_opinion(labeller, self.candidates.items[row].key)
        values = self.judgement.probabilities[row].tolist()
        usable = all(value == value for value in values)
        return {
            "model": self.judgement.model,
            "probabilities": dict(zip(self.judgement.classes, values, strict=True)) if usable else None,
        }

    # --- answers -------------------------------------------------------------------------------------

    def answer(self, labeller: str, answers: Sequence[tuple[int, str, str, str]]) -> None:
        """Keep answers (row, kind, label, note); all are on disk when this returns, none where it raises.

        Raises
        ------
        UsageError
            There is no such kind or class, or a note is too long.
        OutputError
            The disk takes no more.
        """
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        checked, again = [], []
        disputed = set(self.disputed())
        for row, kind, label, note in answers:
            if kind not in KINDS or (label not in self.classes if kind == LABEL else label):
                raise UsageError(f"no answer {kind} {label!r}: the classes are {', '.join(self.classes)}")
            if len(note) > MAX_NOTE:
                raise UsageError(f"a note has at most {MAX_NOTE} characters")
            item = self.candidates.items[row]
            if row == self._asked_again.get(labeller):
                again.append((item.key, label))
                continue
            seen = self.journal.has_seen(labeller, item.key)
            checked.append(
                (
                    item.key,
                    Answer(kind, label, note, now, str(self.chosen[row]), seen, item.row, row in disputed),
                )
            )
        self.journal.record(labeller, checked)
        for key, label in again:
            self.journal.repeat(labeller, key, label)
            del self._asked_again[labeller]

    def undo(self, labeller: str) -> int | None:
        """Take back a labeller's last answer; gives its row, None if it is not among today's candidates."""
        key = self.journal.undo(labeller)
        return None if key is None else self.candidates.index.get(key)

    # --- what the page shows -------------------------------------------------------------------------

    def describe(self, row: int) -> dict[str, Any]:
        """Facts beside the stamps; nothing that a model said."""
        item = self.candidates.items[row]
        flags = [
            name.lower().replace("_", " ") for name in QualityFlag.names(int(self.judgement.quality[row]))
        ]
        return {"id": item.id, "group": item.group, "flags": flags, **item.details}

    def answers_of(self, labeller: str) -> dict[int, list[str]]:
        """Kind, label and note by row."""
        index = self.candidates.index
        return {
            index[key]: [answer.kind, answer.label, answer.note]
            for key, answer in self.journal.answers[labeller].items()
            if key in index
        }

    def disputed(self) -> list[int]:
        """Rows to which labellers gave different classes."""
        index = self.candidates.index
        if sum(map(bool, self.journal.answers.values())) < 2:
            return []
        given: dict[str, set[str]] = {}
        settled: set[str] = set()
        for answers in self.journal.answers.values():
            for key, answer in answers.items():
                if answer.kind == LABEL and key in index:
                    given.setdefault(key, set()).add(answer.label)
                    settled |= {key} if answer.settles else set()
        return sorted(index[key] for key, names in given.items() if len(names) > 1 and key not in settled)

    def given(self, row: int) -> list[list[str]]:
        """Labeller, answer and note of everybody who judged a candidate: for a dispute."""
        key = self.candidates.items[row].key
        return [
            [name, answers[key].label or answers[key].kind, answers[key].note]
            for name, answers in self.journal.answers.items()
            if key in answers and answers[key].kind in (LABEL, UNSURE)
        ]

    def progress(self, labeller: str) -> dict[str, Any]:
        """Counts, class balance and agreement."""
        index = self.candidates.index
        labels = self.journal.labels()
        counts = Counter(label for label in labels.values() if label)
        judged = [index[key] for key in labels if key in index]
        mine = Counter(answer.kind for answer in self.journal.answers[labeller].values())
        return {
            "total": len(self.candidates),
            "judged": len(judged),
            "mine": mine[LABEL] + mine[UNSURE],
            "counts": {name: counts[name] for name in self.classes},
            "unsure": sum(not label for label in labels.values()),
            "random": [
                int(self._drawn[np.array(judged, np.int64)].sum()),
                int(self._drawn.sum()),
            ],
            "labellers": sorted(name for name, answers in self.journal.answers.items() if answers),
            "agreements": [asdict(agreement) for agreement in self.journal.agreements()],
            "disputed": self.disputed(),
            "model": self.judgement.model,
            "generation": self.generation,
            "fitted_on": self.fitted_on,
            "curve": self.curve,
        }
