"""A folder in which files keep arriving."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import EmptyInputError
from ..readers.grouping import channel_of_file
from ..readers.layouts import Layout
from ..readers.open import Input, find_inputs, paths_of
from ..readers.sources import StampFiles
from ..triplet import CHANNELS
from .batches import content_id
from .interrupts import Interrupt

__all__ = ["arrivals"]

#: Seconds between two looks at the folder. A file is complete when it did not change between two.
_INTERVAL = 1.0
_NAP = 0.1
#: Seconds that the stamps of a candidate wait for their companions.
_COMPANIONS = 20.0

_ALL = frozenset(CHANNELS)
_NONE: frozenset[str] = frozenset()

_State = tuple[tuple[str, int, int], ...]


@dataclass(slots=True)
class _Seen:
    """How an input looks, since when (None once that is dealt with), and the content last given."""

    state: _State
    since: float | None
    content: str | None = None


def arrivals(
    folder: Path, stop: Interrupt, layout: str | Path | Layout | None = None
) -> Iterator[list[Input]]:
    """What lies in `folder`, and then what arrives there, each once it is complete; until `stop` is asked.

    An input is complete when it did not change for a second and, if its stamps are files of their own, has
    all three, or those that the other candidates of the folder have; for missing ones it waits 20 seconds. It
    is given again when its content changes: a new date alone does not count.

    Parameters
    ----------
    folder : Path
    stop : Interrupt
    layout : str, path or Layout, optional
        How the files are named.

    Yields
    ------
    list of Input
    """
    seen: dict[tuple[str, ...], _Seen] = {}
    #: Sets of stamps that were waited with in vain: the folder's candidates may have no others.
    settled: set[frozenset[str]] = set()
    while not stop.asked:
        try:
            found = {tuple(paths_of(item)): item for item in find_inputs(folder, layout)}
        except (EmptyInputError, OSError):
            found = {}
        now = time.monotonic()
        grouped = (frozenset(item.paths) for item in found.values() if isinstance(item, StampFiles))
        usual = max(grouped, key=len, default=_NONE)
        ready = []
        for paths, item in found.items():
            state, known = _state(paths), seen.get(paths)
            if known is None or known.state != state:
                seen[paths] = _Seen(state, now, None if known is None else known.content)
            elif known.since is not None and now - known.since >= _INTERVAL:
                stamps = _stamps(item)
                if (stamps and stamps < usual) or (stamps and stamps < _ALL and stamps not in settled):
                    if now - known.since < _COMPANIONS:
                        continue
                    settled.add(stamps)
                content = content_id(item)
                if content != known.content:
                    ready.append(item)
                seen[paths] = _Seen(state, None, content)
        # What has gone from the folder need not be remembered.
        seen = {paths: known for paths, known in seen.items() if paths in found}
        if ready:
            yield ready
        else:
            wake = time.monotonic() + _INTERVAL
            while not stop.asked and time.monotonic() < wake:
                time.sleep(_NAP)


def _stamps(item: Input) -> frozenset[str]:
    """Which stamps of a candidate the files of an input hold, if they hold one each; else none."""
    if isinstance(item, StampFiles):
        return frozenset(item.paths)
    channel = channel_of_file(item)
    return frozenset(() if channel is None else (channel,))


def _state(paths: tuple[str, ...]) -> _State:
    """Names, sizes and dates: what changes while a file is being written."""
    states = []
    for path in paths:
        try:
            stat = os.stat(path)
            states.append((path, stat.st_size, stat.st_mtime_ns))
        except OSError:
            states.append((path, -1, -1))
    return tuple(states)
