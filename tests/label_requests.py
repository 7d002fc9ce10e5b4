"""Requests to the labelling page's application, as a server would hand them on; no socket."""

from __future__ import annotations

import json as json_
from typing import Any

TOKEN = "secret"


def body(**answer: Any) -> dict[str, Any]:
    """A request that carries one answer."""
    answers = [{"number": 1, "kind": "label", "label": "real", "note": "", **answer}]
    return {"labeller": "ana", "visit": "v", "answers": answers}


class Answered:
    """What came back: status, headers, body."""

    def __init__(self, messages: list[Any]) -> None:
        self.status_code = messages[0]["status"]
        self.headers = {k.decode(): v.decode() for k, v in messages[0]["headers"]}
        self.content = b"".join(message.get("body", b"") for message in messages[1:])
        self.text = self.content.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body as JSON."""
        return json_.loads(self.content)


async def ask(
    app: Any, method: str, path: str, headers: Any = None, *, json: Any = None, content: Any = b""
) -> Answered:
    """Send one request, the bytes of path and headers as they are."""
    given = {"host": "localhost:8765", **(headers or {})}
    if json is not None:
        content = json_.dumps(json)
        given.setdefault("content-type", "application/json")
    plain, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": plain,
        "raw_path": plain.encode("utf-8", "surrogatepass"),
        "query_string": query.encode("utf-8", "surrogatepass"),
        "root_path": "",
        "headers": [(k.encode("latin-1"), v.encode("latin-1")) for k, v in given.items()],
        "server": ("localhost", 8765),
        "client": ("127.0.0.1", 1),
    }
    messages: list[Any] = []
    waiting = [
        {
            "type": "http.request",
            "body": content.encode() if isinstance(content, str) else content,
            "more_body": False,
        }
    ]

    async def receive() -> Any:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        messages.append(message)

    await app(scope, receive, send)
    return Answered(messages)
