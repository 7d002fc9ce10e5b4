"""The recipe of the page on Rubin, run on real alert packets."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from browsing import ROOT, environment

from transientnet import classify


def test_reliability_then_us(shared_data: Path, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "how-to" / "rubin.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.S)
    sample = shared_data / "packets" / "rubin" / "fink_rubin_sample.parquet"
    shutil.copy(sample, tmp_path / "rubin_night.parquet")
    (tmp_path / "recipe.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "recipe.py"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    tags = [line.split(maxsplit=1)[1] for line in done.stdout.splitlines()]
    assert len(tags) == len(classify(sample)) > 20
    assert set(tags) <= {"not scored", "both", "one of the two", "neither"}
    assert len(set(tags)) > 1


def test_the_tables_are_made_by_the_script(shared_data: Path, tmp_path: Path) -> None:
    page = tmp_path / "rubin.md"
    shutil.copy(ROOT / "docs" / "how-to" / "rubin.md", page)
    page.write_text(
        re.sub(r"(<!-- begin: reliability -->).*(<!-- end)", r"\1\2", page.read_text(), flags=re.S)
    )
    script = [sys.executable, "benchmarks/rubin_reliability.py", "--data", str(shared_data / "rubin")]
    done = subprocess.run(
        [*script, "--page", str(page)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"(\d+) of (\d+) \[", page.read_text())
    assert len(rows) == 24
    assert all(int(kept) <= int(n) for kept, n in rows)
    aucs = np.array(re.findall(r"([\d.]+) \[([\d.]+), ([\d.]+)\]", page.read_text()), float)
    assert len(aucs) >= 9
    assert (aucs[:, 1] <= aucs[:, 0]).all()
    assert (aucs[:, 0] <= aucs[:, 2]).all()
