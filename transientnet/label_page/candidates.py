"""The candidates to label: where they lie, how they look on the page, and what the model makes of them."""

from __future__ import annotations

import json
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import EmptyInputError
from ..models.classifier import BATCH_SIZE, Classifier
from ..prepare.missing import background, observed
from ..prepare.preprocess import preprocess
from ..triplet import CHANNELS, QualityFlag, Triplet

__all__ = ["Candidate", "Candidates", "Judgement", "pack_stamps"]

FIELD = 127
"""Larger stamps are cropped to this side around the target for the page; the model sees all of it."""

BLANK_PIXEL = -32768
_MAX_CODE = 32767
_NUMBERS = ("magnitude", "snr", "ra", "dec", "jd")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One candidate as the label table names it.

    ``files`` has a path for ``path``, or one for each of ``science``, ``reference``, ``difference``
    where the stamps lie in a file each; relative to the table's folder where they are inside it.
    ``pixel_scale`` and ``fwhm`` are those that the user gave, not those of the file.
    """

    id: str
    files: Mapping[str, str]
    group: str
    quality: int
    details: Mapping[str, Any] = field(default_factory=dict)
    pixel_scale: float | None = None
    fwhm: float | None = None

    @property
    def row(self) -> dict[str, Any]:
        """What the label table has to say of the candidate."""
        return {
            "files": dict(self.files),
            "id": self.id,
            "group": self.group,
            "pixel_scale": self.pixel_scale,
            "fwhm": self.fwhm,
        }

    @property
    def key(self) -> str:
        """What the journal knows the candidate by, from one run to the next."""
        return f"{self.files.get('path') or self.files['science']}\n{self.id}"


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """What one model thinks: probabilities (N, K), NaN where unusable, and features (N, F)."""

    model: str
    classes: tuple[str, ...]
    probabilities: npt.NDArray[np.float32]
    features: npt.NDArray[np.float32]


class Candidates:
    """All candidates of a labelling run. The stamps wait in an unnamed file, not in memory.

    Parameters
    ----------
    sources : sequence of str
        Files, globs or folders, as `open_triplets` takes them.
    folder : Path
        Where the label table lies.
    classifier : Classifier
        Orders the queue, and gives its opinion when asked.
    options : mapping
        ``layout``, ``pixel_scale``, ``fwhm`` for `open_triplets`.
    progress : callable, optional
        Called with the number of candidates read so far.

    Attributes
    ----------
    items : list of Candidate
    unreadable : list of str
        A line for each candidate that was left out.

    Raises
    ------
    EmptyInputError
        Not one candidate could be read.
    """

    def __init__(
        self,
        sources: Sequence[str],
        folder: Path,
        classifier: Classifier,
        options: Mapping[str, Any],
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self._sources = list(sources)
        self._options = dict(options)
        self._companions = _companions(self._sources, options.get("layout"))
        self._folder = folder.resolve()
        self._spool = tempfile.TemporaryFile(prefix="transientnet-label-")  # noqa: SIM115 (lives as long as we)
        self._places: list[tuple[int, int]] = []
        self.items: list[Candidate] = []
        self.unreadable: list[str] = []
        try:
            self.judgement = self._read(classifier, progress)
            if not self.items:
                reasons = "; ".join(self.unreadable[:3])
                raise EmptyInputError(f"none of the candidates could be read: {reasons or 'there is none'}")
        except BaseException:
            self.close()
            raise
        self.index = {candidate.key: row for row, candidate in enumerate(self.items)}

    def __len__(self) -> int:
        return len(self.items)

    def close(self) -> None:
        """Let go of the stamps."""
        self._spool.close()

    def stamps(self, row: int) -> bytes:
        """The stamps of a candidate, as `pack_stamps` made them."""
        start, length = self._places[row]
        self._spool.seek(start)
        return self._spool.read(length)

    def ambiguous(self) -> list[str]:
        """Ids that several candidates of one file share: a table cannot distinguish these."""
        counts = Counter(candidate.key for candidate in self.items)
        return [key.split("\n")[1] for key, count in counts.items() if count > 1]

    def judge(self, classifier: Classifier) -> Judgement:
        """Ask another model about the same candidates; those no longer there keep NaN."""
        parts = [
            (self.index.get(self._describe(triplet, int(quality)).key), p, f)
            for batch in self._batches()
            for triplet, quality, p, f in zip(batch, *_ask(classifier, batch), strict=True)
        ]
        known = [(row, p, f) for row, p, f in parts if row is not None]
        width = max((f.shape[0] for _, _, f in known), default=0)
        probabilities = np.full((len(self), len(classifier.classes)), np.nan, np.float32)
        features = np.zeros((len(self), width), np.float32)
        for row, p, f in known:
            probabilities[row], features[row] = p, f
        return Judgement(classifier.record.id, classifier.classes, probabilities, features)

    def _read(self, classifier: Classifier, progress: Callable[[int], None] | None) -> Judgement:
        answers: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]] = []
        end = 0
        for batch in self._batches():
            quality, probabilities, features = _ask(classifier, batch)
            for triplet, flags in zip(batch, quality, strict=True):
                self.items.append(self._describe(triplet, int(flags)))
                packed = pack_stamps(triplet)
                self._spool.write(packed)
                self._places.append((end, len(packed)))
                end += len(packed)
            answers.append((probabilities, features))
            if progress is not None:
                progress(len(self.items))
        self._spool.flush()
        return Judgement(
            classifier.record.id,
            classifier.classes,
            np.concatenate([p for p, _ in answers]) if answers else np.zeros((0, 0), np.float32),
            np.concatenate([f for _, f in answers]) if answers else np.zeros((0, 0), np.float32),
        )

    def _batches(self) -> Iterator[list[Triplet]]:
        from ..readers.open import open_triplets

        self.unreadable = []

        def readable() -> Iterator[Triplet]:
            for triplet in open_triplets(self._sources, **self._options):
                if triplet.error is None:
                    yield triplet
                else:
                    self.unreadable.append(f"{triplet.source or triplet.id}: {triplet.error}")

        iterator = readable()
        while batch := list(islice(iterator, BATCH_SIZE)):
            yield batch

    def _describe(self, triplet: Triplet, quality: int) -> Candidate:
        paths = self._companions.get(triplet.source) or {"path": triplet.source}
        details: dict[str, float | str] = {
            name: float(value)
            for name in _NUMBERS
            if isinstance(value := triplet.meta.get(name), (int, float)) and math.isfinite(value)
        }
        details |= {n: str(triplet.meta[n]) for n in ("survey", "band") if triplet.meta.get(n) is not None}
        details |= {n: float(v) for n in ("pixel_scale", "fwhm") if (v := getattr(triplet, n)) is not None}
        return Candidate(
            triplet.id,
            {channel: self._from_folder(path) for channel, path in paths.items()},
            triplet.group or "",
            quality,
            details,
            self._options.get("pixel_scale"),
            self._options.get("fwhm"),
        )

    def _from_folder(self, path: str) -> str:
        full = Path(path).resolve()
        return str(full.relative_to(self._folder) if full.is_relative_to(self._folder) else full)


def _companions(sources: Sequence[str], layout: str | None) -> dict[str, Mapping[str, str]]:
    """Files of the candidates whose stamps lie in a file each, by the one that they are named after."""
    from ..readers.grouping import group_files
    from ..readers.layouts import load_layout
    from ..readers.sources import StampFiles, expand

    grouped = group_files(expand(sources), load_layout(layout))
    found = (item for item in grouped if isinstance(item, StampFiles))
    return {item.paths["science"]: item.paths for item in found if "science" in item.paths}


def _ask(
    classifier: Classifier, batch: Sequence[Triplet]
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Quality (N,), probabilities (N, K) and features (N, F); logits stand in for absent features."""
    tensor, quality, usable = preprocess(batch, classifier.contract)
    outputs = classifier.run(tensor)
    probabilities = classifier.probabilities(outputs[0])
    probabilities[~usable] = np.nan
    return quality, probabilities, outputs[-1].reshape(len(batch), -1)


def pack_stamps(triplet: Triplet) -> bytes:
    """Stamps in the form that the page draws from.

    Pixels are sent as asinh((x - median) / noise) in 16 bits, so that any stretch can be made on the
    page: the step is far below the noise near the sky level, and a few parts in ten thousand of a
    bright source. The page undoes it.

    Returns
    -------
    bytes
        Length of the header (uint32), the header (JSON: one entry per channel, null if absent), and
        the pixels (int16, little-endian, row by row; ``BLANK_PIXEL`` where missing).
    """
    header: list[dict[str, Any] | None] = []
    pixels = b""
    for name, stamp in zip(CHANNELS, triplet.stamps, strict=True):
        image = None if stamp is None else _cropped(stamp)
        if image is None:
            header.append(None)
            continue
        finite = np.isfinite(image)
        values = image[finite]
        middle, noise = background(image)
        stretched = np.arcsinh(np.where(finite, (image - middle) / noise, 0.0))
        scale = max(float(np.abs(stretched).max()), 1e-3) / _MAX_CODE
        codes = np.where(finite, np.rint(stretched / scale), BLANK_PIXEL).astype("<i2")
        header.append(
            {
                "channel": name,
                "shape": image.shape,
                "scale": scale,
                "zscale": _zscale((values - middle) / noise),
                "offset": len(pixels),
            }
        )
        pixels += codes.tobytes()
    text = json.dumps(header).encode()
    # Pixels start at an even address: the page lays an Int16Array over them.
    text += b" " * (len(text) % 2)
    return len(text).to_bytes(4, "little") + text + pixels


def _cropped(stamp: npt.NDArray[Any]) -> npt.NDArray[np.float64] | None:
    image = observed(stamp)
    if not image.size:
        return None
    rows, columns = (slice(max(0, (n - FIELD) // 2), max(0, (n - FIELD) // 2) + FIELD) for n in image.shape)
    cropped: npt.NDArray[np.float64] = image[rows, columns]
    return cropped


def _zscale(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    from astropy.visualization import ZScaleInterval

    if values.size < 2 or not np.ptp(values) > 0:
        return (-1.0, 1.0)
    low, high = ZScaleInterval().get_limits(values)
    return (float(low), float(high))


def unusable(candidate: Candidate) -> bool:
    """Whether the model refuses to score the candidate."""
    return bool(candidate.quality & QualityFlag.UNUSABLE)
