"""From what the user names (files, globs, folders) to the files of each candidate."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import EmptyInputError, ReadError
from .sniff import sniff
from .surveys import channel_of

__all__ = ["StampFiles", "channel_of_file", "expand", "group_files", "stem"]

_ENDING = re.compile(r"\.(?:gz|fz|fits?|fts|npy|avro|parquet|npz|h5|hdf5?)$", re.IGNORECASE)
_SEPARATOR = re.compile(r"[\s._+=-]+")


@dataclass(frozen=True, slots=True)
class StampFiles:
    """One candidate whose stamps lie in a file each."""

    id: str
    paths: Mapping[str, str]


def stem(path: str | Path) -> str:
    """File name without its endings: ``x.fits.fz`` and ``x.fits.gz`` are ``x``."""
    name = Path(path).name
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
        for name in sorted(files):
            # Names with a leading dot or underscore are bookkeeping (Parquet's _metadata, for one).
            path = os.path.join(parent, name)
            if not name.startswith((".", "_")) and _is_readable(path):
                empty = False
                yield path
    if empty:
        raise EmptyInputError(
            f"{folder}: no file in it (or below) is FITS, Avro, Parquet, HDF5 or NumPy; "
            "give the folder that holds the stamps or packets"
        )


def _is_readable(path: str) -> bool:
    try:
        return sniff(path) is not None
    except ReadError:
        return False


def group_files(paths: Iterable[str]) -> Iterator[str | StampFiles]:
    """Put files of one candidate together: ``x_sci.fits x_ref.fits x_diff.fits``, in any order.

    The channel is a word at the end, at the beginning or within the name, or the name of the folder. Each
    candidate comes where its first file stood; files without companions come as they are.
    """
    paths = list(paths)
    groups: dict[tuple[str, str], dict[str, str]] = {}
    keys: list[tuple[str, str] | None] = []
    for path in paths:
        key, channel = _split_name(path)
        if channel is not None and groups.setdefault(key, {}).setdefault(channel, path) == path:
            keys.append(key)
        else:
            keys.append(None)
    for path, found in zip(paths, keys, strict=True):
        members = groups.get(found) if found is not None else None
        if members is None or len(members) == 1:
            yield path
        elif next(iter(members.values())) == path and found is not None:
            yield StampFiles(found[1], members)


def channel_of_file(path: str) -> str | None:
    """The channel that a file's name (or its folder's) speaks of, or None."""
    return _split_name(path)[1]


def _split_name(path: str) -> tuple[tuple[str, str], str | None]:
    """``((folder, candidate), channel)`` that a file's name speaks of."""
    folder, name = os.path.split(path)[0], stem(path)
    words = [word for word in _SEPARATOR.split(name) if word]
    order = [len(words) - 1, *range(len(words) - 1)]
    for i in order:
        channel = channel_of(words[i]) if len(words) > 1 else None
        if channel is not None:
            return (folder, "_".join(words[:i] + words[i + 1 :])), channel
    above, parent = os.path.split(folder)
    if parent and (channel := channel_of(parent)) is not None:
        return (above, name), channel
    return (folder, name), channel_of(name) if len(words) == 1 else None
