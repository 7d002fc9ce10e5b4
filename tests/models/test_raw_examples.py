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
import onnxruntime
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


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} on this machine")
    return found


@pytest.fixture
def node() -> str:
    return program("node")


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
    script = f"import({readers!r}).then(found => console.log(JSON.stringify(found.SURVEYS)))"
    printed = subprocess.run([node, "-e", script], check=True, capture_output=True, text=True).stdout
    facts = ("name", "recognise", "pixel_scale", "fwhm", "stamp_size", "packet_order")
    known = tomllib.loads((ROOT / "transientnet" / "readers" / "surveys.toml").read_text())
    expected = [{"name": name, **survey} for name, survey in known.items()]
    assert json.loads(printed) == [{key: one[key] for key in facts if key in one} for one in expected]


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    """A folder with the library of the Python package under the names that a linker looks for."""
    folder = Path(onnxruntime.__file__).parent / "capi"
    library = next(folder.glob("libonnxruntime.so.*"), None)
    if library is None:
        pytest.skip("the Python package of onnxruntime holds no shared library on this system")
    (tmp_path / "lib").mkdir()
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (tmp_path / "lib" / name).symlink_to(library)
    return tmp_path / "lib"


def test_c(model: str, runtime: Path, tmp_path: Path) -> None:
    headers = os.environ.get("ONNXRUNTIME_INCLUDE")
    program("cc")
    if headers is None:
        pytest.skip("set ONNXRUNTIME_INCLUDE to a folder with onnxruntime_c_api.h")
    folder = shutil.copytree(EXAMPLES / "c", tmp_path / "c")
    make = [program("make"), "-C", str(folder), "-B", f"INCLUDE={headers}", f"LIB={runtime}"]
    subprocess.run(make, check=True, capture_output=True, timeout=120)
    assert_as_python([str(folder / "score")], model)


def test_rust(model: str, runtime: Path, tmp_path: Path) -> None:
    manifest = ["--manifest-path", str(EXAMPLES / "rust" / "Cargo.toml")]
    cargo = [program("cargo"), "build", "--release", "--offline", *manifest]
    # Linked with the library of the Python package, so that the build fetches none.
    linked = {"ORT_LIB_PATH": str(runtime), "ORT_PREFER_DYNAMIC_LINK": "1", "LD_LIBRARY_PATH": str(runtime)}
    environment = os.environ | linked | {"CARGO_TARGET_DIR": str(tmp_path / "target")}
    built = subprocess.run(cargo, env=environment, check=False, capture_output=True, text=True, timeout=500)
    if "no matching package" in built.stderr or "attempting to make an HTTP request" in built.stderr:
        pytest.skip("run `cargo fetch` in examples/rust")
    assert built.returncode == 0, built.stderr
    program_built = tmp_path / "target" / "release" / "transientnet-example"
    assert_as_python(["env", f"LD_LIBRARY_PATH={runtime}", str(program_built)], model)


def test_java(model: str, tmp_path: Path) -> None:
    local = Path.home() / ".m2" / "repository" / "com" / "microsoft" / "onnxruntime" / "onnxruntime"
    jar = os.environ.get("ONNXRUNTIME_JAR") or next(map(str, local.glob("*/onnxruntime-*.jar")), None)
    javac, java = program("javac"), program("java")
    if jar is None:
        pytest.skip("run `mvn compile` in examples/java, or set ONNXRUNTIME_JAR to onnxruntime's jar")
    sources = map(str, sorted((EXAMPLES / "java" / "src").rglob("*.java")))
    compiled = [javac, "-Xlint:all", "-Werror", "-d", str(tmp_path), "-cp", jar, *sources]
    subprocess.run(compiled, check=True, capture_output=True, timeout=120)
    assert_as_python([java, "-cp", os.pathsep.join((str(tmp_path), jar)), "Score"], model)
