"""Files whole or not at all, one writer at a time, bounded decompression, JSON that everybody can read."""

from __future__ import annotations

import gzip
import json
import os
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transientnet.errors import ReadError, UsageError
from transientnet.files.atomic import replacing, write_atomically
from transientnet.files.compressed import gunzip
from transientnet.files.locks import exclusive
from transientnet.files.strict_json import dump_json

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("data", [b"\x00\xff", "Sérsic ★"])
def test_what_is_written_is_read_back(tmp_path: Path, data: bytes | str) -> None:
    path = tmp_path / "a.csv"
    path.write_text("old")
    write_atomically(path, data)
    assert path.read_bytes() == (data.encode() if isinstance(data, str) else data)
    assert [each.name for each in tmp_path.iterdir()] == ["a.csv"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as part:
            part.write_text("half")
            raise ValueError("half")

    with pytest.raises(ValueError, match="half"):
        fail()
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.skipif(os.name == "nt", reason="permissions are POSIX")
def test_a_product_is_for_the_team_as_the_umask_allows(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "a", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_second_process_is_refused_while_the_first_holds_the_lock_and_not_after(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from transientnet.errors import UsageError\n"
        "from transientnet.files.locks import exclusive\n"
        "try:\n"
        "    with exclusive(Path(sys.argv[1]), UsageError('busy')): print('held')\n"
        "except UsageError as error: print(error)\n"
    )

    def other() -> str:
        command = [sys.executable, "-c", code, str(tmp_path / "a")]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip()

    with exclusive(tmp_path / "a", UsageError("busy")):
        assert other() == "busy"
    assert other() == "held"


def test_a_lock_is_released_by_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="inside"), exclusive(tmp_path / "a", UsageError("busy")):
        raise ValueError("inside")
    with exclusive(tmp_path / "a", UsageError("busy")):
        pass


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=3))
def test_every_member_is_unpacked(parts: list[bytes]) -> None:
    packed = b"".join(gzip.compress(part) for part in parts)
    whole = b"".join(parts)
    assert gunzip(packed, len(whole)) == whole
    if whole:
        with pytest.raises(ReadError, match="limit"):
            gunzip(packed, len(whole) - 1)


def test_a_bomb_and_damage_are_errors() -> None:
    bomb = gzip.compress(bytes(2**24))
    with pytest.raises(ReadError, match="more than the limit of 1000 bytes"):
        gunzip(bomb, 1000)
    with pytest.raises(ReadError, match="truncated"):
        gunzip(gzip.compress(b"x" * 999)[:-9], 2000)
    with pytest.raises(ReadError, match="damaged"):
        gunzip(b"\x1f\x8b" + b"\x07" * 40, 2000)


@dataclass
class Figure:
    value: float
    n: np.int64


def test_numbers_that_are_not_finite_become_null() -> None:
    data = {
        "a": [float("nan"), np.float32("inf"), np.float64(1.5)],
        3: Figure(-np.inf, np.int64(7)),
        "é": None,
    }
    text = dump_json(data)
    assert json.loads(text) == {"a": [None, None, 1.5], "3": {"value": None, "n": 7}, "é": None}
    assert "é" in text
