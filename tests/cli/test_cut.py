"""``transientnet cut``: what is written, counted and refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from frames import FRAME, grid, hdu
from typer.testing import CliRunner

from transientnet import classify, cut_triplets, open_triplets
from transientnet.cli import app
from transientnet.cutting.cutouts import write_fits
from transientnet.cutting.frames import open_frame
from transientnet.errors import EmptyInputError, UsageError


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

    @pytest.mark.parametrize("output", ["cutouts", "night.2024-11-05/", "stamps.npz"])
    def test_what_is_written_reads_back_bit_for_bit(self, tmp_path: Path, output: str) -> None:
        arguments = self.frames(tmp_path)
        result = CliRunner().invoke(app, [*arguments, "-o", f"{tmp_path}/out/{output}"])
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
            for name in ("ra", "dec", "x", "y"):
                assert triplet.meta[name] == pytest.approx(original.meta[name], abs=1e-9)
            for stamp, plane in zip(triplet.stamps, original.stamps, strict=True):
                assert stamp.astype("<f8").tobytes() == plane.astype("<f8").tobytes()
        assert sorted(path.name for path in (tmp_path / "out").rglob("*.*") if path.is_file()) == (
            ["007.fits", "A.fits", "a_2.fits", "evil.fits"] if output != "stamps.npz" else [output]
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
        assert "1 candidate in" in result.stderr
        assert "0 cut into" in result.stderr
        assert "1 refused" in result.stderr
        assert not (tmp_path / "out.npz").exists()

    def test_the_closing_line_counts_every_row(self, tmp_path: Path) -> None:
        arguments = self.frames(tmp_path)
        rows = "id,x,y\nwhole,50,40\nedge,2,40\noff,900,40\nnowhere,,\n"
        (tmp_path / "c.csv").write_text(rows)
        out = tmp_path / "out"
        out.mkdir()
        result = CliRunner().invoke(app, [*arguments, "-o", str(out)])
        assert result.exit_code == 0, result.output
        assert result.stdout == ""
        assert "transientnet: off: x = 900.0, y = 40.0 is off the frame" in result.stderr
        assert "transientnet: nowhere: the catalogue gives no position" in result.stderr
        last = result.stderr.splitlines()[-1]
        assert last.startswith("transientnet: 4 candidates in")
        assert last.endswith(f"2 cut into {out}; 1 flagged (pixels missing), 2 refused")

    def test_positions_reach_the_score_table(self, tmp_path: Path) -> None:
        arguments = self.frames(tmp_path)
        for output in ("stamps.npz", "stamps/"):
            out = f"{tmp_path}/{output}"
            assert CliRunner().invoke(app, [*arguments, "-o", out]).exit_code == 0
            table = classify(out).to_table()
            row = table[list(table["id"]).index("007")]
            assert (row["x"], row["y"]) == (pytest.approx(2), pytest.approx(88))
            assert row["ra"] == pytest.approx(grid().pixel_to_world_values(2, 88)[0])

    def test_the_pixel_scale_given_converts_the_seeing(self, tmp_path: Path) -> None:
        arguments = self.frames(tmp_path)
        hdu(FRAME, None, SEEING=1.5, PIXSCALE=9.0).writeto(tmp_path / "science.fits", overwrite=True)
        out = str(tmp_path / "out.npz")
        result = CliRunner().invoke(app, [*arguments, "--pixel-scale", "0.25", "-o", out])
        assert result.exit_code == 0, result.output
        assert {(t.pixel_scale, t.fwhm) for t in open_triplets(out)} == {(0.25, 6.0)}
