"""Arrays in memory, and NumPy's own files: ``.npy`` and ``.npz``, gzipped too."""

from __future__ import annotations

import gzip
import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ..errors import ReadError, UsageError
from ..files.compressed import Growth, most_of_a_file
from ..files.paths import stem
from ..triplet import Triplet
from .candidate import from_images
from .image import Image, facts
from .layouts import Layout, match_channels
from .sniff import Loaded, open_file, size_of
from .stacks import Rows, check_dtype, filled, read_stack

__all__ = ["from_memory", "in_memory", "promised", "read", "read_planes"]

_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    SyntaxError,
    OverflowError,
    # zipfile's answer to encryption, and to versions and methods that it does not know.
    RuntimeError,
    zlib.error,
    zipfile.BadZipFile,
)


def read(path: str, layout: Layout) -> Iterator[Triplet]:
    """Triplets of a ``.npy`` or ``.npz`` file; a plain ``.npy`` is read block by block, others are streamed.

    Raises
    ------
    ReadError
        The file is damaged, holds Python objects, or nothing in it has the shape of stamps.
    """
    try:
        with ExitStack() as files:
            file = files.enter_context(open_file(path))
            magic = file.read(2)
            file.seek(0)
            if magic == b"PK":
                # Of the file, not of each member: those of a forged archive lie on top of each other.
                growth = Growth(size_of(path))
                arrays = _members(files.enter_context(zipfile.ZipFile(file)), path, files, growth)
            else:
                arrays = {"": _array_file(file, path)}
            yield from read_stack(arrays, layout, path, name=stem(path))
    except ReadError:
        raise
    except MemoryError as error:
        raise ReadError(f"{path} needs more memory than is available") from error
    except _DAMAGE as error:
        raise ReadError(f"{path} is damaged or not a NumPy file: {error}") from error


def promised(path: str) -> int | None:
    """Candidates that the headers of a ``.npy`` or ``.npz`` file promise; None for others.

    A file that is cut short promises them all.
    """
    try:
        with open(path, "rb") as file:
            if not path.endswith(".npz"):
                shapes = [_header(file, path)[0]]
            else:
                with zipfile.ZipFile(file) as archive:
                    names = [name for name in archive.namelist() if name.endswith(".npy")]
                    shapes = []
                    for name in names:
                        with archive.open(name) as member:
                            shapes.append(_header(member, name)[0])
    except (OSError, *_DAMAGE):
        return None
    return next((shape[0] for shape in shapes if len(shape) == 4), None)


def read_planes(
    paths: Mapping[str, str], layout: Layout, *, source: str, name: str, metadata: Mapping[str, Any]
) -> Iterator[Triplet]:
    """Triplets of a ``.npy`` per channel, each (H, W) or (N, H, W).

    Parameters
    ----------
    paths : mapping of channel to path
    layout : Layout
    source, name : str
        The file that the triplets are said to come from, and the id of a single one.
    metadata : mapping
        Names and values that hold for all of them.

    Raises
    ------
    ReadError
        A file is damaged, or they do not belong together.
    """
    where = source
    try:
        with ExitStack() as files:
            arrays: dict[str, Rows] = {key: np.asarray(value) for key, value in metadata.items()}
            for channel, where in paths.items():
                arrays[channel] = _array_file(files.enter_context(open_file(where)), where)
            where = source
            yield from read_stack(arrays, layout, source, name=name)
    except ReadError:
        raise
    except MemoryError as error:
        raise ReadError(f"{where} needs more memory than is available") from error
    except _DAMAGE as error:
        raise ReadError(f"{where} is damaged or not a NumPy file: {error}") from error


def _array_file(file: IO[bytes], path: str) -> Rows:
    """A ``.npy``, gzipped or not."""
    zipped = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    if zipped or isinstance(path, Loaded):
        return _Stream(gzip.GzipFile(fileobj=file) if zipped else file, path, Growth(size_of(path)))
    return _Plain(file, path)


class _Plain:
    """A ``.npy`` on disk, read where rows are asked for.

    It is read, not mapped: a file that is cut short while it is read would end the process.
    """

    def __init__(self, file: IO[bytes], label: str) -> None:
        self._file, self._label = file, label
        self.shape, self._fortran, self.dtype = _header(file, label)
        self._start = file.tell()

    def __getitem__(self, rows: Any) -> npt.NDArray[Any]:
        if not self.shape:
            return self._read(0, 1).reshape(())
        first, stop, _ = rows.indices(self.shape[0])
        axes, count = self.shape[1:], max(stop - first, 0)
        size = math.prod(axes)
        if not self._fortran or not axes:
            return self._read(first * size, count * size).reshape(count, *axes)
        # In Fortran order the rows run fastest: a piece for each pixel.
        pieces = [self._read(pixel * self.shape[0] + first, count) for pixel in range(size)]
        return (
            np.stack(pieces).reshape(*axes[::-1], count).T if pieces else np.empty((count, *axes), self.dtype)
        )

    def _read(self, first: int, count: int) -> npt.NDArray[Any]:
        """Numbers of the file from `first` on, in its own order."""
        wanted = count * self.dtype.itemsize
        self._file.seek(self._start + first * self.dtype.itemsize)
        data = self._file.read(wanted)
        if len(data) != wanted:
            raise ReadError(
                f"{self._label} ends early: it promises {self.shape[0] if self.shape else 1:,} rows and has "
                f"{len(data):,} of the {wanted:,} bytes that come next"
            )
        return np.frombuffer(data, self.dtype)


def _members(archive: zipfile.ZipFile, path: str, files: ExitStack, growth: Growth) -> dict[str, Rows]:
    arrays: dict[str, Rows] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if name == info.filename:
            continue
        label = f"{path}[{name}]"
        # Other methods unpack a block of any size at once; np.savez never uses them.
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ReadError(f"{label} is packed by a method that np.savez_compressed does not use")
        arrays[name] = _Stream(files.enter_context(archive.open(info)), label, growth)
    if not arrays:
        there = ", ".join(archive.namelist()[:5])
        raise ReadError(f"{path}: a zip archive without NumPy arrays ({there or 'empty'}): unpack it")
    return arrays


def _header(file: Any, label: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran order, and dtype of a ``.npy``; the file then stands at its data."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ReadError(f"{label} is of version {version}, which is for arrays with named fields: no stamps")
    parse = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, fortran, dtype = parse(file)
    except (SyntaxError, tokenize.TokenError) as error:
        # NumPy reads the header as Python text, and lets the tokenizer's own errors through.
        raise ReadError(f"{label} has a damaged header ({error})") from error
    if any(n < 0 for n in shape):
        raise ReadError(f"{label} declares the shape {shape}")
    return shape, fortran, dtype


class _Stream:
    """A packed ``.npy`` read from its first row to its last, one block at a time.

    Parameters
    ----------
    file : binary file
        Stands at the beginning of the ``.npy``.
    label : str
        What to call it in messages.
    growth : Growth
        What its file may still unpack to.
    """

    def __init__(self, file: Any, label: str, growth: Growth) -> None:
        self._file, self._label, self._growth = file, label, growth
        self.shape, fortran, self.dtype = _header(file, label)
        self._next = 0
        self._loaded: npt.NDArray[Any] | None = None
        if fortran and len(self.shape) > 1 and not self.dtype.hasobject:
            # Its first row is spread over the whole of it.
            if self._bytes(self.shape) > most_of_a_file():
                raise ReadError(
                    f"{label} is in Fortran order and too large to turn: save np.ascontiguousarray of it"
                )
            self._loaded = self._read(self.shape[::-1]).T

    def __getitem__(self, rows: Any) -> npt.NDArray[Any]:
        if self._loaded is not None:
            block: npt.NDArray[Any] = self._loaded[rows]
            return block
        if not self.shape:
            return self._read(())
        first, stop, _ = rows.indices(self.shape[0])
        if first != self._next:
            raise ReadError(f"{self._label} is packed and can only be read from its beginning")
        self._next = stop
        return self._read((stop - first, *self.shape[1:]))

    def _bytes(self, shape: tuple[int, ...]) -> int:
        return math.prod(shape) * self.dtype.itemsize

    def _read(self, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        wanted = self._bytes(shape)
        self._growth.take(wanted, self._label)
        data = self._file.read(wanted)
        if len(data) != wanted:
            raise ReadError(f"{self._label} ends early: {len(data)} of {wanted} bytes are there")
        pixels: npt.NDArray[Any] = np.frombuffer(data, self.dtype).reshape(shape)
        return pixels


def in_memory(source: Any) -> bool:
    """Whether `source` holds stamps itself, rather than being an iterable of further sources."""
    held = hasattr(source, "shape") or isinstance(source, Mapping) or not isinstance(source, Iterable)
    return held or _is_triplet(source)


def _is_triplet(source: Any) -> bool:
    """Whether `source` is one candidate's stamps in a row: arrays, `NDData`, `Cutout2D` or None."""
    return (
        isinstance(source, Sequence)
        and 1 < len(source) <= 3
        and source[0] is not None
        and all(
            item is None or len(getattr(getattr(item, "data", item), "shape", ())) == 2 for item in source
        )
    )


def from_memory(source: Any, layout: Layout, *, start: int = 0) -> Iterator[Triplet]:
    """Triplets of what a program holds.

    Parameters
    ----------
    source : array, NDData, mapping, or sequence of two or three stamps
        An array is anything with ``__array__`` (NumPy, masked, torch, xarray, dask), of shape (3, H, W) or
        (N, 3, H, W). A mapping names stamps or stacks as a ``.npz`` does. Stamps may be arrays, `NDData`,
        `CCDData` or `Cutout2D`: masked pixels become NaN, WCS and header are heeded.
    layout : Layout
        Names, and the order of channels.
    start : int
        Number of the first candidate, for those without an id.

    Raises
    ------
    UsageError
        `source` has not the shape or dtype of stamps.
    """
    where = "memory"
    try:
        if _is_triplet(source):
            source = {c: item for c, item in zip(layout.order, source, strict=False) if item is not None}
        if isinstance(source, Mapping):
            source = {str(key): value for key, value in source.items()}
            channels = match_channels(list(source), layout)
            stamps = {
                channel: _image(source[key]) for channel, key in channels.items() if source[key] is not None
            }
            if stamps and all(image.data.ndim == 2 for image in stamps.values()):
                rest = {k: v for k, v in source.items() if k not in channels.values() and np.ndim(v) == 0}
                yield from_images(stamps, id=str(start), source=where, layout=layout, scalars=rest)
                return
            arrays = {key: _array(value) for key, value in source.items() if value is not None}
        else:
            cube = _image(source)
            if cube.data.ndim == 2 and cube.data.dtype.kind in "biuf":
                raise UsageError(
                    f"one image of shape {cube.data.shape}: give the stamps of a candidate together, "
                    "[science, reference, difference] or an array (N, 3, H, W) for many; a science stamp "
                    'alone is {"science": image}; candidates on a full frame are cut out by cut_triplets'
                )
            known = {"pixel_scale": cube.pixel_scale, "fwhm_px": cube.fwhm, "fwhm_arcsec": cube.fwhm_arcsec}
            arrays = {"": cube.data}
            arrays |= {role: np.asarray(value) for role, value in known.items() if value is not None}
        yield from read_stack(arrays, layout, where, start=start)
    except ReadError as error:
        raise UsageError(str(error)) from error


def _array(value: Any) -> Any:
    """Something with a shape, a NumPy dtype and rows; masked where `value` says so."""
    if hasattr(value, "wcs") and hasattr(value, "data"):
        mask = getattr(value, "mask", None)
        data = np.asarray(value.data)
        return data if mask is None else np.ma.masked_array(data, np.broadcast_to(mask, data.shape))
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    if isinstance(getattr(value, "dtype", None), np.dtype) and hasattr(value, "shape"):
        return value
    try:
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ReadError(f"{type(value).__name__} in memory cannot be taken as an array: {error}") from error


def _image(value: Any) -> Image:
    """One stamp with the facts of its WCS and header."""
    array = _array(value.data if hasattr(value, "header") and not hasattr(value, "wcs") else value)
    if len(array.shape) == 2:
        check_dtype(array, "a stamp")
        array = filled(array[0 : array.shape[0]])
        if (position := getattr(value, "input_position_cutout", None)) is not None:
            array = _centred(array, position)
    header = getattr(value, "header", None) or getattr(value, "meta", None) or {}
    wcs = getattr(value, "wcs", None)
    if wcs is not None and wcs.has_celestial:
        matrix = np.asarray(wcs.celestial.pixel_scale_matrix)
        scale = math.sqrt(abs(float(np.linalg.det(matrix)))) * 3600
        known = facts(header, pixel_scale=scale)._replace(matrix=matrix)
    else:
        known = facts(header)
    return Image(array, *known)


def _centred(array: npt.NDArray[Any], position: tuple[float, float]) -> npt.NDArray[Any]:
    """What `Cutout2D` trimmed at the edge of a frame, with its target (x, y) in the middle again."""
    edges = []
    for length, at in zip(array.shape, reversed(position), strict=True):
        short = round(2 * at) - (length - 1)
        # Half a pixel is what an even side must be off.
        edges.append((max(-short, 0), max(short, 0)) if abs(short) > 1 else (0, 0))
    if not any(map(any, edges)):
        return array
    kind = np.result_type(array.dtype.newbyteorder("="), np.float32)
    return np.pad(array.astype(kind), edges, constant_values=np.nan)
