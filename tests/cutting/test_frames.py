"""Catalogues and frames as people have them."""

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
from frames import FRAME, grid, hdu

from transientnet import cut_triplets, open_triplets
from transientnet.cutting.catalog import read_catalog
from transientnet.cutting.frames import open_frame
from transientnet.errors import EmptyInputError, ReadError, UsageError


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

    @pytest.mark.parametrize(
        ("cards", "solved", "given", "fwhm", "scale"),
        [
            ({"SEEING": 1.2}, True, None, 2.4, 0.5),
            ({"FWHM": (3.3, "[pix]")}, True, None, 3.3, 0.5),
            ({}, True, None, None, 0.5),
            ({"FWHM": (1.5, "[arcsec]"), "PIXSCALE": 0.3}, False, None, 5.0, 0.3),
            ({"SEEING": (5.2, "[pix]"), "PIXSCALE": 0.3}, False, None, 5.2, 0.3),
            ({"L1FWHM": (1.5, "[arcsec] Frame FWHM"), "PIXSCALE": 0.3}, False, None, 5.0, 0.3),
            (
                {"AGFWHM": (2.4, "[arcsec] Autoguider"), "L1FWHM": (1.5, "[arcsec]"), "PIXSCALE": 0.3},
                False,
                None,
                5.0,
                0.3,
            ),
            ({"FWHM": (1.5, "[arcsec]")}, False, 0.25, 6.0, 0.25),
            ({"SEEING": 1.5}, True, 0.25, 6.0, 0.25),
            ({"SEEING": 1.5, "PIXSCALE": 9.0}, False, 0.25, 6.0, 0.25),
            ({"FWHM": (3.3, "[pix]"), "PIXSCALE": 9.0}, False, 0.25, 3.3, 0.25),
        ],
    )
    @pytest.mark.parametrize("inherited", [False, True])
    def test_sampling_and_seeing_of_headers(
        self,
        tmp_path: Path,
        cards: dict[str, Any],
        solved: bool,
        given: float | None,
        fwhm: float | None,
        scale: float,
        inherited: bool,
    ) -> None:
        frame: Any = hdu(FRAME, grid() if solved else None, **({} if inherited else cards))
        if inherited:
            primary = fits.PrimaryHDU()
            primary.header.update(cards)
            frame = tmp_path / "f.fits"
            image = fits.ImageHDU(FRAME, grid().to_header() if solved else None, name="SCI")
            fits.HDUList([primary, image]).writeto(frame)
        (triplet,) = cut_triplets(frame, None, None, np.array([[50.0, 40.0]]), size=5, pixel_scale=given)
        assert triplet.fwhm == (None if fwhm is None else pytest.approx(fwhm))
        assert triplet.pixel_scale == pytest.approx(scale)

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

    @pytest.mark.parametrize("dtype", ["i4", "u1", ">f4"])
    @pytest.mark.parametrize("planes", [{}, {"MP_BAD": 1}, {"MP_UNMASKEDNAN": 2, "MP_NO_DATA": 0}])
    def test_a_mask_marks_the_same_pixels_in_a_stamp_and_in_a_frame(
        self, dtype: str, planes: dict[str, int], tmp_path: Path
    ) -> None:
        path = tmp_path / "f.fits"
        mask = fits.ImageHDU(np.zeros((5, 5), dtype), name="MASK")
        mask.data[2] = 0, 1, 2, 4, 8
        for name, bit in planes.items():
            mask.header[f"HIERARCH {name}"] = bit
        image = fits.ImageHDU(np.arange(25.0).reshape(5, 5), name="SCI")
        fits.HDUList([fits.PrimaryHDU(), image, mask]).writeto(path)
        (cut,) = cut_triplets(path, None, None, np.array([[2.0, 2.0]]), size=5)
        (stamp,) = open_triplets(path)
        np.testing.assert_array_equal(cut.science, stamp.science)
        assert np.isnan(stamp.science[2, 1:]).any()

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
