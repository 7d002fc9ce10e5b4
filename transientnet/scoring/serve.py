"""Scores for programs in any language: a file is sent by HTTP, its rows come back as JSON.

What is sent is read like any file, within the same bounds, and what cannot be read or judged is a row with
flags. Nothing that a client sends is ever the name of a file here. Requests beyond what may wait are refused
at once, so that memory stays bounded and a client knows when to come again.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvicorn
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import UsageError
from ..models.classifier import Classifier
from ..readers.open import Reading
from ..results.columns import one_line
from ..results.predictions import Predictions
from ..results.writers import writer_for
from ..settings import cores
from ..triplet import QualityFlag
from .gather import Gatherer, Job, NoRoomError
from .serve_schema import openapi, parameters
from .web import LOOPBACK, TooLongError, foreign, headers_of, listen, read_body

__all__ = ["MAX_BODY", "MAX_WAITING", "PATIENCE", "make_service", "serve"]

USUAL_PORT = 8766
MAX_BODY = 64 * 2**20
"""Bytes of one request's body."""
MAX_WAITING = 256
"""Requests that may be on their way through the server at a time."""

PATIENCE = 60.0
"""Seconds that the body of a request may take to arrive."""

_HELD_BODIES = 4
_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_JOBS = (1, 2, 4, 8, 16, 32, 64)
_JSONL = writer_for(Path("rows.jsonl"))


class _Guard:
    """Refuses requests of foreign pages and without the token, before anything else looks at them."""

    def __init__(self, app: ASGIApp, token: str | None, local: bool, count: Callable[[int], None]) -> None:
        self._app, self._token, self._local, self._count = app, token, local, count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        if refusal is not None:
            self._count(refusal.status_code)
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = headers_of(scope)
        if (reason := foreign(headers, LOOPBACK if self._local else None)) is not None:
            return _refusal(403, reason)
        if self._token is None or scope["path"] == "/health":
            return None
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and secrets.compare_digest(given.strip().encode(), self._token.encode()):
            return None
        return _refusal(
            401, "send the server's token: 'Authorization: Bearer TOKEN'", {"WWW-Authenticate": "Bearer"}
        )


class _Service:
    """What the addresses do."""

    def __init__(
        self,
        classifier: Classifier,
        reading: Reading,
        threshold: float | None,
        workers: int,
        body: int,
        waiting: int,
        patience: float,
    ) -> None:
        self.classifier, self.reading, self.threshold = classifier, reading, threshold
        self.parameters = parameters(classifier.classes)
        self.max_body, self.max_waiting, self.patience = body, waiting, patience
        self.requests = self.bytes = 0
        self.registry = registry = CollectorRegistry()
        named: dict[str, Any] = {"namespace": "transientnet", "registry": registry}
        self.answers = Counter("requests", "Answers of /score, by status.", ["status"], **named)
        self.rows = Counter("candidates", "Candidates of answered requests, by label.", ["label"], **named)
        seconds = "From a request's first byte to its answer."
        self.seconds = Histogram("request_seconds", seconds, buckets=_SECONDS, **named)
        batches = Histogram("batch_requests", "Requests scored together.", buckets=_JOBS, **named)
        Gauge("held_requests", "Requests on their way.", **named).set_function(lambda: self.requests)
        Gauge("held_bytes", "Bytes of their bodies.", **named).set_function(lambda: self.bytes)
        self.gatherer = Gatherer(classifier, workers, batches.observe)

    def count(self, status: int) -> None:
        self.answers.labels(str(status)).inc()

    async def health(self, _: Request) -> Response:
        good = self.gatherer.running
        found = {"status": "ok" if good else "ending", "model": self.classifier.record.id}
        return JSONResponse(found, 200 if good else 503)

    async def metrics(self, _: Request) -> Response:
        return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)

    async def score(self, request: Request) -> Response:
        began = time.perf_counter()
        answer = await self._scored(request)
        self.seconds.observe(time.perf_counter() - began)
        self.count(answer.status_code)
        return answer

    async def _scored(self, request: Request) -> Response:
        held = 0

        def take(size: int) -> None:
            nonlocal held
            if self.bytes + size > _HELD_BODIES * self.max_body:
                raise NoRoomError
            held += size
            self.bytes += size

        if self.requests >= self.max_waiting or not self.gatherer.running:
            return _busy()
        self.requests += 1
        try:
            job, threshold = self._asked(request)
            if request.headers.get("content-type", "").lower().startswith("multipart/"):
                return _refusal(415, "send the file itself as the body, not a form: curl --data-binary @FILE")
            async with asyncio.timeout(self.patience):
                data = await read_body(request, self.max_body, take)
            if not data:
                return _refusal(400, "the body is empty: send an alert packet, a FITS file or an npz")
            rows = await self.gatherer.score(replace(job, data=data))
            rows = self.classifier.decide(rows, threshold, None)
            for label, number in rows.counts().items():
                self.rows.labels(label or "refused").inc(number)
            return Response(await asyncio.to_thread(_as_json, rows), media_type="application/json")
        except TooLongError as error:
            return _refusal(413, str(error))
        except UsageError as error:
            return _refusal(400, str(error))
        except TimeoutError:
            return _refusal(408, f"the body did not arrive within {self.patience:g} s")
        except ClientDisconnect:
            return _refusal(400, "the client has gone")
        except NoRoomError:
            return _busy()
        finally:
            self.requests -= 1
            self.bytes -= held

    def _asked(self, request: Request) -> tuple[Job, float | None]:
        """The job of a request, its data still to come, and the threshold of its labels."""
        given, known = request.query_params, self.parameters
        if unknown := sorted(given.keys() - known):
            raise UsageError(f"no parameter {unknown[0]!r}; there are {', '.join(known)}")
        if doubled := [name for name in given if len(given.getlist(name)) > 1]:
            raise UsageError(f"{doubled[0]} is given twice")
        numbers: dict[str, Any] = {
            name: _number(name, text, known[name]["schema"]) for name, text in given.items() if name != "name"
        }
        name = given.get("name", "request")
        if not 0 < len(name) <= known["name"]["schema"]["maxLength"]:
            raise UsageError("name has 1 to 200 characters")
        threshold = numbers.pop("threshold", self.threshold)
        return Job(b"", name, replace(self.reading, **numbers)), threshold


def _number(name: str, text: str, schema: dict[str, float]) -> float:
    """A number within the bounds that the interface states."""
    try:
        value = float(text) if text.isascii() else float("nan")
    except ValueError:
        value = float("nan")
    above = value > schema["exclusiveMinimum"] if "exclusiveMinimum" in schema else value >= schema["minimum"]
    if not (above and value <= schema["maximum"]):
        least = schema.get("minimum", schema.get("exclusiveMinimum"))
        raise UsageError(f"{name} is {text!r}: it must be a number from {least} to {schema['maximum']}")
    return value


def _as_json(rows: Predictions) -> bytes:
    """The rows of the score table, with the names of their flags and why they were refused."""
    found = [json.loads(line) for line in _JSONL.rows(rows.columns(positions=True)).splitlines()]
    for number, row in enumerate(found):
        row["flags"] = [flag.name for flag in QualityFlag(row["quality"])]
        row["error"] = one_line([rows.errors[number]])[0] if number in rows.errors else None
    return json.dumps({"rows": found}).encode()


def _refusal(status: int, reason: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": reason}, status, headers)


def _busy() -> Response:
    return _refusal(503, "too many requests wait: come again", {"Retry-After": "1"})


async def _http_error(_: Request, error: Exception) -> Response:
    status, headers = (error.status_code, error.headers) if isinstance(error, HTTPException) else (500, None)
    return _refusal(status, str(getattr(error, "detail", error)), dict(headers or {}))


def make_service(
    classifier: Classifier,
    *,
    reading: Reading | None = None,
    threshold: float | None = None,
    token: str | None = None,
    local: bool = True,
    workers: int | None = None,
    max_body: int = MAX_BODY,
    max_waiting: int = MAX_WAITING,
    patience: float = PATIENCE,
) -> Starlette:
    """The ASGI application of the service, for any ASGI server.

    Parameters
    ----------
    classifier : Classifier
        Loaded with one thread: batches run beside each other.
    reading : Reading, optional
        How files are read where a request says nothing else.
    threshold : float, optional
        As in `classify`, where a request says nothing else.
    token : str, optional
        What requests must carry.
    local : bool
        Refuse requests that were sent to another name than this machine's loopback.
    workers : int, optional
        Batches under way at a time; by default the cores that this process may use.
    max_body : int
        Bytes of one request's body; four times as much is held at a time.
    max_waiting : int
        Requests on their way at a time.
    patience : float
        Seconds that the body of a request may take to arrive; then the answer is 408.

    Raises
    ------
    UsageError
        The threshold makes no sense for the model.
    """
    classifier.decide(classifier.predict([]), threshold, None)
    service = _Service(
        classifier, reading or Reading(), threshold, workers or cores(), max_body, max_waiting, patience
    )
    schema = openapi(classifier.record.id, classifier.classes, token=token is not None)

    async def description(_: Request) -> Response:
        return JSONResponse(schema)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        service.gatherer.start()
        yield
        service.gatherer.stop()

    return Starlette(
        routes=[
            Route("/score", service.score, methods=["POST"]),
            Route("/health", service.health),
            Route("/metrics", service.metrics),
            Route("/openapi.json", description),
        ],
        middleware=[Middleware(_Guard, token=token, local=local, count=service.count)],
        exception_handlers={HTTPException: _http_error},
        lifespan=lifespan,
    )


def serve(
    app: Starlette, *, host: str = "127.0.0.1", port: int | None = None, say: Callable[[str], None] = print
) -> None:
    """Serve an application of `make_service`; returns when it is interrupted and what came is answered.

    Parameters
    ----------
    app : Starlette
    host : str
        Name or address of the interface.
    port : int, optional
        8766, or another that is free, if not given.
    say : callable
        Gets the address.

    Raises
    ------
    UsageError
        The host or the port cannot be used.
    """
    with closing(listen(host, *((USUAL_PORT, 0) if port is None else (port,)))) as listener:
        name = f"[{host}]" if ":" in host else host
        say(f"http://{name}:{listener.getsockname()[1]}: POST /score; /health, /metrics, /openapi.json")
        config = uvicorn.Config(
            app, log_level="error", access_log=False, server_header=False, timeout_graceful_shutdown=10
        )
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
