"""FITS in every dress: extensions, cubes, tables, masks, compression, scaling, orientation."""

from __future__ import annotations

import gzip
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st

from transientnet import Triplet, open_triplets
from transientnet.errors import ReadError
from transientnet.readers import hdus, stamp
from transientnet.readers.candidate import from_record
from transientnet.readers.image import psf_fwhm
from transientnet.readers.layouts import GENERIC
from transientnet.readers.stamp import decode_image, decode_stamp

RNG = np.random.default_rng(7)
SCI, REF, DIFF = (RNG.normal(100, 5, (20, 24)).astype(np.float32) for _ in range(3))


def one(path: Path, **kwargs: Any) -> Triplet:
    (triplet,) = open_triplets(path, **kwargs)
    return triplet


def equal(triplet: Triplet, *stamps: npt.NDArray[Any] | None) -> None:
    assert triplet.error is None, triplet.error
    for got, expected in zip(triplet.stamps, stamps, strict=True):
        if expected is None:
            assert got is None
        else:
            np.testing.assert_array_equal(got, expected)


def as_bytes(*hdus: Any) -> bytes:
    file = io.BytesIO()
    fits.HDUList(list(hdus)).writeto(file)
    return file.getvalue()


def wcs(scale: float, turn: float = 0.0, flip: bool = False) -> fits.Header:
    """North up, east left; turned by `turn` degrees, x mirrored if `flip`."""
    angle, size = np.radians(turn), scale / 3600
    sky = np.array([[-size, 0.0], [0.0, size]])
    matrix = sky @ np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if flip:
        matrix = matrix @ np.diag([-1.0, 1.0])
    keys = [f"CD{i}_{j}" for i in (1, 2) for j in (1, 2)]
    return fits.Header(
        {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", **dict(zip(keys, matrix.flat, strict=True))}
    )


@pytest.mark.parametrize(
    "names",
    [
        ("SCI", "REF", "DIFF"),
        ("sci", "tmpl", "sub"),
        ("IMAGE", "TEMPLATE", "DIFFERENCE"),
        ("Science", "Reference", "Difference"),
        ("NEW", "REF", "SUBTRACTION"),
        ("SCI_IMAGE", "REF_IMAGE", "DIFF_IMAGE"),
    ],
)
def test_extensions_by_name_in_any_order(tmp_path: Path, names: tuple[str, str, str]) -> None:
    hdus = [fits.ImageHDU(d, name=n) for n, d in zip(names, (SCI, REF, DIFF), strict=True)]
    fits.HDUList([fits.PrimaryHDU(), hdus[2], hdus[0], hdus[1]]).writeto(tmp_path / "x.fits")
    equal(one(tmp_path / "x.fits"), SCI, REF, DIFF)


def test_primary_and_unnamed_extensions_are_in_the_usual_order(tmp_path: Path) -> None:
    hdus = [fits.PrimaryHDU(SCI), fits.ImageHDU(REF), fits.ImageHDU(DIFF)]
    fits.HDUList(hdus).writeto(tmp_path / "x.fits")
    equal(one(tmp_path / "x.fits"), SCI, REF, DIFF)


def test_unnamed_primary_beside_named_extensions_is_the_science(tmp_path: Path) -> None:
    hdus = [fits.PrimaryHDU(SCI), fits.ImageHDU(REF, name="REF"), fits.ImageHDU(DIFF, name="DIFF")]
    fits.HDUList(hdus).writeto(tmp_path / "x.fits")
    equal(one(tmp_path / "x.fits"), SCI, REF, DIFF)


def test_absent_and_empty_extensions_are_none(tmp_path: Path) -> None:
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(SCI, name="SCI"), fits.ImageHDU(None, name="REF")]
    fits.HDUList(hdus).writeto(tmp_path / "x.fits")
    equal(one(tmp_path / "x.fits"), SCI, None, None)


def test_several_candidates_in_one_file(tmp_path: Path) -> None:
    hdus = [
        fits.ImageHDU(stamp + i, name=name, ver=i)
        for i in (1, 2, 3)
        for name, stamp in (("SCI", SCI), ("REF", REF), ("DIFF", DIFF))
        if (i, name) != (2, "REF")
    ]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(tmp_path / "x.fits")
    triplets = list(open_triplets(tmp_path / "x.fits"))
    assert [t.id for t in triplets] == ["x_0", "x_1", "x_2"]
    for i, triplet in enumerate(triplets, 1):
        equal(triplet, SCI + i, None if i == 2 else REF + i, DIFF + i)


def test_candidates_numbered_in_their_names(tmp_path: Path) -> None:
    hdus = [
        fits.ImageHDU(stamp + i, name=f"{name}_{i}")
        for i in (1, 2, 10)
        for name, stamp in (("SCI", SCI), ("REF", REF), ("DIFF", DIFF))
    ]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(tmp_path / "x.fits")
    triplets = list(open_triplets(tmp_path / "x.fits"))
    for i, triplet in zip((1, 2, 10), triplets, strict=True):
        equal(triplet, SCI + i, REF + i, DIFF + i)


@pytest.mark.parametrize("form", ["SCI_{}", "{}_SCI", "{}.SCI", "SCI-{}"])
@pytest.mark.parametrize("ids", [("ZTF18abc", "ZTF19xyz"), ("cand_a", "cand_b")])
def test_candidates_named_beside_their_channels(tmp_path: Path, form: str, ids: tuple[str, str]) -> None:
    path = tmp_path / "night.fits"
    planes = {"SCI": SCI, "REF": REF, "DIFF": DIFF}
    images = [
        fits.ImageHDU(plane + k, name=form.replace("SCI", channel).format(name))
        for k, name in enumerate(ids)
        for channel, plane in planes.items()
    ]
    fits.HDUList([fits.PrimaryHDU(), *images]).writeto(path)
    triplets = list(open_triplets(path))
    assert [triplet.id for triplet in triplets] == [name.upper() for name in ids]
    for k, triplet in enumerate(triplets):
        equal(triplet, SCI + k, REF + k, DIFF + k)


def test_a_cube_per_candidate(tmp_path: Path) -> None:
    cube = np.stack([SCI, REF, DIFF])
    named = [fits.ImageHDU(cube + k, fits.Header({"RA": 10.0 + k}), name=f"c{k}") for k in range(3)]
    fits.HDUList([fits.PrimaryHDU(), *named]).writeto(tmp_path / "named.fits")
    plain = [fits.ImageHDU(cube + k) for k in range(3)]
    fits.HDUList([fits.PrimaryHDU(), *plain]).writeto(tmp_path / "plain.fits")
    for name, ids in (("named", ["C0", "C1", "C2"]), ("plain", ["plain_0", "plain_1", "plain_2"])):
        triplets = list(open_triplets(tmp_path / f"{name}.fits"))
        assert [triplet.id for triplet in triplets] == ids
        for k, triplet in enumerate(triplets):
            equal(triplet, SCI + k, REF + k, DIFF + k)


def test_a_stack_per_channel(tmp_path: Path) -> None:
    planes = {"SCI": SCI, "REF": REF, "DIFF": DIFF}
    images = [fits.ImageHDU(np.stack([p, p + 1, p + 2]), name=name) for name, p in planes.items()]
    fits.HDUList([fits.PrimaryHDU(), *images]).writeto(tmp_path / "s.fits")
    triplets = list(open_triplets(tmp_path / "s.fits"))
    assert len(triplets) == 3
    for k, triplet in enumerate(triplets):
        equal(triplet, SCI + k, REF + k, DIFF + k)


def test_table_with_one_column_for_all_stamps(tmp_path: Path) -> None:
    cube = np.stack([SCI, REF, DIFF])
    table = Table({"candid": ["a", "b"], "cutouts": np.stack([cube, cube + 1]), "pixscale": [0.4, 0.4]})
    table.write(tmp_path / "t.fits")
    triplets = list(open_triplets(tmp_path / "t.fits"))
    assert [triplet.id for triplet in triplets] == ["a", "b"]
    assert {triplet.pixel_scale for triplet in triplets} == {0.4}
    for k, triplet in enumerate(triplets):
        equal(triplet, SCI + k, REF + k, DIFF + k)


def test_two_unnamed_images_are_not_guessed(tmp_path: Path) -> None:
    fits.HDUList([fits.PrimaryHDU(SCI), fits.ImageHDU(DIFF)]).writeto(tmp_path / "x.fits")
    assert "layout" in (one(tmp_path / "x.fits").error or "")
    (tmp_path / "l.toml").write_text("fields = {science = 0, difference = 1}")
    equal(one(tmp_path / "x.fits", layout=tmp_path / "l.toml"), SCI, None, DIFF)


def test_cubes_and_stacks(tmp_path: Path) -> None:
    cube = np.stack([SCI, REF, DIFF])
    fits.PrimaryHDU(cube).writeto(tmp_path / "cube.fits")
    equal(one(tmp_path / "cube.fits"), SCI, REF, DIFF)
    fits.PrimaryHDU(np.moveaxis(cube, 0, -1)).writeto(tmp_path / "last.fits")
    equal(one(tmp_path / "last.fits"), SCI, REF, DIFF)
    fits.PrimaryHDU(np.stack([cube, cube + 1])).writeto(tmp_path / "stack.fits")
    first, second = open_triplets(tmp_path / "stack.fits")
    equal(first, SCI, REF, DIFF)
    equal(second, SCI + 1, REF + 1, DIFF + 1)
    fits.PrimaryHDU(cube[:2]).writeto(tmp_path / "two.fits")
    assert "order" in (one(tmp_path / "two.fits").error or "")
    (tmp_path / "l.toml").write_text("order = ['science', 'difference']")
    equal(one(tmp_path / "two.fits", layout=tmp_path / "l.toml"), SCI, None, REF)


def test_table_with_a_column_per_stamp(tmp_path: Path) -> None:
    columns = [
        fits.Column("NUMBER", "K", array=[70000000001, 70000000002]),
        fits.Column("CANDID", "K", array=[70000000001, 70000000002]),
        fits.Column("RA_DEG", "D", array=[10.5, 11.5]),
        fits.Column("THUMBNAIL_D", "480E", dim="(24,20)", array=np.stack([DIFF, DIFF])),
        fits.Column("THUMBNAIL_RED", "480E", dim="(24,20)", array=np.stack([SCI, SCI + 1])),
        fits.Column("THUMBNAIL_REF", "480E", dim="(24,20)", array=np.stack([REF, REF])),
        fits.Column("THUMBNAIL_SCORR", "480E", dim="(24,20)", array=np.stack([REF, REF]) * 9),
    ]
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "x.fits")
    first, second = open_triplets(tmp_path / "x.fits")
    equal(first, SCI, REF, DIFF)
    equal(second, SCI + 1, REF, DIFF)
    assert (first.id, second.id, second.meta["ra"]) == ("70000000001", "70000000002", 11.5)


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "u4", "f4", "f8"])
@pytest.mark.parametrize("compress", ["plain", "gz", "fz"])
def test_every_number_format(tmp_path: Path, dtype: str, compress: str) -> None:
    pixels = SCI.astype(dtype)
    path = tmp_path / f"x.fits{'' if compress == 'plain' else '.' + compress}"
    if compress == "fz":
        if dtype in ("f4", "f8"):
            hdu = fits.CompImageHDU(pixels, compression_type="GZIP_1", quantize_level=0)
        else:
            hdu = fits.CompImageHDU(pixels, compression_type="RICE_1")
        hdu.writeto(path)
    else:
        fits.PrimaryHDU(pixels).writeto(path)
    equal(one(path), pixels, None, None)


def test_scaling_and_blank(tmp_path: Path) -> None:
    hdu = fits.PrimaryHDU(np.arange(480, dtype=np.int16).reshape(20, 24))
    hdu.header["BSCALE"], hdu.header["BZERO"], hdu.header["BLANK"] = 0.5, 10.0, 7
    raw = as_bytes(hdu)
    (tmp_path / "x.fits").write_bytes(raw)
    science = one(tmp_path / "x.fits").science
    assert np.isnan(science[0, 7])
    assert science[0, 8] == 14.0
    np.testing.assert_array_equal(decode_stamp(raw), science)


def test_ccddata_mask_becomes_nan_and_uncertainty_is_no_stamp(tmp_path: Path) -> None:
    mask = np.zeros(SCI.shape, bool)
    mask[3, 4] = True
    ccd = CCDData(SCI, mask=mask, uncertainty=StdDevUncertainty(np.sqrt(SCI)), unit="adu")
    ccd.write(tmp_path / "x.fits")
    triplet = one(tmp_path / "x.fits")
    assert triplet.difference is None
    np.testing.assert_array_equal(np.isnan(triplet.science), mask)
    np.testing.assert_array_equal(triplet.science[~mask], SCI[~mask])


def test_mask_of_one_channel_and_of_all(tmp_path: Path) -> None:
    bad = np.zeros(SCI.shape, np.uint8)
    bad[5, 6] = 1
    stamps = [fits.ImageHDU(d, name=n) for n, d in (("SCI", SCI), ("REF", REF), ("DIFF", DIFF))]
    fits.HDUList([fits.PrimaryHDU(), *stamps, fits.ImageHDU(bad, name="REF_MASK")]).writeto(
        tmp_path / "a.fits"
    )
    fits.HDUList([fits.PrimaryHDU(), *stamps, fits.ImageHDU(bad, name="MASK")]).writeto(tmp_path / "b.fits")
    holes = [[int(np.isnan(s).sum()) for s in t.stamps if s is not None] for t in open_triplets(tmp_path)]
    assert holes == [[0, 1, 0], [1, 1, 1]]


@pytest.mark.parametrize(
    ("cards", "scale", "fwhm"),
    [
        ({"CDELT1": -0.33 / 3600, "CDELT2": 0.33 / 3600, "SEEING": 1.32}, 0.33, 4.0),
        ({"CD1_1": 0.0, "CD1_2": 1e-4, "CD2_1": 1e-4, "CD2_2": 0.0}, 0.36, None),
        ({"PC1_1": 1.0, "CDELT1": 2e-4, "CDELT2": 2e-4}, 0.72, None),
        ({"CDELT1": 1.01, "CDELT2": 1.01, "CUNIT1": "arcsec", "CUNIT2": "arcsec"}, 1.01, None),
        ({"PIXSCALE": 0.4, "FWHM": 2.5}, 0.4, 2.5),
        ([("SECPIX", 0.5), ("FWHM", 2.0, "[arcsec] median")], 0.5, 4.0),
        ([("SEEING", 2.2, "[pixels] median FWHM")], None, 2.2),
        ({"SEEING": 1.2}, None, None),
        ({"FWHM": -99.0, "PSF_FWHM": 3.1}, None, 3.1),
        ({"CDELT1": 1.0, "CDELT2": 1.0}, None, None),
    ],
)
def test_pixel_scale_and_fwhm_of_headers(
    tmp_path: Path, cards: Any, scale: float | None, fwhm: float | None
) -> None:
    fits.PrimaryHDU(SCI, fits.Header(cards)).writeto(tmp_path / "x.fits")
    triplet = one(tmp_path / "x.fits")
    assert triplet.pixel_scale == (None if scale is None else pytest.approx(scale))
    assert triplet.fwhm == (None if fwhm is None else pytest.approx(fwhm))


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
@pytest.mark.parametrize("flip", [False, True])
def test_reference_is_brought_into_the_science_orientation(tmp_path: Path, turn: int, flip: bool) -> None:
    """The same sky on a turned and mirrored pixel grid: each pixel must find its place again."""
    side = SCI[:20, :20]
    # Where the turned grid's pixel (x, y) lies on the science grid, from its WCS alone.
    angle = np.radians(turn)
    step = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if flip:
        step = step @ np.diag([-1.0, 1.0])
    y, x = np.mgrid[:20, :20] - 9.5
    u, v = np.rint(np.tensordot(step, np.stack([x, y]), 1) + 9.5).astype(int)
    turned = side[v, u]
    hdus = [
        fits.ImageHDU(side, wcs(0.5), name="SCI"),
        fits.ImageHDU(turned, wcs(0.5, turn, flip), name="REF"),
    ]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(tmp_path / "x.fits")
    equal(one(tmp_path / "x.fits"), side, side, None)


def test_other_rotations_are_left_alone(tmp_path: Path) -> None:
    hdus = [fits.ImageHDU(SCI, wcs(0.5), name="SCI"), fits.ImageHDU(REF, wcs(0.5, 45), name="REF")]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(tmp_path / "x.fits")
    equal(one(tmp_path / "x.fits"), SCI, REF, None)


def test_id_group_and_survey_of_the_header(tmp_path: Path) -> None:
    cards = {"CANDID": 123456, "OBJECTID": "ZTF20abcdefg", "INSTRUME": "ZTF/MOSAIC", "RA": 10.0, "DEC": -5.0}
    fits.PrimaryHDU(SCI, fits.Header(cards)).writeto(tmp_path / "x.fits")
    triplet = one(tmp_path / "x.fits")
    assert (triplet.id, triplet.group, triplet.meta["survey"]) == ("123456", "ZTF20abcdefg", "ZTF")
    assert (triplet.meta["ra"], triplet.meta["dec"], triplet.pixel_scale) == (10.0, -5.0, 1.01)


def test_an_empty_primary_names_the_candidate(tmp_path: Path) -> None:
    primary = fits.PrimaryHDU(header=fits.Header({"CANDID": 99, "SURVEY": "BlackGEM"}))
    hdus = [primary, fits.ImageHDU(SCI, name="SCI"), fits.ImageHDU(DIFF, name="DIFF")]
    fits.HDUList(hdus).writeto(tmp_path / "x.fits")
    assert one(tmp_path / "x.fits").id == "99"


def gaussian(fwhm: float, size: int = 41, dx: float = 0.0) -> npt.NDArray[np.float64]:
    y, x = np.mgrid[:size, :size] - size // 2
    return np.exp(-4 * np.log(2) * ((x - dx) ** 2 + y**2) / fwhm**2)


@pytest.mark.parametrize("fwhm", [1.8, 2.5, 4.0, 7.3])
@pytest.mark.parametrize("dx", [0.0, 0.5])
def test_fwhm_of_a_psf_image(fwhm: float, dx: float) -> None:
    assert psf_fwhm(gaussian(fwhm, dx=dx)) == pytest.approx(fwhm, rel=0.06 if fwhm < 2 else 0.02)


def test_fwhm_of_nonsense_is_unknown() -> None:
    for psf in (np.zeros((41, 41)), np.full((41, 41), np.nan), -gaussian(3), np.ones((41, 41)), np.ones(5)):
        assert psf_fwhm(psf) is None


def test_stamp_of_several_hdus_takes_the_image_its_mask_and_the_psf() -> None:
    mask = fits.ImageHDU(np.eye(20, 24, dtype=np.int32) << 3, name="MASK")
    mask.header["MP_BAD"], mask.header["MP_SAT"] = 3, 5
    saturated = fits.ImageHDU(np.full((20, 24), 1 << 5, np.int32), mask.header, name="MASK")
    psf = fits.ImageHDU(gaussian(4.0), name="PSFIMAGE")
    variance = fits.ImageHDU(np.ones_like(SCI), name="VARIANCE")
    image = decode_image(as_bytes(fits.PrimaryHDU(SCI), variance, mask, psf))
    assert np.isnan(image.data).sum() == 20
    assert image.seeing() == (pytest.approx(4.0, rel=0.03), None)
    np.testing.assert_array_equal(decode_stamp(as_bytes(fits.PrimaryHDU(SCI), saturated)), SCI)


def test_the_psf_of_the_science_stamp_is_the_seeing_unless_a_header_gives_it() -> None:
    def stamp(psf: float | None, **cards: object) -> bytes:
        more = [] if psf is None else [fits.ImageHDU(gaussian(psf), name="PSFIMAGE")]
        return as_bytes(fits.PrimaryHDU(SCI, fits.Header(cards)), *more)

    for science, difference, fwhm in (
        (stamp(4.0), stamp(6.0), 4.0),
        (stamp(None), stamp(6.0), 6.0),
        (stamp(4.0, PSF_FWHM=3.0), stamp(6.0), 3.0),
        # In arcseconds, and no pixel scale: the PSF is in pixels.
        (stamp(4.0, SEEING=1.2), stamp(6.0), 4.0),
        (stamp(None), stamp(None), None),
    ):
        record = {"cutoutScience": science, "cutoutTemplate": stamp(9.0), "cutoutDifference": difference}
        triplet = from_record(record, id="c", source="s", layout=GENERIC)
        assert triplet.fwhm == (None if fwhm is None else pytest.approx(fwhm, rel=0.03))


# ---------------------------------------------------------------- the fast path is astropy, bit for bit


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    dtype=st.sampled_from(["u1", ">i2", ">i4", ">i8", ">f4", ">f8"]),
    keys=st.dictionaries(
        st.from_regex(r"\A[A-Z][A-Z0-9_]{0,7}\Z").filter(lambda key: key not in fits.Header()),
        st.one_of(st.integers(-9, 10**9), st.floats(-1e5, 1e5), st.booleans(), st.just("it's / text")),
        max_size=40,
    ),
    seed=st.integers(0, 2**32 - 1),
    zipped=st.booleans(),
)
def test_fast_path_is_bit_equal_to_astropy(
    shape: tuple[int, int], dtype: str, keys: dict[str, Any], seed: int, zipped: bool
) -> None:
    bits = np.random.default_rng(seed).bytes(shape[0] * shape[1] * np.dtype(dtype).itemsize)
    header = fits.Header()
    structural = {"SIMPLE", "BITPIX", "EXTEND", "XTENSION", "END", "GROUPS", "PCOUNT", "GCOUNT", "COMMENT"}
    for key, value in keys.items():
        if key not in structural | {"HISTORY"} and not key.startswith(("NAXIS", "B", "T", "Z")):
            header[key] = value
    raw = as_bytes(fits.PrimaryHDU(np.frombuffer(bits, dtype).reshape(shape), header))
    with fits.open(io.BytesIO(raw)) as opened:
        expected = opened[0].data
        assert expected is not None
        fast = decode_stamp(gzip.compress(raw, 1) if zipped else raw)
        assert fast.dtype == expected.dtype
        assert fast.shape == expected.shape
        assert fast.tobytes() == expected.tobytes()
        assert stamp.plain_image(raw) is not None


@pytest.mark.parametrize("change", ["bscale", "blank", "extension", "truncated", "axis", "duplicate"])
def test_unusual_stamps_leave_the_fast_path(change: str) -> None:
    hdu = fits.PrimaryHDU(np.arange(480, dtype=np.int16).reshape(20, 24))
    hdus = [hdu]
    if change == "bscale":
        hdu.header["BSCALE"] = 2.0
    elif change == "blank":
        hdu.header["BLANK"] = 3
    elif change == "extension":
        hdus.append(fits.ImageHDU(SCI))
    raw = as_bytes(*hdus)
    if change == "truncated":
        raw = raw[:3000]
    elif change == "axis":
        raw = raw.replace(b"NAXIS1  =                   24", b"NAXIS1  =                 -240")
    elif change == "duplicate":
        raw = raw.replace(b"EXTEND  =                    T", b"NAXIS1  =                   12")
    assert stamp.plain_image(raw) is None


def test_plain_extensions_are_read_as_astropy_reads_them() -> None:
    header = fits.Header({"RA": 12.5, "OBJECT": "it's", "FLAG": True, "EMPTY": None, "EXPTIME": 30})
    cards = fits.Header({"CD1_1": -1e-4, "CD2_2": 1e-4})
    cards["SEEING"] = (1.4, "arcsec")
    raw = as_bytes(
        fits.PrimaryHDU(header=header),
        fits.ImageHDU(SCI, cards, name="SCI"),
        fits.ImageHDU(REF.astype(">i2"), name="REF", ver=2),
        fits.ImageHDU(np.arange(24.0).reshape(2, 3, 4)),
    )
    plain = hdus.read_hdus(raw, 2**20)
    with fits.open(io.BytesIO(raw)) as opened:
        slow = hdus.opened_hdus(opened)
    assert len(plain) == len(slow) == 4
    for one, two in zip(plain, slow, strict=True):
        assert (one.index, one.name, one.version) == (two.index, two.name, two.version)
        for key, value in two.header.items():
            assert one.header[key] == value
            assert one.comments[key].strip() == two.comments[key]
        assert (one.data is None) == (two.data is None)
        if one.data is not None and two.data is not None:
            assert one.data.dtype == two.data.dtype
            np.testing.assert_array_equal(one.data, two.data)


@pytest.mark.parametrize("change", ["bscale", "table", "behind"])
def test_unusual_extensions_are_read_as_astropy_reads_them(change: str) -> None:
    image = fits.ImageHDU(np.arange(480, dtype=np.int16).reshape(20, 24))
    if change == "bscale":
        image.header["BSCALE"] = 2.0
    more = [fits.BinTableHDU.from_columns([fits.Column("a", "D", array=[1.0])])] if change == "table" else []
    raw = as_bytes(fits.PrimaryHDU(), image, *more) + (b"something else" if change == "behind" else b"")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with fits.open(io.BytesIO(raw)) as opened:
            expected = opened[1].data
    found = hdus.read_hdus(raw, 2**20)
    assert len(found) == 2 + len(more)
    np.testing.assert_array_equal(found[1].data, expected)


def test_bombs_are_cut_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRANSIENTNET_MEMORY", "16")
    bomb = gzip.compress(as_bytes(fits.PrimaryHDU(np.zeros((600, 600), np.float32))))
    with pytest.raises(ReadError, match="limit of 1048576"):
        decode_stamp(bomb)
    with pytest.raises(ReadError, match="truncated"):
        decode_stamp(gzip.compress(as_bytes(fits.PrimaryHDU(SCI)))[:-20])


def test_a_header_that_claims_too_much_is_refused_without_allocating(tmp_path: Path) -> None:
    raw = as_bytes(fits.PrimaryHDU(SCI), fits.ImageHDU(REF))
    for big in (b"NAXIS1  =                99999", b"NAXIS1  =           2147483647"):
        (tmp_path / "x.fits").write_bytes(raw.replace(b"NAXIS1  =                   24", big))
        assert one(tmp_path / "x.fits").error is not None


def stored(kind: str, change: Callable[[bytes], bytes], **cards: int) -> bytes:
    """A tile-compressed stamp with its first tile and header changed behind the library's back."""
    pixels = np.arange(24 * 20, dtype=np.int16).reshape(24, 20)
    raw = as_bytes(fits.PrimaryHDU(), fits.CompImageHDU(pixels, compression_type=kind, tile_shape=(24, 20)))
    with fits.open(io.BytesIO(raw), disable_image_compression=True) as hdus:
        (tile,) = hdus[1].data["COMPRESSED_DATA"]
        column = hdus[1].columns["COMPRESSED_DATA"]
        changed = np.frombuffer(change(tile.tobytes()), tile.dtype)
        array = np.array([changed, None], object)[:1]
        table = fits.BinTableHDU.from_columns([fits.Column(column.name, column.format[:3], array=array)])
        for card in hdus[1].header.cards:
            if card.keyword.startswith("Z"):
                table.header[card.keyword] = card.value
        table.header.update(cards)
        return as_bytes(fits.PrimaryHDU(), table)


@pytest.mark.parametrize("kind", ["GZIP_1", "RICE_1", "HCOMPRESS_1", "PLIO_1"])
def test_stored_tiles_are_read(kind: str) -> None:
    pixels = np.arange(24 * 20).reshape(24, 20)
    np.testing.assert_array_equal(decode_stamp(stored(kind, lambda tile: tile)), pixels)


@pytest.mark.parametrize(
    ("kind", "change", "cards", "message"),
    [
        ("GZIP_1", lambda tile: gzip.compress(bytes(2**21)), {}, "limit"),
        ("HCOMPRESS_1", lambda tile: tile[:2] + b"\0\0\x0f\xff" + tile[6:], {}, "claims"),
        ("HCOMPRESS_1", lambda tile: tile[:12], {}, "claims"),
        ("PLIO_1", lambda tile: tile[:4] + b"\xff\x9c\x7f\xff\x7f\xff" + tile[10:], {}, "claims"),
        ("PLIO_1", lambda tile: tile[:4], {}, "header"),
        ("RICE_1", lambda tile: tile, {"ZVAL2": -1}, "-1 bytes"),
    ],
)
def test_tiles_that_lie_about_their_size_are_refused(
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    change: Callable[[bytes], bytes],
    cards: dict[str, int],
    message: str,
) -> None:
    monkeypatch.setenv("TRANSIENTNET_MEMORY", "16")
    with pytest.raises(ReadError, match=message):
        decode_stamp(stored(kind, change, **cards))


def test_numpy_cutouts_without_pickle() -> None:
    file = io.BytesIO()
    np.save(file, SCI)
    np.testing.assert_array_equal(decode_stamp(gzip.compress(file.getvalue())), SCI)
    file = io.BytesIO()
    np.save(file, np.array([[object()]]), allow_pickle=True)
    with pytest.raises(ReadError, match="numbers"):
        decode_stamp(file.getvalue())
