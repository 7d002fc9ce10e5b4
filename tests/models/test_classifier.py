"""A network that contradicts its record is refused at load; no probability is NaN without a flag."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from transientnet import Classifier, InputContract, ModelRecord, QualityFlag, Triplet, load_model
from transientnet.errors import ContractError, ModelUnavailableError, ReadError, UsageError
from transientnet.models.record import METADATA_KEY

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

FLOAT, DOUBLE = TensorProto.FLOAT, TensorProto.DOUBLE
RECORD = ModelRecord("tiny", "1.0.0", ("bogus", "real"), InputContract())


def network(
    *,
    inputs: dict[str, tuple[int, list[Any]]] | None = None,
    outputs: dict[str, tuple[int, list[Any]]] | None = None,
    classes: int = 2,
    body: Callable[[list[Any]], None] | None = None,
) -> Any:
    """Logits from the mean of each stamp: whatever else is asked for contradicts the record."""
    weights = np.arange(3 * classes, dtype=np.float32).reshape(3, classes)
    nodes = [
        helper.make_node("GlobalAveragePool", ["triplet"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["means"], axis=1),
        helper.make_node("MatMul", ["means", "weights"], ["logits"]),
    ]
    if body:
        body(nodes)
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info(name, *each)
            for name, each in (inputs or {"triplet": (FLOAT, ["N", 3, 63, 63])}).items()
        ],
        [
            helper.make_tensor_value_info(name, *each)
            for name, each in (outputs or {"logits": (FLOAT, None)}).items()
        ],
        [numpy_helper.from_array(weights, "weights")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def stored(folder: Path, model: Any, record: ModelRecord = RECORD) -> Path:
    helper.set_model_props(model, {METADATA_KEY: record.to_metadata()})
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def renamed(old: str, new: str) -> Callable[[list[Any]], None]:
    def change(nodes: list[Any]) -> None:
        for node in nodes:
            for names in (node.input, node.output):
                names[:] = [new if name == old else name for name in names]

    return change


def appended(*more: Any) -> Callable[[list[Any]], None]:
    """The logits under another name, and nodes that make of them what is called logits."""

    def change(nodes: list[Any]) -> None:
        renamed("logits", "plain")(nodes)
        nodes.extend(more)

    return change


def node(kind: str, inputs: str, output: str = "logits", **attributes: Any) -> Any:
    return helper.make_node(kind, inputs.split(), [output], **attributes)


def constant(value: Any, name: str) -> Any:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.asarray(value), name))


GOOD = {"logits": (FLOAT, ["N", 2])}


@pytest.mark.parametrize(
    "model",
    [
        network(classes=3),
        network(classes=1),
        network(classes=3, outputs={"logits": (FLOAT, ["N", "K"])}),
        network(outputs={"scores": (FLOAT, None)}, body=renamed("logits", "scores")),
        network(inputs={"image": (FLOAT, ["N", 3, 63, 63])}, body=renamed("triplet", "image")),
        network(inputs={"triplet": (FLOAT, ["N", 3, 31, 31])}),
        network(inputs={"triplet": (FLOAT, [1, 3, 63, 63])}),
        network(inputs={"triplet": (FLOAT, ["N", 1, 63, 63])}),
        network(inputs={"triplet": (FLOAT, ["N", 63, 63, 3])}),
        network(inputs={"triplet": (FLOAT, ["N", 3, 63, 63]), "metadata": (FLOAT, ["N", 4])}),
        network(
            inputs={"triplet": (DOUBLE, ["N", 3, 63, 63])},
            outputs={"logits": (FLOAT, None)},
            body=lambda nodes: (
                renamed("triplet", "single")(nodes),
                nodes.insert(0, node("Cast", "triplet", "single", to=FLOAT)),
            ),
        ),
        network(outputs={"logits": (DOUBLE, None)}, body=appended(node("Cast", "plain", to=DOUBLE))),
        network(
            outputs={"logits": (TensorProto.INT64, None)}, body=appended(node("ArgMax", "plain", axis=1))
        ),
        network(
            outputs={"logits": (TensorProto.STRING, None)},
            body=appended(node("Cast", "plain", to=TensorProto.STRING)),
        ),
        network(body=appended(constant([0], "zero"), node("Unsqueeze", "plain zero"))),
        network(body=appended(node("Transpose", "plain", perm=[1, 0])), classes=4),
        network(body=appended(node("ReduceSum", "plain", keepdims=0))),
        network(body=appended(constant([1, -1], "shape"), node("Reshape", "plain shape"))),
        network(body=appended(node("Shape", "plain", "rows"), node("Cast", "rows", to=FLOAT))),
        network(body=appended(node("SequenceConstruct", "plain", "s"), node("SequenceLength", "s"))),
        network(
            outputs={"logits": (FLOAT, ["N", 2]), "features": (FLOAT, None)},
            body=lambda nodes: nodes.append(node("Identity", "pooled", "features")),
        ),
        network(
            outputs={"logits": (FLOAT, ["N", 2]), "features": (DOUBLE, None)},
            body=lambda nodes: nodes.append(node("Cast", "means", "features", to=DOUBLE)),
        ),
        network(
            outputs={"logits": (FLOAT, ["N", 2]), "features": (FLOAT, None)},
            body=lambda nodes: nodes.append(node("ReduceSum", "means", "features", keepdims=0)),
        ),
        network(
            body=lambda nodes: (
                nodes.insert(2, constant(np.zeros((5, 2), np.float32), "five")),
                renamed("weights", "five")(nodes[3:]),
            )
        ),
    ],
)
def test_a_graph_that_contradicts_its_record_is_one_sentence_at_load(tmp_path: Path, model: Any) -> None:
    path = stored(tmp_path, model)
    with pytest.raises(ModelUnavailableError) as caught:
        load_model(path, threads=1)
    assert isinstance(caught.value, ContractError) or "cannot load the network" in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


REFERENCE = load_model("realbogus", threads=1).record.reference


@pytest.mark.parametrize(
    "change",
    [
        {"classes": ("bogus", "star", "galaxy")},
        {"contract": InputContract(size=31)},
        {"calibration": {"temperature": 1.0, "bias": [0.0, 0.0, 0.0]}},
        {"calibration": {"temperature": 1.0, "bias": "none"}},
        {"calibration": {"temperature": 1.0, "bias": [[0.0, 0.0]] * 5}},
        {"calibration": {"temperature": 1.0, "bias": {"real": 1}}},
        {"reference": {"n": 100}},
        {"reference": {**REFERENCE, "thresholds": {}}},
        {"reference": {**REFERENCE, "correlation": [[1.0, 0.0], [0.0, 1.0]]}},
        {"reference": {**REFERENCE, "inputs": {"noise_science": [1, 2, 3]}}},
        {"reference": {**REFERENCE, "correlation": [[0.0] * 24] * 24}},
    ],
)
def test_a_record_that_contradicts_its_network_is_one_sentence_at_load(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    path = stored(tmp_path, network(inputs=None), dataclasses.replace(RECORD, **change))
    with pytest.raises(ContractError) as caught:
        load_model(path, threads=1)
    assert str(path) in str(caught.value)


def test_the_made_up_network_is_good_where_nothing_contradicts(tmp_path: Path) -> None:
    model = load_model(stored(tmp_path, network(outputs=GOOD)), threads=1)
    assert model.predict(np.random.default_rng(0).normal(size=(5, 3, 63, 63))).probabilities.shape == (5, 2)


def test_a_network_that_gives_nan_refuses_the_row_and_says_so(tmp_path: Path) -> None:
    # The square root of a negative mean is NaN; the neighbour's is not.
    root = appended(node("Sqrt", "plain"))
    model = load_model(stored(tmp_path, network(body=root)), threads=1)
    rng = np.random.default_rng(0)
    stamps = rng.normal(size=(2, 3, 63, 63))
    stamps[0, :2, :20] += 30
    stamps[1, :2, :20] -= 30
    night = model.predict([Triplet(*stamp, fwhm=2.0) for stamp in stamps])
    unusable = (night.quality & QualityFlag.UNUSABLE) != 0
    assert np.isnan(night.probabilities).any(axis=1).tolist() == unusable.tolist() == [False, True]
    assert night.quality[1] & QualityFlag.FAILED
    assert "tiny@1.0.0" in night.errors[1]
    assert night.labels[1] == ""


@pytest.mark.parametrize("name", ["realbogus", "3class", "4class"])
def test_hostile_numbers_give_a_probability_or_a_flag(name: str) -> None:
    model = load_model(name, threads=1)
    rng = np.random.default_rng(0)
    sky = rng.normal(size=(3, 63, 63))
    stamps: list[Any] = []
    for power in (-310, -45, -42, -40, -39, -38, -37, -30, -10, 10, 25, 29):
        scaled = sky * 10.0**power
        hot = scaled.copy()
        hot[:, 31, 31] = 9e29
        stamps += [scaled, scaled.astype(np.float32), hot, -hot, hot.astype(np.float32)]
    for kind in ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8"):
        limits = np.iinfo(kind)
        stamps.append(rng.integers(limits.min, limits.max, (3, 63, 63), dtype=kind, endpoint=True))
    stamps += [np.full((3, 63, 63), value) for value in (0.0, 1e-320, 1e29, -5.0)]
    night = model.predict([Triplet(*stamp) for stamp in stamps])
    unusable = (night.quality & QualityFlag.UNUSABLE) != 0
    assert (np.isnan(night.probabilities).all(axis=1) == unusable).all()
    assert (np.isfinite(night.probabilities).all(axis=1) == ~unusable).all()
    assert unusable.any()
    assert not unusable.all()


def test_arrays_and_triplets_get_the_same_answers() -> None:
    model = load_model("4class", threads=1)
    stamps = np.random.default_rng(2).normal(size=(3, 3, 63, 63)).astype(np.float32)
    one = model.predict(stamps, batch_size=2)
    other = model.predict([Triplet(*stamp) for stamp in stamps])
    np.testing.assert_array_equal(one.probabilities, other.probabilities)
    assert len(model.predict(stamps[0])) == 1
    with pytest.raises(UsageError, match="shape"):
        model.predict(stamps[0, 0])
    with pytest.raises(UsageError, match="batch_size"):
        model.predict(stamps, batch_size=0)


def test_reprs_are_short() -> None:
    model = load_model("realbogus", threads=1)
    assert repr(model).startswith("<Classifier realbogus@")
    assert len(repr(model)) <= 80
    assert len(repr(model.record)) <= 80
    assert len(repr(model.contract)) <= 4 * 80


@pytest.mark.parametrize("name", ["realbogus", "3class", "4class"])
def test_a_record_s_summary_fits_one_screen(name: str) -> None:
    record = load_model(name, threads=1).record
    lines = record.summary().splitlines()
    assert len(lines) <= 23
    assert max(map(len, lines)) <= 80
    for said in (record.id, *record.classes, record.licence, record.sha256[:8], "arcsec"):
        assert said in record.summary()


@pytest.mark.parametrize("device", ["tpu", "cuda"])
def test_a_device_that_is_not_here_is_named(device: str) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime has a GPU here")
    with pytest.raises(UsageError, match=device):
        load_model("realbogus", device=device)


def test_explaining_shows_where_the_source_is() -> None:
    model = load_model("realbogus", threads=1)
    y, x = np.indices((63, 63)) - 31
    star = 100 * np.exp(-(x**2 + y**2) / 3)
    sky = np.random.default_rng(1).normal(size=(3, 63, 63))
    triplet = Triplet(sky[0] + star, sky[1], sky[2] + star, fwhm=2.4)
    explanation = model.explain(triplet, "real")
    centre = np.abs(explanation.importance[27:36, 27:36]).mean()
    assert centre > 5 * np.abs(explanation.importance[:9, :9]).mean()
    assert explanation.probability == pytest.approx(model.predict([triplet]).probabilities[0, 1])
    with pytest.raises(UsageError, match="no class 'star'"):
        model.explain(triplet, "star")
    with pytest.raises(ReadError, match="cannot be explained"):
        model.explain(Triplet(np.zeros((63, 63))))


def test_a_classifier_says_what_it_wants() -> None:
    model = load_model("3class", threads=1)
    assert isinstance(model, Classifier)
    assert model.classes == ("hosted", "variable", "orphan")
    assert model.contract.size == 63
    assert model.device == "cpu"
