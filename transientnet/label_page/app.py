"""The page's server: static files of the package, and a small JSON interface.

It listens on the loopback interface only. Every address begins with a secret token; a request without
it, from a page of another origin, or for another host name (DNS rebinding) is refused. What a client
sends is never part of a file's name: candidates are numbers, static files are the names below.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import TransientnetError, UsageError
from ..models.classifier import load_model
from ..scoring.web import foreign, headers_of, read_body
from .journal import NONE
from .session import MAX_NAME, Session, class_keys
from .training import Training

__all__ = ["make_app"]

STATIC = {
    "index.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "grid.js": "text/javascript; charset=utf-8",
    "outbox.js": "text/javascript; charset=utf-8",
    "server.js": "text/javascript; charset=utf-8",
    "stamps.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
MAX_BODY = 262_144
MAX_ANSWERS = 64
MAX_STAMPS = 96

_HEADERS = {
    b"content-security-policy": b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
    b"cache-control": b"no-store",
}


class _Gate:
    """Refuses what does not come from the page itself, before anything else looks at it."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_hardened(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS.items()]
            await send(message)

        reason = self._objection(scope)
        if reason is None:
            await self._app(scope, receive, send_hardened)
        else:
            await JSONResponse({"error": reason}, status_code=403)(scope, receive, send_hardened)

    def _objection(self, scope: Scope) -> str | None:
        if (reason := foreign(headers_of(scope))) is not None:
            return reason
        given = scope["path"].split("/")[1].encode()
        if not secrets.compare_digest(given, self._token):
            return "open the address that 'transientnet label' printed: it carries the key to this page"
        return None


def make_app(session: Session, training: Training, token: str, title: str) -> Starlette:
    """The ASGI application of one labelling run.

    Parameters
    ----------
    session : Session
    training : Training
    token : str
        First part of every address.
    title : str
        What the page calls the run: the table's name.
    """
    page = _Page(session, training, title)
    folder = resources.files(__package__) / "static"
    files = {name: ((folder / name).read_bytes(), kind) for name, kind in STATIC.items()}

    async def static(request: Request) -> Response:
        found = files.get(request.path_params.get("name", "index.html"))
        if found is None:
            return JSONResponse({"error": "no such page"}, status_code=404)
        return Response(found[0], headers={"content-type": found[1]})

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        writer = asyncio.create_task(page.keep_table())
        yield
        writer.cancel()
        training.stop()

    routes = [
        Route("/api/session", page.session),
        Route("/api/stamps", page.stamps),
        Route("/api/progress", page.progress),
        Route("/api/answers", page.answers, methods=["POST"]),
        Route("/api/undo", page.undo, methods=["POST"]),
        Route("/api/opinion", page.opinion, methods=["POST"]),
        Route("/api/train", page.train, methods=["POST"]),
        Route("/api/table", page.table),
        Route("/{name}", static),
        Route("/", static, name="index"),
    ]
    return Starlette(
        routes=[Mount(f"/{token}", routes=routes)],
        middleware=[Middleware(_Gate, token=token), Middleware(GZipMiddleware, minimum_size=1024)],
        exception_handlers={TransientnetError: _refuse},
        lifespan=lifespan,
    )


async def _refuse(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, status_code=400)


class _Page:
    def __init__(self, session: Session, training: Training, title: str) -> None:
        self._session, self._training, self._title = session, training, title
        self._changed = asyncio.Event()
        #: labeller and visit of the page -> number of the last answer that is on disk
        self._heard: dict[tuple[str, str], int] = {}
        self._task: asyncio.Task[None] | None = None

    async def keep_table(self) -> None:
        """Write the table soon after each change; the journal has every answer already."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(0.5)
            self._changed.clear()
            self._session.journal.write_table()

    async def session(self, request: Request) -> Response:
        labeller = _labeller(request.query_params.get("labeller"))
        run = self._session
        return JSONResponse(
            {
                "title": self._title,
                "classes": run.classes,
                "keys": class_keys(run.classes),
                "ids": [item.id for item in run.candidates.items],
                "order": run.order,
                "answers": run.answers_of(labeller),
                **self._state(labeller),
            }
        )

    async def stamps(self, request: Request) -> Response:
        rows = [self._row(text) for text in request.query_params.get("rows", "").split(",")[:MAX_STAMPS]]
        parts = []
        for row in rows:
            about = json.dumps({"row": row, **self._session.describe(row)}).encode()
            about += b" " * (len(about) % 2)
            packed = self._session.candidates.stamps(row)
            parts += [len(about).to_bytes(4, "little"), len(packed).to_bytes(4, "little"), about, packed]
        return Response(b"".join(parts), media_type="application/octet-stream")

    async def progress(self, request: Request) -> Response:
        return JSONResponse(self._state(_labeller(request.query_params.get("labeller"))))

    async def answers(self, request: Request) -> Response:
        """Keep answers in their order; a request that is sent again after a broken connection counts once."""
        body = await _body(request)
        labeller, visit, answers = (
            _labeller(body.get("labeller")),
            str(body.get("visit")),
            body.get("answers"),
        )
        if not isinstance(answers, list) or not 0 < len(answers) <= MAX_ANSWERS:
            raise UsageError(f"answers must be a list of 1 to {MAX_ANSWERS}")
        for answer in answers:
            if not isinstance(answer, dict) or not isinstance(answer.get("number"), int):
                raise UsageError("an answer is an object with a number, a row, a kind, a label and a note")
            if answer["number"] <= self._heard.get((labeller, visit), 0):
                continue
            kind, label, note = (str(answer.get(name, "")) for name in ("kind", "label", "note"))
            self._session.answer(labeller, self._row(answer.get("row")), kind or NONE, label, note)
            self._heard[labeller, visit] = answer["number"]
            self._changed.set()
        return JSONResponse(self._state(labeller))

    async def undo(self, request: Request) -> Response:
        labeller = _labeller((await _body(request)).get("labeller"))
        row = self._session.undo(labeller)
        self._changed.set()
        answer = None if row is None else self._session.answers_of(labeller).get(row)
        return JSONResponse({"row": row, "answer": answer, **self._state(labeller)})

    async def opinion(self, request: Request) -> Response:
        body = await _body(request)
        return JSONResponse(
            self._session.opinion(_labeller(body.get("labeller")), self._row(body.get("row")))
        )

    async def table(self, _: Request) -> Response:
        self._session.journal.write_table()
        name = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in self._title)
        headers = {"content-disposition": f'attachment; filename="{name}"'}
        return Response(self._session.journal.table.read_bytes(), media_type="text/csv", headers=headers)

    async def train(self, request: Request) -> Response:
        labeller = _labeller((await _body(request)).get("labeller"))
        if self._training.state == "unavailable":
            raise UsageError("training needs an optional dependency: pip install 'transientnet[adapt,label]'")
        if not self._training.busy:
            self._session.journal.write_table()
            self._training.state = "running"
            self._task = asyncio.create_task(self._train())
        return JSONResponse(self._state(labeller))

    async def _train(self) -> None:
        model = await self._training.run()
        if model is None:
            return
        self._training.state = "ordering"
        candidates = self._session.candidates
        try:
            judgement = await asyncio.to_thread(lambda: candidates.judge(load_model(model)))
            self._session.use(judgement)
        except TransientnetError as error:
            self._training.fail(str(error))
        else:
            self._training.state = "done"

    def _state(self, labeller: str) -> dict[str, Any]:
        return {
            "next": self._session.upcoming(labeller),
            "progress": self._session.progress(labeller),
            "training": self._training.status(),
        }

    def _row(self, value: Any) -> int:
        try:
            row = int(value)
        except (TypeError, ValueError):
            row = -1
        if not 0 <= row < len(self._session.candidates):
            raise UsageError(f"no candidate number {value!r}")
        return row


def _labeller(value: Any) -> str:
    name = " ".join(str(value or "").split())
    if not name or len(name) > MAX_NAME or not name.isprintable() or any(c in name for c in ";:+"):
        raise UsageError(f"a labeller's name has 1 to {MAX_NAME} characters, without ; : or +")
    return name


async def _body(request: Request) -> dict[str, Any]:
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise UsageError("the body must be application/json")
    data = await read_body(request, MAX_BODY)
    try:
        body = json.loads(data)
    except ValueError as error:
        raise UsageError(f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise UsageError("the body must be a JSON object")
    return body
