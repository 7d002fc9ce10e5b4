"""Every answer, on disk before the next question; the label table is made from these alone.

The journal is a file of JSON lines beside the table. A line is written and synchronised to disk
before the page hears that it is saved, and lines are never changed: undoing is another line.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Self

from ..errors import LabelError, OutputError, ReadError
from ..files.atomic import replacing
from ..files.locks import exclusive
from ..results.columns import one_line
from ..triplet import CHANNELS

__all__ = ["KINDS", "Agreement", "Answer", "Journal", "cohen_kappa"]

LABEL, UNSURE, SKIP, NONE = KINDS = ("label", "unsure", "skip", "none")


@dataclass(frozen=True, slots=True)
class Answer:
    """What one labeller last said about one candidate.

    Attributes
    ----------
    kind : {"label", "unsure", "skip", "none"}
    label : str
        Class name if `kind` is label, else empty.
    note : str
    time : str
        UTC, ISO 8601.
    chosen : str
        How the candidate came up: random, uncertain or unusable.
    model_seen : bool
        The labeller had seen the model's opinion before.
    settles : bool
        Given to a candidate in dispute, with all answers in view: it decides the label.
    row : mapping
        ``files``, ``id``, ``group``, ``pixel_scale`` and ``fwhm`` (where the user gave them) for the
        table, so that it does not depend on today's input.
    """

    kind: str = NONE
    label: str = ""
    note: str = ""
    time: str = ""
    chosen: str = ""
    model_seen: bool = False
    row: Mapping[str, Any] = field(default_factory=dict)
    settles: bool = False


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two labellers agree on the `n` candidates that both labelled.

    ``kappa`` is Cohen's (1960): 1 is full agreement, 0 what chance gives; None where undefined. `low` and
    `high` are its 95 % interval. A labeller's agreement with themselves has the same name twice.
    """

    labellers: tuple[str, str]
    n: int
    same: int
    kappa: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, labellers: tuple[str, str], pairs: list[tuple[str, str]]) -> Self:
        """The agreement that pairs of labels show."""
        kappa, error = cohen_kappa(pairs)
        ends = (None, None) if kappa is None else (max(-1.0, kappa - error), min(1.0, kappa + error))
        return cls(labellers, len(pairs), sum(a == b for a, b in pairs), kappa, *ends)


def cohen_kappa(pairs: list[tuple[str, str]]) -> tuple[float | None, float]:
    """Cohen's kappa of pairs of labels, and half its 95 % interval (Fleiss, Cohen & Everitt 1969).

    None without pairs, or where both only ever used one class. Where all agree the formula's error is zero,
    and three pairs would be as sure as three hundred; then the interval is that of the share of agreement
    by the rule of three.
    """
    if not pairs:
        return None, 0.0
    n = len(pairs)
    observed = sum(a == b for a, b in pairs) / n
    names = {name for pair in pairs for name in pair}
    chance = sum(sum(a == c for a, _ in pairs) * sum(b == c for _, b in pairs) for c in names) / n**2
    if chance == 1:
        return None, 0.0
    kappa = (observed - chance) / (1 - chance)
    if observed == 1:
        return kappa, min(2.0, 3 / n / (1 - chance))
    first, second = ({c: sum(pair[k] == c for pair in pairs) / n for c in names} for k in (0, 1))
    joint = Counter(pairs)
    variance = sum(joint[c, c] / n * (1 - (first[c] + second[c]) * (1 - kappa)) ** 2 for c in names)
    variance += (1 - kappa) ** 2 * sum(
        m / n * (second[a] + first[b]) ** 2 for (a, b), m in joint.items() if a != b
    )
    variance -= (kappa - chance * (1 - kappa)) ** 2
    return kappa, 1.96 * math.sqrt(max(0.0, variance) / n) / (1 - chance)


class Journal:
    """Answers of all labellers, by candidate; opened for one server at a time.

    Parameters
    ----------
    table : Path
        The label table, ``my.csv``; the journal is ``my.journal.jsonl`` beside it.

    Raises
    ------
    LabelError
        The table exists but no journal does: it was made otherwise, and is not overwritten. Or another
        process has the journal open.
    ReadError
        A line of the journal, other than a torn last one, cannot be read.
    """

    def __init__(self, table: Path) -> None:
        self.table = table
        self.path = table.with_name(f"{table.stem}.journal.jsonl")
        if table.exists() and not self.path.exists():
            raise LabelError(
                f"{table} exists but its journal {self.path.name} does not: it was made otherwise and is "
                "left alone; name another output file"
            )
        #: labeller -> candidate's key -> answer
        self.answers: dict[str, dict[str, Answer]] = defaultdict(dict)
        self._past: dict[str, list[tuple[str, Answer]]] = defaultdict(list)
        self._seen: set[tuple[str, str]] = set()
        #: labeller -> (label then, label now) of the candidates that were asked about a second time
        self.repeats: dict[str, list[tuple[str, str]]] = defaultdict(list)
        self._repeated: set[tuple[str, str]] = set()
        self._labels: dict[str, str] | None = None
        table.parent.mkdir(parents=True, exist_ok=True)
        in_use = LabelError(
            f"{self.path} is in use by another 'transientnet label': open its page, or name another "
            "output file"
        )
        with ExitStack() as opened:
            opened.enter_context(exclusive(self.path, in_use))
            # Unbuffered: what the disk refused must not come out with the next answer.
            self._file = opened.enter_context(open(self.path, "a+b", buffering=0))
            self._end = self._replay()
            self._held = opened.pop_all()

    def close(self) -> None:
        """Write the table a last time and release the journal."""
        with self._held:
            if self.answers:
                self.write_table()

    # --- what labellers do ---------------------------------------------------------------------------

    def record(self, labeller: str, answers: Sequence[tuple[str, Answer]]) -> None:
        """Keep answers by candidate's key; all are on disk when this returns, none where it raises.

        Raises
        ------
        OutputError
            The disk takes no more.
        """
        events = [
            {"event": "answer", "labeller": labeller, "key": key, **asdict(answer)} for key, answer in answers
        ]
        self._append(*events)
        for key, answer in answers:
            self._set(labeller, key, answer)

    def undo(self, labeller: str) -> str | None:
        """Take back the labeller's last answer; gives the candidate's key, None if there is none left."""
        if not self._past[labeller]:
            return None
        self._append({"event": "undo", "labeller": labeller})
        return self._take_back(labeller)

    def saw_opinion(self, labeller: str, key: str) -> None:
        """Keep that the labeller asked what the model thinks."""
        if (labeller, key) not in self._seen:
            self._append({"event": "opinion", "labeller": labeller, "key": key})
            self._seen.add((labeller, key))

    def repeat(self, labeller: str, key: str, label: str) -> None:
        """Keep what a labeller says when asked a second time; the label stays the first."""
        event = {"event": "repeat", "labeller": labeller, "key": key, "label": label}
        self._append(event)
        self._apply(event)

    def count_repeated(self, labeller: str) -> int:
        """Of how many candidates the labeller was asked a second time."""
        return sum(name == labeller for name, _ in self._repeated)

    def was_repeated(self, labeller: str, key: str) -> bool:
        """Whether the labeller was asked a second time."""
        return (labeller, key) in self._repeated

    def has_seen(self, labeller: str, key: str) -> bool:
        """Whether the labeller asked what the model thinks."""
        return (labeller, key) in self._seen

    # --- what comes of it ----------------------------------------------------------------------------

    def agreements(self) -> list[Agreement]:
        """How far each two labellers who share candidates agree, and each with themselves."""
        found = []
        for one, other in combinations(sorted(self.answers), 2):
            first, second = self.answers[one], self.answers[other]
            pairs = [
                (first[key].label, second[key].label)
                for key in first.keys() & second.keys()
                if first[key].kind == second[key].kind == LABEL
            ]
            if pairs:
                found.append(Agreement.of((one, other), pairs))
        found += [Agreement.of((name, name), pairs) for name, pairs in sorted(self.repeats.items()) if pairs]
        return found

    def labels(self) -> Mapping[str, str]:
        """Label of each candidate that somebody labelled or was unsure of; empty if they disagree."""
        if self._labels is None:
            self._labels = {key: label for key, label, _ in self._judged()}
        return self._labels

    def write_table(self) -> None:
        """Write the label table anew; it appears whole or not at all.

        Raises
        ------
        OutputError
            The disk takes no more; the old table stays.
        """
        rows = list(self._judged())
        used = {name for _, _, given in rows for name in given[-1][1].row["files"]} or {"path"}
        places = [name for name in ("path", *CHANNELS) if name in used]
        try:
            with (
                replacing(self.table) as temporary,
                open(temporary, "w", newline="", encoding="utf-8") as stream,
            ):
                writer = csv.writer(stream, lineterminator="\n")
                writer.writerow([*places, *_COLUMNS])
                for _, label, given in rows:
                    row = given[-1][1].row
                    paths = [row["files"].get(name, "") for name in places]
                    writer.writerow(one_line([*paths, *_cells(row, label, given)]))
        except OSError as error:
            raise OutputError(f"{self.table} cannot be written: {error.strerror or error}") from error

    def _judged(self) -> Iterator[tuple[str, str, list[tuple[str, Answer]]]]:
        """Key, common label, and all labellers' answers, oldest first; in order of first answers."""
        given: dict[str, list[tuple[str, Answer]]] = defaultdict(list)
        for labeller, answers in self.answers.items():
            for key, answer in answers.items():
                if answer.kind in (LABEL, UNSURE):
                    given[key].append((labeller, answer))
        for pairs in given.values():
            pairs.sort(key=lambda pair: pair[1].time)
        for key, pairs in sorted(given.items(), key=lambda item: (item[1][0][1].time, item[0])):
            settled = [answer.label for _, answer in pairs if answer.settles]
            names = set(settled[-1:]) or {answer.label for _, answer in pairs if answer.kind == LABEL}
            yield key, names.pop() if len(names) == 1 else "", pairs

    # --- the file ------------------------------------------------------------------------------------

    def _append(self, *events: dict[str, Any]) -> None:
        # ASCII: the name of a file that is not UTF-8 holds halves of surrogate pairs.
        data = b"".join(json.dumps(event).encode("ascii") + b"\n" for event in events)
        try:
            self._file.truncate(self._end)
            written = 0
            while written < len(data):
                written += self._file.write(data[written:])
            os.fsync(self._file.fileno())
        except OSError as error:
            # A torn line would join the next answer, and a whole one would be counted twice.
            with suppress(OSError):
                self._file.truncate(self._end)
            raise OutputError(f"{self.path} cannot be written: {error.strerror or error}") from error
        self._end += len(data)

    def _replay(self) -> int:
        """Take in what the journal holds; gives the number of bytes that are sound."""
        self._file.seek(0)
        good = 0
        for number, line in enumerate(self._file.readall().splitlines(keepends=True), 1):
            if not line.endswith(b"\n"):
                break  # torn by a crash; nobody was told that it was saved
            try:
                self._apply(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
                raise ReadError(
                    f"{self.path}: line {number} is damaged ({error}); mend or remove it"
                ) from error
            good += len(line)
        return good

    def _apply(self, event: dict[str, Any]) -> None:
        kind, labeller = event.pop("event"), event.pop("labeller")
        if kind == "answer":
            self._set(labeller, event.pop("key"), Answer(**event))
        elif kind == "undo":
            self._take_back(labeller)
        elif kind == "repeat":
            key = event["key"]
            self._repeated.add((labeller, key))
            before = self.answers[labeller].get(key, Answer())
            if before.kind == LABEL and event["label"]:
                self.repeats[labeller].append((before.label, event["label"]))
        elif kind == "opinion":
            self._seen.add((labeller, event["key"]))
        else:
            raise ValueError(f"unknown event {kind!r}")

    def _set(self, labeller: str, key: str, answer: Answer) -> None:
        self._past[labeller].append((key, self.answers[labeller].get(key, Answer())))
        self.answers[labeller][key] = answer
        self._labels = None

    def _take_back(self, labeller: str) -> str:
        key, before = self._past[labeller].pop()
        self.answers[labeller][key] = before
        self._labels = None
        return key


_COLUMNS = (
    *("id", "label", "group", "pixel_scale", "fwhm"),
    *("labeller", "answers", "note", "time", "chosen", "model_seen"),
)


def _cells(row: Mapping[str, Any], label: str, given: list[tuple[str, Answer]]) -> list[str]:
    last = given[-1][1]
    return [
        row["id"],
        label,
        row["group"],
        *("" if row[name] is None else f"{row[name]:g}" for name in ("pixel_scale", "fwhm")),
        " + ".join(labeller for labeller, _ in given),
        "; ".join(f"{labeller}: {answer.label or answer.kind}" for labeller, answer in given),
        "; ".join(answer.note for _, answer in given if answer.note),
        last.time,
        last.chosen,
        "yes" if any(answer.model_seen for _, answer in given) else "no",
    ]
