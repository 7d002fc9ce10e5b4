"""The raw model answers like the Python path, whatever the stamps, and is not kept where it does not."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from typer.testing import CliRunner

from transientnet import QualityFlag, open_triplets
from transientnet.errors import MissingDependencyError, ModelIntegrityError
from transientnet.models import raw
from transientnet.models.classifier import Classifier, load_model
from transientnet.models.raw import CLASSES_KEY, FLAGS_KEY, MAX_OPSET, raw_model, raw_path
from transientnet.models.raw_parity import (
    TOLERANCE,
    Inputs,
    as_inputs,
    as_triplets,
    compare,
    hard_stamps,
    open_raw,
    verify_raw,
)
from transientnet.models.record import METADATA_KEY
from transientnet.models.registry.safety import onnx_metadata
from transientnet.prepare.preprocess import preprocess

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "docs" / "examples" / "cutouts"


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return load_model("realbogus", threads=1)


@pytest.fixture(scope="module")
def model(classifier: Classifier) -> bytes:
    return bytes(raw_model(classifier.path, classifier.record).SerializeToString())


@pytest.fixture(scope="module")
def session(model: bytes) -> Any:
    return open_raw(model, threads=1)


def run(session: Any, stamps: Any, fwhm: Any = 0.0) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    images = np.asarray(stamps, np.float32)
    images = images[None] if images.ndim == 3 else images
    seeing = np.broadcast_to(np.asarray(fwhm, np.float32), len(images))
    return tuple(session.run(["probabilities", "quality"], {"stamps": images, "fwhm": seeing}))


def star(side: int = 63, seed: int = 0, sigma: float = 1.2) -> npt.NDArray[np.float32]:
    """A new source on a noisy sky."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    image = np.random.default_rng(seed).normal(0, 1, (3, side, side))
    image[[0, 2]] += 60 * np.exp(-(x**2 + y**2) / (2 * sigma**2))
    return image.astype(np.float32)


def assert_equal(session: Any, classifier: Classifier, inputs: Inputs) -> None:
    found = compare(session, classifier, inputs)
    assert found.flags == []
    assert found.deviation <= TOLERANCE


@pytest.mark.parametrize("name", ["realbogus", "3class", "4class"])
def test_ugly_stamps_get_the_answers_of_python(name: str) -> None:
    classifier = load_model(name, threads=1)
    found = verify_raw(
        raw_model(classifier.path, classifier.record).SerializeToString(),
        classifier,
        hard_stamps(352, seed=5),
    )
    assert found.n == 352
    assert found.deviation < 1e-5


@pytest.mark.parametrize("missing_reference", ["refuse", "background"])
@pytest.mark.parametrize("missing_difference", ["refuse", "background"])
def test_the_policy_of_the_contract_is_in_the_graph(
    classifier: Classifier, missing_reference: str, missing_difference: str
) -> None:
    contract = replace(
        classifier.contract,
        missing_reference=missing_reference,
        missing_difference=missing_difference,
        fwhm_px=(1.2, 3.0),
        softening=3.0,
    )
    other = Classifier(classifier.path, replace(classifier.record, contract=contract), threads=1)
    verify_raw(raw_model(other.path, other.record).SerializeToString(), other, hard_stamps(96, seed=8))
    stamps = np.stack([star(seed=seed) for seed in range(3)])
    stamps[0, 1], stamps[1, 2] = np.nan, np.nan
    session = open_raw(raw_model(other.path, other.record).SerializeToString(), 1)
    refused = np.isnan(run(session, stamps)[0]).all(axis=1).tolist()
    assert refused == [missing_reference == "refuse", missing_difference == "refuse", False]


def test_a_record_without_reference_statistics_flags_nothing_as_foreign(classifier: Classifier) -> None:
    bare = replace(classifier.record, reference={}, calibration={})
    other = Classifier(classifier.path, bare, threads=1)
    verify_raw(raw_model(other.path, bare).SerializeToString(), other, hard_stamps(96, seed=9))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_a_stamp_holds(session: Any, classifier: Classifier, data: st.DataObject) -> None:
    sides = st.integers(1, 24)
    shape = (data.draw(st.integers(1, 3)), 3, data.draw(sides), data.draw(sides))
    levels = st.sampled_from([0.0, -0.0, 1.0, 2.0, 100.0, -999.0, 1e-30, 1e-42, 1e20, 1e31, np.inf, np.nan])
    fill = st.one_of(levels, st.nothing())
    elements = st.one_of(levels, st.floats(width=32), st.integers(0, 255).map(float))
    stamps = data.draw(arrays(np.float32, shape, elements=elements, fill=fill))
    noise = np.random.default_rng(data.draw(st.integers(0, 9))).normal(0, 1, shape).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        stamps = stamps + noise * np.float32(data.draw(st.sampled_from([0.0, 1.0, 1e4])))
    fwhm = data.draw(arrays(np.float32, shape[0], elements=st.floats(-1, 12, width=32)))
    assert_equal(session, classifier, Inputs(stamps, fwhm))


def test_real_stamps_get_the_answers_of_python(
    session: Any, classifier: Classifier, shared_data: Path
) -> None:
    for survey in ("ztf", "decam", "rubin"):
        stamps = np.load(shared_data / survey / "stamps.npz")["triplets"][::12].astype(np.float32)
        for fwhm in (0.0, 2.0, 7.5):
            assert_equal(session, classifier, Inputs(stamps, np.full(len(stamps), fwhm, np.float32)))
    files = [shared_data / "packets" / folder for folder in ("ztf_edge", "winter", "rubin")]
    for file in files:
        for inputs in as_inputs(open_triplets(file)):
            assert_equal(session, classifier, inputs)


@pytest.mark.parametrize(
    ("spoil", "flag"),
    [
        (lambda s: s[0].fill(7.0), QualityFlag.BLANK),
        (lambda s: s[0].fill(np.nan), QualityFlag.OFF_CHIP),
        (lambda s: s[2, 29:34, 29:34].fill(np.inf), QualityFlag.OFF_CHIP),
        (lambda s: s[2].fill(3e30), QualityFlag.BLANK),
        (lambda s: s[1:].fill(np.nan), QualityFlag.MISSING_REQUIRED),
        (lambda s: np.multiply(s, 1e-44, out=s), QualityFlag.BLANK),
    ],
)
def test_what_cannot_be_judged_gets_a_flag_and_no_number(session: Any, spoil: Any, flag: QualityFlag) -> None:
    stamps = star()
    spoil(stamps)
    probabilities, quality = run(session, stamps)
    assert np.isnan(probabilities).all()
    assert quality[0] & flag


@pytest.mark.parametrize("shape", [(1, 1), (6, 200), (0, 63)])
def test_too_few_pixels_are_refused(session: Any, shape: tuple[int, int]) -> None:
    probabilities, quality = run(session, np.ones((2, 3, *shape)))
    assert probabilities.shape == (2, 2)
    assert np.isnan(probabilities).all()
    assert (quality & int(QualityFlag.UNUSABLE)).all()


def test_no_candidates_no_answers(session: Any) -> None:
    probabilities, quality = run(session, np.ones((0, 3, 63, 63)))
    assert probabilities.shape == (0, 2)
    assert quality.shape == (0,)


@pytest.mark.parametrize("side", [49, 50, 81, 90])
def test_the_target_stays_at_the_centre(session: Any, side: int) -> None:
    """A stamp cut or padded around its centre is the same candidate; cut off centre it is another."""
    whole = star(101 if side % 2 else 102)
    start = (whole.shape[-1] - side) // 2
    centred, corner = whole[:, start : start + side, start : start + side], whole[:, :side, :side]
    (there, aside), _ = run(session, np.stack([centred, corner]), 2.8)
    full = run(session, whole, 2.8)[0][0]
    assert abs(there[1] - full[1]) < 0.05
    assert abs(aside[1] - full[1]) > 0.3


def test_a_broad_seeing_is_shrunk_and_told(session: Any) -> None:
    sharp, broad = run(session, star(), 2.8)[0][0], run(session, star(151, sigma=5.0), 11.8)
    assert broad[1][0] & QualityFlag.RESAMPLED
    assert abs(broad[0][0][1] - sharp[1]) < 0.2
    estimated = run(session, star())[1][0]
    assert estimated & (QualityFlag.FWHM_ESTIMATED | QualityFlag.FWHM_ASSUMED)
    assert not estimated & QualityFlag.RESAMPLED


def test_a_row_does_not_depend_on_its_neighbours(session: Any) -> None:
    inputs = next(iter(hard_stamps(32, seed=3)))
    probabilities, quality = run(session, *inputs)
    for row in range(len(quality)):
        alone = run(session, inputs.stamps[row], inputs.fwhm[row])
        np.testing.assert_allclose(alone[0][0], probabilities[row], atol=1e-5)
        assert alone[1][0] == quality[row]


def test_only_standard_operators_that_older_runtimes_know(model: bytes) -> None:
    import onnx

    # Refuses foreign domains, control flow, local functions and external data.
    assert json.loads(onnx_metadata(model, "raw"))["name"] == "realbogus"
    made = onnx.load_model_from_string(model)
    assert [one.domain for one in made.opset_import] == [""]
    assert made.opset_import[0].version <= MAX_OPSET
    assert len(model) < 2_000_000


def test_the_file_explains_itself(session: Any, classifier: Classifier) -> None:
    metadata = session.get_modelmeta().custom_metadata_map
    record = json.loads(metadata[METADATA_KEY])
    assert tuple(record["classes"]) == tuple(metadata[CLASSES_KEY].split("\n")) == classifier.classes
    assert record["contract"] == json.loads(json.dumps(classifier.contract.to_dict()))
    assert json.loads(metadata[FLAGS_KEY]) == {flag.name: int(flag) for flag in QualityFlag if flag.name}


def test_a_raw_model_of_other_numbers_is_refused(classifier: Classifier) -> None:
    for change in (
        {"calibration": {"temperature": 3.0}},
        {"contract": replace(classifier.contract, softening=9.0)},
    ):
        other = raw_model(classifier.path, replace(classifier.record, **change))
        with pytest.raises(ModelIntegrityError, match="differs from the Python path"):
            verify_raw(other.SerializeToString(), classifier, hard_stamps(96))


def test_a_raw_model_that_fails_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classifier: Classifier
) -> None:
    monkeypatch.setenv("TRANSIENTNET_CACHE", str(tmp_path))
    wrong = raw_model(classifier.path, replace(classifier.record, calibration={"temperature": 3.0}))
    monkeypatch.setattr(raw, "raw_model", lambda *_: wrong)
    with pytest.raises(ModelIntegrityError, match="differs from the Python path"):
        raw_path("realbogus")
    assert not list(tmp_path.rglob("*.onnx"))


def test_the_command_prints_a_file_that_is_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classifier: Classifier
) -> None:
    from transientnet.cli import app

    monkeypatch.setenv("TRANSIENTNET_CACHE", str(tmp_path))
    result = CliRunner().invoke(app, ["models", "path", "realbogus", "--raw"])
    assert result.exit_code == 0, result.output
    path = Path(result.stdout.strip())
    assert path.is_relative_to(tmp_path)
    assert compare(open_raw(str(path), 1), classifier, next(iter(hard_stamps(32)))).flags == []
    before = path.stat().st_mtime_ns
    # Once it is there, nothing is needed to find it, not even the package that makes it.
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert raw_path("realbogus") == path
    assert path.stat().st_mtime_ns == before
    with pytest.raises(MissingDependencyError, match=r"transientnet\[raw\]"):
        raw_path("3class")


def test_a_file_of_ones_own_has_a_raw_model_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classifier: Classifier
) -> None:
    monkeypatch.setenv("TRANSIENTNET_CACHE", str(tmp_path / "cache"))
    own = tmp_path / "own.onnx"
    own.write_bytes(classifier.path.read_bytes())
    path = raw_path(own)
    assert path == raw_path("realbogus")
    with pytest.raises(Exception, match="'triplet'"):
        load_model(path)


def test_missing_stamps_are_told_by_nan(session: Any, classifier: Classifier) -> None:
    stamps = np.stack([star(seed=1), star(seed=2), star(seed=3)])
    stamps[0, 1], stamps[1, 2] = np.nan, np.nan
    inputs = Inputs(stamps, np.full(3, 2.8, np.float32))
    triplets = as_triplets(inputs)
    assert triplets[0].reference is None
    assert triplets[1].difference is None
    expected = preprocess(triplets, classifier.contract).quality.tolist()
    assert (run(session, *inputs)[1] & ~int(QualityFlag.OUT_OF_DISTRIBUTION)).tolist() == expected


def test_the_example_cutouts(session: Any, classifier: Classifier) -> None:
    triplets = list(open_triplets(str(EXAMPLES / "*.fits")))
    inputs = as_inputs(triplets)
    assert sum(len(one.fwhm) for one in inputs) == len(triplets) == 13
    for one in inputs:
        assert_equal(session, classifier, one)
