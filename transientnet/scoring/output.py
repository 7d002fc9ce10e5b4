"""A score table on disk that grows part by part, and survives being killed at any moment.

Beside ``scores.csv`` lies ``scores.csv.journal``: a first line that says what made the table, then, about
once a second, a line that says how far the table reaches and which inputs are in it. Rows are written
and synced before the line that vouches for them, so that a run that goes on cuts the table at the last
vouched byte, and no row is lost or doubled. Inputs are known by content, not by name or date: a moved
night is known, and a file that changed is new.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Self

from ..errors import OutputError, UsageError
from ..files.atomic import replacing
from ..files.locks import exclusive
from ..readers.open import Input
from ..results.predictions import Predictions
from ..results.writers import writer_for
from .batches import Part, content_id

__all__ = ["ScoreFile", "output_errors"]

#: Seconds between two lines of the journal; what a kill can cost.
_INTERVAL = 1.0
_VERSION = 1


@contextmanager
def output_errors(name: object) -> Iterator[None]:
    """Say of an error of the system that it was `name` that could not be written."""
    try:
        yield
    except BrokenPipeError:
        # The reader has gone: no failure of ours.
        raise
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{name}: cannot be written: {error.strerror or error}") from error


class ScoreFile:
    """An open score table. Use as a context manager; leaving it by an error keeps what was written.

    Parameters
    ----------
    path : Path
        Its ending chooses the format.
    made_by : mapping
        Model and options, as plain JSON; a table is continued only by the same.
    empty : Predictions
        A table without rows, for the header.
    resume : bool
        Continue what is there, if anything is; otherwise start anew.

    Raises
    ------
    UsageError
        The table cannot be continued: it was made otherwise, has no journal, or is open elsewhere.
    OutputError
        It cannot be written.
    """

    def __init__(
        self,
        path: Path,
        made_by: Mapping[str, Any],
        empty: Predictions,
        *,
        resume: bool = False,
    ) -> None:
        self.path = path
        self._writer = writer_for(path)
        self._staged = path.with_name(path.name + ".staged") if self._writer.staged else path
        self._journal = path.with_name(path.name + ".journal")
        self._empty, self._made_by = empty, dict(made_by)
        self._positions: bool | None = None
        self.rows = 0
        self._end = 0
        self._torn = False
        self._known: Counter[str] = Counter()
        self._begun: dict[str, int] = {}
        self._open: tuple[str, int] | None = None
        self._ended: list[str] = []
        self._lost: dict[str, int] = {}
        self._skipped: dict[str, int] = {}
        with ExitStack() as stack, output_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Before the journal is touched: it may be another run's.
            stack.enter_context(exclusive(path, UsageError(f"{path} is being written by another run")))
            there = self._staged.exists() or path.exists()
            if resume and there and not self._journal.exists():
                raise UsageError(
                    f"{path} has no journal beside it ({self._journal.name}), so what is in it is unknown; "
                    "choose another output, or leave out --resume to start anew"
                )
            mode = "r+b" if self._journal.exists() else "w+b"
            self._log: IO[bytes] = stack.enter_context(open(self._journal, mode))
            if not (resume and there and self._continue(dict(made_by))):
                self._log.seek(0)
                self._log.truncate()
            table = open(self._staged, "r+b" if self._end else "wb")  # noqa: SIM115
            self._table: IO[bytes] = stack.enter_context(table)
            self._table.truncate(self._end)
            self._table.seek(self._end)
            self._resources = stack.pop_all()
        self._committed = time.monotonic()

    def _continue(self, made_by: dict[str, Any]) -> bool:
        """Find out what the table holds; False if the last run did not come so far as to say."""
        lines = self._lines()
        if not lines:
            return False
        head = lines[0]
        # Tables of earlier versions have no such columns.
        self._positions = bool(head.pop("positions", False))
        if head.pop("journal", None) != _VERSION or head != made_by:
            different = sorted(key for key in {*head, *made_by} if head.get(key) != made_by.get(key))
            raise UsageError(
                f"{self.path} was made with other settings: "
                + ", ".join(f"{key} {head.get(key)!r}, now {made_by.get(key)!r}" for key in different)
                + "; use the same, or choose another output"
            )
        for line in lines[1:]:
            self.rows, self._end = line["rows"], line["end"]
            self._known.update(line["done"])
            self._open = (line["open"][0], line["open"][1]) if line["open"] else None
            self._begun.update(line.get("lost", {}))
        self._begun = {content: rows for content, rows in self._begun.items() if content not in self._known}
        if self._open is not None:
            # Noted anew: this run may not be given that input.
            self._begun[self._open[0]] = self._lost[self._open[0]] = self._open[1]
            self._open = None
        # Without a row that is vouched for there is nothing to take apart: the file is an older run's.
        if self._writer.staged and self._end and not self._staged.exists():
            with replacing(self._staged) as restored:
                self._writer.restore(self.path, restored, self.rows)
                self._end = restored.stat().st_size
                # Before it is in place: a kill between the two finds nothing staged, and begins again.
                self._commit()
        if self._end and self._staged.stat().st_size < self._end:
            raise UsageError(
                f"{self._staged} is shorter than its journal says; leave out --resume to start anew"
            )
        return True

    def _lines(self) -> list[dict[str, Any]]:
        """Lines of the journal up to one that a crash cut off or that is damaged; there it is cut.

        What came behind is not vouched for, and is scored again.
        """
        lines: list[dict[str, Any]] = []
        end = 0
        raw_lines = self._log.read().splitlines(keepends=True)
        for raw in raw_lines:
            try:
                line = json.loads(raw)
            except ValueError:
                break
            fields = {"rows", "end", "done", "open"} if lines else {"journal"}
            if not raw.endswith(b"\n") or not isinstance(line, dict) or not fields <= line.keys():
                break
            lines.append(line)
            end += len(raw)
        if not lines and raw_lines and raw_lines[0].endswith(b"\n"):
            raise UsageError(f"{self._journal} is damaged; leave out --resume to start anew")
        self._log.seek(end)
        self._log.truncate()
        return lines

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            self.close()
        except OSError:
            # On a full disk the first error says so, and the table ends at what is vouched for.
            if error is None:
                raise

    def remaining(self, inputs: Iterable[Input]) -> tuple[list[Input], list[int]]:
        """Those of `inputs` that are not in the table yet, begun ones first, and the rows of these that are.

        Inputs are counted, and counted once: of two copies of a file each has its rows.
        """
        begun: list[Input] = []
        rows: list[int] = []
        new: list[Input] = []
        for item in inputs:
            content = content_id(item) if self._known or self._begun else ""
            if self._known[content] > 0:
                self._known[content] -= 1
            elif content in self._begun:
                begun.append(item)
                rows.append(self._begun.pop(content))
                self._skipped[content] = rows[-1]
            else:
                new.append(item)
        return begun + new, rows

    @property
    def begun(self) -> bool:
        """Whether the table has its columns, so that `begin` changes nothing."""
        return self._positions is not None

    def begin(self, positions: bool) -> None:
        """Fix the columns of a new table: with ``ra``, ``dec``, ``x`` and ``y`` or without."""
        if self._positions is None:
            self._positions = positions
            with output_errors(self.path):
                self._note({"journal": _VERSION, **self._made_by, "positions": positions})
        if self._end == 0 and self._table.tell() == 0:
            self._write(self._writer.header(self._empty.columns(self._positions)))

    def append(self, part: Part) -> None:
        """Add rows, and commit them when it is time to."""
        self.begin(False)
        if len(part.predictions):
            with output_errors(self.path):
                self._write(self._writer.rows(part.predictions.columns(self._positions)))
            self.rows += len(part.predictions)
        for mark in part.marks:
            if mark.lost:
                self._lost[mark.content] = mark.rows
                self._open = None
                continue
            before = self._open[1] if self._open and self._open[0] == mark.content else 0
            rows = mark.rows + (before or self._skipped.pop(mark.content, 0))
            self._open = None if mark.ended else (mark.content, rows)
            if mark.ended:
                self._ended.append(mark.content)
        if time.monotonic() - self._committed > _INTERVAL:
            self.commit()

    def _write(self, data: bytes) -> None:
        # A full disk takes a part of it, and the rest is not kept for another try.
        self._torn = True
        self._table.write(data)
        self._torn = False

    def commit(self) -> None:
        """Vouch for all rows so far."""
        self.begin(False)
        with output_errors(self.path):
            self._table.flush()
            os.fsync(self._table.fileno())
            self._end = self._table.tell()
            self._commit()
        self._committed = time.monotonic()

    def _commit(self) -> None:
        note = {"rows": self.rows, "end": self._end, "done": self._ended, "open": self._open}
        self._note({**note, "lost": self._lost} if self._lost else note)
        self._ended, self._lost = [], {}

    def _note(self, line: Mapping[str, Any]) -> None:
        self._log.write(json.dumps(line).encode("ascii") + b"\n")
        self._log.flush()
        os.fsync(self._log.fileno())

    def close(self) -> None:
        """Commit, and make the file where the format is not made by appending."""
        with self._resources, output_errors(self.path):
            if self._torn:
                self._table.truncate(self._end)
                return
            self.commit()
            self._table.close()
            if self._writer.staged:
                with replacing(self.path) as finished:
                    self._writer.finish(self._staged, finished)
                self._staged.unlink()
