"""Test vectors: a few stamps with the answers that a model gave where it was made.

They travel with the weights, so that any machine can prove that it computes the same: raw stamps
and the tensor that `preprocess` makes of them (a change there shows), and the probabilities and
features of that tensor (a change of runtime, provider or hardware shows).
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import ModelIntegrityError, UsageError
from ..files.atomic import write_atomically
from ..prepare.missing import mad_noise
from ..prepare.preprocess import preprocess
from ..triplet import Triplet
from .registry.safety import read_bounded

if TYPE_CHECKING:
    from .classifier import Classifier

__all__ = ["Deviation", "run_test_vectors", "stored_triplets", "write_test_vectors"]

MAX_BYTES = 2**20
MAX_UNPACKED = 16 * MAX_BYTES
_MISSING = np.int16(-32768)
_LEVELS = 32000
_STEPS_PER_NOISE = 8.0
_ARRAYS = {"stamps", "shapes", "zero", "step", "fwhm", "tensor", "quality", "probabilities", "features"}


class Deviation(NamedTuple):
    """Largest deviation from the stored answers: ``|found - stored| / max(1, |stored|)``."""

    n: int
    tensor: float
    probabilities: float
    features: float

    @property
    def worst(self) -> float:
        """The largest of the three."""
        return max(self.tensor, self.probabilities, self.features)


def write_test_vectors(path: Path, classifier: Classifier, triplets: Sequence[Triplet]) -> Path:
    """Store stamps and the model's answers; three or four stamps make about 100 kB.

    Parameters
    ----------
    path : Path
        An ``.npz``.
    classifier : Classifier
    triplets : sequence of Triplet
        Usable ones. Their pixels are stored with eight levels per standard deviation of the noise;
        the answers are those to the stored pixels.

    Returns
    -------
    Path

    Raises
    ------
    UsageError
        If the model refuses one of them.
    """
    arrays = _quantised(triplets)
    stored = _triplets(arrays)
    prepared = preprocess(stored, classifier.contract)
    if not len(stored) or not prepared.usable.all():
        raise UsageError("test vectors must be triplets that the model scores")
    arrays |= {
        "tensor": prepared.tensor,
        "quality": prepared.quality,
        **_answers(classifier, prepared.tensor),
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_atomically(path, buffer.getvalue())
    return path


def run_test_vectors(classifier: Classifier, path: Path) -> Deviation:
    """Score stored stamps on this machine, and compare with the stored answers.

    Parameters
    ----------
    classifier : Classifier
    path : Path

    Raises
    ------
    ModelIntegrityError
        If the file is not a set of test vectors, or stamps get other quality flags than stored.
    """
    try:
        arrays = _load(path)
        stored = _triplets(arrays)
        prepared = preprocess(stored, classifier.contract)
        found = _answers(classifier, arrays["tensor"])
        deviation = Deviation(
            len(stored),
            _deviation(prepared.tensor, arrays["tensor"]),
            _deviation(found["probabilities"], arrays["probabilities"]),
            _deviation(found["features"], arrays["features"]),
        )
        same = bool((prepared.quality == arrays["quality"]).all())
    except (ValueError, KeyError, TypeError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise ModelIntegrityError(f"{path}: not a set of test vectors ({error})") from error
    if not same:
        raise ModelIntegrityError(f"{path}: the stamps get other quality flags here than stored")
    return deviation


def stored_triplets(path: Path) -> list[Triplet]:
    """The stamps of a set of test vectors.

    Raises
    ------
    ModelIntegrityError
        If the file is not a set of test vectors.
    """
    try:
        return _triplets(_load(path))
    except (ValueError, KeyError, TypeError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise ModelIntegrityError(f"{path}: not a set of test vectors ({error})") from error


def _answers(classifier: Classifier, tensor: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[Any]]:
    outputs = classifier.run(tensor)
    features = outputs[1] if len(outputs) > 1 else np.zeros((len(tensor), 0), np.float32)
    return {"probabilities": classifier.probabilities(outputs[0]), "features": features}


def _deviation(found: npt.NDArray[Any], stored: npt.NDArray[Any]) -> float:
    if found.shape != stored.shape:
        raise ValueError(f"shape {found.shape} is not {stored.shape}")
    if not found.size:
        return 0.0
    difference = np.abs(found.astype(np.float64) - stored) / np.maximum(1.0, np.abs(stored))
    worst = float(difference.max())
    return worst if np.isfinite(worst) else float("inf")


def _load(path: Path) -> dict[str, npt.NDArray[Any]]:
    data = read_bounded(path, MAX_BYTES)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if sum(item.file_size for item in archive.infolist()) > MAX_UNPACKED:
            raise ValueError(f"unpacks to more than {MAX_UNPACKED} bytes")
    with np.load(io.BytesIO(data), allow_pickle=False) as stored:
        if set(stored.files) != _ARRAYS:
            raise ValueError(f"holds {', '.join(sorted(stored.files))}")
        return {name: stored[name] for name in _ARRAYS}


def _quantised(triplets: Sequence[Triplet]) -> dict[str, npt.NDArray[Any]]:
    """All pixels in one line of int16, with shape, zero point and step per stamp."""
    pixels, shapes, zeros, steps = [], [], [], []
    for triplet in triplets:
        for stamp in triplet.stamps:
            image = np.zeros((0, 0)) if stamp is None else np.asarray(stamp, np.float64)
            seen = image[np.isfinite(image)]
            zero = float(np.median(seen)) if seen.size else 0.0
            reach = float(np.abs(seen - zero).max()) if seen.size else 0.0
            noise = mad_noise(seen, zero)
            step = max(noise / _STEPS_PER_NOISE, reach / _LEVELS) or 1.0
            levels = np.where(np.isfinite(image), np.round((image - zero) / step), _MISSING)
            pixels.append(levels.astype(np.int16).ravel())
            shapes.append(image.shape)
            zeros.append(zero)
            steps.append(step)
    return {
        "stamps": np.concatenate(pixels) if pixels else np.zeros(0, np.int16),
        "shapes": np.array(shapes, np.int32).reshape(-1, 2),
        "zero": np.array(zeros, np.float64),
        "step": np.array(steps, np.float64),
        "fwhm": np.array([np.nan if t.fwhm is None else t.fwhm for t in triplets], np.float64),
    }


def _triplets(arrays: dict[str, npt.NDArray[Any]]) -> list[Triplet]:
    """The stored stamps as triplets; an empty stamp is an absent one."""
    levels, shapes = arrays["stamps"], arrays["shapes"]
    if (
        levels.dtype != np.int16
        or shapes.ndim != 2
        or (shapes < 0).any()
        or len(shapes) != 3 * len(arrays["fwhm"])
    ):
        raise ValueError("stamps and shapes do not belong together")
    stamps: list[npt.NDArray[Any] | None] = []
    start = 0
    for (height, width), zero, step in zip(shapes.tolist(), arrays["zero"], arrays["step"], strict=True):
        line = levels[start : start + height * width].reshape(height, width)
        start += height * width
        image = np.where(line == _MISSING, np.nan, zero + step * line.astype(np.float64)).astype(np.float32)
        stamps.append(image if image.size else None)
    return [
        Triplet(
            np.empty((0, 0), np.float32) if stamps[3 * row] is None else stamps[3 * row],  # type: ignore[arg-type]
            stamps[3 * row + 1],
            stamps[3 * row + 2],
            id=str(row),
            fwhm=float(fwhm) if np.isfinite(fwhm) else None,
        )
        for row, fwhm in enumerate(arrays["fwhm"])
    ]
