"""Write a trained network as an ONNX file with its record inside, and prove that the two agree."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from ..errors import ContractError
from ..models.record import METADATA_KEY, ModelRecord
from ..models.runtime import onnx_runtime
from .network import NetworkConfig, StampNetwork

__all__ = ["OPSET", "PARITY", "SIDES", "export_onnx", "load_network", "rewrite_onnx"]

OPSET = 18
PARITY = 1e-4
"""Largest difference of a logit between torch and ONNX that is accepted, relative to logits above 1."""


_REGISTRY_LOG = logging.getLogger("torch.onnx._internal.exporter._registration")


def _of_use(record: logging.LogRecord) -> bool:
    """Torch names operators of torchvision that it cannot export without it; this network has none."""
    return not record.getMessage().startswith("torchvision is not installed")


_KINDS, _INPUT = SIDES = ("kinds", "input")
"""Heads that a network may carry beside its classes: which kind of bogus, and sound or broken input."""


class _Shipped(nn.Module):
    """One head, the features and what the side heads say, in the order of the ONNX outputs."""

    def __init__(self, network: StampNetwork, head: str):
        super().__init__()
        self.network, self.head = network, head
        heads = network.heads
        self.outputs = ["logits", "features", *(["kinds"] if _KINDS in heads else [])]
        self.outputs += ["oddity"] if _INPUT in heads else []

    def forward(self, triplet: Tensor) -> tuple[Tensor, ...]:
        features = self.network.embedding(triplet)
        answers = [self.network.heads[self.head](features), features]
        if "kinds" in self.outputs:
            answers.append(self.network.heads[_KINDS](features))
        if "oddity" in self.outputs:
            sound, broken = self.network.heads[_INPUT](features).split(1, dim=1)
            answers.append(broken - sound)
        return tuple(answers)


def export_onnx(network: StampNetwork, head: str, record: ModelRecord, path: Path) -> float:
    """Write one head of a network to `path`, its record in the metadata.

    Parameters
    ----------
    network : StampNetwork
        Its batch statistics are folded into the weights of a copy.
    head : str
    record : ModelRecord
        Its `network` field must hold the network's configuration.
    path : Path

    Returns
    -------
    float
        Largest difference of a logit between torch and onnxruntime, on two batch sizes, relative to
        the largest logit where that exceeds 1.

    Raises
    ------
    ContractError
        If that difference exceeds `PARITY`.
    """
    size = record.contract.size
    shipped = _Shipped(network.written_out(), head).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _REGISTRY_LOG.addFilter(_of_use)
        program = torch.onnx.export(
            shipped,
            (torch.zeros(2, 3, size, size),),
            dynamo=True,
            external_data=False,
            opset_version=OPSET,
            input_names=["triplet"],
            output_names=shipped.outputs,
            dynamic_shapes=({0: torch.export.Dim("n")},),
            verbose=False,
        )
    model = cast(torch.onnx.ONNXProgram, program).model_proto
    # Names of the machine's files and of torch's modules are no one's business.
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del model.graph.metadata_props[:], model.metadata_props[:]
    model.producer_name, model.producer_version = "transientnet", ""
    return _write(model, record, shipped, path)


def rewrite_onnx(base: Path, network: StampNetwork, head: str, record: ModelRecord, path: Path) -> float:
    """Write one head of a network into the graph of the file that it was loaded from.

    What `export_onnx` does, without tracing the network anew, which takes longer than a small
    adaptation. Side outputs whose heads the network lacks are left out.

    Parameters
    ----------
    base : Path
        An ONNX file that `export_onnx` wrote, of a network of the same configuration.
    network, head, record, path
        As for `export_onnx`.

    Returns
    -------
    float
        As of `export_onnx`.

    Raises
    ------
    ContractError
        If torch and ONNX differ by more than `PARITY`.
    """
    shipped = _Shipped(network.written_out(), head).eval()
    weights = dict(shipped.named_parameters())
    model = onnx.load(str(base), load_external_data=False)
    _keep_outputs(model.graph, shipped.outputs)
    for item in model.graph.initializer:
        parts = item.name.split(".")
        main = "heads" in parts and parts[-2] not in SIDES
        name = ".".join(["network", "heads", head, parts[-1]]) if main else item.name
        if name in weights:
            item.CopyFrom(numpy_helper.from_array(weights[name].detach().numpy(), item.name))
    logits = next(output for output in model.graph.output if output.name == "logits")
    logits.type.tensor_type.shape.dim[1].dim_value = len(record.classes)
    return _write(model, record, shipped, path)


def _keep_outputs(graph: onnx.GraphProto, names: list[str]) -> None:
    """Drop every other output of a graph, and what only it needs."""
    for output in [output for output in graph.output if output.name not in names]:
        graph.output.remove(output)
    while True:
        needed = {output.name for output in graph.output} | {
            name for node in graph.node for name in node.input
        }
        unused = [node for node in graph.node if not needed & set(node.output)]
        for node in unused:
            graph.node.remove(node)
        if not unused:
            break
    for item in [item for item in graph.initializer if item.name not in needed]:
        graph.initializer.remove(item)


def _write(model: onnx.ModelProto, record: ModelRecord, shipped: nn.Module, path: Path) -> float:
    del model.graph.value_info[:]
    onnx.helper.set_model_props(model, {METADATA_KEY: record.to_metadata()})
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return _parity(shipped, path, record.contract.size)


def _parity(shipped: nn.Module, path: Path, size: int) -> float:
    ort = onnx_runtime()

    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst = 0.0
    generator = torch.Generator().manual_seed(0)
    for batch in (1, 7):
        x = 3 * torch.randn(batch, 3, size, size, generator=generator)
        with torch.inference_mode():
            expected = shipped(x)[0].numpy()
        found = session.run(["logits"], {"triplet": x.numpy()})[0]
        # Large logits have fewer digits behind the point.
        worst = max(worst, float(np.abs(found - expected).max() / max(1.0, float(np.abs(expected).max()))))
    if not worst <= PARITY:
        raise ContractError(
            f"{path}: torch and ONNX differ by {worst:.2e} in a logit, more than {PARITY:.0e}"
        )
    return worst


def load_network(path: Path, record: ModelRecord, heads: dict[str, int]) -> StampNetwork:
    """Rebuild the trainable network from an ONNX file that `export_onnx` wrote.

    Heads of the same size as the file's are filled from it; others start fresh.

    Parameters
    ----------
    path : Path
    record : ModelRecord
        Its `network` field holds the network's configuration.
    heads : dict of str to int
        Name and number of classes of each head.

    Returns
    -------
    StampNetwork
        Without batch statistics.

    Raises
    ------
    ContractError
        If the file's network is not this package's.
    """
    if "oriented" not in record.network:
        raise ContractError(
            f"{path}: {record.id} is not a network of this package; only those can be adapted"
        )
    network = StampNetwork(heads, NetworkConfig.from_dict(dict(record.network))).fold()
    prefix = "network."
    weights = {
        item.name.removeprefix(prefix): torch.from_numpy(numpy_helper.to_array(item).copy())
        for item in onnx.load(str(path), load_external_data=False).graph.initializer
    }
    try:
        network.read_written_out(weights)
    except (KeyError, RuntimeError) as error:
        raise ContractError(
            f"{path}: its weights do not fit the network that its record declares ({error})"
        ) from error
    return network
