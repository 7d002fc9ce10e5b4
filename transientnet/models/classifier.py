"""One loaded model: its session, its calibration, and prediction in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import ContractError, ModelIntegrityError, UsageError
from ..prepare.contract import InputContract
from ..prepare.preprocess import preprocess
from ..readers.open import open_triplets
from ..results.predictions import Predictions
from ..settings import cores
from ..triplet import QualityFlag, Triplet
from .calibration import apply, prediction_sets
from .outliers import out_of_distribution
from .record import ModelRecord
from .registry.resolve import resolve

if TYPE_CHECKING:
    from .explain import Explanation

__all__ = ["BATCH_SIZE", "Classifier", "load_model"]

BATCH_SIZE = 64
"""Beyond this a CPU gains nothing."""

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def load_model(
    name_or_path: str | Path, *, offline: bool | None = None, device: str = "auto", threads: int | None = None
) -> Classifier:
    """Load a model, ready to predict.

    Parameters
    ----------
    name_or_path : str or Path
        ``realbogus``, ``3class@1``, a path to an ``.onnx``, ``hf://org/repo[@revision]`` or
        ``https://…/weights_manifest.json#name``.
    offline : bool, optional
        Open no socket; by default as the environment says.
    device : {"auto", "cpu", "cuda"}
    threads : int, optional
        Threads of onnxruntime; by default the cores this process may use.

    Raises
    ------
    ModelNotFoundError, ModelUnavailableError, ModelIntegrityError, ContractError
    """
    path, record = resolve(name_or_path, offline=offline)
    return Classifier(path, record, device=device, threads=threads)


class Classifier:
    """A network with its contract and calibration. Made by `load_model`."""

    def __init__(self, path: Path, record: ModelRecord, *, device: str = "auto", threads: int | None = None):
        self.path = path
        self.record = record
        self._session = _open_session(path, device, threads)
        outputs = [output.name for output in self._session.get_outputs()]
        if "logits" not in outputs or [i.name for i in self._session.get_inputs()] != ["triplet"]:
            raise ContractError(f"{path}: the network must take 'triplet' and give 'logits', not {outputs}")
        self._outputs = ["logits", "features"] if "features" in outputs else ["logits"]

    def __repr__(self) -> str:
        return f"<Classifier {self.record.id} on {self.device}: {', '.join(self.classes)}>"

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the probabilities."""
        return self.record.classes

    @property
    def contract(self) -> InputContract:
        """What the model wants."""
        return self.record.contract

    @property
    def device(self) -> str:
        """Where the network really runs: cpu or cuda."""
        provider = self._session.get_providers()[0]
        return next((name for name, value in _PROVIDERS.items() if value == provider), provider)

    def run(self, tensor: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
        """Raw logits (N, K) and, where the model gives them, features (N, F) of a prepared tensor."""
        results: list[npt.NDArray[np.float32]] = self._session.run(self._outputs, {"triplet": tensor})
        return results

    def probabilities(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Calibrated probabilities of logits."""
        return apply(logits, self.record.calibration)

    def predict(
        self,
        triplets: Any,
        *,
        batch_size: int = BATCH_SIZE,
        threshold: float | None = None,
        sets: float | None = None,
    ) -> Predictions:
        """Score candidates in order.

        Parameters
        ----------
        triplets : sequence of Triplet, or what else of stamps in memory `classify` takes
            Arrays have shape (3, H, W) or (N, 3, H, W): science, reference, difference; the channels may
            also be last.
        batch_size : int
        threshold, sets : float, optional
            As in `decide`.
        """
        if not isinstance(triplets, (list, tuple)) or not all(isinstance(t, Triplet) for t in triplets):
            triplets = open_triplets(triplets)
        parts = list(self.stream(triplets, batch_size=batch_size))
        return self.decide(Predictions.concatenate(parts, self.classes, self.record.id), threshold, sets)

    def decide(self, predictions: Predictions, threshold: float | None, sets: float | None) -> Predictions:
        """The same rows with labels by a threshold, and with prediction sets.

        Parameters
        ----------
        predictions : Predictions
        threshold : float or None
            Name the last of two classes (real) from this probability on.
        sets : float or None
            Add the classes that hold the true one at this level, say 0.95.

        Raises
        ------
        UsageError
            There are more than two classes to decide between, or no sets at that level.
        """
        if threshold is not None:
            if len(self.classes) != 2:
                raise UsageError(
                    f"a threshold decides between two classes; {self.record.id} has {len(self.classes)}"
                )
            if not 0 <= threshold <= 1:
                raise UsageError(f"threshold is a probability from 0 to 1, not {threshold}")
        members = (
            None if sets is None else prediction_sets(predictions.probabilities, self.record.conformal, sets)
        )
        return replace(predictions, threshold=threshold, sets=members)

    def stream(self, triplets: Iterable[Triplet], *, batch_size: int = BATCH_SIZE) -> Iterator[Predictions]:
        """Score an iterable batch by batch, in order, with constant memory."""
        if batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, not {batch_size}")
        iterator = iter(triplets)
        while batch := list(islice(iterator, batch_size)):
            yield self._score(batch)

    def explain(self, triplet: Triplet, label: str | None = None) -> Explanation:
        """Which parts of the stamps the probability of a class rests on; see `transientnet.explain`."""
        from .explain import explain

        return explain(self, triplet, label)

    def _score(self, batch: list[Triplet]) -> Predictions:
        tensor, quality, usable = preprocess(batch, self.contract)
        probabilities = np.full((len(batch), len(self.classes)), np.nan, np.float32)
        if usable.any():
            seen, rows = (tensor if usable.all() else tensor[usable]), np.flatnonzero(usable)
            probabilities[rows] = self.probabilities(self.run(seen)[0])
            foreign = out_of_distribution(seen, quality[rows], self.record.reference)
            quality[rows[foreign]] |= np.uint16(QualityFlag.OUT_OF_DISTRIBUTION)
        return Predictions.of(batch, self.classes, probabilities, quality, self.record.id)


def _open_session(path: Path, device: str, threads: int | None) -> Any:
    import onnxruntime as ort

    if device not in ("auto", *_PROVIDERS):
        raise UsageError(f"device must be auto, cpu or cuda, not {device!r}")
    options = ort.SessionOptions()
    # onnxruntime counts the machine's cores, not the ones that a container or scheduler granted.
    options.intra_op_num_threads = threads or cores()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    available = ort.get_available_providers()
    wanted = [_PROVIDERS["cuda"]] if device != "cpu" and _PROVIDERS["cuda"] in available else []
    try:
        session = ort.InferenceSession(str(path), options, providers=[*wanted, _PROVIDERS["cpu"]])
    except Exception as error:  # onnxruntime raises bare classes of its own
        raise ModelIntegrityError(f"{path}: onnxruntime cannot load the network ({error})") from error
    if device == "cuda" and session.get_providers()[0] != _PROVIDERS["cuda"]:
        raise UsageError(
            "device 'cuda' was asked for, but onnxruntime runs on the CPU here: "
            "install onnxruntime-gpu instead of onnxruntime, or use device='auto'"
        )
    return session
