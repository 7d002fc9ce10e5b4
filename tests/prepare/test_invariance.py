"""Same object, same answer: the probability of the bundled model under changes that do not matter.

The tolerance is stated in ``docs/explanation/normalising.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transientnet import Triplet, load_model, open_triplets
from transientnet.models.classifier import Classifier

TOLERANCE = 1e-3
"""Most that a probability may move."""

Stamp = npt.NDArray[Any]
EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples" / "cutouts"


@pytest.fixture(scope="module")
def model() -> Classifier:
    return load_model("realbogus", threads=1)


@pytest.fixture(scope="module")
def examples(model: Classifier) -> list[Triplet]:
    found = [Triplet(*t.stamps, fwhm=t.fwhm) for t in open_triplets(EXAMPLES)]
    scored = np.isfinite(model.predict(found).probabilities[:, 0])
    assert scored.sum() >= 10
    return [triplet for triplet, good in zip(found, scored, strict=True) if good]


def assert_same(model: Classifier, triplets: list[Triplet], change: Callable[[Stamp, int], Stamp]) -> None:
    changed = [
        Triplet(*(None if s is None else change(s, i) for i, s in enumerate(t.stamps)), fwhm=t.fwhm)
        for t in triplets
    ]
    before, after = model.predict(triplets).probabilities, model.predict(changed).probabilities
    np.testing.assert_allclose(after, before, rtol=0, atol=TOLERANCE)


@given(constant=st.floats(-1e4, 1e4), gain=st.floats(1e-4, 1e4), dtype=st.sampled_from(["<f8", ">f8"]))
@settings(max_examples=15, deadline=None)
def test_a_constant_and_a_factor(
    model: Classifier, examples: list[Triplet], constant: float, gain: float, dtype: str
) -> None:
    """Each stamp with a level and a gain of its own, NaN where it had NaN."""
    assert_same(
        model, examples, lambda s, i: ((s.astype("f8") + constant * (i - 1)) * gain * (i + 1)).astype(dtype)
    )


@given(constant=st.floats(-1e3, 1e3), gain=st.floats(1e-3, 1e3))
@settings(max_examples=15, deadline=None)
def test_a_constant_and_a_factor_in_single_precision(
    model: Classifier, examples: list[Triplet], constant: float, gain: float
) -> None:
    assert_same(model, examples, lambda s, i: s.astype("f4") * np.float32(gain))
    assert_same(model, examples, lambda s, i: s.astype("f4") + np.float32(constant))


@pytest.mark.parametrize("turn", range(8))
def test_flips_and_quarter_turns(model: Classifier, examples: list[Triplet], turn: int) -> None:
    def turned(stamp: Stamp, _: int) -> Stamp:
        stamp = np.rot90(stamp, turn % 4)
        return stamp[:, ::-1] if turn >= 4 else stamp

    assert_same(model, examples, turned)


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8", "<f2"])
def test_byte_order_and_dtype(model: Classifier, examples: list[Triplet], dtype: str) -> None:
    # Half precision has no digits for a bright sky.
    level = {"<f2": np.nanmedian}.get(dtype, lambda stamp: 0)
    assert_same(model, examples, lambda s, i: (s - level(s)).astype(dtype))


@pytest.mark.parametrize("dtype", ["<i4", ">i4", "<i8", ">u4"])
def test_integers(model: Classifier, examples: list[Triplet], dtype: str) -> None:
    whole = [t for t in examples if all(s is None or np.isfinite(s).all() for s in t.stamps)]
    assert len(whole) >= 5
    assert_same(model, whole, lambda s, i: np.round((s.astype("f8") + 1e5) * 1000).astype(dtype))


@given(st.integers(1, 40), st.sampled_from(["f4", ">f8"]))
@settings(max_examples=10, deadline=None)
def test_padding_with_nan(model: Classifier, examples: list[Triplet], width: int, dtype: str) -> None:
    assert_same(model, examples, lambda s, i: np.pad(s.astype(dtype), width, constant_values=np.nan))


def test_a_negative_detection(model: Classifier, examples: list[Triplet]) -> None:
    assert_same(model, examples, lambda s, i: -s if i == 2 else s)


def test_real_stamps(shared_data: Path, model: Classifier) -> None:
    ztf = np.load(shared_data / "ztf" / "stamps.npz")["triplets"][:50]
    decam = np.load(shared_data / "decam" / "stamps.npz")
    eight_bit = decam["triplets"][:50].astype("f4")
    eight_bit[:, :, decam["tick_mask"]] = np.nan
    for stamps, fwhm in ((ztf, 2.0), (eight_bit, 4.7)):
        triplets = [Triplet(*images, fwhm=fwhm) for images in stamps]
        assert_same(model, triplets, lambda s, i: s.astype(">f8") * (i + 0.01) + 12345 * i)
        assert_same(model, triplets, lambda s, i: np.rot90(np.pad(s, 4, constant_values=np.nan)))
        assert_same(model, triplets, lambda s, i: -s[::-1] if i == 2 else s[::-1])
