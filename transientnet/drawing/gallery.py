"""The night's candidates as a contact sheet: one page to sort, look at, mark and note, thousands of rows."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from ..triplet import QualityFlag, Triplet
from .jpeg import jpeg_head, jpeg_pixels
from .stamps import FIELD, MISSING, PALETTE, encode_png, panels

__all__ = ["FLAG_WORDS", "GalleryWriter"]

SIDE, TILE = 63, 64
"""Pixels of each stamp in the sheet, and of its place in a picture: a multiple of JPEG's blocks."""

_COARSENESS = (1.0, 1.8, 3.0)
#: Bytes of a picture beyond which it is coded more coarsely: ten thousand stay under 40 MB.
_BUDGET = 2700
_PART = 100
"""Candidates of which the page holds the facts in one piece."""

FLAG_WORDS: Mapping[QualityFlag, str] = {
    QualityFlag.UNREADABLE: "could not be read",
    QualityFlag.BLANK: "blank",
    QualityFlag.TOO_SMALL: "stamp too small",
    QualityFlag.OFF_CHIP: "target not observed",
    QualityFlag.MISSING_REQUIRED: "lacks a stamp that the model needs",
    QualityFlag.FAILED: "scoring failed",
    QualityFlag.MISSING_REFERENCE: "no reference",
    QualityFlag.MISSING_DIFFERENCE: "no difference",
    QualityFlag.MASKED: "some pixels missing",
    QualityFlag.PADDED: "field not covered",
    QualityFlag.RESAMPLED: "resampled",
    QualityFlag.FWHM_ESTIMATED: "seeing estimated",
    QualityFlag.FWHM_ASSUMED: "seeing unknown",
    QualityFlag.OUT_OF_DISTRIBUTION: "unlike the training data",
}
"""What each flag means, in a few words."""


class GalleryWriter:
    """Writes the sheet candidate by candidate, with constant memory; a context manager.

    Parameters
    ----------
    path : path
        ``.html``; it appears when the writer closes without an error.
    classes : sequence of str
    title : str
    """

    def __init__(self, path: str | os.PathLike[str], classes: Sequence[str], title: str = "Candidates"):
        self.path, self.classes, self.title = Path(path), tuple(classes), title
        if self.path.suffix.lower() not in (".html", ".htm"):
            raise UsageError(f"a gallery is a web page: {str(path)!r} must end in .html")
        self._temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        self._stream: IO[str] = open(self._temporary, "w", encoding="utf-8")  # noqa: SIM115
        self._night = hashlib.sha256(usedforsecurity=False)
        self._rows: list[list[Any]] = []
        #: The pictures wait for the facts of all: the page shows those first, and the best pictures next.
        self._pictures: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        #: Of each candidate: rank (the best lowest), place of its picture and length.
        self._places: list[tuple[float, int, int]] = []
        self._end = 0
        self._sources: dict[str, int] = {}
        self._stream.write(
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<title>{escape(title)}</title><link rel="icon" href="data:,"><style>{_static("gallery.css")}'
            f"</style></head><body><header><h1>{escape(title)}</h1>{_static('gallery.html')}"
        )

    def add(
        self,
        triplets: Sequence[Triplet],
        probabilities: npt.NDArray[np.float32],
        quality: npt.NDArray[np.uint16],
    ) -> None:
        """Append candidates.

        Parameters
        ----------
        triplets : sequence of Triplet, length N
        probabilities : ndarray of float32, shape (N, K)
            NaN where there is none.
        quality : ndarray of uint16, shape (N,)
            `QualityFlag` bits.
        """
        for triplet, row, bits in zip(triplets, probabilities.tolist(), quality.tolist(), strict=True):
            p = [None if value != value else round(value, 4) for value in row]
            source = self._sources.setdefault(_script_safe(_files(triplet)), len(self._sources))
            self._rows.append([triplet.id, source, p, bits, _facts(triplet)])
            picture = _picture(triplet).encode("ascii")
            self._pictures.write(picture)
            self._places.append((self._rank(p), self._end, len(picture)))
            self._end += len(picture)
            self._night.update(f"{triplet.id}\n".encode("utf-8", "surrogatepass"))
            if len(self._rows) == _PART:
                self._flush()

    def close(self) -> None:
        """Finish the page and put it in its place."""
        self._flush()
        order = sorted(range(len(self._places)), key=lambda k: (self._places[k][0], k))
        facts = {
            "order": order,
            "part": _PART,
            "classes": self.classes,
            "flags": [[int(flag), text] for flag, text in FLAG_WORDS.items()],
            "heads": [_base64(jpeg_head(TILE, 3 * TILE, level)) for level in _COARSENESS],
            "name": self.path.stem,
            "night": self._night.hexdigest()[:16],
        }
        script = f'"use strict";\nconst K = {_script_safe(facts)};\n{_static("gallery.js")}'
        self._stream.write(f"<script>{script}</script>\n")
        for first in range(0, len(order), _PART):
            lines = "\n".join(self._picture(k) for k in order[first : first + _PART])
            self._stream.write(f'<script type="text/plain" class="pictures">\n{lines}\n</script>\n')
        self._stream.write("</body></html>\n")
        self._stream.close()
        self._pictures.close()
        os.replace(self._temporary, self.path)

    def _flush(self) -> None:
        if self._rows:
            part = f'{{"sources":[{",".join(self._sources)}],"rows":{_script_safe(self._rows)}}}'
            self._stream.write(f'<script type="application/json" class="part">{part}</script>\n')
        self._rows, self._sources = [], {}

    def _rank(self, p: Sequence[float | None]) -> float:
        """Of a candidate's probabilities, as the page sorts at first; those without any come last."""
        values = [value for value in p if value is not None]
        if len(values) < len(self.classes):
            return 1.0
        return values[self.classes.index("bogus")] - 1 if "bogus" in self.classes else -max(values)

    def _picture(self, number: int) -> str:
        _, start, length = self._places[number]
        self._pictures.seek(start)
        return self._pictures.read(length).decode("ascii")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._stream.close()
            self._pictures.close()
            self._temporary.unlink(missing_ok=True)


def _static(name: str) -> str:
    return (resources.files(__package__) / "static" / name).read_text(encoding="utf-8")


def _script_safe(value: object) -> str:
    """JSON that cannot end the script it stands in, whatever a candidate is called."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _files(triplet: Triplet) -> dict[str, str]:
    """Columns of a label table that name the candidate's file, or its three; absolute, for any folder."""
    own = {"path": triplet.source} if triplet.source else {}
    files: Mapping[str, str] = triplet.meta.get("files") or own
    return {name: os.path.abspath(path) if os.path.exists(path) else path for name, path in files.items()}


def _facts(triplet: Triplet) -> dict[str, Any]:
    """What else is known of a candidate; without an entry where it is not."""
    meta = triplet.meta
    digits = {"ra": 6, "dec": 6, "magnitude": 3, "snr": 2, "north": 1, "east": 1}
    found: dict[str, Any] = {
        name: round(float(value), digits[name])
        for name in digits
        if isinstance(value := meta.get(name), (int, float)) and math.isfinite(value)
    }
    found |= {name: str(meta[name]) for name in ("band", "survey", "error") if meta.get(name) is not None}
    if triplet.group:
        found["group"] = triplet.group
    if meta.get("is_positive") is not None:
        found["positive"] = bool(meta["is_positive"])
    if triplet.pixel_scale and triplet.science.size:
        found["across"] = round(triplet.pixel_scale * max(triplet.science.shape), 4)
    if absent := [k for k, stamp in enumerate(triplet.stamps) if stamp is None or not stamp.size]:
        found["absent"] = absent
    # The user's own sampling has to be given to `adapt` again.
    given = {n: getattr(triplet, n) for n in ("pixel_scale", "fwhm") if meta.get(f"{n}_from") == "user"}
    return {**found, "given": given} if given else found


def _picture(triplet: Triplet) -> str:
    """Coarseness, grey pixels, and where there are any missing ones, as the page takes them apart."""
    shown = [
        np.full((SIDE, SIDE), FIELD, np.uint8) if panel is None else panel[::-1]
        for panel in panels(triplet, SIDE)
    ]
    tile = np.concatenate([np.pad(panel, ((0, 1), (0, 1)), mode="edge") for panel in shown], axis=1)
    missing, grey = tile == MISSING, PALETTE[tile][:, :, 0]
    if (tile == FIELD).all():
        return ""
    if missing.any():
        # Under the paint lies what is cheap to code.
        grey = np.where(missing, np.uint8(np.median(grey[~missing])) if not missing.all() else 128, grey)
    level, pixels = 0, jpeg_pixels(grey, _COARSENESS[0])
    while len(pixels) > _BUDGET and level + 1 < len(_COARSENESS):
        level += 1
        pixels = jpeg_pixels(grey, _COARSENESS[level])
    mask = f" {_base64(encode_png(np.where(missing, MISSING, FIELD), FIELD))}" if missing.any() else ""
    return f"{level} {_base64(pixels)}{mask}"
