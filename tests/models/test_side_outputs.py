"""Networks that say more than their classes: the kind of bogus, and whether the input is broken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from transientnet import QualityFlag, Triplet
from transientnet.models.classifier import Classifier
from transientnet.models.raw import raw_model
from transientnet.models.raw_parity import as_triplets, hard_stamps, open_raw, verify_raw
from transientnet.models.record import ModelRecord
from transientnet.prepare.contract import InputContract
from transientnet.prepare.preprocess import preprocess
from transientnet.transfer.export import OPSET, export_onnx, load_network, rewrite_onnx
from transientnet.transfer.network import NetworkConfig, StampNetwork

SMALL = NetworkConfig(oriented=(1, 1, 1, 1), plain=(2, 2, 2, 2), features=8)
KINDS = ("residual", "cosmic ray", "noise")


def record(threshold: float | None) -> ModelRecord:
    """Of a small network; without a threshold it has no reference."""
    return ModelRecord(
        name="small",
        version="1.0.0",
        classes=("bogus", "real"),
        contract=InputContract(),
        network={**SMALL.to_dict(), "kinds": list(KINDS)},
        reference={} if threshold is None else {"oddity": {"threshold": threshold}},
        opset=OPSET,
    )


@pytest.fixture(scope="module")
def network() -> StampNetwork:
    torch.manual_seed(0)
    network = StampNetwork({"small": 2, "kinds": len(KINDS), "input": 2}, SMALL).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return network


def stamps(n: int) -> list[Triplet]:
    return [Triplet(*images, fwhm=2.0) for images in np.random.default_rng(0).normal(100, 5, (n, 3, 63, 63))]


def test_a_file_with_side_outputs_names_kinds_and_flags_what_is_odd(
    network: StampNetwork, tmp_path: Path
) -> None:
    path = tmp_path / "small.onnx"
    export_onnx(network, "small", record(None), path)
    plain = Classifier(path, record(None))
    assert plain.kinds == KINDS
    tensor = np.random.default_rng(1).normal(size=(5, 3, 63, 63)).astype(np.float32)
    given = plain.run_all(tensor)
    assert given["kinds"].shape == (5, 3)
    np.testing.assert_array_equal(plain.run(tensor)[0], given["logits"])
    with torch.inference_mode():
        sound, broken = network(torch.from_numpy(tensor))["input"].numpy().T
    np.testing.assert_allclose(given["oddity"][:, 0], broken - sound, atol=1e-4)
    # No threshold, no flag; a low one flags everything, a high one nothing.
    for threshold, share in ((None, 0.0), (-1e3, 1.0), (1e3, 0.0)):
        classifier = Classifier(path, record(threshold))
        quality = classifier.predict(stamps(4)).quality
        assert ((quality & QualityFlag.OUT_OF_DISTRIBUTION) != 0).mean() == share


def test_the_raw_model_flags_what_the_network_calls_odd(network: StampNetwork, tmp_path: Path) -> None:
    """A threshold in the middle: half of the stamps are flagged, and they are the ones of Python."""
    path = tmp_path / "small.onnx"
    export_onnx(network, "small", record(0.0), path)
    parts = list(hard_stamps(96, seed=4))
    tensors = [preprocess(as_triplets(part), InputContract()) for part in parts]
    odd = [Classifier(path, record(0.0)).run_all(t.tensor[t.usable])["oddity"] for t in tensors]
    judged = replace(record(0.0), reference={"oddity": {"threshold": float(np.median(np.concatenate(odd)))}})
    classifier = Classifier(path, judged)
    made = raw_model(path, judged).SerializeToString()
    assert verify_raw(made, classifier, parts).n == 96
    quality = np.concatenate([open_raw(made, 1).run(["quality"], part._asdict())[0] for part in parts])
    foreign = (quality & QualityFlag.OUT_OF_DISTRIBUTION) != 0
    usable = (quality & QualityFlag.UNUSABLE) == 0
    assert usable.sum() > 40
    assert not (foreign & ~usable).any()
    assert 0.3 < foreign[usable].mean() < 0.7


def test_adapting_leaves_the_side_outputs_behind(network: StampNetwork, tmp_path: Path) -> None:
    """Their heads were taught on the features of the base."""
    base = tmp_path / "small.onnx"
    export_onnx(network, "small", record(0.0), base)
    adapted = load_network(base, record(0.0), {"new": 3})
    made = replace(record(None), classes=("a", "b", "c"), network=SMALL.to_dict())
    rewrite_onnx(base, adapted, "new", made, tmp_path / "adapted.onnx")
    classifier = Classifier(tmp_path / "adapted.onnx", made)
    assert classifier.kinds == ()
    assert set(classifier.run_all(np.zeros((2, 3, 63, 63), np.float32))) == {"logits", "features"}
    assert classifier.predict(stamps(2)).probabilities.shape == (2, 3)
    assert (tmp_path / "adapted.onnx").stat().st_size < base.stat().st_size
