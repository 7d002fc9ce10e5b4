"""The raw model against `Classifier`: the same stamps must get the same answers.

Stamps are simulated to be as bad as surveys make them; `verify_raw` refuses a raw model that
answers one of them otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import ModelIntegrityError
from ..prepare.missing import SENTINEL
from ..settings import cores
from ..triplet import Triplet
from .classifier import Classifier
from .runtime import onnx_runtime

__all__ = [
    "TOLERANCE",
    "Inputs",
    "Parity",
    "as_inputs",
    "as_triplets",
    "compare",
    "hard_stamps",
    "open_raw",
    "verify_raw",
]

TOLERANCE = 1e-4
"""Largest deviation of a probability that is accepted."""

FloatArray = npt.NDArray[np.float32]

_SIDES = (
    (63, 63),
    (63, 63),
    (51, 51),
    (30, 30),
    (64, 64),
    (61, 63),
    (40, 71),
    (7, 9),
    (5, 80),
    (1, 1),
    (101, 100),
)


class Inputs(NamedTuple):
    """What the raw model takes.

    stamps : float32, shape (N, 3, H, W)
    fwhm : float32, shape (N,); 0 where unknown.
    """

    stamps: FloatArray
    fwhm: FloatArray


class Parity(NamedTuple):
    """Raw model and `Classifier` over N candidates.

    n : int
    deviation : float
        Largest difference of a probability; infinite if one of the two refuses what the other scores.
    flags : list of int
        Rows with other quality flags.
    rows : list of int
        Rows beyond `TOLERANCE`.
    """

    n: int
    deviation: float
    flags: list[int]
    rows: list[int]


def as_triplets(inputs: Inputs) -> list[Triplet]:
    """The candidates as Python takes them: an all-NaN reference or difference is an absent one."""
    found = []
    for row, (stamps, fwhm) in enumerate(zip(inputs.stamps, inputs.fwhm.tolist(), strict=True)):
        reference, difference = (None if np.isnan(stamp).all() else stamp for stamp in stamps[1:])
        found.append(
            Triplet(stamps[0], reference, difference, id=str(row), fwhm=fwhm if 0 < fwhm < np.inf else None)
        )
    return found


def as_inputs(triplets: Iterable[Triplet]) -> list[Inputs]:
    """Candidates as the raw model takes them, those of one shape together.

    Those that could not be read, or whose stamps differ in shape, are left out.
    """
    alike: dict[tuple[int, ...], list[Triplet]] = {}
    for triplet in triplets:
        shapes = {stamp.shape for stamp in triplet.stamps if stamp is not None}
        if triplet.error is None and len(shapes) == 1:
            alike.setdefault(shapes.pop(), []).append(triplet)
    return [
        Inputs(
            np.array(
                [[np.full(shape, np.nan) if s is None else s for s in t.stamps] for t in group], np.float32
            ),
            np.array([t.fwhm or 0.0 for t in group], np.float32),
        )
        for shape, group in alike.items()
    ]


def open_raw(model: bytes | str, threads: int = 0) -> Any:
    """An onnxruntime session of a raw model, a file or its bytes, on the CPU."""
    ort = onnx_runtime()

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def compare(session: Any, classifier: Classifier, inputs: Inputs) -> Parity:
    """Score stamps both ways.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
        Of the raw model.
    classifier : Classifier
    inputs : Inputs
    """
    probabilities, quality = session.run(["probabilities", "quality"], inputs._asdict())
    expected = classifier.predict(as_triplets(inputs))
    same = np.isnan(probabilities) == np.isnan(expected.probabilities)
    difference = np.where(same, np.abs(np.nan_to_num(probabilities - expected.probabilities)), np.inf)
    worst = difference.max(axis=1, initial=0.0)
    return Parity(
        len(quality),
        float(worst.max(initial=0.0)),
        np.flatnonzero(quality != expected.quality).tolist(),
        np.flatnonzero(worst > TOLERANCE).tolist(),
    )


def verify_raw(model: bytes, classifier: Classifier, batches: Iterable[Inputs]) -> Parity:
    """Refuse a raw model that answers otherwise than its classifier.

    Parameters
    ----------
    model : bytes
        The raw model as a file.
    classifier : Classifier
    batches : iterable of Inputs

    Returns
    -------
    Parity
        Over all batches.

    Raises
    ------
    ModelIntegrityError
    """
    session = open_raw(model, threads=cores())
    n, deviation = 0, 0.0
    for inputs in batches:
        found = compare(session, classifier, inputs)
        if found.flags or found.rows:
            row = (found.flags or found.rows)[0]
            raise ModelIntegrityError(
                f"the raw model of {classifier.record.id} differs from the Python path: stamps of shape "
                f"{inputs.stamps.shape[2:]}, {len(found.flags)} of {found.n} with other quality flags, "
                f"probabilities by {found.deviation:.1e} (at most {TOLERANCE:.0e}); first in row {row}"
            )
        n, deviation = n + found.n, max(deviation, found.deviation)
    return Parity(n, deviation, [], [])


def hard_stamps(count: int, seed: int = 0, *, batch: int = 32) -> Iterator[Inputs]:
    """Simulated candidates, good ones and ugly ones, of many shapes; the same for the same seed.

    Parameters
    ----------
    count : int
    seed : int
    batch : int
        Candidates per shape.
    """
    rng = np.random.default_rng(seed)
    for start in range(0, count, batch):
        height, width = _SIDES[(start // batch) % len(_SIDES)]
        stamps = np.stack([_triplet(rng, height, width) for _ in range(min(batch, count - start))])
        fwhm = rng.choice([0.0, 1.5, 2.5, 6.3, 11.0, 40.0, -1.0], len(stamps)).astype(np.float32)
        yield Inputs(stamps, fwhm)


def _triplet(rng: np.random.Generator, height: int, width: int) -> FloatArray:
    """One candidate (3, H, W): sources on noise, and up to three things that surveys do to stamps."""
    y, x = np.mgrid[:height, :width]
    image = rng.normal(0, 1, (3, height, width))
    for channel in range(3):
        for source in range(int(rng.integers(0, 4))):
            at_y, at_x = (
                ((height - 1) / 2, (width - 1) / 2) if source == 0 else rng.uniform(0, (height, width))
            )
            sigma, flux = rng.uniform(0.6, 4.0), 10.0 ** rng.uniform(0, 4) * rng.choice([1, 1, 1, -1])
            image[channel] += flux * np.exp(-((y - at_y) ** 2 + (x - at_x) ** 2) / (2 * sigma**2))
    image = image * 10.0 ** rng.uniform(-2, 3) + rng.choice([0.0, 100.0, -50.0, 3000.0])
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(int(rng.integers(0, 4))):
            harm = _HARMS[int(rng.integers(len(_HARMS)))]
            harm(image if rng.random() < 0.5 else image[int(rng.integers(3))][None], rng)
        single: FloatArray = image.astype(np.float32)
    return single


def _edge(image: npt.NDArray[Any], rng: np.random.Generator, value: float) -> None:
    depth = int(rng.integers(1, max(2, image.shape[1])))
    turned = np.rot90(image, int(rng.integers(4)), axes=(1, 2))
    turned[:, :depth] = value


def _nan_edge(image: npt.NDArray[Any], rng: np.random.Generator) -> None:
    _edge(image, rng, np.nan)


def _filled_edge(image: npt.NDArray[Any], rng: np.random.Generator) -> None:
    _edge(image, rng, float(rng.choice([0.0, -999.0, 1e-30, 7.5])))


def _block(image: npt.NDArray[Any], rng: np.random.Generator) -> None:
    top, left = rng.integers(0, image.shape[1]), rng.integers(0, image.shape[2])
    value = rng.choice([np.nan, 0.0, -999.0, np.inf, SENTINEL * 2])
    image[:, top : top + int(rng.integers(1, 20)), left : left + int(rng.integers(1, 20))] = value


def _sentinels(image: npt.NDArray[Any], rng: np.random.Generator) -> None:
    image[rng.random(image.shape) < 0.01] = rng.choice([np.nan, np.inf, -np.inf, -3.4e38, 1e31])


def _constant(image: npt.NDArray[Any], rng: np.random.Generator) -> None:
    image[:] = rng.choice([0.0, 5.5, -1e20, np.nan, np.inf])


def _levels(image: npt.NDArray[Any], rng: np.random.Generator) -> None:
    image[:] = np.nan_to_num(image)
    low, high = image.min(), image.max()
    image[:] = np.round((image - low) / ((high - low) or 1.0) * float(rng.choice([1, 3, 20, 255])))


def _huge(image: npt.NDArray[Any], rng: np.random.Generator) -> None:
    image *= float(rng.choice([1e20, 1e24, 1e-30, 1e-42, -1.0]))


def _clipped(image: npt.NDArray[Any], rng: np.random.Generator) -> None:
    if np.isfinite(image).any():
        np.clip(
            image, *np.nanquantile(image[np.isfinite(image)], rng.choice([0.1, 0.4, 0.6, 0.9], 2)), out=image
        )


def _absent(image: npt.NDArray[Any], rng: np.random.Generator) -> None:
    image[int(rng.integers(len(image)))] = np.nan


_HARMS = (
    _nan_edge,
    _filled_edge,
    _block,
    _sentinels,
    _constant,
    _levels,
    _huge,
    _clipped,
    _absent,
)
