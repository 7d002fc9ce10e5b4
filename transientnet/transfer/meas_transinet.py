"""A model for Rubin's meas_transiNet: its package of an architecture file, a checkpoint and a meta file.

The architecture walks the operators of the raw model (`transientnet.models.raw`), so preprocessing, policy
and calibration are those of every other way to score; torch is all that it needs. Interfaces as of
lsst/meas_transiNet in January 2025: ``RBTransiNetInterface.infer`` feeds ``(N, 3, H, W)`` float32 batches of
difference, science and template, and takes what ``forward`` gives as the score.
"""

from __future__ import annotations

import importlib.util
import io
import json
import tempfile
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ..errors import ContractError, ModelIntegrityError, UsageError
from ..evaluation.completeness import real_column
from ..files.atomic import write_atomically
from ..models.classifier import Classifier
from ..models.raw import raw_model, vector_inputs
from ..models.raw_graph import onnx_package
from ..models.raw_parity import TOLERANCE, Inputs, as_triplets, hard_stamps
from ..models.registry.resolve import find, resolve

__all__ = ["FILES", "export_meas_transinet"]

FILES = ("architecture.py", "checkpoint.pt", "meta.yaml")
"""Names of the package's files: one each of what the storage adapters look for."""

_SOURCE = Path(__file__).with_name("meas_transinet_arch.py")
_GRAPH = "GRAPH = json.loads("
_HARD_STAMPS, _BATCH = 176, 16


def export_meas_transinet(name: str | Path, folder: Path, *, offline: bool | None = None) -> float:
    """Write a model as a package that meas_transiNet loads in its ``local`` and ``neighbor`` modes.

    Parameters
    ----------
    name : str or Path
        As in `load_model`.
    folder : Path
        The package: ``model_packages/NAME`` of meas_transiNet or rbClassifier_data.
    offline : bool, optional
        As in `load_model`.

    Returns
    -------
    float
        Largest difference of p(real) between the package and `Classifier.predict`, over the model's test
        vectors and simulated stamps.

    Raises
    ------
    UsageError
        The model knows neither ``real`` nor ``bogus``, or the folder holds other files.
    ContractError
        The network has an operator that the architecture file does not know.
    ModelIntegrityError
        The package answers otherwise than the Python path.
    MissingDependencyError, ModelUnavailableError
    """
    _check_folder(folder)
    found = find(name, offline=offline)
    path, record = resolve(name, offline=offline)
    classifier = Classifier(path, record, device="cpu")
    # Probabilities add up to one: p(real) is a sum over classes.
    share = real_column(classifier)(np.eye(len(record.classes))).astype(np.float32)[:, None]
    graph, tensors = _graph(raw_model(path, record), share)
    source = _SOURCE.read_text(encoding="utf-8").splitlines(keepends=True)
    place = next(number for number, line in enumerate(source) if line.startswith(_GRAPH))
    source[place] = f"{_GRAPH}{json.dumps(graph, separators=(',', ':'))!r})  # noqa: E501\n"
    weights = io.BytesIO()
    state = {f"t{number}": torch.from_numpy(array) for number, array in enumerate(tensors)}
    torch.save({"model_state_dict": state}, weights)
    size = record.contract.size
    # JSON is YAML.
    meta = {
        "version": record.version,
        "description": f"{record.id} of transientnet: calibrated probability that a candidate is real",
        "input_shape": [size, size, 3],
        "input_scale_factor": [1.0, 1.0, 1.0],
        "model": record.id,
        "sha256": record.sha256,
        "licence": record.licence,
    }
    contents = dict(
        zip(FILES, ("".join(source), weights.getvalue(), json.dumps(meta, indent=2) + "\n"), strict=True)
    )
    with tempfile.TemporaryDirectory() as temporary:
        _write(Path(temporary), contents)
        model = _load(Path(temporary))
    batches = chain(vector_inputs(found), hard_stamps(_HARD_STAMPS, batch=_BATCH))
    worst = _verify(model, classifier, batches)
    _write(folder, contents)
    return worst


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; name a folder with -o")
    others = sorted({path.name for path in folder.iterdir()} - {*FILES}) if folder.exists() else []
    if others:
        raise UsageError(
            f"{folder} holds other files ({', '.join(others[:3])}); name an empty folder with -o"
        )


def _write(folder: Path, contents: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_atomically(folder / name, content)


def _graph(model: Any, share: npt.NDArray[np.float32]) -> tuple[dict[str, Any], list[npt.NDArray[Any]]]:
    """Nodes that lead to p(real), by numbers: constants come first, then the inputs, then what nodes give."""
    onnx = onnx_package()
    constants = {item.name: onnx.numpy_helper.to_array(item) for item in model.graph.initializer}
    nodes = []
    needed = {"probabilities"}
    for node in reversed(model.graph.node):
        if node.op_type == "Constant":
            constants[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
        elif needed & set(node.output):
            needed |= set(node.input)
            nodes.append(node)
    constants = {name: array for name, array in constants.items() if name in needed} | {"share": share}
    names = [
        *constants,
        "stamps",
        "fwhm",
        *(name for node in reversed(nodes) for name in node.output),
        "score",
    ]
    numbers = {"": -1} | {name: number for number, name in enumerate(names)}
    rows = [
        [node.op_type, [numbers[n] for n in node.input], [numbers[n] for n in node.output], _attributes(node)]
        for node in reversed(nodes)
    ]
    rows.append(["MatMul", [numbers["probabilities"], numbers["share"]], [numbers["score"]], {}])
    known = _operators()
    if unknown := sorted({row[0] for row in rows} - known):
        raise ContractError(f"meas_transiNet packages have no operator {', '.join(unknown)}")
    tensors = [np.array(array) for array in constants.values()]
    graph = {
        "tensors": [[array.dtype.name, list(array.shape)] for array in tensors],
        "nodes": rows,
        **{name: numbers[name] for name in ("stamps", "fwhm", "score")},
    }
    return graph, tensors


def _operators() -> set[str]:
    from .meas_transinet_arch import OPERATORS

    return set(OPERATORS)


def _attributes(node: Any) -> dict[str, Any]:
    helper = onnx_package().helper
    found = {}
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        if attribute.name == "to":
            value = helper.tensor_dtype_to_np_dtype(value).name
        found[attribute.name] = value.decode() if isinstance(value, bytes) else value
        if not isinstance(value, (bytes, str, int, float)):
            found[attribute.name] = list(value)
    return found


def _load(folder: Path) -> nn.Module:
    """The model of a package, as meas_transiNet loads it."""
    architecture, checkpoint, _ = (folder / name for name in FILES)
    spec = importlib.util.spec_from_file_location("model", architecture)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (kind,) = module.__all__
    model: nn.Module = getattr(module, kind)()
    weights = torch.load(checkpoint, map_location="cpu", weights_only=True)
    model.load_state_dict(weights["model_state_dict"], strict=True)
    return model.eval()


def _verify(model: nn.Module, classifier: Classifier, batches: Iterable[Inputs]) -> float:
    """Largest difference of p(real); refuses a package that differs from its classifier."""
    real, worst = real_column(classifier), 0.0
    for stamps, _ in batches:
        expected = real(
            classifier.predict(as_triplets(Inputs(stamps, np.zeros(len(stamps), np.float32)))).probabilities
        )
        with torch.no_grad():
            given = model(torch.from_numpy(np.ascontiguousarray(stamps[:, [2, 0, 1]]))).numpy()[:, 0]
        same = np.isnan(given) == np.isnan(expected)
        difference = np.where(same, np.abs(np.nan_to_num(given - expected)), np.inf)
        worst = max(worst, float(difference.max(initial=0.0)))
        if worst > TOLERANCE:
            row = int(difference.argmax())
            raise ModelIntegrityError(
                f"the package of {classifier.record.id} differs from the Python path: stamps of shape "
                f"{stamps.shape[2:]}, row {row}: {given[row]} instead of {expected[row]}"
            )
    return worst
