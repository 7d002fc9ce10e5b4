"""Has the survey drifted? A night's scores and stamps against what the model's record expects."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import EmptyInputError, UsageError
from ..models.outliers import STATISTICS, input_statistics
from ..models.record import ModelRecord
from ..prepare.contract import InputContract
from ..prepare.preprocess import preprocess
from ..results import scores as results
from ..triplet import QualityFlag, Triplet
from .statistics import fisher_exact

__all__ = [
    "Drift",
    "ScoreTable",
    "compare_flags",
    "compare_inputs",
    "compare_scores",
    "needs_reference",
    "read_scores",
    "verdicts",
]

FloatArray = npt.NDArray[np.float64]

LIMIT = 0.2
"""Population stability index above which a distribution is commonly held to have shifted."""

ALPHA = 0.05
"""Chance that a night like the reference is called shifted, over all quantities together."""

LARGE = 0.4
"""Share of the candidates that a shift must move to be found whatever the number of candidates."""

BINS = 10
QUANTILES = 41
SIMULATIONS = 20_000
_BATCH = 64

EXPECTED_FLAGS = (
    QualityFlag.UNUSABLE | QualityFlag.MASKED | QualityFlag.PADDED | QualityFlag.OUT_OF_DISTRIBUTION
)


class Drift(NamedTuple):
    """One quantity of a night.

    Attributes
    ----------
    name : str
    n : int
        Candidates of the night.
    psi : float
        Population stability index: how large the shift is; below 0.1 is calm, above 0.2 a shift. With
        few candidates chance alone makes it large.
    ks : float
        Kolmogorov–Smirnov distance at the reference's quantiles; NaN for flags.
    p : float
        Chance of such a distance (simulated), or of such a number of flags (Fisher's exact test), in a
        night like the reference.
    p_large : float
        The same of a shift by `LARGE`: the least that this number of candidates could show.
    """

    name: str
    n: int
    psi: float
    ks: float
    p: float
    p_large: float


@dataclass(frozen=True, slots=True, eq=False)
class ScoreTable:
    """What `transientnet score` wrote: probabilities (N, K), quality (N,), and the model's name."""

    classes: tuple[str, ...]
    probabilities: FloatArray
    quality: npt.NDArray[np.uint16]
    model: str


def read_scores(path: str | os.PathLike[str]) -> ScoreTable:
    """Read a score table, in any of the formats that it is written in.

    Raises
    ------
    ReadError
        If it is absent or not a score table.
    EmptyInputError
        If it has no row.
    """
    scores = results.read_scores(path)
    return ScoreTable(scores.classes, scores.probabilities.astype(np.float64), scores.quality, scores.model)


def compare_scores(night: ScoreTable, expected: Mapping[str, Any] | ScoreTable) -> list[Drift]:
    """Probabilities per class against a record's reference, or another night's table.

    Of two classes the last is compared: the other is its complement.
    """
    usable = np.isfinite(night.probabilities).all(axis=1)
    drifts = []
    for c, name in list(enumerate(night.classes))[1 if len(night.classes) == 2 else 0 :]:
        if isinstance(expected, ScoreTable):
            other = expected.probabilities[:, expected.classes.index(name)]
            other = other[np.isfinite(other)]
            if not len(other):
                raise EmptyInputError("the night to compare with has no candidate with probabilities")
            quantiles, n = np.quantile(other, np.linspace(0, 1, QUANTILES)), len(other)
        else:
            quantiles, n = np.asarray(expected["scores"][name], np.float64), int(expected["n"])
        drifts.append(_against_quantiles(f"p_{name}", night.probabilities[usable, c], quantiles, n))
    return drifts


def compare_flags(night: ScoreTable, expected: Mapping[str, Any] | ScoreTable) -> list[Drift]:
    """Share of each flag that says something of the stamps' state."""
    n = len(night.quality)
    drifts = []
    for flag in QualityFlag:
        if not flag.value & EXPECTED_FLAGS or not flag.name:
            continue
        if isinstance(expected, ScoreTable):
            before, m = int(((expected.quality & flag.value) != 0).sum()), len(expected.quality)
        else:
            # By its definition one in a hundred training candidates is flagged as foreign.
            share = 0.01 if flag == QualityFlag.OUT_OF_DISTRIBUTION else expected["quality"][flag.name]
            m = int(expected["n"])
            before = round(share * m)
        now = int(((night.quality & flag.value) != 0).sum())
        if before or now:
            drifts.append(_of_shares(flag.name.lower(), now, n, before, m))
    return drifts


def compare_inputs(
    triplets: Iterable[Triplet], contract: InputContract, reference: Mapping[str, Any], limit: int = 2000
) -> list[Drift]:
    """Statistics of the first `limit` stamps against a record's reference."""
    parts = []
    wanted = islice(triplets, limit)
    while batch := list(islice(wanted, _BATCH)):
        prepared = preprocess(batch, contract)
        parts.append(input_statistics(prepared.tensor[prepared.usable]))
    values = np.concatenate(parts) if parts else np.zeros((0, len(STATISTICS)))
    if not len(values):
        raise EmptyInputError("none of the stamps could be used to look for a drift")
    return [
        _against_quantiles(name, values[:, i], np.asarray(reference["inputs"][name]), int(reference["n"]))
        for i, name in enumerate(STATISTICS)
    ]


def verdicts(drifts: Sequence[Drift], limit: float = LIMIT) -> list[str]:
    """Which quantities have shifted, with at most one false alarm in twenty nights over all of them.

    Parameters
    ----------
    drifts : sequence of Drift
        All that is looked at in one night.
    limit : float
        Least population stability index of a shift that matters.

    Returns
    -------
    list of str
        ``yes`` where p is significant after Holm's correction (1979) for the number of quantities and the
        index is above the limit; ``too few`` where not even a shift of `LARGE` of the candidates would
        be significant; ``no`` otherwise.
    """
    result = ["too few" if d.p_large > ALPHA / len(drifts) else "no" for d in drifts]
    by_p = sorted(range(len(drifts)), key=lambda i: drifts[i].p)
    for rank, i in enumerate(by_p):
        if drifts[i].p > ALPHA / (len(drifts) - rank):
            break
        result[i] = "yes" if drifts[i].psi > limit else "no"
    return result


def needs_reference(record: ModelRecord) -> Mapping[str, Any]:
    """The record's reference statistics; raises `UsageError` where it has none."""
    if not record.reference:
        raise UsageError(
            f"{record.id} carries no reference statistics; compare with an earlier night: --reference TABLE"
        )
    return record.reference


def _of_shares(name: str, now: int, n: int, before: int, m: int) -> Drift:
    share, expected = now / n, before / m
    psi = _psi(np.array([1 - expected, expected]), np.array([1 - share, share]), m, n)
    large = round(n * (expected + (LARGE if expected < 0.5 else -LARGE)))
    return Drift(name, n, psi, math.nan, fisher_exact(now, n, before, m), fisher_exact(large, n, before, m))


def _against_quantiles(name: str, values: FloatArray, quantiles: FloatArray, n_expected: int) -> Drift:
    n, ordered, levels = len(values), np.sort(values), np.linspace(0, 1, len(quantiles))
    if not n:
        return Drift(name, 0, math.nan, math.nan, 1.0, 1.0)
    below, upto = (np.searchsorted(ordered, quantiles, side) / n for side in ("left", "right"))
    # Between two quantiles nothing is known; where several are equal, only that they enclose a step.
    ks = float(max((below - levels).max(), (levels - upto).max()))
    # Bins of equal expected mass; equal edges (many scores of exactly 1) become one bin.
    edges = np.unique(quantiles[np.linspace(0, len(quantiles) - 1, BINS + 1)[1:-1].round().astype(int)])
    psi = _psi(_masses(quantiles, edges, 1), _masses(ordered, edges, 0), n_expected, n)
    null = _null_distances(n, n_expected, len(quantiles))
    p, p_large = ((1 + (null >= d - 1e-9).sum()) / (1 + len(null)) for d in (ks, LARGE))
    return Drift(name, n, psi, ks, float(p), float(p_large))


def _masses(ordered: FloatArray, edges: FloatArray, ends: int) -> FloatArray:
    """Share of sorted values, or of the distribution that quantiles span (`ends` 1), between edges."""
    places = np.searchsorted(ordered, edges, "left") + np.searchsorted(ordered, edges, "right") - ends
    return np.diff(places / (2 * (len(ordered) - ends)), prepend=0.0, append=1.0)


@lru_cache(maxsize=64)
def _null_distances(n: int, m: int, knots: int) -> FloatArray:
    """Distances of `n` candidates from the quantiles of `m` others of the same distribution, simulated.

    The distance does not depend on that distribution if it is continuous, and is only smaller if it is not.
    """
    rng = np.random.default_rng(0)
    # The shares of a distribution between a sample's quantiles follow Dirichlet's.
    gaps = np.array([1.0, *[(m - 1) / (knots - 1)] * (knots - 1), 1.0])
    counts = rng.multinomial(n, rng.dirichlet(np.maximum(gaps, 1e-3), SIMULATIONS))
    return np.asarray(np.abs(counts.cumsum(axis=1)[:, :-1] / n - np.linspace(0, 1, knots)).max(axis=1))


def _psi(expected: FloatArray, now: FloatArray, n_expected: int, n: int) -> float:
    """Population stability index, with half a candidate in each bin so that an empty one stays finite."""
    bins = len(expected)
    a = (expected * n_expected + 0.5) / (n_expected + 0.5 * bins)
    b = (now * n + 0.5) / (n + 0.5 * bins)
    return float(((b - a) * np.log(b / a)).sum())
