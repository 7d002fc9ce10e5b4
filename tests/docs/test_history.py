"""The table of releases holds what was measured, one line for each release."""

from __future__ import annotations

import json
import re
import subprocess
import sys

from browsing import ROOT, environment

PAGE = ROOT / "docs" / "development" / "benchmarks.md"


def test_the_table_is_the_stored_lines() -> None:
    lines = [json.loads(line) for line in (ROOT / "benchmarks" / "history.jsonl").read_text().splitlines()]
    releases = [line["release"] for line in lines]
    assert len(set(releases)) == len(releases)
    before = PAGE.read_bytes()
    done = subprocess.run(
        [sys.executable, "benchmarks/history.py", "--table"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert PAGE.read_bytes() == before, "run: python benchmarks/history.py --table"
    rows = re.findall(r"^\| ([\d.]+) \|.*\| (.+) \|$", before.decode(), re.M)
    assert [row[0] for row in rows] == releases[::-1]
    assert all("cores" in machine for _, machine in rows)


def test_the_benchmarks_named_exist() -> None:
    named = set(re.findall(r"`(\w+\.py)`", PAGE.read_text(encoding="utf-8")))
    assert len(named) > 10
    assert not [name for name in named if not (ROOT / "benchmarks" / name).is_file()]
