"""A score table that grows: kills, resumed runs, other runs, other settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from score_rows import read, table

from transientnet.errors import UsageError
from transientnet.results.writers import FORMATS, writer_for
from transientnet.scoring.batches import Mark, Part, content_id
from transientnet.scoring.output import ScoreFile

MADE_BY = {"model": "m@1.0.0", "threshold": None}


def grow(path: Path, first: int, last: int, *, resume: bool) -> int:
    """Append parts of three rows, one input each; gives the rows that were there."""
    with ScoreFile(path, MADE_BY, table(0), resume=resume) as file:
        there = file.rows
        for number in range(first, last):
            file.append(Part(table(3, start=number), (Mark(f"input{number}", 3, True),)))
            file.commit()
    return there


@pytest.mark.parametrize("ending", FORMATS)
def test_a_resumed_table_is_the_table_of_one_run(tmp_path: Path, ending: str) -> None:
    whole, parts = tmp_path / f"whole{ending}", tmp_path / f"parts{ending}"
    grow(whole, 0, 6, resume=False)
    assert grow(parts, 0, 2, resume=True) == 0
    assert grow(parts, 2, 3, resume=True) == 6
    assert grow(parts, 3, 6, resume=True) == 9
    assert read(parts) == read(whole)
    if ending != ".parquet":
        assert parts.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("torn", [1, 30, 100])
def test_what_the_journal_does_not_vouch_for_is_cut_off(tmp_path: Path, ending: str, torn: int) -> None:
    whole, path = tmp_path / f"whole{ending}", tmp_path / f"scores{ending}"
    grow(whole, 0, 4, resume=False)
    grow(path, 0, 2, resume=False)
    growing = path
    if writer_for(path).staged:
        # As it was just before it was made into the file.
        growing = path.with_name(path.name + ".staged")
        writer_for(path).restore(path, growing, 6)
        journal = path.with_name(path.name + ".journal")
        lines = [json.loads(line) for line in journal.read_text().splitlines()]
        lines[-1]["end"] = growing.stat().st_size
        journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    # What a kill leaves: rows without their line in the journal, and a line cut off in its middle.
    with open(growing, "ab") as stream:
        stream.write(writer_for(path).rows(table(3, start=9).columns())[:torn])
    with open(path.with_name(path.name + ".journal"), "ab") as stream:
        stream.write(b'{"rows": 9, "en')
    assert grow(path, 2, 4, resume=True) == 6
    assert read(path) == read(whole)


def test_an_interrupted_input_goes_on_behind_its_last_row(tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.npy" for name in ("one", "two", "three")]
    for number, file in enumerate(files):
        file.write_bytes(bytes([number]))
    ids = [content_id(str(file)) for file in files]
    path = tmp_path / "scores.csv"
    with ScoreFile(path, MADE_BY, table(0)) as score:
        score.append(Part(table(3), (Mark(ids[0], 2, True), Mark(ids[1], 1, False))))
        score.append(Part(table(3), (Mark(ids[1], 3, False),)))
    with ScoreFile(path, MADE_BY, table(0), resume=True) as score:
        inputs, skips = score.remaining([str(file) for file in files])
    assert (inputs, skips) == ([str(file) for file in files[1:]], [4])


def test_of_two_copies_each_has_its_rows_and_a_moved_file_is_known(tmp_path: Path) -> None:
    one, copy = tmp_path / "one.npy", tmp_path / "copy.npy"
    one.write_bytes(b"same")
    copy.write_bytes(b"same")
    with ScoreFile(tmp_path / "s.csv", MADE_BY, table(0)) as score:
        score.append(Part(table(1), (Mark(content_id(str(one)), 1, True),)))
    moved = one.rename(tmp_path / "moved.npy")
    with ScoreFile(tmp_path / "s.csv", MADE_BY, table(0), resume=True) as score:
        assert score.remaining([str(moved), str(copy)]) == ([str(copy)], [])
    with ScoreFile(tmp_path / "s.csv", MADE_BY, table(0), resume=True) as score:
        assert score.remaining([str(moved)]) == ([], [])
        # What comes later is a copy, and has its own rows.
        assert score.remaining([str(copy)]) == ([str(copy)], [])


def test_a_table_is_continued_only_by_what_made_it(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    grow(path, 0, 1, resume=False)
    before = path.read_bytes()
    with pytest.raises(UsageError, match=r"'m@1\.0\.0', now 'm@2\.0\.0'"):
        ScoreFile(path, {**MADE_BY, "model": "m@2.0.0"}, table(0), resume=True)
    (tmp_path / "scores.csv.journal").unlink()
    with pytest.raises(UsageError, match="no journal"):
        ScoreFile(path, MADE_BY, table(0), resume=True)
    assert path.read_bytes() == before


def test_two_runs_do_not_write_one_table(tmp_path: Path) -> None:
    with ScoreFile(tmp_path / "s.csv", MADE_BY, table(0)), pytest.raises(UsageError, match="another run"):
        ScoreFile(tmp_path / "s.csv", MADE_BY, table(0), resume=True)


def test_parquet_comes_in_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("transientnet.results.writers._ROW_GROUP", 6)
    grow(tmp_path / "s.parquet", 0, 7, resume=False)
    metadata = pq.read_metadata(tmp_path / "s.parquet")
    assert metadata.num_rows == 21
    assert metadata.num_row_groups == 4


def test_a_kill_before_the_first_row_does_not_bring_an_old_table_back(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "s.parquet"
    grow(path, 0, 3, resume=False)
    # A new run wrote its first line, and was killed before it had staged anything.
    journal = tmp_path / "s.parquet.journal"
    journal.write_text(journal.read_text().splitlines()[0] + "\n")
    assert grow(path, 0, 3, resume=True) == 0
    assert len(read(path)) == 9


@pytest.mark.parametrize("line", [1, 2])
@pytest.mark.parametrize(
    ("ending", "damage"),
    [
        *((ending, b"garbage") for ending in FORMATS),
        *((".csv", damage) for damage in (b"{}", b"[1]", b'{"rows": 3', b"\xff\x00")),
    ],
)
def test_behind_a_damaged_line_of_the_journal_is_scored_again(
    tmp_path: Path, ending: str, line: int, damage: bytes
) -> None:
    whole, path = tmp_path / f"whole{ending}", tmp_path / f"s{ending}"
    grow(whole, 0, 3, resume=False)
    grow(path, 0, 3, resume=False)
    journal = path.with_name(path.name + ".journal")
    lines = journal.read_bytes().splitlines()
    lines[line] = damage
    journal.write_bytes(b"\n".join(lines) + b"\n")
    there = grow(path, line - 1, 3, resume=True)
    assert there == 3 * (line - 1)
    assert read(path) == read(whole)


def test_a_journal_without_a_beginning_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    grow(path, 0, 2, resume=False)
    journal = tmp_path / "s.csv.journal"
    journal.write_text("garbage\n" + journal.read_text())
    before = path.read_bytes()
    with pytest.raises(UsageError, match="damaged"):
        grow(path, 2, 3, resume=True)
    assert path.read_bytes() == before


def test_another_run_finds_the_journal_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    with ScoreFile(path, MADE_BY, table(0)) as score:
        score.append(Part(table(3), (Mark("one", 3, True),)))
        score.commit()
        before = (tmp_path / "s.csv.journal").read_bytes()
        with pytest.raises(UsageError, match="another run"):
            ScoreFile(path, {**MADE_BY, "model": "other"}, table(0))
        assert (tmp_path / "s.csv.journal").read_bytes() == before


def test_what_is_lost_of_an_input_is_remembered_until_it_is_found(tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.npy" for name in ("whole", "short", "other")]
    for number, file in enumerate(files):
        file.write_bytes(bytes([number]))
    whole, short, other = (content_id(str(file)) for file in files)
    path = tmp_path / "s.csv"
    with ScoreFile(path, MADE_BY, table(0)) as score:
        score.append(Part(table(5), (Mark(whole, 5, False),)))
        score.append(Part(table(1), (Mark(whole, 5, False, True), Mark(short, 5, True, True))))
        score.append(Part(table(1), (Mark(other, 1, True),)))
    for _ in range(2):
        with ScoreFile(path, MADE_BY, table(0), resume=True) as score:
            assert score.remaining([str(files[1]), str(files[2])]) == ([str(files[1])], [5])
    with ScoreFile(path, MADE_BY, table(0), resume=True) as score:
        assert score.remaining([str(files[0])]) == ([str(files[0])], [5])
        score.append(Part(table(2), (Mark(whole, 2, True),)))
    with ScoreFile(path, MADE_BY, table(0), resume=True) as score:
        assert score.remaining([str(files[0])]) == ([], [])
