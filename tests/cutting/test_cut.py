"""Stamps out of frames: geometry and grids."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from frames import FRAME, HEIGHT, WIDTH, grid, hdu, stars
from hypothesis import given, settings
from hypothesis import strategies as st

from transientnet import classify, cut_triplets, open_triplets
from transientnet.errors import UsageError


def test_the_example_of_the_docstring_runs() -> None:
    module = importlib.import_module("transientnet.cutting.cut")
    result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed


class TestGeometry:
    @given(
        x=st.floats(-80, WIDTH + 80),
        y=st.floats(-80, HEIGHT + 80),
        size=st.integers(1, 75),
    )
    @settings(max_examples=150, deadline=None)
    def test_the_target_stays_at_the_centre(self, x: float, y: float, size: int) -> None:
        (triplet,) = cut_triplets(FRAME, None, None, np.array([[x, y]]), size=size)
        stamp = triplet.science
        if triplet.error is not None:
            assert "off the frame" in triplet.error
            low, high = np.ceil([x - size / 2, y - size / 2]), np.ceil([x + size / 2, y + size / 2])
            assert high.min() <= 0 or low[0] >= WIDTH or low[1] >= HEIGHT
            return
        assert stamp.shape == (size, size)
        # Every pixel tells where on the frame it was; the target is within half a pixel of the middle.
        rows, columns = np.nonzero(np.isfinite(stamp))
        origin = np.ceil([x - size / 2, y - size / 2])
        assert np.all(np.abs(np.array([x, y]) - origin - (size - 1) / 2) <= 0.5 + 1e-9)
        assert np.array_equal(stamp[rows, columns], FRAME[rows + int(origin[1]), columns + int(origin[0])])
        on_frame = [
            np.clip(limit, 0, None)
            for limit in (
                min(origin[0] + size, WIDTH) - max(origin[0], 0),
                min(origin[1] + size, HEIGHT) - max(origin[1], 0),
            )
        ]
        assert len(rows) == on_frame[0] * on_frame[1]

    @given(
        x=st.floats(0, WIDTH - 1),
        y=st.floats(0, HEIGHT - 1),
        size=st.integers(21, 41),
        angle=st.floats(-180, 180),
    )
    @settings(max_examples=25, deadline=None)
    def test_a_star_on_another_grid_lands_on_the_centre_pixel(
        self, x: float, y: float, size: int, angle: float
    ) -> None:
        base = grid()
        other = grid(scale=0.42, angle=angle, shift=(13.3, -7.6))
        sky = [base.pixel_to_world_values(x, y)]
        reference = np.zeros((200, 240))
        reference = stars(other, reference.shape, sky, 2.0)
        there = other.world_to_pixel_values(*sky[0])
        if not (9 < there[0] < 230 and 9 < there[1] < 190):
            return
        science = hdu(FRAME, base)
        (triplet,) = cut_triplets(science, hdu(reference, other), None, np.array([[x, y]]), size=size)
        stamp = np.nan_to_num(triplet.reference)
        origin = np.ceil([x - size / 2, y - size / 2])
        rows, columns = np.mgrid[:size, :size]
        centre = [
            (stamp * columns).sum() / stamp.sum() + origin[0],
            (stamp * rows).sum() / stamp.sum() + origin[1],
        ]
        if np.isfinite(triplet.reference).all():
            assert np.allclose(centre, [x, y], atol=0.02)
            assert stamp.sum() == pytest.approx(1000, rel=0.01)

    def test_every_row_is_a_triplet_or_says_why_not(self) -> None:
        positions = np.array([[500.0, 20.0], [1e300, -1e300], [np.nan, 3.0], [60.0, 45.0], [-2.0, 45.0]])
        triplets = list(cut_triplets(FRAME, FRAME, FRAME, positions))
        assert [triplet.id for triplet in triplets] == ["0", "1", "2", "3", "4"]
        for triplet in triplets[:2]:
            assert "off the frame of 120 x 90 pixels" in (triplet.error or "")
        assert "gives no position" in (triplets[2].error or "")
        assert (triplets[0].meta["x"], triplets[0].meta["y"]) == (500.0, 20.0)
        assert triplets[3].science[31, 31] == FRAME[45, 60]
        assert triplets[4].error is None
        assert np.isnan(triplets[4].science[31, 31])
        predictions = classify(iter(triplets))
        assert len(predictions) == 5
        assert sorted(predictions.errors) == [0, 1, 2]

    @pytest.mark.parametrize("size", [0, -5, 2.5, True, 10**6])
    def test_sizes_that_make_no_sense(self, size: Any) -> None:
        with pytest.raises(UsageError, match="size"):
            cut_triplets(FRAME, None, None, np.array([[5.0, 5.0]]), size=size)


class TestGrids:
    def test_one_grid_is_cut_bit_for_bit_without_interpolation(self) -> None:
        frames = [hdu(FRAME + i, grid()) for i in range(3)]
        (triplet,) = cut_triplets(*frames, np.array([[50.2, 40.4]]), size=21)
        for i, stamp in enumerate(triplet.stamps):
            assert np.array_equal(stamp, FRAME[30:51, 40:61] + i)
        assert triplet.pixel_scale == pytest.approx(0.5)

    def test_a_shift_by_whole_pixels_is_exact(self) -> None:
        shifted = hdu(FRAME, grid(shift=(5, 3)))
        (triplet,) = cut_triplets(hdu(FRAME, grid()), shifted, None, np.array([[50.0, 40.0]]), size=21)
        assert np.allclose(triplet.reference, FRAME[33:54, 45:66], rtol=1e-6)

    @pytest.mark.parametrize("scale", [0.1, 0.25, 0.5, 1.1])
    def test_flux_is_conserved_on_any_pixel_scale(self, scale: float) -> None:
        base, other = grid(), grid(scale=scale, angle=30, shift=(100, 100))
        sky = [base.pixel_to_world_values(60.3, 44.8)]
        reference = stars(other, (400, 500), sky, 1.8 * 0.5 / scale)
        (triplet,) = cut_triplets(
            hdu(FRAME, base), hdu(reference, other), None, np.array([[60.3, 44.8]]), size=25
        )
        assert np.nansum(triplet.reference) == pytest.approx(1000, rel=0.02)
        assert np.unravel_index(np.nanargmax(triplet.reference), (25, 25)) == (12, 12)

    def test_agrees_with_the_reproject_package(self) -> None:
        reproject = pytest.importorskip("reproject")
        base, other = grid(), grid(scale=0.45, angle=12, shift=(40, 50))
        rng = np.random.default_rng(0)
        sky = [base.pixel_to_world_values(x, y) for x, y in rng.uniform(20, 80, (12, 2))]
        reference = stars(other, (200, 220), sky, 2.5)
        whole, _ = reproject.reproject_interp((reference, other), base, (HEIGHT, WIDTH), order="bicubic")
        (triplet,) = cut_triplets(
            hdu(FRAME, base), hdu(reference, other), None, np.array([[50.0, 50.0]]), size=41
        )
        expected = whole[30:71, 30:71] * (0.5 / 0.45) ** 2
        assert np.abs(triplet.reference - expected).max() < 0.01 * expected.max()

    def test_without_wcs_other_shapes_are_refused(self) -> None:
        with pytest.raises(UsageError, match="WCS"):
            cut_triplets(FRAME, FRAME[:50], None, np.array([[5.0, 5.0]]))

    def test_nan_costs_its_own_area(self) -> None:
        reference = np.ones((200, 220))
        reference[90, 100] = np.nan
        frames = hdu(FRAME, grid()), hdu(reference, grid(scale=0.5, shift=(40.3, 50.3)))
        (triplet,) = cut_triplets(*frames, None, np.array([[60.0, 40.0]]), size=21)
        assert np.isnan(triplet.reference).sum() == 1
        assert np.nanmax(triplet.reference) == pytest.approx(1.0)


def test_real_frames(shared_data: Path) -> None:
    folder = shared_data / "packets" / "frames_decam"
    frames = [folder / f"{role}.fits" for role in ("science", "reference", "difference")]
    difference = fits.getdata(frames[2])
    row, column = np.unravel_index(np.argmax(difference), difference.shape)
    (triplet,) = cut_triplets(*frames, np.array([[column, row]]))
    assert triplet.difference is not None
    assert triplet.difference[31, 31] == difference.max()
    assert triplet.pixel_scale == pytest.approx(0.2623, abs=1e-3)
    assert triplet.fwhm == pytest.approx(3.852, abs=1e-3)


@pytest.mark.parametrize("turn", [0, 37, 180, -100])
@pytest.mark.parametrize("mirrored", [False, True])
def test_north_and_east_are_where_the_sky_has_them(turn: float, mirrored: bool, tmp_path: Path) -> None:
    from astropy.wcs import WCS

    from transientnet.cutting.cutouts import write_fits

    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [150.0, 20.0], [50, 50]
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    wcs.wcs.cd = np.array([[c, -s], [s, c]]) @ np.diag([1 if mirrored else -1, 1]) / 3600
    frame = fits.PrimaryHDU(np.random.default_rng(0).normal(100, 5, (100, 100)), wcs.to_header())
    triplets = list(cut_triplets(frame, None, frame, {"x": [49.0], "y": [49.0]}, size=31))
    written = list(write_fits(triplets, tmp_path, wcs=wcs))
    here = wcs.wcs_world2pix([[150.0, 20.0], [150.0, 20.001], [150.001, 20.0]], 0)
    for triplet in (*triplets, *open_triplets(written)):
        for name, (x, y) in zip(("north", "east"), here[1:] - here[0], strict=True):
            off = triplet.meta[name] - np.degrees(np.arctan2(-x, y))
            assert abs((off + 180) % 360 - 180) < 0.1
