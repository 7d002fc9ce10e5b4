"""From inputs to batches of triplets, and from those to parts of the score table."""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ..files.compressed import inflate_engine
from ..files.paths import stem
from ..models.classifier import Classifier
from ..readers.arrays import promised
from ..readers.hdus import is_mapped
from ..readers.layouts import load_layout
from ..readers.open import Input, Reading, paths_of, read
from ..readers.sniff import Loaded
from ..readers.sources import StampFiles
from ..results.columns import plural
from ..results.predictions import Predictions
from ..settings import memory_limit
from ..triplet import QualityFlag, Triplet

__all__ = [
    "Batch",
    "Mark",
    "Part",
    "Unit",
    "batches",
    "changed",
    "content_id",
    "cut",
    "flagged",
    "load",
    "lost_rows",
    "maps",
    "score",
    "units",
    "weight",
]

#: Files up to this size are known by all of their bytes, larger ones by their size and three samples.
_WHOLE = 64 * 2**20
_SAMPLE = 2**20
_SLICE = 4096
#: Bytes of pixels that a batch of ordinary stamps takes, and part of the bound of memory that fills one.
_ORDINARY, _SHARE = 4 * 2**20, 32
#: Bytes of input after which a unit is full.
_UNIT_BYTES = 8 * 2**20


class Mark(NamedTuple):
    """How many rows of a part came from which input, and whether that was its end.

    Of an input that is `lost` (it changed under the run) `rows` are the candidates that the table has, beside
    the row that stands for the others: another run tries again.
    """

    content: str
    rows: int
    ended: bool
    lost: bool = False


class Unit(NamedTuple):
    """Inputs that one worker process scores at a time, and of each the rows that the table has already."""

    inputs: tuple[Input, ...]
    skips: tuple[int, ...] = ()


class Batch(NamedTuple):
    """Triplets to be scored together, and where they came from."""

    triplets: list[Triplet]
    marks: tuple[Mark, ...]


class Part(NamedTuple):
    """Rows of the score table, in order, where they came from, and their triplets where these are wanted."""

    predictions: Predictions
    marks: tuple[Mark, ...]
    triplets: tuple[Triplet, ...] = ()


def units(inputs: Sequence[Input], most: int, skips: Sequence[int] = ()) -> Iterator[Unit]:
    """Cut inputs into units: enough of them to be worth a message, few enough to share the work evenly."""
    first = size = 0
    for last, item in enumerate(inputs, 1):
        size += sum(_size(path) for path in paths_of(item))
        if last - first >= most or size >= _UNIT_BYTES or last == len(inputs):
            yield Unit(tuple(inputs[first:last]), tuple(skips[first:last]))
            first, size = last, 0


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except (OSError, ValueError):
        return 0


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
    except (OSError, ValueError):
        return item


def _regular_size(path: str) -> int:
    """Bytes of a regular file; opening a named pipe may block for ever, and works only once."""
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(f"{path} is not a regular file")
    return found.st_size


def _load(path: str) -> str:
    size = _regular_size(path)
    if size > _SAMPLE:
        return path
    # Without the layers of `open`, which ask three times how large the file is.
    file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        data = os.read(file, size + 1)
    finally:
        os.close(file)
    if len(data) != size:
        # It is being written, or comes in pieces.
        with open(path, "rb", buffering=0) as whole:
            data = whole.read()
    return Loaded.of(path, data)


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
    except (OSError, ValueError):
        digest = hashlib.sha256("\0".join(paths_of(item)).encode("utf-8", "surrogatepass"))
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
    inputs: Sequence[Input], reading: Reading, size: int, *, skips: Sequence[int] = (), identify: bool = True
) -> Iterator[Batch]:
    """Batches across the inputs' borders, in order.

    Parameters
    ----------
    inputs : sequence of Input
    reading : Reading
    size : int
        Candidates of a batch.
    skips : sequence of int
        Candidates of the first inputs that are passed over, because the table has them.
    identify : bool
        Look up content ids; without them marks are empty.

    Yields
    ------
    Batch
    """
    reading = replace(reading, layout=load_layout(reading.layout))
    triplets: list[Triplet] = []
    marks: list[Mark] = []
    most, taken = memory_limit() // _SHARE, 0
    for number, listed in enumerate(inputs):
        content, rows, item = "", 0, listed
        if identify:
            item = load(listed)
            content = _content_id(listed, item)
        skip = skips[number] if number < len(skips) else 0
        before, now = skip, content
        for triplet in _behind(item, reading, skip):
            if triplet.error is not None and before + rows and identify:
                now = content_id(listed)
                if now != content:
                    triplet = _changed(triplet, listed, reading, before + rows)
            if triplet.meta.get("lost", False):
                lost = lost_rows(content, now, before + rows)
                triplets.append(triplet)
                break
            if len(triplets) == size:
                # Only now is it known that the input goes on.
                yield Batch(triplets, (*marks, Mark(content, rows, False)) if rows else tuple(marks))
                triplets, marks, before, rows, taken = [], [], before + rows, 0, 0
            triplets.append(triplet)
            rows += 1
            taken += nbytes(triplet)
            if taken > most:
                # Large stamps do not wait for the next one.
                yield Batch(triplets, (*marks, Mark(content, rows, False)))
                triplets, marks, before, rows, taken = [], [], before + rows, 0, 0
        else:
            lost = (Mark(content, rows, True),)
        marks.extend(lost)
    if triplets or marks:
        yield Batch(triplets, tuple(marks))


def cut(triplets: Iterable[Triplet], size: int) -> Iterator[list[Triplet]]:
    """Triplets in lists of `size`, or shorter ones of large stamps."""
    batch: list[Triplet] = []
    most, taken = memory_limit() // _SHARE, 0
    for triplet in triplets:
        batch.append(triplet)
        taken += nbytes(triplet)
        if len(batch) == size or taken > most:
            yield batch
            batch, taken = [], 0
    if batch:
        yield batch


def nbytes(triplet: Triplet) -> int:
    """Bytes of the stamps of a triplet."""
    return sum(0 if stamp is None else stamp.nbytes for stamp in triplet.stamps)


def weight(batch: Batch) -> int:
    """Bytes of the stamps of a batch beyond those of an ordinary one."""
    return max(0, sum(map(nbytes, batch.triplets)) - _ORDINARY)


def maps(item: Input) -> bool:
    """Whether a file of an input is mapped into memory: cut short meanwhile, it ends the process."""
    try:
        return any(is_mapped(path) for path in paths_of(item))
    except (OSError, ValueError):
        return False


def lost_rows(before: str, now: str, rows: int) -> tuple[Mark, ...]:
    """Marks of an input that changed from one content to another when `rows` of it were in the table."""
    left = (Mark(before, rows, False, True),) if now != before else ()
    return (*left, Mark(now, rows, True, True))


def changed(item: Input, rows: int, readable: int, reason: str) -> str:
    """What to say of an input that changed when `rows` of it were in the table."""
    total = promised(paths_of(item)[0])
    missing = "the others" if total is None else f"the other {total - rows:,}"
    return (
        f"the file changed while it was scored: its first {plural(rows, 'candidate')} "
        f"{'is' if rows == 1 else 'are'} in the table, {missing} are missing; {readable:,} can be read "
        f"from it now{reason and f' ({reason})'}; --resume tries again"
    )


def _changed(triplet: Triplet, item: Input, reading: Reading, rows: int) -> Triplet:
    """The row that stands for what is lost of an input."""
    readable = sum(other.error is None for other in read(item, reading))
    error = changed(item, rows, readable, triplet.error or "")
    path = paths_of(item)[0]
    return Triplet(triplet.science, id=stem(path), meta={"source": path, "error": error, "lost": True})


def _behind(item: Input, reading: Reading, skip: int) -> Iterator[Triplet]:
    """Candidates of an input from number `skip` on.

    Candidates are skipped because an earlier run has read them, and more behind them. Where these cannot be
    read any more, one unreadable candidate, ``lost`` in its meta, stands for them.
    """
    number, last = 0, None
    for number, last in enumerate(read(item, reading), 1):
        if number > skip:
            yield last
    if skip and (number < skip or (number == skip and last is not None and last.error is not None)):
        path = paths_of(item)[0]
        reason = f": {last.error}" if last is not None and last.error is not None else ""
        behind = f"nothing can be read behind its first {plural(skip, 'candidate')}, which the table has"
        meta = {"source": path, "error": behind + reason, "lost": True}
        yield Triplet(np.empty((0, 0), np.float32), id=stem(path), meta=meta)


def score(classifier: Classifier, batch: Batch, *, keep: bool = False) -> Part:
    """Score one batch; `keep` its triplets in the part.

    Where memory does not suffice for all at once, each is scored by itself, and flagged if it still does not.
    """
    try:
        predictions = classifier.score(batch.triplets)
    except MemoryError:
        predictions = Predictions.concatenate(
            [_alone(classifier, triplet) for triplet in batch.triplets],
            classifier.classes,
            classifier.record.id,
        )
    return Part(predictions, batch.marks, tuple(batch.triplets) if keep else ())


def _alone(classifier: Classifier, triplet: Triplet) -> Predictions:
    try:
        return classifier.score([triplet])
    except MemoryError:
        return flagged(
            classifier.classes,
            classifier.record.id,
            Triplet.unreadable(triplet.id, triplet.source, "scoring it asks for more memory than there is"),
            QualityFlag.FAILED,
        )


def flagged(classes: tuple[str, ...], model: str, triplet: Triplet, flag: int) -> Predictions:
    """One row without probabilities."""
    nothing = np.full((1, len(classes)), np.nan, np.float32)
    return Predictions.of([triplet], classes, nothing, np.array([flag], np.uint16), model)
