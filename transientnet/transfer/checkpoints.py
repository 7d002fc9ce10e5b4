"""Finished folds on disk, so that a killed run goes on where it stood."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..files.atomic import replacing
from .training import Weights

__all__ = ["CHECKPOINTS", "Checkpoints", "fingerprint"]

CHECKPOINTS = ".checkpoints"
"""Folder of checkpoints in the output folder."""


def fingerprint(*parts: Any) -> str:
    """Name of a training: everything that changes the trained weights, and nothing else, goes in."""
    digest = hashlib.sha256()
    for part in parts:
        whole = np.ascontiguousarray(part).tobytes() if isinstance(part, np.ndarray) else repr(part).encode()
        digest.update(hashlib.sha256(whole).digest())
    return digest.hexdigest()[:16]


class Checkpoints:
    """Folds that one training has finished; those of other trainings are removed.

    Parameters
    ----------
    folder : Path
        Of checkpoints; made if absent. One process at a time may use it.
    training : str
        From `fingerprint`.
    """

    def __init__(self, folder: Path, training: str) -> None:
        self.folder = folder / training
        self.folder.mkdir(parents=True, exist_ok=True)
        for other in folder.iterdir():
            if other != self.folder:
                shutil.rmtree(other, ignore_errors=True)

    def _path(self, fold: int) -> Path:
        return self.folder / f"fold-{fold}.npz"

    def read(self, fold: int) -> list[Weights] | None:
        """The weights kept of a fold; None if it was not finished, or its file is damaged."""
        kept: dict[int, Weights] = {}
        try:
            with np.load(self._path(fold), allow_pickle=False) as arrays:
                for key in arrays.files:
                    number, name = key.split("/", 1)
                    kept.setdefault(int(number), {})[name] = torch.from_numpy(arrays[key])
        except (OSError, ValueError, zipfile.BadZipFile):
            return None
        return [kept[number] for number in sorted(kept)]

    def write(self, fold: int, kept: list[Weights]) -> None:
        """Keep the weights of a finished fold."""
        arrays = {f"{k}/{name}": v.numpy() for k, weights in enumerate(kept) for name, v in weights.items()}
        with replacing(self._path(fold)) as temporary:
            np.savez(temporary, **arrays)  # type: ignore[arg-type]

    def clear(self) -> None:
        """Remove them all: the run is done."""
        shutil.rmtree(self.folder.parent, ignore_errors=True)
