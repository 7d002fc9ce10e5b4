"""The examples in other languages print the numbers of Python."""

from __future__ import annotations

import csv
import io
import os
import shutil
import subprocess
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


def assert_as_python(command: list[str], model: str) -> None:
    table = subprocess.run(
        [*command, model, *map(str, CUTOUTS)], check=True, capture_output=True, text=True, timeout=120
    ).stdout
    expected = classify(CUTOUTS, model="3class", workers=1)
    found = list(csv.DictReader(io.StringIO(table)))
    assert [row["id"] for row in found] == expected.ids.tolist()
    assert list(found[0]) == ["id", *(f"p_{name}" for name in expected.classes), "quality"]
    probabilities = np.array([[float(row[f"p_{name}"]) for name in expected.classes] for row in found])
    np.testing.assert_allclose(probabilities, expected.probabilities, atol=1e-4)
    assert [int(row["quality"]) for row in found] == expected.quality.tolist()


def test_javascript(model: str) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no Node.js on this machine")
    if not (EXAMPLES / "javascript" / "node_modules" / "onnxruntime-node").is_dir():
        pytest.skip("run `npm install` in examples/javascript")
    assert_as_python([node, str(EXAMPLES / "javascript" / "score.mjs")], model)


def test_c(model: str, tmp_path: Path) -> None:
    compiler, runtime = shutil.which("cc"), os.environ.get("ONNXRUNTIME")
    if compiler is None or runtime is None:
        pytest.skip("needs a C compiler, and ONNXRUNTIME: a folder with onnxruntime's include and lib")
    folder = shutil.copytree(EXAMPLES / "c", tmp_path / "c")
    subprocess.run(["make", "-C", str(folder), "-B"], check=True, capture_output=True, timeout=120)
    assert_as_python([str(folder / "score")], model)
