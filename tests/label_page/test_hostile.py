"""Requests that no page sends, a disk that is full, names that are no text: never a 500."""

from __future__ import annotations

import asyncio
import csv
import errno
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from browsing import label_server, save, stamps
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from label_requests import TOKEN, ask, body

from transientnet.errors import OutputError
from transientnet.label_page.candidates import Candidates
from transientnet.label_page.journal import Journal
from transientnet.label_page.session import Session

PARTS = ("session", "stamps", "progress", "answers", "undo", "opinion", "train", "table", "refit", "")
DEEP = b"[" * 50_000 + b"]" * 50_000


@pytest.mark.parametrize("host", ["[", "", "[::1", "localhost:x:y", "\xff", "[]", "localhost@evil"])
def test_malformed_hosts_are_strangers(client: Any, host: str) -> None:
    assert client("GET", f"/{TOKEN}/", {"host": host}).status_code == 403


@pytest.mark.parametrize("origin", ["http://[", "[", "http://[::1", "null", ""])
def test_malformed_origins_are_strangers(client: Any, origin: str) -> None:
    assert client("GET", f"/{TOKEN}/", {"origin": origin}).status_code == 403


@pytest.mark.parametrize("path", ["*", "", "/", "//", "/é/", "/\ud800/"])
def test_addresses_without_the_key_are_refused(client: Any, path: str) -> None:
    assert client("OPTIONS", path).status_code == 403


@pytest.mark.parametrize(
    "content",
    [DEEP, b"", b"{", b"\xff\xfe", b"[]", b"1", b'{"labeller": "ana", "labeller": "bob"}', b'{"a": NaN}'],
    ids=lambda content: repr(content[:12]),
)
def test_bodies_that_are_no_request_are_refused(client: Any, content: bytes) -> None:
    answer = client("POST", f"/{TOKEN}/api/undo", {"content-type": "application/json"}, content=content)
    assert answer.status_code == 400
    assert answer.json()["error"]


@pytest.mark.parametrize("row", ["1e999", "-1e999", "true", "1.0", '"\\ud800"', "9" * 5000, "[[]]", '"3"'])
def test_a_row_is_a_whole_number(client: Any, session: Session, row: str) -> None:
    sent = json.dumps(body(row=0)).replace('"row": 0', f'"row": {row}')
    answer = client("POST", f"/{TOKEN}/api/answers", {"content-type": "application/json"}, content=sent)
    assert answer.status_code == (200 if row == '"3"' else 400)


def test_half_a_surrogate_pair_in_a_note_is_kept_and_read_back(client: Any, session: Session) -> None:
    note = "ghost \ud83d\rof the mirror"
    row = session.order[0]
    assert client("POST", f"/{TOKEN}/api/answers", json=body(row=row, note=note)).status_code == 200
    answers = client("GET", f"/{TOKEN}/api/session?labeller=ana").json()["answers"]
    assert answers[str(row)] == ["label", "real", note]
    session.journal.close()
    again = Journal(session.journal.table)
    assert [answer.note for answer in again.answers["ana"].values()] == [note]
    again.close()
    with open(again.table, newline="", encoding="utf-8") as stream:
        assert [row["note"] for row in csv.DictReader(stream)] == ["ghost \\ud83d\\rof the mirror"]


def test_one_wrong_answer_refuses_the_whole_request(client: Any, session: Session) -> None:
    """The page says that none was saved, so none may be."""
    sent = body(row=session.order[0])
    sent["answers"].append({**sent["answers"][0], "number": 2, "row": session.order[1], "label": "unicorn"})
    before = session.journal.path.read_bytes()
    assert client("POST", f"/{TOKEN}/api/answers", json=sent).status_code == 400
    assert session.journal.path.read_bytes() == before
    sent["answers"][1]["label"] = "bogus"
    assert client("POST", f"/{TOKEN}/api/answers", json=sent).json()["progress"]["mine"] == 2


class FullDisk:
    """The journal's file on a disk that takes ten bytes more."""

    def __init__(self, file: Any) -> None:
        self._file, self.room = file, 10

    def write(self, data: bytes) -> int:
        if self.room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken, self.room = data[: self.room], 0
        return int(self._file.write(taken))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def test_a_full_disk_tears_no_line_and_the_same_request_is_kept_later(client: Any, session: Session) -> None:
    journal = session.journal
    client("POST", f"/{TOKEN}/api/answers", json=body(row=session.order[0]))
    before, file = journal.path.read_bytes(), journal._file
    sent = body(row=session.order[1], number=2)
    journal._file = FullDisk(file)  # type: ignore[assignment]
    answer = client("POST", f"/{TOKEN}/api/answers", json=sent)
    assert answer.status_code == 507
    assert "No space left" in answer.json()["error"]
    assert journal.path.read_bytes() == before
    journal._file = file
    assert client("POST", f"/{TOKEN}/api/answers", json=sent).json()["progress"]["mine"] == 2
    journal.close()
    again = Journal(journal.table)
    assert len(again.labels()) == 2
    again.close()


def test_a_table_that_cannot_be_written_is_written_later(
    page: Any, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [OutputError("my.csv cannot be written: No space left on device")]
    write = session.journal.write_table

    def failing() -> None:
        if failures:
            raise failures.pop()
        write()

    monkeypatch.setattr(session.journal, "write_table", failing)

    async def run() -> None:
        async with page.router.lifespan_context(page):
            await ask(page, "POST", f"/{TOKEN}/api/answers", json=body(row=0))
            while not session.journal.table.exists():
                await asyncio.sleep(0.05)

    asyncio.run(asyncio.wait_for(run(), 60))
    assert not failures


def test_names_that_are_no_text_stay_on_a_row(tmp_path: Path) -> None:
    name = b"\xff.npz" if os.name == "posix" else b"x.npz"
    with open(os.path.join(os.fsencode(tmp_path), name), "wb") as stream:
        np.savez(stream, triplets=stamps(3), id=np.array(["a\rb", "c", "d"]))
    journal = Journal(tmp_path / "my.csv")
    candidates = Candidates([str(tmp_path)], tmp_path, {})
    session = Session(candidates, journal, ["bogus", "real"], 0.2)
    session.answer("ana", [(row, "label", "real", "") for row in range(3)])
    journal.close()
    candidates.close()
    text = (tmp_path / "my.csv").read_text(encoding="utf-8")
    assert [row["id"] for row in csv.DictReader(text.split("\n"))] == ["a\\rb", "c", "d"]
    again = Journal(tmp_path / "my.csv")
    assert len(again.labels()) == 3
    again.close()


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, 1, 7, "real", "bogus", "label", "unsure", "skip", "none", "ana", 1e308, -1])
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=12)
)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner))
FIELDS = ("labeller", "visit", "row", "rows", "answers", "kind", "label", "note", "number")
ANSWERS = st.lists(st.dictionaries(st.sampled_from(FIELDS), VALUES), max_size=3) | VALUES
BODIES = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(FIELDS, VALUES) | {"labeller": st.just("ana") | VALUES, "answers": ANSWERS}
)
HEADERS = st.dictionaries(
    st.sampled_from(
        ["host", "origin", "content-type", "content-length", "accept-encoding", "sec-fetch-site"]
    ),
    st.sampled_from(["application/json", "localhost:8765", "gzip", "none", "-1", "[", "http://[", ""])
    | st.text(st.characters(max_codepoint=255), max_size=12),
    max_size=2,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["GET", "POST", "POST", "POST", "HEAD", "OPTIONS", "PUT", "ab"]),
    part=st.sampled_from(PARTS) | st.text(max_size=8),
    query=st.text(max_size=12)
    | st.sampled_from(["labeller=ana", "rows=1,2", "rows=", "labeller=", "rows=-1"]),
    headers=HEADERS,
    content=BODIES.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=40),
)
def test_no_request_is_a_server_error(
    client: Callable[..., Any],
    session: Session,
    method: str,
    part: str,
    query: str,
    headers: Any,
    content: bytes,
) -> None:
    if part == "train":
        method = "GET"
    given = {"content-type": "application/json", **headers}
    answer = client(method, f"/{TOKEN}/api/{part.replace('?', '')}?{query}", given, content=content)
    assert answer.status_code < 500


def test_raw_bytes_do_not_break_the_running_server(tmp_path: Path) -> None:
    save(tmp_path)
    with label_server(tmp_path) as (process, url):
        at = urlsplit(url)

        def send(*lines: str, content: bytes = b"") -> bytes:
            with socket.create_connection(("127.0.0.1", at.port or 0), timeout=10) as link:
                link.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + content)
                link.shutdown(socket.SHUT_WR)
                found = b""
                while part := link.recv(65536):
                    found += part
            return found.split(b"\r\n")[0]

        host, post = f"Host: 127.0.0.1:{at.port}", f"POST {at.path}api/answers HTTP/1.1"
        kind = "Content-Type: application/json"
        for length in ("-1", "abc", "1e3", "99999999999999999999", "5, 6", "0x10", "", " 3", "50"):
            status = send(post, host, kind, f"Content-Length: {length}", content=b"{}")
            assert b" 500 " not in status, length
        for lines in (
            ("OPTIONS * HTTP/1.1", host),
            (f"GET {at.path} HTTP/1.1", "Host: ["),
            (f"GET {at.path} HTTP/1.1", host, "Origin: http://["),
            (f"GET {at.path} HTTP/1.1",),
            ("GET http://[/ HTTP/1.1", host),
            (post, host, kind, "Transfer-Encoding: chunked"),
        ):
            assert b" 500 " not in send(*lines), lines
        assert b" 200 " in send(f"GET {at.path} HTTP/1.1", host, "Connection: close")
        assert process.poll() is None
