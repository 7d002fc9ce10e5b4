"""At small scale: kills and full disks, no socket offline. `benchmarks/` has the same at length."""

from __future__ import annotations

import random
import shutil
import sys
from pathlib import Path

import pytest
from benchmark_scripts import script

CRASH, OFFLINE = script("crash_tests"), script("no_sockets")


@pytest.mark.skipif(sys.platform == "win32", reason="limits and signals of a process are POSIX")
@pytest.mark.parametrize(("operation", "faults"), [("score", 1), ("full_disk", 1), ("label", 1)])
def test_nothing_is_lost_or_doubled(operation: str, faults: int, tmp_path: Path) -> None:
    if operation == "label":
        pytest.importorskip("uvicorn")
    run = CRASH.Run(tmp_path, random.Random(0))
    CRASH.OPERATIONS[operation][0](run, faults)
    assert run.count.problems == []
    assert (run.count.lost, run.count.doubled) == (0, 0)
    assert run.count.faults > 0


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are POSIX")
@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_a_disk_that_fills_up_within_a_block_of_rows_leaves_none_torn(tmp_path: Path, ending: str) -> None:
    run = CRASH.Run(tmp_path, random.Random(0))
    ids = CRASH.night(tmp_path / "night", 2)
    out = tmp_path / f"x.{ending}"
    assert "cannot be written" in run.end(run.start("score", "night", "-o", out, limit=1155), 1)
    run.end(run.start("score", "night", "-o", out, "--resume"), 0)
    run.count.compare(ids, CRASH.rows(out))
    assert (run.count.lost, run.count.doubled, run.count.problems) == (0, 0, [])


def test_the_counts_are_of_rows() -> None:
    count = CRASH.Count()
    count.compare(CRASH.collections.Counter("aabc"), CRASH.collections.Counter("abbbd"))
    assert (count.lost, count.doubled) == (2, 3)


def test_offline_nothing_is_opened_whatever_an_input_says(tmp_path: Path) -> None:
    runs = OFFLINE.commands(tmp_path, OFFLINE.hostile(tmp_path))
    # One of each command; the others are the same code with another table.
    seen: dict[str, list[str]] = {}
    for arguments in runs:
        seen.setdefault(arguments[0], arguments)
    for arguments in seen.values():
        assert OFFLINE.opened(arguments, tmp_path, strace=False) == [], arguments


def test_the_watch_sees_a_socket_and_a_decoy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import socket; socket.socket().close()\nopen('decoy', 'w')\n"
    monkeypatch.setattr(OFFLINE, "WATCH", OFFLINE.WATCH.replace("from transientnet.cli import main", code))
    assert len(OFFLINE.opened([], tmp_path, strace=False)) >= 2


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_strace_sees_no_socket_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = OFFLINE.hostile(tmp_path)
    (first, *_) = OFFLINE.commands(tmp_path, inputs)
    assert OFFLINE.opened(first, tmp_path, strace=True) == []
    monkeypatch.setattr(OFFLINE, "WATCH", "import socket; socket.socket().close()")
    (found,) = OFFLINE.opened([], tmp_path, strace=True)
    assert "socket(AF_INET" in found
