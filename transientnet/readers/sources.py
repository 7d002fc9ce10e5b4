"""From what the user names (files, globs, folders) to files that hold stamps."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import EmptyInputError, ReadError
from .sniff import FORMATS, sniff

__all__ = ["StampFiles", "expand", "stem"]

_ENDING = re.compile(r"\.(?:gz|fz|fits?|fts|npy|avro|parquet|npz|h5|hdf5?|jsonl?|tar|tgz)$", re.IGNORECASE)
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
