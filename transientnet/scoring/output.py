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
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any, Self

from ..errors import UsageError
from ..results.predictions import Predictions
from ..results.writers import writer_for
from .batches import Input, Part, content_id

__all__ = ["ScoreFile"]

#: Seconds between two lines of the journal; what a kill can cost.
_INTERVAL = 1.0
_VERSION = 1


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
    """

    def __init__(
        self, path: Path, made_by: Mapping[str, Any], empty: Predictions, *, resume: bool = False
    ) -> None:
        self.path = path
        self._writer = writer_for(path)
        self._staged = path.with_name(path.name + ".staged") if self._writer.staged else path
        self._journal = path.with_name(path.name + ".journal")
        self.rows = 0
        self._end = 0
        self._known: Counter[str] = Counter()
        self._open: tuple[str, int] | None = None
        self._ended: list[str] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        there = self._staged.exists() or path.exists()
        if resume and there and not self._journal.exists():
            raise UsageError(
                f"{path} has no journal beside it ({self._journal.name}), so what is in it is unknown; "
                "choose another output, or leave out --resume to start anew"
            )
        mode = "r+b" if self._journal.exists() else "w+b"
        self._log: IO[bytes] = open(self._journal, mode)  # noqa: SIM115
        try:
            _lock(self._log, path)
            if not (resume and there and self._continue(dict(made_by))):
                self._log.truncate(0)
                self._note({"journal": _VERSION, **made_by})
        except BaseException:
            self._log.close()
            raise
        self._table: IO[bytes] = open(self._staged, "r+b" if self._end else "wb")  # noqa: SIM115
        self._table.truncate(self._end)
        self._table.seek(self._end)
        if self._end == 0:
            self._table.write(self._writer.header(empty))
        self._committed = time.monotonic()

    def _continue(self, made_by: dict[str, Any]) -> bool:
        """Find out what the table holds; False if the last run did not come so far as to say."""
        lines = self._lines()
        if not lines:
            return False
        head = lines[0]
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
        if self._writer.staged and not self._staged.exists():
            # The last run came to its end: take its file apart again.
            restored = self._staged.with_name(self._staged.name + ".part")
            self._writer.restore(self.path, restored)
            self._end = restored.stat().st_size
            self._commit()
            os.replace(restored, self._staged)
        if self._staged.stat().st_size < self._end:
            raise UsageError(
                f"{self._staged} is shorter than its journal says; leave out --resume to start anew"
            )
        return True

    def _lines(self) -> list[dict[str, Any]]:
        """Whole lines of the journal; one that a crash cut off is cut off here too."""
        lines: list[dict[str, Any]] = []
        end = 0
        for raw in self._log.read().splitlines(keepends=True):
            if not raw.endswith(b"\n"):
                break
            lines.append(json.loads(raw))
            end += len(raw)
        self._log.truncate(end)
        self._log.seek(end)
        return lines

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def remaining(self, inputs: Iterable[Input]) -> tuple[list[Input], int]:
        """Those of `inputs` that are not in the table yet, and how many rows of the first one are.

        Inputs are counted: of two copies of a file each has its rows.
        """
        known = self._known.copy()
        begun: list[Input] = []
        new: list[Input] = []
        open_id = self._open[0] if self._open else ""
        for item in inputs:
            content = content_id(item) if known or open_id else ""
            if known[content] > 0:
                known[content] -= 1
            elif content and content == open_id and not begun:
                begun.append(item)
            else:
                new.append(item)
        if not begun:
            self._open = None
        return begun + new, self._open[1] if self._open else 0

    def append(self, part: Part) -> None:
        """Add rows, and commit them when it is time to."""
        if len(part.predictions):
            self._table.write(self._writer.rows(part.predictions))
            self.rows += len(part.predictions)
        for mark in part.marks:
            rows = mark.rows + (self._open[1] if self._open and self._open[0] == mark.content else 0)
            self._open = None if mark.ended else (mark.content, rows)
            if mark.ended:
                self._ended.append(mark.content)
        if time.monotonic() - self._committed > _INTERVAL:
            self.commit()

    def commit(self) -> None:
        """Vouch for all rows so far."""
        self._table.flush()
        os.fsync(self._table.fileno())
        self._end = self._table.tell()
        self._commit()
        self._committed = time.monotonic()

    def _commit(self) -> None:
        self._note({"rows": self.rows, "end": self._end, "done": self._ended, "open": self._open})
        self._ended = []

    def _note(self, line: Mapping[str, Any]) -> None:
        self._log.write(json.dumps(line).encode("ascii") + b"\n")
        self._log.flush()
        os.fsync(self._log.fileno())

    def close(self) -> None:
        """Commit, and make the file where the format is not made by appending."""
        self.commit()
        self._table.close()
        if self._writer.staged:
            finished = self._staged.with_name(self._staged.name + ".part")
            self._writer.finish(self._staged, finished)
            os.replace(finished, self.path)
            self._staged.unlink()
        self._log.close()


def _lock(log: IO[bytes], path: Path) -> None:
    """Let no second run write to the same table, where the system can tell."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UsageError(f"{path} is being written by another run") from error
    except OSError:
        # Some network file systems have no locks.
        return
