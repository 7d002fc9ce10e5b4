"""Test vectors notice a change of preprocess, of weights, and of their own file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from transientnet.errors import ModelIntegrityError, UsageError
from transientnet.models.classifier import Classifier, load_model
from transientnet.models.vectors import run_test_vectors, write_test_vectors
from transientnet.triplet import Triplet


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return load_model("3class", threads=1)


def _triplets() -> list[Triplet]:
    rng = np.random.default_rng(1)
    a, b, c = rng.normal(1e4, 30, (3, 63, 63))
    a[31, 31] += 9000
    c[:20] = np.nan
    return [Triplet(a, b, a - b, fwhm=2.0), Triplet(b, None, c), Triplet(a[:40], b[5:51, :44], None)]


def test_same_machine_same_answers(classifier: Classifier, tmp_path: Path) -> None:
    path = write_test_vectors(tmp_path / "v.npz", classifier, _triplets())
    deviation = run_test_vectors(classifier, path)
    assert deviation.n == 3
    assert deviation.worst < 1e-5
    assert path.stat().st_size < 150_000


@pytest.mark.parametrize("array", ["stamps", "tensor", "probabilities", "features", "quality"])
def test_a_change_shows(classifier: Classifier, tmp_path: Path, array: str) -> None:
    path = write_test_vectors(tmp_path / "v.npz", classifier, _triplets())
    arrays = dict(np.load(path))
    arrays[array] = np.roll(arrays[array], 1, axis=0)
    np.savez_compressed(path, **arrays)
    if array == "quality":
        with pytest.raises(ModelIntegrityError, match="quality flags"):
            run_test_vectors(classifier, path)
    else:
        assert run_test_vectors(classifier, path).worst > 1e-3


def test_another_models_vectors_are_refused(classifier: Classifier, tmp_path: Path) -> None:
    path = write_test_vectors(tmp_path / "v.npz", load_model("4class", threads=1), _triplets())
    with pytest.raises(ModelIntegrityError, match="shape"):
        run_test_vectors(classifier, path)


def test_unusable_stamps_cannot_be_vectors(classifier: Classifier, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="that the model scores"):
        write_test_vectors(tmp_path / "v.npz", classifier, [Triplet(np.zeros((63, 63)))])


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04broken"])
def test_other_files_are_not_vectors(classifier: Classifier, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "v.npz").write_bytes(content)
    with pytest.raises(ModelIntegrityError, match="not a set of test vectors"):
        run_test_vectors(classifier, tmp_path / "v.npz")
