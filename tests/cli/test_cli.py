"""What every command does as a process among others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CUTOUTS = str(Path(__file__).resolve().parents[2] / "docs" / "examples" / "cutouts")


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", CUTOUTS),
        ("inspect", "--json", CUTOUTS),
        ("score", CUTOUTS),
        ("models", "list"),
        ("--help",),
    ],
)
def test_a_reader_of_stdout_that_goes_away_is_no_error(arguments: tuple[str, ...]) -> None:
    """As in ``transientnet inspect FILE | head -1``."""
    command = [sys.executable, "-m", "transientnet", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        complaints = process.stderr.read().decode()
        assert process.wait(120) == 0, complaints
    for word in ("Traceback", "BrokenPipe", "Exception ignored"):
        assert word not in complaints


def test_what_went_wrong_is_still_told_to_a_reader_that_goes_away(tmp_path: Path) -> None:
    (tmp_path / "x.fits").write_bytes(b"SIMPLE  = no")
    command = [sys.executable, "-m", "transientnet", "inspect", str(tmp_path / "x.fits")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.read()
        assert process.wait(120) == 4
