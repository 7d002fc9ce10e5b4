"""The output folder of an adaptation: whose it is, and what the model in it is called. No torch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import UsageError
from ..files.locks import exclusive
from .config import AdaptConfig

__all__ = ["check_folder", "model_name", "own_folder"]

_LOCKED = "adapt"
"""What the lock in the folder is named after; it stays there and marks the folder as one of adapt's."""


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds files which no adaptation wrote.

    Raises
    ------
    UsageError
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; adapt writes a folder: name another with -o (output=)")
    names = sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) if folder.exists() else []
    if names and not (folder / f".{_LOCKED}.lock").exists() and not _written_before(folder):
        shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        raise UsageError(
            f"{folder}: holds files that adapt did not write ({shown}); name a new or empty folder with -o "
            "(output=)"
        )


def _written_before(folder: Path) -> bool:
    """Whether the folder holds the output of a version that left no lock behind."""
    try:
        return {"cross_validation", "training", "base"} <= set(
            json.loads((folder / "metrics.json").read_bytes())
        )
    except (OSError, ValueError, TypeError):
        return False


@contextmanager
def own_folder(folder: Path) -> Iterator[None]:
    """Make the output folder, and keep other adaptations out of it while the block runs.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    UsageError
        It holds other files, or another process writes to it.
    """
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    refusal = UsageError(
        f"{folder}: another adapt is writing to it; wait for its end, or name another folder"
    )
    with exclusive(folder / _LOCKED, refusal):
        yield


def model_name(config: AdaptConfig, folder: Path) -> str:
    """The new model's name: `config.name`, or the folder's, in letters that a name may have."""
    text = config.name or folder.resolve().name
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._") or "adapted"
