"""One loaded model: its session, its calibration, and prediction in batches."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ContractError, ModelIntegrityError, UsageError
from ..prepare.contract import InputContract
from ..prepare.preprocess import preprocess
from ..readers.open import open_triplets
from ..results.predictions import BOGUS, Predictions
from ..settings import cores
from ..triplet import QualityFlag, Triplet
from .calibration import apply, prediction_sets
from .explain import Explanation, explain
from .outliers import out_of_distribution
from .record import ModelRecord
from .registry.resolve import resolve
from .runtime import onnx_runtime

__all__ = ["BATCH_SIZE", "Classifier", "load_model"]

BATCH_SIZE = 64
"""Beyond this a CPU gains nothing."""

#: How onnxruntime and CUDA say that memory does not suffice.
_NO_MEMORY = re.compile("allocate memory|bad.?alloc|out of memory", re.IGNORECASE)
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def load_model(
    name_or_path: str | Path, *, offline: bool | None = None, device: str = "auto", threads: int | None = None
) -> Classifier:
    """Load a model, ready to predict.

    Parameters
    ----------
    name_or_path : str or Path
        ``realbogus``, ``3class@1``, a path to an ``.onnx`` or to a folder that holds a manifest,
        ``hf://org/repo[@revision]``, ``https://…/weights_manifest.json`` or ``doi:10.…``; folders and
        addresses take ``#name[@version]`` where they hold more than one model.
    offline : bool, optional
        Open no connection; by default as ``TRANSIENTNET_OFFLINE`` and ``HF_HUB_OFFLINE`` ask for.
    device : {"auto", "cpu", "cuda"}
        ``auto`` takes a GPU where onnxruntime has one.
    threads : int, optional
        Threads of onnxruntime; by default the cores that this process may use.

    Returns
    -------
    Classifier

    Raises
    ------
    UsageError
        If `device` does not exist here, or an address is malformed.
    ModelNotFoundError
        If no model has that name or version.
    ModelUnavailableError
        If the model could not be fetched, or `offline` forbids it.
    ModelIntegrityError
        If a file is not the one that its manifest pins.
    ContractError
        If the network contradicts its record.

    Examples
    --------
    >>> from transientnet import load_model
    >>> model = load_model("realbogus", threads=1)
    >>> model.classes
    ('bogus', 'real')
    """
    path, record = resolve(name_or_path, offline=offline)
    return Classifier(path, record, device=device, threads=threads)


class Classifier:
    """A network with its contract and calibration; `load_model` makes one.

    Parameters
    ----------
    path : Path
        A verified weight file.
    record : ModelRecord
        What its manifest and its metadata say of it.
    device : {"auto", "cpu", "cuda"}
        Where the network runs: ``auto`` takes a GPU if onnxruntime-gpu finds one, ``cuda`` insists on it.
    threads : int, optional
        Threads of onnxruntime; by default the cores that this process may use.

    Raises
    ------
    UsageError
        If `device` does not exist here.
    ModelIntegrityError
        If onnxruntime cannot load the file.
    ContractError
        If the network's inputs, outputs, classes or statistics contradict the record.

    Examples
    --------
    A star that was not there before, and a stamp without anything:

    >>> import numpy as np
    >>> from transientnet import load_model
    >>> model = load_model("realbogus", threads=1)
    >>> y, x = np.indices((63, 63)) - 31
    >>> sky = np.random.default_rng(0).normal(100, 5, (2, 63, 63))
    >>> star = 500 * np.exp(-(x**2 + y**2) / 4)
    >>> new = np.stack([sky[0] + star, sky[1], sky[0] - sky[1] + star])
    >>> night = model.predict(np.stack([new, np.zeros((3, 63, 63))]))
    >>> night.labels.tolist()
    ['real', '']
    >>> bool(np.isnan(night.probabilities[1]).all())
    True
    """

    def __init__(self, path: Path, record: ModelRecord, *, device: str = "auto", threads: int | None = None):
        self.path = path
        self.record = record
        self._session = _open_session(path, device, threads)
        takes = {each.name: each.type for each in self._session.get_inputs()}
        gives = {each.name: each.type for each in self._session.get_outputs()}
        if set(takes) != {"triplet"} or "logits" not in gives:
            raise ContractError(
                f"{path}: the network must take 'triplet' and give 'logits'; it takes "
                f"{', '.join(takes) or 'nothing'} and gives {', '.join(gives) or 'nothing'}"
            )
        self._given = [name for name in ("logits", "features", "kinds", "oddity") if name in gives]
        sides = {"oddity": "oddity" in record.reference, "kinds": bool(self.kinds)}
        self._scored = ["logits", *(name for name in self._given if sides.get(name))]
        for name, kind in [*takes.items(), *((name, gives[name]) for name in self._given)]:
            if kind != "tensor(float)":
                raise ContractError(f"{path}: {name!r} must be a tensor(float), not a {kind}")
        # A file may leave shapes open, or declare what is not true: two rows show it, before a night does.
        size = self.contract.size
        self.run_all(np.zeros((2, 3, size, size), np.float32))
        self._judge(np.zeros((2, 3, size, size), np.float32), np.zeros(2, np.uint16))

    def __repr__(self) -> str:
        return f"<Classifier {self.record.id} on {self.device}: {', '.join(self.classes)}>"

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the probabilities."""
        return self.record.classes

    @property
    def contract(self) -> InputContract:
        """How triplets must look when they enter the network."""
        return self.record.contract

    @property
    def device(self) -> str:
        """Where the network really runs: cpu or cuda."""
        provider = self._session.get_providers()[0]
        return next((name for name, value in _PROVIDERS.items() if value == provider), provider)

    def run(self, tensor: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
        """The network's raw answers.

        Parameters
        ----------
        tensor : ndarray of float32, shape (N, 3, S, S)
            From `preprocess`.

        Returns
        -------
        list of ndarray of float32
            Logits (N, K) and, where the model gives them, features (N, F).

        Raises
        ------
        ContractError
            If the network does not take or give what its record promises.
        MemoryError
            If memory does not suffice for so many stamps at a time.
        """
        return list(self._run([n for n in self._given if n in ("logits", "features")], tensor).values())

    def _run(self, names: list[str], tensor: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
        """Some of the network's outputs, checked against what the record promises."""
        n = len(tensor)
        try:
            results: list[npt.NDArray[np.float32]] = self._session.run(names, {"triplet": tensor})
        except Exception as error:  # onnxruntime raises bare classes of its own
            if _NO_MEMORY.search(str(error)):
                raise MemoryError(str(error)) from error
            reason = str(error).splitlines()[0]
            raise ContractError(
                f"{self.path}: the network does not run on {n} stamps of {tensor.shape[-1]} pixels ({reason})"
            ) from error
        widths = {"logits": len(self.classes), "kinds": len(self.kinds), "oddity": 1}
        for name, result in zip(names, results, strict=True):
            shape = (n, widths.get(name, *result.shape[1:2]))
            if result.shape != shape or result.dtype != np.float32:
                raise ContractError(
                    f"{self.path}: {name!r} is of shape {result.shape} and type {result.dtype}, but {n} "
                    f"stamps and the record make it {shape} and float32"
                )
        return dict(zip(names, results, strict=True))

    def run_all(self, tensor: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
        """Every output that the network has, by name.

        Returns
        -------
        dict
            ``logits`` (N, K); where the network has them ``features`` (N, F), ``kinds`` (N, `kinds`),
            logits of the kinds of bogus, and ``oddity`` (N, 1), the log odds that the input is broken.
        """
        return self._run(self._given, tensor)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Names of the kinds of bogus that the network distinguishes; empty if it has none."""
        return tuple(self.record.network.get("kinds", ())) if "kinds" in self._given else ()

    def probabilities(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Calibrated probabilities (N, K) of logits (N, K)."""
        return apply(logits, self.record.calibration)

    def predict(
        self,
        triplets: Any,
        *,
        batch_size: int = BATCH_SIZE,
        threshold: float | None = None,
        sets: float | None = None,
        kinds: bool = False,
    ) -> Predictions:
        """Score candidates in order.

        Parameters
        ----------
        triplets : sequence of Triplet, or what else of stamps in memory `classify` takes
            Arrays have shape (3, H, W) or (N, 3, H, W): science, reference, difference; the channels may
            also be last.
        batch_size : int
            Candidates that go through the network at a time; on a CPU, more than 64 do not pay.
        threshold, sets, kinds : optional
            As in `decide`.
        """
        if not isinstance(triplets, (list, tuple)) or not all(isinstance(t, Triplet) for t in triplets):
            triplets = open_triplets(triplets)
        return self.joined(list(self.stream(triplets, batch_size=batch_size)), threshold, sets, kinds)

    def joined(
        self,
        parts: Sequence[Predictions],
        threshold: float | None = None,
        sets: float | None = None,
        kinds: bool = False,
    ) -> Predictions:
        """Batches as one table, in order; `threshold`, `sets` and `kinds` as in `decide`."""
        rows = Predictions.concatenate(parts, self.record.classes, self.record.id)
        return self.decide(rows, threshold, sets, kinds)

    def decide(
        self, predictions: Predictions, threshold: float | None, sets: float | None, kinds: bool = False
    ) -> Predictions:
        """The same rows with labels by a threshold, with prediction sets, and with or without kinds.

        Parameters
        ----------
        predictions : Predictions
            As `predict` gives them.
        threshold : float or None
            Name the last of two classes (real) from this probability on.
        sets : float or None
            Add the classes that hold the true one at this level, say 0.95.
        kinds : bool
            Keep which kind of bogus each rejected row is.

        Raises
        ------
        UsageError
            There are more than two classes to decide between, no sets at that level, or the model names no
            kinds of bogus.
        """
        if kinds and (not self.kinds or BOGUS not in self.classes):
            raise UsageError(f"{self.record.id} does not name kinds of bogus: choose a model with a class "
                             f"{BOGUS!r} of version 0.2.0 or later")  # fmt: skip
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
        named = None
        if kinds:
            named = np.full(len(predictions), "") if predictions.kinds is None else predictions.kinds
        return replace(predictions, threshold=threshold, sets=members, kinds=named)

    def stream(self, triplets: Iterable[Triplet], *, batch_size: int = BATCH_SIZE) -> Iterator[Predictions]:
        """Score an iterable batch by batch, in order, with constant memory.

        Parameters
        ----------
        triplets : iterable of Triplet
            Candidates, read as they are needed: there may be more than memory holds.
        batch_size : int
            Candidates per yield, but for the last.

        Yields
        ------
        Predictions

        Raises
        ------
        UsageError
            If `batch_size` is below 1.
        """
        if batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, not {batch_size}")
        iterator = iter(triplets)
        while batch := list(islice(iterator, batch_size)):
            yield self.score(batch)

    def explain(self, triplet: Triplet, label: str | None = None) -> Explanation:
        """Which parts of the stamps the probability of a class rests on.

        Parameters
        ----------
        triplet : Triplet
            The candidate to explain.
        label : str, optional
            Class to explain; by default the most probable one.

        Returns
        -------
        Explanation

        Raises
        ------
        UsageError
            If the model has no class of that name.
        ReadError
            If the triplet cannot be scored.
        """
        return explain(self.record, lambda tensor: self.probabilities(self.run(tensor)[0]), triplet, label)

    def score(self, batch: Sequence[Triplet]) -> Predictions:
        """Score triplets as one batch, in order."""
        tensor, quality, usable = preprocess(batch, self.contract)
        probabilities = np.full((len(batch), len(self.classes)), np.nan, np.float32)
        errors: dict[int, str] = {}
        kinds = np.zeros(len(batch), np.intp) if self.kinds else None
        if usable.any():
            seen, rows = (tensor if usable.all() else tensor[usable]), np.flatnonzero(usable)
            probabilities[rows], flags, named = self._judge(seen, quality[rows])
            if kinds is not None and named is not None:
                kinds[rows] = 1 + named.argmax(axis=1)
            quality[rows] |= flags
            for row in rows[flags == QualityFlag.FAILED].tolist():
                errors[row] = f"{self.record.id} gave no finite number"
        names = None if kinds is None else np.array(["", *self.kinds])[kinds]
        return Predictions.of(batch, self.classes, probabilities, quality, self.record.id, errors, names)

    def _judge(
        self, tensor: npt.NDArray[np.float32], quality: npt.NDArray[np.uint16]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint16], npt.NDArray[np.float32] | None]:
        """Of prepared, usable stamps: probabilities, the flags that the answer sets, logits of the kinds."""
        answers = self._run(self._scored, tensor)
        logits, oddity = answers["logits"], answers.get("oddity")
        flags = np.zeros(len(tensor), np.uint16)
        failed = np.asarray(~np.isfinite(logits).all(axis=1))
        if failed.any():
            logits[failed] = 0.0
            flags[failed] = QualityFlag.FAILED
            tensor = np.where(failed[:, None, None, None], np.float32(0), tensor)
        try:
            probabilities = self.probabilities(logits)
            foreign = out_of_distribution(
                tensor, quality, self.record.reference, None if oddity is None else oddity[:, 0]
            )
        except (LookupError, TypeError, ValueError, np.linalg.LinAlgError) as error:
            raise ContractError(
                f"{self.path}: the record's calibration or reference statistics do not fit a network of "
                f"{len(self.classes)} classes ({error})"
            ) from error
        if probabilities.shape != logits.shape:
            raise ContractError(f"{self.path}: the calibration is not one of {len(self.classes)} classes")
        probabilities[failed] = np.nan
        flags[foreign & ~failed] = QualityFlag.OUT_OF_DISTRIBUTION
        return probabilities, flags, answers.get("kinds")


def _open_session(path: Path, device: str, threads: int | None) -> Any:
    ort = onnx_runtime()

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
        reason = str(error).splitlines()[0]
        raise ModelIntegrityError(f"{path}: onnxruntime cannot load the network ({reason})") from error
    if device == "cuda" and session.get_providers()[0] != _PROVIDERS["cuda"]:
        raise UsageError(
            "device 'cuda' was asked for, but onnxruntime runs on the CPU here: "
            "install onnxruntime-gpu instead of onnxruntime, or use device='auto'"
        )
    return session
