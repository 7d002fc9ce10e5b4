"""What a broker's users ask of a candidate, as words beside its probability: nothing is rejected."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from ..models.classifier import BATCH_SIZE, Classifier
from ..prepare.missing import background, observed
from ..readers.open import Reading
from ..results.predictions import Predictions
from ..triplet import QualityFlag, Triplet
from .cluster import read_packets, worker_model

__all__ = ["BRIGHT", "TAGS", "reference_peak", "tag", "tag_packets"]

TAGS = ("real", "on_point_source", "bright_star", "variable_source")
"""In this order, as far as they hold."""

BRIGHT = 500.0
"""Peak of a bright star's reference stamp over the noise: a residual of 1 % of it is a 5-sigma detection."""

#: The class of the morphology model that a point source in the reference makes.
_POINT_SOURCE = "variable"
#: Pixels around the centre in which a counterpart's peak lies, where the seeing is sharper.
_REACH = 2.0


def tag_packets(
    packets: Iterable[Any],
    *,
    model: str = "realbogus",
    morphology: str = "3class",
    reading: Reading | None = None,
) -> list[dict[str, Any]]:
    """Score and tag packets or records in memory: the function to call from a broker's hook.

    Parameters
    ----------
    packets : iterable of bytes or mapping
        Alert packets as they arrive, or decoded records with cutouts; a packet may hold several candidates.
    model : str
        A model with the class ``real``.
    morphology : str
        A model with the class ``variable`` (a point source in the reference).
    reading : Reading, optional
        Layout, pixel scale and seeing, where the packets do not give them.

    Returns
    -------
    list of dict
        Per candidate ``id``, ``label``, ``p_<class>``… (None if unusable), ``tags`` (a list, see `tag`),
        ``quality`` and ``model``: ready for JSON, BSON or a row of Spark.

    Raises
    ------
    UsageError
        A model lacks the class that it is asked for.
    """
    first, second = worker_model(model), worker_model(morphology)
    _demand(first, second)
    triplets = read_packets(packets, reading or Reading())
    rows: list[dict[str, Any]] = []
    while batch := list(islice(triplets, BATCH_SIZE)):
        scores, tags = tag(batch, first, second)
        for row, words in zip(scores, tags, strict=True):
            numbers = {f"p_{c}": None if math.isnan(p) else p for c, p in row.probabilities.items()}
            rows.append(
                {"id": row.id, "label": row.label, **numbers, "tags": words, "quality": row.quality}
                | {"model": row.model}
            )
    return rows


def tag(
    triplets: list[Triplet], model: Classifier, morphology: Classifier, *, bright: float = BRIGHT
) -> tuple[Predictions, list[list[str]]]:
    """Score candidates and say of each which tags hold.

    Parameters
    ----------
    triplets : list of Triplet, length N
    model : Classifier
        With the class ``real``.
    morphology : Classifier
        With the class ``variable``.
    bright : float
        Peak of the reference over its noise from which on a point source is a bright star.

    Returns
    -------
    predictions : Predictions
        Of `model`.
    tags : list of list of str, length N
        ``real``: labelled so. ``on_point_source``: `morphology` gives a point source in the reference at
        least one half; said of bogus candidates too. ``bright_star``: that, and its peak is `bright`: where
        bad subtractions come from. ``variable_source``: real, on a point source. An unusable one has none.

    Raises
    ------
    UsageError
        A model lacks the class that it is asked for.
    """
    _demand(model, morphology)
    scores = model.predict(triplets)
    at = morphology.classes.index(_POINT_SOURCE)
    point = morphology.predict(triplets).probabilities[:, at] >= 0.5
    point &= (scores.quality & QualityFlag.UNUSABLE) == 0
    tags = []
    for triplet, label, star in zip(triplets, scores.labels.tolist(), point.tolist(), strict=True):
        real = label == "real"
        holds = (real, star, star and reference_peak(triplet) >= bright, real and star)
        tags.append([word for word, true in zip(TAGS, holds, strict=True) if true])
    return scores, tags


def _demand(model: Classifier, morphology: Classifier) -> None:
    for asked, name in ((model, "real"), (morphology, _POINT_SOURCE)):
        if name not in asked.classes:
            raise UsageError(f"{asked.record.id} has no class {name!r}, only {', '.join(asked.classes)}")


def reference_peak(triplet: Triplet) -> float:
    """Brightest pixel of the reference within one FWHM (2 px at least) of the centre, over its noise.

    Parameters
    ----------
    triplet : Triplet

    Returns
    -------
    float
        NaN without a reference, or where its centre was not observed.
    """
    if triplet.reference is None:
        return math.nan
    image: npt.NDArray[np.float64] = observed(triplet.reference)
    sky, noise = background(image)
    y, x = (np.arange(n) - (n - 1) / 2 for n in image.shape)
    reach = max(_REACH, triplet.fwhm or 0.0)
    near = image[(y[:, None] ** 2 + x**2) <= reach**2]
    return float((np.nanmax(near) - sky) / noise) if np.isfinite(near).any() else math.nan
