"""One file per stamp: `.npy` by name, and tables whose columns name the files."""

from __future__ import annotations

import base64
import gzip
import io
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import MaskedColumn, Table

from transientnet import Triplet, classify, open_triplets
from transientnet.readers.layouts import Layout

CHANNELS = ("science", "reference", "difference")
STACK = np.random.default_rng(4).normal(100, 5, (3, 3, 21, 21)).astype(np.float32)


def files(folder: Path, ending: str = "fits") -> Table:
    """Three candidates, a file per stamp, and the table that names them."""
    (folder / "stamps").mkdir(parents=True)
    names = [[f"stamps/{i}{channel}.{ending}" for channel in "abc"] for i in range(3)]
    for row, planes in zip(names, STACK, strict=True):
        for name, plane in zip(row, planes, strict=True):
            if ending == "npy":
                np.save(folder / name, plane)
            else:
                fits.PrimaryHDU(plane).writeto(folder / name)
    table = Table(np.array(names), names=CHANNELS)
    table["id"] = ["007", "8", "nine"]
    table["objectId"] = ["x", "x", "y"]
    table["pixel_scale"] = [0.3, 0.4, 0.5]
    table["fwhm"] = [2.5, 3.5, 4.5]
    table["label"] = ["real", "bogus", "real"]
    return table


def write(table: Table, path: Path) -> Path:
    if path.suffix == ".parquet":
        columns = {name: table[name].tolist() for name in table.colnames}
        rows = pytest.importorskip("pyarrow").table(columns)
        pytest.importorskip("pyarrow.parquet").write_table(rows, path)
    else:
        kind = {".csv": "ascii.csv", ".ecsv": "ascii.ecsv", ".fits": "fits"}[path.suffix]
        table.write(path, format=kind)
    return path


def assert_all(triplets: list[Triplet]) -> None:
    assert [triplet.error for triplet in triplets] == [None] * 3
    for triplet, planes in zip(triplets, STACK, strict=True):
        for stamp, plane in zip(triplet.stamps, planes, strict=True):
            np.testing.assert_array_equal(stamp, plane)


@pytest.mark.parametrize("stamps", ["fits", "npy"])
@pytest.mark.parametrize("kind", ["csv", "ecsv", "fits", "parquet"])
def test_a_table_names_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, stamps: str
) -> None:
    path = write(files(tmp_path / "night", stamps), tmp_path / "night" / f"candidates.{kind}")
    # Paths begin at the table, wherever the user stands.
    for there, source in ((tmp_path, path), (path.parent, path.name)):
        monkeypatch.chdir(there)
        triplets = list(open_triplets(source))
        assert_all(triplets)
        assert [t.id for t in triplets] == ["007", "8", "nine"]
        assert [t.group for t in triplets] == ["x", "x", "y"]
        assert [t.pixel_scale for t in triplets] == [0.3, 0.4, 0.5]
        assert [t.fwhm for t in triplets] == [2.5, 3.5, 4.5]


def test_absolute_paths_names_of_files_and_another_column_order(tmp_path: Path) -> None:
    table = files(tmp_path / "a")
    words = {"diff": "difference", "new": "science", "tmpl": "reference"}
    names = {
        f"{word}_file": [str(tmp_path / "a" / name) for name in table[channel]]
        for word, channel in words.items()
    }
    triplets = list(open_triplets(write(Table(names), tmp_path / "b.csv")))
    assert_all(triplets)
    assert [t.id for t in triplets] == ["0a", "1a", "2a"]
    layout = Layout(fields={"science": ("P",), "reference": ("Q",), "difference": ("R",)})
    renamed = Table(list(names.values()), names=["R", "P", "Q"])
    assert_all(list(open_triplets(write(renamed, tmp_path / "c.csv"), layout=layout)))


@pytest.mark.parametrize(
    ("head", "separator", "before"),
    [
        (",science,reference,difference,id,seeing [arcsec]", ",", "0,"),
        ("science,reference,difference,id,größe µ", ",", ""),
        ("science\treference\tdifference\tid\tremark", "\t", ""),
        ("science;reference;difference;id;remark", ";", ""),
        ('"science","reference","difference","id","remark, free"', ",", ""),
        ("# science,reference,difference,id,remark", ",", ""),
        ("# of one night\n# sci_file, ref_file, diff_file, id, remark", ",", ""),
        ("# a night, its stamps\nfile_science,file_ref,file_diff,id,remark", ",", ""),
        ("fname_sci,fname_ref,fname_sub,id,remark", ",", ""),
    ],
)
def test_tables_as_people_write_them(tmp_path: Path, head: str, separator: str, before: str) -> None:
    table = files(tmp_path)
    rows = [separator.join([*row[:4], "1"]) for row in table.iterrows()]
    text = "\n".join([head, *(before + row for row in rows), ""])
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    triplets = list(open_triplets(tmp_path / "t.csv"))
    assert_all(triplets)
    assert [t.id for t in triplets] == ["007", "8", "nine"]


def test_a_table_under_a_comment_that_names_files_like_channels(tmp_path: Path) -> None:
    for name, plane in zip(("sci", "ref", "diff"), STACK[0], strict=True):
        fits.PrimaryHDU(plane).writeto(tmp_path / f"{name}.fits")
    (tmp_path / "t.csv").write_text("# science,reference,difference\nsci.fits,ref.fits,diff.fits\n")
    (triplet,) = open_triplets(tmp_path / "t.csv")
    np.testing.assert_array_equal(triplet.science, STACK[0, 0])


def test_a_votable_names_the_files(tmp_path: Path) -> None:
    table = files(tmp_path)
    table.write(tmp_path / "t.vot", format="votable")
    assert_all(list(open_triplets(tmp_path / "t.vot")))


def test_what_is_no_table_is_told_what_would_be(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("stamps of the night\n")
    (tmp_path / "b.csv").write_bytes(b"science,reference\0\1\2")
    (tmp_path / "c.csv").write_text("science,reference\n", encoding="utf-16")
    for path in sorted(tmp_path.iterdir()):
        (triplet,) = open_triplets(path)
        assert "table (CSV, ECSV, VOTable" in (triplet.error or "")
    (tmp_path / "d.csv").write_bytes("science,größe\nx.fits,1\n".encode("latin-1"))
    (triplet,) = open_triplets(tmp_path / "d.csv")
    assert "UTF-8" in (triplet.error or "")


def test_a_gzipped_table(tmp_path: Path) -> None:
    path = write(files(tmp_path), tmp_path / "t.csv")
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert_all(list(open_triplets(tmp_path / "t.csv.gz")))


def test_stamps_in_base64_are_no_names_of_files(tmp_path: Path) -> None:
    def text(plane: np.ndarray) -> str:
        file = io.BytesIO()
        fits.PrimaryHDU(plane).writeto(file)
        return base64.b64encode(gzip.compress(file.getvalue())).decode()

    names = ("cutoutScience", "cutoutTemplate", "cutoutDifference")
    table = Table([[text(plane) for plane in STACK[:, i]] for i in range(3)], names=names)
    table["candid"] = ["1", "2", "3"]
    for kind in ("csv", "ecsv", "parquet"):
        triplets = list(open_triplets(write(table, tmp_path / f"t.{kind}")))
        assert_all(triplets)
        assert [t.id for t in triplets] == ["1", "2", "3"]
    (tmp_path / "long.csv").write_text(f"science,reference\n{'iVBORw0KGgo' * 900},b\n")
    (triplet,) = open_triplets(tmp_path / "long.csv")
    assert "9900 characters where the file of its science stamp should be named" in (triplet.error or "")
    assert len(triplet.error or "") < 200


def test_a_bad_row_costs_itself_only(tmp_path: Path) -> None:
    table = files(tmp_path)
    (tmp_path / "stamps" / "0c.fits").write_bytes(b"SIMPLE  = no")
    table["science"] = MaskedColumn(["stamps/0a.fits", "gone.fits", "stamps/2a.fits"])
    table["reference"] = MaskedColumn(["stamps/0b.fits", "stamps/1b.fits", ""], mask=[0, 0, 1])
    for kind in ("csv", "ecsv"):
        bad, gone, partial = open_triplets(write(table, tmp_path / f"t.{kind}"))
        assert "0c.fits" in (bad.error or "")
        assert "gone.fits" in gone.source
        assert "No such file" in (gone.error or "")
        assert "start where the table lies" in (gone.error or "")
        assert (bad.id, gone.id, partial.id) == ("007", "8", "nine")
        assert partial.error is None
        assert partial.reference is None
        np.testing.assert_array_equal(partial.difference, STACK[2, 2])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (",b.fits,c.fits", "no science"),
        ("a.fits,a.fits,c.fits", "one file for two stamps"),
        ("/dev/zero,,", "regular file"),
        ("stamps,,", "regular file"),
        ("http://127.0.0.1/a.fits,,", "No such file"),
        ("nul\0.fits,,", "not a file name"),
    ],
)
def test_what_a_row_must_not_do(tmp_path: Path, row: str, message: str) -> None:
    files(tmp_path)
    (tmp_path / "t.csv").write_text(f"science,reference,difference\n{row}\n")
    (triplet,) = open_triplets(tmp_path / "t.csv")
    assert message in (triplet.error or "")


@pytest.mark.parametrize(
    "text",
    [
        "id,ra,dec\n1,10.0,20.0\n",
        "image,x,y\nframe.fits,10,20\n",
        "path,label\nstamps/0a.fits,real\n",
        "# %ECSV 1.0\n# ---\n# datatype:\n# - {name: ra, datatype: float64}\nra\n1.0\n",
    ],
)
def test_catalogues_and_labels_are_told_apart(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    (triplet,) = open_triplets(tmp_path / "t.csv")
    assert "a table without stamps" in (triplet.error or "")
    assert "--catalog" in (triplet.error or "")


def test_a_table_among_the_stamps_of_a_folder_does_not_double_them(tmp_path: Path) -> None:
    write(files(tmp_path), tmp_path / "candidates.csv")
    assert len(list(open_triplets(tmp_path))) == 9
    assert len(list(open_triplets(tmp_path / "*.csv"))) == 3


def test_damaged_tables(tmp_path: Path) -> None:
    for head in (b"science,reference\n", b"# %ECSV 1.0\n# ---\n# datatype: [\n"):
        for junk in (b'"' + b"a" * 200_000, b"\xff\xfe,b\n", b"a\0b,c\n", b"a,b,c,d,e\n", b""):
            (tmp_path / "t.csv").write_bytes(head + junk)
            assert all(triplet.error is not None for triplet in open_triplets(tmp_path / "t.csv"))


def test_numpy_stamps_by_name(tmp_path: Path) -> None:
    for word, plane in zip(("sci", "ref", "diff"), STACK[0], strict=True):
        np.save(tmp_path / f"x_{word}.npy", plane.astype(">f8"))
    (triplet,) = open_triplets(tmp_path)
    assert triplet.id == "x"
    for stamp, plane in zip(triplet.stamps, STACK[0], strict=True):
        np.testing.assert_array_equal(stamp, plane)


def test_a_numpy_stack_per_channel(tmp_path: Path) -> None:
    for i, channel in enumerate(CHANNELS):
        np.save(tmp_path / f"{channel}.npy", STACK[:, i])
    assert_all(list(open_triplets(tmp_path)))
    np.save(tmp_path / "difference.npy", STACK[:2, 2])
    (triplet,) = open_triplets(tmp_path)
    assert "do not belong together" in (triplet.error or "")


def test_numpy_beside_fits_and_objects_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x_sci.npy", STACK[0, 0])
    fits.PrimaryHDU(STACK[0, 1]).writeto(tmp_path / "x_ref.fits")
    (triplet,) = open_triplets(tmp_path)
    assert "one kind" in (triplet.error or "")
    np.save(tmp_path / "y_sci.npy", np.array([[None]]))
    np.save(tmp_path / "y_ref.npy", STACK[0, 0])
    triplet = list(open_triplets(tmp_path))[-1]
    assert "pickles are never loaded" in (triplet.error or "")


def test_classify_scores_a_table(tmp_path: Path) -> None:
    predictions = classify(write(files(tmp_path), tmp_path / "candidates.csv"))
    assert list(predictions.ids) == ["007", "8", "nine"]
    assert np.isfinite(predictions.probabilities).all()
