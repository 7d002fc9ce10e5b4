"""Networks that say more than their classes: the kind of bogus, and whether the input is broken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from typer.testing import CliRunner

from transientnet import QualityFlag, Triplet, classify, load_model
from transientnet.cli import app
from transientnet.errors import UsageError
from transientnet.models.classifier import Classifier
from transientnet.models.raw import raw_model
from transientnet.models.raw_parity import as_triplets, hard_stamps, open_raw, verify_raw
from transientnet.models.record import ModelRecord
from transientnet.prepare.contract import InputContract
from transientnet.prepare.preprocess import preprocess
from transientnet.results.scores import read_scores
from transientnet.scoring.run import score_run
from transientnet.transfer.export import OPSET, export_onnx, load_network, rewrite_onnx
from transientnet.transfer.network import NetworkConfig, StampNetwork
from transientnet.transfer.probe import load_base
from transientnet.transfer.training import HEAD

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


@pytest.fixture(scope="module")
def small(network: StampNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network as a file, which every test reads and none changes."""
    path = tmp_path_factory.mktemp("small") / "small.onnx"
    export_onnx(network, "small", record(None), path)
    return path


def stamps(n: int) -> list[Triplet]:
    return [Triplet(*images, fwhm=2.0) for images in np.random.default_rng(0).normal(100, 5, (n, 3, 63, 63))]


def test_a_file_with_side_outputs_names_kinds_and_flags_what_is_odd(
    network: StampNetwork, small: Path
) -> None:
    plain = Classifier(small, record(None))
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
        classifier = Classifier(small, record(threshold))
        quality = classifier.predict(stamps(4)).quality
        assert ((quality & QualityFlag.OUT_OF_DISTRIBUTION) != 0).mean() == share


def test_the_raw_model_flags_what_the_network_calls_odd(small: Path) -> None:
    """A threshold in the middle: half of the stamps are flagged, and they are the ones of Python."""
    parts = list(hard_stamps(96, seed=4))
    tensors = [preprocess(as_triplets(part), InputContract()) for part in parts]
    odd = [Classifier(small, record(0.0)).run_all(t.tensor[t.usable])["oddity"] for t in tensors]
    judged = replace(record(0.0), reference={"oddity": {"threshold": float(np.median(np.concatenate(odd)))}})
    classifier = Classifier(small, judged)
    made = raw_model(small, judged).SerializeToString()
    assert verify_raw(made, classifier, parts).n == 96
    quality = np.concatenate([open_raw(made, 1).run(["quality"], part._asdict())[0] for part in parts])
    foreign = (quality & QualityFlag.OUT_OF_DISTRIBUTION) != 0
    usable = (quality & QualityFlag.UNUSABLE) == 0
    assert usable.sum() > 40
    assert not (foreign & ~usable).any()
    assert 0.3 < foreign[usable].mean() < 0.7


def test_adapting_keeps_the_side_outputs(small: Path, tmp_path: Path) -> None:
    """What is broken and which kind of bogus it is does not depend on a survey's labels."""
    adapted = load_base(small, record(0.0), ("a", "b", "bogus"))
    made = replace(record(0.0), classes=("a", "b", "bogus"))
    rewrite_onnx(small, adapted, HEAD, made, tmp_path / "adapted.onnx")
    classifier = Classifier(tmp_path / "adapted.onnx", made)
    assert classifier.kinds == KINDS
    tensor = np.random.default_rng(2).normal(size=(5, 3, 63, 63)).astype(np.float32)
    before, after = Classifier(small, record(0.0)).run_all(tensor), classifier.run_all(tensor)
    assert after["logits"].shape == (5, 3)
    for name in ("kinds", "oddity"):
        np.testing.assert_allclose(after[name], before[name], atol=1e-5)


def test_a_network_without_side_heads_is_written_without_their_outputs(small: Path, tmp_path: Path) -> None:
    adapted = load_network(small, record(0.0), {"new": 3})
    made = replace(record(None), classes=("a", "b", "c"), network=SMALL.to_dict())
    rewrite_onnx(small, adapted, "new", made, tmp_path / "adapted.onnx")
    classifier = Classifier(tmp_path / "adapted.onnx", made)
    assert classifier.kinds == ()
    assert set(classifier.run_all(np.zeros((2, 3, 63, 63), np.float32))) == {"logits", "features"}
    assert classifier.predict(stamps(2)).probabilities.shape == (2, 3)
    assert (tmp_path / "adapted.onnx").stat().st_size < small.stat().st_size


@pytest.mark.parametrize(
    ("ending", "workers"),
    [("csv", 2), ("csv", 1), ("ecsv", 1), ("jsonl", 1), ("parquet", 1), ("fits", 1), ("vot", 1)],
)
def test_rejected_candidates_have_a_reason_where_it_is_asked_for(
    small: Path, tmp_path: Path, ending: str, workers: int
) -> None:
    night = tmp_path / "night.npy"
    images = np.array([[t.science, t.reference, t.difference] for t in stamps(40)], np.float32)
    images[::8] = 0.0
    np.save(night, images)
    # A threshold halfway: some rows are rejected, some are not.
    classifier = load_model(small)
    named = classifier.predict(images, kinds=True)
    threshold = float(np.nanmedian(named.probabilities[:, 1]))
    table = tmp_path / f"scores.{ending}"
    score_run([str(night)], classifier, output=table, kinds=True, workers=workers, threshold=threshold)
    rows = read_scores(table)
    assert "kind" in rows.columns()
    kinds, labels = rows["kind"], rows["label"]
    assert set(kinds[labels == "bogus"]) <= set(KINDS)
    assert set(kinds[labels != "bogus"]) == {""}
    assert (labels == "").sum() == 5
    # What the network says of the same stamps, one by one.
    assert named.kinds is not None
    np.testing.assert_array_equal(kinds[labels == "bogus"], named.kinds[labels == "bogus"])
    plain = tmp_path / f"plain.{ending}"
    score_run([str(night)], classifier, output=plain)
    assert "kind" not in read_scores(plain).columns()


def test_the_option_of_the_command_line(small: Path, tmp_path: Path) -> None:
    night = tmp_path / "night.npy"
    np.save(night, [[t.science, t.reference, t.difference] for t in stamps(3)])
    table = tmp_path / "scores.csv"
    done = CliRunner().invoke(app, ["score", str(night), "-m", str(small), "-o", str(table), "--kinds"])
    assert done.exit_code == 0, done.output
    assert table.read_text().splitlines()[0].endswith(",kind")


def test_a_model_without_kinds_or_without_bogus_says_so(network: StampNetwork, tmp_path: Path) -> None:
    model = tmp_path / "hosts.onnx"
    export_onnx(network, "small", replace(record(None), classes=("hosted", "orphan")), model)
    for name in (model, "realbogus@0.1.0"):
        with pytest.raises(UsageError, match="does not name kinds of bogus"):
            classify(stamps(2), model=load_model(name), kinds=True)


def test_a_base_with_side_outputs_can_be_adapted(network: StampNetwork, small: Path) -> None:
    """The head of its classes is the one that is taken over."""
    taken = load_base(small, record(0.0), ("bogus", "real"))
    assert set(taken.heads) == {HEAD, "kinds", "input"}
    with torch.inference_mode():
        tensor = torch.zeros(2, 3, 63, 63)
        mine = taken(tensor)[HEAD]
        np.testing.assert_allclose(mine, network(tensor)["small"], atol=1e-4)


def test_a_batch_that_was_never_scored_takes_no_kinds_from_the_others(small: Path) -> None:
    """Rows of a worker that died, or for which memory did not suffice, have no kind."""
    classifier = load_model(small)
    scored = classifier.score(stamps(3))
    lost = replace(classifier.score([Triplet.unreadable("lost", "a.fits", "gone")]), kinds=None)
    joined = classifier.joined([scored, lost], kinds=True)
    assert joined.kinds is not None
    assert scored.kinds is not None
    assert joined.kinds.tolist() == [*scored.kinds.tolist(), ""]
