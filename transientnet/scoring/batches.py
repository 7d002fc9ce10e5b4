"""From inputs to batches of triplets, and from those to parts of the score table."""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import TransientnetError, UsageError
from ..files.compressed import inflate_engine
from ..models.classifier import BATCH_SIZE, Classifier
from ..readers.open import open_found, open_triplets
from ..readers.sniff import Loaded
from ..readers.sources import StampFiles
from ..results.predictions import Predictions
from ..triplet import Triplet

__all__ = [
    "Batch",
    "Input",
    "Mark",
    "Part",
    "Reading",
    "Unit",
    "batches",
    "content_id",
    "find_inputs",
    "paths_of",
    "read",
    "score",
    "units",
]

Input = str | StampFiles
"""One file, or the files of one candidate."""

#: Files up to this size are known by all of their bytes, larger ones by their size and three samples.
_WHOLE = 64 * 2**20
_SAMPLE = 2**20
_SLICE = 4096
#: Bytes of input after which a unit is full.
_UNIT_BYTES = 8 * 2**20


class Mark(NamedTuple):
    """How many rows of a batch came from which input, and whether that was its end."""

    content: str
    rows: int
    ended: bool


class Unit(NamedTuple):
    """Inputs that one worker process scores at a time; of the first, `skip` rows are in the table already."""

    inputs: tuple[Input, ...]
    skip: int = 0


class Batch(NamedTuple):
    """Triplets to be scored together, and where they came from."""

    triplets: list[Triplet]
    marks: tuple[Mark, ...]


class Part(NamedTuple):
    """Rows of the score table, in order, and where they came from."""

    predictions: Predictions
    marks: tuple[Mark, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """How inputs are to be read.

    Parameters
    ----------
    layout : str or None
        Survey name or path of a TOML file.
    pixel_scale, fwhm : float or None
    batch_size : int
    """

    layout: str | None = None
    pixel_scale: float | None = None
    fwhm: float | None = None
    batch_size: int = BATCH_SIZE

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, not {self.batch_size}")

    def open(self, source: Any) -> Iterator[Triplet]:
        """Triplets of any source."""
        return open_triplets(source, layout=self.layout, pixel_scale=self.pixel_scale, fwhm=self.fwhm)


def find_inputs(
    source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    layout: str | None = None,
) -> list[Input]:
    """The inputs that paths, globs and folders mean, in order; files of one candidate are one input."""
    from ..readers.grouping import group_files
    from ..readers.sources import expand
    from ..readers.surveys import load_layout

    paths = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    return list(group_files(expand([os.fspath(path) for path in paths]), load_layout(layout)))


def units(inputs: Iterable[Input], most: int, skip: int = 0) -> Iterator[Unit]:
    """Cut inputs into units: enough of them to be worth a message, few enough to share the work evenly."""
    unit: list[Input] = []
    size = 0
    for item in inputs:
        unit.append(item)
        size += sum(_size(path) for path in paths_of(item))
        if len(unit) >= most or size >= _UNIT_BYTES:
            yield Unit(tuple(unit), skip)
            unit, size, skip = [], 0, 0
    if unit:
        yield Unit(tuple(unit), skip)


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def paths_of(item: Input) -> list[str]:
    """Every file of an input."""
    return [item] if isinstance(item, str) else list(item.paths.values())


def content_id(item: Input) -> str:
    """What an input holds, wherever it lies: 32 hex digits. What cannot be read is known by its name.

    The hash covers the size and all bytes of files up to 64 MiB, and the size and three samples of a
    mebibyte (head, middle, tail) of larger ones: reading a night's table twice would cost more than what
    it can find, because survey files are written once. Small files are read whole, because stamps of one
    survey agree in size, header and padding.
    """
    return _content_id(item, load(item))


def load(item: Input) -> Input:
    """The input with the bytes of its files, if these are small and can be read."""
    try:
        if isinstance(item, str):
            return _load(item)
        return StampFiles(item.id, {channel: _load(path) for channel, path in item.paths.items()})
    except OSError:
        return item


def _regular_size(path: str) -> int:
    """Bytes of a regular file; whoever opens a named pipe may wait for ever, and can open it only once."""
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(f"{path} is no regular file")
    return found.st_size


def _load(path: str) -> str:
    if _regular_size(path) > _SAMPLE:
        return path
    with open(path, "rb", buffering=0) as file:
        return Loaded.of(path, file.read())


def _content_id(item: Input, loaded: Input) -> str:
    digest = hashlib.sha256(usedforsecurity=False)
    try:
        for path in paths_of(loaded):
            if isinstance(path, Loaded):
                digest.update(len(path.data).to_bytes(8, "big"))
                _add_bytes(digest, path.data)
                continue
            size = _regular_size(path)
            digest.update(size.to_bytes(8, "big"))
            with open(path, "rb", buffering=0) as file:
                if size <= _WHOLE:
                    while block := file.read(_SAMPLE):
                        _add_bytes(digest, block)
                else:
                    for start in (0, size // 2, size - _SAMPLE):
                        file.seek(start)
                        digest.update(file.read(_SAMPLE))
    except OSError:
        digest = hashlib.sha256("\0".join(paths_of(item)).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def _add_bytes(digest: Any, data: bytes) -> None:
    """Add bytes to a hash: short ones as they are, of longer ones the checksum of every four kilobytes.

    Checksums cost a tenth of the hash, and two candidates differ in all of them.
    """
    if len(data) <= 8 * _SLICE:
        digest.update(data)
        return
    checksum, view = inflate_engine().crc32, memoryview(data)
    sums = [checksum(view[start : start + _SLICE]) for start in range(0, len(data), _SLICE)]
    digest.update(struct.pack(f">{len(sums)}I", *sums))


def batches(
    inputs: Iterable[Input], reading: Reading, *, identify: bool = True, skip: int = 0
) -> Iterator[Batch]:
    """Batches across the inputs' borders, in order; the first `skip` candidates of all are passed over.

    Parameters
    ----------
    identify : bool
        Look up content ids; without them marks are empty.
    """
    triplets: list[Triplet] = []
    marks: list[Mark] = []
    for item in inputs:
        content, rows = "", 0
        if identify:
            loaded = load(item)
            content, item = _content_id(item, loaded), loaded
        for triplet in read(item, reading):
            if skip:
                skip -= 1
                continue
            if len(triplets) == reading.batch_size:
                # Only now is it known that the input goes on.
                yield Batch(triplets, (*marks, Mark(content, rows, False)) if rows else tuple(marks))
                triplets, marks, rows = [], [], 0
            triplets.append(triplet)
            rows += 1
        marks.append(Mark(content, rows, True))
    if triplets or marks:
        yield Batch(triplets, tuple(marks))


def read(item: Input, reading: Reading) -> Iterator[Triplet]:
    """Candidates of one input; what cannot be read as a whole is one unreadable candidate."""
    try:
        yield from open_found(item, layout=reading.layout, pixel_scale=reading.pixel_scale, fwhm=reading.fwhm)
    except UsageError:
        raise
    except (TransientnetError, OSError) as error:
        # The file has gone, or changed its nature, since it was listed.
        first = paths_of(item)[0]
        yield Triplet.unreadable(Path(first).stem, first, str(error))


def score(classifier: Classifier, batch: Batch) -> Part:
    """Score one batch."""
    return Part(classifier.predict(batch.triplets, batch_size=max(1, len(batch.triplets))), batch.marks)
