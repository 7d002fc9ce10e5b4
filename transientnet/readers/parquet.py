"""Parquet: packets written as rows (Fink, Rubin), and columns of pixels, streamed batch by batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import MissingDependencyError, ReadError
from ..files.compressed import Growth
from ..files.parquet_pages import batches
from ..files.paths import stem
from ..triplet import Triplet
from .candidate import from_images, from_record
from .image import Image
from .layouts import Layout, match_channels, match_role, match_roles
from .sniff import Loaded, open_file, size_of
from .vocabulary import STACK_NAMES, normalise

__all__ = ["read", "read_record"]

_BATCH_ROWS = 64


def read(path: str, layout: Layout) -> Iterator[Triplet]:
    """Triplets of one Parquet file, one per row; only the columns that are needed are read.

    Stamps are a column each (FITS bytes, also in a struct as Fink writes them or in base64, or lists of
    numbers, nested or flattened if square), or one column of lists for all three: channels first or last,
    also flattened. Columns of texts may also name the files of the stamps.

    Raises
    ------
    ReadError
        The file is damaged as a whole, or no column holds stamps. A damaged row group costs its own rows
        only, and leaves one unreadable triplet in their place.
    MissingDependencyError
        pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError.for_extra("parquet", "Reading Parquet") from error
    damage = (pyarrow.ArrowException, OSError, ValueError, MemoryError)
    with open_file(path) as stream:
        try:
            opened = pyarrow.BufferReader(path.data) if isinstance(path, Loaded) else path
            file = pyarrow.parquet.ParquetFile(opened, buffer_size=2**20)
        except damage as error:
            raise ReadError(f"{path} is damaged or not a Parquet file: {error}") from error
        size = size_of(path)
        try:
            leaves = dict(_leaves(file.schema_arrow))
        except damage as error:
            raise ReadError(f"{path} has a schema that cannot be read: {error}") from error

        def sample(column: str) -> Iterator[Any]:
            groups = range(min(file.metadata.num_row_groups, 1))
            return (
                b
                for group in groups
                for b in batches(file, stream, group, [column], Growth(size), _BATCH_ROWS)
            )

        columns, triplets = _plan(sample, leaves, path, layout)
        first, growth = 0, Growth(size)
        for group in range(file.metadata.num_row_groups):
            row, stored = first, file.metadata.row_group(group)
            try:
                for batch in batches(file, stream, group, columns, growth, _BATCH_ROWS):
                    values = {name: _values(_leaf(batch, name)) for name in columns}
                    for i in range(batch.num_rows):
                        try:
                            yield from triplets({name: get(i) for name, get in values.items()}, str(row))
                        except ReadError as error:
                            yield Triplet.unreadable(str(row), path, f"{path}: row {row}: {error}")
                        row += 1
                if row < first + stored.num_rows:
                    raise ReadError("its pages hold fewer rows than the file's footer says")
            except damage as error:
                where = f"row group {group} of {stored.num_rows} rows cannot be read from row {row} on"
                message = f"{path}: {where}: {error}"
                yield Triplet.unreadable(f"{stem(path)}_{row}", path, message)
            first += stored.num_rows


def read_record(path: str, number: int) -> dict[str, Any]:
    """One row of a file without its stamps, lists of records included; raises `ReadError`."""
    import pyarrow.parquet
    from pyarrow import types

    with open_file(path) as stream, pyarrow.parquet.ParquetFile(path) as file:
        growth = Growth(size_of(path))
        small = [
            f.name for f in file.schema_arrow if not types.is_binary(f.type) and _pixel_type(f.type) is None
        ]
        for group in range(file.metadata.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if number >= rows:
                number -= rows
                continue
            for batch in batches(file, stream, group, small, growth, _BATCH_ROWS):
                if number < batch.num_rows:
                    record: dict[str, Any] = batch.slice(number, 1).to_pylist()[0]
                    return record
                number -= batch.num_rows
            break
    raise ReadError(f"{path}: the file ends before that row")


def _leaves(fields: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Names, dotted where nested, and types of the columns that are not histories (lists of records)."""
    from pyarrow import types

    for field in fields:
        name = f"{prefix}{field.name}"
        if types.is_struct(field.type):
            yield from _leaves(field.type, f"{name}.")
        else:
            # Categories come as their values.
            yield name, field.type.value_type if types.is_dictionary(field.type) else field.type


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _pixel_type(kind: Any) -> Any:
    """Type of the numbers in (nested) lists, None if it is not one."""
    import pyarrow
    from pyarrow import types

    if isinstance(kind, pyarrow.BaseExtensionType):
        kind = kind.storage_type
    nested = False
    while _is_list(kind):
        kind, nested = kind.value_type, True
    number = types.is_floating(kind) or types.is_integer(kind)
    return kind if nested and number else None


def _plan(
    sample: Callable[[str], Iterator[Any]], leaves: dict[str, Any], path: str, layout: Layout
) -> tuple[list[str], Callable[[dict[str, Any], str], Iterable[Triplet]]]:
    """The columns to read, and what makes a triplet (or, of files named, several) of a row of them."""
    from pyarrow import types

    from .files import path_columns, read_rows

    lists = [name for name, kind in leaves.items() if _pixel_type(kind) is not None]
    packed = [
        name
        for name, kind in leaves.items()
        if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)
    ]
    scalars = tuple(
        name
        for name, kind in leaves.items()
        if types.is_primitive(kind)
        or types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_decimal(kind)
    )
    meant = [name for names in match_roles(scalars, layout).values() for name in names]
    # Brokers that leave the packet's schema name behind often keep its version: "lsst.v10_0".
    versions = [name for name in scalars if "schema" in name.lower()]
    channels = match_channels([*packed, *lists], layout)
    if "science" in channels:
        columns = [*channels.values(), *dict.fromkeys([*meant, *versions])]

        def packet(row: dict[str, Any], id: str) -> Iterable[Triplet]:
            hints = tuple(str(row[name]) for name in versions if row[name])
            yield from_record(row, id=id, source=path, layout=layout, hints=hints)

        return columns, packet
    stacks = [name for alias in STACK_NAMES for name in lists if normalise(name.rpartition(".")[2]) == alias]
    if not stacks and len(lists) == 1:
        stacks = lists
    texts = [name for name, kind in leaves.items() if types.is_string(kind) or types.is_large_string(kind)]
    if not stacks and (named := path_columns(texts, layout)):

        def files(row: dict[str, Any], id: str) -> Iterable[Triplet]:
            return read_rows([row], named, path, layout, first=int(id))

        return [*dict.fromkeys([*named.values(), *meant])], files
    if not stacks:
        raise ReadError(
            f"{path} has no column of stamps: its columns are {', '.join(list(leaves)[:20])}. Expected is "
            "one per channel (named like science, reference, difference, as FITS bytes, lists of numbers or "
            "names of files) or one list column named like triplet or cutouts; a layout names others"
        )
    cube, own = stacks[0], next(iter(match_role(scalars, "id", layout)), None)
    last = _channels_last(sample, cube, len(layout.order))

    def triplet(row: dict[str, Any], id: str) -> Iterable[Triplet]:
        pixels = row.pop(cube)
        id = id if own is None or row[own] is None else str(row[own])
        try:
            images = _planes(pixels, layout.order, last)
            yield from_images(images, id=id, source=path, layout=layout, scalars=row)
        except ReadError as error:
            yield Triplet.unreadable(id, path, f"{path}: {cube} of {id}: {error}")

    return [cube, *dict.fromkeys(meant)], triplet


def _planes(pixels: npt.NDArray[Any] | None, order: tuple[str, ...], last: bool) -> dict[str, Image | None]:
    """The stamps of one row's array."""
    if pixels is None:
        raise ReadError("null")
    count = len(order)
    if pixels.ndim == 1 and pixels.size % count == 0:
        side = math.isqrt(pixels.size // count)
        if side and side * side * count == pixels.size:
            pixels = pixels.reshape((side, side, count) if last else (count, side, side))
    if pixels.ndim != 3 or count not in (pixels.shape[0], pixels.shape[2]) or 0 in pixels.shape:
        raise ReadError(
            f"an array of shape {pixels.shape} is not a triplet: ({count}, H, W), (H, W, {count}), "
            f"or {count} square stamps flattened"
        )
    if pixels.shape[0] != count:
        pixels = np.moveaxis(pixels, 2, 0)
    return {channel: Image(plane) for channel, plane in zip(order, pixels, strict=True)}


def _channels_last(sample: Callable[[str], Iterator[Any]], cube: str, count: int) -> bool:
    """Whether a flattened column runs through the channels first, judged by its first rows.

    Neighbouring pixels of one stamp resemble each other: the point-spread function and the background
    make them. So the step at which values differ least is the step from pixel to pixel.
    """
    import pyarrow

    near = far = 0.0
    try:
        batch = next(sample(cube), None)
        if batch is not None:
            get = _values(_leaf(batch, cube))
            for i in range(batch.num_rows):
                row = get(i)
                if row is not None and row.ndim == 1:
                    near += _median_step(row, 1)
                    far += _median_step(row, count)
    except (pyarrow.ArrowException, OSError, ValueError):
        return False
    return near > 1.05 * far


def _median_step(row: npt.NDArray[Any], step: int) -> float:
    """Median change of a flattened row over some places, in units of its own scatter."""
    values = np.asarray(row, np.float64)
    values = values[np.isfinite(values)]
    if values.size <= step:
        return 0.0
    scatter = float(np.median(np.abs(values - np.median(values))))
    return float(np.median(np.abs(values[step:] - values[:-step]))) / scatter if scatter > 0 else 0.0


def _leaf(batch: Any, name: str) -> Any:
    """A column of a batch by its dotted name."""
    import pyarrow.compute

    top, *rest = _path(batch.schema, name)
    column = batch.column(top)
    return pyarrow.compute.struct_field(column, rest) if rest else column


def _path(schema: Any, name: str) -> list[int]:
    """Indices that lead to a dotted name; the names may have dots themselves."""
    fields: Any = schema
    for i in range(len(schema)) if hasattr(schema, "names") else range(fields.num_fields):
        field = fields.field(i)
        if field.name == name:
            return [i]
        if name.startswith(f"{field.name}."):
            try:
                return [i, *_path(field.type, name[len(field.name) + 1 :])]
            except KeyError:
                continue
    raise KeyError(name)


def _values(column: Any) -> Callable[[int], Any]:
    """Access to a column's rows: pixels as arrays, everything else as Python values."""
    import pyarrow

    if isinstance(column, pyarrow.ExtensionArray):
        shape = getattr(column.type, "shape", None)
        permutation = getattr(column.type, "permutation", None)
        column = column.storage
        if shape is not None and not permutation:
            return lambda i: None if not column[i].is_valid else _pixels(column[i].values).reshape(shape)
    if _pixel_type(column.type) is None:
        return lambda i: column[i].as_py()
    return lambda i: _pixels(column[i].values) if column[i].is_valid else None


def _pixels(values: Any) -> npt.NDArray[Any]:
    """Nested lists of numbers as an array, null as NaN."""
    import pyarrow.compute

    shape: list[int] = []
    while _is_list(values.type):
        lengths = set(pyarrow.compute.list_value_length(values).to_pylist())
        if len(lengths) != 1 or None in lengths:
            raise ReadError("its stamps are ragged: the lists within have different lengths")
        shape.append(len(values) // max(math.prod(shape), 1))
        values = values.flatten()
    numbers = np.asarray(values.to_numpy(zero_copy_only=False))
    return numbers.reshape(*shape, -1) if numbers.size else numbers
