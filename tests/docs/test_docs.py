"""What the documentation tells people to type works, on simulated stamps."""

from __future__ import annotations

import gzip
import importlib
import inspect
import io
import os
import re
import runpy
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from registry_servers import Hub, model_folder, running

from transientnet import QualityFlag
from transientnet.models.registry.publish import publish

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FENCE = re.compile(r"(?:^<!-- (?P<mark>[^>]*) -->\n)?^```(?P<kind>[^\n`]*)\n(?P<code>.*?)^```$", re.M | re.S)
# The command reference is made from the commands' own help, and compared with it below.
PAGES = [ROOT / "README.md", *(page for page in sorted(DOCS.rglob("*.md"))
         if page.name != "cli.md" and "node_modules" not in page.parts)]  # fmt: skip
LABELLED = 40
TRY_LAYOUT = "from transientnet.readers.layouts import load_layout; load_layout('my.toml')"


def candidates(folder: Path) -> None:
    """``cutouts/`` with the examples and labelled candidates, and ``my.csv`` about these."""

    made = runpy.run_path(str(DOCS / "examples" / "make_examples.py"))
    made["main"](folder / "cutouts")
    kinds = [("supernova", "dipole")[k % 2] for k in range(LABELLED)]
    simulated = made["simulate"](LABELLED, 1, telescope=made["ZTF_LIKE"], kinds=kinds)
    rows = ["path,id,label,group,chosen"]
    for k, (images, real) in enumerate(zip(simulated.triplets, simulated.real, strict=True)):
        name, chosen = f"c{k:02d}", "random" if k < 9 else "uncertain"
        stamp_file(folder / "cutouts" / f"{name}.fits", images, ("SCI", "REF", "DIFF"))
        rows.append(f"cutouts/{name}.fits,{name},{'real' if real else 'bogus'},sky{k},{chosen}")
    (folder / "my.csv").write_text("\n".join(rows) + "\n")
    for place, names in (("night", ("SCI", "REF", "DIFF")), ("named", ("NEWIM", "COADD", "RESID"))):
        (folder / place).mkdir()
        for k in range(3):
            stamp_file(folder / place / f"c{k}.fits", simulated.triplets[k], names)
    packets = [
        {
            "objectId": f"ZTF18aaa{k}",
            "candid": k,
            **{
                f"cutout{name}": gzip.compress(fits_bytes(image))
                for name, image in zip(("Science", "Template", "Difference"), images, strict=True)
            },
        }
        for k, images in enumerate(simulated.triplets[:3])
    ]
    import fastavro
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = {
        "type": "record",
        "name": "alert",
        "fields": [
            {"name": name, "type": {str: "string", int: "long", bytes: "bytes"}[type(value)]}
            for name, value in packets[0].items()
        ],
    }
    for place in ("packets", "ztf_public_20231012"):
        (folder / place).mkdir()
        for packet in packets:
            with open(folder / place / f"{packet['candid']}.avro", "wb") as stream:
                fastavro.writer(stream, schema, [packet])
    shutil.copyfile(folder / "packets" / "0.avro", folder / "one.avro")
    pq.write_table(pa.Table.from_pylist(packets), folder / "fink_night.parquet")


def fits_bytes(image: np.ndarray) -> bytes:
    from astropy.io import fits

    stream = io.BytesIO()
    fits.PrimaryHDU(image.astype(np.float32)).writeto(stream)
    return stream.getvalue()


def stamp_file(path: Path, images: np.ndarray, names: tuple[str, str, str]) -> None:
    from astropy.io import fits

    hdus = [fits.ImageHDU(i.astype(np.float32), name=name) for i, name in zip(images, names, strict=True)]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)


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
        fits.PrimaryHDU(image[69:132, 29:92].astype(np.float32)).writeto(folder / f"a_{name}.fits")
    (folder / "detections.csv").write_text("id,x,y\na,60,100\nb,150,100\nc,295,100\n")
    (folder / "candidates.csv").write_text("science,reference,id\na_science.fits,a_reference.fits,a\n")


def first_night(folder: Path) -> None:
    """``first/``: frames of a telescope that no weight has seen, with simulated candidates."""
    from astropy.io import fits

    from training_reference.simulator import Telescope, simulate

    side, tiles = 63, 9
    telescope = Telescope(
        pixel_scale=0.71, size=side, fwhm=3.4, reference_fwhm=3.1, seeing_scatter=0.05, beta=2.8, sky=900.0,
        ellipticity=0.1, reference_noise=0.5, stars=0.003, registration=0.1, masks_saturation=False, fill=0.0,
        unit=2.0, background=300.0,
    )  # fmt: skip
    stamps = simulate(tiles**2, 2027, telescope=telescope, bogus_fraction=0.6).triplets
    (folder / "first").mkdir()
    for channel, name in enumerate(("science", "reference", "difference")):
        mosaic = stamps[:, channel].reshape(tiles, tiles, side, side).transpose(0, 2, 1, 3)
        image = mosaic.reshape(tiles * side, tiles * side).astype(np.float32)
        fits.PrimaryHDU(image).writeto(folder / "first" / f"{name}.fits")
    middles = side // 2 + side * np.arange(tiles)
    rows = [f"c{row}{column},{x},{y}" for row, y in enumerate(middles) for column, x in enumerate(middles)]
    (folder / "first" / "detections.csv").write_text("\n".join(["id,x,y", *rows]) + "\n")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    candidates(folder)
    frames(folder)
    first_night(folder)
    # The README only checks the table of its adapt; a bundled model by another name is what it would make.
    model_folder(folder / "my-model", name="my-model")
    (folder / "docs").mkdir()
    shutil.copytree(DOCS / "examples", folder / "docs" / "examples")
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
        kind, mark, code = match["kind"], match["mark"] or "", match["code"]
        if mark.startswith(("not run: ", "command: ")) or kind == "text":
            continue
        if kind == "console":
            code = "".join(line[2:] for line in code.splitlines(True) if line.startswith("$ "))
        if mark.startswith("run with: "):
            # The slow command of the block, with settings for a test's patience.
            code = re.sub(
                r"(?m)^(transientnet adapt [^#\n]*)", rf"\1 {mark.removeprefix('run with: ')} ", code
            )
        found.append((kind, code.replace("FILES...", "cutouts/")))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_block_is_run_or_says_why_not(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    fences = list(FENCE.finditer(text))
    assert len(fences) * 2 == len(re.findall(r"^\s*```", text, re.M)), "a fence that no test sees"
    for match in fences:
        line = text[: match.start("kind")].count("\n") + 1
        mark = match["mark"] or ""
        if mark.startswith("not run: "):
            assert len(mark.split()) > 4, f"{page.name}:{line}: for what reason is it not run?"
        elif mark.startswith("command: "):
            command = mark.removeprefix("command: ")
            assert f"readme_command {command})" in (ROOT / ".ci" / "run").read_text(), f"{page.name}:{line}"
        else:
            # What a program printed is text.
            assert match["kind"] in ("bash", "console", "python", "toml", "text"), f"{page.name}:{line}"


@pytest.fixture(scope="module")
def hub(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """What stands for Hugging Face: a server on loopback that holds a team's model."""
    hub = Hub("your-team/your-models")
    folder = tmp_path_factory.mktemp("published")
    publish(prepared / "my-model", str(folder))
    hub.add({path.name: path.read_bytes() for path in folder.iterdir()})
    with running(hub):
        yield hub


@pytest.mark.site
@pytest.mark.timeout(400)
@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda p: str(p.relative_to(ROOT)))
def test_the_commands_and_code_of_a_page_run(page: Path, prepared: Path, hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    shutil.copytree(prepared, folder)
    if any("-o my-model/" in code and "--dry-run" not in code for _, code in blocks(page)):
        # The page makes it: adapt does not write into a folder of somebody else's making.
        shutil.rmtree(folder / "my-model")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("TRANSIENTNET")},
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "TRANSIENTNET_CACHE": str(tmp_path / "cache"),
        "HF_HOME": str(tmp_path / "hf"),
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": "hf_test",
    }
    if "hf://" not in page.read_text(encoding="utf-8"):
        environment["TRANSIENTNET_OFFLINE"] = "1"
    script = ["set -euo pipefail", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT"]
    python: list[str] = []
    port = free_port()
    runs = blocks(page)
    for number, (kind, code) in enumerate(runs):
        code = code.replace("8786", port)
        if kind == "python":
            # Later blocks of a page see the names of earlier ones, and those on end run as one program.
            python.append(code)
            if number + 1 < len(runs) and runs[number + 1][0] == "python":
                continue
            (folder / f"block{number}.py").write_text("\n".join(python))
            script.append(f"{shlex.quote(sys.executable)} -W error block{number}.py")
        elif kind == "toml":
            (folder / "my.toml").write_text(code)
            script.append(f"{shlex.quote(sys.executable)} -c {shlex.quote(TRY_LAYOUT)}")
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


def public_objects() -> Iterator[tuple[str, Any]]:
    """Everything that the page of the Python interface shows."""
    page = (DOCS / "reference" / "api.md").read_text(encoding="utf-8")
    for module, name in re.findall(r"^::: ([\w.]+)\.(\w+)$", page, re.M):
        found = getattr(importlib.import_module(module), name, None)
        if found is None:
            members = vars(importlib.import_module(f"{module}.{name}")).items()
            yield from ((key, value) for key, value in members if inspect.isclass(value))
            continue
        yield name, found
        if inspect.isclass(found):
            methods = {key: getattr(value, "__func__", value) for key, value in vars(found).items()}
            yield from ((f"{name}.{key}", method) for key, method in methods.items()
                        if key[0] != "_" and inspect.isfunction(method))  # fmt: skip


@pytest.mark.parametrize(
    ("name", "found"), [pytest.param(name, found, id=name) for name, found in public_objects()]
)
def test_every_parameter_of_the_public_interface_is_described(name: str, found: Any) -> None:
    text = inspect.getdoc(found) or ""
    assert text, name
    for section in re.findall(r"(?:Parameters|Attributes)\n-+\n(.*?)(?=\n\n|\Z)", text, re.S):
        blank = re.findall(r"^(\w[\w, ]* : .*)(?:\n(?!    )|\Z)", section, re.M)
        assert not blank, f"{name}: {blank}"


def test_every_quality_flag_is_explained() -> None:
    page = (DOCS / "reference" / "quality-flags.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (\d+) \| `(\w+)` \|", page, re.M))
    assert {int(value): name for value, name in rows.items()} == {
        int(flag): flag.name for flag in QualityFlag if flag.name and int(flag).bit_count() == 1
    }


@pytest.mark.site
@pytest.mark.parametrize("path", sorted(DOCS.rglob("*.ipynb")), ids=lambda p: p.name)
def test_the_notebook_runs_without_a_warning(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(path, as_version=4)
    assert not [cell for cell in notebook.cells if cell.get("outputs")], "outputs are made, not kept"
    strict = "import warnings\n\nwarnings.filterwarnings('error', module='transientnet')"
    notebook.cells.insert(0, nbformat.v4.new_code_cell(strict))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TRANSIENTNET_OFFLINE", "1")
    nbclient.NotebookClient(notebook, timeout=60, resources={"metadata": {"path": path.parent}}).execute()
    made = [set(o.data) for cell in notebook.cells for o in cell.get("outputs", []) if "data" in o]
    assert sum("image/png" in kinds for kinds in made) == 3
    assert sum("text/html" in kinds for kinds in made) == 3
