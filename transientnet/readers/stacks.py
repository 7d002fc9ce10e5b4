"""Named arrays that hold many candidates: whatever file they lie in, their meaning is found here.

An array of triplets ``(N, 3, H, W)``, or one ``(N, H, W)`` per channel, with ids, groups and pixel scales of
length N beside it, is the same thing in a `.npz`, in HDF5 and in memory. Arrays are read in blocks of
rows, so that memory does not grow with N.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import ReadError
from ..files.compressed import most_of_a_file, most_of_a_stamp
from ..triplet import Triplet
from .candidate import from_images, refuse_frames
from .image import Image
from .layouts import Layout, match_channels, match_roles
from .vocabulary import ORDER_NAMES, STACK_NAMES, channel_of, companion_of, is_companion, normalise

__all__ = [
    "BLOCK_BYTES",
    "Rows",
    "check_dtype",
    "declared_order",
    "filled",
    "read_stack",
]

BLOCK_BYTES = 16 * 2**20
"""Bytes of the rows that are read at once."""

_ACCEPTED = (
    "accepted are (3, H, W) for one triplet, (N, 3, H, W) for many, channels last where no axis but the last "
    "has that length, or arrays (N, H, W) named science, reference and difference"
)


class Rows(Protocol):
    """An array read from its first row to its last: ndarray, memory map, HDF5 data set or stream."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of rows, then the axes of one."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels."""
        ...

    def __getitem__(self, rows: Any, /) -> Any: ...


@dataclass(frozen=True, slots=True, eq=False)
class _Stamps:
    """Where the stamps lie: per channel the array's name and, in a common array, which plane it is."""

    places: Mapping[str, tuple[str, int | None]]
    last: bool
    single: bool
    n: int
    row_bytes: int

    def read(self, arrays: Mapping[str, Rows], first: int, stop: int) -> dict[str, npt.NDArray[Any]]:
        """Rows `first` to `stop` of each channel, (rows, H, W)."""
        blocks: dict[str, npt.NDArray[Any]] = {}
        for key, _ in self.places.values():
            if key not in blocks:
                rows = arrays[key]
                block = filled(rows[0 : rows.shape[0]] if self.single else rows[first:stop])
                blocks[key] = block[None] if self.single else block
        return {channel: self._plane(blocks[key], plane) for channel, (key, plane) in self.places.items()}

    def _plane(self, block: npt.NDArray[Any], plane: int | None) -> npt.NDArray[Any]:
        if plane is None:
            return block
        return block[..., plane] if self.last else block[:, plane]


def read_stack(
    arrays: Mapping[str, Rows],
    layout: Layout,
    where: str,
    *,
    source: str | None = None,
    order: Any = None,
    name: str | None = None,
    start: int = 0,
) -> Iterator[Triplet]:
    """Triplets of some named arrays, row by row.

    Parameters
    ----------
    arrays : mapping of str to Rows
        Stamps and their metadata, by name. The stamps are one array of triplets, one array per
        channel, or several arrays of triplets under names of their own, which become the ids. Columns have
        one entry per row or one for all; ``mask`` or ``tick_mask``, of shape (H, W) or (N, H, W), is true
        where pixels are missing.
    layout : Layout
        Names, and the order of channels.
    where : str
        Where the arrays are, for messages.
    source : str, optional
        The file, if `where` is a place within it.
    order : str or sequence of str, optional
        Order of channels that the source declares. That of the layout outranks it.
    name : str, optional
        Id of a single triplet that comes without one.
    start : int
        Number of the first row, for rows without an id.

    Raises
    ------
    ReadError
        No stamps are found, or their shape or dtype is not that of stamps.
    """
    found = _find(arrays, layout, where, _order(arrays, order, layout, where))
    taken = {key for stamps in found for key, _ in stamps.places.values()}
    others = {key: rows for key, rows in arrays.items() if key not in taken}
    if len(found) > 1:
        # What holds for all of them is needed again, and a packed array can be read once.
        others = {key: _whole(rows) if _is_small(rows) else rows for key, rows in others.items()}
    for stamps in found:
        several = stamps.places["science"][0] if len(found) > 1 else None

        def called(row: int, single: bool = stamps.single, several: str | None = several) -> str:
            if several is None:
                return name if single and name else str(start + row)
            return several if single else f"{several}_{row}"

        yield from _read(arrays, stamps, others, layout, where, source or where, called)


def _read(
    arrays: Mapping[str, Rows],
    stamps: _Stamps,
    others: Mapping[str, Rows],
    layout: Layout,
    where: str,
    source: str,
    called: Callable[[int], str],
) -> Iterator[Triplet]:
    columns = _columns(others, stamps.n, layout, where)
    mask_key = next((key for key, rows in others.items() if _is_mask(key) and _is_deep(rows)), None)
    mask_label = f"{where}[{mask_key}]"
    missing = mask_key and _missing(others[mask_key], stamps.n, stamps.single, mask_label)
    block = max(1, BLOCK_BYTES // stamps.row_bytes)
    for first in range(0, stamps.n, block):
        stop = min(first + block, stamps.n)
        cubes = stamps.read(arrays, first, stop)
        if missing:
            bad = missing(first, stop)
            cubes = {channel: _nan_where(bad, cube, mask_label) for channel, cube in cubes.items()}
        for i, row in enumerate(range(first, stop)):
            images = {channel: Image(cube[i]) for channel, cube in cubes.items()}
            if stamps.single:
                refuse_frames(images, layout, where)
            yield from_images(
                images,
                id=called(row),
                source=source,
                layout=layout,
                scalars={key: column[row if len(column) > 1 else 0] for key, column in columns.items()},
            )


def _find(arrays: Mapping[str, Rows], layout: Layout, where: str, order: tuple[str, ...]) -> list[_Stamps]:
    images = [key for key, rows in arrays.items() if _is_deep(rows) and not _is_mask(key)]
    named = match_channels(images, layout)
    key = named.get("science")
    if key is not None and (len(named) > 1 or (channel_of(key) and len(arrays[key].shape) < 4)):
        return [_separate(arrays, named, where)]
    stacks = [key for alias in STACK_NAMES for key in images if normalise(key) == alias]
    if not stacks:
        deep = [key for key in images if len(arrays[key].shape) >= 3]
        deep = [k for k in deep if not any(map(is_companion, re.split(r"[\W_]+", k)))] or deep[:1]
        if several := [key for key in deep if _is_like(arrays[key], arrays[deep[0]], order)]:
            return [_together(arrays, key, order, where) for key in several]
        stacks = [*deep, *(key for key, rows in arrays.items() if rows.dtype.hasobject)]
    if not stacks:
        there = ", ".join(f"{key} {rows.shape} {rows.dtype}".strip() for key, rows in arrays.items())
        raise ReadError(f"{where} holds no stamps ({there or 'nothing'}); {_ACCEPTED}")
    return [_together(arrays, stacks[0], order, where)]


def _is_deep(rows: Rows) -> bool:
    return len(rows.shape) >= 2


def _is_mask(key: str) -> bool:
    """Whether an array marks bad pixels of all channels; ``real_mask`` belongs to the stack ``real``."""
    return is_companion(key) and companion_of(key) == ("mask", None)


def _is_like(rows: Rows, first: Rows, order: tuple[str, ...]) -> bool:
    """Whether `rows` holds triplets, one or many as `first` does."""
    axes = rows.shape[-3:]
    alike = len(rows.shape) == len(first.shape) and rows.dtype.kind == first.dtype.kind
    return alike and len(rows.shape) in (3, 4) and len(order) in (axes[0], axes[2]) and 0 not in axes


def _together(arrays: Mapping[str, Rows], key: str, order: tuple[str, ...], where: str) -> _Stamps:
    rows = arrays[key]
    label = f"{where}[{key}]" if key else where
    check_dtype(rows, label)
    shape = rows.shape
    single = len(shape) == 3
    axes = tuple(shape if single else shape[1:])
    if len(axes) != 3 or len(order) not in (axes[0], axes[2]) or 0 in axes:
        raise ReadError(f"{label} has shape {tuple(shape)}; {_ACCEPTED}")
    row_bytes = _row_bytes(axes, rows.dtype, label)
    places = {channel: (key, plane) for plane, channel in enumerate(order)}
    return _Stamps(places, axes[0] != len(order), single, 1 if single else shape[0], row_bytes)


def _separate(arrays: Mapping[str, Rows], named: Mapping[str, str], where: str) -> _Stamps:
    for key in named.values():
        check_dtype(arrays[key], f"{where}[{key}]")
    shapes = {channel: tuple(arrays[key].shape) for channel, key in named.items()}
    dimensions = {len(shape) for shape in shapes.values()}
    single = dimensions == {2}
    lengths = {1} if single else {shape[0] for shape in shapes.values()}
    if dimensions not in ({2}, {3}) or len(lengths) != 1 or any(0 in shape[-2:] for shape in shapes.values()):
        there = ", ".join(f"{channel} {shape}" for channel, shape in shapes.items())
        raise ReadError(f"{where}: {there} do not belong together; {_ACCEPTED}, all with the same N")
    row_bytes = 0
    for channel, key in named.items():
        row_bytes += _row_bytes(shapes[channel][-2:], arrays[key].dtype, f"{where}[{key}]")
    places: dict[str, tuple[str, int | None]] = {channel: (key, None) for channel, key in named.items()}
    return _Stamps(places, False, single, lengths.pop(), row_bytes)


def check_dtype(rows: Rows, label: str) -> None:
    """Refuse Python objects, which only pickle could load, and what holds no numbers."""
    if rows.dtype.hasobject:
        raise ReadError(
            f"{label} holds Python objects (dtype {rows.dtype}), and pickles are never loaded; "
            "save numbers instead: np.stack(stamps) where all have one shape"
        )
    if rows.dtype.kind not in "biuf":
        raise ReadError(f"{label} has dtype {rows.dtype}; stamps are real numbers (integers or floats)")


def _row_bytes(axes: tuple[int, ...], dtype: np.dtype[Any], label: str) -> int:
    row_bytes = math.prod(axes) * dtype.itemsize
    limit = 3 * most_of_a_stamp()
    if row_bytes > limit:
        raise ReadError(
            f"{label} has stamps of {row_bytes / 2**20:.0f} MiB each; the limit is "
            f"{limit // 2**20} MiB (stamps are cut from full frames with `transientnet cut`)"
        )
    return row_bytes


def _order(arrays: Mapping[str, Rows], declared: Any, layout: Layout, where: str) -> tuple[str, ...]:
    """Channels in the order of the source: the layout's word, else the source's, else the usual order."""
    if layout.order != Layout().order:
        return tuple(layout.order)
    if declared is None:
        keys = [
            key for key, rows in arrays.items() if rows.dtype.kind in "SU" and normalise(key) in ORDER_NAMES
        ]
        if not keys:
            return tuple(layout.order)
        declared = _whole(arrays[keys[0]]).ravel().tolist()
    return declared_order(declared, layout, where)


def declared_order(declared: Any, layout: Layout, where: str) -> tuple[str, ...]:
    """Channels in the order that a source declares in words; in the layout's, if it declares none.

    Raises
    ------
    ReadError
        The words are not science, reference and difference.
    """
    if declared is None or layout.order != Layout().order:
        return tuple(layout.order)
    items = [declared] if isinstance(declared, str | bytes) else declared
    texts = [item.decode("ascii", "replace") if isinstance(item, bytes) else str(item) for item in items]
    words = [word for text in texts for word in re.split(r"[\s,;/|]+", text) if word]
    channels = tuple(channel_of(word) for word in words)
    if None in channels or len(set(channels)) != len(channels) or "science" not in channels:
        raise ReadError(f"{where} declares its channels as {words}; science, reference, difference are known")
    return tuple(channel for channel in channels if channel is not None)


def _columns(arrays: Mapping[str, Rows], n: int, layout: Layout, where: str) -> dict[str, list[Any]]:
    """The columns that mean something, as lists of N values or of one value that holds for all rows."""
    fitting = tuple(key for key, rows in arrays.items() if rows.shape in ((n,), (1,), ()))
    columns: dict[str, list[Any]] = {}
    for name, key in _meant(fitting, layout).items():
        rows = arrays[key]
        if rows.dtype.hasobject:
            raise ReadError(
                f"{where}[{key}] holds Python objects, and pickles are never loaded; "
                f"save it as text or numbers: np.asarray({key}, dtype=str)"
            )
        if math.prod(rows.shape) * rows.dtype.itemsize > most_of_a_file():
            raise ReadError(
                f"{where}[{key}] is beyond the limit of {most_of_a_file() // 2**20} MiB for a column"
            )
        columns[name] = [
            value.decode("utf-8", "replace") if isinstance(value, bytes) else value
            for value in np.ravel(_whole(rows)).tolist()
        ]
    return columns


def _meant(keys: Sequence[str], layout: Layout) -> dict[str, str]:
    """Those of `keys` that a role goes by, by the name that says so: ``ids`` and ``names`` are `id` too."""

    def known(names: Sequence[str]) -> set[str]:
        return {name for found in match_roles(tuple(names), layout).values() for name in found}

    meant = {key: key for key in keys if key in known(keys)}
    for key in keys:
        one = key.removesuffix("s")
        one = "id" if normalise(one) == "name" else one
        if key not in meant and one != key and one not in meant and known([one]):
            meant[one] = key
    return meant


def _missing(rows: Rows, n: int, single: bool, label: str) -> Callable[[int, int], npt.NDArray[np.bool_]]:
    """A function from first and last row to the missing pixels, (1, H, W) or (rows, H, W)."""
    if len(rows.shape) == 2 and rows.dtype.kind in "biu":
        always = _whole(rows)[None] != 0
        return lambda first, stop: always
    if len(rows.shape) == 3 and rows.shape[0] == n and not single and rows.dtype.kind in "biu":
        return lambda first, stop: np.asarray(rows[first:stop]) != 0
    raise ReadError(
        f"{label} has shape {tuple(rows.shape)} and dtype {rows.dtype}; a mask is boolean or integer, "
        "true where pixels are missing, of shape (H, W) for all candidates or (N, H, W)"
    )


def _nan_where(bad: npt.NDArray[np.bool_], stamps: npt.NDArray[Any], label: str) -> npt.NDArray[Any]:
    if not bad.any():
        return stamps
    if bad.shape[-2:] != stamps.shape[-2:]:
        raise ReadError(f"{label} is {bad.shape[-2:]} pixels large and the stamps are {stamps.shape[-2:]}")
    return np.where(
        bad, np.float32(np.nan), stamps.astype(np.result_type(stamps.dtype, np.float32), copy=False)
    )


def filled(block: Any) -> npt.NDArray[Any]:
    """A block as a plain array, NaN where it is masked."""
    if np.ma.isMaskedArray(block):
        return _nan_where(np.ma.getmaskarray(block), np.ma.getdata(block), "the mask")
    return np.asarray(block)


def _is_small(rows: Rows) -> bool:
    size = math.prod(rows.shape) * rows.dtype.itemsize
    return len(rows.shape) <= 2 and size <= most_of_a_file() and not rows.dtype.hasobject


def _whole(rows: Rows) -> npt.NDArray[Any]:
    return np.asarray(rows[0 : rows.shape[0]] if rows.shape else rows[()])
