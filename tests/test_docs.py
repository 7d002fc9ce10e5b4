"""What the documentation tells people to type works, on simulated stamps."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from transientnet import QualityFlag

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
FENCE = re.compile(
    r"(?:<!-- (?P<mark>[^>]*) -->\n)?^```(?P<kind>python|bash|console)\n(?P<code>.*?)^```", re.M | re.S
)
# The command reference is made from the commands' own help, and compared with it below.
PAGES = [page for page in sorted(DOCS.rglob("*.md")) if page.name != "cli.md"]


def stamp_files(folder: Path, names: tuple[str, str, str], count: int, labels: Path | None = None) -> None:
    from astropy.io import fits

    rng = np.random.default_rng(4)
    y, x = np.mgrid[-20:21, -20:21]
    folder.mkdir()
    rows = ["path,id,label,group,chosen"]
    for k in range(count):
        real = k % 2 == 0
        images = rng.normal(100, 5, (3, 41, 41))
        width = 2.0 if real else 0.4
        source = rng.uniform(80, 400) * np.exp(-(x**2 + y**2) / width**2 / 2)
        images[0] += source
        images[2] += source
        hdus = [fits.ImageHDU(i.astype(np.float32), name=name) for i, name in zip(images, names, strict=True)]
        fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(folder / f"c{k:02d}.fits")
        label = "real" if real else "bogus"
        rows.append(
            f"{folder.name}/c{k:02d}.fits,c{k:02d},{label},sky{k},{'random' if k < 9 else 'uncertain'}"
        )
    if labels is not None:
        labels.write_text("\n".join(rows) + "\n")


def frames(folder: Path) -> None:
    from astropy.io import fits

    rng = np.random.default_rng(5)
    y, x = np.mgrid[:300, :300]
    for name in ("science", "reference", "difference"):
        image = rng.normal(100, 5, (300, 300))
        if name != "reference":
            for place in (60, 150, 295):
                image += 300 * np.exp(-((x - place) ** 2 + (y - 100) ** 2) / 8)
        fits.PrimaryHDU(image.astype(np.float32)).writeto(folder / f"{name}.fits")
    (folder / "detections.csv").write_text("id,x,y\na,60,100\nb,150,100\nc,295,100\n")
    (folder / "candidates.csv").write_text("science,reference,id\nscience.fits,reference.fits,a\n")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    stamp_files(folder / "cutouts", ("SCI", "REF", "DIFF"), 40, folder / "my.csv")
    stamp_files(folder / "night", ("SCI", "REF", "DIFF"), 6)
    stamp_files(folder / "named", ("NEWIM", "COADD", "RESID"), 3)
    frames(folder)
    programs = folder / "bin"
    programs.mkdir()
    for name in ("transientnet", "dask"):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m {name} "$@"\n')
        program.chmod(0o755)
    return folder


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def blocks(page: Path) -> list[tuple[str, str]]:
    """Kind and code of what a page says to run."""
    found = []
    for match in FENCE.finditer(page.read_text(encoding="utf-8")):
        mark, code = match["mark"] or "", match["code"]
        if mark == "illustrative":
            continue
        if match["kind"] == "console":
            code = "".join(line[2:] for line in code.splitlines(True) if line.startswith("$ "))
        if mark.startswith("run with: "):
            # The slow command of the block, with settings for a test's patience.
            code = re.sub(r"(?m)^(transientnet adapt .*)$", rf"\1 {mark.removeprefix('run with: ')}", code)
        found.append(("python" if match["kind"] == "python" else "bash", code))
    return found


@pytest.mark.timeout(400)
@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda p: str(p.relative_to(DOCS)))
def test_the_commands_and_code_of_a_page_run(page: Path, prepared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    shutil.copytree(prepared, folder, copy_function=os.link)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("TRANSIENTNET")},
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "TRANSIENTNET_CACHE": str(tmp_path / "cache"),
        "TRANSIENTNET_OFFLINE": "1",
    }
    script = ["set -euo pipefail", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT"]
    python: list[str] = []
    port = free_port()
    for number, (kind, code) in enumerate(blocks(page)):
        code = code.replace("8786", port)
        if kind == "python":
            # Later blocks of a page see the names of earlier ones.
            python.append(code)
            (folder / f"block{number}.py").write_text("\n".join(python))
            script.append(f"{shlex.quote(sys.executable)} -W error block{number}.py")
        else:
            script.append(code)
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{page.name}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"


def test_the_command_reference_is_what_the_commands_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    made = runpy.run_path(str(DOCS / "reference" / "make_cli.py"))["text"]()
    page = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    assert made == page, "run: python docs/reference/make_cli.py"


def test_every_quality_flag_is_explained() -> None:
    page = (DOCS / "reference" / "quality-flags.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (\d+) \| `(\w+)` \|", page, re.M))
    assert {int(value): name for value, name in rows.items()} == {
        int(flag): flag.name for flag in QualityFlag if flag.name and int(flag).bit_count() == 1
    }
