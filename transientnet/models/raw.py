"""The raw model: one ONNX file from raw stamps to answers, for any language with an ONNX runtime.

Its graph is made from the contract, the calibration and the network of a model; the Python path
(`preprocess` and `Classifier`) is the truth that every such file is verified against before it is kept.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ContractError, ModelIntegrityError, ModelUnavailableError
from ..files.atomic import write_atomically
from ..settings import get_settings
from ..triplet import QualityFlag
from .classifier import Classifier
from .raw_graph import Graph, Value, onnx_package
from .raw_outliers import out_of_distribution
from .raw_parity import Inputs, as_inputs, hard_stamps, verify_raw
from .raw_prepare import prepared
from .record import METADATA_KEY, ModelRecord
from .registry.cache import Cache
from .registry.fetch import disk_errors
from .registry.resolve import Found, find, resolve, verified_files
from .vectors import stored_triplets

if TYPE_CHECKING:
    import onnx

__all__ = ["CLASSES_KEY", "FLAGS_KEY", "HARD_STAMPS", "MAX_OPSET", "raw_model", "raw_path", "vector_inputs"]

MAX_OPSET = 21
"""Newest operators that a raw model may hold: what runtimes of 2024 know."""

CLASSES_KEY = "transientnet_classes"
"""Name of the ONNX metadata property that holds the class names, one a line."""

FLAGS_KEY = "transientnet_quality_flags"
"""Name of the ONNX metadata property that holds names and bits of the quality flags as JSON."""

HARD_STAMPS = 352
"""Simulated stamps that a raw model must answer like the Python path before it is kept."""

_MIN_OPSET, _MAX_IR = 18, 10
_NETWORK = "network/"


def raw_model(network: str | Path, record: ModelRecord) -> onnx.ModelProto:
    """Make the raw model of a network.

    Parameters
    ----------
    network : path
        The model's ONNX file: takes ``triplet``, gives ``logits``.
    record : ModelRecord
        Its contract, calibration and reference statistics.

    Returns
    -------
    onnx.ModelProto
        Inputs ``stamps`` (N, 3, H, W) and ``fwhm`` (N,), both float32; outputs ``probabilities`` (N, K)
        float32 and ``quality`` (N,) int32.

    Raises
    ------
    MissingDependencyError
        Without the ``raw`` extra.
    ContractError
        If the network is of an opset that cannot be brought into the range of raw models.
    """
    package = onnx_package()
    graph = Graph()
    stamps = graph.input("stamps", np.float32, ["n", 3, "h", "w"])
    fwhm = graph.input("fwhm", np.float32, ["n"])
    tensor, flags = prepared(stamps, fwhm, record.contract)
    usable = flags.usable()
    model = _network(network)
    logits, oddity, weights = _append(graph, model, tensor)
    if oddity is not None and "oddity" in record.reference:
        foreign = oddity.cast(np.float64).sum(1) > float(record.reference["oddity"]["threshold"])
        flags.mark(usable & foreign, QualityFlag.OUT_OF_DISTRIBUTION)
    elif record.reference:
        absent = (flags[QualityFlag.MISSING_REFERENCE], flags[QualityFlag.MISSING_DIFFERENCE])
        foreign = out_of_distribution(tensor, *absent, record.contract.size, record.reference)
        flags.mark(usable & foreign, QualityFlag.OUT_OF_DISTRIBUTION)
    bias = np.asarray(record.calibration.get("bias", 0.0), np.float32)
    probabilities = (logits / record.temperature + graph.lift(bias, np.float32)).call("Softmax", axis=1)
    graph.output("probabilities", usable.expand(1).where(probabilities, np.nan), ["n", len(record.classes)])
    graph.output("quality", flags.total(), ["n"])

    whole = package.helper.make_graph(
        graph.nodes, record.name, graph.inputs, graph.outputs, [*graph.constants, *weights]
    )
    made: onnx.ModelProto = package.helper.make_model(
        whole,
        opset_imports=list(model.opset_import),
        ir_version=min(model.ir_version, _MAX_IR),
        producer_name="transientnet",
        doc_string=record.description,
    )
    package.helper.set_model_props(
        made,
        {
            METADATA_KEY: record.to_metadata(),
            CLASSES_KEY: "\n".join(record.classes),
            FLAGS_KEY: json.dumps({flag.name: int(flag) for flag in QualityFlag if flag.name}),
        },
    )
    package.checker.check_model(made, full_check=True)
    return made


def _network(path: str | Path) -> onnx.ModelProto:
    package = onnx_package()
    model: onnx.ModelProto = package.load_model_from_string(Path(path).read_bytes())
    opset = next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), 0)
    if not _MIN_OPSET <= opset <= MAX_OPSET:
        try:
            model = package.version_converter.convert_version(model, min(max(opset, _MIN_OPSET), MAX_OPSET))
        except Exception as error:  # onnx raises bare classes of its own
            raise ContractError(
                f"{path}: opset {opset} cannot be brought to {_MIN_OPSET} to {MAX_OPSET} ({error}); "
                "export the network anew"
            ) from error
    prefixed: onnx.ModelProto = package.compose.add_prefix(model, _NETWORK)
    return prefixed


def _append(graph: Graph, model: onnx.ModelProto, tensor: Value) -> tuple[Value, Value | None, list[Any]]:
    """Put the network behind the tensor; gives its logits, its oddity where it has one, and its weights."""
    helper = onnx_package().helper
    graph.nodes.append(helper.make_node("Identity", [tensor.name], [_NETWORK + "triplet"]))
    graph.nodes.extend(model.graph.node)
    logits, oddity = (Value(graph, _NETWORK + name, np.float32) for name in ("logits", "oddity"))
    given = {output.name for output in model.graph.output}
    return logits, oddity if oddity.name in given else None, list(model.graph.initializer)


def raw_path(name_or_path: str | Path, *, offline: bool | None = None) -> Path:
    """The file of a model's raw model; made and verified on first use, then kept in the cache.

    Parameters
    ----------
    name_or_path : str or Path
        As in `load_model`.
    offline : bool, optional
        Open no socket; by default as the environment says.

    Raises
    ------
    MissingDependencyError
        Without the ``raw`` extra, where the file is not made yet.
    ModelIntegrityError
        If the raw model answers otherwise than the Python path.
    ModelNotFoundError, ModelUnavailableError, ContractError
    """
    found = find(name_or_path, offline=offline)
    network, record = resolve(name_or_path, offline=offline)
    data = network.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    folder = get_settings().cache_dir
    beside = Cache(folder).model(replace(record, sha256=digest))
    # The model's own stem, so that `models remove` takes it along; the key changes with the code.
    path = beside.with_name(f"{beside.stem}.raw-{_key(data)}.onnx")
    if not path.is_file():
        made = raw_model(network, record).SerializeToString(deterministic=True)
        classifier = Classifier(network, record, device="cpu")
        verify_raw(made, classifier, chain(vector_inputs(found), hard_stamps(HARD_STAMPS)))
        with disk_errors(folder):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, made)
    return path


def vector_inputs(found: Found) -> list[Inputs]:
    """The test vectors of a model; none where they are not on this machine."""
    try:
        _, vectors = verified_files(found)
    except ModelUnavailableError as error:
        # Without them on this machine the simulated stamps must do; damaged ones are an error.
        if isinstance(error, ModelIntegrityError):
            raise
        vectors = None
    return as_inputs(stored_triplets(vectors)) if vectors else []


def _key(network: bytes) -> str:
    """Hash of all that a raw model is made from: the network's file and the code."""
    here = Path(__file__).parent
    sources = [
        *sorted(here.glob("raw*.py")),
        here / "outliers.py",
        *sorted((here.parent / "prepare").glob("*.py")),
    ]
    digest = hashlib.sha256(network)
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]
