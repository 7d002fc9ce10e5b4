"""Worker processes: each reads, prepares and scores whole inputs, and gives back rows only.

Pixels never cross a process border: the files are opened where they are scored, so that what comes
back is some tens of bytes per candidate. Workers are new interpreters, not forks (an onnxruntime session
does not survive one), and do not run the caller's script again as `multiprocessing` would: scripts
need no ``if __name__ == "__main__"``. Messages are JSON and raw numbers; nothing is unpickled.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import IO, Any

import numpy as np

from .. import errors
from ..errors import TransientnetError
from ..models.classifier import Classifier
from ..models.record import ModelRecord
from ..readers.sources import StampFiles, stem
from ..results.predictions import Predictions
from ..triplet import QualityFlag
from .batches import Input, Mark, Part, Reading, Unit, batches, content_id, paths_of, read, score
from .engine import hold_memory

__all__ = ["Workers", "main"]

_HEADER = struct.Struct("<II")

#: What a worker runs. Its stdout carries messages, so that whatever prints must be sent to stderr, and
#: one thread is all it may use: linear algebra libraries read these variables when they are loaded.
_BOOT = """
import json, os, sys
for name in ("OMP", "OPENBLAS", "MKL"):
    os.environ[name + "_NUM_THREADS"] = "1"
sys.path[:] = json.loads(sys.argv[1])
from transientnet.scoring.workers import main
main()
"""


class Workers:
    """Worker processes for one model; as many as threads call `run` at a time.

    Parameters
    ----------
    classifier : Classifier
        Already loaded here, so that workers need no registry.
    reading : Reading
    """

    def __init__(self, classifier: Classifier, reading: Reading) -> None:
        self._setup = {
            "model": str(classifier.path),
            "record": classifier.record.to_dict(),
            "reading": asdict(reading),
        }
        self._classes, self._model = classifier.classes, classifier.record.id
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
        ended, rows = 0, unit.skip
        try:
            for part in self._ask(unit.inputs, skip=unit.skip):
                ended += sum(mark.ended for mark in part.marks)
                last = part.marks[-1]
                rows = 0 if last.ended else last.rows + (rows if len(part.marks) == 1 else 0)
                yield part
        except _DiedError:
            for item in unit.inputs[ended:]:
                yield from self._one_by_one(item, rows)
                rows = 0

    def _one_by_one(self, item: Input, skip: int) -> Iterator[Part]:
        """Rows of one input from number `skip` on; those on which a worker dies again are flagged."""
        while True:
            announced: dict[str, Any] | None = None
            try:
                for message in self._ask([item], alone=True, skip=skip):
                    if isinstance(message, Part):
                        skip += len(message.predictions)
                        announced = None
                        yield message
                    else:
                        announced = message
                return
            except _DiedError as death:
                where = announced or {"id": stem(paths_of(item)[0]), "source": paths_of(item)[0]}
                # Without an announcement it died while reading, and would again: that input is at its end.
                yield self._failed(where, str(death), Mark(content_id(item), 1, announced is None))
                skip += 1
                if announced is None:
                    return

    def _failed(self, where: dict[str, Any], reason: str, mark: Mark) -> Part:
        what = "reading" if mark.ended else "scoring"
        return Part(
            Predictions(
                np.array([where["id"]], dtype=str),
                self._classes,
                np.full((1, len(self._classes)), np.nan, np.float32),
                np.array([QualityFlag.FAILED], np.uint16),
                self._model,
                np.array([where["source"]], dtype=str),
                {0: f"{what} it killed a worker process twice ({reason})"},
            ),
            (mark,),
        )

    def _ask(self, inputs: Sequence[Input], *, alone: bool = False, skip: int = 0) -> Iterator[Any]:
        """Answers of an idle worker; it is idle again only when it has answered all."""
        with self._lock:
            process = self._idle.pop() if self._idle else None
        if process is None:
            process = _start(self._setup)
            with self._lock:
                self._all.add(process)
        done = False
        try:
            request = {"inputs": [_pack(item) for item in inputs], "alone": alone, "skip": skip}
            for header, body in process.ask(request):
                yield self._part(header, body) if "ids" in header else header
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
        return Part(
            Predictions(
                np.array(header["ids"], dtype=str),
                self._classes,
                np.frombuffer(body, np.float32, n * k).reshape(n, k),
                np.frombuffer(body, np.uint16, n, n * k * 4),
                self._model,
                np.array(header["sources"], dtype=str),
                {int(row): message for row, message in header["errors"].items()},
            ),
            tuple(Mark(*mark) for mark in header["marks"]),
        )


class _DiedError(Exception):
    """A worker process ended before it had answered."""


class _Process:
    """One worker process, seen from here."""

    def __init__(self, setup: dict[str, Any]) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, "-c", _BOOT, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Ctrl-C at the terminal is for the parent to decide.
            start_new_session=True,
        )
        try:
            for _ in self.ask(setup):
                pass
        except _DiedError:
            self.stop()
            raise

    def ask(self, request: dict[str, Any]) -> Iterator[tuple[dict[str, Any], bytes]]:
        """Send a request and give its answers, until the worker says that there are no more."""
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        try:
            _send(self._popen.stdin, request)
            while (message := _receive(self._popen.stdout)) is not None:
                header, body = message
                if "end" in header:
                    return
                if "error" in header:
                    raise getattr(errors, header["error"])(header["message"])
                yield header, body
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
    try:
        return _Process(setup)
    except _DiedError:
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
            _answer(request[0], classifier, reading, answers)
    except BrokenPipeError:
        # The parent has gone.
        os._exit(0)


def _answer(request: dict[str, Any], classifier: Classifier, reading: Reading, answers: IO[bytes]) -> None:
    inputs, skip = [_unpack(item) for item in request["inputs"]], request["skip"]
    try:
        if request["alone"]:
            for item in inputs:
                _answer_alone(item, skip, classifier, reading, answers)
        else:
            for batch in batches(inputs, reading, skip=skip):
                _send_part(answers, score(classifier, batch))
    except TransientnetError as error:
        _send(answers, {"error": type(error).__name__, "message": str(error)})
    else:
        _send(answers, {"end": True})


def _answer_alone(
    item: Input, skip: int, classifier: Classifier, reading: Reading, answers: IO[bytes]
) -> None:
    """Announce each candidate before it is scored, so that the parent knows which one was the end of us."""
    content = content_id(item)
    for number, triplet in enumerate(read(item, reading)):
        if number < skip:
            continue
        _send(answers, {"id": triplet.id, "source": triplet.source})
        _send_part(answers, Part(classifier.predict([triplet]), (Mark(content, 1, False),)))
    _send_part(answers, Part(classifier.predict([]), (Mark(content, 0, True),)))


def _send_part(answers: IO[bytes], part: Part) -> None:
    predictions = part.predictions
    header = {
        "ids": predictions.ids.tolist(),
        "sources": predictions.sources.tolist(),
        "errors": predictions.errors,
        "marks": part.marks,
    }
    _send(answers, header, predictions.probabilities.tobytes() + predictions.quality.tobytes())
