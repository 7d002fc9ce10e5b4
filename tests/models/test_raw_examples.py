"""The examples in other languages print the numbers of Python."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import numpy as np
import pytest

from transientnet import classify
from transientnet.models.raw import raw_path

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
CUTOUTS = sorted((ROOT / "docs" / "examples" / "cutouts").glob("*.fits"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRANSIENTNET_CACHE", str(tmp_path_factory.mktemp("cache")))
        return str(raw_path("3class"))


def assert_as_python(command: list[str], model: str, files: list[Path] = CUTOUTS) -> None:
    table = subprocess.run(
        [*command, model, *map(str, files)], check=True, capture_output=True, text=True, timeout=120
    ).stdout
    expected = classify(files, model="3class", workers=1)
    found = list(csv.DictReader(io.StringIO(table)))
    assert [row["id"] for row in found] == expected.ids.tolist()
    assert list(found[0]) == ["id", *(f"p_{name}" for name in expected.classes), "quality"]
    probabilities = np.array([[float(row[f"p_{name}"]) for name in expected.classes] for row in found])
    np.testing.assert_allclose(probabilities, expected.probabilities, atol=1e-4)
    assert [int(row["quality"]) for row in found] == expected.quality.tolist()


@pytest.fixture
def node() -> str:
    program = shutil.which("node")
    if program is None:
        pytest.skip("no Node.js on this machine")
    return program


@pytest.fixture
def javascript(node: str) -> list[str]:
    if not (EXAMPLES / "javascript" / "node_modules" / "onnxruntime-node").is_dir():
        pytest.skip("run `npm install` in examples/javascript")
    return [node, str(EXAMPLES / "javascript" / "score.mjs")]


def test_javascript(javascript: list[str], model: str) -> None:
    assert_as_python(javascript, model)


def test_javascript_reads_packets_as_python_does(
    javascript: list[str], model: str, shared_data: Path
) -> None:
    """Cut off at the edge of the chip, with a PSF beside the image, without a schema, nested or flat."""
    packets = shared_data / "packets"
    folders = ("ztf", "ztf_edge", "winter", "pgir", "turbo", "decam", "rubin")
    files = [path for folder in folders for path in sorted((packets / folder).glob("*.avro"))]
    assert len(files) > 40
    assert_as_python(javascript, model, files)


def test_javascript_knows_the_surveys_of_python(node: str) -> None:
    readers = (EXAMPLES / "javascript" / "readers.mjs").as_uri()
    program = f"import({readers!r}).then(found => console.log(JSON.stringify(found.SURVEYS)))"
    printed = subprocess.run([node, "-e", program], check=True, capture_output=True, text=True).stdout
    facts = ("name", "recognise", "pixel_scale", "fwhm", "stamp_size", "packet_order")
    known = tomllib.loads((ROOT / "transientnet" / "readers" / "surveys.toml").read_text())
    expected = [{"name": name, **survey} for name, survey in known.items()]
    assert json.loads(printed) == [{key: one[key] for key in facts if key in one} for one in expected]


def test_c(model: str, tmp_path: Path) -> None:
    compiler, runtime = shutil.which("cc"), os.environ.get("ONNXRUNTIME")
    if compiler is None or runtime is None:
        pytest.skip("needs a C compiler, and ONNXRUNTIME: a folder with onnxruntime's include and lib")
    folder = shutil.copytree(EXAMPLES / "c", tmp_path / "c")
    subprocess.run(["make", "-C", str(folder), "-B"], check=True, capture_output=True, timeout=120)
    assert_as_python([str(folder / "score")], model)


def test_rust(model: str) -> None:
    program = EXAMPLES / "rust" / "target" / "release" / "transientnet-example"
    if not program.is_file():
        pytest.skip("run `cargo build --release` in examples/rust")
    assert_as_python([str(program)], model)
