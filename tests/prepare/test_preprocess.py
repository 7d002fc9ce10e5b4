"""What a survey's stamps become before the network sees them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transientnet import InputContract, QualityFlag, Triplet
from transientnet.prepare.missing import mark_missing
from transientnet.prepare.preprocess import estimate_fwhm, preprocess

CONTRACT = InputContract()
CENTRE = CONTRACT.size // 2


def stamp(
    height: int = 63,
    width: int = 63,
    *,
    seed: int = 0,
    flux: float = 3000.0,
    fwhm: float = 2.4,
    sky: float = 100.0,
) -> np.ndarray:
    """A point source at the geometric centre, on sky with noise of 1."""
    rng = np.random.default_rng(seed)
    y = np.arange(height)[:, None] - (height - 1) / 2
    x = np.arange(width)[None] - (width - 1) / 2
    sigma = fwhm / 2.3548
    source = flux / (2 * np.pi * sigma**2) * np.exp(-(x**2 + y**2) / (2 * sigma**2))
    return (sky + source + rng.normal(size=(height, width))).astype(np.float32)


def triplet(height: int = 63, width: int = 63, fwhm: float | None = 2.4, **kwargs: float) -> Triplet:
    psf = fwhm or 2.4
    return Triplet(
        stamp(height, width, seed=1, fwhm=psf, **kwargs),
        stamp(height, width, seed=2, fwhm=psf, flux=0),
        stamp(height, width, seed=3, fwhm=psf, sky=0),
        id="c",
        fwhm=fwhm,
    )


def run(*triplets: Triplet, contract: InputContract = CONTRACT):
    return preprocess(triplets, contract)


# --- what pipelines fill unseen pixels with ----------------------------------------------------------

SLANTED = np.add.outer(0.6 * np.arange(63), np.arange(63)) > 70
FILLS = [0.0, -999.0, 1e-30, -32768.0, 100.0]


@pytest.mark.parametrize("value", FILLS)
@pytest.mark.parametrize("turns", range(4))
def test_a_fill_value_beyond_a_slanted_edge_is_missing(value: float, turns: int) -> None:
    seen, filled = triplet(fwhm=None), triplet(fwhm=None)
    where = np.rot90(SLANTED, turns)
    for image, other in zip(seen.stamps, filled.stamps, strict=True):
        assert image is not None
        assert other is not None
        image[where] = np.nan
        other[where] = value
    nan, fill = run(seen), run(filled)
    np.testing.assert_array_equal(fill.tensor, nan.tensor)
    assert fill.quality[0] & (QualityFlag.MASKED | QualityFlag.PADDED)
    assert fill.usable[0]


@pytest.mark.parametrize("value", [0, -999])
def test_a_fill_value_of_integers_is_missing(value: int) -> None:
    counts = [np.rint(200 + 20 * stamp(seed=k, flux=3000 * (k != 1))).astype(np.int16) for k in range(3)]
    seen = [image.astype(np.float32) for image in counts]
    for image, other in zip(counts, seen, strict=True):
        image[SLANTED] = value
        other[SLANTED] = np.nan
    nan, fill = run(Triplet(*seen, fwhm=2.4)), run(Triplet(*counts, fwhm=2.4))
    np.testing.assert_array_equal(fill.tensor, nan.tensor)


def test_masked_columns_and_two_fills_are_missing() -> None:
    one, two = triplet(), triplet()
    for part, values in ((one, (np.nan, np.nan)), (two, (-999.0, 1.234e-10))):
        for image in part.stamps:
            assert image is not None
            image[:, 10:13] = values[0]
            image[40:60, 30:60] = values[1]
    np.testing.assert_array_equal(run(two).tensor, run(one).tensor)


@given(
    st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0, 2.0, 5.0, 20.0]),
    st.sampled_from([0, 20, 200, 5000]),
    st.integers(0, 2**16),
    st.sampled_from(["grey", "float", "clipped"]),
)
@settings(max_examples=150, deadline=None)
def test_grey_levels_bright_stars_and_cut_off_noise_are_no_fill(
    noise: float, flux: int, seed: int, kind: str
) -> None:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-31:32, -31:32]
    star = np.exp(-((x - 31) ** 2 + (y + 31) ** 2) / 60)  # in a corner, saturated
    image = rng.normal(10, noise, (63, 63)) + flux * (np.exp(-(x**2 + y**2) / 4) + star)
    if kind == "clipped":
        image = np.maximum(image - 10, 0)
    image = np.minimum(image, 255)
    image = (np.rint(np.maximum(image, 0)) if kind == "grey" else image).astype(np.float32)
    stack = image[None].copy()
    stack, padded, masked = mark_missing(stack, np.array([True]))
    # A stamp without noise is one value up to its border: its margin is the background.
    assert np.isfinite(stack).all() or noise == 0 or padded.all()
    assert not masked.any()


@given(st.integers(7, 140), st.integers(7, 140), st.sampled_from([2.4, 4.0, 8.0, 14.0]))
@settings(max_examples=60, deadline=None)
def test_target_stays_at_the_centre_for_any_size_and_seeing(height: int, width: int, fwhm: float) -> None:
    prepared = run(triplet(height, width, fwhm=fwhm, flux=30000.0 * fwhm**2))
    if not prepared.usable[0]:
        assert prepared.quality[0] & QualityFlag.TOO_SMALL
        return
    image = prepared.tensor[0, 0]
    # Centroid of the brightest part: within half a pixel of the central one, for even sides too.
    weight = np.where(image > 0.7 * image.max(), image, 0)
    y, x = np.indices(image.shape)
    assert abs((weight * y).sum() / weight.sum() - CENTRE) <= 0.75
    assert abs((weight * x).sum() / weight.sum() - CENTRE) <= 0.75


@pytest.mark.parametrize("edge", ["top", "bottom", "left", "right"])
def test_chip_edge_padding_does_not_move_the_target(edge: str) -> None:
    original = triplet()
    cut = []
    for image in original.stamps:
        image = image.copy()
        view = {"top": image[:20], "bottom": image[-20:], "left": image[:, :20], "right": image[:, -20:]}[
            edge
        ]
        view[:] = np.nan
        cut.append(image)
    prepared = run(Triplet(*cut, fwhm=2.4))
    assert prepared.usable[0]
    assert prepared.quality[0] & QualityFlag.MASKED
    assert np.unravel_index(prepared.tensor[0, 0].argmax(), (63, 63)) == (CENTRE, CENTRE)


@pytest.mark.parametrize(
    "blank",
    [
        np.zeros((63, 63)),
        np.full((63, 63), 7.5, np.float32),
        np.full((63, 63), np.nan),
        np.full((63, 63), np.inf),
        np.full((63, 63), 1e35),
        np.zeros((1, 1)),
        np.zeros((0, 0)),
        np.zeros((63, 63), np.uint8),
        np.zeros((63, 63), bool),
    ],
)
def test_nothing_is_never_scored(blank: np.ndarray) -> None:
    prepared = run(Triplet(blank, blank, blank), Triplet(stamp(), stamp(), blank), triplet())
    assert list(prepared.usable) == [False, False, True]
    assert prepared.quality[0] & QualityFlag.UNUSABLE
    assert prepared.quality[1] & QualityFlag.UNUSABLE
    assert not prepared.tensor[0].any()


def test_candidate_off_the_chip_is_refused() -> None:
    good = triplet()
    science = good.science.copy()
    science[:, 25:] = np.nan
    prepared = run(Triplet(science, good.reference, good.difference))
    assert not prepared.usable[0]
    assert prepared.quality[0] & QualityFlag.OFF_CHIP


def test_missing_stamps_follow_the_contract() -> None:
    good = triplet()
    no_reference = Triplet(good.science, None, good.difference, fwhm=2.4)
    no_difference = Triplet(good.science, good.reference, None, fwhm=2.4)
    alone = Triplet(good.science, None, None, fwhm=2.4)
    prepared = run(no_reference, no_difference, alone)
    assert list(prepared.usable) == [True, True, False]
    assert prepared.quality[0] & QualityFlag.MISSING_REFERENCE
    assert prepared.quality[1] & QualityFlag.MISSING_DIFFERENCE
    assert prepared.quality[2] & QualityFlag.MISSING_REQUIRED
    strict = InputContract(missing_reference="refuse", missing_difference="refuse")
    assert not run(no_reference, no_difference, contract=strict).usable.any()


def test_blank_reference_is_a_missing_reference() -> None:
    good = triplet()
    blank = run(Triplet(good.science, np.zeros((63, 63)), good.difference, fwhm=2.4))
    absent = run(Triplet(good.science, None, good.difference, fwhm=2.4))
    assert blank.usable[0]
    assert blank.quality[0] & QualityFlag.MISSING_REFERENCE
    np.testing.assert_array_equal(blank.tensor, absent.tensor)


def test_blank_reference_without_difference_is_refused() -> None:
    assert not run(Triplet(stamp(), np.zeros((63, 63)), None)).usable[0]


@given(
    st.floats(1e-3, 1e3),
    st.floats(-1e3, 1e3),
    st.sampled_from(["<f4", ">f4", "<f8", ">f8"]),
)
@settings(max_examples=30, deadline=None)
def test_units_pedestal_and_byte_order_do_not_matter(gain: float, offset: float, dtype: str) -> None:
    good = triplet()
    changed = Triplet(
        *[(image.astype(np.float64) * gain + offset * gain).astype(dtype) for image in good.stamps], fwhm=2.4
    )
    np.testing.assert_allclose(run(good).tensor, run(changed).tensor, atol=5e-3)


def test_large_pedestal_in_float64_keeps_its_digits() -> None:
    good = triplet()
    far = Triplet(*[image.astype(np.float64) + 1e9 for image in good.stamps], fwhm=2.4)
    np.testing.assert_allclose(run(good).tensor, run(far).tensor, atol=1e-3)


def test_integers_of_any_kind() -> None:
    images = [np.round(image * 10 + 500) for image in triplet().stamps]
    wanted = run(Triplet(*images, fwhm=2.4)).tensor
    for dtype in ("<u2", ">i2", "<i4", ">i8", "u8"):
        np.testing.assert_allclose(
            run(Triplet(*[i.astype(dtype) for i in images], fwhm=2.4)).tensor, wanted, atol=1e-4
        )


@pytest.mark.parametrize("turn", range(1, 8))
@pytest.mark.parametrize("side", [63, 64, 51, 90])
def test_turns_and_flips_commute(turn: int, side: int) -> None:
    def apply(image: np.ndarray) -> np.ndarray:
        image = np.rot90(image, turn % 4, (-2, -1))
        return image[..., ::-1] if turn >= 4 else image

    good = triplet(side, side)
    turned = Triplet(*[apply(image) for image in good.stamps], fwhm=2.4)
    np.testing.assert_allclose(run(turned).tensor[0], apply(run(good).tensor[0]), atol=1e-4)


def test_padding_with_nan_changes_nothing() -> None:
    good = triplet(51, 51)
    padded = Triplet(*[np.pad(image, 6, constant_values=np.nan) for image in good.stamps], fwhm=2.4)
    np.testing.assert_allclose(run(good).tensor, run(padded).tensor, atol=1e-6)


def test_negative_detection_is_the_same_object() -> None:
    good = triplet()
    negative = Triplet(good.science, good.reference, -good.difference, fwhm=2.4)
    np.testing.assert_allclose(run(good).tensor, run(negative).tensor, atol=1e-5)


@given(st.lists(st.sampled_from(range(6)), min_size=1, max_size=12))
@settings(max_examples=20, deadline=None)
def test_a_row_never_depends_on_its_batch(order: list[int]) -> None:
    pool = [
        triplet(),
        triplet(51, 64),
        triplet(80, 80, fwhm=9.0, flux=1e6),
        Triplet(stamp(), None, stamp(seed=5)),
        Triplet(np.zeros((63, 63)), np.zeros((63, 63)), np.zeros((63, 63))),
        Triplet.unreadable("x", "x.fits", "broken"),
    ]
    together = run(*[pool[k] for k in order])
    for row, k in enumerate(order):
        alone = run(pool[k])
        np.testing.assert_array_equal(together.tensor[row], alone.tensor[0])
        assert together.quality[row] == alone.quality[0]


def test_faint_source_stays_visible_beside_a_bright_one() -> None:
    science = stamp(flux=80.0)
    science[10:13, 10:13] += 1e5
    image = run(Triplet(science, stamp(flux=0), stamp(flux=80.0, sky=0), fwhm=2.4)).tensor[0, 0]
    noise = image[40:, 40:].std()
    assert image[CENTRE, CENTRE] > 5 * noise
    assert image.max() < 15


def test_sentinels_are_missing_not_bright() -> None:
    good = triplet()
    science = good.science.copy()
    science[5:10, 5:10] = 3e38
    science[20, 20] = -np.inf
    prepared = run(Triplet(science, good.reference, good.difference, fwhm=2.4))
    assert prepared.quality[0] & QualityFlag.MASKED
    assert not prepared.tensor[0, 0, 5:10, 5:10].any()


def test_masked_arrays_are_honoured() -> None:
    good = triplet()
    mask = np.zeros((63, 63), bool)
    mask[:10] = True
    prepared = run(Triplet(np.ma.MaskedArray(good.science, mask), good.reference, good.difference, fwhm=2.4))
    assert not prepared.tensor[0, 0, :10].any()
    assert prepared.quality[0] & QualityFlag.MASKED


def test_8_bit_stamps_have_a_smooth_scale() -> None:
    image = triplet().science
    low, high = image.min(), image.max()
    eight = np.round((image - low) / (high - low) * 255).astype(np.uint8)
    prepared = run(Triplet(eight, eight, eight, fwhm=2.4))
    assert prepared.usable[0]
    assert 0.1 < prepared.tensor[0, 0, 40:, 40:].std() < 1.5


def test_broad_seeing_is_shrunk_into_the_networks_range() -> None:
    broad = run(triplet(127, 127, fwhm=10.0, flux=1e6))
    assert broad.quality[0] & QualityFlag.RESAMPLED
    image = np.sinh(broad.tensor[0, 0].astype(np.float64))
    half = image > image.max() / 2
    assert 2 * np.sqrt(half.sum() / np.pi) == pytest.approx(CONTRACT.fwhm_px[1], rel=0.25)


@pytest.mark.parametrize("fwhm", [1.6, 2.4, 4.0, 7.0])
def test_seeing_is_estimated_from_the_stamps_own_sources(fwhm: float) -> None:
    science = stamp(fwhm=fwhm, flux=2000 * fwhm**2)
    assert estimate_fwhm(science) == pytest.approx(fwhm, rel=0.15)


def test_estimated_seeing_is_said_so() -> None:
    assert run(triplet(fwhm=None)).quality[0] & QualityFlag.FWHM_ESTIMATED
    empty = Triplet(stamp(flux=0), stamp(flux=0, seed=4), stamp(flux=0, seed=5))
    assert run(empty).quality[0] & QualityFlag.FWHM_ASSUMED
    assert not run(triplet()).quality[0] & (QualityFlag.FWHM_ESTIMATED | QualityFlag.FWHM_ASSUMED)


def test_real_ztf_stamps_are_never_resampled(shared_data) -> None:
    stamps = np.load(shared_data / "ztf" / "stamps.npz")["triplets"]
    prepared = preprocess([Triplet(*s) for s in stamps], CONTRACT)
    assert prepared.usable.all()
    assert not (prepared.quality & QualityFlag.RESAMPLED).any()
    assert np.isfinite(prepared.tensor).all()


def _fine(side: int, level: float) -> np.ndarray:
    """A source on noise in steps of 1/1024, so that a level can be added without rounding."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    noise = np.random.default_rng(4).normal(0, 0.1, (side, side)) + 8 * np.exp(-(x**2 + y**2) / 3)
    return (np.round(noise * 1024) / 1024 + level).astype(np.float32)


@pytest.mark.parametrize(("side", "fwhm"), [(64, 2.0), (63, 9.0)])
def test_a_level_far_above_the_noise_changes_nothing(side: int, fwhm: float) -> None:
    low, high = (
        preprocess([Triplet(_fine(side, at), _fine(side, at), fwhm=fwhm)], CONTRACT).tensor
        for at in (0.0, 8192.0)
    )
    np.testing.assert_allclose(low, high, atol=1e-5)


def test_noise_too_small_to_divide_by_is_blank_and_no_nan() -> None:
    faint = np.random.default_rng(0).normal(0, 1, (63, 63)).astype(np.float32) * np.float32(1e-42)
    prepared = preprocess([Triplet(faint, faint, faint)], CONTRACT)
    assert prepared.quality[0] & QualityFlag.BLANK
    assert np.isfinite(prepared.tensor).all()


def test_half_a_pixel_seen_is_not_enough_in_every_batch() -> None:
    """The left half is missing, so the middle column of the grid is seen by one half but for rounding."""
    image = stamp(64, 64)
    image[:, :32] = np.nan
    one = Triplet(image, image, fwhm=7.0)
    alone = preprocess([one], CONTRACT).tensor[0]
    assert (alone[0][:, CENTRE] == 0).all()
    for size in range(2, 6):
        assert (preprocess([one] * size, CONTRACT).tensor == alone).all()
