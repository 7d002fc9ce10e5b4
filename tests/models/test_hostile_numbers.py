"""Bundled models under hostile numbers: a probability, or a flag that says why there is none."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transientnet import QualityFlag, Triplet, load_model
from transientnet.models.classifier import Classifier

MODELS = ("realbogus", "3class", "4class")
INTEGERS = [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64]
FLOATS = [np.float16, np.float32, np.float64, ">f4", ">i2", np.bool_]
load = lru_cache(load_model)


def stamp(kind: str, dtype: npt.DTypeLike, side: int, rng: np.random.Generator) -> npt.NDArray[np.generic]:
    """A stamp of one kind of trouble in one type of number."""
    dtype = np.dtype(dtype)
    noise = rng.normal(0, 1, (side, side))
    integer = dtype.kind in "iub"
    least, most = (0.0, 1.0) if dtype.kind == "b" else (
        (float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)) if integer
        else (float(np.finfo(dtype).min), float(np.finfo(dtype).max))
    )  # fmt: skip
    tiny = 1.0 if integer else float(np.finfo(dtype).smallest_subnormal)
    with np.errstate(all="ignore"):
        values = {
            "denormal": noise * tiny * 3,
            "huge": noise * most / 8,
            "extremes": np.where(noise > 0, most, least),
            "constant": np.full((side, side), most / 3),
            "hot pixel": np.where(np.arange(side * side).reshape(side, side) == side * side // 2, most, 0.0),
            "ordinary": noise * 5 + 100,
            "infinite": np.where(noise > 1, np.inf, noise),
            "not a number": np.where(noise > -1, np.nan, noise),
            "pedestal": noise + most / 2,
        }[kind]
        if integer:
            # The float next to the largest integer is beyond it.
            values = np.clip(np.nan_to_num(values, posinf=most, neginf=least), least, np.nextafter(most, 0))
        return np.asarray(values).astype(dtype)


KINDS = (
    "denormal", "huge", "extremes", "constant", "hot pixel", "ordinary", "infinite", "not a number",
    "pedestal",
)  # fmt: skip


def judged(model: Classifier, triplets: list[Triplet]) -> None:
    table = model.predict(triplets)
    refused = (table.quality & int(QualityFlag.UNUSABLE)) != 0
    p = table.probabilities
    assert np.isnan(p[refused]).all()
    assert np.isfinite(p[~refused]).all()
    assert ((p[~refused] >= 0) & (p[~refused] <= 1)).all()
    np.testing.assert_allclose(p[~refused].sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
@given(
    kinds=st.tuples(*[st.sampled_from(KINDS)] * 3),
    dtypes=st.tuples(*[st.sampled_from([*INTEGERS, *FLOATS])] * 3),
    side=st.sampled_from([1, 7, 21, 63, 64, 101]),
    fwhm=st.sampled_from([None, 1e-30, 0.5, 3.0, 50.0, 1e30]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=25, deadline=None)
def test_a_probability_or_a_flag(
    name: str,
    kinds: tuple[str, str, str],
    dtypes: tuple[npt.DTypeLike, ...],
    side: int,
    fwhm: float | None,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    stamps = [stamp(kind, dtype, side, rng) for kind, dtype in zip(kinds, dtypes, strict=True)]
    judged(load(name), [Triplet(*stamps, fwhm=fwhm), Triplet(stamps[0]), Triplet(stamps[0], None, stamps[2])])


@pytest.mark.parametrize("name", MODELS)
def test_every_trouble_in_every_type(name: str) -> None:
    rng = np.random.default_rng(0)
    judged(
        load(name),
        [
            Triplet(*(stamp(kind, dtype, 63, rng) for _ in range(3)), id=f"{kind} {np.dtype(dtype)}")
            for kind in KINDS
            for dtype in [*INTEGERS, *FLOATS]
        ],
    )
