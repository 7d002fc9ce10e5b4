"""JSON: alerts as brokers' web interfaces and document stores hand them out, one or many in a file.

Cutouts are base64 of FITS or NumPy files, gzipped or not, or nested lists of numbers with null for what is
missing. Records stand in a list, on a line each, or one in a file; the file is read a record at a time.
"""

from __future__ import annotations

import base64
import codecs
import itertools
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import IO, Any

import numpy as np

from ..errors import ReadError
from ..files.paths import stem
from ..settings import memory_limit
from ..triplet import Triplet
from .candidate import from_record, has_stamps
from .layouts import Layout
from .sniff import unzipped

__all__ = ["read", "read_record", "unpacked"]

#: What the Python objects of a record may take, as a multiple of its characters, and copies on the way.
_EXPANSION = 64
_CHUNK = 2**18
_DEPTH = 4
_BETWEEN = re.compile(r"[\s,]*")
#: How gzip, FITS and NumPy files begin in base64.
_BASE64 = ("H4sI", "U0lNUExFICA9", "k05VTVBZ")
_DAMAGE = (OSError, EOFError, zlib.error, UnicodeDecodeError, RecursionError, MemoryError, ReadError)


def read(path: str, layout: Layout) -> Iterator[Triplet]:
    """Candidates of one JSON file (or of one with a record a line), in its order.

    Raises
    ------
    ReadError
        The file is damaged from the start, or holds no record.
    """
    with unzipped(path) as file:
        yield from _candidates(file, path, layout)


def _candidates(file: IO[bytes], path: str, layout: Layout) -> Iterator[Triplet]:
    n = 0
    try:
        for value in _records(file):
            for record in _unwrapped(_decoded(value), layout):
                name = stem(path) if n == 0 else f"{stem(path)}_{n}"
                yield from_record(record, id=name, source=path, layout=layout)
                n += 1
    except _DAMAGE as error:
        message = f"{path}: JSON damaged after {n} records: {error or type(error).__name__}"
        if n == 0:
            raise ReadError(message) from error
        yield Triplet.unreadable(f"{stem(path)}_{n}", path, message)
    if n == 0:
        raise ReadError(f"{path}: JSON without a record")


def read_record(path: str, number: int, layout: Layout) -> Mapping[str, Any]:
    """One record of a file, from 0; raises `ReadError` where there is none."""
    with unzipped(path) as file:
        records = (one for value in _records(file) for one in _unwrapped(_decoded(value), layout))
        for record in itertools.islice(records, number, None):
            return record
    raise ReadError(f"{path}: the file ends before record {number}")


def _records(file: IO[bytes]) -> Iterator[dict[str, Any]]:
    """Objects of a list, or one after the other."""
    most = memory_limit() // _EXPANSION
    parse = json.JSONDecoder(object_hook=_plain).raw_decode
    text = codecs.getincrementaldecoder("utf-8-sig")()
    buffer, listed, ended = text.decode(file.read(_CHUNK)), False, False
    at = _BETWEEN.match(buffer).end()  # type: ignore[union-attr]
    if buffer[at : at + 1] == "[":
        listed, at = True, at + 1
    while True:
        at = _BETWEEN.match(buffer, at).end()  # type: ignore[union-attr]
        begins = buffer[at : at + 1]
        if begins == "]" and listed:
            return
        if begins not in ("{", ""):
            raise ReadError(f"{begins!r} where a record should begin")
        if begins:
            try:
                record, at = parse(buffer, at)
            except ValueError as error:
                # Either the record goes on behind the buffer's end, or it is damaged.
                if ended:
                    raise ReadError(str(error)) from error
            else:
                if isinstance(record, dict):
                    yield record
                continue
        elif ended:
            if listed:
                raise ReadError("the list breaks off")
            return
        if len(buffer) - at > most:
            raise ReadError(
                f"a record of more than {most} characters: if it wraps a list of alerts, write them "
                "as a list, or one a line"
            )
        more = file.read(max(_CHUNK, len(buffer) - at))
        buffer, at, ended = buffer[at:] + text.decode(more, final=not more), 0, not more


def _plain(record: dict[str, Any]) -> Any:
    """MongoDB's way to write what JSON has no type for: ``{"$numberLong": "1"}``, ``{"$binary": …}``."""
    if not record or not all(key.startswith("$") for key in record):
        return record
    kind, value = next(iter(record.items()))
    if kind == "$binary":
        return _bytes(str(value.get("base64", "") if isinstance(value, dict) else value))
    if kind.startswith("$number"):
        try:
            return int(value) if kind in ("$numberLong", "$numberInt") else float(value)
        except (TypeError, ValueError):
            return None
    return value


def _decoded(value: Any, depth: int = 0) -> Any:
    """The value with its cutouts as bytes or arrays."""
    if isinstance(value, dict):
        if depth == _DEPTH:
            return value
        return {key: _decoded(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list):
        try:
            # null becomes NaN.
            return np.array(value, dtype=np.float64)
        except (TypeError, ValueError):
            return value
    return unpacked(value) if isinstance(value, str) else value


def unpacked(text: str) -> str | bytes:
    """A text as it is, or the bytes of the cutout that it holds in base64."""
    return _bytes(text) if text.startswith(_BASE64) else text


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text)
    except ValueError:
        # Not base64 after all: the decoder of the cutout says what it begins with.
        return text.encode()


def _unwrapped(record: Mapping[str, Any], layout: Layout) -> Iterator[Mapping[str, Any]]:
    """The record, or those in it if it is but the envelope around a list of them."""
    if not has_stamps(record, layout):
        for inner in record.values():
            records = [item for item in inner if isinstance(item, dict)] if isinstance(inner, list) else []
            found = [_decoded(item) for item in records]
            if found and has_stamps(found[0], layout):
                yield from found
                return
    yield record
