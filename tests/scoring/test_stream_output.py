"""The file that a stream is appended to: torn lines, other columns, other writers."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from transientnet import Predictions
from transientnet.errors import UsageError
from transientnet.scoring.kafka import appender


def rows(*ids: str) -> Predictions:
    n = len(ids)
    return Predictions(
        np.array(ids), ("bogus", "real"), np.full((n, 2), 0.5, np.float32), np.zeros(n, np.uint16), "m@1",
        np.array(["topic[0]@1"] * n), {}, positions={"ra": np.full(n, 10.5)},
    )  # fmt: skip


def append(path: Path, *ids: str) -> None:
    with appender(path) as write:
        for name in ids:
            write(rows(name))


def ids_in(path: Path) -> list[str]:
    if path.suffix == ".csv":
        with open(path, newline="", encoding="utf-8") as stream:
            return [row["id"] for row in csv.DictReader(stream)]
    return [json.loads(line)["id"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
@pytest.mark.parametrize("kept", [-1, -20, 30, 5])
def test_a_torn_last_line_is_cut_and_its_packet_written_again(tmp_path: Path, ending: str, kept: int) -> None:
    path, whole = tmp_path / f"s.{ending}", tmp_path / f"whole.{ending}"
    append(whole, "a", "b", "c")
    append(path, "a", "b")
    path.write_bytes(path.read_bytes()[:kept])
    # At least once: from the last whole line on packets come again.
    append(path, *["a", "b", "c"][len(ids_in_whole_lines(path)) :])
    assert path.read_bytes() == whole.read_bytes()


def ids_in_whole_lines(path: Path) -> list[str]:
    whole = path.with_name("lines" + path.suffix)
    whole.write_bytes(path.read_bytes()[: path.read_bytes().rfind(b"\n") + 1])
    return ids_in(whole)


def test_names_that_would_break_a_line_do_not(tmp_path: Path) -> None:
    for path in (tmp_path / "s.csv", tmp_path / "s.jsonl"):
        append(path, "lone\ud800", "car\rriage", "plain")
        append(path, "again")
        assert ids_in(path) == ["lone\\ud800", "car\\rriage", "plain", "again"]


def test_a_file_of_other_columns_is_refused_and_an_older_one_goes_on(tmp_path: Path) -> None:
    other, older = tmp_path / "other.csv", tmp_path / "older.csv"
    other.write_text("id,p_hosted\n")
    with pytest.raises(UsageError, match="other columns: id,p_hosted"):
        append(other, "a")
    assert other.read_text() == "id,p_hosted\n"
    older.write_text("id,source,label,p_bogus,p_real,quality,model\n")
    append(older, "a")
    assert [line.count(",") for line in older.read_text().splitlines()] == [6, 6]
    with pytest.raises(UsageError, match=r"\.csv or a \.jsonl"):
        append(tmp_path / "s.parquet", "a")


def test_two_streams_do_not_write_one_file(tmp_path: Path) -> None:
    with appender(tmp_path / "s.csv"), pytest.raises(UsageError, match="another run"):
        append(tmp_path / "s.csv", "a")
