"""Read an ONNX file without running it, and refuse what a network of stamps never needs.

An ONNX file is a protocol buffer. This walk visits every message of it once, with bounds, and
refuses whatever could make a runtime read another file or run other code: external data, operators
outside the standard domain (vendors' operators load libraries and paths), local functions, control
flow, training graphs, and any field that is not in the ONNX schema as known here. onnxruntime sees
a file only after it has passed.

Source: onnx/onnx.proto, IR version 13.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ...errors import ContractError, ModelIntegrityError, ModelNotFoundError, ModelUnavailableError
from ..record import METADATA_KEY

__all__ = ["MAX_ONNX_BYTES", "onnx_metadata", "read_bounded"]

MAX_ONNX_BYTES = 256 * 2**20
"""Larger files are refused unread: a network of stamps holds a few megabytes."""

_MAX_FIELDS = 1_000_000
_MAX_KEY = 2**32
_STANDARD_DOMAINS = (b"", b"ai.onnx")
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# Per message: number of each field that is harmless whatever it holds, and per message field the
# message in it. A field that stands in neither is refused.
_PLAIN = {
    "model": {1, 2, 3, 4, 5, 6},
    "graph": {2, 10, 11, 12, 13, 14, 16},
    "node": {1, 2, 3, 4, 6, 8, 9},
    "attribute": {1, 2, 3, 4, 7, 8, 9, 13, 14, 15, 20},
    "tensor": {1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 16},
    "sparse": {3},
    "opset": {2},
    "property": {1, 2},
}
_MESSAGES = {
    "model": {7: "graph", 8: "opset", 14: "property"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 10: "tensor", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
# Fields whose value decides, and how they must be written.
_DECIDING = {("node", 7): _BYTES, ("opset", 1): _BYTES, ("tensor", 14): _VARINT}
_REFUSED = {
    ("model", 20): "a training graph",
    ("model", 25): "local functions",
    ("attribute", 6): "control flow",
    ("attribute", 11): "control flow",
    ("attribute", 21): "local functions",
    ("tensor", 3): "a segmented tensor",
    ("tensor", 13): "external data: weights in another file",
}


class _Refused(Exception):
    pass


def read_bounded(path: Path, limit: int) -> bytes:
    """Whole content of a file of at most `limit` bytes."""
    try:
        with open(path, "rb") as stream:
            data = stream.read(limit + 1)
    except FileNotFoundError as error:
        raise ModelNotFoundError(f"no file at {path}") from error
    except OSError as error:
        raise ModelUnavailableError(f"cannot read {path}: {error.strerror or error}") from error
    if len(data) > limit:
        raise ModelIntegrityError(f"{path}: larger than {limit} bytes, the most that is accepted")
    return data


def onnx_metadata(data: bytes, where: str) -> str:
    """Check an ONNX file's bytes, and give the record in its metadata as JSON text.

    Parameters
    ----------
    data : bytes
    where : str
        Name of the file, for messages.

    Raises
    ------
    ModelIntegrityError
        If the bytes are not an ONNX model, or hold something that is refused.
    ContractError
        If the model carries no record of this package.
    """
    try:
        found = _Walk(memoryview(data)).metadata()
    except _Refused as error:
        raise ModelIntegrityError(f"{where}: {error}; not loaded") from error
    texts = [value for key, value in found if key == METADATA_KEY.encode()]
    if len(texts) != 1:
        raise ContractError(
            f"{where}: the ONNX metadata holds {len(texts)} {METADATA_KEY!r} records instead of one: "
            "export the model with transientnet"
        )
    try:
        return texts[0].decode()
    except UnicodeDecodeError as error:
        raise ContractError(f"{where}: the ONNX metadata is not UTF-8") from error


class _Walk:
    """One pass over a model; depth is bounded by the schema, length by a count of fields."""

    def __init__(self, data: memoryview):
        self.data = data
        self.left = _MAX_FIELDS
        self.graphs = 0

    def metadata(self) -> list[tuple[bytes, bytes]]:
        """Check the whole model and collect its metadata properties."""
        properties = []
        for number, _, start, stop in self._fields("model", 0, len(self.data)):
            if number == 14:
                pair = {1: b"", 2: b""}
                for key, _, low, high in self._fields("property", start, stop):
                    pair[key] = bytes(self.data[low:high])
                properties.append((pair[1], pair[2]))
            elif kind := _MESSAGES["model"].get(number):
                self.graphs += kind == "graph"
                self._check(kind, start, stop)
        if not self.graphs:
            raise _Refused("not an ONNX model")
        return properties

    def _check(self, message: str, start: int, stop: int) -> None:
        for number, value, low, high in self._fields(message, start, stop):
            if (message, number) in (("node", 7), ("opset", 1)):
                domain = bytes(self.data[low:high])
                if domain not in _STANDARD_DOMAINS:
                    name = domain[:40].decode(errors="replace")
                    raise _Refused(f"holds operators of the domain {name!r}")
            elif (message, number) == ("tensor", 14):
                if value != 0:
                    raise _Refused("holds external data: weights in another file")
            elif kind := _MESSAGES.get(message, {}).get(number):
                self._check(kind, low, high)

    def _fields(self, message: str, at: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
        """Each field as (number, value of a varint, start, stop of its bytes)."""
        while at < stop:
            self.left -= 1
            if self.left < 0:
                raise _Refused(f"more than {_MAX_FIELDS} fields")
            key, at = self._varint(at, stop)
            number, wire = key >> 3, key & 7
            if wire == _VARINT:
                value, end = self._varint(at, stop)
            elif wire == _BYTES:
                value, at = self._varint(at, stop)
                end = at + value
            elif wire in (_FIXED64, _FIXED32):
                value, end = 0, at + (8 if wire == _FIXED64 else 4)
            else:
                raise _Refused("not an ONNX model")
            if end > stop or not 8 <= key < _MAX_KEY:
                raise _Refused("not an ONNX model, or cut short")
            if reason := _REFUSED.get((message, number)):
                raise _Refused(f"holds {reason}")
            nested = number in _MESSAGES.get(message, {})
            written = _BYTES if nested else _DECIDING.get((message, number))
            if written is None and number not in _PLAIN[message]:
                raise _Refused(f"holds an unknown field ({message} {number})")
            if written not in (None, wire):
                raise _Refused("not an ONNX model")
            yield number, value, at, end
            at = end

    def _varint(self, at: int, stop: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if at >= stop:
                raise _Refused("not an ONNX model, or cut short")
            byte = self.data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
        raise _Refused("not an ONNX model")
