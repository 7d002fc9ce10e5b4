"""Tables and counts that a person reads."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from browsing import environment, save

from transientnet.cli.columns import columns
from transientnet.scoring.expected import Expected


def test_numbers_stand_to_the_right_and_words_to_the_left() -> None:
    rows = [["a", 9, "97.0 %", "1.0 to 2.0"], ["long name", 1234, "100.0 %", ""]]
    lines = columns(["name", "n", "share", "95 % interval"], rows).splitlines()
    assert lines == [
        "name          n    share  95 % interval",
        "a             9   97.0 %     1.0 to 2.0",
        "long name  1234  100.0 %",
    ]


def test_a_column_of_words_stays_on_the_left_if_one_cell_is_a_number() -> None:
    assert columns(["x", "id"], [["a", "12"], ["b", "supernova"]]).splitlines()[1] == "a  12"


def test_a_pipe_gets_no_colours(capsys: pytest.CaptureFixture[str]) -> None:
    print(columns(["id", "label"], [["a", "real"]], ["bogus", "real"]))
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no pseudo-terminals on this system")
def test_kinds_of_bogus_are_a_column_on_a_terminal(tmp_path: Path) -> None:
    save(tmp_path, 6)
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "transientnet", "score", "s.npz", "--kinds", "-q"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # the end of the other side
        while part := os.read(ours, 4096):
            shown += part
    os.close(ours)
    assert process.wait() == 0
    assert re.search(r"id +label +kind +p\(bogus\)", shown.decode())


def test_arrays_say_how_many_candidates_are_to_come(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", id=np.arange(7), triplets=np.zeros((7, 3, 5, 5), "f4"))
    np.save(tmp_path / "b.npy", np.zeros((5, 3, 5, 5), "f4"))
    (tmp_path / "c.avro").write_bytes(b"Obj\x01")
    a, b, c = (str(tmp_path / name) for name in ("a.npz", "b.npy", "c.avro"))
    assert Expected([a, b]).total(0, 0) == 12
    assert Expected([a, b], [4]).total(0, 0) == 8
    assert Expected([a, c]).total(1, 7) == 8
    assert Expected([c, c]).total(0, 7) is None  # nothing is known of the packets yet
    assert Expected([c, c, b]).total(1, 20) == 45  # the second is like the first
    assert Expected([]).total(0, 3) is None
