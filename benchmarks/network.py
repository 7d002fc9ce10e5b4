"""What the network itself costs, by operator, and what int8 would save and change.

    python benchmarks/network.py DATA [--model realbogus] [--rounds 15]

DATA is the folder of survey sets (``ztf``, ``decam``, ``rubin``: ``stamps.npz`` and ``labels.csv`` with a
column ``vetted``). Core time per stamp, one thread, batches of 64, medians of rounds in which the variants
take turns: the file as it is; with its hyperbolic sine written as one exponential, as `StampNetwork` has it
since 0.2.0; with the convolutions in int8 (static, weights per channel), calibrated on simulated stamps. Of
each, the largest and mean change of a probability and the area under the curve on inspected rows.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from night import median, timed
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static

from training_reference.simulator import ZTF_LIKE, simulate
from transientnet import load_model
from transientnet.evaluation.metrics import roc_auc
from transientnet.models.raw_parity import Inputs, as_triplets
from transientnet.prepare.preprocess import preprocess

BATCH, TIMED, CALIBRATION = 64, 512, 768


def prepared(stamps: np.ndarray, fwhm: float, contract: Any) -> tuple[np.ndarray, np.ndarray]:
    """Normalised stamps and which rows they are."""
    inputs = Inputs(stamps.astype(np.float32), np.full(len(stamps), fwhm, np.float32))
    found = preprocess(as_triplets(inputs), contract)
    return found.tensor[found.usable], np.flatnonzero(found.usable)


def one_exponential(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network without the operator Sinh."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    nodes = []
    for node in made.graph.node:
        if node.op_type != "Sinh":
            nodes.append(node)
            continue
        (x,), (y,) = node.input, node.output
        made.graph.initializer.append(numpy_helper.from_array(np.float32(0.5), f"{y}_half"))
        for kind, inputs, output in (
            ("Exp", [x], f"{y}_grown"),
            ("Reciprocal", [f"{y}_grown"], f"{y}_shrunk"),
            ("Sub", [f"{y}_grown", f"{y}_shrunk"], f"{y}_twice"),
            ("Mul", [f"{y}_twice", f"{y}_half"], y),
        ):
            nodes.append(helper.make_node(kind, inputs, [output], name=f"{output}_{kind}"))
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    return made


class Stamps(CalibrationDataReader):
    """Batches for the calibration."""

    def __init__(self, tensor: np.ndarray) -> None:
        self._batches = iter([{"triplet": tensor[i : i + BATCH]} for i in range(0, len(tensor), BATCH)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


def open_session(model: bytes, profile: str | None = None) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def by_operator(model: bytes, tensor: np.ndarray, folder: Path) -> dict[str, float]:
    """Share of the network's time in each kind of operator, in percent."""
    session = open_session(model, str(folder / "profile"))
    for _ in range(20):
        session.run(["logits"], {"triplet": tensor[:BATCH]})
    spent: dict[str, float] = defaultdict(float)
    for event in json.loads(Path(session.end_profiling()).read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("kernel_time"):
            spent[event["args"]["op_name"]] += event["dur"]
    total = sum(spent.values())
    return {
        name: round(100 * part / total, 1) for name, part in sorted(spent.items(), key=lambda p: -p[1])[:8]
    }


def inspected(folder: Path, contract: Any) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, tensor and truth (1 real, 0 bogus) of the inspected rows of each set."""
    for name, fwhm in (("ztf", 2.0), ("decam", 0.0), ("rubin", 0.0)):
        if not (folder / name / "labels.csv").is_file():
            continue
        with open(folder / name / "labels.csv", newline="") as stream:
            words = [row["vetted"] for row in csv.DictReader(stream)]
        rows = np.array([i for i, word in enumerate(words) if word in ("real", "bogus")])
        tensor, usable = prepared(np.load(folder / name / "stamps.npz")["triplets"][rows], fwhm, contract)
        yield name, tensor, np.array([words[i] == "real" for i in rows[usable]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="realbogus")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    classifier = load_model(options.model, threads=1)
    contract = classifier.contract
    drawn = simulate(CALIBRATION, 7, telescope=ZTF_LIKE).triplets
    calibration, _ = prepared(drawn, 2.0, contract)
    sets = list(inspected(options.data, contract))
    tensor = sets[0][1][:TIMED]
    model = onnx.load(str(classifier.path))
    plain = one_exponential(model)
    files = {"as it is": model.SerializeToString(), "one exponential": plain.SerializeToString()}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        onnx.save(plain, folder / "plain.onnx")
        convolutions = [node.name for node in plain.graph.node if node.op_type == "Conv"]
        for method in (CalibrationMethod.MinMax, CalibrationMethod.Percentile):
            for name, chosen in (("all", convolutions), ("all but the first", convolutions[1:])):
                target = folder / f"{method.name}{len(chosen)}.onnx"
                quantize_static(
                    folder / "plain.onnx",
                    target,
                    Stamps(calibration),
                    op_types_to_quantize=["Conv"],
                    nodes_to_quantize=chosen,
                    per_channel=True,
                    activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8,
                    calibrate_method=method,
                )
                files[f"int8, {name}, {method.name}"] = target.read_bytes()
        sessions = {name: open_session(data) for name, data in files.items()}

        def run(name: str, x: np.ndarray) -> np.ndarray:
            logits = [
                sessions[name].run(["logits"], {"triplet": x[i : i + BATCH]})[0]
                for i in range(0, len(x), BATCH)
            ]
            return classifier.probabilities(np.concatenate(logits))[:, -1]

        spent: dict[str, list[float]] = {name: [] for name in sessions}
        for _ in range(options.rounds):
            for name in sessions:
                spent[name].append(timed(lambda: run(name, tensor))[1] / len(tensor) * 1e6)  # noqa: B023
        result: dict[str, Any] = {}
        for name in sessions:
            row: dict[str, Any] = {"core_us": median(spent[name], 1)}
            for set_name, x, truth in sets:
                found, before = run(name, x), run("as it is", x)
                row[set_name] = {
                    "n": len(truth),
                    "auc": round(float(roc_auc(found, truth)), 4),
                    "largest_change": round(float(np.abs(found - before).max()), 7),
                    "mean_change": round(float(np.abs(found - before).mean()), 7),
                    "other_labels": int(((found > 0.5) != (before > 0.5)).sum()),
                }
            result[name] = row
        result["percent_by_operator"] = {
            name: by_operator(files[name], tensor, folder) for name in ("as it is", "one exponential")
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
