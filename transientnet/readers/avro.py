"""Avro alert packets: container files of one or many, and bare records behind a registry's frame.

What a schema asks for is found out once and kept from file to file (surveys write one alert a file);
schemas that strict parsers reject are read, what a block may decompress to is bounded, and only the fields
that are used are decoded (`records`): histories and forced photometry are stepped over.
"""

from __future__ import annotations

import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, NamedTuple

from ..errors import ReadError
from ..files.compressed import Growth, most_of_a_file
from ..files.paths import stem
from ..triplet import Triplet
from .avro_codecs import decompress
from .candidate import from_images, from_record
from .image import Image
from .layouts import Layout, match_channels, match_roles, recognise
from .records import DAMAGE, Read, compile_record
from .sniff import Loaded, size_of, unzipped
from .stamp import decode_image

__all__ = ["read", "read_record"]

_MAGIC = b"Obj\x01"
_SYNC = 16
_MAX_SCHEMA = 16 * 2**20
#: Nesting of types, and of records that are searched for fields.
_DEPTH, _RECORD_DEPTH = 24, 3


def read(path: str, layout: Layout) -> Iterator[Triplet]:
    """Candidates of one Avro file, a block at a time.

    Raises
    ------
    ReadError
        The file is damaged from the start, or is a bare record whose cutouts cannot be found.
    """
    try:
        with unzipped(path) as file:
            magic = file.read(len(_MAGIC))
            if magic == _MAGIC:
                yield from _container(file, path, layout)
            else:
                yield _framed(magic + file.read(most_of_a_file()), path, layout)
    except (OSError, EOFError, zlib.error) as error:
        if isinstance(error, ReadError):
            raise
        raise ReadError(f"{path}: {error}") from error


# ---------------------------------------------------------------- containers


def _container(file: IO[bytes], path: str, layout: Layout) -> Iterator[Triplet]:
    try:
        metadata = _head(file, path)
        sync = _exactly(file, _SYNC)
        codec = metadata.get("avro.codec", b"null").decode("ascii")
        plan = _plan(metadata["avro.schema"], layout)
    except KeyError as error:
        raise ReadError(f"{path}: an Avro file without a schema") from error
    except (ReadError, UnicodeDecodeError) as error:
        raise ReadError(f"{path}: {error}") from error
    n, growth = 0, Growth(size_of(path))
    try:
        while (found := _block(file, codec, growth)) is not None:
            (count, block), at = found, 0
            for _ in range(count):
                triplet, at = _one(block, at, plan, path, n, layout)
                yield triplet
                n += 1
            if _exactly(file, _SYNC) != sync:
                raise ReadError("a block does not end with the file's sync marker")
    except ReadError as error:
        message = f"{path}: damaged after {n} candidates: {error}"
        if n == 0:
            raise ReadError(message) from error
        yield Triplet.unreadable(f"{stem(path)}_{n}", path, message)


def _block(file: IO[bytes], codec: str, growth: Growth) -> tuple[int, bytes] | None:
    """Number of records and content of the next block, which its sync marker follows; None at the end."""
    count = _long(file, at_end=None)
    if count is None:
        return None
    size, limit = _long(file), most_of_a_file()
    if size is None or size < 0 or count < 0:
        raise ReadError("damaged block header")
    if size > limit:
        raise ReadError(f"a block of {size} bytes is beyond the limit of {limit}")
    block = decompress(_exactly(file, size), codec, limit)
    growth.take(len(block))
    if count > len(block):
        raise ReadError(f"a block of {len(block)} bytes claims {count} records")
    return count, block


def _one(block: bytes, at: int, plan: _Plan, path: str, n: int, layout: Layout) -> tuple[Triplet, int]:
    """The candidate whose record begins at `at`, and where the next one does."""
    try:
        record, at = plan.read(block, at)
    except MemoryError as error:
        raise ReadError("a record needs more memory than is available") from error
    except DAMAGE as error:
        raise ReadError(f"damaged record ({type(error).__name__}: {error})") from error
    name = stem(path) if n == 0 else f"{stem(path)}_{n}"
    return from_record(record, id=name, source=path, layout=layout, hints=plan.hints), at


#: The head of the file before, from its magic on, and what it says: files of one night agree in it.
_last_head: tuple[bytes, dict[str, bytes]] = (b"", {})


def _head(file: IO[bytes], path: str) -> dict[str, bytes]:
    """The metadata of a container whose magic was read."""
    global _last_head
    if not isinstance(path, Loaded) or path.data[: len(_MAGIC)] != _MAGIC:
        return _metadata(file)
    head, metadata = _last_head
    if head and path.data.startswith(head):
        file.seek(len(head))
        return metadata
    metadata = _metadata(file)
    _last_head = path.data[: file.tell()], metadata
    return metadata


def _metadata(file: IO[bytes]) -> dict[str, bytes]:
    entries: dict[str, bytes] = {}
    while count := _long(file):
        if count < 0:
            count, _ = -count, _long(file)
        if count > 1000:
            raise ReadError("damaged header")
        for _ in range(count):
            key = _string(file).decode("utf-8")
            entries[key] = _string(file)
    return entries


def _string(file: IO[bytes]) -> bytes:
    size = _long(file)
    if size is None or not 0 <= size <= _MAX_SCHEMA:
        raise ReadError("damaged header")
    return _exactly(file, size)


def _exactly(file: IO[bytes], size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise ReadError(f"the file ends {size - len(data)} bytes too early")
    return data


_REQUIRED: Any = object()


def _long(file: IO[bytes], at_end: Any = _REQUIRED) -> int | None:
    """A zigzag varint; `at_end` instead when the file ends before it."""
    value = shift = 0
    while byte := file.read(1):
        value |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:
            return (value >> 1) ^ -(value & 1)
        if shift > 63:
            raise ReadError("damaged number")
    if shift or at_end is _REQUIRED:
        raise ReadError("the file ends in the middle of a number")
    return None


def read_record(path: str, number: int, layout: Layout) -> dict[str, Any]:
    """One record of a file with everything in it, histories included, which `read` steps over.

    Parameters
    ----------
    path : str
    number : int
        Its place in the file, from 0.
    layout : Layout
        Of the user: its schema reads a bare record.

    Raises
    ------
    ReadError
        There is no such record, or the file is damaged before it ends.
    """
    with unzipped(path) as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            if layout.schema is None or number:
                raise ReadError(f"{path}: no schema for record {number}")
            schema, folder = Path(layout.schema).read_bytes(), Path(layout.schema).parent
            return _whole(schema, folder)(file.read(most_of_a_file()), _FRAME - len(_MAGIC))[0]
        metadata = _metadata(file)
        _exactly(file, _SYNC)
        schema, codec = metadata["avro.schema"], metadata.get("avro.codec", b"null").decode("ascii")
        growth = Growth(size_of(path))
        while (found := _block(file, codec, growth)) is not None:
            count, block = found
            _exactly(file, _SYNC)
            if number < count:
                at, step = 0, _plan(schema, layout).read
                for _ in range(number):
                    _, at = step(block, at)
                return _whole(schema, None)(block, at)[0]
            number -= count
    raise ReadError(f"{path}: the file ends before that record")


# ---------------------------------------------------------------- schemas


@lru_cache(maxsize=16)
def _whole(text: bytes, folder: Path | None) -> Callable[[bytes, int], tuple[dict[str, Any], int]]:
    """What reads every field of the records of a schema."""
    schema = _Schema(json.loads(text), folder)
    return compile_record(schema.root, schema.names, None)


class _Plan(NamedTuple):
    """What to do with the records of one schema."""

    read: Read
    hints: tuple[str, ...]


@lru_cache(maxsize=64)
def _plan(text: bytes, layout: Layout, folder: Path | None = None) -> _Plan:
    try:
        schema = _Schema(json.loads(text), folder)
        record = schema.root["name"]
        paths = list(schema.paths(schema.root))
        known = layout if layout.name else recognise((record,)) or layout
        wanted = set(match_channels([path for path, bulky in paths if bulky], known).values())
        scalars = tuple(path for path, bulky in paths if not bulky)
        for one in {layout, known}:
            wanted.update(path for found in match_roles(scalars, one).values() for path in found)
        read = compile_record(schema.root, schema.names, wanted or None)
    except ReadError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ReadError(f"damaged Avro schema ({type(error).__name__}: {error})") from error
    return _Plan(read, (record,))


_PRIMITIVES = frozenset(("null", "boolean", "int", "long", "float", "double", "bytes", "string"))


class _Schema:
    """A record's schema with its structure only.

    Defaults, documentation and logical types go: surveys write defaults that strict parsers reject, and
    none is needed to read. Refused is what would let a small file ask for endless work: types that hold
    themselves, and arrays of items that take no bytes.
    """

    def __init__(self, parsed: Any, folder: Path | None = None) -> None:
        self.names: dict[str, Any] = {}
        self._folder = folder
        self.root = self._plain(parsed, "", 0)
        if not isinstance(self.root, dict) or self.root["type"] != "record":
            raise ReadError("the schema describes no record")

    def _plain(self, node: Any, space: str, depth: int) -> Any:
        if depth > _DEPTH:
            raise ReadError(f"the schema is nested more than {_DEPTH} deep")
        if isinstance(node, list):
            return [self._plain(branch, space, depth + 1) for branch in node]
        if isinstance(node, str):
            name = next((name for name in (node, f"{space}.{node}") if name in self.names), None)
            if node in _PRIMITIVES or name is not None:
                return name or node
            beside = None if self._folder is None else self._folder / f"{Path(node).name}.avsc"
            if beside is not None and beside.is_file():
                return self._plain(json.loads(beside.read_bytes()), space, depth + 1)
            raise ReadError(f"the schema uses the type {node!r} before (or within) its definition")
        kind = node["type"]
        if kind == "array":
            items = self._plain(node["items"], space, depth + 1)
            if self._takes_no_bytes(items):
                raise ReadError("the schema has an array of items that take no bytes")
            return {"type": kind, "items": items}
        if kind == "map":
            return {"type": kind, "values": self._plain(node["values"], space, depth + 1)}
        if kind not in ("record", "error", "fixed", "enum"):
            return self._plain(kind, space, depth + 1)
        space = node.get("namespace", space)
        name = node["name"] if "." in node["name"] or not space else f"{space}.{node['name']}"
        plain: dict[str, Any] = {"type": kind, "name": name}
        if kind == "fixed":
            plain["size"] = int(node["size"])
            if not 0 <= plain["size"] <= most_of_a_file():
                raise ReadError(f"the schema has a type of {plain['size']} bytes")
        elif kind == "enum":
            plain["symbols"] = node["symbols"]
        else:
            plain["type"] = "record"
            plain["fields"] = [
                {"name": item["name"], "type": self._plain(item["type"], space, depth + 1)}
                for item in node["fields"]
            ]
        self.names[name] = plain
        return plain

    def _takes_no_bytes(self, node: Any) -> bool:
        node = self.names.get(node, node) if isinstance(node, str) else node
        if isinstance(node, dict):
            if node["type"] == "fixed":
                return bool(node["size"] < 1)
            return node["type"] == "record" and all(self._takes_no_bytes(f["type"]) for f in node["fields"])
        return bool(node == "null")

    def _branches(self, node: Any) -> list[Any]:
        branches = node if isinstance(node, list) else [node]
        return [self.names.get(b, b) if isinstance(b, str) else b for b in branches]

    def paths(self, record: Any, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, bool]]:
        """Dotted names of the fields outside of lists, each with whether it can hold a stamp."""
        for item in record["fields"]:
            path = f"{prefix}{item['name']}"
            for branch in self._branches(item["type"]):
                kind = branch["type"] if isinstance(branch, dict) else branch
                if kind == "record":
                    if depth < _RECORD_DEPTH:
                        yield from self.paths(branch, f"{path}.", depth + 1)
                elif kind != "null":
                    yield path, kind in ("bytes", "fixed", "array")


# ---------------------------------------------------------------- bare records


def _framed(data: bytes, path: str, layout: Layout) -> Triplet:
    """The record behind one zero byte and four bytes of schema number."""
    if layout.schema is not None:
        try:
            file = Path(layout.schema)
            plan = _plan(file.read_bytes(), layout, file.parent)
            return _one(data, _FRAME, plan, path, 0, layout)[0]
        except (OSError, ReadError) as error:
            raise ReadError(f"{path}: not a record of schema {layout.schema}: {error}") from error
    found = _find_cutouts(data)
    if not found:
        raise ReadError(
            f"{path}: not in a supported format; if it is an alert packet sent without its schema, "
            'name the schema\'s .avsc in a layout (schema = "…")'
        )
    images = [decode_image(data[start:end]) for start, end in found]
    hint = data[found[0][0] : found[0][0] + 5760].decode("latin-1") if data[found[0][0]] == b"S"[0] else ""
    known = layout if layout.name else recognise((hint,)) or layout
    places = _places(data, found, len(known.packet_order))
    if places is None:
        raise ReadError(
            f"{path}: {len(found)} cutouts found in a packet without its schema, which is not what "
            f"{known.name or 'a survey'} sends ({', '.join(known.packet_order)}); name the schema in a layout"
        )
    channels: dict[str, Image | None] = {
        known.packet_order[place]: image for place, image in zip(places, images, strict=True)
    }
    first = _varint(data, _FRAME)
    name = str(first) if first > 10**9 else stem(path)
    return from_images(channels, id=name, source=path, layout=known, hints=(hint,))


_FRAME = 5


def _find_cutouts(data: bytes) -> list[tuple[int, int]]:
    """Where FITS or gzip bytes lie behind an Avro length that fits the file."""
    found: list[tuple[int, int]] = []
    at = _FRAME
    for match in re.finditer(rb"SIMPLE  =|\x1f\x8b\x08", data):
        start = match.start()
        if start < at:
            continue
        for width in range(1, 6):
            size = _varint(data, start - width) if _ends_varint(data, start, width) else -1
            if size > 100 and start + size <= len(data) and (match[0][0] != 0x53 or size % 2880 == 0):
                found.append((start, start + size))
                at = start + size
                break
    return found


def _ends_varint(data: bytes, end: int, width: int) -> bool:
    raw = data[end - width : end]
    return len(raw) == width and raw[-1] < 0x80 and all(byte >= 0x80 for byte in raw[:-1])


def _varint(data: bytes, at: int) -> int:
    try:
        return _long(io.BytesIO(data[at : at + 10])) or 0
    except ReadError:
        return -1


def _places(data: bytes, found: list[tuple[int, int]], count: int) -> list[int] | None:
    """Which of the `count` nullable cutouts at the end of the record were found; None if it is not clear.

    Behind the first cutout only cutouts and nulls (zero bytes) may follow to the end.
    """
    places = [0]
    for (_, end), (start, size_end) in zip(found, [*found[1:], (len(data), 0)], strict=True):
        # In front of a cutout: its union branch (one byte) and its length.
        gap = data[end:start]
        if size_end:
            width = next((w for w in range(1, 6) if _varint(data, start - w) == size_end - start), 0)
            gap = gap[: -width - 1]
        if any(gap) or len(gap) >= count:
            return None
        places.append(places[-1] + len(gap) + 1)
    last = places.pop()
    return [place + count - last for place in places] if last <= count else None
