"""Triplets out of full frames: geometry, grids, catalogues, masks, files."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.table import Table
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from transientnet import open_triplets
from transientnet.cli import app
from transientnet.cutting.catalog import read_catalog
from transientnet.cutting.cutouts import write_fits
from transientnet.cutting.frames import cut_triplets, open_frame
from transientnet.errors import EmptyInputError, ReadError, UsageError

HEIGHT, WIDTH = 90, 120
FRAME = np.arange(HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)


def grid(
    scale: float = 0.5, angle: float = 0.0, shift: tuple[float, float] = (0.0, 0.0), ctype: str = "TAN"
) -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = [f"RA---{ctype}", f"DEC--{ctype}"]
    wcs.wcs.crval = [150.0, 2.0]
    wcs.wcs.crpix = [60.5 + shift[0], 45.5 + shift[1]]
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    wcs.wcs.cd = np.array([[-cos, sin], [sin, cos]]) * scale / 3600
    wcs.wcs.set()
    return wcs


def stars(wcs: WCS, shape: tuple[int, int], sky: Any, sigma: float) -> Any:
    """Gaussian stars of 1000 counts at sky positions, without noise."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    image = np.zeros(shape)
    for ra, dec in sky:
        x, y = wcs.world_to_pixel_values(ra, dec)
        image += (
            np.exp(-0.5 * ((columns - x) ** 2 + (rows - y) ** 2) / sigma**2) * 1000 / (2 * np.pi * sigma**2)
        )
    return image


def hdu(data: Any, wcs: WCS | None = None, **cards: Any) -> fits.PrimaryHDU:
    header = fits.Header() if wcs is None else wcs.to_header()
    header.update(cards)
    return fits.PrimaryHDU(data, header)


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

    def test_far_off_and_unknown_positions_are_flagged_not_fatal(self) -> None:
        positions = np.array([[500.0, 20.0], [1e300, -1e300], [np.nan, 3.0], [60.0, 45.0]])
        triplets = list(cut_triplets(FRAME, FRAME, FRAME, positions))
        assert all(np.isnan(stamp).all() for stamp in triplets[0].stamps)
        assert np.isnan(triplets[1].science).all()
        assert triplets[2].error is not None
        assert triplets[3].science[31, 31] == FRAME[45, 60]

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


class TestCatalogues:
    def test_sky_positions_go_through_the_wcs(self) -> None:
        wcs = grid()
        ra, dec = wcs.pixel_to_world_values([50.0, 12.0], [40.0, 70.0])
        triplets = list(
            cut_triplets(hdu(FRAME, wcs), None, None, {"RA": ra, "Dec": dec, "name": ["a", "b"]}, size=5)
        )
        assert [triplet.science[2, 2] for triplet in triplets] == [FRAME[40, 50], FRAME[70, 12]]
        assert triplets[0].meta["ra"] == pytest.approx(ra[0])

    def test_names_in_latin_1(self, tmp_path: Path) -> None:
        path = tmp_path / "c.fits"
        Table({"id": ["caf?", "b"], "x": [1.0, 2.0], "y": [1.0, 2.0]}).write(path)
        path.write_bytes(path.read_bytes().replace(b"caf?", b"caf\xe9"))
        assert read_catalog(path).ids[1] == "b"

    def test_the_far_side_of_the_sky_is_flagged(self) -> None:
        (triplet,) = cut_triplets(hdu(FRAME, grid()), None, None, {"ra": [330.0], "dec": [-2.0]})
        assert triplet.error is not None

    @pytest.mark.parametrize(
        ("columns", "one_based", "expected"),
        [
            ({"X_IMAGE": 51, "Y_IMAGE": 41}, None, FRAME[40, 50]),
            ({"x": 50, "y": 40}, None, FRAME[40, 50]),
            ({"x": 51, "y": 41}, True, FRAME[40, 50]),
            ({"XWIN_IMAGE": 50, "YWIN_IMAGE": 40}, False, FRAME[40, 50]),
        ],
    )
    def test_first_pixel(self, columns: dict[str, float], one_based: bool | None, expected: float) -> None:
        catalog = Table({name: [value] for name, value in columns.items()})
        (triplet,) = cut_triplets(FRAME, None, None, catalog, size=3, one_based=one_based)
        assert triplet.science[1, 1] == expected

    @pytest.mark.parametrize("form", ["ascii.csv", "ascii.ecsv", "fits", "votable", "parquet", "sextractor"])
    def test_files_by_content(self, tmp_path: Path, form: str) -> None:
        path = tmp_path / "catalogue.dat"
        table = Table({"id": ["p", "q"], "x": [1.5, 2.5], "y": [3.0, 4.0], "objectId": ["g", "h"]})
        if form == "sextractor":
            path.write_text("#   1 NUMBER\n#   2 X_IMAGE\n#   3 Y_IMAGE\n 1 2.5 4.0\n 2 3.5 5.0\n")
        elif form == "parquet":
            pytest.importorskip("pyarrow.parquet").write_table(
                pytest.importorskip("pyarrow").table({name: table[name].tolist() for name in table.colnames}),
                path,
            )
        else:
            table.write(path, format=form)
        catalog = read_catalog(path)
        assert catalog.x is not None
        assert catalog.x.tolist() == [1.5, 2.5]
        assert catalog.ids == (("1", "2") if form == "sextractor" else ("p", "q"))
        assert catalog.groups == ((None, None) if form == "sextractor" else ("g", "h"))

    def test_sexagesimal_and_masked(self, tmp_path: Path) -> None:
        path = tmp_path / "c.csv"
        path.write_text("ra,dec\n10:00:00,+02:00:00\n10:00:30.5,-00:30:00\n,\n")
        catalog = read_catalog(path)
        assert catalog.ra is not None
        assert catalog.dec is not None
        assert catalog.ra[:2] == pytest.approx([150.0, 150.127083333])
        assert catalog.dec[:2] == pytest.approx([2.0, -0.5])
        assert np.isnan(catalog.ra[2])

    def test_errors_say_what_is_there(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="flux"):
            read_catalog({"flux": [1.0]})
        with pytest.raises(UsageError, match="no column 'xx'"):
            read_catalog({"x": [1.0], "y": [1.0]}, x="xx", y="y")
        with pytest.raises(UsageError, match="both or neither"):
            read_catalog({"x": [1.0], "y": [1.0]}, x="x")
        with pytest.raises(EmptyInputError):
            read_catalog(Table({"x": [], "y": []}))
        with pytest.raises(ReadError):
            read_catalog(tmp_path / "absent.csv")
        (tmp_path / "bad.csv").write_bytes(b"SIMPLE  = garbage")
        with pytest.raises(ReadError):
            read_catalog(tmp_path / "bad.csv")
        with pytest.raises(UsageError, match="WCS"):
            cut_triplets(FRAME, None, None, {"ra": [1.0], "dec": [2.0]})


class TestFrames:
    @pytest.mark.parametrize("kind", ["plain", "uint16", "fz", "gz", "extension", "cube"])
    def test_files(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / ("f.fits.gz" if kind == "gz" else "f.fits")
        counts = FRAME.astype(np.uint16)
        image: Any = fits.PrimaryHDU(FRAME)
        if kind == "uint16":
            image = fits.PrimaryHDU(counts)
        elif kind == "fz":
            image = [fits.PrimaryHDU(), fits.CompImageHDU(counts, name="SCI", compression_type="RICE_1")]
        elif kind == "extension":
            image = [
                fits.PrimaryHDU(),
                fits.ImageHDU(FRAME * 0, name="VAR"),
                fits.ImageHDU(FRAME, name="SCI"),
            ]
        elif kind == "cube":
            image = fits.PrimaryHDU(FRAME[None])
        fits.HDUList(image).writeto(path)
        assert np.array_equal(open_frame(path, "science").data, FRAME)

    def test_masks(self, tmp_path: Path) -> None:
        path = tmp_path / "f.fits"
        planes = np.zeros(FRAME.shape, np.int32)
        planes[40, 50], planes[40, 51] = 1 << 5, 1
        mask = fits.ImageHDU(planes, name="MASK")
        fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(FRAME, name="IMAGE"), mask]).writeto(path)
        at = np.array([[50.0, 40.0]])
        (triplet,) = cut_triplets(path, None, FRAME, at, size=5)
        assert np.isnan(triplet.science).sum() == 2
        (triplet,) = cut_triplets(path, None, FRAME, at, size=5, mask_bits=1)
        assert np.isnan(triplet.science[2, 3])
        assert np.isnan(triplet.science).sum() == 1
        # A Rubin mask names its planes: a detected pixel is a good pixel.
        mask.header["MP_BAD"], mask.header["HIERARCH MP_DETECTED"] = 0, 5
        fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(FRAME, name="IMAGE"), mask]).writeto(
            path, overwrite=True
        )
        (triplet,) = cut_triplets(path, None, FRAME, at, size=5, mask=planes == 32)
        assert np.isnan(triplet.science).sum() == 2
        assert triplet.difference is not None
        assert np.isnan(triplet.difference).sum() == 1
        ccd = CCDData(FRAME, unit="adu", mask=planes > 0, wcs=grid())
        (triplet,) = cut_triplets(ccd, None, None, at, size=5)
        assert np.isnan(triplet.science).sum() == 2
        assert triplet.pixel_scale == pytest.approx(0.5)

    def test_seeing_in_arcsec_or_pixels(self) -> None:
        at = np.array([[50.0, 40.0]])
        for cards, expected in (({"SEEING": 1.2}, 2.4), ({"FWHM": (3.3, "[pix]")}, 3.3), ({}, None)):
            (triplet,) = cut_triplets(hdu(FRAME, grid(), **cards), None, None, at, size=5)
            assert triplet.fwhm == (None if expected is None else pytest.approx(expected))

    def test_a_file_of_many_images_asks_which(self, tmp_path: Path) -> None:
        path = tmp_path / "mosaic.fits"
        chips = [fits.ImageHDU(FRAME + i, name=f"N{i}") for i in (1, 2)]
        fits.HDUList([fits.PrimaryHDU(), *chips]).writeto(path)
        with pytest.raises(UsageError, match=r"\[SCI\]"):
            open_frame(path, "science")
        assert open_frame(f"{path}[N2]", "science").data[0, 0] == 2
        with pytest.raises(ReadError, match="no such extension"):
            open_frame(f"{path}[N9]", "science")

    def test_unreadable_frames(self, tmp_path: Path) -> None:
        bad = tmp_path / "bad.fits"
        bad.write_text("not a frame")
        short = tmp_path / "short.fits"
        fits.writeto(short, FRAME)
        short.write_bytes(short.read_bytes()[:9000])
        huge = tmp_path / "huge.fits"
        fits.HDUList(fits.PrimaryHDU(FRAME)).writeto(huge)
        huge.write_bytes(
            huge.read_bytes().replace(b"NAXIS1  =                  120", b"NAXIS1  =            120000000")
        )
        for path in (bad, short, huge, tmp_path / "absent.fits"):
            with pytest.raises(ReadError):
                cut_triplets(path, None, None, np.array([[5.0, 5.0]]))

    @pytest.mark.parametrize(("key", "value"), [("NAXIS", 2**62), ("NAXIS1", -64), ("PCOUNT", -2880)])
    @pytest.mark.parametrize("zipped", [False, True])
    def test_headers_that_would_be_read_for_ever(
        self, tmp_path: Path, key: str, value: int, zipped: bool
    ) -> None:
        path = tmp_path / "f.fits"
        table = fits.BinTableHDU(Table({"x": [1.0], "y": [2.0]}))
        fits.HDUList([hdu(FRAME, grid(), PCOUNT=0), table]).writeto(path)
        content = path.read_bytes()
        at = content.index(f"{key:<8}=".encode())
        content = content[:at] + f"{key:<8}= {value:>20}".ljust(80).encode() + content[at + 80 :]
        path.write_bytes(gzip.compress(content) if zipped else content)
        with pytest.raises(ReadError, match="damaged FITS"):
            open_frame(path, "science")
        with pytest.raises(ReadError, match="damaged FITS"):
            read_catalog(path)

    @pytest.mark.parametrize(("key", "value"), [("CUNIT1", "m"), ("CDELT1", 1e300), ("RADESYS", "x")])
    def test_a_wcs_that_makes_no_sense_is_none(self, key: str, value: Any) -> None:
        damaged = hdu(FRAME, grid(), **{key: value})
        (triplet,) = cut_triplets(damaged, damaged, None, np.array([[60.0, 45.0]]), size=3)
        assert triplet.error is None
        assert triplet.science[1, 1] == triplet.reference[1, 1] == FRAME[45, 60]

    @pytest.mark.parametrize("dtype", ["u1", "i2", ">u2", "i4", ">i8", "u8"])
    @pytest.mark.parametrize("bits", [None, 4])
    def test_masks_of_any_integer(self, dtype: str, bits: int | None) -> None:
        mask = np.zeros(FRAME.shape, dtype)
        mask[10, 10:12] = 4, 2
        mask[10, 12] = np.iinfo(dtype).max
        (triplet,) = cut_triplets(
            FRAME, None, None, np.array([[11.0, 10.0]]), size=3, mask=mask, mask_bits=bits
        )
        assert np.isnan(triplet.science[1]).tolist() == [True, bits is None, True]

    def test_bombs_are_cut_off(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("transientnet.cutting.frames.MAX_FRAME_BYTES", 2**20)
        monkeypatch.setattr("transientnet.files.tables.MAX_TABLE_BYTES", 2**20)
        path = tmp_path / "f.fits.gz"
        file = io.BytesIO()
        hdu(FRAME).writeto(file)
        path.write_bytes(gzip.compress(file.getvalue() + bytes(2**21)))
        with pytest.raises(ReadError, match="limit"):
            open_frame(path, "science")
        with pytest.raises(ReadError, match="limit"):
            read_catalog(path)


class TestCommand:
    def frames(self, folder: Path) -> list[str]:
        options = []
        for i, role in enumerate(("science", "reference", "difference")):
            hdu(FRAME.astype(np.float64) + i / 7, grid(), FWHM=2.5).writeto(folder / f"{role}.fits")
            options += [f"--{role}", str(folder / f"{role}.fits")]
        (folder / "c.csv").write_text(
            "id,x,y,objectId\n../../evil,50,40,g1\n007,2,88,g2\nA,60,45,\na,61,45,\n"
        )
        return ["cut", *options, "--catalog", str(folder / "c.csv"), "--size", "21"]

    @pytest.mark.parametrize("output", ["cutouts", "stamps.npz"])
    def test_what_is_written_reads_back_bit_for_bit(self, tmp_path: Path, output: str) -> None:
        arguments = self.frames(tmp_path)
        result = CliRunner().invoke(app, [*arguments, "-o", str(tmp_path / "out" / output)])
        assert result.exit_code == 0, result.output
        frames = [tmp_path / f"{role}.fits" for role in ("science", "reference", "difference")]
        expected = {t.id: t for t in cut_triplets(*frames, tmp_path / "c.csv", size=21)}
        back = list(open_triplets(tmp_path / "out" / output))
        assert {triplet.id for triplet in back} == set(expected)
        for triplet in back:
            original = expected[triplet.id]
            assert triplet.error is None
            assert (triplet.group, triplet.fwhm) == (original.group, 2.5)
            assert triplet.pixel_scale == pytest.approx(0.5)
            assert triplet.meta["ra"] == pytest.approx(original.meta["ra"])
            for stamp, plane in zip(triplet.stamps, original.stamps, strict=True):
                assert stamp.astype("<f8").tobytes() == plane.astype("<f8").tobytes()
        assert sorted(path.name for path in (tmp_path / "out").rglob("*.*")) == (
            ["007.fits", "A.fits", "a_2.fits", "evil.fits"] if output == "cutouts" else [output]
        )

    def test_the_wcs_of_a_stamp_points_where_the_frame_did(self, tmp_path: Path) -> None:
        header = fits.Header.fromstring(
            "CTYPE1  = 'RA---TAN-SIP'\nCTYPE2  = 'DEC--TAN-SIP'\nCRVAL1  = 150.0\nCRVAL2  = 2.0\n"
            "CRPIX1  = 60.5\nCRPIX2  = 45.5\nCD1_1   = -1E-4\nCD1_2   = 0.0\n"
            "CD2_1   = 0.0\nCD2_2   = 1E-4\nA_ORDER = 2\n"
            "A_2_0   = 1E-4\nB_ORDER = 2\nB_0_2   = 2E-4\n",
            sep="\n",
        )
        frame = open_frame(fits.PrimaryHDU(FRAME, header), "science")
        triplets = cut_triplets(frame, None, None, np.array([[30.0, 20.0]]), size=21)
        (path,) = write_fits(triplets, tmp_path / "out", wcs=frame.wcs)
        with fits.open(path) as hdus:
            hdus.verify("exception")
            stamp = WCS(hdus["SCIENCE"].header)
        there, here = frame.wcs.pixel_to_world_values(25, 13), stamp.pixel_to_world_values(5, 3)
        assert np.allclose(there, here, rtol=0, atol=1e-9)

    def test_refusals(self, tmp_path: Path) -> None:
        arguments = self.frames(tmp_path)
        runner = CliRunner()
        assert isinstance(runner.invoke(app, [*arguments, "-o", str(tmp_path)]).exception, UsageError)
        assert isinstance(
            runner.invoke(app, [*arguments, "-o", str(tmp_path / "x.txt")]).exception, UsageError
        )
        (tmp_path / "c.csv").write_text("x,y\n,\n")
        result = runner.invoke(app, [*arguments, "-o", str(tmp_path / "out.npz")])
        assert isinstance(result.exception, EmptyInputError)
        assert not (tmp_path / "out.npz").exists()


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
