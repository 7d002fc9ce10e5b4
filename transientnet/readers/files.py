"""One file per stamp: put together by their names, or by the columns of a table.

``candidates.csv`` with the columns ``science``, ``reference`` and ``difference`` names the files of one
candidate per row; an ECSV, VOTable, FITS or Parquet table does so too. Paths are relative to the table. The
cells may also hold the stamps themselves, in base64.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import ReadError
from ..files.paths import stem
from ..files.tables import open_table
from ..triplet import Triplet
from .arrays import read_planes
from .candidate import from_images, from_record, refuse_frames
from .grouping import group_files
from .hdus import load_image
from .image import Image
from .json import unpacked
from .layouts import Layout, match_channels, match_role
from .sniff import sniff
from .sources import StampFiles
from .vocabulary import channel_of, normalise

__all__ = ["path_columns", "read", "read_rows", "read_stamps"]

_OF_FILES = "files?|f(?:ile)?_?names?|paths?"
#: What ``sci_file`` and ``fname_sci`` say beside their channel.
_FILE = re.compile(rf"[ _.-]?(?:{_OF_FILES})$|^(?:{_OF_FILES})[ _.-]", re.IGNORECASE)
#: Most characters of a path.
_MAX_PATH = 1024


def read_stamps(
    files: StampFiles, layout: Layout, metadata: Mapping[str, Any] | None = None
) -> Iterator[Triplet]:
    """The candidate whose stamps lie in a file each, or the candidates of a ``.npy`` stack per channel.

    What cannot be read is one unreadable triplet.

    Parameters
    ----------
    files : StampFiles
        FITS images, or ``.npy`` arrays of shape (H, W) or (N, H, W).
    layout : Layout
    metadata : mapping, optional
        Facts from elsewhere, by name; they outrank the headers.
    """
    source = files.paths.get("science") or next(iter(files.paths.values()))
    metadata = metadata or {}
    try:
        kinds = {channel: _kind(path) for channel, path in files.paths.items()}
        if set(kinds.values()) == {"npy"}:
            yield from read_planes(files.paths, layout, source=source, name=files.id, metadata=metadata)
            return
        images: dict[str, Image | None] = {}
        header: Mapping[str, Any] = {}
        for channel, path in files.paths.items():
            if kinds[channel] == "npy":
                raise ReadError(
                    f"{path}: a NumPy file beside FITS files; stamps of one candidate are of one kind"
                )
            images[channel], values = load_image(path)
            if channel == "science":
                header = values
        refuse_frames(images, layout, source)
        scalars = {**metadata, **{key: value for key, value in header.items() if key not in metadata}}
        triplet = from_images(images, id=files.id, source=source, layout=layout, scalars=scalars)
        # A label table names all of them.
        yield replace(triplet, meta={**triplet.meta, "files": dict(files.paths)})
    except ReadError as error:
        yield Triplet.unreadable(files.id, source, str(error))


def _kind(path: str) -> str | None:
    # A pipe would be waited for, and a device may never end.
    if os.path.exists(path) and not os.path.isfile(path):
        raise ReadError(f"{path}: not a regular file")
    return sniff(path)


def read(path: str, layout: Layout) -> Iterator[Triplet]:
    """Candidates of a CSV, ECSV or VOTable, a row each; a row whose files cannot be read is unreadable.

    Raises
    ------
    ReadError
        The table is damaged, or no column of it names science stamps.
    """
    table = open_table(path, header=lambda names: bool(path_columns(names, layout)))
    yield from read_rows(table.rows(), _require(table.names, layout, path), path, layout)


def path_columns(names: Iterable[str], layout: Layout) -> dict[str, str]:
    """Channel to the column that names its files; empty if the columns name no stamps.

    A column called ``image`` alone may as well name the frame that the candidates were found on.
    """
    bare = {_FILE.sub("", name): name for name in reversed(list(names))}
    channels = {
        **{channel: bare[name] for channel, name in match_channels(list(bare), layout).items()},
        **match_channels(list(bare.values()), layout),
    }
    plain = channels.keys() == {"science"} and channel_of(_FILE.sub("", channels["science"])) is None
    if "science" not in channels or (plain and "science" not in layout.fields):
        return {}
    return channels


def _require(names: Sequence[str], layout: Layout, path: str) -> dict[str, str]:
    channels = path_columns(names, layout)
    if not channels:
        raise ReadError(
            f"{path}: a table without stamps: its columns are {', '.join(names[:20])}. Columns named like "
            "science, reference, difference name the files of each candidate; positions on a frame go to "
            "`transientnet cut --catalog`, labels to `transientnet adapt --labels`"
        )
    return channels


def read_rows(
    rows: Iterable[Mapping[str, Any]], channels: Mapping[str, str], path: str, layout: Layout, first: int = 0
) -> Iterator[Triplet]:
    """Candidates of a table's rows.

    Parameters
    ----------
    rows : iterable of mapping
        Column to value; ``fwhm`` is the seeing in pixels, other columns are as in a packet.
    channels : mapping
        As `path_columns` gives it.
    path : str
        The table.
    first : int
        Number of the first row, for candidates without an id.
    """
    folder = os.path.dirname(path)
    for number, row in enumerate(rows, first):
        values = {name: _plain(value) for name, value in row.items()}
        cells = {channel: str(values.get(name) or "").strip() for channel, name in channels.items()}
        if any(isinstance(unpacked(cell), bytes) for cell in cells.values()):
            stamps = {name: unpacked(cells[channel]) or None for channel, name in channels.items()}
            record = {**values, **stamps}
            yield from_record(record, id=f"{stem(path)}_{number}", source=path, layout=layout)
            continue
        paths = {channel: os.path.join(folder, cell) for channel, cell in cells.items() if cell}
        metadata = {
            "fwhm_px" if normalise(name) == "fwhm" else name: value
            for name, value in values.items()
            if value is not None and name not in channels.values()
        }
        own = next((str(metadata[name]) for name in match_role(tuple(metadata), "id", layout)), None)
        fault = _fault(cells, paths)
        if fault is not None:
            message = f"row {number + 1} {fault}"
            yield Triplet.unreadable(own or f"{stem(path)}_{number}", path, message)
            continue
        for triplet in read_stamps(StampFiles(own or _together(paths, layout), paths), layout, metadata):
            if triplet.error is not None and "No such file" in triplet.error:
                error = f"{triplet.error}; the paths of a table start where the table lies"
                triplet = Triplet.unreadable(triplet.id, triplet.source, error)
            yield triplet


def _fault(cells: Mapping[str, str], paths: Mapping[str, str]) -> str | None:
    """What is wrong with the names of one candidate's files."""
    for channel, cell in cells.items():
        if len(cell) > _MAX_PATH:
            return f"has {len(cell)} characters where the file of its {channel} stamp should be named"
    if "science" not in paths:
        return "names no science stamp"
    return "names one file for two stamps" if len(set(paths.values())) < len(paths) else None


def _together(paths: Mapping[str, str], layout: Layout) -> str:
    """What the files of one candidate are called in common."""
    found = group_files(paths.values(), layout)
    return next((files.id for files in found if isinstance(files, StampFiles)), stem(paths["science"]))


def _plain(value: Any) -> Any:
    """A cell as a Python value; None for what is masked, empty or an array."""
    if np.ma.is_masked(value) or np.ndim(value):
        return None
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return None if isinstance(value, str) and not value.strip() else value
