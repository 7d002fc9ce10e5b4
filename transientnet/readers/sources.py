"""From what the user names (files, globs, folders) to files that hold stamps."""

from __future__ import annotations

import glob
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import EmptyInputError, ReadError, TransientnetWarning
from .layouts import GENERIC
from .sniff import FORMATS, NotAFileError, read_file, refuse_other_nodes, sniff

__all__ = ["StampFiles", "expand"]

#: Names of files that are meant to hold stamps, whatever they hold; JSON may be settings and reports too.
_MEANT = re.compile(r"\.(?:fz|fits?|fts|npy|avro|parquet|npz|h5|hdf5?|tar|tgz)(?:\.gz)?$", re.IGNORECASE)
_HATS = frozenset(("hats.properties", "properties", "catalog_info.json"))


@dataclass(frozen=True, slots=True)
class StampFiles:
    """One candidate whose stamps lie in a file each."""

    id: str
    paths: Mapping[str, str]


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
    """Files of a folder that hold stamps or are named as if they did, and sub-folders that cannot be listed.

    What is listed and cannot be read becomes a row with a message.
    """
    empty = True
    faults: list[OSError] = []
    for parent, folders, files in os.walk(folder, onerror=faults.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        # Maps of the sky lie beside the tables of a HATS catalogue: FITS files, but no stamps.
        hats = not _HATS.isdisjoint(files)
        # Names with a leading dot or underscore are bookkeeping (Parquet's _metadata, for one).
        paths = [os.path.join(parent, name) for name in sorted(files) if not name.startswith((".", "_"))]
        for path in (*_unlisted(faults), *(path for path in paths if _is_meant(path, hats))):
            empty = False
            yield path
    for path in _unlisted(faults):
        empty = False
        yield path
    if empty:
        raise EmptyInputError(
            f"{folder}: no file in it (or below) is FITS, Avro, Parquet, HDF5, NumPy, or JSON with cutouts; "
            "give the folder that holds the stamps or packets"
        )


def _unlisted(faults: list[OSError]) -> list[str]:
    """Folders that could not be listed since the last call."""
    paths = [str(fault.filename) for fault in faults]
    faults.clear()
    return paths


def _is_meant(path: str, hats: bool) -> bool:
    """Whether a file of a folder is to be read."""
    name = os.path.basename(path)
    meant = _MEANT.search(name) is not None
    try:
        if meant and not hats:
            # Whatever it holds becomes a row: it is opened once, by who reads it.
            refuse_other_nodes(path)
            return True
        found = sniff(path)
    except NotAFileError as error:
        warnings.warn(f"left out {error}", TransientnetWarning, stacklevel=2)
        return False
    except (OSError, ValueError):
        # No permission, or a link to nothing: only the name says what it is.
        return (meant or "." not in name) and not hats
    if hats:
        return found == "parquet"
    if found == "json" and not meant:
        # Folders hold settings and reports in JSON too: the first record decides.
        try:
            first = next(read_file(path, GENERIC), None)
        except ReadError:
            return False
        return first is not None and first.error is None
    return found in FORMATS or meant
