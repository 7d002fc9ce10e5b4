"""``transientnet score`` as a user meets it: streams, exit codes, resume, watch, Ctrl-C, kill -9."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
HEADER = "id,source,label,p_bogus,p_real,quality,model"


def stamps(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 5, (n, 3, 31, 31)).astype(np.float32)


def start(*args: object, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "transientnet", "score", *map(str, args)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, **options,  # type: ignore[call-overload]
    )  # fmt: skip


def score(*args: object) -> subprocess.CompletedProcess[str]:
    process = start(*args)
    out, err = process.communicate(timeout=90)
    return subprocess.CompletedProcess(args, process.returncode, out, err)


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
    assert "12 of 12 candidates are unlike what realbogus@0.1.0 was trained on" in run.stderr
    assert "transientnet adapt" in run.stderr


def test_threshold_names_the_class(night: Path) -> None:
    for threshold, label in (("0", "real"), ("1", "bogus")):
        lines = score(night / "c0.npy", "--threshold", threshold).stdout.splitlines()
        assert lines[1].split(",")[2] == label


def test_a_reader_that_goes_away_is_no_error(night: Path) -> None:
    process = start(night)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) == 0
    assert process.stderr.read() == ""
    process.stderr.close()


def test_killed_and_resumed_the_table_is_that_of_one_run(night: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole.csv", tmp_path / "killed.csv"
    assert score(night, "-o", whole, "--workers", 2).returncode == 0
    process = start(night, "-o", killed, "--workers", 1)
    while not killed.exists() or killed.stat().st_size < 20_000:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert killed.stat().st_size < whole.stat().st_size
    assert score(night, "-o", killed, "--resume").returncode == 0
    assert killed.read_bytes() == whole.read_bytes()

    np.save(night / "z_new.npy", stamps(1, 77)[0])
    assert score(night, "-o", killed, "--resume").returncode == 0
    (night / "z_new.npy").unlink()
    before, after = whole.read_text().splitlines(), killed.read_text().splitlines()
    assert after[:-1] == before
    assert after[-1].startswith("z_new,")


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
    for _ in range(3):
        process = start(folder, "-o", killed, "--resume", "--workers", 2)
        begun = growing.stat().st_size if growing.exists() else 0
        patience = time.monotonic() + 100
        while not growing.exists() or growing.stat().st_size < begun + 20_000:
            assert process.poll() is None
            assert time.monotonic() < patience
            time.sleep(0.005)
        workers = children(process.pid)
        process.kill()
        process.communicate()
        # Workers end by themselves when their parent has gone.
        while any(Path(f"/proc/{pid}").exists() for pid in workers):
            assert time.monotonic() < patience
            time.sleep(0.01)
    assert score(folder, "-o", killed, "--resume", "--workers", 2).returncode == 0
    assert killed.read_bytes() == whole.read_bytes()


def children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(child) for child in task.read_text().split()]
    return found


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_closes_the_file_and_says_how_to_go_on(night: Path, tmp_path: Path, workers: int) -> None:
    whole, stopped = tmp_path / "whole.jsonl", tmp_path / "stopped.jsonl"
    assert score(night, "-o", whole).returncode == 0
    process = start(night, "-o", stopped, "--workers", workers)
    while not stopped.exists() or stopped.stat().st_size < 20_000:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in err
    assert whole.read_bytes().startswith(stopped.read_bytes())
    assert stopped.read_bytes().endswith(b"\n")
    assert score(night, "-o", stopped, "--resume").returncode == 0
    assert stopped.read_bytes() == whole.read_bytes()


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no pseudo-terminals on this system")
def test_a_terminal_shows_rate_and_progress_and_a_pipe_does_not(night: Path) -> None:
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "transientnet", "score", str(night)],
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
    assert process.wait(60) == 0
    assert re.search(rb"scoring.*candidates, \d+/s", shown)
    assert b"3,003 candidates read: " in shown


def test_watching_a_folder_scores_what_arrives(tmp_path: Path) -> None:
    folder, out = tmp_path / "incoming", tmp_path / "scores.csv"
    folder.mkdir()
    process = start("--watch", folder, "-o", out)
    try:
        for name in ("a", "b"):
            np.save(folder / f"{name}.npy", stamps(1, ord(name))[0])
            patience = time.monotonic() + 120
            # Rows become visible when they are committed.
            while not out.exists() or f"\n{name}," not in out.read_text():
                assert time.monotonic() < patience, process.poll()
                time.sleep(0.1)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert [line.split(",")[0] for line in out.read_text().splitlines()] == ["id", "a", "b"]


def test_what_arrives_while_the_first_files_are_scored_is_scored_too(night: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "incoming", tmp_path / "scores.csv"
    shutil.copytree(night, folder)
    process = start("--watch", folder, "-o", out)
    try:
        patience = time.monotonic() + 120
        while not out.exists() or out.stat().st_size < 20_000:
            assert time.monotonic() < patience, process.poll()
            time.sleep(0.01)
        np.save(folder / "late.npy", stamps(1, 77)[0])
        while "\nlate," not in out.read_text():
            assert time.monotonic() < patience, process.poll()
            time.sleep(0.1)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    names = [line.split(",")[0] for line in out.read_text().splitlines()]
    assert len(names) == 1 + 3003 + 1
    assert len(set(names)) == len(names)


def test_gallery_and_explanations_are_drawn_beside_the_table(tmp_path: Path) -> None:
    examples = Path(__file__).parents[2] / "docs" / "examples" / "cutouts"
    files = [str(examples / f"{name}.fits") for name in ("asteroid", "blank", "cosmic_ray")]
    page, folder = tmp_path / "night.html", tmp_path / "why"
    done = score(*files, "--gallery", str(page), "--explain", str(folder), "--sets", "0.95")
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
