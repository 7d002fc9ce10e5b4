"""Servers on loopback, one that misbehaves on request and one that speaks the Hub's protocol; a model."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np

from transientnet.triplet import Triplet


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are part of the tests."""


class FileServer:
    """Serves a folder; `faults` maps a path's ending to what goes wrong."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.faults: dict[str, str] = {}
        self.requests: list[tuple[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                outer.answer(self)

        self.server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"

    def gets(self, ending: str) -> int:
        return sum(path.endswith(ending) for path, _ in self.requests)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = urlsplit(handler.path).path
        span = handler.headers.get("Range", "")
        self.requests.append((path, span))
        fault = next((value for key, value in self.faults.items() if path.endswith(key)), "")
        file = self.folder / path.lstrip("/")
        if (fault.isascii() and fault.isdigit()) or not file.is_file():
            handler.send_error(int(fault or 404))
            return
        data = file.read_bytes()
        if fault == "html":
            data = b"<html>please log in</html>"
            handler.send_response(200)
            handler.send_header("Content-Type", "text/html")
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            handler.wfile.write(data)
            return
        if fault == "flipped":
            data = data[:-1] + bytes([data[-1] ^ 1])
        if fault == "longer":
            data += b"more"
        if fault == "headers":
            return _dribble(handler)
        if fault.startswith("length "):
            handler.send_response(200)
            handler.send_header("Content-Length", fault.removeprefix("length "))
            handler.end_headers()
            handler.wfile.write(data)
            return
        if fault == "redirect":
            handler.send_response(302)
            handler.send_header("Location", "ftp://127.0.0.1/x")
            handler.end_headers()
            return
        start = int(span.removeprefix("bytes=").rstrip("-")) if span and fault != "flipped" else 0
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        body = data[start:]
        if fault != "unbounded":
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if fault == "unbounded":
            body = data + data
        if fault in ("cut", "cut once"):
            body = body[: len(body) // 2]
            if fault == "cut once":
                self.faults.clear()
        if fault == "silent":
            time.sleep(3)
            return
        if fault == "drip":
            for byte in body:
                handler.wfile.write(bytes([byte]))
                time.sleep(0.05)
        handler.wfile.write(body)


def _dribble(handler: BaseHTTPRequestHandler) -> None:
    """A line of the headers that is never finished, for eight seconds without a long silence."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    for _ in range(400):
        handler.wfile.write(b"a")
        time.sleep(0.02)


class Hub:
    """One repository with commits, as huggingface_hub reads and writes it."""

    def __init__(self, name: str = "team/models") -> None:
        self.name = name
        self.commits: dict[str, dict[str, bytes]] = {}
        self.main = ""
        self.dribbles = False
        self.add({".gitattributes": b""})
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def do_HEAD(self) -> None:
                outer.read(self, with_body=False)

            def do_GET(self) -> None:
                outer.read(self, with_body=True)

            def do_POST(self) -> None:
                outer.write(self)

        self.server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def add(self, files: dict[str, bytes]) -> str:
        merged = {**self.commits.get(self.main, {}), **files}
        self.main = hashlib.sha1(repr((self.main, sorted(merged.items()))).encode()).hexdigest()
        self.commits[self.main] = merged
        return self.main

    def read(self, handler: BaseHTTPRequestHandler, with_body: bool) -> None:
        if self.dribbles:
            return _dribble(handler)
        parts = unquote(urlsplit(handler.path).path).strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            return _json(handler, {"id": self.name, "modelId": self.name, "sha": self.main, "siblings": []})
        if len(parts) < 5 or parts[2] != "resolve":
            return _json(handler, {}, 404)
        revision = self.main if parts[3] == "main" else parts[3]
        if parts[:2] != self.name.split("/"):
            return _json(handler, {}, 404, {"X-Error-Code": "RepoNotFound"})
        if revision not in self.commits:
            return _json(handler, {}, 404, {"X-Error-Code": "RevisionNotFound"})
        data = self.commits[revision].get("/".join(parts[4:]))
        if data is None:
            return _json(handler, {}, 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": revision})
        handler.send_response(200)
        handler.send_header("X-Repo-Commit", revision)
        handler.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        if with_body:
            handler.wfile.write(data)

    def write(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        path = urlsplit(handler.path).path
        if path == "/api/repos/create":
            return _json(handler, {"url": f"{self.url}/{self.name}", "name": self.name})
        if path == "/api/validate-yaml":
            return _json(handler, {"errors": [], "warnings": []})
        if "/preupload/" in path:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return _json(handler, {"files": files})
        lines = [json.loads(line) for line in body.splitlines()]
        header = lines[0]["value"]
        if header.get("parentCommit") not in (None, self.main):
            return _json(handler, {"error": "the branch has moved"}, 412)
        commit = self.add(
            {
                line["value"]["path"]: base64.b64decode(line["value"]["content"])
                for line in lines
                if line["key"] == "file"
            }
        )
        return _json(
            handler,
            {
                "success": True,
                "commitOid": commit,
                "commitUrl": f"{self.url}/{self.name}/commit/{commit}",
                "hookOutput": "",
            },
        )


def _json(
    handler: BaseHTTPRequestHandler, data: Any, status: int = 200, headers: dict[str, str] | None = None
) -> None:
    body = json.dumps(data).encode()
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(body)))
    for name, value in (headers or {}).items():
        handler.send_header(name, value)
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)


@contextmanager
def running(server: FileServer | Hub) -> Iterator[None]:
    """Serve in a thread."""
    thread = threading.Thread(target=server.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.server.shutdown()
        server.server.server_close()
        thread.join()


def _stamps(n: int = 3) -> list[Triplet]:
    rng = np.random.default_rng(5)
    y, x = np.mgrid[-31:32, -31:32]
    star = 400 * np.exp(-(x**2 + y**2) / 8)
    triplets = []
    for row in range(n):
        science, reference = (rng.normal(100, 5, (63, 63)) for _ in range(2))
        triplets.append(Triplet(science + star, reference, science + star - reference, id=str(row)))
    return triplets


def model_folder(folder: Path, *, name: str = "nightly", version: str = "1.0.0", **changes: object) -> Path:
    """A folder as `adapt` leaves it: the bundled network under a name of its own, with vectors and card."""
    import onnx

    from transientnet.models.cards import write_card
    from transientnet.models.classifier import load_model
    from transientnet.models.registry.manifest import manifest_row, write_registry
    from transientnet.models.registry.resolve import resolve
    from transientnet.models.vectors import write_test_vectors
    from transientnet.transfer.export import METADATA_KEY

    folder.mkdir(parents=True)
    path, record = resolve("realbogus")
    status = changes.pop("status", "stable")
    successor = changes.pop("successor", "")
    record = dataclasses.replace(
        record, name=name, version=version, sources=(), test_vectors={}, card="", **changes
    )
    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, {METADATA_KEY: record.to_metadata()})
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    write_test_vectors(folder / "vectors.npz", load_model(folder / "model.onnx"), _stamps())
    card = write_card(record, folder)
    row = manifest_row(
        dataclasses.replace(record, status=status, successor=successor),
        folder / "model.onnx",
        vectors=folder / "vectors.npz",
        card=card.name,
    )
    write_registry(folder, [row])
    return folder
