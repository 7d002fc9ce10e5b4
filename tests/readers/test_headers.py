"""What headers tell of sampling, seeing, order and origin, wherever pipelines put it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData

from transientnet import Triplet, classify, open_triplets
from transientnet.readers.image import facts
from transientnet.readers.layouts import Layout
from transientnet.readers.open import Reading

RNG = np.random.default_rng(8)
STAMPS = RNG.normal(100, 5, (3, 51, 51)).astype(np.float32)
NAMES = ("SCI", "REF", "DIFF")


def cards(**values: Any) -> fits.Header:
    """Values, or (value, comment); two underscores in a keyword are a hyphen, three a blank."""
    header = fits.Header()
    for key, value in values.items():
        keyword = key.replace("___", " ").replace("__", "-")
        header[f"HIERARCH {keyword}" if len(keyword) > 8 else keyword] = value
    return header


def write(path: Path, primary: fits.Header, *headers: fits.Header) -> Path:
    own = [*headers, *[fits.Header()] * (3 - len(headers))]
    images = [fits.ImageHDU(s, h, n) for s, h, n in zip(STAMPS, own, NAMES, strict=True)]
    fits.HDUList([fits.PrimaryHDU(header=primary), *images]).writeto(path)
    return path


def one(path: Path) -> Triplet:
    (triplet,) = open_triplets(path)
    assert triplet.error is None
    return triplet


WCS = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CD1_1": -2e-4, "CD2_2": 2e-4}


@pytest.mark.parametrize(
    ("told", "scale", "fwhm"),
    [
        ({"SEEING": (1.2, "[arcsec]"), "PIXSCALE": 0.4}, 0.4, 3.0),
        ({"FWHM": (3.1, "[pix]")}, None, 3.1),
        ({**WCS, "SEEING": 1.44}, 0.72, 2.0),
    ],
)
@pytest.mark.parametrize("where", ["primary", "extension"])
def test_an_empty_primary_header_holds_for_all_extensions(
    told: dict[str, Any], scale: float | None, fwhm: float, where: str, tmp_path: Path
) -> None:
    headers = (cards(**told),) if where == "primary" else (fits.Header(), cards(**told))
    triplet = one(write(tmp_path / "a.fits", *headers))
    assert triplet.pixel_scale == (None if scale is None else pytest.approx(scale))
    assert triplet.fwhm == pytest.approx(fwhm)
    assert triplet.meta["fwhm_from"] == "file"


def test_an_extension_s_own_word_goes_first_and_the_reference_s_seeing_is_not_the_science_s(
    tmp_path: Path,
) -> None:
    own = write(tmp_path / "own.fits", cards(FWHM=3.0), cards(FWHM=4.0))
    assert one(own).fwhm == 4.0
    other = write(tmp_path / "ref.fits", fits.Header(), fits.Header(), cards(FWHM=6.0))
    assert one(other).fwhm is None


@pytest.mark.parametrize(
    ("key", "value", "comment", "fwhm"),
    [
        ("SEEING", 2.9, "[px] seeing FWHM", 2.9),
        ("SEEING", 1.2, "", 3.0),
        ("FWHM", 1.2, "FWHM in arc sec", 3.0),
        ("FWHM", 1.2, "[arcsec] 3 pixels", 3.0),
        ("L1FWHM", 1.2, "[arcsec] Frame FWHM", 3.0),
        ("PSF__FWHM", 3.4, "[pix] PSF FWHM", 3.4),
        ("CHIP.SEEING", 2.8, "[pixels]", 2.8),
        ("PSF___FWHM___PIX", 2.7, "", 2.7),
        ("FWHMERR", 0.4, "[pix]", None),
        ("REFFWHM", 5.0, "[pix]", None),
        ("MYFWHM", 5.0, "no unit", None),
    ],
)
def test_the_seeing_is_read_in_its_unit(
    key: str, value: float, comment: str, fwhm: float | None, tmp_path: Path
) -> None:
    triplet = one(write(tmp_path / "a.fits", cards(PIXSCALE=0.4, **{key: (value, comment)})))
    assert triplet.fwhm == (None if fwhm is None else pytest.approx(fwhm))


@pytest.mark.parametrize(
    ("told", "scale"),
    [
        ({**WCS, "PIXSCALE": 0.36}, 0.72),
        ({**WCS, "SCALE": (1.0327, "flux scale factor")}, 0.72),
        ({"SCALE": (1.0327, "flux scale factor")}, None),
        ({"PIXSCALE": (1.11e-4, "[deg] per pixel")}, 0.3996),
        ({"PIXSCALE": 1.11e-4}, None),
        ({"PIXSCALE": 0.36}, 0.36),
    ],
)
def test_the_wcs_goes_before_keywords_and_no_scale_is_believed_blindly(
    told: dict[str, Any], scale: float | None, tmp_path: Path
) -> None:
    found = one(write(tmp_path / "a.fits", cards(**told))).pixel_scale
    assert found == (None if scale is None else pytest.approx(scale))


def test_a_normalisation_in_a_stack_is_no_pixel_scale(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", triplets=STAMPS[None], scale=[3.1])
    assert one(tmp_path / "a.npz").pixel_scale is None


def test_a_table_s_header_holds_for_its_rows(tmp_path: Path) -> None:
    columns = [
        fits.Column(name, "2601E", dim="(51,51)", array=STAMPS[i : i + 1].reshape(1, -1))
        for i, name in enumerate(("THUMBNAIL_RED", "THUMBNAIL_REF", "THUMBNAIL_D"))
    ]
    table = fits.BinTableHDU.from_columns(columns)
    table.header["PIXSCALE"] = 0.56
    primary = fits.PrimaryHDU()
    primary.header["SEEING"] = (1.68, "[arcsec]")
    fits.HDUList([primary, table]).writeto(tmp_path / "a.fits")
    triplet = one(tmp_path / "a.fits")
    assert triplet.pixel_scale == 0.56
    assert triplet.fwhm == pytest.approx(3.0)


def test_each_candidate_of_a_file_has_its_own_name_and_object(tmp_path: Path) -> None:
    images: list[Any] = [fits.PrimaryHDU(header=cards(SEEING=(1.2, "[arcsec]"), PIXSCALE=0.4))]
    for version in (1, 2):
        for stamp, name in zip(STAMPS, NAMES, strict=True):
            hdu = fits.ImageHDU(stamp, cards(CANDID=f"c{version}", OBJECT=f"AT2024{version}"), name)
            hdu.ver = version
            images.append(hdu)
    fits.HDUList(images).writeto(tmp_path / "many.fits")
    first, second = open_triplets(tmp_path / "many.fits")
    assert (first.id, first.group, first.fwhm) == ("c1", "AT20241", pytest.approx(3.0))
    assert (second.id, second.group, second.pixel_scale) == ("c2", "AT20242", 0.4)


@pytest.mark.parametrize(
    "told",
    [
        {"CHANNELS": "difference,science,reference"},
        {"PLANE1": "DIFF", "PLANE2": "SCI", "PLANE3": "REF"},
    ],
)
def test_the_declared_order_of_a_cube_is_followed(told: dict[str, str], tmp_path: Path) -> None:
    fits.PrimaryHDU(STAMPS[[2, 0, 1]], cards(**told)).writeto(tmp_path / "a.fits")
    triplet = one(tmp_path / "a.fits")
    for stamp, expected in zip(triplet.stamps, STAMPS, strict=True):
        np.testing.assert_array_equal(stamp, expected)


def test_a_type_that_all_images_share_is_no_name(tmp_path: Path) -> None:
    kind = cards(IMAGETYP="SCIENCE")
    hdus = [fits.PrimaryHDU(STAMPS[0], kind), *(fits.ImageHDU(stamp, kind) for stamp in STAMPS[1:])]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    triplet = one(tmp_path / "a.fits")
    for stamp, expected in zip(triplet.stamps, STAMPS, strict=True):
        np.testing.assert_array_equal(stamp, expected)


@pytest.mark.parametrize(
    ("told", "survey"),
    [
        ({"OBJECT": "ZTF23abcdefg", "TELESCOP": "1m0-10"}, None),
        ({"OBJECT": "ZTF23abcdefg", **WCS}, None),
        ({"OBJECT": "ZTF23abcdefg"}, "ZTF"),
        ({"OBJECT": "AT2023abc", "INSTRUME": "ZTF/MOSAIC"}, "ZTF"),
    ],
)
def test_an_object_s_name_tells_who_discovered_it(
    told: dict[str, Any], survey: str | None, tmp_path: Path
) -> None:
    triplet = one(write(tmp_path / "a.fits", cards(**told)))
    assert triplet.meta.get("survey") == survey
    assert triplet.fwhm == (None if survey is None else 2.0)
    assert triplet.science.shape == (51, 51)
    assert "truncated" not in triplet.meta


def crop(path: Path, side: int, **fields: float) -> Triplet:
    import pyarrow as pa
    import pyarrow.parquet as pq

    whole = RNG.normal(100, 5, (3, 63, 63)).astype(np.float32)
    low = (63 - side) // 2
    names = ("cutoutScience", "cutoutTemplate", "cutoutDifference")
    stamps = {n: s[low : low + side, low : low + side].tolist() for n, s in zip(names, whole, strict=True)}
    row = {"objectId": "ZTF21abcdefg", "candid": 1, "candidate": fields, **stamps}
    pq.write_table(pa.Table.from_pylist([row]), path)
    return one(path)


@pytest.mark.parametrize(
    "fields",
    [{"xpos": 1500.0, "ypos": 1200.0}, {"xpos": 1500.0, "ypos": 1200.0, "mindtoedge": 1200.0}, {"ra": 1.0}],
)
@pytest.mark.parametrize("side", [21, 49])
def test_a_crop_about_the_centre_stays_there(side: int, fields: dict[str, float], tmp_path: Path) -> None:
    triplet = crop(tmp_path / "a.parquet", side, **fields)
    assert triplet.science.shape == (side, side)
    assert "truncated" not in triplet.meta


def test_a_stamp_at_a_corner_of_the_chip_is_no_crop(tmp_path: Path) -> None:
    # 14 rows and columns of 63 are missing: the target is 17 pixels from two edges.
    low = crop(tmp_path / "low.parquet", 49, xpos=18.0, ypos=18.0, mindtoedge=17.0)
    assert low.science.shape == (63, 63)
    assert np.isnan(low.science[:14]).all()
    high = crop(tmp_path / "high.parquet", 49, xpos=3055.0, ypos=3063.0, mindtoedge=17.0)
    assert high.science.shape == (63, 63)
    assert np.isnan(high.science[-14:]).all()


@pytest.mark.parametrize(
    ("told", "fwhm"),
    [
        ({"FWHM": (1.5, "[arcsec]")}, 3.75),
        ({"SEEING": (5.2, "[pix]")}, 5.2),
        ({"L1FWHM": 1.2}, 3.0),
        ({"AGFWHM": (2.4, "[arcsec] autoguider"), "L1FWHM": (1.2, "[arcsec] frame")}, 3.0),
        ({"AGFWHM": (2.4, "[arcsec] autoguider"), "CHIPFWHM": (1.6, "[arcsec]")}, 4.0),
        ({"AGFWHM": (2.4, "[arcsec] autoguider")}, 6.0),
        ({"FWHM": (1e9, "[arcsec]")}, None),
    ],
)
def test_the_frame_s_own_seeing_counts_in_its_unit(
    told: dict[str, Any], fwhm: float | None, tmp_path: Path
) -> None:
    assert one(write(tmp_path / "a.fits", cards(PIXSCALE=0.4, **told))).fwhm == (
        None if fwhm is None else pytest.approx(fwhm)
    )


@pytest.mark.parametrize("where", ["plain", "extensions", "cube", "table"])
@pytest.mark.parametrize("scale", [{}, {"PIXSCALE": 0.4}])
def test_the_user_s_pixel_scale_converts_arcseconds_of_the_header(
    where: str, scale: dict[str, float], tmp_path: Path
) -> None:
    path, header = tmp_path / "a.fits", cards(FWHM=(1.5, "[arcsec]"), **scale)
    if where == "extensions":
        write(path, header)
    elif where == "table":
        columns = [
            fits.Column(name, "2601E", dim="(51,51)", array=STAMPS[i : i + 1].reshape(1, -1))
            for i, name in enumerate(NAMES)
        ]
        fits.BinTableHDU.from_columns(columns, header).writeto(path)
    else:
        fits.PrimaryHDU(STAMPS if where == "cube" else STAMPS[0], header).writeto(path)
    own = one(path)
    assert own.fwhm == (pytest.approx(3.75) if scale else None)
    for given in (0.5, [0.5], 500 * u.mas):
        (triplet,) = Reading(None, given).open(path)
        assert (triplet.pixel_scale, triplet.fwhm) == (0.5, 3.0)
        assert (triplet.meta["pixel_scale_from"], triplet.meta["fwhm_from"]) == ("user", "file")
    (triplet,) = open_triplets(path, pixel_scale=0.5, fwhm=2.0)
    assert triplet.fwhm == 2.0
    (triplet,) = open_triplets(path, layout=Layout(pixel_scale=0.6))
    assert triplet.fwhm == pytest.approx(3.75 if scale else 2.5)


def test_arcseconds_of_a_header_outlive_its_wrong_scale(tmp_path: Path) -> None:
    path = write(tmp_path / "a.fits", cards(SEEING=2.5, PIXSCALE=0.0101))
    assert one(path).fwhm is None
    (triplet,) = open_triplets(path, pixel_scale=1.0)
    assert (triplet.pixel_scale, triplet.fwhm, triplet.meta["fwhm_from"]) == (1.0, 2.5, "file")
    header, given = classify(path, pixel_scale=1.0), classify(path, pixel_scale=1.0, fwhm=2.5)
    np.testing.assert_array_equal(header.probabilities, given.probabilities)
    # Nor does a scale of the user's that makes no sense of it.
    (triplet,) = open_triplets(path, pixel_scale=0.01)
    assert (triplet.pixel_scale, triplet.fwhm) == (0.01, None)


def test_the_user_s_pixel_scale_leaves_pixels_of_the_header_alone(tmp_path: Path) -> None:
    write(tmp_path / "a.fits", cards(PIXSCALE=0.4, FWHM=(3.1, "[pix]")))
    (triplet,) = open_triplets(tmp_path / "a.fits", pixel_scale=0.8)
    assert (triplet.pixel_scale, triplet.fwhm) == (0.8, 3.1)


def test_a_column_of_a_table_may_give_the_seeing_in_arcseconds(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", triplets=STAMPS[None], pixel_scale=[0.5], fwhm_arcsec=[1.5])
    assert one(tmp_path / "a.npz").fwhm == 3.0
    (triplet,) = open_triplets(tmp_path / "a.npz", pixel_scale=0.3)
    assert triplet.fwhm == pytest.approx(5.0)


def test_seeing_of_images_in_memory() -> None:
    data = CCDData(STAMPS, unit="adu", meta=cards(FWHM=(1.5, "[arcsec]"), PIXSCALE=0.5))
    (triplet,) = open_triplets(data)
    assert (triplet.pixel_scale, triplet.fwhm) == (0.5, 3.0)


def test_a_header_by_itself_gives_its_facts() -> None:
    header = cards(SEEING=(1.5, "[arcsec]"))
    assert facts(header) == (None, None, None, 1.5)
    assert facts(header, pixel_scale=0.5) == (0.5, 3.0, None, 1.5)
    assert facts(cards(SEEING=(5.2, "[pix]"), PIXSCALE=0.3)) == (0.3, 5.2, None, None)
