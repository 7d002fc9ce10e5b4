"""Pictures of what a run scores: one page of all candidates, and what each answer rests on."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from ..drawing.gallery import GalleryWriter
from ..models.classifier import Classifier
from .batches import Part

__all__ = ["Pictures"]


class Pictures:
    """Draws the parts of a run that kept their triplets; a context manager.

    Parameters
    ----------
    classifier : Classifier
    gallery : Path or None
        One web page with every candidate.
    explain : Path or None
        A folder, for one picture per usable candidate: its stamps and what the answer rests on.
    """

    def __init__(self, classifier: Classifier, gallery: Path | None, explain: Path | None) -> None:
        self._classifier, self._explain = classifier, explain
        self._count = 0
        self._open = ExitStack()
        title = f"Candidates, {classifier.record.id}"
        self._gallery = None if gallery is None else GalleryWriter(gallery, classifier.classes, title)
        if explain is not None:
            explain.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        if self._gallery is not None:
            self._open.enter_context(self._gallery)
        return self

    def __exit__(self, *reason: object) -> None:
        self._open.__exit__(*reason)  # type: ignore[arg-type]

    def add(self, part: Part) -> None:
        """Draw the candidates of a part."""
        if self._gallery is not None:
            self._gallery.add(part.triplets, part.predictions.probabilities, part.predictions.quality)
        for triplet, row in zip(part.triplets, part.predictions, strict=True):
            self._count += 1
            if self._explain is not None and row.label:
                name = re.sub(r"[^A-Za-z0-9._-]+", "_", row.id).strip(".") or "candidate"
                path = self._explain / f"{self._count:05d}_{name[:80]}.png"
                self._classifier.explain(triplet).plot(path)
