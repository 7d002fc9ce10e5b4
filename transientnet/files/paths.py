"""Names of files: what one is called without its endings, and whether a path stays in its folder."""

from __future__ import annotations

import os
import re
from pathlib import Path

__all__ = ["is_inside", "stem"]

_ENDING = re.compile(r"\.(?:gz|fz|fits?|fts|npy|avro|parquet|npz|h5|hdf5?|jsonl?|tar|tgz)$", re.IGNORECASE)


def is_inside(path: str) -> bool:
    """True for a relative path that stays in its folder, with ``/`` alone between the parts."""
    parts = path.split("/")
    return (
        0 < len(path) <= 255
        and path.isprintable()
        and not set("\\:") & set(path)
        and not any(part in ("", ".", "..") for part in parts)
    )


def stem(path: str | Path) -> str:
    """File name without its endings: ``x.fits.fz`` and ``x.fits.gz`` are ``x``."""
    name = os.path.basename(path)
    while (shorter := _ENDING.sub("", name)) not in ("", name):
        name = shorter
    return name
