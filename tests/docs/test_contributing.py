"""The worked example of CONTRIBUTING.md works: a copy of the package learns a format by it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from browsing import ROOT

BLOCK = re.compile(r"<!-- (file|diff): (\S+) -->\n```(?:python|diff)\n(.*?)^```$", re.M | re.S)


@pytest.mark.site
def test_a_format_is_added_as_the_page_says(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    for folder in ("transientnet", "tests"):
        ignored = shutil.ignore_patterns("__pycache__", "static")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    for name in ("pyproject.toml", "weights_manifest.json"):
        shutil.copy(ROOT / name, tmp_path / name)
    blocks = BLOCK.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert [kind for kind, _, _ in blocks] == ["file", "file", "diff"]
    for kind, name, code in blocks:
        path = tmp_path / name
        if kind == "file":
            assert not path.exists(), f"{name} exists by now: take another example"
            path.write_text(code)
        else:
            before = path.read_text(encoding="utf-8")
            lines = code.splitlines(keepends=True)
            old, new = ("".join(line[1:] for line in lines if line[0] in kept) for kept in (" -", " +"))
            assert before.count(old) == 1, f"{name} has changed: the page must say where its line goes now"
            path.write_text(before.replace(old, new), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "tests/readers/test_matlab.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    files = [name for kind, name, _ in blocks if kind == "file"]
    lint = subprocess.run(
        [sys.executable, "-m", "ruff", "check", *files],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert lint.returncode == 0, lint.stdout + lint.stderr
