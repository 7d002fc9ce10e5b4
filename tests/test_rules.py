"""The rules that other classifiers of difference images break: one test, or a few, for each."""

from __future__ import annotations

import gzip
import re
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from astropy.io import fits
from typer.testing import CliRunner

from transientnet import InputContract, QualityFlag, Triplet, classify, load_model, open_triplets
from transientnet.cli import app
from transientnet.errors import ContractError, ModelIntegrityError, ModelUnavailableError, TransientnetError
from transientnet.evaluation.summary import evaluate
from transientnet.models.classifier import Classifier
from transientnet.models.registry.manifest import Manifest, bundled_folder
from transientnet.models.registry.resolve import local_models, resolve, verified_files
from transientnet.models.vectors import run_test_vectors
from transientnet.prepare.preprocess import preprocess

ROOT = Path(__file__).resolve().parent.parent
CENTRE = InputContract().size // 2
Image = npt.NDArray[Any]


def candidate(height: int = 63, width: int = 63, **kwargs: Any) -> Triplet:
    """A new star at the geometric centre, with noise of 1."""
    y = np.arange(height)[:, None] - (height - 1) / 2
    x = np.arange(width)[None] - (width - 1) / 2
    star = 100 * np.exp(-(x**2 + y**2) / 2)
    sky = np.random.default_rng(0).normal(0, 1, (3, height, width))
    return Triplet(1000 + sky[0] + star, 1000 + sky[1], sky[2] + star, id="c", fwhm=2.4, **kwargs)


@pytest.fixture(scope="module")
def model() -> Classifier:
    return load_model("realbogus", threads=1)


@pytest.mark.parametrize("shape", [(63, 63), (40, 63), (63, 31), (30, 80), (101, 64), (25, 25)])
def test_rule_1_crop_and_pad_keep_the_target_at_the_centre(shape: tuple[int, int]) -> None:
    tensor = preprocess([candidate(*shape)], InputContract()).tensor[0, 2]
    bright = np.where(tensor > 0.5 * tensor.max(), tensor, 0)
    y, x = np.indices(tensor.shape)
    assert (
        np.hypot((bright * y).sum() / bright.sum() - CENTRE, (bright * x).sum() / bright.sum() - CENTRE) < 0.8
    )


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((63, 63)),
        np.full((63, 63), 7.0),
        np.full((63, 63), np.nan),
        np.full((63, 63), np.inf),
        np.zeros((1, 1)),
        np.zeros((0, 0)),
        np.pad(np.random.default_rng(0).normal(size=(63, 20)), ((0, 0), (0, 43)), constant_values=np.nan),
    ],
)
def test_rule_2_nothing_is_never_scored(model: Classifier, image: Image) -> None:
    predictions = model.predict([Triplet(image, image, image), candidate()])
    assert np.isnan(predictions.probabilities[0]).all()
    assert predictions.labels[0] == ""
    assert predictions.quality[0] & QualityFlag.UNUSABLE
    assert np.isfinite(predictions.probabilities[1]).all()


def test_rule_3_a_bad_file_is_a_row_and_a_message_and_the_run_goes_on(tmp_path: Path) -> None:
    for name in ("a", "c"):
        np.save(tmp_path / f"{name}.npy", np.stack(candidate().stamps))
    (tmp_path / "b.npy").write_bytes(b"\x93NUMPY damaged")
    predictions = classify(tmp_path)
    assert list(predictions.ids) == ["a", "b", "c"]
    assert np.isfinite(predictions.probabilities).all(axis=1).tolist() == [True, False, True]
    assert predictions.quality[1] & QualityFlag.UNREADABLE
    result = CliRunner().invoke(app, ["score", str(tmp_path)])
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 4
    assert "b.npy" in result.stderr
    with pytest.raises(TransientnetError):
        classify(tmp_path, on_bad="raise")


@pytest.mark.parametrize("shape", [(20, 33), (64, 64), (200, 90)])
@pytest.mark.parametrize("dtype", [">f4", "<f8", ">i2", "f2"])
@pytest.mark.parametrize("fwhm", [None, 1.0, 12.0])
def test_rule_4_any_stamp_of_any_telescope_is_scored(
    model: Classifier, shape: tuple[int, int], dtype: str, fwhm: float | None
) -> None:
    stamps = [image.astype(dtype) for image in candidate(*shape).stamps]
    if stamps[0].dtype.kind == "f":
        stamps[0][0, :3] = np.nan, np.inf, -np.inf
        stamps[1][2] = np.finfo(dtype).max
    predictions = model.predict([Triplet(*stamps, fwhm=fwhm), Triplet(stamps[0], stamps[1], -stamps[2])])
    usable = min(shape) * (5.0 / max(fwhm or 5.0, 5.0)) >= 7
    assert np.isfinite(predictions.probabilities[0]).all() == usable
    assert np.isfinite(predictions.probabilities[1]).all()


def test_rule_4_a_missing_stamp_follows_the_contracts_declared_policy() -> None:
    whole = candidate()
    lacking = [Triplet(whole.science, None, whole.difference), Triplet(whole.science, whole.reference)]
    flags = [QualityFlag.MISSING_REFERENCE, QualityFlag.MISSING_DIFFERENCE]
    for policy, usable in (("background", True), ("refuse", False)):
        contract = InputContract(missing_reference=policy, missing_difference=policy)
        prepared = preprocess(lacking, contract)
        assert prepared.usable.tolist() == [usable, usable]
        assert all(quality & flag for quality, flag in zip(prepared.quality, flags, strict=True))


def test_rule_5_probabilities_are_calibrated_and_that_is_measured() -> None:
    for found in local_models():
        if found.location is None:
            calibration = found.record.calibration
            assert calibration["n"] > 100
            low, high = calibration["after"]["ece_interval"]
            assert 0 <= low <= calibration["after"]["ece"] <= high < 1


def test_rule_5_what_the_model_was_not_trained_for_is_flagged(model: Classifier) -> None:
    rng = np.random.default_rng(0)
    y, x = np.indices((63, 63)) - 31
    sky = rng.normal(100, 5, (2, 63, 63))
    sky[0] += 500 * np.exp(-(x**2 + y**2) / 4)
    sound = np.stack([*sky, sky[0] - sky[1]])
    shuffled = rng.permuted(sound.reshape(3, -1), axis=1).reshape(sound.shape)
    tilted = sound + 200.0 * x
    strange = [sound, shuffled, tilted]
    quality = model.predict([Triplet(*stamps, fwhm=2.4) for stamps in strange]).quality
    assert ((quality & QualityFlag.OUT_OF_DISTRIBUTION) != 0).tolist() == [False, True, True]


def test_rule_6_weights_are_pinned_and_a_changed_byte_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    shutil.copytree(bundled_folder(), folder)
    shutil.copy(ROOT / "weights_manifest.json", folder)
    manifest = folder / "weights_manifest.json"
    file, _ = resolve(f"{manifest}#realbogus")
    assert file.parent == folder
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ModelIntegrityError):
        resolve(f"{manifest}#realbogus")


def test_rule_6_offline_means_not_one_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    load_model("realbogus", offline=True)
    with pytest.raises(ModelUnavailableError):
        load_model("hf://nobody/nothing", offline=True)


def test_rule_7_every_model_ships_test_vectors_that_hold_here() -> None:
    for found in local_models():
        if found.location is None:
            file, vectors = verified_files(found)
            assert vectors is not None
            deviation = run_test_vectors(Classifier(file, found.record, threads=1), vectors)
            assert deviation.worst <= float(found.record.test_vectors["tolerance"]) <= 1e-2


def test_rule_8_no_pickle_is_ever_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "o.npy", np.array([[None]]), allow_pickle=True)
    np.savez(tmp_path / "o.npz", allow_pickle=True, triplets=np.array([[None]]))
    for triplet in open_triplets(tmp_path):
        assert "pickles are never loaded" in (triplet.error or "")
    unsafe = re.compile(r"allow_pickle\s*=\s*True|weights_only\s*=\s*False|\bpickle\.loads?\(|joblib")
    for path in (ROOT / "transientnet").rglob("*.py"):
        assert not unsafe.search(path.read_text(encoding="utf-8")), path


def test_rule_8_decompression_is_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRANSIENTNET_MEMORY", "4")
    (tmp_path / "bomb.fits").write_bytes(gzip.compress(b"SIMPLE  =" + bytes(2**24)))
    (triplet,) = open_triplets(tmp_path / "bomb.fits")
    assert "limit" in (triplet.error or "")


@pytest.mark.parametrize("name", ["../a.onnx", "/etc/a.onnx", "a/../../b.onnx", "C:\\a.onnx"])
def test_rule_8_a_path_in_a_manifest_cannot_leave_its_folder(name: str) -> None:
    text = (ROOT / "weights_manifest.json").read_text(encoding="utf-8")
    file = Manifest.parse(text, "manifest").records[0].file
    with pytest.raises(ContractError):
        Manifest.parse(text.replace(f'"{file}"', f'"{name}"'.replace("\\", "\\\\")), "manifest")


def test_rule_9_splits_never_cut_through_an_object() -> None:
    pytest.importorskip("torch")
    from transientnet.transfer.crossfit import make_folds

    groups = np.random.default_rng(1).integers(0, 60, 300)
    for fold in make_folds(groups % 2, groups, 5, 0):
        assert not set(groups[fold.train]) & set(groups[fold.test])


def test_rule_9_the_report_shows_n_intervals_and_recall_by_brightness() -> None:
    rng = np.random.default_rng(0)
    y, groups = rng.integers(0, 2, 400), rng.integers(0, 90, 400)
    magnitude = rng.uniform(16, 21, 400)
    # Faint reals look like bogus; nothing else is hard.
    real = np.where((y == 1) & (magnitude < 20), 0.9, 0.1) + rng.uniform(-0.1, 0.1, 400)
    figures = evaluate(
        np.stack([1 - real, real], 1),
        y,
        ("bogus", "real"),
        groups=groups,
        brightness=magnitude,
    )
    assert figures["n"] == 400
    assert figures["n_groups"] == len(np.unique(groups))
    for name, figure in figures["metrics"].items():
        if name != "calibration_error":
            assert figure["low"] <= figure["value"] <= figure["high"]
            assert figure["high"] - figure["low"] < 0.5
    bins = figures["curves"]["real"]["thresholds"][0]["recall_by_brightness"]
    assert sum(each["n"] for each in bins) == (y == 1).sum()
    bright = [each["recall"] for each in bins if each["to"] < 20]
    faint = [each["recall"] for each in bins if each["from"] > 20]
    assert min(bright) == 1.0
    assert max(faint) < 0.2


def test_rule_10_one_preprocess_feeds_the_network_everywhere() -> None:
    # The stretch is written once: where networks are trained there is no copy of it.
    for folder in ("training_reference", "transientnet/transfer"):
        texts = [path.read_text(encoding="utf-8") for path in (ROOT / folder).rglob("*.py")]
        assert texts, folder
        assert not any("arcsinh" in text for text in texts), folder


def test_rule_10_a_stamp_gets_one_answer_by_every_way(model: Classifier, tmp_path: Path) -> None:
    whole = candidate()
    hdus = [fits.PrimaryHDU(), *(fits.ImageHDU(image) for image in whole.stamps)]
    for hdu in hdus[1:]:
        hdu.header["FWHM"] = 2.4
    fits.HDUList(hdus).writeto(tmp_path / "c.fits")
    prepared = preprocess([whole], model.contract)
    probability = model.predict([whole]).probabilities
    np.testing.assert_array_equal(classify(tmp_path / "c.fits").probabilities, probability)
    np.testing.assert_array_equal(classify(np.stack(whole.stamps), fwhm=2.4).probabilities, probability)
    np.testing.assert_array_equal(preprocess([whole], InputContract()).tensor, prepared.tensor)


def test_what_python_prints_fits_on_a_line() -> None:
    stamps = np.random.default_rng(0).normal(100, 5, (3, 63, 63)).astype(np.float32)
    triplet = Triplet(*stamps, id="c1", pixel_scale=0.5, fwhm=3.0)
    model = load_model("realbogus")
    shown = [
        triplet,
        Triplet.unreadable("c2", "a.fits", "empty"),
        model,
        model.record,
        model.explain(triplet),
    ]
    for text in map(repr, [*shown, model.predict([triplet])]):
        assert len(text) < 120
    assert "63x63" in repr(triplet)
    assert "empty" in repr(shown[1])
    assert "1 candidate:" in repr(model.predict([triplet]))
