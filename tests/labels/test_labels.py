"""Label tables: what can be read, and what is noticed before anything is trained."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from transientnet import ModelRecord, Triplet
from transientnet.errors import LabelError
from transientnet.labels.checks import LabelCheck, check_labels, prepare
from transientnet.labels.table import Labels, read_labels
from transientnet.prepare.contract import InputContract
from transientnet.prepare.preprocess import Prepared

CONTRACT = InputContract()


def sky(seed: int, *, visit: int = 0, source: float = 0.0) -> np.ndarray:
    """A triplet: a field of stars fixed by `seed`, noise by `visit`, and a new source at the centre."""
    field, noise = np.random.default_rng(seed), np.random.default_rng((seed, visit, 1))
    y, x = np.mgrid[:63, :63]
    stars = np.zeros((63, 63))
    for _ in range(8):
        cy, cx = field.uniform(0, 62, 2)
        stars += field.uniform(50, 400) * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 4)
    new = source * np.exp(-((y - 31) ** 2 + (x - 31) ** 2) / 4)
    frames = [stars + new, stars, new]
    return np.stack([frame + noise.normal(0, 5, (63, 63)) for frame in frames]).astype(np.float32)


def write_fits(path: Path, triplet: np.ndarray) -> None:
    names = ("SCIENCE", "TEMPLATE", "DIFFERENCE")
    hdus = [fits.PrimaryHDU()] + [fits.ImageHDU(s, name=n) for s, n in zip(triplet, names, strict=True)]
    fits.HDUList(hdus).writeto(path)


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def checked(labels: Labels) -> LabelCheck:
    return check_labels(labels, prepare(labels.triplets, CONTRACT))


def kinds(check: LabelCheck) -> dict[str, tuple[int, ...]]:
    return {problem.kind: problem.rows for problem in check.problems}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(4):
        write_fits(tmp_path / f"c{number}.fits", sky(number, source=300.0 * (number % 2)))
    return tmp_path


def test_paths_start_at_the_table_and_cells_go_before_the_file(folder: Path) -> None:
    rows = [
        {
            "path": f"c{n}.fits",
            "label": "real" if n % 2 else "bogus",
            "group": f"o{n}",
            "fwhm": "2.5" if n else "",
        }
        for n in range(4)
    ]
    table = read_labels(write_csv(folder / "my.csv", rows), fwhm=4.0)
    assert [t.error for t in table.triplets] == [None] * 4
    assert [t.fwhm for t in table.triplets] == [4.0, 2.5, 2.5, 2.5]
    assert table.labels.tolist() == ["bogus", "real", "bogus", "real"]
    assert table.groups.tolist() == ["o0", "o1", "o2", "o3"]
    np.testing.assert_allclose(table.triplets[3].science, sky(3, source=300.0)[0], rtol=1e-6)


@pytest.mark.parametrize("ending", ["csv", "ecsv", "parquet"])
def test_ids_pick_from_any_source(tmp_path: Path, ending: str) -> None:
    stack = np.stack([sky(n) for n in range(5)])
    names = np.array([f"cand{n}" for n in range(5)])
    np.savez(tmp_path / "stamps.npz", triplets=stack, id=names)
    table = Table(
        {"id": ["cand3", "cand0", "nobody"], "label": ["real", "bogus", "real"], "group": [7, 8, 9]}
    )
    path = tmp_path / f"my.{ending}"
    if ending == "parquet":
        pytest.importorskip("pyarrow")
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({name: table[name].tolist() for name in table.colnames}), path)
    else:
        table.write(path, format="ascii.ecsv" if ending == "ecsv" else "ascii.csv")
    read = read_labels(path, cutouts=tmp_path / "stamps.npz")
    np.testing.assert_array_equal(read.triplets[0].science, stack[3, 0])
    np.testing.assert_array_equal(read.triplets[1].science, stack[0, 0])
    assert "no candidate is named 'nobody'" in str(read.triplets[2].error)
    assert read.groups.tolist() == ["7", "8", "9"]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_columns_named_as_in_packets(tmp_path: Path, ending: str) -> None:
    np.savez(
        tmp_path / "stamps.npz", triplets=np.stack([sky(n) for n in range(3)]), candid=np.array([70, 71, 72])
    )
    table = {
        "candid": [72, 70],
        "objectId": ["ZTF18a", "ZTF18b"],
        "object": ["SN", "star"],
        "fwhm_px": [3.0, 2.0],
        "Label": ["real", "bogus"],
    }
    path = tmp_path / f"my.{ending}"
    if ending == "parquet":
        pa = pytest.importorskip("pyarrow")
        import pyarrow.parquet as pq

        pq.write_table(pa.table(table), path)
    else:
        Table(table).write(path, format="ascii.csv")
    read = read_labels(path, cutouts=tmp_path / "stamps.npz")
    assert [(t.id, t.fwhm) for t in read.triplets] == [("72", 3.0), ("70", 2.0)]
    assert read.groups.tolist() == ["ZTF18a", "ZTF18b"]
    np.testing.assert_array_equal(read.triplets[0].science, sky(2)[0])


def test_names_for_a_stack_without_any_are_taken_row_by_row(tmp_path: Path) -> None:
    np.save(tmp_path / "stamps.npy", np.stack([sky(n) for n in range(3)]))
    rows = [{"id": f"cand{n}", "label": "real"} for n in range(3)]
    read = read_labels(write_csv(tmp_path / "my.csv", rows), cutouts=tmp_path / "stamps.npy")
    assert [t.id for t in read.triplets] == ["cand0", "cand1", "cand2"]
    np.testing.assert_array_equal(read.triplets[1].science, sky(1)[0])
    fewer = read_labels(write_csv(tmp_path / "less.csv", rows[:2]), cutouts=tmp_path / "stamps.npy")
    assert all("no candidate is named" in str(t.error) for t in fewer.triplets)


def test_a_file_per_channel(tmp_path: Path) -> None:
    triplet = sky(1)
    for name, stamp in zip(("s", "r", "d"), triplet, strict=True):
        fits.writeto(tmp_path / f"{name}.fits", stamp)
    rows = [
        {"science": "s.fits", "reference": "r.fits", "difference": "d.fits", "label": "real"},
        {"science": "s.fits", "reference": "", "difference": "d.fits", "label": "bogus"},
        {"science": "", "reference": "r.fits", "difference": "d.fits", "label": "bogus"},
    ]
    read = read_labels(write_csv(tmp_path / "my.csv", rows))
    for stamp, expected in zip(read.triplets[0].stamps, triplet, strict=True):
        np.testing.assert_array_equal(stamp, expected)
    assert read.triplets[1].reference is None
    assert "science cell is empty" in str(read.triplets[2].error)


def test_names_and_arrays_and_data_frames() -> None:
    pd = pytest.importorskip("pandas")
    stack = np.stack([sky(n) for n in range(3)])
    plain = read_labels(["a", "b", "a"], cutouts=stack, groups=[1, 2, 2])
    assert plain.groups.tolist() == ["1", "2", "2"]
    frame = pd.DataFrame({"label": ["a", "b", None], "group": [1.0, np.nan, 3.0]})
    read = read_labels(frame, cutouts=stack)
    assert read.labels.tolist() == ["a", "b", ""]
    assert read.groups.tolist() == ["1", "", "3"]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"class": ["a"]}, "no column 'label', which holds the classes; it has class"),
        ({"label": []}, "no rows"),
        ({"label": ["a", "b"], "split": ["train", "hold"]}, "not 'hold'"),
        ({"label": ["a", "b"], "fwhm": ["2", "-1"]}, "row 2: fwhm is '-1'"),
        ({"label": ["a", "b"], "weight": ["x", "1"]}, "row 1: weight is 'x'"),
        ({"label": ["a", "b", "c"]}, "3 labels, but cutouts hold 2 candidates"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(table: dict[str, list[str]], said: str) -> None:
    with pytest.raises(LabelError, match=said):
        read_labels(table, cutouts=np.stack([sky(0), sky(1)]))


def test_a_table_without_stamps_is_told_how_to_name_them() -> None:
    with pytest.raises(LabelError, match="add a column 'path'"):
        read_labels({"label": ["a", "b"]})


@pytest.mark.parametrize("text", ["", "label,label\na,b\n", "label,id\na\n", 'label\n"a\n'])
def test_a_broken_csv_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "my.csv").write_text(text)
    with pytest.raises(LabelError):
        read_labels(tmp_path / "my.csv", cutouts=np.stack([sky(0)]))


def test_every_kind_of_trouble_is_found_by_row(folder: Path) -> None:
    (folder / "broken.fits").write_bytes(b"SIMPLE  =   nonsense")
    write_fits(folder / "blank.fits", np.zeros((3, 63, 63), np.float32))
    write_fits(folder / "copy.fits", sky(0))
    rows = [
        {"path": "c0.fits", "label": "bogus", "group": "a", "split": "train"},
        {"path": "c1.fits", "label": "real", "group": "b", "split": "train"},
        {"path": "broken.fits", "label": "real", "group": "c", "split": ""},
        {"path": "blank.fits", "label": "bogus", "group": "d", "split": ""},
        {"path": "copy.fits", "label": "real", "group": "a", "split": "train"},
        {"path": "c2.fits", "label": "bogus", "group": "b", "split": "test"},
        {"path": "c3.fits", "label": "", "group": "e", "split": ""},
        {"path": "c3.fits", "label": "Real ", "group": "e", "split": ""},
    ]
    check = checked(read_labels(write_csv(folder / "my.csv", rows)))
    found = kinds(check)
    assert found["unreadable stamps"] == (2,)
    assert found["unusable stamps"] == (3,)
    assert found["conflicting labels"] == (0, 4)
    assert found["leakage"] == (1, 5)
    assert found["no label"] == (6,)
    assert found["class names"] == (1, 2, 4, 7)
    assert not check.ok
    text = "\n".join(check.lines())
    assert "row 3 (broken)" in text
    assert "'bogus'" in text
    with pytest.raises(LabelError, match="leakage"):
        check.require(skip_bad=True)


def test_skipping_leaves_out_bad_stamps_and_contradictions_only() -> None:
    stamps = [sky(0), sky(0), sky(1), np.zeros((3, 63, 63), np.float32), sky(2), sky(2), sky(3), sky(4)]
    check = checked(read_labels(list("ababbbab"), cutouts=np.stack(stamps), groups=list("xxyzwwvu")))
    with pytest.raises(LabelError, match="skip_bad"):
        check.require()
    assert check.require(skip_bad=True).rows.tolist() == [3, 5, 6, 7, 8]
    assert kinds(check)["duplicates"] == (5,)


@pytest.mark.parametrize(
    ("labels", "split", "reason"),
    [
        ("aaaa", "....", "is the only class"),
        ("aaab", "....", "'b' has usable rows of one sky object"),
        ("aabb", "..tt", "'b' has no usable row to train on"),
        ("aabb", ".v..", "'b' has no usable row in the split 'validation'"),
    ],
)
def test_a_class_that_cannot_be_judged_is_named(tmp_path: Path, labels: str, split: str, reason: str) -> None:
    names = {".": "", "t": "test", "v": "validation"}
    rows = [
        {"label": label, "split": names[part], "group": n}
        for n, (label, part) in enumerate(zip(labels, split, strict=True))
    ]
    stack = np.stack([sky(n) for n in range(4)])
    check = checked(read_labels(write_csv(tmp_path / "my.csv", rows), cutouts=stack))
    assert any("error: too few labels" in line and reason in line for line in check.lines())
    with pytest.raises(LabelError, match="too few labels"):
        check.require(skip_bad=True)


BASE = ModelRecord("base", "1.0.0", ("bogus", "real"), CONTRACT)


def check_names(names: list[str], *, new_classes: bool = False) -> LabelCheck:
    """Check class names only: every row has the same usable stamp."""
    rows = np.arange(len(names))
    triplet = Triplet(*sky(0), id="c")
    table = Labels(
        (triplet,) * len(rows), np.array(names), rows.astype(str), np.ones(len(rows)),
        np.full(len(rows), ""), rows + 1,
    )  # fmt: skip
    prepared = Prepared(
        sky(0)[None] + np.arange(len(rows), dtype=np.float32)[:, None, None, None],
        np.zeros(len(rows), np.uint16),
        np.ones(len(rows), bool),
    )
    return check_labels(table.spelled_as(BASE.classes), prepared, BASE, new_classes=new_classes)


def slips(check: LabelCheck) -> list[str]:
    return [p.message for p in check.problems if p.kind == "new classes" and p.fatal]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["real"] * 20 + ["bogus"] * 20 + ["reel"] * 2, "'reel' (row 41 (c); row 42 (c)) is close to 'real'"),
        (["reel"] * 20 + ["bogus"] * 20, "is close to 'real'"),
        (["rael"] * 9 + ["bogus"] * 9, "is close to 'real'"),
        (["transient"] * 20 + ["dipole"] * 20 + ["dipoles"] * 4, "is close to 'dipole'"),
        (["real"] * 20 + ["bogus"] * 20 + ["unsure"] * 3, "has 3 rows and is not a class of base@1.0.0"),
    ],
)  # fmt: skip
def test_a_class_name_that_looks_like_a_slip_must_be_meant(names: list[str], said: str) -> None:
    check = check_names(names)
    assert len(slips(check)) == 1
    assert said in slips(check)[0]
    assert "--new-classes" in slips(check)[0]
    with pytest.raises(LabelError, match="new classes"):
        check.require(skip_bad=True)
    meant = check_names(names, new_classes=True)
    assert slips(meant) == []
    assert "new classes" in kinds(meant)
    assert set(meant.require().classes) == set(names)


@pytest.mark.parametrize(
    "names",
    [
        ["transient"] * 20 + ["artefact"] * 20,
        ["real"] * 20 + ["bogus"] * 20 + ["satellite"] * 10,
        ["SN Ia"] * 20 + ["SN II"] * 15,
        ["a"] * 4 + ["b"] * 3,
        ["real"] * 20 + ["bogus"] * 3,
    ],
)
def test_classes_of_the_survey_s_own_need_no_leave(names: list[str]) -> None:
    assert check_names(names).ok


def test_stamps_of_one_field_become_one_object() -> None:
    stack = np.stack([sky(field, visit=visit, source=200.0) for field in range(4) for visit in range(3)])
    check = checked(read_labels(["a", "b", "a"] * 4, cutouts=stack))
    assert check.grouped_by == "similarity"
    assert "groups" in kinds(check)
    assert check.ok
    names = check.labels.groups.reshape(4, 3)
    assert all(len(set(row)) == 1 for row in names.tolist())
    assert len(set(names[:, 0].tolist())) == 4


def test_groups_that_are_given_are_kept() -> None:
    stack = np.stack([sky(0, visit=visit) for visit in range(3)])
    check = checked(read_labels(["a", "b", "a"], cutouts=stack, groups=["p", "q", ""]))
    assert check.labels.groups.tolist()[:2] == ["p", "q"]
    assert check.labels.groups[2] not in ("p", "q", "")


@pytest.mark.parametrize("separator", [",", ";"])
def test_comments_and_columns_of_any_name(folder: Path, separator: str) -> None:
    path = folder / "my.csv"
    rows = ["# night of 2024-11-05; two people", "path,label,verdict,field", "  # break", "c0.fits,7,bogus,a",
            "c1.fits,8,real,b"]  # fmt: skip
    path.write_text("\n".join(row.replace(",", separator) for row in rows))
    table = read_labels(path, label_column="verdict", group_column="field")
    assert table.labels.tolist() == ["bogus", "real"]
    assert table.groups.tolist() == ["a", "b"]
    assert table.rows.tolist() == [1, 2]
    assert read_labels(path).labels.tolist() == ["7", "8"]
    for how in ({"label_column": "kind"}, {"group_column": "kind"}):
        with pytest.raises(LabelError, match=r"no column 'kind'.*it has path, label, verdict, field"):
            read_labels(path, **how)


def test_a_column_that_is_named_outranks_one_that_is_called_group(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    columns = {"label": ["a", "b"], "group": ["x", "x"], "host": ["p", "q"]}
    pq.write_table(pa.table(columns), tmp_path / "my.parquet")
    stack = np.stack([sky(0), sky(1)])
    for table in (columns, tmp_path / "my.parquet"):
        assert read_labels(table, cutouts=stack, group_column="host").groups.tolist() == ["p", "q"]


def test_similarity_finds_objects_of_a_real_survey(shared_data: Path) -> None:
    """Most pairs that are put together are the same object, and a good part of such pairs is found."""
    with open(shared_data / "ztf" / "labels.csv", newline="") as stream:
        objects = np.array([row["objectId"] for row in csv.DictReader(stream)])
    values, counts = np.unique(objects, return_counts=True)
    chosen = np.flatnonzero(np.isin(objects, values[counts > 1]) | (np.arange(len(objects)) < 200))
    stamps, names = np.load(shared_data / "ztf" / "stamps.npz")["triplets"][chosen], objects[chosen]
    check = checked(read_labels(["x"] * len(chosen), cutouts=stamps))
    rows = np.flatnonzero(check.usable)
    truth, found = names[rows], check.labels.groups[rows]
    pairs = np.triu(np.ones((len(rows), len(rows)), bool), 1)
    same, together = (truth[:, None] == truth) & pairs, (found[:, None] == found) & pairs
    assert (same & together).sum() / together.sum() > 0.8
    assert (same & together).sum() / same.sum() > 0.3


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("ending", [".csv", ".tsv", ".txt"])
def test_tables_with_any_separator(folder: Path, separator: str, ending: str) -> None:
    path = folder / f"my{ending}"
    rows = ["path,label,group", "c0.fits,bogus,007", "c1.fits,real,b"]
    path.write_text("\n".join(row.replace(",", separator) for row in rows))
    table = read_labels(path)
    assert table.labels.tolist() == ["bogus", "real"]
    assert table.groups.tolist() == ["007", "b"]
    assert all(triplet.error is None for triplet in table.triplets)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (["Real", "BOGUS ", "real"], ["real", "bogus", "real"]),
        (["1", "0", "1"], ["real", "bogus", "real"]),
        ([1.0, 0.0, 1.0], ["real", "bogus", "real"]),
        ([True, False, True], ["real", "bogus", "real"]),
        (["1", "0", "2"], ["1", "0", "2"]),
        (["Good", "Junk", "Real"], ["Good", "Junk", "real"]),
        (["real", "", "bogus"], ["real", "", "bogus"]),
    ],
)
def test_labels_are_taken_in_the_model_s_spelling(written: list[Any], meant: list[str]) -> None:
    table = read_labels(written, cutouts=np.stack([sky(k) for k in range(3)]))
    named = table.spelled_as(("bogus", "real"))
    assert named.labels.tolist() == meant
    told = kinds(checked(named)).get("spelling", ())
    assert told == tuple(k for k in range(3) if meant[k] in named.renamed.values())


def test_numbers_are_no_classes_of_a_model_with_three() -> None:
    table = read_labels(["1", "0", "1"], cutouts=np.stack([sky(k) for k in range(3)]))
    assert table.spelled_as(("hosted", "variable", "orphan")).labels.tolist() == ["1", "0", "1"]
