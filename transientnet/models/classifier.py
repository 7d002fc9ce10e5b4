"""One loaded model: its session, its calibration, and prediction in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import ContractError, ModelIntegrityError, UsageError
from ..prepare.contract import InputContract
from ..prepare.preprocess import preprocess
from ..results.predictions import Predictions
from ..settings import cores
from ..triplet import QualityFlag, Triplet
from .calibration import apply
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
        self._given = [name for name in ("logits", "features", "kinds", "oddity") if name in outputs]
        self._outputs = [name for name in self._given if name in ("logits", "features")]
        oddity = "oddity" in outputs and "oddity" in self.record.reference
        self._scored = ["logits", "oddity"] if oddity else ["logits"]

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

    def run_all(self, tensor: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
        """Every output that the network has, by name.

        Returns
        -------
        dict
            ``logits`` (N, K); where the network has them ``features`` (N, F), ``kinds`` (N, `kinds`),
            logits of the kinds of bogus, and ``oddity`` (N, 1), the log odds that the input is broken.
        """
        return dict(zip(self._given, self._session.run(self._given, {"triplet": tensor}), strict=True))

    @property
    def kinds(self) -> tuple[str, ...]:
        """Names of the kinds of bogus that the network tells apart; empty where it tells none."""
        return tuple(self.record.network.get("kinds", ())) if "kinds" in self._given else ()

    def probabilities(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Calibrated probabilities of logits."""
        return apply(logits, self.record.calibration)

    def predict(
        self, triplets: Sequence[Triplet] | npt.NDArray[Any], *, batch_size: int = BATCH_SIZE
    ) -> Predictions:
        """Score triplets, or an array (3, H, W) or (N, 3, H, W); order is kept."""
        if isinstance(triplets, np.ndarray):
            triplets = _as_triplets(triplets)
        return Predictions.concatenate(
            list(self.stream(triplets, batch_size=batch_size)), self.classes, self.record.id
        )

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
            answers = self._session.run(self._scored, {"triplet": seen})
            probabilities[rows] = self.probabilities(answers[0])
            oddity = answers[1][:, 0] if len(answers) > 1 else None
            foreign = out_of_distribution(seen, quality[rows], self.record.reference, oddity)
            quality[rows[foreign]] |= np.uint16(QualityFlag.OUT_OF_DISTRIBUTION)
        return Predictions(
            np.array([triplet.id for triplet in batch], dtype=str),
            self.classes,
            probabilities,
            quality,
            self.record.id,
            np.array([triplet.source for triplet in batch], dtype=str),
            {row: triplet.error for row, triplet in enumerate(batch) if triplet.error is not None},
        )


def _as_triplets(array: npt.NDArray[Any]) -> list[Triplet]:
    if array.ndim == 3:
        array = array[None]
    if array.ndim != 4 or array.shape[1] != 3:
        raise UsageError(f"stamps must have shape (3, H, W) or (N, 3, H, W), not {array.shape}")
    return [Triplet(s, r, d, id=str(row)) for row, (s, r, d) in enumerate(array)]


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
