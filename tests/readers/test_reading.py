"""What the user knows of a source: numbers, quantities, one for all candidates or one for each."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u

from transientnet import Triplet, classify, open_triplets
from transientnet.errors import ReadError, UsageError
from transientnet.readers.open import Reading, find_inputs, read

STAMPS = np.random.default_rng(0).normal(100, 5, (3, 3, 31, 31)).astype(np.float32)


def fwhms(reading: Reading, source: object = STAMPS) -> list[float | None]:
    return [triplet.fwhm for triplet in reading.open(source)]


@pytest.mark.parametrize(
    ("scale", "fwhm", "expected"),
    [
        (None, None, [None] * 3),
        (0.5, 3.0, [3.0] * 3),
        (None, 3 * u.pix, [3.0] * 3),
        (0.5, 1.5 * u.arcsec, [3.0] * 3),
        (0.5 * u.arcsec / u.pix, 0.025 * u.arcmin, [3.0] * 3),
        (500 * u.mas, 1.5 * u.arcsec, [3.0] * 3),
        (None, [1, 2, 3], [1.0, 2.0, 3.0]),
        ([0.5, 1, 1.5], [1.5, 1.5, 1.5] * u.arcsec, [3.0, 1.5, 1.0]),
    ],
)
def test_seeing_and_sampling_in_any_unit(scale: object, fwhm: object, expected: list[float | None]) -> None:
    found = fwhms(Reading(None, scale, fwhm))
    assert found == (expected if fwhm is None else pytest.approx(expected))


def test_values_belong_to_the_candidates_of_all_files_together(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", STAMPS[:2])
    np.save(tmp_path / "b.npy", STAMPS[2])
    assert fwhms(Reading(None, None, [1, 2, 3]), tmp_path) == [1, 2, 3]
    whole = classify(tmp_path, fwhm=np.array([2.0, 3.0, 4.0]))
    for i, fwhm in enumerate([2.0, 3.0, 4.0]):
        one = classify(STAMPS[i], fwhm=fwhm)
        np.testing.assert_allclose(one.probabilities[0], whole.probabilities[i], atol=1e-6)
    np.testing.assert_array_equal(whole.probabilities, classify(STAMPS, fwhm=[2, 3, 4] * u.pix).probabilities)


@pytest.mark.parametrize("fwhm", [[1, 2], [1, 2, 3, 4]])
def test_another_number_of_values_than_candidates_is_refused(fwhm: list[float]) -> None:
    with pytest.raises(UsageError, match=f"fwhm has {len(fwhm)} values"):
        classify(STAMPS, fwhm=fwhm)


@pytest.mark.parametrize("value", [0, -1, np.nan, np.inf, "wide", [1, -2, 3], np.ones((2, 2)), 3 * u.s])
@pytest.mark.parametrize("name", ["pixel_scale", "fwhm"])
def test_senseless_values_are_refused(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=name):
        classify(STAMPS, **{name: value})


def test_an_angle_needs_a_pixel_scale() -> None:
    with pytest.raises(UsageError, match="no pixel scale is known"):
        classify(STAMPS, fwhm=1.5 * u.arcsec)
    with_scale = [Triplet(*stamp, id=str(i), pixel_scale=0.5) for i, stamp in enumerate(STAMPS)]
    assert fwhms(Reading(None, None, 1.5 * u.arcsec), with_scale) == [3.0] * 3


def test_what_the_user_says_stands_in_the_meta() -> None:
    for fwhm in (2.5, [2.5] * 3, 2.5 * u.pix):
        triplet = next(Reading(None, 0.3, fwhm).open(STAMPS))
        assert (triplet.meta["fwhm_from"], triplet.meta["pixel_scale_from"]) == ("user", "user")


def test_an_open_file_is_read_whole(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", STAMPS)
    with open(tmp_path / "a.npy", "rb") as file:
        triplets = list(open_triplets(file))
    assert [triplet.source for triplet in triplets] == [str(tmp_path / "a.npy")] * 3
    np.testing.assert_array_equal(triplets[1].science, STAMPS[1, 0])
    (memory, *_) = open_triplets(io.BytesIO((tmp_path / "a.npy").read_bytes()))
    np.testing.assert_array_equal(memory.science, STAMPS[0, 0])
    with open(tmp_path / "a.npy", encoding="latin-1") as text, pytest.raises(UsageError, match="binary"):
        list(open_triplets(text))


def test_inputs_are_listed_once_and_read_by_one_route(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", STAMPS)
    (tmp_path / "b.npy").write_bytes(b"\x93NUMPY\x01\x00garbage")
    inputs = find_inputs(tmp_path)
    by_input = [triplet for item in inputs for triplet in read(item, Reading())]
    assert [t.id for t in by_input] == [t.id for t in open_triplets(tmp_path)] == ["0", "1", "2", "b"]
    assert by_input[-1].error is not None
    (gone,) = read(str(tmp_path / "gone.npy"), Reading())
    assert gone.error is not None
    with pytest.raises(ReadError, match="no such file"):
        find_inputs(tmp_path / "none")
