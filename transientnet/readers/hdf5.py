"""HDF5 files through h5py: stacks of candidates, or a group per candidate; nothing outside the file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..errors import MissingDependencyError, ReadError
from ..triplet import Triplet
from .sources import stem
from .stacks import MAX_COLUMN_BYTES, MAX_TRIPLET_BYTES, Rows, read_stack
from .surveys import Layout, normalise

__all__ = ["read"]

_ORDER_ATTRIBUTES = ("channels", "channelorder", "channelnames", "order")
_MAX_DEPTH = 8


def read(path: str, layout: Layout) -> Iterator[Triplet]:
    """Triplets of an HDF5 file.

    A group that holds a data set ``(N, 3, H, W)``, or one per channel, is a stack; the data sets beside it
    are its columns. Where each candidate has a group of its own, the group's name is its id. The order of
    channels may stand in an attribute ``channels`` of the data set, its group or the file. Attributes such as
    ``pixel_scale`` hold for all that lies below.

    Raises
    ------
    ReadError
        The file is damaged, has links or data outside itself, or holds no stamps.
    MissingDependencyError
        h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingDependencyError.for_extra("hdf5", "Reading HDF5") from error
    try:
        with h5py.File(path, "r") as file:
            found = False
            for triplet in _group(file, path, layout, {}, 0):
                found = True
                yield triplet
            if not found:
                raise ReadError(f"{path} holds no stamps: no data set in it has the shape (N, 3, H, W) or (N, H, W)")
    except ReadError:
        raise
    except MemoryError as error:
        raise ReadError(f"{path} asks for more memory than there is") from error
    # h5py answers damage with whatever error HDF5 code comes to mind.
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise ReadError(f"{path} is damaged or no HDF5 file: {error}") from error


def _group(group: Any, path: str, layout: Layout, inherited: Mapping[str, Any], depth: int) -> Iterator[Triplet]:
    import h5py

    if depth > _MAX_DEPTH:
        raise ReadError(f"{path} nests groups deeper than {_MAX_DEPTH}: {group.name}")
    where = path if depth == 0 else f"{path}{group.name}"
    arrays: dict[str, Rows] = {}
    below = []
    for name in group:
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise ReadError(f"{where}: {name!r} is a link to {link.path!r}; links are not followed, copy the data in")
        kind = group.get(name, getclass=True)
        if kind is h5py.Dataset:
            arrays[name] = _checked(group[name], f"{where}[{name}]")
        elif kind is h5py.Group:
            below.append(name)
    told = {**inherited, **_attributes(group)}
    if any(len(rows.shape) >= 2 for rows in arrays.values()):
        columns = {key: np.asarray(value) for key, value in told.items() if key not in arrays}
        order = next((v for k, v in told.items() if normalise(k) in _ORDER_ATTRIBUTES), None)
        for rows in arrays.values():
            order = next((v for k, v in _attributes(rows).items() if normalise(k) in _ORDER_ATTRIBUTES), order)
        name = stem(path) if depth == 0 else group.name.rpartition("/")[2]
        yield from read_stack({**columns, **arrays}, layout, where, order=order, name=name)
    for name in below:
        try:
            yield from _group(group[name], path, layout, told, depth + 1)
        except ReadError as error:
            yield Triplet.unreadable(name, path, str(error))
