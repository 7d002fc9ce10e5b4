"""``score --gallery`` and ``score --explain``: pictures of what is being scored."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from ..models.classifier import Classifier
    from ..results.predictions import Predictions
    from ..triplet import Triplet

__all__ = ["Pictures"]


class Pictures:
    """Keeps the triplets between reading and scoring, and draws each when its row comes.

    Parameters
    ----------
    classifier : Classifier
    gallery : Path or None
        One web page with every candidate.
    explain : Path or None
        A folder, for one picture per usable candidate: its stamps and what the answer rests on.
    """

    def __init__(self, classifier: Classifier, gallery: Path | None, explain: Path | None) -> None:
        from ..drawing.gallery import GalleryWriter

        self._classifier, self._explain = classifier, explain
        self._waiting: deque[Triplet] = deque()
        self._count = 0
        self._open = ExitStack()
        self._gallery = (
            None
            if gallery is None
            else GalleryWriter(gallery, classifier.classes, f"Candidates, {classifier.record.id}")
        )
        if explain is not None:
            explain.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        if self._gallery is not None:
            self._open.enter_context(self._gallery)
        return self

    def __exit__(self, *reason: object) -> None:
        self._open.__exit__(*reason)  # type: ignore[arg-type]

    def tap(self, triplets: Iterable[Triplet]) -> Iterator[Triplet]:
        """The same triplets, remembered until their rows are added."""
        for triplet in triplets:
            self._waiting.append(triplet)
            yield triplet

    def add(self, predictions: Predictions) -> None:
        """Draw the next rows; they come in the order of the triplets."""
        triplets = [self._waiting.popleft() for _ in range(len(predictions))]
        if self._gallery is not None:
            self._gallery.add(triplets, predictions)
        for triplet, row in zip(triplets, predictions, strict=True):
            self._count += 1
            if self._explain is not None and row.label:
                name = re.sub(r"[^A-Za-z0-9._-]+", "_", row.id).strip(".") or "candidate"
                path = self._explain / f"{self._count:05d}_{name[:80]}.png"
                self._classifier.explain(triplet).plot(path)
