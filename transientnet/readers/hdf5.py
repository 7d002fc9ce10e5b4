"""HDF5 files through h5py: stacks of candidates, or a group per candidate; nothing outside the file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..errors import MissingDependencyError, ReadError
from ..files.compressed import Growth, most_of_a_file
from ..files.paths import stem
from ..triplet import Triplet
from .layouts import Layout
from .sniff import Loaded, open_file, size_of
from .stacks import BLOCK_BYTES, Rows, read_stack
from .vocabulary import ORDER_NAMES, channel_of, normalise

__all__ = ["read"]


def read(path: str, layout: Layout) -> Iterator[Triplet]:
    """Triplets of an HDF5 file.

    A group that holds a data set ``(N, 3, H, W)``, or one per channel, is a stack; the data sets beside it
    are its columns. Stacks and columns may lie in a group each: ``science/data``, ``meta/id``. Where each
    candidate has a group or a data set ``(3, H, W)`` of its own, the name is its id. The order of channels
    may stand in an attribute ``channels`` of the data set, its group or the file. Attributes such as
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
        with h5py.File(open_file(path) if isinstance(path, Loaded) else path, "r") as file:
            found = False
            for triplet in _group(file, path, layout, {}, _Walk(Growth(size_of(path)), set())):
                found = True
                yield triplet
            if not found:
                raise ReadError(
                    f"{path} holds no stamps: no data set in it has the shape (N, 3, H, W) or (N, H, W)"
                )
    except ReadError:
        raise
    except MemoryError as error:
        raise ReadError(f"{path} needs more memory than is available") from error
    # h5py answers damage with whatever error HDF5 code comes to mind.
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise ReadError(f"{path} is damaged or not an HDF5 file: {error}") from error


class _Walk(NamedTuple):
    """What is known of a file on the way through its groups: what it may still unpack to, groups met."""

    growth: Growth
    met: set[int]


def _group(
    group: Any, path: str, layout: Layout, inherited: Mapping[str, Any], walk: _Walk
) -> Iterator[Triplet]:
    import h5py

    # The identity of the object: a few links to one group make a maze without end.
    if hash(group.id) in walk.met:
        raise ReadError(f"{path}: group {group.name} is linked from more than one place, and is read once")
    top = not walk.met
    walk.met.add(hash(group.id))
    where = path if top else f"{path}{group.name}"
    arrays: dict[str, Rows] = {}
    below = []
    for name in group:
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise ReadError(
                f"{where}: {name!r} is a link to {link.path!r}; links are not followed, copy the data in"
            )
        kind = group.get(name, getclass=True)
        if kind is h5py.Dataset:
            arrays[name] = _checked(group[name], f"{where}[{name}]", walk.growth)
        elif kind is h5py.Group:
            below.append(name)
    for name in tuple(below):
        lifted = _lifted(group[name], f"{where}/{name}", walk.growth)
        if lifted and not lifted.keys() & arrays.keys():
            arrays |= lifted
            below.remove(name)
    metadata: dict[str, Any] = {**inherited, **_attributes(group)}
    if any(len(rows.shape) >= 2 for rows in arrays.values()):
        columns: dict[str, Rows] = {key: np.asarray(metadata[key]) for key in metadata.keys() - arrays.keys()}
        attributes = [item for rows in arrays.values() for item in _attributes(rows).items()]
        order = next((v for k, v in (*attributes, *metadata.items()) if normalise(k) in ORDER_NAMES), None)
        name = stem(path) if top else group.name.rpartition("/")[2]
        yield from read_stack({**columns, **arrays}, layout, where, source=path, order=order, name=name)
    for name in below:
        try:
            yield from _group(group[name], path, layout, metadata, walk)
        except ReadError as error:
            yield Triplet.unreadable(name, path, str(error))


def _lifted(group: Any, where: str, growth: Growth) -> dict[str, Rows]:
    """Arrays that lie a level too deep: ``science/data`` is the stack of a channel, ``meta/id`` a column."""
    import h5py

    links = [group.get(name, getlink=True) for name in group]
    kinds = {group.get(name, getclass=True) for name in group}
    if kinds != {h5py.Dataset} or not all(isinstance(link, h5py.HardLink) for link in links):
        return {}
    name = group.name.rpartition("/")[2]
    deep = [key for key in group if len(group[key].shape) >= 2]
    if not deep:
        return {key: _checked(group[key], f"{where}[{key}]", growth) for key in group}
    if len(deep) == 1 and channel_of(name) and not channel_of(deep[0]):
        return {name: _checked(group[deep[0]], f"{where}[{deep[0]}]", growth)}
    return {}


def _checked(rows: Any, where: str, growth: Growth) -> Rows:
    """A data set that lies wholly in the file and unpacks within bounds."""
    if rows.is_virtual or rows.external:
        raise ReadError(f"{where} keeps its data in other files; copy them in (h5repack does)")
    if rows.dtype.kind == "O" and _is_text(rows) and len(rows.shape) < 2:
        if math.prod(rows.shape) > most_of_a_file() // 64:
            raise ReadError(f"{where} has {rows.shape} texts: too many for one column")
        return np.asarray(rows.asstr(errors="replace")[()], dtype=str)
    size = math.prod(rows.shape) * rows.dtype.itemsize
    if rows.chunks:
        chunk = math.prod(rows.chunks) * rows.dtype.itemsize
        if chunk > most_of_a_file():
            raise ReadError(f"{where} has chunks beyond the limit of {most_of_a_file() // 2**20} MiB")
        # A chunk is unpacked anew for each block of rows that it has a part in.
        row = math.prod(rows.shape[1:]) * rows.dtype.itemsize
        times = min(rows.chunks[0], rows.shape[0]) / max(1, BLOCK_BYTES // max(row, 1))
        size = max(size, int(rows.id.get_num_chunks() * chunk * max(1.0, times)))
    growth.take(size, where)
    return rows  # type: ignore[no-any-return]


def _is_text(rows: Any) -> bool:
    import h5py

    return h5py.check_string_dtype(rows.dtype) is not None


def _attributes(thing: Any) -> dict[str, Any]:
    """Attributes that are a text, a number or a short list of texts."""
    metadata: dict[str, Any] = {}
    for name in getattr(thing, "attrs", ()):
        value = thing.attrs[name]
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if isinstance(value, str | int | float | np.number | np.bool_):
            metadata[name] = value
        elif isinstance(value, np.ndarray) and value.dtype.kind in "SUO" and 0 < value.size <= 3:
            metadata[name] = value.ravel().tolist()
    return metadata
