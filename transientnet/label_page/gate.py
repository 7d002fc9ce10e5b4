"""What may come in: requests of the page itself, with the key in their address, of sound form and size.

Every address begins with a secret token; a request without it, from a page of another origin, or for another
host name (DNS rebinding) is refused before anything else looks at it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import OutputError, TransientnetError, UsageError
from ..files.strict_json import parse_json
from ..scoring.web import LOOPBACK, foreign, headers_of, read_body

__all__ = ["HANDLERS", "MAX_NAME", "Gate", "Json", "body_of", "labeller_of"]

MAX_BODY = 262_144
MAX_NAME = 40

_HEADERS = {
    b"content-security-policy": b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
    b"cache-control": b"no-store",
}


class Json(JSONResponse):
    """JSON in ASCII: an id may hold halves of surrogate pairs, which UTF-8 cannot."""

    def render(self, content: Any) -> bytes:
        """The body of the response."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


class Gate:
    """Refuses what does not come from the page itself.

    Parameters
    ----------
    app : ASGI application
    token : str
        First part of every address.
    hosts : iterable of str
        Names by which the server may be called, without a port.
    """

    def __init__(self, app: ASGIApp, token: str, hosts: Iterable[str] = LOOPBACK) -> None:
        self._app, self._token, self._hosts = app, token.encode(), frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102 (ASGI)
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
            await Json({"error": reason}, status_code=403)(scope, receive, send_hardened)

    def _objection(self, scope: Scope) -> str | None:
        if (reason := foreign(headers_of(scope), self._hosts)) is not None:
            return reason
        # "OPTIONS *" has a path without a slash.
        given = scope["path"].partition("/")[2].partition("/")[0].encode("utf-8", "replace")
        if not secrets.compare_digest(given, self._token):
            return "open the address that 'transientnet label' printed: it carries the key to this page"
        return None


async def refuse(_: Request, error: Exception) -> Response:
    """The answer to a request that makes no sense."""
    return Json({"error": str(error)}, status_code=400)


async def unwritten(_: Request, error: Exception) -> Response:
    """The answer where the disk refused: the page keeps what it sent, and tries again."""
    return Json({"error": str(error)}, status_code=507)


async def gone(_: Request, __: Exception) -> Response:
    """Whoever asked hung up in the middle of the request; nobody reads this."""
    return Response(status_code=400)


HANDLERS = {TransientnetError: refuse, OutputError: unwritten, ClientDisconnect: gone}


def labeller_of(value: Any) -> str:
    """A labeller's name, its spaces evened; raises `UsageError`."""
    name = " ".join(value.split()) if isinstance(value, str) else ""
    if not name or len(name) > MAX_NAME or not name.isprintable() or any(c in name for c in ";:+"):
        raise UsageError(f"a labeller's name has 1 to {MAX_NAME} characters, without ; : or +")
    return name


async def body_of(request: Request) -> dict[str, Any]:
    """The JSON object that a request carries; raises `UsageError` or `ContractError`."""
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise UsageError("the body must be application/json")
    data = await read_body(request, MAX_BODY)
    body = parse_json(data, "the request")
    if not isinstance(body, dict):
        raise UsageError("the body must be a JSON object")
    return body
