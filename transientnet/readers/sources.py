"""From what the user names (files, globs, folders) to the files of each candidate."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import EmptyInputError, ReadError
from .sniff import FORMATS, sniff
from .surveys import channel_of

__all__ = ["StampFiles", "channel_of_file", "expand", "group_files", "stem"]

_ENDING = re.compile(r"\.(?:gz|fz|fits?|fts|npy|avro|parquet|npz|h5|hdf5?|jsonl?|tar|tgz)$", re.IGNORECASE)
_SEPARATORS = " ._+=-"
#: Words of a name: ``xSci``, ``srch123`` and ``x_sci`` have two.
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")

_HATS = frozenset(("hats.properties", "properties", "catalog_info.json"))


@dataclass(frozen=True, slots=True)
class StampFiles:
    """One candidate whose stamps lie in a file each."""

    id: str
    paths: Mapping[str, str]


def stem(path: str | Path) -> str:
    """File name without its endings: ``x.fits.fz`` and ``x.fits.gz`` are ``x``."""
    name = os.path.basename(path)
    while (shorter := _ENDING.sub("", name)) not in ("", name):
        name = shorter
    return name


def expand(sources: Iterable[str | Path]) -> Iterator[str]:
    """Files meant by paths, globs and folders, in the order given; folders and globs sorted by name.

    Raises
    ------
    EmptyInputError
        A folder holds no file in a format that is read here, or a glob matches nothing.
    """
    for source in sources:
        text = os.fspath(source)
        if os.path.isdir(text):
            yield from _folder(text)
        elif not os.path.lexists(text) and glob.has_magic(text):
            matches = sorted(glob.glob(text, recursive=True))
            if not matches:
                raise EmptyInputError(f"{text}: no file matches; check the pattern and the folder")
            for match in matches:
                if os.path.isdir(match):
                    yield from _folder(match)
                else:
                    yield match
        else:
            yield text


def _folder(folder: str) -> Iterator[str]:
    empty = True
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        # Maps of the sky lie beside the tables of a HATS catalogue: FITS files, but no stamps.
        wanted = FORMATS if _HATS.isdisjoint(files) else ("parquet",)
        for name in sorted(files):
            # Names with a leading dot or underscore are bookkeeping (Parquet's _metadata, for one).
            path = os.path.join(parent, name)
            if not name.startswith((".", "_")) and _format(path) in wanted:
                empty = False
                yield path
    if empty:
        raise EmptyInputError(
            f"{folder}: no file in it (or below) is FITS, Avro, Parquet, HDF5, NumPy, or JSON with cutouts; "
            "give the folder that holds the stamps or packets"
        )


def _format(path: str) -> str | None:
    """The format of what a folder holds, None for what is not meant to be read."""
    try:
        found = sniff(path)
    except ReadError:
        return None
    if found == "json":
        from .json import holds_stamps

        return found if holds_stamps(path) else None
    return found


def group_files(paths: Iterable[str]) -> Iterator[str | StampFiles]:
    """Put files of one candidate together: ``x_sci.fits x_ref.fits x_diff.fits``, in any order.

    The channel is a word at the end, at the beginning or within the name, or the name of the folder; of
    several such words the one counts that finds companions. Each candidate comes where its first file
    stood; files without companions come as they are.
    """
    paths = list(paths)
    readings = [_readings(path) for path in paths]
    groups: dict[_Key, dict[str, str]] = {}
    for path, found in zip(paths, readings, strict=True):
        for key, channel in found:
            groups.setdefault(key, {}).setdefault(channel, path)
    done: set[_Key] = set()
    for path, found in zip(paths, readings, strict=True):
        mine = [key for key, channel in found if len(groups[key]) > 1 and groups[key][channel] == path]
        best = max(mine, key=lambda key: len(groups[key]), default=None)
        if best is None:
            yield path
        elif best not in done:
            done.add(best)
            # Files named by the channel alone are called after their folder.
            name = "_".join(filter(None, best[1:])) or os.path.basename(os.path.abspath(best[0]))
            yield StampFiles(name, groups[best])


def channel_of_file(path: str) -> str | None:
    """The channel that a file's name (or its folder's) speaks of; None if of none or several."""
    channels = {channel for _, channel in _readings(path)}
    return channels.pop() if len(channels) == 1 else None


#: Folder, and what stands before and behind the channel's word in a name.
_Key = tuple[str, str, str]


def _readings(path: str) -> list[tuple[_Key, str]]:
    """The ways to understand a file's name, likeliest first: ``((folder, before, behind), channel)``."""
    folder, name = os.path.split(path)[0], stem(path)
    words = list(_WORD.finditer(name))
    found: list[tuple[_Key, str]] = []
    for word in [*words[-1:], *words[:-1]]:
        channel = channel_of(word[0])
        if channel is not None:
            before, behind = name[: word.start()].rstrip(_SEPARATORS), name[word.end() :].lstrip(_SEPARATORS)
            found.append(((folder, before, behind), channel))
    if (channel := channel_of(os.path.basename(folder))) is not None:
        found.append(((os.path.dirname(folder), name, ""), channel))
    return found
