"""A folder in which files keep arriving."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from ..errors import EmptyInputError
from .batches import Input, find_inputs, paths_of

__all__ = ["arrivals"]

#: Seconds between two looks at the folder. A file is complete when it did not change between two.
_INTERVAL = 1.0
_NAP = 0.1


class Stop(Protocol):
    """Something that tells when to end."""

    asked: bool


def arrivals(
    folder: Path, known: Iterable[Input], stop: Stop, layout: str | None = None
) -> Iterator[list[Input]]:
    """Inputs that are new in `folder`, once they are complete, until `stop` is asked.

    Parameters
    ----------
    folder : Path
    known : iterable of Input
        What is scored elsewhere. It is not given again unless it changes after this call, so call this
        with the listing that is being scored: what arrives meanwhile is then given, and nothing is lost.
    stop : object with a bool ``asked``
    layout : str, optional
        How the files are named.
    """
    return _arrivals(folder, {_state(item) for item in known}, stop, layout)


def _arrivals(folder: Path, done: set[object], stop: Stop, layout: str | None) -> Iterator[list[Input]]:
    before: set[object] = set()
    while not stop.asked:
        try:
            found = {_state(item): item for item in find_inputs(folder, layout)}
        except (EmptyInputError, OSError):
            found = {}
        ready = [item for state, item in found.items() if state in before and state not in done]
        before = set(found)
        # What has gone from the folder need not be remembered.
        done &= before
        if ready:
            done.update(_state(item) for item in ready)
            yield ready
        else:
            wake = time.monotonic() + _INTERVAL
            while not stop.asked and time.monotonic() < wake:
                time.sleep(_NAP)


def _state(item: Input) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and dates: what changes while a file is being written."""
    states = []
    for path in paths_of(item):
        try:
            stat = os.stat(path)
            states.append((path, stat.st_size, stat.st_mtime_ns))
        except OSError:
            states.append((path, -1, -1))
    return tuple(states)
