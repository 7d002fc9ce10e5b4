"""Workers started while their parent loads its modules: however the run ends, none is left behind."""

from __future__ import annotations

import csv
import gzip
import io
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import pytest

from tests.alerts import fits_bytes, packet, ztf_alert, ztf_schema

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc")
COMMAND = "from transientnet.cli import main; main()"


class Run:
    """A Python process, and all that it and its descendants start, known by a mark in their environment."""

    def __init__(self, code: str, *args: object) -> None:
        self.mark = f"TESTED_RUN={uuid.uuid4()}"
        name, _, value = self.mark.partition("=")
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error::ResourceWarning", "-c", code, *map(str, args)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), name: value},
        )  # fmt: skip

    def others(self) -> list[int]:
        """Processes of the run, but for the first one."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                marked = self.mark.encode() in (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if marked and int(entry.name) != self.process.pid:
                found.append(int(entry.name))
        return found

    def wait_for(self, count: int) -> list[int]:
        """Wait until so many other processes run."""
        patience = time.monotonic() + 200
        while len(found := self.others()) != count:
            # Above none: there is nothing to wait for where the first process has ended.
            if time.monotonic() > patience or (count and self.process.poll() is not None):
                self.process.kill()
                raise AssertionError(f"{len(found)} of {count} processes: {self.process.communicate()[1]}")
            time.sleep(0.02)
        return found

    def end(self, text: str | None = None) -> tuple[int, list[dict[str, str]], str]:
        """Exit code, rows and messages; afterwards no process is left."""
        out, err = self.process.communicate(text, timeout=300)
        assert self.others() == []
        assert "Traceback" not in err
        return self.process.returncode, list(csv.DictReader(io.StringIO(out))), err


def noise() -> np.ndarray:
    return np.random.default_rng(0).normal(100, 5, (63, 63)).astype(np.float32)


def score(*args: object) -> Run:
    return Run(COMMAND, "score", *args)


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("night")
    for i in range(12):
        packet(folder / f"a{i:02d}.avro", ztf_schema(), ztf_alert(i))
    return folder


def test_workers_start_before_a_source_is_known_and_serve_the_run(night: Path) -> None:
    run = score(night, "-", "--workers", 3)
    # The list on stdin is open: the parent waits, and its workers are there already.
    first = run.wait_for(3)
    code, rows, _ = run.end(f"{night / 'a03.avro'}\n")
    assert len(set(first)) == 3
    assert code == 0
    assert [Path(row["source"]).stem for row in rows] == [*(f"a{i:02d}" for i in range(12)), "a03"]
    assert all(row["label"] for row in rows)


def test_workers_that_died_before_their_first_message_are_replaced(night: Path) -> None:
    run = score(night, "-", "--workers", 3)
    for pid in run.wait_for(3)[:2]:
        os.kill(pid, signal.SIGKILL)
    code, rows, err = run.end(f"{night / 'a03.avro'}\n")
    assert code == 0
    assert len(rows) == 13
    assert all(row["label"] for row in rows)
    assert "13 candidates read" in err


def test_a_parent_that_is_killed_takes_its_workers_along(night: Path) -> None:
    run = score(night, "-", "--workers", 3)
    run.wait_for(3)
    run.process.kill()
    run.process.communicate()
    run.wait_for(0)


@pytest.mark.parametrize("more", [["--on-bad", "ignore"], ["-m", "nosuch"], ["--resume"]])
def test_a_run_that_is_refused_leaves_none(night: Path, more: list[str]) -> None:
    code, rows, err = score(night, "--workers", 3, *more).end()
    assert code in (2, 3)
    assert not rows
    assert err


@pytest.mark.parametrize("workers", [[], ["--workers", "4"]])
def test_a_folder_of_a_thousand_notes_holds_no_candidate(tmp_path: Path, workers: list[str]) -> None:
    for i in range(1000):
        (tmp_path / f"note_{i:04d}.txt").write_text("seeing 2.1 arcsec, thin clouds\n")
    code, rows, err = score(tmp_path, *workers).end()
    assert code == 4
    assert not rows
    assert str(tmp_path) in err


def test_more_workers_than_candidates_is_no_fault(tmp_path: Path) -> None:
    good = fits_bytes(noise())
    for channel in ("sci", "ref", "diff"):
        (tmp_path / f"c1_{channel}.fits").write_bytes(good)
    code, rows, _ = score(tmp_path, "--workers", 3).end()
    assert code == 0
    assert [row["id"] for row in rows] == ["c1"]


def damage(folder: Path, night: Path) -> list[str]:
    """Files that are named as stamps and are none."""
    alert, fits = (night / "a00.avro").read_bytes(), fits_bytes(noise())
    files = {
        "cut.avro": alert[:-4000],
        "cut.fits": fits[:6000],
        "cut.fits.gz": gzip.compress(fits)[:300],
        "cut.npy": b"\x93NUMPY\x01\x00v",
        "empty.avro": b"",
        "empty.fits": b"",
        "head.npz": b"PK\x03\x04",
        "head.parquet": b"PAR1",
        "head.h5": b"\x89HDF\r\n\x1a\n",
        "text.avro": b"see the other folder\n",
        "text.fits": b"see the other folder\n",
        "zeros.npy": bytes(5000),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / "gone.fits").symlink_to(folder / "nowhere")
    return sorted([*files, "gone.fits"])


@pytest.mark.parametrize("workers", [1, 3])
def test_damaged_files_named_as_stamps_are_a_row_each(night: Path, tmp_path: Path, workers: int) -> None:
    names = damage(tmp_path, night)
    (tmp_path / "good.avro").write_bytes((night / "a00.avro").read_bytes())
    code, rows, err = score(tmp_path, "--workers", workers).end()
    assert code == 0
    assert {Path(row["source"]).name for row in rows if not row["label"]} == set(names)
    assert [Path(row["source"]).name for row in rows] == sorted([*names, "good.avro"])
    for name in names:
        assert str(tmp_path / name) in err
    assert f"{len(rows)} candidates read" in err


def test_a_night_of_nothing_but_damage_is_a_night_of_rows(tmp_path: Path) -> None:
    for i in range(1000):
        (tmp_path / f"c{i:04d}.avro").write_bytes(b"Obj\x01" if i % 2 else b"")
    code, rows, err = score(tmp_path).end()
    assert code == 4
    assert len(rows) == 1000
    assert not any(row["label"] for row in rows)
    assert "none of the candidates could be read" in err


@pytest.mark.parametrize("executable", ["/bin/false", "/nowhere/python"])
def test_a_worker_that_cannot_start_is_an_error_with_a_way_out(night: Path, executable: str) -> None:
    script = f"""
import sys
from transientnet import classify
from transientnet.errors import TransientnetError
sys.executable = {executable!r}
try:
    classify({str(night)!r}, workers=2)
except TransientnetError as error:
    print("told", error, sep=",")
"""
    run = Run(script)
    out, err = run.process.communicate(timeout=300)
    assert run.process.returncode == 0, err
    assert out.startswith("told,a worker process could not start (")
    assert "--workers 1" in out
    assert run.others() == []


def test_what_is_named_as_a_stamp_is_listed_without_being_opened(tmp_path: Path) -> None:
    night = tmp_path / "night"
    night.mkdir()
    for i in range(50):
        (night / f"c{i:02d}.avro").write_bytes(b"")
    (night / "settings.json").write_text("{}")
    script = f"""
import sys
from transientnet.readers.open import find_inputs
opened = []
sys.addaudithook(lambda event, args: opened.append(args[0]) if event == "open" else None)
found = find_inputs({str(night)!r})
print(len(found), *sorted({{name for name in opened if str(name).startswith({str(night)!r})}}))
"""
    run = Run(script)
    out, err = run.process.communicate(timeout=300)
    assert run.process.returncode == 0, err
    # Of what may be anything, JSON, the content decides.
    assert out.split() == ["50", str(night / "settings.json")]
