"""JSON without exceptions: no NaN, no key twice, and objects that hold the expected fields alone."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

from ..errors import ContractError

__all__ = ["dump_json", "fields_of", "parse_json", "plain"]


def parse_json(text: str | bytes, where: str) -> Any:
    """Parse strict JSON: no NaN, no key twice, no bottomless nesting; raises `ContractError`."""

    def refuse_constant(name: str) -> Any:
        raise ValueError(f"{name} is not JSON")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("an object has the same key twice")
        return dict(pairs)

    try:
        return json.loads(text, parse_constant=refuse_constant, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise ContractError(f"{where}: not valid JSON ({error})") from error


def fields_of(cls: type, data: Any, where: str) -> dict[str, Any]:
    """Check that `data` is an object with known keys only, and give it as keyword arguments."""
    if not isinstance(data, Mapping):
        raise ContractError(f"{where}: expected an object, got {type(data).__name__}")
    known = {f.name for f in dataclasses.fields(cls)}
    unknown = sorted(set(data) - known)
    if unknown:
        raise ContractError(
            f"{where}: unknown field(s) {', '.join(unknown)}; if the model is new, upgrade transientnet"
        )
    return dict(data)


def plain(value: Any) -> Any:
    """Dataclasses, mappings and sequences as the plain types that JSON knows."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def dump_json(value: Any, indent: int | None = 1) -> str:
    """JSON of plain types, arrays' scalars and dataclasses; a number that is not finite becomes null."""
    return json.dumps(_finite(plain(value)), indent=indent, allow_nan=False, ensure_ascii=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
