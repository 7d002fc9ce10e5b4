"""Worker processes: each reads, prepares and scores whole inputs, and gives back rows only.

Pixels never cross a process border: the files are opened where they are scored, so that what comes
back is some tens of bytes per candidate. Workers are new interpreters, not forks (an onnxruntime session
does not survive one), and do not run the caller's script again as `multiprocessing` would: scripts
need no ``if __name__ == "__main__"``. Messages are JSON and raw numbers; nothing is unpickled.
"""

from __future__ import annotations

import json
import struct
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import islice
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from .. import errors
from ..errors import TransientnetError
from ..files.paths import stem
from ..models.classifier import Classifier
from ..models.record import ModelRecord
from ..readers.open import Input, Reading, paths_of, read
from ..readers.sources import StampFiles
from ..results.predictions import Predictions
from ..triplet import QualityFlag, Triplet
from .batches import Batch, Mark, Part, Unit, batches, changed, content_id, flagged, lost_rows, score, weight
from .boot import start
from .engine import hold_memory, in_order

__all__ = ["Workers", "main"]

_HEADER = struct.Struct("<II")


class Workers:
    """Worker processes for one model; as many as threads call `run` at a time.

    Parameters
    ----------
    classifier : Classifier
        Already loaded here, so that workers need no registry.
    reading : Reading
    batch_size : int
    threads : int
        Of each process.
    """

    def __init__(
        self, classifier: Classifier, reading: Reading, batch_size: int, *, threads: int = 1
    ) -> None:
        self._setup = {
            "model": str(classifier.path),
            "record": classifier.record.to_dict(),
            "reading": asdict(reading),
            "batch_size": batch_size,
            "threads": threads,
        }
        self._classes, self._model = classifier.classes, classifier.record.id
        self._reading = reading
        self._lock = threading.Lock()
        self._idle: list[_Process] = []
        self._all: set[_Process] = set()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            processes, self._all = self._all, set()
        for process in processes:
            process.stop()

    def run(self, unit: Unit) -> Iterator[Part]:
        """Score the inputs of one unit. If the worker dies, try its rows one by one in a new one."""
        skips = [*unit.skips, *[0] * (len(unit.inputs) - len(unit.skips))]
        ended, content = 0, ""
        try:
            for part in self._ask(unit.inputs, skips):
                for mark in part.marks:
                    skips[ended] += mark.rows
                    ended, content = (ended + 1, "") if mark.ended else (ended, mark.content)
                yield part
        except _DiedError:
            for item, skip in list(zip(unit.inputs, skips, strict=True))[ended:]:
                yield from self._one_by_one(item, skip, content)
                content = ""

    def _one_by_one(self, item: Input, skip: int, content: str) -> Iterator[Part]:
        """Rows of one input from number `skip` on; those on which a worker dies again are flagged.

        Parameters
        ----------
        item : Input
        skip : int
        content : str
            Id of the content that the rows before came from, empty if there are none.
        """
        while True:
            now = content_id(item)
            if content and now != content:
                # Maybe cut short: what its rows are, and which of them are in the table, is not known.
                yield self._lost(item, skip, content, now)
                return
            content = now
            announced: dict[str, Any] | None = None
            try:
                for message in self._ask([item], [skip], alone=True):
                    if isinstance(message, Part):
                        skip += len(message.predictions)
                        announced = None
                        yield message
                    else:
                        announced = message
                return
            except _DiedError as death:
                if content_id(item) != content:
                    continue
                first = paths_of(item)[0]
                where = announced or {"id": stem(first), "source": first}
                # Without an announcement it died while reading, and would again: that input is at its end.
                what, flag = ("reading", QualityFlag.UNREADABLE) if announced is None else ("scoring", 0)
                reason = f"{what} it killed a worker process twice ({death})"
                row = Triplet.unreadable(where["id"], where["source"], reason)
                yield self._flagged(row, flag | QualityFlag.FAILED, Mark(content, 1, announced is None))
                skip += 1
                if announced is None:
                    return

    def _lost(self, item: Input, rows: int, before: str, now: str) -> Part:
        """The row that stands for what is lost of an input that changed while it was scored."""
        path = paths_of(item)[0]
        try:
            *_, (readable, reason) = self._ask([item], [0], count=True)
        except _DiedError as death:
            readable, reason = 0, f"reading it kills a worker process ({death})"
        row = Triplet.unreadable(stem(path), path, changed(item, rows, readable, reason))
        return self._flagged(row, QualityFlag.UNREADABLE, *lost_rows(before, now, rows))

    def _flagged(self, triplet: Triplet, flag: int, *marks: Mark) -> Part:
        return Part(flagged(self._classes, self._model, triplet, flag), marks)

    def _ask(self, inputs: Sequence[Input], skips: Sequence[int], **how: bool) -> Iterator[Any]:
        """Answers of an idle worker; it is idle again only when it has answered all."""
        process = None
        with self._lock:
            while self._idle and process is None:
                process = self._idle.pop()
                if not process.alive:
                    # It was ended while it did nothing: no input is to blame.
                    self._all.discard(process)
                    process.stop()
                    process = None
        if process is None:
            process = _start(self._setup)
            with self._lock:
                self._all.add(process)
        done = False
        try:
            request = {"inputs": [_pack(item) for item in inputs], "skips": list(skips), **how}
            for header, body in process.ask(request):
                yield self._part(header, body) if "ids" in header else header.get("count", header)
            done = True
        finally:
            with self._lock:
                if done:
                    self._idle.append(process)
                else:
                    self._all.discard(process)
            if not done:
                process.stop()

    def _part(self, header: dict[str, Any], body: bytes) -> Part:
        n, k = len(header["ids"]), len(self._classes)
        values = np.frombuffer(body, np.float64, n * len(header["positions"]))
        at = values.nbytes
        return Part(
            Predictions(
                np.array(header["ids"], dtype=str),
                self._classes,
                np.frombuffer(body, np.float32, n * k, at).reshape(n, k),
                np.frombuffer(body, np.uint16, n, at + n * k * 4),
                self._model,
                np.array(header["sources"], dtype=str),
                {int(row): message for row, message in header["errors"].items()},
                positions=dict(
                    zip(header["positions"], values.reshape(len(header["positions"]), n), strict=True)
                ),
                kinds=None if header["kinds"] is None else np.array(header["kinds"], dtype=str),
            ),
            tuple(Mark(*mark) for mark in header["marks"]),
        )


class _DiedError(Exception):
    """A worker process ended before it had answered."""


class _Process:
    """One worker process, seen from here."""

    def __init__(self, setup: dict[str, Any]) -> None:
        try:
            self._popen = start()
        except OSError as error:
            raise _DiedError(error.strerror or str(error)) from error
        try:
            for _ in self.ask(setup):
                pass
        except _DiedError:
            self.stop()
            raise

    @property
    def alive(self) -> bool:
        """Whether the process has not ended."""
        return self._popen.poll() is None

    def ask(self, request: dict[str, Any]) -> Iterator[tuple[dict[str, Any], bytes]]:
        """Send a request and give its answers, up to the one that says that it is the last."""
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        try:
            _send(self._popen.stdin, request)
            while (message := _receive(self._popen.stdout)) is not None:
                header, body = message
                if "error" in header:
                    raise getattr(errors, header["error"])(header["message"])
                yield header, body
                if header["end"]:
                    return
        except (BrokenPipeError, ConnectionError):
            pass
        code = self._popen.wait()
        raise _DiedError(f"signal {-code}" if code < 0 else f"exit code {code}")

    def stop(self) -> None:
        """End the process, whatever it does."""
        self._popen.kill()
        self._popen.wait()
        for stream in (self._popen.stdin, self._popen.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()


def _start(setup: dict[str, Any]) -> _Process:
    """A new worker process; one that is killed while it starts is started once more."""
    with suppress(_DiedError):
        return _Process(setup)
    try:
        return _Process(setup)
    except _DiedError as death:
        raise TransientnetError(f"a worker process could not start ({death}); try --workers 1") from death


def _send(stream: IO[bytes], header: dict[str, Any], body: bytes = b"") -> None:
    text = json.dumps(header).encode("ascii")
    stream.write(_HEADER.pack(len(text), len(body)) + text + body)
    stream.flush()


def _receive(stream: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    """The next message, None at the end of the stream."""
    head = stream.read(_HEADER.size)
    if len(head) < _HEADER.size:
        return None
    sizes = _HEADER.unpack(head)
    data = stream.read(sum(sizes))
    if len(data) < sum(sizes):
        return None
    return json.loads(data[: sizes[0]]), data[sizes[0] :]


def _pack(item: Input) -> Any:
    return item if isinstance(item, str) else {"id": item.id, "paths": dict(item.paths)}


def _unpack(item: Any) -> Input:
    return item if isinstance(item, str) else StampFiles(item["id"], item["paths"])


# ---------------------------------------------------------------- the worker's side


def main() -> None:
    """Answer requests from stdin until it is closed."""
    import os

    hold_memory()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    requests = sys.stdin.buffer
    first = _receive(requests)
    if first is None:
        return
    setup = first[0]
    try:
        classifier = Classifier(
            setup["model"], ModelRecord.from_dict(setup["record"]), device="cpu", threads=1
        )
        reading = Reading(**setup["reading"])
        _send(answers, {"end": True})
        while (request := _receive(requests)) is not None:
            _answer(request[0], classifier, reading, setup["batch_size"], setup["threads"], answers)
    except BrokenPipeError:
        # The parent has gone.
        os._exit(0)


def _answer(
    request: dict[str, Any],
    classifier: Classifier,
    reading: Reading,
    size: int,
    threads: int,
    answers: IO[bytes],
) -> None:
    inputs, skips = [_unpack(item) for item in request["inputs"]], request["skips"]
    try:
        if request.get("count"):
            errors_of = [triplet.error for triplet in read(inputs[0], reading)]
            reasons = [error for error in errors_of if error is not None]
            _send(answers, {"count": [errors_of.count(None), reasons[0] if reasons else ""], "end": True})
        elif request.get("alone"):
            _answer_alone(inputs[0], skips[0], classifier, reading, answers)
        else:
            found, left = batches(inputs, reading, size, skips=skips), len(inputs)
            for part in in_order(lambda batch: (score(classifier, batch),), found, threads, weight):
                left -= sum(mark.ended for mark in part.marks)
                _send_part(answers, part, left == 0)
    except TransientnetError as error:
        _send(answers, {"error": type(error).__name__, "message": str(error)})


def _answer_alone(
    item: Input, skip: int, classifier: Classifier, reading: Reading, answers: IO[bytes]
) -> None:
    """Announce each candidate before it is scored, so that the parent knows which one was the end of us."""
    content = content_id(item)
    for triplet in islice(read(item, reading), skip, None):
        _send(answers, {"id": triplet.id, "source": triplet.source, "end": False})
        _send_part(answers, score(classifier, Batch([triplet], (Mark(content, 1, False),))), False)
    _send_part(answers, score(classifier, Batch([], (Mark(content, 0, True),))), True)


def _send_part(answers: IO[bytes], part: Part, last: bool) -> None:
    predictions = part.predictions
    header = {
        "end": last,
        "ids": predictions.ids.tolist(),
        "sources": predictions.sources.tolist(),
        "errors": predictions.errors,
        "marks": part.marks,
        "positions": list(predictions.positions),
        "kinds": None if predictions.kinds is None else predictions.kinds.tolist(),
    }
    numbers: tuple[npt.NDArray[Any], ...] = (
        *predictions.positions.values(),
        predictions.probabilities,
        predictions.quality,
    )
    _send(answers, header, b"".join(values.tobytes() for values in numbers))
