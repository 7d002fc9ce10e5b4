"""The network: its symmetry, its written-out form, and the ONNX file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from transientnet import InputContract, ModelRecord, load_model  # noqa: E402
from transientnet.errors import ContractError  # noqa: E402
from transientnet.transfer.export import PARITY, export_onnx, load_network, rewrite_onnx  # noqa: E402
from transientnet.transfer.network import NetworkConfig, StampNetwork  # noqa: E402

CLASSES = ("bogus", "real")


@pytest.fixture(scope="module")
def network() -> StampNetwork:
    """Random weights, and batch statistics that are not the initial ones."""
    torch.manual_seed(0)
    made = StampNetwork({"realbogus": 2}, NetworkConfig((1, 1, 2, 2), (4, 4, 8, 8), (1, 1, 1), 16))
    made.train()
    for _ in range(3):
        made(3 * torch.randn(16, 3, 63, 63) + 1)
    return made.eval()


@pytest.fixture(scope="module")
def exported(network: StampNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network as an ONNX file."""
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    assert export_onnx(network, "realbogus", record(network), path) <= PARITY
    return path


def record(network: StampNetwork) -> ModelRecord:
    return ModelRecord("realbogus", "0.0.1", CLASSES, InputContract(), network=network.config.to_dict())


@pytest.mark.parametrize("turn", range(1, 8))
def test_turns_and_flips_do_not_change_the_answer(network: StampNetwork, turn: int) -> None:
    x = 3 * torch.randn(4, 3, 63, 63)
    turned = torch.rot90(x, turn % 4, (2, 3))
    turned = turned.flip(3) if turn >= 4 else turned
    with torch.inference_mode():
        torch.testing.assert_close(
            network(turned)["realbogus"], network(x)["realbogus"], atol=1e-4, rtol=1e-4
        )


def test_a_shift_does_change_the_features(network: StampNetwork) -> None:
    # The symmetry must not come from a network that sees nothing.
    x = 3 * torch.randn(4, 3, 63, 63)
    with torch.inference_mode():
        assert (network.embedding(x) - network.embedding(x.roll(5, 2))).abs().max() > 1e-3


def test_written_out_network_says_the_same_and_has_no_batch_statistics(network: StampNetwork) -> None:
    plain = network.written_out()
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in plain.modules())
    x = 3 * torch.randn(4, 3, 63, 63)
    with torch.inference_mode():
        torch.testing.assert_close(plain(x)["realbogus"], network(x)["realbogus"], atol=1e-4, rtol=1e-4)


def test_onnx_file_holds_the_network_and_the_record(network: StampNetwork, exported: Path) -> None:
    again = load_network(exported, record(network), {"realbogus": 2}).eval()
    x = 3 * torch.randn(4, 3, 63, 63)
    with torch.inference_mode():
        expected = network(x)["realbogus"]
        torch.testing.assert_close(again(x)["realbogus"], expected, atol=1e-4, rtol=1e-4)
    classifier = load_model(exported)
    assert classifier.record.to_metadata() == record(network).to_metadata()
    np.testing.assert_allclose(classifier.run(x.numpy())[0], expected.numpy(), atol=1e-4)


def test_a_new_head_keeps_the_trunk(network: StampNetwork, exported: Path) -> None:
    other = load_network(exported, record(network), {"survey": 5}).eval()
    x = 3 * torch.randn(2, 3, 63, 63)
    with torch.inference_mode():
        torch.testing.assert_close(other.embedding(x), network.embedding(x), atol=1e-4, rtol=1e-4)
        assert other(x)["survey"].shape == (2, 5)


def test_new_weights_and_classes_go_into_the_graph_of_the_base(
    network: StampNetwork, exported: Path, tmp_path: Path
) -> None:
    other = load_network(exported, record(network), {"survey": 3})
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.1)
    own = ModelRecord(
        "own", "1.0.0", ("a", "b", "c"), InputContract(), network=record(network).network, parent="realbogus"
    )
    assert rewrite_onnx(exported, other, "survey", own, tmp_path / "own.onnx") <= PARITY
    classifier = load_model(tmp_path / "own.onnx")
    assert classifier.record.to_metadata() == own.to_metadata()
    x = 3 * torch.randn(3, 3, 63, 63)
    with torch.inference_mode():
        expected = other.eval()(x)["survey"].numpy()
    np.testing.assert_allclose(classifier.run(x.numpy())[0], expected, atol=1e-4, rtol=1e-4)
    # And what was written can be adapted again.
    again = load_network(tmp_path / "own.onnx", own, {"realbogus": 3}).eval()
    with torch.inference_mode():
        np.testing.assert_allclose(again(x)["realbogus"].numpy(), expected, atol=1e-4, rtol=1e-4)


def test_a_record_of_another_shape_is_refused(exported: Path) -> None:
    wider = ModelRecord("realbogus", "0.0.1", CLASSES, InputContract(), network=NetworkConfig().to_dict())
    with pytest.raises(ContractError, match="do not fit"):
        load_network(exported, wider, {"realbogus": 2})
    foreign = ModelRecord("realbogus", "0.0.1", CLASSES, InputContract())
    with pytest.raises(ContractError, match="not a network of this package"):
        load_network(exported, foreign, {"realbogus": 2})
