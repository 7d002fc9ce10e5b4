"""Avro records: a schema becomes functions that read the fields that are wanted and step over the rest.

A third of a ZTF alert is the object's history, some two thousand numbers that a score does not need. What
lies between two wanted fields is a regular language (numbers of fixed or of marked length, one branch or
another), so that one regular expression steps over it, at the speed of the engine's C. What is not regular
(strings beyond 127 bytes, lists) is read and dropped, unless a record is the last of its block: then a look
for the first cutout leads behind it, and what is read from there has to come out at the end.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import numpy as np

from ..errors import ReadError
from ..settings import memory_limit

__all__ = ["DAMAGE", "Read", "compile_record", "zigzag"]

Read = Callable[[bytes, int], tuple[Any, int]]
"""Takes bytes and a place in them; gives the value that begins there and the place behind it."""

DAMAGE = (LookupError, ValueError, OverflowError, TypeError, struct.error)
"""What a `Read` raises where the bytes do not follow the schema."""

_Skip = Callable[[bytes, int], int]
_T = TypeVar("_T")

#: Types within types that a schema may ask for; large surveys need some thousand looks.
_MAX_LOOKS = 50_000

#: Bytes of memory for each value of a list that is no list of floats: a Python object, and copies of it.
_LIST_ITEM = 256

#: More than these need more than one byte to say which it is.
_MAX_BRANCHES = 64

_DTYPES: dict[str, np.dtype[Any]] = {"float": np.dtype("<f4"), "double": np.dtype("<f8")}
# Alternatives begin with different bytes: there is one way to match, so that no byte is looked at twice.
_VARINT = rb"[\x80-\xff]{0,9}+[\x00-\x7f]"
#: How the bytes of a cutout begin: gzip, FITS.
_CUTOUTS = (b"\x1f\x8b\x08", b"SIMPLE  =")
#: Most bytes between the beginning of a cutout's field and its content: a file's name, a few numbers.
_LEAD = 256
#: A length below 64 is one even byte, one below 128 an even byte with the high bit and a 1.
_TEXT = b"(?:" + b"|".join(
    (b"\\x%02x" % (2 * n) if n < 64 else b"\\x%02x\\x01" % (2 * n)) + b".{%d}" % n for n in range(128)
) + b")"  # fmt: skip


def compile_record(root: Any, names: Mapping[str, Any], wanted: Collection[str] | None) -> Read:
    """A function that reads one record.

    Parameters
    ----------
    root : dict
        Schema of a record: structure only, no type within itself, no list of items that take no bytes.
    names : mapping
        The named types that it refers to.
    wanted : collection of str, or None
        Dotted names of the fields to read; None for all.

    Returns
    -------
    callable
        ``read(data, at) -> (dict, end)``. Lists of floats come as arrays. Raises one of `DAMAGE`.
    """
    return _Compiler(names).record(root, wanted, "")


def zigzag(data: bytes, at: int) -> tuple[int, int]:
    """The integer that begins at `at`, and the place behind it."""
    byte = data[at]
    at += 1
    if byte < 0x80:
        return (byte >> 1) ^ -(byte & 1), at
    value, shift = byte & 0x7F, 7
    while shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at
        shift += 7
    raise ReadError("damaged number")


def _bytes(data: bytes, at: int) -> tuple[bytes, int]:
    size, at = zigzag(data, at)
    if not 0 <= size <= len(data) - at:
        raise IndexError(f"{size} bytes where {len(data) - at} are left")
    return data[at : at + size], at + size


def _string(data: bytes, at: int) -> tuple[str, int]:
    raw, at = _bytes(data, at)
    return raw.decode("utf-8"), at


def _boolean(data: bytes, at: int) -> tuple[bool, int]:
    return data[at] != 0, at + 1


def _unpacked(code: str) -> Read:
    form = struct.Struct(code)
    unpack, size = form.unpack_from, form.size
    return lambda data, at: (unpack(data, at)[0], at + size)


_PRIMITIVES: dict[str, Read] = {
    "null": lambda data, at: (None, at),
    "boolean": _boolean,
    "int": zigzag,
    "long": zigzag,
    "float": _unpacked("<f"),
    "double": _unpacked("<d"),
    "bytes": _bytes,
    "string": _string,
}
_PATTERNS = {
    "null": b"",
    "boolean": b".",
    "int": _VARINT,
    "long": _VARINT,
    "float": b"." * 4,
    "double": b"." * 8,
    "bytes": _TEXT,
    "string": _TEXT,
}


class _Compiler:
    def __init__(self, names: Mapping[str, Any]) -> None:
        self._names = names
        self._looks = 0

    def _type(self, node: Any) -> tuple[str, Any]:
        """Kind of a type, and its definition."""
        self._looks += 1
        if self._looks > _MAX_LOOKS:
            raise ReadError("the schema is too large: its types hold each other too often")
        node = self._names.get(node, node) if isinstance(node, str) else node
        return ("union" if isinstance(node, list) else node["type"] if isinstance(node, dict) else node), node

    def read(self, node: Any, wanted: Collection[str] | None = None, prefix: str = "") -> Read:
        """A whole value; of records in it the `wanted` fields."""
        kind, node = self._type(node)
        if kind == "record":
            return self.record(node, wanted, prefix)
        if kind == "union":
            return _union([self.read(branch, wanted, prefix) for branch in node])
        if kind == "array":
            inner, _ = self._type(node["items"])
            return _numbers(_DTYPES[inner]) if inner in _DTYPES else _array(self.read(node["items"]))
        if kind == "map":
            return _map(self.read(node["values"]))
        if kind == "fixed":
            return _unpacked(f"{node['size']}s")
        if kind == "enum":
            return _enum(node["symbols"])
        return _PRIMITIVES[kind]

    def record(self, node: Any, wanted: Collection[str] | None, prefix: str) -> Read:
        steps: list[tuple[str | None, Any]] = []
        between: list[Any] = []
        leap: tuple[int, int, bytes] | None = None
        for item in node["fields"]:
            path = f"{prefix}{item['name']}"
            if wanted is None or path in wanted:
                step = self.read(item["type"])
            elif any(name.startswith(f"{path}.") for name in wanted):
                step = self.read(item["type"], wanted, f"{path}.")
            else:
                between.append(item["type"])
                continue
            skips = self._skips(between)
            if not leap and any(self._pattern(kind) is None for kind in between):
                lead = None if prefix else self._lead(item["type"])
                leap = None if lead is None else (len(steps), len(steps) + len(skips), lead)
            steps += [(None, skip) for skip in skips]
            between = []
            steps.append((item["name"], step))
        steps += [(None, skip) for skip in self._skips(between)]
        if leap is None:
            return _record(steps)
        first, behind, lead = leap
        return _leaping(_record(steps[:first]), _record(steps[first:]), _record(steps[behind:]), lead)

    def _lead(self, node: Any) -> bytes | None:
        """Regular expression of what stands before the content of the first bytes of a value."""
        kind, node = self._type(node)
        if kind == "bytes":
            return _VARINT
        before = b""
        for index, part in enumerate(node if kind == "union" else node["fields"] if kind == "record" else []):
            inner = part if kind == "union" else part["type"]
            lead = self._lead(inner)
            if lead is not None:
                return b"\\x%02x" % (2 * index) + lead if kind == "union" else before + lead
            if kind == "record":
                pattern = self._pattern(inner)
                if pattern is None:
                    return None
                before += pattern
        return None

    def _skips(self, nodes: list[Any]) -> list[_Skip]:
        """Functions that step over values: as few as can be."""
        skips: list[_Skip] = []
        run: list[Any] = []
        for node in [*nodes, None]:
            if node is not None and self._pattern(node) is not None:
                run.append(node)
                continue
            if run:
                skips.append(self._jump(run))
                run = []
            if node is not None:
                skips.append(self._skip(node))
        return skips

    def _jump(self, run: list[Any]) -> _Skip:
        patterns = [pattern for node in run if (pattern := self._pattern(node)) is not None]
        match = re.compile(b"".join(patterns), re.DOTALL).match
        reads = [self.read(node) for node in run]

        def jump(data: bytes, at: int) -> int:
            found = match(data, at)
            if found is not None:
                return found.end()
            for read in reads:
                _, at = read(data, at)
            return at

        return jump

    def _skip(self, node: Any) -> _Skip:
        """Step over a value that is not regular."""
        kind, node = self._type(node)
        if kind == "array":
            return _skip_array(self._skips([node["items"]])[0])
        if kind == "union":
            return _union([self._skips([branch])[0] for branch in node])
        if kind == "record":
            return _skip_record(self._skips([item["type"] for item in node["fields"]]))
        read = self.read(node)
        return lambda data, at: read(data, at)[1]

    def _pattern(self, node: Any) -> bytes | None:
        """Regular expression of all values of a type, short texts assumed; None where there is none."""
        kind, node = self._type(node)
        if kind in ("array", "map"):
            return None
        if kind in ("union", "record"):
            inner = node if kind == "union" else [item["type"] for item in node["fields"]]
            parts = [self._pattern(part) for part in inner]
            known = [part for part in parts if part is not None]
            if len(known) < len(parts) or (kind == "union" and len(parts) > _MAX_BRANCHES):
                return None
            if kind == "record":
                return b"".join(known)
            return b"(?:" + b"|".join(b"\\x%02x" % (2 * i) + part for i, part in enumerate(known)) + b")"
        if kind == "fixed":
            return b".{%d}" % node["size"]
        return _VARINT if kind == "enum" else _PATTERNS[kind]


def _record(steps: list[tuple[str | None, Any]]) -> Read:
    def read(data: bytes, at: int) -> tuple[dict[str, Any], int]:
        found: dict[str, Any] = {}
        for name, step in steps:
            if name is None:
                at = step(data, at)
            else:
                found[name], at = step(data, at)
        return found, at

    return read


def _leaping(head: Read, rest: Read, tail: Read, lead: bytes) -> Read:
    """Read `head`, and behind what nobody wants `tail`; `rest` does both step by step.

    A record that ends with its data proves the leap right: `tail` must end there too, and every cutout must
    begin as one, so that neither a history that holds such bytes nor an absent cutout shifts the fields.
    """
    leads = re.compile(lead + rb"\Z", re.DOTALL)

    def read(data: bytes, at: int) -> tuple[dict[str, Any], int]:
        found, at = head(data, at)
        content = next((place for magic in _CUTOUTS if (place := data.find(magic, at)) >= 0), -1)
        field = leads.search(data, max(at, content - _LEAD), content) if content >= 0 else None
        if field is not None:
            try:
                more, end = tail(data, field.start())
            except (*DAMAGE, ReadError):
                end = -1
            if end == len(data) and all(map(_whole, more.values())):
                return {**found, **more}, end
        more, at = rest(data, at)
        return {**found, **more}, at

    return read


def _whole(value: Any) -> bool:
    """Whether a field's value is there, and begins as a cutout if it is bytes."""
    if isinstance(value, dict):
        return all(map(_whole, value.values()))
    return value.startswith(_CUTOUTS) if isinstance(value, bytes) else value is not None


def _union(branches: list[Callable[[bytes, int], _T]]) -> Callable[[bytes, int], _T]:
    # All but huge unions: one even byte says which branch.
    known = {2 * index: read for index, read in enumerate(branches[:64])}.get

    def read(data: bytes, at: int) -> _T:
        chosen = known(data[at])
        if chosen is not None:
            return chosen(data, at + 1)
        index, at = zigzag(data, at)
        if index < 0:
            raise IndexError(f"branch {index}")
        return branches[index](data, at)

    return read


def _enum(symbols: list[str]) -> Read:
    def read(data: bytes, at: int) -> tuple[str, int]:
        index, at = zigzag(data, at)
        if index < 0:
            raise IndexError(f"symbol {index}")
        return symbols[index], at

    return read


def _count(data: bytes, at: int) -> tuple[int, int]:
    """Items of the next block of a list; 0 at its end."""
    count, at = zigzag(data, at)
    if count < 0:
        # The size of the block in bytes follows.
        return -count, zigzag(data, at)[1]
    return count, at


def _array(item: Read) -> Read:
    def read(data: bytes, at: int) -> tuple[list[Any], int]:
        values: list[Any] = []
        count, at = _count(data, at)
        most = memory_limit() // _LIST_ITEM
        while count:
            if len(values) + count > most:
                raise ValueError(f"a list of more than {most} values")
            for _ in range(count):
                value, at = item(data, at)
                values.append(value)
            count, at = _count(data, at)
        return values, at

    return read


def _numbers(dtype: np.dtype[Any]) -> Read:
    def read(data: bytes, at: int) -> tuple[Any, int]:
        blocks = []
        count, at = _count(data, at)
        while count:
            blocks.append(np.frombuffer(data, dtype, count, at))
            count, at = _count(data, at + count * dtype.itemsize)
        return (np.concatenate(blocks) if blocks else []), at

    return read


def _map(value: Read) -> Read:
    def read(data: bytes, at: int) -> tuple[dict[str, Any], int]:
        found: dict[str, Any] = {}
        count, at = _count(data, at)
        while count:
            for _ in range(count):
                key, at = _string(data, at)
                found[key], at = value(data, at)
            count, at = _count(data, at)
        return found, at

    return read


def _skip_array(item: _Skip) -> _Skip:
    def skip(data: bytes, at: int) -> int:
        count, at = zigzag(data, at)
        while count:
            if count < 0:
                _, at = _bytes(data, at)
            else:
                for _ in range(count):
                    at = item(data, at)
            count, at = zigzag(data, at)
        return at

    return skip


def _skip_record(skips: list[_Skip]) -> _Skip:
    def skip(data: bytes, at: int) -> int:
        for step in skips:
            at = step(data, at)
        return at

    return skip
