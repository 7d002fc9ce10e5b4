"""The candidates to label: where they lie, how they look on the page, and what the model makes of them."""

from __future__ import annotations

import json
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import EmptyInputError, TransientnetError
from ..models.classifier import BATCH_SIZE, Classifier
from ..prepare.missing import background, observed
from ..prepare.preprocess import preprocess
from ..readers.history import Measurement, history
from ..triplet import CHANNELS, Triplet

__all__ = ["Candidate", "Candidates", "Judgement", "pack_stamps"]

FIELD = 127
"""Larger stamps are cropped to this side around the target for the page; the model sees all of it."""

BLANK_PIXEL = -32768
_MAX_CODE = 32767
#: Bytes of stamps that are written at a time.
_SPOOLED = 2**20
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
    details: Mapping[str, Any] = field(default_factory=dict)
    pixel_scale: float | None = None
    fwhm: float | None = None
    #: The file that it was read from, and its place among the candidates of that file.
    place: tuple[str, int] = ("", 0)

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
    """What one model thinks.

    Probabilities (N, K), NaN where unusable; features (N, F); quality (N,), `QualityFlag` bits.
    """

    model: str
    classes: tuple[str, ...]
    probabilities: npt.NDArray[np.float32]
    features: npt.NDArray[np.float32]
    quality: npt.NDArray[np.uint16]


class Candidates:
    """All candidates of a labelling run. The stamps wait in an unnamed file, not in memory.

    Parameters
    ----------
    sources : sequence of str
        Files, globs or folders, as `open_triplets` takes them.
    folder : Path
        Where the label table lies.
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
        options: Mapping[str, Any],
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self._options = dict(options)
        self._companions = _companions(sources, options.get("layout"))
        self._folder = folder.resolve()
        self._spool = tempfile.TemporaryFile(buffering=_SPOOLED, prefix="transientnet-label-")  # noqa: SIM115 (lives as long as we)
        # Stamps are fetched in one thread while a model judges in another.
        self._reading = Lock()
        #: For each stamp of each candidate: place in the file, shape and dtype; None where there is none.
        self._places: list[list[tuple[int, tuple[int, ...], np.dtype[Any]] | None]] = []
        self._names: dict[str, str] = {}
        self.items: list[Candidate] = []
        self.unreadable: list[str] = []
        try:
            self._read(sources, progress)
            if not self.items:
                reasons = "; ".join(self.unreadable[:3])
                raise EmptyInputError(f"none of the candidates could be read: {reasons or 'there is none'}")
        except BaseException:
            self.close()
            raise
        #: Of each candidate, `Candidate.key`.
        self.keys = [candidate.key for candidate in self.items]
        self.index = {key: row for row, key in enumerate(self.keys)}

    def __len__(self) -> int:
        return len(self.items)

    def close(self) -> None:
        """Let go of the stamps."""
        self._spool.close()

    def triplet(self, row: int) -> Triplet:
        """Stamps, pixel scale and FWHM of a candidate."""
        stamps: list[npt.NDArray[Any] | None] = []
        for place in self._places[row]:
            if place is None:
                stamps.append(None)
                continue
            start, shape, dtype = place
            with self._reading:
                self._spool.seek(start)
                data = self._spool.read(math.prod(shape) * dtype.itemsize)
            stamps.append(np.frombuffer(data, dtype).reshape(shape))
        item = self.items[row]
        science, reference, difference = stamps
        assert science is not None
        return Triplet(
            science,
            reference,
            difference,
            id=item.id,
            pixel_scale=item.details.get("pixel_scale"),
            fwhm=item.details.get("fwhm"),
        )

    def history(self, row: int) -> list[Measurement]:
        """The light curve that the candidate's packet brings along; empty where there is none."""
        item = self.items[row]
        try:
            return history(*item.place, self._options.get("layout"), str(item.details.get("survey", "")))
        except (TransientnetError, OSError):
            # The stamps were read before the file went; without its light curve they can be judged.
            return []

    def ambiguous(self) -> list[str]:
        """Ids that several candidates of one file share: a table cannot distinguish these."""
        counts = Counter(self.keys)
        return [key.split("\n")[1] for key, count in counts.items() if count > 1]

    def judge(self, classifier: Classifier) -> Judgement:
        """Ask a model about all candidates."""
        parts = []
        for first in range(0, len(self), BATCH_SIZE):
            rows = range(first, min(first + BATCH_SIZE, len(self)))
            tensor, quality, usable = preprocess([self.triplet(row) for row in rows], classifier.contract)
            outputs = classifier.run(tensor)
            probabilities = classifier.probabilities(outputs[0])
            probabilities[~usable] = np.nan
            # Logits stand in for absent features.
            parts.append((quality, probabilities, outputs[-1].reshape(len(rows), -1)))
        quality, probabilities, features = (np.concatenate(part) for part in zip(*parts, strict=True))
        return Judgement(classifier.record.id, classifier.classes, probabilities, features, quality)

    def unjudged(self) -> Judgement:
        """What is thought of the candidates before a model has seen them: nothing."""
        n = len(self)
        nothing = np.full((n, 1), np.nan, np.float32)
        return Judgement("", (), nothing, np.zeros((n, 1), np.float32), np.zeros(n, np.uint16))

    def _read(self, sources: Sequence[str], progress: Callable[[int], None] | None) -> None:
        from ..readers.open import open_triplets

        end = 0
        seen: Counter[str] = Counter()
        for triplet in open_triplets(sources, **self._options):
            place = triplet.source, seen[triplet.source]
            seen[triplet.source] += 1
            if triplet.error is not None:
                self.unreadable.append(f"{triplet.source or triplet.id}: {triplet.error}")
                continue
            places: list[tuple[int, tuple[int, ...], np.dtype[Any]] | None] = []
            for stamp in triplet.stamps:
                if stamp is None:
                    places.append(None)
                    continue
                data = np.ascontiguousarray(stamp)
                self._spool.write(data.data if data.size else b"")
                places.append((end, data.shape, data.dtype))
                end += data.nbytes
            self._places.append(places)
            self.items.append(self._describe(triplet, place))
            if progress is not None and len(self.items) % 100 == 0:
                progress(len(self.items))
        self._spool.flush()

    def _describe(self, triplet: Triplet, place: tuple[str, int]) -> Candidate:
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
            details,
            self._options.get("pixel_scale"),
            self._options.get("fwhm"),
            place,
        )

    def _from_folder(self, path: str) -> str:
        if path not in self._names:
            full = Path(path).resolve()
            inside = full.is_relative_to(self._folder)
            self._names[path] = str(full.relative_to(self._folder) if inside else full)
        return self._names[path]


def _companions(sources: Sequence[str], layout: str | None) -> dict[str, Mapping[str, str]]:
    """Files of the candidates whose stamps lie in a file each, by the one that they are named after."""
    from ..readers.grouping import group_files
    from ..readers.layouts import load_layout
    from ..readers.sources import StampFiles, expand

    grouped = group_files(expand(sources), load_layout(layout))
    found = (item for item in grouped if isinstance(item, StampFiles))
    return {item.paths["science"]: item.paths for item in found if "science" in item.paths}


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
