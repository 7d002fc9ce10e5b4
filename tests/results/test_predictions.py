"""The score table: columns, labels, and every format it is written in."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from score_rows import read, table

from transientnet import Predictions, QualityFlag, Triplet
from transientnet.errors import EmptyInputError, ReadError, UsageError
from transientnet.results.scores import read_scores
from transientnet.results.writers import FORMATS


def test_labels_name_the_most_probable_class_or_follow_the_threshold() -> None:
    rows = table(5)
    assert rows.labels.tolist() == ["", "bogus", "bogus", "", "real"]
    assert replace(rows, threshold=0.2).labels.tolist() == ["", "real", "real", "", "real"]
    assert replace(rows, threshold=1.0).labels.tolist() == ["", "bogus", "bogus", "", "bogus"]


def test_slices_and_concatenation_are_inverse() -> None:
    rows = table(7)
    joined = Predictions.concatenate([rows[:3], rows[3:3], rows[3:]], rows.classes, rows.model)
    assert joined.ids.tolist() == rows.ids.tolist()
    assert joined.errors == rows.errors
    assert table(7)[3:].errors == {}


def test_pandas_and_astropy_show_the_columns_of_the_score_table() -> None:
    names = ["id", "source", "label", "p_bogus", "p_real", "quality", "model"]
    assert list(table().to_pandas().columns) == names
    assert table().to_table().colnames == names
    assert table().to_arrow().schema.names == names


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("n", [0, 5])
def test_every_format_tells_the_same(tmp_path: Path, ending: str, n: int) -> None:
    table(n).write(tmp_path / "reference.csv")
    path = tmp_path / f"scores{ending}"
    table(n).write(path)
    expected = read(tmp_path / "reference.csv")
    if ending == ".fits":
        # FITS has no other letters than those of ASCII.
        expected = [{**row, "source": row["source"].replace("ä", "\\xe4")} for row in expected]
    assert read(path) == expected
    assert {item.name for item in tmp_path.iterdir()} == {"reference.csv", path.name}


def test_an_unknown_ending_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.parquet"):
        table().write(tmp_path / "scores.xlsx")
    assert not list(tmp_path.iterdir())


#: What names may hold, and how it is written.
NASTY = {
    "lone\ud800surrogate": "lone\\ud800surrogate",
    "carriage\rreturn": "carriage\\rreturn",
    "new\nline": "new\\nline",
    "separator\u2028": "separator\\u2028",
    "nul\x00l": "nul\\x00l",
    "bell\x07": "bell\\x07",
    "bad\udcff": "bad\\xff",
    'q,"uote': 'q,"uote',
}


@pytest.mark.parametrize("ending", FORMATS)
def test_whatever_a_name_holds_it_is_one_row_of_text(tmp_path: Path, ending: str) -> None:
    names, n = list(NASTY), len(NASTY)
    odd = replace(table(n), ids=np.array(names), sources=np.array(names[::-1]))
    path = tmp_path / f"scores{ending}"
    odd.write(path)
    back = read_scores(path)
    assert back.ids.tolist() == list(NASTY.values())
    assert back.sources.tolist() == back.ids.tolist()[::-1]
    if ending in (".csv", ".jsonl"):
        assert len(path.read_bytes().decode("utf-8").splitlines()) == n + (ending == ".csv")


@pytest.mark.parametrize("ending", FORMATS)
def test_a_table_read_back_is_the_table_written(tmp_path: Path, ending: str) -> None:
    rows = replace(
        table(6),
        threshold=0.2,
        sets=np.array([[False, False], [True, False], [True, True]] * 2),
        positions={"ra": np.array([np.nan, 10.1234567, 359.9, 0, 1, 2]), "x": np.arange(6.0)},
    )
    rows.write(tmp_path / f"s{ending}")
    back = read_scores(tmp_path / f"s{ending}")
    assert (back.classes, back.model) == (rows.classes, rows.model)
    assert back.ids.tolist() == rows.ids.tolist()
    assert back.labels.tolist() == rows.labels.tolist()
    assert back.quality.dtype == np.uint16
    assert back.quality.tolist() == rows.quality.tolist()
    np.testing.assert_allclose(back.probabilities, rows.probabilities, atol=1e-7)
    assert back.positions.keys() == {"ra", "x"}
    np.testing.assert_allclose(back.positions["ra"], rows.positions["ra"])
    assert back.sets is not None
    np.testing.assert_array_equal(back.sets, rows.sets)


def test_what_is_no_score_table_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"none\.csv.*No such file"):
        read_scores(tmp_path / "none.csv")
    with pytest.raises(UsageError, match=r"\.vot"):
        read_scores(tmp_path / "none.txt")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ReadError, match="p_<class>"):
        read_scores(tmp_path / "other.csv")
    (tmp_path / "torn.csv").write_text("id,p_real,quality\nx,0.5,0\ny,0.")
    with pytest.raises(ReadError, match="line 3 has 2 cells"):
        read_scores(tmp_path / "torn.csv")
    table(0).write(tmp_path / "empty.csv")
    with pytest.raises(EmptyInputError):
        read_scores(tmp_path / "empty.csv")
    for ending in (".parquet", ".fits", ".jsonl", ".ecsv", ".vot"):
        (tmp_path / f"garbage{ending}").write_bytes(b"\x00\x01 garbage <STREAM")
        with pytest.raises(ReadError, match="garbage"):
            read_scores(tmp_path / f"garbage{ending}")


def test_a_votable_that_refers_to_another_file_is_not_followed(tmp_path: Path) -> None:
    table(2).write(tmp_path / "s.vot")
    text = (tmp_path / "s.vot").read_text()
    start, end = text.index("<TABLEDATA>"), text.index("</TABLEDATA>") + len("</TABLEDATA>")
    href = f'<BINARY><STREAM href="file://{tmp_path}/secret"/></BINARY>'
    (tmp_path / "s.vot").write_text(text[:start] + href + text[end:])
    with pytest.raises(ReadError, match="elsewhere"):
        read_scores(tmp_path / "s.vot")


def test_rows_columns_masks_and_index_lists() -> None:
    rows = replace(table(5), positions={"ra": np.arange(5.0)})
    assert rows[1].id == 'c,"1"'
    assert rows[1].probabilities["real"] == pytest.approx(0.3)
    assert rows[-1].id == rows[np.int64(4)].id == 'c,"4"'
    assert rows[[4, 0]].ids.tolist() == ['c,"4"', 'c,"0"']
    assert rows[[4, 0]].errors == {1: "blank"}
    assert rows[[4, 0]].positions["ra"].tolist() == [4, 0]
    assert rows[[]].ids.tolist() == []
    real = rows[rows["p_real"] > 0.4]
    assert real.ids.tolist() == rows.ids[[2, 4]].tolist()
    assert real.errors == {}
    assert rows["label"].tolist() == rows.labels.tolist()
    with pytest.raises(KeyError, match="p_fake"):
        rows["p_fake"]
    with pytest.raises(IndexError):
        rows[5]
    with pytest.raises(IndexError):
        rows[np.ones(4, bool)]


def test_a_row_for_which_the_model_gives_no_number_is_flagged() -> None:
    stamp = np.ones((3, 3))
    p = np.array([[0.1, np.nan], [np.nan, np.nan], [0.2, 0.8]], np.float32)
    quality = np.array([0, QualityFlag.BLANK, QualityFlag.MASKED], np.uint16)
    rows = Predictions.of([Triplet(stamp, id=str(i)) for i in range(3)], ("a", "b"), p, quality, "m@1")
    assert np.isnan(rows.probabilities[:2]).all()
    assert rows.quality.tolist() == [QualityFlag.FAILED, QualityFlag.BLANK, QualityFlag.MASKED]
    assert list(rows.errors) == [0]
    assert p[0, 0] == np.float32(0.1)


def test_positions_are_carried_where_the_source_says_them() -> None:
    stamp = np.ones((3, 3))
    metas = [{"ra": 10.5, "dec": -3}, {}, {"ra": "nonsense", "dec": None}, {"ra": -999e30, "x": 4}]
    triplets = [Triplet(stamp, id=str(i), meta=meta) for i, meta in enumerate(metas)]
    p, quality = np.full((4, 2), 0.5, np.float32), np.zeros(4, np.uint16)
    rows = Predictions.of(triplets, ("a", "b"), p, quality, "m@1")
    assert list(rows.columns())[-3:] == ["ra", "dec", "x"]
    np.testing.assert_array_equal(rows["ra"], [10.5, np.nan, np.nan, np.nan])
    assert list(rows.columns(positions=True))[-4:] == ["ra", "dec", "x", "y"]
    assert "ra" not in rows.columns(positions=False)
    joined = Predictions.concatenate([rows[:1], table(1)], ("a", "b"), "m@1")
    np.testing.assert_array_equal(joined["dec"], [-3, np.nan])


def test_a_line_of_80_characters_shows_ids_and_probabilities() -> None:
    classes = ("hosted", "variable", "orphan", "bogus")
    rows = Predictions(
        np.array([str(2459123456789012340 + i) for i in range(9)]), classes,
        np.full((9, 4), 0.25, np.float32), np.zeros(9, np.uint16), "4class@0.1.0",
        np.array(["/data/nights/2024-11-05/packets/ztf_public_20241105.avro"] * 9), {},
        positions={name: np.full(9, 123.456789) for name in ("ra", "dec", "x", "y")},
    )  # fmt: skip
    table_ = rows.to_table()
    lines = table_.pformat(max_width=80)
    assert all(len(line) <= 80 for line in lines)
    for name in ("id", *(f"p_{name}" for name in classes)):
        assert name in lines[0].split()
    assert "2459123456789012340" in lines[-9]
    assert "..." not in lines[0]
    assert table_["ra"].unit == "deg"
    assert table_["quality"].description
    assert set(table_.colnames) == set(rows.columns())


def test_unusable_rows_are_masked_and_sort_last_in_either_direction(tmp_path: Path) -> None:
    sorted_ = table(7).to_table()
    for reverse in (False, True):
        sorted_.sort("p_real", reverse=reverse)
        values = sorted_["p_real"]
        assert np.ma.getmaskarray(values).tolist() == [False] * 4 + [True] * 3
        known = np.asarray(values[:4])
        assert (np.diff(known) < 0 if reverse else np.diff(known) > 0).all()
    # A table of astropy's writes every digit, whatever it shows.
    sorted_.write(tmp_path / "x.csv", format="ascii.csv")
    with open(tmp_path / "x.csv", newline="") as stream:
        first = next(csv.DictReader(stream))
    assert float(first["p_real"]) == pytest.approx(float(known[0]), abs=1e-7)


def test_reprs_are_short() -> None:
    rows = table(300)
    assert repr(rows) == "<Predictions of m@1.0.0: 300 candidates: 100 bogus, 100 real, 100 unusable>"
    assert "280 more rows" in rows._repr_html_()
    assert rows._repr_html_().count("<tr>") < 30
