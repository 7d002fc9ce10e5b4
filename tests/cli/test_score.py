"""``transientnet score`` as a user meets it: streams, exit codes, resume, watch, Ctrl-C, kill -9."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from score_rows import read as rows_of
from typer.testing import CliRunner

from transientnet.cli import app

ROOT = Path(__file__).parents[2]
HEADER = "id,source,label,p_bogus,p_real,quality,model"


def stamps(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 5, (n, 3, 31, 31)).astype(np.float32)


#: The command as a terminal starts it: a job in the background, as the tests may be, is deaf to Ctrl-C.
COMMAND = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from transientnet.cli import main
main()
"""


@contextmanager
def started(*args: object, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """``score`` in the background; however the test ends, neither process nor pipe outlives it."""
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, "score", *map(str, args)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, **options,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def score(*args: object, given: str | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    with started(*args, **options) as process:
        out, err = process.communicate(given, timeout=200)
    return subprocess.CompletedProcess(args, process.returncode, out, err)


def quick(*args: object) -> subprocess.CompletedProcess[str]:
    """``score`` in this process, where only its answer matters."""
    done = CliRunner().invoke(app, ["score", *map(str, args)])
    return subprocess.CompletedProcess(args, done.exit_code, done.stdout, done.stderr)


def has_grown(process: subprocess.Popen[str], table: Path, size: int) -> bool:
    """Wait until a table holds more than `size` bytes: whether the run that writes it still runs then."""
    patience = time.monotonic() + 200
    while process.poll() is None and not (table.exists() and table.stat().st_size > size):
        assert time.monotonic() < patience
        time.sleep(0.002)
    return process.poll() is None


def children(pid: int) -> list[int]:
    """Processes that a process has started; none of one that has ended."""
    try:
        lists = [task.read_text() for task in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return []
    return [int(child) for text in lists for child in text.split()]


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("night")
    for i in range(3):
        np.save(folder / f"c{i}.npy", stamps(1, i)[0])
    np.save(folder / "many.npy", stamps(3000, 9))
    return folder


def test_data_on_stdout_and_nothing_else(night: Path) -> None:
    run = score(night / "c0.npy", night / "c1.npy")
    assert run.returncode == 0
    lines = run.stdout.splitlines()
    assert lines[0] == HEADER
    assert [line.split(",")[0] for line in lines[1:]] == ["c0", "c1"]
    # One line for a person, counted and in the singular where it is one.
    assert re.fullmatch(r"transientnet: 2 candidates read: .*; \d flagged, 0 refused; .* s\n", run.stderr)
    assert re.match("transientnet: 1 candidate read: ", score(night / "c0.npy").stderr)


def test_exit_codes_and_messages(night: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.fits"
    broken.write_text("this is text")
    mixed = score(broken, night / "c0.npy")
    assert mixed.returncode == 0
    assert "broken.fits" in mixed.stderr
    assert len(mixed.stdout.splitlines()) == 3
    assert score(broken).returncode == 4
    assert score(tmp_path / "empty").returncode == 4
    assert score(night / "c0.npy", "-m", "nosuch").returncode == 3
    for usage in (
        ["-o", "x.xlsx"], ["--resume"], ["--on-bad", "ignore"], ["-m", "3class", "--threshold", "0.5"],
        ["--catalog", "c.csv"],
    ):  # fmt: skip
        assert score(night / "c0.npy", *usage).returncode == 2, usage
    assert score(broken, night / "c0.npy", "--on-bad", "raise").returncode == 4


def test_most_of_a_night_without_seeing_or_unlike_the_training_is_said(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-31:32, -31:32]
    source = 200 * np.exp(-(x**2 + y**2) / 8)
    faint = rng.normal(100, 20, (12, 3, 63, 63))
    faint[:, ::2] += source
    np.save(tmp_path / "faint.npy", faint)
    run = score(tmp_path / "faint.npy")
    assert run.returncode == 0
    assert "the seeing of 12 of 12 candidates is not known" in run.stderr
    assert "above 5 pixels give --fwhm" in run.stderr
    assert "seeing" not in score(tmp_path / "faint.npy", "--fwhm", "4").stderr
    # A gradient that no survey leaves in its stamps.
    np.save(tmp_path / "tilted.npy", faint + 200 * np.arange(63))
    run = score(tmp_path / "tilted.npy", "--fwhm", "4")
    assert "12 of 12 candidates are unlike what realbogus@" in run.stderr
    assert "transientnet adapt" in run.stderr


def test_threshold_names_the_class(night: Path) -> None:
    for threshold, label in (("0", "real"), ("1", "bogus")):
        lines = quick(night / "c0.npy", "--threshold", threshold).stdout.splitlines()
        assert lines[1].split(",")[2] == label


def test_a_reader_that_goes_away_is_no_error(night: Path) -> None:
    with started(night) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(200) == 0
        assert process.stderr.read() == ""


@pytest.mark.parametrize("name", ["scores.csv", "scores.parquet"])
def test_killed_again_and_again_with_workers_nothing_is_lost_or_doubled(tmp_path: Path, name: str) -> None:
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    folder = tmp_path / "night"
    folder.mkdir()
    for i in range(24):
        np.save(folder / f"f{i:02d}.npy", stamps(60, i))
    whole, killed = tmp_path / f"whole_{name}", tmp_path / name
    assert score(folder, "-o", whole, "--workers", 1).returncode == 0
    growing = tmp_path / f"{name}.staged" if name.endswith(".parquet") else killed
    kills = 0
    for _ in range(5):
        begun = growing.stat().st_size if growing.exists() else 0
        with started(folder, "-o", killed, "--resume", "--workers", 1 + kills % 2) as process:
            has_grown(process, growing, begun + 500)
            workers = children(process.pid)
            process.kill()
        # Workers end by themselves when their parent has gone.
        patience = time.monotonic() + 100
        while any(Path(f"/proc/{pid}").exists() for pid in workers):
            assert time.monotonic() < patience
            time.sleep(0.01)
        if process.returncode == 0:
            # On a quick machine the run may end before the kill: that is none, and the night begins anew.
            assert killed.read_bytes() == whole.read_bytes()
            for path in tmp_path.glob(f"{name}*"):
                path.unlink()
        else:
            assert process.returncode == -signal.SIGKILL
            kills += 1
        if kills == 2:
            break
    assert kills
    assert score(folder, "-o", killed, "--resume", "--workers", 2).returncode == 0
    assert killed.read_bytes() == whole.read_bytes()

    # A file that arrives later is a row more, and no other row changes.
    np.save(folder / "z_new.npy", stamps(1, 77)[0])
    assert score(folder, "-o", killed, "--resume").returncode == 0
    before, after = rows_of(whole), rows_of(killed)
    assert after[:-1] == before
    assert after[-1]["id"] == "z_new"


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_closes_the_file_and_says_how_to_go_on(night: Path, tmp_path: Path, workers: int) -> None:
    files = [night / "many.npy"] * 2
    stopped = tmp_path / "stopped.jsonl"
    for _ in range(6):
        with started(*files, "-o", stopped, "--workers", workers) as process:
            has_grown(process, stopped, 20_000)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=200)
        if process.returncode == 130:
            break
        # It came to its end before the signal.
        assert process.returncode == 0
        stopped.unlink()
    assert process.returncode == 130
    assert "--resume" in err
    lines = stopped.read_bytes()
    assert lines.endswith(b"\n")
    ids = [json.loads(line)["id"] for line in lines.splitlines()]
    assert len(ids) < 6_000
    assert ids == [str(i % 3000) for i in range(len(ids))]
    assert re.search(rf"\b{len(ids):,} candidates read", err)
    assert score(*files, "-o", stopped, "--resume").returncode == 0
    ids = [json.loads(line)["id"] for line in stopped.read_bytes().splitlines()]
    assert ids == [str(i % 3000) for i in range(6_000)]


def on_terminal(*arguments: object) -> str:
    """What a terminal is sent on stderr."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "transientnet", *map(str, arguments)],
        stdout=subprocess.DEVNULL, stderr=theirs,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "120"},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    try:
        while block := os.read(ours, 4096):
            shown += block
    except OSError:
        pass  # the other end was closed
    os.close(ours)
    assert process.wait(200) == 0
    return shown.decode()


TERMINALS = pytest.mark.skipif(not hasattr(os, "openpty"), reason="no pseudo-terminals on this system")


@TERMINALS
def test_a_terminal_shows_rate_and_progress(night: Path) -> None:
    shown = on_terminal("score", night)
    assert re.search(r"scoring.*candidates, \d+/s", shown)
    assert "3,003 candidates read: " in shown


@TERMINALS
def test_the_bar_counts_candidates_and_messages_stand_above_it(tmp_path: Path) -> None:
    many = np.resize(stamps(30, 0), (3000, 3, 63, 63))
    np.savez(tmp_path / "a.npz", triplets=many)
    (tmp_path / "b.fits").write_bytes(b"SIMPLE  = cut short")
    shown = on_terminal("score", tmp_path / "a.npz", tmp_path / "b.fits", "-o", tmp_path / "scores.csv")
    counts = [int(n.replace(",", "")) for n in re.findall(r"([\d,]+) of 3,00\d candidates", shown)]
    assert any(0 < n < 3000 for n in counts)
    assert re.search(r", \d:\d\d left", shown)
    # A message begins its line, also where a bar stood on it: that is cleared first.
    for message in re.findall(r"[^\r\n]*transientnet: [^\r\n]*", shown):
        assert "candidates," not in message.partition("transientnet:")[0], message


@TERMINALS
def test_quiet_says_only_what_went_wrong(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", stamps(1, 0)[0])
    (tmp_path / "b.fits").write_bytes(b"SIMPLE  = cut short")
    shown = on_terminal("score", "-q", tmp_path / "a.npy", tmp_path / "b.fits", "-o", tmp_path / "scores.csv")
    assert len(shown.splitlines()) == 1
    assert "b.fits" in shown


class Watcher:
    """``score --watch`` in the background, ended by Ctrl-C."""

    def __init__(self, folder: Path, out: Path) -> None:
        self.out = out
        self.running = started("--watch", folder, "-o", out)

    def wait_for(self, name: str) -> None:
        """Rows become visible when they are committed."""
        patience = time.monotonic() + 120
        while not self.out.exists() or f"\n{name}," not in self.out.read_text():
            assert time.monotonic() < patience, self.process.poll()
            time.sleep(0.05)

    def __enter__(self) -> Watcher:
        self.process = self.running.__enter__()
        return self

    def __exit__(self, kind: Any, *problem: Any) -> None:
        try:
            self.process.send_signal(signal.SIGINT)
            self.process.communicate(timeout=200)
        finally:
            self.running.__exit__(kind, *problem)
        assert kind is not None or self.process.returncode == 130

    def names(self) -> list[str]:
        return [line.split(",")[0] for line in self.out.read_text().splitlines()[1:]]


def test_what_arrives_while_the_first_files_are_scored_is_scored_too(night: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "incoming", tmp_path / "scores.csv"
    shutil.copytree(night, folder)
    with Watcher(folder, out) as watcher:
        assert has_grown(watcher.process, out, 20_000)
        np.save(folder / "late.npy", stamps(1, 77)[0])
        watcher.wait_for("late")
    names = watcher.names()
    assert len(names) == 3003 + 1
    assert len(set(names)) == len(names)


def test_gallery_and_explanations_are_drawn_beside_the_table(tmp_path: Path) -> None:
    examples = Path(__file__).parents[2] / "docs" / "examples" / "cutouts"
    files = [str(examples / f"{name}.fits") for name in ("asteroid", "blank", "cosmic_ray")]
    page, folder = tmp_path / "night.html", tmp_path / "why"
    done = quick(*files, "--gallery", str(page), "--explain", str(folder), "--sets", "0.95")
    assert done.returncode == 0, done.stderr
    rows = done.stdout.splitlines()
    assert rows[0].endswith(",set")
    assert [row.split(",")[0] for row in rows[1:]] == ["asteroid", "blank", "cosmic_ray"]
    text = page.read_text()
    assert all(name in text for name in ("asteroid", "blank", "cosmic_ray"))
    # What has no score has no explanation.
    assert [path.name for path in sorted(folder.iterdir())] == ["00001_asteroid.png", "00003_cosmic_ray.png"]
    refused = score(*files, "--gallery", str(page), "--resume", "-o", str(tmp_path / "s.csv"))
    assert refused.returncode == 2


# ---------------------------------------------------------------- lists of files, streams, disks


def test_paths_come_from_stdin_or_a_file(night: Path, tmp_path: Path) -> None:
    listing = tmp_path / "list.txt"
    listing.write_text(f"{night / 'c1.npy'}\n\n{night / 'c0.npy'}\r\n")
    named = score("--from-file", listing)
    assert [line.split(",")[0] for line in named.stdout.splitlines()] == ["id", "c1", "c0"]
    piped = score(night / "c2.npy", "-", given=listing.read_text(), stdin=subprocess.PIPE)
    assert piped.returncode == 0, piped.stderr
    assert [line.split(",")[0] for line in piped.stdout.splitlines()] == ["id", "c2", "c1", "c0"]
    empty = score("-", stdin=subprocess.DEVNULL)
    assert (empty.returncode, empty.stderr) == (4, "transientnet: stdin: it names no file\n")
    absent = score("--from-file", tmp_path / "none.txt")
    assert absent.returncode == 4
    assert "none.txt: No such file" in absent.stderr


def shell(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "RUN": f"{sys.executable} -m transientnet score"},
    )  # fmt: skip


def test_closed_and_full_streams_end_in_a_sentence(night: Path, tmp_path: Path) -> None:
    closed = shell(f"$RUN {night}/c0.npy >&-")
    assert closed.returncode == 1
    assert closed.stderr == "transientnet: standard output is closed: name a table with -o\n"
    # What goes into a table needs neither stream.
    table = tmp_path / "table.csv"
    silent = shell(f"$RUN {night}/c0.npy -o {table} <&- >&- 2>&-")
    assert (silent.returncode, silent.stderr) == (0, "")
    assert table.read_text().startswith(HEADER + "\nc0,")
    assert shell(f"$RUN {night}/c0.npy 2>&-").stdout.startswith(HEADER + "\nc0,")
    if Path("/dev/full").exists():
        full = shell(f"$RUN {night}/c0.npy > /dev/full")
        assert full.returncode == 1
        assert full.stderr == "transientnet: standard output: cannot be written: No space left on device\n"
        assert shell(f"$RUN {night}/c0.npy 2> /dev/full").stdout.startswith(HEADER + "\nc0,")


def test_an_output_that_cannot_be_written_is_a_sentence(night: Path, tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file").touch()
    for output in (tmp_path / "folder.csv", tmp_path / "file" / "x.csv"):
        run = score(night / "c0.npy", "-o", output)
        assert run.returncode == 1
        assert re.fullmatch(rf"transientnet: {output}: cannot be written: .*\n", run.stderr)
    # That there is nothing to read is found before an old table is touched.
    old = tmp_path / "old.csv"
    old.write_text("precious\n")
    assert score(tmp_path / "none*", "-o", old).returncode == 4
    assert old.read_text() == "precious\n"


def test_names_with_odd_bytes_and_characters_are_rows_of_text(tmp_path: Path) -> None:
    for name in (b"bad\xff.npy", b"car\rriage.npy", b"new\nline.npy", b"esc\x1b[31m.npy"):
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as stream:
            np.save(stream, stamps(1)[0])
    (tmp_path / "dam\raged.npy").write_bytes(b"\x93NUMPY\x01\x00garbage")
    for ending in ("csv", "jsonl"):
        table = tmp_path.parent / f"odd.{ending}"
        for resume in ([], ["--resume"]):
            run = score(tmp_path, "-o", table, *resume)
            assert run.returncode == 0, run.stderr
            assert len(table.read_bytes().decode("utf-8").splitlines()) == 5 + (ending == "csv")
        assert "\r" not in run.stderr
    run = score(tmp_path)
    assert len(run.stdout.splitlines()) == 6
    assert "bad\\xff" in run.stdout
    assert "dam\\raged.npy" in run.stderr


# ---------------------------------------------------------------- columns


def test_positions_are_written_where_they_are_known(night: Path, tmp_path: Path) -> None:
    from astropy.io import fits

    folder = tmp_path / "some"
    folder.mkdir()
    for i in range(600):
        np.save(folder / f"a{i:03d}.npy", stamps(1, i)[0])
    plain = fits.PrimaryHDU(stamps(1, 1)[0])
    plain.writeto(folder / "plain.fits")
    assert quick(folder / "plain.fits").stdout.splitlines()[0] == HEADER
    placed = fits.PrimaryHDU(stamps(1, 2)[0])
    placed.header["RA"], placed.header["DEC"] = 150.25, -2.5
    placed.writeto(folder / "placed.fits")
    alone = quick(folder / "placed.fits").stdout.splitlines()
    assert alone[0] == HEADER + ",ra,dec,x,y"
    assert alone[1].endswith(",150.2500000,-2.5000000,,")
    # The position stands in the last of many rows: the table is one table, however it is cut into parts.
    tables = [tmp_path / f"{workers}.csv" for workers in (1, 2)]
    for workers, table in enumerate(tables, 1):
        assert quick(folder, "-o", table, "--workers", workers).returncode == 0
    assert tables[0].read_bytes() == tables[1].read_bytes()
    lines = tables[0].read_text().splitlines()
    assert len(lines) == 603
    assert {line.count(",") for line in lines} == {10}
    assert lines[-2].startswith("placed,")
    assert lines[-2].endswith(",150.2500000,-2.5000000,,")
    # A table that was begun without positions goes on without.
    begun = tmp_path / "begun.csv"
    assert quick(night / "c0.npy", "-o", begun).returncode == 0
    assert quick(night / "c0.npy", folder / "placed.fits", "-o", begun, "--resume").returncode == 0
    assert [line.count(",") for line in begun.read_text().splitlines()] == [6, 6, 6]


def test_a_table_of_an_earlier_version_is_continued_as_it_is(night: Path, tmp_path: Path) -> None:
    table, journal = tmp_path / "s.csv", tmp_path / "s.csv.journal"
    assert quick(night / "c0.npy", "-o", table).returncode == 0
    # Its journal said nothing of positions.
    journal.write_text(journal.read_text().replace(', "positions": false', ""))
    assert quick(night / "c0.npy", night / "c1.npy", "-o", table, "--resume").returncode == 0
    assert [line.split(",")[0] for line in table.read_text().splitlines()] == ["id", "c0", "c1"]


@pytest.mark.parametrize("ending", ["fits", "vot"])
def test_tables_for_astronomers_are_written_and_continued(night: Path, tmp_path: Path, ending: str) -> None:
    from astropy.table import Table

    table = tmp_path / f"s.{ending}"
    for files in (["c0.npy"], ["c0.npy", "c1.npy"]):
        run = quick(*(night / name for name in files), "-o", table, "--resume")
        assert run.returncode == 0, run.stderr
    read = Table.read(table)
    assert [str(name) for name in read["id"]] == ["c0", "c1"]
    assert read.colnames == HEADER.split(",")
    assert not list(tmp_path.glob("*.staged"))


# ---------------------------------------------------------------- files that change under the run


def test_a_file_cut_short_under_the_run_says_what_is_missing_and_is_tried_again(tmp_path: Path) -> None:
    many, kept, table = tmp_path / "many.npy", tmp_path / "kept", tmp_path / "s.csv"
    np.save(many, stamps(3000, 9))
    shutil.copy(many, kept)
    np.save(tmp_path / "other.npy", stamps(1)[0])
    files = (many, tmp_path / "other.npy", "-o", table)
    for _ in range(6):
        with started(*files, "--workers", 2) as process:
            has_grown(process, table, 3_000)
            os.truncate(many, 20_000)
            _, err = process.communicate(timeout=200)
        assert process.returncode == 0
        rows = [line.split(",") for line in table.read_text().splitlines()[1:]]
        scored = len(rows) - 2
        if scored < 3000 and "missing" in err:
            break
        # The run was ahead of the truncation.
        shutil.copy(kept, many)
    assert f"its first {scored:,} candidates are in the table, the other {3000 - scored:,} are missing" in err
    assert f"{scored + 2:,} candidates read" in err
    assert [(row[0], row[2]) for row in rows[-2:]] == [("many", ""), ("other", rows[-1][2])]
    # Nothing of it can be read: a row, a message, a code.
    again = score(*files, "--resume")
    assert again.returncode == 4
    assert f"behind its first {scored:,} candidates" in again.stderr
    shutil.copy(kept, many)
    assert score(*files, "--resume").returncode == 0
    names = [line.split(",")[0] for line in table.read_text().splitlines()[1:]]
    assert sorted(set(names) - {"many", "other"}, key=int) == [str(i) for i in range(3000)]
    assert names.count("many") == 2
    assert len(names) == 3003


def test_a_new_date_is_no_new_file_and_new_content_is(tmp_path: Path) -> None:
    folder = tmp_path / "incoming"
    folder.mkdir()
    np.save(folder / "a.npy", stamps(1, 1)[0])
    with Watcher(folder, tmp_path / "s.csv") as watcher:
        watcher.wait_for("a")
        os.utime(folder / "a.npy", (1, 1))
        np.save(folder / "b.npy", stamps(1, 2)[0])
        watcher.wait_for("b")
        assert watcher.names() == ["a", "b"]
        np.save(folder / "a.npy", stamps(1, 3)[0])
        np.save(folder / "c.npy", stamps(1, 4)[0])
        watcher.wait_for("c")
        assert sorted(watcher.names()) == ["a", "a", "b", "c"]
    with Watcher(folder, tmp_path / "s.csv") as watcher:
        os.utime(folder / "a.npy", (2, 2))
        np.save(folder / "d.npy", stamps(1, 5)[0])
        watcher.wait_for("d")
    assert sorted(watcher.names()) == ["a", "a", "b", "c", "d"]


def test_stamps_of_a_candidate_wait_for_their_companions(tmp_path: Path) -> None:
    folder = tmp_path / "incoming"
    folder.mkdir()

    def arrive(name: str, channel: str) -> None:
        np.save(folder / f"{name}_{channel}.npy", stamps(1, 7)[0][0])

    arrive("a", "sci")
    with Watcher(folder, tmp_path / "s.csv") as watcher:
        for name in ("a", "b"):
            for channel in ("sci", "ref", "diff"):
                arrive(name, channel)
                time.sleep(1.5)
        watcher.wait_for("a")
        watcher.wait_for("b")
    lines = watcher.out.read_text().splitlines()[1:]
    assert [line.split(",")[0] for line in lines] == ["a", "b"]
    # MISSING_REFERENCE and MISSING_DIFFERENCE.
    assert not any(int(line.split(",")[5]) & (64 | 128) for line in lines)
