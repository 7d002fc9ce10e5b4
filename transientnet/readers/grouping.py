"""From files to candidates: which files are the stamps of one, by their names.

A file's name is read in words: one names the channel, the others are the candidate's. Masks, weights and
other maps beside a triplet are left out; a file that holds several channels stays a candidate.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from ..files.paths import stem
from ..triplet import CHANNELS
from .layouts import GENERIC, Layout
from .peek import is_candidate
from .sources import StampFiles
from .vocabulary import WORD, channel_of, is_companion, is_filler, last_channel_of, normalise, weak_channel_of

__all__ = ["channel_of_file", "group_files"]

_SEPARATORS = " ._+=-()[]"
#: Most words beside the channel's own that describe how a stamp was made: ``goodSeeingDiff_template``.
_QUALIFIERS = 3


def group_files(paths: Iterable[str], layout: Layout = GENERIC) -> Iterator[str | StampFiles]:
    """Put files of one candidate together: ``x_sci.fits x_ref.fits x_diff.fits``, in any order.

    The channel is a word at the end, at the beginning or within the name, or the name of the folder; of
    several such words the one counts that finds companions. Each candidate comes where its first file
    stood; files without companions come as they are. Left out is what belongs to a candidate that is
    complete without it: masks, weights and other maps, and a second reference or difference.

    Parameters
    ----------
    paths : iterable of str
    layout : Layout
        Its names of the stamps go before the words of the field.
    """
    paths = list(paths)
    words = _layout_words(layout)
    names = [name for path in dict.fromkeys(paths) if (name := _understand(path, words)) is not None]
    looked: dict[str, bool] = {}
    stamps = [name for name in names if not name.beside]
    made = _put_together(stamps, looked)
    folders = {key[0] for key in made}
    left_out = {
        name.path
        for name in names
        if any(key in made for key in name.beside)
        # bpm.fits is for all of its folder.
        or (not name.strong and any(key[1:] == ("", "") and key[0] in folders for key in name.beside))
    }
    left_out -= _candidates(left_out, looked)
    if len(left_out) + len(stamps) < len(names):
        made = _put_together([name for name in names if name.path not in left_out], looked)
    taken = {path: key for key, members in made.items() for path in members.values()}
    spare = {
        name.path
        for name in names
        if name.path not in taken
        and any(channel != "science" and channel in made.get(key, ()) for key, channel in name.strong)
    }
    left_out |= spare - _candidates(spare, looked)
    done: set[_Key] = set()
    for path in paths:
        key = taken.get(path)
        if key is not None and key not in done:
            done.add(key)
            yield StampFiles(_called(key), made[key])
        elif key is None and path not in left_out:
            yield path


def channel_of_file(path: str) -> str | None:
    """The channel that a file's name (or its folder's) names; None if it names none or several."""
    name = _understand(path, {})
    channels = set() if name is None else {channel for _, channel in name.strong}
    return channels.pop() if len(channels) == 1 else None


#: Folder, and what stands before and behind the channel's word in a name.
_Key = tuple[str, str, str]


@dataclass(slots=True)
class _Name:
    """The ways to understand a file's name, likeliest first: ``((folder, before, behind), channel)``.

    ``strong`` are those by words that name a channel, ``weak`` by words that do so if no other file does,
    ``last`` by words that count if the three channels are then complete. ``beside`` are the candidates
    that a mask or another map may belong to, if it is named after one.
    """

    path: str
    strong: list[tuple[_Key, str]] = field(default_factory=list)
    weak: list[tuple[_Key, str]] = field(default_factory=list)
    last: list[tuple[_Key, str]] = field(default_factory=list)
    beside: list[_Key] = field(default_factory=list)


def _called(key: _Key) -> str:
    """Id of a candidate; files named after the channel alone are called after their folder."""
    name = "_".join(filter(None, key[1:]))
    return os.path.basename(os.path.abspath(key[0])) if is_filler(name) else name


def _layout_words(layout: Layout) -> dict[str, str]:
    """The layout's names of the stamps, normalised, and their channels."""
    return {normalise(name): channel for channel in CHANNELS for name in layout.fields.get(channel, ())}


@lru_cache(maxsize=16384)
def _means_something(word: str) -> bool:
    """Whether a word names a channel, or a plane beside a stamp."""
    return any(
        understand(word) for understand in (channel_of, weak_channel_of, last_channel_of, is_companion)
    )


def _understand(path: str, words: Mapping[str, str]) -> _Name | None:
    """What a file's name says; None if nothing, as names of packets do."""
    folder, name = os.path.split(path)[0], stem(path)
    parent = os.path.basename(folder)
    spans = _spans(name)
    if not (
        words or _means_something(parent) or any(_means_something(name[start:end]) for start, end in spans)
    ):
        return None
    said = _Name(path)
    for places, understand in (
        (said.strong, lambda text: words.get(normalise(text))),
        (said.strong, channel_of),
        (said.weak, weak_channel_of),
        (said.last, last_channel_of),
    ):
        places += [place for place in _readings(folder, name, spans, understand) if place not in places]
    for key, _ in _readings(folder, name, spans, lambda text: is_companion(text) or None):
        before, behind = key[1:]
        if before[-1:].isdigit() and name[len(before) :][:1].isalpha():
            # AT2024var is an object.
            continue
        rest = "_".join(filter(None, (before, behind)))
        said.beside.append(key)
        for understand in (channel_of, weak_channel_of, last_channel_of):
            said.beside += [key for key, _ in _readings(folder, rest, _spans(rest), understand)]
    return said


def _spans(name: str) -> list[tuple[int, int]]:
    """Where the words of a name stand; a letter next to a digit does not count: packets have many."""
    spans = [found.span() for found in WORD.finditer(name)]
    return [
        (start, end)
        for start, end in spans
        if end - start > 1 or not (name[start - 1 : start].isdigit() or name[end : end + 1].isdigit())
    ]


def _readings(
    folder: str, name: str, spans: Sequence[tuple[int, int]], understand: Callable[[str], Any]
) -> list[tuple[_Key, Any]]:
    """What `understand` says of the words of a name, of runs of them and of the folder; and the rest.

    Likeliest first: the word at the end, the others, runs of several, the folder.
    """
    found: list[tuple[_Key, Any]] = []
    runs = sorted(_runs(name, spans), key=lambda run: (run[2] > 1, run[1] < spans[-1][1]))
    for start, end, _ in runs:
        what = understand(name[start:end])
        if what is not None:
            found.append(((folder, name[:start].rstrip(_SEPARATORS), name[end:].lstrip(_SEPARATORS)), what))
    if (what := understand(os.path.basename(folder))) is not None:
        found.append(((os.path.dirname(folder), name, ""), what))
    return found


def _runs(name: str, spans: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """Start, end and number of words that stand side by side."""
    for i, (start, end) in enumerate(spans):
        yield start, end, 1
        for count, (later, stop) in enumerate(spans[i + 1 : i + 1 + _QUALIFIERS], 2):
            if name[end:later].strip(_SEPARATORS):
                break
            end = stop
            yield start, end, count


_Made = dict[_Key, dict[str, str]]


def _put_together(names: Sequence[_Name], looked: dict[str, bool]) -> _Made:
    """The files of each candidate of several, by channel; files that are candidates themselves are in none.

    What was found in each file is kept in `looked`.
    """
    while True:
        stamps = [name for name in names if not looked.get(name.path)]
        made = _by_words(stamps)
        _fill_by_weak_words(stamps, made)
        _fill_beside_qualifiers(stamps, made)
        if not _candidates([path for members in made.values() for path in members.values()], looked):
            return made


def _candidates(paths: Collection[str], looked: dict[str, bool]) -> set[str]:
    """Those of some files that are candidates themselves; each is looked into once."""
    for path in paths:
        if path not in looked:
            looked[path] = is_candidate(path)
    return {path for path in paths if looked[path]}


def _by_words(names: Iterable[_Name]) -> _Made:
    groups = _grouped(place for name in names for place in _placed(name.path, name.strong))
    made: _Made = {}
    taken: set[str] = set()
    for key in sorted(groups, key=lambda key: -len(groups[key])):
        members = {channel: path for channel, path in groups[key].items() if path not in taken}
        if len(set(members.values())) == len(members) > 1:
            made[key] = members
            taken.update(members.values())
    return made


def _placed(path: str, readings: Iterable[tuple[_Key, str]]) -> Iterator[tuple[_Key, str, str]]:
    return ((key, channel, path) for key, channel in readings)


def _grouped(places: Iterable[tuple[_Key, str, str]]) -> _Made:
    """Channel to the first file that has it, for each rest of the names."""
    groups: _Made = {}
    for key, channel, path in places:
        groups.setdefault(key, {}).setdefault(channel, path)
    return groups


def _left(names: Iterable[_Name], made: _Made) -> list[_Name]:
    taken = {path for members in made.values() for path in members.values()}
    return [name for name in names if name.path not in taken]


def _fill_by_weak_words(names: Iterable[_Name], made: _Made) -> None:
    """``x_image`` beside ``x_ref`` and ``x_diff`` is their science stamp; ``x_D`` makes three of two."""
    left = _left(names, made)
    alone = _grouped(place for name in left for place in _placed(name.path, name.strong))
    weak = _grouped(place for name in left for place in _placed(name.path, name.weak))
    last = _grouped(place for name in left for place in _placed(name.path, name.last))
    used: set[str] = set()
    for key in {**weak, **last}:
        known = made.get(key) or alone.get(key, {})
        whole = {**weak.get(key, {}), **known}
        complete = {**last.get(key, {}), **whole}
        if len(complete) == len(CHANNELS):
            whole = complete
        elif not known:
            continue
        if len(set(whole.values())) == len(whole) > max(len(known), 1) and used.isdisjoint(whole.values()):
            made[key] = whole
            used.update(whole.values())


def _fill_beside_qualifiers(names: Iterable[_Name], made: _Made) -> None:
    """``x_ref_resampled`` beside ``x_sci``: words around the channel's own that the others do not have.

    Only where one file of the channel is left, and only words: words with digits name candidates.
    """
    parts: list[tuple[_Key, Mapping[str, str]]] = [
        (key, members) for key, members in made.items() if len(members) < len(CHANNELS)
    ]
    for name in _left(names, made):
        parts += [(key, {channel: name.path}) for key, channel in name.strong or name.weak]
    near: dict[_Key, list[tuple[_Key, Mapping[str, str]]]] = {}
    for key, members in parts:
        for shorter in _shortened(key):
            near.setdefault(shorter, []).append((key, members))
    used: set[str] = set()
    for key, together in near.items():
        paths: dict[str, set[str]] = {}
        for _, members in together:
            for channel, path in members.items():
                paths.setdefault(channel, set()).add(path)
        whole = {channel: next(iter(found)) for channel, found in paths.items() if len(found) == 1}
        if (
            "science" in whole
            and len(set(whole.values())) == len(whole) > max(len(members) for _, members in together)
            and used.isdisjoint(whole.values())
            and any(own == key for own, _ in together)
            and all(members.items() <= whole.items() for own, members in together if own in made)
        ):
            for own, _ in together:
                made.pop(own, None)
            made[key] = whole
            used.update(whole.values())


def _shortened(key: _Key) -> Iterator[_Key]:
    """The key, and what it is without words that stand next to the channel's."""
    folder, before, behind = key
    for i in range(_QUALIFIERS + 1):
        rest = behind
        for j in range(_QUALIFIERS + 1):
            yield folder, before, rest
            if j == _QUALIFIERS or (first := WORD.match(rest)) is None:
                break
            rest = rest[first.end() :].lstrip(_SEPARATORS)
        last = next(reversed(list(WORD.finditer(before))), None)
        if i == _QUALIFIERS or last is None or last.end() < len(before):
            break
        before = before[: last.start()].rstrip(_SEPARATORS)
