"""Packages for Rubin's meas_transiNet: loaded as it loads them, answering as this package does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from browsing import environment, stamps

from transientnet import AdaptResult, classify, load_model
from transientnet.errors import ModelIntegrityError, UsageError
from transientnet.models.raw_parity import TOLERANCE
from transientnet.transfer import meas_transinet
from transientnet.transfer.meas_transinet import FILES, export_meas_transinet

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

#: What `NNModelPackage` and `RBTransiNetInterface` do with a package, with nothing of ours within reach.
THEIRS = """
import glob, importlib.util, sys, numpy, torch
(arch,), (weights,), (meta,) = (glob.glob(f"{sys.argv[1]}/{p}") for p in ("arch*.py", "*.pt", "meta*.yaml"))
spec = importlib.util.spec_from_file_location("model", arch)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
assert len(module.__all__) == 1
kind = getattr(module, module.__all__[0])
assert torch.nn.Module in kind.__bases__
model = kind().to("cpu")
loaded = torch.load(weights, map_location="cpu", weights_only=True)
model.load_state_dict(loaded["model_state_dict"], strict=True)
model.eval()
science, template, difference = numpy.load(sys.argv[2]).swapaxes(0, 1)
rows = [torch.stack([torch.from_numpy(x) for x in row]) for row in zip(difference, science, template)]
with torch.no_grad():
    scores = torch.cat([model(torch.stack(rows[i : i + 64])).cpu() for i in range(0, len(rows), 64)])
numpy.save(sys.argv[3], scores.detach().numpy().ravel())
assert not [name for name in sys.modules if name.split(".")[0] in ("transientnet", "onnx", "onnxruntime")]
"""


def theirs(package: Path, images: npt.NDArray[np.float32], folder: Path) -> npt.NDArray[np.float32]:
    np.save(folder / "in.npy", images)
    command = [sys.executable, "-c", THEIRS, str(package), str(folder / "in.npy"), str(folder / "out.npy")]
    without = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=without, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: npt.NDArray[np.float32] = np.load(folder / "out.npy")
    return found


def assert_like(scores: npt.NDArray[Any], expected: npt.NDArray[Any]) -> None:
    assert scores.shape == expected.shape
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, atol=TOLERANCE)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packages") / "realbogus"
    command = [sys.executable, "-m", "transientnet", "models", "export", "realbogus"]
    done = subprocess.run(
        [*command, "--to", "meas_transinet", "-o", str(folder)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "differs" in done.stderr
    return folder


def test_their_loader_gets_our_probabilities(package: Path, tmp_path: Path) -> None:
    images = stamps(70, size=51)
    images[3, :, :, 40:] = 0.0  # missing pixels as `nan_to_num` leaves them
    images[5] = 0.0  # a candidate at the border of the frame
    scores = theirs(package, images, tmp_path)
    assert_like(scores, classify(images)["p_real"])
    assert np.isnan(scores[5])
    assert np.isfinite(np.delete(scores, 5)).all()
    assert sorted(path.name for path in package.iterdir()) == sorted(FILES)


@pytest.mark.parametrize("shape", [(63, 63), (30, 41), (128, 128), (5, 5)])
def test_any_size_of_cutout(package: Path, tmp_path: Path, shape: tuple[int, int]) -> None:
    images = np.ascontiguousarray(stamps(3, size=129)[:, :, : shape[0], : shape[1]])
    assert_like(theirs(package, images, tmp_path), classify(images)["p_real"])


def test_rubin_stamps(package: Path, tmp_path: Path, shared_data: Path) -> None:
    with np.load(shared_data / "rubin" / "stamps.npz") as archive:
        images = np.nan_to_num(archive["triplets"][::3, :, 6:57, 6:57])
    assert_like(theirs(package, images, tmp_path), classify(images)["p_real"])


def test_an_adapted_model(adapted: AdaptResult, tmp_path: Path) -> None:
    package = tmp_path / "package"
    assert export_meas_transinet(adapted.model, package) <= TOLERANCE
    images = stamps(6, seed=2, size=51)
    model = load_model(adapted.model)
    expected = model.predict(images).probabilities[:, model.classes.index("real")]
    assert_like(theirs(package, images, tmp_path), expected)


def test_a_model_that_knows_bogus_gives_the_rest(tmp_path: Path) -> None:
    export_meas_transinet("4class", tmp_path / "package")
    images = stamps(4, seed=3, size=51)
    expected = 1 - classify(images, model="4class")["p_bogus"]
    assert_like(theirs(tmp_path / "package", images, tmp_path), expected)


def test_what_cannot_be_exported(package: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="class real or bogus"):
        export_meas_transinet("3class", tmp_path / "package")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"notes\.txt"):
        export_meas_transinet("realbogus", tmp_path)
    command = [sys.executable, "-m", "transientnet", "models", "export", "realbogus", "--to", "tensorflow"]
    done = subprocess.run(
        [*command, "-o", "x"], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "meas_transinet" in done.stderr


def test_a_package_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = meas_transinet.raw_model

    def other(*arguments: Any) -> Any:
        model = made(*arguments)
        weights = max(model.graph.initializer, key=lambda item: len(item.raw_data))
        weights.raw_data = (np.frombuffer(weights.raw_data, np.float32) * np.float32(1.5)).tobytes()
        return model

    monkeypatch.setattr(meas_transinet, "raw_model", other)
    with pytest.raises(ModelIntegrityError, match="differs"):
        export_meas_transinet("realbogus", tmp_path / "package")
    assert not (tmp_path / "package").exists()
