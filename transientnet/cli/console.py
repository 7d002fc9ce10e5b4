"""What a command says to a person on stderr: messages, a bar that they do not break, closing lines."""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

if TYPE_CHECKING:
    from rich.progress import Task

__all__ = ["Bar", "Quiet", "StageLines", "note", "say"]

#: Seconds between two lines of one stage.
_EACH = 0.3

_state: dict[str, Any] = {"quiet": False, "live": None}


def _be_quiet(value: bool) -> bool:
    _state["quiet"] = value
    return value


Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", callback=_be_quiet, help="No bar and no closing line: warnings and errors only."
    ),
]
"""The option that every command for scripts has; its value need not be looked at."""


def say(message: str) -> None:
    """One line on stderr, above a bar if there is one; if stderr is full or closed, nobody hears it."""
    line = f"transientnet: {message}"
    with suppress(OSError, ValueError):
        if _state["live"] is not None:
            _state["live"].print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            typer.echo(line, err=True)


def note(message: str) -> None:
    """As `say`, but not with ``--quiet``: what was read, written, and in what time."""
    if not _state["quiet"]:
        say(message)


class Bar:
    """Stages of a long command on a terminal: how far, how fast, how long still; a context manager.

    It is called as ``bar(stage, done, total)``; a `total` of None is not known yet. Silent where stderr is
    no terminal, and with ``--quiet``.

    Parameters
    ----------
    unit : str
        What is counted, in the plural: ``candidates``, ``steps``.
    """

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._tasks: dict[str, Any] = {}
        self._progress: Any = None

    def __enter__(self) -> Self:
        if not _state["quiet"] and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn
            from rich.text import Text

            unit = self._unit

            class Count(ProgressColumn):
                def render(self, task: Task) -> Text:
                    return Text(_count(task.completed, task.total, unit, task.fields["began"], task.finished))

            console = Console(stderr=True)
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(24),
                Count(),
                TimeElapsedColumn(),
                console=console,
                transient=True,
            )
            self._progress.start()
            _state["live"] = console
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            _state["live"] = None
            self._progress.stop()

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """So much of a stage is done."""
        if self._progress is None:
            return
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total, began=time.monotonic())
        self._progress.update(self._tasks[stage], completed=done, total=total)


class StageLines:
    """Stages as lines of JSON on stderr, for a program that shows them; called as a `Bar` is."""

    def __init__(self) -> None:
        self._last: tuple[str, float] = ("", 0.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """So much of a stage is done; a few lines a second at most."""
        now = time.monotonic()
        if stage != self._last[0] or done == total or now - self._last[1] > _EACH:
            self._last = stage, now
            typer.echo(json.dumps({"stage": stage, "done": done, "total": total}), err=True)


def _count(done: float, total: float | None, unit: str, began: float, finished: bool) -> str:
    """``1,200 of 3,000 candidates, 350/s, 0:06 left``, as far as it is known."""
    if total is not None and total <= 1:
        return ""
    rate = done / max(1e-9, time.monotonic() - began)
    text = f"{done:,.0f} {unit}" if total is None else f"{done:,.0f} of {total:,.0f} {unit}"
    if not done or finished:
        return text
    text += f", {rate:.0f}/s" if rate >= 1 else ""
    if total is None:
        return text
    left = round((total - done) / rate)
    return (
        f"{text}, {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"
        if left >= 3600
        else (f"{text}, {left // 60}:{left % 60:02} left")
    )
