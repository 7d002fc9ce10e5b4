"""The page's server: static files of the package, and a small JSON interface.

What a client sends is never part of a file's name: candidates are numbers, static files are the names below.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from ..errors import OutputError, TransientnetError, UsageError
from ..models.classifier import Classifier, load_model
from ..scoring.web import LOOPBACK
from .candidates import pack_stamps
from .gate import HANDLERS, Gate, Json, body_of, labeller_of
from .journal import NONE
from .session import Session, class_keys
from .training import Training

__all__ = ["GUIDE", "Options", "make_app"]

GUIDE = (
    *("supernova_on_galaxy", "supernova_faint", "nuclear_agn", "variable_star", "variable_star_fading"),
    *("asteroid", "hostless", "dipole", "cosmic_ray", "saturated_star"),
)
"""Simulated examples of the field guide."""

_SCRIPTS = (
    *("app", "curve", "grid", "guide", "lightcurve", "notices", "one", "outbox"),
    *("panel", "server", "stamps", "state", "touch"),
)
STATIC = {
    "index.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    **{f"{name}.js": "text/javascript; charset=utf-8" for name in _SCRIPTS},
    "icon.svg": "image/svg+xml",
    **{f"guide-{name}.png": "image/png" for name in GUIDE},
}
MAX_ANSWERS = 64
MAX_STAMPS = 96
FIRST_LOOK = 5.0
"""Seconds for which the model waits for somebody to open the page."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a run chooses for its page.

    Attributes
    ----------
    title : str
        What the page calls the run: the table's name.
    keys : mapping
        Class to the letter that labels it, where the user chose one.
    links : sequence of (str, str)
        Names and addresses of outside pages about a candidate; ``{ra}``, ``{dec}`` (degrees) and ``{id}`` are
        put in.
    goal : int
        Labels that somebody wants to reach.
    hosts : iterable of str
        Names by which the server may be called.
    """

    title: str
    keys: Mapping[str, str] = field(default_factory=dict)
    links: Sequence[tuple[str, str]] = ()
    goal: int = 200
    hosts: Iterable[str] = LOOPBACK


def make_app(
    session: Session, training: Training, token: str, options: Options, classifier: Classifier | None = None
) -> Starlette:
    """The ASGI application of one labelling run.

    Parameters
    ----------
    session : Session
    training : Training
    token : str
        First part of every address.
    options : Options
    classifier : Classifier, optional
        Judges the candidates, and so orders the queue, while the first are labelled.
    """
    page = _Page(session, training, options)
    folder = resources.files(__package__) / "static"
    files = {name: ((folder / name).read_bytes(), kind) for name, kind in STATIC.items()}

    async def static(request: Request) -> Response:
        found = files.get(request.path_params.get("name", "index.html"))
        if found is None:
            return Json({"error": "no such page"}, status_code=404)
        return Response(found[0], headers={"content-type": found[1]})

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(page.keep_table())]
        if classifier is not None:
            tasks.append(asyncio.create_task(page.judge_in_turn(classifier)))
        yield
        for task in tasks:
            task.cancel()
        training.stop()

    routes = [
        Route("/api/session", page.session),
        Route("/api/order", page.order),
        Route("/api/stamps", page.stamps),
        Route("/api/history", page.history),
        Route("/api/progress", page.progress),
        Route("/api/answers", page.answers, methods=["POST"]),
        Route("/api/undo", page.undo, methods=["POST"]),
        Route("/api/given", page.given),
        Route("/api/opinion", page.opinion, methods=["POST"]),
        Route("/api/train", page.train, methods=["POST"]),
        Route("/api/table", page.table),
        Route("/{name}", static),
        Route("/", static, name="index"),
    ]
    return Starlette(
        routes=[Mount(f"/{token}", routes=routes)],
        middleware=[
            Middleware(Gate, token=token, hosts=options.hosts),
            # For phones on a slow network; more of it costs more than it saves on any other.
            Middleware(GZipMiddleware, minimum_size=1024, compresslevel=1),
        ],
        exception_handlers=HANDLERS,
        lifespan=lifespan,
    )


class _Page:
    def __init__(self, session: Session, training: Training, options: Options) -> None:
        self._session, self._training, self._options = session, training, options
        self._changed = asyncio.Event()
        self._shown = asyncio.Event()
        #: labeller and visit of the page -> number of the last answer that is on disk
        self._heard: dict[tuple[str, str], int] = {}
        self._task: asyncio.Task[None] | None = None
        self._refit: asyncio.Task[None] | None = None
        self._trouble = ""

    async def keep_table(self) -> None:
        """Write the table soon after each change; the journal has every answer already."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(0.5)
            self._changed.clear()
            try:
                self._session.journal.write_table()
                self._trouble = ""
            except OutputError as error:
                self._trouble = f"{error}. Answers go on to the journal; the table follows when it can."
                self._changed.set()
                await asyncio.sleep(2)

    async def judge_in_turn(self, classifier: Classifier) -> None:
        """Judge, but show first: who opens the page at once has their stamps before a core is busy."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._shown.wait(), FIRST_LOOK)
        await self.judge(classifier)

    async def judge(self, classifier: Classifier) -> None:
        """Put the queue in the order that a model suggests, once it has seen all candidates."""
        judgement = await asyncio.to_thread(self._session.candidates.judge, classifier)
        (await asyncio.to_thread(self._session.taking(judgement)))()
        self._learn()

    async def session(self, request: Request) -> Response:
        labeller = labeller_of(request.query_params.get("labeller"))
        run = self._session
        return Json(
            {
                "title": self._options.title,
                "links": self._options.links,
                "goal": min(self._options.goal, len(run.candidates)),
                "classes": run.classes,
                "keys": class_keys(run.classes, self._options.keys),
                "ids": [item.id for item in run.candidates.items],
                "order": run.order,
                "answers": run.answers_of(labeller),
                **self._state(labeller),
            }
        )

    async def order(self, _: Request) -> Response:
        return Json(self._session.order)

    async def stamps(self, request: Request) -> Response:
        rows = [self._row(text) for text in request.query_params.get("rows", "").split(",")[:MAX_STAMPS]]
        parts = []
        for row in rows:
            about = json.dumps({"row": row, **self._session.describe(row)}).encode("ascii")
            about += b" " * (len(about) % 2)
            packed = pack_stamps(self._session.candidates.triplet(row))
            parts += [len(about).to_bytes(4, "little"), len(packed).to_bytes(4, "little"), about, packed]
        self._shown.set()
        return Response(b"".join(parts), media_type="application/octet-stream")

    async def history(self, request: Request) -> Response:
        """The light curve of one candidate, as far as its packet has one."""
        row = self._row(request.query_params.get("row"))
        found = await asyncio.to_thread(self._session.candidates.history, row)
        return Json([point._asdict() for point in found])

    async def progress(self, request: Request) -> Response:
        return Json(self._state(labeller_of(request.query_params.get("labeller"))))

    async def answers(self, request: Request) -> Response:
        """Keep answers in their order; a request that is sent again after a broken connection counts once."""
        body = await body_of(request)
        labeller, visit, answers = (
            labeller_of(body.get("labeller")),
            str(body.get("visit")),
            body.get("answers"),
        )
        if not isinstance(answers, list) or not 0 < len(answers) <= MAX_ANSWERS:
            raise UsageError(f"answers must be a list of 1 to {MAX_ANSWERS}")
        last, new = self._heard.get((labeller, visit), 0), []
        for answer in answers:
            if not isinstance(answer, dict) or type(answer.get("number")) is not int:
                raise UsageError("an answer is an object with a number, a row, a kind, a label and a note")
            if answer["number"] > last:
                last = answer["number"]
                kind, label, note = (str(answer.get(name, "")) for name in ("kind", "label", "note"))
                new.append((self._row(answer.get("row")), kind or NONE, label, note))
        if new:
            self._session.answer(labeller, new)
            self._heard[labeller, visit] = last
            self._changed.set()
            self._learn()
        return Json(self._state(labeller))

    def _learn(self) -> None:
        """Fit the head anew, in another thread, if so many labels have come since the last time."""
        if self._refit is None or self._refit.done():
            self._refit = asyncio.create_task(self._fit())

    async def _fit(self) -> None:
        while self._session.due():
            (await asyncio.to_thread(self._session.fitting()))()

    async def undo(self, request: Request) -> Response:
        labeller = labeller_of((await body_of(request)).get("labeller"))
        row = self._session.undo(labeller)
        self._changed.set()
        answer = None if row is None else self._session.answers_of(labeller).get(row)
        return Json({"row": row, "answer": answer, **self._state(labeller)})

    async def opinion(self, request: Request) -> Response:
        body = await body_of(request)
        return Json(self._session.opinion(labeller_of(body.get("labeller")), self._row(body.get("row"))))

    async def given(self, request: Request) -> Response:
        """What everybody said of a candidate in dispute."""
        row = self._row(request.query_params.get("row"))
        if row not in self._session.disputed():
            raise UsageError("nobody disagrees about this candidate")
        return Json(self._session.given(row))

    async def table(self, _: Request) -> Response:
        self._session.journal.write_table()
        name = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in self._options.title)
        headers = {"content-disposition": f'attachment; filename="{name}"'}
        return Response(self._session.journal.table.read_bytes(), media_type="text/csv", headers=headers)

    async def train(self, request: Request) -> Response:
        labeller = labeller_of((await body_of(request)).get("labeller"))
        if self._training.state == "unavailable":
            raise UsageError("training needs an optional dependency: pip install 'transientnet[adapt,label]'")
        if not self._training.busy:
            self._session.journal.write_table()
            self._training.state = "running"
            self._task = asyncio.create_task(self._train())
        return Json(self._state(labeller))

    async def _train(self) -> None:
        model = await self._training.run()
        if model is None:
            return
        self._training.state = "ordering"
        try:
            await self.judge(load_model(model))
        except TransientnetError as error:
            self._training.fail(str(error))
        else:
            self._training.state = "done"

    def _state(self, labeller: str) -> dict[str, Any]:
        return {
            "next": self._session.upcoming(labeller),
            "again": self._session.again(labeller),
            "progress": self._session.progress(labeller),
            "training": self._training.status(),
            "trouble": self._trouble,
        }

    def _row(self, value: Any) -> int:
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
            value = int(value)
        if type(value) is not int or not 0 <= value < len(self._session.candidates):
            raise UsageError(f"no candidate number {str(value)[:40]!r}")
        return value
