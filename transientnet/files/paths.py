"""Paths that come from a file: they must stay in their folder."""

from __future__ import annotations

__all__ = ["is_inside"]


def is_inside(path: str) -> bool:
    """True for a relative path that stays in its folder, with ``/`` alone between the parts."""
    parts = path.split("/")
    return (
        0 < len(path) <= 255
        and path.isprintable()
        and not set("\\:") & set(path)
        and not any(part in ("", ".", "..") for part in parts)
    )
